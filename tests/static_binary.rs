//! The release binary needs nothing of the machine it runs on but the kernel: no loader, no library, no name service plug-in.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what went wrong by failing there")]

use std::env;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{LazyLock, mpsc};
use std::thread;

use tempfile::TempDir;

/// The binary that `UNSTUCK_RELEASE_BINARY` names; without it, one that is built now.
static BINARY: LazyLock<PathBuf> =
    LazyLock::new(|| env::var_os("UNSTUCK_RELEASE_BINARY").map_or_else(build_release, PathBuf::from));

fn build_release() -> PathBuf {
    let build = Command::new("bash")
        .args(["-ec", "source bin/lib.sh && build_release"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stderr(Stdio::inherit())
        .output()
        .expect("bash runs");
    assert!(build.status.success(), "the release build failed");
    PathBuf::from(String::from_utf8(build.stdout).unwrap().trim())
}

/// A root file system that holds the binary, `/app`, and of a usual machine only who is who on the network.
struct EmptyRoot(TempDir);

impl EmptyRoot {
    fn new() -> Self {
        let root = Self(tempfile::tempdir().unwrap());
        fs::create_dir_all(root.path("etc/ssl/certs")).unwrap();
        fs::create_dir_all(root.path("app/db/migrate")).unwrap();
        fs::write(root.path("etc/hosts"), "127.0.0.1 localhost\n127.0.0.1 database.test\n").unwrap();
        fs::write(root.path("etc/resolv.conf"), "nameserver 127.0.0.1\n").unwrap();
        let certificates = "etc/ssl/certs/ca-certificates.crt";
        fs::copy(Path::new("/").join(certificates), root.path(certificates)).expect("package ca-certificates");
        // By another process: a child that another test starts meanwhile would inherit our open file, and keep it "busy".
        let copied = Command::new("cp").arg(&*BINARY).arg(root.path("unstuck")).status().expect("cp runs");
        assert!(copied.success());
        root
    }

    fn path(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    /// The binary, locked into this root; a user who is not root gets a user namespace for it.
    fn unstuck(&self) -> Command {
        // SAFETY: reads a number that the kernel keeps.
        let mut command = if unsafe { libc::geteuid() } == 0 {
            Command::new("chroot")
        } else {
            let mut unshare = Command::new("unshare");
            unshare.args(["--map-root-user", "chroot"]);
            unshare
        };
        command.arg(self.0.path()).arg("/unstuck").env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        command
    }

    /// Runs `unstuck status` against a server of ours that is known by its name in `/etc/hosts` only. Whether a connection
    /// came, and how it ended.
    fn connect_by_name(&self) -> (bool, Output) {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = server.local_addr().unwrap().port();
        let (connected, connection) = mpsc::channel();
        thread::spawn(move || {
            for client in server.incoming() {
                // Told before the client learns that nobody speaks PostgreSQL here, and so before it ends.
                if connected.send(client.is_ok()).is_err() {
                    break;
                }
            }
        });
        let output = self
            .unstuck()
            .args(["status", "-C", "/app"])
            .env("DATABASE_URL", format!("postgres://app@database.test:{port}/app"))
            .output()
            .expect("chroot or unshare runs");
        (connection.try_recv() == Ok(true), output)
    }
}

#[test]
fn names_no_loader_and_no_library_and_carries_no_symbols() {
    let readelf = Command::new("readelf")
        .args(["--program-headers", "--section-headers", "--dynamic", "--wide"])
        .arg(&*BINARY)
        .env("LC_ALL", "C")
        .output()
        .expect("readelf runs (package binutils)");
    let headers = String::from_utf8(readelf.stdout).unwrap();
    assert!(headers.contains("LOAD"), "{headers}");
    assert!(!headers.contains("INTERP"), "{headers}");
    assert!(!headers.contains("(NEEDED)"), "{headers}");
    assert!(headers.contains(".text") && !headers.contains(".symtab"), "{headers}");
    assert!(BINARY.metadata().unwrap().len() < 12 * 1024 * 1024, "the binary has outgrown 12 MiB");
}

#[test]
fn names_no_folder_of_the_machine_that_built_it() {
    let home = env::var_os("CARGO_HOME").map_or_else(|| env::home_dir().unwrap().join(".cargo"), PathBuf::from);
    let sources = home.join("registry/src");
    assert!(sources.is_dir(), "the crates are not at {}", sources.display());
    let mut search = Command::new("grep");
    search.args(["--text", "--fixed-strings", "--only-matching"]).arg(&sources).arg(&*BINARY);
    let found = search.output().unwrap();
    assert_eq!(found.status.code(), Some(1), "{}", String::from_utf8_lossy(&found.stdout));
}

#[test]
fn starts_in_an_empty_root() {
    let output = EmptyRoot::new().unstuck().arg("--version").output().unwrap();
    let version = concat!("unstuck ", env!("CARGO_PKG_VERSION"));
    assert!(output.status.success() && output.stdout.starts_with(version.as_bytes()), "{output:?}");
}

/// What the optimiser makes of all crates together is another program than the one of the other tests: a function that is weak
/// in one of them may be gone.
#[test]
fn does_its_work_in_an_empty_root() {
    let root = EmptyRoot::new();
    let git = |arguments: &[&str]| {
        let name = ["-c", "user.name=a", "-c", "user.email=a@example.com"];
        let output = Command::new("git").current_dir(root.path("app")).args(name).args(arguments).output().unwrap();
        assert!(output.status.success(), "{output:?}");
    };
    git(&["init", "-q", "-b", "main"]);
    fs::write(root.path("app/Procfile"), "release: unstuck migrate\n").unwrap();
    fs::create_dir_all(root.path("app/app/models")).unwrap();
    fs::write(root.path("app/app/models/post.rb"), "class Post < ApplicationRecord\nend\n").unwrap();
    git(&["add", "."]);
    git(&["commit", "-q", "-m", "one"]);
    let migration = "class A < ActiveRecord::Migration[7.1]\n  def change = remove_column(:posts, :a)\nend\n";
    // A long one is read on a stack of its own.
    for (version, comment) in [("1", ""), ("2", &"# long\n".repeat(2_000))] {
        let text = migration.replace("A <", &format!("A{version} <")) + comment;
        fs::write(root.path("app/db/migrate").join(format!("{version}_a{version}.rb")), text).unwrap();
    }
    git(&["add", "."]);
    git(&["commit", "-q", "-m", "two"]);
    let ran = root.unstuck().args(["check", "-C", "/app", "HEAD~", "--json"]).output().unwrap();
    assert_eq!(ran.status.code(), Some(8), "{ran:?}");
    let told: serde_json::Value = serde_json::from_slice(&ran.stdout).unwrap();
    let rules = told["findings"].as_array().unwrap().iter().map(|finding| finding["rule"].as_str().unwrap());
    assert_eq!(rules.filter(|rule| *rule == "remove-column").count(), 2, "{told}");

    // It is the only program there is.
    let ran = root.unstuck().args(["exec", "-C", "/app", "--", "/unstuck", "--version"]).output().unwrap();
    assert!(ran.status.success() && ran.stdout.starts_with(b"unstuck "), "{ran:?}");
}

#[test]
fn resolves_names_in_an_empty_root() {
    let (connected, output) = EmptyRoot::new().connect_by_name();
    assert!(connected, "{output:?}");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
}

/// A plug-in brings another C library along; a static program that loads it has been seen to die. This one kills whoever
/// loads it.
#[test]
fn loads_no_name_service_plug_in() {
    let root = EmptyRoot::new();
    fs::write(root.path("etc/nsswitch.conf"), "passwd: deadly files\ngroup: deadly files\nhosts: deadly files dns\n")
        .unwrap();
    fs::create_dir(root.path("lib")).unwrap();
    let source = root.path("deadly.c");
    fs::write(&source, "__attribute__((constructor)) static void loaded(void) { __builtin_trap(); }\n").unwrap();
    let compiled = Command::new("cc")
        .args(["-shared", "-fPIC", "-nostdlib", "-o"])
        .args([root.path("lib/libnss_deadly.so.2"), source])
        .status()
        .expect("cc runs");
    assert!(compiled.success());

    let (connected, output) = root.connect_by_name();
    assert!(connected, "{output:?}");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
}
