//! The app's log as one stream, over as many sessions as it takes: sessions end, connections break, laptops sleep. What a new
//! session shows again is left out, and where lines may be missing, that is said.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use crate::dynos::Generation;
use crate::logs::overlap::Overlap;
use crate::logs::{self, HISTORY};
use crate::ports::{ApiError, ApiErrorKind, Cut, LogQuery, Platform};

/// Lines that wait for a slow reader; beyond that, the platform waits.
const QUEUE: usize = 1_000;
/// How often the first session is tried, besides what the platform's adapter tries by itself.
const FIRST_TRIES: u32 = 3;
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// A session that lasted so long was a good one, also if it had nothing to tell.
const GOOD_SESSION: Duration = Duration::from_secs(10);

/// What is heard of the log.
#[derive(Debug)]
pub enum Heard {
    /// A line that was not heard before, raw.
    Line(String),
    /// The first session stands.
    Open,
    /// A session broke, or could not be opened, and another one is tried.
    Broken(String),
    /// Lines may be missing from here on.
    Gap,
    /// Nothing more comes: it was all there is, or the API refuses.
    End(Option<ApiError>),
}

/// The log, followed by a thread that ends with its reader.
pub struct Follow(Receiver<Heard>);

impl Follow {
    /// Begins to follow. Every session after the first asks for as much of the past as there is.
    pub fn start(platform: Arc<dyn Platform>, generation: Generation, query: LogQuery) -> std::io::Result<Self> {
        let (told, heard) = sync_channel(QUEUE);
        let mut follower =
            Follower { platform, generation, query, told, overlap: Overlap::default(), failures: 0, opened: false };
        thread::Builder::new().name("log".to_owned()).spawn(move || follower.run())?;
        Ok(Self(heard))
    }

    /// What is heard next; `None` where nothing is within `patience`.
    pub fn next(&self, patience: Duration) -> Option<Heard> {
        match self.0.recv_timeout(patience) {
            Ok(heard) => Some(heard),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => Some(Heard::End(None)),
        }
    }
}

struct Follower {
    platform: Arc<dyn Platform>,
    generation: Generation,
    query: LogQuery,
    told: SyncSender<Heard>,
    overlap: Overlap,
    /// Since a session was good.
    failures: u32,
    opened: bool,
}

/// The reader is gone, or there is nothing more to tell.
struct Over;

impl Follower {
    fn run(&mut self) {
        while let Ok(()) = self.session() {
            thread::sleep(pause(self.failures));
        }
    }

    fn tell(&self, heard: Heard) -> Result<(), Over> {
        self.told.send(heard).map_err(|_| Over)
    }

    fn end(&self, error: Option<ApiError>) -> Result<(), Over> {
        self.tell(Heard::End(error))?;
        Err(Over)
    }

    /// One session from its opening to its end. `Ok`: there is to be another.
    fn session(&mut self) -> Result<(), Over> {
        let again = !self.overlap.is_empty();
        let lines = if again { HISTORY } else { self.query.lines };
        let session = match self.platform.log_session(&LogQuery { lines, ..self.query.clone() }) {
            Ok(session) => session,
            Err(error) => return self.failed(error),
        };
        if !self.opened {
            self.opened = true;
            self.tell(Heard::Open)?;
        }
        let fir = self.generation == Generation::Fir;
        if again && fir {
            self.tell(Heard::Gap)?;
        }
        let start = Instant::now();
        self.overlap.begin();
        let mut told_of_gap = fir;
        let mut cut = None;
        for line in session {
            match line {
                Err(why) => cut = Some(why),
                Ok(line) => {
                    let at = logs::parse(&line).map(|line| line.at);
                    if !self.overlap.is_new(&line, at) {
                        continue;
                    }
                    self.failures = 0;
                    if self.overlap.lost() && !told_of_gap {
                        told_of_gap = true;
                        self.tell(Heard::Gap)?;
                    }
                    self.tell(Heard::Line(line))?;
                }
            }
        }
        if start.elapsed() >= GOOD_SESSION {
            self.failures = 0;
        }
        match cut {
            None if !self.query.tail && !fir => self.end(None),
            // Only the connection may have been at fault, so nothing is wrong yet.
            Some(Cut::Idle) => Ok(()),
            None => self.broken("the session ended".to_owned()),
            Some(Cut::Broken(why)) => self.broken(why),
        }
    }

    fn broken(&mut self, why: String) -> Result<(), Over> {
        self.failures += 1;
        self.tell(Heard::Broken(why))
    }

    fn failed(&mut self, error: ApiError) -> Result<(), Over> {
        let hopeless =
            !matches!(error.kind, ApiErrorKind::Unknown | ApiErrorKind::Unreachable | ApiErrorKind::RateLimited);
        if hopeless || (!self.opened && self.failures + 1 >= FIRST_TRIES) {
            return self.end(Some(error));
        }
        self.broken(error.message)
    }
}

/// Twice as long after each failure.
fn pause(failures: u32) -> Duration {
    match failures {
        0 => Duration::ZERO,
        _ => FIRST_PAUSE.saturating_mul(2_u32.saturating_pow(failures - 1)).min(LONGEST_PAUSE),
    }
}

#[cfg(test)]
mod tests {
    use super::pause;

    #[test]
    fn pauses_grow_to_a_limit() {
        for (failures, ms) in [(0, 0), (1, 250), (2, 500), (5, 4_000), (8, 30_000), (u32::MAX, 30_000)] {
            assert_eq!(pause(failures).as_millis(), ms, "{failures}");
        }
    }
}
