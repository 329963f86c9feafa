//! The pre-push hook, run by git itself.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what went wrong by failing there")]

#[path = "support/secrets.rs"]
mod secrets;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

/// An application in a repository with the hook, and the remote `production` that it is pushed to.
struct Scene {
    dir: TempDir,
}

impl Scene {
    fn new(format: &str) -> Self {
        let scene = Self { dir: tempfile::tempdir().unwrap() };
        fs::create_dir(scene.app()).unwrap();
        let object_format = format!("--object-format={format}");
        scene.git(&["init", "-q", "-b", "main", &object_format]);
        scene.git(&["init", "-q", "--bare", "-b", "main", &object_format, "../remote"]);
        scene.git(&["remote", "add", "production", "../remote"]);
        scene.write(".unstuck.yml", "hook:\n  remotes: [production]\n");
        let hook = scene.app().join(".git/hooks/pre-push");
        fs::create_dir_all(hook.parent().unwrap()).unwrap();
        fs::write(&hook, format!("#!/bin/sh\nexec {} pre-push \"$@\"\n", env!("CARGO_BIN_EXE_unstuck"))).unwrap();
        fs::set_permissions(&hook, fs::Permissions::from_mode(0o755)).unwrap();
        scene
    }

    fn app(&self) -> PathBuf {
        self.dir.path().join("app")
    }

    fn write(&self, file: &str, text: &str) {
        let path = self.app().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn migration(&self, file: &str, text: &str) {
        self.write(&format!("db/migrate/{file}"), text);
    }

    fn command(&self, dir: &Path, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .current_dir(dir)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .env("HOME", self.dir.path());
        for role in ["AUTHOR", "COMMITTER"] {
            command.env(format!("GIT_{role}_NAME"), "Ann").env(format!("GIT_{role}_EMAIL"), "ann@example.com");
        }
        command
    }

    fn try_git(&self, arguments: &[&str]) -> Output {
        let output = self.command(&self.app(), "git").args(arguments).output().expect("git runs");
        // What the hook says comes with it.
        secrets::keep(&output);
        output
    }

    fn git(&self, arguments: &[&str]) -> String {
        let output = self.try_git(arguments);
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        assert!(output.status.success(), "git {arguments:?}: {}", text(&output.stderr));
        text(&output.stdout) + &text(&output.stderr)
    }

    fn commit(&self) -> String {
        self.git(&["add", "-A"]);
        self.git(&["commit", "-q", "--allow-empty", "-m", "x"]);
        self.git(&["rev-parse", "HEAD"]).trim().to_owned()
    }

    /// The hook without git, with these lines on its standard input.
    fn hook(&self, remote: &str, url: &str, lines: &[u8]) -> Output {
        let input = self.dir.path().join("lines");
        fs::write(&input, lines).unwrap();
        let mut hook = self.command(&self.app(), env!("CARGO_BIN_EXE_unstuck"));
        hook.args(["pre-push", "--json", remote, url]).stdin(Stdio::from(fs::File::open(input).unwrap()));
        let output = hook.output().unwrap();
        secrets::keep(&output);
        output
    }
}

#[test]
fn a_push_is_told_and_refused_where_it_would_hurt() {
    told_and_refused("sha1");
}

#[test]
fn a_repository_of_long_ids_is_read_as_any_other() {
    told_and_refused("sha256");
}

fn told_and_refused(format: &str) {
    let scene = Scene::new(format);
    scene.migration("1_one.rb", "one");
    scene.write("db/animals_migrate/2_two.rb", "two");
    let first = scene.commit();
    let said = scene.git(&["push", "production", "main"]);
    assert!(said.contains("this push will run 2 migrations:"), "{said}");
    assert!(said.contains("  2 Two  db/animals_migrate/2_two.rb\n  1 One  db/migrate/1_one.rb\n"), "{said}");

    scene.migration("3_three.rb", "three");
    scene.commit();
    let said = scene.git(&["push", "production", "main"]);
    assert!(said.contains("3 Three") && !said.contains("1 One"), "{said}");

    scene.migration("1_one.rb", "another");
    scene.commit();
    let refused = scene.try_git(&["push", "production", "main"]);
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(!refused.status.success() && said.contains("db/migrate/1_one.rb was deployed and is edited"), "{said}");
    scene.git(&["push", "--no-verify", "production", "main"]);

    // Back to the first commit: what has gone from the files was deployed.
    let refused = scene.try_git(&["push", "--force", "production", &format!("{first}:refs/heads/main")]);
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(!refused.status.success() && said.contains("3_three.rb was deployed and is deleted"), "{said}");
}

#[test]
fn what_deploys_nothing_is_not_looked_at() {
    let scene = Scene::new("sha1");
    scene.migration("1_Illegal.rb", "");
    let commit = scene.commit();
    scene.git(&["push", "production", "main:elsewhere"]);
    scene.git(&["tag", "v1"]);
    scene.git(&["push", "production", "v1"]);
    let (zero, line) = ("0".repeat(40), format!("refs/heads/main {commit} refs/heads/main "));
    let code = |remote: &str, url: &str, lines: &str| scene.hook(remote, url, lines.as_bytes()).status.code();
    assert_eq!(code("origin", "git@github.com:me/app.git", &format!("{line}{zero}\n")), Some(0));
    assert_eq!(code("heroku", "https://git.heroku.com/my-app.git", &format!("{line}{zero}\n")), Some(8));
    assert_eq!(code("production", "../remote", &format!("{line}{zero}\n")), Some(8));
    assert_eq!(code("production", "../remote", &format!("(delete) {zero} refs/heads/main {commit}\n")), Some(0));
    assert_eq!(code("production", "../remote", ""), Some(0));
}

#[test]
fn what_the_hook_cannot_find_out_stops_no_push() {
    let scene = Scene::new("sha1");
    scene.migration("1_one.rb", "");
    let commit = scene.commit();
    for (lines, said) in [
        (format!("a {commit} refs/heads/main {}\n", "b".repeat(40)), "is not in this repository"),
        (format!("a {} refs/heads/main {commit}\n", "b".repeat(40)), "the commits cannot be compared"),
        ("\u{1b}]0;x\u{7} what\n".to_owned(), "1 lines on standard input are not what git writes"),
    ] {
        let output = scene.hook("production", "../remote", lines.as_bytes());
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(0), "{text}");
        assert!(text.contains(said) && !text.contains('\u{1b}'), "{text}");
    }
}

#[test]
fn ten_thousand_references_are_read() {
    let scene = Scene::new("sha1");
    scene.migration("1_one.rb", "");
    let commit = scene.commit();
    let branches = (0..10_000).map(|n| format!("b{n}")).chain(["main".to_owned()]);
    let line = |branch| format!("refs/heads/{branch} {commit} refs/heads/{branch} {}", "0".repeat(40));
    let lines: Vec<String> = branches.map(line).collect();
    let lines = lines.join("\n");
    let output = scene.hook("production", "../remote", lines.as_bytes());
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(document["pending"][0]["path"], "db/migrate/1_one.rb");
    assert_eq!(document["refused"], false);
}
