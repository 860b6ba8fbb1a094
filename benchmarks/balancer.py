"""Steps of `mtlcli.Balancer` against TorchJD's in the same hand-written training loop.

    python benchmarks/balancer.py                                  # every case and method; minutes
    python benchmarks/balancer.py --cases lenet --tasks 10 --methods upgrad --rounds 101
    python benchmarks/balancer.py --profile --cases lenet --tasks 10 --methods upgrad

The loop is the same for all: forward pass, losses, `zero_grad`, the balanced backward pass, Adam. TorchJD's is its own
`mtl_backward` and `jac_to_grad`, with its defaults (vmap over the tasks) and with `parallel_chunk_size=1` (one task at
a time); the last two columns are the Balancer's time divided by theirs. The contenders take turns, A B A B …, in one
process, and the numbers are medians. `features` is the Balancer with `features=`, for which TorchJD has no counterpart.
"""

import argparse
import cProfile
import pstats
import warnings
from collections.abc import Callable

import torch
import torch.nn.functional as F
import torchjd.aggregation
import torchvision
from textbook import SharedTrunk
from timing import timed
from torch import Tensor, nn
from torchjd.autojac import jac_to_grad, mtl_backward

import mtlcli

CLASSES = 10
CASES = {"lenet": (64, 1, 28, 28), "resnet18": (32, 3, 32, 32)}  # shapes of the batches
AGGREGATORS = {
    "upgrad": torchjd.aggregation.UPGrad,
    "mgda": torchjd.aggregation.MGDA,
    "pcgrad": torchjd.aggregation.PCGrad,
    "aligned_mtl": torchjd.aggregation.AlignedMTL,
    "cagrad": lambda: torchjd.aggregation.CAGrad(c=0.4),
}


class Loop:
    """A trunk, a linear head for each task and one batch, with a step for each contender."""

    def __init__(self, case: str, tasks: int, device: str) -> None:
        torch.manual_seed(0)
        self.trunk: nn.Module
        if case == "lenet":
            self.trunk, features = SharedTrunk(50), 50
        else:
            self.trunk, features = torchvision.models.resnet18(), 512
            self.trunk.fc = nn.Identity()
        self.heads = nn.ModuleList(nn.Linear(features, CLASSES) for _ in range(tasks))
        self.trunk.to(device)
        self.heads.to(device)
        self.inputs = torch.randn(CASES[case], device=device)
        self.targets = [torch.randint(CLASSES, (len(self.inputs),), device=device) for _ in range(tasks)]
        self.optimizer = torch.optim.Adam([*self.trunk.parameters(), *self.heads.parameters()], lr=1e-3)

    def losses(self) -> tuple[Tensor, list[Tensor]]:
        features = self.trunk(self.inputs)
        losses = [F.cross_entropy(head(features), y) for head, y in zip(self.heads, self.targets, strict=True)]
        return features, losses

    def step(self, backward: Callable[[Tensor, list[Tensor]], None]) -> Callable[[], None]:
        def step() -> None:
            features, losses = self.losses()
            self.optimizer.zero_grad()
            backward(features, losses)
            self.optimizer.step()

        return step


def contenders(case: str, tasks: int, method: str, device: str) -> dict[str, Callable[[], None]]:
    """Return the step of each contender, on a network of its own."""

    def balancer(by_features: bool) -> Callable[[], None]:
        loop = Loop(case, tasks, device)
        names = [f"task{i}" for i in range(tasks)]
        balancer = mtlcli.Balancer(method, shared=loop.trunk.parameters(), tasks=names)
        return loop.step(lambda features, losses: balancer.backward(losses, features if by_features else None))

    def torch_jd(chunk: int | None) -> Callable[[], None]:
        loop, aggregator = Loop(case, tasks, device), AGGREGATORS[method]()

        def backward(features: Tensor, losses: list[Tensor]) -> None:
            mtl_backward(losses, features=features, parallel_chunk_size=chunk)
            jac_to_grad(loop.trunk.parameters(), aggregator)

        return loop.step(backward)

    plain = Loop(case, tasks, device).step(lambda _, losses: torch.stack(losses).sum().backward())
    return {
        "plain": plain,
        "balancer": balancer(by_features=False),
        "torchjd": torch_jd(None),
        "torchjd chunk 1": torch_jd(1),
        "features": balancer(by_features=True),
    }


def profile(step: Callable[[], None], steps: int) -> None:
    """Print the functions that take the most time in a step of the Balancer."""
    step()
    profiler = cProfile.Profile()
    profiler.enable()
    for _ in range(steps):
        step()
    profiler.disable()
    pstats.Stats(profiler).sort_stats("tottime").print_stats(35)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--tasks", nargs="+", type=int, default=[3, 10])
    parser.add_argument("--methods", nargs="+", choices=AGGREGATORS, default=["upgrad", "mgda", "pcgrad"])
    parser.add_argument("--rounds", type=int, default=31)
    parser.add_argument("--seconds", type=float, default=90.0, help="about how long a row may take")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--profile", action="store_true", help="profile the Balancer's steps instead")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(args.threads)
    print(f"threads: {args.threads}; milliseconds of a step")
    print("| case | T | method | plain | Balancer | TorchJD | chunk 1 | features | / TorchJD | / chunk 1 |")
    print("| --- | ---: | --- |" + " ---: |" * 7)
    for case in args.cases:
        for tasks in args.tasks:
            for method in args.methods:
                steps = contenders(case, tasks, method, args.device)
                if args.profile:
                    profile(steps["balancer"], args.rounds)
                    continue
                medians = timed(steps, args.rounds, args.seconds)
                ratios = [medians["balancer"] / medians[name] for name in ("torchjd", "torchjd chunk 1")]
                cells = [f"{1e3 * medians[name]:.2f}" for name in steps]
                print(
                    f"| {case} | {tasks} | {method} | {' | '.join(cells + [f'{r:.2f}' for r in ratios])} |", flush=True
                )


if __name__ == "__main__":
    main()
