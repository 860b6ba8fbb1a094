"""Standard streams on which writing never fails, so that a full disk or a closed pipe doesn't end a run."""

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
    """Binary stream that writes to another one, and discards what can't be written.

    Args:
        target: the other stream.
        closed_from_start: the process was started without the stream (`>&-`), so that nothing can be written, although
            the descriptor is open.

    Attributes:
        failure: the first error; None if all was written.
    """

    def __init__(self, target: io.RawIOBase, closed_from_start: bool = False) -> None:
        self.target = target
        self.closed_from_start = closed_from_start
        self.failure: OSError | None = None

    def writable(self) -> bool:
        """See io.RawIOBase."""
        return True

    def fileno(self) -> int:
        """See io.RawIOBase."""
        return self.target.fileno()

    def isatty(self) -> bool:
        """See io.RawIOBase."""
        return not self.target.closed and self.target.isatty()

    def write(self, data: ReadableBuffer) -> int:
        """See io.RawIOBase; errors are recorded, not raised."""
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
        """Return the number of bytes written; None if the descriptor is non-blocking and its reader is slow."""
        try:
            return self.target.write(data)
        except BlockingIOError:
            return None


@dataclass(frozen=True)
class Streams:
    """Writers behind `sys.stdout` and `sys.stderr`.

    Args:
        stdout: the writer; None if the stream is no file, as in a notebook.
        stderr: likewise.
    """

    stdout: SafeWriter | None
    stderr: SafeWriter | None

    def exit_code(self, code: int) -> int:
        """Return the exit code of a command: 1 if its output could not be written to stdout.

        A closed pipe (`| head`) is no failure. Neither is an error on stderr, which has only progress and messages.

        Args:
            code: exit code of the command itself.

        Returns:
            The exit code.
        """
        sys.stdout.flush()
        failure = self.stdout.failure if self.stdout is not None else None
        if code == 0 and failure is not None and failure.errno not in (errno.EPIPE, errno.ESHUTDOWN):
            print(f"error: stdout can't be written: {failure.strerror or failure}", file=sys.stderr)
            return 1
        return code


@contextmanager
def safe_streams() -> Iterator[Streams]:
    """Replace `sys.stdout` and `sys.stderr` by streams on which writing never fails.

    Characters that they can't encode are escaped.

    Yields:
        The writers, with their errors.
    """
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
    with suppress(OSError, ValueError):  # already broken
        stream.flush()
    # without its buffer, which keeps unwritten data and fails again when the interpreter flushes it
    target: Any = getattr(stream.buffer, "raw", stream.buffer)
    writer = SafeWriter(target)
    wrapped = io.TextIOWrapper(
        io.BufferedWriter(writer), encoding=stream.encoding, errors="backslashreplace",
        line_buffering=stream.line_buffering, write_through=stream.write_through,
    )  # fmt: skip
    return wrapped, writer


def _open_descriptors() -> None:
    """Open the null device for closed standard descriptors.

    Otherwise the next file that is opened would get their number, and receive the output of C libraries.
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number


def _silence(writer: SafeWriter) -> None:
    """Redirect a broken standard descriptor to the null device, so that the flush at exit doesn't fail."""
    try:
        descriptor = writer.fileno()
    except (OSError, ValueError):
        return
    if descriptor in (1, 2):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, descriptor)
        os.close(null)
