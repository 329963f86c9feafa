//! The same cases to Active Record itself and to us. A seed makes them, and a failure names it.

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use support::{Oracle, Random};
use unstuck::adapters::files;
use unstuck::error::{Error, Kind};
use unstuck::migrations::{Migrations, applied};
use unstuck::rails::{Database, Overrides, RailsVersion, Resolved, Sources, resolve};

/// The version that Debian carries and the oracle loads.
const RAILS: RailsVersion = RailsVersion(6, 1);

#[test]
fn migrations_are_those_of_active_record() {
    let mut oracle = Oracle::start();
    let mut refusals = BTreeMap::<String, usize>::new();
    for seed in 0..3000 {
        let root = tempfile::tempdir().unwrap();
        let rows = support::migrations(&mut Random(seed), root.path());
        let theirs = oracle.ask(&json!({"ask": "migrations", "root": root.path(), "rows": rows}));
        let ours = our_migrations(root.path(), &rows);
        assert_eq!(ours, without_message(&theirs), "seed {seed}: {theirs}");
        *refusals.entry(theirs["error"].to_string()).or_default() += 1;
    }
    // Cases that never reach a rule would prove nothing about it.
    for class in ["IllegalMigrationNameError", "DuplicateMigrationNameError", "DuplicateMigrationVersionError"] {
        let seen = refusals.get(&format!("\"ActiveRecord::{class}\"")).copied().unwrap_or_default();
        assert!(seen >= 20, "{class}: {seen} of {refusals:?}");
    }
    assert!(refusals["null"] >= 1000, "{refusals:?}");
}

fn our_migrations(root: &Path, rows: &[String]) -> Value {
    let migrations = match files::list(root, &["db/migrate".to_owned()]).and_then(Migrations::of) {
        Ok(migrations) => migrations,
        Err(error) => {
            let class = error.message.rsplit_once("(Rails: ").map(|(_, class)| class.trim_end_matches(')'));
            return json!({"error": format!("ActiveRecord::{}", class.unwrap_or(&error.message))});
        }
    };
    let applied = applied(rows.iter().map(String::as_str));
    let all: Vec<_> =
        migrations.pending(&[]).iter().map(|m| json!([m.version.to_string(), m.name, m.path, m.scope])).collect();
    let pending: Vec<_> = migrations.pending(&applied).iter().map(|m| m.version.to_string()).collect();
    let without_file: Vec<_> = migrations.without_file(&applied).iter().map(ToString::to_string).collect();
    json!({"ok": {"all": all, "pending": pending, "without_file": without_file}})
}

fn without_message(answer: &Value) -> Value {
    match answer.get("error") {
        Some(class) => json!({"error": class}),
        None => answer.clone(),
    }
}

#[test]
fn databases_are_those_of_active_record() {
    let mut oracle = Oracle::start();
    let root = tempfile::tempdir().unwrap();
    let root = fs::canonicalize(root.path()).unwrap();
    fs::create_dir_all(root.join("config")).unwrap();
    let (mut resolved, mut refused) = (0, 0);
    for seed in 0..2000 {
        let (yaml, environment, env) = support::configuration(&mut Random(seed));
        let mut env: BTreeMap<_, _> = env.into_iter().collect();
        env.insert("RAILS_ENV".to_owned(), environment.to_owned());
        fs::write(root.join("config/database.yml"), &yaml).unwrap();
        let theirs = oracle.ask(&json!({"ask": "databases", "root": root, "env": env, "environment": environment}));
        let overrides = Overrides::default();
        let sources =
            Sources { root: &root, file: Some(yaml.as_bytes()), rails: RAILS, env: &env, overrides: &overrides };
        let ours = resolve(&sources, || Err(Error::new(Kind::Input, "no case of these needs Ruby")));
        let case = format!("seed {seed}, {environment}, {env:?}\n{yaml}\nActive Record: {theirs}\nours: {ours:?}");
        match (ours, theirs.get("ok")) {
            (Ok(Resolved::Databases(databases)), Some(expected)) => {
                let ours: Vec<_> = databases.iter().map(describe).collect();
                assert_eq!(&json!(ours), expected, "{case}");
                resolved += 1;
            }
            (Ok(Resolved::Empty { .. }), None) => {
                assert!(theirs["message"].as_str().unwrap().contains("Database URL cannot be empty"), "{case}");
            }
            (Err(error), None) => {
                assert!(!error.message.contains("needs Ruby"), "{case}");
                refused += 1;
            }
            _ => panic!("one of the two refuses\n{case}"),
        }
    }
    assert!(resolved > 500 && refused > 200, "{resolved} resolved, {refused} refused");
}

fn describe(database: &Database) -> Value {
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    json!({
        "name": database.name,
        "adapter": database.adapter,
        "host": text(&database.host),
        "port": database.port.map(|port| port.to_string()).unwrap_or_default(),
        "socket": text(&database.socket),
        "database": text(&database.database),
        "username": text(&database.username),
        "password": database.password.as_ref().map(|password| password.expose().to_owned()).unwrap_or_default(),
        "sslmode": database.options.get("sslmode").cloned().unwrap_or_default(),
        "migrations_paths": database.migrations_paths,
    })
}
