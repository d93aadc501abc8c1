"""Events in, results out: JSON by the C code beneath the json module, which is
not imported itself because it brings re and enum with it.

Results follow simplejson, which AWS's client uses: Decimal becomes a number, a
namedtuple an object, bytes a string. Most results have nothing of that, and are
encoded in one go. Of what differs only a namedtuple would pass the C encoder
silently, as a tuple; marshal, which refuses everything but exact built-in types,
and circular and very deep values, finds it faster than any loop could. What the
one or the other refuses is for slowjson.
"""
import _json
import marshal
import os

from kiln_runtime import BUILTINS as __builtins__

JSON = b"application/json"
RAW = b"application/unknown"


def _escapes(runtime):
    """Whether all but ASCII is escaped, as AWS does up to python3.11. It is the
    function's runtime that decides, not the interpreter that stands in for it."""
    minor = runtime[len("AWS_Lambda_python3."):]
    return not (runtime.startswith("AWS_Lambda_python3.") and minor.isdigit() and int(minor) >= 12)


ASCII = _escapes(os.environ.get("AWS_EXECUTION_ENV", ""))


class Fault(Exception):
    """An error of the runtime's own: it has a type but no stack."""

    def __init__(self, error_type, message, stack=()):
        super().__init__(message)
        self.error_type = error_type
        self.stack = list(stack)


class _Settings:
    """What the C scanner asks of a JSONDecoder."""

    strict = True
    object_hook = None
    object_pairs_hook = None
    parse_float = float
    parse_int = int
    parse_constant = {"-Infinity": -float("inf"), "Infinity": float("inf"), "NaN": float("nan")}.__getitem__
    memo: dict = {}


_scan = _json.make_scanner(_Settings())


def parse(text):
    """A JSON document as Python values; ValueError or RecursionError as json's."""
    stripped = text.strip(" \t\n\r")
    try:
        value, end = _scan(stripped, 0)
        if end == len(stripped):
            return value
    except (ValueError, StopIteration):
        pass
    from json import loads  # only it words what is wrong
    return loads(text)


def decode(body, content_type):
    """The event of a handler: JSON, or the bytes as they are."""
    if content_type != "application/json":
        return bytes(body)
    try:
        return parse(str(body, "utf-8"))
    except Exception as e:
        raise Fault("Runtime.UnmarshalError", "Unable to unmarshal input: %s" % (e,)) from None


_encoder = _json.make_encoder


def _not_plain(value):
    raise TypeError


_SCALARS = frozenset((str, int, float, bool, type(None)))
_check_plain = marshal.dumps
_WITHOUT_REFERENCES = 2  # marshal's format in which a circular value is refused
_unescaped = _json.encode_basestring
_quote = _json.encode_basestring_ascii if ASCII else _unescaped
_dump = _encoder(None, _not_plain, _quote, None, ": ", ", ", False, False, True)


def encode_document(value):
    """The body of an error document. A lone surrogate becomes its escape."""
    return "".join(_dump(value, 0)).encode("utf-8", "backslashreplace")


def ascii_json(value):
    """JSON fit for a header."""
    return "".join(_encoder(None, str, _json.encode_basestring_ascii, None, ": ", ", ", False, False, True)(value, 0))


def legible(value):
    """JSON as it appears in logs: unescaped, and str() of what JSON lacks."""
    return "".join(_encoder({}, str, _unescaped, None, ": ", ", ", False, False, True)(value, 0))


def encode(result):
    """A handler's result as the body and content type of the response."""
    if isinstance(result, bytes):
        return result, RAW
    try:
        return _encode(result), JSON
    except Exception as e:
        raise Fault("Runtime.MarshalError", "Unable to marshal response: %s" % (e,)) from None


def _encode(result):
    if type(result) in _SCALARS:
        return "".join(_dump(result, 0)).encode()
    try:
        _check_plain(result, _WITHOUT_REFERENCES)
        return "".join(_dump(result, 0)).encode()
    except (ValueError, TypeError, RecursionError):
        from kiln_runtime.slowjson import dumps
        return dumps(result, _quote).encode()
