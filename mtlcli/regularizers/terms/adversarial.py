"""Adversarial regularization with gradient reversal."""

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
from mtlcli.regularizers.base import Regularizer, Subject, get_activation_shape
from mtlcli.specs import TrunkPass


@regularizers.register("adversarial")
class Adversarial(Regularizer):
    """Adversarial regularization: a discriminator of the tasks' examples behind a gradient-reversal layer.

        Ω = mean over the examples of −log D(E(x))_d  +  orthogonality · Σ_t ‖S_tᵀ H_t‖²_F / n_t²

    D is a small network that predicts the dataset d of an example x from the trunk's features E(x). D minimizes the
    first sum; the trunk receives its gradient multiplied by −λ, and learns features from which the dataset can't be
    predicted. λ increases from 0 to 1 (`schedule`). `strength` multiplies everything: the trunk's gradient has the
    factor strength × λ, that of the discriminator the factor strength.

    An example's task is its dataset: tasks on the same dataset have the same examples and shared features, so they
    can't be distinguished. The mean is over all examples, as in the papers, so a large dataset has more weight. The
    discriminator's `accuracy` over an epoch is logged; features that don't reveal the dataset reduce it to `chance`,
    the share of the largest dataset in the epoch. `reversal` is λ at the end of the epoch.

    With private features (sharing `shared_private`) the second sum prevents them from repeating the shared ones: S_t
    and H_t are the shared and the private features of the n_t examples of task t, one row for each example, centred
    over the examples and scaled to length 1. Each summand is between 0 (uncorrelated) and 1.

    Note:
        Deviations: the discriminator receives each example's features scaled to a root mean square of 1. Otherwise the
        trunk increases its loss by increasing the features, which hides nothing and harms the heads: after an epoch of
        MNIST and FashionMNIST with strength 1 they were a hundred times as long. Liu et al. sum over the examples, and
        their discriminator is one linear layer (`hidden: []`). Centring and scaling of S and H are not in the papers
        but in the code of Bousmalis et al., which takes the mean of the squared entries of the matrix; n_t² makes the
        term independent of the batch size. With accumulation, the term is the mean of the values of the micro-batches,
        weighted by their numbers of examples.

    References:
        Ganin, Ustinova, Ajakan, Germain, Larochelle, Laviolette, Marchand and Lempitsky, Domain-adversarial training of
            neural networks, JMLR 2016, arXiv:1505.07818.
        Liu, Qiu and Huang, Adversarial multi-task learning for text classification, ACL 2017, arXiv:1704.05742,
            section 4: their λ is `strength`, their γ is strength × orthogonality.
        Bousmalis, Trigeorgis, Silberman, Krishnan and Erhan, Domain separation networks, NeurIPS 2016,
            arXiv:1608.06019: the orthogonality.

    Args:
        subject: the regularized network.
        hidden: widths of the discriminator's hidden layers, each with ReLU; may be empty.
        schedule: schedule of λ; `ganin`: 2 / (1 + exp(−10 p)) − 1 for the training progress p; `constant`: 1.
        layer: activation that the discriminator receives, flattened: a name that `mtl show` lists for the trunk, or
            `features`, its output.
        orthogonality: factor of the second sum; 0: it is omitted.

    Raises:
        ValueError: if all tasks are on one dataset, the trunk has no activation `layer`, or `orthogonality` is set and
            the tasks have no private features.
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
                f"all tasks are on the dataset {self.aliases[0]!r}, so that their examples are the same and can't be "
                "distinguished; use tasks on at least two datasets"
            )
        if orthogonality and not subject.private:
            raise ValueError(
                "orthogonality: the sharing has no private features; use `sharing: shared_private`, or omit the option"
            )
        widths = [math.prod(get_activation_shape(subject, layer)), *hidden]
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
        """See `Regularizer.term`."""
        features = torch.cat([one_pass.activations[self.layer] for one_pass in passes])
        labels = torch.cat([
            torch.full((rows,), self.aliases.index(alias), device=features.device)
            for one_pass in passes for alias, rows in one_pass.rows.items()
        ])  # fmt: skip
        logits = self.discriminator(reverse_gradient(features, self.reversal)).float()
        if torch.is_grad_enabled():  # False if a weighting evaluates the losses of the step again
            self._count(logits.detach(), labels, passes)
        loss = F.cross_entropy(logits, labels)
        return loss + self.orthogonality * self._overlap(passes) if self.orthogonality else loss

    def _count(self, logits: Tensor, labels: Tensor, passes: Sequence[TrunkPass]) -> None:
        self.correct += (logits.argmax(1) == labels).sum()
        for one_pass in passes:
            for alias, rows in one_pass.rows.items():
                self.examples[self.aliases.index(alias)] += rows

    def _overlap(self, passes: Sequence[TrunkPass]) -> Tensor:
        """Compute Σ_t ‖S_tᵀ H_t‖²_F / n_t² over the tasks with examples in the passes, 0-d."""
        shared: dict[str, list[Tensor]] = {}
        private: dict[str, list[Tensor]] = {}
        for one_pass in passes:
            of_datasets = torch.split(one_pass.activations["features"], list(one_pass.rows.values()))
            features = dict(zip(one_pass.rows, of_datasets, strict=True))
            for task, own in one_pass.private.items():
                shared.setdefault(task, []).append(features[self.inputs[task]])
                private.setdefault(task, []).append(own)
        return torch.stack([compute_overlap(torch.cat(shared[t]), torch.cat(private[t])) for t in private]).sum()

    def metrics(self) -> dict[str, float]:
        """Return `accuracy` of the discriminator and `chance` over the epoch, and `reversal`, λ at its end."""
        correct, examples = int(self.correct), self.examples.tolist()
        self.correct.zero_()
        self.examples.zero_()
        total = sum(examples) or math.nan
        return {"accuracy": correct / total, "chance": max(examples) / total, "reversal": float(self.reversal)}


def compute_overlap(shared: Tensor, private: Tensor) -> Tensor:
    """Compute ‖Sᵀ H‖²_F / n² for centred rows that are scaled to length 1, in float32.

    Args:
        shared: shared features, [n, F].
        private: private features, [n, F].

    Returns:
        The overlap, 0-d, from 0 to 1.
    """
    s, h = (F.normalize(x.float() - x.float().mean(0), dim=1, eps=1e-6) for x in (shared, private))
    return (s.T @ h).float().square().sum() / len(s) ** 2


def reverse_gradient(x: Tensor, factor: Tensor) -> Tensor:
    """Return a tensor unchanged, with its gradient multiplied by −factor.

    References:
        Ganin et al., Domain-adversarial training of neural networks, JMLR 2016, section 4.2.

    Args:
        x: the tensor, of any shape.
        factor: the factor, 0-d, on the same device.

    Returns:
        The same values.
    """
    reversed_: Tensor = _Reversal.apply(x, factor)
    return reversed_


def ganin_factor(progress: float) -> float:
    """Compute λ_p = 2 / (1 + exp(−10 p)) − 1, which increases from 0 to almost 1 and is ½ at p = 0.11.

    References:
        Ganin et al., Domain-adversarial training of neural networks, JMLR 2016, section 5.2, with γ = 10.

    Args:
        progress: completed fraction p of the training, from 0 to 1.

    Returns:
        λ_p.
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
