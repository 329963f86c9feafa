//! From `config/database.yml` and the environment to databases: Active Record's rules, version by version. Pure; what only
//! Ruby can tell is asked of the caller.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;

use super::erb::{self, Context, Doubt, Rendered, Stop};
use super::url::{self, UrlError};
use super::version::RailsVersion;
use super::yaml::{self, Map, Node, Value};
use super::{Database, Engine, Overrides, Resolved, Tables};
use crate::error::{Error, Kind, Result};
use crate::secret::Secret;

const FILE: &str = "config/database.yml";

/// What the resolution reads.
pub struct Sources<'a> {
    /// The Rails root, absolute.
    pub root: &'a Path,
    /// The contents of `config/database.yml`, where there is one.
    pub file: Option<&'a [u8]>,
    pub rails: RailsVersion,
    pub env: &'a BTreeMap<String, String>,
    pub overrides: &'a Overrides,
}

/// The databases that Rails would migrate in the current environment, in the order of the file. `ruby` evaluates the file's
/// ERB with the application's own Ruby; it is called only when a value that is needed depends on it.
pub fn resolve(sources: &Sources, ruby: impl FnOnce() -> Result<String>) -> Result<Resolved> {
    let environment = environment(sources.env);
    let Some(bytes) = sources.file else {
        if !sources.env.contains_key("DATABASE_URL") {
            let message = format!("there is neither {FILE} nor DATABASE_URL");
            return Err(
                Error::new(Kind::Input, message).hint("is this the root of a Rails application? -C names another")
            );
        }
        return decided(resolve_map(sources, &environment, &Map::default()));
    };
    let template = std::str::from_utf8(bytes).map_err(|error| {
        let line = bytes[..error.valid_up_to()].split(|&byte| byte == b'\n').count();
        refuse(Some(line), "is not UTF-8")
    })?;
    let context = Context { env: sources.env, environment: &environment, root: sources.root };
    let doubt = match erb::render(template, &context) {
        Err(Stop::Raised { line, message }) => return Err(refuse(Some(line), &message)),
        Err(Stop::Undecidable(doubt)) => doubt,
        Ok(rendered) => match resolve_text(sources, &environment, &rendered) {
            Ok(resolved) => return Ok(resolved),
            Err(Halt::Doubt(doubt)) => doubt,
            // A doubt may stand for several lines, and then the text around it is not what it seems.
            Err(Halt::Syntax(error)) => rendered.doubts.first().cloned().ok_or(error)?,
            Err(halt) => return decided(Err(halt)),
        },
    };
    let Doubt { line, expression } = &doubt;
    let text = ruby().map_err(|cause| {
        refuse(Some(*line), &format!("`{expression}` needs Ruby, which could not evaluate this file"))
            .because(cause)
            .hint("give the connection in DATABASE_URL, or in the file by ENV alone")
    })?;
    decided(resolve_text(sources, &environment, &Rendered::plain(&text)))
}

/// `RAILS_ENV`, then `RACK_ENV`, then `production` in a dyno, else `development`.
pub fn environment(env: &BTreeMap<String, String>) -> String {
    let set = |name| env.get(name).filter(|value| !value.trim().is_empty()).cloned();
    let fallback = if env.contains_key("DYNO") { "production" } else { "development" };
    set("RAILS_ENV").or_else(|| set("RACK_ENV")).unwrap_or_else(|| fallback.to_owned())
}

/// Why there is no answer.
enum Halt {
    Doubt(Doubt),
    Syntax(Error),
    Error(Error),
    /// A URL is given and empty, at this place.
    Empty(String),
}

impl From<Error> for Halt {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

fn decided(result: Result<Resolved, Halt>) -> Result<Resolved> {
    match result {
        Ok(resolved) => Ok(resolved),
        Err(Halt::Empty(from)) => Ok(Resolved::Empty { from }),
        Err(Halt::Error(error) | Halt::Syntax(error)) => Err(error),
        Err(Halt::Doubt(Doubt { line, expression })) => {
            Err(refuse(Some(line), &format!("`{expression}` is beyond what can be read here")))
        }
    }
}

fn refuse(line: Option<usize>, what: &str) -> Error {
    let place = line.map_or_else(|| FILE.to_owned(), |line| format!("{FILE}:{line}"));
    Error::new(Kind::Input, format!("{place}: {what}"))
}

/// A key as an error may name it. Where colons and blanks are missing, a key is what was meant as a value.
fn legible(name: &str) -> &str {
    let is_name = name.len() <= 64 && name.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | '.'));
    if is_name { name } else { "..." }
}

fn resolve_text(sources: &Sources, environment: &str, rendered: &Rendered) -> Result<Resolved, Halt> {
    let node = yaml::load(rendered)
        .map_err(|error| Halt::Syntax(refuse(Some(error.line), &format!("broken YAML: {}", error.message))))?;
    match node.value {
        Value::Map(map) => resolve_map(sources, environment, &shared(sources.rails, &map)?),
        Value::Null | Value::Bool(false) => resolve_map(sources, environment, &Map::default()),
        Value::Unknown(doubt) => Err(Halt::Doubt(doubt)),
        _ => Err(refuse(Some(node.line), "is not a mapping of environments").into()),
    }
}

/// Lays `shared:` under each environment, as the version does it.
fn shared(rails: RailsVersion, file: &Map) -> Result<Map, Halt> {
    let Some(shared) = file.get("shared").filter(|node| node.value.is_true()) else {
        let entries = file.entries.iter().filter(|(name, _)| name != "shared").cloned().collect();
        return Ok(Map { entries, doubt: file.doubt.clone() });
    };
    let common = match &shared.value {
        Value::Map(common) => common,
        Value::Unknown(doubt) => return Err(Halt::Doubt(doubt.clone())),
        _ => return Err(refuse(Some(shared.line), "shared: is not a mapping").into()),
    };
    let mut all = Map { entries: Vec::new(), doubt: file.doubt.clone() };
    let mut size = 0;
    for (name, node) in file.entries.iter().filter(|(name, _)| name != "shared") {
        let config = match &node.value {
            Value::Map(config) => config,
            Value::Unknown(_) => {
                all.set(name, node.clone());
                continue;
            }
            _ => {
                return Err(refuse(
                    Some(node.line),
                    &format!("{}: is not a mapping, though there is shared:", legible(name)),
                )
                .into());
            }
        };
        let merged = if rails >= RailsVersion(7, 0) && is_three_tier(config) {
            let by_name = is_three_tier(common);
            let mut databases = Map { entries: Vec::new(), doubt: config.doubt.clone() };
            for (database, node) in &config.entries {
                let base = if by_name { common.get(database).map(|node| &node.value) } else { Some(&shared.value) };
                let (Value::Map(own), Some(Value::Map(base))) = (&node.value, base) else {
                    return Err(refuse(Some(node.line), &format!("{} is not in shared:", legible(database))).into());
                };
                databases.set(database, Node { value: under(base, own), line: node.line });
            }
            Value::Map(Rc::new(databases))
        } else {
            under(common, config)
        };
        size += entries(&merged);
        if size > yaml::MAX_NODES {
            return Err(refuse(Some(shared.line), "shared: makes the file too large for a configuration").into());
        }
        all.set(name, Node { value: merged, line: node.line });
    }
    Ok(all)
}

/// How many entries an environment has, with those of its databases.
fn entries(environment: &Value) -> usize {
    let Value::Map(map) = environment else { return 0 };
    let of_database = |node: &Node| if let Value::Map(map) = &node.value { map.entries.len() } else { 0 };
    map.entries.iter().map(|(_, node)| 1 + of_database(node)).sum()
}

fn under(base: &Map, own: &Map) -> Value {
    let mut merged = own.clone();
    for (key, node) in &base.entries {
        if own.get(key).is_none() {
            merged.set(key, node.clone());
        }
    }
    merged.doubt = merged.doubt.or_else(|| base.doubt.clone());
    Value::Map(Rc::new(merged))
}

/// An environment whose values are all mappings names databases.
fn is_three_tier(config: &Map) -> bool {
    config.entries.iter().all(|(_, node)| matches!(node.value, Value::Map(_)))
}

/// One database of an environment while it is put together.
struct Draft {
    name: String,
    map: Map,
    /// Whether the file gave it a URL, after which no variable is looked at.
    by_url: bool,
    from: String,
}

fn resolve_map(sources: &Sources, environment: &str, file: &Map) -> Result<Resolved, Halt> {
    if let Some(doubt) = &file.doubt {
        return Err(Halt::Doubt(doubt.clone()));
    }
    let mut drafts = Vec::new();
    // Rails builds every environment, and what is wrong with another one stops it as well; but a doubt there does not matter.
    for (name, node) in &file.entries {
        match environment_drafts(sources.rails, name, node) {
            Ok(own) if name == environment => drafts = own,
            Err(Halt::Doubt(_)) if name != environment => {}
            Err(Halt::Empty(from)) if name != environment => {
                return Err(Error::new(Kind::Input, format!("{from}: {}", UrlError::Empty.message())).into());
            }
            Err(halt) => return Err(halt),
            Ok(_) => {}
        }
    }
    if drafts.is_empty() {
        let line = file.get(environment).map_or(0, |node| node.line);
        drafts.push(Draft { name: "primary".to_owned(), map: Map::default(), by_url: false, from: place(line) });
        if variable(sources, "primary").is_none() {
            let message = format!("{FILE} configures no database for the environment {environment}");
            return Err(Error::new(Kind::Input, message).hint("RAILS_ENV chooses the environment").into());
        }
    }
    let mut databases = Vec::new();
    for mut draft in drafts {
        if let Some((variable, url)) = variable(sources, &draft.name).filter(|_| !draft.by_url) {
            merge_url(&mut draft.map, url, 0, sources.rails, &variable)?;
            draft.from = variable;
        }
        if migrated(&draft, sources.rails)? {
            databases.push(database(sources, draft)?);
        }
    }
    Ok(Resolved::Databases(databases))
}

fn place(line: usize) -> String {
    format!("{FILE}:{line}")
}

fn environment_drafts(rails: RailsVersion, name: &str, node: &Node) -> Result<Vec<Draft>, Halt> {
    match &node.value {
        Value::Map(map) if map.doubt.is_none() && is_three_tier(map) => {
            map.entries.iter().map(|(name, node)| draft(rails, name, node)).collect()
        }
        Value::Unknown(doubt) => Err(Halt::Doubt(doubt.clone())),
        _ => draft(rails, "primary", node).map(|draft| vec![draft]).map_err(|halt| match halt {
            Halt::Error(error) => {
                Halt::Error(Error { message: format!("{} (in {}:)", error.message, legible(name)), ..error })
            }
            other => other,
        }),
    }
}

fn draft(rails: RailsVersion, name: &str, node: &Node) -> Result<Draft, Halt> {
    let from = place(node.line);
    let mut draft = Draft { name: name.to_owned(), map: Map::default(), by_url: false, from: from.clone() };
    match &node.value {
        Value::Map(map) => {
            draft.map = (**map).clone();
            let url =
                draft.map.entries.iter().position(|(key, _)| key == "url").map(|at| draft.map.entries.remove(at).1);
            match url.map(|url| (url.value, url.line)) {
                // Up to 7.0 a URL that is null still keeps the variables away.
                Some((Value::Null, _)) => draft.by_url = rails < RailsVersion(7, 1),
                Some((Value::Unknown(doubt), line)) => {
                    draft.map.set("url", Node { value: Value::Unknown(doubt), line });
                    draft.by_url = true;
                }
                Some((Value::Bool(false), _)) if rails >= RailsVersion(7, 1) => {}
                Some((Value::Text(url), line)) => {
                    merge_url(&mut draft.map, &url, line, rails, &place(line))?;
                    draft.by_url = true;
                }
                Some((_, line)) => return Err(refuse(Some(line), "url: is not a text").into()),
                None => {}
            }
        }
        Value::Text(text) if url::has_scheme(text) => {
            merge_url(&mut draft.map, text, node.line, rails, &from)?;
            draft.by_url = true;
        }
        _ => {
            let message = "neither a mapping nor a database URL (Rails: InvalidConfigurationError)";
            return Err(refuse(Some(node.line), message).into());
        }
    }
    Ok(draft)
}

/// `<NAME>_DATABASE_URL`, and for the primary database `DATABASE_URL`: the variable and its value.
fn variable<'a>(sources: &'a Sources, name: &str) -> Option<(String, &'a str)> {
    let own = format!("{}_DATABASE_URL", name.to_uppercase());
    let get = |name: String| sources.env.get(&name).map(|value| (name, value.as_str()));
    let own = if sources.rails >= RailsVersion(6, 0) { get(own) } else { None };
    own.or_else(|| if name == "primary" { get("DATABASE_URL".to_owned()) } else { None })
}

/// Lays a URL's parts over a configuration. Rails takes the URLs of other drivers as they are.
fn merge_url(map: &mut Map, url: &str, line: usize, rails: RailsVersion, from: &str) -> Result<(), Halt> {
    if ["jdbc:", "http:", "https:"].iter().any(|scheme| url.starts_with(scheme)) {
        map.set("url", Node { value: Value::Text(url.to_owned()), line });
        return Ok(());
    }
    let pairs = url::configuration(url, rails).map_err(|error| match error {
        UrlError::Empty => Halt::Empty(from.to_owned()),
        error => Error::new(Kind::Input, format!("{from}: {}", error.message())).into(),
    })?;
    for (key, text) in pairs {
        let boolean = matches!(key.as_str(), "replica" | "database_tasks" | "use_metadata_table");
        let value =
            if boolean && rails >= RailsVersion(7, 2) { Value::Bool(text != "false") } else { Value::Text(text) };
        map.set(&key, Node { value, line });
    }
    Ok(())
}

fn needed<'a>(map: &'a Map, key: &str) -> Result<Option<&'a Value>, Halt> {
    match map.get(key).map(|node| &node.value) {
        Some(Value::Unknown(doubt)) => Err(Halt::Doubt(doubt.clone())),
        value => Ok(value),
    }
}

/// Whether Rails migrates this database: no replica, and from 7.0 on not without `database_tasks`.
fn migrated(draft: &Draft, rails: RailsVersion) -> Result<bool, Halt> {
    let truth = |key, default| Ok::<_, Halt>(needed(&draft.map, key)?.map_or(default, Value::is_true));
    Ok(!truth("replica", false)? && (rails < RailsVersion(7, 0) || truth("database_tasks", true)?))
}

/// Keys that change nothing about what is pending nor about how the server is reached: a doubt about them does not matter.
const IMMATERIAL: [&str; 24] = [
    "pool",
    "max_connections",
    "min_connections",
    "max_threads",
    "min_threads",
    "keepalive",
    "max_age",
    "timeout",
    "checkout_timeout",
    "reaping_frequency",
    "idle_timeout",
    "prepared_statements",
    "statement_limit",
    "advisory_locks",
    "variables",
    "schema_cache_path",
    "schema_dump",
    "query_cache",
    "connection_retries",
    "retry_deadline",
    "default_timezone",
    "min_messages",
    "strict",
    "seeds",
];

/// Keys with a place of their own in [`Database`], or a meaning that ends here.
const OWN: [&str; 12] = [
    "adapter",
    "host",
    "port",
    "socket",
    "database",
    "username",
    "password",
    "migrations_paths",
    "use_metadata_table",
    "replica",
    "database_tasks",
    "url",
];

fn database(sources: &Sources, draft: Draft) -> Result<Database, Halt> {
    let Draft { name, map, from, .. } = draft;
    if let Some(doubt) = &map.doubt {
        return Err(Halt::Doubt(doubt.clone()));
    }
    let fail =
        |what: String| Halt::Error(Error::new(Kind::Input, format!("{from}: {what} (database {})", legible(&name))));
    needed(&map, "url")?;
    let text = |key: &str| Ok::<_, Halt>(needed(&map, key)?.and_then(Value::text).filter(|text| !text.is_empty()));
    // What is false names nothing to the adapters.
    let named =
        |key: &str| Ok::<_, Halt>(if needed(&map, key)?.is_some_and(Value::is_true) { text(key)? } else { None });
    let adapter =
        text("adapter")?.ok_or_else(|| fail("no adapter is given (Rails: AdapterNotSpecified)".to_owned()))?;
    let engine = match adapter.as_str() {
        "postgresql" | "postgis" => Engine::Postgresql,
        "mysql2" | "trilogy" => Engine::Mysql,
        "sqlite3" => Engine::Sqlite,
        _ => {
            return Err(fail("adapter: is none of postgresql, postgis, mysql2, trilogy, sqlite3".to_owned()));
        }
    };
    let port =
        text("port")?.map(|port| port.parse().map_err(|_| fail("port: is no port number".to_owned()))).transpose()?;
    let database = match (engine, named("database")?) {
        (Engine::Sqlite, None) => return Err(fail("database: names no file".to_owned())),
        (Engine::Sqlite, Some(path)) => Some(sqlite_path(sources, path)),
        (_, database) => database,
    };
    let mut options = BTreeMap::new();
    for (key, _) in
        map.entries.iter().filter(|(key, _)| !OWN.contains(&key.as_str()) && !IMMATERIAL.contains(&key.as_str()))
    {
        options.extend(text(key)?.map(|text| (key.clone(), text)));
    }
    // libpq's own word for the user works in a file too.
    let user = if engine == Engine::Postgresql { options.remove("user") } else { None };
    let own = sources.overrides.databases.get(&name);
    let global = &sources.overrides.global;
    let choose = |pick: fn(&Tables) -> &Option<String>, default: &str| {
        own.and_then(|own| pick(own).clone()).or_else(|| pick(global).clone()).unwrap_or_else(|| default.to_owned())
    };
    let use_metadata =
        needed(&map, "use_metadata_table")?.is_none_or(Value::is_true) || sources.rails < RailsVersion(6, 1);
    let overridden = own.and_then(|own| own.migrations_paths.clone()).or_else(|| global.migrations_paths.clone());
    Ok(Database {
        engine,
        adapter,
        host: text("host")?,
        port,
        socket: text("socket")?,
        database,
        username: named("username")?.or(user),
        password: text("password")?.map(Secret::new),
        options,
        migrations_paths: match overridden {
            Some(paths) => paths,
            None => migrations_paths(&map)?
                .ok_or_else(|| fail("migrations_paths: is neither a path nor a list".to_owned()))?,
        },
        schema_migrations_table: choose(|tables| &tables.schema_migrations_table, "schema_migrations"),
        metadata_table: use_metadata.then(|| choose(|tables| &tables.metadata_table, "ar_internal_metadata")),
        from,
        name,
    })
}

/// `None` where the value is of no use. An empty path would stand for the whole file system.
fn migrations_paths(map: &Map) -> Result<Option<Vec<String>>, Halt> {
    let path = |value: &Value| match value {
        Value::Unknown(doubt) => Err(Halt::Doubt(doubt.clone())),
        value => Ok(value.text().filter(|path| !path.is_empty())),
    };
    match needed(map, "migrations_paths")? {
        None | Some(Value::Null | Value::Bool(false)) => Ok(Some(vec!["db/migrate".to_owned()])),
        Some(Value::List(items)) => items.iter().map(|item| path(&item.value)).collect(),
        Some(value) => Ok(path(value)?.map(|path| vec![path])),
    }
}

/// As `File.expand_path` with the Rails root. What is no file stays as it is: a database in memory, and from 7.1 on a URI.
fn sqlite_path(sources: &Sources, path: String) -> String {
    if path == ":memory:" || sources.rails >= RailsVersion(7, 1) && path.starts_with("file:") {
        return path;
    }
    let path = match (path.strip_prefix("~/"), sources.env.get("HOME")) {
        (Some(rest), Some(home)) => Path::new(home).join(rest),
        _ => sources.root.join(path),
    };
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => {
                clean.pop();
            }
            Component::CurDir => {}
            component => clean.push(component),
        }
    }
    clean.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEWEST: RailsVersion = RailsVersion(8, 0);
    const CACHE: &str =
        "production:\n  primary: {adapter: postgresql, database: p}\n  cache: {adapter: mysql2, database: c}\n";

    fn resolved(yaml: Option<&str>, rails: RailsVersion, env: &[(&str, &str)]) -> Result<Resolved> {
        let mut env: BTreeMap<_, _> =
            env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        env.entry("RAILS_ENV".to_owned()).or_insert("production".to_owned());
        let tables = |name: &str| Tables { schema_migrations_table: Some(name.to_owned()), ..Tables::default() };
        let overrides = Overrides { global: tables("g"), databases: [("cache".to_owned(), tables("c"))].into() };
        let sources =
            Sources { root: Path::new("/app"), file: yaml.map(str::as_bytes), rails, env: &env, overrides: &overrides };
        resolve(&sources, || Err(Error::new(Kind::Input, "no ruby here")))
    }

    /// `name adapter host database from`, one database after another.
    fn shown(yaml: Option<&str>, rails: RailsVersion, env: &[(&str, &str)]) -> String {
        match resolved(yaml, rails, env) {
            Ok(Resolved::Empty { from }) => format!("empty {from}"),
            Err(error) => format!("error {error}"),
            Ok(Resolved::Databases(databases)) => {
                let show = |text: &Option<String>| text.clone().unwrap_or("-".to_owned());
                let line = |d: &Database| {
                    format!("{} {} {} {} {}", d.name, d.adapter, show(&d.host), show(&d.database), d.from)
                };
                databases.iter().map(line).collect::<Vec<_>>().join("; ")
            }
        }
    }

    #[test]
    fn variables_are_merged_by_the_rules_of_the_version() {
        let unset = "production:\n  url: <%= ENV['UNSET'] %>\n  adapter: postgresql\n";
        let url = [("DATABASE_URL", "postgres://h/db")];
        let file = "config/database.yml";
        let old = RailsVersion(7, 0);
        let table = [
            (None, NEWEST, &url[..], "primary postgresql h db DATABASE_URL".to_owned()),
            (None, NEWEST, &[("DATABASE_URL", " ")][..], "empty DATABASE_URL".to_owned()),
            (Some(unset), old, &url, format!("primary postgresql - - {file}:1")),
            (Some(unset), NEWEST, &url, "primary postgresql h db DATABASE_URL".to_owned()),
            (Some(CACHE), NEWEST, &url, format!("primary postgresql h db DATABASE_URL; cache mysql2 - c {file}:3")),
            (
                Some(CACHE),
                NEWEST,
                &[("CACHE_DATABASE_URL", "mysql://x")],
                format!("primary postgresql - p {file}:2; cache mysql2 x c CACHE_DATABASE_URL"),
            ),
            (
                Some(CACHE),
                RailsVersion(5, 2),
                &[("CACHE_DATABASE_URL", "mysql2://x")],
                format!("primary postgresql - p {file}:2; cache mysql2 - c {file}:3"),
            ),
            (Some("production:\n  url: ''\n"), NEWEST, &[], format!("empty {file}:2")),
            (
                Some("production: {adapter: sqlite3, database: db/../x}"),
                NEWEST,
                &[],
                format!("primary sqlite3 - /app/x {file}:1"),
            ),
            (Some("production:\n  a: {adapter: trilogy, database_tasks: false}\n"), NEWEST, &[], String::new()),
            (
                Some("production:\n  a: {adapter: trilogy, database_tasks: false}\n"),
                RailsVersion(6, 1),
                &[],
                format!("a trilogy - - {file}:2"),
            ),
            (
                Some("shared: {adapter: trilogy}\nproduction:\n  a: {host: x}\n"),
                NEWEST,
                &[],
                format!("a trilogy x - {file}:3"),
            ),
        ];
        for (yaml, rails, env, expected) in table {
            assert_eq!(shown(yaml, rails, env), expected, "{yaml:?} {rails:?} {env:?}");
        }
    }

    #[test]
    fn a_doubt_matters_only_where_it_is_needed() {
        let table = [
            ("production: {adapter: trilogy, pool: <%= Foo %>}\ntest: {host: <%= Foo %>}", "primary trilogy"),
            (
                "production:\n  adapter: trilogy\n  host: <%= Foo.x %>",
                "error config/database.yml:3: `Foo.x` needs Ruby",
            ),
            ("production:\n  <% if Foo %>\n  a: 1\n  <% end %>", "error config/database.yml:2: `Foo` needs Ruby"),
            ("<%= Foo.all %>\nproduction:\n  adapter: trilogy", "error config/database.yml:1: `Foo.all` needs Ruby"),
            ("production: {adapter: trilogy}\n<%= Foo %>: 1", "error config/database.yml:2: `Foo` needs Ruby"),
        ];
        for (yaml, expected) in table {
            let shown = shown(Some(yaml), NEWEST, &[]);
            assert!(shown.starts_with(expected), "{yaml}: {shown}");
        }
        // What the variable gives is needed no more from the file.
        let file = "production:\n  adapter: <%= Foo %>\n  password: <%= Foo %>\n";
        let url = [("DATABASE_URL", "postgres://u:p@h/db")];
        assert_eq!(shown(Some(file), NEWEST, &url), "primary postgresql h db DATABASE_URL");
    }

    #[test]
    fn refusals_name_the_place_and_no_value() {
        let table = [
            (None, "there is neither config/database.yml nor DATABASE_URL"),
            (Some("production:\n"), "config/database.yml:1: neither a mapping nor a database URL"),
            (
                Some("test: {adapter: trilogy}"),
                "config/database.yml configures no database for the environment production",
            ),
            (
                Some("production:\n  adapter: trilogy\n  port: s3cret\n"),
                "config/database.yml:1: port: is no port number",
            ),
            (
                Some("production:\n  url: postgres://u:s3cret#x@h/d\n"),
                "config/database.yml:2: the database URL is not valid",
            ),
            (Some("production: {database: s3cret}"), "config/database.yml:1: no adapter is given"),
            (Some("production:\n\tpassword: s3cret"), "config/database.yml:2: broken YAML"),
            (Some("test:\n  url: ''\n"), "config/database.yml:2: the database URL is empty"),
            (Some("# <%= ENV.fetch('X') %>"), "config/database.yml:1: ENV.fetch: X is not set"),
            (Some("- s3cret"), "config/database.yml:1: is not a mapping"),
        ];
        for (yaml, expected) in table {
            let error = resolved(yaml, NEWEST, &[]).unwrap_err();
            assert!(error.to_string().starts_with(expected), "{yaml:?}: {error}");
            assert!(!format!("{error:?}").contains("s3cret"), "{error:?}");
        }
    }

    #[test]
    fn what_ruby_alone_knows_can_be_said() {
        let Ok(Resolved::Databases(databases)) = resolved(Some(CACHE), NEWEST, &[]) else { panic!() };
        let tables: Vec<_> = databases.iter().map(|database| database.schema_migrations_table.as_str()).collect();
        assert_eq!(tables, ["g", "c"]);
    }

    #[test]
    fn the_environment_is_chosen_as_in_a_dyno() {
        let table: [(&[(&str, &str)], &str); 5] = [
            (&[], "development"),
            (&[("DYNO", "web.1")], "production"),
            (&[("RACK_ENV", "staging"), ("DYNO", "web.1")], "staging"),
            (&[("RAILS_ENV", "test"), ("RACK_ENV", "staging")], "test"),
            (&[("RAILS_ENV", " "), ("RACK_ENV", "")], "development"),
        ];
        for (env, expected) in table {
            let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            assert_eq!(environment(&env), expected);
        }
    }
}
