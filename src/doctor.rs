//! What would make the promise fail on the day it is needed: one small function for each check, and the table of them. Pure.
//!
//! A new check is a function from the [`Evidence`] to its verdicts, and a line in [`CHECKS`]. It says nothing where it does not
//! apply, and "could not tell" where the evidence is missing: that is no "all well".

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::config::{Place, Policy, Sourced, Timeouts, Types};
use crate::dynos::{App, Authorization, Deployed, DynoList, Formation, ReleaseStatus, Slug};
use crate::ports::{ApiError, ApiErrorKind};
use crate::rails::Engine;

pub mod procfile;

use self::procfile::{Flaw, Holds, flaws, holds_active_record};

/// What the API answered; `None`: it was not asked.
pub type Asked<T> = Option<Result<T, ApiError>>;

/// What did not work, and the way out, where one is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub message: String,
    pub hint: Option<String>,
}

/// Everything that the checks go by.
#[derive(Debug, Clone)]
pub struct Evidence {
    pub place: Place,
    pub types: Types,
    pub policy: Policy,
    pub timeouts: Timeouts,
    /// The names of the environment's variables that have a value.
    pub variables: BTreeSet<String>,
    /// The app's name, where one is known.
    pub app: Result<Option<Sourced<String>>, Failure>,
    /// The configuration file, which dynos have too, names the app.
    pub app_in_file: bool,
    /// Where the token comes from, where there is one.
    pub token: Result<Option<String>, Failure>,
    /// What is wrong with the store of the token.
    pub exposure: Option<String>,
    /// The account's address.
    pub account: Asked<String>,
    pub authorization: Asked<Option<Authorization>>,
    pub platform: Asked<App>,
    pub dynos: Asked<DynoList>,
    pub formation: Asked<Vec<Formation>>,
    /// The newest release.
    pub newest: Asked<Option<Deployed>>,
    /// What the current release runs.
    pub slug: Asked<Option<Slug>>,
    pub preboot: Asked<bool>,
    pub metadata: Asked<bool>,
    pub config_vars: Asked<BTreeSet<String>>,
    /// How far this machine's clock is ahead of the API's.
    pub ahead_s: Option<i64>,
    /// The local Procfile.
    pub procfile: Option<String>,
    /// The application's own files that its processes run, by their paths in it.
    pub scripts: BTreeMap<String, String>,
    /// Whether the migration command can be executed; why not.
    pub command: Result<(), String>,
    /// The databases that the environment names.
    pub databases: Result<Vec<Database>, Failure>,
}

/// One database, as far as it was asked.
#[derive(Debug, Clone)]
pub struct Database {
    pub name: String,
    pub engine: Engine,
    pub port: Option<u16>,
    /// The variable or the file's line that names it.
    pub from: String,
    /// Variables that lead to it directly.
    pub direct: Vec<String>,
    /// It has no migrations, so nothing is asked of it.
    pub unused: bool,
    /// What is wrong with its migration files.
    pub files: Result<(), Failure>,
    /// `None`: it was not asked, since the environment does not lead to the app's own.
    pub look: Option<Result<Seen, Failure>>,
}

/// What a look at a database found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[allow(clippy::struct_excessive_bools, reason = "each is one independent fact")]
pub struct Seen {
    pub read_only: bool,
    pub pooled: bool,
    /// Records of a newer unstuck.
    pub newer: bool,
    pub owed: bool,
    pub unproved: bool,
    pub pending: usize,
    pub lock: Locking,
    /// How far its clock is ahead of this machine's.
    pub ahead_s: Option<i64>,
}

/// What became of an attempt to take a database's run lock, which was given back at once.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Locking {
    /// SQLite's is a file that would have to be made.
    #[default]
    NotTried,
    Free,
    /// By whom, for people.
    Held(String),
    /// Why.
    Fails(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Grade {
    Pass,
    Unknown,
    Warn,
    Fail,
}

impl Grade {
    pub fn name(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Unknown => "unknown",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }
}

/// What one check says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    pub grade: Grade,
    pub message: String,
    /// What to do; `None` where nothing is to be done.
    pub remedy: Option<String>,
}

fn pass(message: impl Into<String>) -> Verdict {
    Verdict { grade: Grade::Pass, message: message.into(), remedy: None }
}

fn warn(message: impl Into<String>, remedy: impl Into<String>) -> Verdict {
    Verdict { grade: Grade::Warn, message: message.into(), remedy: Some(remedy.into()) }
}

fn fail(message: impl Into<String>, remedy: impl Into<String>) -> Verdict {
    Verdict { grade: Grade::Fail, message: message.into(), remedy: Some(remedy.into()) }
}

fn unknown(message: impl Into<String>, remedy: impl Into<String>) -> Verdict {
    Verdict { grade: Grade::Unknown, message: message.into(), remedy: Some(remedy.into()) }
}

/// A check: its name, and what it says.
pub type Check = (&'static str, fn(&Evidence) -> Vec<Verdict>);

/// In the order in which one thing depends on another.
pub const CHECKS: [Check; 18] = [
    ("app", app),
    ("credentials", credentials),
    ("account", account),
    ("scope", scope),
    ("api", api),
    ("clock", clock),
    ("release", release),
    ("procfile", procfile),
    ("release key", release_key),
    ("identity", identity),
    ("types", types),
    ("preboot", preboot),
    ("time-outs", timeouts),
    ("command", command),
    ("database.yml", database_yml),
    ("pooler", pooler),
    ("database", database),
    ("records", records),
];

/// What every check says, in the order of the table.
pub fn examine(evidence: &Evidence) -> Vec<(&'static str, Verdict)> {
    let run = |(name, check): &Check| check(evidence).into_iter().map(|verdict| (*name, verdict)).collect::<Vec<_>>();
    CHECKS.iter().flat_map(run).collect()
}

const TOKEN: &str =
    "heroku authorizations:create -s read,write --description unstuck, then set its token as HEROKU_API_KEY";
const LATER: &str = "put right what stands above, then ask again";

/// The answer, or what to say without one.
fn answer<'a, T>(asked: Option<&'a Result<T, ApiError>>, what: &str) -> Result<&'a T, Vec<Verdict>> {
    match asked {
        Some(Ok(answer)) => Ok(answer),
        Some(Err(error)) => {
            let remedy = error.hint.clone().unwrap_or_else(|| "is Heroku's API up? https://status.heroku.com".into());
            Err(vec![unknown(format!("{what}: {error}"), remedy)])
        }
        None => Err(vec![unknown(format!("{what}: the API was not asked"), LATER)]),
    }
}

fn of_failure(failure: &Failure) -> Verdict {
    fail(
        &failure.message,
        failure.hint.clone().unwrap_or_else(|| "`unstuck config` shows where each value comes from".into()),
    )
}

fn app(evidence: &Evidence) -> Vec<Verdict> {
    vec![match &evidence.app {
        Ok(Some(app)) => pass(format!("{} (from {})", app.value, app.from)),
        Ok(None) => fail(
            "it is not known which Heroku app this is",
            "give --app APP or --remote REMOTE, or set UNSTUCK_APP, or `app:` in .unstuck.yml",
        ),
        Err(failure) => of_failure(failure),
    }]
}

fn credentials(evidence: &Evidence) -> Vec<Verdict> {
    let mut verdicts = vec![match &evidence.token {
        Ok(Some(from)) => pass(format!("a token from {from}")),
        Ok(None) if evidence.policy == Policy::Handoff && evidence.place.is_release() => {
            pass("none, and `restart.policy: handoff` needs none in the release phase")
        }
        Ok(None) => fail("no credentials for Heroku's API were given", TOKEN),
        Err(failure) => of_failure(failure),
    }];
    verdicts
        .extend(evidence.exposure.iter().map(|exposure| warn(exposure, "chmod 600 the file, and make a new token")));
    verdicts
}

/// Tokens of few scopes may not ask who they belong to, and need not.
fn account(evidence: &Evidence) -> Vec<Verdict> {
    vec![match &evidence.account {
        Some(Err(error)) if error.kind == ApiErrorKind::Unauthorized => {
            fail("the token is not, or no longer, good", TOKEN)
        }
        Some(Err(error)) if error.kind == ApiErrorKind::Forbidden && error.id.as_deref() != Some("forbidden") => {
            fail(error.to_string(), error.hint.clone().unwrap_or_else(|| TOKEN.into()))
        }
        Some(Err(error)) if error.kind == ApiErrorKind::Forbidden => {
            pass("the token may not read its account, which is not needed")
        }
        asked => match answer(asked.as_ref(), "the account") {
            Ok(email) => pass(format!("the token is good, and {email}'s")),
            Err(verdicts) => return verdicts,
        },
    }]
}

/// A token that ends within this time has to be replaced now.
const SOON_S: i64 = 14 * 86_400;

fn scope(evidence: &Evidence) -> Vec<Verdict> {
    let shows_later = "whether the token may restart shows only when it does";
    let authorization = match &evidence.authorization {
        Some(Ok(Some(authorization))) => authorization,
        Some(Ok(None)) => {
            return vec![unknown(
                format!("{shows_later}: the account does not list it"),
                "`unstuck restart --all` tries it",
            )];
        }
        Some(Err(error)) if error.kind == ApiErrorKind::Forbidden => {
            return vec![unknown(
                format!("{shows_later}: it may not read its own scope"),
                "`heroku authorizations` lists the scopes, which should be read and write; `unstuck restart --all` tries it",
            )];
        }
        asked => return answer(asked.as_ref(), "the token's scope").err().unwrap_or_default(),
    };
    let has = |wanted: &[&str]| authorization.scope.iter().any(|scope| wanted.contains(&scope.as_str()));
    let scopes = authorization.scope.join(", ");
    let mut verdicts =
        vec![match (has(&["global", "write", "write-protected"]), has(&["global", "read", "read-protected"])) {
            (true, true) => pass(format!("the token's scope is {scopes}")),
            (false, _) => fail(format!("the token may not restart: its scope is {scopes}"), TOKEN),
            (true, false) => fail(format!("the token may not list dynos: its scope is {scopes}"), TOKEN),
        }];
    if let Some(left) = authorization.expires_in_s.filter(|left| *left < SOON_S) {
        let left = crate::releases::span(left);
        verdicts
            .push(warn(format!("the token ends in {left}"), format!("{TOKEN}; without --expires-in it does not end")));
    }
    verdicts
}

fn api(evidence: &Evidence) -> Vec<Verdict> {
    let refused = |error: &ApiError| {
        fail(
            error.to_string(),
            error.hint.clone().unwrap_or_else(|| "is Heroku's API up? https://status.heroku.com".into()),
        )
    };
    let app = match &evidence.platform {
        Some(Ok(app)) => app,
        Some(Err(error)) => return vec![refused(error)],
        None => return vec![unknown("the API was not asked", LATER)],
    };
    match &evidence.dynos {
        Some(Ok(list)) => {
            vec![pass(format!("{} is reachable, and its {} dynos can be listed", app.name, list.dynos.len()))]
        }
        Some(Err(error)) => vec![refused(error)],
        None => vec![unknown("the dynos were not listed", LATER)],
    }
}

/// Proofs go by the platform's clock alone; a clock that is wrong still confuses whoever compares log lines, and TLS.
const APART_S: i64 = 60;

fn clock(evidence: &Evidence) -> Vec<Verdict> {
    let Some(ahead) = evidence.ahead_s else {
        return vec![unknown("how this machine's clock stands to the API's", LATER)];
    };
    vec![if ahead.abs() <= APART_S {
        pass("this machine's clock and the API's agree")
    } else {
        let way = if ahead > 0 { "ahead of" } else { "behind" };
        let apart = crate::releases::span(ahead.abs());
        warn(
            format!(
                "this machine's clock is {apart} {way} the API's; no proof depends on it, but times in logs cannot be compared"
            ),
            "set the clock by NTP",
        )
    }]
}

fn release(evidence: &Evidence) -> Vec<Verdict> {
    let newest = match answer(evidence.newest.as_ref(), "the newest release") {
        Ok(Some(newest)) => newest,
        Ok(None) => return vec![warn("the app has no releases", "deploy it first")],
        Err(verdicts) => return verdicts,
    };
    let version = newest.version;
    vec![match newest.status {
        ReleaseStatus::Succeeded => pass(format!("v{version} is current")),
        ReleaseStatus::Pending => warn(
            format!("v{version} is pending: dynos boot the release before until it is done"),
            "wait, then ask again",
        ),
        ReleaseStatus::Failed | ReleaseStatus::Expired => warn(
            format!(
                "v{version} {}, so older code runs on whatever schema its release phase left",
                newest.status.name()
            ),
            format!("heroku releases:output v{version} says why; `unstuck status` shows what is owed"),
        ),
    }]
}

/// The processes that are declared: here, or else by the current release.
fn declared(evidence: &Evidence) -> Option<BTreeMap<String, String>> {
    let deployed = || Some(evidence.slug.as_ref()?.as_ref().ok()?.as_ref()?.processes.clone());
    evidence.procfile.as_deref().map(procfile::parse).or_else(deployed)
}

/// What each process type runs. An image of a container declares nothing, but the platform knows what it starts.
pub fn commands(evidence: &Evidence) -> BTreeMap<String, String> {
    let started = evidence.formation.iter().flatten().flatten();
    let mut commands: BTreeMap<String, String> =
        started.map(|wanted| (wanted.kind.clone(), wanted.command.clone())).collect();
    commands.extend(declared(evidence).unwrap_or_default());
    commands
}

const RELEASE_LINE: &str = "the Procfile should say `release: unstuck migrate`";

fn procfile(evidence: &Evidence) -> Vec<Verdict> {
    let Some(declared) = declared(evidence) else {
        return vec![unknown(
            "there is no Procfile here, and no release to read it from",
            "run this in the Rails root, or give -C DIR",
        )];
    };
    let Some(line) = declared.get("release") else {
        return vec![warn("the Procfile has no `release:` line, so a deploy migrates nothing", RELEASE_LINE)];
    };
    let mut verdicts: Vec<Verdict> = flaws(line).into_iter().map(|flaw| of_flaw(flaw, line)).collect();
    if verdicts.is_empty() {
        verdicts.push(pass(format!("release: {line}")));
    }
    if let Some(Ok(Some(slug))) = &evidence.slug
        && slug.processes.get("release") != Some(line)
    {
        verdicts
            .push(warn("the current release has another `release:` line than this Procfile", "deploy this Procfile"));
    }
    verdicts
}

fn of_flaw(flaw: Flaw, line: &str) -> Verdict {
    match flaw {
        Flaw::MigratesAlone => fail(
            format!("`release: {line}` migrates without unstuck, so nothing is recorded or restarted"),
            RELEASE_LINE,
        ),
        Flaw::MigratesNothing => warn(format!("`release: {line}` does not run `unstuck migrate`"), RELEASE_LINE),
        Flaw::MigratesBeside => fail(
            format!("`release: {line}` also migrates beside unstuck, which then cannot record that a restart is owed"),
            "leave the other migration out: `unstuck migrate -- COMMAND` runs it with a record",
        ),
        Flaw::Hidden(operator) => fail(
            format!(
                "`release: {line}`: what follows `{operator}` hides the exit code of `unstuck migrate`, so a failed migration is released"
            ),
            "let `unstuck migrate` be the last command, behind `&&`",
        ),
        Flaw::Unreached(operator) => fail(
            format!("`release: {line}`: behind `{operator}`, `unstuck migrate` runs only by chance"),
            "let `unstuck migrate` be the last command, behind `&&`",
        ),
        Flaw::NotLast => warn(
            format!(
                "`release: {line}`: what follows may fail the release after its migration, and old code then runs on the new schema"
            ),
            "let `unstuck migrate` be the last command, behind `&&`",
        ),
        Flaw::Pooled => fail(
            format!("`release: {line}` migrates through a pooler, where session locks do not work"),
            "run `unstuck migrate` without bin/start-pgbouncer",
        ),
    }
}

/// Whether the release phase is one of unstuck's: else it needs no key.
fn release_runs_unstuck(evidence: &Evidence) -> bool {
    let flaws =
        |line: &String| flaws(line).iter().any(|flaw| matches!(flaw, Flaw::MigratesAlone | Flaw::MigratesNothing));
    declared(evidence).and_then(|declared| declared.get("release").map(|line| !flaws(line))).unwrap_or(false)
}

fn release_key(evidence: &Evidence) -> Vec<Verdict> {
    if !release_runs_unstuck(evidence) {
        return Vec::new();
    }
    if evidence.policy == Policy::Handoff {
        return vec![pass("`restart.policy: handoff` needs no key in the release phase")];
    }
    let set =
        "heroku config:set HEROKU_API_KEY=TOKEN, with a token of its own (heroku authorizations:create -s read,write)";
    if evidence.place.dyno().is_some() {
        let here = evidence.variables.contains("HEROKU_API_KEY");
        return vec![if here { pass("dynos have HEROKU_API_KEY") } else { fail("dynos have no HEROKU_API_KEY", set) }];
    }
    vec![match &evidence.config_vars {
        Some(Ok(names)) if names.contains("HEROKU_API_KEY") => pass("the app has the config var HEROKU_API_KEY"),
        Some(Ok(_)) => fail("the app has no config var HEROKU_API_KEY, so its release phase refuses to migrate", set),
        Some(Err(error)) if error.kind == ApiErrorKind::Forbidden => unknown(
            "whether the app has HEROKU_API_KEY: this token may not read config vars",
            "heroku config:get HEROKU_API_KEY",
        ),
        asked => return answer(asked.as_ref(), "the app's config vars").err().unwrap_or_default(),
    }]
}

/// In a dyno the app has to be known without a git repository.
fn identity(evidence: &Evidence) -> Vec<Verdict> {
    let labs = "heroku labs:enable runtime-dyno-metadata, and deploy; or set UNSTUCK_APP, or `app:` in .unstuck.yml";
    let names = ["HEROKU_APP_ID", "UNSTUCK_APP", "HEROKU_APP_NAME"];
    let here = evidence.place.dyno().is_some() && names.iter().any(|name| evidence.variables.contains(*name));
    let by_var = matches!(&evidence.config_vars, Some(Ok(vars)) if names.iter().any(|name| vars.contains(*name)));
    vec![match &evidence.metadata {
        _ if here => pass("dynos are told their app"),
        Some(Ok(true)) => pass("dynos are told their app and release (runtime-dyno-metadata)"),
        _ if evidence.app_in_file || by_var => pass("dynos know their app by its configuration"),
        Some(Ok(false)) => {
            warn("dynos are not told which app they belong to (the labs feature runtime-dyno-metadata is off)", labs)
        }
        asked => return answer(asked.as_ref(), "whether dynos are told their app").err().unwrap_or_default(),
    }]
}

fn types(evidence: &Evidence) -> Vec<Verdict> {
    let declared = declared(evidence).unwrap_or_default();
    let quantity = |kind: &str| {
        let formation = evidence.formation.as_ref()?.as_ref().ok()?;
        formation.iter().find(|wanted| wanted.kind == kind).map(|wanted| wanted.quantity)
    };
    let mut verdicts = Vec::new();
    let known: BTreeSet<&str> = declared
        .keys()
        .map(String::as_str)
        .chain(evidence.formation.iter().flatten().flatten().map(|wanted| wanted.kind.as_str()))
        .collect();
    if let Types::Named(named) = &evidence.types {
        for kind in named.iter().filter(|kind| !known.is_empty() && !known.contains(kind.as_str())) {
            verdicts.push(fail(
                format!("restart.types names {kind}, which is no process type of this app"),
                format!("the app has {}", known.iter().copied().collect::<Vec<_>>().join(", ")),
            ));
        }
    }
    for (kind, command) in &commands(evidence) {
        let left_out = !evidence.types.include(kind) && !matches!(kind.as_str(), "release" | "console");
        if !left_out || quantity(kind) == Some(0) {
            continue;
        }
        match holds_active_record(command, |path| evidence.scripts.get(path).cloned()) {
            Holds::Yes => verdicts.push(warn(
                format!("{kind} runs the application ({command}), and is not restarted after a migration"),
                format!("add {kind} to restart.types in .unstuck.yml"),
            )),
            Holds::Unknown => verdicts.push(unknown(
                format!("whether {kind} ({command}) runs the application; it is not restarted after a migration"),
                format!("add {kind} to restart.types in .unstuck.yml, if it does"),
            )),
            Holds::No => {}
        }
    }
    if verdicts.is_empty() && known.is_empty() {
        return vec![unknown("which process types the app has", LATER)];
    }
    if verdicts.is_empty() {
        verdicts.push(pass(format!("restarted after a migration: {}", evidence.types.names().join(", "))));
    }
    verdicts
}

fn preboot(evidence: &Evidence) -> Vec<Verdict> {
    let on = match answer(evidence.preboot.as_ref(), "whether preboot is on") {
        Ok(on) => *on,
        Err(verdicts) => return verdicts,
    };
    let kept = "preboot is on: after each restart, old web processes serve for some 3 minutes more, unlisted, on the schema as it is";
    vec![match (on, evidence.policy) {
        (false, _) => pass("preboot is off"),
        (true, Policy::Api) => warn(
            format!("{kept}; `restart.policy: api` restarts within that time and makes it longer"),
            "set `restart.policy: auto`, which leaves the restart to the release",
        ),
        (true, Policy::Auto | Policy::Handoff) => {
            warn(kept, "migrate in steps that the old code can live with, or turn preboot off")
        }
    }]
}

/// A release command is ended after an hour.
const RELEASE_PHASE: Duration = Duration::from_hours(1);

fn timeouts(evidence: &Evidence) -> Vec<Verdict> {
    let Timeouts { lock, health, api, poll, migrate, .. } = &evidence.timeouts;
    let (prove, prove_release) = (evidence.timeouts.prove(false), evidence.timeouts.prove(true));
    let said = |time: Duration| format!("{time:?}");
    let ending = migrate.as_ref().map(|migrate| migrate.value);
    let in_release = lock.value + ending.unwrap_or_default() + prove_release;
    let table = [
        (
            poll.value * 2 > prove,
            format!(
                "timeouts.poll ({}) leaves no second look before timeouts.prove ({})",
                said(poll.value),
                said(prove)
            ),
            "make poll shorter, or prove longer",
        ),
        (
            api.value >= prove,
            format!(
                "one request (timeouts.api, {}) may take as long as the whole proof ({})",
                said(api.value),
                said(prove)
            ),
            "make api shorter, or prove longer",
        ),
        (
            prove < Duration::from_secs(40),
            format!("old processes may take 30 s to end, and timeouts.prove is {}", said(prove)),
            "give prove a minute at least",
        ),
        (
            health.value < Duration::from_mins(1),
            format!("a web process may take 60 s to boot, and timeouts.health is {}", said(health.value)),
            "give health a minute at least",
        ),
        (
            in_release >= RELEASE_PHASE,
            format!(
                "lock, migrate and prove together ({}) are longer than the hour that a release phase has",
                said(in_release)
            ),
            "shorten timeouts.migrate: a migration that is ended by unstuck is reported, one that the platform kills is not",
        ),
    ];
    let verdicts: Vec<Verdict> =
        table.into_iter().filter(|(wrong, ..)| *wrong).map(|(_, message, remedy)| warn(message, remedy)).collect();
    if verdicts.is_empty() { vec![pass("they go together")] } else { verdicts }
}

fn command(evidence: &Evidence) -> Vec<Verdict> {
    vec![match &evidence.command {
        Ok(()) => pass("the migration command can be executed"),
        Err(why) => fail(
            format!("the migration command cannot be executed: {why}"),
            "is this the Rails root (-C DIR)? `git update-index --chmod=+x bin/rails` makes it executable; `command:` names another",
        ),
    }]
}

fn database_yml(evidence: &Evidence) -> Vec<Verdict> {
    let databases = match &evidence.databases {
        Ok(databases) => databases,
        Err(failure) => return vec![of_failure(failure)],
    };
    let mut verdicts: Vec<Verdict> =
        databases.iter().filter_map(|database| database.files.as_ref().err().map(of_failure)).collect();
    if evidence.place.dyno().is_some() && databases.iter().any(|database| database.engine == Engine::Sqlite) {
        verdicts.push(fail(
            "SQLite on a dyno: the file is this dyno's alone and vanishes with it",
            "use a database server: heroku addons:create heroku-postgresql",
        ));
    }
    if databases.is_empty() {
        verdicts
            .push(fail("no database is configured", "is this the Rails root (-C DIR), and RAILS_ENV the right one?"));
    }
    if verdicts.is_empty() {
        let names: Vec<String> =
            databases.iter().map(|database| format!("{} ({})", database.name, database.from)).collect();
        verdicts.push(pass(names.join(", ")));
    }
    verdicts
}

/// Ports that only poolers have: PgBouncer's own, and that of Heroku's buildpack for it.
const POOLER_PORTS: [u16; 2] = [6432, 6000];

fn pooler(evidence: &Evidence) -> Vec<Verdict> {
    let Ok(databases) = &evidence.databases else { return Vec::new() };
    let named = |from: &str| from.contains("POOL") || from.contains("BOUNCER");
    let verdict = |database: &Database| {
        let proved = matches!(&database.look, Some(Ok(seen)) if seen.pooled);
        let direct_seen = matches!(&database.look, Some(Ok(seen)) if !seen.pooled);
        let looks = database.port.is_some_and(|port| POOLER_PORTS.contains(&port)) || named(&database.from);
        let way = match &database.direct[..] {
            [] => "set DATABASE_URL to the direct address for this command, outside of bin/start-pgbouncer".to_owned(),
            found => format!("{} leads there: DATABASE_URL=\"${}\" unstuck migrate", found.join(" or "), found[0]),
        };
        let name = &database.name;
        match (proved, looks && !direct_seen) {
            (true, _) => {
                Some(fail(format!("{name} is reached through a pooler, where session locks do not work"), way))
            }
            (false, true) => Some(warn(format!("{name} looks like a pooler by its address ({})", database.from), way)),
            (false, false) => None,
        }
    };
    let verdicts: Vec<Verdict> = databases.iter().filter_map(verdict).collect();
    if verdicts.is_empty() { vec![pass("no database is reached through a pooler")] } else { verdicts }
}

fn database(evidence: &Evidence) -> Vec<Verdict> {
    let Ok(databases) = &evidence.databases else {
        return vec![unknown("whether the databases can be reached", LATER)];
    };
    databases.iter().flat_map(one_database).collect()
}

fn one_database(database: &Database) -> Vec<Verdict> {
    let name = &database.name;
    if database.unused || database.files.is_err() {
        return Vec::new();
    }
    let seen = match &database.look {
        None => {
            return vec![unknown(
                format!("{name} was not asked: from here the environment does not lead to the app's own database"),
                "heroku run unstuck doctor, or set DATABASE_URL",
            )];
        }
        Some(Err(failure)) => return vec![of_failure(failure)],
        Some(Ok(seen)) => seen,
    };
    let mut verdicts = Vec::new();
    if seen.read_only {
        let remedy = "point DATABASE_URL at the primary, not at a follower, with a role that may write";
        verdicts.push(fail(format!("{name} is read-only, so no restart can be recorded"), remedy));
    }
    match &seen.lock {
        Locking::Held(holder) => {
            verdicts.push(warn(format!("another run holds the lock of {name}: {holder}"), "wait for it to end"));
        }
        Locking::Fails(why) => verdicts.push(fail(
            format!("the lock of {name} cannot be taken: {why}"),
            "session locks have to work: use the direct address of the primary",
        )),
        Locking::NotTried | Locking::Free => {}
    }
    if let Some(ahead) = seen.ahead_s.filter(|ahead| ahead.abs() > APART_S) {
        let apart = crate::releases::span(ahead.abs());
        verdicts.push(warn(
            format!("the clock of {name} is {apart} away from this machine's; no proof depends on it, but the age of records does"),
            "set the clock of the server by NTP",
        ));
    }
    if verdicts.is_empty() {
        let locked = if seen.lock == Locking::Free { ", and locked" } else { "" };
        let clock = if seen.ahead_s.is_some() { "; its clock agrees with this machine's" } else { "" };
        verdicts.push(pass(format!("{name} can be reached{locked}{clock}")));
    }
    verdicts
}

fn records(evidence: &Evidence) -> Vec<Verdict> {
    let Ok(databases) = &evidence.databases else { return Vec::new() };
    let looked = databases.iter().filter_map(|database| Some((&database.name, database.look.as_ref()?.as_ref().ok()?)));
    let verdict = |(name, seen): (&String, &Seen)| match seen {
        Seen { newer: true, .. } => fail(
            format!("{name} has records of a newer unstuck, so this one refuses to act"),
            "update unstuck here: buildpack, image or laptop",
        ),
        Seen { owed: true, .. } => {
            warn(format!("a restart is owed in {name}"), "`unstuck status` says why; `unstuck restart` pays it")
        }
        Seen { unproved: true, .. } => warn(
            format!("{name} has no record yet that the running processes are newer than the schema"),
            "`unstuck restart --all` makes the first proof",
        ),
        Seen { pending, .. } if *pending > 0 => {
            warn(format!("{pending} migrations are pending in {name}"), "`unstuck migrate` runs them")
        }
        _ => pass(format!("nothing is pending or owed in {name}")),
    };
    looked.map(verdict).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Common, How};
    use crate::config::Settings;
    use crate::dynos::Generation;
    use jiff::Timestamp;

    fn error(kind: ApiErrorKind, id: &str) -> ApiError {
        ApiError { kind, status: None, id: Some(id.to_owned()), message: format!("made up: {id}"), hint: None }
    }

    fn failure() -> Failure {
        Failure { message: "made up".to_owned(), hint: Some("a way out".to_owned()) }
    }

    fn deployed(status: ReleaseStatus) -> Deployed {
        let at = Timestamp::from_second(1_800_000_000).unwrap();
        Deployed {
            id: String::new(),
            version: 7,
            status,
            current: true,
            description: String::new(),
            user: String::new(),
            created_at: at,
            updated_at: at,
            slug: None,
            eligible: true,
            output: None,
        }
    }

    const PROCFILE: &str = "web: bundle exec puma\nclock: node clock.js\nrelease: unstuck migrate\n";

    /// An app of which every check says that all is well.
    fn healthy() -> Evidence {
        let common = Common { directory: Some(std::env::temp_dir()), ..Common::default() };
        let settings = Settings::load(&common, &How::default(), &[], BTreeMap::new()).unwrap();
        let date = Timestamp::from_second(1_800_000_000).unwrap();
        let platform = App { id: "id".into(), name: "my-app".into(), generation: Generation::Cedar };
        let slug = Slug { commit: None, processes: procfile::parse(PROCFILE) };
        let seen = Seen::default();
        Evidence {
            place: Place::Outside,
            types: Types::Named(vec!["web".into()]),
            policy: Policy::Auto,
            timeouts: settings.timeouts,
            variables: BTreeSet::new(),
            app: Ok(Some(Sourced { value: "my-app".into(), from: "--app".into() })),
            app_in_file: false,
            token: Ok(Some("HEROKU_API_KEY".into())),
            exposure: None,
            account: Some(Ok("ann@example.com".into())),
            authorization: Some(Ok(Some(Authorization { scope: vec!["global".into()], expires_in_s: None }))),
            platform: Some(Ok(platform)),
            dynos: Some(Ok(DynoList { dynos: Vec::new(), date })),
            formation: Some(Ok(vec![Formation {
                kind: "web".into(),
                quantity: 2,
                command: "bundle exec puma".into(),
            }])),
            newest: Some(Ok(Some(deployed(ReleaseStatus::Succeeded)))),
            slug: Some(Ok(Some(slug))),
            preboot: Some(Ok(false)),
            metadata: Some(Ok(true)),
            config_vars: Some(Ok(BTreeSet::from(["HEROKU_API_KEY".to_owned()]))),
            ahead_s: Some(1),
            procfile: Some(PROCFILE.to_owned()),
            scripts: BTreeMap::new(),
            command: Ok(()),
            databases: Ok(vec![Database {
                name: "primary".into(),
                engine: Engine::Postgresql,
                port: None,
                from: "DATABASE_URL".into(),
                direct: Vec::new(),
                unused: false,
                files: Ok(()),
                look: Some(Ok(seen)),
            }]),
        }
    }

    fn scoped(evidence: &mut Evidence, scope: &[&str], expires_in_s: Option<i64>) {
        let scope = scope.iter().map(|&word| word.to_owned()).collect();
        evidence.authorization = Some(Ok(Some(Authorization { scope, expires_in_s })));
    }

    /// What one look at the database found.
    fn sees(evidence: &mut Evidence, seen: Seen) {
        evidence.databases.as_mut().unwrap()[0].look = Some(Ok(seen));
    }

    #[test]
    fn an_app_of_which_nothing_is_wrong_passes_every_check() {
        let found = examine(&healthy());
        assert!(found.iter().all(|(_, verdict)| verdict.grade == Grade::Pass), "{found:#?}");
        let names: BTreeSet<&str> = found.iter().map(|(name, _)| *name).collect();
        assert_eq!(names.len(), CHECKS.len(), "every check says something");
    }

    type Change = fn(&mut Evidence);

    /// One thing is wrong: the check of this name says so, with a remedy, and no other one does.
    #[track_caller]
    fn finds(table: &[(&str, Grade, &str, Change)]) {
        for (check, grade, words, change) in table {
            let mut evidence = healthy();
            change(&mut evidence);
            let found: Vec<_> =
                examine(&evidence).into_iter().filter(|(_, verdict)| verdict.grade != Grade::Pass).collect();
            let [(name, verdict)] = &found[..] else { panic!("{check}, {words}: {found:#?}") };
            assert_eq!((name, verdict.grade), (check, *grade), "{words}: {found:#?}");
            assert!(verdict.message.contains(words), "{words}: {found:#?}");
            assert!(verdict.remedy.is_some(), "{words}");
        }
    }

    #[test]
    fn what_is_wrong_with_the_credentials() {
        use Grade::{Fail, Unknown, Warn};
        finds(&[
            ("app", Fail, "not known which", |e| e.app = Ok(None)),
            ("app", Fail, "made up", |e| e.app = Err(failure())),
            ("credentials", Fail, "no credentials", |e| e.token = Ok(None)),
            ("credentials", Warn, "may be read", |e| e.exposure = Some("it may be read".into())),
            ("account", Fail, "no longer, good", |e| {
                e.account = Some(Err(error(ApiErrorKind::Unauthorized, "unauthorized")));
            }),
            ("account", Fail, "two_factor", |e| e.account = Some(Err(error(ApiErrorKind::Forbidden, "two_factor")))),
            ("account", Unknown, "rate_limit", |e| {
                e.account = Some(Err(error(ApiErrorKind::RateLimited, "rate_limit")));
            }),
            ("scope", Fail, "may not restart", |e| scoped(e, &["read"], None)),
            ("scope", Fail, "may not list", |e| scoped(e, &["write"], None)),
            ("scope", Warn, "ends in 1d 0h", |e| scoped(e, &["read", "write"], Some(86_400))),
            ("scope", Unknown, "does not list it", |e| e.authorization = Some(Ok(None))),
            ("scope", Unknown, "its own scope", |e| {
                e.authorization = Some(Err(error(ApiErrorKind::Forbidden, "forbidden")));
            }),
            ("api", Fail, "not_found", |e| e.platform = Some(Err(error(ApiErrorKind::NotFound, "not_found")))),
            ("api", Fail, "forbidden", |e| e.dynos = Some(Err(error(ApiErrorKind::Forbidden, "forbidden")))),
            ("clock", Warn, "5m 0s ahead of", |e| e.ahead_s = Some(300)),
            ("clock", Warn, "5m 0s behind", |e| e.ahead_s = Some(-300)),
        ]);
    }

    #[test]
    fn what_is_wrong_with_the_release() {
        use Grade::{Fail, Unknown, Warn};
        finds(&[
            ("release", Warn, "v7 failed", |e| e.newest = Some(Ok(Some(deployed(ReleaseStatus::Failed))))),
            ("release", Warn, "pending", |e| e.newest = Some(Ok(Some(deployed(ReleaseStatus::Pending))))),
            ("procfile", Warn, "no `release:` line", |e| e.procfile = Some("web: bundle exec puma".into())),
            ("procfile", Warn, "another `release:` line", |e| e.slug = Some(Ok(Some(Slug::default())))),
            ("procfile", Unknown, "no Procfile here", |e| (e.procfile, e.slug) = (None, None)),
            ("procfile", Fail, "hides", |e| {
                let line = "release: unstuck migrate || true";
                (e.procfile, e.slug) = (Some(format!("web: bundle exec puma\n{line}")), None);
            }),
            ("release key", Fail, "no config var", |e| e.config_vars = Some(Ok(BTreeSet::new()))),
            ("release key", Unknown, "may not read", |e| {
                e.config_vars = Some(Err(error(ApiErrorKind::Forbidden, "forbidden")));
            }),
            ("release key", Fail, "dynos have no", |e| e.place = Place::Dyno("run.1".into())),
            ("identity", Warn, "not told", |e| e.metadata = Some(Ok(false))),
            ("types", Fail, "wbe", |e| e.types = Types::Named(vec!["web".into(), "wbe".into()])),
            ("types", Warn, "worker runs", |e| {
                e.procfile = Some(format!("{PROCFILE}worker: bundle exec sidekiq\n"));
            }),
            ("preboot", Warn, "unlisted", |e| e.preboot = Some(Ok(true))),
            ("preboot", Warn, "makes it longer", |e| (e.preboot, e.policy) = (Some(Ok(true)), Policy::Api)),
            ("command", Fail, "not executable", |e| e.command = Err("bin/rails is not executable".into())),
        ]);
    }

    #[test]
    fn what_is_wrong_with_the_time_outs() {
        fn set(evidence: &mut Evidence, poll_s: u64, prove_s: u64) {
            let sourced = |seconds| Sourced { value: Duration::from_secs(seconds), from: String::new() };
            (evidence.timeouts.poll, evidence.timeouts.prove) = (sourced(poll_s), Some(sourced(prove_s)));
        }
        use Grade::Warn;
        finds(&[
            ("time-outs", Warn, "no second look", |e| set(e, 60, 100)),
            ("time-outs", Warn, "30 s to end", |e| set(e, 1, 20)),
            ("time-outs", Warn, "as long as the whole proof", |e| e.timeouts.api.value = Duration::from_mins(3)),
            ("time-outs", Warn, "60 s to boot", |e| e.timeouts.health.value = Duration::from_secs(5)),
            ("time-outs", Warn, "the hour that", |e| {
                e.timeouts.migrate = Some(Sourced { value: RELEASE_PHASE, from: String::new() });
            }),
        ]);
    }

    #[test]
    fn what_is_wrong_with_the_databases() {
        use Grade::{Fail, Unknown, Warn};
        finds(&[
            ("database.yml", Fail, "no database is", |e| e.databases = Ok(Vec::new())),
            ("pooler", Warn, "looks like a pooler", |e| {
                let database = &mut e.databases.as_mut().unwrap()[0];
                (database.port, database.unused) = (Some(6432), true);
                database.look = None;
            }),
            ("pooler", Fail, "session locks", |e| sees(e, Seen { pooled: true, ..Seen::default() })),
            ("database", Unknown, "was not asked", |e| e.databases.as_mut().unwrap()[0].look = None),
            ("database", Fail, "made up", |e| e.databases.as_mut().unwrap()[0].look = Some(Err(failure()))),
            ("database", Fail, "read-only", |e| sees(e, Seen { read_only: true, ..Seen::default() })),
            ("database", Warn, "holds the lock", |e| {
                sees(e, Seen { lock: Locking::Held("ann".into()), ..Seen::default() });
            }),
            ("database", Fail, "cannot be taken", |e| {
                sees(e, Seen { lock: Locking::Fails("no".into()), ..Seen::default() });
            }),
            ("database", Warn, "10m 0s away", |e| sees(e, Seen { ahead_s: Some(-600), ..Seen::default() })),
            ("records", Fail, "newer unstuck", |e| sees(e, Seen { newer: true, owed: true, ..Seen::default() })),
            ("records", Warn, "is owed", |e| sees(e, Seen { owed: true, ..Seen::default() })),
            ("records", Warn, "no record yet", |e| sees(e, Seen { unproved: true, ..Seen::default() })),
            ("records", Warn, "2 migrations are pending", |e| sees(e, Seen { pending: 2, ..Seen::default() })),
            ("database.yml", Fail, "made up", |e| e.databases.as_mut().unwrap()[0].files = Err(failure())),
        ]);
    }

    #[test]
    fn without_network_the_files_are_checked_all_the_same() {
        let healthy = healthy();
        let evidence = Evidence {
            account: None,
            authorization: None,
            platform: None,
            dynos: None,
            formation: None,
            newest: None,
            slug: None,
            preboot: None,
            metadata: None,
            config_vars: None,
            ahead_s: None,
            ..healthy
        };
        let found = examine(&evidence);
        let passed: Vec<&str> =
            found.iter().filter(|(_, verdict)| verdict.grade == Grade::Pass).map(|(name, _)| *name).collect();
        let files = [
            "app",
            "credentials",
            "procfile",
            "types",
            "time-outs",
            "command",
            "database.yml",
            "pooler",
            "database",
            "records",
        ];
        assert_eq!(passed, files);
        assert!(found.iter().all(|(_, verdict)| verdict.grade <= Grade::Unknown), "{found:#?}");
    }

    #[test]
    fn a_key_is_asked_for_only_where_it_is_needed() {
        for (policy, procfile, said) in [
            (Policy::Handoff, PROCFILE, Some(Grade::Pass)),
            (Policy::Auto, PROCFILE, Some(Grade::Fail)),
            (Policy::Auto, "web: bundle exec puma\n", None),
        ] {
            let evidence = Evidence {
                policy,
                procfile: Some(procfile.to_owned()),
                config_vars: Some(Ok(BTreeSet::new())),
                ..healthy()
            };
            assert_eq!(release_key(&evidence).first().map(|verdict| verdict.grade), said, "{policy:?}");
        }
    }
}
