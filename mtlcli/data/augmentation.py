"""Augmentation by torchvision's `transforms.v2`, reproducible for each example."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, overload

import torch
from torch import Tensor

from mtlcli.component import blame_options
from mtlcli.data.samplers.base import stable_seed
from mtlcli.errors import MtlError, OptionError, suggest
from mtlcli.specs import TargetSpec

Maps = dict[str, Tensor]  # target → a map as it is stored, [H, W] or [C, H, W]

# Unsuitable for a single raw image: need boxes, masks, batches or functions, return several images, or change the type.
UNFIT = {
    "ClampBoundingBoxes", "ClampKeyPoints", "Compose", "ConvertBoundingBoxFormat", "ConvertImageDtype", "CutMix",
    "FiveCrop", "Lambda", "LinearTransformation", "MixUp", "Normalize", "PILToTensor", "RandomApply", "RandomChoice",
    "RandomIoUCrop", "RandomOrder", "SanitizeBoundingBoxes", "SanitizeKeyPoints", "SetClampingMode", "TenCrop",
    "ToDtype", "ToImage", "ToPILImage", "ToPureTensor", "ToTensor", "Transform", "UniformTemporalSubsample",
}  # fmt: skip
# Change the shape at random, so that a check may pass by chance.
RESHAPING = {"RandomResize", "RandomShortestSize", "RandomZoomOut", "ScaleJitter"}
DRAWS = 8  # random draws in a check


class Augmentation:
    """Transforms of one dataset, applied in sequence to each raw example of the split `train`.

    The result depends only on (seed, alias, number of the pass, row), so it is the same in any worker and after a
    resume at any step. Python code runs for each example: a dataset with augmentation always takes the `stream` route,
        and is slower.

    Raises an OptionError if a transform doesn't exist or has invalid arguments.

    Args:
        transforms: each a name (`RandomHorizontalFlip`) or a name with arguments (`{name: RandomCrop, size: 28}`).
        seed: seed of the random draws.
        alias: alias of the dataset.
        targets: name → specification of the targets whose maps are transformed with the example.
    """

    def __init__(
        self,
        transforms: Sequence[str | dict[str, Any]],
        seed: int = 0,
        alias: str = "",
        targets: Mapping[str, TargetSpec] | None = None,
    ) -> None:
        self.transforms = [_build_transform(index, transform) for index, transform in enumerate(transforms)]
        self.seed, self.alias, self.targets = seed, alias, targets or {}

    def check(self, example: Tensor) -> None:
        """Check that the transforms accept an example and preserve its shape and type, in several random draws.

        Raises a ValueError if a transform fails, or changes the shape or type.

        Args:
            example: raw example.
        """
        with torch.random.fork_rng(devices=[]):
            for draw in range(DRAWS):
                torch.default_generator.manual_seed(draw)
                self._transform(example)

    @overload
    def __call__(
        self, examples: Sequence[Tensor], passes: Sequence[int], rows: Sequence[int], maps: None = None
    ) -> list[Tensor]: ...
    @overload
    def __call__(
        self, examples: Sequence[Tensor], passes: Sequence[int], rows: Sequence[int], maps: Sequence[Maps]
    ) -> tuple[list[Tensor], list[Maps]]: ...
    def __call__(
        self,
        examples: Sequence[Tensor],
        passes: Sequence[int],
        rows: Sequence[int],
        maps: Sequence[Maps] | None = None,
    ) -> list[Tensor] | tuple[list[Tensor], list[Maps]]:
        """Augment examples.

        Args:
            examples: raw examples.
            passes: number of the pass of each example.
            rows: row of each example in the dataset.
            maps: maps of each example as they are stored; None if no task has any.

        Returns:
            The augmented examples, and their maps if there are some.

        Raises:
            MtlError: a transform fails on an example.
            NotImplementedError: `maps` are given.
        """
        if maps is not None:
            raise NotImplementedError
        augmented = []
        with torch.random.fork_rng(devices=[]):
            for example, number, row in zip(examples, passes, rows, strict=True):
                # Only the CPU's generator: torch.manual_seed would also seed the accelerator's, without restoring it.
                torch.default_generator.manual_seed(stable_seed("augment", self.seed, self.alias, number, row))
                try:
                    augmented.append(self._transform(example))
                except ValueError as error:
                    raise MtlError(f"augmenting example {row} of dataset {self.alias!r}: {error}") from error
        return augmented

    def _transform(self, example: Tensor) -> Tensor:
        augmented = example
        for transform in self.transforms:
            name = type(transform).__name__
            given = augmented
            try:
                augmented = transform(given)
            except Exception as error:
                raise ValueError(f"{name} can't take an example {_describe_tensor(given)}: {error}") from error
            if not isinstance(augmented, Tensor) or augmented.dtype != example.dtype:
                raise ValueError(f"{name} changes the type of an example, which must remain {example.dtype}")
        if augmented.shape != example.shape:
            names = ", ".join(type(transform).__name__ for transform in self.transforms)
            raise ValueError(
                f"{names} makes {_describe_tensor(augmented)} of an example {_describe_tensor(example)}; the shape "
                f"must not change"
            )
        return augmented


def check_transforms(transforms: Sequence[str | dict[str, Any]]) -> None:
    """Check the option `augment` of a dataset. OptionError for an unknown transform or invalid arguments."""
    try:
        Augmentation(transforms)
    except OptionError as error:
        raise error.below("augment") from error


def _describe_tensor(example: Tensor) -> str:
    return f"[{', '.join(map(str, example.shape))}] of {example.dtype}"


def _build_transform(index: int, entry: str | dict[str, Any]) -> Any:
    """Make a transform. OptionError locates an invalid one by its index in the list, or by its argument."""
    try:
        return _build(entry)
    except OptionError as error:
        raise error.below(str(index)) from error
    except ValueError as error:
        raise OptionError({str(index): str(error)}) from error


def _build(entry: str | dict[str, Any]) -> Any:
    from torchvision.transforms import v2

    arguments = {"name": entry} if isinstance(entry, str) else dict(entry)
    name = arguments.pop("name", None)
    if not isinstance(name, str):
        raise ValueError(f"{entry!r} needs a `name:`, such as {{name: RandomCrop, size: 28, padding: 4}}")
    base = v2.Transform  # type: ignore[attr-defined]
    names = {
        key
        for key, value in vars(v2).items()
        if inspect.isclass(value) and issubclass(value, base) and key not in UNFIT | RESHAPING
    }
    if name in RESHAPING:
        raise ValueError(f"{name!r} changes the shape of an image at random, and the shape must not change")
    if name not in names:
        why = "can't augment a single raw image" if name in UNFIT else "is not a transform of torchvision.transforms.v2"
        raise ValueError(f"{name!r} {why}.{suggest(name, names)}")
    transform = getattr(v2, name)
    accepted = [key for key in inspect.signature(transform).parameters if key not in ("args", "kwargs")]
    if unknown := [str(key) for key in arguments if key not in accepted]:
        listed = ", ".join(accepted) or "nothing"
        raise OptionError({
            key: f"{name} takes no {key!r}.{suggest(key, accepted)} It takes: {listed}" for key in unknown
        })  # fmt: skip
    try:
        return blame_options(transform, arguments, sole=True)
    except OptionError:
        raise
    except Exception as error:
        raise ValueError(f"{name}: {error}") from error
