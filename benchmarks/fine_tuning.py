"""Fine-tuning of MiniLM by `mtl` and by a plain loop with transformers: losses, and times of steps and epochs.

    python benchmarks/fine_tuning.py              # all three, on clothing reviews (mtl data fetch reviews minilm)
    python benchmarks/fine_tuning.py --only losses --layers 2

Both fine-tune the same weights for department, recommendation and rating of a review, with the same order of the data,
AdamW, a linear schedule with warm-up, and dropout by the same random numbers. `mtl` runs what a training step runs,
its log and its checks included. The plain loop tokenizes all texts before the first step, pads each batch by the
tokenizer, and computes one backward pass of the sum of the losses.

* losses: the largest difference of a task's loss over the steps.
* steps: both make the same steps on the same batches, in turns; the ratio of the medians.
* epochs: the epochs of `mtl`, with batches of similar length, and those of the plain loop, whose batches have the
  order of the data and are padded to their longest, in turns; the ratio of the medians. Tokenization is not included.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AutoModel, AutoTokenizer, get_linear_schedule_with_warmup

from mtlcli.config import load_experiment
from mtlcli.data.formats.text_rows import TextRows
from mtlcli.data.samplers.base import ShuffledEpochs
from mtlcli.pretrained import find_weights
from mtlcli.training.assembly.build import build
from mtlcli.training.trainer import Trainer

CONFIG = Path(__file__).parents[1] / "configs" / "reviews_minilm.yaml"
WARMUP, LR, DECAY = 0.06, 5e-5, 0.01
ALIAS = "reviews"


def make_trainer(folder: str, layers: int, length: int, batch_size: int, examples: int) -> Trainer:
    overrides = [
        f"trunk.layers={layers}", f"trunk.max_length={length}", f"training.batch_size={batch_size}",
        f"training.sampling={{name: proportional, limit: {examples}}}", "training.epochs=1", "weighting=uniform",
        f"optimizer={{name: AdamW, lr: {LR}, weight_decay: {DECAY}}}",
        f"scheduler={{name: warmup_linear, warmup: {WARMUP}}}", "checkpoint.every=100000 steps",
    ]  # fmt: skip
    trainer = Trainer(build(load_experiment(CONFIG, overrides)), folder, plots=False)
    trainer.folder.make()
    trainer._start_or_resume()
    trainer.run.model.train()
    return trainer


class PlainLoop:
    """A training loop as in the examples of transformers.

    Args:
        trainer: the trainer of `mtl`, whose data, initial heads and number of steps are used.
        layers: number of layers.
        length: maximum number of tokens.
    """

    def __init__(self, trainer: Trainer, layers: int, length: int) -> None:
        run = trainer.run
        folder = find_weights("minilm")
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        self.tokenizer, self.device = tokenizer, run.device
        self.encoder = AutoModel.from_pretrained(folder, local_files_only=True, add_pooling_layer=False)
        del self.encoder.encoder.layer[layers:]
        self.heads = nn.ModuleDict({task: nn.Linear(384, run.kinds[task].outputs) for task in run.kinds})
        for task, head in run.model.heads.items():
            weight, bias = head.parameters()
            self.heads[task].load_state_dict({"weight": weight.detach().clone(), "bias": bias.detach().clone()})
        self.encoder.to(run.device).train()
        self.heads.to(run.device).train()
        parameters = [*self.encoder.named_parameters(), *self.heads.named_parameters()]
        small = [p for name, p in parameters if name.endswith("bias") or "LayerNorm" in name]
        large = [p for name, p in parameters if not (name.endswith("bias") or "LayerNorm" in name)]
        groups = [{"params": large, "weight_decay": DECAY}, {"params": small, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=LR)
        steps = trainer.state.steps_per_epoch
        self.scheduler = get_linear_schedule_with_warmup(self.optimizer, -(-int(steps * WARMUP * 100) // 100), steps)
        train = run.datasets[ALIAS].examples("train", run.experiment.seed)
        assert isinstance(train.inputs, TextRows) and train.rows is not None
        sampler = trainer.state.loader.sampler
        order = ShuffledEpochs(len(train), run.experiment.seed, ALIAS).order(0, sampler.amounts[0])
        rows = train.rows[torch.from_numpy(order)]
        titles, reviews = ([text or "" for text in column] for column in train.inputs.select(rows.numpy()).columns)
        self.tokens = tokenizer(titles, reviews, truncation=True, max_length=length)
        self.labels = {task: train.targets[run.sources[task][1]][rows].to(run.device) for task in run.kinds}
        self.chunks = [sampler.take(step)[0] for step in range(sampler.steps)]
        self.binary = {task for task in run.kinds if run.kinds[task].outputs == 1}

    def step(self, number: int) -> dict[str, Tensor]:
        """Make a step on the batch of this number, and return the losses."""
        start, stop = self.chunks[number % len(self.chunks)]
        batch = self.tokenizer.pad(
            {key: values[start:stop] for key, values in self.tokens.items()}, return_tensors="pt"
        ).to(self.device)
        hidden = self.encoder(**batch).last_hidden_state
        mask = batch["attention_mask"].unsqueeze(2)
        features = (hidden * mask).sum(1) / mask.sum(1)
        losses = {}
        for task, head in self.heads.items():
            output, label = head(features), self.labels[task][start:stop]
            if task in self.binary:
                losses[task] = nn.functional.binary_cross_entropy_with_logits(output[:, 0], label)
            else:
                losses[task] = nn.functional.cross_entropy(output, label, ignore_index=-100)
        self.optimizer.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        self.optimizer.step()
        self.scheduler.step()
        return losses


def mtl_steps(trainer: Trainer, bucketing: int) -> Iterator[dict[str, Tensor]]:
    """Make the steps of an epoch one after the other, and yield the losses of each."""
    state = trainer.state
    state.loader.bucketing = bucketing
    for batch in state.loader.epoch(0):
        result = trainer._step([batch], state.progress.steps / state.steps_per_epoch)
        state.progress.steps += 1
        assert result is not None
        yield dict(zip(trainer.run.kinds, result.losses, strict=True))


def timed(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def compare_losses(trainer: Trainer, plain: PlainLoop, steps: int) -> float:
    """Return the largest difference of a loss over some steps, with the same dropout in both."""
    largest, generator = 0.0, mtl_steps(trainer, 0)
    for number in range(steps):
        torch.manual_seed(number)
        ours = next(generator)
        torch.manual_seed(number)
        theirs = plain.step(number)
        difference = max(abs(float(ours[task]) - float(theirs[task].detach())) for task in theirs)
        largest = max(largest, difference)
    return largest


def compare_steps(trainer: Trainer, plain: PlainLoop, steps: int) -> tuple[float, float]:
    """Return the median seconds of a step of `mtl` and of the plain loop, which take turns on the same batches."""
    ours, theirs, generator = [], [], mtl_steps(trainer, 0)
    for number in range(steps):
        ours.append(timed(lambda: next(generator)))
        theirs.append(timed(lambda number=number: plain.step(number)))  # type: ignore[misc]
    return statistics.median(ours[2:]), statistics.median(theirs[2:])


def compare_epochs(trainer: Trainer, plain: PlainLoop, rounds: int) -> tuple[float, float]:
    """Return the median seconds of an epoch of `mtl` with bucketing, and of the plain loop in the order of the data."""
    window = trainer.experiment.training.bucketing
    ours, theirs = [], []
    for _ in range(rounds):
        ours.append(timed(lambda: [None for _ in mtl_steps(trainer, window)]))
        theirs.append(timed(lambda: [plain.step(number) for number in range(len(plain.chunks))]))
    return statistics.median(ours), statistics.median(theirs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=["losses", "steps", "epochs"])
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--length", type=int, default=128, help="maximum number of tokens")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--examples", type=int, default=1024, help="examples of an epoch")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3, help="epochs of each")
    args = parser.parse_args()
    np.random.seed(0)
    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(folder, args.layers, args.length, args.batch_size, args.examples)
        plain = PlainLoop(trainer, args.layers, args.length)
        steps = min(args.steps, len(plain.chunks))
        if args.only in (None, "losses"):
            print(
                f"losses: largest difference over {steps} steps {compare_losses(trainer, plain, steps):.2e}", flush=True
            )
        if args.only in (None, "steps"):
            ours, theirs = compare_steps(trainer, plain, steps)
            print(f"step: mtl {ours:.3f} s, plain {theirs:.3f} s, ratio {ours / theirs:.3f}", flush=True)
        if args.only in (None, "epochs"):
            ours, theirs = compare_epochs(trainer, plain, args.rounds)
            print(f"epoch: mtl {ours:.1f} s, plain {theirs:.1f} s, ratio {ours / theirs:.3f}", flush=True)


if __name__ == "__main__":
    main()
