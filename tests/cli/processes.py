"""Processes of `mtl` that start at once: forked from one that has imported all modules."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import TextIO

from mtlcli.cli import main
from mtlcli.studies.pool import process_context
from tests.studies.nested import start_study


@dataclass(frozen=True)
class ForkedProcess:
    """A process of `mtl`. `err` is its stderr, readable while it runs; its stdout is discarded."""

    process: BaseProcess
    err: TextIO

    def wait(self) -> int | None:
        """Wait for the end, and return the exit code; minus the number of the signal that killed it."""
        self.process.join()
        return self.process.exitcode


@contextmanager
def fork_mtl(*arguments: str) -> Iterator[ForkedProcess]:
    """Start `mtl ARGUMENTS`. The process is killed at the end if it is still running."""
    reader, writer = process_context().Pipe(duplex=False)
    process = start_study(_command, writer, arguments)
    writer.close()
    try:
        with os.fdopen(reader.fileno(), encoding="utf-8", closefd=False) as err:
            yield ForkedProcess(process, err)
    finally:
        process.kill()
        process.join()
        reader.close()


def _command(err: Connection, arguments: tuple[str, ...]) -> None:
    with (
        redirect_stdout(io.StringIO()),
        os.fdopen(err.fileno(), "w", buffering=1, encoding="utf-8", closefd=False) as lines,
        redirect_stderr(lines),
    ):
        code = main(arguments)
    sys.exit(code)
