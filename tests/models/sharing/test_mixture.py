"""Mixtures of experts with softmax gates: values, passes, ownership of parameters, statistics."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from mtlcli.models.sharing.base import SharingRecord, SharingStats
from mtlcli.models.sharing.dselect_k import DSelectK
from mtlcli.models.sharing.experts import SoftmaxGate, mix_experts, split_trunk
from mtlcli.models.sharing.hard import HardSharing
from mtlcli.models.sharing.mmoe import MMoE
from mtlcli.models.sharing.omoe import OMoE
from mtlcli.models.trunks.cnn import CNN
from mtlcli.specs import TrunkPass
from mtlcli.training.assembly.build import build
from mtlcli.training.export import export
from tests.models.sharing.mixtures import INPUTS, Encoded, batches, expert, make, owners, reached
from tests.oracles import experts as oracle
from tests.training.experiments import digits

MIXTURES = [OMoE, MMoE, DSelectK]


# Values


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("kind", [OMoE, MMoE])
def test_representations_match_the_paper(kind: Any, bias: bool) -> None:
    sharing, inputs = make(kind, experts=3, bias=bias).double(), batches(mnist=4, fashion=3)
    inputs = {alias: x.double() for alias, x in inputs.items()}
    actual = sharing.representations(inputs, list(INPUTS))
    functions = [expert(trunk) for trunk in sharing.trunks().values()]
    for task, alias in INPUTS.items():
        gate = sharing.gates[sharing.gate_of(task)].linear
        own = [p.detach().numpy() for p in gate.parameters()]
        for x, row in zip(inputs[alias].numpy(), actual[task].detach().numpy(), strict=True):
            weights = oracle.softmax_gate(x.ravel(), *own)
            np.testing.assert_allclose(row, oracle.mixture(weights, functions, x), rtol=1e-10)


def test_gradients_match_the_equations() -> None:
    gate = SoftmaxGate(6, 3, bias=True).double()
    x, outputs = (torch.randn(2, *shape, dtype=torch.float64, requires_grad=True) for shape in ((6,), (3, 2, 2)))
    weight, bias = (p.detach().clone().requires_grad_() for p in gate.parameters())

    def mixture(x: Tensor, outputs: Tensor, weight: Tensor, bias: Tensor) -> Any:
        output = torch.func.functional_call(gate, {"linear.weight": weight, "linear.bias": bias}, (x,))
        return mix_experts(output.weights, outputs.unbind(1))

    assert torch.autograd.gradcheck(mixture, (x, outputs, weight, bias))


@given(st.integers(1, 9), st.floats(0, 1e4))
def test_gate_weights_sum_to_one(experts: int, scale: float) -> None:
    gate = SoftmaxGate(4, experts, bias=False)
    for context in (torch.autocast("cpu", torch.bfloat16), torch.autocast("cpu", enabled=False)):
        with context:
            weights, selectors = gate(scale * torch.randn(5, 2, 2))
        assert weights.dtype == torch.float32
        assert (weights >= 0).all()
        torch.testing.assert_close(weights.sum(1), torch.ones(5))
        assert torch.equal(selectors, weights.unsqueeze(1))


@pytest.mark.parametrize("kind", [OMoE, MMoE])
def test_one_expert_equals_hard_sharing(kind: Any) -> None:
    sharing, hard, inputs = make(kind, experts=1), make(HardSharing), batches(mnist=4, fashion=3)
    hard.trunk.load_state_dict(sharing.experts[0].state_dict())
    hard.heads.load_state_dict(sharing.heads.state_dict())
    for mine, other in zip(sharing(inputs, INPUTS).values(), hard(inputs, INPUTS).values(), strict=True):
        torch.testing.assert_close(mine, other)


@pytest.mark.parametrize("kind", MIXTURES)
def test_gates_have_no_effect_if_the_experts_are_equal(kind: Any) -> None:
    sharing, inputs = make(kind, experts=4), batches(mnist=4, fashion=3)
    for trunk in sharing.experts:
        trunk.load_state_dict(sharing.experts[0].state_dict())
    actual = sharing.representations(inputs, INPUTS)
    for task, alias in INPUTS.items():
        torch.testing.assert_close(actual[task], sharing.experts[0](inputs[alias]))


def test_gate_weight_of_one_selects_the_expert() -> None:
    sharing, inputs = make(MMoE, experts=3, bias=True), batches(mnist=4, fashion=3)
    with torch.no_grad():
        for at, task in enumerate(INPUTS):
            sharing.gates[task].linear.bias[at] = 1e4
    actual = sharing.representations(inputs, INPUTS)
    for trunk, (task, alias) in zip(sharing.experts, INPUTS.items(), strict=True):
        torch.testing.assert_close(actual[task], trunk(inputs[alias]))


def test_mixture_of_feature_maps_keeps_their_memory_layout() -> None:
    maps = [torch.randn(2, 3, 4, 5).contiguous(memory_format=torch.channels_last) for _ in range(3)]
    weights = torch.randn(2, 3).softmax(1)
    actual = mix_experts(weights, maps)
    torch.testing.assert_close(actual, torch.einsum("ne,enchw->nchw", weights, torch.stack(maps)))
    assert actual.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(
        mix_experts(weights[:1], maps)[1], mix_experts(weights[[0, 0]], maps)[1]
    )  # the same weights for all examples


# Passes


@pytest.mark.parametrize("kind", MIXTURES)
def test_each_example_passes_through_each_expert_once(kind: Any) -> None:
    sharing, passed = make(kind, experts=3), []
    for name, trunk in sharing.trunks().items():
        trunk.fc1.register_forward_hook(lambda module, args, out, name=name: passed.append((name, len(args[0]))))
    sharing(batches(mnist=5, fashion=3), list(INPUTS))
    sharing(batches(mnist=2, fashion=3), ["parity"])
    assert passed == [(f"expert{at}", rows) for rows in (8, 2) for at in range(3)]
    assert sharing({}, []) == {}


@pytest.mark.parametrize("kind", MIXTURES)
def test_joint_pass_equals_separate_passes(kind: Any) -> None:
    shape = (1, 8, 8)
    sharing, inputs = (
        make(kind, lambda s: CNN(s, widths=[2], features=6), shape=shape).eval(),
        batches(shape, mnist=5, fashion=3),
    )
    joint = sharing(inputs, list(INPUTS))
    for task, alias in INPUTS.items():
        torch.testing.assert_close(sharing({alias: inputs[alias]}, [task])[task], joint[task])


def test_tasks_on_one_dataset_share_the_representation_of_one_gate() -> None:
    actual = make(OMoE).representations(batches(mnist=2, fashion=2), INPUTS)
    assert actual["digit"] is actual["parity"]
    other = make(MMoE).representations(batches(mnist=2, fashion=2), INPUTS)
    assert not torch.equal(other["digit"], other["parity"])


@pytest.mark.parametrize("kind", MIXTURES)
def test_experts_share_one_encoder(kind: Any) -> None:
    sharing, called = make(kind, Encoded, shape=(2,), experts=3), []
    encoder = sharing.experts[0].encoder
    assert [type(trunk.encoder) for trunk in sharing.experts[1:]] == [nn.Identity] * 2
    encoder.register_forward_hook(lambda module, args, out: called.append(len(args[0])))
    sharing.eval()
    inputs = batches((2,), mnist=3, fashion=2)
    actual = sharing.representations(inputs, INPUTS)
    assert called == [5]
    x = encoder(inputs["fashion"])
    weights = sharing.gates[sharing.gate_of("garment")](x).weights
    outputs = torch.stack([trunk.second(trunk.first(x)) for trunk in sharing.experts])
    torch.testing.assert_close(actual["garment"], (weights.T.unsqueeze(2) * outputs).sum(0))


def test_split_trunk_draws_no_random_numbers_and_keeps_statistics() -> None:
    torch.manual_seed(1)
    trunk = Encoded((2,))
    trunk.input_shape = (2,)
    before, state = torch.get_rng_state(), {name: value.clone() for name, value in trunk.state_dict().items()}
    (segment,) = split_trunk(trunk, 1)
    assert (segment.start, segment.end, segment.inputs, segment.modules) == (0, 2, 3, ("first", "second"))
    assert torch.equal(torch.get_rng_state(), before)
    assert trunk.training and trunk.first[1].training
    assert all(torch.equal(value, state[name]) for name, value in trunk.state_dict().items())
    assert not any(module._forward_pre_hooks for module in trunk.modules())


# Ownership of parameters


@pytest.mark.parametrize("kind", MIXTURES)
def test_own_modules_agree_with_autograd(kind: Any) -> None:
    sharing = make(kind)
    assert reached(sharing, batches(mnist=5, fashion=3)) == owners(sharing)


def test_names_of_trunks_and_keys_of_the_state_dict() -> None:
    sharing = make(MMoE, experts=2)
    assert list(sharing.trunks()) == ["expert0", "expert1"]
    names = {"gates.digit.linear.weight", "experts.0.fc1.weight", "experts.1.fc2.bias", "heads.garment.weight"}
    assert names < {*sharing.state_dict()}
    assert "gates.all.linear.weight" in make(OMoE).state_dict()
    weights = [trunk.fc1.weight for trunk in sharing.experts]
    assert not torch.equal(*weights)


# Statistics


@pytest.mark.parametrize("kind", MIXTURES)
def test_stats_contain_the_mean_weight_of_each_expert(kind: Any) -> None:
    sharing, inputs = make(kind, experts=4), batches(mnist=5, fashion=3)
    whole, halves = SharingStats(), SharingStats()
    sharing(inputs, INPUTS, SharingRecord(stats=whole))
    for rows in (slice(0, 2), slice(2, None)):
        sharing({alias: x[rows] for alias, x in inputs.items()}, INPUTS, SharingRecord(stats=halves))
    sharing(inputs, INPUTS)
    for task, alias in INPUTS.items():
        weights = sharing.gates[sharing.gate_of(task)](inputs[alias]).weights.mean(0).tolist()
        expected = {f"expert{at}": pytest.approx(weight, abs=1e-6) for at, weight in enumerate(weights)}
        assert whole.means()[task] == expected == halves.means()[task]


@pytest.mark.parametrize(("kind", "rows"), [(OMoE, {"all": 8}), (MMoE, {"digit": 5, "parity": 5, "garment": 3})])
def test_selectors_are_recorded(kind: Any, rows: dict[str, int]) -> None:
    sharing, inputs, seen = make(kind), batches(mnist=5, fashion=3), list[TrunkPass]()
    sharing(inputs, INPUTS, SharingRecord(seen))
    (actual,) = seen
    assert actual.rows == {"mnist": 5, "fashion": 3}
    assert {name: tuple(x.shape) for name, x in actual.selectors.items()} == {n: (r, 1, 4) for n, r in rows.items()}
    name = list(rows)[-1]
    torch.testing.assert_close(actual.selectors[name][-3:, 0], sharing.gates[name](inputs["fashion"]).weights)


# Other devices and formats


@pytest.mark.parametrize("kind", MIXTURES)
def test_no_synchronization_with_the_device(kind: Any) -> None:
    with torch.device("meta"):
        sharing, inputs = make(kind), batches(mnist=5, fashion=3)
        out = sharing(inputs, INPUTS)
    assert out["garment"].shape == (3, 7) and out["garment"].device.type == "meta"
    sum(x.sum() for x in out.values()).backward()
    assert all(p.grad is not None for p in sharing.parameters())


def test_exported_program_accepts_other_batch_sizes(tmp_path: Path) -> None:
    tasks = {
        "digit": {"dataset": "a", "target": "digit", "kind": "classification"},
        "ink": {"dataset": "b", "target": "ink", "kind": "regression"},
    }
    datasets = {alias: {"name": "digits", "val": 0.2} for alias in "ab"}
    run = build(digits(datasets=datasets, tasks=tasks, sharing="mmoe"))
    export(run, "torch-export", tmp_path / "model.pt2")
    inputs = {"a": 16 * torch.rand(5, 1, 8, 8), "b": 16 * torch.rand(1, 1, 8, 8)}
    actual = torch.export.load(tmp_path / "model.pt2").module()(inputs)
    torch.testing.assert_close(dict(actual), run.model(inputs))
