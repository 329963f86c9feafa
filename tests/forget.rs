//! Leaving: what `unstuck forget` removes, and what it refuses to.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what went wrong by failing there")]

#[path = "support/scene.rs"]
mod scene;

use std::collections::BTreeMap;
use std::time::Duration;

use scene::Scene;
use serde_json::json;

const RECORDS: &str = "select count(*) from ar_internal_metadata where key like 'unstuck:%'";

/// A scene in which one migration was run and its restart proved.
fn proved() -> Scene {
    let scene = Scene::new();
    scene.migration(1, "create_posts", "sql 'create table posts (id integer primary key)'");
    scene.unstuck(&["migrate"]).code(0);
    assert_eq!(scene.sql(RECORDS), "1");
    scene
}

#[test]
fn the_records_go_and_nothing_else() {
    let scene = proved();
    scene.sql("insert into ar_internal_metadata values ('environment', 'production', '2026-01-01', '2026-01-01')");
    let before = scene.now();
    let report = scene.unstuck(&["forget", "--json"]).code(0).json();
    let proof = format!("unstuck:proved:{}", scene.standin.app_id());
    assert_eq!(report, json!({"databases": [{"name": "primary", "removed": [proof]}]}));
    assert_eq!(scene.sql(RECORDS), "0");
    assert_eq!(scene.sql("select count(*) from ar_internal_metadata"), "1");
    assert_eq!(scene.sql("select count(*) from sqlite_master where name = 'unstuck_debt'"), "0");
    assert_eq!(scene.writes(before), [""; 0], "no dyno is touched");

    assert!(scene.unstuck(&["forget"]).code(0).out.contains("primary: holds no record"));
    assert_eq!(scene.unstuck(&["status", "--json"]).code(0).json()["verdict"], "unproved");
}

#[test]
fn a_restart_that_is_owed_is_not_forgotten_unasked() {
    let scene = proved();
    scene.migration(2, "add_title", "sql 'alter table posts add title text'; kill -9 $PPID; exit 1");
    scene.unstuck(&["migrate"]).killed();
    let ran = scene.unstuck(&["forget"]).code(5);
    assert!(ran.err.contains("a restart is owed, and only the record in primary knows of it"), "{ran:?}");
    assert_eq!(scene.debts().len(), 1);
    assert_eq!(
        scene.unstuck(&["forget", "--force", "--json"]).code(0).json()["databases"][0]["removed"]
            .as_array()
            .unwrap()
            .len(),
        2
    );
    assert_eq!(scene.sql(RECORDS), "0");
}

#[test]
fn what_a_newer_version_wrote_is_left_to_it() {
    let scene = proved();
    let proof = "update ar_internal_metadata set value = replace(value, '\"v\":1', '\"v\":2') where key like 'unstuck:proved:%'";
    scene.sql(proof);
    for command in [&["forget"][..], &["forget", "--force"], &["migrate"], &["restart"]] {
        let ran = scene.unstuck(command).code(5);
        assert!(ran.err.contains("was written by a newer version of unstuck"), "{command:?}: {ran:?}");
        assert!(ran.err.contains("update unstuck"), "{command:?}: {ran:?}");
    }
    assert_eq!(scene.sql(RECORDS), "1");
}

#[test]
fn from_a_laptop_the_app_tells_its_database() {
    let mut scene = proved();
    let url = BTreeMap::from([("DATABASE_URL".to_owned(), scene.env["DATABASE_URL"].clone())]);
    scene.standin.addon_release("Attach DATABASE", url);
    scene.unset("DATABASE_URL");
    let app = scene.standin.app().to_owned();
    assert!(scene.unstuck(&["forget", "-a", &app]).code(5).err.contains("--database-from-app"));
    scene.unstuck(&["forget", "-a", &app, "--database-from-app"]).code(0);
    assert_eq!(scene.sql(RECORDS), "0");
}

#[test]
fn records_of_other_apps_stay_unless_all_are_meant() {
    let scene = proved();
    let foreign = "unstuck:debt:00000000-0000-0000-0000-000000000000:aaaaaaaaaaaaaaaa";
    scene.sql(&format!(
        "insert into ar_internal_metadata values ('{foreign}', '{{\"v\":1}}', '2026-01-01', '2026-01-01')"
    ));
    // The API tells which of the two apps is this one.
    scene.unstuck(&["forget"]).code(0);
    assert_eq!(scene.sql(RECORDS), "1");
    let ran = scene.unstuck(&["forget", "--all-apps"]).code(5);
    assert!(ran.err.contains("a restart is owed"), "{ran:?}");
    let removed = scene.unstuck(&["forget", "--all-apps", "--force", "--json"]).code(0).json();
    assert_eq!(removed["databases"][0]["removed"], json!([foreign]));
}

#[test]
fn without_credentials_the_one_app_that_has_records_is_meant_and_of_two_none() {
    let mut scene = proved();
    let foreign = "unstuck:proved:00000000-0000-0000-0000-000000000000";
    scene.unset("HEROKU_API_KEY");
    scene.sql(&format!("insert into ar_internal_metadata values ('{foreign}', '{{\"v\":1,\"ver\":\"x\",\"cnt\":0,\"run\":\"y\"}}', '2026-01-01', '2026-01-01')"));
    let ran = scene.unstuck(&["forget"]).code(5);
    assert!(ran.err.contains("there are records of 2 apps") && ran.err.contains("--all-apps"), "{ran:?}");
    scene.sql(&format!("delete from ar_internal_metadata where key = '{foreign}'"));
    scene.unstuck(&["forget"]).code(0);
    assert_eq!(scene.sql(RECORDS), "0");
}

#[test]
fn while_a_run_migrates_nothing_is_removed() {
    let scene = proved();
    scene.migration(2, "wait", "touch begun; while [ ! -e go ]; do sleep 0.05; done");
    let run = scene.start(&["migrate"]);
    scene.wait_for_file("begun");
    let ran = scene.unstuck(&["forget", "--force", "--lock-timeout", "100ms"]).code(9);
    assert!(ran.err.contains("another run holds the lock of database primary"), "{ran:?}");
    assert_eq!(scene.debts().len(), 1);
    std::fs::write(scene.path("go"), "").unwrap();
    run.end().code(0);
    assert!(scene.standin.wait_until_up(Duration::from_secs(10)));
    scene.unstuck(&["forget"]).code(0);
}
