"""The process that a study's runs are forked from: it has imported what they need, so that a run starts at once.

Importing torch and the rest takes several seconds, which a study of many short runs would spend on each of them. So one
process imports them (`multiprocessing`'s forkserver) and does nothing else, and every run is a fork of it: a process of
its own, that starts in milliseconds. The server computes nothing and touches no accelerator, as a process that has
started threads or CUDA can't be forked safely. Where forking isn't safe at all (macOS), each run starts from nothing.

This module is imported before torch, and imports nothing heavy.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.context import ForkServerContext, SpawnContext

METHOD = "forkserver" if sys.platform == "linux" else "spawn"
PRELOADED = ["mtlcli.studies.preload"]
ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")  # a run sets its own number


def context() -> ForkServerContext | SpawnContext:
    """What starts processes."""
    return multiprocessing.get_context("forkserver") if METHOD == "forkserver" else multiprocessing.get_context("spawn")


def start_server() -> None:
    """Start the server, if it isn't there yet; it gets ready while this process goes on. It ends with this process."""
    if METHOD == "forkserver":
        from multiprocessing import forkserver

        forkserver.set_forkserver_preload(PRELOADED)
        with _one_thread():
            forkserver.ensure_running()


@contextmanager
def _one_thread() -> Iterator[None]:
    """The environment in which no library starts threads when it is loaded, as BLAS does."""
    before = {name: os.environ.get(name) for name in ONE_THREAD}
    os.environ.update(dict.fromkeys(ONE_THREAD, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
