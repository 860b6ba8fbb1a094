from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
import torch

from mtlcli.weighting.methods.rlw import RLW
from tests.oracles import loss_weightings as oracle
from tests.weighting.methods import tasks


def draws(seed: int, steps: int = 5, count: int = 4) -> torch.Tensor:
    weighting = RLW(tasks(count))
    weighting.seed(seed)
    rows = []
    for _ in range(steps):
        weighting.start_step()
        rows.append(weighting.objective(torch.ones(count), range(count))[1])
    return torch.stack(rows)


@pytest.mark.parametrize(("distribution", "draw"), [("normal", torch.randn), ("uniform", torch.rand)])
@pytest.mark.parametrize("present", [[0, 1, 2, 3], [1, 3]])
def test_weights_are_the_softmax_of_the_draw(
    distribution: Literal["normal", "uniform"], draw: object, present: list[int]
) -> None:
    weighting = RLW(tasks(4), distribution=distribution)
    weighting.seed(7)
    generator = torch.Generator().manual_seed(7)
    for _ in range(3):
        weighting.start_step()
        z = draw(4, generator=generator)[present].double().numpy()  # type: ignore[operator]
        losses = torch.rand(len(present), generator=torch.Generator().manual_seed(1))
        objective, weights = weighting.objective(losses, present)
        np.testing.assert_allclose(weights.numpy(), oracle.rlw(z), rtol=1e-5)
        np.testing.assert_allclose(objective.item(), float((oracle.rlw(z) * losses.numpy()).sum()), rtol=1e-5)


def test_the_seed_determines_the_weights() -> None:
    assert torch.equal(draws(seed=1), draws(seed=1))
    assert not torch.equal(draws(seed=1), draws(seed=2))


def test_micro_batches_of_a_step_share_one_draw() -> None:
    weighting = RLW(tasks(4))
    weighting.start_step()
    first, second = (weighting.objective(torch.ones(4), range(4), share=0.5)[1] for _ in range(2))
    weighting.start_step()
    third = weighting.objective(torch.ones(4), range(4))[1]
    assert torch.equal(first, second) and not torch.equal(second, third)


def test_start_step_is_required() -> None:
    with pytest.raises(AssertionError, match="start_step"):
        RLW(tasks(2)).objective(torch.ones(2), [0, 1])


def test_all_tasks_have_the_same_mean_weight() -> None:
    means = draws(seed=0, steps=4000).mean(0)
    np.testing.assert_allclose(means.numpy(), 1.0, atol=0.06)
