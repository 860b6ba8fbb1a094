from __future__ import annotations

import inspect
import sys
from typing import Any

import pytest
import torch
from torch import Tensor
from torchjd import aggregation

from tests.weighting.histories import assert_same, close, gradients, resumed, run
from tests.weighting.jacobians import create, every_kind

BASES = {"Aggregator", "WeightedAggregator", "GramianWeightedAggregator"}
NAMES = sorted(
    name
    for name in aggregation.__all__
    if inspect.isclass(getattr(aggregation, name))
    and issubclass(getattr(aggregation, name), aggregation.Aggregator)
    and name not in BASES
)
OPTIONS: dict[str, dict[str, Any]] = {
    "CAGrad": {"c": 0.4},
    "Constant": {"weights": [1.0, 2.0, 0.5, 3.0, 1.0]},
    "FairGrad": {"alpha": 1.0},
    "Krum": {"n_byzantine": 1},
    "NashMTL": {"n_tasks": 5, "update_weights_every": 2},
    "TrimmedMean": {"trim_number": 1},
}
STATEFUL = ["ExcessMTL", "GradVac", "NashMTL", "PCD"]
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:torchjd.aggregation._nash_mtl")  # from cvxpy


def theirs(name: str) -> Any:
    arguments = {k: torch.tensor(v) if isinstance(v, list) else v for k, v in OPTIONS.get(name, {}).items()}
    return getattr(aggregation, name)(**arguments)


def ours(name: str, count: int = 5, **options: Any) -> Any:
    return create("torchjd", count, aggregator=name, **{**OPTIONS.get(name, {}), **options})


def test_all_aggregators_are_available() -> None:
    assert {"UPGrad", "NashMTL", "GradDrop"} <= set(NAMES)
    with pytest.raises(ValueError, match=r"no aggregator 'UPGard'\. Did you mean 'UPGrad'\? Choose from: ") as caught:
        ours("UPGard")
    assert str(caught.value).endswith("Choose from: " + ", ".join(NAMES))


@pytest.mark.parametrize("name", NAMES)
def test_update_equals_that_of_the_aggregator(name: str) -> None:
    weighting, aggregator = ours(name), theirs(name)
    for kind, jacobian in every_kind(5):
        if kind not in ("random", "half rank", "conflicting", "one zero"):
            continue
        single = jacobian.float()
        state = torch.get_rng_state()
        expected = aggregator(single)
        torch.set_rng_state(state)
        update, weights = run(weighting, [single])[0]
        assert torch.equal(update, expected), kind
        assert weights.shape == (5,) and weights.isfinite().all(), kind


@pytest.mark.parametrize("name", ["UPGrad", "MGDA", "CAGrad", "Sum", "Mean", "Constant", "AlignedMTL", "IMTLG"])
def test_logged_weights_equal_those_of_the_aggregator(name: str) -> None:
    for seed in range(10):
        jacobian = gradients(seed, 1, 5, 30)[0] * torch.logspace(-1, 1, 5)[:, None]
        close(run(ours(name), [jacobian])[0][1], theirs(name).weighting(jacobian))


@pytest.mark.parametrize("name", ["GradDrop", "TrimmedMean", "ConFIG"])
def test_logged_weights_are_the_least_squares_solution(name: str) -> None:
    jacobian = gradients(0, 1, 5, 30)[0]
    update, weights = run(ours(name), [jacobian])[0]
    expected = torch.linalg.lstsq(jacobian.double().T, update.double()[:, None]).solution[:, 0]
    close(weights, expected)


def test_logged_weights_of_dependent_gradients() -> None:
    jacobian = gradients(0, 1, 1, 10)[0].repeat(5, 1)
    update, weights = run(ours("Sum"), [jacobian])[0]
    close(weights, [1.0] * 5)
    update, weights = run(ours("Sum"), [torch.zeros(5, 10)])[0]
    assert weights.tolist() == [0.0] * 5 == update[:5].tolist()


def test_lists_become_vectors() -> None:
    jacobian = gradients(0, 1, 3, 8)[0]
    update = run(ours("Constant", 3, weights=[1.0, 0.0, 2.0]), [jacobian])[0][0]
    close(update, jacobian[0] + 2 * jacobian[2])
    preferred = torch.tensor([0.2, 0.3, 0.5])
    update = run(ours("UPGrad", 3, pref_vector=[0.2, 0.3, 0.5]), [jacobian])[0][0]
    assert torch.equal(update, aggregation.UPGrad(pref_vector=preferred)(jacobian))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("CAGrad", {"c": None}, r"torchjd's CAGrad: .*its options: c \(required\), norm_eps \(default 0.0001\)"),
        ("UPGrad", {"pref": [1.0]}, r"unexpected keyword argument 'pref' .*its options: pref_vector \(default None\)"),
        ("UPGrad", {"pref_vector": [1.0, 2.0]}, r"should have 2 rows"),
        ("GradVac", {"beta": 3}, r"Attribute `beta` must be in \[0, 1\]"),
        ("Mean", {"beta": 3}, r"Mean has no options"),
        ("NashMTL", {"n_tasks": 7}, r"torchjd's NashMTL: .*n_tasks \(required\)"),
        ("GradDrop", {"f": "abs"}, r"f \(default a function\)"),
        ("Aggregator", {}, r"no aggregator 'Aggregator'"),
    ],
)
def test_errors_of_invalid_options(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ours(name, **options)


def test_error_of_a_missing_option() -> None:
    with pytest.raises(ValueError, match=r"missing 1 required positional argument: 'alpha'.*alpha \(required\)"):
        create("torchjd", 5, aggregator="FairGrad")


def test_error_of_a_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchjd.aggregation", None)
    with pytest.raises(ValueError, match=r"pip install 'mtlcli\[torchjd\]'"):
        ours("UPGrad")


@pytest.mark.parametrize("name", STATEFUL)
def test_resumes_identically(name: str) -> None:
    history = gradients(0, 7, 5, 12)
    original = ours(name)
    run(original, history[:3])
    anew = resumed(original, "torchjd", 5, 12, aggregator=name, **OPTIONS.get(name, {}))
    state = torch.get_rng_state()
    results = run(anew, history[3:])
    torch.set_rng_state(state)
    assert_same(results, run(original, history[3:]))
    torch.set_rng_state(state)
    fresh = run(ours(name), history[3:])
    assert not all(torch.equal(a[0], b[0]) for a, b in zip(results, fresh, strict=True)), "it remembers nothing"


@pytest.mark.parametrize("name", NAMES)
def test_the_state_before_the_first_step_can_be_loaded(name: str) -> None:
    jacobian = gradients(0, 1, 5, 12)
    original = ours(name)
    anew = resumed(original, "torchjd", 5, 12, aggregator=name, **OPTIONS.get(name, {}))
    state = torch.get_rng_state()
    results = run(anew, jacobian)
    torch.set_rng_state(state)
    assert_same(results, run(original, jacobian))


def test_resumes_on_another_device() -> None:
    """TorchJD resets its state if the device changes; some of its aggregators compute on the CPU."""
    for name, buffer, place in (
        ("ExcessMTL", "_sq_grad_sum", "meta"),
        ("GradVac", "_phi_t", "cpu"),
        ("PCD", "_n_steps", "cpu"),
    ):
        original = ours(name)
        run(original, gradients(0, 2, 5, 12))
        moved = ours(name).to("meta")
        moved.load_state_dict(original.state_dict())
        buffers: dict[str, Tensor] = dict(moved.aggregator.named_buffers())
        assert [value.device.type for path, value in buffers.items() if path.endswith(buffer)] == [place], name
    key = next(module._state_key for module in moved.aggregator.modules() if hasattr(module, "_state_key"))
    assert key == 5
    moved = ours("ExcessMTL").to("meta")
    original = ours("ExcessMTL")
    run(original, gradients(0, 2, 5, 12))
    moved.load_state_dict(original.state_dict())
    assert moved.aggregator.weighting._state_key == (5, 12, torch.float32, torch.device("meta"))


def test_vector_options_move_with_the_module() -> None:
    """TorchJD stores them as plain attributes, which nn.Module does not move."""
    weighting = ours("Constant").to("meta")
    assert weighting.aggregator.weighting.weights.device.type == "meta"


def test_construction_does_not_use_the_global_generator() -> None:
    before = torch.get_rng_state()
    ours("PCGrad")
    assert torch.equal(torch.get_rng_state(), before)


def test_unaffected_by_autocast() -> None:
    history = gradients(4, 3, 5, 9)
    expected = run(ours("UPGrad"), history)
    with torch.autocast("cpu", torch.bfloat16):
        assert_same(run(ours("UPGrad"), history), expected)
