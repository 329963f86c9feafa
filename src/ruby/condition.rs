//! Whether the condition of a branch holds where a migration runs: in production, on the engine that is known.

use ruby_prism::Node;

use super::deed::Condition;
use super::finder::name;
use super::value::{Args, Value};
use crate::rails::Engine;

/// As many letters of a condition are repeated.
const SHOWN: usize = 60;

/// What is known of a condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Truth {
    Holds,
    Fails,
    /// It asks the database whether something is there.
    Presence,
    Unknown,
}

impl Truth {
    pub fn of(value: &Value) -> Self {
        match value {
            Value::Bool(true) => Self::Holds,
            Value::Bool(false) | Value::Nil => Self::Fails,
            Value::Presence => Self::Presence,
            _ => Self::Unknown,
        }
    }

    /// The value of `left && right`, where the left side does not decide.
    pub fn both(self, right: Self) -> Value {
        match (self, right) {
            (_, Self::Fails) => Value::Bool(false),
            (Self::Presence, Self::Presence | Self::Holds) => Value::Presence,
            _ => Value::Unknown,
        }
    }

    /// The value of `left || right`, where the left side does not decide.
    pub fn either(self, right: Self) -> Value {
        match (self, right) {
            (_, Self::Holds) => Value::Bool(true),
            (Self::Presence, Self::Presence | Self::Fails) => Value::Presence,
            _ => Value::Unknown,
        }
    }

    /// What depends on it, and what on its opposite.
    pub fn conditions(self, predicate: &Node) -> (Condition, Condition) {
        if self == Self::Presence {
            return (Condition::Expected, Condition::Expected);
        }
        let source = source(predicate);
        (Condition::Unknown(format!("`{source}` holds")), Condition::Unknown(format!("`{source}` does not hold")))
    }
}

pub fn negated(value: &Value) -> Value {
    match Truth::of(value) {
        Truth::Holds => Value::Bool(false),
        Truth::Fails => Value::Bool(true),
        Truth::Presence => Value::Presence,
        Truth::Unknown => Value::Unknown,
    }
}

/// A piece of the file in one line.
pub fn source(node: &Node) -> String {
    let text = name(node.location().as_slice());
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}...", &line[..end]),
        None => line,
    }
}

/// Whether one value is the other, or fits it, as far as that is known.
pub fn fits(one: &Value, other: &Value, engine: Engine) -> Option<bool> {
    match (one, other) {
        (Value::Environment, Value::Text(said) | Value::Pattern(said))
        | (Value::Text(said) | Value::Pattern(said), Value::Environment) => is_production(said),
        (Value::Adapter, Value::Text(said) | Value::Pattern(said))
        | (Value::Text(said) | Value::Pattern(said), Value::Adapter) => is_engine(said, engine),
        (Value::List(list), value @ (Value::Environment | Value::Adapter | Value::Text(_) | Value::Int(_)))
        | (value @ (Value::Environment | Value::Adapter), Value::List(list)) => {
            let each: Vec<Option<bool>> = list.iter().map(|item| fits(item, value, engine)).collect();
            let any = each.contains(&Some(true));
            (any || !each.contains(&None)).then_some(any)
        }
        (Value::Text(one), Value::Text(other)) => Some(one == other),
        (Value::Int(one), Value::Int(other)) => Some(one == other),
        _ => None,
    }
}

/// The answer to a question about a value; nothing where it is no question, or its answer is not known.
pub fn answer(value: &Value, method: &str, args: &Args, engine: Engine) -> Option<Value> {
    let lone = args.list.is_empty() && args.options.is_empty() && !args.open;
    let told = match (value, method, args.list.as_slice()) {
        (Value::Environment, "local?", []) if lone => Some(false),
        (Value::Environment, question, []) if lone => is_production(question.strip_suffix('?')?),
        (Value::Text(text), "blank?" | "empty?", []) => Some(text.trim().is_empty()),
        (Value::Text(text), "present?", []) => Some(!text.trim().is_empty()),
        (Value::List(list), "blank?" | "empty?" | "none?", []) if lone => Some(list.is_empty()),
        (Value::List(list), "present?" | "any?", []) if lone => Some(!list.is_empty()),
        (Value::Nil, "nil?" | "blank?", []) => Some(true),
        (Value::Nil, "present?", []) | (Value::Text(_) | Value::Int(_) | Value::List(_), "nil?", []) => Some(false),
        (Value::List(_), "include?" | "member?", [other]) => fits(value, other, engine),
        (Value::List(_), "exclude?", [other]) => fits(value, other, engine).map(|fits| !fits),
        (Value::List(_), ..) => None,
        (Value::Environment | Value::Adapter, "include?" | "start_with?" | "in?" | "casecmp?", [other])
        | (_, "==" | "eql?" | "===" | "=~" | "match?" | "match", [other]) => fits(value, other, engine),
        (_, "!=" | "!~", [other]) => fits(value, other, engine).map(|fits| !fits),
        _ => None,
    };
    told.map(Value::Bool)
}

/// A release runs in production; of an environment with another name nothing is known.
fn is_production(said: &str) -> Option<bool> {
    match said {
        "production" => Some(true),
        "development" | "test" => Some(false),
        _ => None,
    }
}

/// Whether what is said names this engine; nothing where it names none.
pub fn is_engine(said: &str, engine: Engine) -> Option<bool> {
    const NAMES: [(&str, Engine); 6] = [
        ("postg", Engine::Postgresql),
        ("mysql", Engine::Mysql),
        ("trilogy", Engine::Mysql),
        ("mariadb", Engine::Mysql),
        ("sqlite", Engine::Sqlite),
        ("pg", Engine::Postgresql),
    ];
    let said = said.to_lowercase();
    let mut named = NAMES.iter().filter(|(word, _)| said.contains(word)).map(|(_, engine)| *engine).peekable();
    named.peek()?;
    Some(named.any(|named| named == engine))
}

/// `postgresql?`, `using_mysql?`: a question after the engine, whoever is asked.
pub fn asks_for_engine(method: &str, engine: Engine) -> Option<bool> {
    let stem = method.strip_suffix('?')?;
    let stem = ["using_", "is_", "on_", "database_"].iter().find_map(|begin| stem.strip_prefix(begin)).unwrap_or(stem);
    let known = ["postgresql", "postgres", "mysql", "mysql2", "trilogy", "sqlite", "sqlite3"].contains(&stem);
    known.then(|| is_engine(stem, engine)).flatten()
}

/// A question after what is there: `column_exists?`, `extension_enabled?`.
pub fn asks_for_presence(method: &str) -> bool {
    method.ends_with("_exists?") || method.ends_with("_exist?") || method == "extension_enabled?"
}

/// Types of columns that only PostgreSQL has.
const POSTGRESQL: [&str; 12] = [
    "jsonb",
    "hstore",
    "citext",
    "inet",
    "cidr",
    "macaddr",
    "tsvector",
    "ltree",
    "xml",
    "daterange",
    "int4range",
    "timestamptz",
];

/// Types of columns that Rails has on every engine.
const EVERYWHERE: [&str; 14] = [
    "bigint",
    "binary",
    "boolean",
    "column",
    "date",
    "datetime",
    "decimal",
    "float",
    "integer",
    "json",
    "string",
    "text",
    "timestamp",
    "timestamps",
];

/// The answer to `t.respond_to?(:jsonb)`, where it is known.
pub fn table_responds(method: &str, engine: Engine) -> Option<bool> {
    let everywhere = EVERYWHERE.contains(&method).then_some(true);
    everywhere.or_else(|| POSTGRESQL.contains(&method).then_some(engine == Engine::Postgresql))
}

#[cfg(test)]
mod tests {
    use super::{Value, asks_for_engine, fits, is_engine};
    use crate::rails::Engine;

    #[test]
    fn engines_have_names() {
        for (said, expected) in [
            ("PostgreSQL", Some(true)),
            ("PostGIS", Some(true)),
            ("postgres|mysql", Some(true)),
            ("Mysql2", Some(false)),
            ("trilogy|mysql", Some(false)),
            ("Oracle", None),
        ] {
            assert_eq!(is_engine(said, Engine::Postgresql), expected, "{said}");
        }
        assert_eq!(asks_for_engine("using_mysql?", Engine::Mysql), Some(true));
        assert_eq!(asks_for_engine("supports_postgres?", Engine::Mysql), None);
    }

    #[test]
    fn one_of_a_list_fits() {
        let list = |items: &[&str]| Value::List(items.iter().map(|item| Value::Text((*item).to_owned())).collect());
        for (items, expected) in [
            (&["production", "staging"][..], Some(true)),
            (&["test", "development"], Some(false)),
            (&["test", "staging"], None),
            (&[], Some(false)),
        ] {
            assert_eq!(fits(&list(items), &Value::Environment, Engine::Mysql), expected, "{items:?}");
        }
    }
}
