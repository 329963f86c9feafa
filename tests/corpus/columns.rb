### case a column of a running model is removed
### expect refusal remove-column 3
### class breaks
### says removes the column posts.slug
class RemoveSlugFromPosts < ActiveRecord::Migration[7.1]
  def change
    remove_column :posts, :slug, :string
  end
end

### case a column that the running model ignores is removed
### class restart
class RemoveLegacyFromPosts < ActiveRecord::Migration[7.1]
  def change
    safety_assured { remove_column :posts, :legacy, :string }
  end
end

### case safety_assured does not make a used column unused
### expect refusal remove-column 1
    safety_assured { remove_column :posts, :slug, :string }

### case removed with a type and options
### expect refusal remove-column 1
    remove_column :posts, :views_count, :integer, default: 0, null: false

### case removed by strings
### expect refusal remove-column 1
    remove_column "posts", "views_count"

### case removed from a table with its schema
### expect refusal remove-column 1
    remove_column "public.posts", :views_count

### case several columns at once
### expect refusal remove-column 1
    remove_columns :posts, :legacy, :slug

### case several columns with a type
### expect refusal remove-column 1
### expect refusal remove-column 1
    remove_columns :posts, :views_count, :slug, type: :string

### case all ignored
### class restart
    remove_columns :posts, :legacy

### case ignored by a concern
### class restart
    remove_column :comments, :secret_note, :string

### case used although a concern ignores another
### expect refusal remove-column 1
    remove_column :comments, :kind, :string

### case a model in a module with a prefix
### expect refusal remove-column 1
    remove_column :admin_logs, :message, :string

### case a model in a module with a prefix, ignored
### class restart
    remove_column :admin_logs, :level, :string

### case a model with a table name of its own
### expect refusal remove-column 1
### says Order
    remove_column :legacy_orders, :state, :string

### case the list of ignored columns cannot be read
### expect warning remove-column 1
### class breaks
    remove_column :people, :nick, :string

### case nobody stands for the table
### expect warning remove-column 1
### class breaks
    remove_column :orphans, :name, :string

### case only one class of the table ignores it
### expect refusal remove-column 1
### says Vehicle
    remove_column :vehicles, :trunk, :string

### case a join table is used by its association
### expect refusal remove-column 1
    remove_column :posts_tags, :tag_id

### case timestamps are removed
### expect refusal remove-column 1
### expect refusal remove-column 1
    remove_timestamps :posts

### case a reference is removed
### expect refusal remove-column 1
### says comments.user_id
    remove_reference :comments, :user

### case a polymorphic reference is removed
### model class Note < ApplicationRecord\nend
### schema ActiveRecord::Schema.define do\n create_table "notes" do |t|\n t.bigint "on_id"\n t.string "on_type"\n end\nend
### expect refusal remove-column 1
### expect refusal remove-column 1
    remove_belongs_to :notes, :on, polymorphic: true

### case removed in the block of a table
### expect refusal remove-column 2
### expect refusal remove-column 2
    change_table :posts do |t|
      t.remove :slug, :views_count
    end

### case removed in bulk
### expect refusal remove-column 2
    change_table :posts, bulk: true do |t|
      t.remove :slug
      t.remove :legacy
    end

### case a reference is removed in the block of a table
### expect refusal remove-column 2
    change_table(:comments) do |t|
      t.remove_references :user
    end

### case a column that this migration adds is removed again
### class restart
    add_column :posts, :tmp, :string
    remove_column :posts, :tmp, :string

### case a column that the deployed schema does not have
### class restart
    remove_column :posts, :never_was, :string

### case renamed
### expect refusal rename-column 1
### class breaks
    rename_column :posts, :slug, :permalink

### case renamed although ignored
### class restart
    rename_column :posts, :legacy, :legacy_text

### case renamed in the block of a table
### expect refusal rename-column 2
    change_table :users do |t|
      t.rename :name, :full_name
    end

### case renamed where nobody stands for the table
### expect warning rename-column 1
    rename_column :orphans, :name, :title

### case a column is added
### class restart
### says adds the column posts.subtitle (string)
    add_column :posts, :subtitle, :string

### case a column with a constant default on a server of today
### class restart
    add_column :posts, :pinned, :boolean, default: false, null: false

### case a column with a constant default on PostgreSQL 10
### engine postgresql 10.23
### expect refusal default-rewrites 1
    add_column :posts, :pinned, :boolean, default: false, null: false

### case a column with a constant default on PostgreSQL 16
### engine postgresql 16.2
    add_column :posts, :pinned, :boolean, default: false, null: false

### case a column with a constant default on MySQL 5.7
### engine mysql 5.7.44
### expect refusal default-rewrites 1
    add_column :posts, :pinned, :boolean, default: false

### case a column with a constant default on MySQL 8
### engine mysql 8.0.36
    add_column :posts, :pinned, :boolean, default: false

### case a column with a constant default on MariaDB
### engine mysql 10.11.6-MariaDB
    add_column :posts, :pinned, :boolean, default: false

### case a column with a default that is null
    add_column :posts, :pinned, :boolean, default: nil

### case not null and no default
### expect refusal not-null-column 1
### class breaks
    add_column :posts, :tenant_id, :bigint, null: false

### case not null and no default on MySQL
### engine mysql 8.0.36
### expect refusal not-null-column 1
    add_column :posts, :tenant_id, :bigint, null: false

### case not null in the block of a table
### expect refusal not-null-column 3
    change_table :posts do |t|
      t.string :subtitle
      t.string :region, null: false
    end

### case not null on a table of unknown standing
### expect warning not-null-column 1
    add_column :gadgets, :region, :string, null: false

### case a random default
### expect refusal default-rewrites 1
    add_column :posts, :token, :uuid, default: -> { "gen_random_uuid()" }, null: false

### case a random default, as Rails lets uuid say it
### expect refusal default-rewrites 1
    add_column :posts, :token, :uuid, default: "gen_random_uuid()", null: false

### case the time as a default is the same for all rows
### class restart
    add_column :posts, :seen_at, :datetime, default: -> { "CURRENT_TIMESTAMP" }, null: false

### case now() as a default
    add_column :posts, :seen_at, :datetime, default: -> { 'now()' }

### case a function of one's own as a default
### expect warning default-rewrites 1
    add_column :posts, :code, :string, default: -> { "next_code()" }

### case a generated column that is stored
### expect refusal stored-column 1
    add_column :posts, :slug_lower, :virtual, type: :string, as: "lower(slug)", stored: true

### case a generated column that is not stored
### engine mysql 8.0.36
    add_column :posts, :slug_lower, :virtual, type: :string, as: "lower(slug)"

### case a column that counts
### expect refusal auto-increment-column 1
    add_column :posts, :number, :bigserial

### case a new primary key
### expect refusal auto-increment-column 1
    add_column :posts_tags, :id, :primary_key

### case json
### expect warning json-column 1
    add_column :posts, :settings, :json

### case jsonb
    add_column :posts, :settings, :jsonb, default: {}

### case json on MySQL
### engine mysql 8.0.36
    add_column :posts, :settings, :json

### case char
### expect note char-column 1
    add_column :posts, :country, :char, limit: 2

### case several columns added at once
### says adds the column users.b (string)
    add_columns :users, :a, :b, type: :string

### case timestamps on an existing table
### expect refusal not-null-column 1
### expect refusal not-null-column 1
    add_timestamps :tags

### case timestamps that may be null
    add_timestamps :tags, null: true

### case timestamps with a default
    add_timestamps :tags, default: -> { "now()" }

### case timestamps of an old migration may be null
class AddTimestampsToTags < ActiveRecord::Migration[4.2]
  def change
    add_timestamps :tags
  end
end

### case the default changes
### expect warning change-default 1
### class breaks
    change_column_default :posts, :status, from: 0, to: 1

### case the default of a new column changes
### class restart
    add_column :posts, :rank, :integer
    change_column_default :posts, :rank, 0

### case the default changes in the block of a table
### expect warning change-default 2
    change_table :posts do |t|
      t.change_default :status, 2
    end

### case null is forbidden
### expect refusal not-null 1
### class breaks
    change_column_null :posts, :slug, false

### case null is forbidden, with a value for old rows
### expect refusal not-null 1
### expect warning backfill-in-transaction 1
    change_column_null :posts, :slug, false, ""

### case null is forbidden where a valid check says so already
    change_column_null :users, :nickname, false

### case null is forbidden after a check was validated
### expect note new-constraint 5
class RequireSlug < ActiveRecord::Migration[7.1]
  disable_ddl_transaction!

  def up
    add_check_constraint :posts, "slug IS NOT NULL", name: "posts_slug_null", validate: false
    validate_check_constraint :posts, name: "posts_slug_null"
    change_column_null :posts, :slug, false
    remove_check_constraint :posts, name: "posts_slug_null"
  end
end

### case null is forbidden where it is forbidden already
    change_column_null :posts, :title, false

### case null is forbidden on MySQL
### engine mysql 8.0.36
### expect warning not-null 1
    change_column_null :posts, :slug, false

### case null is allowed
### expect note null-allowed 1
### class restart
    change_column_null :posts, :title, true

### case null is forbidden in the block of a table
### expect refusal not-null 2
    change_table :posts do |t|
      t.change_null :slug, false
    end

### case nobody knows whether a new column may be null
### expect warning not-null-column 1
### says only where null: is false
### class breaks
    add_column :posts, :rank, :integer, null: optional?

### case a table that is there is not new
### expect refusal index-blocks 4
    create_table :posts, if_not_exists: true do |t|
      t.string :rank
    end
    add_index :posts, :views_count

### case a table that is created only where it is missing
### expect refusal index-blocks 6
    unless table_exists?(:posts)
      create_table :posts do |t|
        t.string :rank
      end
    end
    add_index :posts, :views_count

### case a table that is not there is new
    create_table :gadgets, if_not_exists: true do |t|
      t.string :rank
    end
    add_index :gadgets, :rank

### case a table that a model stands for, where nothing else is known
### model class Gadget < ApplicationRecord\nend
### schema none
### expect refusal index-blocks 4
    create_table :gadgets, if_not_exists: true do |t|
      t.string :rank
    end
    add_index :gadgets, :rank

### case a table that is made anew is empty
### expect warning drop-table 1
    drop_table :orphans
    create_table :orphans do |t|
      t.string :name
    end
    add_index :orphans, :name

### case a column that is there is not new
### expect refusal remove-column 2
    add_column :posts, :slug, :string, if_not_exists: true
    remove_column :posts, :slug

### case it is not known whether a table goes first
### expect warning force-create 1
### says only where force: is set
    create_table :posts, force: reset?

### case what a renamed table has is known by its old name
### expect refusal rename-table 1
### expect refusal remove-column 2
### expect refusal index-blocks 3
    rename_table :posts, :articles
    remove_column :articles, :slug, :string
    add_index :articles, :title

### case what a renamed table ignores is ignored
### expect refusal rename-table 1
    rename_table :posts, :articles
    remove_column :articles, :legacy, :string

### case a renamed column is no new one
### expect refusal rename-column 1
### expect refusal not-null 2
    rename_column :posts, :slug, :permalink
    change_column_null :posts, :permalink, false

### case what is ignored by its old name
### class restart
    rename_column :posts, :legacy, :older
    remove_column :posts, :older

### case a column that is there
### expect warning already-there 1
    add_column :posts, :slug, :string

### case a column that is there, if it is not
    add_column :posts, :slug, :string, if_not_exists: true
    add_column :posts, :slug, :string unless column_exists?(:posts, :slug)

### case a table that is there
### expect warning already-there 1
    create_table(:posts) { |t| t.string :shelf }
