# frozen_string_literal: true

require 'logger'

module KilnRuntime
  # Where log records go: frames on a descriptor of the platform's, in which a record
  # of several lines stays one event, or else standard output.
  class Sink
    FRAME = 0xa55a0003

    # Functions do not see the descriptor's variable.
    def initialize(environ)
      descriptor = environ.delete('_LAMBDA_TELEMETRY_LOG_FD')
      @file = IO.for_fd(Integer(descriptor), 'wb') if descriptor
      @file&.sync = true
      @file&.close_on_exec = true
      @mutex = Mutex.new
    rescue ArgumentError, SystemCallError
      @file = nil # promised but not open: standard output is better than nothing
    end

    def framed? = !@file.nil?

    # The pipe breaks when a handler closes what it has not opened.
    def write(message)
      return $stdout.write(message) unless framed?

      message = message.to_s.b
      micros = Process.clock_gettime(Process::CLOCK_REALTIME, :microsecond)
      @mutex.synchronize { @file.write([FRAME, message.bytesize, micros].pack('L>L>Q>') + message) }
    rescue IOError, SystemCallError
      $stdout.write(message)
    end
  end

  # A logger's line, with the id of the request.
  class Formatter < Logger::Formatter
    class << self
      attr_accessor :request_id
    end

    def call(severity, time, progname, msg)
      line = format("%s, [%s #%d] %5s %s -- %s: %s\n", severity[0], format_datetime(time), Process.pid, severity, Formatter.request_id, progname, msg2str(msg))
      line.encode(Encoding::UTF_8, invalid: :replace, undef: :replace)
    end
  end

  # Takes the place of standard output and error in loggers, and of Kernel#puts.
  module Logging
    # What Logger writes to, and may close.
    class Device
      def initialize(sink)
        @sink = sink
      end

      def write(message) = @sink.write(message)
      def close = nil
    end

    module Redirected
      def initialize(logdev = nil, *args, **options)
        return super unless logdev.nil? || logdev == $stdout || logdev == $stderr

        super(Logging.device, *args, **options)
        @default_formatter = Formatter.new
      end
    end

    class << self
      attr_reader :device

      def install(sink)
        @device = Device.new(sink)
        Logger.prepend(Redirected)
        Kernel.module_eval do
          define_method(:puts) do |*args|
            sink.write(args.flatten.map(&:to_s).join("\n"))
            nil
          end
          private :puts
        end
      end
    end
  end
end
