//! The tables of the deployed commit, from its schema file or, where there is none, from its migrations.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::deed::{Change, Column, Constraint, Deed, Default, Which};
use super::{script, sql};
use crate::rails::Engine;

/// A larger `structure.sql` is not read.
const MAX_SQL: usize = 16 << 20;

/// No larger file of Ruby is read, be it a schema or a model.
pub const MAX_RUBY: usize = 1 << 20;

#[derive(Debug, Clone, std::default::Default)]
pub struct Table {
    pub columns: BTreeMap<String, Column>,
    /// Columns of unique indexes, each index's joined by commas.
    unique: BTreeSet<String>,
    indexes: BTreeMap<String, bool>,
    /// What each index is on: columns and expressions.
    indexed: Vec<Vec<String>>,
}

impl Table {
    /// Whether an index, told by its name or its columns, is unique; nothing where it is not known.
    pub fn is_unique(&self, name: &str, columns: &[String]) -> Option<bool> {
        self.indexes.get(name).copied().or_else(|| {
            (!columns.is_empty() && !self.indexes.is_empty()).then(|| self.unique.contains(&columns.join(",")))
        })
    }

    /// Whether an index is on the column, or on an expression that names it.
    pub fn has_index_on(&self, column: &str) -> bool {
        let names = |part: &String| {
            part.split(|letter: char| !letter.is_alphanumeric() && letter != '_').any(|word| word == column)
        };
        self.indexed.iter().flatten().any(names)
    }
}

/// A check constraint.
#[derive(Debug)]
struct Check {
    table: String,
    name: Option<String>,
    expression: String,
    /// All rows are known to keep it.
    valid: bool,
}

/// What is known of the tables.
#[derive(Debug, std::default::Default)]
pub struct Schema {
    tables: BTreeMap<String, Table>,
    checks: Vec<Check>,
}

impl Schema {
    pub fn of(file: Option<&(PathBuf, Vec<u8>)>, migrations: &[(PathBuf, Vec<u8>)], engine: Engine) -> Self {
        let mut schema = Self::default();
        match file {
            Some((path, text)) => {
                for deed in deeds_of(path, text, engine) {
                    schema.apply(&deed);
                }
            }
            None => {
                for (path, text) in migrations {
                    for deed in deeds_of(path, text, engine) {
                        schema.apply(&deed);
                    }
                }
            }
        }
        schema
    }

    pub fn is_sql(path: &Path) -> bool {
        path.extension().is_some_and(|end| end == "sql")
    }

    pub fn table(&self, name: &str) -> Option<&Table> {
        self.tables.get(name)
    }

    pub fn column(&self, table: &str, column: &str) -> Option<&Column> {
        self.tables.get(table)?.columns.get(column)
    }

    /// Whether nothing is known of any table.
    pub fn is_empty(&self) -> bool {
        self.tables.is_empty()
    }

    /// Whether a check that all rows are known to keep forbids null in the column.
    pub fn forbids_null(&self, table: &str, column: &str) -> bool {
        let wanted = format!("{} is not null", column.to_lowercase());
        let says_so = |expression: &str| {
            let text: String = expression.to_lowercase().replace(['"', '`', '(', ')'], "");
            text.split(" and ").any(|part| part.trim() == wanted)
        };
        self.checks.iter().any(|check| check.table == table && check.valid && says_so(&check.expression))
    }

    /// The check that a deed names: by its name, or the only one that it can be.
    fn check(&mut self, table: &str, which: &Which) -> Option<&mut Check> {
        let mut checks: Vec<&mut Check> =
            self.checks.iter_mut().filter(|check| check.table == table && !check.valid).collect();
        match checks.iter().position(|check| which.name.is_some() && check.name == which.name) {
            Some(named) => Some(checks.swap_remove(named)),
            None if checks.len() == 1 && (which.name.is_none() || checks[0].name.is_none()) => checks.pop(),
            None => None,
        }
    }

    /// The schema after this deed.
    pub fn apply(&mut self, deed: &Deed) {
        match deed {
            Deed::CreateTable { table, .. } => {
                self.tables.insert(table.clone(), Table::default());
            }
            Deed::DropTable { table } => {
                self.tables.remove(table);
                self.checks.retain(|check| check.table != *table);
            }
            Deed::RenameTable { from, to } => {
                for check in self.checks.iter_mut().filter(|check| check.table == *from) {
                    check.table.clone_from(to);
                }
                if let Some(table) = self.tables.remove(from) {
                    self.tables.insert(to.clone(), table);
                }
            }
            Deed::AddColumn { table, column } | Deed::ChangeType { table, column } => {
                if let Some(table) = self.tables.get_mut(table) {
                    let null = table.columns.get(&column.name).is_none_or(|old| old.null) && column.null;
                    table.columns.insert(column.name.clone(), Column { null, ..column.clone() });
                }
            }
            Deed::RemoveColumn { table, column } => {
                self.tables.get_mut(table).map(|table| table.columns.remove(column));
            }
            Deed::RenameColumn { table, from, to } => {
                if let Some(table) = self.tables.get_mut(table)
                    && let Some(column) = table.columns.remove(from)
                {
                    table.columns.insert(to.clone(), Column { name: to.clone(), ..column });
                }
            }
            Deed::ChangeNull { table, column, null, .. } => {
                if let Some(column) = self.tables.get_mut(table).and_then(|table| table.columns.get_mut(column)) {
                    column.null = *null;
                }
            }
            Deed::ChangeDefault { table, column } => {
                if let Some(column) = self.tables.get_mut(table).and_then(|table| table.columns.get_mut(column)) {
                    column.default = Default::Unknown;
                }
            }
            Deed::AddIndex(index) => {
                if let Some(table) = self.tables.get_mut(&index.table) {
                    let name = index.name.clone();
                    let name =
                        name.unwrap_or_else(|| format!("index_{}_on_{}", index.table, index.columns.join("_and_")));
                    table.indexes.insert(name, index.unique);
                    table.indexed.push(index.columns.clone());
                    if index.unique {
                        table.unique.insert(index.columns.join(","));
                    }
                }
            }
            Deed::AddConstraint { table, kind: Constraint::Check, name, ready, expression: Some(expression) } => {
                let (table, name, expression) = (table.clone(), name.clone(), expression.clone());
                self.checks.push(Check { table, name, expression, valid: !ready });
            }
            Deed::Validate { table, which } if which.kind != Some(Constraint::ForeignKey) => {
                if let Some(check) = self.check(table, which) {
                    check.valid = true;
                }
            }
            Deed::RemoveConstraint { table, which } if which.kind.is_none_or(|kind| kind == Constraint::Check) => {
                let goes = |check: &Check| which.name.is_none() || check.name.is_none() || check.name == which.name;
                self.checks.retain(|check| check.table != *table || !goes(check));
            }
            _ => {}
        }
    }
}

fn deeds_of(path: &Path, text: &[u8], engine: Engine) -> Vec<Deed> {
    let is_sql = Schema::is_sql(path);
    if text.len() > if is_sql { MAX_SQL } else { MAX_RUBY } {
        return Vec::new();
    }
    if is_sql {
        return sql::deeds(&String::from_utf8_lossy(text), engine);
    }
    let changes = script::script(text, engine).map(|script| script.changes).unwrap_or_default();
    changes.into_iter().map(|change: Change| change.deed).collect()
}
