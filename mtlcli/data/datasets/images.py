"""Images with the labels of a table."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from mtlcli.config.type_names import TypeDescription
from mtlcli.data.base import add_val_split
from mtlcli.data.checkpoint_spec import restore_spec
from mtlcli.data.content_hash import Hashes
from mtlcli.data.datasets._split_table import SplitTable
from mtlcli.data.formats.batches import Dialect
from mtlcli.data.formats.column_encoding import TrainingTable
from mtlcli.data.formats.column_report import TableReport
from mtlcli.data.formats.image_checks import check_images
from mtlcli.data.formats.image_decoding import Background, Fit, ImagePreparation
from mtlcli.data.formats.image_statistics import fixed_statistics, measure_channels, sample_images
from mtlcli.data.formats.images import ImageFiles
from mtlcli.data.formats.labelled_rows import REMEDY, find_rows, note_shared_images
from mtlcli.data.formats.stated_classes import note_classes
from mtlcli.data.formats.table_encoding import fit_table, require_training_rows
from mtlcli.data.formats.table_options import MISSING_VALUES, Booleans, Delimiter, Targets, make_notation
from mtlcli.data.formats.table_rows import Table
from mtlcli.data.formats.table_splits import TableSplits, read_split_files, split_table
from mtlcli.data.formats.target_columns import (
    check_targets,
    encode_target,
    find_non_number,
    list_class_codes,
    list_target_columns,
    list_text_columns,
    restore_targets,
)
from mtlcli.data.formats.weight_column import encode_weights
from mtlcli.errors import ConfigError, Problem
from mtlcli.files import user_path
from mtlcli.registry import datasets
from mtlcli.specs import DatasetSpec

Side = Annotated[int, Field(ge=1, le=4096)]
Sides = Annotated[
    list[Side],
    Field(min_length=2, max_length=2),
    TypeDescription("a list [height, width] of integers ≥ 1 and ≤ 4096", "lists [height, width]"),
]


@datasets.register("images")
class Images(SplitTable):
    r"""Image files with any number of labels each, listed in a table with a header.

    Inputs: uint8 [channels, height, width], read on demand, or once if they are small. A cell without a label is
    excluded from that task's loss and metrics. docs/images.md gives the rules for colors, sizes and files.

    Each image is turned upright by its EXIF orientation and converted to 8-bit RGB or grey: palettes and CMYK by
    Pillow, without color profiles; of 16 bits per channel, the upper 8 are kept. Formats: BMP, GIF (first frame),
    JPEG, PNG, PPM, TIFF and WebP, also AVIF and JPEG 2000 if Pillow supports them, with up to 50 million pixels.

    Missing and damaged images are reported with their lines before the first step. For this check, all images are
    decoded if they take up to 512 MiB, on disk and decoded, or with `on_error: skip`; otherwise the header and the end
    of each file are read. Files that pass are checked again only if they change.

    Args:
        path: table of the labels, in a format of the dataset `table`.
        image: column with the path of the image of each row, relative to `root` or absolute.
        root: folder of the images. Default: the folder of `path`.
        suffix: text appended to each path, such as `.jpg` if the table has names without it.
        targets: columns to predict, or `{column: type}` with the type `classes`, `binary` or `real`, a list of columns
            of 0 and 1, or classes in their order; as in the dataset `table`. All other columns are ignored.
        size: images are resized to size × size, or to [height, width]; required if their sizes differ. Default: keep
            their size.
        fit: `crop` resizes the largest centred region that has the aspect ratio of `size`; `stretch` resizes the whole
            image without keeping its aspect ratio; `pad` resizes the whole image to fit into `size` and centres it.
        mode: `rgb` for color, `grey` for one channel.
        background: color behind transparent pixels and of the padding.
        normalize: mean and standard deviation of the normalization; `fit`: those of each channel over the pixels of
            200 training images, or all if they are fewer, chosen by a hash of their names; `half`: half of the range
            each; `imagenet`: those of torchvision's pretrained models.
        on_error: `stop` at images that are missing or can't be decoded, or `skip` their rows with a note.
        test_path: separate table of the split `test`. `path` is then used for training (and for `val` unless `val_path`
            is set).
        val_path: separate table of the split `val`, likewise.
        split_column: column with the value `train`, `val` or `test` in each row.
        group_column: column whose equal values stay in one split, such as a patient or a site.
        weight_column: column of the rows' weights in losses and metrics, at least 0.
        test: without `split_column` and `test_path`, share of the rows that becomes the split `test`. Membership
            depends on the path below `root` (or the group) and on `seed`, so no row moves when other rows or labels
            change. Rows of one image share a split, and every class keeps a training row.
        seed: seed of the split `test`; independent of the run's seed.
        val: share of the training rows that becomes the split `val`, drawn by the run's seed, unless the table has one.
        missing: cells that mean a missing label or image, in addition to empty ones. Default: as in `table`.
        decimal: decimal mark of numbers.
        thousands: mark between groups of three digits.
        booleans: columns of truth values in words, such as `yes` and `no`, as in the dataset `table`.
        delimiter: character between the values of a text file; `\t` for a tab.
        augment: transforms of `torchvision.transforms.v2` by name, applied to each training image, such as
            `RandomHorizontalFlip` or `{name: RandomResizedCrop, size: 224}`.

    Raises:
        ValueError: options contradict each other.
    """

    value_range = (0, 255)
    file_columns: Sequence[str] = ()  # columns of further files, such as masks

    def __init__(
        self,
        *,
        path: str,
        image: str = "image",
        root: str | None = None,
        suffix: str = "",
        targets: Targets,
        size: Side | Sides | None = None,
        fit: Fit = "crop",
        mode: Literal["rgb", "grey"] = "rgb",
        background: Background = "white",
        normalize: Literal["fit", "half", "imagenet"] = "fit",
        on_error: Literal["stop", "skip"] = "stop",
        test_path: str | None = None,
        val_path: str | None = None,
        split_column: str | None = None,
        group_column: str | None = None,
        weight_column: str | None = None,
        test: Annotated[float, Field(ge=0, le=1)] = 0.2,
        seed: Annotated[int, Field(ge=0)] = 0,
        val: Annotated[float, Field(ge=0, lt=1)] = 0.1,
        missing: list[str] = MISSING_VALUES,
        decimal: Literal[".", ","] = ".",
        thousands: Literal["", ",", ".", " ", "'"] = "",
        booleans: Booleans = [],  # noqa: B006  (never modified)
        delimiter: Delimiter = ",",
        augment: list[str | dict[str, Any]] | None = None,
    ) -> None:
        super().__init__(val=val, augment=augment)
        given = {"train": path, "val": val_path, "test": test_path}
        self.paths = {split: user_path(file) for split, file in given.items() if file is not None}
        if len(self.paths) > 1 and split_column is not None:
            raise ValueError(f"splits come either from `split_column` or from `{list(self.paths)[1]}_path`, not both")
        self.booleans = booleans if isinstance(booleans, dict) else dict.fromkeys(booleans, ())
        self.notation = make_notation(decimal, thousands, {}, self.booleans)
        self.targets = check_targets(targets, self.notation, optional=bool(self.file_columns))
        if image in [*list_target_columns(self.targets), *self.file_columns]:
            raise ValueError(f"the column {image!r} can't be the image and a target at once")
        if normalize == "imagenet" and mode != "rgb":
            raise ValueError("`normalize: imagenet` needs `mode: rgb`")
        self.image, self.suffix, self.on_error, self.normalize = image, suffix, on_error, normalize
        self.root = self.paths["train"].parent if root is None else user_path(root)
        sides = (size, size) if isinstance(size, int) else None if size is None else (size[0], size[1])
        channels: Literal[1, 3] = 3 if mode == "rgb" else 1
        self.prepare = ImagePreparation(channels, sides, None if sides is None else fit, background)
        self.split_column, self.group_column, self.test, self.seed = split_column, group_column, test, seed
        self.missing, self.weight_column = missing, weight_column
        self.dialect = Dialect(delimiter, missing, self.notation)
        self._notes: list[str] = []
        self._loaded: tuple[DatasetSpec, ImageFiles, dict[str, Tensor], TableSplits] | None = None

    def describe(self) -> DatasetSpec:
        """Read the table, fit the targets and, with `normalize: fit`, read up to 200 images."""
        return self._load()[0]

    def restore(self, spec: DatasetSpec) -> DatasetSpec:
        """Use a checkpoint's classes, statistics and preparation of images; labels may be missing in this table.

        Args:
            spec: specification stored in the checkpoint.

        Returns:
            The specification with the splits of this table.

        Raises:
            ConfigError: the table or the options don't match the checkpoint.
        """
        then, now = ImagePreparation.of(spec).state(), self.prepare.state()
        if changed := [f"`{key}: {then[key] or 'none'}`" for key in then if then[key] != now[key]]:
            raise ConfigError(f"the checkpoint was trained with {' and '.join(changed)}, but these options are changed")
        return super().restore(spec)

    def notes(self) -> list[str]:
        self._load()
        return self._notes

    def preparation(self) -> str:
        return self.prepare.describe()

    def open_images(self, paths: Sequence[Path], spec: DatasetSpec) -> ImageFiles:
        return ImageFiles(paths, ImagePreparation.of(spec))

    def check_files(self, most: int | None = None) -> list[str]:
        spec, files, _, _ = self._load()
        faults = check_images(files, math.prod(spec.input_shape), most)
        return [*faults, REMEDY] if faults else []

    def hashes(self, split: str) -> Hashes:
        """Hash the names and sizes of the files and the labels of the rows, without reading the images."""
        return super().hashes(split)

    def keys(self, split: str) -> Hashes:
        """Hash the names of the files, or the groups, so that a row keeps its split when its labels change."""
        return super().keys(split)

    def _load(self) -> tuple[DatasetSpec, ImageFiles, dict[str, Tensor], TableSplits]:
        """Return the specification, the images and targets of all rows, and the rows of each split."""
        if self._loaded is None:
            columns = [*list_target_columns(self.targets), *filter(None, [self.weight_column])]
            texts = list_text_columns(
                self.targets, self.image, self.split_column, self.group_column, *self.file_columns
            )
            table, of_files = read_split_files(
                self.paths, self.dialect, texts, [self.image, *self.file_columns, *columns], [self.image], []
            )
            table.require([self.image], "image")
            table.require([*self.file_columns, *list_target_columns(self.targets)], "targets")
            table.require(self.booleans, "booleans")
            prepare = self.prepare if self._stored is None else ImagePreparation.of(self._stored)
            rows = find_rows(table, of_files, self.image, self.root, self.suffix, prepare, self.on_error == "skip")
            table, listed, files, self._notes = rows.table, rows.listed, rows.files, rows.notes
            classes = [] if self._stored is not None else list_class_codes(table, self.targets, self.notation)
            splits = split_table(
                table, self.split_column, self.group_column, self.test, self.seed, classes, self.record,
                self.notation, rows.of_files, listed.keys,
            )  # fmt: skip
            splits = replace(splits, hashes=listed.hash_rows(table, columns, self.notation))
            self._kept["test"] = splits.kept
            spec = self._fit(table, splits, files) if self._stored is None else self._restored(table, self._stored)
            spec = replace(spec, splits=add_val_split(tuple(splits.rows), self.val))
            targets = {
                name: encode_target(table, name, target, self.notation, self.targets.get(name))
                for name, target in spec.targets.items()
            }
            if self.weight_column is not None:
                self._weights = encode_weights(table, self.weight_column, self.notation)
            report = TableReport(table, (), np.arange(0), self.notation, None)
            self._notes += report.notes(torch.empty(len(table), 0), spec, {})
            if any(isinstance(type_, dict) for type_ in self.targets.values()):
                train = splits.rows.get("train", np.arange(len(table)))
                self._notes += note_classes(table, self.targets, spec.targets, train, self.notation)
            self._notes += note_shared_images(listed.keys, splits.rows)
            spec, splits = self._add_files(table, files, spec, splits)
            self._loaded = spec, files, targets, splits
        return self._loaded

    def _add_files(
        self, table: Table, files: ImageFiles, spec: DatasetSpec, splits: TableSplits
    ) -> tuple[DatasetSpec, TableSplits]:
        """Add the targets that are files, such as masks, to the specification, and to the hashes of the rows."""
        return spec, splits

    def _restored(self, table: Table, stored: DatasetSpec) -> DatasetSpec:
        size = self.prepare.size or stored.input_shape[1:]
        targets = restore_targets(table, stored.targets, self.targets)
        return restore_spec(stored, replace(stored, input_shape=(self.prepare.channels, *size), targets=targets))

    def _fit(self, table: Table, splits: TableSplits, files: ImageFiles) -> DatasetSpec:
        train = require_training_rows(table, splits.rows)
        spec = fit_table(TrainingTable(table, train, self.notation), [], 2, self.targets)
        for name, target in spec.targets.items():
            if target.type == "classes":
                self._non_numbers[name] = find_non_number(table, name, self.notation)
        prepare = files.preparation
        shape = (prepare.channels, *(prepare.size or ()))  # the size is known: `find_rows` reads it from the files
        if self.normalize == "fit":
            try:
                mean, std = measure_channels(files, train[sample_images(splits.keys[train])].tolist())
            except ConfigError as error:  # of a sample of the images
                faults = check_images(files, math.prod(shape)) or str(error).splitlines()
                raise ConfigError(map(Problem, [*faults, REMEDY])) from error
        else:
            mean, std = fixed_statistics(self.normalize)
        return replace(spec, input_shape=shape, mean=mean, std=std, state={"image": prepare.state()})
