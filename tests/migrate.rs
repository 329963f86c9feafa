//! `unstuck migrate`, `restart` and `status` from the outside: what is recorded, run, restarted, proved and said.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what went wrong by failing there")]

#[path = "support/scene.rs"]
mod scene;

use std::fs;

use scene::Scene;
use serde_json::{Value, json};
use unstuck_standin::Options;

#[test]
fn pending_migrations_are_run_and_every_old_web_process_is_replaced() {
    let scene = Scene::new();
    scene.migration(20_130_125_163_307, "add_title_to_posts", "sql 'create table posts (title)'");
    let before = scene.ids("web");
    let worker = scene.ids("worker");
    let ran = scene.unstuck(&["migrate", "--json"]).code(0);
    let report = ran.json();
    assert_eq!(report["outcome"], "migrated");
    assert_eq!(report["databases"], json!([{"name": "primary", "applied": ["20130125163307"], "pending": []}]));
    assert_eq!(report["restart"]["state"], "proved");
    assert_eq!(report["restart"]["healthy"], true);
    assert_eq!(report["restart"]["types"], json!(["web"]));
    assert_eq!(report["restart"]["requests"], 1);
    assert_eq!(report["restart"]["dynos"][0], json!({"name": "web.1", "type": "web", "replaced": true, "state": "up"}));
    assert_eq!(report["release_phase"], false);
    assert!(ran.err.contains("== 20130125163307 migrating"), "the child's output goes to standard error: {ran:?}");
    assert!(scene.ids("web").iter().all(|id| !before.contains(id)), "every web process is new");
    assert_eq!(scene.ids("worker"), worker, "workers are none of the configured types");
    assert_eq!(scene.debts(), [""; 0]);
}

#[test]
fn nothing_pending_costs_no_call_no_child_and_no_write() {
    let scene = Scene::new();
    scene.settled();
    let (seq, file) = (scene.now(), fs::read(scene.path("db.sqlite3")).unwrap());
    let ran = scene.unstuck(&["migrate", "--json"]).code(0);
    assert_eq!(ran.json()["outcome"], "nothing_to_do");
    assert_eq!(ran.json()["restart"]["state"], "not_needed");
    assert_eq!(scene.requests(seq), [""; 0]);
    assert_eq!(fs::read(scene.path("db.sqlite3")).unwrap(), file);
    assert_eq!(scene.ran(), ["1"]);
    let said = scene.unstuck(&["migrate"]).code(0);
    assert_eq!(said.out.lines().count(), 1, "{said:?}");
}

#[test]
fn the_first_proof_is_made_by_hand() {
    let scene = Scene::new();
    scene.migration(1, "one", "true");
    scene.sql(
        "create table schema_migrations (version varchar primary key); insert into schema_migrations values ('1')",
    );
    let before = scene.ids("web");
    let status = scene.unstuck(&["status", "--json", "--exit-code"]).code(0).json();
    assert_eq!((&status["verdict"], &status["owed"]), (&json!("unproved"), &json!(false)));
    assert_eq!(scene.unstuck(&["migrate", "--json"]).code(0).json()["outcome"], "nothing_to_do");
    assert_eq!(scene.ids("web"), before);
    assert_eq!(scene.unstuck(&["restart", "--json"]).code(0).json()["outcome"], "nothing_to_do");
    let report = scene.unstuck(&["restart", "--all", "--json"]).code(0).json();
    assert_eq!((&report["outcome"], &report["restart"]["state"]), (&json!("settled"), &json!("proved")));
    assert_eq!(scene.unstuck(&["status", "--json"]).code(0).json()["verdict"], "clean");
}

fn plant(scene: &Scene, value: &str) {
    let key = format!("unstuck:debt:{}:0123456789abcdef", scene.standin.app_id());
    scene.sql(&format!("insert into ar_internal_metadata values ('{key}', '{value}', datetime(), datetime())"));
}

#[test]
fn a_run_of_another_life_of_the_server_may_be_alive_and_is_restarted_for_once() {
    let scene = Scene::new();
    scene.settled();
    plant(&scene, r#"{"v":1,"ph":"M","ep":"other","from":"00000000","n":1,"tag":"01234567","by":"web.9"}"#);
    let seq = scene.now();
    let ran = scene.unstuck(&["migrate", "--json"]).code(4);
    assert!(ran.err.contains("may still be alive"), "{ran:?}");
    scene.unstuck(&["migrate"]).code(4);
    assert_eq!(scene.writes(seq).len(), 1, "restarted once");
    scene.sql("create table half (id integer)");
    scene.unstuck(&["migrate"]).code(4);
    assert_eq!(scene.writes(seq).len(), 2, "it may have changed the schema without a version row");
    scene.unstuck(&["restart", "--assume-dead", "0123456789abcdef"]).code(0);
    assert_eq!(scene.debts(), [""; 0]);
}

#[test]
fn a_process_type_that_joins_later_is_owed_the_restart_that_it_missed() {
    let mut scene = Scene::new();
    scene.settled();
    let (web, worker) = (scene.ids("web"), scene.ids("worker"));
    let status = scene.unstuck(&["status", "--json", "--exit-code"]).code(0).json();
    assert_eq!((&status["verdict"], &status["dynos"][2]["stuck"]), (&json!("clean"), &json!(true)));
    scene.set("UNSTUCK_RESTART_TYPES", "web,worker");
    assert_eq!(scene.unstuck(&["status", "--json", "--exit-code"]).code(7).json()["verdict"], "owed");
    assert_eq!(scene.unstuck(&["migrate", "--json"]).code(0).json()["outcome"], "settled");
    assert_eq!(scene.ids("web"), web, "what was proved new is left alone");
    assert_ne!(scene.ids("worker"), worker);
    assert_eq!(scene.unstuck(&["status", "--json", "--exit-code"]).code(0).json()["verdict"], "clean");
}

#[test]
fn what_began_before_a_half_applied_change_is_not_taken_for_new_by_an_older_proof() {
    let scene = Scene::new();
    scene.settled();
    let worker_is_stuck = || {
        let status = scene.unstuck(&["status", "--json"]).code(0).json();
        status["dynos"].as_array().unwrap().iter().find(|dyno| dyno["type"] == "worker").unwrap()["stuck"] == true
    };
    // Stamps have whole seconds: until one has passed, it may have begun before.
    while worker_is_stuck() {
        assert!(scene.standin.cycle("worker.1"));
    }
    scene.migration(2, "two", "sql 'create table half (a)'; false");
    assert_eq!(scene.unstuck(&["migrate", "--json"]).code(3).json()["restart"]["state"], "proved");
    assert!(worker_is_stuck(), "the versions are the same, the schema is not");
}

#[test]
fn a_restart_of_all_is_never_handed_off() {
    let mut scene = Scene::new();
    scene.settled();
    scene.in_release(Some(9)).set("UNSTUCK_RESTART_POLICY", "handoff");
    let before = scene.ids("web");
    assert_eq!(scene.unstuck(&["restart", "--all", "--json"]).code(0).json()["restart"]["state"], "proved");
    assert!(scene.ids("web").iter().all(|id| !before.contains(id)));
}

#[test]
fn preboot_makes_auto_hand_the_restart_to_the_release() {
    let mut scene = Scene::with(Options { preboot: true, ..Options::default() });
    scene.settled();
    scene.in_release(Some(9));
    scene.migration(2, "two", "sql 'create table two (a)'");
    let seq = scene.now();
    let report = scene.unstuck(&["migrate", "--json"]).code(0).json();
    assert_eq!(report["restart"]["state"], "handed_off");
    assert_eq!(scene.writes(seq), [""; 0]);
}

#[test]
fn rolling_restarts_dyno_by_dyno() {
    let mut scene = Scene::with(Options { formation: [("web".to_owned(), 3)].into(), ..Options::default() });
    scene.settled();
    scene.set("UNSTUCK_RESTART_STRATEGY", "rolling");
    scene.migration(2, "two", "sql 'create table two (a)'");
    let seq = scene.now();
    scene.unstuck(&["migrate"]).code(0);
    let names: Vec<_> = scene.writes(seq).iter().map(|write| write.rsplit('/').next().unwrap().to_owned()).collect();
    assert_eq!(names, ["web.1", "web.2", "web.3"]);
}

#[test]
fn looking_needs_no_credentials() {
    let mut scene = Scene::new();
    scene.settled();
    scene.migration(2, "two", "true");
    scene.unset("HEROKU_API_KEY");
    let ran = scene.unstuck(&["status", "--json", "--exit-code"]).code(6);
    assert_eq!(ran.json()["dynos"], Value::Null);
    assert_eq!(
        ran.json()["databases"][0],
        json!({"name": "primary", "adapter": "sqlite3", "applied_count": 1, "without_file": [], "owed": false,
               "pending": [{"version": "2", "name": "Two", "path": "db/migrate/2_two.rb"}]})
    );
    assert!(ran.err.contains("the dynos are not shown"), "{ran:?}");
}

#[test]
fn a_dry_run_changes_nothing() {
    let scene = Scene::new();
    scene.settled();
    scene.migration(2, "two", "sql 'create table two (a)'");
    let (seq, file) = (scene.now(), fs::read(scene.path("db.sqlite3")).unwrap());
    let ran = scene.unstuck(&["migrate", "--dry-run", "--exit-code", "--json"]).code(6);
    assert_eq!((&ran.json()["outcome"], &ran.json()["databases"][0]["pending"]), (&json!("dry_run"), &json!(["2"])));
    assert_eq!(scene.requests(seq), [""; 0]);
    assert_eq!(fs::read(scene.path("db.sqlite3")).unwrap(), file);
    scene.unstuck(&["migrate", "--dry-run"]).code(0);
}

#[test]
fn wrong_usage_is_one_clear_error() {
    let scene = Scene::new();
    scene.settled();
    let expect = |args: &[&str], code: i32, words: &str| {
        let ran = scene.unstuck(args);
        assert_eq!(ran.code, Some(code), "{args:?}: {ran:?}");
        assert!(ran.err.contains(words), "{args:?}: {ran:?}");
    };
    expect(&["frobnicate"], 2, "unrecognized subcommand");
    expect(&["status", "-C", "no/such/place"], 1, "no such directory: no/such/place");
}

#[test]
fn the_output_of_a_child_comes_in_order_whatever_its_stream() {
    let scene = Scene::new();
    scene.settled();
    scene.migration(2, "two", "for i in 1 2 3; do echo out $i; echo err $i >&2; done");
    let both = fs::File::create(scene.path("both")).unwrap();
    let status = scene.command(&["migrate"]).stdout(both.try_clone().unwrap()).stderr(both).status().unwrap();
    assert!(status.success());
    let text = fs::read_to_string(scene.path("both")).unwrap();
    let lines: Vec<&str> = text.lines().filter(|line| line.starts_with("out") || line.starts_with("err")).collect();
    assert_eq!(lines, ["out 1", "err 1", "out 2", "err 2", "out 3", "err 3"]);
}

#[test]
fn the_child_gets_the_callers_environment_less_what_would_revert_migrations() {
    let mut scene = Scene::new();
    scene.settled();
    scene.set("VERSION", "0").set("SCOPE", "blog").set("MY_OWN", "kept");
    scene.migration(2, "two", "env > child_env; pwd > child_pwd");
    scene.unstuck(&["migrate"]).code(0);
    let env = fs::read_to_string(scene.path("child_env")).unwrap();
    let has = |name: &str| env.lines().any(|line| line.starts_with(&format!("{name}=")));
    assert!(!has("VERSION") && !has("SCOPE") && has("MY_OWN") && has("PGAPPNAME"), "{env}");
    let pwd = fs::read_to_string(scene.path("child_pwd")).unwrap();
    assert_eq!(pwd.trim(), fs::canonicalize(scene.root.path()).unwrap().to_str().unwrap());
}

#[test]
fn a_record_that_the_migration_itself_wipes_out_is_written_again_and_paid() {
    for wipe in ["delete from ar_internal_metadata", "drop table ar_internal_metadata"] {
        let scene = Scene::new();
        scene.settled();
        scene.migration(2, "two", &format!("sql 'create table two (a); {wipe}'"));
        let before = scene.ids("web");
        let report = scene.unstuck(&["migrate", "--json"]).code(0).json();
        assert_eq!(report["restart"]["state"], "proved", "{wipe}: {report}");
        assert!(scene.ids("web").iter().all(|id| !before.contains(id)), "{wipe}");
    }
}

#[test]
fn the_class_of_each_migration_is_said_and_recorded() {
    let scene = Scene::new();
    // Rails' own table is there then, and the record in it.
    scene.settled();
    // Each is a script and Ruby at once, the first without anything that could be a word of a migration.
    scene.migration(2, "nothing", "true");
    let row = "sql \"select value from ar_internal_metadata where key like 'unstuck:debt:%'\" > row";
    scene.migration(3, "strange", row);
    let ran = scene.unstuck(&["migrate"]).code(0);
    assert!(ran.out.contains("  2 Nothing: no process can notice\n"), "{ran:?}");
    assert!(ran.out.contains("  3 Strange: breaks running code until the restart\n"), "{ran:?}");
    let note: Value = serde_json::from_str(fs::read_to_string(scene.path("row")).unwrap().trim()).unwrap();
    assert_eq!(note["cl"], "b");
}
