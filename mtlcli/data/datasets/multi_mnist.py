"""MultiMNIST."""

from __future__ import annotations

from mtlcli.data.datasets._overlay import OverlaidImages
from mtlcli.data.datasets.mnist import MNIST
from mtlcli.registry import datasets


@datasets.register("multi_mnist")
class MultiMNIST(OverlaidImages):
    """Two handwritten digits in one grey image of 28×28, `left` over `right`: 60,000 to train on, 10,000 to test.

    Targets `left` and `right`: ten classes each. Inputs are uint8 [1, 28, 28]: on a canvas of 36×36 the left digit is
    at the top left, the right one six pixels lower and to the right, the brighter pixel counts, and the canvas is made
    28×28. Each digit is used once as the left one; its partner is drawn from the same split, and in `test` is always
    the same. The files are those of `mnist`. From Sener and Koltun, "Multi-Task Learning as Multi-Objective
    Optimization" (2018), after Sabour et al., "Dynamic Routing Between Capsules" (2017).

    Options:
        root: folder of the data; default $MTL_DATA, else `data`.
        download: whether to fetch missing files.
        val: share of the 60,000 set aside as the split `val`, drawn by seed before they are paired: 1/6 is 10,000
            images, and 50,000 are left to train on.
        augment: torchvision `transforms.v2` by name, applied to each pair of the split `train`:
            `{name: RandomCrop, size: 28, padding: 2}`.
    """

    left, right = MNIST, MNIST
    mean, std = 0.1460, 0.3244
    origin = "made of mnist"
    made_of = ("mnist",)
