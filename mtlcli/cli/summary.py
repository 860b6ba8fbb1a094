"""`mtl summary`: description of an experiment without training."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from mtlcli.cli.arguments import AllowPlugins, ConfigFile, Json, Overrides, Plugins, examples

if TYPE_CHECKING:
    from mtlcli.training.run import Run


@examples("mtl summary configs/digits.yaml", "mtl summary configs/digits.yaml sharing=mmoe --json")
def summary(
    config: ConfigFile,
    overrides: Overrides = None,
    json: Json = False,
    plugin: Plugins = None,
    allow_plugins: AllowPlugins = False,
) -> None:
    """Show data, tasks, layers, parameters, the optimizer's groups and FLOPs.

    Nothing is downloaded or trained. For datasets that need no download, it lists the columns of tables with their
    types, missing values and levels or ranges, and the targets with their labels by split and class.
    """
    from mtlcli.config import load_experiment

    # before the import of torch, which takes seconds
    experiment = load_experiment(config, overrides or [], allow_plugins)

    import torch

    from mtlcli.cli import table
    from mtlcli.cli.output import print_json
    from mtlcli.errors import ConfigError
    from mtlcli.text import format_number, printable
    from mtlcli.training.assembly.assemble import add_regularizers, assemble
    from mtlcli.training.assembly.build import within_memory
    from mtlcli.training.assembly.data_checks import open_datasets
    from mtlcli.training.assembly.model_size import flops_per_sample, layers
    from mtlcli.training.assembly.parameter_groups import group_sizes
    from mtlcli.training.data_report import data_report, epoch_report, report_rows
    from mtlcli.training.messages import describe_epoch, describe_parameters

    with within_memory():
        run = assemble(experiment, torch.device("meta"), open_datasets(experiment))
        add_regularizers(run)
    try:
        model_layers = layers(run)
    except RuntimeError as error:  # torch's error for shapes that don't match
        message = f"can't take the datasets' inputs: {error}"
        raise ConfigError(experiment.problem("trunk", message)) from error
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
        "data": data_report(run),
        "examples_per_epoch": epoch_report(run),
        "notes": run.notes(),
        "tasks": {
            task: {
                "target": ".".join(source),
                "kind": experiment.tasks[task].kind.name,
                "outputs": run.kinds[task].outputs,
                **({"where": str(run.spaces[task]) if task in run.spaces else None} if run.spaces else {}),
                "primary": run.kinds[task].primary,
                "positive": run.kinds[task].positive,
                "head": experiment.tasks[task].head.name,
                "parameters": parameters["tasks"][task],
            }
            for task, source in run.sources.items()
        },
        "trunk": experiment.trunk.name,
        "sharing": experiment.sharing.name,
        "weighting": experiment.weighting.name,
        "layers": {layer.name: {k: v for k, v in asdict(layer).items() if k != "name"} for layer in model_layers},
        "parameters": parameters,
        "groups": group_sizes(run.model, experiment),
        "flops_per_sample": flops_per_sample(run),
    }
    if run.weighting.level != "loss":
        document["gradients"] = _describe_gradients(run)
    if json:
        print_json(document)
        return
    for title in ("datasets", "tasks", "layers", *(["groups"] if len(document["groups"]) > 1 else [])):
        rows = [[title, *next(iter(document[title].values()))]]
        absent = "shared" if title == "layers" else "-"
        rows += [[name, *(_cell(value, absent) for value in facts.values())] for name, facts in document[title].items()]
        print("\n".join([*table.align_text(rows), ""]))
    if rows := list(report_rows(document["data"])):
        print("\n".join([*table.align_text(rows), ""]))
    if document["notes"]:
        print("\n".join([*map(printable, document["notes"]), ""]))
    if (epoch := describe_epoch(document["examples_per_epoch"])) is not None:
        print(f"an epoch: {epoch}\n")
    adapters = "" if experiment.adapters is None else f"adapters {experiment.adapters.name}, "
    print(
        f"trunk {experiment.trunk.name}, {adapters}sharing {experiment.sharing.name}, "
        f"weighting {experiment.weighting.name}"
    )
    if "gradients" in document:
        by, size = document["gradients"].values()
        print(f"gradients by {by}" + ("" if size is None else f": {format_number(size / 1e6, 3)} MB for all tasks"))
    print(f"parameters: {describe_parameters(parameters)}")
    flops = ", ".join(
        f"{alias} {count:,}" + (f" for {texts.max_length} tokens" if (texts := run.specs[alias].text) else "")
        for alias, count in document["flops_per_sample"].items()
    )
    print(f"FLOPs per sample (a multiplication and an addition are two): {flops}")


def _describe_gradients(run: Run) -> dict[str, Any]:
    """Return by what the tasks are differentiated, and the memory of their gradients by all parameters, if held."""
    from mtlcli.training.backward.gradient_backward import BY_PARAMETERS, is_blockwise, jacobian_bytes

    gradients = run.experiment.weighting.gradients
    if gradients not in BY_PARAMETERS:
        return {"by": str(gradients).replace("_", " "), "jacobian_bytes": None}
    if is_blockwise(run):
        return {"by": "blocks of parameters", "jacobian_bytes": None}
    return {"by": "parameters", "jacobian_bytes": jacobian_bytes(run)}


def _cell(value: Any, absent: str) -> str:
    if value is None:
        return absent
    if isinstance(value, list | tuple):
        return ("×" if value and isinstance(value[0], int) else " ").join(map(str, value))
    if isinstance(value, float):
        return f"{value:.6g}"
    return f"{value:,}" if isinstance(value, int) else str(value)
