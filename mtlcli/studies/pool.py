"""Pool of processes that train the runs of a study."""

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
from types import ModuleType, TracebackType
from typing import Generic, Protocol, TypeVar

from mtlcli.config import Experiment
from mtlcli.cores import usable_cores
from mtlcli.errors import ConfigError
from mtlcli.plugins import load_plugin, loaded_plugins
from mtlcli.studies.runs import InterruptedStudyError
from mtlcli.studies.worker import OUTPUT, After, Job, run_job, run_process
from mtlcli.training.failures import StopRequest
from mtlcli.training.run import plugins_of

STOP_TIMEOUT = 30.0  # seconds in which a run must save its checkpoint after SIGTERM
METHOD = "forkserver" if sys.platform == "linux" else "spawn"
PRELOADED_MODULES = ["mtlcli.studies.preload"]
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class Trainable(Protocol):
    """A run to be trained. Its `str` is its name in messages."""

    @property
    def experiment(self) -> Experiment:
        """The experiment that it trains."""

    @property
    def folder(self) -> Path:
        """Its run folder."""


R = TypeVar("R", bound=Trainable)


@dataclass(frozen=True)
class _Running(Generic[R]):
    run: R
    process: BaseProcess
    answer: Connection


class ProcessPool(Generic[R]):
    """Trains runs in processes, several at a time, among which the cores are divided.

    As a context manager, it handles signals: SIGINT and SIGTERM stop its runs with their state saved. Each process
    imports the plugins that have been imported in this one.

    Args:
        jobs: number of processes at the same time.
        after: called in the process with the state and the folder of its trained run; a function of a module.
        run: main function of the processes; tests replace it.
    """

    def __init__(self, jobs: int, after: After | None = None, run: Callable[[Job, Connection], None] = run_job) -> None:
        self.jobs, self.after, self.run = jobs, after, run
        self.threads = max(1, usable_cores() // jobs)
        self.running: dict[int, _Running[R]] = {}
        self.stop = StopRequest()

    def __enter__(self) -> ProcessPool[R]:
        start_server()
        self.stop.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:  # stop running processes with their state saved, or kill them after a second Ctrl-C
            self._send_signal(signal.SIGKILL if kind is KeyboardInterrupt else signal.SIGTERM)
            for running in self.running.values():
                running.process.join(STOP_TIMEOUT)
                running.process.kill()
                running.process.join()
        finally:
            self.stop.__exit__(kind, value, trace)

    def train(self, runs: Sequence[R]) -> Iterator[tuple[R, str | None]]:
        """Train runs. A failed run raises no error.

        Args:
            runs: the runs.

        Yields:
            Each run when it ends, with its error, or None.

        Raises:
            InterruptedStudyError: After a signal, when all running processes have stopped with their state saved.
        """
        waiting, signalled = deque(runs), False
        while self.running or (waiting and not self.stop.requested):
            while waiting and len(self.running) < self.jobs and not self.stop.requested:
                self._start(waiting.popleft())
            if self.stop.requested and not signalled:
                signalled = True
                self._send_signal(signal.SIGTERM)  # Ctrl-C does not reach them once they have called setsid
            for sentinel in wait(list(self.running), timeout=0.2):
                assert isinstance(sentinel, int)
                ended = self.running.pop(sentinel)
                problem = self._receive_problem(ended)
                if problem is None or not self.stop.requested:
                    yield ended.run, problem
        if self.stop.requested:
            raise InterruptedStudyError(128 + self.stop.requested)

    def _start(self, run: R) -> None:
        experiment = run.experiment
        if experiment.training.threads == "auto":
            training = experiment.training.model_copy(update={"threads": self.threads})
            experiment = experiment.model_copy(update={"training": training})
        job = Job(experiment.resolved(callbacks=True), run.folder, _plugins_to_import(run.experiment), self.after)
        work = getattr(run, "work", None)  # only some runs of a comparison are not trained
        job = replace(job, work=work, directory=str(Path.cwd()), environment=dict(os.environ))
        answer, sender = process_context().Pipe(duplex=False)
        process = process_context().Process(target=run_process, args=(self.run, job, sender), name=str(run))
        with _hide_main_module():
            process.start()
        sender.close()
        self.running[process.sentinel] = _Running(run, process, answer)

    def _send_signal(self, number: signal.Signals) -> None:
        for running in self.running.values():
            if running.process.pid is not None and running.process.is_alive():
                with suppress(ProcessLookupError):  # the process has just ended
                    os.kill(running.process.pid, number)

    def _receive_problem(self, ended: _Running[R]) -> str | None:
        """Return the error of a process that has ended, or None."""
        ended.process.join()
        try:
            problem: str | None = ended.answer.recv()
        except EOFError:  # it ended without an answer
            problem = _describe_exit(ended.process.exitcode, ended.run.folder / OUTPUT)
        ended.answer.close()
        ended.process.close()
        output = ended.run.folder / OUTPUT
        if output.is_file() and output.stat().st_size == 0:
            output.unlink()
        return problem


def _describe_exit(exit_code: int | None, output: Path) -> str:
    """Describe the end of a process that has sent no answer, with the last line of its output."""
    if exit_code is not None and exit_code < 0:
        name = signal.Signals(-exit_code).name
        reason = f"the process was killed by {name}{' (out of memory?)' if name == 'SIGKILL' else ''}"
    else:
        reason = f"the process ended with exit code {exit_code}"
    lines = output.read_text(encoding="utf-8", errors="replace").split("\n") if output.is_file() else []
    last = [line.strip() for line in lines if line.strip()][-1:]
    return ": ".join([reason, *last])


def process_context() -> ForkServerContext | SpawnContext:
    """Return the context of multiprocessing that starts the processes of a study."""
    return multiprocessing.get_context("forkserver") if METHOD == "forkserver" else multiprocessing.get_context("spawn")


def start_server() -> None:
    """Start the server from which processes are forked, unless it runs; it imports in the background.

    The server ends with this process.
    """
    if METHOD == "forkserver":
        from multiprocessing import forkserver

        forkserver.set_forkserver_preload(PRELOADED_MODULES)
        with _single_threaded_libraries(), _hide_main_module():
            forkserver.ensure_running()


@contextmanager
def _single_threaded_libraries() -> Iterator[None]:
    """Set the environment such that BLAS starts no threads when it is imported; a run sets its own number."""
    before = {name: os.environ.get(name) for name in THREAD_VARIABLES}
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def _hide_main_module() -> Iterator[None]:
    """Keep multiprocessing from importing the main script in the processes that are started in the context.

    Otherwise a script that calls `mtlcli.compare` without `if __name__ == "__main__":` would run again in each process.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _plugins_to_import(experiment: Experiment) -> tuple[str, ...]:
    """Return the plugins that a process must import to train an experiment, including modules of registered components.

    A ConfigError is raised for a component of the main script or a notebook, which no other process can import.
    """
    origins = plugins_of(experiment)
    if unreachable := [component for component, plugin in origins.items() if plugin == "__main__"]:
        raise ConfigError(
            f"{unreachable[0]} is defined in the main script, and each run of a study is trained in a process of its "
            "own, which can't import it: move it to a module"
        )
    for module in dict.fromkeys(plugin for plugin in origins.values() if plugin in sys.modules):
        load_plugin(module, "plugin")  # already imported; this records it
    return tuple(loaded_plugins())
