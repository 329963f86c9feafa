//! What packagers and shells ask for: completions and manual pages, made from the command line's own description.

use std::fs;
use std::io::{self, Write as _};

use clap::builder::PossibleValuesParser;
use clap::{Arg, Command, CommandFactory as _, ValueHint};
use clap_mangen::Man;
use clap_mangen::roff::{Roff, roman};

use crate::args::{self, Args};
use crate::error::{Error, Kind, Result};

pub fn completions(shell: clap_complete::Shell) -> u8 {
    let mut all = Args::command();
    all.build();
    // clap wants names that live as long as the program, which has nothing else to do.
    let pages: Vec<&'static str> = names(&pages(&described())).into_iter().map(|name| &*name.leak()).collect();
    let mut all = all.mut_subcommands(|command| {
        let is_man = command.get_name() == "man";
        command.mut_args(|arg| match arg.get_id().as_str() {
            "command" if is_man => arg.value_parser(PossibleValuesParser::new(pages.clone())),
            _ => offering(arg),
        })
    });
    clap_complete::generate(shell, &mut all, "unstuck", &mut io::stdout());
    0
}

/// The argument as a shell is to complete it: by the values that its name lists, and by files only where it is one.
fn offering(arg: Arg) -> Arg {
    let name = arg.get_value_names().and_then(|names| names.first()).map(ToString::to_string).unwrap_or_default();
    match arg.get_value_hint() {
        _ if name.contains('|') => arg.value_parser(PossibleValuesParser::new(name.leak().split('|'))),
        ValueHint::Unknown => arg.value_hint(ValueHint::Other),
        _ => arg,
    }
}

/// One page on standard output, or all of them as `unstuck.1`, `unstuck-migrate.1` and so on in a folder.
pub fn man(args: &args::Man) -> Result<u8> {
    let all = described();
    let pages = pages(&all);
    let failed = |error| Error::new(Kind::System, "cannot make the manual page").because(error);
    if let Some(folder) = &args.out {
        let write = |page: &Command| {
            let name = page.get_display_name().unwrap_or_else(|| page.get_name());
            fs::write(folder.join(format!("{name}.1")), rendered(page)?)
        };
        let made = fs::create_dir_all(folder).and_then(|()| pages.iter().try_for_each(write));
        made.map_err(|error| {
            Error::new(Kind::System, format!("cannot write the manual pages to {}", folder.display())).because(error)
        })?;
        return Ok(0);
    }
    let wanted = args.command.join("-");
    let page = pages.iter().find(|page| page_name(page) == wanted).ok_or_else(|| {
        Error::new(Kind::Usage, format!("there is no command `{wanted}`"))
            .hint(format!("one of: {}", names(&pages).join(", ")))
    })?;
    // Whoever closed the pager has read enough.
    let _ = io::stdout().write_all(&rendered(page).map_err(failed)?);
    Ok(0)
}

/// Every command as people type it, with the options that all of them take.
fn described() -> Command {
    let mut all = Args::command().disable_help_subcommand(true);
    all.build();
    all
}

/// The commands that have a page: unstuck itself, its commands, and theirs.
fn pages(command: &Command) -> Vec<Command> {
    let below = command.get_subcommands().flat_map(pages);
    [command.clone()].into_iter().chain(below).collect()
}

/// `hook-install`; empty for unstuck itself.
fn page_name(page: &Command) -> String {
    let name = page.get_display_name().unwrap_or_default();
    name.trim_start_matches("unstuck").trim_start_matches('-').to_owned()
}

fn names(pages: &[Command]) -> Vec<String> {
    pages.iter().map(page_name).filter(|name| !name.is_empty()).collect()
}

fn rendered(command: &Command) -> io::Result<Vec<u8>> {
    let source = concat!("unstuck ", env!("CARGO_PKG_VERSION"));
    let man = Man::new(command.clone()).date(env!("UNSTUCK_DATE")).source(source).manual("unstuck manual");
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    if command.has_subcommands() {
        man.render_subcommands_section(&mut page)?;
    }
    if let Some(help) = command.get_after_long_help().or(command.get_after_help()) {
        page.extend(after(&help.to_string()).to_roff().into_bytes());
    }
    man.render_version_section(&mut page)?;
    Ok(page)
}

/// What follows the options in a help text: paragraphs, each with a heading or without, whose indented lines stay as they are.
fn after(help: &str) -> Roff {
    let mut roff = Roff::new();
    for paragraph in help.split("\n\n") {
        let (head, rest) = paragraph.split_once('\n').unwrap_or((paragraph, ""));
        let section =
            ["Examples:", "Exit codes:", "Verdicts and exit codes:"].iter().find(|name| head.starts_with(**name));
        match section {
            Some(&"Examples:") => roff.control("SH", ["EXAMPLES"]),
            Some(_) => roff.control("SH", ["EXIT STATUS"]),
            None => roff.control("SH", ["NOTES"]),
        };
        let head = section.map_or(head, |section| head[section.len()..].trim());
        let is_listed = rest.starts_with("  ");
        if !is_listed {
            roff.text([roman([head, rest].join("\n").trim())]);
            continue;
        }
        if !head.is_empty() {
            roff.text([roman(head)]);
        }
        roff.control("nf", []);
        for line in rest.lines() {
            roff.text([roman(line)]);
        }
        roff.control("fi", []);
    }
    roff
}
