"""The examples of one split: inputs, in memory or read one at a time, and targets."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Protocol

import torch
from torch import Tensor

from mtlcli.error_origin import described
from mtlcli.errors import ConfigError, InterruptedRunError, MtlError


class LazyInputs(Protocol):
    """Inputs that are read one at a time (image files): `inputs[i]` is a raw tensor of the dataset's input shape."""

    def __len__(self) -> int: ...
    def __getitem__(self, row: int) -> Tensor: ...


@dataclass(frozen=True)
class Examples:
    """The examples of one split.

    inputs: [N, *input_shape] in memory (uint8 for images), or read lazily. Splits carved from one another share it.
    targets: by name, [N] or [N, size], as `TargetSpec` says.
    rows: [n] int64, the rows of `inputs` and `targets` that belong to this split, in order; None: all.
    """

    inputs: Tensor | LazyInputs
    targets: dict[str, Tensor]
    rows: Tensor | None = None

    def __len__(self) -> int:
        return len(self.inputs) if self.rows is None else len(self.rows)

    def labels(self, target: str) -> Tensor:
        """The labels of a target for the examples of this split: [n] or [n, size]."""
        return self.targets[target] if self.rows is None else self.targets[target][self.rows]


class ConcatExamples:
    """Examples of several parts, one part after the other, read one at a time."""

    def __init__(self, parts: Sequence[Examples]) -> None:
        self.parts = parts
        self.starts = [0, *accumulate(map(len, parts))]

    def __len__(self) -> int:
        return self.starts[-1]

    def __getitem__(self, row: int) -> Tensor:
        at = bisect_right(self.starts, row) - 1
        part, row = self.parts[at], row - self.starts[at]
        return part.inputs[row if part.rows is None else int(part.rows[row])]


def concat_examples(parts: Sequence[Examples]) -> Examples:
    """The examples of several splits as one. Those that share their inputs still do."""
    first = parts[0]
    if len(parts) == 1:
        return first
    if all(part.inputs is first.inputs and part.rows is not None for part in parts):
        rows = torch.cat([part.rows for part in parts if part.rows is not None])
        return Examples(first.inputs, first.targets, rows.sort().values)
    chosen = [part.rows if part.rows is not None else torch.arange(len(part.inputs)) for part in parts]
    targets = {
        name: torch.cat([part.targets[name][rows] for part, rows in zip(parts, chosen, strict=True)])
        for name in first.targets
    }
    inputs: list[Tensor] = []
    for part, rows in zip(parts, chosen, strict=True):
        if not isinstance(part.inputs, Tensor):
            return Examples(ConcatExamples(parts), targets)
        inputs.append(part.inputs[rows])
    return Examples(torch.cat(inputs), targets)


@contextmanager
def naming(alias: str) -> Iterator[None]:
    """Raise an MtlError of dataset `alias` again with the key `datasets.<alias>`; a signal is passed on."""
    key = f"datasets.{alias}"
    try:
        yield
    except InterruptedRunError:
        raise
    except ConfigError as error:
        problems = [one if one.path or one.mark else replace(one, path=key) for one in error.problems]
        raise ConfigError(problems) from error
    except MtlError as error:
        if str(error).startswith(f"{key}: "):
            raise
        raise MtlError("\n".join(f"{key}: {line}" for line in str(error).splitlines())) from error


@contextmanager
def reading(alias: str) -> Iterator[None]:
    """Like `naming`, also of what the dataset's own code raises while its examples are read.

    A lack of memory is passed on.
    """
    with naming(alias):
        try:
            yield
        except (MtlError, MemoryError, torch.OutOfMemoryError):
            raise
        except Exception as error:
            if "can't allocate memory" in str(error):
                raise
            raise MtlError(unreadable(error)) from error


def unreadable(error: Exception) -> str:
    """One line for an exception of a dataset's own code."""
    return f"the examples can't be read: {described(error)}"
