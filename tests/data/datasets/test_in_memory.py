"""Data passed from Python: its forms, the types of its targets, and its splits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from mtlcli.data.datasets.in_memory import InMemory
from mtlcli.errors import ConfigError
from mtlcli.specs import IGNORE_INDEX, TargetSpec

N = 60
IMAGES = torch.randint(0, 256, (N, 1, 6, 6), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
CLASSES = torch.arange(N) % 3
WORDS = np.array(["cat", "dog", "eel"])[CLASSES.numpy()]


def dataset(data: object, **options: Any) -> InMemory:
    in_memory = InMemory(**options)
    in_memory.attach(data)
    return in_memory


class Pairs(Dataset[Any]):
    """A map-style dataset of the user's."""

    def __init__(self, items: list[Any]) -> None:
        self.items, self.reads = items, 0

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, row: int) -> Any:
        self.reads += 1
        return self.items[row]


@pytest.mark.parametrize(
    "data",
    [
        (IMAGES, CLASSES),
        (IMAGES.numpy(), CLASSES.numpy()),
        (IMAGES.squeeze(1), {"target": CLASSES}),
        (IMAGES, CLASSES.tolist()),
        TensorDataset(IMAGES, CLASSES),
        Pairs([(x, int(y)) for x, y in zip(IMAGES, CLASSES, strict=True)]),
        Pairs([(x.squeeze(0), {"target": y}) for x, y in zip(IMAGES, CLASSES, strict=True)]),
        [{"input": x.numpy(), "target": y} for x, y in zip(IMAGES, CLASSES, strict=True)],
    ],
    ids=["tensors", "arrays", "grey", "lists", "TensorDataset", "pairs", "named", "dicts"],
)
def test_all_forms_of_data_give_the_same_examples(data: object) -> None:
    in_memory = dataset(data)
    spec = in_memory.describe()
    assert spec.input_shape == (1, 6, 6) and spec.state == {"dtype": "uint8", "named": []}
    assert spec.targets == {"target": TargetSpec("classes", 3)} and spec.main_target == "target"
    assert spec.splits == ("train", "val", "test")
    whole = in_memory.whole()
    assert isinstance(whole.inputs, Tensor)
    assert torch.equal(whole.inputs, IMAGES) and torch.equal(whole.targets["target"], CLASSES)
    rows = [in_memory.examples(split, 0).rows for split in spec.splits]
    assert sorted(torch.cat([r for r in rows if r is not None]).tolist()) == list(range(N))
    train = IMAGES[in_memory.read("train").rows].double()
    assert spec.mean == pytest.approx((train.mean().item(),))
    assert spec.std == pytest.approx((train.std(correction=0).item(),))


def test_an_image_of_pillow_is_read_with_its_channels_first() -> None:
    image = pytest.importorskip("PIL.Image")
    pixels = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    items = [(image.fromarray(pixels), row % 2) for row in range(4)]
    in_memory = dataset(items, test=0.0)
    assert in_memory.describe().input_shape == (3, 2, 3)
    inputs = in_memory.read("train").inputs
    assert torch.equal(inputs[0], torch.from_numpy(pixels).permute(2, 0, 1))


def test_features_are_normalized_one_by_one_and_narrowed_to_float32() -> None:
    x = np.random.default_rng(0).normal([1.0, -5.0], [2.0, 0.1], (N, 2))
    in_memory = dataset((x, {"y": x[:, 0]}), test=0.0)
    spec = in_memory.describe()
    assert spec.input_shape == (2,) and spec.state["dtype"] == "float32"
    assert spec.mean == pytest.approx(x.astype(np.float32).mean(0).tolist(), rel=1e-6)
    assert spec.std == pytest.approx(x.astype(np.float32).std(0).tolist(), rel=1e-5)
    raw = dataset((x, {"y": x[:, 0]}), test=0.0, normalize=False).describe()
    assert (raw.mean, raw.std) == ((0.0,), (1.0,))
    assert dataset((x[:, 0], {"y": x[:, 0]})).describe().input_shape == (1,)


def test_the_type_of_a_target_follows_from_its_labels() -> None:
    real = torch.linspace(0, 1, N)
    several = torch.stack([CLASSES == 0, CLASSES == 1], 1)
    targets = {
        "classes": CLASSES.int(), "binary": CLASSES == 1, "real": real, "column": real.unsqueeze(1).double(),
        "words": WORDS, "tags": several, "numbers": several.long(), "zero_one": (CLASSES == 1).long(),
    }  # fmt: skip
    in_memory = dataset((IMAGES, targets), test=0.0)
    spec = in_memory.describe()
    types = {name: (target.type, target.size, target.classes) for name, target in spec.targets.items()}
    assert types == {
        "classes": ("classes", 3, None), "binary": ("binary", 1, None), "real": ("real", 1, None),
        "column": ("real", 1, None), "words": ("classes", 3, ("cat", "dog", "eel")),
        "tags": ("multilabel", 2, None), "numbers": ("multilabel", 2, None), "zero_one": ("classes", 2, None),
    }  # fmt: skip
    assert spec.main_target is None
    assert spec.targets["real"].mean == pytest.approx(0.5) and not spec.targets["real"].missing
    read = in_memory.read("train").targets
    assert read["classes"].dtype == torch.int64 and read["tags"].dtype == read["binary"].dtype == torch.float32
    assert torch.equal(read["words"], CLASSES) and torch.equal(read["tags"], several.float())


def test_the_type_and_the_classes_of_a_target_can_be_set() -> None:
    targets = {"a": CLASSES, "b": CLASSES.double(), "c": (CLASSES == 1).int(), "d": torch.eye(3)[CLASSES]}
    options = {"a": "real", "b": "classes", "c": "binary", "d": "multilabel"}
    names = {"b": ["x", "y", "z"], "d": ["r", "s", "t"]}
    in_memory = dataset((IMAGES, targets), targets=options, classes=names, test=0.0)
    spec = in_memory.describe()
    assert {name: target.type for name, target in spec.targets.items()} == options
    assert spec.targets["b"].classes == ("x", "y", "z") and spec.targets["d"].classes == ("r", "s", "t")
    assert torch.equal(in_memory.read("train").targets["b"], CLASSES)
    order = dataset((IMAGES, WORDS), classes={"target": ["eel", "dog", "cat"]}, test=0.0)
    assert torch.equal(order.read("train").targets["target"], 2 - CLASSES)


def test_missing_labels_are_nan_none_or_the_ignore_index() -> None:
    gap = [None, *CLASSES.tolist()[1:]]
    targets = {
        "indices": torch.where(CLASSES == 2, IGNORE_INDEX, CLASSES), "listed": gap,
        "words": np.array([None, *WORDS[1:]], object), "real": torch.where(CLASSES == 2, torch.nan, 1.0 * CLASSES),
        "binary": [None, *(CLASSES == 1).tolist()[1:]],
    }  # fmt: skip
    in_memory = dataset((IMAGES, targets), test=0.0)
    spec, read = in_memory.describe(), in_memory.read("train").targets
    assert all(target.missing for target in spec.targets.values())
    assert {name: target.type for name, target in spec.targets.items()} == {
        "indices": "classes", "listed": "classes", "words": "classes", "real": "real", "binary": "binary"
    }  # fmt: skip
    assert read["listed"][0] == read["words"][0] == IGNORE_INDEX and read["binary"][0].isnan()
    assert spec.targets["indices"].size == 2 and spec.targets["real"].mean == pytest.approx(0.5)


def test_splits_that_are_passed_are_taken_and_only_val_is_drawn() -> None:
    in_memory = dataset({"train": (IMAGES[:40], WORDS[:40]), "test": (IMAGES[40:], WORDS[40:])})
    assert in_memory.describe().splits == ("train", "val", "test") and not in_memory.draws_test()
    assert len(in_memory.examples("test", 0)) == 20
    assert len(in_memory.examples("train", 0)) + len(in_memory.examples("val", 0)) == 40
    assert dataset({"train": (IMAGES, CLASSES)}, val=0.0).describe().splits == ("train",)


def test_no_example_moves_when_others_are_added() -> None:
    def test_images(amount: int) -> set[bytes]:
        in_memory = dataset((IMAGES[:amount], CLASSES[:amount]))
        examples = in_memory.examples("test", 0)
        assert isinstance(examples.inputs, Tensor) and examples.rows is not None
        return {image.numpy().tobytes() for image in examples.inputs[examples.rows]}

    assert test_images(50) <= test_images(N)


def test_a_large_dataset_is_read_one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mtlcli.data.formats.python_items.READ_WHOLE", 1000)
    pairs = Pairs([(x, int(y)) for x, y in zip(IMAGES, CLASSES, strict=True)])
    in_memory = dataset(pairs)
    spec = in_memory.describe()
    train = in_memory.examples("train", 0)
    assert not isinstance(train.inputs, Tensor) and torch.equal(train.inputs[7], IMAGES[7])
    assert in_memory.hashes("train") is None and in_memory.recorded().rule == "position"
    rows = in_memory.read("train").rows
    assert len(in_memory.examples("test", 0)) == 12
    assert spec.mean == pytest.approx((IMAGES[rows].double().mean().item(),))


def test_a_checkpoint_decides_how_labels_are_encoded() -> None:
    spec = dataset((IMAGES, {"word": WORDS, "y": CLASSES.double()}), test=0.0).describe()
    few = dataset({"test": (IMAGES[1:2], {"word": WORDS[1:2], "y": [5.0]})})
    restored = few.restore(spec)
    assert restored.splits == ("test",) and restored.mean == spec.mean
    assert restored.targets == spec.targets
    assert few.read("test").targets["word"].tolist() == [1]
    with pytest.raises(ConfigError, match=r"split 'test': target 'word' has the class 'cow', which is not among"):
        dataset({"test": (IMAGES[:1], {"word": ["cow"], "y": [5.0]})}).restore(spec)
    with pytest.raises(ConfigError, match="the model was trained on names of classes, and these labels are not"):
        dataset({"test": (IMAGES[:1], {"word": [1], "y": [5.0]})}).restore(spec)
    with pytest.raises(ConfigError, match="the data has no target 'y'; the targets are: word"):
        dataset({"test": (IMAGES[:1], {"word": ["cat"]})}).restore(spec)


class Endless(IterableDataset[Any]):
    """A dataset without a length."""

    def __iter__(self) -> Any:
        return iter(())


def broken(row: int) -> Pairs:
    items = [(x, int(y)) for x, y in zip(IMAGES, CLASSES, strict=True)]
    items[row] = (IMAGES[0, :, :3], 0)
    return Pairs(items)


@pytest.mark.parametrize(
    ("data", "options", "message"),
    [
        (None, {}, "is passed from Python and is not stored with a run; pass it"),
        (IMAGES, {}, "expected a tuple of arrays .* got a Tensor"),
        ({"inputs": IMAGES}, {}, "got a dict with the keys inputs"),
        ((IMAGES,), {}, r"expected a tuple \(inputs, targets\), got a tuple of 1"),
        ((IMAGES, CLASSES[1:]), {}, "60 inputs, but 59 labels of target 'target'"),
        ((IMAGES, {}), {}, "the data has no target"),
        (([["a"]], [1]), {}, "the inputs are a list, which is not an array of numbers"),
        ((IMAGES, CLASSES - 1), {}, "target 'target' has the class -1; classes are 0, 1, 2"),
        ((IMAGES, CLASSES * 0), {}, "has only the class 0 in the training examples"),
        ((IMAGES, torch.randn(N, 2)), {}, "has 2 columns of numbers; pass each as a target of its own"),
        ((IMAGES, WORDS), {"targets": {"target": "real"}}, "is real, and its labels are strings"),
        ((IMAGES, CLASSES), {"targets": {"target": "binary"}}, "has the label 2, which is not 0 or 1"),
        ((IMAGES, CLASSES), {"targets": {"targe": "real"}}, "`targets` names 'targe', .* Did you mean 'target'"),
        ((IMAGES, CLASSES), {"classes": {"target": ["a", "b"]}}, "has the class 2; expected 0 to 1"),
        ((IMAGES.float() / 0, CLASSES), {}, r"the input of example 0 \(and 59 more\) has a value that is not finite"),
        ({"test": (IMAGES, CLASSES)}, {}, "the data has no training examples, only the splits test"),
        ({"train": (IMAGES, CLASSES), "test": (IMAGES[:, :, 1:], CLASSES)}, {}, "splits differ in shape"),
        ({"train": (IMAGES, CLASSES), "test": (IMAGES, {"t": CLASSES})}, {}, "split 'test': the data has no target"),
        (DataLoader(TensorDataset(IMAGES, CLASSES)), {}, "got a DataLoader; pass its dataset"),
        (Endless(), {}, "an IterableDataset has no length"),
        (broken(7), {}, r"the input of item 7 is \[1, 3, 6\], and that of item 0 is \[1, 6, 6\]"),
        (Pairs([]), {}, "the data has no examples"),
        (Pairs([(1, 2, 3)]), {}, "item 0 is a tuple; expected"),
        ([{"image": IMAGES[0], "y": 1}], {}, "item 0 has no 'input'; set the option `input` to one of its keys: image"),
        (({1: 2}, CLASSES), {}, "not an array of numbers"),
        ((WORDS, CLASSES), {}, "the inputs have values that are not numbers; write a table with text to a file"),
    ],
)
def test_wrong_data_gets_a_clear_message(data: object, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        dataset(data, **options).describe()


def test_an_item_that_fails_is_named() -> None:
    class Failing(Pairs):
        def __getitem__(self, row: int) -> Any:
            return {}["missing"] if row == 3 else super().__getitem__(row)

    with pytest.raises(ConfigError, match="item 3 can't be read: KeyError: 'missing'"):
        dataset(Failing([(IMAGES[0], 1)] * 5)).describe()


REJECTED_TARGETS: list[tuple[Any, dict[str, Any], str]] = [
    (torch.full((N,), torch.nan), {"targets": {"target": "real"}}, "no label in the training examples"),
    (
        CLASSES,
        {"targets": {"target": "real"}, "classes": {"target": ["a"]}},
        "which is of the type 'real' and has none",
    ),
    (CLASSES, {"targets": {"target": "multilabel"}}, r"its labels are \[N, labels\], not \[N\]"),
    (torch.eye(3)[CLASSES], {"targets": {"target": "real"}}, "has 3 columns, and the type 'real' takes one"),
    (torch.zeros(N, dtype=torch.int64), {}, "has only the class 0"),
    (torch.arange(N) * 10**6, {}, "has the class 59000000; for numbers set"),
    (torch.where(CLASSES == 2, torch.inf, 1.0 * CLASSES), {}, "a label that is infinite"),
    (CLASSES, {"targets": {"target": "binary"}}, "has the label 2, which is not 0 or 1"),
    (WORDS, {"targets": {"target": "real"}}, "is real, and its labels are strings"),
    (CLASSES.numpy().astype("datetime64[s]"), {}, "expected numbers, booleans or strings, got an array of datetime64"),
    (CLASSES, {"classes": {"target": ["a", "a", "b"]}}, "2 different names for the 3 labels"),
    (torch.zeros(N, 2, 2), {}, "labels for 2×2 pixels, and the images are"),
]


@pytest.mark.parametrize(("labels", "options", "message"), REJECTED_TARGETS)
def test_labels_that_do_not_fit_their_type_are_rejected(labels: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises((ConfigError, ValueError), match=message):
        dataset((IMAGES, labels), test=0.0, **options).describe()


REJECTED_INPUTS: list[tuple[Any, str]] = [
    ((torch.zeros(N, 3, dtype=torch.complex64), CLASSES), "complex numbers"),
    ((np.array([["a", "b"]] * N), CLASSES), "values that are not numbers; write a table with text"),
    ((torch.tensor(1.0), CLASSES), "a single number"),
    (Pairs([]), "no examples"),
    (Pairs([(IMAGES[0], 0), (IMAGES[0, :, :3], 1)]), r"the input of item 1 is \[1, 3, 6\]"),
    (Pairs([(IMAGES[0], {"a": 0}), (IMAGES[1], {"b": 1})]), "item 1 has the targets b, and item 0 has a"),
    (Pairs([(IMAGES[0], {})]), "item 0 has no target"),
]


@pytest.mark.parametrize(("data", "message"), REJECTED_INPUTS)
def test_inputs_that_are_not_arrays_of_numbers_are_rejected(data: Any, message: str) -> None:
    with pytest.raises((ConfigError, ValueError), match=message):
        dataset(data, test=0.0).describe()


def test_read_only_arrays_and_bfloat16_labels_are_accepted() -> None:
    inputs = np.zeros((N, 3), dtype=np.float32)
    inputs.flags.writeable = False
    spec = dataset((inputs, torch.linspace(0, 1, N).bfloat16()), test=0.0).describe()
    assert spec.input_shape == (3,) and spec.targets["target"].type == "real"
