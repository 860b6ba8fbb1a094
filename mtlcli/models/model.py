"""The whole model: raw inputs of each dataset → a prediction for each task."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TypedDict

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mtlcli.models.modules import ByName
from mtlcli.models.sharing.base import Sharing
from mtlcli.specs import TrunkPass


class ParameterCount(TypedDict):
    """Numbers of parameters, as in `summary.json`."""

    shared: int
    tasks: dict[str, int]
    total: int


class MultiTaskModel(nn.Module):
    """Normalization of each dataset's inputs, then trunk and heads as the sharing wires them.

    sharing: wired trunk and heads.
    normalize: alias → what makes of its raw inputs what the trunk is given (see `preparation`), of the same shape for
        every dataset.

    The keys of the state dict are `normalize.<alias>.{mean,std}` and `sharing.…`, whose heads are
    `sharing.heads.<task>.…`; under hard sharing the trunk is `sharing.trunk.…`.
    """

    def __init__(self, sharing: Sharing, normalize: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.normalize = ByName(normalize)
        self.sharing = sharing

    def forward(
        self,
        inputs: Mapping[str, Tensor] | Tensor,
        tasks: Iterable[str] | None = None,
        seen: list[TrunkPass] | None = None,
    ) -> dict[str, Tensor]:
        """Return task → prediction [B, outputs].

        Args:
            inputs: alias → raw inputs [B, …] of the dataset, uint8 or float; a bare tensor if there is one dataset.
                Inputs that no task needs are ignored.
            tasks: the tasks to predict, all on datasets in `inputs`; None predicts every such task.
            seen: a list that receives the activations of the shared trunk, for the regularizers.

        Raises:
            TypeError: if `inputs` is neither a mapping nor, for a model of one dataset, a tensor.
        """
        inputs, alias_of = self._by_alias(inputs), self.sharing.inputs
        chosen = [task for task, alias in alias_of.items() if alias in inputs] if tasks is None else list(tasks)
        return self.sharing(self._normalized(inputs, chosen), chosen, seen)  # type: ignore[no-any-return]

    def representations(
        self, inputs: Mapping[str, Tensor], tasks: Sequence[str], seen: list[TrunkPass] | None = None
    ) -> dict[str, Tensor]:
        """task → what its head is given, [B, features], for the tasks asked for. inputs, seen: as in `forward`."""
        return self.sharing.representations(self._normalized(inputs, tasks), tasks, seen)

    def _by_alias(self, inputs: Mapping[str, Tensor] | Tensor) -> Mapping[str, Tensor]:
        if isinstance(inputs, Mapping):
            return inputs
        aliases = list(dict.fromkeys(self.sharing.inputs.values()))
        if isinstance(inputs, Tensor) and len(aliases) == 1:
            return {aliases[0]: inputs}
        expected = ", ".join(f"{alias!r}: inputs" for alias in aliases)
        raise TypeError(f"the model takes the inputs of each dataset, {{{expected}}}, not a {type(inputs).__name__}")

    def _normalized(self, inputs: Mapping[str, Tensor], tasks: Sequence[str]) -> dict[str, Tensor]:
        aliases = {self.sharing.inputs[task]: None for task in tasks}
        return {alias: self.normalize[alias](inputs[alias]) for alias in aliases}

    @property
    def heads(self) -> ByName:
        """task → its head."""
        return self.sharing.heads

    def couples_examples(self) -> bool:
        """Whether, in training, an example's representation depends on the others of its batch: batch norm."""
        return any(isinstance(module, _BatchNorm) for module in self.modules())

    def shared_parameters(self) -> list[nn.Parameter]:
        """All parameters that don't belong to one task alone."""
        return self.sharing.shared_parameters()

    def last_shared_layer(self) -> list[nn.Parameter]:
        """The trainable parameters of the last shared layer with a matrix of weights: of each trunk that has one.

        Where no trunk has one (frozen ones don't), of all that the sharing has beside them.
        """
        own = {inner for task in self.heads for module in self.sharing.own_modules(task) for inner in module.modules()}

        def last(part: nn.Module) -> list[nn.Parameter]:
            found: list[nn.Parameter] = []
            for module in part.modules():
                parameters = [p for p in module.parameters(recurse=False) if p.requires_grad]
                if module not in own and any(p.ndim > 1 for p in parameters):
                    found = parameters
            return found

        layers = [last(trunk) for trunk in self.sharing.trunks().values()]
        return [p for layer in layers for p in layer] or last(self.sharing)

    def count_parameters(self) -> ParameterCount:
        """How many numbers are learned or frozen: shared, each task's own, and in all."""
        return ParameterCount(
            shared=sum(p.numel() for p in self.shared_parameters()),
            tasks={
                task: sum(p.numel() for module in self.sharing.own_modules(task) for p in module.parameters())
                for task in self.heads
            },
            total=sum(p.numel() for p in self.parameters()),
        )
