//! What migrations do to the code that runs while they run, by reading them: Ruby by Ruby's own parser, SQL by a parser of SQL.
//!
//! ```text
//! script + sql -> deeds -> judge (models, schema) -> findings, class
//! ```
//!
//! Pure: nothing is executed, and no file is opened. What cannot be read is said, never guessed.

mod allow;
mod classes;
mod compute;
mod condition;
mod deed;
mod dsl;
mod finder;
mod heredoc;
mod inflect;
mod judge;
mod models;
mod rules;
mod schema;
mod script;
mod sql;
mod types;
mod value;
mod words;

use std::path::{Path, PathBuf};

pub use self::allow::{Allowance, allowances};
use self::deed::Deed;
use self::judge::{Verdict, World};
use self::models::Models;
pub use self::rules::{RULES, Rule, rule};
use self::schema::Schema;
use self::script::Script;
use crate::findings::{Finding, Place, Severity};
use crate::rails::Engine;
use crate::rules as all_rules;

/// A larger migration is not read: no hand has written it.
pub const MAX_MIGRATION: usize = 256 << 10;

/// As deep as one byte of Ruby can make the walk through it: a chain of calls nests at every second byte, without end.
const STACK_PER_BYTE: usize = 1 << 10;

/// So much of a stack is in use when reading begins, and more.
const STACK_OF_CALLERS: usize = 1 << 20;

/// One file's path and text.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    pub path: &'a Path,
    pub text: &'a [u8],
}

/// What the deployed commit knows. All of it is read only when there is a migration to judge.
#[derive(Debug, Default)]
pub struct Deployed {
    /// `app/models/**/*.rb`, and what else holds classes.
    pub models: Vec<(PathBuf, Vec<u8>)>,
    /// `db/schema.rb` or `db/structure.sql`.
    pub schema: Option<(PathBuf, Vec<u8>)>,
    /// Its migrations in order, read only where there is no schema file.
    pub migrations: Vec<(PathBuf, Vec<u8>)>,
    /// PostgreSQL where it is not known.
    pub engine: Option<Engine>,
    /// The version of Rails that is going to run the migrations, where it is known.
    pub rails: Option<(u32, u32)>,
    /// As the server or its people say it: `15.4`, `10.11.6-MariaDB`.
    pub server_version: Option<String>,
}

impl Deployed {
    /// The length of each file of Ruby that is read.
    fn sizes(&self) -> impl Iterator<Item = usize> {
        let files = self.models.iter().chain(&self.schema).chain(&self.migrations);
        files.map(|(path, text)| if Schema::is_sql(path) { 0 } else { text.len().min(schema::MAX_RUBY) })
    }
}

/// Who notices a migration before the restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    NoProcessCanNotice,
    NeedsRestart,
    BreaksRunningCode,
}

impl Class {
    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            Self::NoProcessCanNotice => "no process can notice",
            Self::NeedsRestart => "needs the restart",
            Self::BreaksRunningCode => "breaks running code until the restart",
        }
    }

    /// For records, which are short.
    pub fn letter(self) -> char {
        match self {
            Self::NoProcessCanNotice => 'n',
            Self::NeedsRestart => 'r',
            Self::BreaksRunningCode => 'b',
        }
    }
}

/// What one migration does, and what is wrong with that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reading {
    /// In plain words, in order.
    pub what: Vec<String>,
    pub class: Class,
    pub findings: Vec<Finding>,
}

/// Reads one migration.
pub fn read(migration: &Source, deployed: &Deployed) -> Reading {
    read_all(&[*migration], deployed).pop().unwrap_or_else(|| unread(migration, "it cannot be read"))
}

/// Reads the migrations of one push, in the order in which they run: what one has made, nobody uses when the next one runs.
pub fn read_all(migrations: &[Source], deployed: &Deployed) -> Vec<Reading> {
    parse(migrations, deployed.engine).judge(deployed)
}

/// The migrations of one push, parsed and not yet judged.
pub struct Parsed<'a> {
    migrations: &'a [Source<'a>],
    engine: Engine,
    /// One for each migration; why it could not be parsed.
    scripts: Vec<Result<Script, Unparsed>>,
}

enum Unparsed {
    TooLarge,
    Broken(script::Broken),
    /// There was no thread to be had, or the parser failed.
    Failed,
}

/// Parses the migrations of one push, in the order in which they run.
pub fn parse<'a>(migrations: &'a [Source<'a>], engine: Option<Engine>) -> Parsed<'a> {
    let engine = engine.unwrap_or(Engine::Postgresql);
    let one = |migration: &Source| match migration.text.len() {
        length if length > MAX_MIGRATION => Err(Unparsed::TooLarge),
        _ => script::script(migration.text, engine).map_err(Unparsed::Broken),
    };
    let sizes = migrations.iter().map(|migration| migration.text.len().min(MAX_MIGRATION));
    let scripts = with_stack(sizes, || migrations.iter().map(one).collect());
    let failed = || migrations.iter().map(|_| Err(Unparsed::Failed)).collect();
    Parsed { migrations, engine, scripts: scripts.unwrap_or_else(failed) }
}

impl Parsed<'_> {
    /// Whether any of them does something that has to be held against what is deployed. What cannot be read is said as it is.
    pub fn has_deeds(&self) -> bool {
        let mut changes = self.scripts.iter().flatten().flat_map(|script| &script.changes);
        changes.any(|change| !matches!(change.deed, Deed::Dynamic { .. }))
    }

    /// Holds them against what is deployed.
    pub fn judge(self, deployed: &Deployed) -> Vec<Reading> {
        let Self { migrations, engine, scripts } = self;
        let walk = || {
            let schema = Schema::of(deployed.schema.as_ref(), &deployed.migrations, engine);
            let mut world =
                World::new(Models::of(&deployed.models), schema, engine, deployed.server_version.as_deref());
            let each = migrations.iter().zip(&scripts);
            each.map(|(migration, script)| reading(migration, script, deployed.rails, &mut world)).collect()
        };
        let failed = || migrations.iter().map(|migration| unread(migration, "it cannot be read here")).collect();
        with_stack(deployed.sizes(), walk).unwrap_or_else(failed)
    }
}

/// Does what reads Ruby files of these lengths, on a stack that is deep enough for them: ours, or a thread's own, of which memory
/// that is not touched costs nothing. Without a file there is nothing deep.
fn with_stack<T: Send>(sizes: impl Iterator<Item = usize>, work: impl FnOnce() -> T + Send) -> Option<T> {
    let Some(longest) = sizes.max() else { return Some(work()) };
    let stack = (4 << 20) + longest * STACK_PER_BYTE;
    if stack + STACK_OF_CALLERS <= main_stack() {
        return Some(work());
    }
    std::thread::scope(|scope| {
        std::thread::Builder::new().stack_size(stack).spawn_scoped(scope, work).ok()?.join().ok()
    })
}

/// The stack that this thread may use, where that is known without asking for long: the first thread's, as far as it may grow.
fn main_stack() -> usize {
    if std::thread::current().name() != Some("main") {
        return 0;
    }
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: getrlimit writes into the one structure that it is given.
    let told = unsafe { libc::getrlimit(libc::RLIMIT_STACK, &raw mut limit) } == 0;
    if told { usize::try_from(limit.rlim_cur).unwrap_or(usize::MAX) } else { 0 }
}

fn reading(
    migration: &Source,
    script: &Result<Script, Unparsed>,
    rails: Option<(u32, u32)>,
    world: &mut World,
) -> Reading {
    let script = match script {
        Ok(script) => script,
        Err(Unparsed::TooLarge) => return unread(migration, "the file is too large to be read"),
        Err(Unparsed::Failed) => return unread(migration, "it cannot be read here"),
        Err(Unparsed::Broken(broken)) => {
            let message = format!("the file is not valid Ruby: {}", broken.why);
            let finding = finding(migration, "syntax-error", Severity::Refusal, broken.at, message);
            return Reading {
                what: Vec::new(),
                class: Class::BreaksRunningCode,
                findings: finding.into_iter().collect(),
            };
        }
    };
    let mut what: Vec<String> = script.changes.iter().map(|change| change.deed.words()).collect();
    what.dedup();
    let (verdicts, class) = world.judge(script);
    let mut findings: Vec<Finding> = verdicts.into_iter().filter_map(|verdict| told(migration, verdict)).collect();
    findings.splice(0..0, wrong_version(migration, script, rails));
    // One expression may be dynamic in more than one way: a line is told once.
    let line = |finding: &Finding| finding.place.as_ref().map(|place| place.line);
    findings.dedup_by(|one, other| {
        one == other || (one.rule == "dynamic" && other.rule == "dynamic" && line(one) == line(other))
    });
    Reading { what, class, findings: excepted(migration, script, findings) }
}

/// Whether this Rails refuses the class for the version in its brackets.
fn wrong_version(migration: &Source, script: &Script, rails: Option<(u32, u32)>) -> Option<Finding> {
    let (at, asked) = script.version?;
    let (major, minor) = rails?;
    let message = match asked {
        Some(asked) if asked > (major, minor) => {
            format!("ActiveRecord::Migration[{}.{}] is not known to Rails {major}.{minor}", asked.0, asked.1)
        }
        None if (major, minor) >= (5, 1) => {
            format!("ActiveRecord::Migration without a version in brackets is not supported by Rails {major}.{minor}")
        }
        _ => return None,
    };
    finding(migration, "migration-version", Severity::Refusal, at, message)
}

/// The version of Rails in a `Gemfile.lock`.
pub fn rails_of_lock(text: &[u8]) -> Option<(u32, u32)> {
    let text = String::from_utf8_lossy(text);
    let version = text.lines().find_map(|line| line.strip_prefix("    activerecord ("))?;
    finder::numbers(version.split_once(')')?.0)
}

/// Applies the exceptions that the file itself makes. One for a call is one for the statements in its heredoc.
fn excepted(migration: &Source, script: &Script, mut findings: Vec<Finding>) -> Vec<Finding> {
    let ends: Vec<usize> =
        migration.text.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at).collect();
    let line_of = |at: usize| ends.partition_point(|end| *end < at) + 1;
    let calls: Vec<(usize, usize)> =
        script.inside.iter().map(|(statement, call)| (line_of(*statement), line_of(*call))).collect();
    for allowance in allowances(migration.text) {
        if allowance.reason.is_empty() {
            let message = format!("the comment allows {:?} without a reason, and so it does not", allowance.rule);
            let at = offset_of(migration.text, allowance.line);
            findings.extend(finding(migration, "allow-without-reason", Severity::Warning, at, message));
            continue;
        }
        if all_rules::rule(&allowance.rule).is_none() {
            let message = format!("no rule has the name {:?}, so the comment allows nothing", allowance.rule);
            let at = offset_of(migration.text, allowance.line);
            findings.extend(finding(migration, "allow-unknown-rule", Severity::Warning, at, message));
        }
        for finding in &mut findings {
            let line = finding.place.as_ref().map_or(0, |place| place.line);
            let of_call = calls.iter().filter(|(statement, _)| *statement == line).map(|(_, call)| *call);
            if finding.severity > Severity::Note
                && of_call.chain([line]).any(|line| allowance.covers(finding.rule, line))
            {
                finding.severity = Severity::Note;
                finding.message += &format!(" (allowed: {})", allowance.reason);
            }
        }
    }
    findings
}

/// A verdict as a finding, whose remedy names what it is about.
fn told(migration: &Source, verdict: Verdict) -> Option<Finding> {
    let Verdict { rule, severity, at, message, table, column } = verdict;
    let mut finding = finding(migration, rule.name, severity, at, message)?;
    for step in &mut finding.remedy {
        if let Some(table) = &table {
            *step = step.replace("TABLE", &format!(":{table}"));
        }
        if let Some(column) = &column {
            *step = step.replace("\"COLUMN", &format!("\"{column}")).replace("COLUMN,", &format!(":{column},"));
        }
    }
    Some(finding)
}

fn unread(migration: &Source, why: &str) -> Reading {
    let finding = finding(migration, "dynamic", Severity::Note, 0, format!("dynamic: {why}; not checked"));
    let what = vec![format!("{why}; not checked")];
    Reading { what, class: Class::BreaksRunningCode, findings: finding.into_iter().collect() }
}

fn finding(migration: &Source, name: &str, severity: Severity, at: usize, message: String) -> Option<Finding> {
    let rule = rule(name)?;
    let remedy = rule.safe.iter().map(|step| (*step).to_owned()).collect();
    Some(Finding { rule: rule.name, severity, place: Some(place(migration, at)), message, remedy })
}

/// The line and the column of an offset.
fn place(migration: &Source, at: usize) -> Place {
    let text = migration.text;
    let before = &text[..at.min(text.len())];
    let begin = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |newline| newline + 1);
    let end = text[begin..].iter().position(|byte| *byte == b'\n').map_or(text.len(), |length| begin + length);
    Place {
        path: migration.path.to_owned(),
        line: before.split(|byte| *byte == b'\n').count(),
        column: before.len() - begin + 1,
        excerpt: String::from_utf8_lossy(&text[begin..end]).into_owned(),
    }
}

/// Where a line begins.
fn offset_of(text: &[u8], line: usize) -> usize {
    text.split_inclusive(|byte| *byte == b'\n').take(line.saturating_sub(1)).map(<[u8]>::len).sum()
}
