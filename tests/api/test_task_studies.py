"""`compare` and `relate`: as on the command line, from a script without a guard too."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mtlcli
from mtlcli import Comparison, ConfigError, TaskRelations
from mtlcli.api.task_studies import _axes
from tests.api.experiments import DIGITS

TWO: dict[str, Any] = {
    **DIGITS,
    "name": "two",
    "tasks": {task: DIGITS["tasks"][task] for task in ("digit", "ink")},
    "training": {**DIGITS["training"], "epochs": 1},
}
MODULE = """
from mtlcli.registry import weightings
from mtlcli.weighting.methods.uniform import Uniform

@weightings.register("own")
class Own(Uniform):
    '''Weights of one's own.'''
"""
SCRIPT = f"""
import mtlcli, own_weighting
from mtlcli.registry import weightings
from mtlcli.weighting.methods.uniform import Uniform

@weightings.register("here")
class Here(Uniform):
    '''Weights of the script's own.'''

config = {TWO!r}
try:
    mtlcli.compare(config, vary={{"weighting": ["here"]}}, seeds=1, out="here")
except mtlcli.ConfigError as error:
    print(error)
comparison = mtlcli.compare(config, vary={{"weighting": ["own", {{"name": "upgrad", "every": 2}}]}}, seeds=1, out="out")
print(comparison.failed, comparison.reference, sorted(comparison.methods))
"""


def test_a_script_without_a_guard_compares_methods_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "own_weighting.py").write_text(MODULE)
    (tmp_path / "script.py").write_text(SCRIPT)
    command = [sys.executable, "script.py"]
    finished = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    refusal, result = finished.stdout.strip().splitlines()
    assert refusal.startswith("weighting here is defined in the main script") and "move it to a module" in refusal
    assert result == "[] own ['own', 'upgrad every=2']"
    document = json.loads((tmp_path / "out/comparison.json").read_text())
    comparison = Comparison(document)
    assert comparison.out == Path("out") and comparison.warnings == document["warnings"]
    assert comparison.findings == document["findings"]
    means = comparison.means()
    assert list(means) == ["single-task", "own", "upgrad every=2"]
    assert means["own"]["digit"]["accuracy"] == document["methods"]["own"]["metrics"]["digit"]["accuracy"]["mean"]


def test_tasks_are_related_by_their_data(tmp_path: Path) -> None:
    relations = mtlcli.relate(TWO, measure="data", out=tmp_path / "study")
    assert isinstance(relations, TaskRelations) and relations.tasks == ["digit", "ink"]
    matrix = relations.matrix()
    assert matrix.shape == (2, 2) and np.array_equal(matrix, matrix.T) and matrix[0, 0] == 1
    assert relations.groups("data") == [["digit"], ["ink"]] and relations.out == tmp_path / "study"
    assert json.loads((tmp_path / "study/relate.json").read_text())["tasks"] == relations.tasks
    with pytest.raises(KeyError, match="'gradient' was not computed; these were: data"):
        relations.matrix("gradient")


def test_values_are_written_as_on_the_command_line() -> None:
    given = {"weighting": ["uniform", {"name": "cagrad", "c": 0.2}], "trunk.frozen": [True, None], "name": ["a,b", 3]}
    assert _axes(given, "vary") == [
        'weighting=uniform,{"name": "cagrad", "c": 0.2}', "trunk.frozen=true,null", 'name="a,b",3'
    ]  # fmt: skip
    assert _axes(["weighting=uniform,mgda"], "vary") == _axes("weighting=uniform,mgda", "vary")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mtlcli.compare(TWO, vary={"weighting": "uniform"}), "vary: expected a list of values of 'weighting'"),
        (lambda: mtlcli.compare(TWO, vary={"weighting": ["mgd"]}), "unknown weighting 'mgd'"),
        (lambda: mtlcli.compare(TWO, vary={}, seeds=0), "seeds: expected an integer > 0, got 0"),
        (lambda: mtlcli.relate(TWO, measure="date"), "no measure 'date'"),
        (lambda: mtlcli.relate(TWO, epochs=0), "epochs: expected an integer > 0, got 0"),
        (lambda: mtlcli.relate({**TWO, "datasets": {"digits": {"name": "in_memory"}}}), "is passed from Python and"),
    ],
)
def test_a_wrong_argument_is_refused_before_anything_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: Any, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=message):
        call()
    assert not list(tmp_path.iterdir())
