//! The fault table: each row is a fault that is injected from outside into a run of the real binary, and what must come of it.
//!
//! `cargo test --test faults` runs every row and prints the table with its results; a filter picks rows, as with any test.
//! `tests/FAULTS.md` holds the same table for readers, and is checked against this one: `UPDATE_FAULTS=1` writes it anew.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a test says what went wrong by failing"
)]

mod api;
mod child;
mod clocks;
mod database;
mod input;
mod rolling;
mod runs;
mod signals;

#[allow(dead_code, reason = "each test uses its own part of it")]
#[path = "../support/mariadb.rs"]
mod mariadb;
#[path = "../support/postgres.rs"]
mod postgres;
#[path = "../support/proxy.rs"]
mod proxy;
#[path = "../support/rolling.rs"]
mod rolling_scene;
#[path = "../support/scene.rs"]
mod scene;
#[path = "../support/servers.rs"]
mod servers;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Mutex;

use libtest_mimic::{Arguments, Failed, Trial};

/// One row. The texts are the documentation; the check is what proves them.
struct Fault {
    /// What happens, short and unique: the row's name.
    what: &'static str,
    /// How it is brought about.
    injected: &'static str,
    /// The exit code, and what the report says.
    exit: &'static str,
    /// What the record holds afterwards.
    record: &'static str,
    /// What the next run does that nothing disturbs.
    next_run: &'static str,
    check: fn(),
}

/// The sections of the table, in the order of a run.
const SECTIONS: &[(&str, &[Fault])] = &[
    ("The migration command", child::FAULTS),
    ("The databases", database::FAULTS),
    ("The platform's API and the network", api::FAULTS),
    ("Rolling restarts", rolling::FAULTS),
    ("Signals and crashes", signals::FAULTS),
    ("Several runs at once", runs::FAULTS),
    ("Clocks", clocks::FAULTS),
    ("Configuration, files and hostile input", input::FAULTS),
];

/// The rows that were run, and whether their check came to its end.
static RESULTS: Mutex<BTreeMap<&str, bool>> = Mutex::new(BTreeMap::new());

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let listed = arguments.list;
    let mut trials: Vec<Trial> = faults().map(trial).collect();
    trials.push(Trial::test("the documents hold this table", documented));
    let conclusion = libtest_mimic::run(&arguments, trials);
    database::stop_servers();
    if !listed {
        println!("{}", results());
    }
    conclusion.exit_code()
}

fn faults() -> impl Iterator<Item = &'static Fault> {
    SECTIONS.iter().flat_map(|(_, faults)| *faults)
}

fn trial(fault: &'static Fault) -> Trial {
    Trial::test(fault.what, || {
        RESULTS.lock().unwrap().insert(fault.what, false);
        (fault.check)();
        RESULTS.lock().unwrap().insert(fault.what, true);
        Ok(())
    })
}

/// What became of each row.
fn results() -> String {
    let results = RESULTS.lock().unwrap();
    let mut text = String::new();
    for (section, faults) in SECTIONS {
        let _ = writeln!(text, "\n{section}");
        for Fault { what, exit, .. } in *faults {
            let result = match results.get(what) {
                Some(true) => "survived",
                Some(false) => "FAILED",
                None => "not run",
            };
            let _ = writeln!(text, "  {result:<8}  {what}: {exit}");
        }
    }
    let _ = write!(
        text,
        "\n{} of {} faults survived",
        results.values().filter(|survived| **survived).count(),
        faults().count()
    );
    text
}

/// The table as the documents hold it.
fn table() -> String {
    let mut text = String::new();
    for (section, faults) in SECTIONS {
        let _ = write!(
            text,
            "\n## {section}\n\n| fault | injected by | exit, report | record | next run |\n| --- | --- | --- | --- | --- |\n"
        );
        for Fault { what, injected, exit, record, next_run, .. } in *faults {
            let _ = writeln!(text, "| {what} | {injected} | {exit} | {record} | {next_run} |");
        }
    }
    text
}

fn documented() -> Result<(), Failed> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/FAULTS.md");
    let document = fs::read_to_string(&path)?;
    let prose = document.split("\n## ").next().unwrap_or_default();
    let wanted = format!("{prose}{}", table());
    if std::env::var_os("UPDATE_FAULTS").is_some() {
        fs::write(&path, &wanted)?;
    } else if document != wanted {
        return Err("tests/FAULTS.md holds another table: UPDATE_FAULTS=1 cargo test --test faults documents".into());
    }
    let names: BTreeSet<&str> = faults().map(|fault| fault.what).collect();
    if names.len() != faults().count() {
        return Err("two rows have one name".into());
    }
    Ok(())
}
