"""Figures of a comparison, as people read them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

NOTHING = "–"


def interval(estimate: Mapping[str, Any], show: Callable[[float], str]) -> str:
    """Such as `0.9712 ± 0.0031`; the mean alone where there is no interval."""
    mean, low, high = (estimate[key] for key in ("mean", "low", "high"))
    if mean is None or mean != mean:
        return NOTHING
    shown = show(mean)
    if low is None or low != low:
        return shown
    decimals = len(shown.partition(".")[2])
    half = (high - low) / 2
    return f"{shown} ± {show(half) if 'e' in shown else f'{half:.{decimals}f}'}"


def signed(value: float) -> str:
    return f"{round(value, 2) + 0.0:+.2f}"  # no −0.00


def four_decimals(value: float) -> str:
    return f"{round(value, 4) + 0.0:.4f}"


def two_decimals(value: float | None) -> str:
    return NOTHING if value is None or value != value else f"{value:.2f}"


def p_value(value: float | None) -> str:
    if value is None or value != value:
        return NOTHING
    return f"{value:.3f}" if value >= 0.001 else "< 0.001"


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
