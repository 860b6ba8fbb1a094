"""`Balancer` against `mtl train`'s own step, against plain autograd, and its errors."""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import mtlcli
from mtlcli.data.loader import Batch
from mtlcli.errors import ConfigError, MtlError
from mtlcli.registry import weightings
from mtlcli.training.assembly.build import build
from mtlcli.training.assembly.optimizers import make_optimizer
from mtlcli.training.balancer import Balancer
from mtlcli.training.run import Run
from mtlcli.training.step import Step
from mtlcli.weighting.base import GramianWeighting, WeightedTask, Weighting
from tests.training.backward.test_gradient_backward import CNN, MLP, SAME, batch
from tests.training.experiments import digits, training

MATRIX = [[1.0, 0.5, 0.2], [0.5, 2.0, 0.1], [0.2, 0.1, 1.0]]
OPTIONS: dict[str, dict[str, Any]] = {
    "stch": {"warmup_epochs": 1}, "relation": {"matrix": MATRIX}, "torchjd": {"aggregator": "UPGrad"},
}  # fmt: skip
NAMES = weightings.names()
BY_FEATURES = [name for name in NAMES if "features" in getattr(weightings[name].target, "gradients", ())]
TASKS = ["a", "b", "c"]


class Trunk(nn.Module):
    """A trunk with a parameter that only task `a` reaches, one that no task reaches, and a frozen one."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(6, 8), nn.Linear(8, 4)
        self.of_a = nn.Parameter(torch.ones(4))
        self.unused = nn.Parameter(torch.ones(3))
        self.frozen = nn.Parameter(torch.ones(4), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(self.first(x).relu()) * self.frozen
        return out


class Loop:
    """A network and a batch of a training loop of the user's own."""

    def __init__(self, tasks: Sequence[str] = TASKS, dtype: torch.dtype = torch.float32) -> None:
        torch.manual_seed(0)
        self.tasks = list(tasks)
        self.trunk = Trunk().to(dtype)
        self.heads = nn.ModuleDict({task: nn.Linear(4, 2) for task in tasks}).to(dtype)
        self.x = torch.randn(3 * 8, 6, dtype=dtype)
        self.y = {task: torch.randn(3 * 8, 2, dtype=dtype) for task in tasks}

    @property
    def network(self) -> nn.ModuleList:
        return nn.ModuleList([self.trunk, self.heads])

    def features(self, rows: slice = slice(None)) -> dict[str, Tensor]:
        common = self.trunk(self.x[rows])
        return {task: common * self.trunk.of_a if task == "a" else common for task in self.tasks}

    def losses(self, features: dict[str, Tensor] | None = None, rows: slice = slice(None)) -> dict[str, Tensor]:
        features = self.features(rows) if features is None else features
        return {task: F.mse_loss(self.heads[task](features[task]), self.y[task][rows]) for task in self.tasks}

    def thirds(self) -> list[dict[str, Tensor]]:
        return [self.losses(rows=slice(start, start + 8)) for start in (0, 8, 16)]

    def gradients(self) -> dict[str, Tensor | None]:
        return {name: None if p.grad is None else p.grad.clone() for name, p in self.network.named_parameters()}


def balancer_of(loop: Loop, method: Any = "pcgrad", **options: Any) -> Balancer:
    return Balancer(method, shared=loop.trunk.parameters(), tasks=loop.tasks, **options)


def losses_for(balancer: Balancer, loop: Loop) -> Any:
    return loop.thirds() if type(balancer.weighting).__name__ == "SDMGrad" else loop.losses()


def train(balancer: Balancer, loop: Loop, optimizer: torch.optim.Optimizer, steps: int = 3) -> None:
    for _ in range(steps):
        optimizer.zero_grad()
        balancer.backward(losses_for(balancer, loop))
        optimizer.step()
        if balancer.looks_back:
            balancer.after_step(loop.losses())


def experiment_run(weighting: dict[str, Any], trunk: Any = MLP, precision: str = "fp32") -> Run:
    run = build(digits(datasets={"a": {"name": "digits", "val": 0.2}}, tasks=SAME, trunk=trunk, weighting=weighting,
                       training=training(precision=precision), optimizer={"name": "SGD", "lr": 0.1}))  # fmt: skip
    run.model.train()
    for kind in run.kinds.values():  # so that a label may be missing
        object.__setattr__(kind.target, "missing", True)
    return run


def losses_of(run: Run, whole: Batch) -> tuple[dict[str, Tensor], Tensor]:
    """The losses of a run's model as a training loop of the user's own would compute them, and the features."""
    names = [task for task in run.kinds if whole.counts[task]]
    with run.autocast():
        representations = run.model.representations(whole.inputs, names)
        losses = {
            task: run.kinds[task].loss(run.model.heads[task](representations[task]), whole.targets[task])
            for task in names
        }
    return losses, representations[names[0]]


def balanced_run(run: Run, name: str, **arguments: Any) -> tuple[Balancer, torch.optim.Optimizer]:
    tasks = [WeightedTask(task, 1.0, kind.likelihood) for task, kind in run.kinds.items()]
    balancer = Balancer(
        name, shared=run.model.shared_parameters(), tasks=tasks, seed=run.experiment.seed,
        **OPTIONS.get(name, {}), **arguments,
    )  # fmt: skip
    return balancer, torch.optim.SGD([*run.model.parameters(), *balancer.parameters()], lr=0.1)


# sdmgrad takes three samples of a batch, see below; an aggregator of TorchJD needs all tasks
STEPS = [
    (name, by_features, missing)
    for name in NAMES
    for by_features in (False, True)
    for missing in ((), tuple(range(64)))
    if name != "sdmgrad" and (not by_features or name in BY_FEATURES) and (not missing or name != "torchjd")
]


@pytest.mark.parametrize(("name", "by_features", "missing"), STEPS)
def test_gradients_equal_those_of_mtl_train_to_the_bit(name: str, by_features: bool, missing: Any) -> None:
    entry = {"name": name, **OPTIONS.get(name, {}), **({"gradients": "features"} if by_features else {})}
    run, other = experiment_run(entry), experiment_run(entry)
    layer = name == "gradnorm" and not by_features
    step, whole = Step(run, make_optimizer(run)), batch(run, 0, 64, missing)
    extra = {"last_layer": other.model.last_shared_layer()} if layer else {}
    balancer, optimizer = balanced_run(other, name, **extra)
    for _ in range(3):
        result = step([whole])
        optimizer.zero_grad()
        losses, features = losses_of(other, whole)
        balancer.backward(losses, features if by_features else None)
        assert result is not None
        expected = [(p.grad, q.grad) for p, q in zip(run.model.parameters(), other.model.parameters(), strict=True)]
        weights = balancer.weights[~balancer.weights.isnan()]
        if layer:  # weighs the losses, where the experiment weighs the gradients of the representations
            torch.testing.assert_close(*map(list, zip(*((e, g) for e, g in expected if e is not None), strict=True)))
            torch.testing.assert_close(weights, result[0].weights)
        else:
            assert all(e is g is None or torch.equal(e, g) for e, g in expected)  # type: ignore[arg-type]
            assert torch.equal(weights, result[0].weights)
            assert (balancer.conflict is None) == (result[0].conflict is None)
            if balancer.conflict is not None and result[0].conflict is not None:
                torch.testing.assert_close(balancer.conflict, result[0].conflict, rtol=0, atol=0, equal_nan=True)
        optimizer.step()
        if balancer.looks_back:
            balancer.after_step(losses_of(other, whole)[0])
    assert torch.equal(balancer.weights.isnan(), torch.tensor([bool(missing), False, False]))


@pytest.mark.parametrize("by_features", [False, True])
def test_a_convolutional_trunk_gives_the_same_bits(by_features: bool) -> None:
    entry = {"name": "upgrad", **({"gradients": "features"} if by_features else {})}
    run, other = experiment_run(entry, CNN), experiment_run(entry, CNN)
    whole = batch(run, 0, 64)
    Step(run, make_optimizer(run))([whole])
    losses, features = losses_of(other, whole)
    balanced_run(other, "upgrad")[0].backward(list(losses.values()), features if by_features else None)
    for ours, theirs in zip(other.model.parameters(), run.model.parameters(), strict=True):
        assert torch.equal(ours.grad, theirs.grad)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["upgrad", "uniform", "moco"])
def test_fp16_gradients_equal_those_of_mtl_train_to_the_bit(name: str) -> None:
    """The method sees gradients without the loss scale, and `.grad` has it."""
    run, other = experiment_run({"name": name}, precision="fp16"), experiment_run({"name": name}, precision="fp16")
    step, whole = Step(run, make_optimizer(run)), batch(run, 0, 64)
    scaler = torch.amp.GradScaler("cpu")
    balancer, optimizer = balanced_run(other, name, scaler=scaler)
    for _ in range(2):
        result = step([whole])
        optimizer.zero_grad()
        balancer.backward(losses_of(other, whole)[0])
        assert result is not None and torch.equal(balancer.weights, result[0].weights)
        scaled = [p.grad for p in other.model.parameters() if p.grad is not None]
        assert max(float(gradient.abs().max()) for gradient in scaled) > 100
        scaler.step(optimizer)
        scaler.update()
    for ours, theirs in zip(other.model.parameters(), run.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("name", ["moco", "famo"])
def test_a_step_that_the_scaler_skips_is_forgotten(name: str) -> None:
    loop, scaler = Loop(), torch.amp.GradScaler("cpu", init_scale=2.0**16)
    balancer, optimizer = balancer_of(loop, name, scaler=scaler), torch.optim.SGD(Loop().network.parameters(), lr=0.1)
    optimizer = torch.optim.SGD(loop.network.parameters(), lr=0.1)
    for overflow in (False, True):
        before = copy.deepcopy(balancer.state_dict()["weighting"])
        optimizer.zero_grad()
        balancer.backward({task: loss * (float("inf") if overflow else 1) for task, loss in loop.losses().items()})
        scaler.step(optimizer)
        scaler.update()
        balancer.after_step(loop.losses())
    after = balancer.state_dict()["weighting"]
    assert all(torch.equal(after[key], before[key]) for key in before)


def test_independent_samples_equal_those_of_mtl_train() -> None:
    """Of 63 examples, in thirds of equal size."""
    run, other = experiment_run({"name": "sdmgrad"}), experiment_run({"name": "sdmgrad"})
    wholes = [batch(run, 0, 33), batch(run, 33, 64)]
    whole = Batch({"a": torch.cat([w.inputs["a"] for w in wholes])[:63]},
                  {task: torch.cat([w.targets[task] for w in wholes])[:63] for task in run.kinds},
                  dict.fromkeys(run.kinds, 63))  # fmt: skip
    result = Step(run, make_optimizer(run))([whole])
    balancer, _ = balanced_run(other, "sdmgrad")
    thirds = [
        Batch({"a": whole.inputs["a"][rows]}, {t: y[rows] for t, y in whole.targets.items()}, dict.fromkeys(SAME, 21))
        for rows in (slice(0, 21), slice(21, 42), slice(42, 63))
    ]
    balancer.backward([losses_of(other, third)[0] for third in thirds])
    assert result is not None
    torch.testing.assert_close(balancer.weights, result[0].weights)
    for ours, theirs in zip(other.model.parameters(), run.model.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)


@pytest.mark.parametrize("name", NAMES)
def test_every_weighting_trains_and_resumes_from_its_state(name: str) -> None:
    options = OPTIONS.get(name, {})
    whole, stopped = Loop(), Loop()
    runs = []
    for loop in (whole, stopped):
        balancer = balancer_of(loop, name, **options)
        optimizer = torch.optim.SGD([*loop.network.parameters(), *balancer.parameters()], lr=0.05)
        train(balancer, loop, optimizer)
        balancer.end_epoch()
        runs.append((balancer, optimizer))
    start = [p.clone() for p in Loop().network.parameters()]
    moved = [not torch.equal(old, new) for old, new in zip(start, whole.network.parameters(), strict=True)]
    assert sum(moved) >= len(moved) - 3  # all but the frozen, the unused and perhaps one that is small
    resumed = balancer_of(stopped, name, **options)
    resumed.load_state_dict(copy.deepcopy(runs[1][0].state_dict()))
    optimizer = torch.optim.SGD([*stopped.network.parameters(), *resumed.parameters()], lr=0.05)
    torch.manual_seed(1)  # of TorchJD's aggregators
    train(runs[0][0], whole, runs[0][1])
    torch.manual_seed(1)
    train(resumed, stopped, optimizer)
    assert torch.equal(resumed.weights, runs[0][0].weights)
    for ours, theirs in zip(stopped.network.parameters(), whole.network.parameters(), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("by_features", [False, True])
def test_own_parameters_get_their_own_gradient(by_features: bool) -> None:
    """Also a task's own parameter below the features; unused and frozen parameters are left alone."""
    loop, plain = Loop(), Loop()
    shared = [p for name, p in loop.trunk.named_parameters() if name != "of_a"]
    balancer = Balancer("upgrad", shared=shared, tasks=TASKS)
    features = loop.features()
    balancer.backward(loop.losses(features), features if by_features else None)
    torch.stack(list(plain.losses().values())).sum().backward()
    for (name, ours), (_, theirs) in zip(
        loop.network.named_parameters(), plain.network.named_parameters(), strict=True
    ):
        if name.startswith("1.") or name.endswith("of_a"):
            torch.testing.assert_close(ours.grad, theirs.grad)
    assert loop.trunk.unused.grad is None and loop.trunk.frozen.grad is None


@pytest.mark.parametrize("by_features", [False, True])
@pytest.mark.parametrize("name", ["uniform", "pcgrad", "mgda", "graddrop"])
def test_one_task_is_plain_training(name: str, by_features: bool) -> None:
    loop, plain = Loop(["b"]), Loop(["b"])
    features = loop.features()
    balancer_of(loop, name).backward(loop.losses(features)["b"], features["b"] if by_features else None)
    plain.losses()["b"].backward()
    for ours, theirs in zip(loop.network.parameters(), plain.network.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)


@pytest.mark.parametrize("method", ["uniform", "pcgrad", "pcgrad by features"])
def test_gradients_accumulate_like_those_of_backward(method: str) -> None:
    """Over calls, over a `.grad` that was there, and without a `zero_grad` between the steps."""
    name, _, by_features = method.partition(" ")
    loop, fresh = Loop(), Loop()
    balancer, others = balancer_of(loop, name), balancer_of(fresh, name)
    total: dict[str, Tensor] = {}
    for number in range(4):
        if number == 2:  # zeroed in place: the tensors of `.grad` stay
            torch.optim.SGD(loop.network.parameters(), lr=0.1).zero_grad(set_to_none=False)
            total = {}
        features = loop.features()
        balancer.backward(loop.losses(features), features if by_features else None)
        torch.optim.SGD(fresh.network.parameters(), lr=0.1).zero_grad()
        features = fresh.features()
        others.backward(fresh.losses(features), features if by_features else None)
        for key, gradient in fresh.gradients().items():
            if gradient is not None:
                total[key] = total.get(key, torch.zeros_like(gradient)) + gradient
    for key, gradient in loop.gradients().items():
        if gradient is not None:
            torch.testing.assert_close(gradient, total[key])


@pytest.mark.parametrize("by_features", [False, True])
def test_weights_are_reused_between_solutions(by_features: bool) -> None:
    loop, plain = Loop(), Loop()
    balancer = balancer_of(loop, "upgrad", every=2)
    for number in range(4):
        for each in (loop, plain):
            each.network.zero_grad()
        features = loop.features()
        balancer.backward(loop.losses(features), features if by_features else None)
        if number % 2 == 0:
            weights = balancer.weights.clone()
        assert torch.equal(balancer.weights, weights)
        losses = torch.stack(list(plain.losses().values()))
        trunk = [plain.trunk.first.weight, plain.trunk.last.bias]
        wanted = torch.autograd.grad(losses, trunk, weights.float(), retain_graph=True)
        own = torch.autograd.grad(losses.sum(), list(plain.heads.parameters()))
        torch.testing.assert_close([loop.trunk.first.weight.grad, loop.trunk.last.bias.grad], list(wanted))
        torch.testing.assert_close([p.grad for p in loop.heads.parameters()], list(own))


def test_the_graph_is_freed() -> None:
    for by_features in (False, True):
        loop = Loop()
        features = loop.features()
        losses = loop.losses(features)
        balancer_of(loop).backward(losses, features if by_features else None)
        with pytest.raises(RuntimeError, match="second time"):
            losses["c"].backward()


@pytest.mark.parametrize("by_features", [False, True])
def test_every_graph_is_freed_where_each_task_has_its_own(by_features: bool) -> None:
    loop = Loop()
    features = {task: loop.features()[task] for task in TASKS}
    losses = loop.losses(features)
    balancer_of(loop).backward(losses, features if by_features else None)
    for loss in losses.values():
        with pytest.raises(RuntimeError, match="second time"):
            torch.autograd.grad(loss, list(loop.heads.parameters()), allow_unused=True)


@pytest.mark.parametrize("by_features", [False, True])
def test_double_precision_stays(by_features: bool) -> None:
    """Far below the resolution of float32."""
    loop, plain = Loop(dtype=torch.float64), Loop(dtype=torch.float64)
    balancer, features = balancer_of(loop, "upgrad"), loop.features()
    balancer.backward(loop.losses(features), features if by_features else None)
    losses = torch.stack(list(plain.losses().values()))
    (wanted,) = torch.autograd.grad(losses, [plain.trunk.first.weight], balancer.weights)
    torch.testing.assert_close(loop.trunk.first.weight.grad, wanted, rtol=1e-12, atol=1e-14)


def test_features_of_which_one_is_computed_from_another() -> None:
    """Each task's gradient stops at the features that it uses; a task may not use both."""
    loop, plain = Loop(), Loop()
    features = loop.features()
    balancer_of(loop, "pcgrad").backward(loop.losses(features), list(features.values()))
    balancer_of(plain, "pcgrad").backward(plain.losses())
    balancer = balancer_of(loop, "mgda")
    first = torch.ones(4, requires_grad=True) * loop.trunk.of_a
    second = first.exp()
    losses = {"a": first.sum(), "b": second.sum(), "c": (first + second).sum()}
    with pytest.raises(ValueError, match=r"task 'c' depends on two of the `features`"):
        balancer.backward(losses, [first, second])
    del losses["c"]
    loop.network.zero_grad()
    balancer.backward(losses, [first, second])
    weights = balancer.weights.float()
    torch.testing.assert_close(loop.trunk.of_a.grad, weights[0] + weights[1] * loop.trunk.of_a.detach().exp())


def test_custom_weighting() -> None:
    class Largest(GramianWeighting):
        """The longest gradient alone."""

        def weights(self, gramian: Tensor, losses: Tensor, present: Sequence[int]) -> Tensor:
            lengths = gramian.diagonal()
            return (lengths == lengths.max()).to(gramian.dtype)

    loop = Loop()
    balancer_of(loop, Largest).backward(loop.losses())
    again = Loop()
    instance = balancer_of(again, Largest([WeightedTask(task) for task in TASKS]))
    instance.backward(again.losses())
    assert float(instance.weights.sum()) == 1
    for ours, theirs in zip(loop.network.parameters(), again.network.parameters(), strict=True):
        assert ours.grad is theirs.grad is None or torch.equal(ours.grad, theirs.grad)  # type: ignore[arg-type]


def test_task_weights_and_epochs_reach_the_method() -> None:
    loop = Loop()
    balancer = Balancer("fixed", shared=loop.trunk.parameters(), tasks={"a": 2.0, "b": 0.5, "c": 1.0})
    balancer.backward(loop.losses())
    assert balancer.weights.tolist() == [2.0, 0.5, 1.0]
    dwa = balancer_of(loop, "dwa")
    for factor in (1.0, 0.5, 0.1):
        dwa.backward({task: loss * (factor if task == "a" else 1.0) for task, loss in loop.losses().items()})
        dwa.end_epoch()
    dwa.backward(loop.losses())
    assert dwa.weights[0] < dwa.weights[1]


def test_the_top_level_name() -> None:
    assert mtlcli.Balancer is Balancer


def test_a_relation_that_trains_a_task_to_do_worse_is_an_error() -> None:
    loop = Loop()
    balancer = balancer_of(loop, "relation", matrix=[[1.0, -0.9, 0.0], [-0.9, 1.0, 0.0], [0.0, 0.0, 1.0]])
    losses = loop.losses()
    with pytest.raises(MtlError, match="the weight of task 'b'"):
        balancer.backward({**losses, "a": losses["a"] * 100})


def call(balancer: Balancer, loop: Loop, change: dict[str, Any]) -> None:
    balancer.backward({**loop.losses(), **change})


@pytest.mark.parametrize("name", ["uniform", "upgrad"])
@pytest.mark.parametrize(("change", "message"), [
    ({"d": torch.ones(())}, r"unknown task 'd'.* The tasks are: a, b, c"),
    ({"b": torch.ones(2, requires_grad=True)}, r"the loss of task 'b' must have one element, got the shape \(2,\)"),
    ({"b": 1.0}, r"the loss of task 'b' must be a tensor, got float"),
    ({"b": torch.ones(())}, r"the loss of task 'b' does not require a gradient; pass None"),
    (dict.fromkeys(TASKS), r"no loss: every task \(a, b, c\) is without one"),
])  # fmt: skip
def test_losses_that_cannot_be_used_are_named(name: str, change: dict[str, Any], message: str) -> None:
    loop = Loop()
    with pytest.raises(ValueError, match=message):
        balancer_of(loop, name).backward({**loop.losses(), **change})
    assert all(gradient is None for gradient in loop.gradients().values())


@pytest.mark.parametrize("arguments", [{}, {"every": 3}])
def test_a_loss_that_reaches_no_shared_parameter_is_named(arguments: dict[str, Any]) -> None:
    loop = Loop()
    apart = loop.heads["b"](torch.ones(4)).sum()
    with pytest.raises(ValueError, match=r"the loss of task 'b' depends on no shared parameter"):
        balancer_of(loop, **arguments).backward({**loop.losses(), "b": apart})
    balancer = balancer_of(loop, "gradnorm", last_layer=loop.trunk.last.parameters())
    with pytest.raises(ValueError, match=r"the loss of task 'b' depends on no shared parameter"):
        balancer.backward({**loop.losses(), "b": apart})
    features = loop.features()
    with pytest.raises(ValueError, match=r"the loss of task 'b' does not depend on `features`"):
        balancer_of(loop).backward({**loop.losses(features), "b": apart}, features)


def test_features_must_cut_the_graph() -> None:
    loop = Loop()
    features = loop.features()
    with pytest.raises(ValueError, match=r"'a' depends on a shared parameter in another way"):
        balancer_of(loop).backward(loop.losses(features), features["b"])
    with pytest.raises(ValueError, match=r"`features` depend on no shared parameter"):
        balancer_of(loop).backward(loop.losses(features), torch.ones(3))
    with pytest.raises(ValueError, match=r"`features` must be a tensor"):
        balancer_of(loop).backward(loop.losses(features), [])
    with pytest.raises(ValueError, match=r"MoCo cannot balance tasks by their features"):
        balancer_of(loop, "moco").backward(loop.losses(features), features)


def test_a_frozen_trunk_stays_and_the_heads_learn() -> None:
    for by_features in (False, True):
        loop = Loop()
        balancer = balancer_of(loop)
        loop.trunk.requires_grad_(False)
        features = loop.features()
        balancer.backward(loop.losses(features), features if by_features else None)
        gradients = loop.gradients()
        assert all((gradient is None) == name.startswith("0.") for name, gradient in gradients.items())


def test_wrong_numbers_of_losses() -> None:
    loop = Loop()
    balancer = balancer_of(loop)
    losses = list(loop.losses().values())
    with pytest.raises(ValueError, match=r"expected 3 losses, of the tasks a, b, c, got 2"):
        balancer.backward(losses[:2])
    with pytest.raises(ValueError, match=r"expected 3 losses.* got 1"):
        balancer.backward(losses[0])
    with pytest.raises(ValueError, match=r"SDMGrad needs gradients of independent samples: pass a list of three"):
        balancer_of(loop, "sdmgrad").backward(losses)
    famo = balancer_of(loop, "famo")
    famo.backward(losses)
    with pytest.raises(ValueError, match=r"`after_step` needs the losses of the tasks \['a', 'b', 'c'\]"):
        famo.after_step({"a": losses[0].detach()})


def test_wrong_arguments() -> None:
    loop = Loop()
    with pytest.raises(ConfigError, match=r"unknown weighting 'pcgard'\. Did you mean 'pcgrad'\?"):
        balancer_of(loop, "pcgard")
    with pytest.raises(ConfigError, match=r"unknown option of weighting 'cagrad'"):
        balancer_of(loop, "cagrad", gamma=0.4)
    with pytest.raises(ConfigError, match=r"weighting\.reg_eps: expected .*, found -1"):
        balancer_of(loop, "upgrad", reg_eps=-1)
    with pytest.raises(ConfigError, match=r"weighting\.every: unknown option"):
        balancer_of(loop, "uniform", every=2)
    with pytest.raises(ValueError, match="chosen by"):
        balancer_of(loop, gradients="features")
    with pytest.raises(ValueError, match="pass its `parameters"):
        Balancer("pcgrad", shared=loop.trunk, tasks=TASKS)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="can be read only once"):
        Balancer("pcgrad", shared=[], tasks=TASKS)
    with pytest.raises(ValueError, match="`tasks` has 'a' more than once"):
        Balancer("pcgrad", shared=loop.trunk.parameters(), tasks=["a", "a"])
    with pytest.raises(ValueError, match="PCGrad cannot take the gradients of the last layer only"):
        balancer_of(loop, last_layer=loop.trunk.last.parameters())
    with pytest.raises(ValueError, match="is measured before a run"):
        balancer_of(loop, "relation", **{"from": "data"})
    with pytest.raises(ValueError, match="the state is that of the tasks"):
        balancer_of(loop).load_state_dict(balancer_of(Loop(["a"])).state_dict())


def test_the_examples_of_the_documentation_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One after the other, as a reader would enter them."""
    monkeypatch.chdir(tmp_path)
    document = (Path(__file__).parents[2] / "docs/balancer.md").read_text()
    examples = re.findall(r"^```python\n(.*?)^```$", document, re.MULTILINE | re.DOTALL)
    assert len(examples) == 6
    namespace: dict[str, Any] = {}
    for example in examples:
        exec(compile(example, "docs/balancer.md", "exec"), namespace)
    assert capsys.readouterr().out.startswith("tensor([")


def test_methods_that_need_more_are_documented() -> None:
    """Every weighting that learns parameters, looks back or counts epochs is in the table of docs/balancer.md."""
    document = (Path(__file__).parents[2] / "docs/balancer.md").read_text()
    for name in NAMES:
        weighting = balancer_of(Loop(), name, **OPTIONS.get(name, {})).weighting
        more = bool(list(weighting.parameters())) or getattr(weighting, "looks_back", False)
        more |= type(weighting).end_epoch is not Weighting.end_epoch or getattr(weighting, "independent", False)
        if more or getattr(weighting, "gradients", ("",))[0] == "last_layer":
            assert re.search(rf"^\| [^|]*`{name}`", document, re.MULTILINE), name


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("torchjd", "aligned_mtl", "imtl_g")])
def test_nothing_waits_for_the_device(name: str) -> None:
    """On `meta` no value can be read. TorchJD's aggregators and torch's eigendecomposition do wait for a GPU."""
    loop = Loop()
    loop.network.to("meta")
    loop.x, loop.y = loop.x.to("meta"), {task: y.to("meta") for task, y in loop.y.items()}
    balancer = balancer_of(loop, name, **OPTIONS.get(name, {}))
    optimizer = torch.optim.SGD([*loop.network.parameters(), *balancer.parameters()], lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        balancer.backward(losses_for(balancer, loop))
        optimizer.step()
        balancer.after_step(loop.losses())
    losses = loop.losses()
    if name in BY_FEATURES:
        features = loop.features()
        balancer.backward(loop.losses(features), features)
    elif name != "sdmgrad":
        balancer.backward({"a": losses["a"], "c": losses["c"]})


@pytest.mark.parametrize("aggregator", ["UPGrad", "MGDA", "Sum"])
def test_gradients_equal_those_of_torchjd_in_the_same_loop(aggregator: str) -> None:
    import torchjd.aggregation
    from torchjd.autojac import jac_to_grad, mtl_backward

    ours, theirs = Loop(["b", "c"]), Loop(["b", "c"])
    balancer_of(ours, "torchjd", aggregator=aggregator).backward(ours.losses())
    features = theirs.features()
    shared = [*theirs.trunk.first.parameters(), *theirs.trunk.last.parameters()]
    mtl_backward(list(theirs.losses(features).values()), features=features["b"])
    jac_to_grad(shared, getattr(torchjd.aggregation, aggregator)())
    for name, gradient in theirs.gradients().items():
        torch.testing.assert_close(ours.gradients()[name], gradient)


def test_a_weighting_with_a_state_keeps_it() -> None:
    layer = nn.Linear(3, 2, bias=False)
    weighting = weightings["moco"].create(["a", "b"])
    first = mtlcli.Balancer(weighting, shared=layer.parameters(), tasks=["a", "b"])
    first.backward([layer(torch.ones(1, 3))[0, 0] ** 2, layer(torch.ones(1, 3))[0, 1] ** 2])
    state = {name: value.clone() for name, value in weighting.state_dict().items() if isinstance(value, torch.Tensor)}
    assert any(value.any() for value in state.values())
    mtlcli.Balancer(weighting, shared=layer.parameters(), tasks=["a", "b"])
    assert all(torch.equal(weighting.state_dict()[name], value) for name, value in state.items())
