"""Small experiments on the embedded digits, shared by the tests of training."""

from typing import Any

from mtlcli.config import Experiment, experiment_from_dict


def digits(**changes: Any) -> Experiment:
    """Return an experiment of two tasks on the same images, two epochs of 6 steps. changes: top-level keys."""
    plain: dict[str, Any] = {
        "name": "tiny",
        "datasets": {"digits": {"name": "digits", "val": 0.2}},
        "tasks": {
            "digit": {"dataset": "digits", "target": "digit", "kind": "classification"},
            "ink": {"dataset": "digits", "target": "ink", "kind": "regression"},
        },
        "trunk": {"name": "mlp", "hidden": [16], "features": 8, "dropout": 0.2},
        "training": {"epochs": 2, "batch_size": 200, "device": "cpu", "threads": 1},
    }
    return experiment_from_dict({**plain, **changes})


def training(**changes: Any) -> dict[str, Any]:
    return {"epochs": 2, "batch_size": 200, "device": "cpu", "threads": 1, **changes}
