//! A line as `heroku logs` prints it: one colour for each process type, the router's pairs and a dyno's states by what they mean.

use std::borrow::Cow;

use anstyle::{Ansi256Color, Color, RgbColor, Style};

const fn indexed(index: u8) -> Style {
    Style::new().fg_color(Some(Color::Ansi256(Ansi256Color(index))))
}

const fn rgb(r: u8, g: u8, b: u8) -> Style {
    Style::new().fg_color(Some(Color::Rgb(RgbColor(r, g, b))))
}

const YELLOW: Style = indexed(185);
const GREEN: Style = indexed(40);
const CYAN: Style = rgb(0x50, 0xd3, 0xd5);
const MAGENTA: Style = rgb(0xff, 0x22, 0xdd);
const BLUE: Style = indexed(117);
const TEAL: Style = indexed(43);
const PINK: Style = indexed(212);
const ORANGE: Style = indexed(214);
const RED: Style = rgb(0xff, 0x87, 0x87);
const GRAY: Style = indexed(248);
const CODE: Style = indexed(255).bg_color(Some(Color::Ansi256(Ansi256Color(237)))).bold();

/// In the order in which process types get them.
const STYLES: [Style; 10] = [YELLOW, GREEN, CYAN, MAGENTA, BLUE, TEAL, PINK, YELLOW, MAGENTA, ORANGE];

/// Which process type has which colour: the first ones always the same, the others as they come.
pub struct Palette(Vec<String>);

impl Default for Palette {
    fn default() -> Self {
        Self(["run", "router", "web", "postgres", "heroku-postgres"].map(str::to_owned).into())
    }
}

/// Kinds that are remembered. A log with more of them is not a log.
const MAX_KINDS: usize = 1_000;

impl Palette {
    /// The line with its colours. It is to have no control characters.
    pub fn paint(&mut self, line: &str) -> String {
        let Some((header, name, body)) = split(line) else { return line.to_owned() };
        let body = body.trim();
        let body = match name {
            "router" => Cow::from(self.router(body)),
            "web" | "run" => process(body),
            "postgres" | "heroku-postgres" | "heroku-redis" if body.contains(" sample#") => painted(GRAY, body).into(),
            _ => Cow::from(body),
        };
        format!("{} {body}", painted(self.style(name), header))
    }

    fn style(&mut self, name: &str) -> Style {
        let kind = name.split('.').next().unwrap_or(name);
        let known = self.0.iter().position(|known| known == kind);
        let index = known.unwrap_or_else(|| {
            if self.0.len() < MAX_KINDS {
                self.0.push(kind.to_owned());
            }
            self.0.len() - 1
        });
        STYLES[index % STYLES.len()]
    }

    fn router(&mut self, body: &str) -> String {
        let pair = |word: &str| match word.split_once('=') {
            None => painted(GRAY, word),
            Some((key, value)) => {
                let style = self.of_pair(key, value);
                format!("{}{}", painted(GRAY, &format!("{key}=")), painted(style, value))
            }
        };
        body.split_whitespace().map(pair).collect::<Vec<_>>().join(" ")
    }

    fn of_pair(&mut self, key: &str, value: &str) -> Style {
        match (key, value) {
            ("at", "error") => RED,
            ("code", _) => RED.bold(),
            ("connect" | "service", _) => of_time(value),
            ("dyno", _) => self.style(value),
            ("method", _) => MAGENTA,
            ("path", _) => GREEN,
            ("status", _) => of_status(value),
            _ => GRAY,
        }
    }
}

/// Header, name without its number, and body of a line: `app[web.1]:`, `web`, the rest.
fn split(line: &str) -> Option<(&str, &str, &str)> {
    let open = line.find('[')?;
    let end = open + line[open..].find("]:")?;
    let name = line[open + 1..end].trim_end_matches(|c: char| c.is_ascii_digit() || c == '.');
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    (!name.is_empty() && name.chars().all(plain)).then(|| (&line[..end + 2], name, &line[end + 2..]))
}

fn of_status(status: &str) -> Style {
    match status.as_bytes().first() {
        Some(b'2') => GREEN,
        Some(b'3') => TEAL,
        Some(b'4') => ORANGE,
        Some(b'5') => RED,
        _ => Style::new(),
    }
}

fn of_time(value: &str) -> Style {
    match value.trim_end_matches("ms").parse() {
        Err(_) | Ok(0) => Style::new(),
        Ok(1..100) => GREEN,
        Ok(100..500) => TEAL,
        Ok(500..5_000) => ORANGE,
        Ok(5_000_u32..) => RED,
    }
}

const STARTING: &str = "Starting process with command ";

/// What the platform says of a dyno.
fn process(body: &str) -> Cow<'_, str> {
    if matches!(body, "Restarting" | "Unidling") {
        return painted(YELLOW, body).into();
    }
    if body == "Stopping all processes with SIGTERM" {
        return painted(RED, body).into();
    }
    if let Some((before, after)) = body.strip_prefix("State changed from ").and_then(|states| states.split_once(" to "))
    {
        let state = |state: &str| painted(of_state(state), state);
        return format!("State changed from {} to {}", state(before), state(after)).into();
    }
    if let Some(command) = body.strip_prefix(STARTING) {
        return format!("{STARTING}{}", painted(CODE, command)).into();
    }
    match body.strip_prefix("Process exited with status ") {
        Some("0") => format!("Process exited with status {}", painted(GREEN, "0")).into(),
        Some(code) => format!("Process exited with status {}", painted(RED, code)).into(),
        None => body.into(),
    }
}

fn of_state(state: &str) -> Style {
    match state {
        "complete" | "up" => GREEN,
        "down" => RED,
        "starting" => TEAL,
        _ => Style::new(),
    }
}

fn painted(style: Style, text: &str) -> String {
    if text.is_empty() { String::new() } else { format!("{style}{text}{style:#}") }
}

#[cfg(test)]
mod tests {
    use super::{GREEN, Palette, RED, STYLES, Style, of_time, split};

    #[test]
    fn without_its_colours_a_line_is_what_it_was() {
        let stamp = "2026-11-23T04:00:00.123456+00:00";
        for (line, expected) in [
            ("heroku[router]: at=info  path=\"/\" status=200 x", "heroku[router]: at=info path=\"/\" status=200 x"),
            ("app[web.1]:   indented ", "app[web.1]: indented"),
            ("app[web.1]:", "app[web.1]: "),
            ("heroku[web.1]: State changed from up to down", "heroku[web.1]: State changed from up to down"),
            ("heroku[worker.2]: Process exited with status 1", "heroku[worker.2]: Process exited with status 1"),
            (
                "heroku[web.1]: Starting process with command `puma`",
                "heroku[web.1]: Starting process with command `puma`",
            ),
            ("app[heroku-postgres]: source=A sample#x=1", "app[heroku-postgres]: source=A sample#x=1"),
            ("no brackets", "no brackets"),
        ] {
            let painted = Palette::default().paint(&format!("{stamp} {line}"));
            let plain = anstream::adapter::strip_str(&painted).to_string();
            assert_eq!(plain, format!("{stamp} {expected}"));
        }
    }

    #[test]
    fn a_type_keeps_its_colour_whatever_its_number() {
        let mut palette = Palette::default();
        let styles: Vec<Style> =
            ["web", "router", "worker", "clock", "worker", "run"].map(|name| palette.style(name)).into();
        assert_eq!(styles, [2, 1, 5, 6, 5, 0].map(|index| STYLES[index]));
    }

    #[test]
    fn the_name_is_without_its_number() {
        for (line, name) in [
            ("t app[web.1]: x", Some("web")),
            ("t heroku[router]: x", Some("router")),
            ("t app[heroku-postgres]: x", Some("heroku-postgres")),
            ("t app[]: x", None),
            ("t app[a b]: x", None),
            ("t app: x", None),
        ] {
            assert_eq!(split(line).map(|(_, name, _)| name), name, "{line}");
        }
    }

    #[test]
    fn slow_is_red() {
        for (value, style) in [("0ms", Style::new()), ("", Style::new()), ("8ms", GREEN), ("30000ms", RED)] {
            assert_eq!(of_time(value), style, "{value}");
        }
    }
}
