//! What a push will migrate, and what of that is certain to go wrong. Pure.
//!
//! Git tells its pre-push hook which commit the remote has now: what the migrations of the pushed commit have beyond those of
//! that commit is what the release is going to run.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::migrations::{Files, Migration, Migrations, Version};

/// Heroku builds what is pushed to one of these, and ignores every other reference.
const DEPLOYED: [&str; 2] = ["refs/heads/main", "refs/heads/master"];

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

    /// Whether the platform builds and releases it.
    pub fn deploys(&self) -> bool {
        self.local.is_some() && DEPLOYED.contains(&self.remote_ref.as_str())
    }
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

/// The migrations of one folder at both ends: paths, each with the id of its content.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Folder {
    pub deployed: BTreeMap<PathBuf, String>,
    pub pushed: BTreeMap<PathBuf, String>,
}

/// What a push does to the migrations.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// What the release will run, by folder and version.
    pub pending: Vec<Migration>,
    /// Why the push is refused.
    pub findings: Vec<Finding>,
}

/// Something that is certain to fail or to hurt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// A short name: `edited`, `deleted`, `renamed`, `illegal`.
    pub rule: &'static str,
    pub path: Option<PathBuf>,
    pub message: String,
    /// The safe way.
    pub remedy: &'static str,
}

impl Plan {
    /// Compares what the remote has with what is pushed.
    pub fn of(folders: &[Folder]) -> Self {
        let mut plan = Self::default();
        for folder in folders {
            plan.judge(folder);
        }
        plan
    }

    fn judge(&mut self, folder: &Folder) {
        let mut files = Files::default();
        files.begin();
        for path in folder.pushed.keys() {
            files.enter(path.parent().unwrap_or(Path::new("")).to_owned());
            files.push(path.file_name().unwrap_or_default().as_encoded_bytes());
        }
        match Migrations::of(files) {
            Ok(pushed) => {
                let mut deployed: Vec<Version> = folder.deployed.keys().filter_map(|path| version(path)).collect();
                deployed.sort_unstable();
                self.pending.extend(pushed.pending(&deployed));
            }
            Err(error) => self.findings.push(Finding {
                rule: "illegal",
                path: None,
                message: error.message,
                remedy: "Rails would refuse all migrations: rename one of the files",
            }),
        }
        let pushed: BTreeMap<Version, (&PathBuf, &String)> =
            folder.pushed.iter().filter_map(|(path, content)| Some((version(path)?, (path, content)))).collect();
        for (path, content) in &folder.deployed {
            let Some(version) = version(path) else { continue };
            let (rule, message, remedy) = match pushed.get(&version) {
                None => (
                    "deleted",
                    "was deployed and is deleted: whoever sets up a database from the migrations gets another schema"
                        .to_owned(),
                    "keep the file; undo what it did with a new migration",
                ),
                Some((now, _)) if *now != path => (
                    "renamed",
                    format!("was deployed and is renamed to {}: it will not run again", now.display()),
                    "give it its name back",
                ),
                Some((_, now)) if *now != content => (
                    "edited",
                    "was deployed and is edited: it has run already and will not run again".to_owned(),
                    "take the edit back, and write it as a new migration",
                ),
                Some(_) => continue,
            };
            let message = format!("{} {message}", path.display());
            self.findings.push(Finding { rule, path: Some(path.clone()), message, remedy });
        }
    }
}

fn version(path: &Path) -> Option<Version> {
    Migration::parse(path).map(|migration| migration.version)
}

#[cfg(test)]
mod tests {
    use super::*;

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
            let seen = updates.first().map(|update| (update.deploys(), update.remote.as_deref()));
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
    fn a_push_is_compared_with_what_is_deployed() {
        let folder = |deployed: &[(&str, &str)], pushed: &[(&str, &str)]| {
            let files = |files: &[(&str, &str)]| {
                files.iter().map(|(path, id)| (PathBuf::from(path), (*id).to_owned())).collect()
            };
            Folder { deployed: files(deployed), pushed: files(pushed) }
        };
        let one = ("db/migrate/1_one.rb", "a");
        for (deployed, pushed, pending, rules) in [
            (&[][..], &[one][..], &["One"][..], &[][..]),
            (&[one], &[one], &[], &[]),
            (&[one], &[one, ("db/migrate/3_c.rb", "c"), ("db/migrate/2_b.rb", "b")], &["B", "C"], &[]),
            (&[one], &[("db/migrate/1_one.rb", "b")], &[], &["edited"]),
            (&[one], &[("db/migrate/001_one.rb", "a")], &[], &["renamed"]),
            (&[one], &[], &[], &["deleted"]),
            (&[one], &[one, ("db/migrate/1_two.rb", "b")], &[], &["illegal", "renamed"]),
            (&[], &[("db/migrate/1_Bad.rb", "b")], &[], &["illegal"]),
        ] {
            let plan = Plan::of(&[folder(deployed, pushed)]);
            let names: Vec<&str> = plan.pending.iter().map(|migration| migration.name.as_str()).collect();
            let found: Vec<&str> = plan.findings.iter().map(|finding| finding.rule).collect();
            assert_eq!((names.as_slice(), found.as_slice()), (pending, rules), "{deployed:?} {pushed:?}");
        }
    }
}
