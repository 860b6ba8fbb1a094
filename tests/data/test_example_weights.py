"""Weights of examples in batches."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from mtlcli.data.examples import concat_examples
from mtlcli.data.loader import Loader, evaluation_batches
from mtlcli.data.placement import Placement
from mtlcli.registry import samplers
from mtlcli.specs import has_label
from tests.data.batches import CPU, TASKS, examples

CLASSES = torch.tensor([0.5, 0.0, 2.0, 1.0, 1.0, 3.0, 1.0, 1.0, 1.0, 0.25])


def weighted_loader(class_weights: bool) -> tuple[Loader, torch.Tensor]:
    parts = examples()
    weights = torch.arange(len(parts["a"]), dtype=torch.float32).remainder(5)
    parts["a"] = replace(parts["a"], weights=weights)
    sampler = samplers["proportional"].target([len(split) for split in parts.values()], 7)
    given = {"digit": CLASSES} if class_weights else None
    return Loader(parts, TASKS, sampler, 0, Placement(CPU), class_weights=given), weights


@pytest.mark.parametrize("class_weights", [False, True])
def test_batches_carry_weights_of_the_loss_and_of_the_metrics(class_weights: bool) -> None:
    loader, weights = weighted_loader(class_weights)
    own: dict[tuple[int, ...], float] = {
        tuple(x.flatten().tolist()): w.item()
        for x, w in zip(examples()["a"].inputs, weights, strict=True)  # type: ignore[arg-type]
    }
    for batch in loader.epoch(0):
        assert batch.weights.keys() == batch.metric_weights.keys() == {"digit", "ink"}
        expected = torch.tensor([own[tuple(x.flatten().tolist())] for x in batch.inputs["a"]])
        labels = batch.targets["digit"]
        factors = torch.where(labels >= 0, CLASSES[labels.clamp(min=0)], 0.0) if class_weights else 1.0
        torch.testing.assert_close(batch.weights["digit"], expected * factors, rtol=0, atol=0)
        torch.testing.assert_close(batch.weights["ink"], expected, rtol=0, atol=0)
        for task in ("digit", "ink"):
            labelled = has_label(batch.targets[task])
            torch.testing.assert_close(batch.metric_weights[task], expected, rtol=0, atol=0)
            assert batch.counts[task] == batch.weights[task][labelled].double().sum().item()
            assert batch.labelled[task] == int((labelled & (expected > 0)).sum())
        assert batch.counts["garment"] == len(batch.inputs["b"])


def test_an_epoch_that_starts_in_the_middle_has_the_same_weights() -> None:
    loader, _ = weighted_loader(True)
    whole = list(loader.epoch(1))
    for batch, expected in zip(loader.epoch(1, start=3), whole[3:], strict=True):
        assert batch.counts == expected.counts
        torch.testing.assert_close(batch.weights, expected.weights, rtol=0, atol=0)


def test_class_weights_alone_are_no_weights_of_the_metrics() -> None:
    batches = list(evaluation_batches(examples(), TASKS, Placement(CPU), 10, {"digit": CLASSES}))
    assert [set(batch.weights) for batch in batches] == 3 * [{"digit"}] + 6 * [set()]
    assert not any(batch.metric_weights for batch in batches)
    labels = torch.cat([batch.targets["digit"] for batch in batches[:3]])
    assert sum(batch.labelled["digit"] for batch in batches[:3]) == int((labels >= 0).sum())
    assert sum(batch.counts["digit"] for batch in batches[:3]) == CLASSES[labels[labels >= 0]].sum().item()


def test_concatenated_splits_keep_their_weights() -> None:
    whole = examples()["b"]
    whole = replace(whole, weights=torch.arange(len(whole.inputs), dtype=torch.float32))
    assert whole.rows is not None
    splits = [replace(whole, rows=whole.rows[:20]), replace(whole, rows=whole.rows[20:])]
    joined = concat_examples(splits)
    assert joined.sample_weights() is not None
    torch.testing.assert_close(joined.sample_weights(), whole.rows.float())
    other = replace(splits[1], inputs=whole.inputs[:])  # type: ignore[index]
    torch.testing.assert_close(concat_examples([splits[0], other]).sample_weights(), whole.rows.float())
