"""Image files that a column of a table lists."""

from __future__ import annotations

import os
import re
import stat
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mtlcli.data.content_hash import Hashes, hash_named, hash_table, hash_texts
from mtlcli.data.formats.compressed import describe_os_error
from mtlcli.data.formats.image_decoding import supported_suffixes
from mtlcli.data.formats.numerals import Notation
from mtlcli.data.formats.table_rows import Table
from mtlcli.data.samplers.base import Rows
from mtlcli.text import printable, quote

MAX_NAMES = 10_000  # names in a folder that are compared with that of a missing file
MAX_HINTS = 10  # missing files for which a remedy is looked for
ABSENT = "doesn't exist"
_PLAIN = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)*", re.ASCII)  # a relative path in its only spelling
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")


@dataclass(frozen=True)
class ListedImages:
    """Image file of each row of a table.

    Attributes:
        paths: N paths.
        keys: hashes of the names of the files below the root, uint64 [N]; different spellings of a path (`a/../b.png`,
            `./b.png`, backslashes, Unicode's forms NFC and NFD) have one key.
        sizes: hashes of the sizes of the files in bytes, uint64 [N].
    """

    paths: Sequence[Path]
    keys: Hashes
    sizes: Hashes

    def select(self, rows: Rows) -> ListedImages:
        """Return the images of some rows."""
        return ListedImages([self.paths[row] for row in rows.tolist()], self.keys[rows], self.sizes[rows])

    def hash_rows(self, table: Table, columns: Sequence[str], notation: Notation) -> Hashes:
        """Hash name and size of each row's file and its cells in some columns.

        Args:
            table: the table.
            columns: columns to hash.
            notation: notation of the numbers.

        Returns:
            uint64 [N].
        """
        cells = hash_table(table, columns, notation)
        return hash_named({"image": self.keys, "size": self.sizes, "cells": cells})


def list_images(
    table: Table, column: str, root: Path, suffix: str, folder: str | None = None
) -> tuple[ListedImages, dict[int, str]]:
    """Find the image file, or a mask file, of each row.

    A path is relative to `root` or absolute. If no such file exists, backslashes are tried as separators, and then
    Unicode's forms NFC and NFD, between which copies to other systems change names.

    Args:
        table: the table.
        column: column of paths.
        root: folder of the images.
        suffix: text appended to each path.
        folder: for masks, the folder below `root` to which their paths are relative; then a cell may be blank.

    Returns:
        The images, and row → fault of its file, with the place in the table, for rows without a readable file.
    """
    cells = table.columns[column]
    paths, names, sizes, wrong = [], [], [], {}
    start = root if folder is None else root / folder
    base = os.path.abspath(start)  # noqa: PTH100  (doesn't follow links, and is faster than Path)
    for at, value in enumerate(cells.values):
        path, size, fault = _find_file(start, None if value is None else value + suffix, column)
        if value is None and folder is not None:
            fault = None
        paths.append(path)
        names.append(_name_below(base, path, (value or "") + suffix))
        sizes.append(str(size))
        if fault is not None:
            wrong[at] = fault
    faults: dict[int, str] = {}
    hints = 0  # remedies that were looked for
    for row in cells.rows(wrong):
        at = row if cells.index is None else int(cells.index[row])
        value, fault = cells.values[at] or "", wrong[at]
        if value and not _URL.match(value):
            hint = ""
            if fault == ABSENT and hints < MAX_HINTS:
                hint = _suggest_remedy(table, root, value, suffix, folder)
                hints = MAX_HINTS if hint else hints + 1
            fault = f"{printable(str(paths[at]))}: {fault}{hint}"
        faults[row] = f"{table.place(row)}: {fault}"
    listed = ListedImages(
        paths if cells.index is None else [paths[at] for at in cells.index.tolist()],
        cells.spread(hash_texts(names)),
        cells.spread(hash_texts(sizes)),
    )
    return listed, faults


def _find_file(root: Path, value: str | None, column: str) -> tuple[Path, int, str | None]:
    """Return path and size of the file that a cell names, and the fault if it doesn't exist."""
    if value is None:
        return root, 0, f"no image is named in column {column!r}"
    if _URL.match(value):
        return Path(value), 0, f"{quote(value)} is a URL; download the images, and name the files in the table"
    fault = None
    for spelling in _spellings(value):
        path = root / spelling
        try:
            state = os.stat(path)  # noqa: PTH116  (twice as fast as Path.stat)
        except FileNotFoundError:
            fault = fault or ABSENT
        except (OSError, ValueError) as error:
            fault = fault or describe_os_error(error)
        else:
            if stat.S_ISREG(state.st_mode):
                return path, state.st_size, None
            fault = "is a folder" if stat.S_ISDIR(state.st_mode) else "is a pipe or a device, not a file"
    return root / value, 0, fault


def _spellings(value: str) -> Iterator[str]:
    yield value
    slashes = value.replace("\\", "/")
    if slashes != value:
        yield slashes
    if not value.isascii():
        yield unicodedata.normalize("NFC", slashes)
        yield unicodedata.normalize("NFD", slashes)


def _name_below(base: str, path: Path, written: str) -> str:
    """Return the path relative to the absolute path `base`, or absolute if it is elsewhere; in NFC."""
    if _PLAIN.fullmatch(written):
        return written
    whole = os.path.abspath(str(path).replace("\\", "/"))  # noqa: PTH100
    return unicodedata.normalize("NFC", whole.removeprefix(f"{base.rstrip('/')}/"))


def _suggest_remedy(table: Table, root: Path, value: str, suffix: str, masks: str | None) -> str:
    """Suggest a remedy for a file that doesn't exist, or ""."""
    option, start = ("root", root) if masks is None else ("folder", root / masks)
    try:
        below = [*filter(Path.is_dir, root.iterdir())]
        folders = [table.path.parent, root.parent, Path(), *below] if masks is None else [root, *below]
        for folder in folders[:MAX_NAMES]:
            if folder != start and (folder / (value + suffix)).is_file():
                shown = str(folder if masks is None else folder.relative_to(root))
                return f", but it exists below the folder {shown!r}: set the option `{option}` to it"
        root = start
        for ending in sorted(supported_suffixes() if masks is None else {*supported_suffixes(), ".npy"}):
            for spelling in (ending, ending.upper()):
                if not suffix and (root / (value + spelling)).is_file():
                    return f", but with the ending {spelling} it does: set the option `suffix` to {spelling!r}"
        missing = root / (value + suffix)
        stem = missing.stem.casefold()  # other case or ending; similar names are probably other images
        names = [name for name in os.listdir(missing.parent)[:MAX_NAMES] if Path(name).stem.casefold() == stem]  # noqa: PTH208
    except (OSError, ValueError):
        return ""
    return f". Did you mean {quote(min(names))}?" if names else ""
