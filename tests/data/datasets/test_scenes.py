from __future__ import annotations

import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from torch import Tensor

from mtlcli.data.datasets import scenes
from mtlcli.data.datasets.scenes import Scenes
from mtlcli.registry import datasets, kinds

SIZE = (16, 20)


def small(**options: object) -> Scenes:
    dataset = datasets["scenes"].create(**{"train": 6, "val": 2, "test": 3, "size": SIZE, **options})
    assert isinstance(dataset, Scenes)
    return dataset


def tensors(dataset: Scenes, split: str) -> dict[str, Tensor]:
    """The images and maps of a split in memory; lazy ones are read in reverse order."""
    examples = dataset.examples(split, 0)
    assert not examples.targets and examples.rows is None
    read = {}
    for name, values in {"image": examples.inputs, **examples.maps}.items():
        if not isinstance(values, Tensor):
            values = torch.stack([values[row] for row in reversed(range(len(values)))]).flip(0)
        read[name] = values
    return read


def assert_same(first: dict[str, Tensor], second: dict[str, Tensor]) -> None:
    for name, values in first.items():
        assert torch.equal(values.nan_to_num(-1), second[name].nan_to_num(-1)), name


def test_the_description_matches_the_data() -> None:
    dataset = small()
    spec = dataset.describe()
    assert spec.splits == ("train", "val", "test") and spec.input_shape == (3, *SIZE)
    for split, amount in (("train", 6), ("val", 2), ("test", 3)):
        read = tensors(dataset, split)
        assert set(read) == {"image", *spec.targets}
        assert (read["image"].dtype, read["image"].shape) == (torch.uint8, (amount, 3, *SIZE))
        for name, target in spec.targets.items():
            channels = (3,) if name == "normals" else ()
            assert read[name].shape == (amount, *channels, *SIZE)
            if target.type in ("class_map", "binary_map"):
                assert read[name].dtype == torch.uint8
                labels = read[name][read[name] != 255]
                assert int(labels.max()) < max(target.size, 2)
                assert target.missing == (len(labels) < read[name].numel())
            else:
                assert read[name].dtype == torch.float32 and target.missing
        missing = read["depth"].isnan()
        assert torch.equal(missing, read["class"] == 0) and 0 < missing.float().mean() < 0.6
        assert torch.equal(missing, read["normals"].isnan().any(1))
        assert torch.equal(read["part"] != 255, read["class"] >= 3)
        assert (read["normals"].norm(dim=1)[~missing] - 1).abs().max() < 1e-5


@pytest.mark.parametrize("level", ["easy", *(pytest.param(n, marks=pytest.mark.matrix) for n in ("medium", "hard"))])
def test_the_statistics_are_those_of_the_data(level: str) -> None:
    spec = Scenes(train=40, difficulty=level, size=SIZE).describe()  # type: ignore[arg-type]
    read = tensors(small(train=40, difficulty=level), "train")
    pixels, depth = read["image"].double().transpose(0, 1).flatten(1), read["depth"][~read["depth"].isnan()].double()
    assert pixels.mean(1).tolist() == pytest.approx(spec.mean, rel=0.1)
    assert pixels.std(1).tolist() == pytest.approx(spec.std, rel=0.15)
    assert float(depth.mean()) == pytest.approx(spec.targets["depth"].mean, rel=0.1)
    assert float(depth.std()) == pytest.approx(spec.targets["depth"].std, rel=0.15)


def test_an_image_depends_only_on_seed_split_and_number(monkeypatch: pytest.MonkeyPatch) -> None:
    first = tensors(small(), "train")
    assert_same({name: values[:4] for name, values in first.items()}, tensors(small(train=4), "train"))
    assert_same(first, tensors(small(val=0, test=1), "train"))
    monkeypatch.setattr(scenes, "RESIDENT", 0)
    lazy = small().examples("train", 0)
    assert not isinstance(lazy.inputs, Tensor) and len(lazy.maps["depth"]) == 6
    with pytest.raises(IndexError):
        lazy.inputs[6]
    assert_same(first, tensors(small(), "train"))
    copied = pickle.loads(pickle.dumps(lazy.maps["depth"]))
    assert_same({"depth": copied[2]}, {"depth": lazy.maps["depth"][2]})
    for other in (tensors(small(seed=1), "train"), {k: v[:3] for k, v in tensors(small(), "test").items()}):
        assert not torch.equal(first["class"][:3], other["class"][:3])


def test_hashes_identify_the_images() -> None:
    train = small().hashes("train")
    assert len(np.unique(np.concatenate([train, small().hashes("test"), small(seed=1).hashes("train")]))) == 15
    assert np.array_equal(small(train=4).hashes("train"), train[:4])
    assert not np.isin(small(unlabelled={"depth": 0.5}).hashes("train"), train).any()


def test_unlabelled_images_lose_all_labels_of_the_target_in_training_only() -> None:
    options = {"train": 60, "unlabelled": {"depth": 0.25, "class": 0.5}}
    dataset, full = small(**options), tensors(small(train=60), "train")
    read = tensors(dataset, "train")
    without = {"depth": read["depth"].isnan().flatten(1).all(1), "class": (read["class"] == 255).flatten(1).all(1)}
    assert 5 <= int(without["depth"].sum()) <= 27 and 15 <= int(without["class"].sum()) <= 45
    assert not torch.equal(without["depth"], without["class"])
    for name, values in read.items():
        labelled = ~without.get(name, torch.zeros(60, dtype=torch.bool))
        assert_same({name: values[labelled]}, {name: full[name][labelled]})
    assert_same(tensors(dataset, "test"), tensors(small(), "test"))
    assert {name for name, target in dataset.describe().targets.items() if target.missing} == {
        "class", "depth", "normals", "part",
    }  # fmt: skip


def test_the_number_of_objects() -> None:
    assert bool((tensors(small(objects=(0, 0)), "train")["part"] == 255).all())
    one, many = (tensors(small(train=20, objects=(n, n)), "train") for n in (1, 12))
    assert (one["class"] >= 3).float().mean() < (many["class"] >= 3).float().mean()
    assert (one["class"] >= 3).any()


def test_options_that_do_not_fit_are_named() -> None:
    with pytest.raises(ValueError, match="the smallest number, 3, is larger than the largest, 2"):
        small(objects=(3, 2))
    with pytest.raises(ValueError, match=r"no target 'dept'\. Did you mean 'depth'\?"):
        small(unlabelled={"dept": 0.1})
    assert small(val=0).describe().splits == ("train", "test")


def test_the_documented_options_and_targets() -> None:
    text = (Path(__file__).parents[3] / "docs/dense.md").read_text().partition("\n## scenes\n")[2].partition("\n## ")[0]
    (block,) = re.findall(r"^```yaml\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    options = yaml.safe_load(block)["datasets"]["rooms"]
    spec = small(**{key: value for key, value in options.items() if key != "name"}).describe()
    rows = re.findall(r"^\| `(\w+)` \| `(\w+)` \|", text, re.MULTILINE)
    assert [name for name, _ in rows] == list(spec.targets)
    for name, kind in rows:
        assert spec.targets[name].type in kinds[kind].target.accepts
