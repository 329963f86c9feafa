//! Dynos that are real processes.

#![allow(clippy::unwrap_used, reason = "a test's helpers fail as tests do")]

mod common;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use common::{Client, LONG, column, until};
use serde_json::json;
use tempfile::TempDir;
use unstuck_standin::{Ailment, AilmentRule, Deploy, Fact, Mode, Options, Standin, Status, Timing};

const WEB: &str = concat!("exec ruby ", env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/web.rb");

/// An app whose Procfile reads as given, with one dyno of each type but `release`.
fn app(procfile: &[(&str, &str)]) -> (TempDir, Options) {
    let root = TempDir::new().unwrap();
    write_procfile(root.path(), procfile);
    let types = procfile.iter().map(|(kind, _)| (*kind).to_owned()).filter(|kind| kind != "release");
    let mode = Mode::Procfile {
        root: root.path().into(),
        procfile: None,
        env: BTreeMap::new(),
        grace: Duration::from_secs(30),
    };
    let formation = types.map(|kind| (kind, 1)).collect();
    (root, Options { formation, mode, ..Options::default() })
}

fn write_procfile(root: &Path, procfile: &[(&str, &str)]) {
    let lines: Vec<String> = procfile.iter().map(|(kind, command)| format!("{kind}: {command}\n")).collect();
    std::fs::write(root.join("Procfile"), lines.concat()).unwrap();
}

fn start(options: Options) -> Standin {
    let standin = Standin::start(options).unwrap();
    assert!(standin.wait_until_up(LONG), "{:#?}", standin.log());
    standin
}

/// Waits for the end of a dyno's process; gives its exit status.
fn ended(standin: &Standin, after: u64, name: &str) -> i32 {
    let ended = |fact: &Fact| matches!(fact, Fact::Ended { name: ended, .. } if ended.starts_with(name));
    let entry =
        standin.wait_for(after, LONG, |entry| ended(&entry.fact)).unwrap_or_else(|| panic!("{:#?}", standin.log()));
    match entry.fact {
        Fact::Ended { status, .. } => status,
        _ => unreachable!("asked for an end"),
    }
}

fn state(standin: &Standin, name: &str) -> String {
    standin
        .dynos()
        .iter()
        .find(|dyno| dyno["name"] == name)
        .map(|dyno| dyno["state"].as_str().unwrap().into())
        .unwrap_or_default()
}

/// The log's lines of one process, without their times.
fn log_of(standin: &Standin, process: &str) -> Vec<String> {
    let line = |line: &String| line.split_once(' ').unwrap().1.to_owned();
    standin.log().iter().map(line).filter(|line| line.contains(&format!("[{process}]: "))).collect()
}

/// Processes whose command line or environment holds `needle`.
fn living(needle: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let pid = entry.file_name().into_string().unwrap();
        if pid.bytes().all(|byte| byte.is_ascii_digit()) && pid != std::process::id().to_string() {
            for file in ["cmdline", "environ"] {
                let bytes = std::fs::read(entry.path().join(file)).unwrap_or_default();
                if String::from_utf8_lossy(&bytes).contains(needle) {
                    found.push(format!("{pid} {}", String::from_utf8_lossy(&bytes).replace('\0', " ")));
                }
            }
        }
    }
    found
}

#[test]
fn a_web_dyno_is_up_when_its_port_is_bound_and_a_restart_replaces_its_process() {
    let (_root, options) = app(&[("web", WEB)]);
    let standin = start(Options { config: BTreeMap::from([("GREETING".into(), "hello".into())]), ..options });
    let client = Client::new(&standin);
    let first = client.get(standin.router_url());
    assert!(first.body.ends_with(" web.1 hello\n"), "{}", first.body);
    assert_eq!(first.headers["standin-dyno"], "web.1");
    let seq = standin.journal(0).last().unwrap().seq;
    assert_eq!(client.delete("/apps/standin-app/formations/web").status, 202);
    assert_eq!(ended(&standin, seq, "web.1"), 143);
    assert!(standin.wait_until_up(LONG));
    let second = client.get(standin.router_url());
    assert_ne!(first.body, second.body);
    let port =
        |line: &String| if line.contains("Listening on") { "app[web.1]: Listening".to_owned() } else { line.clone() };
    let log: Vec<String> = log_of(&standin, "web.1").iter().map(port).collect();
    let starting = format!("heroku[web.1]: Starting process with command `{WEB}`");
    let expected = [
        &starting,
        "app[web.1]: Listening",
        "heroku[web.1]: State changed from starting to up",
        "heroku[web.1]: Restarting",
        "heroku[web.1]: State changed from up to starting",
        "heroku[web.1]: Stopping all processes with SIGTERM",
        "heroku[web.1]: Process exited with status 143",
        &starting,
        "app[web.1]: Listening",
        "heroku[web.1]: State changed from starting to up",
    ];
    assert_eq!(
        log.iter().filter(|line| line.starts_with("heroku") || line.ends_with("Listening")).collect::<Vec<_>>(),
        expected
    );
    let router = log_of(&standin, "router");
    assert!(router[0].starts_with("heroku[router]: at=info method=GET path=\"/\" host=127.0.0.1:"), "{router:?}");
    assert!(
        router[0].contains(" dyno=web.1 connect=0ms service=") && router[0].contains(" status=200 bytes="),
        "{router:?}"
    );
}

#[test]
fn a_new_config_var_reaches_new_processes() {
    let (_root, options) = app(&[("web", WEB)]);
    let standin = start(options);
    let client = Client::new(&standin);
    client.patch("/apps/standin-app/config-vars", &json!({"GREETING": "changed"}));
    until("the new process", || client.get(standin.router_url()).body.ends_with(" web.1 changed\n"));
}

#[test]
fn who_ignores_sigterm_is_killed_when_the_grace_is_over() {
    let (_root, mut options) = app(&[("worker", "trap '' TERM; echo ready; while :; do sleep 1; done")]);
    let Mode::Procfile { grace, .. } = &mut options.mode else { unreachable!("asked for a Procfile") };
    *grace = Duration::from_millis(300);
    let standin = start(options);
    until("the trap", || standin.log().iter().any(|line| line.ends_with("app[worker.1]: ready")));
    let seq = standin.journal(0).last().unwrap().seq;
    assert!(standin.restart("worker.1"));
    assert_eq!(ended(&standin, seq, "worker.1"), 137);
    let log = log_of(&standin, "worker.1");
    assert!(log.iter().any(|line| line.starts_with("heroku[worker.1]: Error R12 (Exit timeout) -> ")), "{log:?}");
    assert!(log.contains(&"heroku[worker.1]: Stopping all processes with SIGKILL".to_owned()), "{log:?}");
}

#[test]
fn a_web_dyno_that_binds_nothing_gets_r10() {
    let (_root, options) = app(&[("web", "exec sleep 600")]);
    let timing = Timing { boot_timeout: Duration::from_millis(300), ..Timing::default() };
    let standin = Standin::start(Options { timing, ..options }).unwrap();
    assert_eq!(ended(&standin, 0, "web.1"), 137);
    let log = log_of(&standin, "web.1");
    let expected = [
        "heroku[web.1]: Starting process with command `exec sleep 600`",
        "heroku[web.1]: Error R10 (Boot timeout) -> Web process failed to bind to $PORT within 0 seconds of launch",
        "heroku[web.1]: Stopping process with SIGKILL",
        "heroku[web.1]: Process exited with status 137",
        "heroku[web.1]: State changed from starting to crashed",
    ];
    assert_eq!(log[..5], expected);
}

#[test]
fn a_crash_is_followed_by_one_restart_at_once_and_then_by_a_cool_off() {
    let (_root, options) = app(&[("web", WEB)]);
    let standin = start(options);
    standin.set_ailments(vec![AilmentRule { dyno: "web".into(), ailment: Ailment::CrashesOnBoot, count: Some(1) }]);
    let seq = standin.journal(0).last().unwrap().seq;
    assert!(standin.crash("web.1"));
    let began = standin.wait_for(seq, LONG, |entry| matches!(entry.fact, Fact::Began { .. })).unwrap();
    assert_eq!(ended(&standin, began.seq, "web.1"), 1);
    until("the second crash", || state(&standin, "web.1") == "crashed");
    let answer = Client::new(&standin).get(standin.router_url());
    assert_eq!((answer.status, answer.body.as_str()), (503, "H10 App crashed\n"));
    let router = log_of(&standin, "router");
    assert!(
        router[0].starts_with("heroku[router]: at=error code=H10 desc=\"App crashed\" method=GET path=\"/\""),
        "{router:?}"
    );
    assert!(router[0].contains(" dyno= connect= service= status=503 bytes= protocol="), "{router:?}");
    Client::new(&standin).delete("/apps/standin-app/formations/web");
    assert!(standin.wait_until_up(LONG));
}

#[test]
fn every_process_of_a_dyno_ends_with_it_also_one_that_left_its_group() {
    let (root, options) = app(&[("worker", "setsid sleep 7001 & sleep 7002 & echo $$ ready; wait")]);
    let standin = start(options);
    let mark = root.path().file_name().unwrap().to_str().unwrap().to_owned();
    // The directory's name is in the environment of each process, as PWD.
    until("three processes", || living(&mark).len() >= 3);
    let seq = standin.journal(0).last().unwrap().seq;
    standin.scale("worker", 0);
    ended(&standin, seq, "worker.1");
    assert_eq!(living(&mark), Vec::<String>::new());
}

#[test]
fn a_one_off_dyno_runs_and_is_gone() {
    let (root, options) = app(&[("web", WEB)]);
    let standin = start(options);
    let client = Client::new(&standin);
    let made = client.post(
        "/apps/standin-app/dynos",
        &json!({"command": "echo $DYNO $EXTRA > out; echo $HEROKU_APP_NAME", "env": {"EXTRA": "x"}}),
    );
    let name = made.json()["name"].as_str().unwrap().to_owned();
    assert_eq!(ended(&standin, 0, &name), 0);
    assert_eq!(std::fs::read_to_string(root.path().join("out")).unwrap(), format!("{name} x\n"));
    assert_eq!(column(&standin.dynos(), "name"), ["web.1"]);
    let log = log_of(&standin, &name);
    assert!(log.contains(&format!("app[{name}]: standin-app")), "{log:?}");
    assert_eq!(log.last().unwrap(), &format!("heroku[{name}]: State changed from up to complete"));
}

#[test]
fn a_release_command_decides_over_its_release() {
    let (_root, options) = app(&[("web", WEB)]);
    let standin = start(options);
    let client = Client::new(&standin);
    let release = |code: &str| {
        let command =
            format!("echo $DYNO $HEROKU_RELEASE_VERSION; echo $HEROKU_RELEASE_STREAM_URL | cut -d/ -f6; exit {code}");
        let next = TempDir::new().unwrap();
        write_procfile(next.path(), &[("web", WEB), ("release", &command)]);
        let seq = standin.journal(0).last().unwrap().seq;
        let version = standin.deploy(Deploy { root: Some(next.path().into()), ..Deploy::default() }).unwrap();
        let name = column(&standin.dynos(), "name").into_iter().find(|name| name.starts_with("release."));
        let over = |fact: &Fact| matches!(fact, Fact::Release { version: v, status } if *v == version && *status != Status::Pending);
        standin.wait_for(seq, LONG, |entry| over(&entry.fact)).unwrap();
        let release = client.get(&format!("/apps/standin-app/releases/{version}")).json();
        let output = client.get(release["output_stream_url"].as_str().unwrap()).body;
        assert_eq!(output, format!("{} v{version}\n{}\n", name.unwrap(), standin.app_id()));
        (release["status"].as_str().unwrap().to_owned(), release["current"].as_bool().unwrap(), next)
    };
    let before = standin.dynos();
    let (status, current, _failed_root) = release("3");
    assert_eq!((status.as_str(), current), ("failed", false));
    assert_eq!(column(&standin.dynos(), "id"), column(&before, "id"));
    let (status, current, _next_root) = release("0");
    assert_eq!((status.as_str(), current), ("succeeded", true));
    assert_ne!(column(&standin.dynos(), "id"), column(&before, "id"));
    assert!(standin.wait_until_up(LONG));
    let api = log_of(&standin, "api");
    let words: Vec<&str> = api.iter().map(|line| line.split(": ").nth(1).unwrap()).collect();
    let position =
        |start: &str| words.iter().position(|word| word.starts_with(start)).unwrap_or_else(|| panic!("{words:?}"));
    assert!(
        position("Running release v3 commands by dev@example.com") < position("Release v3 created by dev@example.com")
    );
}

#[test]
fn the_program_serves_and_leaves_nothing_however_it_ends() {
    for (signal, clean) in [("TERM", true), ("INT", true), ("KILL", false)] {
        let (root, _) = app(&[("web", WEB), ("worker", "setsid sleep 7003 & trap '' TERM; sleep 7004")]);
        let mut program = Command::new(env!("CARGO_BIN_EXE_unstuck-standin"))
            .args(["--formation", "web=1,worker=1", "--app", "rehearsal", "--token", "t", "--grace", "1", "--root"])
            .arg(root.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines: Vec<String> =
            BufReader::new(program.stdout.take().unwrap()).lines().take(4).map(Result::unwrap).collect();
        assert!(
            lines[1].starts_with("export HEROKU_HOST=http://127.0.0.1:") && lines[2] == "export HEROKU_API_KEY=t",
            "{lines:?}"
        );
        let mark = root.path().file_name().unwrap().to_str().unwrap().to_owned();
        until("the worker's processes", || {
            living("7003").iter().any(|process| process.contains("sleep")) && living(&mark).len() >= 4
        });
        let sent = Command::new("kill").args(["-s", signal, &program.id().to_string()]).status().unwrap();
        assert!(sent.success());
        assert_eq!(program.wait().unwrap().code(), clean.then_some(0), "{signal}");
        until("the end of every process", || living(&mark).is_empty());
    }
}
