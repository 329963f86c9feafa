//! The way to a session: every host, every address, with TLS and without, until one of them takes us in.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tokio_postgres::{Client, Config};

use super::conninfo::{Host, Place, SslMode, Target, Wanted};
use super::errors::{Failure, Instead, failed, login_failure, unreachable};
use super::query;
use super::tls::{Channel, Settled};
use crate::ports::{SqlError, SqlErrorKind};

/// A connection that waits for nothing is asked after by the kernel, so that a dead peer or a NAT that forgets is noticed.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);

/// A session that stands.
pub(super) struct Opened {
    pub client: Client,
    pub connection: JoinHandle<Result<(), tokio_postgres::Error>>,
    pub socket: OwnedFd,
    pub handshake_id: Option<u64>,
}

/// One address of one host; over TCP with the name that a certificate has to bear.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Address<'a> {
    Unix(&'a Path),
    Tcp(&'a str, SocketAddr),
}

/// Tries every address of every host until one gives a session; each gets an equal share of the time that is left.
pub(super) async fn reach(target: &Target, config: &Config, deadline: Instant) -> Result<Opened, SqlError> {
    let mut failures: Vec<SqlError> = Vec::new();
    for (index, host) in target.hosts.iter().enumerate() {
        let later_hosts = target.hosts.len() - index - 1;
        let addresses = match timeout(deadline - Instant::now(), addresses(&host.place)).await {
            Ok(Ok(addresses)) => addresses,
            Ok(Err(error)) => {
                failures.push(error);
                continue;
            }
            Err(_) => {
                failures
                    .push(failed(SqlErrorKind::Unreachable, format!("timed out looking up {}", describe(&host.place))));
                break;
            }
        };
        let attempt = Attempt { target, config, host };
        for (position, &address) in addresses.iter().enumerate() {
            let candidates = u32::try_from(addresses.len() - position + later_hosts).unwrap_or(u32::MAX);
            let share = (deadline - Instant::now()) / candidates;
            let limit = target.address_timeout.map_or(share, |own| own.min(share));
            let outcome = timeout(limit, attempt.at(address)).await.unwrap_or_else(|_| {
                Err(unreachable(format!("{} did not answer within {limit:.1?}", describe(&host.place))))
            });
            match outcome {
                Ok(opened) => return Ok(opened),
                Err(Failure { error, instead: Instead::OtherAddress }) => failures.push(error),
                Err(Failure { error, .. }) => return Err(explain(error, target)),
            }
        }
    }
    let messages: Vec<String> = failures.into_iter().map(|error| error.message).collect();
    Err(failed(SqlErrorKind::Unreachable, messages.join("; ")))
}

/// Adds what is known about a login that failed.
fn explain(mut error: SqlError, target: &Target) -> SqlError {
    if error.kind == SqlErrorKind::Denied && error.hint.is_none() {
        error.hint.clone_from(&target.login_hint);
    }
    error
}

/// The place as people write it.
fn describe(place: &Place) -> String {
    match place {
        Place::Unix(socket) => socket.display().to_string().replacen('\0', "@", 1),
        Place::Tcp { name, port, .. } => format!("{name}:{port}"),
    }
}

/// All addresses of a place. `localhost` needs no resolver, which a container may lack.
async fn addresses(place: &Place) -> Result<Vec<Address<'_>>, SqlError> {
    let (name, address, port) = match place {
        Place::Unix(socket) => return Ok(vec![Address::Unix(socket)]),
        Place::Tcp { name, address, port } => (name, address.as_str(), *port),
    };
    let found: Vec<SocketAddr> = if let Ok(ip) = address.parse::<IpAddr>() {
        vec![SocketAddr::new(ip, port)]
    } else if address.eq_ignore_ascii_case("localhost") {
        vec![(Ipv4Addr::LOCALHOST, port).into(), (Ipv6Addr::LOCALHOST, port).into()]
    } else {
        let unknown = |error| format!("host name \"{address}\" could not be resolved: {error}");
        let found = tokio::net::lookup_host((address, port)).await;
        found.map_err(|error| failed(SqlErrorKind::Unreachable, unknown(error)))?.collect()
    };
    Ok(found.into_iter().map(|address| Address::Tcp(name, address)).collect())
}

/// How one connection attempt treats TLS.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Encryption {
    Plain,
    /// TLS where the server has it, plain where it says no.
    Offered,
    Required,
}

/// libpq's table: what is tried, in this order. A Unix socket has no TLS.
fn encryptions(mode: SslMode, address: Address) -> &'static [Encryption] {
    match (mode, address) {
        (_, Address::Unix(_)) | (SslMode::Disable, _) => &[Encryption::Plain],
        (SslMode::Allow, _) => &[Encryption::Plain, Encryption::Offered],
        (SslMode::Prefer, _) => &[Encryption::Offered, Encryption::Plain],
        (SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull, _) => &[Encryption::Required],
    }
}

/// What all the attempts at one host have in common.
struct Attempt<'a> {
    target: &'a Target,
    config: &'a Config,
    host: &'a Host,
}

impl Attempt<'_> {
    /// One address, with the fallbacks of the `sslmode`.
    async fn at(&self, address: Address<'_>) -> Result<Opened, Failure> {
        let mut refusals: Vec<SqlError> = Vec::new();
        for &encryption in encryptions(self.target.tls.mode, address) {
            match self.open(address, encryption).await {
                Ok(opened) => return Ok(opened),
                Err(Failure { error, instead: Instead::OtherEncryption }) => refusals.push(error),
                Err(failure) if refusals.is_empty() => return Err(failure),
                Err(failure) => {
                    refusals.push(failure.error);
                    break;
                }
            }
        }
        // What was tried first is what was wanted, so its failure names the kind; the others are told beside it.
        let kind = refusals.first().map_or(SqlErrorKind::Other, |error| error.kind);
        let hint = refusals.iter().find_map(|error| error.hint.clone());
        let messages: Vec<String> = refusals.into_iter().map(|error| error.message).collect();
        Err(Failure { error: SqlError { kind, message: messages.join("; "), hint }, instead: Instead::Nothing })
    }

    /// One connection: socket, TLS, login.
    async fn open(&self, address: Address<'_>, encryption: Encryption) -> Result<Opened, Failure> {
        let no_answer = |error: io::Error| unreachable(format!("cannot connect to {}: {error}", self.place()));
        match address {
            Address::Unix(path) => {
                let stream = UnixStream::connect(path).await.map_err(no_answer)?;
                let socket = stream.as_fd().try_clone_to_owned().map_err(no_answer)?;
                self.log_in(socket, Channel::plain(stream), Instead::Nothing).await
            }
            Address::Tcp(name, address) => {
                let stream = TcpStream::connect(address).await.map_err(no_answer)?;
                let socket = prepare(&stream).map_err(no_answer)?;
                let (channel, instead) = self.secure(stream, name, encryption).await?;
                self.log_in(socket, channel, instead).await
            }
        }
    }

    /// Agrees with the server on TLS or its absence. Also says what a refused login leaves to try.
    async fn secure(
        &self,
        mut stream: TcpStream,
        name: &str,
        encryption: Encryption,
    ) -> Result<(Channel, Instead), Failure> {
        if encryption == Encryption::Plain {
            return Ok((Channel::plain(stream), Instead::OtherEncryption));
        }
        let place = self.place();
        match ask_for_tls(&mut stream).await {
            Ok(b'S') => match Channel::encrypted(stream, name, &self.target.tls).await {
                Ok(channel) => Ok((channel, Instead::OtherEncryption)),
                Err(error) => Err(Failure { error, instead: Instead::OtherEncryption }),
            },
            Ok(b'N') if encryption == Encryption::Offered => Ok((Channel::plain(stream), Instead::Nothing)),
            Ok(b'N') => Err(Failure {
                error: failed(SqlErrorKind::Tls, format!("{place} has no TLS, but sslmode requires it")),
                instead: Instead::Nothing,
            }),
            Ok(_) => Err(unreachable(format!("{place} did not answer as a PostgreSQL server does"))),
            Err(error) => Err(unreachable(format!("{place} closed the connection: {error}"))),
        }
    }

    async fn log_in(&self, socket: OwnedFd, channel: Channel, instead: Instead) -> Result<Opened, Failure> {
        let mut config = self.config.clone();
        if let Some(password) = &self.host.password {
            config.password(password.expose());
        }
        let refused = |error: tokio_postgres::Error| login_failure(&error, &self.place(), instead);
        let (client, connection) = config.connect_raw(channel, Settled).await.map_err(refused)?;
        let connection = tokio::spawn(connection);
        let handshake_id = handshake_id(&client).await;
        if !serves(&client, self.target.wanted).await.map_err(refused)? {
            return Err(unreachable(format!("{} is not what target_session_attrs asks for", self.place())));
        }
        Ok(Opened { client, connection, socket, handshake_id })
    }

    fn place(&self) -> String {
        describe(&self.host.place)
    }
}

/// Sends small messages at once and notices a peer that is gone. Returns a second descriptor of the socket.
fn prepare(stream: &TcpStream) -> io::Result<OwnedFd> {
    stream.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE_IDLE).with_interval(KEEPALIVE_INTERVAL);
    SockRef::from(stream).set_tcp_keepalive(&keepalive)?;
    stream.as_fd().try_clone_to_owned()
}

/// Sends `SSLRequest` and reads the one byte of the answer, never more: what follows belongs to TLS.
async fn ask_for_tls(stream: &mut TcpStream) -> io::Result<u8> {
    const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];
    stream.write_all(&SSL_REQUEST).await?;
    stream.read_u8().await
}

/// The pid of `BackendKeyData`, which the driver gives away only within the message that cancels a query: length, code, pid
/// and secret key, four bytes each. A pooler that has no pid to give says 0.
async fn handshake_id(client: &Client) -> Option<u64> {
    let (mut ours, theirs) = tokio::io::duplex(16);
    client.cancel_token().cancel_query_raw(Channel::plain(theirs), Settled).await.ok()?;
    let _length_and_code = ours.read_u64().await.ok()?;
    let pid = ours.read_u32().await.ok()?;
    (pid != 0).then_some(pid.into())
}

/// Whether the server is in the state that `target_session_attrs` asks for.
async fn serves(client: &Client, wanted: Wanted) -> Result<bool, tokio_postgres::Error> {
    let (question, answer) = match wanted {
        Wanted::Any => return Ok(true),
        Wanted::ReadWrite => ("SHOW transaction_read_only", "off"),
        Wanted::ReadOnly => ("SHOW transaction_read_only", "on"),
        Wanted::Primary => ("SELECT pg_catalog.pg_is_in_recovery()", "f"),
        Wanted::Standby => ("SELECT pg_catalog.pg_is_in_recovery()", "t"),
    };
    Ok(query(client, question).await?.first().is_some_and(|rows| rows.get(0, 0) == Some(answer)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_sslmode_has_its_order_of_attempts_and_a_socket_has_no_tls() {
        use Encryption::{Offered, Plain, Required};
        let tcp = Address::Tcp("db", SocketAddr::from((Ipv4Addr::LOCALHOST, 5432)));
        let cases: [(SslMode, &[Encryption]); 6] = [
            (SslMode::Disable, &[Plain]),
            (SslMode::Allow, &[Plain, Offered]),
            (SslMode::Prefer, &[Offered, Plain]),
            (SslMode::Require, &[Required]),
            (SslMode::VerifyCa, &[Required]),
            (SslMode::VerifyFull, &[Required]),
        ];
        for (mode, expected) in cases {
            assert_eq!(encryptions(mode, tcp), expected);
            assert_eq!(encryptions(mode, Address::Unix(Path::new("/tmp/.s.PGSQL.5432"))), [Plain]);
        }
    }
}
