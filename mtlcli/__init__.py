"""Multi-task learning in PyTorch: training from a YAML file or from Python, and studies of which tasks to share.

The names in `__all__` are the public API, together with the base classes that the packages `data`, `models`, `tasks`,
`weighting` and `regularizers` export for plugins. Torch is imported when the first name that needs it is used.

Example:
    >>> import mtlcli
    >>> summary = mtlcli.train("configs/digits.yaml", overrides=["training.epochs=2"])
    >>> model = mtlcli.load(summary.checkpoint)
    >>> predictions = model.predict(images)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from mtlcli.errors import ConfigError, InputError, InterruptedRunError, MtlError
from mtlcli.version import __version__

if TYPE_CHECKING:
    from mtlcli.api.checkpoint_evaluation import evaluate
    from mtlcli.api.model_training import train
    from mtlcli.api.predictions import Predictions
    from mtlcli.api.prepared_run import build
    from mtlcli.api.run_merging import MergedModel, merge
    from mtlcli.api.study_results import Comparison, TaskRelations
    from mtlcli.api.task_studies import compare, relate
    from mtlcli.api.trained_model import Model, load
    from mtlcli.config import Experiment, load_experiment
    from mtlcli.training.balancer import Balancer
    from mtlcli.training.callbacks import Callback
    from mtlcli.training.run import Run
    from mtlcli.training.run_summary import Summary
    from mtlcli.training.trainer import Trainer

_HOMES = {
    "Balancer": "mtlcli.training.balancer",
    "Callback": "mtlcli.training.callbacks",
    "Comparison": "mtlcli.api.study_results",
    "Experiment": "mtlcli.config",
    "MergedModel": "mtlcli.api.run_merging",
    "Model": "mtlcli.api.trained_model",
    "Predictions": "mtlcli.api.predictions",
    "Run": "mtlcli.training.run",
    "Summary": "mtlcli.training.run_summary",
    "TaskRelations": "mtlcli.api.study_results",
    "Trainer": "mtlcli.training.trainer",
    "build": "mtlcli.api.prepared_run",
    "compare": "mtlcli.api.task_studies",
    "evaluate": "mtlcli.api.checkpoint_evaluation",
    "load": "mtlcli.api.trained_model",
    "load_experiment": "mtlcli.config",
    "merge": "mtlcli.api.run_merging",
    "relate": "mtlcli.api.task_studies",
    "train": "mtlcli.api.model_training",
}

__all__ = [
    "Balancer",
    "Callback",
    "Comparison",
    "ConfigError",
    "Experiment",
    "InputError",
    "InterruptedRunError",
    "MergedModel",
    "Model",
    "MtlError",
    "Predictions",
    "Run",
    "Summary",
    "TaskRelations",
    "Trainer",
    "__version__",
    "build",
    "compare",
    "evaluate",
    "load",
    "load_experiment",
    "merge",
    "relate",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return list(__all__)
