from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mtlcli.data.base import Examples
from mtlcli.data.bucketing import Window, make_windows
from mtlcli.data.formats.text_rows import TextRows
from mtlcli.data.formats.token_rows import TokenRows
from mtlcli.data.loader import Batch, Loader, evaluation_batches
from mtlcli.data.placement import Loading, Placement
from mtlcli.registry import samplers
from tests.data.batches import CPU, plain

SAMPLERS = ["proportional", "uniform", "temperature", "round_robin"]
TASKS = {"number": ("a", "number"), "other": ("b", "number")}


def tokens(amount: int, seed: int = 0) -> TokenRows:
    """Texts of 1 to 30 tokens, each of which is 1000 times the number of its text plus its position."""
    lengths = np.random.default_rng(seed).integers(1, 31, amount)
    ids = [1000 * row + at for row, length in enumerate(lengths.tolist()) for at in range(length)]
    starts = torch.from_numpy(np.concatenate([[0], lengths.cumsum()]))
    return TokenRows(torch.tensor(ids, dtype=torch.int32), None, starts)


def examples() -> dict[str, Examples]:
    parts = {"a": (tokens(111), None), "b": (tokens(90, 1), torch.arange(0, 90, 2))}
    return {
        alias: Examples(inputs, {"number": torch.arange(len(inputs))}, rows) for alias, (inputs, rows) in parts.items()
    }


def loader(sampling: str = "proportional", seed: int = 0, bucketing: int = 4, loading: Loading = "auto") -> Loader:
    parts = examples()
    sampler = samplers[sampling].target([len(split) for split in parts.values()], 6)
    return Loader(parts, TASKS, sampler, seed, Placement(CPU, loading, 0), bucketing=bucketing)


def check_inputs(batch: Batch) -> None:
    """Check that each input has the tokens of the example that its label numbers, and padding."""
    for task, (alias, name) in TASKS.items():
        if alias not in batch.inputs:
            continue
        inputs, whole = batch.inputs[alias], examples()[alias].inputs
        assert isinstance(whole, TokenRows)
        rows = batch.targets[task].tolist()
        assert inputs.shape == (len(rows), 2, max(whole.lengths[rows]))
        for row, example in zip(rows, inputs, strict=True):
            length = whole.lengths[row]
            assert example[0, :length].tolist() == [1000 * row + at for at in range(length)]
            assert (example[1, :length] == 0).all() and (example[:, length:] == -1).all(), name


@settings(max_examples=50, deadline=None)
@given(lengths=st.lists(st.integers(1, 9), min_size=1, max_size=60), size=st.integers(1, 7), seed=st.integers(0, 3))
def test_a_window_keeps_the_sizes_of_its_batches_and_sorts_its_texts(lengths: list[int], size: int, seed: int) -> None:
    amount = len(lengths)
    chunks = [(start, min(start + size, amount)) for start in range(0, amount, size)]
    ordered = np.array(lengths)
    for window in make_windows(chunks, 3, seed, "a", 0):
        own = ordered[window.start : window.stop]
        arranged = window.arrange(own)
        assert sorted(arranged.tolist()) == list(range(len(own)))
        batches = [own[arranged[start - window.start : stop - window.start]] for start, stop in window.chunks]
        batches.sort(key=lambda batch: (batch.min(), batch.max()))
        assert np.concatenate(batches).tolist() == sorted(own.tolist())


def test_a_window_shuffles_its_batches_and_texts_of_the_same_length() -> None:
    chunks = [(start, start + 5) for start in range(0, 200, 5)]
    lengths = np.repeat(np.arange(40), 5)
    orders = [Window(chunks, ("bucket", seed)).arrange(lengths).tolist() for seed in (0, 1, 0)]
    assert orders[0] == orders[2] != orders[1] and orders[0] != sorted(orders[0])


@settings(max_examples=25, deadline=None)
@given(data=st.data(), sampling=st.sampled_from(SAMPLERS), seed=st.integers(0, 3), epoch=st.integers(0, 4))
def test_a_restart_at_any_step_gives_the_following_batches(
    data: st.DataObject, sampling: str, seed: int, epoch: int
) -> None:
    whole = loader(sampling, seed)
    start = data.draw(st.integers(0, whole.steps))
    assert plain(loader(sampling, seed).epoch(epoch, start)) == plain(whole.epoch(epoch))[start:]


def test_an_epoch_has_every_text_once_with_its_label_in_batches_of_similar_length() -> None:
    padded = {}
    for bucketing in (4, 0):
        batches = list(loader(bucketing=bucketing).epoch(1))
        for batch in batches:
            check_inputs(batch)
        assert sorted(torch.cat([batch.targets["number"] for batch in batches]).tolist()) == list(range(111))
        assert sorted(torch.cat([batch.targets["other"] for batch in batches]).tolist()) == list(range(0, 90, 2))
        padded[bucketing] = sum(x.numel() for batch in batches for x in batch.inputs.values())
    assert padded[4] < 0.8 * padded[0]


def test_without_bucketing_the_examples_are_in_the_order_of_other_data() -> None:
    parts = {alias: Examples(torch.zeros(len(split.inputs), 1), split.targets, split.rows)
             for alias, split in examples().items()}  # fmt: skip
    sampler = samplers["proportional"].target([len(split) for split in parts.values()], 6)
    others = Loader(parts, TASKS, sampler, 0, Placement(CPU)).epoch(2)
    for batch, other in zip(loader(bucketing=0).epoch(2), others, strict=True):
        assert all(torch.equal(batch.targets[task], other.targets[task]) for task in batch.targets)


def test_both_routes_give_the_same_batches() -> None:
    resident, stream = loader(loading="resident"), loader(loading="stream")
    assert (resident.route["a"], stream.route["a"]) == ("resident", "stream")
    assert plain(resident.epoch(0, 3)) == plain(stream.epoch(0, 3))


def test_texts_are_evaluated_from_the_longest_on_or_in_order() -> None:
    sorted_batches = list(evaluation_batches(examples(), TASKS, Placement(CPU), 16))
    lengths = [batch.inputs["a"].shape[2] for batch in sorted_batches if "a" in batch.inputs]
    assert lengths == sorted(lengths, reverse=True)
    assert sorted(torch.cat([b.targets["number"] for b in sorted_batches if "a" in b.inputs]).tolist()) == [*range(111)]
    in_order = list(evaluation_batches(examples(), TASKS, Placement(CPU), 16, in_order=True))
    assert torch.cat([b.targets["number"] for b in in_order if "a" in b.inputs]).tolist() == list(range(111))
    for batch in [*sorted_batches, *in_order]:
        check_inputs(batch)


def test_rows_of_texts() -> None:
    rows = TextRows([["a", "b", "c"], ["x", None, "z"]])
    assert next(rows.select(np.array([2, 1])).blocks()) == [("c", "z"), ("b", None)]
    assert next(rows.join([rows]).blocks())[3:] == [("a", "x"), ("b", None), ("c", "z")]
