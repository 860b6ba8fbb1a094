"""Multi-task attention network against the paper's equations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mtlcli.models.model import MultiTaskModel
from mtlcli.models.sharing.base import SharingRecord, SharingStats
from mtlcli.models.sharing.hard import HardSharing
from mtlcli.models.sharing.mtan import MTAN, make_passage
from mtlcli.models.trunks.base import Trunk
from mtlcli.models.trunks.cnn import CNN
from mtlcli.models.trunks.mlp import MLP
from mtlcli.specs import TrunkPass
from tests.oracles import sharing as oracle

INPUTS = {"digit": "mnist", "parity": "mnist", "garment": "fashion"}
SHAPE = (1, 8, 8)
TRUNKS: dict[str, Callable[..., Trunk]] = {
    "mlp": lambda: MLP(SHAPE, hidden=[7, 5], features=6),
    "cnn": lambda: CNN(SHAPE, widths=[3, 4], features=6),
}


def make(trunk: str = "mlp", kind: type = MTAN, **options: Any) -> Any:
    torch.manual_seed(0)

    def make_trunk() -> Trunk:
        created = TRUNKS[trunk]()
        created.input_shape = SHAPE
        return created

    return kind(make_trunk, lambda task, width: nn.Linear(width, len(task)), INPUTS, **options)


def batches(**rows: int) -> dict[str, Tensor]:
    return {alias: torch.randn(n, *SHAPE) for alias, n in rows.items()}


def weights(module: nn.Module) -> list[dict[str, oracle.Array]]:
    """Return the parameters of each layer that has any."""
    layers = [layer.state_dict() for layer in module.children()]
    return [{name: value.numpy() for name, value in layer.items()} for layer in layers if layer]


def disturbed(sharing: Any) -> Any:
    """Convert to float64 and change the statistics and factors of batch norm from their initial values."""
    for module in sharing.double().eval().modules():
        if isinstance(module, nn.BatchNorm2d):
            for value in module.state_dict().values():
                value.copy_(torch.rand_like(value.double()) + 0.5)
    return sharing


@pytest.mark.parametrize("trunk", ["mlp", "cnn"])
@pytest.mark.parametrize("reduction", [1, 2])
def test_representations_match_the_paper(trunk: str, reduction: int) -> None:
    sharing = disturbed(make(trunk, reduction=reduction))
    inputs = {alias: x.double() for alias, x in batches(mnist=3, fashion=2).items()}
    actual = sharing.representations(inputs, list(INPUTS))
    for task, alias in INPUTS.items():
        _, activations = sharing.trunk.activations(inputs[alias], sharing.trunk.activation_names())
        expected, _ = oracle.mtan(
            [p.detach().numpy() for p in activations.values()],
            [weights(mask) for mask in sharing.attention[task].values()],
            [weights(f) for f in sharing.passages.values()],
        )
        np.testing.assert_allclose(actual[task].detach().numpy(), expected, rtol=1e-9, atol=1e-12)
    hidden = [mask[0].weight.shape[0] for mask in sharing.attention["digit"].values()]
    assert hidden == [n // reduction for n in ([7, 5, 6] if trunk == "mlp" else [3, 4, 6])]


@pytest.mark.parametrize("trunk", ["mlp", "cnn"])
def test_masks_of_ones_equal_hard_sharing(trunk: str) -> None:
    sharing, hard, inputs = make(trunk).eval(), make(trunk, kind=HardSharing).eval(), batches(mnist=3, fashion=2)
    sharing.trunk.load_state_dict(hard.trunk.state_dict())
    for bias, scale in ((50.0, 1), (-200.0, 0)):
        for masks in sharing.attention.values():
            for mask in masks.values():
                nn.init.zeros_(mask[-2].weight)
                nn.init.constant_(mask[-2].bias, bias)
        expected = hard.representations(inputs, list(INPUTS))
        for task, features in sharing.representations(inputs, list(INPUTS)).items():
            torch.testing.assert_close(features, expected[task] * scale)


def test_recorded_activations_are_those_of_hard_sharing() -> None:
    sharing, inputs, seen, passed = make("cnn").eval(), batches(mnist=5, fashion=3), list[TrunkPass](), []
    sharing.trunk.block1.register_forward_hook(lambda module, args, out: passed.append(len(args[0])))
    unseen = sharing.representations(inputs, ["garment", "digit"])
    actual = sharing.representations(inputs, ["garment", "digit"], SharingRecord(seen))
    assert passed == [8, 8]
    assert all(torch.equal(actual[task], unseen[task]) for task in ("garment", "digit"))
    hard, expected = make("cnn", kind=HardSharing).eval(), list[TrunkPass]()
    hard.trunk.load_state_dict(sharing.trunk.state_dict())
    hard.representations(inputs, ["garment", "digit"], SharingRecord(expected))
    assert seen[0].rows == expected[0].rows == {"fashion": 3, "mnist": 5}
    assert list(seen[0].activations) == list(expected[0].activations)
    for name, activation in expected[0].activations.items():
        torch.testing.assert_close(seen[0].activations[name], activation)
    assert sharing({}, []) == {}


def test_tasks_do_not_affect_the_attention_of_others() -> None:
    sharing = make("cnn").train()
    actual = sharing(batches(mnist=5, fashion=4), list(INPUTS))
    actual["digit"].square().sum().backward()
    for task in INPUTS:
        assert all((p.grad is not None) == (task == "digit") for p in sharing.attention[task].parameters())
    assert all(p.grad is not None for p in [*sharing.trunk.parameters(), *sharing.passages.parameters()])


def test_stats_contain_the_mean_of_each_mask() -> None:
    sharing, inputs = disturbed(make("cnn")), batches(mnist=4, fashion=2)
    stats = SharingStats()
    sharing({alias: x.double() for alias, x in inputs.items()}, list(INPUTS), SharingRecord(stats=stats))
    actual = stats.means()
    assert {task: list(means) for task, means in actual.items()} == {
        task: ["block1", "block2", "fc"] for task in INPUTS
    }
    _, activations = sharing.trunk.activations(inputs["mnist"].double(), sharing.trunk.activation_names())
    _, masks = oracle.mtan([p.detach().numpy() for p in activations.values()],
                           [weights(mask) for mask in sharing.attention["parity"].values()],
                           [weights(f) for f in sharing.passages.values()])  # fmt: skip
    assert list(actual["parity"].values()) == pytest.approx([mask.mean() for mask in masks])


def test_last_shared_layer_is_that_of_the_trunk() -> None:
    sharing = make()
    actual = MultiTaskModel(sharing, {}).last_shared_layer()
    assert [id(p) for p in actual] == [id(p) for p in sharing.trunk.fc3.parameters()]
    sharing.trunk.requires_grad_(False)
    actual = MultiTaskModel(sharing, {}).last_shared_layer()
    assert [id(p) for p in actual] == [id(p) for p in sharing.passages["fc3"].parameters()]


@pytest.mark.parametrize(
    ("shape", "following"),
    [((3, 8, 8), (4, 8, 8)), ((3, 8, 6), (4, 4, 3)), ((3, 7, 9), (2, 3, 4)), ((3, 12, 12), (5, 4, 4)),
     ((3, 4, 4), (2, 8, 9)), ((3, 5, 5), (4, 1, 1)), ((3, 4, 6), (7,)), ((5,), (7,))],
)  # fmt: skip
def test_passage_has_the_following_shape(shape: tuple[int, ...], following: tuple[int, ...]) -> None:
    out = make_passage(shape, following)(torch.randn(2, *shape))
    assert out.shape == (2, *following)
    assert out.is_contiguous(memory_format=torch.channels_last) or out.dim() == 2


def test_unsupported_stages_are_rejected() -> None:
    class Tokens(Trunk):
        """Trunk with 16 tokens of 4 pixels followed by a vector, or with feature maps after a vector."""

        def __init__(self, first: bool) -> None:
            super().__init__()
            self.features, self.input_shape, self.first = 8, SHAPE, first
            self.fc = nn.Linear(64, 8)

        def stages(self) -> dict[str, Callable[[Tensor], Tensor]]:
            if self.first:
                return {"patches": lambda x: x.reshape(-1, 16, 4), "fc": lambda x: self.fc(x.flatten(1))}
            return {"fc": lambda x: self.fc(x.flatten(1)), "maps": lambda x: x.reshape(-1, 2, 2, 2)}

    with pytest.raises(ValueError, match=r"a vector \[8\] after a sequence \[16, 4\]"):
        MTAN(lambda: Tokens(True), lambda task, width: nn.Linear(width, 1), INPUTS)
    with pytest.raises(ValueError, match=r"feature maps \[2, 2, 2\] after a vector \[8\]"):
        MTAN(lambda: Tokens(False), lambda task, width: nn.Linear(width, 1), INPUTS)
