"""The context object that handlers get.

https://docs.aws.amazon.com/lambda/latest/dg/python-context.html
"""
from time import time

from kiln_runtime import BUILTINS as __builtins__
from kiln_runtime.payload import Fault, parse


class _Record:
    """Named values, None where the caller gave none."""

    __slots__ = ()

    def __init__(self, values=None):
        for name in self.__slots__:
            setattr(self, name, values.get(name) if values else None)

    def __repr__(self):
        return "%s([%s])" % (type(self).__name__, ",".join("%s=%s" % (n, getattr(self, n)) for n in self.__slots__))


class CognitoIdentity(_Record):
    __slots__ = ("cognito_identity_id", "cognito_identity_pool_id")


class Client(_Record):
    __slots__ = ("installation_id", "app_title", "app_version_name", "app_version_code", "app_package_name")


class ClientContext(_Record):
    __slots__ = ("custom", "env", "client")

    def __init__(self, values=None):
        super().__init__(values)
        self.client = Client(self.client) if self.client else None


class LambdaContext:
    """What is known of the invocation and its function."""

    def __init__(self, headers, function, log):
        get = headers.get
        self.aws_request_id = get("lambda-runtime-aws-request-id", "")
        self.log_group_name = function.log_group
        self.log_stream_name = function.log_stream
        self.function_name = function.name
        self.memory_limit_in_mb = function.memory
        self.function_version = function.version
        self.invoked_function_arn = get("lambda-runtime-invoked-function-arn")
        self.client_context, self._w3c = _given(get("lambda-runtime-client-context"), "Client Context", _client_context) or (None, {})
        self.identity = _given(get("lambda-runtime-cognito-identity"), "Cognito Identity", _identity) or CognitoIdentity()
        self.tenant_id = get("lambda-runtime-aws-tenant-id")
        self._epoch_deadline_time_in_ms = int(get("lambda-runtime-deadline-ms") or 0)
        self._log = log

    def get_remaining_time_in_millis(self):
        return max(self._epoch_deadline_time_in_ms - int(time() * 1000), 0)

    def w3c(self):
        """The W3C trace context that the caller gave."""
        return dict(self._w3c)

    def log(self, msg):
        self._log(str(msg))

    def __repr__(self):
        names = ("aws_request_id", "log_group_name", "log_stream_name", "function_name", "memory_limit_in_mb",
                 "function_version", "invoked_function_arn", "client_context", "identity", "tenant_id")
        return "LambdaContext([%s])" % ",".join("%s=%s" % (n, getattr(self, n)) for n in names)


def _given(header, what, make):
    """An optional header's JSON as an object."""
    if not header:
        return None
    try:
        return make(parse(header))
    except Exception as e:
        raise Fault("Runtime.LambdaContextUnmarshalError", "Unable to parse %s JSON: %s" % (what, e)) from None


def _client_context(values):
    w3c = values.get("w3c")
    return ClientContext(values), {
        name: w3c[name] for name in ("traceparent", "tracestate", "baggage")
        if isinstance(w3c, dict) and isinstance(w3c.get(name), str)
    }


def _identity(values):
    return CognitoIdentity({
        "cognito_identity_id": values.get("cognitoIdentityId"),
        "cognito_identity_pool_id": values.get("cognitoIdentityPoolId"),
    })
