"""Figures of a comparison, as people read them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

NOTHING = "–"


@dataclass(frozen=True)
class Table:
    """rows: the head first. notes: what is to be known to read it."""

    title: str
    rows: list[list[str]]
    notes: list[str] = field(default_factory=list)


def missing(value: float | None) -> bool:
    """Whether there is no number."""
    return value is None or not math.isfinite(value)


def interval(estimate: Mapping[str, Any], show: Callable[[float], str]) -> str:
    """Such as `0.9712 ± 0.0031`; the mean alone where there is no interval."""
    mean, half = estimate["mean"], _half(estimate)
    if mean is None or mean != mean:
        return NOTHING
    shown = show(mean)
    if half is None:
        return shown
    decimals = len(shown.partition(".")[2])
    exact = "e" in shown or 0 < half < 10.0**-decimals
    return f"{shown} ± {f'{half:.2g}' if exact else f'{half:.{decimals}f}'}"


def difference(found: Mapping[str, Any]) -> str:
    """Such as `+0.52 ± 0.40 points` or `-3.10 ± 1.20 %`."""
    shown = signed_interval(found)
    return shown if shown == NOTHING else f"{shown} {_unit(found['unit'])}"


def signed_interval(estimate: Mapping[str, Any]) -> str:
    """Such as `+0.52 ± 0.40`, both with the decimals of the larger."""
    mean, half = estimate["mean"], _half(estimate)
    if mean is None or mean != mean:
        return NOTHING
    decimals = _decimals(max(abs(mean), half or 0.0))
    shown = f"{round(mean, decimals) + 0.0:+.{decimals}f}"  # no −0.00
    return shown if half is None else f"{shown} ± {half:.{decimals}f}"


def signed(value: float) -> str:
    """Two decimals with a sign, or two digits of what is smaller than these can show."""
    return signed_interval({"mean": value, "low": None, "high": None})


def size(value: float) -> str:
    return f"{value:.{_decimals(value)}f}"


def change(value: float, unit: str) -> str:
    """Such as `+0.52 points` or `-3.10 %`."""
    return f"{signed(value)} {_unit(unit)}"


def _unit(unit: str) -> str:
    return "%" if unit == "percent" else unit


def _half(estimate: Mapping[str, Any]) -> float | None:
    low, high = estimate["low"], estimate["high"]
    return None if low is None or low != low else float(high - low) / 2


def _decimals(value: float) -> int:
    """Two; more where the first digits come later, fewer where there are many before the point."""
    if value == 0 or not math.isfinite(value):
        return 2
    digits = math.floor(math.log10(value))
    return min(12, 1 - digits) if digits < -1 else max(0, min(2, 3 - digits))


def four_decimals(value: float) -> str:
    return f"{round(value, 4) + 0.0:.4f}"


def two_decimals(value: float | None) -> str:
    return NOTHING if value is None or value != value else f"{value:.2f}"


def p_value(value: float | None, equals: str = "") -> str:
    """equals: what stands before a value that is given exactly."""
    if value is None or value != value:
        return NOTHING
    return f"{equals}{value:.3f}" if value >= 0.001 else "< 0.001"


def ratio(value: float | None) -> str:
    return NOTHING if value is None or value != value else f"{value:.2f}×"


def byte_count(value: float) -> str:
    return _scaled(value, 1024, ("B", "KiB", "MiB", "GiB"))


def big(value: float) -> str:
    return _scaled(value, 1000, ("", "k", "M", "G", "T"))


def _scaled(value: float, step: int, units: tuple[str, ...]) -> str:
    """Three digits and a unit."""
    for unit in units[:-1]:
        if value < 999.5:
            return f"{value:.3g} {unit}".rstrip()
        value /= step
    return f"{value:.3g} {units[-1]}"
