"""The root logger's handler, as AWS's client sets it up. Imported together with
logging, so that a function which does not log does not wait for it."""
import logging
import time

from kiln_runtime import BUILTINS as __builtins__
from kiln_runtime import logs, payload

_DATE = "%Y-%m-%dT%H:%M:%S"
# The attributes of every record; others were given as extra.
_STANDARD = (frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "aws_request_id", "tenant_id"}) - {"taskName"}


class RequestFilter(logging.Filter):
    """Adds the request that is being served to each record."""

    def __init__(self, current):
        super().__init__()
        self._current = current

    def filter(self, record):
        record.aws_request_id = self._current.request_id
        record.tenant_id = self._current.tenant_id
        return True


class LambdaLoggerHandler(logging.Handler):
    def __init__(self, sink):
        super().__init__()
        self._sink = sink

    def emit(self, record):
        text = self.format(record)
        if not self._sink.framed and record.exc_info and not text.endswith("\n"):
            text += "\n"  # or the next line would be joined to this one
        self._sink.log(text, self.kind(record))

    def kind(self, record):
        return logs.TEXT


class LambdaLoggerHandlerWithFrameType(LambdaLoggerHandler):
    """Frames that name their level, where a level or JSON was asked for."""

    def __init__(self, sink, base):
        super().__init__(sink)
        self._base = base

    def kind(self, record):
        return self._base | logs.level_bits(record.levelno)


class JsonFormatter(logging.Formatter):
    def format(self, record):
        fields = {
            "timestamp": self.formatTime(record, _DATE + "Z"),
            "level": _json_level(record.levelno),
            "message": record.msg if isinstance(record.msg, dict) and not record.args else record.getMessage(),
            "logger": record.name,
            "stackTrace": None,
            "errorType": None,
            "errorMessage": None,
            "requestId": getattr(record, "aws_request_id", None),
            "location": None,
            "tenantId": getattr(record, "tenant_id", None),
        }
        if record.exc_info and record.exc_info[0]:
            import traceback
            kind, error, trace = record.exc_info
            fields["stackTrace"] = traceback.format_tb(trace)
            fields["errorType"] = kind.__name__
            fields["errorMessage"] = str(error)
            fields["location"] = "%s:%s:%d" % (record.pathname, record.funcName, record.lineno)
        fields = {name: value for name, value in fields.items() if value is not None}
        for name, value in record.__dict__.items():
            if name not in _STANDARD and name not in fields and value is not None:
                fields[name] = value
        return payload.legible(fields) + "\n"


def _json_level(number):
    return logging.getLevelName(max((n for n in (50, 40, 30, 20, 10) if n <= number), default=0))


def install(settings, sink, current):
    """Gives the root logger its one handler and its level."""
    if settings.json:
        handler = LambdaLoggerHandlerWithFrameType(sink, logs.OBJECT)
        formatter = JsonFormatter()
    else:
        handler = LambdaLoggerHandlerWithFrameType(sink, logs.TEXT) if settings.level else LambdaLoggerHandler(sink)
        formatter = logging.Formatter("[%(levelname)s]\t%(asctime)s.%(msecs)03dZ\t%(aws_request_id)s\t%(message)s\n", _DATE)
    logging.Formatter.converter = time.gmtime  # the function's own formatters too, as on AWS
    handler.setFormatter(formatter)
    handler.addFilter(RequestFilter(current))
    root = logging.getLogger()
    root.addHandler(handler)
    if settings.level:
        number = logging.getLevelName(settings.level)
        if isinstance(number, int):
            root.setLevel(number)
