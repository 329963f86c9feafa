//! The migration command: started once, heard while it runs, told about signals once, always reaped.

use std::ffi::OsString;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsRawFd as _, BorrowedFd, RawFd};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use crate::adapters::signals::Interrupt;
use crate::config::Env;
use crate::debt::Receipt;
use crate::ports::{Ended, Exit, Runner};

/// On a dyno the platform's SIGTERM goes to every process. A second one would cut Ruby's `ensure` short, so the child gets
/// this long to go by itself first. Ctrl-C on a dyno's terminal does not reach the child, whose group is its own.
const PLATFORM_GRACE: Duration = Duration::from_secs(5);

/// The platform kills everything 30 s after its SIGTERM. The child is killed before, so that there is time for a verdict.
const KILL_AFTER: Duration = Duration::from_secs(25);

/// A process that the child left behind may go on migrating; it is waited for this long.
const LINGER: Duration = Duration::from_secs(20);

/// How often the record is touched while the child runs.
const HEARTBEAT: Duration = Duration::from_secs(10);

/// Makes Ruby hand over each line at once: it buffers what goes into a pipe, and a release log would show it at the end.
const SYNC_RB: &str = "$stdout.sync = $stderr.sync = true\n";

/// Starts the migration command of one application.
pub struct ChildRunner {
    pub command: Vec<String>,
    /// The Rails root, where it runs.
    pub root: PathBuf,
    pub env: Env,
    /// Everything the child says goes to standard error, since standard output belongs to a JSON document.
    pub to_stderr: bool,
    /// The platform signals all processes of a dyno itself.
    pub on_dyno: bool,
    /// It is ended after this long, counted from the first run.
    pub limit: Option<Duration>,
    /// A statement of it may wait this long for a lock. PostgreSQL keeps to it by itself, as long as the application has no
    /// `options` or `lock_timeout` of its own.
    pub lock_limit: Option<Duration>,
    /// When it was run first.
    pub begun: Option<Instant>,
    pub interrupt: Interrupt,
}

impl ChildRunner {
    /// The program's path, as it will be executed; or why it cannot be.
    pub fn program(&self) -> Result<PathBuf, String> {
        let name = self.command.first().map_or("", String::as_str);
        if name.contains('/') {
            let path = self.root.join(name);
            return executable(&path).map(|()| path).map_err(|why| format!("{name} {why}"));
        }
        let folders = self.env.get("PATH").map_or("/usr/local/bin:/usr/bin:/bin", String::as_str);
        std::env::split_paths(folders)
            .map(|folder| self.root.join(folder).join(name))
            .find(|path| executable(path).is_ok())
            .ok_or_else(|| format!("{name} is not in PATH"))
    }

    /// The caller's environment, but for what would make another migration of it, and with our marks.
    fn child_env(&self, tag: &str, sync: Option<&Path>) -> Vec<(String, OsString)> {
        let mut env = self.env.clone();
        // VERSION would revert migrations, SCOPE would leave some out. Spring's server would keep the lock for ever.
        env.remove("VERSION");
        env.remove("SCOPE");
        env.insert("DISABLE_SPRING".into(), "1".into());
        env.insert("PGAPPNAME".into(), format!("unstuck/{tag}"));
        if let Some(limit) = self.lock_limit {
            let options = env.entry("PGOPTIONS".into()).or_default();
            // PostgreSQL counts in milliseconds, up to this many.
            options.push_str(&format!(" -c lock_timeout={}", limit.as_millis().clamp(1, i32::MAX as u128)));
        }
        if let Some(sync) = sync.map(Path::display).map(|path| path.to_string()).filter(|path| !path.contains(' ')) {
            let options = env.entry("RUBYOPT".into()).or_default();
            options.push_str(" -r");
            options.push_str(&sync);
        }
        env.into_iter().map(|(name, value)| (name, value.into())).collect()
    }
}

impl Runner for ChildRunner {
    fn check(&self) -> Result<(), String> {
        self.program().map(drop)
    }

    fn run(&mut self, receipt: &Receipt, locks: &[RawFd], tick: &mut dyn FnMut()) -> Ended {
        let started = Instant::now();
        let begun = *self.begun.get_or_insert(started);
        let ended = |exit| Ended { exit, lingering: false, took: started.elapsed() };
        let program = match self.program() {
            Ok(program) => program,
            Err(why) => return ended(Exit::CannotStart(why)),
        };
        let pipes = match Pipes::new(self.to_stderr) {
            Ok(pipes) => pipes,
            Err(error) => return ended(Exit::CannotStart(error.to_string())),
        };
        let sync = sync_file();
        let inherited: Vec<RawFd> = locks.iter().copied().chain([pipes.alive.as_raw_fd()]).collect();
        let expression = duct::cmd(program, &self.command[1..])
            .dir(&self.root)
            .full_env(self.child_env(receipt.tag(), sync.as_ref().map(tempfile::NamedTempFile::path)))
            .stdin_null()
            .unchecked()
            .before_spawn(move |command| {
                let inherited = inherited.clone();
                // Its own process group, so that nothing but us (and the platform) signals it.
                command.process_group(0);
                // SAFETY: between fork and exec only fcntl is called, which is async-signal-safe.
                unsafe { command.pre_exec(move || inherited.iter().try_for_each(|&fd| keep_open(fd))) };
                Ok(())
            });
        let expression = pipes.connect(expression);
        // Before anything runs: where no thread is to be had, nothing would read what it says.
        let (readers, writers) = match pipes.listen() {
            Ok(ends) => ends,
            Err(error) => return ended(Exit::CannotStart(error.to_string())),
        };
        let handle = match expression.start() {
            Ok(handle) => handle,
            Err(error) => return ended(Exit::CannotStart(error.to_string())),
        };
        // As long as a write end is open here, no reader sees the end.
        drop((expression, writers));
        let group = handle.pids().first().copied().unwrap_or_default();

        let exit =
            Watch { runner: self, group, begun, told: None, killed: false, cause: None }.until_it_ends(&handle, tick);
        let lingering = !readers.end_within(LINGER, &self.interrupt);
        Ended { exit, lingering, took: started.elapsed() }
    }
}

/// Waits for the child and passes on, once, what it has to know.
struct Watch<'a> {
    runner: &'a ChildRunner,
    group: u32,
    begun: Instant,
    /// When it became known that the child has to end.
    told: Option<Instant>,
    killed: bool,
    cause: Option<Exit>,
}

impl Watch<'_> {
    fn until_it_ends(mut self, handle: &duct::Handle, tick: &mut dyn FnMut()) -> Exit {
        let mut beat = Instant::now();
        let mut forwarded = false;
        loop {
            match handle.wait_timeout(Duration::from_millis(50)) {
                Ok(Some(output)) => return self.cause.take().unwrap_or_else(|| exit_of(output.status)),
                Ok(None) => {}
                // It did start. How it ended is not known, so the look at the database has to tell.
                Err(_) => return self.cause.take().unwrap_or(Exit::Code(-1)),
            }
            if beat.elapsed() >= HEARTBEAT {
                beat = Instant::now();
                tick();
            }
            let signal = self.runner.interrupt.signal();
            let late = self.runner.limit.is_some_and(|limit| self.begun.elapsed() >= limit);
            if (signal.is_some() || late) && self.told.is_none() {
                self.told = Some(Instant::now());
                self.cause = (signal.is_none() && late).then_some(Exit::TimedOut);
            }
            let Some(told) = self.told else { continue };
            let from_platform = self.runner.on_dyno && signal == Some(libc::SIGTERM);
            let grace = if from_platform { PLATFORM_GRACE } else { Duration::ZERO };
            if !forwarded && told.elapsed() >= grace {
                forwarded = true;
                self.send(signal.unwrap_or(libc::SIGTERM));
            }
            if !self.killed && told.elapsed() >= KILL_AFTER {
                self.killed = true;
                self.send(libc::SIGKILL);
            }
        }
    }

    /// Signals every process of the child's group once.
    fn send(&self, signal: i32) {
        if let Ok(group) = i32::try_from(self.group) {
            // SAFETY: kill takes two integers and touches no memory of ours.
            unsafe { libc::kill(-group, signal) };
        }
    }
}

fn exit_of(status: ExitStatus) -> Exit {
    match (status.code(), status.signal()) {
        (Some(code), _) => Exit::Code(code),
        (None, Some(signal)) => Exit::Signal(signal),
        (None, None) => Exit::Code(-1),
    }
}

/// The write ends that the child gets, and the read ends that we keep.
struct Pipes {
    /// Standard output and standard error: one pipe if ours are the same file, so that the order of the lines is kept.
    out: (os_pipe::PipeReader, os_pipe::PipeWriter),
    err: Option<(os_pipe::PipeReader, os_pipe::PipeWriter)>,
    /// Nobody writes into it: its end says that the last process of the child's family is gone.
    alive: os_pipe::PipeWriter,
    alive_reader: os_pipe::PipeReader,
    to_stderr: bool,
}

impl Pipes {
    fn new(to_stderr: bool) -> std::io::Result<Self> {
        let (alive_reader, alive) = os_pipe::pipe()?;
        let one = to_stderr || same_file(libc::STDOUT_FILENO, libc::STDERR_FILENO);
        let err = if one { None } else { Some(os_pipe::pipe()?) };
        Ok(Self { out: os_pipe::pipe()?, err, alive, alive_reader, to_stderr })
    }

    fn connect(&self, expression: duct::Expression) -> duct::Expression {
        let (out, err) = (&self.out.1, self.err.as_ref().map_or(&self.out.1, |(_, writer)| writer));
        match (out.try_clone(), err.try_clone()) {
            (Ok(out), Ok(err)) => expression.stdout_file(out).stderr_file(err),
            // Out of descriptors: the child then writes straight to where we would have passed it on.
            _ => expression,
        }
    }

    /// Passes on what comes, from now on. The write ends are given back, to be closed once the child has its own.
    fn listen(self) -> std::io::Result<(Readers, Vec<os_pipe::PipeWriter>)> {
        let Self { out: (out, out_writer), err, alive, mut alive_reader, to_stderr } = self;
        let mut writers = vec![out_writer, alive];
        let (done, ended) = channel();
        pump(out, if to_stderr { libc::STDERR_FILENO } else { libc::STDOUT_FILENO }, done.clone())?;
        if let Some((err, err_writer)) = err {
            writers.push(err_writer);
            pump(err, libc::STDERR_FILENO, done.clone())?;
        }
        thread(move || {
            let _ = alive_reader.read(&mut [0]);
            drop(done);
        })?;
        Ok((Readers { ended }, writers))
    }
}

/// Copies bytes as they come. A reader that went away does not stop the migration: what it would have read is dropped.
fn pump(mut from: os_pipe::PipeReader, to: RawFd, done: Sender<()>) -> std::io::Result<()> {
    thread(move || {
        // SAFETY: the standard descriptors are open for the whole life of the process.
        let to = unsafe { BorrowedFd::borrow_raw(to) };
        let mut to = to.try_clone_to_owned().ok().map(File::from);
        let mut buffer = vec![0; 64 * 1024];
        loop {
            match from.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => {
                    if to.as_mut().is_some_and(|to| to.write_all(&buffer[..count]).is_err()) {
                        to = None;
                    }
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        drop(done);
    })
}

/// A thread that is not waited for; not to get one is an error, no panic.
fn thread(work: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
    std::thread::Builder::new().spawn(work).map(drop)
}

/// Every reader holds a sender; when the last one ends, the channel is closed.
struct Readers {
    ended: Receiver<()>,
}

impl Readers {
    fn end_within(&self, limit: Duration, interrupt: &Interrupt) -> bool {
        let deadline = Instant::now() + limit;
        while Instant::now() < deadline {
            if self.ended.recv_timeout(Duration::from_millis(50)) == Err(RecvTimeoutError::Disconnected) {
                return true;
            }
            if interrupt.signal().is_some() && Instant::now() + limit > deadline + Duration::from_secs(2) {
                return false;
            }
        }
        false
    }
}

fn sync_file() -> Option<tempfile::NamedTempFile> {
    let mut file = tempfile::Builder::new().prefix("unstuck-").suffix(".rb").tempfile().ok()?;
    file.write_all(SYNC_RB.as_bytes()).ok()?;
    Some(file)
}

/// Lets one descriptor through `exec`, in the child alone.
fn keep_open(fd: RawFd) -> std::io::Result<()> {
    // SAFETY: fcntl on a descriptor number; a number that is not open is an error, not harm.
    if unsafe { libc::fcntl(fd, libc::F_SETFD, 0) } == -1 { Err(std::io::Error::last_os_error()) } else { Ok(()) }
}

fn same_file(a: RawFd, b: RawFd) -> bool {
    let stat = |fd| {
        // SAFETY: a zeroed stat is a valid value, fstat fills it or fails.
        let mut stat: libc::stat = unsafe { std::mem::zeroed() };
        // SAFETY: the pointer is to a live value of the right type.
        (unsafe { libc::fstat(fd, &raw mut stat) } == 0).then_some((stat.st_dev, stat.st_ino))
    };
    stat(a).is_some_and(|file| stat(b) == Some(file))
}

fn executable(path: &Path) -> Result<(), &'static str> {
    use std::os::unix::fs::PermissionsExt as _;
    match path.metadata() {
        Err(_) => Err("does not exist"),
        Ok(file) if !file.is_file() => Err("is no file"),
        Ok(file) if file.permissions().mode() & 0o111 == 0 => Err("is not executable (chmod +x)"),
        Ok(_) => Ok(()),
    }
}
