"""Construct checkpoint files byte by byte, which the writers of torch and Python would not produce.

The functions `pickle_…` return sequences of pickle opcodes, to be concatenated.
"""

from __future__ import annotations

import io
import struct
import zipfile
from pickle import encode_long
from typing import Any, NamedTuple

import torch

from mtlcli.training.checkpoint.integrity import seal

STORED, DEFLATED = 0, 8


class Member(NamedTuple):
    """A member of a zip archive.

    Attributes:
        name: The name in the archive.
        content: The stored bytes.
        method: The compression method of zip.
        size: The declared size in bytes when decompressed; None: that of `content`.
    """

    name: str
    content: bytes
    method: int = STORED
    size: int | None = None


def serialize(document: Any) -> bytes:
    """Return a document as `torch.save` writes it, with a valid checksum."""
    buffer = io.BytesIO()
    torch.save(document, buffer)
    return seal(buffer.getvalue())


def build_archive(*members: Member) -> bytes:
    """Return an archive in the format of `torch.save`, with a valid checksum."""
    body, directory = b"", b""
    for name, content, method, size in members:
        declared = len(content) if size is None else size
        crc = zipfile.crc32(content)  # type: ignore[attr-defined]
        fields = struct.pack("<H3H3L2H", 0x0800, method, 0, 0, crc, len(content), declared, len(name), 0)
        directory += b"PK\1\2" + struct.pack("<2H", 0, 0) + fields + struct.pack("<3H2L", 0, 0, 0, 0, len(body))
        directory += name.encode()
        body += b"PK\3\4" + struct.pack("<H", 0) + fields + name.encode() + content
    count, start, length = len(members), len(body), len(directory)
    end64 = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, count, count, length, start)
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, start + length, 1)
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, count, count, length, start, 0)
    return seal(body + directory + end64 + locator + end)


def archive_pickle(content: bytes, *records: bytes) -> bytes:
    """Return a checkpoint file with this pickle and these records of storages."""
    named = [Member(f"archive/data/{index}", record) for index, record in enumerate(records)]
    return build_archive(Member("archive/data.pkl", content), Member("archive/version", b"3\n"), *named)


def pickle_model(value: bytes) -> bytes:
    """Pickle the document of a checkpoint whose `model` has one entry, with this pickled value."""
    entries = {"format": pickle_text("mtl"), "version": pickle_int(2), "config": b"}", "specs": b"}"}
    head = b"".join(pickle_text(key) + entry for key, entry in entries.items())
    return b"\x80\x02}(" + head + pickle_text("model") + b"}(" + pickle_text("weight") + value + b"uu."


def pickle_text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def pickle_int(value: int) -> bytes:
    encoded = encode_long(value)
    return b"\x8a" + bytes([len(encoded)]) + encoded


def pickle_name(module: str, attribute: str) -> bytes:
    return f"c{module}\n{attribute}\n".encode()


def pickle_storage(kind: str, key: bytes, size: int) -> bytes:
    """Pickle a reference to a storage of `size` elements; `key` is the pickled name of its record."""
    return (
        b"(" + pickle_text("storage") + pickle_name("torch", kind) + key + pickle_text("cpu") + pickle_int(size) + b"tQ"
    )


def pickle_tensor(declared: int, size: int, stride: int = 1, gradient: bool = False) -> bytes:
    """Pickle a tensor of `size` floats whose storage declares `declared` elements."""
    storage = pickle_storage("FloatStorage", pickle_text("0"), declared)
    hooks = pickle_name("collections", "OrderedDict") + b")R"
    shape = (
        pickle_int(0) + pickle_int(size) + b"\x85" + pickle_int(stride) + b"\x85" + (b"\x88" if gradient else b"\x89")
    )
    return pickle_name("torch._utils", "_rebuild_tensor_v2") + b"(" + storage + shape + hooks + b"tR"
