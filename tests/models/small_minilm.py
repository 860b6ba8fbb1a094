"""A small model of random weights in the place of the pretrained `minilm`."""

from __future__ import annotations

from pathlib import Path

from mtlcli.pretrained import WEIGHTS
from tests.data.formats.text_tokenizers import small_tokenizer


def write_minilm(root: Path) -> Path:
    """Write the model below a data root, and return the root."""
    from transformers import BertConfig, BertModel

    folder = root / "minilm"
    config = BertConfig(vocab_size=120, hidden_size=8, num_hidden_layers=6, num_attention_heads=2, intermediate_size=8)
    BertModel(config).save_pretrained(folder)
    (folder / "tokenizer.json").write_text(small_tokenizer())
    for name in WEIGHTS["minilm"].files:
        if not (file := folder / name).exists():
            file.parent.mkdir(exist_ok=True)
            file.write_text("{}")
    return root
