//! The real `heroku` CLI against the stand-in.
//!
//! It is installed from npm once, and kept, for it has 395 MB; `UNSTUCK_HEROKU_CLI_DIR` says where.

#![allow(clippy::unwrap_used, reason = "a test's helpers fail as tests do")]

mod common;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use common::{column, until};
use tempfile::TempDir;
use unstuck_standin::{Attach, Deploy, Fact, Mode, Options, Standin};

const VERSION: &str = "11.10.0";

/// Where the CLI is kept: beside a build folder that was chosen by hand, so that several builds share it, else inside the build
/// folder, where no repository sees it.
fn folder() -> PathBuf {
    let chosen = std::env::var_os("UNSTUCK_HEROKU_CLI_DIR").map(PathBuf::from);
    let beside = || Some(PathBuf::from(std::env::var_os("CARGO_TARGET_DIR")?).join("../heroku-cli"));
    let inside = || Path::new(env!("CARGO_TARGET_TMPDIR")).join("../../heroku-cli");
    chosen.or_else(beside).unwrap_or_else(inside)
}

/// Installs the CLI where it is not there yet, and gives its program. One test process installs, others wait for it.
fn install() -> PathBuf {
    let folder = folder();
    std::fs::create_dir_all(&folder).unwrap();
    let folder = folder.canonicalize().unwrap();
    let lock = File::create(folder.join("lock")).unwrap();
    lock.lock().unwrap();
    let package = std::fs::read_to_string(folder.join("node_modules/heroku/package.json")).unwrap_or_default();
    if !package.contains(&format!("\"version\": \"{VERSION}\"")) {
        let installed = Command::new("npm")
            .args(["install", "--prefix"])
            .arg(&folder)
            .args([&format!("heroku@{VERSION}"), "--ignore-scripts", "--no-audit", "--no-fund"])
            .stdin(Stdio::null())
            .status();
        let installed = installed
            .unwrap_or_else(|error| panic!("npm is needed to install the heroku CLI (apt-get install npm): {error}"));
        assert!(installed.success(), "npm could not install heroku@{VERSION} into {}", folder.display());
    }
    folder.join("node_modules/.bin/heroku")
}

/// The CLI with an environment and a home of its own: it writes into both.
struct Cli<'a> {
    program: PathBuf,
    home: TempDir,
    standin: &'a Standin,
}

struct Output {
    stdout: String,
    stderr: String,
}

impl Cli<'_> {
    fn command(&self, args: &[&str]) -> Command {
        let home = self.home.path();
        let path = std::env::var_os("PATH").unwrap_or_default();
        let home_of = |name: &str| home.join(name);
        let mut command = Command::new(&self.program);
        command
            .args(args)
            .args(["--app", self.standin.app()])
            .current_dir(home)
            .env_clear()
            .env("PATH", path)
            .env("HOME", home)
            .env("XDG_CONFIG_HOME", home_of("config"))
            .env("XDG_DATA_HOME", home_of("data"))
            .env("XDG_CACHE_HOME", home_of("cache"))
            .env("GIT_CONFIG_GLOBAL", home_of("gitconfig"))
            .env("DISABLE_TELEMETRY", "true")
            .env("HEROKU_HOST", self.standin.url())
            .env("HEROKU_PARTICLEBOARD_URL", self.standin.url())
            .env("HEROKU_API_KEY", self.standin.token())
            .stdin(Stdio::null());
        command
    }

    /// Runs a command, which has to succeed.
    fn run(&self, args: &[&str]) -> Output {
        let output = self.command(args).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
        assert!(output.status.success(), "heroku {args:?}: {}\n{stdout}\n{stderr}", output.status);
        Output { stdout, stderr }
    }

    /// Runs a command that does not end, until a line of its output holds `wanted`.
    fn run_until(&self, args: &[&str], wanted: &str) {
        let mut child = self.command(args).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let found = lines.map_while(Result::ok).any(|line| line.contains(wanted));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(found, "heroku {args:?} ended without {wanted:?}");
    }
}

impl Cli<'_> {
    /// `heroku run --exit-code`: the code, and what it printed.
    fn attached(&self, args: &[&str]) -> (Option<i32>, String) {
        let authority = self.standin.authority().unwrap();
        let args: Vec<&str> = ["run", "--exit-code", "--"].iter().chain(args).copied().collect();
        let mut command = self.command(&args[..2]);
        let output = command.args(&args[2..]).env("NODE_EXTRA_CA_CERTS", authority).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout) + &text(&output.stderr))
    }
}

/// The protocol of the rendezvous as the real client speaks it.
#[test]
fn the_real_cli_attaches_to_a_dyno_and_takes_its_exit_status() {
    let program = install();
    let root = TempDir::new().unwrap();
    std::fs::write(root.path().join("Procfile"), "worker: exec sleep 1000\n").unwrap();
    let mode = Mode::Procfile {
        root: root.path().into(),
        procfile: None,
        env: BTreeMap::new(),
        grace: Duration::from_secs(30),
    };
    let formation = BTreeMap::from([("worker".to_owned(), 1)]);
    let standin = Standin::start(Options { mode, formation, ..Options::default() }).unwrap();
    let cli = Cli { program, home: TempDir::new().unwrap(), standin: &standin };
    for (script, code, said) in [("tty; exit 0", Some(0), "/dev/pts/"), ("seq 20000; exit 3", Some(3), "\n20000\n")] {
        let (found, output) = cli.attached(&["sh", "-c", script]);
        assert_eq!(found, code, "{output}");
        assert!(output.contains(said), "{output}");
    }
    // It takes no answer for success.
    standin.set_attach(Attach::CutAt("cut here".into()));
    let (found, output) = cli.attached(&["echo", "cut here"]);
    assert_ne!(found, Some(0), "{output}");
}

fn ids(standin: &Standin) -> Vec<String> {
    column(&standin.dynos(), "id")
}

#[track_caller]
fn has(text: &str, wanted: &[&str]) {
    for wanted in wanted {
        assert!(text.contains(wanted), "no {wanted:?} in:\n{text}");
    }
}

#[test]
fn the_real_cli_works_against_the_stand_in() {
    let program = install();
    let config = BTreeMap::from([("RAILS_ENV".to_owned(), "production".to_owned())]);
    let standin = Standin::start(Options { config, ..Options::default() }).unwrap();
    standin.deploy(Deploy { commit: Some("1a2b3c4d".into()), ..Deploy::default() }).unwrap();
    let cli = Cli { program, home: TempDir::new().unwrap(), standin: &standin };

    has(
        &cli.run(&["ps"]).stdout,
        &["=== web (Standard-1X): bundle exec puma", "web.1: up 20", "web.2: up 20", "worker.1: up 20"],
    );

    let before = ids(&standin);
    has(
        &cli.run(&["ps:restart", "--process-type", "web"]).stderr,
        &["Restarting all web dynos on standin-app... done"],
    );
    let after = ids(&standin);
    assert!(before[0] != after[0] && before[1] != after[1] && before[2] == after[2], "{before:?} {after:?}");
    has(
        &cli.run(&["ps:restart", "--dyno-name", "worker.1"]).stderr,
        &["Restarting dyno worker.1 on standin-app... done"],
    );
    assert_ne!(ids(&standin)[2], before[2]);
    has(&cli.run(&["ps:stop", "--dyno-name", "web.1"]).stderr, &["Stopping dyno web.1 on standin-app... done"]);
    assert_ne!(ids(&standin)[0], after[0]);
    has(&cli.run(&["ps:scale", "web=3"]).stderr, &["now running web at 3:Standard-1X"]);
    assert_eq!(ids(&standin).len(), 4);
    cli.run(&["ps:wait"]);

    has(
        &cli.run(&["releases"]).stdout,
        &["standin-app Releases - Current: v2", "v2", "Deploy 1a2b3c4d", "dev@example.com"],
    );
    has(&cli.run(&["rollback", "v1"]).stderr, &["Rolling back standin-app to v1... done, v3"]);
    assert_eq!(standin.releases()[2]["description"], "Rollback to v1");

    has(
        &cli.run(&["logs", "--num", "500"]).stdout,
        &["heroku[web.1]: State changed from starting to up", "heroku[api]: Release v3 created by dev@example.com"],
    );
    standin.say("app", "web.1", "a line to wait for");
    cli.run_until(&["logs", "--tail", "--process-type", "web", "--source", "app"], "app[web.1]: a line to wait for");
    has(&cli.run(&["config"]).stdout, &["RAILS_ENV", "production"]);
    cli.run(&["config:set", "A=1"]);
    assert_eq!(standin.releases()[3]["description"], "Set A config vars");
    has(&cli.run(&["apps:info"]).stdout, &["standin-app"]);
    has(&cli.run(&["features:info", "preboot"]).stdout, &["preboot", "Enabled", "false"]);

    has(
        &cli.run(&["run:detached", "rails db:migrate"]).stderr,
        &["Running rails db:migrate on standin-app... done, run."],
    );
    assert!(standin.dynos().iter().any(|dyno| dyno["command"] == "rails db:migrate" && dyno["type"] == "run"));

    has(&cli.run(&["maintenance:on"]).stderr, &["Enabling maintenance mode for standin-app... done"]);
    let patched = |fact: &Fact| matches!(fact, Fact::Request { method, acted: true, .. } if method == "PATCH");
    until("the record of the change", || standin.journal(0).iter().any(|entry| patched(&entry.fact)));
    has(&cli.run(&["maintenance"]).stdout, &["on"]);
}
