"""What data is here: for `mtl data list` and `mtl doctor`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from mtlcli.data.base import Dataset
from mtlcli.data.download.collection import data_root
from mtlcli.registry import datasets


@dataclass(frozen=True)
class DatasetStatus:
    """What there is of one dataset.

    files: `ok`, `missing`, `damaged` or how many are what, by checksum; folder: where they belong. Both None where
    there is nothing to fetch. origin: where the data comes from.
    """

    name: str
    files: str | None
    folder: str | None
    origin: str


def check_dataset(name: str, root: str | None = None) -> DatasetStatus:
    """Of the dataset `name`, with its files below `root`, by default $MTL_DATA or `data`. ConfigError if unknown."""
    dataset = get_dataset_class(name)
    if dataset.collection is None:
        return DatasetStatus(name, None, None, dataset.origin)
    states = list(dataset.collection.check(data_root(root)).values())
    counts = {state: states.count(state) for state in ("ok", "damaged", "missing") if state in states}
    told = ", ".join(state if len(counts) == 1 else f"{count} {state}" for state, count in counts.items())
    return DatasetStatus(name, told, str(dataset.collection.raw(data_root(root))), dataset.origin)


def list_datasets(root: str | None = None) -> dict[str, str]:
    """Dataset → the state of its files, or where its data comes from."""
    return {name: (found := check_dataset(name, root)).files or found.origin for name in datasets.names()}


def expand_names(names: Iterable[str]) -> list[str]:
    """`names`, but the datasets that others are made of in place of those, and none twice. ConfigError if unknown."""
    return list(dict.fromkeys(part for name in names for part in get_dataset_class(name).made_of or (name,)))


def get_dataset_class(name: str) -> type[Dataset]:
    """The registered dataset. ConfigError, with the nearest name, for one that isn't."""
    target: type[Dataset] = datasets[name].target
    return target
