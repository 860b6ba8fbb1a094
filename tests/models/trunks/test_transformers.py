"""Models of transformers as trunks: sequences, masks, stages and activations."""

import os
import re
from pathlib import Path

import pytest
import torch

from mtlcli.models.named_layers import freeze_layers, parameters_by_name
from mtlcli.models.pretrained.base import Base
from mtlcli.models.representations import pool_representation
from mtlcli.models.trunks.transformers import TransformersTrunk

MINILM = Path(os.environ.get("MTL_DATA", "data")) / "minilm"

SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
TEXT = {**SIZES, "vocab_size": 60, "max_position_embeddings": 32}
LLAMA = {**TEXT, "num_key_value_heads": 1}
TOKENS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2}
DEBERTA = {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_buckets": 4, "share_att_key": True}
CONFIGS = {
    "bert": TEXT,
    "roberta": {**TEXT, "type_vocab_size": 1},
    "distilbert": {
        "dim": 16,
        "n_layers": 2,
        "n_heads": 2,
        "hidden_dim": 32,
        "vocab_size": 60,
        "max_position_embeddings": 32,
    },
    "modernbert": {**TEXT, **TOKENS, "local_attention": 4, "num_hidden_layers": 4},
    "deberta-v2": {**TEXT, **DEBERTA},
    "electra": {**TEXT, "embedding_size": 8},
    "t5": {"d_model": 16, "d_kv": 8, "num_layers": 2, "num_heads": 2, "d_ff": 32, "vocab_size": 60},
    "gpt2": {"n_embd": 16, "n_layer": 2, "n_head": 2, "vocab_size": 60, "n_positions": 32, **TOKENS},
    "llama": LLAMA,
    "qwen3": {**LLAMA, "head_dim": 8},
    "vit": {**SIZES, "image_size": 16, "patch_size": 4},
    "swin": {"embed_dim": 8, "depths": [1, 2], "num_heads": [1, 2], "window_size": 2, "image_size": 16},
    "dinov2": {**SIZES, "image_size": 16, "patch_size": 4},
}
CONFIGS = {name: {"model_type": name, **config} for name, config in CONFIGS.items()}
CAUSAL = ("gpt2", "llama", "qwen3")
POOLS = {**dict.fromkeys(CONFIGS, "cls"), **dict.fromkeys(CAUSAL, "last"), "t5": "mean", "swin": "mean"}
TEXTS = [name for name in CONFIGS if name not in ("vit", "swin", "dinov2")]
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
    assert trunk.pool == POOLS[name]
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
        assert len(passed) == 1 + len(trunk.chain.layers)
        assert torch.equal(trunk(x), trunk.activations(x, [])[0]) and len(passed) == 1 + len(trunk.chain.layers)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("name", TEXTS)
def test_padding_changes_nothing(name, attention):
    trunk = make_trunk(name, attention=attention)
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


def test_the_parameters_of_an_encoder_are_its_own():
    trunk = make_trunk("t5")
    names = [name for name, _ in trunk.named_parameters(remove_duplicate=False)]
    assert len(names) == len(list(trunk.parameters()))
    assert not any("decoder" in name for name in names)


def test_a_base_survives_a_checkpoint():
    base = Base({"model_type": "bert"}, "{}", (), "folder", "mean")
    assert Base.from_dict(base.to_dict()) == base


@pytest.mark.parametrize("name", TEXTS)
def test_a_mask_is_built_without_reading_values(name):
    """On a device other than the CPU, a read would wait for it; on `meta` it is an error."""
    with torch.device("meta"):
        trunk = make_trunk(name)
        assert trunk(torch.zeros(2, 2, 5, dtype=torch.int32)).shape == (2, 5, 16)
        mask = torch.ones(2, 5, dtype=torch.bool)
        if not trunk.causal and name != "deberta-v2":
            assert trunk.network(torch.zeros(2, 5, dtype=torch.int64), attention_mask=mask)[0].shape == (2, 5, 16)


def test_the_first_layers_are_those_of_the_whole_model():
    whole, first = make_trunk("modernbert"), make_trunk("modernbert", layers=3)
    first.load_state_dict({name: x for name, x in whole.state_dict().items() if name in first.state_dict()})
    x = make_inputs(whole)
    with torch.no_grad():
        activation = whole.activations(x, ["layer.2"])[1]["layer.2"]
        assert torch.equal(first.activations(x, ["layer.2"])[1]["layer.2"], activation)
        torch.testing.assert_close(first(x), whole.network.final_norm(activation))
    assert list(first.stages()) == ["embeddings", "layer.0", "layer.1", "layer.2", "norm"]


@pytest.mark.parametrize(("name", "layers", "message"), [("bert", 3, "at most 2"), ("swin", 1, "different widths")])
def test_layers_that_can_not_be_kept(name, layers, message):
    with pytest.raises(ValueError, match=f"layers: .*{message}"):
        make_trunk(name, layers=layers)


@pytest.mark.parametrize("name", ["bert", "gpt2", "t5", "vit"])
def test_gradient_checkpointing_changes_no_gradient(name):
    gradients = []
    for checkpointing in (False, True):
        trunk = make_trunk(name, gradient_checkpointing=checkpointing)
        for module in trunk.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        trunk.train()(make_inputs(trunk)).square().sum().backward()
        gradients.append([p.grad for p in trunk.parameters() if p.grad is not None])
    assert len(gradients[0]) == len(gradients[1]) > 0
    for plain, checkpointed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, checkpointed)


def test_token_types_reach_the_network():
    trunk = make_trunk("bert")
    x = make_inputs(trunk)
    second = x.clone()
    second[:, 1] = 1
    second[:, 1][x[:, 0] < 0] = -1
    with torch.no_grad():
        assert not torch.equal(trunk(x), trunk(second))
        roberta = make_trunk("roberta")
        assert torch.equal(roberta(x), roberta(second))


def test_images_of_another_size():
    trunk = make_trunk("vit")
    with torch.no_grad():
        assert trunk(torch.randn(2, 3, 24, 16)).shape == (2, 25, 16)
        assert trunk(torch.randn(2, 1, 16, 16)).shape == (2, 17, 16)


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("bert", (3, 16, 16), "bert reads texts, but the inputs of the datasets are 3×16×16"),
        ("bert", (2, 64), "max_length: expected at most 32, the number of positions"),
        ("vit", (2, 20), "vit reads images"),
        ("clip", (3, 16, 16), "clip reads neither texts nor images alone"),
        ("vit", (4, 16, 16), "of 3 channels"),
        ("vit", (3, 2, 2), "vit can't process images of 3×2×2: .* built for 16×16: `stems` with `resize`"),
    ],
)
def test_inputs_that_the_model_does_not_read(name, shape, message):
    options = {"config": CONFIGS.get(name, {"model_type": name})}
    with pytest.raises(ValueError, match=message):
        TransformersTrunk(shape, TransformersTrunk.load_base(options), **options)


def test_networks_of_maps():
    config = {"model_type": "convnext", "hidden_sizes": [8, 12], "depths": [1, 1], "num_stages": 2}
    trunk = TransformersTrunk((3, 16, 16), Base(config), config=config)
    assert (trunk.representation, trunk.features, trunk.pool) == ("map", 12, "mean")
    assert list(trunk.stages()) == ["network"]


@pytest.mark.skipif(not MINILM.is_dir(), reason="needs `mtl data fetch minilm`")
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_minilm_computes_what_transformers_computes(attention):
    from transformers import AutoModel, AutoTokenizer

    texts = ["A lovely dress, true to size.", "Returned it.", "The fabric is thin; " * 20]
    encoded = AutoTokenizer.from_pretrained(MINILM)(
        texts, padding=True, truncation=True, max_length=64, return_tensors="pt"
    )
    options = {"model": str(MINILM), "max_length": 64, "attention": attention}
    base = TransformersTrunk.load_base(options)
    trunk = TransformersTrunk((2, 64), base, **options).eval()
    padding = encoded["attention_mask"] == 0
    planes = [encoded[key].masked_fill(padding, -1) for key in ("input_ids", "token_type_ids")]
    x = torch.stack(planes, 1).int()
    with torch.no_grad():
        expected = AutoModel.from_pretrained(MINILM).eval()(**encoded).last_hidden_state
        actual = trunk(x)
    assert trunk.pool == "mean"
    torch.testing.assert_close(actual[~padding], expected[~padding], atol=1e-5, rtol=0)
    mean = (expected * encoded["attention_mask"].unsqueeze(2)).sum(1) / encoded["attention_mask"].sum(1, keepdim=True)
    torch.testing.assert_close(pool_representation(actual, "mean", trunk.mask(x)), mean, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", CONFIGS)
def test_every_parameter_belongs_to_a_stage(name):
    trunk = make_trunk(name)
    divided = trunk.stage_parameters()
    assert list(divided) == list(trunk.stages()) and all(divided.values())
    assert sum(map(len, divided.values())) == len(list(trunk.parameters()))
    names = {id(p): path for path, p in trunk.named_parameters()}
    embeddings = [names[id(p)] for p in divided["embeddings"]]
    assert all(re.search(r"embed|shared|wte|wpe|cls_token|mask_token", path) for path in embeddings), embeddings
    assert not trunk.decay_norms


@pytest.mark.parametrize("checkpointing", [False, True])
def test_frozen_stages_receive_no_gradient(checkpointing):
    trunk = make_trunk("bert", gradient_checkpointing=checkpointing)
    named = parameters_by_name(trunk)
    freeze_layers(trunk, [*named["embeddings"], *named["layer.0"]])
    trunk.train()(make_inputs(trunk)).square().sum().backward()
    assert all(p.grad is None for stage in ("embeddings", "layer.0") for p in named[stage])
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in named["layer.1"] if p.ndim > 1)
