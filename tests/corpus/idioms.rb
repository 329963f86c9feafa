### case a plugin's table, guarded
### class restart
class CreateReactionUsers < ActiveRecord::Migration[6.1]
  def change
    return if table_exists?(:reaction_users)

    create_table :reaction_users do |t|
      t.integer :reaction_id
      t.integer :user_id
      t.timestamps
    end

    add_index :reaction_users, :reaction_id
    add_index :reaction_users, %i[reaction_id user_id], unique: true, name: "reaction_id_user_id"
  end
end

### case a site setting is renamed by SQL
### class restart
class RenameSiteSetting < ActiveRecord::Migration[7.0]
  def up
    execute "UPDATE settings SET var = 'new_name' WHERE var = 'old_name'"
  end

  def down
    execute "UPDATE settings SET var = 'old_name' WHERE var = 'new_name'"
  end
end

### case DB.exec is not known
### class restart
class Backfill < ActiveRecord::Migration[7.0]
  disable_ddl_transaction!

  BATCH_SIZE = 10_000

  def up
    min, max = DB.query_single("SELECT MIN(id), MAX(id) FROM posts")
    (min..max).step(BATCH_SIZE) do |start|
      execute <<~SQL
        UPDATE posts SET status = 1 WHERE id BETWEEN 1 AND 2
      SQL
    end
  end

  def down
    raise ActiveRecord::IrreversibleMigration
  end
end

### case a concurrent index with a step before it
class AddIndexSafely < ActiveRecord::Migration[6.1]
  disable_ddl_transaction!

  def up
    remove_index :posts, name: :index_posts_on_day, algorithm: :concurrently, if_exists: true
    add_index :posts, %i[author_id published_at], name: :index_posts_on_day, algorithm: :concurrently
  end

  def down
    remove_index :posts, name: :index_posts_on_day
  end
end

### case a deduplication before a unique index
### expect note new-constraint 20
class Dedupe < ActiveRecord::Migration[5.2]
  disable_ddl_transaction!

  class Tag < ApplicationRecord
    has_many :posts
  end

  class StatusPin < ApplicationRecord; end

  def up
    duplicates = Tag.connection.select_all("SELECT string_agg(id::text, ',') AS ids FROM tags GROUP BY lower(name) HAVING count(*) > 1").to_ary

    duplicates.each do |row|
      ids = row["ids"].split(",")
      id = ids.shift
      say "Merging #{ids.size} tags"
      Tag.where(id: ids).reorder(nil).delete_all
    end

    add_index :tags, "lower(name)", unique: true, algorithm: :concurrently, name: "index_tags_on_name_lower"
  end

  def down; end
end
### expect note backfill-at-once 17

### case strong_migrations' own helper
### expect note check-validates 4
class AddNotNull < ActiveRecord::Migration[7.0]
  def change
    safety_assured do
      execute 'ALTER TABLE "posts" ADD CONSTRAINT "posts_null" CHECK ("slug" IS NOT NULL)'
    end
  end
end

### case validated, then not null
class ValidateNotNull < ActiveRecord::Migration[7.0]
  def change
    validate_check_constraint :users, name: "users_nickname_null"
    change_column_null :users, :nickname, false
    remove_check_constraint :users, name: "users_nickname_null"
  end
end

### case an old migration with integers for its keys
class CreateThings < ActiveRecord::Migration[4.2]
  def self.up
    create_table :things, :force => false do |t|
      t.column :name, :string, :limit => 30, :default => "", :null => false
      t.column "position", :integer, :default => 1
      t.timestamp :happened_on
    end
    add_index :things, [:name], :name => :things_name
  end

  def self.down
    drop_table :things
  end
end

### case old rockets
### expect refusal not-null-column 3
class AddRegion < ActiveRecord::Migration[5.0]
  def change
    add_column :posts, :region, :string, :null => false
  end
end

### case a spree-like extension
### expect warning index-blocks 5
class AddStore < ActiveRecord::Migration[6.1]
  def change
    unless column_exists?(:spree_products, :store_id)
      add_column :spree_products, :store_id, :bigint
      add_index :spree_products, :store_id
    end
  end
end

### case a concern of migrations
### expect note dynamic 5
class AddPriority < Gitlab::Database::Migration[2.2]
  milestone "16.9"
  restrict_gitlab_migration gitlab_schema: :gitlab_main
  def up
    queue_batched_background_migration("Backfill", :posts, :id)
  end
end

### case enable_lock_retries!
### class restart
class AddFlag < Gitlab::Database::Migration[2.2]
  enable_lock_retries!

  def change
    add_column :users, :flag, :boolean, default: false, null: false
  end
end

### case a text limit in a create_table
class CreateFlags < Gitlab::Database::Migration[2.2]
  def change
    create_table :flags do |t|
      t.references :user, index: true, null: false, foreign_key: { on_delete: :cascade }
      t.datetime_with_timezone :happened_at
      t.text :name, null: false, limit: 255
      t.binary :digest
    end
  end
end

### case custom types
    create_table :places do |t|
      t.citext :name
      t.tsvector :search
      t.st_point :position, geographic: true
      t.inet :address
      t.daterange :open
      t.enum :mood, enum_type: "mood", default: "happy"
      t.virtual :low, type: :string, as: "lower(name)", stored: true
    end

### case a table with a composite key
    create_table :seats, primary_key: [:row, :number] do |t|
      t.integer :row
      t.integer :number
    end

### case MySQL options
### engine mysql 8.0.36
    create_table :blobs, options: "ENGINE=InnoDB ROW_FORMAT=DYNAMIC", charset: "utf8mb4" do |t|
      t.binary :data, limit: 16.megabytes
      t.text :more, size: :medium
    end

### case Active Storage's own migration
class CreateActiveStorageTables < ActiveRecord::Migration[7.0]
  def change
    primary_key_type, foreign_key_type = primary_and_foreign_key_types

    create_table :active_storage_blobs, id: primary_key_type do |t|
      t.string   :key,          null: false
      t.bigint   :byte_size,    null: false

      if connection.supports_datetime_with_precision?
        t.datetime :created_at, precision: 6, null: false
      else
        t.datetime :created_at, null: false
      end

      t.index [ :key ], unique: true
    end

    create_table :active_storage_attachments, id: primary_key_type do |t|
      t.references :record, null: false, polymorphic: true, index: false, type: foreign_key_type
      t.references :blob, null: false, type: foreign_key_type
      t.foreign_key :active_storage_blobs, column: :blob_id
    end
  end

  private
    def primary_and_foreign_key_types
      config = Rails.configuration.generators
      setting = config.options[config.orm][:primary_key_type]
      primary_key_type = setting || :primary_key
      foreign_key_type = setting || :bigint
      [primary_key_type, foreign_key_type]
    end
end

### case devise
### expect note new-constraint 12
### expect refusal index-blocks 12
class AddDeviseToUsers < ActiveRecord::Migration[7.0]
  def self.up
    change_table :users do |t|
      ## Database authenticatable
      t.string :encrypted_password, null: false, default: ""

      ## Recoverable
      t.string   :reset_password_token
      t.datetime :reset_password_sent_at
    end

    add_index :users, :reset_password_token, unique: true
  end

  def self.down
    raise ActiveRecord::IrreversibleMigration
  end
end

### case a counter is reset
### class restart
class ResetCounters < ActiveRecord::Migration[6.0]
  def up
    Post.pluck(:id).each { |id| Post.reset_counters(id, :comments) }
  end
end

### case PaperTrail's limits
class CreateVersions < ActiveRecord::Migration[5.2]
  TEXT_BYTES = 1_073_741_823

  def change
    create_table :versions do |t|
      t.string   :item_type, { null: false }
      t.integer  :item_id,   null: false
      t.text     :object, limit: TEXT_BYTES
    end
    add_index :versions, %i(item_type item_id)
  end
end

### case a raise in up
### class unnoticed
class Never < ActiveRecord::Migration[6.0]
  def up
    raise "Run this one by hand" if Rails.env.production?
  end
end

### case mini_sql is given SQL
### expect refusal remove-column 3
class DropSlug < ActiveRecord::Migration[7.0]
  def up
    DB.exec("ALTER TABLE posts DROP COLUMN slug")
  end
end

### case a class that is not known does it
### expect note dynamic 4
### class breaks
class DropSlug < ActiveRecord::Migration[7.0]
  DROPPED_COLUMNS = { posts: %i[slug] }
  def up
    DROPPED_COLUMNS.each { |table, columns| Migration::ColumnDropper.execute_drop(table, columns) }
  end
end

### case a relation is walked through
### expect warning backfill-in-transaction 4
### class restart
class Fill < ActiveRecord::Migration[7.0]
  def up
    User.where(admin: true).includes(:posts).order(:id).find_each(batch_size: 100) do |user|
      user.posts.each { |post| post.update_column(:status, 1) }
    end
  end
end

### case methods of the class
### expect refusal rename-table 3
class AlterPosts < ActiveRecord::Migration[6.1]
  def self.up
    rename_table :posts, :articles
  end

  def self.down
    rename_table :articles, :posts
  end
end

### case tables change their names around
### expect refusal rename-table 1
### expect refusal rename-table 2
### expect refusal remove-column 3
### says the running model Comment
    rename_table :posts, :old_posts
    rename_table :comments, :posts
    remove_column :posts, :kind

### case a block for the way up, of self
### expect note backfill-at-once 2
    self.up_only do
      Post.update_all(slug: "")
    end

### case a default that is computed from what is written
    %i[title body].each do |role|
      add_column :posts, "#{role}_weight", :integer, default: role == :title ? 500 : 400, null: false
    end
