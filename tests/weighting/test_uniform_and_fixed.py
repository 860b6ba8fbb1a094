from __future__ import annotations

import numpy as np
import torch

from mtlcli.weighting.base import WeightedTask
from tests.oracles import loss_weightings as oracle
from tests.weighting.methods import create, tasks

LOSSES = [0.3, 2.0, 1.5]
LAMBDAS = [0.25, 1.0, 4.0]


def test_uniform_is_the_sum() -> None:
    objective, weights = create("uniform", tasks(3)).objective(torch.tensor(LOSSES), [0, 1, 2])
    expected, expected_weights = oracle.uniform(np.array(LOSSES))
    np.testing.assert_allclose(objective.item(), expected, rtol=1e-6)
    np.testing.assert_array_equal(weights.numpy(), expected_weights)


def test_fixed_uses_the_weights_of_the_tasks() -> None:
    weighting = create("fixed", [WeightedTask(str(weight), weight) for weight in LAMBDAS])
    objective, weights = weighting.objective(torch.tensor(LOSSES), [0, 1, 2])
    expected, expected_weights = oracle.fixed(np.array(LOSSES), LAMBDAS)
    np.testing.assert_allclose(objective.item(), expected, rtol=1e-6)
    np.testing.assert_array_equal(weights.numpy(), expected_weights)


def test_fixed_has_no_state() -> None:
    assert not create("fixed", tasks(3)).state_dict()
