require "rails"
require "active_model/railtie"
require "active_record/railtie"
require "action_controller/railtie"

# The smallest application that still fails as large ones do: code loaded once, columns remembered for the life of the process.
class Blog < Rails::Application
  config.load_defaults Rails::VERSION::STRING.to_f
  config.api_only = true
  config.cache_classes = true
  config.eager_load = true
  config.consider_all_requests_local = false
  config.secret_key_base = "signs nothing here"
  config.logger = ActiveSupport::Logger.new($stdout)
  config.log_level = :warn
  config.active_record.dump_schema_after_migration = false
end
