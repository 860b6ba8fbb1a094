"""Detection of damaged or foreign checkpoint files before they are interpreted.

A checkpoint is a zip archive as `torch.save` writes it. The archive's comment, its last bytes, holds the SHA-256 of all
preceding bytes; torch and other zip readers are not affected by it. The CRCs of the zip format do not suffice: torch
does not check them, and they cover neither the directory nor the padding.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import struct
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from mtlcli.cores import physical_memory
from mtlcli.errors import ConfigError
from mtlcli.training.checkpoint.pickle_check import MOST_BYTES, check_pickle

MARK = b"mtl-sha256:"
SEAL = len(MARK) + 64
ENDING = 22 + SEAL  # last record of the zip directory, with the checksum as its comment
MAGIC = b"PK\x03\x04"
CHUNK = 2**20


def seal(archive: bytes | memoryview) -> bytes:
    """Append the checksum to an archive.

    Args:
        archive: Output of `torch.save`, without a comment.

    Returns:
        The content of the checkpoint file.
    """
    assert bytes(archive[-2:]) == b"\0\0"
    body = bytes(archive[:-2]) + struct.pack("<H", SEAL) + MARK
    return body + hashlib.sha256(body).hexdigest().encode()


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """Open a checkpoint file whose checksum and archive structure are valid.

    No content is interpreted before. Because anyone can compute a checksum, the structure of the archive is checked as
    well (`check_archive`).

    Args:
        path: The file.

    Yields:
        The file, at its start.

    Raises:
        ConfigError: If the file is missing, no regular file, larger than the memory of this machine, damaged, or not a
            checkpoint.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # do not wait for the writer of a pipe
        status = os.fstat(handle)
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: no such checkpoint file") from error
    except OSError as error:
        raise ConfigError(f"{path}: can't be read: {error.strerror or error}") from error
    if not stat.S_ISREG(status.st_mode):
        os.close(handle)
        raise ConfigError(f"{path}: not a regular file, so not a checkpoint")
    with os.fdopen(handle, "rb") as file:
        if status.st_size > (memory := physical_memory()):
            sizes = f"{status.st_size / 2**30:,.0f} GiB, but this machine has {memory / 2**30:,.1f} GiB of memory"
            raise ConfigError(f"{path}: too large to open: {sizes}")
        try:
            _check_seal(path, file, status.st_size)
            check_archive(file, status.st_size, comment=SEAL)
        except OSError as error:
            raise ConfigError(f"{path}: can't be read: {error.strerror or error}") from error
        except ValueError as error:
            raise ConfigError(f"{path}: not a checkpoint of mtl: {error}") from error
        file.seek(0)
        yield file


def _check_seal(path: Path, file: BinaryIO, size: int) -> None:
    start = file.read(len(MAGIC))
    if start != MAGIC:
        hint = ""
        if path.suffix in (".yaml", ".yml"):
            hint = f". It is an experiment file: run `mtl train {path}`, then `mtl eval RUN_FOLDER`"
        raise ConfigError(f"{path}: {'empty' if size == 0 else 'damaged'}, or not a checkpoint of mtl{hint}")
    file.seek(max(0, size - ENDING))
    ending = file.read(ENDING)
    body, written = ending[:-64], ending[-64:]
    if not body.endswith(MARK):
        raise ConfigError(f"{path}: damaged, or not a checkpoint of mtl: it does not end with an mtl checksum")
    digest, left = hashlib.sha256(), size - 64
    file.seek(0)
    while left > 0 and (chunk := file.read(min(CHUNK, left))):
        digest.update(chunk)
        left -= len(chunk)
    if digest.hexdigest().encode() != written:
        raise ConfigError(f"{path}: damaged: its content does not match its SHA-256; use another checkpoint")


END64, LOCATOR, END = struct.Struct("<4sQ2H2L4Q"), struct.Struct("<4sLQL"), struct.Struct("<4s4H2LH")
MOST_DIRECTORY = 16 * 2**20  # bytes: 200,000 tensors
MEMBER = re.compile(r"[\w.-]+/(data\.pkl|data/\d+|byteorder|version|\.[\w./]+)", re.ASCII)


def check_archive(file: BinaryIO, size: int, comment: int) -> None:
    """Check that an archive has the structure that `torch.save` gives it, with plain data only.

    Args:
        file: The archive.
        size: Bytes of the file.
        comment: Bytes of the archive's comment, at the end of the file.

    Raises:
        ValueError: With the reason, if it has not.
    """
    _check_end(file, size - comment, comment)
    try:
        with zipfile.ZipFile(file) as archive:
            records = _records(archive.infolist(), size)
            name = f"{archive.infolist()[0].filename.partition('/')[0]}/data.pkl"
            content = archive.read(name)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, LookupError, struct.error) as error:
        raise ValueError("its archive is malformed") from error
    check_pickle(content, records)


def _check_end(file: BinaryIO, end: int, comment: int) -> None:
    """Check that the archive has one directory followed by its three end records, so that readers agree."""
    start = end - END.size - LOCATOR.size - END64.size
    file.seek(max(0, start))
    records = file.read(end - max(0, start))
    if start < 0:
        raise ValueError("its archive is malformed")
    mark64, *_, length, offset = END64.unpack_from(records)
    locator, _, at, _ = LOCATOR.unpack_from(records, END64.size)
    mark, *_, said = END.unpack_from(records, END64.size + LOCATOR.size)
    marks = (mark64, locator, mark) == (b"PK\6\6", b"PK\6\7", b"PK\5\6")
    if not marks or at != start or offset + length != start or said != comment or length > MOST_DIRECTORY:
        raise ValueError("its archive is malformed")


def _records(members: list[zipfile.ZipInfo], size: int) -> dict[str, int]:
    """Return the bytes of each member except the pickle, by its name in the only folder of the archive."""
    names = [member.orig_filename for member in members]
    folders = {name.partition("/")[0] for name in names}
    # torch's reader ignores case
    if not all(map(MEMBER.fullmatch, names)) or len(folders) != 1 or len({name.lower() for name in names}) < len(names):
        raise ValueError("its archive has unexpected members")
    stored = all(m.compress_type == zipfile.ZIP_STORED and m.file_size == m.compress_size for m in members)
    records = {name.partition("/")[2]: member.file_size for name, member in zip(names, members, strict=True)}
    if not stored or sum(records.values()) > size or records.pop("data.pkl", 0) > MOST_BYTES:
        raise ValueError("its archive declares more bytes than it has")
    return records
