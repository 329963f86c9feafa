//! YAML as Ruby's Psych loads it: the scalars of YAML 1.1 and Psych's own rules for merge keys.

use std::collections::HashMap;
use std::rc::Rc;

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Span, StrInput, Tag};

use super::erb::{Doubt, Rendered};

/// What is nested deeper than this, aliases written out, is no configuration.
const MAX_DEPTH: usize = 64;

/// What has more keys, items and values than this, aliases written out, is no configuration: a few lines of aliases to
/// aliases stand for more than any memory holds.
pub const MAX_NODES: usize = 20_000;

/// A value with the line of the file where it stands.
#[derive(Debug, Clone)]
pub struct Node {
    pub value: Value,
    pub line: usize,
}

/// What Psych makes of a node, as far as a database configuration cares: numbers, dates and symbols are their text.
#[derive(Debug, Clone)]
pub enum Value {
    Null,
    Bool(bool),
    /// An integer or a float, as Ruby prints it.
    Number(String),
    Text(String),
    List(Rc<[Node]>),
    Map(Rc<Map>),
    /// Only Ruby can tell.
    Unknown(Doubt),
}

/// A mapping in the order of its keys.
#[derive(Debug, Clone, Default)]
pub struct Map {
    pub entries: Vec<(String, Node)>,
    /// A key, or what is merged in, that only Ruby can tell.
    pub doubt: Option<Doubt>,
}

impl Map {
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.entries.iter().find_map(|(known, node)| (known == key).then_some(node))
    }

    /// Sets a key in its old place, as Ruby's hashes do.
    pub fn set(&mut self, key: &str, node: Node) {
        match self.entries.iter_mut().find(|(known, _)| known == key) {
            Some((_, old)) => *old = node,
            None => self.entries.push((key.to_owned(), node)),
        }
    }

    fn merge(&mut self, other: &Self) {
        other.entries.iter().for_each(|(key, node)| self.set(key, node.clone()));
        self.doubt = self.doubt.take().or_else(|| other.doubt.clone());
    }
}

impl Value {
    /// The value as Ruby prints it; `None` for null, for lists and mappings, and for what is not known.
    pub fn text(&self) -> Option<String> {
        match self {
            Self::Bool(bool) => Some(bool.to_string()),
            Self::Number(text) | Self::Text(text) => Some(text.clone()),
            Self::Null | Self::List(_) | Self::Map(_) | Self::Unknown(_) => None,
        }
    }

    /// Ruby's notion of truth: everything but `nil` and `false`.
    pub fn is_true(&self) -> bool {
        !matches!(self, Self::Null | Self::Bool(false))
    }
}

/// Why a document cannot be read, and the line of the file.
#[derive(Debug, PartialEq, Eq)]
pub struct SyntaxError {
    pub line: usize,
    pub message: String,
}

/// The first document of the text, which is all that Psych loads. An empty text is null.
pub fn load(rendered: &Rendered) -> Result<Node, SyntaxError> {
    let mut loader = Loader {
        parser: Parser::new_from_str(&rendered.text),
        anchors: HashMap::new(),
        rendered,
        last: 1,
        deepest: 0,
        nodes: 0,
    };
    loop {
        let (event, span) = loader.next()?;
        match event {
            Event::StreamEnd => return Ok(Node { value: Value::Null, line: 1 }),
            Event::StreamStart | Event::DocumentStart(_) | Event::Nothing => {}
            event => return loader.node(event, span, 0),
        }
    }
}

struct Loader<'a> {
    parser: Parser<'a, StrInput<'a>>,
    anchors: HashMap<usize, Anchored>,
    rendered: &'a Rendered,
    last: usize,
    /// How deep the node that is being read goes, as far as it is read.
    deepest: usize,
    /// How many nodes were read, aliases written out.
    nodes: usize,
}

/// What an alias stands for, and how much that is.
struct Anchored {
    value: Value,
    height: usize,
    nodes: usize,
}

impl<'a> Loader<'a> {
    fn next(&mut self) -> Result<(Event<'a>, Span), SyntaxError> {
        match self.parser.next_event() {
            Some(Ok((event, span))) => {
                self.last = span.start.line();
                Ok((event, span))
            }
            Some(Err(error)) => Err(self.syntax_error(&error)),
            None => Err(self.error(self.last, "the document ends too early")),
        }
    }

    fn syntax_error(&self, error: &ScanError) -> SyntaxError {
        self.error(error.marker().line(), error.info())
    }

    fn error(&self, line: usize, message: &str) -> SyntaxError {
        SyntaxError { line: self.rendered.source_line(line), message: message.to_owned() }
    }

    fn node(&mut self, event: Event<'a>, span: Span, depth: usize) -> Result<Node, SyntaxError> {
        let at = span.start.line();
        let (outer, before) = (std::mem::replace(&mut self.deepest, depth), self.nodes);
        self.nodes += 1;
        self.check_size(at)?;
        let line = self.rendered.source_line(at);
        let (anchor, value) = match event {
            Event::Alias(anchor) => (0, self.alias(anchor, at, depth)?),
            Event::Scalar(text, style, anchor, tag) => (anchor, self.scalar(&text, style, tag.as_deref(), line)),
            Event::SequenceStart(anchor, _) => (anchor, self.sequence(depth)?),
            Event::MappingStart(anchor, tag) => {
                let map = self.mapping(depth)?;
                let ruby = tag.filter(|tag| tag.suffix.starts_with("ruby/"));
                let doubt = |tag| Value::Unknown(Doubt { line, expression: format!("the YAML tag {tag}") });
                (anchor, ruby.map_or(map, |tag| doubt(tag.to_string())))
            }
            _ => return Err(self.error(at, "a value is missing")),
        };
        if anchor > 0 {
            let (height, nodes) = (self.deepest - depth, self.nodes - before);
            self.anchors.insert(anchor, Anchored { value: value.clone(), height, nodes });
        }
        self.deepest = self.deepest.max(outer);
        Ok(Node { value, line })
    }

    fn alias(&mut self, anchor: usize, at: usize, depth: usize) -> Result<Value, SyntaxError> {
        let Some(Anchored { value, height, nodes }) = self.anchors.get(&anchor) else {
            return Err(self.error(at, "an alias stands inside the node that it names"));
        };
        let value = value.clone();
        self.deepest = depth + height;
        self.nodes += nodes;
        self.check_size(at)?;
        Ok(value)
    }

    fn check_size(&self, at: usize) -> Result<(), SyntaxError> {
        match () {
            () if self.deepest > MAX_DEPTH => Err(self.error(at, "nested too deeply")),
            () if self.nodes > MAX_NODES => Err(self.error(at, "too large for a configuration")),
            () => Ok(()),
        }
    }

    fn sequence(&mut self, depth: usize) -> Result<Value, SyntaxError> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => return Ok(Value::List(items.into())),
                (event, span) => items.push(self.node(event, span, depth + 1)?),
            }
        }
    }

    fn mapping(&mut self, depth: usize) -> Result<Value, SyntaxError> {
        let mut map = Map::default();
        loop {
            let (event, span) = self.next()?;
            if event == Event::MappingEnd {
                return Ok(Value::Map(Rc::new(map)));
            }
            let is_text =
                matches!(&event, Event::Scalar(_, _, _, Some(tag)) if tag.is_yaml_core_schema() && tag.suffix == "str");
            let key = self.node(event, span, depth + 1)?;
            let (event, span) = self.next()?;
            // Psych merges a mapping or an alias, and a list that is written out in place: an alias to a list stays a value.
            let is_alias = matches!(event, Event::Alias(_));
            let node = self.node(event, span, depth + 1)?;
            let name = match &key.value {
                Value::Unknown(doubt) => {
                    map.doubt.get_or_insert_with(|| doubt.clone());
                    continue;
                }
                value => value.text().unwrap_or_default(),
            };
            match &node.value {
                Value::Map(other) if name == "<<" && !is_text => map.merge(other),
                Value::List(items) if name == "<<" && !is_text && !is_alias => match merged(items) {
                    Some(merged) => map.merge(&merged),
                    None => map.set(&name, node),
                },
                Value::Unknown(doubt) if name == "<<" && !is_text => {
                    map.doubt.get_or_insert_with(|| doubt.clone());
                }
                _ => map.set(&name, Node { line: key.line, ..node }),
            }
        }
    }

    fn scalar(&self, text: &str, style: ScalarStyle, tag: Option<&Tag>, line: usize) -> Value {
        if let Some(doubt) = self.rendered.doubt_in(text) {
            return Value::Unknown(doubt.clone());
        }
        match tag {
            None if style != ScalarStyle::Plain => Value::Text(text.to_owned()),
            None => resolve(text),
            Some(tag) if matches!(tag.suffix.as_str(), "" | "!") => Value::Text(text.to_owned()),
            Some(tag) => match tag.suffix.as_str() {
                "str" => Value::Text(text.to_owned()),
                "binary" => Value::Unknown(Doubt { line, expression: format!("the YAML tag {tag}") }),
                suffix if suffix.starts_with("ruby/") => {
                    Value::Unknown(Doubt { line, expression: format!("the YAML tag {tag}") })
                }
                _ => resolve(text),
            },
        }
    }
}

/// Several mappings as one, where the first one that has a key wins; `None` if they are not all mappings.
fn merged(items: &[Node]) -> Option<Map> {
    let mut all = Map::default();
    for item in items.iter().rev() {
        match &item.value {
            Value::Map(map) => all.merge(map),
            _ => return None,
        }
    }
    Some(all)
}

/// What Psych makes of a plain scalar.
fn resolve(text: &str) -> Value {
    let lower = text.to_ascii_lowercase();
    match lower.as_str() {
        "" | "~" | "null" => return Value::Null,
        "yes" | "true" | "on" => return Value::Bool(true),
        "no" | "false" | "off" => return Value::Bool(false),
        ".inf" | "+.inf" => return Value::Number("Infinity".to_owned()),
        "-.inf" => return Value::Number("-Infinity".to_owned()),
        ".nan" => return Value::Number("NaN".to_owned()),
        _ => {}
    }
    if text.contains('\n') {
        return Value::Text(text.to_owned());
    }
    if let Some(symbol) = text.strip_prefix(':').filter(|symbol| !symbol.is_empty()) {
        return Value::Text(unquote(symbol).to_owned());
    }
    let number = integer(text).or_else(|| sexagesimal(text)).or_else(|| float(text));
    number.map_or_else(|| Value::Text(text.to_owned()), Value::Number)
}

fn unquote(symbol: &str) -> &str {
    let quoted = |quote| symbol.strip_prefix(quote).and_then(|inner| inner.strip_suffix(quote));
    quoted('"').or_else(|| quoted('\'')).map_or(symbol, |inner| inner.strip_prefix(':').unwrap_or(inner))
}

fn signed(text: &str) -> (&str, &str) {
    match text.as_bytes().first() {
        Some(b'-') => ("-", &text[1..]),
        Some(b'+') => ("", &text[1..]),
        _ => ("", text),
    }
}

/// `0b101`, `0123` (octal), `1_000`, `1,000`, `0x1F` of any size, in decimal.
fn integer(text: &str) -> Option<String> {
    let (sign, body) = signed(text);
    let digits: String = body.chars().filter(|c| !matches!(c, '_' | ',')).collect();
    let in_base = |prefix: &str, base: u32| {
        let digits = digits.strip_prefix(prefix).filter(|digits| digits.chars().all(|c| c.is_digit(base)))?;
        body.starts_with(prefix).then(|| u128::from_str_radix(digits, base).ok())?
    };
    if let Some(number) = in_base("0b", 2).or_else(|| in_base("0x", 16)).or_else(|| in_base("0", 8)) {
        return Some(if number == 0 { "0".to_owned() } else { format!("{sign}{number}") });
    }
    if digits == "0" && body.starts_with('0') {
        return Some(digits);
    }
    // A separator must be followed by a digit here, and only here.
    let separators = body.split(['_', ',']).all(|part| !part.is_empty());
    let decimal = body.starts_with(|c: char| matches!(c, '1'..='9')) && separators;
    (decimal && digits.bytes().all(|b| b.is_ascii_digit())).then(|| format!("{sign}{digits}"))
}

/// `12:30:45` in seconds; Psych takes `12:30` for hours and minutes too. A fraction may follow.
fn sexagesimal(text: &str) -> Option<String> {
    let (whole, fraction) = text.split_once('.').map_or((text, None), |(whole, fraction)| (whole, Some(fraction)));
    let parts: Vec<&str> = whole.split(':').collect();
    let (sign, first) = signed(parts.first()?);
    let leading =
        first.starts_with(|c: char| c.is_ascii_digit()) && first.bytes().all(|b| b.is_ascii_digit() || b == b'_');
    let two = |part: &str| match part.as_bytes() {
        [b'0'..=b'9'] => true,
        [tens, ones] => (b'0'..=b'5').contains(tens) && ones.is_ascii_digit(),
        _ => false,
    };
    let fits = matches!(parts.len(), 2 | 3) && leading && parts[1..].iter().all(|part| two(part));
    if !fits || !fraction.is_none_or(|digits| digits.bytes().all(|b| b.is_ascii_digit() || b == b'_')) {
        return None;
    }
    let weights = [3600_i64, 60, 1];
    let first = first.replace('_', "").parse::<i64>().ok()?;
    let first = if sign == "-" { -first } else { first };
    let rest = parts[1..].iter().map(|part| part.parse::<i64>().ok()).collect::<Option<Vec<_>>>()?;
    let numbers = std::iter::once(first).chain(rest);
    let sum =
        numbers.zip(weights).try_fold(0_i64, |sum, (number, weight)| sum.checked_add(number.checked_mul(weight)?))?;
    let Some(fraction) = fraction else { return Some(sum.to_string()) };
    let fraction: f64 = format!("0.{}0", fraction.replace('_', "")).parse().ok()?;
    // Seconds weigh 1, but minutes weigh 60 where no seconds follow.
    #[allow(clippy::cast_precision_loss, reason = "as Ruby adds integers and floats")]
    let value = sum as f64 + fraction * if parts.len() == 2 { 60.0 } else { 1.0 };
    Some(ruby_float(value))
}

/// `1.5`, `.5`, `1.`, `1.5e+3`; an exponent needs its sign and a point before it, so `1e3` is text.
fn float(text: &str) -> Option<String> {
    let (sign, body) = signed(text);
    let (whole, rest) = body.split_once('.')?;
    let (fraction, exponent) = match rest.split_once(['e', 'E']) {
        Some((fraction, exponent)) => (fraction, Some(exponent)),
        None => (rest, None),
    };
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    let whole_fits = whole.is_empty() || whole.as_bytes()[0].is_ascii_digit() && digits(&whole.replace(['_', ','], ""));
    let exponent_fits = exponent.is_none_or(|exponent| {
        exponent.strip_prefix(['-', '+']).is_some_and(|power| !power.is_empty() && digits(power))
    });
    if body == "." || !(whole_fits && digits(fraction) && exponent_fits) {
        return None;
    }
    let whole = whole.replace(['_', ','], "");
    let number = format!("{sign}0{whole}.{fraction}0e{}", exponent.unwrap_or("0"));
    number.parse().ok().map(ruby_float)
}

/// A float as Ruby prints it: plain from 0.0001 up to 1e16, else `1.0e+16`.
fn ruby_float(value: f64) -> String {
    let scientific = format!("{value:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let power: i32 = exponent.parse().unwrap_or(0);
    if value == 0.0 || (-4..16).contains(&power) {
        let plain = value.to_string();
        return if plain.contains('.') { plain } else { plain + ".0" };
    }
    let digits = if digits.contains('.') { digits.to_owned() } else { format!("{digits}.0") };
    format!("{digits}e{power:+03}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loaded(text: &str) -> Result<Node, SyntaxError> {
        load(&Rendered::plain(text))
    }

    fn show(value: &Value) -> String {
        match value {
            Value::Null => "null".to_owned(),
            Value::Bool(bool) => format!("!{bool}"),
            Value::Number(number) => format!("#{number}"),
            Value::Text(text) => text.clone(),
            Value::List(items) => items.iter().map(|item| show(&item.value)).collect::<Vec<_>>().join(","),
            Value::Map(map) => {
                let pairs: Vec<_> =
                    map.entries.iter().map(|(key, node)| format!("{key}={}", show(&node.value))).collect();
                format!("{{{}}}", pairs.join(" "))
            }
            Value::Unknown(doubt) => format!("?{}", doubt.expression),
        }
    }

    #[test]
    fn scalars_are_those_of_psych() {
        let table = [
            ("0123", "#83"),
            ("12_34", "#1234"),
            ("1,234", "#1234"),
            ("12:30:45", "#45045"),
            ("12:30", "#45000"),
            ("-1:30", "#-1800"),
            ("1:30.5", "#5430.0"),
            ("yes", "!true"),
            ("OFF", "!false"),
            ("y", "y"),
            ("0x1F", "#31"),
            ("-0b101", "#-5"),
            ("~", "null"),
            ("Null", "null"),
            (":sym", "sym"),
            (":\":sym\"", "sym"),
            ("2024-01-02", "2024-01-02"),
            ("1e3", "1e3"),
            ("0o17", "0o17"),
            ("08", "08"),
            ("0", "#0"),
            ("-0", "#0"),
            ("00", "#0"),
            ("0_1", "#1"),
            ("1_", "1_"),
            ("1__2", "1__2"),
            ("+12", "#12"),
            ("1.50", "#1.5"),
            ("1.", "#1.0"),
            (".5", "#0.5"),
            (".", "."),
            ("1.5e+3", "#1500.0"),
            ("1.5e3", "1.5e3"),
            ("1.0e+20", "#1.0e+20"),
            ("1.0e-5", "#1.0e-05"),
            ("1.2.3", "1.2.3"),
            ("127.0.0.1", "127.0.0.1"),
            ("12345678901234567890123456789", "#12345678901234567890123456789"),
            (".inf", "#Infinity"),
            ("abc #1", "abc"),
            ("'0123'", "0123"),
            ("\"yes\"", "yes"),
            ("!!str 0123", "0123"),
            ("! 12", "12"),
            ("!ruby/object:Foo {}", "?the YAML tag !ruby/object:Foo"),
            ("", "null"),
        ];
        for (text, expected) in table {
            assert_eq!(show(&loaded(text).unwrap().value), expected, "{text}");
        }
    }

    #[test]
    fn merge_keys_are_those_of_psych() {
        let anchors = "a: &a {x: 1, y: 1}\nb: &b {x: 2, z: 2}\n";
        let table = [
            ("c:\n  <<: *a\n  x: 9", "{x=#9 y=#1}"),
            ("c:\n  x: 9\n  <<: *a", "{x=#1 y=#1}"),
            ("c:\n  <<: *a\n  <<: *b", "{x=#2 y=#1 z=#2}"),
            ("c:\n  <<: [*a, *b]", "{x=#1 z=#2 y=#1}"),
            ("c:\n  <<: {q: 1}", "{q=#1}"),
            ("c:\n  <<: text", "{<<=text}"),
            ("c:\n  x: 1\n  x: 2", "{x=#2}"),
        ];
        for (text, expected) in table {
            let node = loaded(&format!("{anchors}{text}")).unwrap();
            let Value::Map(map) = node.value else { panic!("{text}") };
            assert_eq!(show(&map.get("c").unwrap().value), expected, "{text}");
        }
    }

    #[test]
    fn lines_are_those_of_the_keys() {
        let Value::Map(map) = loaded("# x\na: &a\n  b: 1\nc: *a\n").unwrap().value else { panic!() };
        assert_eq!((map.get("a").unwrap().line, map.get("c").unwrap().line), (2, 4));
    }

    #[test]
    fn bad_documents_are_errors() {
        for (text, line) in
            [("a: b: c", 1), ("a:\n\tb: 1", 2), ("a: *x", 1), ("a: [1", 1), ("a: &a [*a]", 1), ("a: @x", 1)]
        {
            assert_eq!(loaded(text).unwrap_err().line, line, "{text}");
        }
        assert!(loaded(&"[".repeat(100_000)).is_err());
    }

    #[test]
    fn what_stands_for_more_than_any_memory_holds_is_refused() {
        let levels = |width: usize, count: usize| {
            let mut text = "a0: &a0 [x]\n".to_owned();
            for level in 1..count {
                let aliases = vec![format!("*a{}", level - 1); width].join(",");
                text = format!("{text}a{level}: &a{level} [{aliases}]\n");
            }
            text
        };
        assert!(loaded(&levels(9, 4)).is_ok());
        assert_eq!(
            loaded(&levels(9, 60)).unwrap_err(),
            SyntaxError { line: 5, message: "too large for a configuration".into() }
        );
        assert_eq!(loaded(&levels(1, 70)).unwrap_err(), SyntaxError { line: 64, message: "nested too deeply".into() });
        assert!(loaded(&"a: 1\n".repeat(20_000)).is_err());
    }
}
