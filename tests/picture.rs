//! `unstuck status` as a picture, once and live, and `unstuck ps`.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what went wrong by failing there")]

#[path = "support/scene.rs"]
mod scene;

use std::io::{BufRead as _, BufReader};
use std::process::{Child, ChildStdout, Stdio};
use std::time::Duration;

use scene::{Ran, Scene};
use serde_json::{Value, json};

/// An app that was migrated by unstuck: the web dynos are new, the worker is older than the schema.
fn migrated() -> Scene {
    let scene = Scene::new();
    scene.settled();
    scene.migration(20_130_125_163_307, "add_title_to_posts", "sql 'create table posts (title)'");
    scene.unstuck(&["migrate"]).code(0);
    scene
}

#[track_caller]
fn line<'a>(ran: &'a Ran, begin: &str) -> &'a str {
    let found = ran.out.lines().find(|line| line.starts_with(begin));
    found.unwrap_or_else(|| panic!("no line {begin:?} in {ran:?}"))
}

#[test]
fn a_run_remembers_what_it_changed_and_when() {
    let scene = migrated();
    let ran = scene.unstuck(&["status"]).code(0);
    assert!(line(&ran, "schema changed").ends_with(", recorded by the run that made it"), "{ran:?}");
    assert!(ran.out.contains("  20130125163307  AddTitleToPosts\n"), "{ran:?}");
    let worker = line(&ran, "worker.1");
    assert!(worker.contains(" STUCK ") && worker.contains('#'), "{worker}");
    assert!(line(&ran, "web.1").contains(" ok "), "{ran:?}");
    let document = scene.unstuck(&["status", "--json"]).code(0).json();
    let change = &document["schema_change"];
    assert_eq!((&change["versions"], &change["known_by"]), (&json!(["20130125163307"]), &json!("recorded")));
    assert_eq!((&document["verdict"], &document["owed_since"]), (&json!("clean"), &Value::Null));
    // A second proof of the same schema knows no better.
    scene.unstuck(&["restart", "--all"]).code(0);
    assert_eq!(scene.unstuck(&["status", "--json"]).code(0).json()["schema_change"], *change);
}

#[test]
fn what_was_migrated_by_hand_is_known_by_its_versions() {
    let scene = migrated();
    scene.migration(20_260_101_000_000, "by_hand", "true");
    scene.sql("insert into schema_migrations values ('20260101000000')");
    let ran = scene.unstuck(&["status"]).code(0);
    let said = line(&ran, "schema changed");
    assert!(said.contains(" after ") && said.contains("by hand?"), "{ran:?}");
    assert!(ran.out.contains("  20260101000000  ByHand\n") && ran.out.contains("  owed since "), "{ran:?}");
    let document = scene.unstuck(&["status", "--json"]).code(0).json();
    let change = &document["schema_change"];
    assert_eq!((&change["latest"], &change["known_by"]), (&Value::Null, &json!("by_hand")));
    assert_eq!(document["owed_since"], change["earliest"]);
}

#[test]
fn the_api_alone_is_enough() {
    let scene = migrated();
    let app = scene.standin.app().to_owned();
    let elsewhere = scene.elsewhere();
    let ask = |args: &[&str]| {
        let mut command = scene.command_on(elsewhere.path(), args);
        Ran::of(command.env_remove("DATABASE_URL").env_remove("UNSTUCK_APP").output().unwrap())
    };
    let status = ask(&["status", "-a", &app]).code(0);
    assert!(status.err.contains("none is configured here"), "{status:?}");
    assert!(line(&status, "web.1").contains(" ? "), "{status:?}");
    assert!(line(&status, "released").starts_with("released v1 "), "{status:?}");
    let document = ask(&["status", "-a", &app, "--json"]).code(0).json();
    assert_eq!((&document["verdict"], &document["owed"]), (&json!("unproved"), &Value::Null));
    assert_eq!(document["dynos"][0]["stuck"], Value::Null);
    // There is no configuration here that this could lead to.
    let mut command = scene.command_on(elsewhere.path(), &["status", "-a", &app]);
    let command = command.env_remove("DATABASE_URL").env_remove("UNSTUCK_APP").env("RAILS_ENV", "production");
    Ran::of(command.output().unwrap()).code(0);
    let ps = ask(&["ps", "-a", &app]).code(0);
    assert!(line(&ps, "web.1: up ").ends_with(" ago)"), "{ps:?}");
    assert!(ps.err.contains("stuck cannot be told: no database is configured here"), "{ps:?}");

    // Configured, but not to be reached.
    let mut command = scene.command(&["ps", "--json"]);
    let ps = Ran::of(command.env("DATABASE_URL", "postgres://127.0.0.1:1/x").output().unwrap()).code(0);
    assert_eq!(ps.json()[0]["stuck"], Value::Null);
    assert!(ps.err.contains("cannot be told"), "{ps:?}");
}

#[test]
fn ps_marks_what_heroku_leaves_to_the_eye() {
    let scene = migrated();
    let ps = scene.unstuck(&["ps"]).code(0);
    assert!(line(&ps, "worker.1: up ").ends_with(" STUCK"), "{ps:?}");
    assert!(line(&ps, "web.2: up ").ends_with(" after the schema change"), "{ps:?}");
    let web = scene.unstuck(&["ps", "web", "--json"]).code(0).json();
    let names: Vec<_> = web.as_array().unwrap().iter().map(|dyno| (&dyno["name"], &dyno["stuck"])).collect();
    assert_eq!(names, [(&json!("web.1"), &json!(false)), (&json!("web.2"), &json!(false))]);
    assert_eq!((&web[0]["size"], &web[0]["app"]["name"]), (&json!("Standard-1X"), &json!("standin-app")));
    let none = scene.unstuck(&["ps", "clock"]).code(1);
    assert!(none.err.contains("no clock dynos on standin-app"), "{none:?}");
}

/// A live picture whose output is read as it comes.
fn live(scene: &Scene, args: &[&str]) -> (Child, BufReader<ChildStdout>) {
    let mut child = scene.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let out = BufReader::new(child.stdout.take().unwrap());
    (child, out)
}

fn next(out: &mut BufReader<ChildStdout>) -> String {
    let mut text = String::new();
    out.read_line(&mut text).unwrap();
    text
}

#[test]
fn a_live_picture_says_what_changed_and_ends_on_interrupt() {
    let scene = migrated();
    let (child, mut out) = live(&scene, &["status", "--watch", "--interval", "50ms", "--json"]);
    let first: Value = serde_json::from_str(&next(&mut out)).unwrap();
    assert_eq!(first["verdict"], "clean");
    scene.migration(20_260_101_000_000, "later", "true");
    let second: Value = serde_json::from_str(&next(&mut out)).unwrap();
    assert_eq!(second["verdict"], "pending");
    // SAFETY: kill takes two integers and touches no memory of ours.
    assert_eq!(unsafe { libc::kill(i32::try_from(child.id()).unwrap(), libc::SIGINT) }, 0);
    Ran::of(child.wait_with_output().unwrap()).code(130);
    // What was the same was not said again.
    assert_eq!(next(&mut out), "");
}

#[test]
fn a_live_picture_ends_with_its_reader() {
    let scene = migrated();
    let (mut child, mut out) = live(&scene, &["status", "--watch", "--interval", "1h", "--json"]);
    assert!(!next(&mut out).is_empty());
    drop(out);
    for _ in 0..600 {
        if child.try_wait().unwrap().is_some() {
            Ran::of(child.wait_with_output().unwrap()).code(0);
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    child.kill().unwrap();
    panic!("it lives on although nobody reads");
}

#[test]
fn what_was_migrated_by_hand_is_never_said_to_be_a_runs() {
    let scene = Scene::new();
    scene.migration(1, "create_posts", "sql 'create table posts (id integer)'");
    scene.unstuck(&["migrate"]).code(0);
    scene.sql("insert into schema_migrations values ('2')");
    let status = scene.unstuck(&["status"]).code(0);
    assert!(status.out.contains("owed since some time after "), "{status:?}");
    scene.unstuck(&["restart", "--rolling"]).code(0);
    let status = scene.unstuck(&["status", "--json"]).code(0).json();
    assert_eq!(status["schema_change"]["known_by"], "by_hand", "{status}");
    assert_eq!(status["schema_change"]["versions"], json!(["2"]), "{status}");
}

#[test]
fn a_type_that_the_app_does_not_have_is_not_proved_new() {
    let scene = Scene::new();
    scene.unstuck(&["restart", "--all"]).code(0);
    for named in ["wbe", "web.1"] {
        for more in [&[][..], &["--all"]] {
            let ran = scene.unstuck(&[&["restart", named], more].concat()).code(5);
            assert!(ran.err.contains(&format!("has no process type {named}: it has web, worker")), "{ran:?}");
        }
    }
}
