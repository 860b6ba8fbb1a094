"""The whole study, on data whose tasks are related in known ways."""

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
from tests.studies.fake_data import TRAINING, experiment, made, task

__all__ = ["made"]

pytestmark = pytest.mark.usefixtures("made")
SMALL = Budget(seeds=2, epochs=2)
HEAD = {"name": "mlp", "hidden": [5], "dropout": 0.3}
TASKS = {
    "first": task("sign", head=HEAD, description="whether it is positive"),
    "copy": task("sign", head=HEAD, description="whether it is positive"),
    "other": task("unrelated", description="a coin"),
}


class Counted(StudyCallback):
    def __init__(self) -> None:
        self.trained: list[str] = []
        self.reused: list[str] = []

    def on_run_end(self, name: str, summary: dict[str, Any], reused: bool) -> None:
        (self.reused if reused else self.trained).append(name)


def sets(part: dict[str, Any]) -> set[frozenset[str]]:
    return set(map(frozenset, part["groups"]))


def relations(document: dict[str, Any]) -> dict[str, dict[str, dict[str, float]]]:
    return {name: found["relation"] for name, found in document["measures"].items()}


@pytest.fixture(scope="module")
def whole(made: None, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return relate(experiment(TASKS), None, tmp_path_factory.mktemp("whole"), budget=SMALL)


@pytest.fixture
def studied(whole: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A whole study. The others draw no pictures."""
    monkeypatch.setattr("mtlcli.studies.relate.relate_study.draw_heatmap", lambda *given: given[-1].touch())
    return whole


@pytest.fixture
def copied(studied: dict[str, Any], tmp_path: Path) -> Path:
    """A copy of its folder."""
    shutil.copytree(studied["out"], tmp_path / "copied")
    return tmp_path / "copied"


def test_copies_have_1_by_every_measure_and_unrelated_tasks_do_not(studied: dict[str, Any]) -> None:
    found = relations(studied)
    assert list(found) == ["performance", "gradient", "affinity", "data", "semantic"]
    for name, relation in found.items():
        assert relation["first"]["copy"] == relation["copy"]["first"] == pytest.approx(1, abs=1e-12), name
        assert relation["other"]["other"] == 1
        assert relation["first"]["other"] == pytest.approx(relation["copy"]["other"], abs=1e-9)
    assert found["data"]["first"]["other"] < 0.15
    assert found["semantic"]["first"]["other"] == 0
    assert abs(found["gradient"]["first"]["other"]) < 0.5
    assert ["first", "copy"] in studied["measures"]["data"]["groups"]["clustering"]["groups"]


def test_the_files(studied: dict[str, Any]) -> None:
    folder = Path(studied["out"])
    assert json.loads((folder / "relate.json").read_text()) == json.loads(to_json(studied))
    groups = json.loads((folder / "groups.json").read_text())
    for name, relation in relations(studied).items():
        matrix = build_relation_matrix(str(folder / name / "relation.csv"), list(TASKS))
        assert matrix.tolist() == [[relation[a][b] for b in TASKS] for a in TASKS]  # every digit
        assert (folder / name / "heatmap.png").read_bytes().startswith(b"\x89PNG")
        assert json.loads((folder / name / "numbers.json").read_text())
        assert groups[name] == studied["measures"][name]["groups"]
    assert (folder / "relation.csv").read_text() == (folder / "performance/relation.csv").read_text()
    assert (folder / "relation.csv").read_text().startswith("task,first,copy,other\nfirst,1.0,1.0,")
    assert (folder / "affinity/affinity.csv").is_file()
    assert not list(folder.rglob(".*.*"))


def test_the_order_in_the_yaml_permutes_and_changes_nothing_else(studied: dict[str, Any], tmp_path: Path) -> None:
    turned = {name: TASKS[name] for name in ("other", "copy", "first")}
    again = relate(experiment(turned), None, tmp_path / "turned", budget=SMALL)
    assert relations(again) == relations(studied)  # to the last bit
    for name, found in again["measures"].items():
        assert to_json(found["numbers"]) != to_json(studied["measures"][name]["numbers"])  # in the order of the tasks
        assert json.loads(to_json(found["numbers"])) == json.loads(to_json(studied["measures"][name]["numbers"]))
        before = studied["measures"][name]["groups"]
        for part in (lambda one: one["clustering"], lambda one: one["partition"]["best"]):
            assert sets(part(found["groups"])) == sets(part(before))
    assert (tmp_path / "turned/relation.csv").read_text().startswith("task,other,copy,first\n")


def test_what_is_trained_is_used_again(studied: dict[str, Any], copied: Path) -> None:
    watched = Counted()
    again = relate(experiment(TASKS), None, copied, budget=SMALL, callback=watched)
    assert to_json(again["measures"]) == to_json(studied["measures"])
    assert watched.trained == []
    assert len(watched.reused) == 3 * 2 + 1
    more = Counted()
    relate(experiment(TASKS), ["performance"], copied, budget=Budget(seeds=3, epochs=2), callback=more)
    assert more.trained == [f"baseline {name}, seed 2" for name in ("copy", "first", "other")]
    with pytest.raises(ConfigError, match=r"(?s)belongs to a different experiment. Use another --out.*training.epochs"):
        relate(experiment(TASKS), ["performance"], copied, budget=Budget(seeds=2, epochs=1))
    changed = experiment(TASKS, optimizer={"name": "Adam", "lr": 0.02})
    with pytest.raises(ConfigError, match=r"(?s)joint is of another experiment.*optimizer.lr"):
        relate(changed, ["gradient"], copied, budget=SMALL)


class StoppedError(BaseException):  # as a signal would, past what handles the faults of components
    pass


class Stopping(Counted):
    """Ends the study, as a crash would, when so many runs are trained."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self.after = after

    def on_run_end(self, name: str, summary: dict[str, Any], reused: bool) -> None:
        super().on_run_end(name, summary, reused)
        if len(self.trained) == self.after:
            raise StoppedError


def test_a_killed_study_goes_on(studied: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(StoppedError):
        relate(experiment(TASKS), None, tmp_path / "killed", budget=SMALL, callback=Stopping(4))

    def killed(*_: Any) -> None:
        raise StoppedError

    with monkeypatch.context() as patched:  # in the middle of a run
        patched.setattr("mtlcli.training.trainer.measure", killed)
        with pytest.raises(StoppedError):
            relate(experiment(TASKS), None, tmp_path / "killed", budget=SMALL)
    watched = Counted()
    found = relate(experiment(TASKS), None, tmp_path / "killed", budget=SMALL, callback=watched)
    assert len(watched.reused) == 4
    assert len(watched.trained) == 3
    assert relations(found) == relations(studied)


def test_a_joint_run_that_is_killed_keeps_what_it_has_seen(
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
    found = relate(experiment(TASKS), ["gradient", "affinity"], tmp_path / "killed", budget=SMALL)
    for name, measured in found["measures"].items():
        assert to_json(measured) == to_json(studied["measures"][name])


def test_a_signal_is_told_of(studied: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fit(self: Trainer) -> None:
        raise InterruptedRunError("terminated (SIGTERM); saved it. Resume with: --resume auto", 143)

    monkeypatch.setattr(Trainer, "fit", fit)
    for measure in ("performance", "gradient"):
        with pytest.raises(
            InterruptedRunError, match=r"^terminated \(SIGTERM\); finished work is kept, and the same"
        ) as caught:
            relate(experiment(TASKS), [measure], tmp_path / "study", budget=SMALL)
        assert caught.value.exit_code == 143


def test_other_datasets_are_compared_by_their_inputs(tmp_path: Path) -> None:
    datasets = {"far": {"name": "made", "shift": 50.0}, "made": {"name": "made"}, "same": {"name": "made"}}
    tasks = {"a": task("sign"), "b": {**task("sign"), "dataset": "far"}, "c": {**task("sum"), "dataset": "same"}}
    found = relate(experiment(tasks, datasets=datasets), ["data", "gradient"], tmp_path / "study", budget=SMALL)
    relation = relations(found)["data"]
    assert relation["a"]["b"] == relation["b"]["c"] == 0
    assert 0.5 < relation["a"]["c"] < 0.8  # the same examples under another name: their labels are compared
    numbers = found["measures"]["data"]["numbers"]
    assert numbers["inputs"]["a"]["c"] == 1
    assert np.isnan(numbers["labels"]["a"]["b"])
    assert numbers["interval"]["a"]["b"] == [0, 0]
    low, high = numbers["interval"]["c"]["a"]
    assert low < relation["a"]["c"] < high
    assert numbers["examples"]["b"] == dict.fromkeys("abc", 148)
    assert numbers["interval_of"] == "bootstrap over examples, 200 resamples"


def test_whatever_the_experiment_weighs_by_is_not_measured(studied: dict[str, Any], copied: Path) -> None:
    dressed = {name: {**entry, "weight": 3.0} for name, entry in TASKS.items()}
    other = experiment(dressed, weighting={"name": "relation", "matrix": "nowhere.csv"}, sharing="hard",
                       regularizers=[{"name": "l2", "strength": 0.1}])  # fmt: skip
    assert relations(relate(other, None, copied, budget=SMALL)) == relations(studied)


def refused(changed: Experiment, measures: list[str] | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        relate(changed, measures, "never_made")
    assert not Path("never_made").exists()
    return str(caught.value)


def test_what_cannot_be_measured_is_refused_before_anything_is_trained(
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
    found = relate(experiment(silent), None, "study", budget=Budget(seeds=1, epochs=1))
    assert "semantic" not in found["measures"]
    assert "missing for: a. It is skipped" in caplog.text


def test_what_needs_no_training_is_measured_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object) -> None:
        raise ConfigError("no such encoder")

    monkeypatch.setattr("mtlcli.studies.relate.measures.semantic_relation", missing)
    with pytest.raises(ConfigError, match="no such encoder"):
        relate(experiment(TASKS), ["performance", "semantic"], tmp_path / "study", budget=SMALL)
    assert not (tmp_path / "study/baselines").exists()


def test_one_process_at_a_time(tmp_path: Path) -> None:
    with StudyFolder(tmp_path / "study").lock(), pytest.raises(ConfigError, match="another process is working in it"):
        relate(experiment(TASKS), ["data"], tmp_path / "study")
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="can't be written to"):
        relate(experiment(TASKS), ["data"], tmp_path / "file" / "study")


def test_the_matrix_of_a_weighting_is_measured_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MTL_RUNS", str(tmp_path))
    plain = experiment(TASKS)
    assert with_relation(plain) is plain
    wanted = experiment(TASKS, weighting={"name": "relation", "from": "gradient", "project": "psd"})
    found = with_relation(wanted, budget=SMALL)
    folder = tmp_path / "made" / "relate"
    options = found.weighting.options
    assert options["from"] is None
    assert options["project"] == "psd"
    expected = build_relation_matrix(str(folder / "relation.csv"), list(TASKS))
    assert build_relation_matrix(options["matrix"], list(TASKS)).tolist() == expected.tolist()
    build(found)  # takes it
    watched = Counted()
    assert with_relation(wanted, budget=SMALL, callback=watched) == found
    assert watched.reused == ["joint run"]
