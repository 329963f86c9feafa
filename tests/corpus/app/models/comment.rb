class Comment < ApplicationRecord
  include Redacted

  belongs_to :post
end
