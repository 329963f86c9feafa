//! The hook's review, by hand and in CI.

use git2::{Commit, Repository};

use super::review::{holds_rails, no_rails, review};
use crate::adapters::git;
use crate::args::{self, Format};
use crate::config::Settings;
use crate::error::{Error, Kind, Result};
use crate::report::Reporter;

pub fn check(settings: &Settings, args: &args::Check, reporter: &Reporter) -> Result<u8> {
    let format = if reporter.json { Format::Json } else { args.format };
    let Some(repository) = git::open(&settings.root)? else {
        return Err(Error::new(Kind::Input, "there is no git repository here").hint("-C names the Rails root"));
    };
    let (from, to) = ends(&repository, args.range.as_deref(), settings.env.get("GITHUB_BASE_REF").map(String::as_str))?;
    let review = review(&repository, settings, &to, Some(&from))?;
    if review.is_empty() && !holds_rails(&repository, settings, &to) {
        return Err(Error::new(Kind::Input, no_rails(&repository, settings)).hint("-C names the Rails root"));
    }
    // Standard output is the machine's alone, where one reads it.
    let mut story = reporter.clone();
    story.json = format != Format::Text;
    review.tell(&story, "these commits would run");
    match format {
        Format::Text if review.is_empty() => {
            reporter.say("nothing to run, nothing wrong");
        }
        Format::Text => {}
        Format::Json => story.document(&review.document()),
        Format::Sarif => story.document(&review.sarif()),
        Format::Github => review.annotations().iter().for_each(|line| story.machine_line(line)),
    }
    Ok(review.exit_code())
}

/// The commits that a range names, as git reads it.
fn ends<'a>(repository: &'a Repository, range: Option<&str>, base: Option<&str>) -> Result<(Commit<'a>, Commit<'a>)> {
    let or_head = |name: &str| if name.is_empty() { "HEAD" } else { name }.to_owned();
    let (from, to, merge_base) = match range {
        None => (default_base(repository, base)?, "HEAD".to_owned(), true),
        Some(range) => match (range.split_once("..."), range.split_once("..")) {
            (Some((from, to)), _) => (or_head(from), or_head(to), true),
            (None, Some((from, to))) => (or_head(from), or_head(to), false),
            (None, None) => (range.to_owned(), "HEAD".to_owned(), false),
        },
    };
    let (from, to) = (commit(repository, &from)?, commit(repository, &to)?);
    if !merge_base {
        return Ok((from, to));
    }
    let base = repository.merge_base(from.id(), to.id()).and_then(|id| repository.find_commit(id));
    let base = base.map_err(|error| {
        Error::new(Kind::Input, "the two commits have no common ancestor in this repository")
            .because(anyhow::anyhow!("{}", error.message()))
            .hint("a shallow clone ends before it: git fetch --unshallow, or fetch-depth: 0 in the workflow")
    })?;
    Ok((base, to))
}

fn commit<'a>(repository: &'a Repository, name: &str) -> Result<Commit<'a>> {
    let found = repository.revparse_single(name).and_then(|object| object.peel_to_commit());
    found.map_err(|error| {
        Error::new(Kind::Input, format!("{name:?} names no commit in this repository"))
            .because(anyhow::anyhow!("{}", error.message()))
            .hint("a range is written as for git: A..B, A...B, or A")
    })
}

/// The branch that HEAD is to be merged into: the base of the pull request whose workflow this is, else the default branch of
/// `origin`.
fn default_base(repository: &Repository, base: Option<&str>) -> Result<String> {
    let base = base.filter(|base| !base.is_empty()).map(|base| format!("refs/remotes/origin/{base}"));
    let usual = ["HEAD", "main", "master"].map(|branch| format!("refs/remotes/origin/{branch}"));
    base.into_iter().chain(usual).find(|name| repository.revparse_single(name).is_ok()).ok_or_else(|| {
        Error::new(Kind::Input, "cannot tell what to compare with: no default branch of `origin` is known here")
            .hint("say it: unstuck check A..B; or `git fetch origin`, and fetch-depth: 0 in a workflow")
    })
}
