from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from mtlcli.specs import IGNORE_INDEX, TargetSpec
from mtlcli.tasks.base import TaskKind
from tests.oracles import generation as oracle
from tests.tasks.labels import kind, loss_and_gradient

WORDS = ["<s>", "red", "green", "blue", "dress", "shirt", "the", "a"]


class Tokenizer:
    """A tokenizer of words, as far as the kind uses one; token 0 is special."""

    def get_vocab_size(self) -> int:
        return len(WORDS)

    def decode_batch(self, rows: list[list[int]], skip_special_tokens: bool) -> list[str]:
        assert skip_special_tokens
        return [" " + " ".join(WORDS[token] for token in row if token) for row in rows]


def make(average: str = "token", **options: Any) -> TaskKind:
    task = kind("generation", TargetSpec("text", missing=True), prompt="{text}", average=average, **options)
    task.use_tokenizer(Tokenizer())  # type: ignore[attr-defined]
    return task


def answers_of(rows: int, longest: int, missing: float = 0.0, seed: int = 0) -> list[list[int]]:
    rng = np.random.default_rng(seed)
    return [
        [] if rng.random() < missing else rng.integers(1, len(WORDS), rng.integers(1, longest + 1)).tolist()
        for _ in range(rows)
    ]


def as_labels(answers: list[list[int]], width: int, starts: list[int] | None = None) -> Tensor:
    labels = torch.full((len(answers), width), IGNORE_INDEX)
    for row, answer in enumerate(answers):
        start = 0 if starts is None else starts[row]
        labels[row, start : start + len(answer)] = torch.tensor(answer, dtype=torch.int64)
    return labels


def logits_of(rows: int, width: int, seed: int = 0) -> Tensor:
    return 2 * torch.randn(rows, width, len(WORDS), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("average", ["token", "example"])
@pytest.mark.parametrize("missing", [0.0, 0.4, 1.0])
def test_loss_and_gradient(average: str, missing: float) -> None:
    answers, logits = answers_of(12, 5, missing), logits_of(12, 5)
    value, gradient = oracle.loss(logits.double().numpy(), answers, average)
    got = loss_and_gradient(make(average), logits, as_labels(answers, 5))
    np.testing.assert_allclose(got[0], value, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(got[1], gradient, rtol=1e-5, atol=1e-8)


def test_place_of_the_labels_makes_no_difference() -> None:
    answers, logits, task = answers_of(6, 4), logits_of(6, 5), make()
    anywhere = as_labels(answers, 9, starts=[5, 0, 3, 4, 1, 2])
    torch.testing.assert_close(task.loss(logits, anywhere), task.loss(logits, as_labels(answers, 4)))


@pytest.mark.parametrize("average", ["token", "example"])
def test_weights_of_examples(average: str) -> None:
    """Batches of a step are combined by the sums of the weights of their labels."""
    answers, logits, task = answers_of(8, 5, 0.2), logits_of(8, 5), make(average)
    weights = [0.0, 1.0, 2.5, 1.0, 0.5, 3.0, 1.0, 0.0]
    expected = oracle.loss(logits.double().numpy(), answers, average, weights)[0]
    labels = as_labels(answers, 5)
    assert task.weighs_labels == (average == "example")
    weight = torch.tensor(weights) * (task.label_weights(labels) if task.weighs_labels else 1)
    assert task.loss(logits, labels, weight).item() == pytest.approx(expected, rel=1e-6)
    amounts = weight * (labels >= 0).sum(1)
    halves = [(task.loss(logits[s], labels[s], weight[s]), amounts[s].sum()) for s in (slice(0, 3), slice(3, 8))]
    combined = sum(float(loss * amount) for loss, amount in halves) / sum(float(amount) for _, amount in halves)
    assert combined == pytest.approx(expected, rel=1e-6)


def test_unlabelled_rows_have_no_effect() -> None:
    answers, logits, task = answers_of(5, 3), logits_of(5, 3), make()
    answers[2] = []
    logits[2] = torch.tensor([[math.inf], [-math.inf], [math.nan]])
    logits.requires_grad_()
    loss = task.loss(logits, as_labels(answers, 3))
    loss.backward()
    assert loss.isfinite() and logits.grad is not None and logits.grad.isfinite().all() and not logits.grad[2].any()


def test_loss_does_not_synchronize_with_the_device() -> None:
    logits = torch.empty(4, 3, len(WORDS), device="meta", requires_grad=True)
    make().loss(logits, as_labels(answers_of(4, 3), 3).to("meta")).backward()
    assert logits.grad is not None


def test_perplexity_is_that_of_all_tokens() -> None:
    task, answers, logits = make("example"), answers_of(9, 5, 0.3), logits_of(9, 5)
    metrics = task.metrics(torch.device("cpu"))
    for rows in (slice(0, 4), slice(4, 9)):
        metrics.update(logits[rows], as_labels(answers, 5)[rows])
    assert metrics.compute()["perplexity"] == pytest.approx(oracle.perplexity(logits.double().numpy(), answers))
    assert all(math.isnan(metrics.compute()[name]) for name in ("exact_match", "rouge_l", "chrf"))


def test_metrics_of_texts() -> None:
    task = make()
    answers = [[1, 4], [2, 5, 0], [6, 3, 5], []]
    generated = [[1, 4, 0], [2, 4], [6, 1, 5, 5], [7]]
    metrics = task.metrics(torch.device("cpu"))
    for rows in (slice(0, 1), slice(1, 4)):
        tokens = torch.stack([torch.tensor(row + [-1] * (4 - len(row))) for row in generated[rows]])
        metrics.update_texts(tokens, as_labels(answers, 3)[rows])
    values, texts = metrics.compute(), ["red dress", "green dress", "the red shirt shirt"]
    expected = ["red dress", "green shirt", "the blue shirt"]
    assert values["exact_match"] == pytest.approx(1 / 3)
    pairs = list(zip(texts, expected, strict=True))
    assert values["rouge_l"] == pytest.approx(sum(oracle.rouge_l(*pair) for pair in pairs) / 3, rel=1e-6)
    assert values["chrf"] == pytest.approx(oracle.chrf(texts, expected), rel=1e-6)


def test_equal_short_texts_have_the_best_chrf() -> None:
    metrics = make().metrics(torch.device("cpu"))
    metrics.update_texts(torch.tensor([[7, 0]]), torch.tensor([[7, 0]]))
    assert {name: value for name, value in metrics.compute().items() if name != "perplexity"} == {
        "exact_match": 1.0, "rouge_l": 1.0, "chrf": 1.0,
    }  # fmt: skip


def test_empty_texts() -> None:
    metrics = make().metrics(torch.device("cpu"))
    metrics.update_texts(torch.tensor([[0], [0]]), torch.tensor([[7], [1]]))
    assert [metrics.compute()[name] for name in ("exact_match", "rouge_l", "chrf")] == [0.0, 0.0, 0.0]


def test_weights_of_the_metrics() -> None:
    task, answers, logits = make(), [[1, 4], [2], [3, 5, 1]], logits_of(3, 3)
    twice = [*answers, answers[0]]
    weighted, repeated = (task.metrics(torch.device("cpu")) for _ in range(2))
    weighted.update(logits, as_labels(answers, 3), torch.tensor([2.0, 1.0, 0.0]))
    repeated.update(logits[[0, 1, 0]], as_labels(twice, 3)[[0, 1, 3]])
    tokens = torch.tensor([[1, 4, 0], [1, 0, 0], [3, 5, 1]])
    weighted.update_texts(tokens, as_labels(answers, 3), torch.tensor([2.0, 1.0, 0.0]))
    repeated.update_texts(tokens[[0, 1, 0]], as_labels(twice, 3)[[0, 1, 3]])
    for name in ("perplexity", "exact_match", "rouge_l"):
        assert weighted.compute()[name] == pytest.approx(repeated.compute()[name])


def test_number_of_texts_to_generate() -> None:
    task = make(generate=3)
    metrics = task.create_metrics(torch.device("cpu"))
    assert metrics.remaining() == 3
    metrics.update_texts(torch.tensor([[1], [1]]), torch.tensor([[7], [1]]))
    assert metrics.remaining() == 1
    assert make().create_metrics(torch.device("cpu")).remaining() is None
    task.choose_metrics(["perplexity"])
    metrics = task.create_metrics(torch.device("cpu"))
    assert metrics.remaining() == 0 and list(metrics.compute()) == ["perplexity"]


def test_answers_of_classes() -> None:
    target = TargetSpec("classes", 3, ("low", "mid", "high"))
    assert kind("generation", target, prompt="{x}").answers == ("low", "mid", "high")  # type: ignore[attr-defined]
    renamed = kind("generation", target, prompt="{x}", answers={"mid": "average"})
    assert renamed.answers == ("low", "average", "high")  # type: ignore[attr-defined]
    binary = kind("generation", TargetSpec("binary"), prompt="{x}", answers={"0": "no", "1": "yes"})
    assert binary.answers == ("no", "yes")  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match=r"no class 'hihg'\. Did you mean 'high'\?"):
        kind("generation", target, prompt="{x}", answers={"hihg": "x"})
    with pytest.raises(ValueError, match="'low' is the answer for several classes"):
        kind("generation", target, prompt="{x}", answers={"high": "low"})
    with pytest.raises(ValueError, match="has no classes"):
        kind("generation", TargetSpec("text"), prompt="{x}", answers={"a": "b"})


def test_decoding() -> None:
    assert make().decode(torch.tensor([[1, 4, 0, -1], [6, 0, -1, -1]])).labels == ["red dress", "the"]
