"""`mtl export CHECKPOINT`: a trained model for use elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from mtlcli.cli.arguments import Json, Plugins


def export(
    checkpoint: Annotated[
        Path, typer.Argument(metavar="CHECKPOINT", help="A .pt file of a run, or the run's folder for its best one.")
    ],
    file_format: Annotated[
        Literal["onnx", "safetensors", "torch-export"],
        typer.Option(
            "--format",
            help="The whole computation (onnx, torch-export), or the weights with their names (safetensors).",
        ),
    ],
    out: Annotated[
        Path | None, typer.Option(help="The file to write; by default beside the checkpoint, with the format's suffix.")
    ] = None,
    json: Json = False,
    plugin: Plugins = None,
) -> None:
    """Write a trained model to a file that other software reads. Needs no data.

    What goes into the model and what comes out is described in FILE.json beside the file, and in the metadata of the
    file itself (onnx: metadata_props; torch-export: the extra file model.json; safetensors: metadata).

    Inputs are raw float32, one tensor for each dataset. Images: the values as they are stored, such as 0 to 255. A
    table: one value for each column, in the described order. A number is given less the column's offset, or as NaN
    where it is missing, which counts as the mean of the training rows, as in `mtl eval`. A category is given as its
    code: 2 + its position among the column's levels, 1 where it is missing, 0 for any other.

    Outputs, one for each task: logits of the classes in the described order (softmax or sigmoid makes them
    probabilities), or the predicted value in the target's own units.
    """
    from mtlcli.cli.output import print_json
    from mtlcli.errors import ConfigError
    from mtlcli.files import given_path, shown_path
    from mtlcli.training.assembly.build import rebuild
    from mtlcli.training.checkpoint.experiment import experiment_from_checkpoint
    from mtlcli.training.checkpoint.file import load_checkpoint
    from mtlcli.training.run_folder import checkpoint_of

    checkpoint = checkpoint_of(given_path(checkpoint, "checkpoint"))
    if out is not None:
        out = given_path(out, "--out")
        if out.is_dir():
            raise ConfigError(f"--out {shown_path(out)}: a folder; name the file to write")
        if not out.parent.is_dir():
            raise ConfigError(f"--out {shown_path(out)}: the folder {shown_path(out.parent)} does not exist")
    payload = load_checkpoint(checkpoint)
    experiment = experiment_from_checkpoint(payload, ["training.device=cpu"], checkpoint, data=False)
    run = rebuild(experiment, payload, data=False)

    from mtlcli.training.export import (
        SUFFIXES,  # torch's exporters take seconds to import
        described,
    )
    from mtlcli.training.export import export as write

    path = out or checkpoint.with_suffix(SUFFIXES[file_format])
    write(run, file_format, path)
    document = {
        "checkpoint": str(checkpoint),
        "format": file_format,
        "file": str(path),
        "description": str(described(path)),
        "bytes": path.stat().st_size,
        "parameters": run.model.count_parameters()["total"],
    }
    if json:
        print_json(document)
    else:
        print(f"{path}: {document['bytes']:,} bytes, {document['parameters']:,} parameters")
        print(f"inputs and outputs: {document['description']}")
