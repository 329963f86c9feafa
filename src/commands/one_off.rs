//! `unstuck migrate` from a laptop: a one-off dyno of the app runs it there, and we show what it says and end as it ends.

use std::collections::BTreeMap;
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{from_app, listen, look, run_id, targets};
use crate::adapters::heroku::{Attached, Heroku, NotAttached, OneOff, Order, Read, hint_for_start};
use crate::adapters::signals::Interrupt;
use crate::args::{self, Common};
use crate::config::Settings;
use crate::debt::{Intent, Standing};
use crate::dynos::{App, Generation};
use crate::error::{Error, Kind, Result};
use crate::one_off::{self, Hearing, NOT_STARTED, NotMet};
use crate::plan::Run;
use crate::ports::{ApiError, ApiErrorKind, Platform as _};
use crate::report::{Outcome, Reporter};

/// The platform ends every one-off dyno after a day.
const LONGEST_RUN: Duration = Duration::from_hours(24);

/// A dyno that has not begun by then does not find us, or there is none to be had.
const LONGEST_START: Duration = Duration::from_mins(3);

/// How often a connection that cannot be opened is tried.
const DIALS: usize = 3;

/// How long a dyno is followed while the API gives no answer.
const LONGEST_SILENCE: Duration = Duration::from_mins(5);

/// The interval between two looks grows to this.
const POLL_MAX: Duration = Duration::from_secs(10);

/// How often the log is read for the last line of a dyno that is gone: it comes later than the end.
const LOG_LOOKS: usize = 10;

/// The last lines of the log that are read. What an attached dyno prints is not among them, only what the platform says.
const LOG_LINES: usize = 100;

/// Runs `unstuck migrate` in a one-off dyno, and gives its exit code.
pub fn migrate_in_dyno(settings: &Settings, common: &Common, args: &args::Migrate, reporter: &Reporter) -> Result<u8> {
    let interrupt = listen()?;
    let heroku = super::heroku(settings, reporter)?;
    let app = heroku.app().map_err(|error| refused("the app cannot be looked at", error))?;
    let words = words(common, args, &app.name, reporter.colourful());
    let mark = format!("unstuck-{}{}", run_id()?, run_id()?);
    let order = Order {
        command: one_off::command(&words, app.generation == Generation::Fir, reporter.json, &mark)?,
        env: if args.dry_run { BTreeMap::new() } else { own_key(&heroku, settings, reporter)? },
        size: args.place.size.clone(),
        time_to_live: LONGEST_RUN,
    };
    let dyno = start(&heroku, &order, &mark)?;
    reporter.say(&format!("{} on {}: {}", dyno.name, app.name, words.join(" ")));
    let mut watch = Watch {
        settings,
        heroku: &heroku,
        dyno: &dyno,
        reporter,
        interrupt,
        told: false,
        hearing: Hearing::new(&mark),
    };
    let broken = match watch.attach() {
        Ok(line) => watch.until_it_ends(line),
        Err(error) => return Err(watch.give_up(Kind::Refused, &error.message, error.hint)),
    };
    match (watch.hearing.status, broken) {
        (Some(status), _) => watch.told(status),
        (None, Some(why)) if !watch.hearing.met => {
            let error = watch.give_up(Kind::Api, &why, None);
            let Some(signal) = watch.interrupt.signal() else { return Err(error) };
            reporter.error(&error, Some(Outcome::Interrupted.name()));
            Ok(watch.exit_code(128 + signal))
        }
        (None, why) => Ok(match watch.follow(&why.unwrap_or_default()) {
            Some(status) => watch.logged(status),
            None => watch.unseen(&app, args),
        }),
    }
}

/// What is run in the dyno: this command line without what is only true of this machine.
fn words(common: &Common, args: &args::Migrate, app: &str, colourful: bool) -> Vec<String> {
    let mut words: Vec<String> = vec!["unstuck".into(), "migrate".into(), "--app".into(), app.into()];
    let color = if colourful { "always" } else { "never" };
    let (timeouts, how) = (&common.timeouts, &args.how);
    let config = common.config.as_ref().map(|file| file.display().to_string());
    for (name, value) in [
        ("--color", Some(color)),
        ("--config", config.as_deref()),
        ("--schema-migrations-table", common.schema_migrations_table.as_deref()),
        ("--policy", how.policy.as_deref()),
        ("--types", how.types.as_deref()),
        ("--strategy", how.pace.strategy.as_deref()),
        ("--max-unavailable", how.pace.max_unavailable.as_deref()),
        ("--lock-timeout", timeouts.lock.as_deref()),
        ("--prove-timeout", timeouts.prove.as_deref()),
        ("--health-timeout", timeouts.health.as_deref()),
        ("--api-timeout", timeouts.api.as_deref()),
        ("--poll-timeout", timeouts.poll.as_deref()),
        ("--migrate-timeout", timeouts.migrate.as_deref()),
        ("--ddl-lock-timeout", timeouts.ddl_lock.as_deref()),
    ] {
        words.extend(value.map(|value| format!("{name}={value}")));
    }
    for (name, given) in [
        ("--json", common.json),
        ("--quiet", common.quiet),
        ("--dry-run", args.dry_run),
        ("--exit-code", args.exit_code),
        ("--require-healthy", args.require_healthy),
    ] {
        words.extend(given.then(|| name.to_owned()));
    }
    words.extend((0..common.verbose).map(|_| "--verbose".to_owned()));
    if !args.command.is_empty() {
        words.push("--".to_owned());
        words.extend(args.command.iter().cloned());
    }
    words
}

/// Our own key, for a dyno whose app has none: without one it would refuse to migrate. It goes into the environment of this
/// dyno alone, which the API shows to nobody; never into the command line, which it shows to every collaborator.
fn own_key(
    heroku: &Heroku,
    settings: &Settings,
    reporter: &Reporter,
) -> Result<BTreeMap<String, crate::secret::Secret>> {
    const KEY: &str = "HEROKU_API_KEY";
    match heroku.config_vars() {
        Ok(vars) if vars.get(KEY).is_some_and(|key| !key.expose().is_empty()) => Ok(BTreeMap::new()),
        Ok(_) => {
            let Some((token, from)) = settings.token()? else { return Ok(BTreeMap::new()) };
            reporter.warn(&format!(
                "the app has no {KEY}, so this one dyno is given yours ({from}) in its environment, where the app's code can \
                 read it; `heroku config:set {KEY}=...` with a token of its own ends that"
            ));
            Ok(BTreeMap::from([(KEY.to_owned(), token)]))
        }
        // Not known, so not given away. The dyno says itself what it lacks, before anything runs.
        Err(error) => {
            reporter.detail(&format!("whether the app has a {KEY} of its own cannot be seen: {error}"));
            Ok(BTreeMap::new())
        }
    }
}

fn start(heroku: &Heroku, order: &Order, mark: &str) -> Result<OneOff> {
    let error = match heroku.start_one_off(order) {
        Ok(dyno) => return Ok(dyno),
        Err(error) => error,
    };
    let hint = hint_for_start(&error);
    let mut failure = refused("no one-off dyno could be started, so nothing ran", error.clone());
    if error.kind == ApiErrorKind::Unknown {
        // It may have been started all the same. Nobody can attach to it any more, so it ends without having run.
        for name in heroku.dynos_that_run(mark).unwrap_or_default() {
            let _ = heroku.stop_dyno(&name);
        }
        failure = Error::new(
            Kind::Api,
            "whether a one-off dyno was started is not known; none was attached to, so none runs",
        )
        .because(error);
    }
    failure.hint = hint;
    Err(failure)
}

fn refused(what: &str, error: ApiError) -> Error {
    let hint = error.hint.clone();
    let mut refused = Error::new(Kind::Refused, what).because(error);
    refused.hint = hint;
    refused
}

/// One dyno, watched from its start to its end.
struct Watch<'a> {
    settings: &'a Settings,
    heroku: &'a Heroku,
    dyno: &'a OneOff,
    reporter: &'a Reporter,
    interrupt: Interrupt,
    /// The dyno knows that it has to end.
    told: bool,
    hearing: Hearing,
}

impl Watch<'_> {
    fn attach(&self) -> Result<Attached, NotAttached> {
        let mut dials = 1;
        loop {
            match self.heroku.attach(self.dyno) {
                Err(error) if error.passing && dials < DIALS => {
                    dials += 1;
                    self.pause(self.settings.timeouts.poll.value);
                }
                attached => return attached,
            }
        }
    }

    /// Shows what the dyno says until it has said its status. Else the answer is why no more is heard.
    fn until_it_ends(&mut self, mut line: Attached) -> Option<String> {
        let begun = Instant::now();
        let mut buffer = [0; 16 * 1024];
        while self.hearing.status.is_none() {
            match (self.interrupt.signal(), self.hearing.met) {
                (Some(_), true) if !self.told => {
                    self.told = true;
                    line.interrupt();
                    self.reporter.warn(&format!(
                        "passed on as Ctrl-C: {} ends the migration and restarts what it has to (once more: stop watching)",
                        self.dyno.name
                    ));
                }
                (Some(_), false) => return Some("interrupted before it began".to_owned()),
                (None, false) if begun.elapsed() > LONGEST_START => {
                    return Some(format!("it did not begin within {LONGEST_START:?}"));
                }
                _ => {}
            }
            match line.read(&mut buffer) {
                Read::Nothing => {}
                Read::Bytes(length) => match self.hearing.hear(&buffer[..length]) {
                    Ok(shown) => self.reporter.pass_on(&shown),
                    Err(NotMet) => return Some("what answers there is no rendezvous".to_owned()),
                },
                Read::Over(why) => {
                    let rest = self.hearing.rest();
                    self.reporter.pass_on(&rest);
                    return Some(why);
                }
            }
        }
        None
    }

    /// Stops a dyno that was not attached to, as far as we can tell. Without its client it does not begin.
    fn give_up(&self, kind: Kind, why: &str, hint: Option<&'static str>) -> Error {
        let stopped = match self.heroku.stop_dyno(&self.dyno.name) {
            Ok(()) => "it is stopped".to_owned(),
            Err(error) => format!("it cannot be stopped ({error}), and ends by itself"),
        };
        let message = format!("{} could not be attached to, so it does not begin: {why}; {stopped}", self.dyno.name);
        let mut error = Error::new(kind, message);
        error.hint = hint.map(str::to_owned);
        error
    }

    /// The dyno's own word for how it ended.
    fn told(&self, status: i32) -> Result<u8> {
        if NOT_STARTED.contains(&status) {
            return Err(Error::new(
                Kind::Refused,
                format!("{} has no unstuck to run (exit status {status})", self.dyno.name),
            )
            .hint("put it into the app's repository as bin/unstuck: see Installation in the README"));
        }
        if self.reporter.json {
            let document = self.hearing.document().and_then(|text| serde_json::from_slice::<Value>(text).ok());
            match document {
                Some(document) => self.reporter.document(&document),
                None => self.no_document(status),
            }
        }
        Ok(self.exit_code(status))
    }

    /// We were told to end by one signal; the dyno knows it as Ctrl-C.
    fn exit_code(&self, status: i32) -> u8 {
        let ours = self.interrupt.signal().filter(|_| status == 128 + libc::SIGINT).map(|signal| 128 + signal);
        u8::try_from(ours.unwrap_or(status)).unwrap_or(u8::MAX)
    }

    fn no_document(&self, status: i32) {
        let message = format!("the run in {} ended with exit code {status}, and its report was lost", self.dyno.name);
        self.reporter.error(&Error::new(Kind::Api, message).hint("`unstuck status` says what is true now"), None);
    }

    /// Follows a dyno whose connection is lost, to its end: by its state, then by the platform's word in its log.
    fn follow(&mut self, why: &str) -> Option<i32> {
        let Self { dyno, reporter, .. } = *self;
        reporter.warn(&format!(
            "the connection to {} is lost ({why}). Its run goes on, and is followed by its state; what it prints is not seen",
            dyno.name
        ));
        let mut poll = self.settings.timeouts.poll.value;
        let mut answered = Instant::now();
        loop {
            if self.interrupt.signal().is_some() && !self.told {
                self.told = true;
                match self.heroku.stop_dyno(&dyno.name) {
                    Ok(()) => reporter.warn(&format!("{} is told to end (SIGTERM; SIGKILL 30 s later)", dyno.name)),
                    Err(error) => reporter.warn(&format!("{} cannot be told to end: {error}", dyno.name)),
                }
            }
            match self.heroku.dynos() {
                Ok(list) if list.dynos.iter().all(|other| other.id != dyno.id) => break,
                Ok(_) => answered = Instant::now(),
                Err(error) if answered.elapsed() > LONGEST_SILENCE => {
                    reporter.warn(&format!("{} cannot be followed any longer: {error}", dyno.name));
                    return None;
                }
                Err(error) => reporter.detail(&error.to_string()),
            }
            self.pause(poll);
            poll = (poll * 2).min(POLL_MAX);
        }
        for look in 0..LOG_LOOKS {
            if look > 0 {
                sleep(self.settings.timeouts.poll.value);
            }
            match self.heroku.log_lines(&dyno.name, LOG_LINES) {
                Ok(lines) => {
                    let status = one_off::logged_status(&lines, &dyno.name, dyno.created_at);
                    if status.is_some() {
                        return status;
                    }
                }
                Err(error) => reporter.detail(&error.to_string()),
            }
        }
        None
    }

    /// The platform's word for how it ended: true, but without what it said.
    fn logged(&self, status: i32) -> u8 {
        let name = &self.dyno.name;
        if self.reporter.json {
            self.no_document(status);
        } else if status == 0 {
            self.reporter.say(&format!("{name} ended with exit code 0, as the platform's log says"));
        } else {
            self.reporter.warn(&format!(
                "{name} ended with exit code {status}, as the platform's log says; `unstuck migrate` again tells what is left \
                 to do, and does it"
            ));
        }
        self.exit_code(status)
    }

    /// Nobody has seen how it ended: says so, and what is true now where the database may be asked.
    fn unseen(&self, app: &App, args: &args::Migrate) -> u8 {
        let error = Error::new(Kind::Api, format!("how the run in {} ended was not seen", self.dyno.name)).hint(
            "`unstuck migrate` again finds out what is left to do, and does it; with --database-from-app the database is \
             asked from here",
        );
        self.reporter.error(&error, None);
        let owed = args.place.database_from_app && self.is_owed(app);
        if owed { 4 } else { error.kind.exit_code() }
    }

    fn is_owed(&self, app: &App) -> bool {
        let facts = from_app::with_databases_of(self.heroku, self.settings).and_then(|settings| {
            let mut targets = targets(&settings, self.reporter)?.unwrap_or_default();
            look(&mut targets)
        });
        let facts = match facts {
            Ok(facts) => facts,
            Err(error) => {
                self.reporter.warn(&format!("the database cannot be asked either: {error}"));
                return false;
            }
        };
        let run =
            Run::new(Intent::Migrate, String::new(), self.settings.types.value.clone(), facts, Some(app.id.clone()));
        let owed = run.standing() == Standing::Owed;
        let pending = run.facts.iter().map(|facts| facts.pending.len()).sum::<usize>();
        let restart = if owed { "A RESTART IS STILL OWED" } else { "no restart is owed" };
        self.reporter.warn(&format!("the database says: {pending} pending, {restart}"));
        owed
    }

    /// Waits, but not when we are told to end and the dyno does not know it yet.
    fn pause(&self, time: Duration) {
        let until = Instant::now() + time;
        while Instant::now() < until && (self.told || self.interrupt.signal().is_none()) {
            sleep(Duration::from_millis(50).min(time));
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::words;
    use crate::args::{Args, Command};

    #[test]
    fn what_was_typed_is_handed_on_but_for_what_is_true_here_alone() {
        for (typed, expected) in [
            ("unstuck migrate -r production", "unstuck migrate --app my-app --color=never"),
            (
                "unstuck -C blog -qvv migrate --in-dyno --size basic --policy api --types web,worker --prove-timeout 1m --json",
                "unstuck migrate --app my-app --color=never --policy=api --types=web,worker --prove-timeout=1m --json --quiet \
                 --verbose --verbose",
            ),
            (
                "unstuck migrate -a x --dry-run --exit-code --require-healthy --config c.yml -- bin/rails db:migrate --json",
                "unstuck migrate --app my-app --color=never --config=c.yml --dry-run --exit-code --require-healthy -- bin/rails \
                 db:migrate --json",
            ),
        ] {
            let args = Args::try_parse_from(typed.split(' ')).unwrap();
            let Command::Migrate(migrate) = &args.command else { panic!("{typed}") };
            assert_eq!(words(&args.common, migrate, "my-app", false).join(" "), expected, "{typed}");
        }
    }
}
