//! Reads a migration: walks through its Ruby as far as its values are written in the file, and lists what it does.
//! Nothing is executed. What depends on anything outside of the file is said to be dynamic, and not guessed.

mod binding;
mod flow;

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use ruby_prism::{CallNode, ClassNode, ForNode, Node, StatementsNode};

use self::binding::Bound;
use self::flow::{Departure, Left};
use super::compute::{changes, of_list, of_map, of_number, of_text};
use super::condition::{answer, asks_for_engine, asks_for_presence, is_engine, negated, table_responds};
use super::deed::{Change, Condition, Deed, Pace};
use super::finder::{Finder, Method, Words, name, offset};
use super::heredoc::Heredoc;
use super::value::{Args, HOLE, Value};
use super::words::{
    AT_ONCE, BATCHES, EVALS, HARMLESS, LISTS, PURE, READS, RUNS, TRANSACTIONS, WRAPPERS, WRITES, sql_method,
};
use super::{dsl, inflect, sql};
use crate::rails::Engine;

/// As deep as calls and blocks are followed.
const MAX_DEPTH: usize = 120;

/// As many expressions as one file may have evaluated: a loop in a loop in a loop is a program, not a migration. Large values
/// count for as many more, since two lines can double one again and again.
const MAX_STEPS: usize = 50_000;

/// What a file does.
#[derive(Debug, Default)]
pub struct Script {
    pub changes: Vec<Change>,
    /// Where its class begins, and the version of Rails that it asks for; none where its parent is the application's own.
    pub version: Option<(usize, Option<(u32, u32)>)>,
    /// It has `disable_ddl_transaction!`.
    pub outside_transaction: bool,
    /// Statements of SQL, with the calls in whose heredoc they stand.
    pub inside: Vec<(usize, usize)>,
}

/// Why a file cannot be read.
#[derive(Debug, PartialEq, Eq)]
pub struct Broken {
    /// Bytes from the begin.
    pub at: usize,
    pub why: String,
}

/// Reads a migration or `db/schema.rb`.
pub fn script(text: &[u8], engine: Engine) -> Result<Script, Broken> {
    let parsed = ruby_prism::parse(text);
    if let Some(error) = parsed.errors().next() {
        let why = String::from_utf8_lossy(error.message()).into_owned();
        return Err(Broken { at: offset(&error.location()), why });
    }
    let root = parsed.node();
    let finder = Finder::of(&root);
    let mut reader = Reader {
        engine,
        modern: finder.modern,
        methods: finder.methods,
        modules: finder.modules,
        locals: BTreeMap::new(),
        constants: BTreeMap::new(),
        block: None,
        running: Vec::new(),
        depth: 0,
        steps: 0,
        conditions: Vec::new(),
        method_at: 0,
        block_at: 0,
        left: None,
        departure: None,
        returned: None,
        assured: 0,
        transaction: 0,
        transactions: 0,
        batches: 0,
        silent: false,
        declaring: false,
        out: Script { outside_transaction: finder.outside_transaction, version: finder.version, ..Script::default() },
    };
    // A schema file has no class; a file without one that migrates does nothing that can be seen.
    if finder.classes.is_empty() {
        reader.eval(&root);
        return Ok(reader.out);
    }
    reader.declaring = true;
    for node in &finder.around {
        reader.eval(node);
    }
    for class in &finder.classes {
        reader.body(class.body().as_ref());
    }
    reader.declaring = false;
    let clear = finder.unclear.is_empty();
    for (at, why) in finder.unclear {
        reader.dynamic(at, why);
    }
    match ["change", "up"].into_iter().find_map(|name| reader.methods.get(name).cloned()) {
        Some(method) => {
            reader.body(method.body().as_ref());
        }
        None if clear => finder.classes.iter().for_each(|class| reader.inherits(class)),
        None => {}
    }
    Ok(reader.out)
}

struct Reader<'p> {
    engine: Engine,
    /// The migration is of Rails 5 or newer.
    modern: bool,
    methods: BTreeMap<String, Rc<Method<'p>>>,
    /// Modules of the file.
    modules: BTreeSet<String>,
    locals: BTreeMap<String, Value>,
    constants: BTreeMap<String, Value>,
    /// The block of the method that is being followed, for `yield`.
    block: Option<Rc<Node<'p>>>,
    /// The methods that are being followed.
    running: Vec<String>,
    depth: usize,
    steps: usize,
    /// Of what is read now, the last one being what is known of all.
    conditions: Vec<Condition>,
    /// As many of them were there when the method, and the block, began.
    method_at: usize,
    block_at: usize,
    /// The rest of the block or the method is not done.
    left: Option<Left>,
    /// The rest may not be done.
    departure: Option<Departure>,
    /// What the method may return before its end.
    returned: Option<Value>,
    assured: usize,
    /// Which `transaction do` is read, the outermost one counting, and how many there were.
    transaction: usize,
    transactions: usize,
    /// Blocks of `in_batches` around what is read.
    batches: usize,
    /// The budget is spent, and that has been said.
    silent: bool,
    /// This is the body of the class, where libraries have words that only set something.
    declaring: bool,
    out: Script,
}

impl<'p> Reader<'p> {
    fn push(&mut self, deed: Deed, at: usize) {
        let (condition, assured) = (self.conditions.last().cloned(), self.assured > 0);
        let transaction = self.transaction;
        self.out.changes.push(Change { deed, at, condition, assured, transaction });
    }

    fn dynamic(&mut self, at: usize, why: impl Into<String>) {
        self.push(Deed::Dynamic { why: why.into() }, at);
    }

    fn body(&mut self, node: Option<&Node<'p>>) -> Value {
        node.map_or(Value::Nil, |node| self.eval(node))
    }

    fn statements(&mut self, node: Option<&StatementsNode<'p>>) -> Value {
        let mut value = Value::Nil;
        for node in node.iter().flat_map(|node| node.body().iter()) {
            value = self.eval(&node);
            if self.left.is_some() {
                break;
            }
        }
        value
    }

    fn eval(&mut self, node: &Node<'p>) -> Value {
        self.steps += 1;
        if self.depth >= MAX_DEPTH || self.steps > MAX_STEPS {
            if !std::mem::replace(&mut self.silent, true) {
                self.dynamic(offset(&node.location()), "this goes deeper, or longer, than a migration is followed");
            }
            return Value::Unknown;
        }
        self.depth += 1;
        let value = self.expression(node);
        self.depth -= 1;
        self.steps += value.weight();
        value
    }

    fn expression(&mut self, node: &Node<'p>) -> Value {
        match node {
            Node::NilNode { .. } => Value::Nil,
            Node::TrueNode { .. } => Value::Bool(true),
            Node::FalseNode { .. } => Value::Bool(false),
            Node::SelfNode { .. } => Value::Connection,
            Node::FloatNode { .. } => Value::Text(name(node.location().as_slice())),
            Node::ProgramNode { .. } => self.statements(node.as_program_node().map(|node| node.statements()).as_ref()),
            Node::StatementsNode { .. } => self.statements(node.as_statements_node().as_ref()),
            Node::DefNode { .. } | Node::AliasMethodNode { .. } | Node::RedoNode { .. } | Node::RetryNode { .. } => {
                Value::Nil
            }
            _ => self.literal(node),
        }
    }

    fn literal(&mut self, node: &Node<'p>) -> Value {
        if let Some(call) = node.as_call_node() {
            return self.call(&call);
        }
        if let Some(text) = node.as_string_node() {
            return Value::Text(name(text.unescaped()));
        }
        if let Some(text) = node.as_symbol_node() {
            return Value::Text(name(text.unescaped()));
        }
        if let Some(number) = node.as_integer_node() {
            let number: Result<i32, _> = number.value().try_into();
            return number.map_or(Value::Unknown, |number| Value::Int(number.into()));
        }
        if let Some(pattern) = node.as_regular_expression_node() {
            return Value::Pattern(name(pattern.unescaped()));
        }
        if let Some(text) = node.as_interpolated_string_node() {
            return self.joined(&text.parts());
        }
        if let Some(text) = node.as_interpolated_symbol_node() {
            return self.joined(&text.parts());
        }
        if let Some(embedded) = node.as_embedded_statements_node() {
            return self.statements(embedded.statements().as_ref());
        }
        if let Some(array) = node.as_array_node() {
            return self.array(&array.elements());
        }
        if let Some(hash) = node.as_hash_node() {
            return self.map(&hash.elements());
        }
        if let Some(hash) = node.as_keyword_hash_node() {
            return self.map(&hash.elements());
        }
        if let Some(parentheses) = node.as_parentheses_node() {
            return self.body(parentheses.body().as_ref());
        }
        if let Some(lambda) = node.as_lambda_node() {
            return Value::Code(literal_text(lambda.body().as_ref()));
        }
        self.variable(node)
    }

    fn joined(&mut self, parts: &ruby_prism::NodeList<'p>) -> Value {
        let texts: Vec<Option<String>> = parts.iter().map(|part| self.eval(&part).text()).collect();
        let is_whole = texts.iter().all(Option::is_some);
        let text = texts.into_iter().map(|text| text.unwrap_or_else(|| HOLE.to_owned())).collect();
        if is_whole { Value::Text(text) } else { Value::Template(text) }
    }

    fn array(&mut self, elements: &ruby_prism::NodeList<'p>) -> Value {
        let mut list = Vec::new();
        for element in elements {
            match element.as_splat_node() {
                Some(splat) => match splat.expression().map(|inner| self.eval(&inner)) {
                    Some(Value::List(more)) => list.extend(more),
                    _ => return Value::Unknown,
                },
                None => list.push(self.eval(&element)),
            }
        }
        Value::List(list)
    }

    fn map(&mut self, elements: &ruby_prism::NodeList<'p>) -> Value {
        let mut pairs = Vec::new();
        for element in elements {
            if let Some(pair) = element.as_assoc_node() {
                let key = self.eval(&pair.key());
                pairs.push((key, self.eval(&pair.value())));
            } else if let Some(splat) = element.as_assoc_splat_node() {
                match splat.value().map(|inner| self.eval(&inner)) {
                    Some(Value::Map(more)) => pairs.extend(more),
                    _ => return Value::Unknown,
                }
            }
        }
        Value::Map(pairs)
    }

    fn variable(&mut self, node: &Node<'p>) -> Value {
        if let Some(read) = node.as_local_variable_read_node() {
            return self.local(&name(read.name().as_slice()));
        }
        if let Some(read) = node.as_instance_variable_read_node() {
            return self.local(&name(read.name().as_slice()));
        }
        if node.as_it_local_variable_read_node().is_some() {
            return self.local("it");
        }
        if let Some(write) = node.as_local_variable_write_node() {
            let value = self.eval(&write.value());
            return self.assign(&name(write.name().as_slice()), value);
        }
        if let Some(write) = node.as_instance_variable_write_node() {
            let value = self.eval(&write.value());
            return self.assign(&name(write.name().as_slice()), value);
        }
        if let Some(write) = node.as_local_variable_operator_write_node() {
            let (name, operator) = (name(write.name().as_slice()), name(write.binary_operator().as_slice()));
            let args = Args { list: vec![self.eval(&write.value())], ..Args::default() };
            let value = match self.local(&name) {
                Value::List(list) => of_list(list, &operator, &args),
                Value::Text(text) => of_text(&text, &operator, &args),
                Value::Int(number) => of_number(number, &operator, &args),
                _ => Value::Unknown,
            };
            return self.assign(&name, value);
        }
        if let Some(changed) = changed_variable(node) {
            // `||=` and its kin: the one value or the other.
            self.locals.insert(changed, Value::Unknown);
            return Value::Unknown;
        }
        if let Some(write) = node.as_multi_write_node() {
            let value = self.eval(&write.value());
            let values = if let Value::List(list) = value { list } else { Vec::new() };
            for (index, target) in write.lefts().iter().enumerate() {
                if let Some(target) = target.as_local_variable_target_node() {
                    let value = values.get(index).cloned().unwrap_or(Value::Unknown);
                    self.assign(&name(target.name().as_slice()), value);
                }
            }
            return Value::Unknown;
        }
        if let Some(write) = node.as_constant_write_node() {
            let value = self.eval(&write.value());
            self.constants.insert(name(write.name().as_slice()), value.clone());
            return value;
        }
        if let Some(write) = node.as_constant_or_write_node() {
            let name = name(write.name().as_slice());
            let value = match self.constants.get(&name) {
                Some(known) => known.clone(),
                None => self.eval(&write.value()),
            };
            self.constants.insert(name, value.clone());
            return value;
        }
        if let Some(read) = node.as_constant_read_node() {
            let name = name(read.name().as_slice());
            return self.constants.get(&name).cloned().unwrap_or(Value::Constant(name));
        }
        if let Some(path) = node.as_constant_path_node() {
            let full = name(path.location().as_slice());
            let last = path.name().map(|last| name(last.as_slice())).unwrap_or_default();
            let known = if full.starts_with("ActiveRecord") { None } else { self.constants.get(&last).cloned() };
            return known.unwrap_or(Value::Constant(full.trim_start_matches("::").to_owned()));
        }
        self.control(node)
    }

    fn local(&self, name: &str) -> Value {
        self.locals.get(name).cloned().unwrap_or(Value::Unknown)
    }

    /// What is assigned under a condition may be the one or the other.
    fn assign(&mut self, name: &str, value: Value) -> Value {
        let other = self.locals.get(name).map_or(matches!(value, Value::Bool(_) | Value::Nil), |old| *old != value);
        let kept = if !self.conditions.is_empty() && other { Value::Unknown } else { value };
        self.locals.insert(name.to_owned(), kept.clone());
        kept
    }

    fn rest(&mut self, node: &Node<'p>) -> Value {
        if let Some(class) = node.as_class_node() {
            self.inner_class(&class);
            return Value::Nil;
        }
        if let Some(class) = node.as_singleton_class_node() {
            return self.body(class.body().as_ref());
        }
        if let Some(module) = node.as_module_node() {
            return self.body(module.body().as_ref());
        }
        if let Some(given) = node.as_yield_node() {
            let given = given.arguments();
            let values = given.iter().flat_map(|list| list.arguments().iter()).map(|node| self.eval(&node)).collect();
            return self.run_own_block(values);
        }
        if node.as_super_node().is_some() || node.as_forwarding_super_node().is_some() {
            self.dynamic(offset(&node.location()), "`super` does what is not in this file");
            return Value::Unknown;
        }
        if let Some(negated) = node.as_defined_node() {
            self.eval(&negated.value());
            return Value::Unknown;
        }
        if node.as_source_file_node().is_some() || node.as_x_string_node().is_some() {
            return Value::Unknown;
        }
        if let Some(each) = node.as_for_node() {
            return self.for_each(&each);
        }
        self.unfollowed(node);
        Value::Unknown
    }

    fn for_each(&mut self, each: &ForNode<'p>) -> Value {
        let index = each.index().as_local_variable_target_node().map(|target| name(target.name().as_slice()));
        let body = each.statements();
        match (self.eval(&each.collection()), index) {
            (Value::List(items), Some(index)) => {
                for item in items {
                    self.locals.insert(index.clone(), item);
                    self.statements(body.as_ref());
                }
            }
            (_, index) => {
                self.locals.extend(index.map(|index| (index, Value::Unknown)));
                self.maybe(Condition::Expected, |reader| reader.statements(body.as_ref()));
            }
        }
        Value::Unknown
    }

    /// A class inside of the migration or beside it: a model of its own, whose table it may name.
    fn inner_class(&mut self, class: &ClassNode<'p>) {
        let called = name(class.name().as_slice());
        let told = self.told_table(class.body().as_ref());
        let parent = class.superclass().map(|parent| self.eval(&parent));
        let model = match (told, parent) {
            (Some(told), _) => told,
            (None, Some(Value::Constant(parent))) if is_record(&parent) => {
                Value::Rows(Some(inflect::table_of(&called)))
            }
            (None, Some(parent @ Value::Rows(_))) => parent,
            // A model by a parent that is not known has a table that is not known either.
            (None, Some(Value::Constant(parent))) if !is_plain(&parent) => Value::Rows(None),
            _ => return,
        };
        self.constants.insert(called, model);
    }

    /// What a class says of its table: `self.table_name = "users"`.
    fn told_table(&mut self, body: Option<&Node<'p>>) -> Option<Value> {
        let statements = body.and_then(Node::as_statements_node);
        statements.iter().flat_map(|list| list.body().iter()).find_map(|node| {
            let call = node.as_call_node().filter(|call| call.name().as_slice() == b"table_name=")?;
            let first = call.arguments()?.arguments().first()?;
            Some(Value::Rows(self.eval(&first).text()))
        })
    }

    /// `Class.new(ActiveRecord::Base) { ... }`: its name is given to it later, or never.
    fn new_class(&mut self, call: &CallNode<'p>, at: usize) -> Value {
        let parent = self.args(call).list.into_iter().next();
        let block = call.block().and_then(|block| block.as_block_node());
        let told = self.told_table(block.and_then(|block| block.body()).as_ref());
        match (parent, told) {
            (Some(Value::Constant(parent)), _) if parent.contains("Migration") => {
                self.dynamic(at, "a migration is made by code");
                Value::Unknown
            }
            (_, Some(rows)) | (Some(rows @ Value::Rows(_)), None) => rows,
            (Some(Value::Constant(parent)), None) if is_record(&parent) => Value::Rows(None),
            _ => Value::Unknown,
        }
    }

    /// A class that migrates, and has neither `up` nor `change`.
    fn inherits(&mut self, class: &ClassNode<'p>) {
        let parent = class.superclass().map(|parent| name(parent.location().as_slice())).unwrap_or_default();
        let includes = |node: Node<'p>| {
            node.as_call_node()
                .is_some_and(|call| matches!(call.name().as_slice(), b"include" | b"prepend" | b"extend"))
        };
        let statements = class.body().and_then(|body| body.as_statements_node());
        let includes = statements.is_some_and(|list| list.body().iter().any(includes));
        if includes || !parent.trim_start_matches("::").starts_with("ActiveRecord::Migration") {
            self.dynamic(offset(&class.location()), "neither `up` nor `change` is in this file");
        }
    }

    fn args(&mut self, call: &CallNode<'p>) -> Args {
        let mut args = Args::default();
        let given = call.arguments();
        for node in given.iter().flat_map(|list| list.arguments().iter()) {
            if let Some(splat) = node.as_splat_node() {
                match splat.expression().map(|inner| self.eval(&inner)) {
                    Some(Value::List(more)) => args.list.extend(more),
                    _ => args.open = true,
                }
            } else if node.as_keyword_hash_node().is_some() {
                let value = self.eval(&node);
                args.take_options(value);
            } else {
                let value = self.eval(&node);
                args.list.push(value);
            }
        }
        if args.options.is_empty() && matches!(args.list.last(), Some(Value::Map(_))) {
            let last = args.list.pop().unwrap_or(Value::Unknown);
            args.take_options(last);
        }
        // The name of the method is not for the method.
        if sends(call) && !args.list.is_empty() {
            args.list.remove(0);
        }
        args
    }

    /// The method that is called; nothing where only the running program knows its name.
    fn method(&mut self, call: &CallNode<'p>) -> Option<String> {
        if !sends(call) {
            return Some(name(call.name().as_slice()));
        }
        let first = call.arguments()?.arguments().first()?;
        self.eval(&first).text()
    }

    fn call(&mut self, call: &CallNode<'p>) -> Value {
        let receiver = match call.receiver() {
            Some(receiver) if receiver.as_self_node().is_none() => Some(self.eval(&receiver)),
            _ => None,
        };
        let at = call.message_loc().map_or_else(|| offset(&call.location()), |location| offset(&location));
        let method = match (self.method(call), &receiver) {
            (Some(method), _) => method,
            (None, None | Some(Value::Connection | Value::Table(_))) => {
                self.args(call);
                self.dynamic(at, "the name of the method is dynamic");
                return Value::Unknown;
            }
            (None, _) => String::new(),
        };
        if call.block().is_none() && EVALS.contains(&method.as_str()) {
            self.args(call);
            self.dynamic(at, format!("`{method}` runs a text"));
            return Value::Unknown;
        }
        if let Some(holds) = asks_for_engine(&method, self.engine).filter(|_| !self.methods.contains_key(&method)) {
            return Value::Bool(holds);
        }
        match receiver {
            None | Some(Value::Connection) => self.own(&method, call, at),
            Some(Value::Table(table)) => self.of_table(&method, table.as_deref(), call, at),
            Some(Value::Direction) if method == "up" => self.run_block(call, Vec::new()),
            Some(Value::Direction) => Value::Nil,
            Some(Value::Constant(constant)) => self.of_constant(&constant, &method, call, at),
            Some(Value::Rows(table)) => self.of_rows(table, &method, call, at),
            Some(value) => {
                let changed = call.receiver().and_then(|node| variable_name(&node)).filter(|_| changes(&method));
                match changed {
                    Some(variable) => self.change(&variable, value, &method, call),
                    None => self.of_value(value, &method, call, at),
                }
            }
        }
    }

    /// A list or a hash in a variable is changed in its place.
    fn change(&mut self, variable: &str, value: Value, method: &str, call: &CallNode<'p>) -> Value {
        let args = self.args(call);
        let certain = self.conditions.is_empty() && call.block().is_none();
        let changed = match (value, method, args.list.as_slice()) {
            (Value::List(mut list), "<<" | "push" | "append", more) if certain && !args.open => {
                list.extend(more.iter().cloned());
                Value::List(list)
            }
            (Value::Map(mut pairs), "[]=" | "store", [key, value]) if certain => {
                pairs.retain(|(known, _)| known != key);
                pairs.push((key.clone(), value.clone()));
                Value::Map(pairs)
            }
            _ => Value::Unknown,
        };
        self.locals.insert(variable.to_owned(), changed.clone());
        changed
    }

    /// A call without a receiver, or one of the connection.
    fn own(&mut self, method: &str, call: &CallNode<'p>, at: usize) -> Value {
        if let Some(helper) = self.methods.get(method).cloned() {
            let args = self.args(call);
            let block = call.block().filter(|node| node.as_block_node().is_some());
            return self.helper(method, &helper, args, block, at);
        }
        match method {
            "reversible" => return self.run_block(call, vec![Value::Direction]),
            "connection" | "connection_pool" => return Value::Connection,
            "reverting?" => return Value::Bool(false),
            "adapter_name" => return Value::Adapter,
            "safety_assured" => {
                self.assured += 1;
                let value = self.run_block(call, Vec::new());
                self.assured -= 1;
                return value;
            }
            "create_table" | "change_table" | "create_join_table" => return self.table(method, call, at),
            "lambda" | "proc" => return Value::Code(block_text(call)),
            "revert" if call.block().is_some_and(|block| block.as_block_node().is_some()) => {
                return self.revert(call);
            }
            "revert" | "run" | "load" => {
                self.dynamic(at, format!("`{method}` runs another migration"));
                return Value::Nil;
            }
            "instance_eval" | "instance_exec" => return self.run_block(call, vec![Value::Connection]),
            _ => {}
        }
        let args = self.args(call);
        if let Some(value) = self.word(method, &args, Some(call), at) {
            return value;
        }
        if WRAPPERS.contains(&method) {
            return self.run_block(call, vec![Value::Connection]);
        }
        if let Some(value) = self.asked(method, &args) {
            return value;
        }
        if method.ends_with('=') || self.declaring {
            return Value::Unknown;
        }
        self.dynamic(at, format!("`{method}` is not defined in this file"));
        if call.block().is_some() {
            return self.maybe(Condition::Expected, |reader| reader.run_block(call, vec![Value::Unknown]));
        }
        Value::Unknown
    }

    /// `revert do ... end`: what the block does, undone from its end.
    fn revert(&mut self, call: &CallNode<'p>) -> Value {
        let before = self.out.changes.len();
        self.run_block(call, vec![Value::Connection]);
        let done = self.out.changes.split_off(before);
        let made: BTreeSet<String> = done
            .iter()
            .filter_map(|change| match &change.deed {
                Deed::CreateTable { table, .. } => Some(table.clone()),
                _ => None,
            })
            .collect();
        // With a table goes all that was done to it.
        let lasts = |change: &Change| {
            matches!(change.deed, Deed::CreateTable { .. })
                || !change.deed.table().is_some_and(|table| made.contains(table))
        };
        for change in done.into_iter().rev().filter(lasts) {
            self.out.changes.push(Change { deed: change.deed.inverse(), ..change });
        }
        Value::Nil
    }

    /// SQL, and the words of Rails' migrations.
    fn word(&mut self, method: &str, args: &Args, call: Option<&CallNode<'p>>, at: usize) -> Option<Value> {
        if sql_method(method) {
            return Some(self.execute(args, method, call, at));
        }
        let deeds = dsl::deeds(method, args, self.modern)?;
        self.take(deeds, args, method, at);
        Some(Value::Unknown)
    }

    /// What only asks.
    fn asked(&self, method: &str, args: &Args) -> Option<Value> {
        if let ("is_a?" | "kind_of?" | "instance_of?", Some(Value::Constant(class))) = (method, args.list.first()) {
            return Some(is_engine(class, self.engine).map_or(Value::Unknown, Value::Bool));
        }
        if asks_for_presence(method) || LISTS.contains(&method) {
            return Some(Value::Presence);
        }
        // What is no word of Rails may be one of a library that is not known here.
        if method == "respond_to?" {
            let is_word = |asked: String| dsl::deeds(&asked, &Args::default(), self.modern).is_some();
            return Some(if args.text(0).is_some_and(is_word) { Value::Bool(true) } else { Value::Unknown });
        }
        if method == "method" {
            return Some(args.text(0).map_or(Value::Unknown, Value::Method));
        }
        if let Some(quoted) = quoted(method, args, self.engine) {
            return Some(quoted);
        }
        (method.ends_with('?') || HARMLESS.contains(&method)).then_some(Value::Unknown)
    }

    /// A method by its name, with what it is given.
    fn named(&mut self, method: &str, args: Args, at: usize) -> Value {
        if let Some(helper) = self.methods.get(method).cloned() {
            return self.helper(method, &helper, args, None, at);
        }
        if let Some(value) = self.word(method, &args, None, at).or_else(|| self.asked(method, &args)) {
            return value;
        }
        self.dynamic(at, format!("`{method}` is not defined in this file"));
        Value::Unknown
    }

    fn take(&mut self, deeds: Result<Vec<Deed>, dsl::Unreadable>, args: &Args, method: &str, at: usize) {
        let Ok(deeds) = deeds else {
            return self.dynamic(at, format!("what `{method}` is given is dynamic"));
        };
        for deed in deeds {
            match dsl::undecided(args, &deed) {
                Some(condition) => {
                    self.maybe(condition, |reader| {
                        reader.push(deed, at);
                        Value::Unknown
                    });
                }
                None => self.push(deed, at),
            }
        }
    }

    /// What a statement of a heredoc does stands at that statement, if the heredoc is as it is written.
    fn execute(&mut self, args: &Args, method: &str, call: Option<&CallNode<'p>>, at: usize) -> Value {
        let deeds = match args.list.first() {
            Some(Value::Text(text)) => Some(sql::deeds(text, self.engine)),
            Some(Value::Template(text)) => sql::deeds_whatever_the_values(text, self.engine),
            _ => None,
        };
        let Some(deeds) = deeds else {
            self.dynamic(at, format!("the SQL of `{method}` is dynamic"));
            return Value::Unknown;
        };
        let placed = call.and_then(Heredoc::of).map(|heredoc| heredoc.deeds(self.engine)).unwrap_or_default();
        let same = placed.iter().map(|(_, deed)| deed).eq(&deeds);
        if !same {
            for deed in deeds {
                self.push(deed, at);
            }
            return Value::Unknown;
        }
        for (place, deed) in placed {
            self.push(deed, place);
            self.out.inside.push((place, at));
        }
        Value::Unknown
    }

    fn table(&mut self, method: &str, call: &CallNode<'p>, at: usize) -> Value {
        let args = self.args(call);
        let name = args.text(0).map(|name| dsl::bare(&name));
        if method == "change_table" {
            if name.is_none() {
                self.dynamic(at, "the table's name is dynamic");
            }
            return self.run_block(call, vec![Value::Table(name)]);
        }
        let deeds = dsl::deeds(method, &args, self.modern).unwrap_or(Err(dsl::Unreadable));
        let made = match &deeds {
            Ok(deeds) => deeds.first().and_then(|deed| deed.table().map(str::to_owned)),
            Err(dsl::Unreadable) => None,
        };
        self.take(deeds, &args, method, at);
        self.run_block(call, vec![Value::Table(made)])
    }

    fn of_table(&mut self, method: &str, table: Option<&str>, call: &CallNode<'p>, at: usize) -> Value {
        let args = self.args(call);
        if method == "respond_to?" {
            let known = args.text(0).and_then(|asked| table_responds(&asked, self.engine));
            return known.map_or(Value::Unknown, Value::Bool);
        }
        match table.map(|table| dsl::of_table(method, &args, table, self.modern)) {
            Some(Some(deeds)) => self.take(deeds, &args, method, at),
            Some(None) if method.ends_with('?') => {}
            Some(None) => self.dynamic(at, format!("what `t.{method}` does is not known")),
            // That the table's name is dynamic has been said.
            None => {}
        }
        Value::Unknown
    }

    fn of_constant(&mut self, constant: &str, method: &str, call: &CallNode<'p>, at: usize) -> Value {
        let root = constant.split("::").next().unwrap_or(constant);
        let last = constant.rsplit("::").next().unwrap_or(constant);
        if matches!(method, "connection" | "lease_connection" | "retrieve_connection") {
            return Value::Connection;
        }
        match (constant, method) {
            ("Rails", "env") => return Value::Environment,
            ("ENV", "[]" | "fetch") => return of_environment(&self.args(call)),
            ("Class", "new") => return self.new_class(call, at),
            _ => {}
        }
        if constant.starts_with("ActiveRecord") {
            return self.of_active_record(constant, method, call, at);
        }
        if let Some(helper) = self.methods.get(method).cloned().filter(|_| self.modules.contains(last)) {
            let args = self.args(call);
            return self.helper(method, &helper, args, call.block().filter(|node| node.as_block_node().is_some()), at);
        }
        if PURE.contains(&root) {
            self.args(call);
            return self.maybe(Condition::Expected, |reader| reader.run_block(call, vec![Value::Unknown]));
        }
        // `DB.exec` of mini_sql, which some applications have beside Active Record.
        if constant == "DB" {
            let args = self.args(call);
            return self.execute(&args, method, Some(call), at);
        }
        if !(READS.contains(&method) || WRITES.contains(&method) || method.ends_with('?')) {
            self.dynamic(at, format!("what `{constant}.{method}` does is not known here"));
            return self.maybe(Condition::Expected, |reader| reader.run_block(call, vec![Value::Unknown]));
        }
        // A module may give the tables of its classes a prefix.
        let table = (constant.trim_start_matches("::") == last).then(|| inflect::table_of(last));
        self.of_rows(table, method, call, at)
    }

    /// `ActiveRecord::Schema.define`, `ActiveRecord::Base.transaction`, `ActiveRecord::Migration.remove_column`.
    fn of_active_record(&mut self, constant: &str, method: &str, call: &CallNode<'p>, at: usize) -> Value {
        let args = self.args(call);
        match method {
            "[]" => Value::Constant(constant.to_owned()),
            "connection_pool" => Value::Connection,
            "new" if constant.contains("Migration") => Value::Connection,
            _ if constant == "ActiveRecord::Migration" && !WRAPPERS.contains(&method) => self.own(method, call, at),
            _ if constant.starts_with("ActiveRecord::Tasks") || constant.starts_with("ActiveRecord::Migrat") => {
                self.dynamic(at, format!("what `{constant}.{method}` does is not known here"));
                Value::Unknown
            }
            _ => match self.word(method, &args, Some(call), at) {
                Some(value) => value,
                None => self.run_block(call, vec![Value::Connection]),
            },
        }
    }

    /// A model, a relation or a record; what is not known to write is taken to read.
    fn of_rows(&mut self, table: Option<String>, method: &str, call: &CallNode<'p>, at: usize) -> Value {
        match method {
            "connection" | "lease_connection" => return Value::Connection,
            "table_name" => return table.map_or(Value::Unknown, Value::Text),
            "table_name=" => {
                let given = self.args(call).text(0);
                let constant = call.receiver().and_then(|node| node.as_constant_read_node().map(|read| read.name()));
                self.constants.extend(constant.map(|constant| (name(constant.as_slice()), Value::Rows(given))));
                return Value::Unknown;
            }
            "quoted_table_name" => {
                return table.map_or(Value::Unknown, |table| Value::Text(in_quotes(&table, self.engine)));
            }
            "name" | "to_s" => return Value::Unknown,
            "column_names" | "columns" | "columns_hash" | "table_exists?" | "column_for_attribute" => {
                self.args(call);
                return Value::Presence;
            }
            "class_eval" | "class_exec" | "instance_eval" | "instance_exec" => {
                let outer = std::mem::replace(&mut self.declaring, true);
                self.run_block(call, vec![Value::Rows(table.clone())]);
                self.declaring = outer;
                return Value::Rows(table);
            }
            _ => {}
        }
        self.args(call);
        if RUNS.contains(&method) {
            self.dynamic(at, format!("what `{method}` runs is not in this file"));
        }
        if WRITES.contains(&method)
            || (method.ends_with('!') && !matches!(method, "!" | "find_by!" | "first!" | "last!" | "take!"))
        {
            self.write(table.clone(), method, is_in_batches(call), at);
        }
        if method == "!" || method.ends_with('?') {
            return Value::Unknown;
        }
        self.run_block(call, vec![Value::Rows(table.clone()), Value::Unknown]);
        Value::Rows(table)
    }

    /// Rows are written by a method of Active Record; `in_batches` by the call itself, whatever is around it.
    fn write(&mut self, table: Option<String>, method: &str, in_batches: bool, at: usize) {
        let (how, pace) = match AT_ONCE.contains(&method) {
            _ if in_batches || self.batches > 0 => (format!("{method}, in batches"), Pace::InBatches),
            true => (format!("{method}, all at once"), Pace::AtOnce),
            false => (method.to_owned(), Pace::Some),
        };
        self.push(Deed::Write { table, how, pace }, at);
    }

    fn of_value(&mut self, value: Value, method: &str, call: &CallNode<'p>, at: usize) -> Value {
        match (&value, method) {
            (Value::List(_) | Value::Map(_), _) if call.block().is_some() => return self.each(value, method, call),
            (Value::Int(times), "times") if *times <= 100 => {
                for index in 0..*times {
                    self.run_block(call, vec![Value::Int(index)]);
                }
                return Value::Nil;
            }
            _ => {}
        }
        let args = self.args(call);
        let was_presence = value == Value::Presence;
        if let Some(told) = answer(&value, method, &args, self.engine) {
            return told;
        }
        match (value, method) {
            (value, "!") => negated(&value),
            (value @ (Value::Environment | Value::Adapter), "to_s" | "to_sym" | "downcase" | "upcase" | "inquiry") => {
                value
            }
            (Value::Unknown, "[]" | "fetch") if args.text(0).is_some_and(|key| key == "adapter") => Value::Adapter,
            (Value::Unknown, "adapter" | "adapter_name") => Value::Adapter,
            (Value::Method(method), "call" | "()" | "===" | "[]") => self.named(&method, args, at),
            (list @ Value::List(_), "each" | "map" | "each_entry") => list,
            (Value::Map(pairs), "each" | "map" | "each_pair" | "to_a") => Value::List(as_lists(pairs)),
            (value, "freeze" | "dup" | "to_a" | "to_h" | "presence" | "compact" | "itself" | "clone") => value,
            (Value::Text(text), _) if call.block().is_none() => of_text(&text, method, &args),
            (Value::Template(text), "squish" | "strip" | "chomp" | "strip_heredoc" | "to_s" | "html_safe") => {
                Value::Template(text)
            }
            (Value::Int(number), "to_s") => Value::Text(number.to_string()),
            (Value::Int(number), _) if call.block().is_none() => of_number(number, method, &args),
            (Value::List(list), _) => of_list(list, method, &args),
            (Value::Map(pairs), _) => of_map(pairs, method, &args),
            (Value::Code(_), "call" | "()") => {
                self.dynamic(at, "a lambda is called");
                Value::Unknown
            }
            (_, _) => {
                if dsl::deeds(method, &args, self.modern).is_some_and(|_| method != "remove_index")
                    && !args.list.is_empty()
                    || matches!(method, "execute" | "exec_query" | "exec_update")
                {
                    self.dynamic(at, format!("`{method}` is asked of something that is dynamic"));
                }
                let given = if method == "with_connection" { Value::Connection } else { Value::Unknown };
                self.maybe(Condition::Expected, |reader| reader.run_block(call, vec![given]));
                if was_presence { Value::Presence } else { Value::Unknown }
            }
        }
    }

    /// A loop over what is written out is followed item by item, any other once, as it may be.
    fn each(&mut self, value: Value, method: &str, call: &CallNode<'p>) -> Value {
        let args = self.args(call);
        let (list, pairs) = match value {
            Value::List(list) => (list, false),
            Value::Map(pairs) => (as_lists(pairs), true),
            _ => (Vec::new(), false),
        };
        let counted = |(index, item)| vec![item, Value::Int(i64::try_from(index).unwrap_or_default())];
        let items: Vec<Vec<Value>> = match (method, args.list.first()) {
            ("each_with_index" | "with_index", None) => list.into_iter().enumerate().map(counted).collect(),
            ("each_with_object", Some(_)) => list.into_iter().map(|item| vec![item, Value::Unknown]).collect(),
            ("each_slice", Some(Value::Int(size))) if *size > 0 => {
                let size = usize::try_from(*size).unwrap_or(usize::MAX);
                list.chunks(size).map(|chunk| vec![Value::List(chunk.to_vec())]).collect()
            }
            ("each_key", None) if pairs => list.iter().map(|pair| vec![item_of(pair, 0)]).collect(),
            ("each_value", None) if pairs => list.iter().map(|pair| vec![item_of(pair, 1)]).collect(),
            ("reverse_each", None) => list.into_iter().rev().map(|item| vec![item]).collect(),
            ("each" | "each_pair" | "each_entry" | "map" | "collect" | "flat_map" | "filter_map" | "to_h", None) => {
                list.into_iter().map(|item| vec![item]).collect()
            }
            _ => return self.maybe(Condition::Expected, |reader| reader.run_block(call, vec![Value::Unknown])),
        };
        let values = items.into_iter().map(|item| self.run_block(call, item)).collect();
        if matches!(method, "map" | "collect") { Value::List(values) } else { Value::Unknown }
    }

    fn run_block(&mut self, call: &CallNode<'p>, values: Vec<Value>) -> Value {
        let outer = (self.transaction, self.batches);
        if self.transaction == 0 && TRANSACTIONS.contains(&name(call.name().as_slice()).as_str()) {
            self.transactions += 1;
            self.transaction = self.transactions;
        }
        self.batches += usize::from(is_in_batches(call));
        let value = self.block_of(call, values);
        (self.transaction, self.batches) = outer;
        value
    }

    fn block_of(&mut self, call: &CallNode<'p>, values: Vec<Value>) -> Value {
        let Some(block) = call.block() else { return Value::Unknown };
        let Some(passed) = block.as_block_argument_node() else { return self.run(&block, values) };
        let Some(expression) = passed.expression() else { return self.run_own_block(values) };
        let at = offset(&expression.location());
        // `&:to_sym`, `&method(:drop)`, or `&block` of the method that is being followed.
        if let Some(symbol) = expression.as_symbol_node() {
            let Some(first) = values.into_iter().next() else { return Value::Unknown };
            let method = name(symbol.unescaped());
            if let Value::Rows(table) = &first
                && WRITES.contains(&method.as_str())
            {
                self.write(table.clone(), &method, false, at);
            }
            return plain(first, &method, self.engine);
        }
        match self.eval(&expression) {
            Value::Method(method) => self.named(&method, Args { list: values, ..Args::default() }, at),
            _ if expression.as_local_variable_read_node().is_some() && self.block.is_some() => {
                self.run_own_block(values)
            }
            _ => Value::Unknown,
        }
    }

    fn run_own_block(&mut self, values: Vec<Value>) -> Value {
        let Some(block) = self.block.take() else { return Value::Unknown };
        let value = self.run(&block, values);
        self.block = Some(block);
        value
    }

    fn run(&mut self, block: &Node<'p>, values: Vec<Value>) -> Value {
        let Some(block) = block.as_block_node() else { return Value::Unknown };
        let bound = self.block_parameters(&block, values);
        self.frame(|reader| reader.with_bound(bound, |reader| reader.body(block.body().as_ref())))
    }

    /// A method that the file defines, with its parameters bound.
    fn helper(&mut self, method: &str, helper: &Method<'p>, args: Args, block: Option<Node<'p>>, at: usize) -> Value {
        if self.running.iter().any(|running| running == method) {
            self.dynamic(at, format!("`{method}` calls itself"));
            return Value::Unknown;
        }
        let bound = match helper {
            Method::Def(method) => match method.parameters() {
                Some(parameters) => self.parameters(&parameters, args),
                None => Bound::new(),
            },
            Method::Block(block) => self.block_parameters(block, args.list),
        };
        let mut locals: BTreeMap<String, Value> = bound.into_iter().collect();
        // Instance variables are the object's.
        let shared = self.locals.iter().filter(|(name, _)| name.starts_with('@'));
        let shared: Vec<(String, Value)> = shared.map(|(name, value)| (name.clone(), value.clone())).collect();
        self.steps += shared.iter().map(|(_, value)| value.weight()).sum::<usize>();
        locals.extend(shared);
        let before = self.conditions.len();
        let locals = std::mem::replace(&mut self.locals, locals);
        let block = std::mem::replace(&mut self.block, block.map(Rc::new));
        let frame = (std::mem::replace(&mut self.method_at, before), std::mem::replace(&mut self.block_at, before));
        let (left, returned, departure) = (self.left.take(), self.returned.take(), self.departure.take());
        self.running.push(method.to_owned());
        let value = self.body(helper.body().as_ref());
        let value = match self.returned.take() {
            Some(other) if other != value => Value::Unknown,
            _ => value,
        };
        self.running.pop();
        (self.left, self.returned, self.departure) = (left, returned, departure);
        (self.method_at, self.block_at) = frame;
        self.block = block;
        self.locals = locals;
        self.conditions.truncate(before);
        value
    }
}

/// Whether a call, or one that it hangs on, gives rows in pieces: `Post.in_batches.each`.
fn is_in_batches(call: &CallNode) -> bool {
    let is = |call: &CallNode| BATCHES.contains(&name(call.name().as_slice()).as_str());
    let mut receiver = call.receiver();
    for _ in 0..MAX_DEPTH {
        let Some(before) = receiver.as_ref().and_then(Node::as_call_node) else { break };
        if is(&before) {
            return true;
        }
        receiver = before.receiver();
    }
    is(call)
}

/// Whether a call names its method in its first argument.
fn sends(call: &CallNode) -> bool {
    matches!(call.name().as_slice(), b"send" | b"public_send" | b"__send__")
}

/// A hash as its pairs.
fn as_lists(pairs: Vec<(Value, Value)>) -> Vec<Value> {
    pairs.into_iter().map(|(key, value)| Value::List(vec![key, value])).collect()
}

fn item_of(list: &Value, index: usize) -> Value {
    match list {
        Value::List(items) => items.get(index).cloned().unwrap_or(Value::Nil),
        _ => Value::Unknown,
    }
}

/// What a connection makes of a name or a value for SQL.
fn quoted(method: &str, args: &Args, engine: Engine) -> Option<Value> {
    let text = match (method, args.list.first()) {
        ("quoted_true", None) => "TRUE".to_owned(),
        ("quoted_false", None) => "FALSE".to_owned(),
        ("quote_table_name" | "quote_column_name", Some(_)) => in_quotes(&args.text(0)?, engine),
        ("quote", Some(Value::Int(number))) => number.to_string(),
        ("quote", Some(_)) => format!("'{}'", args.text(0)?.replace('\'', "''")),
        _ => return None,
    };
    Some(Value::Text(text))
}

fn in_quotes(name: &str, engine: Engine) -> String {
    let quote = if engine == Engine::Mysql { '`' } else { '"' };
    name.split('.').map(|part| format!("{quote}{part}{quote}")).collect::<Vec<_>>().join(".")
}

/// A class that models derive from.
fn is_record(class: &str) -> bool {
    let last = class.rsplit("::").next().unwrap_or(class);
    last == "Base" || last.ends_with("Record")
}

/// A class of Ruby's own, from which no model derives.
fn is_plain(class: &str) -> bool {
    let last = class.rsplit("::").next().unwrap_or(class);
    matches!(last, "Struct" | "Object" | "BasicObject" | "Module")
        || last.ends_with("Error")
        || last.ends_with("Exception")
}

/// `ENV["RAILS_ENV"]` is known where all is production.
fn of_environment(args: &Args) -> Value {
    match args.text(0).as_deref() {
        Some("RAILS_ENV" | "RACK_ENV") => Value::Environment,
        _ => Value::Unknown,
    }
}

/// What a method without arguments gives.
fn plain(value: Value, method: &str, engine: Engine) -> Value {
    let args = Args::default();
    if let Some(told) = answer(&value, method, &args, engine) {
        return told;
    }
    match (value, method) {
        (value, "freeze" | "dup" | "to_a" | "to_h" | "presence" | "itself") => value,
        (Value::Text(text), _) => of_text(&text, method, &args),
        (Value::Int(number), "to_s") => Value::Text(number.to_string()),
        (Value::List(list), _) => of_list(list, method, &args),
        (Value::Map(pairs), _) => of_map(pairs, method, &args),
        _ => Value::Unknown,
    }
}

impl Args {
    fn take_options(&mut self, value: Value) {
        match value {
            Value::Map(pairs) => {
                for (key, value) in pairs {
                    match key.text() {
                        Some(key) => self.options.push((key, value)),
                        None => self.open = true,
                    }
                }
            }
            _ => self.open = true,
        }
    }
}

fn variable_name(node: &Node) -> Option<String> {
    let local = node.as_local_variable_read_node().map(|read| name(read.name().as_slice()));
    local.or_else(|| Some(name(node.as_instance_variable_read_node()?.name().as_slice())))
}

/// The variable that `||=`, `&&=`, `@a +=` or `a[:b] ||=` changes.
fn changed_variable(node: &Node) -> Option<String> {
    if let Some(write) = node.as_local_variable_or_write_node() {
        return Some(name(write.name().as_slice()));
    }
    if let Some(write) = node.as_local_variable_and_write_node() {
        return Some(name(write.name().as_slice()));
    }
    if let Some(write) = node.as_instance_variable_or_write_node() {
        return Some(name(write.name().as_slice()));
    }
    if let Some(write) = node.as_instance_variable_operator_write_node() {
        return Some(name(write.name().as_slice()));
    }
    if let Some(write) = node.as_index_or_write_node() {
        return variable_name(&write.receiver()?);
    }
    variable_name(&node.as_index_operator_write_node()?.receiver()?)
}

fn literal_text(body: Option<&Node>) -> Option<String> {
    let list = body?.as_statements_node()?.body();
    let only = list.first().filter(|_| list.len() == 1)?;
    Some(name(only.as_string_node()?.unescaped()))
}

fn block_text(call: &CallNode) -> Option<String> {
    literal_text(call.block()?.as_block_node()?.body().as_ref())
}
