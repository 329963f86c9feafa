//! The one table of rules: what each finds, why that hurts, and the safe way.

use crate::findings::Severity::{self, Note, Refusal, Warning};

/// One rule about what a migration does.
#[derive(Debug)]
pub struct Rule {
    pub name: &'static str,
    /// The heaviest that its findings can be.
    pub severity: Severity,
    /// What it finds.
    pub what: &'static str,
    /// Why that hurts.
    pub why: &'static str,
    /// The safe way, step by step.
    pub safe: &'static [&'static str],
}

/// The rule of this name.
pub fn rule(name: &str) -> Option<&'static Rule> {
    RULES.iter().find(|rule| rule.name == name)
}

const TWO_STEPS: [&str; 3] = [
    "add the new column, and write to both in the code",
    "fill the new column in batches, in a migration of its own with disable_ddl_transaction!",
    "read from the new column, ignore the old one, deploy, and remove it with the push after that",
];

/// In the order of the documents.
pub const RULES: &[Rule] = &[
    Rule {
        name: "remove-column",
        severity: Refusal,
        what: "a column is removed that the running code knows",
        why: "Active Record keeps the list of columns it has read, and names them when it writes: those statements fail until the restart",
        safe: &[
            "add self.ignored_columns += [\"COLUMN\"] to the model, and remove each use",
            "deploy that",
            "remove the column with the push after it",
        ],
    },
    Rule {
        name: "rename-column",
        severity: Refusal,
        what: "a column is renamed that the running code knows",
        why: "the running code asks for the old name until the restart",
        safe: &TWO_STEPS,
    },
    Rule {
        name: "drop-table",
        severity: Refusal,
        what: "a table is dropped that a running model stands for",
        why: "each query of the model fails until the restart",
        safe: &["remove the model and each use of it", "deploy that", "drop the table with the push after it"],
    },
    Rule {
        name: "rename-table",
        severity: Refusal,
        what: "a table is renamed that a running model stands for",
        why: "the running code asks for the old name until the restart",
        safe: &[
            "keep the table's name and set self.table_name in the renamed model",
            "or create the new table, write to both, fill it in batches, read from the new one, and drop the old one later",
        ],
    },
    Rule {
        name: "change-type",
        severity: Refusal,
        what: "a column gets a type for which the whole table is written anew",
        why: "nobody can use the table meanwhile, and the running code casts values to the old type until the restart",
        safe: &TWO_STEPS,
    },
    Rule {
        name: "not-null-column",
        severity: Refusal,
        what: "a column that must not be null is added without a default",
        why: "it fails where the table has rows, and else each INSERT of the running code fails, which does not know the column",
        safe: &[
            "add the column without null: false, or with a default",
            "write it in the code, deploy, and fill the old rows in batches",
            "forbid null as the rule not-null says",
        ],
    },
    Rule {
        name: "not-null",
        severity: Refusal,
        what: "null is forbidden in a column that has rows",
        why: "every row is checked while nobody can use the table, and running code that writes null fails",
        safe: &[
            "add_check_constraint TABLE, \"COLUMN IS NOT NULL\", name: NAME, validate: false",
            "validate_check_constraint TABLE, name: NAME in the next migration: that blocks nobody",
            "change_column_null TABLE, COLUMN, false and remove_check_constraint TABLE, name: NAME: the check makes it quick",
        ],
    },
    Rule {
        name: "null-allowed",
        severity: Note,
        what: "null is allowed in a column where it was not",
        why: "code that relies on a value may meet null",
        safe: &["see that no code that runs before the restart writes null, and that all code can read it"],
    },
    Rule {
        name: "change-default",
        severity: Warning,
        what: "the default of a column changes that the running code knows",
        why: "running code remembers the old default: with partial inserts it leaves the column out and a row gets the new one unseen",
        safe: &["set config.active_record.partial_inserts = false, and deploy that first"],
    },
    Rule {
        name: "default-rewrites",
        severity: Refusal,
        what: "a column is added with a default for which the whole table is written anew",
        why: "nobody can use the table meanwhile: a default that differs from row to row, or a server too old to keep it aside",
        safe: &[
            "add the column without a default",
            "set it with change_column_default in the same migration",
            "fill the old rows in batches, in a migration of its own with disable_ddl_transaction!",
        ],
    },
    Rule {
        name: "stored-column",
        severity: Refusal,
        what: "a generated column is added whose values are stored",
        why: "the whole table is written anew while nobody can use it",
        safe: &["add an ordinary column, fill it in batches, and keep it up to date by a trigger or in the code"],
    },
    Rule {
        name: "auto-increment-column",
        severity: Refusal,
        what: "a column is added that counts by itself",
        why: "the whole table is written anew while nobody can use it",
        safe: &["create a new table with that column, copy the rows in batches, and change over"],
    },
    Rule {
        name: "json-column",
        severity: Warning,
        what: "a column of the type json is added",
        why: "json has no equality in PostgreSQL: SELECT DISTINCT and GROUP BY that name all columns fail",
        safe: &["use jsonb"],
    },
    Rule {
        name: "char-column",
        severity: Note,
        what: "a column of the type char is added",
        why: "values are filled up with blanks, which comparisons meet again",
        safe: &["use string or text, with a limit checked by a constraint"],
    },
    Rule {
        name: "small-key",
        severity: Note,
        what: "a table is created with a primary key of 32 bits",
        why: "it has no more values after two thousand million rows, and then every INSERT fails",
        safe: &["leave id: out, which makes a bigint"],
    },
    Rule {
        name: "force-create",
        severity: Refusal,
        what: "a table is created with force: true",
        why: "a table of that name is dropped with all its rows",
        safe: &["leave force: out", "drop the old table in a migration of its own, after the code has let go of it"],
    },
    Rule {
        name: "index-blocks",
        severity: Refusal,
        what: "an index is added to an existing table without algorithm: :concurrently",
        why: "nobody can write to the table until the index is built",
        safe: &["put disable_ddl_transaction! into the class", "add algorithm: :concurrently to the index"],
    },
    Rule {
        name: "index-removal-blocks",
        severity: Warning,
        what: "an index is removed without algorithm: :concurrently",
        why: "it waits for all that use the table, and everybody else waits behind it",
        safe: &["put disable_ddl_transaction! into the class", "add algorithm: :concurrently to remove_index"],
    },
    Rule {
        name: "concurrent-in-transaction",
        severity: Refusal,
        what: "something is asked for inside of the migration's transaction that PostgreSQL does without one only: concurrently, VACUUM",
        why: "PostgreSQL refuses it, and the migration fails",
        safe: &["put disable_ddl_transaction! into the class, and nothing else into the migration"],
    },
    Rule {
        name: "concurrent-unknown",
        severity: Refusal,
        what: "algorithm: :concurrently is asked of a server that is not PostgreSQL",
        why: "Rails knows no such algorithm there, and the migration fails",
        safe: &["leave it out: MySQL and MariaDB build an index while others write"],
    },
    Rule {
        name: "index-corruption",
        severity: Warning,
        what: "an index is built concurrently on PostgreSQL 14.0 to 14.3",
        why: "these releases can leave rows out of it without a word",
        safe: &["update the server to 14.4 or newer first"],
    },
    Rule {
        name: "wide-index",
        severity: Note,
        what: "an index that is not unique has more than three columns",
        why: "it is rarely quicker than one on the columns that narrow the rows most, and each write pays for it",
        safe: &["begin with the columns that narrow the rows most, and leave the others out"],
    },
    Rule {
        name: "long-name",
        severity: Refusal,
        what: "the name of an index is longer than the server allows",
        why: "Rails refuses it, and the migration fails",
        safe: &["give a name of at most 63 bytes (MySQL: 64) with name:"],
    },
    Rule {
        name: "foreign-key-validates",
        severity: Refusal,
        what: "a foreign key is added to an existing table and all rows are checked",
        why: "nobody can write to either table until all rows are checked",
        safe: &["add it with validate: false", "validate_foreign_key in the next migration: that blocks nobody"],
    },
    Rule {
        name: "check-validates",
        severity: Refusal,
        what: "a check constraint is added to an existing table and all rows are checked",
        why: "nobody can use the table until all rows are checked",
        safe: &["add it with validate: false", "validate_check_constraint in the next migration: that blocks nobody"],
    },
    Rule {
        name: "validate-in-transaction",
        severity: Refusal,
        what: "a constraint is validated in the transaction that changes a table",
        why: "the locks of the change are held until all rows are checked",
        safe: &["validate in a migration of its own"],
    },
    Rule {
        name: "unique-constraint",
        severity: Refusal,
        what: "a unique constraint or a primary key is added to an existing table without an index that is there",
        why: "nobody can use the table until its index is built",
        safe: &[
            "add_index TABLE, COLUMNS, unique: true, algorithm: :concurrently, with disable_ddl_transaction!",
            "add_unique_constraint TABLE, using_index: NAME in the next migration",
        ],
    },
    Rule {
        name: "exclusion-constraint",
        severity: Refusal,
        what: "an exclusion constraint is added to an existing table",
        why: "nobody can use the table until its index is built, and there is no way around",
        safe: &[
            "do it while the table is small or the application is in maintenance, and allow it with a comment that says so",
        ],
    },
    Rule {
        name: "new-constraint",
        severity: Note,
        what: "the database will refuse rows that it took before",
        why: "running code that writes such rows fails until the restart",
        safe: &["deploy the code that keeps the rule before the constraint"],
    },
    Rule {
        name: "rename-schema",
        severity: Refusal,
        what: "a schema is renamed",
        why: "the running code asks for the old name until the restart",
        safe: &["create the new schema, write to both, fill it in batches, and drop the old one later"],
    },
    Rule {
        name: "backfill-in-transaction",
        severity: Warning,
        what: "rows are written in the transaction that changes a table, or in batches within one transaction",
        why: "the locks of the change, and those of the rows, are held until the last row is written",
        safe: &["write the rows in a migration of its own with disable_ddl_transaction!, in batches"],
    },
    Rule {
        name: "backfill-at-once",
        severity: Note,
        what: "rows of an existing table are written by one statement",
        why: "those rows stay locked until its end",
        safe: &["write them in batches: in_batches { |rows| rows.update_all(...) }, with disable_ddl_transaction!"],
    },
    Rule {
        name: "truncate",
        severity: Refusal,
        what: "a table is emptied; with CASCADE also those that refer to it",
        why: "rows are gone for running code, and with CASCADE rows of tables that nobody named",
        safe: &["delete rows in batches, table by table"],
    },
    Rule {
        name: "drop-database",
        severity: Refusal,
        what: "a database is dropped, or a schema with all that is in it",
        why: "everything in it is gone for everybody",
        safe: &["do it by hand, never in a migration"],
    },
    Rule {
        name: "drop-object",
        severity: Warning,
        what: "a view, a function, a type or the like is dropped or renamed",
        why: "running code that uses it fails until the restart",
        safe: &["deploy code that does not use it", "drop it with the push after that"],
    },
    Rule {
        name: "enum-value-in-transaction",
        severity: Refusal,
        what: "a value is added to a type inside of a transaction on a server older than PostgreSQL 12",
        why: "the server refuses it, and the migration fails",
        safe: &["put disable_ddl_transaction! into the class"],
    },
    Rule {
        name: "rewrite",
        severity: Refusal,
        what: "a table or its indexes are written anew as a whole: VACUUM FULL, CLUSTER, REINDEX",
        why: "nobody can use the table meanwhile",
        safe: &["use REINDEX CONCURRENTLY, or pg_repack for a table"],
    },
    Rule {
        name: "own-transaction",
        severity: Warning,
        what: "a statement begins or ends a transaction inside of the migration's own",
        why: "what follows is no longer undone when the migration fails",
        safe: &["leave it out, or put disable_ddl_transaction! into the class and use transaction { }"],
    },
    Rule {
        name: "server-lacks",
        severity: Refusal,
        what: "something is asked for that the app's server does not have: a type, or to validate a constraint later",
        why: "the statement fails, or Rails has no such method for this server",
        safe: &["use what the server in config/database.yml has"],
    },
    Rule {
        name: "already-there",
        severity: Warning,
        what: "a table or a column is made that the deployed schema file has already",
        why: "the statement fails, if the file tells the truth: two branches may have made it",
        safe: &["leave it out, or say if_not_exists: true"],
    },
    Rule {
        name: "migration-version",
        severity: Refusal,
        what: "a migration is written for a version that this Rails does not have",
        why: "Rails refuses to load it, and the release fails",
        safe: &["write the version of the Gemfile.lock into the brackets: ActiveRecord::Migration[7.1]"],
    },
    Rule {
        name: "syntax-error",
        severity: Refusal,
        what: "the file is not valid Ruby",
        why: "the migration fails",
        safe: &["correct it: ruby -c FILE"],
    },
    Rule {
        name: "dynamic",
        severity: Note,
        what: "something that only the running program knows",
        why: "what cannot be read is not checked",
        safe: &["look at it yourself"],
    },
    Rule {
        name: "allow-without-reason",
        severity: Warning,
        what: "a comment allows a rule and does not say why",
        why: "who reads it later cannot know whether it still holds; it allows nothing",
        safe: &["write the reason after the rule's name: # unstuck:allow RULE REASON"],
    },
    Rule {
        name: "allow-unknown-rule",
        severity: Warning,
        what: "a comment allows a rule that is none",
        why: "it may be misspelt, and what it was written for is refused or waits for its day",
        safe: &["write the name that stands in brackets behind a finding"],
    },
];

#[cfg(test)]
mod tests {
    use super::{RULES, rule};

    #[test]
    fn names_are_distinct() {
        for (index, one) in RULES.iter().enumerate() {
            assert!(RULES[..index].iter().all(|other| other.name != one.name), "{}", one.name);
            assert!(rule(one.name).is_some_and(|found| !found.safe.is_empty()));
        }
    }
}
