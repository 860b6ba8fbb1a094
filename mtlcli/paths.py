"""Paths as a user gives them: in an option, in an experiment file, or in the environment.

Imports only `mtlcli.errors` and `mtlcli.printable`.
"""

from __future__ import annotations

import os
from pathlib import Path

from mtlcli.errors import ConfigError
from mtlcli.printable import printable

MAX_NAME = 255  # bytes of a file's or folder's name, on the file systems in use
MAX_PATH = 3840  # bytes: Linux's 4,096, less what the names of our own files in a folder take


def user_path(text: str | Path) -> Path:
    """Return the path that `text` names, with `~` and `~user` expanded.

    The path need not exist. ValueError, with the reason, for what no file can be called.
    """
    if "\0" in str(text):
        raise ValueError("a file name can't contain the character NUL")
    path = Path(text)
    if path.parts and path.parts[0].startswith("~"):
        if not str(text).startswith("~"):  # `./~x`, of which pathlib drops the dot
            return Path.cwd() / path
        try:
            path = path.expanduser()
        except RuntimeError as error:
            raise ValueError(
                f"{path.parts[0]!r} is the home folder of a user that does not exist here; "
                f"write '{Path.cwd() / path.parts[0]}' for a folder of that name"
            ) from error
    for name in path.parts:
        if (size := len(os.fsencode(name))) > MAX_NAME:
            raise ValueError(f"the name {name[:20]!r}… has {size} bytes; a file name has at most {MAX_NAME}")
    if (size := len(os.fsencode(path))) > MAX_PATH:
        raise ValueError(f"a path of {size:,} bytes; at most {MAX_PATH:,} are possible")
    return path


def given_path(text: str | Path, what: str) -> Path:
    """`user_path` for an option or environment variable. ConfigError that begins with `what` and the path."""
    try:
        return user_path(text)
    except ValueError as error:
        shown = str(text) if len(str(text)) <= 80 else f"{str(text)[:60]}…"
        raise ConfigError(f"{what} {shown_path(shown)}: {error}") from error


def shown_path(path: str | Path) -> str:
    """The path as a message shows it: escaped, and in quotes where it begins or ends with a space."""
    shown = printable(str(path))
    return f"'{shown}'" if shown != shown.strip() or not shown else shown
