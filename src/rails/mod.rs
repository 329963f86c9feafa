//! What Rails would connect to: `config/database.yml` and the environment, resolved as Active Record resolves them, without Ruby.

use std::collections::BTreeMap;

use crate::secret::Secret;

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

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    Postgresql,
    Mysql,
    Sqlite,
}
