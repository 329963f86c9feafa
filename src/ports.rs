//! The doors to the outside. Each method's comment is its contract; the adapters keep it, and so do the fakes in tests.

use std::os::fd::{BorrowedFd, RawFd};
use std::time::Duration;

use jiff::Timestamp;

use crate::debt::{Digest, Entry, Epoch, Receipt, Records};
use crate::dynos::{App, DynoList, Formation, Release};
use crate::migrations::Version;
use crate::processes::Process;

/// A connection to one database. Databases differ by the SQL that is sent through this, not by what is done.
pub trait Session {
    /// Sends `sql`, one or more statements separated by `;`, in one message and returns one [`Rows`] for each statement
    /// that returns rows (statements that return none, such as `BEGIN` or `INSERT`, add none). No server-side prepared
    /// statement and no session state is used, so that it works through a pooler in transaction mode. All values come as
    /// text, as the server prints them; SQL NULL is `None`. When a statement fails, those after it are not run.
    ///
    /// Returns within `deadline` in total: a server that goes silent ends in [`SqlErrorKind::Lost`], after which every call
    /// fails in the same way.
    fn run(&mut self, sql: &str, deadline: Duration) -> Result<Vec<Rows>, SqlError>;

    /// The descriptor whose being open keeps this session, and so its session locks, alive in the server. A child that
    /// inherits it keeps the lock when we are killed. `None` for SQLite.
    fn socket(&self) -> Option<BorrowedFd<'_>>;

    /// What the server called this session in the handshake: PostgreSQL's `BackendKeyData` pid, MySQL's connection id.
    /// Behind a transaction pooler it differs from what the server itself says (`pg_backend_pid()`).
    fn handshake_id(&self) -> Option<u64>;

    /// Ends the use of this session without telling the server, for the case that a child still holds its socket and so the
    /// lock: neither a Terminate message nor a shutdown is sent.
    fn abandon(self: Box<Self>);
}

/// The rows of one statement, every value as text. They are kept in one piece: an application has thousands of versions, and a
/// few allocations for all of them cost less than two for each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rows {
    columns: usize,
    text: String,
    /// Where each value ends in `text`, row after row.
    ends: Vec<usize>,
    /// The values that are NULL, by their place in `ends`; ascending, and nearly always none.
    nulls: Vec<usize>,
}

impl Rows {
    /// No rows yet, of this many columns.
    pub fn new(columns: usize) -> Self {
        Self { columns, text: String::new(), ends: Vec::new(), nulls: Vec::new() }
    }

    /// Adds the next value, in the order of columns and then of rows. NULL is `None`.
    pub fn push(&mut self, value: Option<&str>) {
        match value {
            Some(value) => self.text.push_str(value),
            None => self.nulls.push(self.ends.len()),
        }
        self.ends.push(self.text.len());
    }

    /// The same for bytes, of which those that are no UTF-8 are replaced.
    pub fn push_bytes(&mut self, value: Option<&[u8]>) {
        self.push(value.map(String::from_utf8_lossy).as_deref());
    }

    /// Of a statement that has rows but no columns, none can be told from another.
    pub fn len(&self) -> usize {
        self.ends.len().checked_div(self.columns).unwrap_or(0)
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// One value; `None` for NULL, and where there is no such row or column.
    pub fn get(&self, row: usize, column: usize) -> Option<&str> {
        let at = row * self.columns + column;
        if column >= self.columns || self.nulls.binary_search(&at).is_ok() {
            return None;
        }
        let begin = at.checked_sub(1).map_or(Some(0), |before| self.ends.get(before).copied())?;
        self.text.get(begin..*self.ends.get(at)?)
    }

    /// All values of one column.
    pub fn column(&self, column: usize) -> impl Iterator<Item = Option<&str>> {
        (0..self.len()).map(move |row| self.get(row, column))
    }

    /// All values, row after row.
    pub fn values(&self) -> impl Iterator<Item = Option<&str>> {
        (0..self.len() * self.columns).map(|at| self.get(at / self.columns, at % self.columns))
    }
}

/// Why a statement or a connection failed. The message is the server's or the driver's own, without any secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SqlError {
    pub kind: SqlErrorKind,
    pub message: String,
    /// The way out, where there is one to name.
    pub hint: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SqlErrorKind {
    /// Not reached: refused, no such host, no such file, no such database, time-out on connecting.
    Unreachable,
    /// Reached, but the TLS handshake failed or the certificate does not verify.
    Tls,
    /// Reached, but user or password are not accepted.
    Denied,
    /// The connection was there and is gone, or the server went silent past the deadline. What was sent may have happened.
    Lost,
    /// A table that the statement names does not exist.
    NoTable,
    /// A column that the statement names does not exist.
    NoColumn,
    /// The server, the transaction, the file or the role does not allow writing.
    ReadOnly,
    /// A row with this key is there already.
    Duplicate,
    /// Another session holds a lock that the statement needs (SQLite: the file is busy).
    Locked,
    /// There is no room left: on the disk, in the table, for the role.
    Full,
    /// Anything else: syntax, a trigger that raises, out of memory.
    Other,
}

impl SqlError {
    pub fn new(kind: SqlErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), hint: None }
    }

    /// Adds the way out.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl std::fmt::Display for SqlError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for SqlError {}

/// Heroku's Platform API for one app. Every method ends within the configured time-outs. Reads are retried inside, bounded
/// (429 with its `Retry-After`, 5xx, connection faults); restarts are sent at most once per call, except where it is certain that
/// the request was not acted upon (429, connection refused).
pub trait Platform: Send + Sync {
    /// Opens the connection, or keeps it open, with a request that costs no rate-limit tokens. Failures do not matter.
    fn warm(&self);

    fn app(&self) -> Result<App, ApiError>;

    /// All dynos of the app: every page, or an error.
    fn dynos(&self) -> Result<DynoList, ApiError>;

    fn formation(&self) -> Result<Vec<Formation>, ApiError>;

    /// The newest releases, newest first, `limit` at most.
    fn releases(&self, limit: usize) -> Result<Vec<Release>, ApiError>;

    /// One release by its number.
    fn release(&self, version: u64) -> Result<Release, ApiError>;

    /// Whether the app's preboot feature is on. `false` where the app cannot have it (404).
    fn preboot(&self) -> Result<bool, ApiError>;

    /// Asks for a restart of all dynos of one process type: `DELETE /apps/{app}/formations/{type}`. `Ok` means accepted, not
    /// done.
    fn restart_type(&self, kind: &str) -> Result<(), ApiError>;

    /// Asks for a restart of one dyno by its name (by id it has been seen to do nothing). `Ok` means accepted, not done.
    fn restart_dyno(&self, name: &str) -> Result<(), ApiError>;

    /// The last `lines` log lines of one dyno, oldest first, raw.
    fn log_lines(&self, dyno: &str, lines: usize) -> Result<Vec<String>, ApiError>;

    /// How many requests the rate limit still left at the last answer; `None` as long as none said so.
    fn remaining(&self) -> Option<u64>;

    /// The same list as [`Platform::dynos`], with all that the API tells of each, and its `Date`.
    fn processes(&self) -> Result<(Vec<Process>, Timestamp), ApiError>;

    /// Opens one log session and gives its lines as they come, raw and of bounded length. An error ends it before its time; one
    /// without a tail ends by itself. A session that is not there any more is [`ApiErrorKind::Unknown`].
    fn log_session(&self, query: &LogQuery) -> Result<LogLines, ApiError>;
}

/// What a log session is to show; everything where nothing is said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogQuery {
    /// One dyno, by its name.
    pub dyno: Option<String>,
    /// One process type.
    pub kind: Option<String>,
    /// `app` or `heroku`.
    pub source: Option<String>,
    /// How many lines of the past. Fir keeps none.
    pub lines: usize,
    /// Whether to go on with what is logged from now on. Fir always does.
    pub tail: bool,
}

/// The lines of one log session. They wait for the next one, so they are read by a thread of their own.
pub type LogLines = Box<dyn Iterator<Item = Result<String, Cut>> + Send>;

/// Why a log session ended before its time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cut {
    /// Nothing came for so long that the connection may be dead.
    Idle,
    /// The connection broke.
    Broken(String),
}

/// Why the API gave no answer that can be used. Never holds the token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiError {
    pub kind: ApiErrorKind,
    /// The HTTP status, where there was an answer.
    pub status: Option<u16>,
    /// The API's own error id (`not_found`, `rate_limit`, ...), where it gave one.
    pub id: Option<String>,
    /// What happened, with the method, the path and the API's own message. Raw text from outside: cleaned on output.
    pub message: String,
    pub hint: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ApiErrorKind {
    /// 401: the token is not, or no longer, good.
    Unauthorized,
    /// 402, 403: the token may not do this.
    Forbidden,
    /// 404: no such app, dyno or release (or none that this token may see).
    NotFound,
    /// 429, and it did not get better within the time-outs.
    RateLimited,
    /// Any other 4xx; a redirect, which is never followed; a name that no path can carry, which is not sent.
    Rejected,
    /// The request did not reach the API: no such host, refused, TLS failed. Nothing was done.
    Unreachable,
    /// 5xx, time-out, connection cut, an answer that cannot be read: it may have been done or not.
    Unknown,
}

impl std::fmt::Display for ApiError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for ApiError {}

/// One database as the debt sees it: applied versions, our records, the run lock. The SQL behind it is the engine's.
///
/// Every method can be repeated: what was done already is not done twice. A lost connection is opened again inside, once per
/// call, and the run lock taken again if we held it.
pub trait Database {
    /// Versions and records in one snapshot; one round when both of Rails' tables are there. Writes nothing.
    fn look(&mut self) -> Result<Look, SqlError>;

    /// Takes the run lock of this database if it is free. It is held until the session's socket is closed by us *and* by
    /// every child that inherited it.
    fn try_lock(&mut self) -> Result<Lock, SqlError>;

    /// Writes a row durably, in a transaction of its own, and reads it back. In which home, the adapter knows.
    fn write(&mut self, key: &str, value: &str) -> Result<(), SqlError>;

    /// Deletes our row. No error when it is gone already.
    fn erase(&mut self, key: &str) -> Result<(), SqlError>;

    /// Touches our row, to show that its run is alive; writes it again where it is gone (a fail-over lost it, or another run
    /// came in between while our connection was lost). Never waits for a server that does not answer.
    fn touch(&mut self, key: &str, value: &str) -> Result<(), SqlError>;

    /// Clears the debt, in one transaction: reads the versions again; if they are `expected`, deletes exactly the rows of
    /// `settlement` as they were read (key and value) and writes the proof. `false`: the versions have moved, nothing was
    /// done.
    fn settle(&mut self, settlement: &Settlement) -> Result<bool, SqlError>;

    /// A hash of the catalogue: every table, column, index, constraint and type, but for Rails' two tables and ours.
    fn catalogue(&mut self) -> Result<String, SqlError>;

    /// The sessions that may still be migrating, each described for people: a child of ours by its tag, whoever holds Rails'
    /// own lock, a statement that changes the schema.
    fn migrating(&mut self) -> Result<Vec<String>, SqlError>;

    /// The descriptor that keeps the run lock as long as it is open: what a child has to inherit.
    fn lock_fd(&self) -> Option<RawFd>;

    /// Forgets the session without telling the server, so that a child that inherited it keeps the lock.
    fn abandon(&mut self);
}

/// A second way to one database, beside the debt's: which sessions of the migration command wait for a lock there, and who is
/// in their way. No method waits for a lock itself, and nothing depends on an answer.
pub trait LockWaits: Send {
    /// What waits now.
    fn look(&mut self) -> Result<Vec<Wait>, SqlError>;

    /// Cancels the statement that waits, if it still does. `false`: it does no more.
    fn cancel(&mut self, wait: &Wait) -> Result<bool, SqlError>;
}

/// A statement of the migration command that waits for a lock. All text is the server's, as it came.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Wait {
    /// The server's number of the session.
    pub session: String,
    pub statement: String,
    /// When the statement began, where the server tells two of one session apart by that.
    pub began: String,
    /// What it waits for: `a lock on posts`.
    pub target: String,
    /// How long the server says that it waits; `None` where it does not say.
    pub age: Option<Duration>,
    /// It is certain that the session is the command's own, so that it may be cancelled.
    pub own: bool,
    /// The server ends a wait that is too long by itself.
    pub bounded: bool,
    /// Who is in the way, the oldest first. Empty: that cannot be seen.
    pub holders: Vec<Holder>,
    /// The holders have open transactions, and one of them holds the lock; more cannot be seen.
    pub guess: bool,
    /// How many other sessions wait for the same.
    pub queue: usize,
}

/// A session that holds a lock.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Holder {
    pub session: String,
    pub user: String,
    /// The name that it gave itself, if any.
    pub application: String,
    /// Where it comes from, if it is not this machine.
    pub address: String,
    /// What it does: `active`, `idle in transaction`.
    pub state: String,
    /// For how many seconds.
    pub since_s: Option<u64>,
    /// What it does, or did last.
    pub statement: String,
    /// The statement with which a person ends it.
    pub remedy: String,
}

/// What one look at a database found, in one snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Look {
    pub applied: Vec<Version>,
    pub records: Records,
    /// Known as soon as we hold the run lock; before that it may be empty.
    pub epoch: Epoch,
    /// The server or the transaction refuses writing: a follower, a replica, a read-only database.
    pub read_only: bool,
    /// A pooler stands between us and the server, so that a session lock means nothing.
    pub pooled: bool,
}

/// What became of the attempt to take the run lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lock {
    Taken,
    /// Another run holds it: who, for people.
    Held(String),
}

/// What clears the debt in one database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settlement {
    /// The versions for which the restart was proved.
    pub expected: Digest,
    /// The rows to delete, as they were read.
    pub gone: Vec<Entry>,
    /// Rows that have to stay, with their new value.
    pub kept: Vec<(Entry, String)>,
    pub proof: (String, String),
}

/// The migration command.
pub trait Runner {
    /// Whether the command can be executed; why not.
    fn check(&self) -> Result<(), String>;

    /// Runs the command to its end, and the end of every process that it started, as far as that can be waited for. It
    /// inherits `locks`. `tick` is called every few seconds. The receipt says that the possible debt is recorded.
    fn run(&mut self, receipt: &Receipt, locks: &[RawFd], tick: &mut dyn FnMut()) -> Ended;
}

/// How the migration command ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    pub exit: Exit,
    /// A process that it started is still there, and may go on migrating.
    pub lingering: bool,
    pub took: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exit {
    Code(i32),
    Signal(i32),
    /// It was ended since it took longer than it may.
    TimedOut,
    /// It never started: why.
    CannotStart(String),
}

/// Time that only goes forward, and waiting.
pub trait Clock {
    /// Since some moment in the past.
    fn now(&self) -> Duration;
    fn sleep(&self, time: Duration);
}
