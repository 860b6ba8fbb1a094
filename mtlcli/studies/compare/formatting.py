"""Figures of a comparison, as people read them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mtlcli.tables import format_interval, format_number

NOTHING = "–"


@dataclass(frozen=True)
class Table:
    """rows: the head first. notes: what is to be known to read it. keys: columns that say what a row is."""

    title: str
    rows: list[list[str]]
    notes: list[str] = field(default_factory=list)
    keys: int = 1


def missing(value: float | None) -> bool:
    """Return whether a value is None or not finite."""
    return value is None or not math.isfinite(value)


def interval(estimate: Mapping[str, Any]) -> str:
    """Such as `0.9712 ± 0.0031`; the mean alone where there is no interval."""
    return NOTHING if missing(estimate["mean"]) else format_interval(estimate["mean"], _half(estimate))


def difference(found: Mapping[str, Any]) -> str:
    """Such as `+0.52 ± 0.40 points` or `-3.10 ± 1.20 %`."""
    shown = signed_interval(found)
    return shown if shown == NOTHING else f"{shown} {_unit(found['unit'])}"


def signed_interval(estimate: Mapping[str, Any]) -> str:
    """Such as `+0.5213 ± 0.4020`."""
    return NOTHING if missing(estimate["mean"]) else format_interval(estimate["mean"], _half(estimate), signed=True)


def signed(value: float) -> str:
    return format_interval(value, signed=True)


def shown(value: float | None) -> str:
    return NOTHING if missing(value) else format_number(value)


def change(value: float, unit: str) -> str:
    """Such as `+0.52 points` or `-3.10 %`."""
    return f"{signed(value)} {_unit(unit)}"


def _unit(unit: str) -> str:
    return "%" if unit == "percent" else unit


def _half(estimate: Mapping[str, Any]) -> float | None:
    low, high = estimate["low"], estimate["high"]
    return None if low is None or low != low else float(high - low) / 2


def p_value(value: float | None, equals: str = "") -> str:
    """equals: what stands before a value that is given exactly."""
    if value is None or value != value:
        return NOTHING
    return f"{equals}{format_number(value)}" if value >= 0.001 else "< 0.001"


def ratio(value: float | None) -> str:
    return NOTHING if missing(value) else f"{format_number(value)}×"


def byte_count(value: float) -> str:
    return _scaled(value, 1024, ("B", "KiB", "MiB", "GiB"))


def big(value: float) -> str:
    return _scaled(value, 1000, ("", "k", "M", "G", "T"))


def _scaled(value: float, step: int, units: tuple[str, ...]) -> str:
    """Four digits and a unit."""
    at = 0
    while value >= 999.95 and at < len(units) - 1:
        value /= step
        at += 1
    return f"{format_number(value, zeros=False)} {units[at]}".rstrip()
