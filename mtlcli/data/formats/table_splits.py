"""Splits of a table: by a column, by files, or drawn by the cells of each row."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mtlcli.data.content_hash import Hashes, hash_cells, hash_table, mix_bits
from mtlcli.data.fingerprint import DataRecord
from mtlcli.data.formats.batches import Dialect
from mtlcli.data.formats.feature_choice import UNNAMED
from mtlcli.data.formats.numerals import Notation
from mtlcli.data.formats.split_names import SPLITS
from mtlcli.data.formats.table_reader import read_table
from mtlcli.data.formats.table_rows import Table, append_rows
from mtlcli.data.samplers.base import Rows
from mtlcli.data.splitting import Codes, Mask, draw, draw_by_position, group_copies
from mtlcli.errors import ConfigError
from mtlcli.text import quote

GROUP = np.uint64(0xD6E8FEB86659FD93)  # separates the keys of groups from those of rows
REPEATED_SHARE = 0.25  # of the rows of a split's file that may also be training rows, before a note


@dataclass(frozen=True)
class TableSplits:
    """Rows of a table by split.

    Attributes:
        rows: split → its rows, for splits that have rows.
        hashes: hashes of all rows, uint64 [N], see `Dataset.hashes`.
        keys: keys of all rows, uint64 [N], see `Dataset.keys`.
        columns: columns whose cells are hashed.
        kept: keys excluded from a drawn `test` so that every class keeps an example.
    """

    rows: dict[str, Rows]
    hashes: Hashes
    keys: Hashes
    columns: tuple[str, ...]
    kept: frozenset[int] = frozenset()


def split_table(
    table: Table,
    split_column: str | None,
    group_column: str | None,
    test: float,
    seed: int,
    classes: Sequence[Codes],
    record: DataRecord | None,
    notation: Notation,
    files: dict[str, Rows] | None = None,
    keys: Hashes | None = None,
) -> TableSplits:
    """Split the rows by `split_column` or by `files`, or draw a share of them.

    A row is identified by its cells in all columns that have a name, except `split_column`. Rows with the same value of
    `group_column` are drawn together.

    Raises a ConfigError if a column doesn't exist, or `split_column` has an invalid value.

    Args:
        table: the table.
        split_column: column that names the split of each row, or None.
        group_column: column of groups, or None.
        test: share of the rows that becomes `test`, if it is drawn.
        seed: seed of the draw.
        classes: class codes of each target, see `draw`.
        record: record of a checkpoint, which determines the hashed columns and the rule of drawing; then a split column
            may be missing, which leaves the table without splits.
        notation: notation of numbers, which are hashed by value.
        files: split → rows, if each split is a file.
        keys: keys of the rows, uint64 [N], if they are identified by something other than their cells; these are also
            the `hashes` of the result.

    Returns:
        The splits.
    """
    columns: list[str] = []
    if keys is not None:
        hashes = keys
    else:
        every = [name for name in table.columns if not UNNAMED.fullmatch(name) and name != split_column]
        columns = (
            every if record is None or record.columns is None else [c for c in record.columns if c in table.columns]
        )
        hashes = hash_table(table, columns, notation)
        keys = group_copies(hashes)
    if group_column is not None and (record is None or group_column in table.columns):
        table.require([group_column], "group_column")
        cells = table.columns[group_column]
        keys = np.where(cells.missing_rows(), keys, cells.spread(mix_bits(hash_cells(cells, notation) ^ GROUP)))
    rows: dict[str, Rows] = {}
    kept: frozenset[int] = frozenset()
    if files is not None:
        rows = files
    elif split_column is not None:
        if record is None or split_column in table.columns:
            rows = _read_split_column(table, split_column)
    elif record is not None and record.rule == "position":
        rows = _split_rows(draw_by_position(len(table), round(test * len(table)), ("test", seed)))
    else:
        excluded = frozenset() if record is None else record.kept_keys("test")
        drawn = draw(keys, test, ("test", seed), classes, excluded)
        rows, kept = _split_rows(drawn.chosen), drawn.kept
    nonempty = {split: rows[split] for split in SPLITS if split in rows and len(rows[split])}
    return TableSplits(nonempty, hashes, keys, tuple(sorted(columns)), kept)


def _split_rows(chosen: Mask) -> dict[str, Rows]:
    return {"train": np.flatnonzero(~chosen), "test": np.flatnonzero(chosen)}


def _read_split_column(table: Table, split_column: str) -> dict[str, Rows]:
    table.require([split_column], "split_column")
    column = table.columns[split_column]
    if wrong := column.rows([at for at, value in enumerate(column.values) if value not in SPLITS]):
        value = column.value(wrong[0])
        expected = ", ".join(SPLITS)
        raise ConfigError(
            table.locate(f"{quote(value)} in the split column {split_column!r} is not one of {expected}", wrong)
        )
    return {str(split): np.flatnonzero(column.index == at) for at, split in enumerate(column.values)}


def read_split_files(
    paths: Mapping[str, Path],
    dialect: Dialect,
    texts: Collection[str],
    targets: Sequence[str],
    features: Sequence[str] | None,
    exclude: Collection[str],
) -> tuple[Table, dict[str, Rows] | None]:
    """Read one file per split into a table.

    Raises a ConfigError if a file can't be read, or lacks a column.

    Args:
        paths: split → file; the file of `train` comes first and determines the columns.
        dialect: delimiter, missing values and notation.
        texts: columns that are compared as texts, see `read_table`.
        targets: columns that every file must have.
        features: columns that are used as features; None for all that are not in `exclude`.
        exclude: columns that are not used.

    Returns:
        The rows of all files, and split → its rows; None instead of the rows if there is only one file.
    """
    table = read_table(paths["train"], dialect, texts=texts)
    rows = {"train": np.arange(len(table))}
    for split, path in paths.items():
        if split == "train":
            continue
        other = read_table(path, dialect, texts=texts)
        other.require(targets, "targets")
        unused = {*exclude, *([] if features is None else set(table.columns).difference(features))}
        needed = [name for name in table.columns if name not in unused and not UNNAMED.fullmatch(name)]
        other.require(needed, f"the header of {paths['train']}")
        rows[split] = np.arange(len(table), len(table) + len(other))
        table = append_rows(table, other)
    return table, rows if len(paths) > 1 else None


def note_repeated_rows(splits: TableSplits, paths: Mapping[str, Path]) -> list[str]:
    """Note files of a split many of whose rows are also training rows.

    Args:
        splits: the splits of the table.
        paths: split → file.

    Returns:
        One sentence for each such file.
    """
    notes = []
    train = splits.hashes[splits.rows["train"]] if "train" in splits.rows else splits.hashes[:0]
    for split, path in paths.items():
        if split == "train":
            continue
        hashes = splits.hashes[splits.rows[split]]
        repeated = int(np.isin(hashes, train).sum())
        if repeated > REPEATED_SHARE * len(hashes):
            notes.append(
                f"{repeated} of the {len(hashes)} rows of {path} are also rows of {paths['train']}, so the metrics of "
                f"the split {split!r} are too good"
            )
    return notes
