class Order < ApplicationRecord
  self.table_name = "legacy_orders"
end
