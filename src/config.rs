//! What was typed, exported and written means this. The only place that reads the environment.
//!
//! Flags win over the environment, the environment over `.unstuck.yml`, that over the defaults; each value remembers where
//! it comes from. Everything is checked here as a whole, before anything is asked or done.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::de::value::SeqAccessDeserializer;
use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::adapters::{self, credentials, git, heroku};
use crate::args::{self, Common, How};
use crate::error::{Error, Kind, Result};
use crate::rails;
use crate::secret::Secret;

/// The environment, taken once at the start.
pub type Env = BTreeMap<String, String>;

/// A value and where it comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sourced<T> {
    pub value: T,
    pub from: String,
}

impl<T> Sourced<T> {
    fn new(value: T, from: impl Into<String>) -> Self {
        Self { value, from: from.into() }
    }
}

/// The configuration in effect, but for the databases, which [`Settings::databases`] resolves.
#[derive(Debug, Clone)]
pub struct Settings {
    pub root: PathBuf,
    pub env: Env,
    file: File,
    overrides: rails::Overrides,
    /// Name or uuid of the app, where something other than a git remote names it.
    named_app: Option<Sourced<String>>,
    remote: Option<String>,
    /// The uuid of the app whose dyno we run in, where the platform tells it.
    pub app_id: Option<String>,
    pub place: Place,
    pub types: Sourced<Types>,
    pub policy: Sourced<Policy>,
    pub strategy: Sourced<Strategy>,
    pub max_unavailable: Sourced<usize>,
    pub timeouts: Timeouts,
    /// The migration command: program and arguments. Never a shell's line.
    pub command: Sourced<Vec<String>>,
    pub hook: Hook,
}

/// What the pre-push hook and `unstuck check` go by.
#[derive(Debug, Clone)]
pub struct Hook {
    /// Remotes that deploy an app although their addresses do not say so.
    pub remotes: Vec<String>,
    /// The branches of a remote that are deployed.
    pub branches: Vec<String>,
    /// Which findings are let through.
    pub allow: Vec<Allow>,
    pub together: Sourced<Together>,
    /// What a hook does whose program has vanished.
    pub missing: Sourced<WhenMissing>,
}

/// An exception: a rule, for every file or for those whose path the pattern fits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allow {
    pub rule: String,
    pub path: Option<glob::Pattern>,
}

impl fmt::Display for Allow {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&self.rule)?;
        self.path.as_ref().map_or(Ok(()), |pattern| write!(f, " {pattern}"))
    }
}

impl Allow {
    /// `RULE`, or `RULE PATTERN`.
    fn parse(text: &str) -> Option<Self> {
        let mut words = text.split_whitespace();
        let rule = words.next()?.to_owned();
        let path = words.next().map(glob::Pattern::new).transpose().ok()?;
        words.next().is_none().then_some(Self { rule, path })
    }

    /// Whether a finding of this rule, in this file, is let through.
    pub fn covers(&self, rule: &str, path: Option<&Path>) -> bool {
        let fits = |pattern: &glob::Pattern| path.is_some_and(|path| pattern.matches_path(path));
        self.rule == rule && self.path.as_ref().is_none_or(fits)
    }
}

/// Whether migrations and the code that needs them may be pushed together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Together {
    Allowed,
    Separate,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenMissing {
    Pass,
    Refuse,
}

/// Where we run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// The release phase of a deploy, and its release's number where the platform tells it.
    Release { dyno: String, version: Option<u64> },
    /// Another dyno.
    Dyno(String),
    /// A laptop, a CI machine.
    Outside,
}

impl Place {
    pub fn is_release(&self) -> bool {
        matches!(self, Self::Release { .. })
    }

    /// The dyno's name.
    pub fn dyno(&self) -> Option<&str> {
        match self {
            Self::Release { dyno, .. } | Self::Dyno(dyno) => Some(dyno),
            Self::Outside => None,
        }
    }
}

/// Which process types are restarted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Types {
    Named(Vec<String>),
    All,
}

impl Types {
    /// Whether dynos of this type are restarted. One-off, release and scheduler dynos never are.
    pub fn include(&self, kind: &str) -> bool {
        match self {
            Self::Named(types) => types.iter().any(|named| named == kind),
            Self::All => !matches!(kind, "run" | "release" | "scheduler"),
        }
    }

    /// Whether every type of `other` is among these.
    pub fn cover(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::All, _) => true,
            (Self::Named(_), Self::All) => false,
            (Self::Named(mine), Self::Named(theirs)) => theirs.iter().all(|kind| mine.contains(kind)),
        }
    }

    /// A list of names, separated by commas or spaces; `all` among them means all.
    pub fn parse(text: &str) -> Self {
        let names: Vec<String> =
            text.split([',', ' ']).map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect();
        if names.iter().any(|name| name == "all") { Self::All } else { Self::Named(names) }
    }

    /// As people and JSON read it.
    pub fn names(&self) -> Vec<String> {
        match self {
            Self::Named(types) => types.clone(),
            Self::All => vec!["all".into()],
        }
    }
}

/// Who restarts when a migration succeeded in the release phase: see the table in the README.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    Auto,
    Api,
    Handoff,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strategy {
    AtOnce,
    Rolling,
}

/// What `unstuck exec` does when a migration does not end in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AfterWait {
    Start,
    Exit,
}

/// How `unstuck exec` looks after its command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exec {
    /// How long a migration is waited for.
    pub wait: Sourced<Duration>,
    pub after_wait: Sourced<AfterWait>,
    /// Between two looks at the databases; never zero.
    pub interval: Sourced<Duration>,
    /// Between SIGTERM and SIGKILL.
    pub grace: Sourced<Duration>,
    /// What makes the command reload itself. `None`: it is ended and started again.
    pub reload_signal: Option<Sourced<i32>>,
}

/// A word of the configuration that stands for one of a few values.
pub trait Word: Sized + Copy + PartialEq + 'static {
    const WORDS: &'static [(&'static str, Self)];

    fn of(text: &str) -> Option<Self> {
        Self::WORDS.iter().find(|(word, _)| *word == text).map(|(_, value)| *value)
    }

    fn name(self) -> &'static str {
        Self::WORDS.iter().find(|(_, value)| *value == self).map_or("", |(word, _)| word)
    }

    fn choices() -> String {
        Self::WORDS.iter().map(|(word, _)| *word).collect::<Vec<_>>().join(", ")
    }
}

impl Word for Policy {
    const WORDS: &'static [(&'static str, Self)] =
        &[("auto", Self::Auto), ("api", Self::Api), ("handoff", Self::Handoff)];
}

impl Word for Strategy {
    const WORDS: &'static [(&'static str, Self)] = &[("at-once", Self::AtOnce), ("rolling", Self::Rolling)];
}

impl Word for Together {
    const WORDS: &'static [(&'static str, Self)] = &[("together", Self::Allowed), ("separate", Self::Separate)];
}

impl Word for WhenMissing {
    const WORDS: &'static [(&'static str, Self)] = &[("pass", Self::Pass), ("refuse", Self::Refuse)];
}

impl Word for AfterWait {
    const WORDS: &'static [(&'static str, Self)] = &[("start", Self::Start), ("exit", Self::Exit)];
}

/// How long to wait for what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timeouts {
    /// For another run to end.
    pub lock: Sourced<Duration>,
    /// For old processes to be gone; `None`: the default, which depends on the phase.
    pub prove: Option<Sourced<Duration>>,
    /// For new processes to be up.
    pub health: Sourced<Duration>,
    /// For one request to the API.
    pub api: Sourced<Duration>,
    /// Between the first two looks at the dynos.
    pub poll: Sourced<Duration>,
    /// For the migration.
    pub migrate: Option<Sourced<Duration>>,
    /// For a lock that a statement of the migration needs.
    pub ddl_lock: Option<Sourced<Duration>>,
}

impl Timeouts {
    /// The time in which old processes have to be gone. A release that succeeded does not wait long: the platform's own
    /// restart follows.
    pub fn prove(&self, release_succeeded: bool) -> Duration {
        let default = Duration::from_secs(if release_succeeded { 30 } else { 180 });
        self.prove.as_ref().map_or(default, |prove| prove.value)
    }

    /// How long the migration may wait for a lock; zero takes back what the file says.
    pub fn ddl_lock(&self) -> Option<Duration> {
        self.ddl_lock.as_ref().map(|limit| limit.value).filter(|limit| !limit.is_zero())
    }
}

/// No configuration of ours is longer.
const MAX_FILE_BYTES: usize = 16 << 10;

/// `.unstuck.yml`, as written. An unknown key is an error.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    app: Option<String>,
    command: Option<Words>,
    #[serde(default)]
    restart: FileRestart,
    #[serde(default)]
    timeouts: FileTimeouts,
    #[serde(default)]
    databases: BTreeMap<String, FileDatabase>,
    #[serde(default)]
    hook: FileHook,
    #[serde(default)]
    exec: FileExec,
    #[serde(skip)]
    path: String,
}

/// One string or a list of strings.
#[derive(Debug, Clone)]
enum Words {
    One(String),
    Many(Vec<String>),
}

/// Not derived as an untagged enum, whose error names no key.
impl<'de> Deserialize<'de> for Words {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOrMany;
        impl<'de> Visitor<'de> for OneOrMany {
            type Value = Words;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a string or a list of strings")
            }

            fn visit_str<E>(self, word: &str) -> Result<Words, E> {
                Ok(Words::One(word.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, words: A) -> Result<Words, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(words)).map(Words::Many)
            }
        }
        deserializer.deserialize_any(OneOrMany)
    }
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileRestart {
    types: Option<Words>,
    policy: Option<String>,
    strategy: Option<String>,
    max_unavailable: Option<usize>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileTimeouts {
    lock: Option<String>,
    prove: Option<String>,
    health: Option<String>,
    api: Option<String>,
    poll: Option<String>,
    migrate: Option<String>,
    ddl_lock: Option<String>,
    exec_wait: Option<String>,
    exec_grace: Option<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileExec {
    interval: Option<String>,
    reload_signal: Option<String>,
    after_wait: Option<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileDatabase {
    schema_migrations_table: Option<String>,
    metadata_table: Option<String>,
    migrations_paths: Option<Words>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileHook {
    remotes: Option<Words>,
    branches: Option<Words>,
    allow: Option<Words>,
    policy: Option<String>,
    missing: Option<String>,
}

impl Words {
    fn list(&self) -> Vec<String> {
        match self {
            Self::One(word) => vec![word.clone()],
            Self::Many(words) => words.clone(),
        }
    }
}

/// The process's environment. Values that are no UTF-8 cannot be ours and keep their shape as far as they go.
pub fn environment() -> Env {
    std::env::vars_os()
        .map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()))
        .collect()
}

impl Settings {
    /// Makes sense of flags, environment and file. Reads one file at most and connects to nothing.
    pub fn load(common: &Common, how: &How, command: &[String], env: Env) -> Result<Self> {
        let root = root(common)?;
        let file = File::load(common, &root)?;
        let place = place(&env);
        let app_id = env.get("HEROKU_APP_ID").filter(|id| !id.is_empty()).cloned().or_else(|| stream_app_id(&env));
        let source = Source { env: &env, file: &file };
        Ok(Self {
            named_app: named_app(common, &source, app_id.as_deref()),
            remote: common.remote.clone(),
            app_id,
            types: source.types(how)?,
            policy: source.word(
                how.policy.as_deref(),
                "--policy",
                "UNSTUCK_RESTART_POLICY",
                file.restart.policy.as_deref(),
                "restart.policy",
                Policy::Auto,
            )?,
            strategy: source.word(
                how.pace.strategy.as_deref().or(how.pace.rolling.then_some("rolling")),
                "--strategy",
                "UNSTUCK_RESTART_STRATEGY",
                file.restart.strategy.as_deref(),
                "restart.strategy",
                Strategy::AtOnce,
            )?,
            max_unavailable: source.max_unavailable(how)?,
            timeouts: source.timeouts(common)?,
            command: source.command(command, &root)?,
            hook: source.hook()?,
            overrides: overrides(common, &file),
            place,
            root,
            env,
            file,
        })
    }

    /// The databases that Rails would migrate, in the order of the file.
    pub fn databases(&self) -> Result<rails::Resolved> {
        adapters::rails::databases(&self.root, &self.env, &self.overrides)
    }

    /// How `unstuck exec` looks after its command.
    pub fn exec(&self, flags: &args::Exec) -> Result<Exec> {
        Source { env: &self.env, file: &self.file }.exec(flags)
    }

    /// The databases of another environment, as the files describe it; none where only Ruby or the machine itself could tell.
    pub fn databases_of(&self, rails_env: &str) -> Option<Vec<rails::Database>> {
        let mut env = self.env.clone();
        env.retain(|name, _| !name.ends_with("DATABASE_URL"));
        env.insert("RAILS_ENV".to_owned(), rails_env.to_owned());
        match adapters::rails::databases_without_ruby(&self.root, &env, &self.overrides) {
            Ok(rails::Resolved::Databases(databases)) => Some(databases),
            _ => None,
        }
    }

    /// Whether a push to this remote deploys an app: its address says so, or `hook.remotes` names it.
    pub fn deploys_to(&self, remote: &str, url: &str) -> Result<bool> {
        let hosts = git::GitHosts::new(&self.host()?, self.env.get("HEROKU_GIT_HOST").map(String::as_str));
        let named = || self.hook.remotes.iter().any(|name| name == remote);
        Ok(hosts.app_of_url(url).is_some() || named())
    }

    /// `production`, `development`, ...
    pub fn rails_env(&self) -> String {
        rails::environment(&self.env)
    }

    /// The app: `--app`, `--remote`, `UNSTUCK_APP`, `HEROKU_APP_NAME`, `.unstuck.yml`, the app whose dyno this is, the git
    /// remote. Repositories are looked at only when this is asked, and nothing else names the app.
    pub fn app(&self) -> Result<Option<Sourced<String>>> {
        if let Some(app) = &self.named_app {
            return Ok(Some(app.clone()));
        }
        if self.remote.is_none() && self.place.dyno().is_some() {
            return Ok(None);
        }
        let hosts = git::GitHosts::new(&self.host()?, self.env.get("HEROKU_GIT_HOST").map(String::as_str));
        let app = git::app(&self.root, self.remote.as_deref(), &hosts)?;
        let from = self.remote.as_ref().map_or("git remote".to_owned(), |remote| format!("git remote {remote}"));
        Ok(app.map(|app| Sourced::new(app, from)))
    }

    /// Whether the command line names the app, outside of its dynos.
    pub fn is_called_from_outside(&self) -> bool {
        let typed = self.remote.is_some() || self.named_app.as_ref().is_some_and(|app| app.from == "--app");
        typed && self.place == Place::Outside
    }

    /// Whether the databases are the app's own and out of reach: its name was typed outside of its dynos, and nothing here says
    /// which database is meant. A developer's own one, to which `config/database.yml` leads, never is; where there is no such file,
    /// `RAILS_ENV` leads nowhere either.
    pub fn is_afar(&self) -> bool {
        let named = self.env.keys().any(|name| name == "DATABASE_URL" || name.ends_with("_DATABASE_URL"));
        let own = matches!(self.rails_env().as_str(), "development" | "test");
        self.is_called_from_outside() && !named && (own || !self.root.join("config/database.yml").exists())
    }

    /// The uuid of the app that is asked for, where it is the one whose dyno this is.
    pub fn own_app_id(&self) -> Option<String> {
        let own = match (&self.named_app, self.env.get("HEROKU_APP_NAME")) {
            (Some(app), Some(own)) => app.value == *own || Some(&app.value) == self.app_id.as_ref(),
            _ => self.remote.is_none(),
        };
        self.app_id.clone().filter(|_| own)
    }

    /// Where Heroku's API is.
    pub fn host(&self) -> Result<heroku::Host> {
        heroku::Host::from_env_value(self.env.get("HEROKU_HOST").map(String::as_str))
    }

    /// The API key and where it comes from. On a laptop the `heroku` CLI's own stores are asked too.
    pub fn token(&self) -> Result<Option<(Secret, String)>> {
        credentials::find(&self.env, &self.host()?)
    }

    /// The configuration file that was read, if there is one.
    pub fn file(&self) -> Option<&str> {
        (!self.file.path.is_empty()).then_some(self.file.path.as_str())
    }

    /// The host or dyno that a record names: printable ASCII, 24 characters at most.
    pub fn by(&self) -> String {
        let host = || std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let name = self.place.dyno().map_or_else(host, str::to_owned);
        name.trim().chars().filter(|c| c.is_ascii_graphic() && !matches!(c, '"' | '\\' | '\'')).take(24).collect()
    }
}

fn root(common: &Common) -> Result<PathBuf> {
    let root = common.directory.clone().unwrap_or_else(|| PathBuf::from("."));
    std::fs::canonicalize(&root)
        .map_err(|error| Error::new(Kind::Input, format!("no such directory: {}", root.display())).because(error))
}

fn place(env: &Env) -> Place {
    match env.get("DYNO").filter(|dyno| !dyno.is_empty()) {
        None => Place::Outside,
        Some(dyno) if dyno.starts_with("release.") || dyno.starts_with("release-") => {
            let version = env.get("HEROKU_RELEASE_VERSION").and_then(|v| v.trim_start_matches('v').parse().ok());
            Place::Release { dyno: dyno.clone(), version }
        }
        Some(dyno) => Place::Dyno(dyno.clone()),
    }
}

fn stream_app_id(env: &Env) -> Option<String> {
    ["HEROKU_RELEASE_STREAM_URL", "HEROKU_RELEASE_LOG_STREAM"]
        .iter()
        .find_map(|name| heroku::app_id_from_stream_url(env.get(*name)?))
}

fn named_app(common: &Common, source: &Source, app_id: Option<&str>) -> Option<Sourced<String>> {
    if let Some(app) = &common.app {
        return Some(Sourced::new(app.clone(), "--app"));
    }
    if common.remote.is_some() {
        return None;
    }
    for name in ["UNSTUCK_APP", "HEROKU_APP_NAME"] {
        if let Some(app) = source.env.get(name).filter(|app| !app.is_empty()) {
            return Some(Sourced::new(app.clone(), name));
        }
    }
    if let Some(app) = &source.file.app {
        return Some(Sourced::new(app.clone(), source.file.path.clone()));
    }
    let from = if source.env.contains_key("HEROKU_APP_ID") { "HEROKU_APP_ID" } else { "HEROKU_RELEASE_STREAM_URL" };
    app_id.map(|id| Sourced::new(id.to_owned(), from))
}

fn overrides(common: &Common, file: &File) -> rails::Overrides {
    let tables = |database: &FileDatabase| rails::Tables {
        schema_migrations_table: database.schema_migrations_table.clone(),
        metadata_table: database.metadata_table.clone(),
        migrations_paths: database.migrations_paths.as_ref().map(Words::list),
    };
    rails::Overrides {
        global: rails::Tables {
            schema_migrations_table: common.schema_migrations_table.clone(),
            ..rails::Tables::default()
        },
        databases: file.databases.iter().map(|(name, database)| (name.clone(), tables(database))).collect(),
    }
}

/// Environment and file, from which every setting is taken in the same order.
struct Source<'a> {
    env: &'a Env,
    file: &'a File,
}

impl Source<'_> {
    /// The raw text of a setting: flag, variable, key of the file.
    fn text(&self, flag: (Option<&str>, &str), variable: &str, key: (Option<&str>, &str)) -> Option<Sourced<String>> {
        if let (Some(text), name) = flag {
            return Some(Sourced::new(text.to_owned(), name));
        }
        if let Some(text) = self.env.get(variable).filter(|text| !text.is_empty()) {
            return Some(Sourced::new(text.clone(), variable));
        }
        key.0.map(|text| Sourced::new(text.to_owned(), format!("{} ({})", self.file.path, key.1)))
    }

    fn word<T: Word>(
        &self,
        flag: Option<&str>,
        flag_name: &str,
        variable: &str,
        key: Option<&str>,
        key_name: &str,
        default: T,
    ) -> Result<Sourced<T>> {
        let Some(text) = self.text((flag, flag_name), variable, (key, key_name)) else {
            return Ok(Sourced::new(default, "default"));
        };
        match T::of(&text.value) {
            Some(value) => Ok(Sourced::new(value, text.from)),
            None => Err(bad(&text, &format!("is none of {}", T::choices()))),
        }
    }

    fn exec(&self, flags: &args::Exec) -> Result<Exec> {
        let (file, timeouts) = (&self.file.exec, &self.file.timeouts);
        let time = |flag: (&Option<String>, &str), variable: &str, key: (&Option<String>, &str), default_s: u64| {
            let text = self.text((flag.0.as_deref(), flag.1), variable, (key.0.as_deref(), key.1));
            let default = Sourced::new(Duration::from_secs(default_s), "default");
            text.map_or(Ok(default), |text| match duration(&text.value) {
                Some(value) => Ok(Sourced::new(value, text.from)),
                None => Err(bad(&text, "is no duration such as 500ms, 10s or 2m")),
            })
        };
        let signal = self.text(
            (flags.reload_signal.as_deref(), "--reload-signal"),
            "UNSTUCK_EXEC_RELOAD_SIGNAL",
            (file.reload_signal.as_deref(), "exec.reload_signal"),
        );
        let mut interval =
            time((&flags.interval, "--interval"), "UNSTUCK_EXEC_INTERVAL", (&file.interval, "exec.interval"), 10)?;
        interval.value = interval.value.max(SHORTEST_INTERVAL);
        Ok(Exec {
            wait: time(
                (&flags.wait_timeout, "--wait-timeout"),
                "UNSTUCK_EXEC_WAIT_TIMEOUT",
                (&timeouts.exec_wait, "timeouts.exec_wait"),
                20,
            )?,
            after_wait: self.word(
                flags.after_wait.as_deref(),
                "--after-wait",
                "UNSTUCK_EXEC_AFTER_WAIT",
                file.after_wait.as_deref(),
                "exec.after_wait",
                AfterWait::Start,
            )?,
            interval,
            grace: time(
                (&flags.grace_timeout, "--grace-timeout"),
                "UNSTUCK_EXEC_GRACE_TIMEOUT",
                (&timeouts.exec_grace, "timeouts.exec_grace"),
                25,
            )?,
            reload_signal: signal
                .map(|text| match signal_number(&text.value) {
                    Some(number) => Ok(Sourced::new(number, text.from)),
                    None => Err(bad(&text, "is none of HUP, USR1, USR2")),
                })
                .transpose()?,
        })
    }

    fn types(&self, how: &How) -> Result<Sourced<Types>> {
        let listed = self.file.restart.types.as_ref().map(|types| types.list().join(","));
        let text =
            self.text((how.types.as_deref(), "--types"), "UNSTUCK_RESTART_TYPES", (listed.as_deref(), "restart.types"));
        let Some(text) = text else { return Ok(Sourced::new(Types::Named(vec!["web".into()]), "default")) };
        let types = Types::parse(&text.value);
        let legal = |name: &String| name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'));
        match &types {
            Types::Named(names) if names.is_empty() || !names.iter().all(legal) => {
                Err(bad(&text, "is not a list of process types such as web,worker"))
            }
            _ => Ok(Sourced::new(types, text.from)),
        }
    }

    fn max_unavailable(&self, how: &How) -> Result<Sourced<usize>> {
        let listed = self.file.restart.max_unavailable.map(|n| n.to_string());
        let text = self.text(
            (how.pace.max_unavailable.as_deref(), "--max-unavailable"),
            "UNSTUCK_RESTART_MAX_UNAVAILABLE",
            (listed.as_deref(), "restart.max_unavailable"),
        );
        let Some(text) = text else { return Ok(Sourced::new(1, "default")) };
        match text.value.parse() {
            Ok(n) if n > 0 => Ok(Sourced::new(n, text.from)),
            _ => Err(bad(&text, "is not a number of dynos, 1 or more")),
        }
    }

    fn timeouts(&self, common: &Common) -> Result<Timeouts> {
        let (flags, file) = (&common.timeouts, &self.file.timeouts);
        let get = |name: &str, flag: &Option<String>, key: &Option<String>| -> Result<Option<Sourced<Duration>>> {
            let flag_name = format!("--{name}-timeout");
            let word = name.replace('-', "_");
            let variable = format!("UNSTUCK_{}_TIMEOUT", word.to_uppercase());
            let key_name = format!("timeouts.{word}");
            let text = self.text((flag.as_deref(), &flag_name), &variable, (key.as_deref(), &key_name));
            text.map(|text| match duration(&text.value) {
                Some(value) => Ok(Sourced::new(value, text.from)),
                None => Err(bad(&text, "is no duration such as 500ms, 10s or 2m")),
            })
            .transpose()
        };
        let or = |given: Option<Sourced<Duration>>, ms: u64| {
            given.unwrap_or_else(|| Sourced::new(Duration::from_millis(ms), "default"))
        };
        Ok(Timeouts {
            lock: or(get("lock", &flags.lock, &file.lock)?, 60_000),
            prove: get("prove", &flags.prove, &file.prove)?,
            health: or(get("health", &flags.health, &file.health)?, 120_000),
            api: or(get("api", &flags.api, &file.api)?, 10_000),
            poll: or(get("poll", &flags.poll, &file.poll)?, 1_000),
            migrate: get("migrate", &flags.migrate, &file.migrate)?,
            ddl_lock: get("ddl-lock", &flags.ddl_lock, &file.ddl_lock)?,
        })
    }

    fn hook(&self) -> Result<Hook> {
        let file = &self.file.hook;
        let allow = file.allow.iter().flat_map(Words::list).map(|text| {
            let text = Sourced::new(text, format!("{} (hook.allow)", self.file.path));
            Allow::parse(&text.value).ok_or_else(|| bad(&text, "is no RULE, nor a RULE and a pattern for paths"))
        });
        let (policy, missing) = (file.policy.as_deref(), file.missing.as_deref());
        Ok(Hook {
            remotes: file.remotes.iter().flat_map(Words::list).collect(),
            branches: file.branches.as_ref().map_or_else(|| vec!["main".into(), "master".into()], Words::list),
            allow: allow.collect::<Result<_>>()?,
            together: self.word(None, "", "UNSTUCK_HOOK_POLICY", policy, "hook.policy", Together::Allowed)?,
            missing: self.word(None, "", "UNSTUCK_HOOK_MISSING", missing, "hook.missing", WhenMissing::Pass)?,
        })
    }

    /// The migration command. A line of the file is split as a shell would split it, and never given to one.
    fn command(&self, typed: &[String], root: &Path) -> Result<Sourced<Vec<String>>> {
        if !typed.is_empty() {
            return Ok(Sourced::new(typed.to_vec(), "command line"));
        }
        let from = || format!("{} (command)", self.file.path);
        match &self.file.command {
            Some(Words::Many(words)) if !words.is_empty() => Ok(Sourced::new(words.clone(), from())),
            Some(Words::One(line)) => match shlex::split(line).filter(|words| !words.is_empty()) {
                Some(words) => Ok(Sourced::new(words, from())),
                None => Err(Error::new(Kind::Input, format!("{}: command cannot be split into words", self.file.path))
                    .hint("write it as a list: command: [bin/rails, db:migrate]")),
            },
            Some(Words::Many(_)) => Err(Error::new(Kind::Input, format!("{}: command is empty", self.file.path))),
            None => {
                let rails = root.join("bin/rails").symlink_metadata().is_ok();
                let words: &[&str] =
                    if rails { &["bin/rails", "db:migrate"] } else { &["bundle", "exec", "rake", "db:migrate"] };
                Ok(Sourced::new(words.iter().map(|&word| word.to_owned()).collect(), "default"))
            }
        }
    }
}

/// A value that cannot be: wrong usage when it was typed, a bad file or variable otherwise. It is not quoted: it may be a
/// token in the wrong place.
fn bad(text: &Sourced<String>, what: &str) -> Error {
    let kind = if text.from.starts_with("--") { Kind::Usage } else { Kind::Input };
    Error::new(kind, format!("{}: the value {what}", text.from))
}

/// No database is looked at more often.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(50);

/// The signals by which servers reload themselves.
const RELOAD_SIGNALS: [(&str, i32); 3] = [("HUP", libc::SIGHUP), ("USR1", libc::SIGUSR1), ("USR2", libc::SIGUSR2)];

/// `USR2` or `SIGUSR2`.
fn signal_number(name: &str) -> Option<i32> {
    let name = name.strip_prefix("SIG").unwrap_or(name);
    RELOAD_SIGNALS.into_iter().find_map(|(known, number)| (known == name).then_some(number))
}

/// The name of a signal by which a server reloads itself.
pub fn signal_name(number: i32) -> &'static str {
    RELOAD_SIGNALS.iter().find(|(_, known)| *known == number).map_or("", |(name, _)| name)
}

/// `500ms`, `10s`, `2m`, `1h`.
pub fn duration(text: &str) -> Option<Duration> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let number: u64 = text[..digits].parse().ok()?;
    let unit = match &text[digits..] {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    number.checked_mul(unit).map(Duration::from_millis)
}

impl File {
    /// Reads the configuration file. A file that was named has to be there; the default one need not.
    fn load(common: &Common, root: &Path) -> Result<Self> {
        let path = common.config.clone().unwrap_or_else(|| root.join(".unstuck.yml"));
        let shown = if common.config.is_some() { path.display().to_string() } else { ".unstuck.yml".to_owned() };
        match adapters::files::read_configuration(&path) {
            Ok(bytes) => Self::parse(&bytes, &shown),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && common.config.is_none() => {
                Ok(Self::default())
            }
            Err(error) => Err(Error::new(Kind::Input, format!("cannot read {shown}")).because(error)),
        }
    }

    fn parse(bytes: &[u8], shown: &str) -> Result<Self> {
        // The parser takes minutes for a megabyte of brackets.
        if bytes.len() > MAX_FILE_BYTES {
            return Err(Error::new(Kind::Input, format!("{shown}: is longer than {MAX_FILE_BYTES} bytes")));
        }
        let text = std::str::from_utf8(bytes).map_err(|error| {
            let line = bytes[..error.valid_up_to()].split(|&byte| byte == b'\n').count();
            Error::new(Kind::Input, format!("{shown}:{line}: is not UTF-8"))
        })?;
        // An empty file, or one of comments only, is no mapping but a null.
        let parsed: Result<Option<Self>, _> = serde_yaml::from_str(text);
        match parsed {
            Ok(file) => Ok(Self { path: shown.to_owned(), ..file.unwrap_or_default() }),
            Err(error) => {
                let place = error.location().map_or(String::new(), |at| format!(":{}", at.line()));
                let message = error.to_string();
                let message = without_value(message.split(" at line ").next().unwrap_or_default());
                Err(Error::new(Kind::Input, format!("{shown}{place}: {message}"))
                    .hint("`unstuck config --help` and the README name the keys"))
            }
        }
    }
}

/// A message of serde without what it quotes of a wrong value: `key: invalid type: string "...", expected usize`.
fn without_value(message: &str) -> String {
    let quoted = ["invalid type: ", "invalid value: "].iter().find_map(|words| message.split_once(words));
    match quoted {
        Some((key, rest)) => {
            let wanted = rest.rsplit_once(", expected ").map_or("something else", |(_, wanted)| wanted);
            format!("{key}the value is not what it should be: {wanted}")
        }
        None => message.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, ms) in [("500ms", 500), ("10s", 10_000), ("2m", 120_000), ("1h", 3_600_000), ("0s", 0)] {
            assert_eq!(duration(text), Some(Duration::from_millis(ms)), "{text}");
        }
        for text in ["", "10", "s", "-1s", "1.5s", "10 s", "1d", "99999999999999999999s"] {
            assert_eq!(duration(text), None, "{text}");
        }
    }

    #[test]
    fn an_unknown_key_names_its_line() {
        let error = File::parse(b"app: a\nrestart:\n  type: web\n", ".unstuck.yml").unwrap_err();
        assert_eq!(error.kind, Kind::Input);
        assert!(error.message.starts_with(".unstuck.yml:3: "), "{}", error.message);
        assert!(error.message.contains("unknown field `type`"), "{}", error.message);
    }

    #[test]
    fn a_wrong_value_is_not_quoted() {
        for (text, message) in [
            (
                "restart:\n  max_unavailable: hunter2\n",
                ".unstuck.yml:2: restart.max_unavailable: the value is not what",
            ),
            ("app: [hunter2]\n", ".unstuck.yml:1: app: the value is not what it should be: a string"),
            ("hunter2\n", ".unstuck.yml:1: the value is not what it should be"),
            ("timeouts: hunter2, expected hunter2\n", ".unstuck.yml:1: timeouts: the value is not what"),
            (
                "command: {hunter2: 1}\n",
                ".unstuck.yml:1: command: the value is not what it should be: a string or a list of strings",
            ),
            (
                "databases: {a: {migrations_paths: {hunter2: 1}}}\n",
                ".unstuck.yml:1: databases.a.migrations_paths: the value",
            ),
            ("app: \"hunter2\n", ".unstuck.yml:"),
            ("app: *hunter2\n", ".unstuck.yml:1: "),
        ] {
            let error = File::parse(text.as_bytes(), ".unstuck.yml").map(drop).unwrap_err();
            assert!(error.message.starts_with(message), "{text}: {}", error.message);
            assert!(!error.message.contains("hunter2"), "{}", error.message);
        }
        assert_eq!(File::parse(b"app: a\n\xff", ".unstuck.yml").unwrap_err().message, ".unstuck.yml:2: is not UTF-8");
    }

    #[test]
    fn an_empty_file_is_no_error() {
        for text in ["", "# nothing\n", "---\n"] {
            assert!(File::parse(text.as_bytes(), ".unstuck.yml").is_ok(), "{text:?}");
        }
    }

    #[test]
    fn types_cover_each_other() {
        let named = |text| Types::parse(text);
        assert!(named("web,worker").cover(&named("web")));
        assert!(!named("web").cover(&named("web,worker")));
        assert!(named("all").cover(&named("web,clock")));
        assert!(!named("web").cover(&named("all")));
        assert!(named("all").include("clock") && !named("all").include("run"));
    }
}
