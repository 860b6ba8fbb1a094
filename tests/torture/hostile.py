"""Files that mean harm, each given to `mtl` in a process of its own, whose memory and time are measured."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.hostile import configs
from tests.hostile.checkpoints import CANARY
from tests.hostile.corpus import ASKED_FOR, make, make_configs

MEMORY, SECONDS = 2**30, 5.0
# A process's peak begins with what the one it was forked from had: a small one stands between.
BETWEEN = """
import os, subprocess, sys
process = subprocess.Popen([sys.executable, "-m", "mtlcli", *sys.argv[1:]], stdout=2)
used = os.wait4(process.pid, 0)
print(os.waitstatus_to_exitcode(used[1]), used[2].ru_maxrss * 1024, used[2].ru_utime + used[2].ru_stime)
"""


@dataclass(frozen=True)
class Told:
    """What became of a call: exit code, bytes at most, seconds of the processor, what it said."""

    code: int
    memory: int
    seconds: float
    said: str

    @property
    def wrong(self) -> bool:
        told = self.said.splitlines()
        right = self.code in (1, 2) and told and all(line.startswith("error: ") for line in told)
        return not right or self.memory > MEMORY or self.seconds > SECONDS

    def __str__(self) -> str:
        first = self.said.partition("\n")[0]
        return f"exit code {self.code}, {self.memory / 2**20:.0f} MiB, {self.seconds:.1f} s: {first[:200]}"


def told(root: Path) -> dict[str, Told]:
    """What each of the files that `docs/reliability.md` lists was answered with, and what code in one left behind."""
    root.mkdir()
    make(root)
    make_configs(root)
    answers = {}
    for words, file in ASKED_FOR.items():
        path = str(root / file)
        if file.endswith(".pt"):
            calls = [["eval", path], ["export", path, "--format", "safetensors"]]
        else:
            calls = [["validate", path], ["train", "--dry-run", path]]
        for call in calls:
            answers[f"{words}: mtl {call[0]}"] = _call(call, root)
    if (root / CANARY).exists():
        answers["code in one of them"] = Told(0, 0, 0.0, "ran")
    return answers


def _call(arguments: list[str], folder: Path) -> Told:
    environment = {**os.environ, **configs.ENVIRONMENT, "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1"}
    environment["PYTHONPATH"] = str(Path(__file__).parents[2])
    command = [sys.executable, "-S", "-c", BETWEEN, *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True)
    code, memory, seconds = map(json.loads, done.stdout.split())
    return Told(code, memory, seconds, done.stderr)
