"""Every sharing on trunks of maps: ownership of parameters, independence of examples, and the arithmetic."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mtlcli.models.map_head import MapHead
from mtlcli.models.representations import Pooling
from mtlcli.models.sharing.base import SharingRecord, SharingStats
from mtlcli.registry import sharings, trunks
from mtlcli.specs import TrunkPass
from tests.models.sharing.test_every_sharing import check_owners
from tests.models.sharing.test_mtan import disturbed, weights
from tests.oracles import sharing as oracle

ONE = {"edges": "scenes", "depth": "scenes"}
TWO = {"edges": "scenes", "depth": "scenes", "text": "pages"}
ON_ONE_DATASET = {"aitm", "esmm"}  # whose tasks predict vectors, one after the other
NAMES = [name for name in sharings.names() if name not in ON_ONE_DATASET]
TRUNKS: dict[str, dict[str, Any]] = {"unet": {"widths": [3, 4], "depth": 2}, "segnet": {"widths": [2, 3]}}
SHAPE = (2, 8, 12)
ROWS = {"scenes": 3, "pages": 2}


def make(name: str, trunk: str = "unet", inputs: dict[str, str] = TWO, **options: Any) -> Any:
    torch.manual_seed(0)

    def make_trunk() -> Any:
        created = trunks[trunk].create(SHAPE, **TRUNKS[trunk])
        created.input_shape = SHAPE
        return created

    def make_head(task: str, features: int) -> nn.Module:
        return MapHead(nn.Linear(features, len(task)), False, SHAPE[1:])

    return sharings[name].create(make_trunk, make_head, inputs, **options)


def batches(inputs: dict[str, str] = TWO) -> dict[str, Tensor]:
    torch.manual_seed(1)
    return {alias: torch.randn(ROWS[alias], *SHAPE) for alias in dict.fromkeys(inputs.values())}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("trunk", TRUNKS)
def test_owners_and_independent_examples(name: str, trunk: str) -> None:
    sharing, given = make(name, trunk), batches()
    check_owners(sharing, given)
    sharing.eval()
    with torch.no_grad():
        together = sharing(given, list(TWO))
        for task, alias in TWO.items():
            assert together[task].shape == (ROWS[alias], len(task), *SHAPE[1:])
            alone = sharing({alias: given[alias][1:2]}, [task])
            torch.testing.assert_close(alone[task], together[task][1:2], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_tasks_that_predict_vectors_and_records(name: str) -> None:
    sharing = make(name).eval()
    sharing.pooling = Pooling(lambda x: None, {"text": "max"})
    record = SharingRecord([], SharingStats())
    given = sharing.representations(batches(), list(TWO), record)
    assert {task: x.ndim for task, x in given.items()} == {"edges": 4, "depth": 4, "text": 2}
    for passed in record.passes or []:
        if passed.activations:
            assert passed.activations["features"].shape == (5, 3) and passed.activations["encoder2"].ndim == 4
        assert all(x.ndim == 2 for x in passed.private.values())


@pytest.mark.parametrize("trunk", TRUNKS)
def test_mtan_on_encoder_and_decoder_matches_the_paper(trunk: str) -> None:
    sharing = disturbed(make("mtan", trunk, reduction=2))
    inputs = {alias: x.double() for alias, x in batches().items()}
    actual = sharing.representations(inputs, list(TWO))
    stages = list(sharing.trunk.stages())
    for task, alias in TWO.items():
        _, activations = sharing.trunk.activations(inputs[alias], sharing.trunk.activation_names())
        names = [f"{stage}.{'first' if stage.startswith('encoder') else 'join'}" for stage in stages]
        expected, masks = oracle.mtan(
            [activations[stage].detach().numpy() for stage in stages],
            [weights(mask) for mask in sharing.attention[task].values()],
            [weights(f) for f in sharing.passages.values()],
            [activations[name].detach().numpy() for name in names],
        )
        np.testing.assert_allclose(actual[task].detach().numpy(), expected, rtol=1e-9, atol=1e-12)
        assert [mask.shape[2] for mask in masks] == [activations[stage].shape[2] for stage in stages]


def test_cross_stitch_combines_the_skip_connections() -> None:
    sharing = make("cross_stitch", inputs=ONE).eval()
    for unit in sharing.stitches.values():
        for row in unit.values():
            nn.init.uniform_(row.alpha)
    x = batches(ONE)["scenes"]

    def stitch(stage: str, activations: dict[str, Tensor]) -> dict[str, Tensor]:
        sources = torch.stack(list(activations.values()), 1)  # [B, T, C, H, W]
        return {
            task: torch.einsum("btchw,tc->bchw", sources, sharing.stitches[stage][task].alpha) for task in activations
        }

    parts = sharing.trunks()
    first = stitch("encoder1", {task: trunk.encoder1(x) for task, trunk in parts.items()})
    second = stitch("encoder2", {task: trunk.encoder2(F.max_pool2d(first[task], 2)) for task, trunk in parts.items()})
    last = stitch("decoder1", {task: trunk.decoder1(second[task], first[task]) for task, trunk in parts.items()})
    actual = sharing.representations({"scenes": x}, list(ONE))
    for task in ONE:
        torch.testing.assert_close(actual[task], last[task])


@pytest.mark.parametrize("shape", [(2, 8, 12), (2, 3, 2), (3, 9, 17)])
def test_gates_of_images_receive_the_means_of_cells(shape: tuple[int, ...]) -> None:
    trunk = trunks["unet"].create((2, 8, 12), widths=[2, 3])
    x = torch.randn(2, *shape)
    rows, columns = (-(-size // 4) for size in shape[1:])
    cells = [
        x[:, :, i : i + rows, j : j + columns].mean((2, 3))
        for i in range(0, shape[1], rows)
        for j in range(0, shape[2], columns)
    ]
    expected = torch.stack(cells, 2).flatten(1)
    torch.testing.assert_close(trunk.gate_input(x, None, first=True), expected)
    assert trunk.gate_size(shape, first=True) == expected.shape[1] <= 16 * shape[0]
    torch.testing.assert_close(trunk.gate_input(x, None, first=False), x.mean((2, 3)))
    assert trunk.gate_size(shape, first=False) == shape[0]


def test_a_mixture_of_experts_of_maps() -> None:
    sharing, given = make("mmoe", experts=3).eval(), batches()
    x = given["pages"]
    gate = sharing.gates["text"].linear
    means = F.adaptive_avg_pool2d(x, (4, 4)).flatten(1)  # the cells of an image whose size is a multiple of 4
    shares = (means @ gate.weight.T + (0 if gate.bias is None else gate.bias)).softmax(1)
    expected = sum(shares[:, e, None, None, None] * expert(x) for e, expert in enumerate(sharing.trunks().values()))
    torch.testing.assert_close(sharing.representations(given, ["text"])["text"], expected)


def test_levels_of_experts_of_maps() -> None:
    """In the second level, the experts of a task receive the mixtures, as their skip connections do."""
    sharing, x = make("ple", inputs=ONE, levels=2).eval(), batches(ONE)["scenes"]
    parts = dict(sharing.trunks())
    assert [list(parts["edges0"].stages())[s.start : s.end] for s in sharing.segments] == [
        ["encoder1"],
        ["encoder2", "decoder1"],
    ]

    def mix(level: int, owner: str, gate_input: Tensor, outputs: dict[str, Tensor]) -> Tensor:
        shares = sharing.gates[level][owner](gate_input).weights
        chosen = [outputs[name] for name in sharing.choices[owner]]
        return sum(shares[:, e, None, None, None] * y for e, y in enumerate(chosen))  # type: ignore[return-value]

    first = {name: trunk.encoder1(x) for name, trunk in parts.items()}
    cells = F.adaptive_avg_pool2d(x, (4, 4)).flatten(1)
    mixtures = {owner: mix(0, owner, cells, first) for owner in ("shared", "edges", "depth")}
    owner_of = {"shared0": "shared", "edges0": "edges", "depth0": "depth"}
    second = {
        name: trunk.decoder1(trunk.encoder2(F.max_pool2d(mixtures[owner_of[name]], 2)), mixtures[owner_of[name]])
        for name, trunk in parts.items()
    }
    actual = sharing.representations({"scenes": x}, list(ONE))
    for task in ONE:
        expected = mix(1, task, mixtures[task].mean((2, 3)), second)
        torch.testing.assert_close(actual[task], expected)


def test_simple_sharings_of_maps() -> None:
    given = batches()
    hard, separate, private = (make(name).eval() for name in ("hard", "none", "shared_private"))
    assert torch.equal(separate.representations(given, ["text"])["text"], separate.task_trunks["text"](given["pages"]))
    passes: list[TrunkPass] = []
    y = hard.representations(given, list(TWO), SharingRecord(passes))
    assert y["edges"] is y["depth"]
    torch.testing.assert_close(y["text"], hard.trunk(given["pages"]))
    torch.testing.assert_close(passes[0].activations["features"][:3], y["edges"].mean((2, 3)))
    both = private.representations(given, ["text"])["text"]
    expected = [private.trunk(given["pages"]), private.private_trunks["text"](given["pages"])]
    torch.testing.assert_close(both, torch.cat(expected, 1))
