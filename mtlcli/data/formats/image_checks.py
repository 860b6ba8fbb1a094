"""Checks of image files before training, with a cache of the files that passed."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Protocol

from mtlcli.cores import usable_cores
from mtlcli.data.placement import READ_WHOLE
from mtlcli.files import cache_folder

log = logging.getLogger("mtl")
MAX_LISTED = 10  # files that are listed one by one
MAX_DAMAGED = 100  # damaged files after which the check ends
LOG_FROM = 2000  # number of files from which the check is logged
DIGEST_BYTES = 16


class CheckedFiles(Protocol):
    """Files that are checked: images, or maps of all images that have some."""

    @property
    def paths(self) -> Sequence[Path]:
        """The files."""

    @property
    def rule(self) -> str:
        """The options on which the accepted files depend, for the cache of those that passed."""

    def __len__(self) -> int: ...

    def fault(self, row: int, whole: bool) -> str | None:
        """Check a file, in full if `whole`; return the fault in words, or None."""


def check_images(files: CheckedFiles, bytes_each: int, most: int | None = None) -> list[str]:
    """Check image files.

    Every file is decoded if all of them take up to 512 MiB, on disk and decoded, because these are read into memory
    when a run starts. In larger sets, the header and the end of every file are read; this detects files that are not
    images, too large, too deep or truncated, but not damaged pixels in between.

    Files that pass are recorded in the user's cache folder by path, size and time of modification, and not checked
    again.

    Args:
        files: the images.
        bytes_each: size of a decoded image.
        most: maximum number of files to check, evenly spaced; then none is decoded.

    Returns:
        One line for each of the first faults, then the number of further ones.
    """
    rows: Sequence[int] = range(len(files))
    if most is not None and len(files) > most:
        rows = range(0, len(files), -(-len(files) // most))
    digests, size = _digests(files, rows)
    whole = most is None and max(size, len(rows) * bytes_each) <= READ_WHOLE
    faults, complete = _check(files, digests, whole, MAX_DAMAGED, replaced=most is None)
    listed = list(faults.values())
    if len(listed) > MAX_LISTED:
        least = "" if complete else "at least "
        return [*listed[:MAX_LISTED], f"… and {least}{len(listed) - MAX_LISTED} more such files"]
    return listed


def find_damaged(files: CheckedFiles, bytes_each: int | None = None, limit: int | None = None) -> dict[int, str]:
    """Check image files as `check_images` does.

    Args:
        files: the images.
        bytes_each: size of a decoded image; None to decode every file, whatever the size of the set.
        limit: number of faults after which the check ends; None for all.

    Returns:
        Index → fault of each image that can't be read, in order.
    """
    digests, size = _digests(files, range(len(files)))
    whole = bytes_each is None or max(size, len(files) * bytes_each) <= READ_WHOLE
    return _check(files, digests, whole, limit or len(files), replaced=True)[0]


def _check(
    files: CheckedFiles, digests: dict[int, bytes | None], whole: bool, limit: int, replaced: bool
) -> tuple[dict[int, str], bool]:
    """Check the files of `digests`, up to a number of faults.

    Returns index → fault, and whether all files were checked. The cache is written if `replaced`.
    """
    with _open_cache(files, whole, replaced) as passed:
        new = [row for row, digest in digests.items() if digest is None or digest not in passed]
        if len(new) > LOG_FROM:
            log.info("checking %d image files", len(new))
        faults: dict[int, str] = {}
        checked = 0
        with ThreadPoolExecutor(usable_cores() if whole else min(32, 4 * usable_cores())) as pool:
            for row, wrong in zip(new, pool.map(partial(files.fault, whole=whole), new), strict=True):
                checked += 1
                if wrong is not None:
                    faults[row] = wrong
                if len(faults) == limit:
                    pool.shutdown(wait=False, cancel_futures=True)
                    break
        failed = {*faults, *new[checked:]}
        passed.clear()
        passed.update(digest for row, digest in digests.items() if digest is not None and row not in failed)
    return faults, checked == len(new)


def _digests(files: CheckedFiles, rows: Sequence[int]) -> tuple[dict[int, bytes | None], int]:
    """Return row → digest of path, size and time of the file (None if it doesn't exist), and the size of all files."""
    digests: dict[int, bytes | None] = {}
    total = 0
    for row in rows:
        path = os.path.abspath(files.paths[row])  # noqa: PTH100  (of a million files)
        try:
            state = os.stat(path)  # noqa: PTH116
        except OSError:
            digests[row] = None
            continue
        total += state.st_size
        text = f"{path}\0{state.st_size}\0{state.st_mtime_ns}"
        digests[row] = blake2b(os.fsencode(text), digest_size=DIGEST_BYTES).digest()
    return digests, total


@contextmanager
def _open_cache(files: CheckedFiles, whole: bool, replaced: bool) -> Iterator[set[bytes]]:
    """Yield the digests of files that passed such a check; on exit, the changed set is written if `replaced`.

    A cache that can't be read or written is ignored.
    """
    path = _cache_file(files, whole)
    passed: set[bytes] = set()
    if path is not None:
        try:
            content = path.read_bytes()
        except OSError:
            content = b""
        passed = {content[at : at + DIGEST_BYTES] for at in range(0, len(content) - DIGEST_BYTES + 1, DIGEST_BYTES)}
    before = frozenset(passed)
    yield passed
    if path is None or passed == before or not replaced:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            temporary = Path(folder, path.name)
            temporary.write_bytes(b"".join(sorted(passed)))
            temporary.replace(path)
    except OSError as error:
        log.debug("the checked images can't be cached: %s", error)


def _cache_file(files: CheckedFiles, whole: bool) -> Path | None:
    """Return the cache of such a check, or None without a home folder."""
    import PIL

    folder = cache_folder("images")
    if folder is None or not len(files):
        return None
    first = os.path.commonpath([os.path.abspath(files.paths[0]), os.path.abspath(files.paths[-1])])  # noqa: PTH100
    # The cache depends on the decoder, the kind of check, and the folder.
    rule = f"1\0{PIL.__version__}\0{first}\0{files.rule}\0{whole}"
    return folder / blake2b(os.fsencode(rule), digest_size=DIGEST_BYTES).hexdigest()
