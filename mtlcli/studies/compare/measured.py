"""What a study wants to know of a run beside its summary; measured in the run's process, once it is trained."""

from __future__ import annotations

from pathlib import Path

from mtlcli.training.evaluate import evaluate
from mtlcli.training.size import size
from mtlcli.training.trainer import Trainer

MEASURED = "measured.json"


def measure(trainer: Trainer) -> None:
    """Write `measured.json` into the run folder of a trained run, whose model is that of its best epoch.

    `train`: task → metric → value on the training split, without augmentation. `flops`: floating-point operations to
    predict all tasks for one example of every dataset, a multiplication and an addition being two.
    `checkpoint_bytes`: of best.pt, which holds the optimizer's state too.
    """
    run, folder = trainer.run, trainer.folder
    document = {
        "train": evaluate(run, "train"),
        "flops": size(run.model, run.specs)["flops"],
        "checkpoint_bytes": Path(folder.best).stat().st_size,
    }
    folder.write_json(MEASURED, document)
