"""`mtl data`, called like the console script."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from mtlcli.cli import main
from mtlcli.data.datasets.fashion_mnist import FashionMNIST
from mtlcli.data.datasets.mnist import MNIST
from mtlcli.data.download.pip_package import PipPackage
from mtlcli.data.download.status import list_datasets
from mtlcli.data.download.weights import SOURCES, collection_of
from mtlcli.pretrained import WEIGHTS, PretrainedWeights, find_weights, locate_weights
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
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line}
    assert set(lines) >= {"dataset", "table", "digits", "fashion_mnist", "image_folder", "mnist"}
    assert "2 ok, 1 damaged, 1 missing" in lines["mnist"] and str(root / "MNIST/raw") in lines["mnist"]
    assert "missing" in lines["fashion_mnist"] and "included in scikit-learn" in lines["digits"]
    assert list_datasets()["mnist"] == "2 ok, 1 damaged, 1 missing"


WEIGHT_FILES = {"config.json": b"{}", "inner/config.json": b"[1]"}


@pytest.fixture
def weights(root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Pretrained weights `tiny` that a fake source has."""
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in WEIGHT_FILES.items()}
    monkeypatch.setitem(WEIGHTS, "tiny", PretrainedWeights(digests, None))  # type: ignore[index]
    monkeypatch.setitem(SOURCES, "tiny", ("a laboratory", (FakeSource(WEIGHT_FILES),)))
    return root


def test_fetch_and_find_weights(weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(
        ValueError, match=r"'tiny' are not in .*tiny \(missing: config.json, .*run `mtl data fetch tiny`"
    ):
        find_weights("tiny")
    assert main(["data", "fetch", "tiny", "digits"]) == 0
    assert f"tiny: {weights / 'tiny/config.json'}: checksum ok, the fake source" in capsys.readouterr().out
    assert find_weights("tiny") == weights / "tiny" and find_weights("other") is None
    (weights / "tiny/config.json").write_bytes(b"[]")
    assert main(["data", "list"]) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("tiny"))
    assert "1 ok, 1 damaged" in line and "a laboratory" in line
    assert main(["data", "fetch", "tiny"]) == 0 and (weights / "tiny/config.json").read_bytes() == b"{}"


def test_a_mistyped_name_of_weights(weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "fetch", "minlm"]) == 2
    message = capsys.readouterr().err
    assert "Did you mean 'minilm'?" in message and "Pretrained weights: minilm, mobilenet_v2" in message


def test_the_file_of_weights_that_a_configuration_names(weights: Path, tmp_path: Path) -> None:
    file = tmp_path / "own.pth"
    file.write_bytes(b"")
    assert locate_weights(str(file)) == file
    with pytest.raises(ValueError, match="Did you mean 'mobilenet_v2'"):
        locate_weights("mobilnet_v2")
    with pytest.raises(ValueError, match="is a folder"):
        locate_weights(str(tmp_path))
    (weights / "mobilenet_v2").mkdir()
    (weights / "mobilenet_v2/mobilenet_v2-b0353104.pth").write_bytes(b"")
    assert locate_weights("mobilenet_v2") == weights / "mobilenet_v2/mobilenet_v2-b0353104.pth"


def test_every_weights_have_sources_of_their_files() -> None:
    assert SOURCES.keys() == WEIGHTS.keys()
    for name, weights in WEIGHTS.items():
        assert weights.main is None or weights.main in weights.files
        assert collection_of(name).raw(Path("data")) == Path("data", name)
        packages = [source for source in SOURCES[name][1] if isinstance(source, PipPackage)]
        assert all(package.paths.keys() == weights.files.keys() for package in packages)
