"""The experiment in an untrusted checkpoint, without access to other files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from shlex import quote
from typing import Any

from mtlcli import registry
from mtlcli.component import Option
from mtlcli.config import ComponentConfig, Experiment, experiment_from_dict
from mtlcli.cores import usable_cores
from mtlcli.errors import ConfigError, Problem
from mtlcli.files import user_path
from mtlcli.registry import REGISTRIES

FURTHER = ("test_path", "val_path")  # files of individual splits, in addition to `path`
PATHS = ("root", "path", *FURTHER)  # options of datasets that locate the data


def experiment_from_checkpoint(
    payload: Mapping[str, Any],
    overrides: Sequence[str],
    checkpoint: Path,
    data: bool = True,
    command: str | None = None,
) -> Experiment:
    """Return the experiment of a checkpoint, with overrides, for evaluation or use of its model.

    Locations of data come from the command line or the environment. A data root is the default one; any other file or
    folder is taken from the checkpoint only if it is a relative path to something inside the current folder. The
    initialization of the trunk is removed. Threads and workers are limited to the available cores. Overrides always
    apply.

    Args:
        payload: Content of the checkpoint.
        overrides: `KEY=VALUE` arguments.
        checkpoint: The file, for messages.
        data: Whether the datasets will be opened.
        command: The command to which a message adds the override that is lacking; by default `mtl eval CHECKPOINT`.

    Returns:
        The experiment.

    Raises:
        ConfigError: If the experiment is invalid or names a path outside the current folder.
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
                options[option] = None  # the new file replaces all
                continue
            if default is not None:
                options[option] = default.default
            elif data and not inside_current_folder(options[option]):
                path, given_by = f"datasets.{alias}.{option}", command or f"mtl eval {quote(str(checkpoint))}"
                problems.append(Problem(
                    f"the checkpoint has {str(options[option])!r}; a path outside the current folder is used only "
                    f"if you give it yourself, as an override: {given_by} {path}=PATH", path
                ))  # fmt: skip
        datasets[alias] = replace(entry, options=options)
    if isinstance(experiment.weighting.options.get("matrix"), str) and not _overridden("weighting.matrix", given):
        problems.append(Problem("names a file instead of the numbers that a checkpoint holds", "weighting.matrix"))
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
    """Return the datasets whose file or folder an override changes from that in the checkpoint."""
    given = [override.partition("=")[0] for override in overrides]
    return [
        alias
        for alias, entry in experiment.datasets.items()
        if any(_moved(alias, option, entry.options[option], payload, given) for option in _paths(entry))
    ]


def _moved(alias: str, option: str, here: Any, payload: Mapping[str, Any], given: Sequence[str]) -> bool:
    """Return whether an override changes this path option of a dataset."""
    if not _overridden(f"datasets.{alias}.{option}", given):
        return False
    stored = payload["config"]["datasets"].get(alias, {}).get(option)
    try:
        return user_path(str(here)).resolve() != user_path(str(stored)).resolve()
    except (OSError, ValueError, RuntimeError):  # a loop of links; a NUL
        return True


def publishable(experiment: Experiment) -> dict[str, Any]:
    """Return the resolved experiment without private paths.

    Paths are reduced to their last component, and those with a default to the default.
    """
    plain = experiment.resolved()
    for alias, entry in experiment.datasets.items():
        for option, default in _paths(entry).items():
            stored = plain["datasets"][alias][option]
            plain["datasets"][alias][option] = Path(str(stored)).name if default is None else default.default
    plain["trunk"]["init_from"] = None
    for option in ("model", "tokenizer", "pretrained"):  # of a pretrained trunk: folders, or names
        if isinstance(text := plain["trunk"].get(option), str) and user_path(text).exists():
            plain["trunk"][option] = user_path(text).name
    if plain["trunk"].get("pretrained"):
        plain["trunk"]["pretrained"] = Path(str(plain["trunk"]["pretrained"])).name
    return plain


def _paths(entry: ComponentConfig) -> dict[str, Option | None]:
    """Return the path options of a dataset; None for those without a default."""
    options = {name: registry.datasets[entry.name].options.get(name) for name in entry.options}
    paths = {
        name: option for name, option in options.items() if name in PATHS or (option and option.annotation is Path)
    }
    # The `root` of a dataset with a `path` is not the data root, whose default is safe, but the folder of its files.
    optional = {*FURTHER, *(["root"] if "path" in paths else [])}
    return {
        name: None if option is None or option.required or name in optional else option
        for name, option in paths.items()
        if name not in optional or entry.options[name] is not None
    }


def _overridden(path: str, given: Sequence[str]) -> bool:
    return any(f"{path}.".startswith(f"{key}.") for key in given)


def inside_current_folder(stored: Any) -> bool:
    """Return whether a path is relative and leads, including links, to something inside the current folder."""
    path = Path(str(stored))
    if path.is_absolute() or ".." in path.parts or str(path).startswith("~"):
        return False
    try:
        return path.resolve().is_relative_to(Path.cwd().resolve())
    except (OSError, ValueError, RuntimeError):  # a loop of links; a NUL
        return False


def lacking(problems: Iterable[Problem], recorded: Any) -> list[Problem]:
    """Return the problems of an experiment that a missing plugin explains, with the plugin to load.

    Args:
        problems: Problems of the experiment.
        recorded: The plugins that the checkpoint records (see `plugins_of`).

    Returns:
        The explained problems, reworded.
    """
    plugins = recorded if isinstance(recorded, Mapping) else {}
    explained, problems = list[Problem](), list(problems)
    for component, plugin in plugins.items():
        kind, _, name = str(component).partition(" ")
        if kind in REGISTRIES and name not in REGISTRIES[kind] and isinstance(plugin, str):
            start = f"unknown {kind} {name!r}."
            hint = f"{kind} {name!r} came from the plugin {plugin!r}: give it with --plugin, if you trust it"
            explained += [Problem(hint, problem.path) for problem in problems if problem.message.startswith(start)]
    return explained
