"""Run folder: its files, and the environment that a run records."""

from __future__ import annotations

import importlib.metadata
import itertools
import json
import logging
import math
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import torch

from mtlcli.errors import ConfigError, MtlError
from mtlcli.files import given_path, lock_folder, remove_unfinished, write_text
from mtlcli.training.checkpoint.rotation import Checkpoints
from mtlcli.version import __version__

LOG = logging.getLogger("mtl")
Resume = Literal["never", "auto", "must"]


def run_root() -> Path:
    """Return the parent of the run folders that aren't given: `$MTL_RUNS`, or `runs` in the current folder."""
    return given_path(os.environ.get("MTL_RUNS") or "runs", "MTL_RUNS")


class RunFolder:
    """The folder `runs/<name>/<UTC time>-<seed>/`, or the folder that the user gives.

    Args:
        path: the folder; it need not exist.

    Attributes:
        last: path of the latest checkpoint.
        best: path of the best checkpoint.
        plots: folder of the plots.
        log: path of the log file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.last = path / "checkpoints" / "last.pt"
        self.best = path / "checkpoints" / "best.pt"
        self.plots = path / "plots"
        self.log = path / "log.txt"

    @classmethod
    def named(cls, path: str | Path, resume: Resume) -> RunFolder:
        """Return the folder that the user gives, which is not created yet.

        Args:
            path: the folder.
            resume: see `check`.

        Returns:
            The folder. One that does not fit `resume` raises ConfigError.

        Raises:
            ConfigError: if the path is empty or the current folder.
        """
        if str(path) in ("", "."):
            raise ConfigError(f"run folder {str(path)!r}: expected a folder that is only for the run")
        folder = cls(given_path(path, "run folder"))
        folder.check(resume)
        return folder

    @classmethod
    def new(cls, name: str, seed: int) -> RunFolder:
        """Create a new folder under `$MTL_RUNS` or `runs/`.

        Args:
            name: name of the experiment.
            seed: seed of the experiment.

        Returns:
            The folder.

        Raises:
            ConfigError: if the folder can't be created.
        """
        root = run_root() / name
        stamp = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{seed}"
        for number in itertools.count(1):
            path = root / (stamp if number == 1 else f"{stamp}.{number}")
            try:
                path.mkdir(parents=True)
            except FileExistsError:
                continue
            except OSError as error:
                raise ConfigError(f"run folder {path}: can't be created: {error.strerror or error}") from error
            break
        return cls(path)

    def make(self) -> None:
        """Create the folder and its subfolders, if they don't exist, and check that files can be written to them.

        Raises:
            ConfigError: if the folder can't be created.
            MtlError: if it exists and can't be written to.
        """
        existed = self.path.is_dir()
        try:
            for folder in (self.path, self.last.parent, self.plots):
                folder.mkdir(parents=True, exist_ok=True)
            for folder in (self.path, self.last.parent, self.plots):
                with tempfile.TemporaryFile(dir=folder):
                    pass
        except OSError as error:
            message = f"run folder {self.path}: can't be written to: {error.strerror or error}"
            if existed:
                raise MtlError(message) from error
            raise ConfigError(message) from error

    def check(self, resume: Resume) -> None:
        """Check that the folder fits the way the run is started.

        Args:
            resume: `never` requires a folder without a run, `must` one with a checkpoint; `auto` accepts both.

        Raises:
            ConfigError: if the folder does not fit.
        """
        saved = Checkpoints(self.last.parent).exist()
        if resume == "never" and (saved or (self.path / "config.yaml").exists()):
            raise ConfigError(f"run folder {self.path} holds a run already; --resume auto resumes it")
        if resume == "must" and not saved:
            raise ConfigError(f"run folder {self.path} holds no checkpoint to resume (--resume must)")

    def sweep(self) -> None:
        """Remove the temporary files of a process that was killed while it wrote. Call this under the lock."""
        remove_unfinished(self.path, self.last.parent, self.plots)

    def lock(self) -> AbstractContextManager[None]:
        """Return a context that locks the folder; it raises ConfigError if another process trains into it."""
        return lock_folder(self.path, f"run folder {self.path}: another process is training into it")

    def write(self, name: str, text: str) -> None:
        """Write a text file of the folder atomically."""
        write_text(self.path / name, text)

    def write_json(self, name: str, document: Any) -> None:
        """Write a JSON file of the folder atomically, see `to_json`."""
        self.write(name, to_json(document))


def to_json(document: Any) -> str:
    """Format a document as JSON, with null for a number that isn't finite."""
    return json.dumps(_finite(document), indent=2, ensure_ascii=False) + "\n"


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


class _LogFile(logging.FileHandler):
    """Log file whose write errors, such as those of a full disk, don't end the run."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 (logging's name)
        return


class _ZonedFormatter(logging.Formatter):
    """Formatter of times as ISO 8601 with the offset from UTC, such as 2026-11-30T17:41:05.123+05:45."""

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802 (logging's name)
        return datetime.fromtimestamp(record.created).astimezone().isoformat(timespec="milliseconds")


@contextmanager
def log_to_folder(folder: RunFolder) -> Iterator[None]:
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
    """Return the checkpoint that a path names: the file itself, or the best one of a run folder.

    Args:
        path: a checkpoint, a run folder or its folder of checkpoints.

    Returns:
        The path of the checkpoint.

    Raises:
        ConfigError: if a folder has no best checkpoint.
    """
    if not path.is_dir():
        return path
    for folder in (path / "checkpoints", path):
        if (best := folder / "best.pt").is_file():
            return best
        if (last := folder / "last.pt").is_file():
            raise ConfigError(f"{path}: this run has no best checkpoint yet; use its last one: {last}")
    raise ConfigError(
        f"{path}: not a regular file, so not a checkpoint, nor a run folder: it has no checkpoints/best.pt"
    )


PACKAGES = (
    "torch",
    "torchvision",
    "torchmetrics",
    "numpy",
    "scikit-learn",
    "pydantic",
    "PyYAML",
    "typer",
    "matplotlib",
)


def environment(device: torch.device) -> dict[str, Any]:
    """Describe the environment of this process.

    Args:
        device: the training device.

    Returns:
        The content of environment.json.
    """
    return {
        "mtl": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": versions(),
        "device": device_name(device),
        "threads": torch.get_num_threads(),
        "git_commit": git_commit(),
        "command": sys.argv,
    }


def versions() -> dict[str, str | None]:
    """Return the installed version of each package `mtl` depends on; None if it is missing."""
    installed: dict[str, str | None] = {}
    for package in PACKAGES:
        try:
            installed[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            installed[package] = None
    return installed


def device_name(device: torch.device) -> str:
    """Return the name of a device, with the model of a GPU."""
    return f"{device} ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else str(device)


def git_commit() -> str | None:
    """Return the commit of the current git checkout, followed by a + if it has changes; None outside a checkout."""
    try:
        commit = subprocess.run(
            ["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5, check=True
        ).stdout.strip()
        dirty = subprocess.run(
            ["git", "status", "--porcelain", "-uno"], capture_output=True, text=True, timeout=5, check=True
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
    return commit + ("+" if dirty else "")
