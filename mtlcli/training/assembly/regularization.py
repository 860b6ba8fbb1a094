"""Regularizers of a run: their terms of the objective, metrics and compression."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from mtlcli import registry
from mtlcli.component import RegularizerClass
from mtlcli.config import Experiment
from mtlcli.config.locations import Problems
from mtlcli.models.model import MultiTaskModel
from mtlcli.models.sharing.base import Sharing
from mtlcli.models.stage_shapes import activation_shapes
from mtlcli.regularizers.base import Regularizer, Subject
from mtlcli.regularizers.factorized import Factorized
from mtlcli.specs import Shape, TrunkPass

if TYPE_CHECKING:
    from matplotlib.figure import Figure


PREFIX = "regularizers."  # of names in tables; names of tasks have no dots


@dataclass(frozen=True)
class Term:
    """A term of the objective.

    Attributes:
        name: Name in tables.
        index: Position in `Experiment.terms`.
        strength: Factor of the term.
        as_task: Whether the weighting treats it as a task.
    """

    name: str
    index: int
    strength: float
    as_task: bool


def terms_of(experiment: Experiment) -> list[Term]:
    """Return the terms of an experiment, those treated as tasks first."""
    names: list[str] = []
    for entry in experiment.terms:
        same = sum(name.partition("#")[0] == PREFIX + entry.name for name in names)
        names.append(PREFIX + entry.name + (f"#{same + 1}" if same else ""))
    entries = enumerate(zip(names, experiment.terms, strict=True))
    terms = [Term(name, index, entry.strength, entry.as_task) for index, (name, entry) in entries]
    return sorted(terms, key=lambda term: not term.as_task)


class Regularization(nn.Module):
    """All regularizers of a run.

    Args:
        terms: The terms, those treated as tasks first.
        parts: The regularizers in the same order.

    Attributes:
        tasks: Number of terms that are treated as tasks.
        sees_examples: Whether a regularizer depends on activations.
    """

    def __init__(self, terms: Sequence[Term], parts: Sequence[Regularizer]) -> None:
        super().__init__()
        self.terms = list(terms)
        self.parts = nn.ModuleList(parts)
        self.sees_examples = any(regularizer.sees_examples for regularizer in parts)
        self.tasks = sum(term.as_task for term in terms)

    def regularizers(self) -> list[tuple[Term, Regularizer]]:
        """Return the (term, regularizer) pairs."""
        return list(zip(self.terms, self.parts, strict=True))  # type: ignore[arg-type]

    def start_step(self, progress: float) -> None:
        """Prepare for an optimizer step; `progress` is the completed share of the training, from 0 to 1."""
        for _, regularizer in self.regularizers():
            regularizer.start_step(progress)

    def losses(self, passes: list[TrunkPass], autocast: AbstractContextManager[object]) -> list[Tensor]:
        """Compute the terms of the objective.

        Terms of weights alone are computed in full precision.

        Args:
            passes: Passes of the trunk in this step.
            autocast: Mixed-precision context for terms of activations.

        Returns:
            strength × Ω of each term, 0-d, with its graph.
        """
        losses = []
        for term, regularizer in self.regularizers():
            with autocast if regularizer.sees_examples else nullcontext():
                omega = regularizer.term(passes if regularizer.sees_examples else [])
            losses.append(omega.float() * term.strength)
        return losses

    def metrics(self) -> dict[str, dict[str, float]]:
        """Return term → metrics of the epoch other than its loss."""
        return {term.name: regularizer.metrics() for term, regularizer in self.regularizers()}

    def compress(self) -> dict[str, Any]:
        """Remove components of the model that training has made unnecessary; return term → report."""
        reports = {term.name: regularizer.compress() for term, regularizer in self.regularizers()}
        return {name: report for name, report in reports.items() if report is not None}

    def draw(self, passes: list[TrunkPass]) -> dict[str, Figure]:
        """Return file name → figure of the trained model; names of repeated regularizers end in #2 and so on."""
        return {
            "".join([name, *term.name.partition("#")[1:]]): figure
            for term, regularizer in self.regularizers()
            for name, figure in regularizer.draw(passes).items()
        }

    def after_step(self, learning_rate: float) -> None:
        """Apply proximal steps after an optimizer step."""
        for term, regularizer in self.regularizers():
            regularizer.after_step(term.strength * learning_rate)


def regularize(experiment: Experiment, model: MultiTaskModel) -> Regularization:
    """Construct the regularizers of an experiment for the current weights of the model. Some reshape its trunk.

    Args:
        experiment: The experiment.
        model: The model, on its device.

    Returns:
        The regularizers.

    Raises:
        ConfigError: Lists all regularizers that do not fit.
    """
    terms, problems = terms_of(experiment), Problems(experiment)
    components = [registry.regularizers[entry.name] for entry in experiment.terms]
    created: dict[int, Regularizer] = {}
    subject = _subject(model) if terms else None
    for term in sorted(terms, key=lambda term: not components[term.index].target.reshapes):
        with problems.at(f"regularizers.{term.index}"):
            if term.as_task and term.strength == 0:
                raise ValueError("`as_task` needs a strength above 0")
            options = experiment.terms[term.index].options
            _check_sharing(components[term.index].target, model.sharing, experiment)
            created[term.index] = regularizer = components[term.index].create(subject, **options)
            if term.as_task and not regularizer.differentiable:
                raise ValueError("`as_task` needs a differentiable term, and this one has no gradient; remove it")
    problems.check()
    return Regularization(terms, [created[term.index] for term in terms])


def _check_sharing(regularizer: RegularizerClass, sharing: Sharing, experiment: Experiment) -> None:
    """Check that the sharing has what a regularizer needs: a trunk for all examples, gates, or tasks in order."""
    name = experiment.sharing.name
    if regularizer.sees_examples and regularizer.sees_trunk and not sharing.one_trunk:
        if experiment.adapters is not None and getattr(_sharings()[name], "one_trunk", False):
            raise ValueError(
                f"needs one pass of all examples through the trunk; with adapters that depend on the task "
                f"(`arrangement: {experiment.adapters.options['arrangement']}`) each task passes separately"
            )
        raise ValueError(
            f"needs a single trunk that all examples pass, which `sharing: {name}` does not have. "
            f"Sharings with one: {_sharings_with('one_trunk')}"
        )
    if regularizer.needs_gates and not sharing.gated:
        raise ValueError(
            f"needs gates, which `sharing: {name}` does not have. Sharings with gates: {_sharings_with('gated')}"
        )

    if regularizer.needs_order and not sharing.sequence:
        raise ValueError(
            f"needs tasks in order, which `sharing: {name}` does not have. `sharing: aitm` does, and adds this term "
            "itself"
        )


def _sharings() -> dict[str, Any]:
    return {name: registry.sharings[name].target for name in registry.sharings.names()}


def _sharings_with(attribute: str) -> str:
    return ", ".join(name for name, target in _sharings().items() if getattr(target, attribute, False))


def _subject(model: MultiTaskModel) -> Subject:
    sharing = model.sharing
    trunks, heads = sharing.trunks(), dict(sharing.heads.items())
    shared, shapes = next(iter(trunks.values())), dict[str, Shape]()
    if sharing.one_trunk:
        shapes = {"input": shared.input_shape} if shared.takes_numbers() else {}
        shapes |= activation_shapes(shared)
    return Subject(trunks, heads, sharing.inputs, shapes, sharing.private, sharing.sequence)


def fit_ranks(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Resize the factorized layers of a model to the ranks in a state dict, as far as they fit."""
    for name, module in model.named_modules():
        if isinstance(module, Factorized) and (factor := state.get(f"{name}.u")) is not None:
            full = min(module.shape[0], module.shape[1:].numel())
            module.resize(factor.shape[1] if factor.dim() == 2 and factor.shape[1] <= full else module.rank)
