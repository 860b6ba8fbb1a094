"""Measure `semantic`: similarity of the descriptions of the tasks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mtlcli.errors import ConfigError, MtlError
from mtlcli.studies.relate.relation import Matrix, Relation, name_matrix, symmetrize


def semantic_relation(tasks: Sequence[str], descriptions: Sequence[str], encoder: str | None = None) -> Relation:
    """Compute the cosine similarity of the embeddings of the descriptions.

    TF-IDF vectors over these descriptions, without English stop words, measure shared words and not meaning. A
    description without words has no value.

    Args:
        tasks: names of the tasks, [T].
        descriptions: their descriptions, [T].
        encoder: name or folder of a model of sentence-transformers; None: TF-IDF.

    Returns:
        The relation.
    """
    vectors = _embed_tf_idf(descriptions) if encoder is None else _embed_sentences(descriptions, encoder)
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    units = vectors / np.where(norms > 0, norms, np.nan)
    matrix = symmetrize(np.clip((units[:, None] * units).sum(2), -1, 1).round(12))
    numbers = {
        "cosine": name_matrix(tasks, matrix),
        "interval": None,
        "interval_reason": "computed from the descriptions as given, not from a sample",
        "embedding": encoder or "TF-IDF",
        "descriptions": dict(zip(tasks, descriptions, strict=True)),
    }
    return Relation(list(tasks), matrix, numbers)


def _embed_tf_idf(texts: Sequence[str]) -> Matrix:
    """TF-IDF vectors, [T, words]."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    try:
        vectors: Matrix = TfidfVectorizer(stop_words="english").fit_transform(texts).toarray()
    except ValueError:  # only stop words
        return np.zeros((len(texts), 1))
    return vectors


def _embed_sentences(texts: Sequence[str], encoder: str) -> Matrix:
    """Sentence embeddings in float64, [T, width]; ConfigError without the package, MtlError without the model."""
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError as error:
        message = "--encoder needs the package sentence-transformers: pip install 'mtlcli[text]'"
        raise ConfigError(message) from error
    try:
        vectors: Matrix = np.asarray(SentenceTransformer(encoder).encode(list(texts)), dtype=np.float64)
    except (OSError, ValueError, RuntimeError) as error:  # raised by the package if it can't load the model
        reason = str(error).partition("\n")[0]
        raise MtlError(f"--encoder {encoder}: the model can't be loaded: {reason}") from error
    return vectors
