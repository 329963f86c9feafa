//! A world in memory: databases, platform, migration command and time, behind the program's own ports.
//!
//! Every call is a named point at which the run can be stopped, as SIGKILL would stop it, or the call can fail; before its
//! effect or after it. Nothing in the program notices the stop: what it would have done next does not happen.

use std::collections::{BTreeMap, VecDeque};
use std::os::fd::RawFd;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use unstuck::act::{Patience, Rules, World};
use unstuck::adapters::signals::Interrupt;
use unstuck::args::Color;
use unstuck::config::{Place, Policy, Strategy, Types};
use unstuck::debt::{
    Digest, Entry, Epoch, Home, Intent, Note, Proved, Receipt, Records, Verdict, debt_key, proved_key,
};
use unstuck::dynos::{App, Dyno, DynoList, Formation, Generation, Release, ReleaseStatus};
use unstuck::migrations::{Files, Migrations, Version};
use unstuck::observe::Target;
use unstuck::plan::Run;
use unstuck::ports::{
    ApiError, ApiErrorKind, Clock, Database, Ended, Exit, Lock, LogLines, LogQuery, Look, Platform, Runner, Settlement,
    SqlError, SqlErrorKind,
};
use unstuck::processes;
use unstuck::rails::{self, Engine};
use unstuck::report::{End, Reporter};

const APP: &str = "01234567-89ab-cdef-0123-456789abcdef";

/// The server's life. It has one.
const EPOCH: &str = "server@1700000000";

/// The platform's clock has nothing to do with ours.
const PLATFORM_EPOCH_S: i64 = 1_800_000_000;

/// An accepted restart takes this long until the old process is gone.
const REPLACING: Duration = Duration::from_millis(1_500);

/// A child without its tool takes its time: each of its steps is this long in coming.
const ORPHAN_STEP: Duration = Duration::from_secs(3);

/// What running one migration file does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Changes the schema and adds the version, in one transaction.
    Succeeds,
    /// Changes nothing.
    Fails,
    /// Changes the schema and fails then, without a version.
    Half,
}

/// What becomes of the child when its tool is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Orphan {
    Dies,
    /// It goes on slowly, whatever the next run does.
    LivesLong,
    /// It takes a step with each call of the next run.
    LivesOn,
    /// It dies, but the statement that it had sent goes on in the server, and commits.
    LeavesStatement,
}

impl Orphan {
    pub const ALL: [Self; 4] = [Self::Dies, Self::LivesLong, Self::LivesOn, Self::LeavesStatement];
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    StopBefore,
    StopAfter,
    /// The call fails without an effect, and the caller cannot know.
    FailBefore,
    /// The call has its effect, and the caller is told of a failure.
    FailAfter,
    /// The API says 403.
    Forbid,
}

/// What happens at the `at`th call of a run.
#[derive(Debug, Clone, Copy)]
pub struct Fault {
    pub at: usize,
    pub how: How,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Holder {
    Tool(usize),
    Child(usize),
}

#[derive(Debug, Clone, Default)]
pub struct Schema {
    pub files: Vec<(u64, Fate)>,
    pub applied: Vec<u64>,
    /// Whether Rails' own table is there.
    pub metadata: bool,
    changes: usize,
    rows: Vec<(Home, String, String)>,
    lock: Vec<Holder>,
}

#[derive(Debug, Clone, Copy)]
enum Work {
    Migrate { database: usize, version: u64, fate: Fate },
    Cycle,
}

#[derive(Debug, Clone)]
enum Stage {
    Boots,
    Connects,
    Works(VecDeque<Work>),
    Exits(i32),
}

#[derive(Debug, Clone)]
struct Child {
    run: usize,
    /// The files of each database as they were when it was started: a later deploy changes nothing for it.
    files: Vec<Vec<(u64, Fate)>>,
    stage: Stage,
    /// `Some`: its tool is gone.
    orphan: Option<Orphan>,
    due: Duration,
}

impl Child {
    fn connected(&self) -> bool {
        matches!(self.stage, Stage::Works(_) | Stage::Exits(_))
    }

    fn event(&self) -> String {
        match &self.stage {
            Stage::Boots => "child: boots".into(),
            Stage::Connects => "child: connects".into(),
            Stage::Exits(_) => "child: exits".into(),
            Stage::Works(works) => match works.front() {
                None => "child: has no more to do".into(),
                Some(Work::Cycle) => "child: meanwhile a dyno cycles".into(),
                Some(Work::Migrate { version, fate: Fate::Succeeds, .. }) => format!("child: commits {version}"),
                Some(Work::Migrate { version, fate: Fate::Fails, .. }) => format!("child: fails at {version}"),
                Some(Work::Migrate { version, fate: Fate::Half, .. }) => format!("child: half of {version}"),
            },
        }
    }
}

#[derive(Debug, Clone)]
struct Process {
    dyno: Dyno,
    began: u64,
    /// When an accepted restart takes effect.
    goes_at: Option<Duration>,
}

/// All that is true outside of the program, and the journal of it.
#[derive(Debug, Clone)]
pub struct Sim {
    pub databases: Vec<Schema>,
    /// While the child works, the platform replaces a dyno of its own accord.
    pub cycles: bool,
    processes: Vec<Process>,
    releases: Vec<Release>,
    children: Vec<Child>,
    now: Duration,
    sequence: u64,
    changed: u64,
    booted: u64,
    /// By dyno name: how often a restart by the API was begun.
    restarts: BTreeMap<String, usize>,
    /// Rules that were broken, in order.
    pub broken: Vec<String>,
}

impl Sim {
    /// Two web dynos and a worker, newer than the schema; `proved`: and the ledger says so.
    pub fn new(databases: Vec<Schema>, proved: bool) -> Self {
        let mut sim = Self {
            databases,
            cycles: false,
            processes: Vec::new(),
            releases: vec![Release { version: 7, status: ReleaseStatus::Succeeded, created_at: Timestamp::UNIX_EPOCH }],
            children: Vec::new(),
            now: Duration::from_secs(1_000),
            sequence: 1,
            changed: 1,
            booted: 0,
            restarts: BTreeMap::new(),
            broken: Vec::new(),
        };
        for name in ["web.1", "web.2", "worker.1"] {
            sim.boot(name, 7);
        }
        for schema in sim.databases.iter_mut().filter(|_| proved) {
            let ver = schema.digest().as_str().to_owned();
            let (cnt, at) = (schema.applied.len(), Some(PLATFORM_EPOCH_S + 1_000));
            let value = Proved { v: 1, ver, cnt, run: "0".repeat(16), at, ty: Some("web".into()), ch: None }.to_value();
            let home = schema.home();
            schema.rows.push((home, proved_key(APP), value));
        }
        sim
    }

    /// Somebody migrates without the program.
    pub fn migrate_by_hand(&mut self, database: usize, version: u64) {
        self.databases[database].applied.push(version);
        self.change(database);
    }

    /// Whether every web process began after the last change.
    pub fn all_new(&self) -> bool {
        self.processes.iter().filter(|process| process.dyno.kind == "web").all(|process| process.began > self.changed)
    }

    pub fn has_debts(&self) -> bool {
        self.databases.iter().any(Schema::has_debt)
    }

    pub fn most_restarts(&self) -> usize {
        self.restarts.values().copied().max().unwrap_or(0)
    }

    /// A release begins whose phase runs the program.
    pub fn release_begins(&mut self) -> u64 {
        let version = self.releases.iter().map(|release| release.version).max().unwrap_or(0) + 1;
        self.releases.insert(0, Release { version, status: ReleaseStatus::Pending, created_at: Timestamp::UNIX_EPOCH });
        version
    }

    /// The release command has ended: where it went well the platform starts every process anew, else it does nothing.
    pub fn release_ends(&mut self, well: bool) {
        self.releases[0].status = if well { ReleaseStatus::Succeeded } else { ReleaseStatus::Failed };
        let (version, names) = (self.releases[0].version, self.names());
        for name in names.iter().filter(|_| well) {
            self.boot(name, version);
        }
        self.check("the end of a release");
    }

    /// Whoever runs on without a tool comes to an end.
    pub fn orphans_end(&mut self) {
        while let Some(index) = self.children.iter().position(|child| child.orphan.is_some()) {
            self.step(index);
        }
    }

    fn names(&self) -> Vec<String> {
        self.processes.iter().map(|process| process.dyno.name.clone()).collect()
    }

    fn change(&mut self, database: usize) {
        self.sequence += 1;
        self.changed = self.sequence;
        self.databases[database].changes += 1;
    }

    fn boot(&mut self, name: &str, release: u64) {
        self.processes.retain(|process| process.dyno.name != name);
        self.sequence += 1;
        self.booted += 1;
        let kind = name.split('.').next().unwrap_or_default().to_owned();
        let dyno = Dyno {
            id: format!("boot-{}", self.booted),
            name: name.to_owned(),
            kind,
            state: "up".into(),
            created_at: self.date(),
            release: Some(release),
        };
        self.processes.push(Process { dyno, began: self.sequence, goes_at: None });
        self.processes.sort_by(|a, b| a.dyno.name.cmp(&b.dyno.name));
    }

    /// The platform's clock, in whole seconds.
    fn date(&self) -> Timestamp {
        let seconds = i64::try_from(self.now.as_secs()).unwrap_or(i64::MAX);
        Timestamp::from_second(PLATFORM_EPOCH_S + seconds).unwrap()
    }

    /// A restart is accepted, and takes effect later.
    fn restart(&mut self, wanted: impl Fn(&Dyno) -> bool) {
        let goes_at = self.now + REPLACING;
        for process in self.processes.iter_mut().filter(|process| wanted(&process.dyno)) {
            process.goes_at.get_or_insert(goes_at);
            *self.restarts.entry(process.dyno.name.clone()).or_default() += 1;
        }
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        let due: Vec<(String, u64)> = self
            .processes
            .iter()
            .filter(|process| process.goes_at.is_some_and(|at| at <= self.now))
            .map(|process| (process.dyno.name.clone(), process.dyno.release.unwrap_or(0)))
            .collect();
        for (name, release) in due {
            self.boot(&name, release);
        }
        while let Some(index) = self.children.iter().position(|child| child.orphan.is_some() && child.due <= self.now) {
            self.step(index);
        }
    }

    /// One event of a child; `Some` is its exit code.
    fn step(&mut self, index: usize) -> Option<i32> {
        let mut child = self.children.remove(index);
        let event = child.event();
        let mut code = None;
        match &mut child.stage {
            Stage::Boots => child.stage = Stage::Connects,
            Stage::Connects => {
                if self.children.iter().any(Child::connected) {
                    self.broken.push("two migrations run at once".into());
                }
                child.stage = Stage::Works(self.to_do(&child.files));
            }
            Stage::Works(works) => match works.pop_front() {
                None => child.stage = Stage::Exits(0),
                Some(Work::Cycle) => self.boot("web.1", 7),
                Some(Work::Migrate { database, version, fate }) => {
                    if self.databases[database].applied.contains(&version) {
                        self.broken.push(format!("migration {version} is applied twice"));
                    }
                    if fate != Fate::Fails {
                        self.databases[database].metadata = true;
                        self.change(database);
                    }
                    if fate == Fate::Succeeds {
                        self.databases[database].applied.push(version);
                    } else {
                        child.stage = Stage::Exits(1);
                    }
                }
            },
            Stage::Exits(exit) => code = Some(*exit),
        }
        child.due = self.now + ORPHAN_STEP;
        if code.is_some() || child.orphan == Some(Orphan::LeavesStatement) {
            self.release_lock(Holder::Child(child.run));
        } else {
            self.children.insert(index, child);
        }
        self.check(&event);
        code
    }

    /// What Rails would run now.
    fn to_do(&self, files: &[Vec<(u64, Fate)>]) -> VecDeque<Work> {
        let mut works = VecDeque::new();
        for (database, (schema, files)) in self.databases.iter().zip(files).enumerate() {
            for &(version, fate) in files.iter().filter(|(version, _)| !schema.applied.contains(version)) {
                works.push_back(Work::Migrate { database, version, fate });
            }
        }
        if self.cycles && !works.is_empty() {
            works.insert(1, Work::Cycle);
        }
        works
    }

    fn release_lock(&mut self, holder: Holder) {
        for schema in &mut self.databases {
            schema.lock.retain(|held| *held != holder);
        }
    }

    /// A tool has ended, by itself or by a kill.
    fn tool_is_gone(&mut self, run: usize, fate: Orphan) {
        self.release_lock(Holder::Tool(run));
        let due = self.now + ORPHAN_STEP;
        let Some(index) = self.children.iter().position(|child| child.run == run) else { return };
        let child = &mut self.children[index];
        let sent = matches!(&child.stage, Stage::Works(works) if matches!(works.front(), Some(Work::Migrate { .. })));
        let lives = match fate {
            Orphan::Dies => false,
            Orphan::LivesLong | Orphan::LivesOn => true,
            Orphan::LeavesStatement => sent,
        };
        (child.orphan, child.due) = (Some(fate), due);
        if !lives {
            self.children.remove(index);
        }
        if matches!(fate, Orphan::Dies | Orphan::LeavesStatement) {
            self.release_lock(Holder::Child(run));
        }
    }

    /// The oracle: at every moment when the ledger reads closed, every web process began after the last change.
    fn check(&mut self, after: &str) {
        if self.databases.iter().all(Schema::closed) && !self.all_new() {
            self.broken.push(format!("after `{after}` the ledger reads closed, but an old process is there"));
        }
    }
}

impl Schema {
    /// One migration is applied; `pending` are not.
    pub fn with(pending: &[(u64, Fate)]) -> Self {
        let mut files = vec![(1, Fate::Succeeds)];
        files.extend(pending);
        Self { files, applied: vec![1], metadata: true, ..Self::default() }
    }

    /// Not even Rails' own tables are there.
    pub fn fresh() -> Self {
        Self { files: vec![(1, Fate::Succeeds)], ..Self::default() }
    }

    fn versions(&self) -> Vec<Version> {
        self.applied.iter().map(|version| Version::from_digits(&version.to_string())).collect()
    }

    /// Asked for after each call of each run, so it is kept.
    fn digest(&self) -> Digest {
        static KNOWN: Mutex<BTreeMap<Vec<u64>, Digest>> = Mutex::new(BTreeMap::new());
        let mut known = locked(&KNOWN);
        known.entry(self.applied.clone()).or_insert_with(|| Digest::of(&self.versions())).clone()
    }

    fn home(&self) -> Home {
        if self.metadata { Home::Metadata } else { Home::Own }
    }

    fn has_debt(&self) -> bool {
        self.rows.iter().any(|(_, key, _)| key.starts_with(&debt_key(APP, "")))
    }

    fn closed(&self) -> bool {
        let proved = |value: &str| {
            serde_json::from_str::<Proved>(value).is_ok_and(|proved| proved.ver == self.digest().as_str())
        };
        let mut proofs = self.rows.iter().filter(|(_, key, _)| *key == proved_key(APP));
        !self.has_debt() && proofs.any(|(_, _, value)| proved(value))
    }

    fn upsert(&mut self, key: &str, value: &str) {
        let home = self.home();
        self.rows.retain(|(at, old, _)| (*at, old.as_str()) != (home, key));
        self.rows.push((home, key.to_owned(), value.to_owned()));
    }

    fn settle(&mut self, settlement: &Settlement) -> bool {
        if self.digest() != settlement.expected {
            return false;
        }
        let is = |row: &(Home, String, String), entry: &Entry| {
            (row.0, &row.1, &row.2) == (entry.home, &entry.key, &entry.value)
        };
        self.rows.retain(|row| !settlement.gone.iter().any(|entry| is(row, entry)));
        for (entry, value) in &settlement.kept {
            for row in self.rows.iter_mut().filter(|row| is(row, entry)) {
                row.2.clone_from(value);
            }
        }
        let (key, value) = &settlement.proof;
        let home = self.home();
        self.rows.retain(|(at, old, _)| *at == home || old != key);
        self.upsert(key, value);
        true
    }
}

/// Lets one of two runs go on at a time. A run that waits lets the other one go; beyond that they change only at the steps
/// in `switches`.
#[derive(Debug)]
pub struct Baton {
    turn: Mutex<Turn>,
    turned: Condvar,
}

#[derive(Debug)]
struct Turn {
    current: usize,
    alive: [bool; 2],
    steps: usize,
    switches: Vec<usize>,
}

impl Baton {
    pub fn new(switches: &[usize]) -> Self {
        let turn = Turn { current: 0, alive: [true; 2], steps: 0, switches: switches.to_vec() };
        Self { turn: Mutex::new(turn), turned: Condvar::new() }
    }

    /// How many steps both runs took while both were alive.
    pub fn steps(&self) -> usize {
        locked(&self.turn).steps
    }

    fn begin(&self, run: usize) {
        self.wait(locked(&self.turn), run);
    }

    fn end(&self, run: usize) {
        let mut turn = locked(&self.turn);
        turn.alive[run] = false;
        turn.current = 1 - run;
        self.turned.notify_all();
    }

    fn pass(&self, run: usize, waits: bool) {
        let mut turn = locked(&self.turn);
        if !turn.alive[1 - run] {
            return;
        }
        turn.steps += usize::from(!waits);
        if waits || turn.switches.contains(&turn.steps) {
            turn.current = 1 - run;
            self.turned.notify_all();
            self.wait(turn, run);
        }
    }

    fn wait(&self, turn: MutexGuard<Turn>, run: usize) {
        drop(self.turned.wait_while(turn, |turn| turn.current != run).unwrap_or_else(PoisonError::into_inner));
    }
}

/// A run that is stopped while it holds a lock leaves nothing half-done in here.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What unwinds a run that is killed.
struct Killed;

/// What a failing call fails with.
enum Failure {
    Unclear,
    Forbidden,
}

/// The way of one run to the world.
struct Door {
    sim: Arc<Mutex<Sim>>,
    run: usize,
    fault: Option<Fault>,
    baton: Option<Arc<Baton>>,
    points: Mutex<Vec<String>>,
}

impl Door {
    /// One named point: `deed` is its effect.
    fn point<T>(&self, name: &str, deed: impl FnOnce(&mut Sim) -> T) -> Result<T, Failure> {
        if let Some(baton) = &self.baton {
            baton.pass(self.run, false);
        }
        let at = {
            let mut points = locked(&self.points);
            points.push(name.to_owned());
            points.len() - 1
        };
        let how = self.fault.filter(|fault| fault.at == at).map(|fault| fault.how);
        match how {
            Some(How::StopBefore) => resume_unwind(Box::new(Killed)),
            Some(How::FailBefore) => return Err(Failure::Unclear),
            Some(How::Forbid) => return Err(Failure::Forbidden),
            Some(How::StopAfter | How::FailAfter) | None => {}
        }
        let mut sim = locked(&self.sim);
        let value = deed(&mut sim);
        sim.pass(Duration::from_millis(5));
        if let Some(index) = sim.children.iter().position(|child| child.orphan == Some(Orphan::LivesOn)) {
            sim.step(index);
        }
        sim.check(name);
        drop(sim);
        match how {
            Some(How::StopAfter) => resume_unwind(Box::new(Killed)),
            Some(How::FailAfter) => Err(Failure::Unclear),
            _ => Ok(value),
        }
    }

    fn sql<T>(&self, name: impl AsRef<str>, deed: impl FnOnce(&mut Sim) -> T) -> Result<T, SqlError> {
        self.point(name.as_ref(), deed).map_err(|_| SqlError::new(SqlErrorKind::Lost, "the connection was lost"))
    }

    fn api<T>(&self, name: impl AsRef<str>, deed: impl FnOnce(&mut Sim) -> T) -> Result<T, ApiError> {
        self.point(name.as_ref(), deed).map_err(|failure| {
            let (kind, message) = match failure {
                Failure::Unclear => (ApiErrorKind::Unknown, "the connection was cut"),
                Failure::Forbidden => (ApiErrorKind::Forbidden, "forbidden"),
            };
            ApiError { kind, status: None, id: None, message: message.into(), hint: None }
        })
    }
}

struct OneDatabase {
    door: Arc<Door>,
    index: usize,
    locked: bool,
}

impl Database for OneDatabase {
    fn look(&mut self) -> Result<Look, SqlError> {
        self.door.sql("look", |sim| {
            let schema = &sim.databases[self.index];
            let entry = |(home, key, value): &(Home, String, String)| Entry {
                home: *home,
                key: key.clone(),
                value: value.clone(),
                age_s: 1,
                opened: String::new(),
                touched: String::new(),
            };
            Look {
                applied: schema.versions(),
                records: Records::new(schema.rows.iter().map(entry).collect()),
                epoch: Epoch(EPOCH.into()),
                read_only: false,
                pooled: false,
            }
        })
    }

    fn try_lock(&mut self) -> Result<Lock, SqlError> {
        let ours = Holder::Tool(self.door.run);
        let lock = self.door.sql("try lock", |sim| {
            let holders = &mut sim.databases[self.index].lock;
            match holders.first() {
                Some(holder) if *holder != ours => Lock::Held(format!("{holder:?}")),
                Some(_) => Lock::Taken,
                None => {
                    holders.push(ours);
                    Lock::Taken
                }
            }
        })?;
        self.locked |= lock == Lock::Taken;
        Ok(lock)
    }

    fn write(&mut self, key: &str, value: &str) -> Result<(), SqlError> {
        let phase = serde_json::from_str::<Note>(value)
            .map_or("?".into(), |note| serde_json::to_string(&note.ph).unwrap().trim_matches('"').to_owned());
        self.door.sql(format!("write {phase}"), |sim| sim.databases[self.index].upsert(key, value))?;
        let kept = self.door.sql("read back", |sim| {
            sim.databases[self.index].rows.iter().any(|(_, old, kept)| (old.as_str(), kept.as_str()) == (key, value))
        })?;
        if kept { Ok(()) } else { Err(SqlError::new(SqlErrorKind::Other, "the record was not kept")) }
    }

    fn erase(&mut self, key: &str) -> Result<(), SqlError> {
        self.door.sql("erase", |sim| sim.databases[self.index].rows.retain(|(_, old, _)| old != key))
    }

    fn touch(&mut self, key: &str, value: &str) -> Result<(), SqlError> {
        self.door.sql("touch", |sim| sim.databases[self.index].upsert(key, value))
    }

    fn settle(&mut self, settlement: &Settlement) -> Result<bool, SqlError> {
        self.door.sql("settle", |sim| sim.databases[self.index].settle(settlement))
    }

    fn catalogue(&mut self) -> Result<String, SqlError> {
        self.door.sql("catalogue", |sim| sim.databases[self.index].changes.to_string())
    }

    fn migrating(&mut self) -> Result<Vec<String>, SqlError> {
        self.door.sql("list sessions", |sim| {
            sim.children
                .iter()
                .filter(|child| child.connected())
                .map(|child| format!("child of {}", child.run))
                .collect()
        })
    }

    fn lock_fd(&self) -> Option<RawFd> {
        self.locked.then(|| RawFd::try_from(self.index).unwrap())
    }

    fn abandon(&mut self) {}
}

struct OnePlatform(Arc<Door>);

impl Platform for OnePlatform {
    fn warm(&self) {}

    fn app(&self) -> Result<App, ApiError> {
        self.0.api("get app", |_| App { id: APP.into(), name: "app".into(), generation: Generation::Cedar })
    }

    fn dynos(&self) -> Result<DynoList, ApiError> {
        self.0.api("list dynos", |sim| DynoList {
            dynos: sim.processes.iter().map(|process| process.dyno.clone()).collect(),
            date: sim.date(),
        })
    }

    fn formation(&self) -> Result<Vec<Formation>, ApiError> {
        self.0.api("get formation", |_| {
            [("web", 2), ("worker", 1)]
                .map(|(kind, quantity)| Formation { kind: kind.into(), quantity, command: String::new() })
                .into()
        })
    }

    fn releases(&self, limit: usize) -> Result<Vec<Release>, ApiError> {
        self.0.api("list releases", |sim| sim.releases.iter().take(limit).cloned().collect())
    }

    fn release(&self, version: u64) -> Result<Release, ApiError> {
        self.0
            .api("get release", |sim| sim.releases.iter().find(|release| release.version == version).cloned().unwrap())
    }

    fn preboot(&self) -> Result<bool, ApiError> {
        self.0.api("get preboot", |_| false)
    }

    fn restart_type(&self, kind: &str) -> Result<(), ApiError> {
        self.0.api(format!("restart {kind}"), |sim| sim.restart(|dyno| dyno.kind == kind))
    }

    fn restart_dyno(&self, name: &str) -> Result<(), ApiError> {
        self.0.api(format!("restart {name}"), |sim| sim.restart(|dyno| dyno.name == name))
    }

    fn log_lines(&self, _: &str, _: usize) -> Result<Vec<String>, ApiError> {
        Ok(Vec::new())
    }

    fn remaining(&self) -> Option<u64> {
        None
    }

    fn processes(&self) -> Result<(Vec<processes::Process>, Timestamp), ApiError> {
        unreachable!("no run asks for more than the list")
    }

    fn log_session(&self, _: &LogQuery) -> Result<LogLines, ApiError> {
        Ok(Box::new(std::iter::empty()))
    }
}

struct OneRunner(Arc<Door>);

impl Runner for OneRunner {
    fn check(&self) -> Result<(), String> {
        Ok(())
    }

    fn run(&mut self, _: &Receipt, locks: &[RawFd], tick: &mut dyn FnMut()) -> Ended {
        let run = self.0.run;
        let started = self.0.point("child: is started", |sim| {
            let files = sim.databases.iter().map(|schema| schema.files.clone()).collect();
            sim.children.push(Child { run, files, stage: Stage::Boots, orphan: None, due: Duration::ZERO });
            for &lock in locks {
                sim.databases[usize::try_from(lock).unwrap()].lock.push(Holder::Child(run));
            }
        });
        let ended = |exit| Ended { exit, lingering: false, took: Duration::ZERO };
        if started.is_err() {
            return ended(Exit::CannotStart("no such file".into()));
        }
        let mine = |sim: &Sim| sim.children.iter().position(|child| child.run == run).unwrap();
        let mut beats = 0;
        loop {
            let event = {
                let sim = locked(&self.0.sim);
                sim.children[mine(&sim)].event()
            };
            // Between its events time goes by, and the record is touched.
            if beats == 3 {
                tick();
            }
            beats += 1;
            // What a child does cannot fail for us: only stops count here.
            match self.0.point(&event, |sim| sim.step(mine(sim))) {
                Ok(Some(code)) => return ended(Exit::Code(code)),
                Ok(None) => {}
                Err(_) => locked(&self.0.sim).broken.push("a child's event cannot fail".into()),
            }
        }
    }
}

struct OneClock(Arc<Door>);

impl Clock for OneClock {
    fn now(&self) -> Duration {
        locked(&self.0.sim).now
    }

    fn sleep(&self, time: Duration) {
        if let Some(baton) = &self.0.baton {
            baton.pass(self.0.run, true);
        }
        locked(&self.0.sim).pass(time);
    }
}

/// What a run is started for, and where.
#[derive(Debug, Clone, Copy)]
pub struct Order {
    pub intent: Intent,
    /// In the release phase, with this policy.
    pub release: Option<Policy>,
    pub strategy: Strategy,
}

/// How a run ended. `code` is `None` where it was killed.
#[derive(Debug)]
pub struct Played {
    pub verdict: Option<Verdict>,
    pub code: Option<u8>,
    pub points: Vec<String>,
}

/// Lets the real program run in `sim`, up to its end or its fault. `number` tells one run from another.
pub fn play(
    sim: &Arc<Mutex<Sim>>,
    number: usize,
    order: Order,
    fault: Option<Fault>,
    orphan: Orphan,
    baton: Option<Arc<Baton>>,
) -> Played {
    let door = Arc::new(Door { sim: Arc::clone(sim), run: number, fault, baton, points: Mutex::default() });
    if let Some(baton) = &door.baton {
        baton.begin(number);
    }
    let version = order.release.map(|_| locked(sim).release_begins());
    let answer = catch_unwind(AssertUnwindSafe(|| drive(&door, order, version)));
    let (verdict, code) = match answer {
        Ok((verdict, code)) => (verdict, Some(code)),
        Err(payload) if payload.is::<Killed>() => (None, None),
        Err(payload) => {
            // The other run would wait for its turn for ever.
            if let Some(baton) = &door.baton {
                baton.end(number);
            }
            resume_unwind(payload)
        }
    };
    let mut world = locked(sim);
    world.tool_is_gone(number, orphan);
    if order.release.is_some() {
        world.release_ends(code == Some(0));
    }
    if matches!(verdict, Some(Verdict::Settled | Verdict::NothingToDo)) && !world.all_new() {
        world.broken.push(format!("the run says {verdict:?}, but an old process is there"));
    }
    drop(world);
    if let Some(baton) = &door.baton {
        baton.end(number);
    }
    let points = std::mem::take(&mut *locked(&door.points));
    Played { verdict, code, points }
}

/// What the commands `migrate` and `restart` do.
fn drive(door: &Arc<Door>, order: Order, version: Option<u64>) -> (Option<Verdict>, u8) {
    let count = locked(&door.sim).databases.len();
    let targets: Vec<Target> = (0..count).map(|index| target(door, index)).collect();
    let place = version.map_or(Place::Outside, |_| Place::Release { dyno: "release.1".into(), version });
    let release_phase = place.is_release();
    let web = Types::Named(vec!["web".into()]);
    let app_id = release_phase.then(|| APP.to_owned());
    let rules = Rules {
        types: web.clone(),
        configured: web.clone(),
        policy: order.release.unwrap_or(Policy::Auto),
        strategy: order.strategy,
        max_unavailable: 1,
        lock: Duration::from_mins(1),
        prove: Duration::from_mins(3),
        prove_release: Duration::from_secs(30),
        poll: Duration::from_secs(1),
        health: Duration::from_mins(2),
        place,
        by: "walk".into(),
        app_id: app_id.clone(),
        assume_dead: Vec::new(),
        wait: false,
        require_healthy: false,
        patience: Patience { ddl_lock: None, migrate: None, command: Vec::new(), root: PathBuf::new() },
    };
    let reporter = Reporter::new(true, true, 0, Color::Never);
    let mut runner = OneRunner(Arc::clone(door));
    let clock = OneClock(Arc::clone(door));
    let platform = Arc::new(OnePlatform(Arc::clone(door)));
    let reach = Box::new(move || Ok(Arc::clone(&platform) as Arc<dyn Platform>));
    let mut world = World::new(rules, targets, reach, &mut runner, &clock, Interrupt::default(), &reporter);
    let facts = match world.look() {
        Ok(facts) => facts,
        Err(error) => return (None, error.kind.exit_code()),
    };
    let id = format!("{number:08x}{number:08x}", number = door.run + 1);
    let mut run = Run::new(order.intent, id, web, facts, app_id);
    match run.drive(&mut world) {
        Ok(verdict) => {
            let types = vec!["web".into()];
            let end =
                End { run: &run, verdict, signal: None, release_phase, healthy: None, require_healthy: false, types };
            (Some(verdict), end.exit_code())
        }
        Err(error) => (None, error.kind.exit_code()),
    }
}

fn target(door: &Arc<Door>, index: usize) -> Target {
    let name = |(version, _): &(u64, Fate)| format!("{version}_change_{version}.rb");
    let names: Vec<String> = locked(&door.sim).databases[index].files.iter().map(name).collect();
    let files = move || {
        let mut files = Files::default();
        files.enter("db/migrate".into());
        for name in &names {
            files.push(name.as_bytes());
        }
        Migrations::of(files)
    };
    let config = rails::Database {
        name: format!("database{index}"),
        engine: Engine::Postgresql,
        adapter: "postgresql".into(),
        host: None,
        port: None,
        socket: None,
        database: Some(format!("database{index}")),
        username: None,
        password: None,
        options: BTreeMap::new(),
        migrations_paths: vec!["db/migrate".into()],
        schema_migrations_table: "schema_migrations".into(),
        metadata_table: Some("ar_internal_metadata".into()),
        from: "DATABASE_URL".into(),
    };
    let port = Box::new(OneDatabase { door: Arc::clone(door), index, locked: false });
    Target {
        config,
        port,
        files: Box::new(files),
        lock_waits: Box::new(|_| None),
        unused: false,
        same_as_earlier: false,
        direct: Vec::new(),
    }
}
