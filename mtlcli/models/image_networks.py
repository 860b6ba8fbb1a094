"""Base class of the trunks that are image networks of another library."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from torch import Tensor, nn

from mtlcli.models.module_chains import Chain, Link
from mtlcli.models.named_layers import layers_of
from mtlcli.models.trunks.base import Trunk
from mtlcli.models.warm_start import find_not_finite
from mtlcli.models.weight_files import find_differences, match_in_order, read_weights
from mtlcli.pretrained import locate_weights
from mtlcli.specs import Shape

MAX_LISTED = 5  # differences that a message lists


class ImageNetwork(Trunk):
    """Base class of the trunks that are image networks of another library: images [B, 1 or 3, H, W] → [B, F].

    Images with one channel are repeated to three.

    Attributes:
        network: the network without its last layer, images [B, 3, H, W] → [B, F].
        chain: its stages; None if they are not a chain of modules.
        pretrained: name or path of the file of pretrained weights; None for random weights.
        unused: beginnings of the keys in such a file that belong to layers that are left out, such as the classifier.
        by_order: whether a file with other keys is accepted if its tensors agree in order.
    """

    network: nn.Module
    chain: Chain | None
    pretrained: str | None = None
    unused: tuple[str, ...] = ()
    by_order = False

    def load_pretrained(self) -> None:
        """Load the file of pretrained weights into the network; on the device `meta`, only check it.

        Raises:
            ValueError: if the file can't be read, or holds the weights of another network.
        """
        if self.pretrained is None:
            return
        path = locate_weights(self.pretrained)
        state = {key: value for key, value in read_weights(path).items() if not key.startswith(self.unused)}
        own = self.network.state_dict()
        if self.by_order and not own.keys() & state.keys():
            state = match_in_order(own, state)
        if not own.keys() & state.keys():
            raise ValueError(
                f"{path} has no weights with the names of this network: its first is {next(iter(state), 'nothing')!r}, "
                f"expected {next(iter(own))!r}{', and its tensors differ from those of the network' * self.by_order}"
            )
        if problems := [*find_differences(own, state), *find_not_finite(state)]:
            more = f", and {len(problems) - MAX_LISTED} more differences" if len(problems) > MAX_LISTED else ""
            raise ValueError(
                f"{path} holds other weights than those of this network: {'; '.join(problems[:MAX_LISTED])}{more}"
            )
        if next(iter(own.values())).device.type != "meta":
            self.network.load_state_dict(state, strict=False)

    def stages(self) -> dict[str, Callable[[Tensor], Tensor]]:
        """Return the stages of the chain, or one stage `network`; see `Trunk.stages`."""
        if self.chain is None:
            return {"network": lambda x: self.network(to_three_channels(x))}
        stages = {name: self._stage(links) for name, links in self.chain.items()}
        name, first = next(iter(stages.items()))
        return {**stages, name: lambda x: first(to_three_channels(x))}

    def _stage(self, links: Sequence[Link]) -> Callable[[Tensor], Tensor]:
        def stage(x: Tensor) -> Tensor:
            for link in links:
                x = link(self.network, x)
            return x

        return stage

    def layer_parameters(self) -> dict[str, list[nn.Parameter]]:
        """Divide the parameters among the modules of the network, such as `layer1.0` or `features.3`."""
        return layers_of(self.network)

    def activation_names(self) -> list[str]:
        """Return the names of the network's modules and of the stages, in order."""
        if self.chain is None:
            return [*(name for name, _ in self.network.named_children()), "network"]
        called = ([*(str(link.target) for link in links if link.is_module), name] for name, links in self.chain.items())
        return list(dict.fromkeys(name for names in called for name in names))

    def activations(self, x: Tensor, names: Iterable[str]) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute the features and the outputs of stages and modules; see `Trunk.activations`."""
        modules, wanted = dict(self.network.named_modules()), set(names)
        activations: dict[str, Tensor] = {}  # torch.compile does not support dict[…]()
        self.check_activation_names(wanted - modules.keys())
        stages = self.stages()

        def keep(name: str) -> Callable[[nn.Module, Any, Tensor], None]:
            return lambda module, inputs, output: activations.__setitem__(name, output)

        handles = [modules[name].register_forward_hook(keep(name)) for name in wanted - stages.keys()]
        try:
            for name, stage in stages.items():
                x = stage(x)
                if name in wanted:
                    activations[name] = x
            return x, activations
        finally:
            for handle in handles:
                handle.remove()


LAYERS = nn.Linear | nn.Conv2d


def last_layer(network: nn.Module) -> str:
    """Return the path of the last linear layer or convolution of a network."""
    names: list[str] = [name for name, module in network.named_modules() if isinstance(module, LAYERS)]
    return names[-1]


def without_layer(network: nn.Module, path: str) -> nn.Module:
    """Replace a layer of a network by the identity.

    Top-level modules without weights no longer compute in place, since that would change the previous activation.

    Args:
        network: the network, which is changed in place.
        path: path of the layer.

    Returns:
        The network.
    """
    parent, _, name = path.rpartition(".")
    setattr(network.get_submodule(parent), name, nn.Identity())
    return without_inplace(network)


def without_inplace(network: nn.Module) -> nn.Module:
    """Let the top-level modules of a network without weights no longer compute in place, and return the network."""
    for child in network.children():
        if all(p.ndim < 2 for p in child.parameters()):
            for module in child.modules():
                if hasattr(module, "inplace"):
                    module.inplace = False  # type: ignore[assignment]
    return network


def check_images(input_shape: Shape, library: str) -> None:
    """Check that the inputs are images [C, H, W] with 1 or 3 channels; ValueError if they are not."""
    if len(input_shape) != 3 or input_shape[0] not in (1, 3):
        shape = "×".join(map(str, input_shape))
        raise ValueError(f"{library} models need images [C, H, W] of 1 or 3 channels, got {shape}")


def to_three_channels(x: Tensor) -> Tensor:
    """Repeat the channel of gray images: [B, 1 or 3, H, W] → [B, 3, H, W]."""
    return x.expand(-1, 3, -1, -1)
