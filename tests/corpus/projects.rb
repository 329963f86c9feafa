### case Mastodon: a column, backfilled in batches
class AddVisibility < ActiveRecord::Migration[7.1]
  disable_ddl_transaction!

  class Post < ApplicationRecord
    self.table_name = :posts
  end

  def up
    safety_assured do
      add_column :posts, :visibility, :integer, default: 0, null: false unless column_exists?(:posts, :visibility)
    end

    Post.unscoped.where(status: 1).in_batches(of: 1_000) do |batch|
      batch.update_all(visibility: 1)
    end
  end
end

### case Mastodon: an index is replaced where it is not valid
class ReplaceIndex < ActiveRecord::Migration[7.0]
  disable_ddl_transaction!

  def up
    if index_exists?(:posts, :slug, name: "new_index") && index_invalid?
      remove_index :posts, name: "new_index", algorithm: :concurrently
    end
    add_index :posts, [:slug, :status], name: "new_index", algorithm: :concurrently
  end

  private

  def index_invalid?
    ActiveRecord::Base.connection.select_one("SELECT 1 FROM pg_index WHERE NOT indisvalid").present?
  end
end

### case Mastodon: timestamps of many tables
### class restart
class AddTimestamps < ActiveRecord::Migration[7.1]
  TABLES = %i(tags admin_logs).freeze

  def change
    TABLES.each do |table|
      add_timestamps(table, null: true) unless column_exists?(table, :created_at)
    end
  end
end

### case Discourse: columns in a constant
### expect refusal remove-column 5
class DropSlug < ActiveRecord::Migration[7.0]
  DROPPED_COLUMNS ||= { posts: %i[slug] }

  def up
    DROPPED_COLUMNS.each { |table, columns| columns.each { |column| remove_column table, column } }
  end
end

### case Discourse: a class of theirs drops columns
### expect note dynamic 5
class DropSlug < ActiveRecord::Migration[7.0]
  DROPPED_COLUMNS ||= { posts: %i[slug] }

  def up
    DROPPED_COLUMNS.each { |table, columns| Migration::ColumnDropper.execute_drop(table, columns) }
  end
end

### case Discourse: until nothing is left
class FillInBatches < ActiveRecord::Migration[7.0]
  disable_ddl_transaction!

  def up
    loop do
      count = exec_update(<<~SQL)
        UPDATE posts SET slug = 'x' WHERE id IN (SELECT id FROM posts WHERE slug IS NULL LIMIT 1000)
      SQL
      break if count == 0
    end
  end
end

### case Discourse: nothing to do in tests
class SeedSites < ActiveRecord::Migration[7.0]
  def up
    return if Rails.env.test?
    return unless DB.query_single("SELECT 1 FROM site_settings LIMIT 1").first

    execute "INSERT INTO site_settings (name, value) VALUES ('a', 'b')"
  end
end

### case Discourse: a range of ids in steps
class CopyRows < ActiveRecord::Migration[7.0]
  disable_ddl_transaction!
  BATCH_SIZE = 500_000

  def up
    max = DB.query_single("SELECT MAX(id) FROM posts")[0]
    return if max.nil?

    (0..max).step(BATCH_SIZE) do |from|
      execute "UPDATE posts SET status = 1 WHERE id BETWEEN 1 AND 2"
    end
  end
end

### case GitLab: a constraint that is validated later
### expect note new-constraint 8
class AddLimit < ActiveRecord::Migration[7.0]
  disable_ddl_transaction!

  CONSTRAINT_NAME = "check_slug_length"

  def up
    with_lock_retries do
      add_check_constraint :posts, "char_length(slug) <= 255", name: CONSTRAINT_NAME, validate: false
    end
    disable_statement_timeout do
      validate_check_constraint :posts, name: CONSTRAINT_NAME
    end
  end
end

### case GitLab: an index by a helper of theirs
### expect note dynamic 8
class AddIndex < Gitlab::Database::Migration[2.2]
  disable_ddl_transaction!
  milestone "17.0"
  INDEX_NAME = "index_posts_on_slug_and_status"

  def up
    return if index_exists_by_name?(:posts, INDEX_NAME)
    add_concurrent_index(:posts, [:slug, :status], name: INDEX_NAME)
  end
end

### case GitLab: only on a certain instance
### expect warning remove-column 7
class RemoveSlug < ActiveRecord::Migration[7.0]
  disable_ddl_transaction!

  def up
    return unless should_run?

    remove_column :posts, :slug if Gitlab.com?
  end

  def should_run?
    Gitlab.com? || Gitlab.dev_or_test_env?
  end
end

### case Redmine: another engine's limits
class ChangeText < ActiveRecord::Migration[4.2]
  def self.up
    if ActiveRecord::Base.connection.adapter_name =~ /mysql/i
      max_size = 16.megabytes
      change_column :posts, :body, :text, :limit => max_size
    end
  end
end

### case Redmine: settings are written in a loop
### expect note dynamic 7
class AddSettings < ActiveRecord::Migration[5.2]
  def up
    Setting.where(:name => %w(a b)).each do |setting|
      setting.value = setting.value.to_s.gsub("x", "y")
      setting.save!
    end
    Setting.clear_cache if Setting.respond_to?(:clear_cache)
  end
end

### case Redmine: a plugin's tables with a helper for their columns
class CreatePluginTables < ActiveRecord::Migration[5.2]
  def change
    %w[alpha beta].each_with_index do |name, index|
      create_table "plugin_#{name}" do |t|
        title(t, index: index.zero?)
        t.timestamps null: false
      end
      add_index "plugin_#{name}", :title
    end
  end

  private

  def title(t, index:)
    t.string :title, null: false, default: ""
    t.references :user, index: index
  end
end

### case Spree: a column where its table is, and an option for the engine
### class restart
### says posts.private_metadata (jsonb)
class AddPrivateMetadata < ActiveRecord::Migration[6.1]
  disable_ddl_transaction!

  def change
    %i[posts users].each do |table_name|
      next unless table_exists?(table_name)

      change_table table_name do |t|
        if t.respond_to? :jsonb
          add_column table_name, :private_metadata, :jsonb
        else
          add_column table_name, :private_metadata, :json
        end
      end
      options = connection.adapter_name == "PostgreSQL" ? { algorithm: :concurrently } : {}
      add_index table_name, :private_metadata, **options
    end
  end
end
