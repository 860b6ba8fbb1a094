from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mtlcli.data.datasets.huggingface import HuggingFace
from mtlcli.data.loader import Loader, evaluation_batches
from mtlcli.data.placement import Placement
from mtlcli.errors import ConfigError, MtlError
from mtlcli.registry import samplers
from mtlcli.specs import DatasetSpec
from tests.data.batches import CPU, plain

library = pytest.importorskip("datasets")
TASKS = {"label": ("a", "label"), "dark": ("a", "dark")}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def pixels(seed: int) -> Any:
    return np.random.default_rng(seed).integers(0, 256, (5, 4, 3), dtype=np.uint8)


def encode(array: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(array).save(file, "png")
    return file.getvalue()


def write(folder: Path, images: list[Any], split: str = "train", shards: int = 2) -> Path:
    folder.mkdir(exist_ok=True)
    label, dark = library.ClassLabel(names=["a", "b"]), library.Value("bool")
    features = library.Features({"picture": library.Image(), "label": label, "dark": dark})
    rows = [
        {"picture": image, "label": at % 2, "dark": None if at % 3 else at % 2 == 0} for at, image in enumerate(images)
    ]
    written = library.Dataset.from_list(rows, features=features)
    for shard in range(shards):
        part = written.shard(shards, shard)
        part.to_parquet(str(folder / f"{split}-{shard:05d}-of-{shards:05d}.parquet"))
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path / "set", [{"bytes": encode(pixels(seed)), "path": None} for seed in range(40)])
    return write(tmp_path / "set", [{"bytes": encode(pixels(100 + seed)), "path": None} for seed in range(10)], "test")


def open_set(folder: Path, **options: Any) -> HuggingFace:
    return HuggingFace(**{"path": str(folder), "targets": ["label", "dark"], "buffer": 7, **options})


@pytest.mark.parametrize("streaming", [False, True])
def test_images_are_the_inputs_of_a_set_that_has_some(folder: Path, streaming: bool) -> None:
    dataset = open_set(folder, streaming=streaming)
    spec = dataset.describe()
    assert DatasetSpec.from_dict(spec.to_dict()) == spec and not spec.columns
    assert spec.input_shape == (3, 5, 4) and spec.splits == ("train", "val", "test")
    assert {name: (t.type, t.classes) for name, t in spec.targets.items()} == {
        "label": ("classes", ("a", "b")), "dark": ("binary", None)
    }  # fmt: skip
    test = dataset.examples("test", 0)
    assert len(test) == 10
    row = 3 if test.rows is None else int(test.rows[3])
    assert torch.equal(test.inputs[row], torch.from_numpy(pixels(103)).permute(2, 0, 1))
    assert test.labels("label").tolist() == [0, 1] * 5
    training = np.stack([pixels(seed) for seed in range(40)]).reshape(-1, 3)
    expected = training.mean(0) if streaming else spec.mean  # without streaming, those of a part of the 40
    assert spec.mean == pytest.approx(expected) and dataset.notes() == []


def test_both_ways_evaluate_and_restore_the_same(folder: Path) -> None:
    batches, specs = [], []
    for streaming in (False, True):
        dataset = open_set(folder, streaming=streaming, size=[3, 3], mode="grey", normalize="half")
        specs.append(dataset.describe())
        batches.append(plain(evaluation_batches({"a": dataset.examples("test", 0)}, TASKS, Placement(CPU), 4)))
        again = open_set(folder, streaming=streaming, size=3, mode="grey", normalize="half")
        assert again.restore(specs[0]) == specs[0]
        with pytest.raises(ConfigError, match="trained on images 1×3×3, but `mode` or `size` is another here"):
            open_set(folder, streaming=streaming, size=3).restore(specs[0])
    assert batches[0] == batches[1] and specs[0] == specs[1]
    assert specs[0].input_shape == (1, 3, 3) and specs[0].mean == (127.5,)


def test_augmented_streamed_images_restart_at_any_step(folder: Path) -> None:
    augment: list[Any] = [{"name": "RandomCrop", "size": [5, 4], "padding": 1}]
    dataset = open_set(folder, streaming=True, val=0, targets=["label"])
    dataset.describe()
    examples = {"a": dataset.examples("train", 0)}
    sampler = samplers["proportional"].target([40], 7)
    loader = Loader(examples, {"label": ("a", "label")}, sampler, 0, Placement(CPU, workers=0), {"a": augment})
    whole = plain(loader.epoch(1))
    assert plain(loader.epoch(1, 3)) == whole[3:] and plain(loader.epoch(0)) != whole


def test_test_is_drawn_by_position(tmp_path: Path) -> None:
    folder = write(tmp_path / "set", [{"bytes": encode(pixels(seed)), "path": None} for seed in range(40)])
    dataset = open_set(folder)
    assert dataset.describe().splits == ("train", "val", "test") and dataset.draws_test()
    rows = {split: dataset.examples(split, 0).rows for split in ("train", "val", "test")}
    assert sorted(torch.cat([r for r in rows.values() if r is not None]).tolist()) == list(range(40))
    again = open_set(folder).examples("test", 5).rows
    assert again is not None and rows["test"] is not None and again.tolist() == rows["test"].tolist()


def test_a_folder_of_images(tmp_path: Path) -> None:
    for label in ("cat", "dog"):
        for split in ("train", "test"):
            (tmp_path / "pets" / split / label).mkdir(parents=True)
            for at in range(3):
                Image.fromarray(pixels(at)).save(tmp_path / "pets" / split / label / f"{at}.png")
    dataset = HuggingFace(path=str(tmp_path / "pets"), targets=["label"], val=0)
    spec = dataset.describe()
    assert spec.targets["label"].classes == ("cat", "dog") and spec.input_shape == (3, 5, 4)
    assert torch.equal(dataset.examples("train", 0).inputs[1], torch.from_numpy(pixels(1)).permute(2, 0, 1))


@pytest.mark.parametrize("streaming", [False, True])
def test_an_image_that_cannot_be_read(tmp_path: Path, streaming: bool) -> None:
    good = {"bytes": encode(pixels(0)), "path": None}
    folder = write(tmp_path / "set", [good, good, good, {"bytes": b"nothing", "path": None}, good, None], shards=1)
    write(folder, [good], "test", 1)
    examples = open_set(folder, streaming=streaming, normalize="half", val=0).examples("train", 0)
    with pytest.raises(MtlError, match="split 'train', row 3: is not an image of the formats"):
        examples.inputs[3]
    with pytest.raises(MtlError, match="split 'train', row 5: has no image"):
        examples.inputs[5]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image": "pictures"}, "no column 'pictures', which `image` names. Did you mean 'picture'?"),
        ({"image": "label"}, "the column 'label' doesn't hold images"),
        ({"features": ["picture"]}, "the feature column 'picture' holds lists, records or images"),
    ],
)
def test_errors(folder: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        open_set(folder, **options).describe()
    assert message in str(caught.value)
