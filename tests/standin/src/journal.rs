//! One sequence for everything that happens, so that a test can say what came before what.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::ids::Id;
use crate::platform::Status;

/// Something that happened, with its place in the one order of all things.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Counted from 1, without gaps.
    pub seq: u64,
    /// By this machine's clock, whatever skew the API shows.
    pub at: Timestamp,
    #[serde(flatten)]
    pub fact: Fact,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Fact {
    /// A request arrived. `status` and `acted` are filled in when the answer is made; a request that is never answered
    /// keeps a null status. `acted` means that a write took effect (it may do so later, see [`crate::Act::Late`]).
    Request { method: String, path: String, status: Option<u16>, acted: bool },
    /// The process of a dyno starts.
    Began {
        dyno: Id,
        name: String,
        #[serde(rename = "type")]
        kind: String,
        release: u64,
    },
    /// The process of a dyno is gone.
    Ended { dyno: Id, name: String, status: i32 },
    /// A release was made or changed its status.
    Release { version: u64, status: Status },
    /// What a script or a test had to say.
    Note { text: String },
}

#[derive(Default)]
pub struct Journal {
    entries: Vec<Entry>,
}

impl Journal {
    pub fn record(&mut self, fact: Fact) -> u64 {
        let seq = self.last() + 1;
        self.entries.push(Entry { seq, at: Timestamp::now(), fact });
        seq
    }

    /// Completes the request that was recorded as `seq`.
    pub fn answered(&mut self, seq: u64, answer: u16, took_effect: bool) {
        let request = self.entries.iter_mut().rev().find(|entry| entry.seq == seq);
        if let Some(Fact::Request { status, acted, .. }) = request.map(|entry| &mut entry.fact) {
            (*status, *acted) = (Some(answer), took_effect);
        }
    }

    /// The number of the newest entry, 0 when there is none.
    pub fn last(&self) -> u64 {
        self.entries.len() as u64
    }

    /// The entries after number `seq`.
    pub fn after(&self, seq: u64) -> &[Entry] {
        &self.entries[self.entries.partition_point(|entry| entry.seq <= seq)..]
    }
}
