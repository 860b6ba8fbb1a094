"""Every weighting on all kinds of Jacobians in real training steps: float32, from backward passes."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from tests.weighting.documented_properties import LOSSES, PROPERTIES, deviation
from tests.weighting.training_steps import Runner, cases, names, register

NAMES = names()


@pytest.fixture(autouse=True)
def registered() -> None:
    register()


def check(name: str, counts: list[int], seeds: range) -> Counter[str]:
    """Run the weighting on every case, from its first state and in sequence; return the numbers of cases."""
    seen: Counter[str] = Counter()
    for count in counts:
        runner, running = Runner(name, count), Runner(name, count)
        running.start = {}  # keeps its state from case to case
        for seed in seeds:
            for case in cases(count, seed):
                where = (name, count, seed, case.name)
                weights, rows, update = runner(case)
                later, _, _ = running(case)
                for values in (weights, later):
                    assert values.isfinite().all() and PROPERTIES[name](values.double().numpy()), (where, values)
                gradients = [p.grad for p in runner.run.model.parameters() if p.grad is not None]
                assert all(gradient.isfinite().all() for gradient in gradients), where
                seen["cases"] += 1
                if name in LOSSES:
                    expected = torch.from_numpy(LOSSES[name](runner.losses.double().numpy()))
                    torch.testing.assert_close(weights.double(), expected, rtol=1e-5, atol=1e-6, msg=str(where))
                    seen["compared"] += 1
                elif rows is not None:
                    arrays = (rows.double().numpy(), weights.double().numpy())
                    error = deviation(name, *arrays, None if update is None else update.double().numpy(),
                                      runner.losses.double().numpy(), runner.weighting)  # fmt: skip
                    assert error is None or error <= 1e-4, (where, error)
                    seen["compared"] += error is not None
    return seen


@pytest.mark.parametrize("name", NAMES)
def test_finite_with_the_documented_properties_and_close_to_the_oracle(name: str) -> None:
    seen = check(name, [3], range(1))
    assert seen["cases"] == 15 and (seen["compared"] >= 5 or name == "rlw")


@pytest.mark.matrix
@pytest.mark.parametrize("name", NAMES)
def test_all_cases(name: str) -> None:
    seen = check(name, [1, 2, 3, 5, 10, 24, 64], range(3))
    print(name, dict(seen))
    assert seen["cases"] >= 200


def test_every_weighting_has_documented_properties() -> None:
    assert sorted(PROPERTIES) == NAMES
