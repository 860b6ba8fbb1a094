"""The Gramian by blocks of parameters, the weights and the update, against the Jacobian of all parameters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mtlcli.errors import ConfigError
from mtlcli.models.trunks.base import Trunk
from mtlcli.registry import regularizers, trunks, weightings
from mtlcli.specs import Shape
from mtlcli.training.assembly.build import build
from mtlcli.training.assembly.optimizers import make_optimizer
from mtlcli.training.backward import gradient_backward
from mtlcli.training.backward.base import Parameters
from mtlcli.training.backward.blockwise import BlockwiseJacobians
from mtlcli.training.backward.gradient_backward import SplitForward
from mtlcli.training.run import Run
from mtlcli.training.step import Step
from mtlcli.weighting.base import GramianWeighting
from tests.training.assembly.test_regularization import Guess, Pull
from tests.training.backward.test_gradient_backward import CNN, DISJOINT, MIXED, MLP, SAME, WEIGHTS, Spy, batch, spies  # noqa: F401
from tests.training.experiments import digits, training

GRAMIAN = [
    name for name in weightings.names()
    if issubclass(weightings[name].target, GramianWeighting) and not weightings[name].target.independent
]  # fmt: skip
DROPOUT = {"name": "cnn", "widths": [4, 4], "dropout": 0.3}
DEEP = {"name": "mlp", "hidden": [16, 12, 12], "features": 8, "dropout": 0.1}
TORCHVISION = {"name": "torchvision", "model": "shufflenet_v2_x0_5"}


class Double(nn.Module):
    """Conversion to float64."""

    def forward(self, x: Tensor) -> Tensor:
        return x.double()


class Tied(Trunk):
    """A trunk with parameters that several stages use, and with stages that are computed again in backward passes."""

    def __init__(self, input_shape: Shape) -> None:
        super().__init__()
        self.embedding = nn.Linear(64, 8)
        self.table = nn.Linear(8, 8, bias=False)
        self.layers = nn.ModuleList(nn.Linear(8, 8) for _ in range(3))
        self.dropout = nn.Dropout(0.2)
        self.features = 64

    def stages(self) -> dict[str, Callable[[Tensor], Tensor]]:
        def embed(x: Tensor) -> Tensor:
            self.bias = self.table(torch.ones_like(x.flatten(1)[:, :8])).tanh()  # as T5's positions, for all stages
            return self.embedding(x.flatten(1)).tanh()

        def layer(number: int) -> Callable[[Tensor], Tensor]:
            def forward(x: Tensor, bias: Tensor) -> Tensor:
                return x + self.dropout(self.layers[number](x + bias).tanh())

            return lambda x: checkpoint(forward, x, self.bias, use_reentrant=False)

        return {
            "embed": embed,
            **{f"layer.{number}": layer(number) for number in range(3)},
            "same": lambda x: x,
            "out": lambda x: x @ self.embedding.weight,
        }


@pytest.fixture(autouse=True)
def tied() -> None:
    trunks.register("tied")(Tied)
    regularizers.register("pull")(Pull)
    regularizers.register("guess")(Guess)


def make(gradients: str, tasks: dict[str, Any], trunk: Any, name: str = "spy", **changes: Any) -> tuple[Run, Step]:
    """Return a run in float64."""
    aliases = {task["dataset"]: {"name": "digits", "val": 0.2} for task in tasks.values()}
    weighting = {"name": name, "gradients": gradients, **changes.pop("weighting", {})}
    run = build(digits(datasets=aliases, tasks=tasks, trunk=trunk, weighting=weighting,
                       optimizer={"name": "SGD", "lr": 0.1}, **changes))  # fmt: skip
    run.model.train()
    if "precision" not in changes.get("training", {}):
        run.model.double()
        run.regularization.double()
        for part in run.model.sharing.trunks().values():
            part.encoder = Double()
    return run, Step(run, make_optimizer(run))


def both(tasks: dict[str, Any], trunk: Any, steps: int = 2, missing: Any = (), **changes: Any) -> list[Run]:
    """Train two runs, with and without blocks, and check that losses, Gramians, weights and parameters agree."""
    runs = []
    for gradients in ("jacobian", "blockwise"):
        torch.manual_seed(0)
        run, step = make(gradients, tasks, trunk, **changes)
        assert step.backward.route.startswith("blockwise backward") == (gradients == "blockwise")
        results = []
        for number in range(steps):
            torch.manual_seed(number)
            result = step([batch(run, 0, 30, missing), batch(run, 30, 64, missing)])
            assert result is not None
            seen = run.weighting.seen[0] if isinstance(run.weighting, Spy) else torch.zeros(())
            conflict = result[0].conflict
            results.append([result[0].losses, result[0].weights, seen, conflict])
        runs.append((run, results))
    for ours, theirs in zip(runs[1][1], runs[0][1], strict=True):
        for value, wanted in zip(ours, theirs, strict=True):
            torch.testing.assert_close(value, wanted, rtol=1e-6, atol=1e-9, equal_nan=True)
    wanted = dict(runs[0][0].model.named_parameters())
    for name, parameter in runs[1][0].model.named_parameters():
        torch.testing.assert_close(parameter, wanted[name], rtol=1e-6, atol=1e-9)
        assert (parameter.grad is None) == (wanted[name].grad is None), name
    return [run for run, _ in runs]


@pytest.mark.parametrize("tasks", [SAME, DISJOINT, MIXED], ids=["same", "disjoint", "mixed"])
@pytest.mark.parametrize("trunk", [DEEP, DROPOUT, {"name": "tied"}], ids=lambda trunk: trunk["name"])
@pytest.mark.parametrize("missing", [(0, 3, 40), tuple(range(64))], ids=["some", "all"])
def test_equals_the_jacobian_of_all_parameters(tasks: Any, trunk: Any, missing: Any) -> None:
    both(tasks, trunk, missing=missing)


@pytest.mark.matrix
def test_equals_the_jacobian_of_all_parameters_for_torchvision() -> None:
    both(SAME, TORCHVISION, steps=1)


@pytest.mark.parametrize("name", GRAMIAN)
def test_every_gramian_method_gives_the_same_update(name: str) -> None:
    both(MIXED, MLP, steps=3, name=name, missing=(0, 3, 40))


@pytest.mark.parametrize(
    "changes",
    [
        {"sharing": "shared_private"},
        {"sharing": "cross_stitch"},
        {"sharing": {"name": "mmoe", "experts": 2}},
        {"sharing": "mtan", "trunk": CNN},
        {"weighting": {"every": 2}},
        {"regularizers": [{"name": "pull"}, {"name": "guess"}]},
        {"regularizers": [{"name": "pull"}, {"name": "guess"}], "sharing": "shared_private"},
        {"regularizers": [{"name": "pull"}, {"name": "guess", "as_task": True}], "tasks": SAME},
        {"tasks": {**MIXED, "ink": {**SAME["ink"], "after": "digit"}}},
    ],
    ids=str,
)
def test_parameters_of_single_tasks_and_regularizers(changes: dict[str, Any]) -> None:
    changes = dict(changes)
    both(changes.pop("tasks", MIXED), changes.pop("trunk", DEEP), steps=3, **changes)


VIT = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16, "model_type": "vit",
       "image_size": 8, "patch_size": 4, "num_channels": 1}  # fmt: skip


@pytest.mark.parametrize("checkpointing", [False, True])
def test_layers_of_transformers_are_blocks(checkpointing: bool) -> None:
    trunk = {"name": "transformers", "config": VIT, "gradient_checkpointing": checkpointing}
    run, _ = both(SAME, trunk, steps=1)
    assert list(run.model.sharing.trunk.stages()) == ["embeddings", "layer.0", "layer.1", "norm"]


@pytest.mark.parametrize("name", ["bert", "t5"])
def test_texts_of_mixed_lengths_pass_layer_by_layer(name: str) -> None:
    """T5's table of relative positions belongs to its first layer, and all others add it to their attention."""
    from tests.models.trunks.test_transformers import CONFIGS, make_inputs, make_trunk

    CONFIGS["t5"] = {"model_type": "t5", "d_model": 16, "num_layers": 3, "num_heads": 2, "d_ff": 32, "d_kv": 8,
                     "vocab_size": 60}  # fmt: skip
    trunk = make_trunk(name).double().train()
    inputs, parameters = {"texts": make_inputs(trunk)}, list(trunk.parameters())

    def represent(inputs: Any, tasks: Any, record: Any) -> dict[str, Tensor]:
        hidden = trunk(inputs["texts"])
        return {"mean": hidden.mean(1), "first": hidden[:, 0]}

    def losses(outputs: dict[str, Tensor]) -> list[Tensor]:
        return [outputs["mean"].sin().sum(), outputs["first"].square().sum()]

    torch.manual_seed(0)
    rows = [
        torch.cat([
            torch.zeros_like(p).flatten() if g is None else g.flatten()
            for p, g in zip(parameters, torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True),
                            strict=True)
        ])
        for loss in losses(represent(inputs, None, None))
    ]  # fmt: skip
    jacobian = torch.stack(rows)
    blocks = BlockwiseJacobians(Parameters(parameters), [trunk], 2, torch.device("cpu"))
    blocks.start([0, 1])
    torch.manual_seed(0)
    outputs, graph = blocks.cut(represent)(inputs, [], None), SplitForward([0, 1])
    leaves = {task: graph.append(x) for task, x in outputs.items()}
    graph.losses = losses(leaves)
    graph.tasks_backward(torch.ones(2, dtype=torch.float64))
    blocks.add(graph, 0)
    gramian = blocks.gramian()
    assert len(blocks.segments) == 2 + 1 + len(trunk.chain.layers)  # outputs, embeddings, layers
    assert id(trunk.network.get_input_embeddings().weight) in blocks.tables
    torch.testing.assert_close(gramian, jacobian @ jacobian.T, rtol=1e-9, atol=0)
    blocks.descend({0: WEIGHTS[0], 1: WEIGHTS[1]})
    update = torch.cat([torch.zeros_like(p).flatten() if p.grad is None else p.grad.flatten() for p in parameters])
    torch.testing.assert_close(update, WEIGHTS[:2] @ jacobian, rtol=1e-6, atol=1e-6)  # T5's norms are float32


@pytest.mark.parametrize("arrangement", ["shared", "shared_and_per_task", "mtl_lora", "hydra"])
@pytest.mark.parametrize("tasks", [SAME, MIXED], ids=["same", "mixed"])
def test_adapters_are_shared_or_belong_to_single_tasks(arrangement: str, tasks: dict[str, Any]) -> None:
    adapters = {"name": "lora", "rank": 2, "arrangement": arrangement}
    both(tasks, DEEP, steps=3, adapters=adapters, missing=(0, 3, 40))


def test_a_frozen_trunk_is_unchanged_and_the_heads_learn() -> None:
    runs = both(SAME, {**DEEP, "frozen": True})
    assert all(parameter.grad is None for parameter in runs[1].model.sharing.trunk.parameters())


def test_stages_of_frozen_parameters_are_left_out() -> None:
    run, step = make("blockwise", SAME, DEEP)
    shared = run.model.shared_parameters()
    for parameter in shared[:4]:
        parameter.requires_grad_(False)
    step = Step(run, make_optimizer(run))
    step([batch(run, 0, 64)])
    other, full = make("jacobian", SAME, DEEP)
    for parameter in other.model.shared_parameters()[:4]:
        parameter.requires_grad_(False)
    full = Step(other, make_optimizer(other))
    full([batch(other, 0, 64)])
    assert shared[0].grad is None
    torch.testing.assert_close(run.weighting.seen[0], other.weighting.seen[0], rtol=1e-9, atol=0)
    assert step.backward.jacobians.buffer_bytes < full.backward.jacobians.buffer_bytes


@pytest.mark.parametrize(("precision", "tolerance"), [("bf16", 0.05), ("fp16", 0.02)])
def test_low_precision_gives_the_products_without_the_loss_scale(precision: str, tolerance: float) -> None:
    runs = [
        make(gradients, SAME, DEEP, training=training(precision=precision)) for gradients in ("jacobian", "blockwise")
    ]
    seen = []
    for run, step in runs:
        torch.manual_seed(0)
        step([batch(run, 0, 64)])
        seen.append(run.weighting.seen[0])
    assert (seen[1] - seen[0]).norm() < tolerance * seen[0].norm()
    for ours, theirs in zip(runs[1][0].model.parameters(), runs[0][0].model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance * 0.1)


def test_an_fp16_overflow_skips_the_step_and_the_method_receives_zeros() -> None:
    run, step = make("blockwise", SAME, DEEP, training=training(precision="fp16"))
    step.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**60)
    step.backward.scaler = step.scaler  # type: ignore[attr-defined]
    before = [p.detach().clone() for p in run.model.parameters()]
    step([batch(run, 0, 64)])
    assert not run.weighting.seen[0].any()
    assert all(torch.equal(old, new) for old, new in zip(before, run.model.parameters(), strict=True))


def test_the_memory_is_that_of_the_largest_stage() -> None:
    run, step = make("blockwise", SAME, DEEP)
    step([batch(run, 0, 64)])
    largest = max(sum(p.numel() for p in group) for group in run.model.sharing.trunk.stage_parameters().values())
    jacobians: Any = step.backward.jacobians  # type: ignore[attr-defined]
    assert jacobians.buffer_bytes == 8 * 3 * largest
    assert not jacobians.segments and not jacobians.graphs  # the graphs are freed


def test_blocks_are_chosen_above_a_limit_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    size = sum(p.numel() for p in make("parameters", SAME, MLP)[0].model.shared_parameters())
    monkeypatch.setattr(gradient_backward, "MOST_JACOBIAN_BYTES", 4 * 3 * size)
    assert make("parameters", SAME, MLP)[1].backward.route == "repeated backward"
    monkeypatch.setattr(gradient_backward, "MOST_JACOBIAN_BYTES", 4 * 3 * size - 1)
    assert make("parameters", SAME, MLP)[1].backward.route == "blockwise backward"
    assert make("jacobian", SAME, MLP)[1].backward.route == "repeated backward"
    assert make("parameters", SAME, MLP, name="whole")[1].backward.route == "repeated backward"
    assert make("parameters", SAME, MLP, name="thrice")[1].backward.route.startswith("repeated backward of two samples")
    accumulated = training(accumulate=2)  # whose graphs the blocks would keep
    assert make("parameters", SAME, MLP, training=accumulated)[1].backward.route == "repeated backward"
    assert make("blockwise", SAME, MLP, training=accumulated)[1].backward.route == "blockwise backward"


@pytest.mark.parametrize("name", ["graddrop", "moco", "sdmgrad"])
def test_methods_that_need_more_than_the_gramian_have_no_blocks(name: str) -> None:
    with pytest.raises(ConfigError, match=r"weighting\.gradients: .*'blockwise'"):
        digits(weighting={"name": name, "gradients": "blockwise"})
