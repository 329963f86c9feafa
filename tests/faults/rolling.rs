//! Faults on the way of a rolling restart.

use unstuck_standin::{Act, Ailment, Fact, Options, Reply, Rule};

use crate::Fault;
use crate::rolling_scene::{LONG, ROLL, ailment, asked, booting_for, goes_on_with, stuck, stuck_names};
use serde_json::{Value, json};

pub const FAULTS: &[Fault] = &[
    Fault {
        what: "a new process crashes in a rolling restart",
        injected: "the second of three dynos exits as it boots",
        exit: "4, with the dyno's last log lines; the third serves on",
        record: "D",
        next_run: "restarts the crashed one and the third",
        check: the_first_crash_stops_the_roll_and_shows_why,
    },
    Fault {
        what: "a new process does not come up in a rolling restart",
        injected: "the first of three dynos stays `starting`",
        exit: "4, when the health time-out is over",
        record: "D",
        next_run: "goes on with the two others, once it is up",
        check: a_dyno_that_never_comes_up_stops_the_roll,
    },
    Fault {
        what: "a rolling restart is killed or ended",
        injected: "SIGKILL, SIGTERM as the second of three dynos is restarted",
        exit: "killed; 143",
        record: "D",
        next_run: "restarts the third alone",
        check: a_roll_that_was_killed_goes_on_with_what_is_left,
    },
    Fault {
        what: "two rolling restarts at once",
        injected: "two runs",
        exit: "0; each dyno once",
        record: "–",
        next_run: "has nothing to do",
        check: two_runs_at_once_restart_each_dyno_once,
    },
    Fault {
        what: "the platform replaces a dyno during a rolling restart",
        injected: "the daily cycling of the third, while the first boots",
        exit: "0; it is left alone",
        record: "–",
        next_run: "has nothing to do",
        check: what_the_platform_replaces_meanwhile_is_left_alone,
    },
    Fault {
        what: "the app is scaled down during a rolling restart",
        injected: "two web dynos in place of three, while the first boots",
        exit: "0",
        record: "–",
        next_run: "has nothing to do",
        check: an_app_that_is_scaled_down_meanwhile_is_not_waited_for,
    },
    Fault {
        what: "a restart fails in a rolling restart",
        injected: "500 or a cut after the effect; 503 or 202 without one; 403, to the second of three dynos",
        exit: "0, asked again where it stays; 4 after a 403",
        record: "–; D",
        next_run: "has nothing to do; goes on with what is left",
        check: the_api_fails_in_the_middle,
    },
    Fault {
        what: "the dynos cannot be listed in a rolling restart",
        injected: "each list is cut, after the first dyno",
        exit: "4",
        record: "D",
        next_run: "goes on with the second",
        check: the_list_that_fails_for_long_stops_the_roll,
    },
];

fn the_first_crash_stops_the_roll_and_shows_why() {
    let scene = stuck(3, Options::default());
    scene.standin.set_ailments(vec![ailment("web.2", Ailment::CrashesOnBoot)]);
    let seq = scene.now();
    let ran = scene.unstuck(&ROLL).code(4);
    assert_eq!(asked(&scene, seq), ["web.1", "web.2"], "web.3 serves on");
    assert!(ran.err.contains("heroku[web.2]: Process exited with status 1"), "its last words: {ran:?}");
    assert!(ran.err.contains("web.2 crashed. 2 of 3 stuck dynos were replaced, left are: web.3"), "{ran:?}");
    let report = ran.json();
    let restart = &report["restart"];
    assert_eq!(
        (&report["outcome"], &restart["state"], &restart["healthy"]),
        (&json!("owed"), &json!("owed"), &json!(false))
    );
    let replaced: Vec<&Value> = restart["dynos"].as_array().unwrap().iter().map(|dyno| &dyno["replaced"]).collect();
    assert_eq!(replaced, [true, true, false]);
    assert_eq!(scene.phases(), ["D"]);

    scene.standin.set_ailments(Vec::new());
    assert_eq!(stuck_names(&scene), ["web.3"]);
    let seq = scene.now();
    scene.unstuck(&ROLL).code(0);
    assert_eq!(asked(&scene, seq).last().unwrap(), "web.3");
    assert!(!asked(&scene, seq).contains(&"web.1".to_owned()), "it was new already");
    assert_eq!(scene.debts(), [""; 0]);
}

fn a_dyno_that_never_comes_up_stops_the_roll() {
    let mut scene = stuck(3, Options::default());
    scene.set("UNSTUCK_HEALTH_TIMEOUT", "1s");
    scene.standin.set_ailments(vec![ailment("web.1", Ailment::StaysStarting)]);
    let seq = scene.now();
    let ran = scene.unstuck(&ROLL).code(4);
    assert_eq!(asked(&scene, seq), ["web.1"]);
    assert!(ran.err.contains("web.1 is still starting. 1 of 3"), "{ran:?}");
    assert_eq!(ran.json()["restart"]["healthy"], false);
    scene.standin.set_ailments(Vec::new());
    // It is new, and yet in the way: who mends it, by hand here, lets the roll go on.
    assert!(scene.standin.restart("web.1"));
    goes_on_with(&scene, &["web.2", "web.3"]);
}

fn a_roll_that_was_killed_goes_on_with_what_is_left() {
    for signal in [libc::SIGKILL, libc::SIGTERM] {
        let scene = stuck(3, booting_for(400));
        let seq = scene.now();
        let run = scene.start(&ROLL);
        let asks = |entry: &unstuck_standin::Entry| matches!(&entry.fact, Fact::Request { method, path, .. } if method == "DELETE" && path.ends_with("web.2"));
        scene.standin.wait_for(seq, LONG, asks).expect("it comes to web.2");
        run.signal(signal);
        let ran = run.end();
        assert_eq!(ran.code, (signal == libc::SIGTERM).then_some(143), "{ran:?}");
        assert_eq!(asked(&scene, seq), ["web.1", "web.2"]);
        goes_on_with(&scene, &["web.3"]);
    }
}

fn two_runs_at_once_restart_each_dyno_once() {
    let scene = stuck(3, booting_for(100));
    let seq = scene.now();
    let (one, other) = (scene.start(&ROLL), scene.start(&ROLL));
    let mut outcomes = [one, other].map(|run| run.end().code(0).json()["outcome"].as_str().unwrap().to_owned());
    outcomes.sort_unstable();
    assert_eq!(asked(&scene, seq), ["web.1", "web.2", "web.3"]);
    assert!(outcomes.contains(&"settled".to_owned()), "{outcomes:?}");
    assert_eq!(scene.debts(), [""; 0]);
}

fn what_the_platform_replaces_meanwhile_is_left_alone() {
    let scene = stuck(3, booting_for(400));
    let seq = scene.now();
    let run = scene.start(&ROLL);
    let began = |entry: &unstuck_standin::Entry| matches!(&entry.fact, Fact::Began { name, .. } if name == "web.1");
    scene.standin.wait_for(seq, LONG, began).expect("it comes to web.1");
    assert!(scene.standin.cycle("web.3"));
    let report = run.end().code(0).json();
    assert_eq!(asked(&scene, seq), ["web.1", "web.2"]);
    assert_eq!(report["restart"]["state"], "proved");
    assert!(report["restart"]["dynos"].as_array().unwrap().iter().all(|dyno| dyno["replaced"] == true));
}

fn an_app_that_is_scaled_down_meanwhile_is_not_waited_for() {
    let scene = stuck(3, booting_for(400));
    let seq = scene.now();
    let run = scene.start(&ROLL);
    let began = |entry: &unstuck_standin::Entry| matches!(&entry.fact, Fact::Began { name, .. } if name == "web.1");
    scene.standin.wait_for(seq, LONG, began).expect("it comes to web.1");
    assert!(scene.standin.scale("web", 2));
    run.end().code(0);
    assert_eq!(asked(&scene, seq), ["web.1", "web.2"]);
}

fn the_api_fails_in_the_middle() {
    let delete = |act: Act, reply: Reply| Rule {
        method: Some("DELETE".into()),
        path: "*/dynos/web.2".into(),
        count: Some(1),
        act,
        reply,
        ..Rule::default()
    };
    for (act, reply, times) in [
        (Act::Full, Reply::error(500, "internal"), 1),
        (Act::Full, Reply::Drop, 1),
        (Act::None, Reply::error(503, "unavailable"), 2),
        (Act::None, Reply::Normal, 2),
    ] {
        let mut scene = stuck(3, Options::default());
        scene.set("UNSTUCK_PROVE_TIMEOUT", "2s");
        scene.standin.fault(delete(act, reply.clone()));
        let seq = scene.now();
        scene.unstuck(&ROLL).code(0);
        let second = asked(&scene, seq).iter().filter(|name| *name == "web.2").count();
        assert_eq!((second, asked(&scene, seq).len()), (times, 2 + times), "{act:?} {reply:?}");
    }
    let scene = stuck(3, Options::default());
    let fault = scene.standin.fault(delete(Act::None, Reply::error(403, "forbidden")));
    let ran = scene.unstuck(&ROLL).code(4);
    assert!(ran.err.contains("the API refuses to restart. 1 of 3"), "{ran:?}");
    scene.standin.remove_fault(fault);
    goes_on_with(&scene, &["web.2", "web.3"]);
}

fn the_list_that_fails_for_long_stops_the_roll() {
    let mut scene = stuck(2, Options::default());
    scene.set("UNSTUCK_HEALTH_TIMEOUT", "500ms").set("UNSTUCK_API_TIMEOUT", "300ms");
    let lists =
        Rule { method: Some("GET".into()), path: "*/dynos".into(), skip: 4, reply: Reply::Drop, ..Rule::default() };
    let fault = scene.standin.fault(lists);
    let ran = scene.unstuck(&ROLL).code(4);
    assert!(ran.err.contains("the dynos cannot be listed"), "{ran:?}");
    scene.standin.remove_fault(fault);
    scene.set("UNSTUCK_HEALTH_TIMEOUT", "10s").set("UNSTUCK_API_TIMEOUT", "10s");
    goes_on_with(&scene, &["web.2"]);
}
