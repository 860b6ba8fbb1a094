"""Shared-private model: representations and ownership of parameters."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mtlcli.models.inputs import Normalize
from mtlcli.models.model import MultiTaskModel
from mtlcli.models.sharing.base import SharingRecord
from mtlcli.models.sharing.hard import HardSharing
from mtlcli.models.sharing.shared_private import SharedPrivate
from mtlcli.models.trunks.cnn import CNN
from mtlcli.models.trunks.mlp import MLP
from mtlcli.models.warm_start import warm_start
from mtlcli.registry import weightings
from mtlcli.specs import TrunkPass
from mtlcli.training.assembly.build import build
from mtlcli.training.assembly.optimizers import make_optimizer
from mtlcli.training.step import Step
from tests.training.backward.test_gradient_backward import MIXED, WEIGHTS, Spy, Whole, batch
from tests.training.experiments import digits

INPUTS = {"digit": "mnist", "parity": "mnist", "garment": "fashion"}
SHAPE = (1, 8, 8)
TRUNK = 64 * 5 + 5 + 5 * 6 + 6


def make(trunk=MLP, kind=SharedPrivate):
    torch.manual_seed(0)
    options = {"hidden": [5]} if trunk is MLP else {}
    return kind(
        lambda: trunk(SHAPE, features=6, **options), lambda task, features: nn.Linear(features, len(task)), INPUTS
    )


def model() -> MultiTaskModel:
    return MultiTaskModel(make(), {"mnist": Normalize(SHAPE, [3.0], [2.0]), "fashion": Normalize(SHAPE, [4.0], [5.0])})


def batches(**rows: int) -> dict[str, Tensor]:
    return {alias: torch.randn(n, *SHAPE) for alias, n in rows.items()}


@pytest.mark.parametrize("trunk", [MLP, CNN])
def test_head_receives_shared_and_private_features(trunk):
    sharing, inputs = make(trunk).eval(), batches(mnist=5, fashion=3)
    actual = sharing(inputs, list(INPUTS))
    assert list(actual) == list(INPUTS)
    for task, alias in INPUTS.items():
        own = sharing.trunks()[f"private.{task}"]
        features = torch.cat([sharing.trunks()["trunk"](inputs[alias]), own(inputs[alias])], 1)
        torch.testing.assert_close(actual[task], sharing.heads[task](features))
        torch.testing.assert_close(sharing(inputs, [task])[task], actual[task])


def test_trunks_have_different_initial_parameters():
    trunks = make().trunks()
    assert list(trunks) == ["trunk", "private.digit", "private.parity", "private.garment"]
    first = [trunk.fc1.weight for trunk in trunks.values()]
    assert all(not torch.equal(a, b) for i, a in enumerate(first) for b in first[:i])


def test_only_requested_tasks_are_computed():
    sharing, passed = make(), []
    for name, trunk in sharing.trunks().items():
        trunk.register_forward_hook(lambda module, args, out, name=name: passed.append((name, len(args[0]))))
    sharing(batches(mnist=5, fashion=3), ["garment"])
    sharing(batches(mnist=2), ["parity", "digit"])
    assert passed == [("trunk", 3), ("private.garment", 3), ("trunk", 2), ("private.parity", 2), ("private.digit", 2)]
    assert sharing({}, []) == {}


def test_private_features_are_recorded():
    sharing, inputs, seen = make(), batches(mnist=5, fashion=3), list[TrunkPass]()
    sharing(inputs, ["garment", "digit"], SharingRecord(seen))
    (actual,) = seen
    assert actual.rows == {"fashion": 3, "mnist": 5}
    assert list(actual.private) == ["garment", "digit"]
    for task in actual.private:
        assert torch.equal(actual.private[task], sharing.trunks()[f"private.{task}"](inputs[INPUTS[task]]))
    together = torch.cat([inputs["fashion"], inputs["mnist"]])
    torch.testing.assert_close(actual.activations["features"], sharing.trunk(together))


def test_gradients_of_a_task_reach_the_shared_and_its_private_trunk():
    sharing, inputs = make(), batches(mnist=5, fashion=3)
    sharing(inputs, list(INPUTS))["parity"].square().sum().backward()
    reached = {name for name, trunk in sharing.trunks().items() if trunk.fc1.weight.grad is not None}
    assert reached == {"trunk", "private.parity"}
    assert [task for task in INPUTS if sharing.heads[task].weight.grad is not None] == ["parity"]


def test_private_trunk_belongs_to_its_task():
    whole = model()
    shared = whole.shared_parameters()
    assert {id(p) for p in shared} == {id(p) for p in whole.sharing.trunk.parameters()}
    tasks = {task: TRUNK + 12 * len(task) + len(task) for task in INPUTS}
    total = TRUNK + sum(tasks.values())
    assert whole.count_parameters() == {"shared": TRUNK, "tasks": tasks, "total": total, "trained": total}
    assert [id(p) for p in whole.last_shared_layer()] == [id(p) for p in whole.sharing.trunk.fc2.parameters()]


def test_keys_of_the_state_dict():
    names = list(model().state_dict())
    assert {"sharing.trunk.fc1.weight", "sharing.private_trunks.digit.fc1.weight", "sharing.heads.digit.weight"} < {
        *names
    }


def test_warm_start_needs_a_checkpoint_of_the_same_sharing():
    whole, other, hard = model(), make(), make(kind=HardSharing)
    with torch.no_grad():
        for p in whole.parameters():
            p.add_(1)
    warm_start(other, whole.state_dict(), "a.pt")
    for name, trunk in other.trunks().items():
        assert torch.equal(trunk.fc1.weight, whole.sharing.trunks()[name].fc1.weight)
    state = {f"sharing.{key}": value for key, value in hard.state_dict().items()}
    with pytest.raises(ValueError, match=r"private_trunks\.digit\.fc1\.weight is missing"):
        warm_start(other, state, "hard.pt")


ORTHOGONAL = {"name": "adversarial", "strength": 0.3, "schedule": "constant", "orthogonality": 0.7}


@pytest.mark.parametrize("terms", [[], [ORTHOGONAL]])
@pytest.mark.parametrize("weighting", ["spy", "whole", {"name": "spy", "gradients": "last_layer"}, "uniform"])
def test_own_parameters_receive_unweighted_gradients(weighting: Any, terms: list[Any]) -> None:
    """Like those of a head, they are not multiplied by the weight of a gradient-level weighting."""
    weightings.register("spy")(Spy)
    weightings.register("whole")(Whole)
    run = build(
        digits(
            datasets={alias: {"name": "digits", "val": 0.2} for alias in "ab"},
            tasks=MIXED,
            trunk={"name": "mlp", "hidden": [6], "features": 4},
            sharing="shared_private",
            weighting=weighting,
            regularizers=terms,
            optimizer={"name": "SGD", "lr": 0.1},
        )
    )
    whole, seen = batch(run, 0, 32), list[TrunkPass]()
    predictions = run.model(whole.inputs, None, SharingRecord(seen))
    losses = torch.stack([kind.loss(predictions[task], whole.targets[task]) for task, kind in run.kinds.items()])
    extra = sum(run.regularization.losses(seen, run.autocast()), torch.zeros(()))
    weights = torch.ones(4) if weighting == "uniform" else WEIGHTS.float()
    shared = run.model.shared_parameters()
    own = [p for p in [*run.model.parameters(), *run.regularization.parameters()] if all(p is not q for q in shared)]
    expected = [
        *torch.autograd.grad(weights @ losses + extra, shared, retain_graph=True),
        *torch.autograd.grad(losses.sum() + extra, own),
    ]
    Step(run, make_optimizer(run))([whole])
    for parameter, gradient in zip([*shared, *own], expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-3, atol=1e-6)
