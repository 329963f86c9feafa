//! What Rails would connect to: `config/database.yml` and the environment, resolved as Active Record resolves them, without Ruby.

mod direct;
pub mod erb;
pub mod migration;
mod resolve;
pub mod url;
pub mod version;
pub mod yaml;

use std::collections::BTreeMap;

pub use self::direct::direct_variables;
pub use self::resolve::{Sources, environment, resolve};
pub use self::version::RailsVersion;
use crate::secret::Secret;

/// What the environment's configuration comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resolved {
    /// The databases that Rails would migrate, in the order of the file. May be none.
    Databases(Vec<Database>),
    /// A database URL is there and empty, as `DATABASE_URL=` is while an add-on is being promoted. Rails raises an error.
    Empty {
        /// The variable, or the place in the file.
        from: String,
    },
}

/// What only Ruby knows of an application, said by its people.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Overrides {
    /// For every database that has no word of its own.
    pub global: Tables,
    /// By the database's name.
    pub databases: BTreeMap<String, Tables>,
}

/// The tables and paths of one database where they are not Rails' defaults.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tables {
    /// With prefix and suffix.
    pub schema_migrations_table: Option<String>,
    /// With prefix and suffix.
    pub metadata_table: Option<String>,
    pub migrations_paths: Option<Vec<String>>,
}

/// One database that Rails would migrate, as `config/database.yml`, `DATABASE_URL` and their kin describe it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Database {
    /// `primary`, or the name in a file with several databases.
    pub name: String,
    pub engine: Engine,
    /// The adapter as Rails calls it: `postgresql`, `postgis`, `mysql2`, `trilogy`, `sqlite3`.
    pub adapter: String,
    pub host: Option<String>,
    pub port: Option<u16>,
    /// The `socket:` key (MySQL). A PostgreSQL socket directory is a `host` that starts with `/`.
    pub socket: Option<String>,
    /// The database's name; for SQLite the file's path, absolute.
    pub database: Option<String>,
    pub username: Option<String>,
    pub password: Option<Secret>,
    /// Every other key that the file or the URL gave, as text: `sslmode`, `sslrootcert`, `schema_search_path`, `ssl_mode`, ...
    pub options: BTreeMap<String, String>,
    /// As configured, relative to the Rails root.
    pub migrations_paths: Vec<String>,
    /// With prefix and suffix.
    pub schema_migrations_table: String,
    /// `ar_internal_metadata`, with prefix and suffix; `None` for `use_metadata_table: false`.
    pub metadata_table: Option<String>,
    /// Where the connection comes from: `DATABASE_URL`, `config/database.yml:12`, ...
    pub from: String,
}

impl Database {
    /// Whether it is a file, behind a socket, or at a loopback address.
    pub fn is_on_this_machine(&self) -> bool {
        let host = self.host.as_deref().unwrap_or_default();
        let loopback = host.parse().is_ok_and(|address: std::net::IpAddr| address.is_loopback());
        self.engine == Engine::Sqlite
            || self.socket.is_some()
            || matches!(host, "" | "localhost")
            || host.starts_with('/')
            || loopback
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    Postgresql,
    Mysql,
    Sqlite,
}
