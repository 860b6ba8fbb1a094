"""MultiFashion."""

from __future__ import annotations

from mtlcli.data.datasets._overlay import OverlaidImages
from mtlcli.data.datasets.fashion_mnist import FashionMNIST
from mtlcli.registry import datasets


@datasets.register("multi_fashion")
class MultiFashion(OverlaidImages):
    """Two garments in one grey image of 28×28, `left` over `right`: 60,000 to train on, 10,000 to test.

    Targets `left` and `right`: ten classes each. Inputs are uint8 [1, 28, 28], made of Fashion-MNIST's images as
    `multi_mnist` is made of MNIST's; the files are those of `fashion_mnist`. From Lin et al., "Pareto Multi-Task
    Learning" (2019), where they are 36×36; here they are 28×28, as `multi_mnist`'s are.

    Options:
        root: folder of the data; default $MTL_DATA, else `data`.
        download: whether to fetch missing files.
        val: share of the 60,000 set aside as the split `val`, drawn by seed before they are paired: 1/6 is 10,000
            images, and 50,000 are left to train on.
        augment: torchvision `transforms.v2` by name, applied to each pair of the split `train`:
            `{name: RandomCrop, size: 28, padding: 2}`.
    """

    left, right = FashionMNIST, FashionMNIST
    mean, std = 0.2894, 0.3650
    origin = "made of fashion_mnist"
    made_of = ("fashion_mnist",)
