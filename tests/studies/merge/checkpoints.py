"""Checkpoints of small single-task runs: their initial weights, changed by noise in place of training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mtlcli.config import experiment_from_dict
from mtlcli.studies.merge.source_runs import SourceRun, read_sources
from mtlcli.training.assembly.build import build
from mtlcli.training.checkpoint.file import save_checkpoint
from mtlcli.training.state import new_state

KINDS = {"digit": "classification", "parity": "binary", "ink": "regression"}
CNN = {"name": "cnn", "widths": [4], "depth": 1, "features": 8}
MLP = {"name": "mlp", "hidden": [16], "features": 8}


def config(*tasks: str, **changes: Any) -> dict[str, Any]:
    return {
        "name": "-".join(tasks),
        "datasets": {"digits": {"name": "digits"}},
        "tasks": {task: {"dataset": "digits", "kind": KINDS[task]} for task in tasks},
        "trunk": MLP,
        "training": {"epochs": 1, "batch_size": 200, "device": "cpu", "threads": 1},
        **changes,
    }


def write(path: Path, experiment: dict[str, Any], noise: int | None = None) -> tuple[Path, dict[str, Tensor]]:
    """Write the checkpoint of an experiment; return its path and the initial state dict."""
    run = build(experiment_from_dict(experiment))
    state = new_state(run, "max")
    state.data = run.data_records()
    payload = state.state_dict()
    start = payload["model"]
    if noise is not None:
        generator = torch.Generator().manual_seed(noise)
        parameters = {name for name, _ in run.model.named_parameters()}
        payload["model"] = {
            key: value + 0.01 * torch.randn(value.shape, generator=generator) if key in parameters else value
            for key, value in start.items()
        }
    save_checkpoint(path, payload)
    return path, start


def sources(folder: Path, *experiments: dict[str, Any]) -> list[SourceRun]:
    return read_sources([write(folder / f"{n}.pt", each, noise=n)[0] for n, each in enumerate(experiments)])
