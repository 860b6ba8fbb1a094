"""The experiment in a checkpoint, for whoever doesn't trust the file: no other file is opened because it says so."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from shlex import quote
from typing import Any

from mtlcli import registry
from mtlcli.config import ComponentConfig, Experiment, experiment_from_dict
from mtlcli.cores import usable_cores
from mtlcli.errors import ConfigError, Problem
from mtlcli.files import user_path
from mtlcli.plugins import loaded_plugins
from mtlcli.registry import REGISTRIES, Component, Option

FURTHER = ("test_path", "val_path")  # files of single splits, in addition to `path`
PATHS = ("root", "path", *FURTHER)  # options of datasets that say where the data is


def experiment_from_checkpoint(
    payload: Mapping[str, Any], overrides: Sequence[str], checkpoint: Path, data: bool = True
) -> Experiment:
    """The experiment of a checkpoint's payload, with `KEY=VALUE` overrides; to evaluate or use its model.

    Where the data is, the command line says, or the environment: a `root` that has a default is the default one; a file
    or folder that has none is taken from the checkpoint only if it is a relative path to something inside the current
    folder. Nothing says which weights the trunk started from. Threads and workers are no more than the cores
    that this process may use. An override counts in any case.

    data: whether its datasets are to be opened. ConfigError for an experiment that can't be, or names a path outside.
    """
    try:
        experiment = experiment_from_dict(payload["config"], overrides, source=str(checkpoint))
    except ConfigError as error:
        raise ConfigError(lacking(error.problems, payload.get("plugins")) or error.problems) from error
    given = [override.partition("=")[0] for override in overrides]
    datasets, problems = {}, list[Problem]()
    for alias, entry in experiment.datasets.items():
        options = dict(entry.options)
        for option, default in _paths(entry).items():
            if _overridden(f"datasets.{alias}.{option}", given):
                continue
            if option in FURTHER and _moved(alias, "path", options.get("path"), payload, given):
                options[option] = None  # another file takes the place of all
                continue
            if default is not None:
                options[option] = default.default
            elif data and not _inside(options[option]):
                path = f"datasets.{alias}.{option}"
                problems.append(Problem(
                    f"the checkpoint says {str(options[option])!r}, and a path that leads out of the current folder "
                    f"counts only where you give it yourself: mtl eval {quote(str(checkpoint))} {path}=PATH", path
                ))  # fmt: skip
        datasets[alias] = replace(entry, options=options)
    if isinstance(experiment.weighting.options.get("matrix"), str) and not _overridden("weighting.matrix", given):
        problems.append(Problem("a checkpoint holds the numbers, and this one names a file", "weighting.matrix"))
    if problems:
        raise ConfigError(problems)
    cores, training = usable_cores(), experiment.training
    machine = {
        key: min(value, cores)
        for key in ("threads", "workers")
        if isinstance(value := getattr(training, key), int) and not _overridden(f"training.{key}", given)
    }
    changes = {
        "datasets": datasets,
        "trunk": replace(experiment.trunk, init_from=None),
        "training": training.model_copy(update=machine),
    }
    return experiment.model_copy(update=changes)


def moved_datasets(experiment: Experiment, payload: Mapping[str, Any], overrides: Sequence[str]) -> list[str]:
    """The datasets whose file or folder was given by an override, and is another one than the checkpoint says."""
    given = [override.partition("=")[0] for override in overrides]
    return [
        alias
        for alias, entry in experiment.datasets.items()
        if any(_moved(alias, option, entry.options[option], payload, given) for option in _paths(entry))
    ]


def _moved(alias: str, option: str, here: Any, payload: Mapping[str, Any], given: Sequence[str]) -> bool:
    """Return whether the option of a dataset is overridden by another path than that of the checkpoint."""
    if not _overridden(f"datasets.{alias}.{option}", given):
        return False
    stored = payload["config"]["datasets"].get(alias, {}).get(option)
    try:
        return user_path(str(here)).resolve() != user_path(str(stored)).resolve()
    except (OSError, ValueError, RuntimeError):  # a loop of links; a NUL
        return True


def publishable(experiment: Experiment) -> dict[str, Any]:
    """The resolved experiment as it may be shown to anyone: of paths only the last part, of those that have a default
    not even that.
    """
    plain = experiment.resolved()
    for alias, entry in experiment.datasets.items():
        for option, default in _paths(entry).items():
            stored = plain["datasets"][alias][option]
            plain["datasets"][alias][option] = Path(str(stored)).name if default is None else default.default
    plain["trunk"]["init_from"] = None
    return plain


def _paths(entry: ComponentConfig) -> dict[str, Option | None]:
    """The options of a dataset that are paths; None for one without a default."""
    options = {name: registry.datasets[entry.name].options.get(name) for name in entry.options}
    paths = {name: one for name, one in options.items() if name in PATHS or (one and one.annotation is Path)}
    paths = {name: one for name, one in paths.items() if name not in FURTHER or entry.options[name] is not None}
    return {name: None if one is None or one.required or name in FURTHER else one for name, one in paths.items()}


def _overridden(path: str, given: Sequence[str]) -> bool:
    return any(f"{path}.".startswith(f"{key}.") for key in given)


def _inside(stored: Any) -> bool:
    """Whether it is a relative path to something in the current folder, links included."""
    path = Path(str(stored))
    if path.is_absolute() or ".." in path.parts or str(path).startswith("~"):
        return False
    try:
        return path.resolve().is_relative_to(Path.cwd().resolve())
    except (OSError, ValueError, RuntimeError):  # a loop of links; a NUL
        return False


def plugins_of(experiment: Experiment) -> dict[str, str]:
    """`kind name` of each component that doesn't ship with `mtl` → the plugin it comes from, as `--plugin` takes it."""
    return {f"{one.group} {one.name}": one.plugin for one in _components(experiment) if one.plugin is not None}


def as_file(experiment: Experiment) -> dict[str, Any]:
    """The resolved experiment as `config.yaml` has it: with the plugins that its components come from."""
    named = [registry.callbacks[entry.name].plugin for entry in experiment.callbacks]
    plugins = loaded_plugins([*plugins_of(experiment).values(), *(plugin for plugin in named if plugin is not None)])
    return {**experiment.resolved(callbacks=True), **({"plugins": plugins} if plugins else {})}


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


def _components(experiment: Experiment) -> Iterator[Component[Any]]:
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
