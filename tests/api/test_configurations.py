"""`load_experiment` and `build` with a dict, and the names that the package promises."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import mtlcli
from mtlcli import ConfigError, load_experiment
from mtlcli.config import dump_yaml
from tests.api.experiments import DIGITS


def test_promised_names_exist_and_are_all_that_dir_lists() -> None:
    assert dir(mtlcli) == sorted(mtlcli.__all__)
    for name in mtlcli.__all__:
        assert getattr(mtlcli, name).__doc__, name
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        mtlcli.nothing  # noqa: B018


def test_importing_the_package_imports_no_torch() -> None:
    code = "import mtlcli, sys; dir(mtlcli); mtlcli.ConfigError; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_dict_gives_the_experiment_of_the_same_yaml_file(tmp_path: Path) -> None:
    (tmp_path / "api.yaml").write_text(dump_yaml(DIGITS))
    overrides = ["training.epochs=3", "weighting=dwa"]
    experiment = load_experiment(DIGITS, overrides)
    assert experiment == load_experiment(tmp_path / "api.yaml", overrides)
    assert experiment.training.epochs == 3
    assert DIGITS["training"]["epochs"] == 2, "the dict is left as it was"


def test_a_dict_may_hold_python_types(tmp_path: Path) -> None:
    table = {"name": "csv", "path": tmp_path / "t.csv", "targets": ("a", "b")}
    trunk = {"name": "mlp", "hidden": (8, np.int64(4)), "dropout": np.float64(0.25)}
    experiment = load_experiment({**DIGITS, "datasets": {"digits": table}, "trunk": trunk})
    assert experiment.datasets["digits"].options["path"] == str(tmp_path / "t.csv")
    assert experiment.trunk.options["hidden"] == [8, 4]
    assert experiment.trunk.options["dropout"] == 0.25


def test_environment_variables_are_expanded_in_a_dict(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EPOCHS", "7")
    experiment = load_experiment({**DIGITS, "name": "${N:3}", "training": {"epochs": "${EPOCHS}"}})
    assert (experiment.name, experiment.training.epochs) == ("3", 7)
    with pytest.raises(ConfigError, match=r"training\.epochs: the environment variable NOWHERE is not set"):
        load_experiment({**DIGITS, "training": {"epochs": "${NOWHERE}"}})


def test_all_errors_of_a_dict_are_reported_with_their_key_paths(tmp_path: Path) -> None:
    wrong: dict[str, Any] = {
        **DIGITS,
        "trunk": {"name": "mlp", "hiden": [8]},
        "training": {"epochs": "many"},
        "trainig": {},
        "seed": {1},
    }
    with pytest.raises(ConfigError, match="seed: expected plain data, found an object of type set") as refused:
        load_experiment(wrong)
    del wrong["seed"]
    with pytest.raises(ConfigError) as refused:
        load_experiment(wrong)
    assert {problem.path for problem in refused.value.problems} == {"trunk.hiden", "training.epochs", "trainig"}
    messages = str(refused.value)
    assert "Did you mean 'hidden'?" in messages and "Did you mean 'training'?" in messages
    assert "checkpoint.pt" not in messages and "(in the configuration)" in messages

    (tmp_path / "wrong.yaml").write_text(yaml.safe_dump(wrong))
    with pytest.raises(ConfigError) as of_file:
        load_experiment(tmp_path / "wrong.yaml")
    plain = {problem.message.removesuffix(" (in the configuration)") for problem in refused.value.problems}
    assert plain == {problem.message for problem in of_file.value.problems}


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (3, "expected the path of an experiment file or a dict of the same form, got int"),
        ({}, "datasets: missing"),
        ({"datasets": {1: 2}}, "expected a string as key"),
        ({**DIGITS, "weighting": "pcgrd"}, r"weighting: unknown weighting 'pcgrd'\. Did you mean 'pcgrad'\?"),
        ({**DIGITS, "trunk": object()}, "trunk: expected plain data, found an object of type object"),
    ],
)
def test_invalid_configurations_get_a_clear_message(config: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_experiment(config)


def test_a_dict_that_contains_itself_is_refused() -> None:
    config = dict(DIGITS)
    config["trunk"] = config
    with pytest.raises(ConfigError, match="nested deeper"):
        load_experiment(config)


def test_a_run_is_built_from_a_dict_a_path_or_an_experiment(tmp_path: Path) -> None:
    (tmp_path / "api.yaml").write_text(dump_yaml(DIGITS))
    experiment = load_experiment(DIGITS)
    for config in (DIGITS, tmp_path / "api.yaml", str(tmp_path / "api.yaml"), experiment):
        run = mtlcli.build(config, overrides=["training.epochs=3"])
        assert run.experiment.training.epochs == 3
    assert mtlcli.build(experiment).experiment is experiment
