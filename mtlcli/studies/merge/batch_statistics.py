"""Statistics of batch norm, recomputed for a model whose weights were not trained with it."""

from __future__ import annotations

from itertools import islice

import torch
from torch.nn.modules.batchnorm import _BatchNorm

from mtlcli.training.assembly.data_checks import open_data
from mtlcli.training.run import Run

BATCHES = 100  # batches that the statistics are averaged over


def recompute_batch_norm(run: Run) -> None:
    """Replace the running statistics of batch norm by their averages over training batches.

    The first `BATCHES` training batches of the experiment's sampling pass through the model, with batch norm alone in
    training mode. Every batch counts equally, as in `torch.optim.swa_utils.update_bn`. Those of a frozen trunk stay.

    Args:
        run: the run, whose model is changed.
    """
    frozen = {layer for trunk in run.model.sharing.trunks().values() if trunk.frozen for layer in trunk.modules()}
    norms = [module for module in run.model.modules() if isinstance(module, _BatchNorm) and module not in frozen]
    layers = [layer for layer in norms if layer.track_running_stats]
    if not layers:
        return
    momenta = [layer.momentum for layer in layers]
    run.model.eval()
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # a cumulative average
        layer.train()
    with torch.no_grad(), run.autocast():
        for batch in islice(open_data(run).epoch(0), BATCHES):
            run.model(batch.inputs)
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
    run.model.eval()
