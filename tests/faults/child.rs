//! Faults of the migration command.

use std::fs;
use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, Stdio};

use serde_json::json;
use unstuck_standin::Options;

use crate::Fault;
use crate::mariadb::{Mariadb, MariadbOptions};
use crate::postgres::{Postgres, PostgresOptions};
use crate::scene::Scene;
use crate::servers::Server as _;

pub const FAULTS: &[Fault] = &[
    Fault {
        what: "nothing goes wrong",
        injected: "one migration",
        exit: "0",
        record: "–",
        next_run: "sends nothing to the API",
        check: nothing_goes_wrong,
    },
    Fault {
        what: "the first migration fails and nothing changed",
        injected: "a migration that is rolled back and ends with an error",
        exit: "3; no restart",
        record: "–",
        next_run: "tries again",
        check: nothing_changed,
    },
    Fault {
        what: "the command fails before the first migration",
        injected: "a command that ends with an error at once",
        exit: "3; no restart",
        record: "–",
        next_run: "migrates",
        check: fails_before,
    },
    Fault {
        what: "the second of three migrations fails",
        injected: "a migration that ends with an error, between two good ones",
        exit: "3; restart proved",
        record: "–",
        next_run: "tries the second one again",
        check: second_of_three_fails,
    },
    Fault {
        what: "the command fails after the last migration",
        injected: "a command that ends with an error when everything is applied",
        exit: "3; restart proved",
        record: "–",
        next_run: "has nothing to do",
        check: fails_after,
    },
    Fault {
        what: "a change is left half-applied, without a version",
        injected: "DDL, then an error (SQLite; MariaDB, which cannot roll it back)",
        exit: "3; restart proved",
        record: "–",
        next_run: "tries again",
        check: half_applied,
    },
    Fault {
        what: "the command ends well and leaves something pending",
        injected: "a command that runs one of two migrations, or none",
        exit: "3, still pending; restart proved where something changed",
        record: "–",
        next_run: "migrates the rest",
        check: left_pending,
    },
    Fault {
        what: "the command is killed after a change",
        injected: "SIGSEGV and SIGKILL in a migration; exit code 137",
        exit: "3; restart proved",
        record: "–",
        next_run: "tries again",
        check: killed,
    },
    Fault {
        what: "the command is killed while its statement runs on in the server",
        injected: "SIGKILL of the client of a slow `DO` block that ends with DDL (PostgreSQL)",
        exit: "3; restart proved, after the statement's end",
        record: "–",
        next_run: "tries again",
        check: statement_outlives_its_client,
    },
    Fault {
        what: "the command never ends",
        injected: "a migration that sleeps, and `--migrate-timeout`",
        exit: "3; restart proved. Meanwhile another run: 9",
        record: "–",
        next_run: "tries again",
        check: never_ends,
    },
    Fault {
        what: "the command never ends and ignores SIGTERM",
        injected: "SIGTERM to a run whose migration has a trap for it",
        exit: "143, after 25 s and SIGKILL to the group",
        record: "D",
        next_run: "settles",
        check: ignores_sigterm,
    },
    Fault {
        what: "the command leaves a daemon behind that keeps everything open",
        injected: "a migration that forks, with the descriptors that it inherited",
        exit: "4, after 20 s: it may go on migrating",
        record: "M",
        next_run: "9, naming the process, while it lives; then settles",
        check: leaves_a_daemon,
    },
    Fault {
        what: "the command replaces itself, or hides behind a shell",
        injected: "`exec` in the command; a shell that stays around it",
        exit: "0",
        record: "–",
        next_run: "has nothing to do",
        check: wrapped,
    },
    Fault {
        what: "the command cannot be executed",
        injected: "`bin/rails` missing, a folder, not executable, without its interpreter; exit codes 126 and 127 when nothing changed",
        exit: "5; no migration, no restart",
        record: "–",
        next_run: "migrates",
        check: cannot_be_executed,
    },
    Fault {
        what: "the command ends as if it could not be executed, but it was",
        injected: "exit code 127 after a migration",
        exit: "3; restart proved",
        record: "–",
        next_run: "tries again",
        check: executed_all_the_same,
    },
    Fault {
        what: "the command prints a gigabyte without a line break",
        injected: "a migration that does so, within 512 MB of address space; nobody reads, everybody reads",
        exit: "0; every byte is passed on",
        record: "–",
        next_run: "has nothing to do",
        check: prints_a_gigabyte,
    },
    Fault {
        what: "the command reverts a migration",
        injected: "a command that takes a version away, with its file and without it",
        exit: "3 where that leaves it pending, else 0; restart proved",
        record: "–",
        next_run: "migrates what is pending",
        check: reverts,
    },
    Fault {
        what: "the command migrates two databases",
        injected: "pending migrations in both; pending in one, and a change in the other",
        exit: "0; restart proved",
        record: "one row in each database with something pending, then –",
        next_run: "has nothing to do",
        check: two_databases,
    },
];

/// A migration that changes something.
const CHANGE: &str = "sql 'create table two (a int)'";

fn nothing_goes_wrong() {
    let scene = Scene::new();
    scene.settled().migration(2, "two", CHANGE);
    let seq = scene.now();
    scene.unstuck(&["migrate"]).code(0);
    assert_eq!(scene.writes(seq).len(), 1);
    scene.kept();
    let seq = scene.now();
    scene.unstuck(&["migrate"]).code(0);
    assert_eq!(scene.requests(seq), [""; 0]);
    assert_eq!(scene.ran(), ["1", "2"]);
}

fn nothing_changed() {
    let scene = Scene::new();
    scene.settled().migration(2, "broken", "bin/sql 'begin; create table two (a int); rollback'; return 1");
    let (seq, before) = (scene.now(), scene.ids("web"));
    let report = scene.unstuck(&["migrate", "--json"]).code(3).json();
    assert_eq!((&report["restart"]["state"], &report["restart"]["requests"]), (&json!("not_needed"), &json!(0)));
    assert_eq!((scene.writes(seq), scene.ids("web")), (vec![], before));
    assert_eq!(scene.debts(), [""; 0]);
    scene.migration(2, "broken", CHANGE);
    scene.restored();
    assert_eq!(scene.ran(), ["1", "2"]);
}

fn fails_before() {
    let scene = Scene::new();
    scene.settled().migration(2, "two", CHANGE);
    let seq = scene.now();
    scene.unstuck(&["migrate", "--", "false"]).code(3);
    assert_eq!((scene.writes(seq), scene.debts()), (vec![], vec![]));
    scene.restored();
    assert_eq!(scene.ran(), ["1", "2"]);
}

fn second_of_three_fails() {
    let scene = Scene::new();
    scene.settled().migration(2, "two", CHANGE);
    scene.migration(3, "three", "echo 'it broke' >&2; false");
    scene.migration(4, "four", "true");
    let ran = scene.unstuck(&["migrate"]).code(3);
    for line in ["applied    2 Two", "failed     3 Three", "remaining  4 Four"] {
        assert!(ran.out.contains(line), "{line} in {ran:?}");
    }
    scene.kept();
    let seq = scene.now();
    let report = scene.unstuck(&["migrate", "--json"]).code(3).json();
    assert_eq!(report["outcome"], "migration_failed");
    assert_eq!(report["databases"][0]["pending"], json!(["3", "4"]));
    assert_eq!(scene.writes(seq), [""; 0], "nothing changed the second time");
    scene.migration(3, "three", "true");
    scene.restored();
    assert_eq!(scene.ran(), ["1", "2", "3", "4"]);
}

fn fails_after() {
    let scene = Scene::new();
    scene.settled().migration(2, "two", CHANGE);
    let report = scene.unstuck(&["migrate", "--json", "--", "sh", "-c", "bin/rails db:migrate; false"]).code(3).json();
    assert_eq!(report["databases"][0], json!({"name": "primary", "applied": ["2"], "pending": []}));
    assert_eq!(report["restart"]["state"], "proved");
    scene.kept();
    let seq = scene.now();
    scene.restored();
    assert_eq!((scene.requests(seq), scene.ran()), (vec![], vec!["1".to_owned(), "2".to_owned()]));
}

fn half_applied() {
    let server = Mariadb::start(MariadbOptions::default());
    for scene in [Scene::new(), Scene::on(&server.store("half"), Options::default())] {
        half_applied_in(&scene);
    }
}

fn half_applied_in(scene: &Scene) {
    scene.settled().migration(2, "two", "sql 'create table half (a int)'; false");
    let report = scene.unstuck(&["migrate", "--json"]).code(3).json();
    assert_eq!((&report["restart"]["state"], &report["databases"][0]["applied"]), (&json!("proved"), &json!([])));
    scene.kept();
    scene.migration(2, "two", CHANGE);
    scene.restored();
}

fn left_pending() {
    let scene = Scene::new();
    scene.settled().migration(2, "two", CHANGE);
    let ran = scene.unstuck(&["migrate", "--json", "--", "true"]).code(3);
    assert_eq!(ran.json()["outcome"], "migration_failed");
    assert_eq!(ran.json()["restart"]["state"], "not_needed");
    assert!(ran.err.contains("left something pending"), "{ran:?}");

    scene.migration(3, "three", "exit 0");
    let report = scene.unstuck(&["migrate", "--json"]).code(3).json();
    assert_eq!(report["databases"][0], json!({"name": "primary", "applied": ["2"], "pending": ["3"]}));
    assert_eq!(report["restart"]["state"], "proved");
    scene.kept();
    scene.migration(3, "three", "true");
    scene.restored();
}

fn killed() {
    for (version, end) in [(2, "kill -SEGV $$"), (3, "kill -KILL $$"), (4, "exit 137")] {
        let scene = Scene::new();
        scene.settled().migration(version, "deadly", &format!("sql 'create table half (a int)'; {end}"));
        let report = scene.unstuck(&["migrate", "--json"]).code(3).json();
        assert_eq!((&report["outcome"], &report["restart"]["state"]), (&json!("migration_failed"), &json!("proved")));
        scene.kept();
        scene.migration(version, "deadly", CHANGE);
        scene.restored();
    }
}

fn statement_outlives_its_client() {
    let server = Postgres::start(&PostgresOptions::default());
    let scene = Scene::on(&server.store("late"), Options::default());
    scene.settled();
    let slow = "do $$ begin perform pg_sleep(2);
        create table late as select extract(epoch from clock_timestamp()) as at; end $$";
    fs::write(scene.path("slow.sql"), slow).unwrap();
    let runs = "select 1 from pg_stat_activity where state = 'active' and query like 'do $$ %'";
    fs::write(scene.path("runs.sql"), runs).unwrap();
    let script = "bin/sql \"$(cat slow.sql)\" & until [ \"$(bin/sql \"$(cat runs.sql)\")\" ]; do sleep 0.1; done; kill -9 $!; false";
    scene.migration(2, "two", script);
    let ran = scene.unstuck(&["migrate", "--json"]).code(3);
    assert_eq!(ran.json()["restart"]["state"], "proved", "{ran:?}");
    assert!(ran.err.contains("waiting for a migration to end in the database"), "{ran:?}");
    fs::write(scene.path("changed"), scene.sql("select at from late")).unwrap();
    scene.kept();
    scene.migration(2, "two", CHANGE);
    scene.restored();
}

fn never_ends() {
    let mut scene = Scene::new();
    scene.settled().migration(2, "two", "sql 'create table half (a int)'; touch running; exec sleep 60");
    let run = scene.start(&["migrate", "--json", "--migrate-timeout", "1500ms"]);
    scene.wait_for_file("running");
    scene.set("UNSTUCK_LOCK_TIMEOUT", "100ms");
    scene.unstuck(&["migrate"]).code(9);
    let ran = run.end().code(3);
    assert!(ran.err.contains("took too long and was ended"), "{ran:?}");
    assert_eq!(ran.json()["restart"]["state"], "proved");
    scene.kept();
    scene.migration(2, "two", CHANGE);
    scene.restored();
}

fn ignores_sigterm() {
    let scene = Scene::new();
    scene.settled().migration(
        2,
        "two",
        "sql 'create table half (a int)'; trap 'touch told' TERM; touch running; while true; do sleep 0.1; done",
    );
    let run = scene.start(&["migrate"]);
    scene.wait_for_file("running");
    run.signal(libc::SIGTERM);
    scene.wait_for_file("told");
    let seq = scene.now();
    run.end().code(128 + libc::SIGTERM);
    assert_eq!(scene.writes(seq).len(), 1, "one request is sent, its proof is not waited for");
    assert!(scene.debts()[0].contains(r#""ph":"D""#), "{:?}", scene.debts());
    fs::remove_file(scene.path("db/migrate/2_two.rb")).unwrap();
    scene.restored();
}

fn leaves_a_daemon() {
    let mut scene = Scene::new();
    scene.settled();
    scene.migration(
        2,
        "two",
        "sql 'create table two (a int)'; setsid sh -c 'until [ -e go ]; do sleep 0.1; done; bin/sql \"create table late (a int)\"' &",
    );
    let ran = scene.unstuck(&["migrate", "--json"]).code(4);
    assert!(ran.err.contains("still running; it may go on migrating"), "{ran:?}");
    assert!(scene.debts()[0].contains(r#""ph":"M""#), "{:?}", scene.debts());
    scene.set("UNSTUCK_LOCK_TIMEOUT", "100ms");
    let busy = scene.unstuck(&["migrate", "--json"]).code(9).json();
    assert!(busy["error"]["message"].as_str().unwrap().contains("process "), "the holder is named: {busy}");
    fs::write(scene.path("go"), "").unwrap();
    scene.set("UNSTUCK_LOCK_TIMEOUT", "20s");
    assert_eq!(scene.restored().json()["outcome"], "settled");
}

fn wrapped() {
    for command in ["exec bin/rails db:migrate", "bin/rails db:migrate; true", "bin/rails db:migrate & wait $!"] {
        let scene = Scene::new();
        scene.settled().migration(2, "two", CHANGE);
        scene.unstuck(&["migrate", "--", "sh", "-c", command]).code(0);
        scene.kept();
        assert_eq!(scene.ran(), ["1", "2"], "{command}");
    }
}

fn cannot_be_executed() {
    for (what, spoil) in [
        ("missing", "rm bin/rails"),
        ("a folder", "rm bin/rails; mkdir bin/rails"),
        ("not executable", "chmod -x bin/rails"),
        ("no interpreter", "echo '#!/no/such/ruby' > bin/rails"),
        ("no such program", "echo '#!/usr/bin/env no-such-ruby' > bin/rails"),
        ("a program that cannot be executed", "echo '#!/usr/bin/env /' > bin/rails"),
        ("bundler knows no such program", "echo '#!/bin/sh\nexit 127' > bin/rails"),
    ] {
        let scene = Scene::new();
        scene.settled().migration(2, "two", CHANGE);
        let shell = |script: &str| {
            assert!(
                Command::new("sh").args(["-ec", script]).current_dir(scene.root.path()).status().unwrap().success()
            );
        };
        shell(&format!("cp bin/rails bin/rails.good; {spoil}"));
        let (seq, before) = (scene.now(), scene.ids("web"));
        // Named, since another command would be run where there is no bin/rails.
        let ran = scene.unstuck(&["migrate", "--json", "--", "bin/rails", "db:migrate"]);
        assert_eq!((ran.code, &ran.json()["outcome"]), (Some(5), &json!("refused")), "{what}: {ran:?}");
        assert!(ran.err.contains("the migration command cannot be executed"), "{what}: {ran:?}");
        assert!(ran.json()["error"]["hint"].is_string(), "{what}: {ran:?}");
        assert_eq!((scene.writes(seq), scene.ids("web"), scene.debts()), (vec![], before, vec![]), "{what}");
        shell("rm -rf bin/rails; mv bin/rails.good bin/rails");
        scene.restored();
        assert_eq!(scene.ran(), ["1", "2"], "{what}");
    }
}

fn executed_all_the_same() {
    let scene = Scene::new();
    scene.settled().migration(2, "two", "sql 'create table half (a int)'; no-such-program || exit");
    let report = scene.unstuck(&["migrate", "--json"]).code(3).json();
    assert_eq!(report["restart"]["state"], "proved");
    scene.kept();
    scene.migration(2, "two", CHANGE);
    scene.restored();
}

fn prints_a_gigabyte() {
    let run = |stdout: Stdio| {
        let scene = Scene::new();
        scene.settled().migration(2, "two", "head -c 1G /dev/zero; sql 'create table two (a int)'");
        let command = scene.command(&["migrate"]);
        let mut child = Command::new("prlimit")
            .args(["--as=536870912", "--"])
            .arg(command.get_program())
            .args(command.get_args())
            .current_dir(scene.root.path())
            .env_clear()
            .envs(&scene.env)
            .stdout(stdout)
            .spawn()
            .unwrap();
        let read = child.stdout.take().map_or(0, |mut stdout| io::copy(&mut stdout, &mut io::sink()).unwrap());
        let status = child.wait().unwrap();
        assert_eq!((status.code(), status.signal()), (Some(0), None));
        scene.kept();
        assert_eq!(scene.ran(), ["1", "2"]);
        read
    };
    assert!(run(Stdio::piped()) > 1 << 30);
    let (reader, writer) = io::pipe().unwrap();
    drop(reader);
    run(writer.into());
}

fn reverts() {
    let revert = "sql \"delete from schema_migrations where version = '1'\"";
    let scene = Scene::new();
    scene.settled().migration(2, "two", revert);
    let report = scene.unstuck(&["migrate", "--json"]).code(3).json();
    assert_eq!((&report["databases"][0]["pending"], &report["restart"]["state"]), (&json!(["1"]), &json!("proved")));
    scene.kept();
    scene.migration(1, "first", "true");
    scene.restored();

    let scene = Scene::new();
    scene.settled().migration(2, "two", &format!("{revert}; rm db/migrate/1_first.rb"));
    let report = scene.unstuck(&["migrate", "--json"]).code(0).json();
    assert_eq!(report["restart"]["state"], "proved");
    scene.kept();
    scene.restored();
}

fn two_databases() {
    let mut scene = Scene::new();
    scene.unset("DATABASE_URL");
    let config = "development:
  primary: {adapter: sqlite3, database: db.sqlite3}
  other: {adapter: sqlite3, database: other.sqlite3, migrations_paths: db/other}\n";
    fs::create_dir_all(scene.path("config")).unwrap();
    fs::create_dir_all(scene.path("db/other")).unwrap();
    fs::write(scene.path("config/database.yml"), config).unwrap();
    fs::write(scene.path("db/other/1_other.rb"), "").unwrap();
    let other = |sql: &str| {
        let output = Command::new("sqlite3").arg(scene.path("other.sqlite3")).arg(sql).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    let count = "select count(*) from ar_internal_metadata where key like 'unstuck:debt:%'";
    let debts = || (scene.debts().len(), other(count));
    other(&fs::read_to_string(scene.path("db/tables.sql")).unwrap());

    let in_other = |version| format!("sqlite3 other.sqlite3 \"insert into schema_migrations values ('{version}')\"");
    let look = format!("sqlite3 other.sqlite3 \"{count}\" > seen; bin/sql \"{count}\" >> seen");
    scene.migration(1, "first", &format!("{look}; {CHANGE}; {}", in_other(1)));
    scene.sql(&fs::read_to_string(scene.path("db/tables.sql")).unwrap());
    let report = scene.unstuck(&["migrate", "--json"]).code(0).json();
    assert_eq!(report["databases"][1], json!({"name": "other", "applied": ["1"], "pending": []}));
    assert_eq!(fs::read_to_string(scene.path("seen")).unwrap(), "1\n1\n");
    assert_eq!(debts(), (0, "0".to_owned()));
    scene.kept();

    scene.migration(2, "two", &format!("{look}; sql 'create table three (a int)'; {}", in_other(2)));
    scene.unstuck(&["migrate"]).code(0);
    assert_eq!(fs::read_to_string(scene.path("seen")).unwrap(), "0\n1\n");
    assert_eq!(debts(), (0, "0".to_owned()));
    scene.kept();
    let seq = scene.now();
    scene.restored();
    assert_eq!(scene.requests(seq), [""; 0]);
}
