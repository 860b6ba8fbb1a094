"""The experiment: everything one run is made from, validated.

Built by `config.load`, from YAML or from a plain dict; `resolved()` gives it back as plain data with every default
filled in, and an experiment made from that is the same.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, PositiveFloat, PositiveInt

Name = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_-]*$")]


class Section(BaseModel):
    """Base of the sections: strict types, unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


@dataclass(frozen=True)
class ComponentEntry:
    """A component chosen by name, with all its options, validated against its signature and defaults filled in."""

    name: str
    options: dict[str, Any] = field(default_factory=dict)


class Training(Section):
    """How the run trains.

    batch_size: examples per dataset and step. accumulate: batches per optimizer step.
    clip_norm: largest total norm of the gradient. early_stopping: epochs without a better monitored value.
    checkpoint_every: steps between checkpoints within an epoch (there is always one at its end).
    loading: `resident` keeps the data on the training device, `stream` reads it through a DataLoader.
    """

    epochs: PositiveInt = 10
    batch_size: PositiveInt = 64
    accumulate: PositiveInt = 1
    clip_norm: PositiveFloat | None = None
    early_stopping: PositiveInt | None = None
    checkpoint_every: PositiveInt | None = None
    device: str = "auto"
    threads: PositiveInt | Literal["auto"] = "auto"
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    compile: bool = False
    deterministic: bool = False
    loading: Literal["auto", "resident", "stream"] = "auto"
    workers: Annotated[int, Field(ge=0)] | Literal["auto"] = "auto"


class Monitor(Section):
    """The figure that picks the best epoch: a task's metric, or its mean over the tasks."""

    task: str = "mean"
    metric: str = "primary"


class Evaluation(Section):
    """What is measured after each epoch."""

    split: Literal["train", "val", "test"] = "val"
    batch_size: PositiveInt = 1000
    monitor: Monitor = Monitor()


__all__ = [
    "ComponentEntry",
    "Evaluation",
    "Monitor",
    "Name",
    "NonNegativeFloat",
    "PositiveFloat",
    "PositiveInt",
    "Section",
    "Training",
]
