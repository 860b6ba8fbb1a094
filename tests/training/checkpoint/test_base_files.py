"""Files that a checkpoint refers to: found by their SHA-256, and nothing else is read."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mtlcli.errors import ConfigError
from mtlcli.training.checkpoint.base_files import BaseReference, describe_files, find_base, hash_file

VALUES = {"sharing.trunk.w": "0" * 64}


@pytest.fixture
def reference(tmp_path: Path) -> BaseReference:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"weights")
    files = describe_files([folder / "model.safetensors"])
    return BaseReference("model", "models/tiny", str(folder), files, VALUES)


def test_a_reference_is_plain_data(reference: BaseReference) -> None:
    assert BaseReference.from_dict(reference.to_dict(), "a.pt") == reference


def test_the_files_are_found_where_the_run_had_them(reference: BaseReference, tmp_path: Path) -> None:
    assert find_base(reference, None, "a.pt") == (tmp_path / "model/model.safetensors",)


def test_the_files_are_found_by_name_in_the_data_root(
    reference: BaseReference, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MTL_DATA", str(tmp_path))
    moved = replace(reference, folder=str(tmp_path / "nowhere"), option="model")
    assert find_base(moved, None, "a.pt") == (tmp_path / "model/model.safetensors",)


def test_a_missing_base_is_named_with_the_places(reference: BaseReference, tmp_path: Path) -> None:
    moved = replace(reference, folder=str(tmp_path / "nowhere"))
    with pytest.raises(ConfigError) as error:
        find_base(moved, None, "a.pt")
    text = str(error.value)
    assert text.startswith("a.pt refers to weights that it doesn't hold, model.safetensors (7 bytes, SHA-256 ")
    assert "nowhere" in text
    assert text.endswith("Give the folder or file of the model: --base PATH")


def test_the_folder_or_the_file_can_be_given(reference: BaseReference, tmp_path: Path) -> None:
    moved = replace(reference, folder="nowhere")
    for given in (tmp_path / "model", tmp_path / "model/model.safetensors"):
        assert find_base(moved, given, "a.pt") == (tmp_path / "model/model.safetensors",)
    with pytest.raises(ConfigError, match="does not have these files"):
        find_base(moved, tmp_path, "a.pt")


def test_another_file_is_refused(reference: BaseReference, tmp_path: Path) -> None:
    (tmp_path / "model/model.safetensors").write_bytes(b"WEIGHTS")
    with pytest.raises(ConfigError, match="have another SHA-256"):
        find_base(reference, None, "a.pt")
    with pytest.raises(ConfigError, match="holds other weights: their SHA-256 differs"):
        find_base(reference, tmp_path / "model", "a.pt")


def test_only_regular_files_of_the_right_size_are_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.safetensors")
    (tmp_path / "a").write_bytes(b"1234")
    assert hash_file(tmp_path / "pipe.safetensors") is None
    assert hash_file(Path("/dev/zero")) is None
    assert hash_file(tmp_path) is None
    assert hash_file(tmp_path / "a", size=5) is None
    assert hash_file(tmp_path / "a\0b") is None
    assert hash_file(tmp_path / ("x" * 5000)) is None
    hashed = hash_file(tmp_path / "a", size=4)
    assert hashed is not None
    assert hashed[0] == 4


@pytest.mark.parametrize(
    "changes",
    [
        {"files": [["../../etc/passwd", 7, "0" * 64]]},
        {"files": [["passwd", 7, "0" * 64]]},
        {"files": [["model.bin", 7, "0" * 64]]},
        {"files": [["a/model.safetensors", 7, "0" * 64]]},
        {"files": [["model.safetensors", -1, "0" * 64]]},
        {"files": [["model.safetensors", 7, "short"]]},
        {"files": []},
        {"role": "other"},
        {"folder": 3},
        {"option": "x" * 10_000},
        {"values": {}},
        {"values": {"a": "b"}},
        {"tokenizer": 7},
    ],
    ids=lambda changes: str(changes)[:50],
)
def test_references_of_another_form_are_refused(reference: BaseReference, changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"a\.pt: its reference to a base has another form"):
        BaseReference.from_dict({**reference.to_dict(), **changes}, "a.pt")


@pytest.mark.parametrize("place", ["/etc/passwd", "/dev/zero", "/proc/self/mem", "a\0b", "~nobody/x", "../.."])
def test_a_path_in_a_checkpoint_is_only_a_place_to_look(
    reference: BaseReference, place: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """No file whose name is not that of weights is opened, wherever the checkpoint points."""
    opened: list[str] = []
    real = os.open
    monkeypatch.setattr(os, "open", lambda path, *args: (opened.append(str(path)), real(path, *args))[1])
    with pytest.raises(ConfigError, match="Give the folder or file of the model"):
        find_base(replace(reference, folder=place, option=place), None, "a.pt")
    assert all(path.endswith("model.safetensors") for path in opened)
