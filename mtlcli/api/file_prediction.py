"""Predictions for files of unlabelled examples: the code of `mtl predict`."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any, Literal

import torch
from torch import Tensor

from mtlcli.api.map_options import TABLE, MapFormat, check_map_options
from mtlcli.api.prediction_files import OutputColumn, check_output, open_writer
from mtlcli.api.prediction_inputs import Faults, Piece, read_inputs
from mtlcli.api.prediction_maps import DEPTH_SCALE, PredictionMaps
from mtlcli.api.predictions import decode_predictions
from mtlcli.api.text_batches import WINDOW, compute_in_order
from mtlcli.api.trained_model import Model
from mtlcli.data.formats.text_rows import TextRows
from mtlcli.data.formats.token_rows import TokenRows
from mtlcli.errors import ConfigError, suggest
from mtlcli.text import join_names
from mtlcli.training.evaluate import evaluation_batch_size

Poll = Callable[[int], None]
"""Called after each batch with the number of rows written so far."""


@dataclass(frozen=True)
class WrittenPredictions:
    """Result of predicting files.

    Attributes:
        rows: Number of examples predicted.
        skipped: Number of examples that could not be read.
        tasks: The predicted tasks.
        dataset: Alias of the dataset whose tasks were predicted.
        seconds: Time from the first file to the last row.
    """

    rows: int
    skipped: int
    tasks: list[str]
    dataset: str
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Return the attributes by name, for JSON."""
        return asdict(self)


def predict_files(
    model: Model,
    inputs: Sequence[Path],
    out: Path | None,
    stdout: IO[str],
    *,
    dataset: str | None = None,
    tasks: Sequence[str] | None = None,
    probabilities: bool = False,
    features: bool = False,
    on_error: Literal["stop", "skip"] = "stop",
    maps: MapFormat | None = None,
    depth_scale: float | None = None,
    poll: Poll | None = None,
) -> WrittenPredictions:
    """Predict the examples in files, in their order, in memory that doesn't depend on their number.

    The examples pass the model in batches of `evaluation.batch_size`, so that predictions for the rows of a split are
    those that `mtl eval` scores.

    Args:
        model: The model.
        inputs: Tables for a model of a table; image files or folders of images for a model of images; `.npy` arrays of
            raw inputs for both.
        out: File to write, see `prediction_files`; None for CSV on `stdout`. If a task has a prediction for each pixel,
            the folder of the files that `prediction_maps` describes, and of a table with their paths.
        stdout: Text stream.
        dataset: Alias of the dataset that the inputs belong to; needed if the model has several.
        tasks: Tasks to predict; by default all on the dataset.
        probabilities: Write the probability of each class or label too, in columns `TASK[CLASS]`.
        features: Write the representation that the heads are applied to, in a column `features`; `features[TASK]` for
            each task if they differ.
        on_error: `stop` at the first example that can't be read, or `skip` it.
        maps: Format of the predictions for pixels; `png` by default.
        depth_scale: Number in a PNG file for the distance 1; 1000 by default.
        poll: Called after each batch.

    Returns:
        Numbers of rows, and the time.

    Raises:
        ConfigError: An input can't be read, or the dataset, a task or the output file is invalid.
    """
    alias = _choose_dataset(model, dataset)
    chosen = _choose_tasks(model, alias, tasks)
    if features and any(model.kinds[task].generates for task in chosen):
        raise ConfigError(f"--features: task {chosen[0]!r} generates texts, and has no head that features are input of")
    _check_sequences(model, chosen, probabilities, features)
    of_pixels = [task for task in chosen if model.kinds[task].predicts == "map"]
    check_map_options(of_pixels, out, features, maps, depth_scale)
    files = None
    if out is not None and of_pixels:
        scale = DEPTH_SCALE if depth_scale is None else depth_scale
        files = PredictionMaps(out, model, alias, of_pixels, inputs, maps or "png", scale, probabilities)
        out = files.make_folder() / TABLE
    elif out is not None:
        check_output(out, features)
        if out.exists() and any(path.exists() and path.samefile(out) for path in inputs):
            raise ConfigError(f"--out {out}: is one of the inputs")
    start, rows = time.perf_counter(), 0
    faults = Faults(on_error == "skip")
    numbered = [
        path
        for path in inputs
        if model.specs[alias].columns or model.specs[alias].text or path.suffix.lower() == ".npy"
    ]
    named = len(inputs) > 1 or on_error == "skip"
    identifiers = [*(["file"] if named or not numbered else []), *(["row"] if named and numbered else [])]
    with open_writer(out, stdout) as writer:
        size = evaluation_batch_size(model.experiment, model.kinds)
        read = size * WINDOW if model.specs[alias].text is not None else size
        for piece in read_inputs(inputs, model.stored_datasets[alias], model.specs[alias], faults, read):
            columns = _identify(piece, identifiers)
            tokens = model.tokenize(alias, piece.inputs) if isinstance(piece.inputs, TextRows) else None
            outputs = _compute(partial(model.compute, alias, tasks=chosen), piece.inputs, tokens, size)
            for task in chosen:
                if files is not None and task in of_pixels:
                    columns += files.write(task, outputs[task], piece)
                else:
                    columns += _decode(model, task, outputs[task], tokens, probabilities)
            if features:
                columns += _features(_compute(partial(_represent, model, alias, chosen), piece.inputs, tokens, size))
            writer.write(columns)
            rows += len(piece)
            if poll is not None:
                poll(rows)
        if not rows:
            raise ConfigError(f"{join_names([str(path) for path in inputs])}: no example could be read")
    if files is not None:
        files.warn()
    return WrittenPredictions(rows, faults.skipped, chosen, alias, time.perf_counter() - start)


def _choose_dataset(model: Model, dataset: str | None) -> str:
    aliases = list(model.specs)
    if dataset is None:
        if len(aliases) > 1:
            raise ConfigError(f"the model has the datasets {join_names(aliases)}; choose one with --dataset")
        return aliases[0]
    if dataset not in aliases:
        hint = suggest(dataset, aliases)
        raise ConfigError(f"--dataset: the model has no dataset {dataset!r}.{hint} It has: {join_names(aliases)}")
    return dataset


def _choose_tasks(model: Model, alias: str, tasks: Sequence[str] | None) -> list[str]:
    offered = [task for task, (source, _) in model.sources.items() if source == alias]
    if tasks is None:
        return offered
    for task in tasks:
        if task not in offered:
            where = f" on dataset {alias!r}" if task in model.sources else ""
            hint = suggest(task, offered)
            raise ConfigError(f"--tasks: the model has no task {task!r}{where}.{hint} It has: {join_names(offered)}")
    return list(dict.fromkeys(tasks))


def _check_sequences(model: Model, tasks: Sequence[str], probabilities: bool, features: bool) -> None:
    """Check that what is written has a value for each example."""
    for task in tasks:
        if model.kinds[task].target.type == "tags" and (probabilities or features):
            option = "--probabilities" if probabilities else "--features"
            raise ConfigError(
                f"{option}: the task {task!r} has a prediction for each word, and no single value for an example; "
                "choose other tasks with --tasks"
            )


def _identify(piece: Piece, names: Sequence[str]) -> list[OutputColumn]:
    """Return the columns that identify rows, whose names are `file` and `row`."""
    columns = OutputColumn("file", "text", piece.files), OutputColumn("row", "integer", piece.rows)
    return [column for column in columns if column.name in names]


def _decode(
    model: Model, task: str, outputs: Tensor, tokens: TokenRows | None, probabilities: bool
) -> list[OutputColumn]:
    """Decode outputs in float64, in which probabilities near 0 and 1 keep the order of their logits."""
    kind, name = model.kinds[task], model.experiment.tasks[task].kind.name
    predicted = decode_predictions(task, name, kind, outputs.double(), tokens)
    labels = predicted.labels
    if kind.target.type == "tags" and not isinstance(labels, Tensor):
        return [OutputColumn(task, "words", labels)]
    if isinstance(labels, Tensor):
        if predicted.columns is None:
            return [OutputColumn(task, "number", labels.tolist())]
        return [
            OutputColumn(f"{task}[{name}]", "number", values.tolist())
            for name, values in zip(predicted.columns, labels.unbind(1), strict=True)
        ]
    several = bool(labels) and isinstance(labels[0], list)
    columns = [OutputColumn(task, "texts" if several else "text", labels)]
    if probabilities and predicted.probabilities is not None and predicted.classes is not None:
        columns += [
            OutputColumn(f"{task}[{name}]", "number", values.tolist())
            for name, values in zip(predicted.classes, predicted.probabilities.unbind(1), strict=True)
        ]
    return columns


def _compute(
    compute: Callable[[Tensor], dict[str, Tensor]], inputs: Tensor | TextRows, tokens: TokenRows | None, size: int
) -> dict[str, Tensor]:
    """Compute on a batch of inputs, or on texts in several batches."""
    if tokens is not None:
        return compute_in_order(tokens, size, compute)
    assert isinstance(inputs, Tensor)
    return compute(inputs)


def _represent(model: Model, alias: str, tasks: Sequence[str], inputs: Tensor) -> dict[str, Tensor]:
    """Return the representations of a batch: by task, or under "" if all tasks have the same."""
    with torch.no_grad():
        by_task = model.network.representations({alias: inputs.to(model.device)}, tasks)
    texts = model.specs[alias].text
    if texts is not None and texts.separate:  # the features of the first text, then those of the second
        joined = {id(x): x.reshape(len(inputs), -1) for x in by_task.values()}
        by_task = {task: joined[id(x)] for task, x in by_task.items()}
    first = by_task[tasks[0]]
    if all(features is first for features in by_task.values()):
        return {"": first.float().cpu()}
    return {task: by_task[task].float().cpu() for task in tasks}


def _features(by_task: dict[str, Tensor]) -> list[OutputColumn]:
    return [
        OutputColumn(f"features[{task}]" if task else "features", "vector", features.numpy())
        for task, features in by_task.items()
    ]
