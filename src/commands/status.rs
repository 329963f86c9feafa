//! `unstuck status`: one picture, or one after another.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use super::from_app;
use super::sight::Sight;
use crate::adapters::signals::Interrupt;
use crate::args;
use crate::config::{self, Settings};
use crate::error::{Error, Kind, Result};
use crate::ports::{ApiError, ApiErrorKind};
use crate::report::{Picture, Reporter};
use crate::timeline::{self, page};

/// Between two looks: two requests each, of the 4,500 that an account has in an hour.
const INTERVAL: Duration = Duration::from_secs(10);

/// However often the platform says that it is asked too much, it is asked again after this.
const LONGEST_INTERVAL: Duration = Duration::from_mins(5);

/// What is wider than this is drawn no wider.
const WIDEST: usize = 160;

pub fn status(settings: &Settings, args: &args::Status, reporter: &Reporter) -> Result<u8> {
    let interval = match &args.interval {
        None => INTERVAL,
        Some(text) => config::duration(text).filter(|interval| !interval.is_zero()).ok_or_else(|| {
            Error::new(Kind::Usage, format!("--interval {text}: is no duration such as 500ms, 10s or 2m"))
        })?,
    };
    let settings = &*from_app::settings(settings, args.databases.from_app, reporter)?;
    if settings.is_afar() && args.exit_code {
        return Err(Error::new(
            Kind::Database,
            "what is pending or owed cannot be told: no database is configured here",
        )
        .hint("--database-from-app asks the app's database from here"));
    }
    let mut sight = Sight::open(settings, reporter)?;
    let picture = sight.look()?;
    let show = Show { settings, html: args.html.as_deref(), reporter };
    if args.watch {
        return show.watch(&mut sight, picture, interval);
    }
    show.page(&picture)?;
    if reporter.json {
        reporter.document(&picture.document());
    } else {
        for line in show.lines(&picture) {
            reporter.result(&line);
        }
    }
    Ok(if args.exit_code { picture.exit_code() } else { 0 })
}

/// Where pictures go.
struct Show<'a> {
    settings: &'a Settings,
    html: Option<&'a Path>,
    reporter: &'a Reporter,
}

impl Show<'_> {
    fn lines(&self, picture: &Picture) -> Vec<String> {
        let columns = self.settings.env.get("COLUMNS").and_then(|columns| columns.trim().parse().ok());
        let width = columns.or_else(|| self.reporter.size().map(|(width, _)| width)).unwrap_or(80);
        let word = |name: &str| self.settings.env.get(name).filter(|value| !value.is_empty());
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"].iter().find_map(|name| word(name));
        let utf8 = locale.is_some_and(|locale| locale.to_ascii_lowercase().replace('-', "").contains("utf8"));
        timeline::lines(picture, width.min(WIDEST), if utf8 { timeline::UNICODE } else { timeline::ASCII })
    }

    /// Writes the page where one is wanted. Whoever reads it meanwhile sees the old one or the new one.
    fn page(&self, picture: &Picture) -> Result<()> {
        let Some(file) = self.html else { return Ok(()) };
        let failed =
            |error| Error::new(Kind::System, format!("the page {} cannot be written", file.display())).because(error);
        let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut new = tempfile::NamedTempFile::new_in(folder).map_err(failed)?;
        new.write_all(page::page(picture).as_bytes()).map_err(failed)?;
        readable(new.as_file()).map_err(failed)?;
        new.persist(file).map_err(|error| failed(error.error))?;
        Ok(())
    }

    fn watch(&self, sight: &mut Sight, mut picture: Picture, interval: Duration) -> Result<u8> {
        let interrupt =
            Interrupt::listen().map_err(|error| Error::new(Kind::System, "cannot listen to signals").because(error))?;
        let mut shown = None;
        let mut pause = interval;
        loop {
            let essence = timeline::essence(&picture);
            let changed = shown.as_ref() != Some(&essence);
            if changed {
                self.page(&picture)?;
            }
            // On a terminal ages go on; elsewhere what is the same is not said again.
            if (changed || self.in_place()) && self.draw(&picture).is_err() {
                return Ok(0);
            }
            shown = Some(essence);
            picture = loop {
                if let Some(code) = self.wait(&interrupt, pause) {
                    return Ok(code);
                }
                match sight.look() {
                    Ok(picture) => break picture,
                    Err(error) if is_final(&error) => return Err(error),
                    Err(error) => {
                        pause = (pause * 2).min(LONGEST_INTERVAL.max(interval));
                        let cause = error.causes().into_iter().next().unwrap_or_default();
                        self.reporter.warn(&format!("{}: {cause}; the next look is in {pause:?}", error.message));
                    }
                }
            };
            pause = interval;
        }
    }

    /// Waits for the next look; the exit code, where there is to be none: a signal came, or nobody reads any more.
    fn wait(&self, interrupt: &Interrupt, pause: Duration) -> Option<u8> {
        let until = Instant::now() + pause;
        loop {
            if let Some(signal) = interrupt.signal() {
                return Some(u8::try_from(128 + signal).unwrap_or(u8::MAX));
            }
            if !self.reporter.is_read() {
                return Some(0);
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            std::thread::sleep(left.min(Duration::from_millis(50)));
        }
    }

    fn in_place(&self) -> bool {
        !self.reporter.json && self.reporter.size().is_some()
    }

    fn draw(&self, picture: &Picture) -> std::io::Result<()> {
        if self.reporter.json {
            return self.reporter.stream_document(&picture.document());
        }
        let mut lines = self.lines(picture);
        if !self.in_place() {
            lines.push(String::new());
            return lines.iter().try_for_each(|line| self.reporter.stream_line(line));
        }
        self.reporter.redraw(&lines)
    }
}

/// Others may read the page, as far as the folder lets them: a temporary file is its owner's alone.
fn readable(file: &fs::File) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    file.set_permissions(fs::Permissions::from_mode(0o644))
}

/// Whether another look would end as this one did.
fn is_final(error: &Error) -> bool {
    let api = error.source.as_ref().and_then(|source| source.downcast_ref::<ApiError>());
    match api.map(|error| error.kind) {
        Some(kind) => matches!(
            kind,
            ApiErrorKind::Unauthorized | ApiErrorKind::Forbidden | ApiErrorKind::NotFound | ApiErrorKind::Rejected
        ),
        None => error.kind != Kind::Database,
    }
}
