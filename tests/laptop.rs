//! From a laptop: `unstuck migrate -a APP` in a one-off dyno, and what works with the API alone. The dynos are real processes;
//! the laptop is another directory, with another configuration and a database of its own.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what went wrong by failing there")]

#[path = "support/scene.rs"]
mod scene;

use std::fs;
use std::process::Command;
use std::time::Duration;

use scene::{Ran, Running, Scene, TOKEN};
use serde_json::json;
use tempfile::TempDir;
use unstuck_standin::{Access, Ailment, AilmentRule, Attach, Entry, Fact, Options, Reply, Rule};

/// The app on the platform, and a checkout of it on a laptop whose `config/database.yml` leads to a database of its own.
struct Laptop {
    scene: Scene,
    checkout: TempDir,
}

impl Laptop {
    fn new() -> Self {
        let mut scene = Scene::with_processes();
        let authority = scene.standin.authority().unwrap().display().to_string();
        scene.set("SSL_CERT_FILE", &authority).unset("DATABASE_URL").unset("UNSTUCK_APP");
        let checkout = TempDir::new().unwrap();
        fs::create_dir_all(checkout.path().join("config")).unwrap();
        let own = "development: {adapter: sqlite3, database: development.sqlite3}\n";
        fs::write(checkout.path().join("config/database.yml"), own).unwrap();
        std::os::unix::fs::symlink(scene.path(".unstuck.yml"), checkout.path().join(".unstuck.yml")).unwrap();
        Self { scene, checkout }
    }

    fn command(&self, args: &[&str]) -> Command {
        let app = ["--app", self.scene.standin.app()];
        let at = args.iter().position(|arg| *arg == "--").unwrap_or(args.len());
        let args: Vec<&str> = args[..at].iter().chain(&app).chain(&args[at..]).copied().collect();
        self.scene.command_on(self.checkout.path(), &args)
    }

    fn unstuck(&self, args: &[&str]) -> Ran {
        let ran = Ran::of(self.command(args).output().expect("unstuck starts"));
        assert!(!self.checkout.path().join("development.sqlite3").exists(), "the laptop's own database is left alone");
        ran
    }

    fn start(&self, args: &[&str]) -> Running {
        Running::start(self.command(args))
    }

    /// Waits for the end of each one-off dyno, which comes after that of its command.
    fn no_dyno_is_left(&self) {
        for id in self.scene.ids("run") {
            let ended = |entry: &Entry| matches!(&entry.fact, Fact::Ended { dyno, .. } if *dyno == id);
            self.scene.standin.wait_for(0, Duration::from_secs(20), ended).expect("it ends");
        }
    }

    fn fault(&self, method: &str, path: &str, reply: Reply) {
        self.scene.standin.fault(Rule {
            method: Some(method.into()),
            path: format!("/apps/{}{path}", self.scene.standin.app()),
            reply,
            ..Rule::default()
        });
    }

    /// No restart of the worker comes to anything.
    fn the_worker_stays(&self) {
        let stays = AilmentRule { dyno: "worker".into(), ailment: Ailment::IgnoresRestart, count: None };
        self.scene.standin.set_ailments(vec![stays]);
    }

    /// A migration that says that it has begun and waits until it may go on.
    fn slow_migration(&self) {
        self.scene.migration(
            2,
            "slow",
            "touch begun; until [ -e go ]; do sleep 0.02; done; sql 'create table slow (a)'",
        );
    }

    fn go(&self) {
        fs::write(self.scene.path("go"), "").unwrap();
    }
}

#[test]
fn a_dyno_migrates_and_the_laptop_sees_it() {
    let laptop = Laptop::new();
    laptop.scene.migration(1, "one", "sql 'create table one (a)'");
    let worker = laptop.scene.ids("worker");
    let ran = laptop.unstuck(&["migrate"]).code(0);
    assert!(ran.out.contains("== 1 migrating\n") && ran.out.contains("unstuck: proved: every worker"), "{ran:?}");
    assert_ne!(laptop.scene.ids("worker"), worker, "{ran:?}");
    assert_eq!((laptop.scene.ran(), laptop.scene.debts()), (vec!["1".to_owned()], vec![]));
    assert!(!ran.err.contains("HEROKU_API_KEY"), "the app has a key: {ran:?}");
    let again = laptop.unstuck(&["migrate", "--json"]).code(0);
    assert_eq!(again.json()["outcome"], "nothing_to_do");
    laptop.no_dyno_is_left();
}

#[test]
fn with_json_the_dynos_document_alone_is_on_standard_output() {
    let laptop = Laptop::new();
    laptop.scene.migration(1, "one", "echo '{\"outcome\": \"forged\"}'; sql 'create table one (a)'");
    let ran = laptop.unstuck(&["migrate", "--json"]).code(0);
    assert_eq!(ran.json()["outcome"], "migrated");
    assert_eq!(ran.json()["databases"], json!([{"name": "primary", "applied": ["1"], "pending": []}]));
    assert!(ran.err.contains("forged") && ran.err.contains("== 1 migrating"), "{ran:?}");
}

#[test]
fn the_exit_status_is_the_runs_own() {
    let laptop = Laptop::new();
    // Whoever does not know the mark cannot say it.
    let forged = "echo unstuck-00000000000000000000000000000000 0";
    laptop.scene.migration(1, "one", &format!("{forged}; sql 'create table one (a)'; {forged}; exit 1"));
    let ran = laptop.unstuck(&["migrate"]).code(3);
    assert_eq!(ran.out.matches("unstuck-000").count(), 2, "{ran:?}");
    assert_eq!(laptop.unstuck(&["migrate", "--dry-run", "--exit-code"]).code(6).err, "");

    laptop.the_worker_stays();
    laptop.scene.migration(1, "one", "sql 'create table two (a)'");
    let ran = laptop.unstuck(&["migrate", "--json", "--prove-timeout", "200ms"]).code(4);
    assert_eq!(ran.json()["restart"]["state"], "requested");
    laptop.scene.standin.set_ailments(Vec::new());
    laptop.unstuck(&["migrate", "--", "/nowhere/rails", "an argument's \"quotes\"; $HOME"]).code(0);
    laptop.scene.migration(2, "two", "sql 'create table three (a)'");
    let ran = laptop.unstuck(&["migrate", "--", "/nowhere/rails"]).code(5);
    assert!(ran.out.contains("/nowhere/rails does not exist"), "{ran:?}");
    laptop.unstuck(&["migrate", "--lock-timeout", "soon"]).code(2);
}

#[test]
fn a_kill_in_the_dyno_is_seen() {
    let laptop = Laptop::new();
    laptop.scene.migration(1, "one", "sql 'create table one (a)'");
    laptop.unstuck(&["migrate"]).code(0);
    laptop.scene.migration(2, "two", "kill -9 $PPID; sql 'create table two (a)'");
    laptop.unstuck(&["migrate"]).code(137);
    assert_eq!(laptop.scene.phases(), ["M"]);
}

#[test]
fn much_output_comes_whole() {
    let laptop = Laptop::new();
    laptop.scene.migration(1, "one", "seq -f 'line %06.0f of very many' 1 100000; sql 'create table one (a)'");
    let ran = laptop.unstuck(&["migrate"]).code(0);
    let lines: Vec<&str> = ran.out.lines().filter(|line| line.ends_with(" of very many")).collect();
    assert_eq!((lines.len(), lines[99_999]), (100_000, "line 100000 of very many"));
    assert!(lines.is_sorted());
}

#[test]
fn ctrl_c_reaches_the_migration_as_a_signal() {
    for signal in [libc::SIGINT, libc::SIGTERM] {
        let laptop = Laptop::new();
        laptop.scene.migration(
            1,
            "one",
            "sql 'create table one (a)'; trap 'touch heard; exit 1' INT; touch begun; sleep 60",
        );
        let worker = laptop.scene.ids("worker");
        let running = laptop.start(&["migrate", "--json"]);
        laptop.scene.wait_for_file("begun");
        running.signal(signal);
        let ran = running.end().code(128 + signal);
        assert!(laptop.scene.path("heard").exists(), "{ran:?}");
        assert_eq!(ran.json()["outcome"], "interrupted");
        assert_ne!(laptop.scene.ids("worker"), worker, "what had changed was restarted for: {ran:?}");
        assert_eq!(laptop.scene.debts().len(), 1, "nobody waited for the proof");
    }
}

#[test]
fn a_connection_that_is_cut_does_not_end_the_migration() {
    let laptop = Laptop::new();
    laptop.slow_migration();
    let running = laptop.start(&["migrate"]);
    laptop.scene.wait_for_file("begun");
    laptop.scene.standin.cut_attached();
    laptop.go();
    let ran = running.end().code(0);
    assert!(ran.err.contains("the connection to run."), "{ran:?}");
    assert!(ran.out.contains("ended with exit code 0, as the platform's log says"), "{ran:?}");
    assert_eq!((laptop.scene.ran(), laptop.scene.debts()), (vec!["2".to_owned()], vec![]));
}

#[test]
fn a_status_that_was_not_heard_is_read_in_the_log() {
    let laptop = Laptop::new();
    laptop.scene.migration(1, "one", "false");
    laptop.scene.standin.set_attach(Attach::CutAt("unstuck-".into()));
    let ran = laptop.unstuck(&["migrate"]).code(3);
    assert!(ran.err.contains("ended with exit code 3, as the platform's log says"), "{ran:?}");
    let ran = laptop.unstuck(&["migrate", "--json"]).code(3);
    assert!(ran.json()["error"]["message"].as_str().unwrap().contains("its report was lost"), "{ran:?}");
    assert_eq!(ran.json()["outcome"], json!(null));
}

#[test]
fn success_that_nobody_saw_is_never_reported() {
    let laptop = Laptop::new();
    laptop.scene.migration(1, "one", "sql 'create table one (a)'");
    laptop.scene.standin.set_attach(Attach::CutAt("unstuck-".into()));
    laptop.fault("POST", "/log-sessions", Reply::error(403, "forbidden"));
    let ran = laptop.unstuck(&["migrate"]).code(1);
    assert!(ran.err.contains("was not seen"), "{ran:?}");
    let ran = laptop.unstuck(&["migrate", "--in-dyno", "--database-from-app"]).code(1);
    assert!(ran.err.contains("the database says: 0 pending, no restart is owed"), "{ran:?}");

    laptop.the_worker_stays();
    laptop.scene.migration(2, "two", "sql 'create table two (a)'");
    let ran = laptop.unstuck(&["migrate", "--in-dyno", "--database-from-app", "--prove-timeout", "200ms"]).code(4);
    assert!(ran.err.contains("the database says: 0 pending, A RESTART IS STILL OWED"), "{ran:?}");
}

#[test]
fn ctrl_c_after_the_cut_stops_the_dyno() {
    let laptop = Laptop::new();
    laptop.slow_migration();
    let running = laptop.start(&["migrate"]);
    laptop.scene.wait_for_file("begun");
    let seq = laptop.scene.now();
    laptop.scene.standin.cut_attached();
    let listing = |entry: &Entry| matches!(&entry.fact, Fact::Request { path, method, .. } if method == "GET" && path.ends_with("/dynos"));
    laptop.scene.standin.wait_for(seq, Duration::from_secs(20), listing).expect("it is followed");
    running.signal(libc::SIGINT);
    let ran = running.end().code(143);
    assert!(ran.err.contains("is told to end (SIGTERM"), "{ran:?}");
    assert_eq!(laptop.scene.ran(), [""; 0]);
}

#[test]
fn a_dyno_that_cannot_be_had_is_refused_before_anything_runs() {
    let laptop = Laptop::new();
    laptop.scene.migration(1, "one", "sql 'create table one (a)'");
    for (status, id, code) in
        [(422, "cannot_run_more_than_1_dyno", 5), (403, "forbidden", 5), (409, "conflict", 5), (500, "internal", 1)]
    {
        laptop.fault("POST", "/dynos", Reply::error(status, id));
        let ran = laptop.unstuck(&["migrate", "--json"]).code(code);
        assert!(ran.err.contains(id), "{ran:?}");
        assert_eq!(ran.json()["outcome"], "refused");
        laptop.scene.standin.clear_faults();
    }
    laptop.scene.standin.set_access(Access::Revoked);
    let ran = laptop.unstuck(&["migrate"]).code(5);
    assert!(ran.err.contains("401 unauthorized"), "{ran:?}");
    laptop.scene.standin.set_access(Access::Full);
    assert_eq!(laptop.scene.ran(), [""; 0]);
    laptop.unstuck(&["migrate"]).code(0);
}

#[test]
fn a_dyno_that_cannot_be_attached_to_is_stopped() {
    let mut laptop = Laptop::new();
    laptop.scene.migration(1, "one", "sql 'create table one (a)'");
    for (attach, code, why) in [
        (Attach::Refused, 5, "cannot reach the rendezvous"),
        (Attach::Garbage("HTTP/1.1 400 Bad Request\r\n\r\n".into()), 1, "is no rendezvous"),
        (Attach::Garbage("\u{1b}]0;x\u{7}".repeat(40)), 1, "is no rendezvous"),
    ] {
        laptop.scene.standin.set_attach(attach);
        let ran = laptop.unstuck(&["migrate"]).code(code);
        assert!(ran.err.contains(why) && ran.err.contains("it is stopped"), "{ran:?}");
    }
    laptop.scene.standin.set_attach(Attach::Works);
    laptop.scene.unset("SSL_CERT_FILE");
    let ran = laptop.unstuck(&["migrate"]).code(5);
    assert!(ran.err.contains("signed by an authority that is not known here"), "{ran:?}");
    assert_eq!(laptop.scene.ran(), [""; 0]);
    laptop.no_dyno_is_left();
}

#[test]
fn an_app_without_a_key_is_lent_ours_and_told_so() {
    let mut laptop = Laptop::new();
    laptop.scene.migration(1, "one", "sql 'create table one (a)'");
    laptop.scene.standin.addon_release("Remove HEROKU_API_KEY", [("HEROKU_API_KEY".into(), String::new())].into());
    let ran = laptop.unstuck(&["migrate"]).code(0);
    assert!(ran.err.contains("is given yours (HEROKU_API_KEY)"), "{ran:?}");
    assert!(!laptop.scene.standin.log().iter().any(|line| line.contains(TOKEN)), "the command line is in the log");

    // Without the right to see the config vars nothing is lent, and the dyno says what it lacks.
    laptop.scene.migration(2, "two", "sql 'create table two (a)'");
    laptop.fault("GET", "/config-vars", Reply::error(403, "forbidden"));
    let ran = laptop.unstuck(&["migrate"]).code(5);
    assert!(ran.out.contains("no credentials"), "{ran:?}");
    laptop.scene.unset("HEROKU_API_KEY");
    laptop.unstuck(&["migrate"]).code(5);
}

#[test]
fn where_it_runs_is_decided_by_what_was_said() {
    let mut laptop = Laptop::new();
    fs::create_dir_all(laptop.checkout.path().join("db/migrate")).unwrap();
    // An app that is only known by the environment names nothing that has to be reached.
    let app = laptop.scene.standin.app().to_owned();
    laptop.scene.set("UNSTUCK_APP", &app);
    let seq = laptop.scene.now();
    Ran::of(laptop.scene.command_on(laptop.checkout.path(), &["migrate"]).output().unwrap()).code(0);
    laptop.command(&["migrate", "--here"]).output().map(Ran::of).unwrap().code(0);
    laptop.scene.set("DATABASE_URL", "sqlite3:named.sqlite3");
    laptop.unstuck(&["migrate"]).code(0);
    assert_eq!(laptop.scene.requests(seq), [""; 0], "all of them ran here, with nothing to do");
    laptop.unstuck(&["migrate", "--in-dyno"]).code(0);
    assert!(laptop.scene.writes(seq).is_empty() && !laptop.scene.requests(seq).is_empty());

    // A database of this machine is never that of an app on Heroku.
    laptop.scene.unset("HEROKU_HOST");
    let ran = laptop.unstuck(&["migrate"]).code(5);
    assert!(ran.err.contains("is on this machine, so it is not the app's"), "{ran:?}");
    laptop.unstuck(&["migrate", "--here", "--in-dyno"]).code(2);
}

#[test]
fn restart_and_status_work_with_the_api_alone() {
    let laptop = Laptop::new();
    laptop.scene.migration(1, "one", "sql 'create table one (a)'");
    fs::create_dir_all(laptop.checkout.path().join("db")).unwrap();
    std::os::unix::fs::symlink(laptop.scene.path("db/migrate"), laptop.checkout.path().join("db/migrate")).unwrap();

    let status = laptop.unstuck(&["status", "--json"]).code(0).json();
    assert_eq!((&status["databases"], &status["owed"]), (&json!([]), &json!(null)));
    assert_eq!(status["dynos"][0]["name"], "worker.1");
    let ran = laptop.unstuck(&["status"]).code(0);
    assert!(ran.out.contains("no database was looked at"), "{ran:?}");
    laptop.unstuck(&["status", "--exit-code"]).code(1);
    let status = laptop.unstuck(&["status", "--json", "--database-from-app", "--exit-code"]).code(6).json();
    assert_eq!(status["databases"][0]["pending"][0]["version"], "1");
    laptop.unstuck(&["migrate", "--dry-run", "--exit-code", "--database-from-app"]).code(6);

    laptop.the_worker_stays();
    laptop.unstuck(&["migrate", "--prove-timeout", "200ms"]).code(4);
    laptop.scene.standin.set_ailments(Vec::new());

    let ran = laptop.unstuck(&["restart"]).code(5);
    assert!(ran.err.contains("only the database can tell"), "{ran:?}");
    let worker = laptop.scene.ids("worker");
    let ran = laptop.unstuck(&["restart", "--all", "worker"]).code(0);
    assert_ne!(laptop.scene.ids("worker"), worker);
    assert!(ran.out.contains("every worker process began after this restart was asked for (1 replaced)"), "{ran:?}");
    assert!(ran.err.contains("no database was looked at"), "{ran:?}");
    assert_eq!(laptop.scene.debts().len(), 1, "the record cannot be reached");

    assert_eq!(laptop.unstuck(&["status", "--json", "--database-from-app"]).code(0).json()["verdict"], "owed");
    laptop.unstuck(&["restart", "--database-from-app"]).code(0);
    assert_eq!(laptop.scene.debts(), [""; 0]);
    assert_eq!(laptop.unstuck(&["status", "--json", "--database-from-app"]).code(0).json()["verdict"], "clean");
}

#[test]
fn an_app_of_the_other_kind_is_no_different_from_here() {
    // What only names the app, in a scene with a database of its own, runs where it always did.
    let scene = Scene::with(Options::default());
    scene.migration(1, "one", "sql 'create table one (a)'");
    let app = scene.standin.app().to_owned();
    scene.unstuck(&["migrate", "--app", &app]).code(0);
    assert!(!scene.requests(0).iter().any(|request| request.starts_with("POST") && request.ends_with("/dynos")));
    scene.kept();
}
