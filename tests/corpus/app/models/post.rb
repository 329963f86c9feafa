class Post < ApplicationRecord
  self.ignored_columns += %w[legacy]

  belongs_to :author, class_name: "User"
  has_and_belongs_to_many :tags
  enum :status, [:draft, :published]
end
