### case a table is created
### class restart
### says creates the table invoices
class CreateInvoices < ActiveRecord::Migration[7.1]
  def change
    create_table :invoices do |t|
      t.references :user, null: false, foreign_key: true
      t.string :number, null: false
      t.integer :state, null: false, default: 0
      t.jsonb :lines, null: false, default: []
      t.timestamps
      t.index :number, unique: true
    end
    add_index :invoices, :state
    add_foreign_key :invoices, :posts
  end
end

### case a table with a uuid for its key
    create_table :invoices, id: :uuid, default: -> { "gen_random_uuid()" } do |t|
      t.uuid :token, default: -> { "gen_random_uuid()" }, null: false
    end

### case a table with a small key
### expect note small-key 1
    create_table :invoices, id: :integer do |t|
      t.string :number
    end

### case a table with a small key in a hash
### expect note small-key 1
    create_table :invoices, id: { type: :integer } do |t|
      t.string :number
    end

### case a table that exists, with force
### expect refusal force-create 1
### class breaks
    create_table :posts, force: true do |t|
      t.string :title
    end

### case a table that exists, with force: :cascade
### expect refusal force-create 1
    create_table :posts, force: :cascade do |t|
      t.string :title
    end

### case a new table with force
### expect warning force-create 1
    create_table :invoices, force: true do |t|
      t.string :title
    end

### case a join table
### says adds the column tags_users.user_id (bigint, not null)
    create_join_table :users, :tags do |t|
      t.index [:user_id, :tag_id]
    end

### case a join table with a name
    create_join_table :users, :tags, table_name: :labels

### case a table is dropped that a model stands for
### expect refusal drop-table 1
### class breaks
    drop_table :comments

### case a table is dropped with its definition
### expect refusal drop-table 1
    drop_table :comments do |t|
      t.text :text
    end

### case a table of nobody is dropped
### expect warning drop-table 1
### class breaks
    drop_table :orphans

### case several tables are dropped
### expect refusal drop-table 1
### expect warning drop-table 1
    drop_table :comments, :orphans

### case the table of an association is dropped
### expect refusal drop-table 1
    drop_join_table :posts, :tags

### case a table is dropped if it exists
### expect refusal drop-table 1
    drop_table :comments, if_exists: true

### case made and dropped again
### class restart
    create_table :scratch do |t|
      t.string :a
    end
    drop_table :scratch

### case a table is renamed
### expect refusal rename-table 1
### class breaks
    rename_table :comments, :remarks

### case a table of nobody is renamed
### expect warning rename-table 1
    rename_table :orphans, :strays

### case a new table is renamed
    create_table :scratch
    rename_table :scratch, :pads
    add_index :pads, :a

### case a schema is created
### class restart
    create_schema :audit

### case a schema is renamed
### expect refusal rename-schema 1
    rename_schema :audit, :audits

### case a schema is dropped
### expect refusal drop-database 1
    drop_schema :audit

### case an extension is enabled
### class restart
    enable_extension "citext"

### case an extension is disabled
### expect warning drop-object 1
    disable_extension "citext"

### case an enum type is created
### class restart
    create_enum :mood, %w[happy sad]

### case an enum type is dropped
### expect warning drop-object 1
    drop_enum :mood

### case a comment is changed
### class unnoticed
    change_table_comment :posts, from: nil, to: "texts"
    change_column_comment :posts, :title, "the title"

### case a view of scenic
### class restart
    create_view :reports
    update_view :reports, version: 2, revert_to_version: 1

### case a view of scenic is dropped
### expect warning drop-object 1
    drop_view :reports, revert_to_version: 1

### case nothing at all
### class unnoticed
class Nothing < ActiveRecord::Migration[7.1]
  def change
  end
end

### case nothing going up
### class unnoticed
class Nothing < ActiveRecord::Migration[7.1]
  def up; end

  def down
    drop_table :posts
  end
end
