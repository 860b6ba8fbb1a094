"""Component entries: `{name: lenet, features: 64}`, or the bare name, validated against the component's signature."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any

from pydantic import (
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    ValidationError,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, InitErrorDetails, PydanticCustomError, core_schema

from mtlcli import registry
from mtlcli.component import Component, Option
from mtlcli.config.component_configs import (
    ComponentConfig,
    HeadConfig,
    OptimizerConfig,
    RegularizerConfig,
    SamplingConfig,
    SchedulerConfig,
    StemConfig,
    TrunkConfig,
    WeightingConfig,
)
from mtlcli.config.component_hints import component_hint
from mtlcli.config.options import SUPPLIED, Options, options_model
from mtlcli.config.type_names import TypeDescription, format_value
from mtlcli.registry import Registry

# keys of other tools for `name`
NAME_KEYS = ("type", "kind", "class", "method", "model", "arch", "algorithm", "_target_")


@dataclass(frozen=True)
class ComponentField(TypeDescription):
    """Annotation that makes pydantic validate a value as the entry of a component.

    Args:
        registry: the components to choose from.
        entry: the class of the entry.
        default: the component of an entry that is left out or has no name.
        implied: option → component of an entry without a name that has this option.
    """

    registry: Registry[Any]
    entry: type[ComponentConfig] = ComponentConfig
    default: str | None = None
    implied: tuple[tuple[str, str], ...] = ()

    @property
    def article(self) -> str:
        """The group's name with its article, such as `an optimizer`."""
        return f"{'an' if self.registry.group[0] in 'aeiou' else 'a'} {self.registry.group}"

    @property
    def expected(self) -> str:  # type: ignore[override]
        """See `TypeDescription`."""
        return f"the name of {self.article}, or a mapping of its name and options"

    @property
    def plural(self) -> str:  # type: ignore[override]
        """See `TypeDescription`."""
        return f"{self.registry.group}s"

    def component(self, value: Any) -> Component[Any] | None:
        """Return the component that an entry in YAML names; None if no such component is registered."""
        name = value.get("name", self._default(value)) if isinstance(value, dict) else value
        return self.registry[name] if isinstance(name, str) and name in self.registry else None

    def model(self, component: Component[Any]) -> type[Options]:
        """Return the pydantic model of an entry that names this component."""
        return _model(self, component)

    def _default(self, value: dict[Any, Any]) -> str | None:
        """Return the component of an entry without a name."""
        return next((component for option, component in self.implied if option in value), self.default)

    def validate(self, value: Any) -> ComponentConfig:
        """Validate an entry.

        Args:
            value: a component's name, a mapping with `name` and options, or an entry that is validated already.

        Returns:
            The entry, with all defaults. pydantic's ValidationError is raised if the component or an option is unknown.
        """
        if isinstance(value, ComponentConfig):
            return value
        component = self.component(value)
        if component is None:
            raise self._unknown_component(value)
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

    def _unknown_component(self, value: Any) -> ValidationError:
        group = self.registry.group
        named = isinstance(value, dict) and "name" in value
        name = value["name"] if named else value
        if isinstance(name, str):
            message = self.registry.unknown(name, component_hint(self.registry, name))
        elif named:
            message = f"expected the name of {self.article}, found {format_value(name)}"
        elif isinstance(value, dict):
            other = next((key for key in value if key in NAME_KEYS), None)
            hint = f" (write `name` for {other!r})" if other else ""
            message = f"has no `name`{hint}: which {group}? Choose from: {', '.join(self.registry.names())}"
        else:
            message = f"expected {self.expected}, found {format_value(value)}"
        error = PydanticCustomError("mtl", "{message}", {"message": message})
        return ValidationError.from_exception_data(
            group, [InitErrorDetails(type=error, loc=("name",) if named else (), input=value)]
        )

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        plain = core_schema.plain_serializer_function_ser_schema(lambda entry: entry.plain())
        return core_schema.no_info_plain_validator_function(self.validate, serialization=plain)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Accept each component with its options, or the name alone of one without required options."""
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
def _model(field_type: ComponentField, component: Component[Any]) -> type[Options]:
    implied = component.name in dict(field_type.implied).values()
    return options_model(
        component, field_type.entry.reserved(component), component.name if implied else field_type.default
    )


DatasetField = Annotated[ComponentConfig, ComponentField(registry.datasets)]
SamplingField = Annotated[
    SamplingConfig,
    ComponentField(registry.samplers, SamplingConfig, default="proportional", implied=(("rates", "rates"),)),
]
TrunkField = Annotated[TrunkConfig, ComponentField(registry.trunks, TrunkConfig)]
StemField = Annotated[StemConfig, ComponentField(registry.stems, StemConfig)]
AdapterField = Annotated[ComponentConfig, ComponentField(registry.adapters)]
HeadField = Annotated[HeadConfig, ComponentField(registry.heads, HeadConfig, default="linear")]
SharingField = Annotated[ComponentConfig, ComponentField(registry.sharings, default="hard")]
KindField = Annotated[ComponentConfig, ComponentField(registry.kinds)]
WeightingField = Annotated[WeightingConfig, ComponentField(registry.weightings, WeightingConfig, default="fixed")]
RegularizerField = Annotated[RegularizerConfig, ComponentField(registry.regularizers, RegularizerConfig)]
OptimizerField = Annotated[OptimizerConfig, ComponentField(registry.optimizers, OptimizerConfig, default="Adam")]
SchedulerField = Annotated[SchedulerConfig, ComponentField(registry.schedulers, SchedulerConfig)]
CallbackField = Annotated[ComponentConfig, ComponentField(registry.callbacks)]

ENTRIES: dict[str, type[ComponentConfig]] = {
    "trunk": TrunkConfig,
    "stem": StemConfig,
    "head": HeadConfig,
    "weighting": WeightingConfig,
    "regularizer": RegularizerConfig,
    "optimizer": OptimizerConfig,
    "sampling": SamplingConfig,
    "scheduler": SchedulerConfig,
}


def reserved_options(component: Component[Any]) -> list[Option]:
    """Return the keys of a component's entry that aren't options of the component itself."""
    return list(ENTRIES.get(component.group, ComponentConfig).reserved(component).values())
