"""Progressive layered extraction."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import cast

from pydantic import PositiveInt
from torch import Tensor, nn

from mtlcli.config.options import Copies
from mtlcli.models.sharing.base import (
    AnyNameModuleDict,
    MakeHead,
    MakeTrunk,
    Sharing,
    SharingRecord,
    concat_datasets,
    split_datasets,
)
from mtlcli.models.sharing.experts import (
    GateOutput,
    SoftmaxGate,
    add_gate_stats,
    mix_experts,
    run_stages,
    share_encoder,
    split_trunk,
)
from mtlcli.models.trunks.base import Trunk
from mtlcli.registry import sharings
from mtlcli.specs import TrunkPass

SHARED = "shared"


@sharings.register("ple")
class PLE(Sharing):
    """Progressive layered extraction (PLE): shared and task-specific experts in several levels, mixed by gates.

    In each level every task t has its own experts, and there are shared experts. With g the outputs of the gates:

        g_t^l = softmax(W_t^l g_t^{l−1}) · S_t^l            S_t^l: outputs of t's own experts and of the shared experts
        g_shared^l = softmax(W^l g_shared^{l−1}) · S^l      S^l: outputs of all tasks' experts and of the shared experts

    The input of a task's experts is g_t^{l−1}, that of the shared experts g_shared^{l−1}; in the first level it is the
    normalized example, converted by the trunk's encoder (for tables). The last level has no shared gate; the inputs of
    the heads are its g_t^L, [B, F]. The input of a gate is that of its owner's experts, flattened; for sequences, it is
    their mean over the positions, and in the first level that of the token embeddings of the first shared expert.

    Each expert is a segment of a trunk: the experiment's `trunk:` is built for each expert number, and its stages (as
    `mtl show` lists them) are split into `levels` segments of equal length; if that is impossible, later segments are
    longer. The segments of one trunk are the experts with that number, one in each level. A trunk thus takes the place
    of the layers of the paper's experts, and the path from input to head is as long as in hard sharing.

    With tasks on several datasets: below the last level all examples pass through the experts of all tasks, because the
    shared gate mixes all of them; in the last level an example passes through the shared experts and through those of
    the tasks on its dataset. What only one task's loss reaches belongs to that task: its experts of the last level and
    its gates of the last two levels. The task's other modules reach the other tasks through the shared gates, and are
    shared.

    The mean weight of each expert in a task's gates, over the examples of its dataset, is recorded in metrics.csv
    (`sharing.<task>`; for the shared gates, over all examples, `sharing.shared`) and plots/sharing.png. An example
    passes through all trunks except for the last segments of those of other datasets' tasks.

    Note:
        Deviations: in the paper the experts are networks of their own size, and all tasks have the same examples.

    References:
        Tang, Liu, Zhao and Gong, Progressive layered extraction (PLE): a novel multi-task learning model for
            personalized recommendations, RecSys 2020.

    Args:
        make_trunk: creates a trunk; called for each expert number.
        make_head: creates the head of a task: (task, features) → module, [B, features] → [B, outputs].
        inputs: task → alias of its dataset.
        levels: number of extraction levels that a trunk is split into; 1 is `cgc`.
        shared_experts: number of shared trunks.
        task_experts: number of trunks that each task has for itself.
        bias: whether a gate is softmax(W x + b); the paper's gates have no b, so their weights are equal where x is 0.

    Raises:
        ValueError: if the trunk has fewer stages than `levels`, or the name of a task is ambiguous with the name of an
            expert.
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
        names = [f"{owner}{number}" for owner, count in counts for number in range(count)]
        if ambiguous := [name for name, times in Counter(names).items() if times > 1]:
            raise ValueError(
                f"two experts would be called {ambiguous[0]!r}: the shared experts are shared0, shared1, …, "
                "and those of a task have its name and a number. Rename the task"
            )
        self.owned = {owner: [f"{owner}{number}" for number in range(count)] for owner, count in counts}
        of_tasks = [name for name in names if name not in self.owned[SHARED]]
        self.choices = {
            owner: (of_tasks if owner == SHARED else owned) + self.owned[SHARED] for owner, owned in self.owned.items()
        }
        self.experts = AnyNameModuleDict({name: make_trunk() for name in names})
        self.segments = split_trunk(self._expert(f"{SHARED}0"), levels)
        share_encoder(list(self.trunks().values()))
        self.gates = nn.ModuleList()
        for level, segment in enumerate(self.segments):
            owners = [*inputs, SHARED] if level < levels - 1 else list(inputs)
            gates = {owner: SoftmaxGate(segment.inputs, len(self.choices[owner]), bias) for owner in owners}
            self.gates.append(AnyNameModuleDict(gates))
        self.heads.update({task: make_head(task, self._expert(f"{SHARED}0").features) for task in inputs})

    def trunks(self) -> dict[str, Trunk]:
        return {name: self._expert(name) for owned in self.owned.values() for name in owned}

    def encode(
        self, inputs: Mapping[str, Tensor], alias_of: Mapping[str, str], record: SharingRecord
    ) -> dict[str, Tensor]:
        """See `Sharing.encode`; the selectors of the gates are recorded."""
        joint, rows = concat_datasets(inputs)
        first = self._expert(f"{SHARED}0")
        mask, stages = first.mask(joint), {name: self._stages(trunk) for name, trunk in self.trunks().items()}
        linked = len(rows) > 1 and first.stages_are_linked  # so that all stages take the same examples
        mixtures = dict.fromkeys([SHARED, *self.inputs], first.encoder(joint))
        gates: dict[tuple[int, str], GateOutput] = {}  # (level, owner) → output of the gate
        last = len(self.segments) - 1
        for level in range(last):
            outputs = {
                name: run_stages(stages[name][level], x) for owner, x in mixtures.items() for name in self.owned[owner]
            }
            mixtures = {owner: self._mix(level, owner, x, mask, outputs, gates) for owner, x in mixtures.items()}
        shared = {
            name: split_datasets(run_stages(stages[name][last], mixtures[SHARED]), rows) for name in self.owned[SHARED]
        }
        masks = {} if mask is None else split_datasets(mask, rows)
        representations: dict[str, Tensor] = {}
        for task, alias in alias_of.items():
            x = split_datasets(mixtures[task], rows)[alias]
            if linked:
                own = {name: run_stages(stages[name][last], mixtures[task]) for name in self.owned[task]}
                outputs = {name: split_datasets(y, rows)[alias] for name, y in own.items()}
            else:
                outputs = {name: run_stages(stages[name][last], x) for name in self.owned[task]}
            outputs |= {name: of_dataset[alias] for name, of_dataset in shared.items()}
            representations[task] = self._mix(last, task, x, masks.get(alias), outputs, gates)
        if record.stats is not None or record.passes is not None:
            self._record_gates(gates, alias_of, rows, record)
        return representations

    def own_modules(self, task: str) -> list[nn.Module]:
        levels = len(self.segments)
        gates = [cast("AnyNameModuleDict", self.gates[level])[task] for level in range(max(levels - 2, 0), levels)]
        modules = [*super().own_modules(task), *gates]
        trunks = [self._expert(name) for name in self.owned[task]]
        if levels > 1:
            return [*modules, *(trunk.get_submodule(path) for trunk in trunks for path in self.segments[-1].modules)]
        return [*modules, *trunks]

    def _expert(self, name: str) -> Trunk:
        return cast("Trunk", self.experts[name])

    def _stages(self, trunk: Trunk) -> list[list[Callable[[Tensor], Tensor]]]:
        """Return the stages of each segment of a trunk, for one pass."""
        stages = list(trunk.stages().values())
        return [stages[segment.start : segment.end] for segment in self.segments]

    def _mix(
        self,
        level: int,
        owner: str,
        x: Tensor,
        mask: Tensor | None,
        outputs: Mapping[str, Tensor],
        gates: dict[tuple[int, str], GateOutput],
    ) -> Tensor:
        """Mix the experts' outputs for x by the owner's gate of a level, and add the gate's output to `gates`."""
        gate_input = self._expert(f"{SHARED}0").gate_input(x, mask, first=level == 0)
        gate: GateOutput = cast("AnyNameModuleDict", self.gates[level])[owner](gate_input)
        gates[level, owner] = gate
        return mix_experts(gate.weights, [outputs[name] for name in self.choices[owner]])

    def _record_gates(
        self,
        gates: Mapping[tuple[int, str], GateOutput],
        alias_of: Mapping[str, str],
        rows: Mapping[str, int],
        record: SharingRecord,
    ) -> None:
        """Record the gates' outputs; those of a task's gates, for the examples of its dataset."""
        last, selectors = len(self.segments) - 1, dict[str, Tensor]()
        for (level, owner), gate in gates.items():
            if owner != SHARED and owner not in alias_of:
                continue
            if owner != SHARED and level < last:
                gate = GateOutput(*(split_datasets(x, rows)[alias_of[owner]] for x in gate))
            prefix = f"level{level + 1}." if last else ""
            selectors[prefix + owner] = gate.selectors
            if record.stats is not None:
                names = [prefix + name for name in self.choices[owner]]
                add_gate_stats(record.stats, owner, names, gate.weights, gate.weights.shape[0])
        if record.passes is not None:
            record.passes.append(TrunkPass(dict(rows), {}, selectors=selectors))
