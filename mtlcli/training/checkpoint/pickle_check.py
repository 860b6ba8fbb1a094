"""The pickle in a checkpoint, followed without doing what it says, before torch does.

`torch.load(weights_only=True)` runs no code, but it makes what a pickle asks for as long as the names in it are torch's
own: a bytearray of 2⁴⁰ bytes, a set, a dict whose key is a tuple nested so deep that hashing it overflows the stack. A
checkpoint of `mtl` needs dicts, lists, tuples, numbers, strings and dense tensors, so nothing else is let through.
"""

from __future__ import annotations

import math
import pickletools
import struct
from collections.abc import Mapping
from typing import Any

MOST_BYTES = 32 * 2**20
MOST_STEPS = 2**21  # torch takes two seconds for a million of them; a table of 100,000 columns has two million
STEPS_PER_RECORD = 64  # more, for each tensor
MOST_DIMENSIONS = 64

REBUILD, HOOKS = "torch._utils _rebuild_tensor_v2", "collections OrderedDict"
STORAGES = {
    "torch BoolStorage": 1, "torch ByteStorage": 1, "torch CharStorage": 1, "torch ShortStorage": 2,
    "torch IntStorage": 4, "torch LongStorage": 8, "torch HalfStorage": 2, "torch BFloat16Storage": 2,
    "torch FloatStorage": 4, "torch DoubleStorage": 8, "torch ComplexFloatStorage": 8, "torch ComplexDoubleStorage": 16,
}  # fmt: skip
"""The kinds of memory a tensor may have, and the bytes of one number in it."""

CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
ARGUMENTS = {"BINUNICODE", "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"}  # strings and numbers, as they are
TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


def check_pickle(content: bytes, records: Mapping[str, int]) -> None:
    """ValueError, with the reason, where a checkpoint's pickle asks for anything that a checkpoint has no need of.

    records: the bytes of each other file in the archive, by name: `data/0`, `data/1`, … are the tensors' memory.
    """
    if len(content) > MOST_BYTES:
        raise ValueError(f"its pickle has {len(content)} bytes, and {MOST_BYTES} are the most")
    machine, most = _Machine(records), MOST_STEPS + STEPS_PER_RECORD * len(records)
    for step, (opcode, argument, _) in enumerate(pickletools.genops(content)):
        if step >= most:
            raise ValueError(f"its pickle has more than {most} steps")
        try:
            machine.step(opcode.name, argument)
        except (LookupError, TypeError, struct.error) as error:
            raise ValueError("its pickle is malformed") from error


class _Name(str):
    """The name of a function or class, as `module name`."""


class _Made:
    """What a step makes, where only its kind is of interest. numbers: of a tensor's memory, how many there are."""

    def __init__(self, kind: str, numbers: int = 0) -> None:
        self.kind, self.numbers = kind, numbers


class _Machine:
    """The stack machine that a pickle is a program for. Strings, numbers and tuples are themselves on its stack."""

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
                stack.append(_Made(opcode))
            case "TUPLE" | "TUPLE1" | "TUPLE2" | "TUPLE3":
                stack.append(tuple(self._pop(TUPLES.get(opcode))))
            case "APPEND" | "APPENDS":
                self._pop(1 if opcode == "APPEND" else None)
                self._require("EMPTY_LIST")
            case "SETITEM" | "SETITEMS":
                items = self._pop(2 if opcode == "SETITEM" else None)
                self._require("EMPTY_DICT")
                if any(type(key) not in (str, int) for key in items[::2]):
                    raise ValueError("its pickle has a dict whose keys are neither strings nor integers")
            case "GLOBAL":
                if argument not in STORAGES and argument not in (REBUILD, HOOKS):
                    raise ValueError(f"its pickle asks for {argument.replace(' ', '.')!r}, which no checkpoint needs")
                stack.append(_Name(argument))
            case "BINPERSID":
                stack.append(self._memory(*stack.pop()))
            case "REDUCE":
                function, arguments = self._pop(2)
                stack.append(_called(function, arguments))
            case "PROTO" | "STOP":
                pass
            case _:
                raise ValueError(f"its pickle has a step {opcode}, which no checkpoint needs")

    def _pop(self, count: int | None) -> list[Any]:
        """The topmost values; None: those above the last mark."""
        start = self.marks.pop() if count is None else len(self.stack) - count
        if start < 0:
            raise IndexError
        values = self.stack[start:]
        del self.stack[start:]
        return values

    def _require(self, kind: str) -> None:
        made = self.stack[-1]
        if not isinstance(made, _Made) or made.kind != kind:
            raise TypeError

    def _memory(self, kind: Any, storage: Any, key: Any, location: Any, numbers: Any) -> _Made:
        """A tensor's memory, as the pickle says it is."""
        kinds = (type(key), type(location), type(numbers), type(storage))
        if kind != "storage" or kinds != (str, str, int, _Name):
            raise TypeError
        size, claimed = self.records[f"data/{key}"], numbers * STORAGES[storage]
        if size != claimed:
            raise ValueError(f"a tensor in it claims {claimed} bytes and has {size}")
        return _Made("storage", numbers)


def _called(function: Any, arguments: Any) -> _Made:
    """The tensor, or the empty dict for what is to happen after its backward pass, that a call makes."""
    if not isinstance(function, _Name) or type(arguments) is not tuple:
        raise TypeError
    if function == HOOKS and arguments == ():
        return _Made("hooks")
    if function != REBUILD:
        raise ValueError(f"its pickle calls {function.replace(' ', '.')}")
    memory, offset, size, strides, requires_grad, hooks = _six(arguments)
    if len(size) > MOST_DIMENSIONS or any(type(n) is not int or n < 0 for n in (offset, *size, *strides)):
        raise TypeError
    if requires_grad is not False or not isinstance(hooks, _Made) or hooks.kind != "hooks":
        raise TypeError
    if not isinstance(memory, _Made) or memory.kind != "storage":
        raise TypeError
    if math.prod(size) > memory.numbers:
        raise ValueError(f"a tensor in it claims {math.prod(size)} numbers and has {memory.numbers}")
    return _Made("tensor")


def _six(arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    if len(arguments) != 6:
        raise TypeError
    return arguments
