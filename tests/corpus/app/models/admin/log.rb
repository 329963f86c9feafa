class Admin::Log < ApplicationRecord
  self.ignored_columns = [:level]
end
