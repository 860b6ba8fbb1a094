"""`mtl export`: conversion of a trained model to other formats."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from mtlcli.cli.arguments import BasePath, CheckpointFile, Json, Plugins, examples


@examples(
    "mtl export runs/digits --format onnx",
    "mtl export runs/digits --format safetensors --out digits.safetensors",
)
def export(
    checkpoint: CheckpointFile,
    file_format: Annotated[
        Literal["onnx", "safetensors", "torch-export", "peft"],
        typer.Option(
            "--format",
            metavar="FORMAT",
            help="onnx or torch-export for the whole computation, safetensors for the weights by name, peft for the "
            "adapters.",
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="File to write, or folder for peft. Default: next to the checkpoint, with the format's suffix.",
        ),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(metavar="TASK", help="Export one task of a model with adapters, merged into the weights."),
    ] = None,
    base: BasePath = None,
    json: Json = False,
    plugin: Plugins = None,
) -> None:
    """Export a trained model to ONNX, safetensors or torch.export, or its adapters. Needs no data.

    FILE.json next to the file describes the model's inputs and outputs. The same description is in the metadata of the
    file itself (onnx: metadata_props; torch-export: the extra file model.json; safetensors: metadata).

    Inputs: one float32 tensor for each dataset, with raw values. Images have their stored values, such as 0 to 255.
    Tables have one value for each column, in the described order: a number minus the column's offset, or NaN if it is
    missing (replaced by the mean of the training rows, as in `mtl eval`); a category as its code, which is 2 + its
    position among the column's levels, 1 if it is missing and 0 if it is unknown.

    Outputs: one tensor for each task, with the logits of the classes in the described order (apply softmax or sigmoid
    for probabilities), or the predicted value in the target's units.

    Low-rank adapters are merged into the weights, those that differ by task with --task. The format peft is a folder
    that peft.PeftModel.from_pretrained loads for the model that the trunk is made of, with the heads beside it; where
    the adapters differ by task, it has a folder for each task.
    """
    from mtlcli.cli.output import print_json
    from mtlcli.errors import ConfigError
    from mtlcli.files import given_path, quote_path
    from mtlcli.training.assembly.build import rebuild
    from mtlcli.training.checkpoint.experiment import experiment_from_checkpoint
    from mtlcli.training.checkpoint.file import load_checkpoint
    from mtlcli.training.run_folder import checkpoint_of

    base = None if base is None else given_path(base, "--base")
    checkpoint = checkpoint_of(given_path(checkpoint, "checkpoint"))
    if out is not None:
        out = given_path(out, "--out")
        if out.is_dir() and file_format != "peft":
            raise ConfigError(f"--out {quote_path(out)}: is a folder; give the file to write")
        if out.exists() and not out.is_dir() and file_format == "peft":
            raise ConfigError(f"--out {quote_path(out)}: is a file; give a folder")
        if not out.parent.is_dir():
            raise ConfigError(f"--out {quote_path(out)}: the folder {quote_path(out.parent)} does not exist")
    payload = load_checkpoint(checkpoint)
    experiment = experiment_from_checkpoint(payload, ["training.device=cpu"], checkpoint, data=False)
    if experiment.adapters is None and (file_format == "peft" or task is not None):
        given = "--format peft" if file_format == "peft" else "--task"
        raise ConfigError(f"{given}: the model has no adapters")
    run = rebuild(experiment, payload, data=False, base_path=base)

    from mtlcli.training.export import (
        SUFFIXES,  # torch's exporters take seconds to import
        describe,
        description_path,
    )
    from mtlcli.training.export import export as write

    document: dict[str, Any] = {"checkpoint": str(checkpoint), "format": file_format}
    if file_format == "peft":
        from mtlcli.training.adapter_export import DESCRIPTION, export_adapters

        if task is not None:
            raise ConfigError("--task: the format peft has a folder for each task; leave it out")
        path = out or checkpoint.with_name(f"{checkpoint.stem}-peft")
        folders = export_adapters(run, path, describe(run))
        document |= {"folders": list(map(str, folders)), "description": str(path / DESCRIPTION)}
        files = [file for folder in folders for file in folder.iterdir() if file.suffix == ".safetensors"]
        document |= {"bytes": sum(file.stat().st_size for file in files)}
        lines = [f"{folder}: adapters for peft.PeftModel.from_pretrained, and heads" for folder in folders]
    else:
        if experiment.adapters is not None:
            from mtlcli.training.adapter_export import merged_run

            run = merged_run(run, task, needs_weights=file_format == "safetensors")
        path = out or checkpoint.with_suffix(SUFFIXES[file_format])
        write(run, file_format, path)
        parameters, size = run.model.count_parameters()["total"], path.stat().st_size
        document |= {"file": str(path), "description": str(description_path(path)), "bytes": size}
        document |= {"parameters": parameters}
        lines = [f"{path}: {size:,} bytes, {parameters:,} parameters"]
    if json:
        print_json(document)
    else:
        print("\n".join([*lines, f"inputs and outputs: {document['description']}"]))
