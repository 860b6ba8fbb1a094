"""Opening of files that may be compressed, protected against endless and extremely compressed ones."""

from __future__ import annotations

import gzip
import io
import zlib
from pathlib import Path
from typing import IO, Any

from mtlcli.data.formats.arrow_import import import_arrow

SUFFIXES = {".gz", ".tgz", ".zst"}
MAX_RATIO = 100  # compression ratio; data has 3 to 30, a malicious file 1,000
ALWAYS_ALLOWED = 2**24  # uncompressed bytes that any file may have


def open_decompressed(path: Path) -> IO[bytes]:
    """Open a plain file, a .gz, a .tgz or a .zst.

    Args:
        path: the file.

    Returns:
        A stream of the uncompressed bytes. Reading it raises gzip.BadGzipFile, an OSError, if the file is damaged or
        expands to more than `max_size` bytes.

    Raises:
        OSError: the file can't be opened, or is a pipe or a device, which may never end.
    """
    if path.exists() and not path.is_file() and not path.is_dir():
        raise OSError("is a pipe or a device, not a file")
    if path.suffix not in SUFFIXES:
        return path.open("rb")
    file = _open_zstd(path) if path.suffix == ".zst" else gzip.GzipFile(path)
    return io.BufferedReader(_SizeLimited(file, max_size(path)), 2**16)


def _open_zstd(path: Path) -> Any:
    path.open("rb").close()  # for Python's error message
    return import_arrow(f"{path}: a .zst file").CompressedInputStream(str(path), "zstd")


def verify_compressed(path: Path) -> None:
    """Read a compressed file to its end, so that damage is found before its content is used."""
    if path.suffix in SUFFIXES:
        with open_decompressed(path) as file:
            while file.read(2**20):
                pass


def max_size(path: Path) -> int:
    """Limit the number of uncompressed bytes that are read from a file.

    Args:
        path: the file.

    Returns:
        The maximum number of bytes.
    """
    size = path.stat().st_size
    return max(ALWAYS_ALLOWED, MAX_RATIO * size) if path.suffix in SUFFIXES else size


def describe_os_error(error: Exception) -> str:
    """Describe an error without the file's name, with which the message begins."""
    return getattr(error, "strerror", None) or str(error)


class _SizeLimited(io.RawIOBase):
    def __init__(self, file: Any, max_size: int) -> None:
        self._file = file
        self._left = self._most = max_size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        try:
            got = int(self._file.readinto(buffer))
        except (EOFError, zlib.error, ValueError) as error:  # an ArrowInvalid is a ValueError
            raise gzip.BadGzipFile(f"damaged: {error}") from error
        except OSError as error:
            if isinstance(self._file, gzip.GzipFile):
                raise
            raise gzip.BadGzipFile(f"damaged: {error}") from error
        self._left -= got
        if self._left < 0:
            raise gzip.BadGzipFile(
                f"becomes more than {self._most // 2**20:,} MiB when it is unpacked, far more than data does; "
                f"unpack it by hand (gunzip) if it is to be so"
            )
        return got

    def close(self) -> None:
        self._file.close()
        super().close()
