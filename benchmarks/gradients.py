"""Cost of gradient balancing: a training step of every weighting, relative to a plain step of the summed losses.

    python benchmarks/gradients.py                        # all cases and methods; takes minutes
    python benchmarks/gradients.py --cases same10 --methods mgda upgrad
    python benchmarks/gradients.py --solvers              # only the solvers, on a Gramian
    python benchmarks/gradients.py --batched              # repeated backward passes against batched ones (vmap)

The plain step is implemented here: the trunk of `textbook.py`, heads in a loop, the sum of the losses, one backward
pass, torch's Adam. TorchJD's steps use `mtl_backward` and `jac_to_grad` on that network. All steps alternate, A B C A
B C …, in one process with one thread; the results are medians. `mtl`'s step is the whole `training.Step`, from raw
inputs to the update. `benchmarks/balancer.py` compares the Balancer with TorchJD in the same hand-written loop.
"""

import argparse
import warnings

import torch
import torch.nn.functional as F
import torchjd.aggregation
import torchvision
from textbook import SharedTrunk
from timing import timed
from torch import Tensor, nn
from torchjd.autojac import jac_to_grad, mtl_backward

from mtlcli.config import experiment_from_dict
from mtlcli.data.base import Dataset, Examples
from mtlcli.data.loader import Batch
from mtlcli.models.trunks.cnn import CNN
from mtlcli.models.trunks.lenet import LeNet
from mtlcli.models.trunks.mlp import MLP
from mtlcli.registry import datasets, weightings
from mtlcli.specs import DatasetSpec, TargetSpec
from mtlcli.training.assembly.build import build
from mtlcli.training.assembly.optimizers import make_optimizer
from mtlcli.training.step import Step
from mtlcli.weighting.base import GradientWeighting, JacobianWeighting, WeightedTask

CLASSES = 10
CASES = {  # datasets, tasks, input, batch, trunk
    "disjoint": (2, 2, (1, 28, 28), 64, {"name": "lenet"}),
    "same10": (1, 10, (1, 28, 28), 64, {"name": "lenet"}),
    "same40": (1, 40, (1, 28, 28), 64, {"name": "lenet"}),
    "resnet18": (1, 3, (3, 32, 32), 32, {"name": "torchvision", "model": "resnet18"}),
}
CHOICE = ("torchjd", "relation")  # require an option: an aggregator, a matrix
DIGITS = {
    "name": "digits", "datasets": {"digits": {"name": "digits"}}, "trunk": "mlp", "training": {"threads": 1},
    "tasks": {"digit": {"dataset": "digits", "target": "digit", "kind": "classification"}},
}  # fmt: skip
TORCHJD = {  # name here → TorchJD's aggregator
    "mgda": lambda a, t: a.MGDA(), "pcgrad": lambda a, t: a.PCGrad(), "cagrad": lambda a, t: a.CAGrad(c=0.4),
    "imtl_g": lambda a, t: a.IMTLG(), "nash_mtl": lambda a, t: a.NashMTL(n_tasks=t),
    "fairgrad": lambda a, t: a.FairGrad(alpha=2.0), "aligned_mtl": lambda a, t: a.AlignedMTL(),
    "upgrad": lambda a, t: a.UPGrad(), "dualproj": lambda a, t: a.DualProj(), "gradvac": lambda a, t: a.GradVac(),
    "graddrop": lambda a, t: a.GradDrop(), "conflict_free": lambda a, t: a.ConFIG(),
    "excess_mtl": lambda a, t: a.ExcessMTL(),
}  # fmt: skip


@datasets.register("made_up")
class MadeUp(Dataset):
    """Shapes of a dataset without examples; the batches are random tensors."""

    def __init__(self, *, shape: list[int], tasks: int) -> None:
        super().__init__()
        self.shape, self.tasks = shape, tasks

    def describe(self) -> DatasetSpec:
        target = TargetSpec("classes", CLASSES, tuple(map(str, range(CLASSES))))
        targets = {f"t{i}": target for i in range(self.tasks)}
        return DatasetSpec(tuple(self.shape), targets, None, ("train", "val"), (0.0,), (1.0,), {})

    def read(self, split: str, seed: int) -> Examples:
        raise NotImplementedError


class Network(nn.Module):
    """Plain network of a trunk and a linear head for each task."""

    def __init__(self, trunk: nn.Module, features: int, tasks: int) -> None:
        super().__init__()
        self.trunk = trunk
        self.heads = nn.ModuleList(nn.Linear(features, CLASSES) for _ in range(tasks))


class Case:
    """One of the CASES, with a batch and a step of each contender."""

    def __init__(self, name: str, device: str) -> None:
        self.device = device
        self.aliases, self.tasks, self.shape, size, self.trunk = CASES[name]
        torch.manual_seed(0)
        self.inputs = [torch.randn(size, *self.shape).to(device) for _ in range(self.aliases)]
        self.targets = [torch.randint(CLASSES, (size,)).to(device) for _ in range(self.tasks)]

    def network(self) -> Network:
        if self.trunk["name"] == "lenet":
            return Network(SharedTrunk(50), 50, self.tasks).to(self.device)
        trunk = torchvision.models.resnet18()
        trunk.fc = nn.Identity()
        return Network(trunk, 512, self.tasks).to(self.device)

    def losses(self, network: Network) -> tuple[list[Tensor], list[Tensor]]:
        """Return the trunk's outputs, one per dataset, and the tasks' losses."""
        features = [network.trunk(x) for x in self.inputs]
        losses = [
            F.cross_entropy(head(features[i % self.aliases]), self.targets[i]) for i, head in enumerate(network.heads)
        ]
        return features, losses

    def plain(self):
        network = self.network()
        optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)

        def step() -> None:
            optimizer.zero_grad()
            sum(self.losses(network)[1]).backward()
            optimizer.step()

        return step

    def torchjd(self, method: str):
        network = self.network()
        optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
        aggregator = TORCHJD[method](torchjd.aggregation, self.tasks)

        def step() -> None:
            optimizer.zero_grad()
            features, losses = self.losses(network)
            mtl_backward(losses, features=features)
            jac_to_grad(network.trunk.parameters(), aggregator)
            optimizer.step()

        return step

    def mtl(self, weighting: dict):
        per_alias = self.tasks // self.aliases
        aliases = [f"d{i}" for i in range(self.aliases)]
        experiment = experiment_from_dict({
            "name": "benchmark",
            "datasets": {a: {"name": "made_up", "shape": list(self.shape), "tasks": per_alias} for a in aliases},
            "tasks": {f"task{i}": {"dataset": aliases[i % self.aliases], "kind": "classification",
                                   "target": f"t{i // self.aliases}"} for i in range(self.tasks)},
            "trunk": self.trunk, "weighting": weighting, "optimizer": {"name": "Adam", "lr": 1e-3},
            "training": {"threads": 1, "device": self.device},
        })  # fmt: skip
        run = build(experiment)
        run.model.train()
        step = Step(run, make_optimizer(run))
        names = list(run.kinds)
        batch = Batch(
            dict(zip(aliases, self.inputs, strict=True)),
            dict(zip(names, self.targets, strict=True)),
            {name: len(self.inputs[0]) for name in names},
        )
        return (lambda: step([batch])), step.backward.route


def steps(cases: list[str], methods: list[str], rounds: int, most: float, device: str) -> None:
    for name in cases:
        case = Case(name, device)
        contenders, routes = {"plain": case.plain()}, {}
        for method in methods:
            target = weightings[method].target
            variants = [{"name": method}]
            if issubclass(target, GradientWeighting) and case.aliases == 1:
                if "features" in target.gradients:
                    variants.append({"name": method, "gradients": "features"})
                if target.reuses_weights:
                    every = {"name": method, "every": 10}
                    contenders[f"{method} every 10"] = many(case.mtl(every)[0], 10)
            for variant in variants:
                label = method + (" features" if "gradients" in variant else "")
                contenders[label], routes[label] = case.mtl(variant)
            if method in TORCHJD:
                contenders[f"torchjd {method}"] = case.torchjd(method)
        medians = timed(contenders, rounds, most)
        plain = medians["plain"]
        print(f"\n## {name}: {CASES[name]}; the plain step takes {plain * 1e3:.2f} ms")
        print("| weighting | route | exact | features | every 10 | TorchJD | exact / TorchJD |")
        print("| --- | --- | ---: | ---: | ---: | ---: | ---: |")
        for method in methods:
            cells = [medians.get(label, 0) / plain for label in (method, f"{method} features")]
            cells += [medians.get(f"{method} every 10", 0) / 10 / plain, medians.get(f"torchjd {method}", 0) / plain]
            cells.append(cells[0] / cells[3] if cells[3] else 0)
            print(f"| {method} | {routes[method]} | {' | '.join(f'{c:.2f}' if c else '' for c in cells)} |", flush=True)


def many(step, count: int):
    def repeated() -> None:
        for _ in range(count):
            step()

    return repeated


def solvers(methods: list[str], rounds: int) -> None:
    """Print the milliseconds of each method alone on Jacobians [T, 1000]: random ones, and rows that nearly cancel."""
    print("| weighting | T=10 random | T=10 conflicting | T=40 random | T=40 conflicting |\n| --- |" + " ---: |" * 4)
    torch.set_num_threads(1)
    build(experiment_from_dict(DIGITS))  # configures the process as a run does
    for method in methods:
        target = weightings[method].target
        if not issubclass(target, GradientWeighting):
            continue
        cells, given = [], None
        for tasks in (10, 40):
            for pull in (0.0, 0.999):
                weighting = target([WeightedTask(str(i)) for i in range(tasks)])
                rows = torch.randn(tasks, 1000, generator=torch.Generator().manual_seed(0))
                jacobian = rows - pull * rows.mean(0)
                gramian = (jacobian @ jacobian.T).double()
                losses = torch.linspace(0.5, 1.5, tasks, dtype=torch.float64)
                if issubclass(target, JacobianWeighting):
                    weighting.allocate(1000)
                    given = jacobian

                def solve(weighting=weighting, given=given, gramian=gramian, losses=losses) -> None:
                    weighting.start_step()
                    if given is None:
                        weighting.weights(gramian, losses, range(len(losses)))
                    else:
                        weighting.update(given, gramian, losses, range(len(losses)))

                cells.append(timed({"": solve}, rounds, most=2.0)[""])
        print(f"| {method} | {' | '.join(f'{cell * 1e3:.3f}' for cell in cells)} |", flush=True)


def batched(rounds: int) -> None:
    """Print the time of T backward passes of a trunk batched by vmap, as a ratio to one after another."""
    torch.set_num_threads(1)
    trunks = {
        "mlp 64-256-128, batch 64": (lambda: MLP((64,)), (64, 64)),
        "mlp 64-256-128, batch 512": (lambda: MLP((64,)), (512, 64)),
        "mlp 784-512-256-128, batch 64": (lambda: MLP((784,), hidden=[512, 256]), (64, 784)),
        "lenet, batch 64": (lambda: LeNet((1, 28, 28)), (64, 1, 28, 28)),
        "cnn, batch 32": (lambda: CNN((1, 28, 28)), (32, 1, 28, 28)),
    }
    print("| trunk | T=2 | T=10 | T=40 |\n| --- | ---: | ---: | ---: |")
    for name, (make, shape) in trunks.items():
        cells = []
        for tasks in (2, 10, 40):
            trunk, x = make(), torch.randn(shape)
            parameters = list(trunk.parameters())
            cotangents = torch.randn(tasks, *trunk(x).shape)
            jacobian = [torch.zeros(tasks, *p.shape) for p in parameters]

            def repeated(trunk=trunk, x=x, parameters=parameters, cotangents=cotangents, jacobian=jacobian) -> None:
                out = trunk(x)
                for task, cotangent in enumerate(cotangents):
                    gradients = torch.autograd.grad(out, parameters, cotangent, retain_graph=True)
                    torch._foreach_copy_([row[task] for row in jacobian], gradients)

            def at_once(trunk=trunk, x=x, parameters=parameters, cotangents=cotangents, jacobian=jacobian) -> None:
                gradients = torch.autograd.grad(trunk(x), parameters, cotangents, is_grads_batched=True)
                torch._foreach_copy_(jacobian, gradients)

            medians = timed({"repeated": repeated, "batched": at_once}, rounds, most=10.0)
            cells.append(medians["batched"] / medians["repeated"])
        print(f"| {name} | {' | '.join(f'{cell:.2f}' for cell in cells)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--methods", nargs="+", default=[name for name in weightings.names() if name not in CHOICE])
    parser.add_argument("--rounds", type=int, default=31)
    parser.add_argument("--seconds", type=float, default=120.0, help="about how long a case may take")
    parser.add_argument("--device", default="cpu", help="that the steps run on")
    parser.add_argument("--solvers", action="store_true")
    parser.add_argument("--batched", action="store_true")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    if args.solvers:
        solvers(args.methods, args.rounds)
    elif args.batched:
        batched(args.rounds)
    else:
        torch.set_num_threads(1)
        steps(args.cases, args.methods, args.rounds, args.seconds, args.device)


if __name__ == "__main__":
    main()
