"""Component entries: `{name: lenet, features: 64}`, or the bare name, validated against the component's signature."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from functools import cache
from pathlib import PurePath
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    NonNegativeFloat,
    PositiveInt,
    ValidationError,
    create_model,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, InitErrorDetails, PydanticCustomError, core_schema

from mtlcli import registry
from mtlcli.config.component_hints import component_hint
from mtlcli.config.options import PER_STEP, SUPPLIED, Options, options_model, options_of
from mtlcli.config.type_names import Words, found
from mtlcli.registry import Component, Option, Registry

NAME_KEYS = ("type", "kind", "class", "method", "model", "arch", "algorithm", "_target_")  # other tools' for `name`


@dataclass(frozen=True)
class ComponentConfig:
    """A component chosen by name, with all its options, validated against its signature and defaults filled in."""

    name: str
    options: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def reserved(cls, component: Component[Any]) -> dict[str, Option]:
        """The keys that every entry of this class has beside the component's own options."""
        return {}

    def plain(self) -> dict[str, Any]:
        """As it stands in YAML: lists for tuples, strings for paths."""
        own = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("name", "options")}
        return {"name": self.name, **own, **_plain(self.options)}


@dataclass(frozen=True)
class TrunkConfig(ComponentConfig):
    """A trunk. init_from: a checkpoint its weights start from. frozen: whether they stay as they are."""

    init_from: str | None = None
    frozen: bool = False

    @classmethod
    def reserved(cls, component: Component[Any]) -> dict[str, Option]:
        weights = Option("init_from", str | None, None, "a checkpoint whose trunk the weights start from.")
        frozen = Option("frozen", bool, False, "whether the trunk's weights stay as they are.")
        return {"init_from": weights, "frozen": frozen}


@dataclass(frozen=True)
class SchedulerConfig(ComponentConfig):
    """A scheduler. interval: whether it steps after each epoch or after each step of the optimizer."""

    interval: Literal["epoch", "step"] = "epoch"

    @classmethod
    def reserved(cls, component: Component[Any]) -> dict[str, Option]:
        per_step = component.name in PER_STEP or getattr(component.target, "takes_length", False)
        default = "step" if per_step else "epoch"
        text = "whether it steps after each epoch or after each step of the optimizer."
        return {"interval": Option("interval", Literal["epoch", "step"], default, text)}


@dataclass(frozen=True)
class WeightingConfig(ComponentConfig):
    """A weighting. Of those that balance the tasks' gradients, None for the others and for those without the choice:

    gradients: what the gradients are of. every: steps from one solution to the next; the weights are reused between.
    """

    gradients: str | None = None
    every: int | None = None

    @classmethod
    def reserved(cls, component: Component[Any]) -> dict[str, Option]:
        found: dict[str, Option] = {}
        target: Any = component.target
        if choices := getattr(target, "gradients", ()):
            text = "what the tasks' gradients are taken of: see `docs/weighting.md`."
            found["gradients"] = Option("gradients", Literal[tuple(choices)], choices[0], text)
        if getattr(target, "reuses_weights", False):
            text = "steps from one solution to the next; between them its weights serve again, at `uniform`'s cost."
            found["every"] = Option("every", PositiveInt, 1, text)
        return found

    def plain(self) -> dict[str, Any]:
        return {key: value for key, value in super().plain().items() if key in self.options or value is not None}


@dataclass(frozen=True)
class OptimizerConfig(ComponentConfig):
    """An optimizer. groups: part of the model → the options that are its own, by name; the others are the optimizer's.

    A part is `trunk` (all that the tasks share), `heads` (all that they don't), or a task's name (what is its own).
    """

    groups: dict[str, dict[str, Any]] = field(default_factory=dict)

    @classmethod
    def reserved(cls, component: Component[Any]) -> dict[str, Option]:
        text = "options that are a part's own: of `trunk` (all that is shared), `heads` (all that isn't) or one task."
        return {"groups": Option("groups", _groups(component), {}, text)}

    def plain(self) -> dict[str, Any]:
        plain = super().plain()
        groups = _plain(plain.pop("groups"))
        return {**plain, "groups": groups} if groups else plain


@cache
def _groups(component: Component[Any]) -> Any:
    """The type of an optimizer's `groups`: of each, any of its options but those of how it computes."""
    options = {name: option for name, option in options_of(component).items() if name not in ("foreach", "fused")}
    fields: dict[str, Any] = {
        f"option_{name}": (option.annotation, Field(None, alias=name, description=option.description or None))
        for name, option in options.items()
    }
    model = create_model(f"optimizer.{component.name}.group", __base__=Options, **fields)
    return Annotated[dict[str, model], AfterValidator(_given)]  # type: ignore[valid-type]


def _given(groups: dict[str, Options]) -> dict[str, dict[str, Any]]:
    """Of each group, the options that were given."""
    return {name: group.model_dump(by_alias=True, exclude_unset=True) for name, group in groups.items()}


@dataclass(frozen=True)
class RegularizerConfig(ComponentConfig):
    """A regularizer. strength: what its term is multiplied by. as_task: whether the weighting counts it as a task."""

    strength: float = 1.0
    as_task: bool = False

    @classmethod
    def reserved(cls, component: Component[Any]) -> dict[str, Option]:
        target: Any = component.target
        strength = Option("strength", NonNegativeFloat, target.default_strength, "what its term is multiplied by.")
        as_task = Option("as_task", bool, False, "whether the weighting counts the term as one more task.")
        return {"strength": strength, "as_task": as_task}


@dataclass(frozen=True)
class ComponentField(Words):
    """In an `Annotated` type: makes pydantic read an entry of this registry's components.

    default: the component of an entry that is left out or gives no name.
    """

    registry: Registry[Any]
    entry: type[ComponentConfig] = ComponentConfig
    default: str | None = None

    @property
    def article(self) -> str:
        return f"{'an' if self.registry.group[0] in 'aeiou' else 'a'} {self.registry.group}"

    @property
    def expected(self) -> str:  # type: ignore[override]
        return f"the name of {self.article}, or a mapping of its name and options"

    @property
    def many(self) -> str:  # type: ignore[override]
        return f"{self.registry.group}s"

    def component(self, value: Any) -> Component[Any] | None:
        """The component that an entry as it stands in YAML names; None where it names none that exists."""
        name = value.get("name", self.default) if isinstance(value, dict) else value
        return self.registry[name] if isinstance(name, str) and name in self.registry.names() else None

    def model(self, component: Component[Any]) -> type[Options]:
        return _model(self, component)

    def validate(self, value: Any) -> ComponentConfig:
        if isinstance(value, ComponentConfig):
            return value
        component = self.component(value)
        if component is None:
            raise self._unnamed(value)
        plain = value if isinstance(value, dict) else {"name": value}
        given = self.model(component).model_validate(plain)
        values = {name.removeprefix("option_"): option for name, option in given} | (given.model_extra or {})
        reserved = {name: values[name] for name in self.entry.reserved(component)}
        options = {
            name: option
            for name, option in values.items()
            if name != "name" and name not in reserved and not (option is None and (component.name, name) in SUPPLIED)
        }
        return self.entry(component.name, options, **reserved)

    def _unnamed(self, value: Any) -> ValidationError:
        """The error of an entry whose component isn't known."""
        kind = self.registry.group
        named = isinstance(value, dict) and "name" in value
        name = value["name"] if named else value
        if isinstance(name, str):
            message = self.registry.unknown(name, component_hint(self.registry, name))
        elif named:
            message = f"expected the name of {self.article}, found {found(name)}"
        elif isinstance(value, dict):
            other = next((key for key in value if key in NAME_KEYS), None)
            hint = f" (write `name` for {other!r})" if other else ""
            message = f"has no `name`{hint}: which {kind}? Choose from: {', '.join(self.registry.names())}"
        else:
            message = f"expected {self.expected}, found {found(value)}"
        error = PydanticCustomError("mtl", "{message}", {"message": message})
        return ValidationError.from_exception_data(
            kind, [InitErrorDetails(type=error, loc=("name",) if named else (), input=value)]
        )

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        plain = core_schema.plain_serializer_function_ser_schema(lambda entry: entry.plain())
        return core_schema.no_info_plain_validator_function(self.validate, serialization=plain)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Any one of the components with its options, or the bare name of one that needs none."""
        components = [self.registry[name] for name in self.registry.names()]
        models = {component.name: self.model(component) for component in components}
        bare = [
            {"const": component.name, "description": component.summary}
            for component in components
            if all(
                name == "option_name" or not f.is_required() for name, f in models[component.name].model_fields.items()
            )
        ]
        if not components:
            return {"not": {}}
        return {"anyOf": [*bare, *(handler(model.__pydantic_core_schema__) for model in models.values())]}


@cache
def _model(chosen: ComponentField, component: Component[Any]) -> type[Options]:
    return options_model(component, chosen.entry.reserved(component), chosen.default)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, PurePath) else value


DatasetField = Annotated[ComponentConfig, ComponentField(registry.datasets)]
SamplingField = Annotated[ComponentConfig, ComponentField(registry.samplers, default="proportional")]
TrunkField = Annotated[TrunkConfig, ComponentField(registry.trunks, TrunkConfig)]
HeadField = Annotated[ComponentConfig, ComponentField(registry.heads, default="linear")]
SharingField = Annotated[ComponentConfig, ComponentField(registry.sharings, default="hard")]
KindField = Annotated[ComponentConfig, ComponentField(registry.kinds)]
WeightingField = Annotated[WeightingConfig, ComponentField(registry.weightings, WeightingConfig, default="fixed")]
RegularizerField = Annotated[RegularizerConfig, ComponentField(registry.regularizers, RegularizerConfig)]
OptimizerField = Annotated[OptimizerConfig, ComponentField(registry.optimizers, OptimizerConfig, default="Adam")]
SchedulerField = Annotated[SchedulerConfig, ComponentField(registry.schedulers, SchedulerConfig)]
CallbackField = Annotated[ComponentConfig, ComponentField(registry.callbacks)]
