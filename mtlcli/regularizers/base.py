"""Base class of the regularizers: terms Ω that are added to the objective with a strength."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from torch import Tensor, nn

from mtlcli.errors import suggest
from mtlcli.specs import Shape, TrunkPass

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Subject:
    """The network that a regularizer is created for.

    Attributes:
        trunks: name → trunk; under hard sharing one trunk, called `trunk`. Layers have the names of `named_modules`
            within their trunk.
        heads: task → its head.
        inputs: task → alias of the dataset that its examples come from, in the order of the tasks.
        shapes: activation → shape without the batch, in the order of computation, as in a `TrunkPass`: `input`
            (normalized), those of the trunk's stages, and `features`, which is the last one again. Empty under a
            sharing in which the examples don't all pass through one trunk.
        private: whether the tasks have their own features in addition to the shared ones (`TrunkPass.private`).
        order: the tasks in their order, if the sharing has one.
    """

    trunks: Mapping[str, nn.Module]
    heads: Mapping[str, nn.Module]
    inputs: Mapping[str, str]
    shapes: Mapping[str, Shape]
    private: bool = False
    order: Sequence[str] = ()


class Regularizer(nn.Module):
    """Base class of the regularizers; a module whose parameters and buffers are trained and saved with the model.

    A run creates it after the trunk has its initial weights: the positional argument of the constructor is the
    `Subject`, and the keyword-only arguments are the options of the configuration (in addition to `strength` and
    `as_task`, which all regularizers have). The constructor raises ValueError for options that don't fit the subject.

    In every step the run calls `start_step`, `term` (once per micro-batch) and `after_step`; after every epoch
    `metrics`; after the training `compress` and `draw`. All state must be in the state dict. Nothing in a step may
    synchronize with the device. Layers of the trunk must not become submodules of the regularizer, since they belong to
    the model.

    Attributes:
        default_strength: strength of an entry that sets none.
        sees_examples: whether Ω depends on the examples of a step, or only on weights.
        sees_trunk: whether Ω, if it depends on examples, uses the activations of a trunk that all examples pass
            through, which not every sharing has.
        needs_gates: whether Ω uses the selectors of gates, which not every sharing has.
        needs_order: whether Ω uses the predictions of tasks in order, which few sharings have.
        reshapes: whether the regularizer replaces layers of the trunk; such regularizers are created first.
        likelihood: likelihood that `uncertainty` assumes for a term that counts as a task, as in
            `TaskKind.likelihood`: `gaussian` for a sum of squares, which is the negative log-likelihood of a normal
            distribution up to a factor of ½.
        differentiable: whether Ω has a gradient; False if `after_step` is the whole effect.
    """

    default_strength: ClassVar[float]
    sees_examples: ClassVar[bool] = False
    sees_trunk: ClassVar[bool] = True
    needs_gates: ClassVar[bool] = False
    needs_order: ClassVar[bool] = False
    reshapes: ClassVar[bool] = False
    likelihood: ClassVar[Literal["gaussian", "categorical"]] = "categorical"

    differentiable = True

    def start_step(self, progress: float) -> None:
        """Prepare an optimizer step.

        Args:
            progress: completed fraction of the training, from 0 to 1.
        """

    def term(self, passes: Sequence[TrunkPass]) -> Tensor:
        """Compute Ω.

        Args:
            passes: passes of a micro-batch through the trunk, in training mode; empty unless `sees_examples`.

        Returns:
            Ω without its strength, 0-d, with its graph; a mean over examples if `sees_examples`.

        Raises:
            NotImplementedError: if a subclass doesn't implement it.
        """
        raise NotImplementedError

    def after_step(self, step_size: float) -> None:
        """Make a proximal step after the step of the optimizer.

        Args:
            step_size: strength × learning rate.
        """

    def metrics(self) -> dict[str, float]:
        """Return the metrics of the epoch in addition to the mean of Ω, and begin the next epoch."""
        return {}

    def compress(self) -> dict[str, Any] | None:
        """Remove what the training has made redundant from the model.

        Returns:
            A report as a JSON document; None if the regularizer doesn't compress.
        """
        return None

    def draw(self, passes: Sequence[TrunkPass]) -> dict[str, Figure]:
        """Draw figures of the trained model.

        Args:
            passes: passes of a few examples through the trunk, in evaluation mode, without a graph.

        Returns:
            File name without suffix → figure.
        """
        return {}


def get_activation_shape(subject: Subject, layer: str) -> Shape:
    """Return the shape of an activation of the trunk.

    Args:
        subject: the regularized network.
        layer: name of the activation.

    Returns:
        The shape without the batch.

    Raises:
        ValueError: if the trunk has no activation of this name; the message lists the available ones.
    """
    names = [name for name in subject.shapes if name != "input"]
    if layer not in names:
        problem = f"the trunk has no activation {layer!r}"
        if layer == "input":
            problem = "`input` is the input of the trunk, not an activation"
        raise ValueError(f"layer: {problem}.{suggest(layer, names)} Choose from: {', '.join(names)}")
    return subject.shapes[layer]
