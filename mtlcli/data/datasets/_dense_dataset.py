"""Base class of published datasets with labels for each pixel, whose files users place by hand."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal

from mtlcli.data.base import Dataset, Examples, add_val_split
from mtlcli.data.content_hash import Hashes
from mtlcli.data.datasets.images import Sides
from mtlcli.data.examples import LazyInputs
from mtlcli.data.formats.array_images import ArrayImages
from mtlcli.data.formats.dense_files import DenseSplit, name_files, sample_rows
from mtlcli.data.formats.image_checks import check_images
from mtlcli.data.formats.image_decoding import ImagePreparation
from mtlcli.data.formats.image_statistics import fixed_statistics
from mtlcli.data.formats.images import ImageFiles, probe_size
from mtlcli.data.formats.map_files import MapFiles
from mtlcli.data.formats.map_statistics import measure_maps
from mtlcli.data.formats.mask_targets import MaskTarget
from mtlcli.errors import ConfigError, MtlError, Problem
from mtlcli.files import data_root, user_path
from mtlcli.specs import DatasetSpec
from mtlcli.text import join_names

Normalize = Literal["unit", "half", "imagenet"]
MEASURED = 50  # training images whose depth is measured


class DenseDataset(Dataset):
    """Base class of datasets with labels for each pixel, whose files users place by hand.

    A subclass implements `_open`.

    Args:
        root: folder of the files; None for `folder` in the data root.
        layout: one of `layouts`; `auto` for the first whose files exist.
        size: height and width of the inputs and maps; None for those of the files.
        normalize: `unit` divides the values by 255; others as in the dataset `images`.
        val: see `Dataset`.
        augment: see `Dataset`.

    Attributes:
        name: name of the dataset.
        folder: folder of the files below the data root.
        layouts: layout → files or folders in `root` by which it is recognized.
        published: split → number of images of the published files.
        main: the main target.
    """

    name: ClassVar[str]
    folder: ClassVar[str]
    layouts: ClassVar[Mapping[str, Sequence[str]]]
    published: ClassVar[Mapping[str, int]]
    main: ClassVar[str] = "segmentation"
    fixed = True
    value_range = (0, 255)

    def __init__(
        self,
        *,
        root: str | None,
        layout: str,
        size: Sides | None,
        normalize: Normalize,
        val: float,
        augment: list[str | dict[str, Any]] | None,
    ) -> None:
        super().__init__(val=val, augment=augment)
        self.root = data_root(None) / self.folder if root is None else user_path(root)
        self.layout, self.normalize = layout, normalize
        self.size = None if size is None else (size[0], size[1])
        self._splits: dict[str, DenseSplit] | None = None
        self._statistics: dict[str, tuple[float, float]] = {}

    @abstractmethod
    def _open(self, layout: str) -> dict[str, DenseSplit]:
        """Find the files of a layout: split → its images and maps. ConfigError if some are missing."""

    @classmethod
    def find_layouts(cls, root: Path) -> list[str]:
        """List the layouts whose files are in a folder, by the files that characterize them.

        Args:
            root: the folder.

        Returns:
            Names of layouts.
        """
        return [layout for layout, marks in cls.layouts.items() if all((root / mark).exists() for mark in marks)]

    def describe(self) -> DatasetSpec:
        """Find the files, and read the first image if `size` is not set.

        Returns:
            The specification; mean and standard deviation of the depth are known after `fit`.
        """
        train = self._load()["train"]
        targets = train.specs()
        for name, (average, spread) in self._statistics.items():
            targets[name] = replace(targets[name], mean=average, std=spread)
        mean, std = ((0.0,), (255.0,)) if self.normalize == "unit" else fixed_statistics(self.normalize)
        try:
            first = train.images[0]
        except MtlError as error:
            raise ConfigError(str(error)) from error
        return DatasetSpec(
            input_shape=tuple(first.shape),
            targets=targets,
            main_target=self.main if self.main in targets else None,
            splits=add_val_split(self.own_splits(), self.val),
            mean=mean,
            std=std,
            state={},
        )

    def fit(self) -> None:
        """Measure the depth of up to 50 training images."""
        train = self._load()["train"]
        rows = sample_rows(train.hashes, MEASURED)
        for name, maps in train.maps.items():
            if maps.target.type == "depth":
                self._statistics[name] = measure_maps(maps, rows)

    def own_splits(self) -> tuple[str, ...]:
        return ("train", "test")

    def read(self, split: str) -> Examples:
        of_split = self._load()[split]
        return Examples(of_split.images, {}, maps={**of_split.maps})

    def notes(self) -> list[str]:
        notes = []
        for split, amount in self.published.items():
            if (found := len(self._load()[split].images)) != amount:
                notes.append(f"{self.root}: {found:,} images of the split {split!r}, but {amount:,} were published")
        return notes

    def preparation(self) -> str:
        return ImagePreparation(3, self.size, None if self.size is None else "stretch").describe()

    def open_images(self, paths: Sequence[Path], spec: DatasetSpec) -> ImageFiles:
        _, height, width = spec.input_shape
        return ImageFiles(paths, ImagePreparation(3, (height, width), "stretch"))

    def check_files(self, most: int | None = None) -> list[str]:
        faults: list[str] = []
        _, height, width = self.describe().input_shape
        for split in self._load().values():
            if isinstance(split.images, ImageFiles | ArrayImages):
                faults += check_images(split.images, 3 * height * width, most)
            for maps in split.maps.values():
                if isinstance(maps, MapFiles):
                    size = 1 if maps.target.is_discrete else 4 * maps.target.channels
                    faults += check_images(maps, size * height * width, most)
        return faults

    def hashes(self, split: str) -> Hashes:
        """Hash the names and sizes of the files, because reading their content takes too long.

        Args:
            split: one of `own_splits`.

        Returns:
            uint64 [N].
        """
        return self._load()[split].hashes

    def _load(self) -> dict[str, DenseSplit]:
        if self._splits is None:
            self._splits = self._open(self._find_layout())
        return self._splits

    def _find_layout(self) -> str:
        found = self.find_layouts(self.root)
        if self.layout != "auto" and self.layout in found:
            return self.layout
        if self.layout == "auto" and found:
            return found[0]
        wanted = self.layouts if self.layout == "auto" else {self.layout: self.layouts[self.layout]}
        expected = "; ".join(f"{join_names(list(marks))} (`layout: {name}`)" for name, marks in wanted.items())
        what = "doesn't exist" if not self.root.is_dir() else f"has none of the files of {self.name}"
        raise ConfigError(
            f"{self.root}: {what}; expected {expected}. Set `root` to the folder of the files; "
            f"`mtl show {self.name}` tells where to get them and what goes where"
        )

    def _prepare(self, images: Callable[[ImagePreparation], LazyInputs]) -> ImagePreparation:
        """Return the conversion of the images, to the size of the first one unless `size` is set."""
        if self.size is not None:
            return ImagePreparation(3, self.size, "stretch")
        try:
            return ImagePreparation(3, probe_size(images(ImagePreparation(3, None))))
        except MtlError as error:
            raise ConfigError(map(Problem, str(error).splitlines()[:1])) from error

    def _make_split(
        self,
        images: Sequence[Path],
        targets: Mapping[str, tuple[MaskTarget, Sequence[Path]]],
        preparation: ImagePreparation,
    ) -> DenseSplit:
        """Make a split of files: those of the images, and target → its files."""
        arrays = images[0].suffix == ".npy"
        maps = {
            name: MapFiles(paths, images, frozenset(), target, preparation) for name, (target, paths) in targets.items()
        }
        names = {"image": name_files(self.root, images)}
        names |= {name: name_files(self.root, paths) for name, (_, paths) in targets.items()}
        return DenseSplit((ArrayImages if arrays else ImageFiles)(images, preparation), maps, names)
