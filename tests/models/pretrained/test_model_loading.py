"""Files of models in the forms that other programs write."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from mtlcli.errors import OptionError
from mtlcli.models.trunks.transformers import TransformersTrunk
from tests.models.pretrained.model_folders import make_folder

IDS = torch.tensor([[[2, 4, 6, 3], [0, 0, 0, 0]]], dtype=torch.int32)


def load(folder, **options):
    options = {"model": str(folder), "max_length": 8, **options}
    return TransformersTrunk((2, 8), TransformersTrunk.load_base(options), **options).eval()


def output(trunk):
    with torch.no_grad():
        return trunk(IDS)


@pytest.mark.parametrize(
    "rename",
    [
        lambda name: f"bert.{name}",
        lambda name: name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"),
    ],
)
def test_names_of_other_heads_and_of_old_files(tmp_path, rename):
    folder = make_folder(tmp_path / "model")
    expected, state = output(load(folder)), load_file(folder / "model.safetensors")
    extra = {"cls.predictions.bias": torch.zeros(3), "pooler.dense.weight": torch.zeros(8, 8)}
    save_file({rename(name): value for name, value in state.items()} | extra, folder / "model.safetensors")
    with torch.device("meta"):
        load(folder)
    assert torch.equal(output(load(folder)), expected)


def test_weights_of_low_precision_are_converted(tmp_path):
    folder = make_folder(tmp_path / "model", dtype="bfloat16")
    state = load_file(folder / "model.safetensors")
    save_file({name: value.bfloat16() for name, value in state.items()}, folder / "model.safetensors")
    trunk = load(folder)
    assert {p.dtype for p in trunk.parameters()} == {torch.float32}
    embeddings = trunk.network.embeddings.word_embeddings.weight
    assert torch.equal(embeddings, state["embeddings.word_embeddings.weight"].bfloat16().float())


@pytest.mark.parametrize(
    ("settings", "pool"),
    [
        (None, "mean"),
        ({"pooling_mode_cls_token": True}, "cls"),
        ({"pooling_mode_max_tokens": True}, "max"),
        ({"pooling_mode": "mean"}, "mean"),
        ({"pooling_mode": "lasttoken"}, "last"),
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True}, "cls"),  # concatenated, not supported
    ],
)
def test_the_pooling_of_sentence_transformers(tmp_path, settings, pool):
    folder = make_folder(tmp_path / "model")
    assert load(folder).pool == "cls"
    modules = [{"path": "", "type": "sentence_transformers.models.Transformer"},
               {"path": "1_Pooling", "type": "sentence_transformers.models.Pooling"}]  # fmt: skip
    (folder / "modules.json").write_text(json.dumps(modules))
    if settings is not None:
        (folder / "1_Pooling").mkdir()
        (folder / "1_Pooling" / "config.json").write_text(json.dumps(settings))
    assert load(folder).pool == pool
    assert load(folder, pool="max").pool == "max"


def test_a_model_in_the_cache_of_the_hub(tmp_path, monkeypatch):
    cached = tmp_path / "hub" / "models--org--tiny"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs" / "main").write_text("0" * 40)
    (cached / "snapshots").mkdir()
    make_folder(cached / "snapshots" / ("0" * 40))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    assert output(load("org/tiny")).shape == (1, 4, 8)


def test_a_tokenizer_of_its_own(tmp_path):
    folder, other = make_folder(tmp_path / "model"), make_folder(tmp_path / "other")
    tokenizer = (other / "tokenizer.json").read_text().replace("film", "book")
    (other / "tokenizer.json").write_text(tokenizer)
    (folder / "tokenizer.json").unlink()
    for path in (other, other / "tokenizer.json"):
        base = TransformersTrunk.load_base({"model": str(folder), "tokenizer": str(path)})
        assert base.tokenizer == tokenizer
    with pytest.raises(OptionError, match="tokenizer: no folder"):
        TransformersTrunk.load_base({"model": str(folder), "tokenizer": str(tmp_path / "absent")})
