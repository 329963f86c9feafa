//! The app's log: lines in the platform's form, kept for a while, numbered so that a stream can go on where it broke off.

use std::collections::VecDeque;

use jiff::{Timestamp, tz::TimeZone};
use serde::Deserialize;

/// How many lines of history the platform keeps.
const KEPT: usize = 1500;
/// Longer lines are split.
const LINE_BYTES: usize = 10_000;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    pub id: u64,
    pub at: Timestamp,
    /// `app` or `heroku`.
    pub source: String,
    /// `web.1`, `router`, `api`, ...
    pub process: String,
    pub text: String,
}

impl Line {
    /// `2024-10-31T23:31:17.123456+00:00 heroku[web.1]: State changed from starting to up`
    pub fn render(&self) -> String {
        let at = self.at.to_zoned(TimeZone::UTC).strftime("%Y-%m-%dT%H:%M:%S%.6f+00:00");
        format!("{at} {}[{}]: {}", self.source, self.process, self.text)
    }
}

/// What a log session shows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Session {
    /// A dyno's name or a process type; the two variants of the schema name it differently.
    #[serde(alias = "dyno_name")]
    pub dyno: Option<String>,
    /// A process type (Fir).
    #[serde(rename = "type")]
    pub kind: Option<String>,
    pub source: Option<String>,
    pub lines: Option<usize>,
    pub tail: bool,
}

impl Session {
    fn shows(&self, line: &Line) -> bool {
        let of = |wanted: &Option<String>| {
            wanted.as_ref().is_none_or(|wanted| {
                line.process == *wanted
                    || line.process.strip_prefix(wanted).is_some_and(|rest| rest.starts_with(['.', '-']))
            })
        };
        of(&self.dyno) && of(&self.kind) && self.source.as_ref().is_none_or(|source| line.source == *source)
    }
}

#[derive(Default)]
pub struct Logs {
    lines: VecDeque<Line>,
    made: u64,
    /// Whether neighbouring lines are handed out in the wrong order, as the platform may do.
    pub disorder: bool,
    /// How often all open streams were cut.
    pub cuts: u64,
}

impl Logs {
    pub fn push(&mut self, source: &str, process: &str, text: &str, at: Timestamp) {
        for part in split(text) {
            self.made += 1;
            self.lines.push_back(Line {
                id: self.made,
                at,
                source: source.to_owned(),
                process: process.to_owned(),
                text: part.to_owned(),
            });
        }
        while self.lines.len() > KEPT {
            self.lines.pop_front();
        }
    }

    /// What a new session sees of the past: its last lines (100 unless it says).
    pub fn history(&self, session: &Session) -> Vec<Line> {
        let shown: Vec<Line> = self.lines.iter().filter(|line| session.shows(line)).cloned().collect();
        let skipped = shown.len().saturating_sub(session.lines.unwrap_or(100));
        self.ordered(shown[skipped..].to_vec())
    }

    /// What a session sees after the line with this number.
    pub fn after(&self, session: &Session, id: u64) -> Vec<Line> {
        self.ordered(self.lines.iter().filter(|line| line.id > id && session.shows(line)).cloned().collect())
    }

    /// The number of the newest line.
    pub fn last(&self) -> u64 {
        self.made
    }

    fn ordered(&self, mut lines: Vec<Line>) -> Vec<Line> {
        if self.disorder {
            lines.chunks_exact_mut(2).for_each(<[Line]>::reverse);
        }
        lines
    }
}

/// Pieces of at most [`LINE_BYTES`] bytes, cut between characters; one empty piece for an empty line.
fn split(text: &str) -> Vec<&str> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while rest.len() > LINE_BYTES {
        let (piece, after) = rest.split_at(rest.floor_char_boundary(LINE_BYTES));
        pieces.push(piece);
        rest = after;
    }
    pieces.push(rest);
    pieces
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::{Logs, Session, split};

    fn texts(logs: &Logs, session: &Session) -> Vec<String> {
        logs.history(session).into_iter().map(|line| line.text).collect()
    }

    #[test]
    fn a_line_has_the_platforms_form() {
        let mut logs = Logs::default();
        logs.push("heroku", "web.1", "Restarting", Timestamp::from_microsecond(1_730_417_477_000_012).unwrap());
        assert_eq!(
            logs.history(&Session::default())[0].render(),
            "2024-10-31T23:31:17.000012+00:00 heroku[web.1]: Restarting"
        );
    }

    #[test]
    fn a_session_shows_what_it_asks_for() {
        let mut logs = Logs::default();
        for (source, process, text) in
            [("app", "web.1", "a"), ("heroku", "web.1", "b"), ("app", "web.10", "c"), ("app", "worker.1", "d")]
        {
            logs.push(source, process, text, Timestamp::UNIX_EPOCH);
        }
        let dyno = |name: &str| Session { dyno: Some(name.into()), ..Session::default() };
        assert_eq!(texts(&logs, &dyno("web.1")), ["a", "b"]);
        assert_eq!(texts(&logs, &dyno("web")), ["a", "b", "c"]);
        assert_eq!(texts(&logs, &Session { source: Some("heroku".into()), ..Session::default() }), ["b"]);
        assert_eq!(texts(&logs, &Session { lines: Some(1), ..Session::default() }), ["d"]);
        logs.disorder = true;
        assert_eq!(texts(&logs, &Session::default()), ["b", "a", "d", "c"]);
    }

    #[test]
    fn a_long_line_is_split_between_characters() {
        let text = "é".repeat(5001);
        assert_eq!(split(&text).iter().map(|piece| piece.len()).collect::<Vec<_>>(), [10_000, 2]);
        assert_eq!(split(""), [""]);
    }
}
