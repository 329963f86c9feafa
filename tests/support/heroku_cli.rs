//! The real `heroku` CLI.
//!
//! It is installed from npm once, and kept, for it has 395 MB; `UNSTUCK_HEROKU_CLI_DIR` says where.

#![allow(dead_code, reason = "each test file uses its own part of this")]

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;
use unstuck_standin::Standin;

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
pub struct Cli<'a> {
    program: PathBuf,
    home: TempDir,
    standin: &'a Standin,
}

pub struct Output {
    pub stdout: String,
    pub stderr: String,
}

impl<'a> Cli<'a> {
    pub fn of(standin: &'a Standin) -> Self {
        Self { program: install(), home: TempDir::new().unwrap(), standin }
    }

    pub fn command(&self, args: &[&str]) -> Command {
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
    pub fn run(&self, args: &[&str]) -> Output {
        let output = self.command(args).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
        assert!(output.status.success(), "heroku {args:?}: {}\n{stdout}\n{stderr}", output.status);
        Output { stdout, stderr }
    }

    /// Runs a command that does not end, until a line of its output holds `wanted`.
    pub fn run_until(&self, args: &[&str], wanted: &str) {
        let mut child = self.command(args).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let found = lines.map_while(Result::ok).any(|line| line.contains(wanted));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(found, "heroku {args:?} ended without {wanted:?}");
    }
}
