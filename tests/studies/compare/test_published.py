"""Published tables of NYUv2 and Cityscapes: Δm and mean ranks recomputed from the printed metrics."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from mtlcli.studies.compare.published import PublishedTable, read_published
from mtlcli.studies.compare.statistics import mean_ranks
from tests.oracles import comparison as oracle

FOLDER = Path(__file__).parents[3] / "docs/published"
DIRECTIONS = {
    "segmentation": {"miou": "max", "pixel_accuracy": "max"},
    "depth": {"abs_err": "min", "rel_err": "min"},
    "normals": {
        "angle_mean": "min", "angle_median": "min", "within_11.25": "max", "within_22.5": "max", "within_30": "max",
    },
}  # fmt: skip
# half of the last printed digit, in the units of the study; 5e-5 for percentages
HALF_DIGIT = {
    "abs_err": 5e-5,
    "rel_err": 5e-5,
    "angle_mean": 5e-3,
    "angle_median": 5e-3,
}
NASH_MTL, FAMO = 0, 1  # number of the table
EXACT = {"uniform", "SI", "rlw", "dwa", "mgda", "pcgrad", "graddrop", "famo"}  # equal to all printed digits
MISPRINTED = "imtl_g gradients=features"  # of NYUv2: its metrics give -0.60, and both papers print -0.76


def read(name: str) -> tuple[list[PublishedTable], dict[tuple[str, str], bool]]:
    tasks = ["segmentation", "depth"] + (["normals"] if name == "nyuv2" else [])
    directions = {task: DIRECTIONS[task] for task in tasks}
    plan: Any = SimpleNamespace(tasks=tasks, directions=directions)
    rises = {(task, metric): way == "max" for task in tasks for metric, way in directions[task].items()}
    return read_published(FOLDER / f"{name}.yaml", plan), rises


def values(table: PublishedTable, label: str) -> np.ndarray:
    return np.array([by_seed[0] for by_seed in table.scores(label).values()])


def rounding(name: str, table: PublishedTable, label: str) -> float:
    """Largest error of Δm that the rounding of the metrics of the row and of the baseline can cause, to first order."""
    row, base = values(table, label), values(table, "single-task")
    digits = {**HALF_DIGIT, "rel_err": 5e-3} if name == "cityscapes" else HALF_DIGIT
    half = np.array([digits.get(metric, 5e-5) for _, metric in table.scores(label)])
    return float(100 * np.mean(half / base * (1 + row / base)))


@pytest.mark.parametrize("name", ["nyuv2", "cityscapes"])
@pytest.mark.parametrize("number", [NASH_MTL, FAMO])
def test_printed_delta_m_is_that_of_the_printed_metrics(name: str, number: int) -> None:
    tables, rises = read(name)
    table = tables[number]
    computed = table.computed_delta_m(rises)
    assert list(computed) == list(table.delta_m) == [label for label in table.rows if label != "single-task"]
    base, up = values(table, "single-task"), np.array(list(rises.values()))
    for label, delta_m in computed.items():
        printed = table.delta_m[label].value
        assert delta_m == pytest.approx(oracle.delta_m(values(table, label), base, up))
        if (name, label) == ("nyuv2", MISPRINTED):
            assert f"{delta_m:.2f}" == "-0.60"
            continue
        assert abs(delta_m - printed) <= rounding(name, table, label) + 0.005, label
    if name == "nyuv2":
        equal = {label: f"{delta_m:.2f}" == f"{table.delta_m[label].value:.2f}" for label, delta_m in computed.items()}
        exact = {label for label in equal if equal[label]}
        assert exact == EXACT & set(computed)


def test_printed_mean_ranks_are_those_of_the_printed_metrics() -> None:
    tables, rises = read("nyuv2")
    table = tables[FAMO]
    ranks = mean_ranks({label: table.scores(label) for label in table.rows if label != "single-task"}, rises)
    assert {f"{label} {rank:.2f}" for label, rank in ranks.items()} == {
        f"{label} {rank.value:.2f}" for label, rank in table.mean_rank.items()
    }


def test_both_papers_print_the_same_values() -> None:
    for name in ("nyuv2", "cityscapes"):
        first, second = read(name)[0]
        for label in first.rows.keys() & second.rows.keys():
            assert first.rows[label] == second.rows[label]
            assert first.delta_m.get(label) == second.delta_m.get(label)
        assert second.rows.keys() - first.rows.keys() == {"famo" if name == "nyuv2" else "famo weight_decay=0.01"}
