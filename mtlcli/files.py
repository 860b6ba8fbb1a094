"""Paths as a user gives them: in an option, in an experiment file, or in the environment.

Imports only `mtlcli.errors` and `mtlcli.text`.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mtlcli.errors import ConfigError, MtlError
from mtlcli.text import printable

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


UNFINISHED = ".unfinished-"  # how the names of temporary files begin: by nothing that a user's own files may be called


def sweep(*folders: Path) -> None:
    """Remove the unfinished files of a process that was killed while it wrote; only where no other can be writing."""
    for folder in folders:
        for unfinished in folder.glob(f"{UNFINISHED}*"):
            unfinished.unlink()


@contextmanager
def atomic(path: Path, before: Callable[[], None] | None = None) -> Iterator[Path]:
    """A temporary path beside `path` to write to, which then takes its place: synced, renamed, the folder synced.

    before: called when the file is on the disk, just before it takes its place.
    A reader, and a crash at any moment, sees the old file or the new one. MtlError where it can't be written.
    """
    temporary = None
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f"{UNFINISHED}{path.name[:40]}.", suffix=path.suffix)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        temporary.chmod(0o666 & ~_umask())
        sync(temporary)
        if before is not None:
            before()
        temporary.replace(path)
        sync(path.parent)
    except OSError as error:
        raise MtlError(f"{path}: can't be written: {error.strerror or error}") from error
    finally:
        if temporary is not None:
            with suppress(OSError):  # gone with its folder, or left for `sweep`
                temporary.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Wait until a file's content, or a folder's list of names, is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_text(path: Path, text: str) -> None:
    r"""Write a text file atomically, as UTF-8.

    A file name that isn't UTF-8 is in `text` with surrogates, which become escapes (`\udce9`): JSON and YAML read these
    back as the same name.
    """
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


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


@contextmanager
def wait_for_lock(path: Path, on_wait: Callable[[], None]) -> Iterator[None]:
    """Hold an exclusive lock on a file, waiting for another thread or process that holds it.

    The lock is released when the process ends, for whatever reason.

    Args:
        path: lock file, which is created if necessary.
        on_wait: called before waiting, if the lock is held.
    """
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            on_wait()
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
