"""Pretrained models of the library `transformers` as trunks."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

import torch
from pydantic import PositiveInt
from torch import Tensor, nn

from mtlcli.models.modules import blank_example, evaluation_mode
from mtlcli.models.pretrained.base import Base
from mtlcli.models.pretrained.configs import make_config, own_pool, reads_text
from mtlcli.models.pretrained.layer_chain import LayerChain, find_layers
from mtlcli.models.pretrained.loading import attribute_to, load_base, read_settings
from mtlcli.models.pretrained.networks import ATTENTION, all_valid, build_network, is_causal
from mtlcli.models.representations import POOLS, Representation, pool_representation
from mtlcli.models.trunks.base import Trunk
from mtlcli.registry import trunks
from mtlcli.specs import Pool, Shape


@trunks.register("transformers")
class TransformersTrunk(Trunk):
    """A pretrained encoder or decoder of the library `transformers`, for texts or images → [B, L, F].

    Its output is the sequence of the last hidden states. Tasks that predict one value for each example receive it
    pooled: by `pool`, or by the `pool` of their head.

    Args:
        input_shape: shape of an example: (2, max_length) for texts, (C, H, W) for images.
        base: configuration, tokenizer and weights, from `load_base`.
        model: folder of a model with config.json, tokenizer.json and model.safetensors, or the id of a model of the
            hub.
        config: configuration of a model with random weights, such as {model_type: bert, hidden_size: 128}.
        tokenizer: a tokenizer.json, or a folder with one; null: that of the model, or one that is trained on the
            training texts.
        max_length: number of tokens to which texts are truncated.
        layers: number of first layers to keep; null: all.
        pool: mean, cls (the first position), max or last (the last token); null: the convention of the model.
        gradient_checkpointing: whether to compute the activations of the layers again in the backward pass, which
            takes less memory and more time.
        attention: sdpa, torch's fused attention, or eager; models without sdpa use eager.

    Raises:
        ValueError: if the model doesn't read the inputs of the datasets, or its weights don't fit its configuration.
    """

    takes_base = True
    representation: Representation = "sequence"
    stages_are_linked = True
    decay_norms = False

    def __init__(
        self,
        input_shape: Shape,
        base: Base,
        *,
        model: str | None = None,
        config: dict[str, Any] | None = None,
        tokenizer: str | None = None,
        max_length: PositiveInt = 128,
        layers: PositiveInt | None = None,
        pool: Pool | None = None,
        gradient_checkpointing: bool = False,
        attention: Literal["sdpa", "eager"] = "sdpa",
    ) -> None:
        super().__init__()
        settings = make_config(base.config)
        self.texts = reads_text(settings)
        _check_inputs(input_shape, settings, self.texts)
        if not self.texts and "image_size" not in base.config and hasattr(settings, "image_size"):
            settings.image_size = list(input_shape[1:])
        source, convention = "config" if model is None else "model", own_pool(settings)
        self.network = attribute_to(source, build_network, settings, base.weights, attention)
        self.causal = is_causal(self.network)
        self.pool = pool or base.pool or ("last" if self.causal else convention)
        path = find_layers(self.network, getattr(settings, "num_hidden_layers", 0))
        if layers is not None:
            _keep_layers(self.network, path, layers, settings.model_type)
        parameters = inspect.signature(type(self.network).forward).parameters
        types = getattr(settings, "type_vocab_size", 0) or 0
        self.types = types if types > 1 and "token_type_ids" in parameters else 0
        self.padding = _padding(settings) if self.texts else 0
        attends: Any = self.network.config
        self.unread = attends._attn_implementation == ATTENTION or settings.model_type.startswith("deberta")
        self.channels = 0 if self.texts else settings.num_channels
        self.interpolates = "interpolate_pos_encoding" in parameters and not self.texts
        if gradient_checkpointing:
            _checkpoint_layers(self.network, settings.model_type)
        self.chain = None if path is None else LayerChain(self.network, path, self.run)
        self.features = settings.hidden_size if self.texts else self._try_image(input_shape, settings)

    def _try_image(self, input_shape: Shape, settings: Any) -> int:
        """Pass a blank image through the network; set the form of the output, and return its width."""
        size = getattr(settings, "image_size", None)
        expected = size if isinstance(size, list | tuple) else [size, size]
        try:
            with evaluation_mode(self):
                output = self.run(torch.zeros(2, *input_shape))
        except (RuntimeError, ValueError, TypeError, AttributeError) as error:
            hint = ""
            if size is not None and list(input_shape[1:]) != list(expected):
                built_for = "×".join(map(str, expected))
                hint = f". It was built for {built_for}: `stems` with `resize` changes the size of images"
            reason = str(error).strip().partition("\n")[0].removesuffix(".")
            shape = "×".join(map(str, input_shape))
            raise ValueError(f"{settings.model_type} can't process images of {shape}: {reason}{hint}") from error
        if output.ndim == 4:  # whose layers aren't a chain of the same arguments
            self.representation, self.chain = "map", None
            self.pool = self.pool if self.pool in POOLS["map"] else "mean"
        return output.shape[2 if output.ndim == 3 else 1]

    @classmethod
    def reads_text(cls, options: Mapping[str, Any]) -> bool:
        """See `Trunk.reads_text`."""
        return reads_text(read_settings(options))

    @classmethod
    def load_base(cls, options: Mapping[str, Any]) -> Base:
        """See `Trunk.load_base`."""
        return load_base(options)

    def takes_numbers(self) -> bool:
        return not self.texts

    def mask(self, x: Tensor) -> Tensor | None:
        """Return the positions of tokens; the first one of each row counts as one in any case."""
        if not self.texts:
            return None
        mask = x[:, 0] >= 0
        return mask | (torch.arange(mask.shape[1], device=mask.device) == 0)

    def run(self, x: Tensor) -> Tensor:
        """Compute the last hidden states by the network itself, not stage by stage."""
        hidden: Tensor = self.network(**self._arguments(x)).last_hidden_state
        return hidden

    def _arguments(self, x: Tensor) -> dict[str, Any]:
        """Return the arguments of the network for inputs of the trunk."""
        if not self.texts:
            images = x.expand(-1, self.channels, -1, -1) if x.shape[1] == 1 else x
            return {"pixel_values": images, **({"interpolate_pos_encoding": True} if self.interpolates else {})}
        ids = x[:, 0].long()
        arguments = {"input_ids": torch.where(ids >= 0, ids, self.padding)}
        if self.types:
            arguments["token_type_ids"] = x[:, 1].long().clamp(0, self.types - 1)
        if self.causal or (x.device.type == "meta" and self.unread):  # causal: padding follows the tokens
            arguments["attention_mask"] = all_valid(ids.shape[0], ids.shape[1], ids.device)
        elif x.device.type != "meta" and (mask := self.mask(x)) is not None:
            arguments["attention_mask"] = mask
        return arguments

    def gate_size(self, shape: Shape, first: bool) -> int:
        """See `Trunk.gate_size`."""
        return self._embeddings().embedding_dim if first and self.texts else super().gate_size(shape, first)

    def gate_input(self, x: Tensor, mask: Tensor | None, first: bool) -> Tensor:
        """See `Trunk.gate_input`; for texts in the first stage, the mean of the embeddings of their tokens."""
        if not first or not self.texts:
            return super().gate_input(x, mask, first)
        return pool_representation(self._embeddings()(self._arguments(x)["input_ids"]), "mean", self.mask(x))

    def _embeddings(self) -> nn.Embedding:
        get: Callable[[], nn.Embedding] = getattr(self.network, "get_input_embeddings")  # noqa: B009
        return get()

    def stages(self) -> dict[str, Callable[[Tensor], Tensor]]:
        """Return the stages of one pass: all of them must be called in order, for the same examples."""
        if self.chain is None:
            return {"network": self.run}
        chain, forms, tail = self.chain, *self._probe()
        recordings: list[Any] = []

        def embed(x: Tensor) -> Tensor:
            recordings[:] = [chain.record(x, forms)]
            first: Tensor = recordings[0].first
            return first

        def run_layer(index: int) -> Callable[[Tensor], Tensor]:
            return lambda x: recordings[0].run(index, chain.layers[index], x)

        def finish(x: Tensor) -> Tensor:
            for name in tail:
                x = self.network.get_submodule(name)(x)
            return x

        stages = {"embeddings": embed, **{f"layer.{i}": run_layer(i) for i in range(len(chain.layers))}}
        return {**stages, "norm": finish} if tail else stages

    def _probe(self) -> tuple[list[Any], list[str]]:
        assert self.chain is not None
        if self.chain.probed is not None:
            return self.chain.probed
        shape = (2, min(8, self.input_shape[1])) if self.texts else self.input_shape
        with evaluation_mode(self):
            return self.chain.probe(blank_example(self, shape))

    def activations(self, x: Tensor, names: Iterable[str]) -> tuple[Tensor, dict[str, Tensor]]:
        wanted, kept = self.check_activation_names(names), dict[str, Tensor]()
        if self.chain is None:
            features = self.run(x)
            return features, ({"network": features} if wanted else {})

        def keep_output(name: str) -> Callable[[nn.Module, Any, Any], None]:
            return lambda module, inputs, output: kept.__setitem__(
                name, output[0] if isinstance(output, tuple) else output
            )

        def keep_input(module: nn.Module, args: Any, keywords: Any) -> None:
            kept["embeddings"] = args[0] if args else keywords["hidden_states"]

        layers = self.chain.layers
        handles = [
            layer.register_forward_hook(keep_output(f"layer.{i}"))
            for i, layer in enumerate(layers)
            if f"layer.{i}" in wanted
        ]
        if "embeddings" in wanted:
            handles.append(layers[0].register_forward_pre_hook(keep_input, with_kwargs=True))
        try:
            features = self.run(x)
        finally:
            for handle in handles:
                handle.remove()
        if "norm" in wanted:
            kept["norm"] = features
        return features, kept

    @contextmanager
    def after_stages(self, function: Callable[[Tensor], Tensor]) -> Iterator[None]:
        """See `Trunk.after_stages`. The output of the embeddings is changed where the first layer receives it."""
        layers: Iterable[nn.Module] = () if self.chain is None else self.chain.layers

        def change_input(module: nn.Module, args: Any, keywords: Any) -> Any:
            if args:
                return (function(args[0]), *args[1:]), keywords
            return args, {**keywords, "hidden_states": function(keywords["hidden_states"])}

        def change_output(module: nn.Module, inputs: Any, output: Any) -> Any:
            return (function(output[0]), *output[1:]) if isinstance(output, tuple) else function(output)

        handles = [layer.register_forward_hook(change_output) for layer in layers]
        handles += [layer.register_forward_pre_hook(change_input, with_kwargs=True) for layer in list(layers)[:1]]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


def _padding(settings: Any) -> int:
    """Return the id that stands for padding in the input of the network."""
    padding = settings.pad_token_id
    return padding if isinstance(padding, int) and 0 <= padding < settings.vocab_size else 0


def _check_inputs(input_shape: Shape, settings: Any, texts: bool) -> None:
    shape = "×".join(map(str, input_shape))
    if texts:
        if len(input_shape) != 2 or input_shape[0] != 2:
            raise ValueError(f"{settings.model_type} reads texts, but the inputs of the datasets are {shape}")
        positions = getattr(settings, "max_position_embeddings", None)
        if isinstance(positions, int) and 0 < positions < input_shape[1]:
            raise ValueError(f"max_length: expected at most {positions}, the number of positions of the model")
    elif not hasattr(settings, "num_channels"):
        raise ValueError(f"{settings.model_type} reads neither texts nor images alone")
    elif len(input_shape) != 3:
        raise ValueError(f"{settings.model_type} reads images [C, H, W], but the inputs of the datasets are {shape}")
    elif input_shape[0] not in (1, settings.num_channels):
        raise ValueError(
            f"{settings.model_type} reads images of {settings.num_channels} channels (num_channels) or of 1, which is "
            f"repeated, but the inputs of the datasets are {shape}"
        )


def _keep_layers(network: nn.Module, path: str | None, count: int, model_type: str) -> None:
    if path is None or not hasattr(network.config, "num_hidden_layers") or hasattr(network.config, "depths"):
        raise ValueError(f"layers: those of {model_type} have different widths, or can't be separated")
    layers = network.get_submodule(path)
    assert isinstance(layers, nn.ModuleList)
    if count > len(layers):
        raise ValueError(f"layers: expected at most {len(layers)}, the number of layers of the model, got {count}")
    del layers[count:]
    network.config.num_hidden_layers = count


def _checkpoint_layers(network: Any, model_type: str) -> None:
    if not network.supports_gradient_checkpointing:
        raise ValueError(f"gradient_checkpointing: transformers' {model_type} doesn't support it")
    # renamed in transformers 5
    enable = getattr(network, "activation_checkpointing_enable", None) or network.gradient_checkpointing_enable
    enable({"use_reentrant": False})
