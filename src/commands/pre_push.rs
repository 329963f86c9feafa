//! The body of git's pre-push hook.

use std::io::Read as _;

use git2::{Commit, Repository};

use super::review::{holds_rails, no_rails, review};
use crate::adapters::{git, trees};
use crate::args;
use crate::config::Settings;
use crate::error::{Error, Kind, Result};
use crate::push::{Update, deploys, updates};
use crate::report::Reporter;
use crate::review::Review;

/// What git's hook says. Whatever it cannot find out does not stop the push.
pub fn pre_push(settings: &Settings, args: &args::PrePush, reporter: &Reporter) -> u8 {
    match look(settings, args, reporter) {
        Ok(None) => 0,
        Ok(Some(review)) => {
            review.tell(reporter, "this push will run");
            if reporter.json {
                reporter.document(&review.document());
            }
            if review.refused() {
                reporter.warn("the push is refused; git push --no-verify pushes all the same");
            }
            review.exit_code()
        }
        Err(error) => {
            reporter.error(&error, None);
            reporter.warn("the push goes on without having been looked at");
            0
        }
    }
}

/// Longer than what git says of ten thousand references.
const PUSH_LIMIT: u64 = 16 * 1024 * 1024;

fn look(settings: &Settings, args: &args::PrePush, reporter: &Reporter) -> Result<Option<Review>> {
    if !settings.deploys_to(&args.to, &args.url)? {
        return Ok(None);
    }
    let mut input = Vec::new();
    std::io::stdin()
        .take(PUSH_LIMIT)
        .read_to_end(&mut input)
        .map_err(|error| Error::new(Kind::System, "standard input cannot be read").because(error))?;
    let (updates, strange) = updates(&input);
    if strange > 0 {
        reporter.warn(&format!("{strange} lines on standard input are not what git writes to a pre-push hook"));
    }
    let deploys = deploys(&updates, &settings.hook.branches);
    if deploys.is_empty() {
        return Ok(None);
    }
    let Some(repository) = git::open(&settings.root)? else { return Ok(None) };
    let (mut whole, mut failed): (Option<Review>, _) = (None, None);
    for update in deploys {
        match look_at(&repository, settings, args, update, reporter) {
            Ok(None) => {}
            Ok(Some(found)) => {
                whole = Some(match whole {
                    Some(whole) => whole.and(found),
                    None => found,
                });
            }
            Err(error) => failed = Some(error),
        }
    }
    match failed {
        // What was seen of another branch is enough to refuse.
        Some(error) if whole.as_ref().is_some_and(Review::refused) => reporter.warn(&error.message),
        Some(error) => return Err(error),
        None => {}
    }
    Ok(whole)
}

/// What one branch would bring; none where that cannot be said, which is told.
fn look_at(
    repository: &Repository,
    settings: &Settings,
    args: &args::PrePush,
    update: &Update,
    reporter: &Reporter,
) -> Result<Option<Review>> {
    let unreadable =
        |error: git2::Error| Error::new(Kind::System, format!("the commits cannot be compared: {}", error.message()));
    let commit = |id: &str| trees::commit(repository, id).map_err(unreadable);
    let Some(pushed) = update.local.as_deref().map(commit).transpose()?.flatten() else {
        return Err(Error::new(Kind::System, "the commits cannot be compared: the one that is pushed is not here"));
    };
    let deployed = match &update.remote {
        None => last_known(repository, args, settings, reporter),
        Some(id) => match commit(id)? {
            None => {
                reporter.warn(&missing(repository, args, update, id));
                let Some((name, commit)) = last_seen(repository, args, settings) else { return Ok(None) };
                reporter.say(&format!("compared with {name} instead, as it was last seen"));
                Some(commit)
            }
            deployed => deployed,
        },
    };
    let review = review(repository, settings, &pushed, deployed.as_ref())?;
    if review.is_empty() && !holds_rails(repository, settings, &pushed) {
        reporter.warn(&no_rails(repository, settings));
    }
    Ok(Some(review))
}

/// What to do where the deployed commit is not here.
fn missing(repository: &Repository, args: &args::PrePush, update: &Update, id: &str) -> String {
    let short = id.get(..10).unwrap_or(id);
    let branch = update.remote_ref.trim_start_matches("refs/heads/");
    // An address may hold a token.
    let remote = if args.to == args.url { "ADDRESS" } else { &args.to };
    let depth = if repository.is_shallow() { "--unshallow " } else { "" };
    format!(
        "the commit that is deployed, {short}, is not in this repository, so nothing can be said: git fetch {depth}{remote} {branch}"
    )
}

/// The branch of the remote that is deployed, as git last saw it.
fn last_seen<'a>(
    repository: &'a Repository,
    args: &args::PrePush,
    settings: &Settings,
) -> Option<(String, Commit<'a>)> {
    settings.hook.branches.iter().find_map(|branch| {
        let name = format!("refs/remotes/{}/{branch}", args.to);
        let commit = repository.find_reference(&name).and_then(|reference| reference.peel_to_commit()).ok()?;
        Some((name, commit))
    })
}

/// What the remote was last seen to have, for a branch that is new there: it may have been deployed under another name.
fn last_known<'a>(
    repository: &'a Repository,
    args: &args::PrePush,
    settings: &Settings,
    reporter: &Reporter,
) -> Option<Commit<'a>> {
    let known = last_seen(repository, args, settings);
    reporter.say(&match &known {
        Some((name, _)) => format!("the branch is new there; compared with {name}, as it was last seen"),
        None => "nothing is known to be deployed there, so that every migration counts as pending".to_owned(),
    });
    known.map(|(_, commit)| commit)
}
