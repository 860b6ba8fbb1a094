"""Tags of words as tags of tokens."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from mtlcli.data.formats.token_rows import TokenRows
from mtlcli.data.samplers.base import Rows
from mtlcli.specs import IGNORE_INDEX


def find_first_tokens(tokens: TokenRows) -> tuple[Rows, Rows, Rows]:
    """Find the first token (sub-word) of each word that isn't truncated.

    Args:
        tokens: examples that are divided into words.

    Returns:
        Example, position in it, and number of the word, int64 [words] each.
    """
    assert tokens.words is not None
    starts = tokens.starts.cpu().numpy()
    rows = np.repeat(np.arange(len(tokens)), np.diff(starts))
    positions = np.arange(len(rows)) - starts[rows]
    numbers = tokens.words.numbers
    before = np.concatenate([[-1], numbers[:-1]])
    before[starts[:-1]] = -1
    first = np.flatnonzero((numbers >= 0) & (numbers != before))
    return rows[first], positions[first], numbers[first].astype(np.int64)


def align_tags(tags: Tensor, tokens: TokenRows) -> Tensor:
    """Give the first token of each word its tag.

    Args:
        tags: tags of the words, int64 [N, W].
        tokens: the tokens of the same examples.

    Returns:
        int64 [N, L], where L is the number of tokens of the longest example; IGNORE_INDEX for all other tokens.
    """
    rows, positions, words = find_first_tokens(tokens)
    present = words < tags.shape[1]  # a row without tags may have more words
    rows, positions, words = rows[present], positions[present], words[present]
    aligned: np.ndarray[Any, Any] = np.full((len(tokens), int(tokens.lengths.max(initial=1))), IGNORE_INDEX)
    aligned[rows, positions] = tags.numpy()[rows, words]
    return torch.from_numpy(aligned)


def gather_words(outputs: Tensor, tokens: TokenRows) -> Tensor:
    """Return the outputs of the first token of each word.

    Args:
        outputs: outputs of the tokens, [N, L, outputs].
        tokens: the tokens.

    Returns:
        [N, W, outputs], where W is the largest number of words; NaN for a word that is truncated or has no token, and
        after the last.
    """
    assert tokens.words is not None
    gathered = outputs.new_full((len(outputs), int(tokens.words.counts.max(initial=1)), outputs.shape[2]), torch.nan)
    rows, positions, words = map(torch.from_numpy, find_first_tokens(tokens))
    gathered[rows, words] = outputs[rows, positions]
    return gathered
