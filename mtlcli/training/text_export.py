"""Texts as inputs of an exported model."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mtlcli.specs import DatasetSpec
from mtlcli.text_spec import TextSpec

TOKENIZER = ".tokenizer.json"  # end of the name of the tokenizer's file
LONGEST = 255  # maximum length of a file name in bytes
TOKENS = (
    "the ids of the tokens in the first plane, and their types in the second (0 for the first text, 1 for the second "
    "text of a pair); both -1 after the last token of an example. The tokens are those of the tokenizer, with its "
    "special tokens, truncated to max_length"
)


def tokenizer_path(path: Path) -> Path:
    """Return the path of the tokenizer of an exported file: `best.onnx` → `best.onnx.tokenizer.json`."""
    name = os.fsencode(path.name)[: LONGEST - len(TOKENIZER)]
    return path.with_name(os.fsdecode(name) + TOKENIZER)


def describe_text_input(texts: TextSpec) -> dict[str, Any]:
    """Describe the tokens that an exported model reads.

    Args:
        texts: description of the texts.

    Returns:
        Shape, type and encoding, as plain data.
    """
    *planes, _ = texts.input_shape
    return {
        "shape": ["batch", *planes, "tokens"],
        "dtype": "int32",
        "encoding": TOKENS,
        "columns": list(texts.columns),
        "max_length": texts.max_length,
        "tokenizer": f"the file with {TOKENIZER} at the end of this model's name; see the library tokenizers",
    }


def dynamic_lengths(specs: Mapping[str, DatasetSpec], inputs: Mapping[str, Tensor]) -> dict[str, dict[int, Any]]:
    """Return the dimensions of texts that may differ from those of the example.

    The texts of all datasets in a call have the same length.

    Args:
        specs: alias → description of the dataset.
        inputs: alias → example.

    Returns:
        Alias → position of the dimension → its size, for the datasets of texts.
    """
    longest = [spec.text.max_length for spec in specs.values() if spec.text is not None]
    if not longest or min(longest) < 3:
        return {}
    length = torch.export.Dim("length", min=2, max=min(longest))
    return {alias: {inputs[alias].ndim - 1: length} for alias, spec in specs.items() if spec.text is not None}
