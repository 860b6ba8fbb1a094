"""Experiments with small language models, on a table of words."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from tests.tokenizers import word_pieces

WORDS = ["red", "green", "blue", "black", "white", "pink", "grey", "gold"]
MODELS: dict[str, dict[str, Any]] = {
    "gpt2": {"model_type": "gpt2", "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 32, "resid_pdrop": 0.0,
             "embd_pdrop": 0.0, "attn_pdrop": 0.0, "bos_token_id": 3, "eos_token_id": 3},
    "llama": {"model_type": "llama", "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
              "num_attention_heads": 2, "tie_word_embeddings": False, "bos_token_id": 2, "eos_token_id": 3},
    "t5": {"model_type": "t5", "d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 1, "num_heads": 2,
           "dropout_rate": 0.0},
}  # fmt: skip
GENERATION: dict[str, Any] = {
    "reverse": {"dataset": "a", "target": "answer",
                "kind": {"name": "generation", "prompt": "reverse: {words} =", "max_new_tokens": 5}},
    "first": {"dataset": "b", "target": "first",
              "kind": {"name": "generation", "prompt": "first: {words} =", "max_new_tokens": 3}},
}  # fmt: skip
CLASSIFICATION: dict[str, Any] = {"last": {"dataset": "c", "target": "last", "kind": "classification"}}
TASKS = GENERATION | CLASSIFICATION


def write_table(folder: Path, rows: int = 120, words: int = 2) -> Path:
    """Write a table of texts of words, their reverse, and their first and last word; and a tokenizer of these words."""
    generator = random.Random(0)
    path = folder / "words.jsonl"
    with path.open("w") as file:
        for _ in range(rows):
            text = [generator.choice(WORDS) for _ in range(generator.randint(1, words) if words < 3 else words)]
            row = {"words": " ".join(text), "answer": " ".join(text[::-1]), "first": text[0], "last": text[-1]}
            file.write(json.dumps(row) + "\n")
    word_pieces([" ".join(WORDS), "reverse: first: ="] * 5, 90).save(str(folder / "tokenizer.json"))
    return path


def experiment(folder: Path, tasks: dict[str, Any] = TASKS, model: str = "gpt2", **changes: Any) -> dict[str, Any]:
    """Return an experiment on the table of a folder, in which each task has its own dataset."""
    table = {
        "name": "table", "path": str(folder / "words.jsonl"), "text": ["words"], "val": 0.1, "test": 0.1,
        "targets": {"answer": "text", "first": "classes", "last": "classes"},
    }  # fmt: skip
    vocabulary = word_pieces_size(folder)
    return {
        "name": "words", "datasets": {task["dataset"]: table for task in tasks.values()}, "tasks": tasks,
        "trunk": {"name": "transformers", "config": {**MODELS[model], "vocab_size": vocabulary},
                  "tokenizer": str(folder / "tokenizer.json"), "max_length": 24},
        "optimizer": {"name": "AdamW", "lr": 0.003}, "training": {"epochs": 1, "batch_size": 16, "device": "cpu",
                                                                   "threads": 1},
        **changes,
    }  # fmt: skip


def word_pieces_size(folder: Path) -> int:
    content = json.loads((folder / "tokenizer.json").read_text())
    return len(content["model"]["vocab"])
