"""`mtl data`, called like the console script."""

from __future__ import annotations

from pathlib import Path

import pytest

from mtlcli.cli import main
from mtlcli.data.datasets.fashion_mnist import FashionMNIST
from mtlcli.data.datasets.mnist import MNIST
from mtlcli.data.download.status import list_datasets
from tests.data.download.collections import FakeSource, collection, mnist_files, place

FILES = mnist_files()


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty data root; MNIST can be downloaded, FashionMNIST can't."""
    monkeypatch.setattr(MNIST, "collection", collection(FakeSource(FILES)))
    monkeypatch.setattr(FashionMNIST, "collection", collection(FakeSource(None), folder="FashionMNIST"))
    monkeypatch.setenv("MTL_DATA", str(tmp_path))
    return tmp_path


def test_fetch(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "fetch", "mnist", "digits"]) == 0
    lines = capsys.readouterr().out.splitlines()
    first = root / "MNIST/raw/train-images-idx3-ubyte"
    assert lines[0] == f"mnist: {first}: checksum ok, the fake source"
    assert lines[4] == "digits: nothing to download: included in scikit-learn"
    assert main(["data", "fetch", "mnist"]) == 0
    assert capsys.readouterr().out.count("already there") == 4


def test_fetch_elsewhere(root: Path) -> None:
    assert main(["data", "fetch", "mnist", "--root", str(root / "deep/er")]) == 0
    assert (root / "deep/er/MNIST/raw").is_dir() and not (root / "MNIST").exists()


def test_a_failed_download_does_not_stop_the_others(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "fetch", "fashion_mnist", "mnist"]) == 1
    output = capsys.readouterr()
    assert output.out.count("mnist: ") == 4
    assert "fashion_mnist: can't download" in output.err and "nobody at home" in output.err


def test_an_unknown_dataset(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "fetch", "mnist", "fashon_mnist"]) == 2
    assert "Did you mean 'fashion_mnist'?" in capsys.readouterr().err
    assert list(root.iterdir()) == []


def test_a_root_that_is_a_file(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / "file").write_text("in the way")
    assert main(["data", "fetch", "mnist", "--root", str(root / "file")]) == 1
    output = capsys.readouterr()
    assert output.out == "" and output.err.count("\n") == 1
    assert output.err.endswith("file/MNIST/raw: Not a directory\n")
    assert main(["data", "list", "--root", str(root / "file")]) == 0


def test_list(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    damaged = dict(list(FILES.items())[:2]) | {"t10k-images-idx3-ubyte": b"x"}
    place(root / "MNIST/raw", damaged)
    assert main(["data", "list"]) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert set(lines) >= {"dataset", "table", "digits", "fashion_mnist", "image_folder", "mnist"}
    assert "2 ok, 1 damaged, 1 missing" in lines["mnist"] and str(root / "MNIST/raw") in lines["mnist"]
    assert "missing" in lines["fashion_mnist"] and "included in scikit-learn" in lines["digits"]
    assert list_datasets()["mnist"] == "2 ok, 1 damaged, 1 missing"
