//! What both the library and the control API do.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::faults::{Reply, Rule};
use crate::platform::{Event, Slug};
use crate::world::{Driver, World};

/// A new slug to release. What is left out stays as in the release before.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Deploy {
    /// The commit, as `heroku releases` shows it.
    pub commit: Option<String>,
    /// The directory of the new code; its `Procfile` is read.
    pub root: Option<PathBuf>,
    /// Process type -> command, over those of the Procfile.
    pub processes: BTreeMap<String, String>,
    /// The release command, over that of the Procfile; the empty string means none. With simulated dynos a release that has a
    /// command stays pending until it is finished by hand.
    pub release_command: Option<String>,
}

pub fn deploy(world: &Arc<World>, deploy: Deploy) -> anyhow::Result<u64> {
    let declared = deploy.root.as_deref().map(|root| read_procfile(&root.join("Procfile"))).transpose()?;
    Ok(world.update(|inner| {
        let before = inner.platform.newest().map(|release| release.slug.clone());
        let (root, known) = before.map_or((None, BTreeMap::new()), |slug| (slug.root, slug.processes));
        let mut processes = declared.unwrap_or(known);
        processes.extend(deploy.processes);
        match deploy.release_command {
            Some(command) if command.is_empty() => {
                processes.remove("release");
            }
            Some(command) => {
                processes.insert("release".to_owned(), command);
            }
            None => {}
        }
        let id = inner.platform.next_id();
        let commit = deploy.commit.unwrap_or_else(|| id[..8].to_owned());
        let slug = Slug { id, commit, root: deploy.root.or(root), processes, created_at: Timestamp::now() };
        inner.platform.deploy(slug)
    }))
}

/// Adds a rule; a stale list that names no moment is stale from now on.
pub fn add_fault(world: &World, mut rule: Rule) -> u64 {
    let mut inner = world.lock();
    if rule.reply == Reply::Stale(None) {
        rule.reply = Reply::Stale(Some(inner.journal.last()));
    }
    inner.rules.add(rule)
}

/// Kills a dyno's process, or lets a simulated one end with status 1. `false` when there is no such dyno.
pub fn crash(world: &Arc<World>, name: &str) -> bool {
    let named = world.lock().platform.listed().into_iter().find(|dyno| dyno.name == name).map(|dyno| dyno.id.clone());
    let Some(id) = named else { return false };
    match &world.driver {
        Driver::Simulated { .. } => world.handle(Event::Exited(id, 1)),
        Driver::Processes(fleet) => fleet.end(&id, true),
    }
    true
}

/// Reads `type: command` lines.
pub fn read_procfile(path: &Path) -> anyhow::Result<BTreeMap<String, String>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(parse_procfile(&text))
}

/// Lines of the form `^\s*([a-zA-Z0-9_-]+):?\s+(.*)`, as the specification of heroku/buildpacks-procfile says of Heroku.
fn parse_procfile(text: &str) -> BTreeMap<String, String> {
    let process = |line: &str| {
        let (kind, command) = line.trim().split_once(char::is_whitespace)?;
        let kind = kind.strip_suffix(':').unwrap_or(kind);
        let named =
            !kind.is_empty() && kind.chars().all(|letter| letter.is_ascii_alphanumeric() || "-_".contains(letter));
        named.then(|| (kind.to_owned(), command.trim().to_owned()))
    };
    text.lines().filter_map(process).collect()
}

#[cfg(test)]
mod tests {
    use super::parse_procfile;

    #[test]
    fn a_procfile_names_a_command_for_each_type() {
        let processes = parse_procfile(
            "# comment: no\nweb: bin/rails server -p $PORT\n\nworker:x y\n release\tunstuck migrate -- a:b\n",
        );
        let expected = [("release", "unstuck migrate -- a:b"), ("web", "bin/rails server -p $PORT")];
        assert_eq!(
            processes.iter().map(|(kind, command)| (kind.as_str(), command.as_str())).collect::<Vec<_>>(),
            expected
        );
    }
}
