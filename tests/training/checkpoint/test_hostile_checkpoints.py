"""Malicious checkpoints, which `load_checkpoint` refuses without executing code or allocating much memory."""

from __future__ import annotations

import io
import struct
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from mtlcli.errors import ConfigError
from mtlcli.training.assembly.build import check_experiment
from mtlcli.training.checkpoint import file, integrity
from mtlcli.training.checkpoint.file import check_plain, load_checkpoint
from mtlcli.training.checkpoint.integrity import ENDING, check_pickle, seal
from tests.hostile.archives import pickle_model, pickle_name, pickle_tensor, pickle_text, serialize
from tests.hostile.checkpoints import CANARY, MaliciousCode, deflate_bomb, make, valid_document
from tests.hostile.limits import limit_memory
from tests.training.experiments import digits

REASONS = {
    "empty": "empty, or not a checkpoint of mtl",
    "truncated": "damaged, or not a checkpoint of mtl: it does not end with an mtl checksum",
    "pickle": "damaged, or not a checkpoint of mtl",
    "legacy_format": "damaged, or not a checkpoint of mtl",
    "unsealed": "it does not end with an mtl checksum",
    "directory": "not a regular file, so not a checkpoint",
    "fifo": "not a regular file, so not a checkpoint",
    "link_to_a_device": "not a regular file, so not a checkpoint",
    "link_to_itself": "can't be read: Too many levels of symbolic links",
    "missing": "no such checkpoint file",
    "whole_module": "refers to 'torch.nn.modules.linear.Linear', which no checkpoint contains",
    "tensor": "not a checkpoint of mtl",
    "future_version": "checkpoint format 1099511627776, but this version of mtl reads format 2: use a newer version",
    "version_of_another_type": "not a checkpoint of mtl",
    "no_tensor": "model.normalize.digits.mean is not a tensor",
    "model_of_another_type": "missing model",
    "parameter": "refers to 'torch._utils._rebuild_parameter'",
    "sparse": "refers to 'torch._utils._rebuild_sparse_tensor'",
    "a_trillion_laughs": "more than 4194304 values",
    "nested": "history.0.0.0 is nested deeper than 64 levels",
    "a_set": "refers to '__builtin__.set'",
    "config_of_another_type": "missing config",
    "sealed_pickle": "refers to 'posix.system'",
    "claims_more_than_its_memory": "a tensor in it declares 4398046511104 bytes but has 4",
    "claims_4_tebibytes_by_a_view": "a tensor in it declares 1099511627776 elements but has 1",
    "tensor_that_wants_a_gradient": "its pickle is malformed",
    "bytearray": "refers to 'builtins.bytearray'",
    "large_tensor": "refers to 'torch.Tensor'",
    "deep_key": "a dict with keys that are neither strings nor integers",
    "doubled_key": "a dict with keys that are neither strings nor integers",
    "doubled_key_of_a_memory": "its pickle is malformed",
    "builds": "the opcode BUILD, which no checkpoint contains",
    "memo_beyond_any": "model.weight is not a tensor",
    "without_an_end": "pickle exhausted before seeing STOP",
    "no_pickle": "its archive is malformed",
    "two_pickles": "its archive has unexpected members",
    "constants": "its archive has unexpected members",
    "name_outside": "its archive has unexpected members",
    "claims_a_large_member": "declares more bytes than it has",
    "deflate_bomb": "declares more bytes than it has",
}
"""The files that are not plain data in the format of a checkpoint; `load_checkpoint` accepts the other files."""


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return make(tmp_path_factory.mktemp("hostile"))


def test_malicious_checkpoints_are_refused_with_the_reason(corpus: dict[str, Path]) -> None:
    for key, path in corpus.items():
        with limit_memory():
            if key not in REASONS:
                load_checkpoint(path)
                continue
            with pytest.raises(ConfigError) as caught:
                load_checkpoint(path)
        (problem,) = caught.value.problems
        assert problem.message.startswith(f"{path}: ") and REASONS[key] in problem.message, key
    assert not (corpus["empty"].parent / CANARY).exists()


def test_checkpoints_that_declare_much_memory_are_small(corpus: dict[str, Path]) -> None:
    assert corpus["claims_more_than_its_memory"].stat().st_size < 1800
    assert corpus["deflate_bomb"].stat().st_size < 5 * 2**20


@pytest.mark.parametrize("variable", ["TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", None])
def test_torch_executes_no_code_without_the_pickle_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str | None
) -> None:
    """`weights_only=True` refuses the pickle regardless of the environment variable."""
    if variable is not None:
        monkeypatch.setenv(variable, "1")
    monkeypatch.setattr(integrity, "check_pickle", lambda content, records: None)
    (tmp_path / "a.pt").write_bytes(serialize({**valid_document(), "code": MaliciousCode(tmp_path)}))
    with pytest.raises(ConfigError, match=r"a\.pt: damaged, or not a checkpoint of mtl"):
        load_checkpoint(tmp_path / "a.pt")
    assert not (tmp_path / CANARY).exists()


def test_symlink_to_a_valid_checkpoint_is_followed(tmp_path: Path) -> None:
    (tmp_path / "a.pt").write_bytes(serialize(valid_document()))
    (tmp_path / "link.pt").symlink_to(tmp_path / "a.pt")
    assert load_checkpoint(tmp_path / "link.pt")["config"]["name"] == "tiny"


def test_factors_with_a_large_product_are_not_multiplied(tmp_path: Path) -> None:
    """Two factors of one megabyte each represent a weight of 256 GiB."""
    document = valid_document()
    key = next(key for key in document["model"] if key.startswith("sharing.trunk") and key.endswith(".weight"))
    layer = key.removesuffix("weight")
    document["model"] |= {f"{layer}u": torch.zeros(2**18, 1), f"{layer}v": torch.zeros(1, 2**18)}
    del document["model"][key]
    (tmp_path / "a.pt").write_bytes(serialize(document))
    trunk = {**document["config"]["trunk"], "init_from": str(tmp_path / "a.pt")}
    with limit_memory(), pytest.raises(ConfigError, match=r"differs from this one: .* is 262144×262144, expected"):
        check_experiment(digits(trunk=trunk))


def test_ambiguous_archives_are_refused(tmp_path: Path) -> None:
    """All end records must agree on the directory, because readers may use any of them."""
    whole = serialize(valid_document())
    body, path = whole[:-75], tmp_path / "a.pt"  # without the comment
    end64, locator, end = len(body) - 98, len(body) - 42, len(body) - 22
    for at, form, value in [
        (locator + 8, "<Q", 100),  # another position of the end record, in its locator
        (end64 + 48, "<Q", 100),  # another position of the directory, in the end record
        (end64 + 40, "<Q", 1),  # a shorter directory
        (end64, "<L", 0),
        (end, "<L", 0),
    ]:
        changed = bytearray(body)
        struct.pack_into(form, changed, at, value)
        path.write_bytes(seal(bytes(changed[:-2]) + b"\0\0"))
        with pytest.raises(ConfigError, match="its archive is malformed"):
            load_checkpoint(path)
    assert len(whole) - ENDING == end
    path.write_bytes(seal(b"PK\3\4" + bytes(200)))
    with pytest.raises(ConfigError, match="its archive is malformed"):
        load_checkpoint(path)


def test_size_of_pickles_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    many = pickle_model(b"](" + b"}" * 100 + b"e")
    check_pickle(many, {})
    monkeypatch.setattr(integrity, "MOST_STEPS", 100)
    with pytest.raises(ValueError, match="more than 100 steps"):
        check_pickle(many, {})
    check_pickle(many, {"data/0": 4})  # the limit grows with the number of tensors
    monkeypatch.setattr(integrity, "MOST_BYTES", 100)
    with pytest.raises(ValueError, match="more than 100"):
        check_pickle(many, {})


@pytest.mark.parametrize("value", [
    b"a", b"e", b"t", b"s", b"u", b"h\1", b"R", b"Q", b"\x87", b"NR", b"NNR", b"NQ", b"Na", b"NNNs",
    pickle_name("collections", "OrderedDict") + b"R",
    pickle_name("collections", "OrderedDict") + b"N\x85R",
    pickle_name("torch._utils", "_rebuild_tensor_v2") + b")R",
    pickle_name("torch", "FloatStorage") + b")R",
    b"(" + pickle_text("storage") + b"tQ",
    pickle_tensor(1, 1).replace(pickle_text("0"), pickle_text("1")),
    pickle_tensor(1, 1).replace(pickle_text("storage"), pickle_text("module")),
    pickle_tensor(1, -1), pickle_tensor(-1, 1),
])  # fmt: skip
def test_malformed_pickles_are_refused(value: bytes) -> None:
    check_pickle(pickle_model(pickle_tensor(1, 1)), {"data/0": 4})
    with pytest.raises(ValueError, match=r"malformed|declares|calls|keys"):
        check_pickle(pickle_model(value), {"data/0": 4})


@pytest.mark.parametrize(("value", "message"), [
    (torch.eye(2).to_sparse(), "a.0 is not a dense CPU tensor without gradient"),
    (torch.zeros(2, device="meta"), "a.0 is not a dense CPU tensor without gradient"),
    (torch.zeros(2, requires_grad=True), "a.0 is not a dense CPU tensor without gradient"),
    (nn.Parameter(torch.zeros(2)), "a.0 is not a dense CPU tensor without gradient"),
    (torch.zeros(1).expand(2**40), "a.0 is a tensor larger than the file"),
    (torch.zeros(1000), "a.0 is a tensor larger than the file"),
    (b"bytes", "a.0 is a bytes, not plain data"),
    ({1.5: 2}, "a.0 has a key that is neither a string nor an integer"),
    ({True: 2}, "a.0 has a key that is neither a string nor an integer"),
    (nn.Linear(1, 1), "a.0 is a Linear, not plain data"),
    (io.BytesIO(), "a.0 is a BytesIO, not plain data"),
])  # fmt: skip
def test_only_plain_data_is_accepted(value: Any, message: str) -> None:
    check_plain({"a": [torch.zeros(2), 1, 2.5, "x", None, True, (1, 2), {1: 2}]}, 100)
    with pytest.raises(ValueError, match=f"^{message}"):
        check_plain({"a": [value]}, 100)


def test_shared_values_are_counted_once_per_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    shared = torch.zeros(20)
    check_plain([shared], 100)
    with pytest.raises(ValueError, match=r"^1 is a tensor larger than the file"):
        check_plain([shared, shared], 100)
    monkeypatch.setattr(file, "MOST_VALUES", 1000)
    row = [0] * 100
    check_plain([row] * 9, 0)
    with pytest.raises(ValueError, match="more than 1000 values"):
        check_plain([row] * 10, 0)
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(ValueError, match=r"^0\.0\.0\.0 is nested deeper than 64 levels"):
        check_plain(endless, 0)


def test_deflate_bomb_expands_without_the_check() -> None:
    """This shows that the file would be inflated if it were not refused."""
    with zipfile.ZipFile(io.BytesIO(deflate_bomb(2**22))) as file, file.open("archive/data.pkl") as member:
        assert len(member.read(2**21)) == 2**21
