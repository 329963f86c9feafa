//! The guard before a rollback: which versions the database holds that the older code has no file for. Pure.

use crate::migrations::{Migration, Version};

/// A migration file, where it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileAt {
    /// The whole id; `None`: in no release's commit, and in the working directory.
    pub commit: Option<String>,
    pub migration: Migration,
}

impl FileAt {
    /// How a person reads the file, from the Rails root.
    pub fn command(&self) -> String {
        let path = self.migration.path.display();
        match &self.commit {
            Some(commit) => format!("git show {}:./{path}", commit.get(..10).unwrap_or(commit)),
            None => format!("{path}, here alone: no release that was looked at has it"),
        }
    }
}

/// A version that the database holds, or has to be taken to hold, and that the older code knows nothing of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lacking {
    /// The database, where it was asked.
    pub database: Option<String>,
    pub version: Version,
    /// Where its file is: in a newer release, else here. `None`: nowhere.
    pub file: Option<FileAt>,
    /// What the file does, in plain words and in order; empty until it is read.
    pub what: Vec<String>,
}

/// One database, and what is known of it on both sides of a rollback.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Store {
    /// `None`: it was not asked.
    pub name: Option<String>,
    /// `None`: it was not asked, and whatever a newer release has a file for is taken to be applied.
    pub applied: Option<Vec<Version>>,
    /// The files of the release that is gone back to.
    pub target: Vec<Migration>,
    /// The files of the releases after it, the newest release first.
    pub newer: Vec<FileAt>,
    /// The files in the working directory. They tell what a version did, and decide nothing.
    pub here: Vec<Migration>,
}

impl Store {
    /// The versions without a file in the target, ascending.
    ///
    /// A version that no release has a file for, and that is older than every file of the target, was cleaned up long ago and
    /// says nothing about this rollback.
    pub fn lacking(&self) -> Vec<Lacking> {
        let oldest = self.target.iter().map(|migration| &migration.version).min();
        let mut held: Vec<&Version> = match &self.applied {
            Some(applied) => applied.iter().collect(),
            None => self.newer.iter().map(|file| &file.migration.version).collect(),
        };
        held.sort_unstable();
        held.dedup();
        let known = |version: &Version| self.target.iter().any(|migration| migration.version == *version);
        held.into_iter()
            .filter(|version| !known(version))
            .map(|version| (version, self.newer.iter().find(|file| file.migration.version == *version).cloned()))
            .filter(|(version, newer)| newer.is_some() || oldest.is_none_or(|oldest| *version > oldest))
            .map(|(version, newer)| Lacking {
                database: self.name.clone(),
                version: version.clone(),
                file: newer.or_else(|| self.file_here(version)),
                what: Vec::new(),
            })
            .collect()
    }

    fn file_here(&self, version: &Version) -> Option<FileAt> {
        let migration = self.here.iter().find(|migration| migration.version == *version)?;
        Some(FileAt { commit: None, migration: migration.clone() })
    }
}

/// What a rollback would do to the code's knowledge of the schema.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Guard {
    pub lacking: Vec<Lacking>,
    /// What could not be found out, and forbids to call the rollback safe.
    pub unknown: Vec<String>,
    /// What was not looked at, without forbidding anything.
    pub notes: Vec<String>,
    /// The databases themselves were asked; else the releases alone.
    pub asked_databases: bool,
}

impl Guard {
    pub fn is_clear(&self) -> bool {
        self.lacking.is_empty() && self.unknown.is_empty()
    }

    /// `clear`, `lacking`, `unknown`.
    pub fn state(&self) -> &'static str {
        match (self.lacking.is_empty(), self.unknown.is_empty()) {
            (false, _) => "lacking",
            (true, false) => "unknown",
            (true, true) => "clear",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn migration(version: u64) -> Migration {
        Migration::parse(Path::new(&format!("db/migrate/{version}_change_{version}.rb"))).unwrap()
    }

    fn newer(version: u64) -> FileAt {
        FileAt { commit: Some("1a2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d".into()), migration: migration(version) }
    }

    #[test]
    fn what_the_older_code_lacks() {
        let versions = |numbers: &[u64]| numbers.iter().map(|n| Version::from_digits(&n.to_string())).collect();
        for (what, applied, target, new, expected) in [
            ("the same on both sides", Some(&[1, 2][..]), &[1, 2][..], &[1, 2][..], &[][..]),
            ("a file that came later was run", Some(&[1, 2]), &[1], &[1, 2], &[2]),
            ("a file that came later was not run", Some(&[1]), &[1], &[1, 2], &[]),
            ("a late file with an early version was run", Some(&[1, 2]), &[2], &[1, 2], &[1]),
            ("cleaned up in both", Some(&[1, 5, 6]), &[5, 6], &[5, 6], &[]),
            ("applied from elsewhere", Some(&[1, 2]), &[1], &[1], &[2]),
            ("the target has no files at all", Some(&[1]), &[], &[], &[1]),
            ("not asked: each file is taken to be applied", None, &[1], &[1, 2, 3], &[2, 3]),
            ("not asked, nothing new", None, &[1, 2], &[1], &[]),
        ] {
            let store = Store {
                name: None,
                applied: applied.map(versions),
                target: target.iter().map(|version| migration(*version)).collect(),
                newer: new.iter().map(|version| newer(*version)).collect(),
                here: (1..=6).map(migration).collect(),
            };
            let found: Vec<Version> = store.lacking().into_iter().map(|lacking| lacking.version).collect();
            assert_eq!(found, versions(expected), "{what}");
        }
    }

    #[test]
    fn the_file_is_shown_where_it_is() {
        let both = Some(["2", "3"].map(Version::from_digits).to_vec());
        let here = vec![migration(2), migration(3)];
        let store = Store { applied: both, newer: vec![newer(2)], here, ..Store::default() };
        let commands: Vec<String> =
            store.lacking().into_iter().map(|lacking| lacking.file.unwrap().command()).collect();
        let alone = "db/migrate/3_change_3.rb, here alone: no release that was looked at has it";
        assert_eq!(commands, ["git show 1a2b3c4d5e:./db/migrate/2_change_2.rb", alone]);
    }

    #[test]
    fn what_is_lacking_outweighs_what_is_unknown() {
        let lacking = Store { newer: vec![newer(2)], ..Store::default() }.lacking();
        let unknown = vec!["a commit".to_owned()];
        for (lacking, unknown, state) in [
            (vec![], vec![], "clear"),
            (vec![], unknown.clone(), "unknown"),
            (lacking.clone(), vec![], "lacking"),
            (lacking, unknown, "lacking"),
        ] {
            let guard = Guard { lacking, unknown, ..Guard::default() };
            assert_eq!((guard.state(), guard.is_clear()), (state, state == "clear"));
        }
    }
}
