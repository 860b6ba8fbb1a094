"""Process of a study's run."""

from __future__ import annotations

import multiprocessing
import os
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from mtlcli.config import experiment_from_dict
from mtlcli.errors import InterruptedRunError, MtlError
from mtlcli.plugins import load_plugin
from mtlcli.training.assembly.build import build
from mtlcli.training.failures import explain_error
from mtlcli.training.run_folder import RunFolder
from mtlcli.training.state import TrainerState
from mtlcli.training.trainer import Trainer

OUTPUT = "output.txt"  # in the run folder: output of the process, such as the last message of a library that aborts

After = Callable[[TrainerState, RunFolder], None]
Work = Callable[["Job"], None]


@dataclass(frozen=True)
class Job:
    """Work of a process; plain data that can be sent to it.

    Attributes:
        experiment: the resolved experiment.
        folder: the run folder.
        plugins: plugins to import first.
        after: called with the state and the folder of the trained run; a function of a module.
        work: called with the job in place of training, if it is not None; picklable.
        directory: working directory of the study, which the server of processes does not have.
        environment: environment of the study; None keeps that of the server.
    """

    experiment: Mapping[str, Any]
    folder: Path
    plugins: tuple[str, ...] = ()
    after: After | None = None
    work: Work | None = None
    directory: str = "."
    environment: Mapping[str, str] | None = None


def run_process(run: Callable[[Job, Connection], None], job: Job, answer: Connection) -> None:
    """Run a job in the directory and the environment of the study; the main function of a process.

    If the process of the study is killed, this one ends at once, and the last checkpoint of the run remains.

    Args:
        run: `run_job`, or a replacement in tests.
        job: the job.
        answer: receives the result.
    """
    os.setsid()  # Ctrl-C in the terminal then reaches the process of the study only, which stops its runs
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    _enter_environment(job)
    run(job, answer)


def run_job(job: Job, answer: Connection) -> None:
    """Train a run and send None, or its error; if it is interrupted, exit without an answer.

    Args:
        job: the job.
        answer: receives the result.
    """
    try:
        train_job(job)
        answer.send(None)
    except InterruptedRunError as error:
        sys.exit(error.exit_code)
    except MtlError as error:
        answer.send(str(error))
    except Exception as error:
        answer.send(str(explain_error(error, job.experiment["training"]["batch_size"])) or type(error).__name__)
        traceback.print_exc()  # last, since it fails if the disk is full


def train_job(job: Job) -> None:
    """Train the run of a job, or resume it, and then call `job.after`; or call `job.work`.

    Args:
        job: the job.
    """
    for plugin in job.plugins:
        load_plugin(plugin)
    if job.work is not None:
        job.work(job)
        return
    experiment = experiment_from_dict(dict(job.experiment), source=str(job.folder))
    trainer = Trainer(build(experiment), job.folder, resume="auto", plots=False)
    trainer.fit()
    if job.after is not None:
        job.after(trainer.state, trainer.folder)


def _enter_environment(job: Job) -> None:
    """Change to the directory and environment of the study, and redirect the output to the run folder."""
    os.chdir(job.directory)
    if job.environment is not None:
        os.environ.clear()
        os.environ.update(job.environment)
    job.folder.mkdir(parents=True, exist_ok=True)
    file = os.open(job.folder / OUTPUT, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o666)
    for stream in (1, 2):
        os.dup2(file, stream)
    os.close(file)


def _exit_with_parent() -> None:
    study = multiprocessing.parent_process()
    if study is not None:
        wait([study.sentinel])
        os._exit(1)
