//! The outside world behind the doors of [`crate::ports`].

use std::time::Duration;

use crate::config::Env;
use crate::ports::{LockWaits, Session, SqlError};
use crate::rails::{Database, Engine};

pub mod blockers;
pub mod child;
pub mod credentials;
pub mod files;
pub mod flock;
pub mod git;
pub mod heroku;
pub mod hooks;
pub mod ledger;
pub mod mysql;
pub mod parent;
pub mod postgres;
pub mod rails;
pub mod retry;
pub mod ruby;
pub mod signals;
pub mod sqlite;
pub mod trees;

/// What does not depend on the database, for every connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectOptions {
    /// How long connecting may take in total: look-up, handshakes, authentication.
    pub connect_timeout: Duration,
    /// The name under which the server lists the session.
    pub application_name: String,
}

/// Connecting may take this long, fall-backs to other addresses included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);

/// The way to one database. Nothing is connected to yet.
pub fn open(config: Database, env: Env) -> ledger::Ledger {
    let options = ConnectOptions { connect_timeout: CONNECT_TIMEOUT, application_name: "unstuck".into() };
    let ours = config.clone();
    let connect = move |access| {
        let session: Box<dyn Session> = match ours.engine {
            Engine::Postgresql => Box::new(postgres::connect(&ours, &env, options.clone())?),
            Engine::Mysql => Box::new(mysql::connect(&ours, &env, options.clone())?),
            Engine::Sqlite => Box::new(sqlite::connect(&ours, access)?),
        };
        Ok(session)
    };
    ledger::Ledger::new(config, Box::new(connect))
}

/// The way to one database's lock waits, for sessions of a child with this tag. `None` where nobody waits in a server.
pub fn lock_waits(config: Database, env: Env, tag: &str) -> Option<Box<dyn LockWaits>> {
    (config.engine != Engine::Sqlite)
        .then(|| Box::new(blockers::Blockers::new(config, env, tag.to_owned())) as Box<dyn LockWaits>)
}

/// The time by a server's own clock, in seconds since 1970. `None` where there is no server.
pub fn server_time(config: &Database, env: &Env) -> Result<Option<i64>, SqlError> {
    let options = ConnectOptions { connect_timeout: CONNECT_TIMEOUT, application_name: "unstuck".into() };
    let (mut session, sql): (Box<dyn Session>, _) = match config.engine {
        Engine::Postgresql => {
            (Box::new(postgres::connect(config, env, options)?), "select extract(epoch from clock_timestamp())::bigint")
        }
        Engine::Mysql => (Box::new(mysql::connect(config, env, options)?), "select unix_timestamp()"),
        Engine::Sqlite => return Ok(None),
    };
    let rows = session.run(sql, CONNECT_TIMEOUT)?;
    Ok(rows.first().and_then(|rows| rows.get(0, 0)).and_then(|seconds| seconds.parse().ok()))
}
