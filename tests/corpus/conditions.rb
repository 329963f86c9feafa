### case only in production, where a release runs
### expect refusal remove-column 1
### expect refusal remove-column 2
### expect refusal drop-table 4
    remove_column :posts, :slug if Rails.env.production?
    remove_column :posts, :views_count unless Rails.env.development? || Rails.env.test?
    if Rails.env == "production"
      drop_table :comments
    end

### case never in production
    remove_column :posts, :slug if Rails.env.test?
    drop_table :comments if Rails.env == "development"
    drop_table :users if Rails.env.local?
    drop_table :tags if %w[development test].include?(Rails.env)
    drop_table :tags if Rails.env.in?(%w[development test])
    drop_table :tags if ENV["RAILS_ENV"] == "test"
    drop_table :tags if ENV.fetch("RAILS_ENV", "development") == "development"
    drop_table :tags unless Rails.env.to_sym == :production
    if Rails.env.production?
      say "nothing"
    else
      remove_column :posts, :price
    end
    !Rails.env.production? && drop_table(:tags)

### case in an environment of another name
### expect warning drop-table 1
### says only where `Rails.env.staging?` holds
    drop_table :comments if Rails.env.staging?

### case nothing in tests
### expect refusal drop-table 5
class A < ActiveRecord::Migration[7.1]
  def up
    return if Rails.env.test?

    drop_table :comments
  end
end

### case only in tests
class A < ActiveRecord::Migration[7.1]
  def up
    return unless Rails.env.test?

    drop_table :comments
  end
end

### case each environment
### expect refusal remove-column 5
    case Rails.env
    when "test", "development"
      drop_table :comments
    when "production"
      remove_column :posts, :slug
    else
      drop_table :users
    end

### case the engine that is known
### expect refusal remove-column 1
### expect refusal remove-column 3
    remove_column :posts, :slug if connection.adapter_name =~ /postgres/i
    remove_column :posts, :slug if ActiveRecord::Base.connection.adapter_name == "Mysql2"
    remove_column :posts, :views_count if ActiveRecord::Base.connection.adapter_name.downcase.include?("postg")
    drop_table :comments unless adapter_name == "PostgreSQL"
    drop_table :comments if ActiveRecord::Base.connection.adapter_name.match?(/mysql|trilogy/i)
    drop_table :comments if %w[Mysql2 Trilogy SQLite].include?(connection.adapter_name)
    drop_table :comments if ActiveRecord::Base.connection_db_config.adapter == "sqlite3"
    drop_table :comments if ActiveRecord::Base.connection_config[:adapter] == "mysql2"
    drop_table :comments if connection.is_a?(ActiveRecord::ConnectionAdapters::SQLite3Adapter)

### case the other engine that is known
### engine mysql 8.0.36
### expect refusal remove-column 5
### expect refusal drop-table 8
    return_early = nil
    if connection.adapter_name == "PostgreSQL"
      drop_table :users
    else
      remove_column :posts, :slug
    end
    case adapter_name
    when /mysql/i then drop_table :comments
    when "PostgreSQL" then drop_table :users
    end

### case a question after the engine
### expect refusal remove-column 3
class A < ActiveRecord::Migration[7.1]
  def up
    remove_column :posts, :slug if Redmine::Database.postgresql?
    drop_table :comments if Redmine::Database.mysql?
    drop_table :comments if mysql?
    drop_table :comments unless postgres?
  end

  def postgres?
    ActiveRecord::Base.connection.adapter_name == "PostgreSQL"
  end
end

### case not on this engine
class A < ActiveRecord::Migration[7.1]
  def up
    return unless connection.adapter_name == "Mysql2"
    drop_table :comments
  end
end

### case what is there is asked, and what is missing is done
### says under a condition
### expect refusal remove-column 1
### expect refusal remove-column 2
### expect refusal drop-table 3
### expect refusal drop-table 5
### expect refusal remove-column 7
    remove_column :posts, :slug if column_exists?(:posts, :slug)
    remove_column :posts, :views_count if connection.column_exists?(:posts, :views_count) && Rails.env.production?
    drop_table :comments if table_exists?(:comments) || data_source_exists?("comments")
    unless !ActiveRecord::Base.connection.tables.include?("tags")
      drop_table :users
    end
    remove_column :posts, :price if Post.column_names.include?("price")

### case a block that leaves where the column is absent
### expect refusal remove-column 3
    [:posts].each do |table|
      next unless column_exists?(table, :slug)
      remove_column table, :slug
    end

### case a condition that is not known
### says only where `ENV["DROP"]` holds
### says only where `some_helper?` holds
### says only where `User.where(admin: true).any?` does not hold
### expect warning drop-table 1
### expect warning remove-column 2
### expect warning remove-column 3
### expect warning index-blocks 4
    drop_table :comments if ENV["DROP"]
    remove_column :posts, :slug if some_helper?
    remove_column :posts, :price unless User.where(admin: true).any?
    ENV["INDEX"] && add_index(:posts, :status)

### case a condition of another condition
### expect warning remove-column 3
    if column_exists?(:posts, :slug)
      if ENV["X"]
        remove_column :posts, :slug if column_exists?(:posts, :slug)
      end
    end

### case leaving under a condition that is not known
### says under a condition that is not known
### expect refusal remove-column 5
class A < ActiveRecord::Migration[7.1]
  def up
    return if ENV["SKIP"]

    remove_column :posts, :slug
  end
end

### case leaving in the other branch
### expect refusal remove-column 8
class A < ActiveRecord::Migration[7.1]
  def up
    if ENV["GO"]
      say "go"
    else
      return
    end
    remove_column :posts, :slug
  end
end

### case leaving a helper
### expect refusal remove-column 9
### expect refusal drop-table 4
class A < ActiveRecord::Migration[7.1]
  def up
    clean
    drop_table :comments
  end

  def clean
    return unless ENV["CLEAN"]
    remove_column :posts, :slug
  end
end

### case a helper may give one name or the other
### expect note dynamic 3
class A < ActiveRecord::Migration[7.1]
  def up
    remove_column :posts, column
  end

  def column
    return :slug if ENV["OLD"]
    :price
  end
end

### case nothing after an end for certain
class A < ActiveRecord::Migration[7.1]
  def up
    say "no longer needed"
    return
    drop_table :comments
  end
end

### case only after an error
### says only where `ActiveRecord::StatementInvalid` is rescued
### expect warning drop-table 4
### expect refusal remove-column 2
    begin
      remove_column :posts, :slug
    rescue ActiveRecord::StatementInvalid
      drop_table :comments
    end

### case a flag that may not be set
### expect warning drop-table 3
    flag = false
    flag = true if ENV["FLAG"]
    drop_table :comments if flag

### case a flag that is set only under a condition
### expect warning drop-table 2
    flag = true if ENV["FLAG"]
    drop_table :comments if flag

### case options of a helper decide
### expect refusal remove-column 8
class A < ActiveRecord::Migration[7.1]
  def up
    clean(:slug, whole: false)
  end

  def clean(column, whole: true, other: nil)
    drop_table :comments if whole || other
    remove_column :posts, column
  end
end

### case an item of a list decides
### expect refusal remove-column 6
    %i[posts users].each do |table|
      if table == :users
        say "users stay"
      else
        # The one that goes.
        remove_column table, :slug
      end
    end

### case a condition in a long line is cut
### says only where `ENV["A"] && ENV["B"] && ENV["C"] && ENV["D"] && ENV["E"] && ...` holds
### expect warning drop-table 1
    drop_table :comments if ENV["A"] && ENV["B"] && ENV["C"] && ENV["D"] && ENV["E"] && ENV["F"]

### case vouched for, under a condition
### expect note index-blocks 1
    safety_assured { add_index :posts, :status } if ENV["X"]

### case up is asked for
### expect refusal remove-column 1
    remove_column :posts, :slug unless reverting?
    drop_table :comments if reverting?

### case what a table of this engine has
### expect refusal change-type 3
    change_table :posts do |t|
      if t.respond_to?(:jsonb)
        t.change :body, :jsonb
      else
        t.change :slug, :integer
      end
    end

### case what a table of another engine has
### engine mysql 8.0.36
### expect refusal change-type 5
    change_table :posts do |t|
      if t.respond_to?(:jsonb)
        t.change :body, :jsonb
      else
        t.change :slug, :integer
      end
    end

### case what every migration has
### expect refusal remove-column 1
    remove_column :posts, :slug if respond_to?(:remove_column)

### case what a library may have
### expect warning remove-column 1
    remove_column :posts, :slug if respond_to?(:change_column_safely)

### case a return within a block leaves the method
### expect warning remove-column 4
### says only where nothing leaves before
    %i[posts].each do |name|
      return if Flipper.enabled?(name)
    end
    remove_column :posts, :slug

### case a next within a block leaves the block alone
### expect refusal remove-column 4
    %i[posts].each do |name|
      next if Flipper.enabled?(name)
    end
    remove_column :posts, :slug

### case a break that may come
### expect warning remove-column 3
### says `Flipper.enabled?(name)` does not hold
    %i[posts].each do |name|
      break if Flipper.enabled?(name)
      remove_column name, :slug
    end

### case a break of a loop that only ends the loop
### expect refusal remove-column 4
    while Flipper.enabled?(:x)
      break if Flipper.enabled?(:y)
    end
    remove_column :posts, :slug

### case a return behind and
### expect warning remove-column 2
    Flipper.enabled?(:x) and return
    remove_column :posts, :slug

### case a return of a case
### expect note dynamic 1
### expect warning remove-column 5
    case Setting.mode
    when "off"
      return
    end
    remove_column :posts, :slug

### case a return in a branch of a branch
### expect warning remove-column 5
### says only where nothing leaves before
    if Flipper.enabled?(:x)
      say "x"
      return if Flipper.enabled?(:y)
    end
    remove_column :posts, :slug

### case both branches leave
### expect warning remove-column 6
    if Flipper.enabled?(:x)
      return
    else
      return
    end
    remove_column :posts, :slug

### case what is ensured is done after a return
### expect refusal remove-column 5
### expect refusal remove-column 6
    begin
      say "one"
      return
    ensure
      remove_column :posts, :slug
      remove_column :posts, :views_count
    end

### case nothing else is done after a return
    begin
      return
    rescue StandardError
      say "no"
    else
      remove_column :posts, :slug
    end
    remove_column :posts, :views_count

### case a return of a helper leaves the helper
### expect refusal remove-column 5
class Helper < ActiveRecord::Migration[7.1]
  def change
    %i[a b].each { |name| ask(name) }
    note
    remove_column :posts, :slug
  end

  def ask(name)
    return if Flipper.enabled?(name)
    say "no"
  end

  def note
    return say("x") if Flipper.enabled?(:x)
  end
end

### case a return in a block in a branch
### expect warning remove-column 4
### says only where nothing leaves before
    if Flipper.enabled?(:x)
      %i[a].each { |name| return if Flipper.enabled?(name) }
    end
    remove_column :posts, :slug

### case a next in a branch of a branch
### expect warning remove-column 6
### expect refusal remove-column 8
### says only where nothing leaves before
    %i[posts].each do |name|
      if Flipper.enabled?(:x)
        say "x"
        next if Flipper.enabled?(name)
      end
      remove_column name, :slug
    end
    remove_column :posts, :views_count
