"""Malicious checkpoints, with valid checksums unless the checksum itself is tested."""

from __future__ import annotations

import copy
import os
import pickle
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mtlcli.training.assembly.build import build
from mtlcli.training.checkpoint.file import FORMAT, plain
from tests.hostile.archives import (
    DEFLATED,
    Member,
    archive_pickle,
    build_archive,
    pickle_int,
    pickle_model,
    pickle_name,
    pickle_storage,
    pickle_tensor,
    pickle_text,
    serialize,
)
from tests.training.experiments import digits

CANARY = "ran"  # the file that code in a checkpoint would create in the folder of the checkpoint
COMMAND = "os.system"
ENTRIES = ("trunk", "sharing", "weighting", "optimizer", "scheduler", "training.sampling", "tasks.digit.kind",
           "tasks.digit.head", "datasets.digits", "regularizers.0")  # fmt: skip
WORDS = ("tasks.digit.target", "tasks.digit.dataset", "evaluation.monitor.metric", "evaluation.monitor.task",
         "evaluation.split", "training.device", "training.precision", "checkpoint.every")  # fmt: skip
INJECTIONS: dict[str, Any] = {
    **{path: {"name": COMMAND} for path in ENTRIES},
    **dict.fromkeys(WORDS, COMMAND),
    "trunk.init_from": "/dev/zero",
    "datasets.digits.augment": [COMMAND],
}
"""The paths of an experiment at which a name can be given, each with a value that names code or a file."""


class MaliciousCode:
    """An object that creates the canary file when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch '{self.folder / CANARY}'",)


def valid_document(**changes: Any) -> dict[str, Any]:
    """Return the document of a valid checkpoint; `changes` are top-level keys of its experiment."""
    run = build(digits(**changes))
    return {
        "format": "mtl",
        "version": FORMAT,
        "config": run.experiment.resolved(),
        "specs": {alias: spec.to_dict() for alias, spec in run.specs.items()},
        "plugins": {},
        "model": plain(dict(run.model.state_dict())),
    }


def table_document(path: Path, column: int) -> dict[str, Any]:
    """Write a table; return the document of a model of it that reads its first input from the position `column`."""
    path.write_text("a,b,y\n" + "".join(f"{row % 7},{row % 5},{row % 2}\n" for row in range(60)), encoding="utf-8")
    datasets = {"t": {"name": "csv", "path": str(path), "targets": ["y"]}}
    document = valid_document(datasets=datasets, tasks={"y": {"dataset": "t", "kind": "binary"}})
    document["model"]["normalize.t.0.column"][0] = column
    return document


def make(folder: Path) -> dict[str, Path]:
    """Write the malicious checkpoints to a folder; return their paths by name."""
    document = valid_document()
    contents = {
        **_files(folder, serialize(document)),
        **{key: serialize(value) for key, value in _documents(document).items()},
        **_pickles(folder),
        "deflate_bomb": deflate_bomb(),
    }
    paths = {}
    for key, content in contents.items():
        paths[key] = folder / f"{key}.pt"
        if isinstance(content, bytes):
            paths[key].write_bytes(content)
        else:
            content(paths[key])
    return paths


def _files(folder: Path, valid: bytes) -> dict[str, bytes | Callable[[Path], Any]]:
    """Return files that are not archives of torch."""

    def legacy(path: Path) -> None:
        torch.save({"format": "mtl", "code": MaliciousCode(folder)}, path, _use_new_zipfile_serialization=False)

    return {
        "empty": b"",
        "truncated": valid[: len(valid) // 2],
        "pickle": pickle.dumps(MaliciousCode(folder)),
        "legacy_format": legacy,
        "unsealed": valid[:-75],
        "directory": Path.mkdir,
        "fifo": os.mkfifo,
        "link_to_a_device": lambda path: path.symlink_to("/dev/zero"),
        "link_to_itself": lambda path: path.symlink_to(path),
        "missing": lambda path: None,
    }


def _documents(valid: dict[str, Any]) -> dict[str, Any]:
    """Return documents that torch can write and read, with invalid content."""

    def changed(path: str, value: Any) -> dict[str, Any]:
        new = copy.deepcopy(valid)
        set_value(new, path, value)
        return new

    weights: dict[str, torch.Tensor] = valid["model"]
    first = next(iter(weights))
    nan = weights[first].clone()
    nan.flatten()[-1] = float("nan")
    laughs: Any = ["ha"] * 10
    for _ in range(30):
        laughs = [laughs] * 10
    nested: Any = []
    for _ in range(200):
        nested = [nested]
    return {
        "whole_module": nn.Linear(2, 2),
        "tensor": torch.zeros(3),
        "future_version": {"format": "mtl", "version": 2**40},
        "version_of_another_type": {"format": "mtl", "version": [2]},
        "missing_key": {**valid, "model": {key: value for key, value in weights.items() if key != first}},
        "extra_key": {**valid, "model": {**weights, "os.system": torch.zeros(1)}},
        "misshapen_key": {**valid, "model": {**weights, first: torch.zeros(3, 3, 3)}},
        "key_of_another_type": {**valid, "model": {**weights, first: weights[first].long()}},
        "nan_weights": {**valid, "model": {**weights, first: nan}},
        "no_tensor": {**valid, "model": {**weights, first: [1.0]}},
        "model_of_another_type": {**valid, "model": [1]},
        "parameter": {**valid, "model": {**weights, first: nn.Parameter(weights[first])}},
        "sparse": {**valid, "model": {**weights, first: torch.eye(3).to_sparse()}},
        "a_trillion_laughs": {**valid, "history": laughs},
        "nested": {**valid, "history": nested},
        "a_set": {**valid, "history": {1, 2}},
        "hidden_units": changed("config.trunk.hidden", [2**40]),
        "many_layers": changed("config.trunk.hidden", [16] * 100_000),
        "large_layers": changed("config.trunk.hidden", [2**20] * 50),
        "epochs_beyond_any": changed("config.training.epochs", 2**200),
        "task_named_as_a_path": changed("config.tasks", {"../../x": valid["config"]["tasks"]["digit"]}),
        "escapes_in_a_name": changed("config.tasks", {"\x1b[31mred\x1b]0;title\a": valid["config"]["tasks"]["digit"]}),
        "markup_in_a_name": changed("config.tasks", {"[bold red]x[/]": valid["config"]["tasks"]["digit"]}),
        "line_break_in_a_name": changed("config.trunk.name", "x\nerror: all is fine"),
        "config_of_another_type": {**valid, "config": "os.system"},
        "path_outside": changed("config.datasets.digits", {"name": "csv", "path": "/etc/passwd", "targets": ["y"]}),
        "matrix_in_a_file": changed("config.weighting", {"name": "relation", "matrix": "/etc/passwd"}),
        "specs_of_another_type": changed("specs.digits", 3),
        "specs_without_a_shape": changed("specs.digits.input_shape", []),
        "specs_of_a_large_shape": changed("specs.digits.input_shape", [2**20, 2**20, 2**20]),
        "classes_beyond_any": changed("specs.digits.targets.digit.size", 2**40),
        "a_plugin_of_its_own": {**changed("config.trunk.name", "evil"), "plugins": {"trunk evil": "/tmp/evil.py"}},
        **{f"{COMMAND}_as_{path}": changed(f"config.{path}", value) for path, value in INJECTIONS.items()},
    }


def set_value(plain: Any, path: str, value: Any) -> None:
    """Set the value at a dotted path; if the parent is a list, append the value to it."""
    *parents, last = path.split(".")
    for key in parents:
        plain = plain.setdefault(key, {})
    if isinstance(plain, list):
        plain.append(value)
    else:
        plain[last] = value


def _pickles(folder: Path) -> dict[str, bytes]:
    """Return files whose pickles are constructed opcode by opcode."""
    code = {"format": "mtl", "version": FORMAT, "config": {}, "specs": {}, "model": MaliciousCode(folder)}
    deep = b")" + b"\x85" * 200_000  # ((((…),),),)
    doubled = b"](" + b")q\1" + b"h\1h\1\x86q\1" * 60 + b"e"  # each tuple contains the previous one twice
    storage = pickle_storage("ByteStorage", b"h\1", 1)
    return {
        "sealed_pickle": serialize(code),
        "claims_more_than_its_memory": archive_pickle(pickle_model(pickle_tensor(2**40, 2**40)), b"\0" * 4),
        "claims_4_tebibytes_by_a_view": archive_pickle(pickle_model(pickle_tensor(1, 2**40, stride=0)), b"\0" * 4),
        "tensor_that_wants_a_gradient": archive_pickle(pickle_model(pickle_tensor(1, 1, gradient=True)), b"\0" * 4),
        "bytearray": archive_pickle(pickle_model(pickle_name("builtins", "bytearray") + pickle_int(2**42) + b"\x85R")),
        "large_tensor": archive_pickle(
            pickle_model(pickle_name("torch", "Tensor") + pickle_int(2**20) + pickle_int(2**20) + b"\x86R")
        ),
        "deep_key": archive_pickle(pickle_model(b"}" + deep + b"Ns")),
        "doubled_key": archive_pickle(pickle_model(b"}" + pickle_text("a") + doubled + b"sh\1Ns")),
        "doubled_key_of_a_memory": archive_pickle(
            pickle_model(b"}" + pickle_text("a") + doubled + b"s" + pickle_text("b") + storage + b"s")
        ),
        "builds": archive_pickle(pickle_model(pickle_name("collections", "OrderedDict") + b")R}b")),
        "memo_beyond_any": archive_pickle(pickle_model(b"Nr\xff\xff\xff\xff")),
        "without_an_end": archive_pickle(b"\x80\x02}" * 100),
        "no_pickle": build_archive(Member("archive/version", b"3\n")),
        "two_pickles": build_archive(
            Member("archive/data.pkl", pickle_model(b"]")), Member("archive/DATA.PKL", pickle_model(b"]"))
        ),
        "constants": build_archive(
            Member("archive/data.pkl", pickle_model(b"]")), Member("archive/constants.pkl", b"")
        ),
        "name_outside": build_archive(Member("archive/data.pkl", pickle_model(b"]")), Member("../../x", b"")),
        "claims_a_large_member": build_archive(Member("archive/data.pkl", pickle_model(b"]"), size=2**31)),
    }


def deflate_bomb(size: int = 2**32 - 2**20) -> bytes:
    """Return an archive of 4 MB whose pickle decompresses to `size` bytes, as declared."""
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = compressor.compress(bytes(2**20)) + compressor.flush(zlib.Z_FULL_FLUSH)
    return build_archive(Member("archive/data.pkl", block * (size // 2**20) + compressor.flush(), DEFLATED, size))
