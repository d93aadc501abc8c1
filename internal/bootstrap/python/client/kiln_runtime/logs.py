"""Where log records go: framed to the descriptor of _LAMBDA_TELEMETRY_LOG_FD, so
that a record of several lines stays one event, or else to standard output.

A frame is its type, its length and its time in microseconds, big-endian (4, 4 and
8 bytes), and then the text.
"""
import os
import sys
from time import time_ns

from kiln_runtime import BUILTINS as __builtins__

TEXT = 0xA55A0003
OBJECT = 0xA55A0002  # JSON

# Levels as they are or-ed into a frame's type, by Python's numbers.
_LEVELS = ((50, 0x18), (40, 0x14), (30, 0x10), (20, 0x0C), (10, 0x08))
ERROR = 0x14


def level_bits(number):
    """The level of a frame: the named one at or below a number, 0 below all."""
    for least, bits in _LEVELS:
        if number >= least:
            return bits
    return 0


class Settings:
    """What AWS_LAMBDA_LOG_FORMAT and AWS_LAMBDA_LOG_LEVEL ask for."""

    def __init__(self, get):
        self.json = get("AWS_LAMBDA_LOG_FORMAT", "").upper() == "JSON"
        level = get("AWS_LAMBDA_LOG_LEVEL", "").upper()
        self.level = {"TRACE": "DEBUG", "FATAL": "CRITICAL"}.get(level, level)


class Frames:
    """Log records on a descriptor of their own."""

    framed = True

    def __init__(self, descriptor):
        self._descriptor = descriptor
        self._write = os.write

    def log(self, text, kind=TEXT):
        body = text.encode("utf-8", "backslashreplace")
        frame = memoryview(kind.to_bytes(4, "big") + len(body).to_bytes(4, "big")
                           + (time_ns() // 1000).to_bytes(8, "big") + body)
        try:
            while frame:
                frame = frame[self._write(self._descriptor, frame):]
        except OSError:
            pass  # a handler closed it; a lost record is no reason to fail its caller


class Output:
    """Log records among what the function prints."""

    framed = False

    def log(self, text, kind=TEXT):
        try:
            sys.stdout.write(text)
            sys.stdout.flush()
        except Exception:  # a handler closed or replaced it
            try:
                os.write(1, text.encode("utf-8", "backslashreplace"))
            except OSError:
                pass  # there is no output left to tell it on


def open_sink(environ):
    """The place for log records. Functions do not see the descriptor's variable."""
    descriptor = environ.pop("_LAMBDA_TELEMETRY_LOG_FD", "")
    if descriptor.isdigit():
        try:
            os.set_inheritable(int(descriptor), False)
            return Frames(int(descriptor))
        except OSError:
            pass  # promised but not open: standard output is better than nothing
    return Output()
