"""Images with mask files: a label for each pixel."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from mtlcli.config.type_names import TypeDescription
from mtlcli.data.base import Examples
from mtlcli.data.checkpoint_spec import restore_spec
from mtlcli.data.content_hash import hash_named
from mtlcli.data.datasets.images import Images, Side, Sides
from mtlcli.data.formats.image_checks import check_images
from mtlcli.data.formats.image_decoding import Background, Fit
from mtlcli.data.formats.image_statistics import sample_images
from mtlcli.data.formats.image_tables import list_images
from mtlcli.data.formats.images import ImageFiles
from mtlcli.data.formats.map_files import MapFiles
from mtlcli.data.formats.map_statistics import measure_maps
from mtlcli.data.formats.mask_options import make_mask_target, read_mask_options
from mtlcli.data.formats.table_options import MISSING_VALUES, Booleans, Delimiter
from mtlcli.data.formats.table_rows import Table
from mtlcli.data.formats.table_splits import TableSplits
from mtlcli.errors import ConfigError, OptionError, Problem
from mtlcli.registry import datasets
from mtlcli.specs import DatasetSpec

MAX_LISTED = 10  # faults listed one by one
REMEDY = "Correct the table or the files; a blank cell means that an image has no labels of a target"
Names = Annotated[list[str], Field(min_length=1)]
MaskTargets = Annotated[
    dict[str, Literal["classes", "binary", "real"] | Names | dict[str, Any]],
    Field(min_length=1),
    TypeDescription(
        "a mapping of names to targets: {type: TYPE, column: COLUMN, …} for mask files, or 'classes', 'binary', 'real' "
        "or a list of columns of 0 and 1 for columns of labels",
        "mappings of targets",
    ),
]


@datasets.register("image_masks")
class ImageMasks(Images):
    r"""Image files with mask files, a label for each pixel, listed in a table with a header.

    Inputs: uint8 [channels, height, width], decoded and resized as by the dataset `images`. The maps of a target are
    resized with their image, to the nearest pixel; a blank cell means that the image has no labels of the target. Files
    of masks are images without loss (PNG, TIFF, BMP, GIF, PPM) or arrays of NumPy (.npy), [H, W]. docs/images.md gives
    the rules.

    A target is a mapping with a `type` and further keys:

    `type: classes`: numbers of classes, grey or positions in a palette. `classes`: their names in the order of the
    numbers 0, 1, …, their number, a mapping of values to names, or the path of a file with a name in each line.

    `type: binary`: 0, and 1 or 255.

    `type: depth`: distances; a value divided by `scale` is the label (1000 for millimetres in a PNG of 16 bits). 0 and
    NaN are missing.

    `type: real`: other numbers, divided by `scale`. NaN is missing.

    `type: normals`: unit vectors x, y, z, x to the right. In images, the colors 0 to 255 are -1 to 1, and black or grey
    (127) is missing; arrays [H, W, 3] or [3, H, W] are from -1 to 1, and zeros or NaN are missing.

    Further keys: `column` of the paths (default: the name of the target); `folder` below `root` and `suffix` of these
    paths; `ignore`, values that are missing labels (default: 255 for `classes`); `others: missing` if other values of
    `classes` are missing labels rather than errors.

    Args:
        path: table of the files and labels, in a format of the dataset `table`.
        image: column with the path of the image of each row, relative to `root` or absolute.
        root: folder of the images. Default: the folder of `path`.
        suffix: text appended to the path of each image, such as `.jpg` if the table has names without it.
        targets: target → its masks, as above; or column → type for labels of whole images, as in the dataset `images`:
            `classes`, `binary`, `real`, or a list of columns of 0 and 1.
        size: images are resized to size × size, or to [height, width]; required if their sizes differ. Default: keep
            their size.
        fit: `crop` resizes the largest centred region that has the aspect ratio of `size`; `stretch` resizes the whole
            image without keeping its aspect ratio; `pad` resizes the whole image to fit into `size` and centres it,
            without labels in the padding.
        mode: `rgb` for color, `grey` for one channel.
        background: color behind transparent pixels and of the padding.
        normalize: mean and standard deviation of the normalization, as in the dataset `images`.
        on_error: `stop` at images that are missing or can't be decoded, or `skip` their rows with a note. Faults of
            masks are always errors.
        test_path: separate table of the split `test`. `path` is then used for training (and for `val` unless `val_path`
            is set).
        val_path: separate table of the split `val`, likewise.
        split_column: column with the value `train`, `val` or `test` in each row.
        group_column: column whose equal values stay in one split, such as a patient or a site.
        weight_column: column of the rows' weights in losses and metrics, at least 0.
        test: without `split_column` and `test_path`, share of the rows that becomes the split `test`. Membership
            depends on the path of the image below `root` (or the group) and on `seed`.
        seed: seed of the split `test`; independent of the run's seed.
        val: share of the training rows that becomes the split `val`, drawn by the run's seed, unless the table has one.
        missing: cells that mean a missing label, mask or image, in addition to empty ones. Default: as in `table`.
        decimal: decimal mark of numbers.
        thousands: mark between groups of three digits.
        booleans: columns of truth values in words, such as `yes` and `no`, as in the dataset `table`.
        delimiter: character between the values of a text file; `\t` for a tab.
        augment: transforms of `torchvision.transforms.v2` by name, applied to each training image and its maps.

    Raises:
        OptionError: a target is invalid.
    """

    def __init__(
        self,
        *,
        path: str,
        image: str = "image",
        root: str | None = None,
        suffix: str = "",
        targets: MaskTargets,
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
        refused: dict[str, str] = {}
        self.masks = {}
        for name, given in targets.items():
            if isinstance(given, dict):
                try:
                    self.masks[name] = read_mask_options(name, given)
                except OptionError as error:
                    refused |= error.below("targets").refused
        if refused:
            raise OptionError(refused)
        if not self.masks:
            raise OptionError({"targets": "no target has masks; the dataset `images` has labels of whole images"})
        self.file_columns = [options.column or name for name, options in self.masks.items()]
        self.names = list(targets)
        labels: Any = {name: given for name, given in targets.items() if not isinstance(given, dict)}
        super().__init__(
            path=path, image=image, root=root, suffix=suffix, targets=labels, size=size, fit=fit, mode=mode,
            background=background, normalize=normalize, on_error=on_error, test_path=test_path, val_path=val_path,
            split_column=split_column, group_column=group_column, weight_column=weight_column, test=test, seed=seed,
            val=val, missing=missing, decimal=decimal, thousands=thousands, booleans=booleans, delimiter=delimiter,
            augment=augment,
        )  # fmt: skip
        self._maps: dict[str, MapFiles] = {}

    def read(self, split: str) -> Examples:
        return replace(super().read(split), maps={**self._maps})

    def whole(self) -> Examples:
        return replace(super().whole(), maps={**self._maps})

    def check_files(self, most: int | None = None) -> list[str]:
        faults, size = super().check_files(most), math.prod(self._load()[0].input_shape[1:])
        for maps in self._maps.values():
            bytes_each = size * (1 if maps.target.is_discrete else 4 * maps.target.channels)
            if wrong := check_images(maps.present(), bytes_each, most):
                faults += [*wrong, REMEDY]
        return faults

    def _add_files(
        self, table: Table, files: ImageFiles, spec: DatasetSpec, splits: TableSplits
    ) -> tuple[DatasetSpec, TableSplits]:
        """List the masks of all rows, and measure the numbers of up to 200 training images."""
        self._maps = {}
        faults: list[str] = []
        hashes = {"rows": splits.hashes}
        stored = {} if self._stored is None else self._stored.targets
        for name, options in self.masks.items():
            column = options.column or name
            listed, wrong = list_images(table, column, self.root, options.suffix, options.folder)
            faults += wrong.values()
            blank = frozenset(np.flatnonzero(table.columns[column].missing_rows()).tolist())
            target = make_mask_target(name, options, stored.get(name))
            self._maps[name] = MapFiles(listed.paths, files.paths, blank, target, files.preparation, files.place)
            hashes |= {f"mask {name}": listed.keys, f"size {name}": listed.sizes}
        if faults:
            more = [f"… and {len(faults) - MAX_LISTED:,} more such masks"] if len(faults) > MAX_LISTED else []
            raise ConfigError(map(Problem, [*faults[:MAX_LISTED], *more, REMEDY]))
        found = spec.targets | {name: maps.target.spec for name, maps in self._maps.items()}
        found = {name: found[name] for name in self.names if name in found}
        spec = replace(spec, targets=found, main_target=next(iter(found)) if len(found) == 1 else None)
        spec = self._measured(spec, splits) if self._stored is None else restore_spec(self._stored, spec)
        return spec, replace(splits, hashes=hash_named(hashes))

    def _measured(self, spec: DatasetSpec, splits: TableSplits) -> DatasetSpec:
        """Measure the targets that are numbers, and check that all targets have labels in the training rows."""
        train = splits.rows["train"]
        targets: Mapping[str, Any] = {}
        for name, maps in self._maps.items():
            rows = train[~np.isin(train, [*maps.blank])]
            if not len(rows):
                raise ConfigError(f"target {name!r} has no masks in the training rows")
            if maps.target.type in ("real", "depth"):
                mean, std = measure_maps(maps, rows[sample_images(splits.keys[rows])].tolist())
                targets = {**targets, name: replace(spec.targets[name], mean=mean, std=std)}
        return replace(spec, targets={**spec.targets, **targets})

    def _restored(self, table: Table, stored: DatasetSpec) -> DatasetSpec:
        labels = {name: target for name, target in stored.targets.items() if not target.is_map}
        return super()._restored(table, replace(stored, targets=labels))
