ActiveRecord::Schema[7.1].define(version: 2024_03_01_120000) do
  enable_extension "plpgsql"

  create_enum "mood", ["sad", "happy"]

  create_table "posts", force: :cascade do |t|
    t.string "title", limit: 100, null: false
    t.string "slug"
    t.text "body"
    t.integer "status", default: 0, null: false
    t.integer "views_count"
    t.decimal "price", precision: 8, scale: 2
    t.bigint "author_id", null: false
    t.string "legacy"
    t.string "old_slug"
    t.datetime "published_at"
    t.jsonb "meta", default: {}
    t.datetime "created_at", null: false
    t.datetime "updated_at", null: false
    t.index ["author_id"], name: "index_posts_on_author_id"
    t.index ["slug"], name: "index_posts_on_slug", unique: true
  end

  create_table "users", force: :cascade do |t|
    t.string "email", default: "", null: false
    t.string "name"
    t.string "nickname"
    t.boolean "admin", default: false, null: false
    t.integer "role"
    t.datetime "created_at", null: false
    t.datetime "updated_at", null: false
    t.check_constraint "nickname IS NOT NULL", name: "users_nickname_null"
  end

  create_table "comments", force: :cascade do |t|
    t.text "text"
    t.bigint "post_id"
    t.bigint "user_id"
    t.string "kind"
    t.string "secret_note"
    t.datetime "created_at", null: false
    t.datetime "updated_at", null: false
  end

  create_table "tags", force: :cascade do |t|
    t.string "name"
  end

  create_table "posts_tags", id: false, force: :cascade do |t|
    t.bigint "post_id", null: false
    t.bigint "tag_id", null: false
  end

  create_table "admin_logs", force: :cascade do |t|
    t.string "message"
    t.string "level"
  end

  create_table "people", force: :cascade do |t|
    t.string "first_name"
    t.string "nick"
  end

  create_table "orphans", force: :cascade do |t|
    t.string "name"
  end

  create_table "legacy_orders", force: :cascade do |t|
    t.string "number"
    t.string "state"
  end

  create_table "vehicles", force: :cascade do |t|
    t.string "type"
    t.integer "wheels"
    t.string "trunk"
  end

  create_table "settings", force: :cascade do |t|
    t.string "var"
    t.text "value"
  end

  add_foreign_key "comments", "posts"
end
