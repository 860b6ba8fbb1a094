"""Files that are downloaded from the first source that has them, and verified before they are put in place."""

from __future__ import annotations

import gzip
import hashlib
import logging
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal, Protocol

from mtlcli.data.formats.compressed import describe_os_error, open_decompressed
from mtlcli.errors import ConfigError, MtlError
from mtlcli.files import data_root as data_root
from mtlcli.files import sync, wait_for_lock

log = logging.getLogger("mtl")

State = Literal["ok", "missing", "damaged"]
WORK = ".fetch-"  # prefix of temporary folders


class SourceUnavailable(Exception):  # noqa: N818  (not an error: the next source is tried)
    """A source that can't be reached or doesn't have the files, with the reason in one line."""


class DownloadSource(Protocol):
    """Source from which files can be downloaded."""

    @property
    def label(self) -> str:
        """Name of the source in messages."""

    def collect(self, names: Iterable[str], work: Path) -> Mapping[str, Path]:
        """Collect those of the files that the source has.

        Raises a SourceUnavailable if the source can't be reached or doesn't have the files.

        Args:
            names: names of the files.
            work: folder for temporary files.

        Returns:
            Name → path of the file, plain or compressed (.gz), in `work` or elsewhere.
        """


@dataclass(frozen=True)
class Collection:
    """Files that can be downloaded, by default in torchvision's layout `<root>/<folder>/raw/<file>`.

    Args:
        folder: folder below the data root.
        files: name, possibly in a subfolder → SHA-256 of the uncompressed content, in hexadecimal.
        sources: sources in the order in which they are tried.
        subfolder: folder of the files in `folder`; "" for `folder` itself.
    """

    folder: str
    files: Mapping[str, str]
    sources: tuple[DownloadSource, ...]
    subfolder: str = "raw"

    def raw(self, root: Path) -> Path:
        """Return the folder of the files below a data root."""
        return root / self.folder / self.subfolder

    def find(self, root: Path, file: str) -> Path | None:
        """Find a file, plain or compressed.

        Args:
            root: the data root.
            file: name of the file.

        Returns:
            Path of the file or its .gz, or None if neither exists.
        """
        plain = self.raw(root) / file
        # Unlike Path.is_file, this returns False for an unreadable folder or a name that is too long.
        return next((path for path in (plain, plain.with_name(f"{plain.name}.gz")) if os.path.isfile(path)), None)  # noqa: PTH113

    def complete(self, root: Path) -> bool:
        """Return True if every file exists. Checksums are not verified."""
        return all(self.find(root, file) for file in self.files)

    def check(self, root: Path) -> dict[str, State]:
        """Verify the checksum of every file.

        Args:
            root: the data root.

        Returns:
            Name → state of the file.
        """
        return {file: self._state(self.find(root, file), digest) for file, digest in self.files.items()}

    def _state(self, path: Path | None, digest: str) -> State:
        if path is None:
            return "missing"
        try:
            with open_decompressed(path) as file:
                return "ok" if _digest(file) == digest else "damaged"
        except OSError:  # a .gz cut short or of other content
            return "damaged"


def ensure_files(name: str, collection: Collection, root: str | None, download: bool) -> dict[str, Path]:
    """Find the files of a dataset, downloading missing ones. Checksums are not verified.

    Raises an MtlError if missing files can't be downloaded.

    Args:
        name: name of the dataset, for messages.
        collection: its files.
        root: path of the data root, see `data_root`.
        download: whether to download missing files.

    Returns:
        Name → path of the file.

    Raises:
        ConfigError: files are missing and `download` is False.
    """
    folder = data_root(root)
    if not collection.complete(folder):
        if not download:
            missing = [file for file in collection.files if collection.find(folder, file) is None]
            raise ConfigError(
                f"{name}: no {', '.join(missing)} in {collection.raw(folder)}, and `download` is false. "
                f"Run {_fetch_command(name, root)}, or set `root` or $MTL_DATA to the folder of the data"
            )
        fetch_files(name, collection, folder)
    paths = {file: collection.find(folder, file) for file in collection.files}
    return {file: path for file, path in paths.items() if path is not None}


def suggest_fetch(name: str, root: str | None) -> str:
    """Return the remedy for a damaged file of a dataset, for the end of a message.

    Args:
        name: name of the dataset.
        root: path of the data root given by the user, or None.

    Returns:
        A sentence without its final period.
    """
    return f"Run {_fetch_command(name, root)}: it verifies the files and downloads damaged ones again"


def fetch_files(name: str, collection: Collection, root: Path) -> dict[str, str]:
    """Download every file that is missing or damaged.

    Files are put in place whole and verified, even if the process is killed. Only one process downloads at a time;
    others wait, and then use its files.

    Args:
        name: name of the dataset, for messages.
        collection: its files.
        root: the data root.

    Returns:
        Name → source of the file.

    Raises:
        MtlError: no source has the files, or the folder can't be written to.
    """
    origins = _list_verified(collection, root)
    if len(origins) == len(collection.files):
        return origins
    try:
        with _exclusive(name, collection, root):
            origins = _list_verified(collection, root)  # another process may have downloaded them meanwhile
            tried = _fetch_from_sources(name, collection, root, origins)
    except OSError as error:
        raise MtlError(f"{name}: can't write the data to {collection.raw(root)}: {describe_os_error(error)}") from error
    if missing := [file for file in collection.files if file not in origins]:
        raise MtlError(
            f"{name}: can't download {', '.join(missing)}. Sources tried:\n" + "\n".join(tried) + f"\nTo add them "
            f"manually, copy {', '.join(missing)} (or .gz files of these names) to "
            f"{collection.raw(root).absolute()}, and run `mtl data fetch {name}` again to verify them"
        )
    return {file: origins[file] for file in collection.files}


def _list_verified(collection: Collection, root: Path) -> dict[str, str]:
    return {file: "already there" for file, state in collection.check(root).items() if state == "ok"}


@contextmanager
def _exclusive(name: str, collection: Collection, root: Path) -> Iterator[None]:
    """Keep other processes from downloading the files, and remove what a killed one left behind."""
    raw = collection.raw(root)
    raw.mkdir(parents=True, exist_ok=True)
    message = "%s: another process is downloading it; waiting for that process"
    with wait_for_lock(root / collection.folder / ".lock", lambda: log.warning(message, name)):
        for unfinished in raw.glob(f"{WORK}*"):
            shutil.rmtree(unfinished, ignore_errors=True)
        yield


def _fetch_from_sources(name: str, collection: Collection, root: Path, origins: dict[str, str]) -> list[str]:
    """Put the files missing in `origins` in place, add their sources there, and return the sources that failed."""
    tried: list[str] = []
    for source in collection.sources:
        missing = [file for file in collection.files if file not in origins]
        if not missing:
            break
        with tempfile.TemporaryDirectory(prefix=WORK, dir=collection.raw(root)) as work:
            try:
                placed = _install_files(source, collection, missing, root, Path(work))
            except SourceUnavailable as unavailable:
                log.warning("%s: %s: %s", name, source.label, unavailable)
                tried.append(f"  {source.label}: {unavailable}")
            else:
                log.info("%s: %d files from %s", name, len(placed), source.label)
                origins |= dict.fromkeys(placed, source.label)
    return tried


def _fetch_command(name: str, root: str | None) -> str:
    return f"`mtl data fetch {name}{f' --root {root}' if root else ''}`"


def _install_files(
    source: DownloadSource, collection: Collection, missing: list[str], root: Path, work: Path
) -> list[str]:
    """Move the files of a source into place. SourceUnavailable if it has none, or wrong ones."""
    collected = source.collect(missing, work)
    if not collected:
        raise SourceUnavailable("has none of the files")
    unpacked = {}
    for file, path in collected.items():
        unpacked[file] = work / f"{file}.unpacked"
        unpacked[file].parent.mkdir(exist_ok=True)
        try:
            with open_decompressed(path) as packed, unpacked[file].open("wb") as plain:
                shutil.copyfileobj(packed, plain, 1 << 20)
        except gzip.BadGzipFile as error:
            raise SourceUnavailable(f"{file} is not a complete gzip file: {error}") from error
        sync(unpacked[file])
        with unpacked[file].open("rb") as written:
            if (digest := _digest(written)) != collection.files[file]:
                raise SourceUnavailable(f"{file} has the wrong checksum: {digest} instead of {collection.files[file]}")
    for file, path in unpacked.items():
        target = collection.raw(root) / file
        target.parent.mkdir(exist_ok=True)
        path.replace(target)
    for folder in {(collection.raw(root) / file).parent for file in unpacked}:
        sync(folder)
    return list(unpacked)


def _digest(file: IO[bytes]) -> str:
    digest = hashlib.sha256()
    while block := file.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()
