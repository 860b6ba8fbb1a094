"""Handwritten digits of scikit-learn."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field

from mtlcli.data.base import Dataset, Examples, add_val_split
from mtlcli.registry import datasets
from mtlcli.specs import DatasetSpec, TargetSpec

EXAMPLES, TEST = 1797, 360
SEGMENTS = ("abcdef", "bc", "abdeg", "abcdg", "bcfg", "acdfg", "acdefg", "abc", "abcdefg", "abcdfg")  # lit for 0 … 9


@datasets.register("digits")
class Digits(Dataset):
    """Handwritten digits: 1,797 grayscale images of 8×8 with four targets. Part of scikit-learn; needs no download.

    Inputs: uint8 [1, 8, 8], the amount of ink in each pixel, 0 to 16.

    Targets: `digit` (ten classes), `parity` (binary, 1 = odd), `ink` (real: mean of the pixels divided by 16, 0.18 to
    0.42) and `segments` (multilabel: the segments a to g that a seven-segment display lights for the digit).

    Splits: `test` has 360 images, the first of a fixed permutation (NumPy's RandomState(0)), because the original order
    is by writer and the writers are not identified. `val` is drawn from the other 1,437.

    Args:
        val: share of the 1,437 training images that becomes the split `val`, drawn by seed: 0.1 is 144 images.
        augment: transforms of `torchvision.transforms.v2` by name, applied to each training image. Most transforms
            expect uint8 up to 255; only those that move pixels (`RandomAffine`, `RandomCrop`) preserve the scale of the
            ink.

    References:
        Alpaydin and Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository, 1998; its
        test set.
    """

    origin = "included in scikit-learn"
    fixed = True

    value_range = (0, 16)

    def __init__(
        self,
        *,
        val: Annotated[float, Field(ge=0, lt=1)] = 0.1,
        augment: list[str | dict[str, Any]] | None = None,
    ) -> None:
        super().__init__(val=val, augment=augment)

    def describe(self) -> DatasetSpec:
        """Return the constant specification, without importing scikit-learn."""
        return DatasetSpec(
            input_shape=(1, 8, 8),
            targets={
                "digit": TargetSpec("classes", 10, tuple("0123456789")),
                "parity": TargetSpec("binary"),
                "ink": TargetSpec("real", mean=0.305587, std=0.033902),
                "segments": TargetSpec("multilabel", 7, tuple("abcdefg")),
            },
            main_target="digit",
            splits=add_val_split(self.own_splits(), self.val),
            mean=(4.8894,),  # of the 1,437 training images
            std=(6.0208,),
            state={},
        )

    def read(self, split: str) -> Examples:
        """Read a split. `train` and `test` share their inputs.

        Args:
            split: `train` or `test`.

        Returns:
            The examples.
        """
        if self._read:
            whole = next(iter(self._read.values()))
            inputs, targets = whole.inputs, whole.targets
        else:
            from sklearn.datasets import load_digits

            source = load_digits()
            inputs = torch.from_numpy(source.images.astype(np.uint8)).unsqueeze(1)
            digit = torch.from_numpy(source.target.astype(np.int64))
            lit = torch.tensor([[float(segment in segments) for segment in "abcdefg"] for segments in SEGMENTS])
            targets = {
                "digit": digit,
                "parity": (digit % 2).float(),
                "ink": inputs.flatten(1).float().mean(1) / 16,
                "segments": lit[digit],
            }
        order = np.random.RandomState(0).permutation(EXAMPLES)
        rows = order[:TEST] if split == "test" else order[TEST:]
        return Examples(inputs, targets, torch.from_numpy(np.sort(rows)))
