"""Numbers as people read them: the one format of tables, messages and progress lines. Imports nothing of `mtlcli`."""

from __future__ import annotations

import math

DIGITS = 4


def format_number(value: float | None, digits: int = DIGITS, *, zeros: bool = True) -> str:
    """Return `value` with `digits` significant digits, whatever its size: `0.8542`, `12.30`, `1.234e+06`, `1.7e-08`.

    An int is a count and is written out with thousands separators. None is an empty string; NaN and infinities are
    `nan`, `inf` and `-inf`. zeros: whether trailing zeros are kept, so that figures in a column have equal precision;
    a setting such as a learning rate is shorter without.
    """
    if value is None:
        return ""
    if isinstance(value, int):
        return f"{value:,}"
    if value == 0:
        return "0"
    if not math.isfinite(value) or not zeros:
        return f"{value:.{digits}g}"
    return f"{value:#.{digits}g}".rstrip(".")


def format_interval(mean: float, half: float | None = None, *, signed: bool = False) -> str:
    """Return `mean ± half` with as many decimals as the larger of the two has in four significant digits.

    Such as `0.9712 ± 0.0031`; with `signed`, `+0.5213 ± 0.4020`. half: None for a mean without an interval.
    """
    sign = "+" if signed and mean > 0 else ""
    if half is None:
        return sign + format_number(mean)
    largest = max(abs(mean), half)
    if not 1e-4 <= largest < 9999.5:  # where `format_number` has an exponent
        return f"{sign}{format_number(mean)} ± {format_number(half)}"
    exponent = int(f"{largest:.{DIGITS - 1}e}".partition("e")[2])  # after rounding
    decimals = DIGITS - 1 - exponent
    if 0 < half < 10.0**-decimals:
        return f"{sign}{mean:.{decimals}f} ± {format_number(half, 2)}"
    return f"{sign}{round(mean, decimals) + 0.0:.{decimals}f} ± {half:.{decimals}f}"  # no −0.00


def format_duration(seconds: float) -> str:
    """`0.31 s`, `42 s`, `12 min`, `3.5 h`: two digits, which is what a timing is worth."""
    if seconds < 90:
        return f"{seconds:#.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
