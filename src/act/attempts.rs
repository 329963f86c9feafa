//! The migration command's attempts: each is watched for lock waits, and one that waited for too long is repeated where that
//! is safe. All of it happens within one step; the record stays as it is.

use std::os::fd::RawFd;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use super::{World, pause, sessions, takes_part};
use crate::debt::Receipt;
use crate::locks::{Deed, RETRIES, State, Story, against, is_rails_own, pause as pause_before};
use crate::observe::Target;
use crate::plan::Run;
use crate::ports::{Ended, Exit, LockWaits, Wait};
use crate::rails::migration::Nature;
use crate::report::Reporter;

/// After an error, the server is left alone for this long.
const AFTER_ERROR: Duration = Duration::from_secs(10);

/// The sessions of a command that ended are gone from the server soon after it.
const SESSIONS_END: Duration = Duration::from_secs(10);

/// So long a command that failed is waited for to be looked after in the server.
const LAST_LOOK: Duration = Duration::from_secs(2);

/// During a pause the record is touched this often, as while the command runs.
const HEARTBEAT: Duration = Duration::from_secs(10);

/// What the migration command may take, and what is known of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Patience {
    /// A statement may wait this long for a lock.
    pub ddl_lock: Option<Duration>,
    /// All attempts together.
    pub migrate: Option<Duration>,
    /// The command itself.
    pub command: Vec<String>,
    /// The Rails root, under which the migrations lie.
    pub root: PathBuf,
}

/// Shows in every record that the run is alive. `false`: not in every one.
pub type Touch<'a> = dyn Fn(&mut [Target]) -> bool + 'a;

/// Runs the command to its end, more than once if need be. How the last attempt ended is how it ended.
pub fn run(receipt: &Receipt, touch: &Touch, run: &mut Run, world: &mut World) -> Ended {
    let started = world.clock.now();
    let catalogues = run.before.as_ref().map(|before| before.catalogues.clone()).unwrap_or_default();
    let mut before = states(run, world, |index, _| catalogues.get(index).cloned());
    let mut last: Option<Ended> = None;
    let mut retry = 1;
    loop {
        let watches = watch(run, world);
        let World { runner, targets, .. } = &mut *world;
        // Asked for each time: a connection that was lost meanwhile has another one.
        let locks: Vec<RawFd> = targets.iter().filter_map(|target| target.port.lock_fd()).collect();
        // The look after the child finds out whether a database is gone for good.
        let ended = runner.run(receipt, &locks, &mut || {
            touch(targets);
        });
        let overlong = watches.iter().find_map(LockWatch::overlong);
        for watch in watches {
            watch.end(&ended);
        }
        if let (Exit::CannotStart(_), Some(last)) = (&ended.exit, last.take()) {
            return last;
        }
        let ended = Ended { took: world.clock.now().saturating_sub(started), ..ended };
        let failed = matches!(ended.exit, Exit::Code(code) if code != 0) && !ended.lingering;
        let Some(overlong) = overlong.filter(|_| failed && !world.interrupted()) else { return ended };

        let break_off = |run: &mut Run, why: &str| {
            run.troubles.push(format!("the migration waited too long for {overlong}; {why}"));
        };
        let limit = world.rules.patience.ddl_lock.unwrap_or_default();
        let rest = pause_before(retry, limit, chance());
        if retry > RETRIES {
            break_off(run, &format!("it was tried {retry} times. End what holds the lock, then run again"));
            return ended;
        }
        let late = |limit| ended.took + rest >= limit;
        if world.rules.patience.migrate.is_some_and(late) {
            break_off(run, "timeouts.migrate leaves no time for another attempt");
            return ended;
        }
        match safe_to_repeat(&before, run, world) {
            Ok(after) => before = after,
            Err(why) => {
                break_off(
                    run,
                    &format!("it is not run again by itself: {why}. End what holds the lock, then run again"),
                );
                return ended;
            }
        }
        world.reporter.warn(&format!(
            "the migration waited too long for {overlong}; no half of it is left: running it again in {:.1} s ({retry} of {RETRIES})",
            rest.as_secs_f32()
        ));
        if !rests(rest, touch, world) {
            return ended;
        }
        // As before the first attempt, record and lock have to be there; the second touch opens a connection that was lost.
        if !touch(&mut world.targets) && !touch(&mut world.targets) {
            break_off(run, "it is not run again: its record or its lock was lost");
            return ended;
        }
        last = Some(ended);
        retry += 1;
    }
}

/// Waits, and goes on touching the records. `false`: we were asked to end meanwhile.
fn rests(time: Duration, touch: &Touch, world: &mut World) -> bool {
    let until = world.clock.now() + time;
    while !world.interrupted() && world.clock.now() < until {
        touch(&mut world.targets);
        pause(world, until.saturating_sub(world.clock.now()).min(HEARTBEAT));
    }
    !world.interrupted()
}

/// Any number. Where none can be had, runs may come back together, which harms nothing.
fn chance() -> u8 {
    let mut byte = [0];
    let _ = getrandom::fill(&mut byte);
    byte[0]
}

/// The databases that take part, as the last look found them; each one's catalogue comes from `catalogue`.
fn states(run: &Run, world: &mut World, mut catalogue: impl FnMut(usize, &mut Target) -> Option<String>) -> Vec<State> {
    let taking_part = world.targets.iter_mut().zip(&run.facts).filter(|(target, facts)| takes_part(facts, target));
    let state = |(index, (target, facts)): (usize, (&mut Target, &crate::observe::Facts))| State {
        digest: facts.digest.clone(),
        applied: facts.look.applied.clone(),
        catalogue: catalogue(index, target),
    };
    taking_part.enumerate().map(state).collect()
}

/// What every database is like after an attempt that failed; or why there may not be another one.
fn safe_to_repeat(before: &[State], run: &mut Run, world: &mut World) -> Result<Vec<State>, String> {
    let names: Vec<&str> = world.targets.iter().map(|target| target.config.name.as_str()).collect();
    if !is_rails_own(&world.rules.patience.command, &names) {
        return Err("its command is not Rails' db:migrate alone".to_owned());
    }
    run.facts = world.look().map_err(|error| error.to_string())?;
    if !run.pending() {
        return Err("nothing is pending any more".to_owned());
    }
    let until = world.clock.now() + SESSIONS_END;
    loop {
        let left = sessions(run, world);
        if left.is_empty() {
            break;
        }
        if world.clock.now() >= until || world.interrupted() {
            return Err(format!("a migration may still be running: {}", left.join(", ")));
        }
        world.clock.sleep(Duration::from_millis(100));
    }
    // Only now is it certain that nothing follows.
    run.facts = world.look().map_err(|error| error.to_string())?;
    let after = states(run, world, |_, target| target.port.catalogue().ok());
    if after.len() != before.len() {
        return Err("a database can no longer be written to".to_owned());
    }
    let taking_part = world.targets.iter().zip(&run.facts).filter(|(target, facts)| takes_part(facts, target));
    for ((target, facts), (before, after)) in taking_part.zip(before.iter().zip(&after)) {
        let failed = facts.pending.first().map(|migration| {
            let source = std::fs::read(world.rules.patience.root.join(&migration.path));
            (
                migration.name.as_str(),
                source.map_or_else(|_| Nature::unknown("cannot be read"), |text| Nature::of(&text)),
            )
        });
        let failed = failed.as_ref().map(|(name, nature)| (*name, nature));
        if let Some(why) = against(target.config.engine, before, after, failed) {
            return Err(why);
        }
    }
    Ok(after)
}

/// Looks after one database's lock waits, on a thread of its own, until it is dropped.
struct LockWatch {
    stop: Sender<()>,
    overlong: Receiver<Option<String>>,
}

impl LockWatch {
    /// The wait that was too long, if it was the last that was seen.
    fn overlong(&self) -> Option<String> {
        self.overlong.try_iter().last().flatten()
    }

    /// The command ended. Where it was killed, PostgreSQL does not notice: its statement would go on waiting, and everybody else
    /// behind it.
    fn end(self, ended: &Ended) {
        let gone = !ended.lingering && !matches!(ended.exit, Exit::Code(0) | Exit::CannotStart(_));
        if gone && self.stop.send(()).is_ok() {
            let until = Instant::now() + LAST_LOOK;
            while self.overlong.recv_timeout(until.saturating_duration_since(Instant::now())).is_ok() {}
        }
    }
}

fn watch(run: &Run, world: &World) -> Vec<LockWatch> {
    let limit = world.rules.patience.ddl_lock;
    let targets = world.targets.iter().zip(&run.facts);
    let watched = targets
        .filter(|(target, facts)| takes_part(facts, target) && !target.same_as_earlier && !facts.pending.is_empty());
    let waits = watched.filter_map(|(target, _)| (target.lock_waits)(run.tag()));
    waits.map(|waits| watch_one(waits, limit, world.reporter.clone())).collect()
}

fn watch_one(mut waits: Box<dyn LockWaits>, limit: Option<Duration>, reporter: Reporter) -> LockWatch {
    let (stop, stopped) = channel();
    let (sender, overlong) = channel();
    std::thread::spawn(move || {
        let began = Instant::now();
        let mut story = Story::new(limit);
        let mut told = false;
        let mut rest = story.interval();
        let end = loop {
            match stopped.recv_timeout(rest) {
                Err(RecvTimeoutError::Timeout) => {}
                end => break end,
            }
            rest = story.interval();
            let seen = match waits.look() {
                Ok(seen) => seen,
                Err(error) => {
                    let why = format!("cannot look for lock waits: {error}");
                    // It matters where a bound was asked for; otherwise only the curious want to know.
                    if limit.is_some() && !std::mem::replace(&mut told, true) {
                        reporter.warn(&why);
                    } else {
                        reporter.detail(&why);
                    }
                    rest = AFTER_ERROR;
                    continue;
                }
            };
            let deeds = story.see(began.elapsed(), seen);
            // Before anything is cancelled: the command may be gone as soon as it is.
            let _ = sender.send(story.overlong().map(str::to_owned));
            for deed in deeds {
                carry_out(&deed, &mut *waits, &reporter);
            }
        };
        if end.is_ok() {
            cancel_orphans(&mut *waits, &reporter);
        }
        drop(sender);
    });
    LockWatch { stop, overlong }
}

/// Cancels what the command left waiting in the server.
fn cancel_orphans(waits: &mut dyn LockWaits, reporter: &Reporter) {
    let own: Vec<Wait> = waits.look().unwrap_or_default().into_iter().filter(|wait| wait.own).collect();
    // As while it ran: with two of them, one may be somebody else's.
    if let [wait] = &own[..]
        && waits.cancel(wait).unwrap_or_default()
    {
        let Wait { session, target, .. } = wait;
        reporter
            .warn(&format!("the migration is gone, but its session {session} still waited for {target}: cancelled"));
    }
}

fn carry_out(deed: &Deed, waits: &mut dyn LockWaits, reporter: &Reporter) {
    match deed {
        Deed::Say(lines) => {
            let mut lines = lines.iter();
            lines.next().into_iter().for_each(|line| reporter.warn(line));
            lines.for_each(|line| reporter.warn_item(line));
        }
        Deed::Cancel(wait) => match waits.cancel(wait) {
            Ok(_) => {}
            Err(error) => reporter.detail(&format!("the wait cannot be cancelled: {error}")),
        },
    }
}
