//! `unstuck restart` as a whole: only what is stuck, and the rolling restart with what can go wrong on the way.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what went wrong by failing there")]

#[path = "support/scene.rs"]
mod scene;
#[path = "support/traffic.rs"]
mod traffic;

use std::collections::BTreeMap;
use std::time::Duration;

use scene::Scene;
use serde_json::{Value, json};
use traffic::Traffic;
use unstuck_standin::{Act, Ailment, AilmentRule, Fact, Generation, Mode, Options, Pool, Reply, Rule};

/// Longer than anything takes that goes well.
const LONG: Duration = Duration::from_secs(30);

const ROLL: [&str; 3] = ["restart", "--rolling", "--json"];

/// An application whose schema was changed by hand: every dyno is stuck.
fn stuck(web: u64, options: Options) -> Scene {
    let formation = [("web".to_owned(), web), ("worker".to_owned(), 1)].into();
    let mut scene = Scene::with(Options { formation, ..options });
    scene.settled();
    scene.set("UNSTUCK_PROVE_TIMEOUT", "10s").set("UNSTUCK_HEALTH_TIMEOUT", "10s");
    change_by_hand(&scene, 2);
    scene
}

fn change_by_hand(scene: &Scene, version: u64) {
    scene.migration(version, &format!("by_hand_{version}"), "true");
    scene.sql(&format!("insert into schema_migrations values ('{version}')"));
}

/// What a restart was asked for since `seq`: the last part of each path.
fn asked(scene: &Scene, seq: u64) -> Vec<String> {
    scene.writes(seq).iter().map(|write| write.rsplit('/').next().unwrap().to_owned()).collect()
}

fn ailment(dyno: &str, ailment: Ailment) -> AilmentRule {
    AilmentRule { dyno: dyno.to_owned(), ailment, count: None }
}

fn stuck_names(scene: &Scene) -> Vec<String> {
    let status = scene.unstuck(&["status", "--json"]).code(0).json();
    let dynos = status["dynos"].as_array().unwrap().iter();
    let stuck = dynos.filter(|dyno| dyno["stuck"] == true && dyno["type"] == "web");
    stuck.map(|dyno| dyno["name"].as_str().unwrap().to_owned()).collect()
}

/// One run that nothing disturbs restarts exactly `names`, and then nothing is owed.
#[track_caller]
fn goes_on_with(scene: &Scene, names: &[&str]) {
    assert_eq!(stuck_names(scene), names);
    let seq = scene.now();
    let report = scene.unstuck(&ROLL).code(0).json();
    assert_eq!(report["restart"]["state"], "proved");
    assert_eq!(asked(scene, seq), names);
    assert_eq!((scene.debts(), stuck_names(scene)), (vec![], vec![]));
}

#[test]
fn each_dyno_is_up_before_the_next_is_restarted() {
    let scene =
        stuck(4, Options { mode: Mode::Simulated { boot_delay: Duration::from_millis(150) }, ..Options::default() });
    let (seq, logged) = (scene.now(), scene.standin.log().len());
    let ran = scene.unstuck(&["restart", "--rolling", "--max-unavailable", "2"]).code(0);
    assert_eq!(asked(&scene, seq), ["web.1", "web.2", "web.3", "web.4"]);
    for line in ["  web.1  restarting", "  web.2  starting", "  web.4  up after 0s"] {
        assert_eq!(ran.out.lines().filter(|said| *said == line).count(), 1, "{line} in {ran:?}");
    }
    // A dyno is away from its restart until it is up: how many are at a time, by the order of the platform's log.
    let (mut away, mut most) = (0, 0);
    for line in scene.standin.log().iter().skip(logged).filter(|line| line.contains("heroku[web.")) {
        away += i32::from(line.ends_with("Restarting")) - i32::from(line.ends_with("from starting to up"));
        most = most.max(away);
    }
    assert_eq!((away, most), (0, 2));
    assert_eq!(scene.debts(), [""; 0]);
}

#[test]
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

#[test]
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

#[test]
fn a_crash_of_the_last_one_leaves_nothing_owed() {
    let scene = stuck(2, Options::default());
    scene.standin.set_ailments(vec![ailment("web.2", Ailment::CrashesOnBoot)]);
    let restart = scene.unstuck(&ROLL).code(0).json()["restart"].clone();
    assert_eq!((&restart["state"], &restart["healthy"]), (&json!("proved"), &json!(false)));
    assert_eq!(scene.debts(), [""; 0]);
}

#[test]
fn a_roll_that_was_killed_goes_on_with_what_is_left() {
    for signal in [libc::SIGKILL, libc::SIGTERM] {
        let scene = stuck(
            3,
            Options { mode: Mode::Simulated { boot_delay: Duration::from_millis(400) }, ..Options::default() },
        );
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

#[test]
fn two_runs_at_once_restart_each_dyno_once() {
    let scene =
        stuck(3, Options { mode: Mode::Simulated { boot_delay: Duration::from_millis(100) }, ..Options::default() });
    let seq = scene.now();
    let (one, other) = (scene.start(&ROLL), scene.start(&ROLL));
    let mut outcomes = [one, other].map(|run| run.end().code(0).json()["outcome"].as_str().unwrap().to_owned());
    outcomes.sort_unstable();
    assert_eq!(asked(&scene, seq), ["web.1", "web.2", "web.3"]);
    assert!(outcomes.contains(&"settled".to_owned()), "{outcomes:?}");
    assert_eq!(scene.debts(), [""; 0]);
}

#[test]
fn what_the_platform_replaces_meanwhile_is_left_alone() {
    let scene =
        stuck(3, Options { mode: Mode::Simulated { boot_delay: Duration::from_millis(400) }, ..Options::default() });
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

#[test]
fn an_app_that_is_scaled_down_meanwhile_is_not_waited_for() {
    let scene =
        stuck(3, Options { mode: Mode::Simulated { boot_delay: Duration::from_millis(400) }, ..Options::default() });
    let seq = scene.now();
    let run = scene.start(&ROLL);
    let began = |entry: &unstuck_standin::Entry| matches!(&entry.fact, Fact::Began { name, .. } if name == "web.1");
    scene.standin.wait_for(seq, LONG, began).expect("it comes to web.1");
    assert!(scene.standin.scale("web", 2));
    run.end().code(0);
    assert_eq!(asked(&scene, seq), ["web.1", "web.2"]);
}

#[test]
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

#[test]
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

#[test]
fn workers_preboot_and_fir_are_told_apart() {
    let mut scene = stuck(3, Options::default());
    scene.set("UNSTUCK_RESTART_TYPES", "web,worker");
    let seq = scene.now();
    let ran = scene.unstuck(&["restart", "--rolling"]).code(0);
    assert_eq!(asked(&scene, seq), ["web.1", "web.2", "web.3", "worker"]);
    assert!(ran.out.contains("only web dynos roll"), "{ran:?}");

    let scene = stuck(3, Options { preboot: true, ..Options::default() });
    let seq = scene.now();
    let ran = scene.unstuck(&["restart", "--rolling"]).code(0);
    assert_eq!(asked(&scene, seq), ["web"], "one request: the platform rolls");
    assert!(ran.out.contains("not rolling: preboot is on"), "{ran:?}");

    let scene = stuck(3, Options { generation: Generation::Fir, ..Options::default() });
    let (seq, before) = (scene.now(), scene.ids("web"));
    let ran = scene.unstuck(&["restart", "--rolling"]).code(0);
    assert_eq!(asked(&scene, seq).len(), 3);
    assert!(scene.ids("web").iter().all(|id| !before.contains(id)));
    assert!(ran.out.contains("on Fir each dyno is restarted by its name"), "{ran:?}");
}

#[test]
fn one_request_does_it_where_one_can() {
    let scene = stuck(3, Options::default());
    let seq = scene.now();
    scene.unstuck(&["restart", "--rolling", "--max-unavailable", "3"]).code(0);
    assert_eq!(asked(&scene, seq), ["web"]);
}

#[test]
fn of_the_named_types_only_what_is_stuck() {
    let scene = stuck(2, Options::default());
    let (seq, worker) = (scene.now(), scene.ids("worker"));
    scene.unstuck(&["restart", "web", "worker"]).code(0);
    assert_eq!(asked(&scene, seq), ["web", "worker"]);
    assert_ne!(scene.ids("worker"), worker);
    let seq = scene.now();
    assert_eq!(scene.unstuck(&["restart", "web", "worker", "--json"]).code(0).json()["outcome"], "nothing_to_do");
    assert_eq!(scene.writes(seq), [""; 0]);

    // The proof of a run for web alone says nothing of the worker.
    change_by_hand(&scene, 3);
    let web = scene.unstuck(&["restart", "--json"]).code(0).json();
    assert_eq!(web["restart"]["types"], json!(["web"]));
    let (seq, web) = (scene.now(), scene.ids("web"));
    let report = scene.unstuck(&["restart", "worker", "--json"]).code(0).json();
    assert_eq!((&report["outcome"], &report["restart"]["state"]), (&json!("settled"), &json!("proved")));
    assert_eq!((asked(&scene, seq), scene.ids("web")), (vec!["worker".to_owned()], web));
}

#[test]
fn looks_become_rare_while_the_rate_limit_leaves_little() {
    let scene =
        stuck(2, Options { mode: Mode::Simulated { boot_delay: Duration::from_millis(300) }, ..Options::default() });
    scene.standin.set_pool(Pool { remaining: 100, refill_ms: 3_600_000 });
    let seq = scene.now();
    let ran = scene.unstuck(&["restart", "--rolling"]).code(0);
    assert!(ran.out.contains("the API's rate limit leaves"), "{ran:?}");
    assert!(scene.requests(seq).len() < 30, "{:?}", scene.requests(seq));
}

/// The same with real pumas, at the smallest size: the benchmark `rolling` has ten of Rails.
#[test]
fn no_request_is_lost_while_three_pumas_are_rolled() {
    let code = tempfile::tempdir().unwrap();
    std::fs::write(code.path().join("Procfile"), "web: puma --bind tcp://127.0.0.1:$PORT --threads 1:5 config.ru\n")
        .unwrap();
    let rack = "run ->(_) { sleep 0.005; [200, { 'content-type' => 'text/plain' }, [ENV['DYNO']]] }\n";
    std::fs::write(code.path().join("config.ru"), rack).unwrap();
    let mode = Mode::Procfile {
        root: code.path().to_owned(),
        procfile: None,
        env: BTreeMap::from([("LANG".to_owned(), "C.UTF-8".to_owned())]),
        grace: Duration::from_secs(30),
    };
    let mut scene = Scene::with(Options { mode, formation: [("web".to_owned(), 3)].into(), ..Options::default() });
    scene.set("UNSTUCK_PROVE_TIMEOUT", "1m").set("UNSTUCK_HEALTH_TIMEOUT", "1m");
    scene.settled();
    change_by_hand(&scene, 2);
    let seq = scene.now();
    let traffic = Traffic::start(scene.standin.router_url(), 3);
    scene.unstuck(&ROLL).code(0);
    let served = traffic.end();
    assert_eq!(asked(&scene, seq), ["web.1", "web.2", "web.3"]);
    assert!(served.failed.is_empty() && served.requests > 0, "{served:?}");
}
