"""A study in a process that can be killed; it uses the server that this process has started."""

from __future__ import annotations

from collections.abc import Callable
from multiprocessing import forkserver
from multiprocessing.process import BaseProcess
from typing import Any

import mtlcli.studies.pool
from mtlcli.studies.pool import process_context, start_server


def start_study(does: Callable[..., object], *arguments: Any) -> BaseProcess:
    """Start a process that calls `does`, a function of a module that starts a `ProcessPool`."""
    start_server()
    process = process_context().Process(target=_study, args=(does, *arguments))
    process.start()
    return process


def _study(does: Callable[..., object], *arguments: Any) -> None:
    """Call `does` without starting another server, which takes seconds."""
    mtlcli.studies.pool.start_server = lambda: None  # type: ignore[attr-defined]
    forkserver._forkserver.ensure_running = lambda: None  # type: ignore[attr-defined]
    does(*arguments)
