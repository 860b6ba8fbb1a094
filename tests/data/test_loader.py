from __future__ import annotations

import gc
import weakref

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mtlcli.data.base import Examples
from mtlcli.data.dataset_loader import make_gather
from mtlcli.data.loader import evaluation_batches
from mtlcli.data.placement import Placement
from mtlcli.errors import ConfigError, MtlError
from mtlcli.specs import IGNORE_INDEX, has_label
from tests.data.batches import CPU, TASKS, Lazy, examples, loader, plain

SAMPLERS = ["proportional", "uniform", "temperature", "round_robin"]
AUGMENT = {"a": [{"name": "RandomCrop", "size": 8, "padding": 2}, "RandomHorizontalFlip"]}


def test_an_epoch_has_every_example_once_with_its_label() -> None:
    parts = examples()
    seen = []
    for batch in loader(parts).epoch(0):
        for image, garment in zip(batch.inputs["b"], batch.targets["garment"], strict=True):
            seen.append(int(garment))
            assert torch.equal(image, parts["b"].inputs[int(garment)])
    assert sorted(seen) == list(range(0, 114, 2))


@settings(max_examples=25, deadline=None)
@given(data=st.data(), sampling=st.sampled_from(SAMPLERS), seed=st.integers(0, 3), epoch=st.integers(0, 4))
def test_a_restart_at_any_step_gives_the_following_batches(
    data: st.DataObject, sampling: str, seed: int, epoch: int
) -> None:
    whole = loader(sampling=sampling, seed=seed)
    start = data.draw(st.integers(0, whole.steps))
    again = loader(sampling=sampling, seed=seed)
    assert plain(again.epoch(epoch, start)) == plain(whole.epoch(epoch))[start:]


def test_epochs_and_seeds_differ() -> None:
    epochs = [plain(loader(seed=seed).epoch(epoch)) for seed, epoch in ((0, 0), (0, 1), (1, 0))]
    assert epochs[0] != epochs[1] and epochs[0] != epochs[2]


@pytest.mark.parametrize("sampling", SAMPLERS)
@pytest.mark.parametrize("lazy", [False, True])
def test_both_routes_give_the_same_batches(sampling: str, lazy: bool) -> None:
    parts = examples()
    streamed = parts
    if lazy:
        assert isinstance(parts["a"].inputs, torch.Tensor)
        streamed = {**parts, "a": Examples(Lazy(parts["a"].inputs), parts["a"].targets)}
    resident = loader(parts, sampling=sampling, loading="resident")
    stream = loader(streamed, sampling=sampling, loading="stream")
    assert resident.route == {"a": "resident", "b": "resident"}
    assert stream.route == {"a": "stream", "b": "stream"}
    for epoch in range(2):
        assert plain(resident.epoch(epoch)) == plain(stream.epoch(epoch))


def test_workers_persist_after_an_unfinished_epoch() -> None:
    alone, helped = loader(augment=AUGMENT), loader(augment=AUGMENT, loading="stream", workers=2)
    assert plain(helped.epoch(0)) == plain(alone.epoch(0))
    left_early = helped.epoch(1)
    next(left_early)
    assert plain(helped.epoch(2, start=1)) == plain(alone.epoch(2, start=1))


def test_a_loader_deleted_within_an_epoch_leaves_no_cycle() -> None:
    """Workers that are collected as part of a reference cycle get no signal to end; this blocks for 5 s each."""
    gc.collect()
    gc.disable()
    try:
        dropped = loader(augment=AUGMENT, loading="stream", workers=1)
        stream = dropped._loaders[0].stream
        assert stream is not None
        alive = weakref.ref(stream.loader)
        epoch = dropped.epoch(0)
        next(epoch)
        del stream, dropped, epoch
        assert alive() is None
    finally:
        gc.enable()


def test_augmentation_is_equal_in_all_routes_and_new_in_each_pass() -> None:
    whole = loader(augment=AUGMENT)
    assert whole.route == {"a": "stream", "b": "resident"}
    assert plain(whole.epoch(1, start=2)) == plain(loader(augment=AUGMENT, loading="stream").epoch(1))[2:]
    inputs = torch.cat([batch.inputs["a"] for batch in whole.epoch(0)])
    unchanged = torch.cat([batch.inputs["a"] for batch in loader().epoch(0)])
    assert inputs.shape == unchanged.shape and not torch.equal(inputs, unchanged)

    def first_image(epoch: int) -> torch.Tensor:
        single = {"a": Examples(examples()["a"].inputs, examples()["a"].targets, torch.tensor([4]))}
        return next(loader(single, augment=AUGMENT).epoch(epoch)).inputs["a"]

    assert any(not torch.equal(first_image(0), first_image(epoch)) for epoch in range(1, 5))


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("loading", ["resident", "stream"])
def test_the_random_state_is_unchanged(loading: str, workers: int) -> None:
    before = torch.get_rng_state()
    for _ in loader(augment=AUGMENT, loading=loading, workers=workers).epoch(0):  # type: ignore[arg-type]
        pass
    assert torch.equal(torch.get_rng_state(), before)


def test_the_random_state_changes_no_batch() -> None:
    torch.manual_seed(1)
    first = plain(loader(augment=AUGMENT).epoch(0))
    torch.manual_seed(2)
    assert plain(loader(augment=AUGMENT).epoch(0)) == first


def test_counts_are_the_numbers_of_labelled_examples() -> None:
    for batch in loader(sampling="round_robin").epoch(3):
        assert batch.counts == {task: int(has_label(target).sum()) for task, target in batch.targets.items()}


def test_a_step_without_examples_of_a_dataset_omits_it() -> None:
    for step, batch in enumerate(loader(sampling="round_robin").epoch(0)):
        assert set(batch.inputs) == {"ab"[step % 2]}
        assert set(batch.targets) == ({"digit", "ink"} if step % 2 == 0 else {"garment"})


def test_an_error_in_a_worker_is_raised_with_the_alias() -> None:
    class Broken(Lazy):
        def __getitem__(self, row: int) -> torch.Tensor:
            if row > 0:
                raise MtlError("a.png: can't be read as an image")
            return super().__getitem__(row)

    parts = examples()
    assert isinstance(parts["a"].inputs, torch.Tensor)
    parts["a"] = Examples(Broken(parts["a"].inputs), parts["a"].targets)
    with pytest.raises(MtlError, match=r"^datasets.a: a.png: can't be read as an image$"):
        list(loader(parts, loading="stream", workers=1).epoch(0))


def test_an_empty_split_is_an_error() -> None:
    empty = examples()["a"]
    empty = Examples(empty.inputs, empty.targets, torch.tensor([], dtype=torch.int64))
    with pytest.raises(ConfigError, match="dataset 'a' has no examples"):
        list(evaluation_batches({"a": empty}, TASKS, Placement(CPU), 10))


@pytest.mark.parametrize("loading", ["resident", "stream"])
def test_evaluation_has_every_example_once_in_order(loading: str) -> None:
    parts = examples()
    batches = list(evaluation_batches(parts, TASKS, Placement(CPU, loading, 0), 10))  # type: ignore[arg-type]
    assert [set(batch.inputs) for batch in batches] == [{"a"}] * 3 + [{"b"}] * 6
    assert torch.equal(torch.cat([batch.inputs["a"] for batch in batches[:3]]), parts["a"].inputs)  # type: ignore[arg-type]
    assert torch.cat([batch.targets["garment"] for batch in batches[3:]]).tolist() == list(range(0, 114, 2))
    assert [batch.counts["digit"] for batch in batches[:3]] == [6, 7, 2]


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.int64])
@pytest.mark.parametrize("shape", [(1, 4, 4), (3, 5, 5), (7,), (8,), ()])
def test_gathering_equals_indexing(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    inputs = torch.randint(0, 100, (20, *shape)).to(dtype)
    rows = torch.tensor([3, 19, 0, 3, 7])
    for source in (inputs, inputs[1:].flip(0)):
        within = rows.clamp(max=len(source) - 1)
        cut = make_gather(source, within)
        assert torch.equal(cut(1, 4), source[within[1:4]])
        assert cut(1, 4).dtype == dtype


def test_examples_with_a_label() -> None:
    nan = float("nan")
    assert has_label(torch.tensor([0, IGNORE_INDEX, 3])).tolist() == [True, False, True]
    assert has_label(torch.tensor([0.0, nan])).tolist() == [True, False]
    assert has_label(torch.tensor([[0.0, nan], [nan, nan]])).tolist() == [True, False]
