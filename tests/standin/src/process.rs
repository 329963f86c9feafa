//! Dynos that are real processes: started from a shell with a port of their own, ended as the platform ends them, never left.
//!
//! All processes of a dyno are found by their process group or by a mark in their environment, so that a daemon which leaves the
//! group is ended with the rest. Should the stand-in itself be killed, its guard does the same: a small shell that waits for the
//! end of a pipe whose other end only the stand-in holds. Works on Linux alone, for it reads `/proc`.

use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context;
use jiff::Timestamp;
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot::Receiver;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::faults::Ailment;
use crate::ids::Id;
use crate::platform::{Event, Launch, Release};
use crate::rendezvous::{self, Client};
use crate::reserved::Reserved;
use crate::views;
use crate::world::{Inner, World};

/// What the API does not tell of a dyno.
#[derive(Debug, Clone, Copy)]
pub struct Vitals {
    pub port: u16,
    pub pid: Option<u32>,
}

/// How a dyno is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Term,
    Kill,
}

/// All dynos of one stand-in.
pub struct Fleet {
    /// Variables of every dyno, under the config vars.
    pub env: BTreeMap<String, String>,
    /// From SIGTERM to SIGKILL.
    pub grace: Duration,
    guard: Guard,
    running: Mutex<HashMap<Id, UnboundedSender<End>>>,
}

/// Marks the environment of each process of a dyno: `<stand-in>/<dyno>`.
const MARK: &str = "UNSTUCK_STANDIN_DYNO";
/// Between two looks at a port or at a dying dyno.
const LOOK: Duration = Duration::from_millis(25);
/// Output of a dyno that has ended is awaited no longer, lest a process that fled from the group holds the pipe.
const LAST_OUTPUT: Duration = Duration::from_secs(2);
/// An attached dyno waits for its client so long.
const ATTACH: Duration = Duration::from_mins(1);

impl Fleet {
    pub fn new(standin: Id, env: BTreeMap<String, String>, grace: Duration) -> anyhow::Result<Self> {
        Ok(Self { env, grace, guard: Guard::start(standin)?, running: Mutex::default() })
    }

    pub fn launch(self: &Arc<Self>, world: &Arc<World>, inner: &mut Inner, launch: Launch) {
        let (ends, end) = unbounded_channel();
        self.running().insert(launch.dyno.clone(), ends);
        // Without a port the dyno fails as it would on a machine that is full.
        let reserved = Reserved::new().ok();
        let port = reserved.as_ref().map_or(0, |reserved| reserved.port);
        inner.vitals.insert(launch.dyno.clone(), Vitals { port, pid: None });
        let Some(release) = inner.platform.release(launch.release) else { return };
        let root = release.slug.root.clone().unwrap_or_default();
        let env = self.environment(world, &launch, release, port);
        let client = launch.attach.then(|| world.rendezvous.expect(&launch.dyno));
        let boot =
            Boot { fleet: self.clone(), world: world.clone(), launch, client, port, _reserved: reserved, root, env };
        world.spawn(boot.live(end));
    }

    /// Passes the order on; a dyno that is gone needs none.
    pub fn end(&self, id: &str, kill: bool) {
        if let Some(running) = self.running().get(id) {
            running.send(if kill { End::Kill } else { End::Term }).ok();
        }
    }

    /// Orders the end of everything.
    pub fn end_all(&self) {
        for running in self.running().values() {
            running.send(End::Term).ok();
        }
    }

    pub fn idle(&self) -> bool {
        self.running().is_empty()
    }

    /// The guard ends, and with it whatever bears the mark of this stand-in.
    pub fn dismiss_guard(&self) {
        self.guard.dismiss();
    }

    fn running(&self) -> MutexGuard<'_, HashMap<Id, UnboundedSender<End>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The caller's environment without anything of Heroku's (above all a real API key), then the stand-in's own variables, the
    /// config vars, and what the platform sets.
    fn environment(&self, world: &World, launch: &Launch, release: &Release, port: u16) -> BTreeMap<String, String> {
        let inherited =
            std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        let inherited = inherited.filter(|(name, _)| !name.starts_with("HEROKU_"));
        let mut env: BTreeMap<String, String> =
            inherited.chain(self.env.clone()).chain(release.config.clone()).collect();
        env.extend(launch.env.clone());
        let mut set = |name: &str, value: String| env.insert(name.to_owned(), value);
        set("DYNO", launch.name.clone());
        set("PORT", port.to_string());
        if let Some(root) = &release.slug.root {
            set("PWD", root.display().to_string());
        }
        set(MARK, format!("{}/{}", self.guard.standin, launch.dyno));
        if launch.kind == "release" {
            set("HEROKU_RELEASE_STREAM_URL", views::output_url(&world.identity, &release.id));
        }
        if world.metadata {
            set("HEROKU_APP_ID", world.identity.app_id.clone());
            set("HEROKU_APP_NAME", world.identity.app.clone());
            set("HEROKU_DYNO_ID", launch.dyno.clone());
            set("HEROKU_RELEASE_VERSION", format!("v{}", release.version));
            set("HEROKU_RELEASE_CREATED_AT", release.created_at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
            set("HEROKU_SLUG_COMMIT", release.slug.commit.clone());
            set("HEROKU_SLUG_DESCRIPTION", release.description.clone());
        }
        env
    }
}

/// The life of one dyno.
struct Boot {
    fleet: Arc<Fleet>,
    world: Arc<World>,
    launch: Launch,
    /// Who an attached dyno waits for.
    client: Option<Receiver<Client>>,
    port: u16,
    /// Lives as long as the dyno does.
    _reserved: Option<Reserved>,
    root: PathBuf,
    env: BTreeMap<String, String>,
}

impl Boot {
    async fn live(mut self, mut end: UnboundedReceiver<End>) {
        let late = match self.launch.ailment {
            Some(Ailment::BootsLate(ms)) => Duration::from_millis(ms),
            _ => Duration::ZERO,
        };
        let status = tokio::select! {
            biased;
            _ = end.recv() => 143,
            () = sleep(late) => self.run(&mut end).await,
        };
        let id = self.launch.dyno.clone();
        self.world.update(|inner| {
            inner.vitals.remove(&id);
            inner.platform.handle(Event::Exited(id.clone(), status));
        });
        self.fleet.running().remove(&id);
        self.world.tell();
    }

    async fn run(&mut self, end: &mut UnboundedReceiver<End>) -> i32 {
        let started = match self.client.take() {
            None => self.spawn(),
            Some(client) => tokio::select! {
                _ = end.recv() => return 143,
                () = sleep(ATTACH) => {
                    self.say("heroku", "Error R13 (Attach error) -> Failed to attach to process");
                    return 128;
                }
                client = client => self.spawn_attached(client.ok()),
            },
        };
        match started {
            Ok((child, output)) => self.attend(child, output, end).await,
            Err(error) => {
                self.say("app", &format!("cannot start: {error}"));
                127
            }
        }
    }

    /// As every dyno starts: what buildpacks left in `.profile.d` comes first, with the application's folder as home.
    fn command(&self) -> String {
        let command = if self.launch.ailment == Some(Ailment::CrashesOnBoot) { "exit 1" } else { &self.launch.command };
        if self.root.join(".profile.d").is_dir() {
            format!("export HOME=\"$PWD\"; for file in .profile.d/*.sh; do . \"$file\"; done; {command}")
        } else {
            command.to_owned()
        }
    }

    fn spawn(&self) -> std::io::Result<(Child, Vec<JoinHandle<()>>)> {
        let mut child = Command::new("/bin/sh")
            .args(["-c", &self.command()])
            .current_dir(&self.root)
            .env_clear()
            .envs(&self.env)
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let output =
            [child.stdout.take().map(|pipe| self.capture(pipe)), child.stderr.take().map(|pipe| self.capture(pipe))];
        Ok((child, output.into_iter().flatten().collect()))
    }

    /// On a terminal whose other end is the client's. `setsid` makes it the controlling one, and its process the group's first.
    fn spawn_attached(&self, client: Option<Client>) -> std::io::Result<(Child, Vec<JoinHandle<()>>)> {
        let client = client.ok_or_else(|| std::io::Error::other("nobody attached"))?;
        let (master, terminal) = rendezvous::terminal()?;
        let child = Command::new("setsid")
            .args(["--ctty", "/bin/sh", "-c", &self.command()])
            .current_dir(&self.root)
            .env_clear()
            .envs(&self.env)
            .stdin(terminal.try_clone()?)
            .stdout(terminal.try_clone()?)
            .stderr(terminal)
            .spawn()?;
        Ok((child, vec![tokio::spawn(rendezvous::bridge(self.world.clone(), master, client))]))
    }

    /// From the start of the process to the end of the last one of its group. Gives the exit status.
    async fn attend(&self, mut child: Child, output: Vec<JoinHandle<()>>, end: &mut UnboundedReceiver<End>) -> i32 {
        let Some(pid) = child.id() else { return 127 };
        self.fleet.guard.watch(pid);
        if let Some(vitals) = self.world.lock().vitals.get_mut(&self.launch.dyno) {
            vitals.pid = Some(pid);
        }
        let crew = Crew { group: pid, mark: self.env[MARK].clone() };
        let mut deadline = None;
        let mut up = self.greet().await;
        let status = loop {
            tokio::select! {
                ended = child.wait() => break ended.map_or(127, code),
                order = end.recv() => deadline = self.obey(order, &crew, deadline),
                () = past(deadline) => deadline = self.overdue(&crew),
                () = sleep(LOOK), if !up => up = self.greet().await,
            }
        };
        // The others have what is left of the grace; a main process that ends by itself takes them with it.
        while !crew.members().is_empty() {
            match deadline {
                None => crew.signal(Signal::KILL),
                Some(at) if at <= Instant::now() => deadline = self.overdue(&crew),
                Some(_) => {}
            }
            sleep(LOOK).await;
        }
        self.fleet.guard.forget(pid);
        for pipe in output {
            timeout(LAST_OUTPUT, pipe).await.ok();
        }
        status
    }

    /// Sends the signal that is ordered; gives the end of the grace.
    fn obey(&self, order: Option<End>, crew: &Crew, deadline: Option<Instant>) -> Option<Instant> {
        if order == Some(End::Term) {
            crew.signal(Signal::TERM);
            return Some(deadline.unwrap_or_else(|| Instant::now() + self.fleet.grace));
        }
        crew.signal(Signal::KILL);
        None
    }

    /// The grace is over: R12.
    fn overdue(&self, crew: &Crew) -> Option<Instant> {
        let seconds = self.fleet.grace.as_secs();
        self.say(
            "heroku",
            &format!(
                "Error R12 (Exit timeout) -> At least one process failed to exit within {seconds} seconds of SIGTERM"
            ),
        );
        self.say("heroku", "Stopping all processes with SIGKILL");
        crew.signal(Signal::KILL);
        None
    }

    /// Reports that the dyno is up, if it is: a web dyno has bound its port, another one runs.
    async fn greet(&self) -> bool {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port));
        let up = self.launch.ailment != Some(Ailment::StaysStarting)
            && (self.launch.kind != "web" || TcpStream::connect(address).await.is_ok());
        if up {
            self.world.handle(Event::Up(self.launch.dyno.clone()));
        }
        up
    }

    /// Every line becomes a line of the log; what a release command prints is its output, too.
    fn capture(&self, pipe: impl AsyncRead + Send + Unpin + 'static) -> JoinHandle<()> {
        let (world, launch) = (self.world.clone(), self.launch.clone());
        tokio::spawn(async move {
            let mut pipe = BufReader::new(pipe);
            let mut line = Vec::new();
            while pipe.read_until(b'\n', &mut line).await.is_ok_and(|read| read > 0) {
                let text = String::from_utf8_lossy(&line).into_owned();
                line.clear();
                let mut inner = world.lock();
                inner.logs.push("app", &launch.name, text.trim_end_matches(['\n', '\r']), Timestamp::now());
                if launch.kind == "release"
                    && let Some(output) = inner.release_output.get_mut(&launch.release)
                {
                    output.push_str(&text);
                }
                drop(inner);
                world.tell();
            }
        })
    }

    fn say(&self, source: &str, text: &str) {
        self.world.lock().logs.push(source, &self.launch.name, text, Timestamp::now());
        self.world.tell();
    }
}

/// Waits for the deadline, for ever if there is none.
async fn past(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// As a shell counts: 128 + N for signal N.
fn code(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

/// The processes of one dyno.
struct Crew {
    group: u32,
    mark: String,
}

impl Crew {
    fn members(&self) -> Vec<Pid> {
        let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
        let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
        pids.filter(|pid| self.has(*pid)).filter_map(Pid::from_raw).collect()
    }

    fn has(&self, pid: i32) -> bool {
        let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
        // The command's name, in brackets, may hold anything; what follows it does not.
        let Some((_, rest)) = stat.rsplit_once(") ") else { return false };
        let mut fields = rest.split(' ');
        let (state, group) = (fields.next().unwrap_or_default(), fields.nth(1).unwrap_or_default());
        let dead = matches!(state, "Z" | "X");
        !dead && (group == self.group.to_string() || self.marked(pid))
    }

    fn marked(&self, pid: i32) -> bool {
        let wanted = format!("{MARK}={}", self.mark);
        std::fs::read(format!("/proc/{pid}/environ"))
            .is_ok_and(|environ| environ.split(|byte| *byte == 0).any(|variable| variable == wanted.as_bytes()))
    }

    fn signal(&self, signal: Signal) {
        for pid in self.members() {
            // It may have ended meanwhile, which is what is wanted.
            kill_process(pid, signal).ok();
        }
    }
}

/// The shell that outlives a killed stand-in by as long as it takes to kill its dynos.
struct Guard {
    standin: Id,
    shell: Mutex<std::process::Child>,
}

const GUARD: &str = include_str!("guard.sh");

impl Guard {
    fn start(standin: Id) -> anyhow::Result<Self> {
        let shell = std::process::Command::new("/bin/sh")
            .args(["-c", GUARD, "standin-guard", &format!("{MARK}={standin}/")])
            // A signal to the stand-in's group must not reach the guard.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot start the guard that ends dynos when the stand-in is killed")?;
        Ok(Self { standin, shell: Mutex::new(shell) })
    }

    fn watch(&self, group: u32) {
        self.order(&format!("+ {group}\n"));
    }

    fn forget(&self, group: u32) {
        self.order(&format!("- {group}\n"));
    }

    fn order(&self, order: &str) {
        if let Some(orders) = &mut self.shell().stdin {
            // Without its guard a stand-in still ends its dynos itself, unless it is killed.
            orders.write_all(order.as_bytes()).ok();
        }
    }

    fn dismiss(&self) {
        let mut shell = self.shell();
        shell.stdin.take();
        shell.wait().ok();
    }

    fn shell(&self) -> MutexGuard<'_, std::process::Child> {
        self.shell.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
