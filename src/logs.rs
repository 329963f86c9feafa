//! The words of the app's log: lines in the platform's form, and what they say. Pure.
//!
//! [`colours`] paints a line as the `heroku` command does, [`overlap`] finds what a second session shows again, [`troubles`] finds
//! what matters.

pub mod colours;
pub mod overlap;
pub mod troubles;

use jiff::Timestamp;

use crate::report::clean;

/// How many lines of history the platform keeps (none on Fir).
pub const HISTORY: usize = 1_500;

/// One line: `2026-11-23T04:00:00.123456+00:00 app[web.1]: message`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line<'a> {
    pub at: Timestamp,
    /// `app` or `heroku`.
    pub source: &'a str,
    /// `web.1`, `router`, `api`, ...
    pub process: &'a str,
    /// Without the one space before it; a backtrace keeps its own.
    pub message: &'a str,
}

/// Reads a line; `None` where it has another form.
pub fn parse(text: &str) -> Option<Line<'_>> {
    let (stamp, rest) = text.split_once(' ')?;
    let (source, rest) = rest.split_once('[')?;
    let (process, message) = rest.split_once("]:")?;
    let word = |word: &str| !word.is_empty() && !word.contains([' ', '[', ']']);
    let line = Line { at: stamp.parse().ok()?, source, process, message: message.strip_prefix(' ').unwrap_or(message) };
    (word(source) && word(process)).then_some(line)
}

impl Line<'_> {
    /// The value of `key=value` or `key="two words"` in a router's line.
    pub fn field(&self, key: &str) -> Option<&str> {
        field(self.message, key)
    }

    /// The process type, as far as a name tells it.
    pub fn kind(&self) -> &str {
        kind(self.process)
    }
}

/// `web` of `web.1` (Cedar) and of `web-6d4f5-x2x` (Fir).
pub fn kind(process: &str) -> &str {
    process.split(['.', '-']).next().unwrap_or(process)
}

/// The value of `key` among the pairs of a text; quotes are taken off.
pub fn field<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    let mut rest = text;
    loop {
        rest = rest.trim_start();
        let (name, after) = rest.split_at(rest.find([' ', '='])?);
        let Some(value) = after.strip_prefix('=') else {
            rest = after;
            continue;
        };
        let quote = value.chars().next().filter(|c| matches!(c, '"' | '\''));
        let (value, after) = match quote {
            Some(quote) => value[1..].split_once(quote).unwrap_or((&value[1..], "")),
            None => value.split_once(' ').unwrap_or((value, "")),
        };
        if name == key {
            return Some(value);
        }
        rest = after;
    }
}

/// A line as a terminal may have it: colours of the app taken out, tabs as spaces, no other control character.
pub fn printable(text: &str) -> String {
    let plain = anstream::adapter::strip_str(text).to_string();
    let visible: String = plain.replace('\t', "    ").chars().filter(|c| !c.is_control()).collect();
    clean(&visible)
}

#[cfg(test)]
mod tests {
    use super::{Line, field, kind, parse, printable};

    #[test]
    fn a_line_is_taken_apart() {
        let at = "2026-11-23T04:00:00.123456Z".parse().unwrap();
        let line = |source, process, message| Some(Line { at, source, process, message });
        for (text, expected) in [
            ("app[web.1]: hello", line("app", "web.1", "hello")),
            ("app[web.1]:   indented", line("app", "web.1", "  indented")),
            ("app[web.1]:", line("app", "web.1", "")),
            ("app[web.1]: a[b]: c", line("app", "web.1", "a[b]: c")),
            ("heroku[router]: at=info", line("heroku", "router", "at=info")),
            ("app[web-6d4f5c-x2x7q]: hi", line("app", "web-6d4f5c-x2x7q", "hi")),
            ("app[]: no process", None),
            ("no brackets: at all", None),
            ("app web[1]: two words", None),
        ] {
            assert_eq!(parse(&format!("2026-11-23T04:00:00.123456+00:00 {text}")), expected, "{text}");
        }
        assert_eq!(parse("yesterday app[web.1]: no stamp"), None);
        assert_eq!(parse(""), None);
    }

    #[test]
    fn fields_are_found_by_whole_names() {
        let text = r#"at=error code=H12 desc="Request timeout" path="/a?status=1 b" dyno= service=30000ms status=503"#;
        for (key, expected) in [
            ("at", Some("error")),
            ("desc", Some("Request timeout")),
            ("path", Some("/a?status=1 b")),
            ("dyno", Some("")),
            ("status", Some("503")),
            ("us", None),
        ] {
            assert_eq!(field(text, key), expected, "{key}");
        }
        assert_eq!(field("method=GET error='A b: c' x", "error"), Some("A b: c"));
        assert_eq!(field("words only", "words"), None);
    }

    #[test]
    fn a_name_tells_its_type() {
        for (name, expected) in [("web.12", "web"), ("web-6d4f5c-x2x7q", "web"), ("router", "router"), ("", "")] {
            assert_eq!(kind(name), expected, "{name}");
        }
    }

    #[test]
    fn what_is_printed_acts_on_nothing() {
        for (raw, expected) in [
            ("\u{1b}[1m\u{1b}[36mPost Load\u{1b}[0m", "Post Load"),
            ("\tfrom a.rb:1", "    from a.rb:1"),
            ("a\u{7}b\u{9b}c\rd", "abcd"),
            ("ümlaut", "ümlaut"),
            ("user\u{202e}gpj.rb", "user\\u{202e}gpj.rb"),
        ] {
            assert_eq!(printable(raw), expected, "{raw:?}");
        }
    }
}
