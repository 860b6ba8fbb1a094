"""YAML → Experiment, or everything that is wrong with it at once."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from mtlcli.config import explain
from mtlcli.config import overrides as overriding
from mtlcli.config.bounds import bounded
from mtlcli.config.crosschecks import crosschecks
from mtlcli.config.describe import found
from mtlcli.config.readings import settle
from mtlcli.config.schema import MAX_NAME, Experiment
from mtlcli.config.source import Source, dotted, in_order
from mtlcli.config.yaml import Document, read
from mtlcli.errors import ConfigError


def load_experiment(path: str | Path, overrides: Sequence[str] = ()) -> Experiment:
    """The experiment in a YAML file, with `KEY=VALUE` overrides. Raises ConfigError with all problems, by line."""
    file = Path(path)
    stem = re.sub(r"^[^A-Za-z0-9_]|[^A-Za-z0-9_.-]", "_", file.stem)  # fit for a folder's name
    return _experiment(read(file), overrides, Source(), stem[:MAX_NAME])


def experiment_from_dict(
    plain: dict[str, Any], overrides: Sequence[str] = (), source: str = "checkpoint.pt"
) -> Experiment:
    """The experiment in plain data, such as a checkpoint's; `source` says in messages where that came from."""
    where = Source(f"in the experiment of {source}")
    return _experiment(Document(bounded(plain, where)), overrides, where, "experiment")


def _experiment(document: Document, overrides: Sequence[str], source: Source, stem: str) -> Experiment:
    source.places = document.places
    if document.data is None:
        raise ConfigError(source.problem((), "nothing there: an experiment has at least datasets, tasks and a trunk"))
    if not isinstance(document.data, dict):
        raise ConfigError(source.problem((), f"expected an experiment (a mapping), found {found(document.data)}"))
    problems = overriding.apply(document, overrides, source)
    undecided, unreadable = settle(document, Experiment)
    problems += undecided
    problems += [source.problem(path, message) for path, message in document.unexpanded.items()]
    data = {"name": stem, **bounded(document.data, source)}
    try:
        experiment = Experiment.model_validate(data)
    except ValidationError as error:
        # A value that can't be expanded or read is null so far, which is no problem of its own.
        invalid = explain.problems(error, Experiment, data, source)
        unset = {dotted(path) for path in [*document.unexpanded, *unreadable]}
        problems += [problem for problem in invalid if problem.path not in unset]
    problems += crosschecks(data, source)
    if problems:
        raise ConfigError(in_order(problems))
    experiment._source = source
    return experiment
