//! A one-off dyno that runs `unstuck` for us: its command line, and what its output and its log say of the end. Pure.

use jiff::Timestamp;

use crate::error::{Error, Kind, Result};

/// What the rendezvous says when dyno and client have met.
const GREETING: &[u8] = b"rendezvous";

/// The statuses by which a shell says that it could not start a program.
pub const NOT_STARTED: [i32; 2] = [126, 127];

/// The line that the dyno's shell runs. `words` are the program and its arguments; `launcher` says that the app's images need
/// that program in front (Fir). `mark` cannot be guessed: only the shell, after the program's end, says it together with the
/// exit status. With `json` the program's standard output is kept apart from what people read, which shares the terminal with
/// it, and said after a mark of its own.
///
/// The shell outlives Ctrl-C and a platform that stops the dyno, to tell the status; a terminal that hangs up is nobody's
/// business, since the migration goes on. It ends with the same status, which the platform writes into the log. The program
/// may also be in `bin`, where an app keeps its own.
pub fn command(words: &[String], launcher: bool, json: bool, mark: &str) -> Result<String> {
    let unquotable = |_| Error::new(Kind::Usage, "an argument holds a null byte, which no command line can");
    let quoted = shlex::try_join(words.iter().map(String::as_str)).map_err(unquotable)?;
    let launcher = if launcher { "launcher " } else { "" };
    let run = if json {
        format!(
            "document=$(exec {launcher}{quoted} </dev/null) ; status=$? ; echo \"{mark}-document\" ; printf '%s\\n' \"$document\""
        )
    } else {
        format!("{launcher}{quoted} </dev/null ; status=$?")
    };
    Ok(format!(
        "trap '' HUP ; trap : INT TERM ; PATH=\"$PATH:$PWD/bin\" ; {run} ; echo \"{mark} $status\" ; exit $status"
    ))
}

/// What was heard on the connection so far.
#[derive(Debug)]
pub struct Hearing {
    mark: Vec<u8>,
    /// Dyno and client have met: from here on the command may run.
    pub met: bool,
    /// What may be the beginning of a mark or of a line break.
    held: Vec<u8>,
    document: Option<Vec<u8>>,
    /// The exit status, once the shell has said it.
    pub status: Option<i32>,
}

/// The other side is no rendezvous of ours.
#[derive(Debug, PartialEq, Eq)]
pub struct NotMet;

/// What follows a mark.
enum Marked {
    Document,
    Status(i32),
    /// Not enough was heard to tell.
    Unknown,
    /// Somebody quotes it: the command line, for example.
    Quoted,
}

impl Hearing {
    pub fn new(mark: &str) -> Self {
        Self { mark: mark.as_bytes().to_vec(), met: false, held: Vec::new(), document: None, status: None }
    }

    /// Takes what has arrived, and gives what people may read of it, with line breaks as they are outside of a terminal.
    pub fn hear(&mut self, bytes: &[u8]) -> Result<Vec<u8>, NotMet> {
        let mut heard = std::mem::take(&mut self.held);
        heard.extend_from_slice(bytes);
        if !self.met {
            let Some(end) = heard.iter().position(|&byte| byte == b'\n') else {
                self.held = heard;
                return if self.held.len() > GREETING.len() + 1 { Err(NotMet) } else { Ok(Vec::new()) };
            };
            if heard[..end].trim_ascii_end() != GREETING {
                return Err(NotMet);
            }
            self.met = true;
            heard.drain(..=end);
        }
        let mut shown = Vec::new();
        let mut rest = heard.as_slice();
        while self.status.is_none() {
            let Some(at) = find(rest, &self.mark) else {
                let (now, later) = rest.split_at(rest.len() - self.unfinished(rest));
                self.say(now, &mut shown);
                self.held = later.to_vec();
                break;
            };
            let after = &rest[at + self.mark.len()..];
            let (marked, length) = marked(after);
            match marked {
                Marked::Unknown => {
                    self.say(&rest[..at], &mut shown);
                    self.held = rest[at..].to_vec();
                    break;
                }
                Marked::Quoted => self.say(&rest[..at + self.mark.len()], &mut shown),
                Marked::Document => {
                    self.say(&rest[..at], &mut shown);
                    self.document = Some(Vec::new());
                }
                Marked::Status(status) => {
                    self.say(&rest[..at], &mut shown);
                    self.status = Some(status);
                }
            }
            rest = &after[length..];
        }
        Ok(shown)
    }

    /// What was held back and never became a mark: for the end of the connection.
    pub fn rest(&mut self) -> Vec<u8> {
        let held = std::mem::take(&mut self.held);
        if self.met && self.document.is_none() { held } else { Vec::new() }
    }

    /// The program's standard output, where it was kept apart and the shell has said the end of it.
    pub fn document(&self) -> Option<&[u8]> {
        self.status.and(self.document.as_deref())
    }

    fn say(&mut self, bytes: &[u8], shown: &mut Vec<u8>) {
        let to = self.document.as_mut().unwrap_or(shown);
        let lone = |(at, &byte): (usize, &u8)| byte != b'\r' || bytes.get(at + 1) != Some(&b'\n');
        to.extend(bytes.iter().enumerate().filter(|&pair| lone(pair)).map(|(_, byte)| byte));
    }

    /// How many of the last bytes have to wait for what follows.
    fn unfinished(&self, bytes: &[u8]) -> usize {
        let longest = self.mark.len().min(bytes.len() + 1) - 1;
        let mark = (1..=longest).rev().find(|&length| bytes.ends_with(&self.mark[..length]));
        mark.unwrap_or_else(|| usize::from(bytes.last() == Some(&b'\r')))
    }
}

/// What a mark is followed by, and how long that is with its line break.
fn marked(after: &[u8]) -> (Marked, usize) {
    const LONGEST: usize = 16;
    let Some(end) = after.iter().position(|&byte| byte == b'\n') else {
        return (if after.len() < LONGEST { Marked::Unknown } else { Marked::Quoted }, 0);
    };
    let line = after[..end].trim_ascii_end();
    if line == b"-document" {
        return (Marked::Document, end + 1);
    }
    let digits = line.strip_prefix(b" ").and_then(|digits| std::str::from_utf8(digits).ok());
    match digits.and_then(|digits| digits.parse::<u8>().ok()) {
        Some(status) => (Marked::Status(status.into()), end + 1),
        None => (Marked::Quoted, 0),
    }
}

fn find(text: &[u8], wanted: &[u8]) -> Option<usize> {
    text.windows(wanted.len()).position(|window| window == wanted)
}

/// The exit status that the platform wrote into the log of this dyno. A line of the application's own never has the
/// platform's source, and an older dyno of the same name has older lines.
pub fn logged_status(lines: &[String], dyno: &str, since: Timestamp) -> Option<i32> {
    let source = format!("heroku[{dyno}]:");
    lines.iter().rev().find_map(|line| {
        let (at, rest) = line.split_once(' ')?;
        let at: Timestamp = at.parse().ok()?;
        let status = rest.strip_prefix(&source)?.trim().strip_prefix("Process exited with status ")?;
        (at >= since).then_some(status)?.trim().parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MARK: &str = "unstuck-0123456789abcdef";

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(|&word| word.to_owned()).collect()
    }

    #[test]
    fn the_shell_gets_each_argument_as_it_was_typed() {
        let nasty =
            words(&["printf", "%s|", "a b", "it's", "$HOME", "`id`", "é", "", "a;b", "-x", "*", "\"", "\\", "!"]);
        let line = command(&nasty, false, false, MARK).unwrap();
        let output = std::process::Command::new("sh").args(["-c", &line]).output().unwrap();
        let expected = format!("{}|{MARK} 0\n", nasty[2..].join("|"));
        assert_eq!(String::from_utf8(output.stdout).unwrap(), expected);
        assert_eq!(command(&words(&["a\0"]), false, false, MARK).unwrap_err().kind, Kind::Usage);
    }

    #[test]
    fn the_status_is_said_and_kept() {
        for shell in ["sh", "bash"] {
            for json in [false, true] {
                for (script, expected) in [("exit 3", 3), ("exit 0", 0), ("kill -9 $$", 137)] {
                    let line = command(&words(&["sh", "-c", script]), false, json, MARK).unwrap();
                    let output = std::process::Command::new(shell).args(["-c", &line]).output().unwrap();
                    let mut hearing = Hearing::new(MARK);
                    hearing.hear(b"rendezvous\r\n").unwrap();
                    hearing.hear(&output.stdout).unwrap();
                    assert_eq!((hearing.status, output.status.code()), (Some(expected), Some(expected)), "{line}");
                }
            }
        }
    }

    /// All of `chunks`, one after the other: what is shown, the document, the status.
    fn heard(chunks: &[&[u8]]) -> (String, Option<String>, Option<i32>) {
        let mut hearing = Hearing::new(MARK);
        let mut shown = Vec::new();
        for chunk in chunks {
            shown.extend(hearing.hear(chunk).unwrap());
        }
        shown.extend(hearing.rest());
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (text(&shown), hearing.document().map(text), hearing.status)
    }

    #[test]
    fn output_document_and_status_are_told_apart_wherever_the_stream_is_cut() {
        for (stream, shown, document, status) in [
            ("one\r\ntwo\r\nM 3\r\n", "one\ntwo\n", None, Some(3)),
            ("no line breakM 0\r\n", "no line break", None, Some(0)),
            ("M 0\r\nlater", "", None, Some(0)),
            ("said\r\nM-document\r\n{\"a\":\r\n1}\r\nM 4\r\n", "said\n", Some("{\"a\":\n1}\n"), Some(4)),
            ("said\r\nM-document\r\n{\"a\":", "said\n", None, None),
            ("echo \"M $status\"\r\nM 1\r\n", "echo \"M $status\"\n", None, Some(1)),
            ("unstuck-0123456789abcdee 0\r\nunstuck- 0\r\n", "unstuck-0123456789abcdee 0\nunstuck- 0\n", None, None),
            ("M 256\r\nM -1\r\nM x\r\nM 7\r\n", "M 256\nM -1\nM x\n", None, Some(7)),
            ("cut off at M", "cut off at M", None, None),
            ("M 0", "M 0", None, None),
            ("a\rb\r\r\nM 0\r\n", "a\rb\r\n", None, Some(0)),
            ("é\r\n\u{ffff}M 0\r\n", "é\n\u{ffff}", None, Some(0)),
        ] {
            let stream = format!("rendezvous\r\n{}", stream.replace('M', MARK));
            let expected = (shown.replace('M', MARK), document.map(str::to_owned), status);
            for cut in 0..=stream.len() {
                let (a, b) = stream.as_bytes().split_at(cut);
                assert_eq!(heard(&[a, b]), expected, "cut at {cut} of {stream:?}");
            }
            let bytes: Vec<&[u8]> = stream.as_bytes().chunks(1).collect();
            assert_eq!(heard(&bytes), expected, "byte by byte: {stream:?}");
        }
    }

    #[test]
    fn nothing_is_waited_for_that_cannot_be_a_mark() {
        let mut hearing = Hearing::new(MARK);
        assert_eq!(hearing.hear(b"rendezvous\r\nworking...").unwrap(), b"working...");
        assert_eq!(hearing.hear(b" 50%\r").unwrap(), b" 50%");
        assert_eq!(hearing.hear(b" 60%").unwrap(), b"\r 60%");
    }

    #[test]
    fn another_server_is_no_rendezvous() {
        for text in ["HTTP/1.1 400 Bad Request\r\n", "rendezvouz\r\n", "a long text without a line break", "\r\n"] {
            assert_eq!(Hearing::new(MARK).hear(text.as_bytes()), Err(NotMet), "{text}");
        }
    }

    #[test]
    fn the_log_tells_the_status_of_this_dyno_alone() {
        let since: Timestamp = "2026-11-22T16:33:07Z".parse().unwrap();
        let later = "2026-11-22T16:33:09.123456+00:00";
        for (line, expected) in [
            (format!("{later} heroku[run.1]: Process exited with status 3"), Some(3)),
            (format!("{later} app[run.1]: Process exited with status 3"), None),
            (format!("{later} app[run.1]: x heroku[run.1]: Process exited with status 3"), None),
            (format!("{later} heroku[run.12]: Process exited with status 3"), None),
            ("2026-11-22T16:33:06.999+00:00 heroku[run.1]: Process exited with status 3".to_owned(), None),
            (format!("{later} heroku[run.1]: State changed from up to complete"), None),
            ("garbage".to_owned(), None),
            (String::new(), None),
        ] {
            let lines = [line.clone(), format!("{later} heroku[run.1]: State changed from up to complete")];
            assert_eq!(logged_status(&lines, "run.1", since), expected, "{line}");
        }
    }
}
