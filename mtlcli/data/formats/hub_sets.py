"""Opening of data sets through the library `datasets`: local files and folders, and sets of the Hugging Face hub."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from glob import has_magic
from pathlib import Path
from typing import Any

from mtlcli.data.formats.split_names import SPLITS, match_split
from mtlcli.errors import ConfigError, suggest
from mtlcli.files import user_path
from mtlcli.text import join_names, printable

# Suffix → builder of `datasets` and its options
BUILDERS: dict[str, tuple[str, dict[str, str]]] = {
    ".csv": ("csv", {}),
    ".tsv": ("csv", {"sep": "\t"}),
    ".json": ("json", {}),
    ".jsonl": ("json", {}),
    ".ndjson": ("json", {}),
    ".parquet": ("parquet", {}),
    ".arrow": ("arrow", {}),
}
COMPRESSED = {".gz", ".zst", ".bz2", ".xz"}
HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
MAX_REASON = 300  # characters of a library's message
ON_DISK_SHARDS = 64  # of a folder written by `save_to_disk`, when it is streamed


@dataclass(frozen=True)
class OpenedSet:
    """Splits of a data set.

    Attributes:
        path: path or id of the set, for messages.
        splits: `train`, `val` and `test`, in this order → `datasets.Dataset` or `datasets.IterableDataset`.
        others: splits of the set that are not used.
        files: split → its files, if it is streamed from files.
    """

    path: str
    splits: dict[str, Any]
    others: list[str]
    files: dict[str, list[str]] = field(default_factory=dict)

    @property
    def features(self) -> dict[str, Any]:
        """Column → its feature type, the same in all splits. ConfigError if the splits have different columns."""
        (first, rows), *others = self.splits.items()
        for split, other in others:
            if differing := set(rows.column_names) ^ set(other.column_names):
                names = join_names(sorted(differing))
                raise ConfigError(f"{self.path}: only one of the splits {first!r} and {split!r} has {names}")
        features: dict[str, Any] = rows.features
        return features

    def notes(self) -> list[str]:
        """List the splits that are not used, in one sentence, if there are any."""
        if not self.others:
            return []
        return [f"splits of the set that are not used: {join_names(self.others)}; choose by `splits`"]


def import_datasets() -> Any:
    """Import the library `datasets`, without its progress bars and log messages.

    Returns:
        The module.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import datasets
    except ImportError as error:
        raise ConfigError(
            f"the dataset 'huggingface' needs the library `datasets` ({error}): pip install 'mtlcli[huggingface]'"
        ) from error
    datasets.disable_progress_bars()
    for name in ("datasets", "huggingface_hub", "fsspec", "httpx"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    return datasets


def open_set(
    path: str,
    config: str | None = None,
    revision: str | None = None,
    splits: Mapping[str, str] | None = None,
    streaming: bool = False,
) -> OpenedSet:
    """Open a data set.

    Args:
        path: folder, file, pattern of files (`shards/*.parquet`), or id of a set on the hub.
        config: name of the set's configuration; None for its only or default one.
        revision: branch, tag or commit of a set on the hub; None for its main branch.
        splits: `train`, `val` or `test` → split of the set, or file or pattern of files in the folder; None to match
            them by name.
        streaming: open the splits as sequences, without random access and without a copy of the data.

    Returns:
        Its splits.

    Raises:
        ConfigError: the set can't be opened, or has no such splits.
    """
    datasets = import_datasets()
    splits = splits or {}
    place = user_path(path)
    local = place.exists() or has_magic(path) or path.startswith((".", "/", "~")) or _suffix(place) in BUILDERS
    try:
        if local:
            opened, splits, files = _open_local(datasets, place, config, splits, streaming)
        elif HUB_ID.fullmatch(path):
            opened, files = _load(datasets, streaming, path, config, revision=revision)
        else:
            raise ConfigError(f"{path}: no such file or folder, and not the id of a set on the hub (owner/name)")
    except ConfigError:
        raise
    except Exception as error:  # the library and those below it raise exceptions of many types
        raise ConfigError(printable(_explain(error, path, local, datasets.config.HF_HUB_OFFLINE))) from error
    if not isinstance(opened, dict):
        opened = {str(opened.split or "train").partition("[")[0]: opened}
    return _select_splits(path, {str(name): split for name, split in opened.items()}, splits, files)


def _load(datasets: Any, streaming: bool, *arguments: Any, **options: Any) -> tuple[Any, dict[str, list[str]]]:
    """Return the splits, and the files of each if they are streamed."""
    if not streaming:
        return datasets.load_dataset(*arguments, **options), {}
    builder = datasets.load_dataset_builder(*arguments, **options)
    files = {str(split): list(names) for split, names in (builder.config.data_files or {}).items()}
    return builder.as_streaming_dataset(), files


def _open_local(
    datasets: Any, place: Path, config: str | None, splits: Mapping[str, str], streaming: bool
) -> tuple[Any, Mapping[str, str], dict[str, list[str]]]:
    """Return the opened splits, the option `splits` with split names in place of files, and `OpenedSet.files`."""
    if not place.is_dir():
        if splits:
            raise ConfigError(f"{place}: `splits` names splits, but this is a file; set `path` to its folder")
        opened, files = _open_files(datasets, {"train": _list_files(place.parent, place.name)}, streaming)
        return opened, {}, files
    if (place / "dataset_dict.json").exists() or (place / "state.json").exists():
        opened = datasets.load_from_disk(str(place))
        if not streaming:
            return opened, splits, {}
        sets = opened if isinstance(opened, dict) else {str(opened.split or "train"): opened}
        streams = {
            name: rows.to_iterable_dataset(max(1, min(ON_DISK_SHARDS, len(rows)))) for name, rows in sets.items()
        }
        return streams, splits, {}
    if named := {split: name for split, name in splits.items() if has_magic(name) or _suffix(Path(name)) in BUILDERS}:
        if others := [name for split, name in splits.items() if split not in named]:
            raise ConfigError(f"`splits` names files and a split, {others[0]!r}; name files for all splits")
        listed = {split: _list_files(place, name) for split, name in named.items()}
        opened, files = _open_files(datasets, listed, streaming)
        return opened, {split: split for split in named}, files
    opened, files = _load(datasets, streaming, str(place), config)
    return opened, splits, files


def _open_files(datasets: Any, files: Mapping[str, Sequence[str]], streaming: bool) -> tuple[Any, dict[str, list[str]]]:
    suffixes = {_suffix(Path(name)) for names in files.values() for name in names}
    builders = {BUILDERS[suffix][0] if suffix in BUILDERS else suffix for suffix in suffixes}
    if len(builders) > 1 or not suffixes <= BUILDERS.keys():
        raise ConfigError(
            f"files of the formats {join_names(sorted(suffixes))}; expected one of {join_names(list(BUILDERS))}"
        )
    builder, options = BUILDERS[suffixes.pop()]
    return _load(datasets, streaming, builder, data_files=dict(files), **options)


def _list_files(folder: Path, pattern: str) -> list[str]:
    """List the files of a pattern. ConfigError if none exists, or it leads out of the folder."""
    if ".." in Path(pattern).parts or Path(pattern).is_absolute():
        raise ConfigError(f"{pattern!r} is not a file or pattern of files inside {folder}")
    exact = folder / pattern
    names = [exact] if exact.is_file() else sorted(file for file in folder.glob(pattern) if file.is_file())
    if not names:
        raise ConfigError(f"{exact}: no such file" + ("" if folder.is_dir() else "; the folder doesn't exist"))
    return [str(name) for name in names]


def _suffix(path: Path) -> str:
    """Return the suffix of a file's name, before that of a compression."""
    suffixes = path.suffixes
    return suffixes[-2] if len(suffixes) > 1 and suffixes[-1] in COMPRESSED else path.suffix


def _select_splits(
    path: str, own: Mapping[str, Any], chosen: Mapping[str, str], files: Mapping[str, list[str]]
) -> OpenedSet:
    """Assign the set's splits to `train`, `val` and `test`."""
    if not chosen:
        names: dict[str, list[str]] = {}
        for name in own:
            if (split := match_split(name)) is not None:
                names.setdefault(split, []).append(name)
        for split, alike in names.items():
            if len(alike) > 1 and split not in alike:
                raise ConfigError(f"{path}: its splits {join_names(alike)} all mean {split}; choose by `splits`")
        chosen = {split: split if split in alike else alike[0] for split, alike in names.items()}
        if not chosen:
            if len(own) > 1:
                raise ConfigError(f"{path}: has the splits {join_names(list(own))}; choose by `splits: {{train: …}}`")
            chosen = {"train": next(iter(own))}
    for split, name in chosen.items():
        if name not in own:
            raise ConfigError(
                f"{path}: no split {name!r}, which `splits` names for {split!r}.{suggest(name, own)} Its splits: "
                f"{join_names(list(own))}"
            )
    selected = {split: own[chosen[split]] for split in SPLITS if split in chosen}
    others = [name for name in own if name not in chosen.values()]
    return OpenedSet(path, selected, others, {split: files.get(chosen[split], []) for split in selected})


def _explain(error: Exception, path: str, local: bool, offline: bool) -> str:
    """Describe why a set can't be opened, in one line."""
    causes: list[BaseException] = [error]
    while (cause := causes[-1].__cause__) is not None and cause not in causes:
        causes.append(cause)
    described = [text for cause in causes if (text := " ".join(str(cause).split()))]
    # `datasets` wraps the error of a file in one that says only that an error occurred.
    words = described[-1] if described and described[0].startswith("An error occurred") else "".join(described[:1])
    reason = words[:MAX_REASON] + ("…" if len(words) > MAX_REASON else "")
    if "scripts are no longer supported" in words:
        return (
            f"{path}: the set is loaded by a script, which is never run. If the hub has a copy in Parquet, set "
            f"`revision: refs/convert/parquet`"
        )
    if local:
        return f"{path}: can't be opened: {reason}"
    if "onfig name is missing" in words or ("onfig" in words and "not found" in words):
        return f"{path}: set `config` to one of the set's configurations: {reason}"
    why = "HF_HUB_OFFLINE is set, and the set is not in the cache" if offline else reason
    return (
        f"{path}: no file or folder has this path, and the set of this name on the hub can't be loaded: {why}. To "
        f"use it without a network, run `hf download --repo-type dataset {path} --local-dir FOLDER` where there is "
        f"one, and set `path` to that folder"
    )
