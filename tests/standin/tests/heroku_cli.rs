//! The real `heroku` CLI against the stand-in.

#![allow(clippy::unwrap_used, reason = "a test's helpers fail as tests do")]

#[path = "../../support/heroku_cli.rs"]
mod client;
mod common;

use std::collections::BTreeMap;
use std::time::Duration;

use client::Cli;
use common::{column, until};
use tempfile::TempDir;
use unstuck_standin::{Attach, Deploy, Fact, Mode, Options, Standin};

/// `heroku run --exit-code`: the code, and what it printed.
fn attached(standin: &Standin, cli: &Cli, args: &[&str]) -> (Option<i32>, String) {
    let authority = standin.authority().unwrap();
    let args: Vec<&str> = ["run", "--exit-code", "--"].iter().chain(args).copied().collect();
    let mut command = cli.command(&args[..2]);
    let output = command.args(&args[2..]).env("NODE_EXTRA_CA_CERTS", authority).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout) + &text(&output.stderr))
}

/// The protocol of the rendezvous as the real client speaks it.
#[test]
fn the_real_cli_attaches_to_a_dyno_and_takes_its_exit_status() {
    let root = TempDir::new().unwrap();
    std::fs::write(root.path().join("Procfile"), "worker: exec sleep 1000\n").unwrap();
    let mode = Mode::Procfile {
        root: root.path().into(),
        procfile: None,
        env: BTreeMap::new(),
        grace: Duration::from_secs(30),
    };
    let formation = BTreeMap::from([("worker".to_owned(), 1)]);
    let standin = Standin::start(Options { mode, formation, ..Options::default() }).unwrap();
    let cli = Cli::of(&standin);
    for (script, code, said) in [("tty; exit 0", Some(0), "/dev/pts/"), ("seq 20000; exit 3", Some(3), "\n20000\n")] {
        let (found, output) = attached(&standin, &cli, &["sh", "-c", script]);
        assert_eq!(found, code, "{output}");
        assert!(output.contains(said), "{output}");
    }
    // It takes no answer for success.
    standin.set_attach(Attach::CutAt("cut here".into()));
    let (found, output) = attached(&standin, &cli, &["echo", "cut here"]);
    assert_ne!(found, Some(0), "{output}");
}

fn ids(standin: &Standin) -> Vec<String> {
    column(&standin.dynos(), "id")
}

#[track_caller]
fn has(text: &str, wanted: &[&str]) {
    for wanted in wanted {
        assert!(text.contains(wanted), "no {wanted:?} in:\n{text}");
    }
}

#[test]
fn the_real_cli_works_against_the_stand_in() {
    let config = BTreeMap::from([("RAILS_ENV".to_owned(), "production".to_owned())]);
    let standin = Standin::start(Options { config, ..Options::default() }).unwrap();
    standin.deploy(Deploy { commit: Some("1a2b3c4d".into()), ..Deploy::default() }).unwrap();
    let cli = Cli::of(&standin);

    has(
        &cli.run(&["ps"]).stdout,
        &["=== web (Standard-1X): bundle exec puma", "web.1: up 20", "web.2: up 20", "worker.1: up 20"],
    );

    let before = ids(&standin);
    has(
        &cli.run(&["ps:restart", "--process-type", "web"]).stderr,
        &["Restarting all web dynos on standin-app... done"],
    );
    let after = ids(&standin);
    assert!(before[0] != after[0] && before[1] != after[1] && before[2] == after[2], "{before:?} {after:?}");
    has(
        &cli.run(&["ps:restart", "--dyno-name", "worker.1"]).stderr,
        &["Restarting dyno worker.1 on standin-app... done"],
    );
    assert_ne!(ids(&standin)[2], before[2]);
    has(&cli.run(&["ps:stop", "--dyno-name", "web.1"]).stderr, &["Stopping dyno web.1 on standin-app... done"]);
    assert_ne!(ids(&standin)[0], after[0]);
    has(&cli.run(&["ps:scale", "web=3"]).stderr, &["now running web at 3:Standard-1X"]);
    assert_eq!(ids(&standin).len(), 4);
    cli.run(&["ps:wait"]);

    has(
        &cli.run(&["releases"]).stdout,
        &["standin-app Releases - Current: v2", "v2", "Deploy 1a2b3c4d", "dev@example.com"],
    );
    has(&cli.run(&["rollback", "v1"]).stderr, &["Rolling back standin-app to v1... done, v3"]);
    assert_eq!(standin.releases()[2]["description"], "Rollback to v1");

    has(
        &cli.run(&["logs", "--num", "500"]).stdout,
        &["heroku[web.1]: State changed from starting to up", "heroku[api]: Release v3 created by dev@example.com"],
    );
    standin.say("app", "web.1", "a line to wait for");
    cli.run_until(&["logs", "--tail", "--process-type", "web", "--source", "app"], "app[web.1]: a line to wait for");
    has(&cli.run(&["config"]).stdout, &["RAILS_ENV", "production"]);
    cli.run(&["config:set", "A=1"]);
    assert_eq!(standin.releases()[3]["description"], "Set A config vars");
    has(&cli.run(&["apps:info"]).stdout, &["standin-app"]);
    has(&cli.run(&["features:info", "preboot"]).stdout, &["preboot", "Enabled", "false"]);

    has(
        &cli.run(&["run:detached", "rails db:migrate"]).stderr,
        &["Running rails db:migrate on standin-app... done, run."],
    );
    assert!(standin.dynos().iter().any(|dyno| dyno["command"] == "rails db:migrate" && dyno["type"] == "run"));

    has(&cli.run(&["maintenance:on"]).stderr, &["Enabling maintenance mode for standin-app... done"]);
    let patched = |fact: &Fact| matches!(fact, Fact::Request { method, acted: true, .. } if method == "PATCH");
    until("the record of the change", || standin.journal(0).iter().any(|entry| patched(&entry.fact)));
    has(&cli.run(&["maintenance"]).stdout, &["on"]);
}
