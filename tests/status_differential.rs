//! `unstuck status --json` and Active Record itself, on real databases of all three engines: for generated folders and rows
//! both name the same pending migrations, the same versions without a file, or refuse the folder for the same reason. And
//! looking leaves no trace.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what went wrong by failing there")]

#[allow(dead_code, reason = "each test uses its own part of it")]
#[path = "support/mariadb.rs"]
mod mariadb;
#[path = "support/postgres.rs"]
mod postgres;
#[allow(dead_code, reason = "each test uses its own part of it")]
mod support;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use mariadb::{Mariadb, MariadbOptions};
use postgres::{Postgres, PostgresOptions};
use serde_json::{Value, json};
use support::{Oracle, Random, migrations};

/// How many generated cases each engine sees.
const CASES: u64 = 500;

/// One database of a case: how it is reached, what its tables are called, where its migrations are and which rows it has.
struct Database {
    name: &'static str,
    config: Value,
    prefix: &'static str,
    suffix: &'static str,
    path: String,
    rows: Option<Vec<String>>,
}

#[test]
fn on_sqlite() {
    let dir = tempfile::tempdir().unwrap();
    let config = |name: &str| json!({"adapter": "sqlite3", "database": dir.path().join(name)});
    compare_all(&[config("primary.sqlite3"), config("animals.sqlite3")]);
}

#[test]
fn on_postgresql() {
    let server = Postgres::start(&PostgresOptions::default());
    let config = |name: &str| {
        server.sql(&format!("create database {name}"));
        json!({"adapter": "postgresql", "host": "127.0.0.1", "port": server.port, "username": "postgres", "database": name,
               "advisory_locks": false, "min_messages": "error"})
    };
    compare_all(&[config("one"), config("two")]);
}

#[test]
fn on_mariadb() {
    let server = Mariadb::start(MariadbOptions::default());
    let config = |name: &str| {
        server.sql(&format!("create database {name} character set utf8mb4; grant all on {name}.* to ann@'%'"));
        json!({"adapter": "mysql2", "host": "127.0.0.1", "port": server.port, "username": "ann",
               "password": Mariadb::PASSWORD, "database": name, "advisory_locks": false, "encoding": "utf8mb4"})
    };
    compare_all(&[config("one"), config("two")]);
}

fn compare_all(configs: &[Value; 2]) {
    let mut oracle = Oracle::start();
    let (mut several, mut refused, mut pending) = (0, 0, 0);
    for seed in 0..CASES {
        let root = tempfile::tempdir().unwrap();
        let mut random = Random(seed);
        let databases = case(&mut random, root.path(), configs);
        let ours = compare(&mut oracle, root.path(), &databases, &format!("seed {seed}"));
        several += u64::from(databases.len() > 1);
        refused += u64::from(ours.get("error").is_some());
        pending += u64::from(ours["verdict"] == "pending");
    }
    // The generator must reach what is to be compared.
    assert!(several > CASES / 10 && refused > CASES / 50 && pending > CASES / 4, "{several} {refused} {pending}");

    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("db/migrate");
    fs::create_dir_all(&folder).unwrap();
    for number in 1..=50_000 {
        fs::write(folder.join(format!("{}_number_{number}.rb", 20_130_000_000_000_u64 + number)), "").unwrap();
    }
    let rows = (0..50_000).map(|number| (20_130_000_000_000_u64 + number).to_string()).collect();
    let path = "db/migrate".to_owned();
    let config = configs[0].clone();
    let many = [Database { name: "primary", config, prefix: "", suffix: "", path, rows: Some(rows) }];
    compare(&mut oracle, root.path(), &many, "50,000 files");
}

/// One or two databases, with or without their table, under Rails' name for it or another.
fn case(random: &mut Random, root: &Path, configs: &[Value; 2]) -> Vec<Database> {
    let count = if random.once_in(4) { 2 } else { 1 };
    // In the order in which JSON is written: by name.
    let names: &[(&str, &str)] =
        if count == 1 { &[("primary", "")] } else { &[("animals", "engines/animals"), ("primary", "")] };
    let (prefix, suffix) = if random.once_in(5) { ("app_", "_v2") } else { ("", "") };
    names
        .iter()
        .zip(configs)
        .map(|((name, folder), config)| {
            let base = root.join(folder);
            let rows = migrations(random, &base);
            let path = base.join("db/migrate").strip_prefix(root).unwrap().to_str().unwrap().to_owned();
            let rows = (!random.once_in(8)).then_some(rows);
            Database { name, config: config.clone(), prefix, suffix, path, rows }
        })
        .collect()
}

fn compare(oracle: &mut Oracle, root: &Path, databases: &[Database], what: &str) -> Value {
    configure(root, databases);
    for Database { config, prefix, suffix, rows, .. } in databases {
        let done =
            oracle.ask(&json!({"ask": "prepare", "config": config, "prefix": prefix, "suffix": suffix, "rows": rows}));
        assert_eq!(done, json!({"ok": null}), "{what}");
    }
    let ours = status(root);
    for (index, database) in databases.iter().enumerate() {
        let Database { config, prefix, suffix, path, rows, .. } = database;
        let question =
            json!({"ask": "status", "config": config, "prefix": prefix, "suffix": suffix, "root": root, "path": path});
        let theirs = oracle.ask(&question);
        let about = || {
            format!("{what}, {}: {question} with {:?} rows; ours {ours}", database.name, rows.as_ref().map(Vec::len))
        };
        if let Some(class) = theirs.get("error") {
            let class = class.as_str().unwrap().trim_start_matches("ActiveRecord::");
            let message = ours["error"]["message"].as_str().unwrap_or_else(|| panic!("{class} in {}", about()));
            assert!(message.contains(class), "{class} in {}", about());
            // The first that refuses speaks for all.
            return ours;
        }
        let Some(found) = ours["databases"].get(index) else {
            assert!(index + 1 < databases.len(), "an error where Active Record has none: {}", about());
            continue;
        };
        let theirs = &theirs["ok"];
        let pending: Vec<Value> =
            found["pending"].as_array().unwrap().iter().map(|m| json!([m["version"], m["name"], m["path"]])).collect();
        assert_eq!(json!(pending), theirs["pending"], "{}", about());
        // A further database without any file is not asked: there is nothing to run in it.
        let asked = database.name == "primary" || has_files(root, path);
        if asked {
            assert_eq!(found["without_file"], theirs["without_file"], "{}", about());
            assert_eq!(found["applied_count"], theirs["applied"], "{}", about());
        }
        let tables = if rows.is_some() { vec![format!("{prefix}schema_migrations{suffix}")] } else { vec![] };
        assert_eq!(theirs["tables"], json!(tables), "looking made a table: {}", about());
    }
    ours
}

fn has_files(root: &Path, path: &str) -> bool {
    !unstuck::adapters::files::list(root, &[path.to_owned()]).unwrap().is_empty()
}

/// Writes `config/database.yml` (JSON is YAML), and for other tables' names what only Ruby would know.
fn configure(root: &Path, databases: &[Database]) {
    fs::create_dir_all(root.join("config")).unwrap();
    let mut production = serde_json::Map::new();
    let mut tables = serde_json::Map::new();
    for Database { name, config, prefix, suffix, path, .. } in databases {
        let mut config = config.clone();
        config["migrations_paths"] = json!(path);
        production.insert((*name).to_owned(), config);
        if !prefix.is_empty() {
            let table = |table: &str| format!("{prefix}{table}{suffix}");
            let names = json!({"schema_migrations_table": table("schema_migrations"), "metadata_table": table("ar_internal_metadata")});
            tables.insert((*name).to_owned(), names);
        }
    }
    // With one database, the file is as most applications have it.
    let production = if databases.len() == 1 { production["primary"].clone() } else { Value::Object(production) };
    fs::write(root.join("config/database.yml"), json!({"production": production}).to_string()).unwrap();
    fs::write(root.join(".unstuck.yml"), json!({"databases": tables}).to_string()).unwrap();
    fs::write(root.join("Gemfile.lock"), "    rails (6.1.7)\n").unwrap();
}

fn status(root: &Path) -> Value {
    let output = Command::new(env!("CARGO_BIN_EXE_unstuck"))
        .args(["status", "--json"])
        .current_dir(root)
        .env_clear()
        .env("RAILS_ENV", "production")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    mariadb::secrets::keep(&output);
    let answer = serde_json::from_slice(&output.stdout);
    let answer: Value = answer.unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
    assert_eq!(output.status.code(), Some(i32::from(answer.get("error").is_some())), "{answer}");
    answer
}
