//! What matters of the log: failed responses, the platform's error codes, exceptions with their backtraces, crashes, and what the
//! log lost of itself. What belongs to a planned restart is left out.

mod exceptions;
mod groups;

use std::collections::HashMap;

use jiff::Timestamp;
use serde_json::{Value, json};

pub use self::exceptions::stuck;
pub use self::groups::{Group, Groups};

use self::exceptions::Exceptions;
use crate::logs::{self, Line};

/// What kind of trouble it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// A process ended that nobody had asked to end.
    Crash,
    /// An exception of the app.
    Exception,
    /// The router answered for the app (H codes), or passed on a 5xx.
    Response,
    /// The platform complains of a process: R codes.
    Platform,
    /// Lines were dropped: L codes.
    LogLoss,
}

impl Class {
    pub fn name(self) -> &'static str {
        match self {
            Self::Crash => "crash",
            Self::Exception => "exception",
            Self::Response => "response",
            Self::Platform => "platform",
            Self::LogLoss => "log_loss",
        }
    }
}

/// One thing that went wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    pub at: Timestamp,
    /// The dyno that it happened in, or `router`, `logplex`, ...
    pub process: String,
    pub class: Class,
    /// `H12`, `500`, `R14`, an exception's class, `exit 1`.
    pub name: String,
    pub message: String,
    /// The request's id, where the line was tagged with one.
    pub request: Option<String>,
    /// The backtrace.
    pub lines: Vec<String>,
    /// Whether this is typical of a process that is older than the schema.
    pub stuck: bool,
}

impl Trouble {
    fn of(line: &Line, class: Class, name: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            at: line.at,
            process: line.process.to_owned(),
            class,
            name: name.into(),
            message: message.into(),
            request: None,
            lines: Vec::new(),
            stuck: false,
        }
    }

    /// What all occurrences have in common: numbers and ids are left out.
    pub fn fingerprint(&self) -> String {
        format!("{} {} {}", self.class.name(), self.name, without_numbers(&self.message))
    }

    /// What the process is to be looked at for, in one line.
    pub fn headline(&self) -> String {
        let message = if self.message.is_empty() { String::new() } else { format!(": {}", self.message) };
        format!("{}{message}", self.name)
    }

    pub fn document(&self) -> Value {
        json!({
            "at": self.at.to_string(),
            "process": self.process,
            "class": self.class.name(),
            "name": self.name,
            "message": self.message,
            "request_id": self.request,
            "lines": self.lines,
            "fingerprint": self.fingerprint(),
            "stuck": self.stuck,
        })
    }
}

/// The text with each number, address and long hexadecimal id as `#`.
fn without_numbers(text: &str) -> String {
    let id = |word: &str| {
        let digits = word.bytes().filter(u8::is_ascii_digit).count();
        let hex = word.bytes().all(|byte| byte.is_ascii_hexdigit());
        digits > 0 && (digits == word.len() || word.starts_with("0x") || (hex && word.len() >= 8))
    };
    let mut short = String::with_capacity(text.len());
    for piece in text.split_inclusive(|c: char| !c.is_alphanumeric() && c != '_') {
        let word = piece.trim_end_matches(|c: char| !c.is_alphanumeric() && c != '_');
        short.push_str(if id(word) { "#" } else { word });
        short.push_str(&piece[word.len()..]);
    }
    short
}

/// Dynos that are remembered at once. Names of one-off dynos never end.
const MAX_DYNOS: usize = 10_000;

/// Reads lines one by one and finds the troubles in them.
#[derive(Default)]
pub struct Finder {
    exceptions: Exceptions,
    dynos: HashMap<String, Life>,
}

/// One life of a dyno, from `Starting process` to its end.
#[derive(Debug, Default)]
struct Life {
    /// The platform was asked to end it, so its exit is no news.
    stopping: bool,
    exit: Option<String>,
    /// Its crash was told.
    told: bool,
}

impl Finder {
    /// The troubles that this line completes, oldest first. The line is to be printable.
    pub fn hear(&mut self, text: &str) -> Vec<Trouble> {
        let Some(line) = logs::parse(text) else { return Vec::new() };
        let mut found = self.exceptions.before(line.at);
        match (line.source, line.process) {
            ("heroku", "router") => found.extend(response(&line)),
            ("heroku", _) => found.extend(self.platform(&line)),
            _ => found.extend(self.exceptions.hear(&line)),
        }
        found
    }

    /// The exceptions that may still be waiting for the rest of their backtraces.
    pub fn flush(&mut self) -> Vec<Trouble> {
        self.exceptions.flush()
    }

    fn platform(&mut self, line: &Line) -> Option<Trouble> {
        let message = line.message;
        if let Some((code, text)) = error_code(message) {
            let class = if code.starts_with('L') { Class::LogLoss } else { Class::Platform };
            return Some(Trouble::of(line, class, code, text));
        }
        if self.dynos.len() >= MAX_DYNOS {
            self.dynos.clear();
        }
        let dyno = self.dynos.entry(line.process.to_owned()).or_default();
        if message.starts_with("Starting process with command") {
            *dyno = Life::default();
        } else if message.starts_with("Stopping ") || matches!(message, "Restarting" | "Cycling" | "Idling") {
            dyno.stopping = true;
        } else if let Some(states) = message.strip_prefix("State changed from ") {
            match states.split_once(" to ") {
                Some((_, "crashed")) if !dyno.told => {
                    dyno.told = true;
                    return Some(crash(line, dyno.exit.as_deref()));
                }
                Some(("up", "starting" | "down")) => dyno.stopping = true,
                _ => {}
            }
        } else if let Some(status) = message.strip_prefix("Process exited with status ") {
            dyno.exit = Some(status.to_owned());
            // Of those that end by themselves with 0, the platform says whether it is a crash.
            if !dyno.stopping && !dyno.told && !matches!(status, "0" | "143") {
                dyno.told = true;
                return Some(crash(line, Some(status)));
            }
        }
        None
    }
}

fn crash(line: &Line, status: Option<&str>) -> Trouble {
    let name = status.map_or_else(|| "crashed".to_owned(), |status| format!("exit {status}"));
    let message = match (line.kind(), status) {
        ("release" | "run" | "scheduler", _) => format!("the {} process failed", line.kind()),
        (kind, Some(status)) => format!("a {kind} process ended by itself with status {status}"),
        (kind, None) => format!("a {kind} process crashed"),
    };
    Trouble::of(line, Class::Crash, name, message)
}

/// `Error R14 (Memory quota exceeded)`: the code, and what follows it.
fn error_code(message: &str) -> Option<(&str, &str)> {
    let rest = message.strip_prefix("Error ")?;
    let (code, text) = rest.split_once(' ').unwrap_or((rest, ""));
    let known =
        code.len() > 1 && code.starts_with(['R', 'L', 'H']) && code[1..].bytes().all(|byte| byte.is_ascii_digit());
    known.then_some((code, text))
}

/// Codes for what the browser did, or what was planned.
const NO_TROUBLE: [&str; 3] = ["H27", "H28", "H80"];

/// Codes of the whole app, whatever was asked for.
const OF_THE_APP: [&str; 8] = ["H10", "H14", "H20", "H21", "H81", "H82", "H83", "H99"];

fn response(line: &Line) -> Option<Trouble> {
    let code = line.field("code").filter(|code| !code.is_empty());
    let status = line.field("status").unwrap_or_default();
    if code.is_some_and(|code| NO_TROUBLE.contains(&code)) {
        return None;
    }
    let failed = line.field("at") == Some("error") || (status.len() == 3 && status.starts_with('5'));
    let name = code.unwrap_or(if status.is_empty() { "error" } else { status });
    let path = line.field("path").unwrap_or_default();
    // What follows may be a secret, and is never the same twice.
    let path = path.split(['?', '#']).next().unwrap_or_default();
    let asked = format!("{} {path}", line.field("method").unwrap_or_default());
    let message = match line.field("desc") {
        Some(desc) if OF_THE_APP.contains(&name) => desc.to_owned(),
        Some(desc) => format!("{desc}: {asked}"),
        None => asked,
    };
    let mut trouble = Trouble::of(line, Class::Response, name, message);
    if let Some(dyno) = line.field("dyno").filter(|dyno| !dyno.is_empty()) {
        dyno.clone_into(&mut trouble.process);
    }
    trouble.request = line.field("request_id").map(str::to_owned);
    failed.then_some(trouble)
}

#[cfg(test)]
mod tests {
    use super::{Finder, without_numbers};

    /// What is found in these lines, one second apart, as `process class name: message`.
    fn found(lines: &[&str]) -> Vec<String> {
        let mut finder = Finder::default();
        let line = |(second, line): (usize, &&str)| format!("2026-11-23T04:00:{second:02}.000000+00:00 {line}");
        let mut found: Vec<_> = lines.iter().enumerate().map(line).flat_map(|line| finder.hear(&line)).collect();
        found.extend(finder.flush());
        let told = |trouble: &super::Trouble| {
            format!("{} {} {}: {}", trouble.process, trouble.class.name(), trouble.name, trouble.message)
        };
        found.iter().map(told).collect()
    }

    const ROUTER: &str = "method=GET path=\"/posts/7?token=x\" host=a.example request_id=5c1a fwd=\"1.2.3.4\" dyno=web.1 \
                          connect=0ms service=8ms";

    #[test]
    fn a_failed_response_matters() {
        for (head, tail, expected) in [
            ("at=info", "status=200 bytes=1 protocol=https", None),
            ("at=info", "status=404 bytes=1 protocol=https", None),
            ("at=info", "status=500 bytes=1 protocol=https", Some("web.1 response 500: GET /posts/7")),
            (
                "at=error code=H12 desc=\"Request timeout\"",
                "status=503 bytes=0 protocol=https",
                Some("web.1 response H12: Request timeout: GET /posts/7"),
            ),
            (
                "at=error code=H10 desc=\"App crashed\"",
                "status=503 bytes= protocol=https",
                Some("web.1 response H10: App crashed"),
            ),
            ("at=error code=H27 desc=\"Client Request Interrupted\"", "status=499 bytes=0 protocol=https", None),
            ("at=info code=H80 desc=\"Maintenance mode\"", "status=503 bytes= protocol=https", None),
            ("sock=client at=warning code=H28 desc=\"Client Connection Idle\"", "status=499 bytes=0", None),
        ] {
            let line = format!("heroku[router]: {head} {ROUTER} {tail}");
            assert_eq!(found(&[&line]), expected.into_iter().collect::<Vec<_>>(), "{line}");
        }
        let no_dyno = "heroku[router]: at=error code=H14 desc=\"No web processes running\" method=GET path=\"/\" dyno= status=503";
        assert_eq!(found(&[no_dyno]), ["router response H14: No web processes running"]);
    }

    #[test]
    fn a_planned_end_is_no_crash_and_any_other_is() {
        let crash = "web.1 crash exit 1: a web process ended by itself with status 1";
        for (lines, expected) in [
            // A restart, a cycling, a scaling down.
            (
                vec![
                    "heroku[web.1]: Restarting",
                    "heroku[web.1]: State changed from up to starting",
                    "heroku[web.1]: Stopping all processes with SIGTERM",
                    "app[web.1]: - Gracefully stopping, waiting for requests to finish",
                    "heroku[web.1]: Process exited with status 1",
                    "heroku[web.1]: Starting process with command `bundle exec puma`",
                    "heroku[web.1]: State changed from starting to up",
                ],
                vec![],
            ),
            (vec!["heroku[web.1]: Cycling", "heroku[web.1]: Process exited with status 0"], vec![]),
            (vec!["heroku[worker.1]: Process exited with status 143"], vec![]),
            (
                vec![
                    "heroku[run.1234]: Process exited with status 0",
                    "heroku[run.1234]: State changed from up to complete",
                ],
                vec![],
            ),
            // A crash is told once, with its status, in either order.
            (
                vec!["heroku[web.1]: Process exited with status 1", "heroku[web.1]: State changed from up to crashed"],
                vec![crash],
            ),
            (
                vec!["heroku[web.1]: State changed from up to crashed", "heroku[web.1]: Process exited with status 1"],
                vec!["web.1 crash crashed: a web process crashed"],
            ),
            (
                vec!["heroku[web.1]: Process exited with status 0", "heroku[web.1]: State changed from up to crashed"],
                vec!["web.1 crash exit 0: a web process ended by itself with status 0"],
            ),
            // A new life may crash again.
            (
                vec![
                    "heroku[web.1]: Process exited with status 1",
                    "heroku[web.1]: Starting process with command `puma`",
                    "heroku[web.1]: Process exited with status 1",
                ],
                vec![crash, crash],
            ),
            // After a planned start nothing is planned any more.
            (
                vec![
                    "heroku[web.1]: Stopping all processes with SIGTERM",
                    "heroku[web.1]: Starting process with command `puma`",
                    "heroku[web.1]: Process exited with status 1",
                ],
                vec![crash],
            ),
            (
                vec!["heroku[release.7]: Process exited with status 1"],
                vec!["release.7 crash exit 1: the release process failed"],
            ),
            (
                vec![
                    "heroku[web.1]: Error R10 (Boot timeout) -> Web process failed to bind to $PORT within 60 seconds of launch",
                    "heroku[web.1]: Stopping process with SIGKILL",
                    "heroku[web.1]: Process exited with status 137",
                    "heroku[web.1]: State changed from starting to crashed",
                ],
                vec![
                    "web.1 platform R10: (Boot timeout) -> Web process failed to bind to $PORT within 60 seconds of launch",
                    "web.1 crash exit 137: a web process ended by itself with status 137",
                ],
            ),
            (
                vec![
                    "heroku[worker.1]: Stopping all processes with SIGTERM",
                    "heroku[worker.1]: Error R12 (Exit timeout) -> At least one process failed to exit within 30 seconds of SIGTERM",
                    "heroku[worker.1]: Stopping remaining processes with SIGKILL",
                    "heroku[worker.1]: Process exited with status 137",
                ],
                vec![
                    "worker.1 platform R12: (Exit timeout) -> At least one process failed to exit within 30 seconds of SIGTERM",
                ],
            ),
        ] {
            assert_eq!(found(&lines), expected, "{lines:?}");
        }
    }

    #[test]
    fn what_the_log_lost_matters() {
        let line =
            "heroku[logplex]: Error L11 (Tail buffer overflow) -> This tail session dropped 1101 messages since now";
        assert_eq!(
            found(&[line]),
            ["logplex log_loss L11: (Tail buffer overflow) -> This tail session dropped 1101 messages since now"]
        );
        assert_eq!(found(&["heroku[web.1]: Error of no code"]), [""; 0]);
    }

    #[test]
    fn numbers_do_not_tell_errors_apart() {
        for (text, expected) in [
            ("GET /posts/17/comments", "GET /posts/#/comments"),
            ("#<Post:0x000078a1b2c3d4e8>", "#<Post:#>"),
            ("id 01234567-89ab-cdef-0123-456789abcdef", "id #-89ab-cdef-#-#"),
            ("undefined method 'title2' for deadbeef", "undefined method 'title2' for deadbeef"),
            ("ümlaut 1ü", "ümlaut 1ü"),
            ("", ""),
        ] {
            assert_eq!(without_numbers(text), expected, "{text}");
        }
    }
}
