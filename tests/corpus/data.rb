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
### expect warning backfill-in-transaction 4
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
### expect warning backfill-in-transaction 2
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

### case all rows in batches
class Backfill < ActiveRecord::Migration[7.1]
  disable_ddl_transaction!
  def up
    Post.where(slug: nil).in_batches.each { |posts| posts.update_all(slug: "") }
    Post.in_batches { |posts| posts.where(slug: nil).update_all(slug: "") }
    Post.in_batches(of: 500).update_all(slug: "")
    Post.where(slug: nil).find_in_batches do |posts|
      Post.where(id: posts).update_all(slug: "")
    end
  end
end

### case rows in one statement after those in batches
### expect note backfill-at-once 5
class Backfill < ActiveRecord::Migration[7.1]
  disable_ddl_transaction!
  def up
    Post.in_batches { |posts| posts.update_all(slug: "") }
    Comment.update_all(kind: "")
  end
end

### case views and functions that are made anew
### says creates the view recent
### says creates the function touch
### says creates the trigger touched
### says creates the procedure tidy
    execute "CREATE OR REPLACE VIEW recent AS SELECT 1"
    execute "CREATE OR REPLACE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$"
    execute "CREATE TRIGGER touched BEFORE UPDATE ON posts FOR EACH ROW EXECUTE FUNCTION touch()"
    execute "CREATE OR REPLACE PROCEDURE tidy() LANGUAGE SQL AS $$ SELECT 1 $$"

### case a trigger with a definer on MySQL
### engine mysql 8.0.36
### says creates the trigger touched
    execute "CREATE DEFINER = `root`@`localhost` TRIGGER touched BEFORE INSERT ON posts FOR EACH ROW SET NEW.slug = ''"

### case SQL whose values are not known
### expect warning backfill-in-transaction 4
### says writes rows of users (UPDATE)
    add_column :users, :handle, :string
    User.find_each do |user|
      name = user.name.parameterize
      execute "UPDATE users SET handle = #{connection.quote(name)} WHERE id = #{user.id}"
    end

### case SQL whose table is not known
### expect note dynamic 1
    execute "UPDATE #{table_of(:users)} SET handle = 1"

### case SQL of which a part is not known
### expect note dynamic 1
    execute "ALTER TABLE users #{Setting.action}"

### case SQL with a statement that is not known
### expect note dynamic 1
    execute "UPDATE users SET role = 1; #{Setting.action}"

### case SQL with a name that is not known
### expect note dynamic 1
    execute "DROP VIEW #{Setting.name}"

### case SQL with a column that is not known
### expect note dynamic 1
    execute "ALTER TABLE users ADD COLUMN \"#{Setting.name}\" integer"

### case records are changed by a method's name
### says writes rows of posts (destroy)
    Post.where(slug: nil).each(&:destroy)
