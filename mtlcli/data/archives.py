"""Files out of tar archives that others have made."""

from __future__ import annotations

import gzip
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, cast

from mtlcli.data.fetching import SourceUnavailable

MOST_MEMBERS = 10_000  # of an archive
MOST_BYTES = 400 * 2**20  # of an archive, uncompressed


def extract(stream: IO[bytes], archive: str, members: Mapping[str, str], work: Path) -> dict[str, Path]:
    """Files out of an uncompressed tar archive that is read once, from its beginning. Returns name → file in `work`.

    archive: its name, for messages. members: path in it → name of the file in `work`; those it lacks are left out.
    SourceUnavailable for an archive that is damaged or larger than MOST_MEMBERS and MOST_BYTES allow, and for one of
    `members` that is anything but a plain file (a link, a device).
    """
    found = {}
    try:
        with tarfile.open(fileobj=cast("IO[bytes]", _Measured(stream)), mode="r|") as tar:
            for count, member in enumerate(tar):
                if count >= MOST_MEMBERS:
                    raise tarfile.ReadError(f"has more than {MOST_MEMBERS:,} members")
                if (name := members.get(member.name.removeprefix("./"))) is None:
                    continue
                if not member.isreg():
                    raise tarfile.ReadError(f"{member.name} is a link, a folder or a device, and a file is expected")
                tar.extract(member, work / "extracted", filter="data")
                found[name] = (work / "extracted" / member.name).replace(work / name)
                if len(found) == len(set(members.values())):
                    break
    except (tarfile.TarError, gzip.BadGzipFile, EOFError, ValueError, RecursionError) as error:
        raise SourceUnavailable(f"{archive}: {error}") from error
    return found


class _Measured:
    """Reads a stream, up to MOST_BYTES: an archive of a few kB may become terabytes, in headers alone."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream, self._left = stream, MOST_BYTES

    def read(self, size: int) -> bytes:
        block = self._stream.read(size)
        self._left -= len(block)
        if self._left < 0:
            raise tarfile.ReadError(f"becomes more than {MOST_BYTES // 2**20} MiB")
        return block
