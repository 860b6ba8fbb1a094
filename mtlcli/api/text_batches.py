"""Texts that users pass to a trained model: their conversion, and predictions in the order of the inputs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mtlcli.data.base import Dataset
from mtlcli.data.formats.row_encoding import is_rows, select_cells
from mtlcli.data.formats.text_rows import TextRows
from mtlcli.data.formats.token_rows import TokenRows
from mtlcli.data.formats.tokenization import TextTokenizer
from mtlcli.errors import ConfigError, InputError
from mtlcli.text_spec import TextSpec

WINDOW = 16  # batches of predictions whose texts are sorted by length together


def tokenize_texts(
    value: Any, tokenizer: TextTokenizer, texts: TextSpec, dataset: Dataset, others: Collection[str]
) -> TokenRows:
    """Convert texts to tokens.

    Args:
        value: A sequence of N texts, or of pairs of texts; lists of words in place of texts if the dataset has them; or
            rows with the text columns, see `encode_rows`.
        tokenizer: The tokenizer of the model.
        texts: Description of the texts.
        dataset: The dataset of the model.
        others: Names of further columns that rows may have.

    Returns:
        The tokens of N examples.

    Raises:
        InputError: The value has another form.
    """
    columns = select_cells(value, texts.columns, others) if is_rows(value) else _columns(value, texts)
    if not columns[0]:
        raise InputError("expected at least one example, got none")
    clean = _clean_words if texts.words else _clean_cell if texts.prompt is not None else _clean
    rows = TextRows([
        [clean(cell, dataset.missing, f"{name} of example {row}") for row, cell in enumerate(column)]
        for name, column in zip(texts.columns, columns, strict=True)
    ])  # fmt: skip
    return tokenize_rows(rows, tokenizer, texts)


def tokenize_rows(rows: TextRows, tokenizer: TextTokenizer, texts: TextSpec) -> TokenRows:
    """Tokenize texts; InputError for a problem of the tokenizer."""
    try:
        return tokenizer.tokenize(rows, texts)
    except ConfigError as error:
        raise InputError(str(error)) from error


def _columns(value: Any, texts: TextSpec) -> list[list[Any]]:
    value = value.tolist() if hasattr(value, "tolist") and not isinstance(value, Tensor) else value
    if len(texts.columns) > 2:
        raise InputError(f"expected rows with the columns {', '.join(texts.columns)}, got {type(value).__name__}")
    expected = "a list of texts" if len(texts.columns) == 1 else "a list of pairs of texts"
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise InputError(f"expected {expected}, got {type(value).__name__}")
    if len(texts.columns) == 1:
        return [list(value)]
    for row, pair in enumerate(value):
        if isinstance(pair, str) or not isinstance(pair, Sequence) or len(pair) != 2:
            raise InputError(
                f"expected {expected} ({' and '.join(texts.columns)}), but example {row} is {_shorten(repr(pair))}"
            )
    return [[pair[at] for pair in value] for at in (0, 1)]


def _clean(cell: Any, missing: Collection[str], what: str) -> str | None:
    """Return a text as it is read from a file."""
    if cell is None or cell != cell or type(cell).__name__ == "NAType":
        return None
    if not isinstance(cell, str):
        raise InputError(f"{what}: expected a text, got {_shorten(repr(cell))}")
    text = cell.strip()
    return None if text in missing else text


def _clean_cell(cell: Any, missing: Collection[str], what: str) -> str | None:
    """Return a cell of a prompt, which can be a number."""
    numeric = isinstance(cell, int | float) and cell == cell
    return _clean(str(cell) if numeric else cell, missing, what)


def _clean_words(cell: Any, missing: Collection[str], what: str) -> list[str] | None:
    if cell is None:
        return None
    words = cell.split() if isinstance(cell, str) else cell
    if not isinstance(words, Sequence) or not all(isinstance(word, str) for word in words):
        raise InputError(f"{what}: expected a list of words, got {_shorten(repr(cell))}")
    return list(words)


def _shorten(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:60]}…"


def compute_in_order(
    tokens: TokenRows, size: int, compute: Callable[[Tensor], Mapping[str, Tensor]]
) -> dict[str, Tensor]:
    """Compute on batches of texts of similar length, and return the results in the order of the texts.

    Args:
        tokens: N examples.
        size: Number of examples in a batch.
        compute: Function of a batch of raw inputs, which returns name → results [B, …].

    Returns:
        Name → results, [N, …]; NaN where one of a sequence is shorter than the others.
    """
    order = np.argsort(-tokens.lengths, kind="stable")
    parts: dict[str, list[Tensor]] = {}
    for start in range(0, len(order), size):
        for name, result in compute(tokens.batch(order[start : start + size])).items():
            parts.setdefault(name, []).append(result)
    inverse = torch.from_numpy(np.argsort(order, kind="stable"))
    return {name: _concat(results)[inverse] for name, results in parts.items()}


def _concat(results: Sequence[Tensor]) -> Tensor:
    longest = max(result.shape[1] for result in results) if results[0].ndim == 3 else 0
    if longest:
        results = [
            torch.nn.functional.pad(result, (0, 0, 0, longest - result.shape[1]), value=torch.nan) for result in results
        ]
    return torch.cat(list(results))
