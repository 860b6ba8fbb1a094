"""What every regularizer is: a term Ω added to the objective, `strength` times."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from torch import Tensor, nn

from mtlcli.errors import nearest
from mtlcli.specs import Shape, TrunkPass

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Subject:
    """What a regularizer is made for: the network as it starts, and what there is to see of it.

    trunks: name → trunk; one, called `trunk`, under hard sharing. Layers are named within it, as `named_modules` does.
    heads: task → its head.
    inputs: task → alias of the dataset its examples come from, in the tasks' order.
    shapes: activation → its shape without the batch, in the order they are computed: `input` (normalized), the trunk's
        own, and `features`, which is the last one again. What a `TrunkPass` holds. Empty under a sharing in which no
        one trunk passes all examples.
    private: whether tasks have features of their own beside the shared ones (`TrunkPass.private`).
    """

    trunks: Mapping[str, nn.Module]
    heads: Mapping[str, nn.Module]
    inputs: Mapping[str, str]
    shapes: Mapping[str, Shape]
    private: bool = False


class Regularizer(nn.Module):
    """Base of the regularizers. A module, so that its parameters and buffers are trained and saved like the model's.

    default_strength: of an entry that gives none. sees_examples: whether Ω depends on the examples of a step, or on
    weights alone. sees_trunk: whether one that does looks at the activations of a trunk that all examples pass, which
    not every sharing has. reshapes: whether it puts other layers in place of the trunk's; such ones are made first.
    likelihood: how `uncertainty` weights the term where it counts as a task, as `TaskKind.likelihood` does: `gaussian`
    for a sum of squares, the negative log-likelihood of a normal distribution up to the factor ½.

    A run makes it after the trunk has got its starting weights; its positional argument is the `Subject`, its
    keyword-only ones what the YAML may set (beside `strength` and `as_task`, which all have). ValueError for what
    doesn't fit. For every step the run calls `start_step`, `term` (once per micro-batch), then `after_step`; after
    every epoch `metrics`; at the end of the training `compress` and `draw`. Everything it remembers is in its
    state_dict. Nothing it does within a step waits for the device.

    Layers of the trunk that it refers to must not become its submodules: they are the model's.
    """

    default_strength: ClassVar[float]
    sees_examples: ClassVar[bool] = False
    sees_trunk: ClassVar[bool] = True
    needs_gates: ClassVar[bool] = False
    reshapes: ClassVar[bool] = False
    likelihood: ClassVar[Literal["gaussian", "categorical"]] = "categorical"

    differentiable = True  # False for one whose whole effect is in `after_step`

    def start_step(self, progress: float) -> None:
        """Called before each optimizer step. progress: the part of the training that is done, from 0 to 1."""

    def term(self, passes: Sequence[TrunkPass]) -> Tensor:
        """Ω, 0-d, with its graph and without its strength; a mean over examples where it `sees_examples`.

        passes: a micro-batch's passes through the trunk, in training mode. Empty where it doesn't see examples.
        """
        raise NotImplementedError

    def after_step(self, step_size: float) -> None:
        """Called after the optimizer's step, for a proximal one. step_size: strength × learning rate."""

    def metrics(self) -> dict[str, float]:
        """What it has to tell of the epoch, beside the mean of Ω; called at its end, and starts the next one."""
        return {}

    def compress(self) -> dict[str, Any] | None:
        """Take out of the model what the training has made superfluous; what was taken, as a JSON document.

        None where there is nothing it could take out.
        """
        return None

    def draw(self, passes: Sequence[TrunkPass]) -> dict[str, Figure]:
        """Pictures of the trained model: file name without suffix → figure. passes: in evaluation mode, no graph."""
        return {}


def shape_of(subject: Subject, layer: str) -> Shape:
    """The shape of an activation. ValueError, with the names there are, where the trunk computes none of that name."""
    names = [name for name in subject.shapes if name != "input"]
    if layer not in names:
        told = "`input` is what the trunk is given" if layer == "input" else f"the trunk has no activation {layer!r}"
        raise ValueError(f"layer: {told}.{nearest(layer, names)} Choose from: {', '.join(names)}")
    return subject.shapes[layer]
