"""Malicious experiment files."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.hostile.checkpoints import CANARY, COMMAND, INJECTIONS, set_value

ENVIRONMENT = {"MTL_HOSTILE": "x, lr: !!python/object/apply:os.system ['touch ran']\nseed: 1\x1b[31m"}
"""The environment variables that are set while the files are read."""

GOOD: dict[str, Any] = {
    "datasets": {"digits": {"name": "digits"}},
    "tasks": {
        "digit": {
            "dataset": "digits",
            "target": "digit",
            "kind": {"name": "classification"},
            "head": {"name": "linear"},
        }
    },
    "trunk": {"name": "mlp", "hidden": [16], "features": 8},
    "sharing": {"name": "hard"},
    "weighting": {"name": "uniform"},
    "regularizers": [],
    "optimizer": {"name": "Adam", "lr": 0.001},
    "training": {"epochs": 1, "device": "cpu", "threads": 1},
}


def make(folder: Path) -> dict[str, Path]:
    """Write the malicious experiment files to a folder; return their paths by name."""
    code = f"!!python/object/apply:os.system [\"touch '{folder / CANARY}'\"]"
    contents: dict[str, str | Callable[[Path], Any]] = {
        "python_object": f"seed: {code}\n",
        "python_object_as_a_key": f"{code}: 1\n",
        "alias_bomb": "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 60)),
        "nested_braces": "trunk: " + "{a: " * 2000 + "1" + "}" * 2000 + "\n",
        "nested_brackets": "trunk: " + "[" * 2000 + "]" * 2000 + "\n",
        "duplicate_key": yaml() + '"trunk": {"name": "lenet"}\n',
        "task_named_as_a_path": yaml(("tasks", {"../../x": GOOD["tasks"]["digit"]})),
        "run_named_as_a_path": yaml(("name", "../../x")),
        "markup_in_a_name": yaml(("tasks", {"[bold red]x[/]": GOOD["tasks"]["digit"]})),
        "escapes_in_a_name": yaml(("tasks", {"\x1b[31mred\x1b]0;title\a": GOOD["tasks"]["digit"]})),
        "line_break_in_a_name": yaml(("trunk", {"name": "x\nerror: all is fine"})),
        "hostile_variable": yaml(("optimizer", {"name": "${MTL_HOSTILE}"})),
        "hidden_units": yaml(("trunk.hidden", [2**40])),
        "many_layers": yaml(("trunk.hidden", [16] * 10_000)),
        "large_layers": yaml(("trunk.hidden", [2**20] * 50)),
        "directory": Path.mkdir,
        "fifo": os.mkfifo,
        "link_to_a_device": lambda path: path.symlink_to("/dev/zero"),
        "link_to_itself": lambda path: path.symlink_to(path),
        f"{COMMAND}_everywhere": yaml(*INJECTIONS.items()),
        **{f"{COMMAND}_as_{path}": yaml((path, value)) for path, value in INJECTIONS.items()},
    }
    paths = {}
    for key, content in contents.items():
        paths[key] = folder / f"{key}.yaml"
        if isinstance(content, str):
            paths[key].write_text(content, encoding="utf-8")
        else:
            content(paths[key])
    return paths


def yaml(*changes: tuple[str, Any]) -> str:
    """Return a valid experiment with these changes, as YAML whose sections are written as JSON."""
    plain = json.loads(json.dumps(GOOD))
    for path, value in changes:
        set_value(plain, path, value)
    return "".join(f"{json.dumps(key)}: {json.dumps(value)}\n" for key, value in plain.items())
