"""The layers of a network of `transformers`, run one at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


def find_layers(network: nn.Module, count: int) -> str | None:
    """Find the list of the layers that a network applies one after the other.

    Args:
        network: the network.
        count: number of its layers.

    Returns:
        Path of the `ModuleList` of `count` modules that is nearest to the root; None if there is none.
    """
    lists = [
        name
        for name, module in network.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == count and any(True for _ in module.parameters())
    ]
    return min(lists, key=lambda name: name.count("."), default=None)


@dataclass
class Call:
    """Arguments of a layer in one pass.

    Attributes:
        further: positional arguments after the hidden state.
        keywords: keyword arguments.
    """

    further: tuple[Any, ...]
    keywords: dict[str, Any]


class _Recorded(Exception):  # noqa: N818 (no error: it ends the recording pass)
    """Raised after the last layer, whose arguments are recorded."""


class _Recorder(nn.Module):
    """Stands for a layer in a recording pass: it keeps its arguments, and returns its hidden state."""

    def __init__(self, layer: nn.Module, recording: Recording, index: int) -> None:
        super().__init__()
        object.__setattr__(self, "layer", layer)  # not a submodule
        self.recording, self.index = recording, index

    def __getattr__(self, name: str) -> Any:
        """Return an attribute of the layer, which the network may read."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.__dict__["layer"], name)

    def forward(self, *args: Any, **keywords: Any) -> Any:
        """Record a call."""
        hidden = args[0] if args else keywords.pop("hidden_states")
        return self.recording.add(self.index, hidden, Call(args[1:], keywords))


class Recording:
    """Arguments of all layers in one pass, and the outputs of the layers that later ones receive.

    Args:
        forms: output of each layer for a blank example, see `LayerChain.probe`.
        ends: whether the pass ends after the last layer, since what follows can't process the output of the embeddings.
    """

    def __init__(self, forms: list[Any], ends: bool) -> None:
        self.forms, self.ends = forms, ends
        self.calls: list[Call] = []
        self.first: Tensor | None = None
        self.outputs: dict[int, Any] = {}  # id of a placeholder → what the layer returned in its place
        self.placeholders: list[list[object]] = []

    def add(self, index: int, hidden: Tensor, call: Call) -> Any:
        """Add the call of a layer, and return the hidden state in the form of its output."""
        self.calls.append(call)
        if index == 0:
            self.first = hidden
        form = self.forms[index]
        self.placeholders.append([object() if isinstance(x, Tensor) else x for x in _further(form)])
        if self.ends and index == len(self.forms) - 1:
            raise _Recorded  # torch.export can't trace this
        return (hidden, *self.placeholders[-1]) if isinstance(form, tuple) else hidden

    def run(self, index: int, layer: nn.Module, x: Tensor) -> Tensor:
        """Call a layer with its recorded arguments.

        Args:
            index: number of the layer.
            layer: the layer.
            x: its hidden state.

        Returns:
            Its output.
        """
        call = self.calls[index]
        further = [self.outputs.get(id(value), value) for value in call.further]
        keywords = {key: self.outputs.get(id(value), value) for key, value in call.keywords.items()}
        output = layer(x, *further, **keywords)
        for placeholder, value in zip(self.placeholders[index], _further(output), strict=True):
            self.outputs[id(placeholder)] = value
        hidden: Tensor = output[0] if isinstance(output, tuple) else output
        return hidden


def _further(output: Any) -> tuple[Any, ...]:
    """Return what a layer returns after its hidden state."""
    return output[1:] if isinstance(output, tuple) else ()


class LayerChain:
    """A network as a chain: the embeddings, each layer of a list, and the modules after the last layer.

    Args:
        network: the network.
        path: path of the list of its layers.
        call: calls the network with inputs of the trunk.

    Attributes:
        probed: result of `probe`; None before it is called.
    """

    def __init__(self, network: nn.Module, path: str, call: Callable[[Tensor], Tensor]) -> None:
        self.network, self.path, self.call = network, path, call
        self.probed: tuple[list[Any], list[str]] | None = None
        self._changes_shape = False

    @property
    def layers(self) -> nn.ModuleList:
        """The layers."""
        layers = self.network.get_submodule(self.path)
        assert isinstance(layers, nn.ModuleList)
        return layers

    def probe(self, blank: Tensor) -> tuple[list[Any], list[str]]:
        """Pass an example through the network, once.

        Args:
            blank: the example.

        Returns:
            The output of each layer without the values of its tensors, and the paths of the modules that are called
            after the last layer.
        """
        if self.probed is None:
            self.probed = self._probe(blank)
        return self.probed

    def _probe(self, blank: Tensor) -> tuple[list[Any], list[str]]:
        forms: list[Any] = []
        shapes: list[torch.Size] = []
        tail: list[str] = []
        active: list[str] = []
        layers = list(self.layers)

        def keep(module: nn.Module, inputs: Any, output: Any) -> None:
            forms.append(_form(output))
            shapes.append((output[0] if isinstance(output, tuple) else output).shape)

        def keep_input(module: nn.Module, args: Any, keywords: Any) -> None:
            shapes.append((args[0] if args else keywords["hidden_states"]).shape)

        def enter(name: str) -> Callable[..., None]:
            def hook(module: nn.Module, inputs: Any) -> None:
                if len(forms) == len(layers):
                    if not active:
                        tail.append(name)
                    active.append(name)

            return hook

        def leave(name: str) -> Callable[..., None]:
            def hook(module: nn.Module, inputs: Any, output: Any) -> None:
                if active and active[-1] == name:
                    active.pop()

            return hook

        inside = {id(module) for layer in layers for module in layer.modules()}
        handles = [layer.register_forward_hook(keep) for layer in layers]
        handles.append(layers[0].register_forward_pre_hook(keep_input, with_kwargs=True))
        for name, module in self.network.named_modules():
            if name and id(module) not in inside:
                handles.append(module.register_forward_pre_hook(enter(name)))
                handles.append(module.register_forward_hook(leave(name)))
        try:
            self.call(blank)
        finally:
            for handle in handles:
                handle.remove()
        self._changes_shape = shapes[0] != shapes[-1]
        return forms, tail

    def record(self, x: Tensor, forms: list[Any]) -> Recording:
        """Record the arguments of the layers for some inputs; the layers are not computed.

        Args:
            x: inputs of the trunk.
            forms: from `probe`.

        Returns:
            The recording, with the output of the embeddings as `first`.
        """
        recording = Recording(forms, self._changes_shape)
        recorders = nn.ModuleList(_Recorder(layer, recording, i) for i, layer in enumerate(self.layers))
        with self._replaced(recorders), suppress(_Recorded):
            self.call(x)
        return recording

    @contextmanager
    def _replaced(self, layers: nn.ModuleList) -> Iterator[None]:
        """Put other layers in the place of the network's own."""
        parent, _, name = self.path.rpartition(".")
        owner, own = self.network.get_submodule(parent), self.layers
        owner._modules[name] = layers
        try:
            yield
        finally:
            owner._modules[name] = own


def _form(output: Any) -> Any:
    """Return a layer's output with empty tensors in place of its tensors."""
    if not isinstance(output, tuple):
        return None
    return tuple(x.new_empty(0) if isinstance(x, Tensor) else x for x in output)
