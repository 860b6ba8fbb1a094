"""ESMM and AITM against NumPy, numerical stability, and the tasks of their order."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from mtlcli.models.dependent_tasks import AfterHead, Dependencies, Parent, Probabilities, Standardize
from mtlcli.models.sharing.aitm import AITM
from mtlcli.models.sharing.base import Sharing, SharingRecord, SharingStats
from mtlcli.models.sharing.esmm import ESMM, multiply_probabilities
from mtlcli.models.trunks.mlp import MLP
from mtlcli.registry import sharings
from mtlcli.regularizers.base import Subject
from mtlcli.regularizers.terms.expectation_calibrator import ExpectationCalibrator
from mtlcli.specs import TrunkPass
from tests.oracles import dependent_tasks as oracle

INPUTS = {"view": "a", "click": "a", "buy": "a", "other": "a", "apart": "b"}
ORDER = ["view", "click", "buy"]


def make(name: str, **options: Any) -> Sharing:
    torch.manual_seed(0)

    def make_trunk() -> MLP:
        trunk = MLP((5,), hidden=[7], features=6)
        trunk.input_shape = (5,)
        return trunk

    sharing: Sharing = sharings[name].create(
        make_trunk, lambda task, features: nn.Linear(features, 1), INPUTS, **{"order": ORDER, **options}
    )
    return sharing.double()


def given() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {
        alias: 3 * torch.randn(rows, 5, generator=generator, dtype=torch.float64)
        for alias, rows in (("a", 6), ("b", 4))
    }


def test_esmm_multiplies_probabilities() -> None:
    sharing = make("esmm")
    predictions, features = sharing(given(), list(INPUTS)), sharing.representations(given(), list(INPUTS))
    raw = [
        (sharing.heads[task].head if task != "view" else sharing.heads[task])(features[task]).detach().numpy()
        for task in ORDER
    ]
    for task, p in zip(ORDER, oracle.esmm_probabilities(raw), strict=True):
        np.testing.assert_allclose(predictions[task].sigmoid().detach(), p, rtol=1e-12)
    for task in ("other", "apart"):
        torch.testing.assert_close(predictions[task], sharing.heads[task](features[task]))


@pytest.mark.parametrize("requested", [["buy"], ["click", "apart"], ["buy", "view"]])
@pytest.mark.parametrize("name", ["esmm", "aitm"])
def test_requested_tasks_do_not_change_predictions(name: str, requested: list[str]) -> None:
    sharing = make(name).eval()
    everything, some = sharing(given(), list(INPUTS)), sharing(given(), requested)
    assert list(some) == requested
    for task in requested:
        torch.testing.assert_close(some[task], everything[task])


def test_the_logit_of_a_product_is_stable() -> None:
    values = torch.tensor([-1e4, -100.0, -30.0, -1.0, 0.0, 2.0, 40.0, 100.0, 1e4], dtype=torch.float64)
    a, b = (x.flatten().requires_grad_() for x in torch.meshgrid(values, values, indexing="ij"))
    logit = multiply_probabilities(a, b)
    gradients = torch.autograd.grad(logit.sum(), [a, b])
    assert logit.isfinite().all() and all(g.isfinite().all() for g in gradients)
    log_p = torch.nn.functional.logsigmoid(a) + torch.nn.functional.logsigmoid(b)
    torch.testing.assert_close(torch.nn.functional.logsigmoid(logit), log_p, rtol=1e-12, atol=1e-15)
    # of the complement, by the sum of disjoint events: 1 − pq = (1 − p) + p (1 − q)
    log = torch.nn.functional.logsigmoid
    complement = torch.logaddexp(log(-a), log(a) + log(-b))
    torch.testing.assert_close(log(-logit), complement, rtol=1e-12, atol=1e-15)
    # d logit / da = (1 − p) / (1 − pq)
    torch.testing.assert_close(gradients[0], (log(-a) - complement).exp(), rtol=1e-9, atol=1e-12)
    assert multiply_probabilities(a.detach().bfloat16(), b.detach().bfloat16()).dtype == torch.float32


def tower(module: nn.Module) -> list[tuple[Any, Any]]:
    return [(x.weight.detach().numpy(), x.bias.detach().numpy()) for x in module.modules() if isinstance(x, nn.Linear)]


def test_aitm_equals_its_equations() -> None:
    sharing = make("aitm", tower=[5, 4])
    assert isinstance(sharing, AITM)
    stats, record = SharingStats(), []
    predictions = sharing(given(), list(INPUTS), SharingRecord(record, stats))
    x = sharing.trunk(given()["a"]).detach().numpy()
    z, expected, weights = oracle.layers(x, tower(sharing.towers["view"])), {}, {}
    expected["view"] = z
    for task in ("click", "buy"):
        module = sharing.transfers[task]
        parameters = {name: p.detach().numpy() for name, p in module.named_parameters()}
        named = {"g.weight": parameters["information.0.weight"], "g.bias": parameters["information.0.bias"]}
        named |= {h: parameters[f"{h}.weight"] for h in ("h1", "h2", "h3")}
        z, weights[task] = oracle.transfer(z, oracle.layers(x, tower(sharing.towers[task])), named)
        expected[task] = z
    representations = sharing.representations(given(), list(INPUTS))
    for task, value in expected.items():
        np.testing.assert_allclose(representations[task].detach(), value, rtol=1e-10)
        np.testing.assert_allclose(
            predictions[task].detach(), sharing.heads[task](torch.tensor(value)).detach(), rtol=1e-10
        )
    for task, value in weights.items():
        assert stats.means()[task]["transferred"] == pytest.approx(value.mean(), rel=1e-6)
    subject = Subject(sharing.trunks(), dict(sharing.heads.items()), INPUTS, {}, False, sharing.sequence)
    term = ExpectationCalibrator(subject).term(record)
    probabilities = [oracle.sigmoid(predictions[task].detach().numpy()[:, 0]) for task in ORDER]
    assert float(term.detach()) == pytest.approx(oracle.calibrator(probabilities), rel=1e-12)
    assert float(term.detach()) > 0
    assert torch.autograd.grad(term, sharing.heads["view"].weight)[0].any()


def test_the_calibrator_of_a_batch_without_its_tasks_is_0() -> None:
    subject = Subject({}, {}, INPUTS, {}, False, ORDER)
    assert float(ExpectationCalibrator(subject).term([TrunkPass({"b": 4}, {"features": torch.ones(4, 3)})])) == 0


@pytest.mark.parametrize(
    ("order", "message"),
    [
        (["view", "clik"], "order: no task 'clik'. Did you mean 'click'?"),
        (["view", "view"], "order: expected at least two tasks, each once"),
        (
            ["view", "apart"],
            "order: the tasks must be on the same dataset, and they are not: view on 'a', apart",
        ),
        (None, "the tasks must be on the same dataset"),
    ],
)
@pytest.mark.parametrize("name", ["esmm", "aitm"])
def test_wrong_orders(name: str, order: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("?", r"\?").replace("(", r"\(")):
        make(name, order=order)


def test_order_of_dependencies() -> None:
    chain = Dependencies({"c": Parent("b"), "b": Parent("a", detach=True)})
    assert chain.closure(["c"]) == ["a", "b", "c"] and chain.closure(["b", "d"]) == ["a", "b", "d"]
    assert [chain.is_reached_by_others(task) for task in "abcd"] == [False, True, False, False]
    assert chain.linked == {"a", "b", "c"}
    assert chain.add({"d": Parent("a")}).is_reached_by_others("a")


def test_a_head_after_another_task() -> None:
    torch.manual_seed(0)
    x, logits = torch.randn(4, 3), torch.randn(4, 2, requires_grad=True)
    linear = nn.Linear(5, 1)
    actual = AfterHead(linear, Probabilities("softmax"))(x, logits)
    torch.testing.assert_close(actual, linear(torch.cat([x, logits.softmax(1)], 1)))
    assert torch.autograd.grad(actual.sum(), logits)[0].any()
    torch.testing.assert_close(Probabilities("sigmoid")(logits), logits.sigmoid())
    torch.testing.assert_close(Standardize(2.0, 4.0)(logits), (logits - 2) / 4)
    torch.testing.assert_close(Standardize(2.0, 0.0)(logits), logits - 2)


def test_shared_and_own_parameters() -> None:
    for name, own in (("esmm", [False, False, True]), ("aitm", [True, True, True])):
        sharing = make(name)
        assert [bool(sharing.own_modules(task)) for task in ORDER] == own
        assert isinstance(sharing, ESMM | AITM)
