//! `unstuck watch`: looks after the newest release, and says whether to roll it back.

use std::time::{Duration, Instant};

use jiff::SignedDuration;
use serde_json::{Value, json};

use crate::adapters::signals::Interrupt;
use crate::aftermath::{Aftermath, Side, Verdict, per_minute};
use crate::args;
use crate::commands::tail::{FLUSH_AFTER, seconds, stuck_advice};
use crate::commands::{api_failed, interrupted, reach};
use crate::config::{self, Settings};
use crate::dynos::{Generation, Release, ReleaseStatus};
use crate::error::{Error, Kind, Result};
use crate::follow::{Follow, Heard};
use crate::logs::troubles::Trouble;
use crate::logs::{HISTORY, printable};
use crate::ports::{LogQuery, Platform};
use crate::report::{BOLD, DIM, GREEN, RED, Reporter, YELLOW, clean};

const TEN_MINUTES: Duration = Duration::from_mins(10);
/// A release phase that lasts longer has its own time limit on the platform.
const LONGEST_RELEASE: Duration = Duration::from_hours(25);
/// How soon a signal is noticed.
const PATIENCE: Duration = Duration::from_millis(100);
const POLL_MAX: Duration = Duration::from_secs(10);
/// A process that is seen crashed so often in a row does not come up by itself.
const CRASHED_LOOKS: usize = 3;
/// Lines of the table and of a backtrace: the end is to fit a screen.
const MAX_ROWS: usize = 8;
const MAX_BACKTRACE: usize = 4;

pub fn watch(settings: &Settings, args: &args::Watch, reporter: &Reporter) -> Result<u8> {
    let how_long = match &args.how_long {
        None => TEN_MINUTES,
        Some(text) => config::duration(text).ok_or_else(|| {
            Error::new(Kind::Usage, "--for: the value is no time").hint("a number and a unit: 500ms, 90s, 10m, 1h")
        })?,
    };
    let interrupt =
        Interrupt::listen().map_err(|error| Error::new(Kind::System, "cannot listen to signals").because(error))?;
    let platform = reach(settings, reporter)()?;
    let app = platform.app().map_err(api_failed)?;
    let poll = settings.timeouts.poll.value;
    // The past is asked for at once: it is forgotten line by line.
    let query = LogQuery { lines: HISTORY, tail: true, ..LogQuery::default() };
    let follow = Follow::start(platform.clone(), app.generation, query)
        .map_err(|error| Error::new(Kind::System, "cannot start a thread").because(error))?;
    let newest = platform.releases(1).map_err(api_failed)?.into_iter().next().ok_or_else(|| {
        Error::new(Kind::Api, "this app has no release yet").hint("deploy it first: git push heroku main")
    })?;
    let mut watch = Watch {
        aftermath: Aftermath::of(newest),
        reporter,
        follow,
        interrupt: interrupt.clone(),
        poll,
        heard_at: Instant::now(),
        crashed_looks: 0,
        opened: false,
        ended: false,
        unlisted: None,
    };
    if app.generation == Generation::Fir {
        reporter.say("this platform (Fir) keeps no log of the past: which errors are new cannot be told");
    }
    watch.wait_for_release(&*platform)?;
    if !watch.failed() {
        reporter.say(&format!(
            "watching release v{} of {} for {}",
            watch.aftermath.release.version,
            app.name,
            human(how_long)
        ));
        watch.run(&*platform, how_long)?;
    }
    if let Some(why) = watch.unlisted.take() {
        watch.aftermath.miss(format!("the dynos could not be listed: {why}"));
    }
    watch.aftermath.flush();
    let newest = platform.releases(1).ok().and_then(|releases| releases.into_iter().next());
    let own = watch.aftermath.release.version;
    watch.aftermath.overtaken_by = newest.map(|release| release.version).filter(|version| *version > own);
    let verdict = watch.aftermath.verdict();
    if reporter.json {
        reporter.document(&document(&app.name, &watch.aftermath));
    } else {
        for line in told(&app.name, &watch.aftermath) {
            reporter.result(&line);
        }
    }
    Ok(interrupt.signal().map_or(verdict.exit_code(), interrupted))
}

struct Watch<'a> {
    aftermath: Aftermath,
    reporter: &'a Reporter,
    follow: Follow,
    interrupt: Interrupt,
    poll: Duration,
    heard_at: Instant,
    /// How often in a row a process was seen crashed.
    crashed_looks: usize,
    /// The log is being read.
    opened: bool,
    /// The log has nothing more to tell.
    ended: bool,
    /// Why the dynos could not be listed when they were last asked for.
    unlisted: Option<String>,
}

impl Watch<'_> {
    fn failed(&self) -> bool {
        matches!(self.aftermath.release.status, ReleaseStatus::Failed | ReleaseStatus::Expired)
    }

    /// Waits for the end of a pending release, listening all the while.
    fn wait_for_release(&mut self, platform: &dyn Platform) -> Result<()> {
        let version = self.aftermath.release.version;
        let start = Instant::now();
        let mut told = false;
        while self.aftermath.release.status == ReleaseStatus::Pending && start.elapsed() < LONGEST_RELEASE {
            if !told {
                told = true;
                self.reporter.say(&format!("release v{version} is pending: waiting for its end"));
            }
            self.listen((self.poll * 5).min(POLL_MAX));
            if self.interrupt.signal().is_some() {
                return Ok(());
            }
            self.aftermath.release = platform.release(version).map_err(api_failed)?;
        }
        Ok(())
    }

    /// Looks and listens for so long, from the moment at which the log is read or is known to be out of reach.
    fn run(&mut self, platform: &dyn Platform, how_long: Duration) -> Result<()> {
        while !self.opened && !self.ended && self.interrupt.signal().is_none() {
            self.listen(PATIENCE);
        }
        let start = Instant::now();
        let mut interval = self.poll;
        while self.interrupt.signal().is_none() {
            self.look(platform)?;
            let left = how_long.saturating_sub(start.elapsed());
            if left.is_zero() || self.crashed_looks >= CRASHED_LOOKS {
                return Ok(());
            }
            self.listen(interval.min(left));
            interval = interval.mul_f32(1.5).min(POLL_MAX);
        }
        Ok(())
    }

    /// Hears the log for so long, or until a signal comes.
    fn listen(&mut self, time: Duration) {
        let start = Instant::now();
        while self.interrupt.signal().is_none() {
            let left = time.saturating_sub(start.elapsed());
            if left.is_zero() {
                return;
            }
            let patience = PATIENCE.min(left);
            if self.ended {
                std::thread::sleep(patience);
            } else if let Some(heard) = self.follow.next(patience) {
                self.heard_at = Instant::now();
                self.hear(heard);
            } else if self.heard_at.elapsed() > FLUSH_AFTER {
                let first = self.aftermath.flush();
                self.tell(&first);
            }
        }
    }

    /// Lists the dynos. Only a refusal ends the watch: what could not be listed now may be the next time.
    fn look(&mut self, platform: &dyn Platform) -> Result<()> {
        let mut list = match platform.dynos() {
            Ok(list) => list,
            Err(error) if error.status.is_some_and(|status| (400..500).contains(&status)) => {
                return Err(api_failed(error));
            }
            Err(error) => {
                self.unlisted = Some(error.to_string());
                return Ok(());
            }
        };
        let before = describe(&self.aftermath);
        self.unlisted = None;
        self.aftermath.looked_at = Some(list.date);
        list.dynos.sort_by_cached_key(|dyno| (dyno.kind.clone(), dyno.name.len(), dyno.name.clone()));
        self.aftermath.dynos = list.dynos;
        let crashed = self.aftermath.not_up().iter().any(|dyno| dyno.state == "crashed");
        self.crashed_looks = if crashed { self.crashed_looks + 1 } else { 0 };
        let now = describe(&self.aftermath);
        if now != before {
            self.reporter.say(&now);
        }
        Ok(())
    }

    fn hear(&mut self, heard: Heard) {
        match heard {
            Heard::Open => self.opened = true,
            Heard::Line(line) => {
                let first = self.aftermath.hear(&printable(&line));
                self.tell(&first);
            }
            Heard::Broken(why) => {
                self.aftermath.breaks += 1;
                self.reporter.detail(&format!("the log broke off ({why}); a new session takes it up"));
            }
            Heard::Gap => self.aftermath.miss("the log broke off, and lines may be missing".to_owned()),
            Heard::End(why) => {
                self.ended = true;
                let why = why.map_or_else(|| "it ended".to_owned(), |error| error.to_string());
                self.aftermath.miss(format!("the log could not be followed: {why}"));
            }
        }
    }

    /// The first of each kind, as it comes.
    fn tell(&self, troubles: &[(Trouble, bool)]) {
        for (trouble, new) in troubles {
            let new = if *new && self.aftermath.comparable() { " (new)" } else { "" };
            self.reporter.say(&format!("{} {}: {}{new}", seconds(trouble.at), trouble.process, trouble.headline()));
            if trouble.stuck {
                self.reporter.item(&stuck_advice(&trouble.process));
            }
        }
    }
}

/// `web 2 of 2 up, worker 0 of 1 up`
fn describe(aftermath: &Aftermath) -> String {
    let types = aftermath.up();
    let parts: Vec<String> =
        types.iter().map(|(kind, (up, all))| format!("{} {up} of {all} up", clean(kind))).collect();
    if parts.is_empty() { "no process is to run".to_owned() } else { parts.join(", ") }
}

/// The end, on one screen.
fn told(app: &str, aftermath: &Aftermath) -> Vec<String> {
    let verdict = aftermath.verdict();
    let (style, word) = match verdict {
        Verdict::Healthy => (GREEN, "healthy"),
        Verdict::NewErrors => (RED, "new errors"),
        Verdict::Crashing => (RED, "crashing"),
        Verdict::Stuck => (RED, "stuck"),
        Verdict::ReleaseFailed => (RED, "the release failed"),
        Verdict::Unknown => (YELLOW, "cannot tell"),
    };
    let Release { version, created_at, .. } = aftermath.release;
    let mut lines = vec![
        String::new(),
        format!("{BOLD}{} v{version}: {style}{word}{style:#}", clean(app)),
        format!("  release    {created_at}, {}", seen(aftermath)),
    ];
    if aftermath.looked_at.is_some() {
        lines.push(format!("  processes  {}", describe(aftermath)));
    }
    for dyno in aftermath.not_up() {
        lines.push(format!("             {} is {}", clean(&dyno.name), clean(&dyno.state)));
    }
    for dyno in aftermath.old() {
        lines.push(format!(
            "             {} is older than the release (it began {})",
            clean(&dyno.name),
            dyno.created_at
        ));
    }
    lines.push(format!("  before     {}", side(&aftermath.before, aftermath.past())));
    lines.push(format!("  after      {}", side(&aftermath.after, aftermath.since())));
    lines.extend(table(aftermath));
    for missed in &aftermath.missed {
        lines.push(format!("  {YELLOW}not seen{YELLOW:#}   {}", clean(missed)));
    }
    if let Some(newer) = aftermath.overtaken_by {
        lines.push(format!("  {YELLOW}release v{newer} came meanwhile: what was seen last is its doing{YELLOW:#}"));
    }
    lines.push(format!("  {BOLD}advice{BOLD:#}     {}", clean(&aftermath.advice().0)));
    lines
}

fn seen(aftermath: &Aftermath) -> String {
    let past = match aftermath.past() {
        None => "the log has no line from before it".to_owned(),
        Some(past) => format!("the log goes back {} before it", human(past.unsigned_abs())),
    };
    let since = aftermath
        .since()
        .map_or(String::new(), |since| format!(" and was followed {} after it", human(since.unsigned_abs())));
    format!("{past}{since}")
}

fn side(side: &Side, time: Option<SignedDuration>) -> String {
    let Some(time) = time else { return "not seen".to_owned() };
    let rate = per_minute(side.groups.total(), time);
    let errors = match side.groups.total() {
        1 => "1 error".to_owned(),
        errors => format!("{errors} errors"),
    };
    format!("{errors} ({rate:.1} a minute), {} of {} requests failed", side.failed_requests, side.requests)
}

fn table(aftermath: &Aftermath) -> Vec<String> {
    let table = aftermath.table();
    if table.is_empty() {
        return Vec::new();
    }
    let mut lines = vec![format!("\n  {DIM}{:>6} {:>6}  ERROR{DIM:#}", "BEFORE", "AFTER")];
    for (group, before) in table.iter().take(MAX_ROWS) {
        let mark = match aftermath.is_new(group) {
            Some(true) => format!("{RED}new{RED:#} "),
            Some(false) if aftermath.is_worse(group) => format!("{RED}more{RED:#} "),
            _ => String::new(),
        };
        let headline: String = group.example.headline().chars().take(120).collect();
        lines.push(format!("  {before:>6} {:>6}  {mark}{headline} {DIM}({}){DIM:#}", group.count, group.places()));
        if aftermath.is_new(group) == Some(true) {
            lines.extend(
                group
                    .example
                    .lines
                    .iter()
                    .take(MAX_BACKTRACE)
                    .map(|line| format!("                   {DIM}{line}{DIM:#}")),
            );
        }
        if group.example.stuck {
            lines.push(format!("                   {YELLOW}{}{YELLOW:#}", stuck_advice(&group.places())));
        }
    }
    if table.len() > MAX_ROWS {
        lines.push(format!("  {DIM}and {} more kinds: unstuck tail --errors{DIM:#}", table.len() - MAX_ROWS));
    }
    lines.push(String::new());
    lines
}

fn document(app: &str, aftermath: &Aftermath) -> Value {
    let (advice, rollback) = aftermath.advice();
    let side = |side: &Side, time: Option<SignedDuration>| {
        json!({
            "seconds": time.map(|time| time.as_secs()),
            "errors": side.groups.total(),
            "errors_per_minute": time.map(|time| per_minute(side.groups.total(), time)),
            "requests": side.requests,
            "failed_requests": side.failed_requests,
        })
    };
    let errors: Vec<Value> = aftermath
        .table()
        .into_iter()
        .map(|(group, before)| {
            let mut document = group.document();
            document["new"] = aftermath.is_new(group).into();
            document["worse"] = aftermath.is_worse(group).into();
            document["count_before"] = before.into();
            document
        })
        .collect();
    let dynos: Vec<Value> = aftermath
        .lasting()
        .map(|dyno| {
            json!({
                "name": dyno.name,
                "type": dyno.kind,
                "state": dyno.state,
                "booted_at": dyno.created_at.to_string(),
                "release": dyno.release,
                "new": aftermath.runs_it(dyno),
            })
        })
        .collect();
    json!({
        "app": app,
        "release": {
            "version": aftermath.release.version,
            "created_at": aftermath.release.created_at.to_string(),
            "overtaken_by": aftermath.overtaken_by,
        },
        "verdict": aftermath.verdict().name(),
        "rollback": rollback,
        "advice": advice,
        "dynos": dynos,
        "before": side(&aftermath.before, aftermath.past()),
        "after": side(&aftermath.after, aftermath.since()),
        "errors": errors,
        "log": {"breaks": aftermath.breaks, "missed": aftermath.missed, "complete": aftermath.missed.is_empty()},
    })
}

/// `400ms`, `45s`, `10m`, `2h 5m`.
fn human(time: Duration) -> String {
    match time.as_secs() {
        0 => format!("{}ms", time.as_millis()),
        seconds @ 1..60 => format!("{seconds}s"),
        seconds @ 60..3600 if seconds % 60 == 0 => format!("{}m", seconds / 60),
        seconds @ 60..3600 => format!("{}m {}s", seconds / 60, seconds % 60),
        seconds => format!("{}h {}m", seconds / 3600, seconds % 3600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::human;

    #[test]
    fn times_are_short() {
        for (ms, expected) in
            [(0, "0ms"), (400, "400ms"), (45_900, "45s"), (600_000, "10m"), (631_000, "10m 31s"), (7_500_000, "2h 5m")]
        {
            assert_eq!(human(Duration::from_millis(ms)), expected, "{ms}");
        }
    }
}
