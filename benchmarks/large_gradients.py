"""Cost of balancing 8 tasks on one text in a transformer of 12 layers: seconds of a step, and memory of the routes.

    python benchmarks/large_gradients.py                  # takes about 10 minutes on one core
    python benchmarks/large_gradients.py --cases full lora --rounds 9
    python benchmarks/large_gradients.py --cases memory   # peak memory, each contender in a process of its own

The model is a BERT with random weights. The contenders of a case take turns in one process with one thread, A B C A B
C …, and the results are medians. A step is the whole `training.Step`, from tokens to the update.

full: all parameters are trained. `uniform` is the plain step, one backward pass for the sum of the losses.
lora: low-rank adapters on queries and values; the base is frozen.
memory: the peak of the process, minus that of `uniform`.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from timing import timed

from mtlcli.config import experiment_from_dict
from mtlcli.data.loader import Batch
from mtlcli.training.assembly.build import build
from mtlcli.training.assembly.optimizers import make_optimizer
from mtlcli.training.step import Step

TASKS, CLASSES = 8, 4
LORA = {"name": "lora", "targets": ["*.query", "*.value"]}
FULL = {
    "uniform": {"weighting": "uniform"},
    "features": {"weighting": {"name": "mgda", "gradients": "features"}},
    "sequence": {"weighting": {"name": "mgda", "gradients": "sequence"}},
    "jacobian": {"weighting": {"name": "mgda", "gradients": "jacobian"}},
    "blockwise": {"weighting": {"name": "mgda", "gradients": "blockwise"}},
}
CONTENDERS = {**FULL, **{f"lora {name}": {**entry, "adapters": LORA} for name, entry in FULL.items()}}
CASES = {
    "full": ["uniform", "features", "jacobian", "blockwise"],
    "lora": ["uniform", "lora uniform", "lora features", "lora jacobian"],
    "memory": ["uniform", "features", "jacobian", "blockwise"],
}


class Contender:
    """A training step.

    Args:
        name: One of CONTENDERS.
        args: Sizes of the model and the batch.
    """

    def __init__(self, name: str, args: argparse.Namespace) -> None:
        torch.manual_seed(0)
        config = {
            "model_type": "bert", "hidden_size": args.hidden, "num_hidden_layers": args.layers,
            "num_attention_heads": max(1, args.hidden // 64), "intermediate_size": 4 * args.hidden,
            "vocab_size": args.vocabulary, "max_position_embeddings": max(args.length, 64),
        }  # fmt: skip
        tasks = [f"t{number}" for number in range(TASKS)]
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "texts.jsonl")  # of which the run trains a tokenizer; the batches are random tokens
            rows = [{"text": f"a text of row {row}", **dict.fromkeys(tasks, row % CLASSES)} for row in range(50)]
            path.write_text("\n".join(map(json.dumps, rows)))
            experiment = experiment_from_dict({
                "name": "benchmark",
                "datasets": {"d": {"name": "table", "path": str(path), "text": ["text"], "features": ["text"],
                                   "targets": dict.fromkeys(tasks, "classes")}},
                "tasks": {task: {"dataset": "d", "kind": "classification"} for task in tasks},
                "trunk": {"name": "transformers", "config": config, "max_length": args.length},
                "optimizer": {"name": "AdamW", "lr": 1e-4},
                "training": {"threads": 1, "device": args.device}, **CONTENDERS[name],
            })  # fmt: skip
            self.run = build(experiment)
        self.run.model.train()
        self.step = Step(self.run, make_optimizer(self.run))
        generator = torch.Generator().manual_seed(0)
        ids = torch.randint(1, args.vocabulary, (args.batch, 1, args.length), generator=generator)
        labels = {task: torch.randint(CLASSES, (args.batch,), generator=generator) for task in tasks}
        self.batch = Batch(
            {"d": torch.cat([ids, torch.zeros_like(ids)], 1).int().to(args.device)},
            {task: label.to(args.device) for task, label in labels.items()},
            dict.fromkeys(tasks, args.batch),
        )

    def __call__(self) -> None:
        assert self.step([self.batch]) is not None

    def memory(self) -> dict[str, int]:
        """Return the peak memory of this process after some steps, and the numbers that it has to hold."""
        for _ in range(3):
            self()
        described = self.step.backward.describe()
        return {
            "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            "buffers": described.get("buffer_bytes", 0),
            "parameters": sum(p.numel() for p in self.run.model.shared_parameters() if p.requires_grad),
        }


def compare_times(case: str, args: argparse.Namespace) -> None:
    contenders = {name: Contender(name, args) for name in CASES[case]}
    medians = timed(contenders, args.rounds, args.seconds)
    plain, *others = medians
    print(f"\n## {case}: the plain step takes {medians[plain]:.2f} s")
    print(f"| step | seconds | ratio to {plain} | ratio to {others[0]} | route |")
    print("| --- | ---: | ---: | ---: | --- |")
    for name, seconds in medians.items():
        route = contenders[name].step.backward.route
        ratios = f"{seconds / medians[plain]:.2f} | {seconds / medians[others[0]]:.2f}"
        print(f"| {name} | {seconds:.2f} | {ratios} | {route} |")


def compare_memory(arguments: list[str]) -> None:
    measured = {}
    for name in CASES["memory"]:
        command = [sys.executable, __file__, *arguments, "--measure", name]
        output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        measured[name] = json.loads(output.splitlines()[-1])
    plain = measured["uniform"]["peak"]
    print(f"\n## memory: {measured['uniform']['parameters']:,} shared parameters, {plain / 1e6:,.0f} MB with uniform")
    print("| step | extra MB | of which buffers of gradients, MB |\n| --- | ---: | ---: |")
    for name, values in measured.items():
        print(f"| {name} | {(values['peak'] - plain) / 1e6:,.0f} | {values['buffers'] / 1e6:,.0f} |")
    extra = {name: values["peak"] - plain for name, values in measured.items()}
    print(f"blockwise / jacobian: {extra['blockwise'] / extra['jacobian']:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=300.0, help="about how long a case may take")
    parser.add_argument("--device", default="cpu", help="that the steps run on")
    parser.add_argument("--measure", choices=CONTENDERS, help="print the memory of one contender")
    for size, default in {"hidden": 256, "layers": 12, "vocabulary": 30522, "batch": 16, "length": 64}.items():
        parser.add_argument(f"--{size}", type=int, default=default)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.measure:
        print(json.dumps(Contender(args.measure, args).memory()))
        return
    for case in args.cases:
        if case == "memory":
            compare_memory([argument for size in ("hidden", "layers", "vocabulary", "batch", "length")
                            for argument in (f"--{size}", str(getattr(args, size)))])  # fmt: skip
        else:
            compare_times(case, args)


if __name__ == "__main__":
    main()
