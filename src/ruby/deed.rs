//! What a migration does, whichever way it says so: the one vocabulary of Ruby, SQL and the schema files.

/// The value that a new row gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Default {
    None,
    Literal,
    /// The server computes it; its expression where it can be read.
    Computed(Option<String>),
    /// Not readable.
    Unknown,
}

/// How much a value may hold: characters, bytes or digits, as it is written.
#[derive(Debug, Clone, std::default::Default, PartialEq, Eq)]
pub struct Size {
    pub limit: Option<i64>,
    pub precision: Option<i64>,
    pub scale: Option<i64>,
    /// It is written, and cannot be read.
    pub vague: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    pub name: String,
    /// As Rails or SQL names it, in lower case, without its limits.
    pub kind: String,
    pub size: Size,
    pub array: bool,
    pub collation: Option<String>,
    pub null: bool,
    pub default: Default,
    /// A generated column whose values are kept.
    pub stored: bool,
}

impl Column {
    pub fn new(name: &str, kind: &str) -> Self {
        let (name, kind) = (name.to_owned(), kind.to_lowercase());
        Self {
            name,
            kind,
            size: Size::default(),
            array: false,
            collation: None,
            null: true,
            default: Default::None,
            stored: false,
        }
    }

    /// Its type in words: `decimal(8, 2)`, `string[]`.
    pub fn words(&self) -> String {
        let sizes: Vec<String> =
            [self.size.limit.or(self.size.precision), self.size.scale].iter().flatten().map(i64::to_string).collect();
        let sizes = if sizes.is_empty() { String::new() } else { format!("({})", sizes.join(", ")) };
        let stored = if self.stored { ", generated and stored" } else { "" };
        format!("{}{sizes}{}{stored}", self.kind, if self.array { "[]" } else { "" })
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Index {
    pub table: String,
    pub name: Option<String>,
    pub columns: Vec<String>,
    pub unique: bool,
    pub concurrently: bool,
}

/// The kinds of constraint that a table can get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Constraint {
    Check,
    ForeignKey,
    Unique,
    Exclusion,
    PrimaryKey,
}

impl Constraint {
    pub fn name(self) -> &'static str {
        match self {
            Self::Check => "check constraint",
            Self::ForeignKey => "foreign key",
            Self::Unique => "unique constraint",
            Self::Exclusion => "exclusion constraint",
            Self::PrimaryKey => "primary key",
        }
    }
}

/// A constraint that is there, as far as it is named.
#[derive(Debug, Clone, std::default::Default, PartialEq, Eq)]
pub struct Which {
    pub kind: Option<Constraint>,
    pub name: Option<String>,
}

impl Which {
    fn words(&self) -> &'static str {
        self.kind.map_or("constraint", Constraint::name)
    }
}

/// How many rows one statement writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// All of them, as far as can be told.
    AtOnce,
    /// A part at a time.
    InBatches,
    /// Some that are named.
    Some,
}

/// One thing that is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Deed {
    CreateTable {
        table: String,
        force: bool,
        small_key: bool,
    },
    DropTable {
        table: String,
    },
    RenameTable {
        from: String,
        to: String,
    },
    AddColumn {
        table: String,
        column: Column,
    },
    RemoveColumn {
        table: String,
        column: String,
    },
    RenameColumn {
        table: String,
        from: String,
        to: String,
    },
    ChangeType {
        table: String,
        column: Column,
    },
    /// `backfill`: rows without a value get one first, in one statement.
    ChangeNull {
        table: String,
        column: String,
        null: bool,
        backfill: bool,
    },
    ChangeDefault {
        table: String,
        column: String,
    },
    AddIndex(Index),
    RemoveIndex {
        table: Option<String>,
        index: String,
        columns: Vec<String>,
        concurrently: bool,
    },
    RenameIndex {
        table: String,
    },
    /// `ready`: what it needs is checked already or not checked now: `validate: false`, `using_index:`. `expression` is a check's; of a
    /// foreign key it is the other table.
    AddConstraint {
        table: String,
        kind: Constraint,
        name: Option<String>,
        ready: bool,
        expression: Option<String>,
    },
    RemoveConstraint {
        table: String,
        which: Which,
    },
    Validate {
        table: String,
        which: Which,
    },
    RenameSchema {
        from: String,
    },
    /// Rows are written; `one` statement for all of them, or batches.
    Write {
        table: Option<String>,
        how: String,
        pace: Pace,
    },
    Truncate {
        table: String,
        cascade: bool,
    },
    /// A database, or a schema with all that is in it.
    DropAll {
        what: String,
    },
    AddEnumValue {
        name: String,
    },
    /// A type's, view's, function's... `what` with its name is dropped, or renamed `to x`.
    ObjectGoes {
        what: String,
        renamed: Option<String>,
    },
    /// The whole table is written anew, or its indexes are, while nobody may use it.
    Rewrite {
        what: String,
        concurrently: bool,
    },
    /// Something that the server refuses to do inside of a transaction; whether nobody may use the table meanwhile.
    Outside {
        what: String,
        blocks: bool,
    },
    /// A statement that opens or ends a transaction of its own.
    Transaction {
        what: String,
    },
    /// Something that nobody can notice: comments, statistics, settings.
    Quiet {
        what: String,
    },
    /// Something new that nobody uses yet, or that changes no table: an extension, a view, a function.
    Other {
        what: String,
    },
    /// It cannot be read; why.
    Dynamic {
        why: String,
    },
}

impl Deed {
    /// The table that it changes.
    pub fn table(&self) -> Option<&str> {
        match self {
            Self::CreateTable { table, .. }
            | Self::DropTable { table }
            | Self::RenameTable { from: table, .. }
            | Self::AddColumn { table, .. }
            | Self::RemoveColumn { table, .. }
            | Self::RenameColumn { table, .. }
            | Self::ChangeType { table, .. }
            | Self::ChangeNull { table, .. }
            | Self::ChangeDefault { table, .. }
            | Self::AddIndex(Index { table, .. })
            | Self::RenameIndex { table }
            | Self::AddConstraint { table, .. }
            | Self::RemoveConstraint { table, .. }
            | Self::Validate { table, .. }
            | Self::Truncate { table, .. } => Some(table),
            Self::RemoveIndex { table, .. } | Self::Write { table, .. } => table.as_deref(),
            _ => None,
        }
    }

    /// The column that it changes.
    pub fn column(&self) -> Option<&str> {
        match self {
            Self::AddColumn { column, .. } | Self::ChangeType { column, .. } => Some(&column.name),
            Self::RemoveColumn { column, .. }
            | Self::RenameColumn { from: column, .. }
            | Self::ChangeNull { column, .. }
            | Self::ChangeDefault { column, .. } => Some(column),
            _ => None,
        }
    }

    /// Whether it takes a lock on a table's definition, which a transaction keeps to its end.
    pub fn locks_table(&self) -> bool {
        match self {
            Self::AddIndex(Index { concurrently, .. }) | Self::RemoveIndex { concurrently, .. } => !concurrently,
            Self::Write { .. }
            | Self::CreateTable { .. }
            | Self::Quiet { .. }
            | Self::Outside { blocks: false, .. }
            | Self::Other { .. }
            | Self::Dynamic { .. }
            | Self::Validate { .. }
            | Self::Transaction { .. } => false,
            _ => true,
        }
    }

    /// What Rails does where it undoes this.
    pub fn inverse(self) -> Self {
        match self {
            Self::CreateTable { table, .. } => Self::DropTable { table },
            Self::DropTable { table } => Self::CreateTable { table, force: false, small_key: false },
            Self::RenameTable { from, to } => Self::RenameTable { from: to, to: from },
            Self::AddColumn { table, column } => Self::RemoveColumn { table, column: column.name },
            Self::RemoveColumn { table, column } => {
                Self::Other { what: format!("brings back the column {table}.{column}") }
            }
            Self::RenameColumn { table, from, to } => Self::RenameColumn { table, from: to, to: from },
            Self::ChangeNull { table, column, null, .. } => {
                Self::ChangeNull { table, column, null: !null, backfill: false }
            }
            Self::AddIndex(Index { table, columns, concurrently, .. }) => {
                let index = format!("on {}", columns.join(", "));
                Self::RemoveIndex { table: Some(table), index, columns, concurrently }
            }
            Self::RemoveIndex { table: Some(table), columns, concurrently, .. } if !columns.is_empty() => {
                Self::AddIndex(Index { table, name: None, columns, unique: false, concurrently })
            }
            Self::AddConstraint { table, kind, name, .. } => {
                Self::RemoveConstraint { table, which: Which { kind: Some(kind), name } }
            }
            same @ (Self::ChangeDefault { .. }
            | Self::RenameIndex { .. }
            | Self::Quiet { .. }
            | Self::Dynamic { .. }) => same,
            other => Self::Dynamic { why: format!("how Rails undoes this is not known: it {}", other.words()) },
        }
    }

    /// In plain words.
    pub fn words(&self) -> String {
        match self {
            Self::CreateTable { table, force: true, .. } => format!("drops the table {table} and creates it anew"),
            Self::CreateTable { table, .. } => format!("creates the table {table}"),
            Self::DropTable { table } => format!("drops the table {table}"),
            Self::RenameTable { from, to } => format!("renames the table {from} to {to}"),
            Self::AddColumn { table, column } => {
                let rule = if column.null { "" } else { ", not null" };
                format!("adds the column {table}.{} ({}{rule})", column.name, column.words())
            }
            Self::RemoveColumn { table, column } => format!("removes the column {table}.{column}"),
            Self::RenameColumn { table, from, to } => format!("renames the column {table}.{from} to {to}"),
            Self::ChangeType { table, column } => {
                format!("changes the type of {table}.{} to {}", column.name, column.words())
            }
            Self::ChangeNull { table, column, null: true, .. } => format!("allows null in {table}.{column}"),
            Self::ChangeNull { table, column, .. } => format!("forbids null in {table}.{column}"),
            Self::ChangeDefault { table, column } => format!("changes the default of {table}.{column}"),
            Self::AddIndex(Index { table, columns, unique, .. }) => {
                let unique = if *unique { "a unique" } else { "an" };
                format!("adds {unique} index on {table} ({})", columns.join(", "))
            }
            Self::RemoveIndex { table: Some(table), index, .. } => format!("removes the index {index} of {table}"),
            Self::RemoveIndex { index, .. } => format!("removes the index {index}"),
            Self::RenameIndex { table } => format!("renames an index of {table}"),
            Self::AddConstraint { table, kind, expression, .. } => {
                let article = if *kind == Constraint::Exclusion { "an" } else { "a" };
                match expression {
                    Some(other) if *kind == Constraint::ForeignKey => {
                        format!("adds a foreign key from {table} to {other}")
                    }
                    _ => format!("adds {article} {} to {table}", kind.name()),
                }
            }
            Self::RemoveConstraint { table, which } => format!("removes a {} of {table}", which.words()),
            Self::Validate { table, which } => format!("validates a {} of {table}", which.words()),
            Self::RenameSchema { from } => format!("renames the schema {from}"),
            Self::Write { table: Some(table), how, .. } => format!("writes rows of {table} ({how})"),
            Self::Write { how, .. } => format!("writes rows ({how})"),
            Self::Truncate { table, cascade: true } => format!("empties the table {table} and all that refer to it"),
            Self::Truncate { table, .. } => format!("empties the table {table}"),
            Self::DropAll { what } => format!("drops {what}"),
            Self::AddEnumValue { name } => format!("adds a value to the type {name}"),
            Self::ObjectGoes { what, renamed: Some(to) } => format!("renames the {what} {to}"),
            Self::ObjectGoes { what, renamed: None } => format!("drops the {what}"),
            Self::Rewrite { what, .. }
            | Self::Outside { what, .. }
            | Self::Transaction { what }
            | Self::Quiet { what }
            | Self::Other { what } => what.clone(),
            Self::Dynamic { why } => format!("{why}; not checked"),
        }
    }
}

/// On what a deed depends that only the running program knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// On what is there: `unless column_exists?`, a loop over what exists. Where the code was not yet, it is done.
    Expected,
    /// On anything else, in words.
    Unknown(String),
}

/// A deed with its circumstances.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    pub deed: Deed,
    /// Where it is said: bytes from the file's begin.
    pub at: usize,
    pub condition: Option<Condition>,
    /// A person vouches for it with `safety_assured`.
    pub assured: bool,
    /// Which `transaction do` of the file it stands in, whatever the migration itself runs in; 0: none.
    pub transaction: usize,
}
