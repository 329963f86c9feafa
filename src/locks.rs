//! Locks in the migration's way: what is said of a wait, when it has lasted too long, and whether the command may run again.
//! Pure.

use std::path::Path;
use std::time::Duration;

use crate::debt::Digest;
use crate::migrations::Version;
use crate::ports::{Holder, Wait};
use crate::rails::Engine;
use crate::rails::migration::Nature;

/// A wait is said after this long: most are over before.
const TELL_AFTER: Duration = Duration::from_secs(3);

/// One that lasts is said again this often.
const TELL_AGAIN: Duration = Duration::from_secs(30);

/// A change in it is said, but not more often than this.
const TELL_CHANGE: Duration = Duration::from_secs(2);

/// How often the database is asked, where nothing asks for more.
const INTERVAL: Duration = Duration::from_secs(1);
const SHORTEST_INTERVAL: Duration = Duration::from_millis(50);

/// A server that ends waits by itself gets this much more time to do so.
const SERVER_FIRST: Duration = Duration::from_secs(1);

/// The longest pause before another attempt.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// So often at most the command is run again.
pub const RETRIES: u32 = 3;

/// What follows from a look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Deed {
    /// The first line announces those after it.
    Say(Vec<String>),
    Cancel(Wait),
}

/// The waits of one run of the command in one database.
#[derive(Debug)]
pub struct Story {
    /// Longer than this nothing of ours may wait.
    limit: Option<Duration>,
    open: Option<Open>,
    overlong: Option<String>,
}

/// A wait that is not over.
#[derive(Debug)]
struct Open {
    wait: Wait,
    since: Duration,
    told: Option<Told>,
    cancelled: bool,
}

/// What was said of it last.
#[derive(Debug)]
struct Told {
    at: Duration,
    holder: Option<String>,
    queue: bool,
}

impl Story {
    pub fn new(limit: Option<Duration>) -> Self {
        Self { limit, open: None, overlong: None }
    }

    /// How long to wait for the next look.
    pub fn interval(&self) -> Duration {
        self.limit.map_or(INTERVAL, |limit| (limit / 4).clamp(SHORTEST_INTERVAL, INTERVAL))
    }

    /// The wait that was, or was about to be, ended for being too long, if it was the last one.
    pub fn overlong(&self) -> Option<&str> {
        self.overlong.as_deref()
    }

    /// Takes in what was seen at `now`, a time that only goes forward.
    pub fn see(&mut self, now: Duration, waits: Vec<Wait>) -> Vec<Deed> {
        // With two that could be ours, one may be somebody else's.
        let sure = waits.iter().filter(|wait| wait.own).count() == 1;
        let wait = waits.into_iter().min_by_key(|wait| !wait.own);
        let mut deeds = Vec::from_iter(self.close(now, wait.as_ref()));
        let Some(wait) = wait else { return deeds };
        if self.open.is_none() {
            self.overlong = None;
        }
        let open =
            self.open.get_or_insert_with(|| Open { wait: wait.clone(), since: now, told: None, cancelled: false });
        open.wait = wait;
        let soon = self.limit.map_or(TELL_AFTER, |limit| (limit / 2).min(TELL_AFTER));
        let lasted = now.saturating_sub(open.since);
        if lasted >= soon && open.news(now) {
            deeds.push(Deed::Say(tell(&open.wait, lasted, self.limit.is_some())));
        }
        deeds.extend(self.bound(now, sure));
        deeds
    }

    /// Ends what waits no more, or waits for something else now.
    fn close(&mut self, now: Duration, wait: Option<&Wait>) -> Option<Deed> {
        let what = |wait: &Wait| (wait.session.clone(), wait.began.clone(), wait.statement.clone());
        let open = self.open.take_if(|open| wait.map(what) != Some(what(&open.wait)))?;
        open.told?;
        let lasted = seconds(now.saturating_sub(open.since));
        Some(Deed::Say(vec![format!("the wait for {} is over after {lasted}", open.wait.target)]))
    }

    /// Notes a wait that is about to be too long, and cancels it where the server does not.
    fn bound(&mut self, now: Duration, sure: bool) -> Option<Deed> {
        let (limit, interval) = (self.limit?, self.interval());
        let open = self.open.as_mut()?;
        let lasted = now.saturating_sub(open.since);
        // The server may end it before the next look but one.
        let ends_soon = open.wait.bounded && lasted.max(open.wait.age.unwrap_or_default()) + interval * 2 >= limit;
        let grace = if open.wait.bounded { SERVER_FIRST } else { Duration::ZERO };
        let cancel = sure && !open.cancelled && lasted >= limit + grace;
        if ends_soon || cancel {
            self.overlong = Some(blame(&open.wait));
        }
        open.cancelled |= cancel;
        cancel.then(|| Deed::Cancel(open.wait.clone()))
    }
}

impl Open {
    /// Whether there is something to say that was not said; then it counts as said. On a busy table the younger holders come and
    /// go: only the oldest one is news.
    fn news(&mut self, now: Duration) -> bool {
        let holder = self.wait.holders.first().map(|holder| holder.session.clone());
        let queue = self.wait.queue > 0;
        let news = self.told.as_ref().is_none_or(|told| {
            let since = now.saturating_sub(told.at);
            since >= TELL_AGAIN || (since >= TELL_CHANGE && (told.holder != holder || (queue && !told.queue)))
        });
        if news {
            self.told = Some(Told { at: now, holder, queue });
        }
        news
    }
}

/// `a lock on posts, held by session 55`.
fn blame(wait: &Wait) -> String {
    let holders: Vec<&str> = wait.holders.iter().map(|holder| holder.session.as_str()).collect();
    match (holders.is_empty(), wait.guess) {
        (true, _) => wait.target.clone(),
        (false, true) => format!("{}, perhaps held by session {}", wait.target, holders.join(", ")),
        (false, false) => format!("{}, held by session {}", wait.target, holders.join(", ")),
    }
}

fn tell(wait: &Wait, lasted: Duration, bounded: bool) -> Vec<String> {
    let whose = if wait.own { "the migration" } else { "a schema change, probably of the migration," };
    let mut lines = vec![format!(
        "{whose} waits for {} ({} so far): session {}, {}",
        wait.target,
        seconds(lasted),
        wait.session,
        shorten(&wait.statement)
    )];
    let held = if wait.guess { "may be held by" } else { "held by" };
    lines.extend(wait.holders.iter().take(5).map(|holder| format!("{held} {}", describe(holder))));
    if wait.holders.len() > 5 {
        lines.push(format!("and {} more", wait.holders.len() - 5));
    }
    if wait.holders.is_empty() {
        lines.push("who holds it cannot be seen with this user's rights (MySQL: grant process on *.*)".to_owned());
    }
    if wait.queue > 0 {
        let (sessions, queue) = if wait.queue == 1 { ("session", "queues") } else { ("sessions", "queue") };
        lines.push(format!("{} other {sessions} {queue} behind it: there the application stands still", wait.queue));
    }
    if let Some(holder) = wait.holders.first() {
        let bound = if bounded { "" } else { "; timeouts.ddl_lock bounds such waits" };
        lines.push(format!("to end what holds it: {}{bound}", holder.remedy));
    }
    lines
}

/// `session 55: app at 10.0.0.2 (puma), idle in transaction for 300 s, last statement: SELECT ...`
fn describe(holder: &Holder) -> String {
    let mut text = format!("session {}", holder.session);
    if !holder.user.is_empty() {
        text += &format!(": {}", holder.user);
    }
    if !holder.address.is_empty() {
        text += &format!(" at {}", holder.address);
    }
    if !holder.application.is_empty() {
        text += &format!(" ({})", holder.application);
    }
    if !holder.state.is_empty() {
        text += &format!(", {}", holder.state);
    }
    if let Some(since_s) = holder.since_s {
        text += &format!(" for {since_s} s");
    }
    if !holder.statement.is_empty() {
        let word = if holder.state == "active" { "statement" } else { "last statement" };
        text += &format!(", {word}: {}", shorten(&holder.statement));
    }
    text
}

fn seconds(time: Duration) -> String {
    if time < Duration::from_secs(10) {
        format!("{:.1} s", time.as_secs_f32())
    } else {
        format!("{} s", time.as_secs())
    }
}

/// A statement on one line that can be read.
fn shorten(statement: &str) -> String {
    let text = statement.split_whitespace().collect::<Vec<_>>().join(" ");
    if text.chars().count() <= 120 { text } else { text.chars().take(117).chain("...".chars()).collect() }
}

/// The pause before an attempt, the first retry being number 1: at least about as long as the application was held up, and
/// longer each time. `chance` is any number; runs that failed together do not come back together.
pub fn pause(retry: u32, limit: Duration, chance: u8) -> Duration {
    let whole = (limit * 2u32.saturating_pow(retry.saturating_sub(1))).min(LONGEST_PAUSE);
    whole / 2 + (whole / 2) * u32::from(chance) / u32::from(u8::MAX)
}

/// Whether this is Rails' own migration command, for all databases or for one of `names`, and nothing else: what a script or
/// another task does beside migrating is not known.
pub fn is_rails_own(command: &[String], names: &[&str]) -> bool {
    let words = match command {
        [bundle, exec, rest @ ..] if base(bundle) == "bundle" && exec == "exec" => rest,
        all => all,
    };
    let [program, tasks @ ..] = words else { return false };
    let migrates =
        |word: &str| word == "db:migrate" || word.strip_prefix("db:migrate:").is_some_and(|name| names.contains(&name));
    let harmless = |word: &str| word == "--trace" || word.starts_with("RAILS_ENV=");
    matches!(base(program), "rails" | "rake")
        && tasks.iter().any(|word| migrates(word))
        && tasks.iter().all(|word| migrates(word) || harmless(word))
}

fn base(program: &str) -> &str {
    Path::new(program).file_name().and_then(|name| name.to_str()).unwrap_or_default()
}

/// One database before an attempt, or after it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    pub digest: Digest,
    pub applied: Vec<Version>,
    /// The hash of its catalogue; `None` where it could not be read.
    pub catalogue: Option<String>,
}

/// Why an attempt that failed cannot be repeated in one database; `None`: it can. `failed` is the first migration that is still
/// pending, and what its file says; `None` where nothing is.
pub fn against(engine: Engine, before: &State, after: &State, failed: Option<(&str, &Nature)>) -> Option<String> {
    let (name, nature) = failed?;
    let same = before.digest == after.digest;
    if !before.applied.iter().all(|version| after.applied.binary_search(version).is_ok()) {
        return Some("versions that were applied are gone".to_owned());
    }
    if same && (before.catalogue.is_none() || after.catalogue.is_none()) {
        return Some(format!("whether {name} left a part of its change behind cannot be told"));
    }
    if same && before.catalogue != after.catalogue {
        return Some(format!("{name} left a part of its change behind"));
    }
    let outside = if engine == Engine::Mysql { "on MySQL none does" } else { nature.outside.as_deref()? };
    if !same {
        return Some(format!("others were applied before {name}, which does not run in a transaction ({outside})"));
    }
    let beyond = nature.beyond.as_deref()?;
    Some(format!(
        "{name} does not run in a transaction ({outside}) and may have changed data before it waited ({beyond})"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn waiting() -> Wait {
        Wait {
            session: "71".into(),
            statement: "ALTER TABLE posts\n  ADD b int".into(),
            target: "a lock on posts".into(),
            own: true,
            holders: vec![Holder {
                session: "55".into(),
                user: "app".into(),
                application: "puma".into(),
                address: "10.0.0.2".into(),
                state: "idle in transaction".into(),
                since_s: Some(300),
                statement: "SELECT 1".into(),
                remedy: "select pg_terminate_backend(55)".into(),
            }],
            ..Wait::default()
        }
    }

    fn said(deeds: &[Deed]) -> Vec<String> {
        let lines = |deed: &Deed| match deed {
            Deed::Say(lines) => lines.clone(),
            Deed::Cancel(wait) => vec![format!("cancel {}", wait.session)],
        };
        deeds.iter().flat_map(lines).collect()
    }

    #[test]
    fn a_wait_is_said_once_per_change() {
        let mut story = Story::new(None);
        let mut see = |at, waits| said(&story.see(s(at), waits));
        assert_eq!(see(0, vec![]), [""; 0]);
        assert_eq!(see(1, vec![waiting()]), [""; 0]);
        assert_eq!(see(3, vec![waiting()]), [""; 0]);
        let first = [
            "the migration waits for a lock on posts (3.0 s so far): session 71, ALTER TABLE posts ADD b int",
            "held by session 55: app at 10.0.0.2 (puma), idle in transaction for 300 s, last statement: SELECT 1",
            "to end what holds it: select pg_terminate_backend(55); timeouts.ddl_lock bounds such waits",
        ];
        assert_eq!(see(4, vec![waiting()]), first);
        let queue = |queue| vec![Wait { queue, ..waiting() }];
        assert_eq!(see(5, queue(1)), [""; 0], "not every second");
        assert_eq!(see(6, queue(2))[2], "2 other sessions queue behind it: there the application stands still");
        let younger = Holder { session: "56".into(), ..Holder::default() };
        let holders = [waiting().holders, vec![younger]].concat();
        assert_eq!(see(8, vec![Wait { queue: 3, holders, ..waiting() }]), [""; 0], "beginnings are news");
        assert_eq!(see(8, vec![Wait { holders: vec![], ..waiting() }]).len(), 2, "the holders changed");
        assert_eq!(see(37, vec![Wait { holders: vec![], ..waiting() }]), [""; 0]);
        assert_eq!(see(38, vec![Wait { holders: vec![], ..waiting() }]).len(), 2, "it lasts");
        assert_eq!(see(40, vec![]), ["the wait for a lock on posts is over after 39 s"]);
        assert_eq!(see(41, vec![]), [""; 0]);
    }

    #[test]
    fn another_statement_is_another_wait() {
        let mut story = Story::new(None);
        story.see(s(0), vec![waiting()]);
        assert_eq!(story.see(s(2), vec![Wait { statement: "DROP TABLE x".into(), ..waiting() }]), []);
        assert_eq!(story.see(s(4), vec![Wait { statement: "DROP TABLE x".into(), ..waiting() }]), []);
        assert_eq!(story.see(s(5), vec![Wait { statement: "DROP TABLE x".into(), ..waiting() }]).len(), 1);
    }

    #[test]
    fn a_wait_that_is_too_long_is_cancelled_once_and_only_if_it_is_ours() {
        let cancels = |wait: Wait, more: Vec<Wait>| {
            let mut story = Story::new(Some(s(8)));
            let cancelled = |deeds: &[Deed]| deeds.iter().any(|deed| matches!(deed, Deed::Cancel(_)));
            let at = (0..20).filter(|at| cancelled(&story.see(s(*at), [vec![wait.clone()], more.clone()].concat())));
            at.collect::<Vec<u64>>()
        };
        assert_eq!(cancels(waiting(), vec![]), [8]);
        assert_eq!(cancels(Wait { bounded: true, ..waiting() }, vec![]), [9], "the server has the first word");
        assert_eq!(cancels(Wait { own: false, ..waiting() }, vec![]), [0; 0]);
        assert_eq!(cancels(waiting(), vec![Wait { session: "72".into(), ..waiting() }]), [0; 0]);
    }

    #[test]
    fn only_the_last_wait_counts_as_too_long() {
        let mut story = Story::new(Some(s(8)));
        let bounded = || Wait { bounded: true, ..waiting() };
        for at in 0..6 {
            story.see(s(at), vec![bounded()]);
        }
        assert_eq!(story.overlong(), None);
        story.see(s(6), vec![bounded()]);
        assert_eq!(story.overlong(), Some("a lock on posts, held by session 55"));
        story.see(s(7), vec![]);
        assert!(story.overlong().is_some(), "it was the last thing that was seen");
        story.see(s(8), vec![Wait { statement: "DROP TABLE x".into(), ..bounded() }]);
        assert_eq!(story.overlong(), None);
    }

    #[test]
    fn pauses_grow_and_end() {
        let table =
            [(1, 8, 0, 4), (1, 8, 255, 8), (2, 8, 255, 16), (3, 8, 255, 30), (3, 3600, 0, 15), (40, 8, 255, 30)];
        for (retry, limit, chance, seconds) in table {
            assert_eq!(pause(retry, s(limit), chance), s(seconds), "{retry} {limit} {chance}");
        }
    }

    #[test]
    fn only_rails_own_command_is_repeated() {
        for (line, own) in [
            ("bin/rails db:migrate", true),
            ("bundle exec rake db:migrate", true),
            ("bin/rails db:migrate:primary --trace", true),
            ("bin/rails db:migrate db:seed", false),
            ("RAILS_ENV=x bin/rails db:migrate", false),
            ("rake db:migrate RAILS_ENV=production", true),
            ("bin/rails db:migrate:redo", false),
            ("bin/rails db:migrate:with_data", false),
            ("bin/rails --trace", false),
            ("bin/rails", false),
            ("sh -c bin/rails", false),
            ("bin/deploy db:migrate", false),
            ("", false),
        ] {
            let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
            assert_eq!(is_rails_own(&words, &["primary", "animals"]), own, "{line}");
        }
    }

    #[test]
    fn what_may_run_again() {
        let state = |versions: &[&str], catalogue: Option<&str>| {
            let applied: Vec<Version> = versions.iter().map(|version| Version::from_digits(version)).collect();
            State { digest: Digest::of(&applied), applied, catalogue: catalogue.map(str::to_owned) }
        };
        let (before, same) = (state(&["1"], Some("a")), state(&["1"], Some("a")));
        let (half, more, fewer) = (state(&["1"], Some("b")), state(&["1", "2"], Some("b")), state(&[], Some("a")));
        let blind = state(&["1"], None);
        let nature = |outside: bool, beyond: bool| Nature {
            outside: outside.then(|| "o".to_owned()),
            beyond: beyond.then(|| "b".to_owned()),
        };
        let (wrapped, schema, data) = (nature(false, true), nature(true, false), nature(true, true));
        let (pg, my) = (Engine::Postgresql, Engine::Mysql);
        for (engine, after, nature, may) in [
            (pg, &same, &wrapped, true),
            (pg, &more, &wrapped, true),
            (pg, &same, &schema, true),
            (pg, &more, &schema, false),
            (pg, &same, &data, false),
            (pg, &half, &wrapped, false),
            (pg, &blind, &wrapped, false),
            (pg, &fewer, &wrapped, false),
            (my, &same, &nature(false, false), true),
            (my, &same, &wrapped, false),
            (my, &more, &schema, false),
            (my, &half, &schema, false),
        ] {
            let why = against(engine, &before, after, Some(("AddB", nature)));
            assert_eq!(why.is_none(), may, "{engine:?} {after:?} {nature:?}: {why:?}");
        }
        assert_eq!(against(my, &before, &more, None), None, "nothing of it is left to run");
        let lost = against(pg, &state(&["1"], None), &state(&["1"], None), Some(("AddB", &wrapped)));
        assert!(lost.is_some(), "two catalogues that are not known are not the same");
    }
}
