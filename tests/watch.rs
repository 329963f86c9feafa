//! `unstuck watch`: what it says of a release, and that it says no more than it saw.

#![allow(clippy::unwrap_used, reason = "a test's helpers fail as tests do")]

#[path = "support/live.rs"]
mod live;
#[path = "support/scene.rs"]
mod scene;

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use live::Live;
use scene::{Ran, Scene};
use serde_json::Value;
use unstuck_standin::{Ailment, AilmentRule, Deploy, Generation, Options, Reply, Rule, Status};

/// A scene with an app that ran well for five minutes, but for one error, and was deployed then.
fn deployed() -> Scene {
    let scene = ran_for_five_minutes(Options::default());
    scene.standin.deploy(Deploy::default()).unwrap();
    assert!(scene.standin.wait_until_up(Duration::from_secs(10)));
    scene
}

fn ran_for_five_minutes(options: Options) -> Scene {
    let scene = Scene::with(options);
    let start = Timestamp::now() - SignedDuration::from_secs(330);
    for number in 0..60 {
        let at = start + SignedDuration::from_secs(number * 4);
        let (status, path) = if number == 30 { (500, "/old") } else { (200, "/") };
        scene.standin.say_at(at, "heroku", "router", &request(path, status));
    }
    scene
}

fn request(path: &str, status: u16) -> String {
    format!(
        "at=info method=GET path=\"{path}\" request_id=a dyno=web.1 connect=0ms service=8ms status={status} bytes=9"
    )
}

fn watch(scene: &Scene, code: i32) -> Value {
    scene.unstuck(&["watch", "--for", "400ms", "--json"]).code(code).json()
}

#[test]
fn all_is_well() {
    let scene = deployed();
    scene.standin.say("heroku", "router", &request("/", 200));
    // Known, and not frequent.
    scene.standin.say("heroku", "router", &request("/old", 500));
    let json = watch(&scene, 0);
    assert_eq!(
        (&json["verdict"], &json["rollback"], &json["release"]["version"]),
        (&"healthy".into(), &false.into(), &2.into())
    );
    assert_eq!((&json["before"]["requests"], &json["before"]["failed_requests"]), (&60.into(), &1.into()));
    assert_eq!(
        (&json["after"]["requests"], &json["errors"][0]["new"], &json["errors"][0]["count_before"]),
        (&2.into(), &false.into(), &1.into())
    );
    assert_eq!(json["dynos"].as_array().unwrap().len(), 3);
    assert_eq!(json["log"]["complete"], true);
    let ran = scene.unstuck(&["watch", "--for", "300ms"]).code(0);
    for wanted in [
        "standin-app v2: healthy",
        "web 2 of 2 up, worker 1 of 1 up",
        "the log goes back 5m ",
        "1 of 60 requests failed",
    ] {
        assert!(ran.out.contains(wanted), "no {wanted:?} in\n{}", ran.out);
    }
    assert!(ran.out.lines().count() < 24, "it fits a screen: {}", ran.out);
}

#[test]
fn errors_that_were_not_there_before_are_named() {
    let scene = deployed();
    let mut live = Live::start(scene.command(&["watch", "--for", "2s"]));
    live.wait_for("watching release v2");
    for line in ["KeyError (key not found: :a):", "app/models/post.rb:3:in 'Post#x'"] {
        scene.standin.say("app", "web.1", line);
    }
    scene.standin.say("heroku", "router", &request("/old", 500));
    let ran = live.end().code(1);
    for wanted in [
        "v2: new errors",
        "new KeyError: key not found: :a (web.1)",
        "app/models/post.rb:3:in 'Post#x'",
        "unstuck rollback",
    ] {
        assert!(ran.out.contains(wanted), "no {wanted:?} in\n{}", ran.out);
    }
    assert!(!ran.out.contains("new 500"), "{}", ran.out);
    let json = watch(&scene, 1);
    assert_eq!(
        (&json["verdict"], &json["rollback"], &json["errors"][0]["name"]),
        (&"new_errors".into(), &true.into(), &"KeyError".into())
    );
}

#[test]
fn a_known_error_that_became_frequent_counts() {
    let scene = deployed();
    for _ in 0..20 {
        scene.standin.say("heroku", "router", &request("/old", 500));
    }
    let json = watch(&scene, 1);
    assert_eq!((&json["verdict"], &json["errors"][0]["worse"]), (&"new_errors".into(), &true.into()));
}

#[test]
fn errors_of_stuck_dynos_are_healed_by_a_restart() {
    let scene = deployed();
    scene.standin.say("app", "web.2", "ActiveModel::UnknownAttributeError (unknown attribute 'title' for Post.):");
    let json = watch(&scene, 1);
    assert_eq!(
        (&json["verdict"], &json["rollback"], &json["errors"][0]["stuck"]),
        (&"new_errors".into(), &false.into(), &true.into())
    );
    let advice = json["advice"].as_str().unwrap();
    assert!(advice.contains("web.2") && advice.contains("unstuck restart"), "{advice}");
}

#[test]
fn processes_that_crash_end_the_watch() {
    let scene = ran_for_five_minutes(Options::default());
    scene.standin.set_ailments(vec![AilmentRule { dyno: "web".into(), ailment: Ailment::CrashesOnBoot, count: None }]);
    scene.standin.deploy(Deploy::default()).unwrap();
    let ran = scene.unstuck(&["watch", "--for", "10m"]).code(4);
    for wanted in ["v2: crashing", "web.1 is crashed", "exit 1", "roll back: `unstuck rollback`"] {
        assert!(ran.out.contains(wanted), "no {wanted:?} in\n{}", ran.out);
    }
}

#[test]
fn processes_that_are_on_their_way_are_not_judged() {
    let scene = ran_for_five_minutes(Options::default());
    scene.standin.set_ailments(vec![AilmentRule {
        dyno: "web.2".into(),
        ailment: Ailment::StaysStarting,
        count: None,
    }]);
    scene.standin.deploy(Deploy::default()).unwrap();
    let json = watch(&scene, 1);
    assert_eq!((&json["verdict"], &json["dynos"][1]["state"]), (&"unknown".into(), &"starting".into()));
}

#[test]
fn processes_of_an_older_release_are_stuck() {
    let scene = ran_for_five_minutes(Options::default());
    let before = scene.now();
    scene.standin.deploy(Deploy::default()).unwrap();
    assert!(scene.standin.wait_until_up(Duration::from_secs(10)));
    let stale = Rule { path: "/apps/*/dynos".into(), reply: Reply::Stale(Some(before)), ..Rule::default() };
    scene.standin.fault(stale);
    let json = watch(&scene, 7);
    assert_eq!((&json["verdict"], &json["dynos"][0]["new"]), (&"stuck".into(), &false.into()));
    assert!(json["advice"].as_str().unwrap().contains("unstuck restart"));
}

/// A release with a command, which is ended by hand.
fn pending() -> Scene {
    let scene = ran_for_five_minutes(Options::default());
    let command = Some("bin/rails db:migrate".to_owned());
    scene.standin.deploy(Deploy { release_command: command, ..Deploy::default() }).unwrap();
    scene
}

#[test]
fn a_pending_release_is_waited_for() {
    for (status, code, word) in [(Status::Succeeded, 0, "v2: healthy"), (Status::Failed, 3, "v2: the release failed")] {
        let scene = pending();
        let mut live = Live::start(scene.command(&["watch", "--for", "500ms"]));
        live.wait_for("release v2 is pending");
        assert!(scene.standin.finish_release(2, status));
        let ran = live.end().code(code);
        assert!(ran.out.contains(word), "{ran:?}");
    }
}

/// Whatever may have been missed is said, and nothing is healthy then.
#[test]
fn what_was_not_seen_is_not_healthy() {
    let log = |reply| Rule { path: "/apps/*/log-sessions".into(), reply, ..Rule::default() };
    let dynos = |reply| Rule { path: "/apps/*/dynos".into(), reply, ..Rule::default() };
    for (fault, line, missed) in [
        (None, Some("Error L11 (Tail buffer overflow) -> This tail session dropped 7 messages"), "dropped 7 messages"),
        (Some(log(Reply::error(403, "forbidden"))), None, "the log could not be followed"),
        (Some(dynos(Reply::Raw { status: 200, body: "[".into() })), None, "the dynos could not be listed"),
    ] {
        let mut scene = deployed();
        scene.set("UNSTUCK_API_TIMEOUT", "1s");
        if let Some(line) = line {
            scene.standin.say("heroku", "logplex", line);
        }
        if let Some(fault) = fault {
            scene.standin.fault(fault);
        }
        let json = watch(&scene, 1);
        assert_eq!((&json["verdict"], &json["log"]["complete"]), (&"unknown".into(), &false.into()));
        assert!(json["log"]["missed"].to_string().contains(missed), "{json}");
    }
}

#[test]
fn without_a_past_nothing_is_called_new() {
    let scene = Scene::with(Options { generation: Generation::Fir, ..Options::default() });
    scene.standin.deploy(Deploy::default()).unwrap();
    assert!(scene.standin.wait_until_up(Duration::from_secs(10)));
    let mut live = Live::start(scene.command(&["watch", "--for", "2s"]));
    live.wait_for("which errors are new cannot be told");
    live.wait_for("watching release v2");
    live.wait_for("up");
    scene.standin.say("app", "web-1234abcde-123ab", "KeyError (key not found: :a):");
    let ran = live.end().code(1);
    assert!(ran.out.contains("v2: cannot tell") && ran.out.contains("the log has no line from before it"), "{ran:?}");
    // Where nothing went wrong, no past is needed.
    let ran: Ran = scene.unstuck(&["watch", "--for", "300ms"]).code(0);
    assert!(ran.out.contains("v2: healthy"), "{ran:?}");
}

#[test]
fn an_impatient_person_gets_the_verdict_so_far() {
    let scene = deployed();
    let mut live = Live::start(scene.command(&["watch"]));
    live.wait_for("watching release v2 of standin-app for 10m");
    live.wait_for("web 2 of 2 up");
    scene.standin.addon_release("Attach DATABASE", std::collections::BTreeMap::new());
    let ran = live.signal(libc::SIGINT).code(130);
    assert!(ran.out.contains("v2:") && ran.out.contains("release v3 came meanwhile"), "{ran:?}");
    scene.unstuck(&["watch", "--for", "soon"]).code(2);
}
