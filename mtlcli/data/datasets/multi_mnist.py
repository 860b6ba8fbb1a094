"""MultiMNIST dataset."""

from __future__ import annotations

from mtlcli.data.datasets._overlay import OverlaidImages
from mtlcli.data.datasets.mnist import MNIST
from mtlcli.registry import datasets


@datasets.register("multi_mnist")
class MultiMNIST(OverlaidImages):
    """MultiMNIST: 60,000 training and 10,000 test images of two overlaid handwritten digits, grayscale, 28×28.

    Inputs: uint8 [1, 28, 28]. On a canvas of 36×36 the left digit is at the top left, the right one six pixels lower
    and to the right; where they overlap, the brighter pixel is used. The canvas is resized to 28×28. Each digit is used
    once as the left one; its partner is drawn from the same split, and never changes in `test`. Targets: `left` and
    `right`, ten classes each. Files: those of `mnist`.

    Args:
        root: data root; default $MTL_DATA, else `data`.
        download: whether to download missing files.
        val: share of the 60,000 training images that becomes the split `val`, drawn by seed before the images are
            paired: 1/6 is 10,000 images and leaves 50,000 for training.
        augment: transforms of `torchvision.transforms.v2` by name, applied to each training pair, such as
            `{name: RandomCrop, size: 28, padding: 2}`.

    References:
        Sener and Koltun, "Multi-Task Learning as Multi-Objective Optimization", NeurIPS 2018, arXiv:1810.04650; after
        Sabour, Frosst and Hinton, "Dynamic Routing Between Capsules", NeurIPS 2017, arXiv:1710.09829.
    """

    left, right = MNIST, MNIST
    mean, std = 0.1460, 0.3244
    origin = "composed from mnist"
    made_of = ("mnist",)
