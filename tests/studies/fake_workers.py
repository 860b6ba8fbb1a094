"""What processes do in the tests, in the place of training: functions that other processes can import."""

import multiprocessing
import os
import signal
import sys
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path

from mtlcli.studies.worker import Job, run_job


def by_seed(job: Job, answer: Connection) -> None:
    """Seed 0 works, 1 fails, 2 dies, 3 breaks down, and 4 exits with its last words."""
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
    """Never ends by itself; told to stop, it leaves a file."""

    def told(number: int, frame: object) -> None:
        (job.folder / "told").write_text(str(number))
        sys.exit(128 + number)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, told)
    (job.folder / "started").write_text(str(os.getpid()))
    while True:
        signal.pause()


def first_of_two(job: Job, answer: Connection) -> None:
    """Seed 0 fails as soon as the other has started, which is endless."""
    if job.experiment["seed"] != 0:
        endless(job, answer)
    _wait_for(job.folder.parent / "1" / "started")
    answer.send("failed")


def interrupting(job: Job, answer: Connection) -> None:
    """Seed 0 sends the study SIGINT as soon as the other has started, and then is endless too."""
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
