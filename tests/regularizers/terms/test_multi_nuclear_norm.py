"""Multi-nuclear norm: value, minimum, proximal step, compression."""

import copy
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from mtlcli.models.trunks.cnn import CNN
from mtlcli.models.trunks.lenet import LeNet
from mtlcli.models.trunks.mlp import MLP
from mtlcli.models.trunks.torchvision import TorchVision
from mtlcli.regularizers.base import Subject
from mtlcli.regularizers.factorized import Factorized
from mtlcli.regularizers.terms.multi_nuclear_norm import MultiNuclearNorm, compute_proximal_scales
from mtlcli.training.assembly.build import build, rebuild
from mtlcli.training.checkpoint.file import load_checkpoint
from mtlcli.training.evaluate import evaluate
from mtlcli.training.trainer import Trainer
from tests.oracles import norms
from tests.training.experiments import digits, training


def make(trunk: nn.Module, **options: Any) -> MultiNuclearNorm:
    return MultiNuclearNorm(Subject({"trunk": trunk}, {}, {}, {}), **options)


def single(u: Any, v: Any, **options: Any) -> tuple[MultiNuclearNorm, Factorized]:
    """Create the regularizer of one linear layer with the factors U [m, R] and V [n, R]."""
    trunk = nn.Sequential(nn.Linear(len(v), len(u), bias=False))
    term = make(trunk, rank=u.shape[1], **options)
    (layer,) = term.layers.values()
    layer.double()
    with torch.no_grad():
        layer.u.copy_(torch.as_tensor(u))
        layer.v.copy_(torch.as_tensor(v).T)
    return term, layer


# Value


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 6), st.integers(1, 6), st.data())
def test_term_is_at_least_the_nuclear_norm(m: int, n: int, data: st.DataObject) -> None:
    rank, seed = data.draw(st.integers(1, min(m, n))), data.draw(st.integers(0, 2**32 - 1))
    exponents = data.draw(st.lists(st.integers(-3, 3), min_size=rank, max_size=rank))
    rng = np.random.default_rng(seed)
    u, v = rng.normal(size=(m, rank)) * 10.0 ** np.array(exponents), rng.normal(size=(n, rank))
    term, layer = single(u, v)
    omega = term.term([]).item()
    assert omega == pytest.approx(norms.multi_nuclear(u, v), rel=1e-9)
    assert omega >= norms.nuclear(u @ v.T) * (1 - 1e-6)
    layer.truncate(rank)  # now balanced
    assert term.term([]).item() == pytest.approx(norms.nuclear(u @ v.T), rel=1e-5)


def test_term_is_the_nuclear_norm_at_initialization() -> None:
    trunk = LeNet((1, 28, 28))
    weights = [p.detach().flatten(1).double().numpy() for p in trunk.parameters() if p.ndim > 1]
    term = make(trunk)
    assert list(term.layers) == ["conv1", "conv2", "fc1", "fc2"] and not list(term.parameters())
    assert term.term([]).item() == pytest.approx(sum(map(norms.nuclear, weights)), rel=1e-5)


@pytest.mark.parametrize("blank", ["u", "v", "both"])
def test_gradient_of_a_zero_component_is_zero(blank: str) -> None:
    u, v = torch.randn(4, 3), torch.randn(5, 3)
    for factor, names in ((u, ("u", "both")), (v, ("v", "both"))):
        if blank in names:
            factor[:, 1] = 0
    term, layer = single(u, v)
    term.term([]).backward()  # type: ignore[no-untyped-call]
    assert layer.u.grad is not None and layer.v.grad is not None
    assert layer.u.grad.isfinite().all() and layer.v.grad.isfinite().all()
    if blank != "v":
        assert not layer.u.grad[:, 1].any()  # whose norm is 0
    torch.testing.assert_close(layer.u.grad[:, 0], v[:, 0].norm() * u[:, 0] / u[:, 0].norm(), check_dtype=False)


# Minimum


@pytest.mark.parametrize(("proximal", "near"), [(False, 2e-2), (True, 1e-5)])
def test_minimum_is_the_singular_value_soft_threshold(proximal: bool, near: float) -> None:
    """It is reached exactly with proximal steps; subgradient steps oscillate around it if a norm is 0."""
    rng = np.random.default_rng(0)
    p, q = (np.linalg.qr(rng.normal(size=(size, 5)))[0] for size in (6, 8))
    x, strength, lr = (p * [3, 2.5, 2, 0.8, 0.4]) @ q.T, 1.0, 0.1
    term, layer = single(rng.normal(size=(6, 6)), rng.normal(size=(8, 6)), proximal=proximal)
    goal, optimizer = torch.as_tensor(x), torch.optim.SGD(layer.parameters(), lr=lr)
    for _ in range(1000):
        optimizer.zero_grad()
        (0.5 * (goal - layer.weight).square().sum() + strength * term.term([])).backward()
        optimizer.step()
        term.after_step(strength * lr)
    expected = norms.soft_thresholded(x, strength)
    np.testing.assert_allclose(layer.weight.detach().numpy(), expected, atol=near)
    assert term.term([]).item() == pytest.approx(norms.nuclear(expected), rel=near)
    assert term.metrics() == {"rank": 3.0, "rank.0": 3.0}


@given(st.floats(0, 5), st.floats(0, 5), st.floats(0, 3))
@settings(deadline=None, max_examples=100)
def test_proximal_step_is_the_minimum(a: float, b: float, step: float) -> None:
    scales = compute_proximal_scales(torch.tensor(a).double(), torch.tensor(b).double(), step)
    x, y = (scale.item() * size for scale, size in zip(scales, (a, b), strict=True))
    assert x >= 0 and y >= 0
    value = 0.5 * (x - a) ** 2 + 0.5 * (y - b) ** 2 + step * x * y
    assert value == pytest.approx(norms.shrunk(a, b, step), rel=1e-6, abs=1e-9)


def test_proximal_step_keeps_directions_and_is_optimal() -> None:
    torch.manual_seed(0)
    u, v, step = torch.randn(4, 4).double(), torch.randn(5, 4).double(), 0.3
    v[:, 1], u[:, 2], u[:, 3], v[:, 3] = 1e-3 * v[:, 1], 0, 0, 0
    term, layer = single(u, v, proximal=True)

    def objective(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        near = 0.5 * (x - u).square().sum() + 0.5 * (y - v).square().sum()
        return near + step * (x.norm(dim=0) * y.norm(dim=0)).sum()

    term.after_step(step)
    x, y = layer.u.detach(), layer.v.detach().T
    torch.testing.assert_close(torch.cosine_similarity(x[:, 0], u[:, 0], dim=0), torch.tensor(1.0).double())
    assert not y[:, 1].any() and torch.equal(x[:, 1], u[:, 1])  # the smaller one is 0, the other unchanged
    assert not x[:, 2:].any() and torch.equal(y[:, 2:], v[:, 2:])
    for _ in range(200):
        scale = 10.0 ** -torch.randint(0, 6, ()).item()
        assert objective(x, y) <= objective(x + scale * torch.randn_like(x), y + scale * torch.randn_like(y))


def test_proximal_term_has_no_gradient() -> None:
    term, plain = make(MLP((4,)), proximal=True), make(MLP((4,)))
    assert not term.term([]).requires_grad and plain.term([]).requires_grad
    before = [p.detach().clone() for layer in plain.layers.values() for p in layer.parameters()]
    plain.after_step(0.1)
    after = [p for layer in plain.layers.values() for p in layer.parameters()]
    assert all(torch.equal(*pair) for pair in zip(before, after, strict=True))


def test_frozen_layers_are_unchanged() -> None:
    trunk = MLP((4,))
    trunk.requires_grad_(False)
    term = make(trunk, proximal=True)
    before = copy.deepcopy(trunk.state_dict())
    term.after_step(0.5)
    assert all(torch.equal(value, before[name]) for name, value in trunk.state_dict().items())


# Trunks


@pytest.mark.parametrize(
    ("trunk", "shape", "layers", "count"),
    [
        (LeNet((1, 28, 28)), (1, 28, 28), ["*"], 4),
        (MLP((1, 8, 8)), (1, 8, 8), ["fc1"], 1),
        (CNN((1, 8, 8), widths=[4, 8], features=6), (1, 8, 8), ["block*", "fc.2"], 5),
        (
            TorchVision((3, 32, 32), model="resnet18"),
            (3, 32, 32),
            ["*k.conv1", "*layer1.0*", "*layer2.0.downsample*"],
            4,
        ),
    ],
)
def test_factorized_trunks_compute_the_same_features(trunk: Any, shape: Any, layers: Any, count: int) -> None:
    trunk.eval()
    x = torch.randn(3, *shape)
    with torch.no_grad():
        before, seen = trunk(x), trunk.activations(x, trunk.activation_names())[1]
    term = make(trunk, layers=layers)
    assert len(term.layers) == count
    after = trunk(x)
    # float32 products over up to 4,608 inputs a layer, and up to 17 layers
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(trunk.activations(x, seen)[1], seen, rtol=1e-4, atol=1e-4)
    after.sum().backward()  # the gradient passes through the factors
    for layer in term.layers.values():
        assert layer.u.grad is not None and layer.u.grad.any()
        assert [p.grad.stride() for p in layer.parameters()] == [p.stride() for p in layer.parameters()]  # type: ignore[union-attr]


def test_layers_are_not_factorized_twice() -> None:
    trunk = LeNet((1, 28, 28))
    make(trunk, layers=["fc*"])
    assert list(make(trunk, layers=["*"]).layers) == ["conv1", "conv2"]
    with pytest.raises(ValueError, match="'fc1' matches no Linear or Conv2d except fc1, which is already factorized"):
        make(trunk, layers=["fc1"])


def test_invalid_layers_change_nothing() -> None:
    trunk = nn.Sequential(nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 3, groups=4))
    message = "layers: 1: a convolution of 4 groups can't be factorized: each group has its own matrix; exclude it"
    with pytest.raises(ValueError, match=re.escape(message)):
        make(trunk)
    assert isinstance(trunk[0], nn.Conv2d)


def test_no_synchronization_with_the_device() -> None:
    with torch.device("meta"):
        for proximal in (False, True):
            trunk = LeNet((1, 28, 28))
            term = make(trunk, proximal=proximal, rank=4)
            (term.term([]) + trunk(torch.empty(2, 1, 28, 28)).sum()).backward()
            term.after_step(0.1)
            term.after_step(1.5)


# Compression


def test_compression_removes_small_singular_values_not_components() -> None:
    rng = np.random.default_rng(0)
    p, q = (np.linalg.qr(rng.normal(size=(size, 4)))[0] for size in (6, 9))
    w = (p * [2.0, 1.0, 0.019, 1e-6]) @ q.T
    mixing = rng.normal(size=(4, 4))  # none of these components is small
    u, v = p * [2.0, 1.0, 0.019, 1e-6] @ mixing, q @ np.linalg.inv(mixing).T
    term, layer = single(u, v, threshold=0.01)
    np.testing.assert_allclose(layer.weight.detach(), w, atol=1e-9)
    assert term.metrics()["rank"] == 2
    assert term.compress() == {
        "layers": {"0": {"rank": 2, "of": 4, "parameters": 30, "parameters_before": 60, "dense": 54}},
        "larger_than_dense": [],
    }
    change = layer.weight.detach().numpy() - w
    assert layer.rank == 2 and isinstance(layer.u, nn.Parameter)
    assert np.linalg.norm(change, 2) == pytest.approx(0.019, rel=1e-6) and 0.01 * np.linalg.norm(w, 2) > 0.019
    assert term.metrics()["rank"] == 2


def test_compression_keeps_at_least_one_component() -> None:
    term, layer = single(torch.zeros(3, 2), torch.zeros(4, 2))
    assert term.metrics()["rank"] == 1
    report = term.compress()
    assert report is not None and report["layers"]["0"]["rank"] == layer.rank == 1
    term, layer = single(torch.eye(3), torch.eye(3))
    kept = layer.u
    report = term.compress()
    assert layer.u is kept and report == {
        "layers": {"0": {"rank": 3, "of": 3, "parameters": 18, "parameters_before": 18, "dense": 9}},
        "larger_than_dense": ["0"],
    }


def test_ranks_of_weights_that_are_not_finite() -> None:
    term, _ = single(torch.full((3, 2), float("nan")), torch.ones(4, 2))
    assert np.isnan(list(term.metrics().values())).all()


def test_a_run_is_trained_compressed_and_reloaded(tmp_path: Path) -> None:
    entry = {"name": "multi_nuclear_norm", "strength": 0.05, "rank": 12, "threshold": 0.2}
    experiment = digits(regularizers=[entry], optimizer={"name": "Adam", "lr": 0.01}, training=training(epochs=3))
    run = build(experiment)
    summary = Trainer(run, tmp_path / "run").fit()
    actual = summary["compression"]
    layers = actual["regularizers"]["regularizers.multi_nuclear_norm"]["layers"]
    assert all(layer["rank"] < layer["of"] <= 12 for layer in layers.values())
    saved = sum(layer["parameters_before"] - layer["parameters"] for layer in layers.values())
    assert actual["parameters"]["before"] - actual["parameters"]["after"] == saved
    again = rebuild(experiment, load_checkpoint(summary["checkpoint"]))
    assert evaluate(again, "val") == summary["metrics"]["val"]
