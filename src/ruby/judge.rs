//! Holds what a migration does against what is running: the findings and the class.

use std::collections::BTreeSet;
use std::path::Path;

use super::Class;
use super::deed::{Change, Column, Condition, Constraint, Deed, Default, Index, Pace, Which};
use super::models::{Models, Use};
use super::rules::{Rule, rule};
use super::schema::Schema;
use super::script::Script;
use super::types::{self, Rows, Server};
use crate::findings::Severity::{self, Note, Refusal, Warning};
use crate::rails::Engine;

/// What is deployed, read once, and what the migrations before have added to it.
#[derive(Debug)]
pub struct World {
    pub models: Models,
    pub schema: Schema,
    pub server: Server,
    /// Made by this push: nobody uses it yet.
    tables: BTreeSet<String>,
    columns: BTreeSet<(String, String)>,
    /// Dropped by this push: a table of that name may be made anew.
    dropped: BTreeSet<String>,
    /// Columns that went before.
    gone: BTreeSet<(String, String)>,
}

/// A finding before it has a place in words.
#[derive(Debug)]
pub struct Verdict {
    pub rule: &'static Rule,
    pub severity: Severity,
    pub at: usize,
    pub message: String,
    /// The table and the column that it is about, for the steps of the remedy.
    pub table: Option<String>,
    pub column: Option<String>,
}

/// How sure we are that somebody uses a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// This push makes it.
    New,
    Exists,
    Unknown,
}

impl World {
    pub fn new(models: Models, schema: Schema, engine: Engine, version: Option<&str>) -> Self {
        let numbers = version.map(|version| {
            let digits = version.trim_start_matches(|letter: char| !letter.is_ascii_digit());
            let mut parts = digits.split(|letter: char| !letter.is_ascii_digit()).map(|part| part.parse().unwrap_or(0));
            (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
        });
        let mariadb = version.is_some_and(|version| version.to_lowercase().contains("mariadb"));
        let server = Server { engine, version: numbers, mariadb };
        let (tables, columns) = (BTreeSet::new(), BTreeSet::new());
        let (dropped, gone) = (BTreeSet::new(), BTreeSet::new());
        Self { models, schema, server, tables, columns, dropped, gone }
    }

    fn standing(&self, table: &str) -> Standing {
        if self.tables.contains(table) {
            Standing::New
        } else if self.schema.table(table).is_some() || self.models.knows_table(table) {
            Standing::Exists
        } else {
            Standing::Unknown
        }
    }

    /// The running code cannot know this column: this push adds it, or the deployed schema does not have it.
    fn is_new_column(&self, table: &str, column: &str) -> bool {
        self.tables.contains(table)
            || self.columns.contains(&(table.to_owned(), column.to_owned()))
            || self
                .schema
                .table(table)
                .is_some_and(|known| !known.columns.is_empty() && !known.columns.contains_key(column))
                && column != "id"
    }

    /// Whether a table that is created is there already: `if_not_exists: true`, `unless table_exists?`.
    fn is_there(&self, table: &str, condition: Option<&Condition>) -> bool {
        let asks = condition == Some(&Condition::Expected);
        let known = self.schema.table(table).is_some();
        !self.dropped.contains(table) && (known || (asks && self.schema.is_empty() && self.models.knows_table(table)))
    }

    /// Remembers what this deed makes, for those that follow.
    fn learn(&mut self, change: &Change) {
        match &change.deed {
            Deed::CreateTable { table, force, .. } if *force || !self.is_there(table, change.condition.as_ref()) => {
                self.tables.insert(table.clone());
            }
            Deed::DropTable { table } => {
                self.tables.remove(table);
                self.dropped.insert(table.clone());
            }
            deed @ Deed::RenameTable { from, to } => {
                if self.tables.contains(from) {
                    self.tables.insert(to.clone());
                }
                self.models.rename_table(from, to);
                self.schema.apply(deed);
            }
            deed @ Deed::RenameColumn { table, from, to } => {
                if self.columns.contains(&(table.clone(), from.clone())) {
                    self.columns.insert((table.clone(), to.clone()));
                }
                self.models.rename_column(table, from, to);
                self.schema.apply(deed);
            }
            Deed::RemoveColumn { table, column } => {
                self.gone.insert((table.clone(), column.clone()));
            }
            Deed::AddColumn { table, column } if self.schema.column(table, &column.name).is_none() => {
                self.columns.insert((table.clone(), column.name.clone()));
            }
            deed @ (Deed::AddConstraint { .. } | Deed::Validate { .. } | Deed::RemoveConstraint { .. }) => {
                self.schema.apply(deed);
            }
            _ => {}
        }
    }

    /// Whether the database lets no null into a column, by the column itself or by a check that holds for all rows.
    fn forbids_null(&self, table: &str, column: &str) -> bool {
        self.schema.forbids_null(table, column) || self.schema.column(table, column).is_some_and(|known| !known.null)
    }

    fn has_index_on(&self, table: &str, column: &str) -> bool {
        self.schema.table(table).is_some_and(|table| table.has_index_on(column))
    }

    fn older_than(&self, postgresql: (u32, u32), mysql: (u32, u32), mariadb: (u32, u32)) -> bool {
        let Some(version) = self.server.version else { return false };
        match self.server.engine {
            Engine::Postgresql => version < postgresql,
            Engine::Mysql if self.server.mariadb => version < mariadb,
            Engine::Mysql => version < mysql,
            Engine::Sqlite => false,
        }
    }

    /// Judges each thing that a script does, in order.
    pub fn judge(&mut self, script: &Script) -> (Vec<Verdict>, Class) {
        let mut bench = Bench::of(self, !script.outside_transaction);
        let mut class = Class::NoProcessCanNotice;
        for change in &script.changes {
            bench.enter(change.transaction);
            class = class.max(bench.class(&change.deed));
            bench.judge(change);
            bench.locked |= change.deed.locks_table() && bench.concerns_existing(&change.deed);
            bench.world.learn(change);
        }
        (bench.found, class)
    }
}

struct Bench<'w> {
    world: &'w mut World,
    /// The engine can undo a schema change, and the migration did not ask to go without.
    whole: bool,
    /// What is judged now runs in a transaction; in which of those that the migration opens itself.
    in_transaction: bool,
    transaction: usize,
    /// Something before has taken a lock that this transaction keeps.
    locked: bool,
    found: Vec<Verdict>,
}

impl<'w> Bench<'w> {
    fn of(world: &'w mut World, whole: bool) -> Self {
        Self { world, whole, in_transaction: whole, transaction: 0, locked: false, found: Vec::new() }
    }

    /// Locks that a transaction keeps go with it.
    fn enter(&mut self, transaction: usize) {
        self.locked &= self.whole || self.transaction == transaction;
        self.in_transaction = self.whole || transaction > 0;
        self.transaction = transaction;
    }

    fn postgresql(&self) -> bool {
        self.world.server.engine == Engine::Postgresql
    }

    fn concerns_existing(&self, deed: &Deed) -> bool {
        deed.table().is_none_or(|table| self.world.standing(table) != Standing::New)
    }

    /// A finding, as heavy as said; a person's word counts where nothing proves the opposite.
    fn say(&mut self, change: &Change, name: &str, severity: Severity, message: String) {
        let Some(rule) = rule(name) else { return };
        let assured =
            change.assured && !matches!(name, "remove-column" | "rename-column" | "drop-table" | "rename-table");
        let (severity, message) = match (assured, &change.condition) {
            (true, _) => (Note, format!("{message} (somebody vouches for it with safety_assured)")),
            (false, Some(Condition::Unknown(words))) => {
                (severity.min(Warning), format!("{message} (only where {words})"))
            }
            (false, Some(Condition::Expected)) => {
                (severity, format!("{message} (under a condition that is not known here)"))
            }
            (false, None) => (severity, message),
        };
        let table = change.deed.table().map(str::to_owned);
        let column = change.deed.column().map(str::to_owned);
        self.found.push(Verdict { rule, severity, at: change.at, message, table, column });
    }

    /// What blocks an existing table for certain is refused; where it is not known whether it exists, it is said.
    fn blocks(&mut self, change: &Change, name: &str, table: &str, message: String) {
        match self.world.standing(table) {
            Standing::New => {}
            Standing::Exists => self.say(change, name, Refusal, message),
            Standing::Unknown => self.say(change, name, Warning, message),
        }
    }

    fn judge(&mut self, change: &Change) {
        match &change.deed {
            Deed::CreateTable { table, force, small_key } => self.create_table(change, table, *force, *small_key),
            Deed::DropTable { table } => self.table_goes(change, "drop-table", table, "is dropped"),
            Deed::RenameTable { from, to } => {
                self.table_goes(change, "rename-table", from, &format!("is renamed to {to}"));
            }
            Deed::AddColumn { table, column } => self.add_column(change, table, column),
            Deed::RemoveColumn { table, column } => {
                self.column_goes(change, "remove-column", table, column, "is removed");
            }
            Deed::RenameColumn { table, from, to } => {
                self.column_goes(change, "rename-column", table, from, &format!("is renamed to {to}"));
            }
            Deed::ChangeType { table, column } => self.change_type(change, table, column),
            Deed::ChangeNull { table, column, null, backfill } => {
                self.change_null(change, table, column, *null, *backfill);
            }
            Deed::ChangeDefault { table, column } => {
                if !self.world.is_new_column(table, column) {
                    let message = format!(
                        "the default of {table}.{column} changes under running code that remembers the old one"
                    );
                    self.say(change, "change-default", Warning, message);
                }
            }
            Deed::AddIndex(index) => self.add_index(change, index),
            Deed::RemoveIndex { table, index, concurrently, .. } => {
                self.concurrency(change, *concurrently);
                let new = table.as_deref().is_some_and(|table| self.world.standing(table) == Standing::New);
                if self.postgresql() && !concurrently && !new {
                    let message =
                        format!("removing the index {index} blocks its table while it waits for all that use it");
                    self.say(change, "index-removal-blocks", Warning, message);
                }
            }
            Deed::AddConstraint { table, kind, ready, .. } => self.add_constraint(change, table, *kind, *ready),
            Deed::Validate { table, .. } if !self.postgresql() => {
                let message = format!("only PostgreSQL validates a constraint of {table} later");
                self.say(change, "server-lacks", Refusal, message);
            }
            Deed::Validate { table, .. } => {
                if self.in_transaction && self.locked && self.postgresql() {
                    let message =
                        format!("a constraint of {table} is validated while the locks of this migration are held");
                    self.say(change, "validate-in-transaction", Refusal, message);
                }
            }
            Deed::Write { table, how, pace } => self.write(change, table.as_deref(), how, *pace),
            Deed::Truncate { table, cascade } => {
                if self.world.standing(table) != Standing::New {
                    let severity = if *cascade { Refusal } else { Warning };
                    self.say(change, "truncate", severity, format!("{table} is emptied under running code"));
                }
            }
            _ => self.other(change),
        }
    }

    fn other(&mut self, change: &Change) {
        match &change.deed {
            Deed::RenameSchema { from } => {
                self.say(change, "rename-schema", Refusal, format!("the schema {from} is renamed under running code"));
            }
            Deed::DropAll { what } => self.say(change, "drop-database", Refusal, format!("{what} is dropped")),
            Deed::ObjectGoes { what, renamed } => {
                let how = renamed.as_ref().map_or_else(|| "is dropped".to_owned(), |to| format!("is renamed {to}"));
                self.say(change, "drop-object", Warning, format!("the {what} {how}; running code may use it"));
            }
            Deed::AddEnumValue { name } if self.in_transaction && self.world.older_than((12, 0), (0, 0), (0, 0)) => {
                let message = format!("a value is added to {name} inside of a transaction, which this server refuses");
                self.say(change, "enum-value-in-transaction", Refusal, message);
            }
            Deed::Rewrite { what, concurrently } => {
                self.concurrency(change, *concurrently);
                if !concurrently {
                    self.say(change, "rewrite", Refusal, format!("{what} while nobody can use it"));
                }
            }
            Deed::Outside { what, blocks } => {
                if self.in_transaction && self.world.server.engine != Engine::Mysql {
                    let message =
                        format!("{what}, which does not go inside of a transaction, and {}", self.why_inside());
                    self.say(change, "concurrent-in-transaction", Refusal, message);
                }
                if *blocks {
                    self.say(change, "rewrite", Refusal, format!("{what} while nobody can use it"));
                }
            }
            Deed::Transaction { what } if self.in_transaction => {
                self.say(change, "own-transaction", Warning, format!("{what}, which has a transaction already"));
            }
            Deed::Dynamic { why } => self.say(change, "dynamic", Note, format!("dynamic: {why}; not checked")),
            _ => {}
        }
    }

    fn create_table(&mut self, change: &Change, table: &str, force: bool, small_key: bool) {
        if !force && change.condition.is_none() && self.world.is_there(table, None) {
            self.say(change, "already-there", Warning, format!("the schema file has the table {table} already"));
        }
        if force {
            let exists = self.world.standing(table) == Standing::Exists;
            let severity = if exists { Refusal } else { Warning };
            self.say(change, "force-create", severity, format!("force: true drops a table {table} with all its rows"));
        }
        if small_key {
            self.say(change, "small-key", Note, format!("the primary key of {table} has 32 bits"));
        }
    }

    fn table_goes(&mut self, change: &Change, rule: &str, table: &str, what: &str) {
        match (self.world.standing(table), self.world.models.model_of(table)) {
            (Standing::New, _) => {}
            (_, Some((model, path))) => {
                let message =
                    format!("the table {table} {what}, and the running model {model} ({}) uses it", path.display());
                self.say(change, rule, Refusal, message);
            }
            (_, None) => {
                let message =
                    format!("the table {table} {what}; no deployed model was found for it, other code may use it");
                self.say(change, rule, Warning, message);
            }
        }
    }

    fn column_goes(&mut self, change: &Change, rule: &str, table: &str, column: &str, what: &str) {
        if self.world.is_new_column(table, column) {
            return;
        }
        let knows = |model: &str, path: &Path, how: &str| {
            format!("{table}.{column} {what}, and the running model {model} ({}) {how}", path.display())
        };
        match self.world.models.uses(table, column) {
            Use::Ignored => {}
            Use::Used { model, path } => self.say(change, rule, Refusal, knows(&model, &path, "does not ignore it")),
            Use::Unclear { model, path, why } => self.say(change, rule, Warning, knows(&model, &path, why)),
            Use::NoModel => {
                let message =
                    format!("{table}.{column} {what}; no deployed model was found for {table}, other code may use it");
                self.say(change, rule, Warning, message);
            }
        }
    }

    fn add_column(&mut self, change: &Change, table: &str, column: &Column) {
        let name = format!("{table}.{}", column.name);
        let is_gone = self.world.gone.contains(&(table.to_owned(), column.name.clone()));
        let is_there = self.world.schema.column(table, &column.name).is_some() && !is_gone;
        if is_there && change.condition.is_none() && self.world.standing(table) != Standing::New {
            self.say(change, "already-there", Warning, format!("the schema file has {name} already"));
        }
        if matches!(column.kind.as_str(), "char" | "character" | "bpchar") {
            self.say(change, "char-column", Note, format!("{name} has the type char"));
        }
        let counts =
            matches!(column.kind.as_str(), "serial" | "bigserial" | "smallserial" | "primary_key" | "identity");
        if counts {
            self.blocks(
                change,
                "auto-increment-column",
                table,
                format!("{name} counts by itself: the table is written anew"),
            );
        }
        if column.stored {
            self.blocks(
                change,
                "stored-column",
                table,
                format!("{name} is generated and stored: the table is written anew"),
            );
        }
        if self.world.server.engine == Engine::Mysql
            && matches!(column.kind.as_str(), "jsonb" | "hstore" | "citext" | "tsvector")
        {
            let message = format!("{name} has the type {}, which only PostgreSQL has", column.kind);
            self.say(change, "server-lacks", Refusal, message);
        }
        if column.kind == "json" && self.postgresql() && self.world.standing(table) != Standing::New {
            self.say(change, "json-column", Warning, format!("{name} has the type json, which has no equality"));
        }
        if !column.null && column.default == Default::None && !counts && !column.stored && column.kind != "virtual" {
            let message = format!("{name} must not be null and has no default; the running code does not know it");
            self.blocks(change, "not-null-column", table, message);
        }
        match &column.default {
            Default::Literal | Default::Unknown if self.world.older_than((11, 0), (8, 0), (10, 3)) => {
                let message = format!("on this server the table is written anew for the default of {name}");
                self.blocks(change, "default-rewrites", table, message);
            }
            Default::Computed(expression)
                if !counts && !column.stored && self.world.server.engine != Engine::Sqlite =>
            {
                self.computed_default(change, table, &name, expression.as_deref());
            }
            _ => {}
        }
    }

    fn computed_default(&mut self, change: &Change, table: &str, name: &str, expression: Option<&str>) {
        match expression.map(volatile) {
            Some(Some(true)) => {
                let message = format!("the default of {name} differs from row to row: the table is written anew");
                self.blocks(change, "default-rewrites", table, message);
            }
            Some(None) | None if self.world.standing(table) != Standing::New => {
                let message = format!(
                    "the default of {name} is computed; if it differs from row to row, the table is written anew"
                );
                self.say(change, "default-rewrites", Warning, message);
            }
            _ => {}
        }
    }

    fn change_type(&mut self, change: &Change, table: &str, column: &Column) {
        if self.world.is_new_column(table, &column.name) {
            return;
        }
        let mut message = format!("the type of {table}.{} changes to {}", column.name, column.words());
        if self.world.models.has_enum(table, &column.name) {
            message += ", which the running model has an enum on";
        }
        let Some(old) = self.world.schema.column(table, &column.name) else {
            let message = format!("{message}; its old type is not known, so the table may be written anew");
            return self.say(change, "change-type", Warning, message);
        };
        let message = format!("{message} (from {})", old.words());
        match types::change(old, column, self.world.server) {
            Rows::Stay => {}
            Rows::Reindexed if !self.world.has_index_on(table, &column.name) => {}
            Rows::Reindexed => {
                let message = format!("{message}: each index of the column is built anew");
                self.say(change, "change-type", Refusal, message);
            }
            Rows::Rewritten => {
                let severity = if self.world.server.engine == Engine::Sqlite { Warning } else { Refusal };
                self.say(change, "change-type", severity, format!("{message}: the table is written anew"));
            }
            Rows::Unknown => {
                let message = format!("{message}: it is not known here whether the table is written anew");
                self.say(change, "change-type", Warning, message);
            }
        }
    }

    fn change_null(&mut self, change: &Change, table: &str, column: &str, null: bool, backfill: bool) {
        let standing = self.world.standing(table);
        if standing == Standing::New {
            return;
        }
        if null {
            let message = format!("{table}.{column} may be null from now on; running code may not expect it");
            return self.say(change, "null-allowed", Note, message);
        }
        let is_new = self.world.is_new_column(table, column);
        if !is_new && self.world.schema.column(table, column).is_some_and(|known| !known.null) {
            return;
        }
        if backfill {
            let message = format!("every row of {table} in which {column} is null is written by one statement");
            self.say(change, "backfill-in-transaction", Warning, message);
        }
        let message = format!("every row of {table} is checked for null in {column} while nobody can use the table");
        match self.world.server.engine {
            Engine::Postgresql if self.world.schema.forbids_null(table, column) => {}
            Engine::Postgresql => self.blocks(change, "not-null", table, message),
            _ => {
                let message =
                    format!("{table}.{column} must not be null from now on; running code that leaves it out fails");
                self.say(change, "not-null", Warning, message);
            }
        }
    }

    /// Something that has to run outside of a transaction, and only PostgreSQL has.
    /// Why what is judged now runs in a transaction.
    fn why_inside(&self) -> &'static str {
        if self.whole { "disable_ddl_transaction! is absent" } else { "one is opened around it" }
    }

    fn concurrency(&mut self, change: &Change, concurrently: bool) {
        if !concurrently {
            return;
        }
        if !self.postgresql() {
            self.say(
                change,
                "concurrent-unknown",
                Refusal,
                "only PostgreSQL knows the algorithm concurrently".to_owned(),
            );
        } else if self.in_transaction {
            let message = format!("concurrently does not go inside of a transaction, and {}", self.why_inside());
            self.say(change, "concurrent-in-transaction", Refusal, message);
        }
    }

    fn add_index(&mut self, change: &Change, index: &Index) {
        let Index { table, name, columns, unique, concurrently } = index;
        let longest = if self.world.server.engine == Engine::Mysql { 64 } else { 63 };
        if let Some(name) =
            name.as_ref().filter(|name| name.len() > longest && self.world.server.engine != Engine::Sqlite)
        {
            self.say(change, "long-name", Refusal, format!("the name {name} is longer than {longest} bytes"));
        }
        self.concurrency(change, *concurrently);
        if *concurrently
            && self.postgresql()
            && self.world.server.version.is_some_and(|at| ((14, 0)..(14, 4)).contains(&at))
        {
            let message =
                format!("an index of {table} is built concurrently by a server that can leave rows out of it");
            self.say(change, "index-corruption", Warning, message);
        }
        if self.postgresql() && !concurrently {
            let message = format!("nobody can write to {table} until its index ({}) is built", columns.join(", "));
            self.blocks(change, "index-blocks", table, message);
        }
        if columns.len() > 3 && !unique {
            self.say(change, "wide-index", Note, format!("the index of {table} has {} columns", columns.len()));
        }
        if *unique && self.world.standing(table) != Standing::New {
            let message = format!("{table} will refuse rows that are not unique in {}", columns.join(", "));
            self.say(change, "new-constraint", Note, message);
        }
    }

    fn add_constraint(&mut self, change: &Change, table: &str, kind: Constraint, ready: bool) {
        if self.world.standing(table) == Standing::New {
            return;
        }
        // The other servers check all the same: Active Record gives them no such word.
        let ready = ready && self.postgresql();
        if ready && kind == Constraint::Unique {
            return;
        }
        if ready {
            let message = format!("{table} will refuse rows against its new {}", kind.name());
            return self.say(change, "new-constraint", Note, message);
        }
        let message = format!("every row of {table} is checked for its new {}", kind.name());
        let rule = match kind {
            Constraint::Check => "check-validates",
            Constraint::ForeignKey => "foreign-key-validates",
            Constraint::Unique | Constraint::PrimaryKey => "unique-constraint",
            Constraint::Exclusion => "exclusion-constraint",
        };
        match (self.world.server.engine, kind) {
            (Engine::Postgresql, _) => self.blocks(change, rule, table, format!("{message} while others wait")),
            (Engine::Mysql, Constraint::Check | Constraint::ForeignKey) => {
                self.say(change, rule, Warning, format!("{message} while nobody can write to it"));
            }
            (Engine::Mysql | Engine::Sqlite, _) => {
                let message = format!("{table} will refuse rows against its new {}", kind.name());
                self.say(change, "new-constraint", Note, message);
            }
        }
    }

    fn write(&mut self, change: &Change, table: Option<&str>, how: &str, pace: Pace) {
        if table.is_some_and(|table| self.world.standing(table) == Standing::New) {
            return;
        }
        let rows = table.map_or_else(|| "rows".to_owned(), |table| format!("rows of {table}"));
        if self.in_transaction && self.locked && self.world.server.engine != Engine::Mysql {
            let message = format!("{rows} are written ({how}) while the locks of this migration are held");
            self.say(change, "backfill-in-transaction", Warning, message);
        } else if self.in_transaction && pace == Pace::InBatches && self.world.server.engine != Engine::Mysql {
            let message =
                format!("{rows} are written ({how}), all within one transaction that keeps each of them locked");
            self.say(change, "backfill-in-transaction", Warning, message);
        } else if pace == Pace::AtOnce {
            self.say(change, "backfill-at-once", Note, format!("{rows} are written by one statement ({how})"));
        }
    }

    /// Who notices. Where it cannot be told, the worse.
    fn class(&self, deed: &Deed) -> Class {
        use Class::{BreaksRunningCode, NeedsRestart, NoProcessCanNotice};
        let new_table = deed.table().is_some_and(|table| self.world.standing(table) == Standing::New);
        match deed {
            Deed::Quiet { .. }
            | Deed::RemoveConstraint {
                which: Which { kind: Some(Constraint::Check | Constraint::ForeignKey), .. },
                ..
            }
            // The index refuses already what the constraint will.
            | Deed::AddConstraint { kind: Constraint::Unique, ready: true, .. }
            | Deed::Validate { .. }
            | Deed::RenameIndex { .. }
            | Deed::Rewrite { .. }
            | Deed::Outside { .. }
            | Deed::Transaction { .. } => NoProcessCanNotice,
            Deed::AddIndex(index) if !index.unique => NoProcessCanNotice,
            Deed::RemoveIndex { table, index, columns, .. } => {
                let known = table.as_deref().and_then(|table| self.world.schema.table(table));
                let unique = known.and_then(|table| table.is_unique(index, columns));
                if unique == Some(false) { NoProcessCanNotice } else { NeedsRestart }
            }
            // What belongs to a table that nobody knows yet.
            _ if new_table => NeedsRestart,
            Deed::CreateTable { force, .. } if !force => NeedsRestart,
            Deed::AddColumn { column, .. } if column.null || column.default != Default::None => NeedsRestart,
            Deed::RemoveColumn { table, column } | Deed::RenameColumn { table, from: column, .. } => {
                let ignored = self.world.models.uses(table, column) == Use::Ignored;
                if ignored || self.world.is_new_column(table, column) { NeedsRestart } else { BreaksRunningCode }
            }
            Deed::ChangeType { table, column } => {
                let old = self.world.schema.column(table, &column.name);
                let rows = old.map(|old| types::change(old, column, self.world.server));
                let harmless = matches!(rows, Some(Rows::Stay | Rows::Reindexed));
                if harmless || self.world.is_new_column(table, &column.name) { NeedsRestart } else { BreaksRunningCode }
            }
            Deed::ChangeNull { table, column, null: false, .. } if self.world.forbids_null(table, column) => NeedsRestart,
            Deed::ChangeDefault { table, column } if self.world.is_new_column(table, column) => NeedsRestart,
            Deed::ChangeNull { null: true, .. }
            | Deed::RemoveConstraint { .. }
            | Deed::AddEnumValue { .. }
            | Deed::Other { .. }
            | Deed::Write { .. } => NeedsRestart,
            _ => BreaksRunningCode,
        }
    }
}

/// Whether an expression differs from row to row; nothing where it is not known.
fn volatile(expression: &str) -> Option<bool> {
    let text = expression.trim().to_lowercase();
    let called = text.split('(').next().unwrap_or(&text).trim().trim_start_matches("public.").to_owned();
    let fixed = [
        "now",
        "current_timestamp",
        "current_date",
        "current_time",
        "localtimestamp",
        "localtime",
        "statement_timestamp",
        "transaction_timestamp",
        "current_user",
        "timezone",
        "array",
        "true",
        "false",
        "curdate",
    ];
    let moving = [
        "random",
        "rand",
        "uuid",
        "gen_random_uuid",
        "uuid_generate_v4",
        "uuid_generate_v1",
        "uuidv7",
        "uuidv4",
        "gen_random_bytes",
        "clock_timestamp",
        "timeofday",
        "nextval",
        "uuid_generate_v1mc",
    ];
    if fixed.contains(&called.as_str()) || text.starts_with(['\'', '{']) || text.parse::<f64>().is_ok() {
        Some(false)
    } else if moving.iter().any(|name| text.contains(&format!("{name}("))) {
        Some(true)
    } else {
        None
    }
}
