//! What a push will migrate, and what of that is certain to go wrong. Pure.
//!
//! Git tells its pre-push hook which commit the remote has now: what the migrations of the pushed commit have beyond those of
//! that commit is what the release is going to run.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use git2::Oid;

use crate::error::Error;
use crate::findings::{Finding, Place, Severity};
use crate::migrations::{Files, Migration, Migrations, Version};

/// One line that git writes to the hook: what is pushed where. `None` stands for git's name of nothing, all zeros.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Update {
    /// The commit that is pushed; none: the reference is deleted.
    pub local: Option<String>,
    pub remote_ref: String,
    /// What the remote has now; none: the reference is new.
    pub remote: Option<String>,
}

impl Update {
    /// Reads `<local ref> SP <local id> SP <remote ref> SP <remote id>`; `None` where a line is something else. Ids have 40
    /// digits, or 64 in a SHA-256 repository.
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split(' ');
        let (Some(_), Some(local), Some(remote_ref), Some(remote), None) =
            (words.next(), words.next(), words.next(), words.next(), words.next())
        else {
            return None;
        };
        let update = Self { local: named(local), remote_ref: remote_ref.to_owned(), remote: named(remote) };
        (is_id(local) && is_id(remote)).then_some(update)
    }

    /// Whether the platform builds and releases it: Heroku builds what is pushed to `main` or `master` and ignores all else.
    pub fn deploys(&self, branches: &[String]) -> bool {
        let branch = self.remote_ref.strip_prefix("refs/heads/");
        self.local.is_some() && branch.is_some_and(|branch| branches.iter().any(|deployed| deployed == branch))
    }
}

/// What the platform builds and releases of a push, each pair of commits once. A branch that is new there tells nothing where
/// another one brings the same commit.
pub fn deploys<'a>(updates: &'a [Update], branches: &[String]) -> Vec<&'a Update> {
    let mut deploying: Vec<&Update> = updates.iter().filter(|update| update.deploys(branches)).collect();
    deploying.sort_by_key(|update| update.remote.is_none());
    let mut found: Vec<&Update> = Vec::new();
    for update in deploying {
        let is_known =
            |known: &&Update| known.local == update.local && (known.remote == update.remote || update.remote.is_none());
        if !found.iter().any(is_known) {
            found.push(update);
        }
    }
    found
}

fn is_id(word: &str) -> bool {
    matches!(word.len(), 40 | 64) && word.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// All zeros are git's name of nothing.
fn named(id: &str) -> Option<String> {
    id.bytes().any(|byte| byte != b'0').then(|| id.to_owned())
}

/// What git says on the hook's standard input, and how many of its lines are in no form that git is known to use.
pub fn updates(input: &[u8]) -> (Vec<Update>, usize) {
    let text = String::from_utf8_lossy(input);
    let lines: Vec<Option<Update>> = text.lines().filter(|line| !line.is_empty()).map(Update::parse).collect();
    let strange = lines.iter().filter(|line| line.is_none()).count();
    (lines.into_iter().flatten().collect(), strange)
}

/// How the migrations of one schema file differ between the two ends.
#[derive(Debug, Default)]
pub struct Folder {
    /// Where they lie in the Rails root, or the folder whose schema file they share: `db/migrate`.
    pub path: PathBuf,
    /// What is not the same at both ends.
    pub changes: Vec<Change>,
    /// Of the pushed files those that are new, and those that could not stand beside them.
    pub pushed: Files,
    /// The versions of new files that deployed ones have as well, ascending.
    pub applied: Vec<Version>,
    /// The newest of the deployed versions, where something is new or the schema file differs.
    pub newest_deployed: Option<Version>,
}

/// A file that came, went, or has another content: the id at each end, none where it is not there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    pub path: PathBuf,
    pub deployed: Option<Oid>,
    pub pushed: Option<Oid>,
}

/// What a push does to the migrations.
#[derive(Debug, Default)]
pub struct Plan {
    /// What the release will run, by folder and version.
    pub pending: Vec<Pending>,
    pub findings: Vec<Finding>,
    /// The folders whose schema file is to be compared, each with the newest of its versions.
    pub newest: Vec<(PathBuf, Version)>,
}

/// A migration that the release will run.
#[derive(Debug)]
pub struct Pending {
    pub migration: Migration,
    /// The id of its content.
    pub content: Oid,
    /// The folder whose schema file is its own: `db/migrate`.
    pub home: PathBuf,
}

impl Plan {
    /// Compares what the remote has with what is pushed.
    pub fn of(folders: Vec<Folder>) -> Self {
        let mut plan = Self::default();
        for folder in folders {
            plan.judge(folder);
        }
        plan
    }

    fn judge(&mut self, folder: Folder) {
        let Folder { path, changes, pushed, applied, newest_deployed } = folder;
        let (gone, rest): (Vec<&Change>, Vec<&Change>) = changes.iter().partition(|change| change.pushed.is_none());
        let (new, edited): (Vec<&Change>, Vec<&Change>) =
            rest.into_iter().partition(|change| change.deployed.is_none());
        self.findings.extend(edited.iter().map(|change| edit(change)));
        self.findings.extend(gone.iter().filter_map(|change| loss(change, &new)));
        let known = gone.iter().filter_map(|change| version(&change.path));
        // Without the file of the newest version there is nothing that a schema file could be in step with; nor where one of the
        // new files tells no version.
        let unnamed = new.iter().any(|change| version(&change.path).is_none());
        if !unnamed && !known.into_iter().any(|version| Some(version) == newest_deployed) {
            let versions = new.iter().filter_map(|change| version(&change.path)).chain(newest_deployed.clone());
            self.newest.extend(versions.max().map(|newest| (path.clone(), newest)));
        }
        // What was illegal before is no news where nothing new is to run.
        if new.is_empty() {
            return;
        }
        let contents: BTreeMap<&Path, Oid> =
            new.iter().filter_map(|change| Some((change.path.as_path(), change.pushed?))).collect();
        match Migrations::of(pushed) {
            Ok(pushed) => {
                for migration in pushed.pending(&applied) {
                    let Some(content) = contents.get(migration.path.as_path()).copied() else { continue };
                    self.findings.extend(newest_deployed.as_ref().and_then(|newest| out_of_order(&migration, newest)));
                    self.pending.push(Pending { migration, content, home: path.clone() });
                }
            }
            Err(error) => self.findings.push(illegal(error, &new)),
        }
    }
}
/// A finding about a whole file.
fn of_file(rule: &'static str, severity: Severity, path: &Path, message: String, remedy: &[&str]) -> Finding {
    Finding {
        rule,
        severity,
        place: Some(Place { path: path.to_owned(), line: 0, column: 0, excerpt: String::new() }),
        message,
        remedy: remedy.iter().map(|&step| step.to_owned()).collect(),
    }
}

fn edit(change: &Change) -> Finding {
    let message = "was deployed and is edited: it has run already and will not run again".to_owned();
    let remedy = ["take the edit back", "write what it should do as a new migration"];
    of_file("edited", Severity::Refusal, &change.path, message, &remedy)
}

/// What it means that a deployed migration is gone; `new` are the files that came. Nothing where Rails took no notice of it.
fn loss(gone: &Change, new: &[&Change]) -> Option<Finding> {
    let lost = version(&gone.path)?;
    let refusal = |rule, message, remedy: &[&str]| of_file(rule, Severity::Refusal, &gone.path, message, remedy);
    if let Some(now) = new.iter().find(|change| version(&change.path).as_ref() == Some(&lost)) {
        let message = format!("was deployed and is renamed to {}: it will not run again", now.path.display());
        return Some(refusal("renamed", message, &["give it its name back"]));
    }
    if let Some(now) = new.iter().find(|change| change.pushed == gone.deployed && version(&change.path).is_some()) {
        let message =
            format!("was deployed and has another version as {}: it would run a second time", now.path.display());
        return Some(refusal("renamed", message, &["give it its version back"]));
    }
    let message = "was deployed and is deleted: whoever sets up a database from the migrations gets another schema";
    let remedy = ["bring the file back", "undo what it did with a new migration"];
    Some(refusal("deleted", message.to_owned(), &remedy))
}

fn out_of_order(migration: &Migration, newest: &Version) -> Option<Finding> {
    let message = format!(
        "its version is older than {newest}, the newest that is deployed: it runs after migrations that were written later, \
         and a database that is set up anew runs them in another order"
    );
    let remedy = ["give it a version of today, unless it depends on nothing that came later"];
    (migration.version < *newest).then(|| of_file("out-of-order", Severity::Warning, &migration.path, message, &remedy))
}

/// Why Rails would refuse all migrations. The place is the new file that has no legal name, where there is one.
fn illegal(error: Error, new: &[&Change]) -> Finding {
    let place = new.iter().find(|change| version(&change.path).is_none()).or(new.first());
    let path = place.map_or(Path::new(""), |change| &change.path);
    let remedy = ["rename one of the files: Rails refuses to run any migration"];
    of_file("illegal", Severity::Refusal, path, error.message, &remedy)
}

fn version(path: &Path) -> Option<Version> {
    Migration::parse(path).map(|migration| migration.version)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::migrations::Kin;

    const A: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    const ZERO: &str = "0000000000000000000000000000000000000000";

    #[test]
    fn lines_are_read_as_git_writes_them() {
        let b = "b".repeat(64);
        for (line, expected) in [
            (format!("refs/heads/x {A} refs/heads/main {A}"), Some((true, Some(A)))),
            (format!("HEAD {A} refs/heads/master {ZERO}"), Some((true, None))),
            (format!("HEAD~ {b} refs/heads/main {b}"), Some((true, Some(b.as_str())))),
            (format!("(delete) {ZERO} refs/heads/main {A}"), Some((false, Some(A)))),
            (format!("refs/tags/v1 {A} refs/tags/v1 {ZERO}"), Some((false, None))),
            (format!("x {A} y"), None),
            (format!("x {A} y {A} z"), None),
            (format!("x {} y {A}", "a".repeat(41)), None),
            (format!("x {} y {A}", "g".repeat(40)), None),
            ("\u{1b}[31m".to_owned(), None),
        ] {
            let (updates, strange) = updates(format!("{line}\n").as_bytes());
            let branches = ["main".to_owned(), "master".to_owned()];
            let seen = updates.first().map(|update| (update.deploys(&branches), update.remote.as_deref()));
            assert_eq!((seen, strange), (expected, usize::from(expected.is_none())), "{line:?}");
        }
        assert_eq!(updates(b"").0, []);
        assert_eq!(updates(b"\xff\xfe\0").1, 1);
        assert_eq!(
            updates(format!("a {A} refs/heads/main {A}").as_bytes()).0.len(),
            1,
            "the last line may lack its end"
        );
    }

    #[test]
    fn each_pair_of_commits_is_deployed_once() {
        let update = |branch: &str, local: &str, remote: &str| Update {
            local: named(local),
            remote_ref: format!("refs/heads/{branch}"),
            remote: named(remote),
        };
        for (given, expected) in [
            (&[("main", "a", "b"), ("master", "a", "b")][..], &["main"][..]),
            (&[("main", "a", "0"), ("master", "a", "b")], &["master"]),
            (&[("main", "a", "b"), ("master", "a", "c")], &["main", "master"]),
            (&[("main", "a", "c"), ("topic", "b", "c"), ("master", "b", "c")], &["main", "master"]),
            (&[("main", "0", "c"), ("topic", "b", "c")], &[]),
        ] {
            let given: Vec<Update> =
                given.iter().map(|(branch, local, remote)| update(branch, local, remote)).collect();
            let branches = ["main".to_owned(), "master".to_owned()];
            let found: Vec<&str> =
                deploys(&given, &branches).iter().map(|update| &update.remote_ref["refs/heads/".len()..]).collect();
            assert_eq!(found, expected, "{given:?}");
        }
    }

    #[test]
    fn a_push_is_compared_with_what_is_deployed() {
        let one = ("1_one.rb", "a");
        for (deployed, pushed, pending, rules) in [
            (&[][..], &[one][..], &["One"][..], &[][..]),
            (&[one], &[one], &[], &[]),
            (&[one], &[one, ("3_c.rb", "c"), ("2_b.rb", "b")], &["B", "C"], &[]),
            (&[one], &[("1_one.rb", "b")], &[], &["edited"]),
            (&[one], &[("001_one.rb", "a")], &[], &["renamed"]),
            (&[one], &[("2_one.rb", "a")], &["One"], &["renamed"]),
            (&[one], &[], &[], &["deleted"]),
            (&[one], &[one, ("1_two.rb", "b")], &[], &["illegal"]),
            (&[one], &[one, ("2_one.rb", "b")], &[], &["illegal"]),
            (&[one, ("1_two.rb", "b")], &[one], &[], &["deleted"]),
            (&[one, ("3_c.rb", "b")], &[one, ("3_c.rb", "b"), ("2_b.rb", "c")], &["B"], &["out-of-order"]),
            (&[], &[("1_Bad.rb", "b")], &[], &["illegal"]),
            (&[("1_Bad.rb", "b")], &[], &[], &[]),
        ] {
            let plan = Plan::of(vec![folder(deployed, pushed)]);
            let names: Vec<&str> = plan.pending.iter().map(|pending| pending.migration.name.as_str()).collect();
            let found: Vec<&str> = plan.findings.iter().map(|finding| finding.rule).collect();
            assert_eq!((names.as_slice(), found.as_slice()), (pending, rules), "{deployed:?} {pushed:?}");
        }
    }

    /// A folder with these files, each with the first digit of its content's id.
    fn folder(deployed: &[(&str, &str)], pushed: &[(&str, &str)]) -> Folder {
        let mut folder = Folder::default();
        folder.pushed.enter("db/migrate".into());
        for (name, _) in pushed {
            folder.pushed.push(name.as_bytes());
        }
        let new = pushed.iter().filter(|file| !deployed.iter().any(|(name, _)| *name == file.0));
        let kin = Kin::of(new.map(|(name, _)| name.as_bytes()));
        (folder.newest_deployed, folder.applied) = kin.applied(deployed.iter().map(|(name, _)| name.as_bytes()));
        let mut changes: BTreeMap<&str, Change> = BTreeMap::new();
        let id = |digit: &str| Oid::from_str(&digit.repeat(40)).ok();
        let change = |name: &str| Change { path: Path::new("db/migrate").join(name), deployed: None, pushed: None };
        for (name, content) in deployed {
            changes.entry(name).or_insert_with(|| change(name)).deployed = id(content);
        }
        for (name, content) in pushed {
            changes.entry(name).or_insert_with(|| change(name)).pushed = id(content);
        }
        folder.changes = changes.into_values().filter(|change| change.deployed != change.pushed).collect();
        folder
    }
}
