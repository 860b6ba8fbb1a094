"""The splits of a table: as a column of it says, or drawn by the cells of each row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from pydantic import AfterValidator, Field

from mtlcli.config.type_names import TypeDescription
from mtlcli.data.content_hash import Hashes, hash_cells, hash_table, mix_bits
from mtlcli.data.fingerprint import DataRecord
from mtlcli.data.formats.column_report import UNNAMED
from mtlcli.data.formats.csv_reader import Table
from mtlcli.data.formats.numerals import Notation
from mtlcli.data.shuffling import Rows
from mtlcli.data.splitting import Codes, draw, draw_by_position, group_copies
from mtlcli.text import shown

SPLITS = ("train", "val", "test")
GROUP = np.uint64(0xD6E8FEB86659FD93)  # sets the keys of groups apart from those of rows


@dataclass(frozen=True)
class TableSplits:
    """The rows of a table by split.

    rows: split → its rows; only splits that have some. hashes, keys: [N], of all rows, see `Dataset`. columns: those
    that are hashed. kept: keys left out of `test` for the sake of their classes.
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
) -> TableSplits:
    """Split the rows as `split_column` says, or as they come in `files`, or draw a share `test` of them by `seed`.

    A row is known by all its cells, of whatever columns are used, whose column has a name and isn't `split_column`; the
    rows of one value of `group_column` are drawn together. classes: see `draw`. notation: of numbers, which count by
    their values. files: split → rows, where a file is a split. record: of a checkpoint, whose columns and rule of
    drawing count; then a split column may be missing, and there are no splits. ConfigError for a bad column.
    """
    every = [name for name in table.columns if not UNNAMED.fullmatch(name) and name != split_column]
    columns = every if record is None or record.columns is None else [c for c in record.columns if c in table.columns]
    hashes = hash_table(table, columns, notation)
    keys = group_copies(hashes)
    if group_column is not None and (record is None or group_column in table.columns):
        table.require([group_column], "group_column")
        cells = table.columns[group_column]
        named = np.array([value is not None for value in cells.values])[cells.index]
        keys = np.where(named, mix_bits(hash_cells(cells.values, notation) ^ GROUP)[cells.index], keys)
    rows: dict[str, Rows] = {}
    kept: frozenset[int] = frozenset()
    if files is not None:
        rows = files
    elif split_column is not None:
        if record is None or split_column in table.columns:
            rows = _read_split_column(table, split_column)
    elif record is not None and record.rule == "position":
        rows = _parts(draw_by_position(len(table), round(test * len(table)), ("test", seed)))
    else:
        known = frozenset() if record is None else record.kept_keys("test")
        drawn = draw(keys, test, ("test", seed), classes, known)
        rows, kept = _parts(drawn.chosen), drawn.kept
    found = {split: rows[split] for split in SPLITS if split in rows and len(rows[split])}
    return TableSplits(found, hashes, keys, tuple(sorted(columns)), kept)


def _parts(chosen: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> dict[str, Rows]:
    return {"train": np.flatnonzero(~chosen), "test": np.flatnonzero(chosen)}


def _read_split_column(table: Table, split_column: str) -> dict[str, Rows]:
    table.require([split_column], "split_column")
    column = table.columns[split_column]
    if wrong := column.rows([at for at, value in enumerate(column.values) if value not in SPLITS]):
        value = column.values[column.index[wrong[0]]]
        raise table.error(f"{shown(value)} in the split column {split_column!r} is none of {', '.join(SPLITS)}", wrong)
    return {str(split): np.flatnonzero(column.index == at) for at, split in enumerate(column.values)}


# What pandas reads as missing, and the other usual marks.
MISSING_VALUES = [
    "", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A", "NA",
    "NULL", "NaN", "None", "n/a", "nan", "null", "none", "-", "--", "?",
]  # fmt: skip


def _delimiter(text: str) -> str:
    """The character; a backslash and a t, as a shell passes them on, are a tab."""
    if text == "\\t":
        return "\t"
    if len(text) != 1 or text in '"\r\n\0':
        raise ValueError("no delimiter")
    return text


Delimiter = Annotated[
    str,
    Field(min_length=1, max_length=2),
    AfterValidator(_delimiter),
    TypeDescription("one character, not a quote or a line break (`\\t` is a tab)", "characters"),
]
Names = Annotated[list[str], Field(min_length=1)]
Targets = Names | dict[str, Literal["classes", "binary", "real"] | Names]
