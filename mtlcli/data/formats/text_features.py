"""Features of texts: hashed TF-IDF, fitted on the training texts."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from mtlcli.specs import MOST_COLUMNS, Column, TextFeature

Matrix = np.ndarray[tuple[int, int], np.dtype[np.float32]]
FEATURES = 512  # default number of features of a text
CHUNK = 4096  # texts encoded at once, which bounds the memory of intermediate results
WORD = r"(?u)\b\w+\b"  # letters, digits and underscores of any script
TextSize = Annotated[int, Field(ge=1, le=MOST_COLUMNS)]
"""Number of features of a text."""
Ngrams = Annotated[int, Field(ge=1, le=5)]
"""Number of words of the longest word n-grams."""


@dataclass(frozen=True)
class TextEncoding:
    """Encoding of texts as hashed TF-IDF.

    Attributes:
        ngrams: number of words of the longest word n-grams that are counted.
        idf: inverse document frequency of each of the F features.
    """

    ngrams: int
    idf: tuple[float, ...]

    def columns(self, name: str) -> tuple[Column, ...]:
        """Return the numeric columns that hold the features in the raw inputs of a table.

        The model doesn't standardize them separately, which would undo the weights of the words. It multiplies all of
        them by √F, so that their mean square is 1, like that of standardized numbers.

        Args:
            name: name of the text column.

        Returns:
            F columns, named `NAME[0]` to `NAME[F-1]`.
        """
        scale = 1 / math.sqrt(len(self.idf))
        return tuple(
            Column(f"{name}[{at}]", None, 0.0, scale, 0.0, scale, text=TextFeature(name, self.ngrams, idf))
            for at, idf in enumerate(self.idf)
        )


def fit_text(texts: Iterable[str | None], features: int = FEATURES, ngrams: int = 1) -> TextEncoding:
    """Fit the inverse document frequencies of hashed features on the training texts.

    With n texts, df_j of which have a feature j other than 0, idf_j = ln((1 + n) / (1 + df_j)) + 1 (scikit-learn's
    smooth idf).

    Args:
        texts: the training texts; None and blank texts are not counted.
        features: number F of features.
        ngrams: number of words of the longest word n-grams.

    Returns:
        The encoding.
    """
    present = [text for text in texts if text is not None and text.strip()]
    counts = np.zeros(features)
    for start in range(0, len(present), CHUNK):
        counts += np.bincount(_count_words(present[start : start + CHUNK], features, ngrams).indices, None, features)
    idf = np.log((1 + len(present)) / (1 + counts)) + 1
    return TextEncoding(ngrams, tuple(idf.tolist()))


def fill_text(
    out: Matrix, texts: Sequence[str | None], index: np.ndarray[Any, Any], encoding: TextEncoding, positions: Any
) -> None:
    """Write the hashed TF-IDF of texts into some columns of a matrix; each distinct text is encoded once.

    The text is lowercased and split into words (letters, digits and underscores). Each word n-gram is hashed by
    MurmurHash3 to one of F features and a sign, so that collisions cancel on average (Weinberger et al., 2009). The
    feature is the sum of the signs of its n-grams, times its idf. The vector of a text is scaled to the length 1; that
    of a missing text, or of one without a word, is 0.

    References:
        Weinberger, Dasgupta, Langford, Smola and Attenberg, "Feature Hashing for Large Scale Multitask Learning",
        ICML 2009, arXiv:0902.2206, section 2.

    Args:
        out: float32 [N, columns], changed in place.
        texts: the distinct texts; None for a missing one.
        index: [N], position in `texts` of the text of each row.
        encoding: the fitted encoding.
        positions: the F columns of `out`, as an index.
    """
    from scipy.sparse import vstack
    from sklearn.preprocessing import normalize

    idf = np.array(encoding.idf)
    parts = []
    for start in range(0, len(texts), CHUNK):
        words = _count_words(texts[start : start + CHUNK], len(idf), encoding.ngrams)
        words.data *= idf[words.indices]
        parts.append(normalize(words, copy=False).astype(np.float32))
    encoded = vstack(parts, "csr")
    for start in range(0, len(index), CHUNK):
        rows = slice(start, start + CHUNK)
        out[rows, positions] = encoded[index[rows]].toarray()


def _count_words(texts: Sequence[str | None], features: int, ngrams: int) -> Any:
    """Sum the signs of the n-grams of each feature: scipy's CSR matrix, float64 [N, features], without stored zeros."""
    from sklearn.feature_extraction.text import HashingVectorizer

    vectorizer = HashingVectorizer(n_features=features, ngram_range=(1, ngrams), norm=None, token_pattern=WORD)
    words = vectorizer.transform(text or "" for text in texts)
    words.eliminate_zeros()
    return words


def group_texts(columns: Collection[Column]) -> dict[str, tuple[list[int], TextEncoding]]:
    """Find the encodings of text columns among the columns of the raw inputs.

    Args:
        columns: columns of the raw inputs, in order.

    Returns:
        Name of a text column → positions of its features, and its encoding.
    """
    groups: dict[str, list[tuple[int, TextFeature]]] = {}
    for position, column in enumerate(columns):
        if column.text is not None:
            groups.setdefault(column.text.column, []).append((position, column.text))
    return {
        name: ([at for at, _ in group], TextEncoding(group[0][1].ngrams, tuple(feature.idf for _, feature in group)))
        for name, group in groups.items()
    }


def describe_texts(columns: Collection[Column]) -> list[dict[str, Any]]:
    """Describe the text columns of a table for users of an exported model.

    Args:
        columns: columns of the raw inputs, in order.

    Returns:
        One dict of plain data for each text column, with the position of its first feature.
    """
    return [
        {
            "position": positions[0],
            "name": name,
            "type": "text",
            "features": len(encoding.idf),
            "ngrams": encoding.ngrams,
            "idf": list(encoding.idf),
        }
        for name, (positions, encoding) in group_texts(columns).items()
    ]
