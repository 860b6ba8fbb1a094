"""NYUv2 in its three layouts, with small files."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mtlcli.cli import main
from mtlcli.data.base import Examples
from mtlcli.data.datasets.nyuv2 import CLASSES_13, CLASSES_40, NYUv2
from mtlcli.errors import ConfigError, MtlError
from mtlcli.specs import IGNORE_BYTE

AMOUNTS = {"train": 6, "val": 4}
HEIGHT, WIDTH = 12, 16
Arrays = dict[str, np.ndarray[Any, Any]]


def arrays(split: str, at: int, classes: int = 13, height: int = HEIGHT, width: int = WIDTH) -> Arrays:
    """Return an image, classes from -1 on, depths with zeros, and normals with zeros."""
    rng = np.random.default_rng([len(split), at])
    normals = rng.normal(size=(height, width, 3))
    normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
    normals[:2] = 0
    depth = rng.uniform(0.5, 9, (height, width, 1))
    depth[-2:] = 0
    return {
        "image": rng.integers(0, 256, (height, width, 3)) / 255,
        "label": rng.integers(-1, classes, (height, width)).astype(np.float64),
        "depth": depth, "normal": normals, "edge": rng.integers(0, 2, (height, width)),
    }  # fmt: skip


@pytest.fixture
def mtan(tmp_path: Path) -> Path:
    """Files as those of MTAN."""
    for split, amount in AMOUNTS.items():
        for at in range(amount):
            for name, array in arrays(split, at).items():
                if name != "edge":
                    folder = tmp_path / split / name
                    folder.mkdir(parents=True, exist_ok=True)
                    np.save(folder / f"{at}.npy", array.astype(np.float32))
    return tmp_path


@pytest.fixture
def nyud(tmp_path: Path) -> Path:
    """Files as those of NYUD_MT."""
    for folder in ("images", "segmentation", "depth", "normals", "edge", "gt_sets"):
        (tmp_path / folder).mkdir()
    for split, amount in AMOUNTS.items():
        names = [f"img_{split}{at}" for at in range(amount)]
        (tmp_path / f"gt_sets/{split}.txt").write_text("\n".join(names) + "\n")
        for at, name in enumerate(names):
            of_image = arrays(split, at, 40)
            image = Image.fromarray((of_image["image"] * 255).round().astype(np.uint8))
            image.save(tmp_path / f"images/{name}.png")
            Image.fromarray((of_image["label"] + 1).astype(np.uint8)).save(tmp_path / f"segmentation/{name}.png")
            np.save(tmp_path / f"depth/{name}.npy", of_image["depth"][..., 0].astype(np.float32))
            np.save(tmp_path / f"normals/{name}.npy", of_image["normal"].astype(np.float32))
            np.save(tmp_path / f"edge/{name}.npy", of_image["edge"])
    return tmp_path


def check_maps(examples: Examples, split: str, classes: int) -> None:
    """Compare all images and maps with the arrays that were written."""
    for at in range(len(examples)):
        written = arrays(split, at, classes)
        image = examples.inputs[at]
        assert image.dtype == torch.uint8
        assert np.array_equal(image.permute(1, 2, 0), (written["image"] * 255).round())
        label = np.where(written["label"] < 0, IGNORE_BYTE, written["label"])
        assert np.array_equal(examples.maps["segmentation"][at], label)
        depth = np.where(written["depth"] == 0, np.nan, written["depth"])[..., 0]
        assert np.allclose(examples.maps["depth"][at].numpy(), depth, rtol=1e-6, equal_nan=True)
        normals = np.where((written["normal"] == 0).all(-1, keepdims=True), np.nan, written["normal"])
        assert np.allclose(examples.maps["normals"][at].permute(1, 2, 0).numpy(), normals, atol=1e-6, equal_nan=True)


def test_files_of_mtan(mtan: Path) -> None:
    dataset = NYUv2(root=str(mtan), val=0.0)
    spec = dataset.describe()
    assert spec.input_shape == (3, HEIGHT, WIDTH) and spec.splits == ("train", "test")
    assert (spec.mean, spec.std, spec.main_target) == ((0.0,), (255.0,), "segmentation")
    assert {name: target.type for name, target in spec.targets.items()} == {
        "segmentation": "class_map", "depth": "depth_map", "normals": "normal_map"
    }  # fmt: skip
    assert spec.targets["segmentation"].classes == CLASSES_13 and len(CLASSES_13) == 13
    check_maps(dataset.read("train"), "train", 13)
    check_maps(dataset.read("test"), "val", 13)
    assert dataset.check_files() == [] and dataset.check_files(1000) == []
    assert dataset.notes() == [
        f"{mtan}: 6 images of the split 'train', but 795 were published",
        f"{mtan}: 4 images of the split 'test', but 654 were published",
    ]


def test_folders_of_nyud_mt(nyud: Path) -> None:
    dataset = NYUv2(root=str(nyud), val=0.0, normalize="imagenet")
    spec = dataset.describe()
    assert list(spec.targets) == ["segmentation", "depth", "normals", "edge"]
    assert spec.targets["segmentation"].classes == CLASSES_40 and len(CLASSES_40) == 40
    assert spec.mean[0] == pytest.approx(0.485 * 255)
    for split, of_files in (("train", "train"), ("test", "val")):
        examples = dataset.read(split)
        check_maps(examples, of_files, 40)
        assert np.array_equal(examples.maps["edge"][1], arrays(of_files, 1, 40)["edge"])
    assert dataset.check_files() == []
    (nyud / "images/img_val3.png").rename(nyud / "images/img_val3.jpg")
    assert len(NYUv2(root=str(nyud)).read("test")) == 4
    (nyud / "depth/img_val3.npy").unlink()
    with pytest.raises(ConfigError, match=r"depth/img_val3.npy: doesn't exist, but gt_sets/val.txt lists it"):
        NYUv2(root=str(nyud)).describe()


def test_val_is_a_share_of_the_training_images(mtan: Path) -> None:
    dataset = NYUv2(root=str(mtan), val=0.34)
    assert dataset.describe().splits == ("train", "val", "test")
    train, val = (dataset.examples(split, 0) for split in ("train", "val"))
    assert train.rows is not None and val.rows is not None and len(val) == 2
    assert sorted([*train.rows.tolist(), *val.rows.tolist()]) == list(range(6))
    assert train.maps["depth"] is val.maps["depth"]
    again = NYUv2(root=str(mtan), val=0.34).examples("val", 0)
    assert again.rows is not None and again.rows.equal(val.rows)


def test_depth_is_measured_before_training(mtan: Path) -> None:
    dataset = NYUv2(root=str(mtan))
    assert dataset.describe().targets["depth"].mean == 0
    dataset.fit()
    values = np.concatenate([arrays("train", at)["depth"].ravel() for at in range(6)])
    depth = dataset.describe().targets["depth"]
    assert depth.mean == pytest.approx(values[values > 0].mean(), rel=1e-6)
    assert depth.std == pytest.approx(values[values > 0].std(), rel=1e-6)


@pytest.mark.parametrize("layout", ["npy", "folders"])
def test_images_and_maps_are_resized_together(request: pytest.FixtureRequest, layout: str) -> None:
    root = request.getfixturevalue("mtan" if layout == "npy" else "nyud")
    dataset = NYUv2(root=str(root), size=[6, 8])
    assert dataset.describe().input_shape == (3, 6, 8)
    written = arrays("train", 2, 13 if layout == "npy" else 40)
    examples = dataset.read("train")
    nearest = np.where(written["label"] < 0, IGNORE_BYTE, written["label"])[
        1::2, 1::2
    ]  # the centers are between pixels
    assert np.array_equal(examples.maps["segmentation"][2], nearest)
    image = Image.fromarray((written["image"] * 255).round().astype(np.uint8)).resize((8, 6), Image.Resampling.BILINEAR)
    assert np.array_equal(examples.inputs[2].permute(1, 2, 0), np.asarray(image))


def test_a_target_without_a_folder_is_left_out(mtan: Path) -> None:
    for split in AMOUNTS:
        (mtan / split / "normal").rename(mtan / split / "unused")
    assert list(NYUv2(root=str(mtan)).describe().targets) == ["segmentation", "depth"]
    (mtan / "val/depth").rename(mtan / "val/unused2")
    with pytest.raises(ConfigError, match=r"val/depth: No such file or directory; expected a folder of files 0.npy"):
        NYUv2(root=str(mtan)).describe()


def test_files_that_are_missing(mtan: Path) -> None:
    (mtan / "train/label/2.npy").unlink()
    (mtan / "val/image/1.npy").unlink()
    with pytest.raises(ConfigError, match=r"train/label/2.npy: doesn't exist, but image/2.npy does"):
        NYUv2(root=str(mtan)).describe()
    np.save(mtan / "train/label/2.npy", np.zeros((HEIGHT, WIDTH)))
    with pytest.raises(ConfigError, match=r"val/image/1.npy: doesn't exist, but image/3.npy does"):
        NYUv2(root=str(mtan)).describe()
    np.save(mtan / "val/image/1.npy", np.zeros((HEIGHT, WIDTH, 3)))
    np.save(mtan / "val/depth/4.npy", np.ones((HEIGHT, WIDTH)))
    with pytest.raises(ConfigError, match=r"val/depth: has 5 files, but .*val/image has 4; 4.npy has no image"):
        NYUv2(root=str(mtan)).describe()


@pytest.mark.parametrize(
    ("file", "array", "message"),
    [
        ("label/1.npy", np.full((HEIGHT, WIDTH), 13.0), "has the value 13; expected a class from 0 to 12, or -1 where"),
        ("label/1.npy", np.zeros((HEIGHT, WIDTH + 1)), "has 17×12 pixels, but the images have 16×12 pixels"),
        ("label/1.npy", np.zeros((HEIGHT, WIDTH, 3)), "is an array [12, 16, 3]; expected [H, W]"),
        ("depth/1.npy", np.full((HEIGHT, WIDTH, 1), -2.0), "has the value -2; expected a distance > 0, or 0 or NaN"),
        ("depth/1.npy", np.full((HEIGHT, WIDTH, 1), np.inf), "has the value inf; expected a distance"),
        (
            "normal/1.npy",
            np.full((HEIGHT, WIDTH, 3), 255.0),
            "has the component 255 of a normal; expected from -1 to 1",
        ),
        (
            "image/1.npy",
            np.full((HEIGHT, WIDTH, 3), 255.0),
            "has the value 255; expected an image of floats from 0 to 1",
        ),
        ("image/1.npy", np.full((HEIGHT, WIDTH, 3), np.nan), "has the value nan; expected an image of floats"),
        ("image/1.npy", np.zeros((HEIGHT, WIDTH, 3), np.int64), "is an array of int64; expected an image of floats"),
        ("image/1.npy", np.zeros((HEIGHT, WIDTH)), "is an array [12, 16]; expected [H, W, 3] or [3, H, W]"),
        ("image/1.npy", np.zeros((5, 5, 3)), "has 5×5 pixels, but the first image has 16×12"),
    ],
)
def test_wrong_values(mtan: Path, file: str, array: np.ndarray[Any, Any], message: str) -> None:
    np.save(mtan / "train" / file, array)
    faults = NYUv2(root=str(mtan)).check_files()
    assert len(faults) == 1 and faults[0].startswith(f"{mtan}/train/{file}: {message}")
    examples = NYUv2(root=str(mtan)).read("train")
    source = {"image": examples.inputs, "label": examples.maps["segmentation"], "depth": examples.maps["depth"],
              "normal": examples.maps["normals"]}[file.split("/")[0]]  # fmt: skip
    with pytest.raises(MtlError, match=r"1.npy: "):
        source[1]


def test_damaged_files(mtan: Path) -> None:
    for name in ("image", "depth"):
        path = mtan / f"val/{name}/0.npy"
        path.write_bytes(path.read_bytes()[:-7])
    faults = NYUv2(root=str(mtan)).check_files(1000)
    assert [fault.split(":")[0] for fault in faults] == [f"{mtan}/val/{name}/0.npy" for name in ("image", "depth")]
    (mtan / "train/image/0.npy").write_bytes(b"no array")
    with pytest.raises(ConfigError, match=r"train/image/0.npy: can't be read as an array of NumPy"):
        NYUv2(root=str(mtan)).describe()


def test_a_missing_folder_tells_what_is_expected(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent: doesn't exist; expected train/image, val/image \(`layout: npy`\)"):
        NYUv2(root=str(tmp_path / "absent")).describe()
    with pytest.raises(ConfigError, match=r"has none of the files of nyuv2; expected .* `mtl show nyuv2` tells where"):
        NYUv2(root=str(tmp_path)).describe()
    with pytest.raises(ConfigError, match=r"expected images, gt_sets \(`layout: folders`\)\. Set `root`"):
        NYUv2(root=str(tmp_path), layout="folders").describe()


def test_classes_that_the_files_lack(mtan: Path) -> None:
    with pytest.raises(ConfigError, match="`layout: npy` have 13 classes, so `classes` can't be 40"):
        NYUv2(root=str(mtan), classes=40).describe()


def test_the_hashes_are_those_of_names_and_sizes(mtan: Path) -> None:
    before = NYUv2(root=str(mtan)).hashes("train")
    np.save(mtan / "train/depth/3.npy", np.ones((HEIGHT, WIDTH), np.float64))
    after = NYUv2(root=str(mtan)).hashes("train")
    assert len(np.unique(before)) == 6 and np.flatnonzero(before != after).tolist() == [3]


def test_the_commands_show_the_files(
    mtan: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MTL_DATA", str(mtan.parent / "data"))
    assert main(["data", "list"]) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("nyuv2"))
    assert line.split()[:3] == ["nyuv2", "missing", str(mtan.parent / "data/nyuv2")]
    (mtan.parent / "data").mkdir()
    (mtan.parent / "data/nyuv2").symlink_to(mtan)
    assert main(["data", "list"]) == 0 and "found: npy" in capsys.readouterr().out
    assert main(["data", "fetch", "nyuv2"]) == 0 and "placed by hand" in capsys.readouterr().out
    assert main(["show", "nyuv2"]) == 0
    shown = capsys.readouterr().out
    assert "      root/train/image/0.npy" in shown and "segmentation (main)  class_map" in shown


# the original files


def original(root: Path, amount: int = 5) -> Path:
    h5py = pytest.importorskip("h5py")
    from scipy.io import savemat

    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (amount, 3, 640, 480)).astype(np.uint8)
    depths = rng.uniform(0.5, 9, (amount, 640, 480)).astype(np.float32)
    labels = rng.integers(0, 895, (amount, 640, 480)).astype(np.uint16)
    with h5py.File(root / "nyu_depth_v2_labeled.mat", "w") as file:
        file["images"], file["depths"], file["labels"] = images, depths, labels
    savemat(root / "splits.mat", {"trainNdxs": np.array([[2], [5], [1]]), "testNdxs": np.array([[4], [3]])})
    savemat(root / "classMapping40.mat", {"mapClass": (np.arange(894) % 41).reshape(1, -1), "other": "x"})
    labels_13 = {"labels13": (np.arange(40) % 14).reshape(1, -1), "className": np.array(["a"], object)}
    savemat(root / "class13Mapping.mat", {"classMapping13": labels_13})
    return root


@pytest.mark.parametrize("classes", [40, 13])
def test_the_original_files(tmp_path: Path, classes: Any) -> None:
    h5py = pytest.importorskip("h5py")
    root = original(tmp_path)
    dataset = NYUv2(root=str(root), classes=classes, val=0.0)
    spec = dataset.describe()
    assert spec.input_shape == (3, 425, 560) and list(spec.targets) == ["segmentation", "depth"]
    assert spec.targets["segmentation"].size == classes and dataset.check_files() == []
    to_40 = [0, *(np.arange(894) % 41).tolist()]
    to_13 = [0, *(np.arange(40) % 14).tolist()]
    with h5py.File(root / "nyu_depth_v2_labeled.mat", "r") as file:
        for split, numbers in (("train", [2, 5, 1]), ("test", [4, 3])):
            examples = dataset.read(split)
            assert len(examples) == len(numbers)
            for at, number in enumerate(numbers):
                image, depth, label = (file[key][number - 1] for key in ("images", "depths", "labels"))
                y, x = 100, 7  # of the region that begins at row 45 and column 40
                assert examples.inputs[at][:, y, x].tolist() == image[:, x + 40, y + 45].tolist()
                assert examples.maps["depth"][at][y, x] == depth[x + 40, y + 45]
                expected = np.array(to_40)[label.T[45:470, 40:600]]
                expected = expected if classes == 40 else np.array(to_13)[expected]
                expected = np.where(expected == 0, IGNORE_BYTE, expected - 1)
                assert np.array_equal(examples.maps["segmentation"][at], expected)
    small = NYUv2(root=str(root), size=[85, 112]).read("train")
    assert small.inputs[0].shape == (3, 85, 112) and small.maps["depth"][0].shape == (85, 112)


def test_original_files_that_are_wrong(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    root = original(tmp_path, 5)
    (root / "class13Mapping.mat").unlink()
    with pytest.raises(ConfigError, match=r"class13Mapping.mat: doesn't exist; without it, set `classes: 40`"):
        NYUv2(root=str(root)).describe()
    from scipy.io import savemat

    savemat(root / "splits.mat", {"trainNdxs": np.array([[9]]), "testNdxs": np.array([[1]])})
    with pytest.raises(ConfigError, match=r"splits.mat: expected numbers of images from 1 to 5"):
        NYUv2(root=str(root), classes=40).describe()
    savemat(root / "splits.mat", {"trainNdxs": np.array([[1]])})
    with pytest.raises(ConfigError, match=r"splits.mat: has no testNdxs"):
        NYUv2(root=str(root), classes=40).describe()
    (root / "splits.mat").write_bytes(b"MATLAB 5.0")
    with pytest.raises(ConfigError, match=r"splits.mat: can't be read as a file of Matlab"):
        NYUv2(root=str(root), classes=40).describe()
    with h5py.File(root / "nyu_depth_v2_labeled.mat", "w") as file:
        file["images"] = np.zeros((2, 3, 4, 4), np.uint8)
    with pytest.raises(ConfigError, match=r"found images \[2, 3, 4, 4\], depths missing, labels missing"):
        NYUv2(root=str(root), classes=40).describe()
    (root / "nyu_depth_v2_labeled.mat").write_bytes(b"no HDF5")
    with pytest.raises(ConfigError, match="can't be read as HDF5"):
        NYUv2(root=str(root), classes=40).describe()
    (root / "classMapping40.mat").unlink()
    with pytest.raises(ConfigError, match=r"classMapping40.mat: doesn't exist; `mtl show nyuv2` tells where"):
        NYUv2(root=str(root), classes=40).describe()


def test_the_original_files_need_h5py(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("nyu_depth_v2_labeled.mat", "splits.mat", "classMapping40.mat"):
        (tmp_path / name).write_bytes(b"")
    original_import = importlib.import_module

    def absent(name: str, package: str | None = None) -> Any:
        if name == "h5py":
            raise ImportError(name)
        return original_import(name, package)

    monkeypatch.setattr("mtlcli.data.formats.nyu_archive.import_module", absent)
    with pytest.raises(ConfigError, match=r"the library h5py reads; install it: pip install 'mtlcli\[nyuv2\]'"):
        NYUv2(root=str(tmp_path)).describe()
