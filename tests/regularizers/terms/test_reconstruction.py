"""Reconstruction: value, gradient, figure."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mtlcli.models.trunks.base import Trunk
from mtlcli.models.trunks.lenet import LeNet
from mtlcli.models.trunks.mlp import MLP
from mtlcli.regularizers.base import Subject
from mtlcli.regularizers.terms.reconstruction import Reconstruction
from mtlcli.specs import Shape, TrunkPass
from tests.oracles import auxiliary

IMAGE = (1, 16, 17)


def subject(trunk: Trunk, shape: Shape) -> Subject:
    features, actual = trunk.activations(torch.zeros(1, *shape), trunk.activation_names())
    shapes = {
        "input": shape,
        **{name: tuple(x.shape[1:]) for name, x in actual.items()},
        "features": features.shape[1:],
    }
    return Subject({"trunk": trunk}, {}, {"a": "mnist", "b": "fashion"}, shapes)


def make(shape: Shape = IMAGE, trunk: Trunk | None = None, **options: Any) -> tuple[Trunk, Reconstruction]:
    torch.manual_seed(0)
    trunk = trunk or (LeNet(shape, dropout=0.0, channel_dropout=0.0) if len(shape) == 3 else MLP(shape, hidden=[6]))
    return trunk, Reconstruction(subject(trunk, shape), **options)


def passed(trunk: Trunk, x: Tensor, **rows: int) -> TrunkPass:
    features, actual = trunk.activations(x, trunk.activation_names())
    return TrunkPass(rows or {"mnist": len(x)}, {"input": x, **actual, "features": features})


@pytest.mark.parametrize("layer", ["conv1", "conv2", "fc1", "features"])
def test_term_is_the_mean_squared_norm_over_all_examples(layer: str) -> None:
    trunk, term = make(layer=layer)
    x = torch.randn(7, *IMAGE)
    seen = passed(trunk, x)
    rebuilt = term.decoder(seen.activations[layer])
    expected = auxiliary.reconstruction(x.double().numpy(), rebuilt.detach().double().numpy())
    assert term.term([seen]).item() == pytest.approx(expected, rel=1e-5)
    apart = [passed(trunk, x[:2]), passed(trunk, x[2:], fashion=5)]
    assert term.term(apart).item() == pytest.approx(expected, rel=1e-5)


def test_rows_of_tables_are_reconstructed() -> None:
    trunk, term = make((9,), hidden=[4])
    x = torch.randn(5, 9)
    seen = passed(trunk, x)
    expected = auxiliary.reconstruction(
        x.double().numpy(), term.decoder(seen.activations["features"]).detach().double().numpy()
    )
    assert term.term([seen]).item() == pytest.approx(expected, rel=1e-5)
    assert term.draw([seen]) == {}


def test_gradient_reaches_the_decoder_and_the_trunk_up_to_the_layer() -> None:
    trunk, term = make(layer="conv2")
    x = torch.randn(3, *IMAGE, requires_grad=True)
    seen = passed(trunk, x)
    blocked = {**seen.activations, "conv2": seen.activations["conv2"].detach()}
    assert torch.autograd.grad(term.term([TrunkPass(seen.rows, blocked)]), x, allow_unused=True) == (None,)
    term.term([seen]).backward()  # type: ignore[no-untyped-call]
    reached = [name for name, p in trunk.named_parameters() if p.grad is not None]
    assert reached == ["conv1.weight", "conv1.bias", "conv2.weight", "conv2.bias"]
    assert all(p.grad is not None for p in term.parameters())


def test_parameters_are_those_of_the_decoder() -> None:
    _, term = make()
    assert [name.partition(".")[0] for name in term.state_dict()] == ["decoder"] * len(list(term.parameters()))


def test_decoder_and_trunk_are_trained() -> None:
    trunk, term = make((6,))
    x = torch.randn(64, 2) @ torch.randn(2, 6)
    before = term.term([passed(trunk, x)]).detach()
    optimizer = torch.optim.Adam([*trunk.parameters(), *term.parameters()], lr=0.01)
    for _ in range(150):
        optimizer.zero_grad()
        term.term([passed(trunk, x)]).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    assert term.term([passed(trunk, x)]) < 0.05 * before


def test_error_is_computed_in_float32() -> None:
    trunk, term = make()
    x = torch.randn(4, *IMAGE)
    exact = term.term([passed(trunk, x)])
    with torch.autocast("cpu", torch.bfloat16):
        seen = passed(trunk, x)
        rough = term.term([seen])
        rebuilt = term.decoder(seen.activations["features"])
    assert rebuilt.dtype == torch.bfloat16
    assert rough.dtype == torch.float32
    expected = auxiliary.reconstruction(x.double().numpy(), rebuilt.detach().double().numpy())
    assert rough.item() == pytest.approx(expected, rel=1e-5)
    torch.testing.assert_close(rough, exact, rtol=0.02, atol=0)


def test_frozen_trunk_is_unchanged() -> None:
    trunk, term = make()
    trunk.requires_grad_(False)
    term.term([passed(trunk, torch.randn(2, *IMAGE))]).backward()  # type: ignore[no-untyped-call]
    assert all(p.grad is None for p in trunk.parameters())


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (
            "feature",
            "the trunk has no activation 'feature'. Did you mean 'features'? Choose from: conv1, conv2, fc1, fc2",
        ),
        ("input", "`input` is the input of the trunk"),
    ],
)
def test_unknown_layer_is_rejected(layer: str, message: str) -> None:
    with pytest.raises(ValueError, match="layer: ") as error:
        make(layer=layer)
    assert message in str(error.value)


def titles(figure: Any) -> list[str]:
    return [axes.get_title() for axes in figure.axes if axes.get_title()]


def test_figure_contains_equally_many_images_of_each_dataset() -> None:
    trunk, term = make()
    with torch.no_grad():
        (name, figure), *more = term.draw([passed(trunk, torch.randn(30, *IMAGE), mnist=20, fashion=10)]).items()
        apart = [passed(trunk, torch.randn(20, *IMAGE)), passed(trunk, torch.randn(3, *IMAGE), fashion=3)]
        assert titles(term.draw(apart)["reconstruction"]) == ["mnist"] * 4 + ["fashion"] * 3
        assert titles(term.draw(apart[1:])["reconstruction"]) == ["fashion"] * 3
    assert (name, more) == ("reconstruction", [])
    assert titles(figure) == ["mnist"] * 4 + ["fashion"] * 4
    assert len(figure.axes) == 16


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_image_and_perfect_reconstruction_look_the_same(channels: int) -> None:
    shape = (channels, 16, 16)
    _, term = make(shape)
    x = torch.randn(2, *shape)
    term.decoder = nn.Identity()
    seen = TrunkPass({"mnist": 2}, {"input": x, "features": x})
    figure = term.draw([seen])["reconstruction"]
    above, below = (axes.get_images()[0] for axes in (figure.axes[0], figure.axes[2]))
    assert (above.get_array() == below.get_array()).all()
    assert above.get_clim() == below.get_clim() == (0, 1)
