"""Texts encoded as a matrix of their own."""

from collections.abc import Sequence

import numpy as np

from mtlcli.data.formats.text_features import Matrix, TextEncoding, fill_text


def encode_text(texts: Sequence[str | None], encoding: TextEncoding) -> Matrix:
    """Return the features of N texts, float32 [N, F]."""
    out: Matrix = np.empty((len(texts), len(encoding.idf)), np.float32)
    fill_text(out, texts, np.arange(len(texts)), encoding, slice(None))
    return out
