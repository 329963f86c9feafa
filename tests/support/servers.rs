//! What the two kinds of servers have in common for a scene: a fresh database, and the same deeds in their own words.

#![allow(dead_code, reason = "each test file uses its own part of this")]

use std::process::Command;

use crate::mariadb::Mariadb;
use crate::postgres::{Postgres, program};
use crate::scene::Store;

/// A server, and a fresh database for each story.
pub trait Server {
    fn store(&self, database: &str) -> Store;

    fn port(&self) -> u16;

    /// Runs SQL as the server's administrator, in `database`.
    fn administer(&self, database: &str, sql: &str) -> String;

    /// A copy of `database` as SQL.
    fn dump(&self, database: &str) -> String;

    /// Fills the empty `database` with a copy.
    fn restore(&self, database: &str, copy: &str) {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), copy).expect("a file");
        let client = format!("{} < {}", self.reader(database), file.path().display());
        let output = Command::new("sh").args(["-c", &client]).output().expect("sh");
        assert!(output.status.success(), "{client}: {output:?}");
    }

    /// The stock client, reading from its standard input.
    fn reader(&self, database: &str) -> String;

    /// A script that ends every session of `unstuck` in the scene's database.
    const CUT: &'static str;
    /// Takes Rails' own migration lock, waits for two seconds, and gives it back.
    const HOLD_RAILS_LOCK: &'static str;
    /// Takes two seconds, within any statement.
    const SLEEP: &'static str;
}

impl Server for Postgres {
    fn store(&self, database: &str) -> Store {
        self.sql(&format!("create database {database}"));
        let (psql, dir, port) = (program("psql"), self.socket_dir.display(), self.port);
        Store {
            url: self.url(database),
            client: format!("{psql} -XAtq -v ON_ERROR_STOP=1 -h {dir} -p {port} -U postgres -d {database} -c"),
            key: "key",
            moment: "timestamp(6)",
        }
    }

    fn port(&self) -> u16 {
        self.port
    }

    fn administer(&self, database: &str, sql: &str) -> String {
        let conninfo = format!("host={} port={} user=postgres dbname={database}", self.socket_dir.display(), self.port);
        Self::psql(&conninfo, &[], sql).unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    fn dump(&self, database: &str) -> String {
        let mut dump = Command::new(program("pg_dump"));
        dump.arg("-h").arg(&self.socket_dir).args(["-p", &self.port.to_string(), "-U", "postgres", database]);
        said(&mut dump)
    }

    fn reader(&self, database: &str) -> String {
        let (psql, dir, port) = (program("psql"), self.socket_dir.display(), self.port);
        format!("{psql} -Xq -v ON_ERROR_STOP=1 -h {dir} -p {port} -U postgres -d {database}")
    }

    const CUT: &'static str = r#"sql "select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database()
                               and application_name = 'unstuck'" > cut"#;

    const HOLD_RAILS_LOCK: &'static str = "select pg_advisory_lock(2053462845 * KEY::bigint), pg_sleep(2)";

    const SLEEP: &'static str = "pg_sleep(2)::text";
}

impl Server for Mariadb {
    fn store(&self, database: &str) -> Store {
        self.sql(&format!("create database {database}; grant all on {database}.* to ann@'%'"));
        let (socket, password) = (self.socket.display(), Self::PASSWORD);
        Store {
            url: self.url("mysql2").replace("/app", &format!("/{database}")),
            client: format!("mariadb --no-defaults --skip-ssl -S {socket} -u ann -p{password} {database} -BNe"),
            key: "`key`",
            moment: "datetime(6)",
        }
    }

    fn port(&self) -> u16 {
        self.port
    }

    fn administer(&self, database: &str, sql: &str) -> String {
        self.sql(&format!("use {database}; {sql}")).trim().to_owned()
    }

    fn dump(&self, database: &str) -> String {
        let mut dump = Command::new("mariadb-dump");
        dump.args(["--no-defaults", "--skip-ssl", "-u", "root", "-S"]).arg(&self.socket).arg(database);
        said(&mut dump)
    }

    fn reader(&self, database: &str) -> String {
        format!("mariadb --no-defaults --skip-ssl -u root -S {} {database}", self.socket.display())
    }

    const CUT: &'static str = r#"for id in $(sql "select id from information_schema.processlist where db = database() and
                               id <> connection_id()"); do sql "kill $id"; done"#;

    const HOLD_RAILS_LOCK: &'static str = "select get_lock(concat(2053462845 * KEY), 0), sleep(2)";

    const SLEEP: &'static str = "sleep(2)";
}

fn said(command: &mut Command) -> String {
    let output = command.output().expect("a stock client");
    assert!(output.status.success(), "{command:?}: {output:?}");
    String::from_utf8(output.stdout).expect("text")
}

/// The checksum that Rails multiplies to get its lock's number, bit by bit.
pub fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc: u32, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 })
    })
}
