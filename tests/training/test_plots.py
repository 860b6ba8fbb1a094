"""What is drawn of a run's history."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mtlcli.training.history import History
from mtlcli.training.plots import plot_history


def test_a_sharing_shows_tasks_side_by_side_and_stages_below_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: dict[str, Any] = {}
    monkeypatch.setattr("mtlcli.training.plots._save", lambda figure, path: drawn.update({path.name: figure}))
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
