"""Datasets, samplers and the loading of batches.

The plugin API: a dataset subclasses `Dataset` and returns `Examples`; a sampler subclasses `Sampler`. The types
`DatasetSpec`, `TargetSpec` and `Column`, by which a dataset describes itself, are in `mtlcli.specs`. Modules are
imported when one of these names is first used, because they import torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mtlcli.data.base import Dataset
    from mtlcli.data.examples import Examples, LazyInputs
    from mtlcli.data.samplers.base import EveryStepSampler, Sampler

__all__ = ["Dataset", "EveryStepSampler", "Examples", "LazyInputs", "Sampler"]

_MODULES = {
    "Dataset": "mtlcli.data.base",
    "Examples": "mtlcli.data.examples",
    "LazyInputs": "mtlcli.data.examples",
    "EveryStepSampler": "mtlcli.data.samplers.base",
    "Sampler": "mtlcli.data.samplers.base",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return __all__
