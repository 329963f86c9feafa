//! What lies between the commit that is deployed and one that is to be: for git's hook, and by hand.

use std::path::{Path, PathBuf};

use git2::{Commit, ErrorCode, Repository, Tree};

use crate::adapters::trees;
use crate::config::{Allow, Settings, Together};
use crate::error::{Error, Kind, Result};
use crate::findings::{Finding, Place, Severity};
use crate::push::{Pending, Plan};
use crate::release::{self, Line, Migrates};
use crate::review::{Review, Reviewed};
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
            let ends = (deployed.map_or_else(|| "HEAD".to_owned(), |commit| commit.id().to_string()), pushed.id());
            here.hint(format!("of a partial clone, git fetches it for: git diff --stat {} {} -- db", ends.0, ends.1))
        }
        _ => Error::new(Kind::System, format!("the commits cannot be compared: {}", error.message())),
    })
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
    let Plan { pending, mut findings, newest } = Plan::of(trees::compare(repository, now.as_ref(), before.as_ref())?);
    let mut review = Review::default();
    let Some(now) = now.filter(|_| !(pending.is_empty() && findings.is_empty() && newest.is_empty())) else {
        review.findings = findings;
        return Ok(review);
    };
    for (folder, newest) in newest {
        let stamps = schema::files_of(&folder).into_iter().map(|path| stamp(repository, &now, &path));
        let stamps: Vec<Stamp> = stamps.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect();
        findings.extend(schema::judge(&stamps, &newest));
    }
    if let Some(deployed) = deployed {
        findings.extend(rewound(repository, pushed, deployed)?);
    }
    if !pending.is_empty() && settings.hook.together.value == Together::Separate {
        findings.extend(before.as_ref().and_then(|before| together(before, &now)));
    }
    let_through(&mut findings, &settings.hook.allow);
    for place in findings.iter_mut().filter_map(|finding| finding.place.as_mut()) {
        place.path = prefix.join(&place.path);
    }
    if !pending.is_empty() {
        (review.release, review.migrates) = release(repository, &pushed.tree()?)?;
        let mut found: Vec<Finding> = release::judge(review.release.as_ref(), review.migrates).into_iter().collect();
        let_through(&mut found, &settings.hook.allow);
        findings.append(&mut found);
    }
    for Pending { migration, .. } in pending {
        review.pending.push(Reviewed { migration, what: Vec::new(), class: None });
    }
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    review.findings = findings;
    Ok(review)
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

fn stamp(repository: &Repository, root: &Tree, path: &Path) -> Result<Option<Stamp>, git2::Error> {
    Ok(trees::content(repository, root, path)?.and_then(|text| Stamp::of(path, &text)))
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
    ];
    let script = |word: &str| {
        let path: PathBuf = Path::new(word).components().filter(|part| *part != std::path::Component::CurDir).collect();
        path.is_relative().then(|| text(path.to_str()?).ok().flatten()).flatten()
    };
    // Which of the two files counts depends on the app's stack, which only the platform knows: the one that migrates is believed.
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
