"""Frozen stages, learning rates by layer, and weight decay of norms and biases."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from mtlcli.config import Experiment, experiment_from_dict
from mtlcli.errors import ConfigError
from mtlcli.registry import trunks
from mtlcli.training.assembly.build import build
from mtlcli.training.assembly.optimizers import group_names, make_optimizer
from mtlcli.training.assembly.schedules import make_schedule
from mtlcli.training.checkpoint.file import load_checkpoint
from mtlcli.training.run import Run
from mtlcli.training.step import Step
from mtlcli.training.trainer import Trainer
from tests.training.experiments import digits, training
from tests.training.test_step import batch

LAYERS = {"name": "mlp", "hidden": [16, 12], "features": 8}


def groups_of(run: Run) -> dict[str, dict[str, Any]]:
    """Return the optimizer's groups by name, with the names of their parameters."""
    names = {id(p): name.removeprefix("sharing.") for name, p in run.model.named_parameters()}
    groups = {}
    for name, group in zip(group_names(run), make_optimizer(run).param_groups, strict=True):
        groups[name] = {**group, "params": [names[id(p)] for p in group["params"]]}
    return groups


def adamw(**options: Any) -> dict[str, Any]:
    return {"name": "AdamW", "lr": 0.1, "weight_decay": 0.5, **options}


def test_learning_rates_decay_from_the_output_to_the_input() -> None:
    groups = groups_of(build(digits(trunk=LAYERS, optimizer=adamw(layer_decay=0.5))))
    assert {name: group["lr"] for name, group in groups.items()} == {
        "fc1": pytest.approx(0.1 * 0.5**3), "fc2": pytest.approx(0.1 * 0.5**2), "fc3": pytest.approx(0.1 * 0.5),
        "heads": 0.1,
    }  # fmt: skip
    assert groups["fc2"]["params"] == ["trunk.fc2.weight", "trunk.fc2.bias"]


def test_layer_decay_starts_from_the_rate_of_the_trunk_unless_a_stage_has_its_own() -> None:
    groups = {"trunk": {"lr": 1.0}, "fc[13]": {"weight_decay": 0.25}, "fc1": {"lr": 7.0}, "ink": {"lr": 3.0}}
    built = build(digits(trunk=LAYERS, optimizer=adamw(layer_decay=0.1, groups=groups)))
    assert {name: (group["lr"], group["weight_decay"]) for name, group in groups_of(built).items()} == {
        "fc1": (7.0, 0.25), "fc2": (pytest.approx(0.01), 0.5), "fc3": (pytest.approx(0.1), 0.25), "digit": (0.1, 0.5),
        "ink": (3.0, 0.5),
    }  # fmt: skip


def test_a_group_of_stages_leaves_the_rest_of_the_trunk() -> None:
    groups = groups_of(build(digits(trunk=LAYERS, optimizer=adamw(groups={"fc[12]": {"lr": 1.0}}))))
    assert {name: group["lr"] for name, group in groups.items()} == {"fc1+fc2": 1.0, "trunk+heads": 0.1}
    assert groups["trunk+heads"]["params"][:2] == ["trunk.fc3.weight", "trunk.fc3.bias"]


def test_every_trunk_of_a_sharing_has_the_rates_of_its_layers() -> None:
    run = build(digits(trunk=LAYERS, sharing="cross_stitch", optimizer=adamw(layer_decay=0.5)))
    groups = groups_of(run)
    assert len(groups["fc1"]["params"]) == 4  # two trunks
    assert groups["trunk+heads"]["lr"] == 0.1  # with the stitches
    assert sum(len(group["params"]) for group in groups.values()) == len(list(run.model.parameters()))


def test_norms_and_biases_without_weight_decay() -> None:
    trunk = {"name": "cnn", "widths": [4], "features": 8}
    groups = groups_of(build(digits(trunk=trunk, optimizer=adamw(decay_norms=False))))
    assert {name: group["weight_decay"] for name, group in groups.items()} == {"model": 0.5, "model (no decay)": 0.0}
    assert groups["model (no decay)"]["params"] == [
        "trunk.block1.2.weight", "trunk.block1.2.bias", "trunk.block1.5.weight", "trunk.block1.5.bias",
        "trunk.fc.2.bias", "heads.digit.bias", "heads.ink.0.bias",
    ]  # fmt: skip
    assert groups["model"]["params"] == [
        "trunk.block1.0.weight", "trunk.block1.4.weight", "trunk.fc.2.weight", "heads.digit.weight",
        "heads.ink.0.weight",
    ]  # fmt: skip
    both = groups_of(build(digits(trunk=trunk, optimizer=adamw(decay_norms=False, layer_decay=0.5))))
    assert list(both) == ["block1", "block1 (no decay)", "fc", "fc (no decay)", "heads", "heads (no decay)"]
    plain = build(digits(trunk=trunk, optimizer=adamw(decay_norms=False, weight_decay=0.0)))
    assert group_names(plain) == ["model"]


def test_the_default_of_decay_norms_is_that_of_the_trunk(monkeypatch: pytest.MonkeyPatch) -> None:
    assert group_names(build(digits(trunk=LAYERS, optimizer=adamw()))) == ["model"]
    monkeypatch.setattr(trunks["mlp"].target, "decay_norms", False)
    assert group_names(build(digits(trunk=LAYERS, optimizer=adamw()))) == ["model", "model (no decay)"]
    assert group_names(build(digits(trunk=LAYERS, optimizer=adamw(decay_norms=True)))) == ["model"]


def test_a_schedule_scales_all_layers_alike() -> None:
    scheduler = {"name": "warmup_linear", "warmup": 0.5}
    run = build(digits(trunk=LAYERS, optimizer=adamw(layer_decay=0.5), scheduler=scheduler))
    optimizer = make_optimizer(run)
    schedule = make_schedule(run, optimizer, 6, "max")
    rates = []
    for _ in range(12):
        rates.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        schedule.after_step()
    for step, actual in enumerate(rates):
        factor = min(step / 6, (12 - step) / 6)
        assert actual == pytest.approx([0.1 * decay * factor for decay in (0.125, 0.25, 0.5, 1)])


@pytest.mark.parametrize("weighting", ["fixed", "mgda", {"name": "pcgrad", "gradients": "features"}])
def test_a_step_changes_only_trained_layers(weighting: Any) -> None:
    trunk = {"name": "cnn", "widths": [4, 8], "features": 8, "freeze": ["block*"]}
    run = build(digits(trunk=trunk, weighting=weighting, optimizer={"name": "SGD", "lr": 0.1}))
    run.model.train()
    before = {name: value.clone() for name, value in run.model.state_dict().items()}
    Step(run, make_optimizer(run))([batch(0, 64)])
    changed = {name for name, value in run.model.state_dict().items() if not torch.equal(value, before[name])}
    heads = {f"sharing.heads.{name}" for name in ("digit.weight", "digit.bias", "ink.0.weight", "ink.0.bias")}
    assert changed == {"sharing.trunk.fc.2.weight", "sharing.trunk.fc.2.bias"} | heads


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"trunk": {**LAYERS, "freeze": ["fc1", "fc4", "nowhere"]}},
            r"trunk\.freeze\.1: .*no stage or layer 'fc4'.*fc1(.|\n)*trunk\.freeze\.2: .*'nowhere'",
        ),
        ({"optimizer": adamw(groups={"fc5": {"lr": 1.0}})}, r"groups\.fc5: unknown part of the model 'fc5'.*fc1, fc2"),
        (
            {"optimizer": adamw(groups={"fc1": {"lr": 1.0}}), "trunk": {**LAYERS, "freeze": ["fc1"]}},
            r"groups\.fc1: 'fc1' has no trainable parameters: it is frozen",
        ),
        ({"optimizer": {"name": "Rprop", "decay_norms": False}}, "decay_norms: Rprop has no option `weight_decay`"),
        (
            {
                "optimizer": {"name": "SGD", "layer_decay": 0.9},
                "regularizers": [{"name": "multi_nuclear_norm", "layers": ["fc1"], "proximal": True}],
            },
            r"regularizers\.0\.proximal: a proximal step has one learning rate",
        ),
        ({"optimizer": adamw(layer_decay=1.5)}, r"optimizer\.layer_decay: .*1\.5"),
    ],
)
def test_invalid_options_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(digits(**{"trunk": LAYERS, **changes}))


def test_an_experiment_without_these_options_has_no_new_keys() -> None:
    plain = digits().resolved()
    assert not {"freeze"} & plain["trunk"].keys()
    assert not {"layer_decay", "decay_norms", "groups"} & plain["optimizer"].keys()
    options = digits(trunk={**LAYERS, "freeze": ["fc1"]}, optimizer=adamw(layer_decay=0.9, decay_norms=True))
    assert experiment_from_dict(options.resolved()) == options


def fit(experiment: Experiment, folder: Path) -> dict[str, torch.Tensor]:
    Trainer(build(experiment), folder, resume="auto").fit()
    return dict(load_checkpoint(str(folder / "checkpoints/last.pt"))["model"])


def test_a_resumed_run_has_the_same_bits(tmp_path: Path) -> None:
    def experiment(epochs: int) -> Experiment:
        return digits(
            trunk={"name": "cnn", "widths": [4], "features": 8, "freeze": ["block1"]},
            optimizer=adamw(layer_decay=0.5, decay_norms=False),
            weighting="dwa",
            training=training(epochs=epochs, normalize_losses="entropy"),
        )

    whole = fit(experiment(2), tmp_path / "whole")
    fit(experiment(1), tmp_path / "resumed")
    resumed = fit(experiment(2), tmp_path / "resumed")
    assert whole.keys() == resumed.keys() and all(torch.equal(whole[key], resumed[key]) for key in whole)


def test_adapters_of_all_tasks_have_the_rates_of_their_layers() -> None:
    adapters = {"name": "lora", "rank": 2, "targets": ["*"], "arrangement": "per_task"}
    groups = groups_of(build(digits(trunk=LAYERS, adapters=adapters, optimizer=adamw(layer_decay=0.5))))
    assert {name: (group["lr"], len(group["params"])) for name, group in groups.items()} == {
        "fc1": (0.0125, 4), "fc2": (0.025, 4), "fc3": (0.05, 4), "heads": (0.1, 4)
    }  # fmt: skip
