"""Fashion-MNIST dataset."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from mtlcli.data.datasets._idx_images import IdxImages
from mtlcli.data.download.collection import Collection
from mtlcli.data.download.sources import DebianPackage, Mirrors, SystemCopy
from mtlcli.registry import datasets

INSTALLED = "usr/share/datasets/fashion-mnist"  # folder of Debian's package below /


@datasets.register("fashion_mnist")
class FashionMNIST(IdxImages):
    """Fashion-MNIST: 60,000 training and 10,000 test images of garments, grayscale, 28×28.

    Inputs: uint8 [1, 28, 28]. Target: `garment`, ten classes.

    Files: those of torchvision, plain or .gz, in its folder `<root>/FashionMNIST/raw`.

    Args:
        root: data root; default $MTL_DATA, else `data`.
        download: whether to download missing files.
        val: share of the 60,000 training images that becomes the split `val`, drawn by seed: 0.05 is 3,000 images.
        augment: transforms of `torchvision.transforms.v2` by name, applied to each training image, such as
            `RandomHorizontalFlip` or `{name: RandomCrop, size: 28, padding: 2}`.

    References:
        Xiao, Rasul and Vollgraf, "Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning Algorithms",
        2017, arXiv:1708.07747.
    """

    name = "fashion_mnist"
    target = "garment"
    classes = (
        "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
    )  # fmt: skip
    mean, std = 0.2860, 0.3530
    origin = f"/{INSTALLED}, torchvision's mirrors, Debian (dataset-fashion-mnist)"
    collection = Collection(
        folder="FashionMNIST",
        files={
            "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
            "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
            "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
            "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
        },
        sources=(
            SystemCopy(Path("/", INSTALLED)),
            Mirrors("FashionMNIST"),
            DebianPackage("dataset-fashion-mnist", folder=INSTALLED),
        ),
    )

    def __init__(
        self,
        *,
        root: str | None = None,
        download: bool = True,
        val: Annotated[float, Field(ge=0, lt=1)] = 0.05,
        augment: list[str | dict[str, Any]] | None = None,
    ) -> None:
        super().__init__(root=root, download=download, val=val, augment=augment)
