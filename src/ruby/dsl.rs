//! The words of Rails' migrations: a call and its arguments, as deeds.

use super::deed::{Column, Condition, Constraint, Deed, Default, Index, Size, Which};
use super::value::{Args, Value};
use super::{inflect, sql};

/// An argument that decides what happens cannot be read.
#[derive(Debug, PartialEq, Eq)]
pub struct Unreadable;

/// What a call of a migration does; nothing for a call that is none of Rails' words.
pub fn deeds(name: &str, args: &Args, modern: bool) -> Option<Result<Vec<Deed>, Unreadable>> {
    match word(name, args, modern) {
        Word::Foreign => None,
        Word::Rails(deeds) => Some(deeds.ok_or(Unreadable)),
    }
}

/// Whether a call is a word of Rails' migrations, and what it does where its arguments can be read.
enum Word {
    Foreign,
    Rails(Option<Vec<Deed>>),
}

#[allow(clippy::too_many_lines, reason = "one table, a line for each word")]
fn word(name: &str, args: &Args, modern: bool) -> Word {
    Word::Rails(match name {
        "create_table" => create_table(args),
        "create_join_table" => create_join_table(args),
        "drop_join_table" => join_table(args).map(|table| vec![Deed::DropTable { table }]),
        "drop_table" => {
            names(args, 0).map(|tables| tables.into_iter().map(|table| Deed::DropTable { table }).collect())
        }
        "rename_table" => two(args).map(|(from, to)| vec![Deed::RenameTable { from, to }]),
        "add_column" => add_column(args),
        "add_columns" => add_columns(args),
        "add_timestamps" => table(args).map(|table| timestamps(&table, args, modern)),
        "add_reference" | "add_belongs_to" => add_references(args, modern),
        "remove_column" => three(args).map(|(table, column)| vec![Deed::RemoveColumn { table, column }]),
        "remove_columns" => remove_columns(args),
        "remove_timestamps" => {
            table(args).map(|table| removed(&table, ["created_at", "updated_at"].map(str::to_owned)))
        }
        "remove_reference" | "remove_belongs_to" => remove_references(args),
        "rename_column" => rename_column(args),
        "change_column" => change_column(args),
        "change_column_default" => three(args).map(|(table, column)| vec![Deed::ChangeDefault { table, column }]),
        "change_column_null" => change_null(args),
        "add_index" => add_index(args),
        "remove_index" => remove_index(args),
        "rename_index" => table(args).map(|table| vec![Deed::RenameIndex { table }]),
        "add_foreign_key" => foreign_key(args),
        "add_check_constraint" => constraint(args, Constraint::Check, args.is_false("validate")),
        "add_unique_constraint" | "add_unique_key" => {
            constraint(args, Constraint::Unique, args.option("using_index").is_some())
        }
        "add_exclusion_constraint" => constraint(args, Constraint::Exclusion, false),
        "remove_foreign_key" => remove_constraint(args, Constraint::ForeignKey),
        "remove_check_constraint" => remove_constraint(args, Constraint::Check),
        "remove_unique_constraint" | "remove_unique_key" => remove_constraint(args, Constraint::Unique),
        "remove_exclusion_constraint" => remove_constraint(args, Constraint::Exclusion),
        "validate_foreign_key" => validate(args, Some(Constraint::ForeignKey)),
        "validate_check_constraint" => validate(args, Some(Constraint::Check)),
        "validate_constraint" => validate(args, None),
        "change_column_comment" | "change_table_comment" => {
            table(args).map(|table| vec![Deed::Quiet { what: format!("changes a comment of {table}") }])
        }
        "rename_schema" => table(args).map(|from| vec![Deed::RenameSchema { from }]),
        "drop_schema" => {
            table(args).map(|name| vec![Deed::DropAll { what: format!("the schema {name} with all that is in it") }])
        }
        "rename_enum" => renamed_type(args, "to"),
        "rename_enum_value" => renamed_type(args, "in its part"),
        "drop_enum" | "drop_view" | "drop_function" | "drop_trigger" | "disable_extension" | "drop_virtual_table" => {
            drop_object(name, args)
        }
        "create_schema"
        | "create_enum"
        | "create_view"
        | "create_function"
        | "create_trigger"
        | "enable_extension"
        | "create_virtual_table"
        | "update_view"
        | "replace_view"
        | "update_function"
        | "update_trigger" => table(args).map(|object| vec![Deed::Other { what: of_object(name, &object) }]),
        "add_enum_value" => table(args).map(|name| vec![Deed::AddEnumValue { name }]),
        "drop_database" => Some(vec![Deed::DropAll { what: "a database".to_owned() }]),
        _ => return Word::Foreign,
    })
}

/// On what a deed depends, where an option of its call is there and cannot be read. The deed is then the worse one.
pub fn undecided(args: &Args, deed: &Deed) -> Option<Condition> {
    let index = [("index", "index: is set"), ("algorithm", "algorithm: is not :concurrently")];
    let constraint = [("foreign_key", "foreign_key: is set"), ("validate", "validate: is not false")];
    let options: &[(&str, &str)] = match deed {
        Deed::CreateTable { .. } | Deed::AddColumn { .. } if args.is_set("if_not_exists") => {
            return Some(Condition::Expected);
        }
        Deed::CreateTable { .. } => &[("force", "force: is set")],
        Deed::AddColumn { .. } | Deed::ChangeNull { .. } => &[("null", "null: is false")],
        Deed::AddIndex(_) | Deed::RemoveIndex { .. } => &index,
        Deed::AddConstraint { .. } => &constraint,
        _ => return None,
    };
    let is_unknown = |name: &str| {
        args.is_unknown(name) || ["index", "foreign_key"].iter().any(|outer| args.below(outer).is_unknown(name))
    };
    let (_, words) = options.iter().find(|(name, _)| is_unknown(name))?;
    Some(Condition::Unknown((*words).to_owned()))
}

/// What the `t` of a table's block is asked for, as the call of a migration that does the same.
pub fn of_table(name: &str, args: &Args, table: &str, modern: bool) -> Option<Result<Vec<Deed>, Unreadable>> {
    let all = args.behind(Value::Text(table.to_owned()));
    let plain = match name {
        "column" => "add_column",
        "remove" | "remove_columns" => "remove_columns",
        "rename" => "rename_column",
        "change" => "change_column",
        "change_default" => "change_column_default",
        "change_null" => "change_column_null",
        "index" => "add_index",
        "timestamps" => "add_timestamps",
        "references" | "belongs_to" => "add_reference",
        "foreign_key" => "add_foreign_key",
        "check_constraint" => "add_check_constraint",
        "unique_constraint" | "unique_key" => "add_unique_constraint",
        "exclusion_constraint" => "add_exclusion_constraint",
        "remove_index"
        | "rename_index"
        | "remove_references"
        | "remove_belongs_to"
        | "remove_timestamps"
        | "remove_foreign_key"
        | "remove_check_constraint"
        | "validate_constraint"
        | "validate_check_constraint"
        | "remove_exclusion_constraint"
        | "remove_unique_constraint" => match name {
            "remove_references" => "remove_reference",
            other => other,
        },
        // Whatever else it is called is a type: Rails' own, or one that a library brings.
        kind => {
            let columns = names(args, 0)?;
            let column = |name: &String| Deed::AddColumn { table: table.to_owned(), column: column(name, kind, args) };
            let deeds = columns.iter().flat_map(|name| [Some(column(name)), index_of_column(name, table, args)]);
            return Some(if args.open { Err(Unreadable) } else { Ok(deeds.flatten().collect()) });
        }
    };
    let mut done = deeds(plain, &all, modern)?;
    if let ("column", Ok(deeds), Some(name)) = (name, &mut done, args.text(0)) {
        deeds.extend(index_of_column(&name, table, args));
    }
    Some(done)
}

/// `t.string :name, index: true`.
fn index_of_column(name: &str, table: &str, args: &Args) -> Option<Deed> {
    args.is_set("index").then(|| index(table, vec![name.to_owned()], &args.below("index")))
}

fn table(args: &Args) -> Option<String> {
    args.text(0).map(|name| bare(&name))
}

/// `public.posts` is `posts`; another schema's tables keep its name.
pub fn bare(name: &str) -> String {
    name.strip_prefix("public.").unwrap_or(name).to_owned()
}

fn two(args: &Args) -> Option<(String, String)> {
    Some((table(args)?, args.text(1)?))
}

/// A table and a column, where what follows does not matter.
fn three(args: &Args) -> Option<(String, String)> {
    two(args)
}

fn names(args: &Args, from: usize) -> Option<Vec<String>> {
    let names: Vec<Vec<String>> = args.list.get(from..)?.iter().map(Value::texts).collect::<Option<_>>()?;
    Some(names.into_iter().flatten().collect()).filter(|names: &Vec<String>| !names.is_empty() && !args.open)
}

fn create_table(args: &Args) -> Option<Vec<Deed>> {
    Some(vec![created(table(args)?, args)])
}

fn created(table: String, args: &Args) -> Deed {
    let small_key = args.is("id", "integer") || args.is("id", "serial") || args.below("id").is("type", "integer");
    Deed::CreateTable { table, force: args.is_set("force"), small_key }
}

fn join_table(args: &Args) -> Option<String> {
    if let Some(table) = args.option("table_name") {
        return table.text();
    }
    let (a, b) = two(args)?;
    Some(inflect::join_table(&a, &b))
}

fn create_join_table(args: &Args) -> Option<Vec<Deed>> {
    let table = join_table(args)?;
    let made = created(table.clone(), args);
    let options = args.below("column_options");
    let kind = options.option("type").and_then(Value::text).unwrap_or_else(|| "bigint".to_owned());
    let reference = |other: String| {
        let mut column = column(&format!("{}_id", inflect::singular(&other)), &kind, &options);
        column.null = options.is_set("null");
        Deed::AddColumn { table: table.clone(), column }
    };
    let (a, b) = two(args)?;
    Some(vec![made, reference(a), reference(b)])
}

fn column(name: &str, kind: &str, args: &Args) -> Column {
    // `t.virtual :a, type: :string, stored: true`, `t.enum :a, enum_type: :mood`: the type is an option.
    let other = match kind {
        "virtual" if args.is_set("stored") => args.option("type").and_then(Value::text),
        "enum" => args.option("enum_type").and_then(Value::text),
        _ => None,
    };
    let kind = other.as_deref().unwrap_or(kind);
    let default = match args.option("default") {
        None | Some(Value::Nil) => Default::None,
        Some(Value::Code(text)) => Default::Computed(text.clone()),
        // Active Record passes a function on for this type alone.
        Some(Value::Text(text)) if kind == "uuid" && text.ends_with("()") => Default::Computed(Some(text.clone())),
        Some(Value::Unknown) => Default::Unknown,
        Some(_) => Default::Literal,
    };
    let number = |name| match args.option(name) {
        Some(Value::Int(number)) => Some(*number),
        _ => None,
    };
    let unsigned = if args.is_set("unsigned") { " unsigned" } else { "" };
    let sizes = ["limit", "precision", "scale", "array", "unsigned", "collation"];
    // A type may be SQL: `"varchar(20)"`, `"integer USING CAST(a AS integer)"`.
    let raw = sql::typed(name, kind);
    let size = Size {
        limit: number("limit").or(raw.size.limit),
        precision: number("precision"),
        scale: number("scale").or(raw.size.scale),
        vague: sizes.iter().any(|name| args.is_unknown(name)),
    };
    Column {
        size,
        array: raw.array || args.is_set("array"),
        collation: args.option("collation").and_then(Value::text),
        null: !args.is_false("null") && !args.is_unknown("null"),
        default,
        stored: args.is_set("stored"),
        kind: raw.kind + unsigned,
        ..raw
    }
}

fn add_column(args: &Args) -> Option<Vec<Deed>> {
    let (table, name) = two(args)?;
    let kind = args.text(2).or_else(|| args.option("type")?.text())?;
    Some(vec![Deed::AddColumn { table, column: column(&name, &kind, args) }])
}

fn add_columns(args: &Args) -> Option<Vec<Deed>> {
    let (table, kind) = (table(args)?, args.option("type")?.text()?);
    let add = |name: &String| Deed::AddColumn { table: table.clone(), column: column(name, &kind, args) };
    Some(names(args, 1)?.iter().map(add).collect())
}

/// Since Rails 5 they are not null unless one says so.
fn timestamps(table: &str, args: &Args, modern: bool) -> Vec<Deed> {
    let add = |name: &str| {
        let mut column = column(name, "datetime", args);
        column.null = args.option("null").map_or(!modern, Value::is_true);
        Deed::AddColumn { table: table.to_owned(), column }
    };
    vec![add("created_at"), add("updated_at")]
}

fn removed(table: &str, columns: impl IntoIterator<Item = String>) -> Vec<Deed> {
    columns.into_iter().map(|column| Deed::RemoveColumn { table: table.to_owned(), column }).collect()
}

fn remove_columns(args: &Args) -> Option<Vec<Deed>> {
    Some(removed(&table(args)?, names(args, 1)?))
}

/// A reference is up to two columns, an index and a foreign key. The index is made by default since Rails 5.
fn add_references(args: &Args, modern: bool) -> Option<Vec<Deed>> {
    let table = table(args)?;
    let mut deeds = Vec::new();
    for name in names(args, 1)? {
        let kind = args.option("type").and_then(Value::text).unwrap_or_else(|| "bigint".to_owned());
        let id = format!("{name}_id");
        let mut columns = vec![id.clone()];
        deeds.push(Deed::AddColumn { table: table.clone(), column: column(&id, &kind, args) });
        if args.is_set("polymorphic") {
            let kind_name = format!("{name}_type");
            columns.insert(0, kind_name.clone());
            deeds.push(Deed::AddColumn { table: table.clone(), column: column(&kind_name, "string", args) });
        }
        if args.option("index").map_or(modern, Value::is_true) {
            let options = args.below("index");
            deeds.push(index(&table, columns, &options));
        }
        if args.is_set("foreign_key") {
            let ready = args.below("foreign_key").is_false("validate");
            let kind = Constraint::ForeignKey;
            let told = args.below("foreign_key").option("to_table").and_then(Value::text);
            let expression = Some(told.unwrap_or_else(|| inflect::plural(&name)));
            deeds.push(Deed::AddConstraint { table: table.clone(), kind, name: None, ready, expression });
        }
    }
    Some(deeds)
}

fn remove_references(args: &Args) -> Option<Vec<Deed>> {
    let table = table(args)?;
    let columns = names(args, 1)?.into_iter().flat_map(|name| {
        let kind = args.is_set("polymorphic").then(|| format!("{name}_type"));
        std::iter::once(format!("{name}_id")).chain(kind)
    });
    Some(removed(&table, columns))
}

fn rename_column(args: &Args) -> Option<Vec<Deed>> {
    let (table, from) = two(args)?;
    Some(vec![Deed::RenameColumn { table, from, to: args.text(2)? }])
}

fn change_column(args: &Args) -> Option<Vec<Deed>> {
    let (table, name) = two(args)?;
    let column = column(&name, &args.text(2)?, args);
    let mut deeds = vec![Deed::ChangeType { table: table.clone(), column }];
    if let Some(value) = args.option("null") {
        let null = *value == Value::Bool(true);
        deeds.push(Deed::ChangeNull { table: table.clone(), column: name.clone(), null, backfill: false });
    }
    if args.option("default").is_some() {
        deeds.push(Deed::ChangeDefault { table, column: name });
    }
    Some(deeds)
}

fn change_null(args: &Args) -> Option<Vec<Deed>> {
    let (table, column) = two(args)?;
    let Value::Bool(null) = *args.list.get(2)? else { return None };
    let backfill = args.list.get(3).is_some_and(|value| *value != Value::Nil);
    Some(vec![Deed::ChangeNull { table, column, null, backfill }])
}

fn index(table: &str, columns: Vec<String>, args: &Args) -> Deed {
    Deed::AddIndex(Index {
        table: table.to_owned(),
        name: args.option("name").and_then(Value::text),
        columns,
        unique: args.is_set("unique"),
        concurrently: args.is("algorithm", "concurrently"),
    })
}

fn add_index(args: &Args) -> Option<Vec<Deed>> {
    if args.open {
        return None;
    }
    Some(vec![index(&table(args)?, args.list.get(1)?.texts()?, args)])
}

fn remove_index(args: &Args) -> Option<Vec<Deed>> {
    let columns = args.list.get(1).or_else(|| args.option("column")).and_then(Value::texts).unwrap_or_default();
    let index = args.option("name").and_then(Value::text).unwrap_or_else(|| format!("on {}", columns.join(", ")));
    let concurrently = args.is("algorithm", "concurrently");
    Some(vec![Deed::RemoveIndex { table: Some(table(args)?), index, columns, concurrently }])
}

fn foreign_key(args: &Args) -> Option<Vec<Deed>> {
    constraint(args, Constraint::ForeignKey, args.is_false("validate"))
}

fn constraint(args: &Args, kind: Constraint, ready: bool) -> Option<Vec<Deed>> {
    if args.open {
        return None;
    }
    let name = args.option("name").and_then(Value::text);
    Some(vec![Deed::AddConstraint { table: table(args)?, kind, name, ready, expression: args.text(1) }])
}

fn remove_constraint(args: &Args, kind: Constraint) -> Option<Vec<Deed>> {
    let which = Which { kind: Some(kind), name: args.option("name").and_then(Value::text) };
    Some(vec![Deed::RemoveConstraint { table: table(args)?, which }])
}

/// The name stands behind `name:`, or second; there a foreign key has the other table.
fn validate(args: &Args, kind: Option<Constraint>) -> Option<Vec<Deed>> {
    let second = || args.text(1).filter(|_| kind != Some(Constraint::ForeignKey));
    let which = Which { kind, name: args.option("name").and_then(Value::text).or_else(second) };
    Some(vec![Deed::Validate { table: table(args)?, which }])
}

/// A type, or one of its values, gets another name: `rename_enum :a, :b`, `rename_enum_value :a, from: "b", to: "c"`.
fn renamed_type(args: &Args, how: &str) -> Option<Vec<Deed>> {
    let of = |name: &str| args.option(name).and_then(Value::text);
    let to = of("to").or_else(|| args.text(1))?;
    let to = of("from").map_or_else(|| to.clone(), |from| format!("{from} to {to}"));
    Some(vec![Deed::ObjectGoes { what: format!("type {}", args.text(0)?), renamed: Some(format!("{how} {to}")) }])
}

/// What becomes of something that is no table, in plain words.
fn of_object(name: &str, object: &str) -> String {
    let (verb, kind) = match name {
        "enable_extension" => ("enables", "extension"),
        "create_enum" => ("creates", "type"),
        _ => match name.split_once('_') {
            Some(("create", kind)) => ("creates", kind),
            Some((_, kind)) => ("replaces", kind),
            None => ("changes", name),
        },
    };
    format!("{verb} the {} {object}", kind.replace('_', " "))
}

fn drop_object(name: &str, args: &Args) -> Option<Vec<Deed>> {
    let kind = name.split_once('_').map_or(name, |(_, kind)| kind).replace('_', " ");
    let kind = if kind == "enum" { "type".to_owned() } else { kind };
    Some(vec![Deed::ObjectGoes { what: format!("{kind} {}", args.text(0)?), renamed: None }])
}
