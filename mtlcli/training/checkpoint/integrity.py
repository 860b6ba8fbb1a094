"""Checkpoint files that tell when any of their bits is not the one that was written.

A checkpoint is what `torch.save` writes, a zip archive, whose comment (the archive's last bytes) is a seal: the SHA-256
of all bytes before it. torch and every zip reader read it as they always do. The archive's own CRCs are no help: torch
doesn't check them, and they leave the directory and the padding out.
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

from mtlcli.errors import ConfigError
from mtlcli.training.assembly.model_size import physical_memory
from mtlcli.training.checkpoint.pickle_check import MOST_BYTES, check_pickle

MARK = b"mtl-sha256:"
SEAL = len(MARK) + 64
ENDING = 22 + SEAL  # the zip directory's last record, with the seal as its comment
MAGIC = b"PK\x03\x04"
CHUNK = 2**20


def seal(archive: bytes | memoryview) -> bytes:
    """The archive with its seal. archive: what `torch.save` wrote, without a comment."""
    assert bytes(archive[-2:]) == b"\0\0"
    body = bytes(archive[:-2]) + struct.pack("<H", SEAL) + MARK
    return body + hashlib.sha256(body).hexdigest().encode()


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """The file, whole and as it was written, at its start.

    Nothing of its content is interpreted before that is sure. A seal is no proof of good will, as anyone can make one:
    what is in the archive is looked at too (`check_archive`). ConfigError where the file is missing, no plain file,
    larger than this machine's memory, damaged, or none of ours.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a pipe without a writer would wait for one
        status = os.fstat(handle)
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: no such checkpoint file") from error
    except OSError as error:
        raise ConfigError(f"{path}: can't be read: {error.strerror or error}") from error
    if not stat.S_ISREG(status.st_mode):
        os.close(handle)
        raise ConfigError(f"{path}: not a file, so no checkpoint")
    with os.fdopen(handle, "rb") as file:
        if status.st_size > (memory := physical_memory()):
            sizes = f"{status.st_size / 2**30:,.0f} GiB, and this machine has {memory / 2**30:,.1f} GiB of memory"
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
            hint = f": an experiment file, for `mtl train {path}`; what it trains is evaluated by `mtl eval RUN_FOLDER`"
        raise ConfigError(f"{path}: {'empty' if size == 0 else 'damaged'}, or not a checkpoint of mtl{hint}")
    file.seek(max(0, size - ENDING))
    ending = file.read(ENDING)
    body, written = ending[:-64], ending[-64:]
    if not body.endswith(MARK):
        raise ConfigError(f"{path}: damaged, or not a checkpoint of mtl: it doesn't end in an mtl seal")
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
    """ValueError, with the reason, for an archive that `torch.save` wouldn't have written, or of more than plain data.

    size: bytes of the file, of which the last `comment` are the archive's comment.
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
    """That there is one directory, with its three end records right behind it: all readers find the same one then."""
    start = end - END.size - LOCATOR.size - END64.size
    file.seek(max(0, start))
    found = file.read(end - max(0, start))
    if start < 0:
        raise ValueError("its archive is malformed")
    mark64, *_, length, offset = END64.unpack_from(found)
    locator, _, at, _ = LOCATOR.unpack_from(found, END64.size)
    mark, *_, said = END.unpack_from(found, END64.size + LOCATOR.size)
    marks = (mark64, locator, mark) == (b"PK\6\6", b"PK\6\7", b"PK\5\6")
    if not marks or at != start or offset + length != start or said != comment or length > MOST_DIRECTORY:
        raise ValueError("its archive is malformed")


def _records(members: list[zipfile.ZipInfo], size: int) -> dict[str, int]:
    """The bytes of each member but the pickle, by its name in the archive's one folder."""
    names = [member.orig_filename for member in members]
    folders = {name.partition("/")[0] for name in names}
    # torch's reader takes a name in any case for the same
    if not all(map(MEMBER.fullmatch, names)) or len(folders) != 1 or len({name.lower() for name in names}) < len(names):
        raise ValueError("its archive holds something that isn't a checkpoint's")
    stored = all(m.compress_type == zipfile.ZIP_STORED and m.file_size == m.compress_size for m in members)
    records = {name.partition("/")[2]: member.file_size for name, member in zip(names, members, strict=True)}
    if not stored or sum(records.values()) > size or records.pop("data.pkl", 0) > MOST_BYTES:
        raise ValueError("its archive claims to hold more than it has bytes")
    return records
