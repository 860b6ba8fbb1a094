"""Hard sharing."""

import pytest
import torch
from torch import Tensor, nn

from mtlcli.models.sharing.hard import HardSharing
from mtlcli.models.trunks.cnn import CNN
from mtlcli.models.trunks.mlp import MLP

INPUTS = {"digit": "mnist", "parity": "mnist", "garment": "fashion"}
SHAPE = (1, 8, 8)


def make(trunk=MLP) -> HardSharing:
    torch.manual_seed(0)
    return HardSharing(lambda: trunk(SHAPE, features=6), lambda task, features: nn.Linear(features, len(task)), INPUTS)


def batches(**rows: int) -> dict[str, Tensor]:
    return {alias: torch.randn(n, *SHAPE) for alias, n in rows.items()}


def test_all_datasets_pass_through_the_trunk_together():
    sharing, seen = make(), []
    sharing.trunk.register_forward_hook(lambda module, args, out: seen.append(len(args[0])))
    actual = sharing(batches(mnist=5, fashion=3), list(INPUTS))
    assert seen == [8]
    assert {task: tuple(p.shape) for task, p in actual.items()} == {
        "digit": (5, 5),
        "parity": (5, 6),
        "garment": (3, 7),
    }


@pytest.mark.parametrize("trunk", [MLP, CNN])
def test_joint_pass_equals_separate_passes(trunk):
    sharing, inputs = make(trunk).eval(), batches(mnist=5, fashion=3)
    joint = sharing(inputs, list(INPUTS))
    for task, alias in INPUTS.items():
        alone = sharing.heads[task](sharing.trunk(inputs[alias]))
        torch.testing.assert_close(joint[task], alone)
        torch.testing.assert_close(sharing(inputs, [task])[task], alone)


def test_only_requested_tasks_are_computed():
    sharing, seen = make(), []
    sharing.trunk.register_forward_hook(lambda module, args, out: seen.append(len(args[0])))
    assert list(sharing(batches(mnist=5, fashion=3), ["garment"])) == ["garment"]
    assert list(sharing(batches(mnist=2), ["parity", "digit"])) == ["parity", "digit"]
    assert seen == [3, 2]


def test_tasks_on_one_dataset_share_a_representation():
    actual = make().representations(batches(mnist=2, fashion=2), list(INPUTS))
    assert actual["digit"] is actual["parity"]


def test_gradients_of_all_tasks_reach_the_trunk():
    sharing, inputs = make(), batches(mnist=5, fashion=3)

    def gradient(tasks: list[str]) -> Tensor:
        loss = sum(p.square().sum() for p in sharing(inputs, tasks).values())
        return torch.autograd.grad(loss, sharing.trunk.fc1.weight)[0]

    torch.testing.assert_close(gradient(list(INPUTS)), sum(gradient([task]) for task in INPUTS))


def test_batch_norm_uses_the_joint_batch():
    sharing, inputs = make(CNN), batches(mnist=6, fashion=6)
    apart = sharing.trunk(inputs["mnist"])
    joint = sharing.representations(inputs, list(INPUTS))
    assert not torch.allclose(joint["digit"], apart)
    whole = sharing.heads["garment"].weight  # parameters of heads are not shared
    assert all(p is not whole for p in sharing.shared_parameters())


def test_shared_parameters_are_those_of_the_trunk():
    sharing = make()
    assert {id(p) for p in sharing.shared_parameters()} == {id(p) for p in sharing.trunk.parameters()}
