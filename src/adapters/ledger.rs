//! The debt in the application's own database: the SQL behind [`Database`], for all three engines.
//!
//! Engines differ by text alone, which stands in the functions at the bottom. Debt and schema share one commit order: in every
//! prefix of the database's history that contains a migration, the record that was written before it is there too.

use std::fs::File;
use std::os::fd::{AsRawFd, RawFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::adapters::flock::{self, FileLock};
use crate::adapters::sqlite;
use crate::debt::{Digest, Entry, Epoch, Home, KEY_PREFIX, LONGEST_VALUE, Records, hex};
use crate::migrations::{self, Version};
use crate::ports::{Database, Lock, Look, Rows, Session, Settlement, SqlError, SqlErrorKind};
use crate::rails::{self, Engine};

/// The second home of the records, where Rails' table cannot be had.
const OWN_TABLE: &str = "unstuck_debt";

/// Our place in PostgreSQL's space of two-integer advisory locks, which cannot meet Rails' single bigint. ("unst", 1)
const LOCK_CLASS: u32 = 0x756e_7374;
const LOCK_OBJECT: u32 = 1;

/// What Rails multiplies the database name's checksum with to get its own migration lock.
pub(super) const RAILS_SALT: u64 = 2_053_462_845;

/// A lost connection is opened again for this long before it is given up: a fail-over takes its time.
const REVIVAL: Duration = Duration::from_secs(30);

/// The longest pause between two attempts. A server that merely has to notice the end of the old session needs less.
const REVIVAL_PAUSE: Duration = Duration::from_millis(500);

/// One statement of ours takes milliseconds; a server that needs longer than this is gone.
const STATEMENT: Duration = Duration::from_secs(30);

/// Opens a session: the first time, and again when it was lost. SQLite has to know whether it will be written to.
pub type Connect = Box<dyn FnMut(sqlite::Access) -> Result<Box<dyn Session>, SqlError>>;

/// One database with its records and its run lock.
pub struct Ledger {
    config: rails::Database,
    connect: Connect,
    session: Option<Box<dyn Session>>,
    access: sqlite::Access,
    /// SQLite has no session lock: a lock file beside the database stands in for it.
    file_lock: Option<FileLock>,
    locked: bool,
    /// The server did not come back when it was last waited for: from then on it is tried, not waited for.
    given_up: bool,
    /// Which tables are there, since the last look.
    tables: Tables,
    /// The database's name as the server knows it, from which Rails derives its lock.
    database: String,
}

#[derive(Debug, Clone, Copy, Default)]
struct Tables {
    versions: bool,
    metadata: bool,
    own: bool,
}

impl Ledger {
    pub fn new(config: rails::Database, connect: Connect) -> Self {
        Self {
            config,
            connect,
            session: None,
            access: sqlite::Access::Read,
            file_lock: None,
            locked: false,
            given_up: false,
            tables: Tables::default(),
            database: String::new(),
        }
    }

    /// Sends `sql`; connects first where there is no session, unless the run lock went with it. No second attempt.
    fn send(&mut self, sql: &str) -> Result<Vec<Rows>, SqlError> {
        if self.session.is_none() && !self.lock_is_in_server() {
            self.session = Some((self.connect)(self.access)?);
        }
        let Some(session) = self.session.as_mut() else { return Err(lost("the connection is gone")) };
        let answer = session.run(sql, STATEMENT);
        if answer.as_ref().is_err_and(|error| error.kind == SqlErrorKind::Lost) {
            self.session = None;
        }
        answer
    }

    /// Does `deed`, and once more on a new connection when the first was lost under it. Every deed can be repeated.
    fn surely<T>(&mut self, deed: impl Fn(&mut Self) -> Result<T, SqlError>) -> Result<T, SqlError> {
        match deed(self) {
            Err(error) if error.kind == SqlErrorKind::Lost => {
                self.revive()?;
                deed(self)
            }
            answer => answer,
        }
    }

    /// Opens a new connection, and takes the run lock again if we held it: for a while, since the server may not have
    /// noticed yet that the old connection is gone. A password that is not accepted any more will not be.
    fn revive(&mut self) -> Result<(), SqlError> {
        let deadline = Instant::now() + if self.given_up { Duration::ZERO } else { REVIVAL };
        let mut pause = Duration::from_millis(10);
        loop {
            match self.reconnect() {
                Err(error) if error.kind != SqlErrorKind::Denied && Instant::now() < deadline => {
                    std::thread::sleep(pause);
                    pause = (pause * 2).min(REVIVAL_PAUSE);
                }
                answer => {
                    self.given_up = answer.is_err();
                    return answer;
                }
            }
        }
    }

    /// The same, tried once. A session that has not got our lock back is not kept: nothing may be done with it.
    fn reconnect(&mut self) -> Result<(), SqlError> {
        self.session = Some((self.connect)(self.access)?);
        if !self.lock_is_in_server() {
            return Ok(());
        }
        let answer = self.lock_in_server().and_then(|lock| match lock {
            Lock::Taken => Ok(()),
            Lock::Held(who) => Err(lost(&format!("the run lock was lost with the connection, and {who} holds it now"))),
        });
        answer.inspect_err(|_| self.session = None)
    }

    /// Whether we hold a run lock that lives and dies with a session.
    fn lock_is_in_server(&self) -> bool {
        self.locked && self.config.engine != Engine::Sqlite
    }

    fn lock_in_server(&mut self) -> Result<Lock, SqlError> {
        let taken = self.send(&sql::take_lock(self.config.engine))?;
        if cell(&taken, 0, 0, 0).is_some_and(truth) {
            return Ok(Lock::Taken);
        }
        let holder = self.send(&sql::lock_holder(self.config.engine))?;
        Ok(Lock::Held(cell(&holder, 0, 0, 0).unwrap_or("another run").to_owned()))
    }

    /// Who migrates now, for people: whoever holds the run lock, and every session of [`Database::migrating`]. Asked after a
    /// look. Takes nothing and writes nothing.
    pub fn at_work(&mut self) -> Result<Vec<String>, SqlError> {
        if self.config.engine == Engine::Sqlite {
            let path = self.lock_path();
            let name = || flock::holder(&path).unwrap_or_else(|| "another run".into());
            return Ok(flock::is_held(&path).then(name).into_iter().collect());
        }
        let holder = self.surely(|ledger| ledger.send(&sql::lock_holder(ledger.config.engine)))?;
        let mut who: Vec<String> = holder.iter().flat_map(|rows| rows.column(0)).flatten().map(str::to_owned).collect();
        who.extend(self.migrating()?);
        Ok(who)
    }

    /// The file whose lock stands in for a session lock.
    fn lock_path(&self) -> PathBuf {
        let mut path = sqlite::identity(&self.config).into_os_string();
        path.push("-unstuck.lock");
        path.into()
    }

    fn lock_file(&mut self) -> Result<Lock, SqlError> {
        let path = &self.lock_path();
        let by = format!("process {} on {}", std::process::id(), host_name());
        match FileLock::try_acquire(path, &by) {
            Ok(Some(lock)) => {
                self.file_lock = Some(lock);
                Ok(Lock::Taken)
            }
            Ok(None) => Ok(Lock::Held(flock::holder(path).unwrap_or_else(|| "another run".into()))),
            Err(error) => Err(SqlError { kind: SqlErrorKind::ReadOnly, message: error.to_string(), hint: error.hint }),
        }
    }

    /// From now on this session writes. A file that is missing is made, as Rails would.
    fn for_writing(&mut self) -> Result<(), SqlError> {
        if self.config.engine != Engine::Sqlite || self.access == sqlite::Access::Write {
            return Ok(());
        }
        if sqlite::is_missing(&self.config) {
            let path = self.config.database.as_deref().unwrap_or_default();
            File::create_new(path)
                .map_err(|error| SqlError::new(SqlErrorKind::ReadOnly, format!("cannot create {path}: {error}")))?;
        }
        self.access = sqlite::Access::Write;
        self.session = None;
        Ok(())
    }

    fn metadata_table(&self) -> &str {
        self.config.metadata_table.as_deref().unwrap_or_default()
    }

    /// The quoted name of a home's table.
    fn table(&self, home: Home) -> String {
        match home {
            Home::Metadata => sql::name(self.config.engine, self.metadata_table()),
            Home::Own => sql::name(self.config.engine, OWN_TABLE),
        }
    }

    /// Where new records go.
    fn home(&self) -> Home {
        if self.tables.metadata { Home::Metadata } else { Home::Own }
    }

    fn begin(&self, how: &str) -> String {
        let path = self.config.options.get("schema_search_path").filter(|_| self.config.engine == Engine::Postgresql);
        format!("{how}; {}", path.map_or(String::new(), |path| format!("set local search_path to {path}; ")))
    }

    fn select_versions(&self) -> String {
        format!("select version from {}; ", sql::name(self.config.engine, &self.config.schema_migrations_table))
    }

    fn select_records(&self, home: Home) -> String {
        sql::select_records(self.config.engine, &self.table(home))
    }

    /// One round, if both of Rails' tables are there and ours is not: nearly always.
    fn look_at_once(&mut self) -> Result<Look, SqlError> {
        let engine = self.config.engine;
        let sql = self.begin(sql::begin_read(engine))
            + &sql::head(engine, OWN_TABLE, self.locked)
            + &self.select_versions()
            + &self.select_records(Home::Metadata)
            + "commit";
        let answer = self.send(&sql)?;
        if cell(&answer, 0, 0, 4).is_some_and(truth) {
            return self.look_around();
        }
        self.tables = Tables { versions: true, metadata: true, own: false };
        Ok(self.read(&answer, &answer[1..], &[Home::Metadata]))
    }

    /// Two rounds: first which tables there are, then what they hold, in one snapshot.
    fn look_around(&mut self) -> Result<Look, SqlError> {
        let engine = self.config.engine;
        let exists = sql::exists(engine, &[&self.config.schema_migrations_table, self.metadata_table(), OWN_TABLE]);
        self.take_back();
        let begin = self.begin(sql::begin_read(engine));
        let head = self.send(&(begin.clone() + &sql::head(engine, OWN_TABLE, self.locked) + &exists + "commit"))?;
        let there = |column| cell(&head, 1, 0, column).is_some_and(truth);
        self.tables =
            Tables { versions: there(0), metadata: there(1) && self.config.metadata_table.is_some(), own: there(2) };

        let mut homes = Vec::new();
        let mut sql = begin + &if self.tables.versions { self.select_versions() } else { sql::NO_VERSIONS.to_owned() };
        for (home, there) in [(Home::Metadata, self.tables.metadata), (Home::Own, self.tables.own)] {
            if there {
                sql += &self.select_records(home);
                homes.push(home);
            }
        }
        let answer = self.send(&(sql + "commit"))?;
        Ok(self.read(&head, &answer, &homes))
    }

    /// Makes a look out of the first answer's head and the versions and records that follow.
    fn read(&mut self, head: &[Rows], answer: &[Rows], homes: &[Home]) -> Look {
        let text = |column| cell(head, 0, 0, column).unwrap_or_default();
        let handshake = self.session.as_ref().and_then(|session| session.handshake_id());
        let look = Look {
            applied: versions(answer),
            records: Records::new(
                homes
                    .iter()
                    .zip(answer.iter().skip(1))
                    .flat_map(|(home, rows)| (0..rows.len()).filter_map(|row| entry(*home, rows, row)))
                    .collect(),
            ),
            epoch: Epoch(text(2).to_owned()),
            read_only: truth(text(1)),
            pooled: handshake.is_some_and(|id| id.to_string() != text(0)),
        };
        text(3).clone_into(&mut self.database);
        look
    }

    /// Sends `sql` inside a transaction and takes it back if a part of it fails.
    fn transact(&mut self, sql: &str) -> Result<Vec<Rows>, SqlError> {
        let begin = self.begin(sql::begin_write(self.config.engine));
        self.send(&format!("{begin}{sql}commit")).inspect_err(|_| self.take_back())
    }

    fn take_back(&mut self) {
        if self.session.is_some() {
            // Nothing depends on it: a connection that cannot roll back is lost, and the next statement says so.
            let _ = self.send("rollback");
        }
    }

    /// Does `deed` in Rails' table; where that cannot be written, or was dropped by the migration itself, in ours.
    fn in_a_home<T>(&mut self, deed: impl Fn(&mut Self, Home) -> Result<T, SqlError>) -> Result<T, SqlError> {
        let home = self.home();
        match deed(self, home) {
            Err(error)
                if home == Home::Metadata && matches!(error.kind, SqlErrorKind::NoTable | SqlErrorKind::ReadOnly) =>
            {
                deed(self, Home::Own).map_err(|_| error)
            }
            answer => answer,
        }
    }

    /// Both transactions go in one message: the second one reads what the first one has committed.
    fn write_into(&mut self, home: Home, key: &str, value: &str) -> Result<(), SqlError> {
        let engine = self.config.engine;
        let table = self.table(home);
        self.make(home)?;
        let write = self.begin(sql::begin_write(engine)) + &sql::upsert(engine, &table, key, value) + "commit; ";
        let read_back = self.begin(sql::begin_read(engine)) + &sql::select_value(engine, &table, key) + "commit";
        let answer = self.send(&(write + &read_back)).inspect_err(|_| self.take_back())?;
        if cell(&answer, 0, 0, 0) == Some(value) {
            return Ok(());
        }
        let message = format!("the record in {table} was not kept as it was written");
        Err(SqlError { kind: SqlErrorKind::Other, message, hint: None })
    }

    /// Our own table is made when it is needed.
    fn make(&mut self, home: Home) -> Result<(), SqlError> {
        if home == Home::Own {
            self.transact(&sql::create_own(self.config.engine, &self.table(home)))?;
            self.tables.own = true;
        }
        Ok(())
    }

    fn homes(&self) -> impl Iterator<Item = Home> + use<> {
        let Tables { metadata, own, .. } = self.tables;
        [(Home::Metadata, metadata), (Home::Own, own)].into_iter().filter_map(|(home, there)| there.then_some(home))
    }

    /// Our own table would show up in a schema dump, so it goes as soon as it is empty. One that has to stay is no failure:
    /// what it held is settled already.
    fn drop_own_if_empty(&mut self) {
        if !self.tables.own {
            return;
        }
        match self.surely(Self::drop_own) {
            Ok(dropped) => self.tables.own = !dropped,
            Err(error) => {
                self.take_back();
                // The answer to the first attempt was lost.
                self.tables.own = error.kind != SqlErrorKind::NoTable;
            }
        }
    }

    /// Whether it was empty, and is gone.
    fn drop_own(&mut self) -> Result<bool, SqlError> {
        let table = self.table(Home::Own);
        let left = self.send(
            &(self.begin(sql::begin_read(self.config.engine)) + &format!("select count(*) from {table}; commit")),
        )?;
        let empty = cell(&left, 0, 0, 0) == Some("0");
        if empty {
            self.transact(&format!("drop table {table}; "))?;
        }
        Ok(empty)
    }

    fn settle_once(&mut self, settlement: &Settlement, home: Home) -> Result<bool, SqlError> {
        let engine = self.config.engine;
        let begin = self.begin(sql::begin_write(engine));
        let select = if self.tables.versions { self.select_versions() } else { sql::NO_VERSIONS.to_owned() };
        let answer = self.send(&(begin + &select))?;
        if Digest::of(&versions(&answer)) != settlement.expected {
            self.send("rollback")?;
            return Ok(false);
        }
        let (key, value) = &settlement.proof;
        let mut sql = String::new();
        for row in &settlement.gone {
            sql += &sql::delete(engine, &self.table(row.home), &row.key, Some(&row.value));
        }
        for (row, value) in &settlement.kept {
            sql += &sql::update(engine, &self.table(row.home), &row.key, &row.value, value);
        }
        if home == Home::Metadata && self.tables.own {
            sql += &sql::delete(engine, &self.table(Home::Own), key, None);
        }
        sql += &sql::upsert(engine, &self.table(home), key, value);
        self.send(&(sql + "commit"))?;
        Ok(true)
    }
}

impl Database for Ledger {
    fn look(&mut self) -> Result<Look, SqlError> {
        if self.config.engine == Engine::Sqlite && sqlite::is_missing(&self.config) {
            return Ok(Look {
                applied: Vec::new(),
                records: Records::default(),
                epoch: Epoch("-".into()),
                read_only: false,
                pooled: false,
            });
        }
        self.surely(|ledger| {
            if ledger.config.metadata_table.is_none() {
                return ledger.look_around();
            }
            match ledger.look_at_once() {
                Err(error) if error.kind == SqlErrorKind::NoTable => ledger.look_around(),
                answer => answer,
            }
        })
        .inspect_err(|_| self.take_back())
    }

    fn try_lock(&mut self) -> Result<Lock, SqlError> {
        if self.locked {
            return Ok(Lock::Taken);
        }
        let lock = match self.config.engine {
            Engine::Sqlite => self.lock_file()?,
            Engine::Postgresql | Engine::Mysql => self.surely(Self::lock_in_server)?,
        };
        self.locked = lock == Lock::Taken;
        Ok(lock)
    }

    fn write(&mut self, key: &str, value: &str) -> Result<(), SqlError> {
        if key.len() > LONGEST_VALUE || value.len() > LONGEST_VALUE {
            let message = format!("the record does not fit {LONGEST_VALUE} characters");
            return Err(SqlError { kind: SqlErrorKind::Other, message, hint: None });
        }
        self.for_writing()?;
        self.surely(|ledger| ledger.in_a_home(|ledger, home| ledger.write_into(home, key, value)))
            .inspect_err(|_| self.take_back())
    }

    fn erase(&mut self, key: &str) -> Result<(), SqlError> {
        self.for_writing()?;
        self.surely(|ledger| {
            for home in ledger.homes() {
                let sql = sql::delete(ledger.config.engine, &ledger.table(home), key, None);
                match ledger.transact(&sql) {
                    // A table that we may not write to holds nothing of ours: the record is in the other one.
                    Err(error) if error.kind == SqlErrorKind::ReadOnly && ledger.tables.own => {}
                    answer => drop(answer?),
                }
            }
            Ok(())
        })?;
        self.drop_own_if_empty();
        Ok(())
    }

    fn touch(&mut self, key: &str, value: &str) -> Result<(), SqlError> {
        if self.config.engine == Engine::Sqlite {
            // The lock file shows that we live; a write would stand in the migration's way.
            return Ok(());
        }
        if self.session.is_none() {
            // The connection went while the migration runs: the lock is taken again as soon as it can be, but not waited for.
            self.reconnect()?;
        }
        let sql = sql::upsert(self.config.engine, &self.table(self.home()), key, value);
        self.transact(&sql).map(drop)
    }

    fn settle(&mut self, settlement: &Settlement) -> Result<bool, SqlError> {
        self.for_writing()?;
        let done = self.surely(|ledger| {
            ledger.in_a_home(|ledger, home| {
                ledger.make(home)?;
                ledger.settle_once(settlement, home).inspect_err(|_| ledger.take_back())
            })
        })?;
        self.drop_own_if_empty();
        Ok(done)
    }

    fn catalogue(&mut self) -> Result<String, SqlError> {
        let skip =
            [self.config.schema_migrations_table.clone(), self.metadata_table().to_owned(), OWN_TABLE.to_owned()];
        let sql =
            self.begin(sql::begin_read(self.config.engine)) + &sql::catalogue(self.config.engine, &skip) + "commit";
        let answer = self.surely(|ledger| ledger.send(&sql))?;
        Ok(answer.iter().flat_map(Rows::values).map(|value| value.unwrap_or("-")).collect::<Vec<_>>().join("/"))
    }

    fn migrating(&mut self) -> Result<Vec<String>, SqlError> {
        let key = RAILS_SALT * u64::from(crc32fast::hash(self.database.as_bytes()));
        let sql = sql::migrating(self.config.engine, key);
        if sql.is_empty() {
            return Ok(Vec::new());
        }
        let answer = self.surely(|ledger| ledger.send(&sql))?;
        Ok(answer.iter().flat_map(|rows| rows.column(0)).flatten().map(str::to_owned).collect())
    }

    fn lock_fd(&self) -> Option<RawFd> {
        match &self.file_lock {
            Some(lock) => Some(lock.fd().as_raw_fd()),
            None => self.session.as_ref()?.socket().map(|socket| socket.as_raw_fd()),
        }
    }

    fn abandon(&mut self) {
        if let Some(session) = self.session.take() {
            session.abandon();
        }
        // From now on the lock in a server is the child's.
        self.locked = self.file_lock.is_some();
    }
}

fn lost(how: &str) -> SqlError {
    SqlError::new(SqlErrorKind::Lost, how)
}

fn cell(answer: &[Rows], set: usize, row: usize, column: usize) -> Option<&str> {
    answer.get(set)?.get(row, column)
}

/// The versions that the first statement selected. A NULL, which only a table made by hand can hold, is a zero to Rails.
fn versions(answer: &[Rows]) -> Vec<Version> {
    let rows = answer.iter().take(1);
    migrations::applied(rows.flat_map(|rows| rows.column(0)).map(Option::unwrap_or_default))
}

/// A truth value as each engine prints it.
fn truth(text: &str) -> bool {
    matches!(text, "t" | "true" | "1" | "on" | "ON" | "YES")
}

fn entry(home: Home, rows: &Rows, row: usize) -> Option<Entry> {
    let text = |column| rows.get(row, column).unwrap_or_default().to_owned();
    Some(Entry {
        home,
        key: rows.get(row, 0)?.to_owned(),
        value: text(1),
        age_s: text(2).parse().unwrap_or(0),
        opened: text(3),
        touched: text(4),
    })
}

fn host_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .map_or_else(|_| "this host".into(), |name| name.trim().to_owned())
}

/// The text that differs between the engines. Nothing here decides anything.
mod sql {
    use super::{Engine, KEY_PREFIX, LOCK_CLASS, LOCK_OBJECT, hex};

    /// Stands in for the versions of a database that has no table for them yet.
    pub const NO_VERSIONS: &str = "select 1 as version where 1 = 0; ";

    /// An identifier, quoted part by part: `audit.schema_migrations` names a table in a schema.
    pub fn name(engine: Engine, name: &str) -> String {
        let mark = if engine == Engine::Mysql { '`' } else { '"' };
        let quoted = |part: &str| format!("{mark}{}{mark}", part.replace(mark, &format!("{mark}{mark}")));
        name.split('.').map(quoted).collect::<Vec<_>>().join(".")
    }

    /// A string. MySQL's meaning of a backslash depends on a setting, so it gets its bytes in hexadecimal.
    pub fn literal(engine: Engine, text: &str) -> String {
        match engine {
            Engine::Postgresql => format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "''")),
            Engine::Mysql if text.is_empty() => "''".into(),
            Engine::Mysql => format!("_utf8mb4 x'{}'", hex(text.as_bytes())),
            Engine::Sqlite => format!("'{}'", text.replace('\'', "''")),
        }
    }

    fn column(engine: Engine, column: &str) -> String {
        name(engine, column)
    }

    fn now(engine: Engine) -> &'static str {
        match engine {
            Engine::Postgresql => "(now() at time zone 'utc')",
            Engine::Mysql => "utc_timestamp(6)",
            Engine::Sqlite => "strftime('%Y-%m-%d %H:%M:%f', 'now')",
        }
    }

    /// One snapshot for all that follows, and no way to write.
    pub fn begin_read(engine: Engine) -> &'static str {
        match engine {
            Engine::Postgresql => "begin isolation level repeatable read read only",
            Engine::Mysql => "start transaction with consistent snapshot, read only",
            Engine::Sqlite => "begin",
        }
    }

    pub fn begin_write(engine: Engine) -> &'static str {
        match engine {
            Engine::Postgresql => "begin isolation level read committed read write",
            Engine::Mysql => "start transaction read write",
            Engine::Sqlite => "begin immediate",
        }
    }

    /// One row: session id, read-only, epoch, database name, whether our own table is there. To tell its epoch takes a server longer
    /// than all the rest, so it is asked only where the run lock is held, and something depends on it.
    pub fn head(engine: Engine, own: &str, locked: bool) -> String {
        let epoch = if locked { epoch(engine) } else { "''" };
        match engine {
            Engine::Postgresql => format!(
                "select pg_backend_pid(), pg_is_in_recovery() or current_setting('default_transaction_read_only')::bool, \
                 {epoch}, current_database(), to_regclass('{own}') is not null; "
            ),
            Engine::Mysql => format!(
                "select connection_id(), @@global.read_only, {epoch}, database(), exists(select 1 from \
                 information_schema.tables where table_schema = database() and table_name = '{own}'); "
            ),
            Engine::Sqlite => format!(
                "select null, 0, {epoch}, 'main', exists(select 1 from sqlite_master where type = 'table' and name = '{own}'); "
            ),
        }
    }

    fn epoch(engine: Engine) -> &'static str {
        match engine {
            Engine::Postgresql => "'pg@' || (extract(epoch from pg_postmaster_start_time()) * 1000)::bigint",
            // MySQL and MariaDB keep the server's uptime in different places; each skips the other's comment.
            Engine::Mysql => {
                "concat(left(sha1(concat(@@hostname, ':', @@port)), 8), '@', unix_timestamp() - (select variable_value from \
                 /*!50706 performance_schema.global_status *//*M!100000 information_schema.global_status */ where \
                 variable_name = 'Uptime'))"
            }
            Engine::Sqlite => "'-'",
        }
    }

    /// One row: which of `tables` are there.
    pub fn exists(engine: Engine, tables: &[&str]) -> String {
        let test = |table: &&str| match engine {
            Engine::Postgresql => format!("to_regclass({}) is not null", literal(engine, &name(engine, table))),
            Engine::Mysql => {
                let (schema, table) = match table.split_once('.') {
                    Some((schema, table)) => (literal(engine, schema), table),
                    None => ("database()".to_owned(), *table),
                };
                format!(
                    "exists(select 1 from information_schema.tables where table_schema = {schema} and table_name = {})",
                    literal(engine, table)
                )
            }
            Engine::Sqlite => format!(
                "exists(select 1 from sqlite_master where type in ('table', 'view') and name = {})",
                literal(engine, table)
            ),
        };
        format!("select {}; ", tables.iter().map(test).collect::<Vec<_>>().join(", "))
    }

    /// Key, value, seconds since it was touched (clocks may run backwards: the distance counts), opened, touched.
    pub fn select_records(engine: Engine, table: &str) -> String {
        let key = column(engine, "key");
        let value = column(engine, "value");
        let (age, cast) = match engine {
            Engine::Postgresql => {
                ("abs(extract(epoch from (now() at time zone 'utc') - updated_at::timestamp))::bigint", "::text")
            }
            Engine::Mysql => ("abs(timestampdiff(second, updated_at, utc_timestamp()))", ""),
            Engine::Sqlite => ("abs(cast((julianday('now') - julianday(updated_at)) * 86400 as integer))", ""),
        };
        format!(
            "select {key}, {value}, {age}, created_at{cast}, updated_at{cast} from {table} where {key} like \
             '{KEY_PREFIX}%'; "
        )
    }

    pub fn select_value(engine: Engine, table: &str, key: &str) -> String {
        let value = column(engine, "value");
        format!("select {value} from {table} where {} = {}; ", column(engine, "key"), literal(engine, key))
    }

    pub fn create_own(engine: Engine, table: &str) -> String {
        let moment = match engine {
            Engine::Postgresql => "timestamp(6) without time zone",
            Engine::Mysql | Engine::Sqlite => "datetime(6)",
        };
        let (key, value) = (column(engine, "key"), column(engine, "value"));
        format!(
            "create table if not exists {table} ({key} varchar(255) not null primary key, {value} varchar(255), \
             created_at {moment} not null, updated_at {moment} not null); "
        )
    }

    pub fn upsert(engine: Engine, table: &str, key: &str, value: &str) -> String {
        let (k, v, now) = (column(engine, "key"), column(engine, "value"), now(engine));
        let insert = format!(
            "insert into {table} ({k}, {v}, created_at, updated_at) values ({}, {}, {now}, {now})",
            literal(engine, key),
            literal(engine, value)
        );
        match engine {
            Engine::Mysql => {
                format!("{insert} on duplicate key update {v} = {}, updated_at = {now}; ", literal(engine, value))
            }
            Engine::Postgresql | Engine::Sqlite => {
                format!(
                    "{insert} on conflict ({k}) do update set {v} = {}, updated_at = {now}; ",
                    literal(engine, value)
                )
            }
        }
    }

    pub fn update(engine: Engine, table: &str, key: &str, old: &str, new: &str) -> String {
        let (k, v) = (column(engine, "key"), column(engine, "value"));
        let [key, old, new] = [key, old, new].map(|text| literal(engine, text));
        format!("update {table} set {v} = {new} where {k} = {key} and {v} = {old}; ")
    }

    pub fn delete(engine: Engine, table: &str, key: &str, value: Option<&str>) -> String {
        let (k, v) = (column(engine, "key"), column(engine, "value"));
        let exactly = value.map(|value| format!(" and {v} = {}", literal(engine, value))).unwrap_or_default();
        format!("delete from {table} where {k} = {}{exactly}; ", literal(engine, key))
    }

    pub fn take_lock(engine: Engine) -> String {
        match engine {
            Engine::Postgresql => format!("select pg_try_advisory_lock({LOCK_CLASS}, {LOCK_OBJECT})"),
            Engine::Mysql => "select get_lock(concat('unstuck:', crc32(database())), 0)".into(),
            Engine::Sqlite => String::new(),
        }
    }

    /// PostgreSQL's words for the session `a`. A pooler keeps a session, and so its locks, when the client has gone. Nothing
    /// tells that from a client that is at work elsewhere, but that it stays idle for longer than our heartbeat.
    const SESSION: &str = "format('session %s (%s, %s, since %s)%s', a.pid, coalesce(nullif(a.application_name, ''), 'no \
        name'), coalesce(host(a.client_addr), 'local'), to_char(a.backend_start at time zone 'utc', 'YYYY-MM-DD HH24:MI:SS \
        \"UTC\"'), case when a.state = 'idle' and a.state_change < clock_timestamp() - interval '15 seconds' then \
        format(', idle since %s: if no run is alive there, a pooler has kept its lock, and `select \
        pg_terminate_backend(%s)` frees it', to_char(a.state_change at time zone 'utc', 'YYYY-MM-DD HH24:MI:SS \
        \"UTC\"'), a.pid) end)";

    /// The same of MySQL, for the session `l.id`. Without the PROCESS right, another user's session is no more than a number.
    const MYSQL_SESSION: &str = "coalesce(concat('session ', p.id, ' (', p.user, ' from ', p.host, ')', if(p.command = \
        'Sleep' and p.time > 15, concat(', idle for ', p.time, ' s: if no run is alive there, a pooler has kept its lock, \
        and `kill ', p.id, '` frees it'), '')), concat('session ', l.id, ' (of another user)'))";

    /// One column: who holds the run lock, for people.
    pub fn lock_holder(engine: Engine) -> String {
        match engine {
            Engine::Postgresql => format!(
                "select {SESSION} from pg_locks l join pg_stat_activity a using (pid) where l.locktype = 'advisory' and \
                 l.granted and l.classid = {LOCK_CLASS} and l.objid = {LOCK_OBJECT} and l.objsubid = 2 and l.database = \
                 (select oid from pg_database where datname = current_database())"
            ),
            Engine::Mysql => mysql_holder("concat('unstuck:', crc32(database()))"),
            Engine::Sqlite => String::new(),
        }
    }

    /// The session, if any but ours, that holds the lock of this name.
    fn mysql_holder(name: &str) -> String {
        format!(
            "select {MYSQL_SESSION} from (select is_used_lock({name}) as id) l left join information_schema.processlist p \
             on p.id = l.id where l.id <> connection_id()"
        )
    }

    /// The beginning of a statement, after spaces and the comments that Rails' query log tags put there.
    const BEGINS: &str = "^([[:space:]]|/[*]([^*]|[*]+[^*/])*[*]+/)*";

    /// One column: each session that may be migrating, for people. `key` is Rails' own lock.
    pub fn migrating(engine: Engine, key: u64) -> String {
        match engine {
            Engine::Postgresql => format!(
                "select {SESSION} from pg_stat_activity a where a.datname = current_database() and a.pid <> pg_backend_pid() and \
                 (a.application_name like 'unstuck/%' or a.pid in (select l.pid from pg_locks l where l.locktype = \
                 'advisory' and l.granted and l.objsubid = 1 and l.database = (select oid from pg_database where datname = \
                 current_database()) and ((l.classid::bigint << 32) | l.objid::bigint) = {key}))"
            ),
            Engine::Mysql => format!(
                "{} union select concat('session ', p.id, ' (', p.user, ' from ', p.host, ')') from \
                 information_schema.processlist p where p.id <> connection_id() and p.db = database() and p.command = \
                 'Query' and p.info regexp '{BEGINS}(alter|create|drop|rename|truncate)[[:space:]]'",
                mysql_holder(&format!("'{key}'"))
            ),
            Engine::Sqlite => String::new(),
        }
    }

    /// Hashes of the whole catalogue but for the tables in `skip`.
    pub fn catalogue(engine: Engine, skip: &[String]) -> String {
        let skip = skip.iter().map(|table| literal(engine, table)).collect::<Vec<_>>().join(", ");
        match engine {
            Engine::Postgresql => format!(
                "with tables as (select c.oid, c.relname, c.relkind, c.relnamespace, c.relrowsecurity from pg_class c join \
                 pg_namespace n on n.oid = c.relnamespace where n.nspname !~ '^pg_' and n.nspname <> 'information_schema' \
                 and c.relname not in ({skip}) and not exists (select 1 from pg_index i join pg_class o on o.oid = \
                 i.indrelid where i.indexrelid = c.oid and o.relname in ({skip}))), \
                 things as (select concat_ws('.', 'c', oid, relname, relkind, relnamespace, relrowsecurity) as thing from \
                 tables union all \
                 select concat_ws('.', 'a', a.attrelid, a.attnum, a.attname, a.atttypid, a.atttypmod, a.attnotnull, \
                 a.attisdropped, a.atthasdef, a.attidentity, a.attcollation) from pg_attribute a join tables on tables.oid = a.attrelid union all \
                 select concat_ws('.', 'd', d.adrelid, d.adnum, pg_get_expr(d.adbin, d.adrelid)) from pg_attrdef d join \
                 tables on tables.oid = d.adrelid union all \
                 select concat_ws('.', 'k', k.oid, pg_get_constraintdef(k.oid), k.convalidated) from pg_constraint k join \
                 tables on tables.oid = k.conrelid union all \
                 select concat_ws('.', 'y', y.oid, y.typname, y.typtype, y.typbasetype, y.typtypmod, y.typnotnull, \
                 y.typdefault, (select string_agg(pg_get_constraintdef(k.oid), ',' order by k.oid) from pg_constraint k \
                 where k.contypid = y.oid)) from pg_type y where y.typtype in ('d', 'e', 'r') union all \
                 select concat_ws('.', 'i', i.indexrelid, i.indisvalid, pg_get_indexdef(i.indexrelid)) from pg_index i join \
                 tables on tables.oid = i.indexrelid union all \
                 select concat_ws('.', 'e', e.enumtypid, e.enumsortorder, e.enumlabel) from pg_enum e union all \
                 select concat_ws('.', 't', g.tgrelid, g.tgname, g.tgenabled) from pg_trigger g join tables on tables.oid = \
                 g.tgrelid union all \
                 select concat_ws('.', 'v', r.ev_class, pg_get_ruledef(r.oid)) from pg_rewrite r join tables on tables.oid \
                 = r.ev_class union all \
                 select concat_ws('.', 'p', p.oid, p.proname, md5(p.prosrc)) from pg_proc p join pg_namespace n on n.oid = \
                 p.pronamespace where n.nspname !~ '^pg_' and n.nspname <> 'information_schema') \
                 select count(*), md5(coalesce(string_agg(thing, ',' order by thing), '')) from things; "
            ),
            Engine::Mysql => {
                let sum = |fields: &str, from: &str, schema: &str, table: &str| {
                    format!(
                        "select count(*), sum(cast(conv(left(sha1(concat_ws('|', {fields})), 12), 16, 10) as unsigned)) \
                         from information_schema.{from} where {schema} = database() and {table} not in ({skip}); "
                    )
                };
                let of = |from: &str, fields: &str| sum(fields, from, "table_schema", "table_name");
                [
                    of(
                        "columns",
                        "table_name, column_name, ordinal_position, quote(column_default), is_nullable, column_type, extra, \
                         quote(collation_name), quote(generation_expression)",
                    ),
                    of(
                        "statistics",
                        "table_name, index_name, seq_in_index, quote(column_name), non_unique, quote(sub_part), index_type",
                    ),
                    of("tables", "table_name, table_type, quote(engine)"),
                    of("table_constraints", "table_name, constraint_name, constraint_type"),
                    of(
                        "key_column_usage",
                        "table_name, constraint_name, column_name, quote(referenced_table_name), \
                         quote(referenced_column_name)",
                    ),
                    of("views", "table_name, view_definition"),
                    sum(
                        "trigger_name, event_object_table, action_timing, event_manipulation, action_statement",
                        "triggers",
                        "trigger_schema",
                        "event_object_table",
                    ),
                ]
                .concat()
            }
            // The schema itself, as it was typed.
            Engine::Sqlite => format!(
                "select count(*), coalesce(group_concat(type || name || coalesce(sql, ''), ','), '') from (select * from \
                 sqlite_master where tbl_name not in ({skip}) order by type, name); "
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_literals_are_quoted_for_each_engine() {
        for (engine, name, expected) in [
            (Engine::Postgresql, r#"a"b"#, r#""a""b""#),
            (Engine::Postgresql, "audit.versions", r#""audit"."versions""#),
            (Engine::Mysql, "a`b", "`a``b`"),
            (Engine::Sqlite, "a", r#""a""#),
        ] {
            assert_eq!(sql::name(engine, name), expected);
        }
        for (engine, text, expected) in [
            (Engine::Postgresql, r"it's \ here", r"E'it''s \\ here'"),
            (Engine::Mysql, "a'", "_utf8mb4 x'6127'"),
            (Engine::Mysql, "", "''"),
            (Engine::Sqlite, r"it's \ here", r"'it''s \ here'"),
        ] {
            assert_eq!(sql::literal(engine, text), expected);
        }
    }
}
