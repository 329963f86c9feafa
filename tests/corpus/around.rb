### case no schema and no model: nothing is certain
### schema none
### model module Nothing\nend
### expect warning index-blocks 1
### expect warning remove-column 2
    add_index :posts, :slug
    remove_column :posts, :slug

### case a model without a schema
### schema none
### model class Post < ApplicationRecord\nend
### expect refusal index-blocks 1
### expect refusal remove-column 2
    add_index :posts, :slug
    remove_column :posts, :slug

### case structure.sql tells the types
### structure CREATE TABLE public.posts (\n id bigint NOT NULL,\n title character varying(40) NOT NULL\n);\nALTER TABLE ONLY public.posts ADD CONSTRAINT posts_pkey PRIMARY KEY (id);
    change_column :posts, :title, :string, limit: 80
    change_column_null :posts, :title, false

### case structure.sql tells that a column is new
### structure CREATE TABLE public.posts (\n id bigint NOT NULL\n);\nCREATE INDEX x ON public.posts USING btree (id);
### class restart
    remove_column :posts, :title

### case structure.sql tells a check that holds
### structure CREATE TABLE public.posts (\n id bigint NOT NULL,\n title text\n);\nALTER TABLE public.posts ADD CONSTRAINT c CHECK ((title IS NOT NULL));
    change_column_null :posts, :title, false

### case structure.sql with functions and settings
### structure SET statement_timeout = 0;\nCREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END; $$;\nCREATE TABLE posts (id integer NOT NULL, title integer);
### expect refusal change-type 1
    change_column :posts, :title, :bigint

### case structure.sql of MySQL
### engine mysql 8.0.36
### structure CREATE TABLE `posts` (\n `id` bigint NOT NULL AUTO_INCREMENT,\n `title` varchar(40) DEFAULT NULL,\n PRIMARY KEY (`id`),\n KEY `i` (`title`)\n) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4;
### expect refusal change-type 1
    change_column :posts, :title, :text

### case an exception on the line
### expect note remove-column 1
### says allowed: nobody reads it
    remove_column :posts, :slug # unstuck:allow remove-column nobody reads it

### case an exception above the line
### expect note remove-column 2
### expect refusal remove-column 3
    # unstuck:allow remove-column nobody reads it
    remove_column :posts, :slug
    remove_column :posts, :views_count

### case an exception for the file
### expect note remove-column 5
### expect note remove-column 6
# frozen_string_literal: true
# unstuck:allow remove-column the application is in maintenance
class A < ActiveRecord::Migration[7.1]
  def change
    remove_column :posts, :slug
    remove_column :posts, :views_count
  end
end

### case an exception without a reason
### expect refusal remove-column 2
### expect warning allow-without-reason 1
    # unstuck:allow remove-column
    remove_column :posts, :slug

### case an exception for another rule
### expect refusal remove-column 2
    # unstuck:allow drop-table it is empty
    remove_column :posts, :slug

### case an exception in a text is none
### expect refusal remove-column 1
    say "# unstuck:allow remove-column text"; remove_column :posts, :slug

### case a model with ignored columns in an abstract class
### model class ApplicationRecord < ActiveRecord::Base\n self.abstract_class = true\n self.ignored_columns = [:slug]\nend
### model class Post < ApplicationRecord\nend
### class restart
    remove_column :posts, :slug

### case a model of a library
### model class Spree::Post < Spree::Base\n self.table_name = 'posts'\nend
### expect refusal remove-column 1
    remove_column :posts, :slug

### case ignore_column
### model class Post < ApplicationRecord\n include IgnorableColumns\n ignore_column :slug, remove_with: '16.1', remove_after: '2023-06-22'\nend
### class restart
    remove_column :posts, :slug

### case a model that ignores a column in a method of its own
### model class Post < ApplicationRecord\n def self.ignored_columns\n  super + %w[slug]\n end\nend
### class restart
    remove_column :posts, :slug

### case a model that ignores a column under a condition
### model class Post < ApplicationRecord\n self.ignored_columns += [:slug] if ENV["OLD"]\nend
### expect warning remove-column 1
### says ignores columns by means that cannot be read
    remove_column :posts, :slug

### case a column that an initializer lets a model ignore
### model class Post < ApplicationRecord\nend
### model Rails.application.config.to_prepare do\n Post.ignored_columns += %w[slug]\nend
### class restart
    remove_column :posts, :slug

### case a plain class beside the model of its name
### model class Post < ApplicationRecord\n self.ignored_columns = [:slug]\nend
### model class Form::Post < Form::Base\nend\nclass Form::Base\nend
### class restart
    remove_column :posts, :slug

### case a plain class and no model
### model class Trends::Posts < Trends::Base\nend\nclass Trends::Base\nend
### expect warning remove-column 1
### says no deployed model was found
    remove_column :posts, :slug

### case a class of a library that may be a model
### model class Post < Library::Record\nend
### expect warning remove-column 1
### says its parent class is not part of the application
    remove_column :posts, :slug

### case a model of an engine with a namespace of its own
### model module Blog\n class Engine < ::Rails::Engine\n  isolate_namespace Blog\n end\nend
### model module Blog\n class Post < ApplicationRecord\n end\nend
### model class Post < ApplicationRecord\n self.ignored_columns = [:slug]\nend
### class restart
    remove_column :posts, :slug

### case a table with a prefix
### model class Post < ApplicationRecord\n self.table_name_prefix = "old_"\n self.ignored_columns = [:slug]\nend
### schema none
### class restart
    remove_column :old_posts, :slug

### case the base class of single table inheritance is named
### model class Album < Record\nend\nclass Record < ApplicationRecord\nend
### schema none
### expect refusal remove-column 1
### says the running model Record (
    remove_column :records, :slug

### case rows of a model in a module, whose table is not known
### schema none
### expect note backfill-at-once 1
### says writes rows (
    Blog::Post.where(slug: nil).delete_all

### case a version that Rails does not have yet
### rails 7.1.3.4
### expect refusal migration-version 1
class AddShelf < ActiveRecord::Migration[8.0]
  def change = add_column(:posts, :shelf, :string)
end

### case a version that Rails has
### rails 7.1.3.4
class AddShelf < ActiveRecord::Migration[7.1]
  def change = add_column(:posts, :shelf, :string)
end

### case no version
### rails 5.1.0
### expect refusal migration-version 1
class AddShelf < ::ActiveRecord::Migration
  def change = add_column(:posts, :shelf, :string)
end

### case no version on old Rails
### rails 5.0.7
class AddShelf < ActiveRecord::Migration
  def change = add_column(:posts, :shelf, :string)
end

### case a parent of the application's own
### rails 7.1.3
class AddShelf < ApplicationMigration
  def change = add_column(:posts, :shelf, :string)
end

### case a comment that allows what is no rule
### expect refusal remove-column 2
### expect warning allow-unknown-rule 1
### says no rule has the name "remove-columns"
    # unstuck:allow remove-columns nobody reads it
    remove_column :posts, :slug
