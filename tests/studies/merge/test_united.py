"""Union of experiments: everything that the runs have, and conflicts of names."""

from pathlib import Path

import pytest
import torch

from mtlcli.config import experiment_from_dict
from mtlcli.errors import ConfigError
from mtlcli.studies.merge.united import unite
from tests.studies.merge.checkpoints import config, sources


def test_datasets_and_tasks_are_united(tmp_path: Path) -> None:
    other = config("parity", optimizer={"name": "SGD", "lr": 0.1}, regularizers=[{"name": "l2", "strength": 0.1}])
    other["datasets"] = {"more": {"name": "digits", "val": 0.2}}
    other["tasks"]["parity"]["dataset"] = "more"
    runs = sources(tmp_path, config("digit", "ink"), other)
    united = unite(runs)
    experiment = experiment_from_dict(united["config"])
    assert list(experiment.tasks) == ["digit", "ink", "parity"]
    assert list(experiment.datasets) == ["digits", "more"]
    assert experiment.datasets["more"].options["val"] == 0.2
    assert experiment.regularizers == []
    assert united["specs"].keys() == united["data"].keys() == experiment.datasets.keys()
    weights = united["model"]
    assert torch.equal(weights["sharing.heads.parity.weight"], runs[1].state["sharing.heads.parity.weight"])
    assert torch.equal(weights["sharing.trunk.fc1.bias"], runs[0].state["sharing.trunk.fc1.bias"])


def test_all_conflicts_are_listed(tmp_path: Path) -> None:
    other = config("digit", "parity", trunk={"name": "mlp", "hidden": [16], "features": 8, "dropout": 0.1})
    other["datasets"]["digits"]["val"] = 0.3
    other["tasks"]["digit"]["weight"] = 2.0
    with pytest.raises(ConfigError) as error:
        unite(sources(tmp_path, config("digit"), other))
    data, task, trunk = map(str, error.value.problems)
    assert data.startswith("datasets.digits: two datasets have this name: that of ")
    assert "in val. Train one of the runs with another name for its dataset" in data
    assert task.startswith("tasks.digit: two tasks have this name")
    assert trunk.startswith("trunk.dropout: is 0.1 in ")


def test_changed_data_is_a_conflict(tmp_path: Path) -> None:
    first, second = sources(tmp_path, config("digit"), config("parity"))
    second.payload["specs"]["digits"]["mean"] = [0.25]
    with pytest.raises(ConfigError, match=r"datasets\.digits: the data of .* differs from that of .* in mean"):
        unite([first, second])
