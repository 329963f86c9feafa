//! The promise, kept for a real Rails application: pumas and a worker run as dynos of the stand-in, and each of them is asked
//! which columns it knows.

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

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use mariadb::{Mariadb, MariadbOptions};
use postgres::{Postgres, PostgresOptions};
use rails_app::{Database, RailsApp, web_columns, worker_columns};
use scene::{Ran, TOKEN};
use serde_json::{Value, json};
use tempfile::TempDir;
use unstuck_standin::{Deploy, Fact, Mode, Options, Standin, Status};

/// Longer than anything takes that goes well.
const LONG: Duration = Duration::from_mins(1);

/// Migrates, and then kills `unstuck` before it can do anything about the running processes.
const MIGRATE_AND_KILL: [&str; 5] = ["migrate", "--", "sh", "-c", "bin/rails db:migrate; kill -9 $PPID"];

#[test]
fn stories_on_sqlite() {
    tell(&Blog::deployed(None, &["web.1", "web.2", "worker.1"]));
}

#[test]
fn stories_on_postgresql() {
    let server = Postgres::start(&PostgresOptions::default());
    tell(&Blog::deployed(Some(server.url("postgres")), &["web.1", "worker.1"]));
}

#[test]
fn stories_on_mariadb() {
    let server = Mariadb::start(MariadbOptions::default());
    tell(&Blog::deployed(Some(server.url("mysql2")), &["web.1", "worker.1"]));
}

/// One life of an application.
fn tell(blog: &Blog) {
    every_process_learns_a_column(blog);
    the_second_of_three_fails(blog);
    killed_before_the_restart(blog);
    migrated_by_hand(blog);
}

fn every_process_learns_a_column(blog: &Blog) {
    blog.every_process_knows(&["id", "title"]);
    blog.adds(2, "subtitle");
    let report = blog.unstuck(&["migrate", "--json"]).code(0).json();
    assert_eq!((&report["outcome"], &report["restart"]["state"]), (&json!("migrated"), &json!("proved")));
    assert_eq!(report["databases"], json!([{"name": "primary", "applied": ["2"], "pending": []}]));
    blog.every_process_knows(&["id", "title", "subtitle"]);
    blog.nothing_is_owed();
}

fn the_second_of_three_fails(blog: &Blog) {
    blog.adds(3, "body");
    blog.app.add_migration("4", "add_legacy", "def change = raise('it broke')");
    blog.adds(5, "content");
    let ran = blog.unstuck(&["migrate"]).code(3);
    for line in ["applied    3 AddBody", "failed     4 AddLegacy", "remaining  5 AddContent"] {
        assert!(ran.out.contains(line), "{line} in {ran:?}");
    }
    assert!(ran.err.contains("it broke"), "what Rails says of it is seen: {ran:?}");
    blog.every_process_knows(&["id", "title", "subtitle", "body"]);
    let status = blog.unstuck(&["status", "--json", "--exit-code"]).code(6).json();
    assert_eq!(status["owed"], false);
    let versions = status["databases"][0]["pending"].as_array().unwrap().iter().map(|file| &file["version"]);
    assert_eq!(versions.collect::<Vec<_>>(), ["4", "5"]);
}

fn killed_before_the_restart(blog: &Blog) {
    blog.adds(4, "legacy");
    blog.unstuck(&MIGRATE_AND_KILL).killed();
    blog.every_process_knows(&["id", "title", "subtitle", "body"]);
    let status = blog.unstuck(&["status", "--json", "--exit-code"]).code(7).json();
    assert_eq!((&status["verdict"], &status["owed"]), (&json!("owed"), &json!(true)));
    assert_eq!(stuck(&status), blog.dynos);

    let report = blog.unstuck(&["migrate", "--json"]).code(0).json();
    assert_eq!((&report["outcome"], &report["restart"]["state"]), (&json!("settled"), &json!("proved")));
    blog.every_process_knows(&["id", "title", "subtitle", "body", "legacy", "content"]);
    assert_eq!(blog.ran(), ["2", "3", "4", "5"], "no migration ran twice");
    blog.nothing_is_owed();
}

fn migrated_by_hand(blog: &Blog) {
    blog.adds(6, "summary");
    blog.migrate_by_hand();
    let known = ["id", "title", "subtitle", "body", "legacy", "content", "summary"];
    blog.every_process_knows(&known[..6]);
    let status = blog.unstuck(&["status", "--json", "--exit-code"]).code(7).json();
    assert_eq!(stuck(&status), blog.dynos);
    let said = blog.unstuck(&["status"]).code(0).out;
    for dyno in blog.dynos {
        assert!(said.lines().any(|line| line.contains(dyno) && line.contains("STUCK")), "{dyno} in {said}");
    }

    assert_eq!(blog.unstuck(&["restart", "--json"]).code(0).json()["outcome"], "settled");
    blog.every_process_knows(&known);
    blog.nothing_is_owed();
}

/// The names of the dynos that a status calls stuck.
fn stuck(status: &Value) -> Vec<&str> {
    let dynos = status["dynos"].as_array().unwrap().iter();
    let mut names: Vec<&str> =
        dynos.filter(|dyno| dyno["stuck"] == true).map(|dyno| dyno["name"].as_str().unwrap()).collect();
    names.sort_unstable();
    names
}

#[test]
fn the_release_phase() {
    let mut blog = Blog::deployed(None, &["web.1", "worker.1"]);
    a_release_that_succeeds(&mut blog, "api", "subtitle");
    a_release_that_succeeds(&mut blog, "auto", "body");
    a_release_that_fails(&mut blog);
    a_release_that_restarts_by_itself(&mut blog);
}

fn a_release_that_succeeds(blog: &mut Blog, policy: &str, column: &str) {
    let mut known = blog.known()["web.1"].clone();
    known.push(column.to_owned());
    let version = known.len();
    blog.next_version(policy);
    blog.adds(version, column);
    let release = blog.release();
    assert_eq!((release.status, release.exit), (Status::Succeeded, 0), "{policy}: {:#?}", blog.standin.log());
    assert_eq!(release.restarts, ["web", "worker"], "{policy} does not wait for the platform");
    blog.every_process_knows(&known);
    blog.every_process_is_of(release.version);
    blog.nothing_is_owed();
}

fn a_release_that_fails(blog: &mut Blog) {
    let before = blog.releases_in_use();
    blog.next_version("auto");
    blog.adds(5, "legacy");
    blog.app.add_migration("6", "add_content", "def change = raise('it broke')");
    let release = blog.release();
    assert_eq!((release.status, release.exit), (Status::Failed, 3), "{:#?}", blog.standin.log());
    blog.every_process_knows(&["id", "title", "subtitle", "body", "legacy"]);
    assert_eq!(blog.releases_in_use(), before, "the old code runs on");
    assert_eq!(blog.unstuck(&["status", "--json", "--exit-code"]).code(6).json()["owed"], false);
}

fn a_release_that_restarts_by_itself(blog: &mut Blog) {
    blog.next_version("handoff");
    blog.adds(6, "content");
    let release = blog.release();
    assert_eq!((release.status, release.exit), (Status::Succeeded, 0), "{:#?}", blog.standin.log());
    assert_eq!(release.restarts, [""; 0], "the platform does it");
    let began = |entry: &unstuck_standin::Entry| matches!(&entry.fact, Fact::Began { name, .. } if name == "web.1");
    blog.every_process_knows(&["id", "title", "subtitle", "body", "legacy", "content"]);
    assert_eq!(blog.standin.journal(release.seq).iter().filter(|entry| began(entry)).count(), 1, "once");
    assert_eq!(blog.unstuck(&["status", "--json"]).code(0).json()["owed"], true, "not yet checked");

    let before = blog.ids();
    let report = blog.unstuck(&["restart", "--json"]).code(0).json();
    assert_eq!(report["restart"]["state"], "proved");
    assert_eq!(blog.ids(), before, "there was nothing left to restart");
    blog.nothing_is_owed();
}

#[test]
fn the_output_of_rails_is_seen_while_it_runs() {
    let blog = Blog::simulated(&[Database::sqlite3("primary")]);
    for (version, arguments) in [(1, &["migrate"][..]), (2, &["migrate", "--json"])] {
        let go = blog.dir.path().join(format!("go{version}"));
        let talk = format!(
            r#"def up
    puts "\e[1mfirst\e[0m\tline  of ünits \r"
    200.times {{ File.exist?("{go}") ? break : sleep(0.1) }}
    raise "nobody saw the first line" unless File.exist?("{go}")
    warn "a warning"
    puts "the last line"
  end"#,
            go = go.display()
        );
        blog.app.add_migration(&version.to_string(), &format!("talk_{version}"), &talk);
        let mut child = blog.command(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (out, err) = (Box::new(child.stdout.take().unwrap()), Box::new(child.stderr.take().unwrap()));
        let to_err = arguments.contains(&"--json");
        let (seen, mut other): (Box<dyn Read>, Box<dyn Read>) = if to_err { (err, out) } else { (out, err) };

        let mut seen = BufReader::new(seen);
        let (mut text, first) = (Vec::new(), "\x1b[1mfirst\x1b[0m\tline  of ünits \r\n");
        while !text.ends_with(first.as_bytes()) {
            let read = seen.read_until(b'\n', &mut text).unwrap();
            assert_ne!(read, 0, "the line never came: {:?}", String::from_utf8_lossy(&text));
        }
        fs::write(&go, "").unwrap();
        seen.read_to_end(&mut text).unwrap();
        let mut rest = String::new();
        other.read_to_string(&mut rest).unwrap();
        let text = String::from_utf8(text).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(0), "{text}{rest}");

        assert!(text.contains(&format!("== {version} Talk{version}: migrating =====")), "{text}");
        if to_err {
            assert!(text.contains(&format!("{first}a warning\nthe last line\n")), "in order: {text}");
            assert_eq!(serde_json::from_str::<Value>(&rest).unwrap()["outcome"], "migrated");
        } else {
            assert!(text.contains(&format!("{first}the last line\n")), "{text}");
            assert!(rest.contains("a warning\n"), "{rest}");
        }
    }
}

#[test]
fn several_databases_have_a_row_and_an_entry_each() {
    let blog = Blog::simulated(&[Database::sqlite3("primary"), Database::sqlite3("animals")]);
    let rows = |database: &str| {
        let sql = "select count(*) from ar_internal_metadata where key like 'unstuck:debt:%'";
        let file = blog.app.root().join(format!("db/{database}.sqlite3"));
        let output = Command::new("sqlite3").arg(file).arg(sql).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    let add = |version: &str, posts: &str, dogs: &str| {
        blog.app.add_migration(version, &format!("change_posts_{version}"), posts);
        blog.app.add_migration_to("animals", &format!("{version}0"), &format!("change_dogs_{version}"), dogs);
    };
    let entries = |primary: (Value, Value), animals: (Value, Value)| {
        json!([{"name": "primary", "applied": primary.0, "pending": primary.1},
               {"name": "animals", "applied": animals.0, "pending": animals.1}])
    };

    add("1", "def change = create_table(:posts)", "def change = create_table(:dogs)");
    let report = blog.unstuck(&["migrate", "--json"]).code(0).json();
    assert_eq!(report["databases"], entries((json!(["1"]), json!([])), (json!(["10"]), json!([]))));
    assert_eq!((rows("primary"), rows("animals")), ("0".into(), "0".into()));

    add("2", "def change = add_column(:posts, :title, :string)", "def change = add_column(:dogs, :name, :string)");
    blog.unstuck(&MIGRATE_AND_KILL).killed();
    assert_eq!((rows("primary"), rows("animals")), ("1".into(), "1".into()));
    let status = blog.unstuck(&["status", "--json", "--exit-code"]).code(7).json();
    assert_eq!((&status["databases"][0]["owed"], &status["databases"][1]["owed"]), (&json!(true), &json!(true)));
    assert_eq!(blog.unstuck(&["migrate", "--json"]).code(0).json()["outcome"], "settled");
    assert_eq!((rows("primary"), rows("animals")), ("0".into(), "0".into()));

    add("3", "def change = add_column(:posts, :body, :string)", "def change = raise('it broke')");
    let report = blog.unstuck(&["migrate", "--json"]).code(3).json();
    assert_eq!(report["databases"], entries((json!(["3"]), json!([])), (json!([]), json!(["30"]))));
    assert_eq!(report["restart"]["state"], "proved");
    assert_eq!((rows("primary"), rows("animals")), ("0".into(), "0".into()));
}

/// A real Rails application, its platform, and the config vars that both its dynos and a run of `unstuck` get.
struct Blog {
    dir: TempDir,
    /// The newest code, which is not always the one that runs.
    app: RailsApp,
    standin: Standin,
    config: BTreeMap<String, String>,
    /// The names of the dynos that run its processes.
    dynos: &'static [&'static str],
}

/// How a release went.
struct Release {
    version: u64,
    status: Status,
    /// The exit code of its release command.
    exit: i32,
    /// The process types that the API was asked to restart while it was pending.
    restarts: Vec<String>,
    /// The number of the journal's last entry before it.
    seq: u64,
}

impl Blog {
    /// The application with its table `posts` and these processes. Without a URL its database is a SQLite file.
    fn deployed(url: Option<String>, dynos: &'static [&'static str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let app = RailsApp::create(&dir.path().join("v1"), &[Database::sqlite3("primary")]);
        app.add_migration("1", "create_posts", "def change = create_table(:posts) { |t| t.string :title }");
        let mode = Mode::Procfile {
            root: app.root().to_owned(),
            procfile: None,
            env: BTreeMap::from([("LANG".into(), "C.UTF-8".into())]),
            grace: Duration::from_secs(30),
        };
        let url = url.unwrap_or_else(|| format!("sqlite3:{}", dir.path().join("blog.sqlite3").display()));
        let mut blog = Self::on(dir, app, Options { mode, formation: BTreeMap::new(), ..Options::default() });
        blog.config.insert("DATABASE_URL".into(), url);
        blog.dynos = dynos;
        blog.migrate_by_hand();
        blog.standin.addon_release("Set config vars", blog.config.clone());
        for kind in ["web", "worker"] {
            assert!(blog.standin.scale(kind, dynos.iter().filter(|dyno| dyno.starts_with(kind)).count() as u64));
        }
        blog.every_process_knows(&["id", "title"]);
        blog
    }

    /// The application on the databases of its `config/database.yml`, for stories in which nobody asks its processes.
    fn simulated(databases: &[Database]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let app = RailsApp::create(&dir.path().join("v1"), databases);
        Self::on(dir, app, Options::default())
    }

    fn on(dir: TempDir, app: RailsApp, options: Options) -> Self {
        let standin = Standin::start(Options { token: TOKEN.into(), ..options }).unwrap();
        let config = [
            ("RAILS_ENV", "production"),
            ("HEROKU_HOST", standin.url()),
            ("HEROKU_API_KEY", TOKEN),
            ("UNSTUCK_RESTART_TYPES", "all"),
            ("UNSTUCK_POLL_TIMEOUT", "200ms"),
        ];
        let config = config.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        Self { dir, app, standin, config, dynos: &[] }
    }

    /// `unstuck` as on a laptop.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.app.command(env!("CARGO_BIN_EXE_unstuck"));
        command.args(arguments).envs(&self.config).env("UNSTUCK_APP", self.standin.app()).env("HOME", self.dir.path());
        command
    }

    fn unstuck(&self, arguments: &[&str]) -> Ran {
        Ran::of(self.command(arguments).output().unwrap())
    }

    /// Adds a migration that adds a column, and notes each time that it runs.
    fn adds(&self, version: usize, column: &str) {
        let note = format!("File.write('{}', \"{version}\\n\", mode: 'a')", self.dir.path().join("ran").display());
        let body = format!("def up\n    add_column :posts, :{column}, :string\n    {note}\n  end");
        self.app.add_migration(&version.to_string(), &format!("add_{column}"), &body);
    }

    /// The versions whose migrations ran, each as often as it did.
    fn ran(&self) -> Vec<String> {
        fs::read_to_string(self.dir.path().join("ran")).unwrap().lines().map(str::to_owned).collect()
    }

    fn migrate_by_hand(&self) {
        let output = self.app.command("bin/rails").arg("db:migrate").envs(&self.config).output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }

    /// All boots, once every listed dyno is up and no other process is left.
    fn boots(&self) -> Vec<Value> {
        assert!(self.standin.wait_until_up(LONG), "{:#?}", self.standin.log());
        for _ in 0..3_000 {
            let boots = self.standin.boots();
            if boots.iter().all(|boot| boot["place"] == "listed" && boot["state"] == "up") {
                return boots;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("an old process stays: {:#?}", self.standin.boots());
    }

    fn ids(&self) -> Vec<Value> {
        self.boots().iter().map(|boot| boot["id"].clone()).collect()
    }

    /// The versions of the releases that the dynos run.
    fn releases_in_use(&self) -> Vec<Value> {
        self.boots().iter().map(|boot| boot["release"].clone()).collect()
    }

    #[track_caller]
    fn every_process_is_of(&self, release: u64) {
        assert_eq!(self.releases_in_use(), vec![release; self.dynos.len()]);
    }

    /// Asks each process which columns it knows: by the names of the dynos.
    fn known(&self) -> BTreeMap<String, Vec<String>> {
        self.boots().iter().map(|boot| (boot["name"].as_str().unwrap().to_owned(), known_to(boot))).collect()
    }

    #[track_caller]
    fn every_process_knows(&self, columns: &[impl AsRef<str>]) {
        let columns: Vec<String> = columns.iter().map(|column| column.as_ref().to_owned()).collect();
        let all = self.dynos.iter().map(|dyno| ((*dyno).to_owned(), columns.clone()));
        assert_eq!(self.known(), all.collect());
    }

    #[track_caller]
    fn nothing_is_owed(&self) {
        let status = self.unstuck(&["status", "--json", "--exit-code"]).code(0).json();
        assert_eq!((&status["verdict"], &status["owed"]), (&json!("clean"), &json!(false)), "{status}");
        assert_eq!(stuck(&status), [""; 0]);
    }

    /// A copy of the newest code, whose release phase runs `unstuck migrate` with this policy.
    fn next_version(&mut self, policy: &str) {
        let count = fs::read_dir(self.dir.path()).unwrap().count();
        let app = RailsApp::create(&self.dir.path().join(format!("next{count}")), &[Database::sqlite3("primary")]);
        for file in fs::read_dir(self.app.root().join("db/migrate")).unwrap() {
            let file = file.unwrap();
            fs::copy(file.path(), app.root().join("db/migrate").join(file.file_name())).unwrap();
        }
        let procfile = fs::read_to_string(app.root().join("Procfile")).unwrap();
        app.write("Procfile", &procfile.replace("unstuck", env!("CARGO_BIN_EXE_unstuck")));
        app.write(".unstuck.yml", &format!("restart:\n  policy: {policy}\n"));
        self.app = app;
    }

    /// Deploys the newest code, and waits for the end of the release.
    fn release(&self) -> Release {
        let seq = self.standin.note("a release");
        let deploy = Deploy { root: Some(self.app.root().to_owned()), ..Deploy::default() };
        let version = self.standin.deploy(deploy).unwrap();
        let over = |fact: &Fact| match fact {
            Fact::Release { version: of, status } if *of == version && *status != Status::Pending => Some(*status),
            _ => None,
        };
        let entry = self.standin.wait_for(seq, LONG, |entry| over(&entry.fact).is_some());
        let entry = entry.unwrap_or_else(|| panic!("{:#?}", self.standin.log()));
        let journal = self.standin.journal(seq);
        let exit = journal.iter().find_map(|entry| match &entry.fact {
            Fact::Ended { name, status, .. } if name.starts_with("release.") => Some(*status),
            _ => None,
        });
        let restarted = |fact: &Fact| match fact {
            Fact::Request { method, path, .. } if method == "DELETE" => path.rsplit('/').next().map(str::to_owned),
            _ => None,
        };
        let earlier = journal.iter().filter(|earlier| earlier.seq < entry.seq);
        let mut restarts: Vec<String> = earlier.filter_map(|earlier| restarted(&earlier.fact)).collect();
        restarts.sort();
        Release { version, status: over(&entry.fact).unwrap(), exit: exit.unwrap(), restarts, seq }
    }
}

/// Asks one process which columns it knows.
fn known_to(boot: &Value) -> Vec<String> {
    if boot["type"] == "web" {
        return web_columns(&format!("http://127.0.0.1:{}", boot["port"]));
    }
    // The platform calls a worker up from the start of its process; it listens only once it knows.
    let socket = socket(boot);
    for _ in 0..3_000 {
        if let Ok(columns) = worker_columns(&socket) {
            return columns;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("nobody listens at {}", socket.display());
}

/// Where a worker answers, below the root of its own release.
fn socket(boot: &Value) -> PathBuf {
    let root = fs::read_link(Path::new("/proc").join(boot["pid"].to_string()).join("cwd")).unwrap();
    root.join("tmp").join(format!("{}.sock", boot["name"].as_str().unwrap()))
}
