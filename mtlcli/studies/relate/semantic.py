"""`semantic`: how alike the tasks' descriptions are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mtlcli.errors import ConfigError, MtlError
from mtlcli.studies.relate.relation import Matrix, Relation, named, symmetric


def semantic_relation(tasks: Sequence[str], descriptions: Sequence[str], encoder: str | None = None) -> Relation:
    """The cosine of the embeddings of the tasks' descriptions.

    encoder: a model of sentence-transformers, by its name or folder. None: TF-IDF over these descriptions, without
    English stop words: it sees the words that descriptions share, not what they mean. A description without words is
    unrelated to all.
    """
    vectors = _tf_idf(descriptions) if encoder is None else _encoded(descriptions, encoder)
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    units = vectors / np.where(norms > 0, norms, np.nan)
    matrix = symmetric(np.clip((units[:, None] * units).sum(2), -1, 1).round(12))
    numbers = {
        "cosine": named(tasks, matrix),
        "interval": None,
        "interval_reason": "computed from the descriptions as given, not from a sample",
        "embedding": encoder or "TF-IDF",
        "descriptions": dict(zip(tasks, descriptions, strict=True)),
    }
    return Relation(list(tasks), matrix, numbers)


def _tf_idf(texts: Sequence[str]) -> Matrix:
    """[T, words]."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    try:
        found: Matrix = TfidfVectorizer(stop_words="english").fit_transform(texts).toarray()
    except ValueError:  # nothing but stop words
        return np.zeros((len(texts), 1))
    return found


def _encoded(texts: Sequence[str], encoder: str) -> Matrix:
    """[T, width] in float64. ConfigError where the package or the model isn't here."""
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError as error:
        message = "--encoder needs the package sentence-transformers: pip install 'mtlcli[text]'"
        raise ConfigError(message) from error
    try:
        found: Matrix = np.asarray(SentenceTransformer(encoder).encode(list(texts)), dtype=np.float64)
    except (OSError, ValueError, RuntimeError) as error:  # how the package tells of a model it can't get
        reason = str(error).partition("\n")[0]
        raise MtlError(f"--encoder {encoder}: the model can't be loaded: {reason}") from error
    return found
