"""What MultiMNIST, MultiFashion and Multi-(Fashion+MNIST) share: two images, one over the other."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from mtlcli.data.base import Dataset, Examples, add_val_split
from mtlcli.data.content_hash import Hashes
from mtlcli.data.datasets._idx_images import IdxImages
from mtlcli.data.download.collection import data_root
from mtlcli.data.shuffling import stable_seed
from mtlcli.specs import DatasetSpec, TargetSpec

SIZE, CANVAS = 28, 36
LEFT, RIGHT = slice(0, 28), slice(6, 34)  # of the canvas's rows and of its columns: the right image lies lower, too
NEAREST = (2 * np.arange(SIZE) + 1) * CANVAS // (2 * SIZE)  # ⌊(i + ½)·36/28⌋, the pixel nearest to pixel i's middle


class OverlaidImages(Dataset):
    """Base of datasets of two overlaid images: inputs uint8 [N, 1, 28, 28], targets `left` and `right`, int64 [N].

    left, right: the datasets the two images are of. mean, std: of all pixels of the 50,000 pairs of the split `train`
    at seed 0, in 0…1, as `tests/data/test_overlaid.py` computes them. download: whether missing files are fetched.

    Every image of a split of `left` is used once, in its order. Its partner is any image of the same split of `right`
    (some are drawn several times, some never), so no image is in two splits. The numbers come from NumPy's generator
    seeded with `stable_seed("partner", split)`: partners in `test` are always the same, and those in `train` and `val`
    depend on the experiment's seed only through the images in the split.
    """

    left: ClassVar[type[IdxImages]]
    right: ClassVar[type[IdxImages]]
    mean: ClassVar[float]
    std: ClassVar[float]
    fixed = True

    value_range = (0, 255)

    def __init__(
        self,
        *,
        root: str | None = None,
        download: bool = True,
        val: Annotated[float, Field(ge=0, lt=1)] = 1 / 6,
        augment: list[str | dict[str, Any]] | None = None,
    ) -> None:
        super().__init__(val=val, augment=augment)
        data_root(root)  # a folder that can't be is a problem of the configuration, before any file is looked for
        self.root, self.download = root, download

    def describe(self) -> DatasetSpec:
        """Constant: reads no file."""
        return DatasetSpec(
            input_shape=(1, SIZE, SIZE),
            targets={
                "left": TargetSpec("classes", 10, self.left.classes),
                "right": TargetSpec("classes", 10, self.right.classes),
            },
            main_target=None,
            splits=add_val_split(self.own_splits(), self.val),
            mean=(self.mean * 255,),
            std=(self.std * 255,),
            state={},
        )

    def examples(self, split: str, seed: int) -> Examples:
        """`train` and `val` are carved from the single images, by `seed` as ever, before they are paired."""
        if split == "all":
            return self.whole()
        key = f"{split} {seed}"
        if key not in self._read:
            left, right = self._single(self.left, split, seed), self._single(self.right, split, seed)
            generator = np.random.default_rng(stable_seed("partner", split))
            partner = torch.from_numpy(generator.integers(len(right[0]), size=len(left[0])))
            targets = {"left": left[1], "right": right[1][partner]}
            self._read[key] = Examples(overlay(left[0], right[0][partner]), targets)
        return self._read[key]

    def read(self, split: str) -> Examples:
        """`train` with nothing carved from it, or `test`."""
        whole = type(self)(root=self.root, download=self.download, val=0.0, augment=None)
        return whole.examples(split, 0)

    def hashes(self, split: str) -> Hashes:
        """Those of the single images, which aren't as many as the pairs where there are two datasets of them."""
        sides = dict.fromkeys((self.left, self.right))
        sources = [side(root=self.root, download=self.download, val=0.0, augment=None) for side in sides]
        return np.concatenate([hashes for source in sources if (hashes := source.hashes(split)) is not None])

    def _single(self, dataset: type[IdxImages], split: str, seed: int) -> tuple[Tensor, Tensor]:
        """The images [N, 1, 28, 28] and labels [N] of a split. Its messages name the dataset they are of."""
        source = dataset(root=self.root, download=self.download, val=self.val, augment=None)
        found = source.examples(split, seed)
        assert isinstance(found.inputs, Tensor)
        return found.inputs if found.rows is None else found.inputs[found.rows], found.labels(dataset.target)


def overlay(left: Tensor, right: Tensor) -> Tensor:
    """The images `left` with the images `right` over them, uint8 [N, 1, 28, 28] each: uint8 [N, 1, 28, 28].

    On a canvas of 36×36 the left one is at the top left and the right one six pixels lower and to the right; where both
    are, the brighter pixel counts. The canvas is made 28×28 by taking the nearest pixels.

    From Sener and Koltun, "Multi-Task Learning as Multi-Objective Optimization" (2018), `multi_mnist_loader.py` in
    their code, where SciPy's old `imresize` also stretches each image to 0…255. That is left out here, as it is in the
    code of Kurin et al., "In Defense of the Unitary Scalarization for Deep Multi-Task Learning" (2022).
    """
    canvas = left.new_zeros(len(left), 1, CANVAS, CANVAS)
    canvas[..., LEFT, LEFT] = left
    place = canvas[..., RIGHT, RIGHT]
    torch.maximum(place, right, out=place)
    return torch.from_numpy(canvas.numpy().take(NEAREST, 2).take(NEAREST, 3))  # F.interpolate takes 6 times as long
