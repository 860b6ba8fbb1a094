"""Descriptions of datasets whose inputs are texts that a trunk reads."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from mtlcli.data.formats.column_report import TableReport, Unseen
from mtlcli.data.formats.numerals import Notation
from mtlcli.data.formats.table_rows import Table
from mtlcli.data.formats.tag_columns import check_lengths
from mtlcli.data.formats.text_rows import CellTexts, TextRows
from mtlcli.data.formats.word_lists import WordLists, join_lists
from mtlcli.data.samplers.base import Rows
from mtlcli.errors import ConfigError
from mtlcli.specs import Column, DatasetSpec, TargetSpec, TextFeature
from mtlcli.text import join_names
from mtlcli.text_spec import PAIR, TextSpec

Pairs = Literal["joint", "separate"]
"""The option `pairs` of a table: the two texts of a pair are encoded in one sequence, or one by one."""
MOST_LISTED = 5  # unused columns in a note


@runtime_checkable
class KeepsTexts(Protocol):
    """Dataset whose inputs can be texts."""

    def keep_texts(self, max_length: int, compared: bool) -> None:
        """Provide texts as inputs, as `TextRows`, instead of features of them; called before any other method.

        Raises a ConfigError if the dataset has no text.

        Args:
            max_length: maximum number of tokens of an example.
            compared: whether a task compares the two texts of a pair, which are therefore encoded one by one unless the
                dataset has an option to the contrary.
        """


def ask_for_texts(dataset: object, max_length: int | None, compared: bool = False) -> None:
    """Ask a dataset for texts as inputs.

    Args:
        dataset: the dataset.
        max_length: maximum number of tokens of an example; None for a trunk that reads no text.
        compared: whether a task compares the two texts of a pair.

    Raises:
        ConfigError: the dataset has no text.
    """
    if max_length is None:
        return
    if not isinstance(dataset, KeepsTexts):
        raise ConfigError("the trunk reads text, and this dataset has none")
    dataset.keep_texts(max_length, compared)


@runtime_checkable
class KeepsPrompts(Protocol):
    """Dataset whose inputs can be the cells of a prompt."""

    def keep_prompt(self, texts: TextSpec) -> None:
        """Provide the cells of a prompt and the texts of answers as inputs, as `TextRows`; called first.

        Raises a ValueError if the prompt has a placeholder that is no column, as far as the columns are known.

        Args:
            texts: description of the inputs, without `answers`.
        """


def ask_for_prompt(dataset: object, texts: TextSpec) -> None:
    """Ask a dataset for the cells of a prompt as inputs.

    Args:
        dataset: the dataset.
        texts: description of the inputs, without `answers`.

    Raises:
        ConfigError: the dataset has no columns.
    """
    if not isinstance(dataset, KeepsTexts) or not isinstance(dataset, KeepsPrompts):
        raise ConfigError("a prompt needs a dataset with columns, such as `table` or `huggingface`")
    dataset.keep_prompt(texts)


def choose_answers(texts: TextSpec, targets: Mapping[str, Any]) -> TextSpec:
    """Add the columns of answers to the description of a prompt.

    Args:
        texts: the description.
        targets: target → its declared type; those of the type `text` are answers.

    Returns:
        The description.
    """
    return replace(texts, answers=tuple(name for name, type_ in targets.items() if type_ == "text"))


def choose_texts(
    columns: Sequence[str],
    max_length: int,
    tags: Collection[str] = (),
    pairs: Pairs | None = None,
    compared: bool = False,
) -> TextSpec:
    """Describe the texts of a table.

    Args:
        columns: columns that are listed under `text`.
        max_length: maximum number of tokens of an example.
        tags: targets with a tag for each word; with any, the text is divided into words.
        pairs: whether the two texts of a pair are encoded in one sequence or one by one; None for what the tasks need.
        compared: whether a task compares the two texts of a pair.

    Returns:
        The description.

    Raises:
        ConfigError: the number of columns is wrong.
    """
    if not columns:
        raise ConfigError("the trunk reads text: list the column of the text, or two columns, under `text`")
    if len(columns) > 2:
        raise ConfigError(
            f"the trunk reads one text or a pair of texts, but `text` lists {len(columns)} columns: "
            f"{join_names(list(columns))}"
        )
    separate = compared if pairs is None else pairs == "separate"
    if separate and len(columns) < 2:
        why = "`pairs: separate` needs" if pairs else "a task compares two texts, which needs"
        raise ConfigError(f"{why} two columns under `text`, which lists only {columns[0]!r}")
    if tags and len(columns) > 1:
        raise ConfigError(
            f"the tags of {join_names(list(tags))} are those of the words of one text, but `text` lists two columns: "
            f"{join_names(list(columns))}"
        )
    return TextSpec(tuple(columns), max_length, bool(tags), separate)


def with_texts(spec: DatasetSpec, texts: TextSpec) -> DatasetSpec:
    """Return a specification whose inputs are texts; the model doesn't normalize tokens.

    Args:
        spec: the specification.
        texts: description of the texts.

    Returns:
        The specification, with the target `pair` if the two texts of a pair are encoded one by one.
    """
    targets = dict(spec.targets)
    if texts.separate:
        targets.setdefault(PAIR, TargetSpec("binary"))
    return replace(
        spec, input_shape=texts.input_shape, targets=targets, columns=(), mean=(0.0,), std=(1.0,), text=texts
    )


def select_texts(table: Table, texts: TextSpec, tags: Collection[str] = ()) -> TextRows:
    """Return the texts of a table's rows.

    Args:
        table: the table.
        texts: description of the texts.
        tags: targets with a tag for each word.

    Returns:
        The texts, or lists of their words.

    Raises:
        ConfigError: a row has another number of tags than words.
    """
    table.require(texts.columns, "text" if texts.prompt is None else "prompt")
    if texts.words:
        (name,) = texts.columns
        check_lengths(table, name, tags)
        return TextRows([WordLists(table.columns[name])])
    answers = [name for name in texts.answers if name in table.columns]
    return TextRows([CellTexts(join_lists(table.columns[name])) for name in (*texts.columns, *answers)])


def check_texts(table: Table, texts: TextSpec, train: Rows) -> None:
    """Check that the training rows have texts.

    Args:
        table: the table.
        texts: description of the texts.
        train: the training rows.

    Raises:
        ConfigError: a column has none.
    """
    table.require(texts.columns, "text" if texts.prompt is None else "prompt")
    for name in texts.columns:
        if bool(np.all(table.columns[name].missing_rows()[train])):
            raise ConfigError(table.locate(f"column {name!r} has no text in the training rows"))


class TextReport(TableReport):
    """Report on the columns of a table whose texts are the inputs.

    Args:
        table: the table.
        texts: description of the texts.
        train: rows of the training split.
        notation: notation of numbers and dates.
        others: columns that are used otherwise, or excluded.
    """

    def __init__(self, table: Table, texts: TextSpec, train: Rows, notation: Notation, others: Collection[str]) -> None:
        self.columns = tuple(Column(name, text=TextFeature(name, 1, 0.0)) for name in texts.columns)
        super().__init__(table, self.columns, train, notation, None)
        self.facts = [replace(facts, features=None) for facts in self.facts]
        self.prompt = texts.prompt
        self.unused = [name for name in table.columns if name not in texts.columns and name not in others]

    def unseen(self, inputs: Tensor | TextRows, columns: Sequence[Column], rows: Rows) -> dict[str, Unseen]:
        """Count missing texts, see `TableReport.unseen`."""
        return super().unseen(torch.empty(0), self.columns, rows)

    def notes(self, inputs: Tensor | TextRows, spec: DatasetSpec, subsets: Mapping[str, Rows]) -> list[str]:
        """List notes for the user, see `TableReport.notes`; among them, the columns that are no inputs."""
        notes = super().notes(inputs, replace(spec, columns=self.columns), subsets)
        if self.unused:
            more = f" and {len(self.unused) - MOST_LISTED} more" if len(self.unused) > MOST_LISTED else ""
            listed = ", ".join(map(repr, self.unused[:MOST_LISTED]))
            reads = "reads text only" if self.prompt is None else "reads the prompt only"
            notes.append(f"the trunk {reads}, so these columns are not used: {listed}{more}")
        return notes
