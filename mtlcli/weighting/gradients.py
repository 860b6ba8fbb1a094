"""What the weightings that balance the tasks' gradients are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor

from mtlcli.weighting.weighting import Weighting


class GradientWeighting(Weighting):
    """Base of the weightings that see the tasks' gradients, the rows of the Jacobian J [t, P].

    They set the gradient of the shared parameters only: every task's head gets its own gradient, unweighted.

    gradients: what the rows of J may be the gradients of, the default first: all shared `parameters`; the `features`
        that the trunk hands to the heads (the P of J is then batch × features, and what the method makes of J goes
        backward through the trunk once); the parameters of the `last_layer` of the trunk.
    reuses_weights: whether the update of a step is Jᵀw with weights that can be used again in the steps after it; then
        the YAML may set `every: k` to have them solved only every k steps.

    A run calls, for every step that solves: `start_step`, then `weights` or `update`, once. Absent tasks (without
    labels in the step) have left the problem: t ≤ T. What is returned must be finite whatever the gradients: zero, of
    rank one, opposed, tiny or huge.
    """

    gradients: ClassVar[tuple[str, ...]] = ("parameters", "features")
    reuses_weights: ClassVar[bool] = True


class GramianWeighting(GradientWeighting):
    """A weighting that needs the inner products of the gradients only.

    independent: whether they are to be those of two independent gradients of each task, and the update of a third: the
        step's examples are divided into three parts.
    """

    level = "gramian"
    independent: ClassVar[bool] = False

    def weights(self, gramian: Tensor, losses: Tensor, present: Sequence[int]) -> Tensor:
        """The weight of each present task's gradient, [t]; the update is Jᵀw.

        gramian: [t, t] G = J Jᵀ, float64 where the device has it; J₁J₂ᵀ where they are to be `independent`.
        losses: [t], the present tasks' mean losses over the step's labelled examples, without a graph, of G's type.
        present: their indices among the T tasks, ascending, at least one.
        Returns a tensor of G's type and device.
        """
        raise NotImplementedError


class JacobianWeighting(GradientWeighting):
    """A weighting that needs the gradients themselves."""

    level = "jacobian"

    def allocate(self, size: int) -> None:
        """Make the buffers whose size depends on P, the number of columns of J. Called once, before a state is loaded.

        They are on the CPU; the run moves the weighting to its device afterwards.
        """

    def update(
        self, jacobian: Tensor, gramian: Tensor, losses: Tensor, present: Sequence[int]
    ) -> tuple[Tensor, Tensor]:
        """The step's update of the shared parameters, and the weights that come nearest to it.

        jacobian: [t, P], float32, not to be changed.
        gramian: [t, t] G = J Jᵀ, float64 where the device has it.
        losses, present: as in `GramianWeighting.weights`.
        Returns (update [P], of J's type, to be descended along; weights [t], of G's type).
        """
        raise NotImplementedError
