"""The number of files that a plain training run passes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

WALK = Path(__file__).parents[1] / "benchmarks" / "walk.py"
MOST_FILES = 80
MOST_RETURNS = 40


def test_a_plain_run_passes_few_files() -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run([sys.executable, WALK], env=environment, capture_output=True, text=True)
    counts = re.fullmatch(r"exit code 0: (\d+) files, (\d+) returns during the construction\n", done.stdout)
    assert counts is not None, done.stdout + done.stderr
    files, returns = map(int, counts.groups())
    # `python benchmarks/walk.py --list` lists them: call a feature only in runs that use it, or merge small modules
    assert files <= MOST_FILES
    assert returns <= MOST_RETURNS
