//! What `ps`, `tail` and `releases` print, beside what the real `heroku` CLI prints for the same app.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what went wrong by failing there")]

#[path = "support/heroku_cli.rs"]
mod heroku_cli;
#[path = "support/scene.rs"]
mod scene;

use heroku_cli::Cli;
use scene::Scene;
use unstuck_standin::{Deploy, Options};

/// What `heroku` prints, in UTC as we do.
fn heroku(scene: &Scene, args: &[&str]) -> String {
    let output = Cli::of(&scene.standin).command(args).env("TZ", "UTC").output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// A line without what goes on while one asks: the seconds since.
fn still(line: &str) -> String {
    let (before, rest) = line.split_once(" (~ ").unwrap_or((line, ""));
    let after = rest.split_once(" ago)").map_or("", |(_, after)| after);
    format!("{before}{after}").trim_end().to_owned()
}

fn lines(text: &str) -> Vec<String> {
    text.lines().map(still).collect()
}

#[test]
fn processes_are_listed_as_heroku_lists_them() {
    let formation = [("web", 11), ("worker", 2), ("clock", 1)].map(|(kind, count)| (kind.to_owned(), count)).into();
    let scene = Scene::with(Options { formation, ..Options::default() });
    scene.settled();
    scene.standin.run("bin/rails runner 'sleep'");
    scene.standin.run("bash");
    let theirs = lines(&heroku(&scene, &["ps"]));
    let ours = scene.unstuck(&["ps"]).code(0);
    // What we add to a line is the boot against the schema.
    let without = |line: String| line.split_once(", booted ").map_or(line.clone(), |(before, _)| before.to_owned());
    let ours: Vec<String> = lines(&ours.out).into_iter().map(without).collect();
    assert_eq!(ours, theirs, "{ours:#?} {theirs:#?}");

    let theirs = lines(&heroku(&scene, &["ps", "worker"]));
    let ours: Vec<String> = lines(&scene.unstuck(&["ps", "worker"]).code(0).out).into_iter().map(without).collect();
    assert_eq!(ours, theirs);
}

#[test]
fn the_log_is_printed_as_heroku_prints_it() {
    let scene = Scene::new();
    for line in [
        "one",
        "",
        "  with blanks  ",
        "\u{fc}ml\u{e4}ut",
        "[1m not an escape",
        "Completed 500 Internal Server Error in 3ms",
    ] {
        scene.standin.say("app", "web.1", line);
    }
    scene.standin.say(
        "heroku",
        "router",
        "at=error code=H12 desc=\"Request timeout\" method=GET path=\"/a?b=c\" status=503",
    );
    scene.standin.say("app", "worker.1", "the last one");
    for args in [&["-n", "1500"][..], &["-n", "9", "-s", "heroku"], &["-n", "9", "-d", "web.1"]] {
        let theirs = heroku(&scene, &[&["logs"], args].concat());
        let ours = scene.unstuck(&[&["tail", "--no-tail"], args].concat()).code(0).out;
        assert_eq!(ours.lines().collect::<Vec<_>>(), theirs.lines().collect::<Vec<_>>(), "{args:?}");
        assert!(!ours.is_empty());
    }
}

#[test]
fn releases_are_listed_as_heroku_lists_them() {
    let scene = Scene::new();
    for commit in ["1a2b3c4d", "5e6f7a8b"] {
        scene.standin.deploy(Deploy { commit: Some(commit.into()), ..Deploy::default() }).unwrap();
    }
    let theirs = lines(&heroku(&scene, &["releases", "-n", "2"]));
    let ours = scene.unstuck(&["releases", "-n", "2"]).code(0);
    let ours: Vec<String> = lines(&ours.out);
    let table =
        |lines: &[String]| lines.iter().skip(1).filter(|line| line.contains("  v")).cloned().collect::<Vec<_>>();
    assert_eq!(table(&ours), table(&theirs), "{ours:#?} {theirs:#?}");
    assert_eq!(table(&theirs).len(), 3);
}
