//! SQLite, in this process.
//!
//! Looking must not leave a trace, and SQLite's own read-only mode does: it makes `-wal` and `-shm` files beside a database in
//! WAL mode, and it refuses a file whose last writer was killed, since it may not roll back. So a session that only looks
//! chooses, for each message anew, how to open the file: see `Look`.

use std::fs::{self, File};
use std::io::Read;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};
use rusqlite::fallible_iterator::FallibleIterator;
use rusqlite::types::ValueRef;
use rusqlite::{Batch, Connection, ErrorCode, OpenFlags, ffi};
use tempfile::TempDir;

use crate::ports::{Rows, Session, SqlError, SqlErrorKind};
use crate::rails::Database;

/// How often SQLite asks whether the time is over, in its own instructions: some microseconds.
const INSTRUCTIONS_BETWEEN_CHECKS: i32 = 1_000;

/// How often a look is repeated because a writer came between.
const LOOKS: usize = 5;

/// What stays as it is in the path of a `file:` name.
const PATH: &AsciiSet = &NON_ALPHANUMERIC.remove(b'/').remove(b'.').remove(b'-').remove(b'_');

/// What a session may do to the file. Neither makes one that is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    Read,
    Write,
}

/// A database file.
#[derive(Debug)]
pub struct SqliteSession {
    path: PathBuf,
    /// `None` for [`Access::Read`].
    writer: Option<Connection>,
    /// Why nothing more can be asked.
    dead: Option<SqlError>,
}

/// Opens the file of `db`. One that is missing is [`SqlErrorKind::Unreachable`], and [`is_missing`].
pub fn connect(db: &Database, access: Access) -> Result<SqliteSession, SqlError> {
    let path = path(db);
    let unreachable = |what| SqlError::new(SqlErrorKind::Unreachable, format!("{}: {what}", path.display()));
    let about = fs::metadata(&path).map_err(|error| unreachable(error.to_string()))?;
    if about.is_dir() {
        return Err(unreachable("it is a directory".to_owned()));
    }
    let writer = match access {
        Access::Read => None,
        Access::Write => Some(open(&path, OpenFlags::SQLITE_OPEN_READ_WRITE).map_err(|error| failed(&path, error))?),
    };
    Ok(SqliteSession { path, writer, dead: None })
}

/// Whether `db` is a file that does not exist. Rails would make it.
pub fn is_missing(db: &Database) -> bool {
    fs::metadata(path(db)).is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound)
}

/// The one name of the file, by which two paths to it are known as the same. Symbolic links are resolved, as far as the path
/// exists.
pub fn identity(db: &Database) -> PathBuf {
    let path = path(db);
    path.canonicalize().unwrap_or_else(|_| match (path.parent().map(Path::canonicalize), path.file_name()) {
        (Some(Ok(parent)), Some(name)) => parent.join(name),
        _ => path,
    })
}

fn path(db: &Database) -> PathBuf {
    db.database.as_deref().unwrap_or_default().into()
}

impl Session for SqliteSession {
    fn run(&mut self, sql: &str, deadline: Duration) -> Result<Vec<Rows>, SqlError> {
        if let Some(reason) = &self.dead {
            return Err(reason.clone());
        }
        let until = Instant::now() + deadline;
        let result = match &mut self.writer {
            Some(connection) => execute(connection, sql, until),
            None => look(&self.path, sql, until),
        };
        result.map_err(|error| {
            let error = failed(&self.path, error);
            if error.kind == SqlErrorKind::Lost {
                self.dead = Some(error.clone());
            }
            error
        })
    }

    fn socket(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn handshake_id(&self) -> Option<u64> {
        None
    }

    fn abandon(self: Box<Self>) {}
}

/// How a file is opened to be looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Look {
    /// Read-only, with SQLite's locks.
    Shared,
    /// In WAL mode, but closed by everybody: nothing but the file itself is needed, and nothing is made beside it.
    Alone,
    /// The last writer was killed: it is put in order in a copy.
    Copy,
}

impl Look {
    fn choose(path: &Path) -> Self {
        if !is_wal(path) {
            return Self::Shared;
        }
        match (beside(path, "-wal").exists(), beside(path, "-shm").exists()) {
            (false, _) => Self::Alone,
            // Nobody has it open, or the index would be there.
            (true, false) => Self::Copy,
            (true, true) => Self::Shared,
        }
    }
}

fn look(path: &Path, sql: &str, until: Instant) -> rusqlite::Result<Vec<Rows>> {
    let mut last = Ok(vec![]);
    for _ in 0..LOOKS {
        let before = stamp(path);
        let how = Look::choose(path);
        last = match how {
            Look::Shared => open(path, OpenFlags::SQLITE_OPEN_READ_ONLY)
                .and_then(|mut connection| execute(&mut connection, sql, until)),
            Look::Alone => open_alone(path).and_then(|mut connection| execute(&mut connection, sql, until)),
            Look::Copy => look_at_copy(path, sql, until),
        };
        if last.as_ref().is_err_and(must_recover) {
            last = look_at_copy(path, sql, until);
        } else if how == Look::Shared {
            return last;
        }
        // Without SQLite's locks, only a file that nobody touched meanwhile has been read as a whole.
        if stamp(path) == before {
            return last;
        }
    }
    last
}

/// Runs every statement of `sql`, all before `until`.
fn execute(connection: &mut Connection, sql: &str, until: Instant) -> rusqlite::Result<Vec<Rows>> {
    connection.progress_handler(INSTRUCTIONS_BETWEEN_CHECKS, Some(move || Instant::now() >= until))?;
    let connection = &*connection;
    let mut results = vec![];
    let mut statements = Batch::new(connection, sql);
    loop {
        connection.busy_timeout(until.saturating_duration_since(Instant::now()))?;
        let Some(mut statement) = statements.next()? else { return Ok(results) };
        let columns = statement.column_count();
        let mut rows = statement.raw_query();
        let mut found = Rows::new(columns);
        while let Some(row) = rows.next()? {
            for column in 0..columns {
                push(&mut found, connection, row.get_ref(column)?)?;
            }
        }
        if columns > 0 {
            results.push(found);
        }
    }
}

/// Adds a value as the text that SQLite makes of it.
fn push(rows: &mut Rows, connection: &Connection, value: ValueRef<'_>) -> rusqlite::Result<()> {
    match value {
        ValueRef::Null => rows.push(None),
        ValueRef::Integer(number) => rows.push(Some(&number.to_string())),
        // SQLite's own digits, which are not Rust's.
        ValueRef::Real(number) => {
            let text: String = connection.query_row("SELECT CAST(?1 AS TEXT)", [number], |row| row.get(0))?;
            rows.push(Some(&text));
        }
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => rows.push_bytes(Some(bytes)),
    }
    Ok(())
}

fn open(path: &Path, flags: OpenFlags) -> rusqlite::Result<Connection> {
    Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)
}

fn open_alone(path: &Path) -> rusqlite::Result<Connection> {
    let name = percent_encode(path.as_os_str().as_encoded_bytes(), PATH);
    open(Path::new(&format!("file:{name}?immutable=1")), OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI)
}

/// Copies the file and the journals beside it, and lets SQLite put the copy in order.
fn look_at_copy(path: &Path, sql: &str, until: Instant) -> rusqlite::Result<Vec<Rows>> {
    let (_folder, copy) = copy(path).map_err(|error| {
        rusqlite::Error::SqliteFailure(
            ffi::Error::new(ffi::SQLITE_IOERR),
            Some(format!("its last writer was killed, and no copy to recover can be made: {error}")),
        )
    })?;
    execute(&mut open(&copy, OpenFlags::SQLITE_OPEN_READ_WRITE)?, sql, until)
}

/// The journal goes first: rolling back with it mends any mixture of old and new pages.
fn copy(path: &Path) -> std::io::Result<(TempDir, PathBuf)> {
    let folder = tempfile::tempdir()?;
    let copy = folder.path().join("copy");
    for suffix in ["-journal", "-wal", ""] {
        match File::open(beside(path, suffix)) {
            Ok(mut from) => std::io::copy(&mut from, &mut File::create(beside(&copy, suffix))?)?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
    }
    Ok((folder, copy))
}

/// Whether the header says that the file is in WAL mode.
fn is_wal(path: &Path) -> bool {
    let mut header = [0; 20];
    File::open(path).and_then(|mut file| file.read_exact(&mut header)).is_ok() && header[18..] == [2, 2]
}

/// Length and time of the file and its journals: what changes when somebody writes.
fn stamp(path: &Path) -> Vec<Option<(u64, SystemTime)>> {
    ["", "-journal", "-wal"]
        .map(|suffix| fs::metadata(beside(path, suffix)).and_then(|about| Ok((about.len(), about.modified()?))).ok())
        .into()
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// What a read-only connection says of a file that must be recovered first.
fn must_recover(error: &rusqlite::Error) -> bool {
    let code = error.sqlite_error().map(|error| error.extended_code);
    matches!(code, Some(ffi::SQLITE_READONLY_ROLLBACK | ffi::SQLITE_READONLY_RECOVERY | ffi::SQLITE_READONLY_CANTINIT))
}

fn failed(path: &Path, error: rusqlite::Error) -> SqlError {
    let (code, message) = match error {
        rusqlite::Error::SqliteFailure(code, message) => (code, message.unwrap_or_else(|| code.to_string())),
        rusqlite::Error::SqlInputError { error, msg, .. } => (error, msg),
        other => return SqlError::new(SqlErrorKind::Other, format!("{}: {other}", path.display())),
    };
    SqlError::new(kind(code, &message), format!("{}: {message}", path.display()))
}

fn kind(error: ffi::Error, message: &str) -> SqlErrorKind {
    match (error.code, error.extended_code) {
        (ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked, _) => SqlErrorKind::Locked,
        (ErrorCode::OperationInterrupted, _) => SqlErrorKind::Lost,
        (ErrorCode::ReadOnly | ErrorCode::PermissionDenied, _) => SqlErrorKind::ReadOnly,
        (ErrorCode::DiskFull, _) => SqlErrorKind::Full,
        (ErrorCode::CannotOpen, _) => SqlErrorKind::Unreachable,
        (_, ffi::SQLITE_CONSTRAINT_PRIMARYKEY | ffi::SQLITE_CONSTRAINT_UNIQUE | ffi::SQLITE_CONSTRAINT_ROWID) => {
            SqlErrorKind::Duplicate
        }
        // SQLite gives these no code of their own.
        _ if message.starts_with("no such table") => SqlErrorKind::NoTable,
        _ if message.starts_with("no such column") || message.contains(" has no column named ") => {
            SqlErrorKind::NoColumn
        }
        _ => SqlErrorKind::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(sql: &str) -> Result<Vec<Rows>, SqlError> {
        let mut connection = Connection::open_in_memory().unwrap();
        execute(&mut connection, sql, Instant::now() + Duration::from_secs(10))
            .map_err(|error| failed(Path::new("db"), error))
    }

    #[test]
    fn values_are_text_as_sqlite_prints_it() {
        for (sql, expected) in [
            ("NULL", None),
            ("-9223372036854775808", Some("-9223372036854775808")),
            ("1.0", Some("1.0")),
            ("1.5", Some("1.5")),
            ("1e100", Some("1.0e+100")),
            ("'it''s \u{e9}'", Some("it's \u{e9}")),
            ("x'61ff'", Some("a\u{fffd}")),
        ] {
            let answer = rows(&format!("SELECT {sql}")).unwrap();
            assert_eq!((answer[0].len(), answer[0].get(0, 0)), (1, expected), "{sql}");
        }
    }

    #[test]
    fn errors_become_kinds() {
        let schema = "CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT UNIQUE, other TEXT NOT NULL DEFAULT ''); ";
        for (sql, expected) in [
            ("SELECT * FROM nobody", SqlErrorKind::NoTable),
            ("INSERT INTO nobody VALUES (1)", SqlErrorKind::NoTable),
            ("SELECT missing FROM t", SqlErrorKind::NoColumn),
            ("INSERT INTO t (missing) VALUES (1)", SqlErrorKind::NoColumn),
            ("INSERT INTO t (id) VALUES (1); INSERT INTO t (id) VALUES (1)", SqlErrorKind::Duplicate),
            ("INSERT INTO t (name) VALUES ('a'); INSERT INTO t (name) VALUES ('a')", SqlErrorKind::Duplicate),
            ("INSERT INTO t (other) VALUES (NULL)", SqlErrorKind::Other),
            ("SELEC 1", SqlErrorKind::Other),
        ] {
            let error = rows(&format!("{schema}{sql}")).unwrap_err();
            assert_eq!(error.kind, expected, "{sql}: {error}");
        }
    }

    #[test]
    fn only_statements_with_columns_give_rows() {
        let sql = "CREATE TABLE t (a); SELECT a FROM t; INSERT INTO t VALUES (1), (2); -- a comment\n SELECT a FROM t;";
        let answer = rows(sql).unwrap();
        let values: Vec<Vec<_>> = answer.iter().map(|rows| rows.values().collect()).collect();
        assert_eq!(values, [vec![], vec![Some("1"), Some("2")]]);
    }
}
