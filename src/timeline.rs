//! What `unstuck status` shows: the facts as lines for a terminal of some width. Pure.
//!
//! Each dyno is a bar from its boot to now; the schema's last change is one line through all of them. Before and after it have
//! scales of their own, so that a change of a minute ago shows among boots of a day.

pub mod page;

use std::fmt::Write as _;

use anstyle::Style;
use jiff::Timestamp;

use crate::change::Change;
use crate::dynos::{Dyno, Release, ReleaseStatus};
use crate::observe::Facts;
use crate::report::{BOLD, DIM, DynoPicture, GREEN, Picture, RED, YELLOW, clean};

/// What the picture is drawn with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Glyphs {
    boot: char,
    running: char,
    stuck: char,
    ended: char,
    change: char,
    unsure: char,
}

pub const UNICODE: Glyphs =
    Glyphs { boot: '●', running: '━', stuck: '▒', ended: '×', change: '┃', unsure: '·' };
pub const ASCII: Glyphs = Glyphs { boot: 'o', running: '-', stuck: '#', ended: 'x', change: '|', unsure: '.' };

/// With fewer columns than this a bar says nothing.
const SHORTEST_BAR: usize = 12;

/// A table with whole time stamps needs this many columns, its bars included.
const WHOLE_TABLE: usize = 72;

/// How long ago: `12s`, `5m`, `3h`, `2d`.
pub fn age(now: Timestamp, then: Timestamp) -> String {
    let seconds = (now.as_second() - then.as_second()).max(0);
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m", seconds / 60),
        3_600..172_800 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// What became of a dyno, for the eye.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    Stuck,
    Crashed,
    Fine,
    Unknown,
}

impl Mark {
    pub fn of(picture: &DynoPicture) -> Self {
        match (picture.stuck, has_ended(&picture.dyno)) {
            (Some(true), _) => Self::Stuck,
            (_, true) => Self::Crashed,
            (Some(false), false) => Self::Fine,
            (None, false) => Self::Unknown,
        }
    }

    pub fn word(self) -> &'static str {
        match self {
            Self::Stuck => "STUCK",
            Self::Crashed => "CRASHED",
            Self::Fine => "ok",
            Self::Unknown => "?",
        }
    }

    pub fn style(self) -> Style {
        match self {
            Self::Stuck => RED,
            Self::Crashed => YELLOW,
            Self::Fine => GREEN,
            Self::Unknown => DIM,
        }
    }
}

fn has_ended(dyno: &Dyno) -> bool {
    dyno.state == "crashed"
}

/// The line through all bars: the schema's last change, or where that is not known the newest release.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Moment {
    earliest: Timestamp,
    /// `None`: it may have been at any time since.
    latest: Option<Timestamp>,
    what: &'static str,
}

impl Moment {
    fn of(picture: &Picture) -> Option<Self> {
        let by_change = |change: &Change| {
            let earliest = change.earliest.or(change.latest)?;
            Some(Self { earliest, latest: change.latest, what: "changed" })
        };
        let by_release = |release: &Release| Self {
            earliest: release.created_at,
            latest: Some(release.created_at),
            what: "released",
        };
        picture.change.as_ref().and_then(by_change).or_else(|| picture.current.as_ref().map(by_release))
    }
}

/// From times to places between 0 and 1.
#[derive(Debug, Clone, PartialEq)]
pub struct Axis {
    start: Timestamp,
    now: Timestamp,
    moment: Option<Moment>,
    /// Where the moment is.
    middle: f64,
}

impl Axis {
    pub fn of(picture: &Picture) -> Self {
        let moment = Moment::of(picture);
        let boots = || picture.dynos.iter().flatten().map(|dyno| dyno.dyno.created_at);
        let now = boots().chain([picture.now]).fold(picture.now, Timestamp::max);
        let first = boots().fold(now, Timestamp::min);
        let start = moment.map_or(first, |moment| first.min(moment.earliest));
        let middle = match moment {
            None => 0.0,
            Some(moment) if start < moment.earliest => 0.5,
            // Nothing to show on the left, but a line needs something to stand in.
            Some(_) => 0.15,
        };
        Self { start, now, moment, middle }
    }

    /// Where a moment is shown.
    pub fn place(&self, at: Timestamp) -> f64 {
        let Some(moment) = self.moment else { return share(self.start, at, self.now) };
        let after = 1.0 - self.middle;
        match moment.latest {
            _ if at < moment.earliest => self.middle * share(self.start, at, moment.earliest),
            Some(latest) if at <= latest => self.middle,
            Some(latest) => self.middle + after * share(latest, at, self.now),
            None => self.middle + after * share(moment.earliest, at, self.now),
        }
    }

    /// Where the line is; `None` where there is none.
    pub fn line(&self) -> Option<f64> {
        self.moment.map(|_| self.middle)
    }

    /// Whether the change may have come at any time since the line.
    pub fn is_open(&self) -> bool {
        self.moment.is_some_and(|moment| moment.latest.is_none())
    }

    /// What stands above the left end, the line and the right end.
    pub fn labels(&self) -> (String, Option<String>, &'static str) {
        let line = self.moment.map(|moment| match moment.latest {
            Some(latest) => format!("{} {} ago", moment.what, age(self.now, latest)),
            None => format!("{} in the last {}", moment.what, age(self.now, moment.earliest)),
        });
        let is_before = self.moment.is_none_or(|moment| self.start < moment.earliest);
        let left = if is_before { format!("{} ago", age(self.now, self.start)) } else { String::new() };
        (left, line, "now")
    }
}

/// Which share of the way from `from` to `to` is done at `at`.
#[allow(clippy::cast_precision_loss, reason = "years of seconds are far below 2^52")]
fn share(from: Timestamp, at: Timestamp, to: Timestamp) -> f64 {
    let (way, whole) = (at.as_second() - from.as_second(), to.as_second() - from.as_second());
    if whole <= 0 { 1.0 } else { (way as f64 / whole as f64).clamp(0.0, 1.0) }
}

/// The column of a place in a bar of this width, which is not 0.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "0 to width")]
fn column(place: f64, width: usize) -> usize {
    (place * (width - 1) as f64).round() as usize
}

/// The whole picture, line by line, with colours.
pub fn lines(picture: &Picture, width: usize, glyphs: Glyphs) -> Vec<String> {
    let mut lines = vec![headline(picture)];
    lines.extend(picture.reasons.iter().map(|reason| format!("  {}", clean(reason))));
    lines.extend(owed_since(picture).map(|text| format!("  {text}")));
    lines.extend(change_lines(picture));
    for database in &picture.databases {
        lines.extend(database_lines(&database.facts));
    }
    if let Some(dynos) = &picture.dynos {
        lines.push(String::new());
        lines.extend(dyno_lines(picture, dynos, width, glyphs));
    }
    lines
}

fn headline(picture: &Picture) -> String {
    let app = picture.app.as_ref().map_or(String::new(), |app| format!("{}: ", clean(app)));
    let style = match picture.verdict {
        "owed" => RED,
        "pending" | "unproved" => YELLOW,
        _ => GREEN,
    };
    format!("{BOLD}{app}{BOLD:#}{style}{}{style:#}", sentence(picture))
}

/// The verdict, for people.
pub fn sentence(picture: &Picture) -> &'static str {
    match (picture.verdict, picture.owed) {
        ("pending", Some(true)) => "migrations are pending, and a restart is owed",
        ("pending", _) => "migrations are pending",
        ("owed", _) => "a restart is owed",
        ("unproved", _) if picture.databases.is_empty() => {
            "no database was looked at, so which dynos are stuck cannot be told"
        }
        ("unproved", _) => "nothing is pending; no record yet that the running processes are newer than the schema",
        _ => "nothing is pending, nothing is owed",
    }
}

/// Since when a restart is owed.
pub fn owed_since(picture: &Picture) -> Option<String> {
    let since = picture.owed_since()?;
    let (moment, age) = (whole(since), age(picture.now, since));
    let vague = picture.change.as_ref().is_some_and(|change| change.known.is_vague());
    // Of what was done by hand, only the last moment without it is known.
    Some(if vague {
        format!("owed since some time after {moment} ({age} ago)")
    } else {
        format!("owed since {moment} ({age} ago)")
    })
}

/// When the schema last changed, and by what that is known.
pub fn moment_of(picture: &Picture, change: &Change) -> String {
    let when = match (change.earliest, change.latest) {
        (Some(earliest), Some(latest)) if earliest == latest => whole(latest),
        (Some(earliest), Some(latest)) => format!("between {} and {}", whole(earliest), whole(latest)),
        (Some(earliest), None) => format!("after {}", whole(earliest)),
        (None, Some(latest)) => format!("before {}", whole(latest)),
        (None, None) => "at an unknown time".to_owned(),
    };
    let of = if picture.databases.len() > 1 { format!("{} ", clean(&change.database)) } else { String::new() };
    format!("{of}{when}, {}", change.known.sentence())
}

/// The migrations that came with the last change: version and name.
pub fn came(picture: &Picture, change: &Change) -> Vec<(String, String)> {
    let name = |version: &_| picture.names.iter().find(|(named, _)| named == version).map(|(_, name)| clean(name));
    let migration = |version| (format!("{version}"), name(version).unwrap_or_else(|| "(no file)".to_owned()));
    change.versions.iter().map(migration).collect()
}

/// What cannot be said of them one by one.
pub fn more(change: &Change) -> Option<String> {
    let and = if change.versions.is_empty() { "" } else { "and " };
    (change.more > 0).then(|| format!("{and}{} more, not known by number", change.more))
}

fn change_lines(picture: &Picture) -> Vec<String> {
    if picture.change.is_none() && picture.current.is_none() {
        return Vec::new();
    }
    let mut lines = vec![String::new()];
    if let Some(change) = &picture.change {
        lines.push(format!("{BOLD}schema changed{BOLD:#} {}", moment_of(picture, change)));
        lines.extend(came(picture, change).iter().map(|(version, name)| format!("  {version}  {name}")));
        lines.extend(more(change).map(|text| format!("  {text}")));
    }
    if let Some(release) = &picture.current {
        lines.push(format!("{BOLD}released{BOLD:#} {}", released(picture, release)));
    }
    lines
}

/// The newest release, in a few words.
pub fn released(picture: &Picture, release: &Release) -> String {
    let status = match release.status {
        ReleaseStatus::Pending => ", not ready yet",
        ReleaseStatus::Succeeded => "",
        ReleaseStatus::Failed => ", failed",
        ReleaseStatus::Expired => ", expired",
    };
    let at = release.created_at;
    format!("v{} {} ({} ago){status}", release.version, whole(at), age(picture.now, at))
}

fn whole(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
}

/// How many are applied, pending and without a file.
pub fn counts(facts: &Facts) -> (String, String, String) {
    let some = |count: usize, what: &str| if count == 0 { String::new() } else { format!(", {count} {what}") };
    (
        format!("{} applied", facts.look.applied.len()),
        some(facts.pending.len(), "pending"),
        some(facts.without_file.len(), "without a file"),
    )
}

fn database_lines(facts: &Facts) -> Vec<String> {
    let (applied, pending, without_file) = counts(facts);
    let (name, adapter) = (clean(&facts.name), clean(&facts.adapter));
    let head = format!("{BOLD}{name}{BOLD:#} ({adapter}): {applied}{YELLOW}{pending}{YELLOW:#}{without_file}");
    let pending = facts.pending.iter().map(|migration| {
        let path = migration.path.to_string_lossy();
        format!("  {}  {}  {DIM}{}{DIM:#}", migration.version, clean(&migration.name), clean(&path))
    });
    [String::new(), head].into_iter().chain(pending).collect()
}

fn dyno_lines(picture: &Picture, dynos: &[DynoPicture], width: usize, glyphs: Glyphs) -> Vec<String> {
    if dynos.is_empty() {
        return vec!["no dynos are running".to_owned()];
    }
    let table = Table::of(dynos, width);
    let axis = Axis::of(picture);
    let mut lines = vec![format!("{DIM}{}{DIM:#}", table.row("DYNO", "STATE", "BOOTED", "RELEASE", "").trim_end())];
    if let Some(width) = table.bar {
        let head = table.row("DYNO", "STATE", "BOOTED", "RELEASE", "");
        lines[0] = format!("{DIM}{head} {}{DIM:#}", scale(&axis, width).trim_end());
    }
    for dyno in dynos {
        lines.push(table.line(picture, &axis, dyno, glyphs));
    }
    let left_out = |dyno: &&DynoPicture| dyno.stuck == Some(true) && !dyno.ours;
    let kinds: Vec<String> = dynos.iter().filter(left_out).map(|dyno| clean(&dyno.dyno.kind)).collect();
    if let Some(first) = kinds.first() {
        let mut kinds: Vec<&str> = kinds.iter().map(String::as_str).collect();
        kinds.dedup();
        let are = if kinds == [first] { "is" } else { "are" };
        lines.push(format!("{} {are} not restarted: see restart.types", kinds.join(", ")));
    }
    lines
}

/// The widths of the columns.
struct Table {
    name: usize,
    /// Time stamps and releases are shown in full.
    is_whole: bool,
    mark: usize,
    /// `None`: there is no room for bars.
    bar: Option<usize>,
}

impl Table {
    fn of(dynos: &[DynoPicture], width: usize) -> Self {
        let name = dynos.iter().map(|dyno| clean(&dyno.dyno.name).chars().count()).max().unwrap_or(0).max(4);
        let mark = dynos.iter().map(|dyno| Mark::of(dyno).word().len()).max().unwrap_or(0);
        let mut table = Self { name, is_whole: width >= WHOLE_TABLE, mark, bar: None };
        let used = table.row("", "", "", "", "").chars().count() + 1;
        table.bar = width.checked_sub(used).filter(|bar| *bar >= SHORTEST_BAR);
        table
    }

    fn row(&self, name: &str, state: &str, booted: &str, release: &str, mark: &str) -> String {
        let Self { name: name_width, mark: mark_width, .. } = self;
        if self.is_whole {
            format!("{name:name_width$}  {state:9} {booted:20}  {release:7} {mark:mark_width$}")
        } else {
            format!("{name:name_width$} {state:8} {booted:7} {mark:mark_width$}")
        }
    }

    fn line(&self, picture: &Picture, axis: &Axis, row: &DynoPicture, glyphs: Glyphs) -> String {
        let dyno = &row.dyno;
        let release = dyno.release.map_or(String::new(), |version| format!("v{version}"));
        let booted = if self.is_whole {
            dyno.created_at.to_string()
        } else {
            format!("{} ago", age(picture.now, dyno.created_at))
        };
        let mark = Mark::of(row);
        let (word, style) = (mark.word(), mark.style());
        let text = self.row(&clean(&dyno.name), &clean(&dyno.state), &booted, &release, "");
        let text = text.strip_suffix(&" ".repeat(self.mark)).unwrap_or(&text);
        let Some(width) = self.bar else { return format!("{text}{style}{word}{style:#}") };
        let pad = " ".repeat(self.mark - word.len());
        let bar = bar(axis, row, width, glyphs);
        format!("{text}{style}{word}{style:#}{pad} {style}{}{style:#}", bar.trim_end())
    }
}

/// The labels above the bars.
fn scale(axis: &Axis, width: usize) -> String {
    let (left, line, right) = axis.labels();
    let mut text = vec![' '; width];
    let mut put = |label: &str, from: usize| {
        let end = from + label.len();
        // A label needs a space on both sides.
        let free = end <= width && text[from.saturating_sub(1)..(end + 1).min(width)].iter().all(|c| *c == ' ');
        if free && !label.is_empty() {
            text[from..end].iter_mut().zip(label.chars()).for_each(|(cell, c)| *cell = c);
        }
    };
    if let (Some(label), Some(place)) = (line, axis.line()) {
        let from = column(place, width).saturating_sub(label.len() / 2).min(width.saturating_sub(label.len()));
        put(&label, from);
    }
    put(right, width - right.len());
    put(&left, 0);
    text.into_iter().collect()
}

/// One dyno's life, from its boot to now.
fn bar(axis: &Axis, row: &DynoPicture, width: usize, glyphs: Glyphs) -> String {
    let mut cells = vec![' '; width];
    let boot = column(axis.place(row.dyno.created_at), width);
    if let (Some(place), true) = (axis.line(), axis.is_open()) {
        cells[column(place, width)..].fill(glyphs.unsure);
    }
    let (fill, last) = match Mark::of(row) {
        Mark::Stuck => (glyphs.stuck, if has_ended(&row.dyno) { glyphs.ended } else { glyphs.stuck }),
        Mark::Crashed => (' ', ' '),
        Mark::Fine | Mark::Unknown => (glyphs.running, glyphs.running),
    };
    if fill != ' ' {
        cells[boot..].fill(fill);
        cells[width - 1] = last;
    }
    if let Some(place) = axis.line() {
        cells[column(place, width)] = glyphs.change;
    }
    cells[boot] = if Mark::of(row) == Mark::Crashed { glyphs.ended } else { glyphs.boot };
    cells.into_iter().collect()
}

/// What tells two pictures apart: everything but the time.
pub fn essence(picture: &Picture) -> String {
    let mut text = picture.document().to_string();
    for reason in &picture.reasons {
        // Writing into a string cannot fail.
        let _ = write!(text, "\n{reason}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::Known;
    use crate::migrations::Version;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn dyno(name: &str, state: &str, boot: i64, stuck: Option<bool>) -> DynoPicture {
        let kind = name.split('.').next().unwrap().to_owned();
        let dyno = Dyno {
            id: name.into(),
            name: name.into(),
            kind,
            state: state.into(),
            created_at: at(boot),
            release: Some(7),
        };
        DynoPicture { ours: dyno.kind == "web", dyno, stuck }
    }

    fn change(earliest: i64, latest: Option<i64>) -> Change {
        let versions = vec![Version::from_digits("20130125163307")];
        let latest = latest.map(at);
        Change {
            database: "primary".into(),
            earliest: Some(at(earliest)),
            latest,
            versions,
            more: 0,
            known: Known::Recorded,
        }
    }

    /// Four hours are over; the schema changed after two of them.
    fn picture(dynos: Vec<DynoPicture>, change: Option<Change>) -> Picture {
        Picture {
            app: Some("my-app".into()),
            databases: Vec::new(),
            dynos: Some(dynos),
            owed: Some(false),
            verdict: "clean",
            reasons: Vec::new(),
            now: at(14_400),
            change,
            names: vec![(Version::from_digits("20130125163307"), "AddTitleToPosts".into())],
            current: None,
        }
    }

    /// As it is seen without colours.
    fn plain(picture: &Picture, width: usize) -> Vec<String> {
        let strip = |line: &String| anstream::adapter::strip_str(line).to_string();
        lines(picture, width, ASCII).iter().map(strip).collect()
    }

    fn everyone() -> Vec<DynoPicture> {
        vec![
            dyno("web.1", "up", 0, Some(true)),
            dyno("web.2", "up", 10_800, Some(false)),
            dyno("web.3", "crashed", 7_300, Some(false)),
            dyno("worker.1", "crashed", 3_600, Some(true)),
            dyno("clock.1", "up", 7_200, Some(false)),
        ]
    }

    #[test]
    fn each_boot_stands_before_or_after_the_change() {
        assert_eq!(
            plain(&picture(everyone(), Some(change(7_200, Some(7_200)))), 81),
            [
                "my-app: nothing is pending, nothing is owed",
                "",
                "schema changed 2027-01-15 10:00:00 UTC, recorded by the run that made it",
                "  20130125163307  AddTitleToPosts",
                "",
                "DYNO      STATE     BOOTED                RELEASE             changed 2h ago  now",
                "web.1     up        2027-01-15T08:00:00Z  v7      STUCK   o##########|###########",
                "web.2     up        2027-01-15T11:00:00Z  v7      ok                 |     o-----",
                "web.3     crashed   2027-01-15T10:01:40Z  v7      CRASHED            x",
                "worker.1  crashed   2027-01-15T09:00:00Z  v7      STUCK         o####|##########x",
                "clock.1   up        2027-01-15T10:00:00Z  v7      ok                 o-----------",
                "worker is not restarted: see restart.types",
            ]
        );
    }

    #[test]
    fn the_width_decides_what_there_is_room_for() {
        for width in [20, 40, 60, 72, 80, 120, 160] {
            let lines = plain(&picture(everyone(), Some(change(7_200, Some(7_200)))), width);
            let rows: Vec<&String> = lines.iter().filter(|line| line.starts_with("web.")).collect();
            assert_eq!(rows.len(), 3);
            assert!(rows.iter().all(|row| row.chars().count() <= width.max(34)), "{width}: {rows:?}");
            assert_eq!(rows[0].contains('#'), width >= 60, "{width}: {rows:?}");
            assert_eq!(rows[0].contains("T08:00:00Z"), width >= WHOLE_TABLE, "{width}: {rows:?}");
            assert!(rows[0].contains("STUCK"), "{width}: {rows:?}");
        }
    }

    #[test]
    fn a_change_whose_end_is_not_known_may_have_been_at_any_time_since() {
        let axis = Axis::of(&picture(everyone(), Some(change(7_200, None))));
        assert!(axis.is_open());
        assert_eq!(axis.labels().1.as_deref(), Some("changed in the last 2h"));
        for (boot, place) in [(0, 0.0), (3_600, 0.25), (7_200, 0.5), (10_800, 0.75), (14_400, 1.0)] {
            assert!((axis.place(at(boot)) - place).abs() < 0.001, "{boot}");
        }
    }

    #[test]
    fn an_axis_has_room_for_whatever_there_is() {
        for (dynos, change, line, labels) in [
            (vec![], None, None, ("0s ago", None)),
            (everyone(), None, None, ("4h ago", None)),
            (vec![], Some(change(7_200, Some(7_260))), Some(0.15), ("", Some("changed 1h ago"))),
            (everyone(), Some(change(7_200, Some(7_200))), Some(0.5), ("4h ago", Some("changed 2h ago"))),
            // The platform's clock is behind the database's.
            (everyone(), Some(change(20_000, Some(20_000))), Some(0.5), ("4h ago", Some("changed 0s ago"))),
        ] {
            let axis = Axis::of(&picture(dynos, change));
            assert_eq!(axis.line(), line);
            let (left, middle, _) = axis.labels();
            assert_eq!((left.as_str(), middle.as_deref()), labels);
            assert!([0, 7_230, 99_999].iter().all(|second| (0.0..=1.0).contains(&axis.place(at(*second)))));
        }
    }

    #[test]
    fn text_from_outside_does_not_act() {
        let mut picture = picture(vec![dyno("web.1\u{1b}[2J", "up\u{202e}", 0, None)], None);
        picture.reasons = vec!["by \u{9b}31m".into()];
        let text = plain(&picture, 200).join("\n");
        assert!(text.contains("web.1\\u{1b}[2J") && text.contains("by \\u{9b}31m"), "{text}");
        assert!(!text.chars().any(|c| c != '\n' && (c.is_control() || c == '\u{202e}')), "{text}");
    }
}
