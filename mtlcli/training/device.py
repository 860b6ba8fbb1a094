"""The device a run trains on, and how that device is set up."""

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
    """`training.device`; `auto` is the first GPU if there is one. ConfigError where the device doesn't exist."""
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
        message = f"device {asked!r} can't be used here: {reason}. Here are: auto, {', '.join(devices())}"
        raise ConfigError(experiment.problem("training.device", message)) from error
    return torch.device("cuda", torch.cuda.current_device()) if asked == "cuda" else device


def devices() -> list[str]:
    """Names of the devices there are."""
    found = ["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
    return [*found, "mps"] if torch.backends.mps.is_available() else found


def prepare_device(experiment: Experiment, device: torch.device) -> None:
    """Set thread count, determinism and memory allocation of this process, and seed every generator."""
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
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def _keep_freed_memory() -> None:
    """Let glibc keep the memory that one step frees for the next one.

    By default it returns every block over 128 KiB to the system, so each step's activations are mapped and page-faulted
    anew: a third of the time of a small network's step. 32 MiB is the most M_MMAP_THRESHOLD takes.
    """
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:  # another C library than glibc may have none
            m_trim_threshold, m_mmap_threshold = -1, -3
            mallopt(m_mmap_threshold, 32 * 2**20)
            mallopt(m_trim_threshold, 512 * 2**20)


def peak_memory(device: torch.device) -> int:
    """Bytes: the most the GPU's allocator held, or the process's largest resident set on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


LOG = logging.getLogger("mtl")

SHORTEST = 0.2  # seconds over which a load can be measured before a run
LONGEST = 30.0
BETWEEN = 1.0  # seconds of epochs over which it can be measured again
SLACK = 0.25  # of a core, that others may use without taking it away
MOST = 4096


@dataclass(frozen=True)
class Sample:
    """CPU time up to a moment, in seconds.

    moment: of a monotonic clock. busy: of all processes, on the cores this one may run on. own: of this process.
    group: of the control group that limits this process, if there is one.
    """

    moment: float
    busy: float
    own: float
    group: float | None = None


def sample(root: Path = ROOT) -> Sample | None:
    """CPU time up to now; None where the system doesn't say."""
    cores = {f"cpu{core}" for core in affinity()}
    count_nice = os.nice(0) > 0  # processes of lower priority than ours take little from us
    busy, known = 0, False
    try:
        lines = (root / "proc/stat").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return None
    for line in lines:
        name, *fields = line.split()
        if name in cores and len(fields) >= 8 and all(field.isdecimal() for field in fields[:8]):
            user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, fields[:8])
            busy += user + system + irq + softirq + steal + (nice if count_nice else 0)
            known = True
    if not known:
        return None
    limited = limited_group(root)
    group = None if limited is None else group_usage(limited[0])
    return Sample(time.monotonic(), busy / os.sysconf("SC_CLK_TCK"), time.process_time(), group)


def free_cores(before: Sample, after: Sample, cores: int, quota: float | None = None) -> float:
    """Cores that other processes left free between two samples, of `cores` and of the quota of this process's group."""
    elapsed = max(after.moment - before.moment, 1e-9)
    own = after.own - before.own
    free = cores - max(0.0, after.busy - before.busy - own) / elapsed
    if quota is not None and before.group is not None and after.group is not None:
        free = min(free, quota - max(0.0, after.group - before.group - own) / elapsed)
    return free


def thread_limit(root: Path = ROOT) -> int:
    """Threads on an idle machine: `OMP_NUM_THREADS` where it is set, else the physical cores this process may use."""
    return explicit_threads() or physical_cores(root)


def explicit_threads() -> int | None:
    """The number in `OMP_NUM_THREADS`, which is not judged."""
    first = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return min(int(first), MOST) if first.isdecimal() and int(first) > 0 else None


_STARTED = sample()


def first_threads(asked: int | Literal["auto"], *, by_load: bool = True, root: Path = ROOT) -> int:
    """The threads to start with: `asked`, or for `auto` as many as the limit and the load of the machine leave.

    by_load: False for a number that depends on the machine alone. The load is measured from the start of the program;
    where that was too long or too short ago, over 0.2 s.
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
    """Judges the number of threads of a run between its epochs.

    judged: whether the number may change: `auto`, on a CPU, without `OMP_NUM_THREADS` and not `deterministic`.
    A smaller number is taken at once, a larger one when two measurements in a row have room for it.
    """

    def __init__(self, asked: int | Literal["auto"], *, judged: bool, root: Path = ROOT) -> None:
        self.asked, self.root = asked, root
        self.limit = thread_limit(root)
        self.judged = judged and asked == "auto" and self.limit > 1 and explicit_threads() is None
        self._before = sample(root) if self.judged else None
        self._room: int | None = None  # of the measurement before, where that was for more threads

    def judge(self, epoch: int) -> None:
        """Set torch's number of threads for the epochs from `epoch` (from 1) on."""
        before, after = self._before, sample(self.root) if self.judged else None
        if before is None or after is None or after.moment - before.moment < BETWEEN:
            return
        self._before = after
        now = torch.get_num_threads()
        free = free_cores(before, after, len(affinity()), cpu_quota(self.root))
        room = _fitting(self.limit, free)
        if room > now and self._room is None:
            self._room = room  # a larger number has to fit twice
            return
        fitting = min(room, self._room or room)
        self._room = None
        if fitting != now:
            torch.set_num_threads(fitting)
            LOG.info(
                "threads: %d instead of %d from epoch %d on, as other processes leave %.1f of %d cores free",
                fitting, now, epoch, max(0.0, free), len(affinity()),
            )  # fmt: skip

    def keep(self, saved: object) -> None:
        """Go on with the number of threads in a checkpoint, for the same bits; from then on it isn't judged.

        A number that the user gives, in `training.threads` or `OMP_NUM_THREADS`, is kept instead.
        """
        if self.asked != "auto" or explicit_threads() is not None or not isinstance(saved, int):
            return
        now = torch.get_num_threads()
        if 1 <= saved <= MOST:
            self.judged = False
            torch.set_num_threads(saved)
            if saved != now:
                LOG.warning(
                    "going on with %d thread%s as before, for the same bits, where this machine has room for %d; "
                    "training.threads=%d uses that",
                    saved, "" if saved == 1 else "s", now, now,
                )  # fmt: skip


def _fitting(limit: int, free: float) -> int:
    return max(1, min(limit, math.floor(free + SLACK)))
