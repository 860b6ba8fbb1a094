"""Options that torch refuses are reported at their keys, for optimizers and schedulers."""

import pytest

from mtlcli.errors import ConfigError
from mtlcli.registry import optimizers
from mtlcli.training.assembly.build import check_experiment
from tests.training.experiments import digits


def collect_problems(**sections: object) -> dict[str, str]:
    with pytest.raises(ConfigError) as caught:
        check_experiment(digits(**sections))
    return {problem.path: problem.message for problem in caught.value.problems}


@pytest.mark.parametrize("name", optimizers.names())
def test_negative_learning_rate_is_refused(name: str) -> None:
    assert list(collect_problems(optimizer={"name": name, "lr": -1.0})) == ["optimizer.lr"]


@pytest.mark.parametrize(
    ("options", "keys"),
    [
        ({"name": "Adam", "betas": [1.5, 0.9], "eps": -1.0, "lr": -1.0}, {"lr", "betas", "eps"}),
        ({"name": "SGD", "momentum": -1.0}, {"momentum"}),
        ({"name": "SGD", "nesterov": True}, {"nesterov"}),
        ({"name": "RMSprop", "alpha": -1.0, "weight_decay": -1.0}, {"alpha", "weight_decay"}),
        ({"name": "Rprop", "etas": [2.0, 1.0]}, {"etas"}),
        ({"name": "Adam", "groups": {"heads": {"lr": -1.0, "eps": -1.0}}}, {"groups.heads.lr", "groups.heads.eps"}),
    ],
)
def test_invalid_options_of_optimizers_are_refused(options: dict[str, object], keys: set[str]) -> None:
    assert collect_problems(optimizer=options).keys() == {f"optimizer.{key}" for key in keys}


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"name": "StepLR", "step_size": 0}, "step_size"),
        ({"name": "StepLR", "step_size": 1, "gamma": -1.0}, "gamma"),
        ({"name": "ExponentialLR", "gamma": -0.5}, "gamma"),
        ({"name": "CosineAnnealingLR", "T_max": 0}, "T_max"),
        ({"name": "CosineAnnealingWarmRestarts", "T_0": 0}, "T_0"),
        ({"name": "OneCycleLR", "max_lr": -1.0}, "max_lr"),
        ({"name": "OneCycleLR", "max_lr": 1.0, "pct_start": 3.0}, "pct_start"),
        ({"name": "ReduceLROnPlateau", "factor": 2.0}, "factor"),
        ({"name": "LinearLR", "start_factor": 2.0}, "start_factor"),
        ({"name": "ConstantLR", "factor": 3.0}, "factor"),
    ],
)
def test_invalid_options_of_schedulers_are_refused(options: dict[str, object], key: str) -> None:
    assert list(collect_problems(scheduler=options)) == [f"scheduler.{key}"]


def test_problems_of_optimizer_and_scheduler_are_reported_together() -> None:
    one_cycle = {"name": "OneCycleLR", "max_lr": 0.1, "pct_start": 2.0}
    reported = collect_problems(optimizer={"name": "Adam", "lr": -1.0}, scheduler=one_cycle)
    assert reported.keys() == {"optimizer.lr", "scheduler.pct_start"}


@pytest.mark.parametrize("name", ["CosineAnnealingLR", "PolynomialLR", "ReduceLROnPlateau", "LinearLR", "ConstantLR"])
def test_valid_schedulers_pass(name: str) -> None:
    check_experiment(digits(scheduler={"name": name}))
