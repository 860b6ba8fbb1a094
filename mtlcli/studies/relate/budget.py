"""How much a study may cost."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Budget:
    """What a study of relations may cost.

    seeds: single-task baselines of each task. epochs: the most that any run trains. networks: the most that the tasks
    may be divided among. jobs: baselines trained at the same time, each in a process of its own where there are
    several. encoder: the sentence encoder of `semantic`; None: TF-IDF.
    """

    seeds: int = 3
    epochs: int = 3
    networks: int = 2
    jobs: int = 1
    encoder: str | None = None
