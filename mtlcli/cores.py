"""CPU cores that this process may use by its affinity and its control groups.

The parameter `root` of the functions replaces `/` in tests.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path("/")


def usable_cores(root: Path = ROOT) -> int:
    """Return the number of cores that this process may use: its affinity, limited by its quota; at least 1."""
    cores, quota = len(affinity()), cpu_quota(root)
    return cores if quota is None else max(1, min(cores, int(quota)))


def physical_cores(root: Path = ROOT) -> int:
    """Return the same number with hyper-threads of one core counted once, as MKL does."""
    siblings = set()
    for core in affinity():
        path = root / f"sys/devices/system/cpu/cpu{core}/topology/thread_siblings_list"
        siblings.add(_read(path).strip() or str(core))
    return min(len(siblings), usable_cores(root))


def affinity() -> set[int]:
    """Return the numbers of the cores on which this process may run."""
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))


def cpu_quota(root: Path = ROOT) -> float | None:
    """Return the CPU quota of this process's control groups (v1 or v2), in cores; None without a limit."""
    limited = limited_group(root)
    return None if limited is None else limited[1]


def limited_group(root: Path = ROOT) -> tuple[Path, float] | None:
    """Return the control group with the smallest quota among those of this process and their parents, and the quota."""
    quotas = [(folder, quota) for folder in _groups(root) if (quota := _quota(folder)) is not None]
    return min(quotas, key=lambda pair: pair[1], default=None)


def group_usage(folder: Path) -> float | None:
    """Return the CPU time that a control group has used so far, in seconds; None if it is unavailable."""
    if match := re.search(r"^usage_usec (\d+)", _read(folder / "cpu.stat"), re.MULTILINE):
        return int(match[1]) / 1e6
    text = _read(folder / "cpuacct.usage").strip()
    return int(text) / 1e9 if text.isdecimal() else None


def _groups(root: Path) -> Iterator[Path]:
    """Yield the folders of the groups that can limit this process's CPU time: its own and their parents."""
    paths: dict[str, str] = {}  # controller, or "" for version 2 → path
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        paths |= dict.fromkeys(controllers.split(","), path)
    for line in _read(root / "proc/self/mountinfo").splitlines():
        before, _, after = line.partition(" - ")
        fields, kind = before.split(" "), after.split(" ")
        if len(fields) < 5 or not kind or kind[0] not in ("cgroup", "cgroup2"):
            continue
        controller = "" if kind[0] == "cgroup2" else "cpu"
        if controller and controller not in kind[-1].split(","):
            continue
        top = root / _unescaped(fields[4]).lstrip("/")
        folder = top / _relative(paths.get(controller, "/"), _unescaped(fields[3]))
        if not folder.is_dir():  # in a container: the path is the host's, the mount is its group
            folder = top
        while True:
            yield folder
            if folder == top:
                break
            folder = folder.parent


def _relative(path: str, mounted: str) -> str:
    """Return a group's path relative to the mounted group."""
    inside = mounted == "/" or path == mounted or path.startswith(f"{mounted}/")
    return path.removeprefix(mounted).lstrip("/") if inside and ".." not in path.split("/") else ""


def _quota(folder: Path) -> float | None:
    quota, _, period = _read(folder / "cpu.max").strip().partition(" ")
    if not quota:
        quota, period = (_read(folder / f"cpu.cfs_{name}_us").strip() for name in ("quota", "period"))
    if not (quota.isdecimal() and period.isdecimal()) or int(quota) == 0 or int(period) == 0:  # `max`, or −1
        return None
    return int(quota) / int(period)


def _unescaped(text: str) -> str:
    r"""Unescape a field of mountinfo, in which a space is `\040`."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
