"""Pieces of a stream: the values of some examples, as tensors on the host."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import get_worker_info

from mtlcli.data.examples import DeriveLabels
from mtlcli.data.formats.set_images import Decoder
from mtlcli.data.formats.text_rows import TextRows
from mtlcli.data.formats.token_rows import TokenRows
from mtlcli.data.formats.tokenization import PARALLEL
from mtlcli.data.streams.row_stream import ROW, Block
from mtlcli.data.streams.set_rows import INPUTS, TARGET

Piece = dict[str, Tensor]  # INPUTS, WEIGHTS, and TARGET with a name → values of n examples


@dataclass(frozen=True)
class PieceMaker:
    """Converts blocks of rows to pieces.

    Attributes:
        decode: decoder of images; None for features.
        tokenize: tokenizer of texts, which are the inputs; None for other inputs.
        derived: name of a further target → function that computes its labels from the others.
    """

    decode: Decoder | None
    tokenize: Callable[[TextRows], TokenRows] | None = None
    derived: Mapping[str, DeriveLabels] = field(default_factory=dict)

    def convert(self, block: Block) -> Piece:
        """Convert a block of rows, and decode its images."""
        piece = self.convert_labels(block)
        inputs = block[INPUTS]
        decode = self.decode
        if inputs.dtype == object and decode is None:
            tokens = self.convert_texts(inputs.tolist())
            piece[INPUTS] = tokens.batch(np.arange(len(tokens)))
        else:
            piece[INPUTS] = torch.from_numpy(inputs) if decode is None else decode(inputs.tolist(), block[ROW].tolist())
        return piece

    def convert_texts(self, texts: Sequence[tuple[str | None, ...]]) -> TokenRows:
        """Tokenize the texts of some rows.

        Args:
            texts: the texts of each row.

        Returns:
            The rows as tokens.
        """
        assert self.tokenize is not None
        if get_worker_info() is not None:
            os.environ[PARALLEL] = "false"  # a forked process must not use the threads of its parent
        return self.tokenize(TextRows(list(zip(*texts, strict=True))))

    def convert_labels(self, block: Block) -> Piece:
        """Convert the targets and weights of a block, and compute the derived targets."""
        piece = {name: torch.from_numpy(values) for name, values in block.items() if name not in (ROW, INPUTS)}
        if self.derived:
            labels = {name.removeprefix(TARGET): own for name, own in piece.items() if name.startswith(TARGET)}
            piece |= {TARGET + name: derive(labels) for name, derive in self.derived.items()}
        return piece
