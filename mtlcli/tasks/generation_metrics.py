"""Metrics of generated texts: perplexity, exact match, ROUGE-L and chrF."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from mtlcli.errors import ConfigError
from mtlcli.specs import has_label
from mtlcli.tasks.answers import token_losses
from mtlcli.tasks.binary_metrics import import_torchmetrics


class Answering(Protocol):
    """A task kind whose predictions are texts, as far as its metrics need it."""

    generate: int | None

    def texts(self, tokens: Tensor) -> list[str]:
        """Decode the tokens of texts, int64 [B, L]."""


NO_WORD = re.compile(r"[\W_]+")  # Unicode's letters and digits count as words, where rouge_score has ASCII only
LONGEST = 6  # characters of the longest n-grams of chrF


class GenerationMetrics:
    """Metrics of the answers of a language model, of a split.

    `update` receives the logits of the answers, `update_texts` the generated texts of the examples that `remaining`
    asks for.

    Args:
        kind: the task kind, which decodes the answers.
        names: the metrics to compute, in order.
        device: device of the logits.
    """

    def __init__(self, kind: Answering, names: Sequence[str], device: torch.device) -> None:
        self._kind, self._names = kind, list(names)
        exact = torch.float32 if device.type == "mps" else torch.float64  # MPS has no float64
        self._sums = torch.zeros(2, dtype=exact, device=device)  # of the losses of tokens, and of their weights
        self._generated: list[str] = []
        self._answers: list[str] = []
        self._weights: list[float] = []

    def update(self, prediction: Tensor, target: Tensor, weight: Tensor | None = None) -> None:
        """Add the logits of a batch.

        Args:
            prediction: logits, [B, A, vocabulary].
            target: tokens of the answers, int64 [B, L]; IGNORE_INDEX elsewhere.
            weight: weights of the examples, [B].
        """
        if "perplexity" not in self._names:
            return
        losses, amounts = token_losses(prediction, target, clean=True)
        sums = torch.stack([losses.sum(1), amounts.to(losses.dtype)]).to(self._sums.dtype)
        self._sums += (sums if weight is None else torch.where(weight > 0, sums * weight, 0.0)).sum(1)

    def remaining(self) -> int | None:
        """Return the number of examples whose generated texts are still needed; None for all, 0 for none."""
        if TEXT_METRICS.keys().isdisjoint(self._names):
            return 0
        return None if self._kind.generate is None else self._kind.generate - len(self._generated)

    def update_texts(self, tokens: Tensor, target: Tensor, weight: Tensor | None = None) -> None:
        """Add generated texts. Examples without an answer, or with weight 0, are ignored.

        Args:
            tokens: generated tokens, int64 [B, M]; negative where there are none.
            target: tokens of the answers, int64 [B, L].
            weight: weights of the examples, [B].
        """
        weights = torch.ones(len(target)) if weight is None else weight.cpu()
        kept = (has_label(target).cpu() & (weights > 0)).nonzero().flatten()
        self._generated += self._kind.texts(tokens.cpu()[kept])
        self._answers += self._kind.texts(target.cpu()[kept])
        self._weights += weights[kept].tolist()

    def compute(self) -> dict[str, float]:
        """Return metric → value over all batches; NaN where there was no example."""
        return {name: self._perplexity() if name == "perplexity" else self._compare(name) for name in self._names}

    def _perplexity(self) -> float:
        total, weight = self._sums.tolist()
        if not weight:
            return math.nan
        try:
            return math.exp(total / weight)
        except OverflowError:
            return math.inf

    def _compare(self, name: str) -> float:
        if not self._generated:
            return math.nan
        return TEXT_METRICS[name](self._generated, self._answers, self._weights)


def exact_match(generated: Sequence[str], answers: Sequence[str], weights: Sequence[float]) -> float:
    """Return the share of the generated texts that equal their answer, by weight."""
    pairs = zip(generated, answers, weights, strict=True)
    return sum(weight for text, answer, weight in pairs if text == answer) / sum(weights)


def rouge_l(generated: Sequence[str], answers: Sequence[str], weights: Sequence[float]) -> float:
    """Return the mean of ROUGE-L's F-measure, by weight; words are Unicode letters and digits in lower case."""
    score = _text_functions().rouge_score
    scores = [
        float(score(text, answer, rouge_keys="rougeL", normalizer=_split_words, tokenizer=str.split)["rougeL_fmeasure"])
        for text, answer in zip(generated, answers, strict=True)
    ]
    return sum(value * weight for value, weight in zip(scores, weights, strict=True)) / sum(weights)


def chrf(generated: Sequence[str], answers: Sequence[str], weights: Sequence[float]) -> float:
    """Return chrF, from 0 to 1, of all texts together, without word n-grams; weights have no part in it.

    N-grams that are longer than all answers or all generated texts are left out, as in sacreBLEU; in torchmetrics they
    count as errors, so that equal texts of one letter would have a score of 1/6.
    """
    longest = min(max(len("".join(text.split())) for text in texts) for texts in (generated, answers))
    references, order = [[answer] for answer in answers], max(1, min(LONGEST, longest))
    return float(_text_functions().chrf_score(generated, references, n_char_order=order, n_word_order=0))


TEXT_METRICS: dict[str, Callable[[Sequence[str], Sequence[str], Sequence[float]], float]] = {
    "exact_match": exact_match,
    "rouge_l": rouge_l,
    "chrf": chrf,
}


def _split_words(text: str) -> str:
    return NO_WORD.sub(" ", text.lower())


def _text_functions() -> Any:
    """Return torchmetrics' functions of texts. Raises a ConfigError if a package that they need is missing."""
    import_torchmetrics()
    from torchmetrics.functional import text
    from torchmetrics.utilities.imports import _NLTK_AVAILABLE, _ROUGE_SCORE_AVAILABLE

    if not (_NLTK_AVAILABLE and _ROUGE_SCORE_AVAILABLE):
        raise ConfigError("the metric rouge_l needs the packages nltk and rouge_score: pip install 'mtlcli[text]'")
    return text
