"""`mtl predict`: predictions of a trained model for unlabelled examples."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from mtlcli.cli.arguments import BasePath, CheckpointFile, Json, Plugins, examples


@examples(
    "mtl predict runs/digits images.npy --out predictions.csv",
    "mtl predict runs/digits images.npy --tasks digit,parity --probabilities",
)
def predict(
    checkpoint: CheckpointFile,
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT...",
            help="Tables, image files, folders of images, or .npy arrays of raw inputs, as the model's dataset takes.",
        ),
    ],
    out: Annotated[
        str | None,
        typer.Option(
            metavar="PATH",
            help="File to write: .csv, .jsonl, .parquet, or .npy for features. Default: CSV on stdout. If a task has a"
            " prediction for each pixel: the folder of their files and of predictions.csv.",
        ),
    ] = None,
    tasks: Annotated[
        str | None,
        typer.Option(metavar="TASKS", help="Tasks to predict, separated by commas. Default: all on the dataset."),
    ] = None,
    dataset: Annotated[
        str | None, typer.Option(metavar="ALIAS", help="Dataset of the inputs, if the model has several.")
    ] = None,
    probabilities: Annotated[
        bool, typer.Option("--probabilities", help="Write the probability of each class too, as TASK[CLASS].")
    ] = False,
    features: Annotated[
        bool, typer.Option("--features", help="Write the representation that the tasks' heads are applied to.")
    ] = False,
    on_error: Annotated[
        Literal["stop", "skip"],
        typer.Option("--on-error", metavar="stop|skip", help="Stop at the first faulty example, or leave it out."),
    ] = "stop",
    maps: Annotated[
        Literal["png", "npy"] | None,
        typer.Option(
            metavar="png|npy",
            help="Files of the predictions for pixels: images (classes with 8 bits and a palette, depth with 16 bits,"
            " normals as RGB), or NumPy arrays of exact values. Default: png.",
        ),
    ] = None,
    depth_scale: Annotated[
        float | None, typer.Option(metavar="N", help="Number in a PNG file for a depth of 1. Default: 1000.")
    ] = None,
    device: Annotated[str, typer.Option(metavar="DEVICE", help="Device: auto, cpu, cuda, cuda:1, mps.")] = "auto",
    base: BasePath = None,
    json: Json = False,
    plugin: Plugins = None,
) -> None:
    """Predict the labels of new examples, in their order, in constant memory. Needs no labels.

    The output has one column for each task: the name of the class, the names of several labels separated by
    semicolons, or a number in the target's unit. Images have a column `file`; tables have the columns `file` and `row`
    if there are several, or if rows may be skipped. A task with a prediction for each pixel has the paths of files in
    the folder --out, in the size of the images.
    """
    import sys

    from mtlcli.api.file_prediction import predict_files
    from mtlcli.api.trained_model import load
    from mtlcli.cli.output import print_json
    from mtlcli.cli.progress import watch, watch_rows
    from mtlcli.errors import ConfigError
    from mtlcli.files import given_path, quote_path

    if json and out is None:
        raise ConfigError("--json needs --out, since both the predictions and the JSON document would go to stdout")
    target = None if out is None else given_path(out, "--out")
    paths = [given_path(path, "INPUT") for path in inputs]
    watch()
    model = load(checkpoint, device=device, base=base)
    chosen = None if tasks is None else [task.strip() for task in tasks.split(",") if task.strip()]
    with watch_rows() as poll:
        written = predict_files(
            model, paths, target, sys.stdout, dataset=dataset, tasks=chosen, probabilities=probabilities,
            features=features, on_error=on_error, maps=maps, depth_scale=depth_scale,
            poll=poll,
        )  # fmt: skip
    if json:
        print_json({"checkpoint": str(checkpoint), "out": str(target), **written.to_dict()})
        return
    rate = written.rows / written.seconds
    skipped = f", {written.skipped:,} skipped" if written.skipped else ""
    where = "" if target is None else f"{quote_path(target)}: "
    print(
        f"{where}{written.rows:,} {'row' if written.rows == 1 else 'rows'}{skipped}, {rate:,.0f} rows/s",
        file=sys.stderr,
    )
