from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from seqeval import metrics as seqeval
from sklearn.metrics import f1_score
from torch import Tensor

from mtlcli.specs import IGNORE_INDEX, TargetSpec
from mtlcli.tasks.base import TaskKind
from tests.oracles import text_losses as oracle
from tests.tasks.labels import kind

ENTITIES = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")
PARTS = ("NOUN", "VERB", "ADJ")
ROWS, LENGTH = 30, 7


def make(tags: tuple[str, ...] = PARTS, **options: Any) -> TaskKind:
    return kind("tagging", TargetSpec("tags", len(tags), tags, missing=True), **options)


def examples(tags: tuple[str, ...], missing: float = 0.3) -> tuple[Tensor, Tensor]:
    """Logits [B, L, tags] that are often right, and labels [B, L + 2], of which those beyond L are cut off."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, len(tags), (ROWS, LENGTH + 2), generator=generator)
    logits = torch.randn(ROWS, LENGTH, len(tags), generator=generator)
    logits += 2 * torch.nn.functional.one_hot(labels[:, :LENGTH], len(tags))
    labels[torch.rand(labels.shape, generator=generator) < missing] = IGNORE_INDEX
    labels[4] = IGNORE_INDEX
    return logits, labels


def as_lists(labels: Tensor) -> list[list[int | None]]:
    return [[None if tag == IGNORE_INDEX else tag for tag in row[:LENGTH]] for row in labels.tolist()]


def metrics(task: TaskKind, logits: Tensor, labels: Tensor, weight: Tensor | None = None) -> dict[str, float]:
    """Compute the metrics over batches whose longest sentences differ."""
    computed = task.create_metrics(torch.device("cpu"))
    for start, stop in ((0, 11), (11, 12), (12, ROWS)):
        rows = slice(start, stop)
        padding = torch.zeros(stop - start, start % 3, logits.shape[2])
        computed.update(
            torch.cat([logits[rows], padding], 1),
            torch.cat([labels[rows, :LENGTH], torch.full((stop - start, 5), IGNORE_INDEX)], 1),
            *(() if weight is None else (weight[rows],)),
        )
    return computed.compute()


@pytest.mark.parametrize("missing", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("weights", [None, "examples", "words"])
def test_loss(missing: float, weights: str | None) -> None:
    logits, labels = examples(PARTS, missing)
    generator = torch.Generator().manual_seed(1)
    shape = {"examples": (ROWS,), "words": (ROWS, LENGTH + 2)}.get(weights or "", (0,))
    weight = None if weights is None else torch.randint(0, 3, shape, generator=generator).float()
    loss = make().loss(logits, labels, weight)
    cut = None if weight is None else weight.double().numpy()[..., :LENGTH] if weights == "words" else weight.numpy()
    expected = oracle.tagging(logits.double().numpy(), as_lists(labels), cut)
    assert loss.item() == pytest.approx(expected, rel=1e-5) and loss.dtype == torch.float32


def test_mean_over_batches_weighted_by_their_words() -> None:
    logits, labels = examples(PARTS)
    parts = [slice(0, 4), slice(4, 5), slice(5, ROWS)]
    counts = [int((labels[rows, :LENGTH] != IGNORE_INDEX).sum()) for rows in parts]
    losses = [make().loss(logits[rows], labels[rows]).item() for rows in parts]
    mean = sum(loss * count for loss, count in zip(losses, counts, strict=True)) / sum(counts)
    assert mean == pytest.approx(make().loss(logits, labels).item(), rel=1e-6)


def test_label_smoothing_and_targets_shorter_than_the_prediction() -> None:
    logits, labels = examples(PARTS, 0.0)
    loss = make(label_smoothing=0.1).loss(logits, labels[:, :3])
    flat = logits[:, :3].flatten(0, 1)
    expected = torch.nn.functional.cross_entropy(flat, labels[:, :3].flatten(), label_smoothing=0.1)
    torch.testing.assert_close(loss, expected)


def test_entities_have_seqevals_metrics() -> None:
    logits, labels = examples(ENTITIES)
    task = make(ENTITIES)
    task.choose_metrics(["accuracy", "precision", "recall", "f1", "f1_per_entity", "recall[LOC]"])
    guesses = logits.argmax(2).tolist()
    true, predicted = [], []
    for row, sentence in enumerate(as_lists(labels)):
        kept = [at for at, tag in enumerate(sentence) if tag is not None]
        true.append([ENTITIES[sentence[at]] for at in kept])  # type: ignore[index]
        predicted.append([ENTITIES[guesses[row][at]] for at in kept])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loc, per = seqeval.f1_score(true, predicted, average=None)
        expected = {
            "accuracy": seqeval.accuracy_score(true, predicted),
            "precision": seqeval.precision_score(true, predicted),
            "recall": seqeval.recall_score(true, predicted),
            "f1": seqeval.f1_score(true, predicted),
            "f1[LOC]": loc,
            "f1[PER]": per,
            "recall[LOC]": seqeval.recall_score(true, predicted, average=None)[0],
        }
    assert metrics(task, logits, labels) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("tags", [ENTITIES, PARTS])
def test_a_weight_counts_as_equal_sentences(tags: tuple[str, ...]) -> None:
    logits, labels = examples(tags)
    weight = torch.randint(0, 4, (ROWS,), generator=torch.Generator().manual_seed(2)).float()
    task = make(tags)
    rows = torch.arange(ROWS).repeat_interleave(weight.long())
    repeated = task.create_metrics(torch.device("cpu"))
    repeated.update(logits[rows], labels[rows])
    assert metrics(task, logits, labels, weight) == pytest.approx(repeated.compute(), rel=1e-12)
    assert task.loss(logits, labels, weight).item() == pytest.approx(task.loss(logits[rows], labels[rows]).item())


def test_other_tags_have_macro_metrics() -> None:
    logits, labels = examples(PARTS)
    task = make()
    task.choose_metrics(["f1", "f1_per_tag", "log_loss"])
    mask = labels[:, :LENGTH] != IGNORE_INDEX
    true, guess = labels[:, :LENGTH][mask].numpy(), logits.argmax(2)[mask].numpy()
    values = f1_score(true, guess, average=None)
    expected = {"f1": values.mean(), **{f"f1[{tag}]": value for tag, value in zip(PARTS, values, strict=True)}}
    expected["log_loss"] = make().loss(logits, labels).item()
    assert metrics(task, logits, labels) == pytest.approx(expected, rel=1e-6)


def test_metrics_for_another_form_of_tags_are_refused() -> None:
    with pytest.raises(
        ValueError, match=r"'f1_per_entity' does not apply.*\(NOUN, VERB, ADJ, …\); choose 'f1_per_tag'"
    ):
        make().choose_metrics(["f1_per_entity"])
    with pytest.raises(ValueError, match="'recall_per_tag' does not apply, since the tags mark entities"):
        make(ENTITIES).choose_metrics(["recall_per_tag"])
    with pytest.raises(ValueError, match=r"no class 'PERS'.*PER"):
        make(ENTITIES).choose_metrics(["f1[PERS]"])


def test_decoding() -> None:
    logits = torch.tensor([[[2.0, 0, 0], [0, 0, 1]], [[0, 3, 0], [math.nan] * 3]])
    decoded = make().decode(logits)
    assert decoded.labels == [["NOUN", "ADJ"], ["VERB", None]]
    assert decoded.indices is not None and decoded.indices.tolist() == [[0, 2], [1, -1]]
    assert decoded.probabilities is not None
    np.testing.assert_allclose(decoded.probabilities[0].sum(1), 1.0, rtol=1e-6)
