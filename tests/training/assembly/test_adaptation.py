"""Runs with adapters: gradients, weightings, regularizers, initial weights and errors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from mtlcli.config import Experiment
from mtlcli.errors import ConfigError
from mtlcli.models.adapters.attachment import attach
from mtlcli.models.adapters.base import adapter_keys, adapters_in
from mtlcli.models.adapters.lora import LoRA
from mtlcli.models.adapters.merging import merge
from mtlcli.models.trunks.base import Trunk
from mtlcli.registry import weightings
from mtlcli.training.assembly.build import build, rebuild
from mtlcli.training.assembly.optimizers import make_optimizer
from mtlcli.training.checkpoint.file import load_checkpoint, save_checkpoint
from mtlcli.training.run import Run
from mtlcli.training.step import Step
from tests.models.sharing.test_every_sharing import NAMES, batches, check_owners
from tests.models.sharing.test_every_sharing import make as make_sharing
from tests.training.backward.test_gradient_backward import MIXED, WEIGHTS, Spy, batch
from tests.training.experiments import digits

MLP = {"name": "mlp", "hidden": [6, 6], "features": 4}
FORMS: dict[str, dict[str, Any]] = {
    name: {"name": "lora", "rank": 2, "arrangement": name, "targets": ["fc2", "fc3"]}
    for name in ("shared", "per_task", "shared_and_per_task", "mtl_lora", "hydra")
} | {"houlsby": {"name": "houlsby", "bottleneck": 2, "arrangement": "per_task", "targets": ["fc2", "fc3"]}}
OVER_FORMS = pytest.mark.parametrize("form", FORMS)


def experiment(form: str, weighting: Any = "uniform", **changes: Any) -> Experiment:
    aliases = {task["dataset"]: {"name": "digits", "val": 0.2} for task in MIXED.values()}
    plain = {"datasets": aliases, "tasks": MIXED, "trunk": MLP, "adapters": FORMS[form], "weighting": weighting,
             "optimizer": {"name": "SGD", "lr": 0.1}}  # fmt: skip
    return digits(**{**plain, **changes})


def make(form: str, weighting: Any = "uniform", **changes: Any) -> tuple[Run, Step]:
    """Return a run with random adapters."""
    run = build(experiment(form, weighting, **changes))
    for adapter in adapters_in(run.model).values():
        for parameter in adapter.parameters():
            torch.nn.init.normal_(parameter, std=0.5)
    return run, Step(run, make_optimizer(run))


@pytest.mark.parametrize("weighting", ["spy", {"name": "spy", "gradients": "last_layer"}], ids=str)
@OVER_FORMS
def test_step_weights_the_gradients_of_shared_parameters_only(form: str, weighting: Any) -> None:
    """The gradients are those of autograd: Σ w_t ∇L_t for shared parameters, ∇L_t for a task's own."""
    weightings.register("spy")(Spy)
    run, step = make(form, weighting)
    whole = batch(run, 0, 32)
    predictions = run.model(whole.inputs)
    losses = torch.stack([kind.loss(predictions[task], whole.targets[task]) for task, kind in run.kinds.items()])
    shared = [p for p in run.model.shared_parameters() if p.requires_grad]
    own = [p for p in run.model.parameters() if p.requires_grad and all(p is not q for q in shared)]
    expected = list(torch.autograd.grad(losses.sum(), own, retain_graph=True))
    expected += torch.autograd.grad(WEIGHTS.float() @ losses, shared) if shared else []
    step([whole])
    for parameter, gradient in zip([*own, *shared], expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-3, atol=1e-6)
    assert all(p.grad is None for p in run.model.parameters() if not p.requires_grad)


@pytest.mark.parametrize("weighting", ["uncertainty", "famo", "mgda", "gradnorm", "graddrop", "conflict_free"])
@pytest.mark.parametrize("form", ["per_task", "mtl_lora"])
def test_a_step_with_each_kind_of_weighting(form: str, weighting: str) -> None:
    run, step = make(form, weighting)
    before = {key: p.detach().clone() for key, p in run.model.named_parameters()}
    result = step([batch(run, 0, 32)])
    assert result is not None and result[0].losses.isfinite().all()
    for key, parameter in run.model.named_parameters():
        assert parameter.isfinite().all()
        assert torch.equal(parameter, before[key]) != parameter.requires_grad, key


@OVER_FORMS
def test_accumulated_batches_are_the_large_batch(form: str) -> None:
    whole, pieces = (make(form, "mgda") for _ in range(2))
    pieces[0].model.load_state_dict(whole[0].model.state_dict())
    whole[1]([batch(whole[0], 0, 32)])
    pieces[1]([batch(pieces[0], 0, 16), batch(pieces[0], 16, 32)])
    for first, second in zip(whole[0].model.parameters(), pieces[0].model.parameters(), strict=True):
        torch.testing.assert_close(first, second, rtol=1e-4, atol=1e-6)


def test_gradients_of_features_need_common_features() -> None:
    with pytest.raises(ConfigError, match="no two tasks the same features"):
        make("per_task", {"name": "mgda", "gradients": "features"})
    run, step = make("hydra", {"name": "mgda", "gradients": "features"})
    assert step([batch(run, 0, 32)]) is not None


@pytest.mark.parametrize("name", NAMES)
def test_shared_adapters_work_with_every_sharing(name: str) -> None:
    sharing = make_sharing(name)
    for trunk in (module for module in sharing.modules() if isinstance(module, Trunk)):
        attach(LoRA(["digit", "parity", "garment"], rank=2), trunk)
    for adapter in adapters_in(sharing).values():
        torch.nn.init.normal_(adapter.shared.b)  # type: ignore[union-attr]
    check_owners(sharing, batches())


def test_initial_weights_of_everything_else_are_those_without_adapters() -> None:
    with_adapters, without = build(experiment("mtl_lora")), build(experiment("shared", adapters=None))
    state, added = with_adapters.model.state_dict(), adapter_keys(with_adapters.model)
    assert all(torch.equal(state[key], value) for key, value in without.model.state_dict().items())
    assert state.keys() - without.model.state_dict().keys() == added


def test_adapters_of_a_run_are_not_trained_by_another_task_after_rebuilding(tmp_path: Path) -> None:
    """A checkpoint restores a model with the same predictions and the same owners of parameters."""
    run, _ = make("shared_and_per_task")
    specs = {alias: spec.to_dict() for alias, spec in run.specs.items()}
    payload = {"config": run.experiment.resolved(), "specs": specs, "model": dict(run.model.state_dict())}
    again = rebuild(run.experiment, payload, data=False, prepare=False)
    inputs = batch(run, 0, 8).inputs
    for task, prediction in run.model.eval()(inputs).items():
        assert torch.equal(again.model.eval()(inputs)[task], prediction)
    trained = [name for name, p in run.model.named_parameters() if p.requires_grad]
    assert [name for name, p in again.model.named_parameters() if p.requires_grad] == trained


@pytest.mark.parametrize("form", ["shared", "per_task", "shared_and_per_task", "mtl_lora"])
@torch.no_grad()
def test_merged_model_has_the_predictions_of_the_adapted_one(form: str) -> None:
    run, _ = make(form)
    inputs = batch(run, 0, 8).inputs
    expected = run.model.eval()(inputs)["ink"]
    merge(run.model, "ink")
    assert not adapters_in(run.model)
    torch.testing.assert_close(run.model(inputs)["ink"], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("form", ["hydra", "houlsby"])
def test_adapters_that_depend_on_the_input_otherwise_cannot_be_merged(form: str) -> None:
    run, _ = make(form)
    with pytest.raises(ValueError, match=r"sharing\.trunk\.fc2, …\) can't be written as changes of weights"):
        merge(run.model, "ink")


def test_trunk_starts_from_a_run_with_shared_adapters_or_none(tmp_path: Path) -> None:
    def save(form: str, **changes: Any) -> Run:
        run, _ = make(form, **changes)
        specs = {alias: spec.to_dict() for alias, spec in run.specs.items()}
        config, model = run.experiment.resolved(), dict(run.model.state_dict())
        save_checkpoint(tmp_path / "first.pt", {"config": config, "specs": specs, "model": model})
        return run

    trunk = {**MLP, "init_from": str(tmp_path / "first.pt")}
    x = torch.rand(4, 1, 8, 8)
    for form, adapters in (("shared", None), ("shared", FORMS["mtl_lora"])):
        first = save(form)
        second = build(experiment(form, trunk=trunk, adapters=adapters))
        expected = first.model.sharing.trunk.eval()(x)  # type: ignore[union-attr]
        torch.testing.assert_close(second.model.sharing.trunk.eval()(x), expected)  # type: ignore[union-attr]
    save("mtl_lora")
    with pytest.raises(ConfigError, match="holds adapters that don't amount to one trunk for all tasks"):
        build(experiment("shared", trunk=trunk))
    save("shared")
    payload = load_checkpoint(tmp_path / "first.pt")
    payload["config"]["adapters"] = {"name": "lora", "rank": 0}
    save_checkpoint(tmp_path / "first.pt", payload)
    with pytest.raises(ConfigError, match="the adapters in its experiment are invalid"):
        build(experiment("shared", trunk=trunk))


def test_regularizers_of_weights_apply_to_the_adapters() -> None:
    run, _ = make("shared", regularizers=[{"name": "l2", "on": "shared"}])
    ((_, l2),) = run.regularization.regularizers()
    adapters = [p for key, p in run.model.named_parameters() if "adapter" in key]
    assert float(l2.term([]).detach()) == pytest.approx(sum(float(p.detach().square().sum()) for p in adapters))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"adapters": {"name": "lora", "targets": ["fc9"]}}, "adapters.targets: 'fc9' matches no Linear or Conv2d"),
        ({"adapters": {"name": "lora", "arrangment": "shared"}}, "adapters.arrangment: unknown option of adapter"),
        ({"adapters": "lore"}, "unknown adapter 'lore'. Did you mean 'lora'"),
        ({"adapters": {"name": "lora", "temperature": 1.0}}, "adapters.temperature: the arrangement shared has none"),
        ({"trunk": {**MLP, "frozen": True}}, "adapters keep the trunk's own weights fixed; remove `trunk.frozen`"),
        ({"sharing": "mmoe", "adapters": FORMS["mtl_lora"]}, "`arrangement: mtl_lora` passes each task through"),
        ({"regularizers": ["orthogonality"]}, "the layers of the trunk are frozen, since it has adapters"),
        ({"regularizers": ["multi_nuclear_norm"]}, "the layers of the trunk are frozen, since it has adapters"),
        ({"regularizers": [{"name": "reconstruction", "layer": "fc2"}], "adapters": FORMS["per_task"]},
         r"needs one pass of all examples.*arrangement: per_task"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_one_clear_error(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(experiment("shared", **changes))
