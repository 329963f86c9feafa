//! Carries out one step; the only file that changes the world.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use self::roll::Way;
use crate::adapters::signals::Interrupt;
use crate::change;
use crate::config::{Place, Policy, Strategy, Types};
use crate::debt::{
    self, Child, Note, Own, Phase, Proved, RECORD_VERSION, Receipt, Restart, Row, Standing, Step, debt_key, proved_key,
};
use crate::dynos::{App, Dyno, DynoList, Release, ReleaseStatus};
use crate::error::{Error, Kind, Result};
use crate::observe::{Facts, Target};
use crate::plan::{Before, Run};
use crate::ports::{ApiError, ApiErrorKind, Clock, Exit, Lock, Platform, Runner, Settlement, SqlError, SqlErrorKind};
use crate::progress::Progress;
use crate::report::{self, Reporter};
use crate::verify::{Known, Suspects};

mod attempts;
mod classes;
mod roll;

pub use self::attempts::Patience;
pub use self::roll::{last_words, pace};

/// Preboot keeps old processes serving, unlisted, for the boot time-out and two minutes more.
const PREBOOT_WINDOW: Duration = Duration::from_mins(3);

/// The interval between two looks at the dynos grows to this.
const POLL_MAX: Duration = Duration::from_secs(10);

/// While the migration runs, the connection to the API is kept open with a request that costs no tokens.
const KEEP_WARM: Duration = Duration::from_secs(25);

/// A process that stays is restarted again by name after a third of the time, and after this at most.
const RETRY_MAX: Duration = Duration::from_secs(30);

/// The platform ends a release command after an hour.
const LONGEST_RELEASE: Duration = Duration::from_mins(70);

/// How often the versions may move under a settlement before it is left to the next run.
const ROUNDS: u32 = 5;

/// What a run has to go by.
#[derive(Debug, Clone)]
pub struct Rules {
    /// The process types of this run.
    pub types: Types,
    /// The configured ones: what the promise is about.
    pub configured: Types,
    pub policy: Policy,
    pub strategy: Strategy,
    pub max_unavailable: usize,
    pub lock: Duration,
    pub prove: Duration,
    /// The same in a release that succeeded.
    pub prove_release: Duration,
    pub poll: Duration,
    /// A rolling restart waits so long for new processes to be up.
    pub health: Duration,
    pub place: Place,
    /// Host or dyno, for the record.
    pub by: String,
    /// The uuid of the app whose dyno we run in.
    pub app_id: Option<String>,
    pub assume_dead: Vec<String>,
    /// Wait for a pending release first.
    pub wait: bool,
    /// New processes that do not come up are a failure.
    pub require_healthy: bool,
    pub patience: Patience,
}

/// Opens the way to the API: credentials are looked for only when they are needed.
pub type Reach = Box<dyn FnMut() -> Result<Arc<dyn Platform>>>;

/// The outside of one run.
pub struct World<'a> {
    pub rules: Rules,
    pub targets: Vec<Target>,
    pub reach: Reach,
    /// The Rails root, from which the paths of the migrations go on.
    pub root: PathBuf,
    reached: Option<Result<Arc<dyn Platform>>>,
    pub runner: &'a mut dyn Runner,
    pub clock: &'a dyn Clock,
    pub interrupt: Interrupt,
    pub reporter: &'a Reporter,
    /// That looks are rare for want of API requests was said.
    slowed: bool,
}

impl<'a> World<'a> {
    pub fn new(
        rules: Rules,
        targets: Vec<Target>,
        reach: Reach,
        runner: &'a mut dyn Runner,
        clock: &'a dyn Clock,
        interrupt: Interrupt,
        reporter: &'a Reporter,
    ) -> Self {
        Self {
            rules,
            targets,
            reach,
            root: PathBuf::new(),
            reached: None,
            runner,
            clock,
            interrupt,
            reporter,
            slowed: false,
        }
    }

    /// The API, or why it cannot be asked. Found out once.
    pub fn platform(&mut self) -> Result<Arc<dyn Platform>, &Error> {
        self.reached.get_or_insert_with(&mut self.reach).as_ref().map(Arc::clone)
    }

    fn interrupted(&self) -> bool {
        self.interrupt.signal().is_some()
    }

    /// Looks at all databases.
    pub fn look(&mut self) -> Result<Vec<Facts>> {
        self.targets.iter_mut().map(Target::look).collect()
    }
}

/// Carries out `step`. An error means that nothing has run and nothing is left behind; after the child, what fails is noted
/// among the run's troubles instead, and the record stays.
pub fn carry_out(step: Step, run: &mut Run, world: &mut World) -> Result<()> {
    match step {
        Step::Preflight => preflight(run, world),
        Step::Lock => lock(run, world),
        Step::Record => record(run, world),
        Step::Migrate => migrate(run, world),
        Step::Withdraw => withdraw(run, world),
        Step::Quiesce => quiesce(run, world),
        Step::MarkDue => {
            mark(run, world, Phase::Due);
            Ok(())
        }
        Step::MarkAwaiting => {
            mark(run, world, Phase::Awaiting);
            Ok(())
        }
        Step::List => {
            list(run, world);
            Ok(())
        }
        Step::Restart => {
            restart(run, world);
            Ok(())
        }
        Step::Watch => {
            watch(run, world);
            Ok(())
        }
        Step::Clear => {
            clear(run, world);
            Ok(())
        }
        Step::Stop(_) => Ok(()),
    }
}

fn refused(message: impl Into<String>) -> Error {
    Error::new(Kind::Refused, message)
}

fn not_executable(why: &str) -> Error {
    refused(format!("the migration command cannot be executed: {why}"))
        .hint("is this the Rails root (-C DIR)? Another command goes behind `--`")
}

/// Nothing runs whose restart could not follow.
fn preflight(run: &mut Run, world: &mut World) -> Result<()> {
    let to_migrate = run.intent == debt::Intent::Migrate && run.pending();
    if to_migrate {
        world.runner.check().map_err(|why| not_executable(&why))?;
    }
    refuse_unwritable(run, world)?;
    let handoff = world.rules.policy == Policy::Handoff && world.rules.place.is_release();
    match world.platform().map_err(copy) {
        Ok(platform) => ask_platform(run, world, &*platform)?,
        Err(_) if handoff && run.app_id.is_some() => {
            run.this_release = release_number(world, &[]);
        }
        Err(error) if handoff => {
            return Err(error
                .as_kind(Kind::Refused)
                .hint("without credentials the app's uuid has to come from HEROKU_APP_ID: heroku labs:enable runtime-dyno-metadata"));
        }
        Err(error) => return Err(error.as_kind(Kind::Refused)),
    }
    run.ready = true;
    Ok(())
}

/// The same error, to be returned from a cache that keeps it.
fn copy(error: &Error) -> Error {
    let mut copy = Error::new(error.kind, error.message.clone());
    copy.source = error.source.as_ref().map(|source| anyhow::anyhow!("{source:#}"));
    copy.hint.clone_from(&error.hint);
    copy
}

fn ask_platform(run: &mut Run, world: &mut World, platform: &dyn Platform) -> Result<()> {
    let refusal = |error: ApiError| {
        let hint =
            error.hint.clone().unwrap_or_else(|| "is Heroku's API up and reachable? https://status.heroku.com".into());
        refused("a restart could not follow, so nothing was started").because(error).hint(hint)
    };
    let app = platform.app().map_err(refusal)?;
    if let Some(ours) =
        world.rules.app_id.as_ref().filter(|ours| **ours != app.id && world.rules.place.dyno().is_some())
    {
        return Err(refused(format!("this dyno belongs to the app {ours}, but {} is {}", app.name, app.id))
            .hint("the dynos of another app would be restarted: check --app, UNSTUCK_APP and .unstuck.yml"));
    }
    let list = platform.dynos().map_err(refusal)?;
    let releases = match platform.releases(10) {
        Ok(releases) => releases,
        Err(error) if error.kind == ApiErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(refusal(error)),
    };
    if world.rules.place.is_release() && world.rules.policy == Policy::Auto {
        run.preboot = platform.preboot().unwrap_or_else(|error| {
            world.reporter.detail(&format!("cannot tell whether preboot is on: {error}"));
            false
        });
    }
    run.newest_release = releases.iter().map(|release| release.version).max();
    run.this_release = release_number(world, &releases);
    run.app_id = Some(app.id.clone());
    refuse_unknown_types(&app, &list, world, platform)?;
    run.app = Some(app);
    run.list = Some(list);
    refuse_newer(run)
}

/// Of a type that the app does not have, every process is gone at once: a misspelt name would prove nothing, and say that it did.
fn refuse_unknown_types(app: &App, list: &DynoList, world: &World, platform: &dyn Platform) -> Result<()> {
    let Types::Named(named) = &world.rules.types else { return Ok(()) };
    let unlisted = |kind: &&String| !list.dynos.iter().any(|dyno| dyno.kind == **kind);
    if !named.iter().any(|kind| unlisted(&kind)) {
        return Ok(());
    }
    let Ok(formation) = platform.formation() else { return Ok(()) };
    let mut known: Vec<&str> = formation.iter().map(|wanted| wanted.kind.as_str()).collect();
    known.sort_unstable();
    let Some(unknown) = named.iter().filter(unlisted).find(|kind| !known.contains(&kind.as_str())) else {
        return Ok(());
    };
    let what = format!("{} has no process type {unknown}: it has {}", app.name, known.join(", "));
    if world.rules.types == world.rules.configured {
        world.reporter.warn(&format!("{what} (see restart.types)"));
        return Ok(());
    }
    Err(refused(what).hint("process types are the names before the colons in the Procfile: `unstuck restart web`"))
}

/// The number of the release whose phase this is: told by the platform, or the only one that is pending.
fn release_number(world: &World, releases: &[Release]) -> Option<u64> {
    let Place::Release { version, .. } = world.rules.place else { return None };
    let mut pending = releases.iter().filter(|release| release.status == ReleaseStatus::Pending);
    version.or_else(|| match (pending.next(), pending.next()) {
        (Some(only), None) => Some(only.version),
        _ => None,
    })
}

fn refuse_newer(run: &Run) -> Result<()> {
    let newer = |facts: &Facts| run.ledger(facts).and_then(|ledger| ledger.newer.first().map(|row| row.key.clone()));
    run.facts.iter().find_map(newer).map_or(Ok(()), |key| Err(of_a_newer_version(&key)))
}

/// Why a record is left alone.
pub fn of_a_newer_version(key: &str) -> Error {
    refused(format!("the record {key} was written by a newer version of unstuck"))
        .hint("update unstuck: what the record means is not known to this version")
}

/// A database that has something to do must be able to hold the record and the lock.
fn refuse_unwritable(run: &Run, world: &World) -> Result<()> {
    for (facts, target) in run.facts.iter().zip(&world.targets) {
        let concerned = !facts.pending.is_empty() || run.standing_of(facts) == Standing::Owed;
        if concerned && facts.look.read_only {
            return Err(refused(format!("database {} is read-only", target.place()))
                .hint("point DATABASE_URL at the primary, not at a follower"));
        }
        if concerned && facts.look.pooled {
            return Err(refused(format!("database {} is reached through a connection pooler", target.place()))
                .hint(way_around_pooler(target)));
        }
    }
    Ok(())
}

fn way_around_pooler(target: &Target) -> String {
    let from = &target.config.from;
    let variable = if from.ends_with("URL") { from } else { "DATABASE_URL" };
    let way = match &target.direct[..] {
        [] => format!("start it outside of bin/start-pgbouncer, or set {variable} to the direct one"),
        found => format!("{} leads there: {variable}=\"${}\"", found.join(" or "), found[0]),
    };
    format!(
        "session locks do not work there, neither ours nor Rails': give this command the database's direct URL ({way})"
    )
}

/// Whether a database takes part in lock and settlement.
fn takes_part(facts: &Facts, target: &Target) -> bool {
    !target.unused && !facts.look.read_only && !facts.look.pooled
}

/// One run per database at a time. Afterwards everything is looked at again: what we waited for may have done our work.
fn lock(run: &mut Run, world: &mut World) -> Result<()> {
    let deadline = world.clock.now() + world.rules.lock;
    for index in 0..world.targets.len() {
        let target = &mut world.targets[index];
        if target.same_as_earlier || !takes_part(&run.facts[index], target) {
            continue;
        }
        let mut told = false;
        loop {
            let target = &mut world.targets[index];
            match target.port.try_lock().map_err(|error| unwritable(target, "cannot lock", error))? {
                Lock::Taken => break,
                Lock::Held(who) if world.clock.now() >= deadline => {
                    return Err(Error::new(
                        Kind::Busy,
                        format!("another run holds the lock of database {}: {who}", target.place()),
                    )
                    .hint("wait for it to end, or give --lock-timeout a longer time"));
                }
                Lock::Held(_) if world.interrupt.signal().is_some() => return Ok(()),
                Lock::Held(who) => {
                    if !told {
                        world.reporter.say(&format!("waiting for another run to end: {who}"));
                        told = true;
                    }
                    world.clock.sleep(Duration::from_millis(200));
                }
            }
        }
    }
    run.locked = true;
    run.facts = world.look()?;
    refuse_newer(run)?;
    run.sessions = sessions(run, world);
    Ok(())
}

/// The sessions that may still be migrating, in all databases.
fn sessions(run: &mut Run, world: &mut World) -> Vec<String> {
    let mut sessions = Vec::new();
    for index in 0..world.targets.len() {
        if !takes_part(&run.facts[index], &world.targets[index]) {
            continue;
        }
        match world.targets[index].port.migrating() {
            Ok(found) => sessions.extend(found),
            Err(error) => {
                // Not to know is not to know that there is none.
                sessions.push(format!("unknown ({error})"));
            }
        }
    }
    sessions
}

/// The record, in every database that has something pending, before anything runs.
fn record(run: &mut Run, world: &mut World) -> Result<()> {
    run.begins();
    for (target, facts) in world.targets.iter().zip(&run.facts) {
        run.classes.extend(classes::of(&facts.pending, &world.root, target.config.engine));
    }
    run.own = Own::Migrating;
    let catalogues = |world: &mut World, run: &Run| -> Result<Vec<String>> {
        let taking_part = world.targets.iter_mut().zip(&run.facts).filter(|(target, facts)| takes_part(facts, target));
        taking_part
            .map(|(target, _)| {
                target.port.catalogue().map_err(|error| target.error("cannot read the catalogue of", error))
            })
            .collect()
    };
    let key = own_key(run);
    let notes: Vec<Note> = run.facts.iter().map(|facts| note(run, facts, world, Phase::Migrating)).collect();
    let mut records: Vec<(&mut Target, String)> = world
        .targets
        .iter_mut()
        .zip(run.facts.iter().zip(&notes))
        .filter(|(_, (facts, _))| !facts.pending.is_empty())
        .map(|(target, (_, note))| (target, note.to_value()))
        .collect();
    let receipt = Receipt::for_records(run.tag(), &mut records, |(target, value)| {
        target.port.write(&key, value).map_err(|error| unwritable(target, "cannot record in", error))
    });
    let receipt = match receipt {
        Ok(receipt) => receipt,
        Err(error) => {
            erase(run, world);
            return Err(error);
        }
    };
    match catalogues(world, run) {
        Ok(catalogues) => {
            let dynos = run.list.iter().flat_map(|list| list.dynos.iter().map(|dyno| dyno.id.clone())).collect();
            run.before = Some(Before { catalogues, dynos, closed: run.standing() != Standing::Owed });
        }
        // Then it cannot be proved that nothing changed, and a restart follows in any case.
        Err(error) => world.reporter.detail(&error.to_string()),
    }
    run.receipt = Some(receipt);
    Ok(())
}

/// Before anything ran: a database that says no is a reason to refuse; one that is gone, busy or full has failed.
fn unwritable(target: &Target, what: &str, error: SqlError) -> Error {
    use SqlErrorKind::{Denied, Full, Locked, Lost, Tls, Unreachable};
    let failed = matches!(error.kind, Denied | Full | Locked | Lost | Tls | Unreachable);
    let error = target.error(what, error);
    if failed {
        return error;
    }
    error.as_kind(Kind::Refused).hint(
        "a migration whose restart could be forgotten is not started: the role needs the right to write into \
         ar_internal_metadata or to create the table unstuck_debt",
    )
}

fn own_key(run: &Run) -> String {
    debt_key(run.app_id.as_deref().unwrap_or_default(), &run.id)
}

fn note(run: &Run, facts: &Facts, world: &World, phase: Phase) -> Note {
    let pending = run.at_start().iter().filter(|old| old.name == facts.name).flat_map(|old| &old.pending);
    Note {
        v: RECORD_VERSION,
        ph: phase,
        ep: facts.look.epoch.0.clone(),
        from: run.at_start().iter().find(|old| old.name == facts.name).map_or("", |old| old.digest.short()).to_owned(),
        n: facts.pending.len(),
        rel: if phase == Phase::Awaiting { run.this_release } else { run.newest_release },
        tag: run.tag().to_owned(),
        by: world.rules.by.clone(),
        to: (phase != Phase::Migrating).then(|| facts.digest.short().to_owned()),
        pd: None,
        at: None,
        cl: pending.filter_map(|migration| run.classes.get(&migration.path)).max().map(|class| class.letter()),
    }
}

fn erase(run: &mut Run, world: &mut World) {
    let key = own_key(run);
    for index in 0..world.targets.len() {
        if !takes_part(&run.facts[index], &world.targets[index]) {
            continue;
        }
        if let Err(error) = world.targets[index].port.erase(&key) {
            run.troubles.push(world.targets[index].error("the record could not be taken back in", error).to_string());
        }
    }
    run.own = Own::None;
}

/// Nothing ran, or nothing changed.
#[allow(clippy::unnecessary_wraps, reason = "one of the steps that `carry_out` dispatches to")]
fn withdraw(run: &mut Run, world: &mut World) -> Result<()> {
    erase(run, world);
    Ok(())
}

/// Runs the child, then looks again, whatever way it ended.
fn migrate(run: &mut Run, world: &mut World) -> Result<()> {
    let Some(receipt) = run.receipt.take() else {
        return Err(refused("a migration was about to start without a record"));
    };
    let count: usize = run.facts.iter().map(|facts| facts.pending.len()).sum();
    world.reporter.say(&format!("running {count} pending migration{}", if count == 1 { "" } else { "s" }));
    for facts in &run.facts {
        for migration in &facts.pending {
            let class = run.classes.get(&migration.path).map_or(String::new(), |class| format!(": {}", class.name()));
            world.reporter.item(&format!("{} {}{class}", migration.version, migration.name));
        }
    }
    let key = own_key(run);
    let warm = world.platform().ok().map(keep_warm);
    let values: Vec<Option<String>> = run
        .facts
        .iter()
        .map(|facts| (!facts.pending.is_empty()).then(|| note(run, facts, world, Phase::Migrating).to_value()))
        .collect();
    // All of them, whatever becomes of one.
    let touch = |targets: &mut [Target]| {
        let recorded = targets.iter_mut().zip(&values).filter_map(|(target, value)| Some((target, value.as_ref()?)));
        recorded.fold(true, |all, (target, value)| target.port.touch(&key, value).is_ok() && all)
    };
    let ended = attempts::run(&receipt, &touch, run, world);
    drop(warm);
    if let Exit::CannotStart(why) = &ended.exit {
        let why = why.clone();
        erase(run, world);
        return Err(not_executable(&why));
    }
    if ended.lingering {
        run.troubles.push("a process that the migration started is still running; it may go on migrating".into());
        run.sessions = vec!["a process that the migration started".into()];
        for target in &mut world.targets {
            target.port.abandon();
        }
    }
    let (exit, lingering) = (ended.exit.clone(), ended.lingering);
    run.ended = Some(ended);
    run.child = Child::Ended;
    let seen = look_after(run, world, lingering);
    // With these codes env, sh and bundler say that the program could not be started. A migration may end with them too, but
    // not one that provably changed nothing.
    if let (Child::EndedWithoutChange, Exit::Code(code @ (126 | 127))) = (run.child, exit) {
        erase(run, world);
        return Err(not_executable(&format!("it ended with exit code {code} and changed nothing")));
    }
    report::tell_migration(run, seen, world.reporter);
    Ok(())
}

/// Keeps the connection to the API open until it is dropped.
fn keep_warm(platform: Arc<dyn Platform>) -> std::sync::mpsc::Sender<()> {
    let (sender, receiver) = channel();
    // Where no thread is to be had, the connection may have to be opened anew: that is all.
    let _ = std::thread::Builder::new().spawn(move || {
        while receiver.recv_timeout(KEEP_WARM) == Err(RecvTimeoutError::Timeout) {
            platform.warm();
        }
    });
    sender
}

/// The look after the child: what is true now, and whether it is proved that nothing changed. `false`: it cannot be told.
fn look_after(run: &mut Run, world: &mut World, lingering: bool) -> bool {
    match world.look() {
        Ok(facts) => run.facts = facts,
        Err(error) => {
            run.troubles.push(format!("{error}"));
            run.restart = Restart::Unproved;
            run.sessions.push("unknown".into());
            return false;
        }
    }
    if lingering {
        run.restart = Restart::Unproved;
        return true;
    }
    run.sessions = sessions(run, world);
    if run.own == Own::Migrating && run.sessions.is_empty() && unchanged(run, world) {
        run.child = Child::EndedWithoutChange;
    }
    true
}

/// Whether it is proved that the child changed nothing: same versions, same catalogue, same processes (one that booted
/// meanwhile may have seen a state in between), and nothing was owed before.
fn unchanged(run: &mut Run, world: &mut World) -> bool {
    let Some(before) = run.before.clone().filter(|before| before.closed) else { return false };
    let same_versions = run.facts.iter().zip(run.at_start()).all(|(now, then)| now.digest == then.digest);
    if !same_versions {
        return false;
    }
    let taking_part = world.targets.iter_mut().zip(&run.facts).filter(|(target, facts)| takes_part(facts, target));
    let catalogues: Option<Vec<String>> = taking_part.map(|(target, _)| target.port.catalogue().ok()).collect();
    if catalogues.as_ref() != Some(&before.catalogues) {
        return false;
    }
    let Ok(platform) = world.platform() else { return false };
    let now: Option<BTreeSet<String>> =
        platform.dynos().ok().map(|list| list.dynos.into_iter().map(|dyno| dyno.id).collect());
    now == Some(before.dynos.into_iter().collect())
}

/// Waits until no migration session is left. Before the child that is somebody else's migration; after it, what ours left
/// running in the server.
fn quiesce(run: &mut Run, world: &mut World) -> Result<()> {
    let before = run.child == Child::NotStarted;
    let limit = if before { world.rules.lock } else { world.rules.prove };
    let deadline = world.clock.now() + limit;
    world.reporter.say(&format!("waiting for a migration to end in the database: {}", run.sessions.join(", ")));
    while !run.sessions.is_empty() {
        if world.clock.now() >= deadline && before {
            return Err(Error::new(Kind::Busy, format!("a migration is running: {}", run.sessions.join(", ")))
                .hint("wait for it to end, or give --lock-timeout a longer time"));
        }
        if world.clock.now() >= deadline || (world.interrupted() && !before) {
            run.troubles.push(format!("a migration may still be running: {}", run.sessions.join(", ")));
            run.restart = Restart::Unproved;
            return Ok(());
        }
        if world.interrupted() {
            run.sessions.clear();
            return Ok(());
        }
        world.clock.sleep(Duration::from_millis(250));
        run.sessions = sessions(run, world);
    }
    if before {
        run.facts = world.look()?;
        return Ok(());
    }
    look_after(run, world, false);
    Ok(())
}

/// Our row `M` becomes `D` or `W`; where it is gone, it is written again. Rows of earlier runs are handed to the release, too.
fn mark(run: &mut Run, world: &mut World, phase: Phase) {
    let key = own_key(run);
    for index in 0..world.targets.len() {
        let facts = &run.facts[index];
        if !takes_part(facts, &world.targets[index]) {
            continue;
        }
        let recorded = !run.at_start()[index].pending.is_empty() && run.own != Own::None;
        let ledger = run.ledger(facts).unwrap_or_default();
        let mut writes: Vec<(String, String)> = Vec::new();
        if phase == Phase::Awaiting {
            let (ours, _) = ledger.split(&run.id, &facts.look.epoch, &world.rules.assume_dead);
            let awaiting = |row: &Row| Note {
                ph: phase,
                rel: run.this_release,
                to: Some(facts.digest.short().into()),
                at: None,
                ..row.note.clone()
            };
            writes.extend(
                ours.into_iter()
                    .filter(|row| row.run != run.id)
                    .map(|row| (row.entry.key.clone(), awaiting(row).to_value())),
            );
        }
        let owed_by_level = phase == Phase::Awaiting && writes.is_empty() && run.standing_of(facts) == Standing::Owed;
        if recorded || owed_by_level {
            writes.push((key.clone(), note(run, facts, world, phase).to_value()));
        }
        for (key, value) in writes {
            let target = &mut world.targets[index];
            if let Err(error) = target.port.write(&key, &value) {
                // The row M is still there, or was lost with everything else: it owes the restart just as well.
                run.troubles.push(target.error("the record could not be brought up to date in", error).to_string());
            }
        }
    }
    run.own = if phase == Phase::Awaiting { Own::Awaiting } else { Own::Due };
}

/// Lists the processes that have to go: after the change, and after its session's end.
fn list(run: &mut Run, world: &mut World) {
    run.restart = Restart::Unproved;
    let platform = match world.platform() {
        Ok(platform) => platform,
        Err(error) => {
            let trouble = error.to_string();
            run.troubles.push(trouble);
            return;
        }
    };
    // The rows and the versions for which the proof will hold are those that are there before the list is asked for.
    match world.look() {
        Ok(facts) => run.facts = facts,
        Err(error) => {
            run.troubles.push(error.to_string());
            return;
        }
    }
    // The connection may have been lost since they were last asked for, and the run lock with it: another run can have come,
    // and gone without its statement. A row of its own that we do not see yet, we do not delete.
    run.sessions = sessions(run, world);
    if !run.sessions.is_empty() {
        run.restart = Restart::NotListed;
        return;
    }
    run.schemas = schemas(run, world);
    if run.intent != debt::Intent::RestartAll && run.standing() == Standing::Owed && only_kept(run, world) {
        run.restart = Restart::Kept;
        note_kept(run, world);
        return;
    }
    if world.interrupted() {
        // No time is left for a proof: one request is sent, for the list that is known, and the record stays.
        run.suspects = run.list.as_ref().map(|list| Suspects::of(list, &world.rules.types, None));
        run.restart = Restart::Listed;
        return;
    }
    let carrier = match carrier(run, world, &*platform) {
        Ok(carrier) => carrier,
        Err(trouble) => {
            run.troubles.push(trouble);
            return;
        }
    };
    if carrier.is_some() {
        run.preboot = platform.preboot().unwrap_or(false);
    }
    match platform.dynos() {
        Ok(list) => {
            let fresh = run.fresh().filter(|_| run.intent != debt::Intent::RestartAll);
            let known = carrier.map(Known::ByRelease).or(fresh.map(Known::ByProof));
            let suspects = Suspects::of(&list, &world.rules.types, known);
            let suspects = match &run.list {
                Some(earlier) => suspects.with_earlier(earlier),
                None => suspects,
            };
            run.restart = Restart::Listed;
            run.suspects = Some(suspects);
            run.list = Some(list);
        }
        Err(error) => run.troubles.push(format!("the dynos cannot be listed: {error}")),
    }
}

/// The schemas of the databases in which a row has to stay. Asked before the processes are listed: whatever its run changes
/// later makes the restart due again.
fn schemas(run: &Run, world: &mut World) -> Vec<Option<String>> {
    let World { targets, rules, .. } = world;
    let schema = |(facts, target): (&Facts, &mut Target)| {
        let ledger = run.ledger(facts)?;
        let (_, kept) = ledger.split(&run.id, &facts.look.epoch, &rules.assume_dead);
        let stays = !kept.is_empty() && takes_part(facts, target);
        // Where it cannot be told, the next run restarts once more.
        let catalogue = stays.then(|| target.port.catalogue().ok())??;
        Some(debt::paid_for(&facts.digest, &catalogue))
    };
    run.facts.iter().zip(targets).map(schema).collect()
}

/// Whether every row that is owed belongs to a run that may still be alive, and the restart was carried out for the present
/// schema already: restarting again would change nothing.
fn only_kept(run: &Run, world: &World) -> bool {
    run.facts.iter().zip(&run.schemas).filter(|(facts, _)| run.standing_of(facts) == Standing::Owed).all(
        |(facts, schema)| {
            let Some(ledger) = run.ledger(facts) else { return false };
            let (gone, kept) = ledger.split(&run.id, &facts.look.epoch, &world.rules.assume_dead);
            let paid = |row: &&Row| schema.is_some() && row.note.pd == *schema;
            let level = ledger.proved.as_ref().is_some_and(|proved| proved.ver == facts.digest.as_str());
            level && gone.is_empty() && ledger.unreadable.is_empty() && !kept.is_empty() && kept.iter().all(paid)
        },
    )
}

/// The release that carries what it booted, if nothing else is owed and it succeeded. A pending one is waited for: a restart
/// meanwhile would boot the old code.
fn carrier(run: &Run, world: &World, platform: &dyn Platform) -> Result<Option<u64>, String> {
    if run.carrier.is_some() {
        return Ok(run.carrier);
    }
    let Some(awaited) = run.awaits() else { return Ok(None) };
    let deadline = world.clock.now() + prove_limit(run, world);
    let mut told = false;
    loop {
        let release = match platform.release(awaited) {
            Ok(release) => release,
            // It is forgotten, so it carries nothing that could be proved.
            Err(error) if error.kind == ApiErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(format!("release v{awaited} cannot be checked: {error}")),
        };
        match release.status {
            ReleaseStatus::Succeeded => return Ok(Some(awaited)),
            ReleaseStatus::Failed | ReleaseStatus::Expired => return Ok(None),
            // Our own release is pending as long as we run: it cannot be waited for from inside.
            ReleaseStatus::Pending
                if world.rules.place.is_release() || world.clock.now() >= deadline || world.interrupted() =>
            {
                return Err(format!("release v{} is still pending", release.version));
            }
            ReleaseStatus::Pending => {
                if !told {
                    world.reporter.say(&format!("waiting for release v{}", release.version));
                    told = true;
                }
                pause(world, world.rules.poll.min(POLL_MAX));
            }
        }
    }
}

/// Waits until no release is pending any more: `unstuck restart --wait`.
pub fn wait_for_release(world: &mut World) -> Result<()> {
    let platform = world.platform().map_err(copy)?;
    let deadline = world.clock.now() + LONGEST_RELEASE;
    let mut told = None;
    while !world.interrupted() && world.clock.now() < deadline {
        let releases = platform.releases(10).map_err(|error| {
            let hint = error.hint.clone();
            let mut failure = Error::new(Kind::Api, "the releases cannot be listed").because(error);
            failure.hint = hint;
            failure
        })?;
        let Some(pending) = releases.iter().find(|release| release.status == ReleaseStatus::Pending) else {
            return Ok(());
        };
        if told != Some(pending.version) {
            told = Some(pending.version);
            world.reporter.say(&format!("waiting for release v{}", pending.version));
        }
        pause(world, POLL_MAX.min(world.rules.poll * 5));
    }
    Ok(())
}

fn prove_limit(run: &Run, world: &World) -> Duration {
    let relaxed = world.rules.place.is_release() && (run.succeeded() || run.child == Child::NotStarted);
    if relaxed { world.rules.prove_release } else { world.rules.prove }
}

/// Asks for the restart: one request where one does it.
fn restart(run: &mut Run, world: &mut World) {
    let (Some(suspects), Some(list)) = (run.suspects.clone(), run.list.clone()) else { return };
    run.restart = Restart::Asked;
    // A release that has just succeeded restarts them; what it leaves is restarted by name while it is watched.
    if suspects.dynos.is_empty() || run.carrier.is_some() {
        return;
    }
    let Ok(platform) = world.platform() else { return };
    let way = roll::way(run, world, &*platform, &suspects);
    let rolling = matches!(way, Way::Rolling(_));
    if rolling && roll::record(run, world, &suspects) {
        return;
    }
    if let Way::AtOnce(Some(note)) | Way::Rolling(Some(note)) = way {
        world.reporter.say(note);
    }
    run.progress = Some(Progress::from(&list, &suspects.dynos));
    if rolling && !roll::roll(run, world, &*platform, &suspects, &list) {
        return;
    }
    for (kind, whole) in suspects.targets(&list).into_iter().filter(|(kind, _)| !(rolling && *kind == roll::WEB)) {
        let stuck: Vec<&Dyno> = suspects.dynos.iter().filter(|dyno| dyno.kind == kind).collect();
        if whole {
            world.reporter.say(&format!("restarting {kind}"));
            tell_asked(run, world, &stuck);
            let asked = platform.restart_type(kind);
            note_answer(run, asked);
        } else {
            for dyno in stuck {
                world.reporter.say(&format!("restarting {}", dyno.name));
                tell_asked(run, world, &[dyno]);
                let asked = platform.restart_dyno(&dyno.name);
                note_answer(run, asked);
            }
        }
    }
}

/// A line for each dyno whose restart is about to be asked for.
fn tell_asked(run: &mut Run, world: &World, dynos: &[&Dyno]) {
    if let Some(progress) = &mut run.progress {
        for dyno in dynos {
            world.reporter.item(&progress.asks(&dyno.name, world.clock.now()));
        }
    }
}

/// A line for each dyno that changed.
pub fn tell_progress(run: &mut Run, world: &World, list: &DynoList) {
    if let Some(progress) = &mut run.progress {
        for line in progress.changes(list, world.clock.now()) {
            world.reporter.item(&line);
        }
    }
}

/// An unknown outcome is looked at, never assumed: only an answer that rules the restart out ends the attempt.
fn note_answer(run: &mut Run, answer: Result<(), ApiError>) {
    match answer {
        Ok(()) => run.requests += 1,
        Err(error) => {
            // What is not found may have been replaced or scaled away meanwhile.
            if matches!(error.kind, ApiErrorKind::Unauthorized | ApiErrorKind::Forbidden) {
                run.restart = Restart::Unproved;
            }
            let hint = error.hint.as_ref().map_or(String::new(), |hint| format!(" ({hint})"));
            run.troubles.push(format!("the restart was not accepted: {error}{hint}"));
        }
    }
}

/// Looks until each suspect is gone, or the time is up.
fn watch(run: &mut Run, world: &mut World) {
    let (Some(suspects), Ok(platform)) = (run.suspects.clone(), world.platform()) else {
        run.restart = Restart::Unproved;
        return;
    };
    let patience = if run.preboot && run.requests == 0 { PREBOOT_WINDOW } else { Duration::ZERO };
    let limit = prove_limit(run, world) + patience;
    let started = world.clock.now();
    let retry_after = (limit / 3).min(RETRY_MAX);
    let mut retry_at = started + retry_after;
    let mut interval = world.rules.poll.min(POLL_MAX);
    let mut reasons;
    loop {
        match look_at_dynos(&*platform, &suspects) {
            Ok((list, judged)) => {
                tell_progress(run, world, &list);
                let hidden = hidden_until(run, &list);
                let stay: Vec<String> = suspects.to_restart_again(&list).iter().map(|dyno| dyno.name.clone()).collect();
                run.list = Some(list);
                match judged {
                    Ok(proof) if hidden.is_none() => {
                        run.proof = Some(proof);
                        run.restart = Restart::Proved;
                        return;
                    }
                    Ok(_) => reasons = hidden.into_iter().collect(),
                    Err(why) => reasons = why,
                }
                if world.clock.now() >= retry_at && !stay.is_empty() {
                    retry_at = world.clock.now() + retry_after;
                    for name in stay {
                        world.reporter.say(&format!("{name} is not proved to be new: restarting it again"));
                        let asked = platform.restart_dyno(&name);
                        note_answer(run, asked);
                    }
                    if run.restart == Restart::Unproved {
                        return;
                    }
                }
            }
            Err(error) => reasons = vec![format!("the dynos cannot be listed: {error}")],
        }
        if world.clock.now().saturating_sub(started) >= limit {
            run.restart = Restart::Unproved;
            run.troubles.push(format!("not proved within {} s: {}", limit.as_secs(), reasons.join("; ")));
            return;
        }
        if world.interrupted() {
            return;
        }
        let left = limit.saturating_sub(world.clock.now().saturating_sub(started));
        let pace = pace(world, &*platform, interval);
        pause(world, pace.min(left).max(Duration::from_millis(10)));
        interval = (interval * 3 / 2).min(POLL_MAX);
    }
}

/// One list, judged. The formation is asked for only when the list alone would prove it: it is the last thing in doubt.
fn look_at_dynos(
    platform: &dyn Platform,
    suspects: &Suspects,
) -> Result<(DynoList, Result<crate::verify::Proof, crate::verify::Reasons>), ApiError> {
    let list = platform.dynos()?;
    if let Err(reasons) = suspects.judge(&list, None) {
        return Ok((list, Err(reasons)));
    }
    let formation = match platform.formation() {
        Ok(formation) => Some(formation),
        Err(error) if error.kind == ApiErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    let judged = suspects.judge(&list, formation.as_deref());
    Ok((list, judged))
}

/// With preboot, processes of the release before go on serving, unlisted, after the new ones began. `Some`: not over yet.
fn hidden_until(run: &Run, list: &DynoList) -> Option<String> {
    if !run.preboot || run.requests > 0 {
        return None;
    }
    let newest = list.dynos.iter().filter(|dyno| dyno.kind == "web").map(|dyno| dyno.created_at).max()?;
    let age = list.date.as_second() - newest.as_second();
    let window = i64::try_from(PREBOOT_WINDOW.as_secs()).unwrap_or(i64::MAX);
    (age < window).then(|| format!("preboot may keep old web processes for another {} s", window - age))
}

/// Deletes the rows as they were read and writes the proof, in each database, if its versions are still the same.
fn clear(run: &mut Run, world: &mut World) {
    let Some(proof) = run.proof.clone() else {
        run.restart = Restart::Unproved;
        return;
    };
    if !world.rules.types.cover(&world.rules.configured) {
        // The named types are proved, but no proof is written that says less than the last one: what is left is the question
        // whether the configured types are owed.
        run.types = world.rules.configured.clone();
        let owed = run.standing() == Standing::Owed;
        run.restart = if owed { Restart::Unproved } else { Restart::Cleared };
        if run.restart == Restart::Unproved {
            let types = world.rules.configured.names().join(", ");
            run.troubles.push(format!("the record stays: it is about {types}, and not all of these were restarted"));
        }
        return;
    }
    let mut moved = false;
    let mut failed = false;
    let mut stays = false;
    for index in 0..world.targets.len() {
        if !takes_part(&run.facts[index], &world.targets[index]) {
            continue;
        }
        let settlement = settlement(run, index, world, &proof);
        stays |= !settlement.kept.is_empty();
        let target = &mut world.targets[index];
        match target.port.settle(&settlement) {
            Ok(true) => {}
            Ok(false) => moved = true,
            Err(error) => {
                failed = true;
                run.troubles.push(target.error("the record could not be cleared in", error).to_string());
            }
        }
    }
    run.rounds += 1;
    match world.look() {
        Ok(facts) => run.facts = facts,
        Err(error) => {
            failed = true;
            run.troubles.push(error.to_string());
        }
    }
    if failed {
        run.restart = Restart::Unproved;
    } else if moved && run.rounds >= ROUNDS {
        run.restart = Restart::Unproved;
        run.troubles.push("the applied versions keep changing while the restart is carried out".into());
    } else if moved {
        world.reporter.say("the applied versions changed meanwhile: restarting again");
        run.restart = Restart::NotListed;
    } else if stays || run.standing() == Standing::Owed {
        run.own = Own::None;
        run.restart = Restart::Kept;
        note_kept(run, world);
    } else {
        run.own = Own::None;
        run.restart = Restart::Cleared;
    }
}

fn settlement(run: &Run, index: usize, world: &World, proof: &crate::verify::Proof) -> Settlement {
    let facts = &run.facts[index];
    let ledger = run.ledger(facts).unwrap_or_default();
    let (gone, kept) = ledger.split(&run.id, &facts.look.epoch, &world.rules.assume_dead);
    let paid = |row: &&Row| {
        let value = Note { pd: run.schemas[index].clone(), ..row.note.clone() }.to_value();
        (row.entry.clone(), value)
    };
    // A second proof of the same schema says no more about when it came. With a debt, the schema may have changed although the
    // versions did not.
    let before = ledger.fresh(&facts.digest).map(|fresh| fresh.since_s);
    let proved = Proved {
        v: RECORD_VERSION,
        ver: facts.digest.as_str().to_owned(),
        cnt: facts.look.applied.len(),
        run: run.id.clone(),
        at: before.or(Some(proof.at().as_second())),
        ty: Some(world.rules.types.names().join(",")),
        ch: Some(remembered(run, index, &ledger)),
    };
    let mut gone: Vec<_> = gone.into_iter().map(|row| row.entry.clone()).collect();
    let assumed =
        |entry: &&debt::Entry| world.rules.assume_dead.iter().any(|run| entry.key.ends_with(&format!(":{run}")));
    gone.extend(ledger.unreadable.iter().filter(assumed).cloned());
    Settlement {
        expected: facts.digest.clone(),
        gone,
        kept: kept.iter().map(paid).collect(),
        proof: (proved_key(run.app_id.as_deref().unwrap_or_default()), proved.to_value()),
    }
}

/// What the proof remembers of the schema change, for people.
fn remembered(run: &Run, index: usize, ledger: &debt::Ledger) -> debt::Change {
    let (facts, before) = (&run.facts[index], ledger.proved.as_ref());
    let opened = change::migrated(ledger).filter_map(|row| change::moment(&row.entry.opened)).min();
    let same = before.filter(|proved| opened.is_none() && proved.ver == facts.digest.as_str());
    if let Some(change) = same.and_then(|proved| proved.ch.clone()) {
        return change;
    }
    let earliest = opened.map(jiff::Timestamp::as_second);
    debt::Change::since(before, earliest, &run.at_start()[index].look.applied, &facts.look.applied)
}

/// Names the rows that had to stay.
fn note_kept(run: &mut Run, world: &World) {
    let mut said = Vec::new();
    for facts in &run.facts {
        let ledger = run.ledger(facts).unwrap_or_default();
        for row in ledger.split(&run.id, &facts.look.epoch, &world.rules.assume_dead).1 {
            said.push(format!(
                "run {} on {} (since {}, last seen {}) may still be alive: the server was restarted since. If you know that it \
                 is not: unstuck restart --assume-dead {}",
                row.run, row.note.by, row.entry.opened, row.entry.touched, row.run
            ));
        }
        for entry in &ledger.unreadable {
            let id = entry.key.rsplit(':').next().unwrap_or_default();
            said.push(format!(
                "the record {} cannot be read and stays. To remove it: unstuck restart --assume-dead {id}",
                entry.key
            ));
        }
    }
    run.troubles.append(&mut said);
}

fn pause(world: &World, time: Duration) {
    let until = world.clock.now() + time;
    while world.clock.now() < until && !world.interrupted() {
        world.clock.sleep((until.saturating_sub(world.clock.now())).min(Duration::from_millis(100)));
    }
}
