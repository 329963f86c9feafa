//! The body of git's pre-push hook.

use std::io::Read as _;

use git2::{ErrorCode, Oid};
use serde_json::{Value, json};

use crate::adapters::git;
use crate::adapters::trees;
use crate::args;
use crate::config::Settings;
use crate::error::{Error, Kind, Result};
use crate::findings::{Finding, Severity};
use crate::push::{Pending, Plan, updates};
use crate::report::{self, Reporter};

/// What git's hook says. Whatever it cannot find out does not stop the push.
pub fn pre_push(settings: &Settings, args: &args::PrePush, reporter: &Reporter) -> u8 {
    match plan(settings, args, reporter) {
        Ok(None) => 0,
        Ok(Some(plan)) => tell(&plan, reporter),
        Err(error) => {
            reporter.error(&error, None);
            reporter.warn("the push goes on without having been looked at");
            0
        }
    }
}

/// Longer than what git says of ten thousand references.
const PUSH_LIMIT: u64 = 16 * 1024 * 1024;

fn plan(settings: &Settings, args: &args::PrePush, reporter: &Reporter) -> Result<Option<Plan>> {
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
    let Some(update) = updates.iter().find(|update| update.deploys()) else { return Ok(None) };
    let Some(pushed) = update.local.as_deref() else { return Ok(None) };
    let Some(repository) = git::open(&settings.root)? else { return Ok(None) };
    let unreadable =
        |error: git2::Error| Error::new(Kind::System, format!("the commits cannot be compared: {}", error.message()));
    let prefix = trees::prefix(&repository, &settings.root);
    let root = |commit: &str| trees::root(&repository, &prefix, Oid::from_str_ext(commit, repository.object_format())?);
    let deployed = match update.remote.as_deref().map(root).transpose() {
        Ok(deployed) => deployed.flatten(),
        Err(error) if error.code() == ErrorCode::NotFound => {
            let deployed = update.remote.as_deref().unwrap_or_default();
            let short = deployed.get(..10).unwrap_or(deployed);
            reporter.warn(&format!(
                "the commit that is deployed, {short}, is not in this repository, so nothing can be said: git fetch {}",
                args.to
            ));
            return Ok(None);
        }
        Err(error) => return Err(unreadable(error)),
    };
    let pushed = root(pushed).map_err(unreadable)?;
    let folders = trees::compare(&repository, pushed.as_ref(), deployed.as_ref()).map_err(unreadable)?;
    Ok(Some(Plan::of(folders)))
}

fn tell(plan: &Plan, reporter: &Reporter) -> u8 {
    if !plan.pending.is_empty() {
        reporter.say(&format!("this push will run {} migrations:", plan.pending.len()));
    }
    for Pending { migration, .. } in &plan.pending {
        reporter.item(&format!("{} {}  {}", migration.version, migration.name, migration.path.display()));
    }
    for finding in &plan.findings {
        let path = finding.place.as_ref().map_or(String::new(), |place| format!("{} ", place.path.display()));
        reporter.warn(&format!("{path}{} ({}); {}", finding.message, finding.rule, finding.remedy.join("; ")));
    }
    let refused = plan.findings.iter().any(|finding| finding.severity == Severity::Refusal);
    if reporter.json {
        let pending: Vec<Value> =
            plan.pending.iter().map(|pending| report::migration_document(&pending.migration)).collect();
        let finding = |finding: &Finding| {
            let path = finding.place.as_ref().map(|place| place.path.to_string_lossy());
            json!({"rule": finding.rule, "path": path, "message": finding.message, "remedy": finding.remedy})
        };
        let findings: Vec<Value> = plan.findings.iter().map(finding).collect();
        reporter.document(&json!({"pending": pending, "findings": findings, "refused": refused}));
    }
    if !refused {
        return 0;
    }
    reporter.warn("the push is refused; git push --no-verify pushes all the same");
    8
}
