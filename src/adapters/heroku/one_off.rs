//! One-off dynos: started and stopped through the API, attached to over TLS. Beside them the app's config vars, which only
//! those ask for who work from outside.

use std::collections::BTreeMap;
use std::io::{self, Read as _, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use rustls::crypto::ring;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde::Deserialize;
use serde_json::{Value, json};
use socket2::{SockRef, TcpKeepalive};
use ureq::http::{Method, Uri};

use super::wire::plain_tls_fault;
use super::{Call, Heroku, timestamp};
use crate::adapters::retry::Effect;
use crate::ports::{ApiError, ApiErrorKind};
use crate::secret::Secret;

/// How long one look at the connection waits for something to arrive, and so how late Ctrl-C is passed on.
const TICK: Duration = Duration::from_millis(100);

/// A connection over which nothing comes is asked whether it is still there: a laptop may have slept, or changed its network.
const KEEPALIVE: Duration = Duration::from_secs(20);

/// How often a dyno is asked for that the platform refuses since it has not found the release yet. It does so for a moment.
const CONFLICTS: usize = 3;

/// The dyno to start.
pub struct Order {
    pub command: String,
    /// Variables of this dyno alone, over the app's config vars.
    pub env: BTreeMap<String, Secret>,
    /// The dyno's size; the app's own default if `None`.
    pub size: Option<String>,
    /// The platform ends it after this long; a day at most.
    pub time_to_live: Duration,
}

/// A one-off dyno that waits for us to attach.
#[derive(Debug)]
pub struct OneOff {
    pub id: String,
    pub name: String,
    /// By the API's clock, in whole seconds.
    pub created_at: Timestamp,
    /// Whoever knows it takes our place.
    address: Secret,
}

/// Why there is no connection to a dyno.
#[derive(Debug)]
pub struct NotAttached {
    pub message: String,
    pub hint: Option<&'static str>,
    /// It may go through in a moment.
    pub passing: bool,
}

#[derive(Deserialize)]
struct OneOffJson {
    id: String,
    name: String,
    #[serde(deserialize_with = "timestamp")]
    created_at: Timestamp,
    attach_url: Option<String>,
}

#[derive(Deserialize)]
struct CommandJson {
    name: String,
    command: String,
}

impl Heroku {
    /// Starts a one-off dyno that waits for us. Sent once, but for refusals that say that nothing was done: after any other
    /// failure [`Heroku::dynos_that_run`] tells whether there is one.
    pub fn start_one_off(&self, order: &Order) -> Result<OneOff, ApiError> {
        let env: BTreeMap<&str, &str> = order.env.iter().map(|(name, value)| (name.as_str(), value.expose())).collect();
        let mut body = json!({
            "command": order.command, "attach": true, "type": "run", "env": env,
            "time_to_live": order.time_to_live.as_secs(),
        });
        if let Some(size) = &order.size {
            body["size"] = Value::from(size.as_str());
        }
        let call = Call { body: Some(body), ..Call::new(Method::POST, self.path("/dynos")) };
        let mut tries = 1;
        let made: OneOffJson = loop {
            match self.insist(Effect::Restart, || self.decode(&call, &self.ask(&call)?)) {
                Err(error) if error.status == Some(409) && tries < CONFLICTS => tries += 1,
                made => break made?,
            }
        };
        let OneOffJson { id, name, created_at, attach_url } = made;
        Ok(OneOff { id, name, created_at, address: Secret::new(attach_url.unwrap_or_default()) })
    }

    /// The names of the dynos whose command holds `mark`.
    pub fn dynos_that_run(&self, mark: &str) -> Result<Vec<String>, ApiError> {
        let (dynos, _): (Vec<CommandJson>, _) = self.list(Call::list(self.path("/dynos"), "id ..; max=1000"))?;
        Ok(dynos.into_iter().filter(|dyno| dyno.command.contains(mark)).map(|dyno| dyno.name).collect())
    }

    /// Asks for the end of a dyno: SIGTERM, and SIGKILL 30 s later. `Ok` means accepted, not done.
    pub fn stop_dyno(&self, name: &str) -> Result<(), ApiError> {
        let call = Call::new(Method::POST, self.path(&format!("/dynos/{name}/actions/stop")));
        if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)) {
            return Err(call.unsendable().error);
        }
        // To stop it twice does no more than once.
        self.insist(Effect::Read, || self.ask(&call).map(drop))
    }

    /// The app's config vars. Every one may be a secret.
    pub fn config_vars(&self) -> Result<BTreeMap<String, Secret>, ApiError> {
        let vars: BTreeMap<String, Option<String>> = self.get(&Call::get(self.path("/config-vars")))?;
        Ok(vars.into_iter().filter_map(|(name, value)| Some((name, Secret::new(value?)))).collect())
    }

    /// Connects to where the dyno waits, and says who we are. The two have met once the other side greets.
    pub fn attach(&self, dyno: &OneOff) -> Result<Attached, NotAttached> {
        let final_ = |message: &str| NotAttached { message: message.to_owned(), hint: None, passing: false };
        let (host, port, secret) = address(dyno.address.expose())
            .ok_or_else(|| final_("the API names no rendezvous to attach to (a space with SSH access alone?)"))?;
        // The same trust as in any other address that the API hands out: Heroku's own names, verified.
        let uri: Option<Uri> = format!("https://{host}:{port}/").parse().ok();
        if !uri.is_some_and(|uri| self.host.trusts(&uri)) {
            return Err(final_("the API names a rendezvous that is not Heroku's"));
        }
        let place = format!("{host}:{port}");
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(self.wire.roots().load());
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| final_(&error.to_string()))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from(host.to_owned()).map_err(|error| final_(&error.to_string()))?;
        let tls = ClientConnection::new(Arc::new(config), name).map_err(|error| final_(&error.to_string()))?;
        let connect = || -> io::Result<Attached> {
            let mut stream = StreamOwned::new(tls, self.dial(host, port)?);
            stream.conn.complete_io(&mut stream.sock)?;
            stream.write_all(format!("{secret}\r\n").as_bytes())?;
            stream.flush()?;
            stream.sock.set_read_timeout(Some(TICK))?;
            Ok(Attached(stream))
        };
        connect().map_err(|error| unreachable(&place, &error))
    }

    fn dial(&self, host: &str, port: u16) -> io::Result<TcpStream> {
        let mut last = io::Error::from(io::ErrorKind::NotFound);
        for address in (host, port).to_socket_addrs()? {
            match TcpStream::connect_timeout(&address, self.timeout) {
                Ok(stream) => {
                    stream.set_nodelay(true)?;
                    stream.set_read_timeout(Some(self.timeout))?;
                    stream.set_write_timeout(Some(self.timeout))?;
                    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE / 2);
                    SockRef::from(&stream).set_tcp_keepalive(&keepalive)?;
                    return Ok(stream);
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}

fn unreachable(place: &str, error: &io::Error) -> NotAttached {
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    let (what, hint, passing) = match tls {
        Some(fault) => {
            let (what, hint) = plain_tls_fault(fault);
            (what, hint, false)
        }
        None => (error.to_string(), Some("does a firewall let connections to this port out?"), true),
    };
    NotAttached { message: format!("cannot reach the rendezvous at {place}: {what}"), hint, passing }
}

/// Host, port and secret of `rendezvous://host:port/secret`.
fn address(url: &str) -> Option<(&str, u16, &str)> {
    let (place, secret) = url.strip_prefix("rendezvous://")?.split_once('/')?;
    let (host, port) = place.rsplit_once(':')?;
    let sendable = !secret.is_empty() && secret.bytes().all(|byte| byte.is_ascii_graphic());
    Some((host, port.parse().ok()?, secret)).filter(|_| sendable)
}

/// The client's end of a dyno's terminal.
pub struct Attached(StreamOwned<ClientConnection, TcpStream>);

/// What a look at the connection found.
#[derive(Debug)]
pub enum Read {
    Bytes(usize),
    Nothing,
    /// It is over: why.
    Over(String),
}

impl Attached {
    /// Waits a moment for output.
    pub fn read(&mut self, buffer: &mut [u8]) -> Read {
        match self.0.read(buffer) {
            Ok(0) => Read::Over("the other side has closed it".to_owned()),
            Ok(length) => Read::Bytes(length),
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted => Read::Nothing,
                io::ErrorKind::UnexpectedEof => Read::Over("it was cut".to_owned()),
                _ => Read::Over(error.to_string()),
            },
        }
    }

    /// Presses Ctrl-C on the dyno's terminal, which makes it SIGINT. What the connection does not take any more, nobody hears:
    /// the next [`Attached::read`] says so.
    pub fn interrupt(&mut self) {
        let _ = self.0.write_all(b"\x03").and_then(|()| self.0.flush());
    }
}

/// What to do about a refusal to start a dyno.
pub fn hint_for_start(error: &ApiError) -> Option<String> {
    match (error.kind, error.status) {
        (ApiErrorKind::Rejected, Some(422)) => Some(
            "`heroku ps` shows what runs; eco and basic plans limit one-off dynos, and --size names a size that the app may use"
                .to_owned(),
        ),
        _ => error.hint.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::address;

    #[test]
    fn the_address_of_a_rendezvous() {
        for (url, expected) in [
            (
                "rendezvous://rendezvous.runtime.heroku.com:5000/s3cret",
                Some(("rendezvous.runtime.heroku.com", 5000, "s3cret")),
            ),
            ("rendezvous://h:1/a?b=c", Some(("h", 1, "a?b=c"))),
            ("rendezvous://h:1/", None),
            ("rendezvous://h/secret", None),
            ("rendezvous://h:99999/secret", None),
            ("rendezvous://h:1/se cret", None),
            ("rendezvous://h:1/a\r\nb", None),
            ("https://h:1/secret", None),
            ("", None),
        ] {
            assert_eq!(address(url), expected, "{url}");
        }
    }
}
