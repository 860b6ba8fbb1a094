"""A folder that one process at a time works in."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mtlcli.errors import ConfigError

HELD: set[Path] = set()  # by this process, which its own locks wouldn't keep out


@contextmanager
def locked(folder: Path, taken: str) -> Iterator[None]:
    """Keep every other process, and this one a second time, out of a folder. ConfigError(taken) where one is in it.

    The lock is this process's alone (POSIX), and not its children's: a loader's workers, which outlive a killed run for
    some seconds, don't keep the next one out. It ends with the process, whatever ends it.
    """
    path = folder.resolve()
    if path in HELD:
        raise ConfigError(taken)
    with (path / ".lock").open("w") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:
            raise ConfigError(taken) from error
        HELD.add(path)
        try:
            yield
        finally:
            HELD.remove(path)
