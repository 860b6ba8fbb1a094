"""Getting a dataset's files: from the first source that has them, verified before they are put in place."""

from __future__ import annotations

import gzip
import hashlib
import logging
import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal, Protocol, cast

from mtlcli.errors import ConfigError, MtlError

log = logging.getLogger("mtl")

State = Literal["ok", "missing", "damaged"]


class SourceUnavailable(Exception):  # noqa: N818  (it is no error: the next source is tried)
    """A source that can't be reached or doesn't have the files, with the reason in one line."""


class Source(Protocol):
    """A place files may come from."""

    @property
    def label(self) -> str:
        """What it is called in the log."""

    def collect(self, names: Iterable[str], work: Path) -> Mapping[str, Path]:
        """Those of the files that it has, plain or compressed (.gz), in `work` or elsewhere. Or SourceUnavailable."""


@dataclass(frozen=True)
class Collection:
    """The files of a dataset that can be fetched, laid out as torchvision does it: `<root>/<folder>/raw/<file>`.

    files: name → MD5 of the uncompressed bytes. sources: in the order they are tried.
    """

    folder: str
    files: Mapping[str, str]
    sources: tuple[Source, ...]

    def raw(self, root: Path) -> Path:
        return root / self.folder / "raw"

    def find(self, root: Path, file: str) -> Path | None:
        """The file, or its .gz beside where it belongs; None where there is neither."""
        plain = self.raw(root) / file
        return next((path for path in (plain, plain.with_name(f"{file}.gz")) if path.is_file()), None)

    def complete(self, root: Path) -> bool:
        """Whether every file is there; their checksums are not looked at."""
        return all(self.find(root, file) for file in self.files)

    def check(self, root: Path) -> dict[str, State]:
        """Every file's state, by its checksum."""
        return {file: self._state(self.find(root, file), md5) for file, md5 in self.files.items()}

    def _state(self, path: Path | None, md5: str) -> State:
        if path is None:
            return "missing"
        try:
            with opened(path) as file:
                return "ok" if _md5(file) == md5 else "damaged"
        except (OSError, EOFError):  # a .gz cut short or of other content
            return "damaged"


def data_root(root: str | None) -> Path:
    """Where data lives: `root`, else $MTL_DATA, else `data` in the current folder."""
    return Path(root or os.environ.get("MTL_DATA") or "data").expanduser()


def opened(path: Path) -> IO[bytes]:
    """The uncompressed bytes of a plain file or a .gz."""
    return cast("IO[bytes]", gzip.open(path)) if path.suffix == ".gz" else path.open("rb")


def fetched(name: str, collection: Collection, root: str | None, download: bool) -> dict[str, Path]:
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
                f"Run {_command(name, root)}, or set `root` or $MTL_DATA to where the data is"
            )
        fetch(name, collection, folder)
    found = {file: collection.find(folder, file) for file in collection.files}
    return {file: path for file, path in found.items() if path is not None}


def remedy(name: str, root: str | None) -> str:
    """What to do about a damaged file of a dataset, for the end of a message."""
    return f"Run {_command(name, root)}: it verifies the files and fetches a damaged one again"


def fetch(name: str, collection: Collection, root: Path) -> dict[str, str]:
    """Put every file in place that is missing or damaged. Returns file → where it came from.

    name: of the dataset, for messages. Files appear whole, verified and at once, so that several processes may fetch
    the same. MtlError where no source has them, or the folder can't be written to.
    """
    states = collection.check(root)
    origins = {file: "already there" for file, state in states.items() if state == "ok"}
    tried: list[str] = []
    try:
        for source in collection.sources:
            missing = [file for file in collection.files if file not in origins]
            if not missing:
                break
            collection.raw(root).mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=".fetch-", dir=collection.raw(root)) as work:
                try:
                    placed = _take(source, collection, missing, root, Path(work))
                except SourceUnavailable as reason:
                    log.warning("%s: %s: %s", name, source.label, reason)
                    tried.append(f"  {source.label}: {reason}")
                else:
                    log.info("%s: %d files from %s", name, len(placed), source.label)
                    origins |= dict.fromkeys(placed, source.label)
    except OSError as error:
        raise MtlError(f"{name}: can't write the data to {collection.raw(root)}: {error}") from error
    if missing := [file for file in collection.files if file not in origins]:
        raise MtlError(
            f"{name}: can't fetch {', '.join(missing)}. Tried:\n" + "\n".join(tried) + f"\nTo place them by hand, put "
            f"{', '.join(missing)} (or the same with .gz) into {collection.raw(root).absolute()}, and run "
            f"`mtl data fetch {name}` again to verify them"
        )
    return {file: origins[file] for file in collection.files}


def _command(name: str, root: str | None) -> str:
    return f"`mtl data fetch {name}{f' --root {root}' if root else ''}`"


def _take(source: Source, collection: Collection, missing: list[str], root: Path, work: Path) -> list[str]:
    """Move the files that `source` has into place. SourceUnavailable if it has none, or wrong ones."""
    found = source.collect(missing, work)
    if not found:
        raise SourceUnavailable("has none of the files")
    unpacked = {}
    for file, path in found.items():
        unpacked[file] = work / f"{file}.unpacked"
        try:
            with opened(path) as packed, unpacked[file].open("wb") as plain:
                shutil.copyfileobj(packed, plain, 1 << 20)
                plain.flush()
                os.fsync(plain.fileno())
        except (gzip.BadGzipFile, EOFError) as error:
            raise SourceUnavailable(f"{file} is no whole gzip file: {error}") from error
        with unpacked[file].open("rb") as plain_again:
            if (md5 := _md5(plain_again)) != collection.files[file]:
                raise SourceUnavailable(f"{file} has the wrong checksum: {md5} instead of {collection.files[file]}")
    for file, path in unpacked.items():
        path.replace(collection.raw(root) / file)
    _sync_folder(collection.raw(root))
    return list(unpacked)


def _md5(file: IO[bytes]) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    while block := file.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
