"""Rows of a table of labels whose images can be read."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from mtlcli.data.content_hash import Hashes
from mtlcli.data.formats.image_checks import find_damaged
from mtlcli.data.formats.image_decoding import ImagePreparation
from mtlcli.data.formats.image_tables import ListedImages, list_images
from mtlcli.data.formats.images import ImageFiles, probe_size
from mtlcli.data.formats.table_rows import Table
from mtlcli.data.samplers.base import Rows
from mtlcli.errors import ConfigError, MtlError, Problem

REMEDY = "Correct the table or the files, or set `on_error: skip` to leave out such rows"
MAX_LISTED = 10  # faults listed one by one
MAX_SHOWN = 3  # rows named in a note
MAX_TRIED = 10  # images to read for the image size


@dataclass(frozen=True)
class LabelledRows:
    """Rows of a table with their images.

    Attributes:
        table: the rows.
        of_files: split → rows of its file, if each split is a file.
        listed: names and sizes of the image files.
        files: the images.
        notes: a sentence about the rows that are left out, if any are.
    """

    table: Table
    of_files: dict[str, Rows] | None
    listed: ListedImages
    files: ImageFiles
    notes: list[str]


def find_rows(
    table: Table,
    of_files: dict[str, Rows] | None,
    column: str,
    root: Path,
    suffix: str,
    preparation: ImagePreparation,
    skip: bool,
) -> LabelledRows:
    """Find the rows whose images can be read.

    Args:
        table: the table.
        of_files: split → rows of its file, if each split is a file.
        column: column of the paths of the images.
        root: folder of relative paths.
        suffix: text appended to each path.
        preparation: conversion of the images; if it has no size, that of the first image is used.
        skip: leave out rows whose image doesn't exist or can't be decoded, for which all images are decoded; otherwise
            an image that doesn't exist is an error, and then the other images are checked too.

    Returns:
        The rows.

    Raises:
        ConfigError: the folder or images don't exist (images only without `skip`), or none can be read.
    """
    if not root.is_dir():
        raise ConfigError(f"{root}: is not a folder; set the option `root` to the folder of the images")
    listed, faults = list_images(table, column, root, suffix)
    present = np.array([row for row in range(len(table)) if row not in faults], np.int64)
    paths = listed.select(present).paths
    if not paths:
        raise ConfigError(_list_faults(faults, skip))
    files = ImageFiles(paths, preparation, lambda row: table.place(int(present[row])))
    if preparation.size is None:
        preparation = replace(preparation, size=_probe(files, len(paths) if skip else MAX_TRIED))
        files = replace(files, preparation=preparation)
    damaged: dict[int, str] = {}
    if skip:
        damaged = find_damaged(files)
    elif 0 < len(faults) < MAX_LISTED:  # report missing and damaged files at once
        assert preparation.size is not None
        damaged = find_damaged(files, preparation.channels * math.prod(preparation.size), MAX_LISTED - len(faults))
    faults = dict(sorted((faults | {int(present[row]): fault for row, fault in damaged.items()}).items()))
    if faults and (not skip or len(faults) == len(table)):
        raise ConfigError(_list_faults(faults, skip))
    notes = []
    if faults:
        notes.append(_note_left_out(faults, len(table)))
        rows = np.array([row for row in present.tolist() if row not in faults])
        table, of_files = _select_rows(table, of_files, rows)
        listed = listed.select(rows)
    files = ImageFiles(listed.paths, preparation, replace(table, columns={}).place)  # workers receive a copy of it
    return LabelledRows(table, of_files, listed, files, notes)


def _probe(files: ImageFiles, tried: int) -> tuple[int, int]:
    try:
        return probe_size(replace(files, paths=files.paths[:tried]))
    except MtlError as error:
        raise ConfigError([*map(Problem, str(error).splitlines()[:MAX_LISTED]), Problem(REMEDY)]) from error


def _list_faults(faults: Mapping[int, str], skip: bool) -> list[Problem]:
    """List faults for an error, of many only the first ones and their number."""
    listed = list(faults.values())[:MAX_LISTED]
    if (more := len(faults) - MAX_LISTED) > 0:
        listed.append(f"… and {more:,} more such rows")
    return [Problem(line) for line in [*listed, "no image can be read" if skip else REMEDY]]


def _select_rows(table: Table, of_files: dict[str, Rows] | None, rows: Rows) -> tuple[Table, dict[str, Rows] | None]:
    """Return some rows of a table with their lines, and the rows of each file in it."""
    kept = table.select(rows)
    if of_files is None:
        return kept, None
    parts = {split: np.flatnonzero(np.isin(rows, of_split)) for split, of_split in of_files.items()}
    if empty := [split for split, of_split in parts.items() if not len(of_split)]:
        raise ConfigError(f"no image of the split {empty[0]!r} can be read")
    return kept, parts


def _note_left_out(faults: Mapping[int, str], amount: int) -> str:
    shown = "; ".join(list(faults.values())[:MAX_SHOWN])
    more = f"; and {len(faults) - MAX_SHOWN:,} more" if len(faults) > MAX_SHOWN else ""
    count = "1 row is" if len(faults) == 1 else f"{len(faults):,} rows are"
    return f"{count} left out of {amount:,}, because the image can't be read: {shown}{more}"


def note_shared_images(keys: Hashes, rows: Mapping[str, Rows]) -> list[str]:
    """Note splits whose images are also training images.

    Args:
        keys: keys of the images, uint64 [N].
        rows: split → its rows.

    Returns:
        One sentence for each such split.
    """
    notes = []
    for split, of_split in rows.items():
        if split == "train" or "train" not in rows:
            continue
        if shared := int(np.isin(keys[of_split], keys[rows["train"]]).sum()):
            notes.append(
                f"the images of {shared:,} of the {len(of_split):,} rows of the split {split!r} are also images of "
                f"training rows, so its metrics are too good; assign all rows of an image to one split"
            )
    return notes
