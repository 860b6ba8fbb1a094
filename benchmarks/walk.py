"""Files that one training run passes, in the order of their first function calls.

    python benchmarks/walk.py             # the numbers
    python benchmarks/walk.py --list      # each file with its functions, in order

The run is `mtl train configs/digits.yaml weighting=pcgrad training.epochs=1`. A file counts if one of its functions is
called; what runs while a module is imported doesn't count. The second number is of the construction of the run
(`training/assembly/build`): how often a reader who opens each function at its first call returns to a file that was
left before.
"""

import argparse
import contextlib
import io
import os
import sys
import tempfile
import threading
from pathlib import Path
from types import FrameType
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = f"{ROOT}/mtlcli/"
BUILD = ("training/assembly/build.py", "build")
RUN = ["train", "configs/digits.yaml", "weighting=pcgrad", "training.epochs=1"]

Call = tuple[str, str]  # file in the package, function


class Trace:
    """First calls of the package's functions, of all of them and during the construction of the run."""

    def __init__(self) -> None:
        self.calls: dict[tuple[str, str, int], None] = {}
        self.of_build: dict[tuple[str, str, int], None] = {}
        self.importing = self.building = 0

    def __call__(self, frame: FrameType, event: str, argument: Any) -> None:
        code = frame.f_code
        step = {"call": 1, "return": -1}.get(event, 0)
        if code.co_name == "<module>":
            self.importing += step
            return
        is_function = code.co_flags & 1  # CO_OPTIMIZED, which the body of a class lacks
        if self.importing or not step or not is_function or not code.co_filename.startswith(PACKAGE):
            return
        file = code.co_filename.removeprefix(PACKAGE)
        if (file, code.co_name) == BUILD:
            self.building += step
        if step == 1:
            key = (file, code.co_name, code.co_firstlineno)
            self.calls[key] = None
            if self.building and not code.co_name.startswith("<"):
                self.of_build[key] = None


def count_returns(files: list[str]) -> int:
    """Count how often a sequence of files comes back to one that it has left."""
    left: set[str] = set()
    returns = 0
    for before, file in zip(["", *files], files, strict=False):
        if file != before:
            left.add(before)
            returns += file in left
    return returns


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--list", action="store_true", help="print each file with its functions")
    args = parser.parse_args()
    os.chdir(ROOT)
    sys.path.insert(0, str(ROOT))
    trace = Trace()
    with tempfile.TemporaryDirectory() as folder:
        from mtlcli.cli import main as run_mtl

        threading.setprofile(trace)
        sys.setprofile(trace)
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            code = run_mtl([*RUN, "--run-dir", f"{folder}/run"])
        sys.setprofile(None)
        threading.setprofile(None)
    functions: dict[str, list[str]] = {}
    for file, name, _ in trace.calls:
        functions.setdefault(file, []).append(name)
    if args.list:
        for file, names in functions.items():
            print(f"{file}: {', '.join(name for name in names if not name.startswith('<'))}")
    print(f"exit code {code}: {len(functions)} files, "
          f"{count_returns([file for file, _, _ in trace.of_build])} returns during the construction")  # fmt: skip


if __name__ == "__main__":
    main()
