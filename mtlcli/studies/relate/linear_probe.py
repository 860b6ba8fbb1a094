"""The skill of every baseline's frozen trunk at every task."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mtlcli.config import Experiment
from mtlcli.data.base import Examples
from mtlcli.models.inputs import make_preparation
from mtlcli.studies.relate.relation import Matrix
from mtlcli.studies.relate.study_runs import Baseline
from mtlcli.studies.relate.task_labels import Labels, Nature, examples_of, labels, nature, subsample
from mtlcli.training.assembly.build import rebuild
from mtlcli.training.assembly.data_checks import Datasets
from mtlcli.training.checkpoint.file import load_checkpoint
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
    normalize = make_preparation(plan.specs[alias], trunk.of_columns).to(run.device)
    assert isinstance(examples.inputs, Tensor)
    batches = torch.split(examples.inputs, run.experiment.evaluation.batch_size)
    with torch.inference_mode(), run.autocast():
        found = [trunk(normalize(batch.to(run.device))).float().cpu() for batch in batches]
    return torch.cat(found).double().numpy()


PENALTIES = np.logspace(-2, 4, 7)


def skill(nature: Nature, train: tuple[Matrix, Labels], held_out: tuple[Matrix, Labels]) -> float:
    """The skill of a linear probe: 1 is perfect, 0 the best constant prediction, below 0 worse than that.

        classes, binary:  (accuracy − p) / (1 − p), with p the share of the most frequent class among the held out
        multilabel:       the mean of that over the labels
        real:             R²

    train, held_out: features [n, F] and labels [n] or [n, labels], NaN where missing. The probe is a ridge regression
    on the standardized features (of one-hot labels for classes, the largest output taken), its penalty chosen by
    leave-one-out on the training part: a closed form, the same for every kind. NaN where a part has no labels, or all
    of the held-out ones are the same.
    """
    (x, y), (x_out, y_out) = _standardized(train, held_out)
    if nature == "multilabel":
        each = [_class_skill(x, y[:, k], x_out, y_out[:, k]) for k in range(y.shape[1])]
        defined = [one for one in each if not math.isnan(one)]
        return sum(defined) / len(defined) if defined else math.nan
    return (_real_skill if nature == "real" else _class_skill)(x, y, x_out, y_out)


def _standardized(
    train: tuple[Matrix, Labels], held_out: tuple[Matrix, Labels]
) -> tuple[tuple[Matrix, Labels], tuple[Matrix, Labels]]:
    mean, std = train[0].mean(0), train[0].std(0)
    std = np.where(std > 0, std, 1.0)
    return ((train[0] - mean) / std, train[1]), ((held_out[0] - mean) / std, held_out[1])


def _class_skill(x: Matrix, y: Labels, x_out: Matrix, y_out: Labels) -> float:
    x, y, x_out, y_out = _labelled(x, y, x_out, y_out)
    if len(y) < 2 or not len(y_out):
        return math.nan
    constant = np.unique(y_out, return_counts=True)[1].max() / len(y_out)
    if constant == 1:
        return math.nan
    classes = np.unique(y)
    outputs = _ridge(x, (y[:, None] == classes).astype(np.float64), x_out)
    accuracy = np.mean(classes[outputs.argmax(1)] == y_out)
    return float((accuracy - constant) / (1 - constant))


def _real_skill(x: Matrix, y: Labels, x_out: Matrix, y_out: Labels) -> float:
    x, y, x_out, y_out = _labelled(x, y, x_out, y_out)
    if len(y) < 2 or not len(y_out) or np.ptp(y_out) == 0:
        return math.nan
    residual = y_out - _ridge(x, y[:, None], x_out)[:, 0]
    return float(1 - np.sum(residual**2) / np.sum((y_out - y_out.mean()) ** 2))


def _labelled(x: Matrix, y: Labels, x_out: Matrix, y_out: Labels) -> tuple[Matrix, Labels, Matrix, Labels]:
    known, known_out = ~np.isnan(y), ~np.isnan(y_out)
    return x[known], y[known], x_out[known_out], y_out[known_out]


def _ridge(x: Matrix, y: Matrix, x_out: Matrix) -> Matrix:
    """What ridge regression, fitted to [n, F] → [n, K], predicts for x_out."""
    from sklearn.linear_model import RidgeCV

    predicted: Matrix = RidgeCV(PENALTIES).fit(x, y).predict(x_out).reshape(len(x_out), -1)
    return predicted
