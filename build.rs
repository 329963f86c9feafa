//! Tells the program which commit it is built from, when that was made, and for which target.

use std::env;
use std::fs;
use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-env=UNSTUCK_COMMIT={}", commit());
    println!("cargo::rustc-env=UNSTUCK_DATE={}", date().unwrap_or_default());
    println!("cargo::rustc-env=UNSTUCK_TARGET={}", env::var("TARGET").unwrap_or_default());
}

/// Ten digits of the commit: from git, or from what `cargo package` notes in a published crate.
fn commit() -> String {
    packaged().or_else(checked_out).map_or_else(|| "unknown commit".to_owned(), |id| id.chars().take(10).collect())
}

fn packaged() -> Option<String> {
    let note = fs::read_to_string(".cargo_vcs_info.json").ok()?;
    let (_, after) = note.split_once("\"sha1\": \"")?;
    Some(after.split_once('"')?.0.to_owned())
}

fn checked_out() -> Option<String> {
    // Of a repository around ours, which only vendors these files, nothing is to be told.
    if !Path::new(".git").exists() {
        return None;
    }
    for path in ["HEAD", "logs/HEAD"] {
        println!("cargo::rerun-if-changed={}", git(&["rev-parse", "--git-path", path])?);
    }
    git(&["rev-parse", "HEAD"])
}

/// The day of the commit: a build of another day has the same manual pages.
fn date() -> Option<String> {
    Path::new(".git").exists().then(|| git(&["show", "--no-patch", "--format=%cs", "HEAD"]))?
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
