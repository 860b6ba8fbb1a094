"""State of the files of datasets and pretrained weights, for `mtl data list` and `mtl doctor`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from mtlcli.data.base import Dataset
from mtlcli.data.datasets._dense_dataset import DenseDataset
from mtlcli.data.download.collection import Collection, data_root
from mtlcli.data.download.weights import SOURCES, collection_of
from mtlcli.errors import ConfigError, suggest
from mtlcli.pretrained import WEIGHTS
from mtlcli.registry import datasets


@dataclass(frozen=True)
class FileStatus:
    """State of the files of a dataset or of pretrained weights.

    Attributes:
        name: name of the dataset or the weights.
        files: `ok`, `missing`, `damaged`, or the number of files in each state, by checksum; of files that users place
            by hand, the layout that is found; None if there are no files.
        folder: folder of the files; None if there are none.
        origin: source of the data in a few words.
    """

    name: str
    files: str | None
    folder: str | None
    origin: str


def check_dataset(name: str, root: str | None = None) -> FileStatus:
    """Check the files of a dataset.

    Raises a ConfigError if the dataset is not registered.

    Args:
        name: name of the dataset.
        root: path of the data root, see `data_root`.

    Returns:
        Its state.
    """
    dataset = get_dataset_class(name)
    if issubclass(dataset, DenseDataset):
        folder = data_root(root) / dataset.folder
        found = dataset.find_layouts(folder)
        return FileStatus(name, f"found: {', '.join(found)}" if found else "missing", str(folder), dataset.origin)
    if dataset.collection is None:
        return FileStatus(name, None, None, dataset.origin)
    return _check_files(name, dataset.collection, dataset.origin, root)


def check_weights(name: str, root: str | None = None) -> FileStatus:
    """Check the files of pretrained weights.

    Args:
        name: name of the weights, one of `WEIGHTS`.
        root: path of the data root, see `data_root`.

    Returns:
        Their state.
    """
    return _check_files(name, collection_of(name), SOURCES[name][0], root)


def _check_files(name: str, collection: Collection, origin: str, root: str | None) -> FileStatus:
    states = list(collection.check(data_root(root)).values())
    counts = {state: states.count(state) for state in ("ok", "damaged", "missing") if state in states}
    files = ", ".join(state if len(counts) == 1 else f"{count} {state}" for state, count in counts.items())
    return FileStatus(name, files, str(collection.raw(data_root(root))), origin)


def list_datasets(root: str | None = None) -> dict[str, str]:
    """List the datasets with the state of their files or, if there is nothing to download, their source.

    Args:
        root: path of the data root, see `data_root`.

    Returns:
        Name → state or source.
    """
    statuses = [check_dataset(name, root) for name in datasets.names()]
    return {status.name: status.files or status.origin for status in statuses}


def list_weights(root: str | None = None) -> dict[str, str]:
    """List the pretrained weights with the state of their files.

    Args:
        root: path of the data root, see `data_root`.

    Returns:
        Name → state.
    """
    return {name: check_weights(name, root).files or "" for name in WEIGHTS}


def collections_of(names: Iterable[str]) -> dict[str, Collection | str]:
    """Return the files of datasets and of pretrained weights.

    A dataset composed of others is replaced by these.

    Args:
        names: names of datasets or weights.

    Returns:
        Name → files, or the origin of a dataset that has none.

    Raises:
        ConfigError: neither a dataset nor weights have one of the names.
    """
    collections: dict[str, Collection | str] = {}
    for name in names:
        if name in datasets:
            for used in get_dataset_class(name).made_of or (name,):
                dataset = get_dataset_class(used)
                collections[used] = dataset.collection or dataset.origin
        elif name in WEIGHTS:
            collections[name] = collection_of(name)
        else:
            hint = suggest(name, [*datasets.names(), *WEIGHTS])
            raise ConfigError(f"{datasets.unknown(name, hint)}. Pretrained weights: {', '.join(WEIGHTS)}")
    return collections


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
