"""Exported models that read texts: tokens of any length, and the tokenizer next to the model."""

import json

import pytest
import torch
from tokenizers import Tokenizer

from mtlcli.config import experiment_from_dict
from mtlcli.training.assembly.build import build
from mtlcli.training.export import description_path, export
from mtlcli.training.text_export import tokenizer_path
from tests.models.pretrained.model_folders import make_folder

TEXTS = ["good film", "the plot a bad bad film", "a"]


@pytest.mark.parametrize("sharing", ["hard", pytest.param("ple", marks=pytest.mark.matrix)])
def test_a_program_accepts_tokens_of_any_length(tmp_path, monkeypatch, sharing):
    monkeypatch.chdir(tmp_path)
    rows = [f"{text},{good}" for text, good in [("good film", 1), ("bad plot", 0)] * 6]
    (tmp_path / "films.csv").write_text("\n".join(["text,good", *(f"{i} {row}" for i, row in enumerate(rows))]))
    make_folder(tmp_path / "model")
    run = build(
        experiment_from_dict(
            {
                "name": "films",
                "datasets": {"films": {"name": "table", "path": "films.csv", "text": ["text"], "targets": ["good"]}},
                "tasks": {"good": {"dataset": "films", "kind": "binary"}},
                "trunk": {"name": "transformers", "model": str(tmp_path / "model"), "max_length": 12, "layers": 1},
                "sharing": sharing,
            }
        )
    )
    path = tmp_path / "films.pt2"
    export(run, "torch-export", path)
    description = json.loads(description_path(path).read_text())
    assert description["inputs"]["films"]["shape"] == ["batch", 2, "tokens"]
    assert description["experiment"]["trunk"]["model"] == "model"
    tokenizer = Tokenizer.from_file(str(tokenizer_path(path)))
    encoded = [tokenizer.encode(text).ids for text in TEXTS]
    program = torch.export.load(path).module()
    for length in (8, 11):
        x = torch.full((len(TEXTS), 2, length), -1, dtype=torch.int32)
        for row, ids in enumerate(encoded):
            x[row, 0, : len(ids)], x[row, 1, : len(ids)] = torch.tensor(ids, dtype=torch.int32), 0
        with torch.no_grad():
            torch.testing.assert_close(program({"films": x})["good"], run.model({"films": x})["good"])
