import io
import os
import pickle
import random
from pathlib import Path

import pytest
import torch

from mtlcli.errors import ConfigError, MtlError
from mtlcli.training.checkpoint.file import FORMAT, load_checkpoint, rng_state, save_checkpoint, set_rng_state
from mtlcli.training.checkpoint.integrity import seal
from tests.training.identical import digest

PAYLOAD = {
    "config": {"name": "x"},
    "specs": {},
    "model": {"weight": torch.arange(6.0).reshape(2, 3), "half": torch.ones(2, dtype=torch.bfloat16)},
    "numbers": [1, 2.5, None, True, "text", float("inf")],
    "empty": {"tensor": torch.zeros(0), "list": []},
}


def test_save_and_load_round_trip(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "a.pt", PAYLOAD)
    loaded = load_checkpoint(tmp_path / "a.pt")
    assert digest(loaded) == digest(PAYLOAD)
    assert torch.equal(loaded["model"]["weight"], PAYLOAD["model"]["weight"])  # type: ignore[index]
    assert loaded["numbers"] == PAYLOAD["numbers"]
    assert [path.name for path in tmp_path.iterdir()] == ["a.pt"]  # no temporary file remains


@pytest.mark.parametrize("seed", range(4))
def test_any_flipped_bit_is_detected(tmp_path: Path, seed: int) -> None:
    path = tmp_path / "a.pt"
    save_checkpoint(path, PAYLOAD)
    intact = path.read_bytes()
    generator = random.Random(seed)
    for bit in [*generator.sample(range(8 * len(intact)), 250), 8 * len(intact) - 1 - seed]:
        damaged = bytearray(intact)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        with pytest.raises(ConfigError, match=r"a\.pt: damaged"):
            load_checkpoint(path)


@pytest.mark.parametrize("keep", [0, 1, 3, 4, 100, 0.5, 0.99, -1, -64, -65, -80])
def test_a_truncated_file_is_refused(tmp_path: Path, keep: float) -> None:
    path = tmp_path / "a.pt"
    save_checkpoint(path, PAYLOAD)
    intact = path.read_bytes()
    path.write_bytes(intact[: int(keep * len(intact)) if isinstance(keep, float) else keep])
    with pytest.raises(ConfigError, match=r"a\.pt: (damaged|empty), or not a checkpoint"):
        load_checkpoint(path)


def test_torch_can_read_checkpoints(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "a.pt", PAYLOAD)
    loaded = torch.load(tmp_path / "a.pt", weights_only=True)
    assert torch.equal(loaded["model"]["weight"], PAYLOAD["model"]["weight"])  # type: ignore[index]


def write_sealed(document: object, path: Path) -> None:
    """Write a document as a checkpoint file with a valid checksum."""
    buffer = io.BytesIO()
    torch.save(document, buffer)
    path.write_bytes(seal(buffer.getvalue()))


class MaliciousCode:
    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (Path("ran"),))


def test_code_in_a_file_is_never_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_sealed({"format": "mtl", "code": MaliciousCode()}, Path("evil.pt"))
    Path("pickled.pt").write_bytes(pickle.dumps(MaliciousCode()))
    for name in ("evil.pt", "pickled.pt"):
        with pytest.raises(ConfigError, match="not a checkpoint"):
            load_checkpoint(name)
    assert not Path("ran").exists()


def test_foreign_newer_and_missing_files_are_refused(tmp_path: Path) -> None:
    torch.save({"state_dict": {}}, tmp_path / "foreign.pt")
    write_sealed(torch.zeros(3), tmp_path / "tensor.pt")
    write_sealed({"format": "mtl", "version": 99}, tmp_path / "newer.pt")
    write_sealed({"format": "mtl", "version": 1}, tmp_path / "older.pt")
    write_sealed({"format": "mtl", "version": FORMAT}, tmp_path / "bare.pt")
    (tmp_path / "text.pt").write_text("hello")
    (tmp_path / "folder.pt").mkdir()
    os.mkfifo(tmp_path / "pipe.pt")
    for name, message in {
        "foreign.pt": "not a checkpoint of mtl",
        "tensor.pt": "not a checkpoint of mtl",
        "newer.pt": "checkpoint format 99, but this version of mtl reads format 2: use a newer version",
        "older.pt": "checkpoint format 1, but this version of mtl reads format 2: use the version that wrote it",
        "folder.pt": "not a regular file",
        "pipe.pt": "not a regular file",
        "bare.pt": "missing config, specs, model",
        "text.pt": "not a checkpoint of mtl",
        "none.pt": "no such checkpoint",
        "": "not a regular file",
    }.items():
        with pytest.raises(ConfigError, match=message):
            load_checkpoint(tmp_path / name)


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    save_checkpoint(path, PAYLOAD)
    with pytest.raises(pickle.PicklingError):
        save_checkpoint(path, {**PAYLOAD, "bad": type("Local", (), {})()})
    with pytest.raises(MtlError, match="reading it back failed"):  # Path is not a plain type
        save_checkpoint(path, {**PAYLOAD, "bad": Path("a")})
    assert digest(load_checkpoint(path)) == digest(PAYLOAD)
    assert len(list(tmp_path.iterdir())) == 1


def test_random_states_round_trip() -> None:
    import numpy as np

    state = rng_state()
    first = (torch.rand(3).tolist(), random.random(), np.random.rand())
    set_rng_state(state)
    assert (torch.rand(3).tolist(), random.random(), np.random.rand()) == first
