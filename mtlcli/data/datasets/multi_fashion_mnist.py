"""Multi-(Fashion+MNIST) dataset."""

from __future__ import annotations

from mtlcli.data.datasets._overlay import OverlaidImages
from mtlcli.data.datasets.fashion_mnist import FashionMNIST
from mtlcli.data.datasets.mnist import MNIST
from mtlcli.registry import datasets


@datasets.register("multi_fashion_mnist")
class MultiFashionMNIST(OverlaidImages):
    """Multi-(Fashion+MNIST): 60,000 training and 10,000 test images of a garment and a digit, grayscale, 28×28.

    Inputs: uint8 [1, 28, 28], made as those of `multi_mnist`; each garment is used once, with a digit drawn from the
    same split. Targets: `left`, ten classes of garments, and `right`, ten digits. Files: those of `fashion_mnist` and
    `mnist`.

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

    left, right = FashionMNIST, MNIST
    mean, std = 0.2233, 0.3518
    origin = "composed from fashion_mnist and mnist"
    made_of = ("fashion_mnist", "mnist")
