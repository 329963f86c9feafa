//! A run of `unstuck` that is listened to while it goes on.

#![allow(dead_code, reason = "each test file uses a part of it")]
#![allow(clippy::expect_used, reason = "a run that cannot be started fails the test, and says why")]

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::scene::Ran;

/// A run, its lines as they come, and what it says on standard error.
pub struct Live {
    child: Child,
    lines: Receiver<String>,
    heard: Vec<String>,
    errors: Option<JoinHandle<Vec<u8>>>,
}

impl Live {
    pub fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("unstuck starts");
        let (told, lines) = channel();
        let stdout = BufReader::new(child.stdout.take().expect("a pipe"));
        thread::spawn(move || stdout.lines().map_while(Result::ok).try_for_each(|line| told.send(line)));
        let mut stderr = child.stderr.take().expect("a pipe");
        let errors = thread::spawn(move || {
            let mut text = Vec::new();
            stderr.read_to_end(&mut text).expect("standard error can be read");
            text
        });
        Self { child, lines, heard: Vec::new(), errors: Some(errors) }
    }

    /// Waits for a line that holds `wanted`.
    #[track_caller]
    pub fn wait_for(&mut self, wanted: &str) {
        loop {
            let line = self.lines.recv_timeout(Duration::from_mins(1));
            let line = line.unwrap_or_else(|error| panic!("no line with {wanted:?} ({error}): {:#?}", self.heard));
            let found = line.contains(wanted);
            self.heard.push(line);
            if found {
                return;
            }
        }
    }

    /// The lines so far.
    pub fn heard(&self) -> &[String] {
        &self.heard
    }

    /// Sends a signal and waits for the end.
    pub fn signal(self, signal: i32) -> Ran {
        let pid = i32::try_from(self.child.id()).expect("a pid");
        // SAFETY: kill takes two integers and touches no memory of ours.
        assert_eq!(unsafe { libc::kill(pid, signal) }, 0);
        self.end()
    }

    /// Waits for the end.
    pub fn end(mut self) -> Ran {
        let status = self.child.wait().expect("unstuck ends");
        self.heard.extend(self.lines.iter());
        let stderr = self.errors.take().expect("it is read once").join().expect("standard error was read");
        let stdout = self.heard.iter().flat_map(|line| [line.as_bytes(), b"\n"].concat()).collect();
        Ran::of(Output { status, stdout, stderr })
    }
}

impl Drop for Live {
    /// A test that fails leaves nothing running.
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
