module Redacted
  extend ActiveSupport::Concern

  included do
    self.ignored_columns += [:secret_note]
  end
end
