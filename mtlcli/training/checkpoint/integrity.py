"""Detection of damaged, foreign or hostile checkpoint files before they are interpreted.

A checkpoint is a zip archive as `torch.save` writes it. The archive's comment, its last bytes, holds the SHA-256 of all
preceding bytes; torch and other zip readers are not affected by it. The CRCs of the zip format do not suffice: torch
does not check them, and they cover neither the directory nor the padding.
"""

from __future__ import annotations

import hashlib
import math
import pickletools
import re
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from mtlcli.errors import ConfigError

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


def check_seal(path: Path, file: BinaryIO, size: int) -> None:
    """Check the checksum at the end of a checkpoint file.

    Args:
        path: The file, for messages.
        file: The opened file, at its start.
        size: Bytes of the file.

    Raises:
        ConfigError: If the file is no checkpoint, or its content does not match the checksum.
    """
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


MOST_BYTES = 32 * 2**20
MOST_STEPS = 2**21  # torch takes two seconds for a million; a table of 100,000 columns has two million
STEPS_PER_RECORD = 64  # additional, per tensor
MOST_DIMENSIONS = 64

REBUILD, HOOKS = "torch._utils _rebuild_tensor_v2", "collections OrderedDict"
STORAGES = {
    "torch BoolStorage": 1, "torch ByteStorage": 1, "torch CharStorage": 1, "torch ShortStorage": 2,
    "torch IntStorage": 4, "torch LongStorage": 8, "torch HalfStorage": 2, "torch BFloat16Storage": 2,
    "torch FloatStorage": 4, "torch DoubleStorage": 8, "torch ComplexFloatStorage": 8, "torch ComplexDoubleStorage": 16,
}  # fmt: skip
"""Storage types of tensors, with bytes per element."""

CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
ARGUMENTS = {"BINUNICODE", "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"}  # strings and numbers
TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


def check_pickle(content: bytes, records: Mapping[str, int]) -> None:
    """Check that a pickle creates only what a checkpoint needs, by interpreting it symbolically.

    `torch.load(weights_only=True)` executes no code, but it creates any object of allowed types that a pickle requests:
    a bytearray of 2⁴⁰ bytes, a set, or a dict with a key nested so deeply that hashing overflows the stack. A
    checkpoint needs only dicts, lists, tuples, numbers, strings and dense tensors, so nothing else is accepted.

    Args:
        content: The pickle.
        records: Name → bytes of the other members of the archive; `data/0`, `data/1`, … hold the memory of the tensors.

    Raises:
        ValueError: With the reason, if it creates anything else.
    """
    if len(content) > MOST_BYTES:
        raise ValueError(f"its pickle has {len(content)} bytes, more than {MOST_BYTES}")
    machine, most = _Machine(records), MOST_STEPS + STEPS_PER_RECORD * len(records)
    for step, (opcode, argument, _) in enumerate(pickletools.genops(content)):
        if step >= most:
            raise ValueError(f"its pickle has more than {most} steps")
        try:
            machine.step(opcode.name, argument)
        except (LookupError, TypeError, struct.error) as error:
            raise ValueError("its pickle is malformed") from error


class _Name(str):
    """Name of a function or class, as `module name`."""


class _Object:
    """An object on the stack of which only the kind matters, and for tensor memory the number of elements."""

    def __init__(self, kind: str, numbers: int = 0) -> None:
        self.kind, self.numbers = kind, numbers


class _Machine:
    """The stack machine that executes a pickle. Strings, numbers and tuples represent themselves on its stack."""

    def __init__(self, records: Mapping[str, int]) -> None:
        self.records = records
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def step(self, opcode: str, argument: Any) -> None:
        stack = self.stack
        if opcode in ARGUMENTS:
            stack.append(argument)
            return
        if opcode in CONSTANTS:
            stack.append(CONSTANTS[opcode])
            return
        match opcode:
            case "BINPUT" | "LONG_BINPUT":
                self.memo[argument] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(self.memo[argument])
            case "MARK":
                self.marks.append(len(stack))
            case "EMPTY_DICT" | "EMPTY_LIST":
                stack.append(_Object(opcode))
            case "TUPLE" | "TUPLE1" | "TUPLE2" | "TUPLE3":
                stack.append(tuple(self._pop(TUPLES.get(opcode))))
            case "APPEND" | "APPENDS":
                self._pop(1 if opcode == "APPEND" else None)
                self._require("EMPTY_LIST")
            case "SETITEM" | "SETITEMS":
                items = self._pop(2 if opcode == "SETITEM" else None)
                self._require("EMPTY_DICT")
                if any(type(key) not in (str, int) for key in items[::2]):
                    raise ValueError("its pickle has a dict with keys that are neither strings nor integers")
            case "GLOBAL":
                if argument not in STORAGES and argument not in (REBUILD, HOOKS):
                    raise ValueError(
                        f"its pickle refers to {argument.replace(' ', '.')!r}, which no checkpoint contains"
                    )
                stack.append(_Name(argument))
            case "BINPERSID":
                stack.append(self._memory(*stack.pop()))
            case "REDUCE":
                function, arguments = self._pop(2)
                stack.append(_called(function, arguments))
            case "PROTO" | "STOP":
                pass
            case _:
                raise ValueError(f"its pickle has the opcode {opcode}, which no checkpoint contains")

    def _pop(self, count: int | None) -> list[Any]:
        """Pop the topmost values; with None, those above the last mark."""
        start = self.marks.pop() if count is None else len(self.stack) - count
        if start < 0:
            raise IndexError
        values = self.stack[start:]
        del self.stack[start:]
        return values

    def _require(self, kind: str) -> None:
        top = self.stack[-1]
        if not isinstance(top, _Object) or top.kind != kind:
            raise TypeError

    def _memory(self, kind: Any, storage: Any, key: Any, location: Any, numbers: Any) -> _Object:
        """Return the memory of a tensor as declared by the pickle."""
        kinds = (type(key), type(location), type(numbers), type(storage))
        if kind != "storage" or kinds != (str, str, int, _Name):
            raise TypeError
        size, claimed = self.records[f"data/{key}"], numbers * STORAGES[storage]
        if size != claimed:
            raise ValueError(f"a tensor in it declares {claimed} bytes but has {size}")
        return _Object("storage", numbers)


def _called(function: Any, arguments: Any) -> _Object:
    """Return the result of a call: a tensor, or the empty dict of backward hooks."""
    if not isinstance(function, _Name) or type(arguments) is not tuple:
        raise TypeError
    if function == HOOKS and arguments == ():
        return _Object("hooks")
    if function != REBUILD:
        raise ValueError(f"its pickle calls {function.replace(' ', '.')}")
    memory, offset, size, strides, requires_grad, hooks = _six(arguments)
    if len(size) > MOST_DIMENSIONS or any(type(n) is not int or n < 0 for n in (offset, *size, *strides)):
        raise TypeError
    if requires_grad is not False or not isinstance(hooks, _Object) or hooks.kind != "hooks":
        raise TypeError
    if not isinstance(memory, _Object) or memory.kind != "storage":
        raise TypeError
    if math.prod(size) > memory.numbers:
        raise ValueError(f"a tensor in it declares {math.prod(size)} elements but has {memory.numbers}")
    return _Object("tensor")


def _six(arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    if len(arguments) != 6:
        raise TypeError
    return arguments
