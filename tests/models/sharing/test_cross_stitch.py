"""Cross-stitch networks against the paper's equation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mtlcli.models.model import MultiTaskModel
from mtlcli.models.sharing.base import SharingRecord, SharingStats
from mtlcli.models.sharing.cross_stitch import CrossStitch
from mtlcli.models.sharing.none import NoSharing
from mtlcli.models.trunks.base import Trunk
from mtlcli.models.trunks.cnn import CNN
from mtlcli.models.trunks.lenet import LeNet
from mtlcli.models.trunks.mlp import MLP
from tests.oracles import sharing as oracle

INPUTS = {"digit": "mnist", "parity": "mnist", "garment": "fashion"}
TRUNKS: dict[str, tuple[Callable[..., Trunk], tuple[int, ...], dict[str, Any]]] = {
    "mlp": (MLP, (1, 8, 8), {"hidden": [5]}),
    "lenet": (LeNet, (1, 16, 16), {"channels": 2, "hidden": 5}),
    "cnn": (CNN, (1, 8, 8), {"widths": [3, 4]}),
}


def make(trunk: str = "mlp", inputs: dict[str, str] = INPUTS, kind: type = CrossStitch, **options: Any) -> Any:
    created, shape, rest = TRUNKS[trunk]
    torch.manual_seed(0)

    def make_trunk() -> Trunk:
        trunk = created(shape, features=6, **rest)
        trunk.input_shape = shape
        return trunk

    return kind(make_trunk, lambda task, width: nn.Linear(width, len(task)), inputs, **options)


def batches(trunk: str = "mlp", **rows: int) -> dict[str, Tensor]:
    return {alias: torch.randn(n, *TRUNKS[trunk][1]) for alias, n in rows.items()}


def alphas(sharing: Any) -> list[oracle.Array | None]:
    """Return α, [T, T, C], after each stage of the trunk; None if no unit follows the stage."""
    units = sharing.stitches
    return [
        torch.stack([units[name][task].alpha.detach() for task in INPUTS]).numpy() if name in units else None
        for name in sharing.trunks()["digit"].stages()
    ]


def numpy(stage: Callable[[Tensor], Tensor]) -> Callable[[oracle.Array], oracle.Array]:
    return lambda x: stage(torch.from_numpy(x)).detach().numpy()


@pytest.mark.parametrize(
    ("trunk", "stages"),
    [
        ("mlp", None),
        ("lenet", None),
        ("cnn", None),
        ("lenet", ["conv2"]),
        ("lenet", ["fc1", "conv1"]),
        ("mlp", ["fc2"]),
    ],
)
def test_representations_match_the_paper(trunk: str, stages: list[str] | None) -> None:
    sharing = make(trunk, stages=stages).double().eval()
    with torch.no_grad():
        for parameter in sharing.stitches.parameters():
            parameter.copy_(torch.rand_like(parameter))
    inputs = {alias: x.double() for alias, x in batches(trunk, mnist=3, fashion=2).items()}
    actual = sharing.representations(inputs, list(INPUTS))
    chains = [[numpy(stage) for stage in trunk.stages().values()] for trunk in sharing.trunks().values()]
    for alias, x in inputs.items():
        wanted = oracle.cross_stitch(chains, alphas(sharing), x.numpy())
        for task, expected in zip(INPUTS, wanted, strict=True):
            if INPUTS[task] == alias:
                np.testing.assert_allclose(actual[task].detach().numpy(), expected, rtol=1e-9, atol=1e-12)


def test_one_scalar_per_activation_equals_the_same_scalar_per_channel() -> None:
    single, many = make("lenet", per_channel=False, init=0.6).eval(), make("lenet", init=0.6).eval()
    assert [tuple(p.shape) for p in single.stitches["conv1"].parameters()] == [(3, 1)] * 3
    inputs = batches("lenet", mnist=3, fashion=2)
    for a, b in zip(single(inputs, list(INPUTS)).values(), many(inputs, list(INPUTS)).values(), strict=True):
        torch.testing.assert_close(a, b)


def test_alpha_is_initialized_as_in_the_paper() -> None:
    sharing = make()
    for unit in sharing.stitches.values():
        for at, task in enumerate(INPUTS):
            alpha = unit[task].alpha
            assert torch.equal(alpha[at], torch.full_like(alpha[at], 0.9))
            torch.testing.assert_close(alpha.sum(0), torch.ones(alpha.shape[1]))
            torch.testing.assert_close(alpha[at - 1], torch.full_like(alpha[0], 0.05))


def test_init_1_equals_no_sharing() -> None:
    stitched, apart = make("cnn", init=1.0).eval(), make("cnn", kind=NoSharing).eval()
    inputs = batches("cnn", mnist=3, fashion=2)
    for task, prediction in stitched(inputs, list(INPUTS)).items():
        torch.testing.assert_close(prediction, apart(inputs, [task])[task])


def test_all_examples_pass_through_all_trunks_until_the_last_unit() -> None:
    sharing, passed = make(stages=["fc1"]), list[tuple[str, str, int]]()
    for task, trunk in sharing.trunks().items():
        for name in ("fc1", "fc2"):
            getattr(trunk, name).register_forward_hook(
                lambda module, args, out, task=task, name=name: passed.append((task, name, len(args[0])))
            )
    sharing(batches(mnist=5, fashion=3), list(INPUTS))
    assert passed == [*((task, "fc1", 8) for task in INPUTS), ("digit", "fc2", 5), ("parity", "fc2", 5),
                      ("garment", "fc2", 3)]  # fmt: skip
    passed.clear()
    sharing(batches(mnist=5, fashion=3), ["garment"])
    assert passed == [*((task, "fc1", 3) for task in INPUTS), ("garment", "fc2", 3)]
    assert sharing({}, []) == {}


def test_layers_after_the_last_unit_belong_to_the_task_even_if_replaced() -> None:
    sharing = make("lenet", stages=["conv1", "conv2"])
    new = nn.Linear(5, 6)
    sharing.trunks()["parity"].set_submodule("fc2", new)
    own = {id(p) for module in sharing.own_modules("parity") for p in module.parameters()}
    trunk = sharing.trunks()["parity"]
    expected = [sharing.heads["parity"], sharing.stitches["conv2"]["parity"], trunk.fc1, new]
    assert own == {id(p) for module in expected for p in module.parameters()}


def test_last_shared_layer_contains_a_layer_of_each_trunk() -> None:
    for stages, layer in ((None, "fc2"), (["conv1"], "conv1")):
        sharing = make("lenet", stages=stages)
        actual = MultiTaskModel(sharing, {}).last_shared_layer()
        expected = [p for trunk in sharing.trunks().values() for p in trunk.get_submodule(layer).parameters()]
        assert [id(p) for p in actual] == [id(p) for p in expected]


def test_everything_belongs_to_a_single_task() -> None:
    sharing = make(inputs={"digit": "mnist"}).eval()
    assert sharing.shared_parameters() == []
    (trunk,) = sharing.trunks().values()
    x = batches(mnist=4)
    torch.testing.assert_close(sharing(x, ["digit"])["digit"], sharing.heads["digit"](trunk(x["mnist"])))


def test_stats_contain_the_mean_alphas() -> None:
    sharing = make().eval()
    with torch.no_grad():
        sharing.stitches["fc1"]["parity"].alpha[2] = torch.arange(5.0)
    stats = SharingStats()
    sharing(batches(mnist=4, fashion=2), list(INPUTS), SharingRecord(stats=stats))
    actual = stats.means()
    names = [f"{stage}.{task}" for stage in ("fc1", "fc2") for task in INPUTS]
    assert {task: list(means) for task, means in actual.items()} == dict.fromkeys(INPUTS, names)
    assert actual["parity"]["fc1.garment"] == pytest.approx(2.0)
    assert actual["garment"]["fc2.garment"] == pytest.approx(0.9)


def test_bfloat16_activations_stay_bfloat16() -> None:
    sharing = make("cnn").eval()
    with torch.autocast("cpu", torch.bfloat16):
        actual = sharing.representations(batches("cnn", mnist=3), ["digit"])
    assert actual["digit"].dtype == torch.bfloat16


def test_unknown_stage_is_rejected() -> None:
    with pytest.raises(
        ValueError, match=r"stages: the trunk has no stage 'fc3'\. Did you mean .* Choose from: fc1, fc2"
    ):
        make(stages=["fc1", "fc3"])


def test_layer_also_used_before_the_last_unit_is_shared() -> None:
    class Twice(Trunk):
        """Trunk of fc1, fc2, and fc1 again."""

        def __init__(self) -> None:
            super().__init__()
            self.features, self.input_shape = 4, (4,)
            self.fc1, self.fc2 = nn.Linear(4, 4), nn.Linear(4, 4)

        def stages(self) -> dict[str, Callable[[Tensor], Tensor]]:
            return {"one": self.fc1, "two": self.fc2, "three": self.fc1}

    sharing = CrossStitch(Twice, lambda task, width: nn.Linear(width, 1), INPUTS, stages=["one"])
    own = {id(p) for p in nn.ModuleList(sharing.own_modules("digit")).parameters()}
    trunk = sharing.trunks()["digit"]
    assert {id(p) for p in trunk.fc2.parameters()} < own
    assert not own & {id(p) for p in trunk.fc1.parameters()}
