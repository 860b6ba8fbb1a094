"""Refactoring check: short training runs whose numbers must stay the same to the bit.

    python benchmarks/same_numbers.py record baseline.json                # before the change
    python benchmarks/same_numbers.py check baseline.json                 # after it: exit code 1 if a number differs
    python benchmarks/same_numbers.py check baseline.json --tree ../other # the same for another checkout

The runs cover every weighting, sharing, regularizer, sampler and trunk, the options that change the arithmetic of a
step, a resumed run, `mtl eval`, `mtl compare` and `mtl relate`. A run is recorded as the SHA-256 of every tensor and
number in its checkpoint (model, weighting, regularizers, optimizer, schedule, random generators) and of `metrics.csv`.
Durations and amounts of memory are left out. A baseline holds for one machine and one set of installed packages.

Only the documented interface is used (the command line, YAML keys, files, checkpoint keys), so modules and symbols can
be renamed freely. Training uses one process and one thread. No network is needed: the images are scikit-learn's digits.
"""

import argparse
import contextlib
import csv
import fnmatch
import hashlib
import io
import json
import os
import platform
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from unittest import mock

Config = dict[str, Any]

TIMINGS = {"seconds", "seconds_per_epoch", "samples_per_second", "peak_memory_bytes", "checkpoint_bytes"}
"""Metrics in CSV files, and keys in JSON files and checkpoints, that no refactoring has to preserve."""
NOT_COMPARED = {"format", "version", "config", "specs", "data", "plugins", "made_with", "history"}
"""Entries of a checkpoint that hold no state; `history` is the content of `metrics.csv`."""

LOSS_LEVEL = [
    "uniform", "fixed", "uncertainty", "dwa", "rlw", "gls", "imtl_l", "stch", "famo", "excess_mtl",
    "relation",
]  # fmt: skip
GRADIENT_LEVEL = [
    "mgda", "pcgrad", "cagrad", "imtl_g", "nash_mtl", "fairgrad", "aligned_mtl", "upgrad", "dualproj",
    "gradvac", "gradnorm", "db_mtl", "moco", "sdmgrad", "graddrop", "conflict_free", "torchjd",
]  # fmt: skip
ONLY_PARAMETERS = {"db_mtl", "moco", "sdmgrad"}  # without `gradients: features`
ONLY_EVERY_STEP = {"graddrop", "torchjd"}  # without `every`
SHARINGS = ["hard", "none", "cross_stitch", "mtan", "mmoe", "omoe", "cgc", "ple", "dselect_k", "shared_private"]
SAMPLERS = ["proportional", "round_robin", "temperature", "uniform"]

DIGITS: Config = {
    "name": "same_numbers",
    "seed": 7,
    "datasets": {"digits": {"name": "digits"}},
    "tasks": {
        "digit": {"dataset": "digits", "kind": "classification", "weight": 0.5},
        "parity": {"dataset": "digits", "kind": "binary", "weight": 2.0},
        "ink": {"dataset": "digits", "kind": "regression", "head": {"name": "mlp", "hidden": [8]}},
        "segments": {"dataset": "digits", "kind": "multilabel"},
    },
    "trunk": {"name": "mlp", "hidden": [32], "features": 16, "dropout": 0.1},
    "optimizer": {"name": "AdamW", "lr": 3e-3},
    "training": {"epochs": 2, "batch_size": 64, "threads": 1, "device": "cpu"},
}
TWO_DATASETS: Config = {
    **DIGITS,
    "datasets": {"left": {"name": "digits"}, "right": {"name": "digits", "val": 0.5}},
    "tasks": {
        "digit": {"dataset": "left", "kind": "classification"},
        "ink": {"dataset": "left", "kind": "regression", "weight": 0.5},
        "segments": {"dataset": "right", "kind": "multilabel"},
    },
}
ONE_TASK_EACH: Config = {**TWO_DATASETS, "tasks": {name: TWO_DATASETS["tasks"][name] for name in ("digit", "segments")}}
CNN: Config = {**TWO_DATASETS, "trunk": {"name": "cnn", "widths": [4, 8], "depth": 1, "features": 16}}
TABLE: Config = {
    **DIGITS,
    "datasets": {
        "table": {
            "name": "csv",
            "path": "table.csv",
            "targets": {"price": "real", "sold": "binary", "kind": "classes"},
            "categorical": ["place"],
        }
    },
    "tasks": {
        "price": {"dataset": "table", "kind": "regression"},
        "sold": {"dataset": "table", "kind": "binary"},
        "kind": {"dataset": "table", "kind": "classification"},
    },
    "trunk": {"name": "tabular", "hidden": [16], "features": 8},
}
BINARY: Config = {
    **DIGITS,
    "tasks": {name: {"dataset": "digits", "target": "parity", "kind": "binary"} for name in ("first", "second")},
}
IMAGES: Config = {
    **DIGITS,
    "datasets": {"images": {"name": "image_folder", "root": "images", "channels": 1, "size": 16}},
    "tasks": {"class": {"dataset": "images", "kind": "classification"}},
    "trunk": {"name": "lenet", "features": 16},
}
LINEAR_HEADS = {
    "digit": DIGITS["tasks"]["digit"],
    "last": {"dataset": "digits", "target": "digit", "kind": "classification"},
    "parity": DIGITS["tasks"]["parity"],
}
RELATION = {task: {other: 1.0 if task == other else 0.25 for other in DIGITS["tasks"]} for task in DIGITS["tasks"]}


def changed(base: Config, **sections: Any) -> Config:
    """Return `base` with top-level sections replaced; a `training` section is merged into that of `base`."""
    if "training" in sections:
        sections["training"] = base["training"] | sections["training"]
    return {**base, **sections}


def weighting(name: str, **options: Any) -> Config:
    """Return the YAML entry of a weighting, with the options that it cannot do without."""
    required = {"relation": {"matrix": RELATION}, "torchjd": {"aggregator": "UPGrad"}}
    return {"name": name, **required.get(name, {}), **options}


def weighting_runs() -> dict[str, Config]:
    runs = {}
    for name in LOSS_LEVEL + GRADIENT_LEVEL:
        runs[f"weighting/{name}"] = changed(DIGITS, weighting=weighting(name))
    for name in GRADIENT_LEVEL:
        if name not in ONLY_PARAMETERS:
            runs[f"features/{name}"] = changed(DIGITS, weighting=weighting(name, gradients="features"))
        if name not in ONLY_EVERY_STEP:
            runs[f"every/{name}"] = changed(DIGITS, weighting=weighting(name, every=2))
    for name in [
        "uniform",
        "uncertainty",
        "famo",
        "mgda",
        "pcgrad",
        "gradnorm",
        "sdmgrad",
        "graddrop",
        "upgrad",
        "moco",
    ]:
        runs[f"two datasets/{name}"] = changed(TWO_DATASETS, weighting=weighting(name))
    for name in ["uniform", "mgda", "pcgrad", "sdmgrad", "graddrop"]:
        runs[f"one task each/{name}"] = changed(ONE_TASK_EACH, weighting=weighting(name))
        runs[f"batch norm/{name}"] = changed(CNN, weighting=weighting(name), training={"epochs": 1})
        runs[f"accumulate/{name}"] = changed(TWO_DATASETS, weighting=weighting(name), training={"accumulate": 3})
        runs[f"bf16/{name}"] = changed(DIGITS, weighting=weighting(name), training={"precision": "bf16"})
    for name in ["mgda", "pcgrad"]:
        entry = weighting(name, gradients="features")
        runs[f"accumulate features/{name}"] = changed(TWO_DATASETS, weighting=entry, training={"accumulate": 3})
    runs["weighting/dwa"] = changed(DIGITS, weighting="dwa", training={"epochs": 4})  # equal weights in two epochs
    runs["gradnorm/parameters"] = changed(DIGITS, weighting=weighting("gradnorm", gradients="parameters"))
    runs["relation/from semantic"] = changed(
        DIGITS,
        tasks={name: {**task, "description": f"what {name} is written"} for name, task in DIGITS["tasks"].items()},
        weighting={"name": "relation", "from": "semantic", "project": "psd"},
    )
    runs["relation/file"] = changed(
        DIGITS, weighting={"name": "relation", "matrix": "relation.csv", "negative": "clamp"}
    )
    runs["torchjd/pcgrad"] = changed(DIGITS, weighting={"name": "torchjd", "aggregator": "PCGrad"})
    return runs


def model_runs() -> dict[str, Config]:
    runs = {}
    for name in SHARINGS:
        runs[f"sharing/{name}"] = changed(DIGITS, sharing=name)
        runs[f"sharing cnn/{name}"] = changed(CNN, sharing=name, training={"epochs": 1})
        runs[f"sharing pcgrad/{name}"] = changed(DIGITS, sharing=name, weighting="pcgrad")
    del runs["sharing pcgrad/none"]  # nothing is shared
    for name in ("esmm", "aitm"):
        runs[f"sharing/{name}"] = changed(BINARY, sharing=name)
        runs[f"sharing pcgrad/{name}"] = changed(BINARY, sharing=name, weighting="pcgrad")
    for method in ("uniform", "pcgrad"):
        for detach in (False, True):
            ink = {**DIGITS["tasks"]["ink"], "after": {"task": "digit", "detach": detach}}
            runs[f"after {method}/{'detached' if detach else 'attached'}"] = changed(
                DIGITS, tasks={**DIGITS["tasks"], "ink": ink}, weighting=method
            )
        stems = {"left": {"name": "conv", "features": 24}, "right": "linear"}
        runs[f"stems/{method}"] = changed(TWO_DATASETS, stems=stems, weighting=method)
    runs["trunk/lenet"] = changed(IMAGES)
    images = {**IMAGES["datasets"]["images"], "size": 32, "channels": 3, "normalize": "imagenet"}
    runs["trunk/torchvision"] = changed(
        IMAGES, datasets={"images": images}, trunk={"name": "torchvision", "model": "resnet18"}, training={"epochs": 1}
    )
    flips = {**IMAGES["datasets"]["images"], "augment": ["RandomHorizontalFlip"]}
    runs["images/augment"] = changed(IMAGES, datasets={"images": flips})
    runs["images/stream"] = changed(IMAGES, training={"loading": "stream", "workers": 0})
    runs["table/tabular"] = changed(TABLE)
    runs["table/mlp"] = changed(TABLE, trunk={"name": "mlp", "hidden": [16], "features": 8})
    for name in ["uncertainty", "mgda", "sdmgrad", "moco", "nash_mtl"]:
        runs[f"table/{name}"] = changed(TABLE, weighting=weighting(name))
    runs["table/mtan"] = changed(TABLE, sharing="mtan")
    return runs


def regularizer_runs() -> dict[str, Config]:
    entries: dict[str, tuple[Config, Config]] = {
        "l1": (DIGITS, {"strength": 1e-3}),
        "l2": (DIGITS, {"strength": 1e-3, "on": "shared"}),
        "multi_nuclear_norm": (DIGITS, {"layers": ["fc1"], "rank": 8, "threshold": 0.3}),
        "nuclear_norm": (DIGITS, {}),
        "orthogonality": (DIGITS, {}),
        "reconstruction": (DIGITS, {"strength": 0.1}),
        "trace_norm_across_tasks": (changed(DIGITS, tasks=LINEAR_HEADS), {}),
        "adversarial": (TWO_DATASETS, {"strength": 0.1}),
        "gate_entropy": (changed(DIGITS, sharing={"name": "dselect_k", "experts": 3}), {"strength": 0.1}),
    }
    runs = {}
    for name, (base, options) in entries.items():
        runs[f"regularizer/{name}"] = changed(base, regularizers=[{"name": name, **options}])
        runs[f"regularizer pcgrad/{name}"] = changed(base, regularizers=[{"name": name, **options}], weighting="pcgrad")
    for method in ("uncertainty", "mgda"):
        task = {"name": "reconstruction", "strength": 0.1, "as_task": True}
        runs[f"regularizer as task/{method}"] = changed(DIGITS, regularizers=[task], weighting=method)
    proximal = {"name": "multi_nuclear_norm", "layers": ["*"], "proximal": True}
    unfolded = {"name": "trace_norm_across_tasks", "unfolding": "features"}
    linear = changed(DIGITS, tasks={name: DIGITS["tasks"][name] for name in ("digit", "parity", "segments")})
    runs["regularizer/unfolding features"] = changed(linear, regularizers=[unfolded])
    runs["regularizer/proximal"] = changed(DIGITS, regularizers=[proximal], optimizer={"name": "SGD", "lr": 0.05})
    private = {"name": "adversarial", "orthogonality": 0.1, "schedule": "constant"}
    runs["regularizer/shared_private"] = changed(TWO_DATASETS, sharing="shared_private", regularizers=[private])
    runs["regularizer/cnn"] = changed(
        CNN,
        regularizers=[{"name": "multi_nuclear_norm"}, {"name": "reconstruction", "layer": "block1"}, {"name": "l2"}],
    )
    runs["regularizer/accumulate"] = changed(
        DIGITS, regularizers=[{"name": "reconstruction"}, {"name": "l1"}], training={"accumulate": 2}
    )
    return runs


def training_runs() -> dict[str, Config]:
    runs = {f"sampling/{name}": changed(TWO_DATASETS, training={"sampling": name}) for name in SAMPLERS}
    runs["scheduler/ReduceLROnPlateau"] = changed(
        DIGITS,
        scheduler={"name": "ReduceLROnPlateau", "patience": 0, "threshold": 0.5},
        optimizer={"name": "SGD", "lr": 0.05},
        training={"epochs": 4},
    )
    for name in ["CosineAnnealingLR", "OneCycleLR", "StepLR", "warmup_linear", "warmup_cosine"]:
        options = {"OneCycleLR": {"max_lr": 0.01}, "StepLR": {"step_size": 1}}.get(name, {})
        runs[f"scheduler/{name}"] = changed(DIGITS, scheduler={"name": name, **options})
    for name in ["SGD", "Adam", "RMSprop", "Adagrad", "NAdam"]:
        runs[f"optimizer/{name}"] = changed(DIGITS, optimizer={"name": name, "lr": 0.01})
    groups = {"heads": {"lr": 0.01}, "digit": {"weight_decay": 0.1}}
    runs["optimizer/groups"] = changed(DIGITS, optimizer={"name": "AdamW", "lr": 1e-3, "groups": groups})
    runs["training/clip"] = changed(DIGITS, training={"clip_norm": 0.5})
    runs["training/clip pcgrad"] = changed(DIGITS, training={"clip_norm": 0.5}, weighting="pcgrad")
    runs["training/clip accumulate bf16"] = changed(
        TWO_DATASETS, training={"clip_norm": 0.5, "accumulate": 2, "precision": "bf16"}, weighting="upgrad"
    )
    runs["training/bf16 cnn"] = changed(CNN, training={"precision": "bf16", "epochs": 1})
    runs["training/deterministic"] = changed(DIGITS, training={"deterministic": True})
    runs["training/early stopping"] = changed(
        DIGITS, training={"epochs": 6, "early_stopping": 1}, optimizer={"name": "SGD", "lr": 0.5}
    )
    runs["training/stream"] = changed(TWO_DATASETS, training={"loading": "stream", "workers": 0, "epochs": 1})
    runs["training/steps"] = changed(DIGITS, checkpoint={"every": "8 steps", "keep": 3})
    runs["evaluation/monitor"] = changed(
        DIGITS, evaluation={"split": "train", "batch_size": 100, "monitor": {"task": "digit", "metric": "accuracy"}}
    )
    start = {**DIGITS["trunk"], "init_from": "runs/straight/checkpoints/best.pt"}
    runs["trunk/init_from"] = changed(DIGITS, trunk=start, seed=8)
    runs["trunk/frozen"] = changed(DIGITS, trunk={**start, "frozen": True}, seed=8)
    return runs


def write_inputs() -> None:
    """Write the table, the images and the relation matrix that the runs read to the working directory."""
    import numpy as np
    from PIL import Image
    from sklearn.datasets import load_digits

    rng = np.random.default_rng(0)
    with Path("table.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["place", "size", "age", "price", "sold", "kind"])
        for row in range(400):
            place, size, age = rng.choice(list("abcd")), rng.normal(100, 20), int(rng.integers(0, 50))
            price = 3 * size - age + rng.normal()
            cells = [place, f"{size:.3f}", age, f"{price:.2f}", int(price > 280), rng.choice(["flat", "house", "hut"])]
            blank = rng.random(6) < [0.05, 0.05, 0.05, 0.2, 0.3, 0.3]
            writer.writerow("" if missing and row else cell for cell, missing in zip(cells, blank, strict=True))
    digits = load_digits()
    for at in range(240):
        folder = Path("images", f"digit{digits.target[at] % 4}")
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray((digits.images[at] * 15).astype("uint8")).save(folder / f"{at}.png")
    tasks = list(RELATION)
    lines = [["task", *tasks], *([task, *(str(RELATION[task][other]) for other in tasks)] for task in tasks)]
    Path("relation.csv").write_text("".join(",".join(line) + "\n" for line in lines))


def write_empty_plot(figure: Any, target: Any, **options: Any) -> None:
    """Replace `Figure.savefig`: drawing the plots takes three quarters of the time of so short a run."""
    if hasattr(target, "write"):
        target.write(b"")
    else:
        Path(target).write_bytes(b"")


def mtl(*arguments: str) -> str:
    """Run `mtl ARGUMENTS` in this process and return its standard output. SystemExit if it fails."""
    from mtlcli.cli import main

    out, err = io.StringIO(), io.StringIO()
    without_plots = mock.patch("matplotlib.figure.Figure.savefig", write_empty_plot)
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), without_plots:
        code = main(list(arguments))
    if code:
        raise SystemExit(f"mtl {' '.join(arguments)}: exit code {code}\n{err.getvalue()}")
    return out.getvalue()


def train(name: str, config: Config, *options: str) -> Path:
    """Train `config` in the working directory and return the run folder."""
    import yaml

    folder = Path("runs", name.replace("/", "-"))
    Path("config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    mtl("train", "config.yaml", *options, "--run-dir", str(folder), "--json")
    return folder


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def digests(value: Any, path: str) -> dict[str, str]:
    """Return the SHA-256 of every tensor and every plain value in `value`, by dotted key path."""
    import torch

    if isinstance(value, torch.Tensor):
        content = value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
        return {path: sha256(f"{value.dtype} {tuple(value.shape)} ".encode() + content)}
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list | tuple) and any(isinstance(item, torch.Tensor | dict | list) for item in value):
        items = enumerate(value)
    else:
        return {path: sha256(repr(value).encode())}
    return {
        name: digest
        for key, item in items
        if key not in TIMINGS
        for name, digest in digests(item, f"{path}.{key}").items()
    }


def numbers(folder: Path) -> dict[str, str]:
    """Return the digests of everything in a run folder that must not change."""
    import torch

    recorded: dict[str, str] = {}
    last = torch.load(folder / "checkpoints" / "last.pt", weights_only=True)  # noqa: TID251 (written by this script)
    for key, value in last.items():
        if key not in NOT_COMPARED:
            recorded |= digests(value, key)
    best = torch.load(folder / "checkpoints" / "best.pt", weights_only=True)  # noqa: TID251
    recorded |= digests(best["model"], "best.model")
    summary = json.loads((folder / "summary.json").read_text())
    for key in ("metrics", "best", "parameters", "weighting", "epochs", "steps"):
        recorded[f"summary.json {key}"] = json_digest(summary[key])
    return recorded | {name: csv_digest(folder / name) for name in ("metrics.csv", "table.csv")}


def csv_digest(file: Path) -> str:
    """Return the SHA-256 of the rows of a CSV file, except those of durations and amounts of memory."""
    return json_digest([row for row in csv.reader(io.StringIO(file.read_text())) if TIMINGS.isdisjoint(row)])


def json_digest(value: Any) -> str:
    return sha256(json.dumps(value, sort_keys=True).encode())


def resumed_runs() -> dict[str, dict[str, str]]:
    """Return the digests of a run and of the same run stopped after an epoch and resumed, which must be the same."""
    config = changed(DIGITS, weighting="famo", regularizers=[{"name": "reconstruction"}], training={"epochs": 3})
    straight = numbers(train("straight", config))
    train("resumed", config, "training.epochs=1")
    resumed = numbers(train("resumed", config, "--resume", "must"))
    if lines := differences({"resumed": straight}, {"resumed": resumed}):
        raise SystemExit(f"a resumed run differs from one that was not interrupted: {lines[0]}")
    return {"straight": straight, "resumed": resumed}


def other_verbs() -> dict[str, dict[str, str]]:
    """Return the digests of what `mtl eval`, `mtl compare` and `mtl relate` compute."""
    import yaml

    evaluated = {}
    for name in ("straight", "regularizer-multi_nuclear_norm", "table-mtan"):
        output = json.loads(mtl("eval", f"runs/{name}/checkpoints/best.pt", "--split", "val", "--json"))
        evaluated[name] = json_digest(output["metrics"])
    described = {name: {**task, "description": f"the {name} of a digit"} for name, task in DIGITS["tasks"].items()}
    Path("config.yaml").write_text(yaml.safe_dump(changed(DIGITS, tasks=described, training={"epochs": 1})))
    varied = ["--vary", "weighting=uniform,pcgrad", "--seeds", "2", "--jobs", "1"]
    mtl("compare", "config.yaml", *varied, "--out", "compared")
    mtl("relate", "config.yaml", "--epochs", "1", "--seeds", "3", "--out", "related")
    related = {str(file): csv_digest(file) for file in sorted(Path("related").glob("*/relation.csv"))}
    related["affinity.csv"] = csv_digest(Path("related/affinity/affinity.csv"))
    related["groups.json"] = json_digest(json.loads(Path("related/groups.json").read_text()))
    for file in sorted(Path("related").glob("*/numbers.json")):
        related |= digests(json.loads(file.read_text()), str(file))
    compared = {"comparison.csv": csv_digest(Path("compared/comparison.csv"))}
    return {"eval": evaluated, "compare": compared, "relate": related}


def measure(pattern: str) -> dict[str, dict[str, str]]:
    """Make all runs whose name matches `pattern` and return the digests of each."""
    import torch

    torch.set_num_threads(1)
    measured = resumed_runs()
    start = time.perf_counter()
    runs = weighting_runs() | model_runs() | regularizer_runs() | training_runs()
    for name, config in runs.items():
        if fnmatch.fnmatchcase(name, pattern):
            try:
                measured[name] = numbers(train(name, config))
            except SystemExit as error:
                print(error, file=sys.stderr)
                measured[name] = {"failed": str(error.code)}
            print(f"{time.perf_counter() - start:6.1f} s  {name}", file=sys.stderr)
    return measured | (other_verbs() if pattern == "*" else {})


def environment() -> dict[str, str]:
    import numpy as np
    import torch

    return {"torch": torch.__version__, "numpy": np.__version__, "machine": platform.processor() or platform.machine()}


def differences(before: dict[str, dict[str, str]], after: dict[str, dict[str, str]]) -> list[str]:
    """Return one line for each run whose digests differ, with the first few entries that do."""
    lines = []
    for name in dict.fromkeys([*before, *after]):
        old, new = before.get(name), after.get(name)
        if old is None or new is None:
            lines.append(f"{name}: only {'after' if old is None else 'before'} the change")
        elif entries := [key for key in dict.fromkeys([*old, *new]) if old.get(key) != new.get(key)]:
            more = f" and {len(entries) - 4} more" if len(entries) > 4 else ""
            lines.append(f"{name}: {', '.join(entries[:4])}{more}")
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("action", choices=["record", "check"])
    parser.add_argument("file", type=Path, help="the baseline (JSON)")
    parser.add_argument("--tree", type=Path, default=Path(__file__).parent.parent, help="the checkout to run")
    parser.add_argument("--only", default="*", metavar="PATTERN", help="only the runs of these names: 'weighting/*'")
    arguments = parser.parse_args()
    tree, file = arguments.tree.resolve(), arguments.file.resolve()
    sys.path.insert(0, str(tree))
    os.environ |= {"PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"}  # of the workers of `compare`, too
    import mtlcli

    if not Path(mtlcli.__file__).is_relative_to(tree):
        raise SystemExit(f"mtlcli was imported from {mtlcli.__file__}, not from {tree}")
    with tempfile.TemporaryDirectory() as temporary, contextlib.chdir(temporary):
        os.environ["XDG_CACHE_HOME"] = temporary
        write_inputs()
        measured = measure(arguments.only)
    if arguments.action == "record":
        if failed := [name for name, run in measured.items() if "failed" in run]:
            raise SystemExit(f"nothing recorded; these runs failed: {', '.join(failed)}")
        document = {"environment": environment(), "runs": measured}
        file.write_text(json.dumps(document, indent=1) + "\n")
        print(f"{file}: {len(measured)} runs recorded")
        return 0
    baseline = json.loads(file.read_text())
    if baseline["environment"] != environment():
        print(f"warning: recorded with {baseline['environment']}, run with {environment()}", file=sys.stderr)
    before = baseline["runs"]
    if arguments.only != "*":
        before = {name: run for name, run in before.items() if name in measured}
    lines = differences(before, measured)
    print("\n".join(lines) if lines else f"{len(measured)} runs: all numbers are the same")
    return 1 if lines else 0


if __name__ == "__main__":
    raise SystemExit(main())
