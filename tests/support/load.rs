//! The real Rails application under real puma, with requests running while the schema changes under it.

#![allow(dead_code, reason = "each user takes a part of it")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what went wrong by failing there")]

#[allow(clippy::duplicate_mod, reason = "constants, which no other helper need hand on")]
#[path = "secrets.rs"]
pub mod secrets;

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use unstuck_standin::Reserved;

use crate::rails_app::{Database, RailsApp};

/// Longer than any boot on a busy machine.
const PATIENCE: Duration = Duration::from_mins(1);

/// A process that serves the application on a port of its own, guarded or not. Ended when dropped.
pub struct Served {
    pub app: RailsApp,
    pub address: SocketAddr,
    reserved: Reserved,
    process: Option<Child>,
    lines: Receiver<String>,
    said: Arc<Mutex<Output>>,
}

impl Served {
    /// Boots it below `folder`: puma alone, or under `unstuck exec` with these options, in which `{address}` is where it listens.
    pub fn start(folder: &Path, guard: Option<&[&str]>) -> Self {
        let app = RailsApp::create(&folder.join("app"), &[Database::sqlite3("primary").set("timeout", "5000")]);
        let reserved = Reserved::new().unwrap();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, reserved.port));
        sql(
            &app,
            "create table schema_migrations (version varchar primary key); create table ar_internal_metadata (key varchar \
             primary key, value varchar, created_at datetime(6), updated_at datetime(6)); create table posts (id integer \
             primary key, title varchar); insert into posts values (1, 'T')",
        );
        let mut command = match guard {
            None => app.command("puma"),
            Some(options) => {
                let mut command = app.command(env!("CARGO_BIN_EXE_unstuck"));
                command.arg("exec").args(options.iter().map(|word| word.replace("{address}", &address.to_string())));
                command.args(["--", "puma"]);
                command
            }
        };
        command.args(["--bind", &format!("tcp://{address}"), "--threads", "4:4"]);
        // A group of its own: whatever is left of it is ended with this value.
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        let mut process = command.spawn().expect("puma, or unstuck, starts");
        let said = Arc::new(Mutex::new(Output {
            status: std::process::ExitStatus::default(),
            stdout: vec![],
            stderr: vec![],
        }));
        let (tell, lines) = channel();
        let (out, err) = (process.stdout.take().unwrap(), process.stderr.take().unwrap());
        for (from, to_stderr) in [(Box::new(out) as Box<dyn Read + Send>, false), (Box::new(err), true)] {
            let (tell, said) = (tell.clone(), Arc::clone(&said));
            std::thread::spawn(move || {
                for line in BufReader::new(from).lines().map_while(Result::ok) {
                    let mut said = said.lock().unwrap();
                    let stream = if to_stderr { &mut said.stderr } else { &mut said.stdout };
                    stream.extend(line.bytes().chain(*b"\n"));
                    let _ = tell.send(line);
                }
            });
        }
        let served = Self { app, address, reserved, process: Some(process), lines, said };
        served.wait_for("Use Ctrl-C to stop");
        served
    }

    /// Waits for a line of its output that contains `sign`.
    pub fn wait_for(&self, sign: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        while let Ok(line) = self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            if line.contains(sign) {
                return line;
            }
        }
        panic!("no line with {sign:?}: {:?}", self.said.lock().unwrap());
    }

    /// Adds a column, as a migration would.
    pub fn add_column(&self, version: u32, column: &str) {
        let statement = format!(
            "begin; alter table posts add column {column} varchar; insert into schema_migrations values ('{version}'); commit"
        );
        sql(&self.app, &statement);
    }

    /// Waits until the process that answers knows the column.
    pub fn wait_for_column(&self, column: &str) {
        let deadline = Instant::now() + PATIENCE;
        while !matches!(ask(self.address, "/columns"), Ok(body) if body.contains(&format!("\"{column}\""))) {
            assert!(Instant::now() < deadline, "no process knows {column}: {:?}", self.said.lock().unwrap());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn signal(&self, signal: i32) {
        let pid = i32::try_from(self.process.as_ref().unwrap().id()).unwrap();
        // SAFETY: kill takes two integers and touches no memory of ours.
        assert_eq!(unsafe { libc::kill(pid, signal) }, 0);
    }

    pub fn pid(&self) -> u32 {
        self.process.as_ref().unwrap().id()
    }

    /// Tells it to end, and answers its exit code and all that it has said.
    pub fn end(mut self) -> Output {
        self.signal(libc::SIGTERM);
        let status = self.process.take().unwrap().wait().unwrap();
        let said = self.said.lock().unwrap();
        let output = Output { status, stdout: said.stdout.clone(), stderr: said.stderr.clone() };
        secrets::keep(&output);
        output
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let group = i32::try_from(process.id()).unwrap();
            // SAFETY: kill takes two integers and touches no memory of ours.
            unsafe { libc::kill(-group, libc::SIGKILL) };
            let _ = process.wait();
        }
    }
}

fn sql(app: &RailsApp, sql: &str) {
    let file = app.root().join("db/primary.sqlite3");
    let output = Command::new("sqlite3").args(["-cmd", ".timeout 10000"]).arg(file).arg(sql).output().expect("sqlite3");
    assert!(output.status.success(), "{sql}: {output:?}");
}

/// What became of the requests.
#[derive(Debug, Default, Clone)]
pub struct Count {
    pub served: usize,
    /// Nobody listened.
    pub refused: usize,
    /// The connection was there, and ended without a whole answer.
    pub cut: usize,
    /// Answered with an error.
    pub failed: usize,
    /// The longest that one waited for its answer.
    pub longest: Duration,
}

impl Count {
    pub fn lost(&self) -> usize {
        self.refused + self.cut + self.failed
    }

    pub fn add(&mut self, other: &Self) {
        self.served += other.served;
        self.refused += other.refused;
        self.cut += other.cut;
        self.failed += other.failed;
        self.longest = self.longest.max(other.longest);
    }
}

/// Requests that follow one another on `clients` threads, each on a connection of its own, as Heroku's router makes them.
pub struct Load {
    over: Arc<AtomicBool>,
    clients: Vec<JoinHandle<Count>>,
}

impl Load {
    pub fn on(address: SocketAddr, clients: usize) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let client = |_| {
            let over = Arc::clone(&over);
            std::thread::spawn(move || {
                let mut count = Count::default();
                while !over.load(Ordering::Relaxed) {
                    let begun = Instant::now();
                    match ask(address, "/posts/1") {
                        Ok(_) => count.served += 1,
                        Err(error) if error.kind() == ErrorKind::ConnectionRefused => count.refused += 1,
                        Err(error) if error.kind() == ErrorKind::InvalidData => count.failed += 1,
                        Err(_) => count.cut += 1,
                    }
                    count.longest = count.longest.max(begun.elapsed());
                    // A steady stream, not a race of the client with itself.
                    std::thread::sleep(Duration::from_millis(20));
                }
                count
            })
        };
        Self { clients: (0..clients).map(client).collect(), over }
    }

    pub fn end(self) -> Count {
        self.over.store(true, Ordering::Relaxed);
        self.clients.into_iter().fold(Count::default(), |mut all, client| {
            all.add(&client.join().unwrap());
            all
        })
    }
}

/// One request on a connection of its own: the body of a 200.
pub fn ask(address: SocketAddr, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let Some((head, body)) = answer.split_once("\r\n\r\n") else { return Err(ErrorKind::UnexpectedEof.into()) };
    if head.starts_with("HTTP/1.1 200 ") { Ok(body.to_owned()) } else { Err(ErrorKind::InvalidData.into()) }
}
