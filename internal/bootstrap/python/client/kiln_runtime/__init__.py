"""Kiln's runtime client for Python: it speaks the Lambda Runtime API and calls the
handler of the function.

One code base serves Python 3.9 to 3.14, with the standard library alone.

What is imported when is the design. A bare interpreter starts in about 12 ms;
importing json, logging and http.client would double that. So the client uses the
C modules beneath them (_socket, _json), which cost a tenth, and imports errors,
handlers and encoding only when a function makes an error, logs, or returns
something out of the ordinary. Whatever runs between two invocations is bound
early, so that a function which patches json, socket or builtins breaks itself
and not the next invocation.
"""

import builtins

# Every module takes this copy as its own: what a function does to builtins, it
# does to itself.
BUILTINS = dict(vars(builtins))
