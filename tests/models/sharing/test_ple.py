"""Progressive layered extraction: values, passes, ownership of parameters, statistics."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mtlcli.models.sharing.base import SharingRecord, SharingStats
from mtlcli.models.sharing.cgc import CGC
from mtlcli.models.sharing.experts import split_trunk
from mtlcli.models.sharing.ple import PLE
from mtlcli.models.trunks.base import Trunk
from mtlcli.models.trunks.cnn import CNN
from mtlcli.models.trunks.lenet import LeNet
from mtlcli.models.trunks.mlp import MLP
from mtlcli.specs import TrunkPass
from tests.models.sharing.mixtures import INPUTS, SHAPE, Encoded, batches, layer, make, owners, reached
from tests.oracles import experts as oracle

TASKS = list(INPUTS)


def deep(shape: Any) -> MLP:
    """Create an mlp with four layers."""
    return MLP(shape, hidden=[5, 4, 7], features=6)


# Values


def levels_in_numpy(sharing: Any) -> list[oracle.Level]:
    """Return the levels of the sharing in NumPy; an expert of a level consists of the layers of its segment."""

    def chain(trunk: Any, start: int, end: int) -> oracle.Expert:
        layers: list[Callable[[Any], Any]] = [layer(getattr(trunk, f"fc{at + 1}")) for at in range(start, end)]

        def run(x: Any) -> Any:
            for function in layers:
                x = function(x)
            return x

        return run

    actual = []
    for segment, gates in zip(sharing.segments, sharing.gates, strict=True):
        experts = {
            owner: [chain(sharing.experts[name], segment.start, segment.end) for name in names]
            for owner, names in sharing.owned.items()
        }
        actual.append(oracle.Level(experts, {o: g.linear.weight.detach().numpy() for o, g in gates.items()}))
    return actual


@pytest.mark.parametrize(
    ("kind", "trunk", "options"),
    [
        (CGC, MLP, {}),
        (CGC, MLP, {"shared_experts": 2, "task_experts": 3}),
        (PLE, MLP, {}),
        (PLE, MLP, {"shared_experts": 2, "task_experts": 2}),
        (PLE, deep, {"levels": 2}),
        (PLE, deep, {"levels": 3, "task_experts": 2}),
        (PLE, deep, {"levels": 4}),
    ],
)
def test_representations_match_the_paper(kind: Any, trunk: Any, options: dict[str, Any]) -> None:
    sharing, inputs = make(kind, trunk, **options).double(), batches(mnist=3, fashion=2)
    inputs = {alias: x.double() for alias, x in inputs.items()}
    actual = sharing.representations(inputs, TASKS)
    levels = levels_in_numpy(sharing)
    for task, alias in INPUTS.items():
        for x, row in zip(inputs[alias].numpy(), actual[task].detach().numpy(), strict=True):
            np.testing.assert_allclose(row, oracle.progressive(x, levels, TASKS)[task], rtol=1e-10)


def test_gradients_match_the_paper() -> None:
    sharing, inputs = make(PLE).double(), {a: x.double() for a, x in batches(mnist=2, fashion=1).items()}
    actual = sharing.representations(inputs, TASKS)
    sum(x.square().sum() for x in actual.values()).backward()

    def objective() -> float:
        levels = levels_in_numpy(sharing)
        given = [(t, oracle.progressive(x, levels, TASKS)[t]) for t, a in INPUTS.items() for x in inputs[a].numpy()]
        return float(sum((row**2).sum() for _, row in given))

    names = ["gates.0.shared.linear.weight", "gates.0.digit.linear.weight", "gates.1.garment.linear.weight"]
    names += ["experts.parity0.fc1.weight", "experts.shared0.fc2.bias", "experts.digit0.fc2.weight"]
    for name in names:
        parameter = sharing.get_parameter(name)
        at = int(parameter.grad.abs().argmax())
        flat, step = parameter.detach().view(-1), 1e-6
        flat[at] += step
        above = objective()
        flat[at] -= 2 * step
        below = objective()
        flat[at] += step
        assert parameter.grad.view(-1)[at].item() == pytest.approx((above - below) / (2 * step), rel=1e-5), name


@pytest.mark.parametrize("options", [{"levels": 1}, {"levels": 2}, {"levels": 3}])
def test_gates_have_no_effect_if_the_experts_are_equal(options: dict[str, Any]) -> None:
    sharing, inputs = make(PLE, deep, task_experts=2, **options), batches(mnist=4, fashion=3)
    first, *rest = sharing.trunks().values()
    for trunk in rest:
        trunk.load_state_dict(first.state_dict())
    actual = sharing.representations(inputs, TASKS)
    for task, alias in INPUTS.items():
        torch.testing.assert_close(actual[task], first(inputs[alias]))


def test_one_level_equals_cgc() -> None:
    ple, cgc, inputs = make(PLE, levels=1, bias=True), make(CGC, bias=True), batches(mnist=4, fashion=3)
    assert list(ple.state_dict()) == list(cgc.state_dict())
    torch.testing.assert_close(ple(inputs, TASKS), cgc(inputs, TASKS))


@pytest.mark.parametrize(
    "trunk", [lambda s: CNN(s, widths=[2, 3], features=6), lambda s: LeNet(s, channels=2, features=6)]
)
def test_feature_maps_between_levels_and_single_examples(trunk: Any) -> None:
    shape = (1, 16, 16)
    sharing, inputs = make(PLE, trunk, shape=shape).eval(), batches(shape, mnist=3, fashion=2)
    joint = sharing(inputs, TASKS)
    for task, alias in INPUTS.items():
        alone = [sharing({alias: x.unsqueeze(0)}, [task])[task] for x in inputs[alias]]
        torch.testing.assert_close(torch.cat(alone), joint[task])


# Passes


def test_examples_pass_only_through_needed_experts_in_the_last_level() -> None:
    sharing, passed = make(PLE, task_experts=2), {}
    for name, trunk in sharing.trunks().items():
        for stage in ("fc1", "fc2"):
            place = f"{name}.{stage}"
            getattr(trunk, stage).register_forward_hook(
                lambda m, a, out, place=place: passed.update({place: len(a[0])})
            )
    sharing(batches(mnist=5, fashion=3), TASKS)
    assert {rows for place, rows in passed.items() if place.endswith("fc1")} == {8}
    assert (passed["shared0.fc2"], passed["digit1.fc2"], passed["garment0.fc2"]) == (8, 5, 3)
    passed.clear()
    sharing(batches(mnist=5, fashion=3), ["garment"])
    assert passed["parity0.fc1"] == passed["garment1.fc2"] == passed["shared0.fc2"] == 3
    assert "parity0.fc2" not in passed
    assert sharing({}, []) == {}


def test_experts_of_a_task_process_only_its_dataset_with_one_level() -> None:
    sharing, passed = make(CGC), {}
    for name, trunk in sharing.trunks().items():
        trunk.fc1.register_forward_hook(lambda m, a, out, name=name: passed.update({name: len(a[0])}))
    sharing(batches(mnist=5, fashion=3), TASKS)
    assert passed == {"shared0": 8, "digit0": 5, "parity0": 5, "garment0": 3}


@pytest.mark.parametrize("kind", [CGC, PLE])
def test_experts_share_one_encoder(kind: Any) -> None:
    sharing, called = make(kind, Encoded, shape=(2,)), []
    sharing.experts["shared0"].encoder.register_forward_hook(lambda m, a, out: called.append(len(a[0])))
    assert {type(t.encoder) for name, t in sharing.trunks().items() if name != "shared0"} == {nn.Identity}
    sharing(batches((2,), mnist=3, fashion=2), TASKS)
    assert called == [5]
    assert all(p.grad is None for p in sharing.parameters())
    assert reached(sharing, batches((2,), mnist=3, fashion=2)) == owners(sharing)


# Ownership of parameters


@pytest.mark.parametrize(
    ("kind", "options"),
    [(CGC, {}), (PLE, {"task_experts": 2}), (PLE, {"levels": 3}), (PLE, {"levels": 4}), (PLE, {"levels": 1})],
)
@pytest.mark.parametrize("inputs", [INPUTS, dict.fromkeys(INPUTS, "mnist")])
def test_own_modules_agree_with_autograd(kind: Any, options: dict[str, Any], inputs: dict[str, str]) -> None:
    sharing = make(kind, deep, inputs, **options)
    rows = batches(mnist=5, fashion=3) if "fashion" in inputs.values() else batches(mnist=5)
    assert reached(sharing, rows) == owners(sharing)
    modules = [module for task in inputs for module in sharing.own_modules(task)]
    counted = [id(p) for module in modules for p in module.parameters()]
    assert len(counted) == len(set(counted))  # each once


def test_replaced_layer_is_used_and_belongs_to_its_task() -> None:
    sharing, inputs = make(PLE), batches(mnist=5, fashion=3)
    before = sharing(inputs, TASKS)
    new = nn.Linear(5, 6)
    sharing.trunks()["digit0"].fc2 = new
    after = sharing(inputs, TASKS)
    assert [torch.equal(before[task], after[task]) for task in TASKS] == [False, True, True]
    assert any(module is new for module in sharing.own_modules("digit"))


class Odd(Trunk):
    """Trunk whose segments call modules that are nested, used twice, or never called themselves."""

    def __init__(self, shape: Any) -> None:
        super().__init__()
        self.features = 6
        self.twice = nn.Linear(6, 6)
        self.nest = nn.Sequential(nn.Linear(12, 6), nn.Sequential(nn.Linear(6, 6), nn.ReLU()))
        self.attention = nn.MultiheadAttention(6, 2, batch_first=True)  # its `out_proj` is never called

    def stages(self) -> dict[str, Callable[[Tensor], Tensor]]:
        return {
            "a": lambda x: self.twice(self.nest[0](x.flatten(1))),
            "b": lambda x: self.attention(*[self.twice(self.nest[1](x)).unsqueeze(1)] * 3)[0].squeeze(1),
        }


def test_modules_of_a_segment_are_those_it_calls() -> None:
    trunk = Odd(SHAPE)
    trunk.input_shape = SHAPE
    first, last = split_trunk(trunk, 2)
    assert (first.modules, last.modules) == (("nest.0",), ("attention", "nest.1"))
    assert (first.inputs, last.inputs) == (12, 6)
    sharing = make(PLE, Odd)
    assert reached(sharing, batches(mnist=5, fashion=3)) == owners(sharing)


@pytest.mark.parametrize(("count", "cuts"), [(1, [4]), (2, [2, 4]), (3, [1, 2, 4]), (4, [1, 2, 3, 4])])
def test_segments_have_equal_lengths_or_later_ones_are_longer(count: int, cuts: list[int]) -> None:
    trunk = deep(SHAPE)
    trunk.input_shape = SHAPE
    parts = split_trunk(trunk, count)
    assert [segment.end for segment in parts] == cuts
    assert [segment.start for segment in parts] == [0, *cuts[:-1]]
    widths = [12, 5, 4, 7]
    assert [segment.inputs for segment in parts] == [widths[segment.start] for segment in parts]
    assert [name for segment in parts for name in segment.modules] == ["fc1", "fc2", "fc3", "fc4"]


# Statistics


def test_stats_contain_the_mean_weight_of_each_expert() -> None:
    sharing, inputs = make(PLE, deep, levels=3), batches(mnist=5, fashion=3)
    whole, halves = SharingStats(), SharingStats()
    sharing(inputs, TASKS, SharingRecord(stats=whole))
    sharing({"mnist": inputs["mnist"]}, ["digit", "parity"], SharingRecord(stats=halves))
    sharing({"fashion": inputs["fashion"]}, ["garment"], SharingRecord(stats=halves))
    actual = whole.means()
    assert list(actual["garment"]) == [f"level{at}.{name}" for at in (1, 2, 3) for name in ("garment0", "shared0")]
    assert list(actual["shared"]) == [f"level{at}.{t}0" for at in (1, 2) for t in [*TASKS, "shared"]]
    for owner, figures in actual.items():
        assert halves.means()[owner] == pytest.approx(figures, abs=1e-6)
        levels = {name.partition(".")[0] for name in figures}
        assert sum(figures.values()) == pytest.approx(len(levels))
    first = sharing.gates[0]["garment"](inputs["fashion"]).weights.mean(0).tolist()
    assert list(actual["garment"].values())[:2] == pytest.approx(first, abs=1e-6)


def test_selectors_are_recorded() -> None:
    sharing, inputs, seen = make(PLE, task_experts=2), batches(mnist=5, fashion=3), list[TrunkPass]()
    sharing(inputs, ["garment", "parity"], SharingRecord(seen))
    (actual,) = seen
    shapes = {name: tuple(x.shape) for name, x in actual.selectors.items()}
    assert shapes == {
        "level1.shared": (8, 1, 7),
        "level1.parity": (5, 1, 3),
        "level1.garment": (3, 1, 3),
        "level2.garment": (3, 1, 3),
        "level2.parity": (5, 1, 3),
    }
    seen.clear()
    make(CGC)(inputs, TASKS, SharingRecord(seen))
    assert list(seen[0].selectors) == TASKS


# Other devices, invalid options


def test_no_synchronization_with_the_device() -> None:
    with torch.device("meta"):
        sharing, inputs = make(PLE), batches(mnist=5, fashion=3)
        out = sharing(inputs, TASKS)
    sum(x.sum() for x in out.values()).backward()
    assert all(p.grad is not None for p in sharing.parameters())


def test_torch_compile_captures_one_graph() -> None:
    traced = torch.compile(make(PLE), backend="eager", fullgraph=True)
    inputs = batches(mnist=5, fashion=3)
    torch.testing.assert_close(traced(inputs, TASKS), make(PLE)(inputs, TASKS))


def test_more_levels_than_stages_are_rejected() -> None:
    with pytest.raises(ValueError, match=r"levels: expected at most 2, .* stages \(fc1, fc2\), got 3\. Use"):
        make(PLE, levels=3)


@pytest.mark.parametrize(
    ("inputs", "experts", "message"),
    [({"digit": "a", "shared": "a"}, 1, "'shared0'"), ({"a": "d", "a1": "d"}, 11, "'a10'")],
)
def test_ambiguous_names_of_experts_are_rejected(inputs: dict[str, str], experts: int, message: str) -> None:
    with pytest.raises(ValueError, match=f"two experts would be called {message}.*Rename the task"):
        make(CGC, inputs=inputs, task_experts=experts)
