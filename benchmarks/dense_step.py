"""Cost of a training step of segmentation, depth and normals, relative to plain PyTorch, TorchJD and LibMTL's code.

    python benchmarks/dense_step.py                        # takes about 10 minutes on one core
    python benchmarks/dense_step.py --methods mgda --rounds 9
    python benchmarks/dense_step.py --case deeplab --device cuda --precision bf16   # each weighting: images/s, memory

The images are those of `scenes`. A network has a dilated ResNet and a head for each of the three tasks; every contender
has the same weights, which is checked by the losses of the first step. The contenders take turns in one process, A B C
A B C …, and the results are medians. `mtl`'s step is the whole `training.Step`, from raw images to the update.

plain: torch's own functions and Adam, one backward pass of the summed losses.
torchjd: `mtl_backward` and `jac_to_grad`, with their default options, and with `parallel_chunk_size=1` (no vmap).
libmtl: LibMTL's procedure, here with `mtl`'s solver: a backward pass of each loss through the whole network, whose
gradients are copied into a matrix; or, with `features`, through the heads only (its `rep_grad`).
"""

import argparse
import gc
import warnings
from collections.abc import Callable

import torch
import torch.nn.functional as F
import torchjd.aggregation
import torchvision
from gradients import TORCHJD
from timing import timed
from torch import Tensor, nn
from torchjd.autojac import jac_to_grad, mtl_backward

from mtlcli.config import experiment_from_dict
from mtlcli.data.loader import Batch
from mtlcli.registry import weightings
from mtlcli.training.assembly.build import build
from mtlcli.training.assembly.data_checks import open_data
from mtlcli.training.assembly.optimizers import make_optimizer
from mtlcli.training.run import Run
from mtlcli.training.step import Step
from mtlcli.weighting.base import GradientWeighting, WeightedTask

TASKS = {"class": "segmentation", "depth": "depth", "normals": "normals"}
CASES = {  # model, head, size, batch (2 as in the published results of NYUv2)
    "resnet18": ("resnet18", "fcn", (128, 128), 2),
    "deeplab": ("resnet50", "aspp", (288, 384), 8),
}
CHOICE = ("torchjd", "relation")  # require an option: an aggregator, a matrix
LR = 1e-4


class Case:
    """One of the CASES, with a batch of scenes.

    Args:
        name: Name of the case.
        args: Device, precision, threads and number of images.
    """

    def __init__(self, name: str, args: argparse.Namespace) -> None:
        self.args = args
        self.model, self.head, self.size, batch = CASES[name]
        self.amount = args.batch or batch
        run = self.run({"name": "uniform"})
        spec = run.specs["scenes"]
        self.batch: Batch = next(iter(open_data(run).epoch(0)))
        self.mean, self.std = (torch.tensor(v, device=args.device).view(1, 3, 1, 1) for v in (spec.mean, spec.std))
        self.classes = spec.targets["class"].size

    def run(self, weighting: dict) -> Run:
        """Build a run, with the same weights at each call."""
        task = {"dataset": "scenes", "head": self.head}
        run = build(experiment_from_dict({
            "name": "benchmark",
            "datasets": {"scenes": {"name": "scenes", "size": list(self.size), "train": self.amount, "val": 2,
                                    "test": 2}},
            "tasks": {name: {**task, "kind": kind} for name, kind in TASKS.items()},
            "trunk": {"name": "torchvision", "model": self.model, "output": "map", "output_stride": 8},
            "evaluation": {"monitor": {"metric": "loss"}},
            "weighting": weighting, "optimizer": {"name": "Adam", "lr": LR},
            "training": {"batch_size": self.amount, "threads": self.args.threads, "device": self.args.device,
                         "precision": self.args.precision},
        }))  # fmt: skip
        run.model.train()
        return run

    def mtl(self, weighting: dict) -> Callable[[], list[float]]:
        """Return `mtl`'s step, which returns the losses."""
        run = self.run(weighting)
        step = Step(run, make_optimizer(run))

        def make() -> list[float]:
            made = step([self.batch])
            assert made is not None
            return made[0].losses.tolist()

        return make

    def plain(self) -> Callable[[], list[float]]:
        """Return the step of the summed losses in plain PyTorch."""
        network = PlainNetwork(self)

        def make() -> list[float]:
            network.optimizer.zero_grad()
            losses = network.losses(network.predict(network.represent()))
            torch.stack(losses).sum().backward()
            network.optimizer.step()
            return [loss.item() for loss in losses]

        return make

    def torchjd(self, method: str, chunk: int | None) -> Callable[[], list[float]]:
        """Return the step with TorchJD's aggregator."""
        network = PlainNetwork(self)
        aggregator = TORCHJD[method](torchjd.aggregation, len(TASKS))

        def make() -> list[float]:
            network.optimizer.zero_grad()
            features = network.represent()
            losses = network.losses(network.predict(features))
            mtl_backward(losses, features=features, parallel_chunk_size=chunk)
            jac_to_grad(network.trunk.parameters(), aggregator)
            network.optimizer.step()
            return [loss.item() for loss in losses]

        return make

    def libmtl(self, method: str, features: bool) -> Callable[[], list[float]]:
        """Return the step with the gradients as LibMTL computes them."""
        network = PlainNetwork(self)
        weighting = weightings[method].target([WeightedTask(name) for name in TASKS]).to(self.args.device)
        shared = list(network.trunk.parameters())

        def balance(rows: Tensor, losses: list[Tensor]) -> Tensor:
            weighting.start_step()
            gramian = (rows @ rows.T).double()
            weights = weighting.weights(gramian, torch.stack(losses).detach().double(), range(len(losses)))
            return weights.to(rows.dtype) @ rows

        def by_features() -> list[float]:
            network.optimizer.zero_grad()
            output = network.represent()
            leaves = [output.detach().requires_grad_() for _ in TASKS]
            losses = network.losses([head(leaf) for head, leaf in zip(network.heads, leaves, strict=True)])
            for loss in losses:
                loss.backward()
            rows = torch.stack([leaf.grad.flatten() for leaf in leaves])
            output.backward(balance(rows, losses).view_as(output))
            network.optimizer.step()
            return [loss.item() for loss in losses]

        def by_parameters() -> list[float]:
            network.optimizer.zero_grad()
            losses = network.losses(network.predict(network.represent()))
            rows = torch.zeros(len(losses), sum(p.numel() for p in shared), device=self.args.device)
            for row, loss in zip(rows, losses, strict=True):
                loss.backward(retain_graph=True)
                row.copy_(torch.cat([p.grad.flatten() for p in shared]))
                for parameter in shared:
                    parameter.grad.zero_()
            update = balance(rows, losses).split([p.numel() for p in shared])
            for parameter, part in zip(shared, update, strict=True):
                parameter.grad.copy_(part.view_as(parameter))
            network.optimizer.step()
            return [loss.item() for loss in losses]

        return by_features if features else by_parameters


class PlainNetwork(nn.Module):
    """The network of a case in plain PyTorch, with the weights of `mtl`'s.

    Args:
        case: The case.
    """

    def __init__(self, case: Case) -> None:
        super().__init__()
        resnet = torchvision.models.get_model(case.model)
        for layer, before, after in ((resnet.layer3, 1, 2), (resnet.layer4, 2, 4)):  # output stride 8
            for module in layer.modules():
                if isinstance(module, nn.Conv2d):
                    rate = before if module.stride == (2, 2) else after
                    module.stride = (1, 1)
                    if module.kernel_size == (3, 3):
                        module.dilation = module.padding = (rate, rate)
        *layers, _, _ = resnet.children()  # without the mean over the positions and the classifier
        self.case, self.trunk = case, nn.Sequential(*layers)
        self.heads = nn.ModuleList(
            plain_head(case.head, resnet.fc.in_features, outputs) for outputs in (case.classes, 1, 3)
        )
        self.to(case.args.device)
        model = case.run({"name": "uniform"}).model
        values = [*model.shared_parameters(), *(p for name in TASKS for p in model.heads[name].parameters())]
        with torch.no_grad():
            for parameter, value in zip(self.parameters(), values, strict=True):
                parameter.copy_(value)
        self.optimizer = torch.optim.Adam(self.parameters(), lr=LR)

    def represent(self) -> Tensor:
        (images,) = self.case.batch.inputs.values()
        return self.trunk((images.float() - self.case.mean) / self.case.std)

    def predict(self, features: Tensor) -> list[Tensor]:
        return [head(features) for head in self.heads]

    def losses(self, outputs: list[Tensor]) -> list[Tensor]:
        """Return the mean losses over the labelled pixels."""
        classes, depth, normals = (F.interpolate(y, self.case.size, mode="bilinear") for y in outputs)
        labels = self.case.batch.targets
        seen = ~labels["depth"].isnan()
        count = seen.sum()
        errors = (depth[:, 0] - labels["depth"].nan_to_num()).abs()
        cosines = (F.normalize(normals, dim=1) * labels["normals"].nan_to_num()).sum(1)
        return [
            F.cross_entropy(classes, labels["class"], ignore_index=-100),
            (errors * seen).sum() / count,
            ((1 - cosines) * seen).sum() / count,
        ]


def plain_head(name: str, features: int, outputs: int) -> nn.Module:
    """Return a head of torchvision's networks for segmentation."""
    if name == "fcn":
        return torchvision.models.segmentation.fcn.FCNHead(features, outputs)
    return torchvision.models.segmentation.deeplabv3.DeepLabHead(features, outputs)


def compare(args: argparse.Namespace) -> None:
    """Print the times of all contenders."""
    case = Case(args.case, args)
    contenders = {"plain": case.plain(), "mtl uniform": case.mtl({"name": "uniform"})}
    for method in args.methods or ["mgda", "pcgrad"]:
        contenders |= {
            f"mtl {method}": case.mtl({"name": method}),
            f"mtl {method} features": case.mtl({"name": method, "gradients": "features"}),
            f"torchjd {method}": case.torchjd(method, None),
            f"torchjd {method} chunk 1": case.torchjd(method, 1),
            f"libmtl {method}": case.libmtl(method, features=False),
            f"libmtl {method} features": case.libmtl(method, features=True),
        }
    first = {}
    for name, step in contenders.items():
        torch.manual_seed(0)  # of the dropout
        first[name] = torch.tensor(step())
        torch.testing.assert_close(first[name], first["plain"], rtol=1e-3, atol=1e-4, msg=f"{name}: other losses")
    medians = timed(contenders, args.rounds, args.seconds)
    print(f"## {args.case}: {CASES[args.case]}, {args.threads} thread(s); plain {medians['plain'] * 1e3:.0f} ms")
    print("| step | ms | / plain | / TorchJD |\n| --- | ---: | ---: | ---: |")
    for name, seconds in medians.items():
        method = name.split()[1] if " " in name else ""
        exact = medians.get(f"torchjd {method}")
        ratio = f"{seconds / exact:.3f}" if exact else ""
        print(f"| {name} | {seconds * 1e3:.0f} | {seconds / medians['plain']:.3f} | {ratio} |", flush=True)


def measure(args: argparse.Namespace) -> None:
    """Print the speed and, on a GPU, the memory of each weighting, one after another."""
    case = Case(args.case, args)
    print(f"## {args.case}: {CASES[args.case]}, {args.precision}\n| weighting | ms | images/s | peak GiB |")
    print("| --- | ---: | ---: | ---: |", flush=True)
    names = args.methods or [name for name in weightings.names() if name not in CHOICE]
    for name in names:
        target = weightings[name].target
        by_features = issubclass(target, GradientWeighting) and "features" in target.gradients
        for variant in [{}, {"gradients": "features"}] if by_features else [{}]:
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats()
            seconds = timed({"": case.mtl({"name": name, **variant})}, args.rounds, args.seconds)[""]
            peak = f"{torch.cuda.max_memory_allocated() / 2**30:.2f}" if torch.cuda.is_available() else ""
            label = " ".join([name, *variant.values()])
            print(f"| {label} | {seconds * 1e3:.1f} | {case.amount / seconds:.1f} | {peak} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", choices=CASES, default="resnet18")
    parser.add_argument("--methods", nargs="+", help="weightings")
    parser.add_argument("--batch", type=int, help="number of images")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=600.0, help="about how long it may take (a method, on a GPU)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu", help="that the steps run on")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32", help="of `--case deeplab`")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(args.threads)
    if args.case == "deeplab":
        measure(args)
    else:
        compare(args)


if __name__ == "__main__":
    main()
