"""Environment of a run: versions, device, commit, command line."""

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
    """Describe the environment of this process.

    Args:
        device: the training device.

    Returns:
        The content of environment.json.
    """
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
    """Return the installed version of each package `mtl` depends on; None if it is missing."""
    installed: dict[str, str | None] = {}
    for package in PACKAGES:
        try:
            installed[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            installed[package] = None
    return installed


def device_name(device: torch.device) -> str:
    """Return the name of a device, with the model of a GPU."""
    return f"{device} ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else str(device)


def git_commit() -> str | None:
    """Return the commit of the current git checkout, followed by a + if it has changes; None outside a checkout."""
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
