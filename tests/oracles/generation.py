"""Loss and perplexity of answers in NumPy's float64, token by token, and the metrics of texts by their definitions."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def token_losses(logits: Array, answers: Sequence[Sequence[int]]) -> list[list[float]]:
    """Return -log p of each token; the logits of a row are those of the tokens of its answer, in order."""
    return [
        [float(np.log(np.exp(row[at] - row[at].max()).sum()) + row[at].max() - row[at, token])
         for at, token in enumerate(answer)]
        for row, answer in zip(logits, answers, strict=True)
    ]  # fmt: skip


def loss(
    logits: Array, answers: Sequence[Sequence[int]], average: str, weights: Sequence[float] | None = None
) -> tuple[float, Array]:
    """Return the mean loss of the rows with an answer, and its gradient by the logits."""
    weights = [1.0] * len(answers) if weights is None else weights
    of_row = [
        0.0 if not a else w * (len(a) if average == "token" else 1) for a, w in zip(answers, weights, strict=True)
    ]
    total, gradient = sum(of_row), np.zeros_like(logits)
    value = 0.0
    for row, (answer, losses) in enumerate(zip(answers, token_losses(logits, answers), strict=True)):
        for at, token in enumerate(answer):
            share = of_row[row] / total / len(answer) if total else 0.0
            value += share * losses[at]
            p = np.exp(logits[row, at] - logits[row, at].max())
            gradient[row, at] = share * (p / p.sum() - (np.arange(logits.shape[2]) == token))
    return value, gradient


def perplexity(logits: Array, answers: Sequence[Sequence[int]]) -> float:
    losses = [x for row in token_losses(logits, answers) for x in row]
    return math.exp(sum(losses) / len(losses))


def rouge_l(text: str, answer: str) -> float:
    """Return the F-measure of the longest common subsequence of words (Lin 2004, equations 2 to 4, β = 1)."""
    a, b = text.split(), answer.split()
    table = np.zeros((len(a) + 1, len(b) + 1))
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            table[i + 1, j + 1] = table[i, j] + 1 if x == y else max(table[i, j + 1], table[i + 1, j])
    common = table[-1, -1]
    return 0.0 if not common else 2 * common / (len(a) + len(b))


def chrf(texts: Sequence[str], answers: Sequence[str], order: int = 6) -> float:
    """Return the F2-score of character n-grams (Popović 2015), averaged over the orders that both sides have."""
    scores = []
    for n in range(1, order + 1):
        common = generated = expected = 0
        for text, answer in zip(texts, answers, strict=True):
            a, b = (Counter(x[i : i + n] for i in range(len(x) - n + 1)) for x in map(_joined, (text, answer)))
            common += (a & b).total()
            generated, expected = generated + a.total(), expected + b.total()
        if generated and expected:
            p, r = common / generated, common / expected
            scores.append(5 * p * r / (4 * p + r) if common else 0.0)
    return sum(scores) / len(scores) if scores else 0.0


def _joined(text: str) -> str:
    return "".join(text.split())
