"""Targets with a tag for each word of a text."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mtlcli.data.formats.column_encoding import sort_values
from mtlcli.data.formats.table_rows import Table
from mtlcli.data.formats.word_lists import count_words, show_words, split_words
from mtlcli.errors import ConfigError, Problem, suggest
from mtlcli.specs import IGNORE_INDEX, TargetSpec
from mtlcli.text import join_names, name_problem, quote

MOST_LISTED = 5  # rows with a wrong number of tags


def fit_tags(table: Table, name: str, tags: Sequence[str] | None = None, lacking: bool = False) -> TargetSpec:
    """Fit the specification of a target on all rows: rare tags need not occur in the training rows.

    Args:
        table: the table.
        name: name of the column.
        tags: the tags in their order, if they are stated; None for those that occur, sorted.
        lacking: whether words may have no tag, even if all of these have one.

    Returns:
        The specification.

    Raises:
        ConfigError: there are fewer than two tags.
    """
    if tags is None:
        tags = sort_values({tag for value in table.columns[name].values for tag in split_words(value) if tag})
        if faulty := [(tag, why) for tag in tags if (why := name_problem(tag))]:
            raise ConfigError(table.locate(f"the tag {quote(faulty[0][0])} of target {name!r} {faulty[0][1]}"))
        if len(tags) < 2:
            shown = f"only the tag {quote(tags[0])}" if tags else "no tag"
            raise ConfigError(table.locate(f"target {name!r} has {shown}"))
    return TargetSpec("tags", len(tags), tuple(tags), lacking or lacks_tags(table, name))


def lacks_tags(table: Table, name: str) -> bool:
    """Return whether a row or one of its words has no tag.

    Args:
        table: the table.
        name: name of the column.

    Returns:
        True if a cell is missing, or an entry of a list.
    """
    values = table.columns[name].values
    return any(value is None or "" in split_words(value) for value in values)


def encode_tags(table: Table, name: str, target: TargetSpec, others: str = "error") -> Tensor:
    """Encode tags.

    Args:
        table: the table.
        name: name of the column.
        target: specification of the target.
        others: whether a tag that is none of the target's is an error (`error`) or a missing label (`missing`).

    Returns:
        int64 [N, W], where W is the largest number of tags of a row; IGNORE_INDEX for a missing tag and after the last.

    Raises:
        ConfigError: a tag is none of the target's.
    """
    cells, tags = table.columns[name], target.class_names
    positions = {"": IGNORE_INDEX, **{tag: at for at, tag in enumerate(tags)}}
    lists = [split_words(value) for value in cells.values]
    encoded = np.full((len(lists), max(map(len, lists), default=0) or 1), IGNORE_INDEX)
    for at, words in enumerate(lists):
        codes = [positions.get(word, -1) for word in words]
        if -1 in codes:
            if others != "missing":
                wrong = words[codes.index(-1)]
                raise ConfigError(
                    table.locate(
                        f"target {name!r} has the tag {quote(wrong)}, which is not among its tags: "
                        f"{join_names(tags)}.{suggest(wrong, tags)}",
                        cells.rows([at]),
                    )
                )
            codes = [IGNORE_INDEX if code == -1 else code for code in codes]
        encoded[at, : len(codes)] = codes
    return torch.from_numpy(cells.spread(encoded))


def check_lengths(table: Table, words: str, targets: Collection[str]) -> None:
    """Check that each row has as many tags as words; a row whose tags are missing has none.

    Args:
        table: the table.
        words: name of the column of words.
        targets: names of the columns of tags.

    Raises:
        ConfigError: lists the first rows with another number of tags.
    """
    problems: list[Problem] = []
    expected = count_words(table, words)
    for name in targets:
        counts = count_words(table, name)
        rows = np.flatnonzero((counts != expected) & ~table.columns[name].missing_rows())
        for row in rows[:MOST_LISTED].tolist():
            shown = quote(show_words(table.columns[words].value(row) or ""))
            problems.append(
                Problem(
                    f"{table.place(row)}: target {name!r} has {counts[row]} tags for {expected[row]} words of "
                    f"{words!r}: {shown}"
                )
            )
        if len(rows) > MOST_LISTED:
            problems.append(Problem(f"target {name!r}: {len(rows):,} rows in all have a wrong number of tags"))
    if problems:
        raise ConfigError(problems)


def list_tag_columns(targets: Mapping[str, Any]) -> list[str]:
    """List the targets that are declared as tags.

    Args:
        targets: target → its declared type, or None.

    Returns:
        Their names.
    """
    return [name for name, type_ in targets.items() if type_ == "tags" or _is_stated(type_)]


def _is_stated(type_: Any) -> bool:
    return isinstance(type_, dict) and type_.get("type") == "tags"
