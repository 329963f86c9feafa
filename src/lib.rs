//! A restart always follows a migration.
//!
//! The code reads in one direction:
//!
//! ```text
//! args + env -> observe -> plan -> act -> verify -> report
//! ```
//!
//! [`args`] is what was typed, [`config`] what it means. [`observe`] asks what is true now. [`debt`] holds the invariant and
//! the one table of next steps; [`plan`] asks it for the step that is due, [`act`] carries the step out, [`verify`] makes the
//! proof that pays, [`report`] says how it ended. [`migrations`], [`rails`] and [`dynos`] are the words of the two worlds;
//! [`ports`] are the doors to them, [`adapters`] what stands behind the doors.

pub mod act;
pub mod adapters;
pub mod aftermath;
pub mod args;
pub mod change;
mod commands;
pub mod config;
pub mod debt;
pub mod doctor;
pub mod dynos;
pub mod error;
pub mod findings;
pub mod follow;
pub mod guard;
pub mod hook;
pub mod locks;
pub mod logs;
pub mod migrations;
pub mod observe;
pub mod one_off;
pub mod plan;
pub mod ports;
pub mod processes;
pub mod progress;
pub mod push;
pub mod rails;
pub mod release;
pub mod releases;
pub mod report;
pub mod review;
pub mod rollback;
pub mod ruby;
pub mod rules;
pub mod schema;
pub mod secret;
pub mod timeline;
pub mod verify;

use std::ffi::OsString;

use clap::Parser as _;

use crate::args::{Args, Command, How};
use crate::config::Settings;
use crate::error::{Error, Kind, Result};
use crate::report::{Outcome, Reporter, clean};

/// The whole program: reads the command line and the environment, does what was asked, returns the exit code.
pub fn run(typed: impl Iterator<Item = OsString>) -> u8 {
    let typed: Vec<OsString> = typed.collect();
    let args = match Args::try_parse_from(&typed) {
        Ok(args) => args,
        Err(error) => return usage(&error, &typed),
    };
    let common = &args.common;
    let reporter = Reporter::new(common.json, common.quiet, common.verbose, common.color);
    dispatch(&args, &reporter).unwrap_or_else(|error| {
        let acts = matches!(args.command, Command::Migrate(_) | Command::Restart(_) | Command::Rollback(_))
            && error.kind != Kind::Usage;
        reporter.error(&error, acts.then(|| Outcome::of_error(&error)));
        error.kind.exit_code()
    })
}

fn dispatch(args: &Args, reporter: &Reporter) -> Result<u8> {
    let load = |how: &How, command: &[String]| Settings::load(&args.common, how, command, config::environment());
    match &args.command {
        Command::Migrate(migrate) => {
            commands::migrate(&load(&migrate.how, &migrate.command)?, &args.common, migrate, reporter)
        }
        Command::Restart(restart) => {
            let how = How { pace: restart.pace.clone(), ..How::default() };
            commands::restart(&load(&how, &[])?, restart, reporter)
        }
        Command::Status(status) => commands::status(&load(&How::default(), &[])?, status, reporter),
        Command::Ps(ps) => commands::ps(&load(&How::default(), &[])?, ps, reporter),
        Command::Tail(tail) => commands::tail(&load(&How::default(), &[])?, tail, reporter),
        Command::Watch(watch) => commands::watch(&load(&How::default(), &[])?, watch, reporter),
        Command::PrePush(push) => Ok(commands::pre_push(&load(&How::default(), &[])?, push, reporter)),
        Command::Check(check) => commands::check(&load(&How::default(), &[])?, check, reporter),
        Command::Exec(exec) => commands::exec(&load(&How::default(), &[])?, exec, reporter),
        Command::Releases(releases) => commands::releases(&load(&How::default(), &[])?, releases, reporter),
        Command::Rollback(rollback) => commands::rollback(&load(&How::default(), &[])?, rollback, reporter),
        Command::Hook { what } => commands::hook(&load(&How::default(), &[])?, *what, reporter),
        Command::Doctor(doctor) => Ok(commands::doctor(&load(&How::default(), &[])?, doctor, reporter)),
        Command::Config => commands::config(&load(&How::default(), &[])?, reporter),
        Command::Completions { shell } => Ok(commands::completions(*shell)),
        Command::Forget(forget) => commands::forget(&load(&How::default(), &[])?, forget, reporter),
        Command::Man(page) => commands::man(page),
    }
}

/// Help and version are no errors; anything else is wrong usage.
fn usage(error: &clap::Error, typed: &[OsString]) -> u8 {
    let wanted = !error.use_stderr();
    let json = typed.iter().take_while(|word| *word != "--").any(|word| word == "--json");
    // What was typed may come from a script, and clap quotes it as it is.
    let inert = typed.iter().all(|word| word.to_str().is_some_and(|word| clean(word) == word));
    if (json || !inert) && !wanted {
        let text = error.to_string();
        let message = text.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned();
        Reporter::new(json, false, 0, args::Color::Auto)
            .error(&Error::new(Kind::Usage, message).hint("see `unstuck --help`"), None);
    } else {
        // Whoever closed the terminal does not want to read it.
        let _ = error.print();
    }
    if wanted { 0 } else { Kind::Usage.exit_code() }
}
