//! The outside world behind the doors of [`crate::ports`].

use std::time::Duration;

pub mod credentials;
pub mod files;
pub mod flock;
pub mod git;
pub mod heroku;
pub mod mysql;
pub mod postgres;
pub mod rails;
pub mod retry;
pub mod ruby;
pub mod sqlite;

/// What does not depend on the database, for every connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectOptions {
    /// How long connecting may take in total: look-up, handshakes, authentication.
    pub connect_timeout: Duration,
    /// The name under which the server lists the session.
    pub application_name: String,
}
