//! A rolling restart: web dynos a few at a time, the next ones only when every other one is up.
//!
//! Before the first request the moment is written into the record: what boots after it is new, and a run that comes after one
//! that was killed on the way, or stopped, restarts only what is still old.

use std::collections::BTreeSet;
use std::time::Duration;

use super::{POLL_MAX, RETRY_MAX, World, note, note_answer, own_key, pause, takes_part, tell_progress};
use crate::config::Strategy;
use crate::debt::{LONGEST_VALUE, Note, Phase, Restart, Standing};
use crate::dynos::{Dyno, DynoList, Generation};
use crate::plan::{Roll, Run};
use crate::ports::Platform;
use crate::report::Reporter;
use crate::verify::Suspects;

/// The one process type that the router sends requests to.
pub const WEB: &str = "web";

/// Stamps have whole seconds: what boots after this pause has a later one than the list before it.
const NEXT_SECOND: Duration = Duration::from_secs(1);

/// The pool of API requests gains 75 a minute, and others use it too. Below the first figure we look less often, below the
/// second one rarely: what is left is for the restarts.
const FEW_REQUESTS: u64 = 200;
const LAST_REQUESTS: u64 = 30;

/// How the stuck dynos are to be restarted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Way {
    /// All at once, and what there is to say of that.
    AtOnce(Option<&'static str>),
    /// The web dynos a few at a time; what there is to say of the others.
    Rolling(Option<&'static str>),
}

/// Whether to roll. Where the platform does better by itself, or a roll would save no request, all are restarted at once.
pub fn way(run: &Run, world: &World, platform: &dyn Platform, suspects: &Suspects) -> Way {
    let web = suspects.dynos.iter().filter(|dyno| dyno.kind == WEB).count();
    let others = suspects.dynos.len() > web;
    if world.rules.strategy != Strategy::Rolling || world.interrupted() {
        return Way::AtOnce(None);
    }
    if world.rules.place.is_release() && run.succeeded() {
        return Way::AtOnce(Some("not rolling: the release that follows would overtake it. Restarting at once"));
    }
    if web == 0 {
        return Way::AtOnce(Some("not rolling: no requests go to these processes. Restarting each type at once"));
    }
    if web <= world.rules.max_unavailable {
        return Way::AtOnce(None);
    }
    match platform.preboot() {
        Ok(true) => {
            return Way::AtOnce(Some(
                "not rolling: preboot is on, so the platform itself starts new web dynos before it ends the old ones, which \
                 may serve, unlisted, for three minutes more",
            ));
        }
        Ok(false) => {}
        Err(error) => world.reporter.detail(&format!("cannot tell whether preboot is on: {error}")),
    }
    Way::Rolling(others.then_some("only web dynos roll: the other types, to which no requests go, follow at once"))
}

/// Writes the list's moment into the rows that are owed, so that what boots from now on need not be restarted again. Where a
/// debt has no row (somebody migrated by hand) it gets one. `false`: there is no need. Otherwise list again: the rows that will
/// be cleared are those that were read before the list.
pub fn record(run: &mut Run, world: &mut World, suspects: &Suspects) -> bool {
    let Some(date) = run.list.as_ref().map(|list| list.date.as_second()) else { return false };
    let owed = run.standing() == Standing::Owed;
    if run.roll == Roll::Recorded || !owed || suspects.by_release() || run.fresh().is_some() {
        return false;
    }
    run.roll = Roll::Recorded;
    for index in 0..world.targets.len() {
        let facts = &run.facts[index];
        if !takes_part(facts, &world.targets[index]) || run.standing_of(facts) != Standing::Owed {
            continue;
        }
        let ledger = run.ledger(facts).unwrap_or_default();
        let begun = |note: Note| {
            Note { ph: Phase::Due, to: Some(facts.digest.short().into()), at: Some(date), ..note }.to_value()
        };
        let (ours, _) = ledger.split(&run.id, &facts.look.epoch, &world.rules.assume_dead);
        let mut writes: Vec<_> = ours.into_iter().map(|row| (row.entry.key.clone(), begun(row.note.clone()))).collect();
        if ledger.rows.is_empty() {
            writes.push((own_key(run), begun(note(run, facts, world, Phase::Due))));
        }
        for (key, value) in writes.into_iter().filter(|(_, value)| value.len() <= LONGEST_VALUE) {
            // Without it the restart is owed all the same, of every dyno.
            if let Err(error) = world.targets[index].port.write(&key, &value) {
                world.reporter.detail(&format!("the progress of the roll cannot be recorded: {error}"));
            }
        }
    }
    run.restart = Restart::NotListed;
    pause(world, NEXT_SECOND);
    true
}

/// Restarts the stuck web dynos of `list`. `false`: the roll stopped, and `run` says why.
pub fn roll(run: &mut Run, world: &mut World, platform: &dyn Platform, suspects: &Suspects, list: &DynoList) -> bool {
    let at_a_time = world.rules.max_unavailable;
    let mut tour = Tour::of(list, suspects);
    let names = if at_a_time == 1 { "one at a time".into() } else { format!("at most {at_a_time} at a time") };
    world.reporter.say(&format!("rolling restart of {} web dynos, {names}", tour.left.len()));
    if run.app.as_ref().is_some_and(|app| app.generation == Generation::Fir) {
        world.reporter.say("on Fir each dyno is restarted by its name and comes back with another one");
    }
    while !tour.left.is_empty() {
        match tour.wait(run, world, platform) {
            Wait::Ready => {}
            Wait::Interrupted => return false,
            Wait::Stop(why, crashed) => {
                stop(run, world, platform, &why, &crashed);
                return false;
            }
        }
        let batch: Vec<Dyno> = tour.left.drain(..at_a_time.min(tour.left.len())).collect();
        for dyno in batch {
            tour.ask(run, world, platform, &dyno.name);
        }
        if run.restart != Restart::Asked {
            stop(run, world, platform, "the API refuses to restart", &[]);
            return false;
        }
    }
    true
}

/// How far a roll has come.
struct Tour {
    /// Those that are still to be restarted. What has crashed comes first: that costs nobody a request.
    left: Vec<Dyno>,
    /// The boots that have to go.
    old: BTreeSet<String>,
    asked: BTreeSet<String>,
    /// How many web dynos there are.
    wanted: u64,
}

enum Wait {
    /// Every web dyno that is not still to be restarted is new and up.
    Ready,
    Interrupted,
    /// Why, and the dynos that crashed.
    Stop(String, Vec<String>),
}

impl Tour {
    fn of(list: &DynoList, suspects: &Suspects) -> Self {
        let web: Vec<&Dyno> = list.dynos.iter().filter(|dyno| dyno.kind == WEB).collect();
        let crashed = |dyno: &Dyno| dyno.state == "crashed";
        let first = web.iter().copied().filter(|dyno| crashed(dyno));
        let then = suspects.dynos.iter().filter(|dyno| dyno.kind == WEB && !crashed(dyno));
        let left: Vec<Dyno> = first.chain(then).cloned().collect();
        let old = left.iter().map(|dyno| dyno.id.clone()).collect();
        Self { left, old, asked: BTreeSet::new(), wanted: web.len() as u64 }
    }

    fn ask(&mut self, run: &mut Run, world: &World, platform: &dyn Platform, name: &str) {
        if let Some(progress) = &mut run.progress {
            world.reporter.item(&progress.asks(name, world.clock.now()));
        }
        self.asked.insert(name.to_owned());
        let asked = platform.restart_dyno(name);
        note_answer(run, asked);
    }

    /// Waits until the next ones may be restarted. What the platform has replaced by itself meanwhile is new, and is waited for as
    /// well.
    fn wait(&mut self, run: &mut Run, world: &mut World, platform: &dyn Platform) -> Wait {
        let started = world.clock.now();
        let retry_after = (world.rules.prove / 3).min(RETRY_MAX);
        let mut retry_at = started + retry_after;
        let mut interval = world.rules.poll.min(POLL_MAX);
        loop {
            let missing = match platform.dynos() {
                Ok(list) => {
                    tell_progress(run, world, &list);
                    self.left.retain(|dyno| list.dynos.iter().any(|listed| listed.id == dyno.id));
                    let crashed = self.crashed(&list);
                    if !crashed.is_empty() {
                        run.list = Some(list);
                        return Wait::Stop(format!("{} crashed", crashed.join(", ")), crashed);
                    }
                    let stay = self.stay(&list);
                    let missing = self.missing(&list, platform);
                    run.list = Some(list);
                    if missing.is_empty() {
                        return Wait::Ready;
                    }
                    if world.clock.now() >= retry_at {
                        retry_at = world.clock.now() + retry_after;
                        for name in stay {
                            self.ask(run, world, platform, &name);
                        }
                    }
                    missing.join(", ")
                }
                Err(error) => format!("the dynos cannot be listed: {error}"),
            };
            if world.interrupted() {
                return Wait::Interrupted;
            }
            let waited = world.clock.now().saturating_sub(started);
            if run.restart != Restart::Asked || waited >= world.rules.health {
                return Wait::Stop(format!("after {} s {missing}", waited.as_secs()), Vec::new());
            }
            let pace = pace(world, platform, interval);
            pause(world, pace.min(world.rules.health.saturating_sub(waited)).max(Duration::from_millis(10)));
            interval = (interval * 3 / 2).min(POLL_MAX);
        }
    }

    fn web<'a>(&'a self, list: &'a DynoList) -> impl Iterator<Item = &'a Dyno> {
        let waiting = |dyno: &Dyno| self.left.iter().any(|left| left.id == dyno.id);
        list.dynos.iter().filter(move |dyno| dyno.kind == WEB && !waiting(dyno))
    }

    /// The new processes that crashed.
    fn crashed(&self, list: &DynoList) -> Vec<String> {
        let crashed = self.web(list).filter(|dyno| dyno.state == "crashed" && !self.old.contains(&dyno.id));
        crashed.map(|dyno| dyno.name.clone()).collect()
    }

    /// The old ones that should have gone.
    fn stay(&self, list: &DynoList) -> Vec<String> {
        let stay = self.web(list).filter(|dyno| self.old.contains(&dyno.id) && self.asked.contains(&dyno.name));
        stay.map(|dyno| dyno.name.clone()).collect()
    }

    /// What is not new and up yet. A list that is shorter than it was may be one of an app that was scaled down.
    fn missing(&mut self, list: &DynoList, platform: &dyn Platform) -> Vec<String> {
        let ready = |dyno: &&Dyno| !self.old.contains(&dyno.id) && matches!(dyno.state.as_str(), "up" | "idle");
        let mut missing: Vec<String> = self
            .web(list)
            .filter(|dyno| !ready(dyno))
            .map(|dyno| {
                let state = if self.old.contains(&dyno.id) { "the old process" } else { &dyno.state };
                format!("{} is still {state}", dyno.name)
            })
            .collect();
        let listed = list.dynos.iter().filter(|dyno| dyno.kind == WEB).count() as u64;
        if listed < self.wanted {
            let formation = platform.formation().unwrap_or_default();
            if let Some(web) = formation.iter().find(|formation| formation.kind == WEB) {
                self.wanted = web.quantity;
            }
        }
        if listed < self.wanted {
            missing.push(format!("{listed} of {} web dynos are listed", self.wanted));
        }
        missing
    }
}

/// Says why the roll stopped, how far it came, and what to do.
fn stop(run: &mut Run, world: &World, platform: &dyn Platform, why: &str, crashed: &[String]) {
    for name in crashed {
        last_words(platform, name, world.reporter);
    }
    run.restart = Restart::Unproved;
    run.roll = Roll::Stopped;
    let (suspects, list) = (run.suspects.as_ref(), run.list.as_ref());
    let listed = |dyno: &&Dyno| list.is_some_and(|list| list.dynos.iter().any(|listed| listed.id == dyno.id));
    let all = suspects.map_or(0, |suspects| suspects.dynos.len());
    let old: Vec<&str> =
        suspects.iter().flat_map(|suspects| &suspects.dynos).filter(listed).map(|dyno| dyno.name.as_str()).collect();
    run.troubles.push(format!(
        "the rolling restart stopped: {why}. {} of {all} stuck dynos were replaced, left are: {}. Mend what keeps a new \
         process from coming up; `unstuck restart --rolling` then goes on with those that are left",
        all - old.len(),
        old.join(", ")
    ));
}

/// Shows the last lines of a crashed dyno's log.
pub fn last_words(platform: &dyn Platform, dyno: &str, reporter: &Reporter) {
    match platform.log_lines(dyno, 10) {
        Ok(lines) if !lines.is_empty() => {
            reporter.say(&format!("{dyno} crashed; its last log lines:"));
            for line in lines {
                reporter.item(&line);
            }
        }
        Ok(_) => reporter.say(&format!("{dyno} crashed; it left no log lines")),
        Err(error) => reporter.say(&format!("{dyno} crashed; its log cannot be read: {error}")),
    }
}

/// The pause before the next look: the usual one, unless the API's rate limit leaves too few requests. Said once.
pub fn pace(world: &mut World, platform: &dyn Platform, usual: Duration) -> Duration {
    let remaining = platform.remaining();
    let pause = paced(usual, world.rules.poll, remaining);
    if let Some(remaining) = remaining.filter(|_| pause > usual && !world.slowed) {
        world.slowed = true;
        world.reporter.say(&format!(
            "the API's rate limit leaves {remaining} requests: looking at the dynos only every {:.1} s",
            pause.as_secs_f32()
        ));
    }
    pause
}

fn paced(usual: Duration, poll: Duration, remaining: Option<u64>) -> Duration {
    match remaining {
        Some(..LAST_REQUESTS) => usual.max(poll * 60),
        Some(..FEW_REQUESTS) => usual.max(poll * 10),
        Some(_) | None => usual,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_become_rare_before_the_rate_limit_is_reached() {
        let s = Duration::from_secs;
        for (usual, remaining, pause) in [
            (s(1), None, s(1)),
            (s(1), Some(4500), s(1)),
            (s(1), Some(200), s(1)),
            (s(1), Some(199), s(10)),
            (s(10), Some(30), s(10)),
            (s(10), Some(29), s(60)),
            (s(1), Some(0), s(60)),
        ] {
            assert_eq!(paced(usual, s(1), remaining), pause, "{remaining:?}");
        }
    }
}
