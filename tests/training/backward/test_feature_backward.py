"""Gradients by whole sequences, before the pooling, against autograd in float64."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mtlcli.config import experiment_from_dict
from mtlcli.data.loader import Batch
from mtlcli.errors import ConfigError
from mtlcli.models.representations import pool_representation
from mtlcli.training.assembly.build import build
from mtlcli.training.assembly.optimizers import make_optimizer
from mtlcli.training.run import Run
from mtlcli.training.step import Step
from tests.training.backward.test_gradient_backward import MLP, SAME, WEIGHTS, Spy, make, spies  # noqa: F401

pytest.importorskip("transformers")
BERT = {"model_type": "bert", "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 60,
        "intermediate_size": 16, "max_position_embeddings": 16}  # fmt: skip
POOLS = {"size": "mean", "age": "max", "mood": "cls"}
LENGTHS = [9, 4, 7, 1]


def tasks(**parents: str) -> dict[str, Any]:
    kinds = {"size": "classification", "age": "regression", "mood": "binary"}
    return {
        task: {"dataset": "a", "kind": kind, "head": {"name": "linear", "pool": POOLS[task]},
               **({"after": parents[task]} if task in parents else {})}
        for task, kind in kinds.items()
    }  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("texts")
    words = ["soft", "thin", "dress", "lovely", "itchy"]
    rows = [
        {"body": " ".join(words[: 1 + row % 5]), "age": 20 + row % 5, "mood": row % 2, "size": "SML"[row % 3]}
        for row in range(40)
    ]
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


def make_text_run(folder: Path, gradients: str = "sequence", **changes: Any) -> tuple[Run, Step, Batch]:
    """Return a run in float64 and a batch of texts of different lengths."""
    targets = {"mood": "binary", "size": "classes", "age": "real"}
    data = {"name": "table", "path": str(folder / "rows.jsonl"), "text": ["body"], "features": ["body"],
            "targets": targets}  # fmt: skip
    run = build(experiment_from_dict({
        "name": "texts", "datasets": {"a": data}, "tasks": tasks(),
        "trunk": {"name": "transformers", "config": BERT, "max_length": 14},
        "weighting": {"name": "spy", "gradients": gradients}, "optimizer": {"name": "SGD", "lr": 0.1},
        "training": {"device": "cpu", "threads": 1}, **changes,
    }))  # fmt: skip
    run.model.double().train()
    for module in run.model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(3, 20, (len(LENGTHS), 2, max(LENGTHS)), dtype=torch.int32, generator=generator)
    ids[:, 1] = 0
    for row, length in enumerate(LENGTHS):
        ids[row, 0, length:] = -1
    labels = {"size": torch.tensor([0, 2, 1, 1]), "age": torch.rand(4), "mood": torch.tensor([0.0, 1, 1, 0])}
    return run, Step(run, make_optimizer(run)), Batch({"a": ids}, labels, dict.fromkeys(labels, len(LENGTHS)))


def oracle(run: Run, batch: Batch) -> tuple[Tensor, Tensor]:
    """Return the tasks' gradients by the whole sequence, [3, B L F], and the weighted one by the shared parameters."""
    trunk, x = run.model.sharing.trunk, batch.inputs["a"]
    sequence, mask = trunk(x), trunk.mask(x)
    losses = []
    for task, kind in run.kinds.items():
        prediction = run.model.heads[task](pool_representation(sequence, POOLS[task], mask))
        losses.append(kind.loss(prediction, batch.targets[task]).double())
    rows = torch.stack([torch.autograd.grad(loss, sequence, retain_graph=True)[0].flatten() for loss in losses])
    total = sum(weight * loss for weight, loss in zip(WEIGHTS, losses, strict=False))
    shared = run.model.shared_parameters()
    update = [torch.zeros_like(p) if g is None else g
              for p, g in zip(shared, torch.autograd.grad(total, shared, allow_unused=True), strict=True)]  # fmt: skip
    return rows, torch.cat([gradient.flatten() for gradient in update])


def test_gradients_by_the_whole_sequence(folder: Path) -> None:
    run, step, batch = make_text_run(folder)
    assert step.backward.route == "sequence backward"
    rows, update = oracle(run, batch)
    step([batch])
    assert isinstance(run.weighting, Spy)
    assert not torch.equal(run.weighting.seen[0].diag().diag(), run.weighting.seen[0])  # `features` would be orthogonal
    torch.testing.assert_close(run.weighting.seen[0], rows @ rows.T, rtol=1e-6, atol=1e-12)
    shared = run.model.shared_parameters()
    grad = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in shared])
    torch.testing.assert_close(grad, update, rtol=1e-6, atol=1e-9)


def test_features_of_different_poolings_are_orthogonal(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "mtl"):
        run, step, batch = make_text_run(folder, "features")
    assert "tasks whose features are pooled differently, or not at all, share none" in caplog.text
    step([batch])
    assert isinstance(run.weighting, Spy)
    assert torch.equal(run.weighting.seen[0].diag().diag(), run.weighting.seen[0])


def test_steps_between_solutions_have_the_same_update(folder: Path) -> None:
    run, step, batch = make_text_run(folder, weighting={"name": "spy", "gradients": "sequence", "every": 2})
    for _ in range(2):
        _, update = oracle(run, batch)
        step([batch])
        grad = torch.cat([
            (torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in run.model.shared_parameters()
        ])  # fmt: skip
        torch.testing.assert_close(grad, update, rtol=1e-6, atol=1e-7)


def test_a_task_that_depends_on_another_pools_for_itself(folder: Path) -> None:
    linked = tasks(mood="size")
    run, step, batch = make_text_run(folder, tasks=linked)
    trunk, x = run.model.sharing.trunk, batch.inputs["a"]
    sequence, mask = trunk(x), trunk.mask(x)
    pooled = {task: pool_representation(sequence, pool, mask) for task, pool in POOLS.items()}
    predictions = {task: run.model.heads[task](x) for task, x in pooled.items() if task != "mood"}
    predictions["mood"] = run.model.heads["mood"](pooled["mood"], predictions["size"])
    rows = torch.stack([
        torch.autograd.grad(kind.loss(predictions[task], batch.targets[task]), sequence, retain_graph=True)[0].flatten()
        for task, kind in run.kinds.items()
    ])  # fmt: skip
    step([batch])
    assert isinstance(run.weighting, Spy)
    torch.testing.assert_close(run.weighting.seen[0], rows @ rows.T, rtol=1e-6, atol=1e-12)
    with pytest.raises(ConfigError, match=r"weighting\.gradients: tasks that depend .* use `sequence`"):
        make_text_run(folder, "features", tasks=linked)


def test_a_vector_has_no_sequence() -> None:
    with pytest.raises(ConfigError, match=r"weighting\.gradients: the output of trunk 'mlp' is a vector .* `features`"):
        make(SAME, {"name": "spy", "gradients": "sequence"}, trunk=MLP)
