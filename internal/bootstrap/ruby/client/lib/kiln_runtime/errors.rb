# frozen_string_literal: true

module KilnRuntime
  # An exception as its caller gets it.
  class Failure
    # Errors that are told to the platform by their name; others are the function's own.
    TOLD = %w[ArgumentError NoMethodError Exception StandardError NameError LoadError SystemExit SystemStackError].freeze
    MAX_FRAMES = 100
    OURS = File.expand_path('..', __dir__) + '/'

    # +phase+ is Function, Init or Runtime.
    def initialize(error, phase)
      @error = error
      @type = "#{phase}<#{error.class}>"
    end

    # The value of Lambda-Runtime-Function-Error-Type.
    def told_type = TOLD.include?(@error.class.to_s) ? @type : 'Function<UserException>'

    # Frames from this client on are not the function's.
    def document
      frames = (@error.backtrace_locations || []).first(MAX_FRAMES).map(&:to_s).take_while { |f| !f.start_with?(OURS) }
      { errorMessage: text(@error.message), errorType: @type, stackTrace: frames.map { |f| text(f) } }
    end

    private

    def text(value) = value.to_s.dup.force_encoding(Encoding::UTF_8).scrub
  end
end
