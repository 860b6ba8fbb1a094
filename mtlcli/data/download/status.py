"""State of the datasets' files, for `mtl data list` and `mtl doctor`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from mtlcli.data.base import Dataset
from mtlcli.data.download.collection import data_root
from mtlcli.registry import datasets


@dataclass(frozen=True)
class DatasetStatus:
    """State of one dataset.

    Attributes:
        name: name of the dataset.
        files: `ok`, `missing`, `damaged`, or the number of files in each state, by checksum; None if there is nothing
            to download.
        folder: folder of the files; None if there is nothing to download.
        origin: source of the data in a few words.
    """

    name: str
    files: str | None
    folder: str | None
    origin: str


def check_dataset(name: str, root: str | None = None) -> DatasetStatus:
    """Check the files of a dataset.

    Raises a ConfigError if the dataset is not registered.

    Args:
        name: name of the dataset.
        root: path of the data root, see `data_root`.

    Returns:
        Its state.
    """
    dataset = get_dataset_class(name)
    if dataset.collection is None:
        return DatasetStatus(name, None, None, dataset.origin)
    states = list(dataset.collection.check(data_root(root)).values())
    counts = {state: states.count(state) for state in ("ok", "damaged", "missing") if state in states}
    files = ", ".join(state if len(counts) == 1 else f"{count} {state}" for state, count in counts.items())
    return DatasetStatus(name, files, str(dataset.collection.raw(data_root(root))), dataset.origin)


def list_datasets(root: str | None = None) -> dict[str, str]:
    """List the datasets with the state of their files or, if there is nothing to download, their source.

    Args:
        root: path of the data root, see `data_root`.

    Returns:
        Name → state or source.
    """
    statuses = [check_dataset(name, root) for name in datasets.names()]
    return {status.name: status.files or status.origin for status in statuses}


def expand_names(names: Iterable[str]) -> list[str]:
    """Replace datasets composed of others by these, and remove duplicates.

    Raises a ConfigError if a dataset is not registered.

    Args:
        names: names of datasets.

    Returns:
        Names of the datasets whose files are used.
    """
    return list(dict.fromkeys(used for name in names for used in get_dataset_class(name).made_of or (name,)))


def get_dataset_class(name: str) -> type[Dataset]:
    """Return the registered dataset class.

    Raises a ConfigError if the dataset is not registered; suggests the nearest name.

    Args:
        name: name of the dataset.

    Returns:
        The class.
    """
    target: type[Dataset] = datasets[name].target
    return target
