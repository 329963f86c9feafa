//! `unstuck doctor` from the outside: an app of which nothing is wrong, and what is found where something is.

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

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;

use mariadb::{Mariadb, MariadbOptions};
use postgres::{PgBouncer, Postgres, PostgresOptions};
use scene::{Ran, Scene, Store, TOKEN};
use serde_json::{Value, json};
use servers::Server;
use unstuck_standin::{Access, Deploy, Options, Pool, Reply, Rule, Skew, Status};

/// An app that does everything right, once it has migrated.
fn scene() -> Scene {
    prepared(Scene::with(options()))
}

fn scene_on(store: &Store) -> Scene {
    prepared(Scene::on(store, options()))
}

fn options() -> Options {
    let config = BTreeMap::from([("HEROKU_API_KEY".to_owned(), TOKEN.to_owned())]);
    Options { config, ..Options::default() }
}

fn prepared(mut scene: Scene) -> Scene {
    for name in ["PROVE", "HEALTH"] {
        scene.unset(&format!("UNSTUCK_{name}_TIMEOUT"));
    }
    fs::write(scene.path("Procfile"), "web: bundle exec puma\nworker: node worker.js\nrelease: unstuck migrate\n")
        .unwrap();
    let version =
        scene.standin.deploy(Deploy { release_command: Some("unstuck migrate".into()), ..Deploy::default() }).unwrap();
    assert!(scene.standin.finish_release(version, Status::Succeeded));
    may(&scene, &["read", "write"], None);
    scene.settled();
    scene
}

/// The token's authorization, as the account lists it.
fn may(scene: &Scene, scope: &[&str], expires_in: Option<u64>) {
    let authorization = json!([
        {"id": "1", "scope": ["identity"], "access_token": {"id": "1", "token": "another", "expires_in": null}},
        {"id": "2", "scope": scope, "access_token": {"id": "2", "token": TOKEN, "expires_in": expires_in}},
        {"id": "3", "scope": ["global"], "access_token": null},
    ]);
    scene.standin.fault(Rule {
        path: "/oauth/authorizations".into(),
        reply: Reply::Json(authorization),
        ..Rule::default()
    });
}

/// What is not well, as `check: message`.
fn found(ran: &Ran) -> Vec<String> {
    let report = ran.json();
    let findings = report["findings"].as_array().unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let bad = findings.iter().filter(|finding| finding["grade"] != "pass");
    bad.map(|finding| {
        assert!(finding["remedy"].is_string(), "{finding}");
        format!("{} {}: {}", text(&finding["grade"]), text(&finding["check"]), text(&finding["message"]))
    })
    .collect()
}

/// Fails unless exactly this is found, each by the beginning of its line.
#[track_caller]
fn finds(scene: &Scene, code: i32, expected: &[&str]) -> Ran {
    let ran = scene.unstuck(&["doctor", "--json"]).code(code);
    let found = found(&ran);
    let same = found.len() == expected.len() && found.iter().zip(expected).all(|(a, b)| a.starts_with(b));
    assert!(same, "found {found:#?}, expected {expected:#?}");
    ran
}

#[test]
fn an_app_of_which_nothing_is_wrong() {
    let scene = scene();
    let (seq, file) = (scene.now(), fs::read(scene.path("db.sqlite3")).unwrap());
    let ran = finds(&scene, 0, &[]);
    assert_eq!(ran.json()["verdict"], "pass");
    assert!(scene.requests(seq).iter().all(|request| request.starts_with("GET")), "it changes nothing");
    assert_eq!(fs::read(scene.path("db.sqlite3")).unwrap(), file);
    let told = scene.unstuck(&["doctor", "--strict"]).code(0).out;
    assert!(told.contains("pass  scope         the token's scope is read, write"), "{told}");
    assert!(told.ends_with("unstuck: all is well\n"), "{told}");
    assert_eq!(scene.unstuck(&["doctor", "--quiet"]).code(0).out, "");
}

#[test]
fn a_token_and_what_it_may_do() {
    let scene = scene();
    scene.standin.clear_faults();
    finds(&scene, 0, &["unknown scope: whether the token may restart"]);
    may(&scene, &["read"], Some(3_600));
    finds(
        &scene,
        1,
        &["fail scope: the token may not restart: its scope is read", "warn scope: the token ends in 1h 0m"],
    );
    // A narrow token may ask neither for its account nor for its scope, nor for config vars.
    scene.standin.clear_faults();
    for path in ["/account", "/oauth/authorizations", "/apps/*/config-vars"] {
        let reply = Reply::error(403, "forbidden");
        scene.standin.fault(Rule { path: path.into(), reply, ..Rule::default() });
    }
    let expected =
        ["unknown scope: whether the token may restart", "unknown release key: whether the app has HEROKU_API_KEY"];
    finds(&scene, 0, &expected);
}

#[test]
fn an_api_that_says_no() {
    let mut scene = scene();
    scene.set("UNSTUCK_API_TIMEOUT", "200ms");
    let fails = |ran: &Ran| found(ran).into_iter().filter(|line| line.starts_with("fail")).collect::<Vec<_>>();
    for (access, account) in [(Access::Revoked, "no longer, good"), (Access::TwoFactor, "two_factor")] {
        scene.standin.set_access(access);
        let fails = fails(&scene.unstuck(&["doctor", "--json"]).code(1));
        assert_eq!(fails.len(), 2, "{fails:?}");
        assert!(fails[0].contains(account) && fails[1].starts_with("fail api"), "{fails:?}");
    }
    scene.standin.set_access(Access::Full);
    scene.standin.set_pool(Pool { remaining: 0, refill_ms: 3_600_000 });
    let limited = scene.unstuck(&["doctor", "--json"]).code(1);
    assert!(fails(&limited)[0].contains("429"), "{limited:?}");
    scene.standin.set_pool(Pool { remaining: 4_500, refill_ms: 800 });
    let elsewhere = scene.unstuck(&["doctor", "--json", "--app", "another-app"]).code(1);
    assert!(fails(&elsewhere)[0].contains("404 not_found"), "{elsewhere:?}");
    scene.set("HEROKU_HOST", "http://127.0.0.1:1");
    let offline = scene.unstuck(&["doctor", "--json"]).code(1);
    assert!(fails(&offline)[0].contains("cannot reach"), "{offline:?}");
    scene.unset("HEROKU_API_KEY");
    let ran = scene.unstuck(&["doctor", "--json"]).code(1);
    assert_eq!(fails(&ran), ["fail credentials: no credentials for Heroku's API were given"]);
}

#[test]
fn a_deploy_that_would_not_keep_the_promise() {
    let mut scene = scene();
    let procfile = "web: bundle exec puma\nworker: bundle exec sidekiq\nrelease: unstuck migrate; echo done\n";
    fs::write(scene.path("Procfile"), procfile).unwrap();
    fs::set_permissions(scene.path("bin/rails"), fs::Permissions::from_mode(0o644)).unwrap();
    scene.standin.set_preboot(true);
    scene.standin.set_skew(Skew { date_s: 600, stamps_s: 600 });
    scene.set("UNSTUCK_PROVE_TIMEOUT", "10s");
    finds(
        &scene,
        1,
        &[
            "warn clock: this machine's clock is ",
            "fail procfile: `release: unstuck migrate; echo done`: what follows `;` hides",
            "warn procfile: the current release has another `release:` line",
            "warn types: worker runs the application (bundle exec sidekiq)",
            "warn preboot: preboot is on",
            "warn time-outs: one request",
            "warn time-outs: old processes may take 30 s",
            "fail command: the migration command cannot be executed: bin/rails",
        ],
    );
}

/// A process type that is not restarted: by the name of its program, by the script that it runs, or by neither.
#[test]
fn a_type_that_is_left_out() {
    let scene = scene();
    for (command, script, expected) in [
        ("node worker.js", None, &[][..]),
        ("unstuck exec -- bundle exec sidekiq", None, &[]),
        (
            "bin/worker",
            Some("#!/bin/sh\nexec bundle exec sidekiq\n"),
            &["warn types: worker runs the application (bin/worker)"],
        ),
        ("bin/worker", Some("#!/bin/sh\nexec node worker.js\n"), &[]),
        ("bin/absent", None, &["unknown types: whether worker (bin/absent) runs the application"]),
    ] {
        if let Some(text) = script {
            fs::write(scene.path("bin/worker"), text).unwrap();
        }
        let procfile = format!("web: bundle exec puma\nworker: {command}\nrelease: unstuck migrate\n");
        fs::write(scene.path("Procfile"), procfile).unwrap();
        finds(&scene, 0, expected);
    }
}

/// What an image of a container runs is not declared anywhere: the platform knows what it starts.
#[test]
fn a_type_that_only_the_platform_knows() {
    let scene = scene();
    fs::remove_file(scene.path("Procfile")).unwrap();
    let formation = json!([
        {"type": "web", "quantity": 1, "command": "bundle exec puma"},
        {"type": "worker", "quantity": 1, "command": "bundle exec sidekiq"},
        {"type": "clock", "quantity": 0, "command": "bundle exec clockwork"},
    ]);
    let slug = json!({"process_types": {"release": "unstuck migrate"}});
    for (path, answer) in [("*/formation", formation), ("*/slugs/*", slug)] {
        scene.standin.fault(Rule { path: path.into(), reply: Reply::Json(answer), ..Rule::default() });
    }
    finds(&scene, 0, &["warn types: worker runs the application (bundle exec sidekiq)"]);
}

#[test]
fn an_app_that_its_dynos_do_not_know() {
    let mut scene = Scene::with(Options { metadata: false, ..Options::default() });
    let ran = scene.unstuck(&["doctor", "--json"]).code(0);
    assert!(found(&ran).iter().any(|line| line.starts_with("warn identity: dynos are not told")), "{ran:?}");
    scene.unstuck(&["doctor", "--strict"]).code(1);
    let app = scene.standin.app().to_owned();
    scene.unset("UNSTUCK_APP");
    fs::write(scene.path(".unstuck.yml"), format!("app: {app}\n")).unwrap();
    let ran = scene.unstuck(&["doctor", "--json"]).code(0);
    assert!(!found(&ran).iter().any(|line| line.contains("identity")), "{ran:?}");
}

#[test]
fn a_database_that_owes_or_cannot_be_asked() {
    let mut scene = scene();
    scene.sql("insert into schema_migrations values ('7')");
    finds(&scene, 0, &["warn records: a restart is owed in primary"]);
    let key = format!("unstuck:debt:{}:0123456789abcdef", scene.standin.app_id());
    scene.sql(&format!("insert into ar_internal_metadata values ('{key}', '{{\"v\":2}}', datetime(), datetime())"));
    finds(&scene, 1, &["fail records: primary has records of a newer unstuck"]);
    scene.migration(7, "one", "true").migration(7, "two", "true");
    let ran = finds(&scene, 1, &["fail database.yml: "]);
    assert!(ran.out.contains("DuplicateMigrationVersionError") || ran.out.contains("7_"), "{ran:?}");
    fs::remove_file(scene.path("db/migrate/7_two.rb")).unwrap();
    scene.unset("DATABASE_URL");
    fs::create_dir(scene.path("config")).unwrap();
    fs::write(scene.path("config/database.yml"), "development:\n  adapter: sqlite3\n  database: dev.sqlite3\n")
        .unwrap();
    finds(&scene, 0, &["unknown database: primary was not asked"]);
    assert!(!scene.path("dev.sqlite3").exists());
    fs::write(scene.path("config/database.yml"), "development: [\n").unwrap();
    let ran = scene.unstuck(&["doctor", "--json"]).code(1);
    assert!(found(&ran).iter().any(|line| line.starts_with("fail database.yml: config/database.yml")), "{ran:?}");
}

/// A server is locked for a moment, and asked for its clock; a run that holds the lock is named.
fn a_server(scene: &Scene) {
    let told = scene.unstuck(&["doctor"]).code(0).out;
    assert!(told.contains("primary can be reached, and locked; its clock agrees with this machine's"), "{told}");
    finds(scene, 0, &[]);
    scene.migration(2, "two", "touch booted; while [ ! -e go ]; do sleep 0.05; done");
    let run = scene.start(&["migrate"]);
    scene.wait_for_file("booted");
    finds(scene, 0, &["warn database: another run holds the lock of primary: ", "warn records: a restart is owed"]);
    fs::write(scene.path("go"), "").unwrap();
    run.end().code(0);
    finds(scene, 0, &[]);
}

#[test]
fn a_postgresql_server_and_a_pooler_before_it() {
    let postgres = Postgres::start(&PostgresOptions::default());
    let mut scene = scene_on(&postgres.store("doctor"));
    a_server(&scene);
    let direct = scene.env["DATABASE_URL"].clone();
    let pooler = PgBouncer::in_front_of(&postgres, None);
    let address = format!("postgres://postgres:{}@127.0.0.1:{}/doctor", PgBouncer::PASSWORD, pooler.port);
    scene.set("DATABASE_URL", &address).set("HEROKU_POSTGRESQL_AMBER_URL", &direct.replace("//doctor:", "//postgres:"));
    let ran = finds(&scene, 1, &["fail pooler: primary is reached through a pooler"]);
    assert!(ran.out.contains("HEROKU_POSTGRESQL_AMBER_URL leads there"), "{ran:?}");
    drop(pooler);
    let gone = finds(&scene, 1, &["fail database: cannot look at database primary"]);
    assert!(gone.out.contains("is the server running?"), "{gone:?}");
}

#[test]
fn a_mariadb_server() {
    let mariadb = Mariadb::start(MariadbOptions::default());
    a_server(&scene_on(&mariadb.store("doctor")));
}
