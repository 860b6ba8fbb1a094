"""Mixtures of experts whose experts are trunks, or consecutive segments of trunks."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from mtlcli.models.sharing.base import (
    AnyNameModuleDict,
    MakeHead,
    MakeTrunk,
    Sharing,
    SharingRecord,
    SharingStats,
    concat_datasets,
    split_datasets,
)
from mtlcli.models.stage_shapes import trace_stages
from mtlcli.models.trunks.base import Trunk
from mtlcli.specs import TrunkPass, at_least_float32


def share_encoder(trunks: Sequence[Trunk]) -> None:
    """Keep the encoder of the first trunk only, which is then called once for all trunks.

    Args:
        trunks: the trunks; the encoders of all but the first one become the identity.
    """
    for trunk in trunks[1:]:
        trunk.encoder = nn.Identity()


def run_stages(stages: Sequence[Callable[[Tensor], Tensor]], x: Tensor) -> Tensor:
    """Apply consecutive stages of a trunk.

    Args:
        stages: the stages.
        x: output of the encoder, or the activation of the stage before, [B, …].

    Returns:
        The activation of the last of these stages, [B, …].
    """
    for stage in stages:
        x = stage(x)
    return x


@dataclass(frozen=True)
class Segment:
    """Consecutive stages of a trunk.

    Attributes:
        start: index of the first stage.
        end: index after the last stage.
        inputs: number of values of a gate's input for one example, see `Trunk.gate_input`.
        modules: paths of the modules with parameters or buffers that only this segment calls, none inside another.
            `get_submodule` returns the current module, also after a layer was replaced.
    """

    start: int
    end: int
    inputs: int
    modules: tuple[str, ...]


def split_trunk(trunk: Trunk, count: int) -> list[Segment]:
    """Split the stages of a trunk into segments of equal length; if that is impossible, later segments are longer.

    Args:
        trunk: the trunk, which is left unchanged; its device may be `meta`.
        count: number of segments.

    Returns:
        The segments, in order.

    Raises:
        ValueError: if the trunk has fewer stages than segments.
    """
    names = list(trunk.stages())
    if count > len(names):
        raise ValueError(
            f"levels: expected at most {len(names)}, the number of the trunk's stages ({', '.join(names)}), got "
            f"{count}. Use a trunk with more layers, or fewer levels"
        )
    bounds = [len(names) * index // count for index in range(count + 1)]
    stages = list(trace_stages(trunk).values())
    called = [
        {path for stage in stages[start:end] for name in stage.modules for path in _stateful_subtree(trunk, name)}
        for start, end in pairwise(bounds)
    ]
    encoder = _subtree(trunk, "encoder")
    return [
        Segment(
            bounds[index],
            bounds[index + 1],
            trunk.gate_size(stages[bounds[index]].input_shape, first=index == 0),
            _outermost(called[index], encoder.union(*called[:index], *called[index + 1 :])),
        )
        for index in range(count)
    ]


def _subtree(trunk: Trunk, name: str) -> set[str]:
    """Return the paths of a module and of all modules inside it."""
    return {".".join(filter(None, [name, inner])) for inner, _ in trunk.get_submodule(name).named_modules()}


def _stateful_subtree(trunk: Trunk, name: str) -> set[str]:
    """Return the subtree of a module with parameters or buffers; nothing for any other module."""
    return _subtree(trunk, name) if trunk.get_submodule(name).state_dict() else set()


def _outermost(called: set[str], others: set[str]) -> tuple[str, ...]:
    """Return the outermost modules of `called` that neither are in `others` nor contain a module of `others`."""
    excluded = {
        ".".join(path[:depth]) for path in (name.split(".") for name in others) for depth in range(len(path) + 1)
    }
    own = called - excluded
    parents = {name: [".".join(name.split(".")[:depth]) for depth in range(1, name.count(".") + 1)] for name in own}
    return tuple(sorted(name for name in own if not own.intersection(parents[name])))


class GateOutput(NamedTuple):
    """Output of a gate for n examples and E experts.

    Attributes:
        weights: non-negative weights of the experts, [n, E]; n is 1 if they are the same for all examples.
        selectors: the k distributions over the experts whose mean the weights are, [n, k, E]; the regularizer
            `gate_entropy` penalizes their entropy.
    """

    weights: Tensor
    selectors: Tensor


class SoftmaxGate(nn.Module):
    """Softmax gate: softmax(W x), or softmax(W x + b) with a bias.

    It is computed at least in float32: with 8 bits of precision, the sum of the weights would deviate from 1 by up to
    half a percent.

    Args:
        inputs: number of values in the gate's input for one example.
        experts: number of experts E.
        bias: whether the gate has a bias b.
    """

    def __init__(self, inputs: int, experts: int, bias: bool) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, experts, bias=bias)

    def forward(self, x: Tensor) -> GateOutput:
        """Compute the weights of the experts.

        Args:
            x: inputs, [n, …], flattened to [n, inputs].

        Returns:
            Weights [n, E] that sum to 1; the only selector is the weights themselves.
        """
        weights = at_least_float32(self.linear(x.flatten(1))).softmax(1)
        return GateOutput(weights, weights.unsqueeze(1))


def mix_experts(weights: Tensor, outputs: Sequence[Tensor]) -> Tensor:
    """Compute the weighted sum Σ_e weights_e · outputs_e.

    Args:
        weights: weights of the experts, [n or 1, E].
        outputs: E outputs, [n, …] each.

    Returns:
        The sum, [n, …], in the memory layout of the outputs.
    """
    columns = weights.view(*weights.shape, *(1 for _ in outputs[0].shape[1:])).unbind(1)
    total = columns[0] * outputs[0]
    for column, output in zip(columns[1:], outputs[1:], strict=True):
        total = total + column * output
    return total


def add_gate_stats(stats: SharingStats, owner: str, names: Sequence[str], weights: Tensor, examples: int) -> None:
    """Add the mean weight of each expert to the statistics.

    Args:
        stats: the statistics.
        owner: the task that the gate belongs to, or the name of a shared gate.
        names: names of the E experts.
        weights: weights of the experts, [n or 1, E].
        examples: number of examples that the weights apply to.
    """
    for name, weight in zip(names, weights.mean(0).unbind(), strict=True):
        stats.add(owner, name, weight, examples)


MakeGate = Callable[[int], nn.Module]
"""Creates a gate for inputs of a given number of values: a module [n, …] → `GateOutput`."""


class MixtureOfExperts(Sharing):
    """Base class of the sharings whose experts are whole trunks: the input of a head is Σ_e g_e(x) expert_e(x), [B, F].

    Each example passes through each expert once, regardless of the number of its tasks, and the examples of all
    datasets pass through an expert together, as in hard sharing. The input of a gate g is that of the first stages: the
    normalized example, converted by the trunk's encoder (one for all experts) and flattened. For texts, it is the mean
    of the token embeddings of the first expert.

    A subclass assigns a gate to each task by `gate_of`.

    Args:
        make_trunk: creates a trunk; called for each expert.
        make_head: creates the head of a task: (task, features) → module, [B, features] → [B, outputs].
        inputs: task → alias of its dataset.
        experts: number of experts.
        make_gate: creates a gate for inputs of a given number of values.
    """

    gated = True

    def __init__(
        self,
        make_trunk: MakeTrunk,
        make_head: MakeHead,
        inputs: Mapping[str, str],
        experts: int,
        make_gate: MakeGate,
    ) -> None:
        super().__init__(make_trunk, make_head, inputs)
        trunks = [make_trunk() for _ in range(experts)]
        (whole,) = split_trunk(trunks[0], 1)
        share_encoder(trunks)
        self.gates = AnyNameModuleDict(
            {name: make_gate(whole.inputs) for name in dict.fromkeys(map(self.gate_of, inputs))}
        )
        self.experts = nn.ModuleList(trunks)
        self.heads.update({task: make_head(task, trunks[0].features) for task in inputs})

    @abstractmethod
    def gate_of(self, task: str) -> str:
        """Return the name of the gate of a task."""

    def trunks(self) -> dict[str, Trunk]:
        """Return name → expert."""
        return {f"expert{index}": trunk for index, trunk in enumerate(self._experts())}

    def encode(
        self, inputs: Mapping[str, Tensor], alias_of: Mapping[str, str], record: SharingRecord
    ) -> dict[str, Tensor]:
        """See `Sharing.encode`; the selectors of the gates are recorded."""
        x, rows = concat_datasets(inputs)
        x = self._experts()[0].encoder(x)
        gate_inputs = split_datasets(self._experts()[0].gate_input(x, None, first=True), rows)
        outputs = [split_datasets(expert.run(x), rows) for expert in self._experts()]
        mixtures: dict[tuple[str, str], tuple[GateOutput, Tensor]] = {}  # (gate, alias) → the gate's output, mixture
        representations: dict[str, Tensor] = {}
        for task, alias in alias_of.items():
            key = self.gate_of(task), alias
            if key not in mixtures:  # tasks may have both the gate and the dataset in common
                gate: GateOutput = self.gates[key[0]](gate_inputs[alias])
                mixtures[key] = gate, mix_experts(gate.weights, [output[alias] for output in outputs])
            gate, representations[task] = mixtures[key]
            if record.stats is not None:
                add_gate_stats(record.stats, task, list(self.trunks()), gate.weights, rows[alias])
        if record.passes is not None:
            selectors: dict[str, list[Tensor]] = {}
            for (name, _), (gate, _) in mixtures.items():
                selectors.setdefault(name, []).append(gate.selectors)
            joint = {name: torch.cat(tensors) for name, tensors in selectors.items()}
            record.passes.append(TrunkPass(rows, {}, selectors=joint))
        return representations

    def _experts(self) -> list[Trunk]:
        return cast("list[Trunk]", list(self.experts))


class MultiGateMixture(MixtureOfExperts):
    """Base class of the mixtures in which each task has its own gate, which belongs to the task like its head."""

    def gate_of(self, task: str) -> str:
        """Return the task itself: its gate has its name."""
        return task

    def own_modules(self, task: str) -> list[nn.Module]:
        """Return the head and the gate of a task."""
        return [*super().own_modules(task), self.gates[task]]
