from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mtlcli.data.base import Dataset, Examples, add_val_split
from mtlcli.data.datasets.digits import Digits
from mtlcli.data.datasets.fashion_mnist import FashionMNIST
from mtlcli.data.datasets.mnist import MNIST
from mtlcli.errors import ConfigError
from mtlcli.specs import DatasetSpec, TargetSpec


class Numbers(Dataset):
    """`size` training examples whose inputs are their row numbers, of which `rows` are used."""

    def __init__(self, size: int, own: tuple[str, ...] = ("train", "test"), val: float = 0.25) -> None:
        super().__init__(val=val)
        self.size, self.own, self.reads = size, own, 0

    def describe(self) -> DatasetSpec:
        splits = add_val_split(self.own, self.val)
        return DatasetSpec((1,), {"n": TargetSpec("real")}, "n", splits, (0.0,), (1.0,), {})

    def own_splits(self) -> tuple[str, ...]:
        return self.own

    def read(self, split: str) -> Examples:
        self.reads += 1
        whole = torch.arange(2 * self.size, dtype=torch.float32)
        return Examples(whole.unsqueeze(1), {"n": whole}, torch.arange(0, 2 * self.size, 2))


class Published(Numbers):
    fixed = True


def rows(examples: Examples) -> list[int]:
    assert examples.rows is not None
    return examples.rows.tolist()


@given(size=st.integers(2, 60), seed=st.integers(0, 100), val=st.floats(0.01, 0.6), fixed=st.booleans())
def test_val_is_drawn_from_the_split_train_of_the_data(size: int, seed: int, val: float, fixed: bool) -> None:
    if round(val * size) >= size:
        return
    dataset = (Published if fixed else Numbers)(size, val=val)
    train, valid = dataset.examples("train", seed), dataset.examples("val", seed)
    assert sorted(rows(train) + rows(valid)) == list(range(0, 2 * size, 2))
    assert len(valid) == max(1, round(val * size)) if fixed else 0 < len(valid) < size
    assert train.inputs is valid.inputs and dataset.reads == 1


def test_val_depends_on_the_seed() -> None:
    first, same, other = (rows(Numbers(50).examples("val", seed)) for seed in (1, 1, 2))
    assert first == same != other


def test_an_existing_val_is_used() -> None:
    dataset = Numbers(10, own=("train", "val", "test"))
    assert len(dataset.examples("val", 0)) == len(dataset.examples("train", 0)) == 10
    assert dataset.describe().splits == ("train", "val", "test")


def test_drawn_examples_stay_drawn() -> None:
    """The 50 existing examples keep their split when 70 are added and when the order changes."""
    few, many = rows(Numbers(50).examples("val", 3)), rows(Numbers(120).examples("val", 3))
    assert few == [row for row in many if row < 100] and len(many) > len(few)
    few, many = rows(Published(50).examples("val", 3)), rows(Published(120).examples("val", 3))
    assert few != [row for row in many if row < 100]


def test_all_examples() -> None:
    class Parts(Numbers):
        def read(self, split: str) -> Examples:
            whole = super().read(split)
            start = 0 if split == "train" else self.size
            inputs = whole.inputs[start : start + 5]
            return Examples([*inputs] if self.val == 0.5 else inputs, {"n": whole.targets["n"][start : start + 5]})

    assert rows(Numbers(4, own=("train",)).examples("all", 0)) == [0, 2, 4, 6]
    shared = Digits().examples("all", 0)
    assert rows(shared) == list(range(1797)) and len(shared.targets["digit"]) == 1797
    for val in (0.25, 0.5):  # in memory, and one at a time
        both = Parts(9, val=val).examples("all", 0)
        assert [float(both.inputs[row]) for row in range(len(both))] == both.targets["n"].tolist()
        assert both.targets["n"].tolist() == [*range(5), *range(9, 14)] and both.rows is None


def test_unknown_and_empty_splits() -> None:
    with pytest.raises(ConfigError, match=r"no split 'val' \(its option `val` is 0\)"):
        Numbers(10, val=0.0).examples("val", 0)
    with pytest.raises(ConfigError, match="no split 'dev'; its splits are: train, val, test"):
        Numbers(10).examples("dev", 0)
    with pytest.raises(ConfigError, match="leaves none to train on"):
        Numbers(1).examples("train", 0)
    with pytest.raises(ConfigError, match="the split 'train' has no examples"):
        Numbers(0, val=0.0).examples("train", 0)


def test_augment_is_checked_at_construction() -> None:
    class Augmented(Numbers):
        def __init__(self) -> None:
            Dataset.__init__(self, augment=["RandomHorizontalFlop"])

    with pytest.raises(ValueError, match="Did you mean 'RandomHorizontalFlip'"):
        Augmented()


def test_restore_keeps_the_statistics_of_the_checkpoint() -> None:
    here = Digits(val=0.0).describe()
    stored = replace(
        here, targets={"digit": here.targets["digit"]}, mean=(1.0,), std=(2.0,), splits=("train", "val", "test")
    )
    assert Digits(val=0.0).restore(stored) == replace(stored, splits=("train", "test"))


def test_restoring_another_dataset_lists_all_differences() -> None:
    with pytest.raises(ConfigError) as caught:
        MNIST().restore(Digits().describe())
    messages = [problem.message for problem in caught.value.problems]
    assert messages == [
        "the checkpoint was trained on inputs 1×8×8, but these are 1×28×28",
        "the data has no target 'parity', on which the checkpoint was trained",
        "the data has no target 'ink', on which the checkpoint was trained",
        "the data has no target 'segments', on which the checkpoint was trained",
    ]
    with pytest.raises(ConfigError, match="the data has no target 'garment'"):
        MNIST().restore(FashionMNIST().describe())
    spec = MNIST().describe()
    letters = replace(spec, targets={"digit": TargetSpec("classes", 3, tuple("abc"))})
    with pytest.raises(ConfigError, match="type classes, 3: a, b, c, but here it is of type classes, 10: 0, 1"):
        MNIST().restore(letters)
