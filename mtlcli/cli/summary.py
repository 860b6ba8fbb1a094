"""`mtl summary CONFIG`: what an experiment is made of, without its data."""

from __future__ import annotations

from typing import Any

from mtlcli.cli.options import ConfigFile, Json, Overrides, Plugins


def summary(config: ConfigFile, overrides: Overrides = None, json: Json = False, plugin: Plugins = None) -> None:
    """Show datasets, tasks and the numbers of parameters of an experiment. Reads no data and trains nothing."""
    import torch

    from mtlcli.cli import table
    from mtlcli.cli.output import print_json
    from mtlcli.config import load_experiment
    from mtlcli.training.assemble import assemble, open_datasets

    experiment = load_experiment(config, overrides or [])
    run = assemble(experiment, torch.device("meta"), open_datasets(experiment))
    parameters = run.model.count_parameters()
    document: dict[str, Any] = {
        "name": experiment.name,
        "datasets": {
            alias: {
                "name": experiment.datasets[alias].name,
                "input": list(spec.input_shape),
                "splits": list(spec.splits),
            }
            for alias, spec in run.specs.items()
        },
        "tasks": {
            task: {
                "target": ".".join(source),
                "kind": experiment.tasks[task].kind.name,
                "outputs": run.kinds[task].outputs,
                "primary": run.kinds[task].primary,
                "head": experiment.tasks[task].head.name,
                "parameters": parameters["tasks"][task],
            }
            for task, source in run.sources.items()
        },
        "trunk": experiment.trunk.name,
        "sharing": experiment.sharing.name,
        "weighting": experiment.weighting.name,
        "parameters": parameters,
    }
    if json:
        print_json(document)
        return
    for title in ("datasets", "tasks"):
        rows = [[title, *next(iter(document[title].values()))]]
        rows += [[name, *(_cell(value) for value in facts.values())] for name, facts in document[title].items()]
        print("\n".join([*table.lines(rows), ""]))
    print(f"trunk {experiment.trunk.name}, sharing {experiment.sharing.name}, weighting {experiment.weighting.name}")
    print(f"parameters: {parameters['shared']:,} shared, {parameters['total']:,} in all")


def _cell(value: Any) -> str:
    if isinstance(value, list):
        return ("×" if isinstance(value[0], int) else " ").join(map(str, value))
    return f"{value:,}" if isinstance(value, int) else str(value)
