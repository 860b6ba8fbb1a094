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
import importlib
import io
import os
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = f"{ROOT}/mtlcli/"
BUILD = ("training/assembly/build.py", "build")
RUN = ["train", "configs/digits.yaml", "weighting=pcgrad", "training.epochs=1"]

LIBRARIES = ["matplotlib.backends.backend_agg", "rich.progress", "sklearn.datasets", "torch._dynamo"]

TraceFunction = Callable[[FrameType, str, Any], Any]


class Trace:
    """First calls of the package's functions, of all of them and during the construction of the run."""

    def __init__(self) -> None:
        self.calls: dict[tuple[str, str, int], None] = {}
        self.of_build: dict[tuple[str, str, int], None] = {}
        self.importing = self.building = 0

    def __call__(self, frame: FrameType, event: str, argument: Any) -> TraceFunction | None:
        """Note a call; return a function that is called when it returns, if that matters."""
        code = frame.f_code
        if not code.co_filename.startswith(PACKAGE):
            return None
        file = code.co_filename.removeprefix(PACKAGE)
        if code.co_name == "<module>":
            self.importing += 1
            return self._at_end(frame, "importing")
        is_function = code.co_flags & 1  # CO_OPTIMIZED, which the body of a class lacks
        if self.importing or not is_function:
            return None
        key = (file, code.co_name, code.co_firstlineno)
        self.calls[key] = None
        is_build = (file, code.co_name) == BUILD
        self.building += is_build
        if self.building and not code.co_name.startswith("<"):
            self.of_build[key] = None
        return self._at_end(frame, "building") if is_build else None

    def _at_end(self, frame: FrameType, counter: str) -> TraceFunction:
        frame.f_trace_lines = False

        def trace(frame: FrameType, event: str, argument: Any) -> TraceFunction:
            if event == "return":
                setattr(self, counter, getattr(self, counter) - 1)
            return trace

        return trace


def count_returns(files: list[str]) -> int:
    """Count how often a sequence of files comes back to one that it has left."""
    left: set[str] = set()
    returns = 0
    for before, file in zip(["", *files], files, strict=False):
        if file != before:
            left.add(before)
            returns += file in left
    return returns


def _prepare_libraries() -> None:
    """Import what a run imports from other packages, and skip the drawing of figures: both take long while traced."""
    for name in LIBRARIES:
        importlib.import_module(name)
    from matplotlib.figure import Figure

    Figure.savefig = lambda *arguments, **options: None  # type: ignore[method-assign]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--list", action="store_true", help="print each file with its functions")
    args = parser.parse_args()
    os.chdir(ROOT)
    sys.path.insert(0, str(ROOT))
    trace = Trace()
    with tempfile.TemporaryDirectory() as folder:
        _prepare_libraries()
        from mtlcli.cli import main as run_mtl

        threading.settrace(trace)
        sys.settrace(trace)
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            code = run_mtl([*RUN, "--run-dir", f"{folder}/run"])
        sys.settrace(None)
        threading.settrace(None)  # type: ignore[arg-type]
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
