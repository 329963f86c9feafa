//! `unstuck restart` as a whole: only what is stuck, and the rolling restart. What can go wrong on its way is in the fault table.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what went wrong by failing there")]

#[path = "support/rolling.rs"]
mod rolling_scene;
#[path = "support/scene.rs"]
mod scene;
#[path = "support/traffic.rs"]
mod traffic;

use std::collections::BTreeMap;
use std::time::Duration;

use rolling_scene::{LONG, ROLL, ailment, asked, booting_for, change_by_hand, stuck};
use scene::Scene;
use serde_json::json;
use traffic::Traffic;
use unstuck_standin::{Ailment, Generation, Mode, Options, Pool};

#[test]
fn each_dyno_is_up_before_the_next_is_restarted() {
    let scene = stuck(4, booting_for(150));
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
fn a_crash_of_the_last_one_leaves_nothing_owed() {
    let scene = stuck(2, Options::default());
    scene.standin.set_ailments(vec![ailment("web.2", Ailment::CrashesOnBoot)]);
    let restart = scene.unstuck(&ROLL).code(0).json()["restart"].clone();
    assert_eq!((&restart["state"], &restart["healthy"]), (&json!("proved"), &json!(false)));
    assert_eq!(scene.debts(), [""; 0]);
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

/// Though web is still owed, the new worker is waited for until it is up.
#[test]
fn a_named_type_is_up_at_the_end_whatever_else_is_owed() {
    let scene = stuck(2, booting_for(150));
    let report = scene.unstuck(&["restart", "worker", "--json"]).code(4).json();
    assert_eq!((&report["outcome"], &report["restart"]["healthy"]), (&json!("owed"), &json!(true)), "{report}");
}

#[test]
fn looks_become_rare_while_the_rate_limit_leaves_little() {
    let scene = stuck(2, booting_for(300));
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
    let mut scene = Scene::with(Options { mode, formation: [("web".to_owned(), 0)].into(), ..Options::default() });
    scene.set("UNSTUCK_PROVE_TIMEOUT", "1m").set("UNSTUCK_HEALTH_TIMEOUT", "1m");
    scene.settled();
    assert!(scene.standin.scale("web", 3) && scene.standin.wait_until_up(LONG), "{:#?}", scene.standin.log());
    change_by_hand(&scene, 2);
    let seq = scene.now();
    let traffic = Traffic::start(scene.standin.router_url(), 3);
    scene.unstuck(&ROLL).code(0);
    let served = traffic.end();
    assert_eq!(asked(&scene, seq), ["web.1", "web.2", "web.3"]);
    assert!(served.failed.is_empty() && served.requests > 0, "{served:?}");
}
