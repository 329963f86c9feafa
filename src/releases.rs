//! What releases mean: which one to go back to, what a release phase migrated, how they are shown. Pure.

use jiff::Timestamp;

use crate::dynos::{Deployed, Dyno, ReleaseStatus};
use crate::migrations::Version;

/// The release that a rollback goes back to where none is named: the newest before the current one that the platform would
/// go back to. `releases` descend.
pub fn before_current(releases: &[Deployed]) -> Option<&Deployed> {
    let mut eligible = releases.iter().filter(|release| release.eligible);
    match releases.iter().find(|release| release.current) {
        Some(current) => eligible.find(|release| release.version < current.version),
        // As the `heroku` command: the newest one is taken to be the current one.
        None => eligible.nth(1),
    }
}

/// `v42` or `42`, as the `heroku` command takes it.
pub fn version(text: &str) -> Option<u64> {
    text.strip_prefix(['v', 'V']).unwrap_or(text).parse().ok()
}

/// A migration that a release command says it has run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Migrated {
    pub version: Version,
    pub name: String,
}

/// The migrations that ran to their end, from what Rails prints: `== 20130125163307 AddTitleToPosts: migrated (0.0012s) ===`.
pub fn migrated(output: &str) -> Vec<Migrated> {
    let read = |line: &str| {
        let (version, rest) = line.trim().strip_prefix("== ")?.split_once(' ')?;
        let (name, _) = rest.split_once(": migrated (")?;
        let digits = !version.is_empty() && version.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| Migrated { version: Version::from_digits(version), name: name.to_owned() })
    };
    output.lines().filter_map(read).collect()
}

/// The latest moment at which the schema may have changed, and how that is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SchemaChange {
    /// By the platform's clock, in whole seconds.
    pub at: Timestamp,
    /// The release whose phase migrated.
    pub release: u64,
    pub migrated: Vec<Migrated>,
}

impl SchemaChange {
    /// Whether this process booted before the change was over. One of the same second may have.
    pub fn is_older(&self, dyno: &Dyno) -> bool {
        dyno.created_at <= self.at && dyno.release.is_none_or(|release| release < self.release)
    }
}

/// What the `heroku` command says of a release that did not simply succeed.
pub fn remark(status: ReleaseStatus) -> &'static str {
    match status {
        ReleaseStatus::Pending => "release command executing",
        ReleaseStatus::Failed => "release command failed",
        ReleaseStatus::Expired => "release expired",
        ReleaseStatus::Succeeded => "",
    }
}

/// A moment as the `heroku` command prints it: `2026/11/23 04:55:32 +0000 (~ 2s ago)`, in UTC.
pub fn ago(at: Timestamp, now: Timestamp) -> String {
    let moment = at.strftime("%Y/%m/%d %H:%M:%S +0000");
    let elapsed = now.as_second() - at.as_second();
    match elapsed {
        ..60 => format!("{moment} (~ {}s ago)", elapsed.max(0)),
        60..3_600 => format!("{moment} (~ {}m ago)", elapsed / 60),
        3_600..90_000 => format!("{moment} (~ {}h ago)", elapsed / 3_600),
        _ => moment.to_string(),
    }
}

/// A time between two moments, for people: `12s`, `3m 20s`, `5h 2m`, `4d 1h`.
pub fn span(seconds: i64) -> String {
    let seconds = seconds.max(0);
    let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
    match seconds {
        ..60 => format!("{seconds}s"),
        60..3_600 => format!("{minutes}m {}s", seconds % 60),
        3_600..86_400 => format!("{hours}h {}m", minutes % 60),
        _ => format!("{days}d {}h", hours % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn release(version: u64, current: bool, eligible: bool) -> Deployed {
        let at = Timestamp::from_second(1_800_000_000).unwrap();
        Deployed {
            id: format!("id-{version}"),
            version,
            status: if eligible { ReleaseStatus::Succeeded } else { ReleaseStatus::Failed },
            current,
            description: String::new(),
            user: String::new(),
            created_at: at,
            updated_at: at,
            slug: None,
            eligible,
            output: None,
        }
    }

    #[test]
    fn the_target_is_the_last_one_that_succeeded_before_the_current_one() {
        let (yes, no) = (true, false);
        for (what, releases, expected) in [
            ("the one before", vec![(3, yes, yes), (2, no, yes), (1, no, yes)], Some(2)),
            ("a failed one is passed over", vec![(3, yes, yes), (2, no, no), (1, no, yes)], Some(1)),
            ("a newer one that failed is not current", vec![(4, no, no), (3, yes, yes), (2, no, yes)], Some(2)),
            ("an older one is current again", vec![(4, no, yes), (3, yes, yes), (2, no, yes)], Some(2)),
            ("no one is said to be current", vec![(3, no, yes), (2, no, no), (1, no, yes)], Some(1)),
            ("the first one", vec![(1, yes, yes)], None),
            ("none", vec![], None),
        ] {
            let releases: Vec<Deployed> =
                releases.into_iter().map(|(version, current, eligible)| release(version, current, eligible)).collect();
            assert_eq!(before_current(&releases).map(|release| release.version), expected, "{what}");
        }
    }

    #[test]
    fn a_release_is_named_with_or_without_its_letter() {
        for (text, expected) in
            [("v42", Some(42)), ("42", Some(42)), ("V7", Some(7)), ("v", None), ("vv1", None), ("-1", None)]
        {
            assert_eq!(version(text), expected, "{text}");
        }
    }

    #[test]
    fn what_rails_prints_tells_what_was_migrated() {
        let output = "\
== 20130125163307 AddTitleToPosts: migrating ====
-- add_column(:posts, :title, :string)
   -> 0.0009s
== 20130125163307 AddTitleToPosts: migrated (0.0012s) ===
== 20130125163308 Fails: migrating ====
== x Odd: migrated (0.1s) ==
";
        let found: Vec<String> = migrated(output).iter().map(|one| format!("{} {}", one.version, one.name)).collect();
        assert_eq!(found, ["20130125163307 AddTitleToPosts"]);
    }

    #[test]
    fn moments_are_printed_as_the_heroku_command_prints_them() {
        let at: Timestamp = "2026-11-23T04:55:32Z".parse().unwrap();
        for (elapsed, expected) in [
            (-3, " (~ 0s ago)"),
            (59, " (~ 59s ago)"),
            (60, " (~ 1m ago)"),
            (3_599, " (~ 59m ago)"),
            (3_600, " (~ 1h ago)"),
            (89_999, " (~ 24h ago)"),
            (90_000, ""),
        ] {
            let now = Timestamp::from_second(at.as_second() + elapsed).unwrap();
            assert_eq!(ago(at, now), format!("2026/11/23 04:55:32 +0000{expected}"));
        }
    }

    #[test]
    fn spans_have_two_units() {
        for (seconds, expected) in
            [(-5, "0s"), (59, "59s"), (61, "1m 1s"), (3_725, "1h 2m"), (90_000, "1d 1h"), (864_000, "10d 0h")]
        {
            assert_eq!(span(seconds), expected);
        }
    }

    #[test]
    fn a_process_of_the_same_second_may_be_older_than_the_change() {
        let at = Timestamp::from_second(100).unwrap();
        let change = SchemaChange { at, release: 5, migrated: Vec::new() };
        for (created_s, release, older) in
            [(99, Some(4), true), (100, Some(4), true), (101, Some(4), false), (99, Some(5), false), (100, None, true)]
        {
            let created_at = Timestamp::from_second(created_s).unwrap();
            let dyno = Dyno {
                id: String::new(),
                name: "web.1".into(),
                kind: "web".into(),
                state: "up".into(),
                created_at,
                release,
            };
            assert_eq!(change.is_older(&dyno), older, "{created_s} {release:?}");
        }
    }
}
