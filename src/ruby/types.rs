//! The types of columns, whichever way they are written, and what becomes of the stored rows when a type changes.

use super::deed::Column;
use crate::rails::Engine;

/// What a change of a column's type does to what is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rows {
    /// Rows and indexes stay as they are.
    Stay,
    /// Rows stay, and each index of the column is built anew while nobody can use the table.
    Reindexed,
    /// The whole table is written anew.
    Rewritten,
    /// One of the types is not known here, or its size is not.
    Unknown,
}

/// The server that changes the type.
#[derive(Debug, Clone, Copy)]
pub struct Server {
    pub engine: Engine,
    /// Major and minor number, where they are known. An unknown server is taken to be of today.
    pub version: Option<(u32, u32)>,
    pub mariadb: bool,
}

/// A column's type as its server names it.
#[derive(Debug, PartialEq, Eq)]
struct Type<'c> {
    name: &'c str,
    /// Length or precision. `None` is the largest, or the one that the server takes by itself.
    size: Option<i64>,
    scale: Option<i64>,
    array: bool,
    unsigned: bool,
    collation: Option<&'c str>,
}

/// Digits behind the seconds that PostgreSQL keeps where nobody says how many.
const MICROSECONDS: i64 = 6;

/// The length of a `string` that Rails asks MySQL for.
const MYSQL_STRING: i64 = 255;

/// The digits of a `decimal` that nobody gave any.
const MYSQL_DIGITS: i64 = 10;

/// Bytes that a character may have in MySQL's `utf8mb4`, which Rails asks for.
const BYTES_PER_CHARACTER: i64 = 4;

/// What becomes of the rows when a column of the type `old` gets the type `new`. The facts of PostgreSQL and MariaDB are tested
/// against the servers, those of MySQL are out of its manual ("Online DDL Operations").
pub fn change(old: &Column, new: &Column, server: Server) -> Rows {
    if old.size.vague || new.size.vague {
        return Rows::Unknown;
    }
    let sides = (Type::of(old, server.engine), Type::of(new, server.engine));
    match server.engine {
        Engine::Postgresql => on_postgresql(&sides.0, &sides.1, server),
        Engine::Mysql => on_mysql(&sides.0, &sides.1, server),
        Engine::Sqlite if sides.0.name == sides.1.name => Rows::Stay,
        Engine::Sqlite => Rows::Rewritten,
    }
}

impl<'c> Type<'c> {
    fn of(column: &'c Column, engine: Engine) -> Self {
        let (kind, unsigned) = match column.kind.strip_suffix(" unsigned") {
            Some(kind) => (kind, true),
            None => (column.kind.as_str(), false),
        };
        let given = column.size.limit.or(column.size.precision);
        let (name, size) = if engine == Engine::Mysql { mysql_type(kind, given) } else { postgresql_type(kind, given) };
        let scale = column.size.scale.or_else(|| (name == "numeric" && size.is_some()).then_some(0));
        Self { name, size, scale, array: column.array, unsigned, collation: column.collation.as_deref() }
    }
}

/// PostgreSQL's name of a type that Rails or SQL names, and its size where it has one.
fn postgresql_type(kind: &str, size: Option<i64>) -> (&str, Option<i64>) {
    let digits = size.filter(|digits| *digits < MICROSECONDS);
    match (kind, size) {
        ("string" | "varchar" | "character varying", _) => ("varchar", size),
        ("char" | "character" | "bpchar", _) => ("char", size.or(Some(1))),
        ("bit", _) => ("bit", size.or(Some(1))),
        ("bit_varying" | "bit varying" | "varbit", _) => ("varbit", size),
        ("datetime" | "timestamp" | "timestamp without time zone", _) => ("timestamp", digits),
        ("timestamptz" | "timestamp with time zone", _) => ("timestamptz", digits),
        ("time" | "time without time zone", _) => ("time", digits),
        ("timetz" | "time with time zone", _) => ("timetz", digits),
        ("interval", _) => ("interval", digits),
        ("decimal" | "numeric", _) => ("numeric", size),
        ("integer", Some(1 | 2)) | ("smallint" | "int2" | "smallserial", _) => ("smallint", None),
        ("integer", Some(5..)) | ("bigint" | "int8" | "big_integer" | "bigserial" | "primary_key", _) => {
            ("bigint", None)
        }
        ("integer" | "int" | "int4" | "serial", _) => ("integer", None),
        ("float", Some(..=24)) | ("real" | "float4", _) => ("real", None),
        ("float" | "float8" | "double" | "double precision", _) => ("double precision", None),
        ("boolean" | "bool", _) => ("boolean", None),
        ("binary" | "bytea" | "blob", _) => ("bytea", None),
        ("text", _) => ("text", None),
        (other, _) => (other, size),
    }
}

/// The same for MySQL and MariaDB, where Rails makes the type of a text or a whole number out of its limit.
fn mysql_type(kind: &str, size: Option<i64>) -> (&str, Option<i64>) {
    match (kind, size) {
        ("string" | "varchar" | "character varying", _) => ("varchar", size.or(Some(MYSQL_STRING))),
        ("text", Some(..=0xff)) => ("tinytext", None),
        ("text", None | Some(..=0xffff)) => ("text", None),
        ("text", Some(..=0xff_ffff)) => ("mediumtext", None),
        ("text", Some(_)) => ("longtext", None),
        ("binary" | "blob", Some(..=0xff)) => ("tinyblob", None),
        ("binary" | "blob", None | Some(..=0xffff)) => ("blob", None),
        ("binary" | "blob", Some(..=0xff_ffff)) => ("mediumblob", None),
        ("binary" | "blob", Some(_)) => ("longblob", None),
        ("boolean" | "bool" | "tinyint", _) | ("integer", Some(1)) => ("tinyint", None),
        ("integer", Some(2)) | ("smallint", _) => ("smallint", None),
        ("integer", Some(3)) | ("mediumint", _) => ("mediumint", None),
        ("integer", Some(5..=8)) | ("bigint" | "big_integer", _) => ("bigint", None),
        // What is larger is a width for printing.
        ("integer" | "int", _) => ("int", None),
        ("float", Some(25..)) | ("double" | "double precision", _) => ("double", None),
        ("decimal" | "numeric", _) => ("numeric", size.or(Some(MYSQL_DIGITS))),
        (other, _) => (other, size),
    }
}

/// PostgreSQL's own types, between which it is known what happens.
const POSTGRESQL: [&str; 46] = [
    "bigint",
    "bit",
    "boolean",
    "box",
    "bytea",
    "char",
    "cidr",
    "circle",
    "citext",
    "date",
    "daterange",
    "double precision",
    "hstore",
    "inet",
    "int4range",
    "int8range",
    "integer",
    "interval",
    "json",
    "jsonb",
    "line",
    "lseg",
    "ltree",
    "macaddr",
    "macaddr8",
    "money",
    "numeric",
    "numrange",
    "oid",
    "path",
    "point",
    "polygon",
    "real",
    "smallint",
    "text",
    "time",
    "timestamp",
    "timestamptz",
    "timetz",
    "tsrange",
    "tstzrange",
    "tsvector",
    "uuid",
    "varbit",
    "varchar",
    "xml",
];

fn on_postgresql(old: &Type, new: &Type, server: Server) -> Rows {
    if [old.name, new.name].iter().any(|name| !POSTGRESQL.contains(name)) {
        let same = old == new;
        return if same { Rows::Stay } else { Rows::Unknown };
    }
    let rows = stored_by_postgresql(old, new, server);
    let sorted_alike = old.collation == new.collation;
    if rows == Rows::Stay && !sorted_alike { Rows::Reindexed } else { rows }
}

fn stored_by_postgresql(old: &Type, new: &Type, server: Server) -> Rows {
    let grows = new.size.is_none_or(|new| old.size.is_some_and(|old| old <= new));
    let stays = |stays: bool| if stays { Rows::Stay } else { Rows::Rewritten };
    if old.array || new.array {
        let unbounded = old.name == "varchar" && new.name == "varchar" && new.size.is_none();
        let same = (old.name, old.size, old.scale) == (new.name, new.size, new.scale);
        return stays(old.array == new.array && (same || unbounded));
    }
    match (old.name, new.name) {
        ("numeric", "numeric") => stays(new.size.is_none() || (grows && old.scale == new.scale)),
        ("varchar" | "varbit" | "timestamp" | "timestamptz" | "time" | "timetz" | "interval", same)
            if same == old.name =>
        {
            stays(grows)
        }
        ("char" | "bit", same) if same == old.name => stays(old.size == new.size),
        (from, to) if from == to => Rows::Stay,
        ("varchar" | "xml", "text") | ("cidr", "inet") => Rows::Stay,
        ("text" | "xml", "varchar") => stays(new.size.is_none()),
        ("varchar" | "text", "citext") | ("citext", "text") => Rows::Reindexed,
        ("citext", "varchar") | ("bit", "varbit") if new.size.is_none() => Rows::Reindexed,
        // With the session's time zone UTC, which Rails sets.
        ("timestamp", "timestamptz") | ("timestamptz", "timestamp")
            if new.size.is_none() && server.version.is_none_or(|version| version >= (12, 0)) =>
        {
            Rows::Reindexed
        }
        _ => Rows::Rewritten,
    }
}

fn on_mysql(old: &Type, new: &Type, server: Server) -> Rows {
    if old == new && !matches!(old.name, "enum" | "set") {
        return Rows::Stay;
    }
    let time = |of: &Type| matches!(of.name, "datetime" | "timestamp" | "time");
    match (old.name, new.name) {
        // Which values they have is not read.
        ("enum", "enum") | ("set", "set") => Rows::Unknown,
        // Without a word it is 0 digits or 6: that depends on the version of Rails that wrote the line.
        (from, to) if from == to && time(old) && (old.size.is_none() || new.size.is_none()) => Rows::Unknown,
        ("varchar", "varchar") if old.collation == new.collation => {
            let bytes = |of: &Type| of.size.unwrap_or(MYSQL_STRING) * BYTES_PER_CHARACTER;
            lengthened(bytes(old), bytes(new), server)
        }
        ("varbinary", "varbinary") => {
            lengthened(old.size.unwrap_or(MYSQL_STRING), new.size.unwrap_or(MYSQL_STRING), server)
        }
        _ => Rows::Rewritten,
    }
}

/// A length of up to 255 bytes is stored in one byte, a larger one in two. MariaDB reads both where there were up to 127.
fn lengthened(old: i64, new: i64, server: Server) -> Rows {
    let recent = server.version.is_none_or(|version| version >= (10, 5));
    let length_stays = (old <= 0xff) == (new <= 0xff) || (server.mariadb && recent && old <= 0x7f);
    if new >= old && length_stays { Rows::Stay } else { Rows::Rewritten }
}
