"""Every sharing on a trunk of sequences: padding changes nothing, and every parameter is reached."""

import pytest
import torch
from torch import nn

from mtlcli.errors import OptionError
from mtlcli.models.representations import Pooling
from mtlcli.models.sharing.base import SharingRecord, SharingStats
from mtlcli.models.trunks.transformers import TransformersTrunk
from mtlcli.registry import sharings

CONFIG = {
    "model_type": "bert",
    "hidden_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 8,
    "vocab_size": 30,
    "max_position_embeddings": 16,
}
SWIN = {"model_type": "swin", "embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2], "window_size": 2, "image_size": 16}
TASKS = {"topic": "news", "mood": "news", "stars": "reviews"}
ON_ONE_DATASET = ("aitm", "esmm")
LENGTHS = {"news": [6, 3], "reviews": [2, 4, 3]}


def make_sharing(name, config=CONFIG, shape=(2, 16)):
    torch.manual_seed(0)
    base = TransformersTrunk.load_base({"config": config})

    def make_trunk():
        trunk = TransformersTrunk(shape, base, config=config, max_length=16, pool="mean")
        trunk.input_shape = shape
        return trunk

    inputs = dict.fromkeys(TASKS, "news") if name in ON_ONE_DATASET else TASKS
    sharing = sharings[name].target(make_trunk, lambda task, features: nn.Linear(features, 3), inputs)
    sharing.pooling = Pooling(next(iter(sharing.trunks().values())).mask, dict.fromkeys(TASKS, "mean"))
    return sharing


def make_inputs(sharing):
    generator = torch.Generator().manual_seed(1)
    batches = {}
    for alias, lengths in LENGTHS.items():
        ids = torch.randint(1, 30, (len(lengths), 2, max(lengths)), dtype=torch.int32, generator=generator)
        ids[:, 1] = 0
        for row, length in enumerate(lengths):
            ids[row, 0, length:] = -1
        batches[alias] = ids
    return {alias: x for alias, x in batches.items() if alias in sharing.inputs.values()}


@pytest.mark.parametrize("name", sharings.names())
def test_examples_of_different_lengths_are_independent(name):
    sharing = make_sharing(name).eval()
    inputs = make_inputs(sharing)
    with torch.no_grad():
        record = SharingRecord([], SharingStats())
        together = sharing.representations(inputs, list(sharing.inputs), record)
        for task, alias in sharing.inputs.items():
            assert together[task].ndim == 2
            for row, length in enumerate(LENGTHS[alias]):
                alone = sharing.representations({alias: inputs[alias][row : row + 1, :, :length]}, [task])
                torch.testing.assert_close(alone[task][0], together[task][row], atol=1e-5, rtol=1e-5)
    for trunk_pass in record.passes:
        assert all(x.ndim == 2 for name, x in trunk_pass.activations.items() if name != "input")


@pytest.mark.parametrize("name", sharings.names())
def test_gradients_reach_all_shared_parameters_that_the_sharing_declares(name):
    sharing = make_sharing(name)
    predictions = sharing(make_inputs(sharing), list(sharing.inputs))
    reached = {
        task: {
            id(p)
            for p, g in zip(
                sharing.parameters(),
                torch.autograd.grad(x.sum(), list(sharing.parameters()), retain_graph=True, allow_unused=True),
                strict=True,
            )
            if g is not None and g.any()
        }
        for task, x in predictions.items()
    }
    for task in sharing.inputs:
        own = {id(p) for module in sharing.own_modules(task) for p in module.parameters()}
        for other in sharing.inputs:
            assert other == task or not own & reached[other], (task, other)


def test_mtan_needs_stages_of_one_length():
    with pytest.raises((ValueError, OptionError), match=r"mtan doesn't support a sequence \[4, 16\] after a sequence"):
        make_sharing("mtan", SWIN, (3, 16, 16))
