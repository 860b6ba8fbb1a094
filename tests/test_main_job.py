"""Training on the complete MNIST and FashionMNIST, if their files are available (CI downloads them)."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mtlcli.cli import main
from mtlcli.data.datasets.fashion_mnist import FashionMNIST
from mtlcli.data.datasets.mnist import MNIST

ROOT = Path(__file__).parents[1]
THIRD = "training.sampling={name: proportional, limit: 19000}"  # of the 57,000 training images of each dataset
DATA = Path(os.environ.get("MTL_DATA", ROOT / "data"))


def there() -> bool:
    return all(kind.collection is not None and kind.collection.complete(DATA) for kind in (MNIST, FashionMNIST))


@pytest.mark.skipif(not there(), reason="MNIST and FashionMNIST are not here: make data")
def test_one_epoch_of_mnist_fmnist(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MTL_DATA", str(DATA))
    train = [sys.executable, "-m", "mtlcli", "train", ROOT / "configs" / "mnist_fmnist.yaml"]
    trained = subprocess.run(
        [*train, "training.epochs=1", THIRD, "--run-dir", tmp_path / "run", "--json"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert trained.returncode == 0, trained.stderr
    summary = json.loads(trained.stdout)
    assert summary == json.loads((tmp_path / "run/summary.json").read_text())
    assert summary["steps"] == 297  # 19,000 of each, 64 of each a step
    assert summary["loading"] == {"mnist": "resident", "fashion": "resident"}
    test = summary["metrics"]["test"]
    assert test["digit"]["accuracy"] > 0.9
    assert test["garment"]["accuracy"] > 0.7
    assert test["digit"]["accuracy"] * 10_000 % 1 == pytest.approx(0, abs=1e-9)  # of all 10,000

    assert main(["eval", summary["checkpoint"], "--json"]) == 0  # evaluation in a new command
    assert json.loads(capsys.readouterr().out)["metrics"] == test
