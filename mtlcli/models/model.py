"""The complete multi-task model: raw inputs of each dataset → a prediction for each task."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TypedDict

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mtlcli.models.sharing.base import AnyNameModuleDict, Sharing, SharingRecord
from mtlcli.models.trunks.base import Trunk


class ParameterCount(TypedDict):
    """Numbers of parameters, as in `summary.json`.

    Attributes:
        shared: parameters that don't belong to one task alone.
        tasks: task → parameters that belong to it alone.
        total: all parameters.
        trained: parameters that training changes; the others are frozen.
    """

    shared: int
    tasks: dict[str, int]
    total: int
    trained: int


class MultiTaskModel(nn.Module):
    """Multi-task model: normalization of the inputs of each dataset, stems, then a sharing of trunks and heads.

    The keys of the state dict are `normalize.<alias>.{mean,std}`, `stems.<alias>.…` and `sharing.…`. Those of the heads
    are `sharing.heads.<task>.…`, and under hard sharing those of the trunk are `sharing.trunk.…`.

    Args:
        sharing: the connected trunks and heads.
        normalize: alias → module that converts its raw inputs to those of its stem, or else to those of the trunk,
            whose shape is the same for all datasets; see `make_preparation`.
        stems: alias → encoder of its converted inputs, whose outputs are those of the trunk; None if no dataset has
            one.

    Attributes:
        stems: alias → stem; None if no dataset has one.
    """

    def __init__(
        self, sharing: Sharing, normalize: Mapping[str, nn.Module], stems: Mapping[str, nn.Module] | None = None
    ) -> None:
        super().__init__()
        self.normalize = AnyNameModuleDict(normalize)
        self.stems = AnyNameModuleDict(stems) if stems else None
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
        return self.sharing(self._prepare(inputs, chosen), chosen, record)  # type: ignore[no-any-return]

    def representations(
        self,
        inputs: Mapping[str, Tensor],
        tasks: Sequence[str],
        record: SharingRecord | None = None,
        pooled: bool = True,
    ) -> dict[str, Tensor]:
        """Compute the inputs of the heads.

        Args:
            inputs: alias → raw inputs, uint8 or float [B, …].
            tasks: the requested tasks, whose datasets are all in `inputs`.
            record: receives the intermediate results that it asks for; None: nothing is recorded.
            pooled: whether the representation of a task that predicts a vector is pooled, as its head needs it.

        Returns:
            Task → input of its head, [B, features]; of the trunk's form if it is not `pooled`.
        """
        return self.sharing.representations(self._prepare(inputs, tasks), tasks, record, pooled)

    def joint_outputs(
        self, inputs: Mapping[str, Tensor], tasks: Sequence[str], record: SharingRecord | None = None
    ) -> dict[str, Tensor]:
        """Compute the predictions of the tasks that depend on each other, and the inputs of the heads of all others.

        Args:
            inputs: alias → raw inputs, uint8 or float [B, …].
            tasks: the requested tasks, whose datasets are all in `inputs`.
            record: receives the intermediate results that it asks for; None: nothing is recorded.

        Returns:
            Task → prediction or input of its head, see `Sharing.joint_outputs`.
        """
        return self.sharing.joint_outputs(self._prepare(inputs, tasks), tasks, record)

    def generate(self, task: str, inputs: Tensor, tokens: int) -> Tensor:
        """Generate the texts that a task predicts, see `Sharing.generate`.

        Args:
            task: one of the tasks that generate texts.
            inputs: raw inputs of its dataset, int32 [B, 2, L].
            tokens: maximum number of tokens of a text.

        Returns:
            Tokens, int64 [B, M] with M ≤ `tokens`; −1 after the end of a text.
        """
        return self.sharing.generate(task, self.prepare(self.sharing.inputs[task], inputs), tokens)

    def _by_alias(self, inputs: Mapping[str, Tensor] | Tensor) -> Mapping[str, Tensor]:
        if isinstance(inputs, Mapping):
            return inputs
        aliases = list(dict.fromkeys(self.sharing.inputs.values()))
        if isinstance(inputs, Tensor) and len(aliases) == 1:
            return {aliases[0]: inputs}
        expected = ", ".join(f"{alias!r}: inputs" for alias in aliases)
        raise TypeError(f"the model takes the inputs of each dataset, {{{expected}}}, not a {type(inputs).__name__}")

    def _prepare(self, inputs: Mapping[str, Tensor], tasks: Sequence[str]) -> dict[str, Tensor]:
        aliases = {self.sharing.inputs[task]: None for task in tasks}
        if self.stems is None:
            return {alias: self.normalize[alias](inputs[alias]) for alias in aliases}
        return {alias: self.prepare(alias, inputs[alias]) for alias in aliases}

    def prepare(self, alias: str, inputs: Tensor) -> Tensor:
        """Convert the raw inputs of a dataset to inputs of the trunk.

        Args:
            alias: the dataset.
            inputs: raw inputs, uint8 or float [B, …].

        Returns:
            Inputs of the trunk, [B, …].
        """
        x: Tensor = self.normalize[alias](inputs)
        return self.stems[alias](x) if self.stems is not None and alias in self.stems else x

    @property
    def heads(self) -> AnyNameModuleDict:
        """Task → its head."""
        return self.sharing.heads

    def couples_examples(self) -> bool:
        """Return whether batch norm makes the representation of an example depend on its batch in training."""
        fixed = self._fixed_modules()
        return any(isinstance(module, _BatchNorm) and module not in fixed for module in self.modules())

    def own_modules(self, task: str) -> list[nn.Module]:
        """Return the modules whose parameters belong to one task alone.

        Args:
            task: the task.

        Returns:
            Those of the sharing, its head first, and the stem of the task's dataset if it belongs to the task; none if
            the loss of another task reaches them through the prediction of the task.
        """
        dependencies = self.sharing.dependencies
        if dependencies is not None and dependencies.is_reached_by_others(task):
            return []
        own = self.sharing.own_modules(task)
        return own if self.stems is None else own + self._own_stem(task)

    def _own_stem(self, task: str) -> list[nn.Module]:
        """Return the stem of a task's dataset if the loss of no other task reaches it.

        Other tasks on the dataset do, and so do all tasks if shared layers normalize the examples of several datasets
        by joint statistics.
        """
        assert self.stems is not None
        inputs = self.sharing.inputs
        alias = inputs[task]
        if alias not in self.stems or list(inputs.values()).count(alias) > 1:
            return []
        if len(set(inputs.values())) > 1 and self._normalizes_jointly():
            return []
        return [self.stems[alias]]

    def _normalizes_jointly(self) -> bool:
        """Return whether shared layers use batch statistics in training; frozen ones don't."""
        excluded = [module for task in self.heads for module in self.sharing.own_modules(task)]
        excluded += [trunk for trunk in self.sharing.trunks().values() if trunk.frozen]
        inside = {inner for module in excluded for inner in module.modules()} | self._fixed_modules()
        return any(isinstance(module, _BatchNorm) and module not in inside for module in self.sharing.modules())

    def _fixed_modules(self) -> set[nn.Module]:
        """Return the modules of trunks that stay in evaluation mode."""
        return {m for trunk in self.sharing.modules() if isinstance(trunk, Trunk) for m in trunk.fixed}

    def shared_parameters(self) -> list[nn.Parameter]:
        """Return all parameters that don't belong to one task alone."""
        if self.stems is None and self.sharing.dependencies is None:
            return self.sharing.shared_parameters()
        own = {id(p) for task in self.heads for module in self.own_modules(task) for p in module.parameters()}
        return [p for p in self.parameters() if id(p) not in own]

    def last_shared_layer(self) -> list[nn.Parameter]:
        """Return the trainable parameters of the last shared layer with a weight matrix of each trunk.

        If no trunk has such a layer (a frozen trunk doesn't), the last such layer of the whole sharing is returned.
        """
        own = {inner for task in self.heads for module in self.own_modules(task) for inner in module.modules()}

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
                task: sum(p.numel() for module in self.own_modules(task) for p in module.parameters())
                for task in self.heads
            },
            total=sum(p.numel() for p in self.parameters()),
            trained=sum(p.numel() for p in self.parameters() if p.requires_grad),
        )
