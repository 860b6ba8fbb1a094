"""Folders of tiny models for tests: configuration, tokenizer and random weights."""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from mtlcli.models.pretrained.configs import make_config
from mtlcli.models.pretrained.networks import build_network

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "good", "bad", "film", "plot", "a", "the"]
BERT = {
    "model_type": "bert",
    "hidden_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 8,
    "vocab_size": len(WORDS),
    "max_position_embeddings": 16,
}


def make_tokenizer() -> str:
    """Return the JSON of a tokenizer of `WORDS`."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return tokenizer.to_str()


def make_folder(folder: Path, **config: object) -> Path:
    """Write the files of a tiny BERT.

    Args:
        folder: the folder, which is created.
        **config: further keys of config.json.

    Returns:
        The folder.
    """
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({**BERT, **config}), encoding="utf-8")
    (folder / "tokenizer.json").write_text(make_tokenizer(), encoding="utf-8")
    torch.manual_seed(0)
    network = build_network(make_config(BERT), (), "sdpa")
    save_file({name: p.detach().clone() for name, p in network.named_parameters()}, folder / "model.safetensors")
    return folder
