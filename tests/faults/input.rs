//! Faults of configuration, files and hostile input.

use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use unstuck_standin::{Ailment, AilmentRule, Reply, Rule};

use crate::Fault;
use crate::scene::secrets::{PASSWORD_IN_URL, TOKEN};
use crate::scene::{Ran, Scene};

pub const FAULTS: &[Fault] = &[
    Fault {
        what: "no credentials, no app, or remotes of two apps",
        injected: "variables taken away; git remotes",
        exit: "5, naming what is missing",
        record: "–",
        next_run: "migrates",
        check: nobody_known,
    },
    Fault {
        what: "an unknown key or a wrong value in the configuration",
        injected: ".unstuck.yml, variables and flags",
        exit: "1 (a flag: 2), naming file, line and key, never the value",
        record: "–",
        next_run: "migrates",
        check: wrong_configuration,
    },
    Fault {
        what: "names of folders and files with escape sequences, line breaks, turned text, broken UTF-8",
        injected: "files in db/migrate",
        exit: "as ever; the names are shown escaped, in JSON too",
        record: "–",
        next_run: "migrates",
        check: hostile_names,
    },
    Fault {
        what: "the same in the API's messages",
        injected: "an error of the API",
        exit: "5; shown escaped",
        record: "–",
        next_run: "migrates",
        check: hostile_api,
    },
    Fault {
        what: "the same in the log of a dyno that crashed",
        injected: "a process that dies at boot, and its log",
        exit: "0, with the log escaped",
        record: "–",
        next_run: "asks the API nothing",
        check: hostile_log,
    },
    Fault {
        what: "the same in a database's error and in a record",
        injected: "names of tables and files; rows by SQL",
        exit: "1; 4 for the record; shown escaped",
        record: "a record that cannot be read stays",
        next_run: "says it again, until --assume-dead names the run",
        check: hostile_database,
    },
    Fault {
        what: "names that mean something to a shell",
        injected: "$(), ;, quotes and a leading - in command and paths",
        exit: "0; the command gets its words as they are",
        record: "–",
        next_run: "asks the API nothing",
        check: no_shell,
    },
    Fault {
        what: "paths for migrations that lead elsewhere, in circles, or to what is no folder",
        injected: "links, pipes, devices, folders with a migration's name",
        exit: "0 where Rails finds files or none; 1 for a circle",
        record: "–",
        next_run: "as ever",
        check: odd_paths,
    },
    Fault {
        what: "configuration that is a pipe, a device or without end",
        injected: "files of 4 GB, pipes and devices in place of each file that is read",
        exit: "1 (.netrc: 5), naming the file",
        record: "–",
        next_run: "migrates",
        check: endless_files,
    },
    Fault {
        what: "a migration of 4 GB, 100,000 files, names of 5,000 characters",
        injected: "sparse and empty files",
        exit: "0; no migration is opened, what is pending is counted",
        record: "–",
        next_run: "as ever",
        check: huge_folders,
    },
    Fault {
        what: "two files of one version or of one class, a version from the future",
        injected: "files in db/migrate",
        exit: "1, in Rails' words",
        record: "–",
        next_run: "migrates once the file is gone",
        check: refused_as_rails_does,
    },
    Fault {
        what: "a folder of migrations that may not be read",
        injected: "permissions, as a user without privileges",
        exit: "1, naming the folder",
        record: "–",
        next_run: "migrates once it may be read",
        check: unreadable_folder,
    },
    Fault {
        what: "a migration appears while another one runs",
        injected: "a migration that writes a file",
        exit: "3, left pending",
        record: "– after the restart",
        next_run: "runs it",
        check: files_change,
    },
    Fault {
        what: "a token with a line break, a blank or a NUL in it",
        injected: "HEROKU_API_KEY, .netrc",
        exit: "5, not quoting it; nothing is sent",
        record: "–",
        next_run: "migrates",
        check: broken_token,
    },
    Fault {
        what: "a .netrc that others may read, or of another owner",
        injected: "permissions and owner",
        exit: "0, with a warning: the heroku command takes it too",
        record: "–",
        next_run: "asks the API nothing",
        check: exposed_netrc,
    },
];

/// What a terminal, a log or a person may be fooled by.
const HOSTILE: &str = "\u{1b}]8;;http://evil.example\u{7}\u{1b}]52;c;eA==\u{7}\r\n\u{9b}2J\u{202e}\u{2066}\u{0}";

/// A run that is refused: the command was not started and nothing was recorded.
#[track_caller]
fn refused(scene: &Scene, args: &[&str], code: i32, words: &str) -> Ran {
    let (ran, debts) = (scene.ran(), scene.debts());
    let run = scene.unstuck(args);
    assert_eq!(run.code, Some(code), "{args:?}: {run:?}");
    assert!(run.err.contains(words), "{args:?}: no {words:?} in {run:?}");
    assert_eq!((scene.ran(), scene.debts()), (ran, debts));
    run
}

/// A settled application with a migration that waits.
fn pending() -> Scene {
    let scene = Scene::new();
    scene.settled().migration(2, "two", "sql 'create table two (a int)'");
    scene
}

/// The undisturbed run after a fault: what was pending is migrated and proved, and the run after it asks nothing.
#[track_caller]
fn then_migrates(scene: &Scene) {
    let before = scene.ids("web");
    let report = scene.unstuck(&["migrate", "--json"]).code(0).json();
    assert_eq!(report["restart"]["state"], "proved", "{report}");
    assert!(scene.ids("web").iter().all(|id| !before.contains(id)));
    then_asks_nothing(scene);
}

#[track_caller]
fn then_asks_nothing(scene: &Scene) {
    assert_eq!(scene.debts(), [""; 0]);
    let seq = scene.now();
    assert_eq!(scene.unstuck(&["migrate", "--json"]).code(0).json()["outcome"], "nothing_to_do");
    assert_eq!(scene.requests(seq), [""; 0]);
}

fn nobody_known() {
    let mut scene = pending();
    scene.unset("HEROKU_API_KEY");
    refused(&scene, &["migrate"], 5, "no credentials for Heroku's API were given");
    scene.set("HEROKU_API_KEY", TOKEN).unset("UNSTUCK_APP");
    refused(&scene, &["migrate"], 5, "not known which Heroku app");
    let repository = git2::Repository::init(scene.root.path()).unwrap();
    scene.set("HEROKU_GIT_HOST", "git.test");
    let app = scene.standin.app().to_owned();
    for (remote, app) in [("production", app.as_str()), ("staging", "another")] {
        repository.remote(remote, &format!("https://x:{PASSWORD_IN_URL}@git.test/{app}.git")).unwrap();
    }
    refused(&scene, &["migrate"], 5, "the git remotes name several apps");
    repository.remote_delete("staging").unwrap();
    then_migrates(&scene);
}

fn wrong_configuration() {
    let scene = pending();
    let file = scene.path(".unstuck.yml");
    for (text, words) in [
        ("app: a\nrestrat:\n  types: web\n", ".unstuck.yml:2: unknown field `restrat`"),
        ("restart:\n  max_unavailable: hunter2\n", ".unstuck.yml:2: restart.max_unavailable: the value is not"),
        ("app: [hunter2]\n", ".unstuck.yml:1: app: the value is not"),
        ("timeouts:\n  migrate: hunter2\n", ".unstuck.yml (timeouts.migrate): the value is no duration"),
        ("restart:\n  policy: hunter2\n", ".unstuck.yml (restart.policy): the value is none of auto, api, handoff"),
        ("timeouts:\n  lock: [\n", ".unstuck.yml:"),
        ("a: &a [*a]\n", ".unstuck.yml:1: "),
    ] {
        fs::write(&file, text).unwrap();
        assert!(!format!("{:?}", refused(&scene, &["migrate"], 1, words)).contains("hunter2"), "{text}");
    }
    fs::write(&file, b"app: a\n\xff\n").unwrap();
    refused(&scene, &["migrate"], 1, ".unstuck.yml:2: is not UTF-8");
    fs::remove_file(&file).unwrap();
    let flag =
        refused(&scene, &["migrate", "--prove-timeout", "hunter2"], 2, "--prove-timeout: the value is no duration");
    assert!(!format!("{flag:?}").contains("hunter2"));
    let typed = String::from("mig\u{1b}]52;c;eA==\u{7}\u{202e}\rrate");
    refused(&scene, &[&typed], 2, "\\u{202e}\\u{d}");
    let variable = scene.command(&["migrate"]).env("UNSTUCK_API_TIMEOUT", TOKEN).output().unwrap();
    assert!(Ran::of(variable).code(1).err.contains("UNSTUCK_API_TIMEOUT: the value is no duration"));
    then_migrates(&scene);
}

fn hostile_names() {
    let scene = pending();
    let legal = HOSTILE.replace(['/', '\0'], "");
    let folders = [legal.as_bytes(), b"\xff\xfe\x1b[31m", b"-rf", b"  "];
    for (version, name) in (3..).zip(folders) {
        let folder = scene.path("db/migrate").join(OsStr::from_bytes(name));
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join(format!("{version}_{}.rb", ["three", "four", "five", "six"][version - 3])), "").unwrap();
    }
    // The run itself fails the test if it sends any of that to the terminal.
    let text = scene.unstuck(&["status"]).code(0).out;
    assert!(text.contains("\\u{1b}]52;c;eA==\\u{7}\\u{d}\\u{a}\\u{9b}2J\\u{202e}"), "{text}");
    let ran = scene.unstuck(&["status", "--json"]).code(0);
    let paths: Vec<Value> = (0..5).map(|at| ran.json()["databases"][0]["pending"][at]["path"].clone()).collect();
    assert_eq!(paths[1], json!(format!("db/migrate/{legal}/3_three.rb")), "JSON has the name itself");
    assert_eq!(paths[2], json!("db/migrate/\u{fffd}\u{fffd}\u{1b}[31m/4_four.rb"));
    scene.unstuck(&["migrate", "--dry-run"]).code(0);
    for (version, name) in folders.iter().enumerate() {
        fs::remove_dir_all(scene.path("db/migrate").join(OsStr::from_bytes(name)))
            .unwrap_or_else(|_| panic!("{version}"));
    }
    let illegal = scene.path("db/migrate").join(format!("7_{}.rb", legal.replace('\n', "")));
    fs::write(&illegal, "").unwrap();
    let error = refused(&scene, &["migrate", "--json"], 1, "\\u{1b}]8;;http:").json();
    assert!(error["error"]["message"].as_str().unwrap().contains("\u{1b}]52;c;eA=="), "{error}");
    fs::remove_file(illegal).unwrap();
    then_migrates(&scene);
}

fn hostile_api() {
    let scene = pending();
    let message = format!("{HOSTILE} {TOKEN} {}", "long ".repeat(10_000));
    scene.standin.fault(Rule {
        path: "/apps/*".into(),
        reply: Reply::Error { status: 422, id: HOSTILE.into(), message: message.clone() },
        ..Rule::default()
    });
    let ran = refused(&scene, &["migrate"], 5, "\\u{1b}]52;c;eA==\\u{7}");
    assert!(ran.err.len() < 3_000, "it is cut to what a person reads: {ran:?}");
    refused(&scene, &["migrate", "--json"], 5, "***");
    scene.standin.clear_faults();
    let redirect = Reply::Redirect { status: 307, to: format!("http://evil.example/{TOKEN}") };
    scene.standin.fault(Rule { path: "/apps/*".into(), reply: redirect, ..Rule::default() });
    refused(&scene, &["migrate"], 5, "redirected to evil.example, which is not followed");
    scene.standin.clear_faults();
    then_migrates(&scene);
}

fn hostile_log() {
    let scene = pending();
    let body = format!("2026-11-22T22:00:00+00:00 app[web.1]: {HOSTILE} {TOKEN}\n{}\n", "x".repeat(100_000));
    scene.standin.fault(Rule { path: "/logplex/*".into(), reply: Reply::Raw { status: 200, body }, ..Rule::default() });
    let crash = AilmentRule { dyno: "web.1".into(), ailment: Ailment::CrashesOnBoot, count: None };
    scene.standin.set_ailments(vec![crash]);
    let ran = scene.unstuck(&["migrate"]).code(0);
    assert!(ran.out.contains("its last log lines") && ran.out.contains("\\u{1b}]52;c;eA==\\u{7}"), "{ran:?}");
    assert!(ran.out.contains("***") && ran.out.len() < 10_000, "{ran:?}");
    scene.standin.clear_faults();
    then_asks_nothing(&scene);
}

fn hostile_database() {
    let mut scene = pending();
    let odd = HOSTILE.replace('\0', "");
    let shown = scene.unstuck(&["config", "--schema-migrations-table", &odd]).code(0).out;
    assert!(shown.contains("\\u{1b}]52;c;eA==\\u{7}"), "{shown}");
    fs::create_dir_all(scene.path("\u{1b}]52;c;eA==\u{7}\u{202e}/none.sqlite3")).unwrap();
    scene.set("DATABASE_URL", "sqlite3:%1B%5D52;c;eA==%07%E2%80%AE/none.sqlite3");
    let ran = scene.unstuck(&["status"]);
    assert!(ran.code == Some(1) && ran.err.contains("\\u{1b}]52;c;eA==\\u{7}\\u{202e}"), "{ran:?}");
    scene.set("DATABASE_URL", "sqlite3:db.sqlite3");
    let key = format!("unstuck:debt:{}:0123456789abcdef", scene.standin.app_id());
    let note = r#"{"v":1,"ph":"X","by":"' || char(27) || ']52;c;eA==' || char(7) || char(8238) || '"}"#;
    scene.sql(&format!("insert into ar_internal_metadata values ('{key}', '{note}', datetime(), datetime())"));
    let hostile = "'unstuck:debt:' || char(27) || '[2J:' || char(8238)";
    scene.sql(&format!("insert into ar_internal_metadata values ({hostile}, char(27), char(27), char(27))"));
    for args in [&["status"][..], &["status", "--json"]] {
        scene.unstuck(args).code(0);
    }
    let ran = scene.unstuck(&["migrate"]).code(4);
    assert!(ran.err.contains("--assume-dead 0123456789abcdef"), "{ran:?}");
    assert_eq!(scene.debts().len(), 2);
    scene.unstuck(&["migrate", "--json"]).code(4);
    scene.unstuck(&["restart", "--assume-dead", "0123456789abcdef"]).code(0);
    assert_eq!(scene.debts(), ["\u{1b}"], "the other one is no debt of this app");
}

fn no_shell() {
    let scene = pending();
    let words = ["$(touch pwned)", "; touch pwned", "-x", "--", "'", "`touch pwned`", "a\nb", "*", "~", ""];
    let command: Vec<&str> = [&["bin/rails", "db:migrate"][..], &words].concat();
    fs::write(scene.path(".unstuck.yml"), json!({ "command": command }).to_string()).unwrap();
    let rails = fs::read_to_string(scene.path("bin/rails")).unwrap();
    let rails = rails.replacen('\n', "\nprintf '%s\\0' \"$@\" > words\n", 1);
    fs::write(scene.path("bin/rails"), rails).unwrap();
    let folder = scene.path("db/migrate/$(touch pwned);touch pwned;`touch pwned`'\"");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("1_first.rb"), "").unwrap();
    fs::remove_file(scene.path("db/migrate/1_first.rb")).unwrap();
    scene.unstuck(&["migrate"]).code(0);
    let got = fs::read(scene.path("words")).unwrap();
    let wanted = [&["db:migrate"][..], &words].concat().join("\0") + "\0";
    assert_eq!(String::from_utf8(got).unwrap(), wanted);
    assert!(!scene.path("pwned").exists() && !scene.path("bin/pwned").exists());
    then_asks_nothing(&scene);
}

fn odd_paths() {
    let scene = pending();
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("7_seven.rb"), "").unwrap();
    symlink(outside.path(), scene.path("db/linked")).unwrap();
    symlink("loop", scene.path("db/loop")).unwrap();
    symlink("..", scene.path("db/migrate/above")).unwrap();
    fs::create_dir(scene.path("db/migrate/3_three.rb")).unwrap();
    symlink("/dev/zero", scene.path("db/migrate/4_four.rb")).unwrap();
    make_pipe(&scene.path("db/migrate/5_five.rb"));
    make_pipe(&scene.path("db/pipe"));
    let pending = |paths: &[&str], code: i32| {
        fs::write(
            scene.path(".unstuck.yml"),
            json!({"databases": {"primary": {"migrations_paths": paths}}}).to_string(),
        )
        .unwrap();
        let ran = scene.unstuck(&["status", "--json"]).code(code);
        let list = ran.json()["databases"][0]["pending"].as_array().cloned().unwrap_or_default();
        list.iter().map(|migration| migration["version"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    // As Rails: by name alone, whatever stands behind it.
    assert_eq!(pending(&["db/migrate"], 0), ["2", "3", "4", "5"]);
    assert_eq!(pending(&["db/../db/./migrate/../linked"], 0), ["7"]);
    assert_eq!(pending(&[outside.path().to_str().unwrap()], 0), ["7"]);
    assert_eq!(pending(&["db/pipe", "/dev/null", "db/nowhere", "db/linked"], 0), ["7"]);
    assert_eq!(pending(&["db/**/above/linked"], 0), ["7"]);
    assert_eq!(pending(&["db/loop"], 1), [""; 0]);
    fs::remove_file(scene.path(".unstuck.yml")).unwrap();
    for name in ["3_three.rb", "4_four.rb", "5_five.rb"] {
        let path = scene.path("db/migrate").join(name);
        fs::remove_file(&path).or_else(|_| fs::remove_dir(&path)).unwrap();
    }
    then_migrates(&scene);
}

fn make_pipe(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().expect("mkfifo runs").success());
}

fn endless_files() {
    let mut scene = pending();
    fs::create_dir(scene.path("config")).unwrap();
    for (name, code) in [("config/database.yml", 1), ("Gemfile.lock", 1), (".unstuck.yml", 1), (".netrc", 5)] {
        let path = scene.path(name);
        scene.unset("HEROKU_API_KEY");
        File::create(&path).unwrap().set_len(4 << 30).unwrap();
        refused(&scene, &["migrate"], code, "longer than 1 MiB");
        fs::remove_file(&path).unwrap();
        make_pipe(&path);
        refused(&scene, &["migrate"], code, name);
        fs::remove_file(&path).unwrap();
        symlink("/dev/zero", &path).unwrap();
        refused(&scene, &["migrate"], code, "not a file");
        fs::remove_file(&path).unwrap();
    }
    scene.set("HEROKU_API_KEY", TOKEN);
    then_migrates(&scene);
}

fn huge_folders() {
    let scene = pending();
    File::create(scene.path("db/migrate/3_three.rb")).unwrap().set_len(4 << 30).unwrap();
    let count = |expected: usize| {
        let report = scene.unstuck(&["status", "--json"]).code(0).json();
        assert_eq!(report["databases"][0]["pending"].as_array().unwrap().len(), expected);
    };
    count(2);
    let long = format!("4_{}.rb", "x".repeat(250));
    fs::write(scene.path("db/migrate").join(long), "").unwrap();
    count(3);
    let deep = vec!["y".repeat(250); 3].join("/");
    fs::create_dir_all(scene.path("db/migrate").join(&deep)).unwrap();
    fs::write(scene.path("db/migrate").join(deep).join("5_five.rb"), "").unwrap();
    count(4);
    fs::create_dir(scene.path("db/many")).unwrap();
    for version in 0..100_000 {
        File::create(scene.path("db/many").join(format!("{}_m{version}.rb", 1_000 + version))).unwrap();
    }
    fs::rename(scene.path("db/many"), scene.path("db/migrate/many")).unwrap();
    count(100_004);
    let paths = json!({"databases": {"primary": {"migrations_paths": ["z".repeat(5_000)]}}});
    fs::write(scene.path(".unstuck.yml"), paths.to_string()).unwrap();
    assert!(scene.unstuck(&["status"]).code(1).err.contains("cannot read this folder of migrations"));
    fs::remove_file(scene.path(".unstuck.yml")).unwrap();
    fs::remove_dir_all(scene.path("db/migrate")).unwrap();
    fs::create_dir(scene.path("db/migrate")).unwrap();
    scene.migration(1, "first", "").migration(2, "two", "sql 'create table two (a int)'");
    then_migrates(&scene);
}

fn refused_as_rails_does() {
    let scene = pending();
    fs::create_dir_all(scene.path("config")).unwrap();
    fs::write(scene.path("Gemfile.lock"), "    activerecord (7.2.1)\n").unwrap();
    fs::write(scene.path("config/application.rb"), "config.load_defaults 7.2\n").unwrap();
    for (name, words) in [
        ("002_again.rb", "DuplicateMigrationVersionError"),
        ("3_two.rb", "DuplicateMigrationNameError"),
        ("3_Three.rb", "IllegalMigrationNameError"),
        ("99990101000000_late.rb", "InvalidMigrationTimestampError"),
    ] {
        let file = scene.path("db/migrate").join(name);
        fs::write(&file, "").unwrap();
        refused(&scene, &["migrate"], 1, words);
        fs::remove_file(file).unwrap();
    }
    then_migrates(&scene);
}

/// Nobody in particular.
const NOBODY: u32 = 65_534;

fn is_root() -> bool {
    // SAFETY: reads a number that the kernel keeps.
    unsafe { libc::geteuid() == 0 }
}

fn unreadable_folder() {
    let scene = pending();
    let locked = scene.path("db/migrate/locked");
    fs::create_dir(&locked).unwrap();
    fs::set_permissions(&locked, Permissions::from_mode(0o0)).unwrap();
    fs::set_permissions(scene.root.path(), Permissions::from_mode(0o755)).unwrap();
    // Root may read everything, and perhaps nobody else the folder where the binary was built.
    let binary = scene.path("unstuck");
    fs::copy(env!("CARGO_BIN_EXE_unstuck"), &binary).unwrap();
    let mut command = if is_root() {
        let mut command = Command::new("setpriv");
        command.args([format!("--reuid={NOBODY}"), format!("--regid={NOBODY}"), "--clear-groups".into()]).arg(&binary);
        command
    } else {
        Command::new(&binary)
    };
    let output = command.arg("migrate").current_dir(scene.root.path()).env_clear().envs(&scene.env).output().unwrap();
    let ran = Ran::of(output).code(1);
    assert!(ran.err.contains("db/migrate/locked: cannot read this folder of migrations"), "{ran:?}");
    assert_eq!((scene.ran(), scene.debts()), (vec!["1".to_owned()], vec![]));
    fs::set_permissions(&locked, Permissions::from_mode(0o755)).unwrap();
    then_migrates(&scene);
}

fn files_change() {
    let scene = pending();
    scene.migration(
        2,
        "two",
        "sql 'create table two (a int)'; echo \"sql 'create table three (a int)'\" > db/migrate/3_three.rb",
    );
    let report = scene.unstuck(&["migrate", "--json"]).code(3).json();
    assert_eq!(report["databases"][0], json!({"name": "primary", "applied": ["2"], "pending": ["3"]}));
    assert_eq!(report["restart"]["state"], "proved");
    then_migrates(&scene);
    assert_eq!(scene.ran(), ["1", "2", "3"]);
}

fn broken_token() {
    let mut scene = pending();
    let host = scene.standin.url().trim_start_matches("http://").to_owned();
    let seq = scene.now();
    for token in [format!("{TOKEN}\nX-Other: y"), format!("{TOKEN} "), format!("{TOKEN}\u{e9}")] {
        scene.set("HEROKU_API_KEY", &token);
        refused(&scene, &["migrate", "--json"], 5, "has a character that no token has");
    }
    scene.unset("HEROKU_API_KEY");
    for character in ["\0", "\n", "\r", "\u{1b}"] {
        netrc(&scene, &format!("machine {host} password \"{TOKEN}{character}\"\n"), 0o600);
        refused(&scene, &["migrate"], 5, "has a character that no token has");
    }
    assert_eq!(scene.requests(seq), [""; 0]);
    scene.set("HEROKU_API_KEY", TOKEN);
    then_migrates(&scene);
}

fn netrc(scene: &Scene, text: &str, mode: u32) {
    fs::write(scene.path(".netrc"), text).unwrap();
    fs::set_permissions(scene.path(".netrc"), Permissions::from_mode(mode)).unwrap();
}

fn exposed_netrc() {
    let mut scene = pending();
    let host = scene.standin.url().trim_start_matches("http://").to_owned();
    scene.unset("HEROKU_API_KEY");
    let text = format!("machine {host} login me password {TOKEN}\n");
    netrc(&scene, &text, 0o600);
    assert!(!scene.unstuck(&["status"]).code(0).err.contains("warning"));
    netrc(&scene, &text, 0o644);
    assert!(
        scene.unstuck(&["status"]).code(0).err.contains("other users of this machine may open it (chmod 600 ~/.netrc)")
    );
    // A link is fine, and the file behind it counts.
    fs::rename(scene.path(".netrc"), scene.path("netrc")).unwrap();
    symlink("netrc", scene.path(".netrc")).unwrap();
    assert!(scene.unstuck(&["status"]).code(0).err.contains("other users"));
    fs::set_permissions(scene.path("netrc"), Permissions::from_mode(0o600)).unwrap();
    assert!(!scene.unstuck(&["status"]).code(0).err.contains("warning"));
    // Only root can give a file away.
    if is_root() {
        chown(scene.path("netrc"), Some(NOBODY), None).unwrap();
        assert!(scene.unstuck(&["status"]).code(0).err.contains("belongs to another user"));
    }
    then_migrates(&scene);
    assert_eq!(fs::read_to_string(scene.path(".netrc")).unwrap(), text, "nothing is written through it");
}
