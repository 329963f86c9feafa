//! SIGKILL at each of the steps of the real binary, against the stand-in and each of the three engines. Afterwards one
//! undisturbed run has to bring the app where the promise says, and a further one has nothing to do.
//!
//! A *point* is a system call of the main thread by which it can change anything outside of itself: bytes to a file, a
//! socket or a terminal, a sync, a lock, a removal, a connection, a process started, signalled or waited for. A walk
//! kills at the entry of the first write, of the second, and so on until a run comes to its end; then of the first sync,
//! and so on: each point is met before it takes effect, and after it. Those that the promise hangs on are named in
//! [`NAMED`], and the walk goes on until it has stopped on both sides of each.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stderr,
    reason = "a test says what went wrong by failing there, and here also where it was"
)]

#[allow(dead_code, reason = "each test uses its own part of it")]
#[path = "support/mariadb.rs"]
mod mariadb;
#[path = "support/postgres.rs"]
mod postgres;
#[path = "support/scene.rs"]
mod scene;
#[path = "support/servers.rs"]
mod servers;

use std::fs;

use mariadb::{Mariadb, MariadbOptions};
use postgres::{Postgres, PostgresOptions};
use scene::Scene;
use servers::Server;
use unstuck_standin::Options;

/// The system calls that are points.
const CALLS: &[&str] = &[
    "write",
    "writev",
    "pwrite64",
    "fsync",
    "fdatasync",
    "ftruncate",
    "unlink",
    "unlinkat",
    "flock",
    "connect",
    "sendto",
    "sendmsg",
    "shutdown",
    "clone",
    "vfork",
    "kill",
    "waitid",
];

/// Durable writes, API calls and child events: what they are, and what their call shows on SQLite and on the servers.
const NAMED: &[(&str, [&str; 2])] = &[
    ("the app is asked for", ["GET /apps/standin-app "; 2]),
    ("the dynos are listed", ["GET /apps/standin-app/dynos"; 2]),
    ("the record is written", ["db.sqlite3-journal", "read write; insert into"]),
    ("the migration command is started", ["clone("; 2]),
    ("its end is waited for", ["waitid("; 2]),
    ("the restart is asked for", ["DELETE /apps/standin-app/"; 2]),
    ("the record is cleared", ["db.sqlite3-journal", "delete from"]),
];

/// No walk takes that many runs.
const BOUND: u64 = 400;

#[test]
fn killed_at_each_point_on_sqlite() {
    walk(&Scene::new(), Change::WithItsVersion);
}

#[test]
fn killed_at_each_point_of_a_change_without_a_version_on_sqlite() {
    walk(&Scene::new(), Change::Half);
}

#[test]
fn killed_at_each_point_on_postgresql() {
    walk_both(&Postgres::start(&PostgresOptions::default()));
}

#[test]
fn killed_at_each_point_on_mariadb() {
    walk_both(&Mariadb::start(MariadbOptions::default()));
}

fn walk_both(server: &impl Server) {
    walk(&Scene::on(&server.store("whole"), Options::default()), Change::WithItsVersion);
    walk(&Scene::on(&server.store("half"), Options::default()), Change::Half);
}

/// What the killed run was to bring about.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Change {
    WithItsVersion,
    /// Only the record can tell of such a change: no version came with it, and its file is gone before the next run.
    Half,
}

fn walk(scene: &Scene, change: Change) {
    scene.settled();
    let mut walk =
        Walk { scene, change, rounds: 1, ran: vec!["1".to_owned()], kills: Vec::new(), complete: Vec::new() };
    for name in CALLS {
        for nth in 1.. {
            if !walk.kill_at(name, nth) {
                break;
            }
        }
    }
    // How often a run looks whether the child has ended is up to the clock: the n-th call may be another one each time.
    while let Some((_, shown)) = walk.missed() {
        for (name, nth) in walk.around(shown) {
            walk.kill_at(&name, nth);
        }
    }
    eprintln!("killed {} times", walk.kills.len());
}

struct Walk<'a> {
    scene: &'a Scene,
    change: Change,
    rounds: u64,
    /// The versions that Rails has to have run.
    ran: Vec<String>,
    kills: Vec<Kill>,
    /// The calls of the last run that came to its end.
    complete: Vec<String>,
}

impl Walk<'_> {
    /// Kills a run as it enters the `nth` of the calls of this name, and checks what comes of it. `false`: it ended before.
    fn kill_at(&mut self, name: &str, nth: usize) -> bool {
        self.rounds += 1;
        assert!(self.rounds < BOUND, "never stopped at both sides of {:?}", self.missed());
        let half = self.change == Change::Half;
        let version = if half { 2 } else { self.rounds };
        let end = if half { "; false" } else { "" };
        self.scene.migration(version, "change", &format!("sql 'create table t{} (a int)'{end}", self.rounds));
        let killed = self.scene.killed_at(CALLS, name, nth);
        let file = self.scene.path(&format!("db/migrate/{version}_change.rb"));
        if half {
            fs::remove_file(&file).unwrap();
        } else {
            self.ran.push(version.to_string());
        }
        let trace = fs::read_to_string(self.scene.path("trace")).unwrap();
        let calls: Vec<String> = trace.lines().filter(|line| line.contains('(')).map(str::to_owned).collect();
        // What a failure shows.
        eprintln!("{name} {nth}: {:?}", calls.last());
        self.scene.restored();
        assert_eq!(self.scene.ran(), self.ran, "each migration ran once");
        // A version without a file is none of anybody's business; a folder of hundreds would be slow.
        let _ = fs::remove_file(&file);
        match &calls[..] {
            _ if !killed => self.complete = calls,
            [.., after, before] => self.kills.push(Kill { after: after.clone(), before: before.clone() }),
            [before] => self.kills.push(Kill { after: String::new(), before: before.clone() }),
            [] => panic!("killed at no call"),
        }
        killed
    }

    /// A named point before or after which no run was killed yet, and what it shows.
    fn missed(&self) -> Option<(&'static str, &'static str)> {
        let engine = usize::from(!self.scene.env["DATABASE_URL"].starts_with("sqlite"));
        let met = |shown: &str| {
            self.kills.iter().any(|kill| kill.before.contains(shown))
                && self.kills.iter().any(|kill| kill.after.contains(shown))
        };
        NAMED.iter().map(|(what, shown)| (*what, shown[engine])).find(|(_, shown)| !met(shown))
    }

    /// The calls that show this and those that follow them, each by name and number.
    fn around(&self, shown: &str) -> Vec<(String, usize)> {
        let name = |index: usize| self.complete[index].split('(').next().unwrap_or_default();
        let found = (0..self.complete.len()).filter(|&index| self.complete[index].contains(shown));
        let near = found.flat_map(|index| [index, index + 1]).filter(|&index| index < self.complete.len());
        near.map(|index| (name(index).to_owned(), (0..=index).filter(|&earlier| name(earlier) == name(index)).count()))
            .collect()
    }
}

/// Where a run was killed.
struct Kill {
    /// The last call that was completed.
    after: String,
    /// The call that was not.
    before: String,
}
