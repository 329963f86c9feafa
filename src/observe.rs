//! Asks what is true now; decides nothing.

use crate::config::Types;
use crate::debt::{Digest, Epoch, Ledger, Records, Standing};
use crate::error::{Error, Kind, Result};
use crate::migrations::{Migration, Migrations, Version};
use crate::ports::{Database, LockWaits, Look, SqlError, SqlErrorKind};
use crate::rails;

/// Opens the way to a database's lock waits for sessions with this tag.
pub type WatchLocks = Box<dyn Fn(&str) -> Option<Box<dyn LockWaits>>>;

/// One database that Rails would migrate, and the way to it.
pub struct Target {
    pub config: rails::Database,
    pub port: Box<dyn Database>,
    /// Lists and checks the migration files, afresh at each look.
    pub files: Box<dyn Fn() -> Result<Migrations> + Sync>,
    /// A second way to it, to watch a migration with this tag wait for locks; `None` where nothing waits in a server.
    pub lock_waits: WatchLocks,
    /// A further database without any migration file (a fresh `queue` or `cache`): there is nothing to ask, so it is not
    /// even connected to.
    pub unused: bool,
    /// Another entry before this one is the same database: its run lock is ours already.
    pub same_as_earlier: bool,
    /// Variables with another way to the same database, for the case that this one leads through a pooler.
    pub direct: Vec<String>,
}

/// What one look at one database and its files found.
#[derive(Debug, Clone)]
pub struct Facts {
    pub name: String,
    pub adapter: String,
    /// In the order in which Rails would run them.
    pub pending: Vec<Migration>,
    /// Applied, but their files are gone.
    pub without_file: Vec<Version>,
    pub look: Look,
    pub digest: Digest,
    /// It was not asked: see [`Target::unused`]. Nothing can be owed for it.
    pub unused: bool,
}

impl Facts {
    /// What the app's ledger in this database means now.
    pub fn standing(&self, app: &str, types: &Types) -> Standing {
        if self.unused {
            return Standing::Closed;
        }
        self.ledger(app).standing(&self.digest, types)
    }

    pub fn ledger(&self, app: &str) -> Ledger {
        self.look.records.of(app)
    }
}

impl Target {
    /// Looks at files and tables. Writes nothing.
    pub fn look(&mut self) -> Result<Facts> {
        let (files, look) = self.files_and_tables();
        let files = files?;
        let look = match look {
            Some(look) => look.map_err(|error| self.error("cannot look at", error))?,
            None => Look {
                applied: Vec::new(),
                records: Records::default(),
                epoch: Epoch(String::new()),
                read_only: false,
                pooled: false,
            },
        };
        Ok(Facts {
            name: self.config.name.clone(),
            adapter: self.config.adapter.clone(),
            pending: files.pending(&look.applied),
            without_file: files.without_file(&look.applied),
            digest: Digest::of(&look.applied),
            unused: self.unused,
            look,
        })
    }

    /// While a server is waited for, the files are listed: thousands of them take as long. SQLite is not waited for, and a thread
    /// would cost more than it saves.
    fn files_and_tables(&mut self) -> (Result<Migrations>, Option<Result<Look, SqlError>>) {
        let Self { files, port, unused, config, .. } = self;
        let mut look = || (!*unused).then(|| port.look());
        if config.engine == rails::Engine::Sqlite {
            return (files(), look());
        }
        std::thread::scope(|scope| {
            let Ok(listing) = std::thread::Builder::new().spawn_scoped(scope, &**files) else {
                // No thread is to be had: then one after the other.
                return (files(), look());
            };
            let look = look();
            let failed = |_| Err(Error::new(Kind::System, "the migration files could not be listed"));
            (listing.join().unwrap_or_else(failed), look)
        })
    }

    /// A database's failure, with the name of the database and what to do.
    pub fn error(&self, what: &str, error: SqlError) -> Error {
        failure(&self.config, what, error)
    }

    pub fn place(&self) -> String {
        place(&self.config)
    }
}

/// What went wrong with a database, with its name and what to do.
pub fn failure(database: &rails::Database, what: &str, error: SqlError) -> Error {
    let hint = error.hint.clone().or_else(|| hint(error.kind).map(str::to_owned));
    let mut failure = Error::new(Kind::Database, format!("{what} database {}", place(database))).because(error);
    failure.hint = hint;
    failure
}

/// Name and address, without user and password: `primary (postgresql on db.example:5432, from DATABASE_URL)`.
fn place(database: &rails::Database) -> String {
    let rails::Database { name, adapter, host, port, socket, database: file, from, .. } = database;
    let port = port.map_or(String::new(), |port| format!(":{port}"));
    let at = match (database.engine, socket, host) {
        (rails::Engine::Sqlite, ..) => file.as_deref().map_or(String::new(), |file| format!(" in {file}")),
        (_, Some(socket), _) => format!(" on {socket}"),
        (_, None, Some(host)) => format!(" on {host}{port}"),
        (_, None, None) => String::new(),
    };
    format!("{name} ({adapter}{at}, from {from})")
}

fn hint(kind: SqlErrorKind) -> Option<&'static str> {
    match kind {
        SqlErrorKind::Unreachable => {
            Some("is the address right, and is the server running? `unstuck config` shows what was resolved")
        }
        SqlErrorKind::Denied => Some("check user and password; `unstuck config` shows where they come from"),
        SqlErrorKind::Tls => Some("check sslmode and the certificate"),
        SqlErrorKind::ReadOnly => Some("use the address of the primary, with a role that may write"),
        SqlErrorKind::NoTable => Some("does the table's name have a prefix? --schema-migrations-table names it"),
        SqlErrorKind::Full => Some("make room for the database, then run this again"),
        SqlErrorKind::Lost
        | SqlErrorKind::NoColumn
        | SqlErrorKind::Duplicate
        | SqlErrorKind::Locked
        | SqlErrorKind::Other => None,
    }
}
