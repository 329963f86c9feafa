### case a foreign key that checks all rows
### expect refusal foreign-key-validates 1
### class breaks
    add_foreign_key :posts, :users, column: :author_id

### case a foreign key that waits
### expect note new-constraint 1
    add_foreign_key :posts, :users, column: :author_id, validate: false

### case a foreign key is validated
### class unnoticed
    validate_foreign_key :posts, :users

### case a foreign key is validated where it is added
### expect note new-constraint 1
### expect refusal validate-in-transaction 2
    add_foreign_key :posts, :users, column: :author_id, validate: false
    validate_foreign_key :posts, :users

### case a foreign key is validated without a transaction
### expect note new-constraint 4
class AddKey < ActiveRecord::Migration[7.1]
  disable_ddl_transaction!
  def change
    add_foreign_key :posts, :users, column: :author_id, validate: false
    validate_foreign_key :posts, :users
  end
end

### case a foreign key on MySQL
### engine mysql 8.0.36
### expect warning foreign-key-validates 1
    add_foreign_key :posts, :users, column: :author_id

### case a foreign key on SQLite
### engine sqlite
### expect note new-constraint 1
    add_foreign_key :posts, :users, column: :author_id

### case a foreign key of a table of unknown standing
### expect warning foreign-key-validates 1
    add_foreign_key :gadgets, :users

### case a foreign key is removed
### class unnoticed
    remove_foreign_key :comments, :posts

### case a check
### expect refusal check-validates 1
    add_check_constraint :posts, "price > 0", name: "price_check"

### case a check that waits
### expect note new-constraint 1
### class breaks
    add_check_constraint :posts, "price > 0", name: "price_check", validate: false

### case a check is validated
### class unnoticed
    validate_check_constraint :posts, name: "price_check"

### case a check on MySQL
### engine mysql 8.0.36
### expect warning check-validates 1
    add_check_constraint :posts, "price > 0", name: "price_check"

### case a check of a new table
    create_table :gadgets do |t|
      t.integer :size
      t.check_constraint "size > 0"
    end
    add_check_constraint :gadgets, "size < 9"

### case a check in the block of a table
### expect refusal check-validates 2
    change_table :posts do |t|
      t.check_constraint "price > 0", name: "price_check"
    end

### case a unique constraint
### expect refusal unique-constraint 1
    add_unique_constraint :tags, :name

### case a unique constraint by an index
    add_unique_constraint :tags, using_index: "index_tags_on_name"

### case an exclusion constraint
### expect refusal exclusion-constraint 1
    add_exclusion_constraint :posts, "price WITH =, published_at WITH &&", using: :gist

### case constraints are removed
### class restart
    remove_check_constraint :posts, name: "price_check"
    remove_unique_constraint :tags, :name
    remove_exclusion_constraint :posts, name: "x"

### case a vouched check
### expect note check-validates 1
    safety_assured { add_check_constraint :posts, "price > 0", name: "price_check" }

### case not null by a check that an earlier push validated
### structure CREATE TABLE public.posts (\n id bigint NOT NULL,\n slug character varying,\n CONSTRAINT slug_there CHECK ((slug IS NOT NULL))\n);
    change_column_null :posts, :slug, false

### case not null by a check that nobody has validated
### structure CREATE TABLE public.posts (\n id bigint NOT NULL,\n slug character varying\n);\nALTER TABLE public.posts ADD CONSTRAINT slug_there CHECK ((slug IS NOT NULL)) NOT VALID;
### expect refusal not-null 1
    change_column_null :posts, :slug, false

### case not null by a check of an earlier push that this one validates
### structure CREATE TABLE public.posts (\n id bigint NOT NULL,\n slug character varying\n);\nALTER TABLE public.posts ADD CONSTRAINT slug_there CHECK ((slug IS NOT NULL)) NOT VALID;
    validate_check_constraint :posts, name: "slug_there"
    change_column_null :posts, :slug, false

### case validating one check does not validate another
### structure CREATE TABLE public.posts (\n id bigint NOT NULL,\n slug character varying\n);\nALTER TABLE public.posts ADD CONSTRAINT slug_there CHECK ((slug IS NOT NULL)) NOT VALID;
### expect refusal not-null 2
    validate_check_constraint :posts, name: "another"
    change_column_null :posts, :slug, false

### case validating a foreign key validates no check
### structure CREATE TABLE public.posts (\n id bigint NOT NULL,\n slug character varying\n);\nALTER TABLE public.posts ADD CONSTRAINT slug_there CHECK ((slug IS NOT NULL)) NOT VALID;
### expect refusal not-null 2
    validate_foreign_key :posts, :users
    change_column_null :posts, :slug, false

### case validated by SQL
### structure CREATE TABLE public.posts (\n id bigint NOT NULL,\n slug character varying\n);\nALTER TABLE public.posts ADD CONSTRAINT slug_there CHECK ((slug IS NOT NULL)) NOT VALID;
    execute "ALTER TABLE posts VALIDATE CONSTRAINT slug_there"
    execute "ALTER TABLE posts ALTER COLUMN slug SET NOT NULL"

### case a check of schema.rb that is not validated
### schema ActiveRecord::Schema[7.1].define do\n create_table "posts" do |t|\n t.string "slug"\n t.check_constraint "slug IS NOT NULL", name: "slug_there", validate: false\n end\nend
### expect refusal not-null 1
    change_column_null :posts, :slug, false

### case a check that is removed holds no longer
### expect refusal not-null 2
    remove_check_constraint :users, name: "users_nickname_null"
    change_column_null :users, :nickname, false

### case another check is removed
    remove_check_constraint :users, name: "users_name_length"
    change_column_null :users, :nickname, false

### case nobody knows whether a constraint is validated
### expect warning check-validates 1
### says only where validate: is not false
    add_check_constraint :posts, "views_count >= 0", name: "views", validate: lax?

### case nobody knows whether a reference has a foreign key
### expect warning foreign-key-validates 1
### says only where foreign_key: is set
    add_reference :posts, :editor, index: false, foreign_key: strict_keys?

### case a check is named without a key
### structure CREATE TABLE public.posts (\n id bigint NOT NULL,\n slug character varying\n);\nALTER TABLE public.posts ADD CONSTRAINT slug_there CHECK ((slug IS NOT NULL)) NOT VALID;\nALTER TABLE public.posts ADD CONSTRAINT id_there CHECK ((id IS NOT NULL)) NOT VALID;
    validate_check_constraint :posts, "slug_there"
    change_column_null :posts, :slug, false

### case MySQL checks all the same
### engine mysql
### expect warning foreign-key-validates 1
### expect warning check-validates 2
### expect refusal server-lacks 3
    add_foreign_key :comments, :posts, validate: false
    add_check_constraint :posts, "price > 0", name: "p", validate: false
    validate_check_constraint :posts, name: "p"

### case MySQL has another type for it
### engine mysql
### expect refusal server-lacks 1
    add_column :posts, :settings, :jsonb

### case MySQL changes the characters of a table
### engine mysql
### expect refusal rewrite 1
    execute "ALTER TABLE posts CONVERT TO CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci"
