"""Which plugins an experiment's components come from: a checkpoint says so, but nothing is imported for its sake."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from mtlcli import registry
from mtlcli.config import Experiment
from mtlcli.errors import Problem
from mtlcli.plugins import loaded_plugins
from mtlcli.registry import REGISTRIES, Component


def plugins_of(experiment: Experiment) -> dict[str, str]:
    """`kind name` of each component that doesn't ship with `mtl` → the plugin it comes from, as `--plugin` takes it."""
    return {f"{one.kind} {one.name}": one.plugin for one in _components(experiment) if one.plugin is not None}


def as_file(experiment: Experiment) -> dict[str, Any]:
    """The resolved experiment as `config.yaml` has it: with the plugins that its components come from."""
    plugins = loaded_plugins(plugins_of(experiment).values())
    return {**experiment.resolved(), **({"plugins": plugins} if plugins else {})}


def lacking(problems: Iterable[Problem], recorded: Any) -> list[Problem]:
    """Of the problems of an experiment: the components that aren't known here, and the plugins they came from.

    recorded: what a checkpoint holds of `plugins_of`.
    """
    told = recorded if isinstance(recorded, Mapping) else {}
    found, problems = list[Problem](), list(problems)
    for component, plugin in told.items():
        kind, _, name = str(component).partition(" ")
        if kind in REGISTRIES and name not in REGISTRIES[kind].names() and isinstance(plugin, str):
            start = f"unknown {kind} {name!r}."
            hint = f"{kind} {name!r} came from the plugin {plugin!r}: give it with --plugin, if you trust it"
            found += [Problem(hint, problem.path) for problem in problems if problem.message.startswith(start)]
    return found


def _components(experiment: Experiment) -> Iterator[Component]:
    for entry in experiment.datasets.values():
        yield registry.datasets[entry.name]
    for task in experiment.tasks.values():
        yield registry.kinds[task.kind.name]
        yield registry.heads[task.head.name]
    yield registry.trunks[experiment.trunk.name]
    yield registry.sharings[experiment.sharing.name]
    yield registry.weightings[experiment.weighting.name]
    for term in experiment.regularizers:
        yield registry.regularizers[term.name]
    yield registry.optimizers[experiment.optimizer.name]
    if experiment.scheduler is not None:
        yield registry.schedulers[experiment.scheduler.name]
    yield registry.samplers[experiment.training.sampling.name]
