### case a constant that may be set already
### expect refusal remove-column 6
### expect refusal remove-column 6
class A < ActiveRecord::Migration[7.1]
  COLUMNS ||= { posts: %w[slug price] }.freeze

  def up
    COLUMNS.each_pair do |table, columns|
      columns.map(&:to_sym).each { |column| remove_column table, column }
    end
  end
end

### case constants around the class
### expect refusal remove-column 7
### expect refusal remove-column 8
### expect refusal remove-column 9
TOP = %i[slug].freeze
module Blog
  WORDS = %w[price].freeze
  OTHER ||= :views_count
  class A < ActiveRecord::Migration[7.1]
    def change
      TOP.each { |column| remove_column :posts, column }
      WORDS.each_with_index { |column, index| remove_column :posts, column, name: index }
      remove_column :posts, Blog::OTHER
    end
  end
end

### case constants of constants
### expect refusal remove-column 8
### expect refusal remove-column 8
### expect warning drop-table 9
### expect refusal remove-column 10
class A < ActiveRecord::Migration[7.1]
  BASE = %w(slug price).freeze
  TABLES = { "gizmos" => [1], :tags => nil }
  ALL = (BASE + %w[slug]).uniq.map(&:to_sym)
  MORE = [[:posts, :views_count]]

  def up
    self.class::ALL.each.with_index { |column, _| remove_column(:posts, column) }
    TABLES.keys.first(1).each { |table| drop_table table }
    MORE.each_with_index { |(table, column), index| remove_column table, column }
  end
end

### case loops of other kinds
### expect refusal remove-column 1
### expect refusal remove-column 2
### expect refusal remove-column 2
### expect refusal remove-column 3
### expect refusal drop-table 4
### expect refusal drop-table 5
### expect refusal drop-table 6
    %w[slug].collect(&:to_sym).each { |column| remove_column :posts, column }
    %i[slug price].each_slice(2) { |columns| remove_columns :posts, *columns }
    [%i[posts]].flatten.product([:slug]).each { |table, column| remove_column table, column }
    { comments: 1 }.each_with_index { |(table, _), index| drop_table table }
    %w[comments].each_with_object([]) { |table, done| drop_table table }
    { a: :comments }.each_value { |table| drop_table table }

### case no notes for what is written out
class A < ActiveRecord::Migration[7.1]
  disable_ddl_transaction!
  OPTIONS = { algorithm: :concurrently }.freeze

  def change
    args = [:posts, :slug]
    opts = { **OPTIONS, name: "a" }
    add_index(*args, **opts)
    add_index :posts, :status, **OPTIONS
    add_column(*[:posts, :region, :string], **{ null: true })
    make(:posts, :price, name: "b")
  end

  private

  def make(table, *columns, **options)
    add_index table, columns, algorithm: :concurrently, **options
    add_index(table, *columns, **OPTIONS.merge(options))
  end
end

### case what is said and wrapped is no noise
### expect refusal remove-column 8
### expect refusal drop-table 17
### expect note index-blocks 20
class A < ActiveRecord::Migration[7.1]
  def up
    say "begin", true
    announce "migrating"
    say_with_time("removing") do
      suppress_messages do
        ActiveRecord::Base.transaction do
          remove_column :posts, :slug
          Post.reset_column_information
          Rails.logger.info("done")
        end
      end
    end
    Rails.logger.tagged("x") { say "x" }
    disable_statement_timeout do
      with_lock_retries do
        connection.transaction { drop_table :comments }
      end
    end
    safety_assured { add_index :posts, :status }
    execute "SET lock_timeout TO '5s'"
    execute "SET LOCAL statement_timeout = 0"
    execute("SET statement_timeout TO '1h'")
    reset_column_information
    set_lock_timeout(5)
    ActiveRecord::Base.logger.silence { say "y" }
    $stdout.puts "z"
    STDOUT.puts "z"
    STDERR.puts "z"
    Post.connection.schema_cache.clear!
    ActiveRecord::Base.connection.schema_cache.clear!
    ActiveRecord::Base.descendants.each(&:reset_column_information)
    Post.reset_column_information
  end
end

### case models of a migration
### says users (update_all, all at once)
### says x (update_all, all at once)
### says people_of_old (update_all, all at once)
### expect note backfill-at-once 14
### expect note backfill-at-once 15
### expect note backfill-at-once 16
class A < ActiveRecord::Migration[7.1]
  class User < ActiveRecord::Base; end
  class Thing < ApplicationRecord
    self.table_name = :x
    self.inheritance_column = :_none
  end
  MigrationUser = Class.new(ActiveRecord::Base) { self.table_name = "people_of_old" }
  Unnamed = Class.new(ActiveRecord::Base)
  class Helper
    def self.update_all; end
  end

  def up
    User.update_all(admin: false)
    Thing.update_all(a: 1)
    MigrationUser.update_all(a: 1)
  end
end
