"""Gradient-level backward passes against plain autograd: the Gramian that a method receives, and the update."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from mtlcli.data.loader import Batch
from mtlcli.errors import ConfigError
from mtlcli.registry import weightings
from mtlcli.training.assembly.build import build
from mtlcli.training.assembly.optimizers import make_optimizer
from mtlcli.training.backward.engines import conflict
from mtlcli.training.failures import DivergedError
from mtlcli.training.run import Run
from mtlcli.training.step import Step
from mtlcli.weighting.base import GramianWeighting, JacobianWeighting
from tests.training.experiments import digits, training

MLP = {"name": "mlp", "hidden": [16], "features": 8}
CNN = {"name": "cnn", "widths": [4, 4], "dropout": 0.0}
SAME = {
    "digit": {"dataset": "a", "target": "digit", "kind": "classification"},
    "ink": {"dataset": "a", "target": "ink", "kind": "regression"},
    "parity": {"dataset": "a", "target": "parity", "kind": "binary"},
}
DISJOINT = {"digit": SAME["digit"], "ink": {**SAME["ink"], "dataset": "b"}}
MIXED = {**SAME, "other": {**SAME["digit"], "dataset": "b"}}
WEIGHTS = torch.tensor([0.5, 2.0, -1.0, 3.0], dtype=torch.float64)


class Spy(GramianWeighting):
    """Records its arguments, and returns WEIGHTS."""

    gradients = (*GramianWeighting.gradients, "last_layer")

    def weights(self, gramian: Tensor, losses: Tensor, present: Sequence[int]) -> Tensor:
        self.seen = (gramian.clone(), losses.clone(), list(present))
        return WEIGHTS[list(present)]


class Whole(JacobianWeighting):
    """Records the Jacobian, and combines its rows by WEIGHTS."""

    def allocate(self, size: int) -> None:
        self.register_buffer("seen", torch.zeros(len(self.tasks), size))

    def update(
        self, jacobian: Tensor, gramian: Tensor, losses: Tensor, present: Sequence[int]
    ) -> tuple[Tensor, Tensor]:
        self.seen = jacobian.clone()
        weights = WEIGHTS[list(present)]
        return weights.to(jacobian.dtype) @ jacobian, weights


class Thrice(Spy):
    """A `Spy` that requires independent samples."""

    independent = True


@pytest.fixture(autouse=True)
def spies() -> None:
    for name, spy in (("spy", Spy), ("whole", Whole), ("thrice", Thrice)):
        weightings.register(name)(spy)


def make(tasks: dict[str, Any], weighting: Any = "spy", trunk: Any = MLP, **changes: Any) -> tuple[Run, Step]:
    aliases = {task["dataset"]: {"name": "digits", "val": 0.2} for task in tasks.values()}
    experiment = digits(datasets=aliases, tasks=tasks, trunk=trunk, weighting=weighting,
                        optimizer={"name": "SGD", "lr": 0.1}, **changes)  # fmt: skip
    run = build(experiment)
    run.model.train()
    return run, Step(run, make_optimizer(run))


def batch(run: Run, start: int, stop: int, missing: Sequence[int] = ()) -> Batch:
    """Return rows of fixed random examples; those in `missing` have no digit."""
    generator = torch.Generator().manual_seed(0)
    inputs, targets, counts = {}, {}, {}
    for alias in run.specs:
        inputs[alias] = torch.randint(0, 17, (64, 1, 8, 8), generator=generator, dtype=torch.uint8)[start:stop]
    for task, (_, target) in run.sources.items():
        labels = {
            "digit": torch.randint(0, 10, (64,), generator=generator),
            "parity": torch.randint(0, 2, (64,), generator=generator).float(),
            "ink": 0.3056 + 0.0339 * torch.randn(64, generator=generator),
        }[target]
        if task == "digit":
            labels[list(missing)] = -100
            object.__setattr__(run.kinds[task].target, "missing", True)
        targets[task] = labels[start:stop]
        counts[task] = int((targets[task] != -100).sum()) if target == "digit" else stop - start
    return Batch(inputs, targets, counts)


def expected(run: Run, whole: Batch, parameters: list[Tensor]) -> Tensor:
    """Return the tasks' gradients by autograd through the whole model, one task at a time, shape [t, P]."""
    rows, names = [], [task for task in run.kinds if whole.counts[task]]
    for task, kind in run.kinds.items():
        if whole.counts[task]:
            loss = kind.loss(run.model(whole.inputs, names)[task], whole.targets[task])
            gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
            rows.append(torch.cat([torch.zeros_like(p).flatten() if g is None else g.flatten()
                                   for p, g in zip(parameters, gradients, strict=True)]))  # fmt: skip
    return torch.stack(rows)


def flat(parameters: list[Tensor]) -> Tensor:
    return torch.cat([p.grad.flatten() for p in parameters])  # type: ignore[union-attr]


ROUTES = [
    (SAME, MLP, "repeated backward"),
    (DISJOINT, MLP, "separate backward"),
    (MIXED, MLP, "separate repeated backward"),
    (SAME, CNN, "repeated backward"),
    (DISJOINT, CNN, "repeated backward"),  # batch norm couples the datasets
]


@pytest.mark.parametrize(("tasks", "trunk", "route"), ROUTES)
@pytest.mark.parametrize("missing", [(), (0, 3, 40), tuple(range(64))])
def test_gramian_and_update_match_plain_autograd(tasks: Any, trunk: Any, route: str, missing: Any) -> None:
    run, step = make(tasks, trunk=trunk)
    assert step.backward.route == route
    whole, shared = batch(run, 0, 64, missing), run.model.shared_parameters()
    rows = expected(run, whole, shared)  # type: ignore[arg-type]
    predictions = run.model(whole.inputs, [task for task in run.kinds if whole.counts[task]])
    heads = {
        task: torch.autograd.grad(run.kinds[task].loss(prediction, whole.targets[task]),
                                  list(run.model.heads[task].parameters()), retain_graph=True)
        for task, prediction in predictions.items()
    }  # fmt: skip
    result = step([whole])
    assert result is not None
    assert isinstance(run.weighting, Spy)
    gramian, losses, present = run.weighting.seen
    assert present == [i for i, task in enumerate(run.kinds) if whole.counts[task]]
    torch.testing.assert_close(gramian, (rows.double() @ rows.double().T), rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(losses.float(), result[0].losses)
    torch.testing.assert_close(flat(shared), WEIGHTS[present].float() @ rows, rtol=1e-4, atol=1e-6)  # type: ignore[arg-type]
    for task, head in run.model.heads.items():
        for i, parameter in enumerate(head.parameters()):
            if task in heads:  # its own gradient, unweighted
                torch.testing.assert_close(parameter.grad, heads[task][i], rtol=1e-4, atol=1e-6)
            else:
                assert parameter.grad is None
    for parameter in shared:
        assert parameter.grad is not None
        assert parameter.grad.stride() == parameter.stride()  # or torch's fused optimizers are wrong


@pytest.mark.parametrize("missing", [(), (0, 3, 40), tuple(range(20))])
@pytest.mark.parametrize(
    "weighting",
    ["spy", "whole", {"name": "spy", "gradients": "features"}, {"name": "spy", "gradients": "last_layer"},
     {"name": "whole", "gradients": "features"}, {"name": "spy", "every": 2}],
)  # fmt: skip
@pytest.mark.parametrize("tasks", [SAME, DISJOINT])
def test_accumulated_batches_match_one_large_batch(tasks: Any, weighting: Any, missing: Any) -> None:
    (whole_run, whole), (parts_run, parts) = make(tasks, weighting), make(tasks, weighting)
    for _ in range(3):
        single = whole([batch(whole_run, 0, 64, missing)])
        several = parts([batch(parts_run, a, b, missing) for a, b in ((0, 20), (20, 27), (27, 64))])
        assert single is not None and several is not None
        torch.testing.assert_close(several[0].losses, single[0].losses)
    for ours, theirs in zip(parts_run.model.parameters(), whole_run.model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_features_takes_the_gradients_of_the_representations() -> None:
    run, step = make(SAME, {"name": "spy", "gradients": "features"})
    assert step.backward.route == "features backward"
    whole, shared = batch(run, 0, 64), run.model.shared_parameters()
    features = run.model.representations(whole.inputs, list(run.kinds))["digit"]
    rows = torch.stack([
        torch.autograd.grad(
            kind.loss(run.model.heads[task](features), whole.targets[task]), features, retain_graph=True
        )[0]
        for task, kind in run.kinds.items()
    ]).flatten(1)  # fmt: skip
    step([whole])
    assert isinstance(run.weighting, Spy)
    torch.testing.assert_close(run.weighting.seen[0], (rows @ rows.T).double(), rtol=1e-4, atol=1e-9)
    rows = expected(*make_like(run, whole))
    torch.testing.assert_close(flat(shared), WEIGHTS[:3].float() @ rows, rtol=1e-4, atol=1e-6)  # type: ignore[arg-type]


def make_like(run: Run, whole: Batch) -> tuple[Run, Batch, list[Tensor]]:
    """Return a run in the state of `run` before its first step, the batch, and the shared parameters."""
    fresh = build(run.experiment)
    fresh.model.train()
    return fresh, whole, fresh.model.shared_parameters()  # type: ignore[return-value]


def test_last_layer_takes_the_gradients_of_the_last_shared_layer() -> None:
    run, step = make(SAME, {"name": "spy", "gradients": "last_layer"})
    assert step.backward.route == "last-layer backward"
    whole = batch(run, 0, 64)
    fresh, _, shared = make_like(run, whole)
    *_, weight, bias = shared  # the trunk's second linear layer
    rows = expected(fresh, whole, [weight, bias])
    step([whole])
    assert isinstance(run.weighting, Spy)
    torch.testing.assert_close(run.weighting.seen[0], (rows @ rows.T).double(), rtol=1e-4, atol=1e-9)
    update = WEIGHTS[:3].float() @ expected(fresh, whole, shared)
    torch.testing.assert_close(flat(run.model.shared_parameters()), update, rtol=1e-4, atol=1e-6)  # type: ignore[arg-type]


def thirds(run: Run, pieces: list[list[tuple[int, int]]], missing: Sequence[int] = ()) -> list[Tensor]:
    """Return the Jacobian [t, P] of each sample, given its pieces as (start, stop) of the rows."""
    jacobians = []
    for parts in pieces:
        rows = [expected(*make_like(run, batch(run, a, b, missing))) for a, b in parts]
        sizes = torch.tensor([b - a for a, b in parts]).float()
        jacobians.append((torch.stack(rows) * (sizes / sizes.sum())[:, None, None]).sum(0))
    return jacobians


@pytest.mark.parametrize("tasks", [SAME, DISJOINT])
def test_independent_gradients_come_from_thirds_of_the_batch(tasks: Any) -> None:
    run, step = make(tasks, "thrice")
    assert step.backward.route.endswith(" backward of two samples, joint backward of a third")
    first, second, third = thirds(run, [[(0, 21)], [(21, 42)], [(42, 64)]])
    result = step([batch(run, 0, 64)])
    assert result is not None and result[0].conflict is not None and isinstance(run.weighting, Spy)
    torch.testing.assert_close(run.weighting.seen[0], (first @ second.T).double(), rtol=1e-4, atol=1e-7)
    weights = WEIGHTS[: len(run.kinds)].float()
    torch.testing.assert_close(flat(run.model.shared_parameters()), weights @ third, rtol=1e-4, atol=1e-6)  # type: ignore[arg-type]
    mean = (first + second).double() / 2
    torch.testing.assert_close(result[0].conflict, conflict(mean @ mean.T), rtol=1e-4, atol=1e-6)


def test_independent_gradients_of_accumulated_batches() -> None:
    run, step = make(SAME, "thrice")
    pieces = [[(0, 10), (30, 38)], [(10, 20), (38, 46)], [(20, 30), (46, 54)]]
    first, second, third = thirds(run, pieces)
    step([batch(run, 0, 30), batch(run, 30, 54)])
    assert isinstance(run.weighting, Spy)
    torch.testing.assert_close(run.weighting.seen[0], (first @ second.T).double(), rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(flat(run.model.shared_parameters()), WEIGHTS[:3].float() @ third, rtol=1e-4, atol=1e-6)  # type: ignore[arg-type]


def test_samples_of_a_batch_with_missing_labels() -> None:
    """Each sample's gradient is that of the mean over its own labels; losses and heads are those of the batch."""
    missing = tuple(range(30, 64))
    (run, step), (plain_run, plain) = make(SAME, "thrice"), make(SAME)
    whole = batch(run, 0, 64, missing)
    first = expected(*make_like(run, batch(run, 0, 21, missing)))
    second = expected(*make_like(run, batch(run, 21, 42, missing)))
    third = expected(*make_like(run, batch(run, 42, 64, missing)))  # without the digit, of which it has no label
    result, wanted = step([whole]), plain([whole])
    assert result is not None and wanted is not None
    torch.testing.assert_close(result[0].losses, wanted[0].losses)
    for ours, theirs in zip(run.model.heads.parameters(), plain_run.model.heads.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-6)
    assert isinstance(run.weighting, Spy)
    torch.testing.assert_close(run.weighting.seen[0], (first @ second.T).double(), rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(flat(run.model.shared_parameters()), WEIGHTS[1:3].float() @ third, rtol=1e-4, atol=1e-6)  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [2, 4, 5])
def test_a_batch_too_small_to_divide_is_every_sample(size: int) -> None:
    run, step = make(SAME, "thrice", trunk=CNN)
    assert step([batch(run, 0, size)]) is not None
    assert isinstance(run.weighting, Spy)
    gramian = run.weighting.seen[0]
    torch.testing.assert_close(gramian, gramian.T, rtol=1e-5, atol=1e-5)  # each part is the whole batch


def test_every_task_is_solved_for_with_datasets_in_turn() -> None:
    """With `round_robin`, an even `every` must not always solve for the same dataset."""
    run, step = make(DISJOINT, {"name": "spy", "every": 2})
    whole, seen = batch(run, 0, 64), []
    for number in range(8):
        alias, task = ("a", "digit") if number % 2 == 0 else ("b", "ink")
        result = step([Batch({alias: whole.inputs[alias]}, {task: whole.targets[task]}, {task: 64})])
        assert result is not None
        seen.append((result[0].conflict is not None, float(result[0].weights)))
    assert [solved for solved, _ in seen] == [True, True, False, False] * 2
    assert [weight for _, weight in seen] == [float(WEIGHTS[0]), float(WEIGHTS[1])] * 4


def test_weights_are_reused_between_solutions() -> None:
    run, step = make(SAME, {"name": "spy", "every": 3})
    assert step.backward.route == "repeated backward every 3 steps, joint backward between"
    whole, shared = batch(run, 0, 64), run.model.shared_parameters()
    for number in range(7):
        rows = expected(run, whole, shared)  # type: ignore[arg-type]
        result = step([whole])
        assert result is not None
        torch.testing.assert_close(flat(shared), WEIGHTS[:3].float() @ rows, rtol=1e-4, atol=1e-6)  # type: ignore[arg-type]
        torch.testing.assert_close(result[0].weights, WEIGHTS[:3])
        assert (result[0].conflict is None) == (number % 3 != 0)


@pytest.mark.parametrize(("precision", "tolerance"), [("bf16", 0.05), ("fp16", 0.02)])
@pytest.mark.parametrize("gradients", ["parameters", "features", "last_layer"])
def test_low_precision_is_near_full_precision(precision: str, tolerance: float, gradients: str) -> None:
    """fp16 scales the loss by 65536, which would be 2^32 in the Gramian: the method receives unscaled gradients."""
    weighting = {"name": "spy", "gradients": gradients}
    exact_run, exact = make(SAME, weighting)
    run, step = make(SAME, weighting, training=training(precision=precision))
    before = [p.detach().clone() for p in run.model.parameters()]
    whole = batch(run, 0, 64)
    exact([whole])
    step([whole])
    assert isinstance(run.weighting, Spy) and isinstance(exact_run.weighting, Spy)
    seen, wanted = run.weighting.seen[0], exact_run.weighting.seen[0]
    assert (seen - wanted).norm() < tolerance * wanted.norm()
    moved = torch.cat([(p - b).flatten() for p, b in zip(run.model.parameters(), before, strict=True)])
    wanted = torch.cat([(p - b).flatten() for p, b in zip(exact_run.model.parameters(), before, strict=True)])
    assert (moved - wanted).norm() < tolerance * wanted.norm()


def test_an_fp16_overflow_skips_the_step_and_the_method_receives_zeros() -> None:
    run, step = make(SAME, training=training(precision="fp16"))
    step.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**60)
    step.backward.scaler = step.scaler  # type: ignore[attr-defined]
    before = [p.detach().clone() for p in run.model.parameters()]
    step([batch(run, 0, 64)])
    assert isinstance(run.weighting, Spy)
    assert not run.weighting.seen[0].any()
    for old, new in zip(before, run.model.parameters(), strict=True):
        assert torch.equal(old, new)
    assert step.scaler.get_scale() < 2.0**60


@pytest.mark.parametrize("weighting", ["moco", "db_mtl", "gradnorm", "gradvac", "excess_mtl", "famo"])
def test_a_step_skipped_by_an_overflow_leaves_the_state_unchanged(weighting: str) -> None:
    run, step = make(SAME, weighting, training=training(precision="fp16"))
    whole = batch(run, 0, 64)
    step([whole])
    before = {name: buffer.clone() for name, buffer in run.weighting.named_buffers()}
    assert before
    step.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**60)
    step.backward.scaler = step.scaler  # type: ignore[attr-defined]
    step([whole])
    for name, buffer in run.weighting.named_buffers():
        torch.testing.assert_close(buffer, before[name], rtol=0, atol=0, equal_nan=True)


def test_an_overflow_leaves_the_reused_weights_unchanged() -> None:
    run, step = make(SAME, {"name": "imtl_g", "every": 5}, training=training(precision="fp16"))
    step.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**60)
    step.backward.scaler = step.scaler  # type: ignore[attr-defined]
    step([batch(run, 0, 64)])
    assert torch.equal(step.backward.state_dict()["weights"], torch.ones(3, dtype=torch.float64))


@pytest.mark.parametrize("weighting", ["aligned_mtl", "imtl_g", "conflict_free", "upgrad", "mgda",
                                       {"name": "torchjd", "aggregator": "UPGrad"}], ids=str)  # fmt: skip
def test_an_infinite_loss_is_reported_as_diverged_not_by_the_solver(weighting: Any) -> None:
    run, step = make(SAME, weighting)
    whole = batch(run, 0, 64)
    whole.targets["ink"][0] = float("inf")
    before = {name: value.clone() for name, value in run.model.state_dict().items()}
    with pytest.raises(DivergedError, match=r"the loss of task 'ink' is (inf|nan) at step 7"):
        step([whole], number=7)
    assert all(torch.equal(value, before[name]) for name, value in run.model.state_dict().items())


def test_gradients_are_clipped_after_they_are_combined() -> None:
    run, step = make(SAME, training=training(clip_norm=1e-3))
    step([batch(run, 0, 64)])
    assert isinstance(run.weighting, Spy)
    assert run.weighting.seen[0].diagonal().min() > 1e-4  # not clipped
    total = torch.cat([p.grad.flatten() for p in run.model.parameters() if p.grad is not None])
    assert float(total.norm()) == pytest.approx(1e-3, rel=1e-3)


@pytest.mark.parametrize("gradients", ["parameters", "features", "last_layer"])
def test_a_frozen_trunk_is_unchanged_and_the_heads_learn(gradients: str) -> None:
    run, step = make(SAME, {"name": "spy", "gradients": gradients}, {**MLP, "frozen": True})
    before = {name: p.detach().clone() for name, p in run.model.named_parameters()}
    step([batch(run, 0, 64)])
    assert isinstance(run.weighting, Spy)
    assert torch.equal(run.weighting.seen[0], torch.zeros(3, 3, dtype=torch.float64))
    for name, parameter in run.model.named_parameters():
        assert torch.equal(before[name], parameter) == ("trunk" in name), name


def test_frozen_parameters_are_left_out_of_the_jacobian() -> None:
    experiment = digits(tasks={**SAME}, datasets={"a": {"name": "digits", "val": 0.2}}, trunk=MLP, weighting="spy")
    run = build(experiment)
    shared = run.model.shared_parameters()
    for parameter in shared[:2]:
        parameter.requires_grad_(False)
    step, whole = Step(run, make_optimizer(run)), batch(run, 0, 64)
    rows = expected(run, whole, shared[2:])  # type: ignore[arg-type]
    step([whole])
    assert isinstance(run.weighting, Spy)
    torch.testing.assert_close(run.weighting.seen[0], (rows @ rows.T).double(), rtol=1e-4, atol=1e-7)
    assert shared[0].grad is None


def test_a_parameter_that_no_task_reaches_keeps_no_gradient() -> None:
    """A gradient of zeros would let weight decay and momentum move it."""
    run = build(digits(tasks={**SAME}, datasets={"a": {"name": "digits", "val": 0.2}}, trunk=MLP, weighting="spy"))
    run.model.sharing.trunk.unused = torch.nn.Parameter(torch.ones(3))
    step, whole = Step(run, make_optimizer(run)), batch(run, 0, 64)
    step([whole])
    assert run.model.sharing.trunk.unused.grad is None
    rows = expected(run, whole, run.model.shared_parameters())  # type: ignore[arg-type]
    assert rows.shape[1] == sum(p.numel() for p in run.model.shared_parameters())


@pytest.mark.parametrize(
    ("tasks", "weighting"),
    [(SAME, "spy"), (DISJOINT, "spy"), (SAME, {"name": "spy", "gradients": "features"}),
     (SAME, {"name": "spy", "gradients": "last_layer"}), (SAME, {"name": "spy", "every": 2})],
)  # fmt: skip
def test_a_compiled_trunk_gives_the_same_step(tasks: Any, weighting: Any) -> None:
    """With batches of several sizes, for which torch compiles again. A compiled backward pass frees its graph."""
    (plain_run, plain), (run, step) = make(tasks, weighting), make(tasks, weighting, training=training(compile=True))
    for stop in (64, 64, 37, 64, 20):
        plain([batch(run, 0, stop)])
        step([batch(run, 0, stop)])
    assert isinstance(run.weighting, Spy) and isinstance(plain_run.weighting, Spy)
    torch.testing.assert_close(run.weighting.seen[0], plain_run.weighting.seen[0], rtol=1e-4, atol=1e-7)
    for ours, theirs in zip(run.model.parameters(), plain_run.model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_conflict_is_the_mean_cosine_and_the_fraction_of_opposed_pairs() -> None:
    run, step = make(SAME)
    whole = batch(run, 0, 64)
    rows = torch.nn.functional.normalize(expected(run, whole, run.model.shared_parameters()))  # type: ignore[arg-type]
    result = step([whole])
    assert result is not None and result[0].conflict is not None
    cosines = torch.stack([rows[i] @ rows[j] for i, j in ((0, 1), (0, 2), (1, 2))])
    wanted = torch.stack([cosines.mean(), (cosines < 0).float().mean()])
    torch.testing.assert_close(result[0].conflict.float(), wanted, rtol=1e-4, atol=1e-6)


def test_every_and_gradients_are_options_of_gradient_methods_only() -> None:
    with pytest.raises(ConfigError, match=r"weighting\.every: unknown option"):
        digits(weighting={"name": "uniform", "every": 2})
    with pytest.raises(ConfigError, match=r"weighting\.gradients: .*'featurs'"):
        digits(weighting={"name": "spy", "gradients": "featurs"})
    with pytest.raises(ConfigError, match=r"weighting\.every"):
        digits(weighting={"name": "spy", "every": 0})
