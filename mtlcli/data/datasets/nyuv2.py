"""NYUv2: indoor scenes with classes, depth and normals."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from mtlcli.data.datasets._dense_dataset import DenseDataset, Normalize
from mtlcli.data.datasets.images import Sides
from mtlcli.data.formats.array_images import ArrayImages
from mtlcli.data.formats.compressed import describe_os_error
from mtlcli.data.formats.dense_files import DenseSplit, find_numbered, require_files
from mtlcli.data.formats.images import ImageFiles
from mtlcli.data.formats.mask_targets import MaskTarget
from mtlcli.data.formats.nyu_archive import LABELLED, NyuArchive
from mtlcli.errors import ConfigError
from mtlcli.registry import datasets

CLASSES_13 = (
    "bed", "books", "ceiling", "chair", "floor", "furniture", "objects", "picture", "sofa", "table", "tv", "wall",
    "window",
)  # fmt: skip
CLASSES_40 = (
    "wall", "floor", "cabinet", "bed", "chair", "sofa", "table", "door", "window", "bookshelf", "picture", "counter",
    "blinds", "desk", "shelves", "curtain", "dresser", "pillow", "mirror", "floor mat", "clothes", "ceiling", "books",
    "refrigerator", "television", "paper", "towel", "shower curtain", "box", "whiteboard", "person", "night stand",
    "toilet", "sink", "lamp", "bathtub", "bag", "other structure", "other furniture", "other prop",
)  # fmt: skip
SPLITS = {"train": "train", "test": "val"}  # split → its name in the files
MAT = LABELLED, "splits.mat", "classMapping40.mat"


@datasets.register("nyuv2")
class NYUv2(DenseDataset):
    """NYUv2: 795 training and 654 test images of rooms, with classes, depth and normals for each pixel.

    Inputs: uint8 [3, H, W], RGB. Targets: `segmentation`, 13 or 40 classes; `depth` in metres; `normals`, unit vectors
    x, y, z. Pixels without a label (class -1 or 0, depth 0, normal 0) are missing. The split `test` is the one that the
    field evaluates on, often named `val`. Nothing is downloaded; `root` has the files of one of three layouts:

    `npy`, the files of MTAN (nyuv2.zip, linked in https://github.com/lorenmt/mtan), 288×384, 13 classes -1 to 12:

        root/train/image/0.npy … 794.npy    [288, 384, 3], floats from 0 to 1
        root/train/label/0.npy …            [288, 384]
        root/train/depth/0.npy …            [288, 384, 1], metres
        root/train/normal/0.npy …           [288, 384, 3]
        root/val/image, label, depth, normal/0.npy … 653.npy

    `folders`, NYUD_MT.tgz of ASTMT, MTI-Net, ATRC and InvPT (linked in
    https://github.com/prismformore/Multi-Task-Transformer), 425×560, 40 classes 1 to 40:

        root/gt_sets/train.txt, val.txt     a name in each line
        root/images/NAME.jpg                or .png
        root/segmentation/NAME.png
        root/depth/NAME.npy                 metres
        root/normals/NAME.npy               [H, W, 3]
        root/edge/NAME.npy                  0 and 1; target `edge`

    `mat`, the original, without normals, cropped to 425×560 as in `folders` (needs the library h5py):

        root/nyu_depth_v2_labeled.mat       https://cs.nyu.edu/~silberman/datasets/nyu_depth_v2.html
        root/splits.mat                     in the toolbox there
        root/classMapping40.mat             894 labels to 40 classes (Gupta et al. 2013)
        root/class13Mapping.mat             these to 13 classes (Couprie et al. 2013), for `classes: 13`

    (the last three are also in https://github.com/VainF/nyuv2-python-toolkit).

    In `npy` and `folders`, a target whose folders are missing is left out.

    Args:
        root: folder of the files. Default: the folder `nyuv2` in $MTL_DATA, else in `data`.
        layout: `npy`, `folders` or `mat`; `auto` for the first one found.
        classes: number of classes, 13 or 40. Default: 40 for `folders`, else 13.
        size: images and maps are resized to [height, width]. Default: the size of the files.
        normalize: normalization of the images: `unit` to values from 0 to 1, as the published code of MTAN, CAGrad and
            Nash-MTL does; `half`: to values from -1 to 1; `imagenet`: as torchvision's pretrained models.
        val: share of the training images that becomes the split `val`, drawn by seed; 0 for no split `val`.
        augment: transforms of `torchvision.transforms.v2` by name, applied to each training image and its maps.

    Raises:
        ValueError: the layout has other classes.

    References:
        Silberman, Hoiem, Kohli and Fergus, "Indoor Segmentation and Support Inference from RGBD Images", ECCV 2012.
    """

    name = folder = "nyuv2"
    origin = "placed by hand, see `mtl show nyuv2`"
    layouts: ClassVar = {"npy": ("train/image", "val/image"), "folders": ("images", "gt_sets"), "mat": (LABELLED,)}
    published: ClassVar = {"train": 795, "test": 654}

    def __init__(
        self,
        *,
        root: str | None = None,
        layout: Literal["auto", "npy", "folders", "mat"] = "auto",
        classes: Literal[13, 40] | None = None,
        size: Sides | None = None,
        normalize: Normalize = "unit",
        val: Annotated[float, Field(ge=0, lt=1)] = 0.1,
        augment: list[str | dict[str, Any]] | None = None,
    ) -> None:
        super().__init__(root=root, layout=layout, size=size, normalize=normalize, val=val, augment=augment)
        self.classes = classes

    def _open(self, layout: str) -> dict[str, DenseSplit]:
        amount = self.classes or (40 if layout == "folders" else 13)
        if layout != "mat" and amount != (only := 40 if layout == "folders" else 13):
            raise ConfigError(f"the files of `layout: {layout}` have {only} classes, so `classes` can't be {amount}")
        if layout == "npy":
            return self._open_arrays()
        if layout == "folders":
            return self._open_folders()
        require_files([self.root / name for name in MAT], "; `mtl show nyuv2` tells where to get it")
        archive = NyuArchive(self.root, CLASSES_13 if amount == 13 else CLASSES_40)
        prepare = self._prepare(archive.images)
        return archive.open_splits(prepare)

    def _open_arrays(self) -> dict[str, DenseSplit]:
        targets = {
            "segmentation": ("label", MaskTarget("segmentation", "classes", CLASSES_13, ignore=(-1,))),
            "depth": ("depth", MaskTarget("depth", "depth")),
            "normals": ("normal", MaskTarget("normals", "normals")),
        }
        present = {name: given for name, given in targets.items() if self._has(given[0])}
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

    def _has(self, folder: str) -> bool:
        return any((self.root / split / folder).is_dir() for split in SPLITS.values())

    def _open_folders(self) -> dict[str, DenseSplit]:
        codes = {value: value - 1 for value in range(1, 41)}
        targets = {
            "segmentation": (
                "segmentation",
                ".png",
                MaskTarget("segmentation", "classes", CLASSES_40, codes, (0, 255)),
            ),
            "depth": ("depth", ".npy", MaskTarget("depth", "depth")),
            "normals": ("normals", ".npy", MaskTarget("normals", "normals")),
            "edge": ("edge", ".npy", MaskTarget("edge", "binary")),
        }
        present = {name: given for name, given in targets.items() if (self.root / given[0]).is_dir()}
        names = {split: _read_names(self.root / f"gt_sets/{file}.txt") for split, file in SPLITS.items()}
        images = {split: [self._find_image(name) for name in of_split] for split, of_split in names.items()}
        prepare = self._prepare(lambda prepare: ImageFiles(images["train"][:1], prepare))
        splits = {}
        for split, of_split in names.items():
            maps = {
                name: (target, [self.root / folder / f"{line}{suffix}" for line in of_split])
                for name, (folder, suffix, target) in present.items()
            }
            paths = [*images[split], *(path for _, files in maps.values() for path in files)]
            require_files(paths, f", but gt_sets/{SPLITS[split]}.txt lists it")
            splits[split] = self._make_split(images[split], maps, prepare)
        return splits

    def _find_image(self, name: str) -> Path:
        jpeg = self.root / "images" / f"{name}.jpg"
        png = jpeg.with_name(f"{name}.png")
        return png if png.is_file() and not jpeg.is_file() else jpeg


def _read_names(file: Path) -> list[str]:
    try:
        names = [line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise ConfigError(f"{file}: can't be read: {describe_os_error(error)}") from error
    if not names:
        raise ConfigError(f"{file}: lists no images")
    return names
