"""Heads on maps: `fcn` and `aspp` against torchvision, and heads of vectors at each position."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mtlcli.models.map_head import MapHead
from mtlcli.registry import heads


def shake_(module: nn.Module) -> nn.Module:
    """Give all weights and statistics of a module random values."""
    generator = torch.Generator().manual_seed(0)
    for tensor in (*module.parameters(), *module.buffers()):
        if tensor.is_floating_point():
            tensor.data.copy_(0.5 + 0.5 * torch.rand(tensor.shape, generator=generator))
    return module


@pytest.mark.parametrize(
    ("name", "options", "arguments"),
    [
        ("fcn", {}, {}),
        ("aspp", {}, {}),
        ("aspp", {"output_stride": 16}, {"atrous_rates": (6, 12, 18)}),
        ("aspp", {"rates": [1, 2]}, {"atrous_rates": (1, 2)}),
    ],
)
@pytest.mark.parametrize("training", [False, True])
def test_heads_are_those_of_torchvision(name, options, arguments, training):
    from torchvision.models.segmentation.deeplabv3 import DeepLabHead
    from torchvision.models.segmentation.fcn import FCNHead

    torch.manual_seed(0)
    theirs = shake_((FCNHead if name == "fcn" else DeepLabHead)(8, 3, **arguments)).train(training)
    ours = heads[name].target(8, 3, **options).train(training)
    ours.load_state_dict(theirs.state_dict())  # strict: the same names and shapes
    x, outputs = torch.randn(2, 8, 6, 7), []
    for head in (ours, theirs):
        torch.manual_seed(1)  # dropout
        outputs.append(head(x))
    assert outputs[0].shape == (2, 3, 6, 7)
    torch.testing.assert_close(*outputs, rtol=1e-5, atol=1e-5)


def test_widths_of_the_heads():
    fcn = heads["fcn"].target(6, 2, channels=5, dropout=0.0)
    assert [m.weight.shape[:2] for m in fcn if isinstance(m, nn.Conv2d)] == [(5, 6), (2, 5)]
    assert heads["fcn"].target(2, 3)[0].out_channels == 1
    aspp = heads["aspp"].target(6, 2, channels=4)
    assert {m.out_channels for m in aspp.modules() if isinstance(m, nn.Conv2d)} == {4, 2}


@pytest.mark.parametrize(("name", "options"), [("linear", {}), ("mlp", {"hidden": [4]})])
def test_a_head_of_vectors_is_applied_to_each_position(name, options):
    torch.manual_seed(0)
    vectors = heads[name].target(5, 2, **options)
    for size in ((3, 4), (9, 10)):
        head = MapHead(vectors, False, size)
        x = torch.randn(2, 5, 3, 4)
        positions = torch.stack(
            [torch.stack([vectors(x[:, :, i, j]) for j in range(4)], -1) for i in range(3)], -2
        )  # [B, outputs, h, w]
        expected = F.interpolate(positions, size, mode="bilinear") if size != (3, 4) else positions
        torch.testing.assert_close(head(x), expected)
        torch.testing.assert_close(head(x.contiguous(memory_format=torch.channels_last)), expected)


def test_predictions_are_interpolated_to_the_size_of_the_target():
    head = MapHead(heads["fcn"].target(4, 2, dropout=0.0), True, (8, 12)).eval()
    x = torch.randn(1, 4, 2, 3)
    y = head.head(x)
    torch.testing.assert_close(head(x), F.interpolate(y, (8, 12), mode="bilinear", align_corners=False))
    # at the centre of four positions the prediction is their mean
    middle = head(x)[:, :, 3:5, 3:5].mean((2, 3))
    torch.testing.assert_close(middle, y[:, :, :2, :2].mean((2, 3)))
    assert torch.equal(MapHead(head.head, True, (2, 3)).eval()(x), y)
