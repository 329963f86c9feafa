//! A server on loopback that stands before the stand-in: it passes requests on, or does what no well-behaved server would.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::postgres::Certificate;

/// What is done with one request.
pub enum Deed {
    /// It is passed on, and so is the answer.
    Pass,
    /// These bytes are the answer.
    Answer(Vec<u8>),
    /// These bytes, with a pause between one and the next.
    Drip(Vec<u8>),
    /// These bytes, then the others again and again.
    Endless(&'static [u8], Vec<u8>),
}

/// Serves until the test's process ends.
pub struct Relay {
    pub port: u16,
    seen: Arc<Mutex<Vec<u8>>>,
}

impl Relay {
    /// `deed` decides by the request line.
    pub fn start(stand_in: &str, deed: impl Fn(&str) -> Deed + Send + Sync + 'static) -> Self {
        let stand_in = address(stand_in);
        Self::serve(move |stream| meet(stream, &stand_in, &deed))
    }

    /// Passes everything on, over TLS.
    pub fn start_tls(stand_in: &str, certificate: &Certificate) -> Self {
        let chain = CertificateDer::from_pem_file(&certificate.file).unwrap();
        let key = PrivateKeyDer::from_pem_file(&certificate.key).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let config = config.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
        let config = Arc::new(config.with_single_cert(vec![chain], key).unwrap());
        let stand_in = address(stand_in);
        Self::serve(move |stream| {
            let tls = ServerConnection::new(Arc::clone(&config)).map_err(io::Error::other)?;
            meet(StreamOwned::new(tls, stream), &stand_in, &|_| Deed::Pass)
        })
    }

    /// Gives one answer to the first head on a connection, whole as it has to come, and hears what comes after it.
    pub fn listener(answer: &'static [u8]) -> Self {
        Self::serve(move |mut stream| {
            read_head(&mut stream)?;
            stream.write_all(answer)?;
            stream.read(&mut [0; 4096]).map(drop)
        })
    }

    fn serve(converse: impl Fn(Recorded) -> io::Result<()> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let converse = Arc::new(converse);
        thread::spawn({
            let seen = Arc::clone(&seen);
            move || {
                while let Ok((stream, _)) = listener.accept() {
                    let (converse, seen) = (Arc::clone(&converse), Arc::clone(&seen));
                    // What goes wrong on a connection is the client's business.
                    thread::spawn(move || converse(Recorded { stream, seen }));
                }
            }
        });
        Self { port, seen }
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Everything that arrived, as text.
    pub fn seen(&self) -> String {
        String::from_utf8_lossy(&self.seen.lock().unwrap()).into_owned()
    }
}

/// A connection that keeps what arrives.
struct Recorded {
    stream: TcpStream,
    seen: Arc<Mutex<Vec<u8>>>,
}

impl Read for Recorded {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.stream.read(buffer)?;
        self.seen.lock().unwrap().extend(&buffer[..count]);
        Ok(count)
    }
}

impl Write for Recorded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

fn address(url: &str) -> String {
    url.trim_start_matches("http://").to_owned()
}

fn meet(mut client: impl Read + Write, stand_in: &str, deed: &dyn Fn(&str) -> Deed) -> io::Result<()> {
    let head = read_head(&mut client)?;
    match deed(head.lines().next().unwrap_or_default()) {
        Deed::Pass => {
            let mut server = TcpStream::connect(stand_in)?;
            server.write_all(head.trim_end().as_bytes())?;
            server.write_all(b"\r\nConnection: close\r\n\r\n")?;
            let mut body = vec![0; content_length(&head)];
            client.read_exact(&mut body)?;
            server.write_all(&body)?;
            io::copy(&mut server, &mut client)?;
        }
        Deed::Answer(bytes) => client.write_all(&bytes)?,
        Deed::Drip(bytes) => bytes.chunks(1).try_for_each(|byte| {
            thread::sleep(Duration::from_millis(50));
            client.write_all(byte).and_then(|()| client.flush())
        })?,
        Deed::Endless(first, again) => {
            client.write_all(first)?;
            loop {
                client.write_all(&again)?;
            }
        }
    }
    client.flush()
}

fn read_head(client: &mut impl Read) -> io::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        client.read_exact(&mut byte)?;
        head.extend(byte);
    }
    String::from_utf8(head).map_err(io::Error::other)
}

fn content_length(head: &str) -> usize {
    let mut headers = head.lines().filter_map(|line| line.split_once(": "));
    let length = headers.find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    length.map_or(0, |(_, length)| length.parse().unwrap())
}
