//! What the methods of Ruby's own texts, numbers, lists and hashes give.

use super::inflect;
use super::value::{Args, Value};

/// What stands between the items of a list that is joined, in bytes: it is the one thing that a single call repeats.
const MAX_SEPARATORS: usize = 256 << 10;

/// As many pairs of two lists are made.
const MAX_PAIRS: usize = 1_000;

/// Whether a method changes the list, the hash or the text that it is asked of.
pub fn changes(method: &str) -> bool {
    const CHANGES: [&str; 14] = [
        "<<", "[]=", "push", "append", "prepend", "unshift", "concat", "store", "update", "delete", "insert", "clear",
        "replace", "shift",
    ];
    CHANGES.contains(&method) || method.ends_with('!')
}

pub fn of_text(text: &str, method: &str, args: &Args) -> Value {
    let made = match method {
        "squish" => text.split_whitespace().collect::<Vec<_>>().join(" "),
        "strip" | "chomp" => text.trim().to_owned(),
        "strip_heredoc" | "to_s" | "to_sym" | "to_str" | "html_safe" | "b" | "-@" | "+@" => text.to_owned(),
        "upcase" => text.to_uppercase(),
        "downcase" => text.to_lowercase(),
        "underscore" => inflect::underscore(text),
        "pluralize" => inflect::plural(text),
        "tableize" => inflect::table_of(text),
        "+" => match args.text(0) {
            Some(more) => format!("{text}{more}"),
            None => return Value::Unknown,
        },
        _ => return Value::Unknown,
    };
    Value::Text(made)
}

pub fn of_number(number: i64, method: &str, args: &Args) -> Value {
    let Some(Value::Int(other)) = args.list.first() else { return Value::Unknown };
    let made = match method {
        "*" => number.checked_mul(*other),
        "+" => number.checked_add(*other),
        "-" => number.checked_sub(*other),
        "**" => u32::try_from(*other).ok().and_then(|power| number.checked_pow(power)),
        _ => None,
    };
    made.map_or(Value::Unknown, Value::Int)
}

pub fn of_list(list: Vec<Value>, method: &str, args: &Args) -> Value {
    match (method, args.list.first()) {
        ("+" | "concat", Some(Value::List(more))) => {
            Value::List(list.into_iter().chain(more.iter().cloned()).collect())
        }
        ("-", Some(Value::List(less))) => Value::List(list.into_iter().filter(|item| !less.contains(item)).collect()),
        ("first", None) => list.first().cloned().unwrap_or(Value::Nil),
        ("last", None) => list.last().cloned().unwrap_or(Value::Nil),
        ("reverse", None) => Value::List(list.into_iter().rev().collect()),
        ("first" | "take", Some(Value::Int(count))) => {
            Value::List(list.into_iter().take(usize::try_from(*count).unwrap_or_default()).collect())
        }
        ("uniq", None) if list.len() <= MAX_PAIRS => {
            let mut seen = Vec::new();
            for item in list {
                if !seen.contains(&item) {
                    seen.push(item);
                }
            }
            Value::List(seen)
        }
        ("flatten", None) => Value::List(list.into_iter().flat_map(flat).collect()),
        ("product", Some(Value::List(more))) if list.len().saturating_mul(more.len()) <= MAX_PAIRS => {
            let pairs =
                list.iter().flat_map(|one| more.iter().map(|other| Value::List(vec![one.clone(), other.clone()])));
            Value::List(pairs.collect())
        }
        ("zip", Some(Value::List(more))) => {
            let more = more.iter().cloned().chain(std::iter::repeat(Value::Nil));
            Value::List(list.into_iter().zip(more).map(|(one, other)| Value::List(vec![one, other])).collect())
        }
        ("[]", Some(Value::Int(index))) => {
            let item = usize::try_from(*index).ok().map(|index| list.get(index).cloned().unwrap_or(Value::Nil));
            item.unwrap_or(Value::Unknown)
        }
        ("size" | "length" | "count", None) => i64::try_from(list.len()).map_or(Value::Unknown, Value::Int),
        ("join", separator) => {
            let separator = separator.map_or(Some(String::new()), Value::text);
            let texts: Option<Vec<String>> = list.iter().map(Value::text).collect();
            let fits = |(texts, by): &(Vec<String>, String)| by.len().saturating_mul(texts.len()) <= MAX_SEPARATORS;
            texts.zip(separator).filter(fits).map_or(Value::Unknown, |(texts, by)| Value::Text(texts.join(&by)))
        }
        _ => Value::Unknown,
    }
}

/// One level is enough for what hands write.
fn flat(value: Value) -> Vec<Value> {
    match value {
        Value::List(inner) => inner,
        other => vec![other],
    }
}

pub fn of_map(pairs: Vec<(Value, Value)>, method: &str, args: &Args) -> Value {
    match (method, args.list.first()) {
        ("merge", None) if !args.open => {
            let more = args.options.iter().map(|(key, value)| (Value::Text(key.clone()), value.clone()));
            Value::Map(pairs.into_iter().chain(more).collect())
        }
        ("keys", None) => Value::List(pairs.into_iter().map(|(key, _)| key).collect()),
        ("values", None) => Value::List(pairs.into_iter().map(|(_, value)| value).collect()),
        ("[]" | "fetch", Some(key)) => {
            pairs.into_iter().find(|(name, _)| name == key).map_or(Value::Unknown, |(_, value)| value)
        }
        _ => Value::Unknown,
    }
}
