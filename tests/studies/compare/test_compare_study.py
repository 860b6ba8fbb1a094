"""Complete comparisons with fake training."""

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest

from mtlcli.errors import ConfigError
from mtlcli.studies.compare.compare_study import compare
from mtlcli.studies.compare.execution import StudyRun
from mtlcli.training.run_folder import to_json
from tests.oracles import comparison as oracle
from tests.studies.compare.fake_runs import LAST, METRICS, FakeTraining, RecordingCallback, Values, make_load
from tests.studies.fake_data import fake_dataset

__all__ = ["fake_dataset"]

pytestmark = pytest.mark.usefixtures("fake_dataset")
VARY = ["weighting=uniform,mgda"]
SEEDS = [0, 1, 2]
BASE = {"sign": [0.80, 0.90, 0.85], "sum": [0.50, 0.55, 0.60]}  # by seed
METHODS = {
    "uniform": {"sign": [0.82, 0.88, 0.90], "sum": [0.40, 0.50, 0.45]},
    "mgda": {"sign": [0.90, 0.91, 0.92], "sum": [0.60, 0.66, 0.63]},
}


@pytest.fixture
def plots() -> None:
    """Requested by tests that draw plots; the others skip them to save time."""


@pytest.fixture(autouse=True)
def no_plots(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    if "plots" not in request.fixturenames:
        monkeypatch.setattr("mtlcli.studies.compare.compare_study.draw_plots", lambda *_: None)


def fake_metrics(run: StudyRun) -> tuple[Values, Values]:
    table = BASE if run.method.task else METHODS[run.method.label.removeprefix("hard + ")]
    test = {task: table[task][run.seed] for task in run.experiment.tasks}
    return {task: value - 0.1 for task, value in test.items()}, test


def to_array(table: dict[str, list[float]]) -> np.ndarray:
    """Return scores [seeds, metrics]; all metrics of a task have the same value."""
    return np.array([[table[task][seed] for task, names in METRICS.items() for _ in names] for seed in SEEDS])


HIGHER_IS_BETTER = BOUNDED = np.array([True] * 3 + [True, False, False, False])


def test_all_values_of_the_document(tmp_path: Path, plots: None) -> None:
    callback = RecordingCallback()
    result = compare(
        make_load(), VARY, seeds=3, out=tmp_path / "study", callback=callback, train=FakeTraining(fake_metrics)
    )
    assert json.loads((tmp_path / "study/comparison.json").read_text()) == json.loads(to_json(result))
    assert (result["split"], result["evaluated"], result["reference"]) == ("test", "val", "uniform")
    base = to_array(BASE)
    deltas, tested = {}, []
    for label, method in result["methods"].items():
        ours = to_array(METHODS[label])
        accuracy = method["metrics"]["sign"]["accuracy"]
        assert (accuracy["n"], accuracy["mean"]) == (3, pytest.approx(np.mean(METHODS[label]["sign"])))
        assert (accuracy["low"], accuracy["high"]) == pytest.approx(oracle.interval(np.array(METHODS[label]["sign"])))
        flat = method["delta_m"]["flat"]
        assert flat["mean"] == pytest.approx(oracle.delta_m(ours.mean(0), base.mean(0), HIGHER_IS_BETTER))
        paired = 100 * np.mean((-1.0) ** HIGHER_IS_BETTER * (ours - base) / base.mean(0), axis=1)
        assert list(flat["seeds"].values()) == pytest.approx(paired.tolist())
        assert (flat["low"], flat["high"]) == pytest.approx(oracle.interval(paired))
        tasks = [
            oracle.delta_m(ours.mean(0)[k], base.mean(0)[k], HIGHER_IS_BETTER[k]) for k in (slice(0, 3), slice(3, 7))
        ]
        assert method["delta_m"]["by_task"]["mean"] == pytest.approx(np.mean(tasks))
        assert [delta_m["mean"] for delta_m in method["delta_m"]["tasks"].values()] == pytest.approx(tasks)
        changes = oracle.changes(ours, base, BOUNDED, np.zeros(7))
        compared = method["against"]["single-task"]
        result_changes = [
            list(compared["tasks"][task][name]["seeds"].values()) for task, names in METRICS.items() for name in names
        ]
        assert np.allclose(np.array(result_changes).T, changes, rtol=1e-9)
        accuracy = compared["tasks"]["sign"]["accuracy"]
        assert (accuracy["unit"], compared["tasks"]["sum"]["mae"]["unit"]) == ("points", "percent")
        assert (accuracy["low"], accuracy["high"]) == pytest.approx(oracle.interval(changes[:, 0]))
        assert accuracy["p"] == pytest.approx(oracle.paired_p(ours[:, 0], base[:, 0]), rel=1e-6)
        assert (accuracy["method"], accuracy["reference"]) == pytest.approx((ours[:, 0].mean(), base[:, 0].mean()))
        assert accuracy["examples"]["se"] == pytest.approx(0, abs=1e-9)  # the samples shift both sides equally
        primary = -changes[:, [0, 3]].mean(1)
        assert list(method["delta_m"]["primary"]["seeds"].values()) == pytest.approx(primary.tolist())
        assert compared["delta_m"]["parts"] == pytest.approx(
            {"sign": -changes[:, 0].mean() / 2, "sum": -changes[:, 3].mean() / 2}
        )
        assert compared["delta_m"]["largest"] == "sum"
        assert compared["delta_m"]["p"] == pytest.approx(oracle.paired_p(primary, np.zeros(3)), rel=1e-6)
        first_p = [compared["tasks"][task][METRICS[task][0]]["p"] for task in METRICS]
        tested.append(first_p)
        assert method["gap"]["mean"]["mean"] == pytest.approx(0.25)
        deltas[label] = paired
    corrected = oracle.holm(np.array(tested).flatten()).reshape(2, 2)
    for row, method in zip(corrected, result["methods"].values(), strict=True):
        tested_tasks = method["against"]["single-task"]["tasks"]
        assert [tested_tasks[task][METRICS[task][0]]["p_holm"] for task in METRICS] == pytest.approx(row.tolist())
    against = result["methods"]["mgda"]["against"]["uniform"]["tasks"]["sign"]["accuracy"]
    assert against["mean"] == pytest.approx(
        100 * np.mean(np.subtract(METHODS["mgda"]["sign"], METHODS["uniform"]["sign"]))
    )
    assert list(result["methods"]["uniform"]["against"]) == ["single-task"]
    ranks = oracle.mean_ranks(np.array([to_array(METHODS[label]).mean(0) for label in METHODS]), HIGHER_IS_BETTER)
    assert [method["mean_rank"] for method in result["methods"].values()] == pytest.approx(ranks.tolist())
    test = result["methods"]["mgda"]["test"]
    assert result["methods"]["uniform"]["test"] is None
    assert test["p"] == test["p_holm"] == pytest.approx(oracle.paired_p(deltas["mgda"], deltas["uniform"]), rel=1e-6)
    cost = result["methods"]["mgda"]["cost"]
    assert cost["parameters"] == {"value": 120, "ratio": 0.6}
    assert cost["checkpoint_bytes"] == {"value": 2000, "ratio": 0.5}
    assert cost["seconds_per_epoch"] == {"value": 4, "ratio": 4 / 6}  # ratio of medians
    assert result["baseline"]["cost"]["flops"] == {"value": 100, "ratio": 1}
    assert cost["peak_memory_bytes"] == {
        "value": 450,
        "ratio": 1.5,
        "ratio_to_sum": 0.75,
    }  # the largest of 600 in total is 300
    assert result["baseline"]["cost"]["peak_memory_bytes"] == {"value": 300, "ratio": 1, "ratio_to_sum": 0.5}
    assert callback.amount == 3 * (2 + 2)
    assert callback.rows["single-task"]["sum"] == (pytest.approx(np.mean(BASE["sum"]) - 0.1), 3)  # on `val`
    for name in ("delta_m", "tasks", "cost"):
        assert (tmp_path / f"study/{name}.png").read_bytes().startswith(b"\x89PNG")


def test_markdown_and_csv(tmp_path: Path) -> None:
    result = compare(
        make_load(),
        VARY,
        seeds=3,
        out=tmp_path / "study",
        train=FakeTraining(fake_metrics),
        command="mtl compare fake.yaml",
    )
    markdown = (tmp_path / "study/comparison.md").read_text()
    mean, (low, high) = np.mean(METHODS["mgda"]["sign"]), oracle.interval(np.array(METHODS["mgda"]["sign"]))
    assert f"| mgda | 3 | {mean:.4f} ± {(high - low) / 2:.4f} |" in markdown
    titles = [line for line in markdown.splitlines() if line.startswith("## ")]
    assert titles[:4] == [
        "## Difference from the single-task baselines", "## Difference from uniform",
        "## Δm over the primary metrics", "## Means of the primary metrics",
    ]  # fmt: skip
    assert titles[-2:] == ["## Appendix: Δm over all metrics", "## Appendix: all metrics"]
    top = markdown.partition("## ")[0]
    assert "Command: mtl compare fake.yaml" in top
    assert "Examples in `test`: sign 50, sum 50" in top
    assert "Seeds: 0, 1, 2 (3); epochs: 2;" in top
    assert "Versions: mtl " in top
    assert "The best epoch is the last one in most runs of uniform (3 of 3), mgda (3 of 3), single-task sign" in top
    assert (
        "Compared with uniform (p < 0.05 after Holm's correction): significantly better: mgda in sum (+18.00 points"
        in top
    )
    assert "no significant difference in the other 1 of 2 tests" in top
    assert "| sum, r2 ↑ | mgda | +18.00 ± 4.97 points |" in markdown
    for claim in ("fewer parameters", "transfer", "generalization", "less compute", "less storage"):
        assert f"\n| {claim}: " in markdown
    assert "p: paired t-test of Δm (flat) against uniform, with Holm's correction." in markdown
    with (tmp_path / "study/comparison.csv").open() as file:
        table = list(csv.DictReader(file))
    rows = {(row["method"], row["split"], row["task"], row["metric"]): row for row in table if not row["against"]}
    paired = {(row["method"], row["task"], row["metric"], row["against"]): row for row in table if row["against"]}
    assert len(rows) + len(paired) == len(table)
    difference = result["methods"]["mgda"]["against"]["uniform"]["tasks"]["sum"]["r2"]
    row = paired["mgda", "sum", "difference.r2", "uniform"]
    assert {key: float(row[key]) for key in ("mean", "low", "high", "p", "p_holm")} == {
        key: difference[key] for key in ("mean", "low", "high", "p", "p_holm")
    }
    assert (row["unit"], float(row["examples_se"])) == ("points", difference["examples"]["se"])
    assert float(paired["mgda", "all", "difference.delta_m", "single-task"]["n"]) == 3
    flat = result["methods"]["mgda"]["delta_m"]["flat"]
    assert {key: float(rows["mgda", "test", "all", "delta_m"][key]) for key in ("n", "mean", "sd", "low", "high")} == {
        key: flat[key] for key in ("n", "mean", "sd", "low", "high")
    }
    assert float(rows["uniform", "", "all", "parameters"]["ratio"]) == 0.6
    assert float(rows["single-task", "test", "sum", "r2"]["mean"]) == pytest.approx(np.mean(BASE["sum"]))
    assert rows["mgda", "test", "all", "p_holm"]["n"] == "3"


def test_one_seed_has_no_interval_and_no_test(tmp_path: Path) -> None:
    result = compare(make_load(), VARY, seeds=1, out=tmp_path / "study", train=FakeTraining(fake_metrics))
    method = result["methods"]["mgda"]
    assert math.isnan(method["test"]["p"])
    assert math.isnan(method["delta_m"]["flat"]["low"])
    text = (tmp_path / "study/comparison.md").read_text()
    assert "no tests, since fewer than 3 seeds have a value on both sides" in text
    assert "Intervals over the seeds and p-values require at least 3 seeds." in text
    assert "±" not in text.partition("## Means")[2].partition("## ")[0]


def test_runs_are_reused(tmp_path: Path) -> None:
    out = tmp_path / "study"
    small = compare(make_load(), VARY, seeds=2, out=out, train=FakeTraining(fake_metrics))
    callback, training = RecordingCallback(), FakeTraining(fake_metrics)
    again = compare(make_load(), VARY, seeds=2, out=out, callback=callback, train=training)
    assert (training.trained, len(callback.reused)) == ([], 8)
    assert to_json(again) == to_json(small)
    larger, axes = FakeTraining(fake_metrics), ["sharing=hard", *VARY]  # the methods have other labels
    compare(make_load(), axes, seeds=3, out=out, train=larger)
    assert larger.trained == [
        "hard + uniform, seed 2", "hard + mgda, seed 2", "single-task sign, seed 2", "single-task sum, seed 2",
    ]  # fmt: skip
    other = FakeTraining(fake_metrics)
    compare(make_load(optimizer={"name": "SGD", "lr": 0.1}), VARY, seeds=1, out=out, train=other)
    assert len(other.trained) == 4
    for lost in out.glob("runs/uniform-0-*/measured.json"):  # killed between training and measurement
        lost.unlink()
    more = FakeTraining(lambda run: "trained again")
    compare(make_load(), VARY, seeds=1, out=out, train=more)
    assert more.trained == ["uniform, seed 0"]


def test_failed_run_is_reported_and_others_count(tmp_path: Path) -> None:
    def failing(run: StudyRun) -> tuple[Values, Values] | str:
        lost = (run.method.label, run.seed) in (("mgda", 1), ("uniform", 0), ("uniform", 1), ("uniform", 2))
        return "out of memory" if lost or (run.method.task == "sum" and run.seed == 2) else fake_metrics(run)

    callback = RecordingCallback()
    result = compare(make_load(), VARY, seeds=3, out=tmp_path / "study", callback=callback, train=FakeTraining(failing))
    assert [run["run"] for run in result["failed"]] == callback.failed
    assert len(callback.failed) == 5
    mgda = result["methods"]["mgda"]
    assert (mgda["n"], mgda["metrics"]["sign"]["accuracy"]["n"]) == (2, 2)
    assert mgda["delta_m"]["flat"]["n"] == 1  # seed 0; the others lack a run or a baseline
    assert mgda["runs"][1] == {**mgda["runs"][1], "status": "failed", "error": "out of memory"}
    assert math.isnan(result["methods"]["uniform"]["mean_rank"])
    assert result["methods"]["mgda"]["mean_rank"] == 1
    text = (tmp_path / "study/comparison.md").read_text()
    assert "| mgda | 2 of 3: 0, 2 |" in text
    assert (
        "| sign, accuracy ↑ | mgda | +8.500 points | ± 0 | – | 2 | 0.8250 | 0.9100 |" in text
    )  # means of seeds 0 and 2
    assert "| uniform | 0 of 3 | – | – |" in text
    assert "| single-task | 2–3 of 3 |" in text
    assert "| mgda, seed 1 | out of memory |" in text
    assert "null" in (tmp_path / "study/comparison.json").read_text()


def test_plots_of_a_failed_study(tmp_path: Path, plots: None) -> None:
    result = compare(make_load(), VARY, seeds=2, out=tmp_path / "study", train=FakeTraining(lambda run: "no"))
    assert len(result["failed"]) == 8
    assert len(list((tmp_path / "study").glob("*.png"))) == 3


def tuned(run: StudyRun) -> tuple[Values, Values] | str:
    """Return metrics with lr=0.01 best on `val`, except for the baseline of `sum`, and lr=0.1 best on `test`."""
    if run.method.label == "mgda" and "0.1" in run.tuned:
        return "diverged"
    val = {"lr=0.001": 0.5, "lr=0.01": 0.7, "lr=0.1": 0.6}[run.tuned]
    val = val if run.method.label != "sum" else -val
    test = {"lr=0.001": 0.1, "lr=0.01": 0.2, "lr=0.1": 0.9}[run.tuned] + run.seed / 100
    return dict.fromkeys(run.experiment.tasks, val), dict.fromkeys(run.experiment.tasks, test)


def test_tuning_uses_val_only(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    training, callback = FakeTraining(tuned), RecordingCallback()
    tune = ["optimizer.lr=0.001,0.01,0.1"]
    result = compare(make_load(), VARY, seeds=2, tune=tune, out=tmp_path / "study", callback=callback, train=training)
    uniform, mgda = result["methods"]["uniform"], result["methods"]["mgda"]
    assert uniform["tuned"] == {
        "settings": {"optimizer.lr": "0.01"},
        "tried": {"lr=0.001": 0.5, "lr=0.01": 0.7, "lr=0.1": 0.6},
        "at_edge": [],
    }
    assert uniform["metrics"]["sign"]["accuracy"]["mean"] == pytest.approx(0.205)
    assert mgda["tuned"]["settings"] == {"optimizer.lr": "0.01"}  # although a larger value has diverged
    assert math.isnan(mgda["tuned"]["tried"]["lr=0.1"])
    assert result["baseline"]["tasks"]["sum"]["tuned"]["at_edge"] == ["optimizer.lr"]
    assert "single-task sum: the best optimizer.lr is at the edge of the grid" in caplog.text
    assert caplog.text.count("at the edge") == 1
    assert (
        callback.amount == len(training.trained) == 4 * (3 + 1)
    )  # the run with the selected value is reused for its seed
    assert result["failed"] == []  # failed candidates are not failed runs of the table
    assert any("uniform, lr=0.01" in rows for rows in callback.all_rows)
    assert list(callback.rows) == ["uniform", "mgda", "single-task"]
    text = (tmp_path / "study/comparison.md").read_text()
    assert "| uniform | 0.01 | lr=0.001: 0.5000, lr=0.01: 0.7000, lr=0.1: 0.6000 |" in text
    assert "| single-task sum | 0.001 (edge) |" in text
    assert "lr=0.1: failed" in text
    more = FakeTraining(tuned)
    compare(make_load(), VARY, seeds=2, tune=tune, tune_seeds=2, out=tmp_path / "study", train=more)
    assert len(more.trained) == 4 * 2 + 1  # the diverged run is tried again


def test_method_whose_candidates_all_fail(tmp_path: Path) -> None:
    def failing(run: StudyRun) -> tuple[Values, Values] | str:
        return "diverged" if run.method.label == "mgda" else tuned(run)

    training = FakeTraining(failing)
    tune = ["optimizer.lr=0.001,0.01"]
    result = compare(make_load(), VARY, seeds=2, tune=tune, out=tmp_path / "study", train=training)
    assert len(training.trained) == 4 * 2 + 3
    assert [run["run"] for run in result["failed"]] == ["mgda, lr=0.001, seed 0", "mgda, lr=0.001, seed 1"]
    assert result["methods"]["mgda"]["tuned"]["settings"] is None
    assert "| mgda | – | lr=0.001: failed, lr=0.01: failed |" in (tmp_path / "study/comparison.md").read_text()


PUBLISHED = """
tables:
- source: Somebody 2020, table 1
  note: of 20 runs
  metrics: {sum: mae}
  scale: 0.01
  rows:
    single-task: {sign: 91.5, sum: 50}
    mgda: {sign: 92 ± 0.5}
    theirs: {sign: 93.2 +- 1, mean: 70}
"""


def test_published_results_are_joined_with_ours(tmp_path: Path) -> None:
    (tmp_path / "published.yaml").write_text(PUBLISHED)
    result = compare(make_load(), VARY, seeds=3, out=tmp_path / "study", published=tmp_path / "published.yaml",
                    train=FakeTraining(fake_metrics))  # fmt: skip
    (table,) = result["published"]
    assert table["metrics"] == {"sign": "accuracy", "sum": "mae", "mean": "primary"}
    row = table["rows"]["mgda"]["sign"]
    assert (row["published"], row["spread"]) == (pytest.approx(0.92), pytest.approx(0.005))
    assert row["ours"]["mean"] == pytest.approx(np.mean(METHODS["mgda"]["sign"]))
    assert table["rows"]["single-task"]["sum"]["ours"]["mean"] == pytest.approx(np.mean(BASE["sum"]))
    assert table["rows"]["theirs"]["mean"] == {"published": pytest.approx(0.7), "spread": None, "ours": None}
    text = (tmp_path / "study/comparison.md").read_text()
    assert "## Published: Somebody 2020, table 1" in text
    assert "| theirs | 0.9320 ± 0.0100 | – | – | – | 0.7000 | – |" in text
    assert table["delta_m"] == {}  # no row has all values of the baseline


SEVERAL = """
tables:
- source: Somebody 2021
  metrics: {sign: [accuracy, auroc], sum: mae}
  scale: {accuracy: 0.01}
  rows:
    single-task: {sign: [80, 0.9], sum: 0.5}
    mgda: {sign: [84, 0.9 ± 0.1], sum: 0.4}
    theirs: {sign: [60, 0.45], sum: 1.0, delta_m: 58.5, mean_rank: 2}
    partly: {sign: [60, 0.45]}
"""


def test_published_delta_m_is_shown_with_ours(tmp_path: Path) -> None:
    (tmp_path / "published.yaml").write_text(SEVERAL)
    result = compare(make_load(), VARY, seeds=3, out=tmp_path / "study", published=tmp_path / "published.yaml",
                    train=FakeTraining(fake_metrics))  # fmt: skip
    (table,) = result["published"]
    assert table["metrics"] == {"sign.accuracy": "accuracy", "sign.auroc": "auroc", "sum": "mae"}
    row = table["rows"]["mgda"]["sign.auroc"]
    assert (row["published"], row["spread"]) == (pytest.approx(0.9), pytest.approx(0.1))
    assert row["ours"]["mean"] == pytest.approx(np.mean(METHODS["mgda"]["sign"]))
    assert list(table["delta_m"]) == ["mgda", "theirs"]
    delta_m = table["delta_m"]["mgda"]
    assert (delta_m["published"], delta_m["computed"]) == (pytest.approx((-5 + 0 - 20) / 3), True)
    changes = [100 * (np.mean(METHODS["mgda"][t]) / np.mean(BASE[t]) - 1) for t in ("sign", "sign", "sum")]
    assert delta_m["ours"]["mean"] == pytest.approx(np.mean(np.array(changes) * [-1, -1, 1]))
    assert table["delta_m"]["theirs"] == {"published": 58.5, "spread": None, "computed": False, "ours": None}
    assert table["mean_rank"] == {"theirs": {"published": 2.0, "spread": None}}
    text = (tmp_path / "study/comparison.md").read_text()
    assert "| sum mae: ours | Δm %: published | Δm %: ours | MR: published |" in text
    assert "| theirs | 0.6000 | – | 0.4500 | – | 1.000 | – | 58.50 | – | 2.000 |" in text
    assert "-8.333 (computed)" in text


def test_means_over_the_last_epochs_are_compared(tmp_path: Path) -> None:
    (tmp_path / "published.yaml").write_text(SEVERAL + "  last: 2\n" + SEVERAL.removeprefix("\ntables:\n"))
    result = compare(make_load(evaluation={"last": 2}), VARY, seeds=3, out=tmp_path / "study",
                    published=tmp_path / "published.yaml", train=FakeTraining(fake_metrics))  # fmt: skip
    last = result["last"]
    assert last["epochs"] == 2
    for method, table in METHODS.items():
        for task in table:
            metric = METRICS[task][0]
            mean = last["methods"][method]["metrics"][task][metric]["mean"]
            assert mean == pytest.approx(np.mean(table[task]) - LAST)
        ours, base = (to_array(values).mean(axis=0) - LAST for values in (table, BASE))
        assert last["methods"][method]["delta_m"]["mean"] == pytest.approx(oracle.delta_m(ours, base, HIGHER_IS_BETTER))
    first, second = result["published"]
    assert (first["ours"], second["ours"]) == ("last", "best")
    values = [table["rows"]["mgda"]["sum"]["ours"]["mean"] for table in (first, second)]
    assert values == pytest.approx([np.mean(METHODS["mgda"]["sum"]) - LAST, np.mean(METHODS["mgda"]["sum"])])
    text = (tmp_path / "study/comparison.md").read_text()
    assert "## Appendix: means over the last 2 epochs" in text
    assert "Published: means over the last 2 epochs. Ours: likewise." in text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rows: {}", "missing; expected"),
        ("tables: []", "expected a list"),
        (
            "tables: [{source: x, rows: {mgda: {sing: 1}}}]",
            "tables.0.rows.mgda.sing: no task 'sing'. Did you mean",
        ),
        ("tables: [{source: x, rows: {mgda: {sign: about 5}}}]", "one such as '94.76 ± 0.44', found 'about 5'"),
        ("tables: [{source: x, metrics: {sum: accuracy}, rows: {a: {sum: 1}}}]", "no metric of task 'sum', 'accuracy'"),
        ("tables: [{source: x, metrics: {mean: mse}, rows: {a: {mean: 1}}}]", "no metric of task 'sign', 'mse'"),
        ("tables: [{source: x, rows: {}, sacle: 2}]", "Did you mean 'scale'?"),
        (
            "tables: [{source: x, metrics: {sum: [mae, mse]}, rows: {a: {sum: [1]}}}]",
            "expected 2 values, found 1 value",
        ),
        ("tables: [{source: x, metrics: {sum: [mae, mse]}, rows: {a: {sum: 1}}}]", "expected 2 values, found 1 value"),
        ("tables: [{source: x, rows: {a: {delta_m: [1, 2]}}}]", "expected 1 value, found 2 values"),
        ("tables: [{source: x, metrics: {mean: [primary, primary]}, rows: {a: {sum: 1}}}]", "expected one metric"),
        (
            "tables: [{source: x, metrics: {sum: mae}, scale: {mea: 2}, rows: {a: {sum: 1}}}]",
            "no metric of the table, 'mea'. Did you mean 'mae'?",
        ),
        ("just words", "expected `tables:`"),
    ],
)
def test_invalid_published_results_are_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "published.yaml").write_text(text)
    training = FakeTraining(fake_metrics)
    with pytest.raises(ConfigError) as caught:
        compare(make_load(), VARY, published=tmp_path / "published.yaml", out=tmp_path / "study", train=training)
    assert message in str(caught.value)
    assert str(caught.value).startswith(f"{tmp_path}/published.yaml:1:")
    assert not (tmp_path / "study").exists()
