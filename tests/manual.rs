//! What packagers and shells ask for: completions, manual pages, the version; and what people copy.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what went wrong by failing there")]

#[path = "support/scene.rs"]
mod scene;

use std::fs;
use std::process::Command;

use clap::Parser as _;
use scene::Ran;
use unstuck::args::Args;

fn unstuck(arguments: &[&str]) -> Ran {
    Ran::of(Command::new(env!("CARGO_BIN_EXE_unstuck")).args(arguments).output().unwrap())
}

/// The names of all commands, and what each is for, as the help lists them: as much of it as stands in one line.
fn commands() -> Vec<(String, String)> {
    let help = unstuck(&["--help"]).code(0).out;
    let (_, list) = help.split_once("Commands:\n").unwrap();
    let (list, _) = list.split_once("\n\n").unwrap();
    let indented = list.lines().filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    let described = indented.filter_map(|line| line.trim().split_once(' '));
    let commands = described.map(|(name, purpose)| (name.to_owned(), purpose.trim().to_owned()));
    commands.filter(|(name, _)| name != "help").collect()
}

#[test]
fn every_command_has_a_page_and_help_with_examples() {
    let folder = tempfile::tempdir().unwrap();
    unstuck(&["man", "--out", folder.path().to_str().unwrap()]).code(0);
    assert!(commands().len() >= 7, "{:?}", commands());
    for (command, purpose) in commands() {
        let page = fs::read_to_string(folder.path().join(format!("unstuck-{command}.1"))).unwrap();
        assert!(page.contains(&format!(".TH unstuck-{command} 1")), "{command}: {page}");
        assert_eq!(unstuck(&["man", &command]).code(0).out, page, "{command}");
        let help = unstuck(&[&command, "--help"]).code(0).out;
        assert!(help.contains("Example"), "{command} --help shows no example");
        assert!(help.starts_with(&purpose), "{command} is for {purpose:?}, and says {help}");
        let name = format!("unstuck-{command} - {purpose}").replace('-', "\\-").replace('\'', "\\*(Aq");
        assert!(page.contains(&format!(".SH NAME\n{name}")), "{name} is not what this is for: {page}");
    }
    assert!(fs::read_to_string(folder.path().join("unstuck.1")).unwrap() == unstuck(&["man"]).code(0).out);
    assert!(unstuck(&["man", "nope"]).code(2).err.contains("there is no command `nope`"));
}

#[test]
fn completions_know_every_command() {
    for shell in ["bash", "zsh", "fish", "powershell"] {
        let script = unstuck(&["completions", shell]).code(0).out;
        for (command, _) in commands() {
            assert!(script.contains(&command), "{shell} does not know {command}");
        }
    }
}

#[test]
fn the_version_names_commit_and_target() {
    let long = unstuck(&["--version"]).code(0).out;
    let head =
        Command::new("git").args(["rev-parse", "HEAD"]).current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
    let head = String::from_utf8(head.stdout).unwrap();
    let version = env!("CARGO_PKG_VERSION");
    let begin = format!("unstuck {version} ({}, ", &head[..10]);
    assert!(long.starts_with(&begin) && long.contains(std::env::consts::ARCH), "{long}, not {begin}");
    assert_eq!(unstuck(&["-V"]).code(0).out, format!("unstuck {version}\n"));
}

/// What people copy from the README: a fenced block's language, and its text.
fn blocks() -> Vec<(String, String)> {
    let readme = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
    let fenced = readme.split("```").skip(1).step_by(2);
    let block = |text: &str| text.split_once('\n').map(|(language, text)| (language.to_owned(), text.to_owned()));
    fenced.filter_map(block).collect()
}

#[test]
fn what_people_copy_from_the_readme_can_be_read() {
    let blocks = blocks();
    let of = |wanted: &str| {
        blocks.iter().filter(|(language, _)| language == wanted).map(|(_, text)| text.clone()).collect::<Vec<_>>()
    };
    for text in of("yaml") {
        serde_yaml::from_str::<serde_yaml::Value>(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    }
    for text in of("json") {
        serde_json::from_str::<serde_json::Value>(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    }
    assert!(of("yaml").len() >= 3 && of("json").len() >= 2, "{blocks:?}");
}

#[test]
fn what_people_copy_from_the_readme_is_what_the_program_takes() {
    let procfile = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/Procfile.example")).unwrap();
    let texts = blocks().into_iter().map(|(_, text)| text).chain([procfile]);
    let mut tried = 0;
    for line in texts.flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>()) {
        let command =
            line.trim_start_matches(['$', '-', ' ']).trim_start_matches("release: ").trim_start_matches("web: ");
        let Some(command) = command.trim_start_matches("./").strip_prefix("unstuck ") else { continue };
        // What it prints of itself is no command.
        if command.starts_with(|first: char| first.is_ascii_digit()) {
            continue;
        }
        // Up to whatever the shell takes for itself.
        let words = shlex::split(&command.replace("$PORT", "5000")).unwrap();
        let words = words.iter().take_while(|word| !["|", "&&", ">", ">>", "#"].contains(&word.as_str()));
        let parsed = Args::try_parse_from(["unstuck"].into_iter().chain(words.map(String::as_str)));
        assert!(
            parsed.as_ref().is_ok() || parsed.as_ref().is_err_and(|error| !error.use_stderr()),
            "{line}: {parsed:?}"
        );
        tried += 1;
    }
    assert!(tried >= 5, "only {tried} commands");
}
