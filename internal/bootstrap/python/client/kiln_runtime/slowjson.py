"""JSON of results that are more than plain values, as simplejson writes it."""
from kiln_runtime import BUILTINS as __builtins__


def dumps(value, quote):
    out = []
    _write(value, out.append, quote, set())
    return "".join(out)


def _write(value, put, quote, above):
    """Writes one value; above holds the ids of the containers it lies in."""
    if isinstance(value, str):
        return put(quote(value))
    if isinstance(value, bytes):
        return put(quote(value.decode("utf-8")))
    if value is None or value is True or value is False:
        return put(_CONSTANTS[value])
    if isinstance(value, int):
        return put(int.__repr__(value))
    if isinstance(value, float):
        return put(_float(value))
    if _is_decimal(value):
        return put("NaN" if value.is_nan() else str(value))

    mark = id(value)
    if mark in above:
        raise ValueError("Circular reference detected")
    above.add(mark)
    as_dict = None if isinstance(value, (dict, list)) else getattr(value, "_asdict", None)
    if callable(as_dict):
        _write_dict(as_dict(), put, quote, above)
    elif isinstance(value, dict):
        _write_dict(value, put, quote, above)
    elif isinstance(value, (list, tuple)):
        separator = "["
        for member in value:
            put(separator)
            _write(member, put, quote, above)
            separator = ", "
        put("]" if separator == ", " else "[]")
    else:
        raise TypeError("Object of type %s is not JSON serializable" % type(value).__name__)
    above.discard(mark)


def _write_dict(value, put, quote, above):
    separator = "{"
    for key, member in value.items():
        put(separator)
        put(quote(_key(key)))
        put(": ")
        _write(member, put, quote, above)
        separator = ", "
    put("}" if separator == ", " else "{}")


def _key(key):
    if isinstance(key, str):
        return key
    if isinstance(key, bytes):
        return key.decode("utf-8")
    if key is None or key is True or key is False:
        return _CONSTANTS[key]
    if isinstance(key, int):
        return int.__repr__(key)
    if isinstance(key, float):
        return _float(key)
    raise TypeError("keys must be str, int, float, bool or None, not %s" % type(key).__name__)


_CONSTANTS = {None: "null", True: "true", False: "false"}


def _float(value):
    if value != value:
        return "NaN"
    if value in (float("inf"), float("-inf")):
        return "Infinity" if value > 0 else "-Infinity"
    return float.__repr__(value)


def _is_decimal(value):
    """A Decimal in hand means that somebody imported decimal; we need not."""
    from sys import modules
    decimal = modules.get("decimal")
    return decimal is not None and isinstance(value, decimal.Decimal)
