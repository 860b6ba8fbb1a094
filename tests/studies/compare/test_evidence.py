"""Evidence of a comparison: seeds, significance, warnings and reused runs, with fake training."""

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
from tests.studies.compare.fake_runs import FakeTraining, Values, make_load
from tests.studies.fake_data import fake_dataset

__all__ = ["fake_dataset"]

pytestmark = pytest.mark.usefixtures("fake_dataset")
VARY = ["weighting=uniform,mgda"]
BASE = [0.80, 0.90, 0.85, 0.70]  # by seed
METHODS = {"uniform": [0.82, 0.88, 0.90, 0.72], "mgda": [0.90, 0.99, 0.96, 0.79]}


@pytest.fixture(autouse=True)
def no_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mtlcli.studies.compare.compare_study.draw_plots", lambda *_: None)


def fake_metrics(run: StudyRun) -> tuple[Values, Values]:
    value = (BASE if run.method.task else METHODS[run.method.label])[run.seed]
    test = dict.fromkeys(run.experiment.tasks, value)
    return test, test


def study(tmp_path: Path, seeds: int, metrics: Any = fake_metrics, **more: Any) -> tuple[dict[str, Any], str]:
    result = compare(make_load(), VARY, seeds=seeds, out=tmp_path / "study", train=FakeTraining(metrics), **more)
    return result, (tmp_path / "study/comparison.md").read_text()


def edit_json(tmp_path: Path, pattern: str, change: Any) -> None:
    """Replace the content of JSON files by `change(content)`, or remove them if it returns None."""
    for path in (tmp_path / "study/runs").glob(pattern):
        if (document := change(json.loads(path.read_text()))) is None:
            path.unlink()
        else:
            path.write_text(json.dumps(document))


def accuracy(result: dict[str, Any], method: str = "mgda", reference: str = "single-task") -> dict[str, Any]:
    difference: dict[str, Any] = result["methods"][method]["against"][reference]["tasks"]["sign"]["accuracy"]
    return difference


def test_failed_seed_is_excluded_from_both_sides(tmp_path: Path) -> None:
    """Seed 3 is difficult: a method that fails with it must not gain from that."""

    def failing(run: StudyRun) -> tuple[Values, Values] | str:
        return "out of memory" if (run.method.label, run.seed) == ("mgda", 3) else fake_metrics(run)

    result, text = study(tmp_path, 4, failing)
    difference = accuracy(result)
    ours, base = np.array(METHODS["mgda"][:3]), np.array(BASE[:3])
    assert list(difference["seeds"]) == ["0", "1", "2"]
    assert (difference["method"], difference["reference"]) == (pytest.approx(ours.mean()), pytest.approx(base.mean()))
    assert difference["mean"] == pytest.approx(100 * (ours - base).mean())
    assert difference["p"] == pytest.approx(oracle.paired_p(ours, base), rel=1e-6)
    assert result["methods"]["mgda"]["delta_m"]["flat"]["mean"] == pytest.approx(
        oracle.delta_m(np.repeat(ours.mean(), 7), np.repeat(base.mean(), 7), np.array([True] * 4 + [False] * 3))
    )
    assert accuracy(result, "uniform")["n"] == 4
    assert (
        "Compared with single-task, only the seeds 0, 1, 2 of 0, 1, 2, 3 have a value on both sides for mgda in sign"
    ) in text
    assert "over the seeds that have a value. These differ between cells" in text
    assert "| mgda | 3 of 4: 0, 1, 2 |" in text


def test_metric_without_a_value_for_a_seed(tmp_path: Path) -> None:
    def undefined(run: StudyRun) -> tuple[Values, Values]:
        val, test = fake_metrics(run)
        return val, {**test, "sign": math.nan} if (run.method.label, run.seed) == ("uniform", 1) else test

    result, text = study(tmp_path, 4, undefined)
    assert list(accuracy(result, "uniform")["seeds"]) == ["0", "2", "3"]
    assert list(accuracy(result, "mgda", "uniform")["seeds"]) == ["0", "2", "3"]
    assert accuracy(result, "mgda", "uniform")["reference"] == pytest.approx(np.mean([0.82, 0.90, 0.72]))
    assert list(result["methods"]["uniform"]["delta_m"]["primary"]["seeds"]) == ["0", "2", "3"]
    assert "over all 4 seeds" not in text
    low, high = oracle.interval(np.array([0.82, 0.90, 0.72]))
    assert f"| uniform | 4 | 0.8133 ± {(high - low) / 2:.4f} (n 3) |" in text
    assert (
        result["methods"]["mgda"]["mean_rank"] == 1 + 3 / 7
    )  # for seeds 0, 2, 3; four error metrics of one task are worse


@pytest.mark.parametrize("seeds", [1, 2])
def test_fewer_than_three_seeds_have_no_interval_and_no_p_value(tmp_path: Path, seeds: int) -> None:
    result, text = study(tmp_path, seeds)
    difference = accuracy(result)
    assert difference["n"] == seeds
    assert all(math.isnan(difference[key]) for key in ("low", "high", "p", "p_holm"))
    assert math.isnan(result["methods"]["mgda"]["delta_m"]["primary"]["low"])
    assert math.isnan(result["methods"]["mgda"]["test"]["p"])
    assert "significantly" not in text
    assert text.count("no tests, since fewer than 3 seeds have a value on both sides") == 2


def test_reference_can_be_selected(tmp_path: Path) -> None:
    result, text = study(tmp_path, 3, reference="mgda")
    assert result["reference"] == "mgda"
    assert list(result["methods"]["uniform"]["against"]) == ["single-task", "mgda"]
    assert "## Difference from mgda" in text
    with pytest.raises(ConfigError, match=r"no method is called 'mgad'\. Did you mean 'mgda'"):
        study(tmp_path, 3, reference="mgad")


def test_significance_accounts_for_test_examples(tmp_path: Path) -> None:
    """With few test examples, a difference that all seeds have in common may be due to them."""
    result, text = study(tmp_path, 3)
    assert "significantly better: mgda in sign (+10.00 points" in text

    def noisy(document: dict[str, Any]) -> dict[str, Any]:
        document["resampled"]["values"] = {
            task: {name: [values[0] - 0.2, values[1] + 0.2] for name, values in metrics.items()}
            for task, metrics in document["resampled"]["values"].items()
        }
        return document

    edit_json(tmp_path, f"mgda-*/{MEASURED}", noisy)
    result, text = study(tmp_path, 3)
    assert accuracy(result)["examples"]["se"] == pytest.approx(100 * np.std([-0.2, 0.2], ddof=1))
    assert "significantly better" not in text.partition("##")[0].partition("Compared with uniform")[0]
    assert "significant over the seeds, but within the uncertainty of the test examples: mgda in sign" in text


def test_warnings(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    study(tmp_path, 3)
    caplog.clear()

    def trained_longer(document: dict[str, Any]) -> dict[str, Any]:
        return {**document, "epochs": 5, "examples": {"val": {}, "test": {"sign": 60, "sum": 50}}}

    edit_json(tmp_path, "*/summary.json", trained_longer)
    result, _ = study(tmp_path, 3)
    assert result["warnings"] == []
    edit_json(tmp_path, "mgda-0-*/environment.json", lambda document: {**document, "mtl": "1.2.4"})
    edit_json(
        tmp_path, "mgda-1-*/summary.json", lambda document: {**document, "examples": {"val": {}, "test": {"sign": 61}}}
    )
    edit_json(tmp_path, "single-task_sum-*/summary.json", lambda document: {**document, "epochs": 2})
    result, text = study(tmp_path, 3)
    undertrained, versions, examples = result["warnings"]
    assert "in most runs of single-task sum (3 of 3). They are probably undertrained" in undertrained
    assert "mtl 1.2.3 with torch 4.5.6 (11 runs), mtl 1.2.4 with torch 4.5.6 (1 runs)" in versions
    assert "evaluated on different numbers of examples: sign (60 to 61)" in examples
    assert all(warning in caplog.text and warning in text for warning in result["warnings"])


def test_folder_of_an_earlier_version_is_reused(tmp_path: Path) -> None:
    """Without sizes, resamples and memory, these are empty, and all other values are the same."""
    study(tmp_path, 3)
    edit_json(
        tmp_path, "*/summary.json", lambda document: {key: document[key] for key in document if key != "examples"}
    )
    edit_json(tmp_path, "*/environment.json", lambda document: None)
    edit_json(
        tmp_path, f"*/{MEASURED}", lambda document: {k: document[k] for k in ("train", "flops", "checkpoint_bytes")}
    )
    training = FakeTraining(fake_metrics)
    result = compare(make_load(), VARY, seeds=3, out=tmp_path / "study", train=training)
    assert training.trained == []
    text = (tmp_path / "study/comparison.md").read_text()
    assert "Examples in `test`: unknown" in text
    assert accuracy(result)["mean"] == pytest.approx(10)
    assert math.isnan(accuracy(result)["examples"]["se"])
    assert math.isnan(result["methods"]["mgda"]["cost"]["peak_memory_bytes"]["ratio"])
    assert "| mgda | +10.00 ± 2.48 points | – |" in text


def test_folder_with_a_changed_hash_is_found_by_its_config(tmp_path: Path) -> None:
    """An update that adds an option changes the resolved experiment and therefore its hash."""
    study(tmp_path, 3)
    for number, folder in enumerate(sorted((tmp_path / "study/runs").iterdir())):
        config = folder / "config.yaml"
        config.write_text(config.read_text().replace("  clip_norm: null\n", ""))
        folder.rename(folder.with_name(f"renamed-{number}"))
    (tmp_path / "study/runs/other").mkdir()
    (tmp_path / "study/runs/other/config.yaml").write_text("option: that is no more\n")
    training = FakeTraining(fake_metrics)
    compare(make_load(), VARY, seeds=3, out=tmp_path / "study", train=training)
    assert training.trained == []
    compare(make_load(), VARY, seeds=4, out=tmp_path / "study", train=training)
    assert training.trained == [
        "uniform, seed 3",
        "mgda, seed 3",
        "single-task sign, seed 3",
        "single-task sum, seed 3",
    ]


def test_error_near_zero_does_not_dominate_delta_m(tmp_path: Path) -> None:
    """The baseline of `sum` is almost perfect, and four times its error is still negligible."""

    def nearly(document: dict[str, Any], mse: float) -> dict[str, Any]:
        split = document["metrics"]["test"]
        split["sum"] = {"loss": 1.0, "r2": 1 - mse / 100, "mse": mse, "rmse": mse**0.5, "mae": mse**0.5}
        return document

    study(tmp_path, 3)
    edit_json(tmp_path, "single-task_sum-*/summary.json", lambda document: nearly(document, 1e-4))
    edit_json(tmp_path, "mgda-*/summary.json", lambda document: nearly(document, 4e-4))
    result, _ = study(tmp_path, 3)
    differences = result["methods"]["mgda"]["against"]["single-task"]["tasks"]["sum"]
    assert differences["r2"]["mean"] == pytest.approx(-3e-4, rel=1e-6)  # points
    assert differences["mse"]["mean"] == pytest.approx(100 * 3e-4 / 0.01)  # relative to (1 %)² of a variance of 100
    assert result["methods"]["mgda"]["delta_m"]["primary"]["mean"] == pytest.approx(-5, abs=1e-3)
    assert result["methods"]["mgda"]["delta_m"]["flat"]["mean"] > 50


def test_runs_on_changed_data_are_not_reused(tmp_path: Path) -> None:
    """A study compares the recorded fingerprints of the data with the current data."""
    now = CurrentData()
    study(tmp_path, 1)
    assert now.changes(make_load()([]), {}) == []  # runs of earlier versions have no record
    recorded = open_datasets(make_load()([]))["fake"][0].recorded().short()
    edit_json(tmp_path, "*/summary.json", lambda document: {**document, "data": {"fake": recorded}})
    training = FakeTraining(fake_metrics)
    compare(make_load(), VARY, seeds=1, out=tmp_path / "study", train=training)
    assert training.trained == []
    fewer = {**recorded, "train": {**recorded["train"], "n": 190}}
    edit_json(tmp_path, "mgda-*/summary.json", lambda document: {**document, "data": {"fake": fewer}})
    with pytest.raises(ConfigError) as caught:
        compare(make_load(), VARY, seeds=1, out=tmp_path / "study", train=training)
    assert "was trained on data that has changed since. Use another --out, or restore the data" in str(caught.value)
    assert "datasets.fake: train: 190 examples then, 200 now" in str(caught.value)
    other = {**recorded, "test": {**recorded["test"], "content": "0" * 16}}
    assert now.changes(make_load()([]), {"fake": other}) == [
        "datasets.fake: test: different examples, of the same number"
    ]
    turned = {"train": {**recorded["train"], "order": "0" * 16}, "val": recorded["train"]}
    assert now.changes(make_load()([]), {"fake": turned}) == [
        "datasets.fake: train: the same examples, in a different order",
        "datasets.fake: val: the split no longer exists",
        "datasets.fake: test: the split is new",
    ]
