"""A trained model for use elsewhere."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch._dynamo.exc import TorchDynamoException
from torch.onnx import OnnxExporterError

from mtlcli.errors import ConfigError
from mtlcli.training.files import atomic
from mtlcli.training.from_checkpoint import publishable
from mtlcli.training.run import Run

Format = Literal["onnx", "safetensors", "torch-export"]
SUFFIXES: dict[Format, str] = {"onnx": ".onnx", "safetensors": ".safetensors", "torch-export": ".pt2"}
assert list(SUFFIXES) == list(get_args(Format))


def export(run: Run, file_format: Format, path: Path) -> None:
    """Write the model of a run on the CPU, in evaluation mode, to `path`.

    `torch-export` and `onnx` hold the whole computation: a dict of raw inputs, alias of the dataset → [B, *input_shape]
    float32 with any B, to a dict of outputs, task → [B, outputs] (logits of a class, a label; a real target in its own
    units). `safetensors` holds the weights by their names in the state dict, and in its metadata the experiment, as
    `publishable` tells it, and the datasets' specs, as JSON.
    ConfigError where a format's package is missing, or it can't hold the model.
    """
    run.model.eval().requires_grad_(False)
    writers: dict[Format, Callable[[Run, Path], None]] = {
        "onnx": _onnx,
        "safetensors": _safetensors,
        "torch-export": _torch_export,
    }
    try:
        # torch's exporters warn of what they are made of, not of anything the user can change
        with atomic(path) as temporary, warnings.catch_warnings(action="ignore"):
            writers[file_format](run, temporary)
    except ImportError as error:
        raise ConfigError(
            f"--format {file_format} needs the package {error.name!r}: pip install 'mtlcli[export]'"
        ) from error
    except (RuntimeError, TorchDynamoException, OnnxExporterError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise ConfigError(f"--format {file_format}: torch can't take this model: {reason}") from error


class _Predictor(nn.Module):
    """The model with the one argument an exported program has."""

    def __init__(self, run: Run) -> None:
        super().__init__()
        self.model = run.model

    def forward(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        return self.model(inputs)  # type: ignore[no-any-return]


def _example(run: Run) -> dict[str, Tensor]:
    """Raw inputs of every dataset; the sizes of their batches are left open in the program."""
    return {alias: torch.zeros(2 + at, *spec.input_shape) for at, (alias, spec) in enumerate(run.specs.items())}


def _program(run: Run) -> torch.export.ExportedProgram:
    inputs = _example(run)
    sizes = {alias: {0: torch.export.Dim(f"batch_{at}")} for at, alias in enumerate(inputs)}
    return torch.export.export(_Predictor(run), (inputs,), dynamic_shapes=(sizes,))


def _torch_export(run: Run, path: Path) -> None:
    with path.open("wb") as file:  # torch's own writer aborts the process on a name that isn't UTF-8
        torch.export.save(_program(run), file)


def _onnx(run: Run, path: Path) -> None:
    import onnx  # noqa: F401  what torch's exporter needs, before it starts
    import onnxscript  # noqa: F401

    names: dict[str, Any] = {"input_names": list(run.specs), "output_names": list(run.kinds)}
    made = torch.onnx.export(_program(run), (), dynamo=True, verbose=False, **names)
    assert made is not None
    made.save(path, external_data=False)


def _safetensors(run: Run, path: Path) -> None:
    from safetensors.torch import save_file

    told = {"experiment": publishable(run.experiment), "specs": {a: spec.to_dict() for a, spec in run.specs.items()}}
    weights = {name: value.contiguous() for name, value in run.model.state_dict().items()}
    save_file(weights, path, metadata={"format": "pt", **{key: json.dumps(value) for key, value in told.items()}})
