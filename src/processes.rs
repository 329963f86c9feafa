//! The dynos as `heroku ps` prints them, each against the last schema change. Pure.

use jiff::Timestamp;
use serde_json::Value;

use crate::change::Change;
use crate::dynos::Dyno;
use crate::report::{BOLD, DIM, GREEN, RED, YELLOW, clean};
use crate::timeline::age;

/// A dyno with what only people want to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    pub dyno: Dyno,
    pub size: Option<String>,
    pub command: String,
    /// When its state last changed.
    pub updated_at: Timestamp,
    /// All that the API tells of it.
    pub document: Value,
}

/// The processes, which are sorted by name, in groups of one command each; one-off ones first.
pub fn lines(
    processes: &[Process],
    stuck: impl Fn(&str) -> Option<bool>,
    change: Option<&Change>,
    now: Timestamp,
    app: &str,
) -> Vec<String> {
    if processes.is_empty() {
        return vec![format!("No dynos on {}", clean(app))];
    }
    let mut lines = Vec::new();
    let line = |process: &Process| {
        let after = beside(&process.dyno, stuck(&process.dyno.id), change);
        format!("{}{after}", as_heroku(process, now))
    };
    let (one_off, mut rest): (Vec<&Process>, Vec<&Process>) = processes.iter().partition(|process| is_one_off(process));
    if !one_off.is_empty() {
        lines.push(format!("=== {BOLD}run{BOLD:#}: one-off processes ({})", one_off.len()));
        lines.push(String::new());
        lines.extend(numbered(one_off).into_iter().map(line));
        lines.push(String::new());
    }
    while let Some(first) = rest.first() {
        let command = first.command.clone();
        let (group, others) = rest.into_iter().partition(|process| process.command == command);
        rest = others;
        let group = numbered(group);
        let Dyno { kind, .. } = &group[0].dyno;
        let size = clean(group[0].size.as_deref().unwrap_or("1X"));
        lines.push(format!("=== {BOLD}{}{BOLD:#} ({size}): {} ({})", clean(kind), clean(&command), group.len()));
        lines.push(String::new());
        lines.extend(group.into_iter().map(line));
        lines.push(String::new());
    }
    lines
}

fn is_one_off(process: &Process) -> bool {
    process.dyno.kind == "run"
}

/// `web.2` before `web.10`.
fn numbered(mut processes: Vec<&Process>) -> Vec<&Process> {
    let number = |process: &&Process| process.dyno.name.rsplit('.').next().and_then(|number| number.parse().ok());
    processes.sort_by_key(|process| number(process).unwrap_or(0_u64));
    processes
}

/// The words of `heroku ps`; in UTC, where it takes the machine's time zone.
fn as_heroku(process: &Process, now: Timestamp) -> String {
    let Process { dyno, size, command, updated_at, .. } = process;
    let style = if dyno.state == "up" { GREEN } else { YELLOW };
    let state = format!("{style}{}{style:#} {DIM}{}{DIM:#}", clean(&dyno.state), since(*updated_at, now));
    let name = clean(&dyno.name);
    if is_one_off(process) {
        let size = clean(size.as_deref().unwrap_or("1X"));
        return format!("{name} ({size}): {state}: {}", clean(command));
    }
    format!("{name}: {state}")
}

fn since(then: Timestamp, now: Timestamp) -> String {
    let stamp = then.strftime("%Y/%m/%d %H:%M:%S +0000");
    let seconds = now.as_second() - then.as_second();
    match seconds {
        ..60 => format!("{stamp} (~ {}s ago)", seconds.max(0)),
        60..3_600 => format!("{stamp} (~ {}m ago)", seconds / 60),
        3_600..90_000 => format!("{stamp} (~ {}h ago)", seconds / 3_600),
        _ => stamp.to_string(),
    }
}

/// What `heroku ps` does not say.
pub fn beside(dyno: &Dyno, stuck: Option<bool>, change: Option<&Change>) -> String {
    let boot = dyno.created_at;
    let unproved = if stuck == Some(true) { ", not proved new" } else { "" };
    let least = if change.is_some_and(|change| change.known.is_vague()) { "at least " } else { "" };
    let boot_against = change.and_then(|change| match (change.earliest, change.latest) {
        (Some(earliest), _) if boot < earliest => {
            Some(format!("{least}{} before the schema change", age(earliest, boot)))
        }
        (_, Some(latest)) if boot >= latest => {
            Some(format!("{least}{} after the schema change{unproved}", age(boot, latest)))
        }
        (Some(_), _) => Some("while the schema may have changed".to_owned()),
        (None, Some(_)) => Some("before the last proof".to_owned()),
        (None, None) => None,
    });
    let booted = boot_against.map_or(String::new(), |against| format!(", booted {against}"));
    let mark = if stuck == Some(true) { format!(" {RED}STUCK{RED:#}") } else { String::new() };
    format!("{booted}{mark}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::Known;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn dyno(boot: i64) -> Dyno {
        let (id, name, kind, state) = ("1".into(), "web.1".into(), "web".into(), "up".into());
        Dyno { id, name, kind, state, created_at: at(boot), release: None }
    }

    #[test]
    fn ages_are_those_of_heroku() {
        for (seconds, text) in [
            (-5, "2027/01/15 08:00:00 +0000 (~ 0s ago)"),
            (59, "2027/01/15 08:00:00 +0000 (~ 59s ago)"),
            (60, "2027/01/15 08:00:00 +0000 (~ 1m ago)"),
            (3_600, "2027/01/15 08:00:00 +0000 (~ 1h ago)"),
            (89_999, "2027/01/15 08:00:00 +0000 (~ 24h ago)"),
            (90_000, "2027/01/15 08:00:00 +0000"),
        ] {
            assert_eq!(since(at(0), at(seconds)), text);
        }
    }

    #[test]
    fn a_boot_is_said_against_the_change() {
        for (earliest, latest, boot, said) in [
            (Some(100), Some(200), 40, ", booted 1m before the schema change"),
            (Some(100), None, 40, ", booted at least 1m before the schema change"),
            (Some(100), Some(200), 100, ", booted while the schema may have changed"),
            (Some(100), Some(200), 200, ", booted 0s after the schema change"),
            (Some(100), None, 200, ", booted while the schema may have changed"),
            (None, Some(200), 199, ", booted before the last proof"),
            (None, Some(200), 320, ", booted at least 2m after the schema change"),
            (None, None, 0, ""),
        ] {
            let change = Change {
                database: String::new(),
                earliest: earliest.map(at),
                latest: latest.map(at),
                versions: Vec::new(),
                more: 0,
                known: match (earliest, latest) {
                    (Some(_), Some(_)) => Known::Recorded,
                    (Some(_), None) => Known::ByHand,
                    (None, _) => Known::Proved,
                },
            };
            assert_eq!(beside(&dyno(boot), None, Some(&change)), said);
        }
        assert!(beside(&dyno(0), Some(true), None).contains("STUCK"));
        assert_eq!(beside(&dyno(0), None, None), "");
    }
}
