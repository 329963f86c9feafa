//! What one migration's file says of running it a second time. Pure: Ruby's parser, and no more of Ruby than Rails' own words for
//! the schema.

use ruby_prism::{BlockNode, CallNode, Node, StatementsNode};

/// Both answers are reasons against: what cannot be read is not known to be harmless.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nature {
    /// Why it is not known to run in a transaction, where the database has transactions for changes of the schema.
    pub outside: Option<String>,
    /// What it does, or may do, beyond changing the schema.
    pub beyond: Option<String>,
}

/// Rails' words that change the schema and nothing else. A change that was made shows in the catalogue.
const SCHEMA: [&str; 47] = [
    "add_belongs_to",
    "add_check_constraint",
    "add_column",
    "add_columns",
    "add_exclusion_constraint",
    "add_foreign_key",
    "add_index",
    "add_reference",
    "add_timestamps",
    "add_unique_constraint",
    "change_column",
    "change_column_comment",
    "change_column_default",
    "change_column_null",
    "change_table",
    "change_table_comment",
    "create_enum",
    "create_join_table",
    "create_table",
    "disable_extension",
    "drop_enum",
    "drop_join_table",
    "drop_table",
    "enable_extension",
    "enable_index",
    "disable_index",
    "remove_belongs_to",
    "remove_check_constraint",
    "remove_column",
    "remove_columns",
    "remove_exclusion_constraint",
    "remove_foreign_key",
    "remove_index",
    "remove_reference",
    "remove_timestamps",
    "remove_unique_constraint",
    "rename_column",
    "rename_enum",
    "rename_enum_value",
    "add_enum_value",
    "rename_index",
    "rename_table",
    "reversible",
    "up_only",
    "validate_check_constraint",
    "validate_constraint",
    "validate_foreign_key",
];

impl Nature {
    /// What a file says that nobody understands.
    pub fn unknown(how: &str) -> Self {
        let why = Some(format!("its file {how}"));
        Self { outside: why.clone(), beyond: why }
    }

    /// Reads a migration's file.
    pub fn of(source: &[u8]) -> Self {
        let parsed = ruby_prism::parse(source);
        if parsed.errors().next().is_some() {
            return Self::unknown("cannot be read as Ruby");
        }
        let root = parsed.node();
        let statements = root.as_program_node().map(|program| program.statements());
        let beyond = statements.as_ref().map_or_else(|| Err(beyond(&root)), only_class);
        Self { outside: statements.as_ref().and_then(outside), beyond: beyond.err() }
    }
}

/// Why the migrations of this file may run, at least in part, outside of a transaction.
fn outside(program: &StatementsNode) -> Option<String> {
    let text = String::from_utf8_lossy(program.location().as_slice()).to_lowercase();
    let mut words = text.split(|c: char| !(c.is_alphanumeric() || c == '_'));
    if let Some(word) =
        words.find(|word| matches!(*word, "commit" | "commit_db_transaction" | "disable_ddl_transaction"))
    {
        return Some(format!("`{word}` stands in it"));
    }
    for statement in &program.body() {
        let Some(class) = statement.as_class_node() else { return Some(beyond(&statement)) };
        let parent = class.superclass().map(|parent| text_of(&parent)).unwrap_or_default();
        if parent != "ActiveRecord::Migration" && !parent.starts_with("ActiveRecord::Migration[") {
            return Some(format!("its class is a `{parent}`"));
        }
        let body = class.body();
        let calls = body.iter().filter_map(Node::as_statements_node).flat_map(|body| body.body().iter());
        let mut calls = calls.filter(|node| node.as_def_node().is_none());
        // A module may do anything to the class that takes it in.
        if let Some(call) = calls.find(|node| node.as_call_node().is_some()) {
            return Some(beyond(&call));
        }
    }
    None
}

/// One class with nothing but schema statements in its methods.
fn only_class(program: &StatementsNode) -> Result<(), String> {
    for statement in &program.body() {
        let class = statement.as_class_node().ok_or_else(|| beyond(&statement))?;
        let body = class.body();
        for node in body.iter().filter_map(Node::as_statements_node).flat_map(|body| body.body().iter()) {
            match (node.as_def_node(), node.as_call_node()) {
                (Some(method), _)
                    if method.receiver().is_none()
                        && method.parameters().is_none()
                        && matches!(method.name().as_slice(), b"change" | b"up" | b"down") =>
                {
                    method.body().map_or(Ok(()), |body| schema(&body))?;
                }
                (None, Some(call)) if call.name().as_slice() == b"disable_ddl_transaction!" => {}
                _ => return Err(beyond(&node)),
            }
        }
    }
    Ok(())
}

/// Only words of the schema, with values that are written out.
fn schema(node: &Node) -> Result<(), String> {
    if let Some(statements) = node.as_statements_node() {
        return statements.body().iter().try_for_each(|node| schema(&node));
    }
    if let Some(branch) = node.as_if_node() {
        asks(&branch.predicate())?;
        branch.statements().map_or(Ok(()), |body| schema(&body.as_node()))?;
        return branch.subsequent().map_or(Ok(()), |node| schema(&node));
    }
    if let Some(branch) = node.as_unless_node() {
        asks(&branch.predicate())?;
        branch.statements().map_or(Ok(()), |body| schema(&body.as_node()))?;
        return branch.else_clause().map_or(Ok(()), |clause| schema(&clause.as_node()));
    }
    if let Some(clause) = node.as_else_node() {
        return clause.statements().map_or(Ok(()), |body| schema(&body.as_node()));
    }
    if node.as_return_node().is_some_and(|node| node.arguments().is_none()) {
        return Ok(());
    }
    match node.as_call_node() {
        Some(call) if is_schema(&call) => {
            arguments(&call)?;
            call.block().map_or(Ok(()), |block| match block.as_block_node() {
                Some(block) if !has_defaults(&block) => block.body().map_or(Ok(()), |body| schema(&body)),
                _ => Err(beyond(&block)),
            })
        }
        _ => Err(beyond(node)),
    }
}

/// A word of Rails' own, or a message to what a block of one hands over (`t.string`, `dir.up`).
fn is_schema(call: &CallNode) -> bool {
    match call.receiver() {
        None => SCHEMA.iter().any(|word| word.as_bytes() == call.name().as_slice()),
        Some(receiver) => receiver.as_local_variable_read_node().is_some(),
    }
}

fn has_defaults(block: &BlockNode) -> bool {
    block.parameters().is_some_and(|parameters| text_of(&parameters).contains('='))
}

/// A question about the schema, such as `column_exists?(:posts, :title)`.
fn asks(node: &Node) -> Result<(), String> {
    let call = node.as_call_node().ok_or_else(|| beyond(node))?;
    match call.receiver() {
        Some(negated) if call.name().as_slice() == b"!" => asks(&negated),
        None if call.name().as_slice().ends_with(b"_exists?") => arguments(&call),
        _ => Err(beyond(node)),
    }
}

fn arguments(call: &CallNode) -> Result<(), String> {
    let arguments = call.arguments();
    arguments.iter().flat_map(|list| list.arguments().iter()).try_for_each(|argument| literal(&argument))
}

/// A value that is written out, so that nothing happens when it is made.
fn literal(node: &Node) -> Result<(), String> {
    let all = |nodes: ruby_prism::NodeList| nodes.iter().try_for_each(|node| literal(&node));
    match node {
        Node::SymbolNode { .. }
        | Node::StringNode { .. }
        | Node::IntegerNode { .. }
        | Node::FloatNode { .. }
        | Node::TrueNode { .. }
        | Node::FalseNode { .. }
        | Node::NilNode { .. } => return Ok(()),
        _ => {}
    }
    if let Some(pair) = node.as_assoc_node() {
        return literal(&pair.key()).and_then(|()| literal(&pair.value()));
    }
    if let Some(array) = node.as_array_node() {
        return all(array.elements());
    }
    if let Some(hash) = node.as_hash_node() {
        return all(hash.elements());
    }
    if let Some(hash) = node.as_keyword_hash_node() {
        return all(hash.elements());
    }
    if let Some(string) = node.as_interpolated_string_node() {
        return all(string.parts());
    }
    if let Some(lambda) = node.as_lambda_node() {
        // An SQL default: `-> { "now()" }`.
        let body = lambda.body();
        return body
            .map_or(Ok(()), |body| body.as_statements_node().map_or(Err(beyond(&body)), |body| all(body.body())));
    }
    Err(beyond(node))
}

/// The place and the first line of what is not known to be harmless.
fn beyond(node: &Node) -> String {
    let text = text_of(node);
    let line = text.lines().next().unwrap_or_default().trim();
    format!("line {} says `{}`", node.location().start_line(), line.chars().take(80).collect::<String>())
}

fn text_of(node: &Node) -> String {
    String::from_utf8_lossy(node.location().as_slice()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(body: &str) -> Nature {
        Nature::of(
            format!("# frozen_string_literal: true\n\nclass X < ActiveRecord::Migration[7.1]\n{body}\nend\n")
                .as_bytes(),
        )
    }

    #[test]
    fn schema_statements_alone_may_run_again() {
        for body in [
            "def change = add_column(:posts, :title, :string, null: false, default: '')",
            "def change\n add_index :posts, %i[a b], name: 'x', algorithm: :concurrently\nend",
            "def change\n create_table :x, id: false do |t|\n t.string :a, default: -> { 'now()' }\n t.timestamps\n end\nend",
            "def change\n change_table(:x, bulk: true) { |t| t.remove :a; t.index [:b, :c] }\nend",
            "def up\n return if column_exists?(:x, :a)\n add_column :x, :a, :integer unless !table_exists?(:x)\nend\ndef down\nend",
            "def change\n reversible do |dir|\n dir.up { add_column :x, :a, :text }\n dir.down { remove_column :x, :a }\n end\nend",
            "disable_ddl_transaction!\ndef change = drop_table(:x, comment: 'a' \\\n 'b')",
        ] {
            assert_eq!(class(body).beyond, None, "{body}");
        }
    }

    #[test]
    fn anything_else_is_named() {
        for (body, named) in [
            ("def up\n add_column :x, :a, :text\n Post.update_all(a: 1)\nend", "line 6 says `Post.update_all(a: 1)`"),
            ("def up = execute('update x set a = 1')", "line 4 says `execute('update x set a = 1')`"),
            ("def up = add_column(:x, :a, :text, default: Post.pick)", "line 4 says `Post.pick`"),
            ("def up = add_column(:x, \"a#{Post.pick}\", :text)", "line 4 says `#{Post.pick}`"),
            ("def up = add_column(*columns)", "line 4 says `*columns`"),
            ("def up = add_index(:x, :a, **options)", "line 4 says `**options`"),
            ("def change\n create_table :x do |t|\n Post.delete_all\n end\nend", "line 6 says `Post.delete_all`"),
            ("def change\n create_table(:x) { |t, a = Post.pick| t.string :a }\nend", "`{ |t, a = Post.pick|"),
            ("def change = create_table(:x, &columns)", "line 4 says `&columns`"),
            ("def up\n t = Post.all\nend", "line 5 says `t = Post.all`"),
            ("def up\n add_column :x, :a, :text if Post.any?\nend", "line 5 says `Post.any?`"),
            ("def up\n say_with_time('x') { 1 }\nend", "line 5 says `say_with_time('x') { 1 }`"),
            ("def up\n add_column :x, :a, :text\nrescue\n retry\nend", "line 4 says `def up`"),
            ("def exec_migration(*) = Post.delete_all", "line 4 says `def exec_migration(*)"),
            ("include Helpers\ndef change = drop_table(:x)", "line 4 says `include Helpers`"),
        ] {
            let said = class(body).beyond.unwrap_or_default();
            assert!(said.contains(named), "{body}: {said}");
        }
        let two = Nature::of(b"Post.delete_all\nclass X < ActiveRecord::Migration[7.1]\nend\n");
        assert_eq!(two.beyond.as_deref(), Some("line 1 says `Post.delete_all`"));
        assert!(Nature::of(b"class X").beyond.is_some());
    }

    #[test]
    fn a_transaction_is_believed_in_only_where_nothing_speaks_against_it() {
        for body in ["def up = execute('update x set a = 1')", "def up\n Post.where(committed: 1).delete_all\nend", ""]
        {
            assert_eq!(class(body).outside, None, "{body}");
        }
        assert_eq!(class("end\n__END__\ncommit").outside, None, "only the program counts");
        for body in [
            "disable_ddl_transaction!\ndef up\nend",
            "include Helpers",
            "def up\n execute 'COMMIT'\nend",
            "def up = commit_db_transaction",
        ] {
            assert!(class(body).outside.is_some(), "{body}");
        }
        let other = Nature::of(b"class X < Elsewhere::Migration[2.0]\nend\n");
        assert_eq!(other.outside.as_deref(), Some("its class is a `Elsewhere::Migration[2.0]`"));
        assert!(Nature::of(b"sql 'create table one (a int)'").outside.is_some());
        assert!(Nature::of(b"class X <").outside.is_some());
    }
}
