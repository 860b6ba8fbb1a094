"""Classification models of torchvision as trunks: names, sizes, features, activations."""

from copy import deepcopy

import pytest
import torch
from torchvision import models

from mtlcli.models.trunks.torchvision import TorchVision

GRAY = (1, 28, 28)


def test_resnet_equals_torchvisions_without_its_last_layer():
    torch.manual_seed(0)
    trunk = TorchVision(GRAY, model="resnet18").eval()
    plain = models.resnet18()
    plain.fc = torch.nn.Identity()
    plain.load_state_dict(trunk.network.state_dict())
    x = torch.randn(2, *GRAY)
    assert trunk.features == 512
    torch.testing.assert_close(trunk(x), plain.eval()(x.repeat(1, 3, 1, 1)))
    assert TorchVision((3, 32, 32), model="resnet18")(torch.randn(2, 3, 32, 32)).shape == (2, 512)


def test_activations_have_the_names_of_modules():
    trunk = TorchVision(GRAY, model="resnet18").eval()
    x = torch.randn(2, *GRAY)
    out, actual = trunk.activations(x, ["layer1", "layer2.0.conv1"])
    assert {name: a.shape for name, a in actual.items()} == {
        "layer1": (2, 64, 7, 7),
        "layer2.0.conv1": (2, 128, 4, 4),
    }
    assert torch.equal(out, trunk(x))
    assert all(not module._forward_hooks for module in trunk.modules())


@pytest.mark.parametrize(
    ("model", "shape", "features"),
    [
        ("mobilenet_v3_small", GRAY, 1024),
        ("squeezenet1_1", GRAY, 512),
        ("googlenet", GRAY, 1024),
        ("inception_v3", (3, 299, 299), 2048),
        ("vit_b_16", (3, 224, 224), 768),
        ("vgg11", (3, 64, 64), 4096),
        ("regnet_y_400mf", GRAY, 440),
    ],
)
def test_models_of_every_architecture(model, shape, features):
    with torch.device("meta"):
        trunk = TorchVision(shape, model=model)
        assert trunk.features == features
        assert trunk.train()(torch.empty(2, *shape)).shape == (2, features)


RESNET = ["stem", "layer1", "layer2", "layer3", "layer4", "pool"]


@pytest.mark.parametrize(
    ("model", "stages"),
    [
        ("resnet50", RESNET),
        ("resnext50_32x4d", RESNET),
        ("vgg11_bn", ["features", "classifier"]),
        ("vit_b_16", ["network"]),
    ],
)
def test_names_of_stages(model, stages):
    shape = (3, 224, 224)
    with torch.device("meta"):
        trunk = TorchVision(shape, model=model).eval()
        assert list(trunk.stages()) == stages
        names = trunk.activation_names()
        out, actual = trunk.activations(torch.empty(1, *shape), names)
    assert list(actual) == names and set(stages) <= set(names)
    assert actual[names[-1]].shape == out.shape == (1, trunk.features)


def created(model: str, shape: tuple[int, ...]) -> TorchVision:
    """Create a model with random weights that are drawn quickly."""
    torch.manual_seed(0)
    with torch.device("meta"):
        trunk = TorchVision(shape, model=model)
    trunk.to_empty(device="cpu")
    for value in trunk.state_dict().values():
        value.copy_(0.5 + torch.rand(value.shape) if value.ndim == 1 else 0.1 * torch.randn(value.shape))
    return trunk


@pytest.mark.parametrize(
    ("model", "stages"),
    [
        ("resnet18", RESNET),
        ("mobilenet_v3_small", ["features", "classifier"]),
        ("shufflenet_v2_x0_5", ["stem", "stage2", "stage3", "stage4", "conv5", "pool"]),
        ("squeezenet1_1", ["features", "pool"]),
    ],
)
def test_stages_compose_to_the_model(model, stages):
    """They are equal to the bit, and no stage changes the activation of the previous one."""
    trunk, images = created(model, (3, 32, 32)), torch.randn(2, 3, 32, 32)
    assert list(trunk.stages()) == stages
    for training in (False, True):
        twin = deepcopy(trunk.train(training).network)
        torch.manual_seed(1)
        x = images
        for stage in trunk.stages().values():
            before = x.clone()
            out = stage(x)
            assert torch.equal(x, before)
            x = out
        torch.manual_seed(1)
        assert torch.equal(x, twin(images))


def test_keys_of_the_state_dict_are_those_of_the_model():
    with torch.device("meta"):
        trunk = TorchVision(GRAY, model="resnet18")
        plain = models.resnet18()
    assert list(trunk.state_dict()) == [f"network.{name}" for name in plain.state_dict() if not name.startswith("fc.")]


def test_stage_uses_a_replaced_layer():
    trunk = created("resnet18", GRAY).eval()
    trunk.set_submodule("network.layer2", torch.nn.Conv2d(64, 128, 1))
    assert trunk.activations(torch.randn(1, *GRAY), ["layer2"])[1]["layer2"].shape == (1, 128, 7, 7)


def test_inputs_are_not_normalized_by_imagenet_statistics(monkeypatch):
    """GoogLeNet and Inception with pretrained weights would do so by an option that torchvision sets."""
    monkeypatch.setattr(models, "get_model", lambda model, **options: models.googlenet(transform_input=True, **options))
    with torch.device("meta"):
        trunk = TorchVision((3, 64, 64), model="googlenet")
    assert trunk.network.transform_input is False
    assert next(iter(trunk.stages())) == "stem"


@pytest.mark.parametrize(
    ("shape", "options", "message"),
    [
        (GRAY, {"model": "resnet81"}, r"no classification model 'resnet81'\. Did you mean 'resnet18'\?"),
        (GRAY, {"model": "fcn_resnet50"}, "no classification model 'fcn_resnet50'"),
        (GRAY, {"model": "resnet18", "weights": "IMAGENET1K_V2"}, "no weights .* Choose from: DEFAULT, IMAGENET1K_V1"),
        (GRAY, {"model": "vgg11"}, "vgg11 can't process images of 1×28×28: .*too small"),
        (GRAY, {"model": "vit_b_16"}, "vit_b_16 can't process images of 1×28×28: Wrong image height"),
        ((2, 28, 28), {"model": "resnet18"}, "of 1 or 3 channels, got 2×28×28"),
    ],
)
def test_invalid_configurations_are_rejected(shape, options, message):
    with pytest.raises(ValueError, match=message):
        TorchVision(shape, **options)


def test_weights_are_not_downloaded_on_the_meta_device(monkeypatch):
    def fetch(*args, **kwargs):
        raise OSError("no network here")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", fetch)
    monkeypatch.setattr(models._api, "load_state_dict_from_url", fetch)
    with torch.device("meta"):
        assert TorchVision(GRAY, model="resnet18", weights="DEFAULT").features == 512
    with pytest.raises(ValueError, match="weights DEFAULT of resnet18 can't be downloaded: no network here"):
        TorchVision(GRAY, model="resnet18", weights="DEFAULT")


@pytest.mark.parametrize("model", ["resnet18", "mobilenet_v2", "vit_b_16", "googlenet"])
def test_every_parameter_belongs_to_a_stage(model):
    with torch.device("meta"):
        trunk = TorchVision((3, 224, 224), model=model)
    trunk.input_shape = (3, 224, 224)
    divided = trunk.stage_parameters()
    assert list(divided) == list(trunk.stages())
    assert sum(map(len, divided.values())) == len(list(trunk.parameters()))
    if model == "resnet18":
        layer1 = trunk.network.get_submodule("layer1")
        assert [id(p) for p in divided["layer1"]] == [id(p) for p in layer1.parameters()]
