"""Options of single layers: frozen stages of the trunk, and learning rates and weight decay by layer."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn

from mtlcli import registry
from mtlcli.config import Experiment
from mtlcli.config.locations import Problems
from mtlcli.config.options import options_of
from mtlcli.models.model import MultiTaskModel
from mtlcli.models.named_layers import freeze_layers, parameters_by_name, select
from mtlcli.models.parameter_graph import OTHER
from mtlcli.models.trunks.base import Trunk


def freeze_stages(experiment: Experiment, trunk: Trunk) -> None:
    """Freeze the stages and layers in `trunk.freeze`.

    Args:
        experiment: The experiment.
        trunk: The trunk, with its `input_shape`, which is changed in place.

    Raises:
        ConfigError: For a pattern that selects no stage or layer.
    """
    named, problems = parameters_by_name(trunk), Problems(experiment)
    frozen: list[nn.Parameter] = []
    for index, pattern in enumerate(experiment.trunk.freeze):
        with problems.at(f"trunk.freeze.{index}"):
            frozen += [parameter for name in select(named, pattern) for parameter in named[name]]
    problems.check()
    freeze_layers(trunk, frozen)


@dataclass(frozen=True)
class LayerOptions:
    """Options of the optimizer for a parameter of the trunk.

    Attributes:
        layer: Name of its layer.
        depth: Number of layers from the output of the trunk, 1 for the last layer; 0 for a parameter of none.
        options: Options of the groups that name its layer or its stage.
    """

    layer: str
    depth: int
    options: dict[str, Any]


@dataclass(frozen=True)
class Piece:
    """Parameters with the same options of the optimizer.

    Attributes:
        name: Name of the part of the model, or of a layer.
        options: Options that differ from those of the optimizer.
        undecayed: Whether these are norms and biases without weight decay.
        parameters: The parameters.
    """

    name: str
    options: dict[str, Any]
    undecayed: bool
    parameters: list[nn.Parameter]


class Refinement:
    """Division of the parts of a model by layer, and by whether weight decay applies.

    With `layer_decay` d, the learning rate of a layer of the trunk is lr·d^k for the k-th layer from the output. A norm
    that is a stage of its own counts as part of the layer before it. Parameters of none of the layers, the heads, the
    stems and all others keep lr. An `lr` in the group of a stage counts as it is.

    References:
        Clark et al., ELECTRA, ICLR 2020, arXiv:2003.10555, appendix A; the exponents are those of Bao et al., BEiT,
        ICLR 2022, arXiv:2106.08254, in whose code the last layer has d¹ (in ELECTRA's, d²).

    Args:
        experiment: The experiment.
        model: The model.
        stages: Names in `optimizer.groups` that denote stages or layers.

    Raises:
        ConfigError: If the optimizer lacks an option that this needs, or a regularizer needs one learning rate.
    """

    def __init__(self, experiment: Experiment, model: MultiTaskModel, stages: Collection[str]) -> None:
        entry = experiment.optimizer
        self.entry, self.decay = entry, 1.0 if entry.layer_decay is None else entry.layer_decay
        self.decay_norms = decays_norms(experiment)
        problems = Problems(experiment)
        for key, option in (("layer_decay", "lr"), ("decay_norms", "weight_decay")):
            with problems.at(f"optimizer.{key}"):
                if getattr(entry, key) is not None and option not in options_of(registry.optimizers[entry.name]):
                    raise ValueError(f"{entry.name} has no option `{option}`")
        by_layer = self.decay != 1 or any("lr" in entry.groups[stage] for stage in stages)
        for index, term in enumerate(experiment.regularizers if by_layer else ()):
            with problems.at(f"regularizers.{index}.proximal"):
                if term.options.get("proximal"):
                    raise ValueError(
                        "a proximal step has one learning rate for all layers, but `optimizer.layer_decay` and groups "
                        "of stages differ by layer: set proximal to false, or remove these"
                    )
        problems.check()
        self.layers: dict[int, LayerOptions] = {}
        if self.decay != 1 or stages:
            for trunk in model.sharing.trunks().values():
                self._add(trunk, stages)

    def _add(self, trunk: Trunk, stages: Collection[str]) -> None:
        named, layers = parameters_by_name(trunk), trunk.layer_parameters()
        own: dict[int, dict[str, Any]] = {}
        for pattern in stages:
            for name in select(named, pattern):
                for parameter in named[name]:
                    own.setdefault(id(parameter), {}).update(self.entry.groups[pattern])
        matrices = [name for name, parameters in layers.items() if any(p.ndim > 1 for p in parameters)]
        above = [name for name in matrices if name != OTHER]
        depth = len(above)
        for name, parameters in layers.items():
            if name in above:
                depth = len(above) - above.index(name)
            elif name == OTHER:
                depth = 0
            for parameter in parameters:
                self.layers[id(parameter)] = LayerOptions(name, depth, own.get(id(parameter), {}))

    def pieces(self, name: str, options: dict[str, Any], parameters: list[nn.Parameter]) -> Iterator[Piece]:
        """Divide a part of the model.

        Args:
            name: Name of the part.
            options: Options of its group.
            parameters: Its parameters.

        Yields:
            The pieces, in the order of their first parameters.
        """
        pieces: dict[tuple[str, bool], Piece] = {}
        for parameter in parameters:
            layer, chosen = self.layers.get(id(parameter)), dict(options)
            title = name
            if layer is not None and (layer.options or self.decay != 1):
                title = layer.layer
                if self.decay != 1 and layer.depth:
                    chosen["lr"] = options.get("lr", self.entry.options.get("lr", 1.0)) * self.decay**layer.depth
                chosen |= layer.options
            decays = chosen.get("weight_decay", self.entry.options.get("weight_decay", 0))
            undecayed = bool(decays) and parameter.ndim <= 1 and not self.decay_norms
            if undecayed:
                chosen["weight_decay"] = 0.0
            piece = pieces.setdefault((title, undecayed), Piece(title, chosen, undecayed, []))
            piece.parameters.append(parameter)
        yield from pieces.values()


def decays_norms(experiment: Experiment) -> bool:
    """Return whether weight decay applies to biases and norms: `optimizer.decay_norms`, or the trunk's default."""
    if experiment.optimizer.decay_norms is not None:
        return experiment.optimizer.decay_norms
    return bool(getattr(registry.trunks[experiment.trunk.name].target, "decay_norms", True))
