//! `unstuck releases` from the outside: the list as `heroku releases` prints it, and what it knows beyond that.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what went wrong by failing there")]

#[path = "support/scene.rs"]
mod scene;

use scene::Scene;
use serde_json::json;
use unstuck_standin::{Access, Deploy, Reply, Rule, Status};

const MIGRATED: &str = "\
== 20130125163307 AddTitleToPosts: migrating ====================
-- add_column(:posts, :title, :string)
   -> 0.0009s
== 20130125163307 AddTitleToPosts: migrated (0.0012s) ===========
";

/// A release with a release command that has printed `output`.
fn release(scene: &Scene, output: &str, status: Status) -> u64 {
    let release_command = Some("unstuck migrate".to_owned());
    let deploy = Deploy { commit: Some("1a2b3c4d".into()), release_command, ..Deploy::default() };
    let version = scene.standin.deploy(deploy).unwrap();
    let id = scene.standin.releases().last().unwrap()["id"].as_str().unwrap().to_owned();
    let reply = Reply::Raw { status: 200, body: output.to_owned() };
    scene.standin.fault(Rule { path: format!("/streams/*/{id}.log"), reply, ..Rule::default() });
    assert!(scene.standin.finish_release(version, status));
    version
}

/// Without what differs from run to run: the moment.
fn without_moments(text: &str) -> Vec<String> {
    let cut = |line: &str| match (line.find("   20"), line.find('\u{2500}')) {
        (Some(at), _) => line[..at].to_owned(),
        (None, Some(at)) => line[..at + 9].to_owned(),
        (None, None) => line.to_owned(),
    };
    text.lines().map(cut).collect()
}

/// The expected lines are those of heroku 11.10.0 for the same app.
#[test]
fn the_list_is_that_of_the_heroku_command() {
    let scene = Scene::new();
    scene.standin.deploy(Deploy { commit: Some("1a2b3c4d".into()), ..Deploy::default() }).unwrap();
    release(&scene, "", Status::Failed);
    let ran = scene.unstuck(&["releases", "-n", "2"]).code(0);
    let lines = without_moments(&ran.out);
    assert_eq!(
        lines[..5],
        [
            "=== standin-app Releases - Current: v2",
            "",
            "  v    description                              user              created_at",
            " \u{2500}\u{2500}\u{2500}",
            "  v3   Deploy 1a2b3c4d release command failed   dev@example.com",
        ],
        "{ran:?}"
    );
    assert_eq!(lines[5], "  v2   Deploy 1a2b3c4d                          dev@example.com");
    assert!(ran.out.contains(" +0000 (~ "), "{ran:?}");
    assert!(ran.out.contains("v2 ran no release command."), "{ran:?}");
    assert!(ran.out.contains("When the schema changed last is not known"), "{ran:?}");
}

#[test]
fn what_the_release_phase_migrated_and_which_processes_are_older() {
    let scene = Scene::new();
    release(&scene, MIGRATED, Status::Succeeded);
    let ran = scene.unstuck(&["releases", "--json"]).code(0);
    let shown = ran.json();
    assert_eq!((&shown["app"], &shown["current"]), (&json!("standin-app"), &json!(2)));
    let migrated = json!([{"version": "20130125163307", "name": "AddTitleToPosts"}]);
    assert_eq!(shown["releases"][0]["migrated"], migrated);
    assert_eq!(shown["releases"][1]["migrated"], json!(null), "it has no release command");
    assert_eq!((&shown["schema_change"]["release"], &shown["schema_change"]["migrated"]), (&json!(2), &migrated));
    let dynos = shown["dynos"].as_array().unwrap();
    assert_eq!(dynos.len(), 3);
    assert!(dynos.iter().all(|dyno| dyno["older_than_schema_change"] == false), "they boot after it: {shown}");
    let told = scene.unstuck(&["releases"]).code(0).out;
    assert!(told.contains("The release phase of v2 migrated 1: 20130125163307 AddTitleToPosts."), "{told}");
    assert!(told.contains("web.1"), "{told}");
}

#[test]
fn a_failed_release_that_migrated_leaves_every_process_older() {
    let scene = Scene::new();
    release(&scene, MIGRATED, Status::Failed);
    let shown = scene.unstuck(&["releases", "--json"]).code(0).json();
    assert_eq!((&shown["current"], &shown["schema_change"]["release"]), (&json!(1), &json!(2)));
    let dynos = shown["dynos"].as_array().unwrap();
    assert!(dynos.iter().all(|dyno| dyno["older_than_schema_change"] == true), "{shown}");
    assert!(scene.unstuck(&["releases"]).code(0).out.contains("it may be stuck"));
}

/// What came by hand is in no release's output. The records tell of it, here as in `status`.
#[test]
fn a_change_by_hand_is_known_here_too() {
    let scene = Scene::new();
    scene.settled();
    scene.migration(20_240_101_000_000, "add_by_hand", "");
    scene.sql("INSERT INTO schema_migrations VALUES ('20240101000000')");
    let status = scene.unstuck(&["status", "--json"]).code(0).json();
    let seq = scene.now();
    let shown = scene.unstuck(&["releases", "--json"]).code(0).json();
    let asked = scene.requests(seq);
    assert_eq!(asked.iter().filter(|request| request.ends_with("/apps/standin-app")).count(), 1, "{asked:?}");
    assert_eq!(shown["recorded_change"], status["schema_change"], "{shown}");
    assert_eq!(shown["recorded_change"]["known_by"], "by_hand", "{shown}");
    assert!(shown["dynos"].as_array().unwrap().iter().any(|dyno| dyno["stuck"] == true), "{shown}");
    let told = scene.unstuck(&["releases"]).code(0).out;
    assert!(told.contains("not recorded by a run (by hand?)") && told.contains("STUCK"), "{told}");
}

#[test]
fn an_output_that_is_gone_is_not_nothing_migrated() {
    let scene = Scene::new();
    release(&scene, MIGRATED, Status::Succeeded);
    scene.standin.clear_faults();
    scene.standin.fault(Rule { path: "/streams/*".into(), reply: Reply::error(404, "not_found"), ..Rule::default() });
    let shown = scene.unstuck(&["releases", "--json"]).code(0).json();
    assert_eq!((&shown["releases"][0]["migrated"], &shown["schema_change"]), (&json!(null), &json!(null)));
    assert!(scene.unstuck(&["releases"]).code(0).out.contains("what it migrated is not known"));
}

#[test]
fn an_api_that_says_no_is_said_with_the_way_out() {
    let mut scene = Scene::new();
    for (access, hint) in [
        (Access::Revoked, "heroku authorizations:create"),
        (Access::TwoFactor, "second factor"),
        (Access::Delinquent, "bill"),
    ] {
        scene.standin.set_access(access);
        let ran = scene.unstuck(&["releases", "--json"]).code(1);
        assert_eq!(ran.json()["error"]["kind"], "api");
        assert!(ran.err.contains(hint), "{ran:?}");
    }
    scene.standin.set_access(Access::Full);
    scene.unset("HEROKU_API_KEY");
    scene.unstuck(&["releases"]).code(5);
}
