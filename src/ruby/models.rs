//! The models of the deployed commit: which tables they stand for, and which columns they have been told to ignore.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::classes::{Bodies, Body, Piece, ROOT, collect};
use super::inflect;
use super::schema::MAX_RUBY;

/// What is known of a column in the running code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Use {
    /// No model stands for the table.
    NoModel,
    /// Every model of the table ignores it.
    Ignored,
    /// Nobody but Ruby can tell whether this model, in this file, knows it; why.
    Unclear { model: String, path: PathBuf, why: &'static str },
    /// This model, in this file, knows it.
    Used { model: String, path: PathBuf },
}

/// What is said of a class whose parent is no file of the application.
const STRANGER: &str = "may stand for that table: its parent class is not part of the application";

/// A class that stands for a table; in the order of what is said first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Model {
    /// Nobody has seen that it comes from Active Record.
    is_stranger: bool,
    /// The table is that of a class above it.
    is_inheriting: bool,
    name: String,
}

/// Where the line of a class ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    ActiveRecord,
    /// A class that is no part of the application.
    Unknown,
    /// A class without a parent.
    Plain,
}

#[derive(Debug, Default)]
pub struct Models {
    bodies: Bodies,
    /// The classes that stand for each table.
    tables: BTreeMap<String, Vec<Model>>,
    /// The names by which the running classes know columns that a push renames, by table and new name.
    renamed: BTreeMap<(String, String), String>,
}

/// A class and the classes above it.
type Line<'a> = [(&'a str, &'a Body)];

impl Models {
    pub fn of(files: &[(PathBuf, Vec<u8>)]) -> Self {
        let mut models = Self::default();
        for (path, text) in files.iter().filter(|(_, text)| text.len() <= MAX_RUBY) {
            collect(&mut models.bodies, path, text);
        }
        let mut tables: BTreeMap<String, Vec<Model>> = BTreeMap::new();
        for (name, body) in &models.bodies {
            let Some((table, model)) = models.stands_for(name, body, 0) else { continue };
            for join in &body.joins {
                let join = join.strip_prefix('=').map_or_else(|| inflect::join_table(&table, join), str::to_owned);
                tables.entry(join).or_default().push(Model { name: name.clone(), ..model });
            }
            tables.entry(table).or_default().push(model);
        }
        for known in tables.values_mut() {
            known.sort();
            // A stranger with the name of a model is something else.
            if !known[0].is_stranger {
                known.retain(|model| !model.is_stranger);
            }
        }
        models.tables = tables;
        models
    }

    /// Whether a class is known for certain to stand for this table.
    pub fn knows_table(&self, table: &str) -> bool {
        self.tables.get(table).is_some_and(|models| !models[0].is_stranger)
    }

    /// Under its new name too, a table is what the running classes know by the old one.
    pub fn rename_table(&mut self, from: &str, to: &str) {
        if let Some(models) = self.tables.get(from).cloned() {
            self.tables.insert(to.to_owned(), models);
        }
    }

    /// The same for a column.
    pub fn rename_column(&mut self, table: &str, from: &str, to: &str) {
        let known = self.known_as(table, from).to_owned();
        self.renamed.insert((table.to_owned(), to.to_owned()), known);
    }

    fn known_as<'a>(&'a self, table: &str, column: &'a str) -> &'a str {
        self.renamed.get(&(table.to_owned(), column.to_owned())).map_or(column, String::as_str)
    }

    /// The class that stands for a table, and its file.
    pub fn model_of(&self, table: &str) -> Option<(&str, &Path)> {
        let model = self.tables.get(table)?.first().filter(|model| !model.is_stranger)?;
        Some((&model.name, self.bodies.get(&model.name)?.path.as_path()))
    }

    /// Whether the running code knows this column.
    pub fn uses(&self, table: &str, column: &str) -> Use {
        let Some(models) = self.tables.get(table) else { return Use::NoModel };
        let column = self.known_as(table, column);
        let mut unclear = None;
        for known in models {
            let Some(body) = self.bodies.get(&known.name) else { continue };
            let family = self.family(&known.name);
            let (model, path) = (known.name.clone(), body.path.clone());
            if family.iter().any(|body| body.ignored.contains(column)) {
                continue;
            }
            let why = if known.is_stranger {
                STRANGER
            } else if family.iter().any(|body| body.unclear) {
                "ignores columns by means that cannot be read"
            } else {
                return Use::Used { model, path };
            };
            unclear.get_or_insert(Use::Unclear { model, path, why });
        }
        unclear.unwrap_or(Use::Ignored)
    }

    /// Whether a model of the table has an enum on this column.
    pub fn has_enum(&self, table: &str, column: &str) -> bool {
        let (models, column) = (self.tables.get(table), self.known_as(table, column));
        models.into_iter().flatten().flat_map(|model| self.family(&model.name)).any(|body| body.enums.contains(column))
    }

    /// A class, its ancestors and all that they include.
    fn family(&self, name: &str) -> Vec<&Body> {
        let (mut family, mut waiting, mut seen) = (Vec::new(), vec![name.to_owned()], BTreeSet::new());
        while let Some(name) = waiting.pop() {
            let Some(body) = self.bodies.get(&name).filter(|_| seen.insert(name.clone())) else { continue };
            waiting.extend(self.parent(&name, body).map(|(full, _)| full.to_owned()));
            for included in &body.included {
                if let Some((module, _)) = self.find(included, &name, &name) {
                    waiting.extend([module.to_owned(), format!("{module}::ClassMethods")]);
                }
            }
            family.push(body);
        }
        family
    }

    /// A constant as Ruby finds it from inside `scope`; never `own` itself.
    fn find(&self, name: &str, scope: &str, own: &str) -> Option<(&str, &Body)> {
        let (name, mut scope) = name.strip_prefix("::").map_or((name, scope), |absolute| (absolute, ""));
        loop {
            let full = if scope.is_empty() { name.to_owned() } else { format!("{scope}::{name}") };
            if let Some((full, body)) = self.bodies.get_key_value(&full).filter(|(full, _)| *full != own) {
                return Some((full, body));
            }
            if scope.is_empty() {
                return None;
            }
            scope = scope.rsplit_once("::").map_or("", |(outer, _)| outer);
        }
    }

    fn parent(&self, name: &str, body: &Body) -> Option<(&str, &Body)> {
        let (parent, scope) = body.parent.as_ref()?;
        self.find(parent, scope, name)
    }

    /// A class and the classes above it, and where they come from.
    fn line<'a>(&'a self, name: &'a str, body: &'a Body) -> (Vec<(&'a str, &'a Body)>, Origin) {
        let (mut line, mut at) = (vec![(name, body)], (name, body));
        while let Some(parent) = self.parent(at.0, at.1) {
            if line.iter().any(|(seen, _)| *seen == parent.0) {
                return (line, Origin::Plain);
            }
            line.push(parent);
            at = parent;
        }
        let end = at.1.parent.as_ref().map_or(at.0, |(parent, _)| parent.trim_start_matches("::"));
        let origin = match &at.1.parent {
            _ if is_root(end) => Origin::ActiveRecord,
            Some(_) => Origin::Unknown,
            None => Origin::Plain,
        };
        (line, origin)
    }

    /// The table of a class, as Rails computes it. None of what is no model, and of what only Ruby could tell.
    fn stands_for(&self, name: &str, body: &Body, depth: usize) -> Option<(String, Model)> {
        if body.is_abstract || is_root(name) || depth > 20 {
            return None;
        }
        let (line, origin) = self.line(name, body);
        // Single table inheritance: the highest class that is not abstract has the table.
        let is_concrete = |(name, body): &&(&str, &Body)| !body.is_abstract && !is_root(name) && !is_base(name);
        let concrete = line.iter().take_while(is_concrete).count();
        let at = if body.table.is_some() { 0 } else { concrete.max(1) - 1 };
        let above = &line[at..];
        // An abstract class may name a table too.
        let named = above.iter().find_map(|(_, body)| body.table.as_ref());
        let table = match (origin, named) {
            (Origin::Plain, _) => return None,
            (_, Some(pieces)) => self.text(pieces, above)?,
            (_, None) => self.computed(above, depth)?,
        };
        let is_stranger = origin == Origin::Unknown && named.is_none();
        Some((super::dsl::bare(&table), Model { is_stranger, is_inheriting: at > 0, name: name.to_owned() }))
    }

    fn computed(&self, line: &Line, depth: usize) -> Option<String> {
        let (outer, last) = line[0].0.rsplit_once("::").unwrap_or(("", line[0].0));
        let is_singular = self.heirs(line).any(|body| body.is_singular);
        let undecorated = if is_singular { inflect::underscore(last) } else { inflect::table_of(last) };
        // A class within a model's class takes that one's table for a prefix.
        let around = self.bodies.get(outer).and_then(|body| self.stands_for(outer, body, depth + 1));
        let contained = around.map_or(String::new(), |(table, _)| {
            format!("{}_", if is_singular { table } else { inflect::singular(&table) })
        });
        let prefix = plain(self.around(line, |body| body.prefix.as_ref()))?;
        let suffix = plain(self.around(line, |body| body.suffix.as_ref()))?;
        Some(format!("{prefix}{contained}{undecorated}{suffix}"))
    }

    /// The name that these pieces make.
    fn text(&self, pieces: &[Piece], line: &Line) -> Option<String> {
        let text = |piece: &Piece| match piece {
            Piece::Text(text) => Some(text.clone()),
            Piece::Prefix => plain(self.heirs(line).find_map(|body| body.prefix.as_ref())),
            Piece::Suffix => plain(self.heirs(line).find_map(|body| body.suffix.as_ref())),
            Piece::Unreadable => None,
        };
        pieces.iter().map(text).collect()
    }

    /// A prefix or a suffix: that of a module around the class, or else its own.
    fn around<'a>(
        &'a self,
        line: &Line<'a>,
        of: impl Fn(&'a Body) -> Option<&'a Vec<Piece>>,
    ) -> Option<&'a Vec<Piece>> {
        let outer = |name: &&'a str| name.rsplit_once("::").map(|(outer, _)| outer);
        let mut modules = std::iter::successors(outer(&line[0].0), outer).filter_map(|name| self.bodies.get(name));
        modules.find_map(&of).or_else(|| self.heirs(line).find_map(of))
    }

    /// A class, the classes above it, and what is set on all of them.
    fn heirs<'a>(&'a self, line: &Line<'a>) -> impl Iterator<Item = &'a Body> {
        line.iter().map(|(_, body)| *body).chain(self.bodies.get(ROOT))
    }
}

/// The text of pieces into which nothing has to be put; empty where there are none.
fn plain(pieces: Option<&Vec<Piece>>) -> Option<String> {
    let text = |piece: &Piece| match piece {
        Piece::Text(text) => Some(text.clone()),
        Piece::Prefix | Piece::Suffix | Piece::Unreadable => None,
    };
    pieces.into_iter().flatten().map(text).collect()
}

/// Classes of Rails that models come from, and what applications call their own.
fn is_root(name: &str) -> bool {
    const RAILS: [&str; 3] = ["ActiveStorage::Record", "ActionText::Record", "ActionMailbox::Record"];
    name == ROOT || RAILS.contains(&name) || name.rsplit("::").next() == Some("ApplicationRecord")
}

/// What applications call their abstract classes, where the file does not say so.
fn is_base(name: &str) -> bool {
    name.rsplit("::").next() == Some("Base")
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
            ("class Post < Spree::Base\nend", "posts", "unclear"),
        ] {
            assert_eq!(used(&models(&[base, text]), table, "x"), expected, "{text}");
        }
    }

    /// What stands for a table for certain, what perhaps, and what not at all.
    #[test]
    fn only_models_stand_for_tables() {
        let forms = "class Form::User < Reform::Form\nend\n";
        let user = "class User < ApplicationRecord\n  self.ignored_columns = [:x]\nend\n";
        for (text, table, expected) in [
            ("class Post\nend", "posts", "no model"),
            ("class T::Base\nend\nclass T::Post < T::Base\nend", "posts", "no model"),
            ("module T\n  class Base\n  end\n  class Post < Base\n  end\nend", "posts", "no model"),
            (forms, "users", "unclear"),
            (&format!("{forms}{user}"), "users", "ignored"),
            ("class Post < Struct.new(:x)\nend", "posts", "no model"),
            ("class Post < Library::Record\n  self.table_name = 'texts'\nend", "texts", "used"),
            ("class Post < ActiveRecord::Base\nend", "posts", "used"),
            ("class Post < ::ApplicationRecord\nend", "posts", "used"),
            ("class Blob < ActiveStorage::Record\nend", "blobs", "used"),
            ("class A < B\nend\nclass B < A\nend", "as", "no model"),
            ("Post = Class.new(ApplicationRecord)", "posts", "used"),
            ("Post = Class.new(ApplicationRecord) do\n  self.ignored_columns = [:x]\nend", "posts", "ignored"),
            ("Post = Class.new", "posts", "no model"),
            ("class Admin::User < ::User\nend\nclass User < ApplicationRecord\nend", "users", "used"),
            ("module Admin\n  class User < User\n  end\nend\nclass User < ApplicationRecord\nend", "users", "used"),
        ] {
            assert_eq!(used(&models(&[text]), table, "x"), expected, "{text}");
        }
        let inherited = models(&["class Car < Vehicle\nend\nclass Vehicle < ApplicationRecord\nend"]);
        assert_eq!(inherited.model_of("vehicles").unwrap().0, "Vehicle");
    }

    #[test]
    fn columns_are_ignored_in_many_ways() {
        let ignored = [
            "def self.ignored_columns\n super + %w[x]\nend",
            "def self.ignored_columns = super | ['x']",
            "def self.ignored_columns\n [*super, 'x']\nend",
            "class << self\n def ignored_columns\n  super + [:x]\n end\nend",
            "def self.columns\n super.reject { |c| c.name == 'x' }\nend",
            "def self.columns\n super.reject { |c| %w[x y].include?(c.name) }\nend",
            "def self.columns\n super.reject { |c| c.name.to_sym == :x }\nend",
            "self.ignored_columns = [*ignored_columns, 'x']",
            "self.ignored_columns += %w[a] + %w[x]",
            "self.ignored_columns = ignored_columns.push('x')",
        ];
        let unclear = [
            "def self.ignored_columns\n super + OLD\nend",
            "def self.ignored_columns\n log\n super + %w[x]\nend",
            "self.ignored_columns += [:x] if ENV['OLD']",
            "self.ignored_columns = [:x] unless Rails.env.test?",
            "if OLD\n self.ignored_columns += [:x]\nend",
            "def self.columns\n super.reject { |c| old?(c) }\nend",
            "def self.columns_hash\n super.except('x')\nend",
            "begin\n self.ignored_columns = [:x]\nrescue NameError\nend",
            "ignore_column OLD",
        ];
        let known = ["def columns\n []\nend", "def ignored_columns\n %w[x]\nend", "scope :columns, -> { all }"];
        for (list, expected) in [(&ignored[..], "ignored"), (&unclear, "unclear"), (&known, "used")] {
            for text in list {
                let models = models(&[&format!("class Post < ApplicationRecord\n{text}\nend")]);
                assert_eq!(used(&models, "posts", "x"), expected, "{text}");
            }
        }
    }

    #[test]
    fn columns_are_ignored_from_outside() {
        let concern =
            |body: &str| format!("module Old\n  extend ActiveSupport::Concern\n{body}\nend\nPost.include(Old)");
        for (text, expected) in [
            ("Post.ignored_columns += %w[x]".to_owned(), "ignored"),
            ("::Post.ignored_columns = ['x']".to_owned(), "ignored"),
            ("config.to_prepare do\n  Post.ignored_columns += %w[x]\nend".to_owned(), "ignored"),
            ("Post.class_eval do\n  self.ignored_columns += %w[x]\nend".to_owned(), "ignored"),
            ("Post.ignored_columns += %w[x] if ENV['OLD']".to_owned(), "unclear"),
            ("Post.ignored_columns += OLD".to_owned(), "unclear"),
            (concern("included do\n self.ignored_columns = [:x]\nend"), "ignored"),
            (concern("class_methods do\n def ignored_columns = super + %w[x]\nend"), "ignored"),
            (concern("module ClassMethods\n def ignored_columns = super + %w[x]\nend"), "ignored"),
            (concern("def self.included(base)\n base.ignored_columns += %w[x]\nend"), "ignored"),
            (concern("def self.included(base)\n base.class_eval do\n  ignore_column :x\n end\nend"), "ignored"),
            (concern("def self.included(base)\n base.extend ClassMethods\nend"), "used"),
            ("Post.include Elsewhere".to_owned(), "used"),
            ("Comment.ignored_columns += %w[x]".to_owned(), "used"),
        ] {
            let models = models(&["class Post < ApplicationRecord\nend", &text]);
            assert_eq!(used(&models, "posts", "x"), expected, "{text}");
        }
    }

    #[test]
    fn names_of_tables_are_put_together() {
        let post = |body: &str| format!("class Post < ApplicationRecord\n{body}\nend\n");
        let app = |line: &str| format!("class App < Rails::Application\n  {line}\nend\n{}", post(""));
        let within = |body: &str| format!("module A\n{body}\n{}end\n", post(""));
        let above =
            "class Old < ApplicationRecord\n  self.abstract_class = true\n  self.table_name_prefix = 'a_'\nend\n";
        for (text, table, expected) in [
            (post("self.table_name_prefix = 'a_'"), "a_posts", "used"),
            (post("self.table_name_suffix = '_b'"), "posts_b", "used"),
            (format!("{above}class Post < Old\nend"), "a_posts", "used"),
            (post("self.table_name = \"#{table_name_prefix}x\""), "x", "used"),
            (post("self.table_name_prefix = 'a_'\nself.table_name = \"#{table_name_prefix}x\""), "a_x", "used"),
            (post("self.table_name = \"#{name}x\""), "posts", "no model"),
            (post("self.table_name = 'x' if OLD"), "posts", "no model"),
            (post("def self.table_name\n 'x'\nend"), "x", "used"),
            (within("def self.table_name_prefix = 'a_'"), "a_posts", "used"),
            (within("class << self\n def table_name_prefix\n  'a_'\n end\nend"), "a_posts", "used"),
            (within("def self.table_name_prefix = Rails.env"), "posts", "no model"),
            (within("class Engine < ::Rails::Engine\n isolate_namespace A\nend"), "a_posts", "used"),
            (app("config.active_record.table_name_prefix = 'a_'"), "a_posts", "used"),
            (app("config.active_record.pluralize_table_names = false"), "post", "used"),
            (format!("ActiveRecord::Base.table_name_prefix = 'a_'\n{}", post("")), "a_posts", "used"),
            (post("self.table_name = 'notes'\nclass Line < ApplicationRecord\nend"), "note_lines", "used"),
        ] {
            assert_eq!(used(&models(&[&text]), table, "x"), expected, "{table}: {text}");
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
