//! What the keys of `database.yml` mean to MySQL's client libraries: where to connect, as whom, how safely. Pure but for one
//! question, whether a default socket is there.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::ports::{SqlError, SqlErrorKind};
use crate::rails::Database;
use crate::secret::Secret;

/// Where the client libraries of the usual distributions and of Homebrew look for the server's socket.
const DEFAULT_SOCKETS: [&str; 3] = ["/run/mysqld/mysqld.sock", "/var/run/mysqld/mysqld.sock", "/tmp/mysql.sock"];

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    pub address: Address,
    pub username: String,
    pub password: Option<Secret>,
    pub database: Option<String>,
    pub tls: TlsMode,
    /// PEM file with the authorities to trust instead of the system's.
    pub ca: Option<PathBuf>,
    /// PEM files with our own certificate and its key, for servers that ask for one.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// `connect_timeout:`, where it is given.
    pub connect_timeout: Option<Duration>,
    /// Whether the server may ask for the password as it is (over TLS or a socket only).
    pub cleartext: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    Socket(PathBuf),
    Tcp(String, u16),
}

/// MySQL's `ssl_mode`, from careless to strict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsMode {
    Disabled,
    /// TLS without verification where the server offers it.
    Preferred,
    Required,
    VerifyCa,
    VerifyIdentity,
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Socket(path) => write!(f, "{}", path.display()),
            Self::Tcp(host, port) if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp(host, port) => write!(f, "{host}:{port}"),
        }
    }
}

impl Config {
    /// Reads `db` as mysql2 or trilogy would, with the variables that the client library itself reads. `exists` tells
    /// whether there is a file at a path.
    pub fn new(
        db: &Database,
        env: &BTreeMap<String, String>,
        exists: impl Fn(&Path) -> bool,
    ) -> Result<Self, SqlError> {
        let option = |names: &[&str]| names.iter().find_map(|name| filled(db.options.get(*name)));
        let ca = option(&["sslca", "ssl_ca"]);
        Ok(Self {
            address: address(db, env, exists)?,
            username: filled(db.username.as_ref())
                .or_else(|| option(&["user"]))
                .or_else(|| filled(env.get("USER")))
                .unwrap_or("root")
                .to_owned(),
            password: db.password.clone().or_else(|| env.get("MYSQL_PWD").map(Secret::new)),
            database: filled(db.database.as_ref()).map(str::to_owned),
            tls: tls_mode(db, ca.is_some())?,
            ca: ca.map(PathBuf::from),
            identity: option(&["sslcert", "ssl_cert"])
                .zip(option(&["sslkey", "ssl_key"]))
                .map(|(cert, key)| (cert.into(), key.into())),
            connect_timeout: option(&["connect_timeout"])
                .and_then(|seconds| seconds.parse().ok())
                .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
                .filter(|timeout| !timeout.is_zero()),
            cleartext: option(&["enable_cleartext_plugin"]).is_some_and(is_true),
        })
    }
}

/// `localhost` is the socket to the C library and to mysql2; trilogy takes every host for TCP. Where there is no socket at
/// all, a loopback server may still listen.
fn address(db: &Database, env: &BTreeMap<String, String>, exists: impl Fn(&Path) -> bool) -> Result<Address, SqlError> {
    let port = match (db.port, filled(env.get("MYSQL_TCP_PORT"))) {
        (Some(port), _) => port,
        (None, Some(text)) => text
            .parse()
            .map_err(|_| SqlError::new(SqlErrorKind::Unreachable, format!("MYSQL_TCP_PORT={text} is not a port")))?,
        (None, None) => 3306,
    };
    match filled(db.host.as_ref()) {
        Some(host) if host != "localhost" || db.adapter == "trilogy" => Ok(Address::Tcp(host.to_owned(), port)),
        _ => Ok(filled(db.socket.as_ref())
            .or_else(|| filled(env.get("MYSQL_UNIX_PORT")))
            .or_else(|| DEFAULT_SOCKETS.into_iter().find(|path| exists(Path::new(path))))
            .map_or_else(|| Address::Tcp("127.0.0.1".to_owned(), port), |path| Address::Socket(path.into()))),
    }
}

fn tls_mode(db: &Database, has_ca: bool) -> Result<TlsMode, SqlError> {
    let is_set = |name: &str| db.options.get(name).is_some_and(|value| is_true(value));
    if let Some(text) = filled(db.options.get("ssl_mode")) {
        return named_mode(text, db.adapter == "trilogy").ok_or_else(|| {
            SqlError::new(SqlErrorKind::Tls, format!("ssl_mode: {text} is not known"))
                .hint("It is one of disabled, preferred, required, verify_ca and verify_identity.")
        });
    }
    Ok(if is_set("sslverify") {
        TlsMode::VerifyIdentity
    } else if has_ca {
        // MariaDB's library verifies as soon as it has an authority, MySQL's does not: naming one is a wish to verify.
        TlsMode::VerifyCa
    } else if is_set("ssl") {
        TlsMode::Required
    } else {
        TlsMode::Preferred
    })
}

/// A mode by its name, with or without the libraries' prefixes and suffix, or by the number of the gem's constant.
fn named_mode(text: &str, is_trilogy: bool) -> Option<TlsMode> {
    let name = text.to_ascii_lowercase();
    let name = name.strip_prefix("ssl_").unwrap_or(&name);
    let name = name.strip_prefix("mode_").unwrap_or(name);
    match (name.strip_suffix("_noverify").unwrap_or(name), is_trilogy) {
        ("disabled" | "1", _) => Some(TlsMode::Disabled),
        ("preferred", _) | ("2", false) | ("5", true) => Some(TlsMode::Preferred),
        ("required", _) | ("3", false) | ("4", true) => Some(TlsMode::Required),
        ("verify_ca", _) | ("4", false) | ("3", true) => Some(TlsMode::VerifyCa),
        ("verify_identity", _) | ("5", false) | ("2", true) => Some(TlsMode::VerifyIdentity),
        _ => None,
    }
}

fn filled(value: Option<&String>) -> Option<&str> {
    value.map(String::as_str).filter(|text| !text.is_empty())
}

fn is_true(value: &str) -> bool {
    value == "true" || value == "1"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rails::Engine;

    fn database(adapter: &str, host: Option<&str>, options: &[(&str, &str)]) -> Database {
        Database {
            name: "primary".to_owned(),
            engine: Engine::Mysql,
            adapter: adapter.to_owned(),
            host: host.map(str::to_owned),
            port: None,
            socket: None,
            database: Some("app".to_owned()),
            username: Some("ann".to_owned()),
            password: None,
            options: map(options),
            migrations_paths: vec![],
            schema_migrations_table: "schema_migrations".to_owned(),
            metadata_table: None,
            from: "DATABASE_URL".to_owned(),
        }
    }

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn config(db: &Database, env: &[(&str, &str)], sockets: &[&str]) -> Config {
        Config::new(db, &map(env), |path| sockets.iter().any(|socket| Path::new(socket) == path)).unwrap()
    }

    #[test]
    fn an_address_is_found_as_the_client_libraries_find_it() {
        let debian = "/run/mysqld/mysqld.sock";
        for (adapter, host, env, sockets, expected) in [
            ("mysql2", None, &[][..], &[debian][..], debian),
            ("mysql2", Some("localhost"), &[], &[debian], debian),
            ("mysql2", Some(""), &[], &["/tmp/mysql.sock"], "/tmp/mysql.sock"),
            ("mysql2", None, &[("MYSQL_UNIX_PORT", "/s")], &[debian], "/s"),
            ("mysql2", None, &[], &[], "127.0.0.1:3306"),
            ("mysql2", Some("127.0.0.1"), &[], &[debian], "127.0.0.1:3306"),
            ("mysql2", Some("db.example"), &[("MYSQL_TCP_PORT", "3307")], &[], "db.example:3307"),
            ("mysql2", Some("::1"), &[], &[], "[::1]:3306"),
            ("trilogy", Some("localhost"), &[], &[debian], "localhost:3306"),
            ("trilogy", None, &[], &[debian], debian),
        ] {
            let found = config(&database(adapter, host, &[]), env, sockets).address.to_string();
            assert_eq!(found, expected, "{adapter} {host:?} {env:?} {sockets:?}");
        }
    }

    #[test]
    fn a_socket_that_is_configured_is_used_even_before_it_is_there() {
        let mut db = database("mysql2", None, &[]);
        db.socket = Some("/later".to_owned());
        assert_eq!(config(&db, &[("MYSQL_UNIX_PORT", "/s")], &["/tmp/mysql.sock"]).address.to_string(), "/later");
    }

    #[test]
    fn tls_modes_are_read_as_each_gem_reads_them() {
        for (adapter, options, expected) in [
            ("mysql2", &[][..], TlsMode::Preferred),
            ("mysql2", &[("ssl_mode", "disabled")], TlsMode::Disabled),
            ("mysql2", &[("ssl_mode", "SSL_MODE_REQUIRED")], TlsMode::Required),
            ("mysql2", &[("ssl_mode", "verify_ca")], TlsMode::VerifyCa),
            ("mysql2", &[("ssl_mode", "5")], TlsMode::VerifyIdentity),
            ("mysql2", &[("sslverify", "true")], TlsMode::VerifyIdentity),
            ("mysql2", &[("sslverify", "false")], TlsMode::Preferred),
            ("mysql2", &[("sslca", "/ca.pem")], TlsMode::VerifyCa),
            ("mysql2", &[("sslca", "/ca.pem"), ("ssl_mode", "required")], TlsMode::Required),
            ("trilogy", &[("ssl", "true")], TlsMode::Required),
            ("trilogy", &[("ssl_mode", "5")], TlsMode::Preferred),
            ("trilogy", &[("ssl_mode", "2")], TlsMode::VerifyIdentity),
            ("trilogy", &[("ssl_mode", "SSL_REQUIRED_NOVERIFY")], TlsMode::Required),
        ] {
            assert_eq!(tls_mode(&database(adapter, None, options), has_ca(options)), Ok(expected), "{options:?}");
        }
        let error = tls_mode(&database("mysql2", None, &[("ssl_mode", "strict")]), false).unwrap_err();
        assert_eq!((error.kind, error.message.as_str()), (SqlErrorKind::Tls, "ssl_mode: strict is not known"));
    }

    fn has_ca(options: &[(&str, &str)]) -> bool {
        options.iter().any(|(key, _)| *key == "sslca")
    }

    #[test]
    fn the_password_comes_from_the_environment_only_where_none_is_configured() {
        let mut db = database("mysql2", None, &[]);
        let env = [("MYSQL_PWD", "fallback")];
        assert_eq!(config(&db, &env, &[]).password, Some(Secret::new("fallback")));
        db.password = Some(Secret::new(""));
        assert_eq!(config(&db, &env, &[]).password, Some(Secret::new("")));
    }

    #[test]
    fn a_connect_timeout_that_is_no_time_is_ignored() {
        for (text, expected) in [("2", Some(2_000)), ("0.5", Some(500)), ("0", None), ("-1", None), ("soon", None)] {
            let found = config(&database("mysql2", None, &[("connect_timeout", text)]), &[], &[]).connect_timeout;
            assert_eq!(found, expected.map(Duration::from_millis), "{text}");
        }
    }
}
