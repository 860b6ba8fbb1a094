"""What every dataset is: a description, and examples by split."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from mtlcli.data.augmentation import Augmentation
from mtlcli.data.download.collection import Collection
from mtlcli.data.examples import Examples, LazyInputs, concat_examples
from mtlcli.data.fingerprint import DataRecord, Fingerprint, Rule, hex_keys
from mtlcli.data.formats.column_encoding import Source
from mtlcli.data.formats.column_report import TableReport, Unseen
from mtlcli.data.splitting import Hashes, Mask, class_codes, draw, draw_by_position, hash_named, hash_rows, with_copies
from mtlcli.errors import ConfigError, OptionError, Problem
from mtlcli.specs import Column, DatasetSpec, Shape, TargetSpec


class Dataset(ABC):
    """Base of all datasets.

    val: share of the training examples that becomes the split `val`, drawn by seed, where the dataset has no such
        split of its own (0: no `val`). What is drawn is a function of the examples' content, see `splitting`; of their
        positions where the data is `fixed` or isn't in memory.
    augment: torchvision `transforms.v2` by name, drawn anew for every example of the split `train`. ValueError for
        one that doesn't exist, or doesn't take the arguments given.
    origin: where the data comes from, in a few words, for `mtl data list`.
    collection: the files, where they can be fetched.
    value_range: the smallest and the largest value that an input can have, where there are such.
    made_of: names of the datasets whose files are its own, where it is made of others.
    fixed: whether it is published data whose examples never change, nor their order.
    record: the data that a checkpoint was trained on; None in a training.
    """

    origin: ClassVar[str] = "files of your own"
    collection: ClassVar[Collection | None] = None
    made_of: ClassVar[tuple[str, ...]] = ()
    value_range: ClassVar[tuple[int, int] | None] = None
    fixed: ClassVar[bool] = False
    record: DataRecord | None = None

    def __init__(self, *, val: float = 0.0, augment: list[str | dict[str, Any]] | None = None) -> None:
        self.val = val
        self.augment = augment or []
        if self.augment:
            try:
                Augmentation(self.augment)
            except OptionError as error:
                raise error.below("augment") from error
        self._read: dict[str, Examples] = {}
        self._hashed: dict[str, Hashes] = {}
        self._val: dict[int, Mask] = {}  # seed → which training examples are set aside
        self._kept: dict[str, frozenset[int]] = {}  # drawn split → keys left out of it for the sake of their classes

    @abstractmethod
    def describe(self) -> DatasetSpec:
        """Shapes, targets and statistics, without reading more than needed. ConfigError for a missing or bad file."""

    @abstractmethod
    def read(self, split: str) -> Examples:
        """The examples of a split the data itself has. Fetches what isn't there, where the dataset can be fetched."""

    def notes(self) -> list[str]:
        """Facts about the data to know before training, in sentences: files that were left out, and the like.

        Asked for after `describe` or `restore`.
        """
        return []

    def preparation(self) -> str | None:
        """Steps from stored data to an input, for users of an exported model; None where there are none."""
        return None

    def check_files(self, most: int | None = None) -> list[str]:
        """Check the files that are read one at a time (image files), and return a line for each fault; none by default.

        most: look at no more of them than that, and only at their beginnings and ends.
        """
        return []

    def restore(self, spec: DatasetSpec) -> DatasetSpec:
        """Take over what was fitted when a checkpoint was trained (vocabularies), instead of fitting it anew.

        spec: as it was then. Returns it as it is for the data at hand, see `adopted`. ConfigError where they don't fit.
        """
        return adopted(spec, self.describe())

    def report(self) -> TableReport | None:
        """The report on a table's columns, after `describe` or `restore`; None for other datasets."""
        return None

    def unseen(self, examples: Examples) -> Mapping[str, Unseen]:
        """Column → the missing and unknown values of these examples, which the dataset gave; of a table."""
        return {}

    def column_source(self) -> Source | None:
        """The table that columns can be fitted on together with other datasets'; None where there is none."""
        return None

    def use_columns(self, columns: tuple[Column, ...]) -> DatasetSpec:
        """Encode the inputs by `columns`, fitted on this dataset's `column_source` and others, from now on.

        Returns the dataset's description with them. To be overridden together with `column_source`.
        """
        raise NotImplementedError

    def type_hint(self, target: str, spec: TargetSpec) -> str:
        """A hint that explains the type of a target or how to change it, for a kind that can't take it; "": none."""
        return ""

    def check_augment(self, spec: DatasetSpec) -> None:
        """ValueError where `augment` can't take a blank example of `spec`: three dimensions are uint8, others float.

        To be overridden by a dataset whose inputs are of another type.
        """
        if self.augment:
            dtype = torch.uint8 if len(spec.input_shape) == 3 else torch.float32
            Augmentation(self.augment).check(torch.zeros(spec.input_shape, dtype=dtype))

    def examples(self, split: str, seed: int) -> Examples:
        """The examples of `split`; `train` and `val` are carved from the data's own `train` by `seed` if need be.

        split: `all` gives the examples of all splits. ConfigError for a split that the dataset doesn't have, or that
        would be empty.
        """
        if split == "all":
            return self.whole()
        own = self.own_splits()
        offered = carved_splits(own, self.val)
        if split not in offered:
            why = " (its option `val` is 0)" if split == "val" else ""
            raise ConfigError(f"there is no split {split!r} in this dataset{why}; there are: {', '.join(offered)}")
        if offered == own or split == "test":
            return self._remembered(split)
        whole = self._remembered("train")
        if seed not in self._val:
            self._val[seed] = self._set_aside(whole, seed)
        chosen = torch.from_numpy(self._val[seed] if split == "val" else ~self._val[seed]).nonzero().flatten()
        return Examples(whole.inputs, whole.targets, chosen if whole.rows is None else whole.rows[chosen])

    def whole(self) -> Examples:
        """The examples of all splits."""
        return concat_examples([self._remembered(split) for split in self.own_splits()])

    def hashes(self, split: str) -> Hashes | None:
        """A hash of the content of each example of `read(split)`: [N]; None where they aren't in memory.

        To be overridden by a dataset that knows them otherwise.
        """
        part = self._remembered(split)
        if not isinstance(part.inputs, Tensor):
            return None
        if split in self._hashed:
            return self._hashed[split]
        tensors = {"inputs": part.inputs, **{f"target {name}": target for name, target in part.targets.items()}}
        self._hashed[split] = hash_named({
            name: hash_rows(tensor if part.rows is None else tensor[part.rows]) for name, tensor in tensors.items()
        })  # fmt: skip
        return self._hashed[split]

    def all_hashes(self) -> Hashes | None:
        """The hashes of the examples of all splits, those of `whole`; None where they aren't in memory."""
        parts = [self.hashes(split) for split in self.own_splits()]
        known = [part for part in parts if part is not None]
        return np.concatenate(known) if known and len(known) == len(parts) else None

    def keys(self, split: str) -> Hashes | None:
        """Keys [N] that decide which examples of `read(split)` are in drawn splits; None: their positions do."""
        hashes = self.hashes(split)
        return None if hashes is None else with_copies(hashes)

    def recorded(self) -> DataRecord:
        """The data as it is now, for a checkpoint. Reads all splits."""
        prints = {}
        for split in self.own_splits():
            hashes = self.hashes(split)
            prints[split] = Fingerprint(len(self._remembered(split))) if hashes is None else Fingerprint.of(hashes)
        return DataRecord(self._rule(), self.hashed_columns(), hex_keys(self._kept), prints)

    def draws_test(self) -> bool:
        """Return whether `test` is drawn, and not a split that the data itself has."""
        return False

    def hashed_columns(self) -> tuple[str, ...] | None:
        """Of a table, the columns whose cells are hashed."""
        return None

    def _rule(self) -> Rule:
        if self.record is not None:
            return self.record.rule
        return "position" if self.fixed or self.keys("train") is None else "content"

    def _set_aside(self, train: Examples, seed: int) -> Mask:
        """Mask [N] of the training examples that become `val`. ConfigError where none would be left to train on."""
        salt, amount = ("val", seed), len(train)
        keys = None if self._rule() == "position" else self.keys("train")
        if keys is None:
            chosen = draw_by_position(amount, max(1, round(self.val * amount)), salt)
        else:
            labels = map(train.labels, train.targets)
            classes = [codes for label in labels if (codes := class_codes(label)) is not None]
            kept = frozenset() if self.record is None else self.record.kept_keys("val")
            drawn = draw(keys, self.val, salt, classes, kept, needed=True)
            chosen, self._kept["val"] = drawn.chosen, drawn.kept
        if chosen.all() or not chosen.any():
            alike = ", for they are one group or identical" if amount > 1 and keys is not None else ""
            raise ConfigError(f"`val: {self.val}` of {amount} training examples leaves none to train on{alike}")
        return chosen

    def own_splits(self) -> tuple[str, ...]:
        """The splits the data itself has."""
        return ("train", "test")

    def _remembered(self, split: str) -> Examples:
        """What `read` gave for the split, read once: splits carved from one another share their inputs."""
        if split not in self._read:
            examples = self.read(split)
            if len(examples) == 0:
                raise ConfigError(f"the split {split!r} has no examples")
            self._read[split] = examples
        return self._read[split]


def carved_splits(own: tuple[str, ...], val: float) -> tuple[str, ...]:
    """The splits a dataset offers: its own, and `val` where a share of `train` is set aside for it."""
    return own if "val" in own or "train" not in own or val == 0 else ("train", "val", *own[1:])


def adopted(stored: DatasetSpec, here: DatasetSpec) -> DatasetSpec:
    """What a checkpoint's dataset is like on other data: all as `stored`, but the splits, and which labels miss.

    here: the description of the data at hand; it may have more targets. ConfigError, with all that differs, where its
    inputs are of another shape, or a stored target isn't there or is another one.
    """
    problems = []
    if here.input_shape != stored.input_shape:
        then, now = ("×".join(map(str, spec.input_shape)) for spec in (stored, here))
        problems.append(f"the checkpoint was trained on inputs {then}, and these are {now}")
    for name, target in stored.targets.items():
        if name not in here.targets:
            problems.append(f"there is no target {name!r}, which the checkpoint was trained on")
        elif (then := _told(target)) != (now := _told(here.targets[name])):
            problems.append(f"the checkpoint was trained on a target {name!r} of {then}, and this one is of {now}")
    if problems:
        raise ConfigError(map(Problem, problems))
    targets = {name: replace(target, missing=here.targets[name].missing) for name, target in stored.targets.items()}
    return replace(stored, targets=targets, splits=here.splits)


def _told(target: TargetSpec) -> str:
    """All that a trained model's head depends on."""
    size = "" if target.size == 1 else f", {target.size}"
    names = "" if target.classes is None else f": {', '.join(target.classes)}"
    return f"type {target.type}{size}{names}"


__all__ = ["Dataset", "Examples", "LazyInputs", "Shape", "adopted", "carved_splits"]
