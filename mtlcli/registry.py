"""Registries: a component's name in the YAML → the class or function it stands for, with its options.

A component is one class or function in one file. Its positional parameters are what the builder supplies; its
keyword-only parameters are exactly the options the YAML may set. Their types, defaults and the docstring give
validation, the JSON Schema, `mtl list` and `mtl show`.

The components that ship with `mtl` are the modules of the registry's package, imported together the first time any
name is asked for, so a name never depends on what happened to be imported. Others come from plugins, see `plugins`.
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
from typing import Any, TypeVar

from mtlcli.error_origin import blaming
from mtlcli.errors import ConfigError, nearest
from mtlcli.plugins import PLUGIN_GROUP, load_entry_points, origin_of

ARGS = re.compile(r"^(?:Args|Options):\n((?:[ \t]+.*\n?|\n)+)", re.MULTILINE)  # up to the first unindented line
Target = TypeVar("Target", bound=Callable[..., Any])


@dataclass(frozen=True)
class Option:
    """One keyword a component takes from the YAML. `default` is `inspect.Parameter.empty` where it is required."""

    name: str
    annotation: Any
    default: Any
    description: str

    @property
    def required(self) -> bool:
        return self.default is inspect.Parameter.empty


@dataclass(frozen=True)
class Component:
    """A registered class or function.

    keyword_only: whether only keyword-only parameters are options (ours), or all but the first (torch's own).
    plugin: what it came from, as `--plugin` takes it (of a path its last part); None of what ships with `mtl` or torch.
    """

    kind: str
    name: str
    target: Callable[..., Any]
    keyword_only: bool = True
    plugin: str | None = None

    @property
    def doc(self) -> str:
        return inspect.cleandoc(self.target.__doc__ or "")

    @property
    def summary(self) -> str:
        """The first line of the docstring."""
        return self.doc.partition("\n")[0]

    @property
    def takes_any_option(self) -> bool:
        """Whether it has a `**options`: it checks them itself, and raises ValueError for one it doesn't know."""
        kinds = [p.kind for p in inspect.signature(self.target).parameters.values()]
        return self.keyword_only and inspect.Parameter.VAR_KEYWORD in kinds

    @cached_property
    def options(self) -> dict[str, Option]:
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
        """Make one, of what the builder supplies and the options by the names that the YAML has for them.

        Raises OptionError for options that it refuses, and whatever else it raises itself.
        """

        def make(**chosen: Any) -> Any:
            return self.target(*supplied, **{_parameter_name(name): value for name, value in chosen.items()})

        required = [name for name, option in self.options.items() if option.required] if options else []
        return blaming(make, options, required)


def _option_name(parameter: str) -> str:
    """A word of Python's own, such as `from`, can't be a parameter: it is spelled `from_` there."""
    name = parameter.removesuffix("_")
    return name if keyword.iskeyword(name) else parameter


def _parameter_name(option: str) -> str:
    return f"{option}_" if keyword.iskeyword(option) else option


def _described_options(doc: str) -> Iterator[tuple[str, str]]:
    """Yield the `name: description` entries of a docstring's `Args:` (or `Options:`) block."""
    block = ARGS.search(doc)
    for entry in re.finditer(r"^    (\w+): (.*(?:\n {5,}.*)*)", block[1] if block else "", re.MULTILINE):
        yield entry[1], " ".join(entry[2].split())


class Registry:
    """The components of one kind, by name.

    kind: what one of them is called in messages and in `mtl list KIND`, e.g. `trunk`.
    package: dotted name of the package whose modules define the ones that ship with `mtl`.
    """

    def __init__(self, kind: str, package: str) -> None:
        self.kind = kind
        self.package = package
        self._components: dict[str, Component] = {}
        self._loaded = False

    def register(self, name: str) -> Callable[[Target], Target]:
        """Decorator that registers a class or function under `name`. ValueError where the name is taken."""

        def decorate(target: Target) -> Target:
            shipped = self._ships(target.__module__)
            if not shipped:
                self._load()  # what ships with mtl comes first
            taken = self._components.get(name)
            same = taken is not None and (taken.target.__module__, taken.target.__qualname__) == (
                target.__module__,
                target.__qualname__,
            )
            if taken is not None and not same:
                raise ValueError(f"{self.kind} {name!r} is already registered, by {taken.target.__module__}")
            plugin = None if shipped else origin_of(target.__module__)
            self._components[name] = Component(self.kind, name, target, plugin=plugin)
            return target

        return decorate

    def names(self) -> list[str]:
        self._load()
        return sorted(self._components)

    def __getitem__(self, name: str) -> Component:
        """The component of that name; ConfigError, with the names there are, if there is none."""
        self._load()
        if name not in self._components:
            raise ConfigError(self.unknown(name))
        return self._components[name]

    def unknown(self, name: str, hint: str | None = None) -> str:
        """The message for a name that isn't registered. hint: in place of the nearest name, such as " Did you …?"."""
        names = self.names()
        hint = nearest(name, names) if hint is None else hint
        return (
            f"unknown {self.kind} {name!r}.{hint} There are: {', '.join(names)}; others come from "
            f"--plugin MODULE_OR_FILE or an installed package with an entry point in {PLUGIN_GROUP!r}"
        )

    def _load(self) -> None:
        if self._loaded:
            return
        self._loaded = True
        _import_modules(self.package)
        load_entry_points()

    def _ships(self, module: str) -> bool:
        """Return whether a module is one of those that ship with `mtl`."""
        return module.startswith(f"{self.package}.")


class TorchRegistry(Registry):
    """Classes that torch itself provides (optimizers, schedulers), by their class names, and some of our own.

    own: dotted name of the package whose modules define our own. without: torch's classes that can't be named in a
    YAML file → what to write instead, or why not.
    """

    def __init__(
        self, kind: str, package: str, base: str, without: Mapping[str, str] | None = None, own: str | None = None
    ) -> None:
        super().__init__(kind, package)
        self.base, self.without, self.own = base, without or {}, own

    def unknown(self, name: str, hint: str | None = None) -> str:
        """See `Registry.unknown`; of one of torch's that isn't there, also why."""
        reason = next((f" {text}" for other, text in self.without.items() if other.lower() == name.lower()), None)
        return super().unknown(name, hint if reason is None else reason)

    def _load(self) -> None:
        if self._loaded:
            return
        self._loaded = True
        module = importlib.import_module(self.package)
        base = getattr(module, self.base)
        for name, value in vars(module).items():
            known = {self.base, *self.without}
            if inspect.isclass(value) and issubclass(value, base) and name[0] != "_" and name not in known:
                self._components.setdefault(name, Component(self.kind, name, value, keyword_only=False))
        if self.own is not None:
            _import_modules(self.own)
        load_entry_points()

    def _ships(self, module: str) -> bool:
        return self.own is not None and module.startswith(f"{self.own}.")


def _import_modules(package: str) -> None:
    for module in pkgutil.iter_modules(importlib.import_module(package).__path__):
        importlib.import_module(f"{package}.{module.name}")


datasets = Registry("dataset", "mtlcli.data.datasets")
samplers = Registry("sampling", "mtlcli.data.samplers")
trunks = Registry("trunk", "mtlcli.models.trunks")
heads = Registry("head", "mtlcli.models.heads")
sharings = Registry("sharing", "mtlcli.models.sharing")
kinds = Registry("kind", "mtlcli.tasks.kinds")
weightings = Registry("weighting", "mtlcli.weighting.methods")
regularizers = Registry("regularizer", "mtlcli.regularizers.terms")
optimizers = TorchRegistry(
    "optimizer",
    "torch.optim",
    "Optimizer",
    without={
        "LBFGS": "LBFGS evaluates the loss several times in a step, which training steps can't do.",
        "SparseAdam": "SparseAdam takes sparse gradients only, and those here are dense: use Adam.",
        "Muon": "Muon takes matrices only, and a model has vectors too: use AdamW.",
    },
)
_WARMUPS = "for a warm-up before a decay use warmup_cosine or warmup_linear."
_FUNCTION = "takes a Python function, which a YAML file can't hold; register a scheduler of your own in a plugin."
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

REGISTRIES: dict[str, Registry] = {
    registry.kind: registry
    for registry in (
        datasets, samplers, trunks, heads, sharings, kinds, weightings, regularizers, optimizers, schedulers,
    )
}  # fmt: skip
