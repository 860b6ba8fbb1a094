"""Pieces of a stream: the values of some examples, as tensors on the host."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from mtlcli.data.examples import DeriveLabels
from mtlcli.data.formats.set_images import Decoder
from mtlcli.data.streams.row_stream import ROW, Block
from mtlcli.data.streams.set_rows import INPUTS, TARGET

Piece = dict[str, Tensor]  # INPUTS, WEIGHTS, and TARGET with a name → values of n examples


@dataclass(frozen=True)
class PieceMaker:
    """Converts blocks of rows to pieces.

    Attributes:
        decode: decoder of images; None for features.
        derived: name of a further target → function that computes its labels from the others.
    """

    decode: Decoder | None
    derived: Mapping[str, DeriveLabels] = field(default_factory=dict)

    def convert(self, block: Block) -> Piece:
        """Convert a block of rows, and decode its images."""
        piece = self.convert_labels(block)
        inputs = block[INPUTS]
        decode = self.decode
        piece[INPUTS] = torch.from_numpy(inputs) if decode is None else decode(inputs.tolist(), block[ROW].tolist())
        return piece

    def convert_labels(self, block: Block) -> Piece:
        """Convert the targets and weights of a block, and compute the derived targets."""
        piece = {name: torch.from_numpy(values) for name, values in block.items() if name not in (ROW, INPUTS)}
        if self.derived:
            labels = {name.removeprefix(TARGET): own for name, own in piece.items() if name.startswith(TARGET)}
            piece |= {TARGET + name: derive(labels) for name, derive in self.derived.items()}
        return piece
