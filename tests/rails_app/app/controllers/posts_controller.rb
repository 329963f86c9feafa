# Each action is one thing that a process may do with a table which has changed behind its back.
class PostsController < ActionController::API
  rescue_from StandardError do |error|
    render json: { error: error.class.name, message: error.message.lines.first.chomp }, status: :internal_server_error
  end

  def columns
    render json: Knowledge.of_this_process
  end

  def show
    post = params[:transaction] ? Post.transaction { Post.find(params[:id]) } : Post.find(params[:id])
    render json: post.attributes
  end

  def attribute
    render json: { params[:attribute] => Post.find(params[:id]).public_send(params[:attribute]) }
  end

  def new
    render json: Post.new.attributes
  end

  def create
    render json: Post.create!(request.request_parameters).attributes, status: :created
  end

  def update
    post = Post.find(params[:id])
    post.update!(request.request_parameters)
    render json: post.attributes
  end
end
