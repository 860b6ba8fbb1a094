"""Steps with weights of examples: equal to steps with repeated examples, and to accumulated ones."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from mtlcli.data.base import Examples
from mtlcli.data.loader import Batch
from mtlcli.errors import ConfigError
from mtlcli.specs import has_label
from mtlcli.training.assembly.weight_checks import check_weights
from tests.training.test_step import WEIGHTINGS, batch, make, parameters

WEIGHTS = torch.arange(64).remainder(4).float() / 2


def weighted(start: int, stop: int, missing: tuple[int, ...] = ()) -> Batch:
    """Return `batch` with weights of both tasks, those of `ink` reversed."""
    plain = batch(start, stop, missing)
    weights = {"digit": WEIGHTS[start:stop], "ink": WEIGHTS.flip(0)[start:stop]}
    counts = {t: float(w[has_label(plain.targets[t])].sum()) for t, w in weights.items()}
    return replace(plain, counts=counts, weights=weights)


@pytest.mark.parametrize("weighting", WEIGHTINGS)
@pytest.mark.parametrize("missing", [(), (0, 3, 40)])
def test_accumulated_batches_match_one_large_batch(weighting: Any, missing: tuple[int, ...]) -> None:
    whole_run, whole = make(weighting=weighting)
    parts_run, parts = make(weighting=weighting)
    for run in (whole_run, parts_run):
        object.__setattr__(run.kinds["digit"].target, "missing", True)
        run.weighting.end_epoch(torch.ones(2))
    for _ in range(2):
        single = whole([weighted(0, 64, missing)])
        several = parts([weighted(0, 20, missing), weighted(20, 27, missing), weighted(27, 64, missing)])
    torch.testing.assert_close(parameters(parts_run), parameters(whole_run), rtol=1e-4, atol=1e-6)
    assert single is not None and several is not None
    torch.testing.assert_close(several[0].losses, single[0].losses)
    assert several[1] == single[1] == [float(WEIGHTS[[i for i in range(64) if i not in missing]].sum()), 48.0]


@pytest.mark.parametrize("weighting", ["fixed", "uncertainty", "pcgrad", "sdmgrad", "graddrop"])
def test_weights_of_one_are_no_weights(weighting: str) -> None:
    plain_run, plain = make(weighting=weighting)
    ones_run, ones = make(weighting=weighting)
    given = batch(0, 64)
    plain([given])
    ones([replace(given, weights=dict.fromkeys(given.targets, torch.ones(64)), counts={"digit": 64.0, "ink": 64.0})])
    torch.testing.assert_close(parameters(ones_run), parameters(plain_run), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("weighting", ["fixed", "imtl_l", "mgda", "sdmgrad"])
def test_a_task_without_weights_in_a_step_is_absent(weighting: str) -> None:
    run, step = make(weighting=weighting)
    head = [p.detach().clone() for p in run.model.heads["digit"].parameters()]
    plain = batch(0, 64)
    zero = replace(plain, weights={"digit": torch.zeros(64)}, counts={"digit": 0.0, "ink": 64})
    result = step([zero])
    assert result is not None and result[0].losses.shape == (1,) and result[1] == [0.0, 64]
    assert all(torch.equal(p, q) for p, q in zip(run.model.heads["digit"].parameters(), head, strict=True))


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (torch.tensor([1.0, -2.0, 0.0]), "the weight of an example is -2, expected a number of at least 0"),
        (torch.tensor([1.0, torch.nan, 0.0]), "the weight of an example is nan"),
        (torch.tensor([1.0, torch.inf, 0.0]), "the weight of an example is inf"),
        (torch.zeros(3), "all examples have the weight 0"),
        (torch.ones(4), "4 weights for 3 examples"),
        (torch.ones(3).double(), "must be a float32 tensor"),
    ],
)
def test_wrong_weights(weights: torch.Tensor, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_weights(Examples(torch.zeros(3, 2), {}, weights=weights), "train", {})


def test_a_kind_that_does_not_accept_weights() -> None:
    class Metrics:
        def update(self, prediction: torch.Tensor, target: torch.Tensor) -> None: ...

    class Kind:
        def loss(self, prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor: ...  # type: ignore[empty-body]

        def create_metrics(self, device: torch.device) -> Metrics:
            return Metrics()

    kinds: Any = {"price": Kind()}
    with pytest.raises(ConfigError, match=r"'price' has weights, but its kind \(Kind\) doesn't support them: loss"):
        check_weights(Examples(torch.zeros(3, 2), {}, weights=torch.ones(3)), "train", kinds)
