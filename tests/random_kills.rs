//! SIGKILL at random moments of two runs at once, on each engine: whatever was killed, alone or together with its migration
//! command, one undisturbed run leaves no stuck dyno.
//!
//! A *round* sets something to migrate, lets two runs start at about the same time from two homes (as on two machines),
//! and kills one or both at moments drawn from the length of a run; that up to three times, since what a kill left is what
//! the next one meets. Then one undisturbed run has to bring: exit 0, no debt, each web dyno began after the last change,
//! each migration applied once; and a further one asks the API for nothing.
//!
//! A kill counts when the process was alive and died of it. Forty on each engine unless `UNSTUCK_KILLS` says otherwise:
//!
//! ```text
//! UNSTUCK_KILLS=1000 cargo test --test random_kills -- --nocapture
//! ```
//!
//! A failure prints its seed; `UNSTUCK_SEED` makes the same choices again, as far as moments can be the same.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test says what went wrong by failing there, and here also how much it did"
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

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use mariadb::{Mariadb, MariadbOptions};
use postgres::{Postgres, PostgresOptions};
use scene::{Scene, Store, children_of, signal_groups};
use servers::Server;
use tempfile::TempDir;
use unstuck_standin::{Fact, Options, Pool};

/// As in a scene, with as few processes as can be. It says so when another one runs at the same time, and when a migration
/// is applied a second time.
const RAILS: &str = r#"#!/bin/bash
cd "${0%/*}/.." || exit 1
sql() { CLIENT "$1"; }
# In the place of its input, which a process that ends closes first: as soon as its outputs are closed, the run goes on.
exec 0<> SHARED/alone
flock -n 0 || for other in /proc/[0-9]*; do
  [ "$other" -ef /proc/$$ ] || [ ! "$other/fd/0" -ef SHARED/alone ] && continue
  # A process that was killed closes one file after the other, or waits for its turn to: it does nothing more.
  grep -Eqs '^(State:.[ZX]|ShdPnd:.*[13579bdf]..$)' "$other/status" && continue
  echo "two migration commands at once: $(tr '\0' ' ' < "$other/cmdline") $(grep -E 'State|Pnd' "$other/status")" >> SHARED/wrong
done
applied=$'\n'$(sql 'select version from schema_migrations')$'\n' || exit 1
for file in db/migrate/*.rb; do
  version=${file##*/}
  version=${version%%_*}
  [[ $applied == *$'\n'$version$'\n'* ]] && continue
  . "./$file" || exit 1
  sql "insert into schema_migrations values ('$version')"
  status=$?
  [ $status -gt 0 ] && [ $status -lt 128 ] && echo "the version $version came from elsewhere" >> SHARED/wrong
  [ $status -eq 0 ] || exit 1
done
"#;

/// What differs between the engines.
struct Engine {
    store: Store,
    /// A statement that makes the table `TABLE` anew, in one piece, after `NAP` seconds: with the moment of that as its
    /// only value, and a column `x_MARK`, so that no two of them look alike.
    change: &'static str,
    /// Statements of one transaction begin and end with these.
    together: [&'static str; 2],
    /// A client that is killed leaves its statement running.
    naps: bool,
}

#[test]
fn random_kills_on_sqlite() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("db.sqlite3");
    let store = Store {
        url: format!("sqlite3:{}", file.display()),
        client: format!("sqlite3 -cmd '.timeout 10000' {}", file.display()),
        key: "key",
        moment: "datetime(6)",
    };
    Trial::new(Engine {
        store,
        change: "drop table if exists TABLE; create table TABLE as \
                 select (julianday('now') - 2440587.5) * 86400.0 as at, 1 as x_MARK",
        together: ["begin immediate; ", "; commit"],
        naps: false,
    })
    .run();
}

#[test]
fn random_kills_on_postgresql() {
    let server = Postgres::start(&PostgresOptions::default());
    Trial::new(Engine {
        store: server.store("killed"),
        change: "drop table if exists TABLE; create table TABLE as with nap as materialized (select pg_sleep(NAP)) \
                 select extract(epoch from clock_timestamp())::float8 as at, 1 as x_MARK from nap",
        together: ["begin; ", "; commit"],
        naps: true,
    })
    .run();
}

#[test]
fn random_kills_on_mariadb() {
    let server = Mariadb::start(MariadbOptions::default());
    Trial::new(Engine {
        store: server.store("killed"),
        change: "create or replace table TABLE as \
                 select unix_timestamp(sysdate(6)) + 0.0 as at, 1 as x_MARK from (select sleep(NAP)) as nap",
        // There, a change of the schema is a transaction of its own.
        together: ["", ""],
        naps: true,
    })
    .run();
}

struct Trial {
    scene: Scene,
    engine: Engine,
    /// Where the second run starts: another working directory, home and place for temporary files.
    second: TempDir,
    dice: Dice,
    /// How long a run takes that nothing disturbs.
    length: Duration,
    nap: Nap,
    version: u64,
    /// When each dyno began, as far as the journal was read.
    began: BTreeMap<String, f64>,
    read: u64,
    kills: usize,
    orphans: usize,
    expected: BTreeSet<u64>,
}

impl Trial {
    fn new(engine: Engine) -> Self {
        let seed = std::env::var("UNSTUCK_SEED").ok().and_then(|seed| seed.parse().ok());
        let dice = Dice(seed.unwrap_or_else(|| getrandom::u64().unwrap()));
        let scene = Scene::on(&engine.store, Options::default());
        scene.standin.set_pool(Pool { remaining: 1_000_000, refill_ms: 1 });
        let mut trial = Self {
            second: scene.elsewhere(),
            scene,
            engine,
            dice,
            length: Duration::ZERO,
            nap: Nap::None,
            version: 1,
            began: BTreeMap::new(),
            read: 0,
            kills: 0,
            orphans: 0,
            expected: BTreeSet::from([1]),
        };
        trial.prepare();
        trial
    }

    fn prepare(&mut self) {
        self.scene.settled();
        let root = self.scene.root.path();
        let rails = RAILS.replace("CLIENT", &self.engine.store.client).replace("SHARED", &root.display().to_string());
        fs::write(self.scene.path("bin/rails"), rails).unwrap();
        // The tables that the changes make anew: by a first migration, by a second one, by hand.
        for table in ["a", "b", "h"] {
            self.scene.sql(&self.change(table, 0.0, "0"));
        }
        self.pending();
        let started = Instant::now();
        self.undisturbed();
        self.length = started.elapsed();
        self.check();
    }

    fn run(mut self) {
        let wanted = std::env::var("UNSTUCK_KILLS").map_or(40, |wanted| wanted.parse().unwrap());
        let started = Instant::now();
        let mut rounds = 0;
        while self.kills < wanted {
            rounds += 1;
            // What a failure shows.
            eprintln!("round {rounds}, seed {}, {} kills", self.dice.0, self.kills);
            self.round();
        }
        println!(
            "{}: {} kills in {rounds} rounds, {} orphans, {:.0} s",
            std::thread::current().name().unwrap_or_default(),
            self.kills,
            self.orphans,
            started.elapsed().as_secs_f32()
        );
    }

    fn round(&mut self) {
        let story = self.set();
        for _ in 0..=self.dice.below(3) {
            self.disturbed();
        }
        self.mend(story);
        self.undisturbed();
        self.check();
    }

    /// Something to migrate; now and then also an old debt, and a migration by hand.
    fn set(&mut self) -> Story {
        self.nap = match self.dice.below(4) {
            0 => Nap::AtBoot,
            1 if self.engine.naps => Nap::InTheServer,
            _ => Nap::None,
        };
        let story = match self.dice.below(4) {
            0 => Story::SecondFails,
            1 => Story::Half,
            _ => Story::Whole,
        };
        self.pending();
        match story {
            Story::Whole => {}
            Story::SecondFails => self.migration(self.version + 1, "b", "; false"),
            Story::Half => self.migration(self.version, "a", "; false"),
        }
        if self.dice.once_in(4) {
            self.old_debt();
        }
        if self.dice.once_in(4) {
            self.by_hand();
        }
        story
    }

    /// One new migration, in place of the last one's file.
    fn pending(&mut self) {
        let folder = self.scene.path("db/migrate");
        for file in fs::read_dir(&folder).unwrap() {
            fs::remove_file(file.unwrap().path()).unwrap();
        }
        self.version += 10;
        self.migration(self.version, "a", "");
    }

    fn migration(&self, version: u64, table: &str, end: &str) {
        let boot = if self.nap == Nap::AtBoot { format!("sleep {NAP_S}; ") } else { String::new() };
        let nap_s = if self.nap == Nap::InTheServer { NAP_S } else { 0.0 };
        let change = self.change(table, nap_s, "$$_$RANDOM");
        self.scene.migration(version, table, &format!("{boot}sql \"{change}\"{end}"));
    }

    fn change(&self, table: &str, nap_s: f32, mark: &str) -> String {
        let [begin, commit] = self.engine.together;
        let change = self.engine.change.replace("TABLE", table).replace("NAP", &nap_s.to_string());
        format!("{begin}{}{commit}", change.replace("MARK", mark))
    }

    /// A run of yesterday, which did not come to its restart.
    fn old_debt(&self) {
        let (key, app, run) = (self.engine.store.key, self.scene.standin.app_id(), self.version);
        let value = r#"{"v":1,"ph":"D","ep":"-","from":"00000000","n":1,"tag":"01234567","by":"yesterday"}"#;
        self.scene.sql(&format!(
            "insert into ar_internal_metadata ({key}, value, created_at, updated_at) values \
             ('unstuck:debt:{app}:{run:016x}', '{value}', current_timestamp, current_timestamp)"
        ));
    }

    /// A migration that nobody told us of, and whose file is not here.
    fn by_hand(&mut self) {
        let version = self.version + 5 + self.dice.below(4);
        if !self.expected.insert(version) {
            return;
        }
        let [begin, commit] = self.engine.together;
        let change = self.change("h", 0.0, &version.to_string());
        let change = change.trim_start_matches(begin).trim_end_matches(commit);
        self.scene.sql(&format!("{begin}{change}; insert into schema_migrations values ('{version}'){commit}"));
    }

    /// Two runs at once, one or both of them killed.
    fn disturbed(&mut self) {
        let mut runs = [Some(self.start(self.scene.root.path())), None];
        let nap = if self.nap == Nap::None { Duration::ZERO } else { Duration::from_secs_f32(NAP_S) };
        let length = u64::try_from((self.length + nap).as_micros()).unwrap();
        let mut moments: Vec<(u64, Event)> = vec![(self.dice.below(length / 2), Event::Second)];
        let first = usize::try_from(self.dice.below(2)).unwrap();
        moments.push((self.dice.below(length * 3 / 2), Event::Kill(first, self.dice.once_in(3))));
        if self.dice.once_in(2) {
            moments.push((self.dice.below(length * 2), Event::Kill(1 - first, self.dice.once_in(3))));
        }
        if self.dice.once_in(8) {
            moments.push((self.dice.below(length * 3 / 2), Event::KillCommand));
        }
        if self.dice.once_in(8) {
            moments.push((self.dice.below(length * 3 / 2), Event::ByHand));
        }
        moments.sort_by_key(|(moment, _)| *moment);
        let started = Instant::now();
        for (moment, event) in moments {
            std::thread::sleep(Duration::from_micros(moment).saturating_sub(started.elapsed()));
            match event {
                Event::Second => runs[1] = Some(self.start(self.second.path())),
                Event::Kill(index, command_too) => {
                    if let Some(run) = runs[index].take() {
                        self.kill(run, command_too);
                    }
                }
                Event::KillCommand => {
                    for run in runs.iter().flatten() {
                        signal_groups(&children_of(run), libc::SIGKILL);
                    }
                }
                Event::ByHand => self.by_hand(),
            }
        }
        for mut run in runs.into_iter().flatten() {
            let code = run.wait().unwrap().code();
            assert!(matches!(code, Some(0 | 3 | 4 | 9)), "a run that was not killed ended with {code:?}");
        }
    }

    fn start(&self, home: &Path) -> Child {
        let mut command = self.scene.command_on(home, &["migrate"]);
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    fn kill(&mut self, mut run: Child, command_too: bool) {
        let commands = children_of(&run);
        run.kill().unwrap();
        if command_too {
            signal_groups(&commands, libc::SIGKILL);
        }
        if run.wait().unwrap().signal() == Some(libc::SIGKILL) {
            self.kills += 1;
            self.orphans += usize::from(!command_too && !commands.is_empty());
        }
    }

    /// So that nothing is in the way of the undisturbed run.
    fn mend(&mut self, story: Story) {
        match story {
            Story::Whole => {}
            Story::SecondFails => {
                self.migration(self.version + 1, "b", "");
                self.expected.insert(self.version + 1);
            }
            // Withdrawn: then only the record can tell. The orphan may have read the file before.
            Story::Half if self.dice.once_in(2) => {
                fs::remove_file(self.scene.path(&format!("db/migrate/{}_a.rb", self.version))).unwrap();
                return;
            }
            Story::Half => self.migration(self.version, "a", ""),
        }
        self.expected.insert(self.version);
    }

    fn undisturbed(&mut self) {
        let ran = self.scene.unstuck(&["migrate", "--json"]);
        assert_eq!(ran.code, Some(0), "{ran:?}");
    }

    fn check(&mut self) {
        let key = self.engine.store.key;
        let seen = self.scene.sql(&format!(
            "select (select count(*) from ar_internal_metadata where {key} like 'unstuck:debt:%'), (select max(at) from \
             (select at from a union all select at from b union all select at from h) as every)"
        ));
        let (debts, changed) = seen.split_once(['|', '\t']).unwrap();
        assert_eq!(debts, "0", "a restart is owed");
        let changed: f64 = changed.parse().unwrap();

        for entry in self.scene.standin.journal(self.read) {
            self.read = entry.seq;
            if let Fact::Began { dyno, .. } = entry.fact {
                self.began.insert(dyno.clone(), entry.at.as_duration().as_secs_f64());
            }
        }
        for id in self.scene.ids("web") {
            let began = self.began[&id];
            assert!(began > changed, "a stuck dyno: it began at {began}, the last change was at {changed}");
        }

        let applied = self.scene.sql("select version from schema_migrations");
        let applied: BTreeSet<u64> = applied.lines().map(|version| version.parse().unwrap()).collect();
        assert!(applied.is_superset(&self.expected), "{applied:?} lacks some of {:?}", self.expected);
        let wrong = fs::read_to_string(self.scene.path("wrong")).unwrap_or_default();
        assert_eq!(wrong, "");

        self.scene.unstuck(&["migrate"]).code(0);
        assert_eq!(self.scene.requests(self.read), [""; 0], "a further run has nothing to ask for");
    }
}

#[derive(Clone, Copy)]
enum Story {
    Whole,
    /// The second of two.
    SecondFails,
    /// The schema is changed, no version comes with it.
    Half,
}

/// What makes a migration command live longer than the run that started it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Nap {
    None,
    /// Before it does anything.
    AtBoot,
    /// Within the statement that changes the schema, which a killed client leaves behind.
    InTheServer,
}

const NAP_S: f32 = 0.3;

enum Event {
    /// The second run starts.
    Second,
    /// One of the runs is killed; its migration command, too, or it lives on as an orphan.
    Kill(usize, bool),
    /// Only the migration commands are killed.
    KillCommand,
    ByHand,
}

/// Numbers that only the seed decides (the generator `SplitMix64`).
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % limit
    }

    fn once_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }
}
