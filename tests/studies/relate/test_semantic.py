"""Similarity of descriptions."""

import sys
from types import ModuleType

import numpy as np
import pytest

from mtlcli.errors import ConfigError, MtlError
from mtlcli.studies.relate.semantic import semantic_relation


def test_descriptions_with_common_words() -> None:
    texts = ["which digit is written", "which digit is written", "the garment of a shop", "digit or letter"]
    result = semantic_relation(list("abcd"), texts)
    assert result.matrix[0].tolist()[:3] == [1, 1, 0]
    assert 0 < result.matrix[0, 3] < 1
    assert result.numbers["embedding"] == "TF-IDF"


def test_description_without_words_is_undefined() -> None:
    assert semantic_relation(["a", "b", "c"], ["digit", "of the", "digit"]).undefined_pairs() == ["a–b", "b–c"]
    assert semantic_relation(["a", "b"], ["of the", "and"]).undefined_pairs() == ["a–b"]


def test_sentence_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    class SentenceTransformer:
        def __init__(self, name: str) -> None:
            if name != "small":
                raise OSError(f"no model {name}\nand much more")

        def encode(self, texts: list[str]) -> np.ndarray:
            return np.array([[len(text), 1] for text in texts], dtype=np.float32)

    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(ConfigError, match=r"pip install 'mtlcli\[text\]'"):
        semantic_relation(["a", "b"], ["x", "y"], "small")
    module = ModuleType("sentence_transformers")
    module.SentenceTransformer = SentenceTransformer  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "sentence_transformers", module)
    result = semantic_relation(["a", "b"], ["x", "yyy"], "small")
    assert result.matrix[0, 1] == pytest.approx(4 / np.sqrt(2 * 10))
    assert result.numbers["embedding"] == "small"
    with pytest.raises(MtlError, match=r"--encoder large: the model can't be loaded: no model large$"):
        semantic_relation(["a", "b"], ["x", "y"], "large")
