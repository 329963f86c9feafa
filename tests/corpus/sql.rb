### case a column is dropped by SQL
### expect refusal remove-column 1
### class breaks
    execute "ALTER TABLE posts DROP COLUMN slug"

### case a column is dropped by SQL, with quotes and a schema
### expect refusal remove-column 1
    execute 'ALTER TABLE ONLY "public"."posts" DROP COLUMN IF EXISTS "slug" CASCADE'

### case an ignored column is dropped by SQL
### class restart
    execute "ALTER TABLE posts DROP COLUMN legacy"

### case several statements
### expect refusal drop-table 1
### expect refusal remove-column 1
    execute "ALTER TABLE posts DROP COLUMN slug; DROP TABLE IF EXISTS comments;"

### case a heredoc
### expect refusal rename-column 5
class RenameSlug < ActiveRecord::Migration[7.1]
  def up
    execute <<~SQL
      -- the marketing people want it
      ALTER TABLE posts
        RENAME COLUMN slug TO permalink;
    SQL
  end

  def down
    execute "ALTER TABLE posts RENAME COLUMN permalink TO slug"
  end
end

### case a heredoc of old Rails
### expect refusal rename-table 4
class RenamePosts < ActiveRecord::Migration
  def self.up
    execute <<-SQL.strip_heredoc
      ALTER TABLE posts RENAME TO articles
    SQL
  end
end

### case squish
### expect refusal not-null 2
    execute(<<~SQL.squish)
      ALTER TABLE posts
      ALTER COLUMN slug SET NOT NULL
    SQL

### case what is put into the text is dynamic
### expect note dynamic 1
### class breaks
    execute "ALTER TABLE #{table_for(:posts)} DROP COLUMN slug"

### case what is put into the text is written in the file
### expect refusal remove-column 6
class DropSlug < ActiveRecord::Migration[7.1]
  TABLE = "posts"
  COLUMN = :slug

  def up
    execute "ALTER TABLE #{TABLE} DROP COLUMN #{COLUMN}"
  end
end

### case the text is in a variable
### expect refusal drop-table 2
    sql = "DROP TABLE comments"
    execute(sql)

### case the connection is asked
### expect refusal drop-table 1
    connection.execute("DROP TABLE comments")

### case the connection of Active Record
### expect refusal drop-table 1
    ActiveRecord::Base.connection.execute("DROP TABLE comments")

### case the connection in a variable
### expect refusal drop-table 2
    conn = ApplicationRecord.connection
    conn.execute("DROP TABLE comments")

### case an index that blocks by SQL
### expect refusal index-blocks 1
    execute "CREATE INDEX posts_slug ON posts USING btree (slug)"

### case an index by SQL as it should be
### class unnoticed
class AddIndex < ActiveRecord::Migration[7.1]
  disable_ddl_transaction!
  def up
    execute "CREATE INDEX CONCURRENTLY IF NOT EXISTS posts_slug ON posts (slug) WHERE status = 1"
  end
end

### case concurrently by SQL inside of the transaction
### expect refusal concurrent-in-transaction 1
    execute "CREATE INDEX CONCURRENTLY posts_slug ON posts (slug)"

### case an index is dropped by SQL
### expect warning index-removal-blocks 1
### class restart
    execute "DROP INDEX IF EXISTS posts_slug"

### case an index is dropped by SQL concurrently inside of the transaction
### expect refusal concurrent-in-transaction 1
    execute "DROP INDEX CONCURRENTLY IF EXISTS posts_slug"

### case a foreign key by SQL
### expect refusal foreign-key-validates 1
    execute "ALTER TABLE posts ADD CONSTRAINT fk FOREIGN KEY (author_id) REFERENCES users (id)"

### case a foreign key by SQL that waits
### expect note new-constraint 1
    execute "ALTER TABLE posts ADD CONSTRAINT fk FOREIGN KEY (author_id) REFERENCES users (id) NOT VALID"

### case a check by SQL
### expect refusal check-validates 1
    execute "ALTER TABLE posts ADD CONSTRAINT c CHECK (price > 0)"

### case a check by SQL that waits
### expect note new-constraint 1
    execute "ALTER TABLE posts ADD CONSTRAINT c CHECK (price > 0) NOT VALID"

### case validated by SQL
### class unnoticed
    execute "ALTER TABLE posts VALIDATE CONSTRAINT c"

### case unique by SQL
### expect refusal unique-constraint 1
    execute "ALTER TABLE tags ADD CONSTRAINT u UNIQUE (name)"

### case unique by SQL with an index
    execute "ALTER TABLE tags ADD CONSTRAINT u UNIQUE USING INDEX tags_name"

### case a primary key by SQL
### expect refusal unique-constraint 1
    execute "ALTER TABLE posts_tags ADD PRIMARY KEY (post_id, tag_id)"

### case a column by SQL
### class restart
    execute "ALTER TABLE posts ADD COLUMN subtitle text"

### case a column by SQL that must not be null
### expect refusal not-null-column 1
    execute "ALTER TABLE posts ADD COLUMN tenant_id bigint NOT NULL"

### case a column by SQL with a default
    execute "ALTER TABLE posts ADD COLUMN pinned boolean NOT NULL DEFAULT false"

### case a column by SQL with a random default
### expect refusal default-rewrites 1
    execute "ALTER TABLE posts ADD COLUMN token uuid DEFAULT gen_random_uuid()"

### case a column by SQL that counts
### expect refusal auto-increment-column 1
    execute "ALTER TABLE posts ADD COLUMN number serial"

### case an identity by SQL
### expect refusal auto-increment-column 1
    execute "ALTER TABLE posts ADD COLUMN number bigint GENERATED BY DEFAULT AS IDENTITY"

### case a stored column by SQL
### expect refusal stored-column 1
    execute "ALTER TABLE posts ADD COLUMN low text GENERATED ALWAYS AS (lower(slug)) STORED"

### case a default by SQL
### expect warning change-default 1
    execute "ALTER TABLE posts ALTER COLUMN status SET DEFAULT 3"

### case no default by SQL
### expect warning change-default 1
    execute "ALTER TABLE posts ALTER status DROP DEFAULT"

### case null allowed by SQL
### expect note null-allowed 1
    execute "ALTER TABLE posts ALTER COLUMN title DROP NOT NULL"

### case a table by SQL
### class restart
    execute <<~SQL
      CREATE TABLE gadgets (
        id bigserial PRIMARY KEY,
        name varchar(40) NOT NULL,
        made timestamptz NOT NULL DEFAULT now()
      );
      CREATE INDEX gadgets_name ON gadgets (name);
    SQL

### case MySQL's modify
### engine mysql 8.0.36
### expect refusal change-type 1
    execute "ALTER TABLE `posts` MODIFY COLUMN `views_count` bigint"

### case MySQL's change
### engine mysql 8.0.36
### expect refusal change-type 1
### expect refusal rename-column 1
    execute "ALTER TABLE posts CHANGE COLUMN views_count views bigint"

### case MySQL's rename
### engine mysql 8.0.36
### expect refusal rename-table 1
    execute "RENAME TABLE posts TO articles"

### case TRUNCATE
### expect warning truncate 1
    execute "TRUNCATE TABLE comments"

### case TRUNCATE CASCADE
### expect refusal truncate 1
    execute "TRUNCATE comments RESTART IDENTITY CASCADE"

### case a database is dropped
### expect refusal drop-database 1
    execute "DROP DATABASE IF EXISTS production"

### case VACUUM FULL
### expect refusal concurrent-in-transaction 1
### expect refusal rewrite 1
    execute "VACUUM FULL posts"

### case VACUUM
### expect refusal concurrent-in-transaction 1
### class unnoticed
    execute "VACUUM (ANALYZE) posts"

### case VACUUM as it should be
### class unnoticed
class Vacuum < ActiveRecord::Migration[7.1]
  disable_ddl_transaction!

  def up = execute("VACUUM ANALYZE posts")
end

### case OPTIMIZE TABLE of MySQL needs no such thing
### engine mysql
### expect refusal rewrite 1
    execute "OPTIMIZE TABLE posts"

### case CLUSTER
### expect refusal rewrite 1
    execute "CLUSTER posts USING posts_slug"

### case REINDEX
### expect refusal rewrite 1
    execute "REINDEX TABLE posts"

### case REINDEX CONCURRENTLY in a transaction
### expect refusal concurrent-in-transaction 1
    execute "REINDEX INDEX CONCURRENTLY posts_slug"

### case what nobody notices
### class unnoticed
    execute "ANALYZE posts"
    execute "COMMENT ON COLUMN posts.slug IS 'drop table posts'"
    execute "SET LOCAL statement_timeout = '5s'"
    execute "SELECT setval('posts_id_seq', 100)"

### case a transaction of its own
### expect warning own-transaction 1
### expect warning own-transaction 1
    execute "BEGIN; UPDATE posts SET status = 1 WHERE id = 5; COMMIT"

### case an enum value on PostgreSQL 11
### engine postgresql 11.22
### expect refusal enum-value-in-transaction 1
    execute "ALTER TYPE mood ADD VALUE 'glad'"

### case an enum value on PostgreSQL 15
### engine postgresql 15.4
### class restart
    execute "ALTER TYPE mood ADD VALUE IF NOT EXISTS 'glad' AFTER 'happy'"

### case an enum value without a transaction
### engine postgresql 11.22
class AddMood < ActiveRecord::Migration[7.1]
  disable_ddl_transaction!
  def up
    execute "ALTER TYPE mood ADD VALUE 'glad'"
  end
end

### case a type is dropped
### expect warning drop-object 1
    execute "DROP TYPE IF EXISTS mood"

### case a view is dropped
### expect warning drop-object 1
    execute "DROP VIEW reports"

### case a function with a body of many statements
### class restart
    execute <<~SQL
      CREATE OR REPLACE FUNCTION touch() RETURNS trigger AS $$
      BEGIN
        DELETE FROM posts; DROP TABLE posts;
        RETURN NEW;
      END;
      $$ LANGUAGE plpgsql;
      CREATE TRIGGER t BEFORE UPDATE ON posts FOR EACH ROW EXECUTE FUNCTION touch();
    SQL

### case a trigger is dropped
### expect warning drop-object 1
    execute "DROP TRIGGER IF EXISTS t ON posts"

### case a block of procedural SQL
### expect note dynamic 1
    execute "DO $$ BEGIN DROP TABLE posts; END $$"

### case SQL that nobody can parse
### expect note dynamic 1
    execute "ALTER TABLE posts FROBNICATE slug NOW"

### case SQL that cannot be taken apart
### expect note dynamic 1
    execute "DROP TABLE posts WHERE 'a"

### case an update of all rows
### expect note backfill-at-once 1
### class restart
    execute "UPDATE posts SET status = 1"

### case an update after a change in the same transaction
### expect warning backfill-in-transaction 2
    add_column :posts, :rank, :integer
    execute "UPDATE posts SET rank = id WHERE rank IS NULL"

### case a domain
### expect warning check-validates 1
    execute "ALTER DOMAIN email ADD CONSTRAINT c CHECK (value LIKE '%@%')"

### case a schema is renamed by SQL
### expect refusal rename-schema 1
    execute "ALTER SCHEMA audit RENAME TO audits"

### case statements of a heredoc stand where they are
### expect refusal remove-column 4
### expect refusal drop-table 6
### class breaks
    say "first"
    execute <<~SQL
      SET lock_timeout TO '5s'; -- a semicolon; in a comment
      ALTER TABLE posts DROP COLUMN slug;

      DROP TABLE comments
    SQL

### case a heredoc as it is indented
### expect refusal drop-table 2
    ActiveRecord::Base.connection.execute(<<-SQL)
      DROP TABLE comments;
    SQL

### case a heredoc in one line
### expect refusal remove-column 2
### expect refusal drop-table 3
    execute <<~SQL.squish
      ALTER TABLE posts DROP COLUMN slug;
      DROP TABLE comments
    SQL

### case a heredoc in one line, in which a comment hides the rest
    execute <<~SQL.squish
      -- no more DROP TABLE
      DROP TABLE comments
    SQL

### case a heredoc with something put into it
### expect refusal drop-table 2
    table = "comments"
    execute <<~SQL
      DROP TABLE #{table}
    SQL

### case a heredoc with an escape
### expect refusal remove-column 3
### expect refusal drop-table 4
    execute <<~SQL
      SELECT 'a\tb;\\n';
      ALTER TABLE posts DROP COLUMN slug;
        DROP TABLE comments
    SQL

### case an exception for a call is one for its heredoc
### expect note drop-table 3
### expect refusal drop-table 5
    # unstuck:allow drop-table nobody reads it
    execute <<~SQL
      DROP TABLE comments;
    SQL
    execute "DROP TABLE users"

### case a table goes into another schema
### expect refusal rename-table 1
### class breaks
### says renames the table posts to archive.posts
    execute "ALTER TABLE IF EXISTS ONLY public.posts SET SCHEMA archive"

### case a partition is detached concurrently inside of the transaction
### expect refusal concurrent-in-transaction 1
    execute "ALTER TABLE posts DETACH PARTITION posts_2020 CONCURRENTLY"

### case partitions come and go
### class restart
### says detaches the partition posts_2020 of posts
    execute "ALTER TABLE posts DETACH PARTITION posts_2020"
    execute "ALTER TABLE posts ATTACH PARTITION posts_2021 FOR VALUES IN (1)"
    execute "ALTER TABLE posts NO INHERIT things"

### case more than the parser knows is not passed over
### expect note dynamic 1
    execute "ALTER TABLE posts SET SCHEMA archive, DROP COLUMN slug"

### case a schema goes with all that is in it
### expect refusal drop-database 1
### expect refusal drop-database 2
    execute "DROP SCHEMA IF EXISTS public CASCADE"
    drop_schema "old"

### case an empty schema goes
### expect warning drop-object 1
    execute "DROP SCHEMA old"

### case what code names is renamed
### expect warning drop-object 1
### expect warning drop-object 2
### expect warning drop-object 3
### expect warning drop-object 4
### expect warning drop-object 5
### class breaks
### says renames the view v to w
### says renames the type mood in its part 'sad' to 'blue'
    execute "ALTER VIEW v RENAME TO w"
    execute "ALTER TYPE mood RENAME VALUE 'sad' TO 'blue'"
    rename_enum_value :mood, from: "sad", to: "blue"
    rename_enum :mood, :feeling
    execute "ALTER FUNCTION f(integer) SET SCHEMA other"

### case a constraint made of a unique index
### class unnoticed
    execute "ALTER TABLE posts ADD CONSTRAINT u UNIQUE USING INDEX index_posts_on_slug"

### case all indexes of a database
### expect refusal concurrent-in-transaction 1
### expect refusal rewrite 1
    execute "REINDEX DATABASE production"

### case names and values in quotes
### expect warning backfill-in-transaction 3
### expect refusal remove-column 1
### expect refusal drop-table 2
### says writes rows of posts (UPDATE)
    execute "ALTER TABLE #{quote_table_name(:posts)} DROP COLUMN #{connection.quote_column_name('slug')}"
    execute "DROP TABLE #{Comment.quoted_table_name}"
    execute "UPDATE #{ActiveRecord::Base.connection.quote_table_name('posts')} SET slug = #{quote("it's")} WHERE draft = #{quoted_true}"
