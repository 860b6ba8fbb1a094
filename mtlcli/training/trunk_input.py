"""What the trunk is given: the shape of the inputs, or the columns of a table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mtlcli import registry
from mtlcli.config import Experiment
from mtlcli.errors import ConfigError
from mtlcli.models.preparation import prepared_shape
from mtlcli.specs import Column, DatasetSpec, Shape
from mtlcli.training.problems import Problems


@dataclass(frozen=True)
class TrunkInput:
    """What an experiment's trunk is given.

    supplied: what it is made for. raw_columns: whether these are a table's columns, as they are. shape: of an example.
    """

    supplied: Shape | tuple[Column, ...]
    raw_columns: bool
    shape: Shape


def trunk_input(experiment: Experiment, specs: Mapping[str, DatasetSpec]) -> TrunkInput:
    """The one input that all datasets have, since they go through one trunk. ConfigError where they differ."""
    name = experiment.trunk.name
    if not getattr(registry.trunks[name].target, "of_columns", False):
        shape = _one_shape(experiment, specs)
        return TrunkInput(shape, False, shape)
    with Problems(experiment).now("trunk"):
        columns = _same_columns(name, specs)
    return TrunkInput(columns, True, (len(columns),))


def _one_shape(experiment: Experiment, specs: Mapping[str, DatasetSpec]) -> Shape:
    shapes = {alias: prepared_shape(spec) for alias, spec in specs.items()}
    if len(set(shapes.values())) > 1:
        told = ", ".join(f"{alias} {_told(shape)}" for alias, shape in shapes.items())
        message = f"the datasets' inputs differ in shape ({told}), and all of them go through the same trunk"
        raise ConfigError(experiment.problem("datasets", message))
    return next(iter(shapes.values()))


def _same_columns(trunk: str, specs: Mapping[str, DatasetSpec]) -> tuple[Column, ...]:
    for alias, spec in specs.items():
        if not spec.columns:
            raise ValueError(
                f"{trunk} needs a table's columns, and the inputs of dataset {alias!r} are {_told(spec.input_shape)}"
            )
    (first, columns), *others = ((alias, spec.columns) for alias, spec in specs.items())
    for alias, there in others:
        if there != columns:
            differing = sorted({column.name for column in set(columns) ^ set(there)}) or ["their order"]
            raise ValueError(
                f"{trunk} needs the same columns in all datasets, with the same categories, means and standard "
                f"deviations; between {first!r} and {alias!r} differ: {', '.join(differing)}"
            )
    return columns


def _told(shape: Shape) -> str:
    return "×".join(map(str, shape))
