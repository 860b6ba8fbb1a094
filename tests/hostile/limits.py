"""A limit on the memory that a test may allocate."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

GIB = 2**30


@contextmanager
def limit_memory(additional: int = GIB) -> Iterator[None]:
    """Raise MemoryError if the process allocates more than `additional` bytes in this context (on Linux only)."""
    status = Path("/proc/self/status")
    if not status.exists():
        yield
        return
    (line,) = [line for line in status.read_text().splitlines() if line.startswith("VmData:")]
    before = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (int(line.split()[1]) * 1024 + additional, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)
