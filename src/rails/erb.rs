//! ERB as `config/database.yml` uses it, without Ruby: the template becomes a Ruby program, as ERB makes one, and the part of
//! the language that real files use is interpreted. What goes beyond it becomes a [`Doubt`], which matters only where a
//! value that is needed depends on it.

use std::collections::BTreeMap;
use std::path::Path;

use ruby_prism::{CallNode, Node, StatementsNode};

use crate::migrations::Version;

/// Something that only Ruby can tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Doubt {
    /// The line of the file.
    pub line: usize,
    /// What cannot be told, as written.
    pub expression: String,
}

/// What the expressions of a template may ask for.
pub struct Context<'a> {
    pub env: &'a BTreeMap<String, String>,
    /// `Rails.env`.
    pub environment: &'a str,
    /// `Rails.root`.
    pub root: &'a Path,
}

/// Why a template gives no text.
#[derive(Debug, PartialEq, Eq)]
pub enum Stop {
    /// Ruby would refuse or raise here too.
    Raised { line: usize, message: String },
    /// Which lines belong to the text depends on something that only Ruby can tell.
    Undecidable(Doubt),
}

/// A template's text, with a mark in the place of each doubt.
#[derive(Debug, PartialEq, Eq)]
pub struct Rendered {
    pub text: String,
    /// For each line of the text the line of the file that it comes from.
    lines: Vec<usize>,
    pub doubts: Vec<Doubt>,
}

/// Stands around the number of a doubt. A private character, which no YAML rule gives a meaning.
const MARK: char = '\u{f5e0}';

/// More Ruby than this is a program, not a configuration: in bytes, with a few for each tag.
const MAX_CODE: usize = 16 << 10;

/// As deep as expressions are followed. The parser goes deeper, but a chain of a thousand calls is nobody's configuration.
const MAX_DEPTH: usize = 150;

/// The length of all texts together that an evaluation may make: a variable that is doubled forty times fills any memory.
const MAX_TEXT: usize = 4 << 20;

impl Rendered {
    /// A text that came from elsewhere, line by line.
    pub fn plain(text: &str) -> Self {
        Self { text: text.to_owned(), lines: (1..=text.lines().count()).collect(), doubts: Vec::new() }
    }

    /// The line of the file from which this line of the text comes.
    pub fn source_line(&self, line: usize) -> usize {
        self.lines.get(line.saturating_sub(1)).or(self.lines.last()).copied().unwrap_or(1)
    }

    /// The first doubt that a piece of the text holds.
    pub fn doubt_in(&self, text: &str) -> Option<&Doubt> {
        self.doubts.get(text.split(MARK).nth(1)?.parse::<usize>().ok()?)
    }

    fn push(&mut self, text: &str, line: usize) {
        for (offset, piece) in text.split_inclusive('\n').enumerate() {
            if self.text.is_empty() || self.text.ends_with('\n') {
                self.lines.push(line + offset);
            }
            self.text.push_str(piece);
        }
    }
}

/// Evaluates a template. Fails where Ruby would fail: a syntax error, `ENV.fetch` of a name that is not set, even inside a
/// YAML comment.
pub fn render(template: &str, context: &Context) -> Result<Rendered, Stop> {
    let (program, chunks) = translate(template);
    if program.len() > MAX_CODE {
        let expression = format!("more than {MAX_CODE} bytes of Ruby");
        return Err(Stop::Undecidable(Doubt { line: 1, expression }));
    }
    let parsed = ruby_prism::parse(program.as_bytes());
    if let Some(error) = parsed.errors().next() {
        let message = "the Ruby in this template is not valid (neither `<%-` nor `-%>` is known here)".to_owned();
        return Err(Stop::Raised { line: line(&error.location()), message });
    }
    let mut interpreter = Interpreter {
        context,
        chunks,
        locals: BTreeMap::new(),
        env: BTreeMap::new(),
        env_doubt: None,
        depth: 0,
        made: 0,
        out: Rendered { text: String::new(), lines: Vec::new(), doubts: Vec::new() },
    };
    interpreter.eval(&parsed.node())?;
    Ok(interpreter.out)
}

const TEXT: &str = "_erb_text";
const VALUE: &str = "_erb_value";

/// The program that the template stands for, and the pieces of text that it prints by number. Lines stay where they are.
fn translate(template: &str) -> (String, Vec<String>) {
    let (mut program, mut chunks) = (String::new(), Vec::new());
    let mut print = |program: &mut String, text: &str| {
        if !text.is_empty() {
            let newlines = "\n".repeat(text.matches('\n').count());
            program.extend([TEXT, "(", &chunks.len().to_string(), ");", &newlines]);
            chunks.push(text.to_owned());
        }
    };
    let (mut rest, mut text) = (template, String::new());
    while let Some((before, tag)) = rest.split_once("<%") {
        text += before;
        if let Some(after) = tag.strip_prefix('%') {
            text += "<%";
            rest = after;
            continue;
        }
        print(&mut program, &std::mem::take(&mut text));
        let kind = tag.chars().next().filter(|kind| matches!(kind, '=' | '#'));
        let (code, after) = until_end(&tag[usize::from(kind.is_some())..]);
        rest = after.unwrap_or_default();
        match (kind, after) {
            // A tag that does not end is text, as ERB has it.
            (_, None) => print(&mut program, &code),
            (Some('='), _) => program.extend([VALUE, "((", &code, "));"]),
            (Some(_), _) => program += &"\n".repeat(code.matches('\n').count()),
            (None, _) => program.extend([&code, ";"]),
        }
    }
    text += rest;
    print(&mut program, &text);
    (program, chunks)
}

/// What stands before the tag's end, and what follows it. `%%>` is written for a `%>` inside.
fn until_end(tag: &str) -> (String, Option<&str>) {
    let mut code = String::new();
    let mut rest = tag;
    while let Some((before, after)) = rest.split_once("%>") {
        match before.strip_suffix('%') {
            Some(before) => code = code + before + "%>",
            None => return (code + before, Some(after)),
        }
        rest = after;
    }
    (code + rest, None)
}

fn line(location: &ruby_prism::Location) -> usize {
    usize::try_from(location.start_line()).unwrap_or(1)
}

/// The values of the interpreted part of Ruby. A `Pathname` is its text.
#[derive(Debug, Clone, PartialEq)]
enum Value {
    Nil,
    Bool(bool),
    Int(i64),
    Text(String),
    Unknown(Doubt),
}

use Value::{Bool, Int, Nil, Text, Unknown};

impl Value {
    fn is_true(&self) -> bool {
        !matches!(self, Nil | Bool(false))
    }

    fn is_blank(&self) -> bool {
        match self {
            Nil | Bool(false) => true,
            Text(text) => text.trim().is_empty(),
            Bool(true) | Int(_) | Unknown(_) => false,
        }
    }

    fn to_text(&self) -> String {
        match self {
            Nil | Unknown(_) => String::new(),
            Bool(bool) => bool.to_string(),
            Int(int) => int.to_string(),
            Text(text) => text.clone(),
        }
    }
}

struct Interpreter<'a> {
    context: &'a Context<'a>,
    chunks: Vec<String>,
    locals: BTreeMap<String, Value>,
    /// What the template itself has put into ENV.
    env: BTreeMap<String, String>,
    /// A statement that may have changed ENV.
    env_doubt: Option<Doubt>,
    /// How many expressions are being evaluated, each within the one before.
    depth: usize,
    /// The length of all texts that were made.
    made: usize,
    out: Rendered,
}

impl Interpreter<'_> {
    fn eval(&mut self, node: &Node) -> Result<Value, Stop> {
        if self.depth == MAX_DEPTH {
            return self.unknown(node);
        }
        self.depth += 1;
        let value = self.simple(node);
        self.depth -= 1;
        if let Ok(Text(text)) = &value {
            self.charge(text.len(), node)?;
        }
        value
    }

    /// Counts what was made, and gives up on a template that makes too much.
    fn charge(&mut self, length: usize, node: &Node) -> Result<(), Stop> {
        self.made += length;
        if self.made <= MAX_TEXT {
            return Ok(());
        }
        Err(Stop::Undecidable(Doubt { line: line(&node.location()), expression: excerpt(node) }))
    }

    fn simple(&mut self, node: &Node) -> Result<Value, Stop> {
        match node {
            Node::ProgramNode { .. } => self.statements(node.as_program_node().map(|node| node.statements()).as_ref()),
            Node::StatementsNode { .. } => self.statements(node.as_statements_node().as_ref()),
            Node::NilNode { .. } => Ok(Nil),
            Node::TrueNode { .. } => Ok(Bool(true)),
            Node::FalseNode { .. } => Ok(Bool(false)),
            _ => self.compound(node),
        }
    }

    fn compound(&mut self, node: &Node) -> Result<Value, Stop> {
        if let Some(call) = node.as_call_node() {
            return self.call(&call, node);
        }
        if let Some(string) = node.as_string_node() {
            return Ok(Text(lossy(string.unescaped())));
        }
        if let Some(string) = node.as_interpolated_string_node() {
            let parts = string.parts();
            let parts = parts.iter().map(|part| self.eval(&part)).collect::<Result<Vec<_>, _>>()?;
            let unknown = parts.iter().find(|part| matches!(part, Unknown(_)));
            return Ok(unknown.cloned().unwrap_or_else(|| Text(parts.iter().map(Value::to_text).collect())));
        }
        if let Some(embedded) = node.as_embedded_statements_node() {
            return self.statements(embedded.statements().as_ref());
        }
        if let Some(integer) = node.as_integer_node() {
            let value: Result<i32, _> = integer.value().try_into();
            return value.map_or_else(|()| self.unknown(node), |value| Ok(Int(value.into())));
        }
        if let Some(parentheses) = node.as_parentheses_node() {
            return parentheses.body().map_or(Ok(Nil), |body| self.eval(&body));
        }
        if let Some(or) = node.as_or_node() {
            return self.either(&or.left(), &or.right(), true, node);
        }
        if let Some(and) = node.as_and_node() {
            return self.either(&and.left(), &and.right(), false, node);
        }
        self.control(node)
    }

    fn control(&mut self, node: &Node) -> Result<Value, Stop> {
        if let Some(branch) = node.as_if_node() {
            return match self.eval(&branch.predicate())? {
                Unknown(doubt) => self.doubtful(node, doubt),
                value if value.is_true() => self.statements(branch.statements().as_ref()),
                _ => branch.subsequent().map_or(Ok(Nil), |node| self.eval(&node)),
            };
        }
        if let Some(branch) = node.as_unless_node() {
            return match self.eval(&branch.predicate())? {
                Unknown(doubt) => self.doubtful(node, doubt),
                value if value.is_true() => {
                    self.statements(branch.else_clause().and_then(|clause| clause.statements()).as_ref())
                }
                _ => self.statements(branch.statements().as_ref()),
            };
        }
        if let Some(clause) = node.as_else_node() {
            return self.statements(clause.statements().as_ref());
        }
        if let Some(rescue) = node.as_rescue_modifier_node() {
            return match self.eval(&rescue.expression()) {
                Err(Stop::Raised { .. }) => self.eval(&rescue.rescue_expression()),
                result => result,
            };
        }
        self.variable(node)
    }

    fn variable(&mut self, node: &Node) -> Result<Value, Stop> {
        if let Some(read) = node.as_local_variable_read_node() {
            let known = self.locals.get(&lossy(read.name().as_slice())).cloned();
            return known.map_or_else(|| self.unknown(node), Ok);
        }
        if let Some(write) = node.as_local_variable_write_node() {
            let value = self.eval(&write.value())?;
            self.locals.insert(lossy(write.name().as_slice()), value.clone());
            return Ok(value);
        }
        if let Some(write) = node.as_index_or_write_node()
            && write.receiver().is_some_and(|receiver| is_constant(&receiver, "ENV"))
        {
            let names = write.arguments();
            let mut names = names.iter().flat_map(|list| list.arguments().iter());
            if let Some(name) = names.next().map(|name| self.eval(&name)).transpose()?
                && let Text(name) = &name
            {
                return match self.env_value(name) {
                    Nil => {
                        let value = self.eval(&write.value())?;
                        self.set_env(name, value, node)
                    }
                    known => Ok(known),
                };
            }
        }
        self.unknown(node)
    }

    fn statements(&mut self, statements: Option<&StatementsNode>) -> Result<Value, Stop> {
        let mut last = Nil;
        for statement in statements.into_iter().flat_map(|statements| statements.body().iter()) {
            last = self.eval(&statement)?;
            // A statement that is not understood may load or set variables of the environment.
            if let (Unknown(doubt), Some(call)) = (&last, statement.as_call_node())
                && call.name().as_slice() != b"require"
            {
                self.env_doubt.get_or_insert_with(|| doubt.clone());
            }
        }
        Ok(last)
    }

    fn either(&mut self, left: &Node, right: &Node, or: bool, node: &Node) -> Result<Value, Stop> {
        match self.eval(left)? {
            Unknown(doubt) => self.doubtful(node, doubt),
            left if left.is_true() == or => Ok(left),
            _ => self.eval(right),
        }
    }

    /// A node beyond the part of Ruby that is interpreted.
    fn unknown(&mut self, node: &Node) -> Result<Value, Stop> {
        self.doubtful(node, Doubt { line: line(&node.location()), expression: excerpt(node) })
    }

    /// The value of a node that hangs on a doubt. It must print nothing itself, and every variable that it names is in doubt
    /// from here on.
    fn doubtful(&mut self, node: &Node, doubt: Doubt) -> Result<Value, Stop> {
        let source = lossy(node.location().as_slice());
        if source.contains(TEXT) || source.contains(VALUE) {
            return Err(Stop::Undecidable(doubt));
        }
        for (name, value) in &mut self.locals {
            if source.contains(name) {
                *value = Unknown(doubt.clone());
            }
        }
        Ok(Unknown(doubt))
    }

    fn arguments(&mut self, call: &CallNode) -> Result<Vec<Value>, Stop> {
        let arguments = call.arguments();
        arguments.iter().flat_map(|list| list.arguments().iter()).map(|argument| self.eval(&argument)).collect()
    }

    fn call(&mut self, call: &CallNode, node: &Node) -> Result<Value, Stop> {
        let name = lossy(call.name().as_slice());
        match call.receiver() {
            None => self.function(&name, call, node),
            Some(receiver) if is_constant(&receiver, "ENV") => self.env_call(&name, call, node),
            Some(receiver) if is_constant(&receiver, "Rails") => match name.as_str() {
                "env" => Ok(Text(self.context.environment.to_owned())),
                "root" => Ok(Text(self.context.root.to_string_lossy().into_owned())),
                _ => self.unknown(node),
            },
            Some(receiver)
                if is_rails_env(&receiver) && !NOT_AN_ENVIRONMENT.contains(&name.as_str()) && name.ends_with('?') =>
            {
                Ok(Bool(name.strip_suffix('?') == Some(self.context.environment)))
            }
            Some(receiver) => {
                let value = match self.eval(&receiver)? {
                    // A variable's doubt is where it was set; any other chain is best named whole.
                    Unknown(doubt) if receiver.as_local_variable_read_node().is_some() => {
                        return self.doubtful(node, doubt);
                    }
                    Unknown(_) => return self.unknown(node),
                    Nil if call.is_safe_navigation() => return Ok(Nil),
                    value => value,
                };
                let arguments = self.arguments(call)?;
                if let Some(Unknown(doubt)) = arguments.iter().find(|argument| matches!(argument, Unknown(_))) {
                    return self.doubtful(node, doubt.clone());
                }
                let answer = call.block().is_none().then(|| method(&value, &name, &arguments)).flatten();
                answer.map_or_else(|| self.unknown(node), Ok)
            }
        }
    }

    /// A call without a receiver: what the translation has put in, and the few functions that files use.
    fn function(&mut self, name: &str, call: &CallNode, node: &Node) -> Result<Value, Stop> {
        if !matches!(name, TEXT | VALUE | "Integer" | "raise") {
            return self.unknown(node);
        }
        let at = line(&node.location());
        if name == "raise" {
            return Err(Stop::Raised { line: at, message: "the template raises an error here".to_owned() });
        }
        let arguments = self.arguments(call)?;
        match (name, arguments.as_slice()) {
            (TEXT, [Int(number)]) => {
                let text = usize::try_from(*number).ok().and_then(|number| self.chunks.get(number)).cloned();
                let text = text.unwrap_or_default();
                self.charge(text.len(), node)?;
                self.out.push(&text, at);
                Ok(Nil)
            }
            (VALUE, [Unknown(doubt)]) => {
                let mark = format!("{MARK}{}{MARK}", self.out.doubts.len());
                self.out.push(&mark, at);
                self.out.doubts.push(doubt.clone());
                Ok(Nil)
            }
            (VALUE, values) => {
                self.out.push(&values.first().map(Value::to_text).unwrap_or_default(), at);
                Ok(Nil)
            }
            (_, [Unknown(doubt)]) => Ok(Unknown(doubt.clone())),
            (_, [Int(int)]) => Ok(Int(*int)),
            (_, [Text(text)]) if text.trim().parse::<i64>().is_ok() && !text.trim().starts_with('0') => {
                Ok(to_i(text).unwrap_or(Nil))
            }
            // Octal, hexadecimal and underscores are rare enough to ask Ruby; what has no digit is an error there too.
            (_, [Text(text)]) if text.bytes().any(|b| b.is_ascii_digit()) => {
                if text.trim() == "0" {
                    Ok(Int(0))
                } else {
                    self.unknown(node)
                }
            }
            _ => Err(Stop::Raised { line: at, message: "Integer() is given something that is no number".to_owned() }),
        }
    }

    fn env_call(&mut self, name: &str, call: &CallNode, node: &Node) -> Result<Value, Stop> {
        let arguments = self.arguments(call)?;
        let Some(Text(variable)) = arguments.first() else { return self.unknown(node) };
        match (name, &arguments[1..]) {
            ("[]", []) => Ok(self.env_value(variable)),
            ("key?" | "has_key?" | "include?" | "member?", []) => match self.env_value(variable) {
                Unknown(doubt) => Ok(Unknown(doubt)),
                value => Ok(Bool(value != Nil)),
            },
            ("[]=", [value]) => self.set_env(variable, value.clone(), node),
            ("fetch", default) => {
                match (self.env_value(variable), call.block().and_then(|block| block.as_block_node())) {
                    (Nil, Some(block)) => block.body().map_or(Ok(Nil), |body| self.eval(&body)),
                    (Nil, None) => default.first().cloned().ok_or_else(|| Stop::Raised {
                        line: line(&node.location()),
                        message: format!("ENV.fetch: {variable} is not set (Ruby: KeyError)"),
                    }),
                    (known, _) => Ok(known),
                }
            }
            _ => self.unknown(node),
        }
    }

    fn env_value(&self, name: &str) -> Value {
        match (self.env.get(name), &self.env_doubt) {
            (Some(value), _) => Text(value.clone()),
            (None, Some(doubt)) => Unknown(doubt.clone()),
            (None, None) => self.context.env.get(name).cloned().map_or(Nil, Text),
        }
    }

    fn set_env(&mut self, name: &str, value: Value, node: &Node) -> Result<Value, Stop> {
        if let Text(text) = &value {
            self.env.insert(name.to_owned(), text.clone());
            Ok(value)
        } else {
            let unknown = self.unknown(node)?;
            if let Unknown(doubt) = &unknown {
                self.env_doubt.get_or_insert_with(|| doubt.clone());
            }
            Ok(unknown)
        }
    }
}

/// Questions that may be put to `Rails.env` and ask for no environment.
const NOT_AN_ENVIRONMENT: [&str; 8] =
    ["nil?", "blank?", "present?", "empty?", "local?", "include?", "start_with?", "end_with?"];

fn is_constant(node: &Node, name: &str) -> bool {
    let bare = node.as_constant_read_node().is_some_and(|constant| constant.name().as_slice() == name.as_bytes());
    let rooted = node.as_constant_path_node().is_some_and(|path| {
        path.parent().is_none() && path.name().is_some_and(|constant| constant.as_slice() == name.as_bytes())
    });
    bare || rooted
}

fn is_rails_env(node: &Node) -> bool {
    node.as_call_node().is_some_and(|call| {
        call.name().as_slice() == b"env" && call.receiver().is_some_and(|receiver| is_constant(&receiver, "Rails"))
    })
}

/// A method of a known value with known arguments; `None` where it is beyond the part of Ruby that is interpreted.
fn method(value: &Value, name: &str, arguments: &[Value]) -> Option<Value> {
    Some(match (value, name, arguments) {
        (_, "to_s", []) | (Bool(_) | Int(_), "to_json", []) => Text(value.to_text()),
        (_, "nil?", []) => Bool(*value == Nil),
        (_, "!", []) => Bool(!value.is_true()),
        (_, "==", [other]) => Bool(value == other),
        (_, "!=", [other]) => Bool(value != other),
        (_, "blank?", []) => Bool(value.is_blank()),
        (_, "present?", []) => Bool(!value.is_blank()),
        (_, "presence", []) => {
            if value.is_blank() {
                Nil
            } else {
                value.clone()
            }
        }
        (_, "freeze" | "dup", []) => value.clone(),
        (Nil, "to_json", []) => Text("null".to_owned()),
        (Text(text), "to_json", []) => Text(serde_json::to_string(text).ok()?),
        (Nil, "to_i", []) => Int(0),
        (Int(int), "to_i", []) => Int(*int),
        (Text(text), "to_i", []) => to_i(text)?,
        (Int(left), operator, [Int(right)]) => return arithmetic(*left, operator, *right),
        (Text(text), _, _) => return text_method(text, name, arguments),
        _ => return None,
    })
}

fn text_method(text: &str, name: &str, arguments: &[Value]) -> Option<Value> {
    Some(match (name, arguments) {
        ("strip", []) => Text(text.trim().to_owned()),
        ("upcase", []) => Text(text.to_uppercase()),
        ("downcase", []) => Text(text.to_lowercase()),
        ("empty?", []) => Bool(text.is_empty()),
        ("+", [Text(other)]) => Text(text.to_owned() + other),
        ("include?", [Text(other)]) => Bool(text.contains(other)),
        ("start_with?", [Text(other)]) => Bool(text.starts_with(other)),
        ("end_with?", [Text(other)]) => Bool(text.ends_with(other)),
        ("sub", [Text(from), Text(to)]) if !to.contains('\\') => Text(text.replacen(from, to, 1)),
        ("gsub", [Text(from), Text(to)]) if !to.contains('\\') => {
            let made = text.matches(from).count().saturating_mul(to.len());
            (made <= MAX_TEXT).then(|| Text(text.replace(from, to)))?
        }
        // Only a `Pathname`, such as `Rails.root`, knows `join`.
        ("join", parts) => {
            let joined = parts.iter().fold(Path::new(text).to_owned(), |path, part| path.join(part.to_text()));
            Text(joined.to_str()?.to_owned())
        }
        _ => return None,
    })
}

fn arithmetic(left: i64, operator: &str, right: i64) -> Option<Value> {
    Some(match operator {
        "+" => Int(left.checked_add(right)?),
        "-" => Int(left.checked_sub(right)?),
        "*" => Int(left.checked_mul(right)?),
        // Ruby rounds down, which for a positive divisor is Euclid's division.
        "/" if right > 0 => Int(left.div_euclid(right)),
        "%" if right > 0 => Int(left.rem_euclid(right)),
        "<" => Bool(left < right),
        "<=" => Bool(left <= right),
        ">" => Bool(left > right),
        ">=" => Bool(left >= right),
        _ => return None,
    })
}

fn to_i(text: &str) -> Option<Value> {
    Version::from_row(text).to_string().parse().ok().map(Int)
}

/// The beginning of an expression, for people: no more than a name and what is asked of it. What stands in quotes may be a
/// password.
fn excerpt(node: &Node) -> String {
    let source = lossy(node.location().as_slice());
    let source = source.lines().next().unwrap_or_default().trim();
    let shown: String =
        source.split(['"', '\'', '`', '%', '/', '<']).next().unwrap_or_default().chars().take(80).collect();
    if shown.len() == source.len() { shown } else { shown + "..." }
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(template: &str) -> Result<Rendered, Stop> {
        let env = [("A", "a"), ("N", "5"), ("E", "")].map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        render(template, &Context { env: &env, environment: "production", root: Path::new("/app") })
    }

    #[test]
    fn expressions_of_real_files() {
        let table = [
            (r#"ENV["A"]"#, "a"),
            (r#"ENV["X"]"#, ""),
            (r#"ENV.fetch("X") { 5 }"#, "5"),
            (r#"ENV.fetch("X", nil)"#, ""),
            (r#"ENV.fetch("X", "d")"#, "d"),
            (r#"ENV.fetch("X", ENV["A"])"#, "a"),
            (r#"ENV.fetch("X") { ENV.fetch("N", 3).to_i * 4 }"#, "20"),
            (r#"ENV["X"] || ENV['A'] || 5"#, "a"),
            (r#"ENV["E"].presence || "d""#, "d"),
            (r#"ENV["A"] && "x""#, "x"),
            (r#"ENV["A"] ? "y" : "n""#, "y"),
            (r#""a_#{ENV['N']}_" if ENV['N']"#, "a_5_"),
            (r#""x" unless ENV.key?("A")"#, ""),
            (r"(ENV['A'] || '').to_json", r#""a""#),
            (r#"Integer(ENV["N"]) + 1"#, "6"),
            (r"Rails.env.production? ? 1 : 2", "1"),
            (r"Rails.env.test?", "false"),
            (r#"Rails.root.join("storage", "x.sqlite3")"#, "/app/storage/x.sqlite3"),
            (r#"(ENV.fetch("X") rescue "saved")"#, "saved"),
            (r#"ENV["A"]&.upcase"#, "A"),
            (r#"ENV["N"].to_i > 3 and !ENV["E"].present?"#, "true"),
            (r#"::ENV["A"] == "a""#, "true"),
            (r"Foo.bar || 1", "?Foo.bar"),
            (r#""x#{Foo}""#, "?Foo"),
        ];
        for (expression, expected) in table {
            let rendered = rendered(&format!("<%= {expression} %>")).unwrap();
            let doubt = rendered.doubt_in(&rendered.text).map(|doubt| format!("?{}", doubt.expression));
            assert_eq!(doubt.unwrap_or(rendered.text), expected, "{expression}");
        }
    }

    #[test]
    fn templates() {
        let table = [
            ("a <%% b %> <%= '%%>' %> <%# no %>c", "a <% b %> %> c"),
            ("<% if ENV['X'] %>x<% elsif ENV['A'] %>y<% else %>z<% end %>", "y"),
            ("<% v = ENV['N'].to_i\n w = v + 1 %><%= w %>", "6"),
            ("<% ENV['Q'] ||= 'q' %><%= ENV['Q'] %>", "q"),
            ("<% require 'erb' %><%= ENV['A'] %>", "a"),
            ("open <%= 1", "open  1"),
            ("<% # a comment eats the rest %> of the line\nb", ""),
        ];
        for (template, expected) in table {
            assert_eq!(rendered(template).unwrap().text, expected, "{template}");
        }
    }

    #[test]
    fn lines_are_those_of_the_file() {
        let rendered = rendered("a\n<% if ENV['X'] %>\nb\n<% end %>\nc\n<%= 1 +\n1 %>d\n").unwrap();
        assert_eq!(rendered.text, "a\n\nc\n2d\n");
        assert_eq!([1, 2, 3, 4].map(|line| rendered.source_line(line)), [1, 4, 5, 6]);
    }

    #[test]
    fn doubts_spread() {
        let doubts = [
            "<% x = 1\n x += Foo.y %><%= x %>",
            "<% x = 'a'\n x << 'b' %><%= x %>",
            "<% Dotenv.load %><%= ENV['A'] %>",
            "<% begin; y = 1; rescue; end %><%= y %>",
            "<% y = Foo ? 1 : 2 %><%= y %>",
        ];
        for template in doubts {
            let rendered = rendered(template).unwrap();
            assert!(rendered.doubt_in(&rendered.text).is_some(), "{template}");
        }
        for template in
            ["<% if Foo %>x<% end %>", "\n<% 3.times do %>x<% end %>", "<% Foo && 1 %><% case 1 when 1 %>x<% end %>"]
        {
            assert!(matches!(rendered(template), Err(Stop::Undecidable(_))), "{template}");
        }
    }

    #[test]
    fn what_ruby_refuses_is_refused() {
        for (template, expected) in [
            ("a\n# <%= ENV.fetch('X') %>", 2),
            ("a\n<%= 1 -%>", 2),
            ("\n<%= Integer('x') %>", 2),
            ("<% raise 'no' %>", 1),
            ("<% if true %>", 1),
        ] {
            assert!(matches!(rendered(template), Err(Stop::Raised { line, .. }) if line == expected), "{template}");
        }
    }
}
