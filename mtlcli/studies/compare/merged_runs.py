"""Merged models as methods of a comparison: made of the single-task runs that it trains anyway."""

from __future__ import annotations

import hashlib
import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mtlcli.config import Experiment, dump_yaml, experiment_from_dict
from mtlcli.errors import ConfigError, suggest
from mtlcli.models.merging import METHODS, MergeRule
from mtlcli.models.warm_start import find_mismatches, join_problems
from mtlcli.studies.compare.axes import Point
from mtlcli.studies.compare.execution import MERGED, Outcome, RunStore, StudyRun
from mtlcli.studies.compare.identity import experiment_hash
from mtlcli.studies.compare.measured import MEASURED, measure_model
from mtlcli.studies.compare.plan import Candidate, Method, Plan
from mtlcli.studies.merge.merge_runs import Merged, MergeOptions, merge_sources
from mtlcli.studies.merge.source_runs import TRUNK, read_sources
from mtlcli.studies.merge.united import united_config
from mtlcli.studies.runs import read_json
from mtlcli.studies.worker import Job
from mtlcli.training import evaluate
from mtlcli.training.assembly.assemble import assemble
from mtlcli.training.assembly.build import rebuild
from mtlcli.training.assembly.data_checks import open_datasets
from mtlcli.training.checkpoint.file import save_checkpoint
from mtlcli.training.run import Run, as_file
from mtlcli.training.run_folder import RunFolder, environment

DEFAULTS = ("mean", "task_arithmetic", "ties")  # methods of `--baseline merge`


def parse_baselines(texts: Sequence[str]) -> list[MergeRule]:
    """Parse `--baseline` arguments.

    Args:
        texts: `merge`, for the methods of `DEFAULTS`, or `merge:METHOD,METHOD`.

    Returns:
        The methods of merging, each once.

    Raises:
        ConfigError: For other baselines or methods.
    """
    rules: dict[str, MergeRule] = {}
    for text in texts:
        name, colon, methods = text.partition(":")
        if name != "merge":
            raise ConfigError(f"--baseline: expected merge or merge:METHOD,METHOD, got {text!r}")
        for method in methods.split(",") if colon else DEFAULTS:
            if method not in METHODS:
                choices = f"{suggest(method, METHODS)} Choose from: {', '.join(METHODS)}"
                raise ConfigError(f"--baseline: no method of merging is called {method!r}.{choices}")
            rules[method] = MergeRule(method)
    return list(rules.values())


def add_merged_methods(plan: Plan, rules: Sequence[MergeRule]) -> Plan:
    """Add the methods that merge the models of the baselines to a plan.

    Args:
        plan: the plan.
        rules: the methods of merging.

    Returns:
        The plan with one more method for each rule.

    Raises:
        ConfigError: If there is one task, or the trunks of the baselines differ.
    """
    if not rules:
        return plan
    if len(plan.baselines) < 2:
        raise ConfigError("--baseline merge: the experiment has one task, so there is nothing to merge")
    trunks = {method.label: _trunk(method.candidates[0].experiment) for method in plan.baselines}
    (first, own), *others = trunks.items()
    for task, trunk in others:
        if differing := find_mismatches(own, trunk):
            raise ConfigError(
                f"--baseline merge: the trunks of the single-task models differ: that of {task} from that of {first}: "
                f"{join_problems(differing)}"
            )
    config = united_config([method.candidates[0].experiment for method in plan.baselines])
    experiment = experiment_from_dict(config, source="the merged experiment")
    candidates = (Candidate(Point("", ()), experiment),)
    merged = [Method(f"merge:{rule.method}", candidates, {"merge": rule.method}, merge=rule) for rule in rules]
    return replace(plan, methods=[*plan.methods, *merged])


def _trunk(experiment: Experiment) -> dict[str, Tensor]:
    """Return the state dict of an experiment's trunk, on `meta`."""
    run = assemble(experiment, torch.device("meta"), open_datasets(experiment))
    return {key: value for key, value in run.model.state_dict().items() if key.startswith(TRUNK)}


def complete_merges(
    methods: Sequence[Method], baselines: Mapping[Method, Sequence[Outcome]], store: RunStore, root: Path
) -> dict[Method, list[Outcome]]:
    """Merge the models of the baselines, seed by seed, as far as the study folder lacks them.

    Args:
        methods: the methods that merge.
        baselines: the outcomes of every baseline, one for each seed.
        store: completes the runs.
        root: folder of their run folders.

    Returns:
        Method → outcomes, one for each seed; a failed one where a baseline has failed.
    """
    by_seed = list(zip(*baselines.values(), strict=True))
    runs = {method: [_make_run(method, single, root) for single in by_seed] for method in methods}
    failed = {
        run: next((str(outcome.run) for outcome in single if not outcome.completed), None)
        for group in runs.values()
        for run, single in zip(group, by_seed, strict=True)
    }
    ready = [run for run, reason in failed.items() if reason is None]
    completed = dict(zip(ready, store.complete(ready), strict=True)) if ready else {}
    return {
        method: [completed.get(run) or Outcome(run, error=f"{failed[run]} failed") for run in group]
        for method, group in runs.items()
    }


def _make_run(method: Method, single: Sequence[Outcome], root: Path) -> StudyRun:
    """Make the run that merges single-task models of one seed."""
    assert method.merge is not None
    experiments, seed = [outcome.run.experiment for outcome in single], single[0].run.seed
    rule = replace(method.merge, seed=seed)
    identity = json.dumps([*map(experiment_hash, experiments), asdict(rule)])
    folder = root / f"{rule.method}-{seed}-{hashlib.sha256(identity.encode()).hexdigest()[:12]}"
    experiment = experiment_from_dict(united_config(experiments), source="the merged experiment")
    sources = tuple(outcome.run.folder for outcome in single)
    return StudyRun(method, "", seed, experiment, folder, work=partial(write_merged_run, sources=sources, rule=rule))


def write_merged_run(job: Job, sources: Sequence[Path], rule: MergeRule) -> None:
    """Merge trained runs and write a run folder; the work of a process.

    The seconds per epoch are the sum of those of the merged runs, and the memory is that of the largest one, since they
    are what training the merged model takes.

    Args:
        job: the job; its experiment is the united one of the runs.
        sources: the run folders.
        rule: the method of merging.
    """
    experiment = experiment_from_dict(dict(job.experiment), source=str(job.folder))

    def locate(payload: Mapping[str, Any], data: bool) -> Experiment:
        return experiment

    runs = [RunFolder(source) for source in sources]
    merged = merge_sources(read_sources([run.best for run in runs]), rule, MergeOptions(), locate, trusted=True)
    payload = {**merged.payload, "config": experiment.resolved()}
    folder = RunFolder(job.folder)
    folder.make()
    folder.write("config.yaml", dump_yaml(as_file(experiment)))
    save_checkpoint(folder.best, payload)
    run = rebuild(experiment, payload)
    measured = [read_json(source / MEASURED) for source in sources]
    memory = [math.nan if each["memory_bytes"] is None else each["memory_bytes"] for each in measured]
    folder.write_json(MERGED, _describe(merged))
    folder.write_json("environment.json", environment(run.device))
    folder.write_json(MEASURED, {**measure_model(run, folder.best), "memory_bytes": max(memory)})
    singles = [read_json(source / "summary.json") for source in sources]
    folder.write_json("summary.json", _summarize(run, folder, singles))  # last: the run is complete


def _describe(merged: Merged) -> dict[str, Any]:
    trials = [{"coefficients": each.coefficients, "delta_m": each.delta_m} for each in merged.trials]
    return {**merged.payload["merged"], "split": merged.split, "trials": trials}


def _summarize(run: Run, folder: RunFolder, singles: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the `summary.json` of a merged model, which has no epochs of its own."""
    split = run.experiment.evaluation.split
    splits = [split, *(["test"] if "test" in run.splits() and split != "test" else [])]
    evaluated = {name: evaluate.measure(run, name) for name in splits}
    return {
        "name": run.experiment.name,
        "seed": run.experiment.seed,
        "status": "completed",
        "error": None,
        "run_dir": str(folder.path),
        "checkpoint": str(folder.best),
        "epochs": 0,
        "metrics": {name: each.metrics for name, each in evaluated.items()},
        "examples": {name: each.examples for name, each in evaluated.items()},
        "primary": {task: kind.primary for task, kind in run.kinds.items()},
        "data": {alias: record for single in singles for alias, record in single.get("data", {}).items()},
        "best": {"epoch": 0, "monitor": None, "value": None},
        "seconds_per_epoch": [sum(statistics.median(single["seconds_per_epoch"]) for single in singles)],
        "parameters": run.model.count_parameters(),
        "device": str(run.device),
        "threads": torch.get_num_threads(),
    }
