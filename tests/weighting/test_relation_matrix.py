from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtlcli.weighting.relation_matrix import build_relation_matrix, check_psd, nearest_psd, read_relations
from tests.oracles import relation as oracle

TASKS = ["digit", "parity", "ink"]
GOOD = """\
task,digit,parity,ink
digit,1.0,0.5,-0.25
parity,0.5,1,0
ink,-0.25,0,1e0
"""
MATRIX = [[1.0, 0.5, -0.25], [0.5, 1.0, 0.0], [-0.25, 0.0, 1.0]]


def written(folder: Path, text: str | bytes) -> str:
    file = folder / "relation.csv"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(file)


def symmetric(seed: int, count: int) -> oracle.Array:
    values = np.random.default_rng(seed).normal(size=(count, count))
    return (values + values.T) / 2


@pytest.mark.parametrize("order", [TASKS, ["ink", "digit", "parity"]])
def test_a_file_a_mapping_and_a_list_give_the_same_matrix(tmp_path: Path, order: list[str]) -> None:
    at = [TASKS.index(task) for task in order]
    expected = np.array(MATRIX)[np.ix_(at, at)]
    mapping = {task: dict(zip(TASKS, row, strict=True)) for task, row in zip(TASKS, MATRIX, strict=True)}
    for given_ in (written(tmp_path, GOOD), mapping, expected.tolist()):
        np.testing.assert_array_equal(build_relation_matrix(given_, order), expected)


def test_a_file_in_any_order_of_rows_and_columns(tmp_path: Path) -> None:
    text = "task, ink, digit, parity\r\nparity, 0, 0.5, 1\r\n\r\ndigit, -0.25, 1, 0.5\r\nink, 1, -0.25, 0\r\n"
    np.testing.assert_array_equal(build_relation_matrix(written(tmp_path, text), TASKS), MATRIX)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"relation\.csv:1: expected `task,` and the names of the tasks"),
        ("1,2\n3,4\n", r"relation\.csv:1: expected `task,`"),
        ("\n", r"relation\.csv:1: expected `task,`"),
        (b"\xff\xfe", "not a CSV file"),
        (GOOD.replace("-0.25,0,1e0", "-0.25,0"), r"relation\.csv:4: expected the name of a task and 3 numbers, got"),
        (GOOD.replace("1e0", "one"), r"relation\.csv:4: R\[ink, ink\] is 'one'; expected a finite number"),
        (GOOD.replace("1e0", "nan"), r"relation\.csv:4: R\[ink, ink\] is 'nan'; expected a finite number"),
        (GOOD + "ink,1,2,3\n", r"relation\.csv:5: a second row for 'ink'"),
        (GOOD.replace("task,digit,parity", "task,digit,digit"), r"relation\.csv:1: two columns 'digit'"),
        (GOOD.replace("\nink", "\ninky"), "no row for task 'ink'. Did you mean 'inky'?"),
        (GOOD.replace("parity,ink", "parity,inky"), "no column, in the row of 'digit', for task 'ink'. Did you mean"),
        (GOOD + "tone,1,2,3\n", "a row for 'tone', which is not a task. The tasks: digit, parity, ink"),
    ],
)
def test_errors_of_invalid_files(tmp_path: Path, text: str | bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_relation_matrix(written(tmp_path, text), TASKS)


def test_error_of_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nowhere\.csv: can't be read: No such file"):
        read_relations(str(tmp_path / "nowhere.csv"))


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        ([[1.0, 0.5], [0.5, 1.0]], "2 rows of 2 numbers; expected 3×3, in the order of the tasks: digit, parity, ink"),
        ([[1.0, 0.5, 0.0], [0.5, 1.0], [0.0, 0.0, 1.0]], "3 rows of 2 or 3 numbers; expected 3×3"),
        ([], "0 rows of no numbers; expected 3×3"),
        ([[1.0, 0.5, 0.0], [0.4, 1.0, 0.0], [0.0, 0.0, 1.0]],
         r"not symmetric: R\[digit, parity\] is 0.5, and R\[parity, digit\] is 0.4"),
        ([[1.0, 0.5, 0.0], [0.5, float("inf"), 0.0], [0.0, 0.0, 1.0]], r"R\[parity, parity\] is inf"),
    ],
)  # fmt: skip
def test_errors_of_invalid_numbers(matrix: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_relation_matrix(matrix, TASKS)


def test_rounding_does_not_count_as_asymmetry() -> None:
    matrix = build_relation_matrix([[1.0, 0.3333333], [0.3333330, 1.0]], TASKS[:2])
    np.testing.assert_array_equal(matrix, matrix.T)


def test_pipes_and_devices_are_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (str(tmp_path / "pipe"), "/dev/zero"):
        with pytest.raises(ValueError, match=f"^{path}: can't be read: not a file$"):
            read_relations(path)


def test_error_of_a_file_that_is_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mtlcli.weighting.relation_matrix.MAX_CHARACTERS", 10)
    with pytest.raises(ValueError, match=r"relation\.csv: larger than 0 MiB"):
        read_relations(written(tmp_path, GOOD))


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), count=st.integers(1, 8))
def test_the_projection_is_the_nearest_psd_matrix(seed: int, count: int) -> None:
    matrix, generator = symmetric(seed, count), np.random.default_rng(seed + 1)
    projected = nearest_psd(matrix)
    np.testing.assert_allclose(projected, oracle.clipped(matrix), atol=1e-12)
    np.testing.assert_array_equal(projected, projected.T)
    assert np.linalg.eigvalsh(projected)[0] > -1e-12
    distance = np.linalg.norm(matrix - projected)
    for scale in (1e-3, 1e-1, 1.0):  # no other psd matrix is nearer
        factor = generator.normal(size=(count, count))
        other = oracle.clipped(projected + scale * (factor + factor.T))
        assert np.linalg.norm(matrix - other) >= distance - 1e-12


def test_matrices_that_are_psd_up_to_rounding_are_unchanged() -> None:
    for matrix in (
        np.ones((3, 3)),
        np.zeros((2, 2)),
        np.eye(4) - 1 / 4,
        np.array([[1.0, 1.0 + 1e-7], [1.0 + 1e-7, 1]]),
    ):
        check_psd(matrix)
        assert nearest_psd(matrix) is matrix


def test_indefinite_matrices_are_reported_with_their_eigenvalues() -> None:
    matrix = np.array([[1.0, 2.0], [2.0, 1.0]])  # eigenvalues −1 and 3
    message = r"eigenvalues range from -1 to 3.*distance of 1, with ‖R‖_F = 3\.162.*`project: none`"
    with pytest.raises(ValueError, match=message):
        check_psd(matrix)
    np.testing.assert_allclose(nearest_psd(matrix), [[1.5, 1.5], [1.5, 1.5]])
