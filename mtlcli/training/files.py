"""Files that are either whole or not there."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mtlcli.errors import MtlError

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
