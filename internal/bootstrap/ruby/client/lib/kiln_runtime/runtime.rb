# frozen_string_literal: true

require_relative 'api'
require_relative 'context'
require_relative 'errors'
require_relative 'handler'
require_relative 'logs'
require_relative 'marshaller'

module KilnRuntime
  # The life of the runtime: set up, load the handler, serve events until the end.
  class Runtime
    # Exit codes are AWS's.
    CRITICAL = 255
    RUNTIME = 254
    INIT = 252

    # A request as the marshaller sees it.
    Raw = Struct.new(:headers, :body) do
      def [](name) = headers[name.downcase]
    end

    def initialize(environ)
      $stdout.sync = true
      @environ = environ
      @api = API.new(environ.fetch('AWS_LAMBDA_RUNTIME_API'))
      sink = Sink.new(environ)
      Logging.install(sink) if sink.framed?
    end

    def run
      task = @environ['LAMBDA_TASK_ROOT'] || Dir.pwd
      $LOAD_PATH.unshift(task) unless $LOAD_PATH.first == task
      handler = load_handler
      loop { serve(handler, @api.next) }
    rescue API::Refused, *API::BROKEN => e
      abort_with(RUNTIME, e.message)
    rescue SignalException
      exit!(0)
    end

    private

    def load_handler
      handler = Handler.new(@environ['_HANDLER'].to_s)
      handler.load
      handler
    rescue Exception => e # LoadError, SyntaxError and exit among them
      failure = Failure.new(e, 'Init')
      log('Init error when loading handler ', failure)
      @api.fail_init(JSON.generate(failure.document), failure.told_type)
      leave(INIT)
    end

    def serve(handler, event)
      Formatter.request_id = event.id
      trace(event.headers['lambda-runtime-trace-id'])
      input = receive(event) or return
      result = call(handler, input, event) or return
      body, content_type = result
      body = body.read if content_type == 'application/unknown'
      flush
      @api.respond(event.id, body, content_type || 'application/json')
    end

    # The event and its context; nil where they cannot be read, which is the runtime's error.
    def receive(event)
      [AwsLambda::Marshaller.marshall_request(Raw.new(event.headers, event.body)), LambdaContext.new(event.headers)]
    rescue StandardError => e
      report(event, Failure.new(e, 'Runtime'), 'Error raised from the runtime')
      leave(RUNTIME)
    end

    # The marshalled result; nil where an error was reported instead. An error that
    # shows the code itself to be wrong ends the process, as on AWS.
    def call(handler, input, event)
      Array(AwsLambda::Marshaller.marshall_response(handler.call(*input)))
    rescue NameError => e # and NoMethodError
      critical(event, e)
    rescue StandardError => e
      report(event, Failure.new(e, 'Function'), 'Error raised from handler method')
    rescue Exception => e # exit, SystemStackError, NotImplementedError …
      critical(event, e)
    end

    def critical(event, error)
      report(event, Failure.new(error, 'Function'), 'Critical exception from handler')
      leave(CRITICAL)
    end

    def report(event, failure, message)
      log(message, failure)
      flush
      @api.fail(event.id, JSON.generate(failure.document), failure.told_type)
      nil
    end

    def log(message, failure)
      puts message
      puts JSON.pretty_generate(failure.document)
    end

    def trace(header)
      ENV['_X_AMZN_TRACE_ID'] = header
    end

    # What a function printed belongs to the invocation that is about to end.
    def flush
      [$stdout, $stderr].each(&:flush)
    rescue IOError, SystemCallError
      nil # a handler closed it
    end

    # at_exit blocks of the function run, as on AWS.
    def leave(code)
      flush
      exit(code)
    end

    def abort_with(code, message)
      warn message
      exit!(code)
    end
  end
end
