"""Export of a trained model to ONNX, safetensors and torch.export."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch._dynamo.exc import TorchDynamoException
from torch.onnx import OnnxExporterError

from mtlcli.data.formats.numerals import ISO
from mtlcli.data.formats.text_features import describe_texts
from mtlcli.errors import ConfigError
from mtlcli.files import atomic_write, write_text
from mtlcli.models.inputs import blank_texts
from mtlcli.specs import FIRST, MISSING, UNKNOWN, Column, DatasetSpec
from mtlcli.tasks.base import TaskKind
from mtlcli.training.checkpoint.experiment import publishable
from mtlcli.training.raw_input_model import Cleaned, RawInputModel
from mtlcli.training.run import Run
from mtlcli.training.run_folder import to_json
from mtlcli.training.text_export import describe_text_input, dynamic_lengths, tokenizer_path
from mtlcli.version import __version__

__all__ = ["INTERFACE", "SUFFIXES", "Cleaned", "Format", "describe", "description_path", "export", "interface"]

Format = Literal["onnx", "safetensors", "torch-export"]
SUFFIXES: dict[Format, str] = {"onnx": ".onnx", "safetensors": ".safetensors", "torch-export": ".pt2"}
INTERFACE = "model.json"  # name of the extra file in a torch-export file
LONGEST = 255  # maximum length of a file name in bytes
TOKENS = 8  # of each text in the example of a program
assert list(SUFFIXES) == list(get_args(Format))


def export(run: Run, file_format: Format, path: Path) -> None:
    """Write the model of a run on the CPU, in evaluation mode, to a file.

    `torch-export` and `onnx` hold the whole computation, from a dict of raw inputs (alias of the dataset →
    [B, *input_shape], float32, any B; the tokens of texts, int32 [B, 2, L], any L) to a dict of outputs (task →
    [B, outputs], or [B, outputs, H, W] of a map: logits of classes or labels, or the prediction of a real target in
    its own units). In the inputs of a table, NaN is a missing number, and a value that isn't the code of a category is
    a category not seen in training. `safetensors` holds the weights by their names in the state dict, and the specs of
    the datasets as JSON in its metadata.

    Each file has the description that `interface` returns as JSON: `onnx` in `metadata_props` and `safetensors` in its
    metadata, with one entry for each key; `torch-export` as the extra file `model.json`. It is also written to
    `description_path(path)`, and the tokenizer of texts to `tokenizer_path(path)`.

    Args:
        run: the run, with the trained model.
        file_format: the format.
        path: the file to write.

    Raises:
        ConfigError: if a package of the format is missing, or the format can't represent the model.
    """
    if file_format != "safetensors" and (tasks := [task for task, kind in run.kinds.items() if kind.generates]):
        raise ConfigError(
            f"--format {file_format}: task {tasks[0]!r} generates a text token by token, which is no program of one "
            "pass through the model; use --format safetensors"
        )
    description = describe(run)
    run.model.requires_grad_(False)
    writers: dict[Format, Callable[[Run, dict[str, Any], Path], None]] = {
        "onnx": _onnx,
        "safetensors": _safetensors,
        "torch-export": _torch_export,
    }
    try:
        # torch's exporters warn about their own internals, which the user can't change
        with atomic_write(path) as temporary, warnings.catch_warnings(action="ignore"):
            writers[file_format](run, description, temporary)
    except ImportError as error:
        raise ConfigError(
            f"--format {file_format} needs the package {error.name!r}: pip install 'mtlcli[export]'"
        ) from error
    except (RuntimeError, AssertionError, TorchDynamoException, OnnxExporterError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise ConfigError(f"--format {file_format}: torch can't take this model: {reason}") from error
    write_text(description_path(path), to_json(description))
    if run.base is not None and run.base.tokenizer is not None:
        write_text(tokenizer_path(path), run.base.tokenizer)


def describe(run: Run) -> dict[str, Any]:
    """Return the description of the model's inputs and outputs, see `interface`; puts the model in evaluation mode."""
    run.model.eval()
    with torch.no_grad():
        description: dict[str, Any] = json.loads(to_json(interface(run, run.model(_example(run)))))
    return description


def description_path(path: Path) -> Path:
    """Return the path of the description of an exported file: `best.onnx` → `best.onnx.json`."""
    name = os.fsencode(path.name)[: LONGEST - len(".json")]
    return path.with_name(os.fsdecode(name) + ".json")


def _example(run: Run) -> dict[str, Tensor]:
    """Return raw inputs of every dataset; the exported program accepts any batch size, and texts of any length."""
    return {
        alias: torch.zeros(2 + at, *spec.input_shape) if spec.text is None else blank_texts(spec.text, 2 + at, TOKENS)
        for at, (alias, spec) in enumerate(run.specs.items())
    }


def _program(run: Run) -> torch.export.ExportedProgram:
    inputs = _example(run)
    lengths = dynamic_lengths(run.specs, inputs)
    sizes = {alias: {0: torch.export.Dim(f"batch_{at}"), **lengths.get(alias, {})} for at, alias in enumerate(inputs)}
    return torch.export.export(RawInputModel(run.model, run.specs), (inputs,), dynamic_shapes=(sizes,))


def _torch_export(run: Run, description: dict[str, Any], path: Path) -> None:
    with path.open("wb") as file:  # torch's own writer aborts the process on a name that isn't UTF-8
        torch.export.save(_program(run), file, extra_files={INTERFACE: json.dumps(description)})


def _onnx(run: Run, description: dict[str, Any], path: Path) -> None:
    import onnx  # noqa: F401  torch's exporter needs both; imported first for a clear error
    import onnxscript  # noqa: F401

    names: dict[str, Any] = {"input_names": list(run.specs), "output_names": list(run.kinds)}
    program = torch.onnx.export(_program(run), (), dynamo=True, verbose=False, **names)
    assert program is not None
    program.model.metadata_props.update({key: json.dumps(value) for key, value in description.items()})
    program.save(path, external_data=False)


def _safetensors(run: Run, description: dict[str, Any], path: Path) -> None:
    from safetensors.torch import save_file

    description = {**description, "specs": {alias: spec.to_dict() for alias, spec in run.specs.items()}}
    weights = {name: value.contiguous() for name, value in run.model.state_dict().items()}
    save_file(
        weights, path, metadata={"format": "pt", **{key: json.dumps(value) for key, value in description.items()}}
    )


NUMERIC = (
    "float32 of x - offset, subtracted in float64; NaN if the number is missing, which the model replaces by the mean "
    "of the training rows"
)
CATEGORICAL = (
    "the position in levels, plus 2; 0 for a category that is not in levels, 1 if it is missing. A number that is "
    "no such code counts as 0. If all levels are numbers, any spelling of the same number is the same category"
)
TEXT = (
    "v / |v| with v = HashingVectorizer(n_features=features, ngram_range=(1, ngrams), norm=None, "
    "token_pattern=r'(?u)\\b\\w+\\b') of scikit-learn, times idf, from position to position + features - 1; 0 for a "
    "missing text"
)
RAW = (
    "raw values, as in the dataset: the model itself subtracts the mean and divides by the standard deviation. "
    "Do not normalize them, and do not divide images by 255"
)


def interface(run: Run, outputs: Mapping[str, Tensor]) -> dict[str, Any]:
    """Describe the model's inputs and outputs.

    Args:
        run: the run.
        outputs: task → outputs of the model for an example, which give the types.

    Returns:
        The content of the `.json` file of an exported model, as plain data.
    """
    sources = run.sources
    return {
        "name": run.experiment.name,
        "mtlcli": __version__,
        "inputs": {alias: _input(run, alias, spec) for alias, spec in run.specs.items()},
        "outputs": {
            task: {
                "dataset": sources[task][0],
                "target": sources[task][1],
                "kind": run.experiment.tasks[task].kind.name,
                "shape": ["batch", *_shape(kind, run.specs[sources[task][0]])],
                "dtype": str(outputs[task].dtype).removeprefix("torch."),
                **_meaning(kind),
            }
            for task, kind in run.kinds.items()
        },
        "experiment": publishable(run.experiment),
    }


def _input(run: Run, alias: str, spec: DatasetSpec) -> dict[str, Any]:
    entry = run.experiment.datasets[alias]
    description = {"dataset": entry.name, "shape": ["batch", *spec.input_shape], "dtype": "float32"}
    if spec.text is not None:
        return {**description, **describe_text_input(spec.text)}
    if spec.columns:
        dates = entry.options.get("dates", [])
        columns = [{"position": at, **_column(column)} for at, column in enumerate(spec.columns) if column.text is None]
        booleans = dict(run.datasets[alias].notation.booleans)
        for column in columns:
            if column["name"] in dates and column["type"] == "number":
                form = dates[column["name"]] if isinstance(dates, dict) else ISO
                column["date"] = f"{form}; x is the number of days since 1970-01-01 00:00 UTC"
            if column["name"] in booleans and column["type"] == "number":
                column["boolean"] = "x is 1 for {}, 0 for {}".format(*(booleans[column["name"]] or ("true", "false")))
        encoding = {"number": NUMERIC, "category": CATEGORICAL}
        if len(columns) < len(spec.columns):
            encoding["text"] = TEXT
            columns += describe_texts(spec.columns)
        return {**description, "encoding": encoding, "columns": columns}
    description = {**description, "encoding": RAW, "mean": list(spec.mean), "std": list(spec.std)}
    dataset = run.datasets[alias]
    if dataset.value_range is not None:
        description["range"] = list(dataset.value_range)
    if preparation := dataset.preparation():
        description["preparation"] = preparation
    return description


def _column(column: Column) -> dict[str, Any]:
    if column.levels is None:
        return {
            "name": column.name,
            "type": "number",
            "offset": column.offset,
            "mean": column.offset + column.mean,
            "std": column.std,
        }
    codes = {"unknown": UNKNOWN, "missing": MISSING, "first": FIRST}
    return {"name": column.name, "type": "category", "codes": codes, "levels": list(column.levels)}


def _shape(kind: TaskKind, spec: DatasetSpec) -> list[int | str]:
    """Return the shape of the output for one example; a dimension that isn't fixed has a name."""
    if kind.predicts == "map":
        return [kind.outputs, *spec.input_shape[1:]]
    if kind.predicts == "sequence":
        return ["tokens", kind.outputs]
    layer = kind.output_layer()
    if not kind.pairs or layer is None:
        return [kind.outputs]
    vectors = layer(torch.zeros(2, kind.outputs or 1))
    return [1] if vectors.ndim == 2 else [2, kind.outputs or "features"]


def _meaning(kind: TaskKind) -> dict[str, Any]:
    """Describe the meaning of a task's outputs, and the class of each."""
    if kind.probabilities is None:
        columns = None if kind.pairs else kind.decode(torch.zeros(1, kind.outputs)).columns
        description: dict[str, Any] = {"values": "predictions", "probabilities": None, "classes": None}
        return description if columns is None else {**description, "columns": list(columns)}
    description = {"values": "logits", "probabilities": kind.probabilities, "classes": list(kind.class_names)}
    return description if kind.positive is None else {**description, "positive": kind.positive}
