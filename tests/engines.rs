//! The same stories on PostgreSQL and MariaDB servers, and those that only a server can tell: locks, sessions that outlive
//! their client, connections that are cut.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what went wrong by failing there")]

#[allow(dead_code, reason = "each test uses its own part of it")]
#[path = "support/mariadb.rs"]
mod mariadb;
#[path = "support/postgres.rs"]
mod postgres;
#[path = "support/scene.rs"]
mod scene;
#[path = "support/servers.rs"]
mod servers;

use std::fs;

use mariadb::{Mariadb, MariadbOptions};
use postgres::{Postgres, PostgresOptions};
use scene::Scene;
use serde_json::json;
use servers::{Server, crc32};
use unstuck_standin::Options;

/// Every story that needs no more than SQL.
fn tell_all<S: Server>(server: &S) {
    second_of_three_fails(&scene(server, "fails"));
    half_applied(&scene(server, "half"));
    killed_in_between(&scene(server, "killed"));
    child_outlives_its_parent(&mut scene(server, "orphan"));
    migrated_by_hand(&scene(server, "byhand"));
    connection_is_cut::<S>(&scene(server, "cut"));
    statement_outlives_its_client::<S>(&scene(server, "late"));
    somebody_else_migrates::<S>(&mut scene(server, "other"));
}

#[test]
fn stories_on_postgresql() {
    tell_all(&Postgres::start(&PostgresOptions::default()));
}

#[test]
fn stories_on_mariadb() {
    tell_all(&Mariadb::start(MariadbOptions::default()));
}

fn scene(server: &impl Server, database: &str) -> Scene {
    Scene::on(&server.store(database), Options::default())
}

fn second_of_three_fails(scene: &Scene) {
    scene.settled();
    scene.migration(2, "two", "sql 'create table two (a int)'");
    scene.migration(3, "three", "false");
    scene.migration(4, "four", "true");
    let report = scene.unstuck(&["migrate", "--json"]).code(3).json();
    assert_eq!(report["databases"], json!([{"name": "primary", "applied": ["2"], "pending": ["3", "4"]}]));
    assert_eq!(report["restart"]["state"], "proved");
    let report = scene.unstuck(&["migrate", "--json"]).code(3).json();
    assert_eq!(report["restart"]["state"], "not_needed", "nothing changed the second time");
}

fn half_applied(scene: &Scene) {
    scene.settled();
    scene.migration(2, "two", "sql 'alter table first add column b int'; false");
    let report = scene.unstuck(&["migrate", "--json"]).code(3).json();
    assert_eq!((&report["databases"][0]["applied"], &report["restart"]["state"]), (&json!([]), &json!("proved")));
}

fn killed_in_between(scene: &Scene) {
    scene.settled();
    scene.migration(2, "two", "sql 'create table two (a int)'");
    let before = scene.ids("web");
    scene.start(&["migrate", "--", "sh", "-c", "bin/rails db:migrate; kill -9 $PPID"]).wait();
    assert_eq!(scene.unstuck(&["status", "--json", "--exit-code"]).code(7).json()["verdict"], "owed");
    let report = scene.unstuck(&["migrate", "--json"]).code(0).json();
    assert_eq!(report["outcome"], "settled");
    assert!(scene.ids("web").iter().all(|id| !before.contains(id)));
    assert_eq!((scene.ran(), scene.debts()), (vec!["1".to_owned(), "2".to_owned()], vec![]));
}

fn child_outlives_its_parent(scene: &mut Scene) {
    scene.settled();
    scene.migration(2, "two", "touch booted; while [ ! -e go ]; do sleep 0.05; done; sql 'create table two (a int)'");
    let run = scene.start(&["migrate"]);
    scene.wait_for_file("booted");
    run.signal(libc::SIGKILL);
    run.wait();
    scene.set("UNSTUCK_LOCK_TIMEOUT", "300ms");
    let busy = scene.unstuck(&["migrate", "--json"]).code(9).json();
    assert!(busy["error"]["message"].as_str().unwrap().contains("session "), "the holder is named: {busy}");
    fs::write(scene.path("go"), "").unwrap();
    scene.set("UNSTUCK_LOCK_TIMEOUT", "20s");
    assert_eq!(scene.unstuck(&["migrate", "--json"]).code(0).json()["outcome"], "settled");
    assert_eq!(scene.ran(), ["1", "2"]);
}

fn migrated_by_hand(scene: &Scene) {
    scene.settled();
    scene.sql("insert into schema_migrations values ('0007')");
    let status = scene.unstuck(&["status", "--json", "--exit-code"]).code(7).json();
    assert_eq!(status["databases"][0]["without_file"], json!(["7"]));
    assert_eq!(scene.unstuck(&["restart", "--json"]).code(0).json()["outcome"], "settled");
}

fn connection_is_cut<S: Server>(scene: &Scene) {
    scene.settled();
    scene.migration(2, "two", &format!("sql 'create table two (a int)'; {}", S::CUT));
    let report = scene.unstuck(&["migrate", "--json"]).code(0).json();
    assert_eq!((&report["outcome"], &report["restart"]["state"]), (&json!("migrated"), &json!("proved")));
    assert_eq!(scene.debts(), [""; 0]);
}

/// The client of a statement is killed; the server finishes and commits it two seconds later. No process may be restarted
/// before that.
fn statement_outlives_its_client<S: Server>(scene: &Scene) {
    scene.settled();
    let slow = S::SLEEP;
    scene.migration(
        2,
        "two",
        &format!("bin/sql 'create table late as select 1 as a, {slow} as b' & sleep 0.7; kill -9 $!; wait; false"),
    );
    let ran = scene.unstuck(&["migrate", "--json"]).code(3);
    assert_eq!(ran.json()["restart"]["state"], "proved", "{ran:?}");
    assert!(ran.err.contains("waiting for a migration to end in the database"), "{ran:?}");
    assert_eq!(scene.sql("select count(*) from late"), "1");
}

fn somebody_else_migrates<S: Server>(scene: &mut Scene) {
    scene.settled();
    scene.migration(2, "two", "sql 'create table two (a int)'");
    let database = scene.env["DATABASE_URL"].rsplit('/').next().unwrap().to_owned();
    let key = crc32(database.as_bytes()).to_string();
    let hold = S::HOLD_RAILS_LOCK.replace("KEY", &key);
    let mut holder = std::process::Command::new(scene.path("bin/sql"))
        .arg(hold)
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    std::thread::sleep(std::time::Duration::from_millis(500));
    scene.set("UNSTUCK_LOCK_TIMEOUT", "300ms");
    let busy = scene.unstuck(&["migrate", "--json"]).code(9).json();
    assert!(busy["error"]["message"].as_str().unwrap().contains("a migration is running: session "), "{busy}");
    scene.set("UNSTUCK_LOCK_TIMEOUT", "20s");
    assert_eq!(scene.unstuck(&["migrate", "--json"]).code(0).json()["outcome"], "migrated");
    holder.wait().unwrap();
}
