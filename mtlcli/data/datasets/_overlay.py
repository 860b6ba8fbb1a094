"""Base class of MultiMNIST, MultiFashion and Multi-(Fashion+MNIST): pairs of overlaid images."""

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
from mtlcli.data.samplers.base import stable_seed
from mtlcli.specs import DatasetSpec, TargetSpec

SIZE, CANVAS = 28, 36
LEFT, RIGHT = slice(0, 28), slice(6, 34)  # of the canvas's rows and columns: the right image is also lower
NEAREST = (
    (2 * np.arange(SIZE) + 1) * CANVAS // (2 * SIZE)
)  # ⌊(i + ½)·36/28⌋, the pixel nearest to the center of pixel i


class OverlaidImages(Dataset):
    """Base class of datasets of two overlaid images.

    Inputs are uint8 [N, 1, 28, 28]; the targets `left` and `right` are int64 [N].

    Every image of a split of `left` is used once, in its order. Its partner is a random image of the same split of
    `right` (some are drawn several times, some never), so no image is in two splits. Partners are drawn by NumPy's
    generator with the seed `stable_seed("partner", split)`: those in `test` never change, and those in `train` and
    `val` depend on the experiment's seed only through the membership in these splits.

    Args:
        root: data root; default $MTL_DATA, else `data`.
        download: whether to download missing files.
        val: share of the 60,000 training images that becomes the split `val`, drawn by seed before the images are
            paired: 1/6 is 10,000 images and leaves 50,000 for training.
        augment: transforms of `torchvision.transforms.v2` by name, applied to each training pair, such as
            `{name: RandomCrop, size: 28, padding: 2}`.

    Attributes:
        left: dataset of the left images.
        right: dataset of the right images.
        mean: mean of all pixels of the 50,000 pairs of `train` at seed 0, in 0…1, as
            `tests/data/datasets/test_overlay.py` computes it.
        std: their standard deviation.
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
        data_root(root)  # reports an invalid path as an error of the configuration
        self.root, self.download = root, download

    def describe(self) -> DatasetSpec:
        """Return the constant specification, without reading a file."""
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
        """Draw `train` and `val` from the single images, then pair them.

        Args:
            split: `train`, `val`, `test`, or `all` for the examples of all splits.
            seed: seed by which `val` is drawn.

        Returns:
            The pairs.
        """
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
        """Read a split without drawing `val` from it.

        Args:
            split: `train` or `test`.

        Returns:
            The pairs.
        """
        whole = type(self)(root=self.root, download=self.download, val=0.0, augment=None)
        return whole.examples(split, 0)

    def hashes(self, split: str) -> Hashes:
        """Return the hashes of the single images; with two datasets of images, these are more than the pairs.

        Args:
            split: `train` or `test`.

        Returns:
            uint64 [M].
        """
        sides = dict.fromkeys((self.left, self.right))
        sources = [side(root=self.root, download=self.download, val=0.0, augment=None) for side in sides]
        return np.concatenate([hashes for source in sources if (hashes := source.hashes(split)) is not None])

    def _single(self, dataset: type[IdxImages], split: str, seed: int) -> tuple[Tensor, Tensor]:
        """Return the images [N, 1, 28, 28] and labels [N] of a split of single images."""
        source = dataset(root=self.root, download=self.download, val=self.val, augment=None)
        examples = source.examples(split, seed)
        assert isinstance(examples.inputs, Tensor)
        images = examples.inputs if examples.rows is None else examples.inputs[examples.rows]
        return images, examples.labels(dataset.target)


def overlay(left: Tensor, right: Tensor) -> Tensor:
    """Overlay pairs of images.

    The left image is placed at the top left of a 36×36 canvas, the right one six pixels lower and to the right. Where
    they overlap, the brighter pixel is used. The canvas is resized to 28×28 by nearest-neighbor sampling.

    Args:
        left: uint8 [N, 1, 28, 28].
        right: uint8 [N, 1, 28, 28].

    Returns:
        uint8 [N, 1, 28, 28].

    References:
        Sener and Koltun, "Multi-Task Learning as Multi-Objective Optimization", NeurIPS 2018, arXiv:1810.04650, with
        their code in `multi_mnist_loader.py`.

    Note:
        SciPy's former `imresize`, used in that code, also stretches each image to 0…255. This is omitted here, as in
        the code of Kurin et al., "In Defense of the Unitary Scalarization for Deep Multi-Task Learning", NeurIPS 2022.
    """
    canvas = left.new_zeros(len(left), 1, CANVAS, CANVAS)
    canvas[..., LEFT, LEFT] = left
    place = canvas[..., RIGHT, RIGHT]
    torch.maximum(place, right, out=place)
    return torch.from_numpy(canvas.numpy().take(NEAREST, 2).take(NEAREST, 3))  # 6 times as fast as F.interpolate
