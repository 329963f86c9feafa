//! A TCP proxy in front of any server, which does to a connection what a network can do.
//!
//! ```ignore
//! let proxy = Proxy::to(server.port);
//! let trap = proxy.on(When::Says("insert into"), Act::Hold);
//! // ... something connects to 127.0.0.1:proxy.port ...
//! trap.sprung();   // the statement has arrived here, and not there
//! proxy.cut();     // all connections get a reset; or trap.release(), and it goes on
//! ```
//!
//! A trap springs once, for the first connection that meets it. A *message* is what one read from the client returns, which
//! is what one write of it sent, as long as that is short and the client waits for an answer.

#![allow(dead_code, reason = "each test file uses its own part of this")]
#![allow(clippy::unwrap_used, reason = "a fixture that cannot be set up fails the test")]

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, Weak};
use std::thread;
use std::time::Duration;

use socket2::SockRef;

/// How long a test waits for something to happen before it fails.
const PATIENCE: Duration = Duration::from_secs(20);

/// What springs a trap.
#[derive(Debug, Clone, Copy)]
pub enum When {
    /// A client connects.
    Connects,
    /// A client sends its n-th message, counted from 1.
    Message(usize),
    /// A client's message contains this text, in whatever case.
    Says(&'static str),
}

/// What happens to the connection that sprang it.
#[derive(Debug, Clone, Copy)]
pub enum Act {
    /// The message stays here until the trap is released. Never released, this is a server that went silent.
    Hold,
    /// The message is lost, and both sides get a reset.
    Reset,
    /// The message is delivered. `n` bytes of what the server says from then on come through; when it says more, both sides
    /// get a reset. `Cut(0)` loses the answer: the deed was done, or begun.
    Cut(usize),
    /// The message is delivered, and whatever the server says is thrown away; releasing the trap resets both sides. For a
    /// deed that has to be complete before its answer is lost: look for it, then release.
    Mute,
}

/// A proxy on a port of its own. Everything passes until something else is asked for; dropping it resets all connections.
pub struct Proxy {
    pub port: u16,
    shared: Arc<Shared>,
}

impl Proxy {
    /// In front of `port` of 127.0.0.1.
    pub fn to(port: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let own = listener.local_addr().unwrap().port();
        let state =
            State { upstream: local(port), mode: Mode::Pass, traps: Vec::new(), links: Vec::new(), connections: 0 };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() });
        let serving = Arc::clone(&shared);
        thread::spawn(move || serving.accept(&listener));
        Self { port: own, shared }
    }

    /// Arms a trap.
    pub fn on(&self, when: When, act: Act) -> Trap {
        let mut state = self.shared.state();
        state.traps.push(Armed { when, act, caught: None, released: false });
        Trap { index: state.traps.len() - 1, shared: Arc::clone(&self.shared) }
    }

    /// Everything passes again.
    pub fn pass(&self) {
        self.shared.enter(Mode::Pass);
    }

    /// Nothing passes, either way; who connects is let in and hears nothing.
    pub fn stall(&self) {
        self.shared.enter(Mode::Stall);
    }

    /// All connections get a reset, and so does everyone who connects from now on.
    pub fn refuse(&self) {
        self.shared.enter(Mode::Refuse);
        self.cut();
    }

    /// All connections get a reset. New ones are welcome.
    pub fn cut(&self) {
        let mut state = self.shared.state();
        state.links.drain(..).filter_map(|link| link.upgrade()).for_each(|link| link.reset());
        self.shared.changed.notify_all();
    }

    /// Leads new connections to another port of 127.0.0.1.
    pub fn lead_to(&self, port: u16) {
        self.shared.state().upstream = local(port);
    }

    /// How many connections there have been.
    pub fn connections(&self) -> usize {
        self.shared.state().connections
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.enter(Mode::Closed);
        self.cut();
        // Wakes the listener, which then sees that it is no longer needed.
        let _ = TcpStream::connect(local(self.port));
    }
}

/// One trap that was armed.
pub struct Trap {
    index: usize,
    shared: Arc<Shared>,
}

impl Trap {
    /// Waits until a connection has met it.
    #[track_caller]
    pub fn sprung(&self) {
        let waiting = |state: &mut State| state.traps[self.index].caught.is_none();
        let (state, timeout) = self.shared.changed.wait_timeout_while(self.shared.state(), PATIENCE, waiting).unwrap();
        // A poisoned lock would hide this message.
        drop(state);
        assert!(!timeout.timed_out(), "nothing met the trap within {PATIENCE:?}");
    }

    pub fn has_sprung(&self) -> bool {
        self.shared.state().traps[self.index].caught.is_some()
    }

    /// Lets the message that was held go on, or ends the connection that was muted.
    pub fn release(&self) {
        let mut state = self.shared.state();
        let trap = &mut state.traps[self.index];
        trap.released = true;
        if let (Act::Mute, Some(link)) = (trap.act, trap.caught.as_ref().and_then(Weak::upgrade)) {
            link.reset();
        }
        self.shared.changed.notify_all();
    }
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    upstream: SocketAddr,
    mode: Mode,
    traps: Vec<Armed>,
    links: Vec<Weak<Link>>,
    connections: usize,
}

#[derive(Clone, Copy, PartialEq)]
enum Mode {
    Pass,
    Stall,
    Refuse,
    Closed,
}

struct Armed {
    when: When,
    act: Act,
    /// The connection that sprang it.
    caught: Option<Weak<Link>>,
    released: bool,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn enter(&self, mode: Mode) {
        self.state().mode = mode;
        self.changed.notify_all();
    }

    fn accept(self: &Arc<Self>, listener: &TcpListener) {
        for client in listener.incoming().map_while(Result::ok) {
            let mut state = self.state();
            match state.mode {
                Mode::Closed => return,
                Mode::Refuse => reset_on_close(&client),
                Mode::Pass | Mode::Stall => {
                    state.connections += 1;
                    let shared = Arc::clone(self);
                    thread::spawn(move || shared.serve(client));
                }
            }
        }
    }

    fn serve(self: Arc<Self>, client: TcpStream) {
        let Ok(server) = TcpStream::connect(self.state().upstream) else { return reset_on_close(&client) };
        for stream in [&client, &server] {
            let _ = stream.set_nodelay(true);
        }
        let link = Arc::new(Link { client, server, fate: Mutex::new(Fate::Pass) });
        self.state().links.push(Arc::downgrade(&link));
        if self.meets(&link, |when| matches!(when, When::Connects)) {
            let (shared, down) = (Arc::clone(&self), Arc::clone(&link));
            let answers = thread::spawn(move || shared.pass_down(&down));
            self.pass_up(&link);
            let _ = answers.join();
        }
    }

    /// From the client to the server.
    fn pass_up(&self, link: &Arc<Link>) {
        let mut buffer = vec![0; 1 << 16];
        let mut count = 0;
        while let Ok(length @ 1..) = (&link.client).read(&mut buffer) {
            let message = &buffer[..length];
            count += 1;
            let springs = |when| match when {
                When::Connects => false,
                When::Message(number) => number == count,
                When::Says(text) => contains(message, text),
            };
            if !self.meets(link, springs) || !self.may_flow(link) || (&link.server).write_all(message).is_err() {
                return;
            }
        }
        let _ = link.server.shutdown(Shutdown::Write);
    }

    /// From the server to the client.
    fn pass_down(&self, link: &Link) {
        let mut buffer = vec![0; 1 << 16];
        while let Ok(length @ 1..) = (&link.server).read(&mut buffer) {
            if !self.may_flow(link) {
                return;
            }
            let mut fate = link.fate.lock().unwrap();
            let allowed = match &mut *fate {
                Fate::Pass => length,
                Fate::Muted => 0,
                Fate::Reset => return,
                Fate::Cut(left) => {
                    let allowed = length.min(*left);
                    *left -= allowed;
                    allowed
                }
            };
            let ends = allowed < length && *fate != Fate::Muted;
            drop(fate);
            let written = (&link.client).write_all(&buffer[..allowed]);
            if ends {
                link.reset();
            }
            if ends || written.is_err() {
                return;
            }
        }
        let _ = link.client.shutdown(Shutdown::Write);
    }

    /// Springs the first armed trap that this meets, and does what it says. Whether the connection goes on.
    fn meets(&self, link: &Arc<Link>, springs: impl Fn(When) -> bool) -> bool {
        let mut state = self.state();
        let Some(index) = state.traps.iter().position(|trap| trap.caught.is_none() && springs(trap.when)) else {
            return true;
        };
        state.traps[index].caught = Some(Arc::downgrade(link));
        let act = state.traps[index].act;
        match act {
            Act::Hold => {}
            Act::Reset => link.reset(),
            Act::Cut(bytes) => link.meets(Fate::Cut(bytes)),
            Act::Mute => link.meets(Fate::Muted),
        }
        self.changed.notify_all();
        let held = |state: &mut State| matches!(act, Act::Hold) && !state.traps[index].released && !link.is_reset();
        drop(self.changed.wait_while(state, held).unwrap());
        !link.is_reset()
    }

    /// Whether the connection goes on, once nothing is stalled.
    fn may_flow(&self, link: &Link) -> bool {
        let stalled = |state: &mut State| state.mode == Mode::Stall && !link.is_reset();
        drop(self.changed.wait_while(self.state(), stalled).unwrap());
        !link.is_reset()
    }
}

/// One client and its connection to the server.
struct Link {
    client: TcpStream,
    server: TcpStream,
    fate: Mutex<Fate>,
}

#[derive(Clone, Copy, PartialEq)]
enum Fate {
    Pass,
    Muted,
    /// So many bytes may still come through.
    Cut(usize),
    Reset,
}

impl Link {
    fn is_reset(&self) -> bool {
        *self.fate.lock().unwrap() == Fate::Reset
    }

    fn meets(&self, fate: Fate) {
        *self.fate.lock().unwrap() = fate;
    }

    /// Both threads end at their next read, and the last one closes the sockets with a reset.
    fn reset(&self) {
        self.meets(Fate::Reset);
        for stream in [&self.client, &self.server] {
            reset_on_close(stream);
            // Only wakes the reader: the peer hears nothing of it.
            let _ = stream.shutdown(Shutdown::Read);
        }
    }
}

fn reset_on_close(stream: &TcpStream) {
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

fn contains(message: &[u8], text: &str) -> bool {
    message.windows(text.len()).any(|window| window.eq_ignore_ascii_case(text.as_bytes()))
}

fn local(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}
