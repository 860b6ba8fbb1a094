"""Tables in JSON Lines: an object in each line.

Arrow parses the file in blocks. A block that it can't parse, or would read otherwise, is read line by line by Python's
`json`, which reports the errors.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mtlcli.data.formats.arrow_import import has_arrow, import_arrow
from mtlcli.data.formats.arrow_texts import to_numpy
from mtlcli.data.formats.batches import Batch, Dialect
from mtlcli.data.formats.column_builder import EXACT, Kind
from mtlcli.data.formats.header import check_columns
from mtlcli.data.formats.table_rows import ListedLines
from mtlcli.data.formats.text_lines import MAX_ROW_CHARACTERS, open_text, unreadable
from mtlcli.data.formats.typed_columns import convert_column, describe_unreadable, is_list, is_word_list, spell_lists
from mtlcli.data.formats.word_lists import spell_words
from mtlcli.errors import ConfigError, Problem, suggest
from mtlcli.text import join_names, quote

BLOCK = 2**20  # bytes that are parsed at once
MAX_LISTED = 5  # invalid lines that are listed one by one
TRUTH = {True: "1", False: "0"}


class JsonLines:
    """Reader of a file with a JSON object in each line, plain or compressed.

    Blank lines are skipped. A key that an object lacks is a missing value; `names` grows with the keys that are found.

    Raises a ConfigError if the file can't be read or has no object in its first line.

    Args:
        path: the file.
        dialect: missing values, and notation of numbers in texts.
        names: keys that are known before; one that no object has is reported at the end of the file.
    """

    hint, header = "", ""

    def __init__(self, path: Path, dialect: Dialect, names: Sequence[str] = ()) -> None:
        self.path, self.dialect, self.names = path, dialect, list(names)
        self.uses_arrow = has_arrow()
        self._texts: set[str] = set()  # columns that Arrow must not take for dates
        self._absent = list(self.names)  # known keys that no object has had so far

    def batches(self, kinds: Sequence[Kind | None]) -> Iterator[Batch]:
        """Yield the rows; see `TableFile`. `kinds` may be shorter than `names`: all others are `values`."""
        line = 0
        for block in self._blocks():
            lines = block.count(b"\n") + (not block.endswith(b"\n"))
            columns = self._parse(block, lines, kinds) if self.uses_arrow else None
            if columns is None:
                batch = self._read_carefully(block, line)
            else:
                batch = Batch(columns, ListedLines(self.path, range(line + 1, line + lines + 1)))
            if len(batch.places):
                yield batch
            line += lines
        if self._absent and line:
            others = [name for name in self.names if name not in self._absent]
            raise ConfigError(
                Problem(
                    f"{self.path}: no object has the key {quote(name)}.{suggest(name, others)} The keys are: "
                    f"{join_names(others)}"
                )
                for name in self._absent
            )

    def _blocks(self) -> Iterator[bytes]:
        """Yield blocks of complete lines."""
        rest = b""
        with open_text(self.path) as file:
            try:
                while piece := file.read(BLOCK):
                    rest += piece
                    if (end := rest.rfind(b"\n") + 1) or len(rest) > 4 * MAX_ROW_CHARACTERS:
                        yield rest[: end or len(rest)]
                        rest = rest[end or len(rest) :]
            except OSError as error:
                raise unreadable(self.path, error) from error
        if rest:
            yield rest

    def _parse(self, block: bytes, lines: int, kinds: Sequence[Kind | None]) -> list[Any] | None:
        """Parse a block by Arrow; None if Python's reader would read it otherwise, or report an error."""
        arrow, arrow_json = import_arrow(str(self.path)), import_arrow(str(self.path), "pyarrow.json")
        order: list[str] = []
        for _ in range(2):  # the second time with the texts that the first time took for dates
            schema = [(name, arrow.string()) for name in sorted(self._texts)]
            try:
                table = arrow_json.read_json(
                    arrow.BufferReader(block),
                    read_options=arrow_json.ReadOptions(use_threads=False, block_size=len(block) + 1),
                    parse_options=arrow_json.ParseOptions(explicit_schema=arrow.schema(schema)),
                ).combine_chunks()
            except (arrow.ArrowInvalid, ValueError):
                return None
            texts = {
                field.name
                for field in table.schema
                if arrow.types.is_timestamp(field.type) or arrow.types.is_string(field.type)
            }
            self._texts |= texts
            order = order or table.schema.names  # that of the keys in the file, before there are explicit types
            if not any(arrow.types.is_timestamp(field.type) for field in table.schema):
                break
        if table.num_rows != lines or any(
            describe_unreadable(field.type)
            for field in table.schema
            if not (field.name in self.dialect.lists and is_word_list(field.type))
        ):
            return None
        self._add_names(order)
        columns: list[Any] = []
        for at, name in enumerate(self.names):
            kind = kinds[at] if at < len(kinds) else "values"
            if kind is None:
                columns.append(None)
            elif name not in table.schema.names:
                columns.append(arrow.nulls(lines, arrow.string()))
            else:
                column = table.column(name).chunk(0)
                if _is_inexact(column):
                    return None
                if is_list(column.type):
                    columns.append(spell_lists(column))
                else:
                    columns.append(convert_column(column, kind, self.dialect.notation, name))
        return columns

    def _read_carefully(self, block: bytes, line: int) -> Batch:
        """Read the objects of a block line by line, and report invalid lines."""
        rows, places, faulty = list[dict[str, str | None]](), array("q"), dict[int, str]()
        wrong: list[Problem] = []
        for number, text in enumerate(block.removesuffix(b"\n").split(b"\n"), line + 1):
            if not text.strip():
                continue
            try:
                rows.append(self._read_object(text, number))
                places.append(number)
            except ValueError as error:
                if self.dialect.tolerant:
                    faulty[len(rows)] = f"{self.path}:{number}: {error}"
                    rows.append({})
                    places.append(number)
                    continue
                if len(wrong) == MAX_LISTED:
                    wrong.append(Problem(f"{self.path}:{number}: … and more such lines, starting here"))
                    break
                wrong.append(Problem(f"{self.path}:{number}: {error}"))
        if wrong:
            raise ConfigError(wrong)
        self._add_names(list(dict.fromkeys(name for row in rows for name in row)))
        columns = [[row.get(name) for row in rows] for name in self.names]
        return Batch(columns, ListedLines(self.path, places), faulty)

    def _read_object(self, text: bytes, line: int) -> dict[str, str | None]:
        """Return key → text of the value. ValueError for anything else than a flat object."""
        try:
            decoded = text.decode("utf-8-sig" if line == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(
                f"is not UTF-8 text: it has the byte 0x{text[error.start]:02X} at position {error.start + 1}; save the "
                "file as UTF-8"
            ) from error
        try:
            row = json.loads(
                decoded,
                parse_float=lambda number: number.replace(".", self.dialect.notation.decimal),
                parse_int=str,
                parse_constant=lambda name: None if name == "NaN" else name,
            )
        except (ValueError, RecursionError) as error:
            raise ValueError(f"is not valid JSON ({error}); expected one object in each line") from error
        if not isinstance(row, dict):
            raise ValueError(f'is not an object, such as {{"age": 39, "town": "Ulm"}}, but {quote(decoded)}')
        for name, value in row.items():
            if isinstance(value, list) and name in self.dialect.lists:
                if any(isinstance(entry, dict | list) for entry in value):
                    raise ValueError(f"the list {name!r} has an entry that is an object or a list")
                row[name] = spell_words(value)
                continue
            if isinstance(value, dict | list):
                hint = f", or declare `targets: {{{name}: tags}}` for a label of each word" * isinstance(value, list)
                raise ValueError(
                    f"the value of {name!r} is {'an object' if isinstance(value, dict) else 'a list'}, but a table has "
                    f"numbers, texts, booleans and nulls; write each of its entries under a key of its own{hint}"
                )
            row[name] = TRUTH[value] if isinstance(value, bool) else value
        return row

    def _add_names(self, names: Sequence[str]) -> None:
        self._absent = [name for name in self._absent if name not in names]
        if new := [name for name in names if name not in self.names]:
            check_columns(self.path, [*self.names, *new])
            self.names += new


def _is_inexact(column: Any) -> bool:
    """Return whether a number may have been rounded to float64."""
    if column.type != "double":
        return False
    return bool((np.abs(to_numpy(column, np.float64)) >= EXACT).any())
