from pathlib import Path

import pytest

from mtlcli.error_origin import describe_error
from mtlcli.errors import ConfigError
from mtlcli.plugins import load_plugin
from mtlcli.registry import trunks


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
