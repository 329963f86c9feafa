//! The classes and modules of the deployed commit, as far as they are written out: what each says of its table and its columns.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use ruby_prism::{CallNode, ClassNode, DefNode, ModuleNode, Node, StatementsNode, Visit};

use super::inflect;

/// The class that all models come from. It has a body only where the application sets something on it.
pub const ROOT: &str = "ActiveRecord::Base";

/// A part of a name that is put together when the application runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    Text(String),
    /// `table_name_prefix`
    Prefix,
    /// `table_name_suffix`
    Suffix,
    Unreadable,
}

/// A class or a module: what all its files say of it.
#[derive(Debug, Default, Clone)]
pub struct Body {
    pub path: PathBuf,
    /// As it is written, and the module around it in which Ruby looks for it first.
    pub parent: Option<(String, String)>,
    pub table: Option<Vec<Piece>>,
    pub prefix: Option<Vec<Piece>>,
    pub suffix: Option<Vec<Piece>>,
    /// `pluralize_table_names = false`
    pub is_singular: bool,
    pub is_abstract: bool,
    pub ignored: BTreeSet<String>,
    /// Columns are ignored under a condition, or by means that cannot be read.
    pub unclear: bool,
    pub enums: BTreeSet<String>,
    pub included: Vec<String>,
    /// `has_and_belongs_to_many`; a table that is named begins with `=`.
    pub joins: Vec<String>,
}

/// By full name.
pub type Bodies = BTreeMap<String, Body>;

/// Adds what a file holds.
pub fn collect(bodies: &mut Bodies, path: &Path, text: &[u8]) {
    let parsed = ruby_prism::parse(text);
    Collector { bodies, path, scope: Vec::new(), of_class: false }.visit(&parsed.node());
}

struct Collector<'m> {
    bodies: &'m mut Bodies,
    path: &'m Path,
    scope: Vec<String>,
    /// Within `class << self` or `class_methods do`: a method is one of the class without saying so.
    of_class: bool,
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A constant as it is written: `Post`, `::Blog::Post`.
fn constant(node: &Node) -> Option<String> {
    let is_constant = node.as_constant_read_node().is_some() || node.as_constant_path_node().is_some();
    is_constant.then(|| lossy(node.location().as_slice()))
}

impl Collector<'_> {
    fn body(&mut self) -> &mut Body {
        let name = self.scope.join("::");
        let path = self.path;
        self.bodies.entry(name).or_insert_with(|| Body { path: path.to_owned(), ..Body::default() })
    }

    /// What is said of another class, from outside of it.
    fn within<T>(&mut self, name: &str, work: impl FnOnce(&mut Self) -> T) -> T {
        let scope = std::mem::replace(&mut self.scope, vec![name.trim_start_matches("::").to_owned()]);
        let result = work(self);
        self.scope = scope;
        result
    }

    fn statements(&mut self, list: Option<&StatementsNode>) {
        for node in list.iter().flat_map(|list| list.body().iter()) {
            if let Some(call) = node.as_call_node() {
                self.call(&call);
            } else if let Some(write) = node.as_call_operator_write_node() {
                self.add(&write);
            } else if let Some(method) = node.as_def_node() {
                self.method(&method);
            } else if let Some(class) = node.as_singleton_class_node() {
                self.class_methods(class.body().and_then(|body| body.as_statements_node()).as_ref());
            } else {
                self.visit(&node);
            }
        }
    }

    fn class_methods(&mut self, list: Option<&StatementsNode>) {
        let before = std::mem::replace(&mut self.of_class, true);
        self.statements(list);
        self.of_class = before;
    }

    /// `self.ignored_columns += [..]`, `Post.ignored_columns += [..]`.
    fn add(&mut self, write: &ruby_prism::CallOperatorWriteNode) {
        if write.read_name().as_slice() == b"ignored_columns" {
            let value = write.value();
            self.said_of(write.receiver().as_ref(), |own| own.ignore(Some(&value)));
        }
    }

    /// Does what is said of a constant where that is the receiver.
    fn said_of<T>(&mut self, receiver: Option<&Node>, work: impl FnOnce(&mut Self) -> T) -> T {
        match receiver.and_then(constant) {
            Some(name) => self.within(&name, work),
            None => work(self),
        }
    }

    /// Methods that take the place of what Active Record would compute.
    fn method(&mut self, method: &DefNode) {
        let list = method.body().and_then(|body| body.as_statements_node());
        let only = list.as_ref().and_then(|list| list.body().last().filter(|_| list.body().len() == 1));
        let text = || Some(only.as_ref().map_or_else(|| vec![Piece::Unreadable], pieces));
        let in_module = self.scope.last().is_some_and(|name| name == "ClassMethods");
        if method.receiver().is_none() && !self.of_class && !in_module {
            return;
        }
        match method.name().as_slice() {
            // `base.ignored_columns += [..]` is said of whoever includes the module.
            b"included" | b"prepended" | b"extended" => self.statements(list.as_ref()),
            b"table_name_prefix" => self.body().prefix = text(),
            b"table_name_suffix" => self.body().suffix = text(),
            b"table_name" => self.body().table = text(),
            b"ignored_columns" => self.ignore(only.as_ref()),
            b"columns" | b"columns_hash" | b"load_schema!" | b"column_names" => {
                match only.as_ref().and_then(rejected) {
                    Some(columns) if method.name().as_slice() == b"columns" => self.body().ignored.extend(columns),
                    _ => self.body().unclear = true,
                }
            }
            _ => {}
        }
    }

    fn call(&mut self, call: &CallNode) {
        let arguments = call.arguments();
        let mut arguments = arguments.iter().flat_map(|list| list.arguments().iter());
        let block = call.block().and_then(|block| block.as_block_node());
        let block = block.and_then(|block| block.body()).and_then(|body| body.as_statements_node());
        match call.name().as_slice() {
            b"table_name=" | b"set_table_name" => {
                let table = arguments.next().as_ref().map(pieces);
                self.said_of(call.receiver().as_ref(), |own| own.body().table = table);
            }
            b"table_name_prefix=" => {
                let prefix = arguments.next().as_ref().map(pieces);
                self.setting(call, |body| body.prefix = prefix);
            }
            b"table_name_suffix=" => {
                let suffix = arguments.next().as_ref().map(pieces);
                self.setting(call, |body| body.suffix = suffix);
            }
            b"pluralize_table_names=" => {
                let is_singular = arguments.next().is_some_and(|value| value.as_false_node().is_some());
                self.setting(call, |body| body.is_singular = is_singular);
            }
            b"abstract_class=" | b"primary_abstract_class" => self.body().is_abstract = true,
            b"ignored_columns=" => {
                let value = arguments.next();
                self.said_of(call.receiver().as_ref(), |own| own.ignore(value.as_ref()));
            }
            b"ignore_column" | b"ignore_columns" => {
                for argument in arguments.filter(|node| node.as_keyword_hash_node().is_none()) {
                    self.ignore(Some(&argument));
                }
            }
            // Rails gives such a module a prefix.
            b"isolate_namespace" => {
                if let Some(name) = arguments.next().as_ref().and_then(constant) {
                    let prefix = Piece::Text(format!("{}_", inflect::underscore(&name).replace("::", "_")));
                    self.within(&name, |own| own.body().prefix.get_or_insert(vec![prefix]).len());
                }
            }
            b"include" | b"extend" | b"prepend" => {
                let names: Vec<String> = arguments.filter_map(|node| constant(&node)).collect();
                self.said_of(call.receiver().as_ref(), |own| own.body().included.extend(names));
            }
            b"enum" => self.enums(arguments.next()),
            b"has_and_belongs_to_many" => {
                let name = arguments.next().as_ref().and_then(literal);
                let table = arguments.next().and_then(|options| option(&options, "join_table"));
                let join = table.map(|table| format!("={table}")).or(name);
                self.body().joins.extend(join);
            }
            b"class_eval" | b"class_exec" | b"instance_eval" => {
                self.said_of(call.receiver().as_ref(), |own| own.statements(block.as_ref()));
            }
            b"class_methods" => self.class_methods(block.as_ref()),
            // `included do`, `with_options do`.
            _ => self.statements(block.as_ref()),
        }
    }

    /// What is set on a class, or by `config.active_record` on all of them.
    fn setting(&mut self, call: &CallNode, set: impl FnOnce(&mut Body)) {
        let receiver = call.receiver();
        let of_all = |node: &Node| node.as_call_node().is_some_and(|call| call.name().as_slice() == b"active_record");
        if receiver.as_ref().is_some_and(of_all) {
            self.within(ROOT, |own| set(own.body()));
        } else {
            self.said_of(receiver.as_ref(), |own| set(own.body()));
        }
    }

    fn ignore(&mut self, value: Option<&Node>) {
        match value.and_then(literals) {
            Some(columns) => self.body().ignored.extend(columns),
            None => self.body().unclear = true,
        }
    }

    /// `enum :status, [..]` and `enum status: {..}, kind: [..]`.
    fn enums(&mut self, first: Option<Node>) {
        let Some(first) = first else { return };
        if let Some(name) = literal(&first) {
            self.body().enums.insert(name);
        } else if let Some(hash) = first.as_keyword_hash_node() {
            let keys = hash.elements().iter().filter_map(|pair| literal(&pair.as_assoc_node()?.key()));
            let keys: Vec<String> = keys.filter(|key| !key.starts_with('_')).collect();
            self.body().enums.extend(keys);
        }
    }

    fn class(&mut self, name: &str, parent: Option<String>, list: Option<&StatementsNode>) {
        let around = self.scope.join("::");
        let (scope, of_class) = (self.scope.clone(), std::mem::replace(&mut self.of_class, false));
        match name.strip_prefix("::") {
            Some(absolute) => self.scope = vec![absolute.to_owned()],
            None => self.scope.push(name.to_owned()),
        }
        let body = self.body();
        body.parent = parent.map(|parent| (parent, around)).or(body.parent.take());
        self.statements(list);
        (self.scope, self.of_class) = (scope, of_class);
    }
}

impl<'p> Visit<'p> for Collector<'_> {
    fn visit_class_node(&mut self, node: &ClassNode<'p>) {
        // `Struct.new(:a)` is no model, and what another method makes is not known.
        let parent = node.superclass().as_ref().and_then(constant);
        let list = node.body().and_then(|body| body.as_statements_node());
        self.class(&lossy(node.constant_path().location().as_slice()), parent, list.as_ref());
    }

    fn visit_module_node(&mut self, node: &ModuleNode<'p>) {
        let list = node.body().and_then(|body| body.as_statements_node());
        self.class(&lossy(node.constant_path().location().as_slice()), None, list.as_ref());
    }

    /// `Post = Class.new(ApplicationRecord) do`.
    fn visit_constant_write_node(&mut self, node: &ruby_prism::ConstantWriteNode<'p>) {
        let value = node.value();
        let is_class = |call: &CallNode| {
            let receiver = call.receiver().as_ref().and_then(constant);
            call.name().as_slice() == b"new" && receiver.is_some_and(|name| name.trim_start_matches(':') == "Class")
        };
        let Some(call) = value.as_call_node().filter(is_class) else { return };
        let parent = call.arguments().and_then(|list| list.arguments().first()).as_ref().and_then(constant);
        let block = call.block().and_then(|block| block.as_block_node()?.body()?.as_statements_node());
        self.class(&lossy(node.name().as_slice()), parent, block.as_ref());
    }

    // At the top of a file.
    fn visit_program_node(&mut self, node: &ruby_prism::ProgramNode<'p>) {
        self.statements(Some(&node.statements()));
    }

    // What is reached from here on stands under a condition.
    fn visit_call_node(&mut self, call: &CallNode<'p>) {
        match call.name().as_slice() {
            b"ignored_columns=" | b"ignore_column" | b"ignore_columns" => {
                self.said_of(call.receiver().as_ref(), |own| own.body().unclear = true);
            }
            b"table_name=" => {
                self.said_of(call.receiver().as_ref(), |own| own.body().table = Some(vec![Piece::Unreadable]));
            }
            b"table_name_prefix=" => self.setting(call, |body| body.prefix = Some(vec![Piece::Unreadable])),
            b"table_name_suffix=" => self.setting(call, |body| body.suffix = Some(vec![Piece::Unreadable])),
            b"abstract_class=" => self.body().is_abstract = true,
            _ => ruby_prism::visit_call_node(self, call),
        }
    }

    fn visit_call_operator_write_node(&mut self, write: &ruby_prism::CallOperatorWriteNode<'p>) {
        if write.read_name().as_slice() == b"ignored_columns" {
            self.said_of(write.receiver().as_ref(), |own| own.body().unclear = true);
        }
    }

    // What is inside of methods runs later, if at all.
    fn visit_def_node(&mut self, _: &DefNode<'p>) {}
}

fn literal(node: &Node) -> Option<String> {
    if let Some(text) = node.as_string_node() {
        return Some(lossy(text.unescaped()));
    }
    node.as_symbol_node().map(|symbol| lossy(symbol.unescaped()))
}

/// `"x"`, `"#{table_name_prefix}x"`.
fn pieces(node: &Node) -> Vec<Piece> {
    if let Some(text) = literal(node) {
        return vec![Piece::Text(text)];
    }
    let Some(text) = node.as_interpolated_string_node() else { return vec![Piece::Unreadable] };
    let piece = |part: Node| {
        let embedded = part.as_embedded_statements_node().and_then(|part| part.statements()?.body().first());
        let name = embedded.and_then(|node| Some(lossy(node.as_call_node()?.name().as_slice())));
        match (part.as_string_node(), name.as_deref()) {
            (Some(text), _) => Piece::Text(lossy(text.unescaped())),
            (None, Some("table_name_prefix")) => Piece::Prefix,
            (None, Some("table_name_suffix")) => Piece::Suffix,
            (None, _) => Piece::Unreadable,
        }
    };
    text.parts().iter().map(piece).collect()
}

/// A literal, or a list of literals, with what makes no other list of it (`+`, `.freeze`, `.map(&:to_s)`).
fn literals(node: &Node) -> Option<Vec<String>> {
    if let Some(one) = literal(node) {
        return Some(vec![one]);
    }
    if let Some(array) = node.as_array_node() {
        let lists: Option<Vec<Vec<String>>> = array.elements().iter().map(|element| literals(&element)).collect();
        return lists.map(|lists| lists.into_iter().flatten().collect());
    }
    if let Some(splat) = node.as_splat_node() {
        return earlier(&splat.expression()?);
    }
    if let Some(parentheses) = node.as_parentheses_node() {
        let list = parentheses.body()?.as_statements_node()?.body();
        return literals(&list.first().filter(|_| list.len() == 1)?);
    }
    let call = node.as_call_node()?;
    let receiver = call.receiver()?;
    match call.name().as_slice() {
        b"+" | b"|" | b"concat" | b"push" | b"union" | b"<<" => {
            let mut all = earlier(&receiver)?;
            for argument in call.arguments().iter().flat_map(|list| list.arguments().iter()) {
                all.extend(earlier(&argument)?);
            }
            Some(all)
        }
        b"freeze" | b"map" | b"uniq" | b"to_a" | b"dup" | b"flatten" => literals(&receiver),
        _ => None,
    }
}

/// A list; `super` and `ignored_columns` add nothing to it: what was ignored before stays so.
fn earlier(node: &Node) -> Option<Vec<String>> {
    let is_ours = node.as_forwarding_super_node().is_some()
        || node.as_super_node().is_some()
        || node.as_call_node().is_some_and(|call| call.name().as_slice() == b"ignored_columns");
    if is_ours { Some(Vec::new()) } else { literals(node) }
}

/// The columns that `super.reject { |column| column.name == "x" }` leaves out.
fn rejected(node: &Node) -> Option<Vec<String>> {
    let call = node.as_call_node().filter(|call| call.name().as_slice() == b"reject")?;
    call.receiver().filter(|receiver| receiver.as_forwarding_super_node().is_some())?;
    let list = call.block()?.as_block_node()?.body()?.as_statements_node()?.body();
    let test = list.first().filter(|_| list.len() == 1)?;
    let test = test.as_call_node()?;
    let (receiver, argument) = (test.receiver()?, test.arguments()?.arguments().first()?);
    let is_name = |node: &Node| {
        let call = node.as_call_node().filter(|call| !matches!(call.name().as_slice(), b"to_s" | b"to_sym"));
        let call = call.or_else(|| node.as_call_node()?.receiver()?.as_call_node());
        call.is_some_and(|call| call.name().as_slice() == b"name")
    };
    match test.name().as_slice() {
        b"==" if is_name(&receiver) => literals(&argument),
        b"include?" if is_name(&argument) => literals(&receiver),
        _ => None,
    }
}

fn option(node: &Node, name: &str) -> Option<String> {
    let pairs = node.as_keyword_hash_node()?.elements();
    let pair = pairs.iter().find_map(|pair| {
        let pair = pair.as_assoc_node()?;
        (literal(&pair.key())? == name).then_some(pair)
    })?;
    literal(&pair.value())
}
