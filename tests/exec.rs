//! `unstuck exec` from the outside: as the parent of a process, and as its guard, on all three engines; and what a restart by it
//! loses with real puma and the real Rails application.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what went wrong by failing there")]

#[path = "support/load.rs"]
mod load;
#[allow(dead_code, reason = "each test uses its own part of it")]
#[path = "support/mariadb.rs"]
mod mariadb;
#[path = "support/postgres.rs"]
mod postgres;
#[path = "support/proxy.rs"]
mod proxy;
#[path = "support/rails_app.rs"]
mod rails_app;
#[path = "support/scene.rs"]
mod scene;
#[path = "support/servers.rs"]
mod servers;

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::PathBuf;
use std::process::{Child, ChildStderr, Command, Output, Stdio};
use std::time::Duration;

use load::{Load, Served};
use mariadb::{Mariadb, MariadbOptions};
use postgres::{Postgres, PostgresOptions};
use proxy::Proxy;
use scene::Scene;
use scene::secrets::keep;
use servers::Server;
use unstuck_standin::Options;

/// Writes down each start and each signal; ends with code 3 when it is told to.
const CHILD: &str = r#"#!/bin/bash
trap 'echo TERM >> log; exit 3' TERM
for signal in HUP INT QUIT USR1 USR2 TTIN TTOU WINCH; do trap "echo $signal >> log" $signal; done
echo start >> log
while :; do sleep 0.02; done
"#;

/// The same, but it does not want to end.
const DEAF: &str = r"#!/bin/bash
trap '' TERM
echo start >> log
exec sleep 600
";

/// A guard that runs, with a process group of its own.
struct Guard {
    process: Child,
    log: PathBuf,
    err: BufReader<ChildStderr>,
    said: String,
}

impl Guard {
    /// `unstuck exec`, looking often, with these options and this script as its command.
    fn start(scene: &Scene, options: &[&str], script: &str) -> Self {
        fs::write(scene.path("child"), script).unwrap();
        let mut command = scene.command(&["exec", "--interval", "50ms"]);
        command.args(options).args(["--", "bash", "child"]).process_group(0);
        Self::of(command, scene)
    }

    fn of(mut command: Command, scene: &Scene) -> Self {
        let mut process = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let err = BufReader::new(process.stderr.take().unwrap());
        Self { process, log: scene.path("log"), err, said: String::new() }
    }

    /// Waits until the command has written these lines, and no others.
    #[track_caller]
    fn logged(&self, expected: &str) {
        let mut log = String::new();
        for _ in 0..2_000 {
            log = fs::read_to_string(&self.log).unwrap_or_default().replace('\n', " ");
            if log.trim() == expected {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("{expected:?} was waited for, {log:?} is there; said so far: {}", self.said);
    }

    /// Waits for a line on its standard error that contains `sign`.
    fn says(&mut self, sign: &str) {
        loop {
            let start = self.said.len();
            assert!(self.err.read_line(&mut self.said).unwrap() > 0, "it ended without {sign:?}: {}", self.said);
            if self.said[start..].contains(sign) {
                return;
            }
        }
    }

    fn signal(&self, signal: i32) {
        kill(i32::try_from(self.process.id()).unwrap(), signal);
    }

    /// To every process of the group in one go, as a terminal does; the platform of a dyno does the same.
    fn signal_all(&self, signal: i32) {
        kill(-i32::try_from(self.process.id()).unwrap(), signal);
    }

    /// Its exit code, and all that it has said.
    fn end(mut self) -> (Option<i32>, String) {
        let status = self.process.wait().unwrap();
        let mut said = std::mem::take(&mut self.said).into_bytes();
        self.err.read_to_end(&mut said).unwrap();
        keep(&Output { status, stdout: Vec::new(), stderr: said.clone() });
        (status.code(), String::from_utf8(said).unwrap())
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        // Whatever is left of a test that failed.
        if self.process.try_wait().is_ok_and(|status| status.is_none()) {
            self.signal_all(libc::SIGKILL);
            let _ = self.process.wait();
        }
    }
}

fn kill(pid: i32, signal: i32) {
    // SAFETY: kill takes two integers and touches no memory of ours.
    assert_eq!(unsafe { libc::kill(pid, signal) }, 0);
}

/// A scene whose database has Rails' tables and one version.
fn scene() -> Scene {
    prepared(Scene::new())
}

fn prepared(scene: Scene) -> Scene {
    scene.sql(&fs::read_to_string(scene.path("db/tables.sql")).unwrap());
    scene.sql("insert into schema_migrations values ('1')");
    scene
}

fn change(scene: &Scene, version: u32) {
    scene.sql(&format!("insert into schema_migrations values ('{version}')"));
}

#[test]
fn exit_codes_are_those_of_a_shell() {
    let scene = scene();
    fs::write(scene.path("text"), "no program").unwrap();
    for (words, code) in [
        (&["sh", "-c", "exit 0"][..], 0),
        (&["sh", "-c", "exit 7"], 7),
        (&["sh", "-c", "kill -9 $$"], 137),
        (&["sh", "-c", "kill -TERM $$"], 143),
        (&["no-such-program"], 127),
        (&["./text"], 126),
        (&["./db"], 126),
    ] {
        let output = scene.command(&[&["exec", "--"], words].concat()).output().unwrap();
        keep(&output);
        assert_eq!(output.status.code(), Some(code), "{words:?}: {output:?}");
    }
    for usage in
        [&["exec"][..], &["exec", "--interval", "1", "--", "true"], &["exec", "--reload-signal", "KILL", "--", "true"]]
    {
        scene.unstuck(usage).code(2);
    }
}

#[test]
fn standard_streams_are_the_commands_own() {
    let scene = scene();
    fs::write(scene.path("input"), "in").unwrap();
    let mut command = scene.command(&["exec", "--json", "--", "sh", "-c", "cat; echo out; echo err >&2"]);
    let output = command.stdin(fs::File::open(scene.path("input")).unwrap()).output().unwrap();
    keep(&output);
    assert_eq!((output.stdout, output.stderr), (b"inout\n".to_vec(), b"err\n".to_vec()));
}

#[test]
fn a_signal_reaches_the_command_once_whoever_was_signalled() {
    let scene = scene();
    fs::write(scene.path("child"), CHILD).unwrap();
    // What the guard itself sends: a process that is slow takes two signals of one moment for one. The tracer stands aside,
    // in a group of its own.
    let unstuck = scene.command(&[]);
    let mut command = Command::new("strace");
    command.args(["-DD", "-qq", "-e", "trace=kill", "-o", "trace"]).arg(unstuck.get_program());
    command.args(["exec", "--", "bash", "child"]).current_dir(scene.root.path()).env_clear().envs(&scene.env);
    command.stdin(Stdio::null()).process_group(0);
    let mut guard = Guard::of(command, &scene);
    let mut log = "start".to_owned();
    guard.logged(&log);
    let names = [
        ("HUP", libc::SIGHUP),
        ("INT", libc::SIGINT),
        ("QUIT", libc::SIGQUIT),
        ("USR1", libc::SIGUSR1),
        ("USR2", libc::SIGUSR2),
        ("WINCH", libc::SIGWINCH),
        ("TTIN", libc::SIGTTIN),
        ("TTOU", libc::SIGTTOU),
    ];
    for (name, signal) in names {
        guard.signal(signal);
        log += &format!(" {name}");
        guard.logged(&log);
    }
    // The last two would stop what the script waits for.
    for (name, signal) in &names[..6] {
        guard.signal_all(*signal);
        log += &format!(" {name}");
        guard.logged(&log);
    }
    guard.signal_all(libc::SIGTERM);
    assert_eq!(guard.process.wait().unwrap().code(), Some(3));
    guard.logged(&(log + " TERM"));
    // The tracer may have to finish its line.
    let sent = || fs::read_to_string(scene.path("trace")).unwrap().matches(" = 0").count();
    until(|| sent() >= names.len());
    assert_eq!(sent(), names.len(), "one for each that only the guard got");
}

#[test]
fn orphans_are_reaped_and_a_guard_that_is_killed_takes_the_command_along() {
    let scene = scene();
    let guard = Guard::start(&scene, &[], "(sleep 0.01 &)\n(sleep 0.02 &)\necho start >> log\nexec sleep 600");
    guard.logged("start");
    let family = || scene::children_of(&guard.process);
    let state = |pid: i32| fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The command, and the process that listens beside it.
    let command = || family().into_iter().find(|&pid| state(pid).contains("(sleep) S"));
    until(|| family().len() == 2 && command().is_some());
    let command = command().expect("the command");
    guard.signal(libc::SIGKILL);
    until(|| !state(command).contains("(sleep)"));
}

#[track_caller]
fn until(done: impl Fn() -> bool) {
    for _ in 0..2_000 {
        if done() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("it did not happen within 20 s");
}

#[test]
fn the_start_waits_until_nothing_is_pending_or_running() {
    let scene = scene();
    scene.migration(2, "two", "true");
    let mut guard = Guard::start(&scene, &[], CHILD);
    guard.says("migration 2 is pending; the start waits");
    assert!(!guard.log.exists());
    // It goes on in the migration that is running by now.
    scene.migration(2, "two", "touch began; while [ ! -e go ]; do sleep 0.02; done");
    let migrate = scene.start(&["migrate"]);
    scene.wait_for_file("began");
    assert!(!guard.log.exists());
    fs::write(scene.path("go"), "").unwrap();
    migrate.end().code(0);
    guard.logged("start");
    guard.signal(libc::SIGTERM);
    assert_eq!(guard.end().0, Some(3));
}

#[test]
fn the_wait_has_an_end() {
    let scene = scene();
    scene.migration(2, "two", "true");
    let bound = ["--wait-timeout", "300ms"];
    let mut guard = Guard::start(&scene, &bound, CHILD);
    guard.says("STARTING ON A SCHEMA THAT IS ABOUT TO CHANGE");
    guard.logged("start");
    change(&scene, 2);
    guard.logged("start TERM start");
    guard.signal(libc::SIGTERM);
    assert_eq!(guard.end().0, Some(3));

    scene.sql("delete from schema_migrations where version = '2'");
    fs::remove_file(scene.path("log")).unwrap();
    let (code, said) = Guard::start(&scene, &[&bound[..], &["--after-wait", "exit"]].concat(), CHILD).end();
    assert_eq!(code, Some(5), "{said}");
    assert!(!scene.path("log").exists());

    // Nobody is there to hand it on to.
    let mut guard = Guard::start(&scene, &[], CHILD);
    guard.says("the start waits");
    guard.signal(libc::SIGTERM);
    assert_eq!(guard.end().0, Some(143));
}

/// What a guard is for, on any engine.
fn a_change_restarts_once(scene: &Scene) {
    let guard = Guard::start(scene, &[], CHILD);
    guard.logged("start");
    change(scene, 2);
    guard.logged("start TERM start");
    // A version that is taken back; and had the first change led to two restarts, there would be one too many now.
    scene.sql("delete from schema_migrations where version = '2'");
    guard.logged("start TERM start TERM start");
    guard.signal(libc::SIGTERM);
    let (code, said) = guard.end();
    assert_eq!(code, Some(3), "{said}");
    assert_eq!(said.matches("the schema changed").count(), 2, "{said}");
}

#[test]
fn a_change_restarts_once_on_sqlite() {
    a_change_restarts_once(&scene());
}

#[test]
fn a_change_restarts_once_on_mariadb() {
    let server = Mariadb::start(MariadbOptions::default());
    let scene = prepared(Scene::on(&server.store("exec"), Options::default()));
    a_change_restarts_once(&scene);
    a_running_migration_is_waited_for(&scene, &server, "select is_used_lock(concat(2053462845 * KEY)) is not null");
}

#[test]
fn a_change_restarts_once_on_postgresql_and_a_lost_database_stops_nothing() {
    let server = Postgres::start(&PostgresOptions::default());
    let mut scene = prepared(Scene::on(&server.store("exec"), Options::default()));
    a_change_restarts_once(&scene);
    a_running_migration_is_waited_for(
        &scene,
        &server,
        "select count(*) from pg_locks where locktype = 'advisory' and objsubid = 1",
    );

    let proxy = Proxy::to(server.port);
    scene.set("DATABASE_URL", &server.url("exec").replace(&server.port.to_string(), &proxy.port.to_string()));
    fs::remove_file(scene.path("log")).unwrap();
    let mut guard = Guard::start(&scene, &[], CHILD);
    guard.logged("start");
    proxy.refuse();
    proxy.cut();
    guard.says("a change of the schema would not be seen for now");
    change(&scene, 30);
    proxy.pass();
    guard.says("the schema can be looked at again");
    guard.logged("start TERM start");
    guard.signal(libc::SIGTERM);
    let (code, said) = guard.end();
    assert_eq!(code, Some(3), "{said}");
    assert_eq!(said.matches("would not be seen").count(), 1, "said once: {said}");

    // Away at the start: what the schema was then is not known, so that the command is taken for old once.
    fs::remove_file(scene.path("log")).unwrap();
    proxy.refuse();
    let mut guard = Guard::start(&scene, &[], CHILD);
    guard.says("starting without having looked at the schema");
    guard.logged("start");
    proxy.pass();
    guard.logged("start TERM start");
    guard.signal(libc::SIGTERM);
    assert_eq!(guard.end().0, Some(3));
}

/// Somebody holds Rails' own lock while versions appear. `held` asks whether it is there.
fn a_running_migration_is_waited_for<S: Server>(scene: &Scene, _: &S, held: &str) {
    fs::remove_file(scene.path("log")).unwrap();
    let guard = Guard::start(scene, &[], CHILD);
    guard.logged("start");
    let key = servers::crc32(b"exec").to_string();
    let mut holder = Command::new(scene.path("bin/sql"));
    let mut holder = holder.arg(S::HOLD_RAILS_LOCK.replace("KEY", &key)).stdout(Stdio::null()).spawn().unwrap();
    until(|| scene.sql(&held.replace("KEY", &key)) == "1");
    change(scene, 10);
    change(scene, 11);
    // For as long as it is held: many looks.
    loop {
        let log = fs::read_to_string(&guard.log).unwrap();
        if holder.try_wait().unwrap().is_some() {
            break;
        }
        assert_eq!(log, "start\n");
        std::thread::sleep(Duration::from_millis(20));
    }
    guard.logged("start TERM start");
    guard.signal(libc::SIGTERM);
    assert_eq!(guard.end().0, Some(3));
}

#[test]
fn a_record_without_a_new_version_restarts_too() {
    let scene = scene();
    scene.settled();
    // Half of a change is left, and no version; without the API only the guard can help.
    scene.migration(3, "half", "sql 'create table half (a int)'; while [ ! -e go ]; do sleep 0.02; done; false");
    let guard = Guard::start(&scene, &["--wait-timeout", "100ms"], CHILD);
    guard.logged("start");
    let migrate = scene.start(&["migrate"]);
    until(|| scene.phases() == ["M"]);
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(fs::read_to_string(&guard.log).unwrap(), "start\n");
    fs::write(scene.path("go"), "").unwrap();
    migrate.end().code(3);
    guard.logged("start TERM start");
    guard.signal(libc::SIGTERM);
    assert_eq!(guard.end().0, Some(3));
}

#[test]
fn two_changes_in_a_row_leave_a_new_process() {
    let scene = scene();
    // It takes its time to end: the second change comes while it does.
    let slow = CHILD.replace("exit 3", "touch ending; while [ ! -e go ]; do sleep 0.02; done; exit 3");
    let guard = Guard::start(&scene, &[], &slow);
    guard.logged("start");
    change(&scene, 2);
    scene.wait_for_file("ending");
    change(&scene, 3);
    fs::write(scene.path("go"), "").unwrap();
    guard.logged("start TERM start");
    guard.signal(libc::SIGTERM);
    let (code, said) = guard.end();
    assert_eq!(code, Some(3), "{said}");
    assert_eq!(said.matches("is restarted").count(), 1, "the new process knows both: {said}");
}

#[test]
fn sigterm_during_the_restart_ends_both_and_is_not_repeated() {
    let scene = scene();
    let slow = CHILD.replace("exit 3", "touch ending; while [ ! -e go ]; do sleep 0.02; done; exit 3");
    let guard = Guard::start(&scene, &[], &slow);
    guard.logged("start");
    change(&scene, 2);
    scene.wait_for_file("ending");
    guard.signal(libc::SIGTERM);
    std::thread::sleep(Duration::from_millis(300));
    fs::write(scene.path("go"), "").unwrap();
    let (code, said) = guard.end();
    assert_eq!(code, Some(3), "{said}");
    assert_eq!(fs::read_to_string(scene.path("log")).unwrap(), "start\nTERM\n");
}

#[test]
fn a_command_that_does_not_end_is_killed_and_what_it_left_behind_is_ended() {
    let scene = scene();
    let mut guard = Guard::start(&scene, &["--grace-timeout", "200ms"], DEAF);
    guard.logged("start");
    change(&scene, 2);
    guard.says("did not end within 200ms: it is killed");
    guard.logged("start start");
    guard.signal_all(libc::SIGKILL);
    assert_eq!(guard.process.wait().unwrap().signal(), Some(libc::SIGKILL));

    // A shell that does not pass the signal on: what it started would be older than the schema.
    fs::remove_file(scene.path("log")).unwrap();
    fs::write(scene.path("inner"), CHILD).unwrap();
    let guard = Guard::start(&scene, &[], "bash inner\ntrue");
    guard.logged("start");
    change(&scene, 3);
    guard.logged("start TERM start");
    guard.signal_all(libc::SIGTERM);
    guard.end();
}

#[test]
fn a_reload_signal_is_sent_instead_once() {
    let scene = scene();
    let guard = Guard::start(&scene, &["--reload-signal", "USR2"], CHILD);
    guard.logged("start");
    change(&scene, 2);
    guard.logged("start USR2");
    change(&scene, 3);
    guard.logged("start USR2 USR2");
    guard.signal(libc::SIGTERM);
    assert_eq!(guard.end().0, Some(3));

    // One that does not know it yet, since it is still booting, dies of it.
    fs::remove_file(scene.path("log")).unwrap();
    let guard = Guard::start(&scene, &["--reload-signal", "SIGUSR2"], "echo start >> log; exec sleep 600");
    guard.logged("start");
    change(&scene, 4);
    guard.logged("start start");
    guard.signal(libc::SIGTERM);
    let (code, said) = guard.end();
    assert_eq!(code, Some(143), "{said}");
    assert!(said.contains("ended the command instead of reloading it"), "{said}");
}

#[test]
fn what_is_not_known_of_the_databases_stops_nothing() {
    let mut scene = Scene::new();
    scene.set("DATABASE_URL", "");
    let guard = Guard::start(&scene, &[], CHILD);
    guard.logged("start");
    guard.signal(libc::SIGTERM);
    let (code, said) = guard.end();
    assert_eq!(code, Some(3));
    assert!(said.contains("nothing guards this process"), "{said}");
}

#[test]
fn puma_loses_no_request_where_it_keeps_its_socket() {
    for options in [&["--listen", "{address}"][..], &["--reload-signal", "USR2"]] {
        let folder = tempfile::tempdir().unwrap();
        let served = Served::start(folder.path(), Some(&[&["--interval", "200ms"], options].concat()));
        served.wait_for_column("title");
        let load = Load::on(served.address, 2);
        served.add_column(1, "subtitle");
        served.wait_for_column("subtitle");
        let count = load.end();
        let output = served.end();
        assert_eq!(count.lost(), 0, "{options:?}: {count:?} {output:?}");
        assert!(count.served > 0);
    }
}
