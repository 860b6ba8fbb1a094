"""A step on blank examples, which finds wrong widths and missing methods before training."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from mtlcli import registry
from mtlcli.component import Component
from mtlcli.config.locations import Problems
from mtlcli.error_origin import describe_error
from mtlcli.errors import MtlError, OptionError
from mtlcli.models.sharing.base import SharingRecord
from mtlcli.models.trunks.base import Trunk
from mtlcli.specs import IGNORE_INDEX, MAP_TYPES, TargetSpec, TrunkPass
from mtlcli.tasks.base import TaskKind
from mtlcli.training.run import Run
from mtlcli.weighting.base import GramianWeighting, JacobianWeighting, LossWeighting

EXAMPLES = 2  # per dataset: the minimum for batch norm
COLUMNS = 7  # of the Jacobian for trying a weighting
FORMS = {"vector": "[B, features]", "sequence": "[B, L, features]", "map": "[B, features, h, w]"}
NEEDED = {"vector": "[B, {}]", "sequence": "[B, L, {}]", "map": "[B, {}, h, w]"}
TOKENS = 8  # of a text with a label for each word
PIXELS = (2, 2)  # height and width of a map where they don't matter
MOST_PARAMETERS, MOST_INPUTS = 20_000_000, 1_000_000  # limits of a model that is tried on the CPU


def try_model_parts(run: Run, inputs: dict[str, Tensor], problems: Problems) -> None:
    """Collect the problems of the forward pass, the losses and their gradients on blank examples.

    It stops at the first part that fails, because later parts depend on it.

    Args:
        run: A run on `meta` or the CPU, its model in training mode.
        inputs: Its blank inputs, of `EXAMPLES` examples each.
        problems: Receives the problems.
    """
    before = len(problems.collected)
    if run.model.stems is not None:
        _check_stems(run, problems, inputs)
        if len(problems.collected) > before:
            return
    with _at(run, problems, "trunk"):
        _check_trunk(run, inputs)
    if len(problems.collected) > before:
        return
    predictions: dict[str, Tensor] = {}
    passes: list[TrunkPass] | None = [] if run.regularization.sees_examples else None
    with _at(run, problems, "sharing"):
        predictions = run.model(inputs, list(run.kinds), SharingRecord(passes))
    losses: list[Tensor] = []
    for task, prediction in predictions.items():
        _check_task(run, problems, task, prediction, losses)
    for term, regularizer in run.regularization.regularizers():
        with _at(run, problems, f"regularizers.{term.index}"):
            omega = regularizer.term(passes or [] if regularizer.sees_examples else [])
            _expect("term", omega, ())
            losses.append(omega.float() * term.strength)
    if len(problems.collected) > before:
        return
    with _at(run, problems, "trunk"):
        total = torch.stack([loss.float() for loss in losses]).sum()
        if total.requires_grad:
            total.backward()  # type: ignore[no-untyped-call]


def try_plugins(run: Run, problems: Problems) -> None:
    """Collect the problems of metrics and weightings from plugins, with a few numbers on the CPU."""
    for task, kind in run.kinds.items():
        if registry.kinds[run.experiment.tasks[task].kind.name].plugin is not None:
            with _at(run, problems, f"tasks.{task}.kind"):
                _try_metrics(kind)
    entry = run.experiment.weighting
    component = registry.weightings[entry.name]
    if component.plugin is not None:
        with _at(run, problems, "weighting"):
            _try_weighting(run, component)


def try_model(run: Run) -> None:
    """Pass one blank example through the model.

    Args:
        run: The run.

    Raises:
        ConfigError: If the trunk does not accept the inputs of the datasets.
    """
    run.model.eval()
    with Problems(run.experiment).now("trunk"), torch.inference_mode(), run.autocast():
        try:
            run.model(run.blank_inputs())
        except RuntimeError as error:  # raised by torch if shapes do not fit
            raise ValueError(f"does not accept the inputs of the datasets: {error}") from error


def is_small(run: Run) -> bool:
    """Return whether a step of the model on the CPU takes little time and memory."""
    inputs = sum(math.prod(spec.input_shape) for spec in run.specs.values())
    return sum(p.numel() for p in run.model.parameters()) <= MOST_PARAMETERS and inputs <= MOST_INPUTS


@contextmanager
def _at(run: Run, problems: Problems, default: str) -> Iterator[None]:
    """Collect an exception at the key of the innermost component in its traceback."""
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    except (OptionError, MtlError):
        with problems.at(default):
            raise
    except (Exception, SystemExit) as error:
        problems.collected.append(run.experiment.problem(_component_path(run, error) or default, describe_error(error)))


def _component_path(run: Run, error: BaseException) -> str | None:
    """Return the key of the innermost component in the traceback of an error."""
    heads = {id(module): task for task in run.kinds for module in run.model.heads[task].modules()}
    kinds = {id(kind): task for task, kind in run.kinds.items()}
    terms = {id(regularizer): term.index for term, regularizer in run.regularization.regularizers()}
    stems = run.model.stems.items() if run.model.stems is not None else ()
    encoders = {id(module): alias for alias, stem in stems for module in stem.modules()}
    trunks = {id(module) for trunk in run.model.sharing.trunks().values() for module in trunk.modules()}
    path, trace = None, error.__traceback__
    while trace is not None:
        owner = trace.tb_frame.f_locals.get("self")
        if id(owner) in heads:
            path = f"tasks.{heads[id(owner)]}.head"
        elif id(owner) in encoders:
            path = f"stems.{encoders[id(owner)]}"
        elif id(owner) in kinds:
            path = f"tasks.{kinds[id(owner)]}.kind"
        elif id(owner) in terms:
            path = f"regularizers.{terms[id(owner)]}"
        elif id(owner) in trunks or isinstance(owner, Trunk):
            path = "trunk"
        trace = trace.tb_next
    return path


def _check_stems(run: Run, problems: Problems, inputs: dict[str, Tensor]) -> None:
    """Check that the stems return inputs of the trunk."""
    for alias in run.model.stems or ():
        with _at(run, problems, f"stems.{alias}"):
            with torch.no_grad():
                encoded = run.model.prepare(alias, inputs[alias])
            expected = (EXAMPLES, *run.input_shape)
            if not isinstance(encoded, Tensor) or tuple(encoded.shape) != expected:
                actual = f"returns {_shown(encoded)} for {EXAMPLES} examples"
                raise ValueError(f"{actual}, but the trunk takes {list(expected)}")


def _check_trunk(run: Run, inputs: dict[str, Tensor]) -> None:
    """Check that the first trunk returns as many features as it declares."""
    trunk = next(module for module in run.model.sharing.modules() if isinstance(module, Trunk))
    alias = next(iter(inputs))
    with torch.no_grad():
        prepared = run.model.prepare(alias, inputs[alias])
        features = trunk(prepared)
    if not isinstance(features, Tensor) or not _has_form(features, trunk.representation, trunk.features, len(prepared)):
        raise ValueError(
            f"returns {_shown(features)} for {len(prepared)} examples of {alias!r}, but its `features` is "
            f"{trunk.features}: it must return {FORMS[trunk.representation]}"
        )


def _has_form(x: Tensor, form: str, width: int, examples: int = EXAMPLES) -> bool:
    """Return whether a tensor is a vector, a sequence or a map of a width for each example."""
    if form == "vector":
        return tuple(x.shape) == (examples, width)
    if form == "sequence":
        return x.ndim == 3 and (x.shape[0], x.shape[2]) == (examples, width)
    return x.ndim == 4 and tuple(x.shape[:2]) == (examples, width)


def _check_task(run: Run, problems: Problems, task: str, prediction: Tensor, losses: list[Tensor]) -> None:
    """Check the prediction of a head, and append the loss of its kind."""
    kind = run.kinds[task]
    with _at(run, problems, f"tasks.{task}.head"):
        free = kind.pairs or kind.generates
        fits = isinstance(prediction, Tensor) and (free or _has_form(prediction, kind.predicts, kind.outputs))
        if not fits:
            name, needed = run.experiment.tasks[task].kind.name, NEEDED[kind.predicts].format(kind.outputs)
            raise ValueError(f"returns {_shown(prediction)} for {EXAMPLES} examples, but kind {name!r} needs {needed}")
        with _at(run, problems, f"tasks.{task}.kind"):
            target = TargetSpec("text", missing=kind.target.missing) if kind.generates else kind.target
            pixels = tuple(prediction.shape[2:]) if kind.predicts == "map" else PIXELS
            loss = kind.loss(prediction, _blank_target(target, prediction.device, pixels))
            if not isinstance(loss, Tensor) or loss.ndim != 0:
                raise ValueError(f"its loss is {_shown(loss)}, but must be a 0-d tensor, the mean over the examples")
            losses.append(loss)


def _blank_target(target: TargetSpec, device: torch.device, pixels: tuple[int, ...] = PIXELS) -> Tensor:
    """Return labels of a target, [B, …]; the last ones are missing if the target allows it.

    Args:
        target: the target.
        device: device of the labels.
        pixels: height and width of a map.
    """
    integers = target.type in ("classes", "tags", "text", "class_map")
    shape: tuple[int, ...] = pixels if target.type in MAP_TYPES else ()
    if target.type in ("tags", "text"):
        shape = (TOKENS,)
    elif target.type == "multilabel" or (target.size > 1 and target.type in ("real_map", "normal_map")):
        shape = (target.size, *shape)
    labels = torch.zeros(EXAMPLES, *shape, dtype=torch.int64 if integers else torch.float32)
    if target.missing:
        labels[-1] = IGNORE_INDEX if integers else float("nan")
    return labels.to(device)


def _try_metrics(kind: TaskKind) -> None:
    """Check that the metrics of a kind are those declared in `directions`."""
    metrics = kind.create_metrics(torch.device("cpu"))
    pixels = PIXELS if kind.predicts == "map" else ()
    metrics.update(torch.zeros(EXAMPLES, kind.outputs, *pixels), _blank_target(kind.target, torch.device("cpu")))
    values, expected = metrics.compute(), [name for name in kind.reported if name != "loss"]
    if sorted(values) != sorted(expected):
        raise ValueError(f"its metrics are {sorted(values)}, but its `directions` has {sorted(expected)} and `loss`")
    if kind.primary not in kind.reported:
        raise ValueError(f"its `primary` is {kind.primary!r}, which is not in `directions`")


def _try_weighting(run: Run, component: Component[Any]) -> None:
    """Check that a weighting returns values of the shapes that its level requires."""
    weighting = component.create(run.weighting.tasks, **run.experiment.weighting.options)
    weighting.seed(run.experiment.seed)
    weighting.start_step()
    present = list(range(len(weighting.tasks)))
    losses = torch.linspace(1.0, 2.0, len(present))
    jacobian = torch.eye(len(present), COLUMNS) + 0.1
    gramian = jacobian.double() @ jacobian.double().T
    if isinstance(weighting, LossWeighting):
        leaf = losses.clone().requires_grad_()
        objective, weights = weighting.objective(leaf, present, 1.0)
        _expect("objective", objective, ())
        objective.backward()  # type: ignore[no-untyped-call]
    elif isinstance(weighting, GramianWeighting):
        weights = weighting.weights(gramian, losses.double(), present)
    elif isinstance(weighting, JacobianWeighting):
        weighting.allocate(COLUMNS)
        update, weights = weighting.update(jacobian, gramian, losses.double(), present)
        _expect("update", update, (COLUMNS,))
    else:
        raise ValueError("must be a subclass of LossWeighting, GramianWeighting or JacobianWeighting")
    _expect("weights", weights, (len(present),))
    weighting.end_epoch(losses)


def _expect(what: str, value: object, shape: tuple[int, ...]) -> None:
    if not isinstance(value, Tensor) or tuple(value.shape) != shape:
        raise ValueError(f"its {what} is {_shown(value)}, but must be a tensor of shape {list(shape)}")


def _shown(value: object) -> str:
    return str(list(value.shape)) if isinstance(value, Tensor) else f"a {type(value).__name__}"
