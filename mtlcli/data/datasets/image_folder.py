"""Images in one folder per class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import Field

from mtlcli.data.base import Dataset, Examples, add_val_split
from mtlcli.data.checkpoint_spec import restore_spec
from mtlcli.data.content_hash import Hashes, hash_named, hash_texts
from mtlcli.data.formats.class_folders import ClassFolders, find_class_folders, to_nfc
from mtlcli.data.formats.compressed import describe_os_error
from mtlcli.data.formats.image_checks import check_images
from mtlcli.data.formats.image_decoding import ImagePreparation, supported_suffixes
from mtlcli.data.formats.image_statistics import fixed_statistics
from mtlcli.data.formats.images import ImageFiles, probe_size
from mtlcli.data.splitting import draw, draw_by_position
from mtlcli.errors import ConfigError, MtlError, Problem, suggest
from mtlcli.files import user_path
from mtlcli.registry import datasets
from mtlcli.specs import DatasetSpec, TargetSpec
from mtlcli.text import join_names

MAX_TRIED = 10  # images to read for the image size


@datasets.register("image_folder")
class ImageFolder(Dataset):
    """Images in one folder per class, as in torchvision's ImageFolder.

    Inputs: uint8 [channels, height, width], read on demand, or once if they are small. Target: `class`, the names of
    the folders in alphabetical order.

    Layout: either `root/train/<class>/*.png`, optionally with `root/val` and `root/test`, or `root/<class>/*.png`, from
    which a share is drawn as `test`. Split folders may be named `train` or `training`; `val`, `valid`, `validation` or
    `dev`; `test` or `testing`; in any case, and followed by `set`, `data` or `images` (`Test_set`). Folders of images
    next to split folders are an error. The class of an image is the first folder below the split, however deep the
    image is nested. Links are followed. Folders whose names are equal in Unicode's form NFC are one class.

    Formats: BMP, GIF (first frame), JPEG, PNG, PPM, TIFF and WebP, also AVIF and JPEG 2000 if Pillow supports them,
    with up to 50 million pixels and 8 or 16 bits per channel, of which the upper 8 are kept. Other files are counted in
    a note. Names that begin with a dot, `__MACOSX`, `Thumbs.db` and the like are ignored.

    Checks: before the first step, the files of all splits are checked and all damaged ones are reported. They are
    decoded if they take up to 512 MiB, on disk and decoded; otherwise the header and the end of each file are read.
    Files that pass are recorded in `$XDG_CACHE_HOME/mtlcli` (`~/.cache/mtlcli`) and checked again only if they change.
    `mtl validate` reads the headers and ends of up to 1,000 files.

    Args:
        root: folder of the images.
        size: images are resized to size × size; required if their sizes differ. Default: keep their size.
        channels: 3 for color, 1 for grayscale; images are converted.
        normalize: mean and standard deviation of the normalization; `half`: half of the range each; `imagenet`: those
            of torchvision's pretrained models.
        test: without split folders, share of the images that becomes the split `test`. Membership depends on a file's
            name below `root` and `seed`, so no image moves when others are added or removed. Every class keeps a
            training image.
        seed: seed of the split `test`; independent of the run's seed.
        val: share of the training images that becomes the split `val`, drawn by the run's seed, unless there is a
            folder `val`.
        augment: transforms of `torchvision.transforms.v2` by name, applied to each training image, such as
            `RandomHorizontalFlip` or `{name: RandomResizedCrop, size: 64}`.

    Raises:
        ValueError: `normalize: imagenet` is set for grayscale images.
    """

    value_range = (0, 255)

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
        self.root, self.size, self.channels, self.normalize = user_path(root), size, channels, normalize
        self.test, self.seed = test, seed
        self._classes: tuple[str, ...] | None = None
        self._layout: ClassFolders | None = None
        self._first_size: tuple[int, int] | None = None

    def describe(self) -> DatasetSpec:
        """List the files, and read the first image if `size` is not set.

        Raises a ConfigError if the layout is invalid, or a split has a class that `train` doesn't have.

        Returns:
            The specification.
        """
        own = self.own_splits()
        classes = self._class_names()
        self._check_classes()
        mean, std = fixed_statistics(self.normalize)
        return DatasetSpec(
            input_shape=(self.channels, *self._image_size()),
            targets={"class": TargetSpec("classes", len(classes), classes)},
            main_target="class",
            splits=add_val_split(own, self.val),
            mean=mean,
            std=std,
            state={},
        )

    def restore(self, spec: DatasetSpec) -> DatasetSpec:
        """Use a checkpoint's classes. These images may lack some of them, but must not have others.

        Raises a ConfigError if the images don't match the checkpoint.

        Args:
            spec: specification stored in the checkpoint.

        Returns:
            The specification with the splits of these images.
        """
        if "class" in spec.targets:
            self._classes = spec.targets["class"].classes
        self._layout = None
        self._read.clear()
        self._val.clear()
        return restore_spec(spec, self.describe())

    def notes(self) -> list[str]:
        return self._folders().notes

    def preparation(self) -> str:
        return self._preparation(None if self.size is None else (self.size, self.size)).describe()

    def open_images(self, paths: Sequence[Path], spec: DatasetSpec) -> ImageFiles:
        _, height, width = spec.input_shape
        return ImageFiles(paths, self._preparation((height, width)))

    def check_files(self, most: int | None = None) -> list[str]:
        paths = [path for paths, _ in self._files().values() for path in paths]
        height, width = self._image_size()
        return check_images(self._images(paths), self.channels * height * width, most)

    def own_splits(self) -> tuple[str, ...]:
        return tuple(self._files())

    def hashes(self, split: str) -> Hashes:
        """Hash the names and sizes of the files, because reading the content of many images takes too long.

        Args:
            split: one of `own_splits`.

        Returns:
            uint64 [N].
        """
        paths = self._files()[split][0]
        sizes = hash_texts([str(path.stat().st_size) for path in paths])
        return hash_named({"name": self._path_hashes(paths), "size": sizes})

    def draws_test(self) -> bool:
        return not self._folders().has_splits

    def keys(self, split: str) -> Hashes:
        """Hash the names of the files, so that a recompressed file stays in its split.

        Args:
            split: one of `own_splits`.

        Returns:
            uint64 [N].
        """
        return self._path_hashes(self._files()[split][0])

    def read(self, split: str) -> Examples:
        paths, names = self._files()[split]
        index = {to_nfc(name): position for position, name in enumerate(self._class_names())}
        labels = torch.tensor([index[name] for name in names], dtype=torch.int64)
        return Examples(self._images(paths), {"class": labels})

    def _images(self, paths: list[Path]) -> ImageFiles:
        return ImageFiles(paths, self._preparation(self._image_size()))

    def _preparation(self, size: tuple[int, int] | None) -> ImagePreparation:
        return ImagePreparation(self.channels, size, None if self.size is None else "stretch")

    def _class_names(self) -> tuple[str, ...]:
        if self._classes is None:
            files = self._files()
            if "train" not in files:
                raise ConfigError(f"{self.root}: has no training images, only those of {' and '.join(files)}")
            names = tuple(sorted(set(files["train"][1])))
            if len(names) < 2:
                raise ConfigError(
                    f"{self.root}: all training images are of one class, {names[0]!r}. Classes are the folders in "
                    f"`root`, or in its split folders; set `root` to the folder that contains them"
                )
            self._classes = names
        return self._classes

    def _check_classes(self) -> None:
        """ConfigError for classes that the model wouldn't know."""
        classes = self._class_names()
        canonical = {to_nfc(name) for name in classes}
        problems = [
            f"{paths[names.index(name)].parent}: class {name!r} is not a class of the training images: "
            f"{join_names(classes)}.{suggest(name, classes)}"
            for paths, names in self._files().values()
            for name in sorted(set(names) - canonical)
        ]
        if problems:
            raise ConfigError(map(Problem, problems))

    def _image_size(self) -> tuple[int, int]:
        """(height, width) of the images: `size`, or that of the first readable one. ConfigError without any."""
        if self.size is not None:
            return self.size, self.size
        if self._first_size is None:
            paths = next(iter(self._files().values()))[0][:MAX_TRIED]
            try:
                self._first_size = probe_size(ImageFiles(paths, self._preparation(None)))
            except MtlError as error:
                raise ConfigError(map(Problem, str(error).splitlines())) from error
        return self._first_size

    def _files(self) -> dict[str, tuple[list[Path], list[str]]]:
        """Split → paths and classes of the images, for splits that have images."""
        return self._folders().splits

    def _folders(self) -> ClassFolders:
        if self._layout is None:
            try:
                if not self.root.is_dir():
                    raise ConfigError(f"{self.root}: the folder doesn't exist")
                layout = find_class_folders(self.root, supported_suffixes())
            except OSError as error:
                raise ConfigError(f"{error.filename or self.root}: {describe_os_error(error)}") from error
            if not layout.splits:
                notes = f" ({'; '.join(layout.notes)})" if layout.notes else ""
                raise ConfigError(f"{self.root}: its folders have no images{notes}")
            drawn = None if layout.has_splits else self._draw_test(*layout.splits["train"])
            self._layout = layout if drawn is None else replace(layout, splits=drawn)
        return self._layout

    def _draw_test(self, paths: list[Path], names: list[str]) -> dict[str, tuple[list[Path], list[str]]]:
        salt = ("test", self.seed)
        if self.record is not None and self.record.rule == "position":
            chosen = draw_by_position(len(paths), round(self.test * len(paths)), salt)
        else:
            kept = frozenset() if self.record is None else self.record.kept_keys("test")
            classes = [np.unique(names, return_inverse=True)[1]] if self._classes is None else []
            drawn = draw(self._path_hashes(paths), self.test, salt, classes, kept)
            chosen, self._kept["test"] = drawn.chosen, drawn.kept
        splits = {}
        for split, rows in (("train", np.flatnonzero(~chosen)), ("test", np.flatnonzero(chosen))):
            if len(rows):
                splits[split] = ([paths[row] for row in rows], [names[row] for row in rows])
        return splits

    def _path_hashes(self, paths: list[Path]) -> Hashes:
        """Hash the names of files below `root`."""
        return hash_texts([to_nfc(path.relative_to(self.root).as_posix()) for path in paths])
