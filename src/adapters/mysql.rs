//! MySQL and MariaDB, as mysql2 and trilogy reach them.

mod config;
mod errors;
mod socket;
mod tls;
mod wire;

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use self::config::{Address, Config, TlsMode};
use self::socket::DeadlineSocket;
use self::wire::Wire;
use super::ConnectOptions;
use crate::ports::{Rows, Session, SqlError, SqlErrorKind};
use crate::rails::Database;

/// How long a goodbye may take.
const QUIT_TIMEOUT: Duration = Duration::from_millis(200);

/// Connects to `db`, whose keys are read as mysql2 or trilogy read them, with `MYSQL_PWD`, `MYSQL_TCP_PORT` and
/// `MYSQL_UNIX_PORT` of `env` as the client library does. Ends within the shorter of the two connect time-outs.
pub fn connect(
    db: &Database,
    env: &BTreeMap<String, String>,
    options: ConnectOptions,
) -> Result<MysqlSession, SqlError> {
    let ConnectOptions { connect_timeout, application_name } = options;
    let mut config = Config::new(db, env, Path::exists)?;
    let until = Instant::now() + config.connect_timeout.map_or(connect_timeout, |own| own.min(connect_timeout));
    let wire = match open(&config, &application_name, until) {
        // Old servers know no TLS that we know. Nothing is lost: this mode does not know whom it talks to anyway.
        Err(error) if error.kind == SqlErrorKind::Tls && config.tls == TlsMode::Preferred => {
            config.tls = TlsMode::Disabled;
            open(&config, &application_name, until)
        }
        result => result,
    };
    wire.map(|wire| MysqlSession { wire, state: State::Alive })
        .map_err(|error| while_connecting(error, &config.address))
}

/// One connection. When it is dropped, the server is told and ends the session, whoever else holds the socket.
#[derive(Debug)]
pub struct MysqlSession {
    wire: Wire,
    state: State,
}

#[derive(Debug)]
enum State {
    Alive,
    /// Why nothing more can be asked. The server is not told: it does not listen, or a child still needs the session.
    Dead(SqlError),
}

impl Session for MysqlSession {
    fn run(&mut self, sql: &str, deadline: Duration) -> Result<Vec<Rows>, SqlError> {
        if let State::Dead(reason) = &self.state {
            return Err(reason.clone());
        }
        self.wire.set_deadline(Instant::now() + deadline);
        let result = self.wire.query(sql);
        if let Err(error) = &result
            && error.kind == SqlErrorKind::Lost
        {
            self.state = State::Dead(error.clone());
        }
        result
    }

    fn socket(&self) -> Option<BorrowedFd<'_>> {
        Some(self.wire.socket().get_ref().as_fd())
    }

    fn handshake_id(&self) -> Option<u64> {
        Some(self.wire.connection_id().into())
    }

    /// Our descriptor is closed, and nothing more: the session lives on as long as a child holds its own.
    fn abandon(mut self: Box<Self>) {
        self.state = State::Dead(SqlError::new(SqlErrorKind::Lost, "the session was abandoned"));
    }
}

impl Drop for MysqlSession {
    fn drop(&mut self) {
        if let State::Alive = self.state {
            self.wire.set_deadline(Instant::now() + QUIT_TIMEOUT);
            // The socket closes right after: a goodbye that does not arrive changes nothing that we could mend.
            let _ = self.wire.quit();
        }
    }
}

fn open(config: &Config, application_name: &str, until: Instant) -> Result<Wire, SqlError> {
    let socket = match &config.address {
        Address::Socket(path) => DeadlineSocket::connect_unix(path, until),
        Address::Tcp(host, port) => DeadlineSocket::connect_tcp(host, *port, until),
    };
    Wire::handshake(socket.map_err(|error| unreachable(&error))?, config, application_name, until)
}

fn unreachable(error: &io::Error) -> SqlError {
    let what = match error.kind() {
        io::ErrorKind::TimedOut => "no answer in time".to_owned(),
        _ => error.to_string(),
    };
    SqlError::new(SqlErrorKind::Unreachable, what)
}

/// Says where. Whoever is lost before there is a session was not reached.
fn while_connecting(mut error: SqlError, address: &Address) -> SqlError {
    if error.kind == SqlErrorKind::Lost {
        error.kind = SqlErrorKind::Unreachable;
    }
    error.message = format!("{address}: {}", error.message);
    error
}
