//! A server on loopback that gives prepared answers, byte by byte as they stand: what no well-behaved server would send.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// What is done with one request.
pub enum Reply {
    /// These bytes; the connection is kept.
    Send(Vec<u8>),
    /// These bytes, then the end.
    Close(Vec<u8>),
    /// These bytes, then silence.
    Stall(Vec<u8>),
    /// These bytes, with a pause between one and the next.
    Drip(Vec<u8>),
    /// These bytes again and again, without an end.
    Repeat(Vec<u8>),
    /// The connection is reset before the request is read.
    Reset,
    /// The connection is reset at its start, before TLS is agreed on.
    Refuse,
}

#[derive(Debug, Clone)]
pub struct Request {
    /// Request line and headers, without the empty line.
    pub head: String,
    pub body: String,
}

impl Request {
    pub fn line(&self) -> &str {
        self.head.lines().next().unwrap().trim_end_matches(" HTTP/1.1")
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        let mut pairs = self.head.lines().filter_map(|line| line.split_once(": "));
        pairs.find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }
}

pub struct Server {
    port: u16,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    tls: Option<Arc<ServerConfig>>,
}

#[derive(Default)]
struct State {
    /// The next one last.
    replies: Vec<Reply>,
    requests: Vec<Request>,
    /// By connection; `None` where it was given up.
    streams: Vec<Option<TcpStream>>,
    stopped: bool,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

impl Server {
    /// Gives these answers, in this order, on whichever connection the requests come. Without one left it hangs up.
    pub fn start(replies: impl IntoIterator<Item = Reply>) -> Self {
        Self::with(None, replies)
    }

    pub fn start_tls(tls: Arc<ServerConfig>, replies: impl IntoIterator<Item = Reply>) -> Self {
        Self::with(Some(tls), replies)
    }

    fn with(tls: Option<Arc<ServerConfig>>, replies: impl IntoIterator<Item = Reply>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut replies: Vec<Reply> = replies.into_iter().collect();
        replies.reverse();
        let shared = Arc::new(Shared { state: Mutex::new(State { replies, ..State::default() }), tls });
        let acceptor = thread::spawn({
            let shared = Arc::clone(&shared);
            move || accept(&listener, &shared)
        });
        Self { port, shared, acceptor: Some(acceptor) }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn requests(&self) -> Vec<Request> {
        self.shared.state().requests.clone()
    }

    pub fn lines(&self) -> Vec<String> {
        self.requests().iter().map(|request| request.line().to_owned()).collect()
    }

    /// How many connections were made.
    pub fn connections(&self) -> usize {
        self.shared.state().streams.len()
    }

    /// Hangs up on every connection.
    pub fn hang_up(&self) {
        for stream in self.shared.state().streams.iter().flatten() {
            // It may be closed already.
            _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.state().stopped = true;
        self.hang_up();
        // Wakes the acceptor.
        _ = TcpStream::connect(("127.0.0.1", self.port));
        if let Some(acceptor) = self.acceptor.take() {
            _ = acceptor.join();
        }
    }
}

fn accept(listener: &TcpListener, shared: &Shared) {
    thread::scope(|scope| {
        loop {
            let stream = listener.accept().unwrap().0;
            let mut state = shared.state();
            if state.stopped {
                return;
            }
            let connection = state.streams.len();
            state.streams.push(Some(stream.try_clone().unwrap()));
            drop(state);
            // What goes wrong on a connection is the client's business.
            scope.spawn(move || converse(stream, connection, shared));
        }
    });
}

fn converse(mut stream: TcpStream, connection: usize, shared: &Shared) -> io::Result<()> {
    let refused = shared.state().replies.pop_if(|next| matches!(next, Reply::Refuse)).is_some();
    match &shared.tls {
        _ if refused => {
            stream.read_exact(&mut [0])?;
            // Closing with unread bytes resets a connection.
            shared.state().streams[connection] = None;
            Ok(())
        }
        None => serve(stream, connection, shared),
        Some(tls) => {
            let tls = ServerConnection::new(Arc::clone(tls)).map_err(io::Error::other)?;
            serve(StreamOwned::new(tls, stream), connection, shared)
        }
    }
}

fn serve(mut stream: impl Read + Write, connection: usize, shared: &Shared) -> io::Result<()> {
    let mut first = [0];
    while stream.read(&mut first)? > 0 {
        if shared.state().replies.pop_if(|next| matches!(next, Reply::Reset)).is_some() {
            shared.state().streams[connection] = None;
            return Ok(());
        }
        let request = read_request(first[0], &mut stream)?;
        let reply = {
            let mut state = shared.state();
            state.requests.push(request);
            state.replies.pop()
        };
        match reply {
            Some(Reply::Send(bytes)) => send(&mut stream, &bytes)?,
            Some(Reply::Close(bytes)) => {
                return send(&mut stream, &bytes).and_then(|()| hang_up(&shared.state(), connection));
            }
            Some(Reply::Stall(bytes)) => {
                send(&mut stream, &bytes)?;
                // Until the client has had enough.
                return io::copy(&mut stream, &mut io::sink()).map(drop);
            }
            Some(Reply::Drip(bytes)) => bytes.chunks(1).try_for_each(|byte| {
                thread::sleep(Duration::from_millis(20));
                send(&mut stream, byte)
            })?,
            Some(Reply::Repeat(bytes)) => loop {
                send(&mut stream, &bytes)?;
            },
            Some(Reply::Reset | Reply::Refuse) | None => return hang_up(&shared.state(), connection),
        }
    }
    Ok(())
}

fn hang_up(state: &State, connection: usize) -> io::Result<()> {
    state.streams[connection].as_ref().map_or(Ok(()), |stream| stream.shutdown(Shutdown::Both))
}

fn send(stream: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    stream.write_all(bytes)?;
    stream.flush()
}

fn read_request(first: u8, stream: &mut impl Read) -> io::Result<Request> {
    let mut head = vec![first];
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        head.extend(byte);
    }
    let head = String::from_utf8(head).unwrap().trim_end().to_owned();
    let mut request = Request { head, body: String::new() };
    let length = request.header("Content-Length").map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    request.body = String::from_utf8(body).unwrap();
    Ok(request)
}
