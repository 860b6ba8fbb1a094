"""Models of transformers as trunks: sequences, masks, stages and activations."""

import pytest
import torch

from mtlcli.models.pretrained.base import Base
from mtlcli.models.trunks.transformers import TransformersTrunk

SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
TEXT = {**SIZES, "vocab_size": 60, "max_position_embeddings": 32}
CONFIGS = {
    "bert": {**TEXT, "model_type": "bert"},
    "vit": {**SIZES, "model_type": "vit", "image_size": 16, "patch_size": 4},
}
LENGTHS = [9, 4, 7, 1]


def make_trunk(name, **options):
    options = {"config": CONFIGS[name], "max_length": 20, **options}
    shape = (2, 20) if TransformersTrunk.reads_text(options) else (3, 16, 16)
    torch.manual_seed(0)
    trunk = TransformersTrunk(shape, TransformersTrunk.load_base(options), **options)
    trunk.input_shape = shape
    return trunk.eval()


def make_inputs(trunk):
    generator = torch.Generator().manual_seed(1)
    if not trunk.texts:
        return torch.randn(4, *trunk.input_shape, generator=generator)
    ids = torch.randint(3, 60, (4, 2, max(LENGTHS)), dtype=torch.int32, generator=generator)
    ids[:, 1] = 0
    for row, length in enumerate(LENGTHS):
        ids[row, 0, length:] = -1
    return ids


@pytest.mark.parametrize("name", CONFIGS)
def test_stages_and_activations_are_those_of_the_network(name):
    trunk = make_trunk(name)
    x = make_inputs(trunk)
    with torch.no_grad():
        expected = trunk(x)
        features, activations = trunk.activations(x, trunk.activation_names())
        for stage, run in trunk.stages().items():
            x = run(x)
            assert torch.equal(x, activations[stage]), stage
    assert trunk.features == expected.shape[2] == 16
    assert torch.equal(x, expected)
    assert torch.equal(features, expected)


@pytest.mark.parametrize("name", CONFIGS)
def test_a_function_follows_every_layer(name):
    trunk = make_trunk(name)
    x, passed = make_inputs(trunk), []

    def double(activation):
        passed.append(activation)
        return 2 * activation

    with torch.no_grad():
        with trunk.after_stages(double):
            changed = trunk(x)
        expected = x
        for stage, run in trunk.stages().items():
            expected = run(expected) if stage == "norm" else 2 * run(expected)
        assert torch.equal(changed, expected)
        assert len(passed) == 3
        assert torch.equal(trunk(x), trunk.activations(x, [])[0]) and len(passed) == 3


def test_padding_changes_nothing():
    trunk = make_trunk("bert")
    x = make_inputs(trunk)
    with torch.no_grad():
        together = trunk(x)
        for row, length in enumerate(LENGTHS):
            torch.testing.assert_close(
                together[row, :length], trunk(x[row : row + 1, :, :length])[0], atol=1e-5, rtol=0
            )
    assert trunk.mask(x).sum(1).tolist() == LENGTHS


@pytest.mark.parametrize("name", CONFIGS)
def test_a_state_dict_completes_a_trunk_on_meta(name):
    trunk = make_trunk(name)
    with torch.device("meta"):
        other = make_trunk(name)
    other.load_state_dict(trunk.state_dict(), assign=True)
    x = make_inputs(trunk)
    with torch.no_grad():
        assert torch.equal(other(x), trunk(x))


def test_a_base_survives_a_checkpoint():
    base = Base({"model_type": "bert"}, "{}", (), "folder", "mean")
    assert Base.from_dict(base.to_dict()) == base
