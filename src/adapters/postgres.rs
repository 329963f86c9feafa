//! PostgreSQL: libpq's rules for connecting, and the simple-query protocol, which works through every pooler.
//!
//! The protocol itself is tokio-postgres on a runtime of one thread that only runs while a call waits. The socket and TLS are
//! ours: the socket because a child may have to inherit it, TLS because libpq's modes and fallbacks are what people
//! have configured.

mod conninfo;
mod errors;
mod reach;
mod tls;

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::pin::pin;
use std::time::Duration;

use futures_util::TryStreamExt as _;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tokio_postgres::config::{SslMode, SslNegotiation};
use tokio_postgres::{Client, Config, SimpleQueryMessage};

use self::conninfo::Target;
use self::errors::{failed, statement_error};
use self::reach::{Opened, reach};
use crate::adapters::ConnectOptions;
use crate::ports::{Rows, Session, SqlError, SqlErrorKind};
use crate::rails::Database;

/// How long a session that ends waits for its goodbye to be sent.
const GOODBYE: Duration = Duration::from_millis(500);

/// Opens a session as libpq would with the same settings and environment: hosts and addresses in order, TLS by `sslmode`
/// with its fallbacks, the password from the configuration, `PGPASSWORD` or the password file.
///
/// # Errors
/// [`SqlErrorKind::Unreachable`], [`SqlErrorKind::Tls`] or [`SqlErrorKind::Denied`]; [`SqlErrorKind::Other`] for a setting
/// that libpq would refuse.
pub fn connect(
    db: &Database,
    env: &BTreeMap<String, String>,
    options: ConnectOptions,
) -> Result<PostgresSession, SqlError> {
    let target = conninfo::resolve(db, env)?;
    let config = driver_config(&target, options.application_name);
    let runtime = Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()
        .map_err(|error| failed(SqlErrorKind::Other, format!("no event loop: {error}")))?;
    match runtime.block_on(reach(&target, &config, Instant::now() + options.connect_timeout)) {
        Ok(Opened { client, connection, socket, handshake_id }) => {
            Ok(PostgresSession { socket, handshake_id, state: State::Live(Live { runtime, client, connection }) })
        }
        Err(error) => {
            // In the background, here and below: a name may still be being looked up, on a thread that nothing interrupts.
            runtime.shutdown_background();
            Err(error)
        }
    }
}

/// Nothing goes into the start-up message that a pooler could refuse: user, database, application name and encoding.
fn driver_config(target: &Target, application_name: String) -> Config {
    let mut config = Config::new();
    config
        .user(&target.user)
        .dbname(&target.dbname)
        .application_name(application_name)
        .channel_binding(target.channel_binding)
        // Together these two mean that the stream is taken as it is: TLS is settled before the driver sees it.
        .ssl_mode(SslMode::Require)
        .ssl_negotiation(SslNegotiation::Direct);
    config
}

/// A session of one PostgreSQL server. Dropping it says goodbye to the server; see [`Session::abandon`] for the other way.
pub struct PostgresSession {
    /// A descriptor of our own, open for as long as this value is, also when the connection is lost.
    socket: OwnedFd,
    handshake_id: Option<u64>,
    state: State,
}

enum State {
    Live(Live),
    Lost(SqlError),
}

struct Live {
    runtime: Runtime,
    client: Client,
    connection: JoinHandle<Result<(), tokio_postgres::Error>>,
}

impl Live {
    fn run(&mut self, sql: &str, deadline: Duration) -> Result<Vec<Rows>, SqlError> {
        let answer = async {
            // Lets the connection see first what has come in meanwhile: the server may have ended it, and said why.
            tokio::task::yield_now().await;
            match query(&self.client, sql).await {
                Ok(rows) => Ok(rows),
                // What ended the connection says more than that it has ended.
                Err(error) if error.is_closed() => match (&mut self.connection).await {
                    Ok(Err(reason)) => Err(SqlError { kind: SqlErrorKind::Lost, ..statement_error(&reason) }),
                    _ => Err(statement_error(&error)),
                },
                Err(error) => Err(statement_error(&error)),
            }
        };
        // The timer is made inside: it needs the runtime's clock.
        self.runtime.block_on(async { timeout(deadline, answer).await }).unwrap_or_else(|_| {
            Err(failed(SqlErrorKind::Lost, format!("the server did not answer within {deadline:.1?}")))
        })
    }

    /// Ends the connection in good order.
    fn say_goodbye(self) {
        let Self { runtime, client, connection } = self;
        // Without its client the connection sends Terminate and ends.
        drop(client);
        let _ = runtime.block_on(async { timeout(GOODBYE, connection).await });
        runtime.shutdown_background();
    }

    /// Drops the connection before its client, so that it never learns that it should have sent Terminate.
    fn fall_silent(self) {
        self.runtime.shutdown_background();
        drop(self.client);
    }
}

/// One message of statements; a statement's rows begin with their description, so that no rows are seen too.
async fn query(client: &Client, sql: &str) -> Result<Vec<Rows>, tokio_postgres::Error> {
    let mut sets: Vec<Rows> = Vec::new();
    let mut messages = pin!(client.simple_query_raw(sql).await?);
    while let Some(message) = messages.try_next().await? {
        match message {
            SimpleQueryMessage::RowDescription(columns) => sets.push(Rows::new(columns.len())),
            SimpleQueryMessage::Row(row) => {
                let Some(set) = sets.last_mut() else { continue };
                for column in 0..row.len() {
                    set.push(row.try_get(column)?);
                }
            }
            _ => {}
        }
    }
    Ok(sets)
}

impl PostgresSession {
    fn take_state(&mut self) -> State {
        std::mem::replace(&mut self.state, State::Lost(failed(SqlErrorKind::Lost, "the session has ended".to_owned())))
    }
}

impl Session for PostgresSession {
    fn run(&mut self, sql: &str, deadline: Duration) -> Result<Vec<Rows>, SqlError> {
        let live = match &mut self.state {
            State::Live(live) => live,
            State::Lost(error) => return Err(error.clone()),
        };
        let outcome = live.run(sql, deadline);
        if let Err(error) = &outcome
            && error.kind == SqlErrorKind::Lost
            && let State::Live(live) = std::mem::replace(&mut self.state, State::Lost(error.clone()))
        {
            live.fall_silent();
        }
        outcome
    }

    fn socket(&self) -> Option<BorrowedFd<'_>> {
        Some(self.socket.as_fd())
    }

    fn handshake_id(&self) -> Option<u64> {
        self.handshake_id
    }

    fn abandon(mut self: Box<Self>) {
        if let State::Live(live) = self.take_state() {
            live.fall_silent();
        }
    }
}

impl Drop for PostgresSession {
    fn drop(&mut self) {
        if let State::Live(live) = self.take_state() {
            live.say_goodbye();
        }
    }
}
