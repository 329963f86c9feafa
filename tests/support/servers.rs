//! Database servers as scenes see them: a fresh database for each scene, and what only SQL of the engine's own can do.

#![allow(dead_code, reason = "each test file uses its own part of this")]

use crate::mariadb::Mariadb;
use crate::postgres::{Postgres, program};
use crate::scene::Store;

pub trait Server {
    /// A fresh database of this name.
    fn store(&self, database: &str) -> Store;
    /// A script that ends every session of `unstuck` in the scene's database.
    const CUT: &'static str;
    /// Takes Rails' own migration lock, and gives it back after two seconds.
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

    const CUT: &'static str = r#"for id in $(sql "select id from information_schema.processlist where db = database() and
                               id <> connection_id()"); do sql "kill $id"; done"#;

    const HOLD_RAILS_LOCK: &'static str = "select get_lock(concat(2053462845 * KEY), 0), sleep(2)";

    const SLEEP: &'static str = "sleep(2)";
}

/// The checksum that Rails multiplies to get its lock's number, bit by bit.
pub fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc: u32, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 })
    })
}
