### case an index that blocks
### expect refusal index-blocks 3
### class unnoticed
class AddIndexToPosts < ActiveRecord::Migration[7.1]
  def change
    add_index :posts, :published_at
  end
end

### case an index as it should be
### class unnoticed
class AddIndexToPosts < ActiveRecord::Migration[7.1]
  disable_ddl_transaction!

  def change
    add_index :posts, :published_at, algorithm: :concurrently
  end
end

### case an index as it should be, if it is not there
class AddIndexToPosts < ActiveRecord::Migration[7.1]
  disable_ddl_transaction!

  def change
    add_index :posts, :published_at, algorithm: :concurrently, if_not_exists: true
  end
end

### case concurrently inside of the transaction
### expect refusal concurrent-in-transaction 1
    add_index :posts, :published_at, algorithm: :concurrently

### case an index on MySQL
### engine mysql 8.0.36
    add_index :posts, :published_at

### case concurrently on MySQL
### engine mysql 8.0.36
### expect refusal concurrent-unknown 1
    add_index :posts, :published_at, algorithm: :concurrently

### case inplace on MySQL
### engine mysql 8.0.36
    add_index :posts, :published_at, algorithm: :inplace

### case concurrently on SQLite
### engine sqlite
### expect refusal concurrent-unknown 1
    add_index :posts, :published_at, algorithm: :concurrently

### case an index with safety_assured
### expect note index-blocks 1
    safety_assured { add_index :posts, :published_at }

### case an index if it is not there
### expect refusal index-blocks 1
    add_index :posts, :published_at, if_not_exists: true

### case an index under a condition
### expect refusal index-blocks 1
### says under a condition
    add_index :posts, :published_at unless index_exists?(:posts, :published_at)

### case an index of a table of unknown standing
### expect warning index-blocks 1
    add_index :gadgets, :size

### case a unique index
### expect note new-constraint 4
### class breaks
class AddUniqueIndex < ActiveRecord::Migration[7.1]
  disable_ddl_transaction!
  def change
    add_index :tags, :name, unique: true, algorithm: :concurrently
  end
end

### case a unique index that blocks
### expect note new-constraint 1
### expect refusal index-blocks 1
    add_index :tags, [:name], unique: true

### case too many columns
### expect note wide-index 4
class AddWide < ActiveRecord::Migration[7.1]
  disable_ddl_transaction!
  def change
    add_index :posts, [:author_id, :status, :slug, :title], algorithm: :concurrently
  end
end

### case three columns are enough
### expect refusal index-blocks 1
    add_index :posts, %i[author_id status slug]

### case an index in the block of a table
### expect refusal index-blocks 2
    change_table :posts do |t|
      t.index :published_at
    end

### case an index that a column of a table's block brings
### expect note new-constraint 2
### expect refusal index-blocks 2
### expect refusal index-blocks 3
### says adds a unique index on posts (isbn)
    change_table :posts do |t|
      t.string :isbn, index: { unique: true }
      t.column :shelf, :string, index: true
      t.string :row, index: false
    end

### case an index on an expression
### expect refusal index-blocks 1
    add_index :users, "lower(email)", name: "index_users_on_lower_email"

### case a name that is too long
### expect refusal index-blocks 1
### expect refusal long-name 1
    add_index :posts, :slug, name: "index_posts_on_slug_with_a_name_that_goes_on_and_on_until_nobody_reads_it"

### case a server that loses rows
### engine postgresql 14.2
### expect warning index-corruption 4
class AddIndexToPosts < ActiveRecord::Migration[7.1]
  disable_ddl_transaction!
  def change
    add_index :posts, :published_at, algorithm: :concurrently
  end
end

### case a server that no longer loses rows
### engine postgresql 14.10 (Debian)
class AddIndexToPosts < ActiveRecord::Migration[7.1]
  disable_ddl_transaction!
  def change
    add_index :posts, :published_at, algorithm: :concurrently
  end
end

### case an index is removed
### expect warning index-removal-blocks 1
### class unnoticed
    remove_index :posts, :author_id

### case an index is removed by name
### expect warning index-removal-blocks 1
### class restart
    remove_index :posts, name: "index_posts_on_slug"

### case an index is removed concurrently
### class unnoticed
class RemoveIndex < ActiveRecord::Migration[7.1]
  disable_ddl_transaction!
  def change
    remove_index :posts, column: :author_id, algorithm: :concurrently
  end
end

### case an index is removed concurrently inside of the transaction
### expect refusal concurrent-in-transaction 1
    remove_index :posts, column: :author_id, algorithm: :concurrently

### case an index is renamed
### class unnoticed
    rename_index :posts, "index_posts_on_slug", "posts_slug"

### case a reference brings an index
### expect refusal index-blocks 1
### class restart
    add_reference :posts, :category

### case a reference of an old migration brings none
class AddCategory < ActiveRecord::Migration[4.2]
  def change
    add_reference :posts, :category
  end
end

### case a reference without an index
    add_reference :posts, :category, index: false

### case a reference with an index as it should be
class AddCategory < ActiveRecord::Migration[7.1]
  disable_ddl_transaction!
  def change
    add_reference :posts, :category, index: { algorithm: :concurrently }
  end
end

### case a reference with a foreign key
### expect refusal foreign-key-validates 4
class AddCategory < ActiveRecord::Migration[7.1]
  disable_ddl_transaction!
  def change
    add_reference :posts, :category, foreign_key: true, index: { algorithm: :concurrently }
  end
end

### case a reference with a foreign key that waits
### expect note new-constraint 4
class AddCategory < ActiveRecord::Migration[7.1]
  disable_ddl_transaction!
  def change
    add_reference :posts, :category, foreign_key: { validate: false }, index: { algorithm: :concurrently }
  end
end

### case a reference that must be there
### expect refusal index-blocks 1
### expect refusal not-null-column 1
    add_reference :posts, :category, null: false

### case a polymorphic reference
### expect refusal index-blocks 1
### says posts.owner_type
    add_reference :posts, :owner, polymorphic: true

### case add_belongs_to
### expect refusal index-blocks 1
    add_belongs_to :posts, :category

### case references in the block of a table
### expect refusal index-blocks 2
    change_table :posts do |t|
      t.references :category
    end

### case a new table in one migration
    create_table :gadgets do |t|
      t.string :name
    end
    add_index :gadgets, :name
    add_index :gadgets, [:name, :id], unique: true
    remove_index :gadgets, :name

### case nobody knows how the index is built
### expect note dynamic 1
### expect warning index-blocks 1
### says only where algorithm: is not :concurrently
    add_index :posts, :title, algorithm: index_algorithm

### case nobody knows whether the reference has an index
### expect warning index-blocks 1
### says only where index: is set
    add_reference :posts, :editor, index: indexed?

### case nobody knows how the index of a reference is built
### expect note dynamic 1
### expect warning index-blocks 1
### says only where algorithm: is not :concurrently
    add_reference :posts, :editor, index: { algorithm: index_algorithm }

### case concurrently in a transaction that the migration opens
### expect refusal concurrent-in-transaction 5
### says one is opened around it
class AddIndex < ActiveRecord::Migration[7.1]
  disable_ddl_transaction!
  def change
    ActiveRecord::Base.transaction do
      add_index :posts, :title, algorithm: :concurrently
    end
  end
end

### case concurrently after a transaction that the migration opens
class AddIndex < ActiveRecord::Migration[7.1]
  disable_ddl_transaction!
  def change
    transaction do
      add_column :posts, :rank, :integer
    end
    add_index :posts, :title, algorithm: :concurrently
  end
end

### case rows written in a transaction that the migration opens
### expect warning backfill-in-transaction 6
class Backfill < ActiveRecord::Migration[7.1]
  disable_ddl_transaction!
  def up
    transaction do
      add_column :posts, :rank, :integer
      Post.update_all(rank: 0)
    end
    Post.in_batches.update_all(rank: 1)
  end
end

### case two transactions that the migration opens, one after the other
### expect note backfill-at-once 8
class Backfill < ActiveRecord::Migration[7.1]
  disable_ddl_transaction!
  def up
    transaction do
      add_column :posts, :rank, :integer
    end
    transaction do
      Post.update_all(rank: 0)
    end
  end
end
