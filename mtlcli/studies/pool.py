"""Several runs at the same time: each in a process of its own, with its part of the cores."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerContext, SpawnContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import TracebackType
from typing import Generic, Protocol, TypeVar

from mtlcli.config import Experiment
from mtlcli.cores import usable_cores
from mtlcli.studies.process_setup import hide_main_module, plugins_to_import
from mtlcli.studies.runs import interrupted
from mtlcli.studies.worker import OUTPUT, Job, process, work
from mtlcli.training.signals import StopRequest
from mtlcli.training.trainer import Trainer

PATIENCE = 30.0  # seconds that a run which was told to stop gets to save its checkpoint


class Trainable(Protocol):
    """A run to be trained. Its `str` is its name in messages."""

    @property
    def experiment(self) -> Experiment: ...
    @property
    def folder(self) -> Path: ...


R = TypeVar("R", bound=Trainable)


@dataclass(frozen=True)
class _Running(Generic[R]):
    run: R
    process: BaseProcess
    answer: Connection


class Processes(Generic[R]):
    """Trains runs, `jobs` at a time, with the cores divided among them. Entered, it takes signals for its runs.

    after: what each process does with its trained run; a function of a module. work: what a process does.
    Each process imports the plugins that have been imported here.
    """

    def __init__(
        self,
        jobs: int,
        after: Callable[[Trainer], None] | None = None,
        work: Callable[[Job, Connection], None] = work,
    ) -> None:
        self.jobs, self.after, self.work = jobs, after, work
        self.threads = max(1, usable_cores() // jobs)
        self.running: dict[int, _Running[R]] = {}
        self.stop = StopRequest()

    def __enter__(self) -> Processes[R]:
        start_server()
        self.stop.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop what is still running: with its state saved, or at once after a second Ctrl-C."""
        try:
            self._tell(signal.SIGKILL if kind is KeyboardInterrupt else signal.SIGTERM)
            for one in self.running.values():
                one.process.join(PATIENCE)
                one.process.kill()
                one.process.join()
        finally:
            self.stop.__exit__(kind, value, trace)

    def train(self, runs: Sequence[R]) -> Iterator[tuple[R, str | None]]:
        """Each run as it ends, with what went wrong, or None. A run that fails is no error here.

        InterruptedRunError after a signal, when all runs in hand have stopped with their state saved.
        """
        waiting, told = deque(runs), False
        while self.running or (waiting and not self.stop.requested):
            while waiting and len(self.running) < self.jobs and not self.stop.requested:
                self._start(waiting.popleft())
            if self.stop.requested and not told:
                told = True
                self._tell(signal.SIGTERM)  # of Ctrl-C they would know nothing for a moment after their start
            for sentinel in wait(list(self.running), timeout=0.2):
                assert isinstance(sentinel, int)
                one = self.running.pop(sentinel)
                problem = self._problem(one)
                if problem is None or not self.stop.requested:
                    yield one.run, problem
        if self.stop.requested:
            raise interrupted(128 + self.stop.requested)

    def _start(self, run: R) -> None:
        experiment = run.experiment
        if experiment.training.threads == "auto":
            training = experiment.training.model_copy(update={"threads": self.threads})
            experiment = experiment.model_copy(update={"training": training})
        job = Job(experiment.resolved(callbacks=True), run.folder, plugins_to_import(run.experiment), self.after)
        job = replace(job, directory=str(Path.cwd()), environment=dict(os.environ))
        answer, theirs = context().Pipe(duplex=False)
        started = context().Process(target=process, args=(self.work, job, theirs), name=str(run))
        with hide_main_module():
            started.start()
        theirs.close()
        self.running[started.sentinel] = _Running(run, started, answer)

    def _tell(self, number: signal.Signals) -> None:
        for one in self.running.values():
            if one.process.pid is not None and one.process.is_alive():
                with suppress(ProcessLookupError):  # it has ended meanwhile
                    os.kill(one.process.pid, number)

    def _problem(self, one: _Running[R]) -> str | None:
        """What went wrong with a process that has ended; None where nothing did."""
        one.process.join()
        try:
            problem: str | None = one.answer.recv()
        except EOFError:  # it ended without an answer
            problem = _death(one.process.exitcode, one.run.folder / OUTPUT)
        one.answer.close()
        one.process.close()
        output = one.run.folder / OUTPUT
        if output.is_file() and output.stat().st_size == 0:
            output.unlink()
        return problem


def _death(exit_code: int | None, output: Path) -> str:
    """How a process has ended that didn't answer, and its last line."""
    if exit_code is not None and exit_code < 0:
        name = signal.Signals(-exit_code).name
        how = f"the process was killed by {name}{' (out of memory?)' if name == 'SIGKILL' else ''}"
    else:
        how = f"the process ended with exit code {exit_code}"
    printed = output.read_text(encoding="utf-8", errors="replace").split("\n") if output.is_file() else []
    last = [line.strip() for line in printed if line.strip()][-1:]
    return ": ".join([how, *last])


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
        with _one_thread(), hide_main_module():
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
