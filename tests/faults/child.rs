//! Faults of the migration command.

use crate::Fault;
use crate::scene::Scene;

pub const FAULTS: &[Fault] = &[Fault {
    what: "the first migration fails and nothing changed",
    injected: "a migration that ends with an error",
    exit: "3; no restart",
    record: "–",
    next_run: "tries again",
    check: nothing_changed,
}];

fn nothing_changed() {
    let scene = Scene::new();
    scene.settled().migration(2, "broken", "echo broken; return 1");
    let seq = scene.now();
    scene.unstuck(&["migrate"]).code(3);
    assert_eq!(scene.writes(seq), [""; 0]);
    assert_eq!(scene.debts(), [""; 0]);
    scene.migration(2, "broken", "sql 'create table mended (a int)'");
    scene.unstuck(&["migrate"]).code(0);
    assert_eq!(scene.ran(), ["1", "2"]);
}
