//! Faults of several runs at once, on one machine and on two, and of whoever else changes the database or ends a release.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use unstuck_standin::{Ailment, AilmentRule, Deploy, Entry, Fact, Options, Reply, Rule, Status};

use crate::Fault;
use crate::mariadb::{Mariadb, MariadbOptions};
use crate::postgres::{Postgres, PostgresOptions};
use crate::scene::{Ran, Running, Scene, Store, TOKEN};
use crate::servers::{Server, crc32};

pub const FAULTS: &[Fault] = &[
    Fault {
        what: "two runs at once on one machine",
        injected: "both are started on SQLite",
        exit: "both 0: one migrates, the other finds it done; one restart in all",
        record: "–",
        next_run: "has nothing to do",
        check: || at_once(&pending(), 2),
    },
    Fault {
        what: "two runs at once on two machines",
        injected: "both are started on one PostgreSQL server, from two homes",
        exit: "both 0: one migrates, the other finds it done; one restart in all",
        record: "–",
        next_run: "has nothing to do",
        check: on_two_machines,
    },
    Fault {
        what: "twenty runs at once",
        injected: "all are started on SQLite",
        exit: "0 (or 9, had it taken too long): one migrates, one restart in all",
        record: "–",
        next_run: "has nothing to do",
        check: || at_once(&pending(), 20),
    },
    Fault {
        what: "the platform runs one command twice",
        injected: "two runs with the same `DYNO` in one release phase",
        exit: "both 0: one migrates, one restart in all",
        record: "–",
        next_run: "has nothing to do",
        check: one_dyno_twice,
    },
    Fault {
        what: "a run starts while another one settles",
        injected: "a stale dyno list holds the first one up, until the second one waits",
        exit: "both 0; one restart in all",
        record: "–",
        next_run: "has nothing to do",
        check: while_another_settles,
    },
    Fault {
        what: "a migration by hand between two runs",
        injected: "a version row",
        exit: "`status`: 7, owed",
        record: "– (the versions differ from those of the last proof)",
        next_run: "settles",
        check: by_hand_between,
    },
    Fault {
        what: "a migration by hand while a run settles",
        injected: "a version row, while a stale dyno list holds the run up",
        exit: "0: the restart is carried out again",
        record: "–",
        next_run: "has nothing to do",
        check: by_hand_while_settling,
    },
    Fault {
        what: "somebody holds Rails' migration lock for ever, before the migration",
        injected: "a session, on PostgreSQL and on MariaDB",
        exit: "9, naming the session; nothing ran",
        record: "–",
        next_run: "migrates once the session is gone",
        check: || on_both_servers(held_before),
    },
    Fault {
        what: "somebody takes Rails' migration lock for ever, during the migration",
        injected: "a session, on PostgreSQL and on MariaDB",
        exit: "4, naming the session; no restart was asked for",
        record: "`M`",
        next_run: "settles once the session is gone",
        check: || on_both_servers(held_after),
    },
    Fault {
        what: "two apps on one database",
        injected: "a run of the first app is killed after its migration; the second app runs",
        exit: "the second one: 0, with a restart of its own",
        record: "`M` of the first app",
        next_run: "of the first app: settles",
        check: two_apps,
    },
    Fault {
        what: "the release succeeds, restarted by the API",
        injected: "the release phase with policy `api`",
        exit: "0; restarted at once, `up` not waited for",
        record: "–",
        next_run: "has nothing to do",
        check: release_by_api,
    },
    Fault {
        what: "the release cannot prove its restart",
        injected: "dynos that ignore it; the release's number is not known",
        exit: "0 with a loud warning",
        record: "`D`",
        next_run: "settles",
        check: release_unproved,
    },
    Fault {
        what: "the release cannot prove its restart, and goes on to replace every dyno",
        injected: "dynos that ignore it; the release succeeds after `restart --wait` began",
        exit: "0; `restart --wait`: 0 without a restart",
        record: "`W`",
        next_run: "has nothing to do",
        check: release_carries_what_it_could_not_prove,
    },
    Fault {
        what: "the migration fails after a change in the release phase",
        injected: "the second of two migrations fails, policy `handoff`",
        exit: "3; restarted at once, since the platform will not",
        record: "–",
        next_run: "tries again",
        check: release_command_fails,
    },
    Fault {
        what: "a handed-off restart, the release is pending",
        injected: "policy `handoff`; the release is not finished",
        exit: "0, handed off; said on every run; `restart`: 4 after waiting, no restart of the old code",
        record: "`W`",
        next_run: "`restart --wait`: 0 once it has succeeded",
        check: release_pending,
    },
    Fault {
        what: "a handed-off restart, the release succeeds",
        injected: "policy `handoff`, no credentials in the release",
        exit: "0, handed off",
        record: "`W`",
        next_run: "`restart`: 0, no restart",
        check: || release_ends(Some(Status::Succeeded), 0),
    },
    Fault {
        what: "a handed-off restart, the release fails",
        injected: "policy `handoff`, then a later command of the release fails",
        exit: "0, handed off",
        record: "`W`",
        next_run: "`restart`: 0, one restart",
        check: || release_ends(Some(Status::Failed), 1),
    },
    Fault {
        what: "a handed-off restart, the release expires",
        injected: "policy `handoff`, then the release's hour is over",
        exit: "0, handed off",
        record: "`W`",
        next_run: "`restart`: 0, one restart",
        check: || release_ends(Some(Status::Expired), 1),
    },
    Fault {
        what: "a handed-off restart, the release is forgotten",
        injected: "the record names a release that the platform does not know",
        exit: "–",
        record: "`W`",
        next_run: "`restart`: 0, one restart",
        check: || release_ends(None, 1),
    },
    Fault {
        what: "the release is cancelled during the migration",
        injected: "SIGTERM to every process of the release dyno, policy `handoff`; then the release fails",
        exit: "143; the restart is asked for",
        record: "`D`",
        next_run: "settles",
        check: release_cancelled,
    },
];

const TWO: &str = "sql 'create table two (a int)'";

/// A settled app with one pending migration.
fn pending() -> Scene {
    pending_on(Scene::new())
}

fn pending_on(scene: Scene) -> Scene {
    scene.settled().migration(2, "two", TWO);
    scene
}

fn at_once(scene: &Scene, count: usize) {
    let seq = scene.now();
    let runs = (0..count).map(|_| scene.start(&["migrate", "--json"])).collect();
    one_migrates(scene, seq, runs);
}

/// One of the runs migrates, the others find it done or give up waiting; one restart is enough for all.
fn one_migrates(scene: &Scene, seq: u64, runs: Vec<Running>) {
    let ran: Vec<Ran> = runs.into_iter().map(Running::end).collect();
    let count = |outcome: &str, codes: &[i32]| {
        let fits = |ran: &&Ran| ran.json()["outcome"] == outcome && codes.contains(&ran.code.unwrap());
        ran.iter().filter(fits).count()
    };
    assert_eq!(count("migrated", &[0]), 1, "{ran:?}");
    assert_eq!(count("nothing_to_do", &[0]) + count("busy", &[9]), ran.len() - 1, "{ran:?}");
    assert_eq!(scene.writes(seq).len(), 1, "one restart in all");
    scene.kept();
    assert_eq!(scene.restored().json()["outcome"], "nothing_to_do");
    assert_eq!(scene.ran(), ["1", "2"]);
}

fn on_two_machines() {
    let server = Postgres::start(&PostgresOptions::default());
    let scene = pending_on(Scene::on(&server.store("shared"), Options::default()));
    let second = scene.elsewhere();
    let seq = scene.now();
    let runs = vec![scene.start(&["migrate", "--json"]), scene.start_on(second.path(), &["migrate", "--json"])];
    one_migrates(&scene, seq, runs);
}

fn one_dyno_twice() {
    let mut scene = pending();
    scene.in_release(Some(9)).set("UNSTUCK_RESTART_POLICY", "api");
    at_once(&scene, 2);
}

/// From now on, and until the rules are cleared, the platform shows the dynos that there are now.
fn stale_list(scene: &Scene) {
    let reply = Reply::Stale(None);
    scene.standin.fault(Rule { method: Some("GET".into()), path: "*/dynos".into(), reply, ..Rule::default() });
}

fn while_another_settles() {
    let scene = pending();
    stale_list(&scene);
    let seq = scene.now();
    let first = scene.start(&["migrate", "--json"]);
    wait_for(&scene, seq, "DELETE", "formations/web");
    let seq_second = scene.now();
    let second = scene.start(&["migrate", "--json"]);
    // It has found its way to the lock once it has asked for the releases.
    wait_for(&scene, seq_second, "GET", "releases");
    scene.standin.clear_faults();
    one_migrates(&scene, seq, vec![first, second]);
}

fn by_hand_between() {
    let scene = Scene::new();
    scene.settled();
    scene.sql("insert into schema_migrations values ('7')");
    let status = scene.unstuck(&["status", "--json", "--exit-code"]).code(7).json();
    assert_eq!((&status["verdict"], &status["databases"][0]["without_file"]), (&json!("owed"), &json!(["7"])));
    let seq = scene.now();
    assert_eq!(scene.restored().json()["outcome"], "settled");
    assert_eq!(scene.writes(seq).len(), 1);
    assert_eq!(scene.unstuck(&["status", "--json"]).code(0).json()["verdict"], "clean");
}

fn by_hand_while_settling() {
    let scene = pending();
    stale_list(&scene);
    let seq = scene.now();
    let run = scene.start(&["migrate", "--json"]);
    wait_for(&scene, seq, "DELETE", "formations/web");
    scene.sql("insert into schema_migrations values ('7')");
    scene.standin.clear_faults();
    let ran = run.end().code(0);
    assert!(ran.err.contains("the applied versions changed meanwhile"), "{ran:?}");
    assert_eq!(scene.writes(seq).len(), 2);
    scene.kept();
    assert_eq!(scene.restored().json()["outcome"], "nothing_to_do");
}

/// A session that holds Rails' lock until it is ended.
struct Holder<'a> {
    scene: &'a Scene,
    words: &'a Words,
    client: Child,
    session: String,
}

/// How a server is told to hold the lock of `KEY` for ever, who does so, and how session `ID` is ended.
struct Words {
    hold: &'static str,
    holder: &'static str,
    end: &'static str,
}

const POSTGRESQL: Words = Words {
    hold: "select pg_advisory_lock(2053462845 * KEY::bigint), pg_sleep(600)",
    holder: "select pid from pg_stat_activity where query like '%pg_sleep(600)%' and pid <> pg_backend_pid()",
    end: "select pg_terminate_backend(ID)",
};

const MARIADB: Words = Words {
    hold: "select get_lock(concat(2053462845 * KEY), 0), sleep(600)",
    holder: "select id from information_schema.processlist where info like '%sleep(600)%' and id <> connection_id()",
    end: "kill ID",
};

impl<'a> Holder<'a> {
    fn of(scene: &'a Scene, words: &'a Words) -> Self {
        let database = scene.env["DATABASE_URL"].rsplit('/').next().unwrap();
        let hold = words.hold.replace("KEY", &crc32(database.as_bytes()).to_string());
        let mut command = Command::new(scene.path("bin/sql"));
        let client = command.arg(hold).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let mut session = String::new();
        while session.is_empty() {
            session = scene.sql(words.holder);
        }
        Self { scene, words, client, session }
    }

    fn end(mut self) {
        self.scene.sql(&self.words.end.replace("ID", &self.session));
        self.client.wait().unwrap();
    }
}

fn on_both_servers(check: fn(&mut Scene, &Words)) {
    let server = Postgres::start(&PostgresOptions::default());
    check(&mut Scene::on(&server.store("held"), Options::default()), &POSTGRESQL);
    let server = Mariadb::start(MariadbOptions::default());
    check(&mut Scene::on(&server.store("held"), Options::default()), &MARIADB);
}

fn held_before(scene: &mut Scene, words: &Words) {
    scene.settled().migration(2, "two", TWO);
    scene.set("UNSTUCK_LOCK_TIMEOUT", "200ms");
    let holder = Holder::of(scene, words);
    let busy = scene.unstuck(&["migrate", "--json"]).code(9).json();
    let message = busy["error"]["message"].as_str().unwrap();
    assert!(message.contains(&format!("a migration is running: session {} ", holder.session)), "{busy}");
    assert_eq!((scene.ran().len(), scene.debts()), (1, vec![]));
    holder.end();
    scene.set("UNSTUCK_LOCK_TIMEOUT", "20s");
    assert_eq!(scene.restored().json()["outcome"], "migrated");
}

fn held_after(scene: &mut Scene, words: &Words) {
    scene.settled().migration(2, "two", &format!("{TWO}; touch booted; while [ ! -e go ]; do sleep 0.02; done"));
    scene.set("UNSTUCK_PROVE_TIMEOUT", "300ms");
    let seq = scene.now();
    let run = scene.start(&["migrate", "--json"]);
    scene.wait_for_file("booted");
    let holder = Holder::of(scene, words);
    fs::write(scene.path("go"), "").unwrap();
    let ran = run.end().code(4);
    assert!(ran.err.contains(&format!("a migration may still be running: session {} ", holder.session)), "{ran:?}");
    assert_eq!(scene.writes(seq), [""; 0]);
    assert_eq!(scene.phases(), ["M"]);
    holder.end();
    scene.set("UNSTUCK_PROVE_TIMEOUT", "5s");
    assert_eq!(scene.restored().json()["outcome"], "settled");
}

fn two_apps() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("db.sqlite3");
    let store = Store {
        url: format!("sqlite3:{}", file.display()),
        client: format!("sqlite3 -cmd '.timeout 10000' {}", file.display()),
        key: "key",
        moment: "datetime(6)",
    };
    let [first, second] = [(); 2].map(|()| Scene::on(&store, Options::default()));
    first.settled().migration(2, "two", TWO);
    second.migration(1, "first", "true").migration(2, "two", TWO);
    second.unstuck(&["restart", "--all"]).code(0);
    first.start(&["migrate", "--", "sh", "-c", "bin/rails db:migrate; kill -9 $PPID"]).end().killed();
    let (ours, theirs) = (first.now(), second.now());
    assert_eq!(second.unstuck(&["migrate", "--json"]).code(0).json()["outcome"], "settled");
    assert_eq!((first.writes(ours).len(), second.writes(theirs).len()), (0, 1));
    assert_eq!(first.phases(), ["M"], "the first app's restart is not the second one's to pay");
    assert_eq!(first.restored().json()["outcome"], "settled");
    assert_eq!((first.writes(ours).len(), second.writes(theirs).len()), (1, 1));
}

/// Inside the release phase of a new release that stays pending; answers its number.
fn release(scene: &mut Scene, policy: &str) -> u64 {
    let deploy = Deploy { release_command: Some("held".into()), ..Deploy::default() };
    let version = scene.standin.deploy(deploy).unwrap();
    scene.in_release(Some(version)).set("UNSTUCK_RESTART_POLICY", policy);
    version
}

/// What `unstuck` is told of the release phase is gone: a later run, elsewhere.
fn leave_release(scene: &mut Scene) {
    scene.unset("DYNO").unset("HEROKU_RELEASE_VERSION").unset("UNSTUCK_RESTART_POLICY").set("HEROKU_API_KEY", TOKEN);
}

fn ignore_restarts(scene: &Scene) {
    scene.standin.set_ailments(vec![AilmentRule { dyno: "web".into(), ailment: Ailment::IgnoresRestart, count: None }]);
}

fn release_by_api() {
    let mut scene = pending();
    release(&mut scene, "api");
    let report = scene.unstuck(&["migrate", "--json"]).code(0).json();
    assert_eq!((&report["restart"]["state"], &report["release_phase"]), (&json!("proved"), &json!(true)));
    assert_eq!(report["restart"]["healthy"], Value::Null, "the release does not wait for the processes to be up");
    scene.kept();
    leave_release(&mut scene);
    assert_eq!(scene.restored().json()["outcome"], "nothing_to_do");
}

fn release_unproved() {
    let mut scene = pending();
    scene.in_release(None).set("UNSTUCK_PROVE_TIMEOUT", "300ms");
    ignore_restarts(&scene);
    let ran = scene.unstuck(&["migrate", "--json"]).code(0);
    assert!(ran.err.contains("A RESTART IS STILL OWED"), "{ran:?}");
    assert_eq!(scene.phases(), ["D"]);
    scene.standin.set_ailments(Vec::new());
    leave_release(&mut scene);
    assert_eq!(scene.restored().json()["outcome"], "settled");
}

fn release_carries_what_it_could_not_prove() {
    let mut scene = pending();
    let version = release(&mut scene, "api");
    scene.set("UNSTUCK_PROVE_TIMEOUT", "300ms");
    ignore_restarts(&scene);
    scene.unstuck(&["migrate"]).code(0);
    assert_eq!(scene.phases(), ["W"]);
    scene.standin.set_ailments(Vec::new());
    leave_release(&mut scene);
    scene.set("UNSTUCK_PROVE_TIMEOUT", "5s");
    let seq = scene.now();
    let waiting = scene.start(&["restart", "--wait", "--json"]);
    wait_for(&scene, seq, "GET", "releases");
    scene.standin.finish_release(version, Status::Succeeded);
    assert_eq!(waiting.end().code(0).json()["restart"]["requests"], 0);
    assert_eq!(scene.writes(seq), [""; 0]);
    scene.kept();
    assert_eq!(scene.restored().json()["outcome"], "nothing_to_do");
}

fn release_command_fails() {
    let mut scene = pending();
    scene.migration(3, "three", "false");
    release(&mut scene, "handoff");
    let report = scene.unstuck(&["migrate", "--json"]).code(3).json();
    assert_eq!(report["restart"]["state"], "proved");
    scene.kept();
    leave_release(&mut scene);
    scene.migration(3, "three", "sql 'create table three (a int)'");
    assert_eq!(scene.restored().json()["outcome"], "migrated");
}

fn release_pending() {
    let mut scene = pending();
    let version = hand_off(&mut scene);
    scene.set("UNSTUCK_PROVE_TIMEOUT", "300ms");
    let seq = scene.now();
    let ran = scene.unstuck(&["restart"]).code(4);
    assert!(ran.err.contains(&format!("release v{version} is still pending")), "{ran:?}");
    assert_eq!(scene.writes(seq), [""; 0]);
    scene.set("UNSTUCK_PROVE_TIMEOUT", "5s");
    let seq = scene.now();
    let waiting = scene.start(&["restart", "--wait"]);
    wait_for(&scene, seq, "GET", "releases");
    scene.standin.finish_release(version, Status::Succeeded);
    waiting.end().code(0);
    scene.kept();
    assert_eq!(scene.restored().json()["outcome"], "nothing_to_do");
}

/// A release phase without credentials, up to its end; answers the release's number.
fn hand_off(scene: &mut Scene) -> u64 {
    let version = release(scene, "handoff");
    scene.unset("HEROKU_API_KEY");
    let ran = scene.unstuck(&["migrate", "--json"]).code(0);
    assert_eq!(ran.json()["restart"]["state"], "handed_off", "{ran:?}");
    assert_eq!(scene.phases(), ["W"]);
    assert_eq!(scene.unstuck(&["migrate"]).code(0).out.lines().count(), 1, "said on every run");
    leave_release(scene);
    version
}

fn release_ends(status: Option<Status>, restarts: usize) {
    let mut scene = pending();
    let version = hand_off(&mut scene);
    if let Some(status) = status {
        scene.standin.finish_release(version, status);
        assert!(scene.standin.wait_until_up(Duration::from_secs(10)));
    } else {
        let path = format!("*/releases/{version}");
        scene.standin.fault(Rule { path, reply: Reply::error(404, "not_found"), ..Rule::default() });
    }
    let seq = scene.now();
    let report = scene.unstuck(&["restart", "--json"]).code(0).json();
    assert_eq!(report["restart"]["state"], "proved", "{report}");
    assert_eq!(scene.writes(seq).len(), restarts);
    scene.kept();
    assert_eq!(scene.restored().json()["outcome"], "nothing_to_do");
}

fn release_cancelled() {
    let mut scene = Scene::new();
    scene.settled().migration(
        2,
        "two",
        &format!("trap 'exit 1' TERM; {TWO}; touch booted; while true; do sleep 0.02; done"),
    );
    let version = release(&mut scene, "handoff");
    let run = scene.start(&["migrate", "--json"]);
    scene.wait_for_file("booted");
    let seq = scene.now();
    run.signal_all(libc::SIGTERM);
    assert_eq!(run.end().code(128 + libc::SIGTERM).json()["outcome"], "interrupted");
    assert_eq!(scene.writes(seq).len(), 1);
    assert_eq!(scene.phases(), ["D"]);
    scene.standin.finish_release(version, Status::Failed);
    leave_release(&mut scene);
    scene.migration(2, "two", "true");
    assert_eq!(scene.restored().json()["outcome"], "migrated");
}

fn wait_for(scene: &Scene, seq: u64, wanted: &str, end: &str) {
    let asks = |entry: &Entry| matches!(&entry.fact, Fact::Request { method, path, .. } if method == wanted && path.ends_with(end));
    assert!(scene.standin.wait_for(seq, Duration::from_secs(20), asks).is_some(), "no {wanted} of {end} within 20 s");
}
