### case integer to bigint
### expect refusal change-type 1
### class breaks
    change_column :posts, :views_count, :bigint

### case a longer string
### class restart
    change_column :posts, :title, :string, limit: 200

### case a shorter string
### expect refusal change-type 1
    change_column :posts, :title, :string, limit: 50

### case a string without a limit
### class restart
    change_column :posts, :title, :string

### case string to text
### class restart
    change_column :posts, :slug, :text

### case text to string with a limit
### expect refusal change-type 1
    change_column :posts, :body, :string, limit: 255

### case an enum's column becomes a string
### expect refusal change-type 1
### says enum
    change_column :posts, :status, :string

### case string to integer with a cast
### expect refusal change-type 1
    change_column :posts, :slug, :integer, using: "slug::integer"

### case a type and a default
### expect refusal change-type 1
### expect warning change-default 1
    change_column :posts, :views_count, :bigint, default: 0

### case a type and not null
### expect refusal change-type 1
### expect refusal not-null 1
    change_column :posts, :views_count, :bigint, null: false

### case the same type, not null
### expect refusal not-null 1
    change_column :posts, :slug, :string, null: false

### case an unknown column of an unknown table
### expect warning change-type 1
    change_column :gadgets, :size, :bigint

### case in the block of a table
### expect refusal change-type 2
    change_table :posts do |t|
      t.change :views_count, :bigint
    end

### case string to text on MySQL
### engine mysql 8.0.36
### expect refusal change-type 1
    change_column :posts, :title, :text

### case a string stays below 256 bytes on MySQL
### engine mysql 8.0.36
### schema ActiveRecord::Schema.define do\n create_table "posts" do |t|\n t.string "title", limit: 20\n end\nend
    change_column :posts, :title, :string, limit: 60

### case a string grows beyond 255 bytes on MySQL
### engine mysql 8.0.36
### schema ActiveRecord::Schema.define do\n create_table "posts" do |t|\n t.string "title", limit: 20\n end\nend
### expect refusal change-type 1
    change_column :posts, :title, :string, limit: 255

### case datetime to timestamptz, which are stored alike
### class restart
    change_column :posts, :published_at, :timestamptz

### case a column of a new table
    create_table :gadgets do |t|
      t.integer :size
    end
    change_column :gadgets, :size, :bigint

### case a type by SQL
### expect refusal change-type 1
    execute "ALTER TABLE posts ALTER COLUMN views_count TYPE bigint"

### case a type by SQL with USING
### expect refusal change-type 1
    execute "ALTER TABLE posts ALTER COLUMN slug SET DATA TYPE integer USING slug::integer"

### case varchar to text by SQL
    execute 'ALTER TABLE "posts" ALTER COLUMN "slug" TYPE text'

### case on SQLite it is a warning
### engine sqlite
### expect warning change-type 1
    change_column :posts, :views_count, :string

### case integer with a limit is a bigint
### expect refusal change-type 1
### says integer(8) (from integer)
    change_column :posts, :views_count, :integer, limit: 8

### case the same type by another name
### class restart
    change_column :posts, :author_id, :integer, limit: 8

### case a list of what was one
### expect refusal change-type 1
### expect warning change-default 1
### says string[]
    change_column :posts, :slug, :string, array: true, default: []

### case more digits before the point
### class restart
    change_column :posts, :price, :decimal, precision: 12, scale: 2

### case more digits after the point
### expect refusal change-type 1
### says decimal(12, 4) (from decimal(8, 2))
    change_column :posts, :price, :decimal, precision: 12, scale: 4

### case any number of digits
    change_column :posts, :price, :decimal

### case a text that ignores case, with an index
### expect refusal change-type 1
### says each index of the column is built anew
### class restart
    change_column :posts, :slug, :citext

### case a text that ignores case, without an index
### class restart
    change_column :posts, :legacy, :citext

### case times with their zone on an old server
### engine postgresql 11.22
### expect refusal change-type 1
    change_column :posts, :published_at, :timestamptz

### case times with fewer digits
### expect refusal change-type 1
    change_column :posts, :published_at, :datetime, precision: 3

### case another order of letters, with an index
### expect refusal change-type 1
    change_column :posts, :slug, :string, collation: "de_DE"

### case a size that is not known
### expect warning change-type 1
### says it is not known here
    change_column :posts, :title, :string, limit: Setting.limit

### case a type of the application's own
### expect warning change-type 1
    change_column :posts, :legacy, :postcode

### case a varchar by SQL grows
    execute "ALTER TABLE posts ALTER COLUMN title TYPE character varying(200)"

### case a numeric by SQL with another scale
### expect refusal change-type 1
    execute "ALTER TABLE posts ALTER COLUMN price TYPE numeric(10,3)"

### case a number that loses its sign on MySQL
### engine mysql 8.0.36
### expect refusal change-type 1
    change_column :posts, :views_count, :integer, unsigned: true

### case a text that becomes a longer one on MySQL
### engine mysql 8.0.36
### expect refusal change-type 1
    change_column :posts, :body, :text, limit: 16777215

### case a short string grows beyond 255 bytes on MariaDB
### engine mysql 10.11.6-MariaDB
### schema ActiveRecord::Schema.define do\n create_table "posts" do |t|\n t.string "title", limit: 20\n end\nend
    change_column :posts, :title, :string, limit: 255

### case a type with its cast in one text
### expect refusal change-type 1
### says to json (from text)
    change_column :posts, :body, "json USING CAST(body AS json)"

### case a type as SQL
    change_column :posts, :title, "varchar(200)"

### case a shorter type as SQL
### expect refusal change-type 1
    change_column :posts, :title, "varchar(20)"
