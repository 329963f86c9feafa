//! Faults of signals and crashes.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::fd::FromRawFd as _;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::json;
use unstuck_standin::{Ailment, AilmentRule, Entry, Fact};

use crate::Fault;
use crate::scene::{Scene, TOKEN, secrets};

pub const FAULTS: &[Fault] = &[
    Fault {
        what: "killed at any system call",
        injected: "strace sends SIGKILL as the n-th call is entered; here at each message on a socket, in \
                   `tests/crash.rs` at every call that changes anything, on all three engines",
        exit: "–",
        record: "any",
        next_run: "exit 0: restarts what may be old, clears, runs nothing twice",
        check: killed_at_each_message,
    },
    Fault {
        what: "killed before or after a commit of the record",
        injected: "strace sends SIGKILL as SQLite's journal is removed, and as that is made durable",
        exit: "–",
        record: "as it was, or as it was to be",
        next_run: "exit 0: restarts what may be old, clears, runs nothing twice",
        check: killed_around_each_commit,
    },
    Fault {
        what: "killed at random moments of two runs at once",
        injected: "`tests/random_kills.rs`; here the first run is killed, and its migration command with it, while a second \
                   one waits",
        exit: "the second one: 0",
        record: "`M`, until the second one has paid",
        next_run: "has nothing to do",
        check: killed_while_another_waits,
    },
    Fault {
        what: "killed between migration and restart",
        injected: "SIGKILL from the migration command's last step",
        exit: "–; `status` says owed, and that the dynos are stuck",
        record: "`M`",
        next_run: "settles with one restart",
        check: killed_before_the_restart,
    },
    Fault {
        what: "killed before the migration did anything",
        injected: "SIGKILL from the migration command's first step",
        exit: "–",
        record: "`M`",
        next_run: "migrates, restarts once",
        check: killed_before_the_migration,
    },
    Fault {
        what: "killed while the migration command boots, which lives on",
        injected: "SIGKILL, then a second run",
        exit: "the second one: 9, naming who holds the lock",
        record: "`M`",
        next_run: "settles after the orphan's end",
        check: || outlived_by_its_child(&boots("> log 2>&1"), "true", "settled"),
    },
    Fault {
        what: "killed while the migration command boots, which then dies of its closed output",
        injected: "SIGKILL, then a second run; nobody reads any more what the orphan says",
        exit: "the second one: 9, naming who holds the lock",
        record: "`M`",
        next_run: "migrates after the orphan's end",
        check: || outlived_by_its_child(&boots(""), "true", "migrated"),
    },
    Fault {
        what: "killed while the migration command migrates, which lives on",
        injected: "SIGKILL, then a second run",
        exit: "the second one: 9, naming who holds the lock",
        record: "`M`",
        next_run: "settles after the orphan's end",
        check: || outlived_by_its_child(&["migrate".into()], ORPHAN_MIGRATES, "settled"),
    },
    Fault {
        what: "SIGTERM or SIGINT before the migration command",
        injected: "the signal, while the run waits for the lock",
        exit: "143 or 130; nothing ran",
        record: "–",
        next_run: "migrates",
        check: ended_before_the_child,
    },
    Fault {
        what: "SIGTERM during the migration command",
        injected: "the signal, once",
        exit: "143; the command was told once and waited for, the restart is asked for",
        record: "`D`",
        next_run: "settles",
        check: || told_once(1),
    },
    Fault {
        what: "SIGTERM twice",
        injected: "the signal, a second time after the command was told",
        exit: "143; the command was told once",
        record: "`D`",
        next_run: "settles",
        check: || told_once(2),
    },
    Fault {
        what: "SIGTERM after the migration command",
        injected: "the signal, while the restart is watched",
        exit: "143; says that a restart is owed",
        record: "`D`",
        next_run: "settles",
        check: ended_while_watching,
    },
    Fault {
        what: "SIGTERM, then SIGKILL",
        injected: "as the platform does after thirty seconds: the command ignores the first, the second kills only the run",
        exit: "–",
        record: "`M`",
        next_run: "waits for the orphan, settles",
        check: || orphaned_after(libc::SIGTERM, libc::SIGKILL, None),
    },
    Fault {
        what: "SIGINT twice",
        injected: "the signal, a second time while the command ignores the first",
        exit: "130 at once",
        record: "`M`",
        next_run: "waits for the orphan, settles",
        check: || orphaned_after(libc::SIGINT, libc::SIGINT, Some(128 + libc::SIGINT)),
    },
    Fault {
        what: "Ctrl-C on the terminal",
        injected: "the character, typed on a pseudo-terminal: SIGINT to its whole foreground group",
        exit: "130; the command was told once",
        record: "`D`",
        next_run: "settles",
        check: interrupted_by_the_terminal,
    },
    Fault {
        what: "the terminal is closed during the migration",
        injected: "the pseudo-terminal's other end is closed: SIGHUP, and nowhere to write to",
        exit: "0: the run is completed",
        record: "–",
        next_run: "has nothing to do",
        check: terminal_is_closed,
    },
    Fault {
        what: "stopped for a while",
        injected: "SIGSTOP, the command ends meanwhile; SIGCONT",
        exit: "0; a second run meanwhile: 9",
        record: "–",
        next_run: "has nothing to do",
        check: stopped_and_continued,
    },
    Fault {
        what: "no file descriptors left",
        injected: "`RLIMIT_NOFILE` from 5 to 32",
        exit: "0; or 1 or 5 and nothing ran; or 3 where the command could not be run to its end; or 4",
        record: "– unless 4",
        next_run: "migrates or settles",
        check: out_of_descriptors,
    },
    Fault {
        what: "no memory left",
        injected: "`RLIMIT_AS`, from too little to begin with, in small steps until a run succeeds",
        exit: "0, 1, 3, 4, 5, or killed where the kernel or the allocator ends it",
        record: "whatever it was at that moment",
        next_run: "migrates or settles",
        check: out_of_memory,
    },
    Fault {
        what: "no threads left",
        injected: "strace lets the n-th thread and all after it fail with EAGAIN",
        exit: "0; or 1 or 5 and nothing ran; or 4",
        record: "– unless 4",
        next_run: "migrates or settles",
        check: out_of_threads,
    },
];

/// A run whose migration command waits for the file `go` before it does anything.
fn boots(output: &str) -> [String; 5] {
    let script = format!("touch booted; while [ ! -e go ]; do sleep 0.02; done; exec bin/rails db:migrate {output}");
    ["migrate".into(), "--".into(), "sh".into(), "-c".into(), script]
}

/// Waits for the file `go` between a change and its version.
const ORPHAN_MIGRATES: &str = "sql 'create table half (a int)'; touch booted; while [ ! -e go ]; do sleep 0.02; done";

/// Writes down how often it is told to end; then it does.
const TOLD: &str = "trap 'echo told >> told; exit 1' TERM INT; sql 'create table two (a int)'; touch booted; while true; do sleep 0.02; done";

/// A settled app with one pending migration, whose file holds `script`.
fn pending(script: &str) -> Scene {
    let scene = Scene::new();
    scene.settled().migration(2, "two", script);
    scene
}

const TWO: &str = "sql 'create table two (a int)'";

fn killed_at_each_message() {
    killed_at(&["sendto"]);
}

fn killed_around_each_commit() {
    killed_at(&["unlink", "fsync"]);
}

fn killed_at(calls: &[&str]) {
    let scene = Scene::new();
    scene.settled();
    let mut version = 1;
    for name in calls {
        for nth in 1.. {
            version += 1;
            let file = next(&scene, version);
            let killed = scene.killed_at(calls, name, nth);
            scene.restored();
            // A version without a file is none of anybody's business; a folder of them would be slow.
            fs::remove_file(file).unwrap();
            assert_eq!(scene.ran().len(), usize::try_from(version).unwrap(), "each ran once");
            if !killed {
                assert!(nth > 1, "{name} is never called");
                break;
            }
        }
    }
}

/// A migration of this version; answers its file.
fn next(scene: &Scene, version: u64) -> PathBuf {
    scene.migration(version, "next", &format!("sql 'create table t{version} (a int)'"));
    scene.path(&format!("db/migrate/{version}_next.rb"))
}

fn killed_while_another_waits() {
    let scene =
        pending("[ -e booted ] || { touch booted; while true; do sleep 0.02; done; }; sql 'create table two (a int)'");
    let first = scene.start(&["migrate"]);
    scene.wait_for_file("booted");
    let seq = scene.now();
    let second = scene.start(&["migrate", "--json"]);
    // The second one has found its way to the lock once it has asked for the releases.
    scene.standin.wait_for(seq, Duration::from_secs(20), |entry| asks(entry, "GET", "releases")).unwrap();
    first.signal_all(libc::SIGKILL);
    first.wait();
    assert_eq!(second.end().code(0).json()["outcome"], "migrated");
    scene.kept();
    scene.restored();
    assert_eq!(scene.ran(), ["1", "2"]);
}

fn killed_before_the_restart() {
    let scene = pending(TWO);
    let before = scene.ids("web");
    scene.start(&["migrate", "--", "sh", "-c", "bin/rails db:migrate; kill -9 $PPID"]).end().killed();
    assert_eq!(scene.ids("web"), before, "nobody restarted");
    assert_eq!(scene.phases(), ["M"]);

    let status = scene.unstuck(&["status", "--json", "--exit-code"]).code(7).json();
    assert_eq!((&status["verdict"], &status["owed"]), (&json!("owed"), &json!(true)));
    assert_eq!(status["dynos"][0]["stuck"], true);
    assert_eq!(scene.ids("web"), before, "looking restarts nothing");

    let seq = scene.now();
    let report = scene.restored().json();
    assert_eq!((&report["outcome"], &report["restart"]["state"]), (&json!("settled"), &json!("proved")));
    assert_eq!(scene.writes(seq).len(), 1);
    assert_eq!(scene.ran(), ["1", "2"], "no migration is run twice");
}

fn killed_before_the_migration() {
    let scene = pending(TWO);
    scene.start(&["migrate", "--", "sh", "-c", "kill -9 $PPID"]).end().killed();
    assert_eq!(scene.phases(), ["M"]);
    let report = scene.restored().json();
    assert_eq!((&report["outcome"], &report["restart"]["requests"]), (&json!("migrated"), &json!(1)));
}

fn outlived_by_its_child(args: &[String], script: &str, outcome: &str) {
    let mut scene = pending(&format!("{script}; {TWO}"));
    let run = scene.start(&args.iter().map(String::as_str).collect::<Vec<_>>());
    scene.wait_for_file("booted");
    run.signal(libc::SIGKILL);
    run.wait();
    busy(&mut scene);
    assert_eq!(scene.phases(), ["M"]);
    fs::write(scene.path("go"), "").unwrap();
    assert_eq!(scene.restored().json()["outcome"], outcome);
    assert_eq!(scene.ran(), ["1", "2"]);
}

/// A further run finds the lock held, and says by whom.
fn busy(scene: &mut Scene) {
    scene.set("UNSTUCK_LOCK_TIMEOUT", "200ms");
    let busy = scene.unstuck(&["migrate", "--json"]).code(9).json();
    assert_eq!(busy["outcome"], "busy");
    assert!(busy["error"]["message"].as_str().unwrap().contains("process "), "the holder is named: {busy}");
    scene.set("UNSTUCK_LOCK_TIMEOUT", "20s");
}

fn ended_before_the_child() {
    for signal in [libc::SIGTERM, libc::SIGINT] {
        let scene = pending(TWO);
        let lock = File::options().write(true).open(scene.path("db.sqlite3-unstuck.lock")).unwrap();
        lock.lock().unwrap();
        let seq = scene.now();
        let run = scene.start(&["migrate"]);
        scene.standin.wait_for(seq, Duration::from_secs(20), |entry| asks(entry, "GET", "releases")).unwrap();
        run.signal(signal);
        run.end().code(128 + signal);
        assert_eq!((scene.ran().len(), scene.debts()), (1, vec![]));
        drop(lock);
        assert_eq!(scene.restored().json()["outcome"], "migrated");
    }
}

fn told_once(times: usize) {
    let scene = pending(TOLD);
    let run = scene.start(&["migrate", "--json"]);
    scene.wait_for_file("booted");
    let seq = scene.now();
    run.signal(libc::SIGTERM);
    if times > 1 {
        scene.wait_for_file("told");
        run.signal(libc::SIGTERM);
    }
    let ran = run.end().code(128 + libc::SIGTERM);
    assert_eq!(ran.json()["outcome"], "interrupted");
    assert_eq!(fs::read_to_string(scene.path("told")).unwrap(), "told\n");
    assert_eq!(scene.writes(seq).len(), 1);
    assert_eq!(scene.phases(), ["D"], "not proved, so still owed");
    mend(&scene);
}

/// The migration is written anew, so that it comes to its end; then one run restores everything.
fn mend(scene: &Scene) {
    scene.migration(2, "two", "true");
    scene.restored();
}

fn ended_while_watching() {
    let scene = pending(TWO);
    scene.standin.set_ailments(vec![AilmentRule { dyno: "web".into(), ailment: Ailment::IgnoresRestart, count: None }]);
    let seq = scene.now();
    let run = scene.start(&["migrate"]);
    scene.standin.wait_for(seq, Duration::from_secs(20), |entry| asks(entry, "DELETE", "formations/web")).unwrap();
    run.signal(libc::SIGTERM);
    let ran = run.end().code(128 + libc::SIGTERM);
    assert!(format!("{}{}", ran.out, ran.err).contains("RESTART IS STILL OWED"), "{ran:?}");
    assert_eq!(scene.phases(), ["D"]);
    scene.standin.set_ailments(Vec::new());
    assert_eq!(scene.restored().json()["outcome"], "settled");
}

/// The migration command ignores the first signal and outlives the second one.
fn orphaned_after(first: i32, second: i32, code: Option<i32>) {
    let mut scene = pending(&format!("trap 'touch told' TERM INT; {ORPHAN_MIGRATES}; {TWO}"));
    let run = scene.start(&["migrate"]);
    scene.wait_for_file("booted");
    run.signal(first);
    scene.wait_for_file("told");
    run.signal(second);
    assert_eq!(run.wait(), code);
    busy(&mut scene);
    assert_eq!(scene.phases(), ["M"]);
    fs::write(scene.path("go"), "").unwrap();
    assert_eq!(scene.restored().json()["outcome"], "settled");
    assert_eq!(scene.ran(), ["1", "2"]);
}

fn interrupted_by_the_terminal() {
    let scene = pending(TOLD);
    let (mut run, mut terminal) = on_a_terminal(scene.command(&["migrate"]));
    scene.wait_for_file("booted");
    terminal.write_all(b"\x03").unwrap();
    let said = read_all(&mut terminal);
    assert_eq!(run.wait().unwrap().code(), Some(128 + libc::SIGINT), "{said}");
    assert!(!said.contains(TOKEN));
    assert_eq!(fs::read_to_string(scene.path("told")).unwrap(), "told\n");
    assert_eq!(scene.phases(), ["D"]);
    mend(&scene);
}

fn terminal_is_closed() {
    let scene = pending(&format!("{ORPHAN_MIGRATES}; echo into the void; {TWO}"));
    let (mut run, terminal) = on_a_terminal(scene.command(&["migrate"]));
    scene.wait_for_file("booted");
    drop(terminal);
    fs::write(scene.path("go"), "").unwrap();
    assert_eq!(run.wait().unwrap().code(), Some(0));
    scene.kept();
    assert_eq!(scene.restored().json()["outcome"], "nothing_to_do");
    assert_eq!(scene.ran(), ["1", "2"]);
}

/// Starts a command as the first process of a new session on a new terminal; the other end of that is the file.
fn on_a_terminal(mut command: Command) -> (Child, File) {
    let (mut ours, mut theirs) = (-1, -1);
    // SAFETY: two live integers are filled; what is null is left as it is by default.
    let made = unsafe {
        libc::openpty(&raw mut ours, &raw mut theirs, std::ptr::null_mut(), std::ptr::null(), std::ptr::null())
    };
    assert_eq!(made, 0, "no pseudo-terminal");
    // SAFETY: both were opened just now, and belong to nobody else.
    let (ours, theirs) = unsafe { (File::from_raw_fd(ours), File::from_raw_fd(theirs)) };
    let stream = || Stdio::from(theirs.try_clone().unwrap());
    command.stdin(stream()).stdout(stream()).stderr(stream());
    // Nothing of ours may keep the terminal open.
    close_on_exec(&ours);
    close_on_exec(&theirs);
    // SAFETY: setsid and ioctl are async-signal-safe.
    unsafe {
        command.pre_exec(|| {
            let failed = libc::setsid() == -1 || libc::ioctl(0, libc::TIOCSCTTY, 0) == -1;
            if failed { Err(std::io::Error::last_os_error()) } else { Ok(()) }
        });
    }
    (command.spawn().unwrap(), ours)
}

fn close_on_exec(file: &File) {
    use std::os::fd::AsRawFd as _;
    // SAFETY: a descriptor that is open, and an integer.
    assert_eq!(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETFD, libc::FD_CLOEXEC) }, 0);
}

/// What a terminal shows until its last user is gone, which it reports as an error.
fn read_all(terminal: &mut File) -> String {
    let mut said = Vec::new();
    let _ = terminal.read_to_end(&mut said);
    String::from_utf8(said).unwrap()
}

fn stopped_and_continued() {
    let mut scene = pending(&format!("{ORPHAN_MIGRATES}; {TWO}; touch ended"));
    let run = scene.start(&["migrate"]);
    scene.wait_for_file("booted");
    run.signal(libc::SIGSTOP);
    busy(&mut scene);
    fs::write(scene.path("go"), "").unwrap();
    scene.wait_for_file("ended");
    busy(&mut scene);
    run.signal(libc::SIGCONT);
    run.end().code(0);
    scene.kept();
    assert_eq!(scene.restored().json()["outcome"], "nothing_to_do");
}

fn out_of_descriptors() {
    let codes = limited(libc::RLIMIT_NOFILE, (5..=32).step_by(3).collect());
    assert!(codes.contains(&Some(0)) && codes.iter().any(|code| *code != Some(0)), "{codes:?}: the right limits?");
}

fn out_of_memory() {
    let codes = limited(libc::RLIMIT_AS, (1..40).map(|step| step * (12 << 20)).collect());
    assert!(codes.contains(&Some(0)) && codes.iter().any(|code| *code != Some(0)), "{codes:?}: the right limits?");
}

/// One run under each of these limits, until one succeeds. Answers their exit codes, `None` where a signal ended it.
fn limited(resource: libc::__rlimit_resource_t, limits: Vec<u64>) -> Vec<Option<i32>> {
    let scene = Scene::new();
    scene.settled();
    let mut codes = Vec::new();
    for (limit, version) in limits.into_iter().zip(2..) {
        let limit = libc::rlimit { rlim_cur: limit, rlim_max: limit };
        let mut command = scene.command(&["migrate"]);
        // SAFETY: setrlimit is async-signal-safe, and reads a live value.
        unsafe {
            command.pre_exec(move || match libc::setrlimit(resource, &raw const limit) {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            });
        }
        codes.push(lacking(&scene, version, &mut command, &[0, 1, 3, 4, 5]));
        if codes.last() == Some(&Some(0)) {
            break;
        }
    }
    codes
}

/// One run that lacks something, with a pending migration of this version: one of these codes comes of it, or a signal, and
/// a record that fits. Then the next run restores everything.
fn lacking(scene: &Scene, version: u64, command: &mut Command, codes: &[i32]) -> Option<i32> {
    let file = next(scene, version);
    let (before, output) = (scene.ran().len(), command.output().unwrap());
    secrets::keep(&output);
    let said = format!("{:?}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    let code = output.status.code();
    assert!(code.is_none_or(|code| codes.contains(&code)), "{said}");
    match code {
        Some(0) => scene.kept(),
        Some(1 | 5) => assert_eq!((scene.ran().len(), scene.debts()), (before, vec![]), "{said}"),
        Some(3) => assert_eq!(scene.debts(), [""; 0], "{said}"),
        _ => {}
    }
    scene.restored();
    assert_eq!(scene.ran().len(), before + 1, "{said}");
    fs::remove_file(file).unwrap();
    code
}

fn out_of_threads() {
    let mut scene = Scene::new();
    scene.settled();
    scene.set("UNSTUCK_API_TIMEOUT", "200ms").set("UNSTUCK_PROVE_TIMEOUT", "200ms");
    for nth in (1..100).step_by(3) {
        let mut command = Command::new("strace");
        command
            .args([
                "-f",
                "-qq",
                "-o",
                "trace",
                "-e",
                "trace=clone3",
                "-e",
                &format!("inject=clone3:error=EAGAIN:when={nth}+"),
            ])
            .arg(env!("CARGO_BIN_EXE_unstuck"))
            .arg("migrate")
            .current_dir(scene.root.path())
            .env_clear()
            .envs(&scene.env)
            .stdin(Stdio::null());
        assert!(lacking(&scene, nth + 1, &mut command, &[0, 1, 4, 5]).is_some());
        if !fs::read_to_string(scene.path("trace")).unwrap().contains("INJECTED") {
            assert!(nth > 3, "only {nth} threads: is this the right call?");
            return;
        }
    }
    panic!("a run starts a hundred threads");
}

fn asks(entry: &Entry, wanted: &str, end: &str) -> bool {
    matches!(&entry.fact, Fact::Request { method, path, .. } if method == wanted && path.ends_with(end))
}
