"""Error documents: what a caller gets for an exception, and what the log says."""
import os
from time import gmtime, strftime

from kiln_runtime import BUILTINS as __builtins__
from kiln_runtime import logs
from kiln_runtime.payload import Fault, ascii_json, encode_document

# Larger causes are left out, as AWS's client does.
MAX_CAUSE = 1 << 20
NBSP = "\u00a0"  # log viewers drop leading spaces

UNHANDLED = (
    "LAMBDA_WARNING: Unhandled exception. The most likely cause is an issue in the function code. "
    "However, in rare cases, a Lambda runtime update can cause unexpected function behavior. "
    "For functions using managed runtimes, runtime updates can be triggered by a function change, "
    "or can be applied automatically. To determine if the runtime has been updated, check the runtime "
    "version in the INIT_START log entry. If this error correlates with a change in the runtime version, "
    "you may be able to mitigate this error by temporarily rolling back to the previous runtime version. "
    "For more information, see https://docs.aws.amazon.com/lambda/latest/dg/runtimes-update.html\r"
)


def describe(error, request_id, skip=1):
    """The error document; the first frames, skip of them, are the client's own."""
    if isinstance(error, Fault):
        return _document(str(error), error.error_type, request_id, error.stack)
    return _document(_message(error), type(error).__name__, request_id, _stack(error.__traceback__, skip))


def cause(error, document, skip):
    """What X-Ray takes as the cause, in ASCII for a header; "" where it is too long."""
    frames = [] if isinstance(error, Fault) else _frames(error.__traceback__, skip)
    text = ascii_json({
        "working_directory": _folder(),
        "exceptions": [{
            "message": document["errorMessage"],
            "type": "LambdaValidationError" if isinstance(error, Fault) else document["errorType"],
            "stack": [{"label": f[2], "path": f[0], "line": f[1]} for f in frames],
        }],
        "paths": list(dict.fromkeys(f[0] for f in frames)),
    })
    return text if len(text) < MAX_CAUSE else ""


def _folder():
    try:
        return os.getcwd()
    except OSError:  # it was removed
        return ""


def _document(message, error_type, request_id, stack):
    return {"errorMessage": message, "errorType": error_type, "requestId": request_id, "stackTrace": stack}


def _message(error):
    try:
        return str(error)
    except Exception:  # a __str__ of the function's own
        return "<exception str() failed>"


def _frames(trace, skip):
    for _ in range(skip):
        if trace is not None and trace.tb_next is not None:
            trace = trace.tb_next
    try:
        from traceback import extract_tb
        return [(f.filename, f.lineno, f.name, f.line) for f in extract_tb(trace)]
    except Exception:  # patched by the function, or its source is unreadable
        return []


def _stack(trace, skip):
    """Frames as traceback prints them, without its markers below the code."""
    try:
        from traceback import format_list
        return format_list(_frames(trace, skip))
    except Exception:
        return []


def log(document, settings, sink):
    """Writes an unhandled error to the function's log, as one event."""
    if settings.json:
        fields = {"timestamp": strftime("%Y-%m-%dT%H:%M:%SZ", gmtime()), "level": "ERROR"}
        fields.update(document)
        sink.log(str(encode_document(fields), "utf-8") + ("" if sink.framed else "\n"), logs.OBJECT | logs.ERROR)
        return
    first = "[ERROR] " + document["errorType"]
    if document["errorMessage"]:
        first += ": " + document["errorMessage"]
    lines = [first, "Traceback (most recent call last):"]
    for frame in document["stackTrace"]:
        for line in frame.rstrip("\n").split("\n"):
            bare = line.lstrip(" ")
            lines.append(NBSP * (len(line) - len(bare)) + bare)
    if sink.framed:
        sink.log("\n".join(lines), logs.TEXT | logs.ERROR)
    else:
        sink.log("\r".join(lines) + "\n")
