//! Where to connect and as whom, by libpq's rules: what the configuration says, then the service file, then the `PG*`
//! variables, then libpq's defaults. What libpq does not know is ignored.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio_postgres::config::ChannelBinding;

use crate::ports::{SqlError, SqlErrorKind};
use crate::rails::Database;
use crate::secret::Secret;

const DEFAULT_PORT: u16 = 5432;
/// Debian's libpq looks in the first folder, the one of the PostgreSQL project in the second.
const DEFAULT_SOCKET_DIRS: [&str; 2] = ["/var/run/postgresql", "/tmp"];

/// Everything that opening a session needs.
#[derive(Debug)]
pub(super) struct Target {
    /// Never empty; to be tried in this order.
    pub hosts: Vec<Host>,
    pub user: String,
    pub dbname: String,
    pub tls: TlsSettings,
    pub channel_binding: ChannelBinding,
    /// libpq's `connect_timeout`, for one address. `None`: no limit of its own.
    pub address_timeout: Option<Duration>,
    pub wanted: Wanted,
    /// What to say when the login fails, where something is known: a password file that had to be passed over, ...
    pub login_hint: Option<String>,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Host {
    pub place: Place,
    pub password: Option<Secret>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// A socket file; an abstract one begins with a NUL byte.
    Unix(PathBuf),
    /// `name` is what a certificate is compared with, `address` what is connected to: libpq's `host` and `hostaddr`.
    Tcp { name: String, address: String, port: u16 },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SslMode {
    Disable,
    Allow,
    Prefer,
    Require,
    VerifyCa,
    VerifyFull,
}

#[derive(Debug)]
pub(super) struct TlsSettings {
    pub mode: SslMode,
    pub roots: Roots,
    /// Certificate and key of the client; used when the certificate's file is there.
    pub client: Option<(PathBuf, PathBuf)>,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Roots {
    /// `sslrootcert=system`: what the system and the browsers trust.
    System,
    /// A file of certificates. As in libpq, it is used in every mode when it is there.
    File(PathBuf),
    /// No file was named and there is no home folder to look in.
    Nowhere,
}

/// libpq's `target_session_attrs`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    Any,
    ReadWrite,
    ReadOnly,
    Primary,
    Standby,
}

/// Resolves `db` and `env` as libpq would. Reads the service file, the password file and nothing else.
pub(super) fn resolve(db: &Database, env: &BTreeMap<String, String>) -> Result<Target, SqlError> {
    let settings = Settings::new(db, env)?;
    let user = match settings.get("user") {
        Some(user) => user,
        None => os_user(env)?,
    };
    let dbname = settings.get("dbname").unwrap_or_else(|| user.clone());
    let places = places(settings.get("host"), settings.get("hostaddr"), settings.get("port"))?;

    let (hosts, login_hint) = with_passwords(places, &settings, &dbname, &user);
    Ok(Target {
        hosts,
        tls: tls_settings(&settings)?,
        channel_binding: channel_binding(settings.get("channel_binding").as_deref())?,
        address_timeout: address_timeout(settings.get("connect_timeout").as_deref())?,
        wanted: wanted(settings.get("target_session_attrs").as_deref())?,
        user,
        dbname,
        login_hint,
    })
}

/// Gives each place its password: the one that is configured, or what the password file has for it. A file that had to be
/// passed over is told of, for the case that the login fails.
fn with_passwords(places: Vec<Place>, settings: &Settings, dbname: &str, user: &str) -> (Vec<Host>, Option<String>) {
    let configured = settings.get("password").map(Secret::new);
    let mut hint = None;
    let mut lines = String::new();
    if configured.is_none()
        && let Some(file) = settings.get("passfile").map(PathBuf::from).or_else(|| settings.in_home(".pgpass"))
    {
        match read_passfile(&file) {
            Ok(text) => lines = text,
            Err(why) => hint = Some(why),
        }
    }
    let host = |place| {
        let password = configured.clone().or_else(|| password_for(&lines, &place, dbname, user));
        Host { place, password }
    };
    (places.into_iter().map(host).collect(), hint)
}

fn channel_binding(value: Option<&str>) -> Result<ChannelBinding, SqlError> {
    match value {
        None | Some("prefer") => Ok(ChannelBinding::Prefer),
        Some("disable") => Ok(ChannelBinding::Disable),
        Some("require") => Ok(ChannelBinding::Require),
        Some(other) => Err(invalid("channel_binding", other)),
    }
}

/// As in libpq: not above zero means no limit, and one second is too short to be meant.
fn address_timeout(value: Option<&str>) -> Result<Option<Duration>, SqlError> {
    let Some(text) = value else { return Ok(None) };
    let seconds: i64 = text.trim().parse().map_err(|_| invalid("connect_timeout", text))?;
    Ok(u64::try_from(seconds).ok().filter(|&seconds| seconds > 0).map(|seconds| Duration::from_secs(seconds.max(2))))
}

fn wanted(value: Option<&str>) -> Result<Wanted, SqlError> {
    match value {
        // A standby is only preferred there, so whatever answers will do.
        None | Some("any" | "prefer-standby") => Ok(Wanted::Any),
        Some("read-write") => Ok(Wanted::ReadWrite),
        Some("read-only") => Ok(Wanted::ReadOnly),
        Some("primary") => Ok(Wanted::Primary),
        Some("standby") => Ok(Wanted::Standby),
        Some(other) => Err(invalid("target_session_attrs", other)),
    }
}

/// The layers that a setting is looked for in, best first.
struct Settings<'a> {
    db: &'a Database,
    service: BTreeMap<String, String>,
    env: &'a BTreeMap<String, String>,
    home: Option<PathBuf>,
}

/// libpq's settings that can also come from the environment.
const VARIABLES: [(&str, &str); 15] = [
    ("host", "PGHOST"),
    ("hostaddr", "PGHOSTADDR"),
    ("port", "PGPORT"),
    ("user", "PGUSER"),
    ("password", "PGPASSWORD"),
    ("dbname", "PGDATABASE"),
    ("passfile", "PGPASSFILE"),
    ("service", "PGSERVICE"),
    ("sslmode", "PGSSLMODE"),
    ("sslrootcert", "PGSSLROOTCERT"),
    ("sslcert", "PGSSLCERT"),
    ("sslkey", "PGSSLKEY"),
    ("channel_binding", "PGCHANNELBINDING"),
    ("connect_timeout", "PGCONNECT_TIMEOUT"),
    ("target_session_attrs", "PGTARGETSESSIONATTRS"),
];

impl<'a> Settings<'a> {
    fn new(db: &'a Database, env: &'a BTreeMap<String, String>) -> Result<Self, SqlError> {
        let home = filled(env.get("HOME")).map(PathBuf::from).or_else(std::env::home_dir);
        let mut settings = Self { db, service: BTreeMap::new(), env, home };
        if let Some(name) = settings.get("service") {
            settings.service = settings.read_service(&name)?;
        }
        Ok(settings)
    }

    /// The value of one of libpq's settings; an empty one counts as not given.
    fn get(&self, key: &str) -> Option<String> {
        let configured = match key {
            "host" => self.db.host.clone(),
            "port" => self.db.port.map(|port| port.to_string()),
            "user" => self.db.username.clone(),
            "password" => self.db.password.as_ref().map(|password| password.expose().to_owned()),
            "dbname" => self.db.database.clone(),
            _ => None,
        };
        let variable =
            || VARIABLES.iter().find(|(name, _)| *name == key).and_then(|(_, variable)| self.env.get(*variable));
        configured
            .filter(|value| !value.is_empty())
            .or_else(|| filled(self.db.options.get(key)))
            .or_else(|| filled(self.service.get(key)))
            .or_else(|| filled(variable()))
    }

    fn in_home(&self, file: &str) -> Option<PathBuf> {
        self.home.as_ref().map(|home| home.join(file))
    }

    /// The settings of one service: the user's own file is looked into before the system's.
    fn read_service(&self, name: &str) -> Result<BTreeMap<String, String>, SqlError> {
        let own = filled(self.env.get("PGSERVICEFILE")).map(PathBuf::from).or_else(|| self.in_home(".pg_service.conf"));
        let system = filled(self.env.get("PGSYSCONFDIR")).unwrap_or_else(|| "/etc/postgresql-common".to_owned());
        [own, Some(Path::new(&system).join("pg_service.conf"))]
            .into_iter()
            .flatten()
            .filter_map(|file| fs::read_to_string(file).ok())
            .find_map(|text| service_section(&text, name))
            .ok_or_else(|| problem(format!("definition of service \"{name}\" not found")))
    }
}

fn filled(value: Option<&String>) -> Option<String> {
    value.filter(|value| !value.is_empty()).cloned()
}

fn problem(message: String) -> SqlError {
    SqlError { kind: SqlErrorKind::Other, message, hint: None }
}

fn invalid(key: &str, value: &str) -> SqlError {
    problem(format!("invalid {key} value: \"{value}\""))
}

/// The name that the operating system knows the user by; in a container without a line for it, what the shell says.
fn os_user(env: &BTreeMap<String, String>) -> Result<String, SqlError> {
    whoami::username()
        .ok()
        .or_else(|| filled(env.get("USER")))
        .ok_or_else(|| problem("no user name is configured, and the system has none for this process".to_owned()))
}

/// The `[name]` section of a service file, if it is there.
fn service_section(text: &str, name: &str) -> Option<BTreeMap<String, String>> {
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.find(|line| line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) == Some(name))?;
    Some(
        lines
            .take_while(|line| !line.starts_with('['))
            .filter_map(|line| line.split_once('='))
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect(),
    )
}

/// Pairs the lists of hosts, addresses and ports, as libpq does: a list of ports has one for all or one for each.
fn places(host: Option<String>, hostaddr: Option<String>, port: Option<String>) -> Result<Vec<Place>, SqlError> {
    let list = |text: Option<String>| -> Vec<String> {
        text.map(|text| text.split(',').map(|item| item.trim().to_owned()).collect()).unwrap_or_default()
    };
    let (mut names, addresses, ports) = (list(host), list(hostaddr), list(port));
    if names.is_empty() {
        names = vec![String::new(); addresses.len().max(1)];
    }
    if !addresses.is_empty() && addresses.len() != names.len() {
        return Err(problem(format!("{} host names do not match {} hostaddr values", names.len(), addresses.len())));
    }
    if ports.len() > 1 && ports.len() != names.len() {
        return Err(problem(format!("{} port numbers do not match {} hosts", ports.len(), names.len())));
    }

    let mut places = Vec::new();
    for (index, name) in names.iter().enumerate() {
        let address = addresses.get(index).filter(|address| !address.is_empty());
        let port = match ports.get(index).or(ports.first()).map(String::as_str) {
            None | Some("") => DEFAULT_PORT,
            Some(text) => text.parse().ok().filter(|&port| port > 0).ok_or_else(|| invalid("port", text))?,
        };
        let socket = |dir: &str| Place::Unix(PathBuf::from(format!("{dir}/.s.PGSQL.{port}")));
        match (name.as_str(), address) {
            ("", None) => places.extend(DEFAULT_SOCKET_DIRS.map(socket)),
            ("", Some(address)) => places.push(Place::Tcp { name: address.clone(), address: address.clone(), port }),
            (name, None) if name.starts_with('/') => places.push(socket(name)),
            (name, None) if name.starts_with('@') => places.push(socket(&name.replacen('@', "\0", 1))),
            (name, address) => places.push(Place::Tcp {
                name: name.to_owned(),
                address: address.cloned().unwrap_or_else(|| name.to_owned()),
                port,
            }),
        }
    }
    Ok(places)
}

fn tls_settings(settings: &Settings) -> Result<TlsSettings, SqlError> {
    let roots = match settings.get("sslrootcert") {
        Some(word) if word == "system" => Roots::System,
        Some(file) => Roots::File(PathBuf::from(file)),
        None => settings.in_home(".postgresql/root.crt").map_or(Roots::Nowhere, Roots::File),
    };
    let mode = match settings.get("sslmode").as_deref() {
        // Trusting the whole world's authorities is worth something only if the name is compared too.
        None | Some("verify-full") if roots == Roots::System => SslMode::VerifyFull,
        Some(weaker) if roots == Roots::System => {
            return Err(problem(format!("weak sslmode \"{weaker}\" may not be used with sslrootcert=system")));
        }
        None | Some("prefer") => SslMode::Prefer,
        Some("disable") => SslMode::Disable,
        Some("allow") => SslMode::Allow,
        Some("require") => SslMode::Require,
        Some("verify-ca") => SslMode::VerifyCa,
        Some("verify-full") => SslMode::VerifyFull,
        Some(other) => return Err(invalid("sslmode", other)),
    };
    let certificate =
        settings.get("sslcert").map(PathBuf::from).or_else(|| settings.in_home(".postgresql/postgresql.crt"));
    let key = settings.get("sslkey").map(PathBuf::from).or_else(|| settings.in_home(".postgresql/postgresql.key"));
    Ok(TlsSettings { mode, roots, client: certificate.zip(key) })
}

/// The text of a password file: none where there is no file, a reason where there is one that must not be trusted.
fn read_passfile(file: &Path) -> Result<String, String> {
    let Ok(metadata) = fs::metadata(file) else { return Ok(String::new()) };
    let name = file.display();
    if !metadata.is_file() {
        return Err(format!("the password file {name} is not a plain file and was not used"));
    }
    if metadata.permissions().mode() & 0o077 != 0 {
        return Err(format!("the password file {name} can be read by others and was not used: chmod 600 {name}"));
    }
    fs::read_to_string(file).map_err(|error| format!("the password file {name} could not be read: {error}"))
}

/// The password of the first line of a password file that fits.
fn password_for(lines: &str, place: &Place, dbname: &str, user: &str) -> Option<Secret> {
    let (host, port) = match place {
        Place::Tcp { name, port, .. } => (name.clone(), port.to_string()),
        Place::Unix(socket) => {
            let dir = socket.parent().map(|dir| dir.to_string_lossy().replacen('\0', "@", 1)).unwrap_or_default();
            let port = socket.extension().map(|port| port.to_string_lossy().into_owned()).unwrap_or_default();
            (if DEFAULT_SOCKET_DIRS.contains(&dir.as_str()) { "localhost".to_owned() } else { dir }, port)
        }
    };
    let wanted = [host.as_str(), port.as_str(), dbname, user];
    lines.lines().filter(|line| !line.starts_with('#')).map(fields).find_map(|fields| match fields.as_slice() {
        [keys @ .., password] if keys.len() == wanted.len() => {
            let fits = keys.iter().zip(wanted).all(|(key, wanted)| key == "*" || unescape(key) == wanted);
            fits.then(|| Secret::new(unescape(password)))
        }
        _ => None,
    })
}

/// The first five fields of a line, still escaped: a colon or a backslash within one has a backslash before it.
fn fields(line: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut escaped = false;
    for c in line.chars() {
        if c == ':' && !escaped {
            fields.push(String::new());
            continue;
        }
        escaped = c == '\\' && !escaped;
        if let Some(field) = fields.last_mut() {
            field.push(c);
        }
    }
    fields.truncate(5);
    fields
}

fn unescape(field: &str) -> String {
    let mut escaped = false;
    field
        .chars()
        .filter(|&c| {
            escaped = c == '\\' && !escaped;
            !escaped
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rails::Engine;

    type Pairs<'a> = &'a [(&'a str, &'a str)];

    fn database(options: Pairs) -> Database {
        Database {
            name: "primary".to_owned(),
            engine: Engine::Postgresql,
            adapter: "postgresql".to_owned(),
            host: None,
            port: None,
            socket: None,
            database: None,
            username: None,
            password: None,
            options: map(options),
            migrations_paths: Vec::new(),
            schema_migrations_table: "schema_migrations".to_owned(),
            metadata_table: None,
            from: "DATABASE_URL".to_owned(),
        }
    }

    fn map(pairs: Pairs) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn resolved(options: Pairs, env: Pairs) -> Result<Target, SqlError> {
        let mut env = map(env);
        env.entry("HOME".to_owned()).or_insert_with(|| "/nonexistent".to_owned());
        resolve(&database(options), &env)
    }

    fn tcp(name: &str, address: &str, port: u16) -> Place {
        Place::Tcp { name: name.to_owned(), address: address.to_owned(), port }
    }

    fn unix(path: &str) -> Place {
        Place::Unix(PathBuf::from(path))
    }

    #[test]
    fn hosts_addresses_and_ports_are_paired_as_in_libpq() {
        let default = vec![unix("/var/run/postgresql/.s.PGSQL.5432"), unix("/tmp/.s.PGSQL.5432")];
        let cases: [(Pairs, Vec<Place>); 9] = [
            (&[], default.clone()),
            (&[("host", "")], default),
            (&[("host", "db.example"), ("port", "6432")], vec![tcp("db.example", "db.example", 6432)]),
            (&[("host", "a,b"), ("port", "1,2")], vec![tcp("a", "a", 1), tcp("b", "b", 2)]),
            (&[("host", "a,b"), ("port", "7")], vec![tcp("a", "a", 7), tcp("b", "b", 7)]),
            (&[("host", "a,/run"), ("port", ",3")], vec![tcp("a", "a", 5432), unix("/run/.s.PGSQL.3")]),
            (&[("host", "@name")], vec![unix("\0name/.s.PGSQL.5432")]),
            (&[("host", "a"), ("hostaddr", "::1")], vec![tcp("a", "::1", 5432)]),
            (
                &[("hostaddr", "10.0.0.1,10.0.0.2")],
                vec![tcp("10.0.0.1", "10.0.0.1", 5432), tcp("10.0.0.2", "10.0.0.2", 5432)],
            ),
        ];
        for (options, places) in cases {
            let found: Vec<Place> = resolved(options, &[]).unwrap().hosts.into_iter().map(|host| host.place).collect();
            assert_eq!(found, places, "{options:?}");
        }
    }

    #[test]
    fn what_libpq_refuses_is_refused_by_name() {
        let cases: [(Pairs, &str); 8] = [
            (&[("host", "a,b,c"), ("port", "1,2")], "2 port numbers do not match 3 hosts"),
            (&[("host", "a"), ("hostaddr", "::1,::2")], "1 host names do not match 2 hostaddr values"),
            (&[("port", "http")], "invalid port value: \"http\""),
            (&[("sslmode", "on")], "invalid sslmode value: \"on\""),
            (&[("connect_timeout", "5s")], "invalid connect_timeout value: \"5s\""),
            (&[("channel_binding", "on")], "invalid channel_binding value: \"on\""),
            (&[("target_session_attrs", "master")], "invalid target_session_attrs value: \"master\""),
            (
                &[("sslrootcert", "system"), ("sslmode", "require")],
                "weak sslmode \"require\" may not be used with sslrootcert=system",
            ),
        ];
        for (options, message) in cases {
            assert_eq!(resolved(options, &[]).unwrap_err().message, message);
        }
    }

    #[test]
    fn the_configuration_wins_over_the_environment_and_unknown_keys_are_ignored() {
        let env = [("PGUSER", "env"), ("PGDATABASE", "env_db"), ("PGSSLMODE", "require"), ("PGCONNECT_TIMEOUT", "1")];
        let target = resolved(&[("sslmode", "allow"), ("pool", "5"), ("prepared_statements", "false")], &env).unwrap();
        assert_eq!((target.user.as_str(), target.dbname.as_str()), ("env", "env_db"));
        assert_eq!(target.tls.mode, SslMode::Allow);
        assert_eq!(target.address_timeout, Some(Duration::from_secs(2)));

        let mut db = database(&[("user", "option"), ("dbname", "option_db")]);
        assert_eq!(resolve(&db, &map(&env)).unwrap().user, "option");
        (db.username, db.database) = (Some("configured".to_owned()), Some(String::new()));
        let target = resolve(&db, &map(&env)).unwrap();
        assert_eq!((target.user.as_str(), target.dbname.as_str()), ("configured", "option_db"));
    }

    #[test]
    fn the_database_is_called_like_the_user_when_it_has_no_name() {
        assert_eq!(resolved(&[("user", "someone")], &[]).unwrap().dbname, "someone");
    }

    #[test]
    fn the_systems_authorities_imply_that_the_name_is_verified() {
        assert_eq!(resolved(&[("sslrootcert", "system")], &[]).unwrap().tls.mode, SslMode::VerifyFull);
        assert_eq!(resolved(&[], &[]).unwrap().tls.mode, SslMode::Prefer);
    }

    #[test]
    fn the_first_line_of_the_password_file_that_fits_is_taken() {
        let lines = "# db:5432:app:me:comment\n\
                     db:5432:app:me:one\n\
                     db:*:*:you:t\\:w\\\\o:ignored\n\
                     localhost:*:*:me:local\n\
                     too:few:fields\n\
                     /run/pg:5432:*:me:socket\n\
                     *:*:\\*:me:star\n\
                     *:*:*:*:rest\r\n";
        let cases = [
            (tcp("db", "10.0.0.1", 5432), "app", "me", "one"),
            (tcp("db", "10.0.0.1", 9), "app", "you", "t:w\\o"),
            (unix("/var/run/postgresql/.s.PGSQL.5432"), "app", "me", "local"),
            (unix("/run/pg/.s.PGSQL.5432"), "app", "me", "socket"),
            (tcp("db", "10.0.0.1", 9), "*", "me", "star"),
            (tcp("db", "10.0.0.1", 9), "app", "me", "rest"),
        ];
        for (place, dbname, user, password) in cases {
            assert_eq!(password_for(lines, &place, dbname, user), Some(Secret::new(password)), "{place:?} {user}");
        }
        assert_eq!(password_for("db:5432:app:me:one", &tcp("other", "other", 5432), "app", "me"), None);
    }

    #[test]
    fn a_service_is_one_section_of_its_file() {
        let text = "# comment\n[a]\nhost=one\n\n[b]\n host=two\nport=7\n[c]\nhost=three\n";
        assert_eq!(service_section(text, "b"), Some(map(&[("host", "two"), ("port", "7")])));
        assert_eq!(service_section(text, "host"), None);
    }

    #[test]
    fn no_password_is_shown() {
        let mut db = database(&[("host", "db")]);
        db.password = Some(Secret::new("s3cret"));
        assert!(!format!("{:?}", resolve(&db, &map(&[("HOME", "/nonexistent")])).unwrap()).contains("s3cret"));
    }
}
