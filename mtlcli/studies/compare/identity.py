"""What a run is known by: its resolved experiment, but for what makes no difference to its figures."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from mtlcli.config import Experiment
from mtlcli.studies.runs import FREE

DIGITS = 12  # of the hash, in a folder's name


def identity(experiment: Experiment) -> str:
    """The hash of an experiment: the same for two that give the same run, wherever and however fast they train."""
    plain = experiment.resolved()
    for path in FREE:
        *parents, last = path.split(".")
        section: dict[str, Any] = plain
        for parent in parents:
            section = section[parent]
        section.pop(last)
    text = json.dumps(plain, ensure_ascii=False, default=str)  # in the order of the keys: that of the tasks counts
    return hashlib.sha256(text.encode()).hexdigest()[:DIGITS]


def run_folder(root: Path, label: str, experiment: Experiment) -> Path:
    """The folder of a run under `root`: the one that is there for this experiment, else one to be made.

    Its name tells people what it is; it is found by the hash, so that a run serves studies that call it differently.
    """
    known = identity(experiment)
    there = sorted(root.glob(f"*-{known}"))
    slug = re.sub(r"[^A-Za-z0-9_.=-]+", "_", label).strip("_.") or "run"
    return there[0] if there else root / f"{slug[:80]}-{experiment.seed}-{known}"
