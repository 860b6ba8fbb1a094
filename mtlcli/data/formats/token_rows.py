"""Texts as tokens: a flat array on any device, from which batches are gathered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mtlcli.data.formats.cells import Mask
from mtlcli.data.samplers.base import Rows

PADDING = -1  # after the last token of an example


@dataclass(frozen=True)
class TokenWords:
    """Words of which the tokens are parts, on the host.

    Attributes:
        numbers: word of each token, from 0 in each example, int32 [tokens]; -1 for a special token.
        counts: number of words of each example, truncated ones included, int64 [N].
    """

    numbers: Rows
    counts: Rows


class TokenRows:
    """N examples as tokens, of different lengths.

    Args:
        ids: ids of the tokens of all texts, one text after the other, int32 [tokens].
        types: their types, uint8 [tokens]; None if all are 0.
        starts: position of the first token of each text, and the number of tokens, int64 [N · texts + 1].
        truncated: whether an example was truncated, bool [N].
        texts: number of texts of an example that are encoded one by one.
        words: words of the tokens; None for texts that are not divided into words.

    Attributes:
        lengths: number of tokens of each example, that of its longest text, int64 [N]; on the host.
    """

    def __init__(
        self,
        ids: Tensor,
        types: Tensor | None,
        starts: Tensor,
        truncated: Mask | None = None,
        texts: int = 1,
        words: TokenWords | None = None,
    ) -> None:
        self.ids, self.types, self.starts, self.texts, self.words = ids, types, starts, texts, words
        lengths = starts.diff().cpu().numpy()
        self.lengths: Rows = lengths if texts == 1 else lengths.reshape(-1, texts).max(1)
        self.truncated: Mask = np.zeros(len(self.lengths), bool) if truncated is None else truncated

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, row: int) -> Tensor:
        """Return an example without padding between examples, int32 [2, L] or [texts, 2, L]."""
        return self.gather(torch.tensor([row], device=self.ids.device), int(self.lengths[row]))[0]

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays."""
        return self.ids.nbytes + self.starts.nbytes + (0 if self.types is None else self.types.nbytes)

    def gather(self, rows: Tensor, length: int) -> Tensor:
        """Gather a batch, without synchronization.

        Args:
            rows: examples of the batch, int64 [B], on the device of the tokens.
            length: number of tokens of the longest of them.

        Returns:
            int32 [B, 2, length], or [B, texts, 2, length] if there are several texts; -1 after the end of a text.
        """
        if self.texts > 1:
            rows = (rows[:, None] * self.texts + torch.arange(self.texts, device=rows.device)).flatten()
        first = self.starts[rows]
        at = torch.arange(length, device=rows.device)
        inside = at < (self.starts[rows + 1] - first)[:, None]
        positions = (first[:, None] + at).clamp_(max=max(0, len(self.ids) - 1))
        ids = torch.where(inside, self.ids[positions], PADDING)
        types = inside.to(torch.int32) - 1 if self.types is None else self._types(positions, inside)
        batch = torch.stack([ids, types], 1)
        return batch if self.texts == 1 else batch.view(-1, self.texts, 2, length)

    def batch(self, rows: Rows) -> Tensor:
        """Gather a batch of examples whose numbers are on the host, see `gather`."""
        return self.gather(torch.from_numpy(rows).to(self.ids.device), int(self.lengths[rows].max()))

    def to(self, device: torch.device) -> TokenRows:
        """Return the examples on a device."""
        if self.ids.device == device:
            return self
        types = None if self.types is None else self.types.to(device)
        return TokenRows(self.ids.to(device), types, self.starts.to(device), self.truncated, self.texts, self.words)

    def _types(self, positions: Tensor, inside: Tensor) -> Tensor:
        assert self.types is not None
        return torch.where(inside, self.types[positions].to(torch.int32), PADDING)


def join_tokens(texts: Sequence[Sequence[int]], types: Sequence[Sequence[int]] | None) -> TokenRows:
    """Join texts as lists of tokens.

    Args:
        texts: ids of the tokens of each text.
        types: their types; None if all are 0.

    Returns:
        The examples.
    """
    starts = np.concatenate([[0], np.cumsum([len(text) for text in texts], dtype=np.int64)])
    flat = np.concatenate([np.empty(0, np.int32), *(np.asarray(text, np.int32) for text in texts)])
    kinds = None
    if types is not None:
        kinds = torch.from_numpy(np.concatenate([np.empty(0, np.uint8), *(np.asarray(t, np.uint8) for t in types)]))
    return TokenRows(torch.from_numpy(flat), kinds, torch.from_numpy(starts))
