"""Base class of the trunks."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, ClassVar, Self

from torch import Tensor, nn

from mtlcli.models.modules import blank_example
from mtlcli.models.parameter_graph import divide_parameters
from mtlcli.models.pretrained.base import Base
from mtlcli.models.representations import Representation, gate_width, pool_for_gate, pool_representation
from mtlcli.specs import Pool, Shape


class Trunk(nn.Module, ABC):
    """Base class of the trunks: a chain of named stages, [B, *input_shape] → a vector, a sequence or a map.

    A subclass sets `features`, adds its layers and implements `stages`. Its constructor receives the input shape as its
    positional argument, and the options of the configuration as keyword-only arguments. One that is built from a
    pretrained model (`takes_base`) receives the result of `load_base` as its second positional argument.

    Attributes:
        of_columns: whether the trunk processes the raw columns of a table. The constructor then receives a tuple of
            `Column` instead of the input shape. Other trunks receive numbers into which the model has converted the
            columns.
        takes_base: whether `load_base` reads a model that the trunk is built from.
        representation: form of the output: `vector` [B, F], `sequence` [B, L, F] or `map` [B, F, h, w].
        stages_are_linked: whether stages use what earlier stages received or computed for the same examples: positions
            and masks of a sequence, or skip connections.
        pool: pooling of a sequence or a map for a task that predicts a vector and whose head sets no `pool`.
        encoder: module that converts the raw columns of a table to numbers before the first stage; the identity unless
            `of_columns` is True. A sharing that passes the same examples through several trunks may share one encoder.
        features: width F of the output; set by the subclass.
        input_shape: shape of an example without the batch; set by the builder.
        frozen: whether the trunk is kept unchanged in training, see `warm_start.freeze`.
        fixed: modules that stay in evaluation mode, see `named_layers.freeze_layers`.
        decay_norms: whether weight decay applies to biases and the parameters of norms, unless
            `optimizer.decay_norms` is set.
        adapted: whether it has adapters, with its own weights frozen.
    """

    of_columns: ClassVar[bool] = False
    takes_base: ClassVar[bool] = False
    representation: Representation = "vector"
    stages_are_linked: ClassVar[bool] = False
    pool: Pool = "mean"
    encoder: nn.Module
    features: int
    input_shape: Shape
    frozen = False
    fixed: tuple[nn.Module, ...] = ()
    decay_norms: ClassVar[bool] = True
    adapted = False

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Identity()

    @classmethod
    def reads_text(cls, options: Mapping[str, Any]) -> bool:
        """Return whether a trunk reads texts, as token ids int32 [B, 2, L].

        Args:
            options: the options of the configuration.

        Returns:
            True if its inputs are texts.
        """
        return False

    @classmethod
    def load_base(cls, options: Mapping[str, Any]) -> Base | None:
        """Read the model that a trunk with these options is built from; called once for each run.

        Args:
            options: the options of the configuration.

        Returns:
            The model; None if the trunk is built from its options alone.
        """
        return None

    def takes_numbers(self) -> bool:
        """Return whether the inputs are numbers, and not the columns of a table or the ids of tokens."""
        return not self.of_columns

    def mask(self, x: Tensor) -> Tensor | None:
        """Return the valid positions of the trunk's output for some inputs, without computing the output.

        Args:
            x: inputs, [B, *input_shape].

        Returns:
            bool [B, L], at least one True in each row; None if all positions are valid.
        """
        return None

    @abstractmethod
    def stages(self) -> dict[str, Callable[[Tensor], Tensor]]:
        """Return the stages in order: name of the stage's activation → function of the previous activation.

        The trunk is the encoder followed by these stages. A stage must not change its input in place, since the input
        is the activation of the previous stage. If `stages_are_linked`, the stages belong to one pass: the first is
        called first, and all others for the same examples.
        """

    def forward(self, x: Tensor) -> Tensor:
        """Compute the features.

        Args:
            x: inputs, [B, *input_shape].

        Returns:
            Features, [B, F]; [B, L, F] for a sequence, [B, F, h, w] for a map.
        """
        return self.run(self.encoder(x))

    def run(self, x: Tensor) -> Tensor:
        """Apply all stages.

        Args:
            x: output of the encoder.

        Returns:
            The output of the trunk.
        """
        for stage in self.stages().values():
            x = stage(x)
        return x

    def gate_size(self, shape: Shape, first: bool) -> int:
        """Return the number of values of `gate_input` for one example.

        Args:
            shape: shape of `x` there, without the batch.
            first: whether `x` is the input of the first stage.

        Returns:
            The number.
        """
        if self.representation == "map":
            return gate_width(shape, first)
        return shape[-1] if self.representation == "sequence" and not first else math.prod(shape)

    def gate_input(self, x: Tensor, mask: Tensor | None, first: bool) -> Tensor:
        """Convert the input of a stage to that of a gate, of which each example has one.

        Args:
            x: output of the encoder, or activation of a stage, [B, …].
            mask: `mask` for the examples.
            first: whether `x` is the input of the first stage.

        Returns:
            For a sequence the mean over the valid positions, [B, F]; for a map what `pool_for_gate` returns; otherwise
            `x`.
        """
        if self.representation == "map":
            return pool_for_gate(x, first)
        if self.representation == "sequence" and not first:
            return pool_representation(x, "mean", mask)
        return x

    def recorded(self, x: Tensor, features: Tensor, activations: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return what regularizers receive of a pass, with sequences, and features that are a map, pooled to vectors.

        Args:
            x: inputs, [B, *input_shape].
            features: the output.
            activations: name → activation.

        Returns:
            The activations, after `input` and before `features`.
        """
        if self.representation == "vector":
            return {"input": x, **activations, "features": features}
        mask = self.mask(x)
        vectors = {
            name: pool_representation(y, self.pool, mask) if y.ndim == 3 else y for name, y in activations.items()
        }
        return {"input": x, **vectors, "features": pool_representation(features, self.pool, mask)}

    def attention_inputs(self) -> dict[str, str]:
        """Return stage → activation from which a mask of its output is computed; its output if there is no entry."""
        return {}

    def activation_names(self) -> list[str]:
        """Return the names of all activations that `activations` can return, in order."""
        return list(self.stages())

    def activations(self, x: Tensor, names: Iterable[str]) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute the features and the named activations.

        Args:
            x: inputs, [B, *input_shape].
            names: names of activations, checked by `check_activation_names`.

        Returns:
            The features, [B, F], and name → activation, [B, …], in the order of the stages.
        """
        wanted, activations = self.check_activation_names(names), {}
        x = self.encoder(x)
        for name, stage in self.stages().items():
            x = stage(x)
            if name in wanted:
                activations[name] = x
        return x, activations

    @contextmanager
    def after_stages(self, function: Callable[[Tensor], Tensor]) -> Iterator[None]:
        """Pass the activation of every stage through a function, in all passes within the block.

        Args:
            function: activation → what the next stage receives in its place.

        Yields:
            Nothing.
        """
        stages = self.stages

        def followed(stage: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
            return lambda x: function(stage(x))

        self.__dict__["stages"] = lambda: {name: followed(stage) for name, stage in stages().items()}
        try:
            yield
        finally:
            del self.__dict__["stages"]

    def stage_parameters(self) -> dict[str, list[nn.Parameter]]:
        """Divide the parameters of the trunk among its stages, by autograd with one blank example.

        A parameter belongs to the first stage whose output depends on it, whether or not it is trainable; one that no
        output depends on, such as an adapter of another task, to that of the module around it, if it has only one. The
        trunk is left unchanged; its device may be `meta`.

        Returns:
            Name → parameters, in the order of `parameters()`: an entry `encoder` if the encoder has parameters, one for
            each stage in order, which may be empty, and an entry `other` if some parameters belong to no stage. Every
            parameter is in exactly one entry.

        Raises:
            ValueError: if the trunk cannot process an example of its `input_shape`.
        """
        start = partial(blank_example, self, self.input_shape)
        return divide_parameters(self, self.encoder, start, self.stages)

    def layer_parameters(self) -> dict[str, list[nn.Parameter]]:
        """Divide the parameters of the trunk among its layers, from the input to the output.

        The layers are the stages. A subclass whose stages are large overrides this method with a finer division.

        Returns:
            As `stage_parameters`.
        """
        return self.stage_parameters()

    def check_activation_names(self, names: Iterable[str]) -> set[str]:
        """Return `names` as a set.

        Args:
            names: names of activations.

        Returns:
            The names without duplicates.

        Raises:
            ValueError: if the trunk has no activation of one of the names; the message lists the available ones.
        """
        wanted, available = set(names), self.activation_names()
        if unknown := wanted.difference(available):
            raise ValueError(f"no activation {', '.join(sorted(unknown))}. Choose from: {', '.join(available)}")
        return wanted

    def load_pretrained(self) -> None:
        """Load the weights that an option `pretrained` names; on the device `meta`, only check them.

        It is called when a run starts, not when its checkpoint is used.
        """
        return

    def train(self, mode: bool = True) -> Self:
        """Set the training mode; a frozen trunk and frozen layers stay in evaluation mode.

        Args:
            mode: True for training, False for evaluation.

        Returns:
            The trunk itself.
        """
        super().train(mode and not self.frozen)
        for module in self.fixed:
            module.training = False
        return self
