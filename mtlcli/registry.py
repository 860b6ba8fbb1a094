"""Registries: the components of each group by name.

The components that ship with `mtl` are the modules of the registry's package. All of them are imported at the first
look-up, so that a name never depends on which modules were imported before. Others come from plugins (see `plugins`).
"""

from __future__ import annotations

import importlib
import importlib.metadata
import inspect
import pkgutil
from collections.abc import Callable, Mapping
from typing import Any, Generic, Protocol, TypeVar, cast

from mtlcli.component import Component, KindClass, RegularizerClass, Target
from mtlcli.errors import ConfigError, suggest
from mtlcli.plugins import PLUGIN_GROUP, import_error, import_of, origin_of

Decorated = TypeVar("Decorated", bound=Callable[..., Any])


class Entry(Protocol):
    """Entry of a component in an experiment (see `mtlcli.config.ComponentConfig`)."""

    @property
    def name(self) -> str:
        """Name of the component."""

    @property
    def options(self) -> Mapping[str, Any]:
        """Options of the component, by name."""


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
        self._aliases: dict[str, str] = {}
        self._loaded = False

    def register(self, name: str, aliases: tuple[str, ...] = ()) -> Callable[[Decorated], Decorated]:
        """Return a decorator that registers a class or function.

        Args:
            name: its name in the YAML.
            aliases: other names that the YAML may use; a validated experiment has `name`.

        Returns:
            The decorator. It raises ValueError if another component has that name.
        """

        def decorate(target: Decorated) -> Decorated:
            shipped = self._ships(target.__module__)
            if not shipped and not self._loaded:
                self._load()  # what ships with mtl comes first
            names = [self._aliases.get(n, n) for n in (name, *aliases)]  # of what is registered so far
            taken = next((self._components[n] for n in names if n in self._components), None)
            same = taken is not None and (taken.target.__module__, taken.target.__qualname__) == (
                target.__module__,
                target.__qualname__,
            )
            if taken is not None and not same:
                raise ValueError(f"{self.group} {name!r} is already registered, by {taken.target.__module__}")
            plugin = None if shipped else origin_of(target.__module__)
            self._components[name] = Component(self.group, name, cast("Target", target), True, plugin, aliases)
            self._aliases |= dict.fromkeys(aliases, name)
            return target

        return decorate

    def names(self) -> list[str]:
        """Return the registered names, sorted, without aliases."""
        if not self._loaded:
            self._load()
        return sorted(self._components)

    def aliases(self) -> list[str]:
        """Return the registered aliases, sorted."""
        if not self._loaded:
            self._load()
        return sorted(self._aliases)

    def __contains__(self, name: str) -> bool:
        """Return whether a component has that name or alias."""
        if not self._loaded:
            self._load()
        return name in self._components or name in self._aliases

    def __getitem__(self, name: str) -> Component[Target]:
        """Return the component of that name or alias, or raise ConfigError with the registered names."""
        if name not in self:
            raise ConfigError(self.unknown(name))
        return self._components[self._aliases.get(name, name)]

    def create(self, base: Any, entry: Entry, *supplied: Any) -> Any:
        """Create the component of an entry.

        Args:
            base: base class of the components of this group.
            entry: name and options of the component.
            *supplied: positional arguments of the component, from the builder.

        Returns:
            The component.

        Raises:
            ValueError: the component is no instance of the base class.
        """
        component = self[entry.name].create(*supplied, **entry.options)
        if not isinstance(component, base):
            expected = f"{base.__module__}.{base.__name__}"
            raise ValueError(f"is of type {type(component).__name__}, but must be of type {expected}")
        return component

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
        self._loaded = True
        if self.package is not None:
            _import_modules(self.package)
        _load_entry_points()

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
        _load_entry_points()

    def _ships(self, module: str) -> bool:
        return self.own is not None and module.startswith(f"{self.own}.")


def _import_modules(package: str) -> None:
    for module in pkgutil.iter_modules(importlib.import_module(package).__path__):
        importlib.import_module(f"{package}.{module.name}")


_entry_points_loaded = False


def _load_entry_points() -> None:
    """Import the plugins that installed packages declare as entry points, once."""
    global _entry_points_loaded
    if not _entry_points_loaded:
        _entry_points_loaded = True
        for entry in importlib.metadata.entry_points(group=PLUGIN_GROUP):
            try:
                with import_of(entry.module):
                    entry.load()
            except (Exception, SystemExit) as error:
                message = f"plugin {entry.name!r} ({entry.value}) can't be loaded: {import_error(error)}"
                raise ConfigError(message) from error


datasets = Registry[Any]("dataset", "mtlcli.data.datasets")
samplers = Registry[Any]("sampling", "mtlcli.data.samplers")
trunks = Registry[Any]("trunk", "mtlcli.models.trunks")
stems = Registry[Any]("stem", "mtlcli.models.stems")
heads = Registry[Any]("head", "mtlcli.models.heads")
sharings = Registry[Any]("sharing", "mtlcli.models.sharing")
adapters = Registry[Any]("adapter", "mtlcli.models.adapters")
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
        datasets, samplers, trunks, stems, adapters, heads, sharings, kinds, weightings, regularizers, optimizers,
        schedulers, callbacks,
    )
}  # fmt: skip
