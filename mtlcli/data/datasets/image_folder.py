"""Images in folders, one for each class."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import Field

from mtlcli.data.compressed import reason
from mtlcli.data.dataset import Dataset, Examples, adopted, carved_splits
from mtlcli.data.image_files import ImageFiles, image_paths
from mtlcli.data.names import fault, listed, shown
from mtlcli.data.shuffling import stable_seed
from mtlcli.errors import ConfigError, nearest
from mtlcli.registry import datasets
from mtlcli.specs import DatasetSpec, TargetSpec

SPLITS = ("train", "val", "test")
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


@datasets.register("image_folder")
class ImageFolder(Dataset):
    """Images of your own in a folder for each class, as torchvision's ImageFolder has them.

    Either `root/train/<class>/*.png`, with `root/val` and `root/test` where there are such splits, or
    `root/<class>/*.png`, of which a share becomes `test`. Target `class`: the names of the folders, by alphabet. Inputs
    are uint8 [channels, height, width], read when they are needed, or once where they are small. ConfigError for a
    folder that isn't so; MtlError, when it is read, for a file that is no image, or one of more than 50 million pixels
    or of more than 8 bits for each.

    Options:
        root: the folder.
        size: the images are resized to size × size, at most 4096; needed where they differ. Default: the size they
            have.
        channels: 3 for colour, 1 for grey; the images are converted.
        normalize: by which mean and standard deviation; `half`: half of the range each; `imagenet`: as torchvision's
            pretrained models expect it.
        test: share of the images that becomes the split `test` where there are no folders for splits.
        seed: draws the images of `test`; the same for every run, whatever the run's own seed.
        val: share of the training images set aside as the split `val`, drawn by the run's seed, unless there is a
            folder `val`.
        augment: torchvision `transforms.v2` by name, applied to each training image: `RandomHorizontalFlip`,
            `{name: RandomResizedCrop, size: 64}`.
    """

    def __init__(
        self,
        *,
        root: str,
        size: Annotated[int, Field(ge=1, le=4096)] | None = None,
        channels: Literal[1, 3] = 3,
        normalize: Literal["half", "imagenet"] = "half",
        test: Annotated[float, Field(ge=0, le=1)] = 0.2,
        seed: Annotated[int, Field(ge=0)] = 0,
        val: Annotated[float, Field(ge=0, lt=1)] = 0.1,
        augment: list[str | dict[str, Any]] | None = None,
    ) -> None:
        super().__init__(val=val, augment=augment)
        if normalize == "imagenet" and channels != 3:
            raise ValueError("`normalize: imagenet` needs `channels: 3`")
        self.root, self.size, self.channels, self.normalize = Path(root).expanduser(), size, channels, normalize
        self.test, self.seed = test, seed
        self._classes: tuple[str, ...] | None = None
        self._found: dict[str, tuple[list[Path], list[str]]] | None = None
        self._shape: tuple[int, int] | None = None

    def describe(self) -> DatasetSpec:
        """Lists the files; reads the first image where no `size` is set."""
        own = self.own_splits()
        classes = self._class_names()
        shape = self._image_shape()
        statistics = IMAGENET if self.normalize == "imagenet" else {"mean": (0.5,), "std": (0.5,)}
        return DatasetSpec(
            input_shape=(self.channels, *shape),
            targets={"class": TargetSpec("classes", len(classes), classes)},
            main_target="class",
            splits=carved_splits(own, self.val),
            mean=tuple(255 * value for value in statistics["mean"]),
            std=tuple(255 * value for value in statistics["std"]),
            state={},
        )

    def restore(self, spec: DatasetSpec) -> DatasetSpec:
        """The classes are the checkpoint's: these images need not be of all of them, but of no other."""
        if "class" in spec.targets:
            self._classes = spec.targets["class"].classes
            for split in self.own_splits():
                self._check_classes(split)
        self._read.clear()
        return adopted(spec, self.describe())

    def own_splits(self) -> tuple[str, ...]:
        return tuple(self._files())

    def read(self, split: str) -> Examples:
        self._check_classes(split)
        paths, names = self._files()[split]
        classes = self._class_names()
        index = {name: position for position, name in enumerate(classes)}
        shape = None if self.size is not None else self._image_shape()
        labels = torch.tensor([index[name] for name in names], dtype=torch.int64)
        return Examples(ImageFiles(paths, self.channels, self.size, shape), {"class": labels})

    def _class_names(self) -> tuple[str, ...]:
        if self._classes is None:
            files = self._files()
            if "train" not in files:
                raise ConfigError(f"{self.root}: there are no training images")
            names = tuple(sorted(set(files["train"][1])))
            if len(names) < 2:
                raise ConfigError(f"{self.root}: all training images are of one class, {names[0]!r}")
            self._classes = names
        return self._classes

    def _check_classes(self, split: str) -> None:
        paths, names = self._files()[split]
        classes = self._class_names()
        if unknown := sorted(set(names) - set(classes)):
            at = paths[names.index(unknown[0])].parent
            raise ConfigError(
                f"{at}: class {unknown[0]!r} is not among those of the training images: {listed(classes)}."
                f"{nearest(unknown[0], classes)}"
            )

    def _image_shape(self) -> tuple[int, int]:
        """(height, width) of every image."""
        if self.size is not None:
            return self.size, self.size
        if self._shape is None:
            first = next(iter(self._files().values()))[0][0]
            _, height, width = ImageFiles([first], self.channels, None)[0].shape
            self._shape = height, width
        return self._shape

    def _files(self) -> dict[str, tuple[list[Path], list[str]]]:
        """Split → the images and their classes; only those splits that have some."""
        if self._found is None:
            try:
                if not self.root.is_dir():
                    raise ConfigError(f"{self.root}: there is no such folder")
                folders = {split: self.root / split for split in SPLITS if (self.root / split).is_dir()}
                found = {split: _by_class(folder) for split, folder in folders.items()} or self._drawn()
            except OSError as error:
                raise ConfigError(f"{error.filename or self.root}: {reason(error)}") from error
            self._found = {split: files for split, files in found.items() if files[0]}
            if not self._found:
                raise ConfigError(f"{self.root}: there are no images in its folders")
        return self._found

    def _drawn(self) -> dict[str, tuple[list[Path], list[str]]]:
        paths, names = _by_class(self.root)
        order = np.random.default_rng(stable_seed("test", self.seed)).permutation(len(paths))
        cut = round(self.test * len(paths))
        return {
            split: ([paths[row] for row in sorted(rows)], [names[row] for row in sorted(rows)])
            for split, rows in (("train", order[cut:]), ("test", order[:cut]))
        }


def _by_class(folder: Path) -> tuple[list[Path], list[str]]:
    """The images below the folders of the classes, and the class of each.

    ConfigError for a class without images, and one whose name can't be printed.
    """
    paths: list[Path] = []
    names: list[str] = []
    for child in sorted(child for child in folder.iterdir() if not child.name.startswith(".")):
        if child.is_symlink() and not child.exists():
            raise ConfigError(f"{child}: is a broken link, and a folder of images is expected")
        if not child.is_dir():
            continue
        if why := fault(child.name):
            raise ConfigError(
                f"{folder}: the folder {shown(child.name)} names a class, and {why}; give it another name"
            )
        images = image_paths(child)
        if not images:
            raise ConfigError(f"{child}: there are no images in this folder, so it can't be a class")
        paths += images
        names += [child.name] * len(images)
    return paths, names
