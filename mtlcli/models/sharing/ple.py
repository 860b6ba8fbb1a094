"""Shared experts beside experts of each task, in levels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import cast

from pydantic import PositiveInt
from torch import Tensor, nn

from mtlcli.config.options import Copies
from mtlcli.models.modules import ByName
from mtlcli.models.sharing.base import MakeHead, MakeTrunk, Sharing, concat_datasets, split_datasets
from mtlcli.models.sharing.experts import Gating, SoftmaxGate, give_one_encoder, mixed, parts_of, run_stages, show
from mtlcli.models.trunks.base import Trunk
from mtlcli.registry import sharings
from mtlcli.specs import TrunkPass

SHARED = "shared"


@sharings.register("ple")
class PLE(Sharing):
    """Progressive layered extraction: experts of each task beside shared ones, in levels that part them step by step.

    In each level every task t has experts of its own, and there are shared ones. With g what the gates make of them:

        g_t^l = softmax(W_t^l g_t^{l−1}) · S_t^l            S_t^l: outputs of t's own experts, and of the shared ones
        g_shared^l = softmax(W^l g_shared^{l−1}) · S^l      S^l: outputs of all tasks' experts, and of the shared ones

    A task's experts are given its g_t^{l−1}, the shared ones g_shared^{l−1}; in the first level all are given the
    example, normalized, through the trunk's encoder (of tables). The last level has no shared gate; its g_t^L are what
    the heads are given, [B, features]. A gate is given what its owner's experts are, flattened.

    An expert is a trunk, cut: the experiment's `trunk:` is made for each expert, its chain of stages (as `mtl show`
    names them) cut into `levels` parts of as many stages each, where the later ones have more if that doesn't go; the
    parts of one trunk are the experts of that number, one in each level. So a trunk takes the place of the paper's
    layers, and an example's way from input to head is as long as under hard sharing.

    With tasks on several datasets: below the last level all examples pass the experts of all tasks, because the shared
    gate chooses from all of them; in the last level an example passes the shared experts, and those of the tasks on its
    dataset. What only one task's loss reaches belongs to that task: its experts of the last level, its gates of the
    last two. What it has below that reaches the other tasks by the shared gate, and is shared.

    Source: Tang et al., Progressive layered extraction (PLE), RecSys 2020, where experts are networks of a size of
    their own, and tasks have all examples in common. The mean weight of each expert in a task's gates, over the
    examples of its dataset, is in metrics.csv (`sharing.<task>`; of the shared gates, over all, `sharing.shared`) and
    plots/sharing.png. An example passes all trunks, but for the last parts of those for other datasets' tasks.
    ValueError for more levels than the trunk has stages, and for tasks' names that can't be told from the experts'.

    Options:
        levels: extraction levels that the trunk is cut into; with 1 it is `cgc`.
        shared_experts: how many trunks are shared.
        task_experts: how many trunks each task has of its own.
        bias: whether a gate is softmax(W x + b); the paper's has no b, so that it is even where x is 0.
    """

    gated = True

    def __init__(
        self,
        make_trunk: MakeTrunk,
        make_head: MakeHead,
        inputs: Mapping[str, str],
        *,
        levels: PositiveInt = 2,
        shared_experts: Copies = 1,
        task_experts: Copies = 1,
        bias: bool = False,
    ) -> None:
        super().__init__(make_trunk, make_head, inputs)
        counts = [(SHARED, shared_experts), *((task, task_experts) for task in inputs)]
        names = [f"{owner}{at}" for owner, count in counts for at in range(count)]
        if twice := [name for name, times in Counter(names).items() if times > 1]:
            raise ValueError(
                f"two experts would be called {twice[0]!r}: the shared ones are shared0, shared1, …, and a task's are "
                "called by its name and a number. Rename the task"
            )
        self.owned = {owner: [f"{owner}{at}" for at in range(count)] for owner, count in counts}
        tasks = [name for name in names if name not in self.owned[SHARED]]
        self.choices = {o: (tasks if o == SHARED else owned) + self.owned[SHARED] for o, owned in self.owned.items()}
        self.experts = ByName({name: make_trunk() for name in names})
        self.parts = parts_of(self._expert(f"{SHARED}0"), levels)
        give_one_encoder(list(self.trunks().values()))
        self.gates = nn.ModuleList()
        for level, part in enumerate(self.parts):
            owners = [*inputs, SHARED] if level < levels - 1 else list(inputs)
            widths = {owner: len(self.choices[owner]) for owner in owners}
            self.gates.append(ByName({o: SoftmaxGate(part.inputs, width, bias) for o, width in widths.items()}))
        self.heads.update({task: make_head(task, self._expert(f"{SHARED}0").features) for task in inputs})

    def trunks(self) -> dict[str, Trunk]:
        return {name: self._expert(name) for owned in self.owned.values() for name in owned}

    def representations(
        self, inputs: Mapping[str, Tensor], tasks: Iterable[str], seen: list[TrunkPass] | None = None
    ) -> dict[str, Tensor]:
        """See `Sharing`. `seen` takes in the selectors of the gates."""
        alias_of = {task: self.inputs[task] for task in tasks}
        if not alias_of:
            return {}
        x, rows = concat_datasets({alias: inputs[alias] for alias in alias_of.values()})
        given = dict.fromkeys([SHARED, *self.inputs], self._expert(f"{SHARED}0").encoder(x))
        said: dict[tuple[int, str], Gating] = {}
        last = len(self.parts) - 1
        for level in range(last):
            outputs = {name: self._pass(name, level, x) for owner, x in given.items() for name in self.owned[owner]}
            given = {owner: self._mix(level, owner, given[owner], outputs, said) for owner in given}
        common = {name: split_datasets(self._pass(name, last, given[SHARED]), rows) for name in self.owned[SHARED]}
        found: dict[str, Tensor] = {}
        for task, alias in alias_of.items():
            own = split_datasets(given[task], rows)[alias]
            outputs = {name: self._pass(name, last, own) for name in self.owned[task]}
            outputs |= {name: pieces[alias] for name, pieces in common.items()}
            found[task] = self._mix(last, task, own, outputs, said)
        if self.watch is not None or seen is not None:
            self._tell(said, alias_of, rows, seen)
        return found

    def own_modules(self, task: str) -> list[nn.Module]:
        levels = len(self.parts)
        gates = [cast("ByName", self.gates[level])[task] for level in range(max(levels - 2, 0), levels)]
        modules = [*super().own_modules(task), *gates]
        trunks = [self._expert(name) for name in self.owned[task]]
        if levels > 1:
            return [*modules, *(trunk.get_submodule(path) for trunk in trunks for path in self.parts[-1].modules)]
        return [*modules, *trunks]

    def _expert(self, name: str) -> Trunk:
        return cast("Trunk", self.experts[name])

    def _pass(self, name: str, level: int, x: Tensor) -> Tensor:
        return run_stages(self._expert(name), x, self.parts[level].start, self.parts[level].end)

    def _mix(
        self, level: int, owner: str, x: Tensor, outputs: Mapping[str, Tensor], said: dict[tuple[int, str], Gating]
    ) -> Tensor:
        """What the owner's gate of a level makes of the experts' outputs for x; `said` takes in what the gate says."""
        gating: Gating = cast("ByName", self.gates[level])[owner](x)
        said[level, owner] = gating
        return mixed(gating.weights, [outputs[name] for name in self.choices[owner]])

    def _tell(
        self,
        said: Mapping[tuple[int, str], Gating],
        alias_of: Mapping[str, str],
        rows: Mapping[str, int],
        seen: list[TrunkPass] | None,
    ) -> None:
        """Tell `watch` and `seen` of the gates; of a task's, what it says of the examples of its dataset."""
        last, selectors = len(self.parts) - 1, dict[str, Tensor]()
        for (level, owner), gating in said.items():
            if owner != SHARED and owner not in alias_of:
                continue
            if owner != SHARED and level < last:
                gating = Gating(*(split_datasets(x, rows)[alias_of[owner]] for x in gating))
            prefix = f"level{level + 1}." if last else ""
            selectors[prefix + owner] = gating.selectors
            if self.watch is not None:
                names = [prefix + name for name in self.choices[owner]]
                show(self.watch, owner, names, gating.weights, gating.weights.shape[0])
        if seen is not None:
            seen.append(TrunkPass(dict(rows), {}, selectors=selectors))
