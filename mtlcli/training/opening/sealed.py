"""Checkpoint files that tell when any of their bits is not the one that was written.

A checkpoint is what `torch.save` writes, a zip archive, whose comment (the archive's last bytes) is a seal: the SHA-256
of all bytes before it. torch and every zip reader read it as they always do. The archive's own CRCs are no help: torch
doesn't check them, and they leave the directory and the padding out.
"""

from __future__ import annotations

import hashlib
import os
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from mtlcli.errors import ConfigError
from mtlcli.training.memory import physical_memory
from mtlcli.training.opening.archive import check_archive

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
