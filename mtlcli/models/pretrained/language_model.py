"""The output layer, and the decoder if there is one, that make a language model of a trunk."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from mtlcli.models.pretrained.base import Base
from mtlcli.models.pretrained.configs import make_config
from mtlcli.models.pretrained.networks import instantiate
from mtlcli.specs import IGNORE_INDEX

PADDING = -1  # of tokens, in inputs and results


class LanguageModel(nn.Module):
    """Language model around the network of a trunk, with which it shares all parameters that both have.

    The parameters of this module are only those that the network lacks: of the output layer unless it has the weights
    of the embeddings, and of the decoder that follows an encoder. They are submodules under the names that they have in
    the model of `transformers`, with `-` for `.`.

    A decoder has read the prompt followed by the answer: in its inputs [B, 2, L], the second plane is 1 for the tokens
    of the answer. For the decoder that follows an encoder, the second plane has the tokens of the answer.

    Args:
        network: the network of the trunk.
        base: configuration and weights of its model.

    Attributes:
        encoded: whether a decoder follows the network, which is an encoder.
        longest: an upper bound of the number of tokens of an answer, used where counting them in a batch would wait for
            the device.

    Raises:
        ValueError: the model has no language model, or its weights don't fit.
    """

    def __init__(self, network: Any, base: Base) -> None:
        super().__init__()
        config = make_config(base.config)
        self.encoded = bool(getattr(config, "is_encoder_decoder", False))
        self.longest = 2**16
        attention = "eager" if network.config._attn_implementation == "eager" else "sdpa"
        full = instantiate(_class_of(config, self.encoded), config, base.weights, attention)
        own = full.get_encoder() if self.encoded else full.base_model
        if type(own) is not type(network):
            raise ValueError(f"transformers has no language model for {config.model_type!r} around this network")
        source = full.get_input_embeddings().weight
        self._tied = [(m, name) for m in full.modules() for name, p in m._parameters.items() if p is source]
        self._embeddings = _Reference(network.get_input_embeddings())
        inside = {id(module) for module in network.modules()}
        _replace(full, own, network)
        if not self.encoded:
            full.config = network.config  # of as many layers
        for key in ("pad_token_id", "decoder_start_token_id"):
            if self.encoded and getattr(full.config, key, None) is None:
                setattr(full.config, key, getattr(full.config, "pad_token_id", None) or 0)
        self._tied = [
            (m, name) for m, name in self._tied if any(m is x for x in full.modules()) and id(m) not in inside
        ]
        for module, name in self._tied:
            del module._parameters[name]
        self._full = _Reference(full)
        for name, module in _outside(full, network):
            self.add_module(name.replace(".", "-"), module)
            for inner in module.modules():  # as in `build_network`
                inner._non_persistent_buffers_set.clear()
        self._containers = _own_buffers(full, network)
        for name, module, key in self._containers:
            self.register_buffer(name, module._buffers[key])
        self._share()

    def _share(self) -> Any:
        """Give the layers with the weights of the embeddings their current ones, and return the whole model."""
        weight = self._embeddings.module.weight
        for module, name in self._tied:
            object.__setattr__(module, name, weight)
        for name, module, key in self._containers:
            module._buffers[key] = getattr(self, name)
        return self._full.module

    def logits(self, x: Tensor, hidden: Tensor, mask: Tensor | None) -> Tensor:
        """Compute the logits of the tokens of the answers.

        Args:
            x: inputs of the trunk, [B, 2, L].
            hidden: output of the trunk, [B, L, F].
            mask: valid positions of the encoder's output, bool [B, L]; None for all.

        Returns:
            [B, A, vocabulary], where A is at least the number of tokens of the longest answer: the first is that of the
            first token of each answer.
        """
        full, answered = self._share(), x[:, 1] >= (0 if self.encoded else 1)
        width = min(self._longest_answer(answered), x.shape[2])
        if self.encoded:
            labels = x[:, 1, :width].long()
            inputs = full.prepare_decoder_input_ids_from_labels(labels.masked_fill(labels < 0, IGNORE_INDEX))
            result = full(
                encoder_outputs=(hidden,), attention_mask=None if mask is None else mask.long(),
                decoder_input_ids=inputs, use_cache=False,
            )  # fmt: skip
        else:
            first = answered.int().argmax(1).unsqueeze(1)
            columns = (first - 1 + torch.arange(width, device=x.device)).clamp(0, x.shape[2] - 1)
            chosen = hidden.gather(1, columns.unsqueeze(2).expand(-1, -1, hidden.shape[2]))
            result = _output_layer(full)(inputs_embeds=chosen, use_cache=False)
        logits: Tensor = result.logits
        return logits

    def _longest_answer(self, answered: Tensor) -> int:
        if answered.device.type != "cpu":
            return self.longest
        return max(1, int(answered.sum(1).max())) if len(answered) else 1

    @torch.no_grad()
    def generate(self, x: Tensor, hidden: Tensor | None, mask: Tensor | None, tokens: int, end: int) -> Tensor:
        """Generate answers by greedy decoding: the most probable token at each step.

        Args:
            x: inputs of the trunk, [B, 2, L]; tokens of answers in them are ignored.
            hidden: output of the trunk for them, [B, L, F], if a decoder follows an encoder.
            mask: valid positions of the encoder's output, bool [B, L]; None for all.
            tokens: maximum number of tokens of an answer.
            end: token after which an answer ends.

        Returns:
            Tokens of the answers, int64 [B, M] with M ≤ `tokens`, without the last one; −1 after the end.
        """
        from transformers import GenerationConfig

        full = self._share()
        settings = GenerationConfig(
            max_new_tokens=tokens, do_sample=False, num_beams=1, eos_token_id=end, pad_token_id=end, use_cache=True,
            decoder_start_token_id=full.config.decoder_start_token_id if self.encoded else None,
        )  # fmt: skip
        if self.encoded:
            from transformers.modeling_outputs import BaseModelOutput

            arguments = {"encoder_outputs": BaseModelOutput(last_hidden_state=hidden)}
            if mask is not None:
                arguments["attention_mask"] = mask.long()
            width = 1
        else:
            ids, attended = left_padded(x, end)
            arguments, width = {"input_ids": ids, "attention_mask": attended}, ids.shape[1]
        sequences = full.generate(**arguments, generation_config=settings)[:, width:]
        ended = (sequences == end).cumsum(1) > 0
        answers: Tensor = sequences.masked_fill(ended, PADDING)
        return answers


class _Reference:
    """A module that is not registered as a submodule of the one that refers to it."""

    def __init__(self, module: Any) -> None:
        self.module = module


class _Given(nn.Module):
    """Stands for the network whose output is known: it returns its inputs."""

    def forward(self, *args: Any, inputs_embeds: Tensor, **options: Any) -> _Hidden:
        """Return the hidden states [B, L, F] that are passed as embeddings."""
        return _Hidden(inputs_embeds)


class _Hidden:
    """Output of a network of which only the last hidden state is computed.

    Args:
        last_hidden_state: the hidden state, [B, L, F].
    """

    def __init__(self, last_hidden_state: Tensor) -> None:
        self.last_hidden_state = last_hidden_state

    def __getattr__(self, name: str) -> None:
        """Return None for everything that a network of transformers may return in addition."""
        return

    def __getitem__(self, index: int) -> Tensor:
        """Return the hidden state as the first element."""
        if index:
            raise IndexError(index)
        return self.last_hidden_state


def left_padded(x: Tensor, padding: int) -> tuple[Tensor, Tensor]:
    """Return the prompts of a batch with padding in front of them.

    Args:
        x: inputs of a decoder, [B, 2, L]: tokens, −1 after the end; and 1 for those of the answer.
        padding: token in front of shorter prompts.

    Returns:
        Tokens and attention mask, int64 [B, longest prompt].
    """
    lengths = ((x[:, 0] >= 0) & (x[:, 1] != 1)).sum(1, keepdim=True)
    longest = max(1, int(lengths.max()))
    columns = torch.arange(longest, device=x.device) - (longest - lengths)
    ids = x[:, 0].long().gather(1, columns.clamp(min=0))
    return torch.where(columns >= 0, ids, padding), (columns >= 0).long()


def _class_of(config: Any, encoded: bool) -> Any:
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING

    mapping = MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING if encoded else MODEL_FOR_CAUSAL_LM_MAPPING
    if type(config) not in mapping:
        raise ValueError(f"transformers has no language model for model_type {config.model_type!r}")
    return mapping[type(config)]


def _replace(full: nn.Module, own: nn.Module, network: nn.Module) -> None:
    """Put the network of the trunk in the place of that of a whole model."""
    for module in list(full.modules()):
        for name, child in module.named_children():
            if child is own:
                module._modules[name] = network


def _contains(module: nn.Module, network: nn.Module) -> bool:
    return any(inner is network for inner in module.modules())


def _outside(full: nn.Module, network: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    """Yield the topmost modules with parameters or buffers that the network lacks, by their path."""
    for name, child in full.named_children():
        if child is network:
            continue
        if _contains(child, network):
            yield from _outside(child, network, f"{prefix}{name}.")
        elif any(True for _ in child.parameters()) or any(True for _ in child.buffers()):
            yield f"{prefix}{name}", child


def _own_buffers(full: nn.Module, network: nn.Module) -> list[tuple[str, nn.Module, str]]:
    """Return name, module and key of the buffers of modules that contain the network."""
    return [
        (f"{path.replace('.', '-')}-{key}".lstrip("-"), module, key)
        for path, module in full.named_modules()
        if module is not network and _contains(module, network)
        for key, buffer in module._buffers.items()
        if buffer is not None
    ]


def _output_layer(full: Any) -> Any:
    """Return the whole model as a function of the network's output."""
    layer = copy.copy(full)
    layer._modules = {**full._modules, full.base_model_prefix: _Given()}
    return layer
