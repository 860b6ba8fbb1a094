"""Merging of runs by all methods: the result, and options that don't fit."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from mtlcli.config import Experiment, experiment_from_dict
from mtlcli.errors import ConfigError, MtlError
from mtlcli.models.merging import METHODS, MergeMethod, MergeRule
from mtlcli.studies.merge.merge_runs import MergeOptions, check_options, merge_sources
from tests.studies.merge.checkpoints import CNN, config, sources


def locate(payload: Mapping[str, Any], data: bool) -> Experiment:
    return experiment_from_dict(payload["config"])


@pytest.mark.parametrize("method", METHODS)
def test_every_method_gives_a_model_with_all_tasks(tmp_path: Path, method: MergeMethod) -> None:
    runs = sources(tmp_path, config("digit"), config("parity"))
    fixed = {} if method == "mean" else {"": 0.5}
    merged = merge_sources(runs, MergeRule(method), MergeOptions(fixed), locate)
    assert merged.payload["config"]["tasks"].keys() == {"digit", "parity"}
    assert merged.payload["merged"]["method"] == method
    state = merged.payload["model"]
    for run in runs:
        for key, value in run.state.items():
            assert torch.equal(state[key], value) == key.startswith(("sharing.heads.", "normalize.")), key


def test_the_coefficient_of_each_run_is_that_of_its_tasks(tmp_path: Path) -> None:
    runs = sources(tmp_path, config("digit", "ink"), config("parity"))
    rule = MergeRule("task_arithmetic")
    merged = merge_sources(runs, rule, MergeOptions({"ink": 0.2, "parity": 0.7}), locate)
    assert merged.coefficients == {"digit,ink": 0.2, "parity": 0.7}
    with pytest.raises(ConfigError, match=r"no coefficient for .*1\.pt"):
        merge_sources(runs, rule, MergeOptions({"ink": 0.2}), locate)
    with pytest.raises(ConfigError, match=r"several coefficients for .*0\.pt"):
        merge_sources(runs, rule, MergeOptions({"digit": 0.1, "ink": 0.2, "parity": 0.7}), locate)
    with pytest.raises(ConfigError, match=r"no run has a task 'party'\. Did you mean 'parity'"):
        merge_sources(runs, rule, MergeOptions({"party": 0.2}), locate)


def test_statistics_of_batch_norm_are_averaged_or_recomputed(tmp_path: Path) -> None:
    runs = sources(tmp_path, config("digit", trunk=CNN), config("parity", trunk=CNN))
    key = next(key for key in runs[0].state if key.endswith("running_mean"))
    runs[0].state[key].fill_(2.0)
    averaged = merge_sources(runs, MergeRule("mean"), MergeOptions(), locate).payload["model"][key]
    assert averaged.tolist() == [1.0] * 4  # the other run has 0
    recomputed = merge_sources(runs, MergeRule("mean"), MergeOptions(batch_norm="recompute"), locate)
    assert not torch.equal(recomputed.payload["model"][key], averaged)


def test_a_best_coefficient_at_the_edge_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    runs = sources(tmp_path, config("digit"), config("parity"))
    merged = merge_sources(runs, MergeRule("ties"), MergeOptions(grid=(0.5, 1.0)), locate)
    assert merged.best is not None
    assert merged.split == "val"
    assert "at the edge of the grid" in caplog.text


def test_a_grid_without_a_finite_result_is_an_error(tmp_path: Path) -> None:
    runs = sources(tmp_path, config("digit"), config("ink"))
    with pytest.raises(MtlError, match="no coefficient of the grid"):
        merge_sources(runs, MergeRule("task_arithmetic"), MergeOptions(grid=(1e30, 1e31)), locate)


def test_all_wrong_options_are_listed() -> None:
    rule = MergeRule("soup", density=0.0, drop=1.0)  # type: ignore[arg-type]
    with pytest.raises(ConfigError) as error:
        check_options(rule, MergeOptions({"": math.nan}, grid=(0.1,)))
    text = str(error.value)
    assert "no such method 'soup'" in text
    assert "--density: expected a number in (0, 1], got 0.0" in text
    assert "--drop: expected a number in [0, 1), got 1.0" in text
    assert "leave one out" in text
    assert "expected finite numbers" in text
    with pytest.raises(ConfigError, match="the method mean has no coefficient"):
        check_options(MergeRule("mean"), MergeOptions({"": 0.5}))
