"""Base class of the sharings: how one or several trunks and the heads of the tasks are connected."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from mtlcli.models.dependent_tasks import Dependencies
from mtlcli.models.representations import Pooling
from mtlcli.models.task_answers import Answers
from mtlcli.models.trunks.base import Trunk
from mtlcli.specs import TrunkPass

PADDING = -1  # after the last token of a text

MakeTrunk = Callable[[], Trunk]
"""Creates a trunk, with newly initialized parameters at each call."""

MakeHead = Callable[[str, int], nn.Module]
"""Creates the head of a task for representations of a given width: (task, features) → head."""


class SharingStats:
    """Means over examples of the quantities of a sharing, such as gate weights; summed on the device, read once."""

    def __init__(self) -> None:
        self._sums: dict[str, dict[str, Tensor]] = {}
        self._counts: dict[tuple[str, str], int] = {}

    def add(self, task: str, name: str, value: Tensor, examples: int) -> None:
        """Add the mean of a quantity over some examples.

        Args:
            task: the task that the quantity belongs to.
            name: name of the quantity, such as `expert0`.
            value: mean over the examples, 0-d.
            examples: number of the examples.
        """
        sums = self._sums.setdefault(task, {})
        total = value.detach().float() * examples
        sums[name] = sums[name] + total if name in sums else total
        self._counts[task, name] = self._counts.get((task, name), 0) + examples

    def means(self) -> dict[str, dict[str, float]]:
        """Return task → name → mean over all examples added so far."""
        return {
            task: {name: float(total) / self._counts[task, name] for name, total in sums.items()}
            for task, sums in self._sums.items()
        }


@dataclass(frozen=True)
class SharingRecord:
    """Record of intermediate results in the forward passes of a sharing, filled by `Sharing.representations`.

    Attributes:
        passes: receives one `TrunkPass` for each forward pass through a shared trunk or through gates; None: the passes
            are not recorded.
        stats: receives the statistics of gates, stitches and masks; None: they are not recorded.
    """

    passes: list[TrunkPass] | None = None
    stats: SharingStats | None = None


class AnyNameModuleDict(nn.ModuleDict):
    """An `nn.ModuleDict` whose keys may also be the names of its own attributes and methods.

    `nn.ModuleDict` rejects a task or a dataset called `type`, `train` or `items`, since it registers each module as an
    attribute. This class reaches modules through `[name]` only. Any name without a dot is allowed, and the keys of the
    state dict are the same as those of an `nn.ModuleDict`.
    """

    def add_module(self, name: str, module: nn.Module | None) -> None:
        """Add a module under a name without a dot."""
        assert name and "." not in name and module is not None
        self._modules[name] = module

    def __setattr__(self, name: str, value: Any) -> None:
        # nn.Module.__setattr__ would refuse to set its own `training` if a module has that name
        object.__setattr__(self, name, value)


class Sharing(nn.Module, ABC):
    """Base class of the sharings.

    A subclass creates its trunks with `make_trunk`, fills `heads` with the results of `make_head`, and implements
    `trunks` and `encode`. The options of the configuration are the keyword-only arguments of its constructor.

    Args:
        make_trunk: creates a trunk, with newly initialized parameters at each call.
        make_head: creates the head of a task: (task, features) → module, [B, features] → [B, outputs].
        inputs: task → alias of the dataset that its examples come from, in the order of the tasks.

    Attributes:
        common_features: whether all tasks on the same dataset have the same representation.
        private: whether each task has its own features in addition to the shared ones.
        one_trunk: whether all examples pass through one trunk, the first of `trunks`, whose activations are recorded in
            `SharingRecord.passes`.
        gated: whether gates mix experts; the selectors of the gates are recorded in `SharingRecord.passes`.
        heads: task → its head.
        sequence: the binary tasks in their order, if there is one.
        dependencies: the tasks that depend on predictions of others; None if there are none.
        answers: language models of the tasks that generate texts; None if there are none.
        pooling: pooling of sequences or maps for the tasks that predict vectors; None if the trunk's output is a
            vector.
    """

    common_features: ClassVar[bool] = False
    private: ClassVar[bool] = False
    one_trunk: ClassVar[bool] = False
    gated: ClassVar[bool] = False
    sequence: tuple[str, ...] = ()
    dependencies: Dependencies | None = None
    pooling: Pooling | None = None
    answers: Answers | None = None

    def __init__(self, make_trunk: MakeTrunk, make_head: MakeHead, inputs: Mapping[str, str]) -> None:
        super().__init__()
        self.inputs = dict(inputs)
        self.heads = AnyNameModuleDict()

    @abstractmethod
    def trunks(self) -> dict[str, Trunk]:
        """Return name → trunk, the shared trunk first."""

    @abstractmethod
    def encode(
        self, inputs: Mapping[str, Tensor], alias_of: Mapping[str, str], record: SharingRecord
    ) -> dict[str, Tensor]:
        """Compute the representation of each task; called by `representations`.

        Args:
            inputs: alias → normalized inputs, [B, *input_shape], of the datasets in `alias_of`, of which there is at
                least one.
            alias_of: the requested tasks → alias of the dataset of each.
            record: receives the intermediate results that it asks for.

        Returns:
            Task → representation of the trunk's form, `Trunk.representation`, or [B, features] if the sharing pools it;
            tasks with the same representation share one tensor.
        """

    def representations(
        self,
        inputs: Mapping[str, Tensor],
        tasks: Iterable[str],
        record: SharingRecord | None = None,
        pooled: bool = True,
    ) -> dict[str, Tensor]:
        """Compute the representation of each requested task.

        Args:
            inputs: alias → normalized inputs, [B, *input_shape].
            tasks: the requested tasks, whose datasets are all in `inputs`.
            record: receives the intermediate results that it asks for; None: nothing is recorded.
            pooled: whether the representation of a task that predicts a vector is pooled, as its head needs it.

        Returns:
            Task → input of its head, [B, features], pooled if the trunk's output is a sequence or a map and the task
            predicts a vector; tasks with the same representation and pooling share one tensor.
        """
        alias_of = {task: self.inputs[task] for task in tasks}
        if not alias_of:
            return {}
        wanted = {alias: inputs[alias] for alias in alias_of.values()}
        representations = self.encode(wanted, alias_of, SharingRecord() if record is None else record)
        if self.answers is not None:
            representations = self.answers.apply(representations, wanted, alias_of)
        if self.pooling is None or not pooled:
            return representations
        return self.pooling.apply(representations, wanted, alias_of)

    def forward(
        self, inputs: Mapping[str, Tensor], tasks: Iterable[str], record: SharingRecord | None = None
    ) -> dict[str, Tensor]:
        """Compute the predictions of the requested tasks.

        Args:
            inputs: alias → normalized inputs, [B, *input_shape].
            tasks: the requested tasks, whose datasets are all in `inputs`.
            record: receives the intermediate results that it asks for; None: nothing is recorded.

        Returns:
            Task → prediction, [B, outputs].
        """
        if self.dependencies is not None:
            outputs, linked = self.joint_outputs(inputs, tasks, record), self.dependencies.linked
            return {task: x if task in linked else self.heads[task](x) for task, x in outputs.items()}
        representations = self.representations(inputs, tasks, record)
        return {task: self.heads[task](representation) for task, representation in representations.items()}

    def joint_outputs(
        self, inputs: Mapping[str, Tensor], tasks: Iterable[str], record: SharingRecord | None = None
    ) -> dict[str, Tensor]:
        """Compute the predictions of the tasks that depend on each other, and the representations of all others.

        Args:
            inputs: alias → normalized inputs, [B, *input_shape].
            tasks: the requested tasks, whose datasets are all in `inputs`.
            record: receives the intermediate results that it asks for; None: nothing is recorded.

        Returns:
            Task → prediction, [B, outputs], if it is one of `dependencies.linked`; else the input of its head.
        """
        assert self.dependencies is not None
        tasks, linked = list(tasks), self.dependencies.linked
        representations = self.representations(inputs, self.dependencies.closure(tasks), record)
        predictions = self.dependencies.predict(
            self.heads, {task: x for task, x in representations.items() if task in linked}
        )
        if record is not None and record.passes:
            record.passes[-1].predictions.update(predictions)
        return {task: predictions[task] if task in linked else representations[task] for task in tasks}

    def own_modules(self, task: str) -> list[nn.Module]:
        """Return the modules whose parameters belong to one task alone, its head first.

        Args:
            task: the task.

        Returns:
            Modules that only the loss of this task reaches.
        """
        own: list[nn.Module] = [self.heads[task]]
        return own if self.answers is None else [*own, *self.answers.own_modules(task)]

    def generate(self, task: str, x: Tensor, tokens: int) -> Tensor:
        """Generate texts by greedy decoding.

        Args:
            task: one of the tasks that generate texts.
            x: inputs of the trunk, [B, 2, L].
            tokens: maximum number of tokens of a text.

        Returns:
            Tokens, int64 [B, M] with M ≤ `tokens`; −1 after the end of a text.
        """
        assert self.answers is not None
        alias = self.inputs[task]
        return self.answers.generate(
            task, x, lambda: self.encode({alias: x}, {task: alias}, SharingRecord())[task], tokens
        )

    def shared_parameters(self) -> list[nn.Parameter]:
        """Return all parameters that don't belong to one task alone."""
        own = {id(p) for task in self.inputs for module in self.own_modules(task) for p in module.parameters()}
        return [p for p in self.parameters() if id(p) not in own]


def concat_datasets(inputs: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, int]]:
    """Concatenate the examples of all datasets to one batch. Texts of different lengths are padded to the longest.

    Args:
        inputs: alias → examples, [B_alias, …].

    Returns:
        The joint batch, [ΣB_alias, …], and alias → B_alias, in the order of the rows.
    """
    rows = {alias: x.shape[0] for alias, x in inputs.items()}  # len() would fix it in an exported program
    if len(inputs) == 1:
        return next(iter(inputs.values())), rows
    every = list(inputs.values())
    if differ_in_length(inputs):
        longest = max(x.shape[-1] for x in every)
        every = [functional.pad(x, (0, longest - x.shape[-1]), value=PADDING) for x in every]
    return torch.cat(every), rows


def differ_in_length(inputs: Mapping[str, Tensor]) -> bool:
    """Compare the last dimension of the datasets, which is the length of texts.

    Args:
        inputs: alias → examples, [B_alias, …].

    Returns:
        True if two datasets differ in it.
    """
    first, *others = inputs.values()
    return any(x.shape[-1] != first.shape[-1] for x in others)


def split_datasets(x: Tensor, rows: Mapping[str, int]) -> dict[str, Tensor]:
    """Split a joint batch into the examples of each dataset; the inverse of `concat_datasets`.

    Args:
        x: joint batch, [ΣB_alias, …].
        rows: alias → B_alias, in the order of the rows.

    Returns:
        Alias → its rows of `x`, [B_alias, …].
    """
    return dict(zip(rows, [x] if len(rows) == 1 else torch.split(x, list(rows.values())), strict=True))
