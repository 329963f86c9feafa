//! What is read of other people's files, each of a bounded size: the names of migrations, their texts, and configuration.

use std::ffi::OsStr;
use std::fs::{self, DirEntry, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use glob::{MatchOptions, Pattern, PatternError};

use crate::error::{Error, Kind, Result};
use crate::migrations::{Files, is_candidate};
use crate::ruby::MAX_MIGRATION;

/// More entries than this are no folder of migrations, but a path that points at the wrong place.
const MAX_ENTRIES: usize = 2_000_000;

/// No path is longer, in bytes, and so no pattern for one.
const MAX_PATTERN_BYTES: usize = 4_096;

/// More than this, with braces written out, is no pattern that somebody meant.
const MAX_PATTERNS: usize = 1_000;

/// More folders than this are none either: `*/*/*` through links to a folder above finds the same ones again and again.
const MAX_FOLDERS: usize = 50_000;

/// No configuration is longer.
const MAX_CONFIGURATION_BYTES: u64 = 1 << 20;

/// The whole of a configuration file. A pipe or a device, which might never end, is an error; so is a file of more than
/// 1 MiB.
pub fn read_configuration(path: &Path) -> io::Result<Vec<u8>> {
    // Opening a pipe would otherwise wait for its other end.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("not a file"));
    }
    let mut bytes = Vec::new();
    file.take(MAX_CONFIGURATION_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_CONFIGURATION_BYTES {
        return Err(io::Error::other("longer than 1 MiB"));
    }
    Ok(bytes)
}

/// The content of a migration file: of a plain file that a hand can have written, since anything else may block or never end.
pub fn read_migration(path: &Path) -> Option<Vec<u8>> {
    let about = fs::metadata(path).ok()?;
    if !about.is_file() || about.len() > MAX_MIGRATION as u64 {
        return None;
    }
    fs::read(path).ok()
}

/// Everything that Rails would look at under `paths`, as `Dir["<path>/**/[0-9]*_*.rb"]` finds it: at any depth, without
/// hidden folders and without following links to folders (the path itself may be one). Relative paths count from `root`, and
/// what lies under `root` is returned relative to it. Paths that overlap give a file twice, as in Rails. A path that is not there holds nothing.
pub fn list(root: &Path, paths: &[String]) -> Result<Files> {
    let mut found = Files::default();
    let mut seen = 0;
    for path in paths {
        for top in expand(root, path, &mut seen)? {
            found.begin();
            walk(root, &top, &mut seen, &mut found)?;
        }
    }
    Ok(found)
}

/// Rails hands the path to `Dir.glob` unescaped: `engines/*/db/migrate` stands for several folders, and a folder whose name
/// holds a `[` is not found by that name.
fn expand(root: &Path, path: &str, seen: &mut usize) -> Result<Vec<PathBuf>> {
    let plain = path.trim_end_matches('/');
    let relative = |path: &Path| path.strip_prefix(root).unwrap_or(path).to_owned();
    if !is_pattern(plain) {
        return Ok(vec![relative(Path::new(plain))]);
    }
    let shown: String = path.chars().take(200).collect();
    let unusable =
        || Error::new(Kind::Input, format!("{shown}: this pattern for migrations cannot be read without Ruby"));
    let mut patterns = Vec::new();
    if plain.len() <= MAX_PATTERN_BYTES {
        braces(plain, &mut patterns);
    }
    if plain.contains('\\') || patterns.is_empty() || patterns.len() == MAX_PATTERNS {
        return Err(unusable());
    }
    let mut tops = Vec::new();
    for pattern in patterns {
        let steps = pattern.split('/').map(Step::parse).collect::<Result<Vec<_>, _>>();
        let start = if pattern.starts_with('/') { Path::new("/") } else { Path::new("") };
        let mut steps = steps.map_err(|cause| unusable().because(cause))?;
        steps.dedup_by(|later, earlier| matches!((later, earlier), (Step::Below, Step::Below)));
        let found = follow(root, start, &steps, seen).map_err(|cause| unusable().because(cause))?;
        tops.extend(found.iter().map(|top| relative(top)));
    }
    Ok(tops)
}

fn is_pattern(path: &str) -> bool {
    path.contains(['*', '?', '[', '{', '\\'])
}

/// One part of a pattern, between slashes.
enum Step<'a> {
    Name(&'a str),
    Any(Pattern),
    /// `**`: this folder and all below it.
    Below,
}

impl<'a> Step<'a> {
    fn parse(part: &'a str) -> Result<Self, PatternError> {
        match part {
            "**" => Ok(Self::Below),
            part if is_pattern(part) => Pattern::new(part).map(Self::Any),
            part => Ok(Self::Name(part)),
        }
    }
}

/// The paths that the steps lead to; not all of them need to be there. As in Ruby, `*` follows links to folders and `**` does
/// not: a link to a folder above would lead on for ever.
fn follow(root: &Path, start: &Path, steps: &[Step], seen: &mut usize) -> Result<Vec<PathBuf>> {
    let mut tops = vec![start.to_owned()];
    for step in steps {
        let mut next = Vec::new();
        for top in tops {
            match step {
                Step::Name(name) => next.push(top.join(name)),
                Step::Any(pattern) => {
                    let start = next.len();
                    for entry in entries(root, &top, seen)? {
                        let name = entry?.file_name();
                        if name.to_str().is_some_and(|name| pattern.matches_with(name, NAMES)) {
                            next.push(top.join(name));
                        }
                    }
                    next[start..].sort_unstable();
                }
                Step::Below => {
                    let mut folders = vec![top];
                    while let Some(folder) = folders.pop() {
                        let start = folders.len();
                        for entry in entries(root, &folder, seen)? {
                            let entry = entry?;
                            if !is_hidden(&entry.file_name()) && is_folder(&entry, &folder)? {
                                folders.push(folder.join(entry.file_name()));
                            }
                        }
                        // The first by name is the last to go in.
                        folders[start..].sort_unstable_by(|a, b| b.cmp(a));
                        next.push(folder);
                    }
                }
            }
        }
        if next.len() > MAX_FOLDERS {
            return Err(Error::new(Kind::Input, format!("more than {MAX_FOLDERS} folders")));
        }
        tops = next;
    }
    Ok(tops)
}

const NAMES: MatchOptions =
    MatchOptions { case_sensitive: true, require_literal_separator: true, require_literal_leading_dot: true };

/// `a{b,c}d` as `abd` and `acd`, from left to right, up to [`MAX_PATTERNS`]. Braces that do not close stay as they are.
fn braces(pattern: &str, expanded: &mut Vec<String>) {
    let choices = pattern.split_once('{').and_then(|(start, after)| {
        let (mut depth, mut from, mut choices) = (0, 0, Vec::new());
        for (at, byte) in after.bytes().enumerate() {
            match byte {
                b',' | b'}' if depth == 0 => {
                    choices.push(&after[from..at]);
                    from = at + 1;
                    if byte == b'}' {
                        return Some((start, choices, &after[from..]));
                    }
                }
                b'{' => depth += 1,
                b'}' => depth -= 1,
                _ => {}
            }
        }
        None
    });
    let Some((start, choices, end)) = choices else {
        return expanded.push(pattern.to_owned());
    };
    for choice in choices {
        if expanded.len() == MAX_PATTERNS {
            return;
        }
        braces(&format!("{start}{choice}{end}"), expanded);
    }
}

/// Adds the candidates below `top`. The kind of each entry comes from the folder itself; no file is asked for it.
fn walk(root: &Path, top: &Path, seen: &mut usize, found: &mut Files) -> Result<()> {
    let mut folders = vec![top.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = entries(root, &folder, seen)?;
        found.enter(folder.clone());
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name();
            if is_candidate(name.as_bytes()) {
                found.push(name.as_bytes());
            }
            if !is_hidden(&name) && is_folder(&entry, &folder)? {
                folders.push(folder.join(&name));
            }
        }
    }
    Ok(())
}

/// What a folder holds, counted. A folder that is not there, no folder, or gone since its parent was read, holds nothing.
fn entries<'a>(
    root: &Path,
    folder: &'a Path,
    seen: &'a mut usize,
) -> Result<impl Iterator<Item = Result<DirEntry>> + use<'a>> {
    let entries = match fs::read_dir(root.join(folder)) {
        Ok(entries) => Some(entries),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => None,
        Err(error) => return Err(unreadable(folder).because(error)),
    };
    Ok(entries.into_iter().flatten().map(move |entry| {
        *seen += 1;
        if *seen > MAX_ENTRIES {
            let message = format!("{}: more than {MAX_ENTRIES} files under the migrations paths", folder.display());
            return Err(Error::new(Kind::Input, message));
        }
        entry.map_err(|error| unreadable(folder).because(error))
    }))
}

fn is_hidden(name: &OsStr) -> bool {
    name.as_bytes().starts_with(b".")
}

fn is_folder(entry: &DirEntry, folder: &Path) -> Result<bool> {
    entry.file_type().map(|kind| kind.is_dir()).map_err(|error| unreadable(folder).because(error))
}

fn unreadable(folder: &Path) -> Error {
    Error::new(Kind::System, format!("{}: cannot read this folder of migrations", folder.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn tree(files: &[&str]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for file in files {
            let path = root.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        root
    }

    fn listed(root: &Path, paths: &[&str]) -> Vec<String> {
        let paths: Vec<_> = paths.iter().map(ToString::to_string).collect();
        list(root, &paths).unwrap().sorted_paths().iter().map(|path| path.to_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn finds_what_rails_finds() {
        let root = tree(&[
            "db/migrate/1_a.rb",
            "db/migrate/README",
            "db/migrate/a/b/2_deep.rb",
            "db/migrate/with space/3_c.rb",
            "db/migrate/.hidden/4_no.rb",
            "db/migrate/5_dir.rb/6_inside.rb",
            "elsewhere/7_no.rb",
        ]);
        symlink(root.path().join("elsewhere"), root.path().join("db/migrate/linked")).unwrap();
        symlink("nowhere", root.path().join("db/migrate/8_dangling.rb")).unwrap();
        let expected = [
            "db/migrate/1_a.rb",
            "db/migrate/5_dir.rb",
            "db/migrate/5_dir.rb/6_inside.rb",
            "db/migrate/8_dangling.rb",
            "db/migrate/a/b/2_deep.rb",
            "db/migrate/with space/3_c.rb",
        ];
        assert_eq!(listed(root.path(), &["db/migrate"]), expected);
        assert_eq!(listed(root.path(), &[&format!("{}/db/migrate/", root.path().display())]), expected);
        assert_eq!(listed(root.path(), &["db/migrate/linked"]), ["db/migrate/linked/7_no.rb"]);
        assert_eq!(listed(root.path(), &["missing", "db/migrate/1_a.rb"]), [""; 0]);
        assert_eq!(listed(root.path(), &["db/migrate/a", "db/migrate/a/b"]).len(), 2);
    }

    #[test]
    fn a_path_is_a_pattern() {
        let root = tree(&["a/x/1_a.rb", "a/[x]/2_b.rb", "b/x/3_c.rb", ".h/x/4_d.rb"]);
        assert_eq!(listed(root.path(), &["a/[x]"]), ["a/x/1_a.rb"]);
        assert_eq!(listed(root.path(), &["*/x"]), ["a/x/1_a.rb", "b/x/3_c.rb"]);
        assert_eq!(listed(root.path(), &["{b,a}/x"]), ["b/x/3_c.rb", "a/x/1_a.rb"]);
        assert!(list(root.path(), &[r"a/\[x\]".to_owned()]).is_err());
    }

    #[test]
    fn two_stars_go_below_and_follow_no_link() {
        let root = tree(&["1_a.rb", "a/x/1_b.rb", "b/c/x/2_c.rb", ".h/x/3_d.rb"]);
        for name in ["here", "a/again", "b/c/and_again"] {
            symlink(root.path(), root.path().join(name)).unwrap();
        }
        assert_eq!(listed(root.path(), &["**/x"]), ["a/x/1_b.rb", "b/c/x/2_c.rb"]);
        assert_eq!(listed(root.path(), &["*/**/**/c/x"]), ["b/c/x/2_c.rb", "here/b/c/x/2_c.rb"]);
        assert_eq!(listed(root.path(), &["here/a/x"]), ["here/a/x/1_b.rb"]);
    }

    #[test]
    fn braces_expand() {
        let expanded = |pattern: &str| {
            let mut expanded = Vec::new();
            braces(pattern, &mut expanded);
            expanded
        };
        assert_eq!(expanded("a{b,c{d,e}}{,f}"), ["ab", "abf", "acd", "acdf", "ace", "acef"]);
        assert_eq!(expanded("a{b,c"), ["a{b,c"]);
        assert_eq!(expanded(&"{a,b}".repeat(60)).len(), MAX_PATTERNS);
    }

    #[test]
    fn an_unreadable_folder_is_named() {
        let root = tree(&["db/migrate/1_a.rb"]);
        symlink("loop", root.path().join("db/loop")).unwrap();
        let error = list(root.path(), &["db/loop".to_owned()]).unwrap_err();
        assert!(error.message.starts_with("db/loop: "), "{}", error.message);
    }
}
