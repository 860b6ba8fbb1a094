"""The inputs and outputs of an exported model, as the user of the file needs to know them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from mtlcli import __version__
from mtlcli.data.numerals import ISO
from mtlcli.specs import FIRST, MISSING, UNKNOWN, Column, DatasetSpec, TargetSpec
from mtlcli.tasks.kind import TaskKind
from mtlcli.training.from_checkpoint import publishable
from mtlcli.training.run import Run

NUMERIC = (
    "float32 of x - offset, subtracted in float64; NaN where the number is missing, which counts as the mean of the "
    "training rows"
)
CATEGORICAL = (
    "the position in levels, plus 2; 0 for a category that is not in levels, 1 where it is missing. A number that is "
    "no such code counts as 0. Where all levels are numbers, any spelling of the same number is the same category"
)
RAW = (
    "raw values, as the dataset has them: the model itself subtracts the mean and divides by the standard deviation. "
    "Do not normalize them, and do not divide images by 255"
)


def interface(run: Run, outputs: Mapping[str, Tensor]) -> dict[str, Any]:
    """Describe the model's inputs and outputs as plain data: the content of the `.json` file next to an exported one.

    outputs: task → what the model gives for an example, for its type.
    """
    sources = run.sources
    return {
        "name": run.experiment.name,
        "mtlcli": __version__,
        "inputs": {alias: _input(run, alias, spec) for alias, spec in run.specs.items()},
        "outputs": {
            task: {
                "dataset": sources[task][0],
                "target": sources[task][1],
                "kind": run.experiment.tasks[task].kind.name,
                "shape": ["batch", kind.outputs],
                "dtype": str(outputs[task].dtype).removeprefix("torch."),
                **_meaning(kind, run.specs[sources[task][0]].targets[sources[task][1]]),
            }
            for task, kind in run.kinds.items()
        },
        "experiment": publishable(run.experiment),
    }


def _input(run: Run, alias: str, spec: DatasetSpec) -> dict[str, Any]:
    entry = run.experiment.datasets[alias]
    description = {"dataset": entry.name, "shape": ["batch", *spec.input_shape], "dtype": "float32"}
    if spec.columns:
        dates = entry.options.get("dates", [])
        columns = [{"position": at, **_column(column)} for at, column in enumerate(spec.columns)]
        for column in columns:
            if column["name"] in dates and column["type"] == "number":
                form = dates[column["name"]] if isinstance(dates, dict) else ISO
                column["date"] = f"{form}; x is the number of days since 1970-01-01 00:00 UTC"
        return {**description, "encoding": {"number": NUMERIC, "category": CATEGORICAL}, "columns": columns}
    description = {**description, "encoding": RAW, "mean": list(spec.mean), "std": list(spec.std)}
    dataset = run.datasets[alias]
    if dataset.value_range is not None:
        description["range"] = list(dataset.value_range)
    if preparation := dataset.preparation():
        description["preparation"] = preparation
    return description


def _column(column: Column) -> dict[str, Any]:
    if column.levels is None:
        return {
            "name": column.name,
            "type": "number",
            "offset": column.offset,
            "mean": column.offset + column.mean,
            "std": column.std,
        }
    codes = {"unknown": UNKNOWN, "missing": MISSING, "first": FIRST}
    return {"name": column.name, "type": "category", "codes": codes, "levels": list(column.levels)}


def _meaning(kind: TaskKind, target: TargetSpec) -> dict[str, Any]:
    """Meaning of a task's outputs, and the class that each belongs to."""
    if kind.probabilities is None:
        return {"values": "predictions", "probabilities": None, "classes": None}
    description = {"values": "logits", "probabilities": kind.probabilities, "classes": list(target.class_names)}
    return description if kind.positive is None else {**description, "positive": kind.positive}
