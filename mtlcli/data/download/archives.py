"""Extraction of single files from downloaded archives, protected against endless and extremely compressed ones."""

from __future__ import annotations

import gzip
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import IO, cast

from mtlcli.data.download.collection import SourceUnavailable

MAX_MEMBERS = 10_000  # members of an archive
MAX_BYTES = 400 * 2**20  # uncompressed size of an archive, and of the files that are extracted from one


def extract_members(stream: IO[bytes], archive: str, members: Mapping[str, str], work: Path) -> dict[str, Path]:
    """Extract files from an uncompressed tar archive that is read once, from its beginning.

    Args:
        stream: the archive.
        archive: its name, for messages.
        members: path in the archive → name of the file in `work`.
        work: folder for the files.

    Returns:
        Name → path in `work`, without files that the archive lacks.

    Raises:
        SourceUnavailable: the archive is damaged, exceeds MAX_MEMBERS or MAX_BYTES, or one of `members` is not a
            regular file.
    """
    try:
        return _extract(stream, members, work)
    except (tarfile.TarError, gzip.BadGzipFile, EOFError, ValueError, RecursionError) as error:
        raise SourceUnavailable(f"{archive}: {error}") from error


def _extract(stream: IO[bytes], members: Mapping[str, str], work: Path) -> dict[str, Path]:
    extracted = {}
    with tarfile.open(fileobj=cast("IO[bytes]", _SizeLimitedReader(stream)), mode="r|") as tar:
        for count, member in enumerate(tar):
            if count >= MAX_MEMBERS:
                raise tarfile.ReadError(f"has more than {MAX_MEMBERS:,} members")
            if (name := members.get(member.name.removeprefix("./"))) is None:
                continue
            if not member.isreg():
                raise tarfile.ReadError(f"{member.name} is a link, a folder or a device, not a regular file")
            content = tar.extractfile(member)
            assert content is not None  # it is a regular file
            with (work / name).open("wb") as file:
                shutil.copyfileobj(content, file)
            extracted[name] = work / name
            if len(extracted) == len(set(members.values())):
                break
    return extracted


class _SizeLimitedReader:
    """Reads at most MAX_BYTES of a stream: an archive of a few kB may expand to terabytes, in headers alone."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream, self._left = stream, MAX_BYTES

    def read(self, size: int) -> bytes:
        block = self._stream.read(size)
        self._left -= len(block)
        if self._left < 0:
            raise tarfile.ReadError(f"expands to more than {MAX_BYTES // 2**20} MiB")
        return block


def extract_zipped(archive: Path, members: Mapping[str, str], work: Path) -> dict[str, Path]:
    """Extract files from a zip archive, such as a wheel.

    Args:
        archive: the archive.
        members: path in the archive → name of the file in `work`.
        work: folder for the files.

    Returns:
        Name → path in `work`, without files that the archive lacks.

    Raises:
        SourceUnavailable: the archive is damaged, or the files exceed MAX_BYTES.
    """
    left = MAX_BYTES
    extracted = {}
    try:
        with zipfile.ZipFile(archive) as packed:
            for member in packed.infolist():
                if (name := members.get(member.filename)) is None:
                    continue
                left -= member.file_size  # at most as many bytes are extracted
                if left < 0:
                    raise zipfile.BadZipFile(f"expands to more than {MAX_BYTES // 2**20} MiB")
                (work / name).parent.mkdir(parents=True, exist_ok=True)
                with packed.open(member) as content, (work / name).open("wb") as file:
                    shutil.copyfileobj(content, file)
                extracted[name] = work / name
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise SourceUnavailable(f"{archive.name}: {error}") from error
    return extracted
