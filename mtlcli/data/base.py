"""Base class of datasets."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch

from mtlcli.data.augmentation import Augmentation, check_transforms
from mtlcli.data.checkpoint_spec import restore_spec
from mtlcli.data.content_hash import Hashes, hash_examples
from mtlcli.data.download.collection import Collection
from mtlcli.data.examples import Examples, LazyInputs, concat_examples
from mtlcli.data.fingerprint import DataRecord, Fingerprint, Rule, to_hex_keys
from mtlcli.data.formats.column_encoding import TrainingTable
from mtlcli.data.formats.column_report import TableReport, Unseen
from mtlcli.data.formats.numerals import Notation
from mtlcli.data.splitting import Mask, add_val_split, draw_val, group_copies
from mtlcli.errors import ConfigError
from mtlcli.specs import Column, DatasetSpec, TargetSpec


class Dataset(ABC):
    """Base class of datasets: a description of the data, and its examples by split.

    A subclass implements `describe` and `read`, and overrides other methods where the defaults don't fit.

    Raises an OptionError if an entry of `augment` names an unknown transform or has invalid arguments.

    Args:
        val: share of the training examples that becomes the split `val`, drawn by seed, if the data has no such split
            of its own; 0 for no split `val`. An example's membership depends on its content (see `splitting`), or on
            its position if the data is `fixed` or not in memory.
        augment: transforms of `torchvision.transforms.v2` by name, drawn anew for each example of the split `train`.

    Attributes:
        origin: source of the data in a few words, for `mtl data list`.
        collection: files to download, or None if none are needed.
        made_of: names of the datasets from whose files this one is composed.
        value_range: smallest and largest possible value of an input, if bounded.
        fixed: True for published data whose examples and order never change.
        notation: notation of numbers and dates, if the inputs are rows of a table.
        missing: cells of a table that mean a missing value.
        record: record of the data that a checkpoint was trained on; None during training.
    """

    origin: ClassVar[str] = "local files"
    collection: ClassVar[Collection | None] = None
    made_of: ClassVar[tuple[str, ...]] = ()
    value_range: ClassVar[tuple[int, int] | None] = None
    fixed: ClassVar[bool] = False
    notation: Notation = Notation()
    missing: Sequence[str] = ()
    record: DataRecord | None = None

    def __init__(self, *, val: float = 0.0, augment: list[str | dict[str, Any]] | None = None) -> None:
        self.val = val
        self.augment = augment or []
        if self.augment:
            check_transforms(self.augment)
        self._read: dict[str, Examples] = {}
        self._hashed: dict[str, Hashes | None] = {}
        self._val: dict[int, Mask] = {}  # seed → mask of the training examples in `val`
        self._kept: dict[str, frozenset[int]] = {}  # drawn split → keys excluded so that every class stays in training

    def attach(self, data: object) -> None:
        """Take the data that was passed from Python for this dataset.

        Args:
            data: Arrays, tensors or a `torch.utils.data.Dataset`, see the dataset `in_memory`.

        Raises:
            ConfigError: The dataset reads its own data.
        """
        raise ConfigError(
            "data was passed from Python for this dataset, which reads its own; write `name: in_memory`, or leave the "
            "entry out"
        )

    @abstractmethod
    def describe(self) -> DatasetSpec:
        """Describe the dataset (shapes, targets, statistics), reading no more data than necessary.

        Returns:
            The specification of the dataset.

        Raises:
            ConfigError: a file is missing or invalid.
        """

    def fit(self) -> None:  # noqa: B027  (optional)
        """Fit what `describe` returns to data that may have to be downloaded; otherwise, that is preliminary."""

    @abstractmethod
    def read(self, split: str) -> Examples:
        """Read one of the data's own splits, downloading missing files if the dataset supports it.

        Args:
            split: one of `own_splits`.

        Returns:
            The examples of the split.
        """

    def notes(self) -> list[str]:
        """List what the user should know before training, one sentence each; called after `describe` or `restore`."""
        return []

    def preparation(self) -> str | None:
        """Describe how stored data becomes an input, for users of an exported model; None if nothing is done."""
        return None

    def check_files(self, most: int | None = None) -> list[str]:
        """Check files that are read one at a time, such as images. The default checks nothing.

        Args:
            most: maximum number of files to check, by their beginnings and ends only; None checks all files in full.

        Returns:
            One line for each invalid file.
        """
        return []

    def restore(self, spec: DatasetSpec) -> DatasetSpec:
        """Use the encoding (such as vocabularies) fitted when a checkpoint was trained, instead of fitting a new one.

        Raises a ConfigError if the data doesn't match the checkpoint.

        Args:
            spec: specification stored in the checkpoint.

        Returns:
            The specification adapted to the current data, see `restore_spec`.
        """
        return restore_spec(spec, self.describe())

    def report(self) -> TableReport | None:
        """Report on a table's columns, after `describe` or `restore`; None for other datasets."""
        return None

    def unseen(self, examples: Examples) -> Mapping[str, Unseen]:
        """Count missing and unknown values of a table in the given examples.

        Args:
            examples: examples read from this dataset.

        Returns:
            Column → counts; columns without such values are omitted.
        """
        return {}

    def column_source(self) -> TrainingTable | None:
        """Return the table on which columns can be fitted jointly with other datasets, or None."""
        return None

    def use_columns(self, columns: tuple[Column, ...]) -> DatasetSpec:
        """Encode the inputs by columns fitted jointly with other datasets.

        Args:
            columns: columns fitted on the `column_source` of several datasets.

        Returns:
            The specification with these columns.

        Raises:
            NotImplementedError: the dataset has no `column_source`; a subclass that has one overrides this method too.
        """
        raise NotImplementedError

    def type_hint(self, target: str, spec: TargetSpec) -> str:
        """Suggest how to change a target's type, for the error of a task kind that doesn't support it.

        Args:
            target: name of the target.
            spec: its specification.

        Returns:
            One sentence, or "".
        """
        return ""

    def check_augment(self, spec: DatasetSpec) -> None:
        """Check `augment` on a blank example: uint8 if `input_shape` has three dimensions, float32 otherwise.

        Override for inputs of another type.

        Raises a ValueError if a transform fails, changes the example's shape or type, or can't transform maps.

        Args:
            spec: specification of the dataset; of targets that are maps, those of tasks.
        """
        if self.augment:
            dtype = torch.uint8 if len(spec.input_shape) == 3 else torch.float32
            Augmentation(self.augment, targets=spec.targets).check(torch.zeros(spec.input_shape, dtype=dtype))

    def examples(self, split: str, seed: int) -> Examples:
        """Return the examples of a split, drawing `val` from `train` if the data has no such split.

        Args:
            split: name of the split, or `all` for the examples of all splits.
            seed: seed by which `val` is drawn.

        Returns:
            The examples; `train` and a drawn `val` share their inputs.

        Raises:
            ConfigError: the dataset has no such split, or the split would be empty.
        """
        if split == "all":
            return self.whole()
        own = self.own_splits()
        offered = add_val_split(own, self.val)
        if split not in offered:
            why = " (its option `val` is 0)" if split == "val" else ""
            raise ConfigError(f"the dataset has no split {split!r}{why}; its splits are: {', '.join(offered)}")
        if offered == own or split == "test":
            return self._read_split(split)
        whole = self._read_split("train")
        if seed not in self._val:
            keys = None if self._rule() == "position" else self.keys("train")
            excluded = frozenset() if self.record is None else self.record.kept_keys("val")
            drawn = draw_val(whole, self.val, seed, keys, excluded)
            self._val[seed] = drawn.chosen
            if keys is not None:
                self._kept["val"] = drawn.kept
        chosen = torch.from_numpy(self._val[seed] if split == "val" else ~self._val[seed]).nonzero().flatten()
        rows = chosen if whole.rows is None else whole.rows[chosen]
        return Examples(whole.inputs, whole.targets, rows, whole.weights, whole.maps)

    def whole(self) -> Examples:
        """Return the examples of all splits."""
        return concat_examples([self._read_split(split) for split in self.own_splits()])

    def hashes(self, split: str) -> Hashes | None:
        """Hash the content of each example of `read(split)`.

        Override if the hashes can be computed otherwise.

        Args:
            split: one of `own_splits`.

        Returns:
            uint64 [N], or None if the inputs aren't in memory.
        """
        if split not in self._hashed:
            self._hashed[split] = hash_examples(self._read_split(split))
        return self._hashed[split]

    def all_hashes(self) -> Hashes | None:
        """Return the hashes of `whole()`, uint64 [N], or None if the inputs aren't in memory."""
        splits = [self.hashes(split) for split in self.own_splits()]
        hashed = [hashes for hashes in splits if hashes is not None]
        return np.concatenate(hashed) if hashed and len(hashed) == len(splits) else None

    def keys(self, split: str) -> Hashes | None:
        """Return the keys, uint64 [N], that decide which examples of a split are drawn; None if their positions do."""
        hashes = self.hashes(split)
        return None if hashes is None else group_copies(hashes)

    def recorded(self) -> DataRecord:
        """Record the current data for a checkpoint. Reads all splits."""
        prints = {}
        for split in self.own_splits():
            hashes = self.hashes(split)
            prints[split] = Fingerprint(len(self._read_split(split))) if hashes is None else Fingerprint.of(hashes)
        return DataRecord(self._rule(), self.hashed_columns(), to_hex_keys(self._kept), prints)

    def draws_test(self) -> bool:
        """Return True if `test` is drawn rather than a split of the data itself."""
        return False

    def hashed_columns(self) -> tuple[str, ...] | None:
        """Return the columns of a table whose cells are hashed; None for other datasets."""
        return None

    def _rule(self) -> Rule:
        if self.record is not None:
            return self.record.rule
        return "position" if self.fixed or self.keys("train") is None else "content"

    def own_splits(self) -> tuple[str, ...]:
        """Return the splits that the data itself has."""
        return ("train", "test")

    def _read_split(self, split: str) -> Examples:
        """Read a split once, so that splits drawn from it share its inputs."""
        if split not in self._read:
            examples = self.read(split)
            if len(examples) == 0:
                raise ConfigError(f"the split {split!r} has no examples")
            self._read[split] = examples
        return self._read[split]


__all__ = ["Dataset", "Examples", "LazyInputs", "add_val_split"]
