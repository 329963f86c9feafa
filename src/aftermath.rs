//! How an app fares after a release: what its log and its dynos say before and after that moment. Pure.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use crate::dynos::{Dyno, Release, ReleaseStatus};
use crate::logs;
use crate::logs::troubles::{Class, Finder, Group, Groups, Trouble};

/// How the release turned out, the worst that is true.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The release itself failed: the one before it runs on.
    ReleaseFailed,
    /// New processes crash, or do not come up.
    Crashing,
    /// Processes of an older release are left.
    Stuck,
    /// Errors that were not there before, or that became frequent.
    NewErrors,
    /// Too little was seen to say that all is well.
    Unknown,
    Healthy,
}

impl Verdict {
    pub fn name(self) -> &'static str {
        match self {
            Self::ReleaseFailed => "release_failed",
            Self::Crashing => "crashing",
            Self::Stuck => "stuck",
            Self::NewErrors => "new_errors",
            Self::Unknown => "unknown",
            Self::Healthy => "healthy",
        }
    }

    pub fn exit_code(self) -> u8 {
        match self {
            Self::Healthy => 0,
            Self::NewErrors | Self::Unknown => 1,
            Self::ReleaseFailed => 3,
            Self::Crashing => 4,
            Self::Stuck => 7,
        }
    }
}

/// What was counted on one side of the release's moment.
#[derive(Debug, Default)]
pub struct Side {
    pub groups: Groups,
    /// The router's lines.
    pub requests: usize,
    pub failed_requests: usize,
    first: Option<Timestamp>,
    last: Option<Timestamp>,
}

/// A process type is a one-off where nothing keeps it running.
const ONE_OFF: [&str; 3] = ["run", "release", "scheduler"];

/// So many times as often is another matter than before.
const WORSE: f64 = 3.0;
/// Below that, chance is enough to explain it.
const WORSE_AT_LEAST: usize = 10;
/// A process may take so long to come up: the platform's own limit is a minute, and its list may be a little old.
const BOOT: SignedDuration = SignedDuration::from_secs(90);
/// A past that is shorter is none to compare with.
const ENOUGH_PAST: SignedDuration = SignedDuration::from_secs(30);

/// What was seen of one release.
pub struct Aftermath {
    pub release: Release,
    pub before: Side,
    pub after: Side,
    /// The dynos as they were last listed.
    pub dynos: Vec<Dyno>,
    /// By the platform's clock, when they were.
    pub looked_at: Option<Timestamp>,
    /// How often the log broke off, lossless or not.
    pub breaks: usize,
    /// What may have been missed, in words.
    pub missed: Vec<String>,
    /// A newer release that came meanwhile.
    pub overtaken_by: Option<u64>,
    finder: Finder,
}

impl Aftermath {
    pub fn of(release: Release) -> Self {
        Self {
            release,
            before: Side::default(),
            after: Side::default(),
            dynos: Vec::new(),
            looked_at: None,
            breaks: 0,
            missed: Vec::new(),
            overtaken_by: None,
            finder: Finder::default(),
        }
    }

    /// Hears a line, which is to be printable. Answers the troubles that are the first of their kind after the release, each with
    /// whether it is new.
    pub fn hear(&mut self, text: &str) -> Vec<(Trouble, bool)> {
        if let Some(line) = logs::parse(text) {
            let side = if line.at < self.release.created_at { &mut self.before } else { &mut self.after };
            side.first = side.first.into_iter().chain([line.at]).min();
            side.last = side.last.into_iter().chain([line.at]).max();
            if line.process == "router" && line.field("status").is_some() {
                side.requests += 1;
                side.failed_requests += usize::from(line.field("status").is_some_and(|status| status.starts_with('5')));
            }
        }
        let troubles = self.finder.hear(text);
        self.count(troubles)
    }

    /// Counts what may still be waiting for the rest of its backtrace.
    pub fn flush(&mut self) -> Vec<(Trouble, bool)> {
        let troubles = self.finder.flush();
        self.count(troubles)
    }

    fn count(&mut self, troubles: Vec<Trouble>) -> Vec<(Trouble, bool)> {
        let mut first = Vec::new();
        for trouble in troubles {
            if trouble.class == Class::LogLoss {
                self.miss(format!("the log dropped lines: {}", trouble.headline()));
            } else if trouble.at < self.release.created_at {
                self.before.groups.add(&trouble);
            } else if self.after.groups.add(&trouble) == 1 {
                let new = self.before.groups.get(&trouble.fingerprint()).is_none();
                first.push((trouble, new));
            }
        }
        first
    }

    /// Notes once that something may have been missed.
    pub fn miss(&mut self, what: String) {
        if !self.missed.contains(&what) {
            self.missed.push(what);
        }
    }

    /// How long the log goes back before the release, as far as there is a line.
    pub fn past(&self) -> Option<SignedDuration> {
        Some(self.release.created_at.duration_since(self.before.first?))
    }

    /// Whether there is a past to compare with.
    pub fn comparable(&self) -> bool {
        self.past().is_some_and(|past| past >= ENOUGH_PAST)
    }

    /// How long after the release the log was followed.
    pub fn since(&self) -> Option<SignedDuration> {
        let last = self.after.last.into_iter().chain(self.looked_at).max()?;
        Some(last.duration_since(self.release.created_at).max(SignedDuration::ZERO))
    }

    /// Whether this group is new since the release; `None` where no past is known.
    pub fn is_new(&self, group: &Group) -> Option<bool> {
        let known = self.before.groups.get(&group.fingerprint).is_some();
        (known || self.comparable()).then_some(!known)
    }

    /// Whether this group was there before, and became frequent.
    pub fn is_worse(&self, group: &Group) -> bool {
        let Some(before) = self.before.groups.get(&group.fingerprint) else { return false };
        let (Some(past), Some(since)) = (self.past(), self.since()) else { return false };
        let rate = |count: usize, time: SignedDuration| per_minute(count, time);
        self.comparable()
            && group.count >= WORSE_AT_LEAST
            && rate(group.count, since) >= WORSE * rate(before.count, past)
    }

    /// The dynos that are to run the new release: all but one-offs.
    pub fn lasting(&self) -> impl Iterator<Item = &Dyno> {
        self.dynos.iter().filter(|dyno| !ONE_OFF.contains(&dyno.kind.as_str()))
    }

    /// Whether a dyno began after the release was made. One release may run in several generations of processes.
    pub fn runs_it(&self, dyno: &Dyno) -> bool {
        match dyno.release {
            Some(release) => release >= self.release.version,
            None => dyno.created_at >= self.release.created_at,
        }
    }

    /// The dynos that run an older release.
    pub fn old(&self) -> Vec<&Dyno> {
        self.lasting().filter(|dyno| !self.runs_it(dyno)).collect()
    }

    /// The dynos of this release that are not up.
    pub fn not_up(&self) -> Vec<&Dyno> {
        self.lasting().filter(|dyno| self.runs_it(dyno) && !matches!(dyno.state.as_str(), "up" | "idle")).collect()
    }

    /// The dynos of this release that are not up, and cannot be on their way any more.
    fn failed_to_come_up(&self) -> bool {
        let on_its_way = |dyno: &Dyno| {
            let age = self.looked_at.map(|now| now.duration_since(dyno.created_at));
            dyno.state == "starting" && age.is_some_and(|age| age < BOOT)
        };
        self.not_up().into_iter().any(|dyno| !on_its_way(dyno))
    }

    /// Crashes after the release, of processes that are meant to last.
    fn crashes(&self) -> usize {
        let lasting = |group: &&Group| {
            group.example.class == Class::Crash && !ONE_OFF.contains(&logs::kind(&group.example.process))
        };
        self.after.groups.list.iter().filter(lasting).map(|group| group.count).sum()
    }

    /// Whether errors after the release are typical of processes older than the schema, and where they are.
    pub fn stuck_in(&self) -> Vec<String> {
        let stuck = self.after.groups.list.iter().filter(|group| group.example.stuck);
        let mut places: Vec<String> = stuck.flat_map(|group| group.processes.iter().cloned()).collect();
        places.sort();
        places.dedup();
        places
    }

    pub fn verdict(&self) -> Verdict {
        if matches!(self.release.status, ReleaseStatus::Failed | ReleaseStatus::Expired) {
            return Verdict::ReleaseFailed;
        }
        if self.looked_at.is_none() {
            return Verdict::Unknown;
        }
        if self.failed_to_come_up() || self.crashes() > 0 {
            return Verdict::Crashing;
        }
        if !self.old().is_empty() {
            return Verdict::Stuck;
        }
        let groups = &self.after.groups.list;
        if groups.iter().any(|group| self.is_new(group) == Some(true) || self.is_worse(group)) {
            return Verdict::NewErrors;
        }
        let untold = groups.iter().any(|group| self.is_new(group).is_none());
        if untold
            || !self.not_up().is_empty()
            || self.after.groups.others > 0
            || !self.missed.is_empty()
            || self.release.status == ReleaseStatus::Pending
        {
            return Verdict::Unknown;
        }
        Verdict::Healthy
    }

    /// What to do, in one sentence; and whether that is a rollback.
    pub fn advice(&self) -> (String, bool) {
        let version = self.release.version;
        let before = version.saturating_sub(1);
        match self.verdict() {
            Verdict::Healthy => ("nothing to do".to_owned(), false),
            Verdict::ReleaseFailed => (
                "the release before it runs on: read its output (`heroku releases:output`), mend and deploy again"
                    .to_owned(),
                false,
            ),
            Verdict::Stuck => ("`unstuck restart` replaces the processes of the older release".to_owned(), false),
            Verdict::Unknown => ("look again: `unstuck watch`, `unstuck tail --errors`".to_owned(), false),
            Verdict::NewErrors | Verdict::Crashing if !self.stuck_in().is_empty() => {
                let places = self.stuck_in().join(", ");
                (
                    format!(
                        "these errors are typical of processes older than the schema ({places}): `unstuck restart` first; rolling back would not heal them"
                    ),
                    false,
                )
            }
            Verdict::NewErrors | Verdict::Crashing if before == 0 => {
                ("this is the first release, so there is none to go back to: `unstuck tail --errors`".to_owned(), false)
            }
            Verdict::NewErrors => (
                format!(
                    "if they hurt your users, roll back: `unstuck rollback` (release v{version} brought them; `unstuck releases` lists where to)"
                ),
                true,
            ),
            Verdict::Crashing => {
                (format!("roll back: `unstuck rollback`, unless release v{before} crashed as well"), true)
            }
        }
    }

    /// The groups after the release with how often each was seen before it, new ones first, then by number.
    pub fn table(&self) -> Vec<(&Group, usize)> {
        let before = |group: &Group| self.before.groups.get(&group.fingerprint).map_or(0, |before| before.count);
        let mut table: Vec<_> = self.after.groups.list.iter().map(|group| (group, before(group))).collect();
        table.sort_by_key(|(group, before)| (*before > 0, std::cmp::Reverse(group.count)));
        table
    }

    /// How many dynos of each type are up, of how many.
    pub fn up(&self) -> BTreeMap<&str, (usize, usize)> {
        let mut types = BTreeMap::new();
        for dyno in self.lasting() {
            let (up, all) = types.entry(dyno.kind.as_str()).or_insert((0, 0));
            *up += usize::from(dyno.state == "up" && self.runs_it(dyno));
            *all += 1;
        }
        types
    }
}

/// Counts per minute. A time too short to divide by counts as a second.
pub fn per_minute(count: usize, time: SignedDuration) -> f64 {
    let count = u32::try_from(count).unwrap_or(u32::MAX);
    f64::from(count) * 60.0 / time.as_secs_f64().max(1.0)
}

#[cfg(test)]
mod tests {
    use jiff::{SignedDuration, Timestamp};

    use super::{Aftermath, Verdict, per_minute};
    use crate::dynos::{Dyno, Release, ReleaseStatus};

    /// The release's moment. Seconds of the tests are counted from it.
    fn moment() -> Timestamp {
        "2026-11-23T04:00:00Z".parse().unwrap()
    }

    fn dyno(name: &str, state: &str, release: Option<u64>, second: i64) -> Dyno {
        let created_at = moment() + SignedDuration::from_secs(second);
        let (name, state, kind) = (name.to_owned(), state.to_owned(), crate::logs::kind(name).to_owned());
        Dyno { id: name.clone(), name, kind, state, created_at, release }
    }

    /// What was seen of release 2: lines `second source[process]: message`, and one web dyno that runs it.
    fn seen(lines: &[&str]) -> Aftermath {
        let release = Release { version: 2, status: ReleaseStatus::Succeeded, created_at: moment() };
        let mut aftermath = Aftermath::of(release);
        aftermath.dynos = vec![dyno("web.1", "up", Some(2), 1)];
        aftermath.looked_at = Some(moment() + SignedDuration::from_mins(5));
        for line in lines {
            let (second, rest) = line.split_once(' ').unwrap();
            let at = moment() + SignedDuration::from_secs(second.parse().unwrap());
            aftermath.hear(&format!("{at} {rest}"));
        }
        aftermath.flush();
        aftermath
    }

    const PAST: &str = "-300 app[web.1]: hello";
    const ERROR_BEFORE: &str = "-200 app[web.1]: KeyError (key not found: :a):";
    const ERROR_AFTER: &str = "20 app[web.1]: KeyError (key not found: :a):";

    #[test]
    fn a_verdict_is_the_worst_that_is_true() {
        let many = [ERROR_AFTER; 12];
        for (lines, verdict) in [
            (vec![PAST], Verdict::Healthy),
            (vec![PAST, ERROR_BEFORE], Verdict::Healthy),
            (vec![PAST, ERROR_BEFORE, ERROR_AFTER], Verdict::Healthy),
            (vec![PAST, ERROR_AFTER], Verdict::NewErrors),
            ([&[PAST, ERROR_BEFORE][..], &many].concat(), Verdict::NewErrors),
            // Without a past, or with one too short, nothing is called new.
            (vec![], Verdict::Healthy),
            (vec![ERROR_AFTER], Verdict::Unknown),
            (vec!["-10 app[web.1]: hello", ERROR_AFTER], Verdict::Unknown),
            (vec!["-10 app[web.1]: KeyError (key not found: :a):", ERROR_AFTER], Verdict::Healthy),
            (vec![PAST, "20 heroku[logplex]: Error L10 (output buffer overflow)"], Verdict::Unknown),
            (vec![PAST, "20 heroku[web.1]: Process exited with status 1"], Verdict::Crashing),
            (vec![PAST, "-20 heroku[web.1]: Process exited with status 1"], Verdict::Healthy),
            (vec![PAST, "20 heroku[run.1]: Process exited with status 1"], Verdict::NewErrors),
        ] {
            assert_eq!(seen(&lines).verdict(), verdict, "{lines:?}");
        }
    }

    #[test]
    fn the_dynos_have_a_say() {
        for (dynos, verdict) in [
            (vec![], Verdict::Healthy),
            (vec![dyno("web.1", "up", Some(3), 9)], Verdict::Healthy),
            (vec![dyno("web.1", "up", None, 0)], Verdict::Healthy),
            (vec![dyno("web.1", "idle", Some(2), 0)], Verdict::Healthy),
            (vec![dyno("web.1", "starting", Some(2), 0)], Verdict::Crashing),
            (vec![dyno("web.1", "starting", Some(2), 211)], Verdict::Unknown),
            (vec![dyno("web.1", "crashed", Some(2), 299)], Verdict::Crashing),
            (vec![dyno("web.1", "crashed", Some(2), 0), dyno("worker.1", "up", Some(1), 0)], Verdict::Crashing),
            (vec![dyno("web.1", "up", Some(2), 0), dyno("worker.1", "up", Some(1), 9)], Verdict::Stuck),
            (vec![dyno("web.1", "up", None, -1)], Verdict::Stuck),
            // One-off dynos keep what they began with.
            (vec![dyno("run.1", "up", Some(1), -9), dyno("web.1", "up", Some(2), 0)], Verdict::Healthy),
        ] {
            let aftermath = Aftermath { dynos: dynos.clone(), ..seen(&[PAST]) };
            assert_eq!(aftermath.verdict(), verdict, "{dynos:?}");
        }
        assert_eq!(Aftermath { looked_at: None, ..seen(&[PAST]) }.verdict(), Verdict::Unknown);
    }

    #[test]
    fn a_release_that_failed_or_is_pending_is_not_healthy() {
        for (status, verdict) in [
            (ReleaseStatus::Failed, Verdict::ReleaseFailed),
            (ReleaseStatus::Expired, Verdict::ReleaseFailed),
            (ReleaseStatus::Pending, Verdict::Unknown),
        ] {
            let mut aftermath = seen(&[PAST]);
            aftermath.release.status = status;
            assert_eq!(aftermath.verdict(), verdict, "{status:?}");
        }
    }

    #[test]
    fn only_what_a_rollback_heals_is_rolled_back() {
        let stuck = "20 app[web.1]: ActiveModel::UnknownAttributeError (unknown attribute 'title' for Post.):";
        for (lines, rollback) in [
            (vec![PAST], false),
            (vec![PAST, ERROR_AFTER], true),
            (vec![PAST, stuck], false),
            (vec![PAST, "20 heroku[web.1]: Process exited with status 1"], true),
        ] {
            assert_eq!(seen(&lines).advice().1, rollback, "{lines:?}");
        }
    }

    #[test]
    fn requests_are_counted_on_their_side() {
        let router = |second: i64, status: &str| format!("{second} heroku[router]: at=info path=\"/\" status={status}");
        let lines = [router(-9, "200"), router(-8, "503"), router(0, "200"), router(5, "404"), router(6, "500")];
        let aftermath = seen(&lines.each_ref().map(String::as_str));
        let sides = [&aftermath.before, &aftermath.after].map(|side| (side.requests, side.failed_requests));
        assert_eq!(sides, [(2, 1), (3, 1)]);
        assert_eq!(aftermath.past(), Some(SignedDuration::from_secs(9)));
    }

    #[test]
    fn a_rate_needs_no_minute() {
        for (count, seconds, expected) in [(0, 60, 0.0), (6, 120, 3.0), (2, 0, 120.0), (1, 30, 2.0)] {
            let rate = per_minute(count, SignedDuration::from_secs(seconds));
            assert!((rate - expected).abs() < 1e-9, "{count} in {seconds}: {rate}");
        }
    }
}
