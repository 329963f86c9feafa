//! The SQLite session on real files, in every state that another program leaves them in.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "the helpers of a test fail by panicking")]

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rusqlite::Connection;
use tempfile::TempDir;
use unstuck::adapters::flock::{FileLock, holder};
use unstuck::adapters::sqlite::{self, Access, identity, is_missing};
use unstuck::ports::{Rows, Session, SqlError, SqlErrorKind};
use unstuck::rails::{Database, Engine};

const DEADLINE: Duration = Duration::from_secs(30);
const SHORT: Duration = Duration::from_millis(200);

#[test]
fn a_missing_file_is_not_made() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("production.sqlite3");
    for access in [Access::Read, Access::Write] {
        let error = sqlite::connect(&database(&path), access).unwrap_err();
        assert_eq!(error.kind, SqlErrorKind::Unreachable);
        assert!(error.message.contains("production.sqlite3"), "{error}");
    }
    assert!(is_missing(&database(&path)));
    assert_eq!(listing(folder.path()), Vec::<String>::new());
    fs::write(&path, "").unwrap();
    assert!(!is_missing(&database(&path)));
    assert_eq!(look(&path, "SELECT COUNT(*) FROM sqlite_master"), Ok(rows(&["0"])));
    assert_eq!(look(&path, "CREATE TABLE t (a)").unwrap_err().kind, SqlErrorKind::ReadOnly);
    assert_eq!(fs::metadata(&path).unwrap().len(), 0);
}

#[test]
fn a_writer_keeps_its_transaction_over_several_messages() {
    let file = File::with("CREATE TABLE t (a)");
    let mut session = sqlite::connect(&database(&file.path), Access::Write).unwrap();
    session.run("BEGIN IMMEDIATE; INSERT INTO t VALUES (1)", DEADLINE).unwrap();
    let mut second = sqlite::connect(&database(&file.path), Access::Write).unwrap();
    assert_eq!(second.run("INSERT INTO t VALUES (2)", SHORT).unwrap_err().kind, SqlErrorKind::Locked);
    session.run("COMMIT", DEADLINE).unwrap();
    second.run("INSERT INTO t VALUES (2)", DEADLINE).unwrap();
    assert_eq!(look(&file.path, "SELECT a FROM t").unwrap(), rows(&["1", "2"]));
}

#[test]
fn a_locked_file_and_an_endless_statement_end_by_the_deadline() {
    let file = File::with("CREATE TABLE t (a)");
    let other = Connection::open(&file.path).unwrap();
    other.execute_batch("BEGIN EXCLUSIVE").unwrap();
    let mut session = sqlite::connect(&database(&file.path), Access::Read).unwrap();
    let error = session.run("SELECT a FROM t", SHORT).unwrap_err();
    assert_eq!(error.kind, SqlErrorKind::Locked, "{error}");
    other.execute_batch("COMMIT").unwrap();
    assert_eq!(session.run("SELECT a FROM t", DEADLINE).unwrap(), rows(&[]), "a busy file is not a lost one");

    let endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT MAX(i) FROM n";
    let error = session.run(endless, SHORT).unwrap_err();
    assert_eq!(error.kind, SqlErrorKind::Lost, "{error}");
    assert_eq!(session.run("SELECT 1", DEADLINE), Err(error), "it stays lost");
}

#[test]
fn looking_at_a_wal_file_leaves_nothing_beside_it() {
    let file = File::with("PRAGMA journal_mode = WAL; CREATE TABLE t (a); INSERT INTO t VALUES (1)");
    assert_eq!(file.listing(), ["db?1 #%.sqlite3"]);
    file.looks_the_same_after(|| {
        assert_eq!(look(&file.path, "SELECT a FROM t").unwrap(), rows(&["1"]));
    });

    // One session sees what others write, while they have the file open and after it.
    let mut session = sqlite::connect(&database(&file.path), Access::Read).unwrap();
    assert_eq!(session.run("SELECT a FROM t", DEADLINE).unwrap(), rows(&["1"]));
    let other = Connection::open(&file.path).unwrap();
    other.execute_batch("INSERT INTO t VALUES (2)").unwrap();
    assert_eq!(session.run("SELECT a FROM t", DEADLINE).unwrap(), rows(&["1", "2"]));
    other.execute_batch("BEGIN IMMEDIATE; INSERT INTO t VALUES (3)").unwrap();
    assert_eq!(session.run("SELECT a FROM t", SHORT).unwrap(), rows(&["1", "2"]), "a writer does not block it");
    other.execute_batch("COMMIT").unwrap();
    other.close().unwrap();
    assert_eq!(session.run("SELECT a FROM t", DEADLINE).unwrap(), rows(&["1", "2", "3"]));

    assert_eq!(session.run("INSERT INTO t VALUES (4)", DEADLINE).unwrap_err().kind, SqlErrorKind::ReadOnly);
}

#[test]
fn looking_at_files_of_a_killed_writer_sees_what_was_committed_and_changes_nothing() {
    for mode in ["DELETE", "WAL"] {
        let file = File::with(&format!("PRAGMA journal_mode = {mode}; CREATE TABLE t (a); INSERT INTO t VALUES (1)"));
        // So small a cache makes SQLite write pages of the open transaction into the file.
        file.kill_after(
            "PRAGMA cache_size = 1; PRAGMA wal_autocheckpoint = 0; INSERT INTO t VALUES (2); BEGIN; \
             WITH RECURSIVE n(i) AS (SELECT 3 UNION ALL SELECT i + 1 FROM n WHERE i < 50000) INSERT INTO t SELECT i FROM n;",
        );
        if mode == "WAL" {
            // As in a copy of the two files, made without the index.
            fs::remove_file(file.beside("-shm")).unwrap();
        } else {
            let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
            let plain = Connection::open_with_flags(&file.path, flags).unwrap();
            plain.query_row("SELECT COUNT(*) FROM t", [], |_| Ok(())).expect_err("the journal is hot");
        }
        file.looks_the_same_after(|| {
            let sql = "SELECT a FROM t WHERE a < 100";
            assert_eq!(look(&file.path, sql).unwrap(), rows(&["1", "2"]), "{mode}");
        });
        // A writer puts the file itself in order.
        let mut writer = sqlite::connect(&database(&file.path), Access::Write).unwrap();
        assert_eq!(writer.run("SELECT COUNT(*) FROM t", DEADLINE).unwrap(), rows(&["2"]), "{mode}");
    }
}

#[test]
fn a_file_that_nobody_may_write_can_be_looked_at() {
    for mode in ["DELETE", "WAL"] {
        let file = File::with(&format!("PRAGMA journal_mode = {mode}; CREATE TABLE t (a); INSERT INTO t VALUES (1)"));
        fs::set_permissions(&file.path, fs::Permissions::from_mode(0o444)).unwrap();
        fs::set_permissions(file.folder.path(), fs::Permissions::from_mode(0o555)).unwrap();
        file.looks_the_same_after(|| assert_eq!(look(&file.path, "SELECT a FROM t").unwrap(), rows(&["1"]), "{mode}"));
        fs::set_permissions(file.folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    }
}

#[test]
fn what_is_no_database_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let text = folder.path().join("text");
    fs::write(&text, "not a database, but long enough to be one ".repeat(100)).unwrap();
    assert_eq!(look(&text, "SELECT 1 FROM sqlite_master").unwrap_err().kind, SqlErrorKind::Other);
    assert_eq!(look(folder.path(), "SELECT 1 FROM sqlite_master").unwrap_err().kind, SqlErrorKind::Unreachable);
}

#[test]
fn a_file_has_one_identity_by_whatever_path() {
    let file = File::with("CREATE TABLE t (a)");
    let link = file.folder.path().join("link");
    symlink(&file.path, &link).unwrap();
    let real = file.path.canonicalize().unwrap();
    let roundabout = file.folder.path().join("../").join(file.folder.path().file_name().unwrap()).join("link");
    for path in [&file.path, &link, &roundabout] {
        assert_eq!(identity(&database(path)), real, "{}", path.display());
    }
    let later = file.folder.path().join("later");
    assert_eq!(identity(&database(&later)), file.folder.path().canonicalize().unwrap().join("later"));
}

#[test]
fn a_file_lock_lives_as_long_as_a_holder_of_its_descriptor() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("db-unstuck.lock");
    assert_eq!(holder(&path), None);
    let lock = FileLock::try_acquire(&path, "run 1 on web.1\nand more").unwrap().unwrap();
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    assert!(FileLock::try_acquire(&path, "run 2").unwrap().is_none());
    assert_eq!(holder(&path).as_deref(), Some("run 1 on web.1"));

    // A child that does not inherit it does not keep it; one that does keeps it after we let go.
    let mut bystander = Command::new("sleep").arg("120").spawn().unwrap();
    let mut heir = sleeping_with(lock.fd());
    drop(lock);
    assert!(FileLock::try_acquire(&path, "run 2").unwrap().is_none());
    assert_eq!(holder(&path).as_deref(), Some("run 1 on web.1"));
    heir.kill().unwrap();
    heir.wait().unwrap();
    let lock = FileLock::try_acquire(&path, "run 2").unwrap().expect("the bystander holds nothing");
    assert_eq!(holder(&path).as_deref(), Some("run 2"));
    drop(lock);
    bystander.kill().unwrap();
    bystander.wait().unwrap();
}

#[test]
fn a_file_lock_follows_no_link_and_says_where_it_cannot_be() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("target");
    let link = folder.path().join("link");
    fs::write(&target, "precious").unwrap();
    symlink(&target, &link).unwrap();
    let error = FileLock::try_acquire(&link, "me").unwrap_err();
    assert!(error.hint.as_deref().unwrap().contains("symbolic link"), "{error}");
    assert_eq!(holder(&link), None);
    assert_eq!(fs::read_to_string(&target).unwrap(), "precious");

    let nowhere = folder.path().join("no/such/folder.lock");
    let error = FileLock::try_acquire(&nowhere, "me").unwrap_err();
    assert!(error.message.contains("no/such/folder.lock"), "{error}");
}

fn database(path: &Path) -> Database {
    Database {
        name: "primary".to_owned(),
        engine: Engine::Sqlite,
        adapter: "sqlite3".to_owned(),
        host: None,
        port: None,
        socket: None,
        database: Some(path.to_str().unwrap().to_owned()),
        username: None,
        password: None,
        options: BTreeMap::new(),
        migrations_paths: vec!["db/migrate".to_owned()],
        schema_migrations_table: "schema_migrations".to_owned(),
        metadata_table: None,
        from: "config/database.yml:1".to_owned(),
    }
}

fn look(path: &Path, sql: &str) -> Result<Vec<Rows>, SqlError> {
    sqlite::connect(&database(path), Access::Read)?.run(sql, DEADLINE)
}

/// One result of one column.
fn rows(values: &[&str]) -> Vec<Rows> {
    let mut rows = Rows::new(1);
    for value in values {
        rows.push(Some(value));
    }
    vec![rows]
}

fn listing(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.collect();
    names.sort();
    names
}

fn sleeping_with(fd: BorrowedFd<'_>) -> Child {
    let fd = fd.as_raw_fd();
    let mut command = Command::new("sleep");
    command.arg("120");
    // SAFETY: fcntl may be called between fork and exec, and the descriptor is open.
    unsafe {
        command.pre_exec(move || match libc::fcntl(fd, libc::F_SETFD, 0) {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        });
    }
    command.spawn().unwrap()
}

/// A database file, with a name that a `file:` address must quote, alone in its folder.
struct File {
    path: PathBuf,
    folder: TempDir,
}

impl File {
    fn with(sql: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("db?1 #%.sqlite3");
        Connection::open(&path).unwrap().execute_batch(sql).unwrap();
        Self { path, folder }
    }

    fn listing(&self) -> Vec<String> {
        listing(self.folder.path())
    }

    fn beside(&self, suffix: &str) -> PathBuf {
        PathBuf::from(format!("{}{suffix}", self.path.display()))
    }

    /// Runs `sql` in the stock shell and kills it in the open transaction.
    fn kill_after(&self, sql: &str) {
        let mut shell =
            Command::new("sqlite3").arg(&self.path).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut input = shell.stdin.take().unwrap();
        writeln!(input, "{sql}\nSELECT 'rea' || 'dy';").unwrap();
        let mut lines = BufReader::new(shell.stdout.take().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap() == "ready"), "the shell ended: {sql}");
        shell.kill().unwrap();
        shell.wait().unwrap();
    }

    /// Neither the files nor one byte of them are changed by `look`.
    fn looks_the_same_after(&self, look: impl FnOnce()) {
        let contents = || {
            self.listing()
                .into_iter()
                .map(|name| (fs::read(self.folder.path().join(&name)).unwrap(), name))
                .collect::<Vec<_>>()
        };
        let before = contents();
        look();
        assert!(contents() == before, "files or bytes have changed: {:?}", self.listing());
    }
}
