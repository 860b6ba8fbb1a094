"""Augmentation: torchvision's `transforms.v2` by name, repeatable example by example."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mtlcli.data.shuffling import stable_seed
from mtlcli.error_origin import blaming
from mtlcli.errors import MtlError, OptionError, nearest

# Not for one raw image: they need boxes, masks, batches or functions, give several images, or change the type.
UNFIT = {
    "ClampBoundingBoxes", "ClampKeyPoints", "Compose", "ConvertBoundingBoxFormat", "ConvertImageDtype", "CutMix",
    "FiveCrop", "Lambda", "LinearTransformation", "MixUp", "Normalize", "PILToTensor", "RandomApply", "RandomChoice",
    "RandomIoUCrop", "RandomOrder", "SanitizeBoundingBoxes", "SanitizeKeyPoints", "SetClampingMode", "TenCrop",
    "ToDtype", "ToImage", "ToPILImage", "ToPureTensor", "ToTensor", "Transform", "UniformTemporalSubsample",
}  # fmt: skip
# They change the shape at random, so that a check may pass by chance.
RESHAPING = {"RandomResize", "RandomShortestSize", "RandomZoomOut", "ScaleJitter"}
DRAWS = 8  # that a check tries: what a transform does to an example it does by chance


class Augmentation:
    """The transforms of one dataset, applied one after the other to every raw example of the split `train`.

    transforms: each a name (`RandomHorizontalFlip`) or its name and arguments (`{name: RandomCrop, size: 28}`).

    What an example becomes depends on (seed, alias, number of the pass, row) alone, so it is the same in any worker,
    at any step a run starts again from. ValueError for a transform that doesn't exist or arguments it doesn't take.
    Python runs for every example: a dataset with augmentation always takes the `stream` route, and is slower.
    """

    def __init__(self, transforms: Sequence[str | dict[str, Any]], seed: int = 0, alias: str = "") -> None:
        self.transforms = [_build_transform(index, transform) for index, transform in enumerate(transforms)]
        self.seed, self.alias = seed, alias

    def check(self, example: Tensor) -> None:
        """ValueError where a transform fails on `example`, or changes its shape or type, in any of some draws."""
        with torch.random.fork_rng(devices=[]):
            for draw in range(DRAWS):
                torch.default_generator.manual_seed(draw)
                self._transform(example)

    def __call__(self, examples: Sequence[Tensor], passes: Sequence[int], rows: Sequence[int]) -> list[Tensor]:
        """The augmented examples. passes, rows: the number of the pass and the row of each.

        MtlError where a transform fails on one of them.
        """
        augmented = []
        with torch.random.fork_rng(devices=[]):
            for example, number, row in zip(examples, passes, rows, strict=True):
                # Only the CPU's generator: torch.manual_seed would seed the accelerator's too, and not give it back.
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
            taken = augmented
            try:
                augmented = transform(taken)
            except Exception as error:
                raise ValueError(f"{name} can't take an example {_kind(taken)}: {error}") from error
            if not isinstance(augmented, Tensor) or augmented.dtype != example.dtype:
                raise ValueError(f"{name} makes something other than {example.dtype} of an example")
        if augmented.shape != example.shape:
            names = ", ".join(type(transform).__name__ for transform in self.transforms)
            raise ValueError(f"{names} makes {_kind(augmented)} of an example {_kind(example)}; the shape has to stay")
        return augmented


def _kind(example: Tensor) -> str:
    return f"[{', '.join(map(str, example.shape))}] of {example.dtype}"


def _build_transform(index: int, entry: str | dict[str, Any]) -> Any:
    """The transform. OptionError at its place in the list, or at its own argument, where it can't be made."""
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
    known = {
        key
        for key, value in vars(v2).items()
        if inspect.isclass(value) and issubclass(value, base) and key not in UNFIT | RESHAPING
    }
    if name in RESHAPING:
        raise ValueError(f"{name!r} changes the shape of an image at random, and the shape has to stay")
    if name not in known:
        why = "can't augment a single raw image" if name in UNFIT else "is no transform of torchvision.transforms.v2"
        raise ValueError(f"{name!r} {why}.{nearest(name, known)}")
    transform = getattr(v2, name)
    taken = [key for key in inspect.signature(transform).parameters if key not in ("args", "kwargs")]
    if unknown := [key for key in arguments if key not in taken]:
        raise OptionError(
            {
                str(
                    key
                ): f"{name} takes no {key!r}.{nearest(str(key), taken)} It takes: {', '.join(taken) or 'nothing'}"
                for key in unknown
            }
        )
    try:
        return blaming(transform, arguments, sole=True)
    except OptionError:
        raise
    except Exception as error:
        raise ValueError(f"{name}: {error}") from error
