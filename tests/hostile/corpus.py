"""All malicious files; `python -m tests.hostile.corpus FOLDER` writes them to the folder.

For each file it prints the arguments of the calls of `mtl` to test, separated by tabs. Every call must end with exit
code 1 or 2 and one message; afterwards, the folder must not contain a file `ran`.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tests.hostile import checkpoints, configs

DOCUMENTED_FILES = {
    "pickle that runs a command": "sealed_pickle.pt",
    "legacy-format pickle": "legacy_format.pt",
    "whole module": "whole_module.pt",
    "empty": "empty.pt",
    "truncated": "truncated.pt",
    "deflate bomb": "deflate_bomb.pt",
    "1.8 kB file claiming 4×2⁴⁰ bytes": "claims_more_than_its_memory.pt",
    "config with 2⁴⁰ hidden units": "hidden_units.yaml",
    "config with os.system for every name": "os.system_everywhere.yaml",
    "NaN weights": "nan_weights.pt",
    "missing key": "missing_key.pt",
    "extra key": "extra_key.pt",
    "misshapen key": "misshapen_key.pt",
    "future version": "future_version.pt",
    "symlink to a device": "link_to_a_device.pt",
    "symlink to itself": "link_to_itself.pt",
    "FIFO": "fifo.pt",
    "directory": "directory.pt",
    "!!python/object": "python_object.yaml",
    "alias bomb": "alias_bomb.yaml",
    "2,000 nested braces": "nested_braces.yaml",
    "duplicate key": "duplicate_key.yaml",
    "task named ../../x": "task_named_as_a_path.yaml",
    "rich markup in a name": "markup_in_a_name.yaml",
    "escape codes in a name": "escapes_in_a_name.yaml",
    "malicious environment variable": "hostile_variable.yaml",
}
"""The 26 files that docs/reliability.md mentions, by their descriptions."""


def write_checkpoints(folder: Path) -> dict[str, Path]:
    """Write the malicious checkpoints; return their paths by name."""
    return checkpoints.make(folder)


def write_configs(folder: Path) -> dict[str, Path]:
    """Write the malicious experiment files, to be read with `configs.ENVIRONMENT` set; return their paths by name."""
    return configs.make(folder)


def main() -> None:
    folder = Path(sys.argv[1])
    for path in write_checkpoints(folder).values():
        if path.stem.rpartition("_as_")[2] != "trunk.init_from":  # the origin of trained weights is not read
            print("eval", path, sep="\t")
    for path in write_configs(folder).values():
        print("validate", path, sep="\t")
        print("train", "--dry-run", path, sep="\t")


if __name__ == "__main__":
    main()
