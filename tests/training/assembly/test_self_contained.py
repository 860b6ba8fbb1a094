"""The weighting `relation` in a run: the run stores the matrix, and its gradient is that of the double sum."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from mtlcli.cli import main
from mtlcli.config import load_experiment
from mtlcli.errors import ConfigError, MtlError
from mtlcli.training.assembly.build import build, rebuild
from mtlcli.training.checkpoint.file import load_checkpoint
from mtlcli.training.evaluate import evaluate
from mtlcli.training.trainer import Trainer
from mtlcli.weighting.relation_matrix import self_contained, with_relations
from tests.training.experiments import digits, training
from tests.training.identical import digest_checkpoint
from tests.training.test_step import batch, make

CSV = "task,ink,digit\ndigit,0.5,1\nink,2,0.5\n"
NUMBERS = {"digit": {"ink": 0.5, "digit": 1.0}, "ink": {"ink": 2.0, "digit": 0.5}}
LAMBDAS = {"digit": 0.5, "ink": 3.0}
TASKS = {
    name: {"dataset": "digits", "target": name, "kind": kind, "weight": LAMBDAS[name]}
    for name, kind in (("digit", "classification"), ("ink", "regression"))
}


@pytest.fixture
def relation(tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "relation.csv").write_text(CSV)
    return {"name": "relation", "matrix": str(tmp_path / "relation.csv")}


def test_run_does_not_need_the_file_again(tmp_path: Path, relation: dict[str, Any]) -> None:
    summary = Trainer(build(digits(weighting=relation)), tmp_path / "run").fit()
    Path(relation["matrix"]).unlink()
    payload = load_checkpoint(summary["checkpoint"])
    assert payload["config"]["weighting"] == {
        "name": "relation", "matrix": NUMBERS, "from": None, "project": None, "negative": "error",
    }  # fmt: skip
    saved = load_experiment(tmp_path / "run/config.yaml")
    assert saved.resolved() == payload["config"]
    assert evaluate(rebuild(saved, payload), "test") == summary["metrics"]["test"]
    Trainer(build(saved), tmp_path / "again").fit()
    last = "checkpoints/last.pt"
    assert digest_checkpoint(tmp_path / "again" / last)["model"] == digest_checkpoint(tmp_path / "run" / last)["model"]
    assert main(["eval", summary["checkpoint"]]) == 0


def test_run_resumes_only_with_the_same_matrix(tmp_path: Path, relation: dict[str, Any]) -> None:
    short = training(epochs=1)
    Trainer(build(digits(weighting=relation, training=short)), tmp_path / "run").fit()
    longer = digits(weighting=relation)
    assert Trainer(build(longer), tmp_path / "run", resume="auto").fit()["epochs"] == 2
    Path(relation["matrix"]).write_text(CSV.replace("0.5", "0.25"))
    with pytest.raises(ConfigError, match=r"weighting\.matrix\.digit\.ink: is 0\.25, and the saved run has 0\.5"):
        Trainer(build(longer), tmp_path / "run", resume="auto").fit()


@pytest.mark.parametrize("cuts", [[0, 64], [0, 20, 27, 64]])
def test_step_descends_the_double_sum(cuts: list[int]) -> None:
    """Compare a step, in one batch or in micro-batches, with autograd on the literal double sum."""
    run, step = make(weighting={"name": "relation", "matrix": NUMBERS}, tasks=TASKS)
    other, _ = make(weighting="uniform", tasks=TASKS)
    whole = batch(0, 64)
    predictions = other.model(whole.inputs)
    losses = {task: kind.loss(predictions[task], whole.targets[task]) for task, kind in other.kinds.items()}
    total = torch.zeros(())
    for i in TASKS:
        for j in TASKS:
            total = total + NUMBERS[i][j] * LAMBDAS[i] * LAMBDAS[j] * losses[i] * losses[j]
    expected = torch.autograd.grad(total, list(other.model.parameters()))
    result = step([batch(start, stop) for start, stop in pairwise(cuts)])
    for parameter, gradient in zip(run.model.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-4, atol=1e-6)
    assert result is not None
    expected_weights = [
        2 * LAMBDAS[i] * sum(NUMBERS[i][j] * LAMBDAS[j] * losses[j].item() for j in TASKS) for i in TASKS
    ]
    torch.testing.assert_close(result[0].weights, torch.tensor(expected_weights), rtol=1e-5, atol=0)


def test_error_in_the_matrix_file_has_a_location(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", str(tmp_path / "good")]) == 0
    capsys.readouterr()
    (tmp_path / "relation.csv").write_text(CSV.replace("0.5,1", "0.5,one"))
    config = str(tmp_path / "good.yaml")
    override = f"weighting={{name: relation, matrix: {tmp_path / 'relation.csv'}}}"
    for verb in ("validate", "train"):
        assert main([verb, config, override]) == 2
        assert "relation.csv:2: R[digit, digit] is 'one'; expected a finite number" in capsys.readouterr().err


def test_unmeasured_relation_is_valid_but_not_buildable(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", str(tmp_path / "good")]) == 0
    override = "weighting={name: relation, from: gradient}"
    assert main(["validate", str(tmp_path / "good.yaml"), override]) == 0
    assert main(["validate", str(tmp_path / "good.yaml"), override.replace("gradient", "gradeint")]) == 2
    assert "weighting.from: expected 'performance', 'gradient'" in capsys.readouterr().err
    experiment = digits(weighting={"name": "relation", "from": "gradient"})
    with pytest.raises(ConfigError, match=r"weighting\.from: 'gradient' has not been measured"):
        build(experiment)
    measured = with_relations(experiment, NUMBERS)
    assert build(measured).experiment.weighting.options == {
        "matrix": NUMBERS, "from": None, "project": None, "negative": "error",
    }  # fmt: skip


def test_matrix_and_measure_exclude_each_other(relation: dict[str, Any]) -> None:
    for more, message in (({"from": "data"}, "got both"), ({"matrix": None}, "got neither")):
        with pytest.raises(ConfigError, match=message):
            build(digits(weighting={**relation, **more}))


def test_other_experiments_are_unchanged() -> None:
    for weighting in ("uniform", {"name": "relation", "matrix": NUMBERS}):
        experiment = digits(weighting=weighting)
        assert self_contained(experiment) is experiment


def test_negative_weight_ends_the_run(tmp_path: Path) -> None:
    opposed = {"name": "relation", "matrix": [[1.0, -1.0], [-1.0, 1.0]]}
    with pytest.raises(MtlError, match=r"the weight of task 'ink' is -.* at step 1: .*weighting\.negative=clamp"):
        Trainer(build(digits(weighting=opposed)), tmp_path / "run").fit()
    Trainer(build(digits(weighting={**opposed, "negative": "clamp"})), tmp_path / "clamped").fit()
    assert ",train,ink,weight,0.0\n" in (tmp_path / "clamped/metrics.csv").read_text()
