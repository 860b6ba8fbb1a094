"""Experiment for a table of labelled images, as `mtl init` writes it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from shlex import quote

import numpy as np

from mtlcli.config.crosschecks import MEAN
from mtlcli.data.formats.batches import Dialect
from mtlcli.data.formats.compressed import describe_os_error, open_decompressed
from mtlcli.data.formats.feature_choice import MIN_ROWS, choose_features
from mtlcli.data.formats.image_decoding import ImagePreparation, supported_suffixes
from mtlcli.data.formats.images import ImageFiles, probe_size
from mtlcli.data.formats.numerals import Notation
from mtlcli.data.formats.table_options import MISSING_VALUES
from mtlcli.data.formats.table_reader import read_table
from mtlcli.data.formats.table_rows import Table
from mtlcli.data.formats.target_columns import fit_target
from mtlcli.errors import ConfigError, MtlError
from mtlcli.specs import TargetSpec
from mtlcli.text import join_names

TRIED = 1000  # cells of a column, and folders, that are tried
SAMPLED = 100  # images that are looked for
IMAGE_SHARE = 0.9  # share of a column's values with the ending of an image
CLASS_SHARE = 0.5  # number of classes relative to the rows, from which a column is taken for free text
SIZES = (32, 64, 128)  # sizes of images that are proposed
KINDS = {"classes": "classification", "binary": "binary", "real": "regression"}
PLAIN_TEXT = re.compile(r"[A-Za-z_][A-Za-z0-9_./-]*")

HEAD = """\
# An experiment of `mtl`: the labels of {path}, predicted from the images by one shared network.
#   mtl summary {file}     show how the table is read
#   mtl train {file}       train; any key can be set: training.epochs=5 weighting=uncertainty
# Keys that are left out have defaults: `mtl show images` lists those of the dataset.

seed: 0

datasets:
  photos:
"""
TAIL = """
# The shared network: image → features. See `mtl list trunks`; {name: torchvision, model: resnet18} for larger images.
trunk: {name: cnn}

# Combination of the losses into one update: uniform, uncertainty, dwa, … (`mtl list weightings`)
weighting: {name: uniform}

optimizer: {name: Adam, lr: 1.0e-3}

training: {epochs: 20, batch_size: 32}

# The monitored metric selects the best epoch: the mean of all primary metrics, or a metric of one task.
evaluation: {split: val, monitor: {task: mean, metric: primary}}
"""


def propose_image_experiment(path: Path, file: str) -> str:
    """Write an experiment that predicts the columns of a table from the images that one of them names.

    Every other column is a target, if its values are 0 and 1, numbers or classes; those that only identify the rows, or
    are free text, are left out.

    Args:
        path: the table.
        file: name of the experiment's file, for the commands in its comments.

    Returns:
        The experiment as YAML, with comments.

    Raises:
        ConfigError: the table can't be read, no column has the paths of images, no image exists, or no column has
            labels.
    """
    delimiter = _guess_delimiter(path)
    table = read_table(path, Dialect(delimiter, MISSING_VALUES))
    column = _find_image_column(table)
    root, image = _find_root(table, column)
    splits = [name for name in table.columns if name != column and _names_splits(table, name)][:1]
    targets, left_out = _choose_targets(table, {column, *splits})
    if not targets:
        reasons = "; ".join(f"{name!r}: {why}" for name, why in left_out.items())
        raise ConfigError(f"{path}: no column besides {column!r} has labels{f' ({reasons})' if reasons else ''}")
    options = {"name": "images", "path": str(path), "image": column}
    if root != path.parent:
        options["root"] = str(root)
    if delimiter != ",":
        options["delimiter"] = delimiter
    if splits:
        options["split_column"] = splits[0]
    lines = [f"    {key}: {_scalar(value)}" for key, value in options.items()]
    lines += [f"    size: {_choose_size(image)}  # resized to a square, cropped at the centre; larger ones take longer"]
    lines += ["    targets:", *(f"      {_scalar(name)}: {_describe(spec)}" for name, spec in targets.items())]
    lines += [f"    # not used: {name} ({why})" for name, why in left_out.items()]
    lines += ["", "# Each task has a target, a kind (loss and metrics) and a weight.", "tasks:"]
    names = _task_names(targets)
    lines += [
        f"  {task}: {{dataset: photos, {'' if task == name else f'target: {_scalar(name)}, '}"
        f"kind: {KINDS[targets[name].type]}}}"
        for name, task in names.items()
    ]
    return HEAD.format(path=path, file=quote(file)) + "\n".join(lines) + "\n" + TAIL


def _guess_delimiter(path: Path) -> str:
    """Return the most frequent of the common delimiters in the first line."""
    if not {".csv", ".txt"}.intersection(path.suffixes):
        return ","
    try:
        with open_decompressed(path) as stream:
            line = stream.readline(2**16).decode("utf-8", "replace")
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: can't be read as a table: {describe_os_error(error)}") from error
    return max(",;\t|", key=line.count)


def _find_image_column(table: Table) -> str:
    suffixes = supported_suffixes()
    for name, cells in table.columns.items():
        values = [value for value in islice(cells.values, TRIED) if value is not None]
        images = sum(Path(value).suffix.lower() in suffixes for value in values)
        if values and images >= IMAGE_SHARE * len(values):
            return name
    raise ConfigError(
        f"{table.path}: no column has the paths of images (such as `photos/1.jpg`); its columns are: "
        f"{join_names(list(table.columns))}"
    )


def _find_root(table: Table, column: str) -> tuple[Path, Path]:
    """Return the folder below which most of the first images are, and one of them."""
    folder = table.path.parent
    values = [value for value in islice(table.columns[column].values, SAMPLED) if value is not None]
    relative = [value for value in values if not Path(value).is_absolute()]
    images: dict[Path, list[Path]] = {}
    for root in (folder, *islice(filter(Path.is_dir, sorted(folder.iterdir())), TRIED), Path()):
        images[root] = [root / value for value in relative or values if _is_file(root / value)]
        if len(images[root]) == len(relative or values):
            break
    root = max(images, key=lambda folder: len(images[folder]))
    if not images[root]:
        raise ConfigError(
            f"{table.path}: the images of column {column!r}, such as {values[0]!r}, are not below the folder of the "
            f"table or a folder in it"
        )
    return root, images[root][0]


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # no file can have that name
        return False


def _names_splits(table: Table, name: str) -> bool:
    values = set(table.columns[name].values)
    return len(values) > 1 and values <= {"train", "val", "test"}


def _choose_targets(table: Table, reserved: set[str]) -> tuple[dict[str, TargetSpec], dict[str, str]]:
    """Return the targets, and column → reason for columns that are left out."""
    notation, rows = Notation(), np.arange(len(table))
    if not set(table.columns) - reserved:
        return {}, {}
    left_out = dict(choose_features(table, None, (), reserved, (), notation).excluded)
    targets = {}
    for name in table.columns:
        if name in reserved or name in left_out:
            continue
        try:
            spec = fit_target(table, name, rows, None, notation)
        except ConfigError as error:
            left_out[name] = str(error).splitlines()[0].removeprefix(f"{table.path}").lstrip(":0123456789 ")
            continue
        if spec.type == "classes" and len(table) >= MIN_ROWS and spec.size > CLASS_SHARE * len(table):
            left_out[name] = f"{spec.size} different texts in {len(table)} rows"
        else:
            targets[name] = spec
    return targets, left_out


def _choose_size(image: Path) -> int:
    """Return the largest proposed size that doesn't enlarge an image."""
    try:
        shorter = min(probe_size(ImageFiles([image], ImagePreparation(3, None))))
    except MtlError:
        return SIZES[1]
    return max([size for size in SIZES if size <= shorter], default=SIZES[0])


def _task_names(targets: Mapping[str, TargetSpec]) -> dict[str, str]:
    """Return target → name of its task, with the characters that such a name may have."""
    names: dict[str, str] = {}
    for target in targets:
        plain = re.sub(r"[^A-Za-z0-9_-]+", "_", target).strip("_")[:50]
        name = plain if re.match(r"[A-Za-z_]", plain) and plain != MEAN else f"task_{plain}".rstrip("_")
        while name in names.values():
            name += "_"
        names[target] = name
    return names


def _describe(spec: TargetSpec) -> str:
    missing = ", with blanks" if spec.missing else ""
    if spec.type == "classes":
        return f"classes  # {join_names(spec.class_names)}{missing}"
    if spec.type == "real":
        return f"real  # mean {spec.mean:.4g}, standard deviation {spec.std:.4g}{missing}"
    return f"binary  # 0 and 1{missing}"


def _scalar(text: str) -> str:
    """Return a YAML scalar for a text."""
    plain = PLAIN_TEXT.fullmatch(text) and text.lower() not in ("true", "false", "null")
    return text if plain else json.dumps(text, ensure_ascii=False)
