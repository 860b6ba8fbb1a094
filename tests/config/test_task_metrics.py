"""The keys `metrics` and `primary` of a task, and metrics of it that other keys name."""

from pathlib import Path

import pytest

from mtlcli.errors import ConfigError
from tests.config.experiments import GOOD, load

TASK = "digit: {dataset: images, target: digit, kind: classification}"


def problems(folder: Path, *overrides: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(folder, GOOD, *overrides)
    return [f"{problem.path}: {problem.message}" for problem in caught.value.problems]


def test_chosen_metrics_can_be_monitored(tmp_path: Path) -> None:
    for metric in ("log_loss", "precision[3]", "recall[7]", "primary", "loss"):
        experiment = load(tmp_path, GOOD, "tasks.digit.metrics=[log_loss, 'precision[3]', recall_per_class]",
                          f"evaluation.monitor={{task: digit, metric: '{metric}'}}")  # fmt: skip
        assert experiment.tasks["digit"].metrics == ["log_loss", "precision[3]", "recall_per_class"]
        assert experiment.resolved()["tasks"]["digit"]["metrics"] == experiment.tasks["digit"].metrics


def test_default_is_the_set_of_the_kind(tmp_path: Path) -> None:
    task = load(tmp_path).tasks["digit"]
    assert (task.metrics, task.primary) == (None, None)


def test_all_problems_have_their_location(tmp_path: Path) -> None:
    text = GOOD.replace(TASK, TASK[:-1] + ", metrics: [acuracy, f1, f1], primary: recall}")
    text = text.replace("weight: 0.5", "metrics: [mape, f1]\n    primary: r2")
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text)
    found = [
        (problem.mark.line if problem.mark else 0, problem.path, problem.message[:60])
        for problem in caught.value.problems
    ]
    assert found == [
        (5, "tasks.digit.metrics.0", "the kind 'classification' has no metric 'acuracy'. Did you m"),
        (5, "tasks.digit.metrics.2", "'f1' is chosen twice"),
        (5, "tasks.digit.primary", "the task doesn't report the metric 'recall'. Add it to the t"),
        (11, "tasks.ink.metrics.1", "the kind 'regression' has no metric 'f1'. Choose from: r2, m"),
        (12, "tasks.ink.primary", "the task doesn't report the metric 'r2'. Add it to the task'"),
    ]


@pytest.mark.parametrize(("override", "expected"), [
    ("tasks.digit.metrics=[]", "tasks.digit.metrics: expected"),
    ("tasks.digit.metrics=accuracy", "tasks.digit.metrics: expected"),
    ("tasks.digit.primary=balanced_acuracy",
     "tasks.digit.primary: the task doesn't report the metric 'balanced_acuracy'. It reports: loss, accuracy, f1"),
    ("tasks.digit={dataset: images, kind: {name: binary, primary: f1}, target: parity, metrics: [auroc]}",
     "tasks.digit.kind.primary: the task doesn't report the metric 'f1'. Add it to the task's `metrics`. It reports: "
     "loss, auroc"),
])  # fmt: skip
def test_wrong_metrics(tmp_path: Path, override: str, expected: str) -> None:
    (message,) = problems(tmp_path, override)
    assert message.startswith(expected)


def test_monitored_metric_has_to_be_reported(tmp_path: Path) -> None:
    chosen = "tasks.digit.metrics=[log_loss, recall_per_class]"
    (message,) = problems(tmp_path, chosen, "evaluation.monitor={task: digit, metric: accuracy}")
    assert message.startswith(
        "evaluation.monitor.metric: no metric 'accuracy' of task 'digit'. Choose from: primary, loss, log_loss, "
        "recall[CLASS]"
    )
    (message,) = problems(tmp_path, chosen, "evaluation.monitor={task: mean, metric: log_loss}")
    assert message.startswith(
        "evaluation.monitor.metric: no metric 'log_loss' that all tasks have. Choose from: primary, loss"
    )
