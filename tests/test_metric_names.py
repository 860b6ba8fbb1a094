"""Names of metrics: chosen ones, those of single classes, and the primary one."""

from __future__ import annotations

import pytest

from mtlcli.metric_names import (
    check_names,
    class_in,
    family_of,
    has_metric,
    is_bounded,
    metric_choices,
    metric_direction,
    metric_directions,
    primary_metric,
)
from mtlcli.registry import kinds

CLASSIFICATION = kinds["classification"].target
CHOSEN = ["log_loss", "accuracy", "recall_per_class", "precision[b]"]


def test_name_of_a_class() -> None:
    assert class_in("precision[a b]") == "a b" and class_in("precision[a[0]]") == "a[0]"
    assert class_in("precision") is None and class_in("precision_per_class") is None
    names = ["precision", "precision_per_class", "pinball_per_quantile"]
    assert family_of("precision[a]", names) == "precision_per_class"
    assert family_of("pinball[0.1]", names) == "pinball_per_quantile"
    assert family_of("recall[a]", names) is None and family_of("precision", names) is None


def test_chosen_metrics_replace_those_of_the_kind() -> None:
    assert metric_directions(CLASSIFICATION, None) == {"loss": "min", "accuracy": "max", "f1": "max"}
    assert metric_directions(CLASSIFICATION, CHOSEN, ["a", "b"]) == {
        "loss": "min", "log_loss": "min", "accuracy": "max", "recall[a]": "max", "recall[b]": "max",
        "precision[b]": "max",
    }  # fmt: skip
    with pytest.raises(ValueError, match=r"no class 'bb'. Did you mean 'b'\? Its classes: a, b"):
        metric_directions(CLASSIFICATION, ["precision[bb]"], ["a", "b"])


def test_reported_metrics_are_known_without_the_classes() -> None:
    names = ["loss", "log_loss", "recall[a]", "precision[b]", "f1", "recall_per_class", "precision[a]", "recall"]
    reported = {name: has_metric(name, CLASSIFICATION, CHOSEN) for name in names}
    assert [name for name, has in reported.items() if has] == ["loss", "log_loss", "recall[a]", "precision[b]"]
    assert metric_choices(CLASSIFICATION, CHOSEN) == ["loss", "log_loss", "accuracy", "recall[CLASS]", "precision[b]"]
    assert has_metric("f1", CLASSIFICATION, None) and not has_metric("recall", CLASSIFICATION, None)


@pytest.mark.parametrize(("names", "problem"), [
    (["acuracy"], "the kind 'classification' has no metric 'acuracy'. Did you mean 'accuracy'? Choose from: accuracy"),
    (["accuracy", "accuracy"], "'accuracy' is chosen twice"),
    (["loss"], "the loss is always reported; leave it out of `metrics`"),
    (["log_loss[a]"], "the kind 'classification' has no metric 'log_loss' with a value for each "
                      "class; those that have one: precision, recall, f1"),
    (["r2"], "the kind 'classification' has no metric 'r2'."),
])  # fmt: skip
def test_wrong_names(names: list[str], problem: str) -> None:
    (message,) = check_names(names, "classification", CLASSIFICATION).values()
    assert message.startswith(problem)


def test_valid_names() -> None:
    assert check_names(CHOSEN, "classification", CLASSIFICATION) == {}
    assert check_names(["pinball[0.1]", "d2"], "quantile", kinds["quantile"].target) == {}


def test_directions_and_bounds() -> None:
    assert metric_direction("precision[a]", CLASSIFICATION) == "max"
    assert metric_direction("loss", CLASSIFICATION) == metric_direction("log_loss", CLASSIFICATION) == "min"
    assert is_bounded("precision[a]", CLASSIFICATION) and is_bounded("balanced_accuracy", CLASSIFICATION)
    assert not is_bounded("log_loss", CLASSIFICATION) and not is_bounded("calibration_error", CLASSIFICATION)


@pytest.mark.parametrize(("options", "chosen", "named", "primary"), [
    ({}, None, None, "accuracy"),
    ({}, ["f1", "accuracy"], None, "accuracy"),
    ({}, ["recall_per_class", "log_loss", "f1"], None, "log_loss"),
    ({}, ["log_loss", "accuracy"], "log_loss", "log_loss"),
    ({"primary": "f1"}, None, None, "f1"),
    ({"primary": "f1"}, ["log_loss", "f1"], None, "f1"),
    ({"primary": "f1"}, ["log_loss"], None, "log_loss"),
])  # fmt: skip
def test_primary_metric(options: dict[str, str], chosen: list[str] | None, named: str | None, primary: str) -> None:
    assert primary_metric(CLASSIFICATION, options, chosen, named) == primary
