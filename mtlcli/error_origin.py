"""Description of errors, with the line of the plugin that caused them."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from mtlcli.errors import MtlError

PLAIN = (ValueError, RuntimeError, TypeError, AssertionError, MtlError)  # errors whose type adds nothing to the message
_plugins: set[str] = set()  # files of plugins, and folders of plugins that are packages


def add_plugin(place: str) -> None:
    """Register a file, or all files of a folder, as code of a plugin."""
    _plugins.add(place)


class CodeLocation(NamedTuple):
    """A line of code in a function."""

    file: str
    line: int
    function: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}, in {self.function}"


def plugin_location(error: BaseException) -> CodeLocation | None:
    """Return the innermost line of a plugin in the error's traceback; None if it has none."""
    if isinstance(error, SyntaxError) and error.filename and _of_plugin(error.filename):
        return CodeLocation(_short(error.filename), error.lineno or 1, "<module>")
    return _innermost(error.__traceback__, _of_plugin)


def line_in(error: BaseException, file: str) -> CodeLocation | None:
    """Return the innermost line of a file in the error's traceback; None if it has none."""
    return _innermost(error.__traceback__, lambda name: name == file)


def describe_error(error: BaseException, suffix: str = "") -> str:
    """Describe an error in one line, with its type if the message needs it, and the line of a plugin that raised it.

    Args:
        error: the error.
        suffix: text to add to the message, such as ", found 0".

    Returns:
        The line.
    """
    location = plugin_location(error)
    text = error_reason(error).removesuffix(".") if suffix else error_reason(error)
    return f"{text}{suffix}" if location is None else f"{text}{suffix} ({location})"


def error_reason(error: BaseException) -> str:
    """Return the first line of the error's message, with its type if the message needs it."""
    if isinstance(error, SystemExit):
        return f"calls sys.exit({error.code if error.code is not None else ''})"
    if isinstance(error, ZeroDivisionError):
        return "leads to a division by zero"
    text = (error.msg if isinstance(error, SyntaxError) else str(error)).partition("\n")[0]
    return text if text and type(error) in PLAIN else f"{type(error).__name__}: {text}".removesuffix(": ")


def _innermost(trace: TracebackType | None, counts: Callable[[str], bool]) -> CodeLocation | None:
    """Return the last line of the traceback in a file for which `counts` is true."""
    location = None
    for frame in traceback.extract_tb(trace):
        if counts(frame.filename):
            location = CodeLocation(_short(frame.filename), frame.lineno or 1, frame.name)
    return location


def _of_plugin(file: str) -> bool:
    return any(file == place or file.startswith(f"{place}/") for place in _plugins)


def _short(file: str) -> str:
    """Return a path relative to the current folder, if it is inside."""
    try:
        return str(Path(file).relative_to(Path.cwd()))
    except (ValueError, OSError):
        return file
