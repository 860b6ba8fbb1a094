"""torchvision's classification models as trunks: names, sizes, features, activations."""

import pytest
import torch
from torchvision import models

from mtlcli.models.trunks.torchvision import TorchVision

GRAY = (1, 28, 28)


def test_resnet_is_torchvisions_own_without_its_last_layer():
    torch.manual_seed(0)
    trunk = TorchVision(GRAY, model="resnet18").eval()
    plain = models.resnet18()
    plain.fc = torch.nn.Identity()
    plain.load_state_dict(trunk.network.state_dict())
    x = torch.randn(2, *GRAY)
    assert trunk.features == 512
    torch.testing.assert_close(trunk(x), plain.eval()(x.repeat(1, 3, 1, 1)))
    assert TorchVision((3, 32, 32), model="resnet18")(torch.randn(2, 3, 32, 32)).shape == (2, 512)


def test_activations_by_the_names_of_its_modules():
    trunk = TorchVision(GRAY, model="resnet18").eval()
    x = torch.randn(2, *GRAY)
    out, found = trunk.activations(x, ["layer1", "layer2.0.conv1"])
    assert {name: a.shape for name, a in found.items()} == {
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
def test_models_of_every_build(model, shape, features):
    with torch.device("meta"):
        trunk = TorchVision(shape, model=model)
        assert trunk.features == features
        assert trunk.train()(torch.empty(2, *shape)).shape == (2, features)


@pytest.mark.parametrize(
    ("shape", "options", "message"),
    [
        (GRAY, {"model": "resnet81"}, r"no classification model 'resnet81'\. Did you mean 'resnet18'\?"),
        (GRAY, {"model": "fcn_resnet50"}, "no classification model 'fcn_resnet50'"),
        (GRAY, {"model": "resnet18", "weights": "IMAGENET1K_V2"}, "no weights .* There are: DEFAULT, IMAGENET1K_V1"),
        (GRAY, {"model": "vgg11"}, "vgg11 can't take images of 1×28×28: .*too small"),
        (GRAY, {"model": "vit_b_16"}, "vit_b_16 can't take images of 1×28×28: Wrong image height"),
        ((2, 28, 28), {"model": "resnet18"}, "of 1 or 3 channels, got 2×28×28"),
    ],
)
def test_what_cannot_work_is_told(shape, options, message):
    with pytest.raises(ValueError, match=message):
        TorchVision(shape, **options)


def test_weights_are_not_fetched_on_the_meta_device(monkeypatch):
    def fetch(*args, **kwargs):
        raise OSError("no network here")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", fetch)
    monkeypatch.setattr(models._api, "load_state_dict_from_url", fetch)
    with torch.device("meta"):
        assert TorchVision(GRAY, model="resnet18", weights="DEFAULT").features == 512
    with pytest.raises(ValueError, match="weights DEFAULT of resnet18 can't be fetched: no network here"):
        TorchVision(GRAY, model="resnet18", weights="DEFAULT")
