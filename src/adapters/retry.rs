//! Whether a failed request is sent again, and after which pause. Pure: the caller measures and sleeps.

use std::time::Duration;

/// What sending a request twice would do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Nothing: it only looks.
    Read,
    /// A second restart.
    Restart,
}

/// What a failure says about trying again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It was not acted upon, and it may go through in a moment: no such host, refused.
    NotSent,
    /// It was not acted upon: too many requests. `wait` is how long the server asks to wait.
    Limited { wait: Option<Duration> },
    /// It may have been acted upon: a server error, a cut, silence, an answer that cannot be read.
    Doubtful,
    /// Trying again would end in the same way.
    Final,
}

/// One failed attempt.
#[derive(Debug, Clone, Copy)]
pub struct Attempt {
    pub effect: Effect,
    /// How many attempts came before this one.
    pub earlier: u32,
    /// Since the first attempt began.
    pub spent: Duration,
    /// The time limit of one request.
    pub timeout: Duration,
    /// From 0 to 1, at random, so that clients that failed together do not come back together.
    pub chance: f64,
}

const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// The API refills a little more than one request per second.
const FIRST_PAUSE_LIMITED: Duration = Duration::from_secs(1);
const LONGEST_PAUSE_LIMITED: Duration = Duration::from_secs(30);

/// How many time limits of one request may pass before the last attempt starts. With that attempt, a call ends within three
/// of them (seven where the API says that there were too many requests).
const PATIENCE: u32 = 2;
const PATIENCE_LIMITED: u32 = 6;

/// The pause before the next attempt; `None` when the failure stands.
pub fn pause(fault: Fault, attempt: &Attempt) -> Option<Duration> {
    let (pause, patience) = match (fault, attempt.effect) {
        (Fault::Final, _) | (Fault::Doubtful, Effect::Restart) => return None,
        (Fault::NotSent, _) | (Fault::Doubtful, Effect::Read) => {
            (backoff(FIRST_PAUSE, LONGEST_PAUSE, attempt), PATIENCE)
        }
        (Fault::Limited { wait }, _) => {
            let pause = backoff(FIRST_PAUSE_LIMITED, LONGEST_PAUSE_LIMITED, attempt);
            (wait.map_or(pause, |wait| wait.max(FIRST_PAUSE)), PATIENCE_LIMITED)
        }
    };
    (attempt.spent.saturating_add(pause) <= attempt.timeout * patience).then_some(pause)
}

/// Twice as long after each attempt, a quarter more or less.
fn backoff(first: Duration, longest: Duration, attempt: &Attempt) -> Duration {
    let doubled = first.saturating_mul(2_u32.saturating_pow(attempt.earlier)).min(longest);
    doubled.mul_f64(0.75 + attempt.chance.clamp(0.0, 1.0) / 2.0)
}

#[cfg(test)]
mod tests {
    use super::{Attempt, Effect, Fault, pause};
    use std::time::Duration;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn attempt(effect: Effect, earlier: u32, spent: Duration) -> Attempt {
        Attempt { effect, earlier, spent, timeout: ms(10_000), chance: 0.5 }
    }

    #[test]
    fn a_restart_is_sent_again_only_where_nothing_was_done() {
        let limited = Fault::Limited { wait: None };
        for (fault, read, restart) in [
            (Fault::NotSent, Some(ms(200)), Some(ms(200))),
            (limited, Some(ms(1000)), Some(ms(1000))),
            (Fault::Doubtful, Some(ms(200)), None),
            (Fault::Final, None, None),
        ] {
            assert_eq!(pause(fault, &attempt(Effect::Read, 0, ms(0))), read, "{fault:?}");
            assert_eq!(pause(fault, &attempt(Effect::Restart, 0, ms(0))), restart, "{fault:?}");
        }
    }

    #[test]
    fn pauses_grow_to_a_limit_and_end_with_patience() {
        for (fault, earlier, spent, expected) in [
            (Fault::Doubtful, 1, ms(300), Some(ms(400))),
            (Fault::Doubtful, 3, ms(1500), Some(ms(1600))),
            (Fault::Doubtful, 9, ms(1500), Some(ms(5000))),
            (Fault::Doubtful, u32::MAX, ms(1500), Some(ms(5000))),
            (Fault::Doubtful, 1, ms(19_600), Some(ms(400))),
            (Fault::Doubtful, 1, ms(19_601), None),
            (Fault::Limited { wait: None }, 2, ms(3000), Some(ms(4000))),
            (Fault::Limited { wait: None }, 8, ms(30_000), Some(ms(30_000))),
            (Fault::Limited { wait: None }, 8, ms(30_001), None),
        ] {
            assert_eq!(pause(fault, &attempt(Effect::Read, earlier, spent)), expected, "{fault:?} {earlier} {spent:?}");
        }
    }

    #[test]
    fn the_server_says_how_long_within_reason() {
        for (wait, expected) in [
            (ms(7000), Some(ms(7000))),
            (ms(60_000), Some(ms(60_000))),
            (ms(60_001), None),
            (Duration::MAX, None),
            (ms(0), Some(ms(200))),
        ] {
            let fault = Fault::Limited { wait: Some(wait) };
            assert_eq!(pause(fault, &attempt(Effect::Restart, 0, ms(0))), expected, "{wait:?}");
        }
    }

    #[test]
    fn chance_moves_a_pause_by_a_quarter() {
        for (chance, expected) in [(0.0, 150), (0.5, 200), (1.0, 250), (f64::INFINITY, 250)] {
            let attempt = Attempt { chance, ..attempt(Effect::Read, 0, ms(0)) };
            assert_eq!(pause(Fault::NotSent, &attempt), Some(ms(expected)));
        }
    }
}
