"""Fashion-MNIST."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from mtlcli.data.fetching import Collection
from mtlcli.data.idx_images import IdxImages
from mtlcli.data.sources import DebianPackage, Mirrors, SystemCopy
from mtlcli.registry import datasets

INSTALLED = "usr/share/datasets/fashion-mnist"  # by Debian's package, below /


@datasets.register("fashion_mnist")
class FashionMNIST(IdxImages):
    """Garments: 60,000 grey images of 28×28 to train on, 10,000 to test.

    Target `garment`: ten classes. Inputs are uint8 [1, 28, 28]. The files are those of torchvision, in its folders
    (`<root>/FashionMNIST/raw`), fetched where they are missing; .gz will do. From Xiao, Rasul and Vollgraf,
    "Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning Algorithms" (2017).

    Options:
        root: folder of the data; default $MTL_DATA, else `data`.
        download: whether to fetch missing files.
        val: share of the 60,000 set aside as the split `val`, drawn by seed: 0.05 is 3,000 images.
        augment: torchvision `transforms.v2` by name, applied to each training image: `RandomHorizontalFlip`,
            `{name: RandomCrop, size: 28, padding: 2}`.
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
            "train-images-idx3-ubyte": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
            "train-labels-idx1-ubyte": "9018921c3c673c538a1fc5bad174d6f9",
            "t10k-images-idx3-ubyte": "8181f5470baa50b63fa0f6fddb340f0a",
            "t10k-labels-idx1-ubyte": "15d484375f8d13e6eb1aabb0c3f46965",
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
