"""The import of torchmetrics."""

from __future__ import annotations

import subprocess
import sys

IMPORT = """
import sys
from lightning_utilities.core import imports
from mtlcli.tasks.binary_metrics import import_torchmetrics
import_torchmetrics()
from torchmetrics.classification import MultilabelStatScores
print(*[name for name in ("torchvision", "scipy.signal", "matplotlib.pyplot") if name in sys.modules])
assert sys.modules["lightning_utilities.core.imports"] is imports
assert imports.package_available("torchvision") and imports.RequirementCache("matplotlib")
"""


def test_torchmetrics_is_imported_without_unused_packages() -> None:
    done = subprocess.run([sys.executable, "-c", IMPORT], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "\n", "")
