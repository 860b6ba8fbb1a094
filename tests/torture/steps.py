"""A run killed after every step of its epochs, twice in succession, read by 0 and by 2 workers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mtlcli.config import Experiment
from mtlcli.training.assembly.build import build
from mtlcli.training.trainer import Trainer
from tests.training.experiments import digits, training
from tests.training.identical import digest_checkpoint
from tests.training.killing import KilledError, Killer


def train(experiment: Experiment, folder: Path, killed_after: int = -1) -> bool:
    """Start a run or go on with it. Whether it was killed."""
    trainer = Trainer(build(experiment), folder, resume="auto", callbacks=[Killer(killed_after)], plots=False)
    try:
        trainer.fit()
    except KilledError:
        return True
    return False


def differing(root: Path, workers: int, only: Sequence[int] | None = None) -> list[str]:
    """The steps after which a run that is killed there, and one step further again, doesn't end in the same bits.

    As the run that isn't killed, and is read without workers. only: these steps of it; all by default.
    """
    whole = made(0)
    train(whole, root / "whole")
    steps, wrong = Trainer(build(whole), root / "none").state.steps_per_epoch * whole.training.epochs, []
    for step in only or range(1, steps + 1):
        folder = root / f"killed-{step}"
        assert train(made(workers), folder, killed_after=step)
        train(made(workers), folder, killed_after=1)
        train(made(workers), folder)
        if digest_checkpoint(folder / "checkpoints/last.pt") != digest_checkpoint(root / "whole/checkpoints/last.pt"):
            wrong.append(f"killed after step {step}, workers {workers}: other bits")
    return wrong


def made(workers: int) -> Experiment:
    """Two epochs of 6 steps, with augmentation and dropout, saved after each step."""
    return digits(
        datasets={"digits": {"name": "digits", "val": 0.2, "augment": ["RandomHorizontalFlip"]}},
        weighting="uncertainty",
        training=training(loading="stream", workers=workers),
        checkpoint={"every": "1 step"},
    )
