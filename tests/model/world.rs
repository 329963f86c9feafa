//! The world of the model: two databases' worth of nothing but what the promise depends on, and every atomic thing that can
//! happen to it.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;

use jiff::Timestamp;
use unstuck::config::Types;
use unstuck::debt::{
    self, Child, Digest, Entry, Epoch, Home, Intent, Ledger, Note, Own, Payer, Phase, Proved, RECORD_VERSION, Restart,
    Standing, Step, Verdict, View,
};
use unstuck::dynos::{Dyno, DynoList, Formation};
use unstuck::migrations::Version;
use unstuck::verify::{Known, Suspects};

/// Two runs that may be disturbed, and a last one that is not.
pub const RUNS: usize = 3;
pub const LAST: usize = 2;
const DYNOS: usize = 2;
const ALL: u8 = 0b11;

/// The release whose phase run A may be.
const RELEASE: u64 = 7;

/// A set of migrations, one bit each: two files from the start, one that arrives later, one that was made by hand.
type Versions = u8;
const FILES: Versions = 0b0011;
const FIRST_FILE: Versions = 0b0001;
const NEW_FILE: Versions = 0b0100;
const BY_HAND: Versions = 0b1000;

/// One rule that is broken on purpose; the numbers are those of the protocol's table of counterexamples.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Broken {
    Nothing,
    N00NoRecord,
    N01RecordAfter,
    N02ClearOn202,
    N03TrustUp,
    N04ListBefore,
    N06NoLock,
    N07LockNotInherited,
    N10OneRow,
    N11NoVersionRow,
    N12OnlyExitZero,
    N13TrustPlatform,
    N14ReleaseForAll,
    N15IdsOnly,
    N16NoLevel,
    N17ChildGone,
    /// The versions alone say whether the restart was carried out for a row that has to stay.
    PaidByVersions,
    /// Sessions are not asked for again before the list, although the lock may have been lost since.
    SessionsOnce,
}

/// Who pays after a good migration in the release phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    Api,
    Handoff,
}

/// How often what can go wrong does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Budget {
    pub runs: u8,
    pub kills: u8,
    /// Dynos that the platform cycles by itself.
    pub cycles: u8,
    /// API calls that fail, or say 202 and do not what was asked.
    pub faults: u8,
    /// Dyno lists that lack a present process.
    pub stale: u8,
    /// A migration and a rollback by hand.
    pub hand: u8,
    /// Rollbacks by hand of that very migration by hand.
    pub undone: u8,
    pub new_files: u8,
    pub withdrawn_files: u8,
    pub failovers: u8,
}

/// One search: its bounds, and the rule that it breaks.
#[derive(Debug, Clone, Copy)]
pub struct Config {
    pub broken: Broken,
    pub budget: Budget,
    /// The engine has transactions around DDL. Without, a change can be there without its version row.
    pub transactional: bool,
    /// A statement goes on in the server after its client has gone.
    pub server_goes_on: bool,
    /// Run A is the release phase of a release.
    pub release: Option<Policy>,
}

/// One line of the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Row {
    run: usize,
    phase: Phase,
    epoch: u8,
    /// The versions when the migration was over.
    to: Option<Versions>,
    /// The versions for which the restart was carried out although the row had to stay; none once the catalogue has changed.
    paid: Option<Versions>,
}

/// The app's records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Book {
    rows: [Option<Row>; RUNS],
    proved: Versions,
}

/// What one look at the database found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Facts {
    versions: Versions,
    files: Versions,
    epoch: u8,
    book: Book,
}

impl Facts {
    fn pending(&self) -> bool {
        self.files & !self.versions != 0
    }
}

/// Where a tool is: before its first look, at the n-th action within a step, or at its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum At {
    Off,
    Doing(Step, usize),
    Ended(Verdict),
    Busy,
    Killed,
}

/// The migration's process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Process {
    None,
    /// It loads the application: no connection, no lock of Rails'.
    Boot,
    /// Connected, under Rails' lock, between two migrations.
    Ready,
    /// A statement is under way.
    Statement(Versions),
    /// The change is committed, its version row is not.
    Half(Versions),
    Exited {
        well: bool,
    },
}

impl Process {
    fn lives(self) -> bool {
        !matches!(self, Self::None | Self::Exited { .. })
    }

    fn connected(self) -> bool {
        matches!(self, Self::Ready | Self::Statement(_) | Self::Half(_))
    }
}

/// What one run knows, as `plan::Run` does.
#[allow(clippy::struct_excessive_bools, reason = "independent facts, as in the program's own")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Run {
    at: At,
    intent: Intent,
    facts: Facts,
    at_start: Versions,
    closed_before: bool,
    /// The catalogue is still what it was when the record was written, or when the run looked before its list.
    same_catalogue: bool,
    /// The processes are still those of the preflight.
    same_dynos: bool,
    ready: bool,
    locked: bool,
    own: Own,
    child: Child,
    exit_zero: bool,
    sessions: bool,
    restart: Restart,
    /// Dynos whose present process is a suspect.
    suspects: u8,
    /// Dynos whose present process began before the list of suspects was made.
    older: u8,
    /// The release carries what it booted.
    carried: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Web {
    /// Its process began after the last committed change.
    fresh: bool,
    /// It runs the release that is under way in this model.
    on_release: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Release {
    None,
    /// Whether its command has ended well.
    Pending {
        done: bool,
    },
    Succeeded,
    Failed,
}

/// One state of the world.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct State {
    versions: Versions,
    files: Versions,
    book: Book,
    /// The life of the server.
    epoch: u8,
    /// The run whose tool or child holds the run lock.
    lock: Option<usize>,
    dynos: [Web; DYNOS],
    /// A statement whose client has gone.
    orphan: bool,
    release: Release,
    runs: [Run; RUNS],
    children: [(Process, bool); RUNS],
    pub left: Budget,
}

/// Something that happened, for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event {
    pub who: Who,
    pub what: &'static str,
    /// It cannot happen to an undisturbed run.
    pub disturbs: bool,
    /// It asks the platform for a restart.
    pub restarts: bool,
    /// Our migration changes the schema.
    pub changes: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    Run(usize),
    Child(usize),
    Platform,
    Server,
    Somebody,
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |run: usize| ["A", "B", "C"][run];
        match self.who {
            Who::Run(run) => write!(f, "run {} {}", name(run), self.what),
            Who::Child(run) => write!(f, "the migration of run {} {}", name(run), self.what),
            Who::Platform => write!(f, "the platform {}", self.what),
            Who::Server => write!(f, "the database server {}", self.what),
            Who::Somebody => write!(f, "somebody {}", self.what),
        }
    }
}

/// What the real ledger says of a book.
#[derive(Debug, Clone, Copy)]
struct Reading {
    standing: Standing,
    awaits: bool,
    /// The rows that may go, by their place in the book.
    gone: u8,
    kept: u8,
}

/// What was read already: of a book, while these versions are applied, in this life of the server, by this run.
type Readings = HashMap<(Book, Versions, u8, usize), Reading, crate::Fast>;

/// The rules of the world and of the program.
pub struct Rules {
    pub config: Config,
    digests: Vec<Digest>,
    readings: RefCell<Readings>,
}

fn id(run: usize) -> String {
    format!("{run:016x}")
}

fn event(who: Who, what: &'static str) -> Event {
    Event { who, what, disturbs: false, restarts: false, changes: false }
}

fn fault(who: Who, what: &'static str) -> Event {
    Event { disturbs: true, ..event(who, what) }
}

/// Collects what can happen next.
pub type Next = Vec<(Event, State)>;

impl State {
    pub fn first(config: &Config) -> Self {
        let book = Book { rows: [None; RUNS], proved: 0 };
        let facts = Facts { versions: 0, files: FILES, epoch: 0, book };
        let dyno = Web { fresh: true, on_release: false };
        Self {
            versions: 0,
            files: FILES,
            book,
            epoch: 0,
            lock: None,
            dynos: [dyno; DYNOS],
            orphan: false,
            release: Release::None,
            runs: [Run::new(At::Off, Intent::Migrate, facts); RUNS],
            children: [(Process::None, false); RUNS],
            left: config.budget,
        }
    }

    fn look(&self) -> Facts {
        Facts { versions: self.versions, files: self.files, epoch: self.epoch, book: self.book }
    }

    pub fn all_fresh(&self) -> bool {
        self.dynos.iter().all(|dyno| dyno.fresh)
    }

    fn sessions(&self) -> bool {
        self.orphan || self.children.iter().any(|(process, _)| process.connected())
    }

    /// Nothing of ours is under way.
    pub fn quiescent(&self) -> bool {
        let over = |run: &Run| !matches!(run.at, At::Doing(..));
        self.runs.iter().all(over)
            && self.children.iter().all(|(process, _)| !process.lives())
            && !self.orphan
            && !matches!(self.release, Release::Pending { .. })
    }

    /// The same world, forgetting who came before: all that a later run can see.
    pub fn rested(mut self, intent: Intent) -> Self {
        let facts = Facts { versions: 0, files: 0, epoch: 0, book: Book { rows: [None; RUNS], proved: 0 } };
        self.runs = [Run::new(At::Off, intent, facts); RUNS];
        self.left = Budget::default();
        self
    }

    pub fn last_ended(&self) -> bool {
        matches!(self.runs[LAST].at, At::Ended(_) | At::Busy)
    }

    fn change(&mut self) {
        self.dynos.iter_mut().for_each(|dyno| dyno.fresh = false);
        // No row is paid for this catalogue, wherever it was read.
        let unpaid = |book: &mut Book| book.rows.iter_mut().flatten().for_each(|row| row.paid = None);
        unpaid(&mut self.book);
        for run in &mut self.runs {
            run.same_catalogue = false;
            unpaid(&mut run.facts.book);
        }
    }

    fn boot(&mut self, dynos: u8) {
        for (index, dyno) in self.dynos.iter_mut().enumerate().filter(|(index, _)| dynos & (1 << index) != 0) {
            *dyno = Web { fresh: true, on_release: self.release == Release::Succeeded };
            for run in &mut self.runs {
                run.suspects &= !(1 << index);
                run.older &= !(1 << index);
                run.same_dynos = false;
            }
        }
    }

    /// The tool is gone; its lock goes with it unless its child inherited it.
    fn leave(&mut self, run: usize, at: At) {
        let nothing = self.rested(self.runs[run].intent).runs[run];
        self.runs[run] = Run { at, ..nothing };
        self.unlock(run);
    }

    fn unlock(&mut self, run: usize) {
        let (process, inherits) = self.children[run];
        let tool = matches!(self.runs[run].at, At::Doing(..));
        if self.lock == Some(run) && !tool && !(process.lives() && inherits) {
            self.lock = None;
        }
    }

    /// The child ends; nobody waits for an orphan.
    fn end_child(&mut self, run: usize, well: bool) {
        let waited_for = matches!(self.runs[run].at, At::Doing(..));
        self.children[run] = (if waited_for { Process::Exited { well } } else { Process::None }, false);
        self.unlock(run);
    }

    fn kill_child(&mut self, run: usize, server_goes_on: bool) {
        if matches!(self.children[run].0, Process::Statement(_)) && server_goes_on {
            self.orphan = true;
        }
        self.end_child(run, false);
    }
}

impl Run {
    fn new(at: At, intent: Intent, facts: Facts) -> Self {
        Self {
            at,
            intent,
            facts,
            at_start: 0,
            closed_before: false,
            same_catalogue: false,
            same_dynos: false,
            ready: false,
            locked: false,
            own: Own::None,
            child: Child::NotStarted,
            exit_zero: false,
            sessions: false,
            restart: Restart::NotListed,
            suspects: 0,
            older: 0,
            carried: false,
        }
    }

    fn succeeded(&self) -> bool {
        self.child != Child::NotStarted && self.exit_zero && !self.facts.pending()
    }
}

impl Rules {
    pub fn new(config: Config) -> Self {
        let version = |bit: u8| Version::from_digits(&(bit + 1).to_string());
        let versions = |set: u8| (0..4).filter(|bit| set & (1 << bit) != 0).map(version).collect::<Vec<_>>();
        let digests = (0..16).map(|set| Digest::of(&versions(set))).collect();
        Self { config, digests, readings: RefCell::default() }
    }

    fn breaks(&self, broken: Broken) -> bool {
        self.config.broken == broken
    }

    /// Asks the real ledger.
    fn read(&self, book: &Book, versions: Versions, epoch: u8, own: usize) -> Reading {
        let key = (*book, versions, epoch, own);
        *self.readings.borrow_mut().entry(key).or_insert_with(|| {
            let types = web();
            let digest = &self.digests[usize::from(versions)];
            let ledger = self.ledger(book, versions);
            let (gone, kept) = ledger.split(&id(own), &Epoch(epoch.to_string()), &[]);
            let places = |rows: Vec<&debt::Row>| {
                (0..RUNS)
                    .filter(|place| rows.iter().any(|row| row.entry.key == place.to_string()))
                    .fold(0, |all, place| all | 1 << place)
            };
            Reading {
                standing: ledger.standing(digest, &types),
                awaits: ledger.awaits(digest).is_some()
                    || (self.breaks(Broken::N14ReleaseForAll)
                        && ledger.rows.iter().any(|row| row.note.ph == Phase::Awaiting)),
                gone: places(gone),
                kept: places(kept),
            }
        })
    }

    fn ledger(&self, book: &Book, versions: Versions) -> Ledger {
        let digest = |set: Versions| &self.digests[usize::from(set)];
        let row = |(place, row): (usize, Row)| {
            let note = Note {
                v: RECORD_VERSION,
                ph: row.phase,
                ep: row.epoch.to_string(),
                from: String::new(),
                n: 1,
                rel: (row.phase == Phase::Awaiting).then_some(RELEASE),
                tag: String::new(),
                by: String::new(),
                to: row.to.map(|to| digest(to).short().to_owned()),
                cl: None,
                pd: row.paid.map(|paid| digest(paid).as_str().to_owned()),
                at: None,
            };
            let entry = Entry {
                home: Home::Metadata,
                key: place.to_string(),
                value: note.to_value(),
                age_s: 0,
                opened: String::new(),
                touched: String::new(),
            };
            debt::Row { entry, run: id(row.run), note }
        };
        let level = if self.breaks(Broken::N16NoLevel) { versions } else { book.proved };
        let proved = Proved {
            v: RECORD_VERSION,
            ver: digest(level).as_str().to_owned(),
            cnt: 0,
            run: String::new(),
            at: None,
            ty: Some("web".into()),
            ch: None,
        };
        let rows = book.rows.iter().enumerate().filter_map(|(place, row)| Some((place, (*row)?))).map(row).collect();
        Ledger { rows, proved: Some(proved), ..Ledger::default() }
    }

    pub fn standing(&self, state: &State) -> Standing {
        self.read(&state.book, state.versions, state.epoch, LAST).standing
    }

    /// Nothing keeps the ledger open but rows whose run may still be alive, and for these the restart was carried out.
    pub fn only_kept(&self, state: &State) -> bool {
        self.all_kept(&state.look(), LAST)
    }

    fn all_kept(&self, facts: &Facts, run: usize) -> bool {
        let reading = self.read(&facts.book, facts.versions, facts.epoch, run);
        let paid = |row: &Row| row.paid == Some(facts.versions) || self.breaks(Broken::PaidByVersions);
        reading.gone == 0
            && reading.kept != 0
            && facts.book.proved == facts.versions
            && facts.book.rows.iter().flatten().all(paid)
    }

    fn place(&self, run: usize) -> usize {
        if self.breaks(Broken::N10OneRow) { 0 } else { run }
    }

    fn in_release(&self, run: usize) -> bool {
        run == 0 && self.config.release.is_some()
    }

    /// As `plan::Run::view` puts it together.
    fn view(&self, state: &State, index: usize) -> View {
        let run = &state.runs[index];
        let reading = self.read(&run.facts.book, run.facts.versions, run.facts.epoch, index);
        let fine = run.succeeded() || (run.child == Child::NotStarted && !run.facts.pending());
        let hands_off = self.in_release(index) && self.config.release == Some(Policy::Handoff);
        View {
            intent: run.intent,
            pending: run.facts.pending(),
            standing: reading.standing,
            blind: false,
            ready: run.ready,
            locked: run.locked,
            child: run.child,
            own: run.own,
            sessions: run.sessions,
            payer: if fine && hands_off { Payer::Release } else { Payer::Api },
            release_follows: self.in_release(index) && run.succeeded(),
            restart: run.restart,
            interrupted: false,
        }
    }

    /// The program's own table, but for the rule that is broken.
    fn step(&self, view: &View, run: &Run) -> Step {
        let step = debt::next(view);
        let over = view.child == Child::Ended;
        match self.config.broken {
            Broken::N00NoRecord | Broken::N01RecordAfter if step == Step::Record && !over => Step::Migrate,
            Broken::N01RecordAfter if over && view.own == Own::None && run.restart == Restart::NotListed => {
                Step::Record
            }
            Broken::N02ClearOn202 if step == Step::Watch => Step::Clear,
            Broken::N12OnlyExitZero if over && !run.exit_zero && view.own == Own::Migrating => Step::Withdraw,
            Broken::N12OnlyExitZero if over && !run.exit_zero => Step::Stop(Verdict::Settled),
            Broken::N13TrustPlatform if step == Step::MarkAwaiting => Step::Clear,
            _ => step,
        }
    }

    fn decide(&self, state: &mut State, index: usize) {
        let run = state.runs[index];
        match self.step(&self.view(state, index), &run) {
            Step::Stop(verdict) => {
                if self.in_release(index) {
                    let failed = run.child != Child::NotStarted && !run.succeeded();
                    state.release = if failed { Release::Failed } else { Release::Pending { done: true } };
                }
                state.leave(index, At::Ended(verdict));
            }
            step => state.runs[index].at = At::Doing(step, 0),
        }
    }

    /// All that can happen next.
    pub fn next(&self, state: &State) -> Next {
        let mut next = Next::new();
        for index in 0..LAST {
            self.tool(state, index, &mut next);
            self.child(state, index, &mut next);
            self.kill(state, index, &mut next);
        }
        Self::others(state, &mut next);
        next
    }

    /// What an undisturbed last run does next.
    pub fn undisturbed(&self, state: &State) -> Option<(Event, State)> {
        let mut next = Next::new();
        self.tool(state, LAST, &mut next);
        self.child(state, LAST, &mut next);
        next.into_iter().find(|(event, _)| !event.disturbs)
    }

    fn kill(&self, state: &State, index: usize, next: &mut Next) {
        if state.left.kills == 0 {
            return;
        }
        let lives = state.children[index].0.lives();
        let mut killed = *state;
        killed.left.kills -= 1;
        if lives {
            let mut alone = killed;
            alone.kill_child(index, self.config.server_goes_on);
            next.push((fault(Who::Child(index), "is killed"), alone));
        }
        if !matches!(state.runs[index].at, At::Doing(..)) {
            return;
        }
        if !lives {
            killed.children[index] = (Process::None, false);
        }
        if self.in_release(index) {
            killed.release = Release::Failed;
        }
        killed.leave(index, At::Killed);
        if lives {
            let mut both = killed;
            both.kill_child(index, self.config.server_goes_on);
            next.push((fault(Who::Run(index), "is killed, and its migration with it"), both));
            next.push((fault(Who::Run(index), "is killed; its migration lives on"), killed));
        } else {
            next.push((fault(Who::Run(index), "is killed"), killed));
        }
    }

    /// The platform, the server and people.
    fn others(state: &State, next: &mut Next) {
        let mut then = |event: Event, deed: &dyn Fn(&mut State)| {
            let mut after = *state;
            deed(&mut after);
            next.push((event, after));
        };
        if state.left.cycles > 0 {
            for (dyno, what) in [(0b01, "cycles web.1"), (0b10, "cycles web.2")] {
                then(fault(Who::Platform, what), &|after| {
                    after.left.cycles -= 1;
                    after.boot(dyno);
                });
            }
        }
        if let Release::Pending { done: true } = state.release {
            then(event(Who::Platform, "makes the release succeed and replaces every dyno"), &|after| {
                after.release = Release::Succeeded;
                after.boot(ALL);
            });
            then(event(Who::Platform, "lets the release fail"), &|after| after.release = Release::Failed);
        }
        if state.orphan {
            let ours = Event { changes: true, ..event(Who::Server, "commits the change of a client that has gone") };
            then(ours, &|after| {
                after.change();
                after.orphan = false;
            });
        }
        if state.left.hand > 0 {
            if state.versions & BY_HAND == 0 {
                then(fault(Who::Somebody, "migrates by hand"), &|after| {
                    after.left.hand -= 1;
                    after.versions |= BY_HAND;
                    after.change();
                });
            }
            if state.versions & FIRST_FILE != 0 {
                then(fault(Who::Somebody, "rolls the first migration back by hand"), &|after| {
                    after.left.hand -= 1;
                    after.versions &= !FIRST_FILE;
                    after.change();
                });
            }
        }
        if state.left.undone > 0 && state.versions & BY_HAND != 0 {
            then(fault(Who::Somebody, "rolls back what was migrated by hand"), &|after| {
                after.left.undone -= 1;
                after.versions &= !BY_HAND;
                after.change();
            });
        }
        if state.left.new_files > 0 {
            then(fault(Who::Somebody, "brings a new migration file"), &|after| {
                after.left.new_files -= 1;
                after.files |= NEW_FILE;
            });
        }
        if state.left.withdrawn_files > 0 && state.files & !state.versions != 0 {
            then(fault(Who::Somebody, "withdraws the files that are pending"), &|after| {
                after.left.withdrawn_files -= 1;
                after.files &= after.versions;
            });
        }
        if state.left.failovers > 0 {
            then(fault(Who::Server, "starts again: sessions and locks are gone"), &|after| {
                after.left.failovers -= 1;
                after.epoch += 1;
                after.lock = None;
                after.orphan = false;
                for run in 0..RUNS {
                    after.children[run].1 = false;
                    if after.children[run].0.connected() {
                        after.end_child(run, false);
                    }
                }
            });
        }
    }

    /// The migration's process.
    fn child(&self, state: &State, index: usize, next: &mut Next) {
        let who = Who::Child(index);
        let mut then = |event: Event, deed: &dyn Fn(&mut State)| {
            let mut after = *state;
            deed(&mut after);
            next.push((event, after));
        };
        let to = |process: Process| move |after: &mut State| after.children[index].0 = process;
        let change = Event { changes: true, ..event(who, "commits a change") };
        let pending = state.files & !state.versions;
        let first = pending & pending.wrapping_neg();
        match state.children[index].0 {
            Process::None | Process::Exited { .. } => {}
            Process::Boot if state.sessions() => {
                then(event(who, "finds Rails' lock taken and fails"), &|after| after.end_child(index, false));
            }
            Process::Boot => then(event(who, "has booted and takes Rails' lock"), &to(Process::Ready)),
            Process::Ready if pending == 0 => {
                then(event(who, "ends well"), &|after| after.end_child(index, true));
            }
            Process::Ready => {
                if self.config.transactional {
                    then(Event { what: "commits a migration", ..change }, &|after| {
                        after.versions |= first;
                        after.change();
                    });
                } else {
                    then(event(who, "sends a change"), &to(Process::Statement(first)));
                }
                then(fault(who, "fails"), &|after| after.end_child(index, false));
            }
            Process::Statement(migration) => then(change, &|after| {
                after.change();
                after.children[index].0 = Process::Half(migration);
            }),
            Process::Half(migration) => {
                then(event(who, "writes the version row"), &|after| {
                    after.versions |= migration;
                    after.children[index].0 = Process::Ready;
                });
                then(fault(who, "fails half-way"), &|after| after.end_child(index, false));
            }
        }
    }

    /// The tool's next atomic action.
    fn tool(&self, state: &State, index: usize, next: &mut Next) {
        let who = Who::Run(index);
        match state.runs[index].at {
            At::Off => {
                // The two runs are alike: B never begins before A.
                let turn = index != 1 || state.runs[0].at != At::Off;
                if turn && (index == LAST || state.left.runs > 0) {
                    let mut after = *state;
                    after.left.runs = after.left.runs.saturating_sub(1);
                    if self.in_release(index) {
                        after.release = Release::Pending { done: false };
                    }
                    after.runs[index] = Run::new(At::Off, state.runs[index].intent, state.look());
                    self.decide(&mut after, index);
                    next.push((event(who, "begins and looks"), after));
                }
            }
            At::Doing(Step::Preflight | Step::List | Step::Restart | Step::Watch, _) => self.at_api(state, index, next),
            At::Doing(step, part) => self.at_database(state, index, (step, part), next),
            At::Ended(_) | At::Busy | At::Killed => {}
        }
    }

    /// The session for a deed in the database: a lost lock is taken again first. `None`: another run has it by now.
    fn session(&self, state: &State, index: usize) -> Option<State> {
        let mut after = *state;
        let us = Some(index);
        if self.breaks(Broken::N06NoLock) || state.lock == us {
            return Some(after);
        }
        after.lock = us;
        state.lock.is_none().then_some(after)
    }

    fn sessions(&self, state: &State) -> bool {
        let orphan = state.orphan && !self.breaks(Broken::N17ChildGone);
        orphan || state.children.iter().any(|(process, _)| process.connected())
    }

    fn at_database(&self, state: &State, index: usize, (step, part): (Step, usize), next: &mut Next) {
        let who = Who::Run(index);
        let process = state.children[index].0;
        // Waiting for the child needs no session; its heartbeat gets a lost lock and a lost row back.
        if (step, part) == (Step::Migrate, 1) {
            if let Process::Exited { well } = process {
                let mut after = *state;
                after.children[index].0 = Process::None;
                let run = &mut after.runs[index];
                (run.child, run.exit_zero, run.at) = (Child::Ended, well, At::Doing(Step::Migrate, 2));
                next.push((event(who, "sees its migration end"), after));
            }
            let row = state.book.rows[self.place(index)];
            if let Some(mut after) = self.session(state, index).filter(|_| state.runs[index].own == Own::Migrating)
                && (after.lock != state.lock || row.is_none())
            {
                let facts = after.runs[index].facts;
                self.write(&mut after, index, &facts, Phase::Migrating);
                next.push((event(who, "takes its lost lock again and renews its record"), after));
            }
            return;
        }
        let Some(mut after) = self.session(state, index) else {
            let mut after = *state;
            after.leave(index, At::Busy);
            if self.in_release(index) {
                after.release = Release::Failed;
            }
            next.push((fault(who, "gives up: another run has the lock"), after));
            return;
        };
        let what = match step {
            Step::Lock => self.lock(state, &mut after, index, part),
            Step::Record => self.record(&mut after, index, part),
            Step::Migrate => self.migrate(state, &mut after, index, part),
            Step::Quiesce if part == 0 && self.sessions(state) => {
                if after.runs[index].child == Child::NotStarted {
                    after.leave(index, At::Busy);
                } else {
                    after.runs[index].restart = Restart::Unproved;
                    self.decide(&mut after, index);
                }
                next.push((fault(who, "has waited too long for a migration session"), after));
                return;
            }
            _ => self.keep_books(state, &mut after, index, (step, part)),
        };
        next.push((event(who, what), after));
    }

    fn lock(&self, state: &State, after: &mut State, index: usize, part: usize) -> &'static str {
        let run = &mut after.runs[index];
        run.at = At::Doing(Step::Lock, part + 1);
        match part {
            0 => "takes the run lock",
            1 => {
                run.facts = state.look();
                "looks again"
            }
            _ => {
                run.locked = true;
                run.sessions = self.sessions(state);
                self.decide(after, index);
                "asks for migration sessions"
            }
        }
    }

    fn record(&self, after: &mut State, index: usize, part: usize) -> &'static str {
        let facts = after.runs[index].facts;
        if part == 0 {
            self.write(after, index, &facts, Phase::Migrating);
            let run = &mut after.runs[index];
            (run.at_start, run.own, run.at) = (facts.versions, Own::Migrating, At::Doing(Step::Record, 1));
            return "records that a migration may run";
        }
        let closed = self.read(&facts.book, facts.versions, facts.epoch, index).standing != Standing::Owed;
        let run = &mut after.runs[index];
        (run.closed_before, run.same_catalogue) = (closed, true);
        if self.breaks(Broken::N04ListBefore) {
            (run.suspects, run.older) = (ALL, ALL);
        }
        self.decide(after, index);
        "reads the catalogue"
    }

    fn migrate(&self, state: &State, after: &mut State, index: usize, part: usize) -> &'static str {
        let inherits = after.lock == Some(index) && !self.breaks(Broken::N07LockNotInherited);
        let run = &mut after.runs[index];
        run.at = At::Doing(Step::Migrate, part + 1);
        match part {
            0 => {
                after.children[index] = (Process::Boot, inherits);
                return "starts the migration";
            }
            2 => {
                run.facts = state.look();
                return "looks at what was migrated";
            }
            3 => {
                run.sessions = self.sessions(state);
                let same = run.own == Own::Migrating && !run.sessions && run.facts.versions == run.at_start;
                if same && self.breaks(Broken::N11NoVersionRow) {
                    run.child = Child::EndedWithoutChange;
                } else if same && run.closed_before {
                    return "asks for migration sessions";
                }
            }
            4 if run.same_catalogue => return "finds the catalogue as it was",
            4 => {}
            _ if run.same_dynos => run.child = Child::EndedWithoutChange,
            _ => {}
        }
        self.decide(after, index);
        ["asks for migration sessions", "finds another catalogue", "compares the dynos"][part - 3]
    }

    fn keep_books(&self, state: &State, after: &mut State, index: usize, at: (Step, usize)) -> &'static str {
        let facts = after.runs[index].facts;
        let run = &mut after.runs[index];
        let what = match at {
            (Step::Quiesce, 0) => {
                run.sessions = false;
                let before = run.child == Child::NotStarted;
                run.at = if before { At::Doing(Step::Quiesce, 1) } else { At::Doing(Step::Migrate, 2) };
                return "finds no migration session left";
            }
            (Step::MarkAwaiting, place) => {
                self.hand_off(after, index, place);
                return "hands a record to the release";
            }
            (Step::Clear, 0) => {
                run.at = At::Doing(Step::Clear, 1);
                self.settle(after, index);
                return "clears, if the versions are still the same";
            }
            (Step::Withdraw, _) => {
                run.own = Own::None;
                after.book.rows[self.place(index)] = None;
                "takes its record back"
            }
            (Step::MarkDue, _) => {
                run.own = Own::Due;
                self.write(after, index, &facts, Phase::Due);
                "marks the restart as due"
            }
            // After Quiesce and Clear.
            _ => {
                run.facts = state.look();
                if run.restart == Restart::Cleared {
                    run.own = Own::None;
                    if self.standing(state) == Standing::Owed {
                        run.restart = Restart::Kept;
                    }
                }
                "looks again"
            }
        };
        self.decide(after, index);
        what
    }

    fn write(&self, state: &mut State, index: usize, facts: &Facts, phase: Phase) {
        let to = (phase != Phase::Migrating).then_some(facts.versions);
        state.book.rows[self.place(index)] = Some(Row { run: index, phase, epoch: facts.epoch, to, paid: None });
    }

    /// One row after the other: those of earlier runs that may be settled, then our own.
    fn hand_off(&self, state: &mut State, index: usize, place: usize) {
        let facts = state.runs[index].facts;
        let reading = self.read(&facts.book, facts.versions, facts.epoch, index);
        let others = reading.gone & !(1 << index);
        if place < RUNS {
            let Some(row) = facts.book.rows[place].filter(|_| others & (1 << place) != 0) else {
                return self.hand_off(state, index, place + 1);
            };
            state.book.rows[place] = Some(Row { phase: Phase::Awaiting, to: Some(facts.versions), ..row });
            state.runs[index].at = At::Doing(Step::MarkAwaiting, place + 1);
            return;
        }
        let recorded = state.runs[index].own != Own::None;
        if recorded || (others == 0 && reading.standing == Standing::Owed) {
            self.write(state, index, &facts, Phase::Awaiting);
        }
        state.runs[index].own = Own::Awaiting;
        self.decide(state, index);
    }

    /// In one transaction: exactly the rows that were read go, if the versions have not moved.
    fn settle(&self, state: &mut State, index: usize) {
        let facts = state.runs[index].facts;
        if state.versions != facts.versions {
            state.runs[index].restart = Restart::NotListed;
            return;
        }
        let reading = self.read(&facts.book, facts.versions, facts.epoch, index);
        let paid = state.runs[index].same_catalogue.then_some(facts.versions);
        for place in 0..RUNS {
            let row = &mut state.book.rows[place];
            if *row != facts.book.rows[place] {
                continue;
            }
            if reading.gone & (1 << place) != 0 {
                *row = None;
            } else if reading.kept & (1 << place) != 0 {
                *row = row.map(|row| Row { paid, ..row });
            }
        }
        state.book.proved = facts.versions;
        state.runs[index].restart = Restart::Cleared;
    }

    fn at_api(&self, state: &State, index: usize, next: &mut Next) {
        let who = Who::Run(index);
        let run = &state.runs[index];
        let mut then = |event: Event, deed: &dyn Fn(&mut State)| {
            let mut after = *state;
            deed(&mut after);
            next.push((event, after));
        };
        let asks = |what| Event { restarts: true, ..event(who, what) };
        let becomes = |after: &mut State, restart: Restart| {
            after.runs[index].restart = restart;
            self.decide(after, index);
        };
        let unproved = |after: &mut State| becomes(after, Restart::Unproved);
        match run.at {
            At::Doing(Step::Preflight, _) => {
                then(event(who, "asks the platform for the app and its dynos"), &|after| {
                    (after.runs[index].ready, after.runs[index].same_dynos) = (true, true);
                    self.decide(after, index);
                });
            }
            At::Doing(Step::List, 0) => {
                let Some(locked) = self.session(state, index) else {
                    then(fault(who, "cannot look: another run has the lock"), &unproved);
                    return;
                };
                then(event(who, "looks before it lists"), &|after| {
                    *after = locked;
                    after.runs[index].facts = state.look();
                    after.runs[index].at = At::Doing(Step::List, 1);
                });
            }
            At::Doing(Step::List, 1) => {
                let Some(locked) = self.session(state, index) else {
                    then(fault(who, "cannot look: another run has the lock"), &unproved);
                    return;
                };
                then(event(who, "asks for migration sessions again"), &|after| {
                    *after = locked;
                    after.runs[index].sessions = self.sessions(state) && !self.breaks(Broken::SessionsOnce);
                    after.runs[index].same_catalogue = true;
                    if after.runs[index].sessions {
                        becomes(after, Restart::NotListed);
                    } else if self.all_kept(&state.runs[index].facts, index) {
                        becomes(after, Restart::Kept);
                    } else {
                        after.runs[index].at = At::Doing(Step::List, 2);
                    }
                });
            }
            At::Doing(Step::List, 2) => {
                let facts = &run.facts;
                let awaits = self.read(&facts.book, facts.versions, facts.epoch, index).awaits;
                if awaits && matches!(state.release, Release::Pending { .. }) {
                    then(fault(who, "does not wait longer for the release"), &unproved);
                } else {
                    then(event(who, "knows whether a release carries the dynos"), &|after| {
                        after.runs[index].carried = awaits && state.release == Release::Succeeded;
                        after.runs[index].at = At::Doing(Step::List, 3);
                    });
                }
            }
            At::Doing(Step::List, _) => self.list(state, index, next),
            At::Doing(Step::Restart, _) => {
                let suspects = run.suspects;
                then(asks("restarts the suspects"), &|after| {
                    after.boot(suspects);
                    becomes(after, Restart::Asked);
                });
                for (reached, what) in [
                    (0b00, "asks for a restart that is not carried out"),
                    (0b01, "asks for a restart that only reaches web.1"),
                    (0b10, "asks for a restart that only reaches web.2"),
                ] {
                    if state.left.faults > 0 && suspects & reached == reached && suspects != reached {
                        then(Event { disturbs: true, ..asks(what) }, &|after| {
                            after.left.faults -= 1;
                            after.boot(reached);
                            becomes(after, Restart::Asked);
                        });
                    }
                }
            }
            _ => self.watch(state, index, next),
        }
    }

    fn list(&self, state: &State, index: usize, next: &mut Next) {
        let who = Who::Run(index);
        let run = &state.runs[index];
        let earlier = self.breaks(Broken::N04ListBefore) && run.child != Child::NotStarted;
        let mut listed = *state;
        listed.runs[index].restart = Restart::Listed;
        if !earlier {
            let ids = Suspects::of(&state.list(ALL, 0), &web(), run.carried.then_some(Known::ByRelease(RELEASE)));
            let suspects = ids.dynos.iter().map(|dyno| bit(&dyno.name)).fold(0, |all, bit| all | bit);
            (listed.runs[index].suspects, listed.runs[index].older) = (suspects, ALL);
        }
        let mut decided = listed;
        self.decide(&mut decided, index);
        next.push((event(who, "lists the processes that have to go"), decided));
        for (lacking, what) in LACKING.into_iter().filter(|_| state.left.stale > 0 && !earlier) {
            let mut after = listed;
            after.left.stale -= 1;
            after.runs[index].suspects &= !lacking;
            self.decide(&mut after, index);
            next.push((fault(who, what), after));
        }
        if state.left.faults > 0 {
            let mut after = *state;
            after.left.faults -= 1;
            after.runs[index].restart = Restart::Unproved;
            self.decide(&mut after, index);
            next.push((fault(who, "gets no list"), after));
        }
    }

    fn watch(&self, state: &State, index: usize, next: &mut Next) {
        let who = Who::Run(index);
        let suspects = state.runs[index].suspects;
        let with = |restart: Restart| {
            let mut after = *state;
            after.runs[index].restart = restart;
            self.decide(&mut after, index);
            after
        };
        if self.judge(state, index, 0) {
            next.push((event(who, "sees that every suspect is gone"), with(Restart::Proved)));
        } else {
            if suspects != 0 {
                let mut after = *state;
                after.boot(suspects);
                next.push((Event { restarts: true, ..event(who, "restarts again what stays") }, after));
            }
            next.push((fault(who, "has no more time to look"), with(Restart::Unproved)));
        }
        for (lacking, what) in LACKING {
            if state.left.stale > 0 && self.judge(state, index, lacking) {
                let mut after = with(Restart::Proved);
                after.left.stale -= 1;
                next.push((fault(who, what), after));
            }
        }
    }

    /// Whether a list, possibly one that lacks a dyno, proves the restart: as `verify` judges it.
    fn judge(&self, state: &State, index: usize, lacking: u8) -> bool {
        let run = &state.runs[index];
        match self.config.broken {
            Broken::N03TrustUp => return true,
            Broken::N15IdsOnly => return run.suspects & !lacking == 0,
            _ => {}
        }
        let known = run.carried.then_some(Known::ByRelease(RELEASE));
        let mut suspects = Suspects::of(&state.list(ALL, 0), &web(), known);
        suspects.dynos.retain(|dyno| run.suspects & bit(&dyno.name) != 0);
        let formation = [Formation { kind: "web".into(), quantity: DYNOS as u64, command: String::new() }];
        suspects.judge(&state.list(ALL & !lacking, ALL & !run.older), Some(&formation)).is_ok()
    }
}

const LACKING: [(u8, &str); DYNOS] = [(0b01, "gets a list that lacks web.1"), (0b10, "gets a list that lacks web.2")];

fn web() -> Types {
    Types::Named(vec!["web".into()])
}

/// The bit of `web.1`, `web.2`.
fn bit(name: &str) -> u8 {
    if name == "web.1" { 0b01 } else { 0b10 }
}

impl State {
    /// A dyno list with the present processes of `dynos`; `later` of them were created when the list was made.
    fn list(&self, dynos: u8, later: u8) -> DynoList {
        let at = |second: i64| Timestamp::from_second(second).unwrap_or_default();
        let listed = (0..DYNOS).filter(|index| dynos & (1 << index) != 0);
        let dyno = |index: usize| Dyno {
            id: index.to_string(),
            name: format!("web.{}", index + 1),
            kind: "web".into(),
            state: "up".into(),
            created_at: at(if later & (1 << index) == 0 { 10 } else { 20 }),
            release: Some(if self.dynos[index].on_release { RELEASE } else { RELEASE - 1 }),
        };
        DynoList { dynos: listed.map(dyno).collect(), date: at(20) }
    }
}
