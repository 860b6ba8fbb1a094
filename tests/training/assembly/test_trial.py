"""`mtl validate` detects errors of plugin components in a step, and names the component and the line."""

from pathlib import Path

import pytest

from mtlcli.errors import ConfigError
from mtlcli.plugins import load_plugin
from mtlcli.training.assembly.build import check_experiment
from tests.training.experiments import digits

TRUNK = '''
import torch
from torch import nn
from mtlcli.models.trunks.base import Trunk
from mtlcli.registry import trunks

@trunks.register("own")
class Own(Trunk):
    """A trunk of a plugin."""

    def __init__(self, input_shape, *, width: int = 8):
        super().__init__()
        self.layer = nn.Linear(64, width)
        {init}

    def stages(self):
        return {{"layer": self.run}}

    def run(self, x):
        {run}
'''
HEAD = '''
from torch import nn
from mtlcli.registry import heads

@heads.register("own")
class Own(nn.Module):
    """A head of a plugin."""

    def __init__(self, features, outputs):
        super().__init__()
        self.layer = nn.Linear(features, {outputs})

    def forward(self, x):
        {run}
'''
KIND = '''
from torch.nn import functional as F
from mtlcli.registry import kinds
from mtlcli.tasks.kinds.classification import Classification
from mtlcli.tasks.base import TaskKind

@kinds.register("own")
class Own({base}):
    """A kind of a plugin."""
    {body}
'''
WEIGHTING = '''
import torch
from mtlcli.registry import weightings
from mtlcli.weighting.base import GramianWeighting
from mtlcli.weighting.base import LossWeighting

@weightings.register("own")
class Own({base}):
    """A weighting of a plugin."""
    {body}
'''
REGULARIZER = '''
from mtlcli.registry import regularizers
from mtlcli.regularizers.base import Regularizer

@regularizers.register("own")
class Own(Regularizer):
    """A term of a plugin."""
    default_strength = 1.0

    def __init__(self, subject):
        super().__init__()

    def term(self, passes):
        {run}
'''
SAMPLER = '''
from mtlcli.data.samplers.proportional import Proportional
from mtlcli.registry import samplers

@samplers.register("own")
class Own(Proportional):
    """A sampler of a plugin."""

    def __init__(self, sizes, batch_size, *, rows: int = 1):
        if batch_size % rows:
            raise ValueError(f"`rows` must divide the batch size, {batch_size}")
        super().__init__(sizes, batch_size)
'''
FLAT = "return self.layer(x.flatten(1))"


def problems(folder: Path, monkeypatch: pytest.MonkeyPatch, source: str, **sections: object) -> list[str]:
    monkeypatch.chdir(folder)
    Path("own.py").write_text(source, encoding="utf-8")
    load_plugin("own.py")
    try:
        check_experiment(digits(**sections))
    except ConfigError as error:
        return [f"{problem.path}: {problem.message}" for problem in error.problems]
    return []


@pytest.mark.parametrize(
    ("init", "run", "expected"),
    [
        ("self.features = width", FLAT, None),
        ("self.features = 9", FLAT, "trunk: returns [2, 8] for 2 examples of 'digits', but its `features` is 9"),
        ("pass", FLAT, "trunk: does not set `features`, the number of features it returns"),
        ("self.features = width", "return self.layer(x)", "trunk: mat1 and mat2 shapes cannot be multiplied"),
        ("self.features = width", "return self.layr(x)", "trunk: AttributeError: 'Own' object has no attribute 'layr'"),
        ("self.features = width", "return {}['a']", "trunk: KeyError: 'a' (own.py:20, in run)"),
        ("self.features = width", "import sys; sys.exit(0)", "trunk: calls sys.exit(0) (own.py:20, in run)"),
        ("self.features = width; 1 / 0", FLAT, "trunk: leads to a division by zero (own.py:14, in __init__)"),
        # it fails on the meta device but works on the CPU
        ("self.features = width", f"assert x.sum().item() == x.sum().item(); {FLAT}", None),
        ("self.features = width", "return self.layer(x.flatten(1)).tolist()", "trunk: returns a list for 2 examples"),
    ],
)  # fmt: skip
def test_errors_of_trunks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, init: str, run: str, expected: str | None
) -> None:
    messages = problems(tmp_path, monkeypatch, TRUNK.format(init=init, run=run), trunk={"name": "own"})
    assert len(messages) == (expected is not None)
    assert expected is None or messages[0].startswith(expected)


@pytest.mark.parametrize(
    ("outputs", "run", "expected"),
    [
        ("outputs", "return self.layer(x)", None),
        (
            "outputs + 1",
            "return self.layer(x)",
            "returns [2, 11] for 2 examples, but kind 'classification' needs [B, 10]",
        ),
        ("outputs", "return self.layer(x.T)", "mat1 and mat2 shapes cannot be multiplied"),
        ("outputs", "return None", "returns a NoneType for 2 examples"),
    ],
)
def test_errors_of_heads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, outputs: str, run: str, expected: str | None
) -> None:
    tasks = {"digit": {"dataset": "digits", "kind": "classification", "head": "own"}}
    messages = problems(tmp_path, monkeypatch, HEAD.format(outputs=outputs, run=run), tasks=tasks)
    assert len(messages) == (expected is not None)
    assert expected is None or messages[0].startswith(f"tasks.digit.head: {expected}")


@pytest.mark.parametrize(
    ("base", "body", "expected"),
    [
        ("Classification", "pass", None),
        ("Classification", "def loss(self, p, t): return F.cross_entropy(p, t, reduction='none')",
         "its loss is [2], but must"),
        ("Classification", "def loss(self, p, t): return p.nothing",
         "AttributeError: 'Tensor' object has no attribute"),
        ("Classification", "def metrics(self, device): return None",
         "AttributeError: 'NoneType' object has no attribute"),
        ("Classification", "directions = {'loss': 'min', 'accuracy': 'max'}",
         "its metrics are ['accuracy', 'f1'], but its"),
        ("Classification", "primary = 'nothing'", "its `primary` is 'nothing', which is not in `directions`"),
        ("object", "def __init__(self, target): pass", "is of type Own, but must be of type mtlcli.tasks.base"),
        ("TaskKind", "accepts = ('classes',)",
         "Can't instantiate abstract class Own with abstract methods loss, metrics"),
    ],
)  # fmt: skip
def test_errors_of_kinds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, base: str, body: str, expected: str | None
) -> None:
    tasks = {"digit": {"dataset": "digits", "kind": "own"}}
    messages = problems(tmp_path, monkeypatch, KIND.format(base=base, body=body), tasks=tasks)
    if expected is None:
        assert not messages
    elif base == "TaskKind":  # the message differs between versions of Python
        assert messages[0].startswith("tasks.digit.kind: ") and "abstract" in messages[0]
    else:
        assert messages[0].startswith(f"tasks.digit.kind: {expected}")


@pytest.mark.parametrize(
    ("base", "body", "expected"),
    [
        ("LossWeighting", "def objective(self, l, p, share=1.0): return l.sum(), torch.ones_like(l)", None),
        ("LossWeighting", "def objective(self, l, p, share=1.0): return l, torch.ones_like(l)",
         "its objective is [2], but must"),
        ("LossWeighting", "def objective(self, l, p, share=1.0): return l.sum(), torch.ones(3)",
         "its weights is [3], but must"),
        ("LossWeighting", "def objective(self, l, p): return l.sum(), torch.ones_like(l)",
         "Own.objective() takes 3 positional arguments but 4"),
        ("LossWeighting", "pass", "NotImplementedError"),
        ("GramianWeighting", "def weights(self, g, l, p): return g[0]", None),
        ("GramianWeighting", "def weights(self, g, l, p): return g", "its weights is [2, 2], but must be a tensor"),
        ("GramianWeighting", "def weights(self, g): return g[0]", "Own.weights() takes 2 positional arguments but 4"),
    ],
)  # fmt: skip
def test_errors_of_weightings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, base: str, body: str, expected: str | None
) -> None:
    messages = problems(tmp_path, monkeypatch, WEIGHTING.format(base=base, body=body), weighting={"name": "own"})
    assert len(messages) == (expected is not None)
    assert expected is None or messages[0].startswith(f"weighting: {expected}")


@pytest.mark.parametrize(
    ("run", "expected"),
    [
        ("return {}['x']", "KeyError: 'x' (own.py:14, in term)"),
        ("pass", "its term is a NoneType, but must be a tensor of shape []"),
        ("return 1.0", "its term is a float, but must be a tensor of shape []"),
        ("import torch; return torch.ones(2)", "its term is [2], but must be a tensor of shape []"),
    ],
)
def test_errors_of_regularizers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: str, expected: str) -> None:
    """The problem is reported at the entry of the list, together with those of the other regularizers."""
    regularizers = [{"name": "l2", "strength": 0.1}, "own", {"name": "own", "strength": 2.0}]
    messages = problems(tmp_path, monkeypatch, REGULARIZER.format(run=run), regularizers=regularizers)
    assert [problem.removesuffix(" (in the experiment of checkpoint.pt)") for problem in messages] == [
        f"regularizers.{index}: {expected}" for index in (1, 2)
    ]


@pytest.mark.parametrize(("rows", "valid"), [(4, True), (3, False)])
def test_sampler_that_refuses_its_options(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: int, valid: bool
) -> None:
    training = {"batch_size": 16, "sampling": {"name": "own", "rows": rows}}
    messages = problems(tmp_path, monkeypatch, SAMPLER, training=training)
    expected = "training.sampling.rows: `rows` must divide the batch size, 16, found 3 (own.py:11, in __init__)"
    assert [message.removesuffix(" (in the experiment of checkpoint.pt)") for message in messages] == [expected] * (
        not valid
    )


def test_image_reduced_to_zero_size_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"trunk"):
        check_experiment(digits(trunk={"name": "lenet"}))
