"""Tasks that depend on each other in an experiment: errors, baselines, training, evaluation, export and prediction."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

import mtlcli
from mtlcli.cli.app import app
from mtlcli.config import experiment_from_dict, load_experiment
from mtlcli.config.schema import json_schema
from mtlcli.errors import ConfigError
from mtlcli.models.dependent_tasks import AfterHead, Probabilities, Standardize
from mtlcli.studies.compare.baselines import make_baseline
from mtlcli.studies.relate.experiments import make_joint
from mtlcli.training.assembly.build import build, check_experiment
from mtlcli.training.assembly.data_checks import open_datasets

TEXT = """name: linked
datasets: {a: {name: digits, val: 0.2}, b: {name: digits, val: 0.2}}
tasks:
  digit: {dataset: a, target: digit, kind: classification}
  ink: {dataset: a, target: ink, kind: regression, after: digit}
  parity: {dataset: a, target: parity, kind: binary, after: {task: ink, detach: true}}
  even: {dataset: a, target: parity, kind: binary}
  other: {dataset: b, target: digit, kind: classification}
trunk: {name: mlp, hidden: [8], features: 6}
training: {epochs: 1, batch_size: 200, device: cpu, threads: 1}
"""


@pytest.fixture
def linked(tmp_path: Path) -> Path:
    path = tmp_path / "linked.yaml"
    path.write_text(TEXT)
    return path


def test_heads_receive_probabilities_and_standardized_numbers(linked: Path) -> None:
    run = build(load_experiment(linked))
    ink, parity = run.model.heads["ink"], run.model.heads["parity"]
    assert isinstance(ink, AfterHead) and isinstance(parity, AfterHead)
    assert isinstance(ink.convert, Probabilities) and ink.convert.function == "softmax"
    target = run.specs["a"].targets["ink"]
    assert isinstance(parity.convert, Standardize) and parity.convert.mean == target.mean
    x = {"a": torch.rand(3, 1, 8, 8), "b": torch.rand(2, 1, 8, 8)}
    predictions = run.model.eval()(x)
    features = run.model.representations(x, ["digit"])["digit"]
    digit = run.model.heads["digit"](features)
    expected = ink.head(torch.cat([features, digit.softmax(1)], 1))
    torch.testing.assert_close(predictions["ink"], expected)
    number = ((expected - target.mean) / target.std).float()
    torch.testing.assert_close(predictions["parity"], parity.head(torch.cat([features, number], 1)))
    assert list(run.model(x, ["parity"])) == ["parity"]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("tasks.parity.after.task=inc", "tasks.parity.after.task: no task 'inc'. Did you mean 'ink'?"),
        ("tasks.digit.after=other", "tasks.digit.after: task 'other' is on dataset 'b', and this one on 'a'; a "
         "prediction is passed on between tasks on the same dataset only"),
        ("tasks.digit.after=parity", "a task can't depend on itself: digit after parity after ink after digit"),
        ("tasks.even.after=even", "tasks.even.after: a task can't depend on itself: even after even"),
        ("tasks.even.after={task: digit, detatch: true}", "Did you mean 'detach'?"),
        ("tasks.even.after=3", "the name of a task, or a mapping of `task` and `detach`"),
        ("sharing=esmm", "sharing: order: the tasks must be on the same dataset"),
        ("sharing={name: esmm, order: [digit, even]}", "tasks.digit.kind: `sharing: esmm` compares the probabilities "
         "of the tasks in its order (digit, even), which must be of kind `binary`"),
        ("sharing={name: esmm, order: [even, parity]}", "tasks.parity.after: the task already depends on 'even' by "
         "`sharing: esmm`"),
        ("sharing={name: aitm, order: [even]}", "sharing.order: "),
        ("optimizer.groups.digit.lr=0.1", "groups.digit: task 'digit' has no trainable parameters of its own: "
         "its head is shared, because other tasks receive its prediction; use the group 'trunk'"),
        ("regularizers=[expectation_calibrator]", "needs tasks in order, which `sharing: hard` does not have"),
    ],
)  # fmt: skip
def test_errors_name_the_line_and_the_remedy(linked: Path, override: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_experiment(load_experiment(linked, [override]))
    assert message in str(caught.value)


def test_error_in_the_file(linked: Path) -> None:
    linked.write_text(TEXT.replace("after: digit}", "after: digti}"))
    with pytest.raises(ConfigError, match=r"linked.yaml:5:59: tasks.ink.after: no task 'digti'. Did you mean 'digit'"):
        load_experiment(linked)


def test_schema_and_resolved_configuration(linked: Path) -> None:
    experiment = load_experiment(linked)
    resolved = experiment.resolved()["tasks"]
    assert resolved["ink"]["after"] == {"task": "digit", "detach": False}
    assert resolved["digit"]["after"] is None
    assert experiment_from_dict(json.loads(json.dumps(experiment.resolved()))) == experiment
    definitions = json.dumps(json_schema())
    assert '"detach"' in definitions


def test_baselines_have_no_predictions_of_other_tasks(linked: Path) -> None:
    experiment = load_experiment(linked)
    single = make_baseline(experiment, "parity", open_datasets(experiment))
    assert single.tasks["parity"].after is None and list(single.tasks) == ["parity"]
    assert all(task.after is None for task in make_joint(experiment, 1).tasks.values())
    aitm = load_experiment(linked, ["tasks.parity.after=null", "sharing={name: aitm, order: [even, parity]}"])
    assert [term.name for term in aitm.terms] == ["expectation_calibrator"]
    assert make_baseline(aitm, "parity", open_datasets(aitm)).terms == []
    assert load_experiment(linked, ["sharing={name: aitm, order: [even, parity], calibrator: 0}"]).terms == []


@pytest.mark.parametrize(
    "overrides",
    [["weighting=pcgrad"],
     ["tasks.parity.after=null", "sharing={name: aitm, order: [even, parity], tower: [4]}"],
     ["tasks.parity.after=null", "sharing={name: esmm, order: [even, parity]}"]],
    ids=["after", "aitm", "esmm"],
)  # fmt: skip
def test_train_eval_and_predict(linked: Path, tmp_path: Path, overrides: list[str]) -> None:
    folder = tmp_path / "run"
    summary = mtlcli.train(linked, overrides=overrides, run_dir=folder, plots=False)
    assert mtlcli.evaluate(summary.checkpoint, split="val") == summary.metrics["val"]
    if "aitm" in overrides[-1]:
        assert ",train,regularizers.expectation_calibrator,loss," in (folder / "metrics.csv").read_text()
        assert ",val,sharing.parity,transferred," in (folder / "metrics.csv").read_text()
    model = mtlcli.load(folder)
    images = torch.randint(0, 17, (5, 1, 8, 8), dtype=torch.uint8)
    predictions: dict[str, Any] = model.predict({"a": images})
    assert set(predictions) == {"digit", "ink", "parity", "even"}
    if "esmm" in overrides[-1]:
        both = [predictions[task].outputs.sigmoid() for task in ("parity", "even")]
        assert bool((both[0] <= both[1]).all())
    if "aitm" not in overrides[-1]:
        return
    exported = tmp_path / "model.pt2"
    result = CliRunner().invoke(app, ["export", str(folder), "--format", "torch-export", "--out", str(exported)])
    assert result.exit_code == 0, result.output
    outputs = torch.export.load(exported).module()({"a": images.float(), "b": images.float()})
    for task, prediction in predictions.items():
        torch.testing.assert_close(outputs[task], prediction.outputs, rtol=1e-5, atol=1e-6)
