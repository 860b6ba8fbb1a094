"""Files: paths from users, atomic writes and locks."""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mtlcli.errors import ConfigError, MtlError
from mtlcli.text import printable

MAX_NAME = 255  # bytes of the name of a file or folder
MAX_PATH = 3840  # bytes: Linux's 4,096, minus the names of files that are created inside


def user_path(text: str | Path) -> Path:
    """Convert a path from an option, an experiment file or the environment.

    Args:
        text: the path, in which `~` and `~user` are expanded. It need not exist.

    Returns:
        The path.

    Raises:
        ValueError: no file can have that path.
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
                f"{path.parts[0]!r} is the home folder of a user who does not exist here; "
                f"write '{Path.cwd() / path.parts[0]}' for a folder with that name"
            ) from error
    for name in path.parts:
        if (size := len(os.fsencode(name))) > MAX_NAME:
            raise ValueError(f"the name {name[:20]!r}… has {size} bytes; the maximum is {MAX_NAME}")
    if (size := len(os.fsencode(path))) > MAX_PATH:
        raise ValueError(f"the path has {size:,} bytes; the maximum is {MAX_PATH:,}")
    return path


def given_path(text: str | Path, what: str) -> Path:
    """Convert the path of an option or environment variable with `user_path`.

    Args:
        text: the path.
        what: name of the option or variable, for the error message.

    Returns:
        The path.

    Raises:
        ConfigError: no file can have that path.
    """
    try:
        return user_path(text)
    except ValueError as error:
        shown = str(text) if len(str(text)) <= 80 else f"{str(text)[:60]}…"
        raise ConfigError(f"{what} {quote_path(shown)}: {error}") from error


def data_root(root: str | None) -> Path:
    """Return the data root: `root`, else $MTL_DATA, else `data` in the current folder.

    Raises a ConfigError if the path is invalid.

    Args:
        root: path given by the user, or None.

    Returns:
        The path.
    """
    return given_path(root or os.environ.get("MTL_DATA") or "data", "data root")


def quote_path(path: str | Path) -> str:
    """Return a path for a message: escaped, and in quotes if it starts or ends with a space."""
    shown = printable(str(path))
    return f"'{shown}'" if shown != shown.strip() or not shown else shown


UNFINISHED = ".unfinished-"  # prefix of temporary files


def cache_folder(name: str) -> Path | None:
    """Return a folder in the user's cache, `$XDG_CACHE_HOME/mtlcli/NAME` (`~/.cache/mtlcli/NAME`).

    Args:
        name: name of the folder.

    Returns:
        The path, which may not exist; None without a home folder.
    """
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "mtlcli" / name
    except RuntimeError:
        return None


def remove_unfinished(*folders: Path) -> None:
    """Remove the temporary files of a killed process. No other process may be writing to the folders."""
    for folder in folders:
        for unfinished in folder.glob(f"{UNFINISHED}*"):
            unfinished.unlink()


@contextmanager
def atomic_write(path: Path, before: Callable[[], None] | None = None) -> Iterator[Path]:
    """Write a file atomically: readers, and a crash at any moment, see the old file or the complete new one.

    The temporary file is synced to disk and renamed, and the folder is synced.

    Args:
        path: the file.
        before: called after the temporary file is on disk, before it is renamed.

    Yields:
        The temporary path to write to, in the same folder.

    Raises:
        MtlError: the file can't be written.
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
            with suppress(OSError):  # gone with its folder, or left for `remove_unfinished`
                temporary.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Wait until the content of a file, or the list of names of a folder, is on disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_text(path: Path, text: str) -> None:
    r"""Write a text file atomically, in UTF-8.

    Surrogates, which represent file names that aren't UTF-8, are written as escapes (`\udce9`): JSON and YAML parse
    these to the same name.
    """
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


HELD: set[Path] = set()  # folders locked by this process, for which its own locks have no effect


@contextmanager
def lock_folder(folder: Path, taken: str) -> Iterator[None]:
    """Hold an exclusive lock on a folder.

    It is a POSIX lock of this process, which its children don't inherit: worker processes of a DataLoader, which
    outlive a killed run for some seconds, don't block the next run. It is released when the process ends, for whatever
    reason.

    Args:
        folder: an existing folder.
        taken: the error message if it is locked.

    Raises:
        ConfigError: another process, or this one, has locked the folder.
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
