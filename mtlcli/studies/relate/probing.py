"""The skill of every baseline's frozen trunk at every task."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mtlcli.config import Experiment
from mtlcli.data.dataset import Examples
from mtlcli.models.preparation import preparation
from mtlcli.studies.relate.baselines import Baseline
from mtlcli.studies.relate.labels import labels, nature
from mtlcli.studies.relate.relation import Matrix
from mtlcli.studies.relate.skill import skill
from mtlcli.studies.relate.subsample import examples_of, subsample
from mtlcli.training.assemble import Datasets
from mtlcli.training.build import rebuild
from mtlcli.training.checkpoint import load_checkpoint
from mtlcli.training.run import Run

TRAIN, HELD_OUT = 4000, 2000  # the most examples of a dataset that a probe is fitted to, and judged by


def probed_skills(
    plan: Run, opened: Datasets, baselines: Sequence[Baseline], seeds: Sequence[int]
) -> NDArray[np.float64]:
    """[T, T, S]: how well a linear probe on the features of task i's baseline with seed s does at task j.

    plan: the joint experiment's parts: sources and kinds of the tasks. A probe is fitted to examples of the split
    `train` and judged on those of `evaluation.split`, as the baseline's own seed has set them apart: so none of those
    it is judged on has trained the trunk.
    """
    joint, tasks = plan.experiment, list(plan.kinds)
    skills = np.full((len(tasks), len(tasks), len(seeds)), np.nan)
    for s, seed in enumerate(seeds):
        parts = {alias: _parts(joint, opened, alias, seed) for alias in plan.specs}
        for baseline in (one for one in baselines if one.seed == seed):
            run = rebuild(baseline.experiment, load_checkpoint(baseline.folder / "checkpoints" / "best.pt"))
            features = {alias: [_features(run, plan, alias, part) for part in both] for alias, both in parts.items()}
            for j, task in enumerate(tasks):
                alias, target = plan.sources[task]
                found = [
                    (x, labels(part.targets[target])) for x, part in zip(features[alias], parts[alias], strict=True)
                ]
                skills[tasks.index(baseline.task), j, s] = skill(nature(plan.kinds[task]), *found)
    return skills


def _parts(joint: Experiment, opened: Datasets, alias: str, seed: int) -> list[Examples]:
    """Some of the examples to fit to, and of those to judge by, in memory."""
    found = [examples_of(opened, alias, split, seed) for split in ("train", joint.evaluation.split)]
    return [subsample(examples, amount) for examples, amount in zip(found, (TRAIN, HELD_OUT), strict=True)]


def _features(run: Run, plan: Run, alias: str, examples: Examples) -> Matrix:
    """[n, F] of the run's trunk, in evaluation mode. The inputs are normalized as their own dataset's are."""
    trunk = next(iter(run.model.sharing.trunks().values())).eval()
    normalize = preparation(plan.specs[alias], trunk.of_columns).to(run.device)
    assert isinstance(examples.inputs, Tensor)
    batches = torch.split(examples.inputs, run.experiment.evaluation.batch_size)
    with torch.inference_mode(), run.autocast():
        found = [trunk(normalize(batch.to(run.device))).float().cpu() for batch in batches]
    return torch.cat(found).double().numpy()
