"""Examples of a split: inputs, in memory or read lazily, and targets."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import accumulate
from typing import Any, Protocol

import torch
from torch import Tensor

from mtlcli.data.formats.text_rows import TextRows
from mtlcli.data.formats.token_rows import TokenRows
from mtlcli.error_origin import describe_error
from mtlcli.errors import ConfigError, InterruptedRunError, MtlError
from mtlcli.specs import IGNORE_INDEX


class LazyInputs(Protocol):
    """Inputs that are read one at a time, such as image files: `inputs[i]` is a raw tensor [*input_shape]."""

    def __len__(self) -> int: ...
    def __getitem__(self, row: int) -> Tensor: ...


DeriveLabels = Callable[[Mapping[str, Tensor]], Tensor]


@dataclass(frozen=True)
class Examples:
    """Examples of one split.

    Args:
        inputs: [N, *input_shape] in memory (uint8 for images), or lazy. Splits drawn from one another share them.
        targets: name → labels [N] or [N, size], as `TargetSpec` defines them.
        rows: int64 [n], the rows of `inputs`, `targets` and `weights` in this split, in order; None for all.
        weights: weights of the examples in the losses and metrics, finite and at least 0, float32 [N]; None for equal
            weights.
        maps: name → targets with a value for each pixel, [N, H, W] or [N, C, H, W] in memory, or lazy, in the form in
            which `mtlcli.specs` says that they are stored.
    """

    inputs: Tensor | LazyInputs
    targets: dict[str, Tensor]
    rows: Tensor | None = None
    weights: Tensor | None = None
    maps: dict[str, Tensor | LazyInputs] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.inputs) if self.rows is None else len(self.rows)

    def labels(self, target: str) -> Tensor:
        """Return the labels of a target for the examples of this split.

        Args:
            target: name of the target.

        Returns:
            [n] or [n, size].
        """
        return self.targets[target] if self.rows is None else self.targets[target][self.rows]

    def sample_weights(self) -> Tensor | None:
        """Return the weights of the examples of this split, [n]; None for equal weights."""
        return self.weights if self.weights is None or self.rows is None else self.weights[self.rows]

    def iterate_maps(self, target: str, size: int) -> Iterator[Tensor]:
        """Iterate over the maps of a target for the examples of this split, in chunks.

        Args:
            target: name of the target.
            size: largest number of maps in a chunk.

        Yields:
            The maps as they are stored, [n, H, W] or [n, C, H, W].
        """
        maps = self.maps[target]
        rows = torch.arange(len(maps)) if self.rows is None else self.rows
        for chunk in torch.split(rows, size):
            yield maps[chunk] if isinstance(maps, Tensor) else torch.stack([maps[row] for row in chunk.tolist()])

    def with_labels(self, derived: Mapping[str, DeriveLabels]) -> Examples:
        """Return the examples with further targets, which are computed from the others.

        Args:
            derived: name → function of the targets, name → labels [N] or [N, size], that returns labels.

        Returns:
            The examples.
        """
        further = {name: derive(self.targets) for name, derive in derived.items()}
        return replace(self, targets={**self.targets, **further})


class StreamedExamples(Examples):
    """Examples of a split that can only be read in sequence.

    `inputs[row]` and `labels` read the data from its beginning, and `targets` is empty.
    """

    def copy_rows(self, rows: Tensor) -> Examples:
        """Copy some examples to memory, in one pass over the data.

        Args:
            rows: increasing positions of the examples in the split, int64 [n].

        Returns:
            The examples.
        """
        raise NotImplementedError

    def first_texts(self, amount: int) -> TextRows:
        """Read the first texts of the split.

        Args:
            amount: maximum number of examples.

        Returns:
            Their texts.
        """
        raise NotImplementedError

    def tokenized(self, tokenize: Callable[[TextRows], TokenRows]) -> Examples:
        """Return the examples with tokens as inputs, for a split of texts.

        Args:
            tokenize: tokenizes the texts of some examples.

        Returns:
            The examples.
        """
        raise NotImplementedError

    def make_loader(
        self,
        alias: str,
        tasks: Mapping[str, tuple[str, str]],
        seed: int,
        placement: Any,
        augment: Sequence[str | dict[str, Any]],
        class_weights: Mapping[str, Any] | None,
    ) -> Any:
        """Make the loader of the examples, which has the methods of `DatasetLoader`.

        Args:
            alias: alias of the dataset.
            tasks: task → (alias, target), for all tasks of the experiment.
            seed: seed of the order and the augmentation of the examples.
            placement: `Placement` of the batches.
            augment: transforms of `torchvision.transforms.v2`, see `Augmentation`.
            class_weights: task → weight of each class in the loss, [K], for tasks with such weights.

        Returns:
            The loader, a `StreamLoader`.
        """
        raise NotImplementedError


class ConcatExamples:
    """Lazy concatenation of the inputs, or of the maps of a target, of several splits.

    Args:
        splits: the splits, in order.
        target: name of the target whose maps are concatenated; None for the inputs.
    """

    def __init__(self, splits: Sequence[Examples], target: str | None = None) -> None:
        self.splits, self.target = splits, target
        self.starts = [0, *accumulate(map(len, splits))]

    def __len__(self) -> int:
        return self.starts[-1]

    def __getitem__(self, row: int) -> Tensor:
        at = bisect_right(self.starts, row) - 1
        split, row = self.splits[at], row - self.starts[at]
        source = split.inputs if self.target is None else split.maps[self.target]
        return source[row if split.rows is None else int(split.rows[row])]


def concat_examples(splits: Sequence[Examples]) -> Examples:
    """Concatenate the examples of several splits. Splits that share their inputs still do.

    Args:
        splits: at least one split; all have the same targets, and all or none have weights.

    Returns:
        Their examples.
    """
    first = splits[0]
    if len(splits) == 1:
        return first
    if all(split.inputs is first.inputs and split.rows is not None for split in splits):
        rows = torch.cat([split.rows for split in splits if split.rows is not None])
        return Examples(first.inputs, first.targets, rows.sort().values, first.weights, first.maps)
    chosen = [split.rows if split.rows is not None else torch.arange(len(split.inputs)) for split in splits]
    targets = {
        name: concat_labels([split.targets[name][rows] for split, rows in zip(splits, chosen, strict=True)])
        for name in first.targets
    }
    each = [split.sample_weights() for split in splits]
    weights = torch.cat([w for w in each if w is not None]) if each[0] is not None else None
    maps = {name: _concat(splits, chosen, name) for name in first.maps}
    pairs = zip(splits, chosen, strict=True)
    texts = [split.inputs.select(rows.numpy()) for split, rows in pairs if isinstance(split.inputs, TextRows)]
    if texts:
        return Examples(texts[0].join(texts[1:]), targets, weights=weights, maps=maps)
    return Examples(_concat(splits, chosen), targets, weights=weights, maps=maps)


def _concat(splits: Sequence[Examples], chosen: Sequence[Tensor], target: str | None = None) -> Tensor | LazyInputs:
    """Concatenate the inputs of the chosen rows, or the maps of a target; lazily unless all are in memory."""
    values: list[Tensor] = []
    for split, rows in zip(splits, chosen, strict=True):
        source = split.inputs if target is None else split.maps[target]
        if not isinstance(source, Tensor):
            return ConcatExamples(splits, target)
        values.append(source[rows])
    return torch.cat(values)


def concat_labels(labels: Sequence[Tensor]) -> Tensor:
    """Concatenate labels; those of words are padded to the largest number of words by missing ones.

    Args:
        labels: labels of one target, [N], [N, size] or [N, W] each.

    Returns:
        The labels.
    """
    if labels[0].ndim == 2 and len({rows.shape[1] for rows in labels}) > 1:
        width = max(rows.shape[1] for rows in labels)
        labels = [torch.nn.functional.pad(rows, (0, width - rows.shape[1]), value=IGNORE_INDEX) for rows in labels]
    return torch.cat(list(labels))


@contextmanager
def locate_dataset_errors(alias: str) -> Iterator[None]:
    """Add the key `datasets.<alias>` to each MtlError raised inside the context.

    Args:
        alias: alias of the dataset.

    Raises:
        ConfigError: the error with the key.
        MtlError: the error with the key.
        InterruptedRunError: unchanged.
    """
    key = f"datasets.{alias}"
    try:
        yield
    except InterruptedRunError:
        raise
    except ConfigError as error:
        problems = [p if p.path or p.mark else replace(p, path=key) for p in error.problems]
        raise ConfigError(problems) from error
    except MtlError as error:
        if str(error).startswith(f"{key}: "):
            raise
        raise MtlError("\n".join(f"{key}: {line}" for line in str(error).splitlines())) from error


@contextmanager
def wrap_read_errors(alias: str) -> Iterator[None]:
    """Convert exceptions of a dataset's own code into MtlError, with the key `datasets.<alias>`.

    Args:
        alias: alias of the dataset.

    Raises:
        MtlError: the examples can't be read.
        MemoryError: unchanged.
        torch.OutOfMemoryError: unchanged.
        Exception: another error due to a lack of memory, unchanged.
    """
    with locate_dataset_errors(alias):
        try:
            yield
        except (MtlError, MemoryError, torch.OutOfMemoryError):
            raise
        except Exception as error:
            if "can't allocate memory" in str(error):
                raise
            raise MtlError(describe_read_error(error)) from error


def describe_read_error(error: Exception) -> str:
    """Describe an exception of a dataset's own code in one line."""
    return f"the examples can't be read: {describe_error(error)}"
