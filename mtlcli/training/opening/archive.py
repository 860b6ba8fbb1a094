"""The archive that a checkpoint is, looked at before torch opens it.

torch reads it with another reader than Python's, and a file can be made to look different to each. So its form is held
to what `torch.save` writes, where they agree: what was looked at is what torch is given.
"""

from __future__ import annotations

import re
import struct
import zipfile
from typing import BinaryIO

from mtlcli.training.opening.pickled import MOST_BYTES, check_pickle

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
