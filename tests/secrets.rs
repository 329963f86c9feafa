//! Arguments are for everybody to see: `ps` shows them, logs and core dumps keep them. No secret is one, neither of `unstuck`
//! nor of any process that a run starts, wherever the secret comes from.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what went wrong by failing there")]

#[allow(dead_code, reason = "each test uses its own part of it")]
#[path = "support/mariadb.rs"]
mod mariadb;
#[path = "support/postgres.rs"]
mod postgres;
#[path = "support/scene.rs"]
mod scene;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use mariadb::{Mariadb, MariadbOptions};
use postgres::{Postgres, PostgresOptions, program};
use scene::secrets::{ALL, PASSWORD, PASSWORD_IN_URL, TOKEN};
use scene::{Ran, Scene, Store};
use unstuck_standin::Options;

/// Waits for a sign within the migration, so that somebody can look at the processes.
const WAITING: &str = "touch waiting; until [ -e go ]; do sleep 0.02; done; sql 'create table two (a int)'";

/// The password stands in the address; the server asks for it.
#[test]
fn on_postgresql() {
    let hba = &["host all planted 127.0.0.1/32 scram-sha-256"];
    let server = Postgres::start(&PostgresOptions { hba, ..PostgresOptions::default() });
    server.sql(&format!("create role planted superuser login password '{PASSWORD}'"));
    let (psql, dir, port) = (program("psql"), server.socket_dir.display(), server.port);
    let scene = Scene::on(
        &Store {
            url: format!("postgres://planted:{PASSWORD_IN_URL}@127.0.0.1:{port}/postgres"),
            client: format!("{psql} -XAtq -v ON_ERROR_STOP=1 -h {dir} -p {port} -U postgres -d postgres -c"),
            key: "key",
            moment: "timestamp(6)",
        },
        Options::default(),
    );
    no_argument_is_a_secret(&scene, &["bin/rails"]);
}

/// The password stands in `config/database.yml`, in an expression that Ruby has to be asked for.
#[test]
fn on_mariadb() {
    let server = Mariadb::start(MariadbOptions::default());
    server.sql(&format!("create user planted@'%' identified by '{PASSWORD}'; grant all on app.* to planted@'%'"));
    let socket = server.socket.display();
    let mut scene = Scene::on(
        &Store {
            url: String::new(),
            client: format!("mariadb --no-defaults --skip-ssl -S {socket} -u root app -BNe"),
            key: "`key`",
            moment: "datetime(6)",
        },
        Options::default(),
    );
    fs::create_dir(scene.path("config")).unwrap();
    let file = format!(
        "production:\n  adapter: mysql2\n  host: 127.0.0.1\n  port: {}\n  database: app\n  username: planted\n  \
         password: <%= '{PASSWORD}'.then {{ |password| password }} %>\n",
        server.port
    );
    fs::write(scene.path("config/database.yml"), file).unwrap();
    scene.unset("DATABASE_URL").set("RAILS_ENV", "production");
    no_argument_is_a_secret(&scene, &["bin/rails", "\"ruby\", \"-e\""]);
}

/// The token is asked of the `heroku` command.
#[test]
fn on_sqlite() {
    let mut scene = Scene::new();
    let heroku = scene.path("bin/heroku");
    fs::write(&heroku, format!("#!/bin/sh\ncat <<TOKEN\n{TOKEN}\nTOKEN\n")).unwrap();
    fs::set_permissions(&heroku, fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", scene.path("bin").display(), scene.env["PATH"]);
    scene.set("PATH", &path).unset("HEROKU_API_KEY");
    no_argument_is_a_secret(&scene, &["bin/rails", "\"auth:token\""]);
}

/// Looks at every program that two whole runs start, by its system call and by what `ps` would read. `started` must be
/// among them, or the look is worth nothing.
fn no_argument_is_a_secret(scene: &Scene, started: &[&str]) {
    scene.migration(1, "first", "sql 'create table first (a int)'");
    let log = scene.path("programs");
    let mut traced = Command::new("strace");
    traced.args(["-f", "-qq", "-s", "65535", "-e", "trace=execve,execveat", "-o"]).arg(&log);
    traced.arg(env!("CARGO_BIN_EXE_unstuck")).args(["migrate", "-vv"]);
    traced.current_dir(scene.root.path()).env_clear().envs(&scene.env).stdin(Stdio::null());
    Ran::of(traced.output().expect("strace starts")).code(0);
    let programs = fs::read_to_string(&log).unwrap();
    assert!(started.iter().all(|program| programs.contains(program)), "{programs}");
    holds_no_secret(&programs);

    scene.migration(2, "two", WAITING);
    let child = start(scene, &mut scene.command(&["migrate", "-vv"]));
    let seen = family(child.id());
    assert!(
        seen.iter().any(|line| line.contains("migrate")) && seen.iter().any(|line| line.contains("bin/rails")),
        "{seen:?}"
    );
    for line in &seen {
        holds_no_secret(line);
    }
    fs::write(scene.path("go"), "").unwrap();
    Ran::of(child.wait_with_output().unwrap()).code(0);
}

/// Starts a run and returns once its migration waits.
fn start(scene: &Scene, command: &mut Command) -> Child {
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("unstuck starts");
    scene.wait_for_file("waiting");
    child
}

fn holds_no_secret(text: &str) {
    assert!(!ALL.iter().any(|secret| text.contains(secret)), "{text}");
}

/// The arguments of a process and of all that descend from it.
fn family(pid: u32) -> BTreeSet<String> {
    let read = |pid: u32, file: &str| fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
    let parent = |pid: u32| {
        let status = String::from_utf8_lossy(&read(pid, "status")).into_owned();
        status.lines().find_map(|line| line.strip_prefix("PPid:")?.trim().parse::<u32>().ok())
    };
    let pids = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
    let belongs = |&one: &u32| std::iter::successors(Some(one), |&one| parent(one)).any(|ancestor| ancestor == pid);
    pids.filter(belongs).map(|pid: u32| String::from_utf8_lossy(&read(pid, "cmdline")).replace('\0', " ")).collect()
}

#[test]
fn in_a_core_dump() {
    let scene = Scene::new();
    scene.settled().migration(2, "two", WAITING);
    let mut command = scene.command(&["migrate", "-vv"]);
    command.arg0("unstuck");
    // SAFETY: between fork and exec only two system calls are made, which are async-signal-safe.
    unsafe { command.pre_exec(raise_core_limit) };
    let child = start(&scene, &mut command);
    let arguments = fs::read(format!("/proc/{}/cmdline", child.id())).unwrap();
    assert_eq!(arguments, b"unstuck\0migrate\0-vv\0", "what the kernel copies into a dump");
    // SAFETY: kill takes two integers and touches no memory of ours.
    assert_eq!(unsafe { libc::kill(child.id().try_into().unwrap(), libc::SIGABRT) }, 0);
    Ran::of(child.wait_with_output().unwrap()).killed();

    // Where the kernel hands its dumps to a program or to a folder of its own, they are not ours to read; then the arguments
    // as the kernel had them, above, are all there is to look at.
    let pattern = fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap();
    if !pattern.starts_with(['|', '/', '@']) {
        let dumps = fs::read_dir(scene.root.path()).unwrap().map(|entry| entry.unwrap().path());
        let prefix = pattern.split('%').next().unwrap().trim();
        let dump = dumps
            .filter(|path| path.is_file())
            .find(|path| path.file_name().unwrap().to_str().unwrap().starts_with(prefix));
        assert_eq!(arguments_of_dump(&dump.expect("a core dump")), "unstuck migrate -vv");
    }
    fs::write(scene.path("go"), "").unwrap();
    scene.unstuck(&["migrate"]).code(0);
    assert_eq!(scene.debts(), [""; 0]);
}

fn raise_core_limit() -> std::io::Result<()> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: both take a pointer to a limit that lives as long as the call.
    let raised = unsafe {
        libc::getrlimit(libc::RLIMIT_CORE, &raw mut limit);
        limit.rlim_cur = limit.rlim_max;
        libc::setrlimit(libc::RLIMIT_CORE, &raw const limit)
    };
    if raised == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

/// The arguments in the note `NT_PRPSINFO` of a core dump (ELF, 64 bits): what `ps` showed of the process, 80 bytes at most.
fn arguments_of_dump(path: &Path) -> String {
    const NOTES: u64 = 4;
    const PRPSINFO: u64 = 3;
    let core = fs::read(path).unwrap();
    let number = |at: u64, bytes: u64| {
        let at = usize::try_from(at).unwrap();
        core[at..at + usize::try_from(bytes).unwrap()].iter().rev().fold(0_u64, |sum, &byte| sum << 8 | u64::from(byte))
    };
    let headers = (0..number(0x38, 2)).map(|header| number(0x20, 8) + header * number(0x36, 2));
    let notes = headers
        .filter(|&header| number(header, 4) == NOTES)
        .map(|header| (number(header + 8, 8), number(header + 32, 8)));
    for (start, length) in notes {
        let mut at = start;
        while at < start + length {
            let (name, text) = (number(at, 4).next_multiple_of(4), number(at + 4, 4));
            let end = usize::try_from(at + 12 + name + text).unwrap();
            if number(at + 8, 4) == PRPSINFO {
                return String::from_utf8_lossy(&core[end - 80..end]).trim_end_matches(['\0', ' ']).to_owned();
            }
            at += 12 + name + text.next_multiple_of(4);
        }
    }
    panic!("{} holds no NT_PRPSINFO", path.display());
}
