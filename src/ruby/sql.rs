//! Statements of SQL as deeds, by a parser of SQL. Statement by statement, so that one it does not know hides no other.

use sqlparser::ast::{
    AlterColumnOperation, AlterTableOperation, ColumnDef, ColumnOption, CreateIndex, Expr, FromTable, ObjectName,
    ObjectType, RenameTableNameKind, SetExpr, Statement, TableConstraint, TableFactor, TableObject,
    TruncateTableTarget,
};
use sqlparser::dialect::{Dialect, MySqlDialect, PostgreSqlDialect, SQLiteDialect};
use sqlparser::parser::Parser;
use sqlparser::tokenizer::{Token, Tokenizer};

use super::deed::{Column, Constraint, Deed, Default, Index, Pace, Size, Which};
use super::dsl::bare;
use super::value::HOLE;
use crate::rails::Engine;

/// Nested deeper than this it is not read. The parser counts; each level costs stack.
const MAX_DEPTH: usize = 40;

/// What the statements of a text do, in order.
pub fn deeds(text: &str, engine: Engine) -> Vec<Deed> {
    let dialect = dialect(engine);
    let Ok(tokens) = Tokenizer::new(dialect, text).tokenize() else {
        return vec![Deed::Dynamic { why: "this SQL cannot be taken apart".to_owned() }];
    };
    tokens.split(|token| *token == Token::SemiColon).flat_map(|tokens| statement(tokens, dialect)).collect()
}

/// What the statements of a text do that has a [`HOLE`] for each part that is not known. Nothing where such a part may be more than
/// a value: then the text cannot be read without it, or it would be the name of something.
pub fn deeds_whatever_the_values(text: &str, engine: Engine) -> Option<Vec<Deed>> {
    let deeds = deeds(text, engine);
    let is_certain = |deed: &Deed| !matches!(deed, Deed::Dynamic { .. }) && !format!("{deed:?}").contains(HOLE);
    deeds.iter().all(is_certain).then_some(deeds)
}

/// Where each statement begins, in bytes, and its text up to the next one. The tokens tell, so that a semicolon in a text is none.
pub fn statements(text: &str, engine: Engine) -> Vec<(usize, &str)> {
    let dialect = dialect(engine);
    let Ok(tokens) = Tokenizer::new(dialect, text).tokenize_with_location() else { return Vec::new() };
    let firsts = tokens.split(|token| token.token == Token::SemiColon).filter_map(|tokens| {
        let first = tokens.iter().find(|token| !matches!(token.token, Token::Whitespace(_)))?;
        Some((first.span.start.line, first.span.start.column))
    });
    let mut letters = text.char_indices();
    let mut here = (1, 1);
    let begins: Vec<usize> = firsts
        .filter_map(|wanted| {
            letters.find_map(|(at, letter)| {
                let found = (here == wanted).then_some(at);
                here = if letter == '\n' { (here.0 + 1, 1) } else { (here.0, here.1 + 1) };
                found
            })
        })
        .collect();
    let ends = begins.iter().skip(1).copied().chain([text.len()]);
    begins.iter().zip(ends).map(|(begin, end)| (*begin, &text[*begin..end])).collect()
}

fn dialect(engine: Engine) -> &'static dyn Dialect {
    match engine {
        Engine::Postgresql => &PostgreSqlDialect {},
        Engine::Mysql => &MySqlDialect {},
        Engine::Sqlite => &SQLiteDialect {},
    }
}

/// One statement's tokens.
fn statement(tokens: &[Token], dialect: &dyn Dialect) -> Vec<Deed> {
    let words: Vec<String> = tokens.iter().filter_map(word).take(16).collect();
    if words.is_empty() {
        return Vec::new();
    }
    if let Some(deeds) = by_head(&words) {
        return deeds;
    }
    let not_valid = tokens
        .iter()
        .filter_map(word)
        .collect::<Vec<_>>()
        .windows(2)
        .any(|pair| pair[0].eq_ignore_ascii_case("NOT") && pair[1].eq_ignore_ascii_case("VALID"));
    let mut parser = Parser::new(dialect).with_recursion_limit(MAX_DEPTH).with_tokens(tokens.to_vec());
    match parser.parse_statement() {
        Ok(statement) => of_statement(statement, not_valid),
        Err(_) => vec![Deed::Dynamic { why: format!("the parser does not know this SQL ({} ...)", head(&words, 3)) }],
    }
}

fn word(token: &Token) -> Option<String> {
    match token {
        Token::Word(word) => Some(word.value.clone()),
        Token::Whitespace(_) => None,
        other => Some(other.to_string()),
    }
}

fn head(words: &[String], count: usize) -> String {
    words.iter().take(count).map(|word| word.to_uppercase()).collect::<Vec<_>>().join(" ")
}

/// Statements whose first words say all that matters, so that no parser needs to know the rest of them.
fn by_head(words: &[String]) -> Option<Vec<Deed>> {
    let deed = upkeep(words).or_else(|| named(words)).or_else(|| of_object(words)).or_else(|| of_table(words))?;
    Some(vec![deed])
}

fn begins(words: &[String], pattern: &str) -> bool {
    matches(words, pattern).is_some()
}

/// First words of statements that change no table.
const QUIET: [&str; 12] = [
    "COMMENT ON",
    "ANALYZE",
    "SET",
    "RESET",
    "GRANT",
    "SELECT",
    "SHOW",
    "EXPLAIN",
    "NOTIFY",
    "REFRESH",
    "VALUES",
    "USE",
];

/// What nobody notices, and what rewrites.
fn upkeep(words: &[String]) -> Option<Deed> {
    let is = |pattern: &str| begins(words, pattern);
    let quiet = |what: &str| Some(Deed::Quiet { what: what.to_owned() });
    if QUIET.iter().any(|pattern| is(pattern)) && !has(words, "INTO") {
        return quiet(&format!("runs {}", head(words, 2)));
    }
    if is("VACUUM") {
        let blocks = has(words, "FULL");
        let what = if blocks { "rewrites a table (VACUUM FULL)" } else { "runs VACUUM" };
        return Some(Deed::Outside { what: what.to_owned(), blocks });
    }
    if is("ALTER SYSTEM") || is("CREATE DATABASE") || is("CREATE TABLESPACE") || is("DROP TABLESPACE") {
        return Some(Deed::Outside { what: format!("runs {}", head(words, 2)), blocks: false });
    }
    if is("CLUSTER") || is("OPTIMIZE TABLE") {
        return Some(Deed::Rewrite { what: format!("rewrites a table ({})", head(words, 2)), concurrently: false });
    }
    if is("REINDEX") {
        let concurrently = has(words, "CONCURRENTLY");
        let what = "rebuilds indexes (REINDEX)".to_owned();
        let whole = ["REINDEX DATABASE", "REINDEX SYSTEM", "REINDEX SCHEMA"].iter().any(|pattern| is(pattern));
        return Some(if whole {
            Deed::Outside { what, blocks: !concurrently }
        } else {
            Deed::Rewrite { what, concurrently }
        });
    }
    if is("ALTER INDEX") {
        return quiet("alters an index");
    }
    if is("LOCK") || is("UNLOCK") {
        return Some(Deed::Other { what: "locks tables".to_owned() });
    }
    if is("DO") || is("CALL") {
        return Some(Deed::Dynamic { why: "a block of procedural SQL is run".to_owned() });
    }
    let transactions = ["BEGIN", "START TRANSACTION", "COMMIT", "ROLLBACK", "END"];
    let own = transactions.into_iter().find(|pattern| is(pattern) && words.len() <= 3)?;
    Some(Deed::Transaction { what: format!("runs {own} inside of the migration") })
}

/// Statements about one object that has a name; in a pattern `*` stands for it.
fn named(words: &[String]) -> Option<Deed> {
    let name = |pattern: &str| matches(words, pattern)?.into_iter().next();
    if let Some(name) = name("ALTER TYPE * ADD VALUE") {
        return Some(Deed::AddEnumValue { name });
    }
    if let Some(from) = name("ALTER SCHEMA * RENAME") {
        return Some(Deed::RenameSchema { from });
    }
    if let Some(name) = name("ALTER DOMAIN * ADD") {
        let (table, ready) = (format!("(domain) {name}"), has(words, "VALID"));
        return Some(Deed::AddConstraint { table, kind: Constraint::Check, name: None, ready, expression: None });
    }
    if begins(words, "DROP DATABASE") {
        return Some(Deed::DropAll { what: "a database".to_owned() });
    }
    if begins(words, "DROP INDEX") {
        let keyword =
            |word: &str| ["CONCURRENTLY", "IF", "EXISTS"].iter().any(|known| word.eq_ignore_ascii_case(known));
        let rest: Vec<&String> = words[2..].iter().filter(|word| !keyword(word)).collect();
        let on = rest.iter().position(|word| word.eq_ignore_ascii_case("ON"));
        let table = on.and_then(|at| rest.get(at + 1)).map(|name| (*name).clone());
        let index = rest.first().map_or(String::new(), |name| (*name).clone());
        let concurrently = has(words, "CONCURRENTLY");
        return Some(Deed::RemoveIndex { table, index, columns: Vec::new(), concurrently });
    }
    None
}

/// What can be made, altered and dropped, and is no table.
const OBJECTS: [&str; 20] = [
    "MATERIALIZED VIEW",
    "TRIGGER",
    "FUNCTION",
    "PROCEDURE",
    "TYPE",
    "DOMAIN",
    "POLICY",
    "EXTENSION",
    "SEQUENCE",
    "SCHEMA",
    "RULE",
    "AGGREGATE",
    "EVENT",
    "ROLE",
    "USER",
    "VIEW",
    "STATISTICS",
    "PUBLICATION",
    "COLLATION",
    "DATABASE",
];

/// Those that code names.
const RENAMED: [&str; 7] = ["MATERIALIZED VIEW", "FUNCTION", "PROCEDURE", "TYPE", "DOMAIN", "SEQUENCE", "VIEW"];

/// What an `ALTER` does to the name of an object, or to those of its parts.
fn renamed(words: &[String]) -> Option<String> {
    let at = words.iter().position(|word| word.eq_ignore_ascii_case("RENAME"));
    let behind = |keyword: &str| {
        let at = words.iter().rposition(|word| word.eq_ignore_ascii_case(keyword))?;
        words.get(at + 1)
    };
    match at {
        Some(at) if words.get(at + 1)?.eq_ignore_ascii_case("TO") => Some(format!("to {}", behind("TO")?)),
        Some(at) => Some(format!("in its part {} to {}", words.get(at + 2)?, behind("TO")?)),
        None if has(words, "SET") => Some(format!("into the schema {}", behind("SCHEMA")?)),
        None => None,
    }
}

/// What `ALTER TABLE` does that the parser does not know, where that is all that it does.
fn of_table(words: &[String]) -> Option<Deed> {
    let noise = |word: &&String| !["IF", "EXISTS", "ONLY"].iter().any(|known| word.eq_ignore_ascii_case(known));
    let words: Vec<String> = words.iter().filter(noise).cloned().collect();
    let of = |pattern: &str| {
        let mut names = matches(&words, pattern)?.into_iter();
        Some((bare(&names.next()?), names.next()?))
    };
    if !begins(&words, "ALTER TABLE") || words.iter().any(|word| word == ",") {
        return None;
    }
    if let Some((table, schema)) = of("ALTER TABLE * SET SCHEMA *") {
        return Some(Deed::RenameTable { to: format!("{schema}.{table}"), from: table });
    }
    if let Some((table, part)) = of("ALTER TABLE * DETACH PARTITION *") {
        let what = format!("detaches the partition {part} of {table}");
        let concurrently = has(&words, "CONCURRENTLY");
        return Some(if concurrently { Deed::Outside { what, blocks: false } } else { Deed::Other { what } });
    }
    if let Some((table, _)) = of("ALTER TABLE * CONVERT TO CHARACTER SET *") {
        return Some(Deed::Rewrite { what: format!("rewrites the table {table}"), concurrently: false });
    }
    let others = [
        ("ALTER TABLE * ATTACH PARTITION *", "attaches the partition"),
        ("ALTER TABLE * INHERIT *", "takes over the columns of"),
        ("ALTER TABLE * NO INHERIT *", "no longer belongs to"),
    ];
    others.into_iter().find_map(|(pattern, does)| {
        let (table, other) = of(pattern)?;
        Some(Deed::Other { what: format!("{table} {does} {other}") })
    })
}

/// As many words may stand between `CREATE` and the kind of what is created: `OR REPLACE DEFINER = root @ localhost SQL SECURITY`.
const MODIFIERS: usize = 12;

fn of_object(words: &[String]) -> Option<Deed> {
    let verb = words[0].to_uppercase();
    let furthest = if verb == "CREATE" { MODIFIERS } else { 1 };
    let (at, kind) = (1..=furthest.min(words.len().saturating_sub(1)))
        .find_map(|at| Some((at, OBJECTS.into_iter().find(|kind| begins(&words[at..], kind))?)))?;
    let keyword =
        |word: &&String| ["IF", "NOT", "EXISTS", "CONCURRENTLY"].iter().any(|known| word.eq_ignore_ascii_case(known));
    let name = words.iter().skip(at + kind.split(' ').count()).find(|word| !keyword(word));
    let object = format!("{} {}", kind.to_lowercase(), name.map_or("", String::as_str)).trim_end().to_owned();
    match verb.as_str() {
        "DROP" if kind == "SCHEMA" && has(words, "CASCADE") => {
            Some(Deed::DropAll { what: format!("the {object} with all that is in it") })
        }
        "DROP" => Some(Deed::ObjectGoes { what: object, renamed: None }),
        "CREATE" => Some(Deed::Other { what: format!("creates the {object}") }),
        "ALTER" => Some(match renamed(words).filter(|_| RENAMED.contains(&kind)) {
            Some(to) => Deed::ObjectGoes { what: object, renamed: Some(to) },
            None => Deed::Other { what: format!("alters the {object}") },
        }),
        _ => None,
    }
}

fn has(words: &[String], keyword: &str) -> bool {
    words.iter().any(|word| word.eq_ignore_ascii_case(keyword))
}

/// The names in the place of each `*`, where the words begin as the pattern says.
fn matches(words: &[String], pattern: &str) -> Option<Vec<String>> {
    let mut names = Vec::new();
    let mut at = 0;
    for expected in pattern.split(' ') {
        let word = words.get(at)?;
        at += 1;
        if expected == "*" {
            let mut name = word.clone();
            while words.get(at).is_some_and(|word| word == ".") {
                name.clone_from(words.get(at + 1)?);
                at += 2;
            }
            names.push(name);
        } else if !word.eq_ignore_ascii_case(expected) {
            return None;
        }
    }
    Some(names)
}

fn of_statement(statement: Statement, not_valid: bool) -> Vec<Deed> {
    match statement {
        Statement::CreateTable(create) => {
            let table = table(&create.name);
            let mut deeds = vec![Deed::CreateTable { table: table.clone(), force: false, small_key: false }];
            deeds.extend(
                create
                    .columns
                    .into_iter()
                    .map(|column| Deed::AddColumn { table: table.clone(), column: of_column(&column) }),
            );
            deeds.extend(
                create.constraints.iter().flat_map(|constraint| of_constraint(table.clone(), constraint, false)),
            );
            deeds
        }
        Statement::CreateIndex(index) => vec![of_index(&index)],
        Statement::AlterTable(alter) => {
            let table = table(&alter.name);
            alter.operations.into_iter().flat_map(|operation| of_operation(&table, operation, not_valid)).collect()
        }
        Statement::Drop { object_type: ObjectType::Table, names, .. } => {
            names.iter().map(|name| Deed::DropTable { table: table(name) }).collect()
        }
        Statement::Drop { object_type, names, .. } => {
            let names: Vec<String> = names.iter().map(table).collect();
            let what = format!("{} {}", object_type.to_string().to_lowercase(), names.join(", "));
            vec![Deed::ObjectGoes { what, renamed: None }]
        }
        Statement::Truncate(truncate) => {
            let cascade = truncate.cascade.is_some_and(|option| format!("{option:?}") == "Cascade");
            let empty = |target: &TruncateTableTarget| Deed::Truncate { table: table(&target.name), cascade };
            truncate.table_names.iter().map(empty).collect()
        }
        Statement::Update(update) => {
            let (how, pace) = match update.selection {
                Some(_) => ("UPDATE", Pace::Some),
                None => ("UPDATE of all rows", Pace::AtOnce),
            };
            vec![Deed::Write { table: of_factor(&update.table.relation), how: how.to_owned(), pace }]
        }
        Statement::Delete(delete) => {
            let (FromTable::WithFromKeyword(from) | FromTable::WithoutKeyword(from)) = delete.from;
            let table = from.first().and_then(|from| of_factor(&from.relation));
            vec![Deed::Write { table, how: "DELETE".to_owned(), pace: Pace::Some }]
        }
        Statement::Insert(insert) => {
            let table = match &insert.table {
                TableObject::TableName(name) => Some(table(name)),
                _ => None,
            };
            vec![Deed::Write { table, how: "INSERT".to_owned(), pace: Pace::Some }]
        }
        Statement::Merge(_) | Statement::Copy { .. } | Statement::LoadData { .. } => {
            vec![Deed::Write { table: None, how: "of many rows".to_owned(), pace: Pace::Some }]
        }
        // `WITH ... UPDATE`.
        Statement::Query(query) => match *query.body {
            SetExpr::Insert(statement)
            | SetExpr::Update(statement)
            | SetExpr::Delete(statement)
            | SetExpr::Merge(statement) => of_statement(statement, not_valid),
            _ => vec![Deed::Quiet { what: "reads rows".to_owned() }],
        },
        Statement::CreateView(view) => vec![Deed::Other { what: format!("creates the view {}", table(&view.name)) }],
        Statement::CreateFunction(function) => {
            vec![Deed::Other { what: format!("creates the function {}", table(&function.name)) }]
        }
        Statement::CreateTrigger(trigger) => {
            vec![Deed::Other { what: format!("creates the trigger {}", table(&trigger.name)) }]
        }
        Statement::RenameTable(renames) => renames
            .iter()
            .map(|rename| Deed::RenameTable { from: table(&rename.old_name), to: table(&rename.new_name) })
            .collect(),
        other => {
            let text: String = other.to_string().chars().take(40).collect();
            vec![Deed::Dynamic { why: format!("what this SQL does is not known here ({text})") }]
        }
    }
}

/// A name without its quotes, and without the schema that is the default one.
fn table(name: &ObjectName) -> String {
    let parts: Vec<&str> = name.0.iter().filter_map(|part| Some(part.as_ident()?.value.as_str())).collect();
    bare(&parts.join("."))
}

fn of_factor(factor: &TableFactor) -> Option<String> {
    match factor {
        TableFactor::Table { name, .. } => Some(table(name)),
        _ => None,
    }
}

fn of_column(definition: &ColumnDef) -> Column {
    let mut column = typed(&definition.name.value, &definition.data_type.to_string());
    for option in &definition.options {
        match &option.option {
            ColumnOption::NotNull => column.null = false,
            ColumnOption::PrimaryKey(_) => {
                column.null = false;
            }
            ColumnOption::Default(value) => column.default = default(value),
            ColumnOption::Generated { generation_expr, generation_expr_mode, .. } => {
                // A generated column without a word of its mode is stored in PostgreSQL up to 17, and virtual elsewhere.
                column.stored = generation_expr.is_some() && format!("{generation_expr_mode:?}") == "Some(Stored)";
                if generation_expr.is_none() {
                    "identity".clone_into(&mut column.kind);
                }
                column.default = Default::Computed(None);
            }
            ColumnOption::DialectSpecific(tokens)
                if tokens.iter().any(|token| token.to_string().eq_ignore_ascii_case("AUTO_INCREMENT")) =>
            {
                "serial".clone_into(&mut column.kind);
            }
            _ => {}
        }
    }
    column
}

/// `character varying(40)` is `character varying` with the limit 40, `numeric(8,2)[]` a list of `numeric` with a scale too.
pub fn typed(name: &str, kind: &str) -> Column {
    let kind = kind.to_lowercase();
    // Rails hands on what follows the type in one text.
    let kind = kind.split(" using ").next().unwrap_or(&kind).trim();
    let (kind, array) = kind.strip_suffix("[]").map_or((kind, false), |kind| (kind, true));
    let (word, sizes) = match kind.split_once('(') {
        Some((word, rest)) => {
            let (inner, after) = rest.split_once(')').unwrap_or((rest, ""));
            (format!("{}{after}", word.trim_end()), inner.split(',').map(|size| size.trim().parse().ok()).collect())
        }
        None => (kind.to_owned(), Vec::new()),
    };
    let size = |index: usize| sizes.get(index).copied().flatten();
    let size = Size { limit: size(0), scale: size(1), ..Size::default() };
    Column { size, array, ..Column::new(name, &word) }
}

fn default(value: &Expr) -> Default {
    match value {
        Expr::Value(value) if value.to_string().eq_ignore_ascii_case("NULL") => Default::None,
        Expr::Value(_) | Expr::UnaryOp { .. } | Expr::TypedString(_) => Default::Literal,
        Expr::Cast { expr, .. } | Expr::Nested(expr) => default(expr),
        other => Default::Computed(Some(other.to_string())),
    }
}

fn of_index(index: &CreateIndex) -> Deed {
    Deed::AddIndex(Index {
        table: table(&index.table_name),
        name: index.name.as_ref().map(table),
        columns: index.columns.iter().map(|column| column.column.expr.to_string().replace(['"', '`'], "")).collect(),
        unique: index.unique,
        concurrently: index.concurrently,
    })
}

fn of_operation(table: &str, operation: AlterTableOperation, not_valid: bool) -> Vec<Deed> {
    let table = table.to_owned();
    vec![match operation {
        AlterTableOperation::AddConstraint { constraint, not_valid: said } => {
            return of_constraint(table, &constraint, said || not_valid);
        }
        AlterTableOperation::AddColumn { column_def, .. } => {
            let column = of_column(&column_def);
            let mut deeds = vec![Deed::AddColumn { table: table.clone(), column }];
            for option in &column_def.options {
                let kind = match &option.option {
                    ColumnOption::ForeignKey(_) => Constraint::ForeignKey,
                    ColumnOption::Unique(_) => Constraint::Unique,
                    ColumnOption::PrimaryKey(_) => Constraint::PrimaryKey,
                    ColumnOption::Check(_) => Constraint::Check,
                    _ => continue,
                };
                let (table, name) = (table.clone(), None);
                deeds.push(Deed::AddConstraint { table, kind, name, ready: false, expression: None });
            }
            return deeds;
        }
        AlterTableOperation::DropColumn { column_names, .. } => {
            let drop = |name: sqlparser::ast::Ident| Deed::RemoveColumn { table: table.clone(), column: name.value };
            return column_names.into_iter().map(drop).collect();
        }
        AlterTableOperation::RenameColumn { old_column_name, new_column_name } => {
            Deed::RenameColumn { table, from: old_column_name.value, to: new_column_name.value }
        }
        AlterTableOperation::RenameTable {
            table_name: RenameTableNameKind::As(name) | RenameTableNameKind::To(name),
        } => Deed::RenameTable { from: table, to: self::table(&name) },
        AlterTableOperation::ChangeColumn { old_name, new_name, data_type, options, .. } => {
            let column = old_name.value;
            let mut deeds = modified(&table, &column, &data_type.to_string(), &options);
            if new_name.value != column {
                deeds.push(Deed::RenameColumn { table, from: column, to: new_name.value });
            }
            return deeds;
        }
        AlterTableOperation::ModifyColumn { col_name, data_type, options, .. } => {
            return modified(&table, &col_name.value, &data_type.to_string(), &options);
        }
        AlterTableOperation::AlterColumn { column_name, op } => of_column_operation(table, column_name.value, op),
        AlterTableOperation::ValidateConstraint { name } => {
            Deed::Validate { table, which: Which { name: Some(name.value), kind: None } }
        }
        AlterTableOperation::DropConstraint { name, .. } => {
            Deed::RemoveConstraint { table, which: Which { name: Some(name.value), kind: None } }
        }
        AlterTableOperation::DropForeignKey { .. } => {
            Deed::RemoveConstraint { table, which: Which { kind: Some(Constraint::ForeignKey), name: None } }
        }
        AlterTableOperation::DropPrimaryKey { .. } => {
            Deed::RemoveConstraint { table, which: Which { kind: Some(Constraint::PrimaryKey), name: None } }
        }
        AlterTableOperation::DropIndex { name } => {
            Deed::RemoveIndex { table: Some(table), index: name.value, columns: Vec::new(), concurrently: false }
        }
        AlterTableOperation::SetLogged | AlterTableOperation::SetUnlogged => {
            Deed::Rewrite { what: format!("rewrites the table {table}"), concurrently: false }
        }
        AlterTableOperation::Algorithm { .. } | AlterTableOperation::Lock { .. } => return Vec::new(),
        AlterTableOperation::OwnerTo { .. }
        | AlterTableOperation::RenameConstraint { .. }
        | AlterTableOperation::AutoIncrement { .. }
        | AlterTableOperation::SetOptionsParens { .. } => Deed::Quiet { what: format!("alters settings of {table}") },
        other => {
            let text: String = other.to_string().chars().take(40).collect();
            Deed::Other { what: format!("alters {table}: {text}") }
        }
    }]
}

fn modified(table: &str, column: &str, kind: &str, options: &[ColumnOption]) -> Vec<Deed> {
    let mut deeds = vec![Deed::ChangeType { table: table.to_owned(), column: typed(column, kind) }];
    if options.iter().any(|option| matches!(option, ColumnOption::NotNull)) {
        deeds.push(Deed::ChangeNull {
            table: table.to_owned(),
            column: column.to_owned(),
            null: false,
            backfill: false,
        });
    }
    deeds
}

fn of_column_operation(table: String, column: String, operation: AlterColumnOperation) -> Deed {
    match operation {
        AlterColumnOperation::SetNotNull => Deed::ChangeNull { table, column, null: false, backfill: false },
        AlterColumnOperation::DropNotNull => Deed::ChangeNull { table, column, null: true, backfill: false },
        AlterColumnOperation::SetDefault { .. } | AlterColumnOperation::DropDefault => {
            Deed::ChangeDefault { table, column }
        }
        AlterColumnOperation::SetDataType { data_type, .. } => {
            Deed::ChangeType { table, column: typed(&column, &data_type.to_string()) }
        }
        AlterColumnOperation::AddGenerated { .. } => Deed::ChangeDefault { table, column },
    }
}

fn of_constraint(table: String, constraint: &TableConstraint, not_valid: bool) -> Vec<Deed> {
    let (mut expression, mut name) = (None, None);
    let (kind, ready) = match constraint {
        TableConstraint::Unique(_) => (Constraint::Unique, false),
        TableConstraint::PrimaryKey(_) => (Constraint::PrimaryKey, false),
        TableConstraint::ForeignKey(key) => {
            expression = Some(self::table(&key.foreign_table));
            (Constraint::ForeignKey, not_valid)
        }
        TableConstraint::Check(check) => {
            expression = Some(check.expr.to_string());
            name = check.name.as_ref().map(|name| name.value.clone());
            (Constraint::Check, not_valid)
        }
        TableConstraint::UniqueUsingIndex(_) => (Constraint::Unique, true),
        TableConstraint::PrimaryKeyUsingIndex(_) => (Constraint::PrimaryKey, true),
        TableConstraint::Index(_) | TableConstraint::FulltextOrSpatial(_) => {
            let index = Index { table, name: None, columns: Vec::new(), unique: false, concurrently: false };
            return vec![Deed::AddIndex(index)];
        }
        TableConstraint::Exclude(_) => (Constraint::Exclusion, false),
    };
    vec![Deed::AddConstraint { table, kind, name, ready, expression }]
}
