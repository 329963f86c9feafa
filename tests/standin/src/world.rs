//! The one state behind the lock, and the hands that carry out what the machine asks for: timers, processes, log, journal.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::runtime::Handle;
use tokio::sync::watch;

use crate::faults::{Access, Ailment, Rules};
use crate::ids::Id;
use crate::journal::{Entry, Fact, Journal};
use crate::logs::{Logs, Session};
use crate::platform::{Effect, Event, Launch, Platform, Status};
use crate::process::{Fleet, Vitals};
use crate::rendezvous::Rendezvous;
use crate::views;

/// Who the app is, for good.
#[derive(Debug, Clone)]
pub struct Identity {
    pub app: String,
    pub app_id: Id,
    pub owner_id: Id,
    pub token: String,
    pub created_at: Timestamp,
    /// Where the API is served.
    pub url: String,
    /// Where the router answers.
    pub router_url: String,
}

/// The account's pool of requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pool {
    pub remaining: u64,
    /// Milliseconds in which one request is gained.
    pub refill_ms: u64,
}

/// Seconds that the API's clock is ahead of this machine's: apart for the `Date` header and for stamps such as `created_at`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Skew {
    pub date_s: i64,
    pub stamps_s: i64,
}

impl Skew {
    pub fn date(self, at: Timestamp) -> Timestamp {
        at.saturating_add(SignedDuration::from_secs(self.date_s)).unwrap_or(at)
    }

    pub fn stamp(self, at: Timestamp) -> Timestamp {
        at.saturating_add(SignedDuration::from_secs(self.stamps_s)).unwrap_or(at)
    }
}

/// How dynos come to life.
pub enum Driver {
    /// Dynos without processes. They are `up` after this delay; one-off dynos stay up until they are ended.
    Simulated {
        boot_delay: Duration,
    },
    Processes(Arc<Fleet>),
}

pub struct Inner {
    pub platform: Platform,
    pub journal: Journal,
    pub logs: Logs,
    pub rules: Rules,
    pub access: Access,
    pub pool: Pool,
    pool_seen: Instant,
    pub skew: Skew,
    pub page_size: usize,
    pub maintenance: bool,
    /// Log sessions by their id.
    pub sessions: BTreeMap<Id, Session>,
    /// What each release command printed.
    pub release_output: BTreeMap<u64, String>,
    /// Ports and pids of the running processes.
    pub vitals: BTreeMap<Id, Vitals>,
    /// The dyno list after each change, with the journal's number then.
    history: Vec<(u64, Vec<Value>)>,
    pub stopping: bool,
}

/// Heroku's own size of the pool and its refill.
const POOL: Pool = Pool { remaining: 4500, refill_ms: 800 };

impl Inner {
    pub fn new(platform: Platform) -> Self {
        Self {
            platform,
            journal: Journal::default(),
            logs: Logs::default(),
            rules: Rules::default(),
            access: Access::default(),
            pool: POOL,
            pool_seen: Instant::now(),
            skew: Skew::default(),
            page_size: 200,
            maintenance: false,
            sessions: BTreeMap::new(),
            release_output: BTreeMap::new(),
            vitals: BTreeMap::new(),
            history: Vec::new(),
            stopping: false,
        }
    }

    /// Takes one request from the pool. `false` when it is empty.
    pub fn spend(&mut self) -> bool {
        self.refill();
        let left = self.pool.remaining.checked_sub(1);
        self.pool.remaining = left.unwrap_or(0);
        left.is_some()
    }

    /// How many requests are left.
    pub fn remaining(&mut self) -> u64 {
        self.refill();
        self.pool.remaining
    }

    pub fn set_pool(&mut self, pool: Pool) {
        self.pool = pool;
        self.pool_seen = Instant::now();
    }

    fn refill(&mut self) {
        let waited = u64::try_from(self.pool_seen.elapsed().as_millis()).unwrap_or(u64::MAX);
        let gained = waited / self.pool.refill_ms.max(1);
        self.pool_seen += Duration::from_millis(gained * self.pool.refill_ms);
        self.pool.remaining = (self.pool.remaining + gained).min(POOL.remaining.max(self.pool.remaining));
    }

    /// The dyno list as it was when the journal had reached `seq`.
    pub fn dynos_at(&self, seq: u64) -> Vec<Value> {
        self.history.iter().rev().find(|(at, _)| *at <= seq).map(|(_, list)| list.clone()).unwrap_or_default()
    }
}

pub struct World {
    pub identity: Identity,
    pub driver: Driver,
    pub metadata: bool,
    pub rendezvous: Rendezvous,
    inner: Mutex<Inner>,
    changed_sync: Condvar,
    changed: watch::Sender<()>,
    runtime: Handle,
}

impl World {
    pub fn new(
        identity: Identity,
        driver: Driver,
        metadata: bool,
        rendezvous: Rendezvous,
        inner: Inner,
        runtime: Handle,
    ) -> Arc<Self> {
        Arc::new(Self {
            identity,
            driver,
            metadata,
            rendezvous,
            inner: Mutex::new(inner),
            changed_sync: Condvar::new(),
            changed: watch::channel(()).0,
            runtime,
        })
    }

    /// Looks, or changes what the machine has no part in.
    pub fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes the async tasks that wait for a change.
    pub fn subscribe(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Changes the state, carries out what follows from it, and tells everybody who waits.
    pub fn update<R>(self: &Arc<Self>, change: impl FnOnce(&mut Inner) -> R) -> R {
        let mut guard = self.lock();
        let inner = &mut *guard;
        inner.platform.now = Timestamp::now();
        let result = change(inner);
        let mut effects = VecDeque::from(inner.platform.drain());
        while let Some(effect) = effects.pop_front() {
            if let Some(event) = self.perform(inner, effect) {
                inner.platform.handle(event);
                effects.extend(inner.platform.drain());
            }
        }
        let listed = views::dynos(&self.identity, inner);
        if inner.history.last().is_none_or(|(_, last)| *last != listed) {
            inner.history.push((inner.journal.last(), listed));
        }
        drop(guard);
        self.tell();
        result
    }

    pub fn handle(self: &Arc<Self>, event: Event) {
        self.update(|inner| inner.platform.handle(event));
    }

    /// Tells everybody who waits that something has changed.
    pub fn tell(&self) {
        // Who has looked and is about to wait holds the lock: the news must not fall in between.
        drop(self.lock());
        self.changed_sync.notify_all();
        self.changed.send_replace(());
    }

    /// Waits until `done` holds, for `limit` at most. Says whether it does.
    pub fn wait(&self, limit: Duration, mut done: impl FnMut(&mut Inner) -> bool) -> bool {
        let guard = self.lock();
        let (_guard, timeout) = self
            .changed_sync
            .wait_timeout_while(guard, limit, |inner| !done(inner))
            .unwrap_or_else(PoisonError::into_inner);
        !timeout.timed_out()
    }

    /// Carries out one effect; may give an event that follows at once.
    fn perform(self: &Arc<Self>, inner: &mut Inner, effect: Effect) -> Option<Event> {
        match effect {
            Effect::Record(fact) => {
                if let Fact::Release { version, status } = &fact
                    && *status == Status::Pending
                {
                    inner.release_output.insert(*version, String::new());
                }
                inner.journal.record(fact);
                None
            }
            Effect::Log(process, text) => {
                inner.logs.push("heroku", &process, &text, Timestamp::now());
                None
            }
            Effect::After(wait, event) => {
                self.later(wait, event);
                None
            }
            Effect::Launch(launch) => self.launch(inner, launch),
            Effect::Terminate(id) => self.end(id, 143),
            Effect::Kill(id) => self.end(id, 137),
        }
    }

    fn launch(self: &Arc<Self>, inner: &mut Inner, launch: Launch) -> Option<Event> {
        if inner.stopping {
            return None;
        }
        match &self.driver {
            Driver::Simulated { boot_delay } => {
                let (delay, event) = match launch.ailment {
                    Some(Ailment::StaysStarting) => return None,
                    Some(Ailment::CrashesOnBoot) => (*boot_delay, Event::Exited(launch.dyno, 1)),
                    Some(Ailment::BootsLate(ms)) => (*boot_delay + Duration::from_millis(ms), Event::Up(launch.dyno)),
                    Some(Ailment::IgnoresRestart) | None => (*boot_delay, Event::Up(launch.dyno)),
                };
                if delay.is_zero() {
                    return Some(event);
                }
                self.later(delay, event);
            }
            Driver::Processes(fleet) => fleet.launch(self, inner, launch),
        }
        None
    }

    fn end(self: &Arc<Self>, id: Id, status: i32) -> Option<Event> {
        match &self.driver {
            Driver::Simulated { .. } => Some(Event::Exited(id, status)),
            Driver::Processes(fleet) => {
                fleet.end(&id, status == 137);
                None
            }
        }
    }

    fn later(self: &Arc<Self>, wait: Duration, event: Event) {
        let world = Arc::downgrade(self);
        self.runtime.spawn(async move {
            tokio::time::sleep(wait).await;
            if let Some(world) = world.upgrade() {
                world.handle(event);
            }
        });
    }

    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.runtime.spawn(task);
    }

    // ---- the journal

    pub fn entries(&self, after: u64) -> Vec<Entry> {
        self.lock().journal.after(after).to_vec()
    }

    pub fn note(&self, text: &str) -> u64 {
        let seq = self.lock().journal.record(Fact::Note { text: text.to_owned() });
        self.tell();
        seq
    }
}
