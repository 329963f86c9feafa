//! The trouble that this tool is for, shown by a real application: what a process that began before a migration does after
//! it, and that a process which began after it does not.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what went wrong by failing there")]

#[allow(dead_code, reason = "each test uses its own part of it")]
#[path = "support/mariadb.rs"]
mod mariadb;
#[path = "support/postgres.rs"]
mod postgres;
#[path = "support/rails_app.rs"]
mod rails_app;

use mariadb::{Mariadb, MariadbOptions};
use postgres::{Postgres, PostgresOptions};
use rails_app::{Database, RailsApp};
use serde_json::json;

#[test]
fn sqlite_forgets_a_value_and_shows_it_in_another_column() {
    let dir = tempfile::tempdir().unwrap();
    let app = RailsApp::create(&dir.path().join("app"), &[Database::sqlite3("primary")]);
    let create = "def change = create_table(:posts) { |t| t.string :title; t.string :legacy }";
    app.add_migration("20130101000000", "create_posts", create);
    app.migrate();

    let old = app.boot_web("web.1");
    let old_worker = app.boot_worker("worker.1");
    assert_eq!(old.columns(), ["id", "title", "legacy"]);
    assert_eq!(old.post("/posts", &json!({"title": "T", "legacy": "L"})).0, 201);
    assert_eq!(old.get("/posts/1").1, json!({"id": 1, "title": "T", "legacy": "L"}));

    app.add_migration("20130125163307", "add_subtitle", "def change = add_column(:posts, :subtitle, :string)");
    app.migrate();

    assert_eq!(old.columns(), ["id", "title", "legacy"]);
    assert_eq!(old_worker.columns(), ["id", "title", "legacy"]);
    assert_eq!(old.get("/posts/new").1, json!({"id": null, "title": null, "legacy": null}));
    let (status, answer) = old.get("/posts/1/subtitle");
    assert_eq!((status, &answer["error"]), (500, &json!("NoMethodError")));
    for (status, answer) in
        [old.post("/posts", &json!({"subtitle": "S"})), old.put("/posts/1", &json!({"subtitle": "S"}))]
    {
        assert_eq!((status, &answer["error"]), (500, &json!("ActiveModel::UnknownAttributeError")));
    }

    let new = app.boot_web("web.2");
    let new_worker = app.boot_worker("worker.2");
    assert_eq!(new.columns(), ["id", "title", "legacy", "subtitle"]);
    assert_eq!(new_worker.columns(), ["id", "title", "legacy", "subtitle"]);
    assert_eq!(new.put("/posts/1", &json!({"subtitle": "S"})).0, 200);

    app.add_migration("20130125163308", "remove_legacy", "def change = remove_column(:posts, :legacy, :string)");
    app.migrate();
    assert_eq!(new.get("/posts/1").1, json!({"id": 1, "title": "T", "legacy": "S", "subtitle": null}));
}

#[test]
fn several_databases_migrate_from_their_own_folders() {
    let dir = tempfile::tempdir().unwrap();
    let app = RailsApp::create(&dir.path().join("app"), &[Database::sqlite3("primary"), Database::sqlite3("animals")]);
    app.add_migration("20130101000000", "create_posts", "def change = create_table(:posts) { |t| t.string :title }");
    app.add_migration_to("animals", "20130101000001", "create_dogs", "def change = create_table(:dogs)");
    app.migrate();

    let status = String::from_utf8(app.rails(&["db:migrate:status"]).stdout).unwrap();
    let lines: Vec<_> = status.lines().map(str::trim).filter(|line| line.starts_with("up")).collect();
    assert_eq!(lines, ["up     20130101000000  Create posts", "up     20130101000001  Create dogs"]);
}

#[test]
fn postgresql_answers_with_a_value_that_it_does_not_store() {
    let postgres = Postgres::start(&PostgresOptions::default());
    let database = Database::new("primary", "postgresql")
        .set("host", "127.0.0.1")
        .set("port", &postgres.port.to_string())
        .set("username", "postgres")
        .set("database", "postgres");
    an_update_is_lost_in_silence(database, || postgres.sql("select coalesce(subtitle, 'nothing') from posts"));
}

#[test]
fn mariadb_answers_with_a_value_that_it_does_not_store() {
    let mariadb = Mariadb::start(MariadbOptions::default());
    let database = Database::new("primary", "mysql2")
        .set("socket", mariadb.socket.to_str().unwrap())
        .set("username", "ann")
        .set("password", Mariadb::PASSWORD)
        .set("database", "app");
    an_update_is_lost_in_silence(database, || {
        mariadb.sql("select coalesce(subtitle, 'nothing') from app.posts").trim_end().to_owned()
    });
}

/// A row read by an old process has the new column, since the server sends it; but only known columns are written.
fn an_update_is_lost_in_silence(database: Database, stored: impl Fn() -> String) {
    let dir = tempfile::tempdir().unwrap();
    let app = RailsApp::create(&dir.path().join("app"), &[database]);
    app.add_migration("20130101000000", "create_posts", "def change = create_table(:posts) { |t| t.string :title }");
    app.migrate();
    let old = app.boot_web("web.1");
    assert_eq!(old.post("/posts", &json!({"title": "T"})), (201, json!({"id": 1, "title": "T"})));

    app.add_migration("20130125163307", "add_subtitle", "def change = add_column(:posts, :subtitle, :string)");
    app.migrate();

    let updated = (200, json!({"id": 1, "title": "T", "subtitle": "S"}));
    assert_eq!(old.put("/posts/1", &json!({"subtitle": "S"})), updated);
    assert_eq!(stored(), "nothing");

    assert_eq!(app.boot_web("web.1").put("/posts/1", &json!({"subtitle": "S"})), updated);
    assert_eq!(stored(), "S");
}
