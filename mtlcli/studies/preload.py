"""What a run may import on its way, for the server of processes to have imported before: nothing here is used."""

import torch._dynamo  # which torch imports to make its first optimizer

from mtlcli import registry
from mtlcli.studies import worker
from mtlcli.tasks.metrics import import_torchmetrics

import_torchmetrics()

import sklearn.datasets  # noqa: E402
import torchmetrics.classification  # noqa: E402
import torchmetrics.regression  # noqa: E402
import torchvision  # noqa: E402

for _registry in registry.REGISTRIES.values():
    _registry.names()

__all__ = ["sklearn", "torch", "torchmetrics", "torchvision", "worker"]
