//! `unstuck tail`: the log as `heroku logs --tail` prints it, or only what matters of it.

use std::io;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::adapters::signals::Interrupt;
use crate::args;
use crate::commands::{api_failed, interrupted, reach};
use crate::config::Settings;
use crate::dynos::Generation;
use crate::error::{Error, Kind, Result};
use crate::follow::{Follow, Heard};
use crate::logs::colours::Palette;
use crate::logs::troubles::{Finder, Group, Groups, Trouble};
use crate::logs::{self, printable};
use crate::ports::LogQuery;
use crate::report::{BOLD, DIM, RED, Reporter, YELLOW};

/// How soon a signal is noticed.
const PATIENCE: Duration = Duration::from_millis(100);
/// How long the last exception may wait for the rest of its backtrace.
pub const FLUSH_AFTER: Duration = Duration::from_millis(700);

pub fn tail(settings: &Settings, args: &args::Tail, reporter: &Reporter) -> Result<u8> {
    let interrupt =
        Interrupt::listen().map_err(|error| Error::new(Kind::System, "cannot listen to signals").because(error))?;
    let platform = reach(settings, reporter)()?;
    let generation = platform.app().map_err(api_failed)?.generation;
    if generation == Generation::Fir && args.no_tail {
        return Err(Error::new(
            Kind::Usage,
            "this app's platform (Fir) keeps no log of the past, so --no-tail has nothing to show",
        )
        .hint("leave out --no-tail, and the log is shown from now on"));
    }
    let query = LogQuery {
        dyno: args.dyno.clone(),
        kind: args.process_type.clone(),
        source: args.source.clone(),
        lines: args.num,
        tail: !args.no_tail,
    };
    let follow = Follow::start(platform, generation, query)
        .map_err(|error| Error::new(Kind::System, "cannot start a thread").because(error))?;
    let mut printer = Printer::new(args.errors, reporter);
    let mut quiet = Duration::ZERO;
    loop {
        if let Some(signal) = interrupt.signal() {
            printer.end();
            return Ok(interrupted(signal));
        }
        let Some(heard) = follow.next(PATIENCE) else {
            quiet += PATIENCE;
            if !reporter.is_read() || (quiet >= FLUSH_AFTER && printer.flush().is_err()) {
                return Ok(0);
            }
            continue;
        };
        quiet = Duration::ZERO;
        let told = match heard {
            Heard::Line(line) => printer.line(&line),
            Heard::End(error) => {
                printer.end();
                return error.map_or(Ok(0), |error| Err(api_failed(error)));
            }
            Heard::Open => Ok(()),
            Heard::Broken(why) => {
                reporter.detail(&format!("the log broke off ({why}); a new session takes it up"));
                Ok(())
            }
            Heard::Gap => {
                reporter.warn("the log broke off for longer than its past goes back: lines may be missing here");
                Ok(())
            }
        };
        // Whoever closed the pipe has seen enough.
        if told.is_err() {
            return Ok(0);
        }
    }
}

/// Prints lines, or what matters of them.
struct Printer<'a> {
    reporter: &'a Reporter,
    palette: Palette,
    finder: Option<Finder>,
    groups: Groups,
}

impl<'a> Printer<'a> {
    fn new(errors: bool, reporter: &'a Reporter) -> Self {
        Self { reporter, palette: Palette::default(), finder: errors.then(Finder::default), groups: Groups::default() }
    }

    fn line(&mut self, raw: &str) -> io::Result<()> {
        let text = printable(raw);
        let Some(finder) = &mut self.finder else {
            return if self.reporter.json {
                self.reporter.stream_document(&document(&text))
            } else {
                self.reporter.stream_line(&self.palette.paint(&text))
            };
        };
        let troubles = finder.hear(&text);
        self.troubles(troubles)
    }

    /// Tells of an exception whose backtrace may have ended.
    fn flush(&mut self) -> io::Result<()> {
        let troubles = self.finder.as_mut().map(Finder::flush).unwrap_or_default();
        self.troubles(troubles)
    }

    fn troubles(&mut self, troubles: Vec<Trouble>) -> io::Result<()> {
        for trouble in troubles {
            let count = self.groups.add(&trouble);
            if self.reporter.json {
                let mut document = trouble.document();
                document["count"] = count.into();
                self.reporter.stream_document(&document)?;
            } else {
                for line in told(&trouble, count) {
                    self.reporter.stream_line(&line)?;
                }
            }
        }
        Ok(())
    }

    /// The groups, once there is nothing more to come. Whoever is gone does not miss them.
    fn end(&mut self) {
        let _ = self.flush();
        if self.finder.is_some() && !self.reporter.json {
            for line in summary(&self.groups) {
                let _ = self.reporter.stream_line(&line);
            }
        }
    }
}

/// One line, as an object.
fn document(text: &str) -> Value {
    match logs::parse(text) {
        Some(line) => {
            json!({"at": line.at.to_string(), "source": line.source, "process": line.process, "message": line.message})
        }
        None => json!({"at": null, "source": null, "process": null, "message": text}),
    }
}

/// One trouble: the first of its group with its backtrace.
fn told(trouble: &Trouble, count: usize) -> Vec<String> {
    let again = if count > 1 { format!(" {DIM}({count} times so far){DIM:#}") } else { String::new() };
    let mut lines = vec![format!(
        "{DIM}{}{DIM:#} {BOLD}{}{BOLD:#} {RED}{}{RED:#}{again}",
        trouble.at.strftime("%Y-%m-%dT%H:%M:%S%.6f+00:00"),
        trouble.process,
        trouble.headline()
    )];
    if count == 1 {
        lines.extend(trouble.lines.iter().map(|line| format!("    {DIM}{line}{DIM:#}")));
        if trouble.stuck {
            lines.push(format!("    {YELLOW}{}{YELLOW:#}", stuck_advice(&trouble.process)));
        }
    }
    lines
}

/// What an error of a process older than the schema means, and what to do.
pub fn stuck_advice(processes: &str) -> String {
    format!("this looks like a stuck dyno ({processes}): `unstuck status` tells, `unstuck restart` heals it")
}

/// How often each was seen.
fn summary(groups: &Groups) -> Vec<String> {
    if groups.list.is_empty() {
        return vec!["nothing that matters was seen".to_owned()];
    }
    let mut lines =
        vec![String::new(), format!("{BOLD}{:>6}  {:20}  {:20}  WHAT{BOLD:#}", "TIMES", "FIRST SEEN", "LAST SEEN")];
    let mut list: Vec<&Group> = groups.list.iter().collect();
    list.sort_by_key(|group| std::cmp::Reverse(group.count));
    for group in list {
        lines.push(format!(
            "{:>6}  {:20}  {:20}  {} {DIM}({}){DIM:#}",
            group.count,
            seconds(group.first_seen),
            seconds(group.last_seen),
            group.example.headline(),
            group.places(),
        ));
    }
    if groups.others > 0 {
        lines.push(format!("{:>6}  others", groups.others));
    }
    lines
}

/// A moment without its fraction, for a table.
pub fn seconds(at: Timestamp) -> String {
    Timestamp::from_second(at.as_second()).unwrap_or(at).to_string()
}
