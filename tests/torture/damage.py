"""Flipped bits and truncations of a checkpoint, read by `mtl eval`."""

from __future__ import annotations

import contextlib
import io
import random
from pathlib import Path

from mtlcli.cli import main


def find_undetected(checkpoint: Path, count: int, seed: int = 0) -> list[str]:
    """Damage copies of a checkpoint at random and evaluate each.

    Every fifth copy is truncated; the others have one flipped bit.

    Args:
        checkpoint: An intact checkpoint.
        count: The number of damaged copies.
        seed: The seed of the random positions.

    Returns:
        A line for each copy that was not refused with exit code 2 and one line that calls it damaged.
    """
    intact, generator, errors = checkpoint.read_bytes(), random.Random(seed), []
    damaged = checkpoint.with_name("damaged.pt")
    for attempt in range(count):
        content = bytearray(intact)
        if attempt % 5 == 4:
            position = generator.randrange(len(content))
            del content[position:]
            change = f"truncated at byte {position}"
        else:
            position = generator.randrange(8 * len(content))
            content[position // 8] ^= 1 << position % 8
            change = f"bit {position} flipped"
        damaged.write_bytes(content)
        output = io.StringIO()
        with contextlib.redirect_stderr(output), contextlib.redirect_stdout(output):
            code = main(["eval", str(damaged)])
        lines = output.getvalue().splitlines()
        if code != 2 or len(lines) != 1 or "damaged" not in lines[0]:
            errors.append(f"{change}: exit code {code}: {output.getvalue()[:200]}")
    return errors
