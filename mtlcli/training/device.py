"""The device a run trains on, and how that device is set up."""

from __future__ import annotations

import ctypes
import os
import random
import re
import resource
import sys

import numpy as np
import torch

from mtlcli.config import Experiment
from mtlcli.errors import ConfigError
from mtlcli.training.threads import first_threads


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
