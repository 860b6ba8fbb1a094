"""Values that aren't finite stop a run before they reach the model, and the message names their origin."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mtlcli.registry import weightings
from mtlcli.tasks.base import TaskKind
from mtlcli.training.assembly.build import build
from mtlcli.training.backward.base import StepResult
from mtlcli.training.checkpoint.file import load_checkpoint
from mtlcli.training.failures import DivergedError, largest, weighting_fault
from mtlcli.training.step_log import StepLog
from mtlcli.training.trainer import Trainer
from mtlcli.weighting.base import GramianWeighting, JacobianWeighting
from tests.training.experiments import digits


class Poison(torch.autograd.Function):
    """An unchanged loss with a gradient that isn't finite."""

    @staticmethod
    def forward(ctx: Any, loss: Tensor) -> Tensor:
        return loss.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        return gradient * float("nan")


def poison(kind: TaskKind, monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    """Make the gradient of a task kind NaN from the `after`-th loss on."""
    real, seen = kind.loss, [0]

    def loss(prediction: Tensor, target: Tensor) -> Tensor:
        seen[0] += prediction.requires_grad
        value = real(prediction, target)
        return Poison.apply(value) if seen[0] >= after and prediction.requires_grad else value

    monkeypatch.setattr(kind, "loss", loss)


@pytest.mark.parametrize("weighting", ["uniform", "mgda"])
def test_a_nonfinite_gradient_is_attributed_to_its_task(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weighting: str
) -> None:
    trainer = Trainer(build(digits(weighting=weighting)), tmp_path / "run", plots=False)
    poison(trainer.run.kinds["ink"], monkeypatch, after=9)
    with pytest.raises(DivergedError, match=r"the gradient of task 'ink' is nan at step 9, though the losses are"):
        trainer.fit()
    assert all(value.isfinite().all() for value in trainer.run.model.state_dict().values())
    assert load_checkpoint(tmp_path / "run/checkpoints/last.pt")["progress"]["steps"] == 6
    assert trainer.summary is not None
    assert "step 9" in trainer.summary["error"]


class BadWeights(GramianWeighting):
    """Gives the second task the weight NaN."""

    def weights(self, gramian: Tensor, losses: Tensor, present: Sequence[int]) -> Tensor:
        return gramian.new_tensor([1.0, float("nan")])


class BadUpdate(JacobianWeighting):
    """Makes an infinite update, with finite weights."""

    def update(self, jacobian: Tensor, gramian: Tensor, losses: Tensor, present: Sequence[int]) -> Any:
        return torch.full_like(jacobian[0], float("inf")), torch.ones_like(losses)


@pytest.mark.parametrize(
    ("weighting", "message"),
    [(BadWeights, r"the weight of task .ink. is nan at step 1, though the losses are finite: weighting bad computed"),
     (BadUpdate, r"the gradient is inf at step 1, though each task's own is finite: weighting bad computed")],
)  # fmt: skip
def test_a_weighting_with_nonfinite_weights_is_named(tmp_path: Path, weighting: type, message: str) -> None:
    """The message does not suggest a lower learning rate."""
    weightings.register("bad")(weighting)
    trainer = Trainer(build(digits(weighting="bad")), tmp_path / "run", plots=False)
    with pytest.raises(DivergedError, match=message) as caught:
        trainer.fit()
    assert "learning rate is too high" not in str(caught.value) and "weighting=uniform" in str(caught.value)


@pytest.mark.parametrize("weighting", ["uncertainty", "imtl_l"])
def test_a_nonfinite_learned_weight_is_attributed_to_the_optimizer(tmp_path: Path, weighting: str) -> None:
    trainer = Trainer(build(digits(weighting=weighting)), tmp_path / "run", plots=False)
    with torch.no_grad():
        next(trainer.run.weighting.parameters()).fill_(-1e4 if weighting == "uncertainty" else 1e4)
    with pytest.raises(DivergedError, match=r"the weight of task 'digit' is inf at step 1, .* Lower optimizer.lr"):
        trainer.fit()


def test_a_nonfinite_gradient_is_not_attributed_to_the_weighting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The task is named, for every weighting."""
    weightings.register("bad")(BadWeights)
    trainer = Trainer(build(digits(weighting="bad")), tmp_path / "run", plots=False)
    poison(trainer.run.kinds["ink"], monkeypatch, after=1)
    with pytest.raises(DivergedError, match=r"the gradient of task 'ink' is nan at step 1.* learning rate is too high"):
        trainer.fit()


def test_the_log_names_the_weighting_on_devices_that_are_read_later() -> None:
    """As on a GPU."""
    run = build(digits(weighting="mgda"))
    log = StepLog(run.columns, run.device, fault=weighting_fault(run))
    log.record(3, StepResult(torch.ones(2), torch.tensor([float("nan"), 1.0])), [5, 5])
    with pytest.raises(DivergedError, match=r"the weight of task 'digit' is nan at step 3.*weighting mgda computed it"):
        log.flush()


def test_a_model_with_a_nonfinite_weight_is_never_saved(tmp_path: Path) -> None:
    trainer = Trainer(build(digits()), tmp_path / "run", plots=False)
    step = trainer.state.step

    def spoil(*arguments: Any) -> Any:
        result = step(*arguments)
        if arguments[-1] == 12:
            with torch.no_grad():
                next(trainer.run.model.parameters())[0, 0] = float("inf")
        return result

    trainer.state.step = spoil  # type: ignore[assignment]
    spoil.optimizer, spoil.backward, spoil.state_dict = step.optimizer, step.backward, step.state_dict  # type: ignore[attr-defined]
    with pytest.raises(DivergedError, match=r"holds values that aren't finite after step 12"):
        trainer.fit()
    assert load_checkpoint(tmp_path / "run/checkpoints/last.pt")["progress"]["steps"] == 6


def test_largest_magnitude_of_several_tensors() -> None:
    tensors = [torch.tensor([1.0, -5.0]), torch.tensor([[2.0]], dtype=torch.bfloat16)]
    assert largest(tensors) == 5
    assert largest([*tensors, torch.tensor([1e30])]) == pytest.approx(1e30)  # its square would be infinite
    assert largest([*tensors, torch.tensor([float("nan")])]).isnan()
