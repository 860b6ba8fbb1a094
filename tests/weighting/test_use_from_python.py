"""The methods on their own: imported from `mtlcli.weighting`, without an experiment."""

from __future__ import annotations

import doctest
from pathlib import Path
from typing import Any

import pytest
import torch

import mtlcli.weighting
from mtlcli.registry import weightings
from mtlcli.weighting import (
    DBMTL,
    GLS,
    MGDA,
    GradNorm,
    GramianWeighting,
    JacobianWeighting,
    LossWeighting,
    MoCo,
    PCGrad,
    Relation,
    SDMGrad,
    TorchJD,
    WeightedTask,
)

NAMES = ["depth", "normals", "label"]
CLASSES = [weightings[name].target for name in weightings.names()]
REQUIRED: dict[Any, dict[str, Any]] = {
    TorchJD: {"aggregator": "UPGrad"},
    Relation: {"matrix": [[1, 0, 0], [0, 1, 0], [0, 0, 1]]},
}
GENERATOR_SEED = 5


def create(method: Any, tasks: Any = None) -> Any:
    return method(NAMES if tasks is None else tasks, **REQUIRED.get(method, {}))


def random_jacobian(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(5))


def test_the_package_exports_every_method() -> None:
    assert {method.__name__ for method in CLASSES} <= set(mtlcli.weighting.__all__)
    assert dir(mtlcli.weighting) == sorted(mtlcli.weighting.__all__)
    for name in mtlcli.weighting.__all__:
        assert getattr(mtlcli.weighting, name).__name__ == name


def test_the_examples_of_the_documentation() -> None:
    text = (Path(__file__).parents[2] / "docs/weighting.md").read_text()
    section = text[text.index("## Use from Python") : text.index("## Your own method")].replace("```", "")
    examples = doctest.DocTestParser().get_doctest(section, {}, "weighting.md", "docs/weighting.md", 0)
    assert len(examples.examples) == 11
    assert doctest.DocTestRunner().run(examples).failed == 0


@pytest.mark.parametrize("method", CLASSES, ids=lambda method: str(method.__name__))
def test_names_create_the_tasks(method: Any) -> None:
    weighting = create(method)
    assert weighting.tasks == [WeightedTask(name) for name in NAMES]
    assert create(method, [WeightedTask(name) for name in NAMES]).tasks == weighting.tasks


def test_a_string_is_not_a_list_of_tasks() -> None:
    with pytest.raises(TypeError, match="list of names or of WeightedTask, got the string 'depth'"):
        PCGrad("depth")


@pytest.mark.parametrize("method", CLASSES, ids=lambda method: str(method.__name__))
def test_a_call_makes_one_step(method: Any) -> None:
    """Calling a method twice gives the same results as the calls of two steps of a training run."""
    called, stepped = create(method), create(method)
    losses = torch.tensor([0.5, 1.0, 2.0], requires_grad=True)
    for _ in range(2):
        if isinstance(called, LossWeighting):
            stepped.start_step()
            objective, weights = stepped.objective(losses, range(3))
            result = called(list(losses.unbind()))
            assert torch.equal(result, objective)
            assert torch.equal(torch.autograd.grad(result, losses)[0], weights)
            continue
        jacobian = random_jacobian(3, 3, 7) if method is SDMGrad else random_jacobian(3, 7)
        rows = jacobian[-1] if method is SDMGrad else jacobian
        exact = jacobian.double()
        gramian = exact[0] @ exact[1].T if method is SDMGrad else exact @ exact.T
        if isinstance(stepped, JacobianWeighting) and stepped.columns is None:
            stepped.allocate(7)
        stepped.start_step()
        if isinstance(stepped, GramianWeighting):
            weights = stepped.weights(gramian, losses.detach().double(), range(3))
            expected = torch.mv(rows.T, weights.to(rows.dtype))
        else:
            expected = stepped.update(rows, gramian, losses.detach().double(), range(3))[0]
        update = called(jacobian, losses)
        assert update.dtype == torch.float32 and not update.requires_grad
        torch.testing.assert_close(update, expected, rtol=1e-6, atol=1e-6)


def test_absent_tasks_have_no_row() -> None:
    jacobian = random_jacobian(2, 7)
    assert torch.equal(MGDA(NAMES)(jacobian, present=[0, 2]), MGDA(["depth", "label"])(jacobian))
    losses = torch.tensor([0.5, 2.0])
    assert torch.equal(GLS(NAMES)(losses, present=[0, 2]), GLS(["depth", "label"])(losses))


@pytest.mark.parametrize("shape", [(2, 7), (4, 7), (7,), (3, 3, 7)])
def test_jacobians_of_the_wrong_shape_are_errors(shape: tuple[int, ...]) -> None:
    for method in (PCGrad, TorchJD):
        with pytest.raises(ValueError, match=r"expected a Jacobian of shape \[3, P\], a row per present task, got"):
            create(method)(torch.zeros(shape))


def test_sdmgrad_requires_three_samples() -> None:
    with pytest.raises(ValueError, match=r"SDMGrad: expected Jacobians \[3, t, P\] of three samples, got \[3, 7\]"):
        SDMGrad(NAMES)(torch.zeros(3, 7))


@pytest.mark.parametrize("weighting", [GradNorm(NAMES), DBMTL(NAMES), MGDA(NAMES, normalization="loss+")])
def test_methods_that_read_the_losses_require_them(weighting: Any) -> None:
    with pytest.raises(ValueError, match="depends on the losses of the tasks; pass them as `losses`"):
        weighting(random_jacobian(3, 7))
    assert weighting(random_jacobian(3, 7), torch.ones(3)).isfinite().all()


@pytest.mark.parametrize("method", CLASSES, ids=lambda method: str(method.__name__))
def test_methods_that_do_not_declare_losses_ignore_them(method: Any) -> None:
    weighting = create(method)
    if isinstance(weighting, LossWeighting) or weighting.uses_losses:
        return
    jacobian = random_jacobian(3, 3, 7) if method is SDMGrad else random_jacobian(3, 7)
    assert torch.equal(weighting(jacobian), create(method)(jacobian, torch.tensor([0.1, 5.0, 30.0])))


def test_the_state_is_kept_and_can_be_loaded() -> None:
    """Buffers whose size depends on P are allocated once, by the first call or before a state is loaded."""
    weighting, jacobian = MoCo(NAMES), random_jacobian(3, 7)
    assert not torch.equal(weighting(jacobian), weighting(jacobian))
    restored = MoCo(NAMES)
    restored.allocate(7)
    restored.load_state_dict(weighting.state_dict())
    assert torch.equal(restored(jacobian), weighting(jacobian))
