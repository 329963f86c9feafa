//! Where an attached one-off dyno and its client meet: the client comes over TLS and says the secret of its `attach_url`, is
//! told `rendezvous`, and from then on holds the other end of the dyno's terminal.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use anyhow::Context;
use rustix::fs::{Mode, OFlags, open};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use tempfile::TempDir;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::server::TlsStream;

use crate::faults::Attach;
use crate::ids::Id;
use crate::world::World;

/// A client that has said the right secret.
pub type Client = BufReader<TlsStream<TcpStream>>;

pub struct Rendezvous {
    port: u16,
    authority: OnceLock<TempDir>,
    /// Dynos that wait for their client, by the secret.
    waiting: Mutex<HashMap<Id, oneshot::Sender<Client>>>,
    attach: Mutex<Attach>,
    cuts: watch::Sender<u64>,
}

/// An authority, and a certificate for this machine that it has signed.
const CERTIFICATES: &str = "
new_key='openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes'
$new_key -x509 -keyout ca.key -out ca.pem -subj /CN=standin -days 9
$new_key -keyout key.pem -out request.pem -subj /CN=rendezvous
echo 'subjectAltName=IP:127.0.0.1' > extensions
openssl x509 -req -in request.pem -CA ca.pem -CAkey ca.key -CAcreateserial -days 9 -extfile extensions -out certificate.pem";

impl Rendezvous {
    pub fn new(port: u16) -> Self {
        Self {
            port,
            authority: OnceLock::new(),
            waiting: Mutex::default(),
            attach: Mutex::default(),
            cuts: watch::channel(0).0,
        }
    }

    /// The `attach_url` of a dyno. Its secret is the dyno's id, which nobody else is told before.
    pub fn url(&self, dyno: &str) -> String {
        format!("rendezvous://127.0.0.1:{}/{dyno}", self.port)
    }

    /// The client of this dyno, as soon as it has come.
    pub fn expect(&self, dyno: &str) -> oneshot::Receiver<Client> {
        let (come, comes) = oneshot::channel();
        lock(&self.waiting).insert(dyno.to_owned(), come);
        comes
    }

    pub fn set(&self, attach: Attach) {
        *lock(&self.attach) = attach;
    }

    pub fn cut(&self) {
        self.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// The file with the authority's certificate.
    pub fn authority(&self) -> anyhow::Result<PathBuf> {
        self.file("ca.pem")
    }

    fn file(&self, name: &str) -> anyhow::Result<PathBuf> {
        if self.authority.get().is_none() {
            let dir = TempDir::new()?;
            let made = Command::new("sh")
                .args(["-ec", CERTIFICATES])
                .current_dir(dir.path())
                .stdin(Stdio::null())
                .output()
                .context("cannot run sh")?;
            anyhow::ensure!(made.status.success(), "openssl: {}", String::from_utf8_lossy(&made.stderr));
            // Somebody else may have made one meanwhile; the first one counts.
            self.authority.set(dir).ok();
        }
        Ok(self.authority.get().context("no certificates")?.path().join(name))
    }

    fn acceptor(&self) -> anyhow::Result<TlsAcceptor> {
        let certificate = CertificateDer::from_pem_file(self.file("certificate.pem")?)?;
        let key = PrivateKeyDer::from_pem_file(self.file("key.pem")?)?;
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)?;
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub async fn serve(world: Arc<World>, listener: TcpListener) {
    while let Ok((stream, _)) = listener.accept().await {
        let world = world.clone();
        // Whoever comes without a good reason is sent away by closing the connection.
        tokio::spawn(async move { meet(&world.rendezvous, stream).await.ok() });
    }
}

async fn meet(rendezvous: &Rendezvous, stream: TcpStream) -> anyhow::Result<()> {
    let attach = lock(&rendezvous.attach).clone();
    anyhow::ensure!(attach != Attach::Refused, "refused");
    stream.set_nodelay(true)?;
    let acceptor = tokio::task::block_in_place(|| rendezvous.acceptor())?;
    let mut client = BufReader::new(acceptor.accept(stream).await?);
    let mut secret = String::new();
    client.read_line(&mut secret).await?;
    if let Attach::Garbage(text) = attach {
        client.write_all(text.as_bytes()).await?;
        return Ok(client.shutdown().await?);
    }
    let dyno = lock(&rendezvous.waiting).remove(secret.trim_end()).context("nobody waits")?;
    client.write_all(b"rendezvous\r\n").await?;
    client.flush().await?;
    dyno.send(client).ok();
    Ok(())
}

/// Both ends of a new terminal: ours, which never blocks, and the processes'.
pub fn terminal() -> io::Result<(OwnedFd, File)> {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    grantpt(&master)?;
    unlockpt(&master)?;
    let name = ptsname(&master, Vec::new())?;
    let slave = open(name, OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::io::ioctl_fionbio(&master, true)?;
    Ok((master, slave.into()))
}

/// Passes on what either side says, until the last process has let go of the terminal or the client is gone. Then the terminal
/// is hung up.
pub async fn bridge(world: Arc<World>, master: OwnedFd, mut client: Client) {
    // SAFETY: the descriptor is owned by what is registered, so that its number is taken for as long.
    let Ok(master) = (unsafe { AsyncFd::register(master) }) else { return };
    let mut cuts = world.rendezvous.cuts.subscribe();
    let (mut output, mut input) = ([0; 4096], [0; 4096]);
    let mut said = Vec::new();
    loop {
        tokio::select! {
            read = read(&master, &mut output) => {
                let Some(new) = read.ok().filter(|read| *read > 0).and_then(|read| output.get(..read)) else { break };
                let start = said.len();
                said.extend_from_slice(new);
                let attach = lock(&world.rendezvous.attach).clone();
                let cut = match attach {
                    Attach::CutAt(text) => said.windows(text.len()).position(|window| window == text.as_bytes()),
                    _ => None,
                };
                let sent = client.write_all(&said[start..cut.unwrap_or(said.len()).max(start)]).await;
                if sent.is_err() || client.flush().await.is_err() || cut.is_some() {
                    return;
                }
                said.drain(..said.len().saturating_sub(200));
            }
            read = client.read(&mut input) => match read {
                Ok(length @ 1..) => write(&master, &input[..length]).await,
                _ => return,
            },
            _ = cuts.changed() => return,
        }
    }
    client.shutdown().await.ok();
}

async fn read(master: &AsyncFd<OwnedFd>, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        let mut ready = master.readable().await?;
        if let Ok(read) = ready.try_io(|fd| Ok(rustix::io::read(fd.get_ref(), &mut *buffer)?)) {
            return read;
        }
    }
}

/// What cannot be written is lost, as on a line that is down.
async fn write(master: &AsyncFd<OwnedFd>, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        let Ok(mut ready) = master.writable().await else { return };
        match ready.try_io(|fd| Ok(rustix::io::write(fd.get_ref(), bytes)?)) {
            Ok(Ok(written)) => bytes = &bytes[written..],
            Ok(Err(_)) => return,
            Err(_would_block) => {}
        }
    }
}
