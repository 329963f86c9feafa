//! The models of the deployed commit: which tables they stand for, and which columns they have been told to ignore.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use ruby_prism::{CallNode, ClassNode, ModuleNode, Node, StatementsNode, Visit};

use super::inflect;
use super::schema::MAX_RUBY;

/// What is known of a column in the running code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Use {
    /// No model stands for the table.
    NoModel,
    /// Every model of the table ignores it.
    Ignored,
    /// This model, in this file, ignores columns by means that cannot be read.
    Unclear { model: String, path: PathBuf },
    /// This model, in this file, knows it.
    Used { model: String, path: PathBuf },
}

/// A class or a module, as far as it is written out.
#[derive(Debug, Default, Clone)]
struct Body {
    path: PathBuf,
    parent: Option<String>,
    table: Option<String>,
    prefix: Option<String>,
    is_abstract: bool,
    ignored: BTreeSet<String>,
    /// `self.ignored_columns =` with something that cannot be read.
    unclear: bool,
    enums: BTreeSet<String>,
    included: Vec<String>,
    joins: Vec<String>,
}

#[derive(Debug, Default)]
pub struct Models {
    /// By full name.
    bodies: BTreeMap<String, Body>,
    /// The classes that stand for each table.
    tables: BTreeMap<String, Vec<String>>,
}

impl Models {
    pub fn of(files: &[(PathBuf, Vec<u8>)]) -> Self {
        let mut models = Self::default();
        for (path, text) in files.iter().filter(|(_, text)| text.len() <= MAX_RUBY) {
            let parsed = ruby_prism::parse(text);
            Collector { models: &mut models, path, scope: Vec::new() }.visit(&parsed.node());
        }
        let names: Vec<String> = models.bodies.keys().cloned().collect();
        for name in names {
            for table in models.tables_of(&name) {
                models.tables.entry(table).or_default().push(name.clone());
            }
        }
        models
    }

    pub fn knows_table(&self, table: &str) -> bool {
        self.tables.contains_key(table)
    }

    /// The class that stands for a table, and its file.
    pub fn model_of(&self, table: &str) -> Option<(&str, &Path)> {
        let name = self.tables.get(table)?.first()?;
        Some((name, self.bodies.get(name)?.path.as_path()))
    }

    /// Whether the running code knows this column.
    pub fn uses(&self, table: &str, column: &str) -> Use {
        let Some(names) = self.tables.get(table) else { return Use::NoModel };
        let mut unclear = None;
        for name in names {
            let Some(body) = self.bodies.get(name) else { continue };
            let (ignored, in_doubt) = self.ignores(name, column);
            let (model, path) = (name.clone(), body.path.clone());
            match (ignored, in_doubt) {
                (true, _) => {}
                (false, true) => unclear = Some(Use::Unclear { model, path }),
                (false, false) => return Use::Used { model, path },
            }
        }
        unclear.unwrap_or(Use::Ignored)
    }

    /// Whether a model of the table has an enum on this column.
    pub fn has_enum(&self, table: &str, column: &str) -> bool {
        let names = self.tables.get(table);
        names.into_iter().flatten().flat_map(|name| self.family(name)).any(|body| body.enums.contains(column))
    }

    fn ignores(&self, name: &str, column: &str) -> (bool, bool) {
        let family = self.family(name);
        (family.iter().any(|body| body.ignored.contains(column)), family.iter().any(|body| body.unclear))
    }

    /// A class, its ancestors and all that they include.
    fn family(&self, name: &str) -> Vec<&Body> {
        let (mut family, mut waiting, mut seen) = (Vec::new(), vec![name.to_owned()], BTreeSet::new());
        while let Some(name) = waiting.pop() {
            let Some((full, body)) = self.find(&name, "") else { continue };
            if seen.insert(full.to_owned()) {
                let resolved = body.parent.iter().chain(&body.included);
                waiting.extend(resolved.filter_map(|other| Some(self.find(other, full)?.0.to_owned())));
                family.push(body);
            }
        }
        family
    }

    /// A constant as Ruby finds it from inside `scope`.
    fn find(&self, name: &str, scope: &str) -> Option<(&str, &Body)> {
        let mut scope = scope;
        loop {
            let full = if scope.is_empty() { name.to_owned() } else { format!("{scope}::{name}") };
            if let Some((full, body)) = self.bodies.get_key_value(&full) {
                return Some((full, body));
            }
            if scope.is_empty() {
                return None;
            }
            scope = scope.rsplit_once("::").map_or("", |(outer, _)| outer);
        }
    }

    /// The table of a class, as Rails computes it, and the tables of its joins.
    fn tables_of(&self, name: &str) -> Vec<String> {
        let mut tables: Vec<String> = self.table_of(name, 0).into_iter().collect();
        let Some(body) = self.bodies.get(name) else { return tables };
        let own = tables.first().cloned();
        tables.extend(own.iter().flat_map(|own| {
            body.joins.iter().map(|join| match join.strip_prefix('=') {
                Some(table) => table.to_owned(),
                None => inflect::join_table(own, join),
            })
        }));
        tables
    }

    fn table_of(&self, name: &str, depth: usize) -> Option<String> {
        let body = self.bodies.get(name).filter(|_| depth < 20)?;
        if let Some(table) = &body.table {
            return Some(super::dsl::bare(table));
        }
        let parent = body.parent.as_deref()?;
        if body.is_abstract {
            return None;
        }
        // Single table inheritance: the nearest ancestor that is no abstract class has the table.
        if let Some((full, above)) = self.find(parent, name.rsplit_once("::").map_or("", |(outer, _)| outer))
            && full != name
            && !above.is_abstract
            && above.parent.is_some()
            && !is_base(full)
        {
            return self.table_of(full, depth + 1);
        }
        let (outer, last) = name.rsplit_once("::").unwrap_or(("", name));
        let undecorated = inflect::table_of(last);
        // A class within a model's class takes that one's table for a prefix.
        if let Some(around) = self.bodies.get(outer).filter(|around| around.parent.is_some() && !around.is_abstract) {
            let prefix =
                around.table.clone().unwrap_or_else(|| inflect::underscore(outer.rsplit("::").next().unwrap_or(outer)));
            return Some(format!("{prefix}_{undecorated}"));
        }
        let mut scope = outer;
        while !scope.is_empty() {
            if let Some(prefix) = self.bodies.get(scope).and_then(|body| body.prefix.as_deref()) {
                return Some(format!("{prefix}{undecorated}"));
            }
            scope = scope.rsplit_once("::").map_or("", |(outer, _)| outer);
        }
        Some(undecorated)
    }
}

/// What applications call their abstract classes, where the file does not say so.
fn is_base(name: &str) -> bool {
    let last = name.rsplit("::").next().unwrap_or(name);
    matches!(last, "ApplicationRecord" | "Base")
}

struct Collector<'m> {
    models: &'m mut Models,
    path: &'m Path,
    scope: Vec<String>,
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim_start_matches("::").to_owned()
}

impl Collector<'_> {
    fn body(&mut self) -> &mut Body {
        let name = self.scope.join("::");
        let path = self.path;
        self.models.bodies.entry(name).or_insert_with(|| Body { path: path.to_owned(), ..Body::default() })
    }

    fn statements(&mut self, list: Option<&StatementsNode>) {
        for node in list.iter().flat_map(|list| list.body().iter()) {
            if let Some(call) = node.as_call_node() {
                self.call(&call);
            } else if let Some(write) = node.as_call_operator_write_node() {
                if write.read_name().as_slice() == b"ignored_columns" {
                    self.ignore(Some(&write.value()));
                }
            } else if let Some(method) = node.as_def_node() {
                self.prefix_method(&method);
            } else {
                self.visit(&node);
            }
        }
    }

    /// `def self.table_name_prefix` and its kin, where they give a literal.
    fn prefix_method(&mut self, method: &ruby_prism::DefNode) {
        let Some(text) = method.body().and_then(|body| {
            let list = body.as_statements_node()?.body();
            Some(lossy(list.first()?.as_string_node()?.unescaped()))
        }) else {
            return;
        };
        match method.name().as_slice() {
            b"table_name_prefix" => self.body().prefix = Some(text),
            b"table_name" => self.body().table = Some(text),
            _ => {}
        }
    }

    fn call(&mut self, call: &CallNode) {
        let arguments = call.arguments();
        let mut arguments = arguments.iter().flat_map(|list| list.arguments().iter());
        match call.name().as_slice() {
            b"table_name=" | b"set_table_name" => {
                let table = arguments.next().as_ref().and_then(literal);
                if table.is_some() {
                    self.body().table = table;
                }
            }
            b"table_name_prefix=" => self.body().prefix = arguments.next().as_ref().and_then(literal),
            b"abstract_class=" | b"primary_abstract_class" => self.body().is_abstract = true,
            b"ignored_columns=" => self.ignore(arguments.next().as_ref()),
            b"ignore_column" | b"ignore_columns" => {
                let mut columns: Vec<String> = Vec::new();
                for argument in arguments.filter(|node| node.as_keyword_hash_node().is_none()) {
                    match literals(&argument) {
                        Some(more) => columns.extend(more),
                        None => self.body().unclear = true,
                    }
                }
                self.body().ignored.extend(columns);
            }
            b"include" | b"extend" | b"prepend" if call.receiver().is_none() => {
                let names: Vec<String> = arguments.map(|node| lossy(node.location().as_slice())).collect();
                self.body().included.extend(names);
            }
            b"enum" => self.enums(arguments.next()),
            b"has_and_belongs_to_many" => {
                let name = arguments.next().as_ref().and_then(literal);
                let table = arguments.next().and_then(|options| option(&options, "join_table"));
                let join = table.map(|table| format!("={table}")).or(name);
                self.body().joins.extend(join);
            }
            // `included do`, `class_methods do`, `with_options do`.
            _ => {
                if let Some(block) = call.block().and_then(|block| block.as_block_node()) {
                    self.statements(block.body().and_then(|body| body.as_statements_node()).as_ref());
                }
            }
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
}

impl<'p> Visit<'p> for Collector<'_> {
    fn visit_class_node(&mut self, node: &ClassNode<'p>) {
        self.scope.push(lossy(node.constant_path().location().as_slice()));
        let parent = node.superclass().map(|parent| lossy(parent.location().as_slice()));
        let body = self.body();
        body.parent = parent.or(body.parent.take());
        self.statements(node.body().and_then(|body| body.as_statements_node()).as_ref());
        self.scope.pop();
    }

    fn visit_module_node(&mut self, node: &ModuleNode<'p>) {
        self.scope.push(lossy(node.constant_path().location().as_slice()));
        self.body();
        self.statements(node.body().and_then(|body| body.as_statements_node()).as_ref());
        self.scope.pop();
    }

    // What is inside of methods runs later, if at all.
    fn visit_def_node(&mut self, _: &ruby_prism::DefNode<'p>) {}
}

fn literal(node: &Node) -> Option<String> {
    if let Some(text) = node.as_string_node() {
        return Some(String::from_utf8_lossy(text.unescaped()).into_owned());
    }
    node.as_symbol_node().map(|symbol| String::from_utf8_lossy(symbol.unescaped()).into_owned())
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
    if let Some(parentheses) = node.as_parentheses_node() {
        let list = parentheses.body()?.as_statements_node()?.body();
        return literals(&list.first().filter(|_| list.len() == 1)?);
    }
    let call = node.as_call_node()?;
    let receiver = call.receiver()?;
    match call.name().as_slice() {
        b"+" | b"|" => {
            let more = literals(&call.arguments()?.arguments().first()?)?;
            // `super + [..]`, `ignored_columns + [..]`: what was ignored before stays so.
            let before = if ours(&receiver) { Vec::new() } else { literals(&receiver)? };
            Some(before.into_iter().chain(more).collect())
        }
        b"freeze" | b"map" | b"uniq" | b"to_a" => literals(&receiver),
        _ => None,
    }
}

fn ours(node: &Node) -> bool {
    node.as_forwarding_super_node().is_some()
        || node.as_super_node().is_some()
        || node.as_call_node().is_some_and(|call| call.name().as_slice() == b"ignored_columns")
}

fn option(node: &Node, name: &str) -> Option<String> {
    let pairs = node.as_keyword_hash_node()?.elements();
    let pair = pairs.iter().find_map(|pair| {
        let pair = pair.as_assoc_node()?;
        (literal(&pair.key())? == name).then_some(pair)
    })?;
    literal(&pair.value())
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::{Models, Use};

    fn models(files: &[&str]) -> Models {
        let files: Vec<(PathBuf, Vec<u8>)> =
            files.iter().map(|text| (PathBuf::from("app/models/a.rb"), text.as_bytes().to_vec())).collect();
        Models::of(&files)
    }

    fn used(models: &Models, table: &str, column: &str) -> &'static str {
        match models.uses(table, column) {
            Use::NoModel => "no model",
            Use::Ignored => "ignored",
            Use::Unclear { .. } => "unclear",
            Use::Used { .. } => "used",
        }
    }

    #[test]
    fn columns_are_used_or_ignored() {
        let base = "class ApplicationRecord < ActiveRecord::Base\n  self.abstract_class = true\nend";
        for (text, table, expected) in [
            ("class Post < ApplicationRecord\nend", "posts", "used"),
            ("class Post < ApplicationRecord\nend", "users", "no model"),
            ("class Post < ApplicationRecord\n  self.ignored_columns = %w[x]\nend", "posts", "ignored"),
            ("class Post < ApplicationRecord\n  self.ignored_columns += [:x]\nend", "posts", "ignored"),
            ("class Post < ApplicationRecord\n  self.ignored_columns += %i[a b]\nend", "posts", "used"),
            ("class Post < ApplicationRecord\n  self.ignored_columns = super + ['x'].freeze\nend", "posts", "ignored"),
            ("class Post < ApplicationRecord\n  self.ignored_columns = OLD\nend", "posts", "unclear"),
            ("class Post < ApplicationRecord\n  ignore_column :x, remove_with: '1'\nend", "posts", "ignored"),
            ("class Post < ApplicationRecord\n  self.table_name = 'texts'\nend", "texts", "used"),
            ("class Post < ApplicationRecord\n  self.table_name = 'texts'\nend", "posts", "no model"),
            ("class Note < Post\nend\nclass Post < ApplicationRecord\nend", "notes", "no model"),
            (
                "class Note < Post\nend\nclass Post < ApplicationRecord\n  self.ignored_columns = [:x]\nend",
                "posts",
                "ignored",
            ),
            (
                "module Old\n  included do\n    self.ignored_columns += [:x]\n  end\nend\nclass Post < ApplicationRecord\n  include Old\nend",
                "posts",
                "ignored",
            ),
            (
                "module Admin\n  def self.table_name_prefix\n    'admin_'\n  end\nend\nclass Admin::User < ApplicationRecord\nend",
                "admin_users",
                "used",
            ),
            ("module Admin\n  class User < ApplicationRecord\n  end\nend", "users", "used"),
            ("class Bill < ApplicationRecord\n  class Line < ApplicationRecord\n  end\nend", "bill_lines", "used"),
            ("class Post < ApplicationRecord\n  has_and_belongs_to_many :tags\nend", "posts_tags", "used"),
            ("class PostForm\nend", "post_forms", "no model"),
            ("class Post < Spree::Base\nend", "posts", "used"),
        ] {
            assert_eq!(used(&models(&[base, text]), table, "x"), expected, "{text}");
        }
    }

    #[test]
    fn enums_are_seen() {
        for text in ["enum status: { draft: 0 }, _prefix: true", "enum :status, [:draft]", "enum :status, draft: 0"] {
            let models = models(&[&format!("class Post < ApplicationRecord\n  {text}\nend")]);
            assert!(models.has_enum("posts", "status") && !models.has_enum("posts", "title"), "{text}");
        }
    }
}
