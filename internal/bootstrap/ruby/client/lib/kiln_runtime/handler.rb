# frozen_string_literal: true

module KilnRuntime
  # The method that a handler setting names: file.method, or file.Module::Class.method.
  class Handler
    def initialize(name)
      parts = name.split('.')
      unless [2, 3].include?(parts.size)
        raise ArgumentError, "Invalid handler #{parts}, must be of form FILENAME.METHOD or FILENAME.CLASS.METHOD " \
                             'where FILENAME corresponds with an existing Ruby source file FILENAME.rb, CLASS is an ' \
                             'optional module/class namespace and METHOD is a callable method. If using CLASS, METHOD ' \
                             'must be a class-level method.'
      end
      @file = parts.first
      @class = parts[1] if parts.size == 3
      @method = parts.last
    end

    # Whatever the file raises propagates.
    def load = require(@file)

    def call(event, context)
      if @class
        Kernel.const_get(@class).send(@method, event: event, context: context)
      else
        __send__(@method, event: event, context: context)
      end
    end
  end
end
