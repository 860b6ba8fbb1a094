"""What the model makes of a dataset's raw inputs before they reach a trunk."""

from __future__ import annotations

from torch import nn

from mtlcli.models.normalize import Normalize
from mtlcli.models.one_hot import standardized
from mtlcli.specs import DatasetSpec, Shape


def preparation(spec: DatasetSpec, raw_columns: bool = False) -> nn.Module:
    """Raw inputs [B, *spec.input_shape] → what the trunk is given, [B, *prepared_shape]: normalized, float32.

    raw_columns: whether the trunk takes a table's columns as they are (`Trunk.of_columns`).
    """
    if not spec.columns:
        return Normalize(spec.input_shape, spec.mean, spec.std)
    return nn.Identity() if raw_columns else standardized(spec.columns)


def prepared_shape(spec: DatasetSpec, raw_columns: bool = False) -> Shape:
    """The shape of one example as `preparation` leaves it."""
    if not spec.columns or raw_columns:
        return spec.input_shape
    return (sum(1 if column.levels is None else len(column.levels) for column in spec.columns),)
