"""No sharing: a separate trunk for each task."""

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from mtlcli.models.sharing.none import NoSharing
from mtlcli.models.trunks.base import Trunk
from mtlcli.models.trunks.cnn import CNN
from mtlcli.models.trunks.mlp import MLP

INPUTS = {"digit": "mnist", "parity": "mnist", "garment": "fashion"}
SHAPE = (1, 8, 8)


def make(trunk: Callable[..., Trunk] = MLP, **options: Any) -> NoSharing:
    torch.manual_seed(0)
    return NoSharing(
        lambda: trunk(SHAPE, features=6, **options), lambda task, width: nn.Linear(width, len(task)), INPUTS
    )


def batches(**rows: int) -> dict[str, Tensor]:
    return {alias: torch.randn(n, *SHAPE) for alias, n in rows.items()}


def test_each_task_is_a_separate_model() -> None:
    """This includes training with batch norm: a trunk processes only the examples of its own task."""
    sharing, inputs = make(CNN, dropout=0.0), batches(mnist=5, fashion=4)
    kept = {task: deepcopy(sharing.own_modules(task)) for task in INPUTS}
    actual = sharing(inputs, list(INPUTS))
    for task, (head, trunk) in kept.items():
        torch.testing.assert_close(actual[task], head(trunk(inputs[INPUTS[task]])))
        mine = sharing.trunks()[task].state_dict()
        assert all(torch.equal(value, mine[name]) for name, value in trunk.state_dict().items())  # including statistics


def test_trunks_have_different_initial_parameters() -> None:
    trunks = make().trunks()
    assert list(trunks) == list(INPUTS)
    first = [trunk.fc1.weight for trunk in trunks.values()]
    assert all(not torch.equal(a, b) for i, a in enumerate(first) for b in first[:i])


def test_only_requested_tasks_are_computed() -> None:
    sharing, passed = make(), list[tuple[str, int]]()
    for name, trunk in sharing.trunks().items():
        trunk.register_forward_hook(lambda module, args, out, name=name: passed.append((name, len(args[0]))))
    sharing(batches(mnist=5, fashion=3), ["garment"])
    sharing(batches(mnist=2), ["parity", "digit"])
    assert passed == [("garment", 3), ("parity", 2), ("digit", 2)]
    assert sharing({}, []) == {}


def test_no_parameters_are_shared() -> None:
    assert make().shared_parameters() == []
