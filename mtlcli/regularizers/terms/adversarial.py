"""A discriminator that tells the tasks' examples apart, and a trunk that learns to keep it from doing so."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal

import torch
from pydantic import NonNegativeFloat
from torch import Tensor, nn
from torch.nn import functional as F

from mtlcli.config.options import Widths
from mtlcli.registry import regularizers
from mtlcli.regularizers.base import Regularizer, Subject, shape_of
from mtlcli.specs import TrunkPass


@regularizers.register("adversarial")
class Adversarial(Regularizer):
    """A task discriminator behind a gradient-reversal layer: the shared features are not to tell the tasks apart.

        Ω = mean over the examples of −log D(E(x))_d  +  orthogonality · Σ_t ‖S_tᵀ H_t‖²_F / n_t²

    D is a small network that says which dataset d an example x comes from, given the trunk's features E(x). It learns
    to say so; the trunk is given the gradient times −λ, so it learns to prevent it. λ is 0 at the start and 1 at the
    end (`schedule`), and `strength` multiplies it all: the trunk's part is strength × λ, the discriminator's strength.

    An example's task is its dataset: tasks on the same one have the same examples, and the same shared features, so
    nothing could tell them apart. The mean is that of the papers, over all examples, so that a large dataset counts
    for more. The discriminator's `accuracy` over an epoch is logged; features that don't tell the tasks apart bring it
    down to `chance`, the share of the largest dataset in the epoch, and `reversal` is λ at its end.

    With private features (sharing `shared_private`) the second sum keeps them from repeating the shared ones: S_t and
    H_t are the shared and the private features of the n_t examples of task t, a row for each, centred over them and
    scaled to length 1. So each summand is between 0 (uncorrelated) and 1.

    Sources: Ganin et al., Domain-adversarial training of neural networks, JMLR 2016; Liu, Qiu and Huang, Adversarial
    multi-task learning for text classification, ACL 2017, section 4 (their λ is our strength, their γ our strength ×
    orthogonality); Bousmalis et al., Domain separation networks, NeurIPS 2016 (the orthogonality).
    Deviations: the discriminator is given each example's features scaled to a root mean square of 1. Otherwise the
    trunk raises its loss by larger and larger features, which hide nothing and spoil the heads: after an epoch of
    MNIST and FashionMNIST with strength 1 they were a hundred times as long. Liu et al. sum over the examples, and
    their discriminator is one linear layer (`hidden: []`). The centring and scaling of S and H are not in the papers
    but in Bousmalis et al.'s code, which then takes the mean of the matrix's squares; n_t² makes it independent of the
    batch's size. With accumulation it is the mean of the micro-batches' values, weighted like their examples.

    ValueError where all tasks are on one dataset, for a layer there isn't, and for `orthogonality` without private
    features.

    Options:
        hidden: widths of the discriminator's hidden layers, each with ReLU; may be empty.
        schedule: of λ; `ganin`: 2 / (1 + exp(−10 p)) − 1 of the training's progress p; `constant`: 1.
        layer: the activation it is given, flattened, as `mtl show` names the trunk's, or `features`, its output.
        orthogonality: what the orthogonality of shared and private features is multiplied by; 0: it is left out.
    """

    default_strength = 0.05
    sees_examples = True
    reversal: Tensor
    correct: Tensor
    examples: Tensor

    def __init__(
        self,
        subject: Subject,
        *,
        hidden: Widths = [64],  # noqa: B006 (never changed)
        schedule: Literal["ganin", "constant"] = "ganin",
        layer: str = "features",
        orthogonality: NonNegativeFloat = 0.0,
    ) -> None:
        super().__init__()
        self.inputs, self.schedule, self.layer, self.orthogonality = subject.inputs, schedule, layer, orthogonality
        self.aliases = list(dict.fromkeys(subject.inputs.values()))
        if len(self.aliases) < 2:
            raise ValueError(
                f"all tasks are on the dataset {self.aliases[0]!r}: every example belongs to all of them, and there is "
                "nothing to tell apart. It needs tasks on two datasets or more"
            )
        if orthogonality and not subject.private:
            raise ValueError(
                "orthogonality: the tasks have no private features that the shared ones could be orthogonal to; "
                "use `sharing: shared_private`, or leave it out"
            )
        widths = [math.prod(shape_of(subject, layer)), *hidden]
        layers = [layer for pair in pairwise(widths) for layer in (nn.Linear(*pair), nn.ReLU())]
        scale_free = nn.RMSNorm(widths[0], eps=1e-6, elementwise_affine=False)
        self.discriminator = nn.Sequential(nn.Flatten(), scale_free, *layers, nn.Linear(widths[-1], len(self.aliases)))
        self.register_buffer("reversal", torch.ones(()))
        self.register_buffer("correct", torch.zeros((), dtype=torch.int64))
        self.register_buffer("examples", torch.zeros(len(self.aliases), dtype=torch.int64))

    def start_step(self, progress: float) -> None:
        if self.schedule == "ganin":
            self.reversal.fill_(ganin_factor(progress))

    def term(self, passes: Sequence[TrunkPass]) -> Tensor:
        """See `Regularizer`."""
        seen = torch.cat([found.activations[self.layer] for found in passes])
        labels = torch.cat([
            torch.full((rows,), self.aliases.index(alias), device=seen.device)
            for found in passes for alias, rows in found.rows.items()
        ])  # fmt: skip
        logits = self.discriminator(reverse_gradient(seen, self.reversal)).float()
        if torch.is_grad_enabled():  # and so not where a weighting looks at a step's losses again
            self._count(logits.detach(), labels, passes)
        loss = F.cross_entropy(logits, labels)
        return loss + self.orthogonality * self._overlap(passes) if self.orthogonality else loss

    def _count(self, logits: Tensor, labels: Tensor, passes: Sequence[TrunkPass]) -> None:
        self.correct += (logits.argmax(1) == labels).sum()
        for found in passes:
            for alias, rows in found.rows.items():
                self.examples[self.aliases.index(alias)] += rows

    def _overlap(self, passes: Sequence[TrunkPass]) -> Tensor:
        """Σ_t ‖S_tᵀ H_t‖²_F / n_t² over the tasks that have examples in the passes, 0-d."""
        shared: dict[str, list[Tensor]] = {}
        private: dict[str, list[Tensor]] = {}
        for found in passes:
            parts = torch.split(found.activations["features"], list(found.rows.values()))
            features = dict(zip(found.rows, parts, strict=True))
            for task, own in found.private.items():
                shared.setdefault(task, []).append(features[self.inputs[task]])
                private.setdefault(task, []).append(own)
        return torch.stack([overlap(torch.cat(shared[t]), torch.cat(private[t])) for t in private]).sum()

    def metrics(self) -> dict[str, float]:
        """`accuracy` of the discriminator over the epoch, `chance` beside it, and `reversal`, λ at its end."""
        correct, examples = int(self.correct), self.examples.tolist()
        self.correct.zero_()
        self.examples.zero_()
        total = sum(examples) or math.nan
        return {"accuracy": correct / total, "chance": max(examples) / total, "reversal": float(self.reversal)}


def overlap(shared: Tensor, private: Tensor) -> Tensor:
    """‖Sᵀ H‖²_F / n² of the rows [n, F] of both, centred and scaled to length 1 in float32; 0-d, from 0 to 1."""
    s, h = (F.normalize(x.float() - x.float().mean(0), dim=1, eps=1e-6) for x in (shared, private))
    return (s.T @ h).float().square().sum() / len(s) ** 2


def reverse_gradient(x: Tensor, factor: Tensor) -> Tensor:
    """x itself, whose gradient arrives multiplied by −factor. x: any shape; factor: 0-d, on the same device.

    Source: Ganin et al., Domain-adversarial training of neural networks, JMLR 2016, section 4.2.
    """
    found: Tensor = _Reversal.apply(x, factor)
    return found


def ganin_factor(progress: float) -> float:
    """λ_p = 2 / (1 + exp(−10 p)) − 1 of the progress p from 0 to 1: from 0 to nearly 1, half way there at p = 0.11.

    Source: Ganin et al. 2016, section 5.2, with their γ = 10.
    """
    return 2 / (1 + math.exp(-10 * progress)) - 1


class _Reversal(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: Tensor) -> Tensor:
        ctx.save_for_backward(factor)
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (factor,) = ctx.saved_tensors
        return -factor * gradient, None
