"""Recomputed statistics of batch norm."""

import torch

from mtlcli.config import experiment_from_dict
from mtlcli.studies.merge.batch_statistics import recompute_batch_norm
from mtlcli.training.assembly.build import build
from tests.studies.merge.checkpoints import CNN, config


def test_the_statistics_are_the_means_over_the_training_batches() -> None:
    run = build(experiment_from_dict(config("digit", trunk={**CNN, "dropout": 0.5})))
    (norm,) = (module for module in run.model.modules() if isinstance(module, torch.nn.BatchNorm2d))
    seen: list[torch.Tensor] = []
    handle = norm.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0].detach()))
    parameters = {name: value.clone() for name, value in run.model.named_parameters()}
    norm.running_mean.fill_(7.0)
    recompute_batch_norm(run)
    handle.remove()
    means = torch.stack([x.mean((0, 2, 3)) for x in seen]).mean(0)
    variances = torch.stack([x.var((0, 2, 3)) for x in seen]).mean(0)
    torch.testing.assert_close(norm.running_mean, means, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(norm.running_var, variances, rtol=1e-5, atol=1e-6)
    assert norm.momentum == 0.1
    assert all(torch.equal(value, parameters[name]) for name, value in run.model.named_parameters())


def test_a_frozen_trunk_keeps_its_statistics() -> None:
    run = build(experiment_from_dict(config("digit", trunk={**CNN, "frozen": True})))
    before = {key: value.clone() for key, value in run.model.state_dict().items()}
    recompute_batch_norm(run)
    assert all(torch.equal(value, before[key]) for key, value in run.model.state_dict().items())
