"""A bound on what a test may take of the machine."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

GIB = 2**30


@contextmanager
def limit_memory(more: int = GIB) -> Iterator[None]:
    """What takes more bytes, beside what the process has, raises MemoryError. Without effect but on Linux."""
    status = Path("/proc/self/status")
    if not status.exists():
        yield
        return
    (line,) = [line for line in status.read_text().splitlines() if line.startswith("VmData:")]
    before = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (int(line.split()[1]) * 1024 + more, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)
