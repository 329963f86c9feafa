//! A restart always follows a migration.

pub mod adapters;
pub mod dynos;
pub mod error;
pub mod migrations;
pub mod ports;
pub mod rails;
pub mod secret;
