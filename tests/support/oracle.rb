# frozen_string_literal: true

# What Active Record itself says: one case per line of JSON on standard input, one answer per line on standard output.

require "json"
require "rails"
require "rails/application/configuration"
require "active_record"

# Their files define what is asked below and what no autoload names.
ActiveRecord::Base
ActiveRecord::Migration

ADAPTERS = %w[postgresql postgis mysql2 trilogy sqlite3].freeze

def databases(root, env, environment)
  ENV.replace(env)
  Rails.env = environment
  configuration = Rails::Application::Configuration.new(Pathname(root)).database_configuration
  all = ActiveRecord::DatabaseConfigurations.new(configuration)
  raise "no database" if all.configurations.none?(&:for_current_env?)

  all.configs_for(env_name: environment).map { |config| describe(config, root) }
end

def describe(config, root)
  hash = config.configuration_hash
  raise "adapter #{hash[:adapter]}" unless ADAPTERS.include?(hash[:adapter].to_s)

  database = (hash[:database] || nil).to_s
  if hash[:adapter] == "sqlite3"
    raise "no file" if database.empty?

    database = File.expand_path(database, root) unless database == ":memory:"
  end
  raise "port" unless hash[:port].to_s.match?(/\A\d*\z/)

  user = hash[:username] || nil
  user = hash[:user] if user.nil? && hash[:adapter].start_with?("postg")
  {
    name: config.name, adapter: hash[:adapter].to_s, host: hash[:host].to_s, port: hash[:port].to_s, socket: hash[:socket].to_s,
    database: database, username: user.to_s, password: hash[:password].to_s, sslmode: hash[:sslmode].to_s,
    migrations_paths: Array(hash[:migrations_paths] || "db/migrate").map(&:to_s)
  }
end

def migrations(root, rows)
  Dir.chdir(root)
  table = Class.new { define_singleton_method(:all_versions) { rows } }
  context = ActiveRecord::MigrationContext.new("db/migrate", table)
  migrations = context.migrations
  # The constructor refuses twins without touching a database.
  ActiveRecord::Migrator.allocate.tap { |migrator| migrator.instance_variable_set(:@migrations, migrations) }
                        .send(:validate, migrations)
  applied = rows.map(&:to_i).to_set
  all = migrations.map { |m| [m.version.to_s, m.name, m.filename.delete_prefix("./"), m.scope] }
  { all: all, pending: migrations.map(&:version).reject { |version| applied.include?(version) }.map(&:to_s),
    without_file: (applied.to_a - migrations.map(&:version)).sort.map(&:to_s) }
end

# Points Active Record at a database and its tables, whose names have this prefix and suffix.
def connect(config, prefix, suffix)
  unless @config == config
    ActiveRecord::Base.establish_connection(config)
    @config = config
  end
  ActiveRecord::Base.table_name_prefix = prefix
  ActiveRecord::Base.table_name_suffix = suffix
  [ActiveRecord::SchemaMigration, ActiveRecord::InternalMetadata].each do |table|
    table.reset_table_name
    table.reset_column_information
  end
  ActiveRecord::Base.connection
end

# Leaves nothing in the database but the versions in `rows`; for nil not even their table.
def prepare(config, prefix, suffix, rows)
  connection = connect(config, prefix, suffix)
  connection.tables.each { |table| connection.drop_table(table) }
  connection.schema_cache.clear!
  return if rows.nil?

  table = connection.quote_table_name(ActiveRecord::SchemaMigration.table_name)
  connection.execute("CREATE TABLE #{table} (version varchar(255) NOT NULL)")
  values = rows.map { |row| "(#{connection.quote(row)})" }
  values.each_slice(5_000) { |slice| connection.execute("INSERT INTO #{table} VALUES #{slice.join(', ')}") }
  nil
end

# What Active Record would run now, and what it lists without a file. Asking makes its tables, so this comes last.
def status(config, prefix, suffix, root, path)
  connection = connect(config, prefix, suffix)
  before = connection.tables.sort
  Dir.chdir(root)
  context = ActiveRecord::MigrationContext.new(path, ActiveRecord::SchemaMigration)
  migrator = ActiveRecord::Migrator.new(:up, context.migrations, ActiveRecord::SchemaMigration)
  pending = migrator.pending_migrations.map { |m| [m.version.to_s, m.name, m.filename.delete_prefix("./")] }
  # What db:migrate:status prints, but for long lists, where that takes a minute.
  without_file =
    if migrator.migrated.size > 1_000
      migrator.migrated.to_a - context.migrations.map(&:version)
    else
      context.migrations_status.select { |_, _, name| name.include?("NO FILE") }.map { |_, version, _| version.to_i }
    end
  { pending: pending, without_file: without_file.uniq.sort.map(&:to_s), applied: migrator.migrated.size, tables: before }
end

$stdout.sync = true
answers = $stdout.dup
$stdout.reopen($stderr)
$stdin.each_line do |line|
  question = JSON.parse(line)
  answer =
    begin
      case question.fetch("ask")
      when "databases" then { ok: databases(*question.values_at("root", "env", "environment")) }
      when "migrations" then { ok: migrations(*question.values_at("root", "rows")) }
      when "prepare" then { ok: prepare(*question.values_at("config", "prefix", "suffix", "rows")) }
      when "status" then { ok: status(*question.values_at("config", "prefix", "suffix", "root", "path")) }
      end
    rescue Exception => e # Syntax errors of a template are no StandardError.
      { error: e.class.name, message: e.message.lines.map(&:strip).join(" ") }
    end
  answers.puts(JSON.generate(answer))
end
