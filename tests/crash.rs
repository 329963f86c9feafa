//! SIGKILL at each of the steps of the real binary: at every system call by which it can change anything, one after the
//! other. Afterwards one undisturbed run has to bring the app where the promise says.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what went wrong by failing there")]

#[path = "support/scene.rs"]
mod scene;

use std::process::{Command, Stdio};

use scene::Scene;
use unstuck_standin::{Entry, Fact};

/// Everything by which a process changes files, talks to others or starts them.
const CALLS: &str =
    "write,pwrite64,fsync,fdatasync,ftruncate,unlink,unlinkat,openat,flock,connect,sendto,clone,clone3,vfork,kill";

/// A run that makes more of these calls than this is not ended by a kill any more, and the test ends.
const BOUND: usize = 2_000;

#[test]
fn killed_at_any_step_the_next_run_restores_the_promise() {
    let mut scene = Scene::new();
    scene.settled();
    let url = format!("{}/_standin/notes", scene.standin.url());
    scene.set("NOTES", &url);
    for step in 1..BOUND {
        let version = u64::try_from(step).unwrap() + 1;
        let script = format!(
            "sql 'create table t{version} (a)'; curl -sf -d '{{\"text\": \"changed\"}}' -H 'content-type: application/json' $NOTES > note"
        );
        scene.migration(version, &format!("m{version}"), &script);
        let killed = run_killed_at(&scene, step);

        let ran = scene.unstuck(&["migrate", "--json"]);
        assert_eq!(ran.code, Some(0), "after a kill at call {step}: {ran:?}");
        assert_eq!(scene.debts(), [""; 0], "after a kill at call {step}");
        let journal = scene.standin.journal(0);
        let changed = journal.iter().rev().find(|entry| is_note(entry)).map(|entry| entry.seq).unwrap();
        for id in scene.ids("web") {
            let began = journal.iter().find(|entry| began(entry, &id)).map(|entry| entry.seq).unwrap();
            assert!(began > changed, "after a kill at call {step} an old process is left");
        }
        let seq = scene.now();
        scene.unstuck(&["migrate"]).code(0);
        assert_eq!(scene.requests(seq), [""; 0], "after a kill at call {step} a third run has nothing to do");
        if !killed {
            let expected: Vec<String> = (1..=version).map(|version| version.to_string()).collect();
            let mut ran = scene.ran();
            ran.sort_by_key(|version| version.parse::<u64>().unwrap());
            assert_eq!(ran, expected, "each migration ran once");
            assert!(step > 30, "only {step} calls were met: is the list of calls right?");
            eprintln!("killed at each of {} calls", step - 1);
            return;
        }
    }
    panic!("a run makes more than {BOUND} calls");
}

/// Only the record can tell of such a change: no version came with it, and its file is gone before the next run.
#[test]
fn killed_at_any_step_of_a_change_without_a_version_the_record_tells() {
    let mut scene = Scene::new();
    scene.settled();
    let url = format!("{}/_standin/notes", scene.standin.url());
    scene.set("NOTES", &url);
    for step in 1..BOUND {
        let script = format!(
            "sql 'create table half{step} (a)'; curl -sf -d '{{\"text\": \"changed\"}}' -H 'content-type: application/json' $NOTES > note; false"
        );
        scene.migration(2, "half", &script);
        let killed = run_killed_at(&scene, step);
        std::fs::remove_file(scene.path("db/migrate/2_half.rb")).unwrap();

        let ran = scene.unstuck(&["migrate", "--json"]);
        assert_eq!(ran.code, Some(0), "after a kill at call {step}: {ran:?}");
        assert_eq!(scene.debts(), [""; 0], "after a kill at call {step}");
        let journal = scene.standin.journal(0);
        let changed = journal.iter().rev().find(|entry| is_note(entry)).map_or(0, |entry| entry.seq);
        for id in scene.ids("web") {
            let began = journal.iter().find(|entry| began(entry, &id)).map(|entry| entry.seq).unwrap();
            assert!(began > changed, "after a kill at call {step} an old process is left");
        }
        if !killed {
            assert!(changed > 0 && step > 30, "{changed} {step}");
            return;
        }
    }
    panic!("a run makes more than {BOUND} calls");
}

/// Runs `unstuck migrate` and kills it as it enters its `step`-th call. `false`: it ended before.
fn run_killed_at(scene: &Scene, step: usize) -> bool {
    let output = Command::new("strace")
        .args(["-qq", "-o", "/dev/null", "-e", &format!("trace={CALLS}"), "-e"])
        .arg(format!("inject={CALLS}:signal=SIGKILL:when={step}"))
        .arg(env!("CARGO_BIN_EXE_unstuck"))
        .arg("migrate")
        .current_dir(scene.root.path())
        .env_clear()
        .envs(&scene.env)
        .stdin(Stdio::null())
        .output()
        .expect("strace starts");
    scene::secrets::keep(&output);
    assert!(matches!(output.status.code(), None | Some(0 | 3)), "{output:?}");
    output.status.code().is_none()
}

fn is_note(entry: &Entry) -> bool {
    matches!(&entry.fact, Fact::Note { text } if text == "changed")
}

fn began(entry: &Entry, id: &str) -> bool {
    matches!(&entry.fact, Fact::Began { dyno, .. } if *dyno == id)
}
