from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from mtlcli.data.content_hash import hash_rows, hash_texts, mix_bits
from mtlcli.data.splitting import MAX_COPIES, draw, group_copies, to_class_codes
from mtlcli.specs import IGNORE_INDEX

SALT = ("test", 0)


def keys_of(amount: int) -> np.ndarray:
    return hash_texts([str(i) for i in range(amount)])


def chosen(keys: np.ndarray, share: float = 0.2, **options: object) -> set[int]:
    return set(keys[draw(keys, share, SALT, **options).chosen].tolist())  # type: ignore[arg-type]


@given(seed=st.integers(0, 2**32), before=st.integers(8, 60), after=st.integers(0, 60))
def test_adding_and_reordering_examples_moves_none(seed: int, before: int, after: int) -> None:
    keys = mix_bits(np.arange(before + after, dtype=np.uint64) + np.uint64(seed))
    first, order = keys[:before], np.random.default_rng(seed).permutation(before + after)
    grown = chosen(keys[order])
    assume(len(chosen(first)) > 1)  # a single example may be drawn only to avoid an empty split
    assert grown & set(first.tolist()) == chosen(first)


def test_the_expected_share_is_drawn() -> None:
    """Within 6 standard deviations of the binomial distribution, for texts and for tensors that differ in one bit."""
    for keys in (keys_of(20_000), hash_rows(torch.arange(20_000).unsqueeze(1)), hash_rows(torch.eye(64))):
        assert len(np.unique(keys)) == len(keys)
        for share in (0.05, 0.5):
            spread = 6 * (len(keys) * share * (1 - share)) ** 0.5
            assert abs(len(chosen(keys, share)) - share * len(keys)) < spread
    assert chosen(keys_of(50), 0.0) == set() and len(chosen(keys_of(50), 1.0)) == 50


@pytest.mark.parametrize("amount", [2, 3, 10])
def test_no_split_is_empty(amount: int) -> None:
    for start in range(0, 300, 10):
        keys = keys_of(310)[start : start + amount]
        assert 1 <= len(chosen(keys, 0.001)) < amount
        assert 1 <= len(chosen(keys, 0.999)) < amount
    assert chosen(keys_of(1)) == chosen(np.repeat(keys_of(1), 5)) == set()


def test_every_class_keeps_an_example() -> None:
    """Classes of one and two examples, also if only one of two targets separates them; a missing label has no class."""
    keys = keys_of(40)
    rare, other = np.zeros(40, np.int64), np.full(40, -1)
    rare[0], rare[1:3], other[:4] = 1, 2, [0, 1, 0, 1]
    for share in (0.2, 0.9):
        for seed in range(30):
            drawn = draw(keys, share, ("test", seed), [rare, other])
            left = ~drawn.chosen
            assert set(rare[left]) == {0, 1, 2} and {0, 1} <= set(other[left]) and drawn.chosen.any()
            assert all(not drawn.chosen[keys == np.uint64(key)].any() for key in drawn.kept)


def test_excluded_keys_stay_excluded_when_their_class_grows() -> None:
    keys, codes = keys_of(200), np.zeros(200, np.int64)
    codes[::10] = 1
    for seed in range(200):
        alone = np.r_[0, np.flatnonzero(codes == 0)]
        before = draw(keys[alone], 0.5, ("test", seed), [codes[alone]])
        if before.kept:
            break
    assert before.kept == {int(keys[0])}
    assert int(keys[0]) in keys[draw(keys, 0.5, ("test", seed), [codes]).chosen].tolist()
    after = draw(keys, 0.5, ("test", seed), [codes], kept=before.kept)
    trained = set(keys[alone][~before.chosen].tolist())
    assert not trained & set(keys[after.chosen].tolist())


def test_classes_of_one_example_only() -> None:
    keys, codes = keys_of(3), np.arange(3)
    assert not draw(keys, 0.2, SALT, [codes]).chosen.any()
    assert draw(keys, 0.2, SALT, [codes], needed=True).chosen.sum() == 1


def test_a_few_identical_examples_share_a_split_but_many_do_not() -> None:
    hashes = np.repeat(hash_texts(["a", "b"]), [MAX_COPIES, 5000])
    keys = group_copies(hashes)
    assert len(np.unique(keys[:MAX_COPIES])) == 1 and len(np.unique(keys[MAX_COPIES:])) == 5001 - MAX_COPIES
    order = np.random.default_rng(0).permutation(len(hashes))
    assert sorted(group_copies(hashes[order])) == sorted(keys)
    assert abs(draw(keys, 0.2, SALT).chosen.mean() - 0.2) < 6 * (0.16 / 5000) ** 0.5 + MAX_COPIES / 5000


def test_class_codes() -> None:
    nan = float("nan")
    assert to_class_codes(torch.tensor([2, IGNORE_INDEX, 0])).tolist() == [2, -1, 0]  # type: ignore[union-attr]
    assert to_class_codes(torch.tensor([1.0, nan, 0.0])).tolist() == [1, -1, 0]  # type: ignore[union-attr]
    assert to_class_codes(torch.tensor([1.0, 2.5])) is None and to_class_codes(torch.ones(3, 2)) is None


def test_hashes_of_texts() -> None:
    texts = ["", None, "a", "b", "ab", "ba", "é", "x" * 64, "x" * 65, "x" * 66, "a" * 8, "a" * 16]
    hashes = hash_texts(texts)
    assert len(set(hashes.tolist())) == len(texts)
    assert [int(hash_texts([text])[0]) for text in texts] == hashes.tolist()  # independent of the other texts
    # must never change: checkpoints store them
    assert [f"{int(h):016x}" for h in hash_texts(["a", None, "x" * 65])] == PINNED


PINNED = ["788fdd762d725ed4", "9e3779b97f4a7c15", "36c9c5df1f7285c0"]


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.float32, torch.float64, torch.bfloat16])
def test_hashes_of_tensors(dtype: torch.dtype) -> None:
    x = torch.arange(30).reshape(6, 5).to(dtype)
    x[1], x[3, 4] = x[0], 99
    hashes = hash_rows(x)
    assert len(set(hashes.tolist())) == 5 and hashes[0] == hashes[1]
    assert hash_rows(x.T.contiguous().T).tolist() == hashes.tolist()  # for any strides
    assert hash_rows(x[:, 0]).shape == (6,) and hash_rows(x[:0]).shape == (0,)
