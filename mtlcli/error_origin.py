"""The cause of an error: an option of a component, or a line of a plugin."""

from __future__ import annotations

import re
import traceback
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, TypeVar

from mtlcli.errors import MtlError, OptionError

Made = TypeVar("Made")
SHOWN = 30  # characters of a value that a message repeats
PLAIN = (ValueError, RuntimeError, TypeError, AssertionError, MtlError)  # whose messages speak for themselves
_plugins: set[str] = set()  # files of plugins, and folders of those that are packages


def add_plugin(place: str) -> None:
    """Count the code of a file, or of all files in a folder, as a plugin's."""
    _plugins.add(place)


class Spot(NamedTuple):
    """A line of a plugin, in a function."""

    file: str
    line: int
    function: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}, in {self.function}"


def plugin_spot(error: BaseException) -> Spot | None:
    """The innermost line of a plugin that the error passed through; None where it passed through none."""
    if isinstance(error, SyntaxError) and error.filename and _of_plugin(error.filename):
        return Spot(_short(error.filename), error.lineno or 1, "<module>")
    return _innermost(error.__traceback__, _of_plugin)


def line_in(error: BaseException, file: str) -> Spot | None:
    """Return the innermost line of a file that the error passed through; None if it passed through none."""
    return _innermost(error.__traceback__, lambda name: name == file)


def described(error: BaseException, found: str = "") -> str:
    """The error in one line: its type, where the message needs it, and the line of a plugin that it comes from.

    found: what to add to the message, such as ", found 0".
    """
    spot = plugin_spot(error)
    text = reason(error).removesuffix(".") if found else reason(error)
    return f"{text}{found}" if spot is None else f"{text}{found} ({spot})"


def reason(error: BaseException) -> str:
    """The first line of the error's message, after its type where the message needs it."""
    if isinstance(error, SystemExit):
        return f"calls sys.exit({error.code if error.code is not None else ''})"
    if isinstance(error, ZeroDivisionError):
        return "leads to a division by zero"
    text = (error.msg if isinstance(error, SyntaxError) else str(error)).partition("\n")[0]
    return text if text and type(error) in PLAIN else f"{type(error).__name__}: {text}".removesuffix(": ")


def blaming(
    make: Callable[..., Made], options: Mapping[str, Any], required: Collection[str] = (), sole: bool = False
) -> Made:
    """`make(**options)`. Raises OptionError for the options whose absence would change the error that it raises.

    required: options that can't be left out; one is blamed if the message names it.
    sole: whether it is blamed, too, where it is the only one.
    """
    left, refused = dict(options), dict[str, str]()
    first: Exception | None = None
    while True:
        try:
            made = make(**left)
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
                refused[name] = described(error, shown).removeprefix(f"{name}: ")
            if name is None or name in required:
                break
            del left[name]
        else:
            if not refused:
                return made
            break
    raise OptionError(refused) from first


def _culprit(
    make: Callable[..., Any], options: Mapping[str, Any], error: Exception, required: Collection[str], sole: bool
) -> str | None:
    """The option to blame for the error; None where it is none of them alone."""
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


def _innermost(trace: TracebackType | None, counts: Callable[[str], bool]) -> Spot | None:
    """Return the last line of the trace whose file counts."""
    spot = None
    for frame in traceback.extract_tb(trace):
        if counts(frame.filename):
            spot = Spot(_short(frame.filename), frame.lineno or 1, frame.name)
    return spot


def _of_plugin(file: str) -> bool:
    return any(file == place or file.startswith(f"{place}/") for place in _plugins)


def _short(file: str) -> str:
    """The path as the user would name it: relative to the current folder, where it is inside."""
    try:
        return str(Path(file).relative_to(Path.cwd()))
    except (ValueError, OSError):
        return file
