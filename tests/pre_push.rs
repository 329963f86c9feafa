//! The pre-push hook, run by git itself.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what went wrong by failing there")]

#[path = "support/push.rs"]
mod push;
#[path = "support/secrets.rs"]
mod secrets;

use push::Scene;
use serde_json::Value;

#[test]
fn a_push_is_told_and_refused_where_it_would_hurt() {
    told_and_refused("sha1");
}

#[test]
fn a_repository_of_long_ids_is_read_as_any_other() {
    told_and_refused("sha256");
}

fn told_and_refused(format: &str) {
    let scene = Scene::with_hook(format);
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
    let scene = Scene::with_hook("sha1");
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
    let scene = Scene::with_hook("sha1");
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
    let scene = Scene::with_hook("sha1");
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
