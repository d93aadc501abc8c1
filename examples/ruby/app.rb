def handler(event:, context:)
  puts "greeting #{event['name']}"
  { message: "Hello, #{event['name'] || 'world'}, from Ruby #{RUBY_VERSION}", requestId: context.aws_request_id }
end
