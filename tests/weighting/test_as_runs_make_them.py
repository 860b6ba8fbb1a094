"""Every weighting on Jacobians of every kind, as a run makes them: float32, by backward passes through a real step."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from tests.weighting.promises import LOSSES, PROMISES, deviation
from tests.weighting.real_steps import Runner, cases, names, register

NAMES = names()


@pytest.fixture(autouse=True)
def made_up(plugins_forgotten: None) -> None:
    register()


def check(name: str, counts: list[int], seeds: range) -> Counter[str]:
    """Steps of the weighting on every case, from its first state and in sequence; how many of each there were."""
    seen: Counter[str] = Counter()
    for count in counts:
        runner, running = Runner(name, count), Runner(name, count)
        running.start = {}  # keeps its state from case to case
        for seed in seeds:
            for case in cases(count, seed):
                where = (name, count, seed, case.name)
                weights, rows, update = runner(case)
                later, _, _ = running(case)
                for made in (weights, later):
                    assert made.isfinite().all() and PROMISES[name](made.double().numpy()), (where, made)
                gradients = [p.grad for p in runner.run.model.parameters() if p.grad is not None]
                assert all(gradient.isfinite().all() for gradient in gradients), where
                seen["cases"] += 1
                if name in LOSSES:
                    expected = torch.from_numpy(LOSSES[name](runner.losses.double().numpy()))
                    torch.testing.assert_close(weights.double(), expected, rtol=1e-5, atol=1e-6, msg=str(where))
                    seen["compared"] += 1
                elif rows is not None:
                    given = (rows.double().numpy(), weights.double().numpy())
                    found = deviation(name, *given, None if update is None else update.double().numpy(),
                                      runner.losses.double().numpy(), runner.weighting)  # fmt: skip
                    assert found is None or found <= 1e-4, (where, found)
                    seen["compared"] += found is not None
    return seen


@pytest.mark.parametrize("name", NAMES)
def test_finite_as_promised_and_near_the_oracle(name: str) -> None:
    seen = check(name, [2, 5], range(1))
    assert seen["cases"] == 30 and (seen["compared"] >= 10 or name == "rlw")


@pytest.mark.matrix
@pytest.mark.parametrize("name", NAMES)
def test_the_whole_matrix(name: str) -> None:
    seen = check(name, [1, 2, 3, 5, 10, 24, 64], range(3))
    print(name, dict(seen))
    assert seen["cases"] >= 200


def test_every_weighting_has_a_promise() -> None:
    assert sorted(PROMISES) == NAMES
