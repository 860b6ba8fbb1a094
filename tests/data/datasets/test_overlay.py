"""MultiMNIST, MultiFashion and Multi-(Fashion+MNIST)."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from mtlcli.cli import main
from mtlcli.data.base import Examples
from mtlcli.data.datasets._overlay import OverlaidImages, overlay
from mtlcli.data.datasets.fashion_mnist import FashionMNIST
from mtlcli.data.datasets.mnist import MNIST
from mtlcli.data.datasets.multi_fashion import MultiFashion
from mtlcli.data.datasets.multi_fashion_mnist import MultiFashionMNIST
from mtlcli.data.datasets.multi_mnist import MultiMNIST
from mtlcli.data.samplers.base import stable_seed
from mtlcli.errors import ConfigError
from mtlcli.registry import datasets
from tests.data.download.collections import SIZES, FakeSource, collection, idx, mnist_files, place
from tests.oracles.overlaid import overlaid

ALL = [MultiMNIST, MultiFashion, MultiFashionMNIST]
SPLITS = ("train", "val", "test")


def plain(first: int) -> dict[str, bytes]:
    """Images of one gray value each: from `first` on in `train`, the following ones in `test`. Labels: value mod 10."""
    files = {}
    for split, size in SIZES.items():
        greys = np.arange(first, first + size)
        files[f"{split}-images-idx3-ubyte"] = idx(np.broadcast_to(greys[:, None, None], (size, 28, 28)))
        files[f"{split}-labels-idx1-ubyte"] = idx(greys % 10)
        first += size
    return files


@pytest.fixture
def root(tmp_path: Path) -> str:
    """MNIST's images have the gray values 1 … 52, FashionMNIST's 101 … 152."""
    place(tmp_path / "MNIST/raw", plain(1))
    place(tmp_path / "FashionMNIST/raw", plain(101))
    return str(tmp_path)


def images(examples: Examples) -> Tensor:
    assert isinstance(examples.inputs, Tensor) and examples.rows is None
    return examples.inputs


def greys(examples: Examples) -> tuple[list[int], list[int]]:
    """Identify the left and right images of `plain` by their top left and bottom right corners."""
    return images(examples)[:, 0, 0, 0].tolist(), images(examples)[:, 0, 25, 25].tolist()


def random_images(seed: int) -> np.ndarray:
    """Noise, half of it black like in a digit: uint8 [20, 28, 28]."""
    generator = np.random.default_rng(seed)
    return (generator.integers(0, 256, (20, 28, 28)) * generator.integers(0, 2, (20, 28, 28))).astype(np.uint8)


def test_overlay_matches_the_definition_pixel_by_pixel() -> None:
    left, right = random_images(0), random_images(1)
    ours = overlay(torch.from_numpy(left)[:, None], torch.from_numpy(right)[:, None])
    assert ours.dtype == torch.uint8 and ours.shape == (20, 1, 28, 28) and ours.is_contiguous()
    assert np.array_equal(ours[:, 0], np.stack(list(map(overlaid, left, right))))


def test_overlay_matches_resizing_by_pillow() -> None:
    """The papers' code resizes with Pillow, which samples at the center of a pixel."""
    left, right = random_images(2), random_images(3)
    ours = overlay(torch.from_numpy(left)[:, None], torch.from_numpy(right)[:, None])
    for first, other, pair in zip(left, right, ours, strict=True):
        canvas = np.maximum(np.pad(first, (0, 8)), np.pad(other, (6, 2)))
        resized = Image.fromarray(canvas).resize((28, 28), Image.Resampling.NEAREST)
        assert np.array_equal(np.asarray(resized), pair[0])


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("dataset", ALL)
def test_a_dataset_consists_of_pairs_of_its_sources_splits(
    dataset: type[OverlaidImages], split: str, tmp_path: Path
) -> None:
    files = mnist_files()
    place(tmp_path / "MNIST/raw", files)
    place(tmp_path / "FashionMNIST/raw", {name: data[:16] + data[:15:-1] for name, data in files.items()})
    singles = []
    for kind in (dataset.left, dataset.right):
        source = kind(root=str(tmp_path), download=False, val=0.3, augment=None).examples(split, 5)
        rows = slice(None) if source.rows is None else source.rows
        assert isinstance(source.inputs, Tensor)
        singles.append((source.inputs[rows].numpy(), source.targets[kind.target][rows]))
    (left, left_labels), (right, right_labels) = singles
    pairs = dataset(root=str(tmp_path), download=False, val=0.3, augment=None).examples(split, 5)
    assert len(pairs) == len(left) == {"train": 28, "val": 12, "test": 12}[split]
    partners = np.random.default_rng(stable_seed("partner", split)).integers(len(right), size=len(left))
    for row, partner in enumerate(partners):
        assert np.array_equal(images(pairs)[row, 0], overlaid(left[row, 0], right[partner, 0]))
    assert torch.equal(pairs.targets["left"], left_labels)
    assert torch.equal(pairs.targets["right"], right_labels[partners])
    assert {target.dtype for target in pairs.targets.values()} == {torch.int64}


def test_every_image_is_used_once_on_the_left_and_in_one_split(root: str) -> None:
    dataset = MultiMNIST(root=root)
    pairs = {split: greys(dataset.examples(split, 0)) for split in SPLITS}
    assert sorted(pairs["train"][0] + pairs["val"][0]) == list(range(1, 41)) and len(pairs["val"][0]) == 7
    assert pairs["test"][0] == list(range(41, 53))
    for left, right in pairs.values():  # a darker right image is seen in its corner all the same
        assert set(right) <= set(left) and left != right


@pytest.mark.parametrize("dataset", ALL)
def test_labels_match_the_images(dataset: type[OverlaidImages], root: str) -> None:
    for split in SPLITS:
        pairs = dataset(root=root, download=False, val=0.2, augment=None).examples(split, 3)
        left, right = greys(pairs)
        assert pairs.targets["left"].tolist() == [grey % 10 for grey in left]
        assert pairs.targets["right"].tolist() == [grey % 10 for grey in right]
        assert all((grey > 100) == (dataset.left is FashionMNIST) for grey in left)
        assert all((grey > 100) == (dataset.right is FashionMNIST) for grey in right)


def test_pairs_do_not_depend_on_the_global_random_state(root: str) -> None:
    pairs = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        np.random.seed(seed)
        pairs.append(images(MultiFashionMNIST(root=root).examples("train", 0)))
        left_alone = torch.rand(1).item(), np.random.rand()
        torch.manual_seed(seed)
        np.random.seed(seed)
        assert left_alone == (torch.rand(1).item(), np.random.rand())
    assert torch.equal(*pairs)


def test_the_seed_affects_train_but_not_test(root: str) -> None:
    dataset = MultiMNIST(root=root)
    assert greys(dataset.examples("test", 0)) == greys(dataset.examples("test", 1))
    assert greys(dataset.examples("train", 0)) != greys(dataset.examples("train", 1))


def test_examples_are_built_once(root: str) -> None:
    dataset = MultiMNIST(root=root)
    assert dataset.examples("train", 0) is dataset.examples("train", 0)


def test_without_val_all_images_are_in_train(root: str) -> None:
    dataset = MultiMNIST(root=root, val=0.0)
    assert dataset.describe().splits == ("train", "test")
    whole = dataset.examples("train", 0)
    assert greys(whole)[0] == list(range(1, 41))
    assert torch.equal(images(MultiMNIST(root=root).read("train")), images(whole))
    with pytest.raises(ConfigError, match=r"no split 'val' \(its option `val` is 0\)"):
        dataset.examples("val", 0)


@pytest.mark.parametrize("dataset", ALL)
def test_describe_needs_no_file(dataset: type[OverlaidImages], tmp_path: Path) -> None:
    spec = dataset(root=str(tmp_path / "nowhere"), download=False, val=1 / 6, augment=None).describe()
    assert spec.input_shape == (1, 28, 28) and spec.splits == SPLITS and spec.main_target is None
    assert list(spec.targets) == ["left", "right"]
    assert spec.targets["left"].classes == dataset.left.classes
    assert spec.targets["right"].classes == dataset.right.classes
    assert {target.size for target in spec.targets.values()} == {10}


def test_names_and_registration() -> None:
    for name, dataset in zip(("multi_mnist", "multi_fashion", "multi_fashion_mnist"), ALL, strict=True):
        assert datasets[name].target is dataset
        assert set(datasets[name].options) == {"root", "download", "val", "augment"}
        assert all(option.description for option in datasets[name].options.values())
        assert set(dataset.made_of) == {dataset.left.name, dataset.right.name}
        assert round(datasets[name].options["val"].default * 60_000) == 10_000


def test_missing_files_without_download(tmp_path: Path) -> None:
    place(tmp_path / "FashionMNIST/raw", plain(101))
    with pytest.raises(ConfigError, match=r"mnist: no train-images.*`mtl data fetch mnist --root .*`, or set `root`"):
        MultiFashionMNIST(root=str(tmp_path), download=False).examples("train", 0)


@pytest.fixture
def fetchable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty data root; MNIST and FashionMNIST can be downloaded."""
    monkeypatch.setattr(MNIST, "collection", collection(FakeSource(mnist_files())))
    monkeypatch.setattr(FashionMNIST, "collection", collection(FakeSource(mnist_files()), folder="FashionMNIST"))
    monkeypatch.setenv("MTL_DATA", str(tmp_path))
    return tmp_path


def test_missing_files_are_downloaded(fetchable: Path) -> None:
    assert len(MultiFashionMNIST().examples("test", 0)) == 12
    assert {folder.name for folder in fetchable.iterdir()} == {"MNIST", "FashionMNIST"}


def test_the_command_downloads_each_source_once(fetchable: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "fetch", "multi_fashion_mnist", "mnist", "digits"]) == 0
    named = [line.split(":")[0] for line in capsys.readouterr().out.splitlines()]
    assert named == ["fashion_mnist"] * 4 + ["mnist"] * 4 + ["digits"]


def test_the_command_lists_the_sources(fetchable: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "list"]) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line}
    assert lines["multi_mnist"].endswith("composed from mnist")
    assert lines["multi_fashion_mnist"].endswith("composed from fashion_mnist and mnist")


REAL = os.environ.get("MTL_DATA", "data")


@pytest.mark.parametrize("dataset", ALL)
def test_the_real_data_if_available(dataset: type[OverlaidImages]) -> None:
    if not all(kind.collection.complete(Path(REAL)) for kind in (dataset.left, dataset.right)):
        pytest.skip("`make data` has not been run")
    whole = dataset(root=REAL, download=False, val=1 / 6, augment=None)
    spec, train = whole.describe(), whole.examples("train", 0)
    assert (len(train), len(whole.examples("val", 0)), len(whole.examples("test", 0))) == (50_000, 10_000, 10_000)
    counts, values = torch.bincount(images(train).view(-1), minlength=256).numpy(), np.arange(256)
    mean = np.average(values, weights=counts)
    assert spec.mean[0] == pytest.approx(mean, abs=0.02)
    assert spec.std[0] == pytest.approx(np.sqrt(np.average((values - mean) ** 2, weights=counts)), abs=0.02)
