"""One run of a study, in its process."""

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
from mtlcli.training.trainer import Trainer

OUTPUT = "output.txt"  # in the run folder: what the process prints, such as a library's last words


@dataclass(frozen=True)
class Job:
    """What a process is to do; plain data, which travels to it.

    experiment: resolved. folder: of the run. plugins: to import first. after: what to do with the trained run.
    directory, environment: where this process is to find itself, which the server doesn't know of.
    """

    experiment: Mapping[str, Any]
    folder: Path
    plugins: tuple[str, ...] = ()
    after: Callable[[Trainer], None] | None = None
    directory: str = "."
    environment: Mapping[str, str] | None = None


def process(work: Callable[[Job, Connection], None], job: Job, answer: Connection) -> None:
    """What a process of a study runs: `work`, in the study's directory and environment.

    If the study's process is killed, this one ends at once: the run's last checkpoint is what is left of it.
    """
    os.setsid()  # Ctrl-C in the terminal is for the study's process, which tells its runs
    threading.Thread(target=_end_with_the_study, daemon=True).start()
    _settle(job)
    work(job, answer)


def work(job: Job, answer: Connection) -> None:
    """Train the job's run, or go on with it; answers None, or what went wrong. Interrupted, it only exits."""
    try:
        train(job)
        answer.send(None)
    except InterruptedRunError as error:
        sys.exit(error.exit_code)
    except MtlError as error:
        answer.send(str(error))
    except Exception as error:
        answer.send(str(explain_error(error, job.experiment["training"]["batch_size"])) or type(error).__name__)
        traceback.print_exc()  # last: on a full disk it fails itself


def train(job: Job) -> None:
    """Train the job's run from where it is, and do what is to be done with it then. Raises what that raises."""
    for plugin in job.plugins:
        load_plugin(plugin)
    experiment = experiment_from_dict(dict(job.experiment), source=str(job.folder))
    trainer = Trainer(build(experiment), job.folder, resume="auto", plots=False)
    trainer.fit()
    if job.after is not None:
        job.after(trainer)


def _settle(job: Job) -> None:
    """Take the study's directory and environment, and send what is printed to the run folder."""
    os.chdir(job.directory)
    if job.environment is not None:
        os.environ.clear()
        os.environ.update(job.environment)
    job.folder.mkdir(parents=True, exist_ok=True)
    file = os.open(job.folder / OUTPUT, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o666)
    for stream in (1, 2):
        os.dup2(file, stream)
    os.close(file)


def _end_with_the_study() -> None:
    study = multiprocessing.parent_process()
    if study is not None:
        wait([study.sentinel])
        os._exit(1)
