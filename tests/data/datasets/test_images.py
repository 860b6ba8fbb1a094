"""Images with the labels of a table."""

from __future__ import annotations

import csv
import json
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mtlcli.cli import main
from mtlcli.data.base import Examples
from mtlcli.data.datasets.digits import Digits
from mtlcli.data.datasets.images import Images
from mtlcli.data.formats.image_decoding import ImagePreparation
from mtlcli.data.formats.image_statistics import SAMPLED
from mtlcli.data.formats.images import ImageFiles
from mtlcli.errors import ConfigError
from mtlcli.specs import IGNORE_INDEX

COLORS = ("red", "green", "blue")
Cells = Mapping[str, Sequence[object]]


def draw(path: Path, seed: int, size: tuple[int, int] = (8, 10)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size, 3)).astype(np.uint8)).save(path)


def write(path: Path, columns: Cells) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    return path


def labels(count: int = 40) -> dict[str, list[object]]:
    """Three targets, of which `price` has blanks, for the images 0.png, 1.png, …"""
    return {
        "file": [f"{at}.png" for at in range(count)],
        "color": [COLORS[at % 3] for at in range(count)],
        "price": ["" if at % 4 == 0 else at / 2 for at in range(count)],
        "sold": [at % 2 for at in range(count)],
    }


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for at in range(40):
        draw(tmp_path / f"photos/{at}.png", at)
    write(tmp_path / "labels.csv", labels())
    return tmp_path


def dataset(folder: Path, **options: Any) -> Images:
    given: dict[str, Any] = {
        "path": str(folder / "labels.csv"), "image": "file", "root": str(folder / "photos"),
        "targets": {"color": "classes", "price": "real", "sold": "binary"},
    }  # fmt: skip
    return Images(**{**given, **options})


def names(images: Images, seed: int = 0) -> dict[str, list[str]]:
    """Return split → names of its files."""
    return {split: listed(images.examples(split, seed)) for split in images.describe().splits}


def listed(examples: Examples) -> list[str]:
    assert isinstance(examples.inputs, ImageFiles)
    rows = range(len(examples)) if examples.rows is None else examples.rows.tolist()
    return [examples.inputs.paths[row].name for row in rows]


def test_images_and_labels(root: Path) -> None:
    images = dataset(root, size=6, fit="stretch", test=0.25)
    spec = images.describe()
    assert spec.input_shape == (3, 6, 6) and spec.splits == ("train", "val", "test")
    assert {name: (target.type, target.missing) for name, target in spec.targets.items()} == {
        "color": ("classes", False), "price": ("real", True), "sold": ("binary", False)
    }  # fmt: skip
    assert spec.targets["color"].classes == ("blue", "green", "red") and spec.main_target is None
    whole = images.whole()
    assert len(whole) == 40 and listed(whole) == [f"{at}.png" for at in range(40)]
    assert whole.targets["price"].isnan().nonzero().flatten().tolist() == list(range(0, 40, 4))
    assert whole.targets["color"][:3].tolist() == [2, 1, 0] and whole.targets["sold"][:2].tolist() == [0, 1]
    with Image.open(root / "photos/3.png") as image:
        expected = np.asarray(image.resize((6, 6), Image.Resampling.BILINEAR))
    assert np.array_equal(whole.inputs[3].permute(1, 2, 0), expected)
    assert images.preparation().endswith("resized to 6 x 6 (bilinear, by Pillow); channels first")
    assert torch.equal(images.open_images([root / "photos/3.png"], spec)[0], whole.inputs[3])


def test_multilabel_and_missing_classes(root: Path) -> None:
    columns = labels() | {"color": ["" if at < 4 else COLORS[at % 3] for at in range(40)]}
    columns |= {"wet": [at % 2 for at in range(40)], "dark": [at % 3 // 2 for at in range(40)]}
    write(root / "labels.csv", columns)
    images = dataset(root, targets={"color": "classes", "sky": ["wet", "dark"]})
    assert images.describe().targets["sky"].classes == ("wet", "dark")
    assert images.whole().targets["color"][:5].tolist() == [*[IGNORE_INDEX] * 4, 1]
    assert images.whole().targets["sky"].shape == (40, 2)
    assert dataset(root, targets=["color"]).describe().main_target == "color"


def test_weights_stated_classes_and_truth_values(root: Path) -> None:
    columns = labels() | {
        "sold": ["yes" if at % 2 else "no" for at in range(40)],
        "share": [at / 4 for at in range(40)],
    }
    write(root / "labels.csv", columns)
    targets = {"color": {"type": "classes", "classes": ["red", "green", "gold"], "others": "missing"}, "sold": "binary"}
    images = dataset(root, targets=targets, booleans=["sold"], weight_column="share", val=0.0)
    assert images.describe().targets["color"].classes == ("red", "green", "gold")
    whole = images.whole()
    assert whole.weights is not None and whole.weights.tolist() == columns["share"]
    assert whole.targets["color"][:3].tolist() == [0, 1, IGNORE_INDEX] and whole.targets["sold"][:2].tolist() == [0, 1]
    assert any("no training row has the class 'gold'" in note for note in images.notes())
    test = images.examples("test", 0)
    assert test.rows is not None and torch.equal(whole.weights[test.rows], test.sample_weights())  # type: ignore[arg-type]


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_other_formats_of_the_table(root: Path, suffix: str) -> None:
    plain = dataset(root)
    rows = [
        dict(zip(labels(), [cell if cell != "" else None for cell in row], strict=True))
        for row in zip(*labels().values(), strict=True)
    ]
    path = root / f"labels.{suffix}"
    if suffix == "parquet":
        parquet = pytest.importorskip("pyarrow.parquet")
        parquet.write_table(pytest.importorskip("pyarrow").Table.from_pylist(rows), path)
    else:
        path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    other = dataset(root, path=str(path))
    assert other.describe() == plain.describe() and names(other) == names(plain)
    assert np.array_equal(other.all_hashes(), plain.all_hashes())
    (root / "photos/3.png").unlink()
    place = f"{path}: row 4" if suffix == "parquet" else f"{path}:4"
    with pytest.raises(ConfigError, match=rf"{place}: {root}/photos/3.png: doesn't exist"):
        dataset(root, path=str(path)).describe()


def test_statistics_of_all_training_images(root: Path) -> None:
    images = dataset(root, val=0.0, targets=["price"])
    spec = images.describe()
    train = images.examples("train", 0)
    assert train.rows is not None
    pixels = torch.stack([train.inputs[row] for row in train.rows.tolist()]).double()
    assert spec.mean == pytest.approx(pixels.mean((0, 2, 3)).tolist(), rel=1e-12)
    assert spec.std == pytest.approx(pixels.std((0, 2, 3), correction=0).tolist(), rel=1e-12)
    assert dataset(root, normalize="half").describe().std == (127.5,)
    assert dataset(root, normalize="imagenet").describe().mean[0] == pytest.approx(123.675)
    with pytest.raises(ValueError, match="needs `mode: rgb`"):
        dataset(root, normalize="imagenet", mode="grey")


def test_statistics_of_many_images_do_not_depend_on_their_order(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mtlcli.data.formats.image_statistics.SAMPLED", 7)
    assert SAMPLED == 200
    spec = dataset(root, test=0.0).describe()
    write(root / "labels.csv", {name: cells[::-1] for name, cells in labels().items()})
    again = dataset(root, test=0.0).describe()
    assert (spec.mean, spec.std) == (again.mean, again.std)
    assert spec.mean != dataset(root, test=0.5).describe().mean


def test_a_row_keeps_its_split_when_labels_and_other_rows_change(root: Path) -> None:
    before = names(dataset(root, val=0.3))
    columns = {name: cells[:4:-1] for name, cells in labels().items()}  # reversed, without the first five
    columns["price"] = [1.0 + at for at in range(35)]
    columns["file"] = [f"./{name}" for name in columns["file"]]
    (root / "photos").rename(root / "moved")
    write(root / "labels.csv", columns)
    after = names(dataset(root, val=0.3, root=str(root / "moved")))
    gone = {f"{at}.png" for at in range(5)}
    assert {split: set(files) - gone for split, files in before.items()} == {s: set(f) for s, f in after.items()}
    assert min(map(len, after.values())) > 3


def test_rows_of_one_image_or_one_group_share_a_split(root: Path) -> None:
    twice = {name: [*cells, *cells] for name, cells in labels().items()}
    write(root / "labels.csv", twice)
    for files in names(dataset(root, val=0.3)).values():
        assert sorted(files) == sorted(2 * sorted(set(files)))
    columns = labels() | {"car": [f"car {at // 4}" for at in range(40)]}
    write(root / "labels.csv", columns)
    splits = names(dataset(root, group_column="car", val=0.3))
    cars = [{int(name.removesuffix(".png")) // 4 for name in files} for files in splits.values()]
    assert sum(map(len, cars)) == 10 and all(cars)


def test_split_columns_and_files(root: Path) -> None:
    columns = labels() | {"part": ["train"] * 30 + ["val"] * 4 + ["test"] * 6}
    write(root / "labels.csv", columns)
    assert {split: len(files) for split, files in names(dataset(root, split_column="part")).items()} == {
        "train": 30, "val": 4, "test": 6
    }  # fmt: skip
    columns["file"][-1] = "0.png"
    write(root / "labels.csv", columns)
    (note,) = dataset(root, split_column="part").notes()
    assert note.startswith("the images of 1 of the 6 rows of the split 'test' are also images of training rows")
    write(root / "test.csv", {name: cells[30:39] for name, cells in columns.items()})
    write(root / "labels.csv", {name: cells[:30] for name, cells in columns.items()})
    images = dataset(root, test_path=str(root / "test.csv"), val=0.0)
    assert names(images)["test"] == [f"{at}.png" for at in range(30, 39)] and images.notes() == []
    with pytest.raises(ValueError, match="either from `split_column` or from `test_path`"):
        dataset(root, split_column="part", test_path="x")


def test_spellings_of_paths(root: Path) -> None:
    draw(root / "photos/old cars/Käfer 1.PNG", 50)
    draw(root / "elsewhere/a.png", 51)
    decomposed = unicodedata.normalize("NFD", "old cars/Käfer 1.PNG")
    files = ["0.png", "old cars\\Käfer 1.PNG", decomposed, "../photos/./1.png", str(root / "elsewhere/a.png")]
    write(root / "labels.csv", {"file": files, "color": ["a", "b", "a", "b", "a"]})
    images = dataset(root, targets=["color"], test=0.0)
    assert listed(images.whole()) == ["0.png", "Käfer 1.PNG", "Käfer 1.PNG", "1.png", "a.png"]
    keys = images.keys("train")
    assert keys[1] == keys[2] and len(set(keys.tolist())) == 4
    write(root / "labels.csv", {"file": ["1", "2"], "color": ["a", "b"]})
    assert listed(dataset(root, targets=["color"], suffix=".png").whole()) == ["1.png", "2.png"]


def test_all_missing_and_damaged_images_are_reported_with_their_lines(root: Path) -> None:
    columns = labels()
    columns["file"][3:8] = ["gone.png", "", "https://example.org/a.png", "../photos", "7.PNG"]
    (root / "photos/9.png").write_bytes(b"no image")
    whole = (root / "photos/11.png").read_bytes()
    (root / "photos/11.png").write_bytes(whole[: len(whole) // 2])
    write(root / "labels.csv", columns)
    with pytest.raises(ConfigError) as caught:
        dataset(root).describe()
    path, photos = root / "labels.csv", root / "photos"
    lines = str(caught.value).splitlines()
    assert lines[:5] == [
        f"{path}:5: {photos}/gone.png: doesn't exist",
        f"{path}:6: no image is named in column 'file'",
        f"{path}:7: 'https://example.org/a.png' is a URL; download the images, and name the files in the table",
        f"{path}:8: {photos}/../photos: is a folder",
        f"{path}:9: {photos}/7.PNG: doesn't exist. Did you mean '7.png'?",
    ]
    assert lines[5].startswith(f"{path}:11: {photos}/9.png: is not an image of the formats BMP, GIF, JPEG, PNG")
    assert lines[6].startswith(f"{path}:13: {photos}/11.png: can't be read as an image: ")
    assert lines[7].endswith("set `on_error: skip` to leave out such rows") and len(lines) == 8


def test_damaged_images_are_found_by_the_check_and_by_the_statistics(root: Path) -> None:
    (root / "photos/9.png").write_bytes(b"no image")
    (fault, _) = dataset(root, normalize="half").check_files()
    assert fault.startswith(f"{root}/labels.csv:11: {root}/photos/9.png: is not an image")
    with pytest.raises(ConfigError) as caught:
        dataset(root, test=0.0).describe()
    assert str(caught.value).splitlines()[0] == fault


def test_many_missing_images(root: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        dataset(root, root=str(root)).describe()
    lines = str(caught.value).splitlines()
    assert f"but it exists below the folder '{root / 'photos'}': set the option `root` to it" in lines[0]
    assert len(lines) == 12 and lines[10] == "… and 30 more such rows"
    with pytest.raises(ConfigError, match="nowhere: is not a folder; set the option `root`"):
        dataset(root, root="nowhere").describe()
    write(root / "labels.csv", {"file": ["1", "2"], "color": ["a", "b"]})
    with pytest.raises(ConfigError, match=r"with the ending .png it does: set the option `suffix` to '.png'"):
        dataset(root, targets=["color"]).describe()


def test_unreadable_images_are_skipped(root: Path) -> None:
    expected = names(dataset(root, val=0.3))
    (root / "photos/9.png").write_bytes(b"no image")
    (root / "photos/0.png").unlink()
    images = dataset(root, val=0.3, on_error="skip")
    assert images.describe().targets["price"].missing and len(images.whole()) == 38
    assert names(images) == {
        split: [name for name in files if name not in ("0.png", "9.png")] for split, files in expected.items()
    }
    (note,) = images.notes()
    assert note.startswith("2 rows are left out of 40, because the image can't be read: ")
    assert f"{root}/labels.csv:2: {root}/photos/0.png: doesn't exist; {root}/labels.csv:11: " in note
    assert images.check_files() == []
    (root / "photos/5.png").unlink()  # after the check
    with pytest.raises(Exception, match=r"labels.csv:7: .*5.png: can't be read as an image: No such file"):
        images.whole().inputs[4]
    for at in range(1, 40):
        (root / f"photos/{at}.png").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"labels.csv:3: .*/1.png: is not an image"):
        dataset(root, on_error="skip").describe()


def test_skipped_rows_of_further_files(root: Path) -> None:
    columns = labels()
    write(root / "test.csv", {name: cells[30:] for name, cells in columns.items()})
    write(root / "labels.csv", {name: cells[:30] for name, cells in columns.items()})
    for at in (3, 31):
        (root / f"photos/{at}.png").unlink()
    images = dataset(root, test_path=str(root / "test.csv"), on_error="skip", val=0.0)
    assert names(images)["test"] == [f"{at}.png" for at in range(30, 40) if at != 31]
    (root / "photos/35.png").unlink()
    with pytest.raises(Exception, match=rf"{root}/test.csv:7: "):
        images.whole().inputs[33]
    for at in range(30, 40):
        (root / f"photos/{at}.png").unlink(missing_ok=True)
    with pytest.raises(ConfigError, match="no image of the split 'test' can be read"):
        dataset(root, test_path=str(root / "test.csv"), on_error="skip").describe()


def test_the_size_of_the_images(root: Path) -> None:
    assert dataset(root).describe().input_shape == (3, 8, 10)
    assert dataset(root, size=[4, 7], mode="grey").describe().input_shape == (1, 4, 7)
    draw(root / "photos/9.png", 0, (5, 5))
    assert (
        dataset(root, normalize="half")
        .check_files()[0]
        .endswith("9.png: has 5×5 pixels, but the first image has 10×8. Set the dataset's `size` to resize all images")
    )


def test_options_that_contradict_each_other(root: Path) -> None:
    with pytest.raises(ValueError, match="'file' can't be the image and a target at once"):
        dataset(root, targets=["file"])
    with pytest.raises(ValueError, match=r"both '\.'"):
        dataset(root, decimal=".", thousands=".")
    with pytest.raises(ConfigError, match="no column 'photo', which `image` names"):
        dataset(root, image="photo").describe()
    with pytest.raises(ConfigError, match=r"no column 'colour', which `targets` names. Did you mean 'color'"):
        dataset(root, targets=["colour"]).describe()


def test_the_specification_of_a_checkpoint(root: Path) -> None:
    spec = dataset(root, size=6).describe()
    other = {"file": ["1.png", "2.png", "3.png"], "color": ["red", "", "red"], "price": ["", "2", "3"], "sold": [1] * 3}
    write(root / "labels.csv", other)
    images = dataset(root, size=6, normalize="half")
    adopted = images.restore(spec)
    assert (adopted.mean, adopted.state) == (spec.mean, spec.state)
    assert images.whole().targets["color"].tolist() == [2, IGNORE_INDEX, 2]
    with pytest.raises(ConfigError, match="trained with `fit: crop`, but these options are changed"):
        dataset(root, size=6, fit="pad").restore(spec)
    with pytest.raises(ConfigError, match="trained on inputs 3×6×6, but these are 1×8×8"):
        dataset(root, size=8, mode="grey").restore(spec)
    with pytest.raises(ConfigError, match="not the specification of images"):
        dataset(root, size=6).restore(Digits().describe())
    write(root / "labels.csv", other | {"color": ["red", "pink", "red"]})
    with pytest.raises(ConfigError, match=r"labels.csv:3: target 'color' has the class 'pink'"):
        dataset(root, size=6).restore(spec)


def test_hashes_follow_files_and_labels_but_not_other_columns(root: Path) -> None:
    before = dataset(root).all_hashes()
    write(root / "labels.csv", labels() | {"comment": list(range(40))})
    assert np.array_equal(dataset(root).all_hashes(), before)
    columns = labels()
    columns["sold"][5] = 0
    write(root / "labels.csv", columns)
    draw(root / "photos/6.png", 6, (9, 9))
    assert np.flatnonzero(dataset(root, size=8).all_hashes() != before).tolist() == [5, 6]


CONFIG = """
datasets:
  shots:
    {{name: images, path: labels.csv, image: file, root: photos, size: 8, val: 0.2,
     targets: {{color: classes, price: real, sold: binary}}, augment: {augment}}}
tasks:
  color: {{dataset: shots, kind: classification}}
  price: {{dataset: shots, kind: regression}}
  sold: {{dataset: shots, kind: binary}}
trunk: {{name: mlp, hidden: [8], features: 4}}
training: {{epochs: 2, batch_size: 10, device: cpu, threads: 1}}
"""


def trained(run: Path, *overrides: str) -> dict[str, torch.Tensor]:
    """Train in the current folder, and return the final weights."""
    assert main(["train", "c.yaml", "--run-dir", str(run), *overrides]) == 0
    weights: dict[str, torch.Tensor] = torch.load(run / "checkpoints/last.pt", weights_only=True)["model"]
    return weights


@pytest.mark.parametrize("augment", ["null", "[RandomHorizontalFlip]"])
def test_every_route_of_the_images_gives_the_same_weights(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], augment: str
) -> None:
    monkeypatch.chdir(root)
    (root / "c.yaml").write_text(CONFIG.format(augment=augment))
    weights = [
        trained(root / f"{loading}-{workers}", f"training.loading={loading}", f"training.workers={workers}")
        for loading, workers in (("resident", 0), ("stream", 0), ("stream", 2))
    ]
    assert all(torch.equal(other[name], weights[0][name]) for other in weights for name in weights[0])
    if augment == "null":
        assert "reading 40 files into memory" in capsys.readouterr().err


def test_images_in_memory_are_decoded_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)
    (root / "c.yaml").write_text(CONFIG.format(augment="null").replace("size: 8", "size: 8, normalize: half"))
    read, counts = ImagePreparation.read, Counter[str]()

    def counted(self: ImagePreparation, path: Path) -> torch.Tensor:
        counts[path.name] += 1
        return read(self, path)

    monkeypatch.setattr(ImagePreparation, "read", counted)
    trained(root / "run")
    assert len(counts) == 40 and sorted(counts.values())[36] == 1  # the first of each split is read on its own
    (root / "photos/7.png").write_bytes(b"no image")
    assert main(["train", "c.yaml", "--run-dir", "other"]) == 2


def test_a_run_is_resumed_and_evaluated(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(root)
    (root / "c.yaml").write_text(CONFIG.format(augment="null"))
    whole = trained(root / "whole")
    trained(root / "parts", "training.epochs=1")
    again = trained(root / "parts", "--resume=must")
    assert all(torch.equal(again[name], whole[name]) for name in whole)
    capsys.readouterr()
    assert main(["eval", "whole/checkpoints/last.pt"]) == 0  # `root` of the checkpoint, inside the current folder
    output = capsys.readouterr()
    assert "| test | sold |" in output.out and "warning" not in output.err
    columns = labels()
    columns["sold"][0] = 1
    write(root / "labels.csv", columns)
    assert main(["train", "c.yaml", "--run-dir", "parts", "--resume=must", "training.epochs=3"]) == 2
    assert "datasets.shots: t" in capsys.readouterr().err
    monkeypatch.chdir(root.parent)
    checkpoint = str(root / "whole/checkpoints/last.pt")
    assert main(["eval", checkpoint, f"datasets.shots.path={root / 'labels.csv'}"]) == 2
    assert "photos" in capsys.readouterr().err
    given = [f"datasets.shots.path={root / 'labels.csv'}", f"datasets.shots.root={root / 'photos'}"]
    assert main(["eval", checkpoint, *given]) == 0
