"""A run that is killed after every step, twice in succession, and read by 0 or 2 workers."""

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
    """Start or resume a run; return True if it was killed."""
    trainer = Trainer(build(experiment), folder, resume="auto", callbacks=[Killer(killed_after)], plots=False)
    try:
        trainer.fit()
    except KilledError:
        return True
    return False


def find_differences(root: Path, workers: int, only: Sequence[int] | None = None) -> list[str]:
    """Kill a run after each step and once more one step later; compare it with an uninterrupted run without workers.

    Args:
        root: The folder that contains the run folders.
        workers: The number of worker processes of the killed runs.
        only: The steps to kill a run after (default: every step).

    Returns:
        A line for each killed run that doesn't end with the same bits.
    """
    reference = create_experiment(0)
    train(reference, root / "reference")
    steps = Trainer(build(reference), root / "none").state.steps_per_epoch * reference.training.epochs
    errors = []
    for step in only or range(1, steps + 1):
        folder = root / f"killed-{step}"
        assert train(create_experiment(workers), folder, killed_after=step)
        train(create_experiment(workers), folder, killed_after=1)
        train(create_experiment(workers), folder)
        last = "checkpoints/last.pt"
        if digest_checkpoint(folder / last) != digest_checkpoint(root / "reference" / last):
            errors.append(f"killed after step {step}, {workers} workers: the bits differ")
    return errors


def create_experiment(workers: int) -> Experiment:
    """Return an experiment of two epochs of 6 steps, with augmentation and dropout, saved after each step."""
    return digits(
        datasets={"digits": {"name": "digits", "val": 0.2, "augment": ["RandomHorizontalFlip"]}},
        weighting="uncertainty",
        training=training(loading="stream", workers=workers),
        checkpoint={"every": "1 step"},
    )
