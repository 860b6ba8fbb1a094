"""Augmentation by torchvision's `transforms.v2`, reproducible for each example."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, overload

import torch
from torch import Tensor

from mtlcli.component import blame_options
from mtlcli.data.map_geometry import ORIENTED, OUTSIDE, make_points, measure_similarity, number_pixels, warp_maps
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
# Change the shape at random, so that a check may pass by chance unless a later transform restores it.
RESHAPING = {"RandomResize", "RandomShortestSize", "RandomZoomOut", "ScaleJitter"}
# Draw from transforms of both the geometry and the colors, which torchvision doesn't do for an image with masks.
NOT_FOR_MAPS = {"AugMix", "AutoAugment", "RandAugment", "TrivialAugmentWide"}
NOT_FOR_ORIENTED = {"ElasticTransform", "RandomPerspective"}  # of which depth and normals are unknown
IMAGE_ONLY = {"RandomErasing"}  # warns about masks
OWN = {"RandomScaleCrop"}  # not of torchvision
DRAWS = 8  # random draws in a check


class Augmentation:
    """Transforms of one dataset, applied in sequence to each raw example of the split `train` and to its maps.

    A transform of the geometry applies to an image and its maps alike, others to the image only. The result depends
    only on (seed, alias, number of the pass, row), so it is the same in any worker and after a resume at any step.
    Python code runs for each example: a dataset with augmentation always takes the `stream` route, and is slower.

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
        self.seed, self.alias = seed, alias
        self.targets = {name: target for name, target in (targets or {}).items() if target.is_map}
        self.transforms = [
            _build_transform(index, entry, transforms[index + 1 :], bool(self.targets))
            for index, entry in enumerate(transforms)
        ]

    def check(self, example: Tensor) -> None:
        """Check that the transforms accept an example and preserve its shape and type, in several random draws.

        If `targets` has maps, the transforms must accept them, too.

        Raises a ValueError if a transform fails, or changes the shape or type; an OptionError if it can't transform
        maps.

        Args:
            example: raw example.
        """
        if self.targets:
            self._check_maps()
        maps = {name: _blank_map(target, example) for name, target in self.targets.items()}
        with torch.random.fork_rng(devices=[]):
            for draw in range(DRAWS):
                torch.default_generator.manual_seed(draw)
                self._transform(example, maps)

    def _check_maps(self) -> None:
        """OptionError for a transform that can't be applied to the maps, by its index."""
        oriented = ", ".join(self._oriented(self.targets))
        for index, transform in enumerate(self.transforms):
            name, reason = type(transform).__name__, ""
            if name in NOT_FOR_MAPS:
                listed = ", ".join(self.targets)
                reason = (
                    f"{name} transforms images alone, but tasks have a label for each pixel ({listed}). Use "
                    f"transforms such as RandomHorizontalFlip, RandomScaleCrop or ColorJitter"
                )
            elif oriented and name in NOT_FOR_ORIENTED:
                reason = (
                    f"{name} bends the image, after which depth and normals are unknown ({oriented}). Use transforms "
                    f"such as RandomScaleCrop or RandomRotation"
                )
            elif oriented and getattr(transform, "padding_mode", "constant") != "constant":
                reason = (
                    f"{name} repeats the image at its border, where depth and normals are unknown ({oriented}). Leave "
                    f"out `padding_mode`"
                )
            if reason:
                raise OptionError({str(index): reason})

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
        """
        augmented = []
        with torch.random.fork_rng(devices=[]):
            for example, own, number, row in zip(examples, maps or [{}] * len(rows), passes, rows, strict=True):
                # Only the CPU's generator: torch.manual_seed would also seed the accelerator's, without restoring it.
                torch.default_generator.manual_seed(stable_seed("augment", self.seed, self.alias, number, row))
                try:
                    augmented.append(self._transform(example, own))
                except ValueError as error:
                    raise MtlError(f"augmenting example {row} of dataset {self.alias!r}: {error}") from error
        images = [image for image, _ in augmented]
        return images if maps is None else (images, [warped for _, warped in augmented])

    def _transform(self, example: Tensor, maps: Maps) -> tuple[Tensor, Maps]:
        augmented = example
        carried: list[Tensor] = []  # through the same transforms, to apply their geometry to the maps
        if maps:
            carried.append(number_pixels(*example.shape[-2:]))
        if self._oriented(maps):
            carried.append(make_points(*example.shape[-2:]))
        moves: list[tuple[str, list[Tensor]]] = []
        for transform in self.transforms:
            name = type(transform).__name__
            given = augmented
            try:
                if not carried or name in IMAGE_ONLY:
                    augmented = transform(given)
                else:
                    augmented, *moved = transform(given, *carried)
                    if moved[0] is not carried[0]:
                        moves.append((name, moved))
                        carried = moved
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
        return augmented, self._warp(maps, moves) if moves else maps

    def _warp(self, maps: Maps, moves: Sequence[tuple[str, list[Tensor]]]) -> Maps:
        """Apply the geometry of transforms to maps. ValueError if depth or normals can't follow one of them."""
        numbers, *points = moves[-1][1]
        height, width = next(iter(maps.values())).shape[-2:]
        try:
            similarity = measure_similarity(points[0], height, width) if points else None
        except ValueError as last:
            for name, (_, moved) in moves:
                try:
                    measure_similarity(moved, height, width)
                except ValueError as error:
                    listed, ratio = ", ".join(self._oriented(maps)), f"{width / height:.4g}"
                    hints = {"RandomResizedCrop": f": set `ratio: [{ratio}, {ratio}]`", "RandomAffine": " (no `shear`)"}
                    raise ValueError(
                        f"{name} {error}, after which depth and normals are unknown ({listed}). Both must be "
                        f"equal{hints.get(name, '')}"
                    ) from error
            raise last
        return warp_maps(maps, self.targets, numbers, similarity)

    def _oriented(self, names: Iterable[str]) -> list[str]:
        """Select the targets whose values depend on scale and rotation."""
        return [name for name in names if self.targets[name].type in ORIENTED]


def _blank_map(target: TargetSpec, example: Tensor) -> Tensor:
    """Return a map as it is stored, for an image of the size of the example."""
    if target.type in ("class_map", "binary_map"):
        return torch.zeros(example.shape[-2:], dtype=torch.uint8)
    channels = () if target.size == 1 else (target.size,)
    return torch.zeros(*channels, *example.shape[-2:])


def check_transforms(transforms: Sequence[str | dict[str, Any]]) -> None:
    """Check the option `augment` of a dataset. OptionError for an unknown transform or invalid arguments."""
    try:
        Augmentation(transforms)
    except OptionError as error:
        raise error.below("augment") from error


def _describe_tensor(example: Tensor) -> str:
    return f"[{', '.join(map(str, example.shape))}] of {example.dtype}"


def _build_transform(index: int, entry: str | dict[str, Any], later: Sequence[Any], of_maps: bool) -> Any:
    """Make a transform. OptionError locates an invalid one by its index in the list, or by its argument."""
    try:
        return _build(entry, any(map(_fixes_shape, later)), of_maps)
    except OptionError as error:
        raise error.below(str(index)) from error
    except ValueError as error:
        raise OptionError({str(index): str(error)}) from error


def _fixes_shape(entry: str | dict[str, Any]) -> bool:
    """Return whether images of different shapes have the same shape after a transform."""
    options = {"name": entry} if isinstance(entry, str) else entry
    name, size = options.get("name"), options.get("size")
    if name == "Resize":
        return isinstance(size, list) and len(size) == 2
    return name in ("CenterCrop", "RandomResizedCrop") or (
        name == "RandomCrop" and options.get("pad_if_needed") is True
    )


def _build(entry: str | dict[str, Any], shape_fixed: bool, of_maps: bool) -> Any:
    from torchvision.transforms import v2
    from torchvision.tv_tensors import Mask  # type: ignore[attr-defined]

    from mtlcli.data.scale_crop import RandomScaleCrop

    arguments: dict[str, Any] = {"name": entry} if isinstance(entry, str) else dict(entry)
    name = arguments.pop("name", None)
    if not isinstance(name, str):
        raise ValueError(f"{entry!r} needs a `name:`, such as {{name: RandomCrop, size: 28, padding: 4}}")
    base = v2.Transform  # type: ignore[attr-defined]
    names = {
        key
        for key, value in vars(v2).items()
        if inspect.isclass(value) and issubclass(value, base) and key not in UNFIT
    } | OWN
    if name in RESHAPING and not shape_fixed:
        raise ValueError(
            f"{name!r} changes the shape of an image at random, and the shape must not change: put a transform after "
            f"it that restores it, such as {{name: RandomCrop, size: [height, width], pad_if_needed: true}}"
        )
    if name not in names:
        why = "can't augment a single raw image" if name in UNFIT else "is not a transform of torchvision.transforms.v2"
        raise ValueError(f"{name!r} {why}.{suggest(name, names)}")
    transform = RandomScaleCrop if name in OWN else getattr(v2, name)
    accepted = [key for key in inspect.signature(transform).parameters if key not in ("args", "kwargs")]
    if unknown := [str(key) for key in arguments if key not in accepted]:
        listed = ", ".join(accepted) or "nothing"
        raise OptionError({
            key: f"{name} takes no {key!r}.{suggest(key, accepted)} It takes: {listed}" for key in unknown
        })  # fmt: skip
    if of_maps and "fill" in arguments:
        arguments["fill"] = {Mask: OUTSIDE, "others": arguments["fill"]}
    try:
        return blame_options(transform, arguments, sole=True)
    except OptionError:
        raise
    except Exception as error:
        raise ValueError(f"{name}: {error}") from error
