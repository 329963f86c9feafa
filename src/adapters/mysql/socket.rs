//! A socket whose every read and write ends by one deadline, so that a server which drips bytes cannot hold us longer than
//! one that is silent.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use socket2::{Domain, SockAddr, Socket, TcpKeepalive, Type};

/// Quick enough to keep a session alive behind routers that forget an idle connection after five minutes.
const KEEPALIVE: TcpKeepalive =
    TcpKeepalive::new().with_time(Duration::from_mins(1)).with_interval(Duration::from_secs(15));

#[derive(Debug)]
pub struct DeadlineSocket {
    socket: Socket,
    until: Instant,
}

impl DeadlineSocket {
    pub fn connect_unix(path: &Path, until: Instant) -> io::Result<Self> {
        let address = SockAddr::unix(path)?;
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        socket.connect_timeout(&address, left(until)?)?;
        Ok(Self { socket, until })
    }

    /// Tries each address of `host` in turn.
    pub fn connect_tcp(host: &str, port: u16, until: Instant) -> io::Result<Self> {
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for address in resolve(host, port, until)? {
            match Self::connect_address(address, until) {
                Ok(socket) => return Ok(socket),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn connect_address(address: SocketAddr, until: Instant) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        socket.connect_timeout(&address.into(), left(until)?)?;
        socket.set_tcp_nodelay(true)?;
        socket.set_tcp_keepalive(&KEEPALIVE)?;
        Ok(Self { socket, until })
    }

    /// From now on, reads and writes fail with [`io::ErrorKind::TimedOut`] once `until` is over.
    pub fn set_deadline(&mut self, until: Instant) {
        self.until = until;
    }

    pub fn get_ref(&self) -> &Socket {
        &self.socket
    }

    /// Runs one system call with what is left of the time, again if a signal interrupts it.
    fn timed<T>(
        &mut self,
        limit: fn(&Socket, Option<Duration>) -> io::Result<()>,
        mut call: impl FnMut(&mut Socket) -> io::Result<T>,
    ) -> io::Result<T> {
        loop {
            limit(&self.socket, Some(left(self.until)?))?;
            match call(&mut self.socket) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(io::ErrorKind::TimedOut.into()),
                result => return result,
            }
        }
    }
}

impl Read for DeadlineSocket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.timed(Socket::set_read_timeout, |socket| socket.read(buffer))
    }
}

impl Write for DeadlineSocket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.timed(Socket::set_write_timeout, |socket| socket.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn left(until: Instant) -> io::Result<Duration> {
    let left = until.saturating_duration_since(Instant::now());
    // The kernel takes a time-out below its microsecond for none.
    if left < Duration::from_micros(1) { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
}

/// The C library's look-up knows no deadline, so it runs in a thread that is left behind when it takes too long.
/// `localhost` needs no look-up, and works where there is no hosts file.
fn resolve(host: &str, port: u16, until: Instant) -> io::Result<Vec<SocketAddr>> {
    if host == "localhost" {
        return Ok(vec![([127, 0, 0, 1], port).into(), (std::net::Ipv6Addr::LOCALHOST, port).into()]);
    }
    if let Ok(ip) = host.parse() {
        return Ok(vec![SocketAddr::new(ip, port)]);
    }
    let (answer, answers) = mpsc::channel();
    let name = host.to_owned();
    let look_up = move || answer.send((name.as_str(), port).to_socket_addrs().map(Vec::from_iter));
    thread::Builder::new().spawn(look_up)?;
    answers.recv_timeout(left(until)?).map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}
