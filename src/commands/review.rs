//! What lies between the commit that is deployed and one that is to be: for git's hook, and by hand.

use std::cell::OnceCell;
use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use git2::{Commit, ErrorCode, Repository, Tree};

use crate::adapters::trees;
use crate::config::{Allow, Settings, Together};
use crate::error::{Error, Kind, Result};
use crate::findings::{Finding, Place, Severity};
use crate::push::{Pending, Plan};
use crate::rails::{Database, Engine};
use crate::release::{self, Line, Migrates};
use crate::review::{Review, Reviewed};
use crate::ruby::{self, Deployed, Reading, Source};
use crate::schema::{self, Stamp};

/// Compares two commits. The places of findings are named from the top of the repository. `deployed` is none where nothing is deployed yet.
pub fn review(
    repository: &Repository,
    settings: &Settings,
    pushed: &Commit,
    deployed: Option<&Commit>,
) -> Result<Review> {
    let prefix = trees::prefix(repository, &settings.root);
    between(repository, settings, &prefix, pushed, deployed).map_err(|error| match error.code() {
        ErrorCode::NotFound => {
            let here =
                Error::new(Kind::System, "an object that is needed to compare the commits is not in this repository")
                    .because(anyhow::anyhow!("{}", error.message()));
            here.hint(format!("in a partial clone, this makes git fetch it: {}", fetching(&[Some(pushed), deployed])))
        }
        _ => Error::new(Kind::System, format!("the commits cannot be compared: {}", error.message())),
    })
}

/// Whether a commit has anything of a Rails application where the Rails root is said to be. What cannot be read may be one.
pub fn holds_rails(repository: &Repository, settings: &Settings, commit: &Commit) -> bool {
    let marks = ["db", "config/application.rb", "config/database.yml", "bin/rails"];
    match trees::root(repository, &trees::prefix(repository, &settings.root), commit) {
        Ok(Some(root)) => marks.iter().any(|mark| root.get_path(Path::new(mark)).is_ok()),
        Ok(None) => false,
        Err(_) => true,
    }
}

/// What to say where there is none: nothing wrong was found where nothing was looked at.
pub fn no_rails(repository: &Repository, settings: &Settings) -> String {
    let prefix = trees::prefix(repository, &settings.root);
    let place = if prefix == Path::new("") { "at the top".to_owned() } else { format!("in {}", prefix.display()) };
    format!("there is no Rails application {place} of what is pushed, so nothing was looked at")
}

/// A command by which git reads all of these commits, and fetches what it lacks.
fn fetching(commits: &[Option<&Commit>]) -> String {
    let read = |commit: &&Commit| format!("git archive {} > /dev/null", commit.id());
    commits.iter().flatten().map(read).collect::<Vec<_>>().join(" && ")
}

fn between(
    repository: &Repository,
    settings: &Settings,
    prefix: &Path,
    pushed: &Commit,
    deployed: Option<&Commit>,
) -> Result<Review, git2::Error> {
    let now = trees::root(repository, prefix, pushed)?;
    let before = deployed.map(|commit| trees::root(repository, prefix, commit)).transpose()?.flatten();
    let known = Known { repository, root: before.as_ref(), settings, databases: OnceCell::new() };
    let is_apart = |folder: &Path| known.is_apart(folder);
    let folders = trees::compare(repository, now.as_ref(), before.as_ref(), &known.elsewhere(), &is_apart)?;
    let Plan { pending, mut findings, newest } = Plan::of(folders);
    let mut review = Review::default();
    let Some(now) = now.filter(|_| !(pending.is_empty() && findings.is_empty() && newest.is_empty())) else {
        review.findings = findings;
        return Ok(review);
    };
    for (folder, newest) in newest {
        let stamps = stamps(repository, &now, &folder)?;
        if let (true, Some(before)) = (stamps.is_empty(), &before) {
            findings.extend(self::stamps(repository, before, &folder)?.first().map(schema::gone));
        }
        findings.extend(schema::judge(&stamps, &newest));
    }
    // Exceptions in files that are not pending: what was deployed and is edited.
    let found_in = findings.iter().filter_map(|finding| finding.place.as_ref()).map(|place| place.path.clone());
    for path in found_in.collect::<BTreeSet<_>>() {
        let text = trees::content(repository, &now, &path)?.unwrap_or_default();
        allow_in_code(&mut findings, &path, &text);
    }
    if let Some(deployed) = deployed {
        findings.extend(rewound(repository, pushed, deployed)?);
    }
    if !pending.is_empty() && settings.hook.together.value == Together::Separate {
        findings.extend(before.as_ref().and_then(|before| together(before, &now)));
    }
    let texts = texts(repository, &pending)?;
    let lock = trees::content(repository, &now, Path::new("Gemfile.lock"))?;
    let rails = lock.and_then(|text| ruby::rails_of_lock(&text));
    let readings = read(&pending, &texts, &known, rails)?;
    for ((pending, text), reading) in pending.iter().zip(&texts).zip(readings) {
        allow_in_code(&mut findings, &pending.migration.path, text);
        findings.extend(reading.findings);
        let (what, class) = (reading.what, Some(reading.class.name()));
        review.pending.push(Reviewed { migration: pending.migration.clone(), what, class });
    }
    let_through(&mut findings, &settings.hook.allow);
    for place in findings.iter_mut().filter_map(|finding| finding.place.as_mut()) {
        place.path = prefix.join(&place.path);
    }
    if !pending.is_empty() {
        (review.release, review.migrates) = release(repository, &pushed.tree()?)?;
        // Buildpacks that build a folder of the repository make its Procfile the app's.
        if review.release.is_none() && prefix != Path::new("") {
            (review.release, review.migrates) = release(repository, &now)?;
        }
        let mut found: Vec<Finding> = release::judge(review.release.as_ref(), review.migrates).into_iter().collect();
        let_through(&mut found, &settings.hook.allow);
        findings.append(&mut found);
    }
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    review.findings = findings;
    Ok(review)
}

fn texts(repository: &Repository, pending: &[Pending]) -> Result<Vec<Vec<u8>>, git2::Error> {
    pending.iter().map(|pending| repository.find_blob(pending.content).map(|blob| blob.content().to_owned())).collect()
}

/// Reads what is pending against what runs: database by database, since each has its own schema.
fn read(
    pending: &[Pending],
    texts: &[Vec<u8>],
    known: &Known,
    rails: Option<(u32, u32)>,
) -> Result<Vec<Reading>, git2::Error> {
    let sources: Vec<Source> =
        pending.iter().zip(texts).map(|(pending, text)| Source { path: &pending.migration.path, text }).collect();
    let mut readings = Vec::new();
    let mut sources = sources.as_slice();
    for pending in pending.chunk_by(|a, b| a.home == b.home) {
        let (own, rest) = sources.split_at(pending.len());
        sources = rest;
        let home = &pending[0].home;
        let engine = known.engine(home);
        let parsed = ruby::parse(own, engine);
        // What does nothing to a table needs no other file to be read.
        let deployed = if parsed.has_deeds() { known.deployed(home, engine)? } else { Deployed::default() };
        readings.extend(parsed.judge(&Deployed { rails, ..deployed }));
    }
    Ok(readings)
}

/// The deployed commit, as far as a migration has to be judged against it.
struct Known<'a> {
    repository: &'a Repository,
    root: Option<&'a Tree<'a>>,
    settings: &'a Settings,
    databases: OnceCell<Vec<Database>>,
}

impl Known<'_> {
    /// What runs, as far as the migrations of the folder `home` may do something to it.
    fn deployed(&self, home: &Path, engine: Option<Engine>) -> Result<Deployed, git2::Error> {
        let Some(root) = self.root else { return Ok(Deployed { engine, ..Deployed::default() }) };
        let models = self.models(root)?;
        let mut schema = None;
        for file in schema::files_of(home) {
            if schema.is_none() {
                schema = trees::content(self.repository, root, &file)?.map(|text| (file, text));
            }
        }
        let migrations = if schema.is_none() { trees::ruby_below(self.repository, root, home)? } else { Vec::new() };
        Ok(Deployed { models, schema, migrations, engine, ..Deployed::default() })
    }

    /// The models, and what says something of them from outside: initializers, the application, the engines that lie in it.
    fn models(&self, root: &Tree) -> Result<Vec<(PathBuf, Vec<u8>)>, git2::Error> {
        let mut models = Vec::new();
        let mut parts = vec![PathBuf::new()];
        for folder in ["engines", "packs", "packages", "components"] {
            parts.extend(trees::folders_in(self.repository, root, Path::new(folder))?);
        }
        for part in parts {
            models.extend(trees::ruby_below(self.repository, root, &part.join(MODELS))?);
            // A concern may lie in lib, and a domain's models anywhere below app.
            let others = trees::folders_in(self.repository, root, &part.join("app"))?;
            let others = others.into_iter().filter(|folder| *folder != part.join(MODELS));
            for folder in others.chain([part.join("lib")]) {
                let files = trees::ruby_below(self.repository, root, &folder)?;
                models.extend(
                    files.into_iter().filter(|(path, text)| path.ends_with("engine.rb") || speaks_of_models(text)),
                );
            }
        }
        models.extend(trees::ruby_below(self.repository, root, Path::new("config/initializers"))?);
        for file in ["config/application.rb", "config/environments/production.rb"].map(Path::new) {
            models.extend(trees::content(self.repository, root, file)?.map(|text| (file.to_owned(), text)));
        }
        Ok(models)
    }

    /// Those of production, the first one first, as far as the configuration tells them without a connection: what is pushed runs
    /// there, whatever runs here.
    fn databases(&self) -> &[Database] {
        self.databases.get_or_init(|| {
            let mut databases = self.settings.databases_of("production").unwrap_or_default();
            databases.sort_by_key(|database| database.name != "primary");
            databases
        })
    }

    /// The folders of migrations that only the configuration names.
    fn elsewhere(&self) -> Vec<PathBuf> {
        let paths = self.databases().iter().flat_map(|database| &database.migrations_paths).map(|path| plain(path));
        let inside = |path: &PathBuf| path.components().all(|part| matches!(part, Component::Normal(_)));
        paths.filter(|path| inside(path) && !trees::is_usual(path)).collect::<BTreeSet<_>>().into_iter().collect()
    }

    fn holds(database: &Database, folder: &Path) -> bool {
        database.migrations_paths.iter().any(|path| plain(path) == folder)
    }

    /// Whether the configuration gives this folder to another database than the first.
    fn is_apart(&self, folder: &Path) -> bool {
        self.databases().iter().position(|database| Self::holds(database, folder)).is_some_and(|index| index > 0)
    }

    /// The engine of the database whose migrations these are.
    fn engine(&self, folder: &Path) -> Option<Engine> {
        engine_among(self.databases(), folder)
    }
}

/// The engine of the database whose migrations are in `folder`, in production, as far as the configuration tells it without a
/// connection: what is pushed runs there, whatever runs here.
pub fn engine(settings: &Settings, folder: &Path) -> Option<Engine> {
    engine_among(&settings.databases_of("production")?, folder)
}

fn engine_among(databases: &[Database], folder: &Path) -> Option<Engine> {
    let ours = databases.iter().find(|database| Known::holds(database, folder));
    ours.or(databases.first()).map(|database| database.engine)
}

/// A path as git has it: without `./` and without a slash at its end.
fn plain(path: &str) -> PathBuf {
    Path::new(path).components().filter(|part| *part != Component::CurDir).collect()
}

const MODELS: &str = "app/models";

/// Whether a file outside of the models' folder may say something of one: most do not, and are not parsed.
fn speaks_of_models(text: &[u8]) -> bool {
    let words: [&[u8]; 4] = [b"ignored_columns", b"table_name", b"Record", b"::Base"];
    words.iter().any(|word| text.windows(word.len()).any(|part| part == *word))
}

/// Exceptions that a migration makes in its own text: `# unstuck:allow RULE REASON`. What is found in the text itself was
/// judged with it already.
fn allow_in_code(findings: &mut [Finding], path: &Path, text: &[u8]) {
    let allowances = ruby::allowances(text);
    let of_file = |finding: &&mut Finding| {
        finding.severity > Severity::Note && finding.place.as_ref().is_some_and(|place| place.path == path)
    };
    for finding in findings.iter_mut().filter(of_file) {
        if let Some(allowance) = allowances.iter().find(|allowance| allowance.covers(finding.rule, 0)) {
            finding.severity = Severity::Note;
            finding.message += &format!(" (allowed: {})", allowance.reason);
        }
    }
}

/// Findings that the configuration excepts weigh nothing any more, and are still said.
fn let_through(findings: &mut [Finding], allow: &[Allow]) {
    for finding in findings.iter_mut().filter(|finding| finding.severity > Severity::Note) {
        let path = finding.place.as_ref().map(|place| place.path.as_path());
        if allow.iter().any(|allow| allow.covers(finding.rule, path)) {
            finding.severity = Severity::Note;
            finding.message += " (let through by hook.allow)";
        }
    }
}

/// What the schema files of a folder say.
fn stamps(repository: &Repository, root: &Tree, folder: &Path) -> Result<Vec<Stamp>, git2::Error> {
    let mut stamps = Vec::new();
    for path in schema::files_of(folder) {
        stamps.extend(trees::content(repository, root, &path)?.and_then(|text| Stamp::of(&path, &text)));
    }
    Ok(stamps)
}

/// The release line at the top of the repository, where the platform looks for it, and whether it migrates.
fn release(repository: &Repository, top: &Tree) -> Result<(Option<Line>, Migrates), git2::Error> {
    let text = |path: &str| {
        let content = trees::content(repository, top, Path::new(path))?;
        Ok::<_, git2::Error>(content.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
    };
    let lines = [
        text("Procfile")?.and_then(|text| release::of_procfile(&text)),
        text("heroku.yml")?.and_then(|text| release::of_heroku_yml(&text)),
        text("project.toml")?.and_then(|text| release::of_project_toml(&text)),
    ];
    let script = |word: &str| {
        let path: PathBuf = Path::new(word).components().filter(|part| *part != std::path::Component::CurDir).collect();
        path.is_relative().then(|| text(path.to_str()?).ok().flatten()).flatten()
    };
    // Which of these files counts depends on the app's stack, which only the platform knows: the one that migrates is believed.
    let judged = lines.into_iter().flatten().map(|line| (release::migrates(&line.command, &script), line));
    let best = judged.max_by_key(|(migrates, _)| *migrates);
    Ok(best.map_or((None, Migrates::No), |(migrates, line)| (Some(line), migrates)))
}

/// A push that takes commits back.
fn rewound(repository: &Repository, pushed: &Commit, deployed: &Commit) -> Result<Option<Finding>, git2::Error> {
    let same = pushed.id() == deployed.id();
    let descends = || match repository.graph_descendant_of(pushed.id(), deployed.id()) {
        // A shallow history ends before it tells.
        Err(error) if error.code() == ErrorCode::NotFound => Ok(true),
        answer => answer,
    };
    if same || repository.is_shallow() || descends()? {
        return Ok(None);
    }
    let id = deployed.id().to_string();
    Ok(Some(Finding {
        rule: "rewind",
        severity: Severity::Warning,
        place: None,
        message: format!(
            "the deployed commit {} is not part of what is pushed: what came with it is taken back, its migrations are not",
            &id[..10]
        ),
        remedy: vec!["merge or rebase onto what is deployed, or undo what it migrated with a new migration".to_owned()],
    }))
}

/// Whether application code changes together with the migrations.
fn together(before: &Tree, now: &Tree) -> Option<Finding> {
    let id = |root: &Tree, name: &str| root.get_name(name).map(|entry| entry.id());
    let folder = ["app", "lib"].into_iter().find(|name| id(before, name) != id(now, name))?;
    Some(Finding {
        rule: "together",
        severity: Severity::Warning,
        place: Some(Place { path: folder.into(), line: 0, column: 0, excerpt: String::new() }),
        message: "code changes in the same push as migrations, and hook.policy says `separate`".to_owned(),
        remedy: vec!["push the migrations first".to_owned(), "then push the code that needs them".to_owned()],
    })
}
