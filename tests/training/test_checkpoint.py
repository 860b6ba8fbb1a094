import pickle
from pathlib import Path

import pytest
import torch

from mtlcli.errors import ConfigError
from mtlcli.training.checkpoint import digest, load_checkpoint, rng_state, save_checkpoint, set_rng_state

PAYLOAD = {
    "config": {"name": "x"},
    "specs": {},
    "model": {"weight": torch.arange(6.0).reshape(2, 3), "half": torch.ones(2, dtype=torch.bfloat16)},
    "numbers": [1, 2.5, None, True, "text", float("inf")],
    "empty": {"tensor": torch.zeros(0), "list": []},
}


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "a.pt", PAYLOAD)
    loaded = load_checkpoint(tmp_path / "a.pt")
    assert digest(loaded) == digest(PAYLOAD)
    assert torch.equal(loaded["model"]["weight"], PAYLOAD["model"]["weight"])  # type: ignore[index]
    assert loaded["numbers"] == PAYLOAD["numbers"]
    assert [path.name for path in tmp_path.iterdir()] == ["a.pt"]  # no temporary file stays


def test_any_flipped_bit_of_the_content_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    save_checkpoint(path, PAYLOAD)
    whole = path.read_bytes()
    at = whole.index(PAYLOAD["model"]["weight"].numpy().tobytes())  # type: ignore[index]
    for offset in range(24):
        damaged = bytearray(whole)
        damaged[at + offset] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(ConfigError, match="damaged"):
            load_checkpoint(path)


@pytest.mark.parametrize("keep", [0, 1, 100, 0.5, 0.99])
def test_a_truncated_file_is_refused(tmp_path: Path, keep: float) -> None:
    path = tmp_path / "a.pt"
    save_checkpoint(path, PAYLOAD)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(keep * len(whole)) if isinstance(keep, float) else keep])
    with pytest.raises(ConfigError, match=r"a\.pt: damaged, or not a checkpoint"):
        load_checkpoint(path)


class Code:
    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (Path("ran"),))


def test_code_in_a_file_never_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"format": "mtl", "code": Code()}, "evil.pt")
    Path("pickled.pt").write_bytes(pickle.dumps(Code()))
    for name in ("evil.pt", "pickled.pt"):
        with pytest.raises(ConfigError, match="not a checkpoint"):
            load_checkpoint(name)
    assert not Path("ran").exists()


def test_foreign_newer_and_missing_files_are_refused(tmp_path: Path) -> None:
    torch.save({"state_dict": {}}, tmp_path / "foreign.pt")
    torch.save(torch.zeros(3), tmp_path / "tensor.pt")
    torch.save({"format": "mtl", "version": 99, "sha256": ""}, tmp_path / "newer.pt")
    torch.save({"format": "mtl", "version": 1, "sha256": digest({})}, tmp_path / "bare.pt")
    (tmp_path / "text.pt").write_text("hello")
    for name, message in {
        "foreign.pt": "not a checkpoint of mtl",
        "tensor.pt": "not a checkpoint of mtl",
        "newer.pt": "install a newer mtl",
        "bare.pt": "it has no config, specs, model",
        "text.pt": "not a checkpoint of mtl",
        "none.pt": "no such checkpoint",
        "": "no such checkpoint",
    }.items():
        with pytest.raises(ConfigError, match=message):
            load_checkpoint(tmp_path / name)


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    save_checkpoint(path, PAYLOAD)
    with pytest.raises(pickle.PicklingError):
        save_checkpoint(path, {**PAYLOAD, "bad": type("Local", (), {})()})
    assert digest(load_checkpoint(path)) == digest(PAYLOAD)
    assert len(list(tmp_path.iterdir())) == 1


def test_random_states_come_back() -> None:
    import random

    import numpy as np

    state = rng_state()
    first = (torch.rand(3).tolist(), random.random(), np.random.rand())
    set_rng_state(state)
    assert (torch.rand(3).tolist(), random.random(), np.random.rand()) == first
