"""The latest checkpoints of a run and that of its best epoch."""

from __future__ import annotations

import logging
import os
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mtlcli.errors import ConfigError
from mtlcli.files import atomic_write, sync
from mtlcli.training.checkpoint.file import load_checkpoint, save_checkpoint

NAME = re.compile(r"last(?:-(\d+))?\.pt")
LOG = logging.getLogger("mtl")


class Checkpoints:
    """The files `last.pt`, `last-1.pt`, `last-2.pt`, … and `best.pt` in a folder.

    An old checkpoint is removed only when the new one is complete on disk, so that one of the latest can be loaded at
    any moment.

    Args:
        folder: The folder of the checkpoints.
        keep: Number of latest checkpoints to keep.
    """

    def __init__(self, folder: Path, keep: int = 2) -> None:
        self.folder = folder
        self.last, self.best = folder / "last.pt", folder / "best.pt"
        self.latest = [self.last, *(folder / f"last-{age}.pt" for age in range(1, keep))]

    def exist(self) -> bool:
        """Return whether there is a checkpoint to resume from."""
        return any(self._found())

    def save(self, payload: dict[str, Any]) -> None:
        """Save the latest checkpoint.

        Args:
            payload: Content of the checkpoint.

        Raises:
            MtlError: If it can't be written. Existing checkpoints are kept.
        """
        save_checkpoint(self.last, payload, self._age)

    def mark_best(self) -> None:
        """Make the latest checkpoint that of the best epoch."""
        with atomic_write(self.best) as temporary:
            temporary.unlink()
            _twin(self.last, temporary)

    def load(self) -> dict[str, Any]:
        """Load the latest checkpoint; if it is damaged, the one before it, which becomes the latest.

        Returns:
            Content of the checkpoint.

        Raises:
            ConfigError: If none can be loaded. All files are then kept unchanged.
        """
        damage: ConfigError | None = None
        for path in self._found():
            try:
                payload = load_checkpoint(path)
            except ConfigError as error:
                LOG.warning("%s", error)
                damage = damage or error
                continue
            if damage is not None:
                LOG.warning("resuming from %s", path)
                path.replace(self.last)
            return payload
        raise damage or ConfigError(f"{self.last}: no such checkpoint file")

    def _found(self) -> list[Path]:
        """Return the existing checkpoints, newest first, including more than are kept."""
        matches = [(NAME.fullmatch(path.name), path) for path in self.folder.glob("last*.pt")]
        return [path for _, path in sorted((int(match[1] or 0), path) for match, path in matches if match)]

    def _age(self) -> None:
        """Rename each of the latest to the next older name; `last.pt` also keeps its name until it is replaced."""
        for younger, older in reversed(list(zip(self.latest[1:], self.latest[2:], strict=False))):
            if younger.exists():
                younger.replace(older)
        if len(self.latest) > 1 and self.last.exists():
            self.latest[1].unlink(missing_ok=True)
            _twin(self.last, self.latest[1])


def _twin(path: Path, other: Path) -> None:
    """Create a hard link; a copy if the file system does not support it."""
    try:
        os.link(path, other)
    except OSError:
        shutil.copyfile(path, other)
        sync(other)


class CheckpointSchedule:
    """The interval `checkpoint.every`: `epoch`, `500 steps` or `10 minutes`.

    Steps are counted within an epoch, from its start.

    Args:
        every: The interval.
        clock: Monotonic clock, in seconds.
    """

    def __init__(self, every: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock, self.saved = clock, clock()
        amount, _, unit = every.partition(" ")
        self.steps = int(amount) if unit.startswith("step") else None
        self.seconds = 60 * int(amount) if unit.startswith("minute") else None

    def note(self, steps_per_epoch: int) -> str | None:
        """Return a warning if an interval in steps is never reached, because it is longer than an epoch."""
        if self.steps is None or self.steps <= steps_per_epoch:
            return None
        return (
            f"checkpoint.every is {self.steps} steps, but an epoch has {steps_per_epoch}: steps are counted from the "
            f"start of an epoch, so checkpoints are saved only at the end of each epoch"
        )

    def due(self, step: int) -> bool:
        """Return whether to save after `step` steps of the epoch."""
        if self.steps is not None:
            return step % self.steps == 0
        if self.seconds is not None and self.clock() - self.saved >= self.seconds:
            self.saved = self.clock()
            return True
        return False
