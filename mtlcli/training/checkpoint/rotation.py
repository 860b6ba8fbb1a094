"""The checkpoints of a run: the latest ones, and the best epoch's."""

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
from mtlcli.files import atomic, sync
from mtlcli.training.checkpoint.file import load_checkpoint, save_checkpoint

NAME = re.compile(r"last(?:-(\d+))?\.pt")
LOG = logging.getLogger("mtl")


class Checkpoints:
    """`last.pt`, before it `last-1.pt`, `last-2.pt`, …, and `best.pt`, in one folder.

    keep: how many of the latest there are. An older one goes only when the newer one is whole on the disk; the best
    one only gives way to a better one. At any moment, whatever ends the process, one of the latest can be loaded.
    """

    def __init__(self, folder: Path, keep: int = 2) -> None:
        self.folder = folder
        self.last, self.best = folder / "last.pt", folder / "best.pt"
        self.latest = [self.last, *(folder / f"last-{age}.pt" for age in range(1, keep))]

    def exist(self) -> bool:
        """Whether there is one to go on from."""
        return any(self._found())

    def save(self, payload: dict[str, Any]) -> None:
        """Make this the last checkpoint. MtlError where it can't be written; then those there were stay."""
        save_checkpoint(self.last, payload, self._age)

    def mark_best(self) -> None:
        """The last checkpoint is the best epoch's too."""
        with atomic(self.best) as temporary:
            temporary.unlink()
            _twin(self.last, temporary)

    def load(self) -> dict[str, Any]:
        """The last one; where that is damaged, the one before it, which is the last from then on.

        ConfigError where none can be loaded; then all stay as they are.
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
                LOG.warning("going on from %s", path)
                path.replace(self.last)
            return payload
        raise damage or ConfigError(f"{self.last}: no such checkpoint file")

    def _found(self) -> list[Path]:
        """The latest ones that are there, the newest first; more than are kept, where more were."""
        matches = [(NAME.fullmatch(path.name), path) for path in self.folder.glob("last*.pt")]
        return [path for _, path in sorted((int(match[1] or 0), path) for match, path in matches if match)]

    def _age(self) -> None:
        """Give each of the latest the next older name; `last.pt` keeps its own too, until the new one takes it."""
        for younger, older in reversed(list(zip(self.latest[1:], self.latest[2:], strict=False))):
            if younger.exists():
                younger.replace(older)
        if len(self.latest) > 1 and self.last.exists():
            self.latest[1].unlink(missing_ok=True)
            _twin(self.last, self.latest[1])


def _twin(path: Path, other: Path) -> None:
    """A second name for the same file; a copy where the file system has none."""
    try:
        os.link(path, other)
    except OSError:
        shutil.copyfile(path, other)
        sync(other)


class CheckpointSchedule:
    """`checkpoint.every`: `epoch`, `500 steps` or `10 minutes`.

    clock: seconds, never going back.
    """

    def __init__(self, every: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock, self.saved = clock, clock()
        amount, _, unit = every.partition(" ")
        self.steps = int(amount) if unit.startswith("step") else None
        self.seconds = 60 * int(amount) if unit.startswith("minute") else None

    def due(self, step: int) -> bool:
        """Whether to save after `step` steps of the epoch."""
        if self.steps is not None:
            return step % self.steps == 0
        if self.seconds is not None and self.clock() - self.saved >= self.seconds:
            self.saved = self.clock()
            return True
        return False
