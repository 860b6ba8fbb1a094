"""Attribution of errors to options of components and to lines of plugins."""

from __future__ import annotations

import re
import traceback
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, TypeVar

from mtlcli.errors import MtlError, OptionError

Created = TypeVar("Created")
SHOWN = 30  # characters of a value in a message
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


def blame_options(
    make: Callable[..., Created], options: Mapping[str, Any], required: Collection[str] = (), sole: bool = False
) -> Created:
    """Call a function, and attribute its errors to the options whose absence changes or avoids the error.

    Args:
        make: the function.
        options: its keyword arguments.
        required: options that can't be left out; one is blamed if the message contains its name.
        sole: blame the only required option even if the message doesn't contain its name.

    Returns:
        What the function returns. An error that no option causes passes through.

    Raises:
        OptionError: options caused errors; contains the message for each.
    """
    left, refused = dict(options), dict[str, str]()
    first: Exception | None = None
    while True:
        try:
            result = make(**left)
        except (MtlError, OptionError):
            raise
        except Exception as error:
            first = first or error
            name = _culprit(make, left, error, required, sole)
            if name is None and not refused:
                raise
            if name is not None:
                value = list(left[name]) if isinstance(left[name], tuple) else left[name]
                shown = "" if str(value) in str(error) or len(repr(value)) > SHOWN else f", found {value!r}"
                refused[name] = describe_error(error, shown).removeprefix(f"{name}: ")
            if name is None or name in required:
                break
            del left[name]
        else:
            if not refused:
                return result
            break
    raise OptionError(refused) from first


def _culprit(
    make: Callable[..., Any], options: Mapping[str, Any], error: Exception, required: Collection[str], sole: bool
) -> str | None:
    """Return the option that causes the error; None if no single option does."""
    fixes = []
    for name in options:
        if name not in required:
            try:
                make(**{key: value for key, value in options.items() if key != name})
            except Exception as other:
                if (type(other), str(other)) == (type(error), str(error)):
                    continue
            fixes.append(name)
    words = re.findall(r"\w+", str(error).lower())
    needed = [name for name in options if name in required]
    named = [name for name in fixes or needed if name.lower() in words]
    if named:
        return min(named, key=lambda name: words.index(name.lower()))
    if fixes:
        return fixes[0]
    return needed[0] if sole and len(needed) == 1 else None


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
