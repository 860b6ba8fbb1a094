"""Plots of a run's history."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mtlcli.training.history import History, plot_history


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """File name → figure, instead of files."""
    figures: dict[str, Any] = {}
    monkeypatch.setattr("mtlcli.training.history.save_figure", lambda figure, path: figures.update({path.name: figure}))
    return figures


def test_sharing_statistics_have_a_column_per_task_and_a_row_per_stage(drawn: dict[str, Any]) -> None:
    history = History()
    for epoch in (1, 2):
        history.add(epoch, epoch, "train", {"digit": {"loss": 1.0, "weight": 1.0}})
        shown = {"sharing.shared": {"one.a": 0.5, "one.b": 0.5 * epoch},
                 "sharing.digit": {"one.a": 1.0, "two.a": 2.0}}  # fmt: skip
        history.add(epoch, epoch, "val", shown)
    plot_history(history, "val", Path())
    figure = drawn["sharing.png"]
    assert [(axes.get_title(), axes.get_visible()) for axes in figure.axes] == [
        ("shared: one", True), ("digit: one", True), ("shared: two", False), ("digit: two", True)
    ]  # fmt: skip
    assert figure.axes[0].get_subplotspec().get_geometry()[:2] == (2, 2)
    lines = {line.get_label(): list(line.get_ydata()) for line in figure.axes[0].get_lines()}
    assert lines == {"a": [0.5, 0.5], "b": [0.5, 1.0]}


def test_each_regularizer_and_the_conflict_have_their_own_plot(drawn: dict[str, Any]) -> None:
    history = History()
    train = {"digit": {"loss": 1.0, "weight": 0.5}, "mean": {"cosine": -0.1, "conflict": 0.25},
             "regularizers.guess#2": {"loss": 2.0, "weight": 1.0, "rank.fc1": 3.0, "rank.fc2": 4.0}}  # fmt: skip
    history.add(1, 6, "train", train)
    history.add(1, 6, "val", {"digit": {"loss": 1.0, "accuracy": 0.5}})
    plot_history(history, "val", Path())
    assert list(drawn) == ["losses.png", "weights.png", "regularizers.guess#2.png", "conflict.png", "metrics.png"]
    titles = {name: [axes.get_title() for axes in figure.axes] for name, figure in drawn.items()}
    assert titles["regularizers.guess#2.png"] == [
        f"regularizers.guess#2: {curve}" for curve in ("loss", "weight", "rank")
    ]
    assert titles["conflict.png"] == ["mean cosine of the tasks' gradients", "share of opposed pairs"]
    lines = {line.get_label(): list(line.get_ydata()) for line in drawn["regularizers.guess#2.png"].axes[2].get_lines()}
    assert lines == {"fc1": [3.0], "fc2": [4.0]}
    assert [line.get_label() for line in drawn["weights.png"].axes[0].get_lines()] == ["digit"]


def test_metrics_of_classes_share_a_panel_and_many_panels_have_several_rows(drawn: dict[str, Any]) -> None:
    history = History()
    names = ["accuracy", "f1", "log_loss", "auroc", "precision[a]", "precision[b]", "recall[a]"]
    history.add(1, 6, "train", {"digit": {"loss": 1.0, "weight": 1.0}})
    history.add(1, 6, "val", {"digit": {"loss": 1.0, **{name: 0.1 * at for at, name in enumerate(names)}}})
    plot_history(history, "val", Path())
    figure = drawn["metrics.png"]
    assert [axes.get_title() for axes in figure.axes if axes.get_visible()] == [
        "accuracy (val)", "f1 (val)", "log_loss (val)", "auroc (val)", "digit: precision (val)", "digit: recall (val)"
    ]  # fmt: skip
    lines = {line.get_label(): list(line.get_ydata()) for line in figure.axes[4].get_lines()}
    assert lines == {"a": [0.4], "b": [0.5]}
    assert figure.axes[0].get_subplotspec().get_geometry()[:2] == (2, 3)
