//! Finds the class of a migration and its methods, before anything of it is read.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use ruby_prism::{
    AliasMethodNode, BlockNode, CallNode, ClassNode, ConstantOrWriteNode, ConstantWriteNode, DefNode, ModuleNode, Node,
    Visit,
};

use super::dsl;
use super::value::Args;

pub fn name(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

pub fn offset(location: &ruby_prism::Location) -> usize {
    usize::try_from(location.start()).unwrap_or_default()
}

/// A method, whichever way it is defined.
pub enum Method<'p> {
    Def(DefNode<'p>),
    /// `define_method(:up) { ... }`.
    Block(BlockNode<'p>),
}

impl<'p> Method<'p> {
    pub fn body(&self) -> Option<Node<'p>> {
        match self {
            Self::Def(method) => method.body(),
            Self::Block(block) => block.body(),
        }
    }
}

/// The migration's class, or classes, and their methods.
#[derive(Default)]
pub struct Finder<'p> {
    pub classes: Vec<ClassNode<'p>>,
    pub methods: BTreeMap<String, Rc<Method<'p>>>,
    /// Methods of the file's modules, which a class may include, and of the file itself.
    helpers: BTreeMap<String, Rc<Method<'p>>>,
    pub modules: BTreeSet<String>,
    /// Constants and classes around the migration's.
    pub around: Vec<Node<'p>>,
    /// What changes methods in a way that cannot be read: where, and why.
    pub unclear: Vec<(usize, String)>,
    pub modern: bool,
    /// Where the class begins that names `ActiveRecord::Migration`, and the version in its brackets.
    pub version: Option<(usize, Option<(u32, u32)>)>,
    pub outside_transaction: bool,
    depth: usize,
}

impl<'p> Finder<'p> {
    pub fn of(root: &Node<'p>) -> Self {
        let mut finder = Self::default();
        finder.visit(root);
        for (name, method) in std::mem::take(&mut finder.helpers) {
            finder.methods.entry(name).or_insert(method);
        }
        finder
    }

    fn alias(&mut self, new: Option<String>, old: Option<String>, at: usize) {
        let method = old.and_then(|old| self.methods.get(&old).cloned());
        match (new, method) {
            (Some(new), Some(method)) => {
                self.methods.insert(new, method);
            }
            (new, _) => {
                let new = new.unwrap_or_else(|| "a method".to_owned());
                self.unclear.push((at, format!("`{new}` is another name of what is not in this file")));
            }
        }
    }

    fn define(&mut self, call: &CallNode<'p>) {
        let block = call.block().and_then(|block| block.as_block_node());
        match (argument(call, 0), block) {
            (Some(name), Some(block)) => {
                self.methods.insert(name, Rc::new(Method::Block(block)));
            }
            _ => self.unclear.push((offset(&call.location()), "a method is defined by code".to_owned())),
        }
    }
}

impl<'p> Visit<'p> for Finder<'p> {
    fn visit_class_node(&mut self, node: &ClassNode<'p>) {
        let parent = node.superclass().map(|parent| name(parent.location().as_slice())).unwrap_or_default();
        let migrates = parent.contains("Migration") || (self.depth == 0 && defines_migration(node));
        if migrates {
            // Without a version it is of Rails 4 or older, whose defaults those of `[4.2]` are.
            let version = parent.split_once('[').and_then(|(_, rest)| rest.split_once(']')).map(|(version, _)| version);
            let numbers = version.and_then(numbers);
            let major = numbers.map(|(major, _)| major);
            let is_rails_own = parent.trim_start_matches("::").starts_with("ActiveRecord::Migration");
            if is_rails_own && version.is_some() == numbers.is_some() {
                self.version = self.version.or(Some((offset(&node.location()), numbers)));
            }
            self.modern = !parent.starts_with("ActiveRecord::Migration") && !parent.starts_with("::ActiveRecord")
                || major.is_some_and(|major| major >= 5);
            if let Some(body) = node.body() {
                let mut methods = Methods { finder: self };
                methods.visit(&body);
            }
            if let Some(class) = node.as_node().as_class_node() {
                self.classes.push(class);
            }
            return;
        }
        self.around.push(node.as_node());
        self.depth += 1;
        ruby_prism::visit_class_node(self, node);
        self.depth -= 1;
    }

    fn visit_module_node(&mut self, node: &ModuleNode<'p>) {
        self.modules.insert(name(node.name().as_slice()));
        ruby_prism::visit_module_node(self, node);
    }

    fn visit_def_node(&mut self, node: &DefNode<'p>) {
        if self.depth == 0
            && let Some(method) = node.as_node().as_def_node()
        {
            self.helpers.insert(name(node.name().as_slice()), Rc::new(Method::Def(method)));
        }
    }

    fn visit_constant_write_node(&mut self, node: &ConstantWriteNode<'p>) {
        self.around.push(node.as_node());
    }

    fn visit_constant_or_write_node(&mut self, node: &ConstantOrWriteNode<'p>) {
        self.around.push(node.as_node());
    }
}

/// `7.1`.
pub fn numbers(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.trim().split('.').map(|part| part.trim().parse().ok());
    Some((parts.next()??, parts.next().flatten().unwrap_or(0)))
}

/// The text or the symbol that a call is given.
fn argument(call: &CallNode, index: usize) -> Option<String> {
    literal(&call.arguments()?.arguments().iter().nth(index)?)
}

fn literal(node: &Node) -> Option<String> {
    let text = node.as_symbol_node().map(|symbol| name(symbol.unescaped()));
    text.or_else(|| Some(name(node.as_string_node()?.unescaped())))
}

fn defines_migration(class: &ClassNode) -> bool {
    let statements = class.body().and_then(|body| body.as_statements_node());
    statements.is_some_and(|body| {
        body.body()
            .iter()
            .any(|node| node.as_def_node().is_some_and(|method| matches!(method.name().as_slice(), b"up" | b"change")))
    })
}

/// The methods of one class, without those of classes inside.
struct Methods<'f, 'p> {
    finder: &'f mut Finder<'p>,
}

impl<'p> Visit<'p> for Methods<'_, 'p> {
    fn visit_class_node(&mut self, _: &ClassNode<'p>) {}

    fn visit_module_node(&mut self, node: &ModuleNode<'p>) {
        self.finder.visit_module_node(node);
    }

    fn visit_def_node(&mut self, node: &DefNode<'p>) {
        let name = name(node.name().as_slice());
        if matches!(name.as_str(), "migrate" | "exec_migration") {
            self.finder.unclear.push((offset(&node.location()), format!("`{name}` of Rails is replaced")));
        }
        if let Some(method) = node.as_node().as_def_node() {
            self.finder.methods.insert(name, Rc::new(Method::Def(method)));
        }
    }

    fn visit_alias_method_node(&mut self, node: &AliasMethodNode<'p>) {
        self.finder.alias(literal(&node.new_name()), literal(&node.old_name()), offset(&node.location()));
    }

    fn visit_call_node(&mut self, node: &CallNode<'p>) {
        match (node.receiver().is_none(), node.name().as_slice()) {
            (true, b"disable_ddl_transaction!") => self.finder.outside_transaction = true,
            (true, b"alias_method") => {
                self.finder.alias(argument(node, 0), argument(node, 1), offset(&node.location()));
            }
            (true, b"define_method") => self.finder.define(node),
            _ => {}
        }
        ruby_prism::visit_call_node(self, node);
    }
}

/// Whether anything below a node is a word of Rails' migrations.
#[derive(Default)]
pub struct Words {
    pub found: bool,
}

impl<'p> Visit<'p> for Words {
    fn visit_call_node(&mut self, node: &CallNode<'p>) {
        let name = String::from_utf8_lossy(node.name().as_slice());
        self.found |= matches!(&*name, "execute" | "send" | "public_send" | "eval" | "instance_eval")
            || dsl::deeds(&name, &Args::default(), true).is_some();
        ruby_prism::visit_call_node(self, node);
    }
}
