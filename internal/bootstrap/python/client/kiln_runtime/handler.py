"""Finds the function's handler."""
import sys

from kiln_runtime import BUILTINS as __builtins__
from kiln_runtime.payload import Fault


def load(name):
    """The object that a handler setting names: module.function, where the module
    may be written with slashes. Whatever else the module raises propagates."""
    try:
        module_name, function_name = name.rsplit(".", 1)
    except ValueError as e:
        raise Fault("Runtime.MalformedHandlerName", "Bad handler '%s': %s" % (name, e)) from None
    if module_name.split(".")[0] in sys.builtin_module_names:
        raise Fault("Runtime.BuiltInModuleConflict",
                    "Cannot use built-in module %s as a handler module" % module_name)
    module = _import(module_name)
    try:
        return getattr(module, function_name)
    except AttributeError:
        raise Fault("Runtime.HandlerNotFound",
                    "Handler '%s' missing on module '%s'" % (function_name, module_name)) from None


def _import(name):
    from importlib import import_module
    try:
        return import_module(name.replace("/", "."))
    except ImportError as e:
        raise Fault("Runtime.ImportModuleError", "Unable to import module '%s': %s" % (name, e)) from None
    except SyntaxError as e:
        raise Fault("Runtime.UserCodeSyntaxError", "Syntax error in module '%s': %s" % (name, e),
                    ['  File "%s" Line %s\n    %s' % (e.filename, e.lineno, e.text)]) from None
