//! Whatever a file, an address, a server or a database holds: no panic (which ends the release binary at once), no memory
//! without bound, no secret in an error, nothing for the terminal to act upon.
//!
//! Cases are made at random, a bounded number of them; `PROPTEST_CASES` asks for more. What once went wrong stands beside
//! them as a case of its own.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking, in its helpers too")]

mod api;
mod configuration;
mod files;
mod limits;
mod logs;
#[path = "../heroku_client/raw.rs"]
#[allow(dead_code, reason = "each test uses its own part of it")]
mod raw;
mod text;

use proptest::test_runner::{Config, RngSeed};
use unstuck::error::Error;
use unstuck::report::clean;

use limits::bounded;

/// What no error and no output may show.
const SECRET: &str = "pl4nted-s3cret";

/// `cases` of them, always the same, so that a change is judged by itself. `PROPTEST_CASES` asks for so many others.
fn cases(cases: u32) -> Config {
    let chosen = std::env::var_os("PROPTEST_CASES").is_some();
    let config = Config { failure_persistence: None, ..Config::default() };
    if chosen { config } else { Config { cases, rng_seed: RngSeed::Fixed(2026), ..config } }
}

/// What must hold for every error: no secret, neither in the words for people nor in those for developers; once cleaned,
/// nothing that acts on a terminal.
fn harmless(error: &Error) {
    let text = format!("{error} {:?} {error:?}", error.hint);
    assert!(!text.contains(SECRET), "{text}");
    shown(&error.to_string());
}

/// What reaches the terminal is inert.
fn shown(text: &str) {
    let acts = |c: char| {
        c.is_control() || matches!(u32::from(c), 0x61c | 0x200e | 0x200f | 0x2028..=0x202e | 0x2066..=0x2069 | 0xfeff)
    };
    let cleaned = clean(text);
    assert!(!cleaned.chars().any(acts), "{cleaned:?}");
}
