import csv
import errno
import json
import os
import threading
from pathlib import Path

import pytest
import torch
import yaml

import mtlcli
from mtlcli.config import load_experiment
from mtlcli.errors import ConfigError, MtlError
from mtlcli.training.assembly.build import build, rebuild
from mtlcli.training.callbacks import Callback
from mtlcli.training.checkpoint.file import load_checkpoint
from mtlcli.training.evaluate import TaskMetrics, evaluate
from mtlcli.training.failures import DivergedError
from mtlcli.training.run_folder import RunFolder
from mtlcli.training.state import TrainerState
from mtlcli.training.trainer import Trainer
from tests.training.experiments import digits, training

FILES = {"config.yaml", "environment.json", "metrics.csv", "summary.json", "table.csv", "table.md", "log.txt",
         "checkpoints/last.pt", "checkpoints/last-1.pt", "checkpoints/best.pt", "plots/losses.png", "plots/metrics.png",
         "plots/weights.png", "plots/learning_rates.png", "plots/confusion-digit.png",
         "plots/confusion-digit.csv", "plots/calibration-digit.png"}  # fmt: skip


def test_the_files_of_the_run_folder(tmp_path: Path, plots: None) -> None:
    summary = Trainer(build(digits()), tmp_path / "run").fit()
    folder = tmp_path / "run"
    assert {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()} - {".lock"} == FILES
    assert json.loads((folder / "summary.json").read_text()) == json.loads(json.dumps(summary))
    assert summary["status"] == "completed"
    assert set(summary["metrics"]) == {"val", "test"}
    assert summary["parameters"]["total"] == summary["parameters"]["shared"] + sum(
        summary["parameters"]["tasks"].values()
    )
    assert len(summary["seconds_per_epoch"]) == summary["epochs"] == 2
    for name in FILES:
        if name.endswith(".png"):
            assert (folder / name).read_bytes().startswith(b"\x89PNG")
    with (folder / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["epoch", "step", "split", "task", "metric", "value"]
    assert {row["epoch"] for row in rows} == {"1", "2"}
    with (folder / "table.csv").open() as file:
        table = {(row["split"], row["task"]): row for row in csv.DictReader(file)}
    for split, tasks in summary["metrics"].items():
        for task, values in tasks.items():
            assert {m: float(table[split, task][m]) for m in values} == values  # every digit
            assert int(table[split, task]["n"]) == summary["examples"][split][task] == {"val": 287, "test": 360}[split]
    assert "| test | digit | 360 |" in (folder / "table.md").read_text()


def test_a_checkpoint_reproduces_the_metrics_of_the_table(tmp_path: Path) -> None:
    summary = Trainer(build(digits(weighting="uncertainty")), tmp_path / "run").fit()
    payload = load_checkpoint(summary["checkpoint"])
    run = rebuild(mtlcli.config.experiment_from_dict(payload["config"]), payload)
    for split, metrics in summary["metrics"].items():
        assert evaluate(run, split) == metrics


def test_the_resolved_config_reproduces_the_run(tmp_path: Path) -> None:
    first = Trainer(build(digits()), tmp_path / "a").fit()
    again = Trainer(build(load_experiment(tmp_path / "a/config.yaml")), tmp_path / "b").fit()
    assert again["metrics"] == first["metrics"]
    assert yaml.safe_load((tmp_path / "b/config.yaml").read_text()) == yaml.safe_load(
        (tmp_path / "a/config.yaml").read_text()
    )


def test_accuracy_matches_counting(tmp_path: Path) -> None:
    run = build(digits())
    Trainer(run, tmp_path / "run").fit()
    examples = run.examples("test")["digits"]
    inputs = examples.inputs if examples.rows is None else examples.inputs[examples.rows]  # type: ignore[index]
    target = examples.targets["digit"] if examples.rows is None else examples.targets["digit"][examples.rows]
    run.model.eval()
    with torch.no_grad():
        predicted = run.model({"digits": inputs})["digit"].argmax(1)
    right = int((predicted == target).sum())
    assert evaluate(run, "test")["digit"]["accuracy"] == right / len(target)


@pytest.mark.parametrize(("optimizer", "culprit"), [({"name": "SGD", "lr": 1e30}, "digit|ink")])
def test_a_diverging_run_stops_with_the_task_and_step(
    tmp_path: Path, optimizer: dict[str, object], culprit: str
) -> None:
    with pytest.raises(DivergedError, match=rf"the loss of task '({culprit})' is (nan|inf) at step \d+.*learning rate"):
        Trainer(build(digits(optimizer=optimizer)), tmp_path / "run").fit()
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    assert summary["status"] == "failed"
    assert "the loss of task" in summary["error"]
    assert (tmp_path / "run/checkpoints/last.pt").exists()
    for value in load_checkpoint(tmp_path / "run/checkpoints/last.pt")["model"].values():
        assert value.isfinite().all()


def test_early_stopping_keeps_the_best_epoch(tmp_path: Path) -> None:
    experiment = digits(
        optimizer={"name": "SGD", "lr": 1e-12},  # nothing gets better after the first epoch
        training=training(epochs=50, early_stopping=3),
    )
    summary = Trainer(build(experiment), tmp_path / "run").fit()
    assert summary["best"]["epoch"] <= 2
    assert summary["epochs"] == summary["best"]["epoch"] + 3


def test_a_locked_folder_is_refused(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.make()
    with folder.lock(), pytest.raises(ConfigError, match="another process is training into it"):
        Trainer(build(digits()), tmp_path / "run").fit()


def test_a_run_works_in_a_thread(tmp_path: Path) -> None:
    statuses: list[str] = []
    thread = threading.Thread(target=lambda: statuses.append(Trainer(build(digits()), tmp_path / "r").fit()["status"]))
    thread.start()
    thread.join()
    assert statuses == ["completed"]


@pytest.mark.parametrize("name", ["Adam", "AdamW", "SGD", "Adagrad", "RMSprop", "NAdam", "RAdam", "Adamax", "ASGD",
                                  "Rprop", "Adadelta", "Adafactor"])  # fmt: skip
def test_every_optimizer_by_name_trains(tmp_path: Path, name: str) -> None:
    experiment = digits(optimizer={"name": name}, training=training(epochs=1))
    assert Trainer(build(experiment), tmp_path / name).fit()["status"] == "completed"


def test_scheduler_steps_per_interval(tmp_path: Path) -> None:
    for interval, expected in (("epoch", 2), ("step", 12)):
        scheduler = {"name": "StepLR", "step_size": 1, "gamma": 0.5, "interval": interval}
        experiment = digits(scheduler=scheduler, optimizer={"name": "SGD", "lr": 1.0}, training=training())
        trainer = Trainer(build(experiment), tmp_path / interval)
        trainer.fit()
        assert trainer.state.progress.steps == 12
        assert trainer.state.step.optimizer.param_groups[0]["lr"] == pytest.approx(0.5**expected)


def test_warm_start_takes_the_trunk_and_may_freeze_it(tmp_path: Path) -> None:
    first = Trainer(build(digits()), tmp_path / "first").fit()
    trunk = {"name": "mlp", "hidden": [16], "features": 8, "init_from": first["checkpoint"], "frozen": True}
    run = build(digits(trunk=trunk, seed=5))
    Trainer(run, tmp_path / "second").fit()
    saved = load_checkpoint(first["checkpoint"])["model"]
    for name, value in run.model.state_dict().items():
        if ".trunk." in name:
            assert torch.equal(value, saved[name])
    wrong = {**trunk, "features": 9}
    with pytest.raises(ConfigError, match=r"trunk.init_from.*differs from this one"):
        build(digits(trunk=wrong))


def test_build_train_and_evaluate_from_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MTL_RUNS", str(tmp_path))
    from mtlcli import Trainer, build, evaluate, load_experiment

    run = build(load_experiment("configs/digits.yaml", ["training.epochs=1"]))
    summary = Trainer(run).fit()
    assert evaluate(run, split="test") == summary["metrics"]["test"]
    assert Path(summary["run_dir"]).parent == tmp_path / "digits"
    assert summary["run_dir"].endswith("Z-0")


def test_a_full_disk_ends_the_run_with_a_message_and_keeps_checkpoints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class FullAfterOneEpoch(Callback):
        def on_epoch_end(self, state: TrainerState, metrics: TaskMetrics) -> None:
            monkeypatch.setattr(os, "fsync", full)

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(MtlError, match="can't be written: No space left on device"):
        Trainer(build(digits()), tmp_path / "run", callbacks=[FullAfterOneEpoch()]).fit()
    monkeypatch.undo()
    assert load_checkpoint(tmp_path / "run/checkpoints/last.pt")["progress"]["epoch"] == 1
    assert not [path for path in (tmp_path / "run").rglob(".*") if path.name != ".lock"]


def unlabelled_in_val(tmp_path: Path) -> Path:
    """Write a table whose target z has no label in the split `val`, and whose target y is easy."""
    rows = [f"{i % 7},{i % 2},{'' if i % 3 == 1 else i % 5 // 3},{('train', 'val', 'test')[i % 3]}" for i in range(300)]
    (tmp_path / "t.csv").write_text("\n".join(["x,y,z,part", *rows]) + "\n")
    return tmp_path / "t.csv"


@pytest.mark.parametrize("tasks", [["y", "z"], ["z"]])
def test_a_metric_without_a_value_does_not_pick_the_best_epoch(
    tmp_path: Path, tasks: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    table = {"name": "csv", "path": str(unlabelled_in_val(tmp_path)), "targets": ["y", "z"], "split_column": "part"}
    experiment = digits(
        datasets={"t": table},
        tasks={name: {"dataset": "t", "target": name, "kind": "binary"} for name in tasks},
        trunk={"name": "mlp", "hidden": [8], "features": 4},
        training=training(epochs=3, batch_size=10),
    )
    trainer = Trainer(build(experiment), tmp_path / "run")
    summary = trainer.fit()
    assert "z: no value to monitor" in caplog.text
    if tasks == ["z"]:
        assert summary["best"]["epoch"] == 3  # the latest
    else:
        accuracies = trainer.state.history.series("val", "accuracy")["y"][1]
        assert summary["best"]["value"] == max(accuracies)
        assert summary["best"]["epoch"] == accuracies.index(max(accuracies)) + 1


def test_an_error_of_torch_is_reported_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch refuses a batch of one example under batch norm; the check that finds it earlier is disabled."""
    for module in ("build", "data_checks"):
        monkeypatch.setattr(f"mtlcli.training.assembly.{module}.check_batch_norm", lambda run, sampler: None)
    experiment = digits(
        trunk={"name": "torchvision", "model": "resnet18"},
        tasks={"digit": {"dataset": "digits", "target": "digit", "kind": "classification"}},
        training=training(batch_size=1),
    )
    trainer = Trainer(build(experiment), tmp_path / "run")
    with pytest.raises(MtlError, match="the run failed: batch norm got one value per channel") as caught:
        trainer.fit()
    assert len(str(caught.value).splitlines()) == 1
    assert trainer.summary is not None
    assert trainer.summary["status"] == "failed"
    assert "Traceback" in (tmp_path / "run/log.txt").read_text()


def test_new_folders_are_never_shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MTL_RUNS", str(tmp_path))
    folders = [RunFolder.new("x", 0).path for _ in range(3)]
    assert len(set(folders)) == 3
    assert all(folder.is_dir() for folder in folders)


def test_temporary_files_are_removed(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.make()
    (folder.last.parent / ".unfinished-last.pt.abc.pt").write_text("half")
    (folder.path / ".my.yaml").write_text("a file of the user's")
    summary = Trainer(build(digits()), tmp_path / "run").fit()
    assert summary["status"] == "completed"
    assert not list(folder.last.parent.glob(".*"))
    assert (folder.path / ".my.yaml").exists()


def test_resume_must_creates_no_folder(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no checkpoint"):
        Trainer(build(digits()), tmp_path / "run", resume="must")
    assert not (tmp_path / "run").exists()
