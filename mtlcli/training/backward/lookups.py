"""Gradients by the rows of embedding tables that a step uses."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, Node


def find_lookups(nodes: Iterable[Node], parameters: Iterable[Tensor]) -> dict[int, list[Node]]:
    """Find the parameters that operations use as embedding tables only.

    Args:
        nodes: Nodes of a graph.
        parameters: Leaves of the graph.

    Returns:
        Identity of a table → the nodes of the lookups in it. A parameter that any other operation uses has no entry.
    """
    lookups: dict[int, list[Node]] = {id(parameter): [] for parameter in parameters}
    for node in nodes:
        for following, _ in node.next_functions:
            identity = id(getattr(following, "variable", None))
            if identity not in lookups:
                continue
            if node.name() == "EmbeddingBackward0" and not (node._saved_scale_grad_by_freq or node._saved_sparse):  # type: ignore[attr-defined]
                lookups[identity].append(node)
            else:
                del lookups[identity]
    return {identity: listed for identity, listed in lookups.items() if listed}


class CompactTable:
    """Gradients by the rows of an embedding table that some lookups take; those by all other rows are zero.

    A slot for each lookup of a row is enough memory, and its number is known without waiting for the device. All
    lookups of a row share a slot, so that inner products of these gradients are those by the whole table.

    Args:
        table: The table, shape [V, F].
        lookups: Nodes of the lookups.

    Attributes:
        size: Number of slots, n.
        stand_in: Tensor without memory, of the shape of the gradients [n, F].
    """

    def __init__(self, table: Tensor, lookups: Sequence[Node]) -> None:
        indices = [lookup._saved_indices for lookup in lookups]  # type: ignore[attr-defined]
        self.size = sum(index.numel() for index in indices)
        self.stand_in = torch.empty(self.size, table.shape[1], dtype=table.dtype, device="meta")
        slots = _number_distinct(torch.cat([index.flatten() for index in indices]))
        parts = torch.split(slots, [index.numel() for index in indices])
        self._slots: dict[Node, Tensor] = {}
        for lookup, index, part in zip(lookups, indices, parts, strict=True):
            is_padding = index == _padding(lookup)
            self._slots[lookup] = torch.where(is_padding, self.size, part.view_as(index))

    def gradient(self, gradients: Iterable[tuple[Node, Tensor | None]]) -> Tensor | None:
        """Return the gradient by the slots, shape [n, F].

        Args:
            gradients: Lookups and the gradients by their outputs; None counts as zero.

        Returns:
            The gradient; None if all are.
        """
        total: Tensor | None = None
        for lookup, gradient in gradients:
            if gradient is not None:
                slots = self._slots[lookup]  # that of the padding, which has no gradient, is the last one
                rows = torch.ops.aten.embedding_dense_backward(gradient, slots, self.size + 1, self.size, False)
                total = rows[:-1] if total is None else total + rows[:-1]
        return total


def output_edge(lookup: Node) -> GradientEdge:
    """Return the place in the graph at which the gradient by the output of a lookup arrives."""
    return GradientEdge(lookup, 0)


def _padding(lookup: Node) -> int:
    index: int = lookup._saved_padding_idx  # type: ignore[attr-defined]
    return index if index < 2**63 else -1  # -1, for none, is read as an unsigned number


def _number_distinct(values: Tensor) -> Tensor:
    """Replace the distinct values of a vector by numbers from 0 on, without waiting for the device."""
    ordered, order = values.sort()
    is_new = torch.zeros_like(ordered)
    is_new[1:] = ordered[1:] != ordered[:-1]
    return torch.empty_like(values).scatter_(0, order, is_new.cumsum(0))
