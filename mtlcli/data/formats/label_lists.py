"""Multilabel targets from a column of lists of labels."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from mtlcli.data.formats.column_encoding import sort_values
from mtlcli.data.formats.table_rows import Table
from mtlcli.data.samplers.base import Rows
from mtlcli.errors import ConfigError, suggest
from mtlcli.specs import TargetSpec
from mtlcli.text import join_names, name_problem, quote


def fit_label_lists(table: Table, name: str, train: Rows, labels: Sequence[str] | None = None) -> TargetSpec:
    """Fit the specification of a multilabel target on the training rows.

    Args:
        table: the table; a list is spelled as JSON (see `arrow_tables`).
        name: name of the column.
        train: rows of the training split.
        labels: names of the labels; None for those that occur in the training rows, sorted.

    Returns:
        The specification.

    Raises:
        ConfigError: no label occurs in the training rows.
    """
    cells = table.columns[name]
    if labels is None:
        labels = sort_values({label for value in cells.list_values(train) for label in json.loads(value)})
        if faulty := [(label, why) for label in labels if (why := name_problem(label))]:
            raise ConfigError(table.locate(f"the label {quote(faulty[0][0])} of target {name!r} {faulty[0][1]}"))
    if not labels:
        raise ConfigError(table.locate(f"target {name!r} has no label in the training rows"))
    return TargetSpec("multilabel", len(labels), tuple(labels), cells.has_missing)


def encode_label_lists(table: Table, name: str, target: TargetSpec) -> Tensor:
    """Encode lists of labels.

    Args:
        table: the table.
        name: name of the column.
        target: specification of the target.

    Returns:
        float32 [N, size]: 1 for the labels in the list, 0 for others; NaN for a missing list.

    Raises:
        ConfigError: a label is not one of the target's.
    """
    cells, classes = table.columns[name], target.classes or ()
    positions = {label: at for at, label in enumerate(classes)}
    encoded = np.zeros((len(cells.values), len(classes)), np.float32)
    for at, value in enumerate(cells.values):
        if value is None:
            encoded[at] = np.nan
            continue
        for label in json.loads(value):
            if label not in positions:
                raise ConfigError(
                    table.locate(
                        f"target {name!r} has the label {quote(label)}, which is not among those of the training "
                        f"rows: {join_names(list(classes))}.{suggest(label, classes)}",
                        cells.rows([at]),
                    )
                )
            encoded[at, positions[label]] = 1
    return torch.from_numpy(cells.spread(encoded))
