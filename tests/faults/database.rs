//! Faults of the databases. Where PostgreSQL and MariaDB can both have one, the row checks it on both.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::json;
use unstuck_standin::{Ailment, AilmentRule, Options, Reserved};

use crate::Fault;
use crate::mariadb::{Mariadb, MariadbOptions};
use crate::postgres::{PgBouncer, Postgres, PostgresOptions};
use crate::proxy::{Act, Proxy, When};
use crate::scene::secrets::PLAIN as PASSWORD;
use crate::scene::{Ran, Scene};
use crate::servers::Server;

pub const FAULTS: &[Fault] = &[
    Fault {
        what: "a database that nobody serves",
        injected: "a port that nobody listens on; a server that resets each connection, or is silent",
        exit: "1; nothing starts, no API request",
        record: "–",
        next_run: "as if nothing had happened",
        check: || on_both("f_gone", unreachable),
    },
    Fault {
        what: "TLS that cannot be had",
        injected: "a URL that asks for TLS, a server without it",
        exit: "1; nothing starts",
        record: "–",
        next_run: "as if nothing had happened",
        check: || on_both("f_plain", no_tls),
    },
    Fault {
        what: "a password that is not accepted",
        injected: "a role with another password",
        exit: "1; the password is not shown",
        record: "–",
        next_run: "as if nothing had happened",
        check: || on_both("f_denied", wrong_password),
    },
    Fault {
        what: "the connection is lost before the record is written",
        injected: "a proxy that resets the connection instead of passing the statement on",
        exit: "0; the record is written on a new connection",
        record: "–",
        next_run: "nothing to do",
        check: || on_both("f_before", lost_before_the_record),
    },
    Fault {
        what: "the connection is lost before the record is written, for good",
        injected: "the statement is held, the role locked out, the connection reset",
        exit: "1; the migration is not started",
        record: "–",
        next_run: "as if nothing had happened",
        check: || on_both("f_never", lost_for_good_before_the_record),
    },
    Fault {
        what: "the record is written, and the answer is lost",
        injected: "a proxy that throws the answer away and resets the connection",
        exit: "0; a new connection finds the row",
        record: "–",
        next_run: "nothing to do",
        check: || on_both("f_reply", reply_lost),
    },
    Fault {
        what: "a statement of ours is cut in the middle, whichever",
        injected: "a run for each message to the server, which is lost, or its answer",
        exit: "0, or 1 before anything started",
        record: "–",
        next_run: "nothing to do",
        check: || on_both("f_middle", cut_anywhere),
    },
    Fault {
        what: "the connection is lost during the migration, and back",
        injected: "a proxy that resets all connections, and refuses new ones until the migration has ended",
        exit: "0",
        record: "–",
        next_run: "nothing to do",
        check: || on_both("f_back", lost_during_the_migration),
    },
    Fault {
        what: "the database is gone for good during the migration",
        injected: "the role locked out and the connection reset while the migration runs",
        exit: "4; what was applied is said to be unknown, the restart to be owed",
        record: "migrating",
        next_run: "restarts, clears the record",
        check: || on_both("f_forgood", gone_for_good),
    },
    Fault {
        what: "a fail-over to a server that does not have the record",
        injected: "a second server with a copy made before the run; the proxy leads there during the migration",
        exit: "4 while the restart does not happen; the record is written again",
        record: "due",
        next_run: "restarts, clears the record",
        check: fail_over,
    },
    Fault {
        what: "a database that is read-only",
        injected: "`default_transaction_read_only`; a role that may only read",
        exit: "0 with nothing pending, else 5; nothing starts",
        record: "–",
        next_run: "as if nothing had happened",
        check: read_only,
    },
    Fault {
        what: "a follower instead of the primary",
        injected: "a streaming replica of the server",
        exit: "0 with nothing pending, else 5; nothing starts",
        record: "–",
        next_run: "works with the primary",
        check: follower,
    },
    Fault {
        what: "a fresh database, with a structure.sql",
        injected: "no table at all, `db/structure.sql` there",
        exit: "0; looking makes no table",
        record: "–, the table of our own is gone",
        next_run: "nothing to do",
        check: || on_both("f_fresh", fresh),
    },
    Fault {
        what: "one of Rails' tables is missing",
        injected: "`ar_internal_metadata` dropped; then `schema_migrations`",
        exit: "0; what is pending is run",
        record: "–",
        next_run: "nothing to do",
        check: || on_both("f_missing", missing_table),
    },
    Fault {
        what: "no metadata table, a prefix and a suffix, a schema of its own",
        injected: "`use_metadata_table: false`, odd table names, `schema_search_path`",
        exit: "0",
        record: "–",
        next_run: "nothing to do",
        check: odd_names,
    },
    Fault {
        what: "a disk that is full when the record is written",
        injected: "ENOSPC from the kernel (SQLite); the server's own error from a trigger",
        exit: "1; the migration is not started",
        record: "–",
        next_run: "as if nothing had happened",
        check: disk_full,
    },
    Fault {
        what: "a server that refuses the record",
        injected: "a trigger that raises an error",
        exit: "5; the migration is not started",
        record: "–",
        next_run: "as if nothing had happened",
        check: || on_both("f_refuses", record_refused),
    },
    Fault {
        what: "SQLite: the file is locked",
        injected: "another process in an exclusive transaction",
        exit: "waits for it, 0",
        record: "–",
        next_run: "nothing to do",
        check: sqlite_locked,
    },
    Fault {
        what: "SQLite: a journal that a killed writer left",
        injected: "SIGKILL in a transaction, with a rollback journal and with a write-ahead log",
        exit: "0; what was not committed does not count",
        record: "–",
        next_run: "nothing to do",
        check: sqlite_journal,
    },
    Fault {
        what: "SQLite on a dyno",
        injected: "`DYNO`",
        exit: "0, with a warning that the file is this dyno's alone",
        record: "–",
        next_run: "nothing to do",
        check: sqlite_on_a_dyno,
    },
    Fault {
        what: "a pooler in transaction mode",
        injected: "PgBouncer",
        exit: "5, the variable with the direct URL is named; looking works",
        record: "–",
        next_run: "works with the direct URL",
        check: pooler,
    },
    Fault {
        what: "a database that was copied to another app",
        injected: "a row of that app",
        exit: "0; its debt is not ours",
        record: "its row stays",
        next_run: "nothing to do",
        check: copied_database,
    },
    Fault {
        what: "a record of a newer unstuck",
        injected: "a row with a higher version number",
        exit: "5",
        record: "the row stays",
        next_run: "5, until unstuck is updated",
        check: newer_record,
    },
    Fault {
        what: "a record that cannot be read",
        injected: "a row with rubbish",
        exit: "4; the way out is named",
        record: "the row stays",
        next_run: "the same, until `--assume-dead` names it",
        check: unreadable_record,
    },
    Fault {
        what: "ten thousand versions, some with leading zeros, some no numbers",
        injected: "SQL",
        exit: "0; versions are compared as Rails does",
        record: "–",
        next_run: "nothing to do",
        check: || on_both("f_many", many_versions),
    },
];

static POSTGRES: Mutex<Option<Arc<Postgres>>> = Mutex::new(None);
static MARIADB: Mutex<Option<Arc<Mariadb>>> = Mutex::new(None);

/// One server of each kind for all rows, started by the first that needs it. Over TCP, both want a password.
fn postgres() -> Arc<Postgres> {
    Arc::clone(POSTGRES.lock().unwrap().get_or_insert_with(|| Arc::new(start_postgres())))
}

fn start_postgres() -> Postgres {
    let hba = &["local replication postgres trust", "host all all 127.0.0.1/32 scram-sha-256"];
    Postgres::start(&PostgresOptions { hba, ..PostgresOptions::default() })
}

fn mariadb() -> Arc<Mariadb> {
    Arc::clone(MARIADB.lock().unwrap().get_or_insert_with(|| {
        let (sender, receiver) = channel();
        // The kernel ends the server with the thread that started it, and this one must not end before the last row.
        thread::spawn(move || {
            let _ = sender.send(Arc::new(Mariadb::start(MariadbOptions::default())));
            loop {
                thread::park();
            }
        });
        receiver.recv().expect("a MariaDB server")
    }))
}

/// Ends the servers, and removes their folders.
pub fn stop_servers() {
    drop(POSTGRES.lock().unwrap().take());
    drop(MARIADB.lock().unwrap().take());
}

#[derive(Clone, Copy, PartialEq)]
enum Engine {
    Postgresql,
    Mysql,
}

/// A scene on a database of its own, which `unstuck` reaches through a proxy, as a role of the database's name. The scripted
/// Rails goes straight there, as another.
struct Place {
    scene: Scene,
    proxy: Proxy,
    engine: Engine,
    name: &'static str,
}

impl Place {
    fn on(engine: Engine, name: &'static str) -> Self {
        match engine {
            Engine::Postgresql => Self::at(&*postgres(), engine, name),
            Engine::Mysql => Self::at(&*mariadb(), engine, name),
        }
    }

    fn at(server: &impl Server, engine: Engine, name: &'static str) -> Self {
        let store = server.store(name);
        let proxy = Proxy::to(server.port());
        let scheme = store.url.split_once(':').unwrap().0.to_owned();
        let mut scene = Scene::on(&store, Options::default());
        scene.set("DATABASE_URL", &format!("{scheme}://{name}:{PASSWORD}@127.0.0.1:{}/{name}", proxy.port));
        let place = Self { scene, proxy, engine, name };
        server.administer(name, &place.make_role());
        place
    }

    fn make_role(&self) -> String {
        let name = self.name;
        match self.engine {
            Engine::Postgresql => format!("create role {name} login superuser password '{PASSWORD}'"),
            Engine::Mysql => format!("create user {name} identified by '{PASSWORD}'; grant all on {name}.* to {name}"),
        }
    }

    /// Runs SQL as the server's administrator.
    fn administer(&self, sql: &str) -> String {
        match self.engine {
            Engine::Postgresql => postgres().administer(self.name, sql),
            Engine::Mysql => mariadb().administer(self.name, sql),
        }
    }

    /// From now on, or no more, `unstuck` may not log in.
    fn lock_out(&self, out: bool) {
        let name = self.name;
        self.administer(&match (self.engine, out) {
            (Engine::Postgresql, true) => format!("alter role {name} nologin"),
            (Engine::Postgresql, false) => format!("alter role {name} login"),
            (Engine::Mysql, true) => format!("alter user {name} account lock"),
            (Engine::Mysql, false) => format!("alter user {name} account unlock"),
        });
    }

    /// Something pending, after something that was settled.
    fn pending(&self) -> &Self {
        self.scene.settled().migration(2, "two", "sql 'create table two (a int)'");
        self
    }

    /// Runs `migrate` with this URL instead, which can do nothing at all.
    fn cannot_tell(&mut self, url: &str) -> Ran {
        let good = self.scene.env["DATABASE_URL"].clone();
        let seq = self.scene.now();
        self.scene.set("DATABASE_URL", url);
        let ran = self.scene.unstuck(&["migrate", "--json"]).code(1);
        assert_eq!(ran.json()["error"]["kind"], "database", "{ran:?}");
        assert!(!format!("{ran:?}").contains(PASSWORD), "{ran:?}");
        assert_eq!((self.scene.ran(), self.scene.requests(seq)), (vec!["1".to_owned()], vec![]));
        self.scene.set("DATABASE_URL", &good);
        ran
    }
}

fn on_both(name: &'static str, check: fn(&mut Place)) {
    check(&mut Place::on(Engine::Postgresql, name));
    check(&mut Place::on(Engine::Mysql, name));
}

/// A run that nothing disturbs: what was pending is applied once, nothing is owed, no old web process is left; and one more,
/// which has nothing to ask the API.
fn undisturbed(scene: &Scene, old: &[String]) {
    scene.unstuck(&["migrate", "--json"]).code(0);
    all_is_well(scene, old);
}

fn all_is_well(scene: &Scene, old: &[String]) {
    assert_eq!((scene.ran(), scene.debts()), (vec!["1".to_owned(), "2".to_owned()], vec![]));
    assert!(scene.ids("web").iter().all(|id| !old.contains(id)), "an old process is left");
    let seq = scene.now();
    assert_eq!(scene.unstuck(&["migrate", "--json"]).code(0).json()["outcome"], "nothing_to_do");
    assert_eq!(scene.requests(seq), [""; 0]);
}

fn unreachable(place: &mut Place) {
    place.pending();
    let old = place.scene.ids("web");
    let good = place.scene.env["DATABASE_URL"].clone();
    let nobody = Reserved::new().unwrap();
    place.cannot_tell(&good.replace(&format!(":{}/", place.proxy.port), &format!(":{}/", nobody.port)));
    place.proxy.refuse();
    place.cannot_tell(&good);
    place.proxy.stall();
    let limit = if place.engine == Engine::Postgresql { "connect_timeout=2" } else { "connect_timeout=1" };
    place.cannot_tell(&format!("{good}?{limit}"));
    place.proxy.pass();
    undisturbed(&place.scene, &old);
}

fn no_tls(place: &mut Place) {
    place.pending();
    let mode = if place.engine == Engine::Postgresql { "sslmode=require" } else { "ssl_mode=required" };
    let ran = place.cannot_tell(&format!("{}?{mode}", place.scene.env["DATABASE_URL"]));
    assert!(ran.err.contains("TLS") && ran.json()["error"]["hint"].is_string(), "{ran:?}");
}

fn wrong_password(place: &mut Place) {
    place.pending();
    let good = place.scene.env["DATABASE_URL"].clone();
    let ran = place.cannot_tell(&good.replace(PASSWORD, &format!("{PASSWORD}-of-yesterday")));
    assert!(ran.json()["error"]["hint"].as_str().unwrap().contains("password"), "{ran:?}");
    place.scene.unstuck(&["status", "--json"]).code(0);
}

fn lost_before_the_record(place: &mut Place) {
    place.pending();
    let old = place.scene.ids("web");
    let trap = place.proxy.on(When::Says("insert into"), Act::Reset);
    place.scene.unstuck(&["migrate"]).code(0);
    assert!(trap.has_sprung());
    all_is_well(&place.scene, &old);
}

fn lost_for_good_before_the_record(place: &mut Place) {
    place.pending();
    let old = place.scene.ids("web");
    let trap = place.proxy.on(When::Says("insert into"), Act::Hold);
    let run = place.scene.start(&["migrate", "--json"]);
    trap.sprung();
    place.lock_out(true);
    place.proxy.cut();
    let ran = run.end().code(1);
    assert_eq!(ran.json()["error"]["kind"], "database", "{ran:?}");
    assert_eq!((place.scene.ran(), place.scene.debts()), (vec!["1".to_owned()], vec![]));
    assert_eq!(place.scene.ids("web"), old);
    place.lock_out(false);
    undisturbed(&place.scene, &old);
}

fn reply_lost(place: &mut Place) {
    place.pending();
    let old = place.scene.ids("web");
    let trap = place.proxy.on(When::Says("insert into"), Act::Mute);
    let run = place.scene.start(&["migrate", "--json"]);
    trap.sprung();
    wait_until(|| !place.scene.debts().is_empty());
    trap.release();
    assert_eq!(run.end().code(0).json()["restart"]["state"], "proved");
    all_is_well(&place.scene, &old);
}

/// Each message is lost on one engine, and its answer on the other: the suite of the `Database` port has every combination.
fn cut_anywhere(place: &mut Place) {
    let Place { scene, proxy, engine, .. } = place;
    scene.settled();
    let act = if *engine == Engine::Postgresql { Act::Cut(0) } else { Act::Reset };
    for message in 1.. {
        let version = u64::try_from(message).unwrap() + 1;
        scene.migration(version, "next", &format!("sql 'create table t{version} (a int)'"));
        let old = scene.ids("web");
        let trap = proxy.on(When::Message(message), act);
        let ran = scene.unstuck(&["migrate", "--json"]);
        if ran.code == Some(1) {
            assert_eq!(scene.ran().len(), message, "{act:?} of message {message}: {ran:?}");
            scene.unstuck(&["migrate"]).code(0);
        } else {
            assert_eq!(ran.code, Some(0), "{act:?} of message {message}: {ran:?}");
        }
        assert_eq!(scene.debts(), [""; 0], "{act:?} of message {message}");
        assert_eq!(scene.ran().len(), message + 1, "each migration runs once: {act:?} of message {message}");
        assert!(scene.ids("web").iter().all(|id| !old.contains(id)), "{act:?} of message {message}");
        fs::remove_file(scene.path(&format!("db/migrate/{version}_next.rb"))).unwrap();
        if !trap.has_sprung() {
            assert!(message > 10, "a run has more than {message} messages");
            return;
        }
    }
}

/// A migration that says that it has begun, and waits for the file `go`.
const PATIENT: &str = "touch booted; while [ ! -e go ]; do sleep 0.02; done; sql 'create table two (a int)'";

fn lost_during_the_migration(place: &mut Place) {
    let Place { scene, proxy, .. } = place;
    scene.settled().migration(2, "two", PATIENT);
    let old = scene.ids("web");
    let run = scene.start(&["migrate", "--json"]);
    scene.wait_for_file("booted");
    proxy.refuse();
    fs::write(scene.path("go"), "").unwrap();
    wait_until(|| scene.ran().len() == 2);
    proxy.pass();
    assert_eq!(run.end().code(0).json()["restart"]["state"], "proved");
    all_is_well(scene, &old);
}

fn gone_for_good(place: &mut Place) {
    place.scene.settled().migration(2, "two", PATIENT);
    place.scene.set("UNSTUCK_PROVE_TIMEOUT", "1s");
    let old = place.scene.ids("web");
    let run = place.scene.start(&["migrate", "--json"]);
    place.scene.wait_for_file("booted");
    place.lock_out(true);
    place.proxy.cut();
    fs::write(place.scene.path("go"), "").unwrap();
    let ran = run.end().code(4);
    assert_eq!(ran.json()["restart"]["state"], "owed", "{ran:?}");
    assert!(ran.err.contains("unknown    2 Two"), "{ran:?}");
    assert!(place.scene.debts()[0].contains(r#""ph":"M""#), "{:?}", place.scene.debts());
    place.lock_out(false);
    undisturbed(&place.scene, &old);
}

fn fail_over() {
    fail_over_between(&start_postgres(), &start_postgres(), Engine::Postgresql);
    let start = || Mariadb::start(MariadbOptions::default());
    fail_over_between(&start(), &start(), Engine::Mysql);
}

fn fail_over_between<S: Server>(first: &S, second: &S, engine: Engine) {
    let mut place = Place::at(first, engine, "f_failover");
    place.scene.settled().migration(2, "two", PATIENT);
    place.scene.set("UNSTUCK_PROVE_TIMEOUT", "1s");
    let old = place.scene.ids("web");
    let copy = first.dump(place.name);
    let run = place.scene.start(&["migrate", "--json"]);
    place.scene.wait_for_file("booted");
    assert_eq!(place.scene.debts().len(), 1);
    place.scene.talk_to(&second.store(place.name));
    second.restore(place.name, &copy);
    second.administer(place.name, &place.make_role());
    assert_eq!(place.scene.debts(), [""; 0], "it is not in the copy");
    place.scene.standin.set_ailments(vec![AilmentRule {
        dyno: "web.2".into(),
        ailment: Ailment::IgnoresRestart,
        count: None,
    }]);
    place.proxy.lead_to(second.port());
    place.proxy.cut();
    fs::write(place.scene.path("go"), "").unwrap();
    run.end().code(4);
    assert!(place.scene.debts()[0].contains(r#""ph":"D""#), "{:?}", place.scene.debts());
    place.scene.standin.set_ailments(Vec::new());
    undisturbed(&place.scene, &old);
}

fn read_only() {
    let postgresql = Place::on(Engine::Postgresql, "f_readonly");
    refuses(&postgresql, "alter database f_readonly set default_transaction_read_only = on", "is read-only");
    postgresql.administer("begin read write; alter database f_readonly reset default_transaction_read_only; commit");
    undisturbed(&postgresql.scene, &[]);

    let reader = Place::on(Engine::Postgresql, "f_reader");
    refuses(
        &reader,
        "alter role f_reader nosuperuser; grant select on all tables in schema public to f_reader",
        "permission denied",
    );
    reader.administer("alter role f_reader superuser");
    undisturbed(&reader.scene, &[]);

    let mysql = Place::on(Engine::Mysql, "f_reader");
    refuses(&mysql, "revoke all on f_reader.* from f_reader; grant select on f_reader.* to f_reader", "denied");
    mysql.administer("grant all on f_reader.* to f_reader");
    undisturbed(&mysql.scene, &[]);
}

fn follower() {
    let place = Place::on(Engine::Postgresql, "f_follower");
    place.scene.settled();
    let follower = postgres().follower();
    place.proxy.lead_to(follower.port);
    refuses_what_is_pending(&place, "is read-only");
    place.proxy.lead_to(postgres().port);
    undisturbed(&place.scene, &[]);
}

fn refuses(place: &Place, sql: &str, why: &str) {
    place.scene.settled();
    place.administer(sql);
    refuses_what_is_pending(place, why);
}

/// With nothing pending all is well; what is pending is not started.
fn refuses_what_is_pending(place: &Place, why: &str) {
    assert_eq!(place.scene.unstuck(&["migrate", "--json"]).code(0).json()["outcome"], "nothing_to_do");
    place.scene.migration(2, "two", "sql 'create table two (a int)'");
    let ran = place.scene.unstuck(&["migrate", "--json"]).code(5);
    assert!(ran.err.contains(why), "{ran:?}");
    assert_eq!((place.scene.ran(), place.scene.debts()), (vec!["1".to_owned()], vec![]));
}

fn fresh(place: &mut Place) {
    let scene = &place.scene;
    fs::write(scene.path("db/structure.sql"), "create table one (a int);\n").unwrap();
    scene.migration(1, "one", "sql 'create table one (a int)'").migration(2, "two", "sql 'create table two (a int)'");
    let old = scene.ids("web");
    let ours = |name| {
        format!(
            "select count(*) from information_schema.tables where table_name = '{name}' and table_schema in ('public', '{}')",
            place.name
        )
    };
    assert_eq!(scene.unstuck(&["status", "--json"]).code(0).json()["verdict"], "pending");
    assert_eq!(scene.sql(&ours("schema_migrations")), "0", "looking makes no table");
    let report = scene.unstuck(&["migrate", "--json"]).code(0).json();
    assert_eq!((&report["outcome"], &report["restart"]["state"]), (&json!("migrated"), &json!("proved")));
    assert_eq!(scene.sql(&ours("unstuck_debt")), "0", "it would show in a dump");
    all_is_well(scene, &old);
    assert_eq!(scene.unstuck(&["status", "--json"]).code(0).json()["verdict"], "clean");
}

fn missing_table(place: &mut Place) {
    let scene = &place.scene;
    scene.settled();
    let old = scene.ids("web");
    place.administer("drop table ar_internal_metadata");
    scene.migration(2, "two", "sql 'create table two (a int)'");
    undisturbed(scene, &old);
    place.administer("drop table schema_migrations; drop table first; drop table two");
    let old = scene.ids("web");
    scene.unstuck(&["migrate"]).code(0);
    assert_eq!((scene.ran(), scene.debts()), (["1", "2", "1", "2"].map(str::to_owned).to_vec(), vec![]));
    assert!(scene.ids("web").iter().all(|id| !old.contains(id)), "an old process is left");
}

fn odd_names() {
    for (engine, schema, path) in [
        (Engine::Postgresql, "\"odd path\".", "\n  schema_search_path: '\"odd path\", public'"),
        (Engine::Mysql, "", ""),
    ] {
        let place = Place::on(engine, "f_odd");
        let scene = &place.scene;
        if engine == Engine::Postgresql {
            place.administer("create schema \"odd path\"");
        }
        let table = format!("{schema}my_schema_migrations_x");
        fs::create_dir(scene.path("config")).unwrap();
        fs::write(scene.path("config/database.yml"), format!("development:\n  use_metadata_table: false{path}\n"))
            .unwrap();
        fs::write(
            scene.path(".unstuck.yml"),
            "databases:\n  primary:\n    schema_migrations_table: my_schema_migrations_x\n",
        )
        .unwrap();
        fs::write(scene.path("db/tables.sql"), format!("create table if not exists {table} (version varchar(255))"))
            .unwrap();
        let rails = fs::read_to_string(scene.path("bin/rails")).unwrap();
        let escaped = table.replace('"', "\\\"");
        fs::write(scene.path("bin/rails"), rails.replace("schema_migrations", &escaped)).unwrap();
        scene.migration(1, "one", "sql 'create table one (a int)'").migration(
            2,
            "two",
            "sql 'create table two (a int)'",
        );
        let old = scene.ids("web");
        scene.unstuck(&["migrate"]).code(0);
        assert_eq!(scene.sql(&format!("select count(*) from {table}")), "2");
        let key = if engine == Engine::Postgresql { "key" } else { "`key`" };
        let debts = format!("select count(*) from {schema}unstuck_debt where {key} like 'unstuck:debt:%'");
        assert_eq!(scene.sql(&debts), "0");
        assert!(scene.ids("web").iter().all(|id| !old.contains(id)), "an old process is left");
        let seq = scene.now();
        assert_eq!(scene.unstuck(&["migrate", "--json"]).code(0).json()["outcome"], "nothing_to_do");
        assert_eq!((scene.requests(seq), scene.ran().len()), (vec![], 2));
    }
}

fn disk_full() {
    let scene = Scene::new();
    scene.settled().migration(2, "two", "sql 'create table two (a int)'");
    let old = scene.ids("web");
    let run = scene.command(&["migrate", "--json"]);
    let mut strace = Command::new("strace");
    strace.args(["-qq", "-e", "trace=write,pwrite64", "-e", "inject=write,pwrite64:error=ENOSPC", "-o"]);
    strace.arg(scene.path("strace")).arg("-P").arg(scene.path("db.sqlite3"));
    strace.arg("-P").arg(scene.path("db.sqlite3-journal")).arg(run.get_program()).args(run.get_args());
    strace.current_dir(scene.root.path()).env_clear().envs(&scene.env).stdin(Stdio::null());
    is_full(&scene, &Ran::of(strace.output().expect("strace")), "full");
    undisturbed(&scene, &old);

    for (engine, trigger) in [
        (
            Engine::Postgresql,
            "create function full_disk() returns trigger language plpgsql as $$ begin raise 'could not extend file: No space \
             left on device' using errcode = '53100'; end $$; create trigger full_disk before insert on ar_internal_metadata \
             for each row execute function full_disk()",
        ),
        (
            Engine::Mysql,
            "create trigger full_disk before insert on ar_internal_metadata for each row signal sqlstate 'HY000' set \
             mysql_errno = 1114, message_text = 'The table is full: No space left on device'",
        ),
    ] {
        let place = Place::on(engine, "f_full");
        place.pending();
        let old = place.scene.ids("web");
        place.administer(trigger);
        is_full(&place.scene, &place.scene.unstuck(&["migrate", "--json"]), "No space left");
        let on = if engine == Engine::Postgresql { " on ar_internal_metadata" } else { "" };
        place.administer(&format!("drop trigger full_disk{on}"));
        undisturbed(&place.scene, &old);
    }
}

fn is_full(scene: &Scene, ran: &Ran, why: &str) {
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.err.contains(why) && ran.json()["error"]["hint"].as_str().unwrap().contains("room"), "{ran:?}");
    assert_eq!((scene.ran(), scene.debts()), (vec!["1".to_owned()], vec![]));
}

fn record_refused(place: &mut Place) {
    place.pending();
    let old = place.scene.ids("web");
    place.administer(match place.engine {
        Engine::Postgresql => {
            "create function never() returns trigger language plpgsql as $$ begin raise 'not here'; end $$; create trigger \
             never before insert on ar_internal_metadata for each row execute function never()"
        }
        Engine::Mysql => {
            "create trigger never before insert on ar_internal_metadata for each row signal sqlstate '45000' set message_text \
             = 'not here'"
        }
    });
    let ran = place.scene.unstuck(&["migrate", "--json"]).code(5);
    assert!(ran.err.contains("not here"), "{ran:?}");
    assert_eq!((place.scene.ran(), place.scene.debts()), (vec!["1".to_owned()], vec![]));
    let on = if place.engine == Engine::Postgresql { " on ar_internal_metadata" } else { "" };
    place.administer(&format!("drop trigger never{on}"));
    undisturbed(&place.scene, &old);
}

/// A session of SQLite's own client that has done this, and waits.
fn sqlite_client(scene: &Scene, sql: &str) -> Child {
    let mut client = Command::new("sqlite3");
    client.arg(scene.path("db.sqlite3")).current_dir(scene.root.path()).stdin(Stdio::piped()).stdout(Stdio::null());
    let mut client = client.spawn().expect("sqlite3");
    write!(client.stdin.as_mut().unwrap(), "{sql};\n.shell touch done\n").unwrap();
    scene.wait_for_file("done");
    fs::remove_file(scene.path("done")).unwrap();
    client
}

fn sqlite_locked() {
    let scene = Scene::new();
    scene.settled().migration(2, "two", "sql 'create table two (a int)'");
    let old = scene.ids("web");
    let mut holder = sqlite_client(&scene, "begin exclusive");
    let run = scene.start(&["migrate"]);
    let fds = format!("/proc/{}/fd", run.pid());
    let file = scene.path("db.sqlite3").canonicalize().unwrap();
    let is_file = |path: &Path| fs::read_link(path).is_ok_and(|target| target == file);
    wait_until(|| fs::read_dir(&fds).unwrap().flatten().any(|fd| is_file(&fd.path())));
    assert_eq!(scene.ran(), ["1"]);
    drop(holder.stdin.take());
    holder.wait().unwrap();
    run.end().code(0);
    all_is_well(&scene, &old);
}

fn sqlite_journal() {
    for mode in ["delete", "wal"] {
        let scene = Scene::new();
        scene.settled().migration(2, "two", "sql 'create table two (a int)'");
        let old = scene.ids("web");
        let mut writer = sqlite_client(
            &scene,
            &format!(
                "pragma journal_mode = {mode}; pragma cache_size = 1; create table if not exists bulk (b); begin; insert \
                 into schema_migrations values ('2'); with recursive n (i) as (select 1 union all select i + 1 from n where \
                 i < 100) insert into bulk select randomblob(1000) from n"
            ),
        );
        writer.kill().unwrap();
        writer.wait().unwrap();
        let left = if mode == "wal" { "db.sqlite3-wal" } else { "db.sqlite3-journal" };
        assert!(fs::metadata(scene.path(left)).unwrap().len() > 0, "{left} is hot");
        assert_eq!(scene.unstuck(&["status", "--json"]).code(0).json()["databases"][0]["pending"][0]["version"], "2");
        undisturbed(&scene, &old);
    }
}

fn sqlite_on_a_dyno() {
    let mut scene = Scene::new();
    scene.settled().migration(2, "two", "sql 'create table two (a int)'");
    let old = scene.ids("web");
    scene.set("DYNO", "run.1").set("RAILS_ENV", "development");
    let ran = scene.unstuck(&["migrate"]).code(0);
    assert!(ran.err.contains("the file is this dyno's alone"), "{ran:?}");
    all_is_well(&scene, &old);
}

fn pooler() {
    let mut place = Place::on(Engine::Postgresql, "f_pooled");
    place.scene.settled();
    let scene = &mut place.scene;
    let old = scene.ids("web");
    let direct = scene.env["DATABASE_URL"].clone();
    let pooler = PgBouncer::in_front_of(&postgres(), None);
    scene.set(
        "DATABASE_URL",
        &format!("postgres://postgres:{}@127.0.0.1:{}/f_pooled", PgBouncer::PASSWORD, pooler.port),
    );
    assert_eq!(scene.unstuck(&["status", "--json"]).code(0).json()["verdict"], "clean");
    assert_eq!(scene.unstuck(&["migrate", "--json"]).code(0).json()["outcome"], "nothing_to_do");
    scene.migration(2, "two", "sql 'create table two (a int)'");
    assert_eq!(scene.unstuck(&["status", "--json"]).code(0).json()["verdict"], "pending");
    let seq = scene.now();
    let ran = scene.unstuck(&["migrate", "--json"]).code(5);
    assert!(ran.err.contains("pooler") && ran.json()["error"]["hint"].as_str().unwrap().contains("direct"), "{ran:?}");
    scene.set("HEROKU_POSTGRESQL_AMBER_URL", &direct.replace("//f_pooled:", "//postgres:"));
    let ran = scene.unstuck(&["migrate", "--json"]).code(5);
    let hint = ran.json()["error"]["hint"].as_str().unwrap().to_owned();
    assert!(hint.contains("HEROKU_POSTGRESQL_AMBER_URL") && !format!("{ran:?}").contains(PASSWORD), "{ran:?}");
    assert_eq!((scene.ran(), scene.requests(seq)), (vec!["1".to_owned()], vec![]));
    scene.set("DATABASE_URL", &direct);
    undisturbed(scene, &old);
}

fn copied_database() {
    let scene = Scene::new();
    scene.settled();
    let note = r#"{"v":1,"ph":"D","ep":"-","from":"00000000","n":1,"tag":"01234567","by":"other"}"#;
    plant(&scene, "00000000-0000-0000-0000-000000000000", note);
    let before = scene.ids("web");
    let seq = scene.now();
    assert_eq!(scene.unstuck(&["status", "--json"]).code(0).json()["verdict"], "clean");
    assert_eq!(scene.unstuck(&["migrate", "--json"]).code(0).json()["outcome"], "nothing_to_do");
    assert_eq!((scene.ids("web"), scene.writes(seq)), (before, vec![]));
    assert_eq!(scene.debts(), [note], "it stays");
}

fn plant(scene: &Scene, app: &str, value: &str) {
    let key = format!("unstuck:debt:{app}:0123456789abcdef");
    scene.sql(&format!("insert into ar_internal_metadata values ('{key}', '{value}', datetime(), datetime())"));
}

fn newer_record() {
    let scene = Scene::new();
    scene.settled();
    let note = r#"{"v":2,"what":"ever"}"#;
    plant(&scene, scene.standin.app_id(), note);
    for _ in 0..2 {
        scene.unstuck(&["migrate", "--json"]).code(5);
        assert_eq!(scene.debts(), [note]);
    }
}

fn unreadable_record() {
    let scene = Scene::new();
    scene.settled();
    plant(&scene, scene.standin.app_id(), "rubbish");
    let ran = scene.unstuck(&["migrate", "--json"]).code(4);
    assert!(ran.err.contains("--assume-dead 0123456789abcdef"), "{ran:?}");
    assert_eq!(scene.debts(), ["rubbish"]);
    scene.unstuck(&["restart", "--assume-dead", "0123456789abcdef"]).code(0);
    assert_eq!(scene.debts(), [""; 0]);
}

fn many_versions(place: &mut Place) {
    place.pending();
    let old = place.scene.ids("web");
    let numbers = match place.engine {
        Engine::Postgresql => "lpad(n::text, 14, '0') from generate_series(1000, 10999) n",
        Engine::Mysql => "lpad(seq, 14, '0') from seq_1000_to_10999",
    };
    place.administer(&format!(
        "insert into schema_migrations select {numbers}; insert into schema_migrations values ('007'), ('abc'), ('12x')"
    ));
    let files = [(7, "with_zeros"), (12, "with_a_letter"), (10_999, "with_many_zeros")];
    for (version, name) in files {
        place.scene.migration(version, name, "false");
    }
    let status = place.scene.unstuck(&["status", "--json"]).code(0).json();
    let pending = &status["databases"][0]["pending"];
    assert_eq!((&pending[0]["version"], &pending[1]), (&json!("2"), &json!(null)), "{pending}");
    assert_eq!(status["databases"][0]["applied_count"], 10_004);
    // The scripted Rails compares texts.
    for (version, name) in files {
        fs::remove_file(place.scene.path(&format!("db/migrate/{version}_{name}.rb"))).unwrap();
    }
    undisturbed(&place.scene, &old);
}

/// Asks until it is so.
fn wait_until(is_so: impl Fn() -> bool) {
    for _ in 0..2_000 {
        if is_so() {
            return;
        }
        thread::sleep(std::time::Duration::from_millis(10));
    }
    panic!("it did not happen within 20 s");
}
