//! What packagers and shells ask for: completions and manual pages, made from the command line's own description.

use std::fs;
use std::io::{self, Write as _};

use clap::{Command, CommandFactory as _};
use clap_mangen::Man;

use crate::args::{self, Args};
use crate::error::{Error, Kind, Result};

pub fn completions(shell: clap_complete::Shell) -> u8 {
    clap_complete::generate(shell, &mut Args::command(), "unstuck", &mut io::stdout());
    0
}

/// One page on standard output, or all of them as `unstuck.1`, `unstuck-migrate.1` and so on in a folder.
pub fn man(args: &args::Man) -> Result<u8> {
    let all = described();
    match (&args.out, &args.command) {
        (Some(folder), _) => {
            let made = fs::create_dir_all(folder).and_then(|()| clap_mangen::generate_to(all, folder));
            made.map_err(|error| {
                Error::new(Kind::System, format!("cannot write the manual pages to {}", folder.display()))
                    .because(error)
            })?;
        }
        (None, Some(name)) => show(named(&all, name)?)?,
        (None, None) => show(all)?,
    }
    Ok(0)
}

/// Every command as people type it, with the options that all of them take.
fn described() -> Command {
    let mut all = Args::command().disable_help_subcommand(true);
    all.build();
    all
}

fn named(all: &Command, name: &str) -> Result<Command> {
    let names: Vec<&str> = all.get_subcommands().map(Command::get_name).collect();
    let hint = format!("one of: {}", names.join(", "));
    let unknown = || Error::new(Kind::Usage, format!("there is no command `{name}`")).hint(hint);
    all.find_subcommand(name).cloned().ok_or_else(unknown)
}

fn show(command: Command) -> Result<()> {
    let mut page = Vec::new();
    let failed = |error| Error::new(Kind::System, "cannot make the manual page").because(error);
    Man::new(command).render(&mut page).map_err(failed)?;
    // Whoever closed the pager has read enough.
    let _ = io::stdout().write_all(&page);
    Ok(())
}
