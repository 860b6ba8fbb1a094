"""Multi-task model: normalization, predictions, keys of the state dict, parameter counts."""

import pytest
import torch
from torch import nn

from mtlcli.models.inputs import Normalize
from mtlcli.models.model import MultiTaskModel
from mtlcli.models.sharing.base import AnyNameModuleDict
from mtlcli.models.sharing.hard import HardSharing
from mtlcli.models.trunks.lenet import LeNet
from mtlcli.models.trunks.mlp import MLP
from mtlcli.models.warm_start import freeze

SHAPE = (1, 28, 28)
STATISTICS = {"mnist": ((33.3,), (78.6,)), "fashion": ((72.9,), (90.0,))}


def make(inputs=None, trunk=LeNet, statistics=STATISTICS, shape=SHAPE) -> MultiTaskModel:
    torch.manual_seed(0)
    inputs = inputs or {"digit": "mnist", "garment": "fashion"}
    sharing = HardSharing(lambda: trunk(shape, features=6), lambda task, features: nn.Linear(features, 10), inputs)
    return MultiTaskModel(sharing, {alias: Normalize(shape, *stats) for alias, stats in statistics.items()})


def images(rows: int = 3) -> torch.Tensor:
    return torch.randint(0, 256, (rows, *SHAPE), dtype=torch.uint8)


def test_raw_inputs_are_normalized_by_the_statistics_of_their_dataset():
    model, x = make().eval(), images()
    out = model({"mnist": x, "fashion": x})
    for task, (mean, std) in zip(out, STATISTICS.values(), strict=True):
        expected = model.sharing.heads[task](model.sharing.trunk((x.double() - mean[0]).div(std[0]).float()))
        torch.testing.assert_close(out[task], expected, rtol=1e-5, atol=1e-5)


def test_predictions_of_available_or_requested_tasks():
    model = make({"digit": "mnist", "parity": "mnist", "garment": "fashion"})
    both = {"fashion": images(2), "mnist": images(3)}
    assert list(model(both)) == ["digit", "parity", "garment"]
    assert list(model({"fashion": images()})) == ["garment"]
    assert list(model(both, ["parity"])) == ["parity"]
    assert list(model(both, iter(["garment", "digit"]))) == ["garment", "digit"]


def test_bare_tensor_is_the_input_of_the_only_dataset():
    model, x = make({"digit": "mnist", "parity": "mnist"}).eval(), images()
    with torch.inference_mode():
        bare, named = model(x), model({"mnist": x})
    assert bare.keys() == named.keys() == {"digit", "parity"}
    assert all(torch.equal(bare[task], named[task]) for task in bare)


def test_invalid_inputs_are_rejected():
    message = "the model takes the inputs of each dataset, {'mnist': inputs, 'fashion': inputs}, not a Tensor"
    with pytest.raises(TypeError) as caught:
        make()(images())
    assert str(caught.value) == message
    with pytest.raises(TypeError, match=r"\{'mnist': inputs\}, not a list"):
        make({"digit": "mnist"})([images()])


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.float16, torch.float32, torch.float64])
def test_normalize_accepts_any_dtype_and_keeps_its_input(dtype):
    normalize = Normalize((3, 2, 2), [1, 2, 3], [2, 4, 8])
    x = torch.arange(24).reshape(2, 3, 2, 2).to(dtype)
    before = x.clone()
    mean, std = (torch.tensor(v, dtype=torch.float64).reshape(3, 1, 1) for v in ([1, 2, 3], [2, 4, 8]))
    out = normalize(x)
    assert out.dtype == torch.float32
    torch.testing.assert_close(out, ((x.double() - mean) / std).float())
    assert torch.equal(x, before)


def test_normalize_tables_by_feature_and_keeps_precision_far_from_zero():
    normalize = Normalize((2,), [0.0, 1e6], [1.0, 0.5])
    x = torch.tensor([[1.0, 1e6 + 1]])
    assert normalize(x).tolist() == [[1.0, 2.0]]


def test_constant_feature_is_only_centred():
    assert Normalize((2,), [3.0, 5.0], [0.0, 2.0])(torch.tensor([[3.0, 9.0], [4.0, 5.0]])).tolist() == [[0, 2], [1, 0]]


def test_wrong_number_of_statistics_is_rejected():
    with pytest.raises(ValueError, match=r"statistics of inputs 3×8×8: expected 1 or 3 means .* got 2 and 2"):
        Normalize((3, 8, 8), [1, 2], [1, 2])


def test_keys_of_the_state_dict():
    names = list(make().state_dict())
    assert {"normalize.mnist.mean", "normalize.fashion.std", "sharing.trunk.conv1.weight"} < set(names)
    assert "sharing.heads.digit.weight" in names


def test_statistics_are_part_of_the_state_dict():
    model, other = make().eval(), make(statistics={"mnist": ((0.0,), (1.0,)), "fashion": ((0.0,), (1.0,))}).eval()
    other.load_state_dict(model.state_dict())
    inputs = {"mnist": images(), "fashion": images()}
    assert all(torch.equal(a, b) for a, b in zip(model(inputs).values(), other(inputs).values(), strict=True))


def test_tasks_and_datasets_may_have_names_of_module_methods():
    names = ["type", "train", "items", "keys", "pop", "forward", "float", "half-life", "_modules", "training"]
    model = make({name: name for name in names}, MLP, dict.fromkeys(names, ((0.0,), (1.0,))), (4,))
    out = model({name: torch.randn(2, 4) for name in names})
    assert list(out) == names
    assert len(model.state_dict()) == 4 * len(names) + 4
    model.load_state_dict(model.state_dict())
    model.train().eval()
    assert model.count_parameters()["tasks"] == dict.fromkeys(names, 70)


def test_names_that_break_the_state_dict_are_rejected():
    with pytest.raises(AssertionError):
        AnyNameModuleDict({"a.b": nn.Identity()})


def test_parameter_counts():
    model = make()
    trunk = sum(p.numel() for p in LeNet(SHAPE, features=6).parameters())
    total = trunk + 140
    counts = {"shared": trunk, "tasks": {"digit": 70, "garment": 70}, "total": total, "trained": total}
    assert model.count_parameters() == counts
    freeze(model.sharing.trunk)
    assert model.count_parameters() == {**counts, "trained": 140}
    assert sum(p.numel() for p in model.shared_parameters()) == trunk


def test_on_the_meta_device():
    with torch.device("meta"):
        out = make()({"mnist": torch.empty(2, *SHAPE, dtype=torch.uint8)})
    assert out["digit"].shape == (2, 10) and out["digit"].device.type == "meta"


def test_bf16_autocast_stays_close():
    model, inputs = make().eval(), {"mnist": images(), "fashion": images()}
    exact = model(inputs)
    with torch.autocast("cpu", torch.bfloat16):
        rough = model(inputs)
    for task in exact:
        assert rough[task].dtype == torch.bfloat16
        torch.testing.assert_close(rough[task].float(), exact[task], atol=0.05, rtol=0.05)


def test_torch_compile_captures_one_graph():
    model, inputs = make(), {"mnist": images(), "fashion": images()}
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    loss = [sum(p.square().mean() for p in m.eval()(inputs).values()) for m in (model, compiled)]
    torch.testing.assert_close(*loss)
    plain, traced = (torch.autograd.grad(value, list(model.parameters())) for value in loss)
    for mine, other in zip(traced, plain, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-5)
