//! When the schema last changed, as far as that is known, and by what it is known. For people; nothing is decided by it. Pure.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use crate::debt::{Ledger, Phase, Row};
use crate::migrations::Version;

/// The last schema change of one database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The database's name.
    pub database: String,
    /// It did not come before this; `None` where nothing tells.
    pub earliest: Option<Timestamp>,
    /// It was over by then; `None` where it may have come up to now, or goes on.
    pub latest: Option<Timestamp>,
    /// The versions that are known to have come with it, ascending.
    pub versions: Vec<Version>,
    /// How many more came with it, which are not known by their number.
    pub more: usize,
    pub known: Known,
}

/// By what the moment is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    /// A run recorded its beginning, and every process was proved newer afterwards.
    Recorded,
    /// A run recorded its beginning, and not its end.
    Begun,
    /// A run recorded its beginning and its end; the restart is still due.
    Due,
    /// A proof alone: the change came before it.
    Proved,
    /// The versions are not those of the last proof, and no run recorded why: migrated by hand.
    ByHand,
    /// The same, and every process was proved newer since.
    ByHandAndProved,
}

impl Known {
    /// For people.
    pub fn sentence(self) -> &'static str {
        match self {
            Self::Recorded => "recorded by the run that made it",
            Self::Begun => "recorded by a run whose end was not recorded",
            Self::Due => "recorded by a run; the restart is still due",
            Self::Proved => "known by the last proof alone, which came after it",
            Self::ByHand => {
                "not recorded by a run (by hand?): known by the versions, which are not those of the last proof"
            }
            Self::ByHandAndProved => "not recorded by a run (by hand?): it came between the last two proofs",
        }
    }

    /// For machines.
    pub fn name(self) -> &'static str {
        match self {
            Self::Recorded => "recorded",
            Self::Begun => "begun",
            Self::Due => "due",
            Self::Proved => "proved",
            Self::ByHand | Self::ByHandAndProved => "by_hand",
        }
    }

    /// Whether only bounds of the moment are known, which may lie far apart.
    pub fn is_vague(self) -> bool {
        matches!(self, Self::Proved | Self::ByHand | Self::ByHandAndProved)
    }
}

/// The rows of runs that may have changed the schema.
pub fn migrated(ledger: &Ledger) -> impl Iterator<Item = &Row> {
    ledger.rows.iter().filter(|row| row.note.may_have_migrated())
}

/// What an app's ledger in one database tells of its last schema change, while these versions are applied (ascending) and their
/// hash is that of the last proof or is not. `None` where nothing was ever recorded.
pub fn of(database: &str, ledger: &Ledger, applied: &[Version], as_proved: bool) -> Option<Change> {
    let proved = ledger.proved.as_ref();
    let proved_at = proved.and_then(|proved| Timestamp::from_second(proved.at?).ok());
    let remembered = proved.and_then(|proved| proved.ch.as_ref());
    let since_proof = || -> Vec<Version> {
        let top = remembered.and_then(|change| change.top.as_deref()).map(Version::from_row);
        top.map_or_else(Vec::new, |top| applied.iter().filter(|version| **version > top).cloned().collect())
    };
    let change = |earliest, latest, versions, more, known| {
        Some(Change { database: database.to_owned(), earliest, latest, versions, more, known })
    };
    if migrated(ledger).next().is_some() {
        let opened = migrated(ledger).filter_map(|row| moment(&row.entry.opened)).min();
        let running = migrated(ledger).any(|row| row.note.ph == Phase::Migrating);
        let touched = || migrated(ledger).filter_map(|row| moment(&row.entry.touched)).max();
        let (latest, known) = if running { (None, Known::Begun) } else { (touched(), Known::Due) };
        return change(opened, latest, since_proof(), 0, known);
    }
    let proved = proved?;
    if !as_proved {
        let versions = since_proof();
        let more = applied.len().saturating_sub(proved.cnt).saturating_sub(versions.len());
        return change(proved_at, None, versions, more, Known::ByHand);
    }
    let Some(remembered) = remembered else { return change(None, proved_at, Vec::new(), 0, Known::Proved) };
    let versions: Vec<Version> = remembered.new.iter().map(|version| Version::from_row(version)).collect();
    let more = remembered.n.saturating_sub(versions.len());
    // Two clocks that disagree must not turn the two around.
    let earliest = remembered.lo.and_then(|second| Timestamp::from_second(second).ok());
    let earliest = earliest.map(|earliest| proved_at.map_or(earliest, |latest| earliest.min(latest)));
    let known = match earliest {
        Some(_) if remembered.hand => Known::ByHandAndProved,
        Some(_) => Known::Recorded,
        None => Known::Proved,
    };
    change(earliest, proved_at, versions, more, known)
}

/// The one of several databases' changes that may be the last.
pub fn last(changes: impl Iterator<Item = Change>) -> Option<Change> {
    changes.max_by_key(|change| (change.latest.unwrap_or(Timestamp::MAX), change.earliest))
}

/// A moment as a database prints it, in UTC: `2026-11-23 03:41:13.123456`.
pub fn moment(text: &str) -> Option<Timestamp> {
    let text = text.trim_end_matches(" UTC").trim_end_matches("+00");
    text.parse::<DateTime>().ok()?.to_zoned(TimeZone::UTC).ok().map(|zoned| zoned.timestamp())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::debt::{self, Entry, Home, Note, Proved, Row};

    fn versions(numbers: &[u32]) -> Vec<Version> {
        numbers.iter().map(|number| Version::from_digits(&number.to_string())).collect()
    }

    fn at(second: i64) -> Option<Timestamp> {
        Timestamp::from_second(1_800_000_000 + second).ok()
    }

    fn row(ph: Phase, opened: &str, touched: &str) -> Row {
        let entry = Entry {
            home: Home::Metadata,
            key: String::new(),
            value: String::new(),
            age_s: 0,
            opened: opened.into(),
            touched: touched.into(),
        };
        let note = Note {
            v: 1,
            ph,
            ep: "-".into(),
            from: String::new(),
            n: 1,
            rel: None,
            tag: String::new(),
            by: String::new(),
            to: None,
            pd: None,
            at: None,
            cl: None,
        };
        Row { entry, run: String::new(), note }
    }

    fn proved(cnt: usize, ch: Option<debt::Change>) -> Proved {
        Proved { v: 1, ver: String::new(), cnt, run: String::new(), at: Some(1_800_000_000), ty: None, ch }
    }

    #[test]
    fn a_moment_is_read_as_each_database_prints_it() {
        for (text, second) in [
            ("2027-01-15 08:00:01", at(1)),
            ("2027-01-15 08:00:01.000000", at(1)),
            ("2027-01-15 08:00:01+00", at(1)),
            ("2027-01-15 08:00:01.0 UTC", at(1)),
            ("yesterday", None),
            ("", None),
        ] {
            assert_eq!(moment(text), second, "{text}");
        }
    }

    #[test]
    fn what_the_records_tell() {
        let (opened, touched) = ("2027-01-15 08:00:10", "2027-01-15 08:00:20");
        let remembered =
            debt::Change { lo: Some(1_799_999_990), top: Some("3".into()), n: 2, new: vec!["3".into()], hand: false };
        let by_hand = debt::Change { hand: true, ..remembered.clone() };
        let rolling = || {
            let mut row = row(Phase::Due, opened, touched);
            (row.note.n, row.note.from, row.note.to) = (0, "1a2b3c4d".into(), Some("1a2b3c4d".into()));
            row
        };
        let by_proof_alone = debt::Change { lo: None, ..remembered.clone() };
        let turned = debt::Change { lo: Some(1_800_000_500), ..remembered.clone() };
        for (what, rows, proof, applied, as_proved, expected) in [
            ("nothing was ever recorded", vec![], None, [1, 2, 3].as_slice(), false, None),
            (
                "the run that made it remembered it",
                vec![],
                Some(proved(3, Some(remembered.clone()))),
                &[1, 2, 3],
                true,
                Some((at(-10), at(0), vec![3], 1, Known::Recorded)),
            ),
            (
                "the clocks disagree",
                vec![],
                Some(proved(3, Some(turned))),
                &[1, 2, 3],
                true,
                Some((at(0), at(0), vec![3], 1, Known::Recorded)),
            ),
            (
                "a first proof knows no beginning",
                vec![],
                Some(proved(3, Some(by_proof_alone))),
                &[1, 2, 3],
                true,
                Some((None, at(0), vec![3], 1, Known::Proved)),
            ),
            (
                "an older unstuck remembered nothing",
                vec![],
                Some(proved(3, None)),
                &[1, 2, 3],
                true,
                Some((None, at(0), vec![], 0, Known::Proved)),
            ),
            (
                "migrated by hand, one of them with an old number",
                vec![],
                Some(proved(2, Some(remembered.clone()))),
                &[1, 2, 3, 4, 5],
                false,
                Some((at(0), None, vec![4, 5], 1, Known::ByHand)),
            ),
            (
                "migrated by hand, and a rolling restart for that has begun",
                vec![rolling()],
                Some(proved(3, Some(remembered.clone()))),
                &[1, 2, 3, 4],
                false,
                Some((at(0), None, vec![4], 0, Known::ByHand)),
            ),
            (
                "migrated by hand, and restarted",
                vec![],
                Some(proved(3, Some(by_hand))),
                &[1, 2, 3],
                true,
                Some((at(-10), at(0), vec![3], 1, Known::ByHandAndProved)),
            ),
            (
                "a migration may be running",
                vec![row(Phase::Migrating, opened, touched)],
                Some(proved(3, Some(remembered.clone()))),
                &[1, 2, 3, 4],
                false,
                Some((at(10), None, vec![4], 0, Known::Begun)),
            ),
            (
                "the restart is due",
                vec![row(Phase::Due, opened, touched), row(Phase::Awaiting, touched, touched)],
                Some(proved(3, Some(remembered))),
                &[1, 2, 3, 4],
                false,
                Some((at(10), at(20), vec![4], 0, Known::Due)),
            ),
        ] {
            let ledger = Ledger { rows, proved: proof, ..Ledger::default() };
            let expected = expected.map(|(earliest, latest, came, more, known)| Change {
                database: "primary".into(),
                earliest,
                latest,
                versions: versions(&came),
                more,
                known,
            });
            assert_eq!(of("primary", &ledger, &versions(applied), as_proved), expected, "{what}");
        }
    }
}
