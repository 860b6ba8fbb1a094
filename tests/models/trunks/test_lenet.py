"""LeNet: the values of a direct implementation, in channels-last memory format."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mtlcli.models.trunks.lenet import LeNet


class Document(nn.Module):
    """Direct implementation of the network of PyTorch's first MNIST example, for images of any size."""

    def __init__(self, channels: int, flat: int, features: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 10, kernel_size=5)
        self.conv2 = nn.Conv2d(10, 20, kernel_size=5)
        self.conv2_drop = nn.Dropout2d()
        self.fc1 = nn.Linear(flat, 50)
        self.fc2 = nn.Linear(50, features)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(F.max_pool2d(self.conv1(x), 2))
        x = F.relu(F.max_pool2d(self.conv2_drop(self.conv2(x)), 2))
        x = x.reshape(len(x), -1)
        x = F.relu(self.fc1(x))
        x = F.dropout(x, training=self.training)
        return self.fc2(x)


def pair(shape: tuple[int, ...], flat: int, **options: float) -> tuple[LeNet, Document]:
    torch.manual_seed(0)
    ours, theirs = LeNet(shape, features=30, **options), Document(shape[0], flat, 30)
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs


@pytest.mark.parametrize(("shape", "flat"), [((1, 28, 28), 320), ((3, 32, 28), 400), ((1, 16, 16), 20)])
@pytest.mark.parametrize("rows", [1, 6])
@pytest.mark.parametrize("dropout", [0.5, 0.0])
def test_output_matches_the_reference_implementation(shape, flat, rows, dropout):
    ours, theirs = pair(shape, flat, dropout=dropout, channel_dropout=dropout)
    x = torch.randn(rows, *shape, requires_grad=True)
    gradients = []
    for trunk in (ours, theirs):
        trunk.train()  # with dropout 0.5 the random numbers are the same, although ours are drawn after the pool
        if dropout == 0 and trunk is theirs:
            trunk.eval()
        torch.manual_seed(1)
        out = trunk(x)
        weights = torch.linspace(-1, 1, out.numel()).view_as(out)
        gradients.append((out, *torch.autograd.grad((out * weights).sum(), [x, *trunk.parameters()])))
    for mine, other in zip(*gradients, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-5)


def test_output_is_independent_of_input_strides():
    ours, _ = pair((1, 28, 28), 320)
    ours.eval()
    x = torch.randn(8, 1, 28, 28)
    expected = ours(x)
    transposed = x.transpose(2, 3).contiguous().transpose(2, 3)
    for other in (x.contiguous(memory_format=torch.channels_last), transposed, torch.cat([x, x])[4:12].roll(4, 0)):
        torch.testing.assert_close(ours(other), expected)


def test_input_is_unchanged():
    x = torch.randn(2, 1, 28, 28)
    before = x.clone()
    LeNet((1, 28, 28))(x)
    assert torch.equal(x, before)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_convolutions_use_channels_last(channels, precision):
    trunk = LeNet((channels, 28, 28))
    with torch.autocast("cpu", torch.bfloat16, enabled=precision is torch.bfloat16):
        _, actual = trunk.activations(torch.randn(4, channels, 28, 28), ["conv1", "conv2"])
    assert trunk.conv2.weight.is_contiguous(memory_format=torch.channels_last)
    for activation in actual.values():
        assert activation.dtype == precision
        assert activation.is_contiguous(memory_format=torch.channels_last)


def test_activations_match_the_reference_implementation():
    ours, theirs = pair((1, 28, 28), 320)
    ours.eval()
    x = torch.randn(5, 1, 28, 28)
    out, actual = ours.activations(x, ["fc2", "conv1", "fc1", "conv2"])
    conv1 = F.relu(F.max_pool2d(theirs.conv1(x), 2))
    conv2 = F.relu(F.max_pool2d(theirs.conv2(conv1), 2))
    fc1 = F.relu(theirs.fc1(conv2.flatten(1)))
    assert list(actual) == ["conv1", "conv2", "fc1", "fc2"] == ours.activation_names()
    for mine, other in zip(actual.values(), [conv1, conv2, fc1, theirs.fc2(fc1)], strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-5)
    assert torch.equal(actual["fc2"], out) and torch.equal(out, ours(x))


def test_unknown_activation_is_rejected():
    with pytest.raises(ValueError, match=r"no activation conv3\. Choose from: conv1, conv2, fc1, fc2"):
        LeNet((1, 28, 28)).activations(torch.randn(1, 1, 28, 28), ["conv1", "conv3"])


def test_dropout_in_training_only():
    trunk = LeNet((1, 28, 28), dropout=0.9, channel_dropout=0.9)
    x = torch.randn(3, 1, 28, 28)
    assert not torch.equal(trunk(x), trunk(x))
    trunk.eval()
    assert torch.equal(trunk(x), trunk(x))


@pytest.mark.parametrize(("shape", "message"), [((1, 15, 28), "1×15×28"), ((1, 8, 8), "1×8×8"), ((64,), "64")])
def test_unsupported_inputs_are_rejected(shape, message):
    with pytest.raises(ValueError, match=f"lenet needs images .* of at least 16×16, got {message}"):
        LeNet(shape)


def test_options_set_the_widths():
    trunk = LeNet((1, 28, 28), channels=4, hidden=7, features=3)
    shapes = {name: tuple(p.shape) for name, p in trunk.named_parameters() if name.endswith("weight")}
    assert shapes == {
        "conv1.weight": (4, 1, 5, 5), "conv2.weight": (8, 4, 5, 5), "fc1.weight": (7, 128), "fc2.weight": (3, 7),
    }  # fmt: skip
    assert trunk.features == 3 and trunk(torch.zeros(2, 1, 28, 28)).shape == (2, 3)


def test_features_are_those_of_fc1_without_fc2():
    torch.manual_seed(0)
    trunk = LeNet((1, 28, 28), hidden=7, features=None).eval()
    x = torch.randn(3, 1, 28, 28)
    features, actual = trunk.activations(x, trunk.activation_names())
    assert trunk.features == 7 and list(actual) == ["conv1", "conv2", "fc1"]
    assert torch.equal(features, actual["fc1"]) and torch.equal(features, trunk(x)) and bool((features >= 0).all())
    assert not [name for name, _ in trunk.named_parameters() if name.startswith("fc2")]
