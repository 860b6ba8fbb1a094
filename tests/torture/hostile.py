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
from tests.hostile.corpus import DOCUMENTED_FILES, make, make_configs

MEMORY, SECONDS = 2**30, 5.0  # of the processor; beside what it takes to find a good file good, with torch's import
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

    def right(self, usual: float) -> bool:
        """Whether it was refused as it should be. usual: seconds of a call with a good file."""
        lines = self.said.splitlines()
        refused = self.code in (1, 2) and bool(lines) and all(line.startswith("error: ") for line in lines)
        return refused and self.memory < MEMORY and self.seconds < usual + SECONDS

    def __str__(self) -> str:
        first = self.said.partition("\n")[0]
        return f"exit code {self.code}, {self.memory / 2**20:.0f} MiB, {self.seconds:.1f} s: {first[:200]}"


def refusals(root: Path) -> tuple[dict[str, Told], list[str]]:
    """What each of the files that `docs/reliability.md` lists was answered with, and what of that isn't right."""
    root.mkdir()
    make(root)
    make_configs(root)
    (root / "good.yaml").write_text(configs.yaml(), encoding="utf-8")
    usual = _call(["validate", str(root / "good.yaml")], root)
    assert usual.code == 0, usual
    answers = {}
    for words, file in DOCUMENTED_FILES.items():
        path = str(root / file)
        if file.endswith(".pt"):
            calls = [["eval", path], ["export", path, "--format", "safetensors"]]
        else:
            calls = [["validate", path], ["train", "--dry-run", path]]
        for call in calls:
            answers[f"{words}: mtl {call[0]}"] = _call(call, root)
    wrong = [f"{what}: {answer}" for what, answer in answers.items() if not answer.right(usual.seconds)]
    if (root / CANARY).exists():
        wrong.append("code in one of them ran")
    return answers, wrong


def _call(arguments: list[str], folder: Path) -> Told:
    environment = {**os.environ, **configs.ENVIRONMENT, "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1"}
    environment["PYTHONPATH"] = str(Path(__file__).parents[2])
    command = [sys.executable, "-S", "-c", BETWEEN, *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True)
    code, memory, seconds = map(json.loads, done.stdout.split())
    return Told(code, memory, seconds, done.stderr)
