"""What a table's columns become: features (numbers, one-hot categories) and targets. Fitted once, then fixed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from mtlcli.data.table import Floats, Table, numbers
from mtlcli.specs import IGNORE_INDEX, TargetSpec

Rows = np.ndarray[tuple[int], np.dtype[np.int64]]
Matrix = np.ndarray[tuple[int, int], np.dtype[np.float32]]
TargetType = Literal["classes", "binary", "real"]
MOST_CATEGORIES = 1000  # of a feature: with more it is likely an identifier
TRUTH = {"true": 1.0, "false": 0.0}


@dataclass(frozen=True)
class Feature:
    """One feature column.

    categories: those it is one-hot over, where it is categorical; a missing or unknown one is all zeros.
    mean, std: of a numeric one; a missing value becomes the mean.
    """

    name: str
    categories: tuple[str, ...] | None = None
    mean: float = 0.0
    std: float = 1.0

    @property
    def width(self) -> int:
        return 1 if self.categories is None else len(self.categories)

    def encode(self, table: Table) -> Matrix:
        """float32 [N, width]. ConfigError where a numeric column holds something else."""
        values = table.columns[self.name]
        if self.categories is None:
            parsed, wrong = numbers(values)
            if wrong:
                raise table.error(
                    f"{values[wrong[0]]!r} in the numeric column {self.name!r} is no finite number", wrong
                )
            filled: Floats = np.where(np.isnan(parsed), self.mean, parsed)
            return filled.astype(np.float32).reshape(-1, 1)
        index = {category: position for position, category in enumerate(self.categories)}
        positions = np.array([-1 if value is None else index.get(value, -1) for value in values])
        one_hot: Matrix = (positions[:, None] == np.arange(len(index))).astype(np.float32)
        return one_hot

    def to_state(self) -> dict[str, Any]:
        categories = None if self.categories is None else list(self.categories)
        return {"name": self.name, "categories": categories, "mean": self.mean, "std": self.std}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Feature:
        categories = None if state["categories"] is None else tuple(state["categories"])
        return cls(state["name"], categories, state["mean"], state["std"])


def fit_feature(table: Table, name: str, train: Rows, categorical: bool) -> Feature:
    """What column `name` is: numeric where all its values are numbers and it isn't said to be `categorical`.

    Fitted on the rows `train`. ConfigError for a column that is empty, neither one nor the other, or an identifier.
    """
    values = table.columns[name]
    parsed, wrong = numbers(values)
    present = sum(value is not None for value in values)
    if not categorical and wrong and len(wrong) < present:
        raise table.error(
            f"{values[wrong[0]]!r} in column {name!r} is no finite number, and {present - len(wrong)} values are. "
            f"Correct it, add it to `missing`, or add the column to `categorical`", wrong
        )  # fmt: skip
    known = [value for row in train if (value := values[row]) is not None]
    if not known:
        raise table.error(f"column {name!r} has no value in the training rows; leave it out of `features`")
    if categorical or wrong:
        categories = in_order(set(known))
        if len(categories) > MOST_CATEGORIES:
            raise table.error(
                f"column {name!r} has {len(categories)} categories, more than {MOST_CATEGORIES}: it looks like an "
                f"identifier; leave it out of `features`"
            )
        return Feature(name, categories)
    return Feature(name, None, *_statistics(parsed[train]))


def fit_target(table: Table, name: str, train: Rows, type_: TargetType | None) -> TargetSpec:
    """What target `name` is. type_: None: `binary` where all is 0 or 1, `real` where all is numbers, else `classes`.

    Its classes, or its mean and standard deviation, are those of the rows `train`. ConfigError for values that aren't
    of the type, for fewer than two classes, and where there are no labels.
    """
    values = table.columns[name]
    missing = any(value is None for value in values)
    if type_ is None:
        parsed, wrong = numbers(values)
        type_ = "classes" if wrong else "binary" if set(parsed[~np.isnan(parsed)]) <= {0.0, 1.0} else "real"
    known = {value for row in train if (value := values[row]) is not None}
    if not known:
        raise table.error(f"target {name!r} has no label in the training rows")
    if type_ != "classes":
        labels = encode_target(table, name, TargetSpec(type_)).numpy().astype(np.float64)
        mean, std = _statistics(labels[train]) if type_ == "real" else (0.0, 1.0)
        return TargetSpec(type_, missing=missing, mean=mean, std=std)
    if len(known) < 2:
        raise table.error(f"target {name!r} has only the class {known.pop()!r} in the training rows")
    return TargetSpec("classes", len(known), in_order(known), missing)


def encode_target(table: Table, name: str, target: TargetSpec) -> Tensor:
    """The labels as `TargetSpec` says. ConfigError for a value that is none of them."""
    values = table.columns[name]
    if target.type == "classes":
        index: dict[str | None, int] = {label: position for position, label in enumerate(target.classes or ())}
        index[None] = IGNORE_INDEX
        if unknown := [row for row, value in enumerate(values) if value not in index]:
            raise table.error(
                f"target {name!r} has the class {values[unknown[0]]!r}, which is not among those of the training rows: "
                f"{_some(target.classes or ())}", unknown
            )  # fmt: skip
        return torch.tensor([index[value] for value in values], dtype=torch.int64)
    if target.type == "binary":
        values = [value if value is None else str(TRUTH.get(value.lower(), value)) for value in values]
    parsed, wrong = numbers(values)
    wrong = wrong or (_neither(parsed) if target.type == "binary" else [])
    if wrong:
        expected = "0 or 1 (true or false)" if target.type == "binary" else "a number"
        hint = f"; for categories say `targets: {{{name}: classes}}`"
        raise table.error(
            f"{table.columns[name][wrong[0]]!r} in the {target.type} target {name!r} is not {expected}{hint}", wrong
        )
    return torch.from_numpy(parsed.astype(np.float32))


def in_order(values: set[str]) -> tuple[str, ...]:
    """By number where all are numbers, else by alphabet."""
    _, wrong = numbers(ordered := sorted(values))
    return tuple(ordered if wrong else sorted(ordered, key=float))


def _statistics(values: Floats) -> tuple[float, float]:
    """Mean and standard deviation of those that aren't missing; of equal values it is taken to be 1."""
    std = float(np.nanstd(values))
    return float(np.nanmean(values)), std if std > 0 else 1.0


def _neither(parsed: Floats) -> list[int]:
    return [int(row) for row in np.flatnonzero(~np.isin(parsed, [0.0, 1.0]) & ~np.isnan(parsed))]


def _some(classes: Sequence[str]) -> str:
    return ", ".join(classes[:10]) + (f", … ({len(classes)})" if len(classes) > 10 else "")
