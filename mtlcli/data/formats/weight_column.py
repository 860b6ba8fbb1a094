"""Column of a table with the weights of its rows."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from mtlcli.data.formats.column_errors import describe_non_numbers, quote_value
from mtlcli.data.formats.numerals import Notation
from mtlcli.data.formats.table_rows import Table
from mtlcli.errors import ConfigError, Problem
from mtlcli.text import quote

LARGEST = 1e30  # weights whose sums stay far below the largest float32


def encode_weights(table: Table, name: str, notation: Notation) -> Tensor:
    """Encode the weights of the rows.

    Args:
        table: the table.
        name: name of the column.
        notation: notation of numbers.

    Returns:
        float32 [N], finite and at least 0.

    Raises:
        ConfigError: a weight is missing, isn't a number, is negative or too large, with its line; or all are 0.
    """
    table.require([name], "weight_column")
    cells = table.columns[name]
    numbers, wrong = cells.numbers(notation, name)
    if wrong:
        raise ConfigError(describe_non_numbers(table, "weight column", name, wrong, notation))
    where, rule = f"the weight column {quote(name)}", f"expected a number from 0 to {LARGEST:g}"
    problems = []
    if rows := cells.rows(np.flatnonzero(np.isnan(numbers)).tolist()):
        problems.append(table.locate(f"a missing weight in {where}, {rule}", rows))
    if rows := cells.rows(np.flatnonzero((numbers < 0) | (numbers > LARGEST)).tolist()):
        problems.append(table.locate(f"the weight {quote_value(cells, rows)} in {where}, {rule}", rows))
    if problems:
        raise ConfigError(map(Problem, problems))
    weights = torch.from_numpy(cells.spread(numbers.astype(np.float32)))
    if not bool((weights > 0).any()):
        raise ConfigError(table.locate(f"all weights in {where} are 0"))
    return weights
