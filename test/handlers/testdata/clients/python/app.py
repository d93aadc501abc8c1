"""What two runtime clients are compared by: each function is one behaviour, named
by the event. An event without a name is answered with all names."""
import asyncio
import collections
import datetime
import decimal
import enum
import json
import logging
import os
import signal
import sys
import threading
import time
import uuid

Point = collections.namedtuple("Point", "x y")


class Custom(Exception):
    class Nested(Exception):
        pass


class Colour(enum.Enum):
    RED = "red"


class Number(enum.IntEnum):
    ONE = 1


class Text(str):
    pass


def cause():
    try:
        1 / 0
    except ZeroDivisionError as e:
        raise Custom("outer") from e


def deep(n):
    value = []
    for _ in range(n):
        value = [value]
    return value


def fail(error):
    raise error


def recursive(n):
    return recursive(n + 1)


class Unprintable(Exception):
    def __str__(self):
        raise RuntimeError("no")


circle = []
circle.append(circle)

results = {
    "event": lambda e, c: e,
    "none": lambda e, c: None,
    "text": lambda e, c: "é😀\u2028\x7f",
    "surrogate": lambda e, c: "a\ud800",
    "bytes": lambda e, c: b'{"raw": 1}',
    "bytes that are no text": lambda e, c: b"\x00\xff",
    "bytes within": lambda e, c: {"a": b"x", b"k": [b"y"]},
    "bytes within that are no text": lambda e, c: [b"\xff"],
    "bytearray": lambda e, c: bytearray(b"a"),
    "decimal": lambda e, c: {"d": decimal.Decimal("1.10"), "e": decimal.Decimal("1E+400"), "n": decimal.Decimal("NaN"), "i": decimal.Decimal("Infinity")},
    "numbers": lambda e, c: [float("nan"), float("inf"), -float("inf"), 1e16, 1e-7, 10**40, -0.0, True],
    "namedtuple": lambda e, c: Point(1, [Point(2, 3)]),
    "keys": lambda e, c: {1: "a", None: "b", True: "c", 1.5: "d"},
    "key of a tuple": lambda e, c: {(1, 2): 3},
    "subclasses": lambda e, c: [Text("x"), Number.ONE, collections.OrderedDict(b=1, a=2), collections.defaultdict(list, a=[1])],
    "enum": lambda e, c: Colour.RED,
    "set": lambda e, c: {1},
    "object": lambda e, c: {"a": [object()]},
    "datetime": lambda e, c: datetime.datetime(2020, 1, 1),
    "uuid": lambda e, c: uuid.UUID(int=0),
    "generator": lambda e, c: (x for x in [1]),
    "dict keys": lambda e, c: {}.keys(),
    "circle": lambda e, c: circle,
    "deep": lambda e, c: deep(300),
    "escapes": lambda e, c: "\x00\x1f<>&/\"\\\u007f\u2029",
    "empty": lambda e, c: [[], {}, (), ""],
    "too large": lambda e, c: "x" * (6 << 20) + "x" * 200,
}


async def coroutine(e, c):
    return 1


results["coroutine"] = coroutine
results["asyncio"] = lambda e, c: asyncio.run(coroutine(e, c))

errors = {
    "raise": lambda e, c: fail(ValueError("bad é")),
    "lines": lambda e, c: fail(ValueError("one\ntwo")),
    "nothing": lambda e, c: fail(ValueError),
    "nested class": lambda e, c: fail(Custom.Nested("q")),
    "cause": lambda e, c: cause(),
    "key": lambda e, c: {}["k"],
    "attribute": lambda e, c: e.absent,
    "compiled": lambda e, c: exec("1/0"),
    "system": lambda e, c: open("/absent"),
    "json": lambda e, c: json.loads("{bad"),
    "assertion": lambda e, c: fail(AssertionError()),
    "arguments": lambda e, c: fail(Custom("a", 1)),
    "not callable": lambda e, c: c(),
    "stop": lambda e, c: next(iter([])),
    "warning": lambda e, c: fail(UserWarning("w")),
    "recursion": lambda e, c: recursive(0),
}

# What ends the runtime, last: each begins in an environment of its own.
ends = {
    "exit 0": lambda e, c: sys.exit(0),
    "exit 3": lambda e, c: sys.exit(3),
    "exit text": lambda e, c: sys.exit("last words"),
    "_exit": lambda e, c: os._exit(4),
    "kill": lambda e, c: os.kill(os.getpid(), signal.SIGKILL),
    "terminate": lambda e, c: os.kill(os.getpid(), signal.SIGTERM),
    "interrupt": lambda e, c: fail(KeyboardInterrupt()),
    "base": lambda e, c: fail(BaseException("b")),
    "unprintable": lambda e, c: fail(Unprintable()),
    "error with a surrogate": lambda e, c: fail(ValueError("b\ud800")),
}


def thread(e, c):
    threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
    return threading.active_count()


def thread_fails(e, c):
    t = threading.Thread(target=lambda: 1 / 0)
    t.start()
    t.join()
    return "on"


def names(of):
    return sorted(n for n in dir(of) if not n.startswith("_"))


surroundings = {
    "context": lambda e, c: repr(c),
    "context names": lambda e, c: names(c),
    "context type": lambda e, c: [type(c).__name__, type(c).__module__.startswith("awslambdaric") or type(c).__module__.startswith("kiln"), type(c.identity).__name__],
    "context of the caller": lambda e, c: c.client_context and [c.client_context.custom, c.client_context.env, c.client_context.client and names(c.client_context.client),
                                                                 c.client_context.client and c.client_context.client.app_title, c.identity.cognito_identity_id],
    "context slots": lambda e, c: setattr(c, "mine", 1),
    "remaining": lambda e, c: 5000 < c.get_remaining_time_in_millis() <= 20000 and type(c.get_remaining_time_in_millis()).__name__,
    "variables": lambda e, c: {k: v for k, v in os.environ.items() if not any(part in k for part in ("KEY", "TOKEN", "STREAM", "FUNCTION_NAME", "LOG_GROUP", "API", "ENDPOINT", "X_AMZN"))},
    "trace": lambda e, c: os.environ["_X_AMZN_TRACE_ID"].split("=")[0],
    "folder": lambda e, c: os.getcwd(),
    "module": lambda e, c: [__name__, __file__],
    "path": lambda e, c: sys.path[0],
    "thread": thread,
    "thread that fails": thread_fails,
    "encoding": lambda e, c: [sys.stdout.encoding, sys.getfilesystemencoding(), sys.getdefaultencoding()],
    "signals": lambda e, c: [str(signal.getsignal(s)) for s in (signal.SIGINT, signal.SIGPIPE)],
    "handlers": lambda e, c: [logging.getLogger().level, [type(h).__name__ for h in logging.getLogger().handlers], [len(h.filters) for h in logging.getLogger().handlers]],
    "formatter": lambda e, c: logging.Formatter.converter is time.gmtime,
    "standard output": lambda e, c: [sys.stdout.isatty(), sys.stdout.writable(), sys.stdout.fileno()],
}

logger = logging.getLogger("my")


def log_levels(e, c):
    for level in (5, 10, 20, 30, 35, 40, 50):
        logger.log(level, "level %d", level)


def log_errors(e, c):
    try:
        fail(Custom("é"))
    except Custom:
        logger.exception("failed")
        logging.error("plain", exc_info=True)
    try:
        cause()
    except Custom:
        logger.warning("caused", exc_info=True)
    logger.error("with stack", stack_info=False)


def log_extra(e, c):
    logger.warning("extra", extra={"k": {"a": 1}, "o": object, "l": [1], "n": None})
    logger.warning({"a": 1})
    logger.warning(["a", 1])
    logger.warning("%s and %s", "a", {"b": 2})
    logger.warning("bad %d", "x")


def log_print(e, c):
    print("one", 2, {"a": 1})
    print("two\nlines")
    print("no end", end="")
    print()
    sys.stdout.write("written\n")
    sys.stdout.writelines(["a\n", "b\n"])


def log_stderr(e, c):
    print("to stderr", file=sys.stderr)
    sys.stderr.write("two\nlines\n")


def log_level(e, c):
    logging.getLogger().setLevel(logging.DEBUG)
    logging.debug("debug")
    logging.info("info")
    logging.getLogger("other.child").info("child")
    logging.getLogger().setLevel(logging.WARNING)
    logging.info("unseen")


def log_basic(e, c):
    logging.basicConfig(level=logging.INFO)
    logging.info("unseen, for the root has a handler")


logs = {
    "log levels": log_levels,
    "log lines": lambda e, c: logger.error("one\ntwo é\n"),
    "log errors": log_errors,
    "log extra": log_extra,
    "log print": log_print,
    "log stderr": log_stderr,
    "log level": log_level,
    "log basic": log_basic,
    "log of the context": lambda e, c: (c.log("a\nb\n"), c.log("text"), None)[2],
    "log large": lambda e, c: logger.error("x" * 70000),
    "log warnings": lambda e, c: (logging.captureWarnings(True), __import__("warnings").warn("careful"), None)[2],
    "log surrogate": lambda e, c: logger.error("b\ud800"),
}

cases = {}
for group, members in (("results", results), ("errors", errors), ("surroundings", surroundings), ("logs", logs), ("ends", ends)):
    for name, case in members.items():
        cases[group + ": " + name] = case


def handler(event, context):
    do = event.pop("do", None) if isinstance(event, dict) else None
    return cases[do](event, context) if do else list(cases)


class Callable:
    def __call__(self, event, context):
        return "called"

    def method(self, event, context):
        return "method"


instance = Callable()
number = 5


def one(event):
    return 1


def defaults(event, context=None, *more, **others):
    return [len(more), len(others)]
