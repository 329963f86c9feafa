### case rows in batches, without a transaction
### class restart
class BackfillRank < ActiveRecord::Migration[7.1]
  disable_ddl_transaction!

  def up
    Post.unscoped.in_batches(of: 1_000) do |rows|
      rows.update_all(rank: 0)
      sleep(0.01)
    end
  end

  def down; end
end
### expect note backfill-at-once 6

### case rows after a new column
### expect warning backfill-in-transaction 4
class AddRank < ActiveRecord::Migration[7.1]
  def up
    add_column :posts, :rank, :integer
    Post.update_all(rank: 0)
  end
end

### case each row after a new column
### expect warning backfill-in-transaction 5
class AddRank < ActiveRecord::Migration[5.2]
  def up
    add_column :posts, :rank, :integer
    Post.find_each do |post|
      post.update!(rank: post.id)
    end
  end
end

### case each row without a change
### class restart
class TouchPosts < ActiveRecord::Migration[5.2]
  def up
    Post.find_each do |post|
      post.update_columns(rank: post.id)
    end
  end
end

### case a model of the migration's own
### expect warning backfill-in-transaction 9
class AddRank < ActiveRecord::Migration[6.0]
  class MigrationPost < ActiveRecord::Base
    self.table_name = "posts"
  end

  def up
    add_column :posts, :rank, :integer
    MigrationPost.reset_column_information
    MigrationPost.where(rank: nil).update_all("rank = id")
  end
end

### case rows of a new table
class CreateColours < ActiveRecord::Migration[7.1]
  def up
    create_table :colours do |t|
      t.string :name
    end
    Colour.create!(name: "red")
    Colour.insert_all([{ name: "blue" }])
  end
end

### case a setting is written
### class restart
    Setting.create!(var: "a", value: "b")

### case a setting is deleted by SQL
### class restart
    execute "DELETE FROM settings WHERE var = 'a'"

### case a setting is inserted by SQL
### class restart
    execute "INSERT INTO settings (var, value) VALUES ('a', 'b') ON CONFLICT DO NOTHING"

### case rows are only read
### class unnoticed
    say "there are #{Post.count} posts"

### case a transaction of the model
### class restart
    Post.transaction do
      Post.where(status: 0).find_each { |post| post.update!(status: 1) }
    end

### case connection.update
### class restart
    connection.update("UPDATE settings SET value = 1 WHERE var = 'a'")

### case rows written after an index is fine outside of a transaction
### engine mysql 8.0.36
### expect note backfill-at-once 2
    add_column :posts, :rank, :integer
    Post.update_all(rank: 0)

### case a job is started
### expect note dynamic 1
    migrate_in_background("Rank", :posts)

### case a common table expression that writes
### class restart
    execute "WITH old AS (SELECT id FROM posts) UPDATE posts SET status = 1 FROM old WHERE old.id = posts.id"
