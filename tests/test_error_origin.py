from pathlib import Path

import pytest

from mtlcli.error_origin import blame_options, describe_error
from mtlcli.errors import ConfigError, MtlError, OptionError
from mtlcli.plugins import load_plugin
from mtlcli.registry import trunks


def make(*, lr: float = 0.1, betas: tuple[float, float] = (0.9, 0.99), size: int, odd: bool = False) -> str:
    if lr < 0:
        raise ValueError(f"Invalid learning rate: {lr}")
    if max(betas) > 1:
        raise ValueError("beta out of range.")
    if size == 0:
        raise ZeroDivisionError
    if odd and size % 2 == 0:
        raise KeyError("odd: True")
    return "made"


@pytest.mark.usefixtures("plugins_forgotten")  # otherwise this file may be registered as a plugin
@pytest.mark.parametrize(
    ("options", "refused"),
    [
        ({"lr": -1.0, "size": 1}, {"lr": "Invalid learning rate: -1.0"}),
        ({"betas": (2.0, 0.5), "size": 1}, {"betas": "beta out of range, found [2.0, 0.5]"}),
        ({"betas": (2.0, 0.5), "lr": -1.0, "size": 1},
         {"betas": "beta out of range, found [2.0, 0.5]", "lr": "Invalid learning rate: -1.0"}),
        ({"lr": 0.2, "size": 0}, {"size": "leads to a division by zero, found 0"}),
        ({"size": 2, "odd": True}, {"odd": "KeyError: 'odd: True'"}),
    ],
)  # fmt: skip
def test_the_options_to_blame(options: dict[str, object], refused: dict[str, str]) -> None:
    with pytest.raises(OptionError) as caught:
        blame_options(make, options, required=["size"], sole=True)
    assert caught.value.refused == refused


def test_valid_options_return_the_result() -> None:
    assert blame_options(make, {"lr": 0.2, "size": 3}, required=["size"]) == "made"


def test_an_error_without_a_responsible_option_passes_through() -> None:
    def fail(**options: float) -> None:
        raise ValueError("not your options' fault")

    with pytest.raises(ValueError, match="fault"):
        blame_options(fail, {"lr": 1.0})

    def refuse(**options: float) -> None:
        raise MtlError("ours")

    with pytest.raises(MtlError, match="ours"):
        blame_options(refuse, {"lr": 1.0})


@pytest.mark.usefixtures("plugins_forgotten")
def test_the_error_of_a_plugin_has_its_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("faulty_trunk.py").write_text(
        "from mtlcli.models.trunks.mlp import MLP\nfrom mtlcli.registry import trunks\n\n"
        '@trunks.register("faulty")\nclass Faulty(MLP):\n    """Fails."""\n'
        "    def __init__(self, shape, *, features: int = 3):\n        self.table = {}[features]\n"
    )
    load_plugin("faulty_trunk.py")
    with pytest.raises(KeyError) as caught:
        trunks["faulty"].create((1, 8, 8))
    assert describe_error(caught.value) == "KeyError: 3 (faulty_trunk.py:8, in __init__)"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1\nx.y\n", "bad_plugin.py:2: AttributeError: 'int' object has no attribute 'y'"),
        ("def f(:\n", "bad_plugin.py:1: SyntaxError: invalid syntax"),
        ("import no_such_module\n", "bad_plugin.py:1: ModuleNotFoundError: No module named 'no_such_module'"),
        ("import sys\nsys.exit(0)\n", "bad_plugin.py:2: calls sys.exit(0)"),
        ("raise KeyError('a')\n", "bad_plugin.py:1: KeyError: 'a'"),
        ("raise ValueError('no good')\n", "bad_plugin.py:1: ValueError: no good"),
    ],
)  # fmt: skip
def test_a_plugin_that_cannot_be_imported_has_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("bad_plugin.py").write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_plugin("bad_plugin.py")
    assert str(caught.value) == f"--plugin bad_plugin.py: can't be imported: {message}"
