# frozen_string_literal: true

require 'json'
require 'stringio'

# Events in, results out. The name is AWS's, and public: functions may override it.
module AwsLambda
  class Marshaller
    class << self
      # +raw+ has the request's headers, by [], and its body.
      def marshall_request(raw)
        raw['Content-Type'] == 'application/json' ? JSON.parse(raw.body) : raw.body
      end

      # The body, or the body with its content type.
      def marshall_response(result)
        case result
        when StringIO, IO then [result, 'application/unknown']
        else result.to_json
        end
      end
    end
  end
end
