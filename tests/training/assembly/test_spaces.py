"""Sample spaces of tasks (`where`)."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, r2_score

from mtlcli.config import Experiment, experiment_from_dict
from mtlcli.errors import ConfigError
from mtlcli.specs import IGNORE_INDEX, DatasetSpec, TargetSpec
from mtlcli.studies.runs import keep_task
from mtlcli.training.assembly.build import build, rebuild
from mtlcli.training.assembly.spaces import resolve_space, restore_statistics
from mtlcli.training.checkpoint.file import load_checkpoint
from mtlcli.training.evaluate import measure
from mtlcli.training.trainer import Trainer
from tests.training.experiments import digits, training

NAN = float("nan")
TARGETS = {
    "make": TargetSpec("classes", 3, ("ford", "fiat", "seat"), missing=True),
    "sold": TargetSpec("binary", missing=True),
    "price": TargetSpec("real", missing=True),
    "tags": TargetSpec("multilabel", 2, ("new", "red"), missing=True),
}
SPEC = DatasetSpec((2,), TARGETS, None, ("train",), (0.0,), (1.0,), {})
LABELS = {
    "make": torch.tensor([0, 1, 2, 1, IGNORE_INDEX]),
    "sold": torch.tensor([1.0, 0.0, NAN, 1.0, 1.0]),
    "price": torch.tensor([0.1, 2.0, 3.0, NAN, 5.0]),
    "tags": torch.tensor([[1.0, 0.0], [0.0, 1.0], [NAN, 1.0], [0.0, 0.0], [1.0, NAN]]),
}


def cars(**wheres: dict[str, Any]) -> Experiment:
    """Tasks named like the targets, with these sample spaces."""
    kinds = {"make": "classification", "sold": "binary", "price": "regression", "tags": "multilabel"}
    tasks = {name: {"dataset": "cars", "kind": kind} for name, kind in kinds.items()}
    for name, where in wheres.items():
        tasks[name]["where"] = where  # type: ignore[assignment]
    return experiment_from_dict({"name": "cars", "datasets": {"cars": "digits"}, "tasks": tasks, "trunk": "mlp"})


def inside(task: str, experiment: Experiment) -> list[int]:
    """Return the rows in the sample space of a task, of those that are labelled."""
    labels = resolve_space(experiment, task, SPEC).restrict(LABELS[task], LABELS)
    kept = labels.isnan().logical_not() if labels.is_floating_point() else labels != IGNORE_INDEX
    kept = kept if kept.ndim == 1 else kept.any(1)
    changed = labels[kept] == LABELS[task][kept]
    assert bool((changed | LABELS[task][kept].isnan()).all())
    return kept.nonzero().flatten().tolist()


@pytest.mark.parametrize(
    ("task", "where", "rows"),
    [
        ("price", {"task": "sold", "equals": 1}, [0, 4]),
        ("price", {"task": "sold", "equals": False}, [1]),
        ("price", {"task": "make", "equals": "fiat"}, [1]),
        ("price", {"target": "make", "equals": ["ford", "seat"]}, [0, 2]),
        ("make", {"task": "price", "equals": [0.1, 3]}, [0, 2]),  # 0.1 as float32 too
        ("sold", {"task": "tags", "equals": "new"}, [0, 4]),
        ("tags", {"task": "make", "equals": "seat"}, [2]),
        ("tags", {"target": "tags", "equals": ["new", "red"]}, [0, 1, 2, 4]),
    ],
)
def test_labels_outside_are_missing(task: str, where: dict[str, Any], rows: list[int]) -> None:
    assert inside(task, cars(**{task: where})) == rows


def test_the_space_of_the_other_task_counts_too() -> None:
    experiment = cars(sold={"task": "make", "equals": "ford"}, price={"task": "sold", "equals": 1})
    assert inside("price", experiment) == [0]
    assert str(resolve_space(experiment, "price", SPEC)) == "sold = 1 and make = ford"


def test_all_conditions_must_hold() -> None:
    also = [{"target": "make", "equals": ["ford", "fiat"]}, {"target": "tags", "equals": "new"}]
    assert inside("price", cars(price={"target": "sold", "equals": 1, "also": also})) == [0]
    experiment = cars(price={"target": "sold", "equals": 1, "also": [{"target": "make", "equals": "ford"}]})
    assert experiment_from_dict(experiment.resolved()) == experiment


def test_a_single_task_keeps_its_space() -> None:
    """The experiment of a baseline, which has no other task, also after it was written and read."""
    experiment = cars(sold={"task": "make", "equals": "ford"}, price={"task": "sold", "equals": 1})
    single = experiment_from_dict(keep_task(experiment, "price").resolved())
    assert list(single.tasks) == ["price"]
    assert inside("price", single) == [0]
    assert keep_task(single, "price") == single
    assert keep_task(experiment, "make").tasks["make"] == experiment.tasks["make"]


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ({"task": "sold", "equals": 2}, "`equals`: the target 'sold' has no class '2'. Its classes: 0, 1"),
        ({"task": "make", "equals": "fort"}, "the target 'make' has no class 'fort'. Did you mean 'ford'?"),
        ({"target": "solt", "equals": 1}, "has no target 'solt'. Did you mean 'sold'?"),
    ],
)
def test_unknown_labels_and_targets(where: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        resolve_space(cars(price=where), "price", SPEC)


def test_a_number_is_needed_for_a_real_target() -> None:
    with pytest.raises(ValueError, match="`equals`: the target 'price' has numbers, and 'cheap' is not a number"):
        resolve_space(cars(sold={"task": "price", "equals": "cheap"}), "sold", SPEC)


@pytest.mark.parametrize(
    ("wheres", "path", "message"),
    [
        ({"price": {"equals": 1}}, "tasks.price.where", "name the `task` or the `target`"),
        ({"price": {"task": "sole", "equals": 1}}, "tasks.price.where.task", "no task 'sole'. Did you mean 'sold'?"),
        ({"price": {"task": "price", "equals": 1}}, "tasks.price.where.task", "can't depend on itself"),
        ({"price": {"task": "sold", "target": "sold", "equals": 1}}, "tasks.price.where.target", "which has its own"),
        (
            {"price": {"task": "sold", "equals": 1}, "sold": {"task": "price", "equals": 1}},
            "tasks.sold.where.task",
            "can't depend on 'price', which depends on this task",
        ),
    ],
)
def test_inconsistent_spaces(wheres: dict[str, Any], path: str, message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        cars(**wheres)
    assert any(problem.path == path and message in problem.message for problem in raised.value.problems)


def test_a_task_on_another_dataset() -> None:
    tasks = {
        "a": {"dataset": "x", "kind": "classification", "target": "digit"},
        "b": {"dataset": "y", "kind": "regression", "target": "ink", "where": {"task": "a", "equals": 1}},
    }
    datasets = {"x": "digits", "y": "digits"}
    with pytest.raises(ConfigError, match="the task 'a' is on dataset 'x', and this one on 'y'"):
        experiment_from_dict({"name": "n", "datasets": datasets, "tasks": tasks, "trunk": "mlp"})


INK = {"dataset": "digits", "target": "ink", "kind": "regression", "where": {"task": "digit", "equals": [0, 1, 8]}}
PARITY = {"dataset": "digits", "target": "parity", "kind": "binary", "class_weights": "balanced", "where": INK["where"]}


def test_a_run_with_a_sample_space(tmp_path: Path) -> None:
    """Metrics, counts, statistics of the target and class weights are those of the examples in the space."""
    digit = {"dataset": "digits", "target": "digit", "kind": "classification"}
    experiment = digits(tasks={"digit": digit, "ink": INK, "parity": PARITY}, training=training(epochs=1))
    run = build(experiment)
    summary = Trainer(run, tmp_path / "run", plots=False).fit()
    train = run.examples("train")["digits"]
    rows = torch.isin(train.labels("digit"), torch.tensor([0, 1, 8]))
    ink, parity = train.labels("ink")[rows].double(), train.labels("parity")[rows]
    target = run.kinds["ink"].target
    assert (target.mean, target.std) == pytest.approx((ink.mean().item(), ink.std(correction=0).item()), rel=1e-12)
    shares = [(parity == value).double().mean().item() for value in (0, 1)]
    assert run.class_weights["parity"].tolist() == pytest.approx([1 / (2 * share) for share in shares])

    payload = load_checkpoint(tmp_path / "run/checkpoints/best.pt")
    again = rebuild(experiment, payload)
    assert (again.kinds["ink"].target.mean, again.kinds["ink"].target.std) == (target.mean, target.std)
    collected: dict[str, list[tuple[torch.Tensor, torch.Tensor]]] = {}
    evaluation = measure(again, "test", receive=lambda task, p, y, w: collected.setdefault(task, []).append((p, y)))
    assert json.dumps(evaluation.metrics) == json.dumps(summary.metrics["test"])

    test = run.examples("test")["digits"]
    rows = torch.isin(test.labels("digit"), torch.tensor([0, 1, 8]))
    assert evaluation.examples == {"digit": len(test), "ink": int(rows.sum()), "parity": int(rows.sum())}
    for task, score in (("ink", r2_score), ("parity", lambda y, p: accuracy_score(y, p > 0))):
        prediction = torch.cat([p for p, _ in collected[task]])[:, 0][rows].double()
        name = "r2" if task == "ink" else "accuracy"
        assert evaluation.metrics[task][name] == pytest.approx(score(test.labels(task)[rows], prediction), rel=1e-9)


def test_a_space_equals_blank_labels(tmp_path: Path) -> None:
    """The run of a table in which the labels outside the space are blank has the same model, up to rounding."""
    rng = np.random.default_rng(0)
    x, sold = rng.normal(size=(80, 2)).round(3), rng.integers(0, 2, 80)
    sold_text = [str(value) if i % 9 else "" for i, value in enumerate(sold)]
    split = ["test" if i % 5 == 0 else "val" if i % 5 == 1 else "train" for i in range(80)]
    prices = (2 * x[:, 0] + 3).round(3)
    experiments = []
    for name, known in (("all", [True] * 80), ("blank", [text == "1" for text in sold_text])):
        lines = [f"{a},{b},{s},{p if k else ''},{split_}" for (a, b), s, p, k, split_ in
                 zip(x, sold_text, prices, known, split, strict=True)]  # fmt: skip
        (tmp_path / f"{name}.csv").write_text("\n".join(["a,b,sold,price,split", *lines]))
        where = {"where": {"task": "sold", "equals": 1}} if name == "all" else {}
        table = {"name": "csv", "path": str(tmp_path / f"{name}.csv"), "split_column": "split",
                 "targets": {"sold": "binary", "price": "real"}}  # fmt: skip
        tasks = {"sold": {"dataset": "t", "kind": "binary"}, "price": {"dataset": "t", "kind": "regression", **where}}
        experiments.append(experiment_from_dict(
            {"name": name, "datasets": {"t": table}, "tasks": tasks, "trunk": {"name": "mlp", "hidden": [8]},
             "training": training(batch_size=16), "weighting": "pcgrad"}
        ))  # fmt: skip
    summaries = [Trainer(build(e), tmp_path / e.name, plots=False).fit() for e in experiments]
    assert summaries[0]["examples"] == summaries[1]["examples"]
    for split_name in ("val", "test"):
        for task in ("sold", "price"):
            first, second = (summary.metrics[split_name][task] for summary in summaries)
            assert first == pytest.approx(second, rel=1e-4)


def test_a_space_without_training_examples(tmp_path: Path) -> None:
    lines = [f"{i},{i},0,{i}" for i in range(20)]
    (tmp_path / "t.csv").write_text("\n".join(["a,b,sold,price", *lines, "20,20,1,"]))
    table = {"name": "csv", "path": str(tmp_path / "t.csv"), "targets": {"sold": "binary", "price": "real"}}
    tasks = {"price": {"dataset": "t", "kind": "regression", "where": {"target": "sold", "equals": 1}}}
    plain = {"name": "t", "datasets": {"t": table}, "tasks": tasks, "trunk": "mlp"}
    with pytest.raises(ConfigError, match="no labelled training example is in this sample space") as raised:
        build(experiment_from_dict(plain))
    assert raised.value.problems[0].path == "tasks.price.where"
    tasks = {"sold": {"dataset": "t", "kind": "binary", "where": {"target": "price", "equals": 77}}}
    with pytest.raises(ConfigError, match="no labelled training example is in this sample space"):
        Trainer(build(experiment_from_dict({**plain, "tasks": tasks})), tmp_path / "run")


@pytest.mark.parametrize("saved", [[1.0], {"t": 1.0}, {"t": [1.0]}, {"t": [1.0, -1.0]}, {"t": [NAN, 1.0]}])
def test_damaged_statistics_in_a_checkpoint(saved: Any) -> None:
    with pytest.raises(ConfigError, match="the statistics of the sample spaces in the checkpoint are invalid"):
        restore_statistics(saved)
