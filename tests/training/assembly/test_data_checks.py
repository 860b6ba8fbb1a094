"""All data is opened before the first step, and errors while reading name the dataset."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mtlcli.cli import main
from mtlcli.config import load_experiment
from mtlcli.data.base import Dataset, Examples
from mtlcli.data.dataset_loader import DatasetLoader
from mtlcli.data.placement import Placement
from mtlcli.errors import ConfigError, MtlError
from mtlcli.registry import datasets
from mtlcli.specs import DatasetSpec, TargetSpec
from mtlcli.training import report as summary_module
from mtlcli.training.assembly.build import build
from mtlcli.training.callbacks import Callback
from mtlcli.training.state import TrainerState
from mtlcli.training.trainer import Trainer
from tests.training.experiments import digits, training

STREAMED = ["training.loading=stream", "training.workers=0"]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    for split, amount in (("train", 4), ("val", 2), ("test", 2)):
        for name in ("cat", "dog"):
            folder = tmp_path / "pets" / split / name
            folder.mkdir(parents=True)
            for number in range(amount):
                pixels = np.random.default_rng(number).integers(0, 256, (6, 5, 3)).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")
    path = tmp_path / "c.yaml"
    path.write_text(
        f"datasets:\n  pets: {{name: image_folder, root: {tmp_path / 'pets'}}}\n"
        "tasks: {what: {dataset: pets, kind: classification}}\n"
        "trunk: {name: mlp, hidden: [4], features: 4}\n"
        "training: {epochs: 1, device: cpu, threads: 1}\n"
    )
    return path


def test_damaged_files_of_all_splits_are_reported_before_a_run(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in ("train/dog/3.png", "val/cat/0.png", "test/dog/1.png"):
        file = tmp_path / "pets" / path
        file.write_bytes(file.read_bytes()[:60])
    for verb in (["validate"], ["train", "--dry-run"], ["train", "--run-dir", str(tmp_path / "run")]):
        assert main([*verb, str(config)]) == 2
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 3 and all(f"{config}:2:9: datasets.pets: " in line for line in lines)
        assert [line.count("can't be read as an image") for line in lines] == [1, 1, 1]
    assert not (tmp_path / "run").exists()


def test_study_reports_damaged_files_before_its_first_run(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "pets/test/dog/1.png").write_bytes(b"none")
    arguments = ["compare", str(config), "--vary", "optimizer.lr=0.1,0.2", "--seeds", "1"]
    assert main([*arguments, "--out", str(tmp_path / "study")]) == 2
    assert f"{config}:2:9: datasets.pets: " in capsys.readouterr().err and not (tmp_path / "study").exists()


def test_damaged_first_image_is_reported(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "pets/train/cat/0.png").write_bytes(b"none")
    assert main(["validate", str(config)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "datasets.pets: " in line and "cat/0.png: is not an image" in line


class Odd(Dataset):
    """A dataset of a plugin whose split `test` differs from its description."""

    def __init__(self, *, fault: str) -> None:
        super().__init__()
        self.fault = fault

    def describe(self) -> DatasetSpec:
        return DatasetSpec((8,), {"y": TargetSpec("classes", 3)}, "y", ("train", "val", "test"), (0.0,), (1.0,), {})

    def own_splits(self) -> tuple[str, ...]:
        return "train", "val", "test"

    def read(self, split: str) -> Examples:
        inputs, labels = torch.zeros(6, 8), torch.tensor([0, 1, 2, 0, 1, 2])
        if split == "test":
            if self.fault == "key":
                return {}["no such file"]  # type: ignore[no-any-return]
            if self.fault == "shape":
                inputs = torch.zeros(6, 9)
            if self.fault == "label":
                labels[3] = 3
            if self.fault == "length":
                labels = labels[:5]
            if self.fault == "target":
                return Examples(inputs, {"z": labels})
        return Examples(inputs, {"y": labels})


@pytest.mark.parametrize(
    ("fault", "message"),
    {
        "key": r"datasets.odd: the examples can't be read: KeyError: 'no such file'",
        "shape": "datasets.odd: the split 'test': the first example is 9, but the inputs of the dataset are 8",
        "label": "datasets.odd: the split 'test': .* is 3, expected a class from 0 to 2, or -100",
        "length": "datasets.odd: the split 'test': 5 labels 'y' for 6 examples",
        "target": "datasets.odd: the split 'test': no target 'y'. Targets: z",
    }.items(),
)
def test_test_split_that_differs_from_its_description_is_refused(fault: str, message: str, tmp_path: Path) -> None:
    datasets.register("odd")(Odd)
    experiment = digits(
        datasets={"odd": {"name": "odd", "fault": fault}},
        tasks={"t": {"dataset": "odd", "kind": "classification"}},
        trunk={"name": "mlp", "hidden": [4], "features": 4},
        training=training(batch_size=3),
    )
    with pytest.raises(MtlError, match=message) as caught:
        Trainer(build(experiment), tmp_path / "run")
    assert isinstance(caught.value, ConfigError) == (fault != "key") and not (tmp_path / "run").exists()


class Late:
    """Inputs that are read individually, the last of which fails."""

    def __len__(self) -> int:
        return 6

    def __getitem__(self, row: int) -> torch.Tensor:
        if row == 5:
            raise KeyError("the last")
        return torch.zeros(8)


def test_examples_read_individually_are_checked(tmp_path: Path) -> None:
    class Lazy(Odd):
        def read(self, split: str) -> Examples:
            examples = super().read(split)
            return Examples(Late(), examples.targets) if split == self.fault else examples

    datasets.register("lazy")(Lazy)
    for split in ("val", "test"):
        experiment = digits(
            datasets={"odd": {"name": "lazy", "fault": split}},
            tasks={"t": {"dataset": "odd", "kind": "classification"}},
            trunk={"name": "mlp", "hidden": [4], "features": 4},
            training=training(batch_size=3),
        )
        with pytest.raises(MtlError, match=r"datasets.odd: the examples can't be read: KeyError: 'the last'"):
            Trainer(build(experiment), tmp_path / "run")


class Failing:
    """Inputs that are read individually, some of which fail."""

    def __len__(self) -> int:
        return 30

    def __getitem__(self, row: int) -> torch.Tensor:
        if row >= 16:
            raise MtlError(f"row {row} is damaged")
        if row == 15:
            raise OSError("the disk is gone")
        return torch.zeros(3)


@pytest.mark.parametrize(("loading", "workers"), [("resident", 0), ("stream", 0), ("stream", 1)])
@pytest.mark.parametrize("first", [15, 16])
def test_errors_while_reading_name_the_dataset(loading: str, workers: int, first: int) -> None:
    placement = Placement(torch.device("cpu"), loading, workers)  # type: ignore[arg-type]
    rows = torch.arange(first, 30) if loading == "stream" else None
    examples = Examples(Failing(), {}, rows)

    def read() -> None:
        DatasetLoader("pets", examples, {}, 0, placement).start_epoch(0, 4, iter([(0, 4)]), shuffled=False).fetch(0, 4)

    with pytest.raises(MtlError) as caught:
        read()
    lines = str(caught.value).splitlines()
    assert all(line.startswith("datasets.pets: ") for line in lines)
    if first == 15 or loading == "resident":
        assert "the examples can't be read: OSError: the disk is gone" in lines[0]
    else:
        assert lines == ["datasets.pets: row 16 is damaged"]


def test_damaged_examples_are_reported_together() -> None:
    class Damaged(Failing):
        def __getitem__(self, row: int) -> torch.Tensor:
            return torch.zeros(3) if row < 16 else super().__getitem__(row)

    with pytest.raises(MtlError) as caught:
        DatasetLoader("pets", Examples(Damaged(), {}), {}, 0, Placement(torch.device("cpu"), "resident"))
    lines = str(caught.value).splitlines()
    assert len(lines) == 11 and lines[-1] == "datasets.pets: … and 4 more"


class Damaging(Callback):
    """Callback that damages a file when an epoch begins."""

    def __init__(self, file: Path) -> None:
        self.file, self.content = file, file.read_bytes()

    def on_epoch_start(self, state: TrainerState) -> None:
        self.damage()

    def damage(self) -> None:
        self.file.write_bytes(self.content[:60])

    def repair(self) -> None:
        self.file.write_bytes(self.content)


def test_split_damaged_during_training_does_not_affect_the_others(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """If the test split is damaged, the table of `val` is written, and a resumed run adds `test`."""
    run_dir, damaging = tmp_path / "run", Damaging(tmp_path / "pets/test/dog/1.png")
    trainer = Trainer(build(load_experiment(str(config), [])), run_dir, callbacks=[damaging])
    with pytest.raises(MtlError, match=r"test: datasets.pets: .*dog/1.png: .*truncated[^!]*--resume must") as caught:
        trainer.fit()
    assert caught.value.exit_code == 1
    summary = json.loads((run_dir / "summary.json").read_text())
    assert summary["status"] == "failed" and summary["error"] == str(caught.value)
    assert list(summary["metrics"]) == ["val"] and "| val | what | 4 |" in (run_dir / "table.md").read_text()
    assert (run_dir / "checkpoints/best.pt").exists()
    damaging.repair()
    assert main(["train", str(config), "--run-dir", str(run_dir), "--resume", "must", "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["status"] == "completed" and summary["error"] is None and list(summary["metrics"]) == ["val", "test"]


@pytest.mark.parametrize("resumed", [False, True])
def test_evaluated_split_damaged_at_the_end_keeps_its_metrics(config: Path, tmp_path: Path, resumed: bool) -> None:
    """The metrics of the split are those of the best epoch, even if it preceded the resumption."""
    run_dir, damage = tmp_path / "run", Damaging(tmp_path / "pets/val/dog/1.png")
    if resumed:
        Trainer(build(load_experiment(str(config), STREAMED)), run_dir).fit()
    trainer = Trainer(build(load_experiment(str(config), STREAMED)), run_dir, resume="auto")
    with pytest.MonkeyPatch.context() as patched:
        finish = summary_module.finish

        def damaging(*args: Any) -> Any:
            damage.damage()
            return finish(*args)

        patched.setattr("mtlcli.training.trainer.finish", damaging)
        with pytest.raises(MtlError, match=r"val: datasets.pets: .*val/dog/1.png"):
            trainer.fit()
    assert trainer.summary is not None and list(trainer.summary["metrics"]) == ["val", "test"]
    rows = {(row[2], row[4]): row[5] for row in trainer.state.history.rows if row[3] == "what"}
    assert trainer.summary["metrics"]["val"]["what"]["accuracy"] == rows["val", "accuracy"]


def test_steps_of_an_epoch_that_cannot_be_evaluated_are_kept(config: Path, tmp_path: Path) -> None:
    damaging = Damaging(tmp_path / "pets/val/dog/1.png")
    trainer = Trainer(build(load_experiment(str(config), STREAMED)), tmp_path / "run", callbacks=[damaging])
    with pytest.raises(MtlError, match=r"datasets.pets: .*val/dog/1.png"):
        trainer.fit()
    assert trainer.checkpoints.load()["progress"]["steps"] == trainer.state.steps_per_epoch
    damaging.repair()
    again = Trainer(build(load_experiment(str(config), STREAMED)), tmp_path / "run", resume="must")
    assert again.fit()["status"] == "completed"
