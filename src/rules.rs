//! Every rule by its name: those about a push as a whole, and those about what a migration does.

use crate::findings::Severity::{Note, Refusal, Warning};
use crate::ruby::{self, Rule};

/// The rule of this name.
pub fn rule(name: &str) -> Option<&'static Rule> {
    OF_PUSHES.iter().find(|rule| rule.name == name).or_else(|| ruby::rule(name))
}

/// The rules about a push as a whole, in the order of the documents.
pub const OF_PUSHES: &[Rule] = &[
    Rule {
        name: "edited",
        severity: Refusal,
        what: "a migration was edited after it was deployed",
        why: "it has run already and will not run again: the database and the file tell two stories",
        safe: &["take the edit back", "write what it should do as a new migration"],
    },
    Rule {
        name: "renamed",
        severity: Refusal,
        what: "a migration was renamed after it was deployed",
        why: "under another name it does not run again, under another version it runs a second time",
        safe: &["give it its name and its version back"],
    },
    Rule {
        name: "deleted",
        severity: Refusal,
        what: "a migration was deleted after it was deployed",
        why: "whoever sets up a database from the migrations gets another schema",
        safe: &["bring the file back", "undo what it did with a new migration"],
    },
    Rule {
        name: "illegal",
        severity: Refusal,
        what: "a file name is illegal, or two migrations have one version or one class name",
        why: "Rails refuses to run any migration",
        safe: &["rename one of the files"],
    },
    Rule {
        name: "schema-out-of-step",
        severity: Refusal,
        what: "the schema file is not at the newest migration",
        why: "a migration or the schema file was not committed: whoever loads the schema gets another one",
        safe: &["run `bin/rails db:migrate` and commit the schema file with the migration"],
    },
    Rule {
        name: "no-release",
        severity: Refusal,
        what: "migrations are pending, and no release line runs them",
        why: "the new code would meet the old schema",
        safe: &["add to the Procfile: `release: unstuck migrate`"],
    },
    Rule {
        name: "unread-release",
        severity: Note,
        what: "whether the release line migrates cannot be told",
        why: "it runs something that only Ruby or the shell can tell",
        safe: &["call `unstuck migrate` in the line itself"],
    },
    Rule {
        name: "out-of-order",
        severity: Warning,
        what: "a new migration is older than the newest deployed one",
        why: "it runs after migrations that were written later, and a database that is set up anew runs them in another order",
        safe: &["give it a version of today, unless it depends on nothing that came later"],
    },
    Rule {
        name: "rewind",
        severity: Warning,
        what: "the deployed commit is not part of what is pushed",
        why: "what came with it is taken back, its migrations are not",
        safe: &["merge or rebase onto what is deployed, or undo what it migrated with a new migration"],
    },
    Rule {
        name: "together",
        severity: Warning,
        what: "code changes in the same push as migrations",
        why: "hook.policy says `separate`: the new code should not depend on a migration that may fail",
        safe: &["push the migrations first", "then push the code that needs them"],
    },
];

#[cfg(test)]
mod tests {
    use super::{OF_PUSHES, rule};

    #[test]
    fn each_name_is_that_of_one_rule() {
        for one in OF_PUSHES.iter().chain(crate::ruby::RULES) {
            assert_eq!(rule(one.name).unwrap().what, one.what);
        }
        assert!(rule("nothing").is_none());
    }
}
