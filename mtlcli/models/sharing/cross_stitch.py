"""A trunk for each task, with learned mixtures of their activations between the stages."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from mtlcli.errors import nearest
from mtlcli.models.modules import ByName
from mtlcli.models.sharing.base import MakeHead, MakeTrunk, Sharing, concat_datasets, split_datasets
from mtlcli.models.sharing.experts import give_one_encoder
from mtlcli.models.trunks.base import Stage, Trunk, key, stages_of
from mtlcli.registry import sharings
from mtlcli.specs import TrunkPass


@sharings.register("cross_stitch")
class CrossStitch(Sharing):
    """A trunk for each task, and after every stage a cross-stitch unit that mixes the activations of all of them.

        x̃_t = Σ_s α_ts x_s    x_s: what the stage of task s's trunk gives; α_ts: learned, a number for each channel

    The next stage of t's trunk is given x̃_t, and t's head what is left after the last one. α starts as `init` for a
    trunk's own task; the others share the rest equally, so that a mixture is of its inputs' size, as the paper wants.
    The paper stitches after the pools and after the fully connected layers, the last hidden one among them: so do the
    units here, which follow all stages, the last one too. A channel is a feature map, or a feature of a vector.

    All examples pass all trunks, also those of datasets that a trunk's own task isn't on: a task's x̃ takes its
    dataset's rows of every x_s. With T tasks there are T times the trunk's parameters and T² numbers per channel for
    the stitches, and an example passes T trunks. Every task's loss reaches every trunk and stitch, and so they are
    shared; not so what comes after the last stitch (its own row of it, and in later stages its own trunk), which is
    the task's own and passes its own examples alone. α is logged: per stage and pair, the mean over the channels.

    Source: Misra, Shrivastava, Gupta and Hebert, Cross-stitch networks for multi-task learning, CVPR 2016, sections 3
    and 4, equation 1; there for two tasks.
    Deviations: the paper starts the trunks from networks trained on each task, and gives α a learning rate a hundred to
    a thousand times theirs; here the trunks start as `trunk:` does and α has the trunks' learning rate. All trunks have
    one encoder of tables, which isn't stitched. With one task there is nothing to mix, and α starts as 1.
    `trunk.frozen` freezes the trunks, not the stitches. ValueError for stages there aren't.

    Options:
        init: α at the start for a task's own trunk.
        per_channel: whether α is a number for each channel, or one for the whole activation.
        stages: those that are followed by a stitch, as the trunk names them; none: all.
    """

    def __init__(
        self,
        make_trunk: MakeTrunk,
        make_head: MakeHead,
        inputs: Mapping[str, str],
        *,
        init: Annotated[float, Field(ge=0, le=1)] = 0.9,
        per_channel: bool = True,
        stages: Annotated[list[str], Field(min_length=1)] | None = None,
    ) -> None:
        super().__init__(make_trunk, make_head, inputs)
        self.task_trunks = ByName({task: make_trunk() for task in inputs})
        known = stages_of(self._trunk(next(iter(inputs))))
        give_one_encoder(list(self.trunks().values()))
        self.stitched = _chosen(stages, list(known))
        self.tail = _tail(known, self.stitched[-1])
        channels = {name: known[name].shape[0] if per_channel else 1 for name in self.stitched}
        tasks = list(inputs)
        self.stitches = ByName(
            {
                key(stage): ByName({task: Stitch(at, len(tasks), width, init) for at, task in enumerate(tasks)})
                for stage, width in channels.items()
            }
        )
        self.heads.update({task: make_head(task, self._trunk(task).features) for task in inputs})

    def trunks(self) -> dict[str, Trunk]:
        return {task: self._trunk(task) for task in self.inputs}

    def representations(
        self, inputs: Mapping[str, Tensor], tasks: Iterable[str], seen: list[TrunkPass] | None = None
    ) -> dict[str, Tensor]:
        """See `Sharing`. There is no one trunk that `seen` could take in."""
        wanted = list(dict.fromkeys(tasks))
        if not wanted:
            return {}
        x, rows = concat_datasets({self.inputs[task]: inputs[self.inputs[task]] for task in wanted})
        stages = {task: trunk.stages() for task, trunk in self.trunks().items()}
        found = dict.fromkeys(self.inputs, self._trunk(next(iter(self.inputs))).encoder(x))
        for name in next(iter(stages.values())):
            found = {task: stages[task][name](y) for task, y in found.items()}
            if name == self.stitched[-1]:
                parts = [split_datasets(y, rows) for y in found.values()]
                found = {task: self._mixed(name, task, [p[self.inputs[task]] for p in parts]) for task in wanted}
            elif name in self.stitched:
                found = {task: self._mixed(name, task, list(found.values())) for task in found}
        if self.watch is not None:
            self._show(wanted, rows)
        return {task: found[task] for task in wanted}

    def own_modules(self, task: str) -> list[nn.Module]:
        trunk, head = self._trunk(task), super().own_modules(task)
        if len(self.inputs) == 1:
            return [*head, trunk, self.stitches]
        last = self._stitch(self.stitched[-1], task)
        return [*head, last, *(trunk.get_submodule(layer) for layer in self.tail)]

    def _mixed(self, stage: str, task: str, activations: Sequence[Tensor]) -> Tensor:
        out: Tensor = self._stitch(stage, task)(activations)
        return out

    def _stitch(self, stage: str, task: str) -> Stitch:
        stitch = self.stitches[key(stage)][task]  # type: ignore[index]
        assert isinstance(stitch, Stitch)
        return stitch

    def _show(self, tasks: Sequence[str], rows: Mapping[str, int]) -> None:
        assert self.watch is not None
        for task in tasks:
            for stage in self.stitched:
                means = self._stitch(stage, task).alpha.mean(1).unbind()
                for source, mean in zip(self.inputs, means, strict=True):
                    self.watch.add(task, f"{stage}.{source}", mean, rows[self.inputs[task]])

    def _trunk(self, task: str) -> Trunk:
        trunk = self.task_trunks[task]
        assert isinstance(trunk, Trunk)
        return trunk


class Stitch(nn.Module):
    """One task's row of a cross-stitch unit: T activations [B, C, …] → Σ_s α_s x_s. alpha: [T, C], or [T, 1].

    own: the task's place among the T; its α starts as `init`.
    """

    def __init__(self, own: int, tasks: int, channels: int, init: float) -> None:
        super().__init__()
        alpha = torch.full((tasks, channels), (1 - init) / max(tasks - 1, 1))
        alpha[own] = init if tasks > 1 else 1.0
        self.alpha = nn.Parameter(alpha)

    def forward(self, activations: Sequence[Tensor]) -> Tensor:
        first, *others = activations
        alpha = self.alpha.to(first.dtype).view(*self.alpha.shape, *(1 for _ in first.shape[2:]))
        mixed = first * alpha[0]
        for source, x in enumerate(others, 1):
            mixed = torch.addcmul(mixed, x, alpha[source])
        return mixed


def _chosen(stages: Sequence[str] | None, there: Sequence[str]) -> list[str]:
    """The stages to be stitched, in the trunk's order. ValueError for one there isn't."""
    wanted = there if stages is None else stages
    for name in wanted:
        if name not in there:
            raise ValueError(
                f"stages: the trunk has no stage {name!r}.{nearest(name, there)} Choose from: {', '.join(there)}"
            )
    return [name for name in there if name in wanted]


def _tail(stages: Mapping[str, Stage], last: str) -> list[str]:
    """The layers that the stages after the last stitch use, and none before."""
    names = list(stages)
    cut = names.index(last) + 1
    before = frozenset[str]().union(*(stages[name].layers for name in names[:cut]))
    after = frozenset[str]().union(*(stages[name].layers for name in names[cut:]))
    return sorted(after - before)
