//! Reads a migration: walks through its Ruby as far as its values are written in the file, and lists what it does.
//! Nothing is executed. What depends on anything outside of the file is said to be dynamic, and not guessed.

use std::collections::BTreeMap;
use std::rc::Rc;

use ruby_prism::{CallNode, ClassNode, DefNode, Node, StatementsNode, Visit};

use super::deed::{Change, Deed};
use super::value::{Args, Value};
use super::{dsl, sql};
use crate::rails::Engine;

/// As deep as calls and blocks are followed.
const MAX_DEPTH: usize = 120;

/// As many expressions as one file may have evaluated: a loop in a loop in a loop is a program, not a migration. Large values
/// count for as many more, since two lines can double one again and again.
const MAX_STEPS: usize = 50_000;

/// What stands between the items of a list that is joined, in bytes: it is the one thing that a single call repeats.
const MAX_SEPARATORS: usize = 256 << 10;

/// What a file does.
#[derive(Debug, Default)]
pub struct Script {
    pub changes: Vec<Change>,
    /// It has `disable_ddl_transaction!`.
    pub outside_transaction: bool,
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
    let mut finder = Finder::default();
    finder.visit(&root);
    let mut reader = Reader {
        engine,
        modern: finder.modern,
        methods: finder.methods,
        locals: BTreeMap::new(),
        constants: BTreeMap::new(),
        block: None,
        running: Vec::new(),
        depth: 0,
        steps: 0,
        conditional: 0,
        assured: 0,
        silent: false,
        declaring: false,
        out: Script { outside_transaction: finder.outside_transaction, ..Script::default() },
    };
    reader.declaring = true;
    for class in &finder.classes {
        reader.body(class.body().as_ref());
    }
    reader.declaring = false;
    let entry = ["change", "up"].into_iter().find_map(|name| reader.methods.get(name).cloned());
    match entry {
        Some(method) => {
            reader.body(method.body().as_ref());
        }
        // A schema file has no class; a file without one that migrates does nothing that can be seen.
        None if finder.classes.is_empty() => {
            reader.eval(&root);
        }
        None => {}
    }
    Ok(reader.out)
}

fn name(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn offset(location: &ruby_prism::Location) -> usize {
    usize::try_from(location.start()).unwrap_or_default()
}

/// The migration's class, or classes, and their methods.
#[derive(Default)]
struct Finder<'p> {
    classes: Vec<ClassNode<'p>>,
    methods: BTreeMap<String, Rc<DefNode<'p>>>,
    modern: bool,
    outside_transaction: bool,
    depth: usize,
}

impl<'p> Visit<'p> for Finder<'p> {
    fn visit_class_node(&mut self, node: &ClassNode<'p>) {
        let parent = node.superclass().map(|parent| name(parent.location().as_slice())).unwrap_or_default();
        let migrates = parent.contains("Migration") || (self.depth == 0 && defines_migration(node));
        if migrates {
            // Without a version it is of Rails 4 or older, whose defaults those of `[4.2]` are.
            let version = parent.split_once('[').and_then(|(_, rest)| rest.split_once(']')).map(|(version, _)| version);
            let major = version.and_then(|version| version.split('.').next()?.trim().parse::<u32>().ok());
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
        self.depth += 1;
        ruby_prism::visit_class_node(self, node);
        self.depth -= 1;
    }
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

    fn visit_def_node(&mut self, node: &DefNode<'p>) {
        if let Some(method) = node.as_node().as_def_node() {
            self.finder.methods.insert(name(node.name().as_slice()), Rc::new(method));
        }
    }

    fn visit_call_node(&mut self, node: &CallNode<'p>) {
        if node.receiver().is_none() && node.name().as_slice() == b"disable_ddl_transaction!" {
            self.finder.outside_transaction = true;
        }
        ruby_prism::visit_call_node(self, node);
    }
}

/// Whether anything below a node is a word of Rails' migrations.
#[derive(Default)]
struct Words {
    found: bool,
}

impl<'p> Visit<'p> for Words {
    fn visit_call_node(&mut self, node: &CallNode<'p>) {
        let name = String::from_utf8_lossy(node.name().as_slice());
        self.found |= name == "execute" || dsl::deeds(&name, &Args::default(), true).is_some();
        ruby_prism::visit_call_node(self, node);
    }
}

/// Methods of a model or relation that write rows.
const WRITES: [&str; 40] = [
    "update_all",
    "delete_all",
    "destroy_all",
    "update",
    "update!",
    "update_column",
    "update_columns",
    "update_attribute",
    "update_attributes",
    "update_attributes!",
    "save",
    "save!",
    "create",
    "create!",
    "insert",
    "insert!",
    "insert_all",
    "insert_all!",
    "upsert",
    "upsert_all",
    "destroy",
    "destroy!",
    "delete",
    "delete_by",
    "destroy_by",
    "touch",
    "touch_all",
    "toggle!",
    "increment!",
    "decrement!",
    "increment_counter",
    "decrement_counter",
    "update_counters",
    "reset_counters",
    "find_or_create_by",
    "find_or_create_by!",
    "first_or_create",
    "first_or_create!",
    "import",
    "import!",
];

/// Among them those that change every row with one statement.
const AT_ONCE: [&str; 3] = ["update_all", "delete_all", "touch_all"];

/// Methods of a model that read, or begin a relation.
const READS: [&str; 58] = [
    "all",
    "where",
    "find_each",
    "find_in_batches",
    "in_batches",
    "each_batch",
    "unscoped",
    "unscope",
    "order",
    "reorder",
    "limit",
    "offset",
    "pluck",
    "pick",
    "select",
    "joins",
    "left_joins",
    "left_outer_joins",
    "includes",
    "preload",
    "eager_load",
    "references",
    "group",
    "having",
    "distinct",
    "from",
    "with",
    "not",
    "count",
    "sum",
    "maximum",
    "minimum",
    "average",
    "first",
    "last",
    "take",
    "find",
    "find_by",
    "find_by!",
    "find_by_sql",
    "first!",
    "last!",
    "ids",
    "new",
    "transaction",
    "table_name",
    "table_name=",
    "quoted_table_name",
    "column_names",
    "columns",
    "columns_hash",
    "primary_key",
    "reset_column_information",
    "name",
    "arel_table",
    "lock",
    "inheritance_column=",
    "default_scoped",
];

/// Methods without a receiver that do nothing to the schema.
const HARMLESS: [&str; 44] = [
    "say",
    "puts",
    "p",
    "pp",
    "print",
    "warn",
    "require",
    "require_relative",
    "load",
    "include",
    "extend",
    "private",
    "protected",
    "public",
    "attr_accessor",
    "attr_reader",
    "sleep",
    "quote",
    "quote_table_name",
    "quote_column_name",
    "select_all",
    "select_one",
    "select_value",
    "select_values",
    "select_rows",
    "tables",
    "columns",
    "indexes",
    "foreign_keys",
    "disable_ddl_transaction!",
    "disable_lock_timeout!",
    "raise",
    "exit",
    "binding",
    "logger",
    "format",
    "sprintf",
    "rand",
    "block_given?",
    "adapter_name",
    "milestone",
    "restrict_gitlab_migration",
    "method",
    "set_schema",
];

/// Methods that run their block, and nothing else that matters here.
const WRAPPERS: [&str; 17] = [
    "say_with_time",
    "suppress_messages",
    "transaction",
    "with_lock_retries",
    "disable_statement_timeout",
    "up_only",
    "loop",
    "tap",
    "then",
    "with_options",
    "unprepared_statement",
    "without_statement_timeout",
    "with_connection",
    "benchmark",
    "no_touching",
    "uncached",
    "ddl_transaction",
];

/// Constants whose methods do not touch a database.
const PURE: [&str; 34] = [
    "Rails",
    "ENV",
    "Time",
    "Date",
    "DateTime",
    "SecureRandom",
    "File",
    "Digest",
    "JSON",
    "YAML",
    "Logger",
    "Kernel",
    "Benchmark",
    "Hash",
    "Array",
    "Set",
    "String",
    "Integer",
    "Process",
    "GC",
    "ActiveSupport",
    "I18n",
    "BigDecimal",
    "URI",
    "Struct",
    "OpenStruct",
    "CSV",
    "Random",
    "Math",
    "Arel",
    "Dir",
    "IO",
    "Gem",
    "Etc",
];

struct Reader<'p> {
    engine: Engine,
    /// The migration is of Rails 5 or newer.
    modern: bool,
    methods: BTreeMap<String, Rc<DefNode<'p>>>,
    locals: BTreeMap<String, Value>,
    constants: BTreeMap<String, Value>,
    /// The block of the method that is being followed, for `yield`.
    block: Option<Rc<Node<'p>>>,
    /// The methods that are being followed.
    running: Vec<String>,
    depth: usize,
    steps: usize,
    conditional: usize,
    assured: usize,
    /// The budget is spent, and that has been said.
    silent: bool,
    /// This is the body of the class, where libraries have words that only set something.
    declaring: bool,
    out: Script,
}

impl<'p> Reader<'p> {
    fn push(&mut self, deed: Deed, at: usize) {
        let (conditional, assured) = (self.conditional > 0, self.assured > 0);
        self.out.changes.push(Change { deed, at, conditional, assured });
    }

    fn dynamic(&mut self, at: usize, why: impl Into<String>) {
        self.push(Deed::Dynamic { why: why.into() }, at);
    }

    fn body(&mut self, node: Option<&Node<'p>>) -> Value {
        node.map_or(Value::Nil, |node| self.eval(node))
    }

    fn statements(&mut self, node: Option<&StatementsNode<'p>>) -> Value {
        node.map_or(Value::Nil, |node| node.body().iter().fold(Value::Nil, |_, node| self.eval(&node)))
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

    fn maybe(&mut self, run: impl FnOnce(&mut Self) -> Value) -> Value {
        self.conditional += 1;
        let value = run(self);
        self.conditional -= 1;
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
        texts.into_iter().collect::<Option<String>>().map_or(Value::Unknown, Value::Text)
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
        let other = self.locals.get(name).is_some_and(|old| *old != value);
        let kept = if self.conditional > 0 && other { Value::Unknown } else { value };
        self.locals.insert(name.to_owned(), kept.clone());
        kept
    }

    fn control(&mut self, node: &Node<'p>) -> Value {
        if let Some(branch) = node.as_if_node() {
            self.eval(&branch.predicate());
            let value = self.maybe(|reader| {
                let value = reader.statements(branch.statements().as_ref());
                let other = branch.subsequent().map_or(Value::Nil, |node| reader.eval(&node));
                if value == other { value } else { Value::Unknown }
            });
            return self.after(branch.statements().as_ref(), value);
        }
        if let Some(branch) = node.as_unless_node() {
            self.eval(&branch.predicate());
            let value = self.maybe(|reader| {
                let value = reader.statements(branch.statements().as_ref());
                let other = reader.statements(branch.else_clause().and_then(|clause| clause.statements()).as_ref());
                if value == other { value } else { Value::Unknown }
            });
            return self.after(branch.statements().as_ref(), value);
        }
        if let Some(clause) = node.as_else_node() {
            return self.statements(clause.statements().as_ref());
        }
        if let Some(case) = node.as_case_node() {
            if let Some(subject) = case.predicate() {
                self.eval(&subject);
            }
            self.maybe(|reader| {
                for condition in &case.conditions() {
                    let when = condition.as_when_node();
                    reader.statements(when.and_then(|when| when.statements()).as_ref());
                }
                reader.statements(case.else_clause().and_then(|clause| clause.statements()).as_ref())
            });
            return Value::Unknown;
        }
        if let Some(begin) = node.as_begin_node() {
            let value = self.statements(begin.statements().as_ref());
            self.maybe(|reader| {
                let mut rescue = begin.rescue_clause();
                while let Some(clause) = rescue {
                    reader.statements(clause.statements().as_ref());
                    rescue = clause.subsequent();
                }
                reader.statements(begin.else_clause().and_then(|clause| clause.statements()).as_ref())
            });
            self.statements(begin.ensure_clause().and_then(|clause| clause.statements()).as_ref());
            return value;
        }
        self.rest(node)
    }

    /// After `return if ...` the rest of a method depends on the condition, for which no branch is left to stand.
    fn after(&mut self, statements: Option<&StatementsNode<'p>>, value: Value) -> Value {
        let returns = statements.is_some_and(|list| list.body().iter().any(|node| node.as_return_node().is_some()));
        if returns && !self.running.is_empty() {
            return value;
        }
        self.conditional += usize::from(returns);
        value
    }

    fn rest(&mut self, node: &Node<'p>) -> Value {
        if let Some(either) = node.as_and_node() {
            self.eval(&either.left());
            return self.maybe(|reader| reader.eval(&either.right()));
        }
        if let Some(either) = node.as_or_node() {
            self.eval(&either.left());
            return self.maybe(|reader| reader.eval(&either.right()));
        }
        if let Some(rescue) = node.as_rescue_modifier_node() {
            self.eval(&rescue.expression());
            return self.maybe(|reader| reader.eval(&rescue.rescue_expression()));
        }
        if let Some(repeat) = node.as_while_node() {
            self.eval(&repeat.predicate());
            return self.maybe(|reader| reader.statements(repeat.statements().as_ref()));
        }
        if let Some(repeat) = node.as_until_node() {
            self.eval(&repeat.predicate());
            return self.maybe(|reader| reader.statements(repeat.statements().as_ref()));
        }
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
        if let Some(back) = node.as_return_node() {
            let values = back.arguments();
            return values.iter().flat_map(|list| list.arguments().iter()).fold(Value::Nil, |_, node| self.eval(&node));
        }
        if node.as_yield_node().is_some() {
            return self.run_own_block(Vec::new());
        }
        if let Some(negated) = node.as_defined_node() {
            self.eval(&negated.value());
            return Value::Unknown;
        }
        if node.as_source_file_node().is_some() || node.as_x_string_node().is_some() {
            return Value::Unknown;
        }
        let mut words = Words::default();
        words.visit(node);
        if words.found {
            self.dynamic(offset(&node.location()), "this way of writing is not followed");
        }
        if let Some(loop_over) = node.as_for_node() {
            return self.maybe(|reader| reader.statements(loop_over.statements().as_ref()));
        }
        Value::Unknown
    }

    /// A class inside of the migration: a model of its own, whose table it may name.
    fn inner_class(&mut self, class: &ClassNode<'p>) {
        let called = name(class.name().as_slice());
        let statements = class.body().and_then(|body| body.as_statements_node());
        let table = statements.iter().flat_map(|list| list.body().iter()).find_map(|node| {
            let call = node.as_call_node().filter(|call| call.name().as_slice() == b"table_name=")?;
            let first = call.arguments()?.arguments().first()?;
            Some(self.eval(&first).text())
        });
        let table = table.unwrap_or_else(|| Some(super::inflect::table_of(&called)));
        self.constants.insert(called, table.map_or(Value::Unknown, Value::Rows));
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
        args
    }

    fn call(&mut self, call: &CallNode<'p>) -> Value {
        let method = name(call.name().as_slice());
        let receiver = match call.receiver() {
            Some(receiver) if receiver.as_self_node().is_none() => Some(self.eval(&receiver)),
            _ => None,
        };
        let at = call.message_loc().map_or_else(|| offset(&call.location()), |location| offset(&location));
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
        let certain = self.conditional == 0 && call.block().is_none();
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
            return self.helper(method, &helper, call, at);
        }
        match method {
            "reversible" => return self.run_block(call, vec![Value::Direction]),
            "connection" => return Value::Connection,
            "safety_assured" => {
                self.assured += 1;
                let value = self.run_block(call, Vec::new());
                self.assured -= 1;
                return value;
            }
            "create_table" | "change_table" | "create_join_table" => return self.table(method, call, at),
            "lambda" | "proc" => return Value::Code(block_text(call)),
            "revert" | "run" => {
                self.dynamic(at, format!("`{method}` runs another migration"));
                return Value::Nil;
            }
            _ => {}
        }
        let args = self.args(call);
        if sql_method(method) {
            return self.execute(&args, method, at);
        }
        if let Some(deeds) = dsl::deeds(method, &args, self.modern) {
            self.take(deeds, method, at);
            return Value::Nil;
        }
        if WRAPPERS.contains(&method) {
            return self.run_block(call, vec![Value::Unknown]);
        }
        if method.ends_with('?') || HARMLESS.contains(&method) {
            return Value::Unknown;
        }
        if method.ends_with('=') || self.declaring {
            return Value::Nil;
        }
        self.dynamic(at, format!("`{method}` is not defined in this file"));
        if call.block().is_some() {
            return self.maybe(|reader| reader.run_block(call, vec![Value::Unknown]));
        }
        Value::Unknown
    }

    fn take(&mut self, deeds: Result<Vec<Deed>, dsl::Unreadable>, method: &str, at: usize) {
        match deeds {
            Ok(deeds) => deeds.into_iter().for_each(|deed| self.push(deed, at)),
            Err(dsl::Unreadable) => self.dynamic(at, format!("what `{method}` is given is dynamic")),
        }
    }

    fn execute(&mut self, args: &Args, method: &str, at: usize) -> Value {
        let Some(Value::Text(text)) = args.list.first() else {
            self.dynamic(at, format!("the SQL of `{method}` is dynamic"));
            return Value::Unknown;
        };
        for deed in sql::deeds(text, self.engine) {
            self.push(deed, at);
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
        self.take(deeds, method, at);
        self.run_block(call, vec![Value::Table(made)])
    }

    fn of_table(&mut self, method: &str, table: Option<&str>, call: &CallNode<'p>, at: usize) -> Value {
        let args = self.args(call);
        match table.map(|table| dsl::of_table(method, &args, table, self.modern)) {
            Some(Some(deeds)) => self.take(deeds, method, at),
            Some(None) if method.ends_with('?') => {}
            Some(None) => self.dynamic(at, format!("what `t.{method}` does is not known")),
            // That the table's name is dynamic has been said.
            None => {}
        }
        Value::Nil
    }

    fn of_constant(&mut self, constant: &str, method: &str, call: &CallNode<'p>, at: usize) -> Value {
        let root = constant.split("::").next().unwrap_or(constant);
        if matches!(method, "connection" | "lease_connection" | "retrieve_connection") {
            return Value::Connection;
        }
        // `ActiveRecord::Schema.define`, `ActiveRecord::Base.transaction`.
        if constant.starts_with("ActiveRecord") {
            return if method == "[]" { Value::Constant(constant.to_owned()) } else { self.own_block_of(call) };
        }
        if PURE.contains(&root) {
            self.args(call);
            return self.maybe(|reader| reader.run_block(call, vec![Value::Unknown]));
        }
        // `DB.exec` of mini_sql, which some applications have beside Active Record.
        if constant == "DB" {
            let args = self.args(call);
            return self.execute(&args, method, at);
        }
        if !(READS.contains(&method) || WRITES.contains(&method) || method.ends_with('?')) {
            self.dynamic(at, format!("what `{constant}.{method}` does is not known here"));
            return self.maybe(|reader| reader.run_block(call, vec![Value::Unknown]));
        }
        let last = constant.rsplit("::").next().unwrap_or(constant);
        self.of_rows(super::inflect::table_of(last), method, call, at)
    }

    fn own_block_of(&mut self, call: &CallNode<'p>) -> Value {
        self.args(call);
        self.run_block(call, vec![Value::Connection])
    }

    /// A model, a relation or a record; what is not known to write is taken to read.
    fn of_rows(&mut self, table: String, method: &str, call: &CallNode<'p>, at: usize) -> Value {
        if matches!(method, "connection" | "lease_connection") {
            return Value::Connection;
        }
        if method == "table_name" {
            return Value::Text(table);
        }
        if matches!(method, "quoted_table_name" | "name" | "to_s") {
            return Value::Unknown;
        }
        self.args(call);
        if WRITES.contains(&method)
            || (method.ends_with('!') && !matches!(method, "find_by!" | "first!" | "last!" | "take!"))
        {
            let how = if AT_ONCE.contains(&method) { format!("{method}, all at once") } else { method.to_owned() };
            self.push(Deed::Write { table: Some(table.clone()), how }, at);
        }
        self.run_block(call, vec![Value::Rows(table.clone()), Value::Unknown]);
        Value::Rows(table)
    }

    fn of_value(&mut self, value: Value, method: &str, call: &CallNode<'p>, at: usize) -> Value {
        match (&value, method) {
            (_, "each" | "each_with_index" | "map" | "each_pair" | "flat_map" | "reverse_each" | "each_entry")
                if call.block().is_some() =>
            {
                return self.each(value, method, call);
            }
            (Value::Int(times), "times") if *times <= 100 => {
                for index in 0..*times {
                    self.run_block(call, vec![Value::Int(index)]);
                }
                return Value::Nil;
            }
            _ => {}
        }
        let args = self.args(call);
        match (value, method) {
            (value, "freeze" | "dup" | "to_a" | "to_h" | "presence" | "compact" | "uniq" | "itself" | "clone") => value,
            (Value::Text(text), _) => of_text(&text, method, &args),
            (Value::Int(number), "to_s") => Value::Text(number.to_string()),
            (Value::Int(number), _) => of_number(number, method, &args),
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
                self.maybe(|reader| reader.run_block(call, vec![Value::Unknown]))
            }
        }
    }

    /// A loop over what is written out is followed item by item, any other once, as it may be.
    fn each(&mut self, value: Value, method: &str, call: &CallNode<'p>) -> Value {
        let items: Vec<Vec<Value>> = match value {
            Value::List(list) => list
                .into_iter()
                .enumerate()
                .map(|(index, item)| match item {
                    _ if method == "each_with_index" => {
                        vec![item, Value::Int(i64::try_from(index).unwrap_or_default())]
                    }
                    item => vec![item],
                })
                .collect(),
            Value::Map(pairs) => pairs.into_iter().map(|(key, value)| vec![key, value]).collect(),
            _ => return self.maybe(|reader| reader.run_block(call, vec![Value::Unknown])),
        };
        let values = items.into_iter().map(|item| self.run_block(call, item)).collect();
        if method == "map" { Value::List(values) } else { Value::Unknown }
    }

    fn run_block(&mut self, call: &CallNode<'p>, values: Vec<Value>) -> Value {
        let Some(block) = call.block() else { return Value::Unknown };
        if let Some(passed) = block.as_block_argument_node() {
            // `&block` of the method that is being followed.
            let own = passed.expression().is_none_or(|node| node.as_local_variable_read_node().is_some());
            return if own && self.block.is_some() { self.run_own_block(values) } else { Value::Unknown };
        }
        self.run(&block, values)
    }

    fn run_own_block(&mut self, values: Vec<Value>) -> Value {
        let Some(block) = self.block.take() else { return Value::Unknown };
        let value = self.run(&block, values);
        self.block = Some(block);
        value
    }

    fn run(&mut self, block: &Node<'p>, mut values: Vec<Value>) -> Value {
        let Some(block) = block.as_block_node() else { return Value::Unknown };
        if let Some(parameters) = block.parameters() {
            let parameters = parameters.as_block_parameters_node().and_then(|node| node.parameters());
            let required: Vec<Node> = parameters.iter().flat_map(|list| list.requireds().iter()).collect();
            // `|a, b|` takes an array apart.
            if required.len() > 1
                && let [Value::List(inner)] = values.as_slice()
            {
                values = inner.clone();
            }
            for (index, parameter) in required.iter().enumerate() {
                let value = values.get(index).cloned().unwrap_or(Value::Unknown);
                self.bind(parameter, value);
            }
        }
        if let Some(first) = values.first() {
            self.locals.insert("it".to_owned(), first.clone());
            self.locals.insert("_1".to_owned(), first.clone());
        }
        let (before, value) = (self.conditional, self.body(block.body().as_ref()));
        self.conditional = before;
        value
    }

    fn bind(&mut self, parameter: &Node<'p>, value: Value) {
        if let Some(one) = parameter.as_required_parameter_node() {
            self.locals.insert(name(one.name().as_slice()), value);
        } else if let Some(several) = parameter.as_multi_target_node() {
            let values = if let Value::List(list) = value { list } else { Vec::new() };
            for (index, target) in several.lefts().iter().enumerate() {
                self.bind(&target, values.get(index).cloned().unwrap_or(Value::Unknown));
            }
        }
    }

    /// A method that the file defines, with its parameters bound.
    fn helper(&mut self, method: &str, helper: &DefNode<'p>, call: &CallNode<'p>, at: usize) -> Value {
        if self.running.iter().any(|running| running == method) {
            self.dynamic(at, format!("`{method}` calls itself"));
            return Value::Unknown;
        }
        let args = self.args(call);
        let mut locals = BTreeMap::new();
        if let Some(parameters) = helper.parameters() {
            let mut given = args.list.into_iter();
            for parameter in &parameters.requireds() {
                if let Some(one) = parameter.as_required_parameter_node() {
                    locals.insert(name(one.name().as_slice()), given.next().unwrap_or(Value::Unknown));
                }
            }
            for parameter in &parameters.optionals() {
                if let Some(one) = parameter.as_optional_parameter_node() {
                    let value = given.next().unwrap_or_else(|| self.eval(&one.value()));
                    locals.insert(name(one.name().as_slice()), value);
                }
            }
            if let Some(rest) = parameters.rest().and_then(|rest| rest.as_rest_parameter_node()?.name()) {
                locals.insert(name(rest.as_slice()), Value::List(given.collect()));
            }
            for parameter in &parameters.keywords() {
                if let Some(one) = parameter.as_required_keyword_parameter_node() {
                    let key = name(one.name().as_slice());
                    let value = args.options.iter().find(|(name, _)| *name == key);
                    locals.insert(key.clone(), value.map_or(Value::Unknown, |(_, value)| value.clone()));
                } else if let Some(one) = parameter.as_optional_keyword_parameter_node() {
                    let key = name(one.name().as_slice());
                    let value = args.options.iter().find(|(name, _)| *name == key).map(|(_, value)| value.clone());
                    let value = value.unwrap_or_else(|| self.eval(&one.value()));
                    locals.insert(key, value);
                }
            }
            if let Some(rest) = parameters.keyword_rest().and_then(|rest| rest.as_keyword_rest_parameter_node()?.name())
            {
                let pairs = args.options.into_iter().map(|(key, value)| (Value::Text(key), value)).collect();
                locals.insert(name(rest.as_slice()), Value::Map(pairs));
            }
        }
        // Instance variables are the object's.
        let shared = self.locals.iter().filter(|(name, _)| name.starts_with('@'));
        let shared: Vec<(String, Value)> = shared.map(|(name, value)| (name.clone(), value.clone())).collect();
        self.steps += shared.iter().map(|(_, value)| value.weight()).sum::<usize>();
        locals.extend(shared);
        let outer = std::mem::replace(&mut self.locals, locals);
        let block =
            std::mem::replace(&mut self.block, call.block().filter(|node| node.as_block_node().is_some()).map(Rc::new));
        self.running.push(method.to_owned());
        let before = self.conditional;
        let value = self.body(helper.body().as_ref());
        self.conditional = before;
        self.running.pop();
        self.block = block;
        self.locals = outer;
        value
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

/// Whether a method changes the list, the hash or the text that it is asked of.
fn changes(method: &str) -> bool {
    const CHANGES: [&str; 14] = [
        "<<", "[]=", "push", "append", "prepend", "unshift", "concat", "store", "update", "delete", "insert", "clear",
        "replace", "shift",
    ];
    CHANGES.contains(&method) || method.ends_with('!')
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

/// Whether a method's first argument is SQL that may change something.
fn sql_method(method: &str) -> bool {
    matches!(
        method,
        "execute"
            | "exec_query"
            | "exec_update"
            | "exec_delete"
            | "exec_insert"
            | "update"
            | "delete"
            | "insert"
            | "execute_batch"
            | "select_value_and_update"
            | "update_sql"
            | "insert_sql"
            | "delete_sql"
    )
}

fn literal_text(body: Option<&Node>) -> Option<String> {
    let list = body?.as_statements_node()?.body();
    let only = list.first().filter(|_| list.len() == 1)?;
    Some(name(only.as_string_node()?.unescaped()))
}

fn block_text(call: &CallNode) -> Option<String> {
    literal_text(call.block()?.as_block_node()?.body().as_ref())
}

fn of_text(text: &str, method: &str, args: &Args) -> Value {
    let made = match method {
        "squish" => text.split_whitespace().collect::<Vec<_>>().join(" "),
        "strip" | "chomp" => text.trim().to_owned(),
        "strip_heredoc" | "to_s" | "to_sym" | "to_str" | "html_safe" | "b" | "-@" | "+@" => text.to_owned(),
        "upcase" => text.to_uppercase(),
        "downcase" => text.to_lowercase(),
        "underscore" => super::inflect::underscore(text),
        "pluralize" => super::inflect::plural(text),
        "tableize" => super::inflect::table_of(text),
        "+" => match args.text(0) {
            Some(more) => format!("{text}{more}"),
            None => return Value::Unknown,
        },
        _ => return Value::Unknown,
    };
    Value::Text(made)
}

fn of_number(number: i64, method: &str, args: &Args) -> Value {
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

fn of_list(list: Vec<Value>, method: &str, args: &Args) -> Value {
    match (method, args.list.first()) {
        ("+" | "concat", Some(Value::List(more))) => {
            Value::List(list.into_iter().chain(more.iter().cloned()).collect())
        }
        ("-", Some(Value::List(less))) => Value::List(list.into_iter().filter(|item| !less.contains(item)).collect()),
        ("first", None) => list.first().cloned().unwrap_or(Value::Nil),
        ("last", None) => list.last().cloned().unwrap_or(Value::Nil),
        ("reverse", None) => Value::List(list.into_iter().rev().collect()),
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

fn of_map(pairs: Vec<(Value, Value)>, method: &str, args: &Args) -> Value {
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
