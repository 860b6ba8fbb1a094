"""Main functions of processes that replace training in the tests; other processes can import them."""

import multiprocessing
import os
import signal
import sys
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path

from mtlcli.studies.worker import Job, run_job


def by_seed(job: Job, answer: Connection) -> None:
    """Succeed with seed 0, fail with 1, get killed with 2, raise with 3, and print and exit with 4."""
    match job.experiment["seed"]:
        case 0:
            (job.folder / "seen.txt").write_text(f"{Path.cwd()} {os.environ['MTL_SEEN']} {job.plugins}")
            answer.send(None)
        case 1:
            answer.send("out of memory")
        case 2:
            os.kill(os.getpid(), signal.SIGKILL)
        case 3:
            run_job(Job({**job.experiment, "seed": "none"}, job.folder), answer)
        case _:
            print("at first\nterminate called\n", flush=True)
            sys.exit(3)


def endless(job: Job, answer: Connection) -> None:
    """Run until a signal arrives, and write its number to a file."""

    def record_signal(number: int, frame: object) -> None:
        (job.folder / "signal").write_text(str(number))
        sys.exit(128 + number)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, record_signal)
    (job.folder / "started").write_text(str(os.getpid()))
    while True:
        signal.pause()


def first_of_two(job: Job, answer: Connection) -> None:
    """Fail with seed 0 as soon as the other process, which is endless, has started."""
    if job.experiment["seed"] != 0:
        endless(job, answer)
    _wait_for(job.folder.parent / "1" / "started")
    answer.send("failed")


def interrupting(job: Job, answer: Connection) -> None:
    """Send SIGINT to the study with seed 0 as soon as the other process has started; run endlessly."""
    if job.experiment["seed"] == 0:
        _wait_for(job.folder.parent / "1" / "started")
        study = multiprocessing.parent_process()
        assert study is not None
        assert study.pid is not None
        with suppress(ProcessLookupError):
            os.kill(study.pid, signal.SIGINT)
    endless(job, answer)


def _wait_for(path: Path) -> None:
    while not path.exists():
        pass
