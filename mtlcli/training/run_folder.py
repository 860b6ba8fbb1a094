"""The folder of one run: where each file is, who may write there, and writing it whole."""

from __future__ import annotations

import itertools
import json
import logging
import math
import os
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from mtlcli.errors import ConfigError, MtlError
from mtlcli.files import given_path, locked, sweep, write_text
from mtlcli.training.checkpoint.rotation import Checkpoints

LOG = logging.getLogger("mtl")
Resume = Literal["never", "auto", "must"]


def run_root() -> Path:
    """The folder of runs and studies whose folder is not given: `$MTL_RUNS`, or `runs` in the current folder."""
    return given_path(os.environ.get("MTL_RUNS") or "runs", "MTL_RUNS")


class RunFolder:
    """`runs/<name>/<UTC time>-<seed>/`, or the folder the user names."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.last = path / "checkpoints" / "last.pt"
        self.best = path / "checkpoints" / "best.pt"
        self.plots = path / "plots"
        self.log = path / "log.txt"

    @classmethod
    def named(cls, path: str | Path, resume: Resume) -> RunFolder:
        """The folder the user names, not made yet. ConfigError where it doesn't hold what `resume` wants."""
        if str(path) in ("", "."):
            raise ConfigError(f"run folder {str(path)!r}: name a folder of its own")
        folder = cls(given_path(path, "run folder"))
        folder.check(resume)
        return folder

    @classmethod
    def new(cls, name: str, seed: int) -> RunFolder:
        """Make a folder that wasn't there, under `$MTL_RUNS` or `runs/`. ConfigError where it can't be made."""
        root = run_root() / name
        stamp = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{seed}"
        for number in itertools.count(1):
            path = root / (stamp if number == 1 else f"{stamp}.{number}")
            try:
                path.mkdir(parents=True)
            except FileExistsError:
                continue
            except OSError as error:
                raise ConfigError(f"run folder {path}: can't be made: {error.strerror or error}") from error
            break
        return cls(path)

    def make(self) -> None:
        """Make the folder. ConfigError where it can't be made, MtlError where it is there and can't be written to."""
        kind = MtlError if self.path.is_dir() else ConfigError
        try:
            for part in (self.path, self.last.parent, self.plots):
                part.mkdir(parents=True, exist_ok=True)
            for part in (self.path, self.last.parent, self.plots):
                with tempfile.TemporaryFile(dir=part):
                    pass
        except OSError as error:
            raise kind(f"run folder {self.path}: can't be written to: {error.strerror or error}") from error

    def check(self, resume: Resume) -> None:
        """ConfigError where the folder holds a run and is to be new, or holds none to go on with and must."""
        saved = Checkpoints(self.last.parent).exist()
        if resume == "never" and (saved or (self.path / "config.yaml").exists()):
            raise ConfigError(f"run folder {self.path} holds a run already; --resume auto goes on with it")
        if resume == "must" and not saved:
            raise ConfigError(f"run folder {self.path} holds no checkpoint to go on from (--resume must)")

    def sweep(self) -> None:
        """Remove the unfinished files of a process that was killed while it wrote. Only under the lock."""
        sweep(self.path, self.last.parent, self.plots)

    def lock(self) -> AbstractContextManager[None]:
        """Keep every other process from training into this folder. ConfigError where one already does."""
        return locked(self.path, f"run folder {self.path}: another process is training into it")

    def write(self, name: str, text: str) -> None:
        """Write one of the folder's text files, whole."""
        write_text(self.path / name, text)

    def write_json(self, name: str, document: Any) -> None:
        self.write(name, to_json(document))


def to_json(document: Any) -> str:
    """JSON text, a number that isn't finite as null."""
    return json.dumps(_finite(document), indent=2, ensure_ascii=False) + "\n"


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


class _LogFile(logging.FileHandler):
    """A log file whose write errors, such as those of a full disk, don't end the run."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 (logging's name)
        return


class _ZonedFormatter(logging.Formatter):
    """Formatter of times as ISO 8601 with the offset from UTC, such as 2026-11-30T17:41:05.123+05:45."""

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802 (logging's name)
        return datetime.fromtimestamp(record.created).astimezone().isoformat(timespec="milliseconds")


@contextmanager
def logged(folder: RunFolder) -> Iterator[None]:
    """Copy every message that is logged inside the `with` block to the folder's `log.txt`."""
    handler = _LogFile(folder.log, encoding="utf-8", errors="backslashreplace")
    handler.setFormatter(_ZonedFormatter("%(asctime)s %(levelname)s %(message)s"))
    level = LOG.level
    LOG.addHandler(handler)
    LOG.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        LOG.removeHandler(handler)
        LOG.setLevel(level)
        handler.close()


def checkpoint_of(path: Path) -> Path:
    """The checkpoint that a path names: the file itself, or of a run folder the best one.

    ConfigError for a folder that has none.
    """
    if not path.is_dir():
        return path
    for folder in (path / "checkpoints", path):
        if (best := folder / "best.pt").is_file():
            return best
        if (last := folder / "last.pt").is_file():
            raise ConfigError(f"{path}: this run has no best checkpoint yet; name its last one: {last}")
    raise ConfigError(f"{path}: not a file, so no checkpoint, and no run folder either: it has no checkpoints/best.pt")
