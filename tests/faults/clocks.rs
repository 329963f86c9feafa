//! Faults of clocks.

use std::process::Command;
use std::time::Duration;

use unstuck_standin::{Act, Fact, Rule, Skew};

use crate::Fault;
use crate::scene::Scene;

pub const FAULTS: &[Fault] = &[
    Fault {
        what: "the API's clock is off",
        injected: "an hour and half a century, ahead and behind",
        exit: "0",
        record: "–",
        next_run: "has nothing to do",
        check: api_is_off,
    },
    Fault {
        what: "the API's clocks disagree: the answers' is behind that of the dynos",
        injected: "`Date` five minutes behind `created_at`",
        exit: "0; the ids prove it",
        record: "–",
        next_run: "has nothing to do",
        check: date_is_behind,
    },
    Fault {
        what: "the API's clocks disagree: the answers' is ahead of that of the dynos",
        injected: "`Date` two seconds ahead of `created_at`; five minutes",
        exit: "0, after another restart; 4, since nothing proves that the new processes are new",
        record: "–; D",
        next_run: "has nothing to do; settles when the clocks agree",
        check: date_is_ahead,
    },
    Fault {
        what: "the API's clock jumps during the proof",
        injected: "an hour ahead; an hour back",
        exit: "0; 4: the list looks like an old one",
        record: "–; D",
        next_run: "settles",
        check: api_jumps,
    },
    Fault {
        what: "this machine's clock was wrong",
        injected: "database, journals and migration files dated 1970 and 2100",
        exit: "0",
        record: "–",
        next_run: "has nothing to do",
        check: files_are_dated,
    },
    Fault {
        what: "the record was written by a clock that was wrong",
        injected: "rows of a killed run and of an unproved restart, dated 1970 and 2100",
        exit: "0",
        record: "–",
        next_run: "has nothing to do",
        check: record_is_dated,
    },
    Fault {
        what: "the database's clock goes back in a fail-over",
        injected: "a run of the server's life before, whose last sign comes from the future: an hour, 27 hours, 29 hours, years",
        exit: "4 up to 28 hours, since it may be alive; then 0",
        record: "M; –",
        next_run: "restarts nothing again, and settles when the row is too old",
        check: heartbeat_in_the_future,
    },
];

const HOUR_S: i64 = 3600;
const HALF_A_CENTURY_S: i64 = 50 * 365 * 24 * HOUR_S;

/// A settled app with a migration that waits.
fn scene() -> Scene {
    let scene = Scene::new();
    scene.settled().migration(2, "two", "sql 'create table two (a int)'");
    scene
}

fn skew(date_s: i64, stamps_s: i64) -> Skew {
    Skew { date_s, stamps_s }
}

fn api_is_off() {
    for off_s in [HOUR_S, -HOUR_S, HALF_A_CENTURY_S, -HALF_A_CENTURY_S] {
        let scene = Scene::new();
        scene.standin.set_skew(skew(off_s, off_s));
        scene.settled().migration(2, "two", "sql 'create table two (a int)'");
        let seq = scene.now();
        scene.unstuck(&["migrate"]).code(0);
        assert_eq!(scene.writes(seq).len(), 1, "{off_s}");
        scene.kept();
        scene.restored();
    }
}

fn date_is_behind() {
    let scene = scene();
    scene.standin.set_skew(skew(-300, 0));
    scene.unstuck(&["migrate"]).code(0);
    scene.kept();
    scene.restored();
}

fn date_is_ahead() {
    let mut scene = scene();
    scene.standin.set_skew(skew(2, 0));
    scene.set("UNSTUCK_PROVE_TIMEOUT", "10s");
    scene.unstuck(&["migrate"]).code(0);
    scene.kept();

    scene.migration(3, "three", "sql 'create table three (a int)'");
    scene.standin.set_skew(skew(300, 0));
    scene.set("UNSTUCK_PROVE_TIMEOUT", "1s");
    let ran = scene.unstuck(&["migrate"]).code(4);
    assert!(ran.err.contains("began before the list of old processes was made"), "{ran:?}");
    assert!(scene.debts()[0].contains(r#""ph":"D""#), "{:?}", scene.debts());
    scene.standin.set_skew(Skew::default());
    scene.set("UNSTUCK_PROVE_TIMEOUT", "5s");
    scene.restored();
}

fn api_jumps() {
    for (jump_s, code) in [(HOUR_S, 0), (-HOUR_S, 4)] {
        let mut scene = scene();
        scene.set("UNSTUCK_PROVE_TIMEOUT", "2s");
        scene.standin.fault(Rule { method: Some("DELETE".into()), act: Act::Late(300), ..Rule::default() });
        let seq = scene.now();
        let run = scene.start(&["migrate"]);
        let asked = |fact: &Fact| matches!(fact, Fact::Request { method, status: Some(_), .. } if method == "DELETE");
        assert!(scene.standin.wait_for(seq, Duration::from_secs(20), |entry| asked(&entry.fact)).is_some());
        scene.standin.set_skew(skew(jump_s, jump_s));
        let ran = run.end().code(code);
        assert_eq!(ran.err.contains("the platform answered with an old list"), code == 4, "{ran:?}");
        assert_eq!(scene.debts().len(), usize::from(code == 4));
        scene.standin.clear_faults();
        scene.restored();
    }
}

fn files_are_dated() {
    for date in ["1970-01-02", "2100-01-01"] {
        let scene = scene();
        let date_all = || {
            let script = "find . -type f -exec touch -d \"$0\" {} +";
            let status = Command::new("sh").args(["-ec", script, date]).current_dir(scene.root.path()).status();
            assert!(status.unwrap().success());
        };
        date_all();
        scene.unstuck(&["migrate"]).code(0);
        scene.kept();
        date_all();
        scene.restored();
        assert_eq!(scene.ran(), ["1", "2"]);
    }
}

fn record_is_dated() {
    for date in ["1970-01-02", "2100-01-01"] {
        for phase in ["M", "D"] {
            let scene = Scene::new();
            scene.settled();
            let seq = scene.now();
            plant(&scene, phase, "-", &format!("datetime('{date}')"));
            scene.unstuck(&["migrate"]).code(0);
            assert_eq!(scene.writes(seq).len(), 1, "{date} {phase}");
            scene.kept();
            scene.restored();
        }
    }
}

fn heartbeat_in_the_future() {
    let moment = |hours: i64| format!("datetime('now', '{hours} hours')");
    for hours in [1, 27] {
        let scene = Scene::new();
        scene.settled();
        let seq = scene.now();
        plant(&scene, "M", "another-life", &moment(hours));
        let ran = scene.unstuck(&["migrate"]).code(4);
        assert!(ran.err.contains("may still be alive"), "{ran:?}");
        scene.unstuck(&["migrate"]).code(4);
        assert_eq!(scene.writes(seq).len(), 1, "restarted once");
        assert!(scene.debts()[0].contains(r#""ph":"M""#), "{:?}", scene.debts());
        scene.sql(&format!(
            "update ar_internal_metadata set updated_at = {} where key like 'unstuck:debt:%'",
            moment(-29)
        ));
        scene.restored();
    }
    for hours in [29, 100_000] {
        let scene = Scene::new();
        scene.settled();
        plant(&scene, "M", "another-life", &moment(hours));
        scene.restored();
    }
}

/// A row that another run left behind in a life of the server, opened and last touched at this moment.
fn plant(scene: &Scene, phase: &str, life: &str, moment: &str) {
    let app = scene.standin.app_id();
    let note =
        format!(r#"{{"v":1,"ph":"{phase}","ep":"{life}","from":"00000000","n":1,"tag":"01234567","by":"web.9"}}"#);
    scene.sql(&format!(
        "insert into ar_internal_metadata values ('unstuck:debt:{app}:0123456789abcdef', '{note}', {moment}, {moment})"
    ));
}
