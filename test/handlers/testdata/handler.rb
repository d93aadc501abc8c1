# frozen_string_literal: true

require 'logger'
require 'socket'

LOG = Logger.new($stdout)

# Does what its event says.
def handler(event:, context:)
  case event['do']
  when 'log'
    puts "two\nlines"
    LOG.warn('careful')
    'logged'
  when 'raise' then raise ArgumentError, event['message']
  when 'critical' then nil.nope
  when 'exit' then exit!(event['status'])
  when 'sleep' then sleep
  when 'environment' then ENV.to_h
  when 'raw' then StringIO.new('raw')
  when 'layer'
    require 'of_layer'
    [OF_LAYER, Gem.path]
  when 'aws'
    begin
      TCPSocket.new('169.254.169.254', 80)
    rescue SystemCallError => e
      e.class.name
    end
  else { event: event, version: RUBY_VERSION, id: context.aws_request_id, left: context.get_remaining_time_in_millis }
  end
end
