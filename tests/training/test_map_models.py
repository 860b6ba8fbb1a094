"""Models of maps: every weighting, sharing and regularizer, adapters, compiled models, checkpoints and exports."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

import mtlcli
from mtlcli.errors import ConfigError
from mtlcli.registry import regularizers, sharings, weightings
from mtlcli.training.assembly.build import build
from mtlcli.training.assembly.optimizers import make_optimizer
from mtlcli.training.backward.base import StepResult
from mtlcli.training.checkpoint.file import plain, save_checkpoint
from mtlcli.training.export import description_path, export
from mtlcli.training.run import Run
from mtlcli.training.step import Step
from mtlcli.weighting.base import JacobianWeighting
from tests.training.backward.test_gradient_backward import expected, flat
from tests.training.map_toys import SIZE, TASKS, UNET, batch, blobs, register
from tests.training.test_balancer import OPTIONS

CNN = {"name": "cnn", "widths": [3, 4], "output": "map"}
MTAN = {"sharing": "mtan", "trunk": {"name": "segnet", "widths": [2, 3]}}
SLOW = partial(pytest.param, marks=pytest.mark.matrix)
QUICK = ("uniform", "uncertainty", "pcgrad", "nash_mtl", "graddrop", "famo")  # one weighting of each kind
SEQUENTIAL = {"aitm", "esmm"}  # of binary tasks, each with one prediction for an example
OTHERS = {  # which need gates, several datasets, or tasks in order
    "gate_entropy": "needs gates",
    "adversarial": "at least two datasets",
    "expectation_calibrator": "needs tasks in order",
}


@pytest.fixture(autouse=True)
def toys() -> None:
    register()


def take_step(run: Run) -> StepResult:
    """Make a step, and check that all trainable parameters receive a gradient."""
    run.model.train()
    result = Step(run, make_optimizer(run))([batch(run, 0, 6)])
    assert result is not None
    for name, parameter in run.model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None and parameter.grad.isfinite().all(), name
    return result[0]


def with_changed_statistics(run: Run) -> Run:
    """Return the run with a model in evaluation mode whose batch norm and parameters are not the initial ones."""
    take_step(run)
    run.model.eval()
    return run


@pytest.mark.parametrize("name", [n if n in QUICK else SLOW(n) for n in weightings.names()])
def test_every_weighting(name: str) -> None:
    run = build(blobs(weighting={"name": name, **OPTIONS.get(name, {})}))
    shared: Any = run.model.shared_parameters()
    run.model.train()
    rows = expected(run, batch(run, 0, 6), shared)
    result = take_step(run)
    if not isinstance(run.weighting, JacobianWeighting) and name != "sdmgrad":  # which weights parts of the batch
        update = result.weights.float() @ rows
        assert (flat(shared) - update).norm() < 1e-4 * update.norm()


@pytest.mark.parametrize("name", [n if n in {*SEQUENTIAL, "mtan", "mmoe"} else SLOW(n) for n in sharings.names()])
def test_every_sharing(name: str) -> None:
    if name in SEQUENTIAL:
        with pytest.raises(ConfigError, match=r"tasks\.part\.kind: .* with one prediction for each example"):
            build(blobs(sharing=name))
    else:
        take_step(build(blobs(sharing=name, trunk=CNN)))


@pytest.mark.parametrize("name", [n if n in {*OTHERS, "l2"} else SLOW(n) for n in regularizers.names()])
def test_every_regularizer(name: str) -> None:
    if name in OTHERS:
        with pytest.raises(ConfigError, match=rf"regularizers\.0: .*{OTHERS[name]}"):
            build(blobs(regularizers=[name]))
    else:
        without, run = build(blobs()), build(blobs(regularizers=[{"name": name, "strength": 1.0}]))
        take_step(without)
        take_step(run)
        gradients = {name: p.grad for name, p in without.model.named_parameters()}
        same = [
            torch.equal(p.grad, gradients[name])  # type: ignore[arg-type]
            for name, p in run.model.named_parameters()
            if name in gradients
        ]
        assert not all(same)


@pytest.mark.parametrize("arrangement", ["shared", "per_task", "mtl_lora"])
def test_adapters_of_convolutions(arrangement: str) -> None:
    adapters = {"name": "lora", "rank": 2, "targets": ["encoder*"], "arrangement": arrangement}
    run = build(blobs(adapters=adapters, weighting="pcgrad"))
    before = {name: p.clone() for name, p in run.model.named_parameters()}
    step, whole = Step(run, make_optimizer(run)), batch(run, 0, 6)
    for _ in range(2):  # the first one changes B only, which starts at 0
        assert step([whole]) is not None
    changed = {name for name, p in run.model.named_parameters() if not torch.equal(before[name], p)}
    of_trunk = {name for name in changed if ".heads." not in name}
    assert of_trunk and all("adapter" in name for name in of_trunk), of_trunk


@pytest.mark.matrix
@pytest.mark.parametrize("changes", [{}, {"weighting": {"name": "mgda", "gradients": "features"}}, MTAN], ids=str)
@pytest.mark.filterwarnings("ignore")  # of torch's compiler
def test_compiled_models_make_the_same_step(changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    compile_function, results = torch.compile, []
    eager: dict[str, Any] = {"backend": "aot_eager"}  # traces the model, without generating machine code
    monkeypatch.setattr(torch, "compile", lambda function, **_: compile_function(function, **eager))
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self: setattr(self, "forward", torch.compile(self.forward)))
    for compiled in (False, True):
        training = {"epochs": 1, "device": "cpu", "threads": 1, "compile": compiled}
        run = build(blobs(training=training, **changes))
        results.append([take_step(run).losses, *(p.grad for p in run.model.parameters())])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_a_checkpoint_in_python(tmp_path: Path) -> None:
    """Raw images in, maps and vectors out."""
    run = with_changed_statistics(build(blobs(trunk=CNN)))
    specs = {alias: spec.to_dict() for alias, spec in run.specs.items()}
    payload = {"config": run.experiment.resolved(), "specs": specs, "model": plain(dict(run.model.state_dict()))}
    save_checkpoint(tmp_path / "best.pt", payload)
    model, images = mtlcli.load(tmp_path / "best.pt"), batch(run, 0, 3).inputs["blobs"]
    with torch.no_grad():
        outputs, wanted = model(images), run.model({"blobs": images})
    assert {task: x.shape[1:] for task, x in outputs.items()} == {
        "part": (3, *SIZE),
        "height": (1, *SIZE),
        "count": (1,),
    }
    for task, output in outputs.items():
        assert torch.equal(output, wanted[task])
    assert {task: x.ndim for task, x in model.features(images).items()} == {"part": 4, "height": 4, "count": 2}


@pytest.mark.matrix
@pytest.mark.parametrize("changes", [{}, MTAN], ids=["hard", "mtan"])
@pytest.mark.filterwarnings("ignore")  # of torch's exporter
def test_torch_export(changes: dict[str, Any], tmp_path: Path) -> None:
    run = with_changed_statistics(build(blobs(**changes)))
    inputs = {"blobs": batch(run, 0, 4).inputs["blobs"]}
    with torch.no_grad():
        wanted = run.model(inputs)
    export(run, "torch-export", tmp_path / "model.pt2")
    outputs = torch.export.load(tmp_path / "model.pt2").module()(inputs)
    torch.testing.assert_close(dict(outputs), wanted)
    document = json.loads(description_path(tmp_path / "model.pt2").read_text())
    shapes = {task: output["shape"] for task, output in document["outputs"].items()}
    assert shapes == {"part": ["batch", 3, *SIZE], "height": ["batch", 1, *SIZE], "count": ["batch", 1]}


@pytest.mark.matrix
@pytest.mark.parametrize(
    "trunk", [UNET, CNN], ids=["unet", "cnn"]
)  # onnx's own evaluator has other positions of maxima
@pytest.mark.filterwarnings("ignore")  # of torch's exporter and of onnx, as they are imported
def test_onnx(trunk: dict[str, Any], tmp_path: Path) -> None:
    run = with_changed_statistics(build(blobs(trunk=trunk)))
    inputs = batch(run, 0, 4).inputs["blobs"]
    with torch.no_grad():
        wanted = run.model({"blobs": inputs})
    export(run, "onnx", tmp_path / "model.onnx")
    from onnx.reference import ReferenceEvaluator

    outputs = ReferenceEvaluator(str(tmp_path / "model.onnx")).run(None, {"blobs": inputs.numpy()})
    for output, task in zip(outputs, TASKS, strict=True):
        torch.testing.assert_close(torch.from_numpy(output), wanted[task], rtol=1e-4, atol=1e-5)
