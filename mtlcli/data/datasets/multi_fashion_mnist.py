"""Multi-(Fashion+MNIST)."""

from __future__ import annotations

from mtlcli.data.datasets._overlay import OverlaidImages
from mtlcli.data.datasets.fashion_mnist import FashionMNIST
from mtlcli.data.datasets.mnist import MNIST
from mtlcli.registry import datasets


@datasets.register("multi_fashion_mnist")
class MultiFashionMNIST(OverlaidImages):
    """A garment, `left`, and a digit, `right`, in one grey image of 28×28: 60,000 to train on, 10,000 to test.

    Targets `left`, ten classes of garments, and `right`, ten digits. Inputs are uint8 [1, 28, 28], made as those of
    `multi_mnist` are; each garment is used once, with a digit drawn from the same split. The files are those of
    `fashion_mnist` and `mnist`. From Lin et al., "Pareto Multi-Task Learning" (2019), where they are 36×36; here they
    are 28×28, as `multi_mnist`'s are.

    Options:
        root: folder of the data; default $MTL_DATA, else `data`.
        download: whether to fetch missing files.
        val: share of the 60,000 set aside as the split `val`, drawn by seed before they are paired: 1/6 is 10,000
            images, and 50,000 are left to train on.
        augment: torchvision `transforms.v2` by name, applied to each pair of the split `train`:
            `{name: RandomCrop, size: 28, padding: 2}`.
    """

    left, right = FashionMNIST, MNIST
    mean, std = 0.2233, 0.3518
    origin = "made of fashion_mnist and mnist"
    made_of = ("fashion_mnist", "mnist")
