//! What a Procfile says, and whether its `release:` line can keep the promise. Pure.

use std::collections::BTreeMap;

use crate::release;

/// Process type -> command.
pub fn parse(text: &str) -> BTreeMap<String, String> {
    release::processes(text).map(|(_, kind, command)| (kind.to_owned(), command.to_owned())).collect()
}

/// What is wrong with a `release:` line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flaw {
    /// Migrations run, but not by `unstuck migrate`.
    MigratesAlone,
    /// Nothing migrates.
    MigratesNothing,
    /// It also migrates beside `unstuck migrate`.
    MigratesBeside,
    /// What follows hides the exit code of `unstuck migrate`: `;`, `||`, `|`, `&`.
    Hidden(&'static str),
    /// It may never come to run: behind `||` or `|`.
    Unreached(&'static str),
    /// What follows behind `&&` may fail the release after its migration.
    NotLast,
    /// It runs behind a pooler that this very line starts.
    Pooled,
}

/// One simple command of a shell line, and the operator before it.
struct Part {
    operator: &'static str,
    words: Vec<String>,
}

impl Part {
    /// The words behind assignments and behind programs that only run another one.
    fn program(&self) -> &[String] {
        let runs_another = |word: &str| {
            let name = word.rsplit('/').next().unwrap_or_default();
            word.contains('=')
                || matches!(name, "bundle" | "exec" | "env" | "time" | "nice" | "command")
                || name.starts_with("start-pgbouncer")
        };
        let begin = self.words.iter().position(|word| !runs_another(word)).unwrap_or(self.words.len());
        &self.words[begin..]
    }

    fn is_unstuck(&self) -> bool {
        let program = self.program();
        let named = program.first().is_some_and(|word| word.rsplit('/').next() == Some("unstuck"));
        named && program.iter().any(|word| word == "migrate")
    }

    fn migrates(&self) -> bool {
        let tasks = ["db:migrate", "db:prepare", "db:schema:load", "db:setup"];
        !self.is_unstuck() && self.words.iter().any(|word| tasks.iter().any(|task| word.starts_with(task)))
    }
}

/// The flaws of a `release:` line, the worst first.
pub fn flaws(line: &str) -> Vec<Flaw> {
    let parts = parts(line);
    // `bash -c "..."` is judged by what it runs.
    if let [Part { words, .. }] = &parts[..]
        && let [shell, option, script, ..] = &words[..]
        && matches!(shell.rsplit('/').next(), Some("sh" | "bash" | "dash"))
        && option.starts_with('-')
        && option.ends_with('c')
    {
        return flaws(script);
    }
    let alone = parts.iter().any(Part::migrates);
    let Some(at) = parts.iter().position(Part::is_unstuck) else {
        return vec![if alone { Flaw::MigratesAlone } else { Flaw::MigratesNothing }];
    };
    let mut flaws = Vec::new();
    if let "||" | "|" = parts[at].operator {
        flaws.push(Flaw::Unreached(parts[at].operator));
    }
    let after = &parts[at + 1..];
    if let Some(hiding) = after.iter().map(|part| part.operator).find(|operator| *operator != "&&") {
        flaws.push(Flaw::Hidden(hiding));
    } else if !after.is_empty() {
        flaws.push(Flaw::NotLast);
    }
    if alone {
        flaws.push(Flaw::MigratesBeside);
    }
    if parts[at]
        .words
        .iter()
        .any(|word| word.rsplit('/').next().is_some_and(|name| name.starts_with("start-pgbouncer")))
    {
        flaws.push(Flaw::Pooled);
    }
    flaws
}

/// A shell line, taken apart at its operators as far as quotes go. An `&` at its end leaves an empty part behind.
fn parts(line: &str) -> Vec<Part> {
    const OPERATORS: [&str; 5] = ["&&", "||", ";", "|", "&"];
    let mut parts = Vec::new();
    let (mut operator, mut begin, mut at, mut quote) = ("", 0, 0, None);
    let words = |text: &str| shlex::split(text).unwrap_or_else(|| text.split_whitespace().map(str::to_owned).collect());
    while let Some(c) = line[at..].chars().next() {
        let found = OPERATORS.into_iter().find(|operator| line[at..].starts_with(operator));
        // `2>&1` and `&>file` are no operators of this kind.
        let redirects = c == '&' && (line[..at].ends_with(['>', '<']) || line[at..].starts_with("&>"));
        match (quote, found) {
            (None, Some(next)) if !redirects => {
                parts.push(Part { operator, words: words(&line[begin..at]) });
                (operator, begin) = (next, at + next.len());
                at = begin;
                continue;
            }
            (None, _) if c == '\'' || c == '"' => quote = Some(c),
            (None | Some('"'), _) if c == '\\' => at += line[at + 1..].chars().next().map_or(0, char::len_utf8),
            (Some(open), _) if c == open => quote = None,
            _ => {}
        }
        at += c.len_utf8();
    }
    let last = words(&line[begin..]);
    // A `;` may stand at the end of a line without meaning anything.
    if !(last.is_empty() && operator == ";") {
        parts.push(Part { operator, words: last });
    }
    parts
}

/// Programs that run the application's own code.
const RUBY: [&str; 25] = [
    "bundle",
    "clockwork",
    "crono",
    "delayed_job",
    "falcon",
    "faktory-worker",
    "good_job",
    "iodine",
    "jobs",
    "karafka",
    "passenger",
    "puma",
    "que",
    "rackup",
    "rails",
    "rake",
    "resque",
    "ruby",
    "shoryuken",
    "sidekiq",
    "sidekiqswarm",
    "sneakers",
    "solid_queue",
    "thin",
    "unicorn",
];

/// Programs that know nothing of Ruby.
const OTHERS: [&str; 28] = [
    "apache2",
    "bun",
    "caddy",
    "deno",
    "echo",
    "elixir",
    "go",
    "haproxy",
    "java",
    "memcached",
    "mix",
    "nginx",
    "node",
    "npm",
    "npx",
    "php",
    "pnpm",
    "python",
    "python3",
    "redis-server",
    "sleep",
    "tail",
    "tor",
    "true",
    "varnishd",
    "vector",
    "websocat",
    "yarn",
];

/// Whether a process has the application in its memory, and with it Active Record's picture of the tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holds {
    Yes,
    No,
    /// A program or a script that says nothing of it.
    Unknown,
}

/// Whether a command runs the application. `script` is the text of a file of the application, where there is one at a path. A
/// process below `unstuck exec` restarts itself, and holds nothing that is old.
pub fn holds_active_record(command: &str, script: impl Fn(&str) -> Option<String>) -> Holds {
    let parts = parts(command);
    let name =
        |word: &str| word.rsplit('/').next().unwrap_or_default().split(':').next().unwrap_or_default().to_owned();
    let is_one_of = |names: &[&str], words: &[String]| words.iter().any(|word| names.contains(&name(word).as_str()));
    let guards = |program: &[String]| {
        program.first().is_some_and(|word| name(word) == "unstuck") && program.iter().any(|word| word == "exec")
    };
    if parts.iter().any(|part| guards(part.program())) {
        return Holds::No;
    }
    if parts.iter().any(|part| is_one_of(&RUBY, &part.words)) {
        return Holds::Yes;
    }
    // What the last part runs stays; what stands before it only prepares.
    let Some(program) = parts.last().and_then(|part| part.program().first()) else { return Holds::No };
    if OTHERS.contains(&name(program).as_str()) {
        return Holds::No;
    }
    let Some(text) = script(program) else { return Holds::Unknown };
    let code = text.lines().filter(|line| line.starts_with("#!") || !line.trim_start().starts_with('#'));
    let words: Vec<String> =
        code.flat_map(|line| line.split([' ', '\t', '"', '\'', '!', ';'])).map(str::to_owned).collect();
    match (is_one_of(&RUBY, &words), is_one_of(&OTHERS, &words)) {
        (true, _) => Holds::Yes,
        (false, true) => Holds::No,
        (false, false) => Holds::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_line_and_its_flaws() {
        for (line, expected) in [
            ("unstuck migrate", &[][..]),
            ("./bin/unstuck migrate -v", &[]),
            ("bundle exec rake assets:sync && A=b unstuck migrate", &[]),
            ("unstuck migrate -- bin/rails db:migrate:primary", &[]),
            ("echo 'a; b || c' && unstuck migrate", &[]),
            ("unstuck migrate 2>&1", &[]),
            ("unstuck migrate;", &[]),
            ("bash -c 'unstuck migrate'", &[]),
            ("bash -lc 'unstuck migrate || true'", &[Flaw::Hidden("||")]),
            ("unstuck migrate || true", &[Flaw::Hidden("||")]),
            ("unstuck migrate; echo done", &[Flaw::Hidden(";")]),
            ("unstuck migrate | tee log", &[Flaw::Hidden("|")]),
            ("unstuck migrate &", &[Flaw::Hidden("&")]),
            ("unstuck migrate && rake x", &[Flaw::NotLast]),
            ("unstuck migrate && rake x; true", &[Flaw::Hidden(";")]),
            ("rake x || unstuck migrate", &[Flaw::Unreached("||")]),
            ("bin/rails db:migrate", &[Flaw::MigratesAlone]),
            ("bundle exec rake db:migrate:primary", &[Flaw::MigratesAlone]),
            ("bin/rails db:migrate && unstuck migrate", &[Flaw::MigratesBeside]),
            ("bin/start-pgbouncer unstuck migrate", &[Flaw::Pooled]),
            ("unstuck status", &[Flaw::MigratesNothing]),
            ("echo 'unclosed", &[Flaw::MigratesNothing]),
            ("", &[Flaw::MigratesNothing]),
        ] {
            assert_eq!(flaws(line), expected, "{line}");
        }
    }

    #[test]
    fn lines_that_heroku_reads() {
        let text = "# web: no\nweb: bundle exec puma -p $PORT\nodd!name: x\n\nrelease: unstuck migrate\n";
        let expected = [("release", "unstuck migrate"), ("web", "bundle exec puma -p $PORT")];
        let found = parse(text);
        let found: Vec<_> = found.iter().map(|(kind, command)| (kind.as_str(), command.as_str())).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn who_has_the_application_in_memory() {
        let script = |path: &str| match path {
            "bin/worker" => Some("#!/bin/sh\n# not node\nexec bundle exec sidekiq\n".to_owned()),
            "./script/loop.rb" => Some("#!/usr/bin/env ruby\nloop { }\n".to_owned()),
            "bin/proxy" => Some("#!/bin/sh\n# ruby is elsewhere\nexec nginx -g 'daemon off;'\n".to_owned()),
            "bin/start" => Some("#!/bin/sh\nexec \"$@\"\n".to_owned()),
            _ => None,
        };
        for (command, expected) in [
            ("bundle exec sidekiq -q default", Holds::Yes),
            ("bin/jobs", Holds::Yes),
            ("bin/rails solid_queue:start", Holds::Yes),
            ("env A=b ./bin/good_job start", Holds::Yes),
            ("bin/start-pgbouncer bundle exec puma", Holds::Yes),
            ("bin/worker -q default", Holds::Yes),
            ("./script/loop.rb", Holds::Yes),
            ("unstuck exec -- bundle exec sidekiq", Holds::No),
            ("bin/unstuck exec bin/worker", Holds::No),
            ("unstuck migrate && bundle exec sidekiq", Holds::Yes),
            ("node server.js", Holds::No),
            ("bin/proxy --to puma.example", Holds::No),
            ("bin/start worker", Holds::Unknown),
            ("bin/absent", Holds::Unknown),
            ("./worker", Holds::Unknown),
            ("", Holds::No),
        ] {
            assert_eq!(holds_active_record(command, script), expected, "{command}");
        }
    }
}
