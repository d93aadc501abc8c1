"""The Runtime API over one kept-alive connection.

http.client costs more than the rest of an invocation, and 15 ms to import; what
the API needs of HTTP/1.1 is a request head, Content-Length, and chunks.
"""
import _socket

from kiln_runtime import BUILTINS as __builtins__

# One read takes a small event whole, head and body.
CHUNK = 64 * 1024
# Above this, joining head and body costs more than a second system call.
JOIN = 128 * 1024
# A head that is longer is not HTTP.
MAX_HEAD = 2 * 1024 * 1024

VERSION = "/2018-06-01/runtime/"


class Refused(Exception):
    """The server answered that this call is not possible."""

    def __init__(self, status, body):
        super().__init__("the Runtime API answered %d: %s" % (status, str(body, "utf-8", "replace")))
        self.status = status


class Event:
    """An invocation as it came."""

    __slots__ = ("headers", "body", "id")

    def __init__(self, headers, body):
        self.headers = headers
        self.body = body
        self.id = headers.get("lambda-runtime-aws-request-id", "")


class RuntimeAPI:
    """A connection to AWS_LAMBDA_RUNTIME_API. It serves one thread."""

    def __init__(self, address):
        host, _, port = address.rpartition(":")
        self._address = (host.strip("[]"), int(port))
        self._host = address.encode()
        self._get_next = self._head("GET", "invocation/next", b"")
        self._sock = None
        self._rest = b""  # what was read beyond the last answer

    def wait(self, rehearse):
        """Connects, and waits for the message that a spare is sent before all else:
        its length in 4 bytes, big-endian, and as many more. An empty one is for
        rehearsing, and answered when that is done."""
        self._connect()
        while True:
            size = int.from_bytes(self._take(4), "big")
            if size:
                return bytes(self._take(size))
            rehearse()
            self._sock.sendall(b"\n")

    def next(self):
        """Waits for the next event. A connection that breaks while waiting is
        replaced: an event that was lost on the way is not known to us."""
        status, headers, body = self._exchange(self._get_next)
        if status != 200:
            raise Refused(status, body)
        return Event(headers, body)

    def respond(self, request_id, body, content_type):
        self._post("invocation/%s/response" % request_id, body, b"Content-Type: " + content_type + b"\r\n")

    def fail(self, request_id, body, error_type, cause):
        headers = _error_headers(error_type)
        if cause:
            headers += b"Lambda-Runtime-Function-XRay-Error-Cause: " + cause.encode() + b"\r\n"
        self._post("invocation/%s/error" % request_id, body, headers)

    def fail_init(self, body, error_type):
        self._post("init/error", body, _error_headers(error_type))

    def _post(self, path, body, headers):
        headers += b"Content-Length: %d\r\n" % len(body)
        try:
            status, _, answer = self._exchange(self._head("POST", path, headers), body)
        except OSError:
            return  # asking for the next event shows whether the API is still there
        # 400: answered before, by a request whose acknowledgement was lost, or
        # given up by the platform. 413: it has told the caller. Both end this
        # invocation and no other.
        if status >= 500 or status in (401, 403, 404):
            raise Refused(status, answer)

    def _head(self, method, path, headers):
        return b"%s %s%s HTTP/1.1\r\nHost: %s\r\nUser-Agent: kiln-python\r\n%s\r\n" % (
            method.encode(), VERSION.encode(), path.encode(), self._host, headers)

    def _exchange(self, head, body=b""):
        """One request and its answer. A connection that was kept may have been
        closed meanwhile, by the server or by a handler that closes every
        descriptor: then once more on a fresh one."""
        kept = self._sock is not None
        try:
            return self._attempt(head, body)
        except OSError:
            self._disconnect()
            if not kept:
                raise
        return self._attempt(head, body)

    def _attempt(self, head, body):
        if self._sock is None:
            self._connect()
        sock = self._sock
        try:
            if len(body) <= JOIN:
                sock.sendall(head + body)
            else:
                sock.sendall(head)
                sock.sendall(body)
        except OSError:
            # A body that is too large is refused before it is read, and the
            # connection closed: the answer may be here already.
            answer = self._answer()
            self._disconnect()
            return answer
        return self._answer()

    def _answer(self):
        data = self._rest
        end = data.find(b"\r\n\r\n")
        while end < 0:
            data += self._read()
            end = data.find(b"\r\n\r\n")
            if end < 0 and len(data) > MAX_HEAD:
                raise OSError("the Runtime API's answer is not HTTP")
        self._rest = data[end + 4:]
        lines = str(data[:end], "utf-8", "replace").split("\r\n")
        headers = {}
        for line in lines[1:]:
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        status = int(lines[0][9:12])
        if "content-length" in headers:
            body = self._take(int(headers["content-length"]))
        elif "chunked" in headers.get("transfer-encoding", ""):
            body = self._take_chunks()
        else:
            body = b""
        if headers.get("connection", "").lower() == "close":
            self._disconnect()
        return status, headers, body

    def _take(self, size):
        """The next size bytes; large bodies are read into place, without copies."""
        rest = self._rest
        if len(rest) >= size:
            self._rest = rest[size:]
            return rest[:size]
        body = bytearray(size)
        body[:len(rest)] = rest
        self._rest = b""
        view = memoryview(body)
        at = len(rest)
        while at < size:
            n = self._sock.recv_into(view[at:])
            if n == 0:
                raise OSError("the Runtime API closed the connection")
            at += n
        return body

    def _take_chunks(self):
        parts = []
        while True:
            size = int(self._take_line().partition(b";")[0], 16)
            if size == 0:
                while self._take_line():  # trailers
                    pass
                return b"".join(parts)
            parts.append(self._take(size))
            self._take_line()

    def _take_line(self):
        while True:
            line, found, rest = self._rest.partition(b"\r\n")
            if found:
                self._rest = rest
                return line
            self._rest += self._read()

    def _read(self):
        data = self._sock.recv(CHUNK)
        if not data:
            raise OSError("the Runtime API closed the connection")
        return data

    def _connect(self):
        host, port = self._address
        family = _socket.AF_INET6 if ":" in host else _socket.AF_INET
        sock = _socket.socket(family, _socket.SOCK_STREAM)
        # A handler's socket.setdefaulttimeout must not end our wait for events.
        sock.settimeout(None)
        try:
            sock.connect((host, port))
            sock.setsockopt(_socket.IPPROTO_TCP, _socket.TCP_NODELAY, 1)
        except OSError:
            sock.close()
            raise
        self._sock = sock
        self._rest = b""

    def _disconnect(self):
        sock, self._sock, self._rest = self._sock, None, b""
        if sock is not None:
            try:
                sock.close()
            except OSError:
                pass  # a handler closed the descriptor before us


def _error_headers(error_type):
    clean = "".join(c for c in error_type if " " < c < "\x7f")
    return b"Content-Type: application/json\r\nLambda-Runtime-Function-Error-Type: " + clean.encode() + b"\r\n"
