"""Multi-task attention network."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import torch
from pydantic import PositiveInt
from torch import Tensor, nn

from mtlcli.models.sharing.base import (
    AnyNameModuleDict,
    MakeHead,
    MakeTrunk,
    Sharing,
    SharingRecord,
    SharingStats,
    concat_datasets,
    split_datasets,
)
from mtlcli.models.stage_shapes import activation_shapes, stage_key, trace_stages
from mtlcli.models.trunks.base import Trunk
from mtlcli.registry import sharings
from mtlcli.specs import Shape, TrunkPass


@sharings.register("mtan")
class MTAN(Sharing):
    """Multi-task attention network (MTAN): one trunk for all tasks, and task-specific attention masks on its stages.

        â_j = a_j ⊙ p_j,   a_j = σ(h_j(g_j([u_j ; f_j(â_{j−1})]))),   a_1 = σ(h_1(g_1(u_1)))

    p_j is the output of the trunk's stage j and a_j a task's mask of the same shape; the input of the head is â of the
    last stage. g and h are task-specific: for feature maps, 1×1 convolutions with batch norm and a ReLU between them. f
    is shared by the tasks, as in the paper: for feature maps, a 3×3 convolution with batch norm and ReLU to the next
    stage's channels, followed by max pooling to its size (which the paper halves); where the next stage has larger
    maps, as in a decoder, bilinear interpolation to its size precedes the convolution. The â of each task passes
    through f separately, so that batch norm doesn't mix tasks.

    u_j is, in the trunks with a decoder (`unet`, `segnet`), the output of the first convolution of a stage of the
    encoder, and the input of the first one of a stage of the decoder, as in the authors' SegNet; in other trunks, the
    output of the stage.

    All datasets pass through the trunk together, as in `hard` sharing; a task attends to the examples of its own
    dataset. The mean of each mask is logged.

    In a stage with C channels a task has 3 C² / reduction parameters (2 C² / reduction in the first stage) and as many
    multiplications per pixel; f to a stage with C' channels has 9 C C' parameters (C C' between vectors) and is applied
    once for each task. With a small trunk this exceeds the cost of the trunk itself.

    Note:
        Deviations from the paper: there u_j and p_j are the outputs of the first and the last convolution of a block of
        the trunk; here, in trunks without a decoder, u_j = p_j. Between the encoder and the decoder of `segnet`, whose
        maps have the same size, f is one convolution; the authors' code has one before a max pool, and another after an
        interpolation. In the paper all stages have feature maps. Here, where a vector follows feature maps, f is the
        convolution and the mean over the map (as before the linear layer of the authors' wide ResNet); for vectors, f,
        g and h are linear layers without batch norm, f with a ReLU. Convolutions before batch norm have no bias, and
        parameters have torch's default initialization.

    References:
        Liu, Johns and Davison, End-to-end multi-task learning with attention, CVPR 2019, arXiv:1803.10704,
            section 3.2, equations 1 and 2, and the authors' code.

    Args:
        make_trunk: creates a trunk; called once.
        make_head: creates the head of a task: (task, features) → module, [B, features] → [B, outputs].
        inputs: task → alias of its dataset.
        reduction: g reduces C channels to C / reduction; 4 in the authors' ResNet, 1 in their other networks.

    Raises:
        ValueError: if a stage's activation is neither a feature map [C, H, W] nor a sequence [L, C] nor a vector.
    """

    one_trunk = True

    def __init__(
        self,
        make_trunk: MakeTrunk,
        make_head: MakeHead,
        inputs: Mapping[str, str],
        *,
        reduction: PositiveInt = 1,
    ) -> None:
        super().__init__(make_trunk, make_head, inputs)
        self.trunk = make_trunk()
        shapes = {name: stage.shape for name, stage in trace_stages(self.trunk).items()}
        for name, shape in shapes.items():
            if len(shape) not in (1, 2, 3):
                actual = "×".join(map(str, shape))
                raise ValueError(
                    "mtan needs feature maps [C, H, W], sequences [L, C] or vectors, and the activation of the trunk's "
                    f"stage {name} is {actual}"
                )
        self.attended = {stage: self.trunk.attention_inputs().get(stage, stage) for stage in shapes}  # p → u
        inner = activation_shapes(self.trunk) if self.trunk.attention_inputs() else {}
        first = next(iter(shapes))  # every later stage also has the output of f, with as many channels as p
        widths = {
            stage: channels_of(inner.get(self.attended[stage], shape)) + (0 if stage == first else channels_of(shape))
            for stage, shape in shapes.items()
        }

        def make_masks() -> AnyNameModuleDict:
            return AnyNameModuleDict(
                {
                    stage_key(stage): make_mask_network(shape, widths[stage], reduction)
                    for stage, shape in shapes.items()
                }
            )

        self.attention = AnyNameModuleDict({task: make_masks() for task in inputs})
        self.passages = AnyNameModuleDict(
            {stage_key(to): make_passage(shapes[of], shapes[to]) for of, to in pairwise(shapes)}
        )
        self.heads.update({task: make_head(task, self.trunk.features) for task in inputs})

    def trunks(self) -> dict[str, Trunk]:
        return {"trunk": self.trunk}

    def encode(
        self, inputs: Mapping[str, Tensor], alias_of: Mapping[str, str], record: SharingRecord
    ) -> dict[str, Tensor]:
        """See `Sharing.encode`; the recorded activations are those of the trunk, before any mask."""
        x, rows = concat_datasets(inputs)
        names = self.trunk.activation_names() if record.passes is not None else []
        wanted = dict.fromkeys(name for pair in self.attended.items() for name in pair)
        features, activations = self.trunk.activations(x, [*names, *wanted])
        if record.passes is not None:
            named = {name: activations[name] for name in names}
            record.passes.append(TrunkPass(rows, self.trunk.recorded(x, features, named)))
        of_dataset = {name: split_datasets(activations[name], rows) for name in wanted}
        return {
            task: self._attend(task, {name: parts[alias] for name, parts in of_dataset.items()}, record.stats)
            for task, alias in alias_of.items()
        }

    def _attend(self, task: str, activations: Mapping[str, Tensor], stats: SharingStats | None) -> Tensor:
        """Apply a task's masks. activations: name → activation of the task's examples, [B, …]."""
        masks = self.attention[task]
        assert isinstance(masks, AnyNameModuleDict)
        attended: Tensor | None = None
        for stage, source in self.attended.items():
            u, p = activations[source], activations[stage]
            extra = [] if attended is None else [self.passages[stage_key(stage)](attended)]
            dim = 2 if u.ndim == 3 else 1
            mask: Tensor = masks[stage_key(stage)](torch.cat([u, *extra], dim) if extra else u)
            attended = mask * p
            if stats is not None:
                stats.add(task, stage, mask.float().mean(), p.shape[0])
        assert attended is not None
        return attended

    def own_modules(self, task: str) -> list[nn.Module]:
        return [*super().own_modules(task), self.attention[task]]


def channels_of(shape: Shape) -> int:
    """Return the number of channels of an activation: the last dimension of a sequence [L, C], else the first."""
    return shape[-1] if len(shape) == 2 else shape[0]


def make_mask_network(shape: Shape, inputs: int, reduction: int) -> nn.Module:
    """Create the network of a mask: σ(h(g([u; v]))), from an activation u of a stage and v, the output of f.

    For feature maps g and h are 1×1 convolutions with batch norm and a ReLU between them; for vectors, and for each
    vector of a sequence, linear layers with a ReLU between them.

    Args:
        shape: shape of the stage's output p without the batch: [C, H, W], [L, C] or [C].
        inputs: number of channels of u and v.
        reduction: the output of g has C / reduction channels.

    Returns:
        A module [B, inputs, …] → mask in (0, 1), [B, C, …]; [B, L, inputs] → [B, L, C] for sequences.
    """
    channels = channels_of(shape)
    hidden = max(channels // reduction, 1)
    if len(shape) < 3:
        return nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, channels), nn.Sigmoid())
    return nn.Sequential(
        nn.Conv2d(inputs, hidden, 1, bias=False),
        nn.BatchNorm2d(hidden),
        nn.ReLU(inplace=True),
        nn.Conv2d(hidden, channels, 1, bias=False),
        nn.BatchNorm2d(channels),
        nn.Sigmoid(),
    )


def make_passage(shape: Shape, following: Shape) -> nn.Module:
    """Create f: a module from the shape of a stage's activation to the shape of the following stage's activation.

    From feature maps: a 3×3 convolution with batch norm and ReLU, followed by max pooling to the size of the following
    maps, or by the mean over the map if a vector follows; after bilinear interpolation to their size if those are
    larger. From vectors: a linear layer with ReLU, for each vector of a sequence.

    Args:
        shape: shape of the activation without the batch.
        following: shape of the following activation without the batch.

    Returns:
        A module [B, *shape] → [B, *following].

    Raises:
        ValueError: if feature maps follow a vector, or a sequence has another length than the one before.
    """
    if len(shape) < 3:
        if shape[:-1] != following[:-1]:
            names = {1: "a vector", 2: "a sequence", 3: "feature maps"}
            both = f"{names[len(following)]} {list(following)} after {names[len(shape)]} {list(shape)}"
            raise ValueError(f"mtan doesn't support {both} in a trunk")
        return nn.Sequential(nn.Linear(shape[-1], following[-1]), nn.ReLU())
    convolution = nn.Conv2d(shape[0], following[0], 3, padding=1, bias=False).to(memory_format=torch.channels_last)
    layers = [convolution, nn.BatchNorm2d(following[0]), nn.ReLU(inplace=True)]
    if any(new > old for new, old in zip(following[1:], shape[1:], strict=False)):
        return nn.Sequential(nn.Upsample(following[1:], mode="bilinear", align_corners=True), *layers)
    return nn.Sequential(*layers, *_reduce(shape[1:], following[1:]))


def _reduce(size: Shape, following: Shape) -> list[nn.Module]:
    """Return the layers that reduce feature maps of a size [H, W] to another, or to a vector."""
    if not following:
        return [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    if following == size:
        return []
    stride = tuple(old // new for old, new in zip(size, following, strict=True))
    kernel = tuple(old - (new - 1) * step for old, new, step in zip(size, following, stride, strict=True))
    return [nn.MaxPool2d(kernel, stride)]  # halves maps of even size
