from __future__ import annotations

import numpy as np
import pytest
import torch

from mtlcli.weighting.methods.dwa import DWA
from tests.oracles import loss_weightings as oracle
from tests.weighting.methods import history, tasks

NAN = float("nan")


def weights_of(weighting: DWA) -> torch.Tensor:
    count = len(weighting.tasks)
    return weighting.objective(torch.ones(count), range(count))[1]


@pytest.mark.parametrize("temperature", [0.5, 2.0, 10.0])
@pytest.mark.parametrize("count", [1, 3, 40])
def test_weights_of_each_epoch_match_the_paper(count: int, temperature: float) -> None:
    weighting, past = DWA(tasks(count), temperature=temperature), history(6, count)
    for epoch in range(1, 7):
        weighting.end_epoch(past[epoch - 1])
        expected = oracle.dwa(past[:epoch].double().tolist(), temperature)
        np.testing.assert_allclose(weights_of(weighting).numpy(), expected, rtol=1e-5)


@pytest.mark.parametrize("count", [1, 2, 3, 7, 49])
def test_weights_are_exactly_one_in_the_first_two_epochs(count: int) -> None:
    """A common bug: a ratio with losses of epochs that do not exist yet."""
    weighting, past = DWA(tasks(count)), history(2, count)
    assert torch.equal(weights_of(weighting), torch.ones(count))
    weighting.end_epoch(past[0])
    assert torch.equal(weights_of(weighting), torch.ones(count))
    weighting.end_epoch(past[1])
    assert count == 1 or not torch.equal(weights_of(weighting), torch.ones(count))


def test_slower_tasks_get_larger_weights() -> None:
    weighting = DWA(tasks(2))
    weighting.end_epoch(torch.tensor([1.0, 1.0]))
    weighting.end_epoch(torch.tensor([0.9, 0.1]))
    slow, fast = weights_of(weighting)
    assert slow > 1 > fast


def test_epochs_without_labels_do_not_count() -> None:
    weighting = DWA(tasks(2))
    for losses in ([1.0, 4.0], [0.5, NAN], [0.4, 3.0], [0.2, NAN]):
        weighting.end_epoch(torch.tensor(losses))
    # the first task's last two epochs, and the second's last two with labels
    np.testing.assert_allclose(weights_of(weighting).numpy(), oracle.dwa([[0.4, 4.0], [0.2, 3.0]]), rtol=1e-6)


def test_a_task_without_any_labels_has_rate_one() -> None:
    weighting = DWA(tasks(2))
    for losses in ([1.0, NAN], [0.5, NAN]):
        weighting.end_epoch(torch.tensor(losses))
    np.testing.assert_allclose(weights_of(weighting).numpy(), oracle.dwa([[1.0, 1.0], [0.5, 1.0]]), rtol=1e-6)
