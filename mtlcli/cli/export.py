"""`mtl export`: conversion of a trained model to other formats."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from mtlcli.cli.arguments import BasePath, CheckpointFile, Json, Plugins, examples


@examples(
    "mtl export runs/digits --format onnx",
    "mtl export runs/digits --format safetensors --out digits.safetensors",
)
def export(
    checkpoint: CheckpointFile,
    file_format: Annotated[
        Literal["onnx", "safetensors", "torch-export"],
        typer.Option(
            "--format",
            metavar="FORMAT",
            help="onnx or torch-export for the whole computation, safetensors for the weights by name.",
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="File to write. Default: next to the checkpoint, with the format's suffix."),
    ] = None,
    base: BasePath = None,
    json: Json = False,
    plugin: Plugins = None,
) -> None:
    """Export a trained model to ONNX, safetensors or torch.export. Needs no data.

    FILE.json next to the file describes the model's inputs and outputs. The same description is in the metadata of the
    file itself (onnx: metadata_props; torch-export: the extra file model.json; safetensors: metadata).

    Inputs: one float32 tensor for each dataset, with raw values. Images have their stored values, such as 0 to 255.
    Tables have one value for each column, in the described order: a number minus the column's offset, or NaN if it is
    missing (replaced by the mean of the training rows, as in `mtl eval`); a category as its code, which is 2 + its
    position among the column's levels, 1 if it is missing and 0 if it is unknown.

    Outputs: one tensor for each task, with the logits of the classes in the described order (apply softmax or sigmoid
    for probabilities), or the predicted value in the target's units.
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
        if out.is_dir():
            raise ConfigError(f"--out {quote_path(out)}: is a folder; give the file to write")
        if not out.parent.is_dir():
            raise ConfigError(f"--out {quote_path(out)}: the folder {quote_path(out.parent)} does not exist")
    payload = load_checkpoint(checkpoint)
    experiment = experiment_from_checkpoint(payload, ["training.device=cpu"], checkpoint, data=False)
    run = rebuild(experiment, payload, data=False, base_path=base)

    from mtlcli.training.export import (
        SUFFIXES,  # torch's exporters take seconds to import
        description_path,
    )
    from mtlcli.training.export import export as write

    path = out or checkpoint.with_suffix(SUFFIXES[file_format])
    write(run, file_format, path)
    document = {
        "checkpoint": str(checkpoint),
        "format": file_format,
        "file": str(path),
        "description": str(description_path(path)),
        "bytes": path.stat().st_size,
        "parameters": run.model.count_parameters()["total"],
    }
    if json:
        print_json(document)
    else:
        print(f"{path}: {document['bytes']:,} bytes, {document['parameters']:,} parameters")
        print(f"inputs and outputs: {document['description']}")
