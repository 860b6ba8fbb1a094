from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision

from mtlcli.data.datasets._idx_images import IdxImages
from mtlcli.data.datasets.fashion_mnist import FashionMNIST
from mtlcli.data.datasets.mnist import MNIST
from mtlcli.errors import ConfigError, MtlError
from mtlcli.registry import datasets
from tests.data.download.collections import FakeSource, collection, idx, mnist_files, place

FILES = mnist_files()


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """A folder with a complete set of small MNIST files."""
    place(tmp_path / "MNIST/raw", FILES)
    return tmp_path / "MNIST/raw"


def test_images_equal_those_read_by_torchvision(tmp_path: Path, raw: Path) -> None:
    for split in ("train", "test"):
        ours = MNIST(root=str(tmp_path), val=0.0).examples(split, 0)
        theirs = torchvision.datasets.MNIST(tmp_path, train=split == "train")
        assert torch.equal(ours.inputs, theirs.data.unsqueeze(1))  # type: ignore[arg-type]
        assert torch.equal(ours.targets["digit"], theirs.targets)
        assert ours.inputs.dtype == torch.uint8 and ours.targets["digit"].dtype == torch.int64  # type: ignore[union-attr]


@pytest.mark.parametrize(("dataset", "theirs"), [(MNIST, "MNIST"), (FashionMNIST, "FashionMNIST")])
def test_describe_needs_no_file(dataset: type[IdxImages], theirs: str, tmp_path: Path) -> None:
    spec = dataset(root=str(tmp_path / "nowhere")).describe()
    assert spec.input_shape == (1, 28, 28) and spec.splits == ("train", "val", "test")
    assert spec.main_target is not None
    target = spec.targets[spec.main_target]
    named = getattr(torchvision.datasets, theirs).classes
    assert target.size == 10 and target.classes is not None
    assert [name.split(" - ")[0] for name in named] == list(target.classes)
    assert dataset.collection.folder == theirs
    assert {f"{file}.gz" for file in dataset.collection.files} == {
        file for file, _ in getattr(torchvision.datasets, theirs).resources
    }


def test_names_and_registration() -> None:
    for name, dataset in (("mnist", MNIST), ("fashion_mnist", FashionMNIST)):
        assert datasets[name].target is dataset and dataset.name == name
        assert set(datasets[name].options) == {"root", "download", "val", "augment"}
        assert all(option.description for option in datasets[name].options.values())


def test_missing_files_without_download(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"`mtl data fetch mnist --root .*`, or set `root` or \$MTL_DATA"):
        MNIST(root=str(tmp_path), download=False).examples("train", 0)
    assert list(tmp_path.iterdir()) == []


def test_missing_files_are_downloaded(tmp_path: Path, raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = raw / "t10k-labels-idx1-ubyte"
    gone.unlink()
    source = FakeSource(FILES)
    monkeypatch.setattr(MNIST, "collection", collection(source))
    assert len(MNIST(root=str(tmp_path)).examples("test", 0)) == 12
    assert source.asked == [[gone.name]] and gone.is_file()


def test_val_is_drawn_and_shares_memory(tmp_path: Path, raw: Path) -> None:
    dataset = MNIST(root=str(tmp_path), val=0.25)
    train, val = dataset.examples("train", 0), dataset.examples("val", 0)
    assert (len(train), len(val)) == (30, 10)
    assert train.inputs is val.inputs


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        (
            "train-images-idx3-ubyte",
            FILES["train-images-idx3-ubyte"][:-100],
            "its header gives 40 examples, 31360 bytes; it has at most 31260",
        ),
        ("train-labels-idx1-ubyte", FILES["t10k-labels-idx1-ubyte"], "12 labels, but 40 images"),
        ("train-labels-idx1-ubyte", idx(np.arange(0)), "contains no examples"),
        (
            "train-labels-idx1-ubyte",
            idx(torch.full((40,), 77).numpy()),
            r"label 77 of example 0 \(counted from 0\) is not one of the 10 classes",
        ),
    ],
)
def test_the_error_of_a_damaged_file_names_the_fetch_command(
    tmp_path: Path, raw: Path, file: str, content: bytes, message: str
) -> None:
    (raw / file).write_bytes(content)
    with pytest.raises(MtlError, match=rf"{file}: .*{message}.*`mtl data fetch mnist --root .*`"):
        MNIST(root=str(tmp_path)).examples("train", 0)


REAL = Path("data")


@pytest.mark.parametrize("dataset", [MNIST, FashionMNIST])
def test_the_real_data_if_available(dataset: type[IdxImages]) -> None:
    if set(dataset.collection.check(REAL).values()) != {"ok"}:
        pytest.skip("`make data` has not been run")
    spec, test = dataset().describe(), dataset(root=str(REAL)).examples("test", 0)
    whole = dataset(root=str(REAL), val=0.0).examples("train", 0)
    assert isinstance(whole.inputs, torch.Tensor) and len(whole) == 60_000 and len(test) == 10_000
    counts, values = np.bincount(whole.inputs.numpy().ravel(), minlength=256), np.arange(256)
    mean = np.average(values, weights=counts)
    assert spec.mean[0] == pytest.approx(mean, abs=0.02)
    assert spec.std[0] == pytest.approx(np.sqrt(np.average((values - mean) ** 2, weights=counts)), abs=0.02)
