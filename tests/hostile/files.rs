//! Folders of migrations with everything that a file system can hold.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use unstuck::adapters::{files, rails};

use crate::{bounded, cases, harmless, shown};

/// What stands under a name.
#[derive(Debug, Clone, Copy)]
enum Kind {
    File,
    Folder,
    LinkToItself,
    LinkAbove,
    LinkToNothing,
    LinkToDevice,
    Pipe,
    Socket,
}

const KINDS: [Kind; 8] = [
    Kind::File,
    Kind::Folder,
    Kind::LinkToItself,
    Kind::LinkAbove,
    Kind::LinkToNothing,
    Kind::LinkToDevice,
    Kind::Pipe,
    Kind::Socket,
];

/// A name as the kernel allows it: any bytes but a slash and NUL.
fn name() -> impl Strategy<Value = OsString> {
    let odd = vec(any::<u8>(), 1..30)
        .prop_map(|bytes| bytes.into_iter().filter(|byte| !matches!(byte, 0 | b'/')).collect::<Vec<_>>());
    let near =
        (1_u32..9, odd.clone()).prop_map(|(version, odd)| [format!("{version}_").as_bytes(), &odd, b".rb"].concat());
    let usual = (1_u32..9, "[a-z]{1,9}").prop_map(|(version, name)| format!("{version}_{name}.rb").into_bytes());
    let long = (1_usize..260).prop_map(|length| [b"1_".to_vec(), vec![b'a'; length]].concat());
    let known = select(vec![
        "x.rb",
        "1_;rm -rf ~.rb",
        "1_$(id).rb",
        "-rf",
        "--help",
        "1_'\".rb",
        "1_\u{1b}]52;c;eA==\u{7}.rb",
        "**",
        "[",
        "{a,b}",
    ]);
    prop_oneof![odd, near, usual, long, known.prop_map(|name| name.as_bytes().to_vec())].prop_map(OsString::from_vec)
}

fn make(folder: &Path, name: &OsString, kind: Kind) {
    let path = folder.join(name);
    // A name that is taken, too long, or `..` makes nothing.
    let _ = match kind {
        Kind::File => fs::write(path, ""),
        Kind::Folder => fs::create_dir(&path).and_then(|()| fs::write(path.join("7_inside.rb"), "")),
        Kind::LinkToItself => symlink(name, path),
        Kind::LinkAbove => symlink("../..", path),
        Kind::LinkToNothing => symlink("nowhere", path),
        Kind::LinkToDevice => symlink("/dev/zero", path),
        Kind::Pipe => Command::new("mkfifo").arg("--").arg(path).status().map(drop),
        Kind::Socket => UnixListener::bind(path).map(drop),
    };
}

const PATHS: [&str; 14] = [
    "db/migrate",
    "db/../db/migrate",
    "./db//migrate/",
    "db",
    "*",
    "*/migrate",
    "**",
    "**/migrate",
    "*/*/*/*/*/*",
    "**/*/**/*",
    "{db,db}/{a,migrate}",
    "/dev",
    "db/migrate/*",
    "[",
];

proptest! {
    #![proptest_config(cases(48))]

    #[test]
    fn any_folder(entries in vec((name(), select(&KINDS[..])), 0..7), paths in vec(select(&PATHS[..]), 1..3)) {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("db/migrate");
        fs::create_dir_all(&folder).unwrap();
        for (name, kind) in entries {
            make(&folder, &name, kind);
        }
        let paths: Vec<String> = paths.into_iter().map(str::to_owned).collect();
        let found = bounded(64, || rails::migrations(root.path(), &paths));
        match found {
            Ok(found) => found.pending(&[]).iter().for_each(|migration| shown(&migration.path.to_string_lossy())),
            Err(error) => harmless(&error),
        }
    }

    #[test]
    fn any_pattern(pattern in "[ab*?{},\\[\\]./\\\\-]{0,24}") {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("a/b/a/b")).unwrap();
        for place in ["up", "a/up", "a/b/up"] {
            symlink(root.path(), root.path().join(place)).unwrap();
        }
        // It stays below the root, so that what it walks is what was made here.
        let pattern = format!("x/../{}", pattern.replace("..", "."));
        if let Err(error) = bounded(64, || files::list(root.path(), &[pattern])) {
            harmless(&error);
        }
    }
}

#[test]
fn patterns_that_stand_for_more_than_they_are() {
    let root = tempfile::tempdir().unwrap();
    for link in ["a", "b", "c"] {
        symlink(".", root.path().join(link)).unwrap();
    }
    for pattern in [
        "{a,b}".repeat(60),
        "{a,b}".repeat(100_000),
        "*/".repeat(30),
        "{".repeat(5_000),
        "{a,".repeat(2_000) + &"}".repeat(2_000),
        "**/".repeat(500),
        "**/*/".repeat(9),
        "[".repeat(5_000),
        "a".repeat(5_000),
        "a/".repeat(3_000),
    ] {
        let _ = bounded(64, || files::list(root.path(), std::slice::from_ref(&pattern)));
    }
}

#[test]
fn configuration_is_a_file_of_bounded_size() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("x");
    let says = |words: &str| {
        let error = bounded(8, || files::read_configuration(&path)).unwrap_err();
        assert_eq!(error.to_string(), words);
        let _ = fs::remove_file(&path);
    };
    fs::File::create(&path).unwrap().set_len(4 << 30).unwrap();
    says("longer than 1 MiB");
    assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
    says("not a file");
    symlink("/dev/zero", &path).unwrap();
    says("not a file");
    symlink(root.path(), &path).unwrap();
    says("not a file");
}
