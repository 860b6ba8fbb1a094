"""Options of the optimizer for parts of the model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch

from mtlcli.config import experiment_from_dict, load_experiment
from mtlcli.config.schema import json_schema
from mtlcli.errors import ConfigError
from mtlcli.registry import optimizers
from mtlcli.training.assembly.build import build
from mtlcli.training.assembly.optimizers import make_optimizer
from mtlcli.training.assembly.schedules import make_schedule
from mtlcli.training.checkpoint.file import load_checkpoint
from mtlcli.training.run import Run
from mtlcli.training.step import Step
from mtlcli.training.trainer import Trainer
from tests.config.experiments import GOOD, load, write_yaml
from tests.training.experiments import digits, training
from tests.training.test_step import batch

GROUPS: dict[str, Any] = {"trunk": {"lr": 1e-4}, "heads": {"lr": 1e-2, "weight_decay": 0.0}}


def adamw(**groups: Any) -> dict[str, Any]:
    return {"name": "AdamW", "lr": 1e-3, "groups": groups}


def describe_groups(run: Run, optimizer: torch.optim.Optimizer) -> list[tuple[set[str], float]]:
    """Return the parts of the model in each parameter group, and its learning rate."""
    of = {id(p): name for name, p in run.model.named_parameters()}
    own = {id(p): "weighting" for p in run.weighting.parameters()}

    def get_part(parameter: torch.nn.Parameter) -> str:
        name = (of | own)[id(parameter)]
        return name.split(".")[2] if "heads" in name else "trunk" if "trunk" in name else name

    return [({get_part(p) for p in group["params"]}, group["lr"]) for group in optimizer.param_groups]


@pytest.mark.parametrize(
    ("groups", "expected"),
    [
        ({}, [({"trunk", "digit", "ink"}, 1e-3), ({"weighting"}, 1e-3)]),
        ({"trunk": {"lr": 1.0}}, [({"trunk"}, 1.0), ({"digit", "ink"}, 1e-3), ({"weighting"}, 1e-3)]),
        ({"heads": {"lr": 1.0}}, [({"trunk"}, 1e-3), ({"digit", "ink"}, 1.0), ({"weighting"}, 1e-3)]),
        ({"ink": {"lr": 1.0}}, [({"trunk", "digit"}, 1e-3), ({"ink"}, 1.0), ({"weighting"}, 1e-3)]),
        ({"digit": {"lr": 1.0}}, [({"trunk", "ink"}, 1e-3), ({"digit"}, 1.0), ({"weighting"}, 1e-3)]),
        ({"heads": {"lr": 2.0}, "trunk": {"lr": 1.0}, "ink": {"lr": 3.0}},
         [({"trunk"}, 1.0), ({"digit"}, 2.0), ({"ink"}, 3.0), ({"weighting"}, 1e-3)]),
        ({"heads": {"lr": 1.0}, "trunk": {"lr": 1.0}}, [({"trunk", "digit", "ink"}, 1.0), ({"weighting"}, 1e-3)]),
    ],
)  # fmt: skip
def test_every_parameter_is_in_the_group_of_its_part(groups: dict[str, Any], expected: Any) -> None:
    run = build(digits(optimizer=adamw(**groups), weighting="uncertainty"))
    optimizer = make_optimizer(run)
    assert describe_groups(run, optimizer) == expected
    grouped = [id(p) for group in optimizer.param_groups for p in group["params"]]
    assert sorted(grouped) == sorted(id(p) for p in [*run.model.parameters(), *run.weighting.parameters()])
    assert all(group["fused"] for group in optimizer.param_groups)


def test_group_of_a_task_extends_that_of_the_heads() -> None:
    groups = adamw(heads={"lr": 0.5, "weight_decay": 0.25}, ink={"lr": 2.0, "betas": [0.5, 0.75]})
    _, digit, ink = make_optimizer(build(digits(optimizer=groups))).param_groups
    assert (digit["lr"], digit["weight_decay"], digit["betas"]) == (0.5, 0.25, (0.9, 0.999))
    assert (ink["lr"], ink["weight_decay"], ink["betas"]) == (2.0, 0.25, (0.5, 0.75))


def test_private_trunks_are_grouped_with_their_heads() -> None:
    run = build(digits(optimizer=adamw(trunk={"lr": 1.0}, ink={"lr": 3.0}), sharing="shared_private"))
    optimizer = make_optimizer(run)
    shared, *_, ink = optimizer.param_groups
    assert [id(p) for p in shared["params"]] == [id(p) for p in run.model.shared_parameters()]
    assert {id(p) for p in ink["params"]} == {
        id(p) for module in run.model.sharing.own_modules("ink") for p in module.parameters()
    }


def test_steps_use_the_learning_rate_of_each_part() -> None:
    """A step of SGD is lr × gradient, so with the same gradient the steps are proportional to the learning rates."""
    moves = []
    for groups in ({}, {"trunk": {"lr": 0.01}, "heads": {"lr": 1.0}}):
        run = build(digits(optimizer={"name": "SGD", "lr": 0.1, "groups": groups},
                           trunk={"name": "mlp", "hidden": [16], "features": 8}))  # fmt: skip
        before = {name: p.detach().clone() for name, p in run.model.named_parameters()}
        Step(run, make_optimizer(run))([batch(0, 64)])
        moves.append({name: p.detach() - before[name] for name, p in run.model.named_parameters()})
    for name, move in moves[0].items():
        factor = 0.1 if "trunk" in name else 10
        torch.testing.assert_close(moves[1][name], factor * move, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("scheduler", "steps_to_peak"),
    [
        ({"name": "OneCycleLR", "max_lr": 0.02, "total_steps": 10, "pct_start": 0.2}, 1),
        ({"name": "CyclicLR", "base_lr": 1e-3, "max_lr": 0.02, "step_size_up": 2, "cycle_momentum": False}, 2),
        ({"name": "ExponentialLR", "gamma": 20.0, "interval": "step"}, 1),
    ],
)
def test_schedule_keeps_the_ratios_of_the_groups(scheduler: dict[str, Any], steps_to_peak: int) -> None:
    run = build(digits(optimizer=adamw(**GROUPS), scheduler=scheduler))
    optimizer = make_optimizer(run)
    schedule = make_schedule(run, optimizer, 5, "max")
    for _ in range(steps_to_peak):
        optimizer.step()
        schedule.after_step()
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.002, 0.2])


@pytest.mark.parametrize(
    ("optimizer", "message"),
    [
        (
            adamw(trnk={"lr": 1e-4}),
            "optimizer.groups.trnk: unknown part of the model 'trnk'. Did you mean 'trunk'",
        ),
        (adamw(trunk={"lr": -1.0}), r"optimizer\.groups\.trunk\.lr: Invalid learning rate: -1"),
        (adamw(ink={"betas": [0.9, 1.5]}), r"optimizer\.groups\.ink\.betas: Invalid beta parameter at index 1: 1\.5"),
    ],
)
def test_invalid_groups_are_refused(optimizer: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(digits(optimizer=optimizer))


def test_group_without_trainable_parameters_is_refused() -> None:
    frozen = {"name": "mlp", "hidden": [16], "features": 8, "frozen": True}
    with pytest.raises(ConfigError, match=r"groups\.trunk: the trunk has no trainable parameters: it is frozen"):
        build(digits(optimizer=adamw(**GROUPS), trunk=frozen))
    run = build(digits(optimizer=adamw(heads={"lr": 1.0}), trunk=frozen))
    assert describe_groups(run, make_optimizer(run)) == [({"digit", "ink"}, 1.0)]


def test_task_named_as_a_part_is_ambiguous_in_groups_only() -> None:
    tasks = {"trunk": {"dataset": "digits", "target": "digit", "kind": "classification"}}
    with pytest.raises(ConfigError, match=r"groups\.trunk: 'trunk' is ambiguous, because a task has this name"):
        build(digits(tasks=tasks, optimizer=adamw(trunk={"lr": 1.0})))
    _, heads = make_optimizer(build(digits(tasks=tasks, optimizer=adamw(heads={"lr": 1.0})))).param_groups
    assert heads["lr"] == 1.0


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        (
            "{trunk: {lr: fast}}",
            "good.yaml:14:57: optimizer.groups.trunk.lr: expected a number, found the string 'fast'",
        ),
        ("{trunk: {lrr: 1}}", "good.yaml:14:53: optimizer.groups.trunk.lrr: unknown option of optimizer 'AdamW'. Did"),
        ("{trunk: 1}", "optimizer.groups.trunk: expected a mapping, found 1"),
        ("{trunk: {fused: true}}", "optimizer.groups.trunk.fused: unknown option"),
        ("7", "optimizer.groups: expected a mapping of names to mappings, found 7"),
    ],
)
def test_errors_have_a_location(tmp_path: Path, groups: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, GOOD.replace("lr: 1e-3, betas: [0.8, 0.99]", f"lr: 1e-3, groups: {groups}"))
    assert message in str(caught.value)


def test_overrides_change_options_of_groups(tmp_path: Path) -> None:
    experiment = load_experiment(write_yaml(tmp_path, GOOD), ["optimizer.groups.trunk.lr=1e-4"])
    assert experiment.optimizer.groups == {"trunk": {"lr": 1e-4}}
    bare = experiment_from_dict({**digits().resolved(), "optimizer": "SGD"}, ["optimizer.groups.digit.momentum=0.5"])
    assert bare.optimizer.groups == {"digit": {"momentum": 0.5}}


def test_groups_are_resolved_unchanged_and_omitted_if_empty() -> None:
    experiment = digits(optimizer=adamw(**GROUPS, ink={"betas": [0.5, 0.75]}))
    plain = experiment.resolved()
    assert plain["optimizer"]["groups"] == {**GROUPS, "ink": {"betas": [0.5, 0.75]}}
    assert experiment_from_dict(plain) == experiment
    jsonschema.Draft202012Validator(json_schema()).validate(plain)  # without checking the schema itself, which is long
    assert "groups" not in digits().resolved()["optimizer"]  # so that runs of earlier versions can be resumed


def test_json_schema_includes_groups() -> None:
    validator = jsonschema.Draft202012Validator(json_schema())
    plain = digits().resolved()
    assert validator.is_valid({**plain, "optimizer": adamw(**GROUPS)})
    for wrong in ({"trunk": {"lrr": 1}}, {"trunk": {"lr": "fast"}}, {"trunk": 1}):
        assert not validator.is_valid({**plain, "optimizer": adamw(**wrong)}), wrong


@pytest.mark.parametrize("name", optimizers.names())
def test_every_optimizer_supports_groups(name: str) -> None:
    run = build(digits(optimizer={"name": name, "groups": {"trunk": {"lr": 0.5}}}))
    first, rest = make_optimizer(run).param_groups
    assert first["lr"] == 0.5 and rest["lr"] != 0.5
    assert first.keys() == rest.keys()


def test_resumed_run_keeps_its_groups(tmp_path: Path) -> None:
    experiment = digits(optimizer=adamw(**GROUPS), training=training(epochs=1))
    Trainer(build(experiment), tmp_path / "run").fit()
    longer = digits(optimizer=adamw(**GROUPS))
    summary = Trainer(build(longer), tmp_path / "run", resume="auto").fit()
    saved = load_checkpoint(summary["checkpoint"])["step"]["optimizer"]["param_groups"]
    assert [group["lr"] for group in saved] == [1e-4, 1e-2]
    other = digits(optimizer=adamw(heads=GROUPS["heads"]))
    with pytest.raises(
        ConfigError, match=r"optimizer\.groups\.trunk\.lr: is '\(none\)', and the saved run has 0\.0001"
    ):
        Trainer(build(other), tmp_path / "run", resume="auto").fit()


def test_run_with_a_learning_rate_of_0_resumes_with_another(tmp_path: Path) -> None:
    still = digits(optimizer={"name": "SGD", "lr": 0.0}, training=training(epochs=1))
    Trainer(build(still), tmp_path / "run").fit()
    moving = digits(optimizer={"name": "SGD", "lr": 0.1}, training=training(epochs=2))
    trainer = Trainer(build(moving), tmp_path / "run", resume="must")
    assert trainer.fit()["learning_rates"] == {"model": 0.1}
