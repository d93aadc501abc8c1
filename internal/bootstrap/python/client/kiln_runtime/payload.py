"""Events in, results out: JSON by the C code beneath the json module, which is
not imported itself because it brings re and enum with it.

Results follow simplejson, which AWS's client uses: Decimal becomes a number, a
namedtuple an object, bytes a string. Most results have nothing of that; they are
recognised at C speed and encoded in one go, all others by slowjson.
"""
import _json
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


_unescaped = _json.encode_basestring
_quote = _json.encode_basestring_ascii if ASCII else _unescaped
_dump = _encoder(None, _not_plain, _quote, None, ": ", ", ", False, False, True)


def encode_document(value):
    """The body of an error document. A lone surrogate becomes its escape."""
    return "".join(_dump(value, 0)).encode("utf-8", "backslashreplace")


def legible(value):
    """JSON as it appears in logs: unescaped, and str() of what JSON lacks."""
    return "".join(_encoder({}, str, _unescaped, None, ": ", ", ", False, False, True)(value, 0))

# Deeper results are rare, and circular ones never end: slowjson tells which.
MAX_PLAIN_DEPTH = 100
_SCALARS = frozenset((str, int, float, bool, type(None)))
_CONTAINERS = frozenset((dict, list, tuple))
_KEYS = frozenset((str,))


def _plain(value, depth):
    """Whether a container holds nothing in which json and simplejson differ. The
    types of a container's members are compared as sets, which is C code. Python
    3.13.0 fails to bound this recursion by itself, so depth does."""
    if type(value) is dict:
        if not _KEYS.issuperset(map(type, value)):
            return False
        value = value.values()
    types = set(map(type, value)) - _SCALARS
    if not types:
        return True
    if depth == 0 or not types <= _CONTAINERS:
        return False
    for member in value:
        if type(member) in _CONTAINERS and not _plain(member, depth - 1):
            return False
    return True


def encode(result):
    """A handler's result as the body and content type of the response."""
    if isinstance(result, bytes):
        return result, RAW
    try:
        return _encode(result), JSON
    except Exception as e:
        raise Fault("Runtime.MarshalError", "Unable to marshal response: %s" % (e,)) from None


def _encode(result):
    kind = type(result)
    if kind in _SCALARS or kind in _CONTAINERS and _plain(result, MAX_PLAIN_DEPTH):
        return "".join(_dump(result, 0)).encode()
    from kiln_runtime.slowjson import dumps
    return dumps(result, _quote).encode()
