"""The regularizers of a run: what they add to the objective, and to what the run tells of itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from mtlcli import registry
from mtlcli.config import Experiment
from mtlcli.models.model import MultiTaskModel
from mtlcli.models.sharing.base import Sharing
from mtlcli.models.trunks.base import activation_shapes
from mtlcli.registry import RegularizerClass
from mtlcli.regularizers.base import Regularizer, Subject
from mtlcli.regularizers.factorized import Factorized
from mtlcli.specs import DatasetSpec, Shape, TrunkPass
from mtlcli.training.assembly.model_size import size
from mtlcli.training.problems import Problems

if TYPE_CHECKING:
    from matplotlib.figure import Figure


PREFIX = "regularizers."  # of their names in tables: no task's name has a dot


@dataclass(frozen=True)
class Term:
    """A regularizer as it stands in the objective.

    name: in tables. index: in the experiment's list. as_task: whether the weighting counts it as a task.
    """

    name: str
    index: int
    strength: float
    as_task: bool


def terms_of(experiment: Experiment) -> list[Term]:
    """The terms of an experiment: first those that the weighting counts as tasks, in this order after the real ones."""
    names: list[str] = []
    for entry in experiment.regularizers:
        same = sum(name.partition("#")[0] == PREFIX + entry.name for name in names)
        names.append(PREFIX + entry.name + (f"#{same + 1}" if same else ""))
    entries = enumerate(zip(names, experiment.regularizers, strict=True))
    terms = [Term(name, index, entry.strength, entry.as_task) for index, (name, entry) in entries]
    return sorted(terms, key=lambda term: not term.as_task)


class Regularization(nn.Module):
    """All regularizers of a run. In `terms`, as in `parts`, those counted as tasks come first.

    parts: the regularizers, in the order of `terms`. tasks: how many of them count as tasks.
    """

    def __init__(self, terms: Sequence[Term], parts: Sequence[Regularizer]) -> None:
        super().__init__()
        self.terms = list(terms)
        self.parts = nn.ModuleList(parts)
        self.sees_examples = any(part.sees_examples for part in parts)
        self.tasks = sum(term.as_task for term in terms)

    def regularizers(self) -> list[tuple[Term, Regularizer]]:
        return list(zip(self.terms, self.parts, strict=True))  # type: ignore[arg-type]

    def start_step(self, progress: float) -> None:
        """Before each optimizer step. progress: the part of the training that is done, from 0 to 1."""
        for _, part in self.regularizers():
            part.start_step(progress)

    def losses(self, passes: list[TrunkPass], autocast: AbstractContextManager[object]) -> list[Tensor]:
        """Each term as it stands in the objective, strength × Ω, 0-d, with its graph.

        Those of weights alone are computed in full precision.
        """
        found = []
        for term, part in self.regularizers():
            with autocast if part.sees_examples else nullcontext():
                omega = part.term(passes if part.sees_examples else [])
            found.append(omega.float() * term.strength)
        return found

    def metrics(self) -> dict[str, dict[str, float]]:
        """Term → what it has to tell of the epoch that ends, beside its loss."""
        return {term.name: part.metrics() for term, part in self.regularizers()}

    def compress(self) -> dict[str, Any]:
        """Take out of the model what the training has made superfluous; term → what was taken, where one does so."""
        found = {term.name: part.compress() for term, part in self.regularizers()}
        return {name: report for name, report in found.items() if report is not None}

    def draw(self, passes: list[TrunkPass]) -> dict[str, Figure]:
        """File name → picture of the trained model; that of a second regularizer of a name ends in #2, as its own."""
        return {
            "".join([name, *term.name.partition("#")[1:]]): figure
            for term, part in self.regularizers()
            for name, figure in part.draw(passes).items()
        }

    def after_step(self, learning_rate: float) -> None:
        """After each optimizer step that was made."""
        for term, part in self.regularizers():
            part.after_step(term.strength * learning_rate)


def regularize(experiment: Experiment, model: MultiTaskModel) -> Regularization:
    """Make the experiment's regularizers, on the model's device, for its weights as they are. Some reshape its trunk.

    ConfigError with all that don't fit.
    """
    terms, problems = terms_of(experiment), Problems(experiment)
    components = [registry.regularizers[entry.name] for entry in experiment.regularizers]
    made: dict[int, Regularizer] = {}
    subject = _subject(model) if terms else None
    for term in sorted(terms, key=lambda term: not components[term.index].target.reshapes):
        with problems.at(f"regularizers.{term.index}"):
            if term.as_task and term.strength == 0:
                raise ValueError("a term that is counted as a task needs a strength above 0")
            options = experiment.regularizers[term.index].options
            _check_sharing(components[term.index].target, model.sharing)
            made[term.index] = part = components[term.index].create(subject, **options)
            if term.as_task and not part.differentiable:
                raise ValueError("as_task: it has no gradient that a weighting could weigh; leave `as_task` out")
    problems.check()
    return Regularization(terms, [made[term.index] for term in terms])


def _check_sharing(regularizer: RegularizerClass, sharing: Sharing) -> None:
    """Raise ValueError if a regularizer needs a trunk for all examples, or gates, and the sharing has none."""
    if regularizer.sees_examples and regularizer.sees_trunk and not sharing.one_trunk:
        name = next((name for name, target in _sharings().items() if target is type(sharing)), type(sharing).__name__)
        raise ValueError(
            f"looks at the activations of a trunk that all examples pass, and under `sharing: {name}` there is none. "
            f"There is one under: {_sharings_with('one_trunk')}"
        )
    if regularizer.needs_gates and not sharing.gated:
        names = _sharings_with("gated")
        raise ValueError(f"the sharing has no gates; use one that has: {names}, or leave this term out")


def _sharings() -> dict[str, Any]:
    return {name: registry.sharings[name].target for name in registry.sharings.names()}


def _sharings_with(attribute: str) -> str:
    return ", ".join(name for name, target in _sharings().items() if getattr(target, attribute, False))


def _subject(model: MultiTaskModel) -> Subject:
    sharing = model.sharing
    trunks, heads = sharing.trunks(), dict(sharing.heads.items())
    shared, shapes = next(iter(trunks.values())), dict[str, Shape]()
    if sharing.one_trunk:
        shapes = {} if shared.of_columns else {"input": shared.input_shape}
        shapes |= activation_shapes(shared)
    return Subject(trunks, heads, sharing.inputs, shapes, sharing.private)


def compress(
    model: MultiTaskModel, regularization: Regularization, specs: Mapping[str, DatasetSpec], before: Mapping[str, float]
) -> dict[str, Any] | None:
    """Let the regularizers compress a trained model.

    Args:
        model: the model, whose layers the regularizers replace.
        regularization: the regularizers that the model was trained with.
        specs: alias → the dataset, for the cost of a pass.
        before: `shared_parameters`, `parameters` and `flops` of the model without regularizers.

    Returns:
        A JSON document with each of these as {before, after} and the report of each regularizer; None where none of
        them compresses.
    """
    reports = regularization.compress()
    if not reports:
        return None
    after = size(model, specs)
    return {**{key: {"before": before[key], "after": after[key]} for key in before}, "regularizers": reports}


def fit_ranks(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Give a model's factorized layers the ranks that those in a state dict of it have, if they can have them."""
    for name, module in model.named_modules():
        if isinstance(module, Factorized) and (factor := state.get(f"{name}.u")) is not None:
            full = min(module.shape[0], module.shape[1:].numel())
            module.resize(factor.shape[1] if factor.dim() == 2 and factor.shape[1] <= full else module.rank)
