"""Files of pretrained weights: what is read, what is refused, and whether they fit a network."""

from __future__ import annotations

import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mtlcli.errors import ConfigError
from mtlcli.files import data_root
from mtlcli.models.trunks.torchvision import TorchVision
from mtlcli.models.weight_files import find_differences, match_in_order, read_weights
from mtlcli.pretrained import find_weights
from mtlcli.training.assembly.build import build
from tests.training.experiments import digits

WEIGHTS = {"a.weight": torch.arange(6.0).view(2, 3), "a.bias": torch.ones(2)}


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("key", [None, "state_dict", "model"])
def test_files_of_torch(tmp_path: Path, legacy: bool, key: str | None) -> None:
    path = tmp_path / "weights.pth"
    content = WEIGHTS if key is None else {key: WEIGHTS, "epoch": 3}
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    state = read_weights(path)
    assert state.keys() == WEIGHTS.keys() and all(torch.equal(state[name], WEIGHTS[name]) for name in state)


def test_safetensors(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file(WEIGHTS, tmp_path / "weights.safetensors")
    assert torch.equal(read_weights(tmp_path / "weights.safetensors")["a.weight"], WEIGHTS["a.weight"])
    (tmp_path / "other.safetensors").write_bytes((1 << 40).to_bytes(8, "little") + b"{}")
    with pytest.raises(ValueError, match=r"other\.safetensors can't be read as weights"):
        read_weights(tmp_path / "other.safetensors")


class Hostile:
    """An object whose pickle creates a folder when it is loaded without care."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.folder),)


def test_a_file_with_code_runs_nothing(tmp_path: Path) -> None:
    torch.save({"a.weight": Hostile(tmp_path / "ran")}, tmp_path / "zip.pth")
    torch.save({"a": Hostile(tmp_path / "ran")}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    (tmp_path / "pickle.pth").write_bytes(pickle.dumps(Hostile(tmp_path / "ran")))
    with pytest.raises(ValueError, match=r"pickle\.pth can't be read as weights: it is damaged, or no file of torch"):
        read_weights(tmp_path / "pickle.pth")
    for name in ("zip", "old"):
        with pytest.raises(ValueError, match=rf"{name}\.pth .*it contains 'posix.mkdir', .* Nothing in it was run"):
            read_weights(tmp_path / f"{name}.pth")
    assert not (tmp_path / "ran").exists()


def test_other_and_damaged_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    for content in ([1, 2], {}, {"a": 1}, {"a": WEIGHTS}):
        torch.save(content, path)
        with pytest.raises(ValueError, match="holds no weights; expected a dictionary of names and tensors"):
            read_weights(path)
    torch.save(WEIGHTS, path)
    for content in (b"", b"no weights", path.read_bytes()[:-200]):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="can't be read as weights"):
            read_weights(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\0" * 2**20)
    with pytest.raises(ValueError, match="it is compressed"):
        read_weights(path)


def network() -> dict[str, Tensor]:
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 4)).state_dict()


def test_differences() -> None:
    own = network()
    old = {key: value.half() if value.is_floating_point() else value for key, value in own.items()}
    del old["1.num_batches_tracked"]
    assert find_differences(own, old) == []
    assert find_differences(own, {**own, "2.weight": torch.ones(1)}) == ["2.weight is unexpected"]
    assert find_differences(own, {**own, "3.weight": torch.ones(4, 9)}) == ["3.weight is 4×9, expected 4×8"]
    integers = {**own, "3.bias": torch.ones(4, dtype=torch.int64)}
    assert find_differences(own, integers) == ["3.bias is torch.int64, expected torch.float32"]


def test_tensors_in_order() -> None:
    own = network()
    renamed = {f"_{index}.{key.rpartition('.')[2]}": value for index, (key, value) in enumerate(own.items())}
    classifier = {"fc.weight": torch.ones(3, 4), "fc.bias": torch.ones(3)}
    for other in (renamed, renamed | classifier):
        matched = match_in_order(own, other)
        assert matched.keys() == own.keys() and all(torch.equal(matched[key], own[key]) for key in own)
    order = list(renamed)
    order[2], order[3] = order[3], order[2]  # weight and bias of the norm, which have the same shape
    for other in ({key: renamed[key] for key in order}, renamed | {"extra.running_mean": torch.ones(3)}):
        assert match_in_order(own, other).keys() == other.keys()


def write_resnet(path: Path, **changes: Tensor) -> dict[str, Tensor]:
    from torchvision.models import resnet18

    torch.manual_seed(1)
    state = {**resnet18().state_dict(), **changes}
    torch.save(state, path)
    return state


def test_a_run_starts_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "resnet.pth"
    state = write_resnet(path)
    options = {"name": "torchvision", "model": "resnet18", "pretrained": str(path)}
    run = build(digits(trunk={**options, "freeze": ["stem", "layer[12]"]}))
    own = run.model.sharing.trunks()["trunk"].get_submodule("network").state_dict()
    assert {key for key in state if key not in own} == {"fc.weight", "fc.bias"}
    assert all(torch.equal(own[key], state[key]) for key in own)
    for change, message in (
        ({"conv1.weight": torch.ones(64, 3, 3, 3)}, r"conv1\.weight is 64×3×3×3, expected 64×3×7×7"),
        ({"layer1.0.bn1.bias": torch.full((64,), torch.nan)}, r"layer1\.0\.bn1\.bias contains NaN"),
    ):
        write_resnet(path, **change)
        with pytest.raises(ConfigError, match=rf"trunk\.pretrained: .*other weights .*{message}"):
            build(digits(trunk=options))
    torch.save({"other": torch.ones(1)}, path)
    with pytest.raises(ConfigError, match=r"no weights with the names of this network: its first is 'other', expected"):
        build(digits(trunk=options))
    with pytest.raises(ConfigError, match=r"trunk\.pretrained: no file 'mobilnet_v2'.* Did you mean 'mobilenet_v2'"):
        build(digits(trunk={**options, "pretrained": "mobilnet_v2"}))
    with pytest.raises(ConfigError, match="one of the options `weights` and `pretrained`"):
        build(digits(trunk={**options, "weights": "DEFAULT"}))


def test_the_fetched_mobilenet() -> None:
    if not (data_root(None) / "mobilenet_v2").is_dir():
        pytest.skip("the weights aren't here: mtl data fetch mobilenet_v2")
    trunk = TorchVision((1, 32, 32), model="mobilenet_v2", pretrained="mobilenet_v2").eval()
    trunk.load_pretrained()
    path = find_weights("mobilenet_v2")
    assert path is not None
    state = read_weights(path)
    assert torch.equal(trunk.network.state_dict()["features.18.1.running_var"], state["features.18.1.running_var"])
    assert all(bool((value > 0).all()) for key, value in trunk.state_dict().items() if key.endswith("running_var"))
