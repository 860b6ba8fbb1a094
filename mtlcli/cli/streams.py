"""Standard streams on which writing never fails: a full disk or a reader that went away ends no run."""

from __future__ import annotations

import errno
import io
import os
import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


class SafeWriter(io.RawIOBase):
    """Write to another binary stream; discard what it does not take, and keep the first error as `failure`.

    target: the stream. closed_from_start: whether the process was started without it (`>&-`), so that nothing can be
    delivered although the descriptor is open.
    """

    def __init__(self, target: io.RawIOBase, closed_from_start: bool = False) -> None:
        self.target = target
        self.closed_from_start = closed_from_start
        self.failure: OSError | None = None

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self.target.fileno()

    def isatty(self) -> bool:
        return not self.target.closed and self.target.isatty()

    def write(self, data: ReadableBuffer) -> int:
        size = memoryview(data).nbytes
        try:
            if self.closed_from_start:
                raise OSError(errno.EBADF, "it is closed")
            while (written := self._write(data)) is None:
                select.select([], [self.fileno()], [])
        except (OSError, ValueError) as error:  # ValueError: the Python object was closed
            self.failure = self.failure or (error if isinstance(error, OSError) else OSError(errno.EBADF, str(error)))
            return size
        return written

    def _write(self, data: ReadableBuffer) -> int | None:
        """Bytes written; None where the descriptor does not block and its reader is slow (a pipe shared with Node)."""
        try:
            return self.target.write(data)
        except BlockingIOError:
            return None


@dataclass(frozen=True)
class Streams:
    """The writers behind `sys.stdout` and `sys.stderr`; None for a stream that is not a file, as in a notebook."""

    stdout: SafeWriter | None
    stderr: SafeWriter | None

    def exit_code(self, code: int) -> int:
        """The exit code of a command that ended with `code`: 1 if its result could not be written to stdout.

        A reader that went away (`| head`) has what it wanted: that is no failure. Neither is a stderr that takes
        nothing: it shows progress and messages only.
        """
        sys.stdout.flush()
        failure = self.stdout.failure if self.stdout is not None else None
        if code == 0 and failure is not None and failure.errno not in (errno.EPIPE, errno.ESHUTDOWN):
            print(f"error: stdout can't be written to: {failure.strerror or failure}", file=sys.stderr)
            return 1
        return code


@contextmanager
def safe_streams() -> Iterator[Streams]:
    """Replace `sys.stdout` and `sys.stderr` by ones on which writing never fails, and escape what they can't encode."""
    before = sys.stdout, sys.stderr
    if None in before:
        _open_descriptors()
    stdout, out = _unfailing(sys.stdout, 1)
    stderr, err = _unfailing(sys.stderr, 2)
    sys.stdout, sys.stderr = stdout, stderr
    try:
        yield Streams(out, err)
    finally:
        for stream, writer in ((stdout, out), (stderr, err)):
            if writer is not None:
                stream.flush()
                if writer.failure is not None:
                    _silence(writer)
        sys.stdout, sys.stderr = before


def _unfailing(stream: TextIO | None, descriptor: int) -> tuple[TextIO, SafeWriter | None]:
    if stream is None:
        writer = SafeWriter(io.FileIO(descriptor, "w", closefd=False), closed_from_start=True)
        return io.TextIOWrapper(io.BufferedWriter(writer), encoding="utf-8", errors="backslashreplace"), writer
    if not isinstance(stream, io.TextIOWrapper):
        return stream, None
    with suppress(OSError, ValueError):  # it is broken already
        stream.flush()
    # below its buffer, which would keep what it can't write and fail again when the interpreter flushes it
    target: Any = getattr(stream.buffer, "raw", stream.buffer)
    writer = SafeWriter(target)
    wrapped = io.TextIOWrapper(
        io.BufferedWriter(writer), encoding=stream.encoding, errors="backslashreplace",
        line_buffering=stream.line_buffering, write_through=stream.write_through,
    )  # fmt: skip
    return wrapped, writer


def _open_descriptors() -> None:
    """Open the null device in place of closed standard descriptors.

    Otherwise the next file that is opened would get one of their numbers, and what a C library prints would go there.
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number


def _silence(writer: SafeWriter) -> None:
    """Point a broken standard descriptor at the null device, so that the interpreter's flush at exit can't fail."""
    try:
        descriptor = writer.fileno()
    except (OSError, ValueError):
        return
    if descriptor in (1, 2):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, descriptor)
        os.close(null)
