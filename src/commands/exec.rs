//! The guard: runs a process of the app, and restarts it when the schema changes under it.

use std::io::{self, IsTerminal as _};
use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGKILL, SIGQUIT, SIGTERM};

use crate::adapters;
use crate::adapters::parent::{self, Parent};
use crate::args;
use crate::config::{AfterWait, Env, Exec, Settings};
use crate::debt::Phase;
use crate::error::{Error, Kind, Result};
use crate::guard::{Need, Seen, Watch};
use crate::migrations::{Files, Migrations};
use crate::observe;
use crate::ports::{Database as _, Look};
use crate::rails::{self, Resolved};
use crate::report::Reporter;

/// Between two looks at a migration that the start waits for.
const BOOT_PAUSE: Duration = Duration::from_secs(1);

/// No request is answered between the end of one process and the start of the next: a look may take this long there.
const BRIEF: Duration = Duration::from_secs(1);

/// A database that is away is asked for this seldom at last.
const LONGEST_PAUSE: Duration = Duration::from_mins(5);

/// Runs the command, and answers its exit code.
pub fn exec(settings: &Settings, args: &args::Exec, reporter: &Reporter) -> Result<u8> {
    let rules = settings.exec(args)?;
    let cannot = |error| Error::new(Kind::System, "cannot look after a process").because(error);
    let parent = Parent::new().map_err(cannot)?;
    let (tell, events) = channel();
    let hear = tell.clone();
    // Whoever does not listen any more is about to end.
    parent::listen(move |signal| drop(hear.send(Event::Signal(signal)))).map_err(cannot)?;
    let asks = match Looker::new(settings, reporter) {
        Ok(looker) => Some(looker.start(tell).map_err(cannot)?),
        Err(error) => {
            reporter
                .warn(&format!("nothing guards this process, since it is not known which databases it has: {error}"));
            None
        }
    };
    let guard = Guard {
        settings,
        args,
        rules,
        reporter,
        parent,
        events,
        asks,
        asked: false,
        watch: Watch::new(None),
        failures: 0,
        begun: Instant::now(),
        attended: io::stdin().is_terminal(),
    };
    guard.run()
}

enum Event {
    Signal(i32),
    Seen(Result<Seen>),
}

/// What became of the process.
enum Course {
    Ended(ExitStatus),
    /// It is older than the schema.
    Old,
}

/// What became of a look, while no process runs.
enum Answer {
    Seen(Result<Seen>),
    /// There was none in time.
    Late,
    /// We were told to end, by this signal.
    Told(i32),
}

struct Guard<'a> {
    settings: &'a Settings,
    args: &'a args::Exec,
    rules: Exec,
    reporter: &'a Reporter,
    parent: Parent,
    events: Receiver<Event>,
    /// Whoever gets an ask looks at the databases; at all that may be going on there, where it is true. `None`: nobody looks.
    asks: Option<Sender<bool>>,
    /// An answer is still to come.
    asked: bool,
    watch: Watch,
    /// How many looks have failed in a row.
    failures: u32,
    begun: Instant,
    /// A person sits before the command, and would lose what it is doing.
    attended: bool,
}

impl Guard<'_> {
    fn run(mut self) -> Result<u8> {
        let mut before = match self.wait()? {
            Ok(before) => before,
            Err(signal) => return Ok(signal_code(signal)),
        };
        // Not earlier: whoever connects is to be served soon.
        let held = self.args.listen.map(|address| {
            let cannot = |error| Error::new(Kind::System, format!("cannot listen on {address}")).because(error);
            parent::hold(address).map_err(cannot)
        });
        let held = held.transpose()?;
        loop {
            if let Err(error) = self.parent.start(&self.args.command, &self.settings.root, held.as_ref()) {
                return Ok(self.cannot_start(&error));
            }
            self.watch = Watch::new(before);
            if let Course::Ended(status) = self.look_after() {
                return Ok(exit_code(status));
            }
            if let Some(code) = self.end() {
                return Ok(code);
            }
            before = match self.ask_and_wait(Instant::now() + BRIEF) {
                Answer::Told(signal) => return Ok(signal_code(signal)),
                Answer::Seen(Ok(seen)) => Some(seen),
                // What was seen last is older than the new process too.
                Answer::Seen(Err(_)) | Answer::Late => self.watch.last().cloned(),
            };
        }
    }

    /// Waits until nothing is running or pending, within the bounds. Answers what was seen last; or the signal that told us to end.
    fn wait(&mut self) -> Result<Result<Option<Seen>, i32>> {
        let deadline = Instant::now() + self.rules.wait.value;
        let mut last: Option<Seen> = None;
        while self.asks.is_some() {
            match self.ask_and_wait(deadline) {
                Answer::Told(signal) => return Ok(Err(signal)),
                Answer::Seen(Ok(seen)) if !seen.unsettled() => return Ok(Ok(Some(seen))),
                Answer::Seen(Ok(seen)) => {
                    if last.is_none() {
                        let (reason, limit) = (seen.reason(), self.rules.wait.value);
                        self.reporter.note(&format!("{reason}; the start waits for it, {limit:?} at most"));
                    }
                    last = Some(seen);
                }
                Answer::Seen(Err(error)) => {
                    self.reporter.warn(&format!("starting without having looked at the schema: {error}"));
                    self.failures = 1;
                    return Ok(Ok(None));
                }
                Answer::Late => return self.waited(last),
            }
            if let Some(signal) = self.rest(deadline.min(Instant::now() + BOOT_PAUSE.min(self.rules.interval.value))) {
                return Ok(Err(signal));
            }
        }
        Ok(Ok(None))
    }

    /// The time to wait is over.
    fn waited(&self, last: Option<Seen>) -> Result<Result<Option<Seen>, i32>> {
        let limit = self.rules.wait.value;
        let Some(seen) = last else {
            self.reporter.warn(&format!("starting without having looked at the schema: no answer within {limit:?}"));
            return Ok(Ok(None));
        };
        let message = format!("after {limit:?}, {} still", seen.reason());
        if self.rules.after_wait.value == AfterWait::Exit {
            return Err(
                Error::new(Kind::Refused, message).hint("`unstuck migrate` runs it; --wait-timeout waits longer")
            );
        }
        self.reporter
            .warn(&format!("{message}: STARTING ON A SCHEMA THAT IS ABOUT TO CHANGE; it is restarted afterwards"));
        Ok(Ok(Some(seen)))
    }

    /// Looks after the running process until it ends, or is older than the schema.
    fn look_after(&mut self) -> Course {
        let (mut ending, mut reloading) = (false, false);
        let mut due = Some(Instant::now() + self.pause());
        loop {
            match self.next(due) {
                Some(Event::Signal(SIGCHLD)) => match self.parent.reap() {
                    Some(status) if reloading && !ending && status.signal() == self.reload_signal() => {
                        self.reporter
                            .warn("the reload signal ended the command instead of reloading it: starting it again");
                        return Course::Old;
                    }
                    Some(status) => return Course::Ended(status),
                    None => {}
                },
                Some(Event::Signal(signal)) => {
                    ending |= signal == SIGTERM;
                    self.parent.hand_on(signal);
                }
                Some(Event::Seen(answer)) => {
                    let need = self.judge(answer);
                    due = Some(Instant::now() + self.pause());
                    match self.reload_signal() {
                        _ if need != Need::Restart || ending => {}
                        _ if self.attended => {
                            self.reporter.warn("THE SCHEMA CHANGED: this process is older, end it and start it again");
                            self.watch = Watch::new(self.watch.last().cloned());
                        }
                        None => return Course::Old,
                        Some(signal) => {
                            self.reporter.note("the schema changed: the command is told to reload itself");
                            self.watch = Watch::new(self.watch.last().cloned());
                            self.parent.send(signal);
                            reloading = true;
                        }
                    }
                }
                None => {
                    self.ask(self.watch.suspects());
                    due = None;
                }
            }
        }
    }

    /// Ends the process and whatever it leaves behind. Answers the exit code, if meanwhile we were told to end too.
    fn end(&mut self) -> Option<u8> {
        self.reporter.note("the schema changed: the command is restarted");
        let (mut told, mut status) = (None, None);
        let mut kill_at = Instant::now() + self.rules.grace.value;
        let mut signal = SIGTERM;
        self.parent.send(signal);
        while self.parent.runs() || self.parent.end_strays(signal) {
            match self.next(Some(kill_at)) {
                Some(Event::Signal(SIGCHLD) | Event::Seen(_)) => {}
                // It has been told already.
                Some(Event::Signal(SIGTERM)) => {
                    told = Some(SIGTERM);
                    self.parent.swallow(SIGTERM);
                }
                Some(Event::Signal(other)) => {
                    told = told.or(Some(other).filter(|&other| ends(other)));
                    self.parent.hand_on(other);
                }
                None if signal == SIGKILL => {
                    // The kernel may need it for a while yet.
                    kill_at = Instant::now() + BRIEF;
                }
                None => {
                    let grace = self.rules.grace.value;
                    self.reporter.warn(&format!("the command did not end within {grace:?}: it is killed"));
                    signal = SIGKILL;
                    self.parent.send(signal);
                }
            }
            status = status.or(self.parent.reap());
        }
        told.map(|signal| status.map_or(signal_code(signal), exit_code))
    }

    /// Takes notice of a look, and says what it asks for.
    fn judge(&mut self, answer: Result<Seen>) -> Need {
        match answer {
            Ok(seen) => {
                if self.failures > 0 {
                    self.reporter.note("the schema can be looked at again");
                    self.failures = 0;
                }
                self.watch.judge(seen, self.begun.elapsed(), self.rules.wait.value)
            }
            Err(error) => {
                if self.failures == 0 {
                    self.reporter.warn(&format!("a change of the schema would not be seen for now: {error}"));
                }
                self.failures = self.failures.saturating_add(1);
                Need::Nothing
            }
        }
    }

    /// A look, while no process runs.
    fn ask_and_wait(&mut self, deadline: Instant) -> Answer {
        self.ask(true);
        loop {
            match self.next(Some(deadline)) {
                Some(Event::Seen(answer)) => return Answer::Seen(answer),
                Some(Event::Signal(signal)) if ends(signal) => return Answer::Told(signal),
                Some(Event::Signal(_)) => drop(self.parent.reap()),
                None => return Answer::Late,
            }
        }
    }

    /// Does nothing until then, but for a signal that tells us to end.
    fn rest(&mut self, until: Instant) -> Option<i32> {
        while let Some(event) = self.next(Some(until)) {
            match event {
                Event::Signal(signal) if ends(signal) => return Some(signal),
                Event::Signal(_) => drop(self.parent.reap()),
                Event::Seen(_) => {}
            }
        }
        None
    }

    fn ask(&mut self, thoroughly: bool) {
        if !self.asked {
            self.asked = self.asks.as_ref().is_some_and(|asks| asks.send(thoroughly).is_ok());
        }
    }

    /// What happens next; `None` if it does not happen by `deadline`.
    fn next(&mut self, deadline: Option<Instant>) -> Option<Event> {
        let event = match deadline {
            Some(deadline) => self.events.recv_timeout(deadline.saturating_duration_since(Instant::now())),
            None => self.events.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        self.asked &= !matches!(event, Ok(Event::Seen(_)));
        event.ok()
    }

    /// The interval, give or take a fifth, so that the dynos of an app do not move in step; longer where the database is away.
    fn pause(&self) -> Duration {
        let interval = self.rules.interval.value;
        let interval = interval.saturating_mul(1 << self.failures.min(10)).min(LONGEST_PAUSE.max(interval));
        let mut byte = [128];
        // Without random numbers they may move in step.
        let _ = getrandom::fill(&mut byte);
        interval.mul_f64(0.8 + 0.4 * f64::from(byte[0]) / 255.0)
    }

    fn reload_signal(&self) -> Option<i32> {
        self.rules.reload_signal.as_ref().map(|signal| signal.value)
    }

    fn cannot_start(&self, error: &io::Error) -> u8 {
        let name = self.args.command.first().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        let missing = error.kind() == io::ErrorKind::NotFound;
        let error = Error::new(Kind::System, format!("cannot start {name}: {error}"));
        self.reporter.error(&error, None);
        if missing { 127 } else { 126 }
    }
}

/// Whether a process without a handler of its own should end by it. Others ask for something that nobody is there to do.
fn ends(signal: i32) -> bool {
    matches!(signal, SIGTERM | SIGINT | SIGQUIT | SIGHUP)
}

fn signal_code(signal: i32) -> u8 {
    u8::try_from(128 + signal).unwrap_or(u8::MAX)
}

/// As a shell says it.
fn exit_code(status: ExitStatus) -> u8 {
    match status.code() {
        Some(code) => u8::try_from(code).unwrap_or(u8::MAX),
        None => signal_code(status.signal().unwrap_or(0)),
    }
}

/// Looks at the databases, in a thread of its own: a server may be silent for long. Each look has its own connection, since one
/// that is kept would be one less for the app.
struct Looker {
    databases: Vec<(rails::Database, Migrations)>,
    env: Env,
}

impl Looker {
    fn new(settings: &Settings, reporter: &Reporter) -> Result<Self> {
        let databases = match settings.databases()? {
            Resolved::Databases(databases) => databases,
            Resolved::Empty { from } => return Err(Error::new(Kind::Input, format!("{from} is set but empty"))),
        };
        let named = databases.iter().position(|database| database.name == "primary").unwrap_or(0);
        let files = |database: &rails::Database| {
            adapters::rails::migrations(&settings.root, &database.migrations_paths).or_else(|error| {
                reporter.warn(&format!("no migration is taken for pending: {error}"));
                Migrations::of(Files::default())
            })
        };
        let mut used = Vec::new();
        for (index, database) in databases.into_iter().enumerate() {
            let files = files(&database)?;
            // A further database without any migration may not even be there yet.
            if index == named || !files.is_empty() {
                used.push((database, files));
            }
        }
        Ok(Self { databases: used, env: settings.env.clone() })
    }

    fn start(self, tell: Sender<Event>) -> io::Result<Sender<bool>> {
        let (asks, asked) = channel();
        let look = move || asked.iter().all(|thoroughly| tell.send(Event::Seen(self.look(thoroughly))).is_ok());
        std::thread::Builder::new().name("looks".into()).spawn(look)?;
        Ok(asks)
    }

    fn look(&self, thoroughly: bool) -> Result<Seen> {
        let mut seen = Seen::default();
        for (database, files) in &self.databases {
            let mut ledger = adapters::open(database.clone(), self.env.clone());
            let failed = |error| observe::failure(database, "cannot look at", error);
            let look = ledger.look().map_err(failed)?;
            let busy = thoroughly || tells_of_migration(&look);
            let migrating = if busy { ledger.at_work().map_err(failed)? } else { Vec::new() };
            seen.add(&look, files, migrating);
        }
        Ok(seen)
    }
}

fn tells_of_migration(look: &Look) -> bool {
    let rows = look.records.apps().into_iter().flat_map(|app| look.records.of(app).rows);
    rows.into_iter().any(|row| row.note.ph == Phase::Migrating)
}
