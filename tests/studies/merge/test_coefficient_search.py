"""Search of the coefficients: Δm by hand, and the order of the trials."""

import math
from pathlib import Path

import pytest

from mtlcli.config import experiment_from_dict
from mtlcli.models.merging import Merger, MergeRule
from mtlcli.studies.merge.coefficient_search import CoefficientSearch, at_edge
from mtlcli.studies.merge.common_start import common_start
from mtlcli.studies.merge.united import unite
from mtlcli.training.assembly.build import rebuild
from tests.studies.merge.checkpoints import config, sources


@pytest.fixture
def search(tmp_path: Path) -> CoefficientSearch:
    runs = sources(tmp_path, config("digit"), config("ink"))
    payload = unite(runs)
    run = rebuild(experiment_from_dict(payload["config"]), payload)
    parameters = {name for name, _ in run.model.named_parameters()}
    merger = Merger(
        MergeRule("task_arithmetic"), {each.name: each.state for each in runs}, parameters, common_start(runs)
    )
    return CoefficientSearch(run, merger, runs)


def test_delta_m_is_relative_to_the_models_of_the_runs(search: CoefficientSearch) -> None:
    trial = search.evaluate({"digit": 0.4, "ink": 0.4})
    points = [
        100 * (search.own[task][metric] - trial.metrics[task][metric])
        for task, metric in (("digit", "accuracy"), ("ink", "r2"))
    ]
    assert trial.delta_m == pytest.approx(sum(points) / 2, rel=1e-12)


def test_the_model_of_a_run_is_exact(search: CoefficientSearch) -> None:
    trial = search.evaluate({"digit": 1.0, "ink": 0.0})
    assert trial.metrics["digit"] == pytest.approx(search.own["digit"], rel=1e-5)


def test_the_best_common_coefficient(search: CoefficientSearch) -> None:
    best = search.search([0.1, 0.5, 0.9])
    assert [trial.coefficients for trial in search.trials] == [{"digit": x, "ink": x} for x in (0.1, 0.5, 0.9)]
    assert best.delta_m == min(trial.delta_m for trial in search.trials)


def test_a_coefficient_for_each_task(search: CoefficientSearch) -> None:
    best = search.search([0.1, 0.9], by_task=True)
    assert len(search.trials) == 2 + 1 + 1
    assert best.delta_m == min(trial.delta_m for trial in search.trials)


def test_a_model_that_diverges_is_not_chosen(search: CoefficientSearch) -> None:
    best = search.search([1e30, 0.5])
    assert math.isnan(search.trials[0].delta_m)
    assert best.coefficients["digit"] == 0.5


def test_edges_of_a_grid() -> None:
    assert at_edge([0.1, 0.5, 0.9], {"a": 0.5, "b": 0.9})
    assert not at_edge([0.1, 0.5, 0.9], {"a": 0.5})
    assert not at_edge([0.5], {"a": 0.5})
