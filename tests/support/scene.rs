//! A small application with a scripted `bin/rails` on a real database (SQLite unless told otherwise), and a stand-in with
//! simulated dynos: quick enough for every fault to have a test of its own.
//!
//! Each migration file holds shell commands. The script runs the pending ones in order and records their versions, as Rails
//! does; `sql` changes the database and notes when (`bin/sql` only asks), a command that fails ends the run.

#![allow(dead_code, reason = "each test file uses a part of it")]
#![allow(clippy::expect_used, reason = "a scene that cannot be set fails the test, and says what it lacked")]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

#[allow(clippy::duplicate_mod, reason = "constants, which no other helper need hand on")]
#[path = "secrets.rs"]
pub mod secrets;

use serde_json::Value;
use tempfile::TempDir;
use unstuck_standin::{Entry, Fact, Mode, Options, Reserved, Standin};

const RAILS: &str = r#"#!/bin/bash
cd "$(dirname "$0")/.." || exit 1
bin/sql "$(cat db/tables.sql)" || exit 1
sql() {
  bin/sql "$1"
  local status=$?
  echo "$EPOCHREALTIME" > changed
  return $status
}
for file in db/migrate/*.rb; do
  version=$(basename "$file" | cut -d_ -f1)
  [ -n "$(bin/sql "select 1 from schema_migrations where version = '$version'")" ] && continue
  echo "== $version migrating"
  . "./$file" || exit 1
  sql "insert into schema_migrations values ('$version')" || exit 1
  echo "$version" >> ran
done
"#;

/// The database of a scene: its URL, and what a person would do there by hand.
pub struct Store {
    pub url: String,
    /// The stock client, up to the SQL.
    pub client: String,
    /// The word for a column that is called `key`.
    pub key: &'static str,
    /// The type of Rails' timestamps.
    pub moment: &'static str,
}

impl Store {
    fn sqlite() -> Self {
        let client = r#"sqlite3 -cmd '.timeout 10000' "$(dirname "$0")/../db.sqlite3""#.to_owned();
        Self { url: "sqlite3:db.sqlite3".to_owned(), client, key: "key", moment: "datetime(6)" }
    }

    /// Rails' two tables.
    fn tables(&self) -> String {
        let Self { key, moment, .. } = self;
        format!(
            "create table if not exists schema_migrations (version varchar(255) primary key);
             create table if not exists ar_internal_metadata ({key} varchar(255) primary key, value varchar(255),
             created_at {moment} not null, updated_at {moment} not null)"
        )
    }
}

/// The application, its platform, and what a run of `unstuck` sees of both.
pub struct Scene {
    pub root: TempDir,
    pub standin: Standin,
    pub env: BTreeMap<String, String>,
}

/// How a run of `unstuck` ended.
#[derive(Debug)]
pub struct Ran {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Ran {
    /// Fails where a secret, a control character or one that turns the direction of text was printed.
    pub fn of(output: Output) -> Self {
        secrets::keep(&output);
        let text = |bytes| String::from_utf8(bytes).expect("all output is UTF-8");
        let ran = Self { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) };
        for stream in [&ran.out, &ran.err] {
            assert!(!secrets::ALL.iter().any(|secret| stream.contains(secret)), "a secret was printed: {ran:?}");
            assert!(!stream.chars().any(acts_on_terminal), "a control character was printed: {ran:?}");
        }
        ran
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Fails unless this is the exit code.
    #[track_caller]
    pub fn code(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{self:?}");
        self
    }

    /// Fails unless a signal ended it.
    #[track_caller]
    pub fn killed(self) {
        assert_eq!(self.code, None, "{self:?}");
    }
}

fn acts_on_terminal(c: char) -> bool {
    (c.is_control() && c != '\n')
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

pub use secrets::TOKEN;

impl Scene {
    /// Two web dynos and a worker, nothing migrated yet.
    pub fn new() -> Self {
        Self::with(Options::default())
    }

    pub fn with(options: Options) -> Self {
        Self::on(&Store::sqlite(), options)
    }

    pub fn on(store: &Store, options: Options) -> Self {
        Self::at(lay_out(store), store, options)
    }

    /// The same with real processes for dynos: a worker, and one-off dynos that have the binary, the database and the key.
    pub fn with_processes() -> Self {
        let store = Store::sqlite();
        let root = lay_out(&store);
        symlink(env!("CARGO_BIN_EXE_unstuck"), root.path().join("bin/unstuck")).expect("a link");
        fs::write(root.path().join("Procfile"), "worker: exec sleep 1000\n").expect("a Procfile");
        fs::write(root.path().join(".unstuck.yml"), "restart: {types: [worker]}\n").expect("a configuration");
        let reserved = Reserved::new().expect("a port");
        let pairs = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect::<BTreeMap<_, _>>()
        };
        let host = format!("http://127.0.0.1:{}", reserved.port);
        let env = pairs(&[
            ("HEROKU_HOST", &host),
            ("UNSTUCK_POLL_TIMEOUT", "50ms"),
            ("UNSTUCK_PROVE_TIMEOUT", "5s"),
            ("UNSTUCK_HEALTH_TIMEOUT", "2s"),
        ]);
        let url = format!("sqlite3:{}", root.path().join("db.sqlite3").display());
        let options = Options {
            port: reserved.port,
            formation: BTreeMap::from([("worker".to_owned(), 1)]),
            mode: Mode::Procfile { root: root.path().into(), procfile: None, env, grace: Duration::from_secs(30) },
            config: pairs(&[("DATABASE_URL", &url), ("HEROKU_API_KEY", TOKEN)]),
            ..Options::default()
        };
        Self::at(root, &store, options)
    }

    fn at(root: TempDir, store: &Store, options: Options) -> Self {
        let standin = Standin::start(Options { token: TOKEN.into(), ..options }).expect("a stand-in");
        assert!(standin.wait_until_up(Duration::from_secs(10)), "the dynos come up");
        let env = BTreeMap::from([
            ("PATH".to_owned(), std::env::var("PATH").expect("PATH")),
            ("HOME".to_owned(), root.path().display().to_string()),
            ("TMPDIR".to_owned(), root.path().display().to_string()),
            ("HEROKU_HOST".to_owned(), standin.url().to_owned()),
            ("HEROKU_API_KEY".to_owned(), TOKEN.to_owned()),
            ("UNSTUCK_APP".to_owned(), standin.app().to_owned()),
            ("DATABASE_URL".to_owned(), store.url.clone()),
            ("UNSTUCK_POLL_TIMEOUT".to_owned(), "50ms".to_owned()),
            ("UNSTUCK_PROVE_TIMEOUT".to_owned(), "5s".to_owned()),
            ("UNSTUCK_HEALTH_TIMEOUT".to_owned(), "2s".to_owned()),
            ("UNSTUCK_LOCK_TIMEOUT".to_owned(), "20s".to_owned()),
        ]);
        Self { root, standin, env }
    }

    /// From now on the scripts and we talk to this database, whatever `unstuck` does.
    pub fn talk_to(&self, store: &Store) {
        // Under a new name first: a running script may be about to start it.
        write_script(&self.path("bin/sql.new"), &client(store));
        fs::rename(self.path("bin/sql.new"), self.path("bin/sql")).expect("a script");
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// Adds a migration whose file holds `script`.
    pub fn migration(&self, version: u64, name: &str, script: &str) -> &Self {
        fs::write(self.path(&format!("db/migrate/{version}_{name}.rb")), format!("{script}\n")).expect("a migration");
        self
    }

    pub fn set(&mut self, name: &str, value: &str) -> &mut Self {
        self.env.insert(name.into(), value.into());
        self
    }

    pub fn unset(&mut self, name: &str) -> &mut Self {
        self.env.remove(name);
        self
    }

    /// Inside the release phase of the release `version`.
    pub fn in_release(&mut self, version: Option<u64>) -> &mut Self {
        self.set("DYNO", "release.4821");
        if let Some(version) = version {
            self.set("HEROKU_RELEASE_VERSION", &format!("v{version}"));
        }
        let id = self.standin.app_id().to_owned();
        self.set("HEROKU_APP_ID", &id)
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_unstuck"));
        command.args(args).current_dir(self.root.path()).env_clear().envs(&self.env).stdin(Stdio::null());
        command
    }

    /// A copy of the application as another machine has it: another home, working directory and place for temporary files.
    pub fn elsewhere(&self) -> TempDir {
        let elsewhere = TempDir::new().expect("a directory");
        for name in ["bin", "db", "ran", "changed"] {
            symlink(self.path(name), elsewhere.path().join(name)).expect("a link");
        }
        elsewhere
    }

    /// The same command as it is given on that machine.
    pub fn command_on(&self, machine: &Path, args: &[&str]) -> Command {
        let mut command = self.command(args);
        command.current_dir(machine).env("HOME", machine).env("TMPDIR", machine);
        command
    }

    /// Runs `unstuck` to its end.
    pub fn unstuck(&self, args: &[&str]) -> Ran {
        Ran::of(self.command(args).output().expect("unstuck starts"))
    }

    /// Starts `unstuck` and lets it run.
    pub fn start(&self, args: &[&str]) -> Running {
        Running::start(self.command(args))
    }

    /// Starts `unstuck` on that machine and lets it run.
    pub fn start_on(&self, machine: &Path, args: &[&str]) -> Running {
        Running::start(self.command_on(machine, args))
    }

    /// Runs `unstuck migrate` and kills it as it enters the `nth` of the system calls of this name, which has to be among
    /// `calls`: those that the file `trace` shows afterwards. `false`: it ended before.
    pub fn killed_at(&self, calls: &[&str], name: &str, nth: usize) -> bool {
        let status = Command::new("strace")
            .args(["-qq", "-s", "300", "-o", "trace", "-e", &format!("trace={}", calls.join(",")), "-e"])
            // Counted for each name by itself.
            .arg(format!("inject={name}:signal=SIGKILL:when={nth}"))
            .arg(env!("CARGO_BIN_EXE_unstuck"))
            .arg("migrate")
            .current_dir(self.root.path())
            .env_clear()
            .envs(&self.env)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .expect("strace starts");
        assert!(matches!(status.code(), None | Some(0 | 3)), "{status}");
        status.code().is_none()
    }

    /// What the stock client answers.
    pub fn sql(&self, sql: &str) -> String {
        let output = Command::new(self.path("bin/sql")).arg(sql).output().expect("the client starts");
        assert!(output.status.success(), "{sql}: {output:?}");
        String::from_utf8(output.stdout).expect("text").trim().to_owned()
    }

    /// The values of all debt rows in Rails' own table.
    pub fn debts(&self) -> Vec<String> {
        let rows = self.sql(
            "select ar_internal_metadata.value from ar_internal_metadata where ar_internal_metadata.key like 'unstuck:debt:%'",
        );
        rows.lines().map(str::to_owned).collect()
    }

    /// The phases of all debt rows.
    pub fn phases(&self) -> Vec<String> {
        let phase = |value: &String| {
            let note: Value = serde_json::from_str(value).expect("a record");
            note["ph"].as_str().expect("a phase").to_owned()
        };
        self.debts().iter().map(phase).collect()
    }

    /// The versions that the scripted Rails ran, each as often as it was run.
    pub fn ran(&self) -> Vec<String> {
        fs::read_to_string(self.path("ran")).unwrap_or_default().lines().map(str::to_owned).collect()
    }

    /// Fails unless the promise is kept: no restart is owed, and every web process began after the last change.
    #[track_caller]
    pub fn kept(&self) {
        assert_eq!(self.debts(), [""; 0]);
        let text = fs::read_to_string(self.path("changed")).expect("something was changed");
        let changed: f64 = text.trim().parse().expect("seconds since 1970");
        let journal = self.standin.journal(0);
        for id in self.ids("web") {
            let began = journal.iter().find(|entry| matches!(&entry.fact, Fact::Began { dyno, .. } if *dyno == id));
            let began = began.expect("it began").at.as_duration().as_secs_f64();
            assert!(began > changed, "an old process is left: it began at {began}, the last change was at {changed}");
        }
    }

    /// The end of a fault's story: one undisturbed run keeps the promise, and a further one has nothing to ask for. Answers
    /// how the first one ended.
    #[track_caller]
    pub fn restored(&self) -> Ran {
        let ran = self.unstuck(&["migrate", "--json"]).code(0);
        self.kept();
        let seq = self.now();
        self.unstuck(&["migrate"]).code(0);
        assert_eq!(self.requests(seq), [""; 0]);
        ran
    }

    /// The API's requests since entry `seq`, as `METHOD path`.
    pub fn requests(&self, seq: u64) -> Vec<String> {
        self.standin.journal(seq).iter().filter_map(request).collect()
    }

    /// The requests since `seq` that change something.
    pub fn writes(&self, seq: u64) -> Vec<String> {
        self.requests(seq)
            .into_iter()
            .filter(|request| request.starts_with("DELETE") || request.starts_with("PATCH"))
            .collect()
    }

    /// The number of the journal's newest entry.
    pub fn now(&self) -> u64 {
        self.standin.journal(0).last().map_or(0, |entry| entry.seq)
    }

    /// The ids of the dynos of one type.
    pub fn ids(&self, kind: &str) -> Vec<String> {
        let of = |dyno: &Value| (dyno["type"] == kind).then(|| dyno["id"].as_str().expect("an id").to_owned());
        self.standin.dynos().iter().filter_map(of).collect()
    }

    /// A first migration that is applied, restarted for and proved: the state of an app that uses unstuck.
    pub fn settled(&self) -> &Self {
        self.migration(1, "first", "sql 'create table first (a int)'");
        self.unstuck(&["migrate"]).code(0);
        self
    }

    /// Waits for a file that a script makes as a sign.
    pub fn wait_for_file(&self, name: &str) {
        wait_for_file(&self.path(name));
    }
}

/// The application's files.
fn lay_out(store: &Store) -> TempDir {
    let root = TempDir::new().expect("a directory");
    fs::create_dir_all(root.path().join("bin")).expect("bin");
    fs::create_dir_all(root.path().join("db/migrate")).expect("db/migrate");
    write_script(&root.path().join("bin/rails"), RAILS);
    write_script(&root.path().join("bin/sql"), &client(store));
    fs::write(root.path().join("db/tables.sql"), store.tables()).expect("tables");
    root
}

fn client(store: &Store) -> String {
    format!("#!/bin/bash\nexec {} \"$1\"\n", store.client)
}

fn write_script(path: &Path, script: &str) {
    fs::write(path, script).expect("a script");
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("an executable");
}

pub fn wait_for_file(path: &Path) {
    for _ in 0..2_000 {
        if path.exists() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("{} was not made within 20 s", path.display());
}

fn request(entry: &Entry) -> Option<String> {
    match &entry.fact {
        Fact::Request { method, path, .. } => Some(format!("{method} {path}")),
        _ => None,
    }
}

/// A run of `unstuck` that was not waited for.
pub struct Running(std::process::Child);

impl Running {
    pub fn start(mut command: Command) -> Self {
        Self(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("unstuck starts"))
    }

    /// Signals the run and the groups of what it started: as the platform does on a dyno.
    pub fn signal_all(&self, signal: i32) {
        let children = children_of(&self.0);
        self.signal(signal);
        signal_groups(&children, signal);
    }

    pub fn signal(&self, signal: i32) {
        let pid = i32::try_from(self.0.id()).expect("a pid");
        // SAFETY: kill takes two integers and touches no memory of ours.
        assert_eq!(unsafe { libc::kill(pid, signal) }, 0);
    }

    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    pub fn end(self) -> Ran {
        Ran::of(self.0.wait_with_output().expect("unstuck ends"))
    }

    /// Waits for a process that was killed, whatever it left in its pipes.
    pub fn wait(mut self) -> Option<i32> {
        self.0.wait().expect("unstuck ends").code()
    }
}

/// The processes that a run of `unstuck` started.
pub fn children_of(run: &std::process::Child) -> Vec<i32> {
    let tasks = fs::read_dir(format!("/proc/{}/task", run.id())).into_iter().flatten().flatten();
    let lists: Vec<String> =
        tasks.map(|task| fs::read_to_string(task.path().join("children")).unwrap_or_default()).collect();
    lists.iter().flat_map(|list| list.split_whitespace()).map(|id| id.parse().expect("a pid")).collect()
}

/// Signals every process of the groups that have these leaders.
pub fn signal_groups(leaders: &[i32], signal: i32) {
    for leader in leaders {
        // SAFETY: kill takes two integers and touches no memory of ours.
        unsafe { libc::kill(-leader, signal) };
    }
}
