//! The pre-push hook as a file: put in its place, called by git itself, and taken out again.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what went wrong by failing there")]

#[path = "support/push.rs"]
mod push;
#[path = "support/secrets.rs"]
mod secrets;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Output;

use push::Scene;
use serde_json::Value;

const UNSTUCK: &str = env!("CARGO_BIN_EXE_unstuck");

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}

fn unstuck(scene: &Scene, program: &Path, dir: &Path, arguments: &[&str]) -> Output {
    let output = scene.command(dir, program.to_str().unwrap()).args(arguments).output().unwrap();
    secrets::keep(&output);
    output
}

fn change(scene: &Scene, what: &str) -> Value {
    let output = unstuck(scene, Path::new(UNSTUCK), &scene.app(), &["--json", "hook", what]);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", text(&output)))
}

fn state(scene: &Scene, what: &str) -> String {
    change(scene, what)["state"].as_str().unwrap().to_owned()
}

fn executable(path: &Path, script: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, script).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().permissions().mode()
}

#[test]
fn it_is_installed_once_and_leaves_nothing_behind() {
    let scene = Scene::new("sha1");
    let hook = scene.app().join(".git/hooks/pre-push");
    assert_eq!(state(&scene, "uninstall"), "unchanged");
    assert_eq!(state(&scene, "install"), "installed");
    let (script, bits) = (fs::read(&hook).unwrap(), mode(&hook));
    assert_eq!(bits & 0o777, 0o755);
    assert_eq!(state(&scene, "install"), "unchanged");
    assert_eq!((fs::read(&hook).unwrap(), mode(&hook)), (script, bits));
    scene.migration("1_one.rb", "");
    scene.commit();
    assert!(scene.git(&["push", "production", "main"]).contains("this push will run 1 migration:"));
    assert_eq!(state(&scene, "uninstall"), "uninstalled");
    let left: Vec<_> = fs::read_dir(hook.parent().unwrap()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| name.to_string_lossy().ends_with(".sample")), "{left:?}");
}

#[test]
fn the_folders_that_were_made_for_it_go_with_it() {
    let scene = Scene::new("sha1");
    scene.git(&["config", "core.hooksPath", "tools/git/hooks"]);
    let (tools, hooks) = (scene.app().join("tools"), scene.app().join("tools/git/hooks"));
    for round in ["once", "again"] {
        assert_eq!(state(&scene, "install"), "installed", "{round}");
        assert_eq!(state(&scene, "install"), "unchanged", "{round}");
        assert_eq!(state(&scene, "uninstall"), "uninstalled", "{round}");
        assert!(!tools.exists(), "{round}");
    }
    // What somebody has put there since stays, and so does a folder that was there before.
    state(&scene, "install");
    fs::write(hooks.join("note"), "").unwrap();
    state(&scene, "uninstall");
    assert!(hooks.join("note").is_file());
    fs::remove_file(hooks.join("note")).unwrap();
    state(&scene, "install");
    state(&scene, "uninstall");
    assert!(hooks.is_dir());
}

#[test]
fn a_hook_that_was_there_runs_first_and_comes_back_to_the_byte() {
    let scene = Scene::new("sha1");
    let hook = scene.app().join(".git/hooks/pre-push");
    let said = scene.dir.path().join("said");
    let script = format!("#!/bin/sh\necho \"$@\" > '{0}'\ncat >> '{0}'\nexit $(cat code)\n\n\n", said.display());
    executable(&hook, &script);
    fs::set_permissions(&hook, fs::Permissions::from_mode(0o750)).unwrap();
    let before = (fs::read(&hook).unwrap(), mode(&hook));

    assert_eq!(state(&scene, "install"), "installed");
    assert_eq!(state(&scene, "install"), "unchanged");
    scene.write("code", "0");
    scene.migration("1_one.rb", "");
    let commit = scene.commit();
    let told = scene.git(&["push", "production", "main"]);
    assert!(told.contains("this push will run 1 migration:"), "{told}");
    let line = format!("refs/heads/main {commit} refs/heads/main {}\n", "0".repeat(40));
    assert_eq!(fs::read_to_string(&said).unwrap(), format!("production ../remote\n{line}"));

    // Its refusal is git's to see, and ours is too.
    scene.write("code", "3");
    scene.migration("2_two.rb", "");
    scene.commit();
    let refused = scene.try_git(&["push", "production", "main"]);
    assert!(!refused.status.success() && !text(&refused).contains("2_two"), "{}", text(&refused));
    scene.write("code", "0");
    scene.migration("1_one.rb", "edited");
    scene.commit();
    let refused = scene.try_git(&["push", "production", "main"]);
    assert!(!refused.status.success() && text(&refused).contains("is edited"), "{}", text(&refused));
    // Nothing to push: git gives no line, to neither.
    scene.git(&["push", "--no-verify", "production", "main"]);
    scene.git(&["push", "production", "main"]);
    assert_eq!(fs::read_to_string(&said).unwrap(), "production ../remote\n");

    assert_eq!(state(&scene, "uninstall"), "uninstalled");
    assert_eq!((fs::read(&hook).unwrap(), mode(&hook)), before);
    assert_eq!(state(&scene, "uninstall"), "unchanged");
    assert_eq!((fs::read(&hook).unwrap(), mode(&hook)), before);
}

#[test]
fn a_link_and_a_hook_that_git_ignores_stay_what_they_are() {
    let scene = Scene::new("sha1");
    let hook = scene.app().join(".git/hooks/pre-push");
    symlink("../../bin/pre-push", &hook).unwrap();
    executable(&scene.app().join("bin/pre-push"), "#!/bin/sh\necho linked >&2\n");
    state(&scene, "install");
    scene.commit();
    assert!(scene.git(&["push", "production", "main"]).contains("linked"));
    state(&scene, "uninstall");
    assert_eq!(fs::read_link(&hook).unwrap(), Path::new("../../bin/pre-push"));

    fs::remove_file(&hook).unwrap();
    fs::write(&hook, "#!/bin/sh\necho ignored >&2; exit 1\n").unwrap();
    state(&scene, "install");
    scene.commit();
    assert!(!scene.git(&["push", "production", "main"]).contains("ignored"));
    state(&scene, "uninstall");
    assert_eq!(mode(&hook) & 0o111, 0);
}

#[test]
fn it_goes_where_git_looks() {
    let scene = Scene::new("sha1");
    scene.migration("1_one.rb", "");
    scene.commit();
    scene.git(&["config", "core.hooksPath", "tools/hooks"]);
    let answer = change(&scene, "install");
    assert!(answer["hook"].as_str().unwrap().ends_with("app/tools/hooks/pre-push"), "{answer}");
    assert!(scene.git(&["push", "--dry-run", "production", "main"]).contains("this push will run 1"));
    state(&scene, "uninstall");
    scene.git(&["config", "--unset", "core.hooksPath"]);

    // A second work tree shares the hooks of the first.
    scene.git(&["worktree", "add", "-q", "-b", "other", "../other"]);
    let other = scene.dir.path().join("other");
    let installed = unstuck(&scene, Path::new(UNSTUCK), &other, &["hook", "install"]);
    assert!(installed.status.success() && scene.app().join(".git/hooks/pre-push").is_file(), "{}", text(&installed));
    let push = scene.command(&other, "git").args(["push", "--dry-run", "production", "other:main"]).output().unwrap();
    secrets::keep(&push);
    assert!(push.status.success() && text(&push).contains("this push will run 1"), "{}", text(&push));
}

#[test]
fn the_hooks_of_husky_are_scripts_like_any_other() {
    let scene = Scene::new("sha1");
    scene.git(&["config", "core.hooksPath", ".husky/_"]);
    executable(&scene.app().join(".husky/_/pre-push"), "#!/bin/sh\nexec sh -e .husky/pre-push \"$@\"\n");
    let hook = scene.app().join(".husky/pre-push");
    fs::write(&hook, "cat > pushed\necho husky >&2\n").unwrap();
    assert_eq!(state(&scene, "install"), "installed");
    assert!(!fs::read_to_string(&hook).unwrap().contains(UNSTUCK), "what is committed names no machine's path");
    scene.migration("1_one.rb", "");
    scene.commit();
    let bin = scene.dir.path().join("bin");
    fs::create_dir(&bin).unwrap();
    symlink(UNSTUCK, bin.join("unstuck")).unwrap();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let push =
        scene.command(&scene.app(), "git").env("PATH", path).args(["push", "production", "main"]).output().unwrap();
    secrets::keep(&push);
    let told = text(&push);
    assert!(told.contains("husky") && told.contains("this push will run 1"), "{told}");
    assert!(fs::read_to_string(scene.app().join("pushed")).unwrap().starts_with("refs/heads/main "));
    assert_eq!(state(&scene, "uninstall"), "uninstalled");
    assert_eq!(fs::read_to_string(&hook).unwrap(), "cat > pushed\necho husky >&2\n");
}

#[test]
fn where_a_manager_writes_the_hooks_its_lines_are_said() {
    for (file, hook, line) in [
        ("lefthook.yml", "", "run: unstuck pre-push {1} {2}"),
        (".overcommit.yml", "", "command: ['unstuck', 'pre-push']"),
        (
            ".pre-commit-config.yaml",
            "#!/bin/sh\n# File generated by pre-commit: https://pre-commit.com\n",
            "id: unstuck",
        ),
    ] {
        let scene = Scene::new("sha1");
        scene.write(file, "");
        let path = scene.app().join(".git/hooks/pre-push");
        if !hook.is_empty() {
            executable(&path, hook);
        }
        let output = unstuck(&scene, Path::new(UNSTUCK), &scene.app(), &["hook", "install"]);
        assert_eq!(output.status.code(), Some(1), "{}", text(&output));
        assert!(text(&output).contains(line) && text(&output).contains(file), "{}", text(&output));
        assert_eq!(fs::read_to_string(&path).unwrap_or_default(), hook);
        let lines = change(&scene, "install")["lines"].as_str().unwrap().to_owned();
        scene.write(file, &lines);
        assert_eq!(state(&scene, "install"), "unchanged");
    }
}

/// A copy of the program, in a folder of this name.
fn copied(scene: &Scene, folder: &str) -> PathBuf {
    let program = scene.dir.path().join(folder).join("unstuck");
    fs::create_dir_all(program.parent().unwrap()).unwrap();
    // A process of its own copies: no fork of this one then holds the copy open for writing.
    let copy = scene.command(scene.dir.path(), "cp").arg(UNSTUCK).arg(&program).output().unwrap();
    assert!(copy.status.success(), "{}", text(&copy));
    program
}

#[test]
fn a_program_that_has_vanished_is_said_in_one_line() {
    for (missing, passes) in [("pass", true), ("refuse", false)] {
        let scene = Scene::new("sha1");
        scene.write(".unstuck.yml", &format!("hook:\n  remotes: [production]\n  missing: {missing}\n"));
        let program = copied(&scene, "gone");
        unstuck(&scene, &program, &scene.app(), &["hook", "install"]);
        fs::remove_file(&program).unwrap();
        scene.commit();
        let push = scene.try_git(&["push", "production", "main"]);
        assert_eq!(push.status.success(), passes, "{}", text(&push));
        let lines: Vec<String> =
            text(&push).lines().filter(|line| line.contains("unstuck")).map(str::to_owned).collect();
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(lines[0].contains("has vanished"), "{lines:?}");
    }
}

#[test]
fn odd_paths_are_only_paths() {
    let odd = "a b'c\"d$e`f\n;g\\h";
    let scene = Scene::new("sha1");
    let program = copied(&scene, odd);
    scene.write(&format!("{odd}/db/migrate/1_one.rb"), "");
    scene.write(&format!("{odd}/.unstuck.yml"), "hook:\n  remotes: [production]\n");
    scene.commit();
    let root = scene.app().join(odd);
    let installed = unstuck(&scene, &program, &root, &["hook", "install"]);
    assert!(installed.status.success(), "{}", text(&installed));
    let moved = scene.dir.path().join(format!("{odd} 2"));
    fs::rename(scene.app(), &moved).unwrap();
    let push = scene.command(&moved, "git").args(["push", "production", "main"]).output().unwrap();
    secrets::keep(&push);
    assert!(push.status.success() && text(&push).contains("this push will run 1"), "{}", text(&push));
}

#[test]
fn a_shell_has_nothing_to_say_of_the_script() {
    let scene = Scene::new("sha1");
    state(&scene, "install");
    check_shell(&scene, &scene.app().join(".git/hooks/pre-push"));
    scene.git(&["config", "core.hooksPath", ".husky"]);
    state(&scene, "install");
    check_shell(&scene, &scene.app().join(".husky/pre-push"));
}

fn check_shell(scene: &Scene, script: &Path) {
    let arguments: [&OsStr; 3] = ["-s".as_ref(), "sh".as_ref(), script.as_os_str()];
    let check = scene.command(scene.dir.path(), "shellcheck").args(arguments).output().expect("shellcheck runs");
    assert!(check.status.success(), "{}", text(&check));
}

#[test]
fn the_hook_that_was_there_knows_its_place_and_its_name() {
    for (shebang, passes) in [("#!/bin/sh", true), ("#!/usr/bin/env bash", true), ("#!/bin/sh -e", false)] {
        let scene = Scene::new("sha1");
        let hook = scene.app().join(".git/hooks/pre-push");
        let script = "echo \"it is $(basename \"$0\") of $1\" >&2\n. \"$(dirname \"$0\")/more\"\nfalse\nexit 0\n";
        executable(&hook, &format!("{shebang}\n{script}"));
        fs::write(hook.with_file_name("more"), "echo \"and reads $(cat | wc -w) words\" >&2\n").unwrap();
        state(&scene, "install");
        scene.commit();
        let push = scene.try_git(&["push", "production", "main"]);
        assert_eq!(push.status.success(), passes, "{shebang}: {}", text(&push));
        assert!(
            text(&push).contains("it is pre-push of production\nand reads 4 words\n"),
            "{shebang}: {}",
            text(&push)
        );
    }
}

/// Not all that ends in `sh` reads a shell's script.
#[test]
fn a_hook_in_another_language_is_run_as_it_was() {
    let scene = Scene::new("sha1");
    let interpreter = scene.dir.path().join("bin/tclsh");
    executable(&interpreter, "#!/bin/sh\ncat > /dev/null\necho \"interprets ${1##*/} for $2\" >&2\n");
    executable(&scene.app().join(".git/hooks/pre-push"), &format!("#!{}\nputs hello\n", interpreter.display()));
    state(&scene, "install");
    scene.commit();
    let said = scene.git(&["push", "production", "main"]);
    assert!(said.contains("interprets pre-push.before-unstuck for production"), "{said}");
}

#[test]
fn what_becomes_of_the_hook_that_was_there_is_said() {
    let scene = Scene::new("sha1");
    let hook = scene.app().join(".git/hooks/pre-push");
    let say = |what: &str| text(&unstuck(&scene, Path::new(UNSTUCK), &scene.app(), &["hook", what]));
    assert!(say("uninstall").contains("there is no hook "));
    fs::write(&hook, "#!/bin/sh\n").unwrap();
    assert!(say("install").contains("is not executable, so git did not run it"));
    assert!(say("uninstall").contains("is again what it was"));
    fs::set_permissions(&hook, fs::Permissions::from_mode(0o755)).unwrap();
    assert!(say("install").contains("the hook that was there runs first, as "));
}

#[test]
fn lines_that_somebody_added_are_not_lost() {
    let scene = Scene::new("sha1");
    let hook = scene.app().join(".git/hooks/pre-push");
    state(&scene, "install");
    let ours = fs::read_to_string(&hook).unwrap();
    fs::write(&hook, format!("{ours}\necho more\n")).unwrap();
    for what in ["install", "uninstall"] {
        let output = unstuck(&scene, Path::new(UNSTUCK), &scene.app(), &["hook", what]);
        assert!(!output.status.success() && text(&output).contains("lines were added to it"), "{}", text(&output));
        assert!(fs::read_to_string(&hook).unwrap().ends_with("echo more\n"));
    }
    fs::write(&hook, ours).unwrap();
    assert_eq!(state(&scene, "uninstall"), "uninstalled");
}
