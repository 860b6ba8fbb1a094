"""Checking image files before a run needs them, each only once."""

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

from mtlcli.cores import usable_cores
from mtlcli.data.image_files import ImageFiles
from mtlcli.data.placement import READ_WHOLE

log = logging.getLogger("mtl")
LISTED = 10  # files that are listed one by one
ENOUGH = 100  # damaged files after which no more are looked for
MANY = 2000  # files whose checking is worth a line in the log
DIGEST = 16  # bytes


def image_faults(files: ImageFiles, bytes_each: int, most: int | None = None) -> list[str]:
    """Check image files, and return the faults: a line for each of the first, then the number of the others.

    Every file is decoded where all of them take up to 512 MiB, on the disk and decoded: those are read into memory as a
    run starts. Of larger sets, the header and the end of every file are read, which finds what is no image, is too
    large or too deep, or was cut off, but not pixels damaged in between.

    bytes_each: of a decoded image. most: look at no more files than that, evenly spaced, and decode none.

    What has passed is remembered in the user's cache folder, by path, size and time of change, and not looked at again.
    """
    rows: Sequence[int] = range(len(files))
    if most is not None and len(files) > most:
        rows = range(0, len(files), -(-len(files) // most))
    digests, size = _digests(files, rows)
    whole = most is None and max(size, len(rows) * bytes_each) <= READ_WHOLE
    with _remembered(files, whole, replaced=most is None) as passed:
        new = [row for row in rows if digests[row] is None or digests[row] not in passed]
        if len(new) > MANY:
            log.info("checking %d image files", len(new))
        faults: list[str] = []
        checked = 0
        with ThreadPoolExecutor(usable_cores() if whole else min(32, 4 * usable_cores())) as pool:
            for row, wrong in zip(new, pool.map(partial(files.fault, whole=whole), new), strict=True):
                checked += 1
                if wrong is not None:
                    digests[row] = None
                    faults.append(wrong)
                if len(faults) == ENOUGH:
                    pool.shutdown(wait=False, cancel_futures=True)
                    break
        unchecked = set(new[checked:])
        passed.clear()
        passed.update(digest for row, digest in digests.items() if digest is not None and row not in unchecked)
    if len(faults) > LISTED:
        least = "at least " if unchecked else ""
        return [*faults[:LISTED], f"… and {least}{len(faults) - LISTED} more such files"]
    return faults


def _digests(files: ImageFiles, rows: Sequence[int]) -> tuple[dict[int, bytes | None], int]:
    """Return row → digest of the file as it is now (None where it can't be found), and the bytes of all files."""
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
        digests[row] = blake2b(os.fsencode(text), digest_size=DIGEST).digest()
    return digests, total


@contextmanager
def _remembered(files: ImageFiles, whole: bool, replaced: bool) -> Iterator[set[bytes]]:
    """The digests of the files that have passed such a check before; to be changed to those that have passed now.

    replaced: whether they take the place of those before. A cache that can't be read or written is done without.
    """
    path = _cache_file(files, whole)
    passed: set[bytes] = set()
    if path is not None:
        try:
            content = path.read_bytes()
        except OSError:
            content = b""
        passed = {content[at : at + DIGEST] for at in range(0, len(content) - DIGEST + 1, DIGEST)}
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
        log.debug("the check of the images can't be remembered: %s", error)


def _cache_file(files: ImageFiles, whole: bool) -> Path | None:
    """Path of the digests of such a check; None without a home folder."""
    import PIL

    try:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "mtlcli" / "images"
    except RuntimeError:  # there is no home
        return None
    if not len(files):
        return None
    first = os.path.commonpath([os.path.abspath(files.paths[0]), os.path.abspath(files.paths[-1])])  # noqa: PTH100
    # another decoder, another rule or another folder: another check
    rule = f"1\0{PIL.__version__}\0{first}\0{files.shape}\0{whole}"
    return folder / blake2b(os.fsencode(rule), digest_size=DIGEST).hexdigest()
