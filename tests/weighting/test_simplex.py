from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mtlcli.weighting.solvers.simplex import project_onto_simplex, restrict_to_present
from tests.oracles import stochastic as oracle


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(-3, 3), min_size=1, max_size=12))
def test_projection_is_the_nearest_point(entries: list[float]) -> None:
    vector = torch.tensor(entries, dtype=torch.float64)
    point = project_onto_simplex(vector)
    np.testing.assert_allclose(point.numpy(), oracle.project(vector.numpy()), atol=1e-9)
    # at the nearest point, the gradient of the distance is constant over nonzero entries, and no smaller elsewhere
    slack = point - vector
    lowest = slack[point > 0].min()
    assert float(slack[point > 0].max() - lowest) < 1e-9 and float(slack.min() - lowest) > -1e-9


@pytest.mark.parametrize("shift", [0.0, 1e10, -1e30, 1e200])
@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30, 1e200])
def test_projection_of_vectors_of_any_scale(shift: float, scale: float) -> None:
    vector = scale * torch.tensor([0.3, -1.0, 0.2, -2.0], dtype=torch.float64) + shift
    point = project_onto_simplex(vector)
    assert point.isfinite().all() and (point >= 0).all() and float(point.sum()) == pytest.approx(1.0, rel=1e-12)
    assert float(point[0]) == float(point.max())


def test_projection_does_not_modify_the_vector() -> None:
    vector = torch.tensor([0.3, 2.0], dtype=torch.float64)
    project_onto_simplex(vector)
    assert vector.tolist() == [0.3, 2.0]


def test_restriction_to_present_tasks() -> None:
    shares, like = torch.tensor([0.5, 0.3, 0.2, 0.0]), torch.zeros((), dtype=torch.float64)
    shares_of_present, total = restrict_to_present(shares, [0, 2], like)
    torch.testing.assert_close(shares_of_present, torch.tensor([5 / 7, 2 / 7], dtype=torch.float64), atol=1e-6, rtol=0)
    assert float(total) == pytest.approx(0.7)
    assert restrict_to_present(shares, [3], like)[0].tolist() == [1.0]
