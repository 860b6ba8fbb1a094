"""One trunk for all tasks, and for each task attention to what its stages give."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import pairwise

import torch
from pydantic import PositiveInt
from torch import Tensor, nn

from mtlcli.models.modules import ByName
from mtlcli.models.sharing.base import MakeHead, MakeTrunk, Sharing, concat_datasets, split_datasets
from mtlcli.models.trunks.base import Trunk, key, stages_of
from mtlcli.registry import sharings
from mtlcli.specs import Shape, TrunkPass


@sharings.register("mtan")
class MTAN(Sharing):
    """Multi-task attention network: one trunk for all tasks, and for each task a mask on what every stage gives.

        â_j = a_j ⊙ p_j,   a_j = σ(h_j(g_j([u_j ; f_j(â_{j−1})]))),   a_1 = σ(h_1(g_1(u_1)))

    p_j is what the trunk's stage j gives, a_j a task's mask of the same shape; a head is given â of the last stage.
    g and h are a task's own: on maps 1×1 convolutions with batch norm, ReLU between them. f is shared by the tasks, as
    in the paper: on maps a 3×3 convolution with batch norm and ReLU to the next stage's channels, then max pooling to
    its size (the paper's halves it). Every task's â passes f on its own, so that batch norm mixes no tasks.

    The trunk is passed as under `hard` sharing, all datasets at once; a task attends to its own dataset's examples.
    The mean of each mask is logged.

    Source: Liu, Johns and Davison, End-to-end multi-task learning with attention, CVPR 2019, section 3.2, equations 1
    and 2, and the authors' code. Deviations: in the paper u_j and p_j are the outputs of the first and the last
    convolution of a block of the trunk; here a stage gives one activation, and u_j = p_j. There all stages give maps.
    Where a vector follows maps, f is the convolution and the mean over the map (as before the linear layer of the
    authors' wide ResNet); on vectors f, g and h are linear layers without batch norm, f with ReLU. Convolutions before
    batch norm have no bias, and weights start as torch's layers do.

    What it costs: in a stage of C channels a task has 3 C² / reduction weights of its own (2 C² in the first), and as
    many multiplications per pixel; f to a stage of C' channels has 9 C C' weights (C C' between vectors), passed once
    for each task. With a small trunk that is more than the trunk itself.
    ValueError for stages that give neither maps [C, H, W] nor vectors.

    Options:
        reduction: g makes C / reduction channels of a stage's C; the authors' ResNet has 4, their other networks 1.
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
        shapes = {name: stage.shape for name, stage in stages_of(self.trunk).items()}
        for name, shape in shapes.items():
            if len(shape) not in (1, 3):
                told = "×".join(map(str, shape))
                raise ValueError(
                    f"mtan attends to maps [C, H, W] and vectors, and the trunk's stage {name} gives {told}"
                )
        first = next(iter(shapes))  # beside any other there is what f leads to it, with as many channels
        beside = {stage: 0 if stage == first else shape[0] for stage, shape in shapes.items()}

        def makers() -> ByName:
            return ByName({key(stage): mask_maker(shape, beside[stage], reduction) for stage, shape in shapes.items()})

        self.attention = ByName({task: makers() for task in inputs})
        self.passages = ByName({key(to): passage(shapes[of], shapes[to]) for of, to in pairwise(shapes)})
        self.heads.update({task: make_head(task, self.trunk.features) for task in inputs})

    def trunks(self) -> dict[str, Trunk]:
        return {"trunk": self.trunk}

    def representations(
        self, inputs: Mapping[str, Tensor], tasks: Iterable[str], seen: list[TrunkPass] | None = None
    ) -> dict[str, Tensor]:
        """See `Sharing`. `seen` takes in what the trunk gives, before any mask."""
        alias_of = {task: self.inputs[task] for task in tasks}
        if not alias_of:
            return {}
        x, rows = concat_datasets({alias: inputs[alias] for alias in alias_of.values()})
        stages = list(self.trunk.stages())
        names = self.trunk.activation_names() if seen is not None else []
        features, activations = self.trunk.activations(x, [*names, *stages])
        if seen is not None:
            seen.append(TrunkPass(rows, {"input": x, **{n: activations[n] for n in names}, "features": features}))
        parts = {stage: split_datasets(activations[stage], rows) for stage in stages}
        return {
            task: self._attended(task, {stage: there[alias] for stage, there in parts.items()})
            for task, alias in alias_of.items()
        }

    def _attended(self, task: str, activations: Mapping[str, Tensor]) -> Tensor:
        """Stage → the trunk's activation of the task's examples: what the task's head is given, [B, features]."""
        makers = self.attention[task]
        assert isinstance(makers, ByName)
        attended: Tensor | None = None
        for stage, given in activations.items():
            beside = [] if attended is None else [self.passages[key(stage)](attended)]
            mask: Tensor = makers[key(stage)](torch.cat([given, *beside], 1) if beside else given)
            attended = mask * given
            if self.watch is not None:
                self.watch.add(task, stage, mask.float().mean(), given.shape[0])
        assert attended is not None
        return attended

    def own_modules(self, task: str) -> list[nn.Module]:
        return [*super().own_modules(task), self.attention[task]]


def mask_maker(shape: Shape, beside: int, reduction: int) -> nn.Module:
    """σ(h(g([u; v]))): a stage's activation u, and v beside it in the channels, → a mask of u's shape, in (0, 1).

    Of maps [B, C + beside, H, W], g and h are 1×1 convolutions, both with batch norm, ReLU between; of vectors
    [B, C + beside], linear layers.

    shape: of u, without the batch. beside: channels of v. reduction: g has C / reduction channels.
    """
    channels = shape[0]
    hidden = max(channels // reduction, 1)
    if len(shape) == 1:
        return nn.Sequential(nn.Linear(channels + beside, hidden), nn.ReLU(), nn.Linear(hidden, channels), nn.Sigmoid())
    return nn.Sequential(
        nn.Conv2d(channels + beside, hidden, 1, bias=False),
        nn.BatchNorm2d(hidden),
        nn.ReLU(inplace=True),
        nn.Conv2d(hidden, channels, 1, bias=False),
        nn.BatchNorm2d(channels),
        nn.Sigmoid(),
    )


def passage(shape: Shape, following: Shape) -> nn.Module:
    """A stage's activation → one of the following stage's shape, both without the batch.

    From maps: a 3×3 convolution with batch norm and ReLU, then max pooling to the size of the maps that follow (nearest
    neighbours where these are larger), or the mean over the map where a vector follows. From vectors: a linear layer
    with ReLU. ValueError where maps follow a vector.
    """
    if len(shape) == 1:
        if len(following) > 1:
            raise ValueError("the trunk makes maps of a vector, and attention has no way to follow it there")
        return nn.Sequential(nn.Linear(shape[0], following[0]), nn.ReLU())
    convolution = nn.Conv2d(shape[0], following[0], 3, padding=1, bias=False).to(memory_format=torch.channels_last)
    layers = [convolution, nn.BatchNorm2d(following[0]), nn.ReLU(inplace=True), *_resize(shape[1:], following[1:])]
    return nn.Sequential(*layers)


def _resize(size: Shape, following: Shape) -> list[nn.Module]:
    if not following:
        return [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    if following == size:
        return []
    if any(new > old for new, old in zip(following, size, strict=True)):
        return [nn.Upsample(following)]
    stride = tuple(old // new for old, new in zip(size, following, strict=True))
    kernel = tuple(old - (new - 1) * step for old, new, step in zip(size, following, stride, strict=True))
    return [nn.MaxPool2d(kernel, stride)]  # halves maps of even size
