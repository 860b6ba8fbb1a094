"""Training device, its setup, memory, and the number of threads of a CPU."""

from __future__ import annotations

import ctypes
import logging
import math
import os
import random
import re
import resource
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from mtlcli.config import Experiment
from mtlcli.cores import ROOT, affinity, cpu_quota, group_usage, limited_group, physical_cores
from mtlcli.errors import ConfigError


def choose_device(experiment: Experiment) -> torch.device:
    """Return the device of `training.device`; ConfigError if it doesn't exist. `auto` is the first GPU, if any."""
    asked = experiment.training.device
    if asked == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda", 0)
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        if (form := re.fullmatch(r"(cpu|cuda|mps)(?::([0-9]+))?", asked)) is None:  # torch knows more, for other uses
            meant = (
                " (a GPU is `cuda`, or `cuda:0`)" if re.fullmatch(r"(?i)gpu.*|nvidia.*|cuda.*|[0-9]+", asked) else ""
            )
            raise RuntimeError(f"expected auto, cpu, cuda, cuda:INDEX or mps{meant}")
        kind, index = form.groups()
        amount = sum(name.partition(":")[0] == kind for name in devices())
        if amount == 0 or int(index or 0) >= amount:  # torch takes any of the CPU's, and cuts large ones to 8 bits
            raise RuntimeError(f"the largest index is {amount - 1}" if amount else "there is none")
        device = torch.device(asked)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).partition("\n")[0]
        message = f"device {asked!r} can't be used here: {reason}. Available: auto, {', '.join(devices())}"
        raise ConfigError(experiment.problem("training.device", message)) from error
    return torch.device("cuda", torch.cuda.current_device()) if asked == "cuda" else device


def devices() -> list[str]:
    """Return the names of the available devices."""
    names = ["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
    return [*names, "mps"] if torch.backends.mps.is_available() else names


def prepare_device(experiment: Experiment, device: torch.device) -> None:
    """Set the number of threads, determinism and memory allocation of this process, and seed all generators.

    Args:
        experiment: the experiment.
        device: the training device.
    """
    training = experiment.training
    torch.set_num_threads(first_threads(training.threads, by_load=device.type == "cpu" and not training.deterministic))
    if training.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it when it starts
    if torch.are_deterministic_algorithms_enabled() != training.deterministic:  # setting it imports torch's compiler
        torch.use_deterministic_algorithms(training.deterministic)
    torch.backends.cudnn.benchmark = device.type == "cuda" and not training.deterministic
    if device.type == "cpu":
        _keep_freed_memory()
    seed_everything(experiment.seed)


def seed_everything(seed: int) -> None:
    """Seed the random generators of Python, NumPy and torch."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def _keep_freed_memory() -> None:
    """Let glibc keep the memory that a step frees for the next one.

    By default, glibc returns every block over 128 KiB to the system, so that each step's activations are mapped and
    page-faulted again: a third of the time of a small network's step. 32 MiB is the maximum of M_MMAP_THRESHOLD.
    """
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:  # another C library than glibc may have none
            m_trim_threshold, m_mmap_threshold = -1, -3
            mallopt(m_mmap_threshold, 32 * 2**20)
            mallopt(m_trim_threshold, 512 * 2**20)


def physical_memory() -> int:
    """Return the memory of the machine in bytes."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def peak_memory(device: torch.device) -> int:
    """Return the peak memory in bytes: of the GPU's allocator, or of the process's resident set on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


LOG = logging.getLogger("mtl")

SHORTEST = 0.2  # seconds over which a load can be measured before a run
LONGEST = 30.0
BETWEEN = 1.0  # seconds of epochs after which it can be measured again
SLACK = 0.25  # fraction of a core that others may use while it counts as free
MOST = 4096


@dataclass(frozen=True)
class Sample:
    """CPU times at one moment, in seconds.

    Attributes:
        moment: time of a monotonic clock.
        busy: CPU time of all processes on the cores that this one may use.
        own: CPU time of this process.
        group: CPU time of the control group that limits this process, if any.
    """

    moment: float
    busy: float
    own: float
    group: float | None = None


def sample(root: Path = ROOT) -> Sample | None:
    """Read the CPU times.

    Args:
        root: root of the file system, with `proc` and `sys`.

    Returns:
        The CPU times; None if the system doesn't report them.
    """
    cores = {f"cpu{core}" for core in affinity()}
    count_nice = os.nice(0) > 0  # processes of lower priority than ours take little from us
    busy, has_core = 0, False
    try:
        lines = (root / "proc/stat").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return None
    for line in lines:
        name, *fields = line.split()
        if name in cores and len(fields) >= 8 and all(field.isdecimal() for field in fields[:8]):
            user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, fields[:8])
            busy += user + system + irq + softirq + steal + (nice if count_nice else 0)
            has_core = True
    if not has_core:
        return None
    limited = limited_group(root)
    group = None if limited is None else group_usage(limited[0])
    return Sample(time.monotonic(), busy / os.sysconf("SC_CLK_TCK"), time.process_time(), group)


def free_cores(before: Sample, after: Sample, cores: int, quota: float | None = None) -> float:
    """Return the number of cores that other processes left free between two samples.

    Args:
        before: the first sample.
        after: the second sample.
        cores: number of cores that this process may use.
        quota: CPU quota of this process's control group, in cores.

    Returns:
        Number of free cores, with fractions.
    """
    elapsed = max(after.moment - before.moment, 1e-9)
    own = after.own - before.own
    free = cores - max(0.0, after.busy - before.busy - own) / elapsed
    if quota is not None and before.group is not None and after.group is not None:
        free = min(free, quota - max(0.0, after.group - before.group - own) / elapsed)
    return free


def thread_limit(root: Path = ROOT) -> int:
    """Return the threads to use on an idle machine: `OMP_NUM_THREADS`, or the physical cores this process may use."""
    return explicit_threads() or physical_cores(root)


def explicit_threads() -> int | None:
    """Return the number in `OMP_NUM_THREADS`, which is never changed; None if it has none."""
    first = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return min(int(first), MOST) if first.isdecimal() and int(first) > 0 else None


_STARTED = sample()


def first_threads(asked: int | Literal["auto"], *, by_load: bool = True, root: Path = ROOT) -> int:
    """Return the number of threads to start with.

    Args:
        asked: `training.threads`; for `auto`, the number depends on the limit and the load of the machine.
        by_load: whether the load counts; if not, `auto` depends on the machine alone. The load is measured since the
            start of the program, or over 0.2 s if that was too recent or too long ago.
        root: root of the file system, with `proc` and `sys`.

    Returns:
        The number of threads.
    """
    if asked != "auto":
        return asked
    limit = thread_limit(root)
    if not by_load or limit == 1 or explicit_threads():
        return limit
    before, now = _STARTED, time.monotonic()
    if before is None or not SHORTEST <= now - before.moment <= LONGEST:
        before = sample(root)
        time.sleep(SHORTEST)
    after = sample(root)
    if before is None or after is None:
        return limit
    return _fitting(limit, free_cores(before, after, len(affinity()), cpu_quota(root)))


class Threads:
    """Number of threads of a run, adapted to the load of the machine between epochs.

    A smaller number is applied at once, a larger one after two measurements in a row that allow it.

    Args:
        asked: `training.threads`.
        judged: whether the number may change: on a CPU, and not `deterministic`.
        root: root of the file system, with `proc` and `sys`.

    Attributes:
        judged: whether the number may change: also requires `auto`, and no `OMP_NUM_THREADS`.
    """

    def __init__(self, asked: int | Literal["auto"], *, judged: bool, root: Path = ROOT) -> None:
        self.asked, self.root = asked, root
        self.limit = thread_limit(root)
        self.judged = judged and asked == "auto" and self.limit > 1 and explicit_threads() is None
        self._before = sample(root) if self.judged else None
        self._allowed: int | None = None  # threads that the previous measurement allowed, if more than there were

    def judge(self, epoch: int) -> None:
        """Set torch's number of threads by the load since the last call.

        Args:
            epoch: number of the next epoch, from 1, for the log.
        """
        before, after = self._before, sample(self.root) if self.judged else None
        if before is None or after is None or after.moment - before.moment < BETWEEN:
            return
        self._before = after
        now = torch.get_num_threads()
        free = free_cores(before, after, len(affinity()), cpu_quota(self.root))
        allowed = _fitting(self.limit, free)
        if allowed > now and self._allowed is None:
            self._allowed = allowed  # a larger number must be possible twice
            return
        fitting = min(allowed, self._allowed or allowed)
        self._allowed = None
        if fitting != now:
            torch.set_num_threads(fitting)
            LOG.info(
                "threads: %d instead of %d from epoch %d on, as other processes leave %.1f of %d cores free",
                fitting, now, epoch, max(0.0, free), len(affinity()),
            )  # fmt: skip

    def keep(self, saved: object) -> None:
        """Restore the number of threads of a checkpoint, for the same bits, and never change it again.

        A number that the user sets, in `training.threads` or `OMP_NUM_THREADS`, takes precedence.

        Args:
            saved: the number in the checkpoint; anything but a number is ignored.
        """
        if self.asked != "auto" or explicit_threads() is not None or not isinstance(saved, int):
            return
        now = torch.get_num_threads()
        if 1 <= saved <= MOST:
            self.judged = False
            torch.set_num_threads(saved)
            if saved != now:
                LOG.warning(
                    "continuing with %d thread%s as before, for the same bits; this machine allows %d, which "
                    "training.threads=%d would use",
                    saved, "" if saved == 1 else "s", now, now,
                )  # fmt: skip


def _fitting(limit: int, free: float) -> int:
    return max(1, min(limit, math.floor(free + SLACK)))
