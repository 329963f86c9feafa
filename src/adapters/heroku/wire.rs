//! One request on the wire: connections kept open, trusted certificates, the proxy, and what exactly failed.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;
use std::sync::{OnceLock, mpsc};
use std::time::Duration;
use std::{env, error, fmt, io, thread};

use rustls::CertificateError;
use rustls::pki_types::CertificateDer;
use rustls_native_certs::{load_certs_from_paths, load_native_certs};
use ureq::http::{HeaderMap, Request, Response, Uri};
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{ConnectionDetails, Connector, DefaultConnector, NextTimeout, Transport};
use ureq::{Agent, Body, Proxy, ProxyBuilder, ProxyProtocol};

use crate::adapters::heroku::host::Host;
use crate::error::{Error, Kind, Result};

/// A migration may take an hour, and the restart after it must not wait for a new connection. A connection that the server
/// has dropped meanwhile is noticed before it is used.
const MAX_IDLE_AGE: Duration = Duration::from_hours(4);

/// No answer of the API comes near it: a thousand dynos are less than a megabyte.
const MAX_BODY_BYTES: u64 = 16 * 1024 * 1024;

/// An answer, whatever its status.
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    /// What arrived of the body.
    pub body: Vec<u8>,
    /// Why no more of the body arrived, where it is not all of it.
    pub cut: Option<Failure>,
}

/// An answer whose body comes bit by bit, whatever its status.
pub struct Stream {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Box<dyn Read + Send>,
}

/// Why there is no answer.
#[derive(Debug)]
pub struct Failure {
    /// Whether a byte of the request may have left this machine.
    pub sent: bool,
    /// Whether it may go through in a moment. Neither a certificate nor the length of an answer gets better by asking again.
    pub passing: bool,
    pub message: String,
    pub hint: Option<&'static str>,
}

/// The way to the API, set up at the first request: reading the certificates of the system takes milliseconds.
pub struct Wire {
    agent: OnceLock<Agent>,
    timeout: Duration,
    proxy: Option<Proxy>,
    is_https: bool,
    roots: Roots,
}

/// Where to look for authorities in place of the system's own places: `SSL_CERT_FILE` and `SSL_CERT_DIR`.
pub struct Roots {
    file: Option<String>,
    dirs: Option<String>,
}

impl Wire {
    /// `timeout` bounds one request in total, from looking up the name to the last byte of the body.
    pub fn new(host: &Host, timeout: Duration, env: &BTreeMap<String, String>) -> Result<Self> {
        Ok(Self {
            agent: OnceLock::new(),
            timeout,
            proxy: if host.is_loopback() { None } else { proxy(env)? },
            is_https: host.is_https(),
            roots: Roots {
                file: non_empty(env, "SSL_CERT_FILE").cloned(),
                dirs: non_empty(env, "SSL_CERT_DIR").cloned(),
            },
        })
    }

    /// The authorities that are trusted.
    pub fn roots(&self) -> &Roots {
        &self.roots
    }

    /// Sends one request, once, and never follows a redirect.
    pub fn send(&self, request: Request<Option<Vec<u8>>>) -> Result<Answer, Failure> {
        let agent = self.agent.get_or_init(|| self.agent());
        let (parts, body) = request.into_parts();
        let response = match body {
            Some(body) => agent.run(Request::from_parts(parts, body)),
            None => agent.run(Request::from_parts(parts, ())),
        };
        response.map(|response| self.read(response)).map_err(|error| self.failure(error))
    }

    /// Opens a stream: the answer's head within the time limit, then whatever comes, as long as no more than `idle` passes
    /// between one byte and the next.
    pub fn open(&self, request: Request<()>, idle: Duration) -> Result<Stream, Failure> {
        let agent = self.agent.get_or_init(|| self.agent());
        let request = agent
            .configure_request(request)
            .timeout_global(None)
            .timeout_recv_response(Some(self.timeout))
            .timeout_per_read(Some(idle))
            .build();
        let (head, body) = agent.run(request).map_err(|error| self.failure(error))?.into_parts();
        let body = body.into_with_config().limit(u64::MAX).reader();
        Ok(Stream { status: head.status.as_u16(), headers: head.headers, body: Box::new(body) })
    }

    fn read(&self, response: Response<Body>) -> Answer {
        let (head, body) = response.into_parts();
        let mut reader = body.into_with_config().limit(MAX_BODY_BYTES).reader();
        let mut body = Vec::new();
        let cut = reader.read_to_end(&mut body).err().map(|error| self.failure(error.into()));
        Answer { status: head.status.as_u16(), headers: head.headers, body, cut }
    }

    fn agent(&self) -> Agent {
        let mut config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .proxy(self.proxy.clone())
            .max_idle_age(MAX_IDLE_AGE)
            .timeout_global(Some(self.timeout))
            // Time is left for an answer where the first of several addresses is silent.
            .timeout_connect(Some(self.timeout / 2))
            .user_agent(concat!("unstuck/", env!("CARGO_PKG_VERSION")));
        if self.is_https {
            let roots: Vec<Certificate> =
                self.roots.load().iter().map(|der| Certificate::from_der(der).to_owned()).collect();
            config = config.tls_config(TlsConfig::builder().root_certs(RootCerts::from(roots)).build());
        }
        Agent::with_parts(config.build(), Reaching(DefaultConnector::default()), Reaching(DefaultResolver::default()))
    }

    fn failure(&self, error: ureq::Error) -> Failure {
        match error {
            ureq::Error::Other(other) => match other.downcast::<NotSent>() {
                Ok(not_sent) => Failure { sent: false, ..self.failure(not_sent.0) },
                Err(other) => self.failure(ureq::Error::Io(io::Error::other(other.to_string()))),
            },
            error => {
                let (passing, message, hint) = match tls_fault(&error) {
                    Some((message, hint)) => (false, message, hint),
                    None => (!matches!(error, ureq::Error::BodyExceedsLimit(_)), self.plainly(&error), None),
                };
                Failure { sent: true, passing, message, hint }
            }
        }
    }

    fn plainly(&self, error: &ureq::Error) -> String {
        match error {
            ureq::Error::Timeout(_) => format!("no answer within {:?}", self.timeout),
            ureq::Error::HostNotFound => "the host's name cannot be looked up".to_owned(),
            ureq::Error::BodyExceedsLimit(bytes) => format!("the answer is longer than {bytes} bytes"),
            ureq::Error::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                "the connection was cut before the end of the answer".to_owned()
            }
            ureq::Error::Io(error) => error.to_string(),
            other => other.to_string(),
        }
    }
}

impl Roots {
    /// Mozilla's authorities, which a bare container lacks, and this machine's, where a company keeps its own.
    pub fn load(&self) -> Vec<CertificateDer<'static>> {
        let own = match (&self.file, &self.dirs) {
            (None, None) => load_native_certs().certs,
            (file, dirs) => {
                let file = file.iter().flat_map(|file| load_certs_from_paths(Some(Path::new(file)), None).certs);
                let dirs = dirs.iter().flat_map(env::split_paths).filter(|dir| !dir.as_os_str().is_empty());
                file.chain(dirs.flat_map(|dir| load_certs_from_paths(None, Some(&dir)).certs)).collect()
            }
        };
        let mozilla = webpki_root_certs::TLS_SERVER_ROOT_CERTS;
        mozilla.iter().cloned().chain(own).collect()
    }
}

/// The proxy for https, as curl chooses it. It is asked for a tunnel only, so that it never sees a request.
fn proxy(env: &BTreeMap<String, String>) -> Result<Option<Proxy>> {
    let names = ["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"];
    let Some((name, value)) = names.iter().find_map(|name| Some((name, non_empty(env, name)?))) else {
        return Ok(None);
    };
    // Not quoted: it may hold a password.
    let wrong = || Error::new(Kind::Input, format!("{name} is not the address of an http or https proxy"));
    let parsed = Proxy::new(value).map_err(|_| wrong())?;
    if parsed.host().is_empty() || !matches!(parsed.protocol(), ProxyProtocol::Http | ProxyProtocol::Https) {
        return Err(wrong());
    }
    let mut proxy = Proxy::builder(parsed.protocol()).host(parsed.host()).port(parsed.port());
    if let Some(username) = parsed.username() {
        proxy = proxy.username(username).password(parsed.password().unwrap_or_default());
    }
    let exempt = non_empty(env, "no_proxy").or_else(|| non_empty(env, "NO_PROXY"));
    let exempt = exempt.iter().flat_map(|list| list.split(',')).map(str::trim);
    exempt.fold(proxy, ProxyBuilder::no_proxy).build().map(Some).map_err(|_| wrong())
}

fn non_empty<'a>(env: &'a BTreeMap<String, String>, name: &str) -> Option<&'a String> {
    env.get(name).filter(|value| !value.is_empty())
}

/// What is wrong with the other side's TLS, in plain words.
fn tls_fault(error: &ureq::Error) -> Option<(String, Option<&'static str>)> {
    let fault = match error {
        ureq::Error::Rustls(fault) => fault,
        ureq::Error::Io(error) => error.get_ref()?.downcast_ref::<rustls::Error>()?,
        _ => return None,
    };
    Some(plain_tls_fault(fault))
}

/// The same for what `rustls` itself says.
pub fn plain_tls_fault(fault: &rustls::Error) -> (String, Option<&'static str>) {
    let rustls::Error::InvalidCertificate(certificate) = fault else {
        return (format!("TLS failed: {fault}"), None);
    };
    let (what, hint) = match certificate {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => (
            "has expired".to_owned(),
            Some("if this machine's clock is right, the server's certificate has to be renewed"),
        ),
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            ("is not valid yet".to_owned(), Some("is this machine's clock right?"))
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            ("is for another name".to_owned(), None)
        }
        CertificateError::UnknownIssuer => (
            "is signed by an authority that is not known here".to_owned(),
            Some("behind a proxy that opens TLS, let SSL_CERT_FILE name the file with its authority"),
        ),
        other => (format!("is not accepted: {other}"), None),
    };
    (format!("the server's certificate {what}"), hint)
}

/// Marks whatever fails before the connection stands, TLS included: by then nothing of the request was sent, so that even a
/// restart may be tried again.
#[derive(Debug)]
struct Reaching<T>(T);

#[derive(Debug)]
struct NotSent(ureq::Error);

impl NotSent {
    fn mark(error: ureq::Error) -> ureq::Error {
        ureq::Error::Other(Box::new(Self(error)))
    }
}

impl fmt::Display for NotSent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl error::Error for NotSent {}

impl Connector<()> for Reaching<DefaultConnector> {
    type Out = Box<dyn Transport>;

    fn connect(&self, details: &ConnectionDetails, chained: Option<()>) -> Result<Option<Self::Out>, ureq::Error> {
        self.0.connect(details, chained).map_err(NotSent::mark)
    }
}

impl Resolver for Reaching<DefaultResolver> {
    fn resolve(
        &self,
        uri: &Uri,
        config: &ureq::config::Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        // The C library's look-up knows no deadline. The thread is ours, since the library's own way panics where none is to be had.
        let (answer, answers) = mpsc::channel();
        let (uri, config, unlimited) = (uri.clone(), config.clone(), NextTimeout::default());
        let look_up = move || drop(answer.send(DefaultResolver::default().resolve(&uri, &config, unlimited)));
        thread::Builder::new().spawn(look_up).map_err(|error| NotSent::mark(error.into()))?;
        let answer = answers.recv_timeout(*timeout.after).unwrap_or(Err(ureq::Error::Timeout(timeout.reason)));
        answer.map_err(|error| {
            // The system's own words for a name that does not exist have no kind to tell them by.
            NotSent::mark(if matches!(error, ureq::Error::Io(_)) { ureq::Error::HostNotFound } else { error })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::proxy;
    use std::collections::BTreeMap;

    #[test]
    fn the_proxy_is_chosen_as_curl_chooses_it() {
        for (env, expected) in [
            (vec![], None),
            (vec![("HTTPS_PROXY", "")], None),
            (vec![("http_proxy", "http://plain:1"), ("HTTP_PROXY", "http://plain:1")], None),
            (vec![("HTTPS_PROXY", "http://p:3128"), ("ALL_PROXY", "http://q:1")], Some(("p", 3128, false))),
            (vec![("ALL_PROXY", "q:81")], Some(("q", 81, false))),
            (vec![("https_proxy", "https://user:pa%40ss@p:3128")], Some(("p", 3128, false))),
            (vec![("https_proxy", "http://p:1"), ("NO_PROXY", "example.com, .heroku.com")], Some(("p", 1, true))),
            (vec![("https_proxy", "http://p:1"), ("no_proxy", "*")], Some(("p", 1, true))),
        ] {
            let env: BTreeMap<_, _> =
                env.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
            let proxy = proxy(&env).unwrap();
            let exempt = |proxy: &ureq::Proxy| proxy.is_no_proxy(&"https://api.heroku.com".parse().unwrap());
            let found = proxy.as_ref().map(|proxy| (proxy.host(), proxy.port(), exempt(proxy)));
            assert_eq!(found, expected, "{env:?}");
        }
    }

    #[test]
    fn a_wrong_proxy_is_named_not_quoted() {
        for value in ["socks5://user:secret@p:1", "ftp://user:secret@p", "http://", "user:secret@:x"] {
            let error = proxy(&BTreeMap::from([("HTTPS_PROXY".to_owned(), value.to_owned())])).unwrap_err();
            assert!(error.message.starts_with("HTTPS_PROXY"), "{value}");
            assert!(!format!("{error:?}").contains("secret"), "{value}");
        }
    }
}
