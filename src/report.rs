//! Outcome to text, JSON and exit code; the only writer to the terminal.
//!
//! Text that comes from outside (file names, API answers, a server's messages) goes through [`clean`], which shows control
//! characters instead of sending them to the terminal.

use std::collections::HashSet;
use std::io::Write;

use anstyle::{AnsiColor, Style};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::args::Color;
use crate::change::Change;
use crate::debt::{Restart, Standing, Verdict};
use crate::doctor::Grade;
use crate::dynos::{Dyno, DynoList, Release};
use crate::error::{Error, Kind};
use crate::migrations::{Migration, Version};
use crate::observe::Facts;
use crate::plan::{Roll, Run};
use crate::ports::{ApiError, Ended, Exit};

/// Writes for people and for machines.
#[derive(Debug, Clone)]
pub struct Reporter {
    pub json: bool,
    pub quiet: bool,
    pub verbose: u8,
    choice: anstream::ColorChoice,
}

pub const BOLD: Style = Style::new().bold();
pub const RED: Style = Style::new().bold().fg_color(Some(anstyle::Color::Ansi(AnsiColor::Red)));
pub const YELLOW: Style = Style::new().fg_color(Some(anstyle::Color::Ansi(AnsiColor::Yellow)));
pub const GREEN: Style = Style::new().fg_color(Some(anstyle::Color::Ansi(AnsiColor::Green)));
pub const DIM: Style = Style::new().dimmed();

impl Reporter {
    pub fn new(json: bool, quiet: bool, verbose: u8, color: Color) -> Self {
        let choice = match color {
            Color::Auto => anstream::ColorChoice::Auto,
            Color::Always => anstream::ColorChoice::Always,
            Color::Never => anstream::ColorChoice::Never,
        };
        Self { json, quiet, verbose, choice }
    }

    /// A line of the story: on standard output beside the child's, on standard error where a JSON document needs the former.
    fn line(&self, text: &str) {
        if self.json { self.to_stderr(text) } else { self.to_stdout(text) }
    }

    // Nobody may be listening any more; that stops nothing.
    fn to_stdout(&self, text: &str) {
        let mut out = anstream::AutoStream::new(std::io::stdout(), self.choice);
        let _ = writeln!(out, "{text}").and_then(|()| out.flush());
    }

    fn to_stderr(&self, text: &str) {
        let mut err = anstream::AutoStream::new(std::io::stderr(), self.choice);
        let _ = writeln!(err, "{text}");
    }

    /// What happens now.
    pub fn say(&self, text: &str) {
        if !self.quiet {
            self.line(&format!("{BOLD}unstuck:{BOLD:#} {}", clean(text)));
        }
    }

    /// What happens now, where standard output belongs to somebody else.
    pub fn note(&self, text: &str) {
        if !self.quiet {
            self.to_stderr(&format!("{BOLD}unstuck:{BOLD:#} {}", clean(text)));
        }
    }

    /// One of several things that [`Reporter::say`] announced.
    pub fn item(&self, text: &str) {
        if !self.quiet {
            self.line(&format!("  {}", clean(text)));
        }
    }

    /// What only the curious want to know.
    pub fn detail(&self, text: &str) {
        if self.verbose > 0 {
            self.to_stderr(&format!("{DIM}unstuck: {}{DIM:#}", clean(text)));
        }
    }

    /// What has to be seen.
    pub fn warn(&self, text: &str) {
        self.to_stderr(&format!("{YELLOW}unstuck: warning:{YELLOW:#} {}", clean(text)));
    }

    /// What is not let through.
    pub fn refuse(&self, text: &str) {
        self.to_stderr(&format!("{RED}unstuck: refused:{RED:#} {}", clean(text)));
    }

    /// A line for a machine that reads lines, on standard output.
    pub fn machine_line(&self, text: &str) {
        self.to_stdout(&clean(text));
    }

    /// One of several things that [`Reporter::warn`] announced.
    pub fn warn_item(&self, text: &str) {
        self.to_stderr(&format!("  {}", clean(text)));
    }

    /// The result itself: the only thing that `--quiet` leaves of a command that was asked for facts.
    pub fn result(&self, text: &str) {
        self.line(text);
    }

    /// What another process printed, as it came: a migration, in a dyno.
    pub fn pass_on(&self, bytes: &[u8]) {
        // Nobody may be listening any more; that stops nothing.
        let _ = if self.json {
            std::io::stderr().write_all(bytes)
        } else {
            let mut out = std::io::stdout();
            out.write_all(bytes).and_then(|()| out.flush())
        };
    }

    /// Whether people see colours on standard output.
    pub fn colourful(&self) -> bool {
        let choice = match self.choice {
            anstream::ColorChoice::Auto => anstream::AutoStream::choice(&std::io::stdout()),
            choice => choice,
        };
        !self.json && choice != anstream::ColorChoice::Never
    }

    /// What one check of `unstuck doctor` says. Quietly: only what is not well.
    pub fn finding(&self, grade: Grade, check: &str, message: &str, remedy: Option<&str>) {
        if self.quiet && grade == Grade::Pass {
            return;
        }
        let (style, word) = match grade {
            Grade::Pass => (GREEN, "pass"),
            Grade::Unknown => (DIM, "?   "),
            Grade::Warn => (YELLOW, "WARN"),
            Grade::Fail => (RED, "FAIL"),
        };
        self.result(&format!("{style}{word}{style:#}  {BOLD}{check:12}{BOLD:#}  {}", clean(message)));
        if let Some(remedy) = remedy {
            self.result(&format!("{:20}{DIM}-> {}{DIM:#}", "", clean(remedy)));
        }
    }

    /// The one JSON document.
    pub fn document(&self, document: &Value) {
        let text = serde_json::to_string_pretty(document).unwrap_or_default();
        let mut out = std::io::stdout();
        let _ = writeln!(out, "{}", escape_json(&text)).and_then(|()| out.flush());
    }

    /// Columns and lines of the terminal that standard output is, if it is one.
    pub fn size(&self) -> Option<(usize, usize)> {
        let (terminal_size::Width(width), terminal_size::Height(height)) =
            terminal_size::terminal_size_of(std::io::stdout())?;
        Some((width.into(), height.into()))
    }

    /// Draws over what stands on the terminal; what is below its last line is left out.
    pub fn redraw(&self, lines: &[String]) -> std::io::Result<()> {
        let height = self.size().map_or(usize::MAX, |(_, height)| height.saturating_sub(1).max(1));
        let text: Vec<String> = lines.iter().take(height).map(|line| format!("{line}\x1b[K\n")).collect();
        let mut out = std::io::stdout();
        out.write_all(b"\x1b[H")?;
        let mut drawn = anstream::AutoStream::new(
            Vec::new(),
            anstream::AutoStream::new(std::io::stdout(), self.choice).current_choice(),
        );
        drawn.write_all(text.concat().as_bytes())?;
        out.write_all(&drawn.into_inner())?;
        out.write_all(b"\x1b[J")?;
        out.flush()
    }

    /// A line of a stream on standard output, with colours where they are wanted. It is to have no control characters but those.
    /// Fails where nobody reads any more.
    pub fn stream_line(&self, text: &str) -> std::io::Result<()> {
        let mut out = anstream::AutoStream::new(std::io::stdout(), self.choice);
        writeln!(out, "{text}").and_then(|()| out.flush())
    }

    /// One JSON document of a stream, on a line of its own. Fails where nobody reads any more.
    pub fn stream_document(&self, document: &Value) -> std::io::Result<()> {
        let mut out = std::io::stdout();
        writeln!(out, "{}", escape_json(&document.to_string())).and_then(|()| out.flush())
    }

    /// Whether somebody may still read standard output. The reader of a pipe may have gone, as `head` does, while there is nothing
    /// to write that would tell.
    pub fn is_read(&self) -> bool {
        let mut poll = libc::pollfd { fd: libc::STDOUT_FILENO, events: 0, revents: 0 };
        // SAFETY: one pollfd, alive for the call, which does not wait.
        let told = unsafe { libc::poll(&raw mut poll, 1, 0) };
        told <= 0 || poll.revents & libc::POLLERR == 0
    }

    /// An error, for people; with `--json` also as a document.
    pub fn error(&self, error: &Error, outcome: Option<&str>) {
        let outcome = outcome.map_or_else(|| json!({}), |outcome| json!({ "outcome": outcome }));
        self.error_with(error, outcome);
    }

    /// The same, added to a `document` that says more.
    pub fn error_with(&self, error: &Error, mut document: Value) {
        self.to_stderr(&format!("{RED}unstuck: error:{RED:#} {}", clean(&error.message)));
        for cause in error.causes() {
            self.to_stderr(&format!("  because: {}", clean(&cause)));
        }
        if let Some(hint) = &error.hint {
            self.to_stderr(&format!("  hint: {}", clean(hint)));
        }
        if self.json {
            document["error"] = json!({
                "kind": error.kind.name(),
                "message": error.message,
                "causes": error.causes(),
                "hint": error.hint,
            });
            self.document(&document);
        }
    }
}

/// Shows control characters, bidirectional overrides and line separators as `\u{..}` instead of passing them on.
pub fn clean(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut cleaned, c| {
        if acts_on_terminal(c) {
            cleaned.extend(c.escape_unicode());
        } else {
            cleaned.push(c);
        }
        cleaned
    })
}

fn acts_on_terminal(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// The same within a JSON text: such characters stand only inside its strings, where an escape means the same.
fn escape_json(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut escaped, c| {
        if c != '\n' && acts_on_terminal(c) {
            escaped.push_str(&format!("\\u{:04x}", u32::from(c)));
        } else {
            escaped.push(c);
        }
        escaped
    })
}

/// The API said no, or nothing, to a command that was asked for facts.
pub fn api_failure(what: &str, error: ApiError) -> Error {
    let hint = error.hint.clone();
    let mut failure = Error::new(Kind::Api, what).because(error);
    failure.hint = hint;
    failure
}

/// What came of `unstuck migrate` or `unstuck restart`, in the words of the JSON document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    NothingToDo,
    Migrated,
    MigrationFailed,
    Settled,
    Owed,
    Interrupted,
}

impl Outcome {
    pub fn name(self) -> &'static str {
        match self {
            Self::NothingToDo => "nothing_to_do",
            Self::Migrated => "migrated",
            Self::MigrationFailed => "migration_failed",
            Self::Settled => "settled",
            Self::Owed => "owed",
            Self::Interrupted => "interrupted",
        }
    }

    /// The word for a run that ended with an error before anything ran.
    pub fn of_error(error: &Error) -> &'static str {
        if error.kind == Kind::Busy { "busy" } else { "refused" }
    }
}

/// The end of a run: everything that its report says.
pub struct End<'a> {
    pub run: &'a Run,
    pub verdict: Verdict,
    /// The signal that ended it.
    pub signal: Option<i32>,
    pub release_phase: bool,
    /// Whether the new processes came up; `None` where that was not looked at.
    pub healthy: Option<bool>,
    pub require_healthy: bool,
    pub types: Vec<String>,
}

impl End<'_> {
    pub fn outcome(&self) -> Outcome {
        match (self.signal, &self.run.ended, self.verdict) {
            (Some(_), ..) | (None, _, Verdict::Interrupted) => Outcome::Interrupted,
            (None, Some(_), _) if self.run.succeeded() => Outcome::Migrated,
            (None, Some(_), _) => Outcome::MigrationFailed,
            (None, None, Verdict::Settled) => Outcome::Settled,
            (None, None, Verdict::Owed) => Outcome::Owed,
            (None, None, Verdict::NothingToDo | Verdict::HandedOff) => Outcome::NothingToDo,
        }
    }

    /// A release whose migration succeeded is not failed for a restart that could not be proved: that would keep the old
    /// code on the new schema.
    fn forgiven(&self) -> bool {
        self.release_phase && self.outcome() != Outcome::MigrationFailed
    }

    pub fn exit_code(&self) -> u8 {
        if let Some(signal) = self.signal {
            return u8::try_from(128 + signal).unwrap_or(u8::MAX);
        }
        match self.verdict {
            Verdict::Owed if self.forgiven() => 0,
            Verdict::Owed => 4,
            _ if self.outcome() == Outcome::MigrationFailed => 3,
            _ if self.require_healthy && self.healthy == Some(false) => 4,
            _ => 0,
        }
    }

    /// `not_needed`, `proved`, `requested`, `owed`, `handed_off`.
    pub fn restart_state(&self) -> &'static str {
        match self.verdict {
            Verdict::HandedOff => "handed_off",
            Verdict::Owed
                if self.run.requests > 0 && self.run.restart != Restart::Kept && self.run.roll != Roll::Stopped =>
            {
                "requested"
            }
            Verdict::Owed => "owed",
            Verdict::Settled | Verdict::NothingToDo | Verdict::Interrupted if self.run.proof.is_some() => "proved",
            Verdict::Interrupted if self.run.standing() == Standing::Owed => "owed",
            Verdict::Settled | Verdict::NothingToDo | Verdict::Interrupted => "not_needed",
        }
    }

    pub fn document(&self) -> Value {
        let databases: Vec<Value> = self
            .run
            .facts
            .iter()
            .zip(self.run.at_start())
            .map(|(now, then)| {
                json!({
                    "name": now.name,
                    "applied": applied(now, then),
                    "pending": now.pending.iter().map(|migration| migration.version.to_string()).collect::<Vec<_>>(),
                })
            })
            .collect();
        let dynos: Vec<Value> = self
            .replaced()
            .into_iter()
            .map(|dyno| json!({"name": dyno.name, "type": dyno.kind, "replaced": dyno.replaced, "state": dyno.state}))
            .collect();
        let mut document = json!({
            "outcome": self.outcome().name(),
            "databases": databases,
            "restart": {
                "state": self.restart_state(),
                "healthy": self.healthy,
                "types": self.types,
                "requests": self.run.requests,
                "dynos": dynos,
            },
            "release_phase": self.release_phase,
        });
        if !self.run.troubles.is_empty() {
            document["troubles"] = self.run.troubles.clone().into();
        }
        document
    }

    fn replaced(&self) -> Vec<crate::verify::Replaced> {
        match (&self.run.suspects, &self.run.list) {
            (Some(suspects), Some(list)) => suspects.replaced(list),
            _ => Vec::new(),
        }
    }

    /// Says how it ended, for people.
    pub fn tell(&self, reporter: &Reporter) {
        for trouble in &self.run.troubles {
            reporter.warn(trouble);
        }
        match self.verdict {
            Verdict::NothingToDo if self.run.standing() == Standing::Unproved => reporter.say(
                "nothing is pending; no record yet that the running processes are newer than the schema (unstuck restart --all \
                 makes a first proof)",
            ),
            Verdict::NothingToDo => reporter.say("nothing is pending, nothing is owed"),
            Verdict::Settled if self.run.proof.is_some() => {
                let replaced = self.replaced().iter().filter(|dyno| dyno.replaced).count();
                let types = self.types.join(", ");
                let since = if self.run.facts.is_empty() { "this restart was asked for" } else { "the last schema change" };
                reporter.say(&format!("proved: every {types} process began after {since} ({replaced} replaced)"));
            }
            Verdict::Settled => reporter.say("nothing changed, so no restart is owed"),
            Verdict::HandedOff => {
                let release = self.run.this_release.or_else(|| self.run.awaits());
                let release = release.map_or(String::new(), |version| format!(" v{version}"));
                reporter.say(&format!("the restart is handed to release{release}; the next run checks it"));
            }
            Verdict::Owed => reporter.warn(if self.forgiven() {
                "A RESTART IS STILL OWED. The release is not failed for it: the platform's own restart follows, and the next run \
                 checks. `unstuck restart --wait` after the deploy settles it"
            } else {
                "A RESTART IS STILL OWED: processes older than the schema may be serving. `unstuck restart` pays it"
            }),
            Verdict::Interrupted => reporter.warn("interrupted before anything ran"),
        }
        if let (Some(false), Some(list)) = (self.healthy, &self.run.list) {
            let sick: Vec<String> =
                unhealthy(list, &self.types).iter().map(|dyno| format!("{} ({})", dyno.name, dyno.state)).collect();
            reporter.warn(&format!("the new processes are not all up: {}", sick.join(", ")));
        }
    }
}

/// Says how the migration ended, as soon as it is known: what was applied, what failed, what remains; or that this was not
/// `seen`, and is unknown.
pub fn tell_migration(run: &Run, seen: bool, reporter: &Reporter) {
    let Some(Ended { exit, took, .. }) = &run.ended else { return };
    let how = match exit {
        Exit::Code(0) if !seen => "ended well, but what it applied could not be looked at".to_owned(),
        Exit::Code(0) if run.pending() => "ended well, but left something pending".to_owned(),
        Exit::Code(0) => "ended well".to_owned(),
        Exit::Code(code) => format!("failed with exit code {code}"),
        Exit::Signal(signal) => format!("was ended by signal {signal}"),
        Exit::TimedOut => "took too long and was ended".to_owned(),
        Exit::CannotStart(why) => format!("could not be started: {why}"),
    };
    let text = format!("the migration {how} after {:.1} s", took.as_secs_f32());
    if run.succeeded() {
        reporter.say(&text);
    } else {
        reporter.warn(&text);
    }
    for (now, then) in run.facts.iter().zip(run.at_start()) {
        let of = if run.facts.len() > 1 { format!("{}: ", now.name) } else { String::new() };
        for migration in &then.pending {
            let label = format!("{of}{} {}", migration.version, migration.name);
            match now.pending.iter().position(|pending| pending.version == migration.version) {
                _ if !seen => reporter.item(&format!("unknown    {label}")),
                None => reporter.item(&format!("applied    {label}")),
                // Rails stops at the first that fails.
                Some(0) if *exit != Exit::Code(0) => reporter.item(&format!("failed     {label}")),
                Some(_) => reporter.item(&format!("remaining  {label}")),
            }
        }
    }
}

/// The versions that came since the run began.
fn applied(now: &Facts, then: &Facts) -> Vec<String> {
    let before: HashSet<_> = then.look.applied.iter().collect();
    let mut new: Vec<_> = now.look.applied.iter().filter(|version| !before.contains(version)).collect();
    new.sort_unstable();
    new.into_iter().map(ToString::to_string).collect()
}

/// The dynos of `types` that are not up and not meant to be idle.
pub fn unhealthy<'a>(list: &'a DynoList, types: &[String]) -> Vec<&'a Dyno> {
    let ours = |dyno: &&Dyno| {
        types.iter().any(|kind| *kind == dyno.kind || kind == "all") && !matches!(dyno.state.as_str(), "up" | "idle")
    };
    list.dynos.iter().filter(ours).collect()
}

/// What `unstuck status` found.
pub struct Picture {
    pub app: Option<String>,
    pub databases: Vec<DatabasePicture>,
    /// `None`: the API was not asked.
    pub dynos: Option<Vec<DynoPicture>>,
    /// `None`: cannot be told.
    pub owed: Option<bool>,
    pub verdict: &'static str,
    /// What is owed and why, for people.
    pub reasons: Vec<String>,
    /// By the platform's clock; by our own where the platform was not asked.
    pub now: Timestamp,
    /// The last schema change, as far as it is known.
    pub change: Option<Change>,
    /// The names of the migrations that came with it, as far as they have a file.
    pub names: Vec<(Version, String)>,
    /// The newest release.
    pub current: Option<Release>,
}

pub struct DatabasePicture {
    pub facts: Facts,
    pub owed: Option<bool>,
}

pub struct DynoPicture {
    pub dyno: Dyno,
    /// `None`: nothing was ever proved, so it cannot be told.
    pub stuck: Option<bool>,
    /// Whether `unstuck restart` restarts it.
    pub ours: bool,
}

impl Picture {
    pub fn document(&self) -> Value {
        let databases: Vec<Value> = self.databases.iter().map(DatabasePicture::document).collect();
        let dynos = self.dynos.as_ref().map(|dynos| {
            let document = |DynoPicture { dyno, stuck, .. }: &DynoPicture| {
                json!({
                    "name": dyno.name,
                    "type": dyno.kind,
                    "state": dyno.state,
                    "booted_at": dyno.created_at.to_string(),
                    "release": dyno.release,
                    "stuck": stuck,
                })
            };
            dynos.iter().map(document).collect::<Vec<_>>()
        });
        json!({
            "app": self.app,
            "databases": databases,
            "dynos": dynos,
            "owed": self.owed,
            "owed_since": self.owed_since().map(|since| since.to_string()),
            "reasons": self.reasons,
            "release": self.current.as_ref().map(|release| {
                json!({"version": release.version, "created_at": release.created_at.to_string()})
            }),
            "schema_change": self.change.as_ref().map(change_document),
            "verdict": self.verdict,
        })
    }

    /// The exit code of `status --exit-code`.
    pub fn exit_code(&self) -> u8 {
        let stuck = self.dynos.iter().flatten().any(|dyno| dyno.ours && dyno.stuck == Some(true));
        match self.verdict {
            "pending" => 6,
            "owed" => 7,
            _ if stuck => 7,
            _ => 0,
        }
    }

    /// Since when a restart is owed: not earlier than this.
    pub fn owed_since(&self) -> Option<Timestamp> {
        self.change.as_ref().filter(|_| self.owed == Some(true))?.earliest
    }
}

/// A schema change, as every document holds it.
pub fn change_document(change: &Change) -> Value {
    json!({
        "database": change.database,
        "earliest": change.earliest.map(|at| at.to_string()),
        "latest": change.latest.map(|at| at.to_string()),
        "versions": change.versions.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "more_versions": change.more,
        "known_by": change.known.name(),
    })
}

/// One migration, as every document holds it.
pub fn migration_document(migration: &Migration) -> Value {
    json!({"version": migration.version.to_string(), "name": migration.name, "path": migration.path.to_string_lossy()})
}

impl DatabasePicture {
    fn document(&self) -> Value {
        let pending: Vec<Value> = self.facts.pending.iter().map(migration_document).collect();
        json!({
            "name": self.facts.name,
            "adapter": self.facts.adapter,
            "pending": pending,
            "applied_count": self.facts.look.applied.len(),
            "without_file": self.facts.without_file.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "owed": self.owed,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_from_outside_acts_on_the_terminal() {
        for (raw, cleaned) in [
            ("plain text, ümlaut", "plain text, ümlaut"),
            ("\u{1b}[31mred", "\\u{1b}[31mred"),
            ("a\rb\nc", "a\\u{d}b\\u{a}c"),
            ("\u{9b}31m", "\\u{9b}31m"),
            ("user\u{202e}gpj.rb", "user\\u{202e}gpj.rb"),
        ] {
            assert_eq!(clean(raw), cleaned);
        }
    }

    #[test]
    fn json_keeps_the_text_and_escapes_what_acts() {
        let document = json!({"path": "a\u{9b}b\u{202e}c\u{1b}"});
        let text = escape_json(&serde_json::to_string_pretty(&document).unwrap());
        assert!(!text.chars().any(|c| c != '\n' && acts_on_terminal(c)), "{text}");
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), document);
    }
}
