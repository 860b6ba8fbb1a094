"""Studies from Python: comparisons of methods, and relations of tasks."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

from mtlcli.api.prepared_run import Config, resolve_config
from mtlcli.api.study_results import Comparison, TaskRelations
from mtlcli.config import Experiment
from mtlcli.errors import ConfigError

Axes = Mapping[str, Sequence[Any]] | Sequence[str]


def compare(
    config: Config,
    *,
    vary: Axes,
    seeds: int = 3,
    overrides: Sequence[str] = (),
    tune: Axes = (),
    tune_seeds: int = 1,
    jobs: int | None = None,
    out: str | os.PathLike[str] | None = None,
    published: str | os.PathLike[str] | None = None,
    reference: str | None = None,
    baselines: Sequence[str] = (),
) -> Comparison:
    """Compare methods with each other and with single-task baselines, as `mtl compare` does.

    Each run is trained in a process of its own. Runs that the folder already holds are used again, so that a study that
    was interrupted can be resumed, and extended by seeds or methods. Data passed from Python can't be compared on.

    Args:
        config: An experiment, the path of its YAML file, or a dict of the same form.
        vary: Key → values in which the methods differ, such as `{"weighting": ["uniform", "mgda"]}`; of several keys
            all combinations. Strings `KEY=VALUE,VALUE` as on the command line are accepted too.
        seeds: Number of runs of each method and of each task's baseline.
        overrides: `KEY=VALUE` strings for all runs, such as `training.epochs=5`.
        tune: Key → values, of which the best on `val` is chosen for each method and baseline.
        tune_seeds: Number of seeds that are used for tuning.
        jobs: Number of runs at the same time; by default one for each core, or one on an accelerator.
        out: The folder of the study; by default `NAME/compare` under `$MTL_RUNS` or `runs/`.
        published: A file of published values (YAML) to be shown next to the new ones.
        reference: Label of the method that the others are tested against, in addition to the baselines; by default the
            first with uniform weighting, or else the first.
        baselines: `merge` or `merge:METHOD,METHOD`, such as `["merge:ties,mean"]`, to compare models merged of the
            single-task models, too.

    Returns:
        The comparison. Runs that failed are listed in `failed`.

    Raises:
        ConfigError: An experiment is invalid or can't work; nothing has been trained.
        InterruptedRunError: The study was interrupted (Ctrl-C, SIGTERM); what is done is kept.
    """
    _check_counts(seeds=seeds, tune_seeds=tune_seeds, jobs=1 if jobs is None else jobs)
    axes, tuned = _axes(vary, "vary"), _axes(tune, "tune")
    overrides = [overrides] if isinstance(overrides, str) else list(overrides)
    from mtlcli.studies.compare.compare_study import compare as study
    from mtlcli.studies.pool import start_server

    start_server()

    def load(more: Sequence[str]) -> Experiment:
        return resolve_config(config, [*overrides, *more])

    document = study(
        load, axes, seeds=seeds, tune=tuned, tune_seeds=tune_seeds, jobs=jobs, out=_path(out),
        published=_path(published), reference=reference,
        baselines=[baselines] if isinstance(baselines, str) else list(baselines),
    )  # fmt: skip
    return Comparison(document)


def relate(
    config: Config,
    *,
    measure: str | Sequence[str] | None = None,
    overrides: Sequence[str] = (),
    out: str | os.PathLike[str] | None = None,
    seeds: int = 3,
    epochs: int = 3,
    networks: int = 2,
    jobs: int = 1,
    encoder: str | None = None,
) -> TaskRelations:
    """Measure how related the tasks are, as `mtl relate` does.

    Trains single-task baselines and a joint run, as far as the measures need them. Runs that the folder already holds
    are used again.

    Args:
        config: An experiment, the path of its YAML file, or a dict of the same form.
        measure: One or several of `performance`, `gradient`, `affinity`, `data` and `semantic`; by default all.
        overrides: `KEY=VALUE` strings such as `training.epochs=5`.
        out: The folder of the study; by default `NAME/relate` under `$MTL_RUNS` or `runs/`.
        seeds: Number of baselines of each task (for `performance`).
        epochs: Maximum number of epochs of each run.
        networks: Maximum number of networks that the tasks are divided among.
        jobs: Number of baselines that are trained at the same time, each in a process of its own if there are several.
        encoder: A model of sentence-transformers for `semantic`; by default TF-IDF.

    Returns:
        The relation of each pair of tasks, and suggested groups, by each measure.

    Raises:
        ConfigError: The experiment can't be trained, has one task, or the folder belongs to another experiment.
        InterruptedRunError: The study was interrupted (Ctrl-C, SIGTERM); what is done is kept.
    """
    _check_counts(seeds=seeds, epochs=epochs, networks=networks, jobs=jobs)
    measures = [measure] if isinstance(measure, str) else measure
    from mtlcli.studies.relate.experiments import Budget
    from mtlcli.studies.relate.relate_study import relate as study

    budget = Budget(seeds, epochs, networks, jobs, encoder)
    return TaskRelations(study(resolve_config(config, overrides), measures, _path(out), budget=budget))


def _axes(given: Axes, name: str) -> list[str]:
    """Return the axes as `KEY=VALUE,VALUE` strings."""
    if isinstance(given, str):
        return [given]
    if not isinstance(given, Mapping):
        return list(given)
    axes = []
    for key, values in given.items():
        if isinstance(values, str) or not isinstance(values, Sequence):
            raise ConfigError(f"{name}: expected a list of values of {key!r}, got {type(values).__name__}")
        axes.append(f"{key}={','.join(map(_text, values))}")
    return axes


def _text(value: Any) -> str:
    """Return a value as written on the command line: a string unchanged, any other value as YAML."""
    if isinstance(value, str) and not any(mark in value for mark in ",[]{}\"'"):
        return value
    return json.dumps(value, ensure_ascii=False)


def _check_counts(**counts: int) -> None:
    for name, value in counts.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ConfigError(f"{name}: expected an integer > 0, got {value!r}")


def _path(path: str | os.PathLike[str] | None) -> str | None:
    return None if path is None else os.fspath(path)
