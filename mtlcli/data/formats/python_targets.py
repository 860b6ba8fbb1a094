"""Labels passed from Python: the type of a target, by a stated rule, and its encoding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mtlcli.data.formats.column_encoding import FAR
from mtlcli.data.formats.python_arrays import Labels
from mtlcli.errors import ConfigError, suggest
from mtlcli.specs import IGNORE_INDEX, MOST_CLASSES, TargetSpec
from mtlcli.text import join_names

TargetType = Literal["classes", "binary", "real", "multilabel"]


def infer_type(labels: Labels, name: str) -> TargetType:
    """Infer the type of a target from the type of its labels.

    Booleans are `binary`, integers and strings are `classes`, floats are `real`; several columns of booleans,
    or of the integers 0 and 1, are `multilabel`.

    Args:
        labels: [N] or [N, labels].
        name: Name of the target.

    Returns:
        The type.

    Raises:
        ConfigError: The labels are of several types, or several columns of numbers.
    """
    kind = _kind(labels, name)
    if labels.ndim == 2:
        if kind == "bool" or (kind == "int" and bool(np.isin(labels, (0, 1)).all())):
            return "multilabel"
        raise ConfigError(
            f"target {name!r} has {labels.shape[1]} columns of numbers; pass each as a target of its own, {{name: "
            f"column}}, or set `targets: {{{name}: multilabel}}` for labels of 0 and 1"
        )
    types: dict[str, TargetType] = {"bool": "binary", "int": "classes", "str": "classes", "float": "real"}
    return types[kind]


def fit_python_target(
    labels: Labels, name: str, declared: TargetType | None, classes: Sequence[str] | None
) -> tuple[TargetSpec, bool]:
    """Determine the type, the classes and the statistics of a target.

    Args:
        labels: Labels of the training examples, [N] or [N, labels].
        name: Name of the target.
        declared: Type that the configuration sets; None to infer it.
        classes: Names of the classes or labels that the configuration sets.

    Returns:
        The specification, without `missing`, and whether the labels are names of classes rather than their indices.

    Raises:
        ConfigError: The labels don't fit the type, or there is none.
    """
    type_ = declared or infer_type(labels, name)
    present = labels[~_missing(labels, name)] if labels.ndim == 1 else labels
    if not len(present):
        raise ConfigError(f"target {name!r} has no label in the training examples")
    named = _kind(labels, name) == "str"
    if classes is not None and type_ not in ("classes", "multilabel"):
        raise ConfigError(f"`classes` names those of target {name!r}, which is of the type {type_!r} and has none")
    if type_ == "multilabel":
        if labels.ndim != 2:
            raise ConfigError(f"target {name!r} is multilabel, so its labels are [N, labels], not [N]")
        return TargetSpec("multilabel", labels.shape[1], _names(classes, labels.shape[1], name)), False
    if labels.ndim != 1:
        raise ConfigError(f"target {name!r} has {labels.shape[1]} columns, and the type {type_!r} takes one")
    if type_ == "real":
        values = _finite(_numbers(present, name, type_), name)
        return TargetSpec("real", mean=float(values.mean()), std=float(values.std())), False
    if type_ == "binary":
        encode_python_target(present, name, TargetSpec("binary"), named)
        return TargetSpec("binary"), False
    if named:
        names = sorted({str(value) for value in present}) if classes is None else list(classes)
        return TargetSpec("classes", len(names), tuple(names)), True
    values = _numbers(present, name, type_)
    if wrong := values[(values < 0) | (values != np.floor(values))][:1].tolist():
        raise ConfigError(
            f"target {name!r} has the class {wrong[0]:g}; classes are 0, 1, 2, … ({IGNORE_INDEX}: missing). For "
            f"numbers to predict set `targets: {{{name}: real}}`, for other classes pass strings"
        )
    size = int(values.max()) + 1 if classes is None else len(classes)
    if size > MOST_CLASSES:
        raise ConfigError(f"target {name!r} has the class {size - 1}; for numbers set `targets: {{{name}: real}}`")
    if size < 2:
        raise ConfigError(f"target {name!r} has only the class 0 in the training examples")
    return TargetSpec("classes", size, None if classes is None else _names(classes, size, name)), False


def encode_python_target(labels: Labels, name: str, target: TargetSpec, named: bool) -> Tensor:
    """Encode labels as `TargetSpec` defines them.

    Args:
        labels: [N] or [N, labels].
        name: Name of the target.
        target: Its specification.
        named: The labels are names of classes rather than their indices.

    Returns:
        int64 [N] for `classes`, else float [N] or [N, labels].

    Raises:
        ConfigError: A label is none of the target's.
    """
    if target.type == "classes":
        return _encode_classes(labels, name, target, named)
    values = _numbers(labels, name, target.type)
    if target.type == "real":
        _finite(values, name)
        exact = abs(target.mean) > FAR * target.std
        return torch.from_numpy(values if exact else values.astype(np.float32))
    if target.type == "multilabel" and (labels.ndim != 2 or labels.shape[1] != target.size):
        raise ConfigError(f"target {name!r}: expected labels [N, {target.size}], got {list(labels.shape)}")
    if wrong := values[~np.isin(values, (0, 1)) & ~np.isnan(values)][:1].tolist():
        raise ConfigError(f"target {name!r} is {target.type}, and has the label {wrong[0]:g}, which is not 0 or 1")
    return torch.from_numpy(values.astype(np.float32))


def is_missing(labels: Labels, name: str) -> bool:
    """Return whether a label is missing."""
    if labels.ndim == 2:
        return bool(np.isnan(_numbers(labels, name, "multilabel")).any())
    return bool(_missing(labels, name).any())


def _encode_classes(labels: Labels, name: str, target: TargetSpec, named: bool) -> Tensor:
    missing = _missing(labels, name)
    if (_kind(labels, name) == "str") != named:
        expected = "names of classes" if named else "indices of classes"
        raise ConfigError(f"target {name!r}: the model was trained on {expected}, and these labels are not")
    codes = np.full(len(labels), IGNORE_INDEX, np.int64)
    if named:
        index = {label: at for at, label in enumerate(target.classes or ())}
        for row in np.flatnonzero(~missing):
            if (label := str(labels[row])) not in index:
                hint = f"{suggest(label, index)} Its classes: {join_names(list(index))}"
                raise ConfigError(
                    f"target {name!r} has the class {label!r}, which is not among those of training.{hint}"
                )
            codes[row] = index[label]
        return torch.from_numpy(codes)
    values = _numbers(labels[~missing], name, "classes")
    if wrong := values[(values < 0) | (values >= target.size) | (values != np.floor(values))][:1].tolist():
        raise ConfigError(f"target {name!r} has the class {wrong[0]:g}; expected 0 to {target.size - 1}")
    codes[~missing] = values.astype(np.int64)
    return torch.from_numpy(codes)


def _missing(labels: Labels, name: str) -> NDArray[np.bool_]:
    """Mask [N] of the missing labels: None, NaN, and IGNORE_INDEX among integers."""
    kind = _kind(labels, name)
    if labels.dtype == object:
        missing = np.array([value is None or value != value for value in labels], np.bool_)
        return missing | (labels == IGNORE_INDEX) if kind == "int" else missing
    if labels.dtype.kind == "f":
        return np.isnan(labels)
    return labels == IGNORE_INDEX if kind == "int" else np.zeros(len(labels), np.bool_)


def _kind(labels: Labels, name: str) -> Literal["bool", "int", "float", "str"]:
    kinds: dict[str, Literal["bool", "int", "float", "str"]] = {
        "b": "bool", "i": "int", "u": "int", "f": "float", "U": "str", "T": "str"
    }  # fmt: skip
    if labels.dtype.kind in kinds:
        return kinds[labels.dtype.kind]
    if labels.dtype == object:
        present = [value for value in labels.flat if value is not None and value == value]
        present_kinds = {np.asarray(value).dtype.kind for value in present}
        if len({kinds.get(kind) for kind in present_kinds}) == 1 and (kind := present_kinds.pop()) in kinds:
            return kinds[kind]
        if present_kinds and present_kinds <= {"i", "u", "f"}:
            return "float"
        if not present:
            return "float"
    raise ConfigError(f"target {name!r}: expected numbers, booleans or strings, got an array of {labels.dtype}")


def _numbers(labels: Labels, name: str, type_: str) -> NDArray[np.float64]:
    """float64, NaN where a label is missing."""
    if _kind(labels, name) == "str":
        raise ConfigError(f"target {name!r} is {type_}, and its labels are strings")
    values: Any = np.array(labels, dtype=np.float64)  # None becomes NaN
    if type_ != "classes" and _kind(labels, name) == "int" and labels.ndim == 1:
        values[_missing(labels, name)] = np.nan
    return values  # type: ignore[no-any-return]


def _finite(values: NDArray[np.float64], name: str) -> NDArray[np.float64]:
    if bool(np.isinf(values).any()):
        raise ConfigError(f"target {name!r} has a label that is infinite")
    return values


def _names(classes: Sequence[str] | None, size: int, name: str) -> tuple[str, ...] | None:
    if classes is None:
        return None
    if len(classes) != size or len(set(classes)) != size:
        raise ConfigError(f"`classes` has {len(set(classes))} different names for the {size} labels of target {name!r}")
    return tuple(classes)
