//! Back to an earlier release, behind a guard: code that lacks files for what the database holds is named before anything
//! happens.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use git2::{ErrorClass, ErrorCode, Repository, Tree};
use serde_json::{Value, json};

use super::{SystemClock, health, heroku, leads_to_database, look, reach, review, rules, run_id, runner, targets};
use crate::act::World;
use crate::adapters::files::read_migration;
use crate::adapters::heroku::Heroku;
use crate::adapters::signals::Interrupt;
use crate::adapters::{git, trees};
use crate::args;
use crate::config::{Settings, Types};
use crate::debt::{Intent, Standing, Verdict};
use crate::dynos::{App, Deployed, DynoList, ReleaseStatus, Slug};
use crate::error::{Error, Kind, Result};
use crate::migrations::{Migration, Version};
use crate::plan::Run;
use crate::ports::{ApiError, ApiErrorKind, Clock as _, Platform};
use crate::rails::Engine;
use crate::releases::{before_current, version};
use crate::report::{Reporter, api_failure};
use crate::rollback::{FileAt, Guard, Lacking, Store};
use crate::ruby::{self, Reading, Source};
use crate::verify::{Replaced, Suspects};

/// How many of the newest releases are looked at, for the target and for the files of those after it.
const HISTORY: usize = 50;

/// The platform ends a release command after an hour.
const LONGEST_RELEASE: Duration = Duration::from_mins(70);

/// Between two looks at a release that is pending.
const POLL_MAX: Duration = Duration::from_secs(10);

/// As many migrations fit one screen.
const SHOWN: usize = 10;

/// How many lines of a failed release command are shown.
const LAST_LINES: usize = 15;

pub fn rollback(settings: &Settings, args: &args::Rollback, reporter: &Reporter) -> Result<u8> {
    let heroku = Arc::new(heroku(settings, reporter)?);
    let interrupt =
        Interrupt::listen().map_err(|error| Error::new(Kind::System, "cannot listen to signals").because(error))?;
    let way = Way::find(&heroku, args.release.as_deref())?;
    let (guard, owed) = guard(settings, &heroku, &way, reporter);
    let mut end = End { way: &way, guard: &guard, made: None, outcome: "refused", restart: None };
    tell_guard(&guard, reporter);
    if !guard.is_clear() && !args.force {
        return Ok(end.refuse(reporter));
    }
    // Without the list from before, nobody could say afterwards what was replaced.
    let before = heroku.dynos().map_err(refused)?;
    announce(&way, reporter);
    if let Some(code) = ended_by(&interrupt) {
        end.print(reporter);
        return Ok(code);
    }
    let made = roll_back(&heroku, &way)?;
    reporter.say(&format!("release v{} is made ({})", made.version, made.description));
    let made = wait(settings, &heroku, made, &interrupt, reporter);
    if made.status == ReleaseStatus::Pending {
        return Ok(end.unseen(made, &interrupt, reporter));
    }
    if made.status != ReleaseStatus::Succeeded {
        return Ok(end.failed(made, &heroku, reporter));
    }
    let restart = prove(settings, &way.app, &made, &before, &interrupt, reporter)?;
    if owed {
        reporter.warn("a restart was owed before this rollback, and its record stays: `unstuck restart` settles it");
    }
    (end.outcome, end.made) = ("rolled_back", Some(made));
    Ok(end.done(restart, &interrupt, reporter))
}

/// From where to where.
struct Way {
    app: App,
    current: Deployed,
    current_slug: Option<Slug>,
    target: Deployed,
    target_slug: Option<Slug>,
    /// They descend.
    releases: Vec<Deployed>,
}

/// Nothing was done yet, and nothing will be.
fn refused(error: ApiError) -> Error {
    api_failure("the rollback was not begun", error).as_kind(Kind::Refused)
}

impl Way {
    fn find(heroku: &Heroku, wanted: Option<&str>) -> Result<Self> {
        let app = heroku.app().map_err(refused)?;
        let releases = heroku.history(HISTORY).map_err(refused)?;
        let Some(current) = releases.iter().find(|release| release.current).cloned() else {
            return Err(Error::new(Kind::Refused, format!("none of the newest releases of {} is current", app.name))
                .hint("look at `unstuck releases`: the app may never have been deployed"));
        };
        let target = match wanted {
            Some(text) => named(heroku, &releases, text)?,
            None => before_current(&releases).cloned().ok_or_else(|| {
                Error::new(Kind::Refused, format!("{} has no earlier release to go back to", app.name))
                    .hint("`unstuck releases` lists them; `unstuck rollback vN` names one")
            })?,
        };
        if !target.eligible {
            let why = format!("the platform does not go back to v{} ({})", target.version, target.status.name());
            return Err(Error::new(Kind::Refused, why).hint("choose one that succeeded: `unstuck releases`"));
        }
        let slug = |release: &Deployed| release.slug.as_deref().map(|id| heroku.slug(id)).transpose();
        let current_slug = slug(&current).map_err(refused)?;
        let target_slug = slug(&target).map_err(refused)?;
        Ok(Self { app, current, current_slug, target, target_slug, releases })
    }

    fn current_commit(&self) -> Option<&String> {
        self.current_slug.as_ref()?.commit.as_ref()
    }

    /// The code stays as it is: only config vars go back.
    fn same_code(&self) -> bool {
        self.target.slug.is_some() && self.target.slug == self.current.slug
    }
}

fn named(heroku: &Heroku, releases: &[Deployed], text: &str) -> Result<Deployed> {
    let Some(number) = version(text) else {
        return Err(Error::new(Kind::Usage, format!("{text:?} is not a release: v42, or 42")));
    };
    match releases.iter().find(|release| release.version == number) {
        Some(release) => Ok(release.clone()),
        None => heroku.deployed(number).map_err(|error| match error.kind {
            ApiErrorKind::NotFound => Error::new(Kind::Refused, format!("there is no release v{number}"))
                .hint("`unstuck releases` lists those there are"),
            _ => refused(error),
        }),
    }
}

/// What the older code would not know, and whether a restart is owed already.
fn guard(settings: &Settings, heroku: &Heroku, way: &Way, reporter: &Reporter) -> (Guard, bool) {
    let (asked, owed) = match ask_databases(settings, way, reporter) {
        Ok(Some((databases, owed))) => (Some(databases), owed),
        Ok(None) => (None, false),
        Err(error) => {
            reporter.warn(&format!("the database cannot be asked, so releases are compared instead: {error}"));
            (None, false)
        }
    };
    let mut guard = Guard { asked_databases: asked.is_some(), ..Guard::default() };
    if !way.same_code()
        && let Err(unknown) = compare(settings, heroku, way, asked, &mut guard)
    {
        guard.unknown.push(unknown);
    }
    (guard, owed)
}

/// A database as the guard sees it.
struct Asked {
    name: String,
    /// Of its migrations.
    folders: Vec<PathBuf>,
    applied: Vec<Version>,
    /// Its files in the working directory.
    here: Vec<Migration>,
    engine: Option<Engine>,
}

/// `None`: there is no way to the app's databases from here.
fn ask_databases(settings: &Settings, way: &Way, reporter: &Reporter) -> Result<Option<(Vec<Asked>, bool)>> {
    if !leads_to_database(settings) {
        return Ok(None);
    }
    let Some(mut targets) = targets(settings, reporter)? else { return Ok(None) };
    let facts = look(&mut targets)?;
    let databases = facts
        .iter()
        .zip(&targets)
        .filter(|(facts, _)| !facts.unused)
        .map(|(facts, target)| {
            Ok(Asked {
                name: facts.name.clone(),
                folders: target.config.migrations_paths.iter().map(PathBuf::from).collect(),
                applied: facts.look.applied.clone(),
                here: (target.files)()?.pending(&[]),
                engine: Some(target.config.engine),
            })
        })
        .collect::<Result<_>>()?;
    let run = Run::new(Intent::Restart, String::new(), settings.types.value.clone(), facts, Some(way.app.id.clone()));
    Ok(Some((databases, run.standing() == Standing::Owed)))
}

/// Compares what the databases hold, or else the newer releases, with the target's files. An error says what cannot be told.
fn compare(
    settings: &Settings,
    heroku: &Heroku,
    way: &Way,
    asked: Option<Vec<Asked>>,
    guard: &mut Guard,
) -> Result<(), String> {
    let version = way.target.version;
    let commit = way.target_slug.as_ref().and_then(|slug| slug.commit.as_deref());
    let commit = commit.ok_or_else(|| format!("which git commit v{version} was built from is not known"))?;
    let repository = git::open(&settings.root).map_err(|error| error.to_string())?;
    let repository =
        repository.ok_or_else(|| format!("there is no git repository here that could show the files of v{version}"))?;
    let trees = Trees { repository: &repository, settings };
    let newer = newer_commits(heroku, way, guard);
    let stores = match asked {
        Some(databases) => databases,
        None => trees.unasked(commit, way, &newer)?,
    };
    for Asked { name, folders, applied, here, engine } in stores {
        let target = trees.files(commit, &folders)?;
        let mut newer_files = Vec::new();
        for commit in &newer {
            match trees.files(commit, &folders) {
                Ok(files) => {
                    let at = |migration| FileAt { commit: Some(commit.clone()), migration };
                    newer_files.extend(files.into_iter().map(at));
                }
                // The database itself knows what it holds, and the current release what it brought.
                Err(why) if guard.asked_databases => note(guard, why),
                Err(why) if way.current_commit() == Some(commit) => {
                    return Err(why);
                }
                Err(why) => note(guard, why),
            }
        }
        let (name, applied) = if guard.asked_databases { (Some(name), Some(applied)) } else { (None, None) };
        let mut lacking = Store { name, applied, target, newer: newer_files, here }.lacking();
        trees.read(&mut lacking, engine);
        guard.lacking.extend(lacking);
    }
    Ok(())
}

fn note(guard: &mut Guard, why: String) {
    if !guard.notes.contains(&why) {
        guard.notes.push(why);
    }
}

/// The commits of the releases after the target, newest first: of the current one, and of those that failed or were left again,
/// whose migrations may have run all the same.
fn newer_commits(heroku: &Heroku, way: &Way, guard: &mut Guard) -> Vec<String> {
    let newer = way.releases.iter().filter(|release| release.version > way.target.version);
    let mut commits: Vec<String> = way.current_commit().into_iter().cloned().collect();
    let mut seen: BTreeSet<&str> =
        [&way.current.slug, &way.target.slug].into_iter().flatten().map(String::as_str).collect();
    for release in newer {
        let Some(slug) = release.slug.as_deref().filter(|slug| seen.insert(slug)) else {
            continue;
        };
        match heroku.slug(slug) {
            Ok(Slug { commit: Some(commit), .. }) if !commits.contains(&commit) => commits.push(commit),
            Ok(Slug { commit: Some(_), .. }) => {}
            Ok(Slug { commit: None, .. }) => {
                note(guard, format!("which git commit v{} was built from is not known", release.version));
            }
            Err(error) => note(guard, error.to_string()),
        }
    }
    commits
}

/// The local repository, read at commits of releases.
struct Trees<'a> {
    repository: &'a Repository,
    settings: &'a Settings,
}

impl Trees<'_> {
    /// The Rails root in a commit; none where the commit has none.
    fn root(&self, commit: &str) -> Result<Option<Tree<'_>>, git2::Error> {
        let found = trees::commit(self.repository, commit)?;
        let found = found.ok_or_else(|| git2::Error::new(ErrorCode::NotFound, ErrorClass::Odb, "no such commit"))?;
        trees::root(self.repository, &trees::prefix(self.repository, &self.settings.root), &found)
    }

    fn files(&self, commit: &str, folders: &[PathBuf]) -> Result<Vec<Migration>, String> {
        let files =
            |root: Option<Tree>| root.map_or(Ok(Vec::new()), |root| trees::migrations(self.repository, &root, folders));
        self.root(commit).and_then(files).map_err(|error| unread(commit, &error))
    }

    /// In place of databases that are not asked: Rails' own folders, in the target or in any newer release.
    fn unasked(&self, target: &str, way: &Way, newer: &[String]) -> Result<Vec<Asked>, String> {
        if way.current_commit().is_none() {
            return Err(format!("which git commit v{} was built from is not known", way.current.version));
        }
        // A commit that is not here has no folders, and is named when its files are asked for.
        let mut all = BTreeSet::from([PathBuf::from("db/migrate")]);
        for commit in newer.iter().map(String::as_str).chain([target]) {
            let folders =
                |root: Option<Tree>| root.map_or(Ok(Vec::new()), |root| trees::default_folders(self.repository, &root));
            match self.root(commit).and_then(folders) {
                Ok(folders) => all.extend(folders),
                Err(error) if error.code() == ErrorCode::NotFound => {}
                Err(error) => return Err(unread(commit, &error)),
            }
        }
        let asked = |folder: PathBuf| Asked {
            name: String::new(),
            engine: review::engine(self.settings, &folder),
            folders: vec![folder],
            applied: Vec::new(),
            here: Vec::new(),
        };
        Ok(all.into_iter().map(asked).collect())
    }

    /// Reads what these migrations did, where their files can be read.
    fn read(&self, lacking: &mut [Lacking], engine: Option<Engine>) {
        let (mut of, mut files) = (Vec::new(), Vec::new());
        for lacking in lacking {
            let Some(file) = &lacking.file else { continue };
            let Some(text) = self.text(file) else { continue };
            files.push((file.migration.path.clone(), text));
            of.push(&mut lacking.what);
        }
        let sources: Vec<Source> = files.iter().map(|(path, text)| Source { path, text }).collect();
        let readings = ruby::read_all(&sources, &ruby::Deployed { engine, ..ruby::Deployed::default() });
        for (what, reading) in of.into_iter().zip(readings) {
            *what = words(reading);
        }
    }

    fn text(&self, file: &FileAt) -> Option<Vec<u8>> {
        let path = &file.migration.path;
        let Some(commit) = &file.commit else { return read_migration(&self.settings.root.join(path)) };
        trees::content(self.repository, &self.root(commit).ok()??, path).ok()?
    }
}

/// Never empty: what does nothing is said, and so is what cannot be read.
fn words(reading: Reading) -> Vec<String> {
    let unread = || reading.findings.into_iter().map(|finding| finding.message);
    let mut what = if reading.what.is_empty() { unread().collect() } else { reading.what };
    if what.is_empty() {
        what.push("does nothing to the schema, as far as its file tells".to_owned());
    }
    what
}

fn unread(commit: &str, error: &git2::Error) -> String {
    let short = commit.get(..10).unwrap_or(commit);
    if error.code() == ErrorCode::NotFound {
        return format!("the commit {short} is not in this repository: `git fetch` may bring it");
    }
    format!("the commit {short} cannot be read: {}", error.message())
}

fn tell_guard(guard: &Guard, reporter: &Reporter) {
    for why in &guard.unknown {
        reporter.warn(&format!("whether the older code knows the schema cannot be told: {why}"));
    }
    for note in &guard.notes {
        reporter.detail(&format!("not looked at: {note}"));
    }
    if guard.lacking.is_empty() {
        return;
    }
    reporter.warn(if guard.asked_databases {
        "the database holds these migrations, and the older code has no file for them; a rollback reverts none of them:"
    } else {
        "newer releases have these migrations, so the database is taken to hold them, and the older code has no file for them; \
         a rollback reverts none of them:"
    });
    for line in guard.lacking.iter().take(SHOWN).flat_map(deed) {
        reporter.warn_item(&line);
    }
    if let Some(more) = guard.lacking.len().checked_sub(SHOWN).filter(|more| *more > 0) {
        reporter.warn_item(&format!("... and {more} more; --json has them all"));
    }
}

/// For people: a migration's name, what it did, and where its file can be read.
fn deed(lacking: &Lacking) -> Vec<String> {
    let of =
        lacking.database.as_ref().filter(|name| *name != "primary").map_or(String::new(), |name| format!(" ({name})"));
    match &lacking.file {
        Some(file) => {
            let name = format!("{} {}{of}", lacking.version, file.migration.name);
            let what = lacking.what.iter().map(|words| format!("  - {words}"));
            [name].into_iter().chain(what).chain([format!("  {}", file.command())]).collect()
        }
        None => vec![format!("{}{of}: no release that was looked at has its file, nor is it here", lacking.version)],
    }
}

fn announce(way: &Way, reporter: &Reporter) {
    let Way { app, current, target, .. } = way;
    reporter.say(&format!(
        "rolling {} back from v{} ({}) to v{} ({}): code and config vars, neither add-ons nor the database",
        app.name, current.version, current.description, target.version, target.description
    ));
    if let Some(command) = way.target_slug.as_ref().and_then(|slug| slug.processes.get("release")) {
        reporter.say(&format!("its release command runs again: {command}"));
    }
}

/// Sends the one request. Where its answer was lost, the list of releases tells whether it was acted upon.
fn roll_back(heroku: &Heroku, way: &Way) -> Result<Deployed> {
    let error = match heroku.roll_back(&way.target.id) {
        Ok(made) => return Ok(made),
        Err(error) if error.kind != ApiErrorKind::Unknown => return Err(refused(error)),
        Err(error) => error,
    };
    let newest = way.releases.first().map_or(0, |release| release.version);
    let description = format!("Rollback to v{}", way.target.version);
    let ours = |release: &Deployed| release.version > newest && release.description == description;
    match heroku.history(5) {
        Ok(releases) => match releases.into_iter().find(ours) {
            Some(made) => Ok(made),
            None => Err(api_failure("the API did not roll back, as far as the list of releases tells", error)),
        },
        Err(_) => Err(api_failure("whether the API rolled back cannot be told; `unstuck releases` shows it", error)),
    }
}

/// Waits until the release is not pending any more; where it still is, its end was not seen.
fn wait(settings: &Settings, heroku: &Heroku, made: Deployed, interrupt: &Interrupt, reporter: &Reporter) -> Deployed {
    let clock = SystemClock(Instant::now());
    let mut interval = settings.timeouts.poll.value.min(POLL_MAX);
    let mut made = made;
    if made.status == ReleaseStatus::Pending {
        reporter.say(&format!("waiting for the release command of v{}", made.version));
    }
    while made.status == ReleaseStatus::Pending {
        if interrupt.signal().is_some() || clock.now() >= LONGEST_RELEASE {
            break;
        }
        clock.sleep(interval);
        interval = (interval * 3 / 2).min(POLL_MAX);
        match heroku.deployed(made.version) {
            Ok(now) => made = now,
            Err(error) if matches!(error.kind, ApiErrorKind::Unauthorized | ApiErrorKind::Forbidden) => {
                reporter.warn(&error.to_string());
                break;
            }
            Err(error) => reporter.detail(&error.to_string()),
        }
    }
    made
}

/// What became of the processes.
struct Restart {
    verdict: Verdict,
    healthy: Option<bool>,
    requests: u32,
    dynos: Vec<Replaced>,
}

/// The release restarts every process by itself; the proof is that of a restart. It is about the code: what the ledger says of the
/// schema is left as it is.
fn prove(
    settings: &Settings,
    app: &App,
    made: &Deployed,
    before: &DynoList,
    interrupt: &Interrupt,
    reporter: &Reporter,
) -> Result<Restart> {
    let mut runner = runner(settings, reporter, interrupt.clone());
    let clock = SystemClock(Instant::now());
    let mut run = Run::new(Intent::RestartAll, run_id()?, Types::All, Vec::new(), Some(app.id.clone()));
    run.carrier = Some(made.version);
    let rules = rules(settings, &Types::All);
    let mut world =
        World::new(rules, Vec::new(), reach(settings, reporter), &mut runner, &clock, interrupt.clone(), reporter);
    // The rollback is done: what cannot be asked any more is not proved, and no refusal.
    let verdict = run.drive(&mut world).unwrap_or_else(|error| {
        run.troubles.push(error.to_string());
        Verdict::Owed
    });
    let proved = verdict == Verdict::Settled && run.proof.is_some();
    let healthy = if proved && interrupt.signal().is_none() { health(settings, &mut run, &mut world) } else { None };
    for trouble in &run.troubles {
        reporter.warn(trouble);
    }
    let verdict = if proved { Verdict::Settled } else { Verdict::Owed };
    let after = run.list.as_ref().unwrap_or(before);
    let dynos = Suspects::of(before, &Types::All, None).replaced(after);
    Ok(Restart { verdict, healthy, requests: run.requests, dynos })
}

/// How it ended.
struct End<'a> {
    way: &'a Way,
    guard: &'a Guard,
    made: Option<Deployed>,
    /// `rolled_back`, `refused`, `release_failed`, `unseen`.
    outcome: &'static str,
    restart: Option<Restart>,
}

impl End<'_> {
    fn refuse(&self, reporter: &Reporter) -> u8 {
        let (why, hint) = if self.guard.lacking.is_empty() {
            (
                "it cannot be told whether the older code knows the schema",
                "run this in the app's git repository, with all of its commits, or go back all the same with --force",
            )
        } else {
            (
                "the older code would run on a schema that it does not know",
                "revert these migrations with the current code first, or go back all the same with --force",
            )
        };
        let message = format!("not rolled back to v{}: {why}", self.way.target.version);
        let error = Error::new(Kind::Refused, message).hint(hint);
        reporter.error_with(&error, self.document());
        error.kind.exit_code()
    }

    /// The release goes on by itself.
    fn unseen(&mut self, made: Deployed, interrupt: &Interrupt, reporter: &Reporter) -> u8 {
        reporter
            .warn(&format!("release v{} is still pending, and goes on without us: `unstuck releases`", made.version));
        (self.outcome, self.made) = ("unseen", Some(made));
        self.print(reporter);
        ended_by(interrupt).unwrap_or(4)
    }

    fn failed(&mut self, made: Deployed, heroku: &Heroku, reporter: &Reporter) -> u8 {
        if let Ok(output) = heroku.release_output(&made) {
            let lines: Vec<&str> = output.lines().collect();
            for line in &lines[lines.len().saturating_sub(LAST_LINES)..] {
                reporter.item(line);
            }
        }
        let (version, status) = (made.version, made.status.name());
        let error = Error::new(
            Kind::Api,
            format!("release v{version} {status}, so v{} is still the current one", self.way.current.version),
        )
        .hint(format!("its release command's output: heroku releases:output v{version} -a {}", self.way.app.name));
        (self.outcome, self.made) = ("release_failed", Some(made));
        reporter.error_with(&error, self.document());
        error.kind.exit_code()
    }

    fn done(&mut self, restart: Restart, interrupt: &Interrupt, reporter: &Reporter) -> u8 {
        let Way { app, current, target, .. } = self.way;
        let proved = restart.verdict == Verdict::Settled;
        if proved {
            let replaced = restart.dynos.iter().filter(|dyno| dyno.replaced).count();
            reporter.say(&format!(
                "proved: every process of {} runs the code of v{} ({replaced} replaced)",
                app.name, target.version
            ));
        } else {
            reporter.warn("THE ROLLBACK IS DONE, BUT NOT PROVED: processes of the newer code may be serving. `unstuck restart --all` settles it");
        }
        if restart.healthy == Some(false) {
            reporter.warn("the new processes are not all up: `unstuck status` shows them");
        }
        reporter.say(&format!("to undo: unstuck rollback v{} -a {}", current.version, app.name));
        self.restart = Some(restart);
        self.print(reporter);
        ended_by(interrupt).unwrap_or(if proved { 0 } else { 4 })
    }

    fn print(&self, reporter: &Reporter) {
        if reporter.json {
            reporter.document(&self.document());
        }
    }

    fn document(&self) -> Value {
        let lacking = |lacking: &Lacking| {
            json!({
                "database": lacking.database,
                "version": lacking.version.to_string(),
                "name": lacking.file.as_ref().map(|file| &file.migration.name),
                "path": lacking.file.as_ref().map(|file| file.migration.path.to_string_lossy()),
                "commit": lacking.file.as_ref().and_then(|file| file.commit.as_ref()),
                "what": lacking.what,
            })
        };
        let dyno = |dyno: &Replaced| json!({"name": dyno.name, "type": dyno.kind, "replaced": dyno.replaced, "state": dyno.state});
        let restart = self.restart.as_ref().map(|restart| {
            let state = if restart.verdict == Verdict::Settled { "proved" } else { "owed" };
            let dynos: Vec<Value> = restart.dynos.iter().map(dyno).collect();
            json!({"state": state, "healthy": restart.healthy, "requests": restart.requests, "dynos": dynos})
        });
        json!({
            "outcome": self.outcome,
            "app": self.way.app.name,
            "from": self.way.current.version,
            "to": self.way.target.version,
            "release": self.made.as_ref().map(|made| made.version),
            "guard": {
                "state": self.guard.state(),
                "by": if self.guard.asked_databases { "database" } else { "releases" },
                "lacking": self.guard.lacking.iter().map(lacking).collect::<Vec<_>>(),
                "unknown": self.guard.unknown,
            },
            "restart": restart,
        })
    }
}

fn ended_by(interrupt: &Interrupt) -> Option<u8> {
    interrupt.signal().map(|signal| u8::try_from(128 + signal).unwrap_or(u8::MAX))
}
