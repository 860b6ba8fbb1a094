"""Getting a dataset's files: from the first source that has them, verified before they are put in place."""

from __future__ import annotations

import fcntl
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

from mtlcli.data.formats.compressed import describe_error, open_decompressed
from mtlcli.errors import ConfigError, MtlError
from mtlcli.files import given_path

log = logging.getLogger("mtl")

State = Literal["ok", "missing", "damaged"]
WORK = ".fetch-"  # how the names of folders begin in which files are fetched


class SourceUnavailable(Exception):  # noqa: N818  (it is no error: the next source is tried)
    """A source that can't be reached or doesn't have the files, with the reason in one line."""


class DownloadSource(Protocol):
    """A place files may come from."""

    @property
    def label(self) -> str:
        """What it is called in the log."""

    def collect(self, names: Iterable[str], work: Path) -> Mapping[str, Path]:
        """Those of the files that it has, plain or compressed (.gz), in `work` or elsewhere. Or SourceUnavailable."""


@dataclass(frozen=True)
class Collection:
    """The files of a dataset that can be fetched, laid out as torchvision does it: `<root>/<folder>/raw/<file>`.

    files: name → SHA-256 of the uncompressed bytes, in hexadecimal. sources: in the order they are tried.
    """

    folder: str
    files: Mapping[str, str]
    sources: tuple[DownloadSource, ...]

    def raw(self, root: Path) -> Path:
        return root / self.folder / "raw"

    def find(self, root: Path, file: str) -> Path | None:
        """The file, or its .gz beside where it belongs; None where there is neither."""
        plain = self.raw(root) / file
        # Unlike Path.is_file, it takes a folder that can't be looked into, or a name that is too long, for no file.
        return next((path for path in (plain, plain.with_name(f"{file}.gz")) if os.path.isfile(path)), None)  # noqa: PTH113

    def complete(self, root: Path) -> bool:
        """Whether every file is there; their checksums are not looked at."""
        return all(self.find(root, file) for file in self.files)

    def check(self, root: Path) -> dict[str, State]:
        """Every file's state, by its checksum."""
        return {file: self._state(self.find(root, file), digest) for file, digest in self.files.items()}

    def _state(self, path: Path | None, digest: str) -> State:
        if path is None:
            return "missing"
        try:
            with open_decompressed(path) as file:
                return "ok" if _digest(file) == digest else "damaged"
        except OSError:  # a .gz cut short or of other content
            return "damaged"


def data_root(root: str | None) -> Path:
    """Where data lives: `root`, else $MTL_DATA, else `data` in the current folder. ConfigError for no possible path."""
    return given_path(root or os.environ.get("MTL_DATA") or "data", "data root")


def ensure_files(name: str, collection: Collection, root: str | None, download: bool) -> dict[str, Path]:
    """File → its path, below `root` as `data_root` takes it; missing ones are fetched, their checksums not looked at.

    name: of the dataset, for messages. ConfigError where files are missing and `download` is false, MtlError where they
    can't be had.
    """
    folder = data_root(root)
    if not collection.complete(folder):
        if not download:
            missing = [file for file in collection.files if collection.find(folder, file) is None]
            raise ConfigError(
                f"{name}: no {', '.join(missing)} in {collection.raw(folder)}, and `download` is false. "
                f"Run {_fetch_command(name, root)}, or set `root` or $MTL_DATA to where the data is"
            )
        fetch(name, collection, folder)
    found = {file: collection.find(folder, file) for file in collection.files}
    return {file: path for file, path in found.items() if path is not None}


def suggest_fetch(name: str, root: str | None) -> str:
    """What to do about a damaged file of a dataset, for the end of a message."""
    return f"Run {_fetch_command(name, root)}: it verifies the files and fetches a damaged one again"


def fetch(name: str, collection: Collection, root: Path) -> dict[str, str]:
    """Put every file in place that is missing or damaged. Returns file → where it came from.

    name: of the dataset, for messages. Files appear whole and verified, whenever the process is killed; one process at
    a time fetches, others wait and find the files. MtlError where no source has them, or the folder can't be written
    to.
    """
    origins = _found(collection, root)
    if len(origins) == len(collection.files):
        return origins
    try:
        with _exclusive(name, collection.raw(root)):
            origins = _found(collection, root)  # another process may have fetched them meanwhile
            tried = _fetch_from_sources(name, collection, root, origins)
    except OSError as error:
        raise MtlError(f"{name}: can't write the data to {collection.raw(root)}: {describe_error(error)}") from error
    if missing := [file for file in collection.files if file not in origins]:
        raise MtlError(
            f"{name}: can't fetch {', '.join(missing)}. Tried:\n" + "\n".join(tried) + f"\nTo place them by hand, put "
            f"{', '.join(missing)} (or the same with .gz) into {collection.raw(root).absolute()}, and run "
            f"`mtl data fetch {name}` again to verify them"
        )
    return {file: origins[file] for file in collection.files}


def _found(collection: Collection, root: Path) -> dict[str, str]:
    return {file: "already there" for file, state in collection.check(root).items() if state == "ok"}


@contextmanager
def _exclusive(name: str, raw: Path) -> Iterator[None]:
    """Keep other processes from fetching into the folder `raw`, waiting for the one that does. OSError if it can't be.

    The lock ends with the process, whatever ends it. What such a process has left unfinished is removed.
    """
    raw.mkdir(parents=True, exist_ok=True)
    with (raw.parent / ".lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.warning("%s: another process is fetching it; waiting for that", name)
            fcntl.flock(file, fcntl.LOCK_EX)
        for unfinished in raw.glob(f"{WORK}*"):
            shutil.rmtree(unfinished, ignore_errors=True)
        yield


def _fetch_from_sources(name: str, collection: Collection, root: Path, origins: dict[str, str]) -> list[str]:
    """Put the files in place that `origins` lacks, and note there where they came from. Returns what was in vain."""
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
    """Move the files that `source` has into place. SourceUnavailable if it has none, or wrong ones."""
    found = source.collect(missing, work)
    if not found:
        raise SourceUnavailable("has none of the files")
    unpacked = {}
    for file, path in found.items():
        unpacked[file] = work / f"{file}.unpacked"
        try:
            with open_decompressed(path) as packed, unpacked[file].open("wb") as plain:
                shutil.copyfileobj(packed, plain, 1 << 20)
                plain.flush()
                os.fsync(plain.fileno())
        except gzip.BadGzipFile as error:
            raise SourceUnavailable(f"{file} is no whole gzip file: {error}") from error
        with unpacked[file].open("rb") as plain_again:
            if (digest := _digest(plain_again)) != collection.files[file]:
                raise SourceUnavailable(f"{file} has the wrong checksum: {digest} instead of {collection.files[file]}")
    for file, path in unpacked.items():
        path.replace(collection.raw(root) / file)
    _sync_folder(collection.raw(root))
    return list(unpacked)


def _digest(file: IO[bytes]) -> str:
    digest = hashlib.sha256()
    while block := file.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
