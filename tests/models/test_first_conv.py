"""It is `nn.Conv2d`, whatever the shapes; only its gradient is made otherwise."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from mtlcli.models import first_conv
from mtlcli.models.first_conv import FirstConv2d


def pair(channels: int, outputs: int, kernel: Any, **options: Any) -> tuple[FirstConv2d, nn.Conv2d]:
    torch.manual_seed(0)
    ours = FirstConv2d(channels, outputs, kernel, **options).double()
    theirs = nn.Conv2d(channels, outputs, kernel, **options).double()
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs


@settings(max_examples=40, deadline=None)
@given(
    channels=st.integers(1, 4), outputs=st.integers(1, 5), kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    stride=st.integers(1, 3), padding=st.integers(0, 2), size=st.tuples(st.integers(5, 9), st.integers(5, 9)),
    bias=st.booleans(), channels_last=st.booleans(),
)  # fmt: skip
def test_outputs_and_gradients_are_those_of_a_convolution(
    channels: int, outputs: int, kernel: tuple[int, int], stride: int, padding: int, size: tuple[int, int], bias: bool,
    channels_last: bool,
) -> None:  # fmt: skip
    ours, theirs = pair(channels, outputs, kernel, stride=stride, padding=padding, bias=bias)
    x = torch.randn(3, channels, *size, dtype=torch.float64)
    if channels_last:
        x = x.contiguous(memory_format=torch.channels_last)
        ours.to(memory_format=torch.channels_last)
    made, expected = ours(x), theirs(x)
    assert "_Convolution" in type(made.grad_fn).__name__
    torch.testing.assert_close(made, expected)
    cotangents = torch.randn(2, *made.shape, dtype=torch.float64)
    for cotangent in cotangents:  # the second pass goes through the same graph
        found = torch.autograd.grad(made, list(ours.parameters()), cotangent, retain_graph=True)
        wanted = torch.autograd.grad(expected, list(theirs.parameters()), cotangent, retain_graph=True)
        for one, other in zip(found, wanted, strict=True):
            torch.testing.assert_close(one, other)


@pytest.mark.parametrize(
    "why", ["input needs a gradient", "no gradients", "frozen", "autocast", "large", "dilated", "same"]
)
def test_where_that_would_not_do_it_is_the_convolution_itself(why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    options = {"dilated": {"dilation": 2}, "same": {"padding": "same"}}.get(why, {})
    ours = FirstConv2d(1, 4, 3, **options)
    x = torch.randn(2, 1, 12, 12, requires_grad=why == "input needs a gradient")
    ours.weight.requires_grad_(why != "frozen")
    if why == "large":
        monkeypatch.setattr(first_conv, "MOST_BYTES", 1000)
    with (
        torch.set_grad_enabled(why != "no gradients"),
        torch.autocast("cpu", torch.bfloat16, enabled=why == "autocast"),
    ):
        made = ours(x)
    assert made.grad_fn is None or "_Convolution" not in type(made.grad_fn).__name__
    if why == "input needs a gradient":
        made.sum().backward()
        assert x.grad is not None
