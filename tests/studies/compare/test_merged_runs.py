"""Merged models as methods of a comparison."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from mtlcli.cli import main
from mtlcli.config import Experiment, experiment_from_dict
from mtlcli.errors import ConfigError
from mtlcli.studies.compare.compare_study import compare
from mtlcli.studies.compare.execution import StudyRun
from mtlcli.studies.compare.measured import measure
from mtlcli.studies.compare.merged_runs import parse_baselines
from mtlcli.studies.worker import Job, train_job
from tests.studies.merge.checkpoints import config


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw no plots, and resample a few times only."""
    monkeypatch.setattr("mtlcli.studies.compare.resampling.MAX_RESAMPLES", 5)
    monkeypatch.setattr("mtlcli.studies.compare.compare_study.draw_plots", lambda *_: None)


def train_here(runs: Sequence[StudyRun]) -> Iterator[tuple[StudyRun, str | None]]:
    """Train runs in this process."""
    for run in runs:
        train_job(Job(run.experiment.resolved(), run.folder, after=measure, work=run.work))
        yield run, None


def load(overrides: Sequence[str]) -> Experiment:
    return experiment_from_dict(config("digit", "ink"), overrides)


def test_the_models_of_each_seed_are_merged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = compare(load, seeds=1, baselines=["merge:mean,ties"], out=tmp_path / "study", train=train_here)
    assert list(result["methods"]) == ["digit-ink", "merge:mean", "merge:ties"]
    assert result["failed"] == []
    assert result["epochs"] == "1"
    ties = result["methods"]["merge:ties"]
    (run,) = ties["runs"]
    folder = Path(run["folder"])
    assert folder.parent == tmp_path / "study/merged"
    single = result["baseline"]["cost"]
    assert ties["cost"]["parameters"]["value"] < single["parameters"]["value"]
    assert ties["cost"]["flops"]["value"] == result["methods"]["digit-ink"]["cost"]["flops"]["value"]
    assert ties["cost"]["seconds_per_epoch"]["ratio"] == pytest.approx(1.0)
    assert ties["cost"]["peak_memory_bytes"]["ratio"] == pytest.approx(1.0)
    assert run["coefficients"].keys() == {"digit", "ink"}
    assert "| merge:ties | 0 | digit " in (tmp_path / "study/comparison.md").read_text()
    assert len(json.loads((folder / "merged.json").read_text())["trials"]) == 10
    assert main(["eval", str(folder), "--json"]) == 0
    metrics = json.loads(capsys.readouterr().out)["metrics"]
    assert metrics["digit"]["accuracy"] == ties["metrics"]["digit"]["accuracy"]["mean"]

    def refuse(runs: Sequence[StudyRun]) -> Iterator[tuple[StudyRun, str | None]]:
        raise AssertionError([str(run) for run in runs])

    again = compare(load, seeds=1, baselines=["merge:mean,ties"], out=tmp_path / "study", train=refuse)
    assert again["methods"]["merge:ties"]["metrics"] == ties["metrics"]


def test_a_failed_baseline_fails_the_merge(tmp_path: Path) -> None:
    def fail_on_ink(runs: Sequence[StudyRun]) -> Iterator[tuple[StudyRun, str | None]]:
        for run in runs:
            if run.method.task == "ink":
                yield run, "out of memory"
            else:
                yield from train_here([run])

    result = compare(load, seeds=1, baselines=["merge:mean"], out=tmp_path / "study", train=fail_on_ink)
    reasons = {run["run"]: run["error"] for run in result["failed"]}
    assert reasons["merge:mean, seed 0"] == "single-task ink, seed 0 failed"


def test_baselines_are_parsed() -> None:
    assert [rule.method for rule in parse_baselines(["merge", "merge:dare,ties"])] == [
        "mean", "task_arithmetic", "ties", "dare"
    ]  # fmt: skip
    with pytest.raises(ConfigError, match=r"no method of merging is called 'tie'\. Did you mean 'ties'"):
        parse_baselines(["merge:tie"])
    with pytest.raises(ConfigError, match="expected merge or merge:METHOD,METHOD, got 'single'"):
        parse_baselines(["single"])


def test_one_task_can_not_be_merged(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="the experiment has one task"):
        compare(
            lambda overrides: experiment_from_dict(config("digit"), overrides), baselines=["merge"], out=tmp_path,
            train=train_here,
        )  # fmt: skip
