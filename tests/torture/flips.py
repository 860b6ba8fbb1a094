"""Flipped bits and lost ends of a checkpoint, each given to `mtl eval`'s own code."""

from __future__ import annotations

import contextlib
import io
import random
from pathlib import Path

from mtlcli.cli import main


def undetected(checkpoint: Path, times: int, seed: int = 0) -> list[str]:
    """Damage a checkpoint `times` times, one bit or its end; what was not told in one line with exit code 2."""
    whole, draw, wrong = checkpoint.read_bytes(), random.Random(seed), []
    damaged = checkpoint.with_name("damaged.pt")
    for attempt in range(times):
        content = bytearray(whole)
        if attempt % 5 == 4:
            at = draw.randrange(len(content))
            del content[at:]
            what = f"cut at byte {at}"
        else:
            at = draw.randrange(8 * len(content))
            content[at // 8] ^= 1 << at % 8
            what = f"bit {at} flipped"
        damaged.write_bytes(content)
        said = io.StringIO()
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
            code = main(["eval", str(damaged)])
        lines = said.getvalue().splitlines()
        if code != 2 or len(lines) != 1 or "damaged" not in lines[0]:
            wrong.append(f"{what}: exit code {code}: {said.getvalue()[:200]}")
    return wrong
