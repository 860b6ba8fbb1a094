"""Linear probes: the skill of the frozen trunk of each baseline for each task."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mtlcli.data.base import Examples
from mtlcli.data.examples import LazyInputs
from mtlcli.data.formats.text_rows import TextRows
from mtlcli.models.inputs import make_preparation
from mtlcli.models.representations import pool_representation
from mtlcli.models.text_pairs import PairFeatures
from mtlcli.models.trunks.base import Trunk
from mtlcli.specs import DatasetSpec
from mtlcli.studies.relate.relation import Matrix
from mtlcli.studies.relate.study_runs import Baseline
from mtlcli.studies.relate.task_labels import Labels, LabelType, label_type, subsample, to_labels
from mtlcli.training.assembly.build import rebuild
from mtlcli.training.assembly.data_checks import Datasets
from mtlcli.training.checkpoint.file import load_checkpoint
from mtlcli.training.evaluate import evaluation_batch_size
from mtlcli.training.run import Run

MAX_TRAIN, MAX_HELD_OUT = 4000, 2000  # examples of a dataset that a probe is fitted to, and evaluated on
PENALTIES = np.logspace(-2, 4, 7)


def probe_skills(
    joint_run: Run, opened: Datasets, baselines: Sequence[Baseline], seeds: Sequence[int]
) -> NDArray[np.float64]:
    """Compute the skill of linear probes on the frozen trunk of every baseline for every task.

    A probe is fitted to examples of `train` and evaluated on examples of `evaluation.split`, as the seed of the
    baseline splits them, so that the trunk was not trained on the examples of the evaluation.

    Args:
        joint_run: the parts of the joint run, with T tasks; its weights are not used.
        opened: the datasets of the joint run.
        baselines: the trained baselines.
        seeds: their seeds, [S].

    Returns:
        Skill of the baseline of task i for task j with seed s, [T, T, S].
    """
    joint, tasks = joint_run.experiment, list(joint_run.kinds)
    splits = (("train", MAX_TRAIN), (joint.evaluation.split, MAX_HELD_OUT))
    skills = np.full((len(tasks), len(tasks), len(seeds)), np.nan)
    for s, seed in enumerate(seeds):
        examples = {
            alias: [subsample(opened, alias, split, seed, size) for split, size in splits] for alias in joint_run.specs
        }
        for baseline in (baseline for baseline in baselines if baseline.seed == seed):
            run = rebuild(baseline.experiment, load_checkpoint(baseline.folder / "checkpoints" / "best.pt"))
            features = {
                alias: [_compute_features(run, joint_run, alias, split) for split in both]
                for alias, both in examples.items()
            }
            for j, task in enumerate(tasks):
                alias, _ = joint_run.sources[task]
                train, held_out = (
                    (x, to_labels(joint_run.labels(task, split.targets)))
                    for x, split in zip(features[alias], examples[alias], strict=True)
                )
                skills[tasks.index(baseline.task), j, s] = skill(label_type(joint_run.kinds[task]), train, held_out)
    return skills


def _compute_features(run: Run, joint_run: Run, alias: str, examples: Examples) -> Matrix:
    """Features [n, F] of the trunk in evaluation mode; the inputs are normalized by the statistics of their dataset."""
    trunk = next(iter(run.model.sharing.trunks().values())).eval()
    prepare: Callable[[Tensor], Tensor]
    if run.model.stems is None:
        prepare = make_preparation(joint_run.specs[alias], trunk.of_columns).to(run.device)
    else:  # the only dataset, see `relate_study`
        prepare = partial(run.model.eval().prepare, alias)
    with torch.inference_mode(), run.autocast():
        features = [
            _pooled(trunk, prepare(batch.to(run.device))).float().cpu()
            for batch in _batches(run, joint_run.specs[alias], examples.inputs)
        ]
    texts = joint_run.specs[alias].text
    joined = torch.cat(features)
    return (PairFeatures()(joined) if texts is not None and texts.separate else joined).double().numpy()


def _pooled(trunk: Trunk, x: Tensor) -> Tensor:
    features: Tensor = trunk(x)
    return features if features.ndim == 2 else pool_representation(features, trunk.pool, trunk.mask(x))


def _batches(run: Run, spec: DatasetSpec, inputs: Tensor | LazyInputs) -> Iterator[Tensor]:
    """Yield raw inputs in batches; texts are tokenized by the run that was trained."""
    size = evaluation_batch_size(run.experiment, run.kinds)
    if isinstance(inputs, TextRows):
        assert run.tokenizer is not None and spec.text is not None
        tokens = run.tokenizer.tokenize(inputs, spec.text)
        for start in range(0, len(tokens), size):
            yield tokens.batch(np.arange(start, min(start + size, len(tokens))))
        return
    assert isinstance(inputs, Tensor)
    yield from torch.split(inputs, size)


def skill(kind: LabelType, train: tuple[Matrix, Labels], held_out: tuple[Matrix, Labels]) -> float:
    """Compute the skill of a linear probe: 1 is perfect, 0 is the best constant prediction.

        classes, binary:  (accuracy − p) / (1 − p), with p the share of the most frequent class among the held-out
        multilabel:       the mean of this over the labels
        real:             R²

    The probe is a ridge regression on the standardized features (for classes, of one-hot labels, with the largest
    output as the prediction) whose penalty is selected by leave-one-out cross-validation. It has a closed form for
    every kind of task.

    Args:
        kind: type of the labels.
        train: features [n, F] and labels [n] or [n, labels] that the probe is fitted to; NaN for a missing label.
        held_out: features and labels that it is evaluated on.

    Returns:
        The skill; NaN if either has no labels, or all held-out labels are equal.
    """
    (x, y), (x_out, y_out) = _standardize(train, held_out)
    if kind == "multilabel":
        skills = [_class_skill(x, y[:, k], x_out, y_out[:, k]) for k in range(y.shape[1])]
        defined = [value for value in skills if not math.isnan(value)]
        return sum(defined) / len(defined) if defined else math.nan
    return (_real_skill if kind == "real" else _class_skill)(x, y, x_out, y_out)


def _standardize(
    train: tuple[Matrix, Labels], held_out: tuple[Matrix, Labels]
) -> tuple[tuple[Matrix, Labels], tuple[Matrix, Labels]]:
    mean, std = train[0].mean(0), train[0].std(0)
    std = np.where(std > 0, std, 1.0)
    return ((train[0] - mean) / std, train[1]), ((held_out[0] - mean) / std, held_out[1])


def _class_skill(x: Matrix, y: Labels, x_out: Matrix, y_out: Labels) -> float:
    x, y, x_out, y_out = _drop_unlabelled(x, y, x_out, y_out)
    if len(y) < 2 or not len(y_out):
        return math.nan
    constant = np.unique(y_out, return_counts=True)[1].max() / len(y_out)
    if constant == 1:
        return math.nan
    classes = np.unique(y)
    outputs = _predict_ridge(x, (y[:, None] == classes).astype(np.float64), x_out)
    accuracy = np.mean(classes[outputs.argmax(1)] == y_out)
    return float((accuracy - constant) / (1 - constant))


def _real_skill(x: Matrix, y: Labels, x_out: Matrix, y_out: Labels) -> float:
    x, y, x_out, y_out = _drop_unlabelled(x, y, x_out, y_out)
    if len(y) < 2 or not len(y_out) or np.ptp(y_out) == 0:
        return math.nan
    residual = y_out - _predict_ridge(x, y[:, None], x_out)[:, 0]
    return float(1 - np.sum(residual**2) / np.sum((y_out - y_out.mean()) ** 2))


def _drop_unlabelled(x: Matrix, y: Labels, x_out: Matrix, y_out: Labels) -> tuple[Matrix, Labels, Matrix, Labels]:
    labelled, labelled_out = ~np.isnan(y), ~np.isnan(y_out)
    return x[labelled], y[labelled], x_out[labelled_out], y_out[labelled_out]


def _predict_ridge(x: Matrix, y: Matrix, x_out: Matrix) -> Matrix:
    """Fit a ridge regression to [n, F] → [n, K], and predict for x_out [m, F]."""
    from sklearn.linear_model import RidgeCV

    predicted: Matrix = RidgeCV(PENALTIES).fit(x, y).predict(x_out).reshape(len(x_out), -1)
    return predicted
