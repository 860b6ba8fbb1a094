"""Language models around the network of a trunk, compared with those of transformers."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mtlcli.models.pretrained.base import Base
from mtlcli.models.pretrained.configs import make_config
from mtlcli.models.pretrained.language_model import LanguageModel, left_padded
from mtlcli.models.pretrained.networks import build_network
from mtlcli.specs import IGNORE_INDEX, TargetSpec
from tests.tasks.labels import kind

VOCABULARY, END = 50, 1
CONFIGS: dict[str, dict[str, Any]] = {
    "gpt2": {"model_type": "gpt2", "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64},
    "llama": {
        "model_type": "llama", "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": False,
    },
    "t5": {"model_type": "t5", "d_model": 16, "d_kv": 4, "d_ff": 24, "num_layers": 2, "num_heads": 2},
    "bart": {
        "model_type": "bart", "d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2,
        "decoder_attention_heads": 2, "encoder_ffn_dim": 24, "decoder_ffn_dim": 24, "max_position_embeddings": 64,
    },
}  # fmt: skip
SPECIAL = {
    "vocab_size": VOCABULARY, "bos_token_id": END, "eos_token_id": END, "pad_token_id": 0, "decoder_start_token_id": 0,
    "forced_eos_token_id": None,
}  # fmt: skip
every_model = pytest.mark.parametrize("name", CONFIGS)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Any, Any, LanguageModel]]:
    """Return name → transformers' model, the network of a trunk and the language model around it."""
    transformers = pytest.importorskip("transformers")
    built = {}
    for name, plain in CONFIGS.items():
        torch.manual_seed(0)
        config = make_config({**plain, **SPECIAL})
        auto = transformers.AutoModelForSeq2SeqLM if config.is_encoder_decoder else transformers.AutoModelForCausalLM
        whole = auto.from_config(config).eval()
        for parameter in whole.parameters():  # initial weights are so small that all tokens are equally probable
            parameter.data += 0.3 * torch.randn_like(parameter)
        folder = tmp_path_factory.mktemp(name)
        whole.save_pretrained(folder)
        weights: tuple[Path, ...] = (folder / "model.safetensors",)
        base = Base({**plain, **SPECIAL}, weights=weights)
        network = build_network(make_config(base.config), weights, "sdpa").eval()
        built[name] = (whole, network, LanguageModel(network, base).eval())
    return built


def rows_of(encoded: bool, seed: int = 0) -> tuple[Tensor, Tensor, list[list[int]], list[list[int]]]:
    """Return inputs [B, 2, L], labels, and the prompts and answers of a batch of mixed lengths."""
    generator = torch.Generator().manual_seed(seed)
    sizes = [(3, 2), (7, 4), (1, 1), (5, 3)]
    prompts = [torch.randint(2, VOCABULARY, (n,), generator=generator).tolist() for n, _ in sizes]
    answers = [[*torch.randint(2, VOCABULARY, (n - 1,), generator=generator).tolist(), END] for _, n in sizes]
    inputs, labels = torch.full((4, 2, 12), -1, dtype=torch.int32), torch.full((4, 6), IGNORE_INDEX)
    for row, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        labels[row, : len(answer)] = torch.tensor(answer)
        planes = (prompt, answer) if encoded else (prompt + answer, [0] * len(prompt) + [1] * len(answer))
        for plane, tokens in enumerate(planes):
            inputs[row, plane, : len(tokens)] = torch.tensor(tokens)
    return inputs, labels, prompts, answers


def hidden_of(network: Any, inputs: Tensor) -> tuple[Tensor, Tensor]:
    mask = inputs[:, 0] >= 0
    ids = inputs[:, 0].long().clamp(min=0)
    return network(input_ids=ids, attention_mask=mask.long()).last_hidden_state, mask


@every_model
@pytest.mark.parametrize("average", ["token", "example"])
def test_loss_is_that_of_transformers(name: str, average: str, models: dict[str, Any]) -> None:
    whole, network, language_model = models[name]
    inputs, labels, prompts, answers = rows_of(language_model.encoded)
    hidden, mask = hidden_of(network, inputs)
    task = kind("generation", TargetSpec("text"), prompt="{x}", average=average)
    loss = task.loss(language_model.logits(inputs, hidden, mask), labels)

    def loss_of(prompt: list[int], answer: list[int]) -> Tensor:
        if language_model.encoded:
            return whole(input_ids=torch.tensor([prompt]), labels=torch.tensor([answer])).loss
        own = torch.tensor([[IGNORE_INDEX] * len(prompt) + answer])
        return whole(input_ids=torch.tensor([prompt + answer]), labels=own).loss

    losses = [loss_of(*pair) for pair in zip(prompts, answers, strict=True)]
    weights = [len(answer) if average == "token" else 1 for answer in answers]
    expected = sum(w * x for w, x in zip(weights, losses, strict=True)) / sum(weights)
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-5)
    if average == "token" and not language_model.encoded:
        batch = torch.where(inputs[:, 1] == 1, inputs[:, 0].long(), IGNORE_INDEX)
        ids = inputs[:, 0].long().clamp(min=0)
        together = whole(input_ids=ids, attention_mask=mask.long(), labels=batch).loss
        torch.testing.assert_close(loss, together, rtol=1e-5, atol=1e-5)


@every_model
def test_greedy_decoding_is_that_of_transformers(name: str, models: dict[str, Any]) -> None:
    """Rows of a batch of mixed lengths have the answers that transformers generates for each alone."""
    whole, network, language_model = models[name]
    inputs, _, prompts, _ = rows_of(language_model.encoded, seed=1)
    hidden, mask = hidden_of(network, inputs)
    answers = language_model.generate(inputs, hidden, mask, tokens=8, end=END)
    assert answers.dtype == torch.int64 and answers.shape[1] <= 8
    lengths = set()
    for prompt, answer in zip(prompts, answers.tolist(), strict=True):
        ids = torch.tensor([prompt])
        expected = whole.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            max_new_tokens=8,
            eos_token_id=END,
            pad_token_id=0,
        )[0, (1 if language_model.encoded else len(prompt)) :].tolist()
        expected = expected[: expected.index(END)] if END in expected else expected
        assert [token for token in answer if token >= 0] == expected
        assert answer == expected + [-1] * (len(answer) - len(expected))
        lengths.add(len(expected))
    again = language_model.generate(inputs, hidden, mask, tokens=8, end=END)
    assert torch.equal(again, answers)


@every_model
def test_parameters_are_those_that_the_network_lacks(name: str, models: dict[str, Any]) -> None:
    whole, network, language_model = models[name]
    own = {id(p) for p in language_model.parameters()}
    assert own.isdisjoint(id(p) for p in network.parameters())
    sizes = [sum(p.numel() for p in module.parameters()) for module in (whole, network, language_model)]
    assert sizes[0] == sizes[1] + sizes[2]
    names = {"gpt2": set(), "llama": {"lm_head"}, "t5": {"decoder"}, "bart": {"model-decoder"}}
    assert {key.split(".")[0] for key, _ in language_model.named_parameters()} == names[name]
    assert not any("embed_tokens" in key for key in language_model.state_dict())


@every_model
def test_restored_and_copied_models_share_the_embeddings(name: str, models: dict[str, Any]) -> None:
    """Loading with `assign` and a deep copy leave the layers that share weights connected."""
    _, network, language_model = models[name]
    inputs = rows_of(language_model.encoded)[0]
    pair = copy.deepcopy(torch.nn.ModuleDict({"network": network, "language_model": language_model}))
    with torch.no_grad():
        for parameter in pair.parameters():
            parameter.mul_(1.5)
    state = {key: value.clone() for key, value in pair.state_dict().items()}
    restored = copy.deepcopy(pair)
    restored.load_state_dict(state, assign=True)
    expected = pair["language_model"].logits(inputs, *hidden_of(pair["network"], inputs))
    got = restored["language_model"].logits(inputs, *hidden_of(restored["network"], inputs))
    torch.testing.assert_close(got, expected)
    original = language_model.logits(inputs, *hidden_of(network, inputs))
    assert not torch.allclose(original, expected)


def test_gradient_reaches_the_embeddings_by_both_ways(models: dict[str, Any]) -> None:
    whole, network, language_model = models["gpt2"]
    inputs, labels, _, _ = rows_of(False)
    network, language_model = (copied := copy.deepcopy([network, language_model]))[0], copied[1]
    kind("generation", TargetSpec("text"), prompt="{x}").loss(
        language_model.logits(inputs, *hidden_of(network, inputs)), labels
    ).backward()
    batch = torch.where(inputs[:, 1] == 1, inputs[:, 0].long(), IGNORE_INDEX)
    whole.zero_grad()
    whole(input_ids=inputs[:, 0].long().clamp(min=0), labels=batch).loss.backward()
    torch.testing.assert_close(network.wte.weight.grad, whole.transformer.wte.weight.grad, rtol=1e-4, atol=1e-6)


def test_inputs_without_answers(models: dict[str, Any]) -> None:
    for _, network, language_model in models.values():
        inputs = rows_of(language_model.encoded)[0]
        inputs[:, 1] = -1 if language_model.encoded else 0
        assert language_model.logits(inputs, *hidden_of(network, inputs)).isfinite().all()


def test_prompts_are_padded_in_front() -> None:
    inputs = torch.tensor([[[5, 6, 7, 8], [0, 0, 1, 1]], [[5, 6, 7, -1], [0, 0, 0, -1]]], dtype=torch.int32)
    ids, mask = left_padded(inputs, 9)
    assert ids.tolist() == [[9, 5, 6], [5, 6, 7]] and mask.tolist() == [[0, 1, 1], [1, 1, 1]]


def test_model_without_a_language_model() -> None:
    pytest.importorskip("transformers")
    plain = {"model_type": "vit", "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
             "intermediate_size": 16, "image_size": 32, "patch_size": 16}  # fmt: skip
    network = build_network(make_config(plain), (), "sdpa")
    with pytest.raises(ValueError, match="no language model for model_type 'vit'"):
        LanguageModel(network, Base(plain))
