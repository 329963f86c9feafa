Rails.application.routes.draw do
  get "columns", to: "posts#columns"
  get "posts/new", to: "posts#new"
  get "posts/:id/:attribute", to: "posts#attribute", attribute: /title|body|content|subtitle|legacy/
  resources :posts, only: [:show, :create, :update]
end
