//! The invariant: a restart is owed from the moment a migration may start until each old process is proved gone.
//!
//! Everything here is pure. [`Ledger`] reads what is written in a database, [`Standing`] says what it means, and [`next`] is
//! the one table of what a run does next. Every step makes at most one durable change, and the table alone decides their
//! order, so that being killed between any two of them leaves a state from which the next run finds its way:
//!
//! ```text
//! look -> Preflight -> Lock -> look -> Record (M) -> Migrate -> look -> Quiesce -> MarkDue (D or W) | Withdraw
//!                                  \-> owed: Quiesce -> List -> Restart -> Watch -> Clear -> Stop
//! ```
//!
//! The record is written *before* the migration starts and deleted only by [`Step::Clear`], which takes a proof that
//! [`crate::verify`] makes from the platform's own list of processes: never from an exit status, an HTTP 202 or a clock
//! other than the platform's.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::config::Types;
use crate::migrations::Version;

/// The format of the records that this program writes. A record of a newer format is never touched.
pub const RECORD_VERSION: u64 = 1;

/// A record of a migration whose owner cannot be proved dead goes by age alone: no dyno lives longer than 24 h plus
/// 216 min, one-off dynos included.
pub const LONGEST_LIFE_S: i64 = 28 * 3600;

/// The keys of all our records begin with this.
pub const KEY_PREFIX: &str = "unstuck:";

const DEBT_PREFIX: &str = "unstuck:debt:";
const PROVED_PREFIX: &str = "unstuck:proved:";

/// The longest value that `varchar(255)` holds; MySQL outside its strict mode would cut a longer one without a word.
pub const LONGEST_VALUE: usize = 255;

/// A proof names no more of the versions that came before it: there would be no room.
const MOST_NAMED: usize = 8;

/// The hash of a set of applied versions: 16 hexadecimal digits. Rails compares sets, not maxima, and so do we.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Digest(String);

impl Digest {
    /// The hash of `versions`, which ascend.
    pub fn of(versions: &[Version]) -> Self {
        debug_assert!(versions.is_sorted_by(|a, b| a < b), "a set has one order");
        let mut lines = Vec::with_capacity(versions.len() * 16);
        for version in versions {
            version.write_to(&mut lines);
            lines.push(b'\n');
        }
        Self(hex(&Sha256::digest(&lines)[..8]))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first eight digits, as a debt row holds them.
    pub fn short(&self) -> &str {
        &self.0[..8]
    }
}

/// The schema for which a restart is carried out, as 16 hexadecimal digits. A run that may still be alive can change it without a
/// version row, so the versions alone do not tell.
pub fn paid_for(versions: &Digest, catalogue: &str) -> String {
    let hash = Sha256::new().chain_update(versions.as_str()).chain_update(catalogue).finalize();
    hex(&hash[..8])
}

/// Bytes as hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing into a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Which life of a database server this is. A run lock proves that a dead owner's processes are gone only within one life:
/// a fail-over or a restart of the server drops every lock, whether its holder lives or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Epoch(pub String);

impl Epoch {
    /// Whether both are the same life. A server that only tells its uptime, in whole seconds, may round its start by a
    /// second or two: `<server>@<start>` compares with that tolerance.
    pub fn same(&self, other: &str) -> bool {
        fn split(epoch: &str) -> Option<(&str, i64)> {
            let (server, start) = epoch.rsplit_once('@')?;
            Some((server, start.parse().ok()?))
        }
        match (split(&self.0), split(other)) {
            (Some((server, start)), Some((other_server, other_start))) => {
                server == other_server && start.abs_diff(other_start) <= 2
            }
            _ => self.0 == other,
        }
    }
}

/// Which of the two tables a record is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Home {
    /// Rails' own `ar_internal_metadata`.
    Metadata,
    /// The table `unstuck_debt`, where Rails' cannot be had: switched off, not writable, or not there yet.
    Own,
}

/// One row as it stands in the database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub home: Home,
    pub key: String,
    pub value: String,
    /// Seconds since the row was last touched, by the database's clock.
    pub age_s: i64,
    /// When it was opened and last touched, by the database's clock, as text for people.
    pub opened: String,
    pub touched: String,
}

/// What a run has written about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Phase {
    /// A migration may be running.
    #[serde(rename = "M")]
    Migrating,
    /// The migration is over; a restart is due.
    #[serde(rename = "D")]
    Due,
    /// Due, unless the release `rel` carries every process.
    #[serde(rename = "W")]
    Awaiting,
}

/// The value of a debt row. The names are short, since the whole must fit [`LONGEST_VALUE`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    pub v: u64,
    pub ph: Phase,
    /// The server's life in which the run lock was taken.
    pub ep: String,
    /// [`Digest::short`] of the applied versions when the run began.
    pub from: String,
    /// How many migrations were pending.
    pub n: usize,
    /// The highest release seen when the run began; for `W` the release that has to carry every process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rel: Option<u64>,
    /// Tag of the child's database sessions: their `PGAPPNAME` is `unstuck/<tag>`.
    pub tag: String,
    /// The host or the dyno that ran it.
    pub by: String,
    /// [`Digest::short`] of the applied versions when the migration was over. A release proves only the schema that its
    /// release phase left behind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// [`paid_for`] which schema the restart was carried out although the row had to stay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pd: Option<String>,
    /// A rolling restart has begun: every process that was created after this is newer than the schema with the versions `to`, in
    /// seconds since 1970 by the platform's clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<i64>,
    /// [`Class::letter`](crate::ruby::Class::letter) of the pending migration that most would notice, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cl: Option<char>,
}

impl Note {
    /// Whether its run may have migrated: a restart writes a row of its own too, before it rolls.
    pub fn may_have_migrated(&self) -> bool {
        self.ph == Phase::Migrating || self.n > 0 || self.to.as_ref() != Some(&self.from)
    }

    /// The row's value. What is there for people alone is left out before anything does not fit.
    pub fn to_value(&self) -> String {
        let value = serde_json::to_string(self).unwrap_or_default();
        if value.len() <= LONGEST_VALUE || self.cl.is_none() {
            return value;
        }
        Self { cl: None, ..self.clone() }.to_value()
    }
}

/// The value of the row that says for which versions every process was last proved new.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proved {
    pub v: u64,
    /// [`Digest`] of the applied versions.
    pub ver: String,
    /// How many they were.
    pub cnt: usize,
    /// The run that proved it.
    pub run: String,
    /// The `Date` of the dyno list from which the proof was made, in seconds since 1970 by the platform's clock: every
    /// process that was created earlier may be older than the schema.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<i64>,
    /// The process types that it covers, separated by commas; none where the list was too long to keep.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ty: Option<String>,
    /// What is remembered of the last schema change; none where it did not fit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ch: Option<Change>,
}

/// The schema change before a proof, for people: nothing is decided by it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Change {
    /// It did not begin before this, in seconds since 1970: when the first record that the proof paid was opened, by the
    /// database's clock; or, without a record, when the proof before was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lo: Option<i64>,
    /// The newest of the applied versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top: Option<String>,
    /// How many versions are known to have come with it.
    #[serde(default)]
    pub n: usize,
    /// The newest of these, ascending, as many as fit.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub new: Vec<String>,
    /// No run recorded it: it came by hand between two proofs.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub hand: bool,
}

impl Change {
    /// What came since `before`: the versions that were not there when the run began, and those that are newer than any at the
    /// last proof. `earliest` is the moment before which it did not begin; both lists ascend.
    pub fn since(before: Option<&Proved>, earliest: Option<i64>, began: &[Version], applied: &[Version]) -> Self {
        let hand = earliest.is_none() && before.is_some();
        let top = before.and_then(|proved| proved.ch.as_ref()?.top.as_deref()).map(Version::from_row);
        let is_new = |version: &&Version| {
            top.as_ref().is_some_and(|top| *version > top) || began.binary_search(version).is_err()
        };
        let new: Vec<&Version> = applied.iter().filter(is_new).collect();
        Self {
            lo: earliest.or(before.and_then(|proved| proved.at)),
            top: applied.last().map(ToString::to_string),
            n: new.len(),
            new: new[new.len().saturating_sub(MOST_NAMED)..].iter().map(ToString::to_string).collect(),
            hand,
        }
    }
}

impl Proved {
    /// The row's value.
    pub fn to_value(&self) -> String {
        let value = serde_json::to_string(self).unwrap_or_default();
        if value.len() <= LONGEST_VALUE {
            return value;
        }
        // What people are told goes first.
        match &self.ch {
            Some(change) if !change.new.is_empty() => {
                let change = Change { new: change.new[1..].to_vec(), ..change.clone() };
                Self { ch: Some(change), ..self.clone() }.to_value()
            }
            Some(_) => Self { ch: None, ..self.clone() }.to_value(),
            None if self.ty.is_some() => Self { ty: None, ..self.clone() }.to_value(),
            None => value,
        }
    }

    /// Whether this proves something of every one of `types`.
    pub fn covers(&self, types: &Types) -> bool {
        self.ty.as_deref().is_none_or(|covered| Types::parse(covered).cover(types))
    }
}

/// Which processes a proof of the present versions knows to be new.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fresh {
    /// The `Date` of the list behind the proof, in seconds since 1970 by the platform's clock.
    pub since_s: i64,
    /// The types whose processes were on that list.
    pub covered: Types,
}

impl Fresh {
    /// Stamps have whole seconds. Of a type that was covered, whatever was created in the second of the list was proved to be
    /// new by its id; of another type it may have begun just before.
    pub fn knows(&self, kind: &str, created_s: i64) -> bool {
        created_s > self.since_s || (created_s == self.since_s && self.covered.include(kind))
    }

    /// What both of two databases' proofs say.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        let Self { since_s, covered } = other;
        let covered = if self.covered == covered { covered } else { Types::Named(Vec::new()) };
        Self { since_s: self.since_s.max(since_s), covered }
    }
}

/// One debt row that could be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    pub entry: Entry,
    /// The run that wrote it: 16 hexadecimal digits.
    pub run: String,
    pub note: Note,
}

/// The key of a debt row.
pub fn debt_key(app: &str, run: &str) -> String {
    format!("{DEBT_PREFIX}{app}:{run}")
}

/// The key of the proof.
pub fn proved_key(app: &str) -> String {
    format!("{PROVED_PREFIX}{app}")
}

/// What one database's records say, before it is known which app we are.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Records {
    entries: Vec<Entry>,
}

impl Records {
    pub fn new(entries: Vec<Entry>) -> Self {
        Self { entries: entries.into_iter().filter(|entry| entry.key.starts_with(KEY_PREFIX)).collect() }
    }

    /// The uuids of all apps that have a record here.
    pub fn apps(&self) -> Vec<&str> {
        let mut apps: Vec<&str> = self.entries.iter().filter_map(|entry| owner(&entry.key)).collect();
        apps.sort_unstable();
        apps.dedup();
        apps
    }

    /// The keys of all records of one app, whatever they say.
    pub fn keys_of(&self, app: &str) -> Vec<String> {
        self.entries.iter().filter(|entry| owner(&entry.key) == Some(app)).map(|entry| entry.key.clone()).collect()
    }

    /// Whether somebody, whoever it is, may owe a restart here: a debt row, or a proof of other versions or of fewer types.
    pub fn doubtful(&self, versions: &Digest, types: &Types) -> bool {
        let in_doubt =
            |proved: Proved| proved.v > RECORD_VERSION || proved.ver != versions.as_str() || !proved.covers(types);
        self.entries.iter().any(|entry| match entry.key.strip_prefix(PROVED_PREFIX) {
            Some(_) => serde_json::from_str(&entry.value).map_or(true, in_doubt),
            None => entry.key.starts_with(DEBT_PREFIX),
        })
    }

    /// The records of one app. Those of others are not ours to read: a database copied from production carries
    /// production's debts.
    pub fn of(&self, app: &str) -> Ledger {
        let mut ledger = Ledger::default();
        for entry in self.entries.iter().filter(|entry| owner(&entry.key) == Some(app)) {
            if format_of(&entry.value).is_some_and(|format| format > RECORD_VERSION) {
                ledger.newer.push(entry.clone());
            } else if entry.key.starts_with(PROVED_PREFIX) {
                // An unreadable proof is no proof: the versions are then unproved, and whatever it says is written anew.
                ledger.proved = serde_json::from_str(&entry.value).ok().or(ledger.proved.take());
            } else {
                let run = entry.key.rsplit(':').next().unwrap_or_default().to_owned();
                match serde_json::from_str(&entry.value) {
                    Ok(note) => ledger.rows.push(Row { entry: entry.clone(), run, note }),
                    Err(_) => ledger.unreadable.push(entry.clone()),
                }
            }
        }
        ledger.rows.sort_by(|a, b| a.entry.key.cmp(&b.entry.key));
        ledger
    }

    /// How many debt rows belong to other apps than `app`.
    pub fn foreign(&self, app: &str) -> usize {
        self.entries.iter().filter(|e| e.key.starts_with(DEBT_PREFIX) && owner(&e.key) != Some(app)).count()
    }
}

/// The app uuid within a record's key.
fn owner(key: &str) -> Option<&str> {
    key.strip_prefix(PROVED_PREFIX).or_else(|| key.strip_prefix(DEBT_PREFIX)?.rsplit_once(':').map(|(app, _)| app))
}

/// The record format that a value claims, where it is JSON at all.
fn format_of(value: &str) -> Option<u64> {
    serde_json::from_str::<serde_json::Value>(value).ok()?.get("v")?.as_u64()
}

/// One app's records in one database.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ledger {
    pub rows: Vec<Row>,
    pub proved: Option<Proved>,
    /// Rows under our key whose value cannot be read: owed, and never deleted.
    pub unreadable: Vec<Entry>,
    /// Rows that a newer `unstuck` wrote: they forbid us to act.
    pub newer: Vec<Entry>,
}

/// What an app's ledger in one database means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// Every process was proved newer than these very versions.
    Closed,
    /// No record yet: nobody ever proved anything here. It is said; nothing is restarted for it.
    Unproved,
    /// A restart is owed.
    Owed,
}

impl Ledger {
    /// What this ledger means while `versions` are applied and the promise is about `types`.
    pub fn standing(&self, versions: &Digest, types: &Types) -> Standing {
        let level = match &self.proved {
            Some(proved) if proved.ver == versions.as_str() && proved.covers(types) => Standing::Closed,
            // The versions moved since the last proof: somebody migrated behind our back. Or the proof is about fewer types.
            Some(_) => Standing::Owed,
            None => Standing::Unproved,
        };
        if self.has_rows() { Standing::Owed } else { level }
    }

    fn has_rows(&self) -> bool {
        !(self.rows.is_empty() && self.unreadable.is_empty() && self.newer.is_empty())
    }

    /// Which processes are known to be new: by the last proof, where nothing but its process types falls short; or since a
    /// rolling restart began for everything that is owed.
    pub fn fresh(&self, versions: &Digest) -> Option<Fresh> {
        if self.has_rows() {
            let since_s = self.roll_began(versions)?;
            return Some(Fresh { since_s, covered: Types::Named(Vec::new()) });
        }
        let proved = self.proved.as_ref().filter(|proved| proved.ver == versions.as_str())?;
        Some(Fresh { since_s: proved.at?, covered: Types::parse(proved.ty.as_deref().unwrap_or_default()) })
    }

    /// The moment after which every process is new, if each row has one for the present versions. A row whose run may still be
    /// migrating has none.
    fn roll_began(&self, versions: &Digest) -> Option<i64> {
        if !self.unreadable.is_empty() || !self.newer.is_empty() {
            return None;
        }
        let began = |row: &Row| {
            let fits = row.note.ph == Phase::Due && row.note.to.as_deref() == Some(versions.short());
            row.note.at.filter(|_| fits)
        };
        let began: Option<Vec<i64>> = self.rows.iter().map(began).collect();
        began?.into_iter().max()
    }

    /// The release that has to carry every process, if nothing but handed-off rows is owed here and that release's own
    /// release phase left the present versions behind.
    pub fn awaits(&self, versions: &Digest) -> Option<u64> {
        if !self.unreadable.is_empty() || !self.newer.is_empty() {
            return None;
        }
        self.rows.iter().try_fold(None, |highest: Option<u64>, row| {
            let fits = row.note.to.as_deref().is_none_or(|to| to == versions.short());
            match (row.note.ph, row.note.rel) {
                (Phase::Awaiting, Some(release)) if fits => Some(highest.max(Some(release))),
                _ => None,
            }
        })?
    }

    /// The rows that may be deleted once the restart is proved, and those that have to stay since their run may still be
    /// alive. `epoch` is the life of the server in which *we* hold the run lock; `own` is our own run.
    pub fn split(&self, own: &str, epoch: &Epoch, assume_dead: &[String]) -> (Vec<&Row>, Vec<&Row>) {
        self.rows.iter().partition(|row| {
            row.run == own
                || row.note.ph != Phase::Migrating
                || epoch.same(&row.note.ep)
                || row.entry.age_s > LONGEST_LIFE_S
                || assume_dead.contains(&row.run)
        })
    }
}

/// What the run was started for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Intent {
    /// `unstuck migrate`: whatever is pending, and whatever is owed.
    Migrate,
    /// `unstuck restart`: what is owed.
    Restart,
    /// `unstuck restart --all`: a restart and a first proof, owed or not.
    RestartAll,
}

/// How far the run has come with the migration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Child {
    NotStarted,
    /// It has ended, whatever way.
    Ended,
    /// It has ended, and it is proved that it changed nothing: same versions, same catalogue, same processes, and the ledger
    /// was closed before.
    EndedWithoutChange,
}

/// What this run has written into the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Own {
    None,
    Migrating,
    Due,
    Awaiting,
}

/// How far the run has come with the restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Restart {
    /// The processes that have to go are not known yet. A list made *before* the change would prove nothing.
    NotListed,
    Listed,
    /// Asked for; that is not done.
    Asked,
    /// No process is left that may have begun before the change.
    Proved,
    /// The proof is in the ledger and the rows are gone.
    Cleared,
    /// Carried out and proved for the present versions, yet a row has to stay: its run may still be alive.
    Kept,
    /// It was not proved in time, or the platform would not.
    Unproved,
}

/// Who carries out the restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Payer {
    /// We do, through the API.
    Api,
    /// The platform does, when the release whose phase this is succeeds.
    Release,
    /// The release would, but its number is not known: the row stays due.
    Unknown,
}

/// All that the next step depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "each is one independent fact; the table below reads them together")]
pub struct View {
    pub intent: Intent,
    /// A migration's file has no version row.
    pub pending: bool,
    /// The worst standing of all databases.
    pub standing: Standing,
    /// Nothing but handed-off rows is owed, and there are no credentials to check them with.
    pub blind: bool,
    /// Credentials, app and dyno list were found good (or are not needed).
    pub ready: bool,
    /// We hold the run lock of every database.
    pub locked: bool,
    pub child: Child,
    pub own: Own,
    /// A migration session is still there in a server.
    pub sessions: bool,
    pub payer: Payer,
    /// The release whose phase this is will restart every process if it succeeds, and nothing speaks against that: what we
    /// could not prove can be left to it.
    pub release_follows: bool,
    pub restart: Restart,
    /// A signal asked us to end.
    pub interrupted: bool,
}

/// One step of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Step {
    /// Ask the API for the app, its dynos and its newest release; refuse if it says no.
    Preflight,
    /// Take the run lock of every database, then look again.
    Lock,
    /// Write row `M`, durably, and read it back.
    Record,
    /// Run the child to its end, then look again.
    Migrate,
    /// Delete our row: nothing ran, or nothing changed.
    Withdraw,
    /// Wait until no migration session is left in any server.
    Quiesce,
    /// Our row `M` becomes `D`.
    MarkDue,
    /// Our row `M` becomes `W(N)`.
    MarkAwaiting,
    /// List the processes that have to go.
    List,
    /// Ask for their restart.
    Restart,
    /// Look until each of them is gone, or the time is up.
    Watch,
    /// Delete the rows as they were read and write the proof, if the versions are still the same; else begin again at the list.
    Clear,
    /// Say how it went.
    Stop(Verdict),
}

/// How a run ended, as far as the debt is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// Nothing was pending and nothing owed.
    NothingToDo,
    /// Nothing is owed any more, or the child provably changed nothing.
    Settled,
    /// The release that is under way carries the restart.
    HandedOff,
    /// A restart is still owed, and the record says so.
    Owed,
    /// A signal ended the run before anything ran.
    Interrupted,
}

/// What to do next. The rules stand in the order in which they are tried; the first that fits decides.
pub fn next(view: &View) -> Step {
    match view.child {
        Child::NotStarted => before_child(view),
        Child::EndedWithoutChange if view.own == Own::Migrating => Step::Withdraw,
        Child::EndedWithoutChange => Step::Stop(Verdict::Settled),
        // The migration may go on in the server after its client is gone: nothing is settled before its session is.
        Child::Ended if view.sessions && view.restart != Restart::Unproved => Step::Quiesce,
        Child::Ended if view.sessions => Step::Stop(Verdict::Owed),
        Child::Ended => match (view.own, view.payer) {
            (Own::Migrating, Payer::Release) => Step::MarkAwaiting,
            (Own::Migrating, Payer::Api | Payer::Unknown) => Step::MarkDue,
            (Own::Awaiting, Payer::Release) => Step::Stop(Verdict::HandedOff),
            (Own::Due, Payer::Unknown) => Step::Stop(Verdict::Owed),
            _ => settle(view),
        },
    }
}

/// Nothing has run yet. What nobody asked for costs nothing: no call, no lock, no write.
fn before_child(view: &View) -> Step {
    let to_migrate = view.intent == Intent::Migrate && view.pending;
    match view {
        View { interrupted: true, own: Own::None, .. } => Step::Stop(Verdict::Interrupted),
        View { interrupted: true, .. } => Step::Withdraw,
        View { own: Own::Awaiting, .. } => Step::Stop(Verdict::HandedOff),
        View { own: Own::Migrating | Own::Due, .. } if !to_migrate => Step::Withdraw,
        _ if !to_migrate && !to_settle(view) => Step::Stop(match view.restart {
            Restart::Cleared => Verdict::Settled,
            _ => Verdict::NothingToDo,
        }),
        View { blind: true, .. } if !to_migrate => Step::Stop(Verdict::HandedOff),
        View { ready: false, .. } => Step::Preflight,
        View { locked: false, .. } => Step::Lock,
        View { sessions: true, .. } => Step::Quiesce,
        View { own: Own::None, .. } if to_migrate => Step::Record,
        _ if to_migrate => Step::Migrate,
        View { payer: Payer::Release, .. } => Step::MarkAwaiting,
        _ => settle(view),
    }
}

/// List, restart, prove, clear; never one without the one before it.
fn settle(view: &View) -> Step {
    match view.restart {
        _ if !to_settle(view) => Step::Stop(Verdict::Settled),
        // The versions moved again behind our back: what was proved is not proved for them.
        Restart::NotListed | Restart::Cleared => Step::List,
        Restart::Listed => Step::Restart,
        Restart::Asked if view.interrupted => Step::Stop(Verdict::Owed),
        Restart::Asked => Step::Watch,
        Restart::Proved => Step::Clear,
        Restart::Unproved if view.release_follows && view.own == Own::Due => Step::MarkAwaiting,
        Restart::Kept | Restart::Unproved => Step::Stop(Verdict::Owed),
    }
}

fn to_settle(view: &View) -> bool {
    // Our own debt counts even where the migration has wiped out every record of it.
    view.standing == Standing::Owed
        || view.own == Own::Due
        || (view.intent == Intent::RestartAll && view.restart != Restart::Cleared)
}

/// That a possible debt is recorded, durably, in every database that may change. Only [`Receipt::for_records`] makes one, and
/// no migration starts without it.
#[derive(Debug)]
pub struct Receipt {
    tag: String,
}

impl Receipt {
    /// Writes `records` one after the other with `write`, which has to keep each durably before it returns.
    pub fn for_records<R, E>(
        tag: &str,
        records: &mut [R],
        mut write: impl FnMut(&mut R) -> Result<(), E>,
    ) -> Result<Self, E> {
        records.iter_mut().try_for_each(&mut write)?;
        Ok(Self { tag: tag.to_owned() })
    }

    /// Tag of the child's database sessions.
    pub fn tag(&self) -> &str {
        &self.tag
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_rolling_restart_that_was_cut_short_knows_to_be_new() {
        let versions = Digest::of(&[]);
        let (now, other) = (versions.short(), "00000000");
        let row = |phase: &str, to: &str, at: &str| {
            format!(r#"{{"v":1,"ph":"{phase}","ep":"-","from":"","n":1,"tag":"","by":"","to":"{to}"{at}}}"#)
        };
        let begun = row("D", now, r#","at":100"#);
        let proof = (format!("{PROVED_PREFIX}app"), r#"{"v":1,"ver":"other","cnt":1,"run":"","at":7}"#.to_owned());
        for (what, rows, since) in [
            ("one row", vec![begun.clone()], Some(100)),
            ("the latest of two", vec![begun.clone(), row("D", now, r#","at":200"#)], Some(200)),
            ("one of two has no moment", vec![begun.clone(), row("D", now, "")], None),
            ("a migration may be running", vec![begun.clone(), row("M", now, r#","at":200"#)], None),
            ("the versions moved", vec![row("D", other, r#","at":100"#)], None),
            ("one cannot be read", vec![begun, "?".into()], None),
        ] {
            let rows = rows.into_iter().enumerate().map(|(run, value)| (format!("{DEBT_PREFIX}app:{run}"), value));
            let entry = |(key, value)| Entry {
                home: Home::Metadata,
                key,
                value,
                age_s: 0,
                opened: String::new(),
                touched: String::new(),
            };
            let ledger = Records::new(rows.chain([proof.clone()]).map(entry).collect()).of("app");
            let fresh = ledger.fresh(&versions);
            assert_eq!(fresh.as_ref().map(|fresh| fresh.since_s), since, "{what}");
            // Stamps have whole seconds: in that very second an old process may have begun.
            assert!(fresh.is_none_or(|fresh| !fresh.knows("web", fresh.since_s)), "{what}");
        }
    }

    #[test]
    fn a_proof_remembers_the_change_as_far_as_it_fits() {
        let versions = |numbers: std::ops::Range<u64>| -> Vec<Version> {
            numbers.map(|number| Version::from_digits(&(20_260_101_000_000 + number).to_string())).collect()
        };
        let proof = |ch, ty: &str| Proved {
            v: 1,
            ver: "0123456789abcdef".into(),
            cnt: 50_000,
            run: "0123456789abcdef".into(),
            at: Some(1_800_000_000),
            ty: Some(ty.into()),
            ch,
        };
        let first = Change::since(None, Some(1), &versions(0..3), &versions(0..43));
        assert_eq!((first.lo, first.n, first.new.len()), (Some(1), 40, MOST_NAMED));
        let read = |proof: &Proved| -> Proved {
            let value = proof.to_value();
            assert!(value.len() <= LONGEST_VALUE, "{value}");
            serde_json::from_str(&value).unwrap()
        };
        let before = read(&proof(Some(first), "web,worker"));
        let kept = before.ch.clone().unwrap();
        assert!(!kept.new.is_empty() && kept.new.last() == kept.top.as_ref(), "{kept:?}");

        // By hand: nothing recorded it, and what is newer than the last proof's newest came since.
        let later = Change::since(Some(&before), None, &versions(0..45), &versions(0..45));
        assert_eq!((later.lo, later.n), (Some(1_800_000_000), 2));

        // Types are worth more than what people are told.
        let crowded = read(&proof(Some(later), &"t".repeat(120)));
        assert!(crowded.ty.is_some() && crowded.ch.is_none(), "{crowded:?}");
        // An older unstuck tolerates the key, as a newer one tolerates its absence.
        assert!(serde_json::from_str::<Proved>(r#"{"v":1,"ver":"","cnt":0,"run":"","later":1}"#).is_ok());
    }
}
