//! What Heroku does to dynos and releases, as a pure machine: calls and events go in, a new state and [`Effect`]s come out.
//! It knows no clock, no process and no socket, so that every rule can be read and tested here.

mod releases;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::faults::{Ailment, AilmentRule};
use crate::ids::{Id, Ids};
use crate::journal::Fact;

/// Heroku's two platforms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Generation {
    Cedar,
    Fir,
}

/// How long things take. Heroku's own figures are the defaults, except the preboot window, which is scaled down.
#[derive(Debug, Clone)]
pub struct Timing {
    /// A web dyno that has not bound its port by then gets R10.
    pub boot_timeout: Duration,
    /// How long old web dynos serve on after a restart with preboot.
    pub preboot_window: Duration,
    /// The wait before the second restart after a crash; it doubles from crash to crash. The first restart is immediate.
    pub crash_cool_off: Duration,
    /// A release command that runs longer makes its release `expired`.
    pub release_timeout: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            boot_timeout: Duration::from_mins(1),
            preboot_window: Duration::from_secs(10),
            crash_cool_off: Duration::from_mins(10),
            release_timeout: Duration::from_hours(1),
        }
    }
}

/// What is asked of the world outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Start the process of this dyno and report [`Event::Up`] and [`Event::Exited`].
    Launch(Launch),
    /// SIGTERM to every process of the dyno, SIGKILL after the grace; [`Event::Exited`] follows.
    Terminate(Id),
    /// SIGKILL to every process of the dyno; [`Event::Exited`] follows.
    Kill(Id),
    After(Duration, Event),
    /// A line of the source `heroku`, of the given process (`web.1`, `api`).
    Log(String, String),
    Record(Fact),
}

/// A process to start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Launch {
    pub dyno: Id,
    pub name: String,
    pub kind: String,
    pub command: String,
    pub release: u64,
    pub ailment: Option<Ailment>,
    /// Variables of this dyno alone (`POST /dynos` can set some).
    pub env: BTreeMap<String, String>,
    /// It waits for its client before it begins, and gives its output to nobody else.
    pub attach: bool,
}

/// What `POST /dynos` says of one dyno alone.
#[derive(Debug, Clone, Default)]
pub struct Own {
    pub env: BTreeMap<String, String>,
    pub attach: bool,
}

/// What happened outside, or what a timer reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A web dyno has bound its port; another one runs.
    Up(Id),
    /// The process is gone, with this exit status (128 + N for signal N).
    Exited(Id, i32),
    BootTimeout(Id),
    /// The cool-off after a crash is over.
    Revive(Id),
    /// The preboot window that was opened last as number N is over.
    WindowOver(u64),
    TimeToLive(Id),
    ReleaseTimeout(u64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    Starting,
    Up,
    Crashed,
}

/// Where a boot stands in the exchange of old for new.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// In the dyno list.
    Listed,
    /// An old web dyno that preboot lets serve on: not in the list.
    Hidden,
    /// Told to end: not in the list. The boot named here is launched when it has ended.
    Leaving(Option<Id>),
}

/// One boot of one process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dyno {
    pub id: Id,
    pub name: String,
    pub kind: String,
    /// Which of its type it is, counted from 1; for one-off dynos the number in the name.
    pub slot: u64,
    pub command: String,
    pub release: u64,
    pub state: State,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    pub place: Place,
    /// Whether the router sends requests to it.
    pub routed: bool,
    /// Whether it has a process.
    pub running: bool,
    /// How often a dyno of this slot crashed since the last release or restart by hand.
    pub crashes: u32,
}

impl Dyno {
    pub fn listed(&self) -> bool {
        self.place == Place::Listed
    }

    fn leaving(&self) -> bool {
        matches!(self.place, Place::Leaving(_))
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Formation {
    pub id: Id,
    pub kind: String,
    pub quantity: u64,
    pub size: String,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    Pending,
    Succeeded,
    Failed,
    Expired,
}

/// What a build made: where the code is, and what each process type runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slug {
    pub id: Id,
    pub commit: String,
    /// The directory that the processes run in; `None` in simulated mode.
    pub root: Option<PathBuf>,
    /// Process type -> command, `release` among them.
    pub processes: BTreeMap<String, String>,
    pub created_at: Timestamp,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Release {
    pub id: Id,
    pub version: u64,
    pub status: Status,
    pub description: String,
    pub slug: Slug,
    pub config: BTreeMap<String, String>,
    /// The one-off dyno that runs, or ran, the release command.
    pub command_dyno: Option<Id>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

/// Which dynos a restart or a stop is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    All,
    Type(String),
    Name(String),
}

/// Why a boot takes the place of another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cause {
    Restart,
    Stop,
    Cycle,
    Crash,
}

pub struct Platform {
    pub generation: Generation,
    pub timing: Timing,
    pub preboot: bool,
    /// Releases restart at most a quarter of a type's dynos at a time, as in Private Spaces.
    pub rolling: bool,
    /// Whether a restart of all dynos leaves one-off and release dynos alone.
    pub spare_one_offs: bool,
    pub formation: BTreeMap<String, Formation>,
    pub dynos: Vec<Dyno>,
    pub releases: Vec<Release>,
    /// The version that dynos boot.
    pub current: u64,
    pub ailments: Vec<AilmentRule>,
    /// The time by which everything is stamped; set before each call.
    pub now: Timestamp,
    ids: Ids,
    window: u64,
    /// Slots that a rolling release has still to restart.
    queue: Vec<(String, u64)>,
    one_offs: u64,
    effects: Vec<Effect>,
}

pub const OWNER: &str = "dev@example.com";

impl Platform {
    /// An app whose first release runs `slug`; its dynos start at once.
    pub fn new(
        generation: Generation,
        timing: Timing,
        slug: Slug,
        config: BTreeMap<String, String>,
        ids: Ids,
        now: Timestamp,
    ) -> Self {
        let mut platform = Self {
            generation,
            timing,
            preboot: false,
            rolling: false,
            spare_one_offs: true,
            formation: BTreeMap::new(),
            dynos: Vec::new(),
            releases: Vec::new(),
            current: 1,
            ailments: Vec::new(),
            now,
            ids,
            window: 0,
            queue: Vec::new(),
            one_offs: 1000,
            effects: Vec::new(),
        };
        let description = format!("Deploy {}", slug.commit);
        platform.push_release(description, slug, config, Status::Succeeded);
        platform
    }

    /// What the calls since the last drain ask of the world, in order.
    pub fn drain(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    pub fn next_id(&mut self) -> Id {
        self.ids.next_id()
    }

    // ---- reading

    /// The dynos that the API shows, by type and number.
    pub fn listed(&self) -> Vec<&Dyno> {
        let mut listed: Vec<_> = self.dynos.iter().filter(|dyno| dyno.listed()).collect();
        listed.sort_by_key(|dyno| (&dyno.kind, dyno.slot));
        listed
    }

    pub fn release(&self, version: u64) -> Option<&Release> {
        self.releases.iter().find(|release| release.version == version)
    }

    pub fn newest(&self) -> Option<&Release> {
        self.releases.last()
    }

    /// The config vars that the next release starts from.
    pub fn config(&self) -> BTreeMap<String, String> {
        self.newest().map(|release| release.config.clone()).unwrap_or_default()
    }

    fn command(&self, version: u64, kind: &str) -> String {
        self.release(version).and_then(|release| release.slug.processes.get(kind)).cloned().unwrap_or_default()
    }

    // ---- calls

    /// Restarts what `target` names, at most `limit` dynos of it. `false` when it names nothing.
    pub fn restart(&mut self, target: &Target, limit: usize) -> bool {
        let Some(hit) = self.hit(target) else { return false };
        for id in hit.into_iter().take(limit) {
            if self.ailment(&id, |ailment| *ailment == Ailment::IgnoresRestart).is_none() {
                self.restart_one(&id, self.current);
            }
        }
        true
    }

    /// Stops what `target` names; what belongs to the formation comes back by itself. `false` when it names nothing.
    pub fn stop(&mut self, target: &Target, limit: usize) -> bool {
        let Some(hit) = self.hit(target) else { return false };
        for id in hit.into_iter().take(limit) {
            self.replace(&id, self.current, Cause::Stop);
        }
        true
    }

    /// Restarts one dyno as the platform does daily. `false` when there is none of that name.
    pub fn cycle(&mut self, name: &str) -> bool {
        let Some(id) = self.dynos.iter().find(|dyno| dyno.listed() && dyno.name == name).map(|dyno| dyno.id.clone())
        else {
            return false;
        };
        self.replace(&id, self.current, Cause::Cycle);
        true
    }

    /// Sets the quantity of a type and starts or ends dynos accordingly. `false` for a type that no process is declared for.
    pub fn scale(&mut self, kind: &str, quantity: u64, size: Option<&str>) -> bool {
        if !self.releases.iter().any(|release| release.slug.processes.contains_key(kind)) || kind == "release" {
            return false;
        }
        let (id, now) = (self.next_id(), self.now);
        let formation = self.formation.entry(kind.to_owned()).or_insert_with(|| Formation {
            id,
            kind: kind.to_owned(),
            quantity: 0,
            size: "Standard-1X".to_owned(),
            created_at: now,
            updated_at: now,
        });
        let before = std::mem::replace(&mut formation.quantity, quantity);
        formation.updated_at = now;
        if let Some(size) = size {
            size.clone_into(&mut formation.size);
        }
        self.log("api", format!("Scaled to {kind}@{quantity}:{} by user {OWNER}", self.formation[kind].size));
        for slot in before + 1..=quantity {
            let id = self.boot(kind, slot, self.current, 0);
            self.launch(&id);
        }
        let surplus = |dyno: &&Dyno| dyno.kind == kind && dyno.slot > quantity && !one_off(&dyno.kind);
        let surplus: Vec<Id> = self.dynos.iter().filter(surplus).map(|dyno| dyno.id.clone()).collect();
        for id in surplus {
            self.dismiss(&id, None);
        }
        true
    }

    /// Starts a one-off dyno of the current release.
    pub fn run(&mut self, command: &str, kind: &str, own: Own, ttl: Option<Duration>) -> Id {
        let id = self.one_off(kind, command, self.current);
        self.log("api", format!("Starting process with command `{command}` by user {OWNER}"));
        self.launch_with(&id, own);
        if let Some(ttl) = ttl {
            self.effects.push(Effect::After(ttl, Event::TimeToLive(id.clone())));
        }
        id
    }

    // ---- events

    pub fn handle(&mut self, event: Event) {
        match event {
            Event::Up(id) => self.up(&id),
            Event::Exited(id, status) => self.exited(&id, status),
            Event::BootTimeout(id) => self.boot_timeout(&id),
            Event::Revive(id) => {
                if self.dyno(&id).is_some_and(|dyno| dyno.state == State::Crashed) {
                    self.replace(&id, self.current, Cause::Crash);
                }
            }
            Event::WindowOver(window) => {
                if window == self.window {
                    self.flip();
                }
            }
            Event::TimeToLive(id) => self.dismiss(&id, None),
            Event::ReleaseTimeout(version) => {
                self.finish_release(version, Status::Expired);
            }
        }
    }

    fn up(&mut self, id: &str) {
        let now = self.now;
        let Some(dyno) =
            self.dynos.iter_mut().find(|dyno| dyno.id == id && dyno.state == State::Starting && !dyno.leaving())
        else {
            return;
        };
        dyno.state = State::Up;
        dyno.updated_at = now;
        let name = dyno.name.clone();
        self.log(&name, "State changed from starting to up");
        self.roll();
    }

    fn exited(&mut self, id: &str, status: i32) {
        let Some(dyno) = self.dyno(id).cloned() else { return };
        self.log(&dyno.name, format!("Process exited with status {status}"));
        self.record_end(id, &dyno.name, status);
        match dyno.place {
            Place::Leaving(successor) => {
                self.dynos.retain(|dyno| dyno.id != id);
                if let Some(successor) = successor {
                    self.launch(&successor);
                }
            }
            Place::Hidden => self.dynos.retain(|dyno| dyno.id != id),
            Place::Listed if one_off(&dyno.kind) => {
                self.log(&dyno.name, format!("State changed from {} to complete", word(dyno.state)));
                self.dynos.retain(|dyno| dyno.id != id);
            }
            Place::Listed => self.crashed(&dyno),
        }
        let of = |release: &&Release| release.command_dyno.as_deref() == Some(id) && release.status == Status::Pending;
        if let Some(version) = self.releases.iter().find(of).map(|release| release.version) {
            self.conclude(version, if status == 0 { Status::Succeeded } else { Status::Failed });
        }
    }

    fn crashed(&mut self, dyno: &Dyno) {
        let (now, cool_off) = (self.now, self.timing.crash_cool_off);
        self.log(&dyno.name, format!("State changed from {} to crashed", word(dyno.state)));
        let Some(dyno) = self.dynos.iter_mut().find(|other| other.id == dyno.id) else { return };
        dyno.state = State::Crashed;
        dyno.updated_at = now;
        dyno.running = false;
        dyno.crashes += 1;
        let wait = match dyno.crashes {
            1 => Duration::ZERO,
            n => cool_off * 2u32.saturating_pow((n - 2).min(12)),
        };
        self.effects.push(Effect::After(wait, Event::Revive(dyno.id.clone())));
        self.roll();
    }

    fn boot_timeout(&mut self, id: &str) {
        let limit = self.timing.boot_timeout.as_secs();
        let Some(dyno) = self.dyno(id).filter(|dyno| dyno.state == State::Starting && dyno.running) else { return };
        let name = dyno.name.clone();
        let text =
            format!("Error R10 (Boot timeout) -> Web process failed to bind to $PORT within {limit} seconds of launch");
        self.log(&name, text);
        self.log(&name, "Stopping process with SIGKILL");
        self.effects.push(Effect::Kill(id.to_owned()));
    }

    // ---- restarts

    fn hit(&self, target: &Target) -> Option<Vec<Id>> {
        let chosen = |dyno: &&Dyno| match target {
            Target::All => !(self.spare_one_offs && one_off(&dyno.kind)),
            Target::Type(kind) => dyno.kind == *kind,
            Target::Name(name) => dyno.name == *name,
        };
        let hit: Vec<Id> = self.listed().into_iter().filter(chosen).map(|dyno| dyno.id.clone()).collect();
        let known = match target {
            Target::All => true,
            Target::Type(kind) => self.formation.contains_key(kind) || !hit.is_empty(),
            Target::Name(_) => !hit.is_empty(),
        };
        known.then_some(hit)
    }

    fn restart_one(&mut self, id: &str, version: u64) {
        let Some(dyno) = self.dyno(id) else { return };
        if self.preboot && dyno.kind == "web" {
            self.preboot_one(id, version);
        } else {
            self.replace(id, version, Cause::Restart);
        }
    }

    /// Old first told to end, the new one launched when it has.
    fn replace(&mut self, id: &str, version: u64, cause: Cause) {
        let Some(dyno) = self.dyno(id).cloned() else { return };
        if one_off(&dyno.kind) {
            self.dismiss(id, None);
            return;
        }
        let mut state = word(dyno.state);
        match cause {
            Cause::Restart => self.log(&dyno.name, "Restarting"),
            Cause::Cycle => {
                self.log(&dyno.name, "Cycling");
                self.log(&dyno.name, format!("State changed from {state} to down"));
                state = "down";
            }
            Cause::Stop | Cause::Crash => {}
        }
        self.log(&dyno.name, format!("State changed from {state} to starting"));
        let crashes = if cause == Cause::Crash { dyno.crashes } else { 0 };
        let new = self.boot(&dyno.kind, dyno.slot, version, crashes);
        if let Some(new) = self.dynos.iter_mut().find(|other| other.id == new) {
            new.routed = dyno.routed;
        }
        self.dismiss(id, Some(new));
    }

    /// The new one boots beside the old one, which serves on, hidden, until the window is over.
    fn preboot_one(&mut self, id: &str, version: u64) {
        let Some(old) = self.dynos.iter_mut().find(|dyno| dyno.id == id) else { return };
        old.place = Place::Hidden;
        let (kind, slot) = (old.kind.clone(), old.slot);
        if !old.running {
            self.dynos.retain(|dyno| dyno.id != id);
        }
        let new = self.boot(&kind, slot, version, 0);
        if let Some(new) = self.dynos.iter_mut().find(|dyno| dyno.id == new) {
            new.routed = false;
        }
        self.launch(&new);
        self.window += 1;
        self.effects.push(Effect::After(self.timing.preboot_window, Event::WindowOver(self.window)));
    }

    /// The end of the preboot window: requests go to the listed dynos, the hidden ones are told to end.
    pub fn flip(&mut self) {
        let mut old = Vec::new();
        for dyno in &mut self.dynos {
            dyno.routed = dyno.kind == "web" && dyno.place == Place::Listed;
            if dyno.place == Place::Hidden {
                old.push(dyno.id.clone());
            }
        }
        for id in old {
            self.dismiss(&id, None);
        }
    }

    /// Takes a dyno off the list and ends its process; `successor` is launched afterwards.
    fn dismiss(&mut self, id: &str, successor: Option<Id>) {
        let Some(dyno) = self.dynos.iter_mut().find(|dyno| dyno.id == id) else { return };
        if dyno.leaving() {
            return;
        }
        dyno.routed = false;
        let name = dyno.name.clone();
        if dyno.running {
            dyno.place = Place::Leaving(successor);
            self.log(&name, "Stopping all processes with SIGTERM");
            self.effects.push(Effect::Terminate(id.to_owned()));
            return;
        }
        self.dynos.retain(|dyno| dyno.id != id);
        // A boot that never had a process hands its turn to its own successor.
        let waiting = self.dynos.iter_mut().find(|dyno| dyno.place == Place::Leaving(Some(id.to_owned())));
        match (waiting, successor) {
            (Some(predecessor), successor) => predecessor.place = Place::Leaving(successor),
            (None, Some(successor)) => self.launch(&successor),
            (None, None) => {}
        }
    }

    fn boot(&mut self, kind: &str, slot: u64, version: u64, crashes: u32) -> Id {
        let id = self.next_id();
        let name = match self.generation {
            Generation::Fir if !one_off(kind) => {
                format!("{kind}-{}-{}", &self.next_id()[..9].replace('-', "0"), &self.next_id()[..5])
            }
            _ => format!("{kind}.{slot}"),
        };
        self.dynos.push(Dyno {
            id: id.clone(),
            name,
            kind: kind.to_owned(),
            slot,
            command: self.command(version, kind),
            release: version,
            state: State::Starting,
            created_at: self.now,
            updated_at: self.now,
            place: Place::Listed,
            routed: kind == "web",
            running: false,
            crashes,
        });
        id
    }

    fn one_off(&mut self, kind: &str, command: &str, version: u64) -> Id {
        self.one_offs += 1;
        let id = self.boot(kind, self.one_offs, version, 0);
        if let Some(dyno) = self.dynos.iter_mut().find(|dyno| dyno.id == id) {
            command.clone_into(&mut dyno.command);
        }
        id
    }

    fn launch(&mut self, id: &str) {
        self.launch_with(id, Own::default());
    }

    fn launch_with(&mut self, id: &str, own: Own) {
        let ailment = self.ailment(id, |ailment| *ailment != Ailment::IgnoresRestart);
        let Some(dyno) = self.dynos.iter_mut().find(|dyno| dyno.id == id) else { return };
        dyno.running = true;
        let launch = Launch {
            dyno: dyno.id.clone(),
            name: dyno.name.clone(),
            kind: dyno.kind.clone(),
            command: dyno.command.clone(),
            release: dyno.release,
            ailment,
            env: own.env,
            attach: own.attach,
        };
        self.log(&launch.name, format!("Starting process with command `{}`", launch.command));
        self.effects.push(Effect::Record(Fact::Began {
            dyno: launch.dyno.clone(),
            name: launch.name.clone(),
            kind: launch.kind.clone(),
            release: launch.release,
        }));
        if launch.kind == "web" && launch.ailment != Some(Ailment::StaysStarting) {
            self.effects.push(Effect::After(self.timing.boot_timeout, Event::BootTimeout(launch.dyno.clone())));
        }
        self.effects.push(Effect::Launch(launch));
    }

    /// The first rule that fits the dyno and the question; a counted rule is used up by it.
    fn ailment(&mut self, id: &str, wanted: impl Fn(&Ailment) -> bool) -> Option<Ailment> {
        let dyno = self.dynos.iter().find(|dyno| dyno.id == id)?;
        let rule = self.ailments.iter_mut().find(|rule| rule.fits(&dyno.name, &dyno.kind) && wanted(&rule.ailment))?;
        if let Some(count) = &mut rule.count {
            *count -= 1;
        }
        Some(rule.ailment.clone())
    }

    // ---- small helpers

    fn dyno(&self, id: &str) -> Option<&Dyno> {
        self.dynos.iter().find(|dyno| dyno.id == id)
    }

    fn log(&mut self, process: &str, text: impl Into<String>) {
        self.effects.push(Effect::Log(process.to_owned(), text.into()));
    }

    fn record_end(&mut self, id: &str, name: &str, status: i32) {
        self.effects.push(Effect::Record(Fact::Ended { dyno: id.to_owned(), name: name.to_owned(), status }));
    }
}

/// One-off dynos belong to no formation: they end once and for all.
pub fn one_off(kind: &str) -> bool {
    matches!(kind, "run" | "release" | "scheduler")
}

fn word(state: State) -> &'static str {
    match state {
        State::Starting => "starting",
        State::Up => "up",
        State::Crashed => "crashed",
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use jiff::Timestamp;

    use super::{Effect, Event, Generation, Place, Platform, Slug, State, Status, Target, Timing};
    use crate::ids::{Id, Ids};

    fn platform(web: u64) -> Platform {
        let processes =
            BTreeMap::from([("web".to_owned(), "serve".to_owned()), ("worker".to_owned(), "work".to_owned())]);
        let now = Timestamp::UNIX_EPOCH;
        let slug = Slug { id: "slug".into(), commit: "c0ffee".into(), root: None, processes, created_at: now };
        let mut platform = Platform::new(Generation::Cedar, Timing::default(), slug, BTreeMap::new(), Ids::new(1), now);
        platform.scale("web", web, None);
        boot_all(&mut platform);
        platform
    }

    /// Lets every dyno that has been launched come up; gives their names.
    fn boot_all(platform: &mut Platform) -> Vec<String> {
        let mut names = Vec::new();
        for effect in platform.drain() {
            if let Effect::Launch(launch) = effect {
                names.push(launch.name);
                platform.handle(Event::Up(launch.dyno));
            }
        }
        names
    }

    fn id(platform: &Platform, name: &str) -> Id {
        platform.listed().into_iter().find(|dyno| dyno.name == name).unwrap().id.clone()
    }

    fn terminated(effects: &[Effect]) -> Vec<Id> {
        effects
            .iter()
            .filter_map(|effect| if let Effect::Terminate(id) = effect { Some(id.clone()) } else { None })
            .collect()
    }

    fn launched(effects: &[Effect]) -> Vec<Id> {
        effects
            .iter()
            .filter_map(|effect| if let Effect::Launch(launch) = effect { Some(launch.dyno.clone()) } else { None })
            .collect()
    }

    #[test]
    fn the_new_process_starts_when_the_old_one_has_ended() {
        let mut platform = platform(1);
        let old = id(&platform, "web.1");
        assert!(platform.restart(&Target::Type("web".into()), usize::MAX));
        let effects = platform.drain();
        assert_eq!((terminated(&effects), launched(&effects)), (vec![old.clone()], vec![]));
        let middle = id(&platform, "web.1");
        // A second restart, while the first one waits, takes over its place.
        assert!(platform.restart(&Target::Name("web.1".into()), usize::MAX));
        let new = id(&platform, "web.1");
        assert!(old != middle && middle != new);
        assert_eq!(terminated(&platform.drain()), Vec::<Id>::new());
        platform.handle(Event::Exited(old, 143));
        assert_eq!(launched(&platform.drain()), [new]);
        assert_eq!(platform.dynos.len(), 1);
    }

    #[test]
    fn crashes_are_answered_more_and_more_slowly_until_somebody_restarts() {
        let mut platform = platform(1);
        let waits = |platform: &mut Platform| {
            let mut waits = Vec::new();
            for _ in 0..4 {
                let crashed = id(platform, "web.1");
                platform.handle(Event::Exited(crashed.clone(), 1));
                let revive = |effect: &Effect| match effect {
                    Effect::After(wait, Event::Revive(_)) => Some(wait.as_secs() / 60),
                    _ => None,
                };
                waits.extend(platform.drain().iter().find_map(revive));
                platform.handle(Event::Revive(crashed));
            }
            waits
        };
        assert_eq!(waits(&mut platform), [0, 10, 20, 40]);
        platform.restart(&Target::All, usize::MAX);
        boot_all(&mut platform);
        let waiting = platform.dynos.iter().find(|dyno| matches!(dyno.place, Place::Leaving(_))).unwrap().id.clone();
        platform.handle(Event::Exited(waiting, 143));
        assert_eq!(waits(&mut platform)[..2], [0, 10]);
    }

    #[test]
    fn a_restart_inside_the_preboot_window_opens_it_anew() {
        let mut platform = platform(1);
        platform.preboot = true;
        let oldest = id(&platform, "web.1");
        platform.restart(&Target::All, usize::MAX);
        let middle = id(&platform, "web.1");
        platform.restart(&Target::All, usize::MAX);
        boot_all(&mut platform);
        platform.handle(Event::WindowOver(1));
        assert!(terminated(&platform.drain()).is_empty());
        let routed = |platform: &Platform| {
            platform.dynos.iter().filter(|dyno| dyno.routed).map(|dyno| dyno.id.clone()).collect::<Vec<_>>()
        };
        assert_eq!(routed(&platform), std::slice::from_ref(&oldest));
        platform.handle(Event::WindowOver(2));
        assert_eq!(terminated(&platform.drain()), [oldest, middle]);
        assert_eq!(routed(&platform), [id(&platform, "web.1")]);
    }

    #[test]
    fn a_rolling_release_goes_on_as_dynos_come_up() {
        let mut platform = platform(5);
        platform.rolling = true;
        let slug = platform.releases[0].slug.clone();
        platform.deploy(slug);
        let mut steps = Vec::new();
        loop {
            let old = terminated(&platform.drain());
            if old.is_empty() {
                break;
            }
            steps.push(old.len());
            for id in old {
                platform.handle(Event::Exited(id, 143));
            }
            // All of this step come up before the next is looked at.
            let step: Vec<Id> = launched(&platform.drain());
            for id in step {
                platform.handle(Event::Up(id));
            }
        }
        assert_eq!(steps, [2, 2, 1]);
        assert!(platform.listed().iter().all(|dyno| dyno.release == 2 && dyno.state == State::Up));
    }

    #[test]
    fn a_release_command_that_is_stopped_fails_its_release_and_one_that_lasts_too_long_expires() {
        let mut platform = platform(1);
        let mut slug = platform.releases[0].slug.clone();
        slug.processes.insert("release".into(), "migrate".into());
        let (stopped, long) = (platform.deploy(slug.clone()), platform.deploy(slug));
        let release = |platform: &Platform, version| platform.release(version).unwrap().clone();
        let dyno = release(&platform, stopped).command_dyno.unwrap();
        let name = platform.dynos.iter().find(|other| other.id == dyno).unwrap().name.clone();
        assert!(platform.stop(&Target::Name(name), usize::MAX));
        platform.handle(Event::Exited(dyno, 143));
        assert!(platform.drain().contains(&Effect::After(Duration::from_hours(1), Event::ReleaseTimeout(long))));
        platform.handle(Event::ReleaseTimeout(long));
        assert_eq!(
            (release(&platform, stopped).status, release(&platform, long).status),
            (Status::Failed, Status::Expired)
        );
        assert_eq!((platform.current, platform.dynos.len()), (1, 1));
    }
}
