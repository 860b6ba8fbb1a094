"""`data`: similarity of the tasks' inputs and, where they share examples, of their labels."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from mtlcli.data.dataset import Examples
from mtlcli.models.one_hot import OneHot
from mtlcli.specs import DatasetSpec
from mtlcli.studies.relate.input_similarity import input_similarity
from mtlcli.studies.relate.label_similarity import label_similarity
from mtlcli.studies.relate.labels import labels, nature
from mtlcli.studies.relate.relation import Matrix, Relation, named, symmetric
from mtlcli.studies.relate.subsample import examples_of, subsample
from mtlcli.training.assemble import Datasets
from mtlcli.training.run import Run

EXAMPLES = 4000  # the most of each dataset that labels are compared on
INPUTS = 2000  # the most of each dataset that inputs are compared on


def data_relation(plan: Run, opened: Datasets) -> Relation:
    """Of two tasks on the same dataset the similarity of their labels, of two on different ones that of their inputs.

    The same dataset is one of the same name and options, whatever the YAML calls it: its inputs have a similarity of
    exactly 1, which leaves the labels to tell the tasks apart. Labels of different examples can't be compared.
    plan: the joint experiment's parts. All is of the split `train`.
    """
    joint, tasks = plan.experiment, list(plan.kinds)
    first = {
        alias: next(a for a in plan.specs if joint.datasets[a] == entry) for alias, entry in joint.datasets.items()
    }
    parts = {
        alias: subsample(examples_of(opened, alias, "train", joint.seed), EXAMPLES) for alias in set(first.values())
    }
    on = [first[plan.sources[task][0]] for task in tasks]
    known = [
        (nature(plan.kinds[task]), labels(parts[alias].targets[plan.sources[task][1]]))
        for task, alias in zip(tasks, on, strict=True)
    ]
    inputs = {
        (a, b): input_similarity(_inputs(parts[a], plan.specs[a]), _inputs(parts[b], plan.specs[b]))
        for a in sorted(set(on)) for b in sorted(set(on)) if a < b
    }  # fmt: skip
    by_labels, by_inputs = np.full((2, len(tasks), len(tasks)), np.nan)
    for i, j in zip(*np.triu_indices(len(tasks), 1), strict=True):
        if on[i] == on[j]:
            by_labels[i, j] = label_similarity(known[i], known[j])
            by_inputs[i, j] = 1.0
        else:
            by_inputs[i, j] = inputs[min(on[i], on[j]), max(on[i], on[j])]
    same = np.array([[a == b for b in on] for a in on])
    by_labels, by_inputs = symmetric(by_labels), symmetric(by_inputs)
    numbers = {"labels": named(tasks, by_labels), "inputs": named(tasks, by_inputs)}
    return Relation(tasks, np.where(same, by_labels, by_inputs), numbers)


def _inputs(examples: Examples, spec: DatasetSpec) -> Matrix:
    """[n, D], as they are; a table's categories one-hot."""
    assert isinstance(examples.inputs, Tensor)
    chosen = examples.inputs[:INPUTS]
    flat: Matrix = (OneHot(spec.columns)(chosen) if spec.columns else chosen.flatten(1)).double().numpy()
    return flat
