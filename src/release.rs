//! Who runs the pending migrations of a deploy: the release line of the `Procfile`, of `heroku.yml` or of `project.toml`. Pure.

use crate::findings::{Finding, Place, Severity};

/// What the platform runs after the build and before the new code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// The file that it stands in: `Procfile`, `heroku.yml`, `project.toml`.
    pub file: &'static str,
    /// The number of the line, from 1; 0 where it is not known.
    pub number: usize,
    pub command: String,
}

/// Whether a release line migrates.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Migrates {
    #[default]
    No,
    /// It runs something that nobody but Ruby or the shell can tell.
    Perhaps,
    /// With Rails' or another's task; the platform restarts everything on the new release, if that succeeds.
    Plainly,
    /// With `unstuck migrate`, which restarts and proves it, also where a migration fails.
    Proved,
}

impl Migrates {
    /// The word in our documents.
    pub fn name(self) -> &'static str {
        match self {
            Self::No => "no",
            Self::Perhaps => "unknown",
            Self::Plainly => "migrates",
            Self::Proved => "proved",
        }
    }
}

/// The lines of a `Procfile` that Heroku reads: number from 1, process type, command. Its own rule, by the specification of
/// heroku/buildpacks-procfile: blanks may come first, the colon may be missing, the blank behind it may not.
pub fn processes(text: &str) -> impl Iterator<Item = (usize, &str, &str)> {
    text.lines().enumerate().filter_map(|(index, line)| process(line).map(|(kind, command)| (index + 1, kind, command)))
}

fn process(line: &str) -> Option<(&str, &str)> {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    let line = line.trim_start();
    let (kind, rest) = line.split_at(line.find(|c| !legal(c)).unwrap_or(line.len()));
    let rest = rest.strip_prefix(':').unwrap_or(rest);
    let command = rest.trim();
    (!kind.is_empty() && !command.is_empty() && rest.starts_with(char::is_whitespace)).then_some((kind, command))
}

/// The release line of a `Procfile`: the last of several.
pub fn of_procfile(text: &str) -> Option<Line> {
    let (number, _, command) = processes(text).filter(|(_, kind, _)| *kind == "release").last()?;
    Some(Line { file: "Procfile", number, command: command.to_owned() })
}

/// The release command of a `heroku.yml`: `release.command`, a string or a list, of which each is run.
pub fn of_heroku_yml(text: &str) -> Option<Line> {
    let document: serde_yaml::Value = serde_yaml::from_str(text).ok()?;
    let command = document.get("release")?.get("command")?;
    let words = |word: &serde_yaml::Value| word.as_str().map(str::to_owned);
    let command = match command.as_sequence() {
        Some(commands) => commands.iter().filter_map(words).collect::<Vec<_>>().join("\n"),
        None => words(command)?,
    };
    let number = text.lines().position(|line| line.starts_with("release:")).map_or(0, |index| index + 1);
    Some(Line { file: "heroku.yml", number, command })
}

/// The release commands of a `project.toml`, which Heroku's release-phase buildpack runs in their order:
/// `[[com.heroku.phase.release]]`, each with `command = ".."` and `args = [".."]`. Their words are all that is read of it.
pub fn of_project_toml(text: &str) -> Option<Line> {
    const HEAD: &str = "[[com.heroku.phase.release]]";
    let lines = || text.lines().map(str::trim);
    let number = lines().position(|line| line.starts_with(HEAD))? + 1;
    let (mut commands, mut is_release): (Vec<Vec<String>>, bool) = (Vec::new(), false);
    for line in lines().filter(|line| !line.starts_with('#')) {
        if line.starts_with('[') {
            is_release = line.starts_with(HEAD);
            commands.extend(is_release.then(Vec::new));
        } else if let Some(words) = commands.last_mut().filter(|_| is_release) {
            words.extend(quoted(line));
        }
    }
    let joined = commands.iter().filter_map(|words| shlex::try_join(words.iter().map(String::as_str)).ok());
    let command = joined.collect::<Vec<_>>().join("\n");
    (!command.is_empty()).then_some(Line { file: "project.toml", number, command })
}

/// The strings in a line of TOML, of both kinds.
fn quoted(line: &str) -> Vec<String> {
    let (mut words, mut letters) = (Vec::new(), line.chars());
    while let Some(quote) = letters.find(|letter| matches!(letter, '"' | '\'' | '#')) {
        if quote == '#' {
            break;
        }
        let mut word = String::new();
        while let Some(letter) = letters.next().filter(|letter| *letter != quote) {
            let is_escape = letter == '\\' && quote == '"';
            word.extend(if is_escape { letters.next() } else { Some(letter) });
        }
        words.push(word);
    }
    words
}

/// Gives the text of a file of the application, where there is such a file.
type Script<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Whether the command migrates. Scripts are followed one level.
pub fn migrates(command: &str, script: Script) -> Migrates {
    lines(command).map(|line| step(line, Some(script))).max().unwrap_or(Migrates::No)
}

fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'))
}

/// One line of shell, whose words are looked at wherever they stand: behind `bundle exec`, `&&`, an assignment.
fn step(line: &str, script: Option<Script>) -> Migrates {
    let Some(raw) = shlex::split(line) else { return Migrates::Perhaps };
    let words: Vec<&str> = raw.iter().map(|word| word.trim_matches([';', '(', ')', '&', '|'])).collect();
    let base = |word: &str| word.rsplit('/').next().unwrap_or(word).to_owned();
    let mut best = Migrates::No;
    let mut told = 0;
    for (index, word) in words.iter().enumerate() {
        // What belongs to a command of ours has been looked at with it.
        if index < told {
            continue;
        }
        let found = if base(word) == "unstuck" {
            told = index + length_of_command(&raw[index..]);
            let own = &words[index..told];
            match own.contains(&"migrate") {
                true if own.contains(&"--dry-run") => Migrates::No,
                true => Migrates::Proved,
                false => Migrates::Perhaps,
            }
        } else if is_migrating_task(word) {
            Migrates::Plainly
        } else if word.contains(char::is_whitespace) {
            // The argument of `sh -c`.
            lines(word).map(|line| step(line, script)).max().unwrap_or(Migrates::No)
        } else if let Some(text) = script.and_then(|script| script(word)) {
            // What it runs may run other things in turn.
            lines(&text).map(|line| step(line, None)).max().unwrap_or(Migrates::No).max(Migrates::Perhaps)
        } else if is_silent(word) {
            Migrates::No
        } else {
            Migrates::Perhaps
        };
        best = best.max(found);
    }
    // `echo db:migrate` says it, and no more.
    if words.first() == Some(&"echo") && !line.contains(['&', '|', ';', '$', '`']) { Migrates::No } else { best }
}

/// How many words the first command has, without those of a command that it is to run.
fn length_of_command(words: &[String]) -> usize {
    let end = words.iter().position(|word| matches!(word.as_str(), "--" | "&&" | "||" | "|" | "&" | ";"));
    let closed = words.iter().position(|word| word.ends_with([';', '&', '|', ')'])).map(|at| at + 1);
    end.into_iter().chain(closed).min().unwrap_or(words.len())
}

fn is_migrating_task(word: &str) -> bool {
    const OTHERS: [&str; 6] = ["status", "down", "up", "redo", "reset", "rollback"];
    // The name may carry arguments: `db:migrate[x]`.
    let task = word.split('[').next().unwrap_or(word);
    match task.strip_prefix("db:migrate") {
        Some("") => true,
        Some(rest) => rest.strip_prefix(':').is_some_and(|rest| !OTHERS.contains(&rest)),
        None => task == "db:prepare" || task.starts_with("db:prepare:"),
    }
}

/// Words that run nothing of the application, or are nothing by themselves.
fn is_silent(word: &str) -> bool {
    const WORDS: [&str; 22] = [
        "", "echo", "true", ":", "exit", "sleep", "set", "env", "exec", "bundle", "date", "if", "then", "fi", "else",
        "do", "done", "[", "]", "cd", "&&", "||",
    ];
    let assignment = word
        .split_once('=')
        .is_some_and(|(name, _)| name.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_'));
    WORDS.contains(&word) || assignment || word.starts_with('-') || word.bytes().all(|byte| byte.is_ascii_digit())
}

/// What to say of the release line where migrations are pending.
pub fn judge(line: Option<&Line>, migrates: Migrates) -> Option<Finding> {
    let remedy = |steps: &[&str]| steps.iter().map(|&step| step.to_owned()).collect();
    let at = |line: &Line| Place {
        path: line.file.into(),
        line: line.number,
        column: usize::from(line.number > 0),
        excerpt: if line.file == "Procfile" { format!("release: {}", line.command) } else { String::new() },
    };
    let finding = |rule, severity, place, message: &str, remedy| Finding {
        rule,
        severity,
        place,
        message: message.to_owned(),
        remedy,
    };
    match (line, migrates) {
        (_, Migrates::Proved | Migrates::Plainly) => None,
        (None, _) => Some(finding(
            "no-release",
            Severity::Refusal,
            Some(Place { path: "Procfile".into(), line: 0, column: 0, excerpt: String::new() }),
            "no release line runs the pending migrations: the new code would meet the old schema",
            remedy(&["add to the Procfile: `release: unstuck migrate`, with a blank behind the colon"]),
        )),
        (Some(line), Migrates::No) => Some(finding(
            "no-release",
            Severity::Refusal,
            Some(at(line)),
            "the release line does not run the pending migrations: the new code would meet the old schema",
            remedy(&["make it `release: unstuck migrate`, or call that in it"]),
        )),
        (Some(line), Migrates::Perhaps) => Some(finding(
            "unread-release",
            Severity::Note,
            Some(at(line)),
            "cannot tell whether this release line runs the pending migrations",
            remedy(&["call `unstuck migrate` in the line itself"]),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_release_line_is_found() {
        for (text, expected) in [
            ("web: puma\nrelease: bin/rails db:migrate\n", Some((2, "bin/rails db:migrate"))),
            ("  release: a\n\trelease\tunstuck migrate  \r\n", Some((2, "unstuck migrate"))),
            ("#release: x\n# release: x\nreleases: y\nRelease: x\nweb: release: x\n", None),
            ("release:unstuck migrate", None),
            ("release:\nrelease: \nrelease\n", None),
            ("", None),
        ] {
            let line = of_procfile(text);
            assert_eq!(line.as_ref().map(|line| (line.number, line.command.as_str())), expected, "{text:?}");
        }
        for (text, expected) in [
            ("build: {}\nrelease:\n  image: web\n  command:\n    - rails db:migrate\n", Some((2, "rails db:migrate"))),
            ("release:\n  command: unstuck migrate\n", Some((1, "unstuck migrate"))),
            ("release: x\n", None),
            ("release: [", None),
        ] {
            let line = of_heroku_yml(text);
            assert_eq!(line.as_ref().map(|line| (line.number, line.command.as_str())), expected, "{text:?}");
        }
        let head = "[_]\nschema-version = \"0.2\"\n\n[[com.heroku.phase.release]]\n";
        for (text, expected) in [
            (
                format!("{head}command = \"bash\"\nargs = [\"-c\", \"rake db:migrate\"]\n"),
                Some("bash -c 'rake db:migrate'"),
            ),
            (
                format!("{head}command = 'bin/rails' # \"x\"\nargs = [\n  \"db:migrate\",\n]\n[other]\nx = \"y\""),
                Some("bin/rails db:migrate"),
            ),
            (
                format!("{head}# command = \"a\"\ncommand = \"b\"\n{head}command = \"c \\\"d\\\"\""),
                Some("b\n'c \"d\"'"),
            ),
            ("[com.heroku.phase.release-build]\ncommand = \"bash\"\n".to_owned(), None),
            (head.to_owned(), None),
            (String::new(), None),
        ] {
            let line = of_project_toml(&text);
            let expected = expected.map(|command| (4, command));
            assert_eq!(line.as_ref().map(|line| (line.number, line.command.as_str())), expected, "{text:?}");
        }
    }

    #[test]
    fn a_command_is_followed_into_scripts() {
        let script = |path: &str| match path.trim_start_matches("./") {
            "bin/release" => Some("#!/bin/sh\nset -e\n# rails db:migrate\nbundle exec rails db:migrate\n".to_owned()),
            "bin/proved" => Some("unstuck -v migrate\n".to_owned()),
            "bin/deeper" => Some("bin/release\n".to_owned()),
            "bin/rails" => Some("#!/usr/bin/env ruby\nrequire 'rails/commands'\n".to_owned()),
            _ => None,
        };
        for (command, expected) in [
            ("unstuck migrate", Migrates::Proved),
            ("vendor/bin/unstuck --json migrate -- bin/rails db:migrate", Migrates::Proved),
            ("unstuck status", Migrates::Perhaps),
            ("unstuck migrate --dry-run", Migrates::No),
            ("unstuck migrate --dry-run && bin/rails db:migrate", Migrates::Plainly),
            ("unstuck migrate -- bin/migrate --dry-run", Migrates::Proved),
            ("unstuck status; bin/rails db:migrate", Migrates::Plainly),
            ("(unstuck status) && bin/rails db:migrate", Migrates::Plainly),
            ("unstuck migrate --dry-run; bin/rails db:migrate", Migrates::Plainly),
            ("unstuck migrate && bin/warm --dry-run", Migrates::Proved),
            ("bin/rails db:migrate", Migrates::Plainly),
            ("bundle exec rake db:migrate:primary", Migrates::Plainly),
            ("rails db:prepare && echo done", Migrates::Plainly),
            ("bash -c 'sleep 1; rails db:migrate'", Migrates::Plainly),
            ("rails db:migrate:status", Migrates::Perhaps),
            ("sh ./bin/release", Migrates::Plainly),
            ("bin/proved", Migrates::Proved),
            ("bin/deeper", Migrates::Perhaps),
            ("bin/elsewhere", Migrates::Perhaps),
            ("rake deploy:all", Migrates::Perhaps),
            ("echo db:migrate", Migrates::No),
            ("set -e; true && exit 0", Migrates::No),
            ("RAILS_ENV=production exit 0", Migrates::No),
            ("sh -c 'unbalanced", Migrates::Perhaps),
        ] {
            assert_eq!(migrates(command, &script), expected, "{command}");
        }
    }
}
