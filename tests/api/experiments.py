"""Configurations that the tests of the public API share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

DIGITS: dict[str, Any] = {
    "name": "api",
    "datasets": {"digits": {"name": "digits"}},
    "tasks": {
        "digit": {"dataset": "digits", "kind": "classification"},
        "parity": {"dataset": "digits", "kind": "binary"},
        "ink": {"dataset": "digits", "kind": "regression"},
        "segments": {"dataset": "digits", "kind": "multilabel"},
    },
    "trunk": {"name": "mlp", "hidden": [32], "features": 16},
    "training": {"epochs": 2, "batch_size": 100, "device": "cpu", "threads": 1},
}
TRAINING = {"epochs": 1, "batch_size": 32, "device": "cpu", "threads": 1}


def write_homes(path: Path, rows: int = 120) -> Path:
    """Write a table with numbers, categories, a date, booleans and blanks."""
    lines = ["id,area,city,listed,garden,price,state,split"]
    for row in range(rows):
        area = "" if row % 11 == 5 else 40 + row
        city = ("Rome", "Oslo", "")[row % 3]
        lines.append(
            f"h{row:03d},{area},{city},2024-0{1 + row % 9}-11,{bool(row % 2)},{1000 + 10 * row},"
            f"{('good', 'bad', 'fair')[row % 3]},{'test' if row % 5 == 0 else 'train'}"
        )
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def homes(path: Path) -> dict[str, Any]:
    options = {"split_column": "split", "dates": ["listed"], "targets": {"price": "real", "state": "classes"}}
    return {
        "name": "homes",
        "datasets": {"homes": {"name": "csv", "path": str(path), **options}},
        "tasks": {
            "price": {"dataset": "homes", "kind": "regression"},
            "state": {"dataset": "homes", "kind": "classification"},
        },
        "trunk": {"name": "mlp", "hidden": [8], "features": 8},
        "training": TRAINING,
    }
