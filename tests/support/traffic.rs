//! Requests to an application, one after the other from several clients, for as long as something else happens.

#![allow(dead_code, reason = "each test uses its own part of it")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what went wrong by failing there")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Longer than the platform's router keeps a request waiting for a dyno that boots.
const PATIENCE: Duration = Duration::from_mins(3);

/// Between two requests of one client.
const PAUSE: Duration = Duration::from_millis(10);

/// Clients that ask until they are told to stop.
pub struct Traffic {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    clients: Vec<JoinHandle<Served>>,
}

/// What became of the requests.
#[derive(Debug, Default)]
pub struct Served {
    pub requests: usize,
    /// Those that had another answer than 200, or none: which.
    pub failed: Vec<String>,
    pub slowest: Duration,
    /// Those that took longer than a second.
    pub slow: usize,
}

impl Traffic {
    /// Returns when the first answers have come.
    pub fn start(url: &str, clients: usize) -> Self {
        let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let client = |_| {
            let (url, stop, answered) = (url.to_owned(), Arc::clone(&stop), Arc::clone(&answered));
            thread::spawn(move || ask(&url, &stop, &answered))
        };
        let traffic = Self { clients: (0..clients).map(client).collect(), stop, answered };
        while traffic.answered() < clients && !traffic.clients.iter().any(JoinHandle::is_finished) {
            thread::sleep(PAUSE);
        }
        traffic
    }

    fn answered(&self) -> usize {
        self.answered.load(Ordering::Relaxed)
    }

    /// Each client ends its request, and no more follow.
    pub fn end(self) -> Served {
        self.stop.store(true, Ordering::Relaxed);
        let served = self.clients.into_iter().map(|client| client.join().expect("a client"));
        served.reduce(Served::and).unwrap_or_default()
    }
}

impl Served {
    fn and(mut self, other: Self) -> Self {
        self.requests += other.requests;
        self.failed.extend(other.failed);
        self.slowest = self.slowest.max(other.slowest);
        self.slow += other.slow;
        self
    }
}

fn ask(url: &str, stop: &AtomicBool, answered: &AtomicUsize) -> Served {
    let config = ureq::Agent::config_builder().http_status_as_error(false).proxy(None);
    let agent: ureq::Agent = config.timeout_global(Some(PATIENCE)).build().into();
    let mut served = Served::default();
    while !stop.load(Ordering::Relaxed) {
        let began = Instant::now();
        let answer = agent.get(url).call().and_then(|mut response| {
            let body = response.body_mut().read_to_string()?;
            Ok((response.status(), body))
        });
        let took = began.elapsed();
        served.requests += 1;
        served.slowest = served.slowest.max(took);
        served.slow += usize::from(took > Duration::from_secs(1));
        match answer {
            Ok((status, _)) if status == 200 => {}
            Ok((status, body)) => served.failed.push(format!("{status} {}", body.trim())),
            Err(error) => served.failed.push(error.to_string()),
        }
        answered.fetch_add(1, Ordering::Relaxed);
        thread::sleep(PAUSE);
    }
    served
}
