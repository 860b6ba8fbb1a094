"""Measurements of a trained run that a comparison needs and a run's summary lacks, made in the run's process."""

from __future__ import annotations

from pathlib import Path

from mtlcli.studies.compare.resampling import Outputs, replicates
from mtlcli.studies.compare.step_memory import step_memory
from mtlcli.training import evaluate
from mtlcli.training.size import size
from mtlcli.training.trainer import Trainer

MEASURED = "measured.json"


def measure(trainer: Trainer) -> None:
    """Write `measured.json` into the run folder of a trained run, whose model is that of its best epoch.

    `train`: task → metric → value on the training split, without augmentation. `flops`: floating-point operations to
    predict all tasks for one example of every dataset, a multiplication and an addition being two.
    `checkpoint_bytes`: of best.pt, which holds the optimizer's state too. `memory_bytes`: see `step_memory`.
    `resampled`: the split, and task → metric → values on bootstrap samples of its examples, see `resampling`.
    """
    run, folder = trainer.run, trainer.folder
    split = "test" if "test" in run.splits() else run.experiment.evaluation.split
    outputs = Outputs()
    evaluate.measure(run, split, receive=outputs.receive)
    document = {
        "train": evaluate.evaluate(run, "train"),
        "flops": size(run.model, run.specs)["flops"],
        "checkpoint_bytes": Path(folder.best).stat().st_size,
        "resampled": {"split": split, "values": replicates(run.kinds, outputs)},
        "memory_bytes": step_memory(trainer),  # last: it changes the model
    }
    folder.write_json(MEASURED, document)
