"""Cityscapes: street scenes with classes and disparity."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from mtlcli.data.datasets._dense_dataset import DenseDataset, Normalize
from mtlcli.data.datasets.images import Sides
from mtlcli.data.formats.array_images import ArrayImages
from mtlcli.data.formats.dense_files import DenseSplit, find_numbered, require_files
from mtlcli.data.formats.images import ImageFiles
from mtlcli.data.formats.mask_targets import MaskTarget
from mtlcli.errors import ConfigError
from mtlcli.registry import datasets

# id in a file → its class, of those that are evaluated, in the order of the train ids
TRAIN_IDS = {
    7: "road", 8: "sidewalk", 11: "building", 12: "wall", 13: "fence", 17: "pole", 19: "traffic light",
    20: "traffic sign", 21: "vegetation", 22: "terrain", 23: "sky", 24: "person", 25: "rider", 26: "car", 27: "truck",
    28: "bus", 31: "train", 32: "motorcycle", 33: "bicycle",
}  # fmt: skip
CATEGORIES = {
    "flat": range(7, 11), "construction": range(11, 17), "object": range(17, 21), "nature": range(21, 23),
    "sky": range(23, 24), "human": range(24, 26), "vehicle": range(26, 34),
}  # fmt: skip
LARGEST_ID = 33
SPLITS = {"train": "train", "test": "val"}  # split → its name in the files
SUFFIX = "_leftImg8bit.png"


@datasets.register("cityscapes")
class Cityscapes(DenseDataset):
    """Cityscapes: 2,975 training and 500 test images of streets, with classes and disparity for each pixel.

    Inputs: uint8 [3, H, W], RGB. Targets: `segmentation`, 7 or 19 classes; `depth`, the disparity (inverse depth), as
    the field calls it. Pixels without a label (class -1 or void, disparity 0) are missing. The split `test` is the
    published `val`, on which the field evaluates. Nothing is downloaded; `root` has the files of one of two layouts:

    `npy`, the files of MTAN (cityscapes2.zip, 128×256, or cityscapes.zip, 256×512, linked in
    https://github.com/lorenmt/mtan), whose classes have numbers only and whose disparity is p / 65535 of the original
    pixels p:

        root/train/image/0.npy … 2974.npy   [128, 256, 3], floats from 0 to 1
        root/train/label_7/0.npy …          [128, 256], -1 to 6; also as label/
        root/train/label_19/0.npy …         for `classes: 19`
        root/train/depth/0.npy …            [128, 256, 1]
        root/val/image, label_7, depth/0.npy … 499.npy

    `folders`, the originals (https://www.cityscapes-dataset.com: leftImg8bit_trainvaltest.zip, gtFine_trainvaltest.zip,
    disparity_trainvaltest.zip), 1024×2048:

        root/leftImg8bit/train/CITY/NAME_leftImg8bit.png
        root/gtFine/train/CITY/NAME_gtFine_labelIds.png
        root/disparity/train/CITY/NAME_disparity.png    16 bits
        root/leftImg8bit, gtFine, disparity/val/CITY/…

    A target whose folders are missing is left out.

    Args:
        root: folder of the files. Default: the folder `cityscapes` in $MTL_DATA, else in `data`.
        layout: `npy` or `folders`; `auto` for the first one found.
        classes: 19 train ids, or 7 categories.
        disparity: unit of the disparity of `folders`: `pixels` of the original images, (p − 1) / 256, or `unit`,
            p / 65535 as in the files of MTAN.
        size: images and maps are resized to [height, width], without a change of the disparity. Default: the size of
            the files.
        normalize: normalization of the images: `unit` to values from 0 to 1, as the published code of MTAN, CAGrad and
            Nash-MTL does; `half`: to values from -1 to 1; `imagenet`: as torchvision's pretrained models.
        val: share of the training images that becomes the split `val`, drawn by seed; 0 for no split `val`.
        augment: transforms of `torchvision.transforms.v2` by name, applied to each training image and its maps.

    References:
        Cordts et al., "The Cityscapes Dataset for Semantic Urban Scene Understanding", CVPR 2016.
    """

    name = folder = "cityscapes"
    origin = "placed by hand, see `mtl show cityscapes`"
    layouts: ClassVar = {"npy": ("train/image", "val/image"), "folders": ("leftImg8bit/train", "leftImg8bit/val")}
    published: ClassVar = {"train": 2975, "test": 500}

    def __init__(
        self,
        *,
        root: str | None = None,
        layout: Literal["auto", "npy", "folders"] = "auto",
        classes: Literal[7, 19] = 7,
        disparity: Literal["pixels", "unit"] = "pixels",
        size: Sides | None = None,
        normalize: Normalize = "unit",
        val: Annotated[float, Field(ge=0, lt=1)] = 0.1,
        augment: list[str | dict[str, Any]] | None = None,
    ) -> None:
        super().__init__(root=root, layout=layout, size=size, normalize=normalize, val=val, augment=augment)
        self.classes, self.disparity = classes, disparity

    def _open(self, layout: str) -> dict[str, DenseSplit]:
        return self._open_arrays() if layout == "npy" else self._open_folders()

    def _open_arrays(self) -> dict[str, DenseSplit]:
        labels = f"label_{self.classes}"
        if self.classes == 7 and not (self.root / "train" / labels).is_dir():
            labels = "label"
        targets = {
            "segmentation": (labels, MaskTarget("segmentation", "classes", self.classes, ignore=(-1,))),
            "depth": ("depth", MaskTarget("depth", "depth")),
        }
        present = {name: given for name, given in targets.items() if (self.root / "train" / given[0]).is_dir()}
        folders = ["image", *(folder for folder, _ in present.values())]
        files = {split: find_numbered(self.root / name, folders) for split, name in SPLITS.items()}
        prepare = self._prepare(lambda prepare: ArrayImages(files["train"]["image"][:1], prepare))
        return {
            split: self._make_split(
                found["image"],
                {name: (target, found[folder]) for name, (folder, target) in present.items()},
                prepare,
            )
            for split, found in files.items()
        }

    def _open_folders(self) -> dict[str, DenseSplit]:
        images = {split: self._list_images(name) for split, name in SPLITS.items()}
        prepare = self._prepare(lambda prepare: ImageFiles(images["train"][:1], prepare))
        targets = {
            "segmentation": ("gtFine", "_gtFine_labelIds.png", _classes(self.classes)),
            "depth": ("disparity", "_disparity.png", _disparity(self.disparity)),
        }
        present = {name: given for name, given in targets.items() if (self.root / given[0]).is_dir()}
        splits = {}
        for split, of_split in images.items():
            maps = {
                name: (target, [self._match(path, folder, suffix) for path in of_split])
                for name, (folder, suffix, target) in present.items()
            }
            for _, files in maps.values():
                require_files(files, "; expected one for each image in leftImg8bit")
            splits[split] = self._make_split(of_split, maps, prepare)
        return splits

    def _list_images(self, split: str) -> list[Path]:
        folder = self.root / "leftImg8bit" / split
        images = sorted(folder.glob(f"*/*{SUFFIX}"))
        if not images:
            raise ConfigError(f"{folder}: has no images CITY/NAME{SUFFIX}")
        return images

    def _match(self, image: Path, folder: str, suffix: str) -> Path:
        """Return the file of a target that belongs to an image."""
        split, city = image.parts[-3:-1]
        return self.root / folder / split / city / f"{image.name.removesuffix(SUFFIX)}{suffix}"


def _classes(amount: int) -> MaskTarget:
    if amount == 19:
        names = tuple(TRAIN_IDS.values())
        codes = {value: code for code, value in enumerate(TRAIN_IDS)}
    else:
        names = tuple(CATEGORIES)
        codes = {value: code for code, values in enumerate(CATEGORIES.values()) for value in values}
    void = tuple(value for value in range(LARGEST_ID + 1) if value not in codes)
    return MaskTarget("segmentation", "classes", names, codes, void)


def _disparity(unit: str) -> MaskTarget:
    if unit == "unit":
        return MaskTarget("depth", "depth", scale=65535)
    return MaskTarget("depth", "depth", scale=256, offset=1)
