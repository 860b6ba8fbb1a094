"""Rendered scenes."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field, NonNegativeInt, PositiveInt
from torch import Tensor

from mtlcli.data.base import Dataset, Examples
from mtlcli.data.content_hash import Hashes, hash_texts
from mtlcli.data.rendering.layout import DIFFICULTIES, Difficulty, DifficultyName, draw_scene
from mtlcli.data.rendering.renderer import Rendering, pixel_rays, render
from mtlcli.data.rendering.solids import CLASSES, PARTS
from mtlcli.data.samplers.base import stable_seed
from mtlcli.errors import suggest
from mtlcli.registry import datasets
from mtlcli.specs import IGNORE_BYTE, DatasetSpec, TargetSpec

Side = Annotated[int, Field(ge=8, le=4096)]
ObjectCount = Annotated[int, Field(ge=0, le=100)]
Share = Annotated[float, Field(ge=0, le=1)]

VERSION = 1  # of the renderer: another one renders other images
RESIDENT = 2**31  # bytes of a split that are kept in memory
FIELDS = {"class": "classes", "depth": "depth", "normals": "normals", "edge": "edges", "part": "parts"}
TARGETS = {
    "class": TargetSpec("class_map", len(CLASSES), CLASSES),
    "depth": TargetSpec("depth_map", missing=True),
    "normals": TargetSpec("normal_map", 3, missing=True),
    "edge": TargetSpec("binary_map"),
    "part": TargetSpec("class_map", len(PARTS), PARTS, missing=True),
}
# of the 800 training images of the default options: mean and standard deviation of the colors, and of the depth
STATISTICS: dict[DifficultyName, tuple[tuple[float, ...], tuple[float, ...], tuple[float, float]]] = {
    "easy": ((111.3, 111.6, 111.7), (44.3, 44.4, 44.0), (4.28, 1.85)),
    "medium": ((104.0, 104.1, 104.6), (50.4, 50.0, 50.3), (4.04, 1.81)),
    "hard": ((95.4, 94.9, 95.8), (57.3, 56.5, 56.7), (3.60, 1.65)),
}


@datasets.register("scenes")
class Scenes(Dataset):
    """Rendered scenes: color images of a room with spheres, boxes and cylinders, with exact maps of five targets.

    Inputs: uint8 [3, H, W], RGB. A pinhole camera with a focal length of 0.75 widths looks at a floor, up to three
    walls and random solids in the light of the sun. Nothing is downloaded or stored: an image and its maps are a
    function of `seed`, the split, the number of the image and the options (not of the run's seed), equal on all
    machines up to the rounding of floating point. Rendering takes about 10 ms for 96×128 pixels. Splits of more than
    2 GiB (22 bytes for each pixel) are rendered anew in every epoch, by the workers that read the data.

    Targets, with the kind of task for each, for the ray through the center of a pixel:

    `class` (`segmentation`): the nearest surface: background, floor, wall, sphere, box or cylinder.

    `depth` (`depth`): distance along the camera's axis z, in metres; missing in the background.

    `normals` (`normals`): unit normal in camera space, x to the right, y down, z away from the camera; missing in the
    background.

    `edge` (`binary`): 1 if one of the four neighbors shows another surface, where the floor, each wall and each solid
    are surfaces of their own, as is the background. All lines are two pixels wide.

    `part` (`segmentation`): the part of a solid: upper or lower half of a sphere, around its axis; top (or bottom),
    front (or back; the wider sides, with a panel) or side of a box; end or side of a cylinder. Missing elsewhere.

    Args:
        train: number of training images.
        val: number of validation images; 0 for no split `val`.
        test: number of test images.
        size: height and width of the images. The scenes don't depend on it.
        seed: seed of all splits; independent of the run's seed.
        difficulty: `easy` (2 to 4 solids that stand on the floor, plain surfaces, no shadows, little noise), `medium`
            (3 to 6 solids, patterns on half of the surfaces, shadows, walls that may be absent, more noise) or `hard`
            (5 to 10 solids, half of them in the air in any orientation, patterns on most surfaces, colored light, a
            camera that is tilted sideways, much noise).
        objects: smallest and largest number of solids; null for those of `difficulty`. A solid for which the room has
            no place is left out, and others may be hidden or out of view.
        unlabelled: target → probability that a training image has no labels of it, such as `{depth: 0.2}`.
        augment: transforms of `torchvision.transforms.v2` by name, applied to each training image and its maps.
    """

    origin = "generated from a seed"
    fixed = True

    value_range = (0, 255)

    def __init__(
        self,
        *,
        train: PositiveInt = 800,
        val: NonNegativeInt = 100,
        test: PositiveInt = 200,
        size: tuple[Side, Side] = (96, 128),
        seed: NonNegativeInt = 0,
        difficulty: DifficultyName = "medium",
        objects: tuple[ObjectCount, ObjectCount] | None = None,
        unlabelled: dict[str, Share] = {},  # noqa: B006  (never changed)
        augment: list[str | dict[str, Any]] | None = None,
    ) -> None:
        super().__init__(augment=augment)
        if objects is not None and objects[0] > objects[1]:
            raise ValueError(f"objects: the smallest number, {objects[0]}, is larger than the largest, {objects[1]}")
        if unknown := next((name for name in unlabelled if name not in TARGETS), None):
            hint = suggest(unknown, TARGETS)
            raise ValueError(f"unlabelled: no target {unknown!r}.{hint} The targets are: {', '.join(TARGETS)}")
        self.amounts = {"train": train, "val": val, "test": test}
        self.size = (size[0], size[1])
        self.seed, self.level, self.unlabelled = seed, difficulty, unlabelled
        chosen = DIFFICULTIES[difficulty]
        self.difficulty = chosen if objects is None else replace(chosen, objects=(objects[0], objects[1]))

    def describe(self) -> DatasetSpec:
        """Return the specification, without rendering an image; its statistics are those of the default options."""
        mean, std, depth = STATISTICS[self.level]
        targets = {
            name: replace(target, missing=target.missing or self.unlabelled.get(name, 0) > 0)
            for name, target in TARGETS.items()
        }
        targets["depth"] = replace(targets["depth"], mean=depth[0], std=depth[1])
        return DatasetSpec(
            input_shape=(3, *self.size),
            targets=targets,
            main_target="class",
            splits=self.own_splits(),
            mean=mean,
            std=std,
            state={},
        )

    def own_splits(self) -> tuple[str, ...]:
        return tuple(split for split, amount in self.amounts.items() if amount)

    def read(self, split: str) -> Examples:
        """Render a split, or prepare to render it while it is read if it is large.

        Args:
            split: one of `own_splits`.

        Returns:
            The examples.
        """
        scenes = RenderedScenes(
            self.amounts[split],
            self.size,
            self.difficulty,
            (self.seed, split),
            self.unlabelled if split == "train" else {},
        )
        examples = Examples(scenes, {}, maps={name: RenderedMaps(scenes, name) for name in TARGETS})
        return examples if 22 * len(scenes) * self.size[0] * self.size[1] > RESIDENT else _keep_in_memory(scenes)

    def hashes(self, split: str) -> Hashes:
        """Hash what determines each image; the pixels may differ between machines by the rounding of floating point.

        Args:
            split: one of `own_splits`.

        Returns:
            uint64 [N].
        """
        unlabelled = sorted(self.unlabelled.items()) if split == "train" else []
        options = f"{VERSION} {self.seed} {self.size} {self.difficulty} {unlabelled} {split}"
        return hash_texts([f"{stable_seed(options, row)}" for row in range(self.amounts[split])])


class RenderedScenes:
    """The images of a split, rendered when they are read. The last one is kept, because its maps are read with it.

    Args:
        amount: number of images.
        size: height and width.
        difficulty: ranges of the scenes.
        seed: seed and split.
        unlabelled: target → probability that an image has no labels of it.
    """

    def __init__(
        self,
        amount: int,
        size: tuple[int, int],
        difficulty: Difficulty,
        seed: tuple[int | str, ...],
        unlabelled: dict[str, float],
    ) -> None:
        self.amount, self.size, self.difficulty, self.seed = amount, size, difficulty, seed
        self.unlabelled = unlabelled
        self._rays = pixel_rays(*size)
        self._last: tuple[int, dict[str, Tensor]] | None = None

    def __len__(self) -> int:
        return self.amount

    def __getitem__(self, row: int) -> Tensor:
        return self.render(row)["image"]

    def render(self, row: int) -> dict[str, Tensor]:
        """Render an image.

        Args:
            row: number of the image.

        Returns:
            `image` and the maps by target.

        Raises:
            IndexError: the split has no such image.
        """
        if not 0 <= row < self.amount:
            raise IndexError(row)
        if self._last is None or self._last[0] != row:
            generator = np.random.default_rng(stable_seed("scenes", *self.seed, row))
            rendering = render(draw_scene(generator, self.difficulty), self._rays, generator)
            self._last = row, {"image": torch.from_numpy(rendering.image), **self._maps(rendering, row)}
        return self._last[1]

    def _maps(self, rendering: Rendering, row: int) -> dict[str, Tensor]:
        maps = {name: torch.from_numpy(getattr(rendering, field)) for name, field in FIELDS.items()}
        for target, share in self.unlabelled.items():
            if np.random.default_rng(stable_seed("unlabelled", *self.seed, target, row)).random() < share:
                maps[target].fill_(torch.nan if maps[target].is_floating_point() else IGNORE_BYTE)
        return maps


class RenderedMaps:
    """The maps of one target, see `RenderedScenes`.

    Args:
        scenes: the images of the split.
        target: name of the target.
    """

    def __init__(self, scenes: RenderedScenes, target: str) -> None:
        self.scenes, self.target = scenes, target

    def __len__(self) -> int:
        return len(self.scenes)

    def __getitem__(self, row: int) -> Tensor:
        return self.scenes.render(row)[self.target]


def _keep_in_memory(scenes: RenderedScenes) -> Examples:
    """Render all images of a split."""
    kept = {name: value.new_empty(len(scenes), *value.shape) for name, value in scenes.render(0).items()}
    for row in range(len(scenes)):
        for name, value in scenes.render(row).items():
            kept[name][row] = value
    return Examples(kept.pop("image"), {}, maps={**kept})
