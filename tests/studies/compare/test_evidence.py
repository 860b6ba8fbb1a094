"""What a comparison claims, and on which seeds and examples it rests; with runs that are pretended."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mtlcli.errors import ConfigError
from mtlcli.studies.compare.compare_study import compare
from mtlcli.studies.compare.execution import StudyRun
from mtlcli.studies.compare.measured import MEASURED
from mtlcli.studies.runs import CurrentData
from mtlcli.training.assembly.data_checks import open_datasets
from tests.oracles import comparison as oracle
from tests.studies.compare.fake_runs import Pretending, Values, loads
from tests.studies.fake_data import made

__all__ = ["made"]

pytestmark = pytest.mark.usefixtures("made")
VARY = ["weighting=uniform,mgda"]
BASE = [0.80, 0.90, 0.85, 0.70]  # by seed
OURS = {"uniform": [0.82, 0.88, 0.90, 0.72], "mgda": [0.90, 0.99, 0.96, 0.79]}


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mtlcli.studies.compare.compare_study.draw_plots", lambda *_: None)


def known(run: StudyRun) -> tuple[Values, Values]:
    value = (BASE if run.method.task else OURS[run.method.label])[run.seed]
    test = dict.fromkeys(run.experiment.tasks, value)
    return test, test


def study(tmp_path: Path, seeds: int, figures: Any = known, **more: Any) -> tuple[dict[str, Any], str]:
    found = compare(loads(), VARY, seeds=seeds, out=tmp_path / "study", train=Pretending(figures), **more)
    return found, (tmp_path / "study/comparison.md").read_text()


def edited(tmp_path: Path, pattern: str, change: Any) -> None:
    """Change a JSON file of some runs; `change` gets the document and returns it, or None to remove the file."""
    for path in (tmp_path / "study/runs").glob(pattern):
        if (document := change(json.loads(path.read_text()))) is None:
            path.unlink()
        else:
            path.write_text(json.dumps(document))


def accuracy(found: dict[str, Any], method: str = "mgda", reference: str = "single-task") -> dict[str, Any]:
    one: dict[str, Any] = found["methods"][method]["against"][reference]["tasks"]["sign"]["accuracy"]
    return one


def test_a_failed_seed_is_dropped_from_both_sides(tmp_path: Path) -> None:
    """Seed 3 is hard: a method that fails there must not gain by it."""

    def failing(run: StudyRun) -> tuple[Values, Values] | str:
        return "out of memory" if (run.method.label, run.seed) == ("mgda", 3) else known(run)

    found, text = study(tmp_path, 4, failing)
    one = accuracy(found)
    ours, base = np.array(OURS["mgda"][:3]), np.array(BASE[:3])
    assert list(one["seeds"]) == ["0", "1", "2"]
    assert (one["method"], one["reference"]) == (pytest.approx(ours.mean()), pytest.approx(base.mean()))
    assert one["mean"] == pytest.approx(100 * (ours - base).mean())
    assert one["p"] == pytest.approx(oracle.paired_p(ours, base), rel=1e-6)
    assert found["methods"]["mgda"]["delta_m"]["flat"]["mean"] == pytest.approx(
        oracle.delta_m(np.repeat(ours.mean(), 7), np.repeat(base.mean(), 7), np.array([True] * 4 + [False] * 3))
    )
    assert accuracy(found, "uniform")["n"] == 4
    assert (
        "Compared with single-task, only the seeds 0, 1, 2 of 0, 1, 2, 3 have a value on both sides for mgda in sign"
    ) in text
    assert "over the seeds that have a value. These differ between cells" in text
    assert "| mgda | 3 of 4: 0, 1, 2 |" in text


def test_a_metric_without_a_value_in_one_seed(tmp_path: Path) -> None:
    def undefined(run: StudyRun) -> tuple[Values, Values]:
        val, test = known(run)
        return val, {**test, "sign": math.nan} if (run.method.label, run.seed) == ("uniform", 1) else test

    found, text = study(tmp_path, 4, undefined)
    assert list(accuracy(found, "uniform")["seeds"]) == ["0", "2", "3"]
    assert list(accuracy(found, "mgda", "uniform")["seeds"]) == ["0", "2", "3"]
    assert accuracy(found, "mgda", "uniform")["reference"] == pytest.approx(np.mean([0.82, 0.90, 0.72]))
    assert list(found["methods"]["uniform"]["delta_m"]["primary"]["seeds"]) == ["0", "2", "3"]
    assert "over all 4 seeds" not in text
    low, high = oracle.interval(np.array([0.82, 0.90, 0.72]))
    assert f"| uniform | 4 | 0.8133 ± {(high - low) / 2:.4f} (n 3) |" in text
    assert found["methods"]["mgda"]["mean_rank"] == 1 + 3 / 7  # of seeds 0, 2, 3; four errors of one task are worse


@pytest.mark.parametrize("seeds", [1, 2])
def test_fewer_than_three_seeds_have_no_interval_and_no_p(tmp_path: Path, seeds: int) -> None:
    found, text = study(tmp_path, seeds)
    one = accuracy(found)
    assert one["n"] == seeds
    assert all(math.isnan(one[key]) for key in ("low", "high", "p", "p_holm"))
    assert math.isnan(found["methods"]["mgda"]["delta_m"]["primary"]["low"])
    assert math.isnan(found["methods"]["mgda"]["test"]["p"])
    assert "significantly" not in text
    assert text.count("no tests, since fewer than 3 seeds have a value on both sides") == 2


def test_the_reference_can_be_named(tmp_path: Path) -> None:
    found, text = study(tmp_path, 3, reference="mgda")
    assert found["reference"] == "mgda"
    assert list(found["methods"]["uniform"]["against"]) == ["single-task", "mgda"]
    assert "## Difference from mgda" in text
    with pytest.raises(ConfigError, match=r"no method is called 'mgad'\. Did you mean 'mgda'"):
        study(tmp_path, 3, reference="mgad")


def test_significance_needs_more_than_the_seeds(tmp_path: Path) -> None:
    """With the scatter of few test examples, a difference that all seeds share is no evidence."""
    found, text = study(tmp_path, 3)
    assert "significantly better: mgda in sign (+10.00 points" in text

    def noisy(document: dict[str, Any]) -> dict[str, Any]:
        document["resampled"]["values"] = {
            task: {name: [values[0] - 0.2, values[1] + 0.2] for name, values in metrics.items()}
            for task, metrics in document["resampled"]["values"].items()
        }
        return document

    edited(tmp_path, f"mgda-*/{MEASURED}", noisy)
    found, text = study(tmp_path, 3)
    assert accuracy(found)["examples"]["se"] == pytest.approx(100 * np.std([-0.2, 0.2], ddof=1))
    assert "significantly better" not in text.partition("##")[0].partition("Compared with uniform")[0]
    assert "significant over the seeds, but within the uncertainty of the test examples: mgda in sign" in text


def test_warnings_about_the_runs(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    study(tmp_path, 3)
    caplog.clear()

    def trained_longer(document: dict[str, Any]) -> dict[str, Any]:
        return {**document, "epochs": 5, "examples": {"val": {}, "test": {"sign": 60, "sum": 50}}}

    edited(tmp_path, "*/summary.json", trained_longer)
    found, _ = study(tmp_path, 3)
    assert found["warnings"] == []
    edited(tmp_path, "mgda-0-*/environment.json", lambda one: {**one, "mtl": "1.2.4"})
    edited(tmp_path, "mgda-1-*/summary.json", lambda one: {**one, "examples": {"val": {}, "test": {"sign": 61}}})
    edited(tmp_path, "single-task_sum-*/summary.json", lambda one: {**one, "epochs": 2})
    found, text = study(tmp_path, 3)
    undertrained, versions, examples = found["warnings"]
    assert "in most runs of single-task sum (3 of 3). They are probably undertrained" in undertrained
    assert "mtl 1.2.3 with torch 4.5.6 (11 runs), mtl 1.2.4 with torch 4.5.6 (1 runs)" in versions
    assert "evaluated on different numbers of examples: sign (60 to 61)" in examples
    assert all(warning in caplog.text and warning in text for warning in found["warnings"])


def test_a_folder_of_an_earlier_version_is_used_again(tmp_path: Path) -> None:
    """Without sizes, resamples and memory the rest is as it was, and what is unknown is empty."""
    study(tmp_path, 3)
    edited(tmp_path, "*/summary.json", lambda one: {key: one[key] for key in one if key != "examples"})
    edited(tmp_path, "*/environment.json", lambda one: None)
    edited(tmp_path, f"*/{MEASURED}", lambda one: {k: one[k] for k in ("train", "flops", "checkpoint_bytes")})
    training = Pretending(known)
    found = compare(loads(), VARY, seeds=3, out=tmp_path / "study", train=training)
    assert training.trained == []
    text = (tmp_path / "study/comparison.md").read_text()
    assert "Examples in `test`: unknown" in text
    assert accuracy(found)["mean"] == pytest.approx(10)
    assert math.isnan(accuracy(found)["examples"]["se"])
    assert math.isnan(found["methods"]["mgda"]["cost"]["peak_memory_bytes"]["ratio"])
    assert "| mgda | +10.00 ± 2.48 points | – |" in text


def test_a_folder_whose_identity_has_changed_is_found_by_its_configuration(tmp_path: Path) -> None:
    """As after an update that adds an option: the resolved experiment, and so its hash, is another one."""
    study(tmp_path, 3)
    for number, folder in enumerate(sorted((tmp_path / "study/runs").iterdir())):
        config = folder / "config.yaml"
        config.write_text(config.read_text().replace("  clip_norm: null\n", ""))
        folder.rename(folder.with_name(f"renamed-{number}"))
    (tmp_path / "study/runs/other").mkdir()
    (tmp_path / "study/runs/other/config.yaml").write_text("option: that is no more\n")
    training = Pretending(known)
    compare(loads(), VARY, seeds=3, out=tmp_path / "study", train=training)
    assert training.trained == []
    compare(loads(), VARY, seeds=4, out=tmp_path / "study", train=training)
    assert training.trained == [
        "uniform, seed 3",
        "mgda, seed 3",
        "single-task sign, seed 3",
        "single-task sum, seed 3",
    ]


def test_an_error_near_zero_does_not_drown_the_rest(tmp_path: Path) -> None:
    """The baseline of `sum` is all but perfect; four times its mse is four times next to nothing."""

    def nearly(document: dict[str, Any], mse: float) -> dict[str, Any]:
        split = document["metrics"]["test"]
        split["sum"] = {"loss": 1.0, "r2": 1 - mse / 100, "mse": mse, "rmse": mse**0.5, "mae": mse**0.5}
        return document

    study(tmp_path, 3)
    edited(tmp_path, "single-task_sum-*/summary.json", lambda one: nearly(one, 1e-4))
    edited(tmp_path, "mgda-*/summary.json", lambda one: nearly(one, 4e-4))
    found, _ = study(tmp_path, 3)
    one = found["methods"]["mgda"]["against"]["single-task"]["tasks"]["sum"]
    assert one["r2"]["mean"] == pytest.approx(-3e-4, rel=1e-6)  # points
    assert one["mse"]["mean"] == pytest.approx(100 * 3e-4 / 0.01)  # of 1 % squared of the variance of 100
    assert found["methods"]["mgda"]["delta_m"]["primary"]["mean"] == pytest.approx(-5, abs=1e-3)
    assert found["methods"]["mgda"]["delta_m"]["flat"]["mean"] > 50


def test_runs_on_data_that_has_changed_are_not_used_again(tmp_path: Path) -> None:
    """The runs record what the data is like; a study compares that with what it is now."""
    now = CurrentData()
    study(tmp_path, 1)
    assert now.changes(loads()([]), {}) == []  # runs of earlier versions record nothing
    recorded = open_datasets(loads()([]))["made"][0].recorded().short()
    edited(tmp_path, "*/summary.json", lambda one: {**one, "data": {"made": recorded}})
    training = Pretending(known)
    compare(loads(), VARY, seeds=1, out=tmp_path / "study", train=training)
    assert training.trained == []
    fewer = {**recorded, "train": {**recorded["train"], "n": 190}}
    edited(tmp_path, "mgda-*/summary.json", lambda one: {**one, "data": {"made": fewer}})
    with pytest.raises(ConfigError) as caught:
        compare(loads(), VARY, seeds=1, out=tmp_path / "study", train=training)
    assert "was trained on data that has changed since. Use another --out, or restore the data" in str(caught.value)
    assert "datasets.made: train: 190 examples then, 200 now" in str(caught.value)
    other = {**recorded, "test": {**recorded["test"], "content": "0" * 16}}
    assert now.changes(loads()([]), {"made": other}) == ["datasets.made: test: different examples, of the same number"]
    turned = {"train": {**recorded["train"], "order": "0" * 16}, "val": recorded["train"]}
    assert now.changes(loads()([]), {"made": turned}) == [
        "datasets.made: train: the same examples, in a different order",
        "datasets.made: val: the split no longer exists",
        "datasets.made: test: the split is new",
    ]
