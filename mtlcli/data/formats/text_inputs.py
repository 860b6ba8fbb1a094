"""Descriptions of datasets whose inputs are texts that a trunk reads."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from mtlcli.data.formats.column_report import TableReport, Unseen
from mtlcli.data.formats.numerals import Notation
from mtlcli.data.formats.table_rows import Table
from mtlcli.data.formats.text_rows import CellTexts, TextRows
from mtlcli.data.samplers.base import Rows
from mtlcli.errors import ConfigError
from mtlcli.specs import Column, DatasetSpec, TextFeature
from mtlcli.text import join_names
from mtlcli.text_spec import TextSpec

MOST_LISTED = 5  # unused columns in a note


@runtime_checkable
class KeepsTexts(Protocol):
    """Dataset whose inputs can be texts."""

    def keep_texts(self, max_length: int) -> None:
        """Provide texts as inputs, as `TextRows`, instead of features of them; called before any other method.

        Raises a ConfigError if the dataset has no text.

        Args:
            max_length: maximum number of tokens of an example.
        """


def ask_for_texts(dataset: object, max_length: int | None) -> None:
    """Ask a dataset for texts as inputs.

    Args:
        dataset: the dataset.
        max_length: maximum number of tokens of an example; None for a trunk that reads no text.

    Raises:
        ConfigError: the dataset has no text.
    """
    if max_length is None:
        return
    if not isinstance(dataset, KeepsTexts):
        raise ConfigError("the trunk reads text, and this dataset has none")
    dataset.keep_texts(max_length)


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


def choose_texts(columns: Sequence[str], max_length: int) -> TextSpec:
    """Describe the texts of a table.

    Args:
        columns: columns that are listed under `text`.
        max_length: maximum number of tokens of an example.

    Returns:
        The description.

    Raises:
        ConfigError: it is neither one column nor two.
    """
    if not columns:
        raise ConfigError("the trunk reads text: list the column of the text, or two columns, under `text`")
    if len(columns) > 2:
        raise ConfigError(
            f"the trunk reads one text or a pair of texts, but `text` lists {len(columns)} columns: "
            f"{join_names(list(columns))}"
        )
    return TextSpec(tuple(columns), max_length)


def with_texts(spec: DatasetSpec, texts: TextSpec) -> DatasetSpec:
    """Return a specification whose inputs are texts; the model doesn't normalize tokens."""
    return replace(spec, input_shape=texts.input_shape, columns=(), mean=(0.0,), std=(1.0,), text=texts)


def select_texts(table: Table, texts: TextSpec) -> TextRows:
    """Return the texts of a table's rows."""
    table.require(texts.columns, "text" if texts.prompt is None else "prompt")
    answers = [name for name in texts.answers if name in table.columns]
    return TextRows([CellTexts(table.columns[name]) for name in (*texts.columns, *answers)])


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
