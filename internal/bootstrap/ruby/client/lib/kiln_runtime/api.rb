# frozen_string_literal: true

require 'socket'

module KilnRuntime
  # The Runtime API over one kept-alive connection. net/http would cost more than the
  # rest of an invocation, and 20 ms to load.
  class API
    # The server answered that a call is not possible.
    class Refused < StandardError; end

    # An invocation as it came; the names of headers are in lower case.
    Event = Struct.new(:headers, :body) do
      def id = headers['lambda-runtime-aws-request-id'] || ''
    end

    VERSION = '/2018-06-01/runtime/'
    # A longer line of a head is not HTTP.
    MAX_LINE = 2 * 1024 * 1024
    BROKEN = [SystemCallError, IOError].freeze

    def initialize(address)
      @address = address
      @host, _, @port = address.rpartition(':')
      @host = @host.delete('[]')
      @next = head('GET', 'invocation/next', '')
      @socket = nil
    end

    # Waits for the next event. A connection that breaks while waiting is replaced: an
    # event that was lost on the way is not known to us.
    def next
      status, headers, body = exchange(@next)
      raise Refused, "the Runtime API answered #{status}: #{body}" unless status == 200

      Event.new(headers, body)
    end

    def respond(id, body, content_type)
      post("invocation/#{id}/response", body, "Content-Type: #{content_type}\r\n")
    end

    def fail(id, body, error_type)
      post("invocation/#{id}/error", body, error_headers(error_type))
    end

    def fail_init(body, error_type)
      post('init/error', body, error_headers(error_type))
    end

    private

    def error_headers(error_type)
      "Content-Type: application/json\r\nLambda-Runtime-Function-Error-Type: #{error_type.gsub(/[^\x21-\x7e]/, '')}\r\n"
    end

    def post(path, body, headers)
      body = body.b
      begin
        status, _, answer = exchange(head('POST', path, "#{headers}Content-Length: #{body.bytesize}\r\n"), body)
      rescue *BROKEN
        return # asking for the next event shows whether the API is still there
      end
      # 400: answered before, or given up by the platform. 413: it has told the caller.
      # Both end this invocation and no other.
      raise Refused, "the Runtime API answered #{status}: #{answer}" if status >= 500 || [401, 403, 404].include?(status)
    end

    def head(method, path, headers)
      "#{method} #{VERSION}#{path} HTTP/1.1\r\nHost: #{@address}\r\nUser-Agent: kiln-ruby\r\n#{headers}\r\n".b
    end

    # One request and its answer. A connection that was kept may have been closed
    # meanwhile: then once more on a fresh one.
    def exchange(head, body = '')
      kept = !@socket.nil?
      begin
        attempt(head, body)
      rescue *BROKEN
        disconnect
        raise unless kept

        attempt(head, body)
      end
    end

    def attempt(head, body)
      connect if @socket.nil?
      begin
        @socket.write(head, body)
      rescue *BROKEN
        # A body that is too large is refused before it is read, and the connection
        # closed: the answer may be here already.
        answer = read_answer
        disconnect
        return answer
      end
      read_answer
    end

    def read_answer
      status = line[9, 3].to_i
      headers = {}
      until (text = line).empty?
        name, _, value = text.partition(':')
        headers[name.downcase] = value.strip.force_encoding(Encoding::UTF_8)
      end
      body = if headers['content-length']
               take(headers['content-length'].to_i)
             elsif headers['transfer-encoding'].to_s.include?('chunked')
               take_chunks
             else
               ''.b
             end
      disconnect if headers['connection'].to_s.casecmp?('close')
      [status, headers, body]
    end

    def line
      text = @socket.gets("\r\n", MAX_LINE)
      raise EOFError, 'the Runtime API closed the connection' unless text&.end_with?("\r\n")

      text.chomp("\r\n")
    end

    def take(size)
      body = size.zero? ? ''.b : @socket.read(size)
      raise EOFError, 'the Runtime API closed the connection' unless body && body.bytesize == size

      body
    end

    def take_chunks
      body = ''.b
      while (size = line.to_i(16)).positive?
        body << take(size)
        line
      end
      nil until line.empty? # trailers
      body
    end

    def connect
      @socket = TCPSocket.new(@host, @port.to_i)
      @socket.binmode
      @socket.sync = true
      @socket.setsockopt(Socket::IPPROTO_TCP, Socket::TCP_NODELAY, 1)
    end

    def disconnect
      @socket&.close
    rescue *BROKEN
      nil # a handler closed the descriptor before us
    ensure
      @socket = nil
    end
  end
end
