"""Complete studies of relations, on data with known relations."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mtlcli.config import Experiment
from mtlcli.errors import ConfigError, InterruptedRunError
from mtlcli.studies.folder import StudyFolder
from mtlcli.studies.relate.experiments import Budget
from mtlcli.studies.relate.for_weighting import with_relation
from mtlcli.studies.relate.gradient_probe import probe_gradients
from mtlcli.studies.relate.relate_study import relate
from mtlcli.studies.study_callback import StudyCallback
from mtlcli.training.assembly.build import build
from mtlcli.training.run_folder import to_json
from mtlcli.training.trainer import Trainer
from mtlcli.weighting.relation_matrix import build_relation_matrix
from tests.studies.fake_data import TRAINING, experiment, fake_dataset, task

__all__ = ["fake_dataset"]

pytestmark = pytest.mark.usefixtures("fake_dataset")
SMALL = Budget(seeds=2, epochs=2)
HEAD = {"name": "mlp", "hidden": [5], "dropout": 0.3}
TASKS = {
    "first": task("sign", head=HEAD, description="whether it is positive"),
    "copy": task("sign", head=HEAD, description="whether it is positive"),
    "other": task("unrelated", description="a coin"),
}


class RecordingCallback(StudyCallback):
    def __init__(self) -> None:
        self.trained: list[str] = []
        self.reused: list[str] = []

    def on_run_end(self, name: str, summary: dict[str, Any], reused: bool) -> None:
        (self.reused if reused else self.trained).append(name)


def sets(grouping: dict[str, Any]) -> set[frozenset[str]]:
    return set(map(frozenset, grouping["groups"]))


def relations(document: dict[str, Any]) -> dict[str, dict[str, dict[str, float]]]:
    return {name: result["relation"] for name, result in document["measures"].items()}


@pytest.fixture(scope="module")
def whole(fake_dataset: None, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return relate(experiment(TASKS), None, tmp_path_factory.mktemp("whole"), budget=SMALL)


@pytest.fixture
def studied(whole: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A complete study; further studies draw no heatmaps."""
    monkeypatch.setattr("mtlcli.studies.relate.relate_study.draw_heatmap", lambda *given: given[-1].touch())
    return whole


@pytest.fixture
def copied(studied: dict[str, Any], tmp_path: Path) -> Path:
    """A copy of the folder of a complete study."""
    shutil.copytree(studied["out"], tmp_path / "copied")
    return tmp_path / "copied"


def test_copies_of_a_task_have_relation_1(studied: dict[str, Any]) -> None:
    result = relations(studied)
    assert list(result) == ["performance", "gradient", "affinity", "data", "semantic"]
    for name, relation in result.items():
        assert relation["first"]["copy"] == relation["copy"]["first"] == pytest.approx(1, abs=1e-12), name
        assert relation["other"]["other"] == 1
        assert relation["first"]["other"] == pytest.approx(relation["copy"]["other"], abs=1e-9)
    assert result["data"]["first"]["other"] < 0.15
    assert result["semantic"]["first"]["other"] == 0
    assert abs(result["gradient"]["first"]["other"]) < 0.5
    assert ["first", "copy"] in studied["measures"]["data"]["groups"]["clustering"]["groups"]


def test_files_of_a_study(studied: dict[str, Any]) -> None:
    folder = Path(studied["out"])
    assert json.loads((folder / "relate.json").read_text()) == json.loads(to_json(studied))
    groups = json.loads((folder / "groups.json").read_text())
    for name, relation in relations(studied).items():
        matrix = build_relation_matrix(str(folder / name / "relation.csv"), list(TASKS))
        assert matrix.tolist() == [[relation[a][b] for b in TASKS] for a in TASKS]  # all digits
        assert (folder / name / "heatmap.png").read_bytes().startswith(b"\x89PNG")
        assert json.loads((folder / name / "numbers.json").read_text())
        assert groups[name] == studied["measures"][name]["groups"]
    assert (folder / "relation.csv").read_text() == (folder / "performance/relation.csv").read_text()
    assert (folder / "relation.csv").read_text().startswith("task,first,copy,other\nfirst,1.0,1.0,")
    assert (folder / "affinity/affinity.csv").is_file()
    assert not list(folder.rglob(".*.*"))


def test_order_of_tasks_only_permutes_matrices(studied: dict[str, Any], tmp_path: Path) -> None:
    reordered = {name: TASKS[name] for name in ("other", "copy", "first")}
    again = relate(experiment(reordered), None, tmp_path / "reordered", budget=SMALL)
    assert relations(again) == relations(studied)  # bit-identical
    for name, result in again["measures"].items():
        assert to_json(result["numbers"]) != to_json(studied["measures"][name]["numbers"])  # in a different order
        assert json.loads(to_json(result["numbers"])) == json.loads(to_json(studied["measures"][name]["numbers"]))
        before = studied["measures"][name]["groups"]
        for select in (lambda groups: groups["clustering"], lambda groups: groups["partition"]["best"]):
            assert sets(select(result["groups"])) == sets(select(before))
    assert (tmp_path / "reordered/relation.csv").read_text().startswith("task,other,copy,first\n")


def test_trained_runs_are_reused(studied: dict[str, Any], copied: Path) -> None:
    callback = RecordingCallback()
    again = relate(experiment(TASKS), None, copied, budget=SMALL, callback=callback)
    assert to_json(again["measures"]) == to_json(studied["measures"])
    assert callback.trained == []
    assert len(callback.reused) == 3 * 2 + 1
    more = RecordingCallback()
    relate(experiment(TASKS), ["performance"], copied, budget=Budget(seeds=3, epochs=2), callback=more)
    assert more.trained == [f"baseline {name}, seed 2" for name in ("copy", "first", "other")]
    with pytest.raises(ConfigError, match=r"(?s)belongs to a different experiment. Use another --out.*training.epochs"):
        relate(experiment(TASKS), ["performance"], copied, budget=Budget(seeds=2, epochs=1))
    changed = experiment(TASKS, optimizer={"name": "Adam", "lr": 0.02})
    with pytest.raises(ConfigError, match=r"(?s)joint belongs to a different experiment.*optimizer.lr"):
        relate(changed, ["gradient"], copied, budget=SMALL)


class StoppedError(BaseException):  # not an Exception, so that it is not handled as an error of a component
    pass


class StoppingCallback(RecordingCallback):
    """Ends the study like a crash after a number of trained runs."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self.after = after

    def on_run_end(self, name: str, summary: dict[str, Any], reused: bool) -> None:
        super().on_run_end(name, summary, reused)
        if len(self.trained) == self.after:
            raise StoppedError


def test_killed_study_resumes(studied: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(StoppedError):
        relate(experiment(TASKS), None, tmp_path / "killed", budget=SMALL, callback=StoppingCallback(4))

    def killed(*_: Any) -> None:
        raise StoppedError

    with monkeypatch.context() as patched:  # in the middle of a run
        patched.setattr("mtlcli.training.trainer.measure", killed)
        with pytest.raises(StoppedError):
            relate(experiment(TASKS), None, tmp_path / "killed", budget=SMALL)
    callback = RecordingCallback()
    result = relate(experiment(TASKS), None, tmp_path / "killed", budget=SMALL, callback=callback)
    assert len(callback.reused) == 4
    assert len(callback.trained) == 3
    assert relations(result) == relations(studied)


def test_killed_joint_run_keeps_its_measurements(
    studied: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = experiment(TASKS, training=TRAINING, checkpoint={"every": "2 steps"})
    seen: list[float] = []

    def killed(run: Any, batch: Any, lr: float) -> Any:
        if len(seen) == 8:  # of 10 steps, 5 in an epoch
            raise StoppedError
        seen.append(lr)
        return probe_gradients(run, batch, lr)

    with monkeypatch.context() as patched:
        patched.setattr("mtlcli.studies.relate.gradient_probe.probe_gradients", killed)
        with pytest.raises(StoppedError):
            relate(saved, ["gradient"], tmp_path / "killed", budget=SMALL)
    result = relate(experiment(TASKS), ["gradient", "affinity"], tmp_path / "killed", budget=SMALL)
    for name, measured in result["measures"].items():
        assert to_json(measured) == to_json(studied["measures"][name])


def test_interrupted_study_reports_the_signal(
    studied: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fit(self: Trainer) -> None:
        raise InterruptedRunError("terminated (SIGTERM); saved it. Resume with: --resume auto", 143)

    monkeypatch.setattr(Trainer, "fit", fit)
    for measure in ("performance", "gradient"):
        with pytest.raises(
            InterruptedRunError, match=r"^terminated \(SIGTERM\); finished work is kept, and the same"
        ) as caught:
            relate(experiment(TASKS), [measure], tmp_path / "study", budget=SMALL)
        assert caught.value.exit_code == 143


def test_different_datasets_are_compared_by_inputs(tmp_path: Path) -> None:
    datasets = {"far": {"name": "fake", "shift": 50.0}, "fake": {"name": "fake"}, "same": {"name": "fake"}}
    tasks = {"a": task("sign"), "b": {**task("sign"), "dataset": "far"}, "c": {**task("sum"), "dataset": "same"}}
    result = relate(experiment(tasks, datasets=datasets), ["data", "gradient"], tmp_path / "study", budget=SMALL)
    relation = relations(result)["data"]
    assert relation["a"]["b"] == relation["b"]["c"] == 0
    assert 0.5 < relation["a"]["c"] < 0.8  # the same examples with another alias: labels are compared
    numbers = result["measures"]["data"]["numbers"]
    assert numbers["inputs"]["a"]["c"] == 1
    assert np.isnan(numbers["labels"]["a"]["b"])
    assert numbers["interval"]["a"]["b"] == [0, 0]
    low, high = numbers["interval"]["c"]["a"]
    assert low < relation["a"]["c"] < high
    assert numbers["examples"]["b"] == dict.fromkeys("abc", 148)
    assert numbers["interval_of"] == "bootstrap over examples, 200 resamples"


def test_weighting_of_the_experiment_has_no_effect(studied: dict[str, Any], copied: Path) -> None:
    weighted = {name: {**entry, "weight": 3.0} for name, entry in TASKS.items()}
    other = experiment(weighted, weighting={"name": "relation", "matrix": "nowhere.csv"}, sharing="hard",
                       regularizers=[{"name": "l2", "strength": 0.1}])  # fmt: skip
    assert relations(relate(other, None, copied, budget=SMALL)) == relations(studied)


def refused(changed: Experiment, measures: list[str] | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        relate(changed, measures, "never_made")
    assert not Path("never_made").exists()
    return str(caught.value)


def test_invalid_studies_are_refused_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    silent = {"a": task("sign"), "b": task("sum", description="a sum")}
    assert "there must be at least two tasks" in refused(experiment({"a": task("sign")}))
    assert "no measure 'gradients'. Did you mean 'gradient'?" in refused(experiment(silent), ["gradients"])
    assert "`description:` of every task; missing for: a" in refused(experiment(silent), ["data", "semantic"])
    unfit = {"a": {**task("sum"), "kind": "classification"}, "b": task("sum")}
    assert "needs a target of type" in refused(experiment(unfit))
    with pytest.raises(ConfigError, match="a frozen trunk has no gradients"):
        relate(experiment(TASKS, trunk={"name": "linear_map", "frozen": True}), ["gradient"], "frozen")
    result = relate(experiment(silent), None, "study", budget=Budget(seeds=1, epochs=1))
    assert "semantic" not in result["measures"]
    assert "missing for: a. It is skipped" in caplog.text


def test_measures_without_training_are_computed_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object) -> None:
        raise ConfigError("no such encoder")

    monkeypatch.setattr("mtlcli.studies.relate.measures.semantic_relation", missing)
    with pytest.raises(ConfigError, match="no such encoder"):
        relate(experiment(TASKS), ["performance", "semantic"], tmp_path / "study", budget=SMALL)
    assert not (tmp_path / "study/baselines").exists()


def test_study_folder_is_locked(tmp_path: Path) -> None:
    with StudyFolder(tmp_path / "study").lock(), pytest.raises(ConfigError, match="another process is working in it"):
        relate(experiment(TASKS), ["data"], tmp_path / "study")
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="can't be written to"):
        relate(experiment(TASKS), ["data"], tmp_path / "file" / "study")


def test_relation_of_a_weighting_is_measured_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MTL_RUNS", str(tmp_path))
    plain = experiment(TASKS)
    assert with_relation(plain) is plain
    wanted = experiment(TASKS, weighting={"name": "relation", "from": "gradient", "project": "psd"})
    result = with_relation(wanted, budget=SMALL)
    folder = tmp_path / "fake" / "relate"
    options = result.weighting.options
    assert options["from"] is None
    assert options["project"] == "psd"
    expected = build_relation_matrix(str(folder / "relation.csv"), list(TASKS))
    assert build_relation_matrix(options["matrix"], list(TASKS)).tolist() == expected.tolist()
    build(result)  # accepts the matrix
    callback = RecordingCallback()
    assert with_relation(wanted, budget=SMALL, callback=callback) == result
    assert callback.reused == ["joint run"]
