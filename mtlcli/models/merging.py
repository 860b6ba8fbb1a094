"""Merging of models that were trained from a common start: one set of parameters from several.

Parameters that several models have are merged, all others are kept. Buffers, such as the running statistics of batch
norm, are averaged.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

State = Mapping[str, Tensor]
MergeMethod = Literal["mean", "task_arithmetic", "ties", "dare", "dare_ties"]
METHODS: tuple[MergeMethod, ...] = ("mean", "task_arithmetic", "ties", "dare", "dare_ties")

GRIDS: dict[MergeMethod, tuple[float, ...]] = {
    "task_arithmetic": (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0),
    "dare": (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0),
    "ties": (0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0, 2.25, 2.5),
    "dare_ties": (0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0, 2.25, 2.5),
}
"""Coefficients that are tried by default, for each method with a coefficient."""


@dataclass(frozen=True)
class MergeRule:
    """A method of merging, with its options.

    With the start θ_0, the parameters θ_t of model t, and the task vectors τ_t = θ_t − θ_0, the merged parameters are:

    * `mean`: 1/T Σ θ_t. Needs no start.
    * `task_arithmetic`: θ_0 + Σ λ_t τ_t.
    * `ties`: each τ_t is trimmed to its `density` share of entries of largest magnitude; each parameter elects the sign
      of Σ λ_t τ_t; and the λ_t τ_t of that sign, without zeros, are averaged and added to θ_0. If all λ_t are equal,
      this is θ_0 + λ τ_m of the paper. A parameter whose sum is exactly 0 stays at θ_0. Entries that are equal to the
      smallest kept one in magnitude are all kept.
    * `dare`: each entry of τ_t is set to 0 with probability `drop`, and the others are divided by 1 − `drop`; then task
      arithmetic.
    * `dare_ties`: the same, followed by `ties`.

    References:
        Wortsman et al., Model soups: averaging weights of multiple fine-tuned models improves accuracy without
            increasing inference time, ICML 2022 (arXiv:2203.05482).
        Ilharco et al., Editing models with task arithmetic, ICLR 2023 (arXiv:2212.04089).
        Yadav et al., TIES-Merging: resolving interference when merging models, NeurIPS 2023 (arXiv:2306.01708),
            algorithm 1.
        Yu et al., Language models are Super Mario: absorbing abilities from homologous models as a free lunch, ICML
            2024 (arXiv:2311.03099), equation 1.

    Attributes:
        method: the method.
        density: share of the entries of each task vector that TIES keeps.
        drop: probability with which DARE drops an entry.
        seed: seed of the entries that DARE drops.
    """

    method: MergeMethod
    density: float = 0.2
    drop: float = 0.5
    seed: int = 0

    @property
    def needs_start(self) -> bool:
        """True if the method is relative to the common start of the models."""
        return self.method != "mean"

    @property
    def elects_signs(self) -> bool:
        """True for TIES, of the task vectors or of what DARE leaves of them."""
        return self.method in ("ties", "dare_ties")

    @property
    def drops(self) -> bool:
        """True for the forms of DARE."""
        return self.method in ("dare", "dare_ties")


class Merger:
    """Merges the state dicts of several models by a rule, for any coefficients.

    Args:
        rule: the method and its options.
        states: name of the model → its state dict.
        parameters: the keys of parameters; all others are buffers.
        start: the common start of the parameters that several models have; None for a method that needs none.
    """

    def __init__(
        self, rule: MergeRule, states: Mapping[str, State], parameters: Collection[str], start: State | None = None
    ) -> None:
        self.rule, self.states, self.start = rule, states, start
        keys = dict.fromkeys(key for state in states.values() for key in state)
        self.owners = {key: [name for name, state in states.items() if key in state] for key in keys}
        self.merged = [key for key in keys if key in parameters and len(self.owners[key]) > 1]
        self.vectors: dict[str, dict[str, Tensor]] = {}
        if rule.needs_start:
            assert start is not None
            self.vectors = {name: self._task_vector(name) for name in states}

    def merge(self, coefficients: Mapping[str, float]) -> dict[str, Tensor]:
        """Merge the models.

        Args:
            coefficients: name of each model → λ_t; not used by `mean`.

        Returns:
            A state dict with the keys of all models, in the types of the first one that has each.
        """
        merged, of_vectors = {}, set(self.merged)
        for key, owners in self.owners.items():
            values = [self.states[name][key] for name in owners]
            first = values[0]
            if len(values) == 1:
                merged[key] = first.clone()
            elif key not in of_vectors or not self.rule.needs_start:
                merged[key] = _average(values)
            else:
                assert self.start is not None
                scaled = torch.stack([coefficients[name] * self.vectors[name][key].double() for name in owners])
                change = _elect_and_average(scaled) if self.rule.elects_signs else scaled.sum(0)
                merged[key] = (self.start[key].double() + change).to(first.dtype)
        return merged

    def _task_vector(self, name: str) -> dict[str, Tensor]:
        """Return the task vector of a model, after DARE and the trimming of TIES."""
        assert self.start is not None
        state, keys = self.states[name], [key for key in self.merged if name in self.owners[key]]
        vector = {key: state[key].float() - self.start[key].float() for key in keys}
        if self.rule.drops:
            generator = torch.Generator().manual_seed(_stable_seed(self.rule.seed, name))
            for key, value in vector.items():
                kept = torch.rand(value.shape, generator=generator) >= self.rule.drop
                vector[key] = value * kept / (1 - self.rule.drop)
        if self.rule.elects_signs and keys:
            threshold = _threshold(torch.cat([value.flatten() for value in vector.values()]), self.rule.density)
            vector = {key: torch.where(value.abs() >= threshold, value, 0.0) for key, value in vector.items()}
        return vector


def _threshold(vector: Tensor, density: float) -> Tensor:
    """Return the smallest magnitude among the ⌈density · P⌉ largest ones of a vector of P entries."""
    magnitudes = vector.abs()
    count = max(1, math.ceil(density * len(magnitudes)))
    return magnitudes.kthvalue(len(magnitudes) - count + 1).values


def _elect_and_average(vectors: Tensor) -> Tensor:
    """Average the entries whose sign is that of the sum over the models, without zeros: [T, …] → […]."""
    agreeing = (vectors.sign() == vectors.sum(0).sign()) & (vectors != 0)
    return torch.where(agreeing, vectors, 0.0).sum(0) / agreeing.sum(0).clamp(min=1)


def _average(values: list[Tensor]) -> Tensor:
    """Average tensors of a floating-point type; of others, such as counters, return the largest values."""
    if not values[0].is_floating_point():
        return torch.stack(values).amax(0)
    return torch.stack([value.double() for value in values]).mean(0).to(values[0].dtype)


def _stable_seed(seed: int, name: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed} {name}".encode()).digest()[:8], "little") % 2**63
