"""Adapters that depend on the task, under hard sharing: representations, ownership of parameters, passes."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mtlcli.models.adapters.attachment import attach
from mtlcli.models.adapters.base import Adapters, adapters_in
from mtlcli.models.adapters.lora import LoRA
from mtlcli.models.adapters.routing import RoutedSharing
from mtlcli.models.sharing.base import Sharing
from mtlcli.models.sharing.hard import HardSharing
from mtlcli.models.trunks.base import Trunk
from mtlcli.registry import adapters as registry
from mtlcli.registry import trunks
from tests.models.sharing.test_every_sharing import ONE, OVER_DATASETS, TRUNKS, TWO, batches, check_owners

FORMS: dict[str, dict[str, Any]] = {
    **{name: {"name": "lora", "arrangement": name, "rank": 2} for name in ("per_task", "shared_and_per_task")},
    "mtl_lora": {"name": "lora", "arrangement": "mtl_lora", "rank": 2},
    "houlsby": {"name": "houlsby", "arrangement": "per_task", "bottleneck": 2, "targets": ["*fc*"]},
}
SHARED = {name: {"name": "lora", "arrangement": name, "rank": 2} for name in ("shared", "hydra")}
OVER_FORMS = pytest.mark.parametrize("form", FORMS)


def make(form: str, trunk: str = "mlp", inputs: dict[str, str] = TWO, **changes: Any) -> Sharing:
    """Return a sharing in float64 with random adapters."""
    torch.manual_seed(0)
    shape, options = TRUNKS[trunk]

    def make_trunk() -> Trunk:
        created: Trunk = trunks[trunk].create(shape, **{**options, **({"dropout": 0.0} if trunk == "mlp" else {})})
        created.input_shape = shape
        return created

    def make_head(task: str, features: int) -> nn.Module:
        return nn.Linear(features, len(task))

    entry = {**(FORMS | SHARED)[form], **changes}
    adapters: Adapters = registry[entry.pop("name")].create(list(inputs), **entry)
    if form in FORMS:
        sharing: HardSharing = RoutedSharing(make_trunk, make_head, inputs)
        sharing.attach(adapters)  # type: ignore[attr-defined]
    else:
        sharing = HardSharing(make_trunk, make_head, inputs)
        attach(adapters, sharing.trunk)
    for adapter in adapters_in(sharing).values():
        for parameter in adapter.parameters():
            nn.init.normal_(parameter, std=0.5)
    return sharing.double()


def given(trunk: str = "mlp", inputs: dict[str, str] = TWO) -> dict[str, Tensor]:
    return {alias: x.double() for alias, x in batches(trunk, inputs).items()}


@pytest.mark.parametrize("form", [*FORMS, *SHARED])
@pytest.mark.parametrize("trunk", ["mlp", "cnn", "lenet"])
@OVER_DATASETS
def test_own_and_shared_parameters_agree_with_autograd(form: str, trunk: str, inputs: dict[str, str]) -> None:
    sharing = make(form, trunk, inputs).train()
    check_owners(sharing, given(trunk, inputs))
    kinds = {name.split(".tasks.")[-1] for name, p in sharing.named_parameters() if p.requires_grad}
    assert kinds  # something is trained
    shared = {name.rpartition(".")[2] for name, p in sharing.named_parameters()
              if p.requires_grad and any(p is s for s in sharing.shared_parameters())}  # fmt: skip
    expected = {"per_task": set(), "houlsby": set(), "hydra": {"a", "b", "router"}}.get(form, {"a", "b"})
    assert shared == expected


@OVER_FORMS
@OVER_DATASETS
@torch.no_grad()
def test_each_task_has_the_representation_of_a_trunk_with_its_adapters(form: str, inputs: dict[str, str]) -> None:
    sharing = make(form, inputs=inputs).eval()
    assert isinstance(sharing, RoutedSharing)
    x = given(inputs=inputs)
    joint = sharing.representations(x, list(inputs))
    for task, alias in inputs.items():
        sharing.route.task = task
        torch.testing.assert_close(joint[task], sharing.trunk(x[alias]), rtol=1e-12, atol=1e-12)
        alone = sharing.representations(x, [task])
        assert torch.equal(alone[task], joint[task])
    values = [joint[task] for task in ("digit", "parity")]
    assert not torch.allclose(values[0], values[1])


def test_tasks_on_the_same_examples_share_the_pass_up_to_the_first_adapted_stage() -> None:
    sharing = make("per_task", inputs=ONE, targets=["fc2"])
    calls = {f"fc{n}": 0 for n in (1, 2, 3)}
    assert isinstance(sharing, RoutedSharing)
    for name in calls:
        sharing.trunk.get_submodule(name).register_forward_hook(
            lambda *_, name=name: calls.__setitem__(name, calls[name] + 1)
        )
    sharing(given(inputs=ONE), list(ONE))
    assert calls == {"fc1": 1, "fc2": 3, "fc3": 3}


def test_first_stage_with_a_shared_adapter_only_is_passed_once() -> None:
    """A shared adapter in front of the first one that depends on the task belongs to the common pass."""
    sharing = make("shared_and_per_task", inputs=ONE, targets=["fc3"])
    assert isinstance(sharing, RoutedSharing)
    assert sharing.common_stages == 2


@OVER_FORMS
def test_gradients_are_those_of_separate_models(form: str) -> None:
    """The shared pass changes no gradient: each task's is that of its loss alone."""
    sharing = make(form, inputs=ONE, **({} if form == "houlsby" else {"targets": ["fc2", "fc3"]}))
    x, parameters = given(inputs=ONE), [p for p in sharing.parameters() if p.requires_grad]
    outputs = sharing(x, list(ONE))
    for task in ONE:
        joint = torch.autograd.grad(outputs[task].square().sum(), parameters, retain_graph=True, allow_unused=True)
        alone = torch.autograd.grad(sharing(x, [task])[task].square().sum(), parameters, allow_unused=True)
        for first, second in zip(joint, alone, strict=True):
            assert (first is None) == (second is None)
            if first is not None and second is not None:
                torch.testing.assert_close(first, second, rtol=1e-10, atol=1e-12)


def test_copies_have_a_route_of_their_own() -> None:
    sharing = make("per_task", inputs=ONE).eval()
    copy = deepcopy(sharing)
    assert isinstance(copy, RoutedSharing) and isinstance(sharing, RoutedSharing)
    assert copy.route is not sharing.route
    assert all(adapter.route is copy.route for adapter in adapters_in(copy).values())
    x = given(inputs=ONE)
    for task, value in sharing(x, list(ONE)).items():
        assert torch.equal(value, copy(x, list(ONE))[task])


def test_shared_arrangements_keep_one_representation_for_a_dataset() -> None:
    sharing = make("hydra")
    representations = sharing.representations(given(), list(TWO))
    assert representations["digit"] is representations["parity"]
    assert sharing.common_features and sharing.one_trunk
    assert not make("per_task").common_features


BERT = {"model_type": "bert", "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 20,
        "intermediate_size": 16, "max_position_embeddings": 8, "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0}  # fmt: skip


def transformer(**options: Any) -> RoutedSharing:
    """Return a small BERT whose second layer has adapters for each task."""
    torch.manual_seed(0)
    options |= {"config": BERT, "max_length": 8}
    component = trunks["transformers"]
    base = component.target.load_base(options)

    def make_trunk() -> Trunk:
        trunk: Trunk = component.create((2, 8), base, **options)
        trunk.input_shape = (2, 8)
        return trunk

    sharing = RoutedSharing(make_trunk, lambda task, features: nn.Linear(features, 2), ONE)
    sharing.attach(LoRA(list(ONE), rank=2, arrangement="mtl_lora", targets=["*.1.*.query", "encoder.layer.1.out*"]))
    for adapter in adapters_in(sharing).values():
        for parameter in adapter.parameters():
            nn.init.normal_(parameter, std=0.5)
    return sharing.train()


def test_layers_of_a_transformer_are_shared_up_to_the_first_adapted_one() -> None:
    """Also where activations are computed again in the backward pass, each task has the gradients of its adapters."""
    tokens = torch.randint(0, 20, (3, 2, 6), dtype=torch.int32)
    tokens[:, 1] = 0
    gradients = []
    for options in ({}, {"gradient_checkpointing": True}):
        sharing = transformer(**options)
        assert list(sharing.of_layers) == [f"network.encoder.layer.1.{name}" for name in ("attention.self.query",
                                                                                          "output.dense")]  # fmt: skip
        assert sharing.common_stages == 2  # the embeddings and the first layer
        representations = sharing.representations({"mnist": tokens}, list(ONE))
        parameters = [p for p in sharing.parameters() if p.requires_grad and p.shape != (2,)]
        total = torch.stack([(at + 1) * x.square().sum() for at, x in enumerate(representations.values())]).sum()
        gradients.append(torch.autograd.grad(total, parameters, allow_unused=True))
        alone: list[Tensor | None] = [None] * len(parameters)
        for at, task in enumerate(ONE):
            sharing.route.task = task
            x = sharing.trunk(tokens)
            torch.testing.assert_close(x, representations[task], rtol=1e-5, atol=1e-5)
            own = torch.autograd.grad((at + 1) * x.square().sum(), parameters, allow_unused=True)
            alone = [b if a is None else a if b is None else a + b for a, b in zip(alone, own, strict=True)]
        for first, second in zip(gradients[-1], alone, strict=True):
            assert (first is None) == (second is None)
            if first is not None and second is not None:
                torch.testing.assert_close(first, second, rtol=1e-4, atol=1e-5)
    for first, second in zip(*gradients, strict=True):
        assert first is None or torch.allclose(first, second, rtol=1e-4, atol=1e-5)
