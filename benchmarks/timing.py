"""Times of several steps that take turns in one process."""

import statistics
import time
from collections.abc import Callable

import torch


def timed(steps: dict[str, Callable[[], object]], rounds: int, most: float) -> dict[str, float]:
    """Return the median seconds of each step: in turns, `rounds` times, or fewer (5 at least) in `most` seconds."""
    for step in steps.values():
        step()
        step()
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    start = time.perf_counter()
    for count in range(rounds):
        if count >= 5 and time.perf_counter() - start > most:
            break
        for name, step in steps.items():
            begin = time.perf_counter()
            step()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            seconds[name].append(time.perf_counter() - begin)
    return {name: statistics.median(values) for name, values in seconds.items()}
