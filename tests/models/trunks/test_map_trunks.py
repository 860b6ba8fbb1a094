"""Trunks whose output is a map: dilated networks of torchvision and timm, `cnn` and `unet`."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mtlcli.models.map_networks import dilate
from mtlcli.models.stage_shapes import trace_stages
from mtlcli.registry import trunks

UNET = ("unet", (3, 16, 12), {"widths": [4, 6, 8], "depth": 1})
CASES = [
    UNET,
    ("unet", (1, 15, 13), {"widths": [4, 6], "norm": "group"}),
    ("unet", (2, 8, 8), {"widths": [3, 5], "norm": "none"}),
    ("segnet", (2, 8, 12), {"widths": [3, 4, 5]}),
    ("segnet", (3, 7, 9), {"widths": [4, 2], "norm": "none"}),
    ("cnn", (3, 16, 12), {"widths": [4, 6], "output": "map"}),
    ("torchvision", (1, 32, 64), {"model": "resnet18", "output": "map", "output_stride": 16}),
]
OVER_CASES = pytest.mark.parametrize(("name", "shape", "options"), CASES)


def make(name, shape, options):
    torch.manual_seed(0)
    trunk = trunks[name].target(shape, **options)
    trunk.input_shape = shape
    return trunk


@OVER_CASES
def test_a_map_for_each_example(name, shape, options):
    trunk = make(name, shape, options)
    x = torch.randn(2, *shape)
    y, activations = trunk.activations(x, trunk.activation_names())
    assert trunk.representation == "map"
    stride = {"unet": 1, "segnet": 1, "cnn": 4, "torchvision": 16}[name]
    assert y.shape == (2, trunk.features, *(size // stride for size in shape[1:]))
    assert list(activations) == trunk.activation_names() and torch.equal(list(activations.values())[-1], y)
    y.square().sum().backward()
    assert all(p.grad is not None and p.grad.stride() == p.stride() for p in trunk.parameters())
    with torch.device("meta"):
        blank = trunks[name].target(shape, **options)
    assert blank(torch.empty(2, *shape, device="meta")).shape == y.shape
    assert blank.state_dict().keys() == trunk.state_dict().keys()


@OVER_CASES
def test_parameters_of_the_stages(name, shape, options):
    trunk = make(name, shape, options)
    divided = trunk.stage_parameters()
    assert list(divided) == list(trunk.stages())
    assert [id(p) for listed in divided.values() for p in listed] == [id(p) for p in trunk.parameters()]
    for stage, traced in trace_stages(trunk).items():
        called = {id(p) for path in traced.modules for p in trunk.get_submodule(path).parameters()}
        assert {id(p) for p in divided[stage]} == called


def plain_unet(trunk, x):
    """Compute the output of a U-Net of one convolution in each stage, from its weights."""
    state = trunk.state_dict()

    def block(x, prefix):
        x = F.conv2d(x, state[f"{prefix}.weight"], padding=1)
        layer = prefix.rsplit(".", 1)
        norm = f"{layer[0]}.{int(layer[1]) + 1}"
        return F.batch_norm(
            x,
            state[f"{norm}.running_mean"],
            state[f"{norm}.running_var"],
            state[f"{norm}.weight"],
            state[f"{norm}.bias"],
        ).relu()

    one = block(x, "encoder1.first.0")
    two = block(F.max_pool2d(one, 2), "encoder2.first.0")
    y = block(F.max_pool2d(two, 2), "encoder3.first.0")
    for level, skip in ((2, two), (1, one)):
        y = F.conv_transpose2d(
            y, state[f"decoder{level}.join.enlarge.weight"], state[f"decoder{level}.join.enlarge.bias"], stride=2
        )
        y = F.pad(y, (0, skip.shape[3] - y.shape[3], 0, skip.shape[2] - y.shape[2]))
        y = block(torch.cat([skip, y], 1), f"decoder{level}.block.first.0")
    return y


@pytest.mark.parametrize("size", [(16, 12), (15, 13), (4, 5)])
def test_unet_is_an_encoder_and_a_decoder_with_skip_connections(size):
    trunk = make("unet", (3, *size), UNET[2]).eval()
    for tensor in trunk.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(0.2 + 0.1 * torch.rand(tensor.shape))
    x = torch.randn(2, 3, *size)
    torch.testing.assert_close(trunk(x), plain_unet(trunk, x))
    assert list(trunk.stages()) == ["encoder1", "encoder2", "encoder3", "decoder2", "decoder1"]


def test_segnet_puts_numbers_where_the_maxima_were():
    torch.manual_seed(0)
    trunk = make("segnet", (1, 4, 6), {"widths": [2], "norm": "none"})
    x = torch.randn(1, 1, 4, 6)
    names = ["encoder1.first", "encoder1", "decoder1.join", "decoder1"]
    assert trunk.activation_names() == names
    activations = trunk.activations(x, names)[1]
    encoded, joined = activations["encoder1"], activations["decoder1.join"]
    for channel in range(2):
        for i in range(0, 4, 2):
            for j in range(0, 6, 2):
                cell, put = (y[0, channel, i : i + 2, j : j + 2].flatten() for y in (encoded, joined))
                expected = torch.zeros(4)
                expected[cell.argmax()] = cell.max()
                assert torch.equal(put, expected)
    torch.testing.assert_close(activations["decoder1"], trunk.decoder1.block(joined))


def test_segnet_has_the_layers_of_the_mtan_release():
    with torch.device("meta"):
        trunk = make("segnet", (3, 288, 384), {})
    widths = {
        name: [c.out_channels for c in stage.modules() if isinstance(c, nn.Conv2d)]
        for name, stage in trunk.named_children()
    }
    assert {name: listed for name, listed in widths.items() if listed} == {
        "encoder1": [64] * 2, "encoder2": [128] * 2,
        "encoder3": [256] * 3, "encoder4": [512] * 3, "encoder5": [512] * 3,
        "decoder5": [512] * 3, "decoder4": [256] * 3, "decoder3": [128] * 3,
        "decoder2": [64] * 2, "decoder1": [64] * 2,
    }  # fmt: skip
    assert trunk(torch.empty(2, 3, 288, 384, device="meta")).shape == (2, 64, 288, 384)


def test_a_skip_connection_passes_on_what_the_next_stage_receives():
    trunk = make(*UNET).eval()
    x = torch.randn(1, *UNET[1])
    with trunk.after_stages(torch.zeros_like):
        assert torch.equal(trunk.stages()["encoder1"](x), torch.zeros(1, 4, 16, 12))
        stages = trunk.stages()
        for name in ("encoder1", "encoder2", "encoder3"):
            x = stages[name](x)
    expected = trunk.decoder2(torch.zeros(1, 8, 4, 3), torch.zeros(1, 6, 8, 6))
    assert torch.equal(
        trunk.decoder2.block(torch.cat([torch.zeros(1, 6, 8, 6), trunk.decoder2.join.enlarge(x)], 1)), expected
    )


def test_a_cnn_of_maps_has_no_fully_connected_layer():
    trunk = make("cnn", (3, 16, 12), {"widths": [4, 6], "output": "map"}).eval()
    vectors = make("cnn", (3, 16, 12), {"widths": [4, 6]}).eval()
    assert trunk.load_state_dict(vectors.state_dict(), strict=False).missing_keys == []
    assert not any(isinstance(m, nn.Linear) for m in trunk.modules()) and trunk.features == 6
    x = torch.randn(2, 3, 16, 12)
    assert torch.equal(trunk(x), vectors.activations(x, ["block2"])[1]["block2"])


@pytest.mark.parametrize("output_stride", [8, 16, 32])
def test_dilation_is_that_of_torchvision(output_stride):
    from torchvision.models.resnet import Bottleneck, ResNet

    torch.manual_seed(0)
    strides = [False, output_stride < 16, output_stride < 32]
    ours, theirs = (
        ResNet(Bottleneck, [1, 1, 2, 2], width_per_group=4, replace_stride_with_dilation=replaced).eval()
        for replaced in (None, strides)
    )
    dilate([ours.layer2, ours.layer3, ours.layer4], 8, output_stride)
    ours.load_state_dict(theirs.state_dict())
    settings = [
        [(m.stride, m.dilation, m.padding) for m in network.modules() if isinstance(m, nn.Conv2d)]
        for network in (ours, theirs)
    ]
    assert settings[0] == settings[1]
    x = torch.randn(1, 256, 8, 6)
    outputs = [network.layer4(network.layer3(network.layer2(x))) for network in (ours, theirs)]
    assert torch.equal(*outputs) and outputs[0].shape[2] == 32 // output_stride


@pytest.mark.matrix
@pytest.mark.parametrize("output_stride", [8, 16, 32])
def test_a_dilated_resnet50_is_that_of_torchvision(output_stride):
    import torchvision
    from torchvision.models._utils import IntermediateLayerGetter

    trunk = make("torchvision", (3, 64, 64), {"model": "resnet50", "output": "map", "output_stride": output_stride})
    theirs = torchvision.models.resnet50(replace_stride_with_dilation=[False, output_stride < 16, output_stride < 32])
    assert theirs.load_state_dict(trunk.network.state_dict(), strict=False).missing_keys == ["fc.weight", "fc.bias"]
    getter = IntermediateLayerGetter(theirs, {"layer4": "out"}).eval()
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        y = trunk.eval()(x)
        assert torch.equal(y, getter(x)["out"]) and y.shape[2] == 64 // output_stride


@pytest.mark.matrix
def test_basic_blocks_are_dilated_like_those_of_timm():
    timm = pytest.importorskip("timm")
    ours = make("torchvision", (3, 32, 16), {"model": "resnet18", "output": "map", "output_stride": 8})
    peer = timm.create_model("resnet18", num_classes=0, global_pool="", output_stride=8)
    peer.load_state_dict(ours.network.state_dict())
    x = torch.randn(1, 3, 32, 16)
    with torch.no_grad():
        torch.testing.assert_close(ours.eval()(x), peer.eval()(x), rtol=1e-4, atol=1e-4)


def test_a_dilated_network_of_timm():
    pytest.importorskip("timm")
    trunk = make("timm", (3, 32, 32), {"model": "test_efficientnet", "output": "map", "output_stride": 8}).eval()
    own = make("timm", (3, 64, 64), {"model": "test_efficientnet", "output": "map"}).eval()
    own.network.load_state_dict(trunk.network.state_dict())
    assert trunk(torch.randn(1, 3, 32, 32)).shape == (1, trunk.features, 4, 4)
    x = torch.randn(1, 3, 64, 64)
    assert torch.equal(own(x), own.network.forward_features(x)) and own(x).shape[2:] == (2, 2)


def test_the_patches_of_a_vision_transformer_are_a_map():
    pytest.importorskip("timm")
    trunk = make("timm", (3, 32, 48), {"model": "test_vit", "output": "map"}).eval()
    x = torch.randn(2, 3, 32, 48)
    y = trunk(x)
    assert y.shape == (2, 64, 2, 3) and list(trunk.stages())[-2:] == ["norm", "map"]
    tokens = trunk.network.forward_features(x)
    assert torch.equal(y[:, :, 1, 2], tokens[:, -1]) and torch.equal(y[:, :, 0, 1], tokens[:, -5])


def test_pretrained_weights_of_a_classifier_fit_a_network_of_maps(tmp_path):
    import torchvision

    torch.manual_seed(1)
    source = torchvision.models.mobilenet_v3_small()
    torch.save(source.state_dict(), tmp_path / "weights.pth")
    options = {"model": "mobilenet_v3_small", "output": "map", "pretrained": str(tmp_path / "weights.pth")}
    trunk = make("torchvision", (3, 64, 64), options)
    trunk.load_pretrained()
    x = torch.randn(1, 3, 64, 64)
    assert torch.equal(trunk.eval()(x), source.eval().features(x))


@pytest.mark.parametrize(
    ("name", "shape", "options", "message"),
    [
        ("unet", (3, 3, 9), {"widths": [2, 2, 2]}, "unet with these widths needs images .* of at least 4×4, got 3×3×9"),
        ("unet", (64,), {}, r"needs images \[C, H, W\]"),
        ("torchvision", (3, 32, 32), {"model": "vit_b_16", "output": "map"}, "vit_b_16 can't return feature maps"),
        (
            "torchvision",
            (3, 64, 64),
            {"model": "mobilenet_v2", "output": "map", "output_stride": 8},
            "output_stride: mobilenet_v2 can't be dilated, only ResNets",
        ),
        ("torchvision", (3, 64, 64), {"model": "resnet18", "output_stride": 8}, "set `output: map`"),
        (
            "torchvision",
            (3, 32, 32),
            {"model": "resnet18", "output": "map"},
            "the feature map of an image of 32×32 has one position only: use larger images, or .*`output_stride: 8`",
        ),
        ("timm", (3, 32, 32), {"model": "test_vit", "output": "map", "output_stride": 8}, "can't process .* as maps"),
        ("timm", (3, 32, 32), {"model": "test_vit", "output_stride": 8}, "set `output: map`"),
    ],
)
def test_impossible_maps(name, shape, options, message):
    if name == "timm":
        pytest.importorskip("timm")
    with pytest.raises(ValueError, match=message), torch.device("meta"):
        make(name, shape, options)
