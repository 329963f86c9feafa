//! Migrations that wait behind a long transaction, on real servers: who is named, what is bounded, what runs again.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what went wrong by failing there")]

#[allow(dead_code, reason = "each test uses its own part of it")]
#[path = "support/mariadb.rs"]
mod mariadb;
#[path = "support/postgres.rs"]
mod postgres;
#[path = "support/rails_app.rs"]
mod rails_app;
#[path = "support/scene.rs"]
mod scene;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use mariadb::{Mariadb, MariadbOptions};
use postgres::{Postgres, PostgresOptions, program};
use rails_app::{Database, RailsApp};
use scene::{Ran, Scene, Store};
use serde_json::json;
use unstuck::adapters;
use unstuck::ports::Wait;
use unstuck::rails::{self, Engine};
use unstuck::secret::Secret;
use unstuck_standin::Options;

/// Runs what stands behind `__END__` in each pending file, which is Ruby for whoever reads it. The script records its version
/// itself, in the session of its change.
const RAILS: &str = r#"#!/bin/bash
cd "$(dirname "$0")/.." || exit 1
echo >> starts
sql() { bin/sql "$1"; }
for file in db/migrate/*.rb; do
  version=$(basename "$file" | cut -d_ -f1)
  [ -n "$(sql "select 1 from schema_migrations where version = '$version'")" ] && continue
  echo "== $version migrating"
  sed '1,/^__END__$/d' "$file" > script
  . ./script || exit 1
done
"#;

/// A server, and a fresh database for each story.
trait Server {
    fn store(&self, database: &str) -> Store;
    /// The stock client, reading statements from its input.
    fn client(&self, database: &str) -> Command;
    /// How many sessions of a database wait for a lock.
    fn waiting(&self, database: &str) -> usize;
    /// One session's statements for a change of the schema, as Rails would send them.
    fn change(statement: &str, version: u64) -> String;
    /// Ends the sessions of `unstuck` in a database.
    fn cut(&self, database: &str);
    /// Lets a database, or its user, have so many connections.
    fn allow(&self, database: &str, connections: u32);
    const OWN_ID: &'static str;
    /// What ends a session.
    fn remedy(id: &str) -> String;
}

impl Server for Postgres {
    fn store(&self, database: &str) -> Store {
        self.sql(&format!("create database {database}"));
        let (psql, port) = (program("psql"), self.port);
        Store {
            url: self.url(database),
            client: format!("{psql} -XAtq -v ON_ERROR_STOP=1 -h 127.0.0.1 -p {port} -U postgres -d {database} -c"),
            key: "key",
            moment: "timestamp(6)",
        }
    }

    fn client(&self, database: &str) -> Command {
        let mut psql = Command::new(program("psql"));
        psql.env_clear().args(["-XAtq", "-U", "postgres", "-d", database, "-p", &self.port.to_string(), "-h"]);
        psql.arg(&self.socket_dir).env("PGAPPNAME", "report");
        psql
    }

    fn waiting(&self, database: &str) -> usize {
        let waiting = "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and datname =";
        self.sql(&format!("{waiting} '{database}'")).parse().unwrap()
    }

    fn change(statement: &str, version: u64) -> String {
        format!("begin; {statement}; insert into schema_migrations values ('{version}'); commit")
    }

    fn cut(&self, database: &str) {
        let ours = format!("datname = '{database}' and application_name = 'unstuck'");
        self.sql(&format!("select pg_terminate_backend(pid) from pg_stat_activity where {ours}"));
    }

    fn allow(&self, database: &str, connections: u32) {
        self.sql(&format!("alter database {database} connection limit {connections}"));
    }

    const OWN_ID: &'static str = "pg_backend_pid()";

    fn remedy(id: &str) -> String {
        format!("select pg_terminate_backend({id})")
    }
}

impl Server for Mariadb {
    fn store(&self, database: &str) -> Store {
        self.sql(&format!(
            "create database {database}; grant all on {database}.* to ann@'%'; grant process on *.* to ann@'%'"
        ));
        let (port, password) = (self.port, Self::PASSWORD);
        Store {
            url: self.url("mysql2").replace("/app", &format!("/{database}")),
            client: format!(
                "mariadb --no-defaults --skip-ssl -h 127.0.0.1 -P {port} -u ann -p{password} {database} -BNe"
            ),
            key: "`key`",
            moment: "datetime(6)",
        }
    }

    fn client(&self, database: &str) -> Command {
        let mut client = Self::client();
        client.args(["--skip-ssl", "--user=root", "-BN", "--unbuffered", database]);
        client.arg(format!("--socket={}", self.socket.display()));
        client
    }

    fn waiting(&self, database: &str) -> usize {
        let waiting =
            "select count(*) from information_schema.processlist where state like 'Waiting for %lock' and db =";
        self.sql(&format!("{waiting} '{database}'")).trim().parse().unwrap()
    }

    /// With Rails' own lock, as Rails 7.1 takes it.
    fn change(statement: &str, version: u64) -> String {
        format!(
            "do get_lock(concat(2053462845 * crc32(database())), 0); {statement}; insert into schema_migrations values ('{version}')"
        )
    }

    fn cut(&self, database: &str) {
        let ids = format!("select id from information_schema.processlist where user = 'ann' and db = '{database}'");
        for id in self.sql(&ids).lines() {
            // Some may end by themselves meanwhile.
            let _ = self.client(database).args(["-e", &format!("kill {id}")]).output().unwrap();
        }
    }

    fn allow(&self, _database: &str, connections: u32) {
        self.sql(&format!("alter user ann@'%' with max_user_connections {connections}"));
    }

    const OWN_ID: &'static str = "connection_id()";

    fn remedy(id: &str) -> String {
        format!("kill {id}")
    }
}

/// A transaction that has read a table and stays open.
struct Holder {
    id: String,
    client: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Holder {
    fn of<S: Server>(server: &S, database: &str, table: &str) -> Self {
        let mut client =
            server.client(database).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the client");
        let (input, output) = (client.stdin.take().unwrap(), BufReader::new(client.stdout.take().unwrap()));
        let mut holder = Self { id: String::new(), client, input, output };
        holder.id =
            holder.ask(&format!("begin; select /* \u{1b}[31m */ {} from (select count(*) from {table}) t;", S::OWN_ID));
        holder
    }

    /// Sends statements and reads one line.
    fn ask(&mut self, sql: &str) -> String {
        writeln!(self.input, "{sql}").unwrap();
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        line.trim().to_owned()
    }

    fn release(mut self) {
        assert_eq!(self.ask("commit; select 7;"), "7");
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.client.kill();
        let _ = self.client.wait();
    }
}

/// A run of `unstuck` whose standard error is read as it comes.
struct Live {
    child: Child,
    err: BufReader<ChildStderr>,
    seen: String,
}

impl Live {
    fn start(scene: &Scene, arguments: &[&str]) -> Self {
        let mut command = scene.command(arguments);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("unstuck starts");
        let err = BufReader::new(child.stderr.take().unwrap());
        Self { child, err, seen: String::new() }
    }

    /// Reads on until a line holds this.
    fn until(&mut self, sign: &str) -> &mut Self {
        loop {
            let start = self.seen.len();
            assert!(self.err.read_line(&mut self.seen).unwrap() > 0, "no `{sign}` in:\n{}", self.seen);
            if self.seen[start..].contains(sign) {
                return self;
            }
        }
    }

    fn signal(&self, signal: i32) {
        // SAFETY: kill takes two integers and touches no memory of ours.
        assert_eq!(unsafe { libc::kill(i32::try_from(self.child.id()).unwrap(), signal) }, 0);
    }

    fn end(mut self) -> Ran {
        self.err.read_to_string(&mut self.seen).unwrap();
        let mut output = self.child.wait_with_output().unwrap();
        output.stderr = self.seen.into_bytes();
        Ran::of(output)
    }
}

/// An application that uses unstuck, with a table `first`, and from now on migrations of the kind above.
fn scene(server: &impl Server, database: &str) -> Scene {
    let mut scene = Scene::on(&server.store(database), Options::default());
    // Longer than any of them takes: what waits for ever has to fail here.
    scene.set("UNSTUCK_MIGRATE_TIMEOUT", "1m").settled();
    fs::write(scene.path("bin/rails"), RAILS).unwrap();
    scene
}

/// A migration that is both: a class for the reader, a script for the run.
fn migration<S: Server>(scene: &Scene, version: u64, ruby: &str, statement: &str) {
    let change = S::change(statement, version);
    let text = format!("class M{version} < ActiveRecord::Migration[7.1]\n{ruby}\nend\n__END__\nsql \"{change}\"");
    scene.migration(version, &format!("m{version}"), &text);
}

const ADD: &str = "def change = add_column(:first, :b, :integer)";
const ALTER: &str = "alter table first add column b int";

/// Waits until the server says so.
fn until_waiting(server: &impl Server, database: &str, count: usize) {
    for _ in 0..400 {
        if server.waiting(database) == count {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("{count} sessions never waited in {database}");
}

fn tell_all<S: Server>(server: &S) {
    who_blocks_whom(server);
    released_in_time(server);
    never_released(server);
    data_outside_a_transaction(server);
    a_command_that_does_more(server);
    a_signal_ends_the_retries(server);
    the_time_for_all_attempts_ends(server);
    nobody_waits_for_a_command_that_was_killed(server);
    a_lost_connection_is_no_reason_to_give_up(server);
    the_last_connections_are_the_migrations(server);
}

#[test]
fn stories_on_postgresql() {
    let server = Postgres::start(&PostgresOptions::default());
    tell_all(&server);
    the_application_has_its_own_settings(&server);
    one_was_applied_before_it(&server);
}

#[test]
fn stories_on_mariadb() {
    let server = Mariadb::start(MariadbOptions::default());
    tell_all(&server);
    what_was_applied_before_it_cannot_be_told_from_a_half(&server);
}

fn who_blocks_whom<S: Server>(server: &S) {
    let scene = scene(server, "told");
    let script =
        format!("sql \"{}\"; for _ in {{1..400}}; do [ -e go ] && break; sleep 0.05; done", S::change(ALTER, 2));
    scene.migration(2, "m2", &format!("# a script alone\n__END__\n{script}"));
    let holder = Holder::of(server, "told", "first");
    let mut run = Live::start(&scene, &["migrate", "--json"]);
    until_waiting(server, "told", 1);
    let mut queued = Command::new(scene.path("bin/sql"))
        .arg("select count(*) from first")
        .stdout(Stdio::null())
        .spawn()
        .expect("the client");
    run.until("1 other session queues behind it").until("to end what holds it");
    let remedy = S::remedy(&holder.id);
    let id = holder.id.clone();
    holder.release();
    run.until("the wait for a lock on first is over");
    fs::write(scene.path("go"), "").unwrap();
    assert!(queued.wait().unwrap().success());
    let ran = run.end().code(0);
    assert_eq!(ran.json()["outcome"], "migrated");
    for text in [
        "the migration waits for a lock on first (",
        ALTER,
        &format!("held by session {id}: "),
        "idle in transaction",
        &remedy,
    ] {
        assert!(ran.err.contains(text), "{text} in {ran:?}");
    }
}

fn released_in_time<S: Server>(server: &S) {
    let mut scene = scene(server, "released");
    scene.set("UNSTUCK_DDL_LOCK_TIMEOUT", "600ms");
    migration::<S>(&scene, 2, ADD, ALTER);
    let holder = Holder::of(server, "released", "first");
    let seq = scene.now();
    let mut run = Live::start(&scene, &["migrate", "--json"]);
    run.until("running it again");
    holder.release();
    let ran = run.end().code(0);
    assert_eq!((&ran.json()["outcome"], &ran.json()["restart"]["state"]), (&json!("migrated"), &json!("proved")));
    assert_eq!(scene.writes(seq).len(), 1, "one restart");
    assert_eq!(scene.debts(), [""; 0]);
}

fn never_released<S: Server>(server: &S) {
    let mut scene = scene(server, "kept");
    scene.set("UNSTUCK_DDL_LOCK_TIMEOUT", "600ms");
    migration::<S>(&scene, 2, ADD, ALTER);
    let holder = Holder::of(server, "kept", "first");
    let ran = scene.unstuck(&["migrate", "--json"]).code(3);
    assert_eq!(ran.err.matches("running it again").count(), 3, "{ran:?}");
    assert_eq!(ran.err.matches("== 2 migrating").count(), 4, "{ran:?}");
    assert!(ran.err.contains(&format!("held by session {}", holder.id)), "{ran:?}");
    let report = ran.json();
    assert_eq!((&report["outcome"], &report["restart"]["state"]), (&json!("migration_failed"), &json!("not_needed")));
    assert!(report["troubles"][0].as_str().unwrap().contains("it was tried 4 times"), "{report}");
    assert_eq!(server.waiting("kept"), 0, "nothing of ours waits any more");
    assert_eq!(scene.unstuck(&["status", "--json"]).code(0).json()["owed"], false);
    holder.release();
    assert_eq!(scene.unstuck(&["migrate", "--json"]).code(0).json()["outcome"], "migrated");
}

fn data_outside_a_transaction<S: Server>(server: &S) {
    let mut scene = scene(server, "data");
    scene.set("UNSTUCK_DDL_LOCK_TIMEOUT", "600ms");
    let ruby = "disable_ddl_transaction!\ndef up\n  First.update_all(a: 1)\n  add_column :first, :b, :integer\nend";
    migration::<S>(&scene, 2, ruby, ALTER);
    let _holder = Holder::of(server, "data", "first");
    let ran = scene.unstuck(&["migrate"]).code(3);
    assert_eq!(ran.out.matches("== 2 migrating").count(), 1, "{ran:?}");
    for text in
        ["it is not run again by itself: M2 does not run in a transaction", "line 4 says `First.update_all(a: 1)`"]
    {
        assert!(ran.err.contains(text), "{text} in {ran:?}");
    }
}

fn a_command_that_does_more<S: Server>(server: &S) {
    let mut scene = scene(server, "further");
    scene.set("UNSTUCK_DDL_LOCK_TIMEOUT", "600ms");
    migration::<S>(&scene, 2, ADD, ALTER);
    let _holder = Holder::of(server, "further", "first");
    let ran = scene.unstuck(&["migrate", "--", "sh", "-c", "bin/rails db:migrate"]).code(3);
    assert_eq!(ran.out.matches("== 2 migrating").count(), 1, "{ran:?}");
    assert!(ran.err.contains("its command is not Rails' db:migrate alone"), "{ran:?}");
}

fn a_signal_ends_the_retries<S: Server>(server: &S) {
    let mut scene = scene(server, "stopped");
    // The pause is at least half of this.
    scene.set("UNSTUCK_DDL_LOCK_TIMEOUT", "4s");
    migration::<S>(&scene, 2, ADD, ALTER);
    let _holder = Holder::of(server, "stopped", "first");
    let mut run = Live::start(&scene, &["migrate"]);
    run.until("running it again");
    run.signal(libc::SIGTERM);
    let ran = run.end().code(128 + libc::SIGTERM);
    assert_eq!(fs::read_to_string(scene.path("starts")).unwrap(), "\n", "started once: {ran:?}");
}

fn the_time_for_all_attempts_ends<S: Server>(server: &S) {
    let mut scene = scene(server, "limited");
    // Four attempts with their pauses take at least six seconds.
    scene.set("UNSTUCK_DDL_LOCK_TIMEOUT", "800ms").set("UNSTUCK_MIGRATE_TIMEOUT", "3s");
    migration::<S>(&scene, 2, ADD, ALTER);
    let _holder = Holder::of(server, "limited", "first");
    let ran = scene.unstuck(&["migrate"]).code(3);
    assert!(ran.out.matches("== 2 migrating").count() < 4, "{ran:?}");
}

/// PostgreSQL does not notice that a client is gone while its statement waits.
fn nobody_waits_for_a_command_that_was_killed<S: Server>(server: &S) {
    let scene = scene(server, "killed");
    migration::<S>(&scene, 2, ADD, ALTER);
    let holder = Holder::of(server, "killed", "first");
    let mut run = Live::start(&scene, &["migrate"]);
    run.until("the migration waits for a lock on first");
    run.signal(libc::SIGTERM);
    run.end().code(128 + libc::SIGTERM);
    until_waiting(server, "killed", 0);
    holder.release();
    assert_eq!(scene.sql("select count(*) from schema_migrations"), "1", "it did not go on afterwards");
}

fn a_lost_connection_is_no_reason_to_give_up<S: Server>(server: &S) {
    let mut scene = scene(server, "cut");
    scene.set("UNSTUCK_DDL_LOCK_TIMEOUT", "2s");
    migration::<S>(&scene, 2, ADD, ALTER);
    let holder = Holder::of(server, "cut", "first");
    let mut run = Live::start(&scene, &["migrate", "--json"]);
    run.until("running it again");
    server.cut("cut");
    holder.release();
    assert_eq!(run.end().code(0).json()["restart"]["state"], "proved");
    assert_eq!(scene.debts(), [""; 0]);
}

fn the_last_connections_are_the_migrations<S: Server>(server: &S) {
    let scene = scene(server, "few");
    let script =
        format!("for _ in {{1..400}}; do [ -e go ] && break; sleep 0.05; done; sql \"{}\"", S::change(ALTER, 2));
    scene.migration(2, "m2", &format!("# a script alone\n__END__\n{script}"));
    server.allow("few", 4);
    let mut run = Live::start(&scene, &["migrate", "-v"]);
    run.until("cannot look for lock waits: only 2 more connections are allowed");
    fs::write(scene.path("go"), "").unwrap();
    run.end().code(0);
    server.allow("few", 50);
}

/// The application undoes what the server was told, and its sessions have a name of their own: Rails' lock tells which they are,
/// and the statement is cancelled from outside.
fn the_application_has_its_own_settings(server: &Postgres) {
    let mut scene = scene(server, "own");
    scene.set("UNSTUCK_DDL_LOCK_TIMEOUT", "600ms");
    let lock = 2_053_462_845 * u64::from(crc32fast::hash(b"own"));
    let settings = format!("set lock_timeout = 0; set application_name = blog; select pg_try_advisory_lock({lock})");
    let script = format!("sql \"{settings}; {}\"", Postgres::change(ALTER, 2));
    scene.migration(2, "m2", &format!("class M2 < ActiveRecord::Migration[7.1]\n{ADD}\nend\n__END__\n{script}"));
    let holder = Holder::of(server, "own", "first");
    let mut run = Live::start(&scene, &["migrate"]);
    run.until("canceling statement due to user request").until("running it again");
    holder.release();
    run.end().code(0);
}

fn one_was_applied_before_it(server: &Postgres) {
    let mut scene = scene(server, "two");
    scene.set("UNSTUCK_DDL_LOCK_TIMEOUT", "600ms").set("PGOPTIONS", "-c work_mem=8MB");
    let statement = "create table second (a int); select 'work_mem ' || current_setting('work_mem')";
    migration::<Postgres>(&scene, 2, "def change = create_table(:second)", statement);
    migration::<Postgres>(&scene, 3, ADD, ALTER);
    let holder = Holder::of(server, "two", "first");
    let mut run = Live::start(&scene, &["migrate", "--json"]);
    run.until("canceling statement due to lock timeout").until("running it again");
    holder.release();
    let ran = run.end().code(0);
    assert_eq!(ran.json()["databases"][0]["applied"], json!(["2", "3"]));
    assert!(ran.err.contains("work_mem 8MB"), "the caller's options are kept: {ran:?}");
    assert_eq!(ran.err.matches("== 2 migrating").count(), 1, "{ran:?}");
}

fn what_was_applied_before_it_cannot_be_told_from_a_half(server: &Mariadb) {
    let mut scene = scene(server, "two");
    scene.set("UNSTUCK_DDL_LOCK_TIMEOUT", "600ms");
    migration::<Mariadb>(&scene, 2, "def change = create_table(:second)", "create table second (a int)");
    migration::<Mariadb>(&scene, 3, ADD, ALTER);
    let _holder = Holder::of(server, "two", "first");
    let report = scene.unstuck(&["migrate", "--json"]).code(3).json();
    assert_eq!((&report["databases"][0]["pending"], &report["restart"]["state"]), (&json!(["3"]), &json!("proved")));
    assert!(report["troubles"][0].as_str().unwrap().contains("others were applied before M3"), "{report}");
}

/// Real Rails, which takes its lock on a connection of its own in this version, and dies of a cancelled statement in its way.
fn rails_runs_again<S: Server>(server: &S) {
    let mut scene = Scene::on(&server.store("rails"), Options::default());
    scene.set("RAILS_ENV", "production").set("LANG", "C.UTF-8").set("UNSTUCK_DDL_LOCK_TIMEOUT", "2s");
    let app = RailsApp::create(&scene.path("app"), &[Database::sqlite3("primary")]);
    app.add_migration("1", "create_posts", "def change = create_table(:posts) { |t| t.string :title }");
    scene.unstuck(&["migrate", "-C", "app"]).code(0);
    app.add_migration("2", "add_subtitle", "def change = add_column(:posts, :subtitle, :string)");
    let holder = Holder::of(server, "rails", "posts");
    let mut run = Live::start(&scene, &["migrate", "--json", "-C", "app"]);
    run.until("running it again");
    assert_eq!(server.waiting("rails"), 0);
    let id = holder.id.clone();
    holder.release();
    let ran = run.end().code(0);
    assert!(ran.err.contains(&format!("held by session {id}")), "{ran:?}");
    assert_eq!((&ran.json()["outcome"], &ran.json()["restart"]["state"]), (&json!("migrated"), &json!("proved")));
    assert_eq!(scene.debts(), [""; 0]);
}

#[test]
fn rails_runs_again_on_postgresql() {
    rails_runs_again(&Postgres::start(&PostgresOptions::default()));
}

#[test]
fn rails_runs_again_on_mariadb() {
    rails_runs_again(&Mariadb::start(MariadbOptions::default()));
}

#[test]
fn what_mariadb_tells_depends_on_what_may_be_asked() {
    let arguments = ["--performance-schema=ON", "--performance-schema-instrument=wait/lock/metadata/sql/mdl=ON"];
    let arguments = arguments.map(str::to_owned).to_vec();
    let server = Mariadb::start(MariadbOptions { arguments, ..MariadbOptions::default() });
    server.sql("create table app.first (a int); create table app.other (a int)");
    let everything = "grant process on *.* to sue@'%'; grant select on performance_schema.* to sue@'%'";
    for (user, more) in [("bob", ""), ("pat", "grant process on *.* to pat@'%'"), ("sue", everything)] {
        server.sql(&format!("create user {user}@'%'; grant all on app.* to {user}@'%'; {more}"));
    }
    let bystander = Holder::of(&server, "app", "other");
    let holder = Holder::of(&server, "app", "first");
    let seen = |user: &str| {
        let wait = seen_by(&server, user);
        assert_eq!((wait.target.as_str(), wait.own), ("a lock on first", true), "{wait:?}");
        let holders: Vec<String> = wait.holders.iter().map(|holder| holder.session.clone()).collect();
        (holders, wait.guess)
    };
    assert_eq!(seen("bob"), (vec![], true));
    assert_eq!(seen("pat"), (vec![bystander.id.clone(), holder.id.clone()], true), "the oldest first");
    assert_eq!(seen("sue"), (vec![holder.id.clone()], false));
    server.sql("install soname 'metadata_lock_info'");
    assert_eq!(seen("pat"), (vec![holder.id.clone()], false));
}

/// What this user sees of a change of its own that waits; it is cancelled then.
fn seen_by(server: &Mariadb, user: &str) -> Wait {
    let change = Command::new("mariadb")
        .args([
            "--no-defaults",
            "--skip-ssl",
            "-h",
            "127.0.0.1",
            "-P",
            &server.port.to_string(),
            "-u",
            user,
            "app",
            "-e",
        ])
        .arg(Mariadb::change(ALTER, 2))
        .stderr(Stdio::piped())
        .spawn()
        .expect("the client");
    until_waiting(server, "app", 1);
    let config = rails::Database {
        name: "primary".into(),
        engine: Engine::Mysql,
        adapter: "mysql2".into(),
        host: Some("127.0.0.1".into()),
        port: Some(server.port),
        socket: None,
        database: Some("app".into()),
        username: Some(user.into()),
        password: Some(Secret::new("")),
        options: [].into(),
        migrations_paths: vec![],
        schema_migrations_table: String::new(),
        metadata_table: None,
        from: String::new(),
    };
    let mut waits = adapters::lock_waits(config, [].into(), "0123abcd").unwrap();
    let wait = waits.look().unwrap().pop().expect("a wait");
    assert!(waits.cancel(&wait).unwrap());
    let output = change.wait_with_output().unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("Query execution was interrupted"), "{output:?}");
    wait
}

#[test]
fn the_limit_is_a_setting_like_any_other() {
    let mut scene = Scene::new();
    let shown = |scene: &Scene, arguments: &[&str]| {
        let config = scene.unstuck(&[&["config"], arguments].concat()).code(0).out;
        let line = config.lines().find(|line| line.starts_with("timeouts.ddl_lock")).unwrap();
        line.split_whitespace().skip(1).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(shown(&scene, &[]), "none default");
    fs::write(scene.path(".unstuck.yml"), "timeouts:\n  ddl_lock: 5s\n").unwrap();
    assert_eq!(shown(&scene, &[]), "5s .unstuck.yml (timeouts.ddl_lock)");
    scene.set("UNSTUCK_DDL_LOCK_TIMEOUT", "10s");
    assert_eq!(shown(&scene, &[]), "10s UNSTUCK_DDL_LOCK_TIMEOUT");
    assert_eq!(shown(&scene, &["--ddl-lock-timeout", "0s"]), "0ns --ddl-lock-timeout");
    scene.unstuck(&["config", "--ddl-lock-timeout", "soon"]).code(2);
}
