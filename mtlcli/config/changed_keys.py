"""Comparison of two experiments, key by key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from mtlcli.errors import ConfigError, Problem


def check_same(saved: Mapping[str, Any], current: Mapping[str, Any], free: Sequence[str], source: str) -> list[Problem]:
    """Compare two resolved experiments, and accept differences only in the keys that may change.

    Args:
        saved: the experiment of the saved run, as `Experiment.resolved` returns it.
        current: the experiment of this run, likewise.
        free: patterns of the dotted key paths that may differ.
        source: the place of the saved run, for messages.

    Returns:
        The differences in the keys that may change.

    Raises:
        ConfigError: if any other key differs; it names each of them.
    """
    changed = [
        Problem(f"is {_yaml(now)}, and the saved run has {_yaml(before)}", key)
        for key, before, now in differing_keys(saved, current)
    ]
    both = _flat(saved).keys() & _flat(current).keys()
    allowed = [
        difference
        for difference in changed
        if difference.path in both and any(fnmatchcase(difference.path, key) for key in free)
    ]
    if problems := [difference for difference in changed if difference not in allowed]:
        raise ConfigError(
            [
                Problem(f"{source} belongs to a different experiment. Use another --run-dir, or revert these keys:"),
                *problems,
            ]
        )
    return allowed


def differing_keys(saved: Any, current: Any) -> list[tuple[str, Any, Any]]:
    """List the keys in which two nested mappings of plain data differ.

    Args:
        saved: one mapping.
        current: the other.

    Returns:
        Dotted key path, value in `saved` and value in `current`, `"(none)"` for a key that is missing.
    """
    before, now, missing = _flat(saved), _flat(current), "(none)"
    return [
        (key, before.get(key, missing), now.get(key, missing))
        for key in dict.fromkeys([*before, *now])
        if before.get(key, missing) != now.get(key, missing)
    ]


def _yaml(value: Any) -> str:
    """Format a scalar as YAML writes it."""
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else repr(value)


def _flat(value: Any, path: str = "") -> dict[str, Any]:
    """Return dotted key path → scalar."""
    items = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else None
    if items is None:
        return {path: value}
    flat: dict[str, Any] = {} if value else {path: value}
    for key, item in items:
        flat |= _flat(item, f"{path}.{key}" if path else str(key))
    return flat
