"""Properties of every sharing with every trunk: shapes, ownership of parameters, independence of examples."""

from __future__ import annotations

import math
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mtlcli.models.sharing.base import Sharing, SharingRecord, SharingStats
from mtlcli.models.trunks.base import Trunk
from mtlcli.models.trunks.torchvision import TorchVision
from mtlcli.models.warm_start import freeze
from mtlcli.registry import sharings, trunks, weightings
from mtlcli.training.assembly.build import build
from mtlcli.training.assembly.optimizers import make_optimizer
from mtlcli.training.step import Step
from tests.training.backward.test_gradient_backward import MIXED, SAME, WEIGHTS, Spy, batch
from tests.training.experiments import digits

NAMES = sharings.names()
ONE = {"digit": "mnist", "parity": "mnist", "ink": "mnist"}
TWO = {"digit": "mnist", "parity": "mnist", "garment": "fashion"}
TRUNKS: dict[str, tuple[tuple[int, ...], dict[str, Any]]] = {
    "lenet": ((1, 16, 16), {"channels": 2, "hidden": 5, "features": 4}),
    "cnn": ((1, 8, 8), {"widths": [3, 4], "features": 4}),
    "mlp": ((1, 8, 8), {"hidden": [6, 5], "features": 4, "dropout": 0.2}),
}
OVER_SHARINGS = pytest.mark.parametrize("name", NAMES)
OVER_TRUNKS = pytest.mark.parametrize("trunk", TRUNKS)
OVER_DATASETS = pytest.mark.parametrize("inputs", [ONE, TWO], ids=["one dataset", "two datasets"])


OPTIONS: dict[str, dict[str, Any]] = {
    name: {"order": ["digit", "parity"]} for name in ("esmm", "aitm")
}  # tasks in order, which have one output each
LAST_LAYER = {"name": "gradnorm", "gradients": "last_layer"}


def make(
    name: str,
    trunk: str | Callable[[], Trunk] = "mlp",
    inputs: dict[str, str] = TWO,
    seed: int = 0,
    change: Callable[[Trunk], Trunk] = lambda trunk: trunk,
) -> Sharing:
    torch.manual_seed(seed)

    def make_trunk() -> Trunk:
        if callable(trunk):
            return trunk()
        shape, options = TRUNKS[trunk]
        created: Trunk = trunks[trunk].create(shape, **options)
        created.input_shape = shape
        return change(created)

    def make_head(task: str, features: int) -> nn.Module:
        return nn.Linear(features, width(name, task))

    sharing: Sharing = sharings[name].create(make_trunk, make_head, inputs, **OPTIONS.get(name, {}))
    return sharing


def width(name: str, task: str) -> int:
    return 1 if task in OPTIONS.get(name, {}).get("order", []) else len(task)


def batches(trunk: str = "mlp", inputs: dict[str, str] = TWO, device: str = "cpu") -> dict[str, Tensor]:
    torch.manual_seed(1)
    rows = {"mnist": 6, "fashion": 4}
    return {alias: torch.randn(rows[alias], *TRUNKS[trunk][0], device=device) for alias in set(inputs.values())}


def reached(sharing: Sharing, given: dict[str, Tensor]) -> dict[str, set[str]]:
    """Return task → names of the parameters that a loss of its predictions has a gradient for."""
    predictions = sharing(given, list(sharing.inputs))
    trained = {name: p for name, p in sharing.named_parameters() if p.requires_grad}
    actual = {}
    for task, prediction in predictions.items():
        gradients = torch.autograd.grad(
            prediction.square().sum(), list(trained.values()), retain_graph=True, allow_unused=True
        )
        actual[task] = {name for name, gradient in zip(trained, gradients, strict=True) if gradient is not None}
    return actual


def check_owners(sharing: Sharing, given: dict[str, Tensor]) -> None:
    """Check that a parameter is a task's own iff only its loss reaches it, and shared iff several losses do."""
    names = {id(p): name for name, p in sharing.named_parameters()}
    trained = {name for name, p in sharing.named_parameters() if p.requires_grad}
    by_task = reached(sharing, given)
    assert set().union(*by_task.values()) == trained  # every parameter has a gradient
    for task in sharing.inputs:
        others = set().union(*(by_task[other] for other in by_task if other != task))
        own = [names[id(p)] for module in sharing.own_modules(task) for p in module.parameters()]
        assert len(own) == len(set(own))
        assert set(own) & trained == by_task[task] - others
    several = {name for name in trained if sum(name in actual for actual in by_task.values()) > 1}
    assert {names[id(p)] for p in sharing.shared_parameters()} & trained == several


@OVER_SHARINGS
@OVER_TRUNKS
@OVER_DATASETS
def test_own_and_shared_parameters_agree_with_autograd(name: str, trunk: str, inputs: dict[str, str]) -> None:
    check_owners(make(name, trunk, inputs), batches(trunk, inputs))


@OVER_SHARINGS
@OVER_TRUNKS
@OVER_DATASETS
def test_prediction_depends_only_on_its_own_example(name: str, trunk: str, inputs: dict[str, str]) -> None:
    """In evaluation mode, neither requested tasks, other examples nor other datasets matter."""
    sharing, given = make(name, trunk, inputs).eval(), batches(trunk, inputs)
    with torch.no_grad():
        joint = sharing(given, list(inputs))
        assert {task: tuple(p.shape) for task, p in joint.items()} == {
            task: (len(given[alias]), width(name, task)) for task, alias in inputs.items()
        }
        for task, alias in inputs.items():
            assert joint[task].isfinite().all()
            alone = sharing({alias: given[alias][1:3]}, [task])
            torch.testing.assert_close(alone[task], joint[task][1:3])
    assert sharing(given, []) == {}


@OVER_SHARINGS
def test_same_seed_creates_the_same_network(name: str) -> None:
    first, second, other = make(name), make(name), make(name, seed=2)
    given = batches()
    expected = first.eval()(given, list(TWO))
    other.load_state_dict(first.state_dict())
    for sharing in (first, second, other.eval()):
        actual = sharing.eval()(given, list(TWO))
        assert all(torch.equal(actual[task], expected[task]) for task in TWO)


@OVER_SHARINGS
def test_construction_leaves_the_trunks_unchanged(name: str) -> None:
    """They are in training mode, with the initial statistics of batch norm and without hooks."""
    sharing = make(name, "cnn")
    assert all(module.training for module in sharing.modules())
    assert not any(value.any() for key, value in sharing.state_dict().items() if "running_mean" in key)
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in sharing.modules())


@OVER_SHARINGS
def test_on_the_meta_device(name: str) -> None:
    with torch.device("meta"):
        sharing = make(name, "lenet")
    actual = sharing(batches("lenet", device="meta"), list(TWO))
    assert {task: p.device.type for task, p in actual.items()} == dict.fromkeys(TWO, "meta")


@pytest.fixture(scope="module")
def resnet() -> TorchVision:
    with torch.device("meta"):
        return TorchVision((1, 8, 8), model="resnet18")


@pytest.mark.parametrize("name", ["cross_stitch", "mtan", "ple"])  # those that trace stages
def test_own_and_shared_parameters_of_a_resnet_agree_with_autograd(name: str, resnet: TorchVision) -> None:
    def make_trunk() -> Trunk:
        trunk = deepcopy(resnet).to_empty(device="cpu")  # the values don't matter
        trunk.input_shape = (1, 8, 8)
        return trunk

    given = {"mnist": torch.zeros(2, 1, 8, 8), "fashion": torch.zeros(2, 1, 8, 8)}
    check_owners(make(name, make_trunk, {"digit": "mnist", "garment": "fashion"}).eval(), given)


@OVER_SHARINGS
@pytest.mark.parametrize("trunk", ["mlp", "cnn"])
def test_only_the_trunks_are_frozen(name: str, trunk: str) -> None:
    sharing = make(name, trunk, change=freeze).train()
    frozen = {id(p) for trunk_ in sharing.trunks().values() for p in trunk_.parameters()}
    assert {id(p) for p in sharing.parameters() if not p.requires_grad} == frozen
    assert not any(module.training for trunk_ in sharing.trunks().values() for module in trunk_.modules())
    check_owners(sharing, batches(trunk))


@OVER_SHARINGS
def test_stats_are_means_over_examples(name: str) -> None:
    sharing, given = make(name).eval(), batches()
    actual = []
    for cuts in ([slice(0, 6)], [slice(0, 1), slice(1, 6)]):
        stats = SharingStats()
        for cut in cuts:
            sharing({alias: x[cut] for alias, x in given.items()}, list(TWO), SharingRecord(stats=stats))
        actual.append(stats.means())
    whole, parts = actual
    assert {task: list(means) for task, means in whole.items()} == {task: list(means) for task, means in parts.items()}
    for task, means in whole.items():
        assert all(math.isfinite(value) for value in means.values())
        assert list(means.values()) == pytest.approx(list(parts[task].values()), rel=1e-5)


def test_sharings_without_stats() -> None:
    silent = set()
    for name in NAMES:
        sharing, stats = make(name).eval(), SharingStats()
        sharing(batches(), list(TWO), SharingRecord(stats=stats))
        if not stats.means():
            silent.add(name)
    assert silent == {"esmm", "hard", "none", "shared_private"}


@pytest.mark.parametrize("weighting", ["uniform", "imtl_l", "mgda", LAST_LAYER, "graddrop"], ids=str)
@OVER_SHARINGS
def test_a_step_with_each_kind_of_weighting(name: str, weighting: Any) -> None:
    run = build(_experiment(name, weighting, SAME))
    step = Step(run, make_optimizer(run))
    before = {key: p.detach().clone() for key, p in run.model.named_parameters()}
    for start in (0, 32):
        created = step([batch(run, start, start + 32)])
        assert created is not None and created[0].losses.isfinite().all() and created[0].weights.isfinite().all()
    for key, parameter in run.model.named_parameters():
        assert parameter.isfinite().all()
        assert not torch.equal(parameter, before[key]) or parameter.grad is not None, key


@pytest.mark.parametrize("weighting", ["spy", {"name": "spy", "gradients": "last_layer"}], ids=str)
@OVER_SHARINGS
def test_a_step_weights_shared_parameters_only(name: str, weighting: Any) -> None:
    """The gradients are those of autograd: Σ w_t ∇L_t for shared parameters, ∇L_t for a task's own."""
    weightings.register("spy")(Spy)
    run = build(_experiment(name, weighting, MIXED))
    whole = batch(run, 0, 32)
    predictions = run.model(whole.inputs)
    losses = torch.stack([kind.loss(predictions[task], whole.targets[task]) for task, kind in run.kinds.items()])
    shared = run.model.shared_parameters()
    own = [p for p in run.model.parameters() if all(p is not q for q in shared)]
    expected = list(torch.autograd.grad(losses.sum(), own, retain_graph=True))
    expected += torch.autograd.grad(WEIGHTS.float() @ losses, shared) if shared else []
    Step(run, make_optimizer(run))([whole])
    for parameter, gradient in zip([*own, *shared], expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-3, atol=1e-6)


def _experiment(sharing: str, weighting: Any, tasks: dict[str, Any]) -> Any:
    options: dict[str, Any] = {}
    if sharing in OPTIONS:  # two binary tasks in order
        tasks, options = {**tasks, "ink": tasks["parity"]}, {"order": ["ink", "parity"]}
        options |= {"calibrator": 0.0} if sharing == "aitm" else {}
    return digits(
        datasets={task["dataset"]: {"name": "digits", "val": 0.2} for task in tasks.values()},
        tasks=tasks,
        trunk={"name": "mlp", "hidden": [6], "features": 4},
        sharing={"name": sharing, **options},
        weighting=weighting,
        optimizer={"name": "SGD", "lr": 0.1},
    )
