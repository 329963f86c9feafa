//! Applications with stuck dynos, for the tests of rolling restarts.

#![allow(dead_code, reason = "each test file uses its own part of it")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what went wrong by failing there")]

use std::time::Duration;

use unstuck_standin::{Ailment, AilmentRule, Mode, Options};

use crate::scene::Scene;

/// Longer than anything takes that goes well.
pub const LONG: Duration = Duration::from_mins(2);

pub const ROLL: [&str; 3] = ["restart", "--rolling", "--json"];

/// Dynos that are up a while after their start.
pub fn booting_for(ms: u64) -> Options {
    Options { mode: Mode::Simulated { boot_delay: Duration::from_millis(ms) }, ..Options::default() }
}

/// An application whose schema was changed by hand: every dyno is stuck.
pub fn stuck(web: u64, options: Options) -> Scene {
    let formation = [("web".to_owned(), web), ("worker".to_owned(), 1)].into();
    let mut scene = Scene::with(Options { formation, ..options });
    scene.settled();
    scene.set("UNSTUCK_PROVE_TIMEOUT", "10s").set("UNSTUCK_HEALTH_TIMEOUT", "10s");
    change_by_hand(&scene, 2);
    scene
}

pub fn change_by_hand(scene: &Scene, version: u64) {
    scene.migration(version, &format!("by_hand_{version}"), "true");
    scene.sql(&format!("insert into schema_migrations values ('{version}')"));
}

/// What a restart was asked for since `seq`: the last part of each path.
pub fn asked(scene: &Scene, seq: u64) -> Vec<String> {
    scene.writes(seq).iter().map(|write| write.rsplit('/').next().unwrap().to_owned()).collect()
}

pub fn ailment(dyno: &str, ailment: Ailment) -> AilmentRule {
    AilmentRule { dyno: dyno.to_owned(), ailment, count: None }
}

pub fn stuck_names(scene: &Scene) -> Vec<String> {
    let status = scene.unstuck(&["status", "--json"]).code(0).json();
    let dynos = status["dynos"].as_array().unwrap().iter();
    let stuck = dynos.filter(|dyno| dyno["stuck"] == true && dyno["type"] == "web");
    stuck.map(|dyno| dyno["name"].as_str().unwrap().to_owned()).collect()
}

/// One run that nothing disturbs restarts exactly `names`, and then nothing is owed.
#[track_caller]
pub fn goes_on_with(scene: &Scene, names: &[&str]) {
    assert_eq!(stuck_names(scene), names);
    let seq = scene.now();
    let report = scene.unstuck(&ROLL).code(0).json();
    assert_eq!(report["restart"]["state"], "proved");
    assert_eq!(asked(scene, seq), names);
    assert_eq!((scene.debts(), stuck_names(scene)), (vec![], vec![]));
}
