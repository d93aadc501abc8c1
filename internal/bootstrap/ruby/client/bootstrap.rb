# frozen_string_literal: true

# Starts the runtime client.
require_relative 'lib/kiln_runtime/runtime'

KilnRuntime::Runtime.new(ENV).run
