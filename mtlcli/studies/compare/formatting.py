"""Text of the numbers in a comparison's tables and sentences."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mtlcli.text import format_interval, format_number

EMPTY = "–"  # a cell without a value


@dataclass(frozen=True)
class Table:
    """A table of text.

    Attributes:
        title: its heading.
        rows: the cells; the first row is the header.
        notes: sentences below it that explain its columns.
        key_columns: number of leading columns that identify a row.
    """

    title: str
    rows: list[list[str]]
    notes: list[str] = field(default_factory=list)
    key_columns: int = 1


def is_missing(value: float | None) -> bool:
    """Return whether a value is None or not finite."""
    return value is None or not math.isfinite(value)


def format_estimate(estimate: Mapping[str, Any], *, signed: bool = False) -> str:
    """Format an estimate, such as `0.9712 ± 0.0031`; the mean alone without an interval.

    Args:
        estimate: `mean`, `low` and `high`.
        signed: write `+` before a positive mean.

    Returns:
        The text.
    """
    if is_missing(estimate["mean"]):
        return EMPTY
    return format_interval(estimate["mean"], half_width(estimate), signed=signed)


def format_difference(difference: Mapping[str, Any]) -> str:
    """Format a difference with its unit, such as `+0.52 ± 0.40 points` or `-3.10 ± 1.20 %`.

    Args:
        difference: `mean`, `low`, `high` and `unit`.

    Returns:
        The text.
    """
    text = format_estimate(difference, signed=True)
    return text if text == EMPTY else f"{text} {_unit_symbol(difference['unit'])}"


def format_change(value: float, unit: str) -> str:
    """Format a change without an interval, such as `+0.52 points` or `-3.10 %`.

    Args:
        value: the change.
        unit: `points` or `percent`.

    Returns:
        The text.
    """
    return f"{format_interval(value, signed=True)} {_unit_symbol(unit)}"


def format_value(value: float | None) -> str:
    """Format a number, or an empty cell if it is missing."""
    return EMPTY if is_missing(value) else format_number(value)


def half_width(estimate: Mapping[str, Any]) -> float | None:
    """Return half the width of an estimate's interval; None without an interval."""
    return None if is_missing(estimate["low"]) else float(estimate["high"] - estimate["low"]) / 2


def format_p(value: float | None, equals: str = "") -> str:
    """Format a p-value.

    Args:
        value: the p-value.
        equals: text before a value that is given exactly, and not as `< 0.001`.

    Returns:
        The text.
    """
    if value is None or math.isnan(value):
        return EMPTY
    return f"{equals}{format_number(value)}" if value >= 0.001 else "< 0.001"


def format_ratio(value: float | None) -> str:
    """Format a ratio, such as `0.5120×`."""
    return EMPTY if is_missing(value) else f"{format_number(value)}×"


def format_bytes(value: float) -> str:
    """Format a number of bytes, such as `1.5 MiB`."""
    return _format_scaled(value, 1024, ("B", "KiB", "MiB", "GiB"))


def format_large(value: float) -> str:
    """Format a large number with a decimal prefix, such as `12.34 M`."""
    return _format_scaled(value, 1000, ("", "k", "M", "G", "T"))


def _unit_symbol(unit: str) -> str:
    return "%" if unit == "percent" else unit


def _format_scaled(value: float, step: int, units: tuple[str, ...]) -> str:
    index = 0
    while value >= 999.95 and index < len(units) - 1:
        value /= step
        index += 1
    return f"{format_number(value, zeros=False)} {units[index]}".rstrip()
