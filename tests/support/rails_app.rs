//! A small real Rails application in a folder of its own, from the files in `tests/rails_app`: production mode, one model
//! `Post`, a `Procfile` with `web`, `worker` and `release`, and a controller that shows what its process knows.

#![allow(dead_code, reason = "each test uses its own part of it")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what went wrong by failing there")]

use std::fmt::Write as _;
use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

/// One entry of `config/database.yml`.
pub struct Database {
    name: String,
    settings: Vec<(String, String)>,
}

impl Database {
    /// A database called `name` (`primary` is the one that keeps its migrations in `db/migrate`) behind an adapter as Rails
    /// calls it.
    pub fn new(name: &str, adapter: &str) -> Self {
        Self { name: name.into(), settings: vec![] }.set("adapter", adapter)
    }

    /// A SQLite file `db/<name>.sqlite3` in the application.
    pub fn sqlite3(name: &str) -> Self {
        Self::new(name, "sqlite3").set("database", &format!("db/{name}.sqlite3"))
    }

    #[must_use]
    pub fn set(mut self, key: &str, value: &str) -> Self {
        self.settings.push((key.into(), value.into()));
        self
    }

    fn migrations_path(&self) -> String {
        migrations_path(&self.name)
    }
}

fn migrations_path(database: &str) -> String {
    if database == "primary" { "db/migrate".into() } else { format!("db/{database}_migrate") }
}

pub struct RailsApp {
    root: PathBuf,
}

impl RailsApp {
    /// Makes the application in `root`, which must not exist yet, without any migration. One database is written as most
    /// applications write it; several get a section each, with their own `migrations_paths`.
    pub fn create(root: &Path, databases: &[Database]) -> Self {
        let template = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/rails_app");
        let copied = Command::new("cp").arg("-R").arg(&template).arg(root).status().expect("cp runs");
        assert!(copied.success(), "{} could not be copied to {}", template.display(), root.display());
        let app = Self { root: root.to_owned() };
        app.write("config/database.yml", &database_yml(databases));
        for database in databases {
            fs::create_dir_all(root.join(database.migrations_path())).expect("a folder for migrations");
        }
        app
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Writes a file below the root.
    pub fn write(&self, path: &str, text: &str) {
        fs::write(self.root.join(path), text).expect("the application's folder is writable");
    }

    /// Adds a migration of the primary database; see [`RailsApp::add_migration_to`].
    pub fn add_migration(&self, version: &str, name: &str, body: &str) -> PathBuf {
        self.add_migration_to("primary", version, name, body)
    }

    /// Adds `<version>_<name>.rb` to a database's migrations and returns its path. `name` is in `snake_case`; `body` is what
    /// stands in the class, such as `def change = add_column(:posts, :subtitle, :string)`.
    pub fn add_migration_to(&self, database: &str, version: &str, name: &str, body: &str) -> PathBuf {
        let path = self.root.join(migrations_path(database)).join(format!("{version}_{name}.rb"));
        let class = format!("class {} < ActiveRecord::Migration[6.1]\n  {body}\nend\n", camelize(name));
        fs::write(&path, class).expect("the migrations' folder is writable");
        path
    }

    /// A command in the root with the environment of a dyno and nothing of the caller's but `PATH`.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.current_dir(&self.root).env_clear().env("RAILS_ENV", "production").env("LANG", "C.UTF-8");
        command.env("PATH", std::env::var_os("PATH").expect("PATH is set"));
        command
    }

    /// Runs `bin/rails` with arguments to its end.
    pub fn rails(&self, arguments: &[&str]) -> Output {
        self.command("bin/rails").args(arguments).output().expect("bin/rails runs")
    }

    /// Runs `bin/rails db:migrate`, as a person would by hand, and fails loudly when it fails.
    pub fn migrate(&self) {
        let output = self.rails(&["db:migrate"]);
        assert!(
            output.status.success(),
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }

    /// Starts the `Procfile`'s `web` line as the dyno `dyno`, on a free port, and returns once it serves.
    pub fn boot_web(&self, dyno: &str) -> Web {
        let (process, line) = Process::start(self, "web", dyno, "Listening on ");
        let (_, base) = line.split_once("Listening on ").expect("the line that was waited for");
        Web { base: base.trim().to_owned(), _process: process }
    }

    /// Starts the `Procfile`'s `worker` line as the dyno `dyno`, and returns once it answers on its socket.
    pub fn boot_worker(&self, dyno: &str) -> Worker {
        let (process, _) = Process::start(self, "worker", dyno, " answers on ");
        Worker { socket: self.root.join(format!("tmp/{dyno}.sock")), _process: process }
    }

    fn procfile_line(&self, kind: &str) -> String {
        let procfile = fs::read_to_string(self.root.join("Procfile")).expect("the Procfile");
        let prefix = format!("{kind}: ");
        procfile.lines().find_map(|line| line.strip_prefix(&prefix)).expect("a line of this type").to_owned()
    }
}

/// A running process of the `Procfile`, killed when dropped.
struct Process(Child);

impl Process {
    /// Starts it and reads its output up to the line that contains `sign`, which is returned too.
    fn start(app: &RailsApp, kind: &str, dyno: &str, sign: &str) -> (Self, String) {
        let mut child = app
            .command("sh")
            .args(["-c", &format!("exec {}", app.procfile_line(kind))])
            .env("DYNO", dyno)
            .env("PORT", "0")
            .stdout(Stdio::piped())
            .spawn()
            .expect("sh runs");
        let output = child.stdout.take().expect("its output is piped");
        let process = Self(child);
        let mut output = BufReader::new(output);
        let mut seen = String::new();
        loop {
            let start = seen.len();
            assert!(output.read_line(&mut seen).expect("text") > 0, "{kind} ended before it was ready:\n{seen}");
            if seen[start..].contains(sign) {
                let line = seen[start..].to_owned();
                // The rest must be read, or the process would stop once the pipe is full.
                std::thread::spawn(move || io::copy(&mut output, &mut io::sink()));
                return (process, line);
            }
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself; there is nobody left to tell.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A web process that serves.
pub struct Web {
    base: String,
    _process: Process,
}

impl Web {
    /// Asks for `path`: the status and the JSON body.
    pub fn get(&self, path: &str) -> (u16, Value) {
        answer(agent().get(self.url(path)).call())
    }

    /// Makes something: `body` is its attributes.
    pub fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        answer(agent().post(self.url(path)).content_type("application/json").send(body.to_string()))
    }

    /// Changes something: `body` is the attributes to change.
    pub fn put(&self, path: &str, body: &Value) -> (u16, Value) {
        answer(agent().put(self.url(path)).content_type("application/json").send(body.to_string()))
    }

    /// The columns of `posts` that this process knows.
    pub fn columns(&self) -> Vec<String> {
        web_columns(&self.base)
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }
}

/// A worker process that answers on its socket.
pub struct Worker {
    socket: PathBuf,
    _process: Process,
}

impl Worker {
    /// The columns of `posts` that this process knows.
    pub fn columns(&self) -> Vec<String> {
        worker_columns(&self.socket).expect("the worker answers")
    }
}

/// The columns of `posts` that the web process at `base` (`http://host:port`) knows.
pub fn web_columns(base: &str) -> Vec<String> {
    columns(&answer(agent().get(format!("{base}/columns")).call()).1)
}

/// The columns of `posts` that the worker behind `socket` knows; an error where none listens.
pub fn worker_columns(socket: &Path) -> io::Result<Vec<String>> {
    let mut stream = UnixStream::connect(socket)?;
    stream.write_all(b"GET / HTTP/1.1\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (_, body) = answer.split_once("\r\n\r\n").expect("a body");
    Ok(columns(&serde_json::from_str(body).expect("JSON")))
}

fn agent() -> ureq::Agent {
    ureq::Agent::config_builder().http_status_as_error(false).proxy(None).build().into()
}

fn answer(response: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> (u16, Value) {
    let mut response = response.expect("the process answers");
    let body = response.body_mut().read_to_string().expect("text");
    (response.status().as_u16(), serde_json::from_str(&body).expect("JSON"))
}

fn columns(knowledge: &Value) -> Vec<String> {
    serde_json::from_value(knowledge["columns"].clone()).expect("a list of names")
}

fn database_yml(databases: &[Database]) -> String {
    let mut yml = String::from("production:\n");
    let several = databases.len() > 1;
    for database in databases {
        if several {
            writeln!(yml, "  {}:", database.name).unwrap();
        }
        let indent = if several { "    " } else { "  " };
        let paths =
            (several && database.name != "primary").then(|| ("migrations_paths".into(), database.migrations_path()));
        for (key, value) in database.settings.iter().chain(&paths) {
            // A JSON string is a YAML string too, whatever is in it.
            writeln!(yml, "{indent}{key}: {}", Value::from(value.as_str())).unwrap();
        }
    }
    yml
}

fn camelize(name: &str) -> String {
    name.split('_').map(|word| word[..1].to_uppercase() + &word[1..]).collect()
}
