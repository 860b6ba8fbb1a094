"""What a run was made with: versions, device, commit, command line."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
import sys
from typing import Any

import torch

from mtlcli.version import __version__

PACKAGES = (
    "torch",
    "torchvision",
    "torchmetrics",
    "numpy",
    "scikit-learn",
    "pydantic",
    "PyYAML",
    "typer",
    "matplotlib",
)


def environment(device: torch.device) -> dict[str, Any]:
    """A JSON document of this process's environment."""
    return {
        "mtl": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": versions(),
        "device": device_name(device),
        "threads": torch.get_num_threads(),
        "git_commit": git_commit(),
        "command": sys.argv,
    }


def versions() -> dict[str, str | None]:
    """Installed version of each package `mtl` stands on, None where it is missing."""
    found: dict[str, str | None] = {}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = None
    return found


def device_name(device: torch.device) -> str:
    return f"{device} ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else str(device)


def git_commit() -> str | None:
    """Commit of the git checkout the process runs in, with a + where it has changes; None outside one."""
    try:
        commit = subprocess.run(
            ["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5, check=True
        ).stdout.strip()
        dirty = subprocess.run(
            ["git", "status", "--porcelain", "-uno"], capture_output=True, text=True, timeout=5, check=True
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
    return commit + ("+" if dirty else "")
