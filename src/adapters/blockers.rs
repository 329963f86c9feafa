//! Who blocks whom while the migration runs: the SQL behind [`LockWaits`], on a connection of its own.
//!
//! PostgreSQL names the sessions of the migration by their tag, and tells who blocks them. MySQL has no tag: there the session
//! that holds Rails' own lock is the migration's, if it comes from where we come from with our own user. Rails 6.0 to 7.0 take
//! that lock on a connection of its own; what changes the schema from the same place is then the migration's too. Waits for rows
//! are not looked for there: the server itself ends them after `innodb_lock_wait_timeout`.

use std::time::Duration;

use super::ledger::RAILS_SALT;
use super::{CONNECT_TIMEOUT, ConnectOptions, mysql, postgres};
use crate::config::Env;
use crate::ports::{Holder, LockWaits, Rows, Session, SqlError, SqlErrorKind, Wait};
use crate::rails::{Database, Engine};

/// A look takes milliseconds.
const DEADLINE: Duration = Duration::from_secs(10);

/// MySQL and MariaDB keep the server's status in different places; each skips the other's comment.
const STATUS: &str = "/*!50706 performance_schema.global_status *//*M!100000 information_schema.global_status */";

/// So many more connections must be free, since the migration, and whoever else comes, shall never miss ours.
const RESERVE: i64 = 3;

/// The lock waits of one database.
pub struct Blockers {
    config: Database,
    env: Env,
    /// Tag of the child's sessions: hexadecimal digits.
    tag: String,
    session: Option<Box<dyn Session + Send>>,
    /// Rails' own lock, once the database's name is known.
    rails_lock: u64,
    /// Where MySQL tells who holds a table, best first. What this user may not ask is not asked again.
    sources: Vec<Source>,
}

/// A place in which MySQL or MariaDB tells of locks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    /// `performance_schema.metadata_locks`, where it is on.
    PerformanceSchema,
    /// MariaDB's plugin of this name.
    MetadataLockInfo,
    /// Open transactions, one of which it has to be.
    OpenTransactions,
}

impl Blockers {
    pub fn new(config: Database, env: Env, tag: String) -> Self {
        let sources = vec![Source::PerformanceSchema, Source::MetadataLockInfo, Source::OpenTransactions];
        Self { config, env, tag, session: None, rails_lock: 0, sources }
    }

    fn send(&mut self, sql: &str) -> Result<Vec<Rows>, SqlError> {
        let Some(session) = self.session.as_mut() else {
            return Err(SqlError::new(SqlErrorKind::Lost, "the connection is gone"));
        };
        let answer = session.run(sql, DEADLINE);
        if answer.as_ref().is_err_and(|error| error.kind == SqlErrorKind::Lost) {
            self.session = None;
        }
        answer
    }

    fn connect(&mut self) -> Result<(), SqlError> {
        let options = ConnectOptions { connect_timeout: CONNECT_TIMEOUT, application_name: "unstuck locks".into() };
        let mut session: Box<dyn Session + Send> = match self.config.engine {
            Engine::Mysql => Box::new(mysql::connect(&self.config, &self.env, options)?),
            Engine::Postgresql | Engine::Sqlite => Box::new(postgres::connect(&self.config, &self.env, options)?),
        };
        let answer = session.run(&first_words(self.config.engine), DEADLINE)?;
        let text = |column| answer.first().and_then(|rows| rows.get(0, column));
        let left: i64 = text(1).and_then(|left| left.parse().ok()).unwrap_or(i64::MAX);
        if left < RESERVE {
            let few = format!("only {left} more connections are allowed, and they are left to the migration");
            return Err(SqlError::new(SqlErrorKind::Other, few));
        }
        self.rails_lock = RAILS_SALT * u64::from(crc32fast::hash(text(0).unwrap_or_default().as_bytes()));
        self.session = Some(session);
        Ok(())
    }

    fn look_at_postgres(&mut self) -> Result<Vec<Wait>, SqlError> {
        let answer = self.send(&postgres_waits(&self.tag, self.rails_lock))?;
        Ok(answer.first().map(waits_of_postgres).unwrap_or_default())
    }

    fn look_at_mysql(&mut self) -> Result<Vec<Wait>, SqlError> {
        let answer = self.send(&mysql_sessions(self.rails_lock))?;
        let mut waits = answer.first().map(waits_of_mysql).unwrap_or_default();
        for wait in &mut waits {
            (wait.holders, wait.guess) = self.holders_in_mysql(&wait.session);
        }
        Ok(waits)
    }

    /// Who holds what this session waits for, from the best source that tells anything; and whether that is a guess.
    fn holders_in_mysql(&mut self, session: &str) -> (Vec<Holder>, bool) {
        for source in self.sources.clone() {
            match self.send(&mysql_holders(source, session)) {
                Ok(answer) => {
                    let holders: Vec<Holder> = answer.iter().flat_map(rows).filter_map(mysql_holder).collect();
                    if !holders.is_empty() {
                        return (holders, source == Source::OpenTransactions);
                    }
                }
                Err(error) if error.kind == SqlErrorKind::Lost => break,
                Err(_) => self.sources.retain(|other| *other != source),
            }
        }
        (Vec::new(), true)
    }
}

impl LockWaits for Blockers {
    fn look(&mut self) -> Result<Vec<Wait>, SqlError> {
        if self.session.is_none() {
            self.connect()?;
        }
        match self.config.engine {
            Engine::Postgresql => self.look_at_postgres(),
            Engine::Mysql => self.look_at_mysql(),
            Engine::Sqlite => Ok(Vec::new()),
        }
    }

    fn cancel(&mut self, wait: &Wait) -> Result<bool, SqlError> {
        let number: u64 = wait.session.parse().unwrap_or_default();
        match self.config.engine {
            Engine::Postgresql => {
                let began: String = wait.began.chars().filter(|c| c.is_ascii_digit() || *c == '.').collect();
                let answer = self.send(&format!(
                    "select pg_cancel_backend(pid) from pg_stat_activity where pid = {number} and wait_event_type = 'Lock' and \
                     extract(epoch from query_start)::text = '{began}'"
                ))?;
                Ok(answer.iter().any(|rows| rows.get(0, 0) == Some("t")))
            }
            Engine::Mysql => self.send(&format!("kill query {number}")).map(|_| true),
            Engine::Sqlite => Ok(false),
        }
    }
}

/// One row of an answer.
#[derive(Clone, Copy)]
struct Row<'a>(&'a Rows, usize);

impl<'a> Row<'a> {
    fn get(self, column: usize) -> Option<&'a str> {
        self.0.get(self.1, column)
    }

    fn text(self, column: usize) -> &'a str {
        self.get(column).unwrap_or_default()
    }

    fn number(self, column: usize) -> Option<u64> {
        self.get(column)?.parse().ok()
    }

    /// A truth value, as MySQL prints it.
    fn is(self, column: usize) -> bool {
        self.get(column) == Some("1")
    }
}

fn rows(rows: &Rows) -> impl Iterator<Item = Row<'_>> {
    (0..rows.len()).map(move |at| Row(rows, at))
}

/// One row: the database's name, and how many connections the server, the user and the database still allow.
fn first_words(engine: Engine) -> String {
    match engine {
        Engine::Mysql => format!(
            "select database(), least(@@max_connections - (select variable_value from {STATUS} where variable_name = \
             'Threads_connected'), if(@@max_user_connections = 0, @@max_connections, @@max_user_connections - (select count(*) from \
             information_schema.processlist where user = substring_index(user(), '@', 1))))"
        ),
        // Should a look ever have to wait, it gives up: it is nobody's business but ours.
        Engine::Postgresql | Engine::Sqlite => "set lock_timeout = 500; set statement_timeout = 5000; \
             select current_database(), least(current_setting('max_connections')::bigint - \
             current_setting('superuser_reserved_connections')::bigint - (select count(*) from pg_stat_activity where datid is not \
             null), (select nullif(rolconnlimit, -1) - (select count(*) from pg_stat_activity where usename = current_user) from \
             pg_roles where rolname = current_user), (select nullif(datconnlimit, -1) - (select count(*) from pg_stat_activity \
             where datname = current_database()) from pg_database where datname = current_database()))"
            .to_owned(),
    }
}

/// One row for each waiting session of ours and each session in its way.
fn postgres_waits(tag: &str, rails_lock: u64) -> String {
    format!(
        "with ours as (select a.pid, a.query_start, a.query from pg_stat_activity a where a.wait_event_type = \
         'Lock' and a.datname = current_database() and a.pid <> pg_backend_pid() and (a.application_name = 'unstuck/{tag}' or \
         exists (select 1 from pg_locks l join pg_stat_activity h on h.pid = l.pid where l.locktype = 'advisory' and l.granted \
         and l.objsubid = 1 and l.database = a.datid and ((l.classid::bigint << 32) | l.objid::bigint) = {rails_lock} and \
         h.usename = current_user and h.usename = a.usename and h.application_name = a.application_name and h.client_addr is \
         not distinct from a.client_addr and h.client_addr is not distinct from inet_client_addr()))) \
         select o.pid, extract(epoch from o.query_start)::text, left(o.query, 400), \
         coalesce(w.relation::regclass::text, w.locktype), (extract(epoch from clock_timestamp() - \
         coalesce(w.waitstart, o.query_start)) * 1000)::bigint, (select count(distinct q.pid) from pg_locks q where not q.granted \
         and q.relation = w.relation and q.database = w.database and q.pid <> o.pid), \
         u.pid, b.usename, b.application_name, host(b.client_addr), b.state, extract(epoch from clock_timestamp() - \
         b.state_change)::bigint, left(b.query, 400) \
         from ours o left join lateral (select l.locktype, l.relation, l.database, (to_jsonb(l) ->> \
         'waitstart')::timestamptz as waitstart from pg_locks l where l.pid = o.pid and not l.granted limit 1) w on true \
         left join lateral (select distinct unnest(pg_blocking_pids(o.pid)) as pid) u on true \
         left join pg_stat_activity b on b.pid = u.pid order by o.pid, b.xact_start"
    )
}

fn waits_of_postgres(answer: &Rows) -> Vec<Wait> {
    let mut waits: Vec<Wait> = Vec::new();
    for row in rows(answer) {
        let session = row.text(0).to_owned();
        if waits.last().is_none_or(|last| last.session != session) {
            waits.push(Wait {
                session,
                began: row.text(1).to_owned(),
                statement: row.text(2).to_owned(),
                target: what_postgres_waits_for(row.text(3)),
                age: row.number(4).map(Duration::from_millis),
                own: true,
                bounded: true,
                queue: row.number(5).and_then(|count| count.try_into().ok()).unwrap_or_default(),
                ..Wait::default()
            });
        }
        let Some(pid) = row.get(6) else { continue };
        let holder = Holder {
            session: pid.to_owned(),
            user: row.text(7).to_owned(),
            application: row.text(8).to_owned(),
            address: row.text(9).to_owned(),
            state: row.text(10).to_owned(),
            since_s: row.number(11),
            statement: row.text(12).to_owned(),
            // Number 0 is no session: a prepared transaction holds the lock.
            remedy: if pid == "0" {
                "rollback prepared, with a name from pg_prepared_xacts".to_owned()
            } else {
                format!("select pg_terminate_backend({pid})")
            },
        };
        if let Some(wait) = waits.last_mut() {
            wait.holders.push(holder);
        }
    }
    waits
}

/// A table's name, or the kind of a lock that has none, in words.
fn what_postgres_waits_for(name: &str) -> String {
    match name {
        "" => "a lock".to_owned(),
        "transactionid" | "tuple" => "a lock on a row".to_owned(),
        "virtualxid" => "older transactions to end".to_owned(),
        table => format!("a lock on {table}"),
    }
}

/// Our own session, whoever holds Rails' lock, and whoever waits for a lock on a table.
fn mysql_sessions(rails_lock: u64) -> String {
    format!(
        "select p.id, p.id = connection_id(), p.id <=> r.id, p.user, p.host, p.db <=> database(), p.state like 'Waiting for \
         %lock%', left(p.info, 400) from information_schema.processlist p, (select is_used_lock('{rails_lock}') as id) r where \
         p.id = connection_id() or p.id <=> r.id or p.state like 'Waiting for %lock%' limit 2000"
    )
}

/// One row of the process list.
#[allow(clippy::struct_excessive_bools, reason = "columns of a row")]
struct Process<'a> {
    id: &'a str,
    /// The session that asks.
    ourselves: bool,
    user: &'a str,
    host: &'a str,
    /// It holds Rails' own lock.
    rails_lock: bool,
    /// It is in this database.
    here: bool,
    waits: bool,
    statement: &'a str,
}

impl Process<'_> {
    /// The client's address, without its port.
    fn from(&self) -> (&str, &str) {
        (self.user, self.host.rsplit_once(':').map_or(self.host, |(address, _)| address))
    }
}

fn waits_of_mysql(answer: &Rows) -> Vec<Wait> {
    let (ourselves, others): (Vec<Process>, Vec<Process>) =
        rows(answer).filter_map(process_of).partition(|process| process.ourselves);
    let Some(ourselves) = ourselves.first() else { return Vec::new() };
    let from_here = |process: &&Process| process.from() == ourselves.from();
    let locked = others.iter().filter(from_here).any(|process| process.rails_lock);
    let waiting = others
        .iter()
        .filter(from_here)
        .filter(|process| process.waits && (process.rails_lock || (process.here && changes_schema(process.statement))));
    let wait = |process: &Process| {
        let table = table_of(process.statement);
        let behind = |other: &&Process| {
            other.id != process.id
                && other.waits
                && other.here
                && table.is_none_or(|table| names(other.statement, table))
        };
        Wait {
            session: process.id.to_owned(),
            statement: process.statement.to_owned(),
            target: table.map_or("a lock".to_owned(), |table| format!("a lock on {table}")),
            own: locked,
            queue: others.iter().filter(behind).count(),
            ..Wait::default()
        }
    };
    waiting.map(wait).collect()
}

fn process_of(row: Row<'_>) -> Option<Process<'_>> {
    Some(Process {
        id: row.get(0)?,
        ourselves: row.is(1),
        rails_lock: row.is(2),
        user: row.text(3),
        host: row.text(4),
        here: row.is(5),
        waits: row.is(6),
        statement: row.text(7),
    })
}

/// The words of a statement, without the comments that Rails' query log tags put around it.
fn words(statement: &str) -> impl Iterator<Item = &str> {
    let mut rest = statement;
    while let Some(after) = rest.trim_start().strip_prefix("/*") {
        rest = after.split_once("*/").map_or("", |(_, after)| after);
    }
    rest.split(|c: char| c.is_whitespace() || matches!(c, '(' | ',' | ';')).filter(|word| !word.is_empty())
}

fn changes_schema(statement: &str) -> bool {
    let first = words(statement).next().unwrap_or_default().to_ascii_lowercase();
    matches!(first.as_str(), "alter" | "create" | "drop" | "rename" | "truncate")
}

/// The table that a schema statement is about, without quotes and database.
fn table_of(statement: &str) -> Option<&str> {
    let is = |word: &str, one_of: &[&str]| one_of.iter().any(|other| word.eq_ignore_ascii_case(other));
    let mut rest = words(statement).skip_while(|word| !is(word, &["table", "on", "into", "update", "from"])).skip(1);
    let name = rest.find(|word| !is(word, &["if", "not", "exists", "ignore"]))?;
    name.rsplit('.').next().map(|name| name.trim_matches('`')).filter(|name| !name.is_empty())
}

/// Whether a statement speaks of this table.
fn names(statement: &str, table: &str) -> bool {
    statement.split(|c: char| !(c.is_alphanumeric() || matches!(c, '_' | '$' | '-'))).any(|word| word == table)
}

/// Columns: session, user, host, command, seconds, statement.
fn mysql_holders(source: Source, session: &str) -> String {
    let number: u64 = session.parse().unwrap_or_default();
    let columns = "p.id, p.user, p.host, p.command, p.time, left(p.info, 400)";
    let rest =
        format!("p.id not in ({number}, connection_id()) and coalesce(p.state, '') not like 'Waiting for %lock%'");
    match source {
        Source::PerformanceSchema => format!(
            "select distinct {columns} from performance_schema.threads w join performance_schema.metadata_locks a on \
             a.owner_thread_id = w.thread_id and a.lock_status = 'PENDING' join performance_schema.metadata_locks h on \
             h.object_type = a.object_type and h.object_schema <=> a.object_schema and h.object_name <=> a.object_name and \
             h.lock_status = 'GRANTED' join performance_schema.threads t on t.thread_id = h.owner_thread_id join \
             information_schema.processlist p on p.id = t.processlist_id where w.processlist_id = {number} and {rest} order by \
             p.time desc limit 20"
        ),
        Source::MetadataLockInfo => format!(
            "select distinct {columns} from information_schema.metadata_lock_info a join information_schema.metadata_lock_info h on \
             h.table_schema = a.table_schema and h.table_name = a.table_name join information_schema.processlist p on p.id = \
             h.thread_id where a.thread_id = {number} and a.table_name <> '' and {rest} order by p.time desc limit 20"
        ),
        Source::OpenTransactions => format!(
            "select {columns} from information_schema.innodb_trx t join information_schema.processlist p on p.id = \
             t.trx_mysql_thread_id where {rest} order by t.trx_started, p.id limit 5"
        ),
    }
}

fn mysql_holder(row: Row<'_>) -> Option<Holder> {
    let session = row.get(0)?;
    let host = row.text(2);
    let idle = row.get(3) == Some("Sleep");
    Some(Holder {
        session: session.to_owned(),
        user: row.text(1).to_owned(),
        address: host.rsplit_once(':').map_or(host, |(address, _)| address).to_owned(),
        state: if idle { "idle in transaction" } else { "active" }.to_owned(),
        since_s: row.number(4),
        statement: row.text(5).to_owned(),
        remedy: format!("kill {session}"),
        ..Holder::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(rows: &[&[&str]]) -> Rows {
        let mut answer = Rows::new(rows[0].len());
        rows.iter().copied().flatten().for_each(|value| answer.push((*value != "-").then_some(*value)));
        answer
    }

    #[test]
    fn postgres_rows_become_waits() {
        let held = [
            "71",
            "1.5",
            "ALTER",
            "posts",
            "3000",
            "2",
            "55",
            "app",
            "web",
            "10.0.0.2",
            "idle in transaction",
            "300",
            "SELECT",
        ];
        let also = ["71", "1.5", "ALTER", "posts", "3000", "2", "0", "-", "-", "-", "-", "-", "-"];
        let other = ["72", "2.5", "UPDATE", "transactionid", "10", "0", "-", "-", "-", "-", "-", "-", "-"];
        let waits = waits_of_postgres(&answer(&[&held, &also, &other]));
        assert_eq!(waits.len(), 2);
        let first = &waits[0];
        assert_eq!((first.session.as_str(), first.target.as_str(), first.queue), ("71", "a lock on posts", 2));
        assert_eq!((first.age, first.own), (Some(Duration::from_secs(3)), true));
        let remedies: Vec<&str> = first.holders.iter().map(|holder| holder.remedy.as_str()).collect();
        assert_eq!(
            remedies,
            ["select pg_terminate_backend(55)", "rollback prepared, with a name from pg_prepared_xacts"]
        );
        assert_eq!((waits[1].target.as_str(), &waits[1].holders), ("a lock on a row", &vec![]));
    }

    /// id, ourselves, Rails' lock, user, host, this database, waits, statement.
    const ASKING: [&str; 8] = ["9", "1", "0", "ann", "10.0.0.1:99", "1", "0", "select"];

    #[test]
    fn mysql_rows_become_waits() {
        let alter = "/* a */ ALTER TABLE `posts` ADD `b` int";
        let migrating = ["5", "0", "1", "ann", "10.0.0.1:44", "1", "1", alter];
        let queued = ["6", "0", "0", "ann", "10.0.0.3:44", "1", "1", "SELECT * FROM `posts` WHERE 1"];
        let elsewhere = ["7", "0", "0", "ann", "10.0.0.3:45", "1", "1", "SELECT * FROM posts2"];
        let waits = waits_of_mysql(&answer(&[&ASKING, &migrating, &queued, &elsewhere]));
        assert_eq!(waits.len(), 1, "{waits:?}");
        assert_eq!((waits[0].session.as_str(), waits[0].target.as_str()), ("5", "a lock on posts"));
        assert_eq!((waits[0].own, waits[0].queue), (true, 1));
    }

    #[test]
    fn what_is_not_certainly_ours_is_never_called_so() {
        let alter = "alter table posts add b int";
        let keeper = ["4", "0", "1", "ann", "10.0.0.1:43", "1", "0", "-"];
        let stranger = ["4", "0", "1", "ann", "10.0.0.8:43", "1", "0", "-"];
        let here = ["5", "0", "0", "ann", "10.0.0.1:44", "1", "1", alter];
        let other_user = ["5", "0", "0", "bob", "10.0.0.1:44", "1", "1", alter];
        let other_place = ["5", "0", "1", "ann", "10.0.0.8:44", "1", "1", alter];
        let other_base = ["5", "0", "0", "ann", "10.0.0.1:44", "0", "1", alter];
        let no_change = ["5", "0", "0", "ann", "10.0.0.1:44", "1", "1", "select * from posts"];
        let table: [(&[&[&str]], Option<bool>); 8] = [
            (&[&ASKING, &keeper, &here], Some(true)),
            (&[&ASKING, &here], Some(false)),
            (&[&ASKING, &stranger, &here], Some(false)),
            (&[&ASKING, &keeper, &other_user], None),
            (&[&ASKING, &other_place], None),
            (&[&ASKING, &keeper, &other_base], None),
            (&[&ASKING, &keeper, &no_change], None),
            (&[&keeper, &here], None),
        ];
        for (sessions, own) in table {
            assert_eq!(waits_of_mysql(&answer(sessions)).first().map(|wait| wait.own), own, "{sessions:?}");
        }
    }

    #[test]
    fn statements_name_their_table() {
        for (statement, table) in [
            ("ALTER TABLE `posts` ADD `b` int", Some("posts")),
            ("alter table app.posts add b int", Some("posts")),
            ("DROP TABLE IF EXISTS `app`.`posts`", Some("posts")),
            ("CREATE UNIQUE INDEX `i` ON `posts` (`a`)", Some("posts")),
            ("/*application:Blog*/ DROP INDEX i ON posts;", Some("posts")),
            ("CREATE TABLE posts(a int)", Some("posts")),
            ("INSERT INTO `posts` (`a`) VALUES (1)", Some("posts")),
            ("UPDATE `posts` SET a = 1", Some("posts")),
            ("/* no end", None),
            ("", None),
        ] {
            assert_eq!(table_of(statement), table, "{statement}");
        }
        assert!(changes_schema("/* a */ /* b */ Rename TABLE a TO b") && !changes_schema("select 'alter'"));
    }
}
