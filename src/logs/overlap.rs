//! What a second log session shows again. Lines have no number, only stamps; equal lines with one stamp do occur, and lines come
//! out of order. So what was seen is counted, line by line, and each is dropped as often as it was seen.

use std::collections::hash_map::RandomState;
use std::collections::{HashMap, VecDeque};
use std::hash::BuildHasher as _;

use jiff::Timestamp;

use crate::logs::HISTORY;

/// More than a session's history can hold, so that no line of it was forgotten.
const REMEMBERED: usize = 2 * HISTORY;

/// What the sessions so far have shown.
#[derive(Default)]
pub struct Overlap {
    hasher: RandomState,
    /// The last lines, oldest first, by their hashes.
    seen: VecDeque<u64>,
    /// Of `seen`, what this session has not shown again yet.
    expected: HashMap<u64, usize>,
    sessions: usize,
    /// The oldest line of the first session. What is older was not asked for.
    oldest: Option<Timestamp>,
    /// How many new lines this session began with; no more are counted once it showed a line again.
    fresh: usize,
    met: bool,
}

impl Overlap {
    /// A session begins. It will show up to [`HISTORY`] lines of the past.
    pub fn begin(&mut self) {
        self.sessions += 1;
        self.fresh = 0;
        self.met = self.seen.is_empty();
        self.expected.clear();
        for hash in &self.seen {
            *self.expected.entry(*hash).or_default() += 1;
        }
    }

    /// Whether this line of the session was not shown by an earlier one.
    pub fn is_new(&mut self, text: &str, at: Option<Timestamp>) -> bool {
        let hash = self.hasher.hash_one(text);
        if let Some(count) = self.expected.get_mut(&hash).filter(|count| **count > 0) {
            *count -= 1;
            self.met = true;
            return false;
        }
        if self.sessions <= 1 {
            self.oldest = self.oldest.into_iter().chain(at).min();
        } else if at.zip(self.oldest).is_some_and(|(at, oldest)| at < oldest) {
            self.met = true;
            return false;
        }
        if !self.met {
            self.fresh += 1;
        }
        self.seen.push_back(hash);
        if self.seen.len() > REMEMBERED {
            self.seen.pop_front();
        }
        true
    }

    /// Whether lines are missing between this session and those before: all of its history was new.
    pub fn lost(&self) -> bool {
        !self.met && self.fresh >= HISTORY
    }

    /// Whether any line was seen.
    pub fn is_empty(&self) -> bool {
        self.seen.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::Overlap;
    use crate::logs::HISTORY;
    use jiff::Timestamp;

    /// Each line is a second and a text; the answer is what is shown of each session.
    fn shown(sessions: &[&[&str]]) -> Vec<String> {
        let mut overlap = Overlap::default();
        let mut shown = Vec::new();
        for session in sessions {
            overlap.begin();
            let new = |line: &&&str| {
                let second: i64 = line.split(' ').next().unwrap().parse().unwrap();
                overlap.is_new(line, Timestamp::from_second(second).ok())
            };
            shown.push(session.iter().filter(new).copied().collect::<Vec<_>>().join(","));
        }
        shown
    }

    #[test]
    fn each_line_is_shown_as_often_as_it_was_written() {
        for (sessions, expected) in [
            (vec![&["1 a", "2 b"][..], &["1 a", "2 b", "3 c"]], vec!["1 a,2 b", "3 c"]),
            // Equal lines with one stamp: two were seen, four are there.
            (vec![&["1 a", "1 a"], &["1 a", "1 a", "1 a", "1 a"]], vec!["1 a,1 a", "1 a,1 a"]),
            // The second session has another order, and one line that the first had skipped.
            (vec![&["1 a", "3 c"], &["3 c", "1 a", "2 b"]], vec!["1 a,3 c", "2 b"]),
            // What is older than the first line was not asked for; what is as old may have been missed.
            (vec![&["5 e"], &["4 d", "5 x", "5 e", "6 f"]], vec!["5 e", "5 x,6 f"]),
            // A line of the second session is known in the third.
            (vec![&["1 a"], &["1 a", "2 b"], &["1 a", "2 b", "3 c"]], vec!["1 a", "2 b", "3 c"]),
            // Nothing seen, nothing dropped.
            (vec![&[], &["1 a"]], vec!["", "1 a"]),
        ] {
            assert_eq!(shown(&sessions), expected, "{sessions:?}");
        }
    }

    #[test]
    fn a_history_that_is_all_new_has_a_gap_before_it() {
        for (history, again, lost) in [(HISTORY, 0, true), (HISTORY - 1, 0, false), (HISTORY, 1, false)] {
            let mut overlap = Overlap::default();
            overlap.begin();
            assert!(overlap.is_new("first", Some(Timestamp::UNIX_EPOCH)));
            overlap.begin();
            for _ in 0..again {
                assert!(!overlap.is_new("first", Some(Timestamp::UNIX_EPOCH)));
            }
            for number in 0..history {
                overlap.is_new(&number.to_string(), Timestamp::from_second(9).ok());
            }
            assert_eq!(overlap.lost(), lost, "{history} {again}");
        }
    }

    #[test]
    fn the_memory_is_bounded() {
        let mut overlap = Overlap::default();
        overlap.begin();
        for number in 0..super::REMEMBERED + 5 {
            overlap.is_new(&number.to_string(), None);
        }
        assert_eq!(overlap.seen.len(), super::REMEMBERED);
    }
}
