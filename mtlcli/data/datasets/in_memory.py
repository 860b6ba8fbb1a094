"""Data passed from Python."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from mtlcli.data.augmentation import Augmentation
from mtlcli.data.base import Dataset, Examples, add_val_split
from mtlcli.data.checkpoint_spec import restore_spec
from mtlcli.data.content_hash import hash_inputs, hash_named, hash_rows, hash_tensor_maps
from mtlcli.data.formats.input_statistics import compute_input_statistics
from mtlcli.data.formats.python_arrays import PythonData
from mtlcli.data.formats.python_data import convert_data
from mtlcli.data.formats.python_encoding import (
    add_statistics,
    check_map_sizes,
    encode_examples,
    find_input_shape,
    has_missing,
)
from mtlcli.data.formats.python_maps import MapType, fit_python_map
from mtlcli.data.formats.python_targets import TargetType, fit_python_target
from mtlcli.data.formats.python_texts import name_texts
from mtlcli.data.formats.python_weights import take_weights
from mtlcli.data.formats.text_inputs import with_texts
from mtlcli.data.formats.text_rows import TextRows
from mtlcli.data.splitting import draw, draw_by_position, group_copies, to_class_codes
from mtlcli.errors import ConfigError, suggest
from mtlcli.registry import datasets
from mtlcli.specs import DatasetSpec, Shape, TargetSpec
from mtlcli.text_spec import TextSpec


@datasets.register("in_memory")
class InMemory(Dataset):
    """Arrays, tensors or a torch Dataset passed from Python: `mtlcli.train(config, datasets={"alias": data})`.

    The data is a tuple (inputs, targets) of arrays or tensors, a map-style `torch.utils.data.Dataset` or a list, whose
    items are (input, target), (input, {name: target}) or dicts, or a dict with one of these for each split. The
    configuration may leave out the dataset's entry. The data is not stored in the run folder or the checkpoint: pass it
    again to resume or to evaluate. `mtlcli.load` needs none.

    Inputs are uint8, or converted to float32: images [N, C, H, W] or [N, H, W], other inputs [N, F]. A trunk that reads
    text needs strings, or pairs of strings. The model normalizes the others by the mean and standard deviation of each
    channel or feature over the training examples. Items of a Dataset are read once and kept in memory up to 512 MiB;
    beyond that inputs are read in every epoch, splits are drawn by position, and the statistics are those of 1,000
    training examples. Random transformations belong in `augment`.

    A target that is passed without a name is called `target`. Its type follows from the type of its labels: booleans
    are `binary`, integers (0, 1, 2, …) and strings are `classes`, floats are `real`, several columns of booleans or of
    0 and 1 are `multilabel`. A missing label is None, NaN, or -100 among integers.

    A target of three or four dimensions, [N, H, W] or [N, C, H, W], has a label for each pixel of the images: booleans
    are a `binary_map`, integers a `class_map`, floats a `real_map`; `targets` also makes them a `depth_map` or a
    `normal_map` (C = 3). A missing label is NaN, 255 or -100 among integers (-100 only if there are more than 255
    classes), a depth of 0, or the vector 0 in place of a normal.

    Args:
        targets: type of a target, by name, in place of the inferred one: `classes`, `binary`, `real` or `multilabel`;
            of labels for pixels `class_map`, `binary_map`, `real_map`, `depth_map` or `normal_map`.
        classes: names of the classes or labels of a target, by name, in the order of their indices.
        weights: name under which the weights of the examples were passed among the targets, at least 0; they weight the
            losses and metrics of all tasks.
        input: key of the input in items that are dicts; all other keys are targets.
        normalize: normalize the inputs; if not, the model gets their values as they are.
        test: share of the examples that becomes the split `test`, if the data is not divided into splits. An example's
            membership is a function of its content and `seed`; every class keeps an example to train on.
        seed: seed of the split `test`; the same for every run, whatever the run's own seed.
        val: share of the training examples that becomes the split `val`, drawn by the run's seed, if there is no such
            split.
        augment: transforms of torchvision's `transforms.v2` by name, applied to each training image.
    """

    origin = "passed from Python"

    def __init__(
        self,
        *,
        targets: dict[str, TargetType | MapType] = {},  # noqa: B006  (never changed)
        classes: dict[str, list[str]] = {},  # noqa: B006
        weights: str | None = None,
        input: str = "input",  # noqa: A002  (the option's name)
        normalize: bool = True,
        test: Annotated[float, Field(ge=0, lt=1)] = 0.2,
        seed: Annotated[int, Field(ge=0)] = 0,
        val: Annotated[float, Field(ge=0, lt=1)] = 0.1,
        augment: list[str | dict[str, Any]] | None = None,
    ) -> None:
        super().__init__(val=val, augment=augment)
        self.types, self.classes, self.input, self.normalize = targets, classes, input, normalize
        self.test, self.seed, self.weights = test, seed, weights
        self._given: object = None
        self._max_length: int | None = None  # of texts, for a trunk that reads them
        self._stored: DatasetSpec | None = None
        self._loaded: tuple[DatasetSpec, dict[str, Examples]] | None = None

    def attach(self, data: object) -> None:
        self._given, self._loaded = data, None

    def keep_texts(self, max_length: int, compared: bool) -> None:
        if self.augment:
            raise ConfigError("`augment` transforms images, but the trunk reads text")
        self._max_length, self._separate = max_length, compared

    def describe(self) -> DatasetSpec:
        """Convert the data, and compute the statistics of the training examples."""
        return self._load()[0]

    def restore(self, spec: DatasetSpec) -> DatasetSpec:
        """Encode the labels as in the checkpoint; the data need not have examples of all classes."""
        self._stored, self._loaded = spec, None
        return restore_spec(spec, self._load()[0])

    def own_splits(self) -> tuple[str, ...]:
        return tuple(self._load()[1])

    def draws_test(self) -> bool:
        return self._given is not None and "" in self._converted

    def read(self, split: str) -> Examples:
        examples = self._load()[1]
        if split not in examples:
            raise ConfigError(f"the data has no split {split!r}; it has: {', '.join(examples)}")
        return examples[split]

    def type_hint(self, target: str, spec: TargetSpec) -> str:
        """Name the option that sets the type; the inferred one follows from the type of the labels."""
        other = {"real": "classes", "classes": "real"}.get(spec.type)
        return f"The type follows from the labels; to change it, set `targets: {{{target}: {other}}}`" if other else ""

    def check_augment(self, spec: DatasetSpec) -> None:
        if self.augment:
            blank = torch.zeros(spec.input_shape, dtype=getattr(torch, spec.state["dtype"]))
            Augmentation(self.augment, targets=spec.targets).check(blank)

    @property
    def _converted(self) -> dict[str, PythonData]:
        if self._given is None:
            raise ConfigError(
                "the data of this dataset is passed from Python and is not stored with a run; pass it (again) as "
                "`datasets=` of mtlcli.train, mtlcli.build or mtlcli.evaluate"
            )
        if not isinstance(self._given, _Converted):
            converted = convert_data(self._given, self.input, self._max_length is not None)
            if (name := self.weights) is not None:
                converted = {split: take_weights(data, name, split) for split, data in converted.items()}
            self._given = _Converted(converted)
        return self._given.splits

    def _load(self) -> tuple[DatasetSpec, dict[str, Examples]]:
        if self._loaded is None:
            converted = self._converted
            self._check_names(converted)
            shape = find_input_shape(converted)
            check_map_sizes(converted, shape)
            stored = self._stored
            targets, named = self._fit(converted) if stored is None else (stored.targets, stored.state["named"])
            encoded = {split: encode_examples(data, split, targets, named) for split, data in converted.items()}
            examples = encoded if "" not in encoded else self._draw_test(encoded[""])
            if stored is None:
                targets = {name: add_statistics(name, target, examples) for name, target in targets.items()}
            targets = {
                name: replace(target, missing=has_missing(name, target, converted, examples))
                for name, target in targets.items()
            }
            spec = self._described(examples, targets, named, shape)
            if self._max_length is not None:
                names = name_texts(data.inputs for data in converted.values())
                spec = with_texts(spec, TextSpec(names, self._max_length, separate=self._separate and len(names) == 2))
            self._loaded = spec, examples
        return self._loaded

    def _described(
        self, examples: dict[str, Examples], targets: dict[str, TargetSpec], named: list[str], shape: Shape
    ) -> DatasetSpec:
        inputs = next(iter(examples.values())).inputs
        dtype = "text" if isinstance(inputs, TextRows) else str(inputs[0].dtype).removeprefix("torch.")
        statistics: tuple[tuple[float, ...], tuple[float, ...]] = (0.0,), (1.0,)
        if self.normalize and dtype != "text" and "train" in examples and self._stored is None:
            statistics = compute_input_statistics(examples["train"])
        return DatasetSpec(
            input_shape=shape,
            targets=targets,
            main_target=next(iter(targets)) if len(targets) == 1 else None,
            splits=add_val_split(tuple(examples), self.val),
            mean=statistics[0],
            std=statistics[1],
            state={"dtype": dtype, "named": named},
        )

    def _fit(self, converted: dict[str, PythonData]) -> tuple[dict[str, TargetSpec], list[str]]:
        """Return the targets, fitted on `train` (on all examples if splits are drawn), and those labelled by names."""
        train = converted.get("train", converted.get(""))
        if train is None:
            raise ConfigError(f"the data has no training examples, only the splits {', '.join(converted)}")
        types: dict[str, Any] = self.types
        fitted = {
            name: fit_python_target(labels, name, types.get(name), self.classes.get(name))
            for name, labels in train.targets.items()
        }
        maps = {
            name: fit_python_map(labels, name, types.get(name), self.classes.get(name))
            for name, labels in train.maps.items()
        }
        targets = {name: target for name, (target, _) in fitted.items()} | maps
        return targets, [name for name, (_, named) in fitted.items() if named]

    def _check_names(self, converted: dict[str, PythonData]) -> None:
        """ConfigError if the splits differ in their targets, or an option names an unknown target."""
        (split, first), *others = converted.items()
        wanted = first.names if self._stored is None else list(self._stored.targets)
        for other, data in [(split, first), *others] if self._stored is not None else others:
            if lacking := [name for name in wanted if name not in data.names]:
                where = f"split {other!r}: " if other else ""
                raise ConfigError(
                    f"{where}the data has no target {lacking[0]!r}; the targets are: {', '.join(data.names)}"
                )
        for option, names in (("targets", self.types), ("classes", self.classes)):
            if unknown := [name for name in names if name not in first.names]:
                hint = f"{suggest(unknown[0], first.names)} The targets are: {', '.join(first.names)}"
                raise ConfigError(f"`{option}` names {unknown[0]!r}, which is not a target.{hint}")

    def _draw_test(self, whole: Examples) -> dict[str, Examples]:
        salt = ("test", self.seed)
        if not isinstance(whole.inputs, Tensor | TextRows) or (
            self.record is not None and self.record.rule == "position"
        ):
            chosen = draw_by_position(len(whole), round(self.test * len(whole)), salt)
        else:
            hashes = {f"target {name}": hash_rows(target) for name, target in whole.targets.items()}
            hashes |= hash_tensor_maps(whole)
            inputs = whole.inputs
            hashes["inputs"] = hash_rows(inputs) if isinstance(inputs, Tensor) else hash_inputs(inputs)
            keys = group_copies(hash_named(hashes))
            kept = frozenset() if self.record is None else self.record.kept_keys("test")
            classes = [codes for t in whole.targets.values() if (codes := to_class_codes(t)) is not None]
            drawn = draw(keys, self.test, salt, classes if self._stored is None else [], kept)
            chosen, self._kept["test"] = drawn.chosen, drawn.kept
        rows = {"train": np.flatnonzero(~chosen), "test": np.flatnonzero(chosen)}
        return {
            split: Examples(whole.inputs, whole.targets, torch.from_numpy(chosen_rows), whole.weights, whole.maps)
            for split, chosen_rows in rows.items()
            if len(chosen_rows)
        }


class _Converted:
    """Data that has been converted: split → examples."""

    def __init__(self, splits: dict[str, PythonData]) -> None:
        self.splits = splits
