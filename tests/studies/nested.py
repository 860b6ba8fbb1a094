"""A study in a process of its own, which can be killed. It uses the server of processes that this one has started."""

from __future__ import annotations

from collections.abc import Callable
from multiprocessing import forkserver
from multiprocessing.process import BaseProcess
from typing import Any

import mtlcli.studies.pool
from mtlcli.studies.pool import process_context, start_server


def start_study(does: Callable[..., object], *arguments: Any) -> BaseProcess:
    """The process of a study; `does` is a function of a module, such as what starts `ProcessPool`."""
    start_server()
    process = process_context().Process(target=_study, args=(does, *arguments))
    process.start()
    return process


def _study(does: Callable[..., object], *arguments: Any) -> None:
    """Keeps multiprocessing from starting another server, which takes seconds: it knows this one's address."""
    mtlcli.studies.pool.start_server = lambda: None  # type: ignore[attr-defined]
    forkserver._forkserver.ensure_running = lambda: None  # type: ignore[attr-defined]
    does(*arguments)
