//! The secrets that tests plant, and where the outputs go that must not hold them.
//!
//! `bin/test secrets` reads the constants below out of this file, one secret a line, and searches every output that a test
//! captured. Whoever plants another one adds it here.

#![allow(dead_code, reason = "each test uses a part of it")]
#![allow(clippy::expect_used, reason = "an output that is not kept would not be searched")]

use std::io::Write as _;
use std::process::Output;

/// The key for the platform's API.
pub const TOKEN: &str = "HRKU-planted-0000-secret";
/// A password of a database, with what has to be escaped in an address.
pub const PASSWORD: &str = "planted/pass:word+%40";
/// The same in an address.
pub const PASSWORD_IN_URL: &str = "planted%2Fpass%3Aword%2B%2540";
/// A password of a database that needs no escaping.
pub const PLAIN: &str = "planted-plain-password";
/// The password of the test servers' own user on MariaDB.
pub const MARIADB: &str = "planted-sesame";
/// The password of PgBouncer's users.
pub const PGBOUNCER: &str = "planted-pool";
/// What no test prints. The search plants it where it has to find it.
pub const CANARY: &str = "planted-canary-0000";

pub const ALL: [&str; 6] = [TOKEN, PASSWORD, PASSWORD_IN_URL, PLAIN, MARIADB, PGBOUNCER];

/// Keeps what a run of `unstuck` printed in the folder that `UNSTUCK_TEST_OUTPUTS` names, if it names one.
pub fn keep(output: &Output) {
    if let Some(folder) = std::env::var_os("UNSTUCK_TEST_OUTPUTS") {
        let file = tempfile::Builder::new().prefix("output-").tempfile_in(folder);
        let mut file = file.expect("the folder that UNSTUCK_TEST_OUTPUTS names is there");
        for stream in [&output.stdout, &output.stderr] {
            file.write_all(stream).expect("there is room for an output");
        }
        file.keep().expect("the file stays");
    }
}
