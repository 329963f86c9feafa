### case up is read, down is not
### expect refusal remove-column 3
class A < ActiveRecord::Migration[7.1]
  def up
    remove_column :posts, :slug
  end

  def down
    drop_table :posts
  end
end

### case methods of the class, as old Rails had them
### expect refusal remove-column 3
class A < ActiveRecord::Migration
  def self.up
    remove_column :posts, :slug
  end

  def self.down
    add_column :posts, :slug, :string
  end
end

### case methods in the singleton class
### expect refusal remove-column 4
class A < ActiveRecord::Migration
  class << self
    def up
      remove_column :posts, :slug
    end
  end
end

### case a class in a module
### expect refusal remove-column 4
module Blog
  class A < ActiveRecord::Migration[7.1]
    def change
      remove_column :posts, :slug
    end
  end
end

### case reversible
### expect refusal remove-column 2
    reversible do |dir|
      dir.up { remove_column :posts, :slug }
      dir.down { drop_table :posts }
    end

### case reversible with do
### expect refusal drop-table 3
    reversible do |direction|
      direction.up do
        drop_table :comments
      end
      direction.down do
        create_table :comments
      end
    end

### case up_only
### expect refusal drop-table 1
    up_only { drop_table :comments }

### case a list of columns
### expect refusal remove-column 2
### expect refusal remove-column 2
    [:slug, :views_count, :legacy].each do |column|
      remove_column :posts, column
    end

### case a list of words in a constant
### expect refusal remove-column 5
### expect refusal remove-column 5
class A < ActiveRecord::Migration[7.1]
  COLUMNS = %w[slug views_count].freeze

  def change
    COLUMNS.each { |column| remove_column :posts, column }
  end
end

### case a list passed on with a star
### expect refusal remove-column 2
### expect refusal remove-column 2
    columns = %i[slug views_count]
    remove_columns :posts, *columns

### case a map of tables
### expect refusal remove-column 2
### expect refusal remove-column 2
    { posts: :slug, users: :name }.each do |table, column|
      remove_column table, column
    end

### case a map of lists
### expect refusal remove-column 3
### expect refusal remove-column 3
    { posts: %i[slug views_count], comments: [:secret_note] }.each_pair do |table, columns|
      columns.each do |column|
        remove_column table, column
      end
    end

### case pairs
### expect refusal rename-column 2
    [[:posts, :slug, :permalink]].each do |table, from, to|
      rename_column table, from, to
    end

### case the item without a name
### expect refusal remove-column 1
    %i[slug].each { remove_column :posts, it }

### case the item by number
### expect refusal remove-column 1
    %i[slug].each { remove_column :posts, _1 }

### case a list that is not written out
### expect note dynamic 2
### class breaks
    Rails.configuration.tables.each do |table|
      remove_column table, :slug
    end

### case a table that is not written out
### expect note dynamic 1
    remove_column Post.some_table, :slug

### case the table of a model
### expect refusal remove-column 1
    remove_column Post.table_name, :slug

### case names made of pieces
### expect refusal remove-column 2
    prefix = "view"
    remove_column :posts, "#{prefix}s_count"

### case a method of the file
### expect refusal remove-column 7
class A < ActiveRecord::Migration[7.1]
  def change
    drop_old(:posts, :slug)
  end

  def drop_old(table, column)
    remove_column table, column
  end
end

### case a method with defaults and keywords
### expect refusal remove-column 9
class A < ActiveRecord::Migration[7.1]
  def up
    drop_old column: :slug
  end

  private

  def drop_old(table = :posts, column:, force: false)
    remove_column table, column
  end
end

### case a method that gives a name
### expect refusal remove-column 3
class A < ActiveRecord::Migration[7.1]
  def up
    remove_column table_name, :slug
  end

  def table_name
    :posts
  end
end

### case a method that yields
### expect refusal remove-column 3
class A < ActiveRecord::Migration[7.1]
  def up
    guarded { remove_column :posts, :slug }
  end

  def guarded
    say "now"
    yield
  end
end

### case a method that calls itself
### expect note dynamic 7
class A < ActiveRecord::Migration[7.1]
  def up
    again
  end

  def again
    again
  end
end

### case unless the column is there
### says under a condition
### expect refusal not-null-column 2
    unless column_exists?(:posts, :region)
      add_column :posts, :region, :string, null: false
    end

### case both branches count
### expect warning drop-table 4
### expect warning remove-column 2
### says only where `ENV["SMALL"]` holds
### says only where `ENV["SMALL"]` does not hold
    if ENV["SMALL"]
      remove_column :posts, :slug
    else
      drop_table :comments
    end

### case every branch of a case counts
### expect warning drop-table 5
### expect warning remove-column 3
### says only where `ENV["SIZE"]` is `"small"`
### says only where `ENV["SIZE"]` is none of these
    case ENV["SIZE"]
    when "small"
      remove_column :posts, :slug
    else
      drop_table :comments
    end

### case return if
### says under a condition
### expect refusal remove-column 5
class A < ActiveRecord::Migration[7.1]
  def up
    return unless column_exists?(:posts, :slug)

    remove_column :posts, :slug
  end
end

### case begin and rescue
### expect refusal remove-column 4
class A < ActiveRecord::Migration[7.1]
  def up
    begin
      remove_column :posts, :slug
    rescue ActiveRecord::StatementInvalid => e
      say e.message
    end
  end
end

### case rescue of the method
### expect refusal remove-column 3
class A < ActiveRecord::Migration[7.1]
  def up
    remove_column :posts, :slug
  rescue StandardError
    nil
  end
end

### case and
### expect refusal remove-column 1
    column_exists?(:posts, :slug) && remove_column(:posts, :slug)

### case say_with_time
### expect refusal remove-column 2
    say_with_time "bye" do
      remove_column :posts, :slug
    end

### case suppress_messages and transaction
### expect refusal remove-column 3
    suppress_messages do
      transaction do
        remove_column :posts, :slug
      end
    end

### case another migration is reverted
### expect note dynamic 1
### class breaks
    revert CreatePosts

### case a block is reverted
### expect refusal drop-table 2
    revert do
      create_table :posts
    end

### case a helper that is not in the file
### expect note dynamic 3
### class breaks
class A < Gitlab::Database::Migration[2.1]
  def up
    add_concurrent_index :posts, :slug, name: INDEX
  end

  def down
    remove_concurrent_index :posts, :slug
  end
end

### case a helper with a block
### expect note dynamic 1
### expect refusal remove-column 2
    with_tenants do
      remove_column :posts, :slug
    end

### case with_lock_retries
### expect refusal remove-column 2
    with_lock_retries do
      remove_column :posts, :slug
    end

### case options passed on are dynamic
### expect note dynamic 1
    add_column(*arguments)

### case a default that is not written out
### class restart
    add_column :posts, :region, :string, default: Rails.configuration.region

### case a block of change_table with a dynamic name
### expect note dynamic 1
    change_table(some_name) do |t|
      t.remove :slug
    end

### case what is not Ruby
### expect refusal syntax-error 3
### class breaks
class A < ActiveRecord::Migration[7.1]
  def change
    remove_column :posts, , :slug
  end
end

### case words of a migration in comments and texts
### class unnoticed
class A < ActiveRecord::Migration[7.1]
  # remove_column :posts, :slug
  def change
    say "remove_column :posts, :slug"
  end
end

### case while
### expect refusal remove-column 2
    while column_exists?(:posts, :slug)
      remove_column :posts, :slug
    end

### case variables that change under a condition
### expect note dynamic 3
    name = :slug
    name = :views_count if ENV["OTHER"]
    remove_column :posts, name

### case an instance variable
### expect refusal remove-column 2
    @table = :posts
    remove_column @table, :slug

### case a migration without a version
### class restart
class A < ActiveRecord::Migration
  def change
    add_reference :posts, :category
    add_timestamps :tags
  end
end

### case a lambda that is called
### expect note dynamic 2
    drop = -> { drop_table :comments }
    drop.call

### case numbers of times
### expect refusal index-blocks 2
### expect refusal index-blocks 2
    2.times do |number|
      add_index :posts, "part_#{number}"
    end

### case options that are put together
class A < ActiveRecord::Migration[7.1]
  disable_ddl_transaction!

  def change
    options = {}
    options[:algorithm] = :concurrently
    columns = %i[slug]
    columns += [:status]
    columns << :author_id
    add_index :posts, columns, **options.merge(name: "a")
  end
end

### case options that are put together under a condition
### expect note dynamic 4
    options = {}
    options[:algorithm] = :concurrently if ENV["ONLINE"]
    options[:name] = "a"
    add_index :posts, :slug, **options

### case a variable that may have two values
### expect note dynamic 3
    table = nil
    table ||= :posts
    remove_column table, :slug

### case two variables at once
### expect refusal remove-column 2
    table, column = :posts, :slug
    remove_column table, column
