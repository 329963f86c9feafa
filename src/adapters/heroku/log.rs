//! Log sessions: the API hands out an address, and the log is read from there as it comes.

use std::io::{self, BufRead, BufReader, Read};
use std::time::Duration;

use serde_json::{Map, Value};
use ureq::http::{Method, Uri, header};

use crate::adapters::heroku::wire::{Answer, Stream};
use crate::adapters::heroku::{Call, Failed, Heroku, LogSessionJson, VERSION_3_SDK, no_answer, strange_address};
use crate::adapters::retry::{Effect, Fault};
use crate::dynos::Generation;
use crate::ports::{ApiError, ApiErrorKind, Cut, LogLines, LogQuery};
use crate::secret::Secret;

/// The platform splits lines at 10,000 bytes. What is longer than this is cut.
const MAX_LINE_BYTES: usize = 64 << 10;

/// A connection that is silent for so many time limits of a request may be dead: a laptop slept, a gateway forgot it. With the
/// default that is a minute. A new session costs one request, and shows the past again.
const IDLE_LIMITS: u32 = 6;
/// Fir shows no past, so each new session is a risk. Heroku's own command takes a new one after fifteen minutes.
const IDLE_LIMITS_FIR: u32 = 90;

/// Of what explains a refusal, as much as a person reads.
const MAX_REFUSAL_BYTES: u64 = 4 << 10;

impl Heroku {
    pub(super) fn open_log(&self, query: &LogQuery) -> Result<LogLines, ApiError> {
        let fir = self.generation()? == Generation::Fir;
        let call = Call {
            accept: VERSION_3_SDK,
            body: Some(body(query, fir)),
            ..Call::new(Method::POST, self.path("/log-sessions"))
        };
        let session: LogSessionJson = self.get(&call)?;
        let idle = self.timeout * if fir { IDLE_LIMITS_FIR } else { IDLE_LIMITS };
        let stream = self.insist(Effect::Read, || self.open_stream(&session.logplex_url, idle))?;
        let events =
            stream.headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"text/event"));
        Ok(Box::new(Lines { body: BufReader::new(stream.body), events, token: self.token.clone(), over: false }))
    }

    fn open_stream(&self, url: &str, idle: Duration) -> Result<Stream, Failed> {
        let call = "GET the log";
        let request = self.handed_out(call, url)?;
        let place = request.uri_ref().and_then(Uri::authority).map(ToString::to_string).unwrap_or_default();
        // Fir is known to answer to this alone; elsewhere either form will do.
        let request = request.header(header::ACCEPT, "text/event-stream").body(());
        let request = request.map_err(|_| strange_address(call))?;
        let stream = self.wire.open(request, idle).map_err(|failure| no_answer(&call, &place, &failure))?;
        if (200..300).contains(&stream.status) {
            return Ok(stream);
        }
        let mut text = Vec::new();
        // An explanation that does not arrive is no other failure.
        let _ = stream.body.take(MAX_REFUSAL_BYTES).read_to_end(&mut text);
        let answer = Answer { status: stream.status, headers: stream.headers, body: text, cut: None };
        let mut refused = self.refused(&call, &answer);
        if matches!(answer.status, 403 | 404 | 410) {
            // It says nothing of the app or the token: the session is over, and the next one is another address.
            refused.error = ApiError { kind: ApiErrorKind::Unknown, hint: None, ..refused.error };
            refused.fault = Fault::Final;
        }
        Err(refused)
    }
}

/// What the API is asked for. Fir knows no lines of the past, and names a type by another word.
fn body(query: &LogQuery, fir: bool) -> Value {
    let LogQuery { dyno, kind, source, lines, tail } = query;
    let text = |value: &Option<String>| value.clone().map(Value::from);
    let fields = if fir {
        [("dyno", text(dyno)), ("type", text(kind)), ("source", text(source)), ("", None)]
    } else {
        let shown = text(dyno).or_else(|| text(kind));
        [("dyno", shown), ("source", text(source)), ("lines", Some((*lines).into())), ("tail", Some((*tail).into()))]
    };
    fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect::<Map<_, _>>().into()
}

/// The lines of a session, whether they come as text or as events.
struct Lines<R> {
    body: BufReader<R>,
    events: bool,
    token: Secret,
    over: bool,
}

impl<R: Read> Iterator for Lines<R> {
    type Item = Result<String, Cut>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.over {
            match read_line(&mut self.body) {
                Ok(None) => self.over = true,
                Ok(Some(line)) => {
                    let text = String::from_utf8_lossy(&line);
                    let text = if self.events { text.strip_prefix("data:").map(str::trim_start) } else { Some(&*text) };
                    if let Some(text) = text.filter(|text| !text.is_empty()) {
                        return Some(Ok(text.replace(self.token.expose(), "***")));
                    }
                }
                Err(error) => {
                    self.over = true;
                    return Some(Err(cut(&error)));
                }
            }
        }
        None
    }
}

fn cut(error: &io::Error) -> Cut {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<ureq::Error>());
    match (inner, error.kind()) {
        (Some(ureq::Error::Timeout(_)), _) | (_, io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock) => Cut::Idle,
        (_, io::ErrorKind::UnexpectedEof) => Cut::Broken("the connection was cut".to_owned()),
        _ => Cut::Broken(error.to_string()),
    }
}

/// The next line without its end; `None` at the end of all, where a line that was begun and not ended is left out: it may be half
/// of one, and the next session shows all of it.
fn read_line(body: &mut impl BufRead) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    loop {
        let bytes = match body.fill_buf() {
            Ok([]) => return Ok(None),
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let end = bytes.iter().position(|&byte| byte == b'\n');
        let part = &bytes[..end.unwrap_or(bytes.len())];
        line.extend(&part[..part.len().min(MAX_LINE_BYTES - line.len())]);
        let used = end.map_or(bytes.len(), |end| end + 1);
        body.consume(used);
        if end.is_some() {
            if line.last() == Some(&b'\r') {
                line.pop();
            }
            return Ok(Some(line));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::BufReader;

    use serde_json::json;

    use super::{Lines, MAX_LINE_BYTES, body};
    use crate::ports::LogQuery;
    use crate::secret::Secret;

    fn lines(text: &str, events: bool) -> Vec<String> {
        // A small buffer, so that lines come in pieces.
        let body = BufReader::with_capacity(7, text.as_bytes());
        let lines = Lines { body, events, token: Secret::new("tok"), over: false };
        lines.map(Result::unwrap).collect()
    }

    #[test]
    fn a_session_is_text_or_events() {
        for (text, events, expected) in [
            ("one\ntwo\r\n\nthree\n", false, vec!["one", "two", "three"]),
            ("id: 1\ndata: one\n\nid: 2\ndata: two\ndata: three\n\n: ping\n\n", true, vec!["one", "two", "three"]),
            ("whole\nhalf of a li", false, vec!["whole"]),
            ("data: whole\n\ndata: hal", true, vec!["whole"]),
            ("a tok here\n", false, vec!["a *** here"]),
            ("", true, vec![]),
        ] {
            assert_eq!(lines(text, events), expected, "{text:?}");
        }
    }

    #[test]
    fn a_line_is_bounded() {
        let text = format!("{}\nnext\n", "x".repeat(MAX_LINE_BYTES + 9));
        let lines = lines(&text, false);
        assert_eq!((lines[0].len(), lines[1].as_str()), (MAX_LINE_BYTES, "next"));
    }

    #[test]
    fn each_platform_is_asked_in_its_own_words() {
        let query = LogQuery { kind: Some("web".into()), source: Some("app".into()), lines: 5, tail: true, dyno: None };
        assert_eq!(body(&query, false), json!({"dyno": "web", "source": "app", "lines": 5, "tail": true}));
        assert_eq!(body(&query, true), json!({"type": "web", "source": "app"}));
    }
}
