"""Properties of every trunk, and of `mlp` and `cnn`."""

import pytest
import torch
from torch import nn

from mtlcli.models.stage_shapes import trace_stages
from mtlcli.models.trunks.base import Trunk
from mtlcli.models.warm_start import freeze
from mtlcli.registry import trunks

IMAGE = (1, 28, 28)
CASES = [
    ("lenet", IMAGE, {}),
    ("lenet", (3, 20, 24), {"features": 10}),
    ("mlp", (64,), {}),
    ("mlp", IMAGE, {"hidden": [], "features": 5}),
    ("mlp", (8,), {"hidden": [6, 4], "dropout": 0.5}),
    ("cnn", IMAGE, {}),
    ("cnn", (3, 9, 8), {"widths": [4, 8], "features": 5, "depth": 1}),
    ("torchvision", IMAGE, {"model": "shufflenet_v2_x0_5"}),
]


def make(name, shape, options) -> Trunk:
    torch.manual_seed(0)
    return trunks[name].target(shape, **options)


@pytest.mark.parametrize(("name", "shape", "options"), CASES)
def test_output_is_a_feature_vector_per_example(name, shape, options):
    trunk = make(name, shape, options)
    assert trunk(torch.randn(3, *shape)).shape == (3, trunk.features)
    if "features" in options:
        assert trunk.features == options["features"]


@pytest.mark.parametrize(("name", "shape", "options"), CASES)
def test_on_the_meta_device(name, shape, options):
    with torch.device("meta"):
        trunk = make(name, shape, options)
    assert {p.device.type for p in trunk.parameters()} == {"meta"}
    assert trunk(torch.empty(2, *shape, device="meta")).shape == (2, trunk.features)


@pytest.mark.parametrize(("name", "shape", "options"), CASES)
def test_requesting_activations_does_not_change_the_features(name, shape, options):
    trunk = make(name, shape, options).eval()
    x = torch.randn(2, *shape)
    names = trunk.activation_names()
    out, actual = trunk.activations(x, names)
    assert list(actual) == names
    assert torch.equal(out, trunk(x))
    assert torch.equal(actual[names[-1]], out)
    assert trunk.activations(x, [])[1] == {}
    with pytest.raises(ValueError, match=f"no activation nowhere. Choose from: {names[0]}"):
        trunk.activations(x, ["nowhere"])


@pytest.mark.parametrize(("name", "shape", "options"), CASES)
def test_every_parameter_receives_a_gradient(name, shape, options):
    trunk = make(name, shape, options)
    trunk(torch.randn(4, *shape)).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in trunk.parameters())
    assert all(p.grad.stride() == p.stride() for p in trunk.parameters())  # required by fused optimizers


@pytest.mark.parametrize(("name", "shape", "options"), CASES)
def test_frozen_trunk_is_unchanged(name, shape, options):
    trunk = make(name, shape, options)
    before = {key: value.clone() for key, value in trunk.state_dict().items()}
    assert freeze(trunk) is trunk
    model = nn.Sequential(trunk, nn.Linear(trunk.features, 1)).train()
    x = torch.randn(4, *shape)
    assert torch.equal(model(x), model(x))  # no dropout
    model(x).sum().backward()
    assert not any(m.training for m in trunk.modules()) and model[1].training
    assert all(p.grad is None for p in trunk.parameters()) and model[1].weight.grad is not None
    assert all(torch.equal(value, before[key]) for key, value in trunk.state_dict().items())  # nor statistics


@pytest.mark.parametrize(("name", "shape", "options"), CASES)
def test_loading_a_state_dict_reproduces_the_trunk(name, shape, options):
    trunk = make(name, shape, options).eval()
    other = trunks[name].target(shape, **options).eval()
    x = torch.randn(2, *shape)
    other.load_state_dict(trunk.state_dict())
    torch.testing.assert_close(other(x), trunk(x))


@pytest.mark.parametrize(("name", "shape", "options"), CASES)
def test_parameters_of_the_stages(name, shape, options):
    trunk = make(name, shape, options)
    trunk.input_shape = shape
    divided = trunk.stage_parameters()
    assert list(divided) == list(trunk.stages())
    assert [id(p) for listed in divided.values() for p in listed] == [id(p) for p in trunk.parameters()]
    # the modules that each stage calls hold the same parameters
    for stage, traced in trace_stages(trunk).items():
        called = {id(p) for path in traced.modules for p in trunk.get_submodule(path).parameters()}
        assert {id(p) for p in divided[stage]} == called
    assert all(p.requires_grad for p in trunk.parameters()) and trunk.training
    frozen = freeze(trunk).stage_parameters()
    assert {s: [id(p) for p in listed] for s, listed in frozen.items()} == {
        s: [id(p) for p in listed] for s, listed in divided.items()
    }
    assert not any(p.requires_grad for p in trunk.parameters())


@pytest.mark.parametrize(("name", "shape", "options"), CASES)
def test_a_function_follows_every_stage(name, shape, options):
    trunk, x, passed = make(name, shape, options).eval(), torch.randn(2, *shape), []

    def double(activation):
        passed.append(activation)
        return 2 * activation

    with trunk.after_stages(double):
        changed = trunk(x)
    assert torch.equal(changed, 2 * passed[-1]) and len(passed) == len(trunk.stages())
    first, *_ = trunk.stages().values()
    assert torch.equal(passed[0], first(x)) and len(passed) == len(trunk.stages())


class Unusual(Trunk):
    """A trunk with parameters of its own, functional uses of a module, a tied matrix and an unused layer."""

    features = 4
    input_shape = (4,)

    def __init__(self):
        super().__init__()
        self.unused = nn.Linear(2, 2)
        self.token = nn.Parameter(torch.randn(4))
        self.attention = nn.MultiheadAttention(4, 2)  # never calls its `out_proj`
        self.scale = nn.Parameter(torch.ones(4))
        self.tied = nn.Linear(4, 4)
        self.block = nn.ModuleDict({"used": nn.Linear(4, 4), "of_another_task": nn.Linear(4, 4)})

    def stages(self):
        return {
            "embeddings": lambda x: self.tied(x + self.token),
            "pass": lambda x: x,
            "attention": lambda x: self.attention(x, x, x)[0],
            "block": lambda x: self.block["used"](x),
            "top": lambda x: nn.functional.linear(x * self.scale, self.tied.weight),
        }


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_parameters_that_no_module_call_shows_belong_to_a_stage(device):
    with torch.device(device):
        trunk = Unusual()
    names = {id(p): name for name, p in trunk.named_parameters()}
    assert {stage: [names[id(p)] for p in listed] for stage, listed in trunk.stage_parameters().items()} == {
        "embeddings": ["token", "tied.weight", "tied.bias"],
        "pass": [],
        "attention": [name for name in names.values() if name.startswith("attention")],
        "block": [name for name in names.values() if name.startswith("block")],
        "top": ["scale"],
        "other": ["unused.weight", "unused.bias"],
    }
    trunk.input_shape = (5,)
    with pytest.raises(ValueError, match="the trunk can't take the datasets' inputs"):
        trunk.stage_parameters()


def test_mlp_applies_its_layers():
    trunk = make("mlp", (2, 3), {"hidden": [4], "features": 2})
    x = torch.randn(5, 2, 3)
    hidden = trunk.fc1(x.reshape(5, 6)).relu()
    torch.testing.assert_close(trunk(x), trunk.fc2(hidden).relu())
    torch.testing.assert_close(trunk.activations(x, ["fc1"])[1]["fc1"], hidden)


def test_mlp_dropout_in_training_only_and_not_on_features():
    trunk = make("mlp", (6,), {"hidden": [50], "features": 4, "dropout": 0.9})
    x = torch.randn(5, 6)
    assert not torch.equal(trunk(x), trunk(x))
    assert torch.equal(trunk.activations(x, ["fc1"])[1]["fc1"], trunk.fc1(x).relu())
    trunk.eval()
    assert torch.equal(trunk(x), trunk(x))


def test_image_trunks_reject_tables():
    for name in ("lenet", "cnn", "torchvision"):
        with pytest.raises(ValueError, match=r"needs? images .*got 64"):
            make(name, (64,), {"model": "resnet18"} if name == "torchvision" else {})


def test_cnn_blocks_halve_height_and_width():
    trunk = make("cnn", (3, 13, 12), {"widths": [4, 6, 8], "depth": 3, "features": 5})
    _, actual = trunk.activations(torch.randn(2, 3, 13, 12), trunk.activation_names())
    shapes = {"block1": (2, 4, 6, 6), "block2": (2, 6, 3, 3), "block3": (2, 8, 1, 1), "fc": (2, 5)}
    assert {name: a.shape for name, a in actual.items()} == shapes
    assert sum(isinstance(m, nn.Conv2d) for m in trunk.modules()) == 9
    assert actual["block1"].is_contiguous(memory_format=torch.channels_last)


def test_cnn_needs_images_that_can_be_halved():
    with pytest.raises(ValueError, match=r"cnn with 3 blocks needs images .* of at least 8×8, got 1×7×28"):
        make("cnn", (1, 7, 28), {})
