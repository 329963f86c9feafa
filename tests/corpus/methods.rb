### case up by another name
### expect refusal remove-column 4
class A < ActiveRecord::Migration[7.1]
  # Read as it is.
  def drop_it
    remove_column :posts, :slug
  end
  alias up drop_it
end

### case up by alias_method
### expect refusal remove-column 3
class A < ActiveRecord::Migration[7.1]
  def drop_it
    remove_column :posts, :slug
  end
  alias_method :up, :drop_it
end

### case up by the name of a method from elsewhere
### expect note dynamic 3
### class breaks
class A < ActiveRecord::Migration[7.1]
  include Dropping
  alias_method :up, :drop_it
end

### case up by define_method
### expect refusal remove-column 3
class A < ActiveRecord::Migration[7.1]
  define_method(:up) do
    remove_column :posts, :slug
  end
end

### case methods that code defines
### expect note dynamic 2
class A < ActiveRecord::Migration[7.1]
  %i[up down].each { |direction| define_method(direction) { drop_table :comments } }
end

### case a method of Rails is replaced
### expect note dynamic 2
class A < ActiveRecord::Migration[7.1]
  def migrate(direction)
    drop_table :comments
  end
end

### case exec_migration is replaced
### expect note dynamic 2
class A < ActiveRecord::Migration[7.1]
  def exec_migration(conn, direction)
    conn.drop_table :comments
  end
end

### case up is included
### expect note dynamic 1
class A < ActiveRecord::Migration[7.1]
  include DropsThings
end

### case up is inherited
### expect note dynamic 1
class A < BaseMigration[7.1]
end

### case down alone does nothing
class A < ActiveRecord::Migration[7.1]
  def down
    drop_table :comments
  end
end

### case super
### expect note dynamic 3
class A < CreatePostsMigration
  def up
    super
  end
end

### case asked of the class of migrations
### expect refusal remove-column 1
### expect refusal remove-column 2
### expect refusal drop-table 3
### expect refusal drop-table 4
### expect refusal remove-column 5
    ActiveRecord::Migration.remove_column(:posts, :slug)
    ActiveRecord::Base.connection.remove_column :posts, :price
    ActiveRecord::Migration[7.1].drop_table(:comments)
    ActiveRecord::Migration.new.drop_table(:users)
    ActiveRecord::Base.connection.execute("ALTER TABLE posts DROP COLUMN views_count")

### case a pool of connections
### expect refusal drop-table 2
    ActiveRecord::Base.connection_pool.with_connection do |connection|
      connection.drop_table :comments
    end

### case tasks of the database
### expect note dynamic 1
    ActiveRecord::Tasks::DatabaseTasks.load_schema_current

### case send
### expect refusal remove-column 1
### expect refusal remove-column 2
### expect refusal remove-column 3
### expect refusal drop-table 5
    send(:remove_column, :posts, :slug)
    connection.public_send("remove_column", :posts, :price)
    %i[remove_column].each { |method| send(method, :posts, :views_count) }
    create_table(:gadgets) { |t| t.send(:string, :name) }
    ActiveRecord::Base.connection.send :drop_table, :comments

### case send of what is not known
### expect note dynamic 1
    send(ENV["METHOD"], :posts, :slug)

### case a method as an object
### expect refusal remove-column 3
### expect refusal drop-table 4
### expect refusal remove-column 9
class A < ActiveRecord::Migration[7.1]
  def up
    method(:remove_column).call(:posts, :slug)
    %i[comments].each(&method(:drop_table))
    %i[price].each(&method(:go))
  end

  def go(column)
    remove_column :posts, column
  end
end

### case text that is run
### expect note dynamic 1
### expect note dynamic 2
### expect note dynamic 3
### expect note dynamic 4
    eval("drop_table :comments")
    instance_eval "drop_table :comments"
    self.class.class_eval "def x; drop_table :comments; end"
    Post.class_eval <<~RUBY
      self.table_name = "x"
    RUBY

### case a block that is run by itself
### expect refusal drop-table 1
### expect refusal remove-column 2
    instance_eval { drop_table :comments }
    connection.instance_exec(:slug) { |x| remove_column :posts, :slug }

### case helpers from another file
### expect note dynamic 6
require_relative "../helpers"
class A < ActiveRecord::Migration[7.1]
  include Helpers

  def up
    drop_everything
  end
end

### case helpers of a module in the file
### expect refusal remove-column 3
module Dropping
  def drop_old(column)
    remove_column :posts, column
  end
end

class A < ActiveRecord::Migration[7.1]
  include Dropping

  def up
    drop_old :slug
  end
end

### case a module that is asked
### expect refusal remove-column 4
class A < ActiveRecord::Migration[7.1]
  module Dropping
    def self.drop_old(connection, column)
      connection.remove_column :posts, column
    end
  end

  def up
    Dropping.drop_old(self, :slug)
  end
end

### case an object that does it
### expect note dynamic 1
### expect note dynamic 2
    PostCleaner.new(:posts).call
    OtherMigration.new.change

### case another file is run
### expect note dynamic 1
    load Rails.root.join("db/migrate/1_other.rb")

### case a parameter hides a variable, and gives it back
### expect refusal remove-column 3
### expect refusal drop-table 2
    column = :slug
    %w[comments].each { |column| drop_table column }
    remove_column :posts, column

### case a block's own variable
### expect refusal remove-column 3
    column = :slug
    %w[a].each { |x; column| column = x }
    remove_column :posts, column

### case blocks in blocks, with items by number
### expect refusal remove-column 1
### expect refusal remove-column 2
### expect refusal remove-column 3
    { posts: %i[slug] }.each { |table, columns| columns.each { remove_column table, _1 } }
    { posts: :price }.each { remove_column _1, _2 }
    %i[views_count].each { %w[x].each { say it }; remove_column :posts, it }

### case parameters of all kinds
### expect refusal remove-column 2
### expect refusal remove-column 2
### expect refusal remove-column 4
    [[:posts, :slug, :price]].each do |table, *columns|
      remove_columns table, *columns
    end
    [[[:posts, :views_count], 1]].each { |(table, column), index| remove_column table, column }

### case yield with what it gives
### expect refusal remove-column 3
class A < ActiveRecord::Migration[7.1]
  def up
    each_column { |column| remove_column :posts, column }
  end

  def each_column
    yield :slug
  end
end

### case for
### expect refusal remove-column 2
    for column in %i[slug]
      remove_column :posts, column
    end

### case a block is undone
### expect warning drop-table 4
### expect refusal remove-column 3
### expect refusal rename-column 2
### says drops the table drafts
### says removes the column posts.slug
    revert do
      rename_column :posts, :headline, :title
      add_column :posts, :slug, :string
      create_table(:drafts) { |t| t.string :name }
      add_index :posts, :slug, algorithm: :concurrently, name: "x" if false
    end

### case what cannot be undone
### expect note dynamic 2
    revert do
      change_column :posts, :slug, :text
    end
