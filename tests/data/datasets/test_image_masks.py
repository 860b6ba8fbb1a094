"""Images with mask files."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mtlcli.cli import main
from mtlcli.data.base import Examples
from mtlcli.data.datasets.image_masks import ImageMasks
from mtlcli.data.datasets.images import Images
from mtlcli.data.formats.map_files import MapFiles
from mtlcli.errors import ConfigError, OptionError
from mtlcli.specs import IGNORE_BYTE, DatasetSpec, TargetSpec

COUNT, HEIGHT, WIDTH = 24, 8, 10
PARTS = ["sky", "road", "car"]
TARGETS: dict[str, Any] = {
    "part": {"type": "classes", "column": "mask", "folder": "masks", "classes": PARTS},
    "depth": {"type": "depth", "folder": "masks", "scale": 1000},
    "normals": {"type": "normals", "folder": "masks", "suffix": ".npy"},
    "edge": {"type": "binary", "folder": "masks"},
    "weather": "classes",
    "price": "real",
}


def arrays(at: int) -> dict[str, Any]:
    """Return the values in the files of an image."""
    rng = np.random.default_rng(at)
    part = rng.integers(0, 3, (HEIGHT, WIDTH)).astype(np.uint8)
    part[0] = 255
    normals = rng.normal(size=(HEIGHT, WIDTH, 3))
    normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
    normals[1] = 0
    return {
        "image": rng.integers(0, 256, (HEIGHT, WIDTH, 3)).astype(np.uint8), "part": part,
        "depth": rng.integers(0, 9000, (HEIGHT, WIDTH)).astype(np.uint16), "normals": normals,
        "edge": rng.integers(0, 2, (HEIGHT, WIDTH)).astype(np.uint8) * 255,
    }  # fmt: skip


def write_table(path: Path, rows: Sequence[dict[str, object]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def listed() -> list[dict[str, object]]:
    """Rows of a table; every fourth image has no depth, and every sixth no parts."""
    return [
        {
            "file": f"{at}.png", "mask": "" if at % 6 == 0 else f"{at}_part.png",
            "depth": "" if at % 4 == 0 else f"{at}_depth.png", "normals": f"{at}_normals", "edge": f"{at}_edge.png",
            "weather": ("wet", "dry")[at % 2], "price": at / 2,
        }
        for at in range(COUNT)
    ]  # fmt: skip


@pytest.fixture
def root(tmp_path: Path) -> Path:
    masks = tmp_path / "photos/masks"
    masks.mkdir(parents=True)
    for at in range(COUNT):
        values = arrays(at)
        Image.fromarray(values.pop("image")).save(tmp_path / f"photos/{at}.png")
        np.save(masks / f"{at}_normals.npy", values.pop("normals").astype(np.float32))
        for name, array in values.items():
            Image.fromarray(array).save(masks / f"{at}_{name}.png")
    write_table(tmp_path / "table.csv", listed())
    return tmp_path


def dataset(folder: Path, **options: Any) -> ImageMasks:
    given: dict[str, Any] = {
        "path": str(folder / "table.csv"), "image": "file", "root": str(folder / "photos"), "targets": TARGETS,
    }  # fmt: skip
    return ImageMasks(**{**given, **options})


def maps_of(examples: Examples, target: str) -> torch.Tensor:
    return torch.cat(list(examples.iterate_maps(target, 3)))


def test_images_and_maps(root: Path) -> None:
    masks = dataset(root, val=0.2)
    spec = masks.describe()
    assert spec.input_shape == (3, HEIGHT, WIDTH) and spec.splits == ("train", "val", "test")
    assert list(spec.targets) == list(TARGETS) and spec.main_target is None
    assert spec.targets["part"] == TargetSpec("class_map", 3, tuple(PARTS), missing=True)
    types = [spec.targets[name].type for name in ("depth", "normals", "edge", "weather", "price")]
    assert types == ["depth_map", "normal_map", "binary_map", "classes", "real"]
    whole = masks.whole()
    for at in range(COUNT):
        values = arrays(at)
        assert np.array_equal(whole.inputs[at].permute(1, 2, 0), values["image"])
        part = values["part"] if at % 6 else np.full_like(values["part"], IGNORE_BYTE)
        assert np.array_equal(whole.maps["part"][at], part)
        depth = np.where(values["depth"] == 0, np.nan, values["depth"] / 1000) if at % 4 else np.full((8, 10), np.nan)
        assert np.allclose(whole.maps["depth"][at], depth, rtol=1e-6, equal_nan=True)
        normals = np.moveaxis(
            np.where((values["normals"] == 0).all(-1, keepdims=True), np.nan, values["normals"]), -1, 0
        )
        assert np.allclose(whole.maps["normals"][at], normals, atol=1e-6, equal_nan=True)
        assert np.array_equal(whole.maps["edge"][at], values["edge"] // 255)
    assert whole.targets["price"].tolist() == [at / 2 for at in range(COUNT)]
    assert masks.check_files() == [] and masks.notes() == []


def test_splits_are_those_of_the_dataset_images(root: Path) -> None:
    masks = dataset(root, test=0.3, val=0.3)
    images = Images(
        path=str(root / "table.csv"), image="file", root=str(root / "photos"), test=0.3, val=0.3,
        targets={"weather": "classes", "price": "real"},
    )  # fmt: skip
    for split in ("train", "val", "test"):
        own, other = masks.examples(split, 3), images.examples(split, 3)
        assert own.rows is not None and other.rows is not None and own.rows.equal(other.rows)
        assert maps_of(own, "edge").shape == (len(own), HEIGHT, WIDTH)
    assert np.array_equal(masks.keys("train"), images.keys("train"))
    assert not np.array_equal(masks.hashes("train"), images.hashes("train"))


def test_statistics_are_those_of_the_training_images(root: Path) -> None:
    masks = dataset(root, val=0.0)
    train = masks.read("train").rows
    assert train is not None
    values = np.concatenate([arrays(at)["depth"].ravel() / 1000 for at in train.tolist() if at % 4])
    depth = masks.describe().targets["depth"]
    assert depth.mean == pytest.approx(values[values > 0].mean(), rel=1e-6)
    assert depth.std == pytest.approx(values[values > 0].std(), rel=1e-6)


def test_a_resized_image_keeps_its_labels(root: Path) -> None:
    white, black = np.full((HEIGHT, WIDTH, 3), 255, np.uint8), np.zeros((HEIGHT, WIDTH), np.uint8)
    for at in range(COUNT):  # the white half of each image is class 1
        white[:, : WIDTH // 2] = 0
        black[:, WIDTH // 2 :] = 1
        Image.fromarray(white).save(root / f"photos/{at}.png")
        Image.fromarray(black).save(root / f"photos/masks/{at}_edge.png")
    for fit in ("crop", "stretch", "pad"):
        masks = dataset(root, size=[16, 12], fit=fit, background="black", targets={"edge": TARGETS["edge"]})
        examples = masks.examples("train", 0)
        edge = examples.maps["edge"][1]
        labelled = edge != IGNORE_BYTE
        assert edge.shape == (16, 12) and bool(labelled.all()) == (fit != "pad")
        bright = examples.inputs[1][0] > 127
        assert torch.equal((edge == 1)[labelled], bright[labelled]), fit
        assert masks.describe().main_target == "edge"


def test_classes_from_a_file_a_number_and_a_mapping(root: Path) -> None:
    names = root / "names.txt"
    names.write_text("sky\nroad\n\ncar\n", encoding="utf-8")
    plain = dataset(root).describe().targets["part"]
    for classes in (str(names), {"0": "sky", "1": "road", "2": "car"}, {0: "sky", 1: "road", 2: "car"}):
        assert (
            dataset(root, targets={"part": {**TARGETS["part"], "classes": classes}}).describe().targets["part"] == plain
        )
    number = dataset(root, targets={"part": {**TARGETS["part"], "classes": 3}}).describe().targets["part"]
    assert (number.size, number.classes) == (3, None)
    joined = dataset(root, targets={"part": {**TARGETS["part"], "classes": {"0": "sky", "1": "rest", "2": "rest"}}})
    assert joined.describe().targets["part"].classes == ("sky", "rest")
    assert np.array_equal(joined.whole().maps["part"][1], np.array([0, 1, 1] + [255] * 253)[arrays(1)["part"]])


def test_faults_of_masks_have_their_lines(root: Path) -> None:
    (root / "photos/masks/3_depth.png").unlink()
    (root / "photos/masks/5_edge.png").unlink()
    with pytest.raises(ConfigError) as error:
        dataset(root).describe()
    first, second, remedy = (problem.message for problem in error.value.problems)
    assert first == f"{root}/table.csv:5: {root}/photos/masks/3_depth.png: doesn't exist"
    assert second.startswith(f"{root}/table.csv:7: ") and "a blank cell means" in remedy
    with pytest.raises(ConfigError, match="below the folder 'masks': set the option `folder` to it"):
        dataset(root, targets={"edge": {"type": "binary"}}).describe()
    with pytest.raises(ConfigError, match=r"with the ending \.npy it does: set the option `suffix` to '.npy'"):
        dataset(root, targets={"normals": {"type": "normals", "folder": "masks"}}).describe()


def test_masks_that_cannot_be_read_are_listed_before_training(root: Path) -> None:
    masks = root / "photos/masks"
    Image.fromarray(np.full((HEIGHT, WIDTH), 7, np.uint8)).save(masks / "1_part.png")
    Image.fromarray(np.full((HEIGHT, WIDTH - 1), 255, np.uint8)).save(masks / "2_edge.png")
    bad = np.full((HEIGHT, WIDTH, 3), 0.5, np.float32)
    bad[0, 0] = 3
    np.save(masks / "3_normals.npy", bad)
    faults = dataset(root).check_files()
    assert faults[0] == (
        f"{root}/table.csv:3: {masks}/1_part.png: has the value 7; expected a class from 0 to 2, or 255 where there is "
        f"no label"
    )
    assert faults[2].endswith("3_normals.npy: has the component 3 of a normal; expected from -1 to 1, or three zeros "
                              "or NaN where there is no label")  # fmt: skip
    assert faults[4].endswith("2_edge.png: has 9×8 pixels, but the images have 10×8 pixels")
    assert all("a blank cell means" in faults[at] for at in (1, 3, 5)) and len(faults) == 6
    assert len(dataset(root).check_files(1000)) == 2  # by the beginnings of the files: only the wrong size


def test_rows_whose_images_are_skipped_take_their_masks_along(root: Path) -> None:
    (root / "photos/2.png").write_bytes(b"")
    masks = dataset(root, on_error="skip", targets={"edge": TARGETS["edge"], "price": "real"})
    whole = masks.whole()
    assert len(whole) == COUNT - 1
    at = whole.targets["price"].tolist().index(1.5)  # image 3
    assert np.array_equal(whole.maps["edge"][at], arrays(3)["edge"] // 255)


def test_a_checkpoint_determines_the_classes(root: Path) -> None:
    names = root / "names.txt"
    names.write_text("\n".join(PARTS), encoding="utf-8")
    targets = {**TARGETS, "part": {**TARGETS["part"], "classes": str(names)}}
    stored = DatasetSpec.from_dict(dataset(root, targets=targets).describe().to_dict())
    names.unlink()  # not read again
    write_table(root / "table.csv", [row | {"depth": ""} for row in listed()[:5]])
    restored = dataset(root, targets=targets, test=1.0).restore(stored)
    assert restored.targets["part"].classes == tuple(PARTS) and restored.splits == ("test",)
    assert restored.targets["depth"].mean == stored.targets["depth"].mean
    with pytest.raises(ConfigError, match="trained on a target 'depth' of type depth_map, but here it is of type real"):
        dataset(root, targets={**TARGETS, "depth": {"type": "real", "folder": "masks"}}).restore(stored)
    with pytest.raises(ConfigError, match="the data has no target 'edge'"):
        dataset(root, targets={k: v for k, v in TARGETS.items() if k != "edge"}).restore(stored)


def test_no_masks_in_training_rows(root: Path) -> None:
    write_table(root / "table.csv", [row | {"depth": ""} for row in listed()])
    with pytest.raises(ConfigError, match="target 'depth' has no masks in the training rows"):
        dataset(root).describe()


@pytest.mark.parametrize(
    ("target", "path", "message"),
    [
        ({"type": "depht"}, "type", "expected 'classes', 'binary', 'real', 'depth' or 'normals', found the string"),
        ({}, "type", "missing; expected 'classes'"),
        ({"type": "depth", "scal": 2}, "scal", "unknown option of a target with mask files. Did you mean 'scale'?"),
        ({"type": "depth", "scale": 0}, "scale", "expected a number > 0, found 0"),
        ({"type": "classes"}, "classes", "missing; expected the names of the classes"),
        ({"type": "classes", "classes": 1}, "classes", "expected a number ≥ 2, a list of names, a mapping"),
        ({"type": "classes", "classes": {"sky": 0, "road": 1}}, "classes", "expected a number ≥ 2"),
        ({"type": "depth", "classes": ["a", "b"]}, "classes", "only a target of the type 'classes' has it"),
        ({"type": "binary", "scale": 2.0}, "scale", "only a target of the type 'real' or 'depth' has it"),
        ({"type": "normals", "ignore": 0}, "ignore", "a normal is missing where its components are 0 or NaN"),
        ({"type": "binary", "folder": "../secret"}, "folder", "leads out of the folder of the images"),
        ({"type": "binary", "folder": "/etc"}, "folder", "leads out of the folder of the images"),
    ],
)
def test_invalid_options(tmp_path: Path, target: dict[str, Any], path: str, message: str) -> None:
    with pytest.raises(OptionError) as error:
        dataset(tmp_path, targets={"x": target})
    assert list(error.value.refused) == [f"targets.x.{path}"] and message in error.value.refused[f"targets.x.{path}"]


def test_invalid_classes(root: Path) -> None:
    for classes, message in (
        (["a", "a"], "has the class 'a' more than once"),
        (["a", ""], "the class '' of target 'part' is empty"),
        ({"0": "a", "1": "a"}, "has fewer than two classes"),
        ("absent.txt", "the file of the classes of target 'part' can't be read: No such file"),
    ):
        with pytest.raises(ConfigError, match=message):
            dataset(root, targets={"part": {**TARGETS["part"], "classes": classes}}).describe()
    with pytest.raises(OptionError, match="the dataset `images` has labels of whole images"):
        dataset(root, targets={"weather": "classes"})
    with pytest.raises(ValueError, match="can't be the image and a target at once"):
        dataset(root, image="mask")
    with pytest.raises(ConfigError, match=r"no column 'dept', which `targets` names\. Did you mean 'depth'"):
        dataset(root, targets={"dept": {"type": "depth"}}).describe()


def test_the_command_line_names_the_line_of_a_wrong_option(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    experiment = root / "e.yaml"
    experiment.write_text(
        f"name: masks\ndatasets:\n  d:\n    name: image_masks\n    path: {root}/table.csv\n    image: file\n"
        f"    root: {root}/photos\n    targets:\n      edge: {{type: binary, foldr: masks}}\n      weather: classes\n"
        "trunk: {name: cnn}\ntasks:\n  weather: {kind: classification, dataset: d}\ntraining: {epochs: 1}\n"
    )
    assert main(["validate", str(experiment)]) == 2
    assert f"{experiment}:9:35: datasets.d.targets.edge.foldr: unknown option" in capsys.readouterr().err
    experiment.write_text(experiment.read_text().replace("foldr", "folder"))
    assert main(["validate", str(experiment)]) == 0


def test_the_maps_are_the_same_objects_in_all_splits(root: Path) -> None:
    """All splits share the inputs and maps, so that they are read into memory once."""
    masks = dataset(root)
    train, test = masks.examples("train", 0), masks.examples("test", 0)
    assert train.inputs is test.inputs and train.maps["edge"] is test.maps["edge"]
    assert isinstance(train.maps["edge"], MapFiles)
