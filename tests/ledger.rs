//! The records, the run lock and the looks of `ports::Database`: one suite for real PostgreSQL, MariaDB and SQLite.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "the helpers of a test fail by panicking")]

#[allow(dead_code, reason = "each test uses a part of what the tests share")]
#[path = "support/mariadb.rs"]
mod mariadb;
#[path = "support/postgres.rs"]
mod postgres;
#[path = "support/proxy.rs"]
mod proxy;

use std::collections::BTreeMap;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use mariadb::{Mariadb, MariadbOptions};
use postgres::{PgBouncer, Postgres, PostgresOptions};
use proxy::{Act, Proxy, When};
use tempfile::TempDir;
use unstuck::adapters::{self, ConnectOptions, ledger::Ledger};
use unstuck::debt::{Digest, Entry, Home, Records};
use unstuck::migrations::applied;
use unstuck::ports::{Database as _, Lock, Look, Session, Settlement, SqlError, SqlErrorKind};
use unstuck::rails::{Database, Engine};
use unstuck::secret::Secret;

const APP: &str = "01234567-89ab-cdef-0123-456789abcdef";

fn server() -> &'static Postgres {
    static SERVER: OnceLock<Postgres> = OnceLock::new();
    SERVER.get_or_init(|| Postgres::start(&PostgresOptions::default()))
}

/// A database of its own, and a way to change it behind the ledger's back.
struct Place {
    config: Database,
    store: Store,
}

enum Store {
    Postgres,
    Mariadb(Mariadb),
    Sqlite(TempDir),
}

/// One fresh database for each engine.
fn places(name: &str) -> Vec<Place> {
    vec![on_postgres(name), on_mariadb(), on_sqlite()]
}

fn config(engine: Engine, adapter: &str) -> Database {
    Database {
        name: "primary".into(),
        engine,
        adapter: adapter.into(),
        host: None,
        port: None,
        socket: None,
        database: None,
        username: None,
        password: None,
        options: BTreeMap::new(),
        migrations_paths: vec!["db/migrate".into()],
        schema_migrations_table: "schema_migrations".into(),
        metadata_table: Some("ar_internal_metadata".into()),
        from: "DATABASE_URL".into(),
    }
}

fn on_postgres(name: &str) -> Place {
    let server = server();
    server.sql(&format!("create database {name}"));
    let config = Database {
        host: Some(server.socket_dir.to_str().unwrap().into()),
        port: Some(server.port),
        database: Some(name.into()),
        username: Some("postgres".into()),
        ..config(Engine::Postgresql, "postgresql")
    };
    Place { config, store: Store::Postgres }
}

fn on_mariadb() -> Place {
    let server = Mariadb::start(MariadbOptions::default());
    let config = Database {
        host: Some("127.0.0.1".into()),
        port: Some(server.port),
        database: Some("app".into()),
        username: Some("ann".into()),
        password: Some(Secret::new(Mariadb::PASSWORD)),
        ..config(Engine::Mysql, "mysql2")
    };
    Place { config, store: Store::Mariadb(server) }
}

fn on_sqlite() -> Place {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("db.sqlite3").to_str().unwrap().to_owned();
    Place {
        config: Database { database: Some(file), ..config(Engine::Sqlite, "sqlite3") },
        store: Store::Sqlite(folder),
    }
}

impl Place {
    fn open(&self) -> Ledger {
        adapters::open(self.config.clone(), BTreeMap::from([("HOME".into(), "/nonexistent".into())]))
    }

    /// What the engine's own client answers.
    #[track_caller]
    fn sql(&self, sql: &str) -> String {
        match &self.store {
            Store::Postgres => Postgres::psql(&self.conninfo(), &[], sql).unwrap(),
            Store::Mariadb(server) => server.sql(&format!("use app; {sql}")).trim().to_owned(),
            Store::Sqlite(_) => {
                let output = Command::new("sqlite3").arg(self.file()).arg(sql).output().unwrap();
                assert!(output.status.success(), "{sql}: {output:?}");
                String::from_utf8(output.stdout).unwrap().trim().to_owned()
            }
        }
    }

    fn conninfo(&self) -> String {
        let Database { host, port, database, .. } = &self.config;
        let (host, database) = (host.as_deref().unwrap(), database.as_deref().unwrap());
        format!("host={host} port={} user=postgres dbname={database}", port.unwrap())
    }

    fn file(&self) -> &str {
        self.config.database.as_deref().unwrap()
    }

    fn engine(&self) -> Engine {
        self.config.engine
    }

    fn name(&self, name: &str) -> String {
        let mark = if self.engine() == Engine::Mysql { '`' } else { '"' };
        format!("{mark}{name}{mark}")
    }

    /// Rails' two tables as Rails makes them, under the configured names, with these versions.
    fn initialise(&self, versions: &[&str]) -> &Self {
        let moment = if self.engine() == Engine::Postgresql { "timestamp(6)" } else { "datetime(6)" };
        let migrations = self.name(&self.config.schema_migrations_table);
        self.sql(&format!("create table {migrations} (version varchar(255) not null primary key)"));
        if let Some(metadata) = &self.config.metadata_table {
            let [table, key, value] = [metadata, "key", "value"].map(|name| self.name(name));
            self.sql(&format!(
                "create table {table} ({key} varchar(255) not null primary key, {value} varchar(255), created_at {moment} not \
                 null, updated_at {moment} not null)"
            ));
        }
        for version in versions {
            self.sql(&format!("insert into {migrations} values ('{version}')"));
        }
        self
    }

    /// The name of each table, sorted.
    fn tables(&self) -> String {
        self.sql(match self.engine() {
            Engine::Postgresql => "select tablename from pg_tables where schemaname = 'public' order by 1",
            Engine::Mysql => "show tables",
            Engine::Sqlite => "select name from sqlite_master where type = 'table' order by 1",
        })
    }

    /// Ends every session of the ledger in the server; what SQLite has no word for is nothing.
    fn cut(&self) {
        match &self.store {
            Store::Postgres => {
                self.sql(
                    "select pg_terminate_backend(pid, 10000) from pg_stat_activity where application_name = 'unstuck' and \
                     datname = current_database()",
                );
            }
            Store::Mariadb(server) => {
                let ids = server.sql("select id from information_schema.processlist where user = 'ann'");
                for id in ids.lines() {
                    server.sql(&format!("kill {id}"));
                }
            }
            Store::Sqlite(_) => {}
        }
    }
}

fn debt(run: &str) -> String {
    format!("unstuck:debt:{APP}:{run}")
}

fn digest(versions: &[&str]) -> Digest {
    Digest::of(&applied(versions.iter().copied()))
}

fn entries(look: &Look) -> Vec<Entry> {
    let ledger = look.records.of(APP);
    ledger.unreadable.into_iter().chain(ledger.rows.into_iter().map(|row| row.entry)).collect()
}

fn values(look: &Look) -> Vec<String> {
    entries(look).into_iter().map(|entry| entry.value).collect()
}

fn settlement(versions: &[&str], gone: Vec<Entry>, kept: Vec<(Entry, String)>) -> Settlement {
    let proof = (format!("unstuck:proved:{APP}"), r#"{"v":1,"ver":"x","cnt":1,"run":"r"}"#.to_owned());
    Settlement { expected: digest(versions), gone, kept, proof }
}

#[test]
fn a_fresh_database_is_looked_at_without_a_trace_and_keeps_records_in_a_table_of_our_own() {
    for place in places("fresh") {
        let mut ledger = place.open();
        let look = ledger.look().unwrap();
        assert_eq!(
            (look.applied.len(), look.records, look.read_only, look.pooled),
            (0, Records::default(), false, false)
        );
        match &place.store {
            Store::Sqlite(folder) => assert_eq!(folder.path().read_dir().unwrap().count(), 0, "no file is made"),
            _ => assert_eq!(place.tables(), ""),
        }
        ledger.write(&debt("a"), "one").unwrap();
        ledger.write(&debt("a"), "two").unwrap();
        assert_eq!(place.tables(), "unstuck_debt");
        let look = place.open().look().unwrap();
        assert_eq!(values(&look), ["two"]);
        assert_eq!(entries(&look)[0].home, Home::Own);

        // The migration makes Rails' tables: from now on the records are there.
        place.initialise(&["1"]);
        let look = ledger.look().unwrap();
        ledger.write(&debt("a"), "three").unwrap();
        assert_eq!(values(&look), ["two"]);
        let look = ledger.look().unwrap();
        assert_eq!(entries(&look).len(), 2, "each home has one");
        assert!(ledger.settle(&settlement(&["1"], entries(&look), vec![])).unwrap());
        assert_eq!(place.tables(), "ar_internal_metadata\nschema_migrations", "ours is dropped as soon as it is empty");
        assert_eq!(values(&ledger.look().unwrap()), [""; 0]);

        place.open().erase(&debt("nobody")).unwrap();
    }
}

#[test]
fn a_version_that_is_null_is_a_zero_to_rails() {
    for place in places("nulls") {
        place.sql(
            "create table schema_migrations (version varchar(255)); insert into schema_migrations values (null), ('7')",
        );
        assert_eq!(Digest::of(&place.open().look().unwrap().applied), digest(&["0", "7"]));
    }
}

#[test]
fn a_table_may_be_in_another_database_of_the_server() {
    let mut place = on_mariadb();
    place.sql(
        "create database tenant; grant all on tenant.* to ann@'%'; create table tenant.schema_migrations (version \
         varchar(255)); insert into tenant.schema_migrations values ('9')",
    );
    place.config.schema_migrations_table = "tenant.schema_migrations".into();
    assert_eq!(Digest::of(&place.open().look().unwrap().applied), digest(&["9"]));
}

#[test]
fn records_are_written_touched_erased_and_settled_exactly_as_they_were_read() {
    for place in places("records") {
        place.initialise(&["20130125163307", "002"]);
        let mut ledger = place.open();
        let look = ledger.look().unwrap();
        assert_eq!(Digest::of(&look.applied), digest(&["20130125163307", "2"]));
        for (run, value) in [("a", "it's \\ \"quoted\""), ("b", "keep"), ("c", "other")] {
            ledger.write(&debt(run), value).unwrap();
        }
        assert_eq!(ledger.write(&debt("long"), &"x".repeat(300)).unwrap_err().kind, SqlErrorKind::Other);
        ledger.touch(&debt("a"), "it's \\ \"quoted\"").unwrap();
        if place.engine() != Engine::Sqlite {
            ledger.erase(&debt("c")).unwrap();
            ledger.touch(&debt("c"), "other").unwrap();
        }
        let read = entries(&ledger.look().unwrap());
        assert_eq!(read.iter().map(|entry| &entry.value[..4]).collect::<Vec<_>>(), ["it's", "keep", "othe"]);
        assert!(read.iter().all(|entry| entry.age_s < 60), "{read:?}");

        let all = settlement(&["20130125163307", "2"], read[..1].to_vec(), vec![(read[1].clone(), "kept".into())]);
        assert!(!ledger.settle(&Settlement { expected: digest(&["3"]), ..all.clone() }).unwrap(), "the versions moved");
        assert_eq!(entries(&ledger.look().unwrap()), read, "then nothing is done");

        // Somebody changed the row that was read: it is not the one whose restart was proved.
        ledger.write(&debt("a"), "changed").unwrap();
        assert!(ledger.settle(&all).unwrap());
        assert_eq!(values(&ledger.look().unwrap()), ["changed", "kept", "other"]);
        let now = entries(&ledger.look().unwrap());
        assert!(ledger.settle(&settlement(&["20130125163307", "2"], now, vec![])).unwrap());
        assert_eq!(values(&ledger.look().unwrap()), [""; 0]);
        assert!(ledger.look().unwrap().records.of(APP).proved.is_some());

        ledger.write(&debt("d"), "x").unwrap();
        ledger.erase(&debt("d")).unwrap();
        ledger.erase(&debt("d")).unwrap();
        assert_eq!(values(&place.open().look().unwrap()), [""; 0]);
        assert_eq!(place.tables(), "ar_internal_metadata\nschema_migrations");
    }
}

#[test]
fn without_a_metadata_table_and_with_odd_names_the_records_are_kept_as_well() {
    for mut place in places("odd_names") {
        place.config.schema_migrations_table = "my app's schema_migrations".into();
        place.config.metadata_table = None;
        place.initialise(&["1"]);
        let mut ledger = place.open();
        assert_eq!(ledger.look().unwrap().applied.len(), 1);
        ledger.write(&debt("a"), "one").unwrap();
        let read = entries(&ledger.look().unwrap());
        assert_eq!(read[0].home, Home::Own);
        assert!(ledger.settle(&settlement(&["1"], read, vec![])).unwrap());
        assert!(place.open().look().unwrap().records.of(APP).proved.is_some(), "the proof has no other home");
        ledger.catalogue().unwrap();
    }
}

#[test]
fn a_search_path_leads_to_the_tables_and_to_our_own() {
    let mut place = on_postgres("search_path");
    place.sql("create schema app");
    place.config.options.insert("schema_search_path".into(), "app".into());
    let mut ledger = place.open();
    ledger.look().unwrap();
    ledger.write(&debt("a"), "one").unwrap();
    assert_eq!(place.sql("select schemaname from pg_tables where tablename = 'unstuck_debt'"), "app");
    assert_eq!(values(&place.open().look().unwrap()), ["one"]);
    ledger.erase(&debt("a")).unwrap();
    assert_eq!(place.sql("select schemaname from pg_tables where tablename = 'unstuck_debt'"), "");
    place.sql("create table app.schema_migrations (version varchar primary key)");
    place.sql("insert into app.schema_migrations values (7)");
    assert_eq!(ledger.look().unwrap().applied.len(), 1);
    assert!(ledger.settle(&settlement(&["7"], vec![], vec![])).unwrap());
    assert_eq!(place.sql("select schemaname from pg_tables where tablename = 'unstuck_debt'"), "app");
}

#[test]
fn a_role_that_may_not_write_into_rails_table_uses_ours_and_settles() {
    let mut place = on_postgres("no_insert");
    place.initialise(&["1"]);
    place.sql("create role plain login; grant create, usage on schema public to plain");
    place.sql("grant select on all tables in schema public to plain");
    place.config.username = Some("plain".into());
    let mut ledger = place.open();
    ledger.look().unwrap();
    ledger.write(&debt("a"), "one").unwrap();
    let mut next = place.open();
    let read = entries(&next.look().unwrap());
    assert_eq!(read[0].home, Home::Own);
    assert!(next.settle(&settlement(&["1"], read, vec![])).unwrap());
    assert_eq!(values(&place.open().look().unwrap()), [""; 0]);
    ledger.write(&debt("b"), "one").unwrap();
    ledger.look().unwrap();
    ledger.erase(&debt("b")).unwrap();
    assert_eq!(values(&place.open().look().unwrap()), [""; 0]);
}

/// A process that inherits `fd` and holds it until it is killed.
fn inherit(fd: i32) -> Child {
    use std::os::unix::process::CommandExt as _;
    let mut command = Command::new("sleep");
    command.arg("600").stdin(Stdio::null());
    // SAFETY: fcntl is async-signal-safe and is given a descriptor of this process.
    unsafe {
        command.pre_exec(move || {
            if libc::fcntl(fd, libc::F_SETFD, 0) == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
        })
    };
    command.spawn().unwrap()
}

/// Tries for the lock until the server has noticed that its holder is gone.
fn lock_at_last(ledger: &mut Ledger) {
    let until = Instant::now() + Duration::from_secs(20);
    while ledger.try_lock().unwrap() != Lock::Taken {
        assert!(Instant::now() < until, "the lock is never free");
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn the_run_lock_is_one_per_database_and_lives_as_long_as_any_heir() {
    for place in places("lock") {
        place.initialise(&["1"]);
        let (mut first, mut second) = (place.open(), place.open());
        take_lock(&mut first).unwrap();
        assert_eq!(first.try_lock().unwrap(), Lock::Taken, "it is ours already");
        let Lock::Held(who) = second.try_lock().unwrap() else { panic!("two hold the lock of {:?}", place.engine()) };
        let named = if place.engine() == Engine::Sqlite { std::process::id().to_string() } else { "session ".into() };
        assert!(who.contains(&named), "{who}");

        let mut heir = inherit(first.lock_fd().unwrap());
        first.abandon();
        first.look().unwrap();
        drop(first);
        assert!(matches!(second.try_lock().unwrap(), Lock::Held(_)), "the heir keeps it");
        heir.kill().unwrap();
        heir.wait().unwrap();
        lock_at_last(&mut second);
        drop(second);
        lock_at_last(&mut place.open());
    }
}

type Deed = fn(&mut Ledger);

#[test]
fn a_connection_that_was_cut_is_opened_again_with_the_lock() {
    for place in places("cut").into_iter().filter(|place| place.engine() != Engine::Sqlite) {
        place.initialise(&["1"]);
        let mut ledger = place.open();
        let mut other = place.open();
        take_lock(&mut ledger).unwrap();
        let mut held =
            |what: &str| assert!(matches!(other.try_lock().unwrap(), Lock::Held(_)), "not held after {what}");
        ledger.look().unwrap();
        let deeds: [(&str, Deed); 8] = [
            ("look", |ledger| drop(ledger.look().unwrap())),
            ("write", |ledger| ledger.write(&debt("a"), "one").unwrap()),
            ("catalogue", |ledger| drop(ledger.catalogue().unwrap())),
            ("migrating", |ledger| assert_eq!(ledger.migrating().unwrap(), [""; 0])),
            ("settle", |ledger| assert!(ledger.settle(&settlement(&["1"], vec![], vec![])).unwrap())),
            ("erase", |ledger| ledger.erase(&debt("a")).unwrap()),
            ("try_lock", |ledger| assert_eq!(ledger.try_lock().unwrap(), Lock::Taken)),
            ("touch", |ledger| drop(ledger.touch(&debt("a"), "one"))),
        ];
        for (what, deed) in deeds {
            place.cut();
            deed(&mut ledger);
            // A touch does not wait; whatever follows it must find the lock again.
            ledger.look().unwrap();
            held(what);
        }
    }
}

impl Place {
    /// The same database through a proxy; PostgreSQL over TCP then.
    fn behind(&self, proxy: &Proxy) -> Ledger {
        let config =
            Database { host: Some("127.0.0.1".into()), port: Some(proxy.port), password: None, ..self.config.clone() };
        let password = self.config.password.clone();
        adapters::open(Database { password, ..config }, BTreeMap::from([("HOME".into(), "/nonexistent".into())]))
    }
}

/// All that a run does to a database, while one of its messages is lost, or the answer to it. What it did not hear of is done
/// once all the same.
fn cut_at_each_message(place: &mut Place, acts: &[Act]) {
    place.initialise(&["1"]);
    let proxy = Proxy::to(place.config.port.unwrap());
    for metadata in [place.config.metadata_table.clone(), None] {
        place.config.metadata_table = metadata;
        for act in acts {
            let mut message = 1;
            loop {
                place.sql("drop table if exists unstuck_debt");
                let trap = proxy.on(When::Message(message), *act);
                let mut ledger = place.behind(&proxy);
                // A first connection is not tried again.
                if ledger.look().is_ok() {
                    run_through(&mut ledger, &format!("{act:?} at message {message}"));
                }
                if !trap.has_sprung() {
                    break;
                }
                message += 1;
            }
            assert!(message > 15, "{message} messages");
        }
    }
}

/// The server takes its time to notice that the session before is gone: as a run does, this waits for the lock.
fn take_lock(ledger: &mut Ledger) -> Result<(), SqlError> {
    let deadline = Instant::now() + Duration::from_secs(30);
    while let Lock::Held(who) = ledger.try_lock()? {
        assert!(Instant::now() < deadline, "{who} does not let go of the lock");
        thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

fn run_through(ledger: &mut Ledger, at: &str) {
    let done = (|| {
        take_lock(ledger)?;
        ledger.write(&debt("c"), "three")?;
        ledger.erase(&debt("c"))?;
        ledger.write(&debt("a"), "one")?;
        ledger.write(&debt("b"), "two")?;
        // It does not wait, and may fail; whatever follows repairs that.
        let _ = ledger.touch(&debt("a"), "one");
        ledger.catalogue()?;
        ledger.migrating()?;
        let look = ledger.look()?;
        assert_eq!(values(&look), ["one", "two"], "{at}");
        assert!(ledger.settle(&settlement(&["1"], entries(&look), vec![]))?, "{at}");
        let look = ledger.look()?;
        assert_eq!(values(&look), [""; 0], "{at}");
        assert!(look.records.of(APP).proved.is_some(), "{at}");
        ledger.look()
    })();
    done.unwrap_or_else(|error| panic!("{at}: {error}"));
}

const CUTS: [Act; 3] = [Act::Reset, Act::Cut(0), Act::Cut(20)];

#[test]
fn cut_at_each_message_to_postgresql_it_is_done_all_the_same() {
    cut_at_each_message(&mut on_postgres("cut_anywhere"), &CUTS);
}

#[test]
fn cut_at_each_message_to_mariadb_it_is_done_all_the_same() {
    cut_at_each_message(&mut on_mariadb(), &CUTS);
}

#[test]
fn a_lock_that_another_run_took_meanwhile_is_not_ours_any_more() {
    let place = on_postgres("stolen");
    place.initialise(&["1"]);
    let (mut ledger, mut thief) = (place.open(), place.open());
    ledger.look().unwrap();
    take_lock(&mut ledger).unwrap();
    place.cut();
    take_lock(&mut thief).unwrap();
    ledger.touch(&debt("a"), "one").unwrap_err();
    for _ in 0..2 {
        let error = ledger.touch(&debt("a"), "one").unwrap_err();
        assert!(error.message.contains("the run lock was lost"), "{error}");
    }
    drop(thief);
    assert!(ledger.settle(&settlement(&["1"], vec![], vec![])).unwrap());
}

#[test]
fn the_catalogue_changes_with_the_schema_and_with_nothing_else() {
    for place in places("catalogue") {
        place.initialise(&["1"]);
        place.sql("create table t (id integer primary key, a integer, b varchar(20) not null)");
        place.sql("insert into t values (1, 1, 'x')");
        let mut ledger = place.open();
        ledger.look().unwrap();
        let mut last = ledger.catalogue().unwrap();
        place.sql(
            "insert into t values (2, 2, 'y'); insert into schema_migrations values ('2'); delete from t where id = 1",
        );
        ledger.write(&debt("a"), "one").unwrap();
        place.open().write(&debt("b"), "in our own table").unwrap();
        assert_eq!(ledger.catalogue().unwrap(), last, "data is no schema: {:?}", place.engine());

        let everywhere = [
            "alter table t add column c integer default 1",
            "alter table t drop column c",
            "create index t_a on t (a)",
            "drop index t_a",
            "create view v as select id from t",
            "drop view v",
            "create view v as select id from t where id > 1",
            "create table u (id integer primary key)",
            "drop table u",
            "create trigger g after insert on t for each row begin delete from t; end",
        ];
        let postgres = [
            "alter table t alter column a set default 5",
            "alter table t alter column a set not null",
            "alter table t alter column a type bigint",
            "alter table t add constraint positive check (a > 0) not valid",
            "alter table t validate constraint positive",
            "create type mood as enum ('sad')",
            "alter type mood add value 'glad'",
            "create domain word as text",
            "alter domain word add constraint short check (length(value) < 9)",
            "create sequence s",
            "create function f() returns int language sql as 'select 1'",
            "create or replace view v as select id from t where id > 2",
            "create materialized view m as select 1 as one",
            "alter table t rename column b to bb",
        ];
        let mysql = [
            "alter table t modify a integer default 5",
            "alter table t modify a integer not null default 5",
            "alter table t modify a enum('x', 'y')",
            "alter table t modify a enum('x', 'y', 'z')",
            "alter table t add constraint positive check (id > 0)",
            "create table parent (id integer primary key, other integer unique); alter table t add p integer",
            "alter table t add constraint fk foreign key (p) references parent (id)",
            "alter table t drop foreign key fk, add constraint fk2 foreign key (p) references parent (other)",
            "create or replace view v as select id from t where id > 2",
            "alter table t rename column b to bb",
        ];
        let own: &[&str] = match place.engine() {
            Engine::Postgresql => &postgres,
            Engine::Mysql => &mysql,
            Engine::Sqlite => &["alter table t rename column b to bb"],
        };
        for sql in everywhere.iter().chain(own) {
            let sql = match (place.engine(), *sql) {
                (Engine::Mysql, "drop index t_a") => "alter table t drop index t_a",
                (Engine::Mysql, sql) if sql.contains("trigger") => {
                    "create trigger g after insert on t for each row delete from schema_migrations"
                }
                (Engine::Postgresql, sql) if sql.contains("trigger") => {
                    "create trigger g after update on t for each row execute function suppress_redundant_updates_trigger()"
                }
                (_, sql) => sql,
            };
            place.sql(sql);
            let now = ledger.catalogue().unwrap();
            assert_ne!(now, last, "{sql} on {:?}", place.engine());
            last = now;
        }
    }
}

#[test]
fn whoever_may_be_migrating_in_postgresql_is_seen() {
    let place = on_postgres("migrating");
    place.initialise(&["1"]);
    let mut ledger = place.open();
    ledger.look().unwrap();
    assert_eq!(ledger.migrating().unwrap(), [""; 0]);
    let key = 2_053_462_845_u64 * u64::from(crc32fast::hash(b"migrating"));
    for (env, sql) in [
        (&[][..], format!("select pg_advisory_lock({key})")),
        (&[("PGAPPNAME", "unstuck/ab12cd34")][..], "select 1".into()),
    ] {
        let mut psql = Command::new("psql");
        psql.args(["-XAtq", "-d", &place.conninfo()]).env_clear().env("PATH", std::env::var("PATH").unwrap());
        let mut session = psql.envs(env.iter().copied()).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut input = session.stdin.take().unwrap();
        std::io::Write::write_all(&mut input, format!("{sql};\n\\echo ready\n").as_bytes()).unwrap();
        let mut output = std::io::BufReader::new(session.stdout.take().unwrap());
        let mut line = String::new();
        while line.trim() != "ready" {
            line.clear();
            assert!(std::io::BufRead::read_line(&mut output, &mut line).unwrap() > 0, "psql ended");
        }
        let seen = ledger.migrating().unwrap();
        assert_eq!(seen.len(), 1, "{sql}: {seen:?}");
        drop(input);
        session.wait().unwrap();
        let until = Instant::now() + Duration::from_secs(20);
        while !ledger.migrating().unwrap().is_empty() {
            assert!(Instant::now() < until, "it is seen for ever");
        }
    }
}

#[test]
fn whoever_may_be_migrating_in_mariadb_is_seen() {
    let place = on_mariadb();
    place.initialise(&["1"]);
    place.sql("create table t (id integer primary key); insert into t values (1)");
    let mut ledger = place.open();
    ledger.look().unwrap();
    assert_eq!(ledger.migrating().unwrap(), [""; 0]);
    let key = 2_053_462_845_u64 * u64::from(crc32fast::hash(b"app"));
    let client = |sql: &str| {
        let mut client = Mariadb::client();
        client.args(["--host=127.0.0.1", "--user=ann", "--skip-ssl", "--comments", "app", "--execute", sql]);
        client.arg(format!("--port={}", place.config.port.unwrap())).env("MYSQL_PWD", Mariadb::PASSWORD);
        client.stdout(Stdio::null()).spawn().unwrap()
    };
    let mut reader = client("start transaction; select id, sleep(600) from t");
    let until = Instant::now() + Duration::from_secs(20);
    let wait_for = |ledger: &mut Ledger, wanted: usize, what: &str| {
        while ledger.migrating().unwrap().len() != wanted {
            assert!(Instant::now() < until, "{what}: {:?}", ledger.migrating());
        }
    };
    while place.sql("select count(*) from information_schema.processlist where info like 'select id%'") != "1" {
        assert!(Instant::now() < until, "the reader does not begin");
    }
    let mut locker = client(&format!("select get_lock('{key}', 0), sleep(600)"));
    wait_for(&mut ledger, 1, "Rails' lock");
    // It waits for the reader, whose table it changes.
    let mut alter = client("/* a tag */ alter table t add column a integer");
    wait_for(&mut ledger, 2, "a change of the schema");
    for session in [&mut reader, &mut locker, &mut alter] {
        session.kill().unwrap();
        session.wait().unwrap();
    }
    drop(place);
}

#[test]
fn what_cannot_be_written_to_is_known_by_looking() {
    let mut place = on_postgres("read_only");
    place.initialise(&["1"]);
    place.sql("create role reader login; grant select on all tables in schema public to reader");
    place.sql("alter role reader set default_transaction_read_only = on");
    place.config.username = Some("reader".into());
    assert!(place.open().look().unwrap().read_only);

    let place = on_mariadb();
    place.initialise(&["1"]);
    let mut ledger = place.open();
    assert!(!ledger.look().unwrap().read_only);
    place.sql("set global read_only = 1");
    assert!(ledger.look().unwrap().read_only);
    assert_eq!(ledger.write(&debt("a"), "x").unwrap_err().kind, SqlErrorKind::ReadOnly);
    place.sql("set global read_only = 0");
    ledger.write(&debt("a"), "x").unwrap();
}

impl Place {
    /// The same database through a pooler.
    fn pooled(&self, pooler: &PgBouncer) -> Self {
        let options = BTreeMap::from([("sslmode".into(), "disable".into())]);
        let config = Database {
            host: Some("127.0.0.1".into()),
            port: Some(pooler.port),
            password: Some(Secret::new(PgBouncer::PASSWORD)),
            options,
            ..self.config.clone()
        };
        Self { config, store: Store::Postgres }
    }
}

/// A session that leaves its transactions to whichever server connection is next.
fn session(place: &Place) -> Box<dyn Session> {
    let options = ConnectOptions { connect_timeout: Duration::from_secs(10), application_name: "test".into() };
    Box::new(adapters::postgres::connect(&place.config, &BTreeMap::new(), options).unwrap())
}

#[test]
fn looks_and_records_go_through_a_pooler_whose_connections_rotate() {
    let direct = on_postgres("pooled");
    direct.initialise(&["1"]);
    assert!(!direct.open().look().unwrap().pooled);
    let pooler = PgBouncer::in_front_of(server(), None);
    let place = direct.pooled(&pooler);

    // Two transactions at once open two connections, which take turns from then on.
    let (mut one, mut two) = (session(&place), session(&place));
    let deadline = Duration::from_secs(20);
    for sql in ["begin; select 1", "commit"] {
        one.run(sql, deadline).unwrap();
        two.run(sql, deadline).unwrap();
    }
    let mut pid = || one.run("select pg_backend_pid()", deadline).unwrap();
    assert_ne!(pid(), pid(), "the pooler rotates");

    let mut ledger = place.open();
    for round in ["one", "two", "three"] {
        let look = ledger.look().unwrap();
        assert!(look.pooled);
        assert_eq!((look.applied.len(), values(&look)), (1, vec![]));
        ledger.write(&debt("a"), round).unwrap();
        ledger.touch(&debt("a"), round).unwrap();
        ledger.write(&debt("b"), "gone").unwrap();
        ledger.erase(&debt("b")).unwrap();
        ledger.catalogue().unwrap();
        assert_eq!(ledger.migrating().unwrap(), [""; 0]);
        let look = ledger.look().unwrap();
        assert_eq!(values(&look), [round]);
        assert!(!ledger.settle(&settlement(&["2"], entries(&look), vec![])).unwrap());
        assert!(ledger.settle(&settlement(&["1"], entries(&look), vec![])).unwrap());
        assert_eq!(values(&direct.open().look().unwrap()), [""; 0]);
    }
    drop(two);
}

#[test]
fn a_lock_that_a_pooler_kept_is_named_with_its_session_and_the_way_out() {
    let place = on_postgres("orphaned");
    place.initialise(&["1"]);
    let pooler = PgBouncer::in_front_of(server(), None);
    let rails = 2_053_462_845_u64 * u64::from(crc32fast::hash(b"orphaned"));
    let mut client = session(&place.pooled(&pooler));
    let deadline = Duration::from_secs(20);
    let locks = format!("select pg_advisory_lock({rails}), pg_advisory_lock(1970172788, 1), pg_backend_pid()");
    let pid = client.run(&locks, deadline).unwrap()[0].get(0, 2).unwrap().to_owned();
    drop(client);

    let mut ledger = place.open();
    ledger.look().unwrap();
    let mut holders = || {
        let Lock::Held(who) = ledger.try_lock().unwrap() else { panic!("the lock is free") };
        [ledger.migrating().unwrap().concat(), who]
    };
    let named = [format!("session {pid} (test, local, since "), format!("`select pg_terminate_backend({pid})`")];
    let until = Instant::now() + Duration::from_mins(1);
    loop {
        let found = holders();
        assert!(found.iter().all(|who| who.starts_with(&named[0])), "{found:?}");
        if found.iter().all(|who| who.contains(", idle since ") && who.contains(&named[1])) {
            break;
        }
        assert!(Instant::now() < until, "{found:?}");
        thread::sleep(Duration::from_millis(100));
    }
    place.sql(&format!("select pg_terminate_backend({pid}, 10000)"));
    assert_eq!((ledger.migrating().unwrap(), ledger.try_lock().unwrap()), (vec![], Lock::Taken));
}

#[test]
fn a_mariadb_lock_is_named_whoever_holds_it_and_however_long() {
    let place = on_mariadb();
    place.initialise(&["1"]);
    place.sql(&format!("create user bob identified by '{}'; grant all on app.* to bob", Mariadb::PASSWORD));
    let rails = 2_053_462_845_u64 * u64::from(crc32fast::hash(b"app"));
    // With patience: the attempts below hold the lock themselves, each for a moment.
    let locks = format!("select get_lock('{rails}', 30), get_lock(concat('unstuck:', crc32(database())), 30)");
    let mut ledger = place.open();
    ledger.look().unwrap();
    for (user, wanted) in [("bob", "(of another user)"), ("ann", "` frees it")] {
        let mut client = Mariadb::client();
        client.args(["--host=127.0.0.1", "--skip-ssl", "--unbuffered", "app"]).env("MYSQL_PWD", Mariadb::PASSWORD);
        client.args([format!("--user={user}"), format!("--port={}", place.config.port.unwrap())]);
        let mut client = client.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        std::io::Write::write_all(client.stdin.as_mut().unwrap(), format!("{locks};\n").as_bytes()).unwrap();
        let until = Instant::now() + Duration::from_mins(1);
        loop {
            let mut found = ledger.migrating().unwrap();
            if let (1, Lock::Held(who)) = (found.len(), place.open().try_lock().unwrap()) {
                found.push(who);
            }
            if found.len() == 2 && found.iter().all(|who| who.starts_with("session ") && who.contains(wanted)) {
                break;
            }
            assert!(Instant::now() < until, "{user}: {found:?}");
            thread::sleep(Duration::from_millis(100));
        }
        drop(client.stdin.take());
        client.wait().unwrap();
    }
}

#[test]
fn the_epoch_is_the_servers_life() {
    for place in places("epoch") {
        place.initialise(&["1"]);
        let with_the_lock = || {
            let mut port = place.open();
            take_lock(&mut port).unwrap();
            port.look().unwrap().epoch
        };
        let (first, second) = (with_the_lock(), with_the_lock());
        assert!(first.same(&second.0), "{first:?} {second:?}");
        assert!(!first.0.is_empty());
        assert!(first.0.len() < 40, "it has to fit into the record: {first:?}");
    }
}
