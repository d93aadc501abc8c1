"""The life of the runtime: set up, load the handler, serve events until the end. A
spare, started with _KILN_SPARE before it is known for which function, waits first."""
import os
import sys

from kiln_runtime import BUILTINS as __builtins__
from kiln_runtime import logs, modules
from kiln_runtime.api import RuntimeAPI
from kiln_runtime.context import LambdaContext
from kiln_runtime.handler import load
from kiln_runtime.payload import decode, encode, encode_document


class Function:
    """What the environment says of the function; a handler may change it later."""

    def __init__(self, get):
        self.name = get("AWS_LAMBDA_FUNCTION_NAME")
        self.version = get("AWS_LAMBDA_FUNCTION_VERSION")
        self.memory = get("AWS_LAMBDA_FUNCTION_MEMORY_SIZE")
        self.log_group = get("AWS_LAMBDA_LOG_GROUP_NAME")
        self.log_stream = get("AWS_LAMBDA_LOG_STREAM_NAME")


class Current:
    """The invocation that is being served, for log records."""

    request_id = ""
    tenant_id = None


class Runtime:
    def __init__(self, environ, api):
        self.api = api
        self.function = Function(environ.get)
        self.settings = logs.Settings(environ.get)
        self.sink = logs.open_sink(environ)
        self.current = Current()
        self.log_context = self.sink.log
        self.pid = os.getpid()
        sys.meta_path.insert(0, modules.StandardLibrary(self._set_up_logging))

    def _set_up_logging(self):
        from kiln_runtime.handlers import install
        install(self.settings, self.sink, self.current)

    def load(self, name):
        """The handler. A function that cannot be loaded ends the process."""
        try:
            return load(name)
        except Exception as e:
            self._fail_init(e)

    def _fail_init(self, error):
        from kiln_runtime import errors
        # Three frames are ours: load here, load and _import of the handler module.
        document = errors.describe(error, "", skip=3)
        try:
            import logging
            logging.warning(errors.UNHANDLED)
            errors.log(document, self.settings, self.sink)
        finally:
            flush()
            self.api.fail_init(encode_document(document), document["errorType"])
        # Threads that the module started before it failed would keep us here.
        os._exit(1) if "threading" in sys.modules and sys.modules["threading"].active_count() > 1 else sys.exit(1)

    def serve(self, handler):
        while True:
            event = self.api.next()
            self.current.request_id = event.id
            self.current.tenant_id = event.headers.get("lambda-runtime-aws-tenant-id")
            set_trace(event.headers.get("lambda-runtime-trace-id"))
            try:
                body, content_type = encode(self._call(handler, event))
            except Exception as e:
                self._fail(event, e)
            else:
                flush()
                self._stay_parent()
                self.api.respond(event.id, body, content_type)
            # The last event and result must not outlive their invocation: a
            # frozen environment would hold 12 MB for nothing.
            event = body = None

    def _call(self, handler, event):
        context = LambdaContext(event.headers, self.function, self.log_context)
        value = decode(event.body, event.headers.get("content-type", "application/json"))
        event.body = None  # 6 MB that the handler's own copy replaces
        return handler(value, context)

    def _fail(self, event, error):
        from kiln_runtime import errors
        document = errors.describe(error, event.id, skip=2)
        errors.log(document, self.settings, self.sink)
        flush()
        self._stay_parent()
        self.api.fail(event.id, encode_document(document), document["errorType"], errors.cause(error, document, skip=2))

    def _stay_parent(self):
        """A child that a handler forked and that came back from it must not
        answer on the parent's connection."""
        if os.getpid() != self.pid:
            os._exit(0)


def set_trace(header):
    try:
        if header:
            os.environ["_X_AMZN_TRACE_ID"] = header
        else:
            os.environ.pop("_X_AMZN_TRACE_ID", None)
    except Exception:  # a handler replaced os.environ
        pass


def flush():
    """What a function printed belongs to the invocation that is about to end."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except Exception:  # a handler closed or replaced it
            pass


def rehearse():
    """What loading a handler imports; it imports that for every function."""
    import importlib  # noqa: F401


def become(message):
    """A process that was started ahead of time becomes a function's: the variables
    take the place of all that are there, in their order, and the function's folder
    is entered anew, because it was mounted since."""
    os.environ.clear()
    for variable in os.fsdecode(message).split("\0"):
        name, _, value = variable.partition("=")
        os.environ[name] = value
    os.chdir(os.environ["LAMBDA_TASK_ROOT"])


def main():
    # A line is one log event, whatever comes between it and the next.
    sys.stdout.reconfigure(line_buffering=True)
    spare = os.environ.get("_KILN_SPARE")
    api = RuntimeAPI(spare or os.environ["AWS_LAMBDA_RUNTIME_API"])
    if spare:
        become(api.wait(rehearse))
    runtime = Runtime(os.environ, api)
    modules.extend_path(os.environ.get("LAMBDA_TASK_ROOT") or os.getcwd(), os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    runtime.serve(runtime.load(os.environ.get("_HANDLER", "")))
