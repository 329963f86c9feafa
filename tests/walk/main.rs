//! Walks every point of a run at which it can be stopped or a call can fail, alone, in pairs and with two runs at once. The
//! program is the real one; databases, platform, migration command and time are played in memory, so that each case takes a
//! moment and always goes the same way. After each case one undisturbed run has to bring the app where the promise says.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what went wrong by failing there")]

mod world;

use std::collections::BTreeSet;
use std::fs::File;
use std::os::fd::AsRawFd as _;
use std::sync::{Arc, Mutex, Once};

use unstuck::config::{Policy, Strategy};
use unstuck::debt::{Intent, Verdict};
use world::{Baton, Fate, Fault, How, Order, Orphan, Played, Schema, Sim, play};

/// A run makes fewer calls than this, or it goes round in circles.
const LONGEST: usize = 400;

const MIGRATE: Order = Order { intent: Intent::Migrate, release: None, strategy: Strategy::AtOnce };

struct Scenario {
    name: &'static str,
    sim: fn() -> Sim,
    order: Order,
    /// The undisturbed run afterwards.
    last: Order,
}

fn scenarios() -> Vec<Scenario> {
    let by = |name, sim, order| Scenario { name, sim, order, last: Order { release: None, ..order } };
    let release = |policy| Order { release: Some(policy), ..MIGRATE };
    vec![
        by("all succeed", || one(&[(2, Fate::Succeeds), (3, Fate::Succeeds)]), MIGRATE),
        by("the second fails", || cycling(one(&[(2, Fate::Succeeds), (3, Fate::Fails)])), MIGRATE),
        by("the first fails", || one(&[(2, Fate::Fails)]), MIGRATE),
        by("half a change", || one(&[(2, Fate::Half)]), MIGRATE),
        by("migrated by hand", by_hand, MIGRATE),
        by("restart", by_hand, Order { intent: Intent::Restart, ..MIGRATE }),
        by("restart all", || Sim::new(vec![Schema::with(&[])], false), Order { intent: Intent::RestartAll, ..MIGRATE }),
        by("rolling", || one(&[(2, Fate::Succeeds)]), Order { strategy: Strategy::Rolling, ..MIGRATE }),
        by("release, api", || one(&[(2, Fate::Succeeds)]), release(Policy::Api)),
        by("release, handoff", || one(&[(2, Fate::Succeeds)]), release(Policy::Handoff)),
        by("release, the second fails", || one(&[(2, Fate::Succeeds), (3, Fate::Half)]), release(Policy::Handoff)),
        by(
            "two databases",
            || Sim::new(vec![Schema::with(&[(2, Fate::Succeeds)]), Schema::with(&[(12, Fate::Succeeds)])], true),
            MIGRATE,
        ),
        by("a fresh database", || Sim::new(vec![Schema::fresh()], false), MIGRATE),
    ]
}

fn one(pending: &[(u64, Fate)]) -> Sim {
    Sim::new(vec![Schema::with(pending)], true)
}

fn cycling(mut sim: Sim) -> Sim {
    sim.cycles = true;
    sim
}

fn by_hand() -> Sim {
    let mut sim = one(&[(2, Fate::Succeeds)]);
    sim.migrate_by_hand(0, 2);
    sim
}

fn shared(sim: Sim) -> Arc<Mutex<Sim>> {
    mute();
    Arc::new(Mutex::new(sim))
}

fn taken(sim: &Arc<Mutex<Sim>>) -> Sim {
    sim.lock().unwrap().clone()
}

/// A run in `sim` with one fault, and the world after it.
fn disturbed(sim: Sim, number: usize, order: Order, fault: Fault, orphan: Orphan) -> (Played, Sim) {
    let sim = shared(sim);
    let played = play(&sim, number, order, Some(fault), orphan, None);
    let sim = taken(&sim);
    (played, sim)
}

/// One undisturbed run keeps the promise, and the next one has nothing to do. What failed is no longer among the files: only
/// the record can tell of it.
fn assert_kept(mut sim: Sim, number: usize, last: Order, faults: usize, case: &str) {
    for schema in &mut sim.databases {
        schema.files.retain(|(_, fate)| *fate == Fate::Succeeds);
    }
    let sim = shared(sim);
    let ran = play(&sim, number, last, None, Orphan::Dies, None);
    {
        let mut sim = sim.lock().unwrap();
        sim.orphans_end();
        assert_eq!(sim.broken, [""; 0], "{case}: {ran:?}");
        let fine = matches!(ran.verdict, Some(Verdict::Settled | Verdict::NothingToDo)) && ran.code == Some(0);
        assert!(fine, "{case}: {ran:?}");
        assert!(sim.all_new(), "{case}: an old process is left: {ran:?}");
        assert!(!sim.has_debts(), "{case}: a row is left: {ran:?}");
        let again = usize::from(last.intent == Intent::RestartAll);
        assert!(sim.most_restarts() <= 1 + faults + again, "{case}: {} restarts of one dyno", sim.most_restarts());
    }
    let third = play(&sim, number + 1, MIGRATE, None, Orphan::Dies, None);
    assert_eq!((third.verdict, third.code), (Some(Verdict::NothingToDo), Some(0)), "{case}: {third:?}");
    assert!(third.points.iter().all(|point| point == "look"), "{case}: {third:?}");
}

/// Whether the child was there when the run was stopped.
fn left_a_child(played: &Played) -> bool {
    played.code.is_none() && played.points.last().is_some_and(|point| point.starts_with("child") || point == "touch")
}

fn orphans(played: &Played) -> &'static [Orphan] {
    if left_a_child(played) { &Orphan::ALL } else { &Orphan::ALL[..1] }
}

#[test]
fn stopped_at_any_point_the_next_run_keeps_the_promise() {
    let mut names = BTreeSet::new();
    let mut cases = 0;
    for Scenario { name, sim, order, last } in scenarios() {
        let points = undisturbed(sim(), order).points;
        for (at, point) in points.iter().enumerate() {
            for how in [How::StopBefore, How::StopAfter] {
                let fault = Fault { at, how };
                let (played, after) = disturbed(sim(), 0, order, fault, Orphan::Dies);
                assert_eq!(played.code, None, "{name}: `{point}` was not met again");
                for &orphan in orphans(&played) {
                    let after = match orphan {
                        Orphan::Dies => after.clone(),
                        _ => disturbed(sim(), 0, order, fault, orphan).1,
                    };
                    assert_kept(after, 1, last, 1, &format!("{name}: {how:?} `{point}` ({at}), the child {orphan:?}"));
                    cases += 1;
                }
            }
        }
        names.extend(points);
    }
    println!("{cases} stops at points of these names: {names:#?}");
    for name in NAMES {
        assert!(names.contains(*name), "`{name}` is not a point any more");
    }
    assert!(cases > 500, "only {cases} stops");
}

/// The points that a walk must have met: each durable write, each call of the API, each event of a child.
const NAMES: &[&str] = &[
    "look",
    "get app",
    "list dynos",
    "list releases",
    "try lock",
    "list sessions",
    "catalogue",
    "write M",
    "read back",
    "touch",
    "child: is started",
    "child: boots",
    "child: connects",
    "child: commits 2",
    "child: meanwhile a dyno cycles",
    "child: half of 2",
    "child: fails at 3",
    "child: exits",
    "erase",
    "write D",
    "write W",
    "get formation",
    "restart web",
    "restart web.1",
    "settle",
];

fn undisturbed(sim: Sim, order: Order) -> Played {
    let sim = shared(sim);
    let played = play(&sim, 0, order, None, Orphan::Dies, None);
    assert!(played.code.is_some() && played.points.len() < LONGEST, "{played:?}");
    assert_eq!(sim.lock().unwrap().broken, [""; 0], "{played:?}");
    played
}

/// The squares of the longer scenarios take minutes: of their second steps every fifth is walked, each time from another. With
/// `UNSTUCK_WALK=whole` all are.
fn stride() -> usize {
    if std::env::var_os("UNSTUCK_WALK").is_some_and(|how| how == "whole") { 1 } else { 5 }
}

/// To be stopped after one point is to be stopped before the next: the walk goes on until the run ends by itself.
#[test]
fn stopped_twice_the_third_run_keeps_the_promise() {
    let mut pairs = 0;
    let each = ["restart", "half a change", "the second fails"];
    for Scenario { name, sim, order, last } in scenarios() {
        for first in 0..LONGEST {
            let fault = Fault { at: first, how: How::StopBefore };
            let (played, _) = disturbed(sim(), 0, order, fault, Orphan::Dies);
            if played.code.is_some() {
                break;
            }
            let whole = each.contains(&name);
            let stride = if whole { 1 } else { stride() };
            let start = first % stride;
            let kinds = if left_a_child(&played) && whole { 2 } else { 1 };
            for &orphan in &Orphan::ALL[..kinds] {
                let between = disturbed(sim(), 0, order, fault, orphan).1;
                for second in (start..LONGEST).step_by(stride) {
                    let fault = Fault { at: second, how: How::StopBefore };
                    let (again, after) = disturbed(between.clone(), 1, order, fault, orphan);
                    let points = (played.points.last(), again.points.last());
                    let case = format!("{name}: stopped before {points:?} ({first}, {second}), the child {orphan:?}");
                    assert_kept(after, 2, last, 2, &case);
                    pairs += 1;
                    if again.code.is_some() {
                        break;
                    }
                }
            }
        }
    }
    println!("{pairs} pairs of stops");
    assert!(pairs > 3_000, "only {pairs} pairs");
}

#[test]
fn whatever_call_fails_the_run_claims_nothing_false_and_the_next_one_keeps_the_promise() {
    let mut cases = 0;
    for Scenario { name, sim, order, last } in scenarios() {
        for (at, point) in undisturbed(sim(), order).points.iter().enumerate() {
            let forbid = point.starts_with("restart").then_some(How::Forbid);
            let fails = (!point.starts_with("child")).then_some([How::FailBefore, How::FailAfter]);
            for how in fails.into_iter().flatten().chain(forbid) {
                let (played, after) = disturbed(sim(), 0, order, Fault { at, how }, Orphan::Dies);
                let case = format!("{name}: {how:?} `{point}` ({at})");
                assert!(played.code.is_some(), "{case}");
                assert_kept(after, 1, last, 1, &case);
                cases += 1;
            }
        }
    }
    println!("{cases} failing calls");
    assert!(cases > 400, "only {cases} failing calls");
}

/// Two runs at once: they change places where one waits, and at the steps in `switches`. `None`: the steps were not met.
fn both(sim: Sim, order: Order, switches: &[usize], fault: Option<Fault>) -> Option<(Sim, [Played; 2])> {
    let (sim, baton) = (shared(sim), Arc::new(Baton::new(switches)));
    let played = std::thread::scope(|scope| {
        let second = scope.spawn(|| play(&sim, 1, order, None, Orphan::LivesLong, Some(Arc::clone(&baton))));
        let first = play(&sim, 0, order, fault, Orphan::LivesLong, Some(Arc::clone(&baton)));
        [first, second.join().unwrap()]
    });
    (baton.steps() >= switches.last().copied().unwrap_or(0)).then(|| (taken(&sim), played))
}

fn named(met: &[&str]) -> Vec<Scenario> {
    scenarios().into_iter().filter(|scenario| met.contains(&scenario.name)).collect()
}

#[test]
fn two_runs_at_once_keep_the_promise() {
    let mut schedules = 0;
    let twice = ["restart", "half a change"];
    for Scenario { name, sim, order, last } in
        named(&["all succeed", "the second fails", "half a change", "restart", "rolling", "two databases"])
    {
        for first in 0..LONGEST {
            let Some((after, played)) = both(sim(), order, &[first], None) else { break };
            assert_kept(after, 2, last, 1, &format!("{name}: changed at {first}: {played:?}"));
            schedules += 1;
            let stride = if twice.contains(&name) { 1 } else { stride() };
            for second in (first + 1 + first % stride..LONGEST).step_by(stride) {
                let Some((after, played)) = both(sim(), order, &[first, second], None) else { break };
                assert_kept(after, 2, last, 1, &format!("{name}: changed at {first} and {second}: {played:?}"));
                schedules += 1;
            }
        }
    }
    println!("{schedules} schedules of two runs");
    assert!(schedules > 1_000, "only {schedules} schedules");
}

#[test]
fn two_runs_at_once_of_which_one_is_killed_keep_the_promise() {
    let mut schedules = 0;
    for Scenario { name, sim, order, last } in named(&["half a change", "restart"]) {
        for at in 0..LONGEST {
            let fault = Fault { at, how: How::StopBefore };
            let mut met = false;
            for switch in 0..LONGEST {
                let Some((after, played)) = both(sim(), order, &[switch], Some(fault)) else { break };
                met |= played[0].code.is_none();
                assert_kept(after, 2, last, 2, &format!("{name}: killed at {at}, changed at {switch}: {played:?}"));
                schedules += 1;
            }
            if !met {
                break;
            }
        }
    }
    println!("{schedules} schedules of two runs with a kill");
    assert!(schedules > 1_000, "only {schedules} schedules");
}

/// The program warns on standard error of each of the many failures that are made here; nobody wants to read that.
fn mute() {
    static MUTED: Once = Once::new();
    MUTED.call_once(|| {
        let null = File::options().write(true).open("/dev/null").unwrap();
        // SAFETY: both descriptors are open, and what the second one meant before is not used by anybody's memory.
        let muted = unsafe { libc::dup2(null.as_raw_fd(), 2) };
        assert_eq!(muted, 2);
    });
}
