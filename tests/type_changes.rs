//! What a change of a column's type does to a table: what the reader of migrations says of it, against what the servers do.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking, in its helpers too")]

#[allow(dead_code, reason = "each test uses its own part of it")]
#[path = "support/mariadb.rs"]
mod mariadb;
#[path = "support/postgres.rs"]
mod postgres;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use mariadb::{Mariadb, MariadbOptions};
use postgres::{Postgres, PostgresOptions};
use unstuck::findings::Severity;
use unstuck::rails::Engine;
use unstuck::ruby::{Deployed, Source, read};

/// How heavy the finding is for a change of `tt.c` from one type to the other; nothing where none is found.
fn said(engine: Engine, version: &str, indexed: bool, from: &str, to: &str) -> Option<Severity> {
    let index = if indexed { "CREATE INDEX tti ON tt (c);" } else { "" };
    let alter = if engine == Engine::Mysql { "MODIFY c" } else { "ALTER COLUMN c TYPE" };
    let migration = format!(
        "class A < ActiveRecord::Migration[7.1]\n  def change\n    execute \"ALTER TABLE tt {alter} {to}\"\n  end\nend\n"
    );
    let schema = format!("CREATE TABLE tt (c {from});\n{index}\n");
    let deployed = Deployed {
        schema: Some((PathBuf::from("db/structure.sql"), schema.into_bytes())),
        engine: Some(engine),
        server_version: Some(version.to_owned()),
        ..Deployed::default()
    };
    let reading = read(&Source { path: Path::new("db/migrate/1_a.rb"), text: migration.as_bytes() }, &deployed);
    assert!(reading.findings.iter().all(|finding| finding.rule == "change-type"), "{from} -> {to}: {reading:#?}");
    reading.findings.iter().map(|finding| finding.severity).max()
}

/// Each type, changed to each other one.
fn pairs(kinds: &[&str]) -> Vec<(String, String)> {
    let pair = |from: &str, to: &str| (from.to_owned(), to.to_owned());
    kinds.iter().flat_map(|from| kinds.iter().filter(move |to| *to != from).map(move |to| pair(from, to))).collect()
}

const POSTGRESQL: [&str; 36] = [
    "varchar(10)",
    "varchar(20)",
    "varchar",
    "text",
    "citext",
    "char(10)",
    "char(20)",
    "integer",
    "bigint",
    "double precision",
    "numeric",
    "numeric(10,2)",
    "numeric(12,2)",
    "numeric(12,3)",
    "timestamp",
    "timestamp(6)",
    "timestamp(3)",
    "timestamptz",
    "timestamptz(3)",
    "date",
    "time",
    "time(3)",
    "interval",
    "interval(3)",
    "bit(3)",
    "bit varying(3)",
    "bit varying",
    "cidr",
    "inet",
    "jsonb",
    "xml",
    "text[]",
    "varchar[]",
    "varchar(10)[]",
    "varchar(20)[]",
    "integer[]",
];

/// Changes the type of an indexed column, and tells by their files what was written anew: the table, its index or nothing.
const PROBE: &str = r"
CREATE EXTENSION citext;
CREATE FUNCTION files() RETURNS oid[] LANGUAGE sql AS
  $$ SELECT array_agg(relfilenode ORDER BY relname) FROM pg_class WHERE relname IN ('tt', 'tti') $$;
CREATE FUNCTION pair(a text, b text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE before oid[]; after oid[];
BEGIN
  EXECUTE 'DROP TABLE IF EXISTS tt';
  EXECUTE format('CREATE TABLE tt (c %s)', a);
  BEGIN
    EXECUTE 'CREATE INDEX tti ON tt (c)';
  EXCEPTION WHEN undefined_object THEN NULL; -- json, which has no order
  END;
  before := files();
  BEGIN
    EXECUTE format('ALTER TABLE tt ALTER c TYPE %s', b);
  EXCEPTION WHEN OTHERS THEN
    BEGIN
      EXECUTE format('ALTER TABLE tt ALTER c TYPE %s USING c::text::%s', b, b);
    EXCEPTION WHEN OTHERS THEN RETURN 'impossible';
    END;
  END;
  after := files();
  RETURN CASE WHEN before[1] <> after[1] THEN 'table' WHEN before IS DISTINCT FROM after THEN 'index' ELSE 'nothing' END;
END $$;
CREATE TABLE pairs (a text, b text, what text);
CREATE PROCEDURE try_all() LANGUAGE plpgsql AS $$
DECLARE row record;
BEGIN
  SET client_min_messages = warning;
  SET timezone = 'UTC';
  FOR row IN SELECT a, b FROM pairs LOOP
    UPDATE pairs SET what = pair(a, b) WHERE a = row.a AND b = row.b;
    COMMIT; -- or the catalog fills with rows that this transaction still has to pass by
  END LOOP;
END $$;
";

#[test]
fn postgresql_writes_anew_what_is_said() {
    let postgres = Postgres::start(&PostgresOptions::default());
    postgres.sql(PROBE);
    let pairs = pairs(&POSTGRESQL);
    let values: Vec<String> = pairs.iter().map(|(from, to)| format!("('{from}', '{to}')")).collect();
    postgres.sql(&format!("INSERT INTO pairs (a, b) VALUES {}", values.join(", ")));
    postgres.sql("CALL try_all()");
    let answers = postgres.sql("SELECT a, b, what FROM pairs");
    assert_eq!(answers.lines().count(), pairs.len());
    let mut wrong = String::new();
    let mut count = [0; 3];
    for line in answers.lines() {
        let [from, to, what]: [&str; 3] = line.split('|').collect::<Vec<_>>().try_into().unwrap();
        let expected = match what {
            "nothing" => (None, None),
            "index" => (None, Some(Severity::Refusal)),
            "table" => (Some(Severity::Refusal), Some(Severity::Refusal)),
            _ => continue,
        };
        count[usize::from(expected.0.is_some()) + usize::from(expected.1.is_some())] += 1;
        let found = [false, true].map(|indexed| said(Engine::Postgresql, "15", indexed, from, to));
        if found != [expected.0, expected.1] {
            let _ = writeln!(wrong, "{from} -> {to}: {what}, found {found:?}");
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
    assert!(count.iter().all(|count| *count >= 10), "too few of a kind: {count:?}");
}

const MARIADB: [&str; 24] = [
    "varchar(20)",
    "varchar(32)",
    "varchar(60)",
    "varchar(64)",
    "varchar(255)",
    "varchar(300)",
    "text",
    "mediumtext",
    "tinyint",
    "tinyint(1)",
    "int",
    "bigint",
    "bigint unsigned",
    "double",
    "decimal(10,2)",
    "decimal(12,2)",
    "datetime(3)",
    "datetime(6)",
    "timestamp(6)",
    "time(6)",
    "varbinary(127)",
    "varbinary(255)",
    "varbinary(300)",
    "blob",
];

#[test]
fn mariadb_writes_anew_what_is_said() {
    let mariadb = Mariadb::start(MariadbOptions::default());
    let pairs = pairs(&MARIADB);
    let mut script = String::from(
        "USE app;\nDELIMITER //\n\
         CREATE PROCEDURE pair(a TEXT, b TEXT)\nBEGIN\n\
         \x20 DECLARE what TEXT DEFAULT 'nothing';\n\
         \x20 DECLARE CONTINUE HANDLER FOR 1845, 1846 SET what = 'table';\n\
         \x20 EXECUTE IMMEDIATE CONCAT('CREATE OR REPLACE TABLE tt (id INT PRIMARY KEY, c ', a, ') CHARSET=utf8mb4');\n\
         \x20 EXECUTE IMMEDIATE CONCAT('ALTER TABLE tt MODIFY c ', b, ', ALGORITHM=NOCOPY');\n\
         \x20 SELECT a, b, what;\nEND//\nDELIMITER ;\n",
    );
    for (from, to) in &pairs {
        let _ = writeln!(script, "CALL pair('{from}', '{to}');");
    }
    let version = mariadb.sql("SELECT VERSION()");
    let mut wrong = String::new();
    let mut count = [0; 2];
    for line in mariadb.sql(&script).lines() {
        let [from, to, what]: [&str; 3] = line.split('\t').collect::<Vec<_>>().try_into().unwrap();
        let expected = (what == "table").then_some(Severity::Refusal);
        count[usize::from(expected.is_some())] += 1;
        let found = said(Engine::Mysql, version.trim(), false, from, to);
        if found != expected {
            let _ = writeln!(wrong, "{from} -> {to}: {what}, found {found:?}");
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
    assert!(count.iter().all(|count| *count >= 10), "too few of a kind: {count:?}");
    assert_eq!(count.iter().sum::<usize>(), pairs.len());
}
