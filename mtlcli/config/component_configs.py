"""Entries of components in a validated experiment, with their reserved keys."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import MISSING, dataclass, field, fields, replace
from functools import cache
from pathlib import PurePath
from typing import Annotated, Any, Literal, get_type_hints

from pydantic import (
    AfterValidator,
    Field,
    NonNegativeFloat,
    PositiveInt,
    create_model,
)

from mtlcli.component import Component, Option
from mtlcli.config.options import PER_STEP, Options, options_of
from mtlcli.specs import Pool


@dataclass(frozen=True)
class ComponentConfig:
    """A component chosen by name, with all its options, validated against its signature and defaults filled in.

    The fields that subclasses add, with a description as metadata, are reserved keys: every entry of that class accepts
    them, and they aren't passed to the component.

    Args:
        name: the component's name.
        options: the component's options by name.
    """

    name: str
    options: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def reserved(cls, component: Component[Any]) -> dict[str, Option]:
        """Return the reserved keys of an entry that names this component."""
        types = get_type_hints(cls, include_extras=True)
        return {
            f.name: Option(
                f.name,
                types[f.name],
                f.default if f.default_factory is MISSING else f.default_factory(),
                f.metadata["description"],
            )
            for f in fields(cls)
            if f.metadata
        }

    def plain(self) -> dict[str, Any]:
        """Return the entry as plain data for YAML: lists for tuples, strings for paths."""
        reserved = {f.name: getattr(self, f.name) for f in fields(self) if f.metadata}
        return {"name": self.name, **reserved, **_plain(self.options)}


@dataclass(frozen=True)
class TrunkConfig(ComponentConfig):
    """The entry of a trunk."""

    init_from: str | None = field(
        default=None, metadata={"description": "Checkpoint whose trunk supplies the initial weights."}
    )
    frozen: bool = field(default=False, metadata={"description": "Keep the trunk's weights fixed during training."})
    freeze: Annotated[list[str], Field(max_length=1000)] = field(
        default_factory=list,
        metadata={
            "description": "Stages and layers of the trunk to keep fixed, by name or pattern, such as "
            "[embeddings, 'layer.[0-5]']."
        },
    )

    def plain(self) -> dict[str, Any]:
        """Return the entry as plain data, without `freeze` if it is empty."""
        return {key: value for key, value in super().plain().items() if key != "freeze" or value}


@dataclass(frozen=True)
class HeadConfig(ComponentConfig):
    """The entry of a head."""

    pool: Pool | None = field(
        default=None,
        metadata={
            "description": "Pooling of a trunk's sequence or map for a task that predicts a vector: mean, cls (the "
            "first position), max or last. Default: that of the trunk."
        },
    )

    def plain(self) -> dict[str, Any]:
        """Return the entry as plain data, without `pool` if it isn't set."""
        return {key: value for key, value in super().plain().items() if key != "pool" or value is not None}


@dataclass(frozen=True)
class StemConfig(ComponentConfig):
    """The entry of a stem."""

    shape: list[PositiveInt] | None = field(
        default=None,
        metadata={
            "description": "Shape of the output, such as [16, 7, 7]. Default: the shape of the datasets without a "
            "stem, or the one that the options of the stems state."
        },
    )
    init_from: str | None = field(
        default=None, metadata={"description": "Checkpoint whose stem of this dataset supplies the initial weights."}
    )
    frozen: bool = field(default=False, metadata={"description": "Keep the stem's weights fixed during training."})


@dataclass(frozen=True)
class SchedulerConfig(ComponentConfig):
    """The entry of a scheduler."""

    interval: Literal["epoch", "step"] = field(
        default="epoch", metadata={"description": "Step the scheduler after each epoch or each optimizer step."}
    )

    @classmethod
    def reserved(cls, component: Component[Any]) -> dict[str, Option]:
        """Return the reserved keys; the default of `interval` depends on the scheduler."""
        keys = super().reserved(component)
        if component.name in PER_STEP or getattr(component.target, "takes_length", False):
            keys["interval"] = replace(keys["interval"], default="step")
        return keys


@dataclass(frozen=True)
class WeightingConfig(ComponentConfig):
    """The entry of a weighting. A key is None for the weightings that don't have it."""

    gradients: str | None = field(
        default=None,
        metadata={"description": "What the task gradients are taken with respect to: see `docs/weighting.md`."},
    )
    every: int | None = field(
        default=None,
        metadata={
            "description": "Solve for new weights every N steps; steps in between reuse them at the cost of `uniform`."
        },
    )

    @classmethod
    def reserved(cls, component: Component[Any]) -> dict[str, Option]:
        """Return the reserved keys that this weighting has."""
        every_key = super().reserved(component)
        target, keys = component.target, {}
        if choices := getattr(target, "gradients", ()):
            keys["gradients"] = replace(every_key["gradients"], annotation=Literal[tuple(choices)], default=choices[0])
        if getattr(target, "reuses_weights", False):
            keys["every"] = replace(every_key["every"], annotation=PositiveInt, default=1)
        return keys

    def plain(self) -> dict[str, Any]:
        """Return the entry as plain data, without the keys that this weighting doesn't have."""
        return {key: value for key, value in super().plain().items() if key in self.options or value is not None}


@dataclass(frozen=True)
class SamplingConfig(ComponentConfig):
    """The entry of a sampler."""

    limit: PositiveInt | dict[str, PositiveInt] | None = field(
        default=None,
        metadata={
            "description": "Maximum number of examples of each dataset, or of those named, in an epoch; the next epoch "
            "continues with the others. Default: no limit."
        },
    )

    def plain(self) -> dict[str, Any]:
        """Return the entry as plain data, without `limit` if it isn't set."""
        return {key: value for key, value in super().plain().items() if key != "limit" or value is not None}

    def limits(self, aliases: Iterable[str]) -> list[int | None]:
        """Return the limit of each of these datasets; None for no limit."""
        return [self.limit.get(alias) if isinstance(self.limit, dict) else self.limit for alias in aliases]


@dataclass(frozen=True)
class OptimizerConfig(ComponentConfig):
    """The entry of an optimizer."""

    groups: dict[str, dict[str, Any]] = field(
        default_factory=dict,
        metadata={
            "description": "Options of `trunk` (all shared parameters), `stems`, `heads` (all others), a task, or a "
            "stage or layer of the trunk, by name or pattern."
        },
    )
    layer_decay: Annotated[float, Field(gt=0, le=1)] | None = field(
        default=None,
        metadata={
            "description": "Factor of the learning rate from each layer of the trunk to the one before it; the last "
            "layer has it once. Default: none."
        },
    )
    decay_norms: bool | None = field(
        default=None,
        metadata={
            "description": "Whether weight decay applies to biases and the parameters of norms. Default: true, for the "
            "trunk `transformers` false."
        },
    )

    @classmethod
    def reserved(cls, component: Component[Any]) -> dict[str, Option]:
        """Return the reserved keys; `groups` has the options of this optimizer."""
        keys = super().reserved(component)
        return {**keys, "groups": replace(keys["groups"], annotation=_groups(component))}

    def plain(self) -> dict[str, Any]:
        """Return the entry as plain data, without keys of `mtl` that are not set."""
        plain = super().plain()
        keys = {key: _plain(plain.pop(key)) for key in ("layer_decay", "decay_norms", "groups")}
        return {**plain, **{key: value for key, value in keys.items() if value not in (None, {})}}


@cache
def _groups(component: Component[Any]) -> Any:
    """Return the type of an optimizer's `groups`: all its options may differ, except those that select a kernel."""
    options = {name: option for name, option in options_of(component).items() if name not in ("foreach", "fused")}
    fields: dict[str, Any] = {
        f"option_{name}": (option.annotation, Field(None, alias=name, description=option.description or None))
        for name, option in options.items()
    }
    model = create_model(f"optimizer.{component.name}.group", __base__=Options, **fields)
    return Annotated[dict[str, model], AfterValidator(_set_options)]  # type: ignore[valid-type]


def _set_options(groups: dict[str, Options]) -> dict[str, dict[str, Any]]:
    """Return the options that each group sets."""
    return {name: group.model_dump(by_alias=True, exclude_unset=True) for name, group in groups.items()}


@dataclass(frozen=True)
class RegularizerConfig(ComponentConfig):
    """The entry of a regularizer."""

    strength: NonNegativeFloat = field(default=1.0, metadata={"description": "Factor of its term in the objective."})
    as_task: bool = field(default=False, metadata={"description": "Treat the term as one more task for the weighting."})

    @classmethod
    def reserved(cls, component: Component[Any]) -> dict[str, Option]:
        """Return the reserved keys; the default of `strength` depends on the regularizer."""
        keys = super().reserved(component)
        return {**keys, "strength": replace(keys["strength"], default=component.target.default_strength)}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, PurePath) else value
