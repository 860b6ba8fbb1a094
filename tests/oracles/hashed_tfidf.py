"""Hashed TF-IDF by its definition, in Python and float64."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import numpy as np

MASK = 0xFFFFFFFF


def murmur3(data: bytes, seed: int = 0) -> int:
    """Return the signed 32-bit MurmurHash3 (x86) by Austin Appleby's description."""

    def rotate(x: int, by: int) -> int:
        return ((x << by) | (x >> (32 - by))) & MASK

    def scramble(block: int) -> int:
        return (rotate((block * 0xCC9E2D51) & MASK, 15) * 0x1B873593) & MASK

    state, whole = seed, len(data) - len(data) % 4
    for start in range(0, whole, 4):
        state ^= scramble(int.from_bytes(data[start : start + 4], "little"))
        state = (rotate(state, 13) * 5 + 0xE6546B64) & MASK
    state ^= scramble(int.from_bytes(data[whole:], "little"))
    state ^= len(data)
    state = ((state ^ (state >> 16)) * 0x85EBCA6B) & MASK
    state = ((state ^ (state >> 13)) * 0xC2B2AE35) & MASK
    state ^= state >> 16
    return state - (1 << 32) if state >= 1 << 31 else state


def count(text: str, features: int, ngrams: int) -> np.ndarray:
    """Return the sum of the signs of the word n-grams of each feature, [F]."""
    words = re.findall(r"\w+", text.lower())
    sums = np.zeros(features)
    for length in range(1, ngrams + 1):
        for start in range(len(words) - length + 1):
            value = murmur3(" ".join(words[start : start + length]).encode())
            sums[abs(value) % features] += 1 if value >= 0 else -1
    return sums


def inverse_document_frequencies(texts: Sequence[str], features: int, ngrams: int) -> np.ndarray:
    """Return ln((1 + n) / (1 + df)) + 1 of each feature, [F]."""
    appears = sum((count(text, features, ngrams) != 0).astype(int) for text in texts)
    return np.log((1 + len(texts)) / (1 + appears)) + 1


def encode(text: str | None, idf: np.ndarray, ngrams: int) -> np.ndarray:
    """Return the features of a text, scaled to the length 1, [F]."""
    vector = count(text or "", len(idf), ngrams) * idf
    norm = math.sqrt(float((vector**2).sum()))
    return vector / norm if norm else vector
