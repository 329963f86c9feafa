//! The invariant from the inside: a process is new only if it was started after the last change of the schema.
//!
//! Everything here is pure. [`Seen`] is what one look at the databases found, [`Watch`] compares it with what was found
//! *before* the process was started, and says what has to be done about the process.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::debt::{Digest, Phase};
use crate::migrations::Migrations;
use crate::ports::Look;

/// What one look at all databases found, as far as a running process is concerned.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Seen {
    /// The applied versions of each database.
    pub versions: Vec<String>,
    /// The records of runs whose migration is over, by their keys.
    pub over: BTreeSet<String>,
    /// The records of runs whose migration may be running.
    pub running: BTreeSet<String>,
    /// What was last proved of each app in each database.
    pub proofs: Vec<String>,
    /// Migrations of this release that are not applied, by version.
    pub pending: Vec<String>,
    /// Who migrates now, for people; empty where nobody does, or where it was not asked.
    pub migrating: Vec<String>,
}

impl Seen {
    /// Adds what a look at one database found.
    pub fn add(&mut self, look: &Look, files: &Migrations, migrating: Vec<String>) {
        self.versions.push(Digest::of(&look.applied).as_str().to_owned());
        self.pending.extend(files.pending(&look.applied).iter().map(|migration| migration.version.to_string()));
        for app in look.records.apps() {
            let ledger = look.records.of(app);
            for row in ledger.rows {
                // A record that says "migrating" while nobody does is one of a run that was killed.
                let runs = row.note.ph == Phase::Migrating && !migrating.is_empty();
                (if runs { &mut self.running } else { &mut self.over }).insert(row.entry.key);
            }
            self.proofs.extend(ledger.proved.map(|proved| proved.to_value()));
        }
        self.migrating.extend(migrating);
    }

    /// Whether this is no moment to start a process: the schema is about to change under it.
    pub fn unsettled(&self) -> bool {
        !self.pending.is_empty() || !self.migrating.is_empty()
    }

    /// Why it is none, for people.
    pub fn reason(&self) -> String {
        match (self.migrating.first(), self.pending.as_slice()) {
            (Some(who), _) => format!("a migration is running ({who})"),
            (None, [version]) => format!("migration {version} is pending"),
            (None, pending) => format!("{} migrations are pending", pending.len()),
        }
    }

    /// Whether the schema is, or may be, another one than it was `then`.
    fn differs_from(&self, then: &Self) -> bool {
        self.versions != then.versions || !self.over.is_subset(&then.over)
    }

    /// Whether a migration that was running `then` ended, and its restart was proved, between the two looks. It may have left
    /// the versions as they were; what it changed all the same, only the platform's restart has cured, and only of its types.
    fn outran(&self, then: &Self) -> bool {
        let gone = |key: &&String| !self.running.contains(*key) && !self.over.contains(*key);
        self.proofs != then.proofs && then.running.iter().any(|key| gone(&key))
    }
}

/// What has to be done about a running process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// It is as new as the schema.
    Nothing,
    /// The schema changed; look again before anything is done: it may still be changing, or a restart be under way.
    Patience,
    /// It is older than the schema and has to be replaced.
    Restart,
}

/// Watches the schema on behalf of one process.
#[derive(Debug)]
pub struct Watch {
    /// What was seen before the process was started. Where that could not be seen, any schema may be another one.
    before: Option<Seen>,
    last: Option<Seen>,
    /// When the schema was first seen to be another one. That stays true of this process, whatever is seen later.
    since: Option<Duration>,
}

impl Watch {
    pub fn new(before: Option<Seen>) -> Self {
        Self { last: before.clone(), before, since: None }
    }

    /// What was seen last.
    pub fn last(&self) -> Option<&Seen> {
        self.last.as_ref()
    }

    /// Whether the next look has to tell who migrates.
    pub fn suspects(&self) -> bool {
        self.since.is_some()
    }

    /// What the look `seen` at the moment `now` asks for. A change has to be seen twice, at rest; one that does not come to rest
    /// is waited for no longer than `patience`.
    pub fn judge(&mut self, seen: Seen, now: Duration, patience: Duration) -> Need {
        let changed = self.before.as_ref().is_none_or(|before| seen.differs_from(before))
            || self.last.as_ref().is_some_and(|last| seen.outran(last));
        let at_rest = self.last.as_ref() == Some(&seen) && !seen.unsettled();
        self.last = Some(seen);
        match self.since {
            Some(since) if at_rest || now.saturating_sub(since) >= patience => Need::Restart,
            Some(_) => Need::Patience,
            None if changed => {
                self.since = Some(now);
                Need::Patience
            }
            None => Need::Nothing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    /// `versions [over...] [>running...] [?pending...] [!migrating] [=proof]`
    fn seen(text: &str) -> Seen {
        let mut words = text.split(' ');
        let mut seen = Seen { versions: vec![words.next().unwrap().to_owned()], ..Seen::default() };
        for word in words {
            match word.split_at(1) {
                (">", key) => drop(seen.running.insert(key.to_owned())),
                ("?", version) => seen.pending.push(version.to_owned()),
                ("!", who) => seen.migrating.push(who.to_owned()),
                ("=", proof) => seen.proofs.push(proof.to_owned()),
                _ => drop(seen.over.insert(word.to_owned())),
            }
        }
        seen
    }

    /// The needs that looks at these seconds lead to: `.` nothing, `p` patience, `R` restart.
    fn needs(before: Option<&str>, looks: &[(u64, &str)]) -> String {
        let mut watch = Watch::new(before.map(seen));
        looks
            .iter()
            .map(|(at, text)| match watch.judge(seen(text), Duration::from_secs(*at), PATIENCE) {
                Need::Nothing => '.',
                Need::Patience => 'p',
                Need::Restart => 'R',
            })
            .collect()
    }

    #[test]
    fn a_change_is_judged_against_what_was_seen_before_the_start() {
        type Story<'a> = (&'a str, Option<&'a str>, &'a [(u64, &'a str)], &'a str);
        let stories: [Story; 14] = [
            ("nothing happens", Some("a"), &[(1, "a"), (2, "a")], ".."),
            ("a version more, or less", Some("a"), &[(1, "b"), (2, "b")], "pR"),
            ("taken back at once", Some("a"), &[(1, "b"), (2, "a"), (3, "a")], "ppR"),
            ("two changes in a row", Some("a"), &[(1, "b"), (2, "c"), (3, "c")], "ppR"),
            ("a migration runs on", Some("a"), &[(1, "b !m"), (2, "b !m"), (3, "b"), (4, "b")], "pppR"),
            ("it lasts too long", Some("a"), &[(1, "b !m"), (20, "b !m"), (21, "b !m")], "ppR"),
            ("it never comes to rest", Some("a"), &[(1, "b"), (11, "c"), (21, "d")], "ppR"),
            ("a part is still pending", Some("a ?2 ?3"), &[(1, "b ?3"), (2, "b ?3"), (3, "c"), (4, "c")], "pppR"),
            ("pending for ever", Some("a ?2"), &[(1, "a ?2"), (60, "a ?2")], ".."),
            ("unknown before", None, &[(1, "a"), (2, "a")], "pR"),
            ("a record without new versions", Some("a"), &[(1, "a >k !m"), (2, "a k"), (3, "a k")], ".pR"),
            ("an old debt, and its payment", Some("a k =1"), &[(1, "a k =1"), (2, "a =2"), (3, "a =2")], "..."),
            ("over and proved between two looks", Some("a =1"), &[(1, "a >k !m =1"), (2, "a =2"), (3, "a =2")], ".pR"),
            ("withdrawn: nothing was changed", Some("a =1"), &[(1, "a >k !m =1"), (2, "a =1"), (3, "a =1")], "..."),
        ];
        for (story, before, looks, expected) in stories {
            assert_eq!(needs(before, looks), expected, "{story}");
        }
    }

    #[test]
    fn the_reason_to_wait_is_said() {
        for (text, expected) in [
            ("a ?7", "migration 7 is pending"),
            ("a ?7 ?8", "2 migrations are pending"),
            ("a ?7 !web", "a migration is running (web)"),
        ] {
            assert!(seen(text).unsettled());
            assert_eq!(seen(text).reason(), expected);
        }
        assert!(!seen("a k").unsettled());
    }
}
