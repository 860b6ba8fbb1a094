"""A few images of a split with the targets and the predictions of their pixels, for a figure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mtlcli.data.examples import Examples, LazyInputs, wrap_read_errors
from mtlcli.data.formats.images import ImageFiles
from mtlcli.labels import expand_map, has_label
from mtlcli.specs import at_least_float32
from mtlcli.tasks.base import TaskKind
from mtlcli.text import format_number
from mtlcli.training.checkpoint.file import rng_state, set_rng_state
from mtlcli.training.evaluate import map_targets
from mtlcli.training.run import Run

IMAGES = 4  # of a dataset
SCANNED = 50  # images from each of its places in the split, of which the first with labels is taken
NO_LABEL = "–"

Form = Literal["classes", "probability", "numbers", "normals"]


@dataclass(frozen=True)
class ChosenImages:
    """Images of a dataset and their labels.

    Attributes:
        alias: alias of the dataset.
        names: name of each image: that of its file, or its position in the split.
        inputs: raw inputs of the model, [n, C, H, W].
        maps: task → labels of the pixels as in a batch, [n, H, W] or [n, size, H, W].
        labels: task with a vector of outputs → labels, [n] or [n, size].
    """

    alias: str
    names: list[str]
    inputs: Tensor
    maps: dict[str, Tensor]
    labels: dict[str, Tensor]


@dataclass(frozen=True)
class TaskMaps:
    """Targets and predictions of a task for n images, on the host.

    Attributes:
        task: name of the task.
        form: what they are: positions of classes, int64 [n, H, W], −1 if missing; the probability of one class, or
            numbers, float32 [n, H, W]; or unit vectors, float32 [n, 3, H, W]. A missing number is NaN.
        target: the targets.
        prediction: the predictions.
        classes: names of the classes; of a probability that of its class; of numbers none.
        channels: number of channels of the target; of several, the largest is drawn.
    """

    task: str
    form: Form
    target: NDArray[Any]
    prediction: NDArray[Any]
    classes: tuple[str, ...] = ()
    channels: int = 1


@dataclass(frozen=True)
class PredictedImages:
    """Images of a dataset with targets and predictions.

    Attributes:
        alias: alias of the dataset.
        images: uint8 [n, H, W, 3].
        captions: lines of text of each image: its name, and prediction and label of each task with a vector of outputs.
        tasks: the tasks that predict maps.
    """

    alias: str
    images: NDArray[np.uint8]
    captions: list[list[str]]
    tasks: list[TaskMaps]


def choose_images(run: Run, split: str) -> list[ChosenImages]:
    """Choose images of each dataset with tasks that predict maps.

    They are evenly spaced over the split; of 50 images from each of these places, the first with labels of all these
    tasks is taken, or else the first with labels of the most.

    Args:
        run: the run.
        split: name of the split.

    Returns:
        The images, by dataset.
    """
    chosen = []
    tasks = map_targets(run)
    for alias in dict.fromkeys(run.sources[task][0] for task in tasks):
        with wrap_read_errors(alias):
            chosen.append(_choose_of(run, alias, run.examples_of(alias, split), list(tasks)))
    return chosen


def _choose_of(run: Run, alias: str, examples: Examples, tasks: list[str]) -> ChosenImages:
    of_alias = {task: target for task, (source, target) in run.label_sources.items() if source == alias}
    keys = list(dict.fromkeys(of_alias[task] for task in tasks if task in of_alias))
    size = len(examples)
    starts = [size * number // min(IMAGES, size) for number in range(min(IMAGES, size))]
    rows = [
        _first_labelled(examples, keys, start, min(stop, start + SCANNED))
        for start, stop in zip(starts, [*starts[1:], size], strict=True)
    ]
    stored = rows if examples.rows is None else examples.rows[rows].tolist()
    types = {of_alias[task]: run.kinds[task].target.type for task in tasks if task in of_alias}
    maps = {key: expand_map(_stack(examples.maps[key], stored), type_) for key, type_ in types.items()}
    vectors = [task for task in of_alias if task not in tasks and run.kinds[task].predicts == "vector"]
    files = examples.inputs.paths if isinstance(examples.inputs, ImageFiles) else None
    return ChosenImages(
        alias,
        [f"image {row + 1}" for row in rows] if files is None else [files[row].name for row in stored],
        _stack(examples.inputs, stored),
        {task: maps[of_alias[task]] for task in tasks if task in of_alias},
        {task: examples.targets[of_alias[task]][stored] for task in vectors},
    )


def _first_labelled(examples: Examples, keys: list[str], start: int, stop: int) -> int:
    """Return the first position of [start, stop) with labels of all targets, or else of the most of them."""
    best, most = start, -1
    for position in range(start, stop):
        row = position if examples.rows is None else int(examples.rows[position])
        labelled = sum(bool(has_label(examples.maps[key][row].unsqueeze(0))) for key in keys)
        if labelled > most:
            best, most = position, labelled
        if most == len(keys):
            break
    return best


def _stack(source: Tensor | LazyInputs, rows: list[int]) -> Tensor:
    return source[rows] if isinstance(source, Tensor) else torch.stack([source[row] for row in rows])


def predict_images(run: Run, chosen: ChosenImages) -> PredictedImages:
    """Predict images with the model as it is, in the precision of the training.

    The states of all random generators, and the mode of the model, are restored afterwards.

    Args:
        run: the run.
        chosen: the images.

    Returns:
        The images with targets and predictions.
    """
    tasks = [*chosen.maps, *chosen.labels]
    random_state, was_training = rng_state(), run.model.training
    run.model.eval()
    try:
        with torch.inference_mode(), run.autocast():
            outputs = run.model({chosen.alias: chosen.inputs.to(run.device)}, tasks)
    finally:
        run.model.train(was_training)
        set_rng_state(random_state)
    outputs = {task: at_least_float32(output).cpu() for task, output in outputs.items()}
    maps = [_task_maps(task, run.kinds[task], outputs[task], target) for task, target in chosen.maps.items()]
    captions = [[name] for name in chosen.names]
    for task, labels in chosen.labels.items():
        for lines, line in zip(captions, _captions(task, run.kinds[task], outputs[task], labels), strict=True):
            lines.append(line)
    return PredictedImages(chosen.alias, _as_colors(chosen.inputs), captions, maps)


def _task_maps(task: str, kind: TaskKind, outputs: Tensor, target: Tensor) -> TaskMaps:
    """Decode the outputs of a task, and bring the targets to the same form."""
    decoded = kind.decode(outputs)
    predicted = decoded.labels
    assert isinstance(predicted, Tensor)
    if kind.target.type == "class_map":
        names = kind.class_names
        return TaskMaps(task, "classes", target.clamp(min=-1).numpy(), predicted.numpy(), names)
    if kind.target.type == "binary_map" and decoded.probabilities is not None:
        names = kind.class_names
        position = 1 if kind.positive is None else names.index(kind.positive)
        ones = target if position == 1 else 1 - target
        return TaskMaps(
            task, "probability", ones.numpy(), decoded.probabilities[:, position].numpy(), names[position:][:1]
        )
    if kind.target.type == "normal_map":
        return TaskMaps(task, "normals", target.numpy(), predicted.float().numpy())
    channels = 1 if target.ndim == 3 else target.shape[1]
    return TaskMaps(task, "numbers", _largest(target), _largest(predicted.float()), channels=channels)


def _largest(values: Tensor) -> NDArray[Any]:
    """Return the largest channel of each pixel, [n, H, W]; NaN if none has a number."""
    if values.ndim == 4:
        highest = values.nan_to_num(nan=-torch.inf).amax(1)
        values = highest.masked_fill(values.isnan().all(1), torch.nan)
    return values.numpy()


def _captions(task: str, kind: TaskKind, outputs: Tensor, labels: Tensor) -> list[str]:
    """Return a line with the prediction for each image, and its label in parentheses."""
    decoded = kind.decode(outputs)
    if isinstance(decoded.labels, Tensor) and decoded.labels.ndim > 1:
        return [task] * len(labels)
    predicted = decoded.labels.tolist() if isinstance(decoded.labels, Tensor) else decoded.labels
    return [
        f"{task}: {_as_text(value)} ({_label_text(kind, label)})"
        for value, label in zip(predicted, labels, strict=True)
    ]


def _label_text(kind: TaskKind, label: Tensor) -> str:
    if not has_label(label.unsqueeze(0)):
        return NO_LABEL
    if kind.target.type == "multilabel":
        return _as_text([name for name, value in zip(kind.class_names, label.tolist(), strict=True) if value == 1])
    return _as_text(label.item() if kind.target.type == "real" else kind.class_names[int(label)])


def _as_text(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or NO_LABEL
    return value if isinstance(value, str) else format_number(value, 3)


def _as_colors(inputs: Tensor) -> NDArray[np.uint8]:
    """Return inputs as images, uint8 [n, H, W, 3]: the first three channels, or the first; floats are scaled."""
    values = inputs[:, : 3 if inputs.shape[1] >= 3 else 1]
    if values.dtype != torch.uint8:
        values = values.float().nan_to_num()
        low, high = values.amin(), values.amax()
        values = (values - low) / (high - low).clamp(min=torch.finfo(torch.float32).tiny) * 255
    return values.to(torch.uint8).expand(-1, 3, -1, -1).permute(0, 2, 3, 1).numpy()


def missing_pixels(maps: TaskMaps, values: NDArray[Any]) -> NDArray[np.bool_]:
    """Mark the pixels without a value, bool [n, H, W].

    Args:
        maps: the task.
        values: its targets or its predictions.

    Returns:
        The mask.
    """
    missing: NDArray[np.bool_] = values < 0 if maps.form == "classes" else np.isnan(values)
    return missing if missing.ndim == 3 else np.logical_or.reduce(missing, 1)
