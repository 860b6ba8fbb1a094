"""The complete multi-task model: raw inputs of each dataset → a prediction for each task."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TypedDict

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mtlcli.models.sharing.base import AnyNameModuleDict, Sharing, SharingRecord


class ParameterCount(TypedDict):
    """Numbers of parameters, as in `summary.json`.

    Attributes:
        shared: parameters that don't belong to one task alone.
        tasks: task → parameters that belong to it alone.
        total: all parameters.
    """

    shared: int
    tasks: dict[str, int]
    total: int


class MultiTaskModel(nn.Module):
    """Multi-task model: normalization of the inputs of each dataset, then a sharing of trunks and heads.

    The keys of the state dict are `normalize.<alias>.{mean,std}` and `sharing.…`. Those of the heads are
    `sharing.heads.<task>.…`, and under hard sharing those of the trunk are `sharing.trunk.…`.

    Args:
        sharing: the connected trunks and heads.
        normalize: alias → module that converts its raw inputs to those of the trunk, whose shape is the same for all
            datasets; see `make_preparation`.
    """

    def __init__(self, sharing: Sharing, normalize: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.normalize = AnyNameModuleDict(normalize)
        self.sharing = sharing

    def forward(
        self,
        inputs: Mapping[str, Tensor] | Tensor,
        tasks: Iterable[str] | None = None,
        record: SharingRecord | None = None,
    ) -> dict[str, Tensor]:
        """Compute predictions.

        Args:
            inputs: alias → raw inputs, uint8 or float [B, …]; a bare tensor if all tasks are on one dataset. Inputs
                that no requested task needs are ignored.
            tasks: the requested tasks, whose datasets are all in `inputs`; None: all tasks whose datasets are.
            record: receives the intermediate results that it asks for; None: nothing is recorded.

        Returns:
            Task → prediction, [B, outputs].
        """
        inputs, alias_of = self._by_alias(inputs), self.sharing.inputs
        chosen = [task for task, alias in alias_of.items() if alias in inputs] if tasks is None else list(tasks)
        return self.sharing(self._normalize(inputs, chosen), chosen, record)  # type: ignore[no-any-return]

    def representations(
        self, inputs: Mapping[str, Tensor], tasks: Sequence[str], record: SharingRecord | None = None
    ) -> dict[str, Tensor]:
        """Compute the inputs of the heads.

        Args:
            inputs: alias → raw inputs, uint8 or float [B, …].
            tasks: the requested tasks, whose datasets are all in `inputs`.
            record: receives the intermediate results that it asks for; None: nothing is recorded.

        Returns:
            Task → input of its head, [B, features].
        """
        return self.sharing.representations(self._normalize(inputs, tasks), tasks, record)

    def _by_alias(self, inputs: Mapping[str, Tensor] | Tensor) -> Mapping[str, Tensor]:
        if isinstance(inputs, Mapping):
            return inputs
        aliases = list(dict.fromkeys(self.sharing.inputs.values()))
        if isinstance(inputs, Tensor) and len(aliases) == 1:
            return {aliases[0]: inputs}
        expected = ", ".join(f"{alias!r}: inputs" for alias in aliases)
        raise TypeError(f"the model takes the inputs of each dataset, {{{expected}}}, not a {type(inputs).__name__}")

    def _normalize(self, inputs: Mapping[str, Tensor], tasks: Sequence[str]) -> dict[str, Tensor]:
        aliases = {self.sharing.inputs[task]: None for task in tasks}
        return {alias: self.normalize[alias](inputs[alias]) for alias in aliases}

    @property
    def heads(self) -> AnyNameModuleDict:
        """Task → its head."""
        return self.sharing.heads

    def couples_examples(self) -> bool:
        """Return whether batch norm makes the representation of an example depend on its batch in training."""
        return any(isinstance(module, _BatchNorm) for module in self.modules())

    def shared_parameters(self) -> list[nn.Parameter]:
        """Return all parameters that don't belong to one task alone."""
        return self.sharing.shared_parameters()

    def last_shared_layer(self) -> list[nn.Parameter]:
        """Return the trainable parameters of the last shared layer with a weight matrix of each trunk.

        If no trunk has such a layer (a frozen trunk doesn't), the last such layer of the whole sharing is returned.
        """
        own = {inner for task in self.heads for module in self.sharing.own_modules(task) for inner in module.modules()}

        def last(root: nn.Module) -> list[nn.Parameter]:
            layer: list[nn.Parameter] = []
            for module in root.modules():
                parameters = [p for p in module.parameters(recurse=False) if p.requires_grad]
                if module not in own and any(p.ndim > 1 for p in parameters):
                    layer = parameters
            return layer

        layers = [last(trunk) for trunk in self.sharing.trunks().values()]
        return [p for layer in layers for p in layer] or last(self.sharing)

    def count_parameters(self) -> ParameterCount:
        """Count the parameters, trainable or frozen: shared ones, those of each task alone, and all."""
        return ParameterCount(
            shared=sum(p.numel() for p in self.shared_parameters()),
            tasks={
                task: sum(p.numel() for module in self.sharing.own_modules(task) for p in module.parameters())
                for task in self.heads
            },
            total=sum(p.numel() for p in self.parameters()),
        )
