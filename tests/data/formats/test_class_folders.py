"""Recognition of split folders, class folders and ignored files."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mtlcli.data.formats.class_folders import ClassFolders, find_class_folders
from mtlcli.data.formats.split_names import match_split
from mtlcli.errors import ConfigError

SUFFIXES = frozenset({".png", ".gif"})
NFC, NFD = "caf\u00e9", "cafe\u0301"


def find(root: Path, *files: str) -> ClassFolders:
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).touch()
    return find_class_folders(root, SUFFIXES)


def classes(folders: ClassFolders) -> dict[str, list[str]]:
    return {split: names for split, (_, names) in folders.splits.items()}


def pets(*folders: str) -> list[str]:
    return [f"{folder}{pet}/1.png" for folder in folders for pet in ("cat", "dog")]


@pytest.mark.parametrize(
    ("split", "names"),
    {
        "train": ["train", "Train", "TRAINING", "training_set", "Train-Images", "train data", "trainset"],
        "val": ["val", "VALID", "Validation", "dev", "val_set", "valid_split"],
        "test": ["test", "Testing", "TEST", "test_set", "test.images"],
        None: ["trains", "Train2", "detest", "value", "device", "set", "data", "attest", "cat"],
    }.items(),
)
def test_names_of_splits(split: str | None, names: list[str]) -> None:
    assert {name: match_split(name) for name in names} == dict.fromkeys(names, split)


@pytest.mark.parametrize("names", [("Train/", "Test/"), ("training/", "validation/"), ("train/", "valid/", "test/")])
def test_split_folders_with_other_names(tmp_path: Path, names: tuple[str, ...]) -> None:
    splits = [match_split(name) for name in names]
    assert classes(find(tmp_path, *pets(*names))) == {split: ["cat", "dog"] for split in splits}


@pytest.mark.parametrize(
    "files",
    [
        ["cat/._1.png", "__MACOSX/cat/._1.png", "__MACOSX/dog/2.png"],
        ["cat/.ipynb_checkpoints/1-checkpoint.png", ".git/cat/1.png", ".DS_Store", "cat/.DS_Store"],
        ["cat/Thumbs.db", "dog/desktop.ini", "dog/Icon\r", "cat/@eaDir/1.png", "$RECYCLE.BIN/cat/1.png"],
    ],
)
def test_files_of_systems_and_tools_are_ignored(tmp_path: Path, files: list[str]) -> None:
    folders = find(tmp_path, *pets(""), *files)
    assert classes(folders) == {"train": ["cat", "dog"]} and folders.notes == []


def test_ignored_files_are_counted(tmp_path: Path) -> None:
    folders = find(tmp_path, *pets("train/"), "train/cat/1.HEIC", "train/dog/2.heic", "train/cat/list", "train/x.txt")
    assert folders.notes == [
        "files left out, as they are not images of a supported format: 2 .heic, 1 .txt, 1 without a suffix"
    ]
    folders = find(tmp_path, "train/loose.png", "test/1.png", "labels.csv", "annotations/a.xml")
    assert folders.notes[1:] == ["images left out, as they are in no class folder: 2 .png"]
    assert classes(folders) == {"train": ["cat", "dog"]}


def test_nested_folders_belong_to_the_class_above(tmp_path: Path) -> None:
    folders = find(tmp_path, *pets(""), "cat/young/black/1.png", "dog/young/1.GIF")
    assert classes(folders) == {"train": ["cat", "cat", "dog", "dog"]}
    paths = [str(path.relative_to(tmp_path)) for path in folders.splits["train"][0]]
    assert paths == ["cat/1.png", "cat/young/black/1.png", "dog/1.png", "dog/young/1.GIF"]


@pytest.mark.parametrize("split", ["", "train/"])
def test_classes_that_hold_the_same_folders_may_be_splits(tmp_path: Path, split: str) -> None:
    folders = find(tmp_path, *pets(f"{split}gallery/", f"{split}query/"), f"{split}query/bird/1.png")
    assert set(classes(folders)["train"]) == {"gallery", "query"}
    (note,) = folders.notes
    assert note.startswith(
        "the folders 'gallery', 'query' are read as classes, and hold the same folders 'cat', 'dog'. If the inner ones"
    )
    find(tmp_path, f"{split}query/1.png")  # it holds images itself, so it is a class
    assert find(tmp_path).notes == []
    assert find(tmp_path / "other", "cat/images/1.png", "dog/images/1.png").notes == []


def test_names_equal_in_nfc_are_one_class(tmp_path: Path) -> None:
    folders = find(tmp_path, f"train/{NFC}/1.png", "train/tea/1.png", f"test/{NFD}/1.png")
    assert classes(folders) == {"train": [NFC, "tea"], "test": [NFC]} and folders.notes == []
    folders = find(tmp_path, f"train/{NFD}/2.png")
    assert classes(folders)["train"] == [NFC, NFC, "tea"]
    assert folders.notes == [f"folders whose names are equal in Unicode's form NFC are one class: {NFC}"]


@pytest.mark.parametrize("names", [["bus", "car", "train"], ["Bus", "Car", "Train"], ["invalid", "valid"]])
def test_a_class_whose_name_denotes_a_split(tmp_path: Path, names: list[str]) -> None:
    folders = find(tmp_path, *(f"{name}/1.png" for name in names))
    assert classes(folders) == {"train": names}
    assert folders.notes == [
        f"the folder `{names[-1]}` holds images directly, next to other folders, so it is read as a class"
    ]


@pytest.mark.parametrize("names", [["images", "labels"], ["data", "sets"], ["fold", "split"], ["devices", "tests"],
    ["bus_station", "test_tube", "train_station"], ["testA", "testB"], ["Val Gardena", "train gardening"]])  # fmt: skip
def test_names_that_do_not_denote_splits(tmp_path: Path, names: list[str]) -> None:
    assert classes(find(tmp_path, *(f"{name}/1.png" for name in names))) == {"train": names}


REFUSED = {
    "two spellings": (pets("train/", "Training/", "test/"), "'Training', 'train' are all the split `train`"),
    "valid and val": (pets("train/", "val/", "valid/"), "'val', 'valid' are all the split `val`"),
    "splits and classes": ([*pets("train/", "test/"), "bird/1.png"], "bird: a folder of images next to the split"),
    "a misspelt split": (pets("train/", "tets/"), "tets: a folder of images .* Did you mean 'test'"),
    "a split of another name": (pets("train/", "holdout/"), "holdout: a folder of images next to the split"),
    "numbered splits": (pets("Train2/", "Test2/"), "'Test2', 'Train2' look like splits, not like classes"),
    "numbered splits without classes": (["train1/1.png", "test1/1.png"], "'test1', 'train1' look like splits"),
    "splits and a word": (pets("seg_train/", "seg_test/", "seg_pred/"), "'seg_test', 'seg_train' look like splits"),
    "the splits of classes": (["trainA/1.png", "trainB/1.png", "testA/1.png"], "'testA', 'trainA' look like splits"),
    "folds": (pets("fold1/", "fold2/"), "'fold1', 'fold2' look like splits"),
    "a split beside classes": ([*pets(""), *pets("holdout/")], r"holdout: repeats the classes next to it \(cat, dog\)"),
    "classes before splits": (pets("x/train/", "x/test/", "y/train/"), "x: holds the split folders 'test', 'train'"),
    "one folder too high": (pets("pets/train/", "pets/test/"), "so it is no class; set `root: .*/pets`"),
    "images in the splits": (
        ["train/1.png", "test/1.png"],
        "'test', 'train', which name splits, hold images directly.*/<class>/",
    ),
    "a flat test among classes": (
        [*pets(""), "test/1.png"],
        "'test', which name splits, hold images directly",
    ),
    "an empty class": ([*pets(""), "bird/a.heic"], r"bird: the folder has no images \(but 1 .heic\)"),
}  # fmt: skip


@pytest.mark.parametrize(("files", "message"), REFUSED.values(), ids=REFUSED)
def test_invalid_layouts(tmp_path: Path, files: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        find(tmp_path, *files)


def test_links_are_followed_except_loops(tmp_path: Path) -> None:
    (tmp_path / "elsewhere/more").mkdir(parents=True)
    (tmp_path / "elsewhere/more/2.png").touch()
    root = tmp_path / "root"
    find(root, *pets("train/"))
    (root / "train/cat/more").symlink_to(tmp_path / "elsewhere/more")
    (root / "train/cat/again").symlink_to(tmp_path / "elsewhere/more")  # the same images, once for a class
    (root / "train/dog/3.png").symlink_to(tmp_path / "elsewhere/more/2.png")
    (root / "train/bird").symlink_to(tmp_path / "elsewhere")
    (root / "train/dog/up").symlink_to(root)
    (tmp_path / "elsewhere/back").symlink_to(root / "train")
    (tmp_path / "elsewhere/more/self").symlink_to(tmp_path / "elsewhere/more")
    (root / "test").symlink_to(root / "train")
    folders = find_class_folders(root, SUFFIXES)
    expected = ["bird", "cat", "cat", "dog", "dog"]
    assert classes(folders) == {"train": expected, "test": expected}


def test_broken_links_are_listed(tmp_path: Path) -> None:
    find(tmp_path, *pets("train/"))
    for number in range(12):
        (tmp_path / f"train/cat/{number:02}.png").symlink_to(tmp_path / "nowhere")
    (tmp_path / "train/cat/more").symlink_to(tmp_path / "nowhere")
    with pytest.raises(ConfigError) as caught:
        find_class_folders(tmp_path, SUFFIXES)
    lines = str(caught.value).splitlines()
    assert len(lines) == 11 and lines[-1] == "… and 3 more such problems"
    assert re.search(r"cat/00.png: is a broken link", lines[0])
