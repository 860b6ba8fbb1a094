"""Union of the experiments of several runs: one checkpoint with the datasets and tasks of all of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mtlcli.config import Experiment
from mtlcli.config.changed_keys import differing_keys
from mtlcli.errors import ConfigError, Problem
from mtlcli.studies.merge.source_runs import SourceRun

NAME = "merged"
UNITED = ("specs", "data", "plugins", "spaces", "class_weights")  # dicts of a checkpoint
NOT_BUILT = ("init_from", "frozen", "freeze", "model", "tokenizer", "gradient_checkpointing")  # of `trunk`
KEPT = ("loading", "workers", "device", "threads", "precision", "batch_size", "deterministic")  # of `training`


def unite(sources: Sequence[SourceRun]) -> dict[str, Any]:
    """Unite the checkpoints of several runs.

    Datasets, stems and tasks are those of all runs. One that several runs have must be the same in all of them. Device,
    precision, evaluation and seed are those of the first run. What only training uses (weighting, regularizers,
    optimizer, scheduler) has its default, since the result is not trained.

    Args:
        sources: the runs.

    Returns:
        The content of a checkpoint, in which `model` has the parameters of the first run that has each.

    Raises:
        ConfigError: If runs use the same name for different datasets, stems or tasks, or if the options of their trunks
            differ; the message lists all conflicts.
    """
    first = sources[0]
    experiments = [source.experiment for source in sources]
    problems = [problem for section in ("datasets", "stems", "tasks") for problem in _conflicts(sources, section)]
    problems += _spec_conflicts(sources, {problem.path for problem in problems})
    problems += [
        Problem(
            f"{source.path} and {first.path} have trunks of different pretrained models, or tokenizers "
            "that were trained on different texts",
            "trunk",
        )
        for source in sources[1:]
        if _architecture(source) != _architecture(first)
    ]
    problems += [
        Problem(f"is {now!r} in {source.path} and {before!r} in {first.path}", f"trunk.{key}")
        for source in sources[1:]
        for key, before, now in differing_keys(_built_trunk(first.experiment), _built_trunk(source.experiment))
    ]
    if problems:
        raise ConfigError(problems)
    model = {key: value.clone() for source in reversed(sources) for key, value in source.state.items()}
    united = {entry: _merge_dicts(source.payload.get(entry, {}) for source in sources) for entry in UNITED}
    shared = {key: first.payload[key] for key in ("made_with", "base") if key in first.payload}
    return {"config": united_config(experiments), **shared, **united, "model": model}


def united_config(experiments: Sequence[Experiment]) -> dict[str, Any]:
    """Unite experiments without conflicts; see `unite`.

    Args:
        experiments: the experiments, whose stems have the key `shape`.

    Returns:
        The united experiment, as a dict of the form of a YAML file.
    """
    configs = [experiment.resolved() for experiment in experiments]
    stems = _merge_dicts(config.get("stems", {}) for config in configs)
    return {
        "name": NAME,
        "seed": configs[0]["seed"],
        "datasets": _merge_dicts(config["datasets"] for config in configs),
        "tasks": _merge_dicts(config["tasks"] for config in configs),
        "trunk": {**configs[0]["trunk"], "init_from": None},
        **({"stems": {alias: {**stem, "init_from": None} for alias, stem in stems.items()}} if stems else {}),
        "training": {key: configs[0]["training"][key] for key in KEPT},
        "evaluation": {key: configs[0]["evaluation"][key] for key in ("split", "batch_size")},
    }


def _conflicts(sources: Sequence[SourceRun], section: str) -> list[Problem]:
    """Describe the entries of a section that have the same name in two runs and differ."""
    problems, seen = [], dict[str, tuple[SourceRun, Any]]()
    for source in sources:
        for name, entry in source.experiment.resolved().get(section, {}).items():
            other, before = seen.setdefault(name, (source, entry))
            if differing := [key for key, _, _ in differing_keys(before, entry) if key != "init_from"]:
                what = section.removesuffix("s")
                problems.append(Problem(
                    f"two {section} have this name: that of {source.path} differs from that of {other.path} in "
                    f"{', '.join(differing)}. Train one of the runs with another name for its {what}",
                    f"{section}.{name}",
                ))  # fmt: skip
    return problems


def _spec_conflicts(sources: Sequence[SourceRun], reported: set[str]) -> list[Problem]:
    """Describe the datasets that are configured in the same way but have other columns, classes or statistics."""
    problems, seen = [], dict[str, tuple[SourceRun, Any]]()
    for source in sources:
        for alias, spec in source.payload["specs"].items():
            other, before = seen.setdefault(alias, (source, spec))
            differing = list(dict.fromkeys(key.partition(".")[0] for key, _, _ in differing_keys(before, spec)))
            if differing and f"datasets.{alias}" not in reported:
                problems.append(Problem(
                    f"the data of {source.path} differs from that of {other.path} in {', '.join(differing)}: it has "
                    "changed between the runs, or their seeds select other training examples",
                    f"datasets.{alias}",
                ))  # fmt: skip
    return problems


def _architecture(source: SourceRun) -> tuple[Any, ...]:
    """Return the configuration and the tokenizer of the pretrained model that a trunk is built from."""
    base = source.payload.get("base") or {}
    return base.get("config"), base.get("tokenizer")


def _built_trunk(experiment: Experiment) -> dict[str, Any]:
    """Return the options of a trunk that determine what it computes."""
    return {key: value for key, value in experiment.resolved()["trunk"].items() if key not in NOT_BUILT}


def _merge_dicts(dicts: Any) -> dict[str, Any]:
    """Unite dicts; of equal keys, the first one counts."""
    united: dict[str, Any] = {}
    for entries in dicts:
        united = {**united, **{key: value for key, value in entries.items() if key not in united}}
    return united
