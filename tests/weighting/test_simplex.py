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
def test_is_the_nearest_point(entries: list[float]) -> None:
    vector = torch.tensor(entries, dtype=torch.float64)
    point = project_onto_simplex(vector)
    np.testing.assert_allclose(point.numpy(), oracle.project(vector.numpy()), atol=1e-9)
    # The gradient of the distance at the nearest point is one number where the point isn't 0, and no less where it is.
    slack = point - vector
    lowest = slack[point > 0].min()
    assert float(slack[point > 0].max() - lowest) < 1e-9 and float(slack.min() - lowest) > -1e-9


@pytest.mark.parametrize("shift", [0.0, 1e10, -1e30, 1e200])
@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30, 1e200])
def test_of_any_size(shift: float, scale: float) -> None:
    vector = scale * torch.tensor([0.3, -1.0, 0.2, -2.0], dtype=torch.float64) + shift
    point = project_onto_simplex(vector)
    assert point.isfinite().all() and (point >= 0).all() and float(point.sum()) == pytest.approx(1.0, rel=1e-12)
    assert float(point[0]) == float(point.max())


def test_leaves_the_vector_alone() -> None:
    vector = torch.tensor([0.3, 2.0], dtype=torch.float64)
    project_onto_simplex(vector)
    assert vector.tolist() == [0.3, 2.0]


def test_restricted_to_those_present() -> None:
    shares, like = torch.tensor([0.5, 0.3, 0.2, 0.0]), torch.zeros((), dtype=torch.float64)
    own, total = restrict_to_present(shares, [0, 2], like)
    torch.testing.assert_close(own, torch.tensor([5 / 7, 2 / 7], dtype=torch.float64), atol=1e-6, rtol=0)
    assert float(total) == pytest.approx(0.7)
    assert restrict_to_present(shares, [3], like)[0].tolist() == [1.0]
