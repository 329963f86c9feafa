//! What becomes of each dyno while it is restarted: a line for every change. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::dynos::{Dyno, DynoList};

/// Follows the dynos of a restart from list to list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// The boots that were there before.
    before: BTreeSet<String>,
    kinds: BTreeSet<String>,
    /// When each name's restart was asked for.
    asked: BTreeMap<String, Duration>,
    /// What was said last of each name.
    said: BTreeMap<String, String>,
}

const GONE: &str = "gone";

impl Progress {
    /// From the list out of which `restarted` are about to be restarted.
    pub fn from(list: &DynoList, restarted: &[Dyno]) -> Self {
        Self {
            before: list.dynos.iter().map(|dyno| dyno.id.clone()).collect(),
            kinds: restarted.iter().map(|dyno| dyno.kind.clone()).collect(),
            asked: BTreeMap::new(),
            said: BTreeMap::new(),
        }
    }

    /// The restart of `name` is asked for at `now`.
    pub fn asks(&mut self, name: &str, now: Duration) -> String {
        self.asked.insert(name.to_owned(), now);
        self.said.remove(name);
        format!("{name}  restarting")
    }

    /// What changed since the last list. Fir gives each boot a new name: there the old one is said to be gone.
    pub fn changes(&mut self, list: &DynoList, now: Duration) -> Vec<String> {
        let mut lines = Vec::new();
        let names: BTreeSet<&str> = list.dynos.iter().map(|dyno| dyno.name.as_str()).collect();
        let gone: Vec<String> = self.asked.keys().filter(|name| !names.contains(name.as_str())).cloned().collect();
        for name in gone {
            lines.extend(self.line(&name, GONE, now));
        }
        let new = |dyno: &&Dyno| self.kinds.contains(&dyno.kind) && !self.before.contains(&dyno.id);
        let mut new: Vec<&Dyno> = list.dynos.iter().filter(new).collect();
        new.sort_by_key(|dyno| (&dyno.kind, dyno.name.len(), &dyno.name));
        for dyno in new {
            lines.extend(self.line(&dyno.name, &dyno.state, now));
        }
        lines
    }

    fn line(&mut self, name: &str, state: &str, now: Duration) -> Option<String> {
        let known = self.said.insert(name.to_owned(), state.to_owned());
        if known.as_deref() == Some(state) {
            return None;
        }
        // A name that nobody asked to restart came in the place of another one, the first of which was asked for then.
        let since = self.asked.get(name).or_else(|| self.asked.values().min());
        let after = match since {
            Some(since) if matches!(state, "up" | "crashed") => {
                format!(" after {}s", now.saturating_sub(*since).as_secs())
            }
            _ => String::new(),
        };
        Some(format!("{name}  {state}{after}"))
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    fn list(dynos: &[(&str, &str, &str)]) -> DynoList {
        let dyno = |(id, name, state): &(&str, &str, &str)| Dyno {
            id: (*id).into(),
            name: (*name).into(),
            kind: name.split(['.', '-']).next().unwrap().into(),
            state: (*state).into(),
            created_at: Timestamp::UNIX_EPOCH,
            release: None,
        };
        DynoList { dynos: dynos.iter().map(dyno).collect(), date: Timestamp::UNIX_EPOCH }
    }

    #[test]
    fn a_line_for_each_change() {
        let old = list(&[("a", "web.1", "up"), ("b", "web.2", "up"), ("w", "worker.1", "up")]);
        let mut progress = Progress::from(&old, &old.dynos[..1]);
        let at = Duration::from_secs;
        assert_eq!(progress.asks("web.1", at(1)), "web.1  restarting");
        for (now, dynos, lines) in [
            (1, [("a", "web.1", "up"), ("w", "worker.1", "up")], &[][..]),
            (2, [("c", "web.1", "starting"), ("v", "worker.1", "starting")], &["web.1  starting"]),
            (3, [("c", "web.1", "starting"), ("b", "web.2", "up")], &[]),
            (5, [("c", "web.1", "up"), ("d", "web.10", "up")], &["web.1  up after 4s", "web.10  up after 4s"]),
            (6, [("c", "web.1", "crashed"), ("d", "web.10", "up")], &["web.1  crashed after 5s"]),
        ] {
            assert_eq!(progress.changes(&list(&dynos), at(now)), lines, "at {now}");
        }
    }

    #[test]
    fn a_boot_with_a_new_name() {
        let old = list(&[("a", "web-one", "up")]);
        let mut progress = Progress::from(&old, &old.dynos);
        progress.asks("web-one", Duration::ZERO);
        let new = list(&[("b", "web-two", "up")]);
        assert_eq!(progress.changes(&new, Duration::from_secs(2)), ["web-one  gone", "web-two  up after 2s"]);
    }
}
