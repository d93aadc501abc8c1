"""Where modules come from: sys.path as on AWS, and the names that a function
cannot take over.

AWS's client has imported logging, json and others before it loads a function, so
there a logging.py of the function's own is never seen. This client has not, for
the sake of its start; a finder keeps those names the standard library's, and sets
up the root logger at the moment logging is first imported.
"""
import os
import sys
from _frozen_importlib_external import PathFinder

from kiln_runtime import BUILTINS as __builtins__

_TAKEN = frozenset((
    "abc", "codecs", "collections", "concurrent", "contextlib", "copyreg", "decimal", "enum", "functools",
    "heapq", "importlib", "io", "json", "keyword", "linecache", "logging", "math", "numbers", "operator",
    "queue", "re", "reprlib", "runpy", "string", "textwrap", "threading", "token", "tokenize", "traceback",
    "types", "warnings", "weakref",
))


class StandardLibrary:
    """Finds the names above in the standard library, before the function's code."""

    def __init__(self, after_logging):
        library = os.path.dirname(os.__file__)
        self._path = [library, library + "/lib-dynload"]
        self._after_logging = after_logging

    def find_spec(self, name, path=None, target=None):
        if path is not None or name not in _TAKEN:
            return None
        spec = PathFinder.find_spec(name, self._path)
        if name == "logging" and spec is not None:
            spec.loader = _Then(spec.loader, self._after_logging)
        return spec

    def invalidate_caches(self):
        pass


class _Then:
    """A loader that does something once its module is loaded."""

    def __init__(self, loader, then):
        self._loader = loader
        self._then = then

    def create_module(self, spec):
        return self._loader.create_module(spec)

    def exec_module(self, module):
        module.__loader__ = module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        self._then()


def extend_path(task, runtime):
    """The function's code first, then its layers, then this client's folder. A
    PYTHONPATH of the function's own takes the place of the layers, as on AWS. Where
    layers are not in /opt, -X kiln_opt says so."""
    version = "python%d.%d" % sys.version_info[:2]
    opt = getattr(sys, "_xoptions", {}).get("kiln_opt", "/opt")
    layers = [opt + "/python/lib/" + version + "/site-packages", opt + "/python"]
    if os.environ.get("PYTHONPATH", runtime) != runtime:
        layers = []
    first = [task] + layers + [runtime]
    sys.path[:] = first + [p for p in sys.path if p not in first]
    for folder in [task] + layers:
        _read_path_files(folder)


def _read_path_files(folder):
    """What .pth files in a folder add to the path."""
    try:
        found = any(name.endswith(".pth") for name in os.listdir(folder))
    except OSError:
        return
    if found:
        from site import addsitedir
        addsitedir(folder)
