"""MultiFashion dataset."""

from __future__ import annotations

from mtlcli.data.datasets._overlay import OverlaidImages
from mtlcli.data.datasets.fashion_mnist import FashionMNIST
from mtlcli.registry import datasets


@datasets.register("multi_fashion")
class MultiFashion(OverlaidImages):
    """MultiFashion: 60,000 training and 10,000 test images of two overlaid garments, grayscale, 28×28.

    Inputs: uint8 [1, 28, 28], made from Fashion-MNIST's images as `multi_mnist` is from MNIST's. Targets: `left` and
    `right`, ten classes each. Files: those of `fashion_mnist`.

    Args:
        root: data root; default $MTL_DATA, else `data`.
        download: whether to download missing files.
        val: share of the 60,000 training images that becomes the split `val`, drawn by seed before the images are
            paired: 1/6 is 10,000 images and leaves 50,000 for training.
        augment: transforms of `torchvision.transforms.v2` by name, applied to each training pair, such as
            `{name: RandomCrop, size: 28, padding: 2}`.

    References:
        Lin, Zhen, Li, Zhang and Kwong, "Pareto Multi-Task Learning", NeurIPS 2019, arXiv:1912.12854.

    Note:
        The paper's images are 36×36; here they are 28×28, like those of `multi_mnist`.
    """

    left, right = FashionMNIST, FashionMNIST
    mean, std = 0.2894, 0.3650
    origin = "composed from fashion_mnist"
    made_of = ("fashion_mnist",)
