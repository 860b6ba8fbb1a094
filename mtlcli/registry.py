"""Registries of components: the classes and functions that an experiment file refers to by name.

A component is one class or function in one file. Its positional parameters are supplied by the builder; its
keyword-only parameters are the options that the YAML may set. Validation, the JSON Schema, `mtl list` and `mtl show`
are derived from their annotations, their defaults and the docstring.

The components that ship with `mtl` are the modules of the registry's package. All of them are imported at the first
look-up, so that a name never depends on which modules were imported before. Others come from plugins (see `plugins`).
"""

from __future__ import annotations

import importlib
import inspect
import keyword
import pkgutil
import re
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Generic, Literal, Protocol, TypeVar, cast

from mtlcli.error_origin import blame_options
from mtlcli.errors import ConfigError, suggest
from mtlcli.plugins import PLUGIN_GROUP, load_entry_points, origin_of

ARGS = re.compile(r"^(?:Args|Options):\n((?:[ \t]+.*\n?|\n)+)", re.MULTILINE)  # up to the first unindented line
Target = TypeVar("Target", bound=Callable[..., Any])
Decorated = TypeVar("Decorated", bound=Callable[..., Any])


class KindClass(Protocol):
    """The class of a task kind, as far as it is used without an instance (see `mtlcli.tasks.base.TaskKind`)."""

    directions: Mapping[str, Literal["max", "min"]]
    bounded: frozenset[str]
    primary: str

    def negligible_errors(self, metrics: Mapping[str, float]) -> dict[str, float]:
        """Return the smallest denominators for percentages of errors, by metric."""

    def __call__(self, *supplied: Any, **options: Any) -> Any:
        """Create the task kind."""


class RegularizerClass(Protocol):
    """The class of a regularizer, as far as it is used without an instance (see `mtlcli.regularizers.base`)."""

    default_strength: float
    reshapes: bool
    sees_examples: bool
    sees_trunk: bool
    needs_gates: bool

    def __call__(self, *supplied: Any, **options: Any) -> Any:
        """Create the regularizer."""


@dataclass(frozen=True)
class Option:
    """A keyword that a component accepts from the YAML.

    Args:
        name: the key in the YAML.
        annotation: the type of its values.
        default: the value of an option that is left out; `inspect.Parameter.empty` where it is required.
        description: one sentence for `mtl show` and the JSON Schema.
    """

    name: str
    annotation: Any
    default: Any
    description: str

    @property
    def required(self) -> bool:
        """Whether the YAML must set the option."""
        return self.default is inspect.Parameter.empty


@dataclass(frozen=True)
class Component(Generic[Target]):
    """A registered class or function.

    Args:
        group: the group of components it belongs to, such as `trunk`.
        name: its name in the YAML.
        target: the class or function.
        keyword_only: whether the options are the keyword-only parameters (components of `mtl` and of plugins), or all
            parameters but the first (classes of torch).
        plugin: the plugin that registered it, as given to `--plugin` (of a file, without its folder); None for
            components of `mtl` or torch.
    """

    group: str
    name: str
    target: Target
    keyword_only: bool = True
    plugin: str | None = None

    @property
    def doc(self) -> str:
        """The docstring, without indentation."""
        return inspect.cleandoc(self.target.__doc__ or "")

    @property
    def summary(self) -> str:
        """The first line of the docstring."""
        return self.doc.partition("\n")[0]

    @property
    def takes_any_option(self) -> bool:
        """Whether it has a parameter `**options`: such a component checks the names of its options itself."""
        kinds = [p.kind for p in inspect.signature(self.target).parameters.values()]
        return self.keyword_only and inspect.Parameter.VAR_KEYWORD in kinds

    @cached_property
    def options(self) -> dict[str, Option]:
        """The options by name, in the order of the signature."""
        function = self.target.__init__ if inspect.isclass(self.target) else self.target
        hints = typing.get_type_hints(function, include_extras=True)
        described = dict(_described_options(self.doc))
        parameters = list(inspect.signature(self.target).parameters.values())
        if self.keyword_only:
            parameters = [p for p in parameters if p.kind is p.KEYWORD_ONLY]
        else:
            parameters = [p for p in parameters[1:] if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
        named = {_option_name(p.name): p for p in parameters}
        return {
            name: Option(name, hints.get(p.name, Any), p.default, described.get(name, "")) for name, p in named.items()
        }

    def create(self, *supplied: Any, **options: Any) -> Any:
        """Call the class or function.

        Args:
            *supplied: its positional arguments, from the builder.
            **options: options by their names in the YAML.

        Returns:
            What the class or function returns. OptionError is raised if the component rejects the value of an option;
            its other errors pass through.
        """

        def make(**chosen: Any) -> Any:
            return self.target(*supplied, **{_parameter_name(name): value for name, value in chosen.items()})

        required = [name for name, option in self.options.items() if option.required] if options else []
        return blame_options(make, options, required)


def _option_name(parameter: str) -> str:
    """Return the option of a parameter: a keyword of Python, such as `from`, is the parameter `from_`."""
    name = parameter.removesuffix("_")
    return name if keyword.iskeyword(name) else parameter


def _parameter_name(option: str) -> str:
    return f"{option}_" if keyword.iskeyword(option) else option


def capitalize(sentence: str) -> str:
    """Return a description with a capital first letter, unless it starts with a symbol, code or an acronym."""
    word = re.match(r"[a-z]{2,}(?=[\s,-])|a(?= )", sentence)
    return sentence[:1].upper() + sentence[1:] if word else sentence


def _described_options(doc: str) -> Iterator[tuple[str, str]]:
    """Yield the `name: description` entries of a docstring's `Args:` (or `Options:`) block."""
    block = ARGS.search(doc)
    for entry in re.finditer(r"^    (\w+): (.*(?:\n {5,}.*)*)", block[1] if block else "", re.MULTILINE):
        yield _option_name(entry[1]), capitalize(" ".join(entry[2].split()))


class Registry(Generic[Target]):
    """The components of one group, by name.

    Args:
        group: the group's name in messages and in `mtl list KIND`, such as `trunk`.
        package: dotted name of the package whose modules define the components that ship with `mtl`; None if none do.
    """

    def __init__(self, group: str, package: str | None) -> None:
        self.group = group
        self.package = package
        self._components: dict[str, Component[Target]] = {}
        self._loaded = False

    def register(self, name: str) -> Callable[[Decorated], Decorated]:
        """Return a decorator that registers a class or function.

        Args:
            name: its name in the YAML.

        Returns:
            The decorator. It raises ValueError if another component has that name.
        """

        def decorate(target: Decorated) -> Decorated:
            shipped = self._ships(target.__module__)
            if not shipped:
                self._load()  # what ships with mtl comes first
            taken = self._components.get(name)
            same = taken is not None and (taken.target.__module__, taken.target.__qualname__) == (
                target.__module__,
                target.__qualname__,
            )
            if taken is not None and not same:
                raise ValueError(f"{self.group} {name!r} is already registered, by {taken.target.__module__}")
            plugin = None if shipped else origin_of(target.__module__)
            self._components[name] = Component(self.group, name, cast("Target", target), plugin=plugin)
            return target

        return decorate

    def names(self) -> list[str]:
        """Return the registered names, sorted."""
        self._load()
        return sorted(self._components)

    def __getitem__(self, name: str) -> Component[Target]:
        """Return the component of that name, or raise ConfigError with the registered names."""
        self._load()
        if name not in self._components:
            raise ConfigError(self.unknown(name))
        return self._components[name]

    def unknown(self, name: str, hint: str | None = None) -> str:
        """Return the error message for a name that isn't registered.

        Args:
            name: the unknown name.
            hint: a sentence, with a space before it, instead of the one that suggests the nearest name.

        Returns:
            The message, with all registered names.
        """
        names = self.names()
        hint = suggest(name, names) if hint is None else hint
        shipped = f"Choose from: {', '.join(names)}; others" if names else f"No {self.group} ships with mtl; they"
        return (
            f"unknown {self.group} {name!r}.{hint} {shipped} come from "
            f"--plugin MODULE_OR_FILE or an installed package with an entry point in {PLUGIN_GROUP!r}"
        )

    def _load(self) -> None:
        if self._loaded:
            return
        self._loaded = True
        if self.package is not None:
            _import_modules(self.package)
        load_entry_points()

    def _ships(self, module: str) -> bool:
        """Return whether a module is one of those that ship with `mtl`."""
        return self.package is not None and module.startswith(f"{self.package}.")


class TorchRegistry(Registry[Callable[..., Any]]):
    """Classes of torch (optimizers, schedulers), by their class names, and additional ones of `mtl`.

    Args:
        group: as in `Registry`.
        package: dotted name of torch's module.
        base: name of the base class in that module, whose subclasses are the components.
        without: name of each class that a YAML file can't use → the reason, or what to use instead.
        own: dotted name of the package whose modules define the additional ones.
    """

    def __init__(
        self, group: str, package: str, base: str, without: Mapping[str, str] | None = None, own: str | None = None
    ) -> None:
        super().__init__(group, package)
        self.base, self.without, self.own = base, without or {}, own

    def unknown(self, name: str, hint: str | None = None) -> str:
        """Return the error message; for a class of torch that can't be used, with the reason."""
        reason = next((f" {text}" for other, text in self.without.items() if other.lower() == name.lower()), None)
        return super().unknown(name, hint if reason is None else reason)

    def _load(self) -> None:
        if self._loaded:
            return
        self._loaded = True
        assert self.package is not None
        module = importlib.import_module(self.package)
        base = getattr(module, self.base)
        for name, value in vars(module).items():
            excluded = {self.base, *self.without}
            if inspect.isclass(value) and issubclass(value, base) and name[0] != "_" and name not in excluded:
                self._components.setdefault(name, Component(self.group, name, value, keyword_only=False))
        if self.own is not None:
            _import_modules(self.own)
        load_entry_points()

    def _ships(self, module: str) -> bool:
        return self.own is not None and module.startswith(f"{self.own}.")


def _import_modules(package: str) -> None:
    for module in pkgutil.iter_modules(importlib.import_module(package).__path__):
        importlib.import_module(f"{package}.{module.name}")


datasets = Registry[Any]("dataset", "mtlcli.data.datasets")
samplers = Registry[Any]("sampling", "mtlcli.data.samplers")
trunks = Registry[Any]("trunk", "mtlcli.models.trunks")
heads = Registry[Any]("head", "mtlcli.models.heads")
sharings = Registry[Any]("sharing", "mtlcli.models.sharing")
kinds = Registry[KindClass]("kind", "mtlcli.tasks.kinds")
weightings = Registry[Any]("weighting", "mtlcli.weighting.methods")
regularizers = Registry[RegularizerClass]("regularizer", "mtlcli.regularizers.terms")
callbacks = Registry[Any]("callback", None)
optimizers = TorchRegistry(
    "optimizer",
    "torch.optim",
    "Optimizer",
    without={
        "LBFGS": "LBFGS evaluates the loss several times in a step, which the training loop doesn't support: use Adam.",
        "SparseAdam": "SparseAdam supports sparse gradients only, and these are dense: use Adam.",
        "Muon": "Muon supports matrices only, and a model has vectors too: use AdamW.",
    },
)
_WARMUPS = "for a warm-up before a decay use warmup_cosine or warmup_linear."
_FUNCTION = "needs a Python function, which a YAML file can't contain; register your own scheduler in a plugin."
schedulers = TorchRegistry(
    "scheduler",
    "torch.optim.lr_scheduler",
    "LRScheduler",
    without={
        "LambdaLR": f"LambdaLR {_FUNCTION}",
        "MultiplicativeLR": f"MultiplicativeLR {_FUNCTION}",
        "ChainedScheduler": f"Schedules can't be combined: {_WARMUPS}",
        "SequentialLR": f"Schedules can't be combined: {_WARMUPS}",
    },
    own="mtlcli.training.schedulers",
)

REGISTRIES: dict[str, Registry[Any]] = {
    registry.group: registry
    for registry in (
        datasets, samplers, trunks, heads, sharings, kinds, weightings, regularizers, optimizers, schedulers,
        callbacks,
    )
}  # fmt: skip
