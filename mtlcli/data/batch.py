"""What one step gets."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """One step's examples, on the training device.

    inputs: alias of the dataset → raw inputs [B, *input_shape]; a dataset that gives none to this step is left out.
    targets: task → [B] or [B, size], for the tasks of the datasets in `inputs`.
    counts: task → number of labelled examples, known on the host without asking the device; a task that has none is
        in `targets` with the count 0, and sits the step out.
    """

    inputs: dict[str, Tensor]
    targets: dict[str, Tensor]
    counts: dict[str, int]
