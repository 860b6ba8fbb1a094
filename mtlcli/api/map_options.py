"""Checks of the options with which predictions for pixels are written."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from mtlcli.errors import ConfigError
from mtlcli.files import quote_path
from mtlcli.text import join_names

MapFormat = Literal["png", "npy"]
TABLE = "predictions.csv"


def check_map_options(
    tasks: Sequence[str], out: Path | None, features: bool, form: MapFormat | None, depth_scale: float | None
) -> None:
    """Check the options of files with predictions for pixels.

    Args:
        tasks: the tasks that predict maps.
        out: the folder of the files.
        features: whether features are written too.
        form: format of the files; None if not given.
        depth_scale: scale of distances; None if not given.

    Raises:
        ConfigError: an option doesn't apply, or is missing.
    """
    given = {"--maps": form, "--depth-scale": depth_scale}
    if not tasks:
        for option, value in given.items():
            if value is not None:
                raise ConfigError(f"{option}: no task that is predicted has a value for each pixel")
        return
    if out is None:
        raise ConfigError(f"{_describe(tasks)}, which is written to files: give their folder with --out")
    if features:
        raise ConfigError(
            f"--features: {_describe(tasks)}, from features that are maps too, not a vector; choose other tasks with "
            "--tasks"
        )
    if depth_scale is not None and form == "npy":
        raise ConfigError("--depth-scale: an array has the distances themselves; the scale is that of --maps png")
    if depth_scale is not None and not 0 < depth_scale < math.inf:
        raise ConfigError(f"--depth-scale: expected a number > 0, got {depth_scale:g}")


def check_map_folder(folder: Path, tasks: Sequence[str], inputs: Sequence[Path]) -> None:
    """Check that files can be written to a folder without changing the inputs of this or the next call.

    Args:
        folder: the folder.
        tasks: the tasks that predict maps.
        inputs: files and folders that are predicted.

    Raises:
        ConfigError: the folder can't be used.
    """
    shown = quote_path(folder)
    if folder.exists() and not folder.is_dir():
        raise ConfigError(
            f"--out {shown}: is a file; {_describe(tasks)}, and the files of the predictions need a folder"
        )
    if folder.suffix.lower() in (".csv", ".jsonl", ".parquet") and not folder.exists():
        raise ConfigError(
            f"--out {shown}: {_describe(tasks)}, which is written to files in a folder, with a table {TABLE}; give the "
            f"folder, such as --out {quote_path(folder.with_suffix(''))}"
        )
    if not folder.parent.is_dir():
        raise ConfigError(f"--out {shown}: the folder {quote_path(folder.parent)} does not exist")
    whole = folder.resolve()
    for path in inputs:
        if path.is_dir() and whole.is_relative_to(path.resolve()):
            raise ConfigError(
                f"--out {shown}: lies in the input folder {quote_path(path)}, whose images the next call would read; "
                "choose a folder outside"
            )
        if any(path.resolve().is_relative_to(whole / task) for task in tasks):
            raise ConfigError(f"--out {shown}: the input {quote_path(path)} lies where predictions would be written")


def _describe(tasks: Sequence[str]) -> str:
    names = join_names([repr(task) for task in tasks])
    return (
        f"the task {names} predicts a value for each pixel"
        if len(tasks) == 1
        else (f"the tasks {names} predict a value for each pixel")
    )
