"""Processor cores that this process may use: its affinity, and the CPU quota of its control groups.

Imports nothing of `mtlcli`. `root` is the folder that stands for `/`; the tests have trees of their own.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path("/")


def usable_cores(root: Path = ROOT) -> int:
    """Cores this process may keep busy: those of its affinity, and no more than its quota, rounded down; at least 1."""
    cores, quota = len(affinity()), cpu_quota(root)
    return cores if quota is None else max(1, min(cores, int(quota)))


def physical_cores(root: Path = ROOT) -> int:
    """The same, counting cores that share their arithmetic units (hyper-threads) once, as MKL does."""
    siblings = set()
    for core in affinity():
        path = root / f"sys/devices/system/cpu/cpu{core}/topology/thread_siblings_list"
        siblings.add(_read(path).strip() or str(core))
    return min(len(siblings), usable_cores(root))


def affinity() -> set[int]:
    """Numbers of the cores this process may run on."""
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))


def cpu_quota(root: Path = ROOT) -> float | None:
    """Cores' worth of CPU time that the control groups (v1 or v2) of this process allow; None without a limit."""
    limited = limited_group(root)
    return None if limited is None else limited[1]


def limited_group(root: Path = ROOT) -> tuple[Path, float] | None:
    """The control group with the smallest quota among those of this process and their ancestors, and that quota."""
    quotas = [(folder, quota) for folder in _groups(root) if (quota := _quota(folder)) is not None]
    return min(quotas, key=lambda pair: pair[1], default=None)


def group_usage(folder: Path) -> float | None:
    """Seconds of CPU time that a control group has used so far; None where the kernel doesn't say."""
    if found := re.search(r"^usage_usec (\d+)", _read(folder / "cpu.stat"), re.MULTILINE):
        return int(found[1]) / 1e6
    text = _read(folder / "cpuacct.usage").strip()
    return int(text) / 1e9 if text.isdecimal() else None


def _groups(root: Path) -> Iterator[Path]:
    """The folders of the groups that can limit this process's CPU time: its own, and those above it."""
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
        if not folder.is_dir():  # the path is the host's, and this is a container: what is mounted is its own group
            folder = top
        while True:
            yield folder
            if folder == top:
                break
            folder = folder.parent


def _relative(path: str, mounted: str) -> str:
    """A group's path below the group that is mounted."""
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
    r"""A field of mountinfo, in which a space is `\040`."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
