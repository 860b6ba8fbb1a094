"""Malicious files, each read by `mtl` in a separate process whose memory and CPU time are measured."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.hostile import configs
from tests.hostile.checkpoints import CANARY
from tests.hostile.corpus import DOCUMENTED_FILES, write_checkpoints, write_configs

MAX_MEMORY = 2**30
MAX_EXTRA_SECONDS = 5.0  # CPU time, in addition to that of a valid file, most of which is the import of torch
# The peak memory of a process starts at that of the process it was forked from; hence a small process in between.
LAUNCHER = """
import os, subprocess, sys
process = subprocess.Popen([sys.executable, "-m", "mtlcli", *sys.argv[1:]], stdout=2)
used = os.wait4(process.pid, 0)
print(os.waitstatus_to_exitcode(used[1]), used[2].ru_maxrss * 1024, used[2].ru_utime + used[2].ru_stime)
"""


@dataclass(frozen=True)
class CallResult:
    """The result of a call of `mtl`.

    Attributes:
        code: The exit code.
        memory: The peak memory in bytes.
        seconds: The CPU time.
        stderr: The output to stderr.
    """

    code: int
    memory: int
    seconds: float
    stderr: str

    def is_refusal(self, usual: float) -> bool:
        """Return True if the file was refused with error messages, within the limits on memory and time.

        Args:
            usual: The CPU time of a call with a valid file, in seconds.
        """
        lines = self.stderr.splitlines()
        refused = self.code in (1, 2) and bool(lines) and all(line.startswith("error: ") for line in lines)
        return refused and self.memory < MAX_MEMORY and self.seconds < usual + MAX_EXTRA_SECONDS

    def __str__(self) -> str:
        first = self.stderr.partition("\n")[0]
        return f"exit code {self.code}, {self.memory / 2**20:.0f} MiB, {self.seconds:.1f} s: {first[:200]}"


def run_all(root: Path) -> tuple[dict[str, CallResult], list[str]]:
    """Call `mtl` with each of the files that docs/reliability.md lists.

    Args:
        root: The folder to create and to write the files to.

    Returns:
        The result of each call by its description, and a line for each call that did not refuse its file.
    """
    root.mkdir()
    write_checkpoints(root)
    write_configs(root)
    (root / "good.yaml").write_text(configs.yaml(), encoding="utf-8")
    usual = _call(["validate", str(root / "good.yaml")], root)
    assert usual.code == 0, usual
    results = {}
    for description, file in DOCUMENTED_FILES.items():
        path = str(root / file)
        if file.endswith(".pt"):
            calls = [["eval", path], ["export", path, "--format", "safetensors"]]
        else:
            calls = [["validate", path], ["train", "--dry-run", path]]
        for call in calls:
            results[f"{description}: mtl {call[0]}"] = _call(call, root)
    errors = [f"{call}: {result}" for call, result in results.items() if not result.is_refusal(usual.seconds)]
    if (root / CANARY).exists():
        errors.append("code in one of the files was executed")
    return results, errors


def _call(arguments: list[str], folder: Path) -> CallResult:
    environment = {**os.environ, **configs.ENVIRONMENT, "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1"}
    environment["PYTHONPATH"] = str(Path(__file__).parents[2])
    command = [sys.executable, "-S", "-c", LAUNCHER, *arguments]
    process = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True)
    code, memory, seconds = map(json.loads, process.stdout.split())
    return CallResult(code, memory, seconds, process.stderr)
