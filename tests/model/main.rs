//! The protocol of the restart debt, checked by a breadth-first search over every interleaving within bounds.
//!
//! Two runs, their migrations' processes, the platform, the database server and people act in any order, one atomic action
//! at a time: a read of the database, a commit, a call of the API, an event of the child. What a run does next comes from
//! [`unstuck::debt::next`]; what a ledger means, which of its rows may go and which release they await from
//! [`unstuck::debt::Ledger`]; whether a dyno list proves the restart from [`unstuck::verify::Suspects`]. The model adds what
//! `plan` and `act` do around them: how a view is made, and what each step does to the world.
//!
//! The bounds: two runs of `unstuck migrate`, two web dynos, two migrations at the start; the rest is in each [`Budget`]. A run
//! can be killed before each of its actions, its migration with it or not; the migration boots before it connects. After each
//! quiescent state a third run, `migrate` and `restart` in turn, is left alone, and a fourth behind it.
//!
//! What the model leaves out: one app, one database, one process type; no signals, no rolling restart, no preboot, no age
//! rule; no rows that cannot be read; a child that lingers after its end. A dyno boots in one moment. A dyno list may lack a
//! process, but its `Date` is that of the answer. The catalogue's hash never returns to what it was. A fail-over keeps all
//! commits and cuts all sessions, and Rails' process then ends. A migration by hand commits together with its version row.
//!
//! One limit of the protocol is pinned at the end, so that the claim is exact.

#![allow(clippy::print_stderr, reason = "each search says how far it went")]

mod world;

use std::collections::HashSet;
use std::hash::{BuildHasherDefault, Hasher};
use std::rc::Rc;

use unstuck::debt::{Intent, Standing};

use world::{Broken, Budget, Config, Event, Policy, Rules, State};

/// What has to hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Property {
    /// Whenever the ledger says "closed", every web process began after the last committed change.
    S1,
    /// A migration of ours changes the schema only while the ledger is open.
    S2,
    /// From each quiescent state one undisturbed run makes all dynos fresh and the ledger closed, or leaves nothing in it but
    /// rows whose runs may still be alive.
    L1,
    /// A run after that asks for no restart.
    L2,
}

const ALL: [Property; 4] = [Property::S1, Property::S2, Property::L1, Property::L2];

/// How a search ended.
enum Found {
    /// The whole space was searched: so many states.
    Nothing(usize),
    /// The property that is broken, and the shortest way there.
    Broken(Property, Vec<Event>),
}

/// Many small numbers, mixed fast: the states come from nobody who would make them collide.
#[derive(Default)]
pub struct Mix(u64);

impl Hasher for Mix {
    fn finish(&self) -> u64 {
        self.0 ^ (self.0 >> 32)
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u8(*byte);
        }
    }

    fn write_u8(&mut self, number: u8) {
        self.write_u64(u64::from(number));
    }

    fn write_isize(&mut self, number: isize) {
        self.write_u64(number.cast_unsigned() as u64);
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = (self.0.rotate_left(5) ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

pub type Fast = BuildHasherDefault<Mix>;

struct Search {
    rules: Rules,
    properties: Vec<Property>,
    /// Quiescent worlds, as a later run sees them, from which the undisturbed run was found good.
    good: HashSet<State, Fast>,
}

impl Search {
    fn new(config: Config, properties: &[Property]) -> Self {
        Self { rules: Rules::new(config), properties: properties.to_vec(), good: HashSet::default() }
    }

    fn run(mut self) -> Found {
        let first = Rc::new(State::first(&self.rules.config));
        let mut seen: HashSet<Rc<State>, Fast> = HashSet::from_iter([Rc::clone(&first)]);
        let mut reached = vec![(first, 0, None)];
        let mut at = 0;
        while at < reached.len() {
            let state = *reached[at].0;
            if let Some((property, mut tail)) = self.broken_in(&state) {
                let mut trace = trace(&reached, at);
                trace.append(&mut tail);
                return Found::Broken(property, trace);
            }
            for (event, after) in self.rules.next(&state) {
                if event.changes && self.wants(Property::S2) && self.rules.standing(&state) != Standing::Owed {
                    let mut trace = trace(&reached, at);
                    trace.push(event);
                    return Found::Broken(Property::S2, trace);
                }
                if !seen.contains(&after) {
                    let after = Rc::new(after);
                    seen.insert(Rc::clone(&after));
                    reached.push((after, at, Some(event)));
                }
            }
            at += 1;
        }
        Found::Nothing(reached.len())
    }

    fn wants(&self, property: Property) -> bool {
        self.properties.contains(&property)
    }

    fn broken_in(&mut self, state: &State) -> Option<(Property, Vec<Event>)> {
        if self.wants(Property::S1) && self.rules.standing(state) == Standing::Closed && !state.all_fresh() {
            return Some((Property::S1, Vec::new()));
        }
        if !state.quiescent() || !(self.wants(Property::L1) || self.wants(Property::L2)) {
            return None;
        }
        [Intent::Migrate, Intent::Restart].into_iter().find_map(|intent| {
            let rested = state.rested(intent);
            if !self.good.insert(rested) {
                return None;
            }
            let (settled, mut tail) = self.undisturbed(rested);
            let open = self.rules.standing(&settled) == Standing::Owed && !self.rules.only_kept(&settled);
            if !settled.last_ended() || open || !settled.all_fresh() {
                return self.wants(Property::L1).then_some((Property::L1, tail));
            }
            let (_, mut again) = self.undisturbed(settled.rested(Intent::Restart));
            if again.iter().any(|event| event.restarts) {
                tail.append(&mut again);
                return self.wants(Property::L2).then_some((Property::L2, tail));
            }
            None
        })
    }

    /// One run to which nothing happens, to its end.
    fn undisturbed(&self, mut state: State) -> (State, Vec<Event>) {
        let mut events = Vec::new();
        while let Some((event, after)) = self.rules.undisturbed(&state).filter(|_| events.len() < 100) {
            events.push(event);
            state = after;
        }
        (state, events)
    }
}

fn trace(reached: &[(Rc<State>, usize, Option<Event>)], mut at: usize) -> Vec<Event> {
    let mut events = Vec::new();
    while let (_, before, Some(event)) = &reached[at] {
        events.push(*event);
        at = *before;
    }
    events.reverse();
    events
}

fn told(events: &[Event]) -> String {
    events
        .iter()
        .enumerate()
        .fold(String::new(), |told, (number, event)| told + &format!("\n  {:2}  {event}", number + 1))
}

const RECOMMENDED: Config = Config {
    broken: Broken::Nothing,
    budget: Budget {
        runs: 2,
        kills: 2,
        cycles: 0,
        faults: 1,
        stale: 0,
        hand: 0,
        undone: 0,
        new_files: 0,
        withdrawn_files: 0,
        failovers: 0,
    },
    transactional: true,
    server_goes_on: false,
    release: None,
};

fn holds(name: &str, config: Config) {
    let began = std::time::Instant::now();
    match Search::new(config, &ALL).run() {
        Found::Nothing(states) => eprintln!("{name}: {states} states, all, {:.1?}: holds", began.elapsed()),
        Found::Broken(property, events) => panic!("{name}: {property:?} is broken:{}", told(&events)),
    }
}

fn breaks(property: Property, config: Config) {
    let began = std::time::Instant::now();
    match Search::new(config, &[property]).run() {
        Found::Nothing(states) => panic!("{:?}: {property:?} holds in {states} states", config.broken),
        Found::Broken(_, events) => {
            eprintln!("{:?}: {property:?} is broken, {:.1?}:{}", config.broken, began.elapsed(), told(&events));
        }
    }
}

#[test]
fn r00_two_runs_two_kills_orphans_and_a_fault() {
    holds("R00", RECOMMENDED);
}

#[test]
fn r01_the_platform_cycles_dynos() {
    let budget = Budget { kills: 1, cycles: 2, faults: 1, ..RECOMMENDED.budget };
    holds("R01", Config { budget, ..RECOMMENDED });
}

#[test]
fn r02_changes_without_a_version_row() {
    let budget = Budget { kills: 2, withdrawn_files: 1, ..RECOMMENDED.budget };
    holds("R02", Config { budget, transactional: false, ..RECOMMENDED });
}

#[test]
fn r03_by_hand_and_a_new_file() {
    let base = Budget { kills: 1, faults: 0, ..RECOMMENDED.budget };
    for (what, budget) in
        [("there and back", Budget { hand: 2, ..base }), ("and a new file", Budget { hand: 1, new_files: 1, ..base })]
    {
        holds(&format!("R03 by hand, {what}"), Config { budget, ..RECOMMENDED });
    }
}

#[test]
fn r05_release_phase() {
    for policy in [Policy::Api, Policy::Handoff] {
        let budget = Budget { kills: 1, cycles: 1, new_files: 1, ..RECOMMENDED.budget };
        holds(&format!("R05 {policy:?}"), Config { budget, release: Some(policy), ..RECOMMENDED });
    }
}

#[test]
fn r09_statements_that_outlive_their_client() {
    let budget = Budget { kills: 2, withdrawn_files: 1, ..RECOMMENDED.budget };
    holds("R09", Config { budget, transactional: false, server_goes_on: true, ..RECOMMENDED });
}

#[test]
fn r11_the_server_starts_again() {
    let budget = Budget { kills: 1, failovers: 1, faults: 0, ..RECOMMENDED.budget };
    holds("R11", Config { budget, ..RECOMMENDED });
    let budget = Budget { withdrawn_files: 1, ..budget };
    let half = Config { budget, transactional: false, ..RECOMMENDED };
    holds("R11 half changes", half);
    let budget = Budget { kills: 2, withdrawn_files: 0, ..budget };
    holds("R11 statements that outlive their client", Config { budget, server_goes_on: true, ..half });
}

#[test]
fn r12_stale_lists() {
    let budget = Budget { kills: 1, stale: 2, cycles: 1, ..RECOMMENDED.budget };
    holds("R12", Config { budget, ..RECOMMENDED });
}

#[test]
fn each_broken_rule_is_found() {
    use Broken as B;
    let half = Config { transactional: false, ..RECOMMENDED };
    let with = |broken: Broken, base: Config| Config { broken, ..base };
    let budget = RECOMMENDED.budget;
    let withdrawn = Config { budget: Budget { withdrawn_files: 1, ..budget }, ..half };
    let release = |policy| Config { release: Some(policy), ..RECOMMENDED };
    for (property, config) in [
        (Property::L1, with(B::N00NoRecord, withdrawn)),
        (Property::L1, with(B::N01RecordAfter, withdrawn)),
        (Property::S1, with(B::N02ClearOn202, RECOMMENDED)),
        (Property::S1, with(B::N03TrustUp, RECOMMENDED)),
        (Property::S1, with(B::N04ListBefore, Config { budget: Budget { cycles: 1, ..budget }, ..RECOMMENDED })),
        (Property::S1, with(B::N06NoLock, half)),
        (Property::S1, with(B::N07LockNotInherited, half)),
        (Property::S2, with(B::N10OneRow, Config { budget: Budget { failovers: 1, ..budget }, ..RECOMMENDED })),
        (Property::L1, with(B::N11NoVersionRow, withdrawn)),
        (Property::L1, with(B::N12OnlyExitZero, withdrawn)),
        (Property::S1, with(B::N13TrustPlatform, release(Policy::Handoff))),
        (
            Property::S1,
            with(B::N14ReleaseForAll, Config { budget: Budget { new_files: 1, ..budget }, ..release(Policy::Handoff) }),
        ),
        (Property::S1, with(B::N15IdsOnly, Config { budget: Budget { stale: 1, ..budget }, ..RECOMMENDED })),
        (Property::L1, with(B::N16NoLevel, Config { budget: Budget { hand: 1, ..budget }, ..RECOMMENDED })),
        (Property::S1, with(B::N17ChildGone, Config { server_goes_on: true, ..half })),
        (
            Property::S1,
            with(
                B::SessionsOnce,
                Config { budget: Budget { kills: 1, failovers: 1, faults: 0, ..budget }, server_goes_on: true, ..half },
            ),
        ),
        (Property::L1, with(B::PaidByVersions, Config { budget: Budget { failovers: 1, ..budget }, ..half })),
    ] {
        breaks(property, config);
    }
}

/// The applied versions tell of migrations behind our back, unless somebody puts them back as they were before we look.
#[test]
fn limit_what_is_done_and_undone_by_hand_is_not_seen() {
    let budget = Budget { runs: 0, hand: 1, undone: 1, ..RECOMMENDED.budget };
    breaks(Property::S1, Config { budget, ..RECOMMENDED });
}
