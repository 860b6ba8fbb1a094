"""Imports of the process server, so that the processes forked from it start quickly.

The server imports this module by its name; see `studies.pool`.
"""

import torch._dynamo  # which torch imports to make its first optimizer

from mtlcli import registry
from mtlcli.studies import worker
from mtlcli.tasks.binary_metrics import import_torchmetrics

import_torchmetrics()

import sklearn.datasets  # noqa: E402
import torchmetrics.classification  # noqa: E402
import torchmetrics.regression  # noqa: E402
import torchvision  # noqa: E402

for _registry in registry.REGISTRIES.values():
    _registry.names()

__all__ = ["sklearn", "torch", "torchmetrics", "torchvision", "worker"]
