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
    Some(format!("owed since {} ({} ago)", whole(since), age(picture.now, since)))
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
