"""`mtl`: train multi-task models from a YAML file, and see with evidence which tasks should share a network.

The command line's four steps, as a library (torch is imported when the first of them is asked for):

    from mtlcli import Trainer, build, evaluate, load_experiment
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from mtlcli.version import __version__

if TYPE_CHECKING:
    from mtlcli.config import load_experiment
    from mtlcli.training.assembly.build import build
    from mtlcli.training.evaluate import evaluate
    from mtlcli.training.trainer import Trainer

__all__ = ["Trainer", "__version__", "build", "evaluate", "load_experiment"]

_HOMES = {
    "load_experiment": "mtlcli.config",
    "build": "mtlcli.training.assembly.build",
    "Trainer": "mtlcli.training.trainer",
    "evaluate": "mtlcli.training.evaluate",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
