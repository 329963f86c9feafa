class User < ApplicationRecord
  enum role: { member: 0, owner: 1 }, _prefix: true
  has_many :posts, foreign_key: :author_id
end
