"""Low-rank adapters of single layers against the papers' equations, one input at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mtlcli.models.adapters.base import Adapter, install
from mtlcli.models.adapters.hydra_lora import HydraLoRAAdapter
from mtlcli.models.adapters.lora import LoRA
from mtlcli.models.adapters.low_rank import LowRank, LowRankAdapter
from mtlcli.models.adapters.mtl_lora import MTLLoRAAdapter, TaskTransform
from tests.oracles import adapters as oracle

TASKS = ("digit", "ink")
RANK, ALPHA = 2, 3.0
ARRANGEMENTS = ("shared", "per_task", "shared_and_per_task", "mtl_lora", "hydra")
LAYERS = pytest.mark.parametrize("kind", ["linear", "convolution"])


def make_layer(kind: str) -> tuple[nn.Module, Tensor]:
    """Return a layer and inputs of it, float64."""
    if kind == "linear":
        return nn.Linear(5, 3).double(), torch.randn(4, 2, 5, dtype=torch.float64)
    return nn.Conv2d(2, 3, 3, stride=2, padding=1).double(), torch.randn(2, 2, 5, 6, dtype=torch.float64)


def make_adapter(layer: nn.Module, arrangement: str, **options: Any) -> Adapter:
    """Return an adapter with random parameters."""
    adapter = LoRA(TASKS, rank=RANK, alpha=ALPHA, arrangement=arrangement, **options).make(layer, ())
    for parameter in adapter.parameters():
        nn.init.normal_(parameter)
    return adapter


def positions(layer: nn.Module, x: Tensor, output: Tensor) -> tuple[oracle.Array, oracle.Array]:
    """Return the inputs and outputs of the layer's matrix at every position, [N, n] and [N, m]."""
    if isinstance(layer, nn.Linear):
        return x.flatten(0, -2).numpy(), output.flatten(0, -2).numpy()
    assert isinstance(layer, nn.Conv2d)
    weight = layer.weight.detach().numpy()
    inputs = np.concatenate([oracle.patches(image.numpy(), weight, 2, 1).reshape(-1, weight[0].size) for image in x])
    return inputs, output.movedim(1, -1).flatten(0, -2).numpy()


def array(tensor: Tensor) -> oracle.Array:
    return tensor.detach().flatten(1).numpy() if tensor.dim() > 1 else tensor.detach().numpy()


def expected(adapter: Adapter, task: str, w: oracle.Array, x: oracle.Array) -> oracle.Array:
    """Return W x with the adapter by the oracle, for one input."""
    scale = ALPHA / RANK
    if isinstance(adapter, LowRankAdapter):
        maps = [adapter.shared, *([adapter.tasks[task]] if len(adapter.tasks) else [])]
        change = sum(
            oracle.lora(x, 0 * w, array(one.a), array(one.b), scale) for one in maps if isinstance(one, LowRank)
        )
        return w @ x + change
    if isinstance(adapter, MTLLoRAAdapter):
        own = adapter.tasks[task]
        assert isinstance(own, TaskTransform)
        transform, mixture = own.transform.detach().numpy(), own.mixture.detach().numpy()
        bs = list(adapter.b.detach().numpy())
        return w @ x + scale * oracle.mtl_lora(x, 0 * w, array(adapter.a), transform, bs, mixture, 0.5)
    assert isinstance(adapter, HydraLoRAAdapter)
    bs = list(adapter.b.detach().movedim(1, 0).numpy())
    return oracle.hydra(x, w, array(adapter.a), bs, array(adapter.router), scale)


@LAYERS
@pytest.mark.parametrize("arrangement", ARRANGEMENTS)
@torch.no_grad()
def test_outputs_are_those_of_the_equations(kind: str, arrangement: str) -> None:
    layer, x = make_layer(kind)
    adapter = make_adapter(layer, arrangement, **({"temperature": 0.5} if arrangement == "mtl_lora" else {}))
    install(layer, adapter)
    for task in TASKS:
        adapter.route.task = task
        w, bias = array(layer.weight), layer.bias.detach().numpy()
        inputs, outputs = positions(layer, x, layer(x))
        by_hand = np.stack([expected(adapter, task, w, one) + bias for one in inputs])
        np.testing.assert_allclose(outputs, by_hand, rtol=1e-12, atol=1e-12)


@LAYERS
@pytest.mark.parametrize("arrangement", ["shared", "per_task", "shared_and_per_task", "mtl_lora"])
@torch.no_grad()
def test_update_of_the_weight_has_the_effect_of_the_adapter(kind: str, arrangement: str) -> None:
    layer, x = make_layer(kind)
    adapter = make_adapter(layer, arrangement)
    plain = layer(x)
    for task in TASKS:
        adapter.route.task = task
        update = adapter.low_rank_update(task)
        assert update is not None
        merged, _ = make_layer(kind)
        merged.load_state_dict({"weight": layer.weight + update.weight(), "bias": layer.bias})
        torch.testing.assert_close(merged(x), adapter(x, plain), rtol=1e-12, atol=1e-12)


@LAYERS
@pytest.mark.parametrize("arrangement", ARRANGEMENTS)
@torch.no_grad()
def test_layer_is_unchanged_at_the_start(kind: str, arrangement: str) -> None:
    layer, x = make_layer(kind)
    adapter = LoRA(TASKS, arrangement=arrangement).make(layer, ())
    plain = layer(x)
    assert torch.equal(adapter(x, plain), plain)


@torch.no_grad()
def test_initial_weights_are_those_of_the_papers() -> None:
    layer = nn.Linear(100, 3)
    hydra, mtl = (LoRA(TASKS, arrangement=name, up_projections=4).make(layer, ()) for name in ("hydra", "mtl_lora"))
    for matrix in (hydra.a, hydra.router, mtl.a):  # type: ignore[union-attr]
        assert 0.09 < float(matrix.abs().max()) <= 0.1  # ±1/√inputs
    own = mtl.tasks["ink"]
    assert isinstance(own, TaskTransform)
    assert torch.equal(own.transform, torch.eye(8))
    assert float(own.mixture.abs().max()) <= 0.5


def test_one_router_entry_is_plain_lora() -> None:
    layer, x = make_layer("linear")
    adapter = make_adapter(layer, "hydra", up_projections=1)
    assert isinstance(adapter, HydraLoRAAdapter)
    shared = LowRank(adapter.layer_map, layer.weight, RANK, ALPHA / RANK, 0.0)
    shared.load_state_dict({"a": adapter.a, "b": adapter.b[:, 0]})
    zeros = torch.zeros(4, 2, 3, dtype=torch.float64)
    torch.testing.assert_close(adapter(x, zeros), shared(x), rtol=1e-12, atol=1e-12)


def test_rslora_divides_by_the_root_of_the_rank() -> None:
    assert LoRA(TASKS, rank=4, alpha=6.0).scale == 1.5
    assert LoRA(TASKS, rank=4, alpha=6.0, rslora=True).scale == 3.0


@pytest.mark.parametrize("arrangement", ARRANGEMENTS)
def test_dropout_acts_on_the_input_of_a_in_training_only(arrangement: str) -> None:
    layer, x = make_layer("linear")
    adapter = make_adapter(layer, arrangement, dropout=0.5)
    plain = layer(x)
    assert not torch.equal(adapter(x, plain), adapter(x, plain))
    adapter.eval()
    assert torch.equal(adapter(x, plain), adapter(x, plain))


def test_options_of_another_arrangement_are_rejected() -> None:
    with pytest.raises(ValueError, match="up_projections: the arrangement per_task has one matrix B"):
        LoRA(TASKS, arrangement="per_task", up_projections=2)
    with pytest.raises(ValueError, match="temperature: the arrangement hydra has none"):
        LoRA(TASKS, arrangement="hydra", temperature=0.5)


def test_convolutions_keep_their_padding_mode_and_those_of_several_groups_are_left_out() -> None:
    layer = nn.Conv2d(2, 3, 3, padding=1, padding_mode="circular").double()
    adapter = make_adapter(layer, "shared")
    update = adapter.low_rank_update("digit")
    assert update is not None
    x = torch.randn(1, 2, 5, 5, dtype=torch.float64)
    merged = nn.Conv2d(2, 3, 3, padding=1, padding_mode="circular").double()
    merged.load_state_dict({"weight": layer.weight + update.weight(), "bias": layer.bias})
    torch.testing.assert_close(merged(x), adapter(x, layer(x)), rtol=1e-12, atol=1e-12)
    assert not LoRA(TASKS).can_adapt(nn.Conv2d(4, 4, 3, groups=2), ())
