"""Pooling between a trunk of sequences and tasks that predict vectors."""

import pytest
import torch

from mtlcli.config import experiment_from_dict
from mtlcli.errors import ConfigError
from mtlcli.models.representations import pool_representation
from mtlcli.training.assembly.build import build, check_experiment
from mtlcli.training.checkpoint.file import plain

VIT = {
    "name": "transformers",
    "config": {
        "model_type": "vit",
        "image_size": 8,
        "patch_size": 4,
        "num_channels": 1,
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 16,
    },
}


def vit(trunk=VIT, **parity):
    return experiment_from_dict(
        {
            "name": "vit",
            "datasets": {"digits": {"name": "digits"}},
            "tasks": {
                "digit": {"dataset": "digits", "kind": "classification"},
                "parity": {"dataset": "digits", "kind": "binary", **parity},
            },
            "trunk": trunk,
            "training": {"epochs": 1},
        }
    )


def test_representations_are_pooled_once_for_each_pooling():
    run = build(vit(head={"name": "linear", "pool": "mean"}))
    x = {"digits": torch.rand(3, 1, 8, 8) * 16}
    with torch.no_grad():
        sequence = run.model.sharing.trunk(run.model.prepare("digits", x["digits"]))
        representations = run.model.representations(x, ["digit", "parity"])
    assert sequence.shape == (3, 5, 16)
    assert torch.equal(representations["digit"], pool_representation(sequence, "cls"))
    assert torch.equal(representations["parity"], pool_representation(sequence, "mean"))
    same = build(vit()).model.representations(x, ["digit", "parity"])
    assert same["digit"] is same["parity"]


def test_a_pooling_that_does_not_apply():
    with pytest.raises(ConfigError, match=r"tasks\.parity\.head\.pool: 'mean' does not apply: .* Remove `pool`"):
        check_experiment(vit({"name": "mlp"}, head={"name": "linear", "pool": "mean"}))


def test_a_head_without_pool_leaves_the_resolved_experiment_unchanged():
    assert "pool" not in vit().resolved()["tasks"]["parity"]["head"]
    assert vit(head={"pool": "max"}).resolved()["tasks"]["parity"]["head"] == {"name": "linear", "pool": "max"}


def test_the_state_dict_has_all_buffers():
    run = build(vit())
    assert all(name in plain(dict(run.model.state_dict())) for name, _ in run.model.named_buffers())
