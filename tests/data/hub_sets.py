"""Data sets in Parquet files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq


def people(rows: int, seed: int = 0) -> pa.Table:
    rng = np.random.default_rng(seed)
    return pa.table({
        "age": rng.integers(18, 90, rows),
        "height": pa.array(rng.normal(1.7, 0.1, rows), mask=rng.random(rows) < 0.1),
        "town": pa.array(rng.choice(["Ulm", "Bonn", "Köln"], rows).tolist(), mask=rng.random(rows) < 0.1),
        "member": rng.random(rows) < 0.5,
        "income": rng.lognormal(size=rows),
        "married": pa.array((rng.random(rows) < 0.5).astype(int), mask=rng.random(rows) < 0.2),
    })  # fmt: skip


def write_parquet(folder: Path, splits: dict[str, pa.Table], shards: int = 2) -> Path:
    folder.mkdir()
    for split, table in splits.items():
        size = -(-len(table) // shards)
        for shard in range(shards):
            part = table.slice(shard * size, size)
            pq.write_table(part, folder / f"{split}-{shard:05d}-of-{shards:05d}.parquet")
    return folder
