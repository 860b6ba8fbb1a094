"""Decoders of the reconstruction: shapes and training."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from mtlcli.models.trunks.cnn import CNN
from mtlcli.models.trunks.lenet import LeNet
from mtlcli.models.trunks.mlp import MLP
from mtlcli.models.trunks.torchvision import TorchVision
from mtlcli.regularizers.terms.reconstruction import make_decoder, make_upscaling

sizes = st.integers(1, 70)


@settings(deadline=None, max_examples=50)
@given(sizes, sizes, sizes, sizes)
def test_feature_maps_of_any_size_are_decoded_to_images_of_any_size(h: int, w: int, height: int, width: int) -> None:
    with torch.device("meta"):
        decoder = make_decoder((3, h, w), (2, height, width), channels=4, hidden=[])
        assert decoder(torch.empty(2, 3, h, w)).shape == (2, 2, height, width)


@settings(deadline=None, max_examples=20)
@given(sizes, sizes, st.lists(st.integers(1, 9), max_size=2))
def test_vectors_are_decoded_to_images_of_any_size(height: int, width: int, hidden: list[int]) -> None:
    with torch.device("meta"):
        decoder = make_decoder((5,), (3, height, width), channels=4, hidden=hidden)
        assert decoder(torch.empty(2, 5)).shape == (2, 3, height, width)


def test_vectors_are_decoded_to_rows_of_tables() -> None:
    assert [type(layer) for layer in make_decoder((5,), (7,), 4, [])] == [nn.Flatten, nn.Linear, nn.Unflatten]
    assert make_decoder((5,), (7,), 4, [3])(torch.randn(2, 5)).shape == (2, 7)


TRUNKS = [
    (LeNet, (1, 28, 28), {}),
    (CNN, (3, 32, 32), {}),
    (CNN, (1, 8, 8), {}),
    (CNN, (1, 11, 26), {"widths": [4, 4]}),
    (MLP, (1, 8, 8), {}),
    (MLP, (12,), {}),
    (TorchVision, (3, 32, 32), {"model": "resnet18"}),
    (TorchVision, (1, 65, 64), {"model": "resnet18"}),
]


@pytest.mark.parametrize(("trunk", "shape", "options"), TRUNKS)
def test_every_activation_of_every_trunk_can_be_decoded(trunk, shape, options) -> None:
    with torch.device("meta"):
        created = trunk(shape, **options).eval()
        features, actual = created.activations(torch.empty(2, *shape), created.activation_names())
        for activation in (features, *actual.values()):
            assert make_decoder(tuple(activation.shape[1:]), shape, 4, [])(activation).shape == (2, *shape)


def strides(source: int, target: int) -> list[tuple[int, int]]:
    """Return (kernel, stride) of each transposed convolution."""
    layers = make_upscaling((2, source, source), (1, target, target), 3)
    return [(x.kernel_size[0], x.stride[0]) for x in layers if isinstance(x, nn.ConvTranspose2d)]


def test_sizes_double_with_kernel_sizes_that_are_multiples_of_the_stride() -> None:
    assert strides(4, 28) == [(4, 2)] * 3  # 4 → 7 → 14 → 28
    assert strides(1, 32) == [(4, 2)] * 5
    assert strides(12, 28) == [(3, 1), (4, 2)]  # 12 → 14 → 28
    assert strides(55, 224) == [(2, 1), (4, 2), (4, 2)]
    assert strides(8, 8) == [(3, 1)]
    assert strides(30, 28) == [(3, 1)]


@pytest.mark.parametrize(("source", "target"), [((2, 1, 1), (1, 7, 6)), ((2, 3, 4), (1, 5, 9)), ((2, 6, 6), (1, 4, 4))])
def test_every_pixel_depends_on_the_input(source, target) -> None:
    decoder = make_decoder(source, target, 4, [])
    for layer in decoder:
        if isinstance(layer, nn.ConvTranspose2d):
            nn.init.ones_(layer.weight)
            nn.init.zeros_(layer.bias)
    x = torch.ones(1, *source, requires_grad=True)
    out = decoder(x)
    assert (out > 0).all()
    out.sum().backward()
    assert (x.grad > 0).all()


def test_decoder_learns_to_reconstruct() -> None:
    torch.manual_seed(0)
    codes, images = torch.eye(4), torch.randn(4, 1, 9, 8)
    decoder = make_decoder((4,), (1, 9, 8), 8, [])
    optimizer = torch.optim.Adam(decoder.parameters(), lr=0.03)
    for _ in range(150):
        optimizer.zero_grad()
        loss = (decoder(codes) - images).square().sum(dim=(1, 2, 3)).mean()
        loss.backward()
        optimizer.step()
    assert loss < 0.05 * images.square().sum(dim=(1, 2, 3)).mean()
