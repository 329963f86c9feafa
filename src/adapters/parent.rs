//! The parent of a command: starts it where its own terminal and process group are, hands signals on, reaps what ends.
//!
//! A signal has to reach the command once. A terminal and most process managers signal the whole group, a dyno's platform
//! every process, a person perhaps us alone, and no signal tells which of them it was. So a second process of ours listens
//! beside the command: what it hears, the command has heard too.

use std::ffi::OsString;
use std::io::{self, Read as _};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd as _, RawFd};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::Path;
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTTIN, SIGTTOU, SIGUSR1, SIGUSR2, SIGWINCH};
use signal_hook::iterator::Signals;
use socket2::{Domain, Socket, Type};

/// What is handed on. SIGTSTP and SIGCONT stop and continue us as they do the command.
const HANDED_ON: [i32; 9] = [SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGTTIN, SIGTTOU, SIGWINCH];

/// Whoever signals a group, or one process after the other, is done by then.
const EARSHOT: Duration = Duration::from_millis(200);

/// Where a process finds the first socket that it is given, by systemd's rules: what puma calls "activated".
const FIRST_SOCKET: RawFd = 3;

/// Those rules want the process's own number in a variable, which nobody knows before it is there.
const WITH_OWN_NUMBER: &str = "export LISTEN_FDS=1 LISTEN_PID=$$; exec \"$@\"";

/// As many connections as puma lets wait.
const BACKLOG: i32 = 1024;

/// A socket that stays open from one process to the next: whoever connects in between waits instead of being refused.
pub fn hold(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

/// Calls `hear` for every signal that concerns the command, and for each end of a child (SIGCHLD), in a thread of its own.
pub fn listen(hear: impl Fn(i32) + Send + 'static) -> io::Result<()> {
    let mut signals = Signals::new(HANDED_ON.iter().chain([&SIGCHLD]))?;
    std::thread::Builder::new().name("signals".into()).spawn(move || signals.forever().for_each(hear)).map(drop)
}

/// The parent of one command at a time.
pub struct Parent {
    listener: Listener,
    /// Children that we had before, such as what a dyno's `.profile.d` left running: none of the command's.
    foreign: Vec<i32>,
    child: Option<i32>,
    /// What was left behind and has been told to go, and by which signal.
    told: Vec<(i32, i32)>,
}

impl Parent {
    /// Has to be made before any thread is.
    pub fn new() -> io::Result<Self> {
        let foreign = children();
        let listener = Listener::start()?;
        // What the command leaves behind becomes our child, so that it can be ended before the next one starts. Where the
        // kernel does not know how, it is PID 1's, as it would be without us.
        // SAFETY: prctl with integers alone.
        unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1) };
        Ok(Self { listener, foreign, child: None, told: Vec::new() })
    }

    /// Starts `command` in `root`, with our descriptors, environment and process group, and with the `held` socket.
    #[allow(clippy::zombie_processes, reason = "reap() waits for it, and for whatever else ends")]
    pub fn start(&mut self, command: &[OsString], root: &Path, held: Option<&Socket>) -> io::Result<()> {
        let Some((program, arguments)) = command.split_first() else { return Err(io::ErrorKind::NotFound.into()) };
        let mut command = Command::new(program);
        if held.is_some() {
            command = Command::new("/bin/sh");
            command.args(["-c", WITH_OWN_NUMBER, "sh"]).arg(program);
        }
        command.args(arguments).current_dir(root);
        let parent = std::process::id();
        let held = held.map(Socket::as_raw_fd);
        let prepare = move || {
            end_with(parent, libc::SIGTERM)?;
            held.map_or(Ok(()), give)
        };
        // SAFETY: between fork and exec only prctl, getppid, dup2 and fcntl are called, which are async-signal-safe.
        unsafe { command.pre_exec(prepare) };
        self.child = i32::try_from(command.spawn()?.id()).ok();
        Ok(())
    }

    /// Whether the command has not ended yet, as far as [`Parent::reap`] knows.
    pub fn runs(&self) -> bool {
        self.child.is_some()
    }

    /// Hands on a signal that we got, unless the command has heard it too.
    pub fn hand_on(&mut self, signal: i32) {
        if !self.listener.heard(signal, EARSHOT) {
            self.send(signal);
        }
    }

    /// Forgets a signal that the command must not get again.
    pub fn swallow(&mut self, signal: i32) {
        self.listener.heard(signal, EARSHOT);
    }

    /// Signals the command itself; what it has started is its own business.
    pub fn send(&self, signal: i32) {
        self.child.into_iter().for_each(|child| kill(child, signal));
    }

    /// Signals what the command left behind when it ended, each process once. `false`: nothing is left.
    pub fn end_strays(&mut self, signal: i32) -> bool {
        let strays = self.strays();
        for &stray in strays.iter().filter(|&&stray| !self.told.contains(&(stray, signal))) {
            kill(stray, signal);
        }
        self.told = strays.iter().map(|&stray| (stray, signal)).collect();
        !strays.is_empty()
    }

    /// Reaps every child that ended. Answers how the command ended, if it did.
    pub fn reap(&mut self) -> Option<ExitStatus> {
        let mut ended = None;
        loop {
            let mut status = 0;
            // SAFETY: waitpid writes into the one integer that it is given.
            let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) };
            if pid <= 0 {
                return ended;
            }
            if Some(pid) == self.child {
                self.child = None;
                ended = Some(ExitStatus::from_raw(status));
            }
        }
    }

    fn strays(&self) -> Vec<i32> {
        let known = |pid: i32| self.foreign.contains(&pid) || pid == self.listener.pid || Some(pid) == self.child;
        children().into_iter().filter(|&pid| !known(pid)).collect()
    }
}

/// The process that hears what the command hears.
struct Listener {
    pid: i32,
    /// One byte for each signal, which is its number.
    signals: os_pipe::PipeReader,
    /// Heard, and not yet asked for.
    heard: Vec<u8>,
}

impl Listener {
    fn start() -> io::Result<Self> {
        let (signals, writer) = os_pipe::pipe()?;
        let parent = std::process::id();
        // SAFETY: the sets are made by sigemptyset before they are used, no thread runs yet, and the forked process calls
        // nothing that is not async-signal-safe.
        unsafe {
            let mut set: libc::sigset_t = std::mem::zeroed();
            let mut before: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&raw mut set);
            for signal in HANDED_ON {
                libc::sigaddset(&raw mut set, signal);
            }
            // Blocked before the fork, so that none is lost on either side.
            libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, &raw mut before);
            let pid = libc::fork();
            if pid == 0 {
                tell(parent, &set, writer.as_raw_fd());
            }
            libc::pthread_sigmask(libc::SIG_SETMASK, &raw const before, std::ptr::null_mut());
            if pid < 0 { Err(io::Error::last_os_error()) } else { Ok(Self { pid, signals, heard: Vec::new() }) }
        }
    }

    /// Whether it hears `signal` too, `within` this time.
    fn heard(&mut self, signal: i32, within: Duration) -> bool {
        let deadline = Instant::now() + within;
        loop {
            if let Some(at) = self.heard.iter().position(|&heard| i32::from(heard) == signal) {
                self.heard.remove(at);
                return true;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || !self.listen_for(left) {
                return false;
            }
        }
    }

    /// `false`: the listener is gone, or silent for so long.
    fn listen_for(&mut self, time: Duration) -> bool {
        let mut poll = libc::pollfd { fd: self.signals.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        let time_ms = i32::try_from(time.as_millis()).unwrap_or(i32::MAX).max(1);
        // SAFETY: one pollfd, alive for the call.
        let ready = unsafe { libc::poll(&raw mut poll, 1, time_ms) };
        let mut bytes = [0; 64];
        // Interrupted: the caller asks again.
        ready < 0
            || (ready > 0
                && self.signals.read(&mut bytes).is_ok_and(|count| {
                    self.heard.extend(&bytes[..count]);
                    count > 0
                }))
    }
}

/// The life of the listening process, which ends with ours.
///
/// # Safety
///
/// Only in a process that was forked from `parent`, with `set` made and blocked.
unsafe fn tell(parent: u32, set: &libc::sigset_t, to: i32) -> ! {
    // SAFETY: all of these are async-signal-safe, and the pointers are to live values.
    unsafe {
        while end_with(parent, libc::SIGKILL).is_ok() {
            let mut signal = 0;
            libc::sigwait(set, &raw mut signal);
            let byte = u8::try_from(signal).unwrap_or(0);
            libc::write(to, (&raw const byte).cast(), 1);
        }
        libc::_exit(0)
    }
}

/// Lets this forked process get `signal` when `parent` ends: nothing may go on without its guard.
fn end_with(parent: u32, signal: i32) -> io::Result<()> {
    // SAFETY: integers alone.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, signal) };
    // It may have ended before.
    if std::os::unix::process::parent_id() == parent { Ok(()) } else { Err(io::ErrorKind::BrokenPipe.into()) }
}

/// Puts a socket where the command looks for it. In a process that is about to become the command nothing of ours is needed.
fn give(socket: RawFd) -> io::Result<()> {
    // SAFETY: integers alone. Either call leaves the descriptor open for what is executed.
    let done = unsafe {
        if socket == FIRST_SOCKET { libc::fcntl(socket, libc::F_SETFD, 0) } else { libc::dup2(socket, FIRST_SOCKET) }
    };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The present children of this process.
fn children() -> Vec<i32> {
    let tasks = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let lists = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok());
    lists.flat_map(|list| list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>()).collect()
}

fn kill(pid: i32, signal: i32) {
    // SAFETY: kill takes two integers and touches no memory of ours. A child that ended keeps its number until it is reaped.
    unsafe { libc::kill(pid, signal) };
}
